//! Sets are exported, and imported by somebody's signature or an operator's word: all of a document, or nothing of it.

use std::collections::BTreeSet;

use rootbound_common::blob::Blob;
use rootbound_common::text::only_shows;
use serde_json::{Value, json};

use super::Verifier;
use super::operate::{OperateError, Operator, Reappraised};
use super::sets::{SetError, WhichSet, permitted};
use crate::audit::{Entity, Facts, RecordKind};
use crate::evidence::frame::{FrameError, pack, unpack};
use crate::node::Name;
use crate::reference::exchange::{
    Contents, Document, DocumentSignature, ExchangeError, ExportedSet, ExportedValues, FORMAT, Importable,
    Refused, TakenSet,
};
use crate::reference::{
    BootSet, DenyEntry, DenyError, DenyList, Provenance, References, SetContent, SetKind, Versioned,
};
use crate::store::sets::{Beside, DocumentFrom, SetsWritten};

/// A document that was imported.
#[derive(Debug, Clone)]
pub struct Imported {
    /// What it had, and which versions that became here.
    pub sets: Vec<(String, SetKind, Versioned)>,
    /// Who signed it; `None`: nobody.
    pub signer: Option<String>,
    /// The version of the deny list that has what it denies, and how many of that it had not before.
    pub denied: Option<(u32, usize)>,
    /// What it changed.
    pub reappraised: Reappraised,
}

/// What an operator does without.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waived {
    /// Nobody looks at the signature.
    pub unsigned: bool,
    /// The document may be older than what was imported.
    pub older: bool,
}

/// In which form a document comes.
#[derive(Debug, Clone, Copy)]
pub enum ImportFrom<'d> {
    /// JSON, and the signature over its canonical bytes.
    Document {
        /// The document.
        document: &'d Value,
        /// The signature, where there is one.
        signature: Option<&'d DocumentSignature>,
    },
    /// A CoRIM, with its signature in it.
    Corim {
        /// Its bytes.
        file: &'d [u8],
        /// What its only set is to be called; as it says, without.
        name: Option<&'d Name>,
    },
}

/// Characters of a reason that is kept: a line, as operators' own.
const MAX_REASON: usize = 500;

impl Verifier {
    /// Versions of sets as a document; without any that are named, the current one of every set. `deny`: with the deny list.
    pub async fn export_sets(&self, named: &[WhichSet], deny: bool) -> Result<Value, OperateError> {
        let current = if named.is_empty() { self.current_sets() } else { Vec::new() };
        let (which, mut sets) = (if named.is_empty() { &current } else { named }, Vec::new());
        // As much as is imported.
        if which.len() > Document::MAX_SETS {
            return Err(SetError::Import(ExchangeError::TooMany).into());
        }
        let mut left = Document::MAX_TEXT;
        for one in which {
            let found = self.read_to_hand_on(one).await?;
            let values = match found.content {
                SetContent::Pcrs(accepted) => ExportedValues::Pcrs(accepted),
                SetContent::Boot(set) => ExportedValues::Boot(set.values().clone()),
                SetContent::Digests(_, text) => {
                    let rest = left.checked_sub(text.len());
                    left = rest.ok_or(SetError::Import(ExchangeError::TooLarge))?;
                    let frame = Blob::new(pack(&text)?).ok_or(SetError::Import(ExchangeError::TooLarge))?;
                    ExportedValues::Digests(frame)
                }
            };
            let Versioned { name, version } = found.id;
            sets.push(ExportedSet { name, version, provenance: found.provenance, values });
        }
        let list = if deny { self.store.deny_list(None).await? } else { None };
        let denied = list.map(|(list, _)| list.entries().to_vec()).unwrap_or_default();
        let document = Document {
            format: FORMAT.to_owned(),
            trust_domain: self.trust_domain.clone(),
            exported_at: self.now(),
            sets,
            denied,
        };
        document.check().map_err(SetError::from)?;
        let malformed = |error: serde_json::Error| ExchangeError::Malformed(error.to_string());
        Ok(serde_json::to_value(document).map_err(|error| SetError::Import(malformed(error)))?)
    }

