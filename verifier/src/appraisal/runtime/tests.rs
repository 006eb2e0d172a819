//! Attacks on what runs, and the deviation that each comes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use rootbound_common::crypto::{Digest, NotADigest, TaggedDigest, hash, sha256};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};

use super::*;
use crate::evidence::ima::testing::{
    around, content, entry, field, file, ima_buf, ima_ng, ima_sig, violation,
};
use crate::evidence::ima::{
    BankMode, DigestKind, FileDigest, FileHash, ImaError, ListParser, Progress, Replay, Walk, Walked,
};

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

fn pcrs() -> PcrValues {
    let mut pcrs = PcrValues::default();
    for index in 0..10 {
        pcrs.insert(PcrIndex::new(index).unwrap(), hash(SHA256, &[&[index]]));
    }
    pcrs
}

fn boot_aggregate() -> Vec<u8> {
    let values: Vec<_> = (0..10).map(|index| hash(SHA256, &[&[index]])).collect();
    let values: Vec<_> = values.iter().map(Digest::as_bytes).collect();
    entry("ima-ng", &file(hash(SHA256, &values).as_bytes(), b"boot_aggregate"))
}

/// Files with their path as content, as a digest set.
fn set(paths: &[&str]) -> Arc<DigestSet> {
    let line = |path: &&str| {
        let hex = data_encoding::HEXLOWER.encode(&content(path));
        format!("sha256:{hex}  {path}\n")
    };
    Arc::new(DigestSet::parse(paths.iter().map(line).collect::<String>().as_bytes()).unwrap())
}

fn listed(bytes: &[u8]) -> TaggedDigest {
    TaggedDigest(hash(SHA256, &[bytes]))
}

fn rules() -> RuntimeRules {
    RuntimeRules { digest_sets: vec!["base".parse().unwrap()], ..RuntimeRules::default() }
}

/// Rules over the set of `/init` and `/bin/sh`.
fn compiled(rules: RuntimeRules) -> CompiledRules {
    CompiledRules::new(rules, |name| (name.as_str() == "base").then(|| set(&["/init", "/bin/sh"]))).unwrap()
}

/// The value that PCR 10 has after entries.
fn value(bytes: &[u8], mode: BankMode) -> Digest {
    let mut replay = Replay::from(Digest::zero(SHA256), mode);
    let mut parser = ListParser::new(0, HashAlgorithm::Sha1);
    parser
        .push(bytes, |entry| {
            replay.extend(&entry);
            Ok::<_, ImaError>(())
        })
        .unwrap();
    *replay.value()
}

struct Step<'a> {
    progress: Option<Progress>,
    findings: Option<RuntimeFindings>,
    bytes: &'a [u8],
    quoted: Digest,
    mode: BankMode,
}

fn attest(rules: &CompiledRules, cache: &SignatureCache, step: Step<'_>) -> Option<RuntimeAppraisal> {
    let pcrs = pcrs();
    let mut judge = Judge::new(rules, cache, &pcrs, step.findings);
    let mut walk = Walk::begin(step.progress, step.quoted, step.mode).unwrap();
    walk.push(step.bytes, &mut |entry, cover| judge.judge(entry, cover)).unwrap();
    judge.finish(&walk.finish().unwrap())
}

/// Judges a whole list, after a boot_aggregate of its own.
fn appraise(rules: RuntimeRules, entries: &[Vec<u8>]) -> RuntimeAppraisal {
    let bytes = [boot_aggregate(), entries.concat()].concat();
    let (progress, findings, mode) = (None, None, BankMode::Native);
    let step = Step { progress, findings, quoted: value(&bytes, mode), bytes: &bytes, mode };
    attest(&compiled(rules), &SignatureCache::with_capacity(64), step).unwrap()
}

fn codes(appraisal: &RuntimeAppraisal) -> Vec<&'static str> {
    appraisal.deviations().map(RuntimeDeviation::code).collect()
}

fn deviations(rules: RuntimeRules, entries: &[Vec<u8>]) -> Vec<&'static str> {
    let appraisal = appraise(rules, entries);
    assert_eq!(appraisal.is_affirming(), appraisal.deviations().next().is_none());
    codes(&appraisal)
}

