//! `appraise`, the program itself, over evidence of real machines and boots, and over what is made of it.
#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rootbound_common::crypto::{Digest, VerifyingKey};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrSet, PcrValues, Public};
use rootbound_verifier::appraisal::boot::{BootRules, capture};
use rootbound_verifier::appraisal::runtime::RuntimeRules;
use rootbound_verifier::evidence::boot_log::{ParsedBootLog, authenticate};
use rootbound_verifier::evidence::ima::{BootAggregate, ImaError, ListParser};
use rootbound_verifier::evidence::offline::OfflineQuote;
use rootbound_verifier::node::Name;
use rootbound_verifier::reference::{AcceptedPcrs, ProfileBody};
use serde_json::Value;
use tempfile::TempDir;

const AFFIRMING: i32 = 0;
const USAGE: i32 = 2;
const VIOLATES: i32 = 6;
const BAD: i32 = 7;
const CANNOT_JUDGE: i32 = 8;

const BANK: HashAlgorithm = HashAlgorithm::Sha256;

fn corpus(test: &str) -> Option<PathBuf> {
    let root = std::env::var_os("EVIDENCE_CORPUS").map(PathBuf::from);
    if root.is_none() {
        // Not `eprintln!`, which the test runner captures.
        let _ = writeln!(std::io::stderr(), "skipped: {test}: EVIDENCE_CORPUS is not set");
    }
    root
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rootbound-verifier")).args(arguments).output().expect("the program runs")
}

/// The exit code and the report.
fn appraise(arguments: &[&str]) -> (i32, Value) {
    let output = run(&[&["--output", "json", "appraise"], arguments].concat());
    let code = output.status.code().expect("an exit code");
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (code, report)
}

