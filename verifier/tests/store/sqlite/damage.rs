//! Rows that no verb writes: each is a named inconsistency, whoever reads it; and the schema refuses most of them.

use std::fmt::Debug;

use rootbound_common::random;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_compute::values::{BootValue, BootValues, Measured, Source};
use rootbound_verifier::appraisal::runtime::DigestSet;
use rootbound_verifier::audit::verify::{Damage, Walk};
use rootbound_verifier::audit::{AuditKey, Head};
use rootbound_verifier::reference::{BootSet, DenyList, ReferenceBook, SetContent, SetKind};
use rootbound_verifier::store::logs::{BootLogRecord, FrameChange, LogChange, LogRecord};
use rootbound_verifier::store::sets::{SetChange, UpdateEnd};
use rootbound_verifier::store::{EvidenceRecord, PendingEnrollment, SqliteStore, StoreError, StoreOpenError};

use super::{BackEnd as _, Sqlite, file};
use crate::fixtures::{
    Machine, NOW, accepted, enrolled, evidence, fresh, inventory_entry, join_token, labels, later, name,
    provenance, record,
};

/// One of each row: machine 1 is admitted by a token and has shown evidence, machine 2 is in the inventory.
async fn populated() -> Sqlite {
    let sqlite = Sqlite::new().await;
    let store = sqlite.store();
    let machine = Machine::new(1);
    let (token, digest) = join_token("one");
    store.create_join_token(&token, digest, record("test")).await.unwrap();
    enrolled(machine.enroll(&*store, 101, Some(digest)).await);
    machine.attested(&*store, later(600)).await;
    store.put_inventory(&inventory_entry(Machine::new(2).id(), labels(&[])), record("test")).await.unwrap();
    store.put_reference_set(name("default"), accepted(1), provenance(""), record("test")).await.unwrap();
    let body = rootbound_verifier::reference::ProfileBody::initial(name("default"));
    store.put_profile(name("any"), body, provenance(""), record("test")).await.unwrap();
    sqlite
}

#[track_caller]
pub(super) fn assert_inconsistent<T: Debug>(
    result: Result<T, StoreError>,
    kind: &str,
    key: &str,
    reason: &str,
    sql: &str,
) {
    match result {
        Err(StoreError::Inconsistent { what, id, why }) => {
            assert_eq!((what, id.as_str()), (kind, key), "{sql}");
            assert!(why.contains(reason), "{sql}: {why}");
        }
        other => panic!("{sql}: {other:?}"),
    }
}

const NODE: [(&str, &str); 19] = [
    ("UPDATE node SET standing = 'trusted'", "standing"),
    ("UPDATE node SET standing = 'retired'", "standing"),
    ("UPDATE node SET standing = 'pending'", "standing"),
    ("UPDATE node SET admitted_by = NULL", "standing"),
    ("UPDATE node SET admitted_by = 'nobody'", "admitted_by"),
    ("UPDATE node SET labels = '{'", "labels"),
    ("UPDATE node SET labels = '{\"env\":\"a b\"}'", "labels"),
    ("UPDATE node SET ak_public = x'0023'", "AK"),
    ("UPDATE node SET ak_public = (SELECT ek_public FROM endorsed_key)", "AK"),
    ("UPDATE node SET revision = -1", "revision"),
    ("UPDATE node SET clock = NULL", "part of its clock"),
    ("UPDATE node SET reset_count = NULL", "part of its clock"),
    ("UPDATE node SET reset_count = 4294967296", "reset_count"),
    ("UPDATE node SET restart_count = -1", "restart_count"),
    ("UPDATE node SET clock_safe = 2", "clock_safe"),
    ("DELETE FROM endorsed_key", "endorsement"),
    ("UPDATE endorsed_key SET ek_public = x''", "EK"),
    ("UPDATE endorsed_key SET trust_anchor = zeroblob(32)", "with a trust anchor"),
    ("UPDATE endorsed_key SET endorsement = 'vendor_chain'", "without a certificate"),
];

#[tokio::test]
async fn nodes_that_no_verb_writes_are_inconsistent() {
    let id = Machine::new(1).id();
    for (sql, reason) in NODE {
        let sqlite = populated().await;
        sqlite.corrupt(sql).await;
        let store = sqlite.store();
        assert_inconsistent(store.node(id).await, "node", &id.to_string(), reason, sql);
        assert_inconsistent(store.nodes(None, 10).await, "node", &id.to_string(), reason, sql);
    }
}

