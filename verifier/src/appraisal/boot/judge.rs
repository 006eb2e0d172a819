//! The judgement: every event of an explained PCR is accounted for, or it deviates.

use std::collections::{BTreeMap, BTreeSet};

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSet};

use super::deviation::{BootDeviation, NamedEvent, fit_to_show};
use super::rules::{BootRules, Debugger, DmaProtection, Measurement};
use super::{CommandLineFault, TokenRules, Unreadable, secure_boot};
use crate::evidence::boot_log::{
    BootHistory, EventType, MeasuredEvent, Separator, SeparatorDigests, Tag, text,
};

/// Deviations of one boot that are named: nobody reads more, and each is kept for its node.
pub(super) const MAX_NAMED: usize = 64;

/// Judges what was measured by what is expected. Empty where every rule is met.
///
/// Established then: every explained PCR was authenticated · no event of the history is denied · PCRs 0 to 7 have exactly one
/// separator each, none of them of an error, and PCRs 0, 2, 3 and 6 nothing after it · every other event of an explained
/// PCR is accounted for by a rule or is one of the words that UEFI firmware measures at every boot · an accepted boot
/// application was measured, and an initrd and a command line where rules name any, or a withdrawn set did · PCR 7 is readable, its variables and
/// authorities are accepted, and with Secure Boot required it is on and something was checked.
///
/// Decided is by digests, and by bytes that hash to them. Types and hinted data choose only *which* deviation is reported,
/// and which one event of a PCR is taken as the command line where [`TokenRules`] judge it.
#[must_use]
pub fn judge(history: &BootHistory, rules: &BootRules) -> Vec<BootDeviation> {
    if history.bank() != rules.bank {
        return vec![BootDeviation::OtherBank { expected: rules.bank, found: history.bank() }];
    }
    let mut judgement = Judgement::new(history, rules);
    for pcr in rules.explained.iter().filter(|pcr| !history.explained().contains(*pcr)) {
        judgement.deviations.push(BootDeviation::NotExplained { pcr });
    }
    for event in history.events() {
        judgement.event(event);
    }
    judgement.what_is_missing();
    if let (Some(secure_boot), true) = (&rules.secure_boot, judgement.explains(7)) {
        let found = secure_boot::judge(history, secure_boot, &judgement.accepted);
        judgement.deviations.extend(found);
    }
    bounded(judgement.deviations)
}

fn bounded(mut deviations: Vec<BootDeviation>) -> Vec<BootDeviation> {
    if deviations.len() > MAX_NAMED {
        // What is denied by name is never among the rest.
        deviations.sort_by_key(|deviation| !matches!(deviation, BootDeviation::Denied { .. }));
        let more = deviations.len() - MAX_NAMED;
        deviations.truncate(MAX_NAMED);
        deviations.push(BootDeviation::More { more });
    }
    deviations
}

/// Digests that rules accept, by PCR, and what firmware measures at every boot.
pub(super) struct Accepted<'r> {
    denied: BTreeMap<Digest, &'r str>,
    events: BTreeSet<(PcrIndex, Digest)>,
    command_lines: BTreeSet<Digest>,
    debug_mode: Digest,
    dma_disabled: Digest,
    debugger: Debugger,
    dma_protection: DmaProtection,
}

/// Words of EV_EFI_ACTION that say what firmware does, at every boot (PFP, 10.4.3), and the PCRs that they are for.
const ACTIONS: [(u8, &str); 5] = [
    (4, "Calling EFI Application from Boot Option"),
    (4, "Returning from EFI Application from Boot Option"),
    (5, "Exit Boot Services Invocation"),
    (5, "Exit Boot Services Returned with Failure"),
    (5, "Exit Boot Services Returned with Success"),
];

/// Whether an event's proved bytes are one of [`ACTIONS`] for its PCR.
pub(super) fn is_word_of_every_boot(event: &MeasuredEvent) -> bool {
    ACTIONS.iter().any(|(pcr, word)| event.pcr().get() == *pcr && event.proved() == Some(word.as_bytes()))
}