fn codes(report: &Value) -> Vec<&str> {
    let reasons = report["reasons"].as_array().expect("reasons");
    reasons.iter().map(|reason| reason["code"].as_str().expect("a code")).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn pcr(index: u8) -> PcrIndex {
    PcrIndex::new(index).expect("a PCR")
}

/// PCRs of the log by how they fit.
fn pcrs_that_are(report: &Value, fit: &str) -> Vec<u64> {
    let pcrs = report["boot"]["pcrs"].as_array().expect("a boot log");
    pcrs.iter().filter(|pcr| pcr["fit"] == fit).map(|pcr| pcr["pcr"].as_u64().expect("a PCR")).collect()
}

fn pcr_values(folder: &Path) -> PcrValues {
    let stated: BTreeMap<HashAlgorithm, BTreeMap<String, String>> =
        serde_json::from_slice(&fs::read(folder.join("pcrs.json")).expect("pcrs.json")).expect("PCR values");
    let mut values = PcrValues::default();
    for (index, hex) in &stated[&BANK] {
        let index = index.parse().ok().and_then(PcrIndex::new).expect("a PCR");
        values.insert(index, Digest::from_hex(BANK, hex).expect("a value"));
    }
    values
}

/// What a boot measured, as a profile and its sets, in files.
struct Expected {
    files: TempDir,
}

impl Expected {
    /// By the boot that is good.
    fn golden(root: &Path) -> Self {
        Self::capture(root, "golden")
    }

    fn capture(root: &Path, name: &str) -> Self {
        let folder = root.join("vm").join(name);
        let read = |name: &str| fs::read(folder.join(name)).expect("a file of the bundle");
        let public = Public::parse_sized(&read("ak.pub")).expect("an AK");
        let key = VerifyingKey::of_public_area(&public).expect("a key");
        let (quote, signature, log) = (read("quote.msg"), read("quote.sig"), read("eventlog.bin"));
        let quote = OfflineQuote::authenticate(&quote, &signature, &key).expect("a quote");
        let observed = quote.observed(pcr_values(&folder)).expect("values");

        let log = ParsedBootLog::parse(&log).expect("a boot log");
        let in_log: PcrSet = log.replay(BANK).into_keys().collect();
        let history = authenticate(log, &observed, BANK, in_log).expect("a history");
        let (rules, _) = capture(&history, in_log);

        let mut body = ProfileBody::initial("golden".parse().expect("a name"));
        let pcrs: PcrSet = (0..=10).chain([14]).map(pcr).chain(rules.explained.iter()).collect();
        body.pcrs = PcrSelection::of_bank(BANK, pcrs);
        let pinned = pcrs.iter().filter(|pcr| pcr.get() != 10 && !rules.explained.contains(*pcr));
        let pinned: Vec<_> =
            pinned.map(|pcr| (pcr, *observed.pcrs().get(BANK, pcr).expect("quoted"))).collect();
        body.boot = Some(rules);
        let digest_sets = vec!["files".parse::<Name>().expect("a name")];
        body.runtime = Some(RuntimeRules { digest_sets, ..RuntimeRules::default() });

        let files = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| fs::write(files.path().join(name), text).expect("written");
        write("profile.toml", toml::to_string(&body).expect("TOML"));
        let accepted = AcceptedPcrs::new(pinned).expect("reference values");
        write("reference.json", serde_json::to_string(&accepted).expect("JSON"));
        write("files.txt", digest_set(&read("ima.bin")));
        Self { files }
    }

    /// The same, with a PCR left to nobody.
    fn without(&self, pcr: Option<PcrIndex>) -> Self {
        let files = tempfile::tempdir().expect("a folder");
        for name in ["profile.toml", "reference.json", "files.txt"] {
            fs::copy(self.file(name), files.path().join(name)).expect("copied");
        }
        let path = files.path().join("profile.toml");
        let mut body: ProfileBody =
            toml::from_str(&fs::read_to_string(&path).expect("a profile")).expect("TOML");
        let rules = body.boot.as_mut().expect("rules");
        if let Some(pcr) = pcr {
            rules.explained = rules.explained.iter().filter(|other| *other != pcr).collect();
            rules.events.retain(|event| event.pcr != pcr);
            body.ignored = body.ignored.with(pcr);
        }
        fs::write(&path, toml::to_string(&body).expect("TOML")).expect("written");
        Self { files }
    }

    fn file(&self, name: &str) -> String {
        text(&self.files.path().join(name)).to_owned()
    }

    /// Judges by all of it.
    fn judge(&self, evidence: &[&str]) -> (i32, Value) {
        let [profile, reference] = ["profile.toml", "reference.json"].map(|name| self.file(name));
        let digests = format!("files={}", self.file("files.txt"));
        let expected = ["--profile", &profile, "--reference", &reference, "--digests", &digests];
        appraise(&[evidence, &expected].concat())
    }

    fn judge_boot(&self, root: &Path, name: &str) -> (i32, Value) {
        self.judge(&["--bundle", text(&root.join("vm").join(name))])
    }
}

/// Each file in a list, with its digest.
fn digest_set(list: &[u8]) -> String {
    let mut set = String::new();
    let mut parser = ListParser::new(0, HashAlgorithm::Sha1);
    let take = |entry: rootbound_verifier::evidence::ima::Entry<'_>| {
        if !BootAggregate::is(&entry) {
            set += &format!("{}  {}\n", entry.digest(), String::from_utf8_lossy(entry.name()));
        }
        Ok::<_, ImaError>(())
    };
    parser.push(list, take).expect("a list");
    parser.finish().expect("a whole list");
    set
}

/// A bundle of a boot, to be changed.
fn copy(root: &Path, name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in fs::read_dir(root.join("vm").join(name)).expect("a boot") {
        let file = file.expect("a file").path();
        fs::copy(&file, folder.path().join(file.file_name().expect("a name"))).expect("copied");
    }
    folder
}

