//! How nodes stand, admission, and what memory shows.

use super::*;
use crate::hold::HeldBy;
use crate::node::AdmittedBy;
use rootbound_common::tpm::HashAlgorithm;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const MINUTE: Duration = Duration::from_secs(60);

fn node_id() -> NodeId {
    NodeId::from_bytes([7; 32])
}

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn serial(last: u8) -> SerialNumber {
    let mut bytes = [0x40; 16];
    bytes[15] = last;
    SerialNumber::from_slice(&bytes).unwrap()
}

fn posture(verdict: Verdict) -> Posture {
    Posture {
        verdict,
        evidence_at: NOW,
        fresh_for: 3 * MINUTE,
        profile: Some("p@1".into()),
        references: vec![],
        deviations: vec![],
        claims: TrustVector::NONE,
        booted: Booted::default(),
        observed: None,
    }
}

fn node() -> LiveNode {
    LiveNode {
        revision: 5,
        epoch: 3,
        standing: Standing::Admitted { by: AdmittedBy::Approval },
        labels: Labels::default(),
        attestation_key: tpm::Name::of_public_area(HashAlgorithm::Sha256, b"AK"),
        endorsed_by: EndorsedBy::Manufacturer,
        posture: Some(posture(Verdict::Affirming)),
        credentials: vec![LiveCredential {
            serial: serial(1),
            not_before: NOW,
            not_after: NOW.plus(10 * MINUTE),
        }],
        holds: Vec::new(),
        attested_after: None,
    }
}

fn certificate() -> PresentedSvid {
    PresentedSvid {
        spiffe_id: domain().node(node_id()),
        serial: serial(1),
        epoch: None,
        not_before: NOW,
        not_after: NOW.plus(10 * MINUTE),
        thumbprint: rootbound_token::jwk::CertificateThumbprint::from_bytes([0; 32]),
        key_thumbprint: None,
    }
}

fn admit(node: LiveNode, certificate: Option<PresentedSvid>, now: Timestamp) -> Result<(), AdmissionError> {
    Fleet::new([(node_id(), node)]).admit(certificate, &domain(), now).map(|_| ())
}

#[test]
fn a_node_in_good_standing_is_admitted_until_its_posture_is_stale() {
    assert_eq!(admit(node(), Some(certificate()), NOW), Ok(()));
    assert_eq!(admit(node(), Some(certificate()), NOW.plus(3 * MINUTE)), Ok(()));
    assert_eq!(
        admit(node(), Some(certificate()), NOW.plus(3 * MINUTE + Duration::from_millis(1))),
        Err(AdmissionError::PostureStale(NOW))
    );
}

#[test]
fn each_way_to_be_refused_has_its_reason() {
    let with = |change: fn(&mut LiveNode)| {
        let mut node = node();
        change(&mut node);
        admit(node, Some(certificate()), NOW)
    };
    let shown = |change: fn(&mut PresentedSvid)| {
        let mut certificate = certificate();
        change(&mut certificate);
        admit(node(), Some(certificate), NOW)
    };
    assert_eq!(admit(node(), None, NOW), Err(AdmissionError::NoCertificate));
    assert_eq!(shown(|svid| svid.spiffe_id = domain().verifier()), Err(AdmissionError::NotANode));
    let other = |svid: &mut PresentedSvid| svid.spiffe_id = domain().node(NodeId::from_bytes([8; 32]));
    assert_eq!(shown(other), Err(AdmissionError::UnknownNode));
    assert_eq!(with(|node| node.standing = Standing::Pending), Err(AdmissionError::Pending));
    assert_eq!(with(|node| node.standing = Standing::Retired), Err(AdmissionError::Retired));
    let before = NOW.minus(Duration::from_millis(1));
    assert_eq!(
        shown(|svid| svid.not_after = NOW.minus(Duration::from_millis(1))),
        Err(AdmissionError::Expired(before))
    );
    assert_eq!(shown(|svid| svid.serial = serial(2)), Err(AdmissionError::Superseded));
    assert_eq!(with(|node| node.credentials.clear()), Err(AdmissionError::Superseded));
    assert_eq!(with(|node| node.posture = None), Err(AdmissionError::PostureUnknown));
    assert!(matches!(
        with(|node| node.posture = Some(posture(Verdict::Contraindicated))),
        Err(AdmissionError::PostureContraindicated(_))
    ));
}

