//! A PKCS#10 request for a key that lives in the TPM, with the TPM's own statement about the key in it.
//!
//! The request claims no identity: its subject is empty and it asks for no extension, because the verifier decides who
//! the machine is. No TPM is needed here: [`UnsignedRequest::digest`] says what to sign, and
//! [`UnsignedRequest::assemble`] takes the numbers that the TPM gave.

use der::asn1::{Any, BitString, ObjectIdentifier, SetOfVec};
use der::{Decode, Encode};
use p256::ecdsa::Signature;
use rootbound_common::attestation_attribute::{CertifyStatement, ID_AA_ATTESTATION};
use rootbound_common::crypto::{sha256, subject_public_key_info};
use rootbound_common::tpm::{Curve, KeyParameters, Public};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::attr::Attribute;
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, Version};

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// Why there is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRequestError {
    /// The key is not an ECC key on P-256.
    #[error("the key is not an ECC key on P-256")]
    KeyType,
    /// What the TPM gave as a signature is none: r or s is zero, too long, or not below the order of the curve.
    #[error("the TPM's signature is not an ECDSA signature on P-256")]
    Signature,
    /// A structure is too long for DER.
    #[error("the certificate request cannot be encoded: {0}")]
    Encoding(#[from] der::Error),
}

/// A request that lacks only the signature by its key.
#[derive(Debug)]
pub struct UnsignedRequest {
    info: CertReqInfo,
    bytes: Vec<u8>,
}

impl UnsignedRequest {
    /// A request for the key of a public area, with what TPM2_Certify by the AK said of it: TPMS_ATTEST and
    /// TPMT_SIGNATURE.
    pub fn new(key: &Public, attest: &[u8], signature: &[u8]) -> Result<Self, CertificateRequestError> {
        if !matches!(key.parameters(), KeyParameters::Ecc { curve: Curve::P256, .. }) {
            return Err(CertificateRequestError::KeyType);
        }
        let bundle = CertifyStatement { attest, signature, public_area: Some(key.as_bytes()) }.to_bundle()?;
        let attestation =
            Attribute { oid: ID_AA_ATTESTATION, values: SetOfVec::from_iter([Any::from_der(&bundle)?])? };
        let info = CertReqInfo {
            version: Version::V1,
            subject: Name::default(),
            public_key: SubjectPublicKeyInfoOwned::from_der(&subject_public_key_info(key)?)?,
            attributes: SetOfVec::from_iter([attestation])?,
        };
        let bytes = info.to_der()?;
        Ok(Self { info, bytes })
    }

    /// The DER CertificationRequestInfo: what the signature is over.
    #[must_use]
    pub fn to_be_signed(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of [`Self::to_be_signed`], for TPM2_Sign.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(&[&self.bytes])
    }

    /// The DER PKCS#10, from r and s as the TPM gave them, with or without leading zeros.
    pub fn assemble(self, r: &[u8], s: &[u8]) -> Result<Vec<u8>, CertificateRequestError> {
        let (r, s) = (scalar(r)?, scalar(s)?);
        let signature =
            Signature::from_scalars(r, s).map_err(|_| CertificateRequestError::Signature)?.to_der();
        let request = CertReq {
            info: self.info,
            algorithm: AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None },
            signature: BitString::from_bytes(signature.as_bytes())?,
        };
        Ok(request.to_der()?)
    }
}

/// Pads to 32 bytes.
fn scalar(number: &[u8]) -> Result<[u8; 32], CertificateRequestError> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let significant = number.get(zeros..).unwrap_or_default();
    let mut padded = [0; 32];
    let start = padded.len().checked_sub(significant.len()).ok_or(CertificateRequestError::Signature)?;
    padded.get_mut(start..).ok_or(CertificateRequestError::Signature)?.copy_from_slice(significant);
    Ok(padded)
}
