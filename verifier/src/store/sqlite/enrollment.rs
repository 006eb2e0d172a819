//! Enrolments.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::columns::Columns;
use super::writer::Recorded;
use super::{SqliteStore, decision, inventory, join_token, node};
use crate::audit::Facts;
use crate::enrollment::{EndorsedKey, PendingActivation, StoredActivation};
use crate::node::{AdmittedBy, Labels, NodeRecord, Standing};
use crate::store::{
    CompletedEnrollment, EnrollmentOutcome, EnrollmentStore, PendingEnrollment, StoreError,
    WAITING_OF_ONE_KEY, words,
};

#[async_trait]
impl EnrollmentStore for SqliteStore {
    async fn begin_enrollment(
        &self,
        pending: &PendingEnrollment,
        limit: u32,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (id, node, token) = (pending.id, pending.activation.node_id(), pending.join_token_digest);
        let stored = pending.activation.to_stored();
        self.write(move |connection| {
            Box::pin(async move {
                make_room(connection, node).await?;
                let count =
                    sqlx::query("SELECT count(*) AS waiting FROM pending_enrollment WHERE deadline >= ?1")
                        .bind(now.as_millis())
                        .fetch_one(&mut *connection)
                        .await?;
                if count.try_get::<i64, _>("waiting")? >= i64::from(limit) {
                    return Ok(false);
                }
                insert_pending(connection, id, node, &stored, token).await?;
                Ok(true)
            })
        })
        .await
    }

    async fn take_enrollment(&self, id: &[u8; 32]) -> Result<Option<PendingEnrollment>, StoreError> {
        let id = *id;
        let rows = self
            .write(move |connection| {
                Box::pin(async move {
                    let rows = sqlx::query(
                        "DELETE FROM pending_enrollment WHERE id = ?1 RETURNING id, node, ek_public, \
                         endorsement, ek_certificate, trust_anchor, ak_public, secret_hash, deadline, join_token_digest",
                    )
                    .bind(id.as_slice())
                    .fetch_all(connection)
                    .await?;
                    Ok(rows)
                })
            })
            .await?;
        // After the commit: one that is inconsistent is taken away, too.
        rows.first().map(parse_pending).transpose()
    }

    async fn complete_enrollment(
        &self,
        completed: CompletedEnrollment,
    ) -> Result<EnrollmentOutcome, StoreError> {
        self.write_recorded(move |connection| Box::pin(async move { complete(connection, completed).await }))
            .await
    }

    async fn forget_enrollments(&self, now: Timestamp) -> Result<u64, StoreError> {
        // At its deadline an answer is still accepted.
        let sql = "DELETE FROM pending_enrollment WHERE id IN \
                   (SELECT id FROM pending_enrollment WHERE deadline < ?1 LIMIT ?2)";
        self.forget(sql, now).await
    }
}

async fn complete(
    connection: &mut SqliteConnection,
    completed: CompletedEnrollment,
) -> Result<Recorded<EnrollmentOutcome>, StoreError> {
    let refused = |outcome| Ok(Recorded(outcome, Vec::new()));
    let CompletedEnrollment { keys, join_token_digest, now, decision } = completed;
    let id = keys.ek().node_id();
    let known = node::find(connection, id).await?;
    let superseded = known.as_ref().is_some_and(|known| known.attestation_key != *keys.ak());
    let mut record = NodeRecord {
        id,
        endorsed_key: keys.ek().clone(),
        standing: known.as_ref().map_or(Standing::Pending, |known| known.standing),
        labels: known.as_ref().map_or_else(Labels::default, |known| known.labels.clone()),
        attestation_key: keys.ak().clone(),
        revision: known.as_ref().map_or(0, |known| known.revision).saturating_add(1),
        epoch: known.as_ref().map_or(1, |known| known.epoch),
        holds: known.as_ref().map_or_else(Vec::new, |known| known.holds.clone()),
        attested_after: known.as_ref().and_then(|known| known.attested_after),
        last_seen: known.as_ref().and_then(|known| known.last_seen),
        enrolled_at: known.as_ref().map_or(now, |known| known.enrolled_at),
    };
    let key_in_use = node::has_key_of_another(connection, &record).await?;
    match record.standing {
        Standing::Retired => return refused(EnrollmentOutcome::Retired),
        Standing::Admitted { .. } | Standing::Pending if key_in_use => {
            return refused(EnrollmentOutcome::AttestationKeyInUse);
        }
        Standing::Admitted { .. } => {}
        Standing::Pending => match admission(connection, id, join_token_digest, now).await? {
            Admission::TokenRefused => return refused(EnrollmentOutcome::JoinTokenRefused),
            Admission::Nobody => {}
            Admission::By(by, labels) => {
                record.standing = Standing::Admitted { by };
                record.labels = joined(id, record.labels, labels)?;
            }
        },
    }
    if superseded {
        supersede(connection, id).await?;
    }
    let same = |known: &NodeRecord| known.standing == record.standing && known.labels == record.labels;
    if superseded || known.as_ref().is_some_and(|known| !same(known)) {
        record.epoch = record.epoch.saturating_add(1);
    }
    node::save(connection, &record).await?;
    save_endorsed_key(connection, &record.endorsed_key).await?;
    let (word, by) = words::of_standing(record.standing);
    let facts = serde_json::json!({ "standing": word, "admitted_by": by, "superseded_key": superseded });
    let trail = decision::insert(connection, &decision).await?.with(Facts::or_digest(facts));
    Ok(Recorded(EnrollmentOutcome::Enrolled { node: Box::new(record), superseded }, vec![trail]))
}

