//! Live posture: how each node stands now, in memory, read by every decision.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::{NodeId, TrustDomain};
use rootbound_common::tpm;
use rootbound_common::wire::v1::{DeviationReport, HoldReport, PostureReport, PostureStatus};
use serde::{Deserialize, Serialize};

use crate::appraisal::boot::Booted;
use crate::appraisal::trust_vector::TrustVector;
use crate::appraisal::{Appraisal, Verdict};
use crate::credential::presented::PresentedSvid;
use crate::credential::serial::SerialNumber;
use crate::enrollment::Endorsement;
use crate::hold::{Hold, HoldKind, attested_after};
use crate::node::{EndorsedBy, Labels, NodeRecord, Standing};
use crate::reference::Observe;

/// The code where stored evidence does not verify any more.
pub(crate) const STORED_EVIDENCE_INVALID: &str = "stored_evidence_invalid";

/// The outcome of a node's last appraisal, as kept in memory and in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posture {
    /// The verdict.
    pub verdict: Verdict,
    /// When the evidence was made, at the earliest.
    pub evidence_at: Timestamp,
    /// For how long the evidence counts, by the profile that was used.
    pub fresh_for: Duration,
    /// `name@version` of the profile.
    pub profile: Option<String>,
    /// `name@version` of each reference set.
    pub references: Vec<String>,
    /// What no reference value explains.
    pub deviations: Vec<DeviationReport>,
    /// The same in the words of AR4SI: what booted and runs. A row from before there was such a thing claims nothing,
    /// until the start appraises it again.
    #[serde(default)]
    pub claims: TrustVector,
    /// What is proved of the boot. A row from before there was such a thing says nothing.
    #[serde(default)]
    pub booted: Booted,
    /// How the profile observes what deviates, instead of acting on it.
    #[serde(default)]
    pub observed: Option<Observe>,
}

impl Posture {
    /// Of an appraisal.
    #[must_use]
    pub fn of(appraisal: &Appraisal) -> Self {
        Self {
            verdict: appraisal.verdict(),
            evidence_at: appraisal.evidence_at(),
            fresh_for: appraisal.profile().map_or(Duration::ZERO, |profile| profile.body().freshness()),
            profile: appraisal.profile().map(|profile| profile.id().to_string()),
            references: appraisal.references().iter().map(ToString::to_string).collect(),
            deviations: appraisal.deviations().iter().map(crate::appraisal::Deviation::report).collect(),
            claims: TrustVector::of(appraisal),
            booted: appraisal.booted().clone(),
            observed: appraisal.observed(),
        }
    }

    /// Whether what was handed out on the one may stand on the other.
    #[must_use]
    pub fn stands_like(&self, other: &Self) -> bool {
        self.verdict == other.verdict && self.observed == other.observed
    }

    /// Whether it deviates, and its profile does not act on it at this time.
    #[must_use]
    pub fn is_observed(&self, now: Timestamp) -> bool {
        self.verdict == Verdict::Contraindicated && self.observed.is_some_and(|observe| now < observe.until)
    }

    /// Where the stored evidence that a posture was founded on does not verify any more. The next quote puts it right.
    #[must_use]
    pub fn without_foundation(before: Option<&Self>) -> Self {
        let deviation = DeviationReport {
            code: STORED_EVIDENCE_INVALID.to_owned(),
            detail: "the evidence in the store was changed or damaged: it does not verify any more"
                .to_owned(),
            bank: None,
            pcr: None,
            observed: None,
            accepted: Vec::new(),
        };
        Self {
            verdict: Verdict::Contraindicated,
            evidence_at: before.map_or(Timestamp::from_millis(0), |before| before.evidence_at),
            fresh_for: Duration::ZERO,
            profile: None,
            references: Vec::new(),
            deviations: vec![deviation],
            claims: TrustVector::UNFOUNDED,
            booted: Booted::default(),
            observed: None,
        }
    }

    /// Whether it is one of [`Self::without_foundation`].
    #[must_use]
    pub fn is_without_foundation(&self) -> bool {
        self.deviations.iter().any(|deviation| deviation.code == STORED_EVIDENCE_INVALID)
    }
}

