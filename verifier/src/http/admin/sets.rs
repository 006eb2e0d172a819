//! What the command line says to the running daemon about sets and the deny list, and what it hears.

use rootbound_common::blob::Blob;
use rootbound_common::crypto::TaggedDigest;
use rootbound_compute::values::BootValues;
use serde::{Deserialize, Serialize};

use super::answer::Session;
use super::message::{
    DigestFrame, DigestSetDetail, DigestSetSummary, ReferenceDetail, Removed, Reply, Words,
};
use crate::evidence::frame::pack;
use crate::flows::exchange::{ImportFrom, Imported, Waived};
use crate::flows::operate::{OperateError, Reappraised};
use crate::flows::sets::{FoundSet, SetValues, WhichSet, WrittenSet};
use crate::node::Name;
use crate::reference::exchange::DocumentSignature;
use crate::reference::{
    AcceptedPcrs, DeniedAs, DenyEntry, DenyList, Provenance, SetContent, SetKind, Versioned, corim,
};

/// What an operator wants of sets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SetCommand {
    /// Write the next version.
    Put {
        /// What it is called.
        name: Name,
        /// Its values.
        values: Values,
        /// Why.
        reason: Words,
    },
    /// Which versions are there, of every kind?
    List,
    /// What is in a version?
    Show {
        /// Which.
        set: WhichSet,
    },
    /// Withdraw every version.
    Withdraw {
        /// Which set.
        set: WhichSet,
        /// Why.
        reason: Words,
    },
    /// Accept an update beside what is accepted now.
    Stage {
        /// Which set.
        name: Name,
        /// Only on top of this version.
        over: Option<u32>,
        /// What is new.
        values: Values,
        /// Why.
        reason: Words,
    },
    /// From now on accept the update only.
    Promote {
        /// Which set; a version: only while it is current.
        set: WhichSet,
        /// Why.
        reason: Words,
    },
    /// Accept again what was accepted before the update.
    Unstage {
        /// Which set; a version: only while it is current.
        set: WhichSet,
        /// Why.
        reason: Words,
    },
    /// What do two versions not share?
    Diff {
        /// The first.
        from: WhichSet,
        /// The second.
        to: WhichSet,
        /// Differences that are shown at most.
        limit: usize,
    },
    /// Write what either of two versions has as the next version of a set.
    Merge {
        /// The first.
        one: WhichSet,
        /// The second.
        other: WhichSet,
        /// The set.
        into: Name,
        /// Why.
        reason: Words,
    },
    /// Deny digests everywhere.
    Deny {
        /// Which, and as what.
        digests: Vec<(DeniedAs, TaggedDigest)>,
        /// What they are.
        label: Words,
        /// Why.
        reason: Words,
    },
    /// What is denied?
    Denied {
        /// By which version of the list; by the one in force where it is not said.
        version: Option<u32>,
    },
    /// Put versions into a document.
    Export {
        /// Which; none: the current one of every set.
        sets: Vec<WhichSet>,
        /// Whether with the deny list.
        deny: bool,
    },
    /// Write what a document has.
    Import {
        /// The document.
        document: serde_json::Value,
        /// The signature over it.
        signature: Option<DocumentSignature>,
        /// Whether none is needed.
        unsigned: bool,
        /// Whether it may be older than what was imported.
        older: bool,
        /// Why.
        reason: Words,
    },
    /// Write what a CoRIM has.
    ImportCorim {
        /// The CoRIM.
        corim: Blob<{ corim::MAX_BYTES }>,
        /// What its only set is to be called.
        name: Option<Name>,
        /// Whether no signature is needed.
        unsigned: bool,
        /// Whether it may be older than what was imported.
        older: bool,
        /// Why.
        reason: Words,
    },
    /// Deny digests no longer.
    Undeny {
        /// Which.
        digests: Vec<TaggedDigest>,
        /// Why.
        reason: Words,
    },
}

/// Values for a set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Values {
    /// PCR values.
    Pcrs(AcceptedPcrs),
    /// Values of boots.
    Boot(BootValues),
    /// The text of a digest set, as a zstd frame.
    Digests(DigestFrame),
}

