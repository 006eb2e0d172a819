//! IMA's list, in both of its forms, from the parser to the judge.

use std::sync::Arc;

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::{HashAlgorithm, PcrValues};
use rootbound_swtpm_tests::corpus::Corpus;
use rootbound_swtpm_tests::ima::{FileSigner, ImaList, boot_pcrs};
use rootbound_verifier::appraisal::runtime::{
    CompiledRules, DigestSet, Judge, RuntimeFindings, RuntimeRules, SignatureCache,
};
use rootbound_verifier::evidence::ima::{
    AsciiList, BankMode, Entry, ImaError, ListParser, MAX_ENTRY, Position, Progress, Template, Walk, Walked,
};

use super::{Outcome, Target};
use crate::mutate::mutate;
use crate::pool::Pool;
use rootbound_swtpm_tests::random::Random;

const BANK: HashAlgorithm = HashAlgorithm::Sha256;
/// Some dozens of entries.
const LONGEST: usize = 8192;

/// Each input is read as a list, as its readable form, and as a digest set.
pub(super) struct ImaTarget {
    pcrs: PcrValues,
    rules: CompiledRules,
    cache: SignatureCache,
    signed: Vec<u8>,
}

/// What an entry is, for comparison.
type Shape = (u64, Template, bool, Vec<u8>, Vec<u8>);

fn shape(entry: &Entry<'_>) -> Shape {
    (entry.number(), entry.template(), entry.is_violation(), entry.name().to_vec(), entry.data().to_vec())
}

/// Entries, and the values that PCR 10 has after each, by a second hand.
struct Parsed {
    shapes: Vec<Shape>,
    values: Vec<Digest>,
    outcome: Result<u64, ImaError>,
}

fn parse(input: &[u8], chunk: usize) -> Parsed {
    let (mut shapes, mut values) = (Vec::new(), vec![Digest::zero(BANK)]);
    let mut parser = ListParser::new(0, HashAlgorithm::Sha1);
    let pushed = input.chunks(chunk).try_for_each(|chunk| {
        parser.push(chunk, |entry| {
            assert!(entry.data().len() <= MAX_ENTRY && entry.digest().bytes.len() <= 64);
            shapes.push(shape(&entry));
            let extended = match (entry.is_violation(), entry.template()) {
                (true, _) => vec![0xff; BANK.size()],
                (false, Template::Ima) => {
                    let padding = vec![0; 256 - entry.name().len()];
                    hash(BANK, &[entry.digest().bytes, entry.name(), &padding]).as_bytes().to_vec()
                }
                (false, _) => hash(BANK, &[entry.data()]).as_bytes().to_vec(),
            };
            let before = *values.last().expect("a value");
            values.push(hash(BANK, &[before.as_bytes(), &extended]));
            Ok::<_, ImaError>(())
        })
    });
    Parsed { shapes, values, outcome: pushed.and_then(|()| parser.finish()) }
}

impl ImaTarget {
    pub(super) fn new() -> Self {
        let signer = FileSigner::p256();
        let files = ImaList::of_files(20);
        let set = Arc::new(DigestSet::parse(&files.digest_set()).expect("a digest set"));
        let rules = RuntimeRules {
            digest_sets: vec!["base".parse().expect("a name")],
            signing_keys: vec![signer.pem()],
            exclude: vec!["/tmp/".parse().expect("a path")],
            ..RuntimeRules::default()
        };
        Self {
            pcrs: boot_pcrs(),
            rules: CompiledRules::new(rules, |_| Some(set.clone())).expect("good rules"),
            cache: SignatureCache::with_capacity(64),
            signed: ImaList::of_signed_files(3, &signer).bytes().to_vec(),
        }
    }

