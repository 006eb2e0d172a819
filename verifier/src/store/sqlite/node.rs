//! Nodes.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::ClockState;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::columns::{Columns, to_integer, to_json};
use super::writer::Recorded;
use super::{SqliteStore, decision};
use crate::credential::serial::SerialNumber;
use crate::enrollment::{AttestationKey, EndorsedKey};
use crate::node::{AdmittedBy, Labels, LastSeen, Name, NodeRecord, Standing};
use crate::posture::{LiveCredential, LiveNode};
use crate::store::{DecisionRecord, NodeChange, NodeStore, StoreError, words};

macro_rules! node_columns {
    ($rest:literal) => {
        concat!(
            "SELECT n.id, n.standing, n.admitted_by, n.labels, n.ak_public, n.revision, n.enrolled_at, n.clock, \
             n.reset_count, n.restart_count, n.clock_safe, n.firmware_version, n.made_at, \
             n.epoch, n.holds, n.attested_after, \
             k.ek_public, k.endorsement, k.ek_certificate, k.trust_anchor \
             FROM node AS n LEFT JOIN endorsed_key AS k ON k.node = n.id ",
            $rest
        )
    };
}

macro_rules! live_columns {
    ($rest:literal) => {
        concat!(
            "SELECT n.id, n.standing, n.admitted_by, n.labels, n.ak_public, n.revision, k.endorsement, e.posture, \
             n.epoch, n.holds, n.attested_after \
             FROM node AS n LEFT JOIN endorsed_key AS k ON k.node = n.id \
             LEFT JOIN evidence AS e ON e.node = n.id ",
            $rest
        )
    };
}

#[async_trait]
impl NodeStore for SqliteStore {
    async fn node(&self, id: NodeId) -> Result<Option<NodeRecord>, StoreError> {
        let mut reader = self.reader().await?;
        find(&mut reader, id).await
    }

    async fn nodes(&self, after: Option<NodeId>, limit: u32) -> Result<Vec<NodeRecord>, StoreError> {
        let mut reader = self.reader().await?;
        // No id is before the empty one.
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let rows = sqlx::query(node_columns!("WHERE n.id > ?1 ORDER BY n.id LIMIT ?2"))
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&mut *reader)
            .await?;
        rows.iter().map(parse).collect()
    }

    async fn live_nodes(&self, now: Timestamp) -> Result<Vec<(NodeId, LiveNode)>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        // The plus keeps SQLite from reading all of the history in the order that is asked for.
        let rows = sqlx::query(
            "SELECT serial, node, not_before, not_after FROM certificate WHERE not_after > ?1 AND superseded = 0 \
             ORDER BY +recorded",
        )
        .bind(now.as_millis())
        .fetch_all(&mut *snapshot)
        .await?;
        let mut credentials: HashMap<NodeId, Vec<LiveCredential>> = HashMap::new();
        for row in &rows {
            let (node, credential) = parse_credential(row)?;
            credentials.entry(node).or_default().push(credential);
        }
        let rows = sqlx::query(live_columns!("ORDER BY n.id")).fetch_all(&mut *snapshot).await?;
        rows.iter().map(|row| parse_live(row, |id| credentials.remove(&id).unwrap_or_default())).collect()
    }

    async fn live_node(&self, id: NodeId, now: Timestamp) -> Result<Option<LiveNode>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let row = sqlx::query(live_columns!("WHERE n.id = ?1"))
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&mut *snapshot)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let rows = sqlx::query(
            "SELECT serial, node, not_before, not_after FROM certificate WHERE node = ?1 AND not_after > ?2 \
             AND superseded = 0 ORDER BY recorded",
        )
        .bind(id.as_bytes().as_slice())
        .bind(now.as_millis())
        .fetch_all(&mut *snapshot)
        .await?;
        let credentials =
            rows.iter().map(|row| Ok(parse_credential(row)?.1)).collect::<Result<_, StoreError>>()?;
        Ok(Some(parse_live(&row, |_| credentials)?.1))
    }

    async fn approve_node(&self, id: NodeId, decision: DecisionRecord) -> Result<NodeChange, StoreError> {
        self.change(id, decision, |node| {
            match node.standing {
                Standing::Admitted { .. } => return Ok(Change::None),
                Standing::Pending => {}
                Standing::Retired => node.last_seen = None,
            }
            node.standing = Standing::Admitted { by: AdmittedBy::Approval };
            Ok(Change::Some)
        })
        .await
    }

    async fn retire_node(&self, id: NodeId, decision: DecisionRecord) -> Result<NodeChange, StoreError> {
        self.change(id, decision, |node| {
            if node.standing == Standing::Retired {
                return Ok(Change::None);
            }
            node.standing = Standing::Retired;
            Ok(Change::Some)
        })
        .await
    }

    async fn label_node(
        &self,
        id: NodeId,
        changes: Vec<(Name, Option<Name>)>,
        decision: DecisionRecord,
    ) -> Result<NodeChange, StoreError> {
        self.change(id, decision, move |node| {
            // Only the outcome has to be within the limit, not each step.
            let mut labels = BTreeMap::from(node.labels.clone());
            for (key, value) in changes {
                match value {
                    Some(value) => drop(labels.insert(key, value)),
                    None => drop(labels.remove(&key)),
                }
            }
            let labels = Labels::try_from(labels).map_err(|_| TooManyLabels)?;
            if labels == node.labels {
                return Ok(Change::None);
            }
            node.labels = labels;
            Ok(Change::Some)
        })
        .await
    }
}

