//! The public areas that keys are made from, as bytes: what a TPM gets is what is written here.

use rootbound_common::tpm::{Attributes, Curve, HashAlgorithm, SignatureScheme, put_sized};

use super::{AkAlgorithm, EkKind};

/// A TPMT_PUBLIC to create a key from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    prefix: Vec<u8>,
    unique: Vec<u8>,
}

impl Template {
    /// The whole TPMT_PUBLIC.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [self.prefix.as_slice(), &self.unique].concat()
    }

    /// Everything before the key itself. A public area that begins with it is of a key of this template.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }
}

const BOUND: Attributes =
    Attributes::FIXED_TPM.and(Attributes::FIXED_PARENT).and(Attributes::SENSITIVE_DATA_ORIGIN);

/// TPMT_SYM_DEF_OBJECT of a storage key.
#[derive(Clone, Copy)]
enum Protection {
    None,
    Aes128,
    Aes256,
}

#[derive(Clone, Copy)]
enum Key {
    Rsa2048,
    Ecc(Curve),
}

/// The storage root key under the owner hierarchy: P-256, or RSA-2048 on a TPM without that curve.
///
/// The template of the TCG's provisioning guidance (7.5.1) with an empty `unique`: what OpenSSL providers derive for a
/// TSS2 PRIVATE KEY whose parent is the owner hierarchy, so that they load keys of this system as they are. It has
/// noDA, unlike the default of tpm2-tools.
pub(super) fn storage_root(has_p256: bool) -> Template {
    let attributes = BOUND
        .and(Attributes::USER_WITH_AUTH)
        .and(Attributes::NO_DA)
        .and(Attributes::RESTRICTED)
        .and(Attributes::DECRYPT);
    let key = if has_p256 { Key::Ecc(Curve::P256) } else { Key::Rsa2048 };
    Template {
        prefix: prefix(key, HashAlgorithm::Sha256, attributes, &[], Protection::Aes128, None),
        unique: empty_unique(key),
    }
}

/// An attestation key. tss-esapi's `create_ak` leaves noDA clear: three power cuts and the TPM is locked.
///
/// It is a primary key of the endorsement hierarchy, and the seed is what sets it apart from others of this template
/// (Part 1, 27.6.3): 64 random bytes in `unique`. So its Qualified Name follows from its Name alone, and says to the
/// verifier that what this AK signs are the true resetCount, restartCount and firmwareVersion: in what a key of another
/// hierarchy signs, the TPM adds a number of that key's own (Part 1, 36.7).
pub(super) fn ak(algorithm: AkAlgorithm, seed: &[u8; AK_SEED]) -> Template {
    let attributes = BOUND
        .and(Attributes::USER_WITH_AUTH)
        .and(Attributes::NO_DA)
        .and(Attributes::RESTRICTED)
        .and(Attributes::SIGN);
    let (key, scheme) = match algorithm {
        AkAlgorithm::EcdsaP256 => (Key::Ecc(Curve::P256), SignatureScheme::Ecdsa(HashAlgorithm::Sha256)),
        AkAlgorithm::RsaSsa2048 => (Key::Rsa2048, SignatureScheme::RsaSsa(HashAlgorithm::Sha256)),
    };
    let (x, y) = seed.split_at(AK_SEED / 2);
    let mut unique = Vec::new();
    match key {
        Key::Ecc(_) => {
            put_sized(&mut unique, x);
            put_sized(&mut unique, y);
        }
        // As long as the modulus: not every TPM takes another length.
        Key::Rsa2048 => put_sized(&mut unique, &[x, y, &[0; 256 - AK_SEED]].concat()),
    }
    Template {
        prefix: prefix(key, HashAlgorithm::Sha256, attributes, &[], Protection::None, Some(scheme)),
        unique,
    }
}

/// Bytes of an AK's seed: two coordinates on P-256.
pub(super) const AK_SEED: usize = 64;