/// Who says that a machine is ours.
enum Admission {
    By(AdmittedBy, Labels),
    TokenRefused,
    Nobody,
}

/// The inventory first: a token is not spent on a machine that needs none.
async fn admission(
    connection: &mut SqliteConnection,
    id: NodeId,
    token: Option<[u8; 32]>,
    now: Timestamp,
) -> Result<Admission, StoreError> {
    if let Some(entry) = inventory::find(connection, id).await? {
        return Ok(Admission::By(AdmittedBy::Inventory, entry.labels));
    }
    let Some(token) = token else { return Ok(Admission::Nobody) };
    let labels = join_token::redeem(connection, token, id, now).await?;
    Ok(labels.map_or(Admission::TokenRefused, |labels| Admission::By(AdmittedBy::JoinToken, labels)))
}

/// The labels of a pending node with those of its admission, which win where both have one.
fn joined(id: NodeId, own: Labels, of_admission: Labels) -> Result<Labels, StoreError> {
    let mut labels = BTreeMap::from(own);
    labels.extend(BTreeMap::from(of_admission));
    Labels::try_from(labels).map_err(|error| StoreError::Inconsistent {
        what: "node",
        id: id.to_string(),
        why: format!("with the labels of its inventory entry or join token: {error}"),
    })
}

/// What was proved under the old AK counts no more.
async fn supersede(connection: &mut SqliteConnection, node: NodeId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM evidence WHERE node = ?1")
        .bind(node.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE certificate SET superseded = 1 WHERE node = ?1 AND superseded = 0")
        .bind(node.as_bytes().as_slice())
        .execute(connection)
        .await?;
    Ok(())
}

async fn save_endorsed_key(connection: &mut SqliteConnection, key: &EndorsedKey) -> Result<(), StoreError> {
    let stored = key.endorsement().to_stored();
    let (word, certificate, anchor) = words::of_endorsement(&stored);
    sqlx::query(
        "INSERT INTO endorsed_key (node, ek_public, endorsement, ek_certificate, trust_anchor) \
         VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (node) DO UPDATE SET ek_public = excluded.ek_public, \
         endorsement = excluded.endorsement, ek_certificate = excluded.ek_certificate, \
         trust_anchor = excluded.trust_anchor",
    )
    .bind(key.node_id().as_bytes().as_slice())
    .bind(key.public().as_bytes())
    .bind(word)
    .bind(certificate)
    .bind(anchor)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes the eldest enrolments of an EK away, so that one more can wait.
async fn make_room(connection: &mut SqliteConnection, node: NodeId) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM pending_enrollment WHERE id IN (SELECT id FROM pending_enrollment WHERE node = ?1 \
         ORDER BY deadline DESC, rowid DESC LIMIT -1 OFFSET ?2)",
    )
    .bind(node.as_bytes().as_slice())
    .bind(i64::from(WAITING_OF_ONE_KEY) - 1)
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_pending(
    connection: &mut SqliteConnection,
    id: [u8; 32],
    node: NodeId,
    stored: &StoredActivation,
    token: Option<[u8; 32]>,
) -> Result<(), StoreError> {
    let (word, certificate, anchor) = words::of_endorsement(&stored.endorsement);
    sqlx::query(
        "INSERT INTO pending_enrollment (id, ek_public, endorsement, ek_certificate, trust_anchor, \
         ak_public, secret_hash, deadline, join_token_digest, node) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .bind(id.as_slice())
    .bind(stored.ek_public.as_slice())
    .bind(word)
    .bind(certificate)
    .bind(anchor)
    .bind(stored.ak_public.as_slice())
    .bind(stored.secret_hash.as_slice())
    .bind(stored.deadline.as_millis())
    .bind(token.as_ref().map(|digest| digest.as_slice()))
    .bind(node.as_bytes().as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

fn parse_pending(row: &SqliteRow) -> Result<PendingEnrollment, StoreError> {
    let columns = Columns::named_by_bytes(row, "pending enrolment", "id");
    let endorsement = words::to_endorsement(
        columns.plain("endorsement")?,
        columns.plain("ek_certificate")?,
        columns.optional_bytes("trust_anchor")?,
    )
    .map_err(|why| columns.inconsistent(why))?;
    let stored = StoredActivation {
        ek_public: columns.plain("ek_public")?,
        endorsement,
        ak_public: columns.plain("ak_public")?,
        secret_hash: columns.bytes("secret_hash")?,
        deadline: columns.time("deadline")?,
    };
    let activation = PendingActivation::from_stored(&stored).map_err(|error| columns.inconsistent(error))?;
    if activation.node_id() != columns.node("node")? {
        return Err(columns.inconsistent("its EK is another node's"));
    }
    Ok(PendingEnrollment {
        id: columns.bytes("id")?,
        activation,
        join_token_digest: columns.optional_bytes("join_token_digest")?,
    })
}