impl From<Values> for SetValues {
    fn from(values: Values) -> Self {
        match values {
            Values::Pcrs(accepted) => Self::Pcrs(accepted),
            Values::Boot(values) => Self::Boot(values),
            Values::Digests(frame) => Self::Digests(frame.into_bytes()),
        }
    }
}

/// A version of a set in one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetSummary {
    /// Its kind.
    pub kind: SetKind,
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u32,
    /// Whether it is withdrawn.
    pub withdrawn: bool,
    /// Where it accepts an update beside what was accepted before: the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_over: Option<u32>,
    /// How many values it has.
    pub values: u64,
    /// Who made it.
    pub provenance: Provenance,
}

/// A version of a boot set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootSetDetail {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u32,
    /// Whether it is withdrawn.
    pub withdrawn: bool,
    /// Its values.
    #[serde(flatten)]
    pub values: BootValues,
    /// Who made it.
    pub provenance: Provenance,
}

/// A version that is current now, and what that changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetWritten {
    /// The kind of the set.
    pub kind: SetKind,
    /// Its name.
    pub name: Name,
    /// The version.
    pub version: u32,
    /// Whether it is not new: the update on top of it was taken back.
    #[serde(default)]
    pub restored: bool,
    /// What it changed.
    pub reappraised: Reappraised,
}

/// A version of the deny list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DenyListDetail {
    /// 0: nobody wrote one yet.
    pub version: u32,
    /// What is denied.
    pub entries: Vec<DenyEntry>,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// A version of the deny list was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DenyWritten {
    /// The version.
    pub version: u32,
    /// How many entries it has.
    pub entries: usize,
    /// What it changed.
    pub reappraised: Reappraised,
}

/// A document was imported.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetsImported {
    /// What it had, and what that became.
    pub sets: Vec<SetImported>,
    /// Who signed it; absent: nobody, as the operator said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// The deny list with what it denies; absent: it denies nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<DeniedImported>,
    /// What it changed.
    pub reappraised: Reappraised,
}

/// What a document denies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeniedImported {
    /// The version of the deny list that has all of it.
    pub version: u32,
    /// How many entries that list did not have before.
    pub added: usize,
}

/// A set of a document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetImported {
    /// What it was, where it comes from.
    pub from: String,
    /// Its kind.
    pub kind: SetKind,
    /// Its name.
    pub name: Name,
    /// The version that it became.
    pub version: u32,
}

/// Does what a command says.
pub(super) async fn answer(session: &Session<'_>, command: SetCommand) -> Result<Reply, OperateError> {
    let verifier = session.verifier;
    match command {
        SetCommand::Put { name, values, reason } => {
            written(verifier.put_set(name, values.into(), &session.operator(&reason)).await?)
        }
        SetCommand::List => list(session).await,
        SetCommand::Show { set } => show(verifier.read_set(&set).await?),
        SetCommand::Withdraw { set, reason } => {
            let (kind, reappraised) = verifier.withdraw_set(&set, &session.operator(&reason)).await?;
            let what = format!("{} {}", kind.entity().replace('_', " "), set.name);
            Ok(Reply::Removed(Removed { what, reappraised: Some(reappraised) }))
        }
        SetCommand::Stage { name, over, values, reason } => {
            written(verifier.stage_set(name, over, values.into(), &session.operator(&reason)).await?)
        }
        SetCommand::Promote { set, reason } => {
            written(verifier.promote_set(&set, &session.operator(&reason)).await?)
        }
        SetCommand::Unstage { set, reason } => {
            let WrittenSet { kind, id, reappraised } =
                verifier.unstage_set(&set, &session.operator(&reason)).await?;
            let (name, version) = (id.name, id.version);
            Ok(Reply::SetWritten(SetWritten { kind, name, version, restored: true, reappraised }))
        }
        SetCommand::Diff { from, to, limit } => {
            Ok(Reply::SetDiff(Box::new(verifier.diff_sets(&from, &to, limit).await?)))
        }
        SetCommand::Merge { one, other, into, reason } => {
            written(verifier.merge_sets(&one, &other, into, &session.operator(&reason)).await?)
        }
        SetCommand::Deny { digests, label, reason } => {
            denied(verifier.deny(&digests, label.as_str(), &session.operator(&reason)).await?)
        }
        SetCommand::Undeny { digests, reason } => {
            denied(verifier.undeny(&digests, &session.operator(&reason)).await?)
        }
        SetCommand::Export { sets, deny } => Ok(Reply::Exported(verifier.export_sets(&sets, deny).await?)),
        SetCommand::Import { document, signature, unsigned, older, reason } => {
            let from = ImportFrom::Document { document: &document, signature: signature.as_ref() };
            imported(
                verifier.import_sets(from, Waived { unsigned, older }, &session.operator(&reason)).await?,
            )
        }
        SetCommand::ImportCorim { corim, name, unsigned, older, reason } => {
            let from = ImportFrom::Corim { file: corim.as_bytes(), name: name.as_ref() };
            imported(
                verifier.import_sets(from, Waived { unsigned, older }, &session.operator(&reason)).await?,
            )
        }
        SetCommand::Denied { version } => {
            let found = verifier.store().deny_list(version).await?;
            let detail = match (found, version) {
                (Some((list, provenance)), _) => DenyListDetail {
                    version: list.version(),
                    entries: list.entries().to_vec(),
                    provenance: Some(provenance),
                },
                (None, None) => DenyListDetail { version: 0, entries: Vec::new(), provenance: None },
                (None, Some(version)) => {
                    let name = format!("{}@{version}", Name::deny_list());
                    return Err(OperateError::NoSuch { what: "deny list", name });
                }
            };
            Ok(Reply::DenyList(Box::new(detail)))
        }
    }
}