#[test]
fn files_of_the_sets_are_accepted_and_others_are_named() {
    let known = [ima_ng("/init", "/init"), ima_sig("/bin/sh", "/bin/sh", &[])];
    let appraisal = appraise(rules(), &known);
    assert!(appraisal.is_affirming());
    assert_eq!((appraisal.findings().counts().entries, appraisal.findings().counts().by_digest), (3, 2));
    let appraisal = appraise(rules(), &[ima_ng("/init", "/init"), ima_ng("/bin/evil\n", "evil")]);
    let [deviation] = appraisal.deviations().collect::<Vec<_>>()[..] else { panic!("{appraisal:?}") };
    assert_eq!((deviation.code(), deviation.entry()), ("runtime_unknown_file", Some(2)));
    let words = deviation.to_string();
    assert!(words.starts_with("entry 2: `/bin/evil\\u{a}` with sha256:"), "{words}");
    assert_eq!(deviations(rules(), &[ima_ng("/init", "/bin/sh")]), ["runtime_other_path"]);
}

/// Attack 63: sets that do not exist accept nothing, and rules without any are refused.
#[test]
fn a_set_that_is_missing_accepts_nothing() {
    let mut other = rules();
    other.digest_sets = vec!["gone".parse().unwrap()];
    assert_eq!(deviations(other, &[ima_ng("/init", "/init")]), ["runtime_unknown_file"]);
    assert_eq!(RuntimeRules::default().check(), Err(RuntimeRulesError::AcceptsNothing));
}

/// Attack 64.
#[test]
fn a_list_of_another_boot_deviates() {
    let bytes = [ima_ng("boot_aggregate", "another boot"), ima_ng("/init", "/init")].concat();
    let (progress, findings, mode) = (None, None, BankMode::Native);
    let step = Step { progress, findings, quoted: value(&bytes, mode), bytes: &bytes, mode };
    let appraisal = attest(&compiled(rules()), &SignatureCache::with_capacity(1), step).unwrap();
    assert_eq!(codes(&appraisal), ["runtime_boot_aggregate"]);
}

/// Attacks 65 and 80: kexec keeps the list, and adds a boot_aggregate; whether its kernel is accepted is said.
#[test]
fn a_kernel_started_by_kexec_is_accepted_where_the_rules_say_so() {
    let entries = [ima_ng("/init", "/init"), boot_aggregate(), ima_ng("/init", "/init")];
    assert_eq!(deviations(rules(), &entries), ["runtime_kexec"]);
    let accepting = || RuntimeRules { kexec: Treatment::Accept, ..rules() };
    assert_eq!(deviations(accepting(), &entries), [""; 0]);
    let other = [ima_ng("/init", "/init"), ima_ng("boot_aggregate", "another boot")];
    assert_eq!(deviations(accepting(), &other), ["runtime_boot_aggregate_changed"]);
}

/// Attack 67.
#[test]
fn entries_after_the_quoted_value_are_judged_and_marked() {
    let covered = [boot_aggregate(), ima_ng("/init", "/init")].concat();
    let bytes = [covered.clone(), ima_ng("/bin/evil", "evil"), violation("/x")].concat();
    let (progress, findings, mode) = (None, None, BankMode::Native);
    let step = Step { progress, findings, quoted: value(&covered, mode), bytes: &bytes, mode };
    let appraisal = attest(&compiled(rules()), &SignatureCache::with_capacity(1), step).unwrap();
    assert_eq!(codes(&appraisal), ["runtime_unknown_file", "runtime_violation"]);
    assert_eq!((appraisal.findings().counts().entries, appraisal.findings().counts().deviating), (2, 0));
    assert_eq!((appraisal.tail().entries, appraisal.tail().deviating, appraisal.walked().lag()), (2, 2, 2));
}

/// Attack 70.
#[test]
fn violations_deviate_but_for_paths_that_the_rules_tolerate() {
    let entries = [ima_ng("/init", "/init"), violation("/var/log/x"), violation("/bin/sh")];
    let appraisal = appraise(rules(), &entries);
    assert_eq!(codes(&appraisal), ["runtime_violation", "runtime_violation"]);
    assert_eq!(appraisal.findings().counts().violations, 2);
    let tolerant = RuntimeRules { tolerate_violations: vec!["/var/log/".parse().unwrap()], ..rules() };
    let appraisal = appraise(tolerant, &entries);
    assert_eq!(codes(&appraisal), ["runtime_violation"]);
    assert_eq!(appraisal.findings().counts().violations, 2, "tolerated ones are counted");
    let excluded = RuntimeRules { exclude: vec!["/var/log/".parse().unwrap()], ..rules() };
    assert_eq!(deviations(excluded, &entries).len(), 2, "an excluded path excuses no violation");
}

/// Attack 71.
#[test]
fn excluded_folders_hide_what_is_below_them_and_nothing_else() {
    let excluding = || RuntimeRules { exclude: vec!["/tmp/".parse().unwrap()], ..rules() };
    assert_eq!(deviations(excluding(), &[ima_ng("/tmp/x", "x")]), [""; 0]);
    for path in ["/tmpfoo", "/tmp/../bin/x", "tmp/x", "/tmp/x (deleted)", "/memfd:/tmp/x", "memfd:x"] {
        assert_eq!(deviations(excluding(), &[ima_ng(path, "x")]), ["runtime_unknown_file"], "{path}");
    }
}

