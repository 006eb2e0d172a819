//! Quotes: authenticated, parsed, and checked again.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{
    Attest, Attested, HashAlgorithm, KeyParameters, PcrSelection, PcrValues, Public, Signature,
    SignatureValue,
};
use rootbound_common::wire::v1::{ChallengeToken, CredentialPolicy, EvidenceRequest};
use rootbound_swtpm_tests::challenges::ChallengeDesk;
use rootbound_swtpm_tests::exchange::pcrs;
use rootbound_swtpm_tests::measured::Row;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_verifier::challenge::{FreshChallenge, Terms};
use rootbound_verifier::enrollment::AttestationKey;
use rootbound_verifier::evidence::{StoredQuote, Unproven, authenticate, restore};
use rootbound_verifier::node::LastSeen;

use crate::paired::Bench;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// A machine in the steady state.
struct Node {
    tpm: SoftwareTpm,
    ak: AttestationKey,
    raw: ParsedPublicKey,
    terms: Terms,
    last: LastSeen,
}

/// What the raw operation works on.
struct Signed {
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Node {
    fn new(tpm: SoftwareTpm) -> Self {
        let ak = AttestationKey::parse(&tpm.attestation_key.public_area()).expect("an AK");
        let raw = match ak.public().parameters() {
            KeyParameters::Ecc { x, y, .. } => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [&[4][..], x, y].concat())
            }
            KeyParameters::Rsa { .. } => {
                let info = rootbound_common::crypto::subject_public_key_info(ak.public()).expect("a key");
                ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, info)
            }
        };
        let terms = Terms {
            node: NodeId::of_endorsement_key(b"an EK"),
            selection: PcrSelection::of_bank(HashAlgorithm::Sha256, pcrs(0..11)),
            credential_policy: CredentialPolicy { bank: HashAlgorithm::Sha256, pcrs: pcrs([0, 2, 4, 7]) },
            issued_at: NOW,
            expires_at: NOW.plus(MINUTE),
        };
        let last =
            LastSeen { clock: tpm.clock, firmware_version: tpm.firmware_version, made_at: NOW.minus(MINUTE) };
        Self { raw: raw.expect("a key"), ak, terms, last, tpm }
    }

    fn evidence(&self, challenge: &FreshChallenge) -> EvidenceRequest {
        self.tpm.evidence(ChallengeToken::empty(), challenge.nonce(), &self.terms.selection, None)
    }

    fn signed(evidence: &EvidenceRequest) -> Signed {
        let signature = Signature::parse(evidence.signature.as_bytes()).expect("a signature");
        let signature = match signature.value {
            SignatureValue::Ecdsa { r, s } => [r, s].concat(),
            SignatureValue::Rsa(value) => value.to_vec(),
        };
        Signed { message: evidence.quote.as_bytes().to_vec(), signature }
    }

    fn verify(&self, signed: &Signed) -> bool {
        self.raw.verify_sig(&signed.message, &signed.signature).is_ok()
    }
}

pub(crate) fn run(bench: &mut Bench<'_>) {
    let desk = ChallengeDesk::new();
    for (tpm, name, limit, target) in [
        (SoftwareTpm::new(), "authenticate, P-256, 11 PCRs", "raw P-256 verification", 1.08),
        (SoftwareTpm::with_rsa(), "authenticate, RSA-2048, 11 PCRs", "raw RSA-2048 verification", 1.20),
    ] {
        let node = Node::new(tpm);
        let row = authenticating(bench, &desk, &node, name, limit);
        publish(row.map(|row| row.ratio_at_most(target)));
    }
    parsing(bench, &desk);
    restoring(bench, &desk);
}

fn publish(row: Option<Row>) {
    row.iter().for_each(Row::publish);
}

fn authenticating(
    bench: &mut Bench<'_>,
    desk: &ChallengeDesk,
    node: &Node,
    name: &str,
    limit: &str,
) -> Option<Row> {
    bench.beside(
        name,
        limit,
        |count| {
            let answer = |challenge| {
                let evidence = node.evidence(&challenge);
                (Node::signed(&evidence), (challenge, evidence))
            };
            desk.fresh(&node.terms, count).into_iter().map(answer).collect()
        },
        |signed| assert!(node.verify(signed)),
        |(challenge, evidence)| {
            let unproven = Unproven {
                quote: evidence.quote.as_bytes(),
                signature: evidence.signature.as_bytes(),
                pcrs: evidence.pcrs,
                certificate_request: None,
            };
            authenticate(challenge, unproven, node.terms.node, &node.ak, Some(&node.last), NOW, MINUTE)
                .expect("good evidence")
        },
    )
}

fn parsing(bench: &mut Bench<'_>, desk: &ChallengeDesk) {
    let node = Node::new(SoftwareTpm::new());
    let evidence = node.evidence(&desk.fresh(&node.terms, 1)[0]);
    let area = node.ak.public().as_bytes();
    let (quote, signature) = (evidence.quote.as_bytes(), evidence.signature.as_bytes());
    let time = bench.time("parse public area, attest and signature", || {
        (
            Public::parse(area).expect("a key"),
            Attest::parse(quote).expect("a quote"),
            Signature::parse(signature),
        )
    });
    publish(time.map(|time| {
        Row::time("parse public area, attest and signature", time)
            .time_at_most(time, Duration::from_micros(1))
    }));
    publish(bench.alone("PCR digest, 11 SHA-256 values", || digest(quote, &evidence.pcrs)));
    let body = serde_json::to_vec(&evidence).expect("JSON");
    publish(bench.alone("parse the body of an evidence request", || {
        serde_json::from_slice::<EvidenceRequest>(&body).expect("evidence")
    }));
    publish(bench.alone("parse and check an AK", || AttestationKey::parse(area).expect("an AK")));
}

fn digest(quote: &[u8], values: &PcrValues) -> bool {
    let Ok(Attested::Quote { selection, pcr_digest }) = Attest::parse(quote).map(|attest| attest.attested)
    else {
        return false;
    };
    values.digest(&selection, HashAlgorithm::Sha256).is_ok_and(|digest| digest.as_bytes() == pcr_digest)
}

fn restoring(bench: &mut Bench<'_>, desk: &ChallengeDesk) {
    let node = Node::new(SoftwareTpm::new());
    let evidence = node.evidence(&desk.fresh(&node.terms, 1)[0]);
    let stored = StoredQuote {
        quote: evidence.quote.as_bytes().to_vec(),
        signature: evidence.signature.as_bytes().to_vec(),
        pcrs: evidence.pcrs.clone(),
        evidence_at: NOW,
    };
    publish(bench.beside(
        "restore a stored quote, P-256",
        "raw P-256 verification",
        |count| (0..count).map(|_| (Node::signed(&evidence), stored.clone())).collect(),
        |signed| assert!(node.verify(signed)),
        |stored| restore(stored, node.terms.node, &node.ak).expect("a good quote"),
    ));
}
