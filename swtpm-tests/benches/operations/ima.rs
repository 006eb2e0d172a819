//! IMA's list: parsed, replayed and judged, beside the hashes or the verifications that it cannot do without.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::PcrValues;
use rootbound_swtpm_tests::ima::{FileSigner, ImaList, Signed, boot_pcrs};
use rootbound_swtpm_tests::measured::Row;
use rootbound_verifier::appraisal::runtime::{
    CompiledRules, DigestSet, Judge, RuntimeAppraisal, RuntimeFindings, RuntimeRules, SignatureCache,
};
use rootbound_verifier::evidence::ima::{BankMode, Progress, Walk};

use crate::paired::Bench;

/// Entries of the list, and digests of the policy.
const MANY: u32 = 100_000;
/// Entries with signatures: cold, each costs a verification.
const SIGNED: u32 = 5_000;
/// As the attester sends it.
const CHUNK: usize = 64 * 1024;

/// What one attestation needs.
struct Attestation<'a> {
    rules: &'a CompiledRules,
    cache: &'a SignatureCache,
    pcrs: &'a PcrValues,
    progress: Option<Progress>,
    findings: Option<RuntimeFindings>,
    list: &'a [u8],
    quoted: Digest,
}

impl Attestation<'_> {
    fn appraise(self) -> RuntimeAppraisal {
        let mut judge = Judge::new(self.rules, self.cache, self.pcrs, self.findings);
        let mut walk = Walk::begin(self.progress, self.quoted, BankMode::Native).expect("one bank");
        for chunk in self.list.chunks(CHUNK) {
            walk.push_together(chunk, &mut |entries| judge.judge_together(entries)).expect("a good list");
        }
        let appraisal = judge.finish(&walk.finish().expect("the quoted value")).expect("the same walk");
        assert!(appraisal.is_affirming(), "{:?}", appraisal.deviations().next());
        appraisal
    }
}

pub(crate) fn run(bench: &mut Bench<'_>) {
    let (list, pcrs) = (ImaList::of_files(MANY), boot_pcrs());
    let text = list.digest_set();
    let set = Arc::new(DigestSet::parse(&text).expect("a digest set"));
    let rules = rules(&set, &[]);
    let cache = SignatureCache::with_capacity(1);
    loading(bench, &text, &set);
    let whole = |list: &ImaList, rules: &CompiledRules, cache: &SignatureCache| {
        let (progress, findings) = (None, None);
        let (list, quoted) = (list.bytes(), list.value());
        Attestation { rules, cache, pcrs: &pcrs, progress, findings, list, quoted }.appraise()
    };
    let row = bench.in_turns(
        "IMA: 100,000 entries, policy of 100,000 digests",
        "bare SHA-256 (template data, extend)",
        || bare_hashes(&list),
        || whole(&list, &rules, &cache),
    );
    publish(row.map(|row| row.ratio_at_most(1.5)));

    let grown = ImaList::of_files(MANY + 20);
    let added = &grown.bytes()[list.bytes().len()..];
    let of_grown = Arc::new(DigestSet::parse(&grown.digest_set()).expect("a digest set"));
    steady(bench, &of_grown, (&list, added, grown.value()), &pcrs);

    for (signer, name) in [(FileSigner::rsa2048(), "RSA-2048"), (FileSigner::p256(), "P-256")] {
        let list = ImaList::of_signed_files(SIGNED, &signer);
        let rules = self::rules(&set, &[signer.pem()]);
        let raw = match signer {
            FileSigner::Rsa(_) => ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, signer.info()),
            FileSigner::P256(_) => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, signer.info()),
        };
        let raw = raw.expect("a key");
        let row = bench.in_turns(
            &format!("IMA: 5,000 entries signed by {name}, cold"),
            "bare verifications",
            || {
                for Signed { message, signature } in list.signed() {
                    raw.verify_sig(message, signature).expect("a good signature");
                }
            },
            || whole(&list, &rules, &SignatureCache::with_capacity(16_384)),
        );
        publish(row.map(|row| row.ratio_at_most(1.25)));
        let cache = SignatureCache::with_capacity(16_384);
        whole(&list, &rules, &cache);
        let row = bench.in_turns(
            &format!("IMA: 5,000 entries signed by {name}, warm"),
            "bare SHA-256 (template data, extend)",
            || bare_hashes(&list),
            || whole(&list, &rules, &cache),
        );
        publish(row.map(|row| row.ratio_at_most(1.5)));
    }
}

fn publish(row: Option<Row>) {
    row.iter().for_each(Row::publish);
}

fn rules(set: &Arc<DigestSet>, keys: &[String]) -> CompiledRules {
    let rules = RuntimeRules {
        digest_sets: vec!["base".parse().expect("a name")],
        signing_keys: keys.to_vec(),
        ..RuntimeRules::default()
    };
    CompiledRules::new(rules, |_| Some(set.clone())).expect("good rules")
}

/// The hash of each entry's data, and the extend: no parsing, no judgement.
fn bare_hashes(list: &ImaList) -> [u8; 32] {
    let mut both = [0; 64];
    for data in list.data() {
        both[32..].copy_from_slice(digest(&SHA256, data).as_ref());
        let value = digest(&SHA256, &both);
        both[..32].copy_from_slice(value.as_ref());
    }
    let mut value = [0; 32];
    value.copy_from_slice(&both[..32]);
    value
}

fn loading(bench: &mut Bench<'_>, text: &[u8], set: &DigestSet) {
    let name = "IMA: load and compile a policy of 100,000 digests";
    let time = bench.time(name, || DigestSet::parse(text).expect("a digest set"));
    publish(time.map(|time| Row::time(name, time).time_at_most(time, Duration::from_millis(60))));
    if time.is_some() {
        let kilobytes = u64::try_from(set.memory() / 1024).expect("some MB");
        Row::memory("IMA: memory of a policy of 100,000 digests", kilobytes)
            .memory_at_most(kilobytes, 12 * 1024)
            .publish();
        let large = ImaList::of_files(1_000_000).digest_set();
        let start = Instant::now();
        let set = black_box(DigestSet::parse(&large).expect("a digest set"));
        Row::time("IMA: load and compile a policy of 1,000,000 digests", start.elapsed()).publish();
        let kilobytes = u64::try_from(set.memory() / 1024).expect("some MB");
        Row::memory("IMA: memory of a policy of 1,000,000 digests", kilobytes).publish();
    }
}

/// A list that is verified, and what it grew by, to which value.
type Grown<'a> = (&'a ImaList, &'a [u8], Digest);

fn steady(bench: &mut Bench<'_>, set: &Arc<DigestSet>, grown: Grown<'_>, pcrs: &PcrValues) {
    let (rules, cache) = (&rules(set, &[]), &SignatureCache::with_capacity(1));
    let (before, list, quoted) = grown;
    let (progress, findings) = (None, None);
    let first =
        Attestation { rules, cache, pcrs, progress, findings, list: before.bytes(), quoted: before.value() };
    let first = first.appraise();
    let name = "IMA: 20 new entries, policy of 100,000 digests";
    let time = bench.time(name, || {
        let (progress, findings) = (Some(*first.walked().progress()), Some(first.findings().clone()));
        Attestation { rules, cache, pcrs, progress, findings, list, quoted }.appraise()
    });
    publish(time.map(|time| Row::time(name, time).time_at_most(time, Duration::from_micros(150))));
}
