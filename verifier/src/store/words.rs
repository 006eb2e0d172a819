//! The words that rows use for states, alike in every back end.

use super::DecisionKind;
use crate::enrollment::StoredEndorsement;
use crate::hold::HeldBy;
use crate::node::{AdmittedBy, EndorsedBy, Standing};

const VENDOR_CHAIN: &str = "vendor_chain";
const LISTED_KEY: &str = "listed_key";

/// `standing` and `admitted_by`.
pub(super) const fn of_standing(standing: Standing) -> (&'static str, Option<&'static str>) {
    match standing {
        Standing::Pending => ("pending", None),
        Standing::Admitted { by } => ("admitted", Some(by.as_str())),
        Standing::Retired => ("retired", None),
    }
}

/// The standing of two columns.
pub(super) fn to_standing(word: &str, by: Option<&str>) -> Result<Standing, String> {
    match (word, by) {
        ("pending", None) => Ok(Standing::Pending),
        ("retired", None) => Ok(Standing::Retired),
        ("admitted", Some(word)) => [AdmittedBy::Inventory, AdmittedBy::JoinToken, AdmittedBy::Approval]
            .into_iter()
            .find(|by| by.as_str() == word)
            .map(|by| Standing::Admitted { by })
            .ok_or_else(|| format!("admitted_by is `{word}`")),
        (word, by) => Err(format!("standing is `{word}` and admitted_by is {by:?}")),
    }
}

/// `endorsement`, `ek_certificate` and `trust_anchor`.
pub(super) fn of_endorsement(stored: &StoredEndorsement) -> (&'static str, Option<&[u8]>, Option<&[u8]>) {
    match stored {
        StoredEndorsement::VendorChain { certificate, anchor } => {
            (VENDOR_CHAIN, Some(certificate.as_slice()), Some(anchor.as_slice()))
        }
        StoredEndorsement::ListedKey => (LISTED_KEY, None, None),
    }
}

/// The endorsement of three columns.
pub(super) fn to_endorsement(
    word: &str,
    certificate: Option<Vec<u8>>,
    anchor: Option<[u8; 32]>,
) -> Result<StoredEndorsement, String> {
    match (word, certificate, anchor) {
        (VENDOR_CHAIN, Some(certificate), Some(anchor)) => {
            Ok(StoredEndorsement::VendorChain { certificate, anchor })
        }
        (LISTED_KEY, None, None) => Ok(StoredEndorsement::ListedKey),
        (word, certificate, anchor) => Err(format!(
            "endorsement is `{word}` {} a certificate and {} a trust anchor",
            if certificate.is_some() { "with" } else { "without" },
            if anchor.is_some() { "with" } else { "without" },
        )),
    }
}

/// Who endorsed a key, by the first of these columns.
pub(super) fn to_endorsed_by(word: &str) -> Result<EndorsedBy, String> {
    match word {
        VENDOR_CHAIN => Ok(EndorsedBy::Manufacturer),
        LISTED_KEY => Ok(EndorsedBy::Operator),
        other => Err(format!("endorsement is `{other}`")),
    }
}

/// `kind` of a decision.
pub(super) const fn of_kind(kind: DecisionKind) -> &'static str {
    match kind {
        DecisionKind::Enroll => "enroll",
        DecisionKind::Activate => "activate",
        DecisionKind::Attest => "attest",
        DecisionKind::Reappraise => "reappraise",
        DecisionKind::Operate => "operate",
        DecisionKind::Signal => "signal",
    }
}

/// The kind of a column.
pub(super) fn to_kind(word: &str) -> Result<DecisionKind, String> {
    [
        DecisionKind::Enroll,
        DecisionKind::Activate,
        DecisionKind::Attest,
        DecisionKind::Reappraise,
        DecisionKind::Operate,
        DecisionKind::Signal,
    ]
    .into_iter()
    .find(|kind| of_kind(*kind) == word)
    .ok_or_else(|| format!("kind is `{word}`"))
}

/// `source` and `author` of a hold.
pub(super) fn of_held_by(by: &HeldBy) -> (&'static str, &str) {
    match by {
        HeldBy::Operator(author) => ("operator", author),
        HeldBy::RelyingParty(name) => ("relying_party", name.as_str()),
    }
}

/// Who set or lifted a hold, by two columns.
pub(super) fn to_held_by(source: &str, author: &str) -> Result<HeldBy, String> {
    match source {
        "operator" => Ok(HeldBy::Operator(author.to_owned())),
        "relying_party" => {
            author.parse().map(HeldBy::RelyingParty).map_err(|_| "its author is no name".to_owned())
        }
        other => Err(format!("source is `{other}`")),
    }
}
