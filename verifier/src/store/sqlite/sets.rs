//! The life of sets: one way to write a version for each kind, and updates on top of it.

use async_trait::async_trait;
use rootbound_common::crypto::sha256;
use rootbound_compute::values::BootValues;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::chunks::Layout;
use super::columns::{Columns, to_integer, to_json};
use super::reference::{next_version, parse_set, versioned, withdrawn};
use super::writer::Recorded;
use super::{SqliteStore, digest_set, imports};
use crate::audit::AuditRecord;
use crate::node::Name;
use crate::reference::{
    BootSet, BootSetVersion, DenyEntry, DenyList, Provenance, SetContent, SetKind, Versioned,
};
use crate::store::sets::{Beside, SetChange, SetRecord, SetsWritten, Staging, UpdateEnd};
use crate::store::{SetStore, StoreError};

/// The statements of a kind.
struct Sql {
    newest: &'static str,
    current: &'static str,
    withdraw: &'static str,
    withdraw_one: &'static str,
}

macro_rules! sql {
    ($table:literal) => {
        Sql {
            newest: concat!("SELECT max(version) AS newest FROM ", $table, " WHERE name = ?1"),
            current: concat!(
                "SELECT max(version) AS newest FROM ",
                $table,
                " WHERE name = ?1 AND withdrawn_at IS NULL"
            ),
            withdraw: concat!(
                "UPDATE ",
                $table,
                " SET withdrawn_by = ?2, withdrawn_reason = ?3, withdrawn_at = ?4 \
                 WHERE name = ?1 AND withdrawn_at IS NULL"
            ),
            withdraw_one: concat!(
                "UPDATE ",
                $table,
                " SET withdrawn_by = ?2, withdrawn_reason = ?3, withdrawn_at = ?4 \
                 WHERE name = ?1 AND version = ?5 AND withdrawn_at IS NULL"
            ),
        }
    };
}

const fn sql(kind: SetKind) -> Sql {
    match kind {
        SetKind::Pcrs => sql!("reference_set"),
        SetKind::Boot => sql!("boot_set"),
        SetKind::Digests => sql!("digest_set"),
    }
}

/// How contents of digests are laid out; `None`: it is kept already.
type Layouts = std::vec::IntoIter<Option<Layout>>;

/// Values as a row has them.
enum Written {
    Pcrs(String),
    Boot(String),
    Digests { content: [u8; 32], count: i64, layout: Option<Layout> },
}

impl Written {
    /// `layouts` are those of the digests among several contents, in their order.
    fn of(content: SetContent, layouts: &mut Layouts) -> Result<Self, StoreError> {
        Ok(match content {
            SetContent::Pcrs(accepted) => Self::Pcrs(to_json(&accepted)?),
            SetContent::Boot(set) => Self::Boot(to_json(set.values())?),
            SetContent::Digests(digests, _) => Self::Digests {
                content: *digests.id(),
                count: to_integer(u64::try_from(digests.len()).unwrap_or(u64::MAX))?,
                layout: layouts.next().flatten(),
            },
        })
    }

    const fn kind(&self) -> SetKind {
        match self {
            Self::Pcrs(_) => SetKind::Pcrs,
            Self::Boot(_) => SetKind::Boot,
            Self::Digests { .. } => SetKind::Digests,
        }
    }

    /// What names the values in the audit trail.
    fn digest(&self) -> [u8; 32] {
        match self {
            Self::Pcrs(json) | Self::Boot(json) => sha256(&[json.as_bytes()]),
            Self::Digests { content, .. } => *content,
        }
    }

    /// Where the content of digests is not kept yet, keeps it.
    async fn keep(&mut self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        if let Self::Digests { content, layout, .. } = self {
            digest_set::keep(connection, content, layout.take()).await?;
        }
        Ok(())
    }
}