/// PFP, 10.4.3: firmware may be debugged.
pub(super) const DEBUG_MODE: &str = "UEFI Debug Mode";
/// PFP, 10.4.3: devices may write to memory.
pub(super) const DMA_DISABLED: &str = "DMA Protection Disabled";

impl<'r> Accepted<'r> {
    fn new(rules: &'r BootRules) -> Self {
        let word = |word: &str| hash(rules.bank, &[word.as_bytes()]);
        let of = |pcr: u8, list: &[Measurement]| -> Vec<(PcrIndex, Digest)> {
            let pcr = PcrIndex::new(pcr);
            list.iter().filter_map(|one| Some((pcr?, one.digest.0))).collect()
        };
        let mut events: BTreeSet<_> = rules.events.iter().map(|event| (event.pcr, event.digest.0)).collect();
        events.extend(ACTIONS.iter().filter_map(|(pcr, text)| Some((PcrIndex::new(*pcr)?, word(text)))));
        events.extend(of(4, &rules.boot_applications));
        events.extend(of(2, &rules.drivers));
        events.extend(of(9, &rules.initrds));
        if let (Some(firmware), Some(pcr)) = (&rules.firmware, PcrIndex::new(0)) {
            events.extend(of(0, &firmware.blobs));
            for version in &firmware.versions {
                events.extend(version_digests(version, rules.bank).map(|digest| (pcr, digest)));
            }
        }
        let command_line = rules.command_line.as_ref();
        Self {
            denied: rules.denied.iter().map(|one| (one.digest.0, one.label.as_str())).collect(),
            events,
            command_lines: command_line.map(|r| r.exact_digests(rules.bank)).into_iter().flatten().collect(),
            debug_mode: word(DEBUG_MODE),
            dma_disabled: word(DMA_DISABLED),
            debugger: rules.debugger,
            dma_protection: rules.dma_protection,
        }
    }

    /// What becomes of an event that only a digest can account for; in PCR 7 two words of the firmware have rules of their own.
    pub(super) fn judge(&self, event: &MeasuredEvent) -> Option<BootDeviation> {
        let named = || NamedEvent::of(event);
        if event.pcr().get() == 7 && *event.digest() == self.debug_mode {
            return match self.debugger {
                Debugger::Allowed => None,
                Debugger::Refused => Some(BootDeviation::DebuggerEnabled { event: named() }),
            };
        }
        if event.pcr().get() == 7 && *event.digest() == self.dma_disabled {
            return match self.dma_protection {
                DmaProtection::NotRequired => None,
                DmaProtection::Required => Some(BootDeviation::DmaUnprotected { event: named() }),
            };
        }
        let accepted = self.events.contains(&(event.pcr(), *event.digest()));
        (!accepted).then(|| BootDeviation::Unexplained { event: named() })
    }

    pub(super) fn denies(&self, event: &MeasuredEvent) -> bool {
        self.denied.contains_key(event.digest())
    }
}

/// The forms in which firmware measures the S-CRTM's version: UTF-16 with a terminator as the PFP has it, and what else is seen.
fn version_digests(version: &str, bank: HashAlgorithm) -> impl Iterator<Item = Digest> {
    let utf16 = text::to_utf16(version);
    let bare = utf16.len().saturating_sub(2);
    let forms = [
        hash(bank, &[&utf16]),
        hash(bank, &[utf16.get(..bare).unwrap_or_default()]),
        hash(bank, &[version.as_bytes(), &[0]]),
        hash(bank, &[version.as_bytes()]),
    ];
    forms.into_iter()
}