#[tokio::test]
async fn node_under_another_nodes_id_is_inconsistent() {
    let sqlite = populated().await;
    sqlite.corrupt("UPDATE node SET id = zeroblob(32); UPDATE endorsed_key SET node = zeroblob(32)").await;
    let id = rootbound_common::id::NodeId::from_bytes([0; 32]);
    let found = sqlite.store().node(id).await;
    assert_inconsistent(found, "node", &id.to_string(), "another node's", "its EK");
}

#[tokio::test]
async fn live_view_of_a_damaged_node_is_inconsistent() {
    let id = Machine::new(1).id();
    for (sql, reason) in [
        ("UPDATE node SET standing = 'trusted'", "standing"),
        ("UPDATE node SET labels = '[]'", "labels"),
        ("UPDATE node SET ak_public = x'0023'", "AK"),
        ("UPDATE node SET revision = -1", "revision"),
        ("UPDATE evidence SET posture = '{}'", "posture"),
        ("UPDATE evidence SET posture = replace(posture, 'affirming', 'splendid')", "posture"),
    ] {
        let sqlite = populated().await;
        sqlite.corrupt(sql).await;
        let store = sqlite.store();
        assert_inconsistent(store.live_node(id, NOW).await, "node", &id.to_string(), reason, sql);
        assert_inconsistent(store.live_nodes(NOW).await, "node", &id.to_string(), reason, sql);
    }
}

#[tokio::test]
async fn credentials_that_no_verb_writes_are_inconsistent() {
    let id = Machine::new(1).id();
    for (sql, key, reason) in [
        ("UPDATE certificate SET serial = x'00'", "00", "serial number"),
        ("UPDATE certificate SET serial = zeroblob(16)", "00000000000000000000000000000000", "serial number"),
    ] {
        let sqlite = populated().await;
        sqlite.corrupt(sql).await;
        let store = sqlite.store();
        assert_inconsistent(store.live_node(id, NOW).await, "certificate", key, reason, sql);
        assert_inconsistent(store.live_nodes(NOW).await, "certificate", key, reason, sql);
        assert_inconsistent(store.certificates(id, 10).await, "certificate", key, reason, sql);
    }
    let sqlite = populated().await;
    let serial = sqlite.store().certificates(id, 1).await.unwrap()[0].serial.to_string();
    sqlite.corrupt("UPDATE certificate SET key_digest = x'00'").await;
    let found = sqlite.store().certificates(id, 10).await;
    assert_inconsistent(found, "certificate", &serial, "1 bytes, not 32", "key_digest");
}

#[tokio::test]
async fn evidence_that_no_verb_writes_is_inconsistent() {
    let id = Machine::new(1).id();
    for sql in [
        "UPDATE evidence SET pcrs = ''",
        "UPDATE evidence SET pcrs = '{\"sha256\":{\"24\":\"00\"}}'",
        "UPDATE evidence SET pcrs = '{\"sha256\":{\"0\":\"00\"}}'",
    ] {
        let sqlite = populated().await;
        sqlite.corrupt(sql).await;
        let found = sqlite.store().last_quote(id).await;
        assert_inconsistent(found, "evidence", &id.to_string(), "pcrs", sql);
    }
}

