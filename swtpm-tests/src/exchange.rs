//! A node in the middle of an exchange: it has a challenge, and its quote counts as authenticated.

use std::sync::OnceLock;
use std::time::Duration;

use rootbound_common::attestation_attribute::CertifyStatement;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::{VerifyingKey, hash};
use rootbound_common::id::NodeId;
use rootbound_common::nonce::Nonce;
use rootbound_common::tpm::{HashAlgorithm, Name, PcrIndex, PcrSelection, PcrSet, PcrValues};
use rootbound_common::wire::v1::CredentialPolicy;
use rootbound_common::wire::v1::PostureStatus;
use rootbound_verifier::appraisal::logs::Logs;
use rootbound_verifier::appraisal::{Appraisal, appraise};
use rootbound_verifier::credential::request::{BoundKey, Demand, ParsedRequest, RequestError};
use rootbound_verifier::enrollment::AttestationKey;
use rootbound_verifier::evidence::{StoredQuote, restore};
use rootbound_verifier::node::{AdmittedBy, EndorsedBy, Labels, Name as SetName, Standing};
use rootbound_verifier::policy::{
    Attested, Bundle, CredentialKind, Denied, Grant, Permit, Question, SubjectFacts, decide_issue,
};
use rootbound_verifier::posture::{LiveNode, Posture};
use rootbound_verifier::reference::{
    AcceptedPcrs, Profile, ProfileBody, Provenance, ReferenceBook, ReferenceSet, Versioned,
};

use crate::certificate_request::RequestParts;
use crate::software_tpm::{Signed, SoftwareKey, SoftwareTpm, Statement, Template};

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

const ADMITTED: Standing = Standing::Admitted { by: AdmittedBy::Approval };

/// What the built-in policies say to a credential for a node that stands as an appraisal says.
///
/// # Errors
/// Where they deny it.
///
/// # Panics
/// Where the built-in policies do not compile.
pub fn permit(appraisal: &Appraisal, node: NodeId, now: Timestamp) -> Result<Permit, Denied> {
    static POLICIES: OnceLock<Bundle> = OnceLock::new();
    let live = LiveNode {
        revision: 1,
        epoch: 1,
        holds: Vec::new(),
        attested_after: None,
        standing: ADMITTED,
        labels: Labels::default(),
        attestation_key: Name::of_public_area(SHA256, b"AK"),
        endorsed_by: EndorsedBy::Manufacturer,
        posture: Some(Posture::of(appraisal)),
        credentials: Vec::new(),
    };
    let policies = POLICIES.get_or_init(|| Bundle::builtin().expect("policies"));
    let question = Question::issue_credential(node, CredentialKind::X509Svid);
    policies.decide(&question, &SubjectFacts::Node(Attested::of(node, &live, now))).into_permit()
}

/// A set of PCRs by their numbers.
///
/// # Panics
/// Where a number is not below 24.
pub fn pcrs(indices: impl IntoIterator<Item = u8>) -> PcrSet {
    indices.into_iter().map(|index| PcrIndex::new(index).expect("a PCR number")).collect()
}

/// What both sides of an exchange know when a certificate request is judged.
#[derive(Debug)]
pub struct Exchange {
    /// The node's TPM.
    pub tpm: SoftwareTpm,
    /// Its AK, as enrolled.
    pub attestation_key: VerifyingKey,
    /// The quote's signer.
    pub qualified_signer: Name,
    /// The challenge's nonce.
    pub nonce: Nonce,
    /// The policy that the challenge demands: PCRs 0, 2, 4 and 7.
    pub policy: CredentialPolicy,
    /// PCRs 0 to 14, as quoted.
    pub quoted: PcrValues,
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}

impl Exchange {
    /// An exchange with a P-256 TPM.
    #[must_use]
    pub fn new() -> Self {
        Self::of(SoftwareTpm::new())
    }

    /// An exchange with a TPM, on whose machine something has booted.
    #[must_use]
    pub fn of(mut tpm: SoftwareTpm) -> Self {
        for index in pcrs([0, 4, 7, 10, 14]).iter() {
            tpm.extend(index, hash(SHA256, &[b"event", &[index.get()]]));
        }
        Self {
            attestation_key: VerifyingKey::of_public_area(&tpm.attestation_key.public())
                .expect("a usable AK"),
            qualified_signer: tpm.qualified_signer(),
            nonce: Nonce::from_bytes([7; 32]),
            policy: CredentialPolicy { bank: SHA256, pcrs: pcrs([0, 2, 4, 7]) },
            quoted: tpm.values(&PcrSelection::of_bank(SHA256, pcrs(0..15))),
            tpm,
        }
    }

