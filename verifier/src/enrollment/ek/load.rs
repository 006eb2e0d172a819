//! The one place of enrolment that reads files: the folder of trust anchors.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::roots::{EndorsementRoots, RootsError};

/// The largest known collection of vendors' CAs has 170 certificates.
const MAX_FILES: usize = 2048;
/// All files together. A bundle of all known CAs takes 300 KB, the CRL of a busy CA some MB.
const MAX_BYTES: u64 = 32 * 1024 * 1024;
/// Files with other names (a README, an editor's backup) are passed over.
const EXTENSIONS: [&str; 5] = ["pem", "crt", "cer", "der", "crl"];

impl EndorsementRoots {
    /// Reads a folder: `*.pem`, `*.crt`, `*.cer`, `*.der` and `*.crl` in it and in its subfolder `anchors`. Any file
    /// that cannot be used is an error that names it: a CA that is silently left out would be missed on the day a
    /// machine needs it.
    pub fn load(folder: &Path) -> Result<Self, RootsError> {
        let mut roots = Self::none();
        let mut left = MAX_BYTES;
        for path in files(folder)? {
            roots.add_file(&path, &read(&path, &mut left)?)?;
        }
        let anchors = folder.join("anchors");
        if anchors.is_dir() {
            for path in files(&anchors)? {
                roots.add_anchor_file(&path, &read(&path, &mut left)?)?;
            }
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

/// A file of at most `left` bytes, which become less by as many.
fn read(path: &Path, left: &mut u64) -> Result<Vec<u8>, RootsError> {
    let unreadable = |error| RootsError::Unreadable { path: path.into(), error };
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(left.saturating_add(1)).read_to_end(&mut content))
        .map_err(unreadable)?;
    let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
    *left = left.checked_sub(length).ok_or(RootsError::TooLarge { path: path.into(), limit: MAX_BYTES })?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::testing::pki::{Certificate, Crl, p256_info};

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    fn refusal(files: &[(&str, &[u8])]) -> RootsError {
        EndorsementRoots::load(folder(files).path()).unwrap_err()
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let text = data_encoding::BASE64.encode(der);
        format!("a remark\n-----BEGIN {label}-----\n{text}\n-----END {label}-----\nanother\n")
    }

    fn root() -> Vec<u8> {
        Certificate::root("Root", 1).der()
    }

    #[test]
    fn folder_gives_anchors_intermediates_and_lists_and_repeats_count_once() {
        let issuing = Certificate::authority("Issuing", 2, "Root", 1).der();
        let list = Crl::new("Root", 1, &[]).der();
        let both = pem("CERTIFICATE", &root()) + &pem("CERTIFICATE", &issuing) + &pem("X509 CRL", &list);
        let folder = folder(&[
            ("a.der", &root()),
            ("b.CRT", both.as_bytes()),
            ("c.crl", &list),
            ("README", b"not read"),
            ("d.pem~", b"not read"),
        ]);
        fs::create_dir(folder.path().join("more.pem")).unwrap();
        let roots = EndorsementRoots::load(folder.path()).unwrap();
        assert_eq!((roots.anchor_count(), roots.intermediate_count(), roots.crl_count()), (1, 1, 2));
        let shown = "EndorsementRoots { anchors: 1, intermediates: 1, crls: 2 }";
        assert_eq!(format!("{roots:?}"), shown);
    }

    #[test]
    fn each_file_that_cannot_be_used_is_named() {
        let leaf = Certificate::endorsement(p256_info(3), "Root", 1).der();
        let list = Crl::new("Root", 1, &[]).updates("291201000000Z", None).der();
        let key = pem("PRIVATE KEY", b"no");
        for (name, content, expected) in [
            ("a.pem", &b"nothing here"[..], "holds no certificate and no CRL"),
            ("b.pem", key.as_bytes(), "line 2: neither CERTIFICATE nor X509 CRL"),
            ("c.cer", &root()[..100], "certificate 1: certificate is not DER of its type"),
            ("d.crt", &leaf, "certificate 1: not the certificate of a CA"),
            ("e.crl", &list, "CRL 1: the CRL has no nextUpdate"),
        ] {
            let error = refusal(&[("0.der", &root()), (name, content)]).to_string();
            assert!(error.contains(name) && error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn folder_without_anchor_is_refused() {
        let issuing = Certificate::authority("Issuing", 2, "Root", 1).der();
        assert!(matches!(refusal(&[]), RootsError::NoAnchor { .. }));
        assert!(matches!(refusal(&[("a.der", &issuing)]), RootsError::NoAnchor { .. }));
    }

    #[test]
    fn subfolder_makes_an_anchor_of_any_ca_in_it() {
        let issuing = Certificate::authority("Issuing", 2, "Root", 1).der();
        let folder = folder(&[("a.der", &issuing)]);
        fs::create_dir(folder.path().join("anchors")).unwrap();
        fs::write(folder.path().join("anchors/b.der"), &issuing).unwrap();
        let roots = EndorsementRoots::load(folder.path()).unwrap();
        assert_eq!((roots.anchor_count(), roots.intermediate_count()), (1, 1));
        let leaf = Certificate::endorsement(p256_info(3), "Issuing", 2).der();
        fs::write(folder.path().join("anchors/c.der"), &leaf).unwrap();
        assert!(matches!(
            EndorsementRoots::load(folder.path()),
            Err(RootsError::NotAnAuthority { position: 1, .. })
        ));
    }

    #[test]
    fn folder_that_is_not_there_is_refused() {
        let missing = folder(&[]).path().join("missing");
        assert!(matches!(EndorsementRoots::load(&missing), Err(RootsError::Unreadable { .. })));
    }

    #[test]
    fn too_many_files_are_refused_before_they_are_read() {
        let folder = folder(&[]);
        for number in 0..=MAX_FILES {
            File::create(folder.path().join(format!("{number}.txt"))).unwrap();
        }
        let found = EndorsementRoots::load(folder.path());
        assert!(matches!(found, Err(RootsError::TooManyFiles { limit: MAX_FILES, .. })), "{found:?}");
    }

    #[test]
    fn too_long_files_are_refused() {
        let folder = folder(&[("a.der", &root())]);
        let large = File::create(folder.path().join("b.pem")).unwrap();
        large.set_len(MAX_BYTES).unwrap();
        let found = EndorsementRoots::load(folder.path());
        assert!(matches!(found, Err(RootsError::TooLarge { limit: MAX_BYTES, .. })), "{found:?}");
    }
}