#[tokio::test]
async fn pending_enrollments_that_no_verb_writes_are_inconsistent_and_taken_all_the_same() {
    for (sql, reason) in [
        ("UPDATE pending_enrollment SET ek_public = x'00'", "stored EK"),
        ("UPDATE pending_enrollment SET ak_public = ek_public", "stored AK"),
        ("UPDATE pending_enrollment SET endorsement = 'rumour'", "endorsement is `rumour`"),
        ("UPDATE pending_enrollment SET ek_certificate = x'00'", "with a certificate"),
        (
            "UPDATE pending_enrollment SET endorsement = 'vendor_chain', ek_certificate = x'3000', \
             trust_anchor = zeroblob(32)",
            "stored EK",
        ),
        ("UPDATE pending_enrollment SET secret_hash = x'00'", "secret_hash"),
        ("UPDATE pending_enrollment SET node = zeroblob(32)", "another node's"),
        ("UPDATE pending_enrollment SET join_token_digest = x'00'", "join_token_digest"),
    ] {
        let sqlite = Sqlite::new().await;
        let store = sqlite.store();
        let (activation, _) = Machine::new(1).activation(101, later(60));
        let pending = PendingEnrollment { id: fresh(), activation, join_token_digest: None };
        assert!(store.begin_enrollment(&pending, 10, NOW).await.unwrap());
        sqlite.corrupt(sql).await;
        let key = data_encoding::HEXLOWER.encode(&pending.id);
        assert_inconsistent(store.take_enrollment(&pending.id).await, "pending enrolment", &key, reason, sql);
        assert!(store.take_enrollment(&pending.id).await.unwrap().is_none(), "{sql}");
    }
}

#[tokio::test]
async fn logs_that_no_verb_writes_are_inconsistent() {
    let ima = r#"{"bank":"sha256","prefix":{"entries":1,"bytes":100,"value":"00"},"pending":{"entries":0,"bytes":0},"resend":false,"retried":false}"#;
    for (sql, reason) in [
        ("UPDATE node_log SET ima = '{}'".to_owned(), "ima"),
        (format!("UPDATE node_log SET ima = '{ima}'"), "a value of another length"),
        (
            format!(
                "UPDATE node_log SET ima = '{}'",
                ima.replace("\"00\"", &format!("\"{}\"", "0".repeat(64)))
            ),
            "a value of zeros",
        ),
        ("UPDATE node_log SET reset_count = -1".to_owned(), "reset_count"),
    ] {
        let sqlite = Sqlite::new().await;
        let store = sqlite.store();
        let machine = Machine::new(1);
        machine.enrolled(&*store, 101).await;
        let record = LogRecord { reset_count: 7, boot_log: BootLogRecord::Absent, ima: None };
        let logs = Some(LogChange { record, frames: FrameChange::Keep });
        store.record_evidence(EvidenceRecord { logs, ..evidence(machine.id(), 1) }).await.unwrap();
        assert!(store.logs(machine.id()).await.unwrap().is_some());
        sqlite.corrupt(&sql).await;
        let key = machine.id().to_string();
        assert_inconsistent(store.logs(machine.id()).await, "logs", &key, reason, &sql);
    }
}

#[tokio::test]
async fn page_of_evidence_has_the_other_nodes_where_one_row_is_damaged() {
    for (sql, is_quote) in
        [("UPDATE evidence SET pcrs = '{'", true), ("UPDATE node_log SET ima = '{'", false)]
    {
        let sqlite = Sqlite::new().await;
        let store = sqlite.store();
        let machine = Machine::new(1);
        machine.enrolled(&*store, 101).await;
        Machine::new(2).enrolled(&*store, 102).await;
        let record = LogRecord { reset_count: 5, boot_log: BootLogRecord::Absent, ima: None };
        let logs = Some(LogChange { record, frames: FrameChange::Keep });
        store.record_evidence(EvidenceRecord { logs, ..evidence(machine.id(), 1) }).await.unwrap();
        sqlite.corrupt(sql).await;
        let page = store.kept_evidence(None, 10).await.unwrap();
        assert_eq!(page.len(), 2, "{sql}");
        let kept = page.iter().find(|kept| kept.node == machine.id()).unwrap();
        assert_eq!(kept.quote.is_err(), is_quote, "{sql}: {:?}", kept.quote);
        assert_eq!(kept.logs.is_some(), is_quote, "{sql}: logs that do not stand are as good as none");
    }
}

