//! Signing keys with the public area of a TPM object around them.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as aws, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RsaEncoding, RsaKeyPair,
};
use der::asn1::UintRef;
use der::{Decode, Reader as _, SliceReader};
use rootbound_common::tpm::{
    Attributes, Curve, HashAlgorithm, Name, Public, Signature, SignatureScheme, SignatureValue, Symmetric,
    put_sized,
};

const NULL: u16 = 0x0010;

/// Everything of a TPMT_PUBLIC but the key (Part 2, table 216); change any field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// nameAlg.
    pub name_algorithm: HashAlgorithm,
    /// TPMA_OBJECT.
    pub attributes: Attributes,
    /// authPolicy; empty for none.
    pub auth_policy: Vec<u8>,
    /// The symmetric algorithm of a storage key.
    pub symmetric: Symmetric,
    /// The scheme in the public area; `None` is TPM_ALG_NULL, and then the key signs by its default.
    pub scheme: Option<SignatureScheme>,
}

impl Template {
    const OF_THIS_TPM: Attributes =
        Attributes::FIXED_TPM.and(Attributes::FIXED_PARENT).and(Attributes::SENSITIVE_DATA_ORIGIN);

    /// An honest AK: restricted, signs by ECDSA with SHA-256.
    #[must_use]
    pub fn attestation_p256() -> Self {
        Self {
            name_algorithm: HashAlgorithm::Sha256,
            attributes: Self::OF_THIS_TPM
                .and(Attributes::USER_WITH_AUTH)
                .and(Attributes::NO_DA)
                .and(Attributes::RESTRICTED)
                .and(Attributes::SIGN),
            auth_policy: Vec::new(),
            symmetric: Symmetric::None,
            scheme: Some(SignatureScheme::Ecdsa(HashAlgorithm::Sha256)),
        }
    }

    /// An honest AK: restricted, signs by RSASSA with SHA-256.
    #[must_use]
    pub fn attestation_rsa() -> Self {
        Self { scheme: Some(SignatureScheme::RsaSsa(HashAlgorithm::Sha256)), ..Self::attestation_p256() }
    }

    /// An honest credential key: signs anything, but only under its policy.
    #[must_use]
    pub fn credential(auth_policy: &[u8]) -> Self {
        Self {
            name_algorithm: HashAlgorithm::Sha256,
            attributes: Self::OF_THIS_TPM.and(Attributes::NO_DA).and(Attributes::SIGN),
            auth_policy: auth_policy.to_vec(),
            symmetric: Symmetric::None,
            scheme: Some(SignatureScheme::Ecdsa(HashAlgorithm::Sha256)),
        }
    }

    /// The same with other attributes.
    #[must_use]
    pub fn with_attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }

    /// The same without some attributes.
    #[must_use]
    pub fn without(self, attributes: Attributes) -> Self {
        let bits = self.attributes.bits() & !attributes.bits();
        self.with_attributes(Attributes::from_bits(bits))
    }

    /// The same with some more attributes.
    #[must_use]
    pub fn with(self, attributes: Attributes) -> Self {
        let attributes = self.attributes.and(attributes);
        self.with_attributes(attributes)
    }

    /// The same with another authPolicy.
    #[must_use]
    pub fn with_policy(self, auth_policy: &[u8]) -> Self {
        Self { auth_policy: auth_policy.to_vec(), ..self }
    }

    /// The same with another scheme.
    #[must_use]
    pub fn with_scheme(self, scheme: Option<SignatureScheme>) -> Self {
        Self { scheme, ..self }
    }

    /// TPMT_PUBLIC of an ECC key; the coordinates need not be on the curve.
    #[must_use]
    pub fn ecc_public_area(&self, curve: Curve, x: &[u8], y: &[u8]) -> Vec<u8> {
        let mut out = self.head(0x0023);
        out.extend(curve.tpm_id().to_be_bytes());
        out.extend(NULL.to_be_bytes());
        put_sized(&mut out, x);
        put_sized(&mut out, y);
        out
    }

    /// TPMT_PUBLIC of an RSA key with the default exponent.
    #[must_use]
    pub fn rsa_public_area(&self, modulus: &[u8]) -> Vec<u8> {
        let mut out = self.head(0x0001);
        let bits = u16::try_from(modulus.len() * 8).expect("an RSA key of a TPM");
        out.extend(bits.to_be_bytes());
        out.extend(0_u32.to_be_bytes());
        put_sized(&mut out, modulus);
        out
    }

    fn head(&self, kind: u16) -> Vec<u8> {
        let mut out = kind.to_be_bytes().to_vec();
        out.extend(self.name_algorithm.tpm_id().to_be_bytes());
        out.extend(self.attributes.bits().to_be_bytes());
        put_sized(&mut out, &self.auth_policy);
        match self.symmetric {
            Symmetric::None => out.extend(NULL.to_be_bytes()),
            Symmetric::AesCfb { key_bits } => {
                for field in [0x0006, key_bits, 0x0043] {
                    out.extend(field.to_be_bytes());
                }
            }
        }
        match self.scheme {
            None => out.extend(NULL.to_be_bytes()),
            Some(scheme) => {
                out.extend(scheme.tpm_id().to_be_bytes());
                out.extend(scheme.hash().tpm_id().to_be_bytes());
            }
        }
        out
    }
}