    fn walk(&self, progress: Option<Progress>, list: &[u8], quoted: Digest) -> Result<Walked, ImaError> {
        let mut judge = Judge::new(&self.rules, &self.cache, &self.pcrs, None);
        let mut walk = Walk::begin(progress, quoted, BankMode::Native)?;
        walk.push(list, &mut |entry, cover| judge.judge(entry, cover))?;
        let walked = walk.finish()?;
        let appraisal = judge.finish(&walked);
        assert_eq!(appraisal.is_some(), progress.is_none(), "findings are those of the whole boot");
        if let Some(appraisal) = appraisal {
            assert!(appraisal.deviations().count() <= 2 * RuntimeFindings::MAX + 2, "findings are bounded");
            let row = serde_json::to_string(appraisal.findings()).expect("JSON");
            let again: RuntimeFindings = serde_json::from_str(&row).expect("what was written");
            assert_eq!(again, *appraisal.findings(), "findings survive the store");
        }
        Ok(walked)
    }

    /// A whole list comes to each of its values, and to no other.
    fn check_walks(&self, input: &[u8], values: &[Digest]) {
        let last = values.len() - 1;
        for at in [last, last / 2] {
            match self.walk(None, input, values[at]) {
                Ok(walked) => {
                    let progress = walked.progress();
                    assert_eq!(walked.covered(), u64::try_from(at).expect("a small number"));
                    assert_eq!(walked.lag(), u64::try_from(last - at).expect("a small number"));
                    let claim = progress.claim().copied();
                    assert_eq!(
                        Progress::restore(*progress.prefix(), claim),
                        Ok(*progress),
                        "a row is read again"
                    );
                    self.check_continued(input, *progress, values[last]);
                }
                // Entries after the quoted value may state a hash that is not theirs.
                Err(error) => assert!(at < last && error.code() == "ima_template_hash_mismatch", "{error}"),
            }
        }
        let other = hash(BANK, &[values[last].as_bytes()]);
        let refused = self.walk(None, input, other).expect_err("no value of this list");
        assert_eq!(refused.code(), "ima_quoted_value_not_reached");
    }

    fn check_continued(&self, input: &[u8], progress: Progress, quoted: Digest) {
        let Position { entries, bytes, .. } = *progress.prefix();
        let from = usize::try_from(bytes).expect("a small number");
        if entries > 0 {
            let walked =
                self.walk(Some(progress), &input[from..], quoted).expect("the rest of the same list");
            assert_eq!(walked.lag(), 0);
        }
    }
}

impl Target for ImaTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let list = ImaList::of_files(8);
        let mut seeds = vec![list.bytes().to_vec(), self.signed.clone(), list.digest_set()];
        for boot in Corpus::find().iter().flat_map(Corpus::boots) {
            for file in ["ima.bin", "ima.ascii"] {
                let mut bytes = boot.find(file).unwrap_or_default();
                bytes.truncate(LONGEST / 2);
                seeds.push(bytes);
            }
        }
        seeds
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        let parsed = parse(input, usize::MAX);
        for chunk in [1, 7, 100] {
            let same = parse(input, chunk);
            assert_eq!((same.shapes, same.values), (parsed.shapes.clone(), parsed.values.clone()));
            assert_eq!(same.outcome, parsed.outcome, "in chunks of {chunk}");
        }
        if parsed.outcome.is_ok() {
            self.check_walks(input, &parsed.values);
        }
        let ascii: Result<Vec<_>, _> = AsciiList::new(input).and_then(Iterator::collect);
        for entry in ascii.iter().flatten() {
            assert!(entry.as_entry().expect("it was taken").template_hash_fits());
        }
        let set = DigestSet::parse(input);
        if let Ok(set) = &set {
            assert!(set.memory() <= 2 * input.len() + 256, "no more than its text");
        }
        let accepted = parsed.outcome.is_ok() || ascii.is_ok() || set.is_ok();
        let templates: Vec<_> = parsed.shapes.iter().map(|shape| shape.1.name()).collect();
        let outcomes = (parsed.outcome.map(|_| ()), ascii.map(|_| ()), set.map(|_| ()));
        Outcome { accepted, class: format!("{:?} {outcomes:?}", templates.last()) }
    }

    fn mutate(&self, pool: &Pool, random: &mut Random) -> Vec<u8> {
        mutate(pool, LONGEST, random)
    }
}