    /// The template of an honest credential key.
    #[must_use]
    pub fn template(&self) -> Template {
        Template::credential(self.tpm.policy(&self.policy.selection()).as_bytes())
    }

    /// An honest credential key.
    #[must_use]
    pub fn key(&self) -> SoftwareKey {
        SoftwareKey::p256(self.template())
    }

    /// What TPM2_Certify states of a key, for this challenge.
    #[must_use]
    pub fn statement(&self, key: &SoftwareKey) -> Statement {
        self.tpm.certify(key, CertifyStatement::extra_data(&self.nonce).as_bytes())
    }

    /// The same, signed by the AK.
    #[must_use]
    pub fn certify(&self, key: &SoftwareKey) -> Signed {
        self.statement(key).sign(&self.tpm.attestation_key)
    }

    /// What the verifier demands.
    #[must_use]
    pub fn demand(&self) -> Demand<'_> {
        Demand {
            attestation_key: &self.attestation_key,
            qualified_signer: &self.qualified_signer,
            nonce: &self.nonce,
            policy: self.policy,
            pcrs: &self.quoted,
        }
    }

    /// What becomes of a request.
    pub fn judge(&self, request: &[u8]) -> Result<BoundKey, RequestError> {
        ParsedRequest::parse(request)?.verify(&self.demand())
    }

    /// What becomes of an honest request for a key.
    pub fn ask_for(&self, key: &SoftwareKey) -> Result<BoundKey, RequestError> {
        self.judge(&RequestParts::honest(key, &self.certify(key)).sign(key))
    }

    /// A key that passed.
    ///
    /// # Panics
    /// Where it did not.
    #[must_use]
    pub fn bound_key(&self) -> BoundKey {
        self.ask_for(&self.key()).expect("an honest key")
    }

    /// Whose TPM it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId::of_endorsement_key(b"an EK")
    }

    /// The appraisal of the quote, by a profile whose only reference set accepts exactly what was quoted, or by an
    /// empty book.
    ///
    /// # Panics
    /// Where the quote does not verify.
    #[must_use]
    pub fn appraisal(&self, book: &ReferenceBook, evidence_at: Timestamp) -> Appraisal {
        let selection = PcrSelection::of_bank(SHA256, pcrs(0..15));
        let signed = self.tpm.quote(&selection, &[]).sign(&self.tpm.attestation_key);
        let stored = StoredQuote {
            quote: signed.attest,
            signature: signed.signature,
            pcrs: self.quoted.clone(),
            evidence_at,
        };
        let key = AttestationKey::parse(self.tpm.attestation_key.public().as_bytes()).expect("a usable AK");
        let observed = restore(stored, self.node(), &key).expect("an honest quote");
        appraise(&observed, &Logs::none(), &Labels::default(), book)
    }

    /// A book that accepts exactly what was quoted, with credentials of so long a life.
    ///
    /// # Panics
    /// Where no profile allows that lifetime.
    #[must_use]
    pub fn book(&self, lifetime: Duration) -> ReferenceBook {
        let id = || Versioned { name: SetName::default_set(), version: 1 };
        let provenance = || Provenance {
            author: "a test".to_owned(),
            reason: String::new(),
            created_at: Timestamp::from_millis(0),
        };
        let mut body = ProfileBody::initial(SetName::default_set());
        body.pcrs = PcrSelection::of_bank(SHA256, pcrs(0..15));
        body.credential_policy = self.policy;
        body.credential_lifetime = lifetime;
        let profile = Profile::new(id(), body, provenance()).expect("a profile");
        let accepted = AcceptedPcrs::captured(&self.quoted).expect("reference values");
        ReferenceBook::new(
            vec![profile],
            vec![ReferenceSet { id: id(), accepted, provenance: provenance() }],
            Vec::new(),
        )
        .expect("a book")
    }

    /// The grant of a credential with so long a life, decided on fresh evidence that its reference values explain.
    ///
    /// # Panics
    /// Where it is denied.
    #[must_use]
    pub fn grant(&self, now: Timestamp, lifetime: Duration) -> Grant {
        let appraisal = self.appraisal(&self.book(lifetime), now);
        let (permit, admitted) = (permit(&appraisal, appraisal.node(), now), ADMITTED);
        let status = PostureStatus::Affirming;
        decide_issue(&appraisal, admitted, status, 0, self.bound_key(), permit, now).expect("a grant")
    }
}