enum Pair {
    Ecc(Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A software key that looks like a TPM's. Signs at the speed of aws-lc-rs.
pub struct SoftwareKey {
    template: Template,
    pair: Pair,
}

impl SoftwareKey {
    /// A new P-256 key.
    #[must_use]
    pub fn p256(template: Template) -> Self {
        let algorithm = ecdsa(Curve::P256, hash_of(template.scheme));
        let pair = EcdsaKeyPair::generate(algorithm).expect("a P-256 key");
        Self { template, pair: Pair::Ecc(Curve::P256, pair) }
    }

    /// A new P-384 key.
    #[must_use]
    pub fn p384(template: Template) -> Self {
        let algorithm = ecdsa(Curve::P384, hash_of(template.scheme));
        let pair = EcdsaKeyPair::generate(algorithm).expect("a P-384 key");
        Self { template, pair: Pair::Ecc(Curve::P384, pair) }
    }

    /// A new RSA-2048 key.
    #[must_use]
    pub fn rsa2048(template: Template) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
        Self { template, pair: Pair::Rsa(pair) }
    }

    /// The same key with another public area around it: what a liar would show.
    #[must_use]
    pub fn disguised(self, template: Template) -> Self {
        Self { template, ..self }
    }

    /// The private key as PKCS#8, which no TPM would give: for programs that speak as this node.
    ///
    /// # Panics
    /// Of an RSA key.
    #[must_use]
    pub fn pkcs8(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ecc(_, pair) => pair.to_pkcs8v1().expect("a P-256 key").as_ref().to_vec(),
            Pair::Rsa(_) => panic!("no RSA key is asked for"),
        }
    }

    /// Its template.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// TPMT_PUBLIC.
    #[must_use]
    pub fn public_area(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ecc(curve, pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point.get(1..).expect("a point").split_at(curve.size());
                self.template.ecc_public_area(*curve, x, y)
            }
            Pair::Rsa(pair) => self.template.rsa_public_area(&modulus(pair.public_key().as_ref())),
        }
    }

    /// The public area, parsed.
    ///
    /// # Panics
    /// Where the template makes no sense to the parser.
    #[must_use]
    pub fn public(&self) -> Public {
        Public::parse(&self.public_area()).expect("a public area that parses")
    }

    /// The Name, computed as a TPM does.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::of_public_area(self.template.name_algorithm, &self.public_area())
    }

    /// The hash of the scheme that the key signs by.
    #[must_use]
    pub fn scheme_hash(&self) -> HashAlgorithm {
        hash_of(self.template.scheme)
    }

    /// TPMT_SIGNATURE over a message, in the scheme of the template (by default that of the key's kind, with SHA-256).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ecc(..) => {
                let (r, s) = self.sign_ecdsa(message);
                let scheme = SignatureScheme::Ecdsa(self.scheme_hash());
                Signature { scheme, value: SignatureValue::Ecdsa { r: &r, s: &s } }.to_bytes()
            }
            Pair::Rsa(pair) => {
                let default = SignatureScheme::RsaSsa(HashAlgorithm::Sha256);
                let scheme = self.template.scheme.unwrap_or(default);
                let mut value = vec![0; pair.public_modulus_len()];
                pair.sign(rsa(scheme), &SystemRandom::new(), message, &mut value).expect("an RSA signature");
                Signature { scheme, value: SignatureValue::Rsa(&value) }.to_bytes()
            }
        }
    }

    /// r and s over a message, each as long as the curve's order.
    ///
    /// # Panics
    /// For an RSA key.
    #[must_use]
    pub fn sign_ecdsa(&self, message: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let Pair::Ecc(curve, pair) = &self.pair else { panic!("an RSA key does not sign by ECDSA") };
        let signature = pair.sign(&SystemRandom::new(), message).expect("an ECDSA signature");
        let (r, s) = signature.as_ref().split_at(curve.size());
        (r.to_vec(), s.to_vec())
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareKey").field("template", &self.template).finish_non_exhaustive()
    }
}

/// The modulus of a DER RSAPublicKey (RFC 8017, A.1.1).
pub(super) fn modulus(public_key: &[u8]) -> Vec<u8> {
    let mut reader = SliceReader::new(public_key).expect("an RSAPublicKey");
    reader
        .sequence(|key| {
            let modulus = UintRef::decode(key)?.as_bytes().to_vec();
            UintRef::decode(key)?;
            Ok::<_, der::Error>(modulus)
        })
        .expect("an RSAPublicKey")
}

fn hash_of(scheme: Option<SignatureScheme>) -> HashAlgorithm {
    scheme.map_or(HashAlgorithm::Sha256, SignatureScheme::hash)
}

fn ecdsa(curve: Curve, hash: HashAlgorithm) -> &'static EcdsaSigningAlgorithm {
    match (curve, hash) {
        (Curve::P256, HashAlgorithm::Sha256) => &aws::ECDSA_P256_SHA256_FIXED_SIGNING,
        (Curve::P384, HashAlgorithm::Sha384) => &aws::ECDSA_P384_SHA384_FIXED_SIGNING,
        // A disguise: the key signs by its curve's usual hash, whatever its public area says.
        (Curve::P256, _) => &aws::ECDSA_P256_SHA256_FIXED_SIGNING,
        (Curve::P384, _) => &aws::ECDSA_P384_SHA384_FIXED_SIGNING,
    }
}

fn rsa(scheme: SignatureScheme) -> &'static dyn RsaEncoding {
    match (scheme, scheme.hash()) {
        (SignatureScheme::RsaPss(_), HashAlgorithm::Sha384) => &aws::RSA_PSS_SHA384,
        (SignatureScheme::RsaPss(_), HashAlgorithm::Sha512) => &aws::RSA_PSS_SHA512,
        (SignatureScheme::RsaPss(_), _) => &aws::RSA_PSS_SHA256,
        (_, HashAlgorithm::Sha384) => &aws::RSA_PKCS1_SHA384,
        (_, HashAlgorithm::Sha512) => &aws::RSA_PKCS1_SHA512,
        (_, _) => &aws::RSA_PKCS1_SHA256,
    }
}