enum Change {
    Some,
    None,
}

struct TooManyLabels;

impl SqliteStore {
    /// Changes a node as `apply` says, counts its revision up and records the decision; all of it or nothing.
    async fn change<F>(
        &self,
        id: NodeId,
        decision: DecisionRecord,
        apply: F,
    ) -> Result<NodeChange, StoreError>
    where
        F: FnOnce(&mut NodeRecord) -> Result<Change, TooManyLabels> + Send + 'static,
    {
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let unchanged = |outcome| Ok(Recorded(outcome, Vec::new()));
                let Some(mut node) = find(connection, id).await? else {
                    return unchanged(NodeChange::Unknown);
                };
                let before = node.standing;
                match apply(&mut node) {
                    Err(TooManyLabels) => return unchanged(NodeChange::TooManyLabels),
                    Ok(Change::None) => return unchanged(NodeChange::Already(Box::new(node))),
                    Ok(Change::Some) => {}
                }
                node.revision = node.revision.saturating_add(1);
                node.epoch = node.epoch.saturating_add(1);
                save(connection, &node).await?;
                if before == Standing::Retired {
                    // What it showed before it was retired says nothing about the time since.
                    sqlx::query("DELETE FROM evidence WHERE node = ?1")
                        .bind(id.as_bytes().as_slice())
                        .execute(&mut *connection)
                        .await?;
                }
                let record = decision::insert(connection, &decision).await?;
                Ok(Recorded(NodeChange::Changed(Box::new(node)), vec![record]))
            })
        })
        .await
    }
}

