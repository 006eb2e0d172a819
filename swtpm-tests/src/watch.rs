//! What an attack must leave behind: a refusal with a code, that refusal on record, and nothing else.

use std::fmt::{Debug, Display};

use rootbound_attester::client::RequestError;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_common::wire::v1::{CredentialOutcome, EvidenceResponse, PostureStatus};
use rootbound_verifier::enrollment::EndorsedKey;
use rootbound_verifier::evidence::StoredQuote;
use rootbound_verifier::node::{Labels, LastSeen, Standing};
use rootbound_verifier::posture::{LiveCredential, Posture};
use rootbound_verifier::store::{DecisionKind, DecisionRecord};

use crate::https::Https;
use crate::software_tpm::SoftwareTpm;
use crate::world::{Simulated, World, refused};

/// Eyes on one node, attacked or a bystander: how the verifier has it, in memory and in its store.
pub struct Watch<'w> {
    world: &'w World,
    node: NodeId,
    trust: Trust,
    latest: Option<DecisionRecord>,
}

/// Everything that the verifier's trust in a node hangs on.
#[derive(Debug, Clone, PartialEq)]
struct Trust {
    posture: Option<Posture>,
    credentials: Vec<LiveCredential>,
    revision: u64,
    standing: Standing,
    labels: Labels,
    endorsed_key: EndorsedKey,
    attestation_key: String,
    last_seen: Option<LastSeen>,
    quote: Option<StoredQuote>,
    certificates: usize,
}

impl Trust {
    async fn of(world: &World, node: NodeId) -> Self {
        let store = world.verifier.store();
        let record = store.node(node).await.expect("the store").expect("an enrolled node");
        let live = world.verifier.fleet().node(node).expect("an enrolled node");
        assert_eq!((live.revision, live.standing), (record.revision, record.standing), "memory and store");
        assert_eq!(live.attestation_key, record.attestation_key.name(), "memory and store");
        Self {
            posture: live.posture.clone(),
            credentials: live.credentials.clone(),
            revision: record.revision,
            standing: record.standing,
            labels: record.labels,
            endorsed_key: record.endorsed_key,
            attestation_key: record.attestation_key.name().to_string(),
            last_seen: record.last_seen,
            quote: store.last_quote(node).await.expect("the store"),
            certificates: store.certificates(node, 10_000).await.expect("the store").len(),
        }
    }
}

impl<'w> Watch<'w> {
    /// Watches from now on.
    ///
    /// # Panics
    /// Where the node is not enrolled.
    pub async fn on(world: &'w World, node: NodeId) -> Self {
        let trust = Trust::of(world, node).await;
        let latest = decisions(world, Some(node), 1).await.pop();
        Self { world, node, trust, latest }
    }

    /// The attempt was refused with this code; this node's next decision on record is that refusal; whatever the
    /// verifier's trust in it hangs on is as before.
    ///
    /// # Panics
    /// Where any of that is not so.
    pub async fn refused<T: Debug>(
        &mut self,
        case: impl Display,
        outcome: Result<T, RequestError>,
        code: &str,
    ) {
        self.code(&case, &refused(outcome), code).await;
    }

    /// The same for a code that came by another way than the attester's client.
    ///
    /// # Panics
    /// Where it was another, or something besides the refusal was left behind.
    pub async fn code(&mut self, case: impl Display, found: &str, expected: &str) {
        assert_eq!(found, expected, "{case}");
        let mut two = decisions(self.world, Some(self.node), 2).await.into_iter();
        let refusal = two.next().expect("a decision");
        let on_record = (refusal.kind, refusal.granted, refusal.code.as_str(), refusal.node);
        assert_eq!(on_record, (DecisionKind::Attest, false, expected, Some(self.node)), "{case}: the record");
        assert_eq!(two.next(), self.latest, "{case}: one decision, no more");
        self.latest = Some(refusal);
        self.same_trust(&case).await;
    }

    /// The attempt was refused with this code before it was clear whose it was: that is on record under no node's name,
    /// and this node's records are as before.
    ///
    /// # Panics
    /// Where any of that is not so.
    pub async fn refused_unnamed<T: Debug>(
        &mut self,
        case: impl Display,
        outcome: Result<T, RequestError>,
        code: &str,
    ) {
        assert_eq!(refused(outcome), code, "{case}");
        let last = decisions(self.world, None, 1).await.pop().expect("a decision");
        assert_eq!((last.granted, last.code.as_str(), last.node), (false, code, None), "{case}: the record");
        self.untouched(case).await;
    }

