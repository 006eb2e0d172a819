//! The verbs about policies and decisions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use rootbound_common::id::NodeId;

use super::files::{self, FileError};
use super::verbs::Reason;
use crate::audit::{Outcome, RecordId};
use crate::flows::policies::{BUILTIN, WhichBundle};
use crate::http::admin::message::Command;
use crate::http::admin::policies::{DecisionCommand, PolicyCommand};
use crate::node::Name;
use crate::policy::{Bundle, BundleError, BundleSource};
use crate::reference::Versioned;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Write the next version of a bundle from a folder: *.cedar, schema.cedarschema, entities.json, tests/*.json
    ///
    /// It is compiled and its cases are run first. It comes into force with `activate`.
    Put {
        /// The bundle
        name: Name,
        /// The folder
        folder: PathBuf,
        #[command(flatten)]
        reason: Reason,
    },
    /// List every version of every bundle, and what came into force when
    List,
    /// Print a bundle's files, or write them to a folder
    Show {
        /// NAME, NAME@VERSION or `builtin`
        #[arg(value_parser = which)]
        bundle: WhichBundle,
        /// Write the files to this new folder instead
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
    },
    /// Say what differs between two bundles, line by line
    Diff {
        /// NAME, NAME@VERSION or `builtin`
        #[arg(value_parser = which)]
        from: WhichBundle,
        /// NAME, NAME@VERSION or `builtin`
        #[arg(value_parser = which)]
        to: WhichBundle,
    },
    /// Say which of the last recorded decisions a bundle would change; nothing is changed by that
    DryRun {
        /// NAME, NAME@VERSION or `builtin`
        #[arg(value_parser = which)]
        bundle: WhichBundle,
        /// Of the last so many decisions
        #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        last: u64,
    },
    /// Put a bundle in force, as a whole, for every decision from now on
    Activate {
        /// NAME, NAME@VERSION or `builtin`
        #[arg(value_parser = which)]
        bundle: WhichBundle,
        /// Only if this activation is still the last, as `list` shows it (0: there was none)
        #[arg(long, value_name = "NUMBER")]
        over: Option<u64>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Compile a folder and run its cases, without a daemon; exit code 9 where one fails
    Test {
        /// The folder
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DecisionVerb {
    /// List decisions that services asked for, the latest first
    List {
        /// Only about this node, or by it
        #[arg(long)]
        node: Option<NodeId>,
        /// Only those that allowed
        #[arg(long, conflicts_with = "denied")]
        allowed: bool,
        /// Only those that denied
        #[arg(long)]
        denied: bool,
        /// Only those before this number, where the page before ended
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
        /// At most so many
        #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(Command::MAX_PAGE)))]
        limit: u32,
    },
    /// Show what is on record of a decision
    Show {
        /// Its id
        id: RecordId,
    },
    /// Explain a decision: which policies determined it, with which attested facts, and what would have allowed it
    Explain {
        /// Its id
        id: RecordId,
    },
}

impl PolicyVerb {
    /// As the daemon takes it; `None` for what is done without it, or with more than one command.
    pub(super) fn command(self) -> Result<Command, FileError> {
        Ok(Command::Policy(match self {
            Self::Put { name, folder, reason } => {
                PolicyCommand::Put { name, source: Box::new(read_folder(&folder)?), reason: reason.reason }
            }
            Self::List => PolicyCommand::List,
            Self::Show { bundle, to: _ } | Self::Diff { from: bundle, to: _ } => PolicyCommand::Show { bundle },
            Self::DryRun { bundle, last } => PolicyCommand::Rehearse { bundle, last },
            Self::Activate { bundle, over, reason } => {
                PolicyCommand::Activate { bundle, over, reason: reason.reason }
            }
            // `obey` does it before anything is said to the daemon.
            Self::Test { .. } => PolicyCommand::List,
        }))
    }
}

impl DecisionVerb {
    pub(super) fn command(self) -> Command {
        Command::Decision(match self {
            Self::List { node, allowed, denied, before, limit } => {
                let outcome = match (allowed, denied) {
                    (true, _) => Some(Outcome::Granted),
                    (false, true) => Some(Outcome::Refused),
                    (false, false) => None,
                };
                DecisionCommand::List { node, outcome, before, limit }
            }
            Self::Show { id } => DecisionCommand::Show { id },
            Self::Explain { id } => DecisionCommand::Explain { id },
        })
    }
}

/// NAME, NAME@VERSION or `builtin`.
fn which(text: &str) -> Result<WhichBundle, String> {
    if text == BUILTIN {
        return Ok(WhichBundle::Builtin);
    }
    let (name, version) = match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let name = name.parse::<Name>().map_err(|error| error.to_string())?;
    let version = version.map(|version| version.parse().map_err(|_| "a version is a number".to_owned()));
    Ok(WhichBundle::Written { name, version: version.transpose()? })
}
