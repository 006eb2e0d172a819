//! PCR 7 by its rules.

use std::collections::BTreeSet;

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::HashAlgorithm;

use super::deviation::{BootDeviation, NamedEvent};
use super::judge::Accepted;
use super::rules::{
    AuthorityKind, DbxRules, EntryKind, EntryRule, SecureBootMode, SecureBootRules, VariableRules,
};
use crate::evidence::boot_log::{
    BootHistory, ConfigurationVariable, Guid, MeasuredEvent, MeasuredVariable, SecureBootFault,
    SecureBootRecord, SecureBootState, SignatureEntry, SignatureKind, parse_signature_lists, text,
};

/// Judges PCR 7. See [`SecureBootRecord`] for the order in which it is read.
pub(super) fn judge(
    history: &BootHistory,
    rules: &SecureBootRules,
    accepted: &Accepted<'_>,
) -> Vec<BootDeviation> {
    let Some(record) = SecureBootRecord::read(history) else { return Vec::new() };
    let mut deviations: Vec<_> = record.faults.iter().map(|fault| of_fault(*fault)).collect();
    if rules.mode == SecureBootMode::Required && record.state() != SecureBootState::On {
        deviations.push(BootDeviation::SecureBootNotOn { found: record.state() });
    }
    for measured in &record.configuration {
        let judged = match (measured.variable, rules.of(measured.variable)) {
            (ConfigurationVariable::Dbx, _) => judge_dbx(measured, &rules.dbx),
            (_, Some(variable)) => judge_variable(measured, variable),
            (_, None) => Ok(()),
        };
        if let Err(why) = judged {
            let (variable, event) = (measured.variable, NamedEvent::of(measured.event));
            deviations.push(BootDeviation::VariableNotAccepted { variable, event, why });
        }
    }
    deviations.extend(judge_authorities(&record, rules, accepted));
    let others = record.others.iter().filter(|event| !accepted.denies(event));
    deviations.extend(others.filter_map(|event| accepted.judge(event)));
    deviations
}

fn of_fault(fault: SecureBootFault) -> BootDeviation {
    let what = match fault {
        SecureBootFault::AfterSeparator { event, variable } => {
            return BootDeviation::ConfigurationAfterSeparator { index: event, variable };
        }
        SecureBootFault::Missing(variable) => format!("{variable} is not measured before the separator"),
        SecureBootFault::Twice { event, variable } => format!("event {event} is a second {variable}"),
        SecureBootFault::OutOfOrder { event, variable } => {
            format!("event {event}: {variable} is out of order")
        }
        SecureBootFault::NotProved { event } => {
            format!("event {event} is said to be a variable, and its digest is not that of its data")
        }
    };
    BootDeviation::SecureBootUnreadable { what }
}

pub(super) fn entries(contents: &[u8]) -> Result<Vec<SignatureEntry<'_>>, String> {
    parse_signature_lists(contents).map_err(|error| format!("it holds no signature lists: {error}"))
}

/// What an entry is called in rules: always SHA-256.
pub(super) fn identity(entry: &SignatureEntry<'_>) -> Option<(EntryKind, Digest)> {
    const ALGORITHM: HashAlgorithm = HashAlgorithm::Sha256;
    match entry.kind {
        SignatureKind::X509 => Some((EntryKind::X509, hash(ALGORITHM, &[entry.data]))),
        SignatureKind::Sha256 => Some((EntryKind::Sha256, Digest::from_slice(ALGORITHM, entry.data)?)),
        SignatureKind::Other(_) => None,
    }
}

fn names(rule: &EntryRule, (kind, digest): (EntryKind, Digest)) -> bool {
    rule.kind == kind && rule.digest.0 == digest
}

