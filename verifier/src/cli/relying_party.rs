//! `relying-party token`: makes a token for a relying party that has no certificate. Needs no daemon.

use clap::Subcommand;
use rootbound_common::random;
use serde_json::{Value, json};

use super::Show;
use crate::relying_party::token::BearerToken;

/// What is done about relying parties.
#[derive(Debug, Subcommand)]
pub(super) enum RelyingPartyVerb {
    /// Make a token, and show it this once, with the hash for `token_sha256` in the configuration
    Token,
}

/// A token that nobody has yet.
pub(super) struct NewToken(BearerToken);

impl RelyingPartyVerb {
    pub(super) fn run(&self) -> NewToken {
        match self {
            Self::Token => NewToken(BearerToken::generate(&mut random::system())),
        }
    }
}

impl Show for NewToken {
    fn text(&self) -> String {
        format!(
            "token         {}\ntoken_sha256  {}\nThe token is for the relying party, the hash for its section in the configuration. It is shown this once.\n",
            *self.0.reveal(),
            self.0.hash()
        )
    }

    fn json(&self) -> Value {
        json!({ "token": *self.0.reveal(), "token_sha256": self.0.hash().to_string() })
    }
}
