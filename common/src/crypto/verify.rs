//! Verification of a TPM's signatures by aws-lc-rs.

use aws_lc_rs::signature::{self as aws, ParsedPublicKey, VerificationAlgorithm};

use super::spki::{rsa_public_key, uncompressed_point};
use crate::tpm::{Curve, HashAlgorithm, KeyParameters, Public, Signature, SignatureScheme, SignatureValue};

/// Why a public area gives no key that verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyingKeyError {
    /// The key names no scheme, so that a signature could choose a weaker one.
    #[error("the key is tied to no signature scheme")]
    NoScheme,
    /// The scheme hashes with SHA-1.
    #[error("signature scheme {0} is refused: SHA-1 is no longer collision resistant")]
    Sha1(SignatureScheme),
    /// The numbers are no key: a point off the curve, a coordinate not below p, a malformed modulus.
    #[error("the numbers are not a valid public key")]
    NotAKey,
}

/// Why a signature does not stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The signature claims another scheme or hash than the key's.
    #[error("signature is of scheme {found}, the key signs by {expected}")]
    Scheme {
        /// The key's.
        expected: SignatureScheme,
        /// The signature's.
        found: SignatureScheme,
    },
    /// An RSA signature is not as long as the modulus.
    #[error("RSA signature has {found} bytes, the modulus has {expected}")]
    RsaLength {
        /// Bytes of the modulus.
        expected: usize,
        /// Bytes of the signature.
        found: usize,
    },
    /// r or s of an ECDSA signature is zero, or longer than the curve's order.
    #[error("ECDSA signature has an r or s of zero or of too many bytes")]
    EcdsaNumbers,
    /// The signature does not verify.
    #[error("signature does not verify")]
    Invalid,
}

/// A public key, tied to one scheme, parsed once and used for many signatures.
#[derive(Debug, Clone)]
pub struct VerifyingKey {
    scheme: SignatureScheme,
    encoding: Encoding,
    key: ParsedPublicKey,
}

#[derive(Debug, Clone, Copy)]
enum Encoding {
    /// An RSA signature of so many bytes.
    Rsa(usize),
    /// r ‖ s, each padded to the curve's size.
    Fixed(Curve),
    /// SEQUENCE { r, s }, for the pairs of curve and hash where aws-lc-rs takes no fixed form.
    Der(Curve),
}

impl VerifyingKey {
    /// The key of a public area, with the scheme that the public area names.
    ///
    /// Established when this returns: the scheme is one and its hash is not SHA-1; an ECC point is on its curve.
    pub fn of_public_area(public: &Public) -> Result<Self, VerifyingKeyError> {
        let scheme = public.parameters().scheme().ok_or(VerifyingKeyError::NoScheme)?;
        let (algorithm, encoding) = algorithm(scheme, public.parameters())?;
        let key = match public.parameters() {
            KeyParameters::Rsa { modulus, exponent, .. } => {
                let der = rsa_public_key(modulus, *exponent).map_err(|_| VerifyingKeyError::NotAKey)?;
                ParsedPublicKey::new(algorithm, &der)
            }
            KeyParameters::Ecc { x, y, .. } => ParsedPublicKey::new(algorithm, uncompressed_point(x, y)),
        };
        let key = key.map_err(|_| VerifyingKeyError::NotAKey)?;
        Ok(Self { scheme, encoding, key })
    }

    /// The scheme that the key is tied to.
    #[must_use]
    pub fn scheme(&self) -> SignatureScheme {
        self.scheme
    }