fn judge_variable(measured: &MeasuredVariable<'_>, rules: &VariableRules) -> Result<(), String> {
    if rules.digests.iter().any(|one| one.digest.0 == *measured.event.digest()) {
        return Ok(());
    }
    let entries = entries(measured.contents)?;
    if entries.is_empty() {
        return Err("it is empty, and not listed".into());
    }
    let known = |entry: &&SignatureEntry<'_>| {
        identity(entry).is_some_and(|identity| rules.entries.iter().any(|rule| names(rule, identity)))
    };
    match entries.iter().find(|entry| !known(entry)) {
        None => Ok(()),
        Some(entry) => Err(match identity(entry) {
            Some((_, digest)) => format!("{} entry {digest} is not listed", entry.kind),
            None => format!("entry of type {} is not listed", entry.kind),
        }),
    }
}

fn judge_dbx(measured: &MeasuredVariable<'_>, rules: &DbxRules) -> Result<(), String> {
    if rules.digests.iter().any(|one| one.digest.0 == *measured.event.digest()) {
        return Ok(());
    }
    if rules.minimum.is_empty() {
        return Err("it is not listed".into());
    }
    let entries = entries(measured.contents)?;
    let identities = entries.iter().filter_map(identity);
    let found: BTreeSet<_> = identities.map(|(kind, digest)| (kind == EntryKind::X509, digest)).collect();
    let missing = |rule: &&EntryRule| !found.contains(&(rule.kind == EntryKind::X509, rule.digest.0));
    match rules.minimum.iter().filter(missing).count() {
        0 => Ok(()),
        missing => Err(format!("{missing} of {} required entries are missing", rules.minimum.len())),
    }
}

fn judge_authorities(
    record: &SecureBootRecord<'_>,
    rules: &SecureBootRules,
    accepted: &Accepted<'_>,
) -> Vec<BootDeviation> {
    let mut deviations = Vec::new();
    let mut checked = false;
    // Whoever runs after the boot can add a newer level, and cannot take away the older one.
    let mut oldest: Option<u64> = None;
    for event in record.authorities.iter().filter(|event| !accepted.denies(event)) {
        if let Some(level) = sbat_level(event) {
            oldest = Some(oldest.map_or(level, |oldest| oldest.min(level)));
        } else if is_authority(event, rules) {
            checked = true;
        } else if accepted.judge(event).is_some() {
            deviations.push(BootDeviation::AuthorityNotAccepted { event: NamedEvent::of(event) });
        }
    }
    // Where it is not on, nothing could be checked, and that it is not on is said already.
    if rules.mode == SecureBootMode::Required && record.state() == SecureBootState::On && !checked {
        deviations.push(BootDeviation::NoAuthority);
    }
    if let Some(minimum) = rules.sbat_minimum.filter(|minimum| oldest.is_none_or(|level| level < *minimum)) {
        deviations.push(BootDeviation::SbatTooOld { found: oldest, minimum });
    }
    deviations
}

fn is_authority(event: &MeasuredEvent, rules: &SecureBootRules) -> bool {
    let variable = event.proved_variable();
    let certificates: Vec<Digest> = variable
        .map(|variable| variable.contents())
        .into_iter()
        // EFI_SIGNATURE_DATA is an owner of 16 bytes and a certificate; shim has measured certificates alone as well.
        .flat_map(|contents| [Some(contents), contents.get(16..)])
        .flatten()
        .map(|certificate| hash(HashAlgorithm::Sha256, &[certificate]))
        .collect();
    rules.authorities.iter().any(|rule| match rule.kind {
        AuthorityKind::Event => rule.digest.0 == *event.digest(),
        AuthorityKind::Certificate => certificates.contains(&rule.digest.0),
    })
}

/// The date of SBAT revocations (`sbat,1,2021030218`) that shim applied, where the event is of its variable SbatLevel.
pub(super) fn sbat_level(event: &MeasuredEvent) -> Option<u64> {
    let variable = event.proved_variable()?;
    if variable.vendor() != Guid::SHIM || variable.name() != "SbatLevel" {
        return None;
    }
    let mut fields = text::utf8(variable.contents())?.lines().next()?.split(',');
    match (fields.next(), fields.next(), fields.next(), fields.next()) {
        (Some("sbat"), Some(_), Some(date), None) => date.trim().parse().ok(),
        _ => None,
    }
}