fn sha1_file(path: &str) -> Vec<u8> {
    let digest = [&b"sha1:\0"[..], hash(HashAlgorithm::Sha1, &[b"old"]).as_bytes()].concat();
    entry("ima-ng", &[field(&digest), field(&[path.as_bytes(), &[0]].concat())].concat())
}

/// Attack 72.
#[test]
fn a_sha1_digest_is_accepted_only_where_the_rules_say_so() {
    let sha1 = hash(HashAlgorithm::Sha1, &[b"old"]);
    let text = format!("sha1:{sha1}  /old\nsha256:{}  /x\n", "1".repeat(64));
    let set = Arc::new(DigestSet::parse(text.as_bytes()).unwrap());
    for (least, expected) in [(SHA256, vec!["runtime_weak_digest"]), (HashAlgorithm::Sha1, vec![])] {
        let rules = RuntimeRules { min_digest: least, ..rules() };
        let compiled = CompiledRules::new(rules, |_| Some(set.clone())).unwrap();
        let bytes = [boot_aggregate(), sha1_file("/old")].concat();
        let (progress, findings, mode) = (None, None, BankMode::Native);
        let step = Step { progress, findings, quoted: value(&bytes, mode), bytes: &bytes, mode };
        let appraisal = attest(&compiled, &SignatureCache::with_capacity(1), step).unwrap();
        assert_eq!(codes(&appraisal), expected);
    }
    let sm3 = [field(&[&b"sm3:\0"[..], &[1; 32]].concat()), field(b"/x\0")].concat();
    assert_eq!(deviations(rules(), &[entry("ima-ng", &sm3)]), ["runtime_weak_digest"]);
}

