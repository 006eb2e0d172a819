//! What the command line asks about the stored evidence of the fleet, and what it hears. Nothing is changed by it.

use rootbound_common::id::NodeId;
use rootbound_compute::values::BootValues;
use serde::{Deserialize, Serialize};

use super::answer::Session;
use super::message::{Command, DigestFrame, Reply, Words};
use crate::audit::RecordId;
use crate::flows::operate::OperateError;
use crate::flows::survey::dry_run::{DryRunPage, DryRunProgress, Proposal};
use crate::flows::survey::shared::{SharedCapture, WhichFiles};
use crate::flows::survey::why::Why;
use crate::node::{Labels, Name};
use crate::reference::{AcceptedPcrs, ProfileBody, ReferenceChange, SetKind};

/// What an operator asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SurveyCommand {
    /// Begin to look at what changes would make of the fleet.
    DryRun {
        /// All of them together.
        changes: Vec<ProposedChange>,
        /// Why.
        reason: Words,
    },
    /// How far is it?
    DryRunProgress {
        /// Which.
        id: RecordId,
    },
    /// What did it find?
    DryRunPage {
        /// Which.
        id: RecordId,
        /// Only nodes after this one.
        after: Option<NodeId>,
        /// At most so many; more than [`Command::MAX_PAGE`] are not given at once.
        limit: u32,
    },
    /// Why does a node deviate?
    Why {
        /// Which.
        node: NodeId,
        /// At most so many deviations.
        limit: u32,
    },
    /// What do several nodes share?
    Capture {
        /// These.
        nodes: Vec<NodeId>,
        /// And those that have all of these labels, where any are given.
        labels: Labels,
        /// Which files a digest set is to hold, where one is wanted.
        files: Option<WhichFiles>,
    },
}

/// A change that could be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ProposedChange {
    /// The next version of a reference set.
    Set {
        /// What it is called.
        name: Name,
        /// Its values.
        accepted: AcceptedPcrs,
    },
    /// The next version of a boot set.
    Boot {
        /// What it is called.
        name: Name,
        /// Its values.
        values: BootValues,
    },
    /// The next version of a digest set.
    Digests {
        /// What it is called.
        name: Name,
        /// Its text, as a zstd frame.
        frame: DigestFrame,
    },
    /// The next version of a profile.
    Profile {
        /// What it is called.
        name: Name,
        /// What it says.
        body: Box<ProfileBody>,
    },
    /// A set is withdrawn.
    Withdraw {
        /// Which kind, where two have the name.
        kind: Option<SetKind>,
        /// Its name.
        name: Name,
    },
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SurveyReply {
    /// To [`SurveyCommand::DryRun`] and [`SurveyCommand::DryRunProgress`].
    Progress(DryRunProgress),
    /// To [`SurveyCommand::DryRunPage`].
    Page(DryRunPage),
    /// To [`SurveyCommand::Why`].
    Why(Why),
    /// To [`SurveyCommand::Capture`].
    Captured(Box<SharedCapture>),
}

impl From<ProposedChange> for Proposal {
    fn from(change: ProposedChange) -> Self {
        match change {
            ProposedChange::Set { name, accepted } => Self::Change(ReferenceChange::Set(name, accepted)),
            ProposedChange::Boot { name, values } => Self::BootValues(name, values),
            ProposedChange::Digests { name, frame } => Self::DigestText(name, frame.into_bytes()),
            ProposedChange::Profile { name, body } => Self::Change(ReferenceChange::Profile(name, body)),
            ProposedChange::Withdraw { kind, name } => Self::Change(ReferenceChange::Withdraw(kind, name)),
        }
    }
}

/// Does what a command says.
pub(super) async fn answer(session: &Session<'_>, command: SurveyCommand) -> Result<Reply, OperateError> {
    let verifier = session.verifier;
    let bounded = |limit: u32| usize::try_from(limit.clamp(1, Command::MAX_PAGE)).unwrap_or(1);
    let reply = match command {
        SurveyCommand::DryRun { changes, reason } => {
            let proposals = changes.into_iter().map(Proposal::from).collect();
            SurveyReply::Progress(verifier.dry_run(proposals, &session.operator(&reason)).await?)
        }
        SurveyCommand::DryRunProgress { id } => SurveyReply::Progress(verifier.dry_run_progress(id)?),
        SurveyCommand::DryRunPage { id, after, limit } => {
            SurveyReply::Page(verifier.dry_run_page(id, after, bounded(limit))?)
        }
        SurveyCommand::Why { node, limit } => SurveyReply::Why(verifier.why(node, bounded(limit)).await?),
        SurveyCommand::Capture { nodes, labels, files } => {
            SurveyReply::Captured(Box::new(verifier.capture_shared(nodes, labels, files).await?))
        }
    };
    Ok(Reply::Survey(Box::new(reply)))
}