    /// The current version of every set.
    fn current_sets(&self) -> Vec<WhichSet> {
        let References { sets, boot_sets, digest_sets, .. } = self.book.load().references();
        let pcrs = sets.into_iter().map(|set| (SetKind::Pcrs, set.id));
        let boot = boot_sets.into_iter().map(|set| (SetKind::Boot, set.id));
        let digests = digest_sets.into_iter().map(|set| (SetKind::Digests, set.id));
        let which =
            |(kind, Versioned { name, version })| WhichSet { kind: Some(kind), name, version: Some(version) };
        pcrs.chain(boot).chain(digests).map(which).collect()
    }

    /// Imports a document: each set becomes the next version of its name here. It has to be signed by a trusted signer, unless an
    /// operator says that it need not be, and must not be older than the last from there with one of its sets, unless an operator
    /// says that it may; which the audit trail repeats. What it denies is added to the deny list. Every node is appraised again.
    pub async fn import_sets(
        &self,
        from: ImportFrom<'_>,
        waived: Waived,
        operator: &Operator,
    ) -> Result<Imported, OperateError> {
        let Waived { unsigned, older } = waived;
        let (now, signers) = (self.now(), self.signers.load());
        let importable = match from {
            ImportFrom::Document { document, signature } if !unsigned => {
                Importable::signed(document, signature, &signers, now)
            }
            ImportFrom::Document { document, signature: _ } => Importable::unsigned(document, now),
            ImportFrom::Corim { file, name } => {
                Importable::corim(file, (!unsigned).then_some(signers.as_slice()), name, now)
            }
        };
        let importable = importable.map_err(SetError::from)?;
        let (digest, signer) = (*importable.digest(), importable.signer().map(ToString::to_string));
        let Contents { origin, made_at, sets: taken, denied: entries } = importable.into_contents();
        let by = signer.as_ref().map_or_else(|| "unsigned".to_owned(), |name| format!("signed by {name}"));
        let (mut sets, mut from, mut left) = (Vec::new(), Vec::new(), Document::MAX_TEXT);
        for set in taken {
            permitted(&set.id.name)?;
            let id = set.id.to_string();
            let reason = format!("{id} of {origin}, {by}: {}", operator.reason);
            let reason = reason.chars().take(MAX_REASON).collect();
            let provenance = Provenance { reason, ..self.provenance(operator) };
            let name = set.id.name.clone();
            let content = content(set, &mut left).map_err(SetError::from)?;
            from.push((id, content.kind()));
            sets.push((name, content, provenance));
        }
        let change = self.changes.lock().await;
        for (name, content, _) in &sets {
            if let SetContent::Boot(set) = content {
                self.check_boot_set(name, set)?;
            }
        }
        let reason = |entry: &str| {
            let reason = format!("of {origin}, {by}: {entry}");
            reason.chars().filter(|c| only_shows(*c)).take(MAX_REASON).collect()
        };
        let denied = self.merged(entries, reason, operator).await?;
        let added = denied.as_ref().map_or(0, |(_, added)| *added);
        let named: Vec<_> = from.iter().take(32).map(|(id, kind)| format!("{kind} {id}")).collect();
        let facts = json!({
            "origin": origin, "signed_by": signer, "unsigned": signer.is_none(), "older": older,
            "sets": named, "count": from.len(), "denied": added,
        });
        let subject = Entity::named("references", &origin);
        let record = self.done(operator, RecordKind::ReferenceChange, "import_sets", subject);
        let record = record.of_inputs(digest).with(Facts::or_digest(facts));
        let document = DocumentFrom { signer: signer.clone().unwrap_or_default(), origin, made_at, older };
        let provenance = self.provenance(operator);
        let beside = Beside {
            from: Some(document),
            denied: denied.as_ref().filter(|_| added > 0).map(|(list, _)| (list.clone(), provenance)),
        };
        let versions = match self.store.put_sets(sets, beside, record).await? {
            SetsWritten::Done(versions) => versions,
            SetsWritten::Older { name, last } => {
                return Err(SetError::from(ExchangeError::Older { set: name, last }).into());
            }
            SetsWritten::DenyListOvertaken => {
                let (list, _) = denied.unwrap_or_default();
                return Err(SetError::Overtaken(list.id()).into());
            }
        };
        tracing::info!(sets = versions.len(), signer, author = %operator.author, "references imported");
        let reappraised = self.references_changed(change).await?;
        let sets = from.into_iter().zip(versions).map(|((id, kind), version)| (id, kind, version)).collect();
        let denied = denied.map(|(list, added)| (list.version(), added));
        Ok(Imported { sets, signer, denied, reappraised })
    }

