//! The AK: the restricted key whose signature makes a TPM's statement believable.

use rootbound_common::crypto::{VerifyingKey, VerifyingKeyError};
use rootbound_common::tpm::{Attributes, HashAlgorithm, Name, ParseError, Public};

/// TPM_RH_ENDORSEMENT: the Qualified Name of the endorsement hierarchy.
const ENDORSEMENT_HIERARCHY: [u8; 4] = [0x40, 0x00, 0x00, 0x0b];

/// Which rule of an attestation key a public area breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationKeyError {
    /// The bytes are no TPMT_PUBLIC of a supported key.
    #[error("AK: {0}")]
    Malformed(#[from] ParseError),
    /// Without `restricted` the key signs whatever its user likes, statements that no TPM made included.
    #[error("AK is not restricted: it would sign forged statements")]
    NotRestricted,
    /// Without `sign` the key makes no statements.
    #[error("AK is not a signing key")]
    NotSigning,
    /// A restricted key that also decrypts is none that the TPM Library defines.
    #[error("AK may decrypt")]
    MayDecrypt,
    /// Without `fixedTPM` another TPM may hold the key as well.
    #[error("AK is not bound to its TPM (fixedTPM is clear)")]
    MayLeaveTpm,
    /// Without `fixedParent` the key may be duplicated to another parent.
    #[error("AK is not bound to its parent (fixedParent is clear)")]
    MayLeaveParent,
    /// Without `sensitiveDataOrigin` the private part came from outside.
    #[error("AK was not made by its TPM (sensitiveDataOrigin is clear)")]
    MadeElsewhere,
    /// A key for TPM2_CertifyX509 signs certificates that its user composes.
    #[error("AK signs X.509 certificates (x509sign is set)")]
    SignsCertificates,
    /// The Name would rest on SHA-1.
    #[error("AK has SHA-1 as nameAlg")]
    Sha1Name,
    /// The key is tied to no scheme, so that a signature could choose a weaker one.
    #[error("AK is tied to no signature scheme")]
    NoScheme,
    /// Signatures would be over SHA-1.
    #[error("AK signs over SHA-1")]
    Sha1Scheme,
    /// The numbers are no key: a point off the curve, a coordinate not below p, a malformed modulus.
    #[error("AK's numbers are not a valid public key")]
    NotAKey,
}

/// The public part of a key that follows every rule of an attestation key. Not yet known to live in any TPM.
///
/// Established, in this order (attributes: TPM 2.0 Part 2, 8.3; what they mean for attestation: Part 1, 31):
///
/// 1. the bytes are a TPMT_PUBLIC of an RSA key of 2048 bits or more, or of a P-256 or P-384 key
/// 2. `restricted` and `sign` are set, `decrypt` is clear
/// 3. `fixedTPM`, `fixedParent` and `sensitiveDataOrigin` are set
/// 4. `x509sign` is clear
/// 5. nameAlg is not SHA-1
/// 6. a signature scheme is set, and it does not hash by SHA-1
/// 7. the numbers are a key: the point is on its curve
#[derive(Debug, Clone)]
pub struct AttestationKey {
    public: Public,
    name: Name,
    qualified_name: Name,
    verifying_key: VerifyingKey,
}

impl AttestationKey {
    /// Checks a TPMT_PUBLIC, from the wire or from the store.
    pub fn parse(public_area: &[u8]) -> Result<Self, AttestationKeyError> {
        let public = Public::parse(public_area)?;
        check_attributes(public.attributes())?;
        if public.name_algorithm() == HashAlgorithm::Sha1 {
            return Err(AttestationKeyError::Sha1Name);
        }
        let verifying_key = VerifyingKey::of_public_area(&public).map_err(|error| match error {
            VerifyingKeyError::NoScheme => AttestationKeyError::NoScheme,
            VerifyingKeyError::Sha1(_) => AttestationKeyError::Sha1Scheme,
            VerifyingKeyError::NotAKey => AttestationKeyError::NotAKey,
        })?;
        let name = public.name();
        let qualified_name = name.qualified_under(&ENDORSEMENT_HIERARCHY);
        Ok(Self { public, name, qualified_name, verifying_key })
    }

    /// The public area; its bytes are what the store keeps.
    #[must_use]
    pub fn public(&self) -> &Public {
        &self.public
    }

    /// The Name, computed from the public area.
    #[must_use]
    pub fn name(&self) -> Name {
        self.name
    }

    /// The Qualified Name of this key as a primary key of the endorsement hierarchy (Part 1, 16.2), which the TPM states in
    /// all that the key signs.
    ///
    /// The TPM's resetCount, restartCount and firmwareVersion are its own only in what such a key signs. To what a key
    /// of another hierarchy signs it adds a number of that key's own (Part 1, 36.7), so that whoever makes enough of
    /// them finds one by which a rolled-back TPM is ahead.
    #[must_use]
    pub fn qualified_name(&self) -> Name {
        self.qualified_name
    }

    /// The key, parsed once for many signatures.
    #[must_use]
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying_key
    }
}

