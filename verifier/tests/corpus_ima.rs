//! Measurement lists of real machines: each is parsed, replayed in both banks, and walked to the quoted value.
//!
//! What independent tools said is in the corpus's `INDEX.json` and in each boot's `meta.json`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

mod corpus;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use corpus::{Corpus, Entry as Artefact};
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};
use rootbound_verifier::appraisal::runtime::{
    CompiledRules, DigestSet, Judge, RuntimeAppraisal, RuntimeRules, SignatureCache,
};
use rootbound_verifier::evidence::ima::{
    AsciiList, BankMode, BootAggregate, Cover, Entry, Form, ImaError, ListParser, PCR, Progress, Replay,
    Template, Walk, Walked,
};
use serde_json::Value;

const SHA1: HashAlgorithm = HashAlgorithm::Sha1;
const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

/// Lists of the index that are refused, with the reason.
const REFUSED: [(&str, &str); 6] = [
    // Of the test data of a parser: the line begins with a space, and is no line of a kernel.
    ("cc-api+cc-trusted-api/common/golang/cctrusted_base/test_data/ima_log.bin", "ima_line_malformed"),
    // Says itself that its hash is unknown.
    ("keylime+keylime/test/data/create-runtime-policy/ima-log-unknown", "ima_unknown_hash"),
    // Its template hashes are SM3, of which there is no bank here: they cannot be computed again.
    ("keylime+keylime/test/data/create-runtime-policy/ima-log-sm3_256", "ima_template_hash_mismatch"),
    // Cut off within an entry, and that is for PCR 13, which is noticed first.
    ("tpm2-software+tpm2-tss/test/data/fapi/eventlog/sml-ima-ng-sha1-invalidated.b64", "ima_other_pcr"),
    // A line feed after the last entry, from the making of the file.
    ("tpm2-software+tpm2-tss/test/data/fapi/eventlog/sml-ima-ng-sha1.b64", "ima_truncated"),
    ("tpm2-software+tpm2-tss/test/data/fapi/eventlog/sml-ima-sha1.b64", "ima_truncated"),
];

/// What a list comes to.
#[derive(Debug, Default, PartialEq)]
struct Summary {
    entries: u64,
    templates: BTreeMap<String, u64>,
    violations: u64,
    misfits: Vec<u64>,
    values: BTreeMap<HashAlgorithm, Digest>,
}

impl Summary {
    fn new() -> Self {
        let values = HashAlgorithm::ALL.into_iter().map(|bank| (bank, Digest::zero(bank))).collect();
        Self { values, ..Self::default() }
    }

    fn add(&mut self, entry: &Entry<'_>) {
        assert_eq!(entry.number(), self.entries);
        self.entries += 1;
        *self.templates.entry(entry.template().name().to_owned()).or_default() += 1;
        self.violations += u64::from(entry.is_violation());
        if !entry.template_hash_fits() {
            self.misfits.push(entry.number());
        }
        for value in self.values.values_mut() {
            let mut replay = Replay::from(*value, BankMode::Native);
            replay.extend(entry);
            *value = *replay.value();
        }
    }
}

fn binary(bytes: &[u8], hash: HashAlgorithm) -> (Summary, Result<(), ImaError>) {
    let mut summary = Summary::new();
    let mut parser = ListParser::new(0, hash);
    let pushed = parser.push(bytes, |entry| {
        summary.add(&entry);
        Ok::<_, ImaError>(())
    });
    (summary, pushed.and_then(|()| parser.finish().map(|_| ())))
}

fn readable(bytes: &[u8]) -> (Summary, Result<(), ImaError>) {
    let mut summary = Summary::new();
    for entry in AsciiList::new(bytes).unwrap() {
        match entry {
            Ok(entry) => summary.add(&entry.as_entry().unwrap()),
            Err(error) => return (summary, Err(error)),
        }
    }
    (summary, Ok(()))
}

