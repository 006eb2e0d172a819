//! What the verifier wishes of a node now, and who is listening.
//!
//! A wish is a state, not a message in a queue: it follows from how the node stands and from what an operator asked for since
//! the start, so that whoever reconnects hears what is current, and what is done is not wished any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{ControlState, PostureStatus};
use tokio::sync::Notify;

use super::Verifier;
use super::operate::{OperateError, Operator};
use crate::credential::presented::PresentedSvid;
use crate::credential::serial::SerialNumber;
use crate::hold::HoldKind;
use crate::node::Standing;
use crate::posture::{AdmissionError, IdentifiedNode, LiveNode};

/// Why nobody may listen, or listens no more. Each has a stable code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// The caller's certificate, or its node, is good for nothing any more.
    #[error(transparent)]
    Refused(#[from] AdmissionError),
    /// The node listens elsewhere: there is one stream for each.
    #[error("the node opened another control stream")]
    Replaced,
    /// The connection has had its time, or the verifier stops.
    #[error("the connection ends; open another")]
    Reconnect,
    /// As many listen as may.
    #[error("there are as many control streams as there may be; ask without one")]
    TooMany,
}

impl StreamEnd {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code(),
            Self::Replaced => "stream_replaced",
            Self::Reconnect => "stream_reconnect",
            Self::TooMany => "too_many_streams",
        }
    }
}

/// What an operator asked of a node. It is forgotten when it is done, or when the verifier stops.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Wishes {
    /// Evidence made after this time.
    attest: Option<Timestamp>,
    /// A credential beside these.
    renew: Option<Arc<[SerialNumber]>>,
}

/// Wishes and listeners of all nodes.
#[derive(Debug, Default)]
pub(super) struct Control(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    wishes: HashMap<NodeId, Wishes>,
    listeners: HashMap<NodeId, Listening>,
    opened: u64,
}

#[derive(Debug)]
struct Listening {
    number: u64,
    wake: Arc<Notify>,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever listens for a node.
    pub(super) fn wake(&self, node: NodeId) {
        if let Some(listening) = self.lock().listeners.get(&node) {
            listening.wake.notify_one();
        }
    }

    /// Evidence made at this time or before does not do, for the sake of what an operator asked.
    pub(super) fn asked_at(&self, node: NodeId) -> Option<Timestamp> {
        self.lock().wishes.get(&node)?.attest
    }

    /// Notes that evidence of now is wanted of a node. A wish that is not done stays as it is: evidence that does for that one
    /// does for this, and one that moved with each question would never be done.
    fn wish_evidence(&self, node: NodeId, now: Timestamp) {
        let mut inner = self.lock();
        inner.wishes.entry(node).or_default().attest.get_or_insert(now);
        if let Some(listening) = inner.listeners.get(&node) {
            listening.wake.notify_one();
        }
    }

    /// Notes what is asked of a node: evidence made after now, and perhaps a credential beside some; says whether it listens.
    fn wish(&self, node: NodeId, now: Timestamp, renew: Option<Arc<[SerialNumber]>>) -> bool {
        let mut inner = self.lock();
        let wishes = inner.wishes.entry(node).or_default();
        wishes.attest = Some(now);
        wishes.renew = renew.or_else(|| wishes.renew.take());
        inner.listeners.get(&node).map(|listening| listening.wake.notify_one()).is_some()
    }

    fn wishes(&self, node: NodeId) -> Wishes {
        self.lock().wishes.get(&node).cloned().unwrap_or_default()
    }

    /// Keeps only what is still to be done; a wish that came meanwhile stays.
    fn settle(&self, node: NodeId, seen: &Wishes, left: Wishes) {
        let mut inner = self.lock();
        if inner.wishes.get(&node) != Some(seen) {
            return;
        }
        if left == Wishes::default() {
            inner.wishes.remove(&node);
        } else {
            inner.wishes.insert(node, left);
        }
    }
}

/// What is wished of a node at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// For the wire.
    pub state: ControlState,
    /// Names the wish to attest: another is another wish.
    pub attest: Option<Timestamp>,
    /// When time alone may change it.
    pub until: Duration,
}

