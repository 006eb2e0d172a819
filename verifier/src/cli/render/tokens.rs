//! Tokens and their keys, as text.

use super::super::table::Table;
use crate::credential::token_keys::{KeyDetail, KeyState};
use crate::flows::tokens::revoke::TokenKeyLists;
use crate::http::admin::tokens::TokensRevoked;
use crate::store::tokens::TokenRecord;

pub(super) fn list(tokens: &[TokenRecord]) -> String {
    let mut table =
        Table::new(["ID", "NODE", "CLIENT", "AUDIENCE", "PERMITS", "HELD BY", "STATE", "EXPIRES"]);
    for token in tokens {
        let state = match (token.revoked_at, token.spent_at, token.once) {
            (Some(at), _, _) => format!("revoked at {at}"),
            (None, Some(at), _) => format!("used at {at}"),
            (None, None, true) => "for one use".to_owned(),
            (None, None, false) => "valid".to_owned(),
        };
        table.row([
            token.id.to_string(),
            token.node.to_string(),
            token.client.clone(),
            token.audience.clone(),
            token.permits.clone(),
            token.binding.clone(),
            state,
            token.expires_at.to_string(),
        ]);
    }
    table.text("There are no such tokens that have not expired.")
}

pub(super) fn revoked(revoked: &TokensRevoked) -> String {
    let lines = revoked.tokens.iter().map(|id| format!("{id}\n"));
    format!("{} tokens are revoked\n{}", revoked.tokens.len(), lines.collect::<String>())
}

pub(super) fn keys(lists: &TokenKeyLists) -> String {
    let mut table = Table::new(["SIGNS", "STATE", "SINCE", "KID"]);
    for (what, keys) in [("access tokens", &lists.access), ("JWT-SVIDs", &lists.svid)] {
        for KeyDetail { kid, state, since } in keys {
            let state = match state {
                KeyState::Prepared => "prepared",
                KeyState::Active => "active",
                KeyState::Retired => "retired",
            };
            table.row([what.to_owned(), state.to_owned(), since.to_string(), kid.clone()]);
        }
    }
    table.text("There are no keys.")
}