/// The key of a credential: the user role by policy only. adminWithPolicy stays clear, so that the empty password
/// suffices for TPM2_Certify, also when the PCRs have moved.
pub(super) fn credential_key(auth_policy: &[u8; 32]) -> Template {
    let attributes = BOUND.and(Attributes::NO_DA).and(Attributes::SIGN);
    let (key, scheme) = (Key::Ecc(Curve::P256), SignatureScheme::Ecdsa(HashAlgorithm::Sha256));
    Template {
        prefix: prefix(key, HashAlgorithm::Sha256, attributes, auth_policy, Protection::None, Some(scheme)),
        unique: empty_unique(key),
    }
}

/// Endorsement keys: templates L-1, L-2 and H-3 of the TCG EK Credential Profile 2.5, appendix B. The low ones fill
/// `unique` with zeros of full length, the high ones leave it empty.
pub(super) fn endorsement(kind: EkKind) -> Template {
    let attributes =
        BOUND.and(Attributes::ADMIN_WITH_POLICY).and(Attributes::RESTRICTED).and(Attributes::DECRYPT);
    let sha256 = HashAlgorithm::Sha256;
    match kind {
        EkKind::Rsa2048 => Template {
            prefix: prefix(Key::Rsa2048, sha256, attributes, &EK_POLICY_A, Protection::Aes128, None),
            unique: zero_unique(&[256]),
        },
        EkKind::EccP256 => Template {
            prefix: prefix(Key::Ecc(Curve::P256), sha256, attributes, &EK_POLICY_A, Protection::Aes128, None),
            unique: zero_unique(&[32, 32]),
        },
        EkKind::EccP384 => {
            let key = Key::Ecc(Curve::P384);
            let attributes = attributes.and(Attributes::USER_WITH_AUTH);
            Template {
                prefix: prefix(
                    key,
                    HashAlgorithm::Sha384,
                    attributes,
                    &EK_POLICY_B_SHA384,
                    Protection::Aes256,
                    None,
                ),
                unique: empty_unique(key),
            }
        }
    }
}

/// PolicyA, PolicySecret(endorsement), in SHA-256 (EK Credential Profile 2.5, B.6.2).
const EK_POLICY_A: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd,
    0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

/// PolicyB = PolicyOR(PolicyA, PolicyC), in SHA-384 (EK Credential Profile 2.5, B.6.4).
const EK_POLICY_B_SHA384: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a, 0x07,
    0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca, 0xcb, 0x47,
    0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];

/// The branches of PolicyB: PolicyA and PolicyC in SHA-384 (EK Credential Profile 2.5, B.6.2 and B.6.5).
pub(super) const EK_POLICY_B_BRANCHES_SHA384: [[u8; 48]; 2] = [
    [
        0x8b, 0xbf, 0x22, 0x66, 0x53, 0x7c, 0x17, 0x1c, 0xb5, 0x6e, 0x40, 0x3c, 0x4d, 0xc1, 0xd4, 0xb6, 0x4f,
        0x43, 0x26, 0x11, 0xdc, 0x38, 0x6e, 0x6f, 0x53, 0x20, 0x50, 0xc3, 0x27, 0x8c, 0x93, 0x0e, 0x14, 0x3e,
        0x8b, 0xb1, 0x13, 0x38, 0x24, 0xcc, 0xb4, 0x31, 0x05, 0x38, 0x71, 0xc6, 0xdb, 0x53,
    ],
    [
        0xd6, 0x03, 0x2c, 0xe6, 0x1f, 0x2f, 0xb3, 0xc2, 0x40, 0xeb, 0x3c, 0xf6, 0xa3, 0x32, 0x37, 0xef, 0x2b,
        0x6a, 0x16, 0xf4, 0x29, 0x3c, 0x22, 0xb4, 0x55, 0xe2, 0x61, 0xcf, 0xfd, 0x21, 0x7a, 0xd5, 0xb4, 0x94,
        0x7c, 0x2d, 0x73, 0xe6, 0x30, 0x05, 0xee, 0xd2, 0xdc, 0x2b, 0x35, 0x93, 0xd1, 0x65,
    ],
];

