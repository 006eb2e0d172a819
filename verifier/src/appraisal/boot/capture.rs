//! Rules out of a boot that is known to be good.

use rootbound_common::crypto::{Digest, TaggedDigest, hash};
use rootbound_common::tpm::{PcrIndex, PcrSet};

use super::command_line::CommandLineRules;
use super::deviation::{BootDeviation, NamedEvent};
use super::judge::{DEBUG_MODE, DMA_DISABLED, is_command_line, is_initrd, judge};
use super::rules::{
    AuthorityKind, AuthorityRule, BootRules, DbxRules, Debugger, DmaProtection, EntryRule, EventRule,
    FirmwareRules, Measurement, SecureBootMode, SecureBootRules, VariableRules, unexplainable,
};
use super::secure_boot::{identity, sbat_level};
use crate::evidence::boot_log::{
    BootHistory, ConfigurationVariable, EventType, MeasuredEvent, SecureBootRecord, SecureBootState,
    SeparatorDigests, parse_signature_lists,
};

/// What captured rules do not say, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// The boot says nothing of a PCR.
    #[error("PCR {pcr}: the boot log was not authenticated for it")]
    NotAuthenticated {
        /// The PCR.
        pcr: PcrIndex,
    },
    /// No boot log explains the PCR.
    #[error("PCR {pcr} {why}")]
    CannotExplain {
        /// The PCR.
        pcr: PcrIndex,
        /// Why.
        why: &'static str,
    },
    /// Another machine measures something else, however alike it is.
    #[error("PCR {pcr} is each machine's own: {event}")]
    MachineSpecific {
        /// The PCR.
        pcr: PcrIndex,
        /// The event that shows it.
        event: NamedEvent,
    },
    /// This boot breaks a rule that is not to be had otherwise.
    #[error("PCR {pcr} cannot be explained: {deviation}")]
    Irregular {
        /// The PCR.
        pcr: PcrIndex,
        /// What breaks it.
        deviation: Box<BootDeviation>,
    },
    /// The boot does not show that images are checked.
    #[error("Secure Boot is not required: it is {state}, and what it checked is not shown by any authority")]
    SecureBoot {
        /// What the variable says.
        state: SecureBootState,
    },
    /// The boot ran with a debugger enabled.
    #[error("a debugger is allowed: this boot had one enabled")]
    Debugger,
    /// The boot ran without protection against devices.
    #[error("DMA protection is not required: this boot ran without")]
    DmaProtection,
}

/// Makes rules by which this boot is as expected, for those of `explained` that can be explained.
///
/// `judge(history, rules)` is empty for what this returns. Where nothing is left that can be explained, the rules explain no
/// PCR, and [`BootRules::check`] refuses them.
#[must_use]
pub fn capture(history: &BootHistory, explained: PcrSet) -> (BootRules, Vec<LeftOut>) {
    let mut left_out = Vec::new();
    let mut kept = PcrSet::EMPTY;
    for pcr in explained.iter() {
        let why = if !history.explained().contains(pcr) {
            Some(LeftOut::NotAuthenticated { pcr })
        } else if let Some(why) = unexplainable(pcr) {
            Some(LeftOut::CannotExplain { pcr, why })
        } else {
            let own = history.of(pcr).find(|event| is_machine_specific(event));
            own.map(|event| LeftOut::MachineSpecific { pcr, event: NamedEvent::of(event) })
        };
        match why {
            Some(why) => left_out.push(why),
            None => kept = kept.with(pcr),
        }
    }
    // Each turn drops a PCR, so that there are 25 at the most.
    loop {
        let rules = rules_for(history, kept);
        let irregular: Vec<_> = judge(history, &rules)
            .into_iter()
            .filter_map(|deviation| Some((pcr_of(&deviation)?, deviation)))
            .filter(|(pcr, _)| kept.contains(*pcr))
            .collect();
        if irregular.is_empty() {
            left_out.extend(concessions(history, &rules));
            return (rules, left_out);
        }
        for (pcr, deviation) in irregular {
            if kept.contains(pcr) {
                kept = kept.iter().filter(|other| *other != pcr).collect();
                left_out.push(LeftOut::Irregular { pcr, deviation: Box::new(deviation) });
            }
        }
    }
}

