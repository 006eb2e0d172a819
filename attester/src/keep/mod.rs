//! What the attester remembers over restarts, in a folder that nobody else may open.
//!
//! - `identity.json`: the AK, and whether the verifier knows it
//! - `credential.json`: the credential key, and the certificate for it
//! - `status.json`: how the last attestation went, for `rootbound-attester status`
//! - `control.json`: whether a control stream is held, for the same
//! - `lock`: held by the running daemon
//!
//! Private keys are there as the TPM wrapped them, or as seeds that it makes them from again: useless to another TPM. The folder is private all the same, since
//! who may write to it could make this machine enrol anew. Each file is replaced whole; none is needed to go on: what
//! is lost or cannot be read is made anew, by enrolling once more or by asking for another credential.

mod folder;

use std::path::{Path, PathBuf};

use rootbound_common::blob::Blob;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::{NodeId, SpiffeId};
use rootbound_common::wire::v1::{CredentialPolicy, PostureReport, PublicBlob};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

pub use folder::FolderError;
use folder::{Folder, FolderLock};

use crate::control::ControlStatus;
use crate::tpm::{AkBlob, CredentialKeyBlob, KeyBlob, KeyBlobError};

/// Section `[state]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateConfig {
    /// The folder; made with mode 0700 where there is none.
    pub directory: PathBuf,
}

/// Why something cannot be remembered or recalled.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The folder or a file in it.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file is not what this version writes.
    #[error("{file} is not what this version of the attester writes: {reason}")]
    Corrupt {
        /// The file.
        file: &'static str,
        /// Where it differs.
        reason: String,
    },
}

/// A key that this TPM made, with what the TPM has it from again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedKey {
    /// TPMT_PUBLIC.
    pub public: PublicBlob,
    /// [`KeyBlob::private`]: the seed of an AK; of others the content of TPM2B_PRIVATE.
    pub private: Blob<1600>,
}

impl SavedKey {
    /// The key, to be saved; nothing where it is too long.
    #[must_use]
    pub fn of(key: &KeyBlob) -> Option<Self> {
        let public = Blob::new(key.public().as_bytes().to_vec())?;
        let private = Blob::new(key.private().to_vec())?;
        Some(Self { public, private })
    }

    /// The key, if it is one to attest with. Whether this TPM takes it, the TPM says.
    pub fn to_attestation_key(&self) -> Result<AkBlob, KeyBlobError> {
        AkBlob::from_parts(self.public.as_bytes(), self.private.as_bytes())
    }

    /// The key, if it is one of a credential. Whether this TPM takes it, the TPM says.
    pub fn to_credential_key(&self) -> Result<CredentialKeyBlob, KeyBlobError> {
        CredentialKeyBlob::from_parts(self.public.as_bytes(), self.private.as_bytes())
    }
}

/// The AK, and whether the verifier knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Hash of the EK of the TPM that all of this belongs to, which is the machine's id.
    pub node: NodeId,
    /// The AK.
    pub attestation_key: SavedKey,
    /// Absent until the verifier has seen that EK and AK live in one TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled: Option<Enrolled>,
}

/// What the verifier said when it took the AK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// The machine's SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// When.
    pub at: Timestamp,
}

/// The credential and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Hash of the EK of the TPM that the key belongs to.
    pub node: NodeId,
    /// The enrolment that it was issued under ([`Enrolled::at`]): to the verifier it is worth nothing after another.
    pub enrolled_at: Timestamp,
    /// The key.
    pub key: SavedKey,
    /// The PCRs that the key is tied to.
    pub policy: CredentialPolicy,
    /// SHA-256 over the values that they had when the key was made: what the key's authPolicy demands.
    pub pcr_digest: Blob<32>,
    /// Leaf, then intermediates, PEM.
    pub certificate_chain: String,
    /// What relying parties trust, PEM.
    pub trust_bundle: String,
    /// From when on the certificate is not valid any more.
    pub not_after: Timestamp,
    /// When to ask for the next.
    pub renew_at: Timestamp,
}