/// What becomes of golden's bundle by the golden profile, when one file is changed.
fn changed(root: &Path, golden: &Expected, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> (i32, Value) {
    let bundle = copy(root, "golden");
    let path = bundle.path().join(file);
    let mut bytes = fs::read(&path).expect("a file of the bundle");
    change(&mut bytes);
    fs::write(&path, bytes).expect("written");
    golden.judge(&["--bundle", text(bundle.path())])
}

#[test]
fn nothing_to_look_at_is_a_mistake_on_the_command_line() {
    for arguments in
        [&["appraise"][..], &["appraise", "--nonce", "/dev/null"], &["appraise", "--bundle", "/"]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(USAGE), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let output = run(&["appraise", "--quote", "/nowhere/quote.msg"]);
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/quote.msg"));
}

#[test]
fn boot_sets_of_a_profile_come_from_files_and_have_to_fit_it() {
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, content: String| {
        fs::write(folder.path().join(name), content).expect("a file");
        text(&folder.path().join(name)).to_owned()
    };
    let pcrs = file("pcrs.json", format!(r#"{{"sha256": {{"4": "{}"}}}}"#, "ab".repeat(32)));
    let explained: PcrSet = [pcr(4)].into_iter().collect();
    let mut rules = BootRules::of(BANK, explained);
    rules.sets = vec!["kernel".parse().expect("a name")];
    let profile = ProfileBody { boot: Some(rules), ..ProfileBody::initial(Name::default_set()) };
    let profile = file("profile.json", serde_json::to_string(&profile).expect("JSON"));
    let value = |kind: &str| {
        let digest = "cd".repeat(32);
        let values = format!(r#"[{{"measured": {{{kind}, "digest": "sha256:{digest}"}}}}]"#);
        format!(r#"{{"bank": "sha256", "values": {values}}}"#)
    };
    let judge = |set: &str| run(&["appraise", "--pcrs", &pcrs, "--profile", &profile, "--boot-set", set]);
    let good = file("good.json", value(r#""kind": "boot_application""#));
    let judged = judge(&format!("kernel={good}"));
    assert_eq!(judged.status.code(), Some(CANNOT_JUDGE), "{}", String::from_utf8_lossy(&judged.stderr));
    let odd = file("odd.json", value(r#""kind": "event", "pcr": 11"#));
    let empty = file("empty.json", r#"{"bank": "sha256", "values": []}"#.to_owned());
    for (set, words) in [
        (format!("kernel={odd}"), "PCR 4 needs `boot_applications`"),
        (format!("kernel={empty}"), "needs at least one value"),
        (good, "write NAME=FILE"),
    ] {
        let refused = judge(&set);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(USAGE) && said.contains(words), "{words}: {said}");
    }
}

#[test]
fn exit_codes_are_in_the_help() {
    let help = run(&["appraise", "--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    for line in
        ["6  appraise: the evidence violates", "7  appraise: bad evidence", "8  appraise: cannot judge"]
    {
        assert!(help.contains(line), "{help}");
    }
}

/// A log of one event, in the SHA-1 form; its text moves the cursor and reverses what follows.
#[test]
fn a_log_without_a_quote_is_shown_as_claims_and_cannot_do_more_than_show() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let said = "kernel_cmdline: /vmlinuz \u{1b}[2J\u{202e}quiet\0".as_bytes();
    let mut log = Vec::new();
    for word in [8, 13] {
        log.extend(u32::to_le_bytes(word));
    }
    log.extend([7; 20]);
    log.extend(u32::try_from(said.len()).expect("short").to_le_bytes());
    log.extend(said);
    fs::write(&path, log).expect("written");
    let output = run(&["appraise", "--boot-log", text(&path)]);
    assert_eq!(output.status.code(), Some(CANNOT_JUDGE));
    let shown = String::from_utf8(output.stdout).expect("text");
    assert!(shown.contains("BOOT (CLAIMED: no quote covers the boot log)"), "{shown}");
    assert!(shown.contains("kernel        /vmlinuz [claimed]"), "{shown}");
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
    assert!(shown.contains("VERDICT  cannot judge (exit code 8)"), "{shown}");
}

/// Bundles whose quote our road refuses, or whose values it cannot read, though others accept them.
const EXCEPTIONS: [(&str, i32, &str, &str); 3] = [
    (
        "windows_gcp_shielded_vm",
        BAD,
        "ak_sha1_scheme",
        "its AK signs over SHA-1, which is refused throughout",
    ),
    ("enacttrust_basic", BAD, "quote_malformed", "no TPM made it: its qualified signer is empty"),
    ("files_quote", CANNOT_JUDGE, "pcr_values_missing", "its values are in the form of tpm2_quote only"),
];

#[test]
fn bundles_of_real_machines_come_to_what_the_index_says() {
    let Some(root) = corpus("bundles_of_real_machines_come_to_what_the_index_says") else { return };
    let index: Value =
        serde_json::from_slice(&fs::read(root.join("INDEX.json")).expect("INDEX.json")).expect("JSON");
    let (mut bundles, mut logs, mut exceptions) = (0, 0, 0);
    for artefact in index.as_array().expect("a list").iter().filter(|it| it["kind"] == "quote-evidence") {
        let file = artefact["file"].as_str().expect("a file");
        let (folder, expected) = (root.join(file), &artefact["expected"]);
        let recovered = folder.join("ak_recovered.pem");
        let mut arguments = vec!["--bundle", text(&folder)];
        if recovered.is_file() {
            arguments.extend(["--ak", text(&recovered)]);
        }
        let (code, report) = appraise(&arguments);
        bundles += 1;
        if let Some((_, exit, reason, _)) = EXCEPTIONS.iter().find(|(name, ..)| file.ends_with(name)) {
            assert_eq!(code, *exit, "{file}");
            assert!(codes(&report).contains(reason), "{file}: {report}");
            exceptions += 1;
            continue;
        }
        assert_eq!(code, CANNOT_JUDGE, "{file}: nobody says what is expected: {report}");
        assert_eq!(
            (&expected["signature"], &report["quote"]["state"]),
            (&"valid".into(), &"signed".into()),
            "{file}"
        );
        let values = if expected["pcr_digest"] == "match" { "signed" } else { "missing" };
        assert_eq!(report["pcr_values"]["state"], values, "{file}");
        let nonce = if folder.join("nonce.bin").is_file() { "same" } else { "not_given" };
        assert_eq!(report["nonce"]["state"], nonce, "{file}");
        assert_eq!(report["quote"]["facts"]["extra_data"], expected["extraData"], "{file}");
        // Of several logs the last counts: `eventlog.bin` is the first, then come those with numbers.
        let Some(logs_of_it) = expected["logs"].as_object() else { continue };
        let last =
            logs_of_it.keys().rfind(|name| *name != "eventlog.bin").map_or("eventlog.bin", String::as_str);
        let last = &logs_of_it[last];
        let bank = report["boot"]["bank"].as_str().expect("a bank");
        let against = &last["vs_pcrs_json"][bank];
        for (fit, word) in [("quoted", "match"), ("not_quoted", "mismatch")] {
            let stated: Vec<u64> = serde_json::from_value(against[word].clone()).expect("PCR numbers");
            assert_eq!(pcrs_that_are(&report, fit), stated, "{file}: {bank} {word}");
        }
        logs += 1;
    }
    assert_eq!((bundles, logs, exceptions), (25, 11, 3));
}

#[test]
fn boots_of_virtual_machines_come_to_what_their_notes_say() {
    let Some(root) = corpus("boots_of_virtual_machines_come_to_what_their_notes_say") else { return };
    let mut boots = 0;
    for folder in fs::read_dir(root.join("vm")).expect("boots") {
        let folder = folder.expect("a boot").path();
        let notes: Value =
            serde_json::from_slice(&fs::read(folder.join("meta.json")).expect("notes")).expect("JSON");
        let (code, report) = appraise(&["--bundle", text(&folder)]);
        let name = folder.display();
        assert_eq!(code, CANNOT_JUDGE, "{name}");
        assert_eq!(codes(&report), ["no_profile"], "{name}");
        let states = ["quote", "ak", "nonce", "pcr_values"].map(|part| &report[part]["state"]);
        assert_eq!(states, ["signed", "acceptable", "same", "signed"], "{name}");
        let notes = &notes["validated"];
        assert_eq!(notes["pcr_mismatch"], Value::Array(Vec::new()), "{name}");
        assert_eq!(pcrs_that_are(&report, "not_quoted"), [0; 0], "{name}");
        for field in ["resetCount", "restartCount"] {
            let ours = if field == "resetCount" { "reset_count" } else { "restart_count" };
            assert_eq!(report["quote"]["facts"][ours], notes["quote"][field], "{name}");
        }
        let events = report["boot"]["events"].as_array().expect("events").len();
        // The notes do not count the Spec ID event.
        assert_eq!(u64::try_from(events).ok(), notes["events"].as_u64().map(|events| events + 1), "{name}");
        let ima = &report["ima"];
        assert_eq!(
            (&ima["covered"], &ima["violations"]),
            (&notes["ima_entries"], &notes["violations"]),
            "{name}"
        );
        boots += 1;
    }
    assert!(boots >= 18, "{boots}");
}

#[test]
fn a_good_boot_and_its_like_affirm() {
    let Some(root) = corpus("a_good_boot_and_its_like_affirm") else { return };
    let golden = Expected::golden(&root);
    for name in ["golden", "golden2", "golden-reboot-cold"] {
        let (code, report) = golden.judge_boot(&root, name);
        assert_eq!((code, codes(&report)), (AFFIRMING, vec![]), "{name}");
        assert_eq!(report["verdict"], "affirming");
    }
    let folder = root.join("vm/golden");
    let readable = folder.join("ima.ascii");
    let (code, report) = golden.judge(&["--bundle", text(&folder), "--ima", text(&readable)]);
    assert_eq!((code, codes(&report)), (AFFIRMING, vec![]), "the readable form of the list");
}

#[test]
fn a_boot_of_something_else_violates_the_profile_by_the_part_that_differs() {
    let Some(root) = corpus("a_boot_of_something_else_violates_the_profile_by_the_part_that_differs") else {
        return;
    };
    let golden = Expected::golden(&root);
    for (name, expected) in [
        ("cmdline", &["boot_command_line"][..]),
        ("kernel-old", &["boot_application", "boot_initrd"]),
        ("ima-rogue", &["runtime_unknown_file"]),
        ("sb-own-direct-unsigned", &["secure_boot_variable"]),
    ] {
        let (code, report) = golden.judge_boot(&root, name);
        assert_eq!((code, &report["verdict"]), (VIOLATES, &"violates_policy".into()), "{name}: {report}");
        for expected in expected {
            assert!(codes(&report).contains(expected), "{name}: {:?}", codes(&report));
        }
    }
}

/// The deny list as `--output json reference deny list` prints it.
#[test]
fn a_boot_of_what_is_denied_violates_the_profile_that_accepts_it() {
    let Some(root) = corpus("a_boot_of_what_is_denied_violates_the_profile_that_accepts_it") else { return };
    let golden = Expected::golden(&root);
    let folder = root.join("vm/golden");
    let value = pcr_values(&folder).get(BANK, pcr(0)).expect("a value").to_string();
    let deny = golden.file("deny.json");
    let judge = |digest: &str| {
        let entry = serde_json::json!({
            "what": "digest", "digest": digest, "label": "CVE-2023-40547", "reason": "", "author": "a", "at": 0,
        });
        fs::write(&deny, serde_json::json!({ "version": 3, "entries": [entry] }).to_string())
            .expect("written");
        golden.judge(&["--bundle", text(&folder), "--deny", &deny])
    };
    let (code, report) = judge(&format!("sha256:{value}"));
    assert_eq!((code, codes(&report)), (VIOLATES, vec!["pcr_denied"]));
    let (code, report) = judge(&format!("sha256:{}", "77".repeat(32)));
    assert_eq!((code, codes(&report)), (AFFIRMING, vec![]));

    fs::write(&deny, r#"{ "version": 3, "entries": [{ "what": "digest", "digest": "sha256:zz" }] }"#)
        .expect("written");
    let refused = run(&[
        "appraise",
        "--bundle",
        text(&folder),
        "--profile",
        &golden.file("profile.toml"),
        "--deny",
        &deny,
    ]);
    assert_eq!(refused.status.code(), Some(USAGE));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("deny.json"), "{refused:?}");
}

/// With the variable SecureBoot at 1, and a kernel that nothing checked (`-kernel` in QEMU).
#[test]
fn secure_boot_that_checked_nothing_is_not_taken_for_secure_boot() {
    let Some(root) = corpus("secure_boot_that_checked_nothing_is_not_taken_for_secure_boot") else { return };
    let strict = Expected::capture(&root, "sb-snakeoil-uki");
    let (code, report) = strict.judge_boot(&root, "sb-snakeoil-uki");
    assert_eq!((code, codes(&report)), (AFFIRMING, vec![]));
    for (name, expected) in
        [("sb-off-uki-own", "secure_boot_not_on"), ("sb-own-direct-unsigned", "secure_boot_no_authority")]
    {
        // That boot has no UKI, and so no PCR 11.
        let strict = strict.without(if name == "sb-own-direct-unsigned" { Some(pcr(11)) } else { None });
        let (code, report) = strict.judge_boot(&root, name);
        assert_eq!(code, VIOLATES, "{name}: {:?}", codes(&report));
        assert!(codes(&report).contains(&expected), "{name}: {:?}", codes(&report));
    }
    let folder = root.join("vm/sb-own-direct-unsigned");
    let shown = run(&["appraise", "--bundle", text(&folder)]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let state = shown.lines().find_map(|line| line.trim().strip_prefix("Secure Boot"));
    assert_eq!(state.map(str::trim), Some("on [proved]"), "{shown}");
    assert!(shown.contains("nothing: no image was checked, although Secure Boot is on"), "{shown}");
}

#[test]
fn what_was_tampered_with_is_bad_evidence() {
    let Some(root) = corpus("what_was_tampered_with_is_bad_evidence") else { return };
    let golden = Expected::golden(&root);
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, &str, Change); 9] = [
        ("quote.msg", "signature_invalid", |bytes| bytes[40] ^= 1),
        ("quote.msg", "signature_invalid", |bytes| bytes.truncate(60)),
        ("quote.sig", "signature_invalid", |bytes| bytes[100] ^= 1),
        ("quote.sig", "signature_malformed", |bytes| bytes.truncate(3)),
        ("nonce.bin", "extra_data_mismatch", |bytes| bytes[0] ^= 1),
        // TPM2B_PUBLIC: size, type, nameAlg, then the attributes, of which this is `restricted`.
        ("ak.pub", "ak_not_restricted", |bytes| bytes[7] ^= 1),
        ("eventlog.bin", "boot_log_event_malformed", |bytes| bytes.truncate(bytes.len() - 1)),
        ("ima.bin", "ima_quoted_value_not_reached", |bytes| bytes.truncate(0)),
        ("pcrs.json", "pcr_digest_mismatch", |bytes| {
            let value = bytes.windows(8).rposition(|window| window == b"\"sha256\"").expect("a bank");
            let digit = bytes[value..].iter().position(|byte| *byte == b'3').expect("a digit");
            bytes[value + digit] = b'4';
        }),
    ];
    for (file, expected, change) in changes {
        let (code, report) = changed(&root, &golden, file, change);
        assert_eq!(
            (code, &report["verdict"]),
            (BAD, &"bad_evidence".into()),
            "{file} {expected}: {:?}",
            codes(&report)
        );
        assert_eq!(codes(&report)[0], expected, "{file}: {:?}", codes(&report));
    }
    // Of another boot.
    let folder = root.join("vm/golden");
    let other = root.join("vm/cmdline/eventlog.bin");
    let (code, report) = golden.judge(&["--bundle", text(&folder), "--boot-log", text(&other)]);
    assert_eq!((code, codes(&report)[0]), (BAD, "boot_log_replay_mismatch"));
    let other = root.join("vm/kernel-old/eventlog.bin");
    let (code, report) = appraise(&["--bundle", text(&folder), "--boot-log", text(&other)]);
    assert_eq!((code, codes(&report)[0]), (BAD, "boot_log_replay_mismatch"), "without a profile, too");
}

#[test]
fn what_the_profile_needs_and_is_not_there_cannot_be_judged() {
    let Some(root) = corpus("what_the_profile_needs_and_is_not_there_cannot_be_judged") else { return };
    let golden = Expected::golden(&root);
    for (files, expected) in [
        (&["eventlog.bin"][..], "boot_log_missing"),
        (&["ima.bin", "ima.ascii"], "ima_list_missing"),
        (&["quote.msg"], "quote_missing"),
        (&["quote.sig"], "signature_unchecked"),
        (&["ak.pub"], "ak_missing"),
        (&["pcrs.json"], "pcr_values_missing"),
    ] {
        let bundle = copy(&root, "golden");
        for file in files {
            fs::remove_file(bundle.path().join(file)).expect("removed");
        }
        let (code, report) = golden.judge(&["--bundle", text(bundle.path())]);
        assert_eq!((code, &report["verdict"]), (CANNOT_JUDGE, &"cannot_judge".into()), "{files:?}: {report}");
        assert!(codes(&report).contains(&expected), "{files:?}: {:?}", codes(&report));
    }
    let folder = root.join("vm/golden");
    let (profile, digests) = (golden.file("profile.toml"), format!("files={}", golden.file("files.txt")));
    let (code, report) = appraise(&["--bundle", text(&folder), "--profile", &profile, "--digests", &digests]);
    assert_eq!((code, codes(&report)[0]), (CANNOT_JUDGE, "no_reference_value"));
    // A PEM file has the numbers of an AK, and nothing that says what the key may sign.
    let (code, report) = golden.judge(&["--bundle", text(&folder), "--ak", text(&folder.join("ak.pub.pem"))]);
    assert_eq!((code, codes(&report)), (CANNOT_JUDGE, vec!["ak_attributes_unknown"]));
}

/// Attack 1 on files: nobody asked for this quote, and the tool says so.
#[test]
fn a_quote_without_its_nonce_is_not_called_fresh() {
    let Some(root) = corpus("a_quote_without_its_nonce_is_not_called_fresh") else { return };
    let bundle = copy(&root, "golden");
    fs::remove_file(bundle.path().join("nonce.bin")).expect("removed");
    let output = run(&["appraise", "--bundle", text(bundle.path())]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("nonce       not given: whether the quote is fresh is not known"), "{shown}");
}
