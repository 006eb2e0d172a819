//! One good evidence message, and every message that differs from it by one bit or ends before it: none is accepted, and
//! nothing panics. Exhaustive, not sampled.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::{Digest, hash};
use rootbound_common::id::NodeId;
use rootbound_common::nonce::Nonce;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrValues};
use rootbound_common::wire::v1::{ChallengeToken, CredentialPolicy, EvidenceRequest};
use rootbound_swtpm_tests::challenges::ChallengeDesk;
use rootbound_swtpm_tests::exchange::pcrs;
use rootbound_swtpm_tests::software_tpm::{SoftwareKey, SoftwareTpm};
use rootbound_verifier::challenge::{ChallengeError, FreshChallenge, Terms, UnspentChallenge};
use rootbound_verifier::credential::request::{BoundKey, Demand, ParsedRequest, RequestError};
use rootbound_verifier::enrollment::AttestationKey;
use rootbound_verifier::evidence::{Authenticated, EvidenceError, Unproven, authenticate};

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const LIFETIME: Duration = Duration::from_secs(30);
/// Challenges that are spent together.
const AT_ONCE: usize = 512;

/// A machine that has booted, and the verifier that knows it.
struct Scene {
    tpm: SoftwareTpm,
    ak: AttestationKey,
    credential_key: SoftwareKey,
    terms: Terms,
    desk: ChallengeDesk,
    /// The nonce of the one challenge whose certificate request goes with every message.
    nonce: Nonce,
    token: Vec<u8>,
    request: Vec<u8>,
}

impl Scene {
    fn new(mut tpm: SoftwareTpm) -> Self {
        for index in pcrs([0, 4, 7, 10]).iter() {
            tpm.extend(index, hash(SHA256, &[b"event", &[index.get()]]));
        }
        let policy = CredentialPolicy { bank: SHA256, pcrs: pcrs([0, 2, 4, 7]) };
        let terms = Terms {
            node: NodeId::of_endorsement_key(&tpm.endorsement_key.subject_public_key_info()),
            selection: PcrSelection::of_bank(SHA256, pcrs(0..11)),
            credential_policy: policy,
            issued_at: NOW,
            expires_at: NOW.plus(LIFETIME),
        };
        let desk = ChallengeDesk::new();
        let minted = desk.mint(&terms);
        let credential_key = tpm.credential_key(&policy.selection());
        Self {
            ak: AttestationKey::parse(&tpm.attestation_key.public_area()).unwrap(),
            request: tpm.certificate_request(&credential_key, &minted.nonce),
            nonce: minted.nonce,
            token: minted.token,
            credential_key,
            terms,
            desk,
            tpm,
        }
    }

    /// A good message for a nonce.
    fn message(&self, nonce: &Nonce) -> EvidenceRequest {
        let token = ChallengeToken::new(self.token.clone()).unwrap();
        self.tpm.evidence(token, nonce, &self.terms.selection, Some(self.request.clone()))
    }

    fn authenticate(
        &self,
        challenge: FreshChallenge,
        message: Parts,
    ) -> Result<Authenticated, EvidenceError> {
        let unproven = Unproven {
            quote: &message.quote,
            signature: &message.signature,
            pcrs: message.pcrs,
            certificate_request: Some(&message.request),
        };
        authenticate(challenge, unproven, self.terms.node, &self.ak, None, NOW, LIFETIME)
    }

    fn judge_request(&self, request: &[u8]) -> Result<BoundKey, RequestError> {
        let demand = Demand {
            attestation_key: self.ak.verifying_key(),
            qualified_signer: &self.tpm.qualified_signer(),
            nonce: &self.nonce,
            policy: self.terms.credential_policy,
            pcrs: &self.tpm.values(&self.terms.selection),
        };
        ParsedRequest::parse(request)?.verify(&demand)
    }

    /// So many challenges, each with a good answer, and each answer changed: by its number, from 0.
    fn refused(&self, count: usize, what: &str, mut change: impl FnMut(usize, &mut Parts)) {
        let mut number = 0;
        while number < count {
            for challenge in self.desk.fresh(&self.terms, AT_ONCE.min(count - number)) {
                let mut parts = Parts::from(self.message(challenge.nonce()));
                change(number, &mut parts);
                assert!(self.authenticate(challenge, parts).is_err(), "{what} {number} is accepted");
                number += 1;
            }
        }
    }
}

