//! The one place of enrolment that reads files: the folder of trust anchors.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::roots::{EndorsementRoots, RootsError};

/// The largest known collection has about 200 CAs.
const MAX_FILES: usize = 4096;
/// A file may be a bundle of hundreds of CAs (300 KB) or the CRL of a busy CA (some MB).
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Files with other names (a README, an editor's backup) are passed over.
const EXTENSIONS: [&str; 5] = ["pem", "crt", "cer", "der", "crl"];

impl EndorsementRoots {
    /// Reads a folder: `*.pem`, `*.crt`, `*.cer`, `*.der` and `*.crl`, not its subfolders. Any file that cannot be
    /// used is an error that names it: a CA that is silently left out would be missed on the day a machine needs it.
    pub fn load(folder: &Path) -> Result<Self, RootsError> {
        let mut roots = Self::none();
        for path in files(folder)? {
            roots.add_file(&path, &read(&path)?)?;
        }
        if roots.anchor_count() == 0 {
            return Err(RootsError::NoAnchor { path: folder.into() });
        }
        Ok(roots)
    }
}

/// In the order of their names, so that two starts over one folder do the same.
fn files(folder: &Path) -> Result<Vec<PathBuf>, RootsError> {
    let unreadable = |error| RootsError::Unreadable { path: folder.into(), error };
    let mut files = Vec::new();
    for (seen, entry) in fs::read_dir(folder).map_err(unreadable)?.enumerate() {
        if seen == MAX_FILES {
            return Err(RootsError::TooManyFiles { path: folder.into(), limit: MAX_FILES });
        }
        let path = entry.map_err(unreadable)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, RootsError> {
    let unreadable = |error| RootsError::Unreadable { path: path.into(), error };
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content))
        .map_err(unreadable)?;
    if u64::try_from(content.len()).is_ok_and(|length| length <= MAX_BYTES) {
        Ok(content)
    } else {
        Err(RootsError::TooLarge { path: path.into(), limit: MAX_BYTES })
    }
}