/// Serial numbers, boot entries, disks' GUIDs: by their claimed type, since a wrong guess leaves a PCR out or in, and no more.
fn is_machine_specific(event: &MeasuredEvent) -> bool {
    match (event.pcr().get(), event.claimed_type()) {
        (
            1,
            EventType::EFI_HANDOFF_TABLES
            | EventType::EFI_HANDOFF_TABLES2
            | EventType::EFI_VARIABLE_BOOT
            | EventType::EFI_VARIABLE_BOOT2
            | EventType::EFI_VARIABLE_DRIVER_CONFIG
            | EventType::PLATFORM_CONFIG_FLAGS
            | EventType::TABLE_OF_DEVICES,
        ) => true,
        (5, EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2) => true,
        (6, other) => other != EventType::SEPARATOR,
        _ => false,
    }
}

pub(super) fn pcr_of(deviation: &BootDeviation) -> Option<PcrIndex> {
    match deviation {
        BootDeviation::NotExplained { pcr } | BootDeviation::NoSeparator { pcr } => Some(*pcr),
        BootDeviation::NoBootApplication => PcrIndex::new(4),
        BootDeviation::NoInitrd => PcrIndex::new(9),
        BootDeviation::SecureBootNotOn { .. }
        | BootDeviation::NoAuthority
        | BootDeviation::DbxLacks { .. }
        | BootDeviation::SecureBootUnreadable { .. }
        | BootDeviation::ConfigurationAfterSeparator { .. }
        | BootDeviation::SbatTooOld { .. } => PcrIndex::new(7),
        // Rules that are made from this very history name no other bank, and a command line only where it has one.
        BootDeviation::OtherBank { .. } | BootDeviation::NoCommandLine | BootDeviation::More { .. } => None,
        BootDeviation::Denied { event, .. }
        | BootDeviation::Unexplained { event }
        | BootDeviation::FirmwareNotAccepted { event }
        | BootDeviation::DriverNotAccepted { event }
        | BootDeviation::BootApplicationNotAccepted { event }
        | BootDeviation::InitrdNotAccepted { event }
        | BootDeviation::CommandLineNotAccepted { event, .. }
        | BootDeviation::SecondCommandLine { event }
        | BootDeviation::SecondSeparator { event }
        | BootDeviation::ErrorSeparator { event }
        | BootDeviation::AfterSeparator { event }
        | BootDeviation::AuthorityNotAccepted { event }
        | BootDeviation::VariableNotAccepted { event, .. }
        | BootDeviation::DebuggerEnabled { event }
        | BootDeviation::DmaUnprotected { event } => Some(event.pcr),
    }
}

fn rules_for(history: &BootHistory, kept: PcrSet) -> BootRules {
    let mut rules = BootRules::of(history.bank(), kept);
    let separators = SeparatorDigests::of(history.bank());
    for event in history.events().iter().filter(|event| kept.contains(event.pcr())) {
        if event.pcr().get() <= 7 && separators.recognise(event.digest()).is_some() {
            continue;
        }
        add(&mut rules, event);
    }
    if PcrIndex::new(7).is_some_and(|pcr| kept.contains(pcr)) {
        add_secure_boot(&mut rules, history);
    }
    rules
}

fn measurement(event: &MeasuredEvent) -> Measurement {
    Measurement { digest: TaggedDigest(*event.digest()), label: event.words() }
}

fn add_once(list: &mut Vec<Measurement>, event: &MeasuredEvent) {
    if !list.iter().any(|one| one.digest.0 == *event.digest()) {
        list.push(measurement(event));
    }
}

fn add(rules: &mut BootRules, event: &MeasuredEvent) {
    match event.pcr().get() {
        0 => add_once(&mut rules.firmware.get_or_insert_with(FirmwareRules::default).blobs, event),
        2 => add_once(&mut rules.drivers, event),
        4 if event.claimed_type() == EventType::EFI_BOOT_SERVICES_APPLICATION => {
            add_once(&mut rules.boot_applications, event);
        }
        // Firmware's own words account for themselves.
        4 | 5 if event.claimed_type() == EventType::EFI_ACTION && event.proved().is_some() => {
            add_action(rules, event)
        }
        7 => {}
        9 if is_initrd(event) => add_once(&mut rules.initrds, event),
        8 | 9 | 12 if is_command_line(event) => {
            add_once(&mut rules.command_line.get_or_insert_with(CommandLineRules::default).digests, event);
        }
        _ => add_event(rules, event),
    }
}