/// How a node stands at a time: the one place that says so. Each line outdoes those below it.
///
/// A contraindication does not fade: stale is only what would be affirming, or is observed. Of a node whose standing was
/// lowered no deviation is only observed. A node that is ours no longer is blocked, and of one that nobody has admitted nothing
/// is known, whatever they showed.
fn status_of(
    standing: Standing,
    posture: Option<&Posture>,
    holds: &[Hold],
    demanded: Option<Timestamp>,
    now: Timestamp,
) -> PostureStatus {
    let held = |kind| holds.iter().any(|hold| hold.kind == kind && hold.is_in_force(now));
    let posture = match (standing, posture) {
        (Standing::Retired, _) => return PostureStatus::Blocked,
        (Standing::Pending | Standing::Admitted { .. }, _) if held(HoldKind::Block) => {
            return PostureStatus::Blocked;
        }
        (Standing::Pending, _) | (Standing::Admitted { .. }, None) => return PostureStatus::Unknown,
        (Standing::Admitted { .. }, Some(posture)) => posture,
    };
    let lowered = held(HoldKind::Lower);
    let status = match posture.verdict {
        Verdict::Contraindicated if lowered || !posture.is_observed(now) => {
            return PostureStatus::Contraindicated;
        }
        Verdict::Contraindicated => PostureStatus::Warning,
        Verdict::Affirming if lowered => PostureStatus::Warning,
        Verdict::Affirming => PostureStatus::Affirming,
    };
    let is_old = now.since(posture.evidence_at) > posture.fresh_for;
    if is_old || attested_after(demanded, holds, now) >= Some(posture.evidence_at) {
        return PostureStatus::Stale;
    }
    status
}

/// For the wire.
fn report_of(
    status: PostureStatus,
    posture: Option<&Posture>,
    holds: &[Hold],
    now: Timestamp,
) -> PostureReport {
    let told = |hold: &Hold| HoldReport {
        id: hold.id.to_string(),
        kind: hold.kind.as_str().to_owned(),
        since: hold.since,
        expires_at: hold.expires_at,
    };
    PostureReport {
        status,
        evidence_at: posture.map(|posture| posture.evidence_at),
        profile: posture.and_then(|posture| posture.profile.clone()),
        references: posture.map(|posture| posture.references.clone()).unwrap_or_default(),
        deviations: posture.map(|posture| posture.deviations.clone()).unwrap_or_default(),
        holds: holds.iter().filter(|hold| hold.is_in_force(now)).map(told).collect(),
        observed_until: posture
            .filter(|posture| posture.is_observed(now))
            .and_then(|posture| posture.observed)
            .map(|observe| observe.until),
    }
}

/// The report of a node that is not there.
#[must_use]
pub fn unknown() -> PostureReport {
    report_of(PostureStatus::Unknown, None, &[], Timestamp::from_millis(0))
}

impl NodeRecord {
    /// How the node stands with this posture: one that is about to be recorded.
    #[must_use]
    pub fn status_with(&self, posture: &Posture, now: Timestamp) -> PostureStatus {
        status_of(self.standing, Some(posture), &self.holds, self.attested_after, now)
    }

    /// As decisions would see it with this posture, one that is about to be recorded, and these credentials.
    #[must_use]
    pub fn live_with(&self, posture: Posture, credentials: Vec<LiveCredential>) -> LiveNode {
        LiveNode {
            revision: self.revision,
            epoch: self.epoch,
            standing: self.standing,
            labels: self.labels.clone(),
            attestation_key: self.attestation_key.name(),
            endorsed_by: match self.endorsed_key.endorsement() {
                Endorsement::VendorChain { .. } => EndorsedBy::Manufacturer,
                Endorsement::ListedKey => EndorsedBy::Operator,
            },
            posture: Some(posture),
            credentials,
            holds: self.holds.clone(),
            attested_after: self.attested_after,
        }
    }

    /// The same, for the wire.
    #[must_use]
    pub fn report_with(&self, posture: &Posture, now: Timestamp) -> PostureReport {
        report_of(self.status_with(posture, now), Some(posture), &self.holds, now)
    }
}

/// A credential that was recorded when it was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveCredential {
    /// Its serial number.
    pub serial: SerialNumber,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// From when on it is not valid any more.
    pub not_after: Timestamp,
}