#[tokio::test]
async fn references_that_no_verb_writes_are_inconsistent() {
    for (sql, key, reason) in [
        ("UPDATE reference_set SET accepted = '{}'", "default@1", "accepted"),
        ("UPDATE reference_set SET accepted = '{\"sha1\":{}}'", "default@1", "accepted"),
        ("UPDATE reference_set SET name = 'a b'", "a b@1", "a name is"),
        ("UPDATE reference_set SET version = 0", "default@0", "the first version is 1"),
        ("UPDATE reference_set SET version = 4294967296", "default@4294967296", "version"),
    ] {
        let sqlite = populated().await;
        sqlite.corrupt("DROP TRIGGER reference_set_is_immutable").await;
        sqlite.corrupt(sql).await;
        let store = sqlite.store();
        assert_inconsistent(store.reference_sets().await, "reference set", key, reason, sql);
        assert_inconsistent(
            store.reference_book(&ReferenceBook::default()).await,
            "reference set",
            key,
            reason,
            sql,
        );
    }
    let sqlite = populated().await;
    let sql = "UPDATE reference_set SET withdrawn_at = 7";
    sqlite.corrupt(sql).await;
    let sets = sqlite.store().reference_sets().await;
    assert_inconsistent(sets, "reference set", "default@1", "only a part", sql);

    for (sql, key, reason) in [
        ("UPDATE profile SET body = '{}'", "any@1", "body"),
        (
            "UPDATE profile SET body = replace(body, '\"references\":[\"default\"]', '\"references\":[]')",
            "any@1",
            "references",
        ),
        ("UPDATE profile SET name = ''", "@1", "a name is"),
        ("UPDATE profile SET version = 0", "any@0", "the first version is 1"),
    ] {
        let sqlite = populated().await;
        sqlite.corrupt("DROP TRIGGER profile_is_immutable").await;
        sqlite.corrupt(sql).await;
        let store = sqlite.store();
        assert_inconsistent(store.profiles().await, "profile", key, reason, sql);
        assert_inconsistent(
            store.reference_book(&ReferenceBook::default()).await,
            "profile",
            key,
            reason,
            sql,
        );
    }
}

#[tokio::test]
async fn boot_sets_updates_and_deny_lists_that_no_verb_writes_are_inconsistent() {
    let bank = HashAlgorithm::Sha256;
    let measured = Measured::CommandLine { text: "quiet".into() };
    let values = vec![BootValue { measured, label: String::new(), source: Source::default() }];
    let set = BootSet::new(BootValues::new(bank, values)).unwrap();
    let written = async || {
        let sqlite = Sqlite::new().await;
        let (store, content) = (sqlite.store(), SetContent::Boot(set.clone()));
        store.put_boot_set(name("kernel"), set.clone(), provenance(""), record("test")).await.unwrap();
        let (both, part) = (content.clone(), content);
        let staged = store.stage_set(name("kernel"), 1, both, part, provenance(""), record("test")).await;
        assert_eq!(staged.unwrap(), SetChange::Done { version: 2 });
        let list = DenyList::new(1, Vec::new()).unwrap();
        assert!(store.put_deny_list(list, provenance(""), record("test")).await.unwrap());
        sqlite
    };
    let empty = "UPDATE boot_set SET content = '{\"bank\":\"sha256\",\"values\":[]}' WHERE version = 2";
    for (sql, reason) in [("UPDATE boot_set SET content = '{}'", "content"), (empty, "at least one")] {
        let sqlite = written().await;
        sqlite.corrupt("DROP TRIGGER boot_set_is_immutable").await;
        sqlite.corrupt(sql).await;
        let key = if reason == "content" { "kernel@1" } else { "kernel@2" };
        assert_inconsistent(sqlite.store().boot_sets().await, "boot set", key, reason, sql);
    }
    let sqlite = written().await;
    let sql = "DROP TRIGGER set_staging_is_immutable; PRAGMA foreign_keys = OFF; \
        UPDATE set_staging SET part = NULL, part_content = X'00', part_digests = 1, kind = 'digests'";
    sqlite.corrupt(sql).await;
    let store = sqlite.store();
    let digests =
        std::sync::Arc::new(DigestSet::parse(format!("sha256:{}  *\n", "ab".repeat(32)).as_bytes()).unwrap());
    store
        .put_digest_set(name("kernel"), digests, b"x".to_vec(), provenance(""), record("test"))
        .await
        .unwrap();
    let step = store
        .end_update(
            UpdateEnd::Promoted,
            SetKind::Digests,
            &name("kernel"),
            None,
            provenance(""),
            record("test"),
        )
        .await;
    assert_inconsistent(step, "staged update", "kernel@2", "part_content", sql);
    let sqlite = written().await;
    let sql = "UPDATE deny_list SET entries = '7'";
    sqlite.corrupt("DROP TRIGGER deny_list_is_immutable").await;
    sqlite.corrupt(sql).await;
    assert_inconsistent(sqlite.store().deny_list(None).await, "deny list", "1", "entries", sql);
}

