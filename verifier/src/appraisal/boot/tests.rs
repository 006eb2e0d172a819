//! Boots that are as expected, and each way in which one is not.

use rootbound_common::crypto::{Digest, TaggedDigest, hash};
use rootbound_common::tpm::HashAlgorithm;

use super::*;
use crate::evidence::boot_log::testing::{BANK, LogBuilder, pcr, pcrs};
use crate::evidence::boot_log::text::to_utf16;
use crate::evidence::boot_log::{ConfigurationVariable, EventType, Guid, SecureBootState, Variable};

use ConfigurationVariable::{Db, Dbx, Kek, Pk, SecureBoot};

const EXPLAINED: [u8; 8] = [0, 2, 4, 5, 7, 8, 9, 12];
const COMMAND_LINE: &str = "quiet ima_policy=tcb";

fn digest_of(bytes: &[u8]) -> Digest {
    hash(BANK, &[bytes])
}

fn list(kind: EntryKind, entries: &[&[u8]]) -> Vec<u8> {
    let guid: [u8; 16] = match kind {
        EntryKind::X509 => {
            [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72]
        }
        EntryKind::Sha256 => {
            [0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28]
        }
    };
    let size = entries[0].len() + 16;
    let word = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    let mut out = [&guid[..], &word(28 + size * entries.len()), &word(0), &word(size)].concat();
    for entry in entries {
        out.extend([&[7; 16][..], entry].concat());
    }
    out
}

/// What makes one boot differ from the good one.
#[derive(Clone)]
struct Boot {
    firmware: &'static str,
    secure_boot: Vec<u8>,
    pk: Vec<u8>,
    db: Vec<u8>,
    dbx: Vec<u8>,
    before_separator: Vec<(EventType, Vec<u8>)>,
    authority: Option<&'static [u8]>,
    sbat: Option<&'static str>,
    driver: &'static [u8],
    applications: Vec<&'static [u8]>,
    initrd: Option<&'static [u8]>,
    grub: Vec<&'static [u8]>,
    command_line: Option<String>,
    after: Vec<(u8, EventType, Vec<u8>)>,
}

impl Boot {
    fn good() -> Self {
        Self {
            firmware: "v1",
            secure_boot: vec![1],
            pk: list(EntryKind::X509, &[b"platform key"]),
            db: list(EntryKind::X509, &[b"signer"]),
            dbx: list(EntryKind::Sha256, &[&[1; 32], &[2; 32]]),
            before_separator: Vec::new(),
            authority: Some(b"signer"),
            sbat: Some("sbat,1,2023012900\nshim,2\n"),
            driver: b"option ROM",
            applications: vec![b"shim", b"kernel"],
            initrd: Some(b"initrd"),
            grub: vec![b"set timeout=0"],
            command_line: Some(COMMAND_LINE.into()),
            after: Vec::new(),
        }
    }

    fn log(&self) -> LogBuilder {
        let mut log = LogBuilder::sha256()
            .event(0, EventType::S_CRTM_VERSION, &to_utf16(self.firmware))
            .hashed(2, EventType::EFI_BOOT_SERVICES_DRIVER, &[0; 32], self.driver)
            .variable(SecureBoot, &self.secure_boot)
            .variable(Pk, &self.pk)
            .variable(Kek, &list(EntryKind::X509, &[b"exchange key"]))
            .variable(Db, &self.db)
            .variable(Dbx, &self.dbx);
        for (event_type, data) in &self.before_separator {
            log = log.event(7, *event_type, data);
        }
        log = log.event(4, EventType::EFI_ACTION, b"Calling EFI Application from Boot Option");
        log = log.separators(&[0, 2, 4, 5, 7]);
        if let Some(certificate) = self.authority {
            let entry = [&[7; 16][..], certificate].concat();
            let data = Variable::marshal(Guid::IMAGE_SECURITY, "db", &entry);
            log = log.event(7, EventType::EFI_VARIABLE_AUTHORITY, &data);
        }
        if let Some(level) = self.sbat {
            let data = Variable::marshal(Guid::SHIM, "SbatLevel", level.as_bytes());
            log = log.event(7, EventType::EFI_VARIABLE_AUTHORITY, &data);
        }
        for application in &self.applications {
            log = log.hashed(4, EventType::EFI_BOOT_SERVICES_APPLICATION, &[0; 32], application);
        }
        for command in &self.grub {
            let data = [&b"grub_cmd: "[..], command, &[0]].concat();
            log = log.hashed(8, EventType::IPL, &data, command);
        }
        if let Some(line) = &self.command_line {
            let options = [&0x8f3b_22edu32.to_le_bytes()[..], &0u32.to_le_bytes()].concat();
            log = log.event(12, EventType::IPL, &to_utf16(line));
            log = log.hashed(9, EventType::EVENT_TAG, &options, &to_utf16(line));
        }
        if let Some(initrd) = self.initrd {
            let tag = [&0x8f3b_22ecu32.to_le_bytes()[..], &0u32.to_le_bytes()].concat();
            log = log.hashed(9, EventType::EVENT_TAG, &tag, initrd);
        }
        log = log.event(5, EventType::EFI_ACTION, b"Exit Boot Services Invocation");
        log = log.event(5, EventType::EFI_ACTION, b"Exit Boot Services Returned with Success");
        // So that no PCR of a boot without them is silent.
        log = log.event(8, EventType::IPL, b"end").event(9, EventType::IPL, b"end").event(
            12,
            EventType::IPL,
            &[],
        );
        for (index, event_type, data) in &self.after {
            log = log.event(*index, *event_type, data);
        }
        log
    }