/// Writes the next version of a set.
async fn insert(
    connection: &mut SqliteConnection,
    name: &Name,
    mut values: Written,
    provenance: &Provenance,
) -> Result<u32, StoreError> {
    values.keep(connection).await?;
    let kind = values.kind();
    let version = next_version(connection, sql(kind).newest, kind.entity(), name).await?;
    let query = match values {
        Written::Pcrs(json) => sqlx::query(
            "INSERT INTO reference_set (name, version, author, reason, created_at, accepted) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(name.as_str())
        .bind(i64::from(version))
        .bind(provenance.author.as_str())
        .bind(provenance.reason.as_str())
        .bind(provenance.created_at.as_millis())
        .bind(json),
        Written::Boot(json) => sqlx::query(
            "INSERT INTO boot_set (name, version, author, reason, created_at, content) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(name.as_str())
        .bind(i64::from(version))
        .bind(provenance.author.as_str())
        .bind(provenance.reason.as_str())
        .bind(provenance.created_at.as_millis())
        .bind(json),
        Written::Digests { content, count, .. } => sqlx::query(
            "INSERT INTO digest_set (name, version, author, reason, created_at, content, digests) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(name.as_str())
        .bind(i64::from(version))
        .bind(provenance.author.as_str())
        .bind(provenance.reason.as_str())
        .bind(provenance.created_at.as_millis())
        .bind(content.to_vec())
        .bind(count),
    };
    query.execute(connection).await?;
    Ok(version)
}

/// The version that is not withdrawn and highest.
async fn current(
    connection: &mut SqliteConnection,
    kind: SetKind,
    name: &Name,
) -> Result<Option<u32>, StoreError> {
    let row = sqlx::query(sql(kind).current).bind(name.as_str()).fetch_one(connection).await?;
    let newest: Option<i64> = row.try_get("newest")?;
    Ok(newest.and_then(|version| u32::try_from(version).ok()))
}

/// An update that has not ended.
struct Open {
    number: i64,
    version: u32,
    over: u32,
    part: Written,
}

async fn open(
    connection: &mut SqliteConnection,
    kind: SetKind,
    name: &Name,
) -> Result<Option<Open>, StoreError> {
    let row = sqlx::query(
        "SELECT number, name, version, over, part, part_content, part_digests FROM set_staging \
         WHERE ended IS NULL AND kind = ?1 AND name = ?2",
    )
    .bind(kind.as_str())
    .bind(name.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let columns = Columns::named_by_version(&row, "staged update");
    let part: Option<String> = columns.plain("part")?;
    let content: Option<[u8; 32]> = columns.optional_bytes("part_content")?;
    let count: Option<i64> = columns.plain("part_digests")?;
    let part = match (kind, part, content, count) {
        (SetKind::Pcrs, Some(json), None, None) => Written::Pcrs(json),
        (SetKind::Boot, Some(json), None, None) => Written::Boot(json),
        (SetKind::Digests, None, Some(content), Some(count)) => {
            Written::Digests { content, count, layout: None }
        }
        _ => return Err(columns.inconsistent("what is new of it is of another kind")),
    };
    Ok(Some(Open {
        number: columns.plain("number")?,
        version: columns.number("version")?,
        over: columns.number("over")?,
        part,
    }))
}

async fn end(
    connection: &mut SqliteConnection,
    number: i64,
    how: &'static str,
    provenance: &Provenance,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE set_staging SET ended = ?2, ended_at = ?3 WHERE number = ?1")
        .bind(number)
        .bind(how)
        .bind(provenance.created_at.as_millis())
        .execute(connection)
        .await?;
    Ok(())
}

async fn withdraw_one(
    connection: &mut SqliteConnection,
    kind: SetKind,
    name: &Name,
    version: u32,
    provenance: &Provenance,
) -> Result<(), StoreError> {
    sqlx::query(sql(kind).withdraw_one)
        .bind(name.as_str())
        .bind(provenance.author.as_str())
        .bind(provenance.reason.as_str())
        .bind(provenance.created_at.as_millis())
        .bind(i64::from(version))
        .execute(connection)
        .await?;
    Ok(())
}

/// The update that a step is for, or why there is none. One whose version is not current any more was overtaken.
async fn step(
    connection: &mut SqliteConnection,
    kind: SetKind,
    name: &Name,
    over: Option<u32>,
) -> Result<Result<Open, SetChange>, StoreError> {
    let Some(current) = current(connection, kind, name).await? else { return Ok(Err(SetChange::Missing)) };
    if over.is_some_and(|over| over != current) {
        return Ok(Err(SetChange::Overtaken { current }));
    }
    let open = open(connection, kind, name).await?;
    Ok(open.filter(|open| open.version == current).ok_or(SetChange::NotStaged))
}

impl SqliteStore {
    /// Lays out the digests among contents, of which the texts are taken.
    async fn layouts(&self, contents: &mut [SetContent]) -> Result<Layouts, StoreError> {
        let texts = contents.iter_mut().filter_map(|content| match content {
            SetContent::Digests(digests, text) => Some((*digests.id(), std::mem::take(text))),
            SetContent::Pcrs(_) | SetContent::Boot(_) => None,
        });
        Ok(self.lay_out(texts.collect()).await?.into_iter())
    }
}

#[async_trait]
impl SetStore for SqliteStore {
    async fn put_boot_set(
        &self,
        name: Name,
        set: BootSet,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<BootSetVersion, StoreError> {
        let values = Written::of(SetContent::Boot(set.clone()), &mut Layouts::default())?;
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let digest = values.digest();
                let version = insert(connection, &name, values, &provenance).await?;
                let id = Versioned { name, version };
                let record = record.by(&id.to_string()).of_inputs(digest);
                Ok(Recorded(BootSetVersion { id, set, provenance }, vec![record]))
            })
        })
        .await
    }

    async fn boot_sets(&self) -> Result<Vec<(BootSetVersion, bool)>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT name, version, content, author, reason, created_at, withdrawn_by, withdrawn_reason, \
             withdrawn_at FROM boot_set ORDER BY name, version",
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(parse).collect()
    }

    async fn withdraw_boot_set(
        &self,
        name: &Name,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<bool, StoreError> {
        self.withdraw(sql(SetKind::Boot).withdraw, name, provenance, record).await
    }

    async fn set_records(&self) -> Result<Vec<SetRecord>, StoreError> {
        let mut records: Vec<SetRecord> = Vec::new();
        let record = |kind, id, values: usize, withdrawn, provenance| SetRecord {
            kind,
            id,
            values: u64::try_from(values).unwrap_or(u64::MAX),
            withdrawn,
            provenance,
        };
        for (set, withdrawn) in crate::store::ReferenceStore::reference_sets(self).await? {
            let values = set.accepted.iter().count();
            records.push(record(SetKind::Pcrs, set.id, values, withdrawn, set.provenance));
        }
        for (version, withdrawn) in self.boot_sets().await? {
            let values = version.set.values().values.len();
            records.push(record(SetKind::Boot, version.id, values, withdrawn, version.provenance));
        }
        for set in crate::store::ReferenceStore::digest_sets(self).await? {
            let values = usize::try_from(set.digests).unwrap_or(usize::MAX);
            records.push(record(SetKind::Digests, set.id, values, set.withdrawn, set.provenance));
        }
        Ok(records)
    }

    async fn set_content(&self, kind: SetKind, id: &Versioned) -> Result<Option<SetContent>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let statement = match kind {
            SetKind::Pcrs => {
                "SELECT name, version, accepted, author, reason, created_at, withdrawn_by, withdrawn_reason, \
                 withdrawn_at FROM reference_set WHERE name = ?1 AND version = ?2"
            }
            SetKind::Boot => {
                "SELECT name, version, content, author, reason, created_at, withdrawn_by, withdrawn_reason, \
                 withdrawn_at FROM boot_set WHERE name = ?1 AND version = ?2"
            }
            SetKind::Digests => {
                "SELECT name, version, content, digests, author, reason, created_at, withdrawn_by, \
                 withdrawn_reason, withdrawn_at FROM digest_set WHERE name = ?1 AND version = ?2"
            }
        };
        let row = sqlx::query(statement)
            .bind(id.name.as_str())
            .bind(i64::from(id.version))
            .fetch_optional(&mut *snapshot)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(match kind {
            SetKind::Pcrs => SetContent::Pcrs(parse_set(&row)?.0.accepted),
            SetKind::Boot => SetContent::Boot(parse(&row)?.0.set),
            SetKind::Digests => {
                let content = digest_set::parse(&row)?.content;
                let (digests, text) = digest_set::compiled(&mut snapshot, &content).await?;
                SetContent::Digests(digests, text)
            }
        }))
    }

    async fn stage_set(
        &self,
        name: Name,
        over: u32,
        both: SetContent,
        part: SetContent,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<SetChange, StoreError> {
        // `both` is laid out last, and finds what is new in the chunks of `part`.
        let mut contents = [part, both];
        let mut layouts = self.layouts(&mut contents).await?;
        let [part, both] = contents;
        let (mut part, both) = (Written::of(part, &mut layouts)?, Written::of(both, &mut layouts)?);
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let kind = both.kind();
                let Some(current) = current(connection, kind, &name).await? else {
                    return Ok(Recorded(SetChange::Missing, Vec::new()));
                };
                if let Some(open) = open(connection, kind, &name).await? {
                    if open.version == current {
                        return Ok(Recorded(SetChange::AlreadyStaged { version: current }, Vec::new()));
                    }
                    end(connection, open.number, "overtaken", &provenance).await?;
                }
                if current != over {
                    return Ok(Recorded(SetChange::Overtaken { current }, Vec::new()));
                }
                let digest = part.digest();
                part.keep(connection).await?;
                let version = insert(connection, &name, both, &provenance).await?;
                let (values, content) = match part {
                    Written::Pcrs(json) | Written::Boot(json) => (Some(json), None),
                    Written::Digests { content, count, .. } => (None, Some((content.to_vec(), count))),
                };
                let (content, count) = content.unzip();
                sqlx::query(
                    "INSERT INTO set_staging (kind, name, version, over, part, part_content, part_digests) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )
                .bind(kind.as_str())
                .bind(name.as_str())
                .bind(i64::from(version))
                .bind(i64::from(over))
                .bind(values)
                .bind(content)
                .bind(count)
                .execute(connection)
                .await?;
                let before = Versioned { name: name.clone(), version: over }.to_string();
                let record =
                    record.by(&Versioned { name, version }.to_string()).by(&before).of_inputs(digest);
                Ok(Recorded(SetChange::Done { version }, vec![record]))
            })
        })
        .await
    }

    async fn end_update(
        &self,
        how: UpdateEnd,
        kind: SetKind,
        name: &Name,
        over: Option<u32>,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<SetChange, StoreError> {
        let name = name.clone();
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let Open { number, version: staged, over: before, part } =
                    match step(connection, kind, &name, over).await? {
                        Ok(open) => open,
                        Err(refused) => return Ok(Recorded(refused, Vec::new())),
                    };
                let (version, word, record) = match how {
                    UpdateEnd::Promoted => {
                        let record = record.of_inputs(part.digest());
                        (insert(connection, &name, part, &provenance).await?, "promoted", record)
                    }
                    UpdateEnd::Unstaged => {
                        withdraw_one(connection, kind, &name, staged, &provenance).await?;
                        let version = current(connection, kind, &name).await?;
                        (version.unwrap_or(before), "unstaged", record)
                    }
                };
                end(connection, number, word, &provenance).await?;
                let named = |version| Versioned { name: name.clone(), version }.to_string();
                let record = record.by(&named(version)).by(&named(staged));
                Ok(Recorded(SetChange::Done { version }, vec![record]))
            })
        })
        .await
    }

    async fn stagings(&self) -> Result<Vec<Staging>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let rows = sqlx::query(
            "SELECT kind, name, version, over FROM set_staging WHERE ended IS NULL ORDER BY kind, name",
        )
        .fetch_all(&mut *snapshot)
        .await?;
        let mut stagings = Vec::new();
        for row in &rows {
            let columns = Columns::named_by_version(row, "staged update");
            let word: &str = columns.plain("kind")?;
            let kind = SetKind::ALL.into_iter().find(|kind| kind.as_str() == word);
            let kind = kind.ok_or_else(|| columns.inconsistent("a kind that sets do not have"))?;
            let staged = versioned(&columns)?;
            if current(&mut snapshot, kind, &staged.name).await? == Some(staged.version) {
                stagings.push(Staging { kind, staged, over: columns.number("over")? });
            }
        }
        Ok(stagings)
    }

    async fn put_sets(
        &self,
        sets: Vec<(Name, SetContent, Provenance)>,
        beside: Beside,
        record: AuditRecord,
    ) -> Result<SetsWritten, StoreError> {
        let (mut contents, named): (Vec<_>, Vec<_>) =
            sets.into_iter().map(|(name, content, provenance)| (content, (name, provenance))).unzip();
        let mut layouts = self.layouts(&mut contents).await?;
        let written = contents.into_iter().map(|content| Written::of(content, &mut layouts));
        let sets: Vec<_> = named.into_iter().zip(written.collect::<Result<Vec<_>, _>>()?).collect();
        self.write_recorded(move |connection| {
            Box::pin(async move {
                // Whatever is refused is refused before anything is written: this returns, it takes nothing back.
                if let Some(from) = beside.from.as_ref().filter(|from| !from.older) {
                    for ((name, _), values) in &sets {
                        if let Some(last) = imports::newer(connection, from, values.kind(), name).await? {
                            let older = SetsWritten::Older { name: name.clone(), last };
                            return Ok(Recorded(older, Vec::new()));
                        }
                    }
                }
                let (mut versions, mut record) = (Vec::new(), record);
                if let Some((list, provenance)) = &beside.denied {
                    if insert_deny_list(connection, list, provenance).await? == 0 {
                        return Ok(Recorded(SetsWritten::DenyListOvertaken, Vec::new()));
                    }
                    record = record.by(&list.id().to_string());
                }
                for ((name, provenance), values) in sets {
                    if let Some(from) = &beside.from {
                        imports::remember(connection, from, values.kind(), &name).await?;
                    }
                    let version = insert(connection, &name, values, &provenance).await?;
                    let id = Versioned { name, version };
                    record = record.by(&id.to_string());
                    versions.push(id);
                }
                Ok(Recorded(SetsWritten::Done(versions), vec![record]))
            })
        })
        .await
    }

    async fn put_deny_list(
        &self,
        list: DenyList,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<bool, StoreError> {
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let digest = sha256(&[to_json(&list.entries())?.as_bytes()]);
                let inserted = insert_deny_list(connection, &list, &provenance).await?;
                let record = record.by(&list.id().to_string()).of_inputs(digest);
                Ok(Recorded::if_changed(inserted, record))
            })
        })
        .await
    }

    async fn deny_list(&self, version: Option<u32>) -> Result<Option<(DenyList, Provenance)>, StoreError> {
        deny_list(&mut *self.reader().await?, version).await
    }
}