    /// Verifies a signature over `message`; the scheme and hash must be the key's.
    pub fn verify(&self, message: &[u8], signature: &Signature<'_>) -> Result<(), SignatureError> {
        if signature.scheme != self.scheme {
            return Err(SignatureError::Scheme { expected: self.scheme, found: signature.scheme });
        }
        let valid = match (self.encoding, signature.value) {
            (Encoding::Rsa(expected), SignatureValue::Rsa(value)) => {
                if value.len() != expected {
                    return Err(SignatureError::RsaLength { expected, found: value.len() });
                }
                self.key.verify_sig(message, value)
            }
            (Encoding::Fixed(curve), SignatureValue::Ecdsa { r, s }) => {
                let mut longest = [0; 2 * Curve::P384.size()];
                // Cut first: s ends where the curve's own size ends.
                let fixed = longest.get_mut(..2 * curve.size()).ok_or(SignatureError::EcdsaNumbers)?;
                let (left, right) = fixed.split_at_mut(curve.size());
                pad(left, r)?;
                pad(right, s)?;
                self.key.verify_sig(message, fixed)
            }
            (Encoding::Der(curve), SignatureValue::Ecdsa { r, s }) => {
                self.key.verify_sig(message, &der(curve, r, s)?)
            }
            // The parser ties the form of the value to the scheme, which is the key's.
            (Encoding::Rsa(_), SignatureValue::Ecdsa { .. })
            | (Encoding::Fixed(_) | Encoding::Der(_), SignatureValue::Rsa(_)) => {
                return Err(SignatureError::Invalid);
            }
        };
        valid.map_err(|_| SignatureError::Invalid)
    }
}

fn algorithm(
    scheme: SignatureScheme,
    parameters: &KeyParameters,
) -> Result<(&'static dyn VerificationAlgorithm, Encoding), VerifyingKeyError> {
    use HashAlgorithm::{Sha1, Sha256, Sha384, Sha512};
    let found: (&'static dyn VerificationAlgorithm, Encoding) = match (scheme, parameters) {
        (SignatureScheme::RsaSsa(hash), KeyParameters::Rsa { modulus, .. }) => {
            let encoding = Encoding::Rsa(modulus.len());
            match hash {
                Sha1 => return Err(VerifyingKeyError::Sha1(scheme)),
                Sha256 => (&aws::RSA_PKCS1_2048_8192_SHA256, encoding),
                Sha384 => (&aws::RSA_PKCS1_2048_8192_SHA384, encoding),
                Sha512 => (&aws::RSA_PKCS1_2048_8192_SHA512, encoding),
            }
        }
        (SignatureScheme::RsaPss(hash), KeyParameters::Rsa { modulus, .. }) => {
            let encoding = Encoding::Rsa(modulus.len());
            match hash {
                Sha1 => return Err(VerifyingKeyError::Sha1(scheme)),
                Sha256 => (&aws::RSA_PSS_2048_8192_SHA256, encoding),
                Sha384 => (&aws::RSA_PSS_2048_8192_SHA384, encoding),
                Sha512 => (&aws::RSA_PSS_2048_8192_SHA512, encoding),
            }
        }
        (SignatureScheme::Ecdsa(hash), KeyParameters::Ecc { curve, .. }) => match (curve, hash) {
            (_, Sha1) => return Err(VerifyingKeyError::Sha1(scheme)),
            (Curve::P256, Sha256) => (&aws::ECDSA_P256_SHA256_FIXED, Encoding::Fixed(*curve)),
            (Curve::P256, Sha384) => (&aws::ECDSA_P256_SHA384_ASN1, Encoding::Der(*curve)),
            (Curve::P256, Sha512) => (&aws::ECDSA_P256_SHA512_ASN1, Encoding::Der(*curve)),
            (Curve::P384, Sha256) => (&aws::ECDSA_P384_SHA256_ASN1, Encoding::Der(*curve)),
            (Curve::P384, Sha384) => (&aws::ECDSA_P384_SHA384_FIXED, Encoding::Fixed(*curve)),
            (Curve::P384, Sha512) => (&aws::ECDSA_P384_SHA512_ASN1, Encoding::Der(*curve)),
        },
        // `Public::parse` refuses a scheme that does not fit the kind of key.
        (SignatureScheme::Ecdsa(_), KeyParameters::Rsa { .. })
        | (SignatureScheme::RsaSsa(_) | SignatureScheme::RsaPss(_), KeyParameters::Ecc { .. }) => {
            return Err(VerifyingKeyError::NotAKey);
        }
    };
    Ok(found)
}

