//! Boot event logs of real machines: parsed, replayed and held against quotes as the corpus's `INDEX.json` says, bank by
//! bank; and virtual machines whose boots differ in one thing each, judged by rules captured from one of them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

mod corpus;
mod recorded;

use std::collections::{BTreeMap, BTreeSet};

use corpus::{Corpus, Entry};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use recorded::recorded;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{Attest, Attested, HashAlgorithm, PcrIndex, PcrSet, PcrValues};
use rootbound_verifier::appraisal::boot::{BootDeviation, BootRules, LeftOut, capture, judge};
use rootbound_verifier::enrollment::AttestationKey;
use rootbound_verifier::evidence::boot_log::{
    BootHistory, BootLogError, LogFormat, ParsedBootLog, Replayed, SignatureKind, authenticate,
    authenticate_last, parse_signature_lists,
};
use rootbound_verifier::evidence::{Observed, StoredQuote, restore};
use serde_json::Value;

const BANK: HashAlgorithm = HashAlgorithm::Sha256;

/// Kinds of artefacts that hold logs, and how many logs each has.
const KINDS: [(&str, usize); 5] =
    [("eventlog", 61), ("eventlog-with-pcrs", 14), ("quote-evidence", 16), ("quote-no-ak", 1), ("specid", 2)];

/// A log, with what the index says of it.
struct Log {
    name: String,
    bytes: Vec<u8>,
    expected: Value,
}

fn logs(corpus: &Corpus) -> Vec<Log> {
    let mut logs = Vec::new();
    for (kind, count) in KINDS {
        let before = logs.len();
        for entry in corpus.entries(kind) {
            match entry.expected["logs"].as_object() {
                Some(named) => logs.extend(named.iter().map(|(file, expected)| Log {
                    name: format!("{}/{file}", entry.file),
                    bytes: corpus.read(&entry.file, file),
                    expected: expected.clone(),
                })),
                // Artefacts of these kinds without a log, such as quotes, have no word on parsing.
                None if entry.expected.get("parse").is_none() => {}
                None => logs.push(Log {
                    bytes: decoded(&entry, corpus.read(&entry.file, "")),
                    name: entry.file,
                    expected: entry.expected,
                }),
            }
        }
        assert_eq!(logs.len() - before, count, "{kind}");
    }
    logs
}

/// Some logs are stored as base64.
fn decoded(entry: &Entry, bytes: Vec<u8>) -> Vec<u8> {
    if !entry.file.ends_with(".b64") {
        return bytes;
    }
    let text: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    data_encoding::BASE64.decode(&text).expect("base64")
}

fn values(stated: &Value, bank: HashAlgorithm) -> BTreeMap<PcrIndex, Digest> {
    let Some(stated) = stated[bank.name()].as_object() else { return BTreeMap::new() };
    stated
        .iter()
        .map(|(index, hex)| {
            let index = PcrIndex::new(index.parse().unwrap()).unwrap();
            (index, Digest::from_hex(bank, &hex.as_str().unwrap().to_ascii_lowercase()).unwrap())
        })
        .collect()
}

const SHA1: &[HashAlgorithm] = &[HashAlgorithm::Sha1];
const SHA384_AND_512: &[HashAlgorithm] = &[HashAlgorithm::Sha384, HashAlgorithm::Sha512];

/// Logs with events that lack a digest of a bank that the Spec ID event lists, the banks, and the PCRs of those events. The
/// index counts the events that have one; here the log then says nothing of that PCR in that bank.
const INCOMPLETE: [(&str, &[HashAlgorithm], &[u8]); 6] = [
    // Windows, from its boot manager on, leaves out the bank that it does not use; and caps it, so that no count is right.
    ("kgoldman+ibmtss/utils/dell1.log", SHA1, &[5, 11, 12, 13, 14]),
    // Intel TXT measures some modules in one bank only. SHA-1 is no evidence here; SHA-256 is whole.
    ("txt-logs.bin", SHA1, &[17, 18]),
    // Cut by hand: a Spec ID event with four banks before an event with two digests.
    ("fixtures/event-uefiaction.bin", SHA384_AND_512, &[4]),
    ("fixtures/event-uefivar.bin", SHA384_AND_512, &[7]),
    ("eventlog/event-uefiaction.b64", SHA384_AND_512, &[4]),
    ("eventlog/event-uefivar.b64", SHA384_AND_512, &[7]),
];

