//! SubjectPublicKeyInfo of a TPM key.

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::{Encode, Sequence};
use spki::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use crate::tpm::{Curve, KeyParameters, Public};

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// RSAPublicKey (RFC 8017, A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// RSAPublicKey (RFC 8017, A.1.1) in DER.
pub(super) fn rsa_public_key(modulus: &[u8], exponent: u32) -> Result<Vec<u8>, der::Error> {
    let exponent = exponent.to_be_bytes();
    RsaPublicKey { modulus: UintRef::new(modulus)?, exponent: UintRef::new(&exponent)? }.to_der()
}

/// The uncompressed point (SEC 1, 2.3.3).
pub(super) fn uncompressed_point(x: &[u8], y: &[u8]) -> Vec<u8> {
    let mut point = Vec::with_capacity(1 + x.len() + y.len());
    point.push(0x04);
    point.extend_from_slice(x);
    point.extend_from_slice(y);
    point
}

/// The DER SubjectPublicKeyInfo of a key: rsaEncryption with NULL parameters (RFC 3279, 2.3.1), or id-ecPublicKey
/// with a named curve and an uncompressed point (RFC 5480, 2).
///
/// One key has one such form, so that its hash names the key. Does not say that the point is on its curve.
pub fn subject_public_key_info(public: &Public) -> Result<Vec<u8>, der::Error> {
    let (oid, parameters, key) = match public.parameters() {
        KeyParameters::Rsa { modulus, exponent, .. } => {
            (RSA_ENCRYPTION, AnyRef::NULL, rsa_public_key(modulus, *exponent)?)
        }
        KeyParameters::Ecc { curve, x, y, .. } => {
            let curve = match curve {
                Curve::P256 => &PRIME256V1,
                Curve::P384 => &SECP384R1,
            };
            (EC_PUBLIC_KEY, AnyRef::from(curve), uncompressed_point(x, y))
        }
    };
    SubjectPublicKeyInfo {
        algorithm: AlgorithmIdentifier { oid, parameters: Some(parameters) },
        subject_public_key: BitStringRef::from_bytes(&key)?,
    }
    .to_der()
}