/// What is wished of a node, by how it stands and by what was asked; and which of the latter is not done.
fn wished(node: &LiveNode, certificate: &PresentedSvid, wishes: Wishes, now: Timestamp) -> (Present, Wishes) {
    let evidence_at = node.posture.as_ref().map(|posture| posture.evidence_at);
    let known = |known: &[SerialNumber]| node.credentials.iter().all(|one| known.contains(&one.serial));
    let left = Wishes {
        attest: wishes.attest.filter(|asked| evidence_at.is_none_or(|made| made <= *asked)),
        renew: wishes.renew.filter(|before| known(before)),
    };
    let demanded = left.attest.max(node.attested_after(now));
    let attest = match evidence_at {
        None => demanded.or(Some(Timestamp::from_millis(0))),
        Some(made) if demanded >= Some(made) => demanded,
        Some(made) => (node.status(now) == PostureStatus::Stale).then_some(made),
    };
    let mut blocked = Vec::new();
    for (kind, code) in [(HoldKind::Block, "node_blocked"), (HoldKind::Lower, "posture_warning")] {
        if node.holds_in_force(now).any(|hold| hold.kind == kind) {
            blocked.push(code.to_owned());
        }
    }
    // At each of these times what is read a moment later may be something else.
    let moment = Duration::from_millis(1);
    let stale = node.posture.as_ref().map(|posture| posture.evidence_at.plus(posture.fresh_for));
    let ends = node.holds.iter().filter_map(|hold| hold.expires_at).chain(stale);
    let next = ends.filter(|end| *end >= now).fold(certificate.not_after, Timestamp::min);
    let until = next.since(now) + moment;
    let state = ControlState { attest: attest.is_some(), renew: left.renew.is_some(), blocked };
    (Present { state, attest, until }, left)
}

/// A node that listens. While it lives it is the one that is woken.
#[derive(Debug)]
pub struct Listener {
    verifier: Arc<Verifier>,
    node: NodeId,
    certificate: PresentedSvid,
    number: u64,
    wake: Arc<Notify>,
}

impl Listener {
    /// What is wished of the node now. The caller is identified each time anew.
    pub fn present(&self) -> Result<Present, StreamEnd> {
        let verifier = &self.verifier;
        let current = verifier.control.lock().listeners.get(&self.node).map(|listening| listening.number);
        if current != Some(self.number) {
            return Err(StreamEnd::Replaced);
        }
        let certificate = Some(self.certificate.clone());
        let identified = verifier.fleet.identify(certificate, &verifier.trust_domain, verifier.now())?;
        Ok(verifier.wished_of(&identified))
    }

    /// Returns when it may have changed, for another reason than time.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut inner = self.verifier.control.lock();
        if inner.listeners.get(&self.node).is_some_and(|listening| listening.number == self.number) {
            inner.listeners.remove(&self.node);
        }
    }
}

impl Verifier {
    /// Wishes that a node shows evidence now: made after this moment. Whether it listens is not known here; one that does not
    /// hears of it when it asks next.
    pub(super) fn wish_attestation(&self, node: NodeId) {
        self.control.wish_evidence(node, self.now());
    }

    /// What is wished of a node that asks.
    #[must_use]
    pub fn wished_of(&self, caller: &IdentifiedNode) -> Present {
        let (node, seen) = (caller.id(), self.control.wishes(caller.id()));
        let (present, left) = wished(caller.node(), caller.certificate(), seen.clone(), self.now());
        if left != seen {
            self.control.settle(node, &seen, left);
        }
        present
    }

    /// Lets a node listen, in place of where it listened before; `most` may do so at once.
    pub fn listen(self: &Arc<Self>, caller: &IdentifiedNode, most: usize) -> Result<Listener, StreamEnd> {
        let (node, wake) = (caller.id(), Arc::new(Notify::new()));
        let mut inner = self.control.lock();
        if inner.listeners.len() >= most && !inner.listeners.contains_key(&node) {
            return Err(StreamEnd::TooMany);
        }
        inner.opened = inner.opened.wrapping_add(1);
        let number = inner.opened;
        let before = inner.listeners.insert(node, Listening { number, wake: Arc::clone(&wake) });
        if let Some(before) = before {
            before.wake.notify_one();
        }
        drop(inner);
        let certificate = caller.certificate().clone();
        Ok(Listener { verifier: Arc::clone(self), node, certificate, number, wake })
    }

    /// Whether a node listens.
    #[must_use]
    pub fn listens(&self, node: NodeId) -> bool {
        self.control.lock().listeners.contains_key(&node)
    }