#[test]
fn a_contraindication_does_not_fade_into_staleness() {
    let later = NOW.plus(100 * MINUTE);
    let status = |verdict| LiveNode { posture: Some(posture(verdict)), ..node() }.status(later);
    assert_eq!(status(Verdict::Contraindicated), PostureStatus::Contraindicated);
    assert_eq!(status(Verdict::Affirming), PostureStatus::Stale);
}

#[test]
fn a_node_that_deviates_is_at_warning_while_its_profile_observes() {
    let until = NOW.plus(MINUTE);
    let observed =
        Posture { observed: Some(Observe { until, issue: false }), ..posture(Verdict::Contraindicated) };
    let node = || LiveNode { posture: Some(observed.clone()), ..node() };
    assert_eq!(node().status(NOW), PostureStatus::Warning);
    assert_eq!(node().report(NOW).observed_until, Some(until));
    assert_eq!(node().status(until), PostureStatus::Contraindicated, "it ends by itself");
    assert_eq!(node().report(until).observed_until, None);
    let demanded = LiveNode { attested_after: Some(NOW), ..node() };
    assert_eq!(demanded.status(NOW), PostureStatus::Stale);
    for (kind, status) in
        [(HoldKind::Lower, PostureStatus::Contraindicated), (HoldKind::Block, PostureStatus::Blocked)]
    {
        let held = LiveNode { holds: vec![hold(kind, None)], ..node() };
        assert_eq!(held.status(NOW), status);
    }
    let affirming = Posture { observed: None, ..posture(Verdict::Affirming) };
    assert_eq!(LiveNode { posture: Some(affirming), ..node() }.status(NOW), PostureStatus::Affirming);
    // When the profile enforces again, what was handed out stands on something else.
    let enforced = Posture { observed: None, ..observed.clone() };
    assert!(!enforced.stands_like(&observed));
    let before = node();
    assert_eq!(LiveNode { posture: Some(enforced), ..node() }.epoch_after(&before), before.epoch + 1);
}

fn hold(kind: HoldKind, expires_at: Option<Timestamp>) -> Hold {
    Hold {
        id: "00112233445566778899aabbccddeeff".parse().unwrap(),
        kind,
        by: HeldBy::Operator("uid 0".to_owned()),
        reason: String::new().try_into().unwrap(),
        since: NOW,
        expires_at,
    }
}

#[test]
fn a_hold_outdoes_what_the_node_shows() {
    let status = |change: &dyn Fn(&mut LiveNode)| {
        let mut node = node();
        change(&mut node);
        node.status(NOW)
    };
    let block = |node: &mut LiveNode| node.holds.push(hold(HoldKind::Block, None));
    let lower = |node: &mut LiveNode| node.holds.push(hold(HoldKind::Lower, None));
    let drift = |node: &mut LiveNode| node.posture = Some(posture(Verdict::Contraindicated));
    assert_eq!(status(&|_| {}), PostureStatus::Affirming);
    assert_eq!(status(&|node| lower(node)), PostureStatus::Warning);
    assert_eq!(status(&|node| block(node)), PostureStatus::Blocked);
    assert_eq!(status(&|node| (lower(node), block(node)).0), PostureStatus::Blocked);
    assert_eq!(status(&|node| (drift(node), lower(node)).0), PostureStatus::Contraindicated);
    assert_eq!(status(&|node| (drift(node), block(node)).0), PostureStatus::Blocked);
    assert_eq!(status(&|node| (node.posture = None, lower(node)).0), PostureStatus::Unknown);
    assert_eq!(status(&|node| (node.posture = None, block(node)).0), PostureStatus::Blocked);
    assert_eq!(status(&|node| node.standing = Standing::Retired), PostureStatus::Blocked);
    assert_eq!(status(&|node| node.standing = Standing::Pending), PostureStatus::Unknown);

    let held = |kind| LiveNode { holds: vec![hold(kind, None)], ..node() };
    assert_eq!(admit(held(HoldKind::Block), Some(certificate()), NOW), Err(AdmissionError::Blocked));
    let lowered = admit(held(HoldKind::Lower), Some(certificate()), NOW);
    assert_eq!(lowered, Err(AdmissionError::PostureWarning));
    let told = held(HoldKind::Block).report(NOW).holds;
    assert_eq!((told.len(), told[0].kind.as_str(), told[0].since), (1, "block", NOW));
}