/// A message, every part of it open.
#[derive(Clone)]
struct Parts {
    quote: Vec<u8>,
    signature: Vec<u8>,
    pcrs: PcrValues,
    request: Vec<u8>,
}

impl From<EvidenceRequest> for Parts {
    fn from(message: EvidenceRequest) -> Self {
        Self {
            quote: message.quote.into_bytes(),
            signature: message.signature.into_bytes(),
            pcrs: message.pcrs,
            request: message.certificate_request.unwrap().into_bytes(),
        }
    }
}

/// Bytes with one bit flipped (numbers below eight times the length), or cut (the next, by rising length), or with a byte
/// after them (the last number).
fn change(bytes: &mut Vec<u8>, number: usize) {
    let bits = 8 * bytes.len();
    match number.checked_sub(bits) {
        None => bytes[number / 8] ^= 1 << (number % 8),
        Some(length) if length < bytes.len() => bytes.truncate(length),
        Some(_) => bytes.push(0),
    }
}

/// How many numbers [`change`] knows for bytes of this length.
const fn changes(length: usize) -> usize {
    9 * length + 1
}

fn both_kinds_of_key() -> [Scene; 2] {
    [SoftwareTpm::new(), SoftwareTpm::with_rsa()].map(Scene::new)
}

#[test]
fn good_message_is_accepted() {
    for scene in both_kinds_of_key() {
        for challenge in scene.desk.fresh(&scene.terms, 3) {
            let parts = Parts::from(scene.message(challenge.nonce()));
            let authenticated = scene.authenticate(challenge, parts).unwrap();
            assert_eq!(authenticated.observed().pcrs(), &scene.tpm.values(&scene.terms.selection));
        }
        let bound = scene.judge_request(&scene.request).unwrap();
        assert_eq!(bound.name(), scene.credential_key.name());
    }
}

#[test]
fn changed_quotes_are_refused() {
    for scene in both_kinds_of_key() {
        let length = Parts::from(scene.message(&scene.nonce)).quote.len();
        scene.refused(changes(length), "quote", |number, parts| change(&mut parts.quote, number));
    }
}

#[test]
fn changed_signatures_are_refused() {
    for scene in both_kinds_of_key() {
        let length = Parts::from(scene.message(&scene.nonce)).signature.len();
        scene.refused(changes(length), "signature", |number, parts| change(&mut parts.signature, number));
    }
}

#[test]
fn changed_values_are_refused() {
    let scene = Scene::new(SoftwareTpm::new());
    let (quoted, bits) = (11, 8 * SHA256.size());
    scene.refused(quoted * bits, "value", |number, parts| {
        let index = PcrIndex::new(u8::try_from(number / bits).unwrap()).unwrap();
        let mut value = parts.pcrs.get(SHA256, index).unwrap().as_bytes().to_vec();
        value[number % bits / 8] ^= 1 << (number % 8);
        parts.pcrs.insert(index, Digest::from_slice(SHA256, &value).unwrap());
    });
    scene.refused(quoted, "a value left out", |number, parts| {
        let mut kept = PcrValues::default();
        for (_, index, value) in parts.pcrs.iter().filter(|(_, index, _)| usize::from(index.get()) != number)
        {
            kept.insert(index, *value);
        }
        parts.pcrs = kept;
    });
    scene.refused(24 - quoted, "a value too many", |number, parts| {
        let index = PcrIndex::new(u8::try_from(quoted + number).unwrap()).unwrap();
        parts.pcrs.insert(index, Digest::zero(SHA256));
    });
}

/// The quote's extraData covers the request.
#[test]
fn changed_requests_break_the_quote() {
    let scene = Scene::new(SoftwareTpm::new());
    scene
        .refused(changes(scene.request.len()), "request", |number, parts| change(&mut parts.request, number));
}

