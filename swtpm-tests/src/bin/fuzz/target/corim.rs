//! CoRIMs: what is taken is written again, and is the same.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use data_encoding::BASE64;
use rootbound_common::blob::Blob;
use rootbound_common::clock::Timestamp;
use rootbound_swtpm_tests::random::Random;
use rootbound_verifier::evidence::frame::{pack, unpack};
use rootbound_verifier::reference::corim::{ToSign, write};
use rootbound_verifier::reference::exchange::{
    Contents, Document, ExportedSet, ExportedValues, FORMAT, Importable, SignatureAlgorithm, TrustedSigner,
};
use rootbound_verifier::reference::{Provenance, SetContent, Versioned};
use serde_json::{Value, json};

use super::{Outcome, Target, with_trailing_byte};
use crate::mutate::mutate;
use crate::pool::Pool;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// Bytes of an input: some dozens of values.
const LIMIT: usize = 16 << 10;
/// Bytes of a text of digests: more than any input has.
const TEXT: usize = 1 << 20;
/// What stands before the 32 bytes of a key in its SubjectPublicKeyInfo (RFC 8410, 4).
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Each input is read without looking at its signature, and by a key that signed one of the seeds.
pub(super) struct CorimTarget {
    pair: Ed25519KeyPair,
    signers: [TrustedSigner; 1],
}

impl CorimTarget {
    pub(super) fn new() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let spki = BASE64.encode(&[ED25519_SPKI, pair.public_key().as_ref()].concat());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
        let name = "release".parse().expect("a name");
        Self { pair, signers: [TrustedSigner::from_pem(name, &pem).expect("a key")] }
    }
}

fn document(sets: &[(&str, Value)]) -> Document {
    let provenance = json!({ "author": "uid 0", "reason": "", "created_at": NOW });
    let set = |(name, values): &(&str, Value)| json!({ "name": name, "version": 1, "provenance": provenance, "values": values });
    let document = json!({
        "format": FORMAT, "trust_domain": "example.org", "exported_at": NOW,
        "sets": sets.iter().map(set).collect::<Vec<_>>(),
    });
    serde_json::from_value(document).expect("a document")
}

fn digest(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

impl Target for CorimTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let several = json!({ "pcrs": { "sha256": { "4": ["ab".repeat(32), "ac".repeat(32)], "7": ["ad".repeat(32)] } } });
        let one =
            json!({ "pcrs": { "sha256": { "7": ["ab".repeat(32)] }, "sha384": { "7": ["ab".repeat(48)] } } });
        let boot = json!({ "boot": { "bank": "sha256", "values": [
            { "measured": { "kind": "boot_application", "digest": digest("aa") }, "label": "the kernel" },
            { "measured": { "kind": "command_line", "text": "quiet" } },
            { "measured": { "kind": "firmware_version", "text": "1.2" } },
            { "measured": { "kind": "event", "pcr": 11, "digest": digest("ab") } },
        ] } });
        let text = format!("{}  /bin/a\n{}  /b\n", digest("ac"), digest("ad"));
        let frame = Blob::<TEXT>::new(pack(text.as_bytes()).expect("a frame")).expect("a frame");
        let digests = json!({ "digests": frame });
        let all = document(&[("a", several), ("b", one), ("c", boot), ("d", digests.clone())]);
        let bare = write(&all).expect("a CoRIM").corim;
        let from = (&all.trust_domain, NOW);
        let key = self.signers[0].id();
        let until = Some(Timestamp::from_millis(NOW.as_millis() + 1_000_000));
        let to_sign = ToSign::new(bare.clone(), SignatureAlgorithm::EdDsa, key, from, until);
        let signed = to_sign.signed(self.pair.sign(&to_sign.bytes()).as_ref());
        vec![bare, signed, write(&document(&[("d", digests)])).expect("a CoRIM").corim]
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        let signed = Importable::corim(input, Some(&self.signers), None, NOW);
        let taken = Importable::corim(input, None, None, NOW);
        match taken.map(Importable::into_contents) {
            Ok(contents) => {
                let longer = Importable::corim(&with_trailing_byte(input), None, None, NOW);
                assert_eq!(longer.map(drop).map_err(|error| error.code()), Err("import_corim_encoding"));
                let class = format!(
                    "{} sets, signed {}",
                    contents.sets.len(),
                    signed.map(drop).map_err(|error| error.code()).err().unwrap_or_default()
                );
                again(&contents);
                Outcome { accepted: true, class }
            }
            Err(error) => {
                assert!(signed.is_err(), "whoever signed it");
                // Without places and numbers, which are of each input.
                let words = error.to_string();
                let class = words.split('`').next().unwrap_or_default();
                let class: String = class.chars().filter(|c| !c.is_ascii_digit()).collect();
                Outcome { accepted: false, class }
            }
        }
    }

    fn mutate(&self, pool: &Pool, random: &mut Random) -> Vec<u8> {
        mutate(pool, LIMIT, random)
    }
}

/// What was taken, as a CoRIM of our own, has the same values.
fn again(contents: &Contents) {
    let mut written = document(&[]);
    for set in &contents.sets {
        let provenance = Provenance { author: String::new(), reason: String::new(), created_at: NOW };
        let Versioned { name, version } = set.id.clone();
        written.sets.push(ExportedSet { name, version, provenance, values: set.values.clone() });
    }
    let corim = write(&written).expect("what was taken can be written").corim;
    let read = Importable::corim(&corim, None, None, NOW).expect("what was written is taken").into_contents();
    assert_eq!(read.sets.len(), contents.sets.len());
    for (one, other) in read.sets.iter().zip(&contents.sets) {
        assert_eq!((&one.id, values(&one.values)), (&other.id, values(&other.values)));
    }
}

fn values(values: &ExportedValues) -> Value {
    match values {
        ExportedValues::Digests(frame) => {
            let text = unpack(frame.as_bytes(), TEXT).expect("a frame");
            let SetContent::Digests(set, _) = SetContent::digests(text).expect("digests") else {
                unreachable!("digests are digests")
            };
            json!(set.id())
        }
        other => serde_json::to_value(other).expect("values"),
    }
}