#[test]
fn after_a_hold_or_a_demand_only_younger_evidence_counts() {
    let later = NOW.plus(Duration::from_millis(1));
    for kind in [HoldKind::Block, HoldKind::Lower] {
        let mut node = LiveNode { holds: vec![hold(kind, Some(later))], ..node() };
        assert_ne!(node.status(NOW), PostureStatus::Affirming);
        assert_eq!(node.status(later), PostureStatus::Stale, "it has ended by its own time");
        assert!(node.report(later).holds.is_empty());
        node.posture = Some(Posture { evidence_at: later, ..posture(Verdict::Affirming) });
        assert_eq!(node.status(later), PostureStatus::Stale, "the same instant may be before or after");
        let younger = later.plus(Duration::from_millis(1));
        node.posture = Some(Posture { evidence_at: younger, ..posture(Verdict::Affirming) });
        assert_eq!(node.status(younger), PostureStatus::Affirming);
    }
    let demanded = LiveNode { attested_after: Some(NOW), ..node() };
    assert_eq!(demanded.status(NOW), PostureStatus::Stale);
    assert_eq!(admit(demanded, Some(certificate()), NOW), Err(AdmissionError::PostureStale(NOW)));
    let before = LiveNode { attested_after: Some(NOW.minus(Duration::from_millis(1))), ..node() };
    assert_eq!(before.status(NOW), PostureStatus::Affirming);
}

#[test]
fn the_epoch_rises_with_each_change_of_what_a_node_may_and_never_falls() {
    let fleet = Fleet::new([(node_id(), node())]);
    let epoch = || fleet.node(node_id()).unwrap().epoch;
    let key = node().attestation_key;
    let put = |revision, change: &dyn Fn(&mut LiveNode)| {
        let mut node = LiveNode { revision, ..LiveNode::clone(&fleet.node(node_id()).unwrap()) };
        change(&mut node);
        fleet.put(node_id(), node, NOW);
    };
    assert_eq!(epoch(), 3);
    assert!(fleet.appraised(node_id(), key, (6, 1), posture(Verdict::Affirming), None, NOW));
    assert_eq!(epoch(), 3, "the same verdict once more");
    assert!(fleet.appraised(node_id(), key, (7, 1), posture(Verdict::Contraindicated), None, NOW));
    assert_eq!(epoch(), 4);
    put(8, &|node| node.holds.push(hold(HoldKind::Lower, None)));
    assert_eq!(epoch(), 5);
    put(9, &|node| node.attested_after = Some(NOW));
    assert_eq!(epoch(), 6);
    put(10, &|node| node.standing = Standing::Retired);
    assert_eq!(epoch(), 7);
    put(11, &|node| {
        node.labels.set("env".parse().unwrap(), Some("prod".parse().unwrap())).unwrap();
    });
    assert_eq!(epoch(), 8);
    put(12, &|node| node.attestation_key = tpm::Name::of_public_area(HashAlgorithm::Sha256, b"other"));
    assert_eq!(epoch(), 9);
    put(13, &|node| node.epoch = 1);
    assert_eq!(epoch(), 9, "it never falls");
    put(14, &|node| node.epoch = 20);
    assert_eq!(epoch(), 20);
    fleet.show_unrecorded(node_id(), 14, posture(Verdict::Affirming));
    assert_eq!(epoch(), 21);
    let key = tpm::Name::of_public_area(HashAlgorithm::Sha256, b"other");
    assert!(fleet.appraised(node_id(), key, (15, 30), posture(Verdict::Affirming), None, NOW));
    assert_eq!(epoch(), 30, "it is not below what is on record");
}

