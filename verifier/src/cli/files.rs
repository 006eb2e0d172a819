//! Files that an operator names on the command line.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::appraisal::runtime::DigestSet;
use crate::http::admin::message::DigestFrame;
use crate::reference::corim::Unwritable;

/// Longer than any reference set or profile.
const MAX: u64 = 4 * 1024 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too long.
    #[error("{} is too long", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Options that do not go together, as only the file shows.
    #[error("{0}")]
    Options(&'static str),
    /// It cannot be of the form that is wanted.
    #[error(transparent)]
    Corim(#[from] Unwritable),
    /// It does not say what it should.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
}

/// Reads JSON, or TOML where the text does not begin with a brace; `-` is standard input.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX + 1).read_to_string(&mut text))
    }
    .map_err(unreadable)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX {
        return Err(FileError::TooLong { path: path.to_owned() });
    }
    parse(&text).map_err(|message| FileError::Malformed { path: path.to_owned(), message })
}

/// Reads all of a file that may be a digest set; `-` is standard input.
pub(super) fn read_whole(path: &Path) -> Result<Vec<u8>, FileError> {
    if path != Path::new("-") {
        return read_bytes(path, DigestSet::MAX_BYTES);
    }
    let limit = u64::try_from(DigestSet::MAX_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    let fits = bytes.len() <= DigestSet::MAX_BYTES;
    if fits { Ok(bytes) } else { Err(FileError::TooLong { path: path.to_owned() }) }
}

/// What was read, as [`read`] takes it.
pub(super) fn parse_bytes<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, FileError> {
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX {
        return Err(FileError::TooLong { path: path.to_owned() });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(path, error.to_string()))?;
    parse(text).map_err(|message| malformed(path, message))
}

pub(super) fn malformed(path: &Path, message: String) -> FileError {
    FileError::Malformed { path: path.to_owned(), message }
}

/// The text of a digest set, compressed.
pub(super) fn packed(path: &Path, text: &[u8]) -> Result<DigestFrame, FileError> {
    let frame = zstd::encode_all(text, LEVEL);
    let frame = frame.map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    DigestFrame::new(frame).ok_or_else(|| FileError::TooLong { path: path.to_owned() })
}

/// Reads the bytes of a file of at most so many.
pub(super) fn read_bytes(path: &Path, max: usize) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() > max { Err(FileError::TooLong { path: path.to_owned() }) } else { Ok(bytes) }
}

/// Reads the text of a digest set and compresses it; `-` is standard input. The daemon parses it.
pub(super) fn read_packed(path: &Path) -> Result<DigestFrame, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let frame = if path == Path::new("-") {
        zstd::encode_all(std::io::stdin().lock(), LEVEL)
    } else {
        std::fs::File::open(path).and_then(|file| zstd::encode_all(file, LEVEL))
    };
    DigestFrame::new(frame.map_err(unreadable)?).ok_or_else(|| FileError::TooLong { path: path.to_owned() })
}

/// Digests do not compress, paths do so at any level.
const LEVEL: i32 = 3;

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // Such as `show` prints: who made it, then JSON.
    let mut rest = text.trim_start();
    while let Some((_, after)) = rest.strip_prefix('#').and_then(|rest| rest.split_once('\n')) {
        rest = after.trim_start();
    }
    if rest.starts_with('{') {
        serde_json::from_str(rest).map_err(|error| error.to_string())
    } else {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Name;
    use crate::reference::{AcceptedPcrs, ProfileBody};

    #[test]
    fn profiles_are_read_as_toml_and_as_json() {
        let profile = ProfileBody::initial(Name::default_set());
        let toml = toml::to_string(&profile).unwrap();
        assert_eq!(parse::<ProfileBody>(&toml), Ok(profile.clone()), "{toml}");
        let json = serde_json::to_string_pretty(&profile).unwrap();
        assert_eq!(parse::<ProfileBody>(&json), Ok(profile));
    }

    #[test]
    fn reference_values_are_read_as_toml_and_as_json() {
        let value = "ab".repeat(32);
        let json = parse::<AcceptedPcrs>(&format!(r#"{{"sha256": {{"7": ["{value}"]}}}}"#)).unwrap();
        assert_eq!(parse::<AcceptedPcrs>(&format!("[sha256]\n7 = [\"{value}\"]\n")), Ok(json));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.toml");
        assert!(matches!(read::<ProfileBody>(&path), Err(FileError::Unreadable { .. })));
        std::fs::write(&path, "interval = 1").unwrap();
        let error = read::<ProfileBody>(&path).unwrap_err();
        assert!(matches!(error, FileError::Malformed { .. }) && error.to_string().contains("profile.toml"));
        std::fs::write(&path, vec![b' '; usize::try_from(MAX).unwrap() + 1]).unwrap();
        assert!(matches!(read::<ProfileBody>(&path), Err(FileError::TooLong { .. })));
    }
}
