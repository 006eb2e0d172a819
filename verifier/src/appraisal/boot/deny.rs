//! The deny list over a boot: it speaks last, whatever the rules accept.

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
    let record = SecureBootRecord::read(history);
    let mut dbx = record.iter().flat_map(|record| &record.configuration);
    // A second one breaks the order, which deviates by itself.
    let Some(dbx) = dbx.rfind(|one| one.variable == ConfigurationVariable::Dbx) else {
        return Vec::new();
    };
    let found: Vec<_> = match entries(dbx.contents) {
        Ok(entries) => entries.iter().filter_map(identity).collect(),
        Err(_) => Vec::new(),
    };
    let lacks = deny.of_dbx().filter(|(certificate, digest, _)| {
        let kind = if *certificate { EntryKind::X509 } else { EntryKind::Sha256 };
        !found.contains(&(kind, *digest))
    });
    let lacks = lacks.map(|(_, _, label)| BootDeviation::VariableNotAccepted {
        variable: ConfigurationVariable::Dbx,
        event: NamedEvent::of(dbx.event),
        why: format!("it lacks what is denied: {label}"),
    });
    lacks.collect()
}