#[test]
fn a_credential_leaves_only_while_the_node_is_at_its_epoch_and_may_act() {
    assert!(node().bears(3, NOW));
    assert!(!node().bears(2, NOW) && !node().bears(4, NOW));
    assert!(!node().bears(3, NOW.plus(10 * MINUTE)), "it is stale by then");
    let held = LiveNode { holds: vec![hold(HoldKind::Block, None)], ..node() };
    assert!(!held.bears(3, NOW));
}

#[test]
fn an_older_revision_never_replaces_a_newer_one() {
    let fleet = Fleet::new([(node_id(), node())]);
    let verdict = || fleet.node(node_id()).unwrap().posture.as_ref().unwrap().verdict;
    let key = node().attestation_key;
    let appraised =
        |revision, verdict| fleet.appraised(node_id(), key, (revision, 1), posture(verdict), None, NOW);
    assert!(appraised(6, Verdict::Contraindicated));
    assert_eq!(verdict(), Verdict::Contraindicated);
    assert!(appraised(6, Verdict::Affirming), "an older one is not needed any more");
    assert_eq!(verdict(), Verdict::Contraindicated);
    fleet.put(node_id(), node(), NOW);
    assert_eq!(verdict(), Verdict::Contraindicated);
    assert!(!appraised(8, Verdict::Affirming), "revision 7 is missing: it may have changed the rest");
    assert_eq!(verdict(), Verdict::Contraindicated);
    assert!(appraised(7, Verdict::Affirming));
    assert_eq!(verdict(), Verdict::Affirming);
    let other = tpm::Name::of_public_area(HashAlgorithm::Sha256, b"another AK");
    assert!(!fleet.appraised(node_id(), other, (8, 1), posture(Verdict::Affirming), None, NOW));
    let unknown = NodeId::from_bytes([9; 32]);
    assert!(!fleet.appraised(unknown, key, (1, 1), posture(Verdict::Affirming), None, NOW));
    assert_eq!(fleet.len(), 1, "a node that is not there stays away");
    fleet.show_unrecorded(node_id(), 7, posture(Verdict::Contraindicated));
    assert_eq!(verdict(), Verdict::Contraindicated);
    let read_at_the_same_revision = LiveNode { revision: 7, ..node() };
    fleet.put(node_id(), read_at_the_same_revision, NOW);
    assert_eq!(verdict(), Verdict::Contraindicated);
    fleet.remove(node_id());
    assert!(fleet.is_empty());
}