/// Writes a version of the deny list, if it follows the last one; how many were written.
async fn insert_deny_list(
    connection: &mut SqliteConnection,
    list: &DenyList,
    provenance: &Provenance,
) -> Result<u64, StoreError> {
    let insert = sqlx::query(
        "INSERT INTO deny_list (version, entries, author, reason, created_at) \
         SELECT ?1, ?2, ?3, ?4, ?5 \
         WHERE ?1 = 1 + coalesce((SELECT max(version) FROM deny_list), 0)",
    )
    .bind(i64::from(list.version()))
    .bind(to_json(&list.entries())?)
    .bind(provenance.author.as_str())
    .bind(provenance.reason.as_str())
    .bind(provenance.created_at.as_millis());
    Ok(insert.execute(connection).await?.rows_affected())
}

pub(super) async fn deny_list(
    connection: &mut SqliteConnection,
    version: Option<u32>,
) -> Result<Option<(DenyList, Provenance)>, StoreError> {
    let row = sqlx::query(
        "SELECT version, entries, author, reason, created_at FROM deny_list \
         WHERE version = coalesce(?1, (SELECT max(version) FROM deny_list))",
    )
    .bind(version.map(i64::from))
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let columns = Columns::named_by_number(&row, "deny list", "version");
    let entries: Vec<DenyEntry> = columns.json("entries")?;
    let list = DenyList::new(columns.number("version")?, entries);
    Ok(Some((list.map_err(|error| columns.inconsistent(error))?, columns.provenance()?)))
}

/// A boot set, and whether it is withdrawn.
pub(super) fn parse(row: &SqliteRow) -> Result<(BootSetVersion, bool), StoreError> {
    let columns = Columns::named_by_version(row, "boot set");
    let withdrawn = withdrawn(&columns)?;
    let values: BootValues = columns.json("content")?;
    let set = BootSet::new(values).map_err(|error| columns.inconsistent(error))?;
    Ok((BootSetVersion { id: versioned(&columns)?, set, provenance: columns.provenance()? }, withdrawn))
}
