//! Files that are replaced whole or not at all, in a folder that only its owner may open.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be made.
    #[error("cannot create the folder {}", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be looked at.
    #[error("cannot examine the folder {}", path.display())]
    Examine {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else has its name.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The name.
        path: PathBuf,
    },
    /// Another user could swap what is in it.
    #[error("the folder {} belongs to user {owner}, but this process runs as user {user}", path.display())]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who would use it.
        user: u32,
    },
    /// Another user could read or swap what is in it.
    #[error("the folder {} is open to others (mode {mode:04o}): its mode must be 0700 (chmod 0700 it)", path.display())]
    Mode {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another process holds the lock.
    #[error("the folder {} is in use by another attester", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The lock file cannot be had.
    #[error("cannot lock the folder {}", path.display())]
    Lock {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than anything that is written here.
    #[error("{} is over the limit of {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
}

/// A lock on a folder that is held.
#[derive(Debug)]
pub(super) struct FolderLock(File);

impl Drop for FolderLock {
    /// By closing the file alone it would go on while a child process that was forked just now still has the descriptor.
    fn drop(&mut self) {
        // The file is closed in any case.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Names of files that are being written begin like this; what a killed process left is removed under the lock.
const UNFINISHED: &str = ".unfinished-";

/// A folder that this process owns and nobody else may open.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder with mode 0700 where there is none, and checks that nobody else gets in.
    pub(super) fn open_or_create(path: &Path) -> Result<Self, FolderError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        if let Err(source) = made
            && !path.exists()
        {
            return Err(FolderError::Create { path: path.to_owned(), source });
        }
        Self::open(path)
    }

    /// Checks that nobody else gets into the folder.
    pub(super) fn open(path: &Path) -> Result<Self, FolderError> {
        let path = path.to_owned();
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(source) => return Err(FolderError::Examine { path, source }),
        };
        check(&path, &metadata, rustix::process::geteuid().as_raw())?;
        Ok(Self { path })
    }

    /// Keeps others that ask for it out, until the lock is dropped.
    pub(super) fn lock(&self) -> Result<FolderLock, FolderError> {
        let failed = |source| FolderError::Lock { path: self.path.clone(), source };
        let name = self.path.join("lock");
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(name).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(FolderLock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::Locked { path: self.path.clone() }),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Removes what a killed process left half-written. Only under the lock.
    pub(super) fn sweep(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                // What cannot be removed now is tried again at the next start, and does no harm until then.
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// The content of a file, nothing where there is none.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, FolderError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FolderError::Read { path, source }),
        };
        let mut content = Vec::new();
        match file.take(limit + 1).read_to_end(&mut content) {
            Err(source) => Err(FolderError::Read { path, source }),
            Ok(length) if u64::try_from(length).is_ok_and(|length| length <= limit) => Ok(Some(content)),
            Ok(_) => Err(FolderError::TooLarge { path, limit }),
        }
    }

    /// Replaces a file, mode 0600: after a crash it has the old content or the new, and is on disk when this returns.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let written = || {
            // `tempfile` makes files with mode 0600, and removes them where an error ends this early.
            let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.path)?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            self.sync()
        };
        written().map_err(|source| FolderError::Write { path: path.clone(), source })
    }

    /// Renames a file within the folder, over one that has the name; that there is none is no error.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), FolderError> {
        let path = self.path.join(from);
        match fs::rename(&path, self.path.join(to)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => {
                renamed.and_then(|()| self.sync()).map_err(|source| FolderError::Write { path, source })
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn check(path: &Path, metadata: &Metadata, user: u32) -> Result<(), FolderError> {
    let path = || path.to_owned();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if !metadata.is_dir() {
        return Err(FolderError::NotAFolder { path: path() });
    }
    if owner != user {
        return Err(FolderError::Owner { path: path(), owner, user });
    }
    if mode & 0o077 != 0 {
        return Err(FolderError::Mode { path: path(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn folder_is_made_private_and_files_too() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/state");
        let folder = Folder::open_or_create(&path).unwrap();
        folder.replace("file", b"one").unwrap();
        assert_eq!((mode(&path), mode(&path.join("file"))), (0o700, 0o600));
        folder.replace("file", b"two").unwrap();
        assert_eq!(folder.read("file", 3).unwrap().unwrap(), b"two");
        assert_eq!(folder.read("absent", 3).unwrap(), None);
    }

    #[test]
    fn folder_that_others_may_open_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for open in [0o755, 0o710, 0o701, 0o750, 0o1777] {
            fs::set_permissions(root.path(), fs::Permissions::from_mode(open)).unwrap();
            let refused = Folder::open_or_create(root.path()).unwrap_err();
            assert!(matches!(refused, FolderError::Mode { mode, .. } if mode == open), "{open:o}: {refused}");
        }
    }

    #[test]
    fn folder_of_another_user_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(root.path()).unwrap();
        let refused = check(root.path(), &metadata, metadata.uid() + 1).unwrap_err();
        assert!(matches!(refused, FolderError::Owner { .. }), "{refused}");
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(matches!(Folder::open_or_create(&file).unwrap_err(), FolderError::NotAFolder { .. }));
        let below = Folder::open_or_create(&file.join("below")).unwrap_err();
        assert!(matches!(below, FolderError::Create { .. }), "{below}");
        assert!(matches!(Folder::open(&root.path().join("absent")), Err(FolderError::Examine { .. })));
    }

    #[test]
    fn second_attester_is_kept_out_until_the_first_ends() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open_or_create(&root.path().join("state")).unwrap();
        let first = folder.lock().unwrap();
        assert!(matches!(folder.lock().unwrap_err(), FolderError::Locked { .. }));
        // As a child has it between fork and exec.
        let copy = first.0.try_clone().unwrap();
        drop(first);
        folder.lock().unwrap();
        drop(copy);
        fs::remove_file(folder.path.join("lock")).unwrap();
        fs::create_dir(folder.path.join("lock")).unwrap();
        assert!(matches!(folder.lock().unwrap_err(), FolderError::Lock { .. }));
    }

    #[test]
    fn half_written_files_of_a_killed_process_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open_or_create(&root.path().join("state")).unwrap();
        fs::write(folder.path.join(".unfinished-abc"), b"half").unwrap();
        fs::write(folder.path.join("identity.json"), b"whole").unwrap();
        folder.sweep();
        assert_eq!(fs::read_dir(&folder.path).unwrap().count(), 1);
        assert!(folder.read("identity.json", 10).unwrap().is_some());
    }

    #[test]
    fn oversized_and_unreadable_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open_or_create(&root.path().join("state")).unwrap();
        folder.replace("file", b"1234").unwrap();
        assert!(matches!(folder.read("file", 3).unwrap_err(), FolderError::TooLarge { limit: 3, .. }));
        fs::create_dir(folder.path.join("folder")).unwrap();
        assert!(matches!(folder.read("folder", 3).unwrap_err(), FolderError::Read { .. }));
        assert!(matches!(folder.replace("folder", b"").unwrap_err(), FolderError::Write { .. }));
        assert!(matches!(folder.rename("file", "folder").unwrap_err(), FolderError::Write { .. }));
        folder.rename("absent", "elsewhere").unwrap();
    }
}
