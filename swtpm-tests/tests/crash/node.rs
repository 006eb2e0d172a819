//! A node of software keys that lives through outages of the verifier, and writes down what it was told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use der::Decode;
use rootbound_common::crypto::hash;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_common::wire::v1::{
    Admission, Challenge, ChallengeRequest, CredentialOutcome, EvidenceRequest, EvidenceResponse,
    PostureStatus,
};
use rootbound_swtpm_tests::random::Random;
use rootbound_swtpm_tests::software_tpm::{SoftwareKey, SoftwareTpm, Template};
use rootbound_swtpm_tests::world::Simulated;
use rootbound_verifier::http::admin::message::{Command, Reply, Words};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::site::{Heard, Patience, Site};

/// The key that mints challenges is drawn anew at each start: one of before a kill is worth nothing after it.
const OF_ANOTHER_START: &str = "challenge_invalid";

/// What becomes of evidence that is sent again, perhaps after a long outage.
const ANSWERED_AGAIN: [&str; 3] = ["challenge_spent", "challenge_expired", "evidence_too_old"];

/// Half of what a challenge lives where evidence is asked for each second.
const STALE: Duration = Duration::from_secs(15);

/// A node, and those who operate it.
pub(crate) struct Node {
    site: Arc<Site>,
    simulated: Simulated,
    next: Option<(Challenge, Instant)>,
    random: Random,
}

/// A machine that has booted what all simulated machines boot.
pub(crate) fn booted() -> SoftwareTpm {
    let mut tpm = SoftwareTpm::new();
    let boot_loader = PcrIndex::new(4).unwrap();
    tpm.extend(boot_loader, hash(HashAlgorithm::Sha256, &[b"a boot loader"]));
    tpm
}

impl Node {
    /// A new machine: an operator lists it, it enrols.
    pub(crate) async fn join(site: &Arc<Site>, random: Random) -> Self {
        let tpm = booted();
        let node = NodeId::of_endorsement_key(&tpm.endorsement_key.subject_public_key_info());
        let simulated = Simulated { node, tpm, client: site.verifier.client() };
        let mut node = Self { site: Arc::clone(site), simulated, next: None, random };
        node.list().await;
        node.enroll().await;
        node
    }

    /// Does what nodes and their operators do, mostly attest.
    pub(crate) async fn act(&mut self) {
        match self.random.below(24) {
            0 => self.retire_and_take_back().await,
            1 => self.write_a_reference_set().await,
            2 => self.enroll().await,
            3 => {
                self.simulated.tpm.attestation_key = SoftwareKey::p256(Template::attestation_p256());
                self.enroll().await;
            }
            _ => drop(self.attest().await),
        }
    }

    /// Attests until that is accepted.
    pub(crate) async fn settle(&mut self) {
        while !self.attest().await {}
    }

    async fn list(&self) {
        let node = self.simulated.node;
        let labels = Default::default();
        let verb = Command::InventoryAdd { node, waive_endorsement: true, labels, reason: Words::default() };
        self.site.operate(verb).await.expect("whoever lists a machine may list it again");
        self.site.ledger.lock().await.node(node).listed = true;
    }

    async fn enroll(&mut self) {
        let enrolled = self.site.insist(async || self.simulated.enroll().await.into()).await;
        let enrolled = enrolled.expect("a machine that is listed");
        assert_eq!(enrolled.admission, Admission::Admitted);
        self.next = enrolled.challenge.map(|challenge| (challenge, Instant::now()));
        self.site.ledger.lock().await.node(self.simulated.node).admitted = Some(true);
    }

    async fn retire_and_take_back(&mut self) {
        let (node, reason) = (self.simulated.node, Words::default());
        self.site.ledger.lock().await.node(node).admitted = None;
        self.change(Command::NodeRetire { node, reason: reason.clone() }).await;
        self.site.ledger.lock().await.node(node).admitted = Some(false);
        let refused = self.challenge().await.expect_err("a challenge for a retired node");
        assert_eq!(refused, "node_retired");

        let mut ledger = self.site.ledger.lock().await;
        (ledger.node(node).admitted, ledger.node(node).clock) = (None, 0);
        drop(ledger);
        self.change(Command::NodeApprove { node, reason }).await;
        self.site.ledger.lock().await.node(node).admitted = Some(true);
        self.next = None;
    }

    /// A change that may have been made already, when nobody heard of it.
    async fn change(&self, verb: Command) {
        let changed = self.site.operate(verb).await.map(drop);
        assert!(
            changed.as_ref().is_ok_and(|()| true) || changed == Err("nothing_to_do".to_owned()),
            "{changed:?}"
        );
    }

