//! Nodes.

use rootbound_verifier::node::{AdmittedBy, Labels, Name, Standing};
use rootbound_verifier::posture::LiveNode;
use rootbound_verifier::store::{DecisionKind, DecisionRecord, NodeChange, Store};

use super::BackEnd;
use crate::fixtures::{
    Machine, NOW, assert_same, at_once, codes, decision, labels, last_seen, later, most_labels, name,
};

fn operated(machine: &Machine, code: &str) -> DecisionRecord {
    decision(Some(machine.id()), DecisionKind::Operate, code)
}

async fn approve(store: &dyn Store, machine: &Machine) -> NodeChange {
    store.approve_node(machine.id(), operated(machine, "approved")).await.unwrap()
}

async fn retire(store: &dyn Store, machine: &Machine) -> NodeChange {
    store.retire_node(machine.id(), operated(machine, "retired")).await.unwrap()
}

async fn label(store: &dyn Store, machine: &Machine, changes: &[(&str, Option<&str>)]) -> NodeChange {
    let changes = changes.iter().map(|(key, value)| (name(key), value.map(name))).collect();
    store.label_node(machine.id(), changes, operated(machine, "labelled")).await.unwrap()
}

pub(crate) async fn nodes_come_in_pages_by_rising_id(back_end: &impl BackEnd) {
    let store = back_end.store();
    assert!(store.nodes(None, 10).await.unwrap().is_empty());
    let mut expected = Vec::new();
    for seed in 1..=7 {
        let machine = Machine::new(seed);
        machine.enrolled(&*store, 100 + seed).await;
        expected.push(machine.id());
    }
    expected.sort();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.nodes(after, 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        found.extend(page.iter().map(|node| node.id));
    }
    assert_eq!(found, expected);
    let all = store.nodes(None, 100).await.unwrap();
    assert_same(&all[3], &store.node(expected[3]).await.unwrap().unwrap());
}

pub(crate) async fn pending_node_is_approved_once(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    assert!(matches!(approve(&*store, &machine).await, NodeChange::Unknown));
    machine.enrolled(&*store, 101).await;
    let NodeChange::Changed(node) = approve(&*store, &machine).await else { panic!("not approved") };
    assert_eq!((node.standing, node.revision), (Standing::Admitted { by: AdmittedBy::Approval }, 2));
    assert_same(&machine.node(&*store).await, &node);
    let NodeChange::Already(again) = approve(&*store, &machine).await else { panic!("approved twice") };
    assert_same(&again, &node);
    assert_same(&machine.node(&*store).await, &node);
    assert_eq!(codes(&*store, None).await, ["approved", "enrolled"]);
}

pub(crate) async fn retired_node_that_is_approved_starts_anew(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    machine.attested(&*store, later(600)).await;
    // The clock of a node that was only pending is kept.
    let NodeChange::Changed(node) = approve(&*store, &machine).await else { panic!("not approved") };
    assert_eq!(node.last_seen, Some(last_seen()));
    let NodeChange::Changed(node) = retire(&*store, &machine).await else { panic!("not retired") };
    assert_eq!(node.last_seen, Some(last_seen()));
    let NodeChange::Changed(node) = approve(&*store, &machine).await else { panic!("not approved") };
    assert_eq!(node.last_seen, None);
    assert_eq!(store.last_quote(machine.id()).await.unwrap(), None);
    let live = store.live_node(machine.id(), later(0)).await.unwrap().unwrap();
    assert_eq!(live.posture, None);
    assert_eq!((node.standing, node.revision), (Standing::Admitted { by: AdmittedBy::Approval }, 5));
    assert_same(&machine.node(&*store).await, &node);
}

pub(crate) async fn node_is_retired_once(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    assert!(matches!(retire(&*store, &machine).await, NodeChange::Unknown));
    machine.enrolled(&*store, 101).await;
    let NodeChange::Changed(node) = retire(&*store, &machine).await else { panic!("not retired") };
    assert_eq!((node.standing, node.revision), (Standing::Retired, 2));
    assert_same(&machine.node(&*store).await, &node);
    let NodeChange::Already(again) = retire(&*store, &machine).await else { panic!("retired twice") };
    assert_same(&again, &node);
    assert_eq!(codes(&*store, None).await, ["retired", "enrolled"]);
}

