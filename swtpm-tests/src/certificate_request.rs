//! PKCS#10 requests, wrong in any single place.

use rootbound_common::attestation_attribute::CertifyStatement;
use rootbound_common::crypto::subject_public_key_info;

use crate::software_tpm::{Signed, SoftwareKey};

/// One DER element.
#[must_use]
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u16::try_from(content.len()).expect("a short element").to_be_bytes() {
        [0, low @ 0..=0x7f] => out.push(low),
        [0, low] => out.extend([0x81, low]),
        [high, low] => out.extend([0x82, high, low]),
    }
    out.extend(content);
    out
}

/// `id-aa-attestation`, an OBJECT IDENTIFIER.
pub const ID_AA_ATTESTATION: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x3b";

/// An attribute with these values.
#[must_use]
pub fn attribute(kind: &[u8], values: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &[kind, &tlv(0x31, &values.concat())].concat())
}

/// The fields of a CertificationRequest in DER; change any.
#[derive(Debug, Clone)]
pub struct RequestParts {
    /// INTEGER.
    pub version: Vec<u8>,
    /// Name.
    pub subject: Vec<u8>,
    /// SubjectPublicKeyInfo.
    pub key: Vec<u8>,
    /// Attributes, one after the other.
    pub attributes: Vec<Vec<u8>>,
    /// AlgorithmIdentifier of the signature.
    pub algorithm: Vec<u8>,
}

impl RequestParts {
    /// An honest request for a key, with an AK's statement about it.
    #[must_use]
    pub fn honest(key: &SoftwareKey, certify: &Signed) -> Self {
        let spki = subject_public_key_info(&key.public()).expect("a SubjectPublicKeyInfo");
        Self {
            version: vec![0x02, 0x01, 0x00],
            subject: tlv(0x30, &[]),
            key: spki,
            attributes: vec![attestation(&certify.attest, &certify.signature, &key.public_area())],
            algorithm: tlv(0x30, b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"),
        }
    }

    /// The CertificationRequestInfo.
    #[must_use]
    pub fn info(&self) -> Vec<u8> {
        let attributes = tlv(0xa0, &self.attributes.concat());
        tlv(0x30, &[&self.version[..], &self.subject, &self.key, &attributes].concat())
    }

    /// The CertificationRequest, signed by a key.
    #[must_use]
    pub fn sign(&self, key: &SoftwareKey) -> Vec<u8> {
        let info = self.info();
        self.assemble(&ecdsa_signature(&key.sign_ecdsa(&info)))
    }

    /// The CertificationRequest with any bytes for a signature.
    #[must_use]
    pub fn assemble(&self, signature: &[u8]) -> Vec<u8> {
        let signature = tlv(0x03, &[&[0], signature].concat());
        tlv(0x30, &[&self.info()[..], &self.algorithm, &signature].concat())
    }
}

/// The attestation attribute with one statement.
#[must_use]
pub fn attestation(attest: &[u8], signature: &[u8], public_area: &[u8]) -> Vec<u8> {
    let statement = CertifyStatement { attest, signature, public_area: Some(public_area) };
    attribute(ID_AA_ATTESTATION, &[&statement.to_bundle().expect("a bundle")])
}

/// ECDSA-Sig-Value (RFC 3279, 2.2.3) of r and s.
#[must_use]
pub fn ecdsa_signature((r, s): &(Vec<u8>, Vec<u8>)) -> Vec<u8> {
    tlv(0x30, &[integer(r), integer(s)].concat())
}

fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    let sign: &[u8] = if number.first().is_none_or(|byte| byte & 0x80 != 0) { &[0] } else { &[] };
    tlv(0x02, &[sign, number].concat())
}
