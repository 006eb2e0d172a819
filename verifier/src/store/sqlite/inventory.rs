//! The inventory.

use async_trait::async_trait;
use rootbound_common::id::NodeId;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::columns::{Columns, to_json};
use super::writer::Recorded;
use crate::audit::AuditRecord;
use crate::store::{InventoryEntry, InventoryStore, StoreError};

#[async_trait]
impl InventoryStore for SqliteStore {
    async fn put_inventory(&self, entry: &InventoryEntry, record: AuditRecord) -> Result<(), StoreError> {
        let labels = to_json(&entry.labels)?;
        let entry = entry.clone();
        self.write_recorded(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO inventory (node, waive_endorsement, labels, author, reason, created_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                     ON CONFLICT (node) DO UPDATE SET waive_endorsement = excluded.waive_endorsement, \
                     labels = excluded.labels, author = excluded.author, reason = excluded.reason, \
                     created_at = excluded.created_at",
                )
                .bind(entry.node.as_bytes().as_slice())
                .bind(entry.waive_endorsement)
                .bind(labels)
                .bind(entry.provenance.author.as_str())
                .bind(entry.provenance.reason.as_str())
                .bind(entry.provenance.created_at.as_millis())
                .execute(connection)
                .await?;
                Ok(Recorded((), vec![record]))
            })
        })
        .await
    }

    async fn inventory_entry(&self, node: NodeId) -> Result<Option<InventoryEntry>, StoreError> {
        let mut reader = self.reader().await?;
        find(&mut reader, node).await
    }

    async fn inventory(&self) -> Result<Vec<InventoryEntry>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT node, waive_endorsement, labels, author, reason, created_at FROM inventory ORDER BY node",
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(parse).collect()
    }

    async fn remove_inventory(&self, node: NodeId, record: AuditRecord) -> Result<bool, StoreError> {
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let delete = sqlx::query("DELETE FROM inventory WHERE node = ?1")
                    .bind(node.as_bytes().as_slice())
                    .execute(connection)
                    .await?;
                Ok(Recorded::if_changed(delete.rows_affected(), record))
            })
        })
        .await
    }
}

/// The entry of a machine.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    node: NodeId,
) -> Result<Option<InventoryEntry>, StoreError> {
    let row = sqlx::query(
        "SELECT node, waive_endorsement, labels, author, reason, created_at FROM inventory WHERE node = ?1",
    )
    .bind(node.as_bytes().as_slice())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(parse).transpose()
}

fn parse(row: &SqliteRow) -> Result<InventoryEntry, StoreError> {
    let columns = Columns::named_by_bytes(row, "inventory entry", "node");
    Ok(InventoryEntry {
        node: columns.node("node")?,
        waive_endorsement: columns.flag("waive_endorsement")?,
        labels: columns.json("labels")?,
        provenance: columns.provenance()?,
    })
}