#[tokio::test]
async fn version_after_the_last_number_is_refused() {
    let sqlite = populated().await;
    sqlite
        .corrupt("DROP TRIGGER reference_set_is_immutable; UPDATE reference_set SET version = 4294967295")
        .await;
    let next =
        sqlite.store().put_reference_set(name("default"), accepted(2), provenance(""), record("test")).await;
    assert_inconsistent(next, "reference set", "default", "no version can follow", "version");
}

#[tokio::test]
async fn inventory_that_no_verb_writes_is_inconsistent_for_enrolments_too() {
    let machine = Machine::new(2);
    for (sql, reason) in [
        ("UPDATE inventory SET labels = '7'", "labels"),
        ("UPDATE inventory SET waive_endorsement = 2", "waive_endorsement"),
    ] {
        let sqlite = populated().await;
        sqlite.corrupt(sql).await;
        let store = sqlite.store();
        let key = machine.id().to_string();
        assert_inconsistent(store.inventory().await, "inventory entry", &key, reason, sql);
        assert_inconsistent(store.inventory_entry(machine.id()).await, "inventory entry", &key, reason, sql);
        let completed = rootbound_verifier::store::CompletedEnrollment {
            keys: machine.keys(102),
            join_token_digest: None,
            now: NOW,
            decision: evidence(machine.id(), 1).decision,
        };
        let enrolled = store.complete_enrollment(completed).await;
        assert_inconsistent(enrolled, "inventory entry", &key, reason, sql);
        assert!(store.node(machine.id()).await.unwrap().is_none());
    }
    let sqlite = populated().await;
    sqlite.corrupt("UPDATE inventory SET node = x'0102'").await;
    let found = sqlite.store().inventory().await;
    assert_inconsistent(found, "inventory entry", "0102", "2 bytes, not 32", "node");
}

#[tokio::test]
async fn join_tokens_that_no_verb_writes_are_inconsistent() {
    for (sql, reason) in [
        ("UPDATE join_token SET used_at = NULL", "only one is there"),
        ("UPDATE join_token SET used_by = NULL", "only one is there"),
        ("UPDATE join_token SET used_by = x'00'", "used_by"),
        ("UPDATE join_token SET revoked = 1", "both used and revoked"),
        ("UPDATE join_token SET revoked = 7", "revoked"),
        ("UPDATE join_token SET node = x'00'", "node"),
        ("UPDATE join_token SET labels = 'null'", "labels"),
    ] {
        let sqlite = populated().await;
        sqlite.corrupt(sql).await;
        assert_inconsistent(sqlite.store().join_tokens().await, "join token", "one", reason, sql);
    }
}

#[tokio::test]
async fn decisions_that_no_verb_writes_are_inconsistent() {
    for (sql, reason) in [
        ("UPDATE decision SET kind = 'guess'", "kind is `guess`"),
        ("UPDATE decision SET granted = 2", "granted"),
        ("UPDATE decision SET node = x'00'", "node"),
    ] {
        let sqlite = populated().await;
        let id = sqlite.store().decisions(None, 1).await.unwrap()[0].id.to_string();
        sqlite.corrupt("DROP TRIGGER decision_is_immutable").await;
        sqlite.corrupt(sql).await;
        assert_inconsistent(sqlite.store().decisions(None, 1).await, "decision", &id, reason, sql);
    }
}

#[tokio::test]
async fn schema_refuses_to_change_what_never_changes() {
    let sqlite = populated().await;
    let mut connection = super::raw(&super::file(sqlite.folder.path())).await;
    for sql in [
        "UPDATE reference_set SET accepted = '{}'",
        "DELETE FROM reference_set",
        "UPDATE profile SET body = '{}'",
        "DELETE FROM profile",
        "UPDATE decision SET granted = 1",
    ] {
        let refused = sqlx::query(sql).execute(&mut connection).await;
        assert!(refused.unwrap_err().to_string().contains("never"), "{sql}");
    }
    sqlite.store().withdraw_reference_set(&name("default"), provenance(""), record("test")).await.unwrap();
    let back = "UPDATE reference_set SET withdrawn_by = NULL, withdrawn_reason = NULL, withdrawn_at = NULL";
    let refused = sqlx::query(back).execute(&mut connection).await;
    assert!(refused.unwrap_err().to_string().contains("stays withdrawn"));
}