/// The list of an artefact, in the form that the index states.
fn summarise(corpus: &Corpus, artefact: &Artefact) -> (Summary, Result<(), ImaError>) {
    let bytes = corpus.read(&artefact.file, "ima.log");
    let bytes = if artefact.file.ends_with(".b64") {
        let text: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        data_encoding::BASE64.decode(&text).unwrap()
    } else {
        bytes
    };
    let format = artefact.expected["format"].as_str().unwrap();
    if format == "ascii" {
        return readable(&bytes);
    }
    // A list that does not parse was guessed at by the index: it is SHA-1 then.
    let parsed = artefact.expected["parse_error"].is_null();
    let size = format.trim_start_matches("binary(digest ").trim_end_matches(')').parse().unwrap_or(20);
    let hash = HashAlgorithm::ALL.into_iter().find(|hash| parsed && hash.size() == size).unwrap_or(SHA1);
    binary(&bytes, hash)
}

#[test]
fn every_list_of_the_index_comes_to_what_is_stated() {
    let Some(corpus) = Corpus::open("every_list_of_the_index_comes_to_what_is_stated") else { return };
    let artefacts = corpus.entries("ima-log");
    assert!(artefacts.len() >= 16, "lists were lost");
    for artefact in artefacts {
        let (file, expected) = (&artefact.file, &artefact.expected);
        let (summary, outcome) = summarise(&corpus, &artefact);
        let refused = REFUSED.iter().find(|(name, _)| name == file).map(|(_, code)| *code);
        assert_eq!(outcome.as_ref().err().map(ImaError::code), refused, "{file}: {outcome:?}");
        if refused.is_none() {
            assert_eq!(expected["outcome"], "accept", "{file}");
        }
        if matches!(outcome, Ok(())) || expected["format"] != "ascii" && summary.entries > 0 {
            assert_eq!(Value::from(summary.entries), expected["entries"], "{file}");
            let templates: BTreeMap<String, u64> =
                serde_json::from_value(expected["templates"].clone()).unwrap();
            assert_eq!(summary.templates, templates, "{file}");
            assert_eq!(Value::from(summary.violations), expected["violations"], "{file}");
            assert_eq!(Value::from(summary.misfits.clone()), expected["template_digest_mismatch"], "{file}");
        }
        for (bank, value) in &summary.values {
            let stated = [&expected["pcr10_replay"][bank.name()], &expected["given"][bank.name()]["10"]];
            for stated in stated.into_iter().filter_map(Value::as_str) {
                assert_eq!(value.to_string(), stated, "{file}: {bank}");
            }
        }
    }
}

/// A bundle or a boot, with its list.
struct Boot {
    name: String,
    list: Vec<u8>,
    ascii: Option<Vec<u8>>,
    pcrs: PcrValues,
    meta: Value,
}

fn pcr_values(bytes: &[u8]) -> PcrValues {
    let stated: BTreeMap<HashAlgorithm, BTreeMap<u8, String>> =
        serde_json::from_slice(bytes).expect("pcrs.json");
    let mut values = PcrValues::default();
    for (bank, stated) in stated {
        for (index, hex) in stated {
            let value = Digest::from_hex(bank, &hex.to_ascii_lowercase()).expect("a PCR value");
            values.insert(PcrIndex::new(index).expect("a PCR number"), value);
        }
    }
    values
}

fn boots(corpus: &Corpus) -> Vec<Boot> {
    let machines = std::fs::read_dir(corpus.root.join("vm")).into_iter().flatten().flatten();
    let mut folders: Vec<_> =
        machines.map(|machine| format!("vm/{}", machine.file_name().display())).collect();
    folders.sort();
    folders.extend(corpus.entries("quote-evidence").into_iter().map(|entry| entry.file));
    let find = |folder: &str, name: &str| std::fs::read(corpus.root.join(folder).join(name)).ok();
    let boot = |folder: String| {
        let list = find(&folder, "ima.bin").or_else(|| find(&folder, "ima.log"))?;
        let meta = find(&folder, "meta.json").map(|meta| serde_json::from_slice(&meta).unwrap());
        Some(Boot {
            list,
            ascii: find(&folder, "ima.ascii"),
            pcrs: pcr_values(&find(&folder, "pcrs.json")?),
            meta: meta.unwrap_or_default(),
            name: folder,
        })
    };
    folders.into_iter().filter_map(boot).collect()
}