    fn judged_by(&self, rules: &BootRules) -> Vec<BootDeviation> {
        judge(&self.log().history(&EXPLAINED), rules)
    }

    fn codes(&self, rules: &BootRules) -> Vec<&'static str> {
        self.judged_by(rules).iter().map(BootDeviation::code).collect()
    }
}

fn measured(bytes: &[u8]) -> Measurement {
    Measurement { digest: TaggedDigest(digest_of(bytes)), label: "known".into() }
}

fn entry(kind: EntryKind, digest: Digest) -> EntryRule {
    EntryRule { kind, digest: TaggedDigest(digest), label: String::new() }
}

fn event_rule(index: u8, bytes: &[u8]) -> EventRule {
    EventRule { pcr: pcr(index), digest: TaggedDigest(digest_of(bytes)), label: String::new() }
}

/// Rules by hand, which [`Boot::good`] meets.
fn rules() -> BootRules {
    let variable = |certificate: &[u8]| VariableRules {
        digests: Vec::new(),
        entries: vec![entry(EntryKind::X509, digest_of(certificate))],
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    let mut rules = BootRules::of(BANK, pcrs(&EXPLAINED));
    rules.firmware = Some(FirmwareRules { versions: vec!["v1".into()], blobs: Vec::new() });
    rules.secure_boot = Some(SecureBootRules {
        mode: SecureBootMode::Required,
        pk: variable(b"platform key"),
        kek: variable(b"exchange key"),
        db: variable(b"signer"),
        dbx: DbxRules {
            digests: Vec::new(),
            minimum: vec![entry(EntryKind::Sha256, Digest::from_slice(BANK, &[1; 32]).unwrap())],
        },
        authorities: vec![AuthorityRule {
            kind: AuthorityKind::Certificate,
            digest: TaggedDigest(digest_of(b"signer")),
            label: String::new(),
        }],
        sbat_minimum: Some(2_022_000_000),
    });
    rules.boot_applications = vec![measured(b"shim"), measured(b"kernel")];
    rules.drivers = vec![measured(b"option ROM")];
    rules.initrds = vec![measured(b"initrd")];
    rules.command_line = Some(CommandLineRules {
        tokens: Some(TokenRules {
            required: words("ima_policy=tcb"),
            forbidden: words("init rdinit"),
            allowed: words("quiet"),
        }),
        ..CommandLineRules::default()
    });
    rules.events = vec![
        event_rule(8, b"set timeout=0"),
        event_rule(8, b"end"),
        event_rule(9, b"end"),
        event_rule(12, b""),
    ];
    rules
}

#[test]
fn a_boot_that_meets_its_rules_does_not_deviate() {
    let rules = rules();
    assert_eq!(rules.check(), Ok(()));
    assert_eq!(Boot::good().judged_by(&rules), []);
    let newer = Boot {
        dbx: list(EntryKind::Sha256, &[&[3; 32], &[1; 32]]),
        sbat: Some("sbat,1,2026010100\n"),
        ..Boot::good()
    };
    assert_eq!(newer.judged_by(&rules), [], "more revocations are fine");
}

/// Attacks 51, 60 and 61.
#[test]
fn each_way_to_deviate_has_its_code() {
    let good = Boot::good;
    let action = EventType::EFI_ACTION;
    let variable = |which: ConfigurationVariable, contents: &[u8]| {
        (EventType::EFI_VARIABLE_DRIVER_CONFIG, Variable::marshal(which.vendor(), which.name(), contents))
    };
    let (config, secure_boot_again) = variable(SecureBoot, &[1]);
    let line = |text: &str| Some(text.to_owned());
    for (boot, expected, case) in [
        (Boot { firmware: "v2", ..good() }, &["boot_firmware"][..], "other firmware"),
        (Boot { driver: b"implant", ..good() }, &["boot_driver"], "another option ROM"),
        (Boot { applications: vec![b"shim", b"evil"], ..good() }, &["boot_application"], "another kernel"),
        (
            Boot { applications: vec![], ..good() },
            &["boot_application_missing"],
            "started without a measurement",
        ),
        (Boot { initrd: Some(b"evil"), ..good() }, &["boot_initrd", "boot_initrd_missing"], "another initrd"),
        (Boot { initrd: None, ..good() }, &["boot_initrd_missing"], "no initrd"),
        (
            Boot { grub: vec![b"insmod evil"], ..good() },
            &["boot_event_unexplained"],
            "another command of GRUB",
        ),
        (
            Boot { command_line: line("quiet ima_policy=tcb init=/bin/sh"), ..good() },
            &["boot_command_line", "boot_command_line", "boot_command_line_missing"],
            "a shell for init",
        ),
        (
            Boot { command_line: line("quiet"), ..good() },
            &["boot_command_line", "boot_command_line", "boot_command_line_missing"],
            "no IMA policy",
        ),
        (Boot { command_line: None, ..good() }, &["boot_command_line_missing"], "no command line"),
        (Boot { secure_boot: vec![0], ..good() }, &["secure_boot_not_on"], "Secure Boot off"),
        (Boot { secure_boot: vec![], ..good() }, &["secure_boot_not_on"], "Secure Boot without contents"),
        (
            Boot { secure_boot: vec![0], authority: None, ..good() },
            &["secure_boot_not_on"],
            "Secure Boot off, of which nobody says that it is on",
        ),
        (
            Boot { authority: None, ..good() },
            &["secure_boot_no_authority"],
            "SecureBoot=1, and nothing checked",
        ),
        (
            Boot { authority: Some(b"stranger"), ..good() },
            &["secure_boot_authority", "secure_boot_no_authority"],
            "checked by another key",
        ),
        (
            Boot { pk: list(EntryKind::X509, &[b"DO NOT TRUST - AMI Test PK"]), ..good() },
            &["secure_boot_variable"],
            "a test key",
        ),
        (
            Boot { db: list(EntryKind::X509, &[b"signer", b"signe2"]), ..good() },
            &["secure_boot_variable"],
            "one more signer",
        ),
        (
            Boot { dbx: list(EntryKind::Sha256, &[&[2; 32]]), ..good() },
            &["secure_boot_variable"],
            "an old dbx",
        ),
        (Boot { dbx: vec![1, 2, 3], ..good() }, &["secure_boot_variable"], "a dbx that is none"),
        (Boot { sbat: Some("sbat,1,2021030218\n"), ..good() }, &["secure_boot_sbat"], "an old SBAT level"),
        (Boot { sbat: None, ..good() }, &["secure_boot_sbat"], "no SBAT level"),
        (
            Boot { before_separator: vec![(action, b"UEFI Debug Mode".to_vec())], ..good() },
            &["boot_debugger"],
            "a debugger",
        ),
        (
            Boot { before_separator: vec![(action, b"DMA Protection Disabled".to_vec())], ..good() },
            &["boot_dma_unprotected"],
            "no DMA protection",
        ),
        (
            Boot {
                before_separator: vec![(action, b"Security Level is Downgraded to 0".to_vec())],
                ..good()
            },
            &["boot_event_unexplained"],
            "a vendor's word in PCR 7",
        ),
        (
            Boot { before_separator: vec![variable(Db, b"")], ..good() },
            &["secure_boot_unreadable"],
            "a variable twice",
        ),
        (
            Boot { after: vec![(7, config, secure_boot_again)], ..good() },
            &["secure_boot_after_separator"],
            "a variable after the separator",
        ),
        (
            Boot { after: vec![(4, EventType::SEPARATOR, vec![0; 4])], ..good() },
            &["boot_separator_twice"],
            "a second separator",
        ),
        (
            Boot { after: vec![(5, EventType::ACTION, vec![0xff; 4])], ..good() },
            &["boot_separator_twice"],
            "a second separator by another name",
        ),
        (
            Boot { after: vec![(4, EventType::SEPARATOR, vec![1, 0, 0, 0])], ..good() },
            &["boot_separator_error"],
            "an error of the firmware",
        ),
        (
            Boot { after: vec![(2, EventType::POST_CODE, b"late".to_vec())], ..good() },
            &["boot_event_after_separator"],
            "firmware after the separator",
        ),
        (
            Boot { after: vec![(9, EventType::from_u32(0x99), b"kexec".to_vec())], ..good() },
            &["boot_event_unexplained"],
            "a vendor's event",
        ),
    ] {
        assert_eq!(boot.codes(&rules()), expected, "{case}: {:?}", boot.judged_by(&rules()));
    }
}

/// Attack 51.
#[test]
fn a_pcr_without_separator_deviates() {
    let log = LogBuilder::sha256().event(0, EventType::S_CRTM_VERSION, &to_utf16("v1"));
    let mut rules = BootRules::of(BANK, pcrs(&[0]));
    rules.firmware = Some(FirmwareRules { versions: vec!["v1".into()], blobs: Vec::new() });
    assert_eq!(judge(&log.history(&[0]), &rules), [BootDeviation::NoSeparator { pcr: pcr(0) }]);
}

#[test]
fn a_history_of_another_bank_or_of_fewer_pcrs_is_not_judged_as_good() {
    let bank = HashAlgorithm::Sha384;
    let other = BootRules::of(bank, pcrs(&[0]));
    let found = Boot::good().judged_by(&other);
    assert_eq!(found, [BootDeviation::OtherBank { expected: bank, found: BANK }]);
    let history = Boot::good().log().history(&[0, 4, 5, 7, 8, 9, 12]);
    assert_eq!(judge(&history, &rules()), [BootDeviation::NotExplained { pcr: pcr(2) }]);
}

#[test]
fn what_is_denied_deviates_whatever_accepts_it() {
    let mut rules = rules();
    rules.denied =
        vec![Measurement { digest: TaggedDigest(digest_of(b"shim")), label: "CVE-2023-40547".into() }];
    let found = Boot::good().judged_by(&rules);
    assert!(
        matches!(&found[..], [BootDeviation::Denied { label, .. }] if label == "CVE-2023-40547"),
        "{found:?}"
    );
    let accepted = BootRulesError::AcceptedAndDenied {
        rules: "boot_applications",
        digest: TaggedDigest(digest_of(b"shim")),
    };
    assert_eq!(rules.check(), Err(accepted));
    let authority = Variable::marshal(Guid::IMAGE_SECURITY, "db", &[&[7; 16][..], b"signer"].concat());
    rules.denied = vec![measured(&authority)];
    assert_eq!(Boot::good().codes(&rules), ["boot_denied", "secure_boot_no_authority"]);
}

/// Attack 49: a command of GRUB that passes for the command line would be one that its rules accept.
#[test]
fn only_one_event_of_a_pcr_is_taken_as_the_command_line() {
    let forged = b"linux /evil ima_policy=tcb";
    let mut rules = rules();
    if let Some(tokens) = rules.command_line.as_mut().and_then(|rules| rules.tokens.as_mut()) {
        tokens.allowed.extend(["linux".into(), "/*".into()]);
    }
    let claimed = |log: LogBuilder, text: &[u8]| {
        log.hashed(8, EventType::IPL, &[&b"kernel_cmdline: "[..], text, &[0]].concat(), text)
    };
    let log = claimed(claimed(Boot::good().log(), forged), b"/vmlinuz ima_policy=tcb");
    let codes: Vec<_> = judge(&log.history(&EXPLAINED), &rules).iter().map(BootDeviation::code).collect();
    assert_eq!(codes, ["boot_command_line_twice"]);
    if let Some(rules) = rules.command_line.as_mut() {
        rules.exact = vec!["/vmlinuz ima_policy=tcb".into()];
    }
    let codes: Vec<_> = judge(&log.history(&EXPLAINED), &rules).iter().map(BootDeviation::code).collect();
    assert_eq!(codes, ["boot_command_line_twice"]);
}

#[test]
fn a_command_line_is_accepted_whole_or_by_its_digest() {
    let mut rules = rules();
    let exact = |exact: &str| CommandLineRules { exact: vec![exact.into()], ..CommandLineRules::default() };
    rules.command_line = Some(exact(COMMAND_LINE));
    assert_eq!(Boot::good().judged_by(&rules), []);
    rules.command_line = Some(exact("quiet"));
    let expected = ["boot_command_line", "boot_command_line", "boot_command_line_missing"];
    assert_eq!(Boot::good().codes(&rules), expected);
    let digests = vec![measured(&to_utf16(COMMAND_LINE))];
    rules.command_line = Some(CommandLineRules { digests, ..CommandLineRules::default() });
    assert_eq!(Boot::good().judged_by(&rules), []);
}

#[test]
fn what_a_withdrawn_set_demanded_is_still_demanded_of_a_boot_that_has_nothing_of_it() {
    let event = |log: LogBuilder, pcr| log.hashed(pcr, EventType::IPL, b"", b"something");
    let log = || [9, 12, 14].into_iter().fold(LogBuilder::sha256(), event);
    let rules = |explained: &[u8], initrd, command_line| BootRules {
        events: [9, 12, 14].map(|pcr| event_rule(pcr, b"something")).to_vec(),
        demanded: Demanded { initrd, command_line },
        ..BootRules::of(BANK, pcrs(explained))
    };
    let missing = |explained: &[u8], initrd, command_line| {
        judge(&log().history(&[9, 12]), &rules(explained, initrd, command_line))
    };
    assert_eq!(missing(&[9], false, false), []);
    assert_eq!(missing(&[9], true, false), [BootDeviation::NoInitrd]);
    assert_eq!(missing(&[12], true, false), [], "nothing is known of PCR 9");
    assert_eq!(missing(&[12], false, true), [BootDeviation::NoCommandLine]);
    assert_eq!(missing(&[9], true, true), [BootDeviation::NoInitrd, BootDeviation::NoCommandLine]);
    assert_eq!(judge(&log().history(&[14]), &rules(&[14], true, true)), [], "nothing is known of either");
}

/// The EFI stub's event has no text; without another event that proves it there is nothing to judge by.
#[test]
fn a_command_line_whose_text_is_not_proved_is_not_judged_by_its_words() {
    let tag = [&0x8f3b_22edu32.to_le_bytes()[..], &0u32.to_le_bytes(), &to_utf16(COMMAND_LINE)].concat();
    let log = LogBuilder::sha256().hashed(9, EventType::EVENT_TAG, &tag, &to_utf16("init=/bin/sh"));
    let mut rules = BootRules::of(BANK, pcrs(&[9]));
    rules.command_line = self::rules().command_line;
    let found = judge(&log.history(&[9]), &rules);
    assert!(
        matches!(
            found[..],
            [
                BootDeviation::CommandLineNotAccepted { fault: CommandLineFault::NotProved, .. },
                BootDeviation::NoCommandLine
            ]
        ),
        "{found:?}"
    );
}

/// Attack 60: an older SBAT level cannot be covered up by a newer one that the system measures itself.
#[test]
fn the_oldest_sbat_level_counts() {
    let newer = Variable::marshal(Guid::SHIM, "SbatLevel", b"sbat,1,2026010100\n");
    let after = vec![(7, EventType::EFI_VARIABLE_AUTHORITY, newer)];
    let boot = Boot { sbat: Some("sbat,1,2021030218\n"), after, ..Boot::good() };
    let expected = BootDeviation::SbatTooOld { found: Some(2_021_030_218), minimum: 2_022_000_000 };
    assert_eq!(boot.judged_by(&rules()), [expected]);
}

/// Attack 57.
#[test]
fn deviations_are_bounded_and_only_show() {
    let odd = "a\u{1b}[2J\u{202e}".repeat(1_000).into_bytes();
    let after = (0..100).map(|_| (8, EventType::IPL, odd.clone())).collect();
    let found = Boot { after, ..Boot::good() }.judged_by(&rules());
    assert_eq!(found.len(), 65);
    assert_eq!(found.last(), Some(&BootDeviation::More { more: 36 }));
    for deviation in found {
        let words = deviation.to_string();
        assert!(words.len() < 1200 && words.chars().all(rootbound_common::text::only_shows), "{words}");
    }
}

#[test]
fn what_is_denied_is_named_however_much_else_deviates() {
    let after = (0..100).map(|number: u8| (8, EventType::IPL, vec![number]));
    let after = after.chain([(8, EventType::IPL, b"the worst".to_vec())]).collect();
    let denied = measured(b"the worst");
    let found = Boot { after, ..Boot::good() }.judged_by(&BootRules { denied: vec![denied], ..rules() });
    assert_eq!(found.len(), 65);
    assert!(matches!(found.first(), Some(BootDeviation::Denied { .. })), "{:?}", found.first());
    assert_eq!(found.last(), Some(&BootDeviation::More { more: 37 }));
}

#[test]
fn a_deviation_names_its_event() {
    let boot = Boot { grub: vec![b"insmod evil"], ..Boot::good() };
    let found = boot.judged_by(&rules());
    assert_eq!(
        found[0].to_string(),
        format!(
            "event 18 of PCR 8 (`EV_IPL: grub_cmd: insmod evil`, sha256:{}) is not explained by any rule",
            digest_of(b"insmod evil")
        )
    );
    assert_eq!(found[0].event().map(|event| event.pcr), Some(pcr(8)));
}

#[test]
fn captured_rules_expect_the_boot_that_they_were_captured_from() {
    let history = Boot::good().log().history(&EXPLAINED);
    let (rules, left_out) = capture(&history, pcrs(&EXPLAINED));
    assert_eq!(left_out, []);
    assert_eq!(rules.check(), Ok(()));
    assert_eq!(judge(&history, &rules), []);
    assert_eq!(rules.explained, pcrs(&EXPLAINED));
    let newer = Boot { dbx: list(EntryKind::Sha256, &[&[3; 32], &[2; 32], &[1; 32]]), ..Boot::good() };
    assert_eq!(newer.judged_by(&rules), [], "more revocations are fine");
    let other = Boot { applications: vec![b"shim", b"evil"], secure_boot: vec![0], ..Boot::good() };
    assert_eq!(other.codes(&rules), ["boot_application", "secure_boot_not_on"]);
    let json = serde_json::to_string(&rules).unwrap();
    assert_eq!(serde_json::from_str::<BootRules>(&json).unwrap(), rules);
    let text = toml::to_string(&rules).unwrap();
    assert_eq!(toml::from_str::<BootRules>(&text).unwrap(), rules);
}

#[test]
fn what_cannot_be_captured_is_left_out_with_its_reason() {
    let action = EventType::EFI_ACTION;
    let boot = Boot {
        secure_boot: vec![0],
        before_separator: vec![
            (action, b"UEFI Debug Mode".to_vec()),
            (action, b"DMA Protection Disabled".to_vec()),
        ],
        authority: None,
        after: vec![
            (5, EventType::EFI_GPT_EVENT, vec![1; 228]),
            (10, EventType::IPL, vec![]),
            (0, EventType::POST_CODE, b"late".to_vec()),
        ],
        ..Boot::good()
    };
    let history = boot.log().history(&[0, 2, 4, 5, 7, 8, 9, 10, 12]);
    let (rules, left_out) = capture(&history, pcrs(&[0, 1, 2, 4, 5, 7, 8, 9, 10, 12]));
    assert_eq!(rules.explained, pcrs(&[2, 4, 7, 8, 9, 12]));
    assert_eq!(judge(&history, &rules), []);
    assert_eq!(rules.check(), Ok(()));
    assert!(
        matches!(
            left_out[..],
            [
                LeftOut::NotAuthenticated { .. },
                LeftOut::MachineSpecific { .. },
                LeftOut::CannotExplain { .. },
                LeftOut::Irregular { .. },
                LeftOut::SecureBoot { state: SecureBootState::Off },
                LeftOut::Debugger,
                LeftOut::DmaProtection
            ]
        ),
        "{left_out:?}"
    );
    let (nothing, _) = capture(&history, pcrs(&[10]));
    assert_eq!(nothing.check(), Err(BootRulesError::NothingExplained));
}

#[test]
fn rules_that_check_nothing_or_contradict_are_refused() {
    let with = |change: &dyn Fn(&mut BootRules)| {
        let mut rules = rules();
        change(&mut rules);
        rules.check()
    };
    let sha1 = TaggedDigest(hash(HashAlgorithm::Sha1, &[b"x"]));
    let secure_boot = |change: &dyn Fn(&mut SecureBootRules)| {
        with(&|rules| rules.secure_boot.as_mut().into_iter().for_each(change))
    };
    let nothing = |rules| Err(BootRulesError::AcceptsNothing { rules });
    for (found, expected) in [
        (with(&|r| r.explained = pcrs(&[])), Err(BootRulesError::NothingExplained)),
        (with(&|r| r.bank = HashAlgorithm::Sha1), Err(BootRulesError::Sha1)),
        (
            with(&|r| r.secure_boot = None),
            Err(BootRulesError::RulesMissing { pcr: pcr(7), rules: "secure_boot" }),
        ),
        (
            with(&|r| r.boot_applications.clear()),
            Err(BootRulesError::RulesMissing { pcr: pcr(4), rules: "boot_applications" }),
        ),
        (
            with(&|r| r.explained = pcrs(&[0, 4, 5, 7, 8, 9, 12])),
            Err(BootRulesError::PcrNotExplained { rules: "drivers", pcr: pcr(2) }),
        ),
        (
            with(&|r| r.events.push(event_rule(14, b"MokList"))),
            Err(BootRulesError::PcrNotExplained { rules: "events", pcr: pcr(14) }),
        ),
        (with(&|r| r.firmware = Some(FirmwareRules::default())), nothing("firmware")),
        (with(&|r| r.command_line = Some(CommandLineRules::default())), nothing("command_line")),
        (secure_boot(&|r| r.kek = VariableRules::default()), nothing("kek")),
        (secure_boot(&|r| r.dbx = DbxRules::default()), nothing("dbx")),
        (secure_boot(&|r| r.authorities.clear()), nothing("authorities")),
        (
            with(&|r| r.initrds[0].digest = sha1),
            Err(BootRulesError::OtherAlgorithm { rules: "initrds", digest: sha1, expected: BANK }),
        ),
        (
            secure_boot(&|r| r.db.entries[0].digest = sha1),
            Err(BootRulesError::OtherAlgorithm { rules: "db", digest: sha1, expected: BANK }),
        ),
        (
            with(&|r| r.drivers = vec![measured(b"x"); BootRules::MAX_ENTRIES + 1]),
            Err(BootRulesError::TooMany { rules: "drivers" }),
        ),
    ] {
        assert_eq!(found, expected);
    }
    for index in [10, 16, 23] {
        let found = with(&|r| r.explained = r.explained.with(pcr(index)));
        assert!(matches!(found, Err(BootRulesError::CannotExplain { .. })), "{index}");
    }
    let unknown = r#"{"bank":"sha256","explained":[0],"ignore_everything":true}"#;
    assert!(serde_json::from_str::<BootRules>(unknown).is_err(), "an unknown field");
    let upper = format!(r#"{{"digest":"sha256:{}"}}"#, "AB".repeat(32));
    assert!(serde_json::from_str::<Measurement>(&upper).is_err(), "a second spelling");
}

#[test]
fn dbx_without_what_is_denied_deviates_and_an_event_that_is_denied_names_the_list() {
    use crate::reference::deny::tests::entry;
    use crate::reference::{DeniedAs, DenyList};
    let of = |bytes: &[u8]| hash(HashAlgorithm::Sha256, &[bytes]);
    let contents = [
        list(EntryKind::Sha256, &[of(b"revoked").as_bytes()]),
        list(EntryKind::X509, &[b"a revoked certificate"]),
    ]
    .concat();
    let log = |contents: &[u8]| {
        let variables = ConfigurationVariable::ALL.into_iter();
        let log = variables.fold(LogBuilder::sha256(), |log, variable| {
            log.variable(variable, if variable == Dbx { contents } else { &[] })
        });
        log.separator(7).event(4, EventType::EFI_BOOT_SERVICES_APPLICATION, b"shim").history(&[4, 7])
    };
    let deny = |entries| DenyList::new(4, entries).unwrap();
    let wanted = deny(vec![
        entry(DeniedAs::DbxImage, of(b"revoked"), "BootHole"),
        entry(DeniedAs::DbxCertificate, of(b"a revoked certificate"), "a leaked key"),
    ]);
    assert_eq!(judge_denied(&log(&contents), &wanted), []);
    for (lacking, label) in [
        (list(EntryKind::X509, &[b"a revoked certificate"]), "BootHole (deny@4)"),
        (list(EntryKind::Sha256, &[of(b"revoked").as_bytes()]), "a leaked key (deny@4)"),
    ] {
        let found = judge_denied(&log(&lacking), &wanted);
        assert!(
            matches!(&found[..], [BootDeviation::DbxLacks { label: found }] if found == label),
            "{found:?}"
        );
    }
    assert_eq!(judge_denied(&log(&[]), &wanted).len(), 2);
    // A log without any dbx proves none; of PCR 7 that nobody asks about nothing is said.
    let bare = |explained| {
        let log =
            LogBuilder::sha256().separator(7).event(4, EventType::EFI_BOOT_SERVICES_APPLICATION, b"shim");
        log.history(explained)
    };
    assert_eq!(judge_denied(&bare(&[4, 7]), &wanted).len(), 2);
    assert_eq!(judge_denied(&bare(&[4]), &wanted), []);
    let shim = deny(vec![entry(DeniedAs::Digest, digest_of(b"shim"), "CVE-2023-40547")]);
    let found = judge_denied(&log(&contents), &shim);
    assert!(
        matches!(&found[..], [BootDeviation::Denied { label, .. }] if label == "CVE-2023-40547 (deny@4)"),
        "{found:?}"
    );
}

/// Whether rules that were made of several boots accept each, and what they say of the others.
fn shared(boots: &[Boot]) -> SharedBoot {
    let histories: Vec<_> = boots.iter().map(|boot| boot.log().history(&EXPLAINED)).collect();
    let shared = capture_shared(&histories, pcrs(&EXPLAINED)).unwrap();
    for history in &histories {
        assert_eq!(judge(history, &shared.rules), [], "each boot is as expected");
    }
    shared
}

#[test]
fn boots_that_are_alike_share_every_pcr() {
    let boots = [Boot::good(), Boot::good(), Boot::good()];
    let shared = shared(&boots);
    let (alone, _) = capture(&boots[0].log().history(&EXPLAINED), pcrs(&EXPLAINED));
    assert_eq!(shared.rules, alone);
    assert_eq!((shared.differing.as_slice(), shared.more), (&[][..], 0));
    assert_eq!(shared.rules.check(), Ok(()));
}

#[test]
fn pcr_in_which_boots_differ_is_left_out_event_by_event() {
    let other_kernel = Boot { applications: vec![b"shim", b"kernel 2"], ..Boot::good() };
    let shared = shared(&[Boot::good(), other_kernel, Boot::good()]);
    assert!(!shared.rules.explained.contains(pcr(4)), "the kernel is each machine's own");
    assert!(shared.rules.explained.contains(pcr(9)) && shared.rules.explained.contains(pcr(7)));
    let found: Vec<_> = shared.differing.iter().map(|one| (one.event.digest, one.on, one.of)).collect();
    assert_eq!(found, [(digest_of(b"kernel"), 2, 3), (digest_of(b"kernel 2"), 1, 3)]);
    assert!(shared.differing[0].to_string().starts_with("PCR 4 differs"), "{}", shared.differing[0]);
}

#[test]
fn of_revocations_what_all_boots_have_is_asked_for() {
    let newer = Boot { dbx: list(EntryKind::Sha256, &[&[1; 32], &[2; 32], &[3; 32]]), ..Boot::good() };
    let shared = shared(&[newer, Boot::good()]);
    let rules = shared.rules.secure_boot.clone().unwrap();
    assert_eq!((rules.dbx.digests.len(), rules.dbx.minimum.len()), (2, 2));
    let older = Boot { dbx: list(EntryKind::Sha256, &[&[1; 32]]), ..Boot::good() };
    let found = judge(&older.log().history(&EXPLAINED), &shared.rules);
    assert!(matches!(found[..], [BootDeviation::VariableNotAccepted { variable: Dbx, .. }]), "{found:?}");
}

#[test]
fn boots_of_no_common_event_share_nothing_and_no_boots_are_none() {
    let bare = LogBuilder::sha256().separators(&[0, 2, 4, 5, 7]).history(&[0, 2]);
    let shared = capture_shared(&[Boot::good().log().history(&[0, 2]), bare], pcrs(&[0, 2])).unwrap();
    assert!(shared.rules.explained.is_empty() && shared.rules.check().is_err());
    assert_eq!(shared.differing.len(), 2, "{:?}", shared.differing);
    assert!(capture_shared(&[], pcrs(&EXPLAINED)).is_none());
}
