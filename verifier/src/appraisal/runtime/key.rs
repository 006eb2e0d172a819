//! Keys that sign files.

use aws_lc_rs::digest::{self, Algorithm, SHA256, SHA384, SHA512};
use aws_lc_rs::signature::{self as aws, ParsedPublicKey, VerificationAlgorithm};
use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1};
use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use rootbound_common::crypto::{Digest, hash, sha256};
use rootbound_common::tpm::HashAlgorithm;
use spki::SubjectPublicKeyInfoRef;
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectKeyIdentifier;

/// Why a text is no key that may sign files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PEM.
    #[error("is neither a CERTIFICATE nor a PUBLIC KEY in PEM, one in each text")]
    NotPem,
    /// Not what the label says.
    #[error("is no certificate and no key: its DER is malformed")]
    NotAKey,
    /// A key of another kind.
    #[error("is neither RSA of 2048 to 8192 bits nor ECDSA on P-256 or P-384")]
    Unsupported,
}

/// A key that the operator trusts to sign files.
#[derive(Debug)]
pub(super) struct FileKey {
    /// What signatures may call it: the last bytes of the certificate's subject key identifier, and of the SHA-1 of the key.
    ids: [[u8; 4]; 2],
    /// SHA-256 of the SubjectPublicKeyInfo.
    fingerprint: [u8; 32],
    sha256: ParsedPublicKey,
    sha384: ParsedPublicKey,
    sha512: ParsedPublicKey,
}

impl FileKey {
    /// The key of a certificate or of a SubjectPublicKeyInfo, in PEM.
    ///
    /// Dates, usages and issuer of a certificate are not looked at: the operator vouches for the key, as whoever loads it
    /// into the kernel's keyring does.
    pub(super) fn of_pem(pem: &str) -> Result<Self, KeyError> {
        let (label, der) = der::pem::decode_vec(pem.trim().as_bytes()).map_err(|_| KeyError::NotPem)?;
        match label {
            "CERTIFICATE" => {
                let certificate = Certificate::from_der(&der).map_err(|_| KeyError::NotAKey)?;
                let certificate = certificate.tbs_certificate();
                let info = certificate.subject_public_key_info().to_der().map_err(|_| KeyError::NotAKey)?;
                let id =
                    certificate.get_extension::<SubjectKeyIdentifier>().map_err(|_| KeyError::NotAKey)?;
                Self::of_info(&info, id.as_ref().and_then(|(_, id)| last_four(id.0.as_bytes())))
            }
            "PUBLIC KEY" => Self::of_info(&der, None),
            _ => Err(KeyError::NotPem),
        }
    }

    fn of_info(der: &[u8], id: Option<[u8; 4]>) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::NotAKey)?;
        let curve: Option<ObjectIdentifier> =
            info.algorithm.parameters.and_then(|parameters| parameters.decode_as().ok());
        let algorithms: [&'static dyn VerificationAlgorithm; 3] = match (info.algorithm.oid, curve) {
            (RSA_ENCRYPTION, None) => [
                &aws::RSA_PKCS1_2048_8192_SHA256,
                &aws::RSA_PKCS1_2048_8192_SHA384,
                &aws::RSA_PKCS1_2048_8192_SHA512,
            ],
            (ID_EC_PUBLIC_KEY, Some(SECP_256_R_1)) => {
                [&aws::ECDSA_P256_SHA256_ASN1, &aws::ECDSA_P256_SHA384_ASN1, &aws::ECDSA_P256_SHA512_ASN1]
            }
            (ID_EC_PUBLIC_KEY, Some(SECP_384_R_1)) => {
                [&aws::ECDSA_P384_SHA256_ASN1, &aws::ECDSA_P384_SHA384_ASN1, &aws::ECDSA_P384_SHA512_ASN1]
            }
            _ => return Err(KeyError::Unsupported),
        };
        let [sha256_key, sha384, sha512] = algorithms
            .map(|algorithm| ParsedPublicKey::new(algorithm, der).map_err(|_| KeyError::Unsupported));
        let key = info.subject_public_key.as_bytes().ok_or(KeyError::NotAKey)?;
        let own = last_four(hash(HashAlgorithm::Sha1, &[key]).as_bytes()).ok_or(KeyError::NotAKey)?;
        Ok(Self {
            ids: [id.unwrap_or(own), own],
            fingerprint: sha256(&[der]),
            sha256: sha256_key?,
            sha384: sha384?,
            sha512: sha512?,
        })
    }

    /// Whether a signature with this key id may be of this key. 32 bits name no key: several may have one id.
    pub(super) fn may_be(&self, id: [u8; 4]) -> bool {
        self.ids.contains(&id)
    }

    /// Names the key.
    pub(super) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whether the key made this signature (PKCS#1 v1.5, or ECDSA in DER) over a message with this digest.
    pub(super) fn verifies(&self, digest: &Digest, signature: &[u8]) -> bool {
        let (key, algorithm): (_, &'static Algorithm) = match digest.algorithm() {
            // Collisions can be made.
            HashAlgorithm::Sha1 => return false,
            HashAlgorithm::Sha256 => (&self.sha256, &SHA256),
            HashAlgorithm::Sha384 => (&self.sha384, &SHA384),
            HashAlgorithm::Sha512 => (&self.sha512, &SHA512),
        };
        digest::Digest::import_less_safe(digest.as_bytes(), algorithm)
            .is_ok_and(|digest| key.verify_digest_sig(&digest, signature).is_ok())
    }
}

fn last_four(bytes: &[u8]) -> Option<[u8; 4]> {
    bytes.last_chunk().copied()
}
