//! The rules that the public area of an EK follows.

use aws_lc_rs::rsa::PublicEncryptingKey;
use rootbound_common::crypto::subject_public_key_info;
use rootbound_common::tpm::{Attributes, Curve, HashAlgorithm, KeyParameters, ParseError, Public, Symmetric};

/// Which rule of an endorsement key a public area breaks; the list is in the order of the checks (TPM 2.0 Part 1, 31.3;
/// TCG EK Credential Profile 2.5, B.3 and B.4).
///
/// authPolicy is not compared with that of a TCG template: owners may make an EK with a policy of their own, and none
/// makes a TPM open what is meant for another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndorsementKeyError {
    /// The bytes are no TPMT_PUBLIC of a supported key.
    #[error("EK: {0}")]
    Malformed(#[from] ParseError),
    /// Without `restricted` the key decrypts for whoever may use it, and TPM2_ActivateCredential refuses it.
    #[error("EK is not restricted")]
    NotRestricted,
    /// Without `decrypt` the key opens nothing.
    #[error("EK is not a decryption key")]
    NotDecrypting,
    /// A storage key does not sign.
    #[error("EK may sign")]
    MaySign,
    /// Without `fixedTPM` another TPM may hold the key as well.
    #[error("EK is not bound to its TPM (fixedTPM is clear)")]
    MayLeaveTpm,
    /// Without `fixedParent` the key may be duplicated to another parent.
    #[error("EK is not bound to its hierarchy (fixedParent is clear)")]
    MayLeaveParent,
    /// Without `sensitiveDataOrigin` the private part came from outside.
    #[error("EK was not made by its TPM (sensitiveDataOrigin is clear)")]
    MadeElsewhere,
    /// The Name and all derived keys would rest on SHA-1.
    #[error("EK has SHA-1 as nameAlg")]
    Sha1Name,
    /// A storage key protects what is sent to it by a symmetric algorithm.
    #[error("EK names no symmetric algorithm")]
    NoSymmetric,
    /// A restricted decryption key is tied to no scheme.
    #[error("EK is tied to a signature scheme")]
    Scheme,
    /// The numbers are no key: a point off the curve, a coordinate not below p, a malformed modulus.
    #[error("EK's numbers are not a valid public key")]
    NotAKey,
}

/// An EK as the cryptographic library takes it: numbers that are known to be a key.
#[derive(Debug, Clone)]
pub(in crate::enrollment) enum EncryptingKey {
    /// RSA of 2048 to 4096 bits.
    Rsa(PublicEncryptingKey),
    /// A point on P-256.
    P256(p256::PublicKey),
    /// A point on P-384.
    P384(p384::PublicKey),
}

/// Checks a public area; gives it with its key and its DER SubjectPublicKeyInfo.
pub(super) fn check(public_area: &[u8]) -> Result<(Public, EncryptingKey, Vec<u8>), EndorsementKeyError> {
    let public = Public::parse(public_area)?;
    check_attributes(public.attributes())?;
    if public.name_algorithm() == HashAlgorithm::Sha1 {
        return Err(EndorsementKeyError::Sha1Name);
    }
    if public.parameters().symmetric() == Symmetric::None {
        return Err(EndorsementKeyError::NoSymmetric);
    }
    if public.parameters().scheme().is_some() {
        return Err(EndorsementKeyError::Scheme);
    }
    let info = subject_public_key_info(&public).map_err(|_| EndorsementKeyError::NotAKey)?;
    let key = encrypting_key(public.parameters(), &info)?;
    Ok((public, key, info))
}

fn check_attributes(attributes: Attributes) -> Result<(), EndorsementKeyError> {
    let needed = [
        (Attributes::RESTRICTED, EndorsementKeyError::NotRestricted),
        (Attributes::DECRYPT, EndorsementKeyError::NotDecrypting),
        (Attributes::FIXED_TPM, EndorsementKeyError::MayLeaveTpm),
        (Attributes::FIXED_PARENT, EndorsementKeyError::MayLeaveParent),
        (Attributes::SENSITIVE_DATA_ORIGIN, EndorsementKeyError::MadeElsewhere),
    ];
    for (attribute, error) in needed {
        if !attributes.has(attribute) {
            return Err(error);
        }
    }
    if attributes.has_any(Attributes::SIGN.and(Attributes::X509_SIGN)) {
        return Err(EndorsementKeyError::MaySign);
    }
    Ok(())
}