/// Without leading zeros.
fn strip(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Copies a number into the end of `to`; it must be neither zero nor longer.
fn pad(to: &mut [u8], number: &[u8]) -> Result<(), SignatureError> {
    let number = strip(number);
    if number.is_empty() || number.len() > to.len() {
        return Err(SignatureError::EcdsaNumbers);
    }
    for (to, from) in to.iter_mut().rev().zip(number.iter().rev()) {
        *to = *from;
    }
    Ok(())
}

/// ECDSA-Sig-Value (RFC 3279, 2.2.3). The longest, for P-384, stays below 128 bytes, so that every length is one byte.
fn der(curve: Curve, r: &[u8], s: &[u8]) -> Result<Vec<u8>, SignatureError> {
    let mut body = Vec::with_capacity(2 * (curve.size() + 3));
    for number in [r, s] {
        let number = strip(number);
        let length = number.len();
        let (Some(first), true) = (number.first(), length <= curve.size()) else {
            return Err(SignatureError::EcdsaNumbers);
        };
        let sign: &[u8] = if first & 0x80 != 0 { &[0] } else { &[] };
        body.push(0x02);
        body.push(u8::try_from(length + sign.len()).map_err(|_| SignatureError::EcdsaNumbers)?);
        body.extend_from_slice(sign);
        body.extend_from_slice(number);
    }
    let mut out = vec![0x30, u8::try_from(body.len()).map_err(|_| SignatureError::EcdsaNumbers)?];
    out.append(&mut body);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    };

    use super::*;
    use crate::tpm::put_sized;

    /// TPMT_PUBLIC of a restricted signing key with nameAlg SHA-256 and no policy, by hand.
    fn public(scheme: SignatureScheme, curve: Curve, point: &[u8]) -> Public {
        let mut area = vec![0x00, 0x23, 0x00, 0x0b, 0x00, 0x05, 0x04, 0x72, 0x00, 0x00, 0x00, 0x10];
        for field in [scheme.tpm_id(), scheme.hash().tpm_id(), curve.tpm_id(), 0x0010] {
            area.extend(field.to_be_bytes());
        }
        let (x, y) = point[1..].split_at(curve.size());
        put_sized(&mut area, x);
        put_sized(&mut area, y);
        Public::parse(&area).unwrap()
    }

    #[test]
    fn ecdsa_signatures_of_both_curves_verify_with_and_without_leading_zeros() {
        for (curve, hash, algorithm) in [
            (Curve::P256, HashAlgorithm::Sha256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            (Curve::P384, HashAlgorithm::Sha384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        ] {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let scheme = SignatureScheme::Ecdsa(hash);
            let key =
                VerifyingKey::of_public_area(&public(scheme, curve, pair.public_key().as_ref())).unwrap();
            let signed = pair.sign(&SystemRandom::new(), b"message").unwrap();
            let (r, s) = signed.as_ref().split_at(curve.size());
            let padded = [&[0][..], s].concat();
            for (r, s) in [(r, s), (strip(r), strip(s)), (r, padded.as_slice())] {
                let signature = Signature { scheme, value: SignatureValue::Ecdsa { r, s } };
                assert_eq!(key.verify(b"message", &signature), Ok(()), "{curve:?}");
                assert_eq!(key.verify(b"massage", &signature), Err(SignatureError::Invalid), "{curve:?}");
            }
            let swapped = Signature { scheme, value: SignatureValue::Ecdsa { r: s, s: r } };
            assert_eq!(key.verify(b"message", &swapped), Err(SignatureError::Invalid), "{curve:?}");
        }
    }
}
