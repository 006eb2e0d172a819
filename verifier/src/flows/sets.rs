//! The life of sets: written, staged, promoted, withdrawn, compared, merged; and what is denied everywhere.

use std::collections::{BTreeMap, BTreeSet};

use rootbound_common::crypto::TaggedDigest;
use rootbound_compute::values::BootValues;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::MutexGuard;

use super::Verifier;
use super::operate::{OperateError, Operator, Reappraised};
use crate::appraisal::boot::BootRulesError;
use crate::appraisal::runtime::DigestSet;
use crate::audit::{Entity, Facts, RecordKind};
use crate::evidence::frame::unpack;
use crate::node::Name;
use crate::reference::exchange::ExchangeError;
use crate::reference::{
    AcceptedPcrs, BootSet, BootSetError, ContentError, DeniedAs, DenyEntry, DenyError, DenyList, Difference,
    Provenance, SetContent, SetKind, Versioned,
};
use crate::store::sets::{SetChange, UpdateEnd};

/// Why something about sets is refused.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The values are no boot set.
    #[error("boot set: {0}")]
    BootSet(#[from] BootSetError),
    /// A profile that names the set could not have said the same.
    #[error("profile {profile} names this set, and could not say the same itself: {error}")]
    Contradicts {
        /// The profile.
        profile: Versioned,
        /// What contradicts.
        error: BootRulesError,
    },
    /// Sets of several kinds have the name.
    #[error("sets of several kinds are called `{0}`: say --kind pcrs, boot or digests")]
    Ambiguous(Name),
    /// The name has a meaning of its own.
    #[error("`deny` names the deny list: no set is called so")]
    Reserved,
    /// An update is staged already.
    #[error("{0} has an update staged already: promote it, or take it back with unstage")]
    AlreadyStaged(Versioned),
    /// No update is staged.
    #[error("no update of `{0}` is staged")]
    NotStaged(Name),
    /// Another version is current than was thought.
    #[error("{0} is current now: somebody else has changed it, look at it again")]
    Overtaken(Versioned),
    /// Values of different kinds cannot be compared, or be one set.
    #[error("{0} and {1} are sets of different kinds")]
    Kinds(SetKind, SetKind),
    /// Its values were withdrawn.
    #[error("{0} is withdrawn: name the version, where its values are to be accepted again")]
    Withdrawn(Versioned),
    /// The entries are no deny list.
    #[error("deny list: {0}")]
    Deny(#[from] DenyError),
    /// A document is not imported.
    #[error("import: {0}")]
    Import(#[from] ExchangeError),
    /// There is nothing to take off the list.
    #[error("{0} is not denied")]
    NotDenied(TaggedDigest),
}

impl SetError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BootSet(_) => "boot_set_refused",
            Self::Contradicts { .. } => "boot_set_contradicts_profile",
            Self::Ambiguous(_) => "set_kind_ambiguous",
            Self::Reserved => "set_name_reserved",
            Self::AlreadyStaged(_) => "set_already_staged",
            Self::NotStaged(_) => "set_not_staged",
            Self::Overtaken(_) => "set_overtaken",
            Self::Kinds(..) => "set_kinds_differ",
            Self::Withdrawn(_) => "set_withdrawn",
            Self::Deny(_) => "deny_list_refused",
            Self::NotDenied(_) => "not_denied",
            Self::Import(error) => error.code(),
        }
    }
}

/// Values for a set, as they come: not looked at yet.
#[derive(Debug, Clone)]
pub enum SetValues {
    /// PCR values.
    Pcrs(AcceptedPcrs),
    /// Values of boots.
    Boot(BootValues),
    /// The text of a digest set, as a zstd frame.
    Digests(Vec<u8>),
}

impl SetValues {
    pub(super) fn parse(self) -> Result<SetContent, OperateError> {
        Ok(match self {
            Self::Pcrs(accepted) => SetContent::Pcrs(accepted),
            Self::Boot(values) => SetContent::Boot(BootSet::new(values).map_err(SetError::from)?),
            Self::Digests(frame) => SetContent::digests(unpack(&frame, DigestSet::MAX_BYTES)?)?,
        })
    }
}

