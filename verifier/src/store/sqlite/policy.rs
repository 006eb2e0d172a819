//! Policy bundles. Triggers in the schema hold that neither a version nor an activation ever changes.

use async_trait::async_trait;
use rootbound_common::crypto::sha256;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::columns::{Columns, to_integer};
use super::reference::{next_version, versioned};
use super::writer::Recorded;
use crate::audit::AuditRecord;
use crate::node::Name;
use crate::reference::{Provenance, Versioned};
use crate::store::{Activated, Activation, PolicyBundleRecord, PolicyStore, StoreError};

const ACTIVATION: &str = "SELECT number, name, version, author, reason, created_at FROM policy_activation \
                          ORDER BY number DESC LIMIT ?1";

#[async_trait]
impl PolicyStore for SqliteStore {
    async fn put_policy_bundle(
        &self,
        name: Name,
        text: Vec<u8>,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<PolicyBundleRecord, StoreError> {
        let content = sha256(&[&text]);
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let newest = "SELECT max(version) AS newest FROM policy_bundle WHERE name = ?1";
                let version = next_version(connection, newest, "policy bundle", &name).await?;
                sqlx::query("INSERT INTO policy_content (hash, text) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
                    .bind(content.as_slice())
                    .bind(text)
                    .execute(&mut *connection)
                    .await?;
                sqlx::query(
                    "INSERT INTO policy_bundle (name, version, content, author, reason, created_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )
                .bind(name.as_str())
                .bind(i64::from(version))
                .bind(content.as_slice())
                .bind(provenance.author.as_str())
                .bind(provenance.reason.as_str())
                .bind(provenance.created_at.as_millis())
                .execute(connection)
                .await?;
                let id = Versioned { name, version };
                let record = record.by(&id.to_string()).of_inputs(content);
                Ok(Recorded(PolicyBundleRecord { id, content, provenance }, vec![record]))
            })
        })
        .await
    }

    async fn policy_bundles(&self) -> Result<Vec<PolicyBundleRecord>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT name, version, content, author, reason, created_at FROM policy_bundle ORDER BY name, version",
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(parse_bundle).collect()
    }

    async fn policy_bundle(
        &self,
        name: &Name,
        version: Option<u32>,
    ) -> Result<Option<(PolicyBundleRecord, Vec<u8>)>, StoreError> {
        let mut reader = self.reader().await?;
        let row = sqlx::query(
            "SELECT name, version, content, author, reason, created_at, text \
             FROM policy_bundle JOIN policy_content ON hash = content \
             WHERE name = ?1 AND (?2 IS NULL OR version = ?2) ORDER BY version DESC LIMIT 1",
        )
        .bind(name.as_str())
        .bind(version.map(i64::from))
        .fetch_optional(&mut *reader)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let record = parse_bundle(&row)?;
        let columns = Columns::named_by_version(&row, "policy bundle");
        let text: Vec<u8> = columns.plain("text")?;
        if sha256(&[&text]) == record.content {
            Ok(Some((record, text)))
        } else {
            Err(columns.inconsistent("its text is not the one that was written"))
        }
    }

    async fn policy_activation(&self) -> Result<Option<Activation>, StoreError> {
        newest(&mut *self.reader().await?).await
    }

    async fn activate_policy(
        &self,
        bundle: Option<Versioned>,
        over: u64,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<Activated, StoreError> {
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let by = newest(connection).await?;
                if by.as_ref().map_or(0, |activation| activation.number) != over {
                    return Ok(Recorded(Activated::Overtaken { by }, Vec::new()));
                }
                if let Some(id) = &bundle
                    && !exists(connection, id).await?
                {
                    return Ok(Recorded(Activated::NoSuchVersion, Vec::new()));
                }
                let number = over.saturating_add(1);
                sqlx::query(
                    "INSERT INTO policy_activation (number, name, version, author, reason, created_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )
                .bind(to_integer(number)?)
                .bind(bundle.as_ref().map(|id| id.name.to_string()))
                .bind(bundle.as_ref().map(|id| i64::from(id.version)))
                .bind(provenance.author.as_str())
                .bind(provenance.reason.as_str())
                .bind(provenance.created_at.as_millis())
                .execute(connection)
                .await?;
                let activation = Activation { number, bundle, provenance };
                Ok(Recorded(Activated::Yes(activation), vec![record]))
            })
        })
        .await
    }

    async fn policy_activations(&self, limit: u32) -> Result<Vec<Activation>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(ACTIVATION).bind(i64::from(limit)).fetch_all(&mut *reader).await?;
        rows.iter().map(parse_activation).collect()
    }
}

async fn newest(connection: &mut SqliteConnection) -> Result<Option<Activation>, StoreError> {
    let row = sqlx::query(ACTIVATION).bind(1).fetch_optional(connection).await?;
    row.as_ref().map(parse_activation).transpose()
}

async fn exists(connection: &mut SqliteConnection, id: &Versioned) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM policy_bundle WHERE name = ?1 AND version = ?2)";
    let query = sqlx::query_scalar(sql).bind(id.name.as_str()).bind(i64::from(id.version));
    Ok(query.fetch_one(connection).await?)
}

fn parse_bundle(row: &SqliteRow) -> Result<PolicyBundleRecord, StoreError> {
    let columns = Columns::named_by_version(row, "policy bundle");
    Ok(PolicyBundleRecord {
        id: versioned(&columns)?,
        content: columns.bytes("content")?,
        provenance: columns.provenance()?,
    })
}

fn parse_activation(row: &SqliteRow) -> Result<Activation, StoreError> {
    let columns = Columns::named_by_text(row, "policy activation", "number");
    let name: Option<String> = columns.plain("name")?;
    Ok(Activation {
        number: columns.number("number")?,
        bundle: name.is_some().then(|| versioned(&columns)).transpose()?,
        provenance: columns.provenance()?,
    })
}