/// Whoever has the machine's software in hand binds whatever request they like: then the request stands alone.
#[test]
fn changed_requests_are_refused_even_where_the_quote_binds_them() {
    for scene in both_kinds_of_key() {
        for number in 0..changes(scene.request.len()) {
            let mut request = scene.request.clone();
            change(&mut request, number);
            let judged = scene.judge_request(&request);
            assert!(judged.is_err(), "request {number} of {} bytes is accepted", scene.request.len());
        }
    }
}

#[test]
fn quotes_over_a_changed_nonce_are_refused() {
    let scene = Scene::new(SoftwareTpm::new());
    for (number, challenge) in scene.desk.fresh(&scene.terms, 256).into_iter().enumerate() {
        let mut nonce = *challenge.nonce().as_bytes();
        nonce[number / 8] ^= 1 << (number % 8);
        let parts = Parts::from(scene.message(&Nonce::from_bytes(nonce)));
        let judged = scene.authenticate(challenge, parts);
        assert_eq!(judged.unwrap_err(), EvidenceError::ExtraData, "bit {number}");
    }
}

#[test]
fn changed_tokens_are_refused() {
    let scene = Scene::new(SoftwareTpm::new());
    for number in 0..changes(scene.token.len()) {
        let mut token = scene.token.clone();
        change(&mut token, number);
        let opened = UnspentChallenge::open(scene.desk.key(), &token, NOW);
        assert_eq!(opened.unwrap_err(), ChallengeError::NotOurs, "number {number}");
    }
}

/// The body as it comes over the wire. What still parses is another message, and is refused as such.
#[test]
fn changed_bodies_are_refused() {
    let scene = Scene::new(SoftwareTpm::new());
    let body = |nonce: &Nonce| serde_json::to_vec(&scene.message(nonce)).unwrap();
    let good = body(&scene.nonce);
    let parse = |body: &[u8]| serde_json::from_slice::<EvidenceRequest>(body);
    let parsing: Vec<usize> = (0..changes(good.len()))
        .filter(|number| {
            let mut changed = good.clone();
            change(&mut changed, *number);
            parse(&changed).is_ok()
        })
        .collect();
    assert!(parsing.last().is_some_and(|last| *last < 8 * good.len()), "a body that was cut parses");
    let mut number = 0;
    while number < parsing.len() {
        for challenge in scene.desk.fresh(&scene.terms, AT_ONCE.min(parsing.len() - number)) {
            let mut changed = body(challenge.nonce());
            assert_eq!(changed.len(), good.len(), "messages of this key are alike but for their bytes");
            change(&mut changed, parsing[number]);
            number += 1;
            let Ok(message) = parse(&changed) else { continue };
            if message.challenge.as_bytes() != scene.token {
                let opened = UnspentChallenge::open(scene.desk.key(), message.challenge.as_bytes(), NOW);
                assert_eq!(opened.unwrap_err(), ChallengeError::NotOurs);
                continue;
            }
            assert!(message.certificate_request.is_some(), "no single bit leaves the request out");
            let judged = scene.authenticate(challenge, Parts::from(message));
            assert!(judged.is_err(), "a body with bit {} flipped is accepted", parsing[number - 1]);
        }
    }
}

#[test]
fn good_answer_is_worth_nothing_for_another_node() {
    let scene = Scene::new(SoftwareTpm::new());
    let mut challenges = scene.desk.fresh(&scene.terms, 2);
    let (challenge, other) = (challenges.remove(0), challenges.remove(0));
    let parts = Parts::from(scene.message(challenge.nonce()));
    scene.authenticate(challenge, parts).expect("a good answer");
    let parts = Parts::from(scene.message(other.nonce()));
    let unproven = Unproven {
        quote: &parts.quote,
        signature: &parts.signature,
        pcrs: parts.pcrs,
        certificate_request: Some(&parts.request),
    };
    let somebody = NodeId::of_endorsement_key(b"somebody else's EK");
    let refused = authenticate(other, unproven, somebody, &scene.ak, None, NOW, LIFETIME).unwrap_err();
    assert_eq!(refused, EvidenceError::OtherNode);
}
