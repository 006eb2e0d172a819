//! `token` and `keys`: tokens that were made, and the keys that sign them.

use clap::{Args, Subcommand};
use rootbound_common::id::NodeId;

use super::verbs::Reason;
use crate::http::admin::message::Command;
use crate::http::admin::tokens::TokenCommand;
use crate::store::tokens::{TokenFilter, TokenId};

#[derive(Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// List tokens that have not expired, the newest first; not the tokens themselves, which are not kept
    List {
        #[command(flatten)]
        which: Which,
        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// End tokens before their time: all that fit what is given
    Revoke {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        reason: Reason,
    },
}

/// Which tokens. What is given has to fit all together.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The one of this id (`jti`)
    #[arg(long)]
    id: Option<TokenId>,
    /// Those about this node
    #[arg(long)]
    node: Option<NodeId>,
    /// Those that this client got: a SPIFFE ID, or the name of a relying party
    #[arg(long)]
    client: Option<String>,
    /// Those for this audience
    #[arg(long)]
    audience: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeysVerb {
    /// List the keys that sign tokens: prepared, active, and retired ones whose tokens have not expired
    List,
    /// Let the prepared keys sign from now on, retire the active ones, and prepare the next
    Rotate {
        /// The active keys are in wrong hands: end every token that they signed at once
        #[arg(long)]
        compromised: bool,
        #[command(flatten)]
        reason: Reason,
    },
}

impl Which {
    fn filter(self) -> TokenFilter {
        let Self { id, node, client, audience } = self;
        TokenFilter { id, node, client, audience }
    }
}

impl TokenVerb {
    pub(super) fn command(self) -> Command {
        Command::Token(match self {
            Self::List { which, limit } => TokenCommand::List { filter: which.filter(), limit },
            Self::Revoke { which, reason } => {
                TokenCommand::Revoke { filter: which.filter(), reason: reason.reason }
            }
        })
    }
}

impl KeysVerb {
    pub(super) fn command(self) -> Command {
        Command::Token(match self {
            Self::List => TokenCommand::Keys,
            Self::Rotate { compromised, reason } => {
                TokenCommand::RotateKeys { compromised, reason: reason.reason }
            }
        })
    }
}