/// A set, as an operator names it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhichSet {
    /// Its kind; found by the name where it is not said.
    pub kind: Option<SetKind>,
    /// Its name.
    pub name: Name,
    /// The version; the current one where it is not said.
    pub version: Option<u32>,
}

/// A version that was written, and what it changed.
#[derive(Debug, Clone)]
pub struct WrittenSet {
    /// Its kind.
    pub kind: SetKind,
    /// Its name and version.
    pub id: Versioned,
    /// What it changed.
    pub reappraised: Reappraised,
}

/// What two versions do not share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDiff {
    /// Their kind.
    pub kind: SetKind,
    /// The first.
    pub from: Versioned,
    /// The second.
    pub to: Versioned,
    /// Values that only the first has.
    pub removed: u64,
    /// Values that only the second has.
    pub added: u64,
    /// Values that both have.
    pub shared: u64,
    /// The first of the differences, by value.
    pub differences: Vec<Difference>,
    /// Differences that are not shown.
    pub left_out: u64,
}

impl SetDiff {
    /// Differences in one answer at most: some 2 MB.
    pub const MAX: usize = 10_000;
}

/// A version, found and read.
#[derive(Debug)]
pub struct FoundSet {
    /// Its name and version.
    pub id: Versioned,
    /// Whether it is withdrawn.
    pub withdrawn: bool,
    /// Who made it.
    pub provenance: Provenance,
    /// Its values.
    pub content: SetContent,
}

impl From<ContentError> for OperateError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Kinds(one, other) => SetError::Kinds(one, other).into(),
            ContentError::Pcrs(error) => error.into(),
            ContentError::Boot(error) => SetError::from(error).into(),
            ContentError::Digests(error) => error.into(),
        }
    }
}

/// No set is called as the deny list is, by which an appraisal would name both alike.
pub(super) fn permitted(name: &Name) -> Result<(), SetError> {
    if *name == Name::deny_list() { Err(SetError::Reserved) } else { Ok(()) }
}

impl Verifier {
    /// Writes the next version of a set of whatever kind, and appraises every node again.
    pub async fn put_set(
        &self,
        name: Name,
        values: SetValues,
        operator: &Operator,
    ) -> Result<WrittenSet, OperateError> {
        self.write_set(name, values.parse()?, operator).await
    }

    async fn write_set(
        &self,
        name: Name,
        content: SetContent,
        operator: &Operator,
    ) -> Result<WrittenSet, OperateError> {
        let kind = content.kind();
        let (id, reappraised) = match content {
            SetContent::Pcrs(accepted) => {
                let (set, reappraised) = self.put_reference_set(name, accepted, operator).await?;
                (set.id, reappraised)
            }
            SetContent::Digests(_, text) => {
                let (set, reappraised) = self.write_digest_set(name, text, operator).await?;
                (set.id, reappraised)
            }
            SetContent::Boot(set) => {
                permitted(&name)?;
                let change = self.changes.lock().await;
                self.check_boot_set(&name, &set)?;
                let subject = Entity::named(kind.entity(), name.as_str());
                let record = self.done(operator, RecordKind::ReferenceChange, "put_boot_set", subject);
                let version = self.store.put_boot_set(name, set, self.provenance(operator), record).await?;
                tracing::info!(set = %version.id, author = %operator.author, "boot set written");
                (version.id, self.references_changed(change).await?)
            }
        };
        Ok(WrittenSet { kind, id, reappraised })
    }

    pub(super) fn check_boot_set(&self, name: &Name, set: &BootSet) -> Result<(), SetError> {
        let checked = self.book.load().check_boot_set(name, set);
        checked.map_err(|(profile, error)| SetError::Contradicts { profile, error })
    }