/// A node.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    id: NodeId,
) -> Result<Option<NodeRecord>, StoreError> {
    let row = sqlx::query(node_columns!("WHERE n.id = ?1"))
        .bind(id.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(parse).transpose()
}

/// Whether another node has the AK. A Name is a hash of the public area, so that the one is as good as the other.
pub(super) async fn has_key_of_another(
    connection: &mut SqliteConnection,
    node: &NodeRecord,
) -> Result<bool, StoreError> {
    let other = sqlx::query("SELECT 1 FROM node WHERE ak_public = ?1 AND id <> ?2")
        .bind(node.attestation_key.public().as_bytes())
        .bind(node.id.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(other.is_some())
}

/// Writes a node as it is, save its EK.
pub(super) async fn save(connection: &mut SqliteConnection, node: &NodeRecord) -> Result<(), StoreError> {
    let (standing, admitted_by) = words::of_standing(node.standing);
    let seen = node.last_seen.as_ref();
    sqlx::query(
        "INSERT INTO node (id, standing, admitted_by, labels, ak_public, revision, enrolled_at, clock, \
         reset_count, restart_count, clock_safe, firmware_version, made_at, epoch, holds, attested_after) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) \
         ON CONFLICT (id) DO UPDATE SET standing = excluded.standing, admitted_by = excluded.admitted_by, \
         labels = excluded.labels, ak_public = excluded.ak_public, revision = excluded.revision, \
         clock = excluded.clock, reset_count = excluded.reset_count, \
         restart_count = excluded.restart_count, clock_safe = excluded.clock_safe, \
         firmware_version = excluded.firmware_version, made_at = excluded.made_at, epoch = excluded.epoch, \
         holds = excluded.holds, attested_after = excluded.attested_after",
    )
    .bind(node.id.as_bytes().as_slice())
    .bind(standing)
    .bind(admitted_by)
    .bind(to_json(&node.labels)?)
    .bind(node.attestation_key.public().as_bytes())
    .bind(to_integer(node.revision)?)
    .bind(node.enrolled_at.as_millis())
    .bind(seen.map(|seen| seen.clock.clock.cast_signed()))
    .bind(seen.map(|seen| i64::from(seen.clock.reset_count)))
    .bind(seen.map(|seen| i64::from(seen.clock.restart_count)))
    .bind(seen.map(|seen| seen.clock.safe))
    .bind(seen.map(|seen| seen.firmware_version.cast_signed()))
    .bind(seen.map(|seen| seen.made_at.as_millis()))
    .bind(to_integer(node.epoch)?)
    .bind(to_json(&node.holds)?)
    .bind(node.attested_after.map(Timestamp::as_millis))
    .execute(connection)
    .await?;
    Ok(())
}

fn parse(row: &SqliteRow) -> Result<NodeRecord, StoreError> {
    let columns = Columns::named_by_bytes(row, "node", "id");
    let id = columns.node("id")?;
    let endorsement = words::to_endorsement(
        columns.plain("endorsement")?,
        columns.plain("ek_certificate")?,
        columns.optional_bytes("trust_anchor")?,
    )
    .map_err(|why| columns.inconsistent(why))?;
    let endorsed_key = EndorsedKey::from_stored(columns.plain("ek_public")?, &endorsement)
        .map_err(|error| columns.inconsistent(format_args!("EK: {error}")))?;
    if endorsed_key.node_id() != id {
        return Err(columns.inconsistent("its EK is another node's"));
    }
    Ok(NodeRecord {
        id,
        endorsed_key,
        standing: standing(&columns)?,
        labels: columns.json("labels")?,
        attestation_key: attestation_key(&columns)?,
        revision: columns.number("revision")?,
        epoch: columns.number("epoch")?,
        holds: columns.json("holds")?,
        attested_after: attested_after(&columns)?,
        last_seen: last_seen(&columns)?,
        enrolled_at: columns.time("enrolled_at")?,
    })
}

fn parse_live(
    row: &SqliteRow,
    credentials: impl FnOnce(NodeId) -> Vec<LiveCredential>,
) -> Result<(NodeId, LiveNode), StoreError> {
    let columns = Columns::named_by_bytes(row, "node", "id");
    let id = columns.node("id")?;
    let node = LiveNode {
        revision: columns.number("revision")?,
        standing: standing(&columns)?,
        labels: columns.json("labels")?,
        attestation_key: attestation_key(&columns)?.name(),
        endorsed_by: words::to_endorsed_by(columns.plain("endorsement")?)
            .map_err(|why| columns.inconsistent(why))?,
        posture: columns.optional_json("posture")?,
        credentials: credentials(id),
        epoch: columns.number("epoch")?,
        holds: columns.json("holds")?,
        attested_after: attested_after(&columns)?,
    };
    Ok((id, node))
}

fn parse_credential(row: &SqliteRow) -> Result<(NodeId, LiveCredential), StoreError> {
    let columns = Columns::named_by_bytes(row, "certificate", "serial");
    let serial =
        SerialNumber::from_slice(columns.plain("serial")?).map_err(|error| columns.inconsistent(error))?;
    let (not_before, not_after) = (columns.time("not_before")?, columns.time("not_after")?);
    Ok((columns.node("node")?, LiveCredential { serial, not_before, not_after }))
}

fn standing(columns: &Columns<'_>) -> Result<Standing, StoreError> {
    words::to_standing(columns.plain("standing")?, columns.plain("admitted_by")?)
        .map_err(|why| columns.inconsistent(why))
}

fn attestation_key(columns: &Columns<'_>) -> Result<AttestationKey, StoreError> {
    AttestationKey::parse(columns.plain("ak_public")?).map_err(|error| columns.inconsistent(error))
}

fn attested_after(columns: &Columns<'_>) -> Result<Option<Timestamp>, StoreError> {
    Ok(columns.plain::<Option<i64>>("attested_after")?.map(Timestamp::from_millis))
}

/// All of the clock, or nothing of it.
fn last_seen(columns: &Columns<'_>) -> Result<Option<LastSeen>, StoreError> {
    const CLOCK: [&str; 6] =
        ["clock", "reset_count", "restart_count", "clock_safe", "firmware_version", "made_at"];
    let mut present = 0;
    for column in CLOCK {
        present += usize::from(columns.plain::<Option<i64>>(column)?.is_some());
    }
    match present {
        0 => Ok(None),
        count if count == CLOCK.len() => Ok(Some(LastSeen {
            clock: ClockState {
                clock: columns.plain::<i64>("clock")?.cast_unsigned(),
                reset_count: columns.number("reset_count")?,
                restart_count: columns.number("restart_count")?,
                safe: columns.flag("clock_safe")?,
            },
            firmware_version: columns.plain::<i64>("firmware_version")?.cast_unsigned(),
            made_at: columns.time("made_at")?,
        })),
        _ => Err(columns.inconsistent("only a part of its clock is there")),
    }
}