    /// Somebody's attempt was refused with this code; that one decision, and no other, is on record since, whoever's it
    /// is; and this node is as before. Gives the decision.
    ///
    /// # Panics
    /// Where any of that is not so.
    pub async fn refuses(
        &mut self,
        case: impl Display,
        expected: &str,
        attempt: impl Future<Output = String>,
    ) -> DecisionRecord {
        let before = decisions(self.world, None, 1).await.pop();
        assert_eq!(attempt.await, expected, "{case}");
        let mut two = decisions(self.world, None, 2).await.into_iter();
        let refusal = two.next().expect("a decision");
        assert_eq!((refusal.granted, refusal.code.as_str()), (false, expected), "{case}: the record");
        assert_eq!(two.next(), before, "{case}: one decision, no more");
        if refusal.node == Some(self.node) {
            self.latest = Some(refusal.clone());
        }
        self.untouched(case).await;
        refusal
    }

    /// Somebody's attempt was turned away with this code, before there was anything to decide: it left nothing behind,
    /// and this node is as before.
    ///
    /// # Panics
    /// Where any of that is not so.
    pub async fn turns_away(
        &self,
        case: impl Display,
        expected: &str,
        attempt: impl Future<Output = String>,
    ) {
        let before = decisions(self.world, None, 1).await;
        assert_eq!(attempt.await, expected, "{case}");
        assert_eq!(decisions(self.world, None, 1).await, before, "{case}: no decision");
        self.untouched(case).await;
    }

    /// Nothing was recorded about this node, and nothing changed.
    ///
    /// # Panics
    /// Where something did.
    pub async fn untouched(&self, case: impl Display) {
        let latest = decisions(self.world, Some(self.node), 1).await.pop();
        assert_eq!(latest, self.latest, "{case}: no decision");
        self.same_trust(&case).await;
    }

    async fn same_trust(&self, case: &impl Display) {
        assert_eq!(Trust::of(self.world, self.node).await, self.trust, "{case}");
    }
}

async fn decisions(world: &World, node: Option<NodeId>, limit: u32) -> Vec<DecisionRecord> {
    world.verifier.store().decisions(node, limit).await.expect("the store")
}

/// A node that has nothing to do with an attack, holds a credential, and has to stay well.
pub struct Bystander {
    node: Simulated,
    identity: Https,
}

impl Bystander {
    /// Its id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node.node
    }

    /// Watches it from now on.
    pub async fn watch<'w>(&self, world: &'w World) -> Watch<'w> {
        Watch::on(world, self.node.node).await
    }

    /// A node that shows what the boot of seed 0 measures; that is what the fleet's reference values are from now on.
    ///
    /// # Panics
    /// Where it gets no credential.
    pub async fn new(world: &World) -> Self {
        let node = world.affirming_simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await;
        let challenge = node.challenge().await.expect("a challenge");
        let (evidence, key) = node.answer_with_request(&challenge);
        let answer = node.submit(evidence).await.expect("evidence");
        let identity = Https::to(&node.client).as_simulated(&issued(answer), key);
        Self { node, identity }
    }

    /// It is affirming, the verifier says so to its certificate, and it attests.
    ///
    /// # Panics
    /// Where any of that is not so.
    pub async fn is_well(&self, world: &World) {
        // Whatever a test of some minutes did: it is not what it showed before that counts.
        assert_ne!(world.status(self.node.node), PostureStatus::Contraindicated);
        let challenge = self.node.challenge().await.expect("a challenge");
        let answer = self.node.submit(self.node.answer(&challenge)).await.expect("evidence");
        assert_eq!(answer.posture.status, PostureStatus::Affirming);
        assert_eq!(world.status(self.node.node), PostureStatus::Affirming);
        let reply = self.identity.get("/v1/whoami").await;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    }
}

/// The certificate chain of an answer.
///
/// # Panics
/// Where no credential was issued.
#[must_use]
pub fn issued(answer: EvidenceResponse) -> String {
    match answer.credential {
        Some(CredentialOutcome::Issued { certificate_chain, .. }) => certificate_chain,
        other => panic!("no credential: {other:?}"),
    }
}