#[tokio::test]
async fn schema_refuses_nodes_that_no_verb_writes() {
    let sqlite = populated().await;
    let mut connection = super::raw(&super::file(sqlite.folder.path())).await;
    sqlx::query("PRAGMA ignore_check_constraints = OFF").execute(&mut connection).await.unwrap();
    for (sql, reason) in NODE {
        if matches!(
            reason,
            "standing" | "admitted_by" | "part of its clock" | "without a clock" | "clock_safe"
        ) {
            let refused = sqlx::query(sql).execute(&mut connection).await;
            assert!(refused.unwrap_err().to_string().contains("CHECK"), "{sql}");
        }
    }
}

/// The verb asks first; this is what holds if it should ever forget.
#[tokio::test]
async fn schema_refuses_one_attestation_key_for_two_nodes() {
    let sqlite = populated().await;
    let mut connection = super::raw(&super::file(sqlite.folder.path())).await;
    let copy = "INSERT INTO node (id, standing, admitted_by, labels, ak_public, revision, enrolled_at) \
                SELECT zeroblob(32), standing, admitted_by, labels, ak_public, revision, enrolled_at FROM node";
    let refused = sqlx::query(copy).execute(&mut connection).await;
    assert!(refused.unwrap_err().to_string().contains("UNIQUE constraint failed: node.ak_public"));
}

#[tokio::test]
async fn policy_bundle_with_another_text_than_was_written_is_inconsistent() {
    let sqlite = Sqlite::new().await;
    let store = sqlite.store();
    let record = store
        .put_policy_bundle(name("prod"), b"permit".to_vec(), provenance(""), record("test"))
        .await
        .unwrap();
    sqlite.corrupt("DROP TRIGGER policy_content_is_immutable").await;
    sqlite.corrupt("UPDATE policy_content SET text = x'00'").await;
    let found = store.policy_bundle(&name("prod"), None).await;
    assert_inconsistent(found, "policy bundle", &record.id.to_string(), "not the one that was written", "");
}

/// Three segments, of two records each, and a checkpoint of all of them.
async fn recorded() -> (Sqlite, AuditKey) {
    let (sqlite, key) = (Sqlite::new().await, AuditKey::generate(&mut random::system()));
    let store = sqlite.store();
    for _ in 0..3 {
        store.append(vec![record("one"), record("two")]).await.unwrap();
    }
    let head = store.trail_head().await.unwrap();
    store.put_checkpoint(key.sign(Head::default(), head, NOW)).await.unwrap();
    (sqlite, key)
}

#[tokio::test]
async fn rows_of_the_trail_stay_as_they_are() {
    let (sqlite, _) = recorded().await;
    let mut connection = super::raw(&file(sqlite.folder.path())).await;
    for (sql, why) in [
        ("UPDATE audit_segment SET previous = zeroblob(32)", "never changes"),
        ("DELETE FROM audit_segment WHERE first = 1", "begins before"),
        ("UPDATE audit_checkpoint SET at = 0", "never changes"),
        ("DELETE FROM audit_checkpoint", "never deleted"),
        ("UPDATE audit_key SET since = 0", "never changes"),
        ("DELETE FROM audit_key", "never deleted"),
    ] {
        if sql.contains("audit_key") {
            sqlx::raw_sql("INSERT INTO audit_key (public, since) VALUES ('x', 1) ON CONFLICT DO NOTHING")
                .execute(&mut connection)
                .await
                .unwrap();
        }
        let refused = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{sql}: {refused}");
    }
}

const WITHOUT_TRIGGERS: &str = "DROP TRIGGER audit_segment_is_immutable; \
    DROP TRIGGER audit_segment_stays_until_it_is_signed_off; DROP TRIGGER audit_checkpoint_stays; \
    DROP TRIGGER audit_checkpoint_is_immutable;";