/// A node as decisions see it.
#[derive(Debug, Clone)]
pub struct LiveNode {
    /// The revision in the store that this shows: an older one never replaces a newer.
    pub revision: u64,
    /// Rises whenever the verdict, the holds, the standing, the AK, the labels or [`Self::attested_after`] change: what
    /// was handed out at another epoch rests on something that counts no more.
    pub epoch: u64,
    /// Where it is in its life.
    pub standing: Standing,
    /// What operators say of it.
    pub labels: Labels,
    /// Name of the enrolled AK.
    pub attestation_key: tpm::Name,
    /// Who vouches for its EK.
    pub endorsed_by: EndorsedBy,
    /// Its posture; `None` before the first evidence by this AK.
    pub posture: Option<Posture>,
    /// The credentials issued under this AK that have not expired: any other is not ours, or is superseded.
    pub credentials: Vec<LiveCredential>,
    /// What an operator or a relying party holds against it; those that have ended by their own time, too.
    pub holds: Vec<Hold>,
    /// Evidence made then or before counts as stale.
    pub attested_after: Option<Timestamp>,
}

impl LiveNode {
    /// How the node stands at a time.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> PostureStatus {
        status_of(self.standing, self.posture.as_ref(), &self.holds, self.attested_after, now)
    }

    /// The same, for the wire.
    #[must_use]
    pub fn report(&self, now: Timestamp) -> PostureReport {
        report_of(self.status(now), self.posture.as_ref(), &self.holds, now)
    }

    /// The holds that are in force, the eldest first.
    pub fn holds_in_force(&self, now: Timestamp) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(move |hold| hold.is_in_force(now))
    }

    /// Evidence made then or before counts as stale at this time; holds that have ended are a reason, too.
    #[must_use]
    pub fn attested_after(&self, now: Timestamp) -> Option<Timestamp> {
        attested_after(self.attested_after, &self.holds, now)
    }

    /// Until when its evidence is fresh, and what its profile observes is only observed; `None` where it showed none.
    #[must_use]
    pub fn fresh_until(&self) -> Option<Timestamp> {
        let posture = self.posture.as_ref()?;
        let fresh = posture.evidence_at.plus(posture.fresh_for);
        let observed = posture.observed.filter(|_| posture.verdict == Verdict::Contraindicated);
        Some(observed.map_or(fresh, |observe| fresh.min(observe.until)))
    }

    /// Whether what was handed out on the one may stand on the other: all that the epoch counts is alike.
    fn stands_like(&self, other: &Self) -> bool {
        let postures = match (&self.posture, &other.posture) {
            (Some(one), Some(other)) => one.stands_like(other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        postures
            && self.standing == other.standing
            && self.attestation_key == other.attestation_key
            && self.attested_after == other.attested_after
            && self.labels == other.labels
            && self.holds == other.holds
    }

    /// Whether a credential that names this epoch may leave: the node is at it, and may act, or its profile has credentials
    /// issued while it observes.
    #[must_use]
    pub fn bears(&self, epoch: u64, now: Timestamp) -> bool {
        let observed = || {
            let posture = self.posture.as_ref().filter(|posture| posture.is_observed(now));
            posture.and_then(|posture| posture.observed).is_some_and(|observe| observe.issue)
        };
        self.epoch == epoch
            && match self.status(now) {
                PostureStatus::Affirming => true,
                // Of a node whose standing was lowered nothing is observed.
                PostureStatus::Warning => observed(),
                PostureStatus::Stale
                | PostureStatus::Unknown
                | PostureStatus::Contraindicated
                | PostureStatus::Blocked => false,
            }
    }

    /// The epoch of this node after it was like `before`: never less than its own, and more where they stand otherwise.
    fn epoch_after(&self, before: &Self) -> u64 {
        let next = if self.stands_like(before) { before.epoch } else { before.epoch.saturating_add(1) };
        self.epoch.max(next)
    }
}

/// Why a caller with a certificate of ours is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// No client certificate.
    #[error("this endpoint needs a client certificate that the verifier issued")]
    NoCertificate,
    /// The certificate names no node of this trust domain.
    #[error("the certificate is not a node's")]
    NotANode,
    /// Not a node that we know.
    #[error("the certificate names a node that is not enrolled")]
    UnknownNode,
    /// Waiting for an operator.
    #[error("the node is not admitted")]
    Pending,
    /// Gone for good.
    #[error("the node is retired")]
    Retired,
    /// Past its life.
    #[error("the certificate expired at {0}")]
    Expired(Timestamp),
    /// Not recorded for this node and its AK.
    #[error("the certificate was superseded by a new enrolment of its node, or was never issued")]
    Superseded,
    /// No evidence yet.
    #[error("the node's posture is unknown: it has not shown evidence since it enrolled")]
    PostureUnknown,
    /// Too old.
    #[error("the node's posture is stale: its last evidence is of {0}")]
    PostureStale(Timestamp),
    /// It drifted.
    #[error("the node's posture is contraindicated: {0}")]
    PostureContraindicated(String),
    /// Its standing was lowered, or its profile observes what deviates.
    #[error(
        "the node's posture is accepted with reservations: its standing was lowered, or its profile observes deviations"
    )]
    PostureWarning,
    /// It is held.
    #[error("the node is blocked by an operator or a relying party")]
    Blocked,
}