impl Boot {
    fn quoted(&self, bank: HashAlgorithm) -> Option<Digest> {
        self.pcrs.get(bank, PcrIndex::new(PCR).unwrap()).copied()
    }

    /// The mode in which the bank was extended, as an independent replay found.
    fn mode(&self, bank: HashAlgorithm) -> BankMode {
        match self.meta["validated"]["ima_bank_mode"][bank.name()].as_str() {
            None | Some("native") => BankMode::Native,
            Some(_) => BankMode::PaddedSha1,
        }
    }

    fn reaches(&self, bank: HashAlgorithm) -> bool {
        let mismatch = &self.meta["validated"]["pcr_mismatch"];
        !mismatch.as_array().is_some_and(|all| all.contains(&Value::from(format!("{bank}:10"))))
    }

    fn walk(&self, bank: HashAlgorithm, chunk: usize) -> Result<Walked, ImaError> {
        walk(None, &self.list, self.quoted(bank).unwrap(), self.mode(bank), chunk)
    }

    fn appraise(&self, rules: &CompiledRules) -> RuntimeAppraisal {
        let cache = SignatureCache::with_capacity(16);
        let mut judge = Judge::new(rules, &cache, &self.pcrs, None);
        let mut walk = Walk::begin(None, self.quoted(SHA256).unwrap(), BankMode::Native).unwrap();
        walk.push(&self.list, &mut |entry, cover| judge.judge(entry, cover)).unwrap();
        judge.finish(&walk.finish().unwrap()).expect("an appraisal of this walk")
    }

    /// A digest set of the files that this boot measured.
    fn captured(&self) -> Arc<DigestSet> {
        let mut text = String::new();
        let mut parser = ListParser::new(0, SHA1);
        parser
            .push(&self.list, |entry| {
                if entry.name().starts_with(b"/") {
                    writeln!(text, "{}  {}", entry.digest(), std::str::from_utf8(entry.name()).unwrap())
                        .unwrap();
                }
                Ok::<_, ImaError>(())
            })
            .unwrap();
        Arc::new(DigestSet::parse(text.as_bytes()).unwrap())
    }
}

fn walk(
    progress: Option<Progress>,
    list: &[u8],
    quoted: Digest,
    mode: BankMode,
    chunk: usize,
) -> Result<Walked, ImaError> {
    let mut walk = Walk::begin(progress, quoted, mode)?;
    for chunk in list.chunks(chunk) {
        walk.push(chunk, &mut |_, _| {})?;
    }
    walk.finish()
}