struct Judgement<'a> {
    rules: &'a BootRules,
    accepted: Accepted<'a>,
    explained: PcrSet,
    separators: SeparatorDigests,
    separated: PcrSet,
    /// Texts that are proved, by their digest: where the EFI stub measures what a boot loader measured before, the text of
    /// the one is that of the other.
    texts: BTreeMap<Digest, &'a [u8]>,
    /// PCRs of which an event was taken as the command line: by its words, and as one of the whole ones.
    by_words: PcrSet,
    by_whole: PcrSet,
    command_line: bool,
    initrd: bool,
    boot_application: bool,
    deviations: Vec<BootDeviation>,
}

impl<'a> Judgement<'a> {
    fn new(history: &'a BootHistory, rules: &'a BootRules) -> Self {
        let explained = rules.explained.iter().filter(|pcr| history.explained().contains(*pcr)).collect();
        let loaders = history.events().iter().filter(|event| event.claimed_type() == EventType::IPL);
        Self {
            rules,
            accepted: Accepted::new(rules),
            explained,
            separators: SeparatorDigests::of(rules.bank),
            separated: PcrSet::EMPTY,
            texts: loaders.filter_map(|event| Some((*event.digest(), event.proved()?))).collect(),
            by_words: PcrSet::EMPTY,
            by_whole: PcrSet::EMPTY,
            command_line: false,
            initrd: false,
            boot_application: false,
            deviations: Vec::new(),
        }
    }

    fn explains(&self, pcr: u8) -> bool {
        PcrIndex::new(pcr).is_some_and(|pcr| self.explained.contains(pcr))
    }

    fn event(&mut self, event: &MeasuredEvent) {
        if let Some(label) = self.accepted.denied.get(event.digest()) {
            let (event, label) = (NamedEvent::of(event), (*label).to_owned());
            self.deviations.push(BootDeviation::Denied { event, label });
            return;
        }
        let pcr = event.pcr();
        if !self.explained.contains(pcr) {
            return;
        }
        let deviation = match self.separators.recognise(event.digest()).filter(|_| pcr.get() <= 7) {
            Some(separator) => self.separator(event, separator),
            None if matches!(pcr.get(), 0 | 2 | 3 | 6) && self.separated.contains(pcr) => {
                Some(BootDeviation::AfterSeparator { event: NamedEvent::of(event) })
            }
            // PCR 7 has an order of its own; without rules for it nothing accounts for its events.
            None if pcr.get() == 7 && self.rules.secure_boot.is_some() => None,
            None => self.account(event),
        };
        self.deviations.extend(deviation);
    }

    fn separator(&mut self, event: &MeasuredEvent, separator: Separator) -> Option<BootDeviation> {
        let second = self.separated.contains(event.pcr());
        self.separated = self.separated.with(event.pcr());
        match separator {
            Separator::Error => Some(BootDeviation::ErrorSeparator { event: NamedEvent::of(event) }),
            Separator::Normal if second => {
                Some(BootDeviation::SecondSeparator { event: NamedEvent::of(event) })
            }
            Separator::Normal => None,
        }
    }

    fn account(&mut self, event: &MeasuredEvent) -> Option<BootDeviation> {
        let digest = event.digest();
        let pcr = event.pcr().get();
        let listed = |list: &[Measurement]| list.iter().any(|one| one.digest.0 == *digest);
        if matches!(pcr, 8 | 9 | 12) && self.accepted.command_lines.contains(digest) {
            self.command_line = true;
            self.by_whole = self.by_whole.with(event.pcr());
            let second = self.by_words.contains(event.pcr());
            return second.then(|| BootDeviation::SecondCommandLine { event: NamedEvent::of(event) });
        }
        let Some(unexplained) = self.accepted.judge(event) else {
            self.boot_application |= pcr == 4 && listed(&self.rules.boot_applications);
            self.initrd |= pcr == 9 && listed(&self.rules.initrds);
            return None;
        };
        let named = |event| NamedEvent::of(event);
        let image = matches!(
            event.claimed_type(),
            EventType::EFI_BOOT_SERVICES_APPLICATION
                | EventType::EFI_BOOT_SERVICES_DRIVER
                | EventType::EFI_RUNTIME_SERVICES_DRIVER
        );
        match pcr {
            0 => Some(BootDeviation::FirmwareNotAccepted { event: named(event) }),
            2 if image => Some(BootDeviation::DriverNotAccepted { event: named(event) }),
            4 if image => Some(BootDeviation::BootApplicationNotAccepted { event: named(event) }),
            9 if is_initrd(event) => Some(BootDeviation::InitrdNotAccepted { event: named(event) }),
            8 | 9 | 12 if is_command_line(event) => self.command_line(event),
            _ => Some(unexplained),
        }
    }