    async fn write_a_reference_set(&self) {
        let values = &self.simulated.tpm.pcrs;
        let accepted = rootbound_verifier::reference::AcceptedPcrs::captured(values).unwrap();
        let verb =
            Command::ReferenceSet { name: "other".parse().unwrap(), accepted, reason: Words::default() };
        let Ok(Reply::Written(written)) = self.site.operate(verb).await else { panic!("not written") };
        let mut ledger = self.site.ledger.lock().await;
        // Others write too, and are heard in another order.
        ledger.reference_version = ledger.reference_version.max(written.version);
    }

    async fn challenge(&self) -> Result<Challenge, String> {
        let request = ChallengeRequest { node: self.simulated.node };
        self.site.insist(async || self.simulated.client.challenge(&request).await.into()).await
    }

    /// Answers a challenge, once or more often; says whether the answer was accepted.
    async fn attest(&mut self) -> bool {
        let held = self.next.take().filter(|(_, since)| since.elapsed() < STALE);
        let challenge = match held {
            Some((challenge, _)) => challenge,
            None => self.challenge().await.expect("a challenge for an admitted node"),
        };
        self.simulated.tpm.clock.clock += 1;
        let evidence = if self.random.one_in(3) {
            self.simulated.answer_with_request(&challenge).0
        } else {
            self.simulated.answer(&challenge)
        };
        self.site.ledger.lock().await.node(self.simulated.node).answered += 1;
        let accepted = self.submit_until_heard(&evidence).await;
        if self.random.one_in(4) {
            let again = self.site.insist(async || self.submit(&evidence).await).await;
            let code = again.expect_err("a challenge that was spent");
            assert!(ANSWERED_AGAIN.contains(&code.as_str()) || code == OF_ANOTHER_START, "{code}");
        }
        accepted
    }

    /// Submits evidence until an answer comes, now and then twice at once. At most one of the answers may be yes.
    async fn submit_until_heard(&mut self, evidence: &EvidenceRequest) -> bool {
        let mut accepted = 0;
        let mut repeated = self.random.one_in(5);
        let mut patience = Patience::default();
        loop {
            let starts = self.site.begin_request();
            let answers = if repeated {
                let (one, other) = tokio::join!(self.submit(evidence), self.submit(evidence));
                vec![one, other]
            } else {
                vec![self.submit(evidence).await]
            };
            let (mut unheard, mut busy) = (false, false);
            for answer in answers {
                match answer {
                    Heard::Yes(response) => {
                        accepted += 1;
                        self.accept(evidence, response).await;
                    }
                    // Nobody holds it against the node that an operator has written a reference set just now.
                    Heard::No(code) if code == "node_changed" => {}
                    Heard::No(code) if code == OF_ANOTHER_START => {}
                    Heard::No(code) => assert!(repeated && ANSWERED_AGAIN.contains(&code.as_str()), "{code}"),
                    Heard::Later => busy = true,
                    Heard::Nothing => unheard = true,
                }
            }
            assert!(accepted <= 1, "a challenge was spent twice");
            match (unheard, busy) {
                (true, _) => self.site.outage(starts).await,
                (false, true) => patience.pause().await,
                (false, false) => return accepted == 1,
            }
            repeated = true;
        }
    }

    async fn submit(&self, evidence: &EvidenceRequest) -> Heard<EvidenceResponse> {
        self.simulated.submit(evidence.clone()).await.into()
    }

    async fn accept(&mut self, evidence: &EvidenceRequest, response: EvidenceResponse) {
        assert_eq!(response.posture.status, PostureStatus::Affirming, "{:?}", response.posture);
        let mut ledger = self.site.ledger.lock().await;
        let promises = ledger.node(self.simulated.node);
        promises.accepted += 1;
        promises.clock = self.simulated.tpm.clock.clock;
        assert_eq!(response.credential.is_some(), evidence.certificate_request.is_some());
        match response.credential {
            Some(CredentialOutcome::Issued { certificate_chain, .. }) => {
                promises.serials.push(serial_of(&certificate_chain));
            }
            // Those that were issued and not heard of count, too.
            Some(CredentialOutcome::Refused { code, .. }) if code == "too_many_credentials" => {}
            Some(CredentialOutcome::Refused { code, detail }) => panic!("{code}: {detail}"),
            None => {}
        }
        drop(ledger);
        self.next = Some((response.next, Instant::now()));
    }
}

/// The serial number of the first certificate, as the verifier writes it.
pub(crate) fn serial_of(chain: &str) -> String {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).expect("a certificate");
    let leaf = x509_cert::Certificate::from_der(&leaf).expect("a certificate");
    HEXLOWER.encode(leaf.tbs_certificate().serial_number().as_bytes())
}