#[test]
fn every_log_replays_as_the_index_says_bank_by_bank() {
    let Some(corpus) = Corpus::open("every_log_replays_as_the_index_says_bank_by_bank") else { return };
    let (mut refused, mut values_compared, mut incomplete) = (Vec::new(), 0, BTreeSet::new());
    for Log { name, bytes, expected } in logs(&corpus) {
        let parsed = ParsedBootLog::parse(&bytes);
        if expected["parse"] == "error" {
            refused.push((name, parsed.expect_err("refused").code()));
            continue;
        }
        let log = parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
        let format = if log.format() == LogFormat::Sha1 { "sha1" } else { "crypto-agile" };
        assert_eq!(expected["format"], format, "{name}");
        let banks: Vec<_> = log.banks().iter().map(|bank| bank.name()).collect();
        assert_eq!(expected["banks"], Value::from(banks), "{name}");
        // The index leaves the Spec ID event out of its count.
        let events = log.events().len() - usize::from(log.format() == LogFormat::CryptoAgile);
        let counted = expected["events"].as_u64().unwrap();
        assert!([events, events + 1].contains(&usize::try_from(counted).unwrap()), "{name}: {events}");
        assert_eq!(expected["trailing_padding_bytes"].as_u64(), u64::try_from(log.padding()).ok(), "{name}");
        let stated = expected.get("startup_locality").and_then(Value::as_u64);
        assert_eq!(log.startup_locality().map(u64::from), stated, "{name}");
        for bank in log.banks() {
            let stated = values(&expected["replay"], *bank);
            let replayed = log.replay(*bank);
            for (pcr, found) in &replayed {
                match found {
                    Replayed::Value(value) => {
                        assert_eq!(stated.get(pcr), Some(value), "{name}: {bank} PCR {pcr}");
                        values_compared += 1;
                    }
                    Replayed::MissingDigest { .. } => {
                        incomplete.insert((name.clone(), *bank, pcr.get()));
                    }
                }
            }
            let unsaid: Vec<_> = stated.keys().filter(|pcr| !replayed.contains_key(pcr)).collect();
            assert!(unsaid.is_empty(), "{name}: {bank} {unsaid:?}");
        }
        check_descriptions(&name, &log);
    }
    refused.sort();
    assert_eq!(
        refused,
        [
            (
                "google+go-attestation/extracted/specid_malicious_number_of_algs/eventlog.bin".to_owned(),
                "boot_log_spec_id"
            ),
            (
                "keylime+keylime/test/data/create-mb-policy/binary_bios_measurements-bogus".to_owned(),
                "boot_log_event_malformed"
            ),
            (
                "keylime+keylime/test/data/create-mb-policy/binary_bios_measurements-empty".to_owned(),
                "boot_log_empty"
            ),
        ]
    );
    assert!(values_compared > 1000, "{values_compared}");
    for (end, banks, pcrs) in INCOMPLETE {
        let before = incomplete.len();
        incomplete
            .retain(|(name, bank, pcr)| !(name.ends_with(end) && banks.contains(bank) && pcrs.contains(pcr)));
        assert_eq!(before - incomplete.len(), banks.len() * pcrs.len(), "{end}");
    }
    assert_eq!(incomplete, BTreeSet::new());
}

fn check_descriptions(name: &str, log: &ParsedBootLog<'_>) {
    let lines: Vec<_> = log.describe(BANK).collect();
    assert_eq!(lines.len(), log.events().len());
    for line in lines {
        assert!(line.chars().count() < 400, "{name}: {line}");
        assert!(line.chars().all(rootbound_common::text::only_shows), "{name}: {line}");
    }
}