#[test]
fn evidence_against_a_node_that_is_not_on_record_outlives_changes_and_appraisals_of_older_evidence() {
    let fleet = Fleet::new([(node_id(), node())]);
    let verdict = || fleet.node(node_id()).unwrap().posture.as_ref().unwrap().verdict;
    let key = node().attestation_key;
    let at = |verdict, seconds| Posture {
        evidence_at: NOW.plus(Duration::from_secs(seconds)),
        ..posture(verdict)
    };
    let appraised = |revision, posture| fleet.appraised(node_id(), key, (revision, 1), posture, None, NOW);
    // Also where the older evidence was appraised again while this was under way.
    assert!(appraised(6, at(Verdict::Affirming, 0)));
    fleet.distrust(node_id(), key, at(Verdict::Contraindicated, 10));
    assert_eq!((verdict(), fleet.is_distrusted(node_id())), (Verdict::Contraindicated, true));
    fleet.put(node_id(), LiveNode { revision: 7, ..node() }, NOW);
    assert!(appraised(8, at(Verdict::Affirming, 0)));
    fleet.hide(node_id(), 9);
    fleet.put(node_id(), LiveNode { revision: 9, ..node() }, NOW);
    assert_eq!(verdict(), Verdict::Contraindicated);
    assert_eq!(fleet.node(node_id()).unwrap().revision, 9, "the rest is as the store has it");

    assert!(appraised(10, at(Verdict::Affirming, 20)));
    assert_eq!((verdict(), fleet.is_distrusted(node_id())), (Verdict::Affirming, false));
    fleet.distrust(node_id(), key, at(Verdict::Contraindicated, 10));
    assert_eq!(verdict(), Verdict::Affirming, "it has shown later evidence");

    fleet.distrust(node_id(), key, at(Verdict::Contraindicated, 30));
    let read = LiveNode { revision: 11, posture: Some(at(Verdict::Affirming, 40)), ..node() };
    fleet.put(node_id(), read, NOW);
    assert_eq!(verdict(), Verdict::Affirming);

    fleet.distrust(node_id(), key, at(Verdict::Contraindicated, 50));
    let other = tpm::Name::of_public_area(HashAlgorithm::Sha256, b"another AK");
    let enrolled = LiveNode { revision: 12, attestation_key: other, posture: None, ..node() };
    fleet.put(node_id(), enrolled, NOW);
    assert_eq!(fleet.node(node_id()).unwrap().posture, None);
    assert!(!fleet.is_distrusted(node_id()));
}

#[test]
fn a_node_that_could_not_be_read_does_not_come_back_as_it_was_before() {
    let fleet = Fleet::new([(node_id(), node())]);
    fleet.hide(node_id(), 5);
    assert_eq!(fleet.len(), 1, "it is here as the store has it");
    fleet.hide(node_id(), 6);
    assert!(fleet.node(node_id()).is_none() && fleet.is_empty());
    let before = |revision| LiveNode { revision, ..node() };
    fleet.put(node_id(), before(5), NOW);
    assert!(fleet.node(node_id()).is_none());
    fleet.hide(node_id(), 4);
    let key = node().attestation_key;
    assert!(!fleet.appraised(node_id(), key, (6, 1), posture(Verdict::Affirming), None, NOW));
    fleet.put(node_id(), before(5), NOW);
    assert!(fleet.node(node_id()).is_none());
    fleet.put(node_id(), before(6), NOW);
    assert_eq!(fleet.node(node_id()).unwrap().revision, 6);

    // One that was never here.
    let new = NodeId::from_bytes([9; 32]);
    fleet.hide(new, 2);
    fleet.put(new, before(1), NOW);
    assert!(fleet.node(new).is_none());
    fleet.put(new, before(2), NOW);
    assert!(fleet.node(new).is_some());
}

#[test]
fn a_credential_that_never_left_is_dropped() {
    let fleet = Fleet::new([(node_id(), node())]);
    fleet.drop_credential(node_id(), serial(2));
    assert_eq!(fleet.node(node_id()).unwrap().credentials.len(), 1);
    fleet.drop_credential(node_id(), serial(1));
    assert!(fleet.node(node_id()).unwrap().credentials.is_empty());
}

#[test]
fn expired_credentials_are_dropped_when_a_node_changes() {
    let fleet = Fleet::new([(node_id(), node())]);
    let new = LiveCredential { serial: serial(2), not_before: NOW, not_after: NOW.plus(20 * MINUTE) };
    let now = NOW.plus(15 * MINUTE);
    let key = node().attestation_key;
    assert!(fleet.appraised(node_id(), key, (6, 1), posture(Verdict::Affirming), Some(new.clone()), now));
    assert_eq!(fleet.node(node_id()).unwrap().credentials, [new]);
}