fn encrypting_key(
    parameters: &KeyParameters,
    subject_public_key_info: &[u8],
) -> Result<EncryptingKey, EndorsementKeyError> {
    match parameters {
        KeyParameters::Rsa { .. } => PublicEncryptingKey::from_der(subject_public_key_info)
            .map(EncryptingKey::Rsa)
            .map_err(|_| EndorsementKeyError::NotAKey),
        KeyParameters::Ecc { curve, x, y, .. } => {
            let point = [&[0x04], x.as_slice(), y.as_slice()].concat();
            match curve {
                Curve::P256 => p256::PublicKey::from_sec1_bytes(&point).map(EncryptingKey::P256),
                Curve::P384 => p384::PublicKey::from_sec1_bytes(&point).map(EncryptingKey::P384),
            }
            .map_err(|_| EndorsementKeyError::NotAKey)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::UnendorsedKey;
    use crate::enrollment::testing::{PublicTemplate, p256_point, p384_point, rsa_modulus};

    const ATTRIBUTES: u32 = 0x0003_00b2;

    fn ecc(attributes: u32) -> PublicTemplate {
        let (x, y) = p256_point();
        PublicTemplate::ecc(0x0003, &x, &y).attributes(attributes).symmetric(128)
    }

    fn refusal(template: &PublicTemplate) -> EndorsementKeyError {
        UnendorsedKey::parse(&template.bytes()).unwrap_err()
    }

    #[test]
    fn keys_of_the_tcg_templates_are_accepted_and_named_by_their_key() {
        let (x, y) = p384_point();
        let p384 =
            PublicTemplate::ecc(0x0004, &x, &y).attributes(ATTRIBUTES | 0x40).name(0x000c).symmetric(256);
        let rsa = PublicTemplate::rsa(&rsa_modulus()).attributes(ATTRIBUTES).symmetric(128);
        let mut ids = Vec::new();
        for template in [ecc(ATTRIBUTES), p384, rsa] {
            let key = UnendorsedKey::parse(&template.bytes()).unwrap();
            assert_eq!(key.public().as_bytes(), template.bytes());
            ids.push(key.node_id());
        }
        ids.dedup();
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn one_key_under_two_templates_is_one_node() {
        let low = UnendorsedKey::parse(&ecc(ATTRIBUTES).bytes()).unwrap();
        let high = UnendorsedKey::parse(&ecc(ATTRIBUTES | 0x40).bytes()).unwrap();
        assert_ne!(low.public().name(), high.public().name());
        assert_eq!(low.node_id(), high.node_id());
    }

    #[test]
    fn each_wrong_attribute_is_refused_for_its_own_reason() {
        for (bit, expected) in [
            (16, EndorsementKeyError::NotRestricted),
            (17, EndorsementKeyError::NotDecrypting),
            (18, EndorsementKeyError::MaySign),
            (19, EndorsementKeyError::MaySign),
            (1, EndorsementKeyError::MayLeaveTpm),
            (4, EndorsementKeyError::MayLeaveParent),
            (5, EndorsementKeyError::MadeElsewhere),
        ] {
            assert_eq!(refusal(&ecc(ATTRIBUTES ^ (1 << bit))), expected, "bit {bit}");
        }
    }

    #[test]
    fn each_wrong_parameter_is_refused_for_its_own_reason() {
        assert_eq!(refusal(&ecc(ATTRIBUTES).name(0x0004)), EndorsementKeyError::Sha1Name);
        assert_eq!(refusal(&ecc(ATTRIBUTES).no_symmetric()), EndorsementKeyError::NoSymmetric);
        assert_eq!(refusal(&ecc(ATTRIBUTES).scheme(0x0018, 0x000b)), EndorsementKeyError::Scheme);
        let small = PublicTemplate::rsa(&rsa_modulus()[..128]).attributes(ATTRIBUTES).symmetric(128);
        assert!(matches!(refusal(&small), EndorsementKeyError::Malformed(_)));
    }

    /// Attack 17: encrypting to a point off the curve would leak the ephemeral key's neighbourhood, not a secret; the
    /// TPM that answers would prove nothing.
    #[test]
    fn points_that_are_no_key_are_refused() {
        let (x, mut y) = p256_point();
        y[31] ^= 1;
        let off = PublicTemplate::ecc(0x0003, &x, &y).attributes(ATTRIBUTES).symmetric(128);
        assert_eq!(refusal(&off), EndorsementKeyError::NotAKey);
        let (x, mut y) = p384_point();
        y[0] ^= 1;
        let off = PublicTemplate::ecc(0x0004, &x, &y).attributes(ATTRIBUTES).symmetric(256);
        assert_eq!(refusal(&off), EndorsementKeyError::NotAKey);
    }

    #[test]
    fn rsa_modulus_that_is_even_is_refused() {
        let mut modulus = rsa_modulus();
        modulus[255] &= 0xfe;
        let even = PublicTemplate::rsa(&modulus).attributes(ATTRIBUTES).symmetric(128);
        assert_eq!(refusal(&even), EndorsementKeyError::NotAKey);
    }
}