#[test]
fn replayed_values_are_those_that_sources_and_quotes_state() {
    let Some(corpus) = Corpus::open("replayed_values_are_those_that_sources_and_quotes_state") else {
        return;
    };
    let (mut matched, mut differ) = (0, Vec::new());
    for Log { name, bytes, expected } in logs(&corpus) {
        let Ok(log) = ParsedBootLog::parse(&bytes) else { continue };
        let versus = expected["vs_pcrs_json"].as_object();
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (bank, said) in versus.into_iter().flatten() {
            let bank: HashAlgorithm = bank.parse().unwrap();
            let stated: Value = serde_json::from_slice(&corpus.read(folder, "pcrs.json")).unwrap();
            let stated = values(&stated, bank);
            for (pcr, replayed) in log.replay(bank) {
                let number = Value::from(pcr.get());
                let is = |list: &str| said[list].as_array().unwrap().contains(&number);
                let equal = stated.get(&pcr).map(|value| replayed == Replayed::Value(*value));
                match equal {
                    Some(true) => {
                        assert!(is("match"), "{name}: {bank} PCR {pcr}");
                        matched += 1;
                    }
                    Some(false) => {
                        assert!(is("mismatch"), "{name}: {bank} PCR {pcr}");
                        differ.push((name.clone(), pcr.get()));
                    }
                    None => assert!(!is("match") && !is("mismatch"), "{name}: {bank} PCR {pcr}"),
                }
            }
        }
    }
    assert!(matched > 300, "{matched}");
    // The earlier logs of the machine that resumed four times; only its last is of the quote.
    assert_eq!(differ.len(), 6, "{differ:?}");
    assert!(
        differ.iter().all(|(name, _)| name.contains("5eventlogs") && !name.ends_with("4.bin")),
        "{differ:?}"
    );
}

/// Updates of dbx, with the digests and the certificates in them: list size less 28, by the size of an entry.
const DATABASES: [(&str, (usize, usize)); 3] = [
    ("dbxupdate-2014-08-11.bin", (13, 0)),
    ("dbxupdate_x64-2020-10-12.bin", (183, 3)),
    ("dbxupdate_x64-2021-04-29.bin", (211, 0)),
];

#[test]
fn fragments_of_an_event_and_of_signature_databases_are_read() {
    let Some(corpus) = Corpus::open("fragments_of_an_event_and_of_signature_databases_are_read") else {
        return;
    };
    let fragments = corpus.entries("eventlog-fragment");
    assert_eq!(fragments.len(), 1);
    for entry in fragments {
        // One TCG_PCR_EVENT2 with a SHA-256 digest and no data, behind a Spec ID event that another artefact has not: its own.
        let mut log = b"\0\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x21\0\0\0Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0\x0b\0\x20\0\0".to_vec();
        log.extend(corpus.read(&entry.file, "event2.bin"));
        let parsed = ParsedBootLog::parse(&log).unwrap();
        assert_eq!((parsed.events().len(), parsed.events()[1].data()), (2, &[][..]));
    }
    let databases = corpus.entries("secureboot-data");
    assert_eq!(databases.len(), 3);
    for entry in databases {
        let bytes = corpus.read(&entry.file, "");
        // EFI_VARIABLE_AUTHENTICATION_2: a time of 16 bytes, then a certificate that states its own length.
        let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap());
        let lists = &bytes[16 + usize::try_from(length).unwrap()..];
        let entries = parse_signature_lists(lists).unwrap_or_else(|error| panic!("{}: {error}", entry.file));
        let of = |kind| entries.iter().filter(|entry| entry.kind == kind).count();
        let found = (of(SignatureKind::Sha256), of(SignatureKind::X509));
        let (_, expected) = DATABASES.iter().find(|(end, _)| entry.file.ends_with(end)).expect(&entry.file);
        assert_eq!(found, *expected, "{}", entry.file);
        assert_eq!(found.0 + found.1, entries.len(), "{}", entry.file);
        assert!(parse_signature_lists(&lists[1..]).is_err(), "{}", entry.file);
    }
}

/// Boots of virtual machines: the log, the quote over it, and what was varied.
struct Boot {
    name: String,
    log: Vec<u8>,
    observed: Observed,
}

impl Boot {
    fn read(corpus: &Corpus, name: &str) -> Self {
        Self::of(name, |file| corpus.read(&format!("vm/{name}"), file))
    }

    fn recorded(name: &str) -> Self {
        Self::of(name, |file| recorded(name, file))
    }

    fn of(name: &str, read: impl Fn(&str) -> Vec<u8>) -> Self {
        let public = read("ak.pub").split_off(2);
        let key = AttestationKey::parse(&public).unwrap();
        let quote = read("quote.msg");
        let Attested::Quote { selection, .. } = Attest::parse(&quote).unwrap().attested else {
            panic!("{name}: no quote")
        };
        let stated: Value = serde_json::from_slice(&read("pcrs.json")).unwrap();
        let mut pcrs = PcrValues::default();
        for (bank, selected) in selection.banks() {
            let stated = values(&stated, bank);
            selected.iter().for_each(|pcr| pcrs.insert(pcr, stated[&pcr]));
        }
        let evidence_at = Timestamp::from_millis(0);
        let stored = StoredQuote { quote, signature: read("quote.sig"), pcrs, evidence_at };
        let observed = restore(stored, NodeId::from_bytes([1; 32]), &key).unwrap();
        Self { name: name.to_owned(), log: read("eventlog.bin"), observed }
    }

