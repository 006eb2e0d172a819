//! What the command line says to the running daemon about policies and decisions, and what it hears.

use rootbound_common::id::NodeId;
use serde::{Deserialize, Serialize};

use super::answer::Session;
use super::message::{Reply, Words};
use crate::audit::{Outcome, RecordId, RecordKind};
use crate::flows::policies::{PolicyError, WhichBundle};
use crate::node::Name;
use crate::policy::BundleSource;
use crate::reference::Provenance;
use crate::store::audit::RecordFilter;
use crate::store::{Activation, PolicyBundleRecord};

/// What an operator wants of policies.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PolicyCommand {
    /// Write the next version of a bundle.
    Put {
        /// Its name.
        name: Name,
        /// Its files.
        source: Box<BundleSource>,
        /// Why.
        reason: Words,
    },
    /// Which bundles are there, and which is in force?
    List,
    /// What does a bundle say?
    Show {
        /// Which.
        bundle: WhichBundle,
    },
    /// What would it have made of recorded decisions?
    Rehearse {
        /// Which.
        bundle: WhichBundle,
        /// Of the last so many.
        last: u64,
    },
    /// Put a bundle in force.
    Activate {
        /// Which.
        bundle: WhichBundle,
        /// The activation that it is to replace; of this moment, where it is not said.
        over: Option<u64>,
        /// Why.
        reason: Words,
    },
}

/// What an operator wants of decisions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DecisionCommand {
    /// Which were made?
    List {
        /// Only about this node, or by it.
        node: Option<NodeId>,
        /// Only with this outcome.
        outcome: Option<Outcome>,
        /// Only before this number.
        before: Option<u64>,
        /// At most so many.
        limit: u32,
    },
    /// What is on record of one?
    Show {
        /// Which.
        id: RecordId,
    },
    /// Why is one as it is?
    Explain {
        /// Which.
        id: RecordId,
    },
}

/// A version of a bundle in one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicySummary {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u32,
    /// SHA-256 of its text, in hex.
    pub content: String,
    /// Whether it is in force.
    pub active: bool,
    /// Who wrote it.
    pub provenance: Provenance,
}

/// A bundle was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyWritten {
    /// Which.
    #[serde(flatten)]
    pub bundle: PolicySummary,
    /// What the compiler warns of.
    pub warnings: Vec<String>,
}

/// The bundles that were written, and what is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyList {
    /// By name and rising version.
    pub bundles: Vec<PolicySummary>,
    /// The last activations, the latest first; none: the program's own bundle is in force, and always was.
    pub activations: Vec<ActivationDetail>,
}

/// That a bundle came into force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ActivationDetail {
    /// 1 for the first.
    pub number: u64,
    /// `name@version`, or `builtin`.
    pub bundle: String,
    /// Who did it.
    pub provenance: Provenance,
}

impl ActivationDetail {
    fn of(activation: Activation) -> Self {
        let bundle = activation.bundle.map(|id| id.to_string());
        Self {
            number: activation.number,
            bundle: bundle.unwrap_or_else(|| WhichBundle::Builtin.to_string()),
            provenance: activation.provenance,
        }
    }
}

/// A bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyDetail {
    /// `name@version`, or `builtin`.
    pub bundle: String,
    /// Who wrote it; absent: it is part of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// Its files.
    pub source: BundleSource,
}

/// Activations that are listed.
const ACTIVATIONS: u32 = 10;

/// Does what a command says.
pub(super) async fn answer(session: &Session<'_>, command: PolicyCommand) -> Result<Reply, PolicyError> {
    let verifier = session.verifier;
    match command {
        PolicyCommand::Put { name, source, reason } => {
            let (record, warnings) = verifier.put_policy(name, *source, &session.operator(&reason)).await?;
            Ok(Reply::PolicyWritten(PolicyWritten { bundle: summary(record, None), warnings }))
        }
        PolicyCommand::List => {
            let activations = verifier.store().policy_activations(ACTIVATIONS).await?;
            let bundles = verifier.store().policy_bundles().await?;
            let active = activations.first();
            let bundles = bundles.into_iter().map(|bundle| summary(bundle, active)).collect();
            let activations = activations.into_iter().map(ActivationDetail::of).collect();
            Ok(Reply::Policies(PolicyList { bundles, activations }))
        }
        PolicyCommand::Show { bundle } => {
            let (record, source) = verifier.policy_source(&bundle).await?;
            let name = record.as_ref().map_or_else(|| bundle.to_string(), |record| record.id.to_string());
            let provenance = record.map(|record| record.provenance);
            Ok(Reply::Policy(Box::new(PolicyDetail { bundle: name, provenance, source })))
        }
        PolicyCommand::Rehearse { bundle, last } => {
            Ok(Reply::Rehearsal(verifier.rehearse(&bundle, last).await?))
        }
        PolicyCommand::Activate { bundle, over, reason } => {
            let done = verifier.activate_policy(&bundle, over, &session.operator(&reason)).await?;
            Ok(Reply::PolicyActivated(ActivationDetail::of(done)))
        }
    }
}

/// Does what a command says.
pub(super) async fn answer_decision(
    session: &Session<'_>,
    command: DecisionCommand,
) -> Result<Reply, PolicyError> {
    let verifier = session.verifier;
    match command {
        DecisionCommand::List { node, outcome, before, limit } => {
            let filter = RecordFilter { node, kinds: vec![RecordKind::Decision], outcome };
            Ok(Reply::Decisions(verifier.store().records(&filter, before, limit).await?))
        }
        DecisionCommand::Show { id } => {
            let found = verifier.store().record(id).await?;
            Ok(Reply::Decision(found.ok_or_else(|| PolicyError::NoSuchDecision(id.to_string()))?))
        }
        DecisionCommand::Explain { id } => Ok(Reply::Explained(Box::new(verifier.explain(id).await?))),
    }
}

fn summary(record: PolicyBundleRecord, active: Option<&Activation>) -> PolicySummary {
    let PolicyBundleRecord { id, content, provenance } = record;
    PolicySummary {
        active: active.is_some_and(|active| active.bundle.as_ref() == Some(&id)),
        name: id.name,
        version: id.version,
        content: data_encoding::HEXLOWER.encode(&content),
        provenance,
    }
}