/// TPMT_PUBLIC up to `unique` (Part 2, table 216).
fn prefix(
    key: Key,
    name_algorithm: HashAlgorithm,
    attributes: Attributes,
    auth_policy: &[u8],
    protection: Protection,
    scheme: Option<SignatureScheme>,
) -> Vec<u8> {
    const NULL: u16 = 0x0010;
    const AES: u16 = 0x0006;
    const CFB: u16 = 0x0043;
    let mut out = Vec::with_capacity(128);
    let put = |out: &mut Vec<u8>, words: &[u16]| out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    let kind = match key {
        Key::Rsa2048 => 0x0001,
        Key::Ecc(_) => 0x0023,
    };
    put(&mut out, &[kind, name_algorithm.tpm_id()]);
    out.extend_from_slice(&attributes.bits().to_be_bytes());
    put_sized(&mut out, auth_policy);
    match protection {
        Protection::None => put(&mut out, &[NULL]),
        Protection::Aes128 => put(&mut out, &[AES, 128, CFB]),
        Protection::Aes256 => put(&mut out, &[AES, 256, CFB]),
    }
    match scheme {
        None => put(&mut out, &[NULL]),
        Some(scheme) => put(&mut out, &[scheme.tpm_id(), scheme.hash().tpm_id()]),
    }
    match key {
        // Key bits, and exponent 0 for 65537.
        Key::Rsa2048 => put(&mut out, &[2048, 0, 0]),
        // Curve, and no KDF.
        Key::Ecc(curve) => put(&mut out, &[curve.tpm_id(), NULL]),
    }
    out
}

fn empty_unique(key: Key) -> Vec<u8> {
    match key {
        Key::Rsa2048 => zero_unique(&[0]),
        Key::Ecc(_) => zero_unique(&[0, 0]),
    }
}

fn zero_unique(lengths: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    for length in lengths {
        put_sized(&mut out, &vec![0; *length]);
    }
    out
}

#[cfg(test)]
mod tests {
    use rootbound_common::crypto::hash;

    use super::*;

    /// Part 3, 23.6: PolicyOR replaces the digest by H(0…0 ‖ TPM_CC_PolicyOR ‖ branches).
    #[test]
    fn policy_of_the_high_range_endorsement_key_is_the_or_of_its_branches() {
        const POLICY_OR: [u8; 4] = [0, 0, 1, 0x71];
        let [a, c] = &EK_POLICY_B_BRANCHES_SHA384;
        let expected = hash(HashAlgorithm::Sha384, &[&[0; 48], &POLICY_OR, a, c]);
        assert_eq!(expected.as_bytes(), EK_POLICY_B_SHA384);
    }

    /// Part 3, 23.4: PolicySecret(TPM_RH_ENDORSEMENT) with an empty policyRef, in two hashes.
    #[test]
    fn policy_a_is_the_secret_of_the_endorsement_hierarchy() {
        const POLICY_SECRET: [u8; 4] = [0, 0, 1, 0x51];
        const RH_ENDORSEMENT: [u8; 4] = [0x40, 0, 0, 0x0b];
        let policy = |algorithm: HashAlgorithm| {
            let first = hash(algorithm, &[&vec![0; algorithm.size()], &POLICY_SECRET, &RH_ENDORSEMENT]);
            hash(algorithm, &[first.as_bytes(), &[]])
        };
        assert_eq!(policy(HashAlgorithm::Sha256).as_bytes(), EK_POLICY_A);
        assert_eq!(policy(HashAlgorithm::Sha384).as_bytes(), EK_POLICY_B_BRANCHES_SHA384[0]);
    }

    #[test]
    fn no_key_of_ours_counts_towards_lockout() {
        for template in [
            storage_root(true),
            storage_root(false),
            ak(AkAlgorithm::EcdsaP256, &[7; AK_SEED]),
            ak(AkAlgorithm::RsaSsa2048, &[7; AK_SEED]),
            credential_key(&[0; 32]),
        ] {
            let bits = u32::from_be_bytes(template.prefix()[4..8].try_into().unwrap());
            assert!(Attributes::from_bits(bits).has(Attributes::NO_DA));
        }
    }
}