    fn parsed(&self) -> ParsedBootLog<'_> {
        ParsedBootLog::parse(&self.log).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The PCRs that the log speaks of.
    fn spoken_of(&self) -> PcrSet {
        self.parsed().replay(BANK).into_keys().collect()
    }

    fn authenticate(&self, log: &[u8], needed: PcrSet) -> Result<BootHistory, BootLogError> {
        authenticate(ParsedBootLog::parse(log)?, &self.observed, BANK, needed)
    }

    fn history(&self) -> BootHistory {
        self.authenticate(&self.log, self.spoken_of())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn rules(&self) -> (BootRules, Vec<LeftOut>) {
        capture(&self.history(), self.spoken_of())
    }

    fn codes(&self, rules: &BootRules) -> BTreeSet<&'static str> {
        judge(&self.history(), rules).iter().map(BootDeviation::code).collect()
    }
}

/// Every boot of the corpus, and what becomes of it by the rules that were captured from `golden`.
const BOOTS: [(&str, &[&str]); 19] = [
    ("bank-sha256", &[]),
    ("cmdline", &["boot_command_line", "boot_command_line_missing"]),
    // Another build of the firmware.
    ("fw-2m", &["boot_firmware"]),
    ("golden", &[]),
    ("golden-reboot-cold", &[]),
    ("golden2", &[]),
    // IMA is set up by the command line, so that each other set-up is another command line.
    ("ima-critical", &["boot_command_line", "boot_command_line_missing"]),
    ("ima-ng", &["boot_command_line", "boot_command_line_missing"]),
    ("ima-none", &["boot_command_line", "boot_command_line_missing"]),
    // What runs after the boot is IMA's to say, not the boot log's.
    ("ima-rogue", &[]),
    // Its initrd has this kernel's modules.
    ("kernel-old", &["boot_application", "boot_application_missing", "boot_initrd", "boot_initrd_missing"]),
    ("reboot-warm", &[]),
    ("s3", &[]),
    ("sb-off-uki-own", OTHER_FIRMWARE_AND_IMAGE),
    // SecureBoot=1, and firmware fell back to its legacy loader: no application, no authority, no command line.
    (
        "sb-own-direct-unsigned",
        &["boot_application_missing", "boot_command_line_missing", "boot_firmware", "secure_boot_variable"],
    ),
    (
        "sb-snakeoil-uki",
        &[
            "boot_application",
            "boot_application_missing",
            "boot_command_line",
            "boot_command_line_missing",
            "boot_event_unexplained",
            "boot_firmware",
            "secure_boot_authority",
            "secure_boot_variable",
        ],
    ),
    ("sdboot", OTHER_IMAGE),
    // GRUB measures its command line in PCR 8, which golden does not explain.
    (
        "shimgrub-linuxefi",
        &["boot_application", "boot_application_missing", "boot_command_line_missing", UNEXPLAINED],
    ),
    ("uki", OTHER_IMAGE),
];
const UNEXPLAINED: &str = "boot_event_unexplained";
/// A boot from a disk, of which golden has none.
const OTHER_IMAGE: &[&str] = &[
    "boot_application",
    "boot_application_missing",
    "boot_command_line",
    "boot_command_line_missing",
    UNEXPLAINED,
];
const OTHER_FIRMWARE_AND_IMAGE: &[&str] = &[
    "boot_application",
    "boot_application_missing",
    "boot_command_line",
    "boot_command_line_missing",
    UNEXPLAINED,
    "boot_firmware",
];

#[test]
fn boots_of_virtual_machines_are_judged_by_rules_captured_from_one() {
    let Some(corpus) = Corpus::open("boots_of_virtual_machines_are_judged_by_rules_captured_from_one") else {
        return;
    };
    let (rules, left_out) = Boot::read(&corpus, "golden").rules();
    assert_eq!(rules.check(), Ok(()));
    // Boot entries are each machine's own, and golden's Secure Boot is off.
    assert!(
        matches!(left_out[..], [LeftOut::MachineSpecific { .. }, LeftOut::SecureBoot { .. }]),
        "{left_out:?}"
    );
    for (name, expected) in BOOTS {
        let boot = Boot::read(&corpus, name);
        assert_eq!(boot.codes(&rules), expected.iter().copied().collect(), "{name}");
    }
}