    /// A command line that is none of the whole ones.
    fn command_line(&mut self, event: &MeasuredEvent) -> Option<BootDeviation> {
        let tokens = self.rules.command_line.as_ref().and_then(|rules| rules.tokens.as_ref());
        let judged = match tokens {
            None => Err(CommandLineFault::NotListed),
            Some(tokens) => self.judge_words(event, tokens),
        };
        match judged {
            Err(fault) => {
                let (event, fault) = (NamedEvent::of(event), fit_to_show(fault));
                Some(BootDeviation::CommandLineNotAccepted { event, fault })
            }
            Ok(()) if self.by_words.contains(event.pcr()) || self.by_whole.contains(event.pcr()) => {
                Some(BootDeviation::SecondCommandLine { event: NamedEvent::of(event) })
            }
            Ok(()) => {
                self.by_words = self.by_words.with(event.pcr());
                self.command_line = true;
                None
            }
        }
    }

    fn judge_words(&self, event: &MeasuredEvent, tokens: &TokenRules) -> Result<(), CommandLineFault> {
        let bytes = event.proved().or_else(|| self.texts.get(event.digest()).copied());
        let bytes = bytes.ok_or(CommandLineFault::NotProved)?;
        // GRUB measures ASCII (PCR 8), the EFI stub and systemd-boot UTF-16 (PCRs 9 and 12).
        let text =
            if event.pcr().get() == 8 { text::utf8(bytes).map(str::to_owned) } else { text::utf16(bytes) };
        tokens.judge(&text.ok_or(CommandLineFault::Unreadable(Unreadable::Character))?)
    }

    fn what_is_missing(&mut self) {
        let mut missing = Vec::new();
        for pcr in self.explained.iter().filter(|pcr| pcr.get() <= 7 && !self.separated.contains(*pcr)) {
            missing.push(BootDeviation::NoSeparator { pcr });
        }
        if self.explains(4) && !self.boot_application {
            missing.push(BootDeviation::NoBootApplication);
        }
        let demanded = self.rules.demanded;
        if self.explains(9) && (demanded.initrd || !self.rules.initrds.is_empty()) && !self.initrd {
            missing.push(BootDeviation::NoInitrd);
        }
        let demanded = demanded.command_line && [8, 9, 12].into_iter().any(|pcr| self.explains(pcr));
        if (demanded || self.rules.command_line.is_some()) && !self.command_line {
            missing.push(BootDeviation::NoCommandLine);
        }
        self.deviations.extend(missing);
    }
}

/// Whether an event is said to be an initrd.
pub(super) fn is_initrd(event: &MeasuredEvent) -> bool {
    let data = event.claimed_data();
    match event.claimed_type() {
        EventType::EVENT_TAG => Tag::of(data) == Some(Tag::Initrd),
        EventType::IPL => data == b"grub_linuxefi Initrd\0",
        _ => false,
    }
}

/// Whether an event is said to be the kernel's command line.
pub(super) fn is_command_line(event: &MeasuredEvent) -> bool {
    let data = event.claimed_data();
    match (event.pcr().get(), event.claimed_type()) {
        (8, EventType::IPL) => {
            data.starts_with(b"kernel_cmdline: ") || data.starts_with(b"grub_kernel_cmdline ")
        }
        (9, EventType::EVENT_TAG) => Tag::of(data) == Some(Tag::LoadOptions),
        (12, EventType::IPL) => true,
        _ => false,
    }
}
