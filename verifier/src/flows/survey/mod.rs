//! Questions over the stored evidence of the fleet, which change nothing.
//!
//! - [`dry_run`]: which nodes would stand otherwise by other reference values; `foresee`: how one node would; `together`:
//!   by several threads
//! - [`why`]: why a node deviates, and what comes nearest to what it showed
//! - [`shared`]: what several nodes have in common, and what is each one's own

pub mod dry_run;
mod foresee;
pub mod shared;
mod together;
pub mod why;

use rootbound_common::clock::Timestamp;

use crate::appraisal::runtime::DigestSetError;
use crate::evidence::frame::FrameError;
use crate::reference::{BootSetError, ChangeError};
use crate::store::StoreError;

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The change is none.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A text is no digest set.
    #[error("digest set `{name}`: {error}")]
    Digests {
        /// What the set is called.
        name: crate::node::Name,
        /// Why.
        error: DigestSetError,
    },
    /// Values are no boot set.
    #[error("boot set `{name}`: {error}")]
    Boot {
        /// What the set is called.
        name: crate::node::Name,
        /// Why.
        error: BootSetError,
    },
    /// A text does not decompress.
    #[error("digest set `{name}`: {error}")]
    Frame {
        /// What the set is called.
        name: crate::node::Name,
        /// Why.
        error: FrameError,
    },
    /// One at a time.
    #[error(
        "another dry run is under way since {since} ({done} of {total} nodes); one that nobody asks after ends by itself \
         within a minute"
    )]
    Busy {
        /// Since when.
        since: Timestamp,
        /// Nodes that it has looked at.
        done: u64,
        /// Nodes in the fleet.
        total: u64,
    },
    /// Another came after it, or the verifier was started anew.
    #[error("there is no such dry run: another came after it, or the verifier was started anew")]
    NoSuchRun,
    /// It has not ended.
    #[error("the dry run is not done: {done} of {total} nodes")]
    Unfinished {
        /// Nodes that it has looked at.
        done: u64,
        /// Nodes in the fleet.
        total: u64,
    },
    /// Nobody asked after it, or the verifier stops.
    #[error("the dry run was given up: nobody asked after it, or the verifier stops")]
    GivenUp,
    /// It failed.
    #[error("the dry run failed: {0}")]
    Failed(String),
    /// Nodes to look at have to be named.
    #[error("name nodes, or labels that nodes have")]
    NoNodes,
    /// Too many nodes are looked at together.
    #[error(
        "{found} nodes; at most {} are looked at together: name fewer, or more labels",
        shared::MOST_NODES
    )]
    TooManyNodes {
        /// How many there are.
        found: u64,
    },
    /// What several nodes ran is more than a digest set holds.
    #[error("the nodes ran more different files than a digest set holds")]
    TooManyFiles,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SurveyError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Change(error) => error.code(),
            Self::Boot { .. } => "boot_set_refused",
            Self::Digests { .. } | Self::Frame { .. } => "digest_set_refused",
            Self::Busy { .. } => "dry_run_busy",
            Self::NoSuchRun => "no_such_dry_run",
            Self::Unfinished { .. } => "dry_run_unfinished",
            Self::GivenUp => "dry_run_given_up",
            Self::Failed(_) => "dry_run_failed",
            Self::NoNodes => "no_nodes_named",
            Self::TooManyNodes { .. } => "too_many_nodes",
            Self::TooManyFiles => "too_many_files",
            Self::Store(_) => "store_failed",
        }
    }
}