#[test]
fn logs_of_virtual_machines_replay_to_their_quotes_in_each_quoted_bank() {
    let Some(corpus) = Corpus::open("logs_of_virtual_machines_replay_to_their_quotes_in_each_quoted_bank")
    else {
        return;
    };
    for (name, _) in BOOTS {
        let boot = Boot::read(&corpus, name);
        let meta: Value = serde_json::from_slice(&corpus.read(&format!("vm/{name}"), "meta.json")).unwrap();
        assert_eq!(meta["validated"]["pcr_mismatch"], Value::Array(vec![]), "{name}");
        let events = boot.parsed().events().len() - 1;
        assert_eq!(meta["validated"]["events"].as_u64(), u64::try_from(events).ok(), "{name}");
        let mut compared = 0;
        for bank in boot.parsed().banks() {
            for (pcr, replayed) in boot.parsed().replay(*bank) {
                let Some(quoted) = boot.observed.pcrs().get(*bank, pcr) else { continue };
                assert_eq!(replayed, Replayed::Value(*quoted), "{name}: {bank} PCR {pcr}");
                compared += 1;
            }
        }
        assert!(compared >= 9, "{name}: {compared}");
        assert!(boot.history().describe().all(|line| line.chars().count() < 400), "{name}");
    }
}

#[test]
fn each_boot_is_as_expected_by_the_rules_captured_from_it() {
    let Some(corpus) = Corpus::open("each_boot_is_as_expected_by_the_rules_captured_from_it") else { return };
    for (name, _) in BOOTS {
        let boot = Boot::read(&corpus, name);
        let (rules, left_out) = boot.rules();
        assert_eq!(judge(&boot.history(), &rules), [], "{name}");
        let irregular = left_out.iter().filter(|why| matches!(why, LeftOut::Irregular { .. }));
        // Firmware that falls back to its legacy loader starts something that it does not measure.
        let expected = usize::from(name == "sb-own-direct-unsigned");
        assert_eq!(irregular.count(), expected, "{name}: {left_out:?}");
        assert_eq!(rules.check(), Ok(()), "{name}");
    }
}

/// A bundle's quote, checked again under its AK.
fn quoted(corpus: &Corpus, folder: &str) -> Option<Observed> {
    let quote = corpus.read(folder, "quote.msg");
    // Of some the source has the signature only, from which a P-256 key was recovered.
    let area = if folder.starts_with("immune-gmbh") {
        ecdsa_area(&corpus.read(folder, "ak_recovered.pem"))
    } else {
        corpus.read(folder, "ak.pub")
    };
    let key = AttestationKey::parse(&area).ok()?;
    let Attested::Quote { selection, .. } = Attest::parse(&quote).unwrap().attested else {
        panic!("no quote")
    };
    let stated: Value = serde_json::from_slice(&corpus.read(folder, "pcrs.json")).unwrap();
    let mut pcrs = PcrValues::default();
    for (bank, selected) in selection.banks() {
        let stated = values(&stated, bank);
        selected.iter().for_each(|pcr| pcrs.insert(pcr, stated[&pcr]));
    }
    let signature = corpus.read(folder, "quote.sig");
    let stored = StoredQuote { quote, signature, pcrs, evidence_at: Timestamp::from_millis(0) };
    Some(
        restore(stored, NodeId::from_bytes([1; 32]), &key)
            .unwrap_or_else(|error| panic!("{folder}: {error}")),
    )
}

/// The TPMT_PUBLIC of a P-256 AK, from its SubjectPublicKeyInfo, which ends in the point.
fn ecdsa_area(pem: &[u8]) -> Vec<u8> {
    let text: String =
        std::str::from_utf8(pem).unwrap().lines().filter(|line| !line.starts_with('-')).collect();
    let der = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
    let (x, y) = der[der.len() - 64..].split_at(32);
    let head = b"\x00\x23\x00\x0b\x00\x05\x00\x72\x00\x00\x00\x10\x00\x18\x00\x0b\x00\x03\x00\x10";
    [head, &[0, 32][..], x, &[0, 32], y].concat()
}

