//! The inventory.

use rootbound_verifier::store::InventoryEntry;

use super::BackEnd;
use crate::fixtures::{Machine, assert_same, inventory_entry, labels, provenance, record};

pub(crate) async fn entries_are_put_replaced_listed_and_removed(back_end: &impl BackEnd) {
    let store = back_end.store();
    let mut entries: Vec<_> =
        (1..=3).map(|seed| inventory_entry(Machine::new(seed).id(), labels(&[("env", "prod")]))).collect();
    for entry in &entries {
        store.put_inventory(entry, record("test")).await.unwrap();
    }
    entries[0] = InventoryEntry {
        waive_endorsement: false,
        labels: labels(&[]),
        provenance: provenance("moved"),
        ..entries[0].clone()
    };
    store.put_inventory(&entries[0], record("test")).await.unwrap();
    assert_eq!(store.inventory_entry(entries[0].node).await.unwrap().as_ref(), Some(&entries[0]));
    assert_eq!(store.inventory_entry(Machine::new(9).id()).await.unwrap(), None);
    entries.sort_by_key(|entry| entry.node);
    assert_eq!(store.inventory().await.unwrap(), entries);
    assert!(store.remove_inventory(entries[1].node, record("test")).await.unwrap());
    assert!(!store.remove_inventory(entries[1].node, record("test")).await.unwrap());
    entries.remove(1);
    assert_eq!(store.inventory().await.unwrap(), entries);
}

pub(crate) async fn node_stays_enrolled_when_its_entry_is_removed(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    store
        .put_inventory(&inventory_entry(machine.id(), labels(&[("env", "prod")])), record("test"))
        .await
        .unwrap();
    let node = machine.enrolled(&*store, 101).await;
    assert!(store.remove_inventory(machine.id(), record("test")).await.unwrap());
    assert_same(&machine.node(&*store).await, &node);
}