/// A key that signs files.
enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn p256() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn info(&self) -> Vec<u8> {
        match self {
            Self::Rsa(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ec(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }

    fn pem(&self) -> String {
        der::pem::encode_string("PUBLIC KEY", der::pem::LineEnding::LF, &self.info()).unwrap()
    }

    /// Last four bytes of the SHA-1 of the key.
    fn id(&self) -> [u8; 4] {
        let key = match self {
            Self::Rsa(key) => key.public_key().as_ref().to_vec(),
            Self::Ec(key) => key.public_key().as_ref().to_vec(),
        };
        *hash(HashAlgorithm::Sha1, &[&key]).as_bytes().last_chunk().unwrap()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }

    /// signature_v2_hdr over a file with this content.
    fn version_2(&self, text: &str) -> Vec<u8> {
        xattr(3, 2, 4, self.id(), &self.sign(text.as_bytes()))
    }
}

fn xattr(kind: u8, version: u8, hash: u8, id: [u8; 4], signature: &[u8]) -> Vec<u8> {
    let length = u16::try_from(signature.len()).unwrap().to_be_bytes();
    [&[kind, version, hash], &id[..], &length, signature].concat()
}

fn trusting(keys: &[&Signer]) -> RuntimeRules {
    RuntimeRules { signing_keys: keys.iter().map(|key| key.pem()).collect(), ..rules() }
}

fn problem(rules: RuntimeRules, entry: Vec<u8>) -> Option<SignatureProblem> {
    match appraise(rules, &[entry]).deviations().next() {
        None => None,
        Some(RuntimeDeviation::Signature { problem, .. }) => Some(*problem),
        Some(other) => panic!("{other}"),
    }
}

#[test]
fn a_trusted_key_vouches_for_what_it_signed_in_either_version() {
    for key in [Signer::rsa(), Signer::p256()] {
        let appraisal = appraise(trusting(&[&key]), &[ima_sig("/opt/x", "x", &key.version_2("x"))]);
        assert!(appraisal.is_affirming());
        assert_eq!(appraisal.findings().counts().by_signature, 1);

        let file_id = |kind: u8| [&[kind, 4][..], &content("x")].concat();
        let third = |kind: u8| xattr(kind, 3, 4, key.id(), &key.sign(&file_id(kind)));
        assert_eq!(problem(trusting(&[&key]), ima_sig("/opt/x", "x", &third(3))), None);
        let verity = [&b"verity:sha256:\0"[..], &content("x")].concat();
        let verity = [field(&verity), field(b"/opt/x\0")].concat();
        let with = |xattr: &[u8]| entry("ima-sigv2", &[&verity[..], &field(xattr)].concat());
        assert_eq!(problem(trusting(&[&key]), with(&third(6))), None);
        assert_eq!(problem(trusting(&[&key]), with(&key.version_2("x"))), Some(SignatureProblem::OtherKind));
        let content = ima_sig("/opt/x", "x", &third(6));
        assert_eq!(problem(trusting(&[&key]), content), Some(SignatureProblem::OtherKind));
    }
    let key = Signer::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap());
    let digest = [&b"sha384:\0"[..], hash(HashAlgorithm::Sha384, &[b"x"]).as_bytes()].concat();
    let xattr = xattr(3, 2, 5, key.id(), &key.sign(b"x"));
    let data = [field(&digest), field(b"/opt/x\0"), field(&xattr)].concat();
    assert_eq!(problem(trusting(&[&key]), entry("ima-sig", &data)), None);
}

/// Attack 75.
#[test]
fn signatures_that_vouch_for_nothing_say_why() {
    let (key, other) = (Signer::p256(), Signer::p256());
    let good = key.sign(b"x");
    let id = key.id();
    let flipped = {
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        flipped
    };
    for (signature, expected) in [
        (xattr(3, 2, 4, id, &good), None),
        (other.version_2("x"), Some(SignatureProblem::UnknownKey { id: other.id() })),
        (xattr(3, 2, 4, id, &other.sign(b"x")), Some(SignatureProblem::Invalid { id })),
        (xattr(3, 2, 4, id, &key.sign(b"y")), Some(SignatureProblem::Invalid { id })),
        (xattr(3, 2, 4, id, &flipped), Some(SignatureProblem::Invalid { id })),
        (xattr(3, 2, 4, id, &[]), Some(SignatureProblem::Invalid { id })),
        (xattr(3, 3, 4, id, &good), Some(SignatureProblem::Invalid { id })),
        (xattr(3, 2, 6, id, &good), Some(SignatureProblem::OtherHash)),
        (xattr(3, 2, 2, id, &good), Some(SignatureProblem::Hash { id: 2 })),
        (xattr(3, 1, 4, id, &good), Some(SignatureProblem::Version { version: 1 })),
        (xattr(6, 2, 4, id, &good), Some(SignatureProblem::Version { version: 2 })),
        (xattr(3, 4, 4, id, &good), Some(SignatureProblem::Version { version: 4 })),
        (xattr(5, 2, 4, id, &good), Some(SignatureProblem::Evm)),
        (xattr(2, 2, 4, id, &good), Some(SignatureProblem::Evm)),
        (xattr(1, 2, 4, id, &good), Some(SignatureProblem::Malformed)),
        ([xattr(3, 2, 4, id, &good), vec![0]].concat(), Some(SignatureProblem::Malformed)),
        (xattr(3, 2, 4, id, &good)[..8].to_vec(), Some(SignatureProblem::Malformed)),
        (vec![3], Some(SignatureProblem::Malformed)),
    ] {
        let entry = ima_sig("/opt/x", "x", &signature);
        assert_eq!(problem(trusting(&[&key]), entry), expected, "{signature:02x?}");
    }
}

/// A certificate without an issuer's signature, with a subject key identifier.
fn certificate(info: &[u8], id: &[u8]) -> String {
    /// Of 256 bytes and more, as all with an RSA key in it.
    fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, &content].concat()
    }
    fn short(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 128);
        [&[tag, length][..], &content].concat()
    }
    let algorithm = short(0x30, &[&[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let time = short(0x17, &[b"200101000000Z"]);
    let identifier = short(0x30, &[&[0x06, 3, 0x55, 0x1d, 0x0e], &short(0x04, &[&short(0x04, &[id])])]);
    let tbs = tlv(
        0x30,
        &[
            &short(0xa0, &[&[0x02, 1, 2]]),
            &[0x02, 1, 1],
            &algorithm,
            &[0x30, 0],
            &short(0x30, &[&time, &time]),
            &[0x30, 0],
            info,
            &short(0xa3, &[&short(0x30, &[&identifier])]),
        ],
    );
    let der = tlv(0x30, &[&tbs, &algorithm, &[0x03, 2, 0, 0]]);
    der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &der).unwrap()
}

/// Attack 75: 32 bits name no key, so that each key with the id is tried.
#[test]
fn keys_that_share_an_id_are_each_tried() {
    let (key, other) = (Signer::rsa(), Signer::rsa());
    let id = [7, 7, 7, 7];
    let both = RuntimeRules {
        signing_keys: vec![certificate(&other.info(), &[1, 7, 7, 7, 7]), certificate(&key.info(), &id)],
        ..rules()
    };
    let by = |signer: &Signer| ima_sig("/opt/x", "x", &xattr(3, 2, 4, id, &signer.sign(b"x")));
    assert_eq!(problem(both.clone(), by(&key)), None);
    assert_eq!(problem(both.clone(), by(&other)), None);
    assert_eq!(problem(both.clone(), by(&Signer::rsa())), Some(SignatureProblem::Invalid { id }));
    assert_eq!(problem(both, ima_sig("/opt/x", "x", &key.version_2("x"))), None, "by the key's own id, too");
}

/// Attack 76.
#[test]
fn a_denied_digest_wins_over_sets_signatures_and_excludes() {
    let key = Signer::p256();
    let denying = || RuntimeRules {
        deny: vec![listed(b"/init"), listed(b"x")],
        exclude: vec!["/tmp/".parse().unwrap()],
        ..trusting(&[&key])
    };
    let modsig = [
        file(&content("y"), b"/y"),
        field(b""),
        field(&[&b"sha256:\0"[..], &content("x")].concat()),
        field(b""),
    ];
    for entry in [
        ima_ng("/init", "/init"),
        ima_ng("/tmp/x", "x"),
        ima_sig("/opt/x", "x", &key.version_2("x")),
        ima_buf("kernel_version", b"x"),
        entry("ima-modsig", &modsig.concat()),
    ] {
        assert_eq!(deviations(denying(), &[entry]), ["runtime_denied"]);
    }
}

/// Attack 77.
#[test]
fn a_key_that_is_loaded_has_to_be_listed_for_its_keyring() {
    let knowing = || RuntimeRules {
        key_loads: BTreeMap::from([(".ima".to_owned(), vec![listed(b"a key")])]),
        ..rules()
    };
    assert_eq!(deviations(knowing(), &[ima_buf(".ima", b"a key")]), [""; 0]);
    for (keyring, key) in [(".ima", "another"), (".evm", "a key"), (".builtin_trusted_keys", "a key")] {
        assert_eq!(
            deviations(knowing(), &[ima_buf(keyring, key.as_bytes())]),
            ["runtime_key_load"],
            "{keyring}"
        );
    }
}

/// Attack 78: by the file, whatever else accepts it, and by the event.
#[test]
fn a_policy_that_is_loaded_has_to_be_listed() {
    let policy = "/etc/ima/ima-policy";
    let compiled = |digests| {
        let policy_loads = PolicyLoads { digests, ..PolicyLoads::default() };
        CompiledRules::new(RuntimeRules { policy_loads, ..rules() }, |_| Some(set(&[policy]))).unwrap()
    };
    for (digests, entry, expected) in [
        (vec![], ima_ng(policy, policy), vec!["runtime_policy_load"]),
        (vec![listed(policy.as_bytes())], ima_ng(policy, policy), vec![]),
        (vec![listed(b"other")], ima_ng(policy, policy), vec!["runtime_policy_load"]),
        (vec![], ima_buf("ima_policy_loaded", b"measure"), vec!["runtime_policy_load"]),
        (vec![listed(b"measure")], ima_buf("ima_policy_loaded", b"measure"), vec![]),
    ] {
        let bytes = [boot_aggregate(), entry].concat();
        let (progress, findings, mode) = (None, None, BankMode::Native);
        let step = Step { progress, findings, quoted: value(&bytes, mode), bytes: &bytes, mode };
        let appraisal = attest(&compiled(digests), &SignatureCache::with_capacity(1), step).unwrap();
        assert_eq!(codes(&appraisal), expected);
    }
}

#[test]
fn events_are_accepted_by_their_list_and_by_no_other() {
    let knowing = || RuntimeRules {
        device_mapper: vec![listed(b"table")],
        kernel_versions: vec!["6.1".to_owned()],
        kexec_command_lines: vec!["quiet".to_owned()],
        critical_data: BTreeMap::from([("selinux-state".to_owned(), vec![listed(b"on")])]),
        ..rules()
    };
    for (event, good, bad) in [
        ("dm_table_load", "table", "runtime_device_mapper"),
        ("kernel_version", "6.1", "runtime_kernel_version"),
        ("kexec-cmdline", "quiet", "runtime_kexec_command_line"),
        ("selinux-state", "on", "runtime_critical_data"),
    ] {
        assert_eq!(deviations(knowing(), &[ima_buf(event, good.as_bytes())]), [""; 0], "{event}");
        assert_eq!(deviations(knowing(), &[ima_buf(event, b"else")]), [bad], "{event}");
        assert_eq!(deviations(rules(), &[ima_buf(event, good.as_bytes())]), [bad], "{event}");
    }
    let lying = entry("ima-buf", &[file(&content("table"), b"dm_table_load"), field(b"other")].concat());
    assert_eq!(deviations(knowing(), &[lying]), ["runtime_buffer_digest"]);
}

/// No hash covers the name of a template: calling a file an event, or an event a file, must gain nothing.
#[test]
fn a_template_that_lies_accepts_nothing_more() {
    let xattr = b"what the attacker wrote";
    let digest = sha256(&[xattr]);
    let data = [file(&digest, b"/bin/evil"), field(xattr)].concat();
    assert_eq!(deviations(rules(), &[entry("ima-buf", &data)]), ["runtime_critical_data"]);
    assert_eq!(deviations(rules(), &[entry("ima-sig", &data)]), ["runtime_unknown_file"]);
    let key = [file(&sha256(&[b"key"]), b".ima"), field(b"key")].concat();
    assert_eq!(deviations(rules(), &[entry("ima-sig", &key)]), ["runtime_unknown_file"]);
}

/// Attack 79.
#[test]
fn padded_sha1_deviates_unless_the_rules_accept_it_and_shows_if_they_do() {
    let bytes = [boot_aggregate(), ima_ng("/init", "/init")].concat();
    for (weak_sha1_padding, expected) in [(false, vec!["runtime_padded_sha1"]), (true, vec![])] {
        let rules = RuntimeRules { weak_sha1_padding, ..rules() };
        let mode = BankMode::PaddedSha1;
        assert_eq!(rules.bank_mode() == mode, weak_sha1_padding);
        let (progress, findings) = (None, None);
        let step = Step { progress, findings, quoted: value(&bytes, mode), bytes: &bytes, mode };
        let appraisal = attest(&compiled(rules), &SignatureCache::with_capacity(1), step).unwrap();
        assert_eq!(codes(&appraisal), expected);
        assert!(appraisal.is_weak());
    }
}

#[test]
fn a_list_of_boot_aggregate_alone_is_not_clean() {
    assert_eq!(deviations(rules(), &[]), ["runtime_too_few_entries"]);
    let (progress, findings, mode) = (None, None, BankMode::Native);
    let step = Step { progress, findings, quoted: Digest::zero(SHA256), bytes: &[], mode };
    let appraisal = attest(&compiled(rules()), &SignatureCache::with_capacity(1), step).unwrap();
    assert_eq!(codes(&appraisal), ["runtime_too_few_entries"], "nor is one without entries");
}

/// Attack 82.
#[test]
fn a_deviation_stays_for_its_boot_and_what_comes_after_it_is_judged() {
    let (compiled, cache, mode) = (compiled(rules()), SignatureCache::with_capacity(1), BankMode::Native);
    let mut bytes = [boot_aggregate(), ima_ng("/opt/benign", "benign")].concat();
    let (mut progress, mut findings) = (None, None);
    let mut from = 0;
    for (next, expected) in [
        (vec![], 1),
        (ima_ng("/init", "/init"), 1),
        (ima_ng("/opt/evil", "evil"), 2),
        (ima_ng("/opt/benign", "benign"), 2),
    ] {
        bytes.extend(next);
        let step = Step { progress, findings, bytes: &bytes[from..], quoted: value(&bytes, mode), mode };
        let appraisal = attest(&compiled, &cache, step).unwrap();
        assert_eq!(codes(&appraisal), vec!["runtime_unknown_file"; expected]);
        from = bytes.len();
        progress = Some(*appraisal.walked().progress());
        // By way of the store.
        let row = serde_json::to_string(appraisal.findings()).unwrap();
        findings = Some(serde_json::from_str::<RuntimeFindings>(&row).unwrap());
        assert_eq!(findings.as_ref(), Some(appraisal.findings()));
    }
    assert_eq!(findings.unwrap().counts().deviating, 3, "the same again is counted, and not listed twice");
}

/// Attack 83: findings are of one version of rules and sets; others cannot go on from them.
#[test]
fn other_rules_do_not_go_on_from_findings() {
    let (cache, mode) = (SignatureCache::with_capacity(1), BankMode::Native);
    let first = [boot_aggregate(), ima_ng("/init", "/init")].concat();
    let step = Step { progress: None, findings: None, bytes: &first, quoted: value(&first, mode), mode };
    let old = compiled(rules());
    let appraisal = attest(&old, &cache, step).unwrap();
    let new = compiled(RuntimeRules { min_entries: 3, ..rules() });
    let other_set = CompiledRules::new(rules(), |_| Some(set(&["/init"]))).unwrap();
    assert!(Judge::continues(&old, appraisal.findings()));
    for other in [&new, &other_set] {
        assert!(!Judge::continues(other, appraisal.findings()));
        let all = [first.clone(), ima_ng("/bin/sh", "/bin/sh")].concat();
        let step = Step {
            progress: Some(*appraisal.walked().progress()),
            findings: Some(appraisal.findings().clone()),
            bytes: &all[first.len()..],
            quoted: value(&all, mode),
            mode,
        };
        assert!(
            attest(other, &cache, step).is_none(),
            "what was not judged by these rules is not passed over"
        );
    }
}

#[test]
fn the_number_of_deviations_that_are_kept_is_bounded() {
    let entries: Vec<_> = (0..100).map(|number| ima_ng(&format!("/opt/{number}"), "evil")).collect();
    let appraisal = appraise(rules(), &entries);
    assert_eq!((appraisal.deviations().count(), appraisal.more()), (RuntimeFindings::MAX, 36));
    assert_eq!(appraisal.findings().counts().deviating, 100);
}

#[test]
fn what_is_denied_is_kept_however_much_else_deviates() {
    let mut entries: Vec<_> = (0..100).map(|number| ima_ng(&format!("/opt/{number}"), "evil")).collect();
    entries.push(ima_ng("/opt/worse", "worse"));
    let denied = listed(b"worse");
    let appraisal = appraise(RuntimeRules { deny: vec![denied], ..rules() }, &entries);
    let is_denied = |kept: &&RuntimeDeviation| matches!(kept, RuntimeDeviation::Denied { .. });
    assert_eq!(appraisal.deviations().filter(is_denied).count(), 1);
    assert_eq!((appraisal.deviations().count(), appraisal.more()), (RuntimeFindings::MAX, 37));
}

#[test]
fn wrong_signatures_cost_no_more_than_a_thousand_verifications() {
    let key = Signer::p256();
    let wrong = xattr(3, 2, 4, key.id(), &key.sign(b"y"));
    let entries: Vec<_> = (0..1030).map(|_| ima_sig("/opt/x", "x", &wrong)).collect();
    let appraisal = appraise(trusting(&[&key]), &entries);
    let problems: Vec<_> = appraisal
        .deviations()
        .map(|deviation| match deviation {
            RuntimeDeviation::Signature { problem, .. } => *problem,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(problems, [SignatureProblem::Invalid { id: key.id() }, SignatureProblem::NotTried]);
}

#[test]
fn a_signature_is_verified_once_for_all_nodes() {
    let key = Signer::p256();
    let rules = compiled(trusting(&[&key]));
    let cache = SignatureCache::with_capacity(64);
    let bytes = [boot_aggregate(), ima_sig("/opt/x", "x", &key.version_2("x"))].concat();
    let mode = BankMode::Native;
    let quoted = value(&bytes, mode);
    for _ in 0..2 {
        let step = Step { progress: None, findings: None, bytes: &bytes, quoted, mode };
        assert!(attest(&rules, &cache, step).unwrap().is_affirming());
    }
    // With another key in its place, nothing is found that the first one signed.
    let other = compiled(trusting(&[&Signer::p256()]));
    let step = Step { progress: None, findings: None, bytes: &bytes, quoted, mode };
    assert_eq!(codes(&attest(&other, &cache, step).unwrap()), ["runtime_signature"]);
}

#[test]
fn findings_of_another_walk_are_no_appraisal() {
    let rules = compiled(rules());
    let (cache, pcrs) = (SignatureCache::with_capacity(1), pcrs());
    let judge = Judge::new(&rules, &cache, &pcrs, None);
    let mut walk = Walk::begin(None, value(&boot_aggregate(), BankMode::Native), BankMode::Native).unwrap();
    walk.push(&boot_aggregate(), &mut |_, _| {}).unwrap();
    let walked: Walked = walk.finish().unwrap();
    assert_eq!(judge.finish(&walked), None);
}

#[test]
fn rules_that_cannot_be_used_are_refused() {
    let key = Signer::p256();
    let many = |count: usize| vec!["/x".parse::<PathRule>().unwrap(); count];
    let sha1 = TaggedDigest(hash(HashAlgorithm::Sha1, &[]));
    let named = |name: &str| BTreeMap::from([(name.to_owned(), vec![])]);
    for (rules, expected) in [
        (RuntimeRules { exclude: many(4097), ..rules() }, "runtime.exclude: at most 4096"),
        (RuntimeRules { signing_keys: vec![key.pem(); 33], ..rules() }, "runtime.signing_keys: at most 32"),
        (RuntimeRules { signing_keys: vec!["x".into()], ..rules() }, "runtime.signing_keys: key 1 is neither"),
        (
            RuntimeRules { signing_keys: vec![key.pem().replace("PUBLIC", "PRIVATE")], ..rules() },
            "runtime.signing_keys: key 1 is neither a CERTIFICATE",
        ),
        (
            RuntimeRules {
                signing_keys: vec!["-----BEGIN PUBLIC KEY-----\nAQID\n-----END PUBLIC KEY-----\n".into()],
                ..rules()
            },
            "runtime.signing_keys: key 1 is no certificate",
        ),
        (
            RuntimeRules {
                signing_keys: vec![
                    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                     -----END PUBLIC KEY-----\n"
                        .into(),
                ],
                ..rules()
            },
            "runtime.signing_keys: key 1 is neither RSA",
        ),
        (RuntimeRules { device_mapper: vec![sha1], ..rules() }, "runtime.device_mapper: digests of keys"),
        (RuntimeRules { critical_data: named("dm_table_load"), ..rules() }, "runtime.critical_data: `dm_"),
        (RuntimeRules { critical_data: named("a b"), ..rules() }, "runtime.critical_data: `a b`"),
        (RuntimeRules { key_loads: named("/bin/x"), ..rules() }, "runtime.key_loads: `/bin/x`"),
        (RuntimeRules { min_entries: 0, ..rules() }, "runtime.min_entries: must be between 1 and"),
    ] {
        let error = rules.check().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn rules_are_written_in_toml_and_a_misspelt_one_is_refused() {
    let text = format!(
        "digest_sets = [\"base\"]\nexclude = [\"/tmp/\"]\ndeny = [\"sha256:{}\"]\nmin_digest = \"sha384\"\n\
         [key_loads]\n\".ima\" = []\n[policy_loads]\npaths = [\"/etc/ima/ima-policy\"]\n",
        "1".repeat(64)
    );
    let rules: RuntimeRules = toml::from_str(&text).unwrap();
    assert_eq!(rules.min_digest, HashAlgorithm::Sha384);
    assert_eq!(rules.check(), Ok(()));
    let written = serde_json::to_string(&rules).unwrap();
    assert_eq!(serde_json::from_str::<RuntimeRules>(&written).unwrap(), rules);
    for wrong in [
        text.replace("exclude", "excludes"),
        text.replace("/tmp/", "tmp/"),
        text.replace("sha256:1", "sha256:g"),
        text.replace("paths", "path"),
    ] {
        assert!(toml::from_str::<RuntimeRules>(&wrong).is_err(), "{wrong}");
    }
    assert_eq!("md5:00".parse::<TaggedDigest>(), Err(NotADigest));
}

#[test]
fn a_violation_cannot_be_made_a_file_nor_a_file_a_violation() {
    // Both change what is extended; here, with a quote that fits, each is judged as what it then is.
    let as_file = entry("ima-ng", &file(&[0; 32], b"/init"));
    assert_eq!(deviations(rules(), &[as_file]), ["runtime_unknown_file"]);
    let as_violation = around("ima-ng", &[0; 20], &file(&[0; 32], b"/init"));
    assert_eq!(deviations(rules(), &[as_violation]), ["runtime_violation"]);
}

#[test]
fn what_the_fleet_denies_is_denied_as_content_and_as_fs_verity_and_makes_other_rules() {
    use crate::reference::deny::tests::entry as denied;
    use crate::reference::{DeniedAs, DenyList};
    let base = || Some(set(&["/init", "/bin/sh"]));
    let plain = CompiledRules::new(rules(), |_| base()).unwrap();
    let digest = hash(HashAlgorithm::Sha256, &[b"a file"]);
    let of = |version, what| {
        let list = DenyList::new(version, vec![denied(what, digest, "CVE")]).unwrap();
        CompiledRules::with_deny(rules(), |_| base(), &list).unwrap()
    };
    let compiled = of(2, DeniedAs::Digest);
    for kind in [DigestKind::Content, DigestKind::Verity] {
        let algorithm = FileHash::Tpm(HashAlgorithm::Sha256);
        let stated = FileDigest { kind, algorithm, bytes: digest.as_bytes() };
        let by = compiled.denies(&stated).unwrap().by;
        assert_eq!(by.as_deref(), Some("CVE (deny@2)"));
        assert!(plain.denies(&stated).is_none());
    }
    assert_eq!(compiled.denies_memory(&digest).unwrap().by.as_deref(), Some("CVE (deny@2)"));
    assert_ne!(compiled.id(), plain.id());
    assert_ne!(compiled.id(), of(3, DeniedAs::Digest).id(), "findings name the version");
    let nothing = CompiledRules::with_deny(rules(), |_| base(), &DenyList::default()).unwrap();
    assert_eq!(nothing.id(), plain.id());
}
