//! Reference sets and profiles. Triggers in the schema hold that a version never changes.

use std::sync::Arc;

use async_trait::async_trait;
use rootbound_common::crypto::sha256;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::columns::{Columns, to_json};
use super::writer::Recorded;
use super::{SqliteStore, digest_set, sets};
use crate::appraisal::runtime::DigestSet;
use crate::audit::AuditRecord;
use crate::node::Name;
use crate::reference::{
    AcceptedPcrs, DigestSetVersion, Profile, ProfileBody, Provenance, ReferenceBook, ReferenceSet,
    References, Versioned,
};
use crate::store::{DigestSetRecord, ReferenceStore, StoreError};

#[async_trait]
impl ReferenceStore for SqliteStore {
    async fn reference_book(&self, before: &ReferenceBook) -> Result<ReferenceBook, StoreError> {
        let mut snapshot = self.snapshot().await?;
        // With max(), SQLite takes the other columns from the row that has the maximum (SELECT, 2.5).
        let profiles = sqlx::query(
            "SELECT name, max(version) AS version, body, author, reason, created_at FROM profile \
             GROUP BY name ORDER BY name",
        )
        .fetch_all(&mut *snapshot)
        .await?;
        let sets = sqlx::query(
            "SELECT name, max(version) AS version, accepted, author, reason, created_at, withdrawn_by, \
             withdrawn_reason, withdrawn_at FROM reference_set WHERE withdrawn_at IS NULL \
             GROUP BY name ORDER BY name",
        )
        .fetch_all(&mut *snapshot)
        .await?;
        let rows = sqlx::query(
            "SELECT name, max(version) AS version, content, digests, author, reason, created_at, withdrawn_by, \
             withdrawn_reason, withdrawn_at FROM digest_set WHERE withdrawn_at IS NULL \
             GROUP BY name ORDER BY name",
        )
        .fetch_all(&mut *snapshot)
        .await?;
        let mut digest_sets: Vec<DigestSetVersion> = Vec::new();
        for row in &rows {
            let record = digest_set::parse(row)?;
            let here = digest_sets.iter().find(|set| *set.digests.id() == record.content);
            let digests =
                match here.map(|set| Arc::clone(&set.digests)).or_else(|| before.digests_of(&record.content))
                {
                    Some(digests) => digests,
                    None => digest_set::compile(&mut snapshot, &record).await?,
                };
            digest_sets.push(DigestSetVersion { id: record.id, digests, provenance: record.provenance });
        }
        let rows = sqlx::query(
            "SELECT name, max(version) AS version, content, author, reason, created_at, withdrawn_by, \
             withdrawn_reason, withdrawn_at FROM boot_set WHERE withdrawn_at IS NULL \
             GROUP BY name ORDER BY name",
        )
        .fetch_all(&mut *snapshot)
        .await?;
        let boot_sets = rows.iter().map(|row| Ok(sets::parse(row)?.0)).collect::<Result<_, StoreError>>()?;
        let rows = sqlx::query(
            "SELECT name, max(version) AS version, content, author, reason, created_at, withdrawn_by, \
             withdrawn_reason, withdrawn_at FROM boot_set \
             WHERE name NOT IN (SELECT name FROM boot_set WHERE withdrawn_at IS NULL) \
             GROUP BY name ORDER BY name",
        )
        .fetch_all(&mut *snapshot)
        .await?;
        let withdrawn_boot_sets =
            rows.iter().map(|row| Ok(sets::parse(row)?.0)).collect::<Result<_, StoreError>>()?;
        let deny = sets::deny_list(&mut snapshot, None).await?.map(|(list, _)| list).unwrap_or_default();
        let profiles = profiles.iter().map(parse_profile).collect::<Result<_, _>>()?;
        let sets = sets.iter().map(|row| Ok(parse_set(row)?.0)).collect::<Result<_, StoreError>>()?;
        let references = References { profiles, sets, boot_sets, withdrawn_boot_sets, digest_sets, deny };
        ReferenceBook::of(references).map_err(|error| StoreError::Inconsistent {
            what: "profile",
            id: String::new(),
            why: error.to_string(),
        })
    }