impl PartialEq for AttestationKey {
    /// Everything about the key follows from its public area.
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl Eq for AttestationKey {}

fn check_attributes(attributes: Attributes) -> Result<(), AttestationKeyError> {
    let needed = [
        (Attributes::RESTRICTED, AttestationKeyError::NotRestricted),
        (Attributes::SIGN, AttestationKeyError::NotSigning),
        (Attributes::FIXED_TPM, AttestationKeyError::MayLeaveTpm),
        (Attributes::FIXED_PARENT, AttestationKeyError::MayLeaveParent),
        (Attributes::SENSITIVE_DATA_ORIGIN, AttestationKeyError::MadeElsewhere),
    ];
    let refused = [
        (Attributes::DECRYPT, AttestationKeyError::MayDecrypt),
        (Attributes::X509_SIGN, AttestationKeyError::SignsCertificates),
    ];
    for (attribute, error) in needed {
        if !attributes.has(attribute) {
            return Err(error);
        }
    }
    for (attribute, error) in refused {
        if attributes.has(attribute) {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::testing::{PublicTemplate, p256_point, p384_point, rsa_modulus};

    const ATTRIBUTES: u32 = 0x0005_0072;
    const ECDSA: u16 = 0x0018;
    const SHA1: u16 = 0x0004;
    const SHA256: u16 = 0x000b;

    fn ecc(attributes: u32) -> PublicTemplate {
        let (x, y) = p256_point();
        PublicTemplate::ecc(0x0003, &x, &y).attributes(attributes).scheme(ECDSA, SHA256)
    }

    #[test]
    fn keys_that_follow_the_rules_are_accepted() {
        let (x, y) = p384_point();
        let p384 =
            PublicTemplate::ecc(0x0004, &x, &y).attributes(ATTRIBUTES).name(0x000c).scheme(ECDSA, 0x000c);
        let rsa = PublicTemplate::rsa(&rsa_modulus()).attributes(ATTRIBUTES);
        for template in
            [ecc(ATTRIBUTES), p384, rsa.clone().scheme(0x0014, SHA256), rsa.clone().scheme(0x0016, SHA256)]
        {
            let bytes = template.bytes();
            let key = AttestationKey::parse(&bytes).unwrap();
            assert_eq!(key.public().as_bytes(), bytes);
            assert_eq!(key.name(), key.public().name());
            assert_eq!(AttestationKey::parse(key.public().as_bytes()).unwrap(), key);
        }
    }

    /// Attacks 2, 3 and 4: one attribute differs from a good key.
    #[test]
    fn each_wrong_attribute_is_refused_for_its_own_reason() {
        for (bit, expected) in [
            (16, AttestationKeyError::NotRestricted),
            (18, AttestationKeyError::NotSigning),
            (17, AttestationKeyError::MayDecrypt),
            (1, AttestationKeyError::MayLeaveTpm),
            (4, AttestationKeyError::MayLeaveParent),
            (5, AttestationKeyError::MadeElsewhere),
            (19, AttestationKeyError::SignsCertificates),
        ] {
            let found = AttestationKey::parse(&ecc(ATTRIBUTES ^ (1 << bit)).bytes());
            assert_eq!(found, Err(expected), "bit {bit}");
        }
    }

    /// Attack 4.
    #[test]
    fn sha1_and_missing_schemes_are_refused() {
        let cases = [
            (ecc(ATTRIBUTES).name(SHA1), AttestationKeyError::Sha1Name),
            (ecc(ATTRIBUTES).no_scheme(), AttestationKeyError::NoScheme),
            (ecc(ATTRIBUTES).scheme(ECDSA, SHA1), AttestationKeyError::Sha1Scheme),
        ];
        for (template, expected) in cases {
            assert_eq!(AttestationKey::parse(&template.bytes()), Err(expected));
        }
    }

    /// Attack 4: RSA-1024, P-224.
    #[test]
    fn small_keys_are_refused() {
        let rsa = PublicTemplate::rsa(&rsa_modulus()[..128]).attributes(ATTRIBUTES).scheme(0x0014, SHA256);
        let p224 =
            PublicTemplate::ecc(0x0002, &[1; 28], &[1; 28]).attributes(ATTRIBUTES).scheme(ECDSA, SHA256);
        for template in [rsa, p224] {
            assert!(matches!(
                AttestationKey::parse(&template.bytes()),
                Err(AttestationKeyError::Malformed(_))
            ));
        }
    }

    /// Attack 17.
    #[test]
    fn points_that_are_no_key_are_refused() {
        let (x, y) = p256_point();
        let mut off = y.clone();
        off[31] ^= 1;
        // p of P-256 (FIPS 186-4, D.1.2.3).
        let p = data_encoding::HEXLOWER
            .decode(b"ffffffff00000001000000000000000000000000ffffffffffffffffffffffff")
            .unwrap();
        for (x, y) in [(&x[..], &off[..]), (&p[..], &y[..]), (&y[..], &x[..])] {
            let template = PublicTemplate::ecc(0x0003, x, y).attributes(ATTRIBUTES).scheme(ECDSA, SHA256);
            assert_eq!(AttestationKey::parse(&template.bytes()), Err(AttestationKeyError::NotAKey));
        }
        for (x, y) in [(&[0; 32][..], &y[..]), (&x[..], &[1; 33][..])] {
            let template = PublicTemplate::ecc(0x0003, x, y).attributes(ATTRIBUTES).scheme(ECDSA, SHA256);
            let found = AttestationKey::parse(&template.bytes());
            assert!(matches!(found, Err(AttestationKeyError::Malformed(_))), "{found:?}");
        }
    }
}