    /// Finds a version by what an operator says of it: the current one where no version is said, or the last.
    pub(super) async fn find_set(&self, which: &WhichSet) -> Result<(SetKind, Versioned), OperateError> {
        let records = self.store.set_records().await?;
        let fits = records.into_iter().filter(|record| {
            record.id.name == which.name
                && which.kind.is_none_or(|kind| kind == record.kind)
                && which.version.is_none_or(|version| version == record.id.version)
        });
        let mut found: BTreeMap<SetKind, (bool, Versioned)> = BTreeMap::new();
        for record in fits {
            let this = (!record.withdrawn, record.id);
            let best = found.entry(record.kind).or_insert_with(|| this.clone());
            if this > *best {
                *best = this;
            }
        }
        if found.len() > 1 {
            // One that is withdrawn is hardly meant.
            found.retain(|_, (current, _)| *current);
        }
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some((kind, (_, id))), None) => Ok((kind, id)),
            (Some(_), Some(_)) => Err(SetError::Ambiguous(which.name.clone()).into()),
            (None, _) => {
                let name = match which.version {
                    Some(version) => format!("{}@{version}", which.name),
                    None => which.name.to_string(),
                };
                Err(OperateError::NoSuch { what: "set", name })
            }
        }
    }

    /// A version, with its values.
    pub async fn read_set(&self, which: &WhichSet) -> Result<FoundSet, OperateError> {
        let (kind, id) = self.find_set(which).await?;
        let missing = || OperateError::NoSuch { what: "set", name: id.to_string() };
        let content = self.store.set_content(kind, &id).await?.ok_or_else(missing)?;
        let records = self.store.set_records().await?;
        let record = records.into_iter().find(|record| record.kind == kind && record.id == id);
        let record = record.ok_or_else(missing)?;
        Ok(FoundSet { id, withdrawn: record.withdrawn, provenance: record.provenance, content })
    }

    /// The same, to accept its values elsewhere: what was withdrawn does not come back by a name alone.
    pub(super) async fn read_to_hand_on(&self, which: &WhichSet) -> Result<FoundSet, OperateError> {
        let found = self.read_set(which).await?;
        if found.withdrawn && which.version.is_none() {
            return Err(SetError::Withdrawn(found.id).into());
        }
        Ok(found)
    }

    /// Withdraws every version of a set, and appraises every node again.
    pub async fn withdraw_set(
        &self,
        which: &WhichSet,
        operator: &Operator,
    ) -> Result<(SetKind, Reappraised), OperateError> {
        let (kind, Versioned { name, .. }) = self.find_set(which).await?;
        let reappraised = match kind {
            SetKind::Pcrs => self.remove_reference_set(&name, operator).await?,
            SetKind::Digests => self.remove_digest_set(&name, operator).await?,
            SetKind::Boot => {
                let change = self.changes.lock().await;
                let subject = Entity::named(kind.entity(), name.as_str());
                let record = self.done(operator, RecordKind::ReferenceChange, "withdraw_boot_set", subject);
                let withdrawn =
                    self.store.withdraw_boot_set(&name, self.provenance(operator), record).await?;
                let appraised = self.references_changed(change).await?;
                if !withdrawn {
                    return Err(OperateError::NoSuch { what: "boot set", name: name.to_string() });
                }
                tracing::info!(set = %name, author = %operator.author, "boot set withdrawn");
                appraised
            }
        };
        Ok((kind, reappraised))
    }

    /// Stages an update: the next version accepts what the current one does, and what is new. Every node is appraised again.
    /// `over`: only if this is the current version.
    pub async fn stage_set(
        &self,
        name: Name,
        over: Option<u32>,
        values: SetValues,
        operator: &Operator,
    ) -> Result<WrittenSet, OperateError> {
        let part = values.parse()?;
        let kind = part.kind();
        let which = WhichSet { kind: Some(kind), name: name.clone(), version: None };
        let (_, current) = self.find_set(&which).await?;
        let over = over.unwrap_or(current.version);
        let before = self.store.set_content(kind, &current).await?;
        let before = before.ok_or_else(|| OperateError::NoSuch { what: "set", name: current.to_string() })?;
        let both = before.union(&part)?;
        let change = self.changes.lock().await;
        if let (SetContent::Boot(both), SetContent::Boot(part)) = (&both, &part) {
            self.check_boot_set(&name, both)?;
            // What is left once it is promoted.
            self.check_boot_set(&name, part)?;
        }
        let facts = json!({ "values": part.len(), "together": both.len() });
        let subject = Entity::named(kind.entity(), name.as_str());
        let record = self.done(operator, RecordKind::ReferenceChange, "stage_set", subject);
        let (provenance, record) = (self.provenance(operator), record.with(Facts::or_digest(facts)));
        let done = if current.version == over {
            self.store.stage_set(name.clone(), over, both, part, provenance, record).await?
        } else {
            SetChange::Overtaken { current: current.version }
        };
        let id = stepped(name, done)?;
        tracing::info!(set = %id, %kind, author = %operator.author, "update of a set staged");
        Ok(WrittenSet { kind, id, reappraised: self.references_changed(change).await? })
    }

    /// Ends an update: from now on only what was new is accepted. Every node is appraised again.
    pub async fn promote_set(
        &self,
        which: &WhichSet,
        operator: &Operator,
    ) -> Result<WrittenSet, OperateError> {
        self.end_update(UpdateEnd::Promoted, which, operator).await
    }

    /// Takes an update back: what was accepted before it is accepted again, and nothing else. Every node is appraised again.
    pub async fn unstage_set(
        &self,
        which: &WhichSet,
        operator: &Operator,
    ) -> Result<WrittenSet, OperateError> {
        self.end_update(UpdateEnd::Unstaged, which, operator).await
    }

    /// The version that an update is on top of is compared by the store alone.
    async fn end_update(
        &self,
        how: UpdateEnd,
        which: &WhichSet,
        operator: &Operator,
    ) -> Result<WrittenSet, OperateError> {
        let (kind, id) = self.find_set(&WhichSet { version: None, ..which.clone() }).await?;
        let (name, over) = (id.name, which.version);
        let action = match how {
            UpdateEnd::Promoted => "promote_set",
            UpdateEnd::Unstaged => "unstage_set",
        };
        let change = self.changes.lock().await;
        let subject = Entity::named(kind.entity(), name.as_str());
        let record = self.done(operator, RecordKind::ReferenceChange, action, subject);
        let done = self.store.end_update(how, kind, &name, over, self.provenance(operator), record).await?;
        let id = match stepped(name, done) {
            Ok(id) => id,
            Err(error) => return Err(self.not_stepped(change, error).await),
        };
        tracing::info!(set = %id, %kind, ?how, author = %operator.author, "update of a set ended");
        Ok(WrittenSet { kind, id, reappraised: self.references_changed(change).await? })
    }

    /// A step that is not to be taken may have been taken by an attempt that did not come as far as memory.
    async fn not_stepped(&self, change: MutexGuard<'_, ()>, error: OperateError) -> OperateError {
        match self.references_changed(change).await {
            Ok(_) => error,
            Err(other) => other,
        }
    }

    /// What two versions do not share, at most `limit` of it.
    pub async fn diff_sets(
        &self,
        from: &WhichSet,
        to: &WhichSet,
        limit: usize,
    ) -> Result<SetDiff, OperateError> {
        let (from, to) = (self.read_set(from).await?, self.read_set(to).await?);
        let found = from.content.differences(&to.content, limit.min(SetDiff::MAX))?;
        let shown = u64::try_from(found.first.len()).unwrap_or(u64::MAX);
        Ok(SetDiff {
            kind: from.content.kind(),
            from: from.id,
            to: to.id,
            removed: found.removed,
            added: found.added,
            shared: found.shared,
            left_out: found.removed.saturating_add(found.added).saturating_sub(shown),
            differences: found.first,
        })
    }

    /// Writes what either of two versions has as the next version of a set.
    pub async fn merge_sets(
        &self,
        one: &WhichSet,
        other: &WhichSet,
        into: Name,
        operator: &Operator,
    ) -> Result<WrittenSet, OperateError> {
        let (one, other) = (self.read_to_hand_on(one).await?, self.read_to_hand_on(other).await?);
        let both = one.content.union(&other.content)?;
        let merged = format!("{} and {} merged", one.id, other.id);
        let reason =
            if operator.reason.is_empty() { merged } else { format!("{merged}: {}", operator.reason) };
        self.write_set(into, both, &Operator { reason, ..operator.clone() }).await
    }

    /// Denies digests everywhere, from the next appraisal on; what nodes showed last is appraised again at once. What is denied
    /// already stays as it is.
    pub async fn deny(
        &self,
        digests: &[(DeniedAs, TaggedDigest)],
        label: &str,
        operator: &Operator,
    ) -> Result<(DenyList, Reappraised), OperateError> {
        let change = self.changes.lock().await;
        let before = self.store.deny_list(None).await?.map(|(list, _)| list).unwrap_or_default();
        if digests.len() > DenyList::MAX {
            return Err(SetError::Deny(DenyError::TooMany).into());
        }
        let mut entries = before.entries().to_vec();
        let mut there: BTreeSet<_> = entries.iter().map(|entry| (entry.what, entry.digest)).collect();
        for (what, digest) in digests {
            if !there.insert((*what, *digest)) {
                continue;
            }
            entries.push(DenyEntry {
                what: *what,
                digest: *digest,
                label: label.to_owned(),
                reason: operator.reason.clone(),
                author: operator.author.clone(),
                at: self.now(),
            });
        }
        if let (true, Some((_, first))) = (entries.len() == before.entries().len(), digests.first()) {
            // The attempt that denied them may not have come as far as memory.
            self.references_changed(change).await?;
            return Err(SetError::Deny(DenyError::Already(*first)).into());
        }
        let list = next(&before, entries)?;
        let added = list.entries().len().saturating_sub(before.entries().len());
        let facts = json!({ "label": label, "added": added });
        self.write_deny_list(&list, "deny", facts, operator).await?;
        Ok((list, self.references_changed(change).await?))
    }

    /// Takes digests off the deny list, whatever they are denied as; what nodes showed last is appraised again.
    pub async fn undeny(
        &self,
        digests: &[TaggedDigest],
        operator: &Operator,
    ) -> Result<(DenyList, Reappraised), OperateError> {
        let change = self.changes.lock().await;
        let before = self.store.deny_list(None).await?.map(|(list, _)| list).unwrap_or_default();
        let denied = |digest: &TaggedDigest| before.entries().iter().any(|entry| entry.digest == *digest);
        if let Some(other) = digests.iter().find(|digest| !denied(digest)) {
            self.references_changed(change).await?;
            return Err(SetError::NotDenied(*other).into());
        }
        let kept = before.entries().iter().filter(|entry| !digests.contains(&entry.digest));
        let list = next(&before, kept.cloned().collect())?;
        let removed: Vec<_> = digests.iter().take(16).map(ToString::to_string).collect();
        let facts = json!({ "removed": removed, "count": digests.len() });
        self.write_deny_list(&list, "undeny", facts, operator).await?;
        Ok((list, self.references_changed(change).await?))
    }

    async fn write_deny_list(
        &self,
        list: &DenyList,
        action: &str,
        facts: serde_json::Value,
        operator: &Operator,
    ) -> Result<(), OperateError> {
        let subject = Entity::named("deny_list", list.id().name.as_str());
        let record = self.done(operator, RecordKind::ReferenceChange, action, subject);
        let record = record.with(Facts::or_digest(facts));
        if !self.store.put_deny_list(list.clone(), self.provenance(operator), record).await? {
            return Err(SetError::Overtaken(list.id()).into());
        }
        tracing::info!(list = %list.id(), author = %operator.author, "deny list written");
        Ok(())
    }
}

fn next(before: &DenyList, entries: Vec<DenyEntry>) -> Result<DenyList, SetError> {
    Ok(DenyList::new(before.version().saturating_add(1), entries)?)
}

/// What a step of an update came to.
fn stepped(name: Name, change: SetChange) -> Result<Versioned, OperateError> {
    Err(match change {
        SetChange::Done { version } => return Ok(Versioned { name, version }),
        SetChange::Missing => OperateError::NoSuch { what: "set", name: name.to_string() },
        SetChange::Overtaken { current } => SetError::Overtaken(Versioned { name, version: current }).into(),
        SetChange::AlreadyStaged { version } => SetError::AlreadyStaged(Versioned { name, version }).into(),
        SetChange::NotStaged => SetError::NotStaged(name).into(),
    })
}