impl AdmissionError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "certificate_required",
            Self::NotANode => "not_a_node",
            Self::UnknownNode => "unknown_node",
            Self::Pending => "admission_pending",
            Self::Retired => "node_retired",
            Self::Expired(_) => "certificate_expired",
            Self::Superseded => "certificate_superseded",
            Self::PostureUnknown => "posture_unknown",
            Self::PostureStale(_) => "posture_stale",
            Self::PostureContraindicated(_) => "posture_contraindicated",
            Self::PostureWarning => "posture_warning",
            Self::Blocked => "node_blocked",
        }
    }
}

/// A node that is who it says, however it stands. Only [`Fleet::identify`] makes it; it is used at once, never kept.
#[derive(Debug)]
pub struct IdentifiedNode {
    id: NodeId,
    certificate: PresentedSvid,
    node: Arc<LiveNode>,
}

impl IdentifiedNode {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The certificate that it showed.
    #[must_use]
    pub fn certificate(&self) -> &PresentedSvid {
        &self.certificate
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &LiveNode {
        &self.node
    }
}

/// A node that may act now. Only [`Fleet::admit`] makes it; it is used at once, never kept.
#[derive(Debug)]
pub struct AdmittedNode {
    identified: IdentifiedNode,
    report: PostureReport,
}

impl AdmittedNode {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.identified.id
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &PresentedSvid {
        &self.identified.certificate
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &LiveNode {
        &self.identified.node
    }

    /// Its posture at the time of admission.
    #[must_use]
    pub fn report(&self) -> &PostureReport {
        &self.report
    }
}

/// Every node, as decisions see it. A change is visible to the next reader.
#[derive(Debug, Default)]
pub struct Fleet {
    nodes: RwLock<HashMap<NodeId, Entry>>,
    observer: Observer,
}

/// Who is told that a node is shown otherwise than before.
#[derive(Default)]
struct Observer(OnceLock<Box<dyn Fn(NodeId) + Send + Sync>>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.get().is_some()).finish()
    }
}

/// What memory has of a node. There are as many as the store has nodes.
#[derive(Debug)]
struct Entry {
    shown: Shown,
    unrecorded: Option<Unrecorded>,
}

/// How decisions see a node.
#[derive(Debug)]
enum Shown {
    /// As it is.
    Node(Arc<LiveNode>),
    /// It is not known how it stands, and so it is refused, until this revision of it or a later one is read.
    NothingBefore(u64),
}

/// Evidence against a node that could not be recorded: the store has older evidence, which says nothing against it.
#[derive(Debug)]
struct Unrecorded {
    attestation_key: tpm::Name,
    posture: Posture,
}

impl Unrecorded {
    /// Whether the node still has the AK that signed this, and has shown nothing later.
    fn stands_against(&self, node: &LiveNode) -> bool {
        let later = |posture: &Posture| posture.evidence_at > self.posture.evidence_at;
        node.attestation_key == self.attestation_key && !node.posture.as_ref().is_some_and(later)
    }
}

impl Entry {
    /// Shows a node as the store has it, save for what the store could not be told.
    fn show(&mut self, mut node: LiveNode) {
        self.unrecorded = self.unrecorded.take().filter(|unrecorded| unrecorded.stands_against(&node));
        if let Some(unrecorded) = &self.unrecorded {
            node.posture = Some(unrecorded.posture.clone());
        }
        if let Shown::Node(here) = &self.shown {
            node.epoch = node.epoch_after(here);
        }
        self.shown = Shown::Node(Arc::new(node));
    }
}