    async fn put_reference_set(
        &self,
        name: Name,
        accepted: AcceptedPcrs,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<ReferenceSet, StoreError> {
        let json = to_json(&accepted)?;
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let digest = sha256(&[json.as_bytes()]);
                let newest = "SELECT max(version) AS newest FROM reference_set WHERE name = ?1";
                let version = next_version(connection, newest, "reference set", &name).await?;
                sqlx::query(
                    "INSERT INTO reference_set (name, version, accepted, author, reason, created_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )
                .bind(name.as_str())
                .bind(i64::from(version))
                .bind(json)
                .bind(provenance.author.as_str())
                .bind(provenance.reason.as_str())
                .bind(provenance.created_at.as_millis())
                .execute(connection)
                .await?;
                let id = Versioned { name, version };
                let record = record.by(&id.to_string()).of_inputs(digest);
                Ok(Recorded(ReferenceSet { id, accepted, provenance }, vec![record]))
            })
        })
        .await
    }

    async fn reference_sets(&self) -> Result<Vec<(ReferenceSet, bool)>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT name, version, accepted, author, reason, created_at, withdrawn_by, withdrawn_reason, \
             withdrawn_at FROM reference_set ORDER BY name, version",
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(parse_set).collect()
    }

    async fn withdraw_reference_set(
        &self,
        name: &Name,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE reference_set SET withdrawn_by = ?2, withdrawn_reason = ?3, withdrawn_at = ?4 \
                   WHERE name = ?1 AND withdrawn_at IS NULL";
        self.withdraw(sql, name, provenance, record).await
    }

    async fn put_digest_set(
        &self,
        name: Name,
        digests: Arc<DigestSet>,
        text: Vec<u8>,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<DigestSetVersion, StoreError> {
        self.write_digest_set(name, digests, text, provenance, record).await
    }

    async fn digest_sets(&self) -> Result<Vec<DigestSetRecord>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT name, version, content, digests, author, reason, created_at, withdrawn_by, withdrawn_reason, \
             withdrawn_at FROM digest_set ORDER BY name, version",
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(digest_set::parse).collect()
    }

    async fn digest_text(&self, content: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        digest_set::text(&mut *self.reader().await?, content).await
    }

    async fn withdraw_digest_set(
        &self,
        name: &Name,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE digest_set SET withdrawn_by = ?2, withdrawn_reason = ?3, withdrawn_at = ?4 \
                   WHERE name = ?1 AND withdrawn_at IS NULL";
        self.withdraw(sql, name, provenance, record).await
    }

    async fn put_profile(
        &self,
        name: Name,
        body: ProfileBody,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<Profile, StoreError> {
        let json = to_json(&body)?;
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let digest = sha256(&[json.as_bytes()]);
                let newest = "SELECT max(version) AS newest FROM profile WHERE name = ?1";
                let version = next_version(connection, newest, "profile", &name).await?;
                // One that does not pass could not be read back.
                let id = Versioned { name, version };
                let row = id.to_string();
                let profile = Profile::new(id, body, provenance).map_err(|error| {
                    StoreError::Inconsistent { what: "profile", id: row, why: error.to_string() }
                })?;
                sqlx::query(
                    "INSERT INTO profile (name, version, body, author, reason, created_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )
                .bind(profile.id().name.as_str())
                .bind(i64::from(version))
                .bind(json)
                .bind(profile.provenance().author.as_str())
                .bind(profile.provenance().reason.as_str())
                .bind(profile.provenance().created_at.as_millis())
                .execute(connection)
                .await?;
                let record = record.by(&profile.id().to_string()).of_inputs(digest);
                Ok(Recorded(profile, vec![record]))
            })
        })
        .await
    }

    async fn profiles(&self) -> Result<Vec<Profile>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT name, version, body, author, reason, created_at FROM profile ORDER BY name, version",
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(parse_profile).collect()
    }
}

impl SqliteStore {
    /// Withdraws every version of a name, by `sql`.
    pub(super) async fn withdraw(
        &self,
        sql: &'static str,
        name: &Name,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<bool, StoreError> {
        let name = name.clone();
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let update = sqlx::query(sql)
                    .bind(name.as_str())
                    .bind(provenance.author.as_str())
                    .bind(provenance.reason.as_str())
                    .bind(provenance.created_at.as_millis())
                    .execute(connection)
                    .await?;
                Ok(Recorded::if_changed(update.rows_affected(), record))
            })
        })
        .await
    }
}

/// One more than the newest version, withdrawn or not: a number is never used again.
pub(super) async fn next_version(
    connection: &mut SqliteConnection,
    newest: &'static str,
    what: &'static str,
    name: &Name,
) -> Result<u32, StoreError> {
    let row = sqlx::query(newest).bind(name.as_str()).fetch_one(connection).await?;
    let newest: Option<i64> = row.try_get("newest")?;
    let next = newest.unwrap_or(0).checked_add(1).and_then(|next| u32::try_from(next).ok());
    next.ok_or_else(|| StoreError::Inconsistent {
        what,
        id: name.to_string(),
        why: format!("no version can follow {newest:?}"),
    })
}

pub(super) fn versioned(columns: &Columns<'_>) -> Result<Versioned, StoreError> {
    let name: &str = columns.plain("name")?;
    let name = name.parse().map_err(|error| columns.inconsistent(error))?;
    match columns.number("version")? {
        0 => Err(columns.inconsistent("the first version is 1")),
        version => Ok(Versioned { name, version }),
    }
}

pub(super) fn withdrawn(columns: &Columns<'_>) -> Result<bool, StoreError> {
    let by: Option<&str> = columns.plain("withdrawn_by")?;
    let reason: Option<&str> = columns.plain("withdrawn_reason")?;
    let at: Option<i64> = columns.plain("withdrawn_at")?;
    match (by, reason, at) {
        (Some(_), Some(_), Some(_)) => Ok(true),
        (None, None, None) => Ok(false),
        _ => Err(columns.inconsistent("of who withdrew it, why and when only a part is there")),
    }
}

/// The set, and whether it is withdrawn.
pub(super) fn parse_set(row: &SqliteRow) -> Result<(ReferenceSet, bool), StoreError> {
    let columns = Columns::named_by_version(row, "reference set");
    let withdrawn = withdrawn(&columns)?;
    let set = ReferenceSet {
        id: versioned(&columns)?,
        accepted: columns.json("accepted")?,
        provenance: columns.provenance()?,
    };
    Ok((set, withdrawn))
}

fn parse_profile(row: &SqliteRow) -> Result<Profile, StoreError> {
    let columns = Columns::named_by_version(row, "profile");
    Profile::new(versioned(&columns)?, columns.json("body")?, columns.provenance()?)
        .map_err(|error| columns.inconsistent(error))
}