fn boot(corpus: &Corpus, name: &str) -> Boot {
    boots(corpus).into_iter().find(|boot| boot.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn every_boot_comes_to_its_quoted_value_in_each_bank() {
    let Some(corpus) = Corpus::open("every_boot_comes_to_its_quoted_value_in_each_bank") else { return };
    let boots = boots(&corpus);
    assert!(boots.len() >= 19, "boots were lost");
    for boot in &boots {
        let mut walked = 0;
        for bank in HashAlgorithm::ALL.into_iter().filter(|bank| boot.quoted(*bank).is_some()) {
            let found = boot.walk(bank, usize::MAX);
            if !boot.reaches(bank) {
                assert_eq!(found.unwrap_err().code(), "ima_quoted_value_not_reached", "{} {bank}", boot.name);
                continue;
            }
            walked += 1;
            let found = found.unwrap_or_else(|error| panic!("{} {bank}: {error}", boot.name));
            let stated = &boot.meta["validated"]["ima_entries"];
            assert!(stated.is_null() || *stated == found.covered() + found.lag(), "{}: {found:?}", boot.name);
            for chunk in [1, 61, 4096] {
                assert_eq!(boot.walk(bank, chunk).as_ref(), Ok(&found), "{} in chunks of {chunk}", boot.name);
            }
        }
        assert!(walked > 0, "{}: no bank", boot.name);
        let (summary, outcome) = binary(&boot.list, SHA1);
        assert_eq!((outcome, summary.misfits.len()), (Ok(()), 0), "{}", boot.name);
        if let Some(ascii) = &boot.ascii {
            let (same, outcome) = readable(ascii);
            assert_eq!((outcome, same), (Ok(()), summary), "{}: the readable form", boot.name);
        }
    }
}

#[test]
fn boot_aggregate_of_every_boot_is_over_its_quoted_boot_pcrs() {
    let Some(corpus) = Corpus::open("boot_aggregate_of_every_boot_is_over_its_quoted_boot_pcrs") else {
        return;
    };
    for boot in boots(&corpus) {
        let mut form = None;
        let mut parser = ListParser::new(0, SHA1);
        parser
            .push(&boot.list, |entry| {
                form.get_or_insert_with(|| BootAggregate::check(&entry, &boot.pcrs));
                Ok::<_, ImaError>(())
            })
            .unwrap();
        if boot.meta["validated"]["boot_aggregate"] == "PCR0-9 ok" {
            assert_eq!(form, Some(Ok(Form::FirmwareAndLoader(SHA256))), "{}", boot.name);
        }
    }
}

fn rules_of(set: Arc<DigestSet>, more: RuntimeRules) -> CompiledRules {
    let rules = RuntimeRules { digest_sets: vec!["golden".parse().unwrap()], ..more };
    CompiledRules::new(rules, |_| Some(set.clone())).unwrap()
}

#[test]
fn what_the_golden_boot_did_not_run_is_named() {
    let Some(corpus) = Corpus::open("what_the_golden_boot_did_not_run_is_named") else { return };
    let golden = boot(&corpus, "vm/golden");
    let rules = rules_of(golden.captured(), RuntimeRules::default());
    for name in ["vm/golden", "vm/golden2", "vm/cmdline", "vm/s3", "vm/ima-ng"] {
        let appraisal = boot(&corpus, name).appraise(&rules);
        let deviations: Vec<_> = appraisal.deviations().map(ToString::to_string).collect();
        assert_eq!(deviations, [""; 0], "{name}");
    }
    let rogue = boot(&corpus, "vm/ima-rogue").appraise(&rules);
    let deviations: Vec<_> =
        rogue.deviations().map(|deviation| (deviation.code(), deviation.to_string())).collect();
    assert_eq!(deviations.len(), 2, "{deviations:?}");
    for ((code, words), path) in deviations.iter().zip(["`/opt/busybox-rogue`", "`/opt/rogue.sh`"]) {
        assert_eq!(*code, "runtime_unknown_file");
        assert!(words.contains(path), "{words}");
    }
    let none = boot(&corpus, "vm/ima-none").appraise(&rules);
    let codes: Vec<_> = none.deviations().map(|deviation| deviation.code()).collect();
    assert_eq!(codes, ["runtime_too_few_entries"], "a list of boot_aggregate alone");
}

#[test]
fn an_event_among_files_is_judged_as_an_event() {
    let Some(corpus) = Corpus::open("an_event_among_files_is_judged_as_an_event") else { return };
    let critical = boot(&corpus, "vm/ima-critical");
    let (summary, _) = binary(&critical.list, SHA1);
    assert_eq!(summary.templates[Template::ImaBuf.name()], 1);
    let golden = boot(&corpus, "vm/golden").captured();
    let appraisal = critical.appraise(&rules_of(golden.clone(), RuntimeRules::default()));
    let codes: Vec<_> = appraisal.deviations().map(|deviation| deviation.code()).collect();
    assert_eq!(codes, ["runtime_kernel_version"]);
    let kernel_versions = vec!["6.1.0-56-cloud-amd64".to_owned()];
    let knowing = rules_of(golden, RuntimeRules { kernel_versions, ..RuntimeRules::default() });
    assert!(critical.appraise(&knowing).is_affirming());
}

/// Each bit of a real list: the walk is refused, or what the sink saw is what it saw before, but for parts that are
/// known to be covered by nothing.
#[test]
fn a_flipped_bit_is_refused_or_without_effect() {
    type Seen = Vec<(String, Vec<u8>, Vec<u8>, bool, Cover)>;
    let Some(corpus) = Corpus::open("a_flipped_bit_is_refused_or_without_effect") else { return };
    let golden = boot(&corpus, "vm/golden");
    let look = |bytes: &[u8]| -> Result<Seen, ImaError> {
        let mut seen = Vec::new();
        let mut walk = Walk::begin(None, golden.quoted(SHA256).unwrap(), BankMode::Native)?;
        walk.push(bytes, &mut |entry, cover| {
            let (digest, name) = (entry.digest().to_string(), entry.name().to_vec());
            seen.push((digest, name, entry.data().to_vec(), entry.is_violation(), cover));
        })?;
        walk.finish()?;
        Ok(seen)
    };
    let whole = look(&golden.list).unwrap();
    let mut without_effect = 0;
    let mut bytes = golden.list.clone();
    for at in 0..bytes.len() {
        // Every bit of the first entries, one bit of each byte of the others: a walk takes a while without optimisation.
        let bits = if at < 400 { 0..8 } else { at % 8..at % 8 + 1 };
        for bit in bits {
            bytes[at] ^= 1 << bit;
            if let Ok(seen) = look(&bytes) {
                assert_eq!(seen, whole, "bit {bit} of byte {at}");
                without_effect += 1;
            }
            bytes[at] ^= 1 << bit;
        }
    }
    // The stated template hashes, which a walk replaces by its own.
    assert!(without_effect <= 20 * 8 * whole.len(), "{without_effect} bits without effect");
}

#[test]
fn a_truncated_list_is_refused() {
    let Some(corpus) = Corpus::open("a_truncated_list_is_refused") else { return };
    let golden = boot(&corpus, "vm/golden");
    let quoted = golden.quoted(SHA256).unwrap();
    for cut in 0..golden.list.len() {
        let found = walk(None, &golden.list[..cut], quoted, BankMode::Native, usize::MAX);
        let code = found.map(|_| ()).unwrap_err().code();
        assert!(matches!(code, "ima_truncated" | "ima_quoted_value_not_reached"), "cut at {cut}: {code}");
    }
}

/// The list of one boot in two parts, as two attestations bring it.
#[test]
fn a_boot_is_walked_in_steps_as_in_one() {
    let Some(corpus) = Corpus::open("a_boot_is_walked_in_steps_as_in_one") else { return };
    let golden = boot(&corpus, "vm/golden");
    let whole = golden.walk(SHA256, usize::MAX).unwrap();
    let mut ends = Vec::new();
    let mut replay = Replay::from(Digest::zero(SHA256), BankMode::Native);
    let mut parser = ListParser::new(0, SHA1);
    let mut at = 0;
    parser
        .push(&golden.list, |entry| {
            replay.extend(&entry);
            // PCR, hash, both lengths, name and data.
            at += 4 + 20 + 4 + entry.template().name().len() + 4 + entry.data().len();
            ends.push((at, *replay.value()));
            Ok::<_, ImaError>(())
        })
        .unwrap();
    for (end, value) in ends {
        let first = walk(None, &golden.list[..end], value, BankMode::Native, usize::MAX).unwrap();
        let rest = &golden.list[end..];
        let second =
            walk(Some(*first.progress()), rest, golden.quoted(SHA256).unwrap(), BankMode::Native, 100);
        assert_eq!(second.unwrap().progress(), whole.progress());
    }
}