/// How the last attestation went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// When this was written.
    pub at: Timestamp,
    /// What came of the last attempt.
    pub last: Outcome,
    /// The last posture that the verifier stated, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posture: Option<StatedPosture>,
    /// Why the last credential that was asked for was not issued; absent where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_refused: Option<CredentialRefusal>,
}

/// Why a credential was not issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialRefusal {
    /// When it was said last.
    pub at: Timestamp,
    /// The stable code.
    pub code: String,
    /// In words.
    pub detail: String,
}

/// What came of an attempt to attest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", deny_unknown_fields)]
pub enum Outcome {
    /// The evidence was taken.
    Attested,
    /// The TPM did not do its part.
    CannotAttest {
        /// In words.
        reason: String,
    },
    /// The verifier did not answer.
    Unreachable {
        /// In words.
        reason: String,
    },
    /// The verifier said no.
    Refused {
        /// The stable code.
        code: String,
        /// In words.
        detail: String,
    },
    /// Something on this machine failed, the disk for instance.
    Failed {
        /// In words.
        reason: String,
    },
}

/// A posture that the verifier stated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedPosture {
    /// When it reached the attester.
    pub at: Timestamp,
    /// What it said.
    pub report: PostureReport,
}

/// Something that has a file of its own.
trait Kept: Serialize + DeserializeOwned {
    const FILE: &'static str;
    /// Four times what the largest legitimate content takes, or more.
    const LIMIT: u64;
}

impl Kept for Identity {
    const FILE: &'static str = "identity.json";
    const LIMIT: u64 = 16 * 1024;
}

impl Kept for Credential {
    const FILE: &'static str = "credential.json";
    const LIMIT: u64 = 2 * 1024 * 1024;
}

impl Kept for Status {
    const FILE: &'static str = "status.json";
    const LIMIT: u64 = 2 * 1024 * 1024;
}

impl Kept for ControlStatus {
    const FILE: &'static str = "control.json";
    const LIMIT: u64 = 64 * 1024;
}

/// Where it is written down how the verifier is heard.
#[derive(Debug)]
pub struct ControlFile {
    folder: Folder,
}

impl ControlFile {
    /// Writes it down.
    pub fn save(&self, status: &ControlStatus) -> Result<(), KeepError> {
        save(&self.folder, status)
    }
}

/// The envelope of each file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned<T> {
    version: u32,
    content: T,
}

const VERSION: u32 = 1;

/// The state of the running daemon: whoever has this is alone with it.
#[derive(Debug)]
pub struct Keep {
    folder: Folder,
    _lock: FolderLock,
}

impl Keep {
    /// Opens the folder, makes it where there is none, and keeps other attesters out.
    pub fn open(config: &StateConfig) -> Result<Self, KeepError> {
        let folder = Folder::open_or_create(&config.directory)?;
        let lock = folder.lock()?;
        folder.sweep();
        Ok(Self { folder, _lock: lock })
    }

    /// The identity of the machine with this EK. What cannot be read, or belongs to another TPM, is put aside.
    pub fn identity(&self, node: NodeId) -> Result<Option<Identity>, KeepError> {
        self.recall(|identity: &Identity| identity.node == node)
    }

    /// Remembers the identity.
    pub fn save_identity(&self, identity: &Identity) -> Result<(), KeepError> {
        save(&self.folder, identity)
    }

    /// Puts the identity aside, for the reason given: the next one is another.
    pub fn set_identity_aside(&self, reason: &str) -> Result<(), KeepError> {
        self.set_aside::<Identity>(reason)
    }

    /// Puts the credential aside, for the reason given: another has to be asked for.
    pub fn set_credential_aside(&self, reason: &str) -> Result<(), KeepError> {
        self.set_aside::<Credential>(reason)
    }

    /// The credential of the machine with this EK. What cannot be read, or belongs to another TPM, is put aside.
    pub fn credential(&self, node: NodeId) -> Result<Option<Credential>, KeepError> {
        self.recall(|credential: &Credential| credential.node == node)
    }

