//! Whom the operator trusts to vouch for EKs: trust anchors, intermediates and CRLs.

use std::fmt;
use std::path::{Path, PathBuf};

use rootbound_common::clock::Timestamp;

use super::asn1::MalformedCertificate;
use super::certificate::Certificate;
use super::chain::{self, SignatureFailure, verify_signature};
use super::crl::{CrlError, RevocationList};
use super::error::EndorsementError;
use super::name::Name;
use super::pem::{self, PemBlock, PemError};

/// Trust anchors, intermediates and CRLs, read once at start.
///
/// A certificate that is issued by itself is a trust anchor; any other CA's is an intermediate, which needs a path of
/// its own to an anchor. So a folder may hold whole chains, and nothing in it is trusted for its place alone. The
/// exception is the subfolder `anchors`: what is there is an anchor because the operator says so, for chains whose root
/// is lost or whose upper part is signed with SHA-1.
#[derive(Clone, Default)]
pub struct EndorsementRoots {
    anchors: Vec<Certificate>,
    intermediates: Vec<Certificate>,
    pub(super) crls: Vec<RevocationList>,
}

/// Why a folder of trust anchors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// More files than any collection of vendors' CAs.
    #[error("{} holds more than {limit} files", path.display())]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// The files are too long.
    #[error("with {}, the files have more than {limit} bytes", path.display())]
    TooLarge {
        /// The file that is one too many.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A file is neither DER nor well-formed PEM.
    #[error("{}: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: PemError,
    },
    /// A certificate cannot be read.
    #[error("{}, certificate {position}: {error}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Which in the file, from 1.
        position: usize,
        /// Why.
        #[source]
        error: MalformedCertificate,
    },
    /// A certificate is not that of a CA: an EK certificate has no place among those who vouch.
    #[error("{}, certificate {position}: not the certificate of a CA", path.display())]
    NotAnAuthority {
        /// The file.
        path: PathBuf,
        /// Which in the file, from 1.
        position: usize,
    },
    /// A CRL cannot be used.
    #[error("{}, CRL {position}: {error}", path.display())]
    Crl {
        /// The file.
        path: PathBuf,
        /// Which in the file, from 1.
        position: usize,
        /// Why.
        #[source]
        error: CrlError,
    },
    /// No certificate is a trust anchor, so that no EK could ever be endorsed.
    #[error("{} holds no trust anchor: a self-issued CA certificate, or one in its subfolder `anchors`", path.display())]
    NoAnchor {
        /// The folder.
        path: PathBuf,
    },
}

impl EndorsementRoots {
    /// Nobody is trusted: only EKs that the operator lists are endorsed.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// How many trust anchors there are.
    #[must_use]
    pub fn anchor_count(&self) -> usize {
        self.anchors.len()
    }

    /// How many intermediates there are.
    #[must_use]
    pub fn intermediate_count(&self) -> usize {
        self.intermediates.len()
    }

    /// How many CRLs there are.
    #[must_use]
    pub fn crl_count(&self) -> usize {
        self.crls.len()
    }

    /// The intermediates that vouch for nothing at a time, by their names, and why: no anchor above them, a signature
    /// that does not verify, expired, revoked. An operator wants to hear of them before a machine does.
    #[must_use]
    pub fn dead_ends(&self, now: Timestamp) -> Vec<(String, EndorsementError)> {
        self.intermediates
            .iter()
            .filter_map(|authority| {
                chain::dead_end(authority, self, now).map(|error| (authority.called(), error))
            })
            .collect()
    }

    /// Adds the content of a file: PEM blocks, or one DER certificate or CRL. A repeated certificate counts once.
    pub fn add_file(&mut self, path: &Path, content: &[u8]) -> Result<(), RootsError> {
        self.add(path, content, is_anchor)
    }

    /// Adds the content of a file of which each CA is a trust anchor, whoever issued it.
    pub fn add_anchor_file(&mut self, path: &Path, content: &[u8]) -> Result<(), RootsError> {
        self.add(path, content, |_| true)
    }

    fn add(
        &mut self,
        path: &Path,
        content: &[u8],
        is_anchor: fn(&Certificate) -> bool,
    ) -> Result<(), RootsError> {
        let blocks = pem::read(content).map_err(|error| RootsError::Pem { path: path.into(), error })?;
        for (position, block) in (1..).zip(blocks) {
            match block {
                PemBlock::Certificate(bytes) => {
                    let certificate = Certificate::parse_padded(&bytes)
                        .map_err(|error| RootsError::Certificate { path: path.into(), position, error })?;
                    if !certificate.extensions.authority {
                        return Err(RootsError::NotAnAuthority { path: path.into(), position });
                    }
                    let place =
                        if is_anchor(&certificate) { &mut self.anchors } else { &mut self.intermediates };
                    if !place.contains(&certificate) {
                        place.push(certificate);
                    }
                }
                PemBlock::Crl(bytes) => {
                    let list = RevocationList::parse(&bytes).map_err(|error| RootsError::Crl {
                        path: path.into(),
                        position,
                        error,
                    })?;
                    self.crls.push(list);
                }
            }
        }
        Ok(())
    }

    pub(super) fn anchors_named<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Certificate> {
        self.anchors.iter().filter(move |certificate| certificate.subject == *name)
    }

    pub(super) fn intermediates_named<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Certificate> {
        self.intermediates.iter().filter(move |certificate| certificate.subject == *name)
    }
}

/// Issued by itself: by name, and by key where the algorithm is one that is verified at all. The signature of an anchor
/// carries no trust, the operator does; but a CA's new key certified by its old one has the same name twice too, and is
/// an intermediate.
fn is_anchor(certificate: &Certificate) -> bool {
    certificate.is_self_issued()
        && verify_signature(&certificate.signed, &certificate.key) != Err(SignatureFailure::Invalid)
}

impl fmt::Debug for EndorsementRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndorsementRoots")
            .field("anchors", &self.anchors.len())
            .field("intermediates", &self.intermediates.len())
            .field("crls", &self.crls.len())
            .finish()
    }
}
