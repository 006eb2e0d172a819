//! What the command line says about tokens and their keys, and what it hears.

use serde::{Deserialize, Serialize};

use super::answer::Session;
use super::message::{Command, Reply, Words};
use crate::flows::operate::OperateError;
use crate::store::tokens::{TokenFilter, TokenId};

/// What an operator wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenCommand {
    /// Which tokens are there that have not expired?
    List {
        /// Which of them.
        filter: TokenFilter,
        /// At most so many; more than [`Command::MAX_PAGE`] are not given at once.
        limit: u32,
    },
    /// End tokens before their time.
    Revoke {
        /// Which of them; some filter is needed.
        filter: TokenFilter,
        /// Why.
        reason: Words,
    },
    /// Which keys sign tokens?
    Keys,
    /// The prepared keys sign from now on.
    RotateKeys {
        /// Whether the active ones are in wrong hands: their tokens end at once.
        compromised: bool,
        /// Why.
        reason: Words,
    },
}

/// Tokens were ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokensRevoked {
    /// These.
    pub tokens: Vec<TokenId>,
}

/// Does what a command says.
pub(super) async fn answer(session: &Session<'_>, command: TokenCommand) -> Result<Reply, OperateError> {
    let verifier = session.verifier;
    match command {
        TokenCommand::List { filter, limit } => {
            let limit = limit.clamp(1, Command::MAX_PAGE);
            Ok(Reply::Tokens(verifier.list_tokens(&filter, limit).await?))
        }
        TokenCommand::Revoke { filter, reason } => {
            let tokens = verifier.revoke_tokens(&filter, &session.operator(&reason)).await?;
            tracing::info!(tokens = tokens.len(), author = %session.author, "tokens revoked");
            Ok(Reply::TokensRevoked(TokensRevoked { tokens }))
        }
        TokenCommand::Keys => Ok(Reply::TokenKeys(verifier.list_token_keys())),
        TokenCommand::RotateKeys { compromised, reason } => {
            Ok(Reply::TokenKeys(verifier.rotate_token_keys(compromised, &session.operator(&reason)).await?))
        }
    }
}