    /// Remembers the credential.
    pub fn save_credential(&self, credential: &Credential) -> Result<(), KeepError> {
        save(&self.folder, credential)
    }

    /// Remembers how it went.
    pub fn save_status(&self, status: &Status) -> Result<(), KeepError> {
        save(&self.folder, status)
    }

    /// Where to write down how the verifier is heard: nobody else writes that file.
    #[must_use]
    pub fn control_file(&self) -> ControlFile {
        ControlFile { folder: self.folder.clone() }
    }

    /// How it went before this start; what cannot be read is forgotten.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        load(&self.folder).ok().flatten()
    }

    fn recall<T: Kept>(&self, ours: impl FnOnce(&T) -> bool) -> Result<Option<T>, KeepError> {
        match load::<T>(&self.folder) {
            Ok(Some(kept)) if !ours(&kept) => {
                self.set_aside::<T>("it belongs to another TPM")?;
                Ok(None)
            }
            Err(error @ (KeepError::Corrupt { .. } | KeepError::Folder(FolderError::TooLarge { .. }))) => {
                self.set_aside::<T>(&error.to_string())?;
                Ok(None)
            }
            loaded => loaded,
        }
    }

    /// Keeps the file for a person to look at, in place of one that was put aside before.
    fn set_aside<T: Kept>(&self, reason: &str) -> Result<(), KeepError> {
        let bad = format!("{}.bad", T::FILE);
        tracing::warn!(file = T::FILE, kept_as = bad, reason, "a state file is put aside");
        Ok(self.folder.rename(T::FILE, &bad)?)
    }
}

/// The state as someone beside the daemon sees it.
#[derive(Debug)]
pub struct View {
    folder: Folder,
}

impl View {
    /// Looks into the folder; changes nothing.
    pub fn open(directory: &Path) -> Result<Self, KeepError> {
        Ok(Self { folder: Folder::open(directory)? })
    }

    /// The identity, whichever TPM it belongs to.
    pub fn identity(&self) -> Result<Option<Identity>, KeepError> {
        load(&self.folder)
    }

    /// The credential, whichever TPM it belongs to.
    pub fn credential(&self) -> Result<Option<Credential>, KeepError> {
        load(&self.folder)
    }

    /// How the last attestation went.
    pub fn status(&self) -> Result<Option<Status>, KeepError> {
        load(&self.folder)
    }

    /// How the verifier is heard.
    pub fn control(&self) -> Result<Option<ControlStatus>, KeepError> {
        load(&self.folder)
    }
}

fn save<T: Kept>(folder: &Folder, kept: &T) -> Result<(), KeepError> {
    let corrupt = |error: serde_json::Error| KeepError::Corrupt { file: T::FILE, reason: error.to_string() };
    let json = serde_json::to_vec_pretty(&Versioned { version: VERSION, content: kept }).map_err(corrupt)?;
    Ok(folder.replace(T::FILE, &json)?)
}