/// Shows a posture that is not on record.
fn contradict(shown: &mut Arc<LiveNode>, posture: Posture) {
    let mut node = LiveNode { posture: Some(posture), ..LiveNode::clone(shown) };
    node.epoch = node.epoch_after(shown);
    *shown = Arc::new(node);
}

impl Fleet {
    /// The fleet as the store has it.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = (NodeId, LiveNode)>) -> Self {
        let shown = |node| Entry { shown: Shown::Node(Arc::new(node)), unrecorded: None };
        let nodes = nodes.into_iter().map(|(id, node)| (id, shown(node))).collect();
        Self { nodes: RwLock::new(nodes), observer: Observer::default() }
    }

    /// Calls `observer` after each change of a node that decisions can see; the first that is given stays. It must neither wait
    /// nor change the fleet.
    pub fn observe(&self, observer: impl Fn(NodeId) + Send + Sync + 'static) {
        // One that is given later is not called.
        drop(self.observer.0.set(Box::new(observer)));
    }

    fn changed(&self, id: NodeId) {
        if let Some(observer) = self.observer.0.get() {
            observer(id);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<NodeId, Entry>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<NodeId, Entry>> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a node stands.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<Arc<LiveNode>> {
        match &self.read().get(&id)?.shown {
            Shown::Node(node) => Some(Arc::clone(node)),
            Shown::NothingBefore(_) => None,
        }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().values().filter(|entry| matches!(entry.shown, Shown::Node(_))).count()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a node as it was just read from the store, unless a newer revision is here already, or is known to exist. Expired
    /// credentials are dropped on the way.
    pub fn put(&self, id: NodeId, mut node: LiveNode, now: Timestamp) {
        node.credentials.retain(|credential| credential.not_after >= now);
        let mut nodes = self.write();
        let entry = nodes.entry(id).or_insert(Entry { shown: Shown::NothingBefore(0), unrecorded: None });
        let newer = match &entry.shown {
            Shown::Node(here) => here.revision < node.revision,
            Shown::NothingBefore(revision) => *revision <= node.revision,
        };
        if newer {
            entry.show(node);
        }
        drop(nodes);
        self.changed(id);
    }

    /// Shows the outcome of an appraisal of a quote by this AK, recorded as this revision and epoch, with the credential that
    /// was recorded with it. `false`: what is here is not the revision right before, so that the change says too little; the caller
    /// reads the node from the store.
    #[must_use]
    pub fn appraised(
        &self,
        id: NodeId,
        attestation_key: tpm::Name,
        (revision, epoch): (u64, u64),
        posture: Posture,
        credential: Option<LiveCredential>,
        now: Timestamp,
    ) -> bool {
        let mut nodes = self.write();
        let Some(entry) = nodes.get_mut(&id) else { return false };
        let Shown::Node(node) = &entry.shown else { return false };
        if node.revision.checked_add(1) != Some(revision) || node.attestation_key != attestation_key {
            return node.revision >= revision;
        }
        let mut node = LiveNode::clone(node);
        node.revision = revision;
        node.epoch = node.epoch.max(epoch);
        node.posture = Some(posture);
        node.credentials.retain(|credential| credential.not_after >= now);
        node.credentials.extend(credential);
        entry.show(node);
        drop(nodes);
        self.changed(id);
        true
    }

    /// Shows a contraindication by evidence that could not be recorded. It holds, whatever the store says of the evidence
    /// before, until the node shows evidence that was made later, or enrols with another AK.
    pub fn distrust(&self, id: NodeId, attestation_key: tpm::Name, posture: Posture) {
        let mut nodes = self.write();
        let Some(entry) = nodes.get_mut(&id) else { return };
        let unrecorded = Unrecorded { attestation_key, posture };
        match &mut entry.shown {
            Shown::Node(node) if unrecorded.stands_against(node) => {
                contradict(node, unrecorded.posture.clone());
            }
            Shown::Node(_) => return,
            Shown::NothingBefore(_) => {}
        }
        entry.unrecorded = Some(unrecorded);
        drop(nodes);
        self.changed(id);
    }

    /// Whether evidence against the node, which could not be recorded, is later than what the store has.
    #[must_use]
    pub fn is_distrusted(&self, id: NodeId) -> bool {
        self.read().get(&id).is_some_and(|entry| entry.unrecorded.is_some())
    }

    /// Shows a contraindication by evidence that is on record, where only this appraisal of it could not be recorded: the next
    /// appraisal replaces it.
    pub fn show_unrecorded(&self, id: NodeId, revision: u64, posture: Posture) {
        if let Some(Entry { shown: Shown::Node(node), .. }) = self.write().get_mut(&id)
            && node.revision <= revision
        {
            contradict(node, posture);
        }
        self.changed(id);
    }

    /// Drops a credential that was recorded and never left.
    pub fn drop_credential(&self, id: NodeId, serial: SerialNumber) {
        if let Some(Entry { shown: Shown::Node(node), .. }) = self.write().get_mut(&id) {
            Arc::make_mut(node).credentials.retain(|credential| credential.serial != serial);
        }
        self.changed(id);
    }

    /// Shows nothing of a node that cannot be read, although the store has this revision of it: unless that is here, the node
    /// is refused from now on, and no older revision comes back.
    pub fn hide(&self, id: NodeId, revision: u64) {
        let mut nodes = self.write();
        let entry =
            nodes.entry(id).or_insert(Entry { shown: Shown::NothingBefore(revision), unrecorded: None });
        match &mut entry.shown {
            Shown::Node(node) if node.revision >= revision => {}
            shown @ Shown::Node(_) => *shown = Shown::NothingBefore(revision),
            Shown::NothingBefore(before) => *before = revision.max(*before),
        }
        drop(nodes);
        self.changed(id);
    }

    /// Takes a node away that the store does not have.
    pub fn remove(&self, id: NodeId) {
        self.write().remove(&id);
        self.changed(id);
    }

    /// Says which node a caller is.
    ///
    /// Established when this returns, in this order: the certificate names a node of this domain · the node is enrolled ·
    /// admitted and not retired · the certificate has not expired · it was issued to this node under the AK that is
    /// enrolled now.
    pub fn identify(
        &self,
        certificate: Option<PresentedSvid>,
        domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<IdentifiedNode, AdmissionError> {
        let certificate = certificate.ok_or(AdmissionError::NoCertificate)?;
        let id = domain.node_of(&certificate.spiffe_id).ok_or(AdmissionError::NotANode)?;
        let node = self.node(id).ok_or(AdmissionError::UnknownNode)?;
        match node.standing {
            Standing::Pending => return Err(AdmissionError::Pending),
            Standing::Retired => return Err(AdmissionError::Retired),
            Standing::Admitted { .. } => {}
        }
        if certificate.not_after < now {
            return Err(AdmissionError::Expired(certificate.not_after));
        }
        if !node.credentials.iter().any(|credential| credential.serial == certificate.serial) {
            return Err(AdmissionError::Superseded);
        }
        Ok(IdentifiedNode { id, certificate, node })
    }

    /// Judges a caller by how its node stands now.
    ///
    /// Established when this returns, in this order: all that [`Self::identify`] establishes · nobody blocks the node · it
    /// has shown evidence, it is affirming, it is fresh, and made since it was last demanded anew · nobody lowers its
    /// standing.
    pub fn admit(
        &self,
        certificate: Option<PresentedSvid>,
        domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<AdmittedNode, AdmissionError> {
        let identified = self.identify(certificate, domain, now)?;
        let (node, report) = (&identified.node, identified.node.report(now));
        let posture = || node.posture.as_ref().ok_or(AdmissionError::PostureUnknown);
        match report.status {
            PostureStatus::Affirming => Ok(AdmittedNode { identified, report }),
            PostureStatus::Blocked => Err(AdmissionError::Blocked),
            PostureStatus::Unknown => Err(AdmissionError::PostureUnknown),
            PostureStatus::Stale => Err(AdmissionError::PostureStale(posture()?.evidence_at)),
            PostureStatus::Warning => Err(AdmissionError::PostureWarning),
            PostureStatus::Contraindicated => {
                let first = posture()?.deviations.first().map(|deviation| deviation.detail.clone());
                Err(AdmissionError::PostureContraindicated(first.unwrap_or_default()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
