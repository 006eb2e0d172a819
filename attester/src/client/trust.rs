//! Whom the attester takes for the verifier: the certificates of one file, and nobody else.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Why a file does not say whom to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than a trust bundle gets.
    #[error("{} is over the limit of {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// It is not PEM.
    #[error("{} is not PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in it cannot be a trust anchor.
    #[error("certificate {position} of {} cannot be a trust anchor", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        position: usize,
        /// Why.
        source: rustls::Error,
    },
    /// There is no certificate in it.
    #[error("{} holds no certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the trust anchors of a PEM file. All of it must be good: a certificate that is left out silently would be
/// missed on the day that the others expire.
pub fn read_trust_anchors(path: &Path) -> Result<Arc<RootCertStore>, TrustError> {
    // Some hundred certificates.
    const LIMIT: u64 = 1024 * 1024;
    let failed = |source| TrustError::Read { path: path.to_owned(), source };
    let mut pem = Vec::new();
    let length =
        File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut pem)).map_err(failed)?;
    if u64::try_from(length).is_ok_and(|length| length > LIMIT) {
        return Err(TrustError::TooLarge { path: path.to_owned(), limit: LIMIT });
    }
    let mut anchors = RootCertStore::empty();
    for (position, certificate) in (1..).zip(CertificateDer::pem_slice_iter(&pem)) {
        let certificate = certificate.map_err(|_| TrustError::Pem { path: path.to_owned() })?;
        anchors.add(certificate).map_err(|source| TrustError::Certificate {
            path: path.to_owned(),
            position,
            source,
        })?;
    }
    if anchors.is_empty() {
        return Err(TrustError::Empty { path: path.to_owned() });
    }
    Ok(Arc::new(anchors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_trust_anchors_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let read = |content: &str| {
            std::fs::write(&path, content).unwrap();
            read_trust_anchors(&path).unwrap_err()
        };
        assert!(matches!(read(""), TrustError::Empty { .. }));
        assert!(matches!(read("no PEM at all\n"), TrustError::Empty { .. }));
        let open = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(matches!(read(open), TrustError::Pem { .. }));
        let rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(read(rubbish), TrustError::Certificate { position: 1, .. }));
        assert!(matches!(read(&"#".repeat(2_000_000)), TrustError::TooLarge { .. }));
        assert!(matches!(read_trust_anchors(&folder.path().join("none")), Err(TrustError::Read { .. })));
    }
}