fn add_action(rules: &mut BootRules, event: &MeasuredEvent) {
    let accounted = super::judge::is_word_of_every_boot(event);
    if !accounted {
        add_event(rules, event);
    }
}

fn add_event(rules: &mut BootRules, event: &MeasuredEvent) {
    let (pcr, digest) = (event.pcr(), TaggedDigest(*event.digest()));
    if !rules.events.iter().any(|other| (other.pcr, other.digest) == (pcr, digest)) {
        rules.events.push(EventRule { pcr, digest, label: event.words() });
    }
}

fn add_secure_boot(rules: &mut BootRules, history: &BootHistory) {
    let Some(record) = SecureBootRecord::read(history) else { return };
    let word = |word: &str| hash(history.bank(), &[word.as_bytes()]);
    let (debug_mode, dma_disabled) = (word(DEBUG_MODE), word(DMA_DISABLED));
    for event in &record.others {
        if *event.digest() == debug_mode {
            rules.debugger = Debugger::Allowed;
        } else if *event.digest() == dma_disabled {
            rules.dma_protection = DmaProtection::NotRequired;
        } else {
            add_event(rules, event);
        }
    }
    let variable = |variable| {
        let measured = record.variable(variable);
        let digests = measured.map(|measured| measurement(measured.event)).into_iter().collect();
        VariableRules { digests, entries: Vec::new() }
    };
    let dbx = record.variable(ConfigurationVariable::Dbx);
    let entries = dbx.and_then(|dbx| parse_signature_lists(dbx.contents).ok()).unwrap_or_default();
    let mut minimum: Vec<(bool, Digest, EntryRule)> = entries
        .iter()
        .filter_map(identity)
        .map(|(kind, digest)| {
            let rule = EntryRule { kind, digest: TaggedDigest(digest), label: String::new() };
            (kind == super::EntryKind::X509, digest, rule)
        })
        .collect();
    minimum.sort_by_key(|(x509, digest, _)| (*x509, *digest));
    minimum.dedup_by_key(|(x509, digest, _)| (*x509, *digest));
    let levels = record.authorities.iter().filter_map(|event| sbat_level(event));
    let checked = record.authorities.iter().filter(|event| sbat_level(event).is_none());
    let mut authorities: Vec<AuthorityRule> = Vec::new();
    for event in checked {
        let digest = TaggedDigest(*event.digest());
        if !authorities.iter().any(|one| one.digest == digest) {
            authorities.push(AuthorityRule { kind: AuthorityKind::Event, digest, label: event.words() });
        }
    }
    let on = record.state() == SecureBootState::On && !authorities.is_empty();
    rules.secure_boot = Some(SecureBootRules {
        mode: if on { SecureBootMode::Required } else { SecureBootMode::NotRequired },
        pk: variable(ConfigurationVariable::Pk),
        kek: variable(ConfigurationVariable::Kek),
        db: variable(ConfigurationVariable::Db),
        dbx: DbxRules {
            digests: variable(ConfigurationVariable::Dbx).digests,
            minimum: minimum.into_iter().map(|(_, _, rule)| rule).take(BootRules::MAX_ENTRIES).collect(),
        },
        authorities,
        sbat_minimum: levels.min(),
    });
}

/// Where the rules ask for less than they would by default, since this boot does not have it.
fn concessions(history: &BootHistory, rules: &BootRules) -> Vec<LeftOut> {
    let mut found = Vec::new();
    let not_required = |rules: &SecureBootRules| rules.mode == SecureBootMode::NotRequired;
    if rules.secure_boot.as_ref().is_some_and(not_required) {
        let state = SecureBootRecord::read(history).map_or(SecureBootState::Absent, |record| record.state());
        found.push(LeftOut::SecureBoot { state });
    }
    if rules.debugger == Debugger::Allowed {
        found.push(LeftOut::Debugger);
    }
    if rules.dma_protection == DmaProtection::NotRequired {
        found.push(LeftOut::DmaProtection);
    }
    found
}