    /// The deny list with what a document denies beside; how much of that is new. What is denied already stays as it is, and nothing is
    /// ever removed. `None`: the document denies nothing.
    async fn merged(
        &self,
        entries: Vec<DenyEntry>,
        reason: impl Fn(&str) -> String,
        operator: &Operator,
    ) -> Result<Option<(DenyList, usize)>, OperateError> {
        if entries.is_empty() {
            return Ok(None);
        }
        if entries.len() > DenyList::MAX {
            return Err(SetError::Deny(DenyError::TooMany).into());
        }
        let before = self.store.deny_list(None).await?.map(|(list, _)| list).unwrap_or_default();
        let mut there: BTreeSet<_> =
            before.entries().iter().map(|entry| (entry.what, entry.digest)).collect();
        let new = entries.into_iter().filter(|entry| there.insert((entry.what, entry.digest)));
        let (author, at) = (&operator.author, self.now());
        let new: Vec<_> = new
            .map(|entry| DenyEntry { reason: reason(&entry.reason), author: author.clone(), at, ..entry })
            .collect();
        let added = new.len();
        if added == 0 {
            return Ok(Some((before, 0)));
        }
        let all = before.entries().iter().cloned().chain(new).collect();
        let list = DenyList::new(before.version().saturating_add(1), all).map_err(SetError::from)?;
        Ok(Some((list, added)))
    }
}

/// The values of an imported set. `left`: bytes that texts of digests may still have.
fn content(set: TakenSet, left: &mut usize) -> Result<SetContent, ExchangeError> {
    let id = set.id.to_string();
    let refused = |why: Refused| ExchangeError::Set { set: id.clone(), why };
    match set.values {
        ExportedValues::Pcrs(accepted) => Ok(SetContent::Pcrs(accepted)),
        ExportedValues::Boot(values) => {
            Ok(SetContent::Boot(BootSet::new(values).map_err(|error| refused(error.into()))?))
        }
        ExportedValues::Digests(frame) => {
            let text = unpack(frame.as_bytes(), *left).map_err(|error| match error {
                FrameError::TooLarge { .. } => ExchangeError::TooLarge,
                FrameError::Damaged => refused(error.into()),
            })?;
            *left = left.saturating_sub(text.len());
            SetContent::digests(text).map_err(|error| refused(error.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(frame: Vec<u8>) -> TakenSet {
        let values = ExportedValues::Digests(Blob::new(frame).unwrap());
        TakenSet { id: Versioned { name: "base".parse().unwrap(), version: 2 }, values }
    }

    #[test]
    fn digest_sets_of_a_document_are_bounded_together() {
        let text = format!("sha256:{}  *\n", "ab".repeat(32));
        let (frame, mut left) = (pack(text.as_bytes()).unwrap(), text.len() + 5);
        assert_eq!(content(set(frame.clone()), &mut left).unwrap().len(), 1);
        assert_eq!(left, 5);
        assert_eq!(content(set(frame), &mut left).unwrap_err(), ExchangeError::TooLarge);
    }

    #[test]
    fn digests_that_are_none_are_refused_by_the_name_of_their_set() {
        for frame in [b"no frame".to_vec(), pack(b"no digest\n").unwrap()] {
            let error = content(set(frame), &mut 1000).unwrap_err();
            assert!(matches!(&error, ExchangeError::Set { set, .. } if set == "base@2"), "{error:?}");
        }
    }
}
