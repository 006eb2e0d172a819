//! What workloads read: the certificate chain, the trust bundle and the TPM key, in a folder.
//!
//! ```text
//! <directory>/current -> .generation-<random>      the one link that is ever replaced
//! <directory>/current/svid.pem                     leaf, then intermediates      0644
//! <directory>/current/svid.key                     TSS2 PRIVATE KEY              0640
//! <directory>/current/bundle.pem                   what relying parties trust    0644
//! <directory>/svid.pem -> current/svid.pem         and so on, for configurations that name a file each
//! ```
//!
//! A generation is complete before `current` points to it, and is never changed after that. Whoever opens `current`
//! once (or resolves it) and reads all three files from there gets a certificate and the key that belongs to it, never
//! a new one with an old one. The generation before is kept for those who resolved the link just now.
//!
//! What is delivered is not taken back when the posture changes: the verifier refuses the certificate at once, the TPM
//! refuses to sign once a PCR of the key's policy has changed, and the certificate is good for minutes only.

mod tss2_key;

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::keep::Credential;

pub use tss2_key::encode as encode_tss2_key;

/// Section `[deliver]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverConfig {
    /// The folder; made with mode 0755 where there is none.
    pub directory: PathBuf,
}

/// Why a credential is not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The folder cannot be made or looked at.
    #[error("cannot use the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else has the name of the folder.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The name.
        path: PathBuf,
    },
    /// Another user could swap what is delivered.
    #[error("the folder {} belongs to user {owner}, but must belong to root or to user {user}, who runs the attester", path.display())]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who would write to it.
        user: u32,
    },
    /// Other users could swap what is delivered.
    #[error("the folder {} may be written to by others (mode {mode:04o}), so that workloads could be given another key: chmod g-w,o-w it", path.display())]
    Mode {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Something that is no link has the name of one.
    #[error("{} is in the way: it is not a link that the attester made", path.display())]
    InTheWay {
        /// The name.
        path: PathBuf,
    },
    /// A generation cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or link.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key cannot be put into a file.
    #[error("cannot encode the key")]
    Key(#[source] der::Error),
}

/// A file of a generation.
struct Delivered<'a> {
    name: &'static str,
    mode: u32,
    content: &'a str,
}

/// The link to the newest generation.
const CURRENT: &str = "current";
/// Generations are called so, and something random.
const GENERATION: &str = ".generation-";
/// A link that is being replaced.
const NEXT_LINK: &str = ".next-link";

/// The folder that workloads read from.
#[derive(Debug, Clone)]
pub struct Delivery {
    directory: PathBuf,
}

impl Delivery {
    /// Makes the folder where there is none, and checks that nobody else may write to it: who may could give workloads
    /// a trust bundle and a key of their own.
    pub fn open(config: &DeliverConfig) -> Result<Self, DeliverError> {
        let directory = config.directory.clone();
        let failed = |source| DeliverError::Folder { path: config.directory.clone(), source };
        if !directory.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory).map_err(failed)?;
            // The umask took from the mode, perhaps; workloads of other users are to read here.
            fs::set_permissions(&directory, Permissions::from_mode(0o755)).map_err(failed)?;
        }
        let metadata = fs::metadata(&directory).map_err(failed)?;
        check(&directory, &metadata, rustix::process::geteuid().as_raw())?;
        Ok(Self { directory })
    }

    /// The folder.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Delivers the credential. When this returns all of it is on disk and in use.
    pub fn deliver(&self, credential: &Credential) -> Result<(), DeliverError> {
        let (selection, digest) = (credential.policy.selection(), credential.pcr_digest.as_bytes());
        let key = tss2_key::encode(&credential.key, &selection, digest).map_err(DeliverError::Key)?;
        let files = [
            Delivered { name: "svid.pem", mode: 0o644, content: &credential.certificate_chain },
            Delivered { name: "svid.key", mode: 0o640, content: &key },
            Delivered { name: "bundle.pem", mode: 0o644, content: &credential.trust_bundle },
        ];
        let before = fs::read_link(self.directory.join(CURRENT)).ok();
        let generation = self.write_generation(&files)?;
        self.link(CURRENT, &generation)?;
        for file in &files {
            self.link(file.name, &Path::new(CURRENT).join(file.name))?;
        }
        self.sync(&self.directory)?;
        self.remove_generations_except(&[Some(generation), before]);
        Ok(())
    }

    fn write_generation(&self, files: &[Delivered<'_>]) -> Result<PathBuf, DeliverError> {
        let folder = tempfile::Builder::new()
            .prefix(GENERATION)
            .tempdir_in(&self.directory)
            .map_err(|source| DeliverError::Write { path: self.directory.clone(), source })?;
        for file in files {
            let path = folder.path().join(file.name);
            write(&path, file).map_err(|source| DeliverError::Write { path, source })?;
        }
        let opened = fs::set_permissions(folder.path(), Permissions::from_mode(0o755));
        opened.map_err(|source| DeliverError::Write { path: folder.path().to_owned(), source })?;
        self.sync(folder.path())?;
        // From here on it is not removed on an error path any more, but by a later delivery.
        let path = folder.keep();
        Ok(path.file_name().map(PathBuf::from).unwrap_or(path))
    }

    /// Points a link elsewhere: readers see the old target or the new.
    fn link(&self, name: &str, target: &Path) -> Result<(), DeliverError> {
        let path = self.directory.join(name);
        if fs::read_link(&path).is_ok_and(|current| current == target) {
            return Ok(());
        }
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_symlink()) {
            return Err(DeliverError::InTheWay { path });
        }
        let next = self.directory.join(NEXT_LINK);
        let linked = match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => symlink(target, &next).and_then(|()| fs::rename(&next, &path)),
        };
        linked.map_err(|source| DeliverError::Write { path, source })
    }

    /// Removes what earlier deliveries left, those included that did not come to an end.
    fn remove_generations_except(&self, kept: &[Option<PathBuf>]) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = PathBuf::from(entry.file_name());
            let ours = entry.file_name().to_string_lossy().starts_with(GENERATION);
            if ours && !kept.contains(&Some(name)) {
                // What cannot be removed now is tried again at the next delivery.
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }

    fn sync(&self, folder: &Path) -> Result<(), DeliverError> {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| DeliverError::Write { path: self.directory.clone(), source })
    }
}