pub(crate) async fn labels_are_set_and_taken_away(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    let set = [("env", Some("prod")), ("rack", Some("b7"))];
    assert!(matches!(label(&*store, &machine, &set).await, NodeChange::Unknown));
    machine.enrolled(&*store, 101).await;
    let NodeChange::Changed(node) = label(&*store, &machine, &set).await else { panic!("not labelled") };
    assert_eq!((node.labels, node.revision), (labels(&[("env", "prod"), ("rack", "b7")]), 2));
    let change = [("env", Some("test")), ("rack", None), ("none", None)];
    let NodeChange::Changed(node) = label(&*store, &machine, &change).await else { panic!("not labelled") };
    assert_eq!((&node.labels, node.revision), (&labels(&[("env", "test")]), 3));
    assert_same(&machine.node(&*store).await, &node);
    for nothing in [&[("env", Some("test"))][..], &[("rack", None)], &[]] {
        let change = label(&*store, &machine, nothing).await;
        assert!(matches!(change, NodeChange::Already(_)), "{change:?}");
    }
    assert_same(&machine.node(&*store).await, &node);
    assert_eq!(codes(&*store, None).await, ["labelled", "labelled", "enrolled"]);
}

pub(crate) async fn labels_are_bounded_by_what_comes_out(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    let most = most_labels("k");
    let changes: Vec<(Name, Option<Name>)> =
        most.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    let full = store.label_node(machine.id(), changes, operated(&machine, "labelled")).await.unwrap();
    assert!(matches!(full, NodeChange::Changed(_)), "{full:?}");
    let before = machine.node(&*store).await;
    let more = label(&*store, &machine, &[("more", Some("v"))]).await;
    assert!(matches!(more, NodeChange::TooManyLabels), "{more:?}");
    assert_same(&machine.node(&*store).await, &before);
    assert_eq!(codes(&*store, None).await, ["labelled", "enrolled"]);
    // One in, one out, in whichever order.
    let swapped = label(&*store, &machine, &[("more", Some("v")), ("k0", None)]).await;
    let NodeChange::Changed(node) = swapped else { panic!("{swapped:?}") };
    assert_eq!(node.labels.len(), Labels::MAX);
}

pub(crate) async fn of_many_changes_at_once_none_is_lost(back_end: &impl BackEnd) {
    let machine = Machine::new(1);
    machine.enrolled(&*back_end.store(), 101).await;
    let changes = at_once(16, |index| {
        let (store, machine) = (back_end.store(), machine.clone());
        async move { label(&*store, &machine, &[(&format!("k{index}"), Some("v"))]).await }
    })
    .await;
    assert!(changes.iter().all(|change| matches!(change, NodeChange::Changed(_))));
    let node = machine.node(&*back_end.store()).await;
    assert_eq!((node.labels.len(), node.revision), (16, 17));
    assert_eq!(codes(&*back_end.store(), None).await.len(), 17);
}

fn assert_same_life(one: &LiveNode, other: &LiveNode) {
    assert_same(one, other);
}

pub(crate) async fn live_view_of_one_node_is_that_of_all(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machines: Vec<_> = (1..=4).map(Machine::new).collect();
    for (machine, ak) in machines.iter().zip(101..) {
        machine.enrolled(&*store, ak).await;
    }
    approve(&*store, &machines[1]).await;
    label(&*store, &machines[1], &[("env", Some("prod"))]).await;
    machines[1].attested(&*store, later(300)).await;
    machines[1].attested(&*store, later(600)).await;
    machines[2].attested(&*store, later(10)).await;
    retire(&*store, &machines[3]).await;

    for now in [NOW, later(10), later(300), later(600)] {
        let all = store.live_nodes(now).await.unwrap();
        assert_eq!(all.len(), 4);
        for (id, live) in &all {
            assert_same_life(live, &store.live_node(*id, now).await.unwrap().unwrap());
            let node = store.node(*id).await.unwrap().unwrap();
            assert_eq!((live.revision, live.standing), (node.revision, node.standing));
            assert_eq!((&live.labels, live.attestation_key), (&node.labels, node.attestation_key.name()));
        }
    }
    assert!(store.live_node(Machine::new(9).id(), NOW).await.unwrap().is_none());
}

pub(crate) async fn live_view_has_the_credentials_that_have_not_expired(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    let short = machine.attested(&*store, later(300)).await;
    let long = machine.attested(&*store, later(600)).await;
    let serials = async |now| {
        let live = store.live_node(machine.id(), now).await.unwrap().unwrap();
        live.credentials
            .into_iter()
            .map(|credential| (credential.serial, credential.not_after))
            .collect::<Vec<_>>()
    };
    assert_eq!(serials(NOW).await, [(short, later(300)), (long, later(600))]);
    assert_eq!(serials(later(299)).await.len(), 2);
    assert_eq!(serials(later(300)).await, [(long, later(600))]);
    assert_eq!(serials(later(600)).await, []);
}