#[test]
fn logs_of_real_machines_authenticate_against_their_quotes() {
    let Some(corpus) = Corpus::open("logs_of_real_machines_authenticate_against_their_quotes") else {
        return;
    };
    let mut authenticated = 0;
    for entry in corpus.entries("quote-evidence") {
        let Some(logs) = entry.expected["logs"].as_object() else { continue };
        // `eventlog.bin`, then `eventlog.1.bin` and so on: the order in which they were written.
        let mut names: Vec<_> = logs.keys().collect();
        names.sort_by_key(|name| name.split('.').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0));
        let files: Vec<_> = names.iter().map(|name| corpus.read(&entry.file, name)).collect();
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let Some(observed) = quoted(&corpus, &entry.file) else {
            // Signed over SHA-1, which no AK here may do.
            assert!(entry.file.ends_with("windows_gcp_shielded_vm"), "{}", entry.file);
            continue;
        };
        let (bank, _, _) = observed.pcrs().iter().next().unwrap();
        let needed: PcrSet =
            ParsedBootLog::parse(files.last().unwrap()).unwrap().replay(bank).into_keys().collect();
        let history = authenticate_last(&files, &observed, bank, needed);
        let history = history.unwrap_or_else(|error| panic!("{}: {error}", entry.file));
        let (rules, _) = capture(&history, needed);
        assert_eq!(judge(&history, &rules), [], "{}", entry.file);
        if let [first, .., _] = files[..] {
            let first = authenticate(ParsedBootLog::parse(first).unwrap(), &observed, bank, needed);
            assert!(matches!(first, Err(BootLogError::Replay { .. })), "{first:?}");
        }
        authenticated += 1;
    }
    assert_eq!(authenticated, 11);
}

#[test]
fn no_changed_bit_and_no_truncation_makes_a_deviating_boot_a_good_one() {
    let deviating = ["command-line", "initramfs", "kernel", "secure-boot", "secure-boot-fallback", "uki"];
    change_and_truncate(&Boot::recorded("golden"), &deviating.map(Boot::recorded));
}

#[test]
fn no_change_makes_a_deviating_boot_of_the_corpus_a_good_one() {
    let Some(corpus) = Corpus::open("no_change_makes_a_deviating_boot_of_the_corpus_a_good_one") else {
        return;
    };
    let deviating = ["cmdline", "kernel-old", "sb-own-direct-unsigned", "sdboot", "shimgrub-linuxefi"];
    change_and_truncate(&Boot::read(&corpus, "golden"), &deviating.map(|name| Boot::read(&corpus, name)));
}

/// One changed bit of a log that deviates never makes it one that does not; and no bit makes the code panic.
fn change_and_truncate(golden: &Boot, deviating: &[Boot]) {
    let (rules, _) = golden.rules();
    assert_eq!(judge(&golden.history(), &rules), []);
    for boot in deviating {
        assert_ne!(judge(&boot.history(), &rules), [], "{}", boot.name);
    }
    let boots: Vec<_> = std::iter::once(golden).chain(deviating).collect();
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let input = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8u32);
    let judged = runner.run(&input, |(boot, at, bit)| {
        let boot = *boot.get(&boots);
        let mut log = boot.log.clone();
        let at = at.index(log.len());
        log[at] ^= 1 << bit;
        if let Ok(history) = boot.authenticate(&log, rules.explained) {
            let found = judge(&history, &rules);
            // Of the good boot a changed type or word is either no matter, or costs the attester its good verdict.
            prop_assert!(boot.name == "golden" || !found.is_empty(), "{} byte {at} bit {bit}", boot.name);
            // What decides is the TPM's: each digest is as it was.
            let facts = |history: &BootHistory| -> Vec<_> {
                rules
                    .explained
                    .iter()
                    .flat_map(|pcr| history.of(pcr).map(|e| *e.digest()).collect::<Vec<_>>())
                    .collect()
            };
            prop_assert_eq!(facts(&history), facts(&boot.authenticate(&boot.log, rules.explained).unwrap()));
        }
        Ok(())
    });
    judged.unwrap();
    for boot in boots {
        let spoken_of = boot.spoken_of();
        for length in 0..boot.log.len() {
            let cut = boot.authenticate(&boot.log[..length], spoken_of);
            assert!(cut.is_err(), "{} cut to {length} bytes", boot.name);
        }
    }
}