fn check(path: &Path, metadata: &Metadata, user: u32) -> Result<(), DeliverError> {
    let path = || path.to_owned();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if !metadata.is_dir() {
        return Err(DeliverError::NotAFolder { path: path() });
    }
    if owner != user && owner != 0 {
        return Err(DeliverError::Owner { path: path(), owner, user });
    }
    // An access control list that lets another user write shows in the bits of the group, too.
    if mode & 0o022 != 0 {
        return Err(DeliverError::Mode { path: path(), mode });
    }
    Ok(())
}

fn write(path: &Path, file: &Delivered<'_>) -> io::Result<()> {
    // Private until it is whole.
    let mut opened = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    opened.write_all(file.content.as_bytes())?;
    opened.set_permissions(Permissions::from_mode(file.mode))?;
    opened.sync_all()
}

#[cfg(test)]
mod tests {
    use rootbound_common::blob::Blob;
    use rootbound_common::clock::Timestamp;
    use rootbound_common::id::NodeId;
    use rootbound_common::tpm::{HashAlgorithm, PcrSet};
    use rootbound_common::wire::v1::CredentialPolicy;

    use super::*;
    use crate::keep::SavedKey;

    fn credential(number: u8) -> Credential {
        Credential {
            node: NodeId::from_bytes([0; 32]),
            enrolled_at: Timestamp::from_millis(0),
            key: SavedKey {
                public: Blob::new(vec![number; 90]).unwrap(),
                private: Blob::new(vec![2; 120]).unwrap(),
            },
            policy: CredentialPolicy { bank: HashAlgorithm::Sha256, pcrs: PcrSet::EMPTY },
            pcr_digest: Blob::new(vec![3; 32]).unwrap(),
            certificate_chain: format!("chain {number}"),
            trust_bundle: format!("bundle {number}"),
            not_after: Timestamp::from_millis(0),
            renew_at: Timestamp::from_millis(0),
        }
    }

    fn key_file(number: u8) -> String {
        let credential = credential(number);
        tss2_key::encode(&credential.key, &credential.policy.selection(), &[3; 32]).unwrap()
    }

    fn delivery_in(root: &Path) -> Delivery {
        Delivery::open(&DeliverConfig { directory: root.join("svid") }).unwrap()
    }

    fn read(path: PathBuf) -> (String, u32) {
        (fs::read_to_string(&path).unwrap(), fs::metadata(&path).unwrap().mode() & 0o7777)
    }

