//! The state directory: who may enter it, and what is where in it.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Why a folder cannot be the state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is not there, or cannot be used.
    #[error("state directory {}: {source} (`rootbound-verifier init` makes one)", path.display())]
    Io {
        /// The folder, or a file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a folder.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Others may enter.
    #[error("state directory {} has mode {mode:03o}: only its owner may enter (chmod 700)", path.display())]
    Mode {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is another user's.
    #[error("state directory {} belongs to user {owner}, must belong to the user that runs the verifier", path.display())]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A verifier works in it.
    #[error("a verifier is running on {}: stop it first", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// A folder that only its owner may enter.
#[derive(Debug, Clone)]
pub struct StateDirectory {
    path: PathBuf,
}

/// Held for as long as a process works on a state directory: two would each decide by a memory of their own.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateDirectory {
    /// Opens a folder.
    ///
    /// Established when this returns: it is a folder · it belongs to this user · nobody else may enter.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let metadata = path.metadata().map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        if !metadata.is_dir() {
            return Err(StateError::NotADirectory { path: path.to_owned() });
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(StateError::Owner { path: path.to_owned(), owner: metadata.uid() });
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateError::Mode { path: path.to_owned(), mode });
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Makes the folder, with its parents, unless it is there, and opens it.
    pub fn create(path: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
            Ok(()) | Err(_) => Self::open(path),
        }
    }

    /// Makes this process the only one that works on it, and removes what a killed one left half-written.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.path.join("lock");
        let failed = |source| StateError::Io { path: path.clone(), source };
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.sweep();
                Ok(StateLock { _file: file })
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse { path: self.path.clone() }),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Only under the lock: the file may be one that another process is writing.
    fn sweep(&self) {
        for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                // What cannot be removed now does no harm, and is tried again at the next start.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The CA's certificate and chain.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    /// The CA's private key.
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.path.join("ca.key")
    }

    /// The private key that signs attestation results.
    #[must_use]
    pub fn result_key(&self) -> PathBuf {
        self.path.join("result.key")
    }

    /// The private keys that sign JWT-SVIDs.
    #[must_use]
    pub fn svid_keys(&self) -> PathBuf {
        self.path.join("svid.keys")
    }

    /// The private keys that sign access tokens.
    #[must_use]
    pub fn token_keys(&self) -> PathBuf {
        self.path.join("token.keys")
    }

    /// The private key that signs checkpoints of the audit trail.
    #[must_use]
    pub fn audit_key(&self) -> PathBuf {
        self.path.join("audit.key")
    }

    /// The certificates that relying parties and attesters trust.
    #[must_use]
    pub fn trust_bundle(&self) -> PathBuf {
        self.path.join("bundle.pem")
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join("verifier.db")
    }

    /// The administrative socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        admin_socket(&self.path)
    }

    /// The address that the running verifier listens on, in one line.
    #[must_use]
    pub fn listen_address(&self) -> PathBuf {
        self.path.join("listen.addr")
    }
}

/// The administrative socket in a state directory, for who only speaks to it.
pub(crate) fn admin_socket(directory: &Path) -> PathBuf {
    directory.join("admin.sock")
}

/// Names of files that are being written begin like this: a killed process leaves them behind.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// Writes beside the target, syncs, and renames: a reader sees all or nothing, also after a crash.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(content)?;
    let public = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(public)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/state");
        let state = StateDirectory::create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        assert!(StateDirectory::create(&path).is_ok(), "a second time");
        for mode in [0o750, 0o707, 0o701] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(StateDirectory::open(&path), Err(StateError::Mode { .. })), "{mode:o}");
        }
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(StateDirectory::open(&file), Err(StateError::NotADirectory { .. })));
        assert!(matches!(StateDirectory::open(&folder.path().join("none")), Err(StateError::Io { .. })));
        assert!(state.ca_key().starts_with(&path));
    }

    #[test]
    fn another_users_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        // Root may give a folder away; anyone else finds one that is root's.
        let path = match std::os::unix::fs::chown(folder.path(), Some(12_345), None) {
            Ok(()) => folder.path(),
            Err(_) => Path::new("/"),
        };
        assert!(matches!(StateDirectory::open(path), Err(StateError::Owner { .. })));
    }

    #[test]
    fn one_process_works_on_a_folder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDirectory::create(&folder.path().join("state")).unwrap();
        let unfinished = state.path().join(format!("{UNFINISHED}abc"));
        let lock = state.lock().unwrap();
        std::fs::write(&unfinished, "half").unwrap();
        assert!(matches!(state.lock(), Err(StateError::InUse { .. })));
        assert!(unfinished.exists(), "the other process writes it");
        drop(lock);
        std::fs::write(state.ca_key(), "whole").unwrap();
        assert!(state.lock().is_ok());
        assert!(!unfinished.exists() && state.ca_key().exists(), "nobody writes it any more");
    }
}
