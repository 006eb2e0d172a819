//! The CA's files: a certificate chain that anyone may read, and a key that only its owner may. And the file of the key
//! that signs attestation results, and of that which signs the audit trail, likewise.
//!
//! The key file is the commit point of [`store`]: it is written last, atomically, and never over another. A certificate
//! without a key beside it never signed anything, and may be replaced.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand_core::CryptoRng;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::TrustDomain;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::authority::{Authority, AuthorityError};
use super::result_key::{ResultKey, ResultKeyError};
use super::token_keys::{TokenKeyError, TokenKeys};
use crate::audit::AuditKey;
use crate::audit::checkpoint::AuditKeyError;
use crate::config::UNFINISHED;

/// Five RSA-4096 certificates with the text that `openssl x509 -text` puts before them stay below.
const MAX_FILE: u64 = 64 * 1024;

/// Why a key's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is a key already.
    #[error("{path} exists: a private key is never overwritten")]
    KeyExists {
        /// The key file.
        path: PathBuf,
    },
    /// Not a regular file.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Someone else could read or write the key.
    #[error("{path} has mode {mode:03o}: only its owner may have access to a private key (chmod 600)")]
    KeyMode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key is another user's.
    #[error("{path} belongs to user {owner}, must belong to root or to the user that runs the verifier")]
    KeyOwner {
        /// The key file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Larger than any honest one.
    #[error("{path} is larger than {MAX_FILE} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The files hold no usable CA.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The file holds no usable key for attestation results.
    #[error("{path}: {error}")]
    ResultKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: ResultKeyError,
    },
    /// The file holds no usable keys for tokens.
    #[error("{path}: {error}")]
    TokenKeys {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: TokenKeyError,
    },
    /// The file holds no usable key for checkpoints of the audit trail.
    #[error("{path}: {error}")]
    AuditKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: AuditKeyError,
    },
}

/// Writes an authority to two new files: the chain with mode 0644, the key with mode 0600.
pub fn store(authority: &Authority, certificate: &Path, key: &Path) -> Result<(), FileError> {
    if key.symlink_metadata().is_ok() {
        return Err(FileError::KeyExists { path: key.to_owned() });
    }
    write(certificate, authority.chain_pem().as_bytes(), 0o644, Existing::Replace)?;
    write(key, authority.private_key_pem()?.as_bytes(), 0o600, Existing::Refuse)
}

/// Loads an authority from two files.
pub fn load(
    certificate: &Path,
    key: &Path,
    trust_domain: TrustDomain,
    now: Timestamp,
) -> Result<Authority, FileError> {
    let chain = read(certificate, |_| Ok(()))?;
    let key = read(key, only_its_owner(key))?;
    Ok(Authority::load(&chain, &key, trust_domain, now)?)
}

/// Loads the key that signs attestation results; makes it, with mode 0600, where there is none yet: in a new state
/// directory, in one of an earlier version, and where an operator took it away.
pub fn result_key(path: &Path, rng: &mut impl CryptoRng) -> Result<ResultKey, FileError> {
    let unusable = |error| FileError::ResultKey { path: path.to_owned(), error };
    if path.symlink_metadata().is_err() {
        let key = ResultKey::generate(rng).to_pem().map_err(unusable)?;
        write(path, key.as_bytes(), 0o600, Existing::Refuse)?;
    }
    ResultKey::from_pem(&read(path, only_its_owner(path))?).map_err(unusable)
}

/// Loads the key that signs checkpoints of the audit trail; makes it where there is none yet, as [`result_key`].
pub fn audit_key(path: &Path, rng: &mut impl CryptoRng) -> Result<AuditKey, FileError> {
    let unusable = |error| FileError::AuditKey { path: path.to_owned(), error };
    if path.symlink_metadata().is_err() {
        let key = AuditKey::generate(rng).to_pem().map_err(unusable)?;
        write(path, key.as_bytes(), 0o600, Existing::Refuse)?;
    }
    AuditKey::from_pem(&read(path, only_its_owner(path))?).map_err(unusable)
}

/// The file of the keys that sign tokens. It is replaced atomically at each rotation.
#[derive(Debug)]
pub struct TokenKeyFile(PathBuf);

impl TokenKeyFile {
    /// Loads the keys; makes them, with mode 0600, where there is no file yet.
    pub fn open(
        path: &Path,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, TokenKeys), FileError> {
        let unusable = |error| FileError::TokenKeys { path: path.to_owned(), error };
        let file = Self(path.to_owned());
        if path.symlink_metadata().is_err() {
            let keys = TokenKeys::generate(now, rng).map_err(unusable)?;
            write(path, keys.to_file().map_err(unusable)?.as_bytes(), 0o600, Existing::Refuse)?;
        }
        let keys = TokenKeys::from_file(&read(path, only_its_owner(path))?).map_err(unusable)?;
        Ok((file, keys))
    }