    fn generations(root: &Path) -> usize {
        let entries = fs::read_dir(root.join("svid")).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(GENERATION)).count()
    }

    #[test]
    fn files_are_delivered_with_fitting_modes() {
        let root = tempfile::tempdir().unwrap();
        delivery_in(root.path()).deliver(&credential(1)).unwrap();
        for folder in ["svid", "svid/current"] {
            let file = |name| read(root.path().join(folder).join(name));
            assert_eq!(file("svid.pem"), ("chain 1".to_owned(), 0o644));
            assert_eq!(file("svid.key"), (key_file(1), 0o640));
            assert_eq!(file("bundle.pem"), ("bundle 1".to_owned(), 0o644));
        }
    }

    #[test]
    fn reader_that_resolved_the_link_gets_a_consistent_set_while_the_next_is_delivered() {
        let root = tempfile::tempdir().unwrap();
        let delivery = delivery_in(root.path());
        for number in 1..10 {
            delivery.deliver(&credential(number)).unwrap();
            let resolved = fs::canonicalize(root.path().join("svid/current")).unwrap();
            let chain = read(resolved.join("svid.pem")).0;
            delivery.deliver(&credential(number + 100)).unwrap();
            assert_eq!(chain, format!("chain {number}"));
            assert_eq!(read(resolved.join("svid.key")).0, key_file(number));
        }
        assert_eq!(generations(root.path()), 2);
    }

    #[test]
    fn what_a_killed_attester_left_does_not_hinder_the_next() {
        let root = tempfile::tempdir().unwrap();
        let delivery = delivery_in(root.path());
        fs::create_dir(root.path().join("svid/.generation-half")).unwrap();
        fs::write(root.path().join("svid/.generation-half/svid.pem"), "half").unwrap();
        symlink("nowhere", root.path().join("svid").join(NEXT_LINK)).unwrap();
        symlink(".generation-gone", root.path().join("svid").join(CURRENT)).unwrap();
        delivery.deliver(&credential(1)).unwrap();
        assert_eq!(generations(root.path()), 1);
        assert_eq!(read(root.path().join("svid/svid.pem")).0, "chain 1");
    }

    #[test]
    fn folder_that_others_may_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let config = DeliverConfig { directory: root.path().to_owned() };
        for open in [0o777, 0o1777, 0o702, 0o770, 0o775, 0o2775, 0o720] {
            fs::set_permissions(root.path(), Permissions::from_mode(open)).unwrap();
            let refused = Delivery::open(&config).unwrap_err();
            assert!(
                matches!(refused, DeliverError::Mode { mode, .. } if mode == open),
                "{open:o}: {refused}"
            );
        }
        for good in [0o700, 0o755, 0o2750, 0o2755] {
            fs::set_permissions(root.path(), Permissions::from_mode(good)).unwrap();
            Delivery::open(&config).unwrap();
        }
    }

    #[test]
    fn folder_of_another_user_than_root_is_refused() {
        let root = tempfile::tempdir().unwrap();
        // Tests that run as root may give the folder away; others have one that is not root's.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(root.path(), Some(1234), None).unwrap();
        }
        let metadata = fs::metadata(root.path()).unwrap();
        check(root.path(), &metadata, metadata.uid()).unwrap();
        let refused = check(root.path(), &metadata, metadata.uid() + 1).unwrap_err();
        assert!(matches!(refused, DeliverError::Owner { .. }), "{refused}");
        let of_root = fs::metadata("/").unwrap();
        if of_root.uid() == 0 && of_root.mode() & 0o022 == 0 {
            check(Path::new("/"), &of_root, 1234).unwrap();
        }
    }

    #[test]
    fn what_the_attester_did_not_make_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let delivery = delivery_in(root.path());
        fs::write(root.path().join("svid/svid.key"), "somebody's").unwrap();
        let refused = delivery.deliver(&credential(1)).unwrap_err();
        assert!(matches!(refused, DeliverError::InTheWay { .. }));
        assert_eq!(read(root.path().join("svid/svid.key")).0, "somebody's");
    }

    #[test]
    fn folder_that_is_none_or_vanishes_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let config = DeliverConfig { directory: root.path().join("file") };
        assert!(matches!(Delivery::open(&config).unwrap_err(), DeliverError::NotAFolder { .. }));
        let below = DeliverConfig { directory: root.path().join("file/below") };
        assert!(matches!(Delivery::open(&below).unwrap_err(), DeliverError::Folder { .. }));
        let delivery = delivery_in(root.path());
        fs::remove_dir(root.path().join("svid")).unwrap();
        let failed = delivery.deliver(&credential(1)).unwrap_err();
        assert!(matches!(failed, DeliverError::Write { .. }), "{failed}");
    }
}