#[tokio::test]
async fn trail_that_was_changed_behind_the_store_is_damaged_where_it_was_changed() {
    for (sql, expected) in [
        ("DELETE FROM audit_segment WHERE first = 3", "records 3 to 4 are missing"),
        (
            "UPDATE audit_segment SET body = (SELECT body FROM audit_segment WHERE first = 1) WHERE first = 3",
            "record 1 is there twice",
        ),
        ("UPDATE audit_segment SET body = x'00' WHERE first = 3", "records 3 to 4 are missing"),
        ("UPDATE audit_segment SET previous = zeroblob(32) WHERE first = 5", "record 5 does not follow"),
        ("UPDATE audit_segment SET links = zeroblob(64) WHERE first = 3", "record 3 was changed"),
        ("DELETE FROM audit_segment WHERE first = 5", "the trail ends with record 4, checkpoint 1 covers 6"),
        ("DELETE FROM audit_segment WHERE first = 1", "the trail begins with record 3"),
        ("UPDATE audit_checkpoint SET signature = zeroblob(64)", "its signature is wrong"),
        ("UPDATE audit_checkpoint SET key = zeroblob(32)", "which is not known"),
    ] {
        let (sqlite, key) = recorded().await;
        sqlite.corrupt(&format!("{WITHOUT_TRIGGERS} {sql}")).await;
        let (store, keys) = (sqlite.store(), [key.public().clone()]);
        let mut walk = Walk::new(&keys, None);
        for checkpoint in store.checkpoints(0, 10).await.unwrap() {
            walk.checkpoint(&checkpoint);
        }
        for segment in store.segments(1, 10).await.unwrap() {
            walk.segment(&segment);
        }
        let damages: Vec<_> = walk.end().damages.iter().map(Damage::to_string).collect();
        assert!(damages.iter().any(|damage| damage.contains(expected)), "{sql}: {damages:?}");
    }
}

/// Whoever reads a trail that was damaged behind the store comes to its end.
#[tokio::test]
async fn segment_and_checkpoint_that_say_what_cannot_be_are_no_loop() {
    let (sqlite, _) = recorded().await;
    let empty = "PRAGMA ignore_check_constraints = ON; UPDATE audit_segment SET links = x'' WHERE first = 5;";
    let far = "UPDATE audit_checkpoint SET number = 9000000000000000000";
    sqlite.corrupt(&format!("{WITHOUT_TRIGGERS} {empty} {far}")).await;
    let store = sqlite.store();
    for (from, expected) in [(1, vec![1, 3, 5]), (5, vec![]), (6, vec![])] {
        let segments = store.segments(from, 10).await.unwrap();
        let firsts: Vec<_> = segments.iter().map(|segment| segment.first).collect();
        assert_eq!(firsts, expected, "from {from}: the last ends before it begins");
    }
    let missing = store.checkpoints(0, 10).await;
    assert_inconsistent(missing, "audit checkpoint", "9000000000000000000", "before it is missing", far);
}

#[tokio::test]
async fn database_whose_trail_has_another_end_is_not_opened() {
    for (sql, expected) in [
        (
            "UPDATE audit_segment SET body = (SELECT body FROM audit_segment WHERE first = 1) WHERE first = 5",
            "was changed",
        ),
        ("UPDATE audit_segment SET previous = zeroblob(32) WHERE first = 5", "was changed"),
        ("UPDATE audit_segment SET hash = zeroblob(32) WHERE first = 5", "does not come to its hash"),
        ("DELETE FROM audit_segment WHERE first = 5", "ends before its last checkpoint"),
        ("DELETE FROM audit_segment", "ends before its last checkpoint"),
        ("UPDATE audit_checkpoint SET head_hash = zeroblob(32)", "not the one that its checkpoint is of"),
        (
            "PRAGMA ignore_check_constraints = ON; UPDATE audit_segment SET links = x'' WHERE first = 5",
            "as many records as it says",
        ),
    ] {
        let (sqlite, _) = recorded().await;
        sqlite.corrupt(&format!("{WITHOUT_TRIGGERS} {sql}")).await;
        let refused = SqliteStore::open(&file(sqlite.folder.path())).await.unwrap_err();
        assert!(matches!(refused, StoreOpenError::Trail { .. }), "{sql}: {refused}");
        assert!(refused.to_string().contains(expected), "{sql}: {refused}");
    }
}