    /// How many nodes listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.control.lock().listeners.len()
    }

    /// Asks a node for evidence now, and perhaps to ask for a new certificate; says whether it listens. Where it does not, it
    /// hears of it when it asks, or attests by itself.
    pub async fn attest_now(
        &self,
        id: NodeId,
        renew: bool,
        operator: &Operator,
    ) -> Result<bool, OperateError> {
        let node = self.store.node(id).await?.ok_or(OperateError::UnknownNode(id))?;
        match node.standing {
            Standing::Admitted { .. } => {}
            Standing::Pending | Standing::Retired => return Err(OperateError::NotAdmitted(id)),
        }
        self.store.record_decision(self.operated(id, operator, "attest_now")).await?;
        let serials = |node: Arc<LiveNode>| node.credentials.iter().map(|one| one.serial).collect();
        let renew = renew.then(|| self.fleet.node(id).map(serials).unwrap_or_default());
        Ok(self.control.wish(id, self.now(), renew))
    }

    /// Forgets wishes that are done.
    pub(super) fn forget_wishes(&self) {
        let wished: Vec<_> =
            self.control.lock().wishes.iter().map(|(id, wishes)| (*id, wishes.clone())).collect();
        for (id, seen) in wished {
            let made = self.fleet.node(id).and_then(|node| Some(node.posture.as_ref()?.evidence_at));
            let done = |asked: &Timestamp| made.is_some_and(|made| made > *asked);
            let left = Wishes { attest: seen.attest.filter(|asked| !done(asked)), ..seen.clone() };
            // A certificate that is asked for comes with evidence, or the node would not listen.
            let left = if left.attest.is_none() && !self.listens(id) { Wishes::default() } else { left };
            if left != seen {
                self.control.settle(id, &seen, left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::attestation_result::tests::{NODE, NOW, hold, live};
    use crate::posture::LiveCredential;

    const MINUTE: Duration = Duration::from_secs(60);

    fn certificate() -> PresentedSvid {
        let domain: rootbound_common::id::TrustDomain = "example.org".parse().unwrap();
        let serial = SerialNumber::from_slice(&[0x40; 16]).unwrap();
        PresentedSvid {
            spiffe_id: domain.node(NODE),
            serial,
            epoch: None,
            not_before: NOW,
            not_after: NOW.plus(10 * MINUTE),
            thumbprint: rootbound_token::jwk::CertificateThumbprint::from_bytes([0; 32]),
            key_thumbprint: None,
        }
    }

    fn of(change: impl FnOnce(&mut LiveNode), wishes: Wishes) -> (Present, Wishes) {
        let mut node = live();
        change(&mut node);
        wished(&node, &certificate(), wishes, NOW)
    }

    #[test]
    fn nothing_is_wished_of_a_node_in_good_standing_until_its_evidence_is_stale() {
        let (present, _) = of(|_| {}, Wishes::default());
        assert_eq!(present.state, ControlState::default());
        assert_eq!(present.until, 2 * MINUTE + Duration::from_millis(1));
        let (stale, _) =
            of(|node| node.posture.as_mut().unwrap().evidence_at = NOW.minus(9 * MINUTE), Wishes::default());
        assert!(stale.state.attest);
        assert_eq!(stale.until, 10 * MINUTE + Duration::from_millis(1), "then the certificate ends");
        assert!(of(|node| node.posture = None, Wishes::default()).0.state.attest);
    }

    #[test]
    fn a_wish_is_done_when_younger_evidence_is_there() {
        let asked = Wishes { attest: Some(NOW), renew: None };
        let (present, left) = of(|_| {}, asked.clone());
        assert_eq!((present.attest, &left), (Some(NOW), &asked));
        let younger = |node: &mut LiveNode| {
            node.posture.as_mut().unwrap().evidence_at = NOW.plus(Duration::from_millis(1));
        };
        let (present, left) = of(younger, asked);
        assert_eq!((present.attest, left), (None, Wishes::default()));
        assert!(of(|node| node.attested_after = Some(NOW), Wishes::default()).0.state.attest);
    }

    #[test]
    fn a_certificate_is_wished_for_until_a_later_one_is_there() {
        let credential = |last| LiveCredential {
            serial: SerialNumber::from_slice(&[last; 16]).unwrap(),
            not_before: NOW,
            not_after: NOW.plus(MINUTE),
        };
        let (old, new) = (credential(0x41), credential(0x42));
        let asked = || Wishes { attest: None, renew: Some(Arc::from([old.serial])) };
        let with =
            |credentials: &[LiveCredential]| of(|node| node.credentials = credentials.to_vec(), asked());
        for before in [&[][..], slice::from_ref(&old)] {
            assert!(with(before).0.state.renew, "{before:?}");
        }
        // Also for whoever asks with the new one already, or has it in the same second.
        let (present, left) = with(&[old.clone(), new]);
        assert!(!present.state.renew && left == Wishes::default());
    }

    #[test]
    fn evidence_that_is_wanted_again_before_it_came_is_wanted_as_of_the_first_time() {
        let control = Control::default();
        control.wish_evidence(NODE, NOW);
        control.wish_evidence(NODE, NOW.plus(MINUTE));
        assert_eq!(control.asked_at(NODE), Some(NOW));
        control.wish(NODE, NOW.plus(MINUTE), None);
        assert_eq!(control.asked_at(NODE), Some(NOW.plus(MINUTE)), "an operator means now");
    }

    #[test]
    fn what_holds_a_node_is_told_by_code() {
        let (blocked, _) = of(
            |node| {
                hold(node, HoldKind::Lower);
                hold(node, HoldKind::Block);
                hold(node, HoldKind::Block);
            },
            Wishes::default(),
        );
        assert_eq!(blocked.state.blocked, ["node_blocked", "posture_warning"]);
    }
}