fn load<T: Kept>(folder: &Folder) -> Result<Option<T>, KeepError> {
    let corrupt = |reason: String| KeepError::Corrupt { file: T::FILE, reason };
    let Some(json) = folder.read(T::FILE, T::LIMIT)? else { return Ok(None) };
    let envelope: Versioned<IgnoredAny> =
        serde_json::from_slice(&json).map_err(|error| corrupt(error.to_string()))?;
    if envelope.version != VERSION {
        return Err(corrupt(format!("version {} of its format, not {VERSION}", envelope.version)));
    }
    let versioned: Versioned<T> =
        serde_json::from_slice(&json).map_err(|error| corrupt(error.to_string()))?;
    Ok(Some(versioned.content))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use rootbound_common::tpm::{HashAlgorithm, PcrIndex};

    use super::*;

    pub(crate) fn keep_in(root: &Path) -> Keep {
        Keep::open(&StateConfig { directory: root.join("state") }).unwrap()
    }

    fn saved_key() -> SavedKey {
        SavedKey { public: Blob::new(vec![1; 100]).unwrap(), private: Blob::new(vec![2; 200]).unwrap() }
    }

    fn identity(node: NodeId) -> Identity {
        Identity { node, attestation_key: saved_key(), enrolled: None }
    }

    fn node(name: &[u8]) -> NodeId {
        NodeId::of_endorsement_key(name)
    }

    #[test]
    fn what_is_saved_is_recalled_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let ours = node(b"ours");
        let identity = Identity {
            enrolled: Some(Enrolled {
                spiffe_id: "spiffe://example.org/node/a".parse().unwrap(),
                at: Timestamp::from_millis(5),
            }),
            ..identity(ours)
        };
        let credential = Credential {
            node: ours,
            enrolled_at: Timestamp::from_millis(5),
            key: saved_key(),
            policy: CredentialPolicy {
                bank: HashAlgorithm::Sha256,
                pcrs: [0, 7].into_iter().filter_map(PcrIndex::new).collect(),
            },
            pcr_digest: Blob::new(vec![3; 32]).unwrap(),
            certificate_chain: "chain".to_owned(),
            trust_bundle: "bundle".to_owned(),
            not_after: Timestamp::from_millis(20),
            renew_at: Timestamp::from_millis(10),
        };
        let status = Status {
            at: Timestamp::from_millis(6),
            last: Outcome::Refused { code: "node_retired".to_owned(), detail: "gone".to_owned() },
            posture: None,
            credential_refused: Some(CredentialRefusal {
                at: Timestamp::from_millis(4),
                code: "posture_contraindicated".to_owned(),
                detail: "PCR 4".to_owned(),
            }),
        };
        let keep = keep_in(root.path());
        keep.save_identity(&identity).unwrap();
        keep.save_credential(&credential).unwrap();
        keep.save_status(&status).unwrap();
        drop(keep);

        let keep = keep_in(root.path());
        assert_eq!(keep.identity(ours).unwrap(), Some(identity.clone()));
        assert_eq!(keep.credential(ours).unwrap(), Some(credential.clone()));
        assert_eq!(keep.status(), Some(status.clone()));
        let view = View::open(&root.path().join("state")).unwrap();
        assert_eq!(view.identity().unwrap(), Some(identity));
        assert_eq!(view.credential().unwrap(), Some(credential));
        assert_eq!(view.status().unwrap(), Some(status));
    }

    #[test]
    fn identity_of_another_tpm_is_put_aside_once() {
        let root = tempfile::tempdir().unwrap();
        let keep = keep_in(root.path());
        keep.save_identity(&identity(node(b"theirs"))).unwrap();
        assert_eq!(keep.identity(node(b"ours")).unwrap(), None);
        assert!(root.path().join("state/identity.json.bad").exists());
        assert!(!root.path().join("state/identity.json").exists());
        assert_eq!(keep.identity(node(b"ours")).unwrap(), None);
    }

    #[test]
    fn files_that_this_version_did_not_write_are_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let keep = keep_in(root.path());
        let ours = node(b"ours");
        keep.save_identity(&identity(ours)).unwrap();
        let file = root.path().join("state/identity.json");
        let good = fs::read_to_string(&file).unwrap();
        for bad in [
            String::new(),
            "{}".to_owned(),
            "null".to_owned(),
            good.replace("\"version\": 1", "\"version\": 2"),
            good.replace("\"version\": 1", "\"version\": 1, \"more\": 1"),
            good[..good.len() / 2].to_owned(),
            format!("{good}x"),
            " ".repeat(20_000),
            "[".repeat(10_000),
        ] {
            fs::write(&file, &bad).unwrap();
            assert_eq!(keep.identity(ours).unwrap(), None, "{bad:.40}");
            assert!(!file.exists(), "{bad:.40}");
            assert_eq!(fs::read_to_string(root.path().join("state/identity.json.bad")).unwrap(), bad);
        }
        fs::write(&file, "{}").unwrap();
        let view = View::open(&root.path().join("state")).unwrap();
        assert!(matches!(view.identity().unwrap_err(), KeepError::Corrupt { .. }));
    }
}