    /// Replaces what is in it.
    pub fn keep(&self, keys: &TokenKeys) -> Result<(), FileError> {
        let Self(path) = self;
        let text = keys.to_file().map_err(|error| FileError::TokenKeys { path: path.clone(), error })?;
        write(path, text.as_bytes(), 0o600, Existing::Replace)
    }
}

/// Checks the opened file, not the path, which could change in between.
fn only_its_owner(path: &Path) -> impl Fn(&std::fs::Metadata) -> Result<(), FileError> {
    move |file| {
        let mode = file.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(FileError::KeyMode { path: path.to_owned(), mode });
        }
        if file.uid() != 0 && file.uid() != rustix::process::geteuid().as_raw() {
            return Err(FileError::KeyOwner { path: path.to_owned(), owner: file.uid() });
        }
        Ok(())
    }
}

fn read(
    path: &Path,
    check: impl Fn(&std::fs::Metadata) -> Result<(), FileError>,
) -> Result<Zeroizing<String>, FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), source };
    // Without O_NONBLOCK a FIFO in the file's place would stop the start-up.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    check(&metadata)?;
    // Room for everything at once: a String that grows leaves copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_FILE).unwrap_or(0) + 1));
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(read).is_ok_and(|read| read <= MAX_FILE) {
        Ok(text)
    } else {
        Err(FileError::TooLarge { path: path.to_owned() })
    }
}

#[derive(Clone, Copy)]
enum Existing {
    Replace,
    Refuse,
}

/// Writes beside the target, syncs, and renames: a reader sees all or nothing, also after a crash.
fn write(path: &Path, content: &[u8], mode: u32, existing: Existing) -> Result<(), FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Created with mode 0600.
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match existing {
        Existing::Replace => file.persist(path).map_err(|error| failed(error.error))?,
        Existing::Refuse => file.persist_noclobber(path).map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => FileError::KeyExists { path: path.to_owned() },
            _ => failed(error.error),
        })?,
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::random;

    #[test]
    fn key_of_results_is_made_where_there_is_none_and_then_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.key");
        let made = result_key(&path, &mut random::system()).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        let again = result_key(&path, &mut random::system()).unwrap();
        assert_eq!(again.id(), made.id());
        std::fs::remove_file(&path).unwrap();
        assert_ne!(result_key(&path, &mut random::system()).unwrap().id(), made.id());
    }

    #[test]
    fn keys_of_tokens_are_made_where_there_are_none_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.keys");
        let now = Timestamp::from_millis(0);
        let (file, made) = TokenKeyFile::open(&path, now, &mut random::system()).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        let rotated = made.rotated(true, std::time::Duration::ZERO, now, &mut random::system()).unwrap();
        file.keep(&rotated).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        let (_, again) = TokenKeyFile::open(&path, now, &mut random::system()).unwrap();
        assert_eq!(again.list(), rotated.list());
        std::fs::write(&path, "{}").unwrap();
        let refused = TokenKeyFile::open(&path, now, &mut random::system()).unwrap_err();
        assert!(matches!(refused, FileError::TokenKeys { error: TokenKeyError::File(_), .. }));
        assert_eq!(std::fs::read(&path).unwrap(), b"{}");
    }

    #[test]
    fn key_of_the_trail_is_made_where_there_is_none_and_is_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        let made = audit_key(&path, &mut random::system()).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(audit_key(&path, &mut random::system()).unwrap().public(), made.public());
        std::fs::write(&path, "no key").unwrap();
        let refused = audit_key(&path, &mut random::system()).unwrap_err();
        assert!(matches!(refused, FileError::AuditKey { error: AuditKeyError::Key, .. }));
    }

    #[test]
    fn what_is_no_key_of_ours_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.key");
        let refused = |path: &Path| result_key(path, &mut random::system()).unwrap_err();
        result_key(&path, &mut random::system()).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(refused(&path), FileError::KeyMode { mode: 0o640, .. }));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "no key").unwrap();
        assert!(matches!(refused(&path), FileError::ResultKey { error: ResultKeyError::Key, .. }));
        assert_eq!(std::fs::read(&path).unwrap(), b"no key");
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &dangling).unwrap();
        assert!(matches!(refused(&dangling), FileError::Io { .. }), "nothing is made behind a link");
    }
}
