//! The deny list over a boot: it speaks last, whatever the rules accept.

use rootbound_common::tpm::PcrIndex;

use super::deviation::{BootDeviation, NamedEvent};
use super::judge::MAX_NAMED;
use super::rules::EntryKind;
use super::secure_boot::{entries, identity};
use crate::evidence::boot_log::{BootHistory, ConfigurationVariable, SecureBootRecord};
use crate::reference::DenyList;

/// What of a boot is denied: events by their digests, in any PCR of the history, and a dbx that lacks what the list asks for.
/// A dbx is looked at where the history explains PCR 7.
#[must_use]
pub fn judge_denied(history: &BootHistory, deny: &DenyList) -> Vec<BootDeviation> {
    if deny.is_empty() {
        return Vec::new();
    }
    let denied = history.events().iter().filter_map(|event| {
        let label = deny.denies(event.digest())?;
        Some(BootDeviation::Denied { event: NamedEvent::of(event), label })
    });
    denied.chain(lacking(history, deny)).take(MAX_NAMED).collect()
}

fn lacking(history: &BootHistory, deny: &DenyList) -> Vec<BootDeviation> {
    if !PcrIndex::new(7).is_some_and(|pcr| history.explained().contains(pcr)) {
        return Vec::new();
    }
    let record = SecureBootRecord::read(history);
    let mut dbx = record.iter().flat_map(|record| &record.configuration);
    // A second one breaks the order, which deviates by itself. One that is not proved holds nothing.
    let dbx = dbx.rfind(|one| one.variable == ConfigurationVariable::Dbx);
    let found: Vec<_> = match dbx.map(|dbx| entries(dbx.contents)) {
        Some(Ok(entries)) => entries.iter().filter_map(identity).collect(),
        Some(Err(_)) | None => Vec::new(),
    };
    let lacks = deny.of_dbx().filter(|(certificate, digest, _)| {
        let kind = if *certificate { EntryKind::X509 } else { EntryKind::Sha256 };
        !found.contains(&(kind, *digest))
    });
    lacks.map(|(_, _, label)| BootDeviation::DbxLacks { label }).collect()
}