fn written(set: WrittenSet) -> Result<Reply, OperateError> {
    let WrittenSet { kind, id, reappraised } = set;
    Ok(Reply::SetWritten(SetWritten {
        kind,
        name: id.name,
        version: id.version,
        restored: false,
        reappraised,
    }))
}

fn imported(imported: Imported) -> Result<Reply, OperateError> {
    let set = |(from, kind, id): (String, SetKind, Versioned)| SetImported {
        from,
        kind,
        name: id.name,
        version: id.version,
    };
    let sets = imported.sets.into_iter().map(set).collect();
    let (signed_by, reappraised) = (imported.signer, imported.reappraised);
    let denied = imported.denied.map(|(version, added)| DeniedImported { version, added });
    Ok(Reply::Imported(SetsImported { sets, signed_by, denied, reappraised }))
}

fn denied((list, reappraised): (DenyList, Reappraised)) -> Result<Reply, OperateError> {
    let (version, entries) = (list.version(), list.entries().len());
    Ok(Reply::Denied(DenyWritten { version, entries, reappraised }))
}

async fn list(session: &Session<'_>) -> Result<Reply, OperateError> {
    let store = session.verifier.store();
    let stagings = store.stagings().await?;
    let summary = |record: crate::store::sets::SetRecord| SetSummary {
        staged_over: stagings
            .iter()
            .find(|staging| staging.kind == record.kind && staging.staged == record.id)
            .map(|staging| staging.over),
        kind: record.kind,
        name: record.id.name,
        version: record.id.version,
        withdrawn: record.withdrawn,
        values: record.values,
        provenance: record.provenance,
    };
    Ok(Reply::Sets(store.set_records().await?.into_iter().map(summary).collect()))
}

fn show(found: FoundSet) -> Result<Reply, OperateError> {
    let FoundSet { id, withdrawn, provenance, content } = found;
    let (name, version) = (id.name, id.version);
    Ok(match content {
        SetContent::Pcrs(accepted) => {
            Reply::Reference(ReferenceDetail { name, version, withdrawn, accepted, provenance })
        }
        SetContent::Boot(set) => {
            let values = set.values().clone();
            Reply::BootSet(Box::new(BootSetDetail { name, version, withdrawn, values, provenance }))
        }
        SetContent::Digests(digests, text) => {
            let missing = || OperateError::NoSuch { what: "digest set", name: name.to_string() };
            let frame = Blob::new(pack(&text)?).ok_or_else(missing)?;
            let summary = DigestSetSummary {
                name,
                version,
                withdrawn,
                digests: u64::try_from(digests.len()).unwrap_or(u64::MAX),
                content: data_encoding::HEXLOWER.encode(digests.id()),
                provenance,
            };
            Reply::DigestSet(DigestSetDetail { summary, frame })
        }
    })
}
