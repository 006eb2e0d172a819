//! What the verifier has said yes to, written down by those who heard it, and held against the database of a dead one.

use std::collections::BTreeMap;
use std::path::Path;

use rootbound_common::id::NodeId;
use rootbound_swtpm_tests::daemon::VerifierSite;
use rootbound_verifier::audit::verify::Walk;
use rootbound_verifier::node::{NodeRecord, Standing};
use rootbound_verifier::store::{
    AuditStore, DecisionKind, DecisionStore, EvidenceStore, InventoryStore, NodeStore, ReferenceStore,
    SqliteStore,
};
use sqlx::{ConnectOptions, Connection};

/// More than a test makes of anything.
const ALL: u32 = 1_000_000;

/// Everything that was promised.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By machine.
    pub(crate) nodes: BTreeMap<NodeId, Promises>,
    /// The latest version of the reference set `other` that an operator was told of.
    pub(crate) reference_version: u32,
    seen: BTreeMap<NodeId, u64>,
}

/// What one machine was promised.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    /// An operator was told that it is in the inventory.
    pub(crate) listed: bool,
    /// It, or an operator, was told that it is admitted (`true`) or retired (`false`); `None` while that is being changed.
    pub(crate) admitted: Option<bool>,
    /// Challenges that it has answered, whatever became of the answers.
    pub(crate) answered: usize,
    /// Answers that it was told are accepted.
    pub(crate) accepted: usize,
    /// The TPM's clock in the last of them; forgotten when an operator takes a retired machine back.
    pub(crate) clock: u64,
    /// Serial numbers of the certificates that it got.
    pub(crate) serials: Vec<String>,
}

impl Ledger {
    /// The promises to a machine.
    pub(crate) fn node(&mut self, node: NodeId) -> &mut Promises {
        self.nodes.entry(node).or_default()
    }

    /// Holds every promise against what is on the disk of a verifier that does not run.
    pub(crate) async fn audit(&mut self, site: &VerifierSite) {
        let folder = tempfile::tempdir().expect("a folder");
        let database = site.copy_database(folder.path());
        check_integrity(&database).await;
        let store = SqliteStore::open(&database).await.expect("a database that can be opened");
        let inventory = store.inventory().await.expect("the inventory");
        let sets = store.reference_sets().await.expect("reference sets");
        let version =
            sets.iter().filter(|(set, _)| set.id.name.as_str() == "other").map(|(set, _)| set.id.version);
        assert!(version.max().unwrap_or(0) >= self.reference_version, "a reference set is lost");
        for (id, promises) in &self.nodes {
            let listed = inventory.iter().any(|entry| entry.node == *id);
            assert!(listed || !promises.listed, "{id} is not listed any more");
            let node = store.node(*id).await.expect("a row that can be read");
            let Some(node) = node else {
                assert_eq!(promises.admitted, None, "{id} is lost");
                continue;
            };
            let seen = self.seen.entry(*id).or_default();
            assert!(node.revision >= *seen, "revision of {id} went back: {} after {seen}", node.revision);
            *seen = node.revision;
            promises.audit_node(&node);
            promises.audit_records(&store, *id).await;
        }
        check_trail(&store).await;
        store.close().await;
    }
}

/// The trail is one chain, whatever was cut short, and what was signed of it stands.
async fn check_trail(store: &SqliteStore) {
    let keys = store.audit_keys().await.expect("keys");
    let mut walk = Walk::new(&keys, None);
    for checkpoint in store.checkpoints(0, ALL).await.expect("checkpoints") {
        walk.checkpoint(&checkpoint);
    }
    let mut from = 1;
    loop {
        let page = store.segments(from, ALL).await.expect("segments");
        let Some(last) = page.last() else { break };
        from = last.head().sequence + 1;
        page.iter().for_each(|segment| walk.segment(segment));
    }
    let verification = walk.end();
    assert!(verification.is_whole(), "{:?}", verification.damages);
    assert!(verification.records > 0, "the verifier did not even start");
}

impl Promises {
    fn audit_node(&self, node: &NodeRecord) {
        let id = node.id;
        match self.admitted {
            Some(true) => {
                assert!(matches!(node.standing, Standing::Admitted { .. }), "{id}: {:?}", node.standing)
            }
            Some(false) => assert_eq!(node.standing, Standing::Retired, "{id}"),
            None => {}
        }
        let clock = node.last_seen.as_ref().map_or(0, |seen| seen.clock.clock);
        assert!(clock >= self.clock, "clock of {id} went back: {clock} after {}", self.clock);
    }

    async fn audit_records(&self, store: &SqliteStore, id: NodeId) {
        let recorded = store.certificates(id, ALL).await.expect("certificates");
        let recorded: Vec<_> = recorded.iter().map(|certificate| certificate.serial.to_string()).collect();
        for serial in &self.serials {
            assert!(recorded.contains(serial), "{id} has certificate {serial}, of which there is no record");
        }
        let decisions = store.decisions(Some(id), ALL).await.expect("decisions");
        for decision in &decisions {
            let record = store.record(decision.id).await.expect("the trail");
            assert!(record.is_some(), "decision {} of {id} is not in the audit trail", decision.id);
        }
        let accepted = decisions
            .iter()
            .filter(|decision| decision.kind == DecisionKind::Attest && decision.granted)
            .count();
        assert!(accepted >= self.accepted, "{id}: {accepted} on record, told of {}", self.accepted);
        assert!(
            accepted <= self.answered,
            "{id}: {accepted} accepted, {} challenges answered",
            self.answered
        );
    }
}

async fn check_integrity(database: &Path) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
    let mut connection = options.connect().await.expect("a database that can be opened");
    let ok: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.expect("a word");
    assert_eq!(ok, "ok");
    let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut connection).await.expect("rows");
    assert!(broken.is_empty(), "{} rows refer to rows that are not there", broken.len());
    connection.close().await.expect("a connection that can be closed");
}
