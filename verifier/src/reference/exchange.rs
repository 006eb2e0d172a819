//! Sets on their way from one verifier to another: a JSON document, and a signature over its canonical bytes (RFC 8785).
//!
//! Numbers, order and white space of the file do not matter; what was signed is what the canonical form says.

use std::collections::HashSet;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5912, rfc8410};
use data_encoding::{BASE64, HEXLOWER};
use der::Decode;
use rootbound_common::blob::Blob;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use rootbound_common::id::TrustDomain;
use rootbound_compute::values::BootValues;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spki::SubjectPublicKeyInfoOwned;

use super::{AcceptedPcrs, BootSetError, Provenance};
use crate::appraisal::runtime::DigestSetError;
use crate::evidence::frame::FrameError;
use crate::node::Name;

/// The form of document that this is.
pub const FORMAT: &str = "rootbound-references/1";

/// Values of an exported set; which they are, is its kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportedValues {
    /// PCR values.
    Pcrs(AcceptedPcrs),
    /// Values of boots.
    Boot(BootValues),
    /// The text of a digest set, as a zstd frame.
    Digests(Blob<{ 90 * 1024 * 1024 }>),
}

/// An exported version of a set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedSet {
    /// Its name.
    pub name: Name,
    /// Its version, where it comes from.
    pub version: u32,
    /// Who made it, where it comes from.
    pub provenance: Provenance,
    /// Its values.
    pub values: ExportedValues,
}

/// What is exported.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// [`FORMAT`].
    pub format: String,
    /// The trust domain of the verifier that it comes from.
    pub trust_domain: TrustDomain,
    /// When it was made.
    pub exported_at: Timestamp,
    /// The sets.
    pub sets: Vec<ExportedSet>,
}

/// A signature over the canonical bytes of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentSignature {
    /// SHA-256 of the signer's SubjectPublicKeyInfo, in hex.
    pub key: String,
    /// How it signs.
    pub algorithm: SignatureAlgorithm,
    /// The signature, in base64: of ECDSA r and s, of Ed25519 as RFC 8032 has it.
    pub value: String,
}

/// How documents are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignatureAlgorithm {
    /// ECDSA over P-256 with SHA-256 (RFC 7518).
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519 (RFC 8037).
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Why a document is not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// It is not of this shape.
    #[error("it is no document of exported references: {0}")]
    Malformed(String),
    /// A form that we do not know.
    #[error("its format is not `{FORMAT}`")]
    Format,
    /// There is no signature, and nobody said that there need be none.
    #[error("it is not signed (--unsigned imports it all the same, and the audit trail says so)")]
    Unsigned,
    /// Nobody trusts the key.
    #[error("the key {0} is none of [references] trusted_signers")]
    UnknownSigner(String),
    /// The signature says to be of another algorithm than the key is for.
    #[error("the signature is of another algorithm than the key of `{0}` is for")]
    Algorithm(Name),
    /// The signature does not verify.
    #[error(
        "the signature does not verify under the key of `{0}`: the document was changed, or something else was signed"
    )]
    Signature(Name),
    /// Nothing is in it.
    #[error("it has no sets")]
    Empty,
    /// Too many.
    #[error("it has more than {} sets", Document::MAX_SETS)]
    TooMany,
    /// Two are versions of the same set: which of them is to be current?
    #[error("the set of `{0}` is in it twice")]
    Twice(String),
    /// All of it together is larger than one set may be.
    #[error("its digest sets have more than {} bytes together", Document::MAX_TEXT)]
    TooLarge,
    /// The values of a set are refused.
    #[error("set `{set}`: {why}")]
    Set {
        /// Which.
        set: String,
        /// Why.
        why: Refused,
    },
}

/// Why values in a document are no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Values of boots.
    #[error(transparent)]
    Boot(#[from] BootSetError),
    /// Digests.
    #[error(transparent)]
    Digests(#[from] DigestSetError),
    /// What does not decompress.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl ExchangeError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "import_malformed",
            Self::Format => "import_format",
            Self::Unsigned => "import_unsigned",
            Self::UnknownSigner(_) => "import_signer_unknown",
            Self::Algorithm(_) => "import_signature_algorithm",
            Self::Signature(_) => "import_signature_invalid",
            Self::Empty => "import_empty",
            Self::TooMany => "import_too_many_sets",
            Self::Twice(_) => "import_set_twice",
            Self::TooLarge => "import_too_large",
            Self::Set { .. } => "import_set_refused",
        }
    }
}

/// Somebody whose documents are imported.
#[derive(Debug, Clone)]
pub struct TrustedSigner {
    name: Name,
    id: String,
    algorithm: SignatureAlgorithm,
    key: Vec<u8>,
}

/// A file holds no key of a signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no public key of P-256 or Ed25519 in PEM")]
pub struct NotASigner;

impl TrustedSigner {
    /// Reads a public key, PEM (RFC 7468, 13).
    pub fn from_pem(name: Name, pem: &str) -> Result<Self, NotASigner> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| NotASigner)?;
        let spki = SubjectPublicKeyInfoOwned::from_der(&der).map_err(|_| NotASigner)?;
        let curve = || spki.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok();
        let algorithm = if spki.algorithm.oid == rfc8410::ID_ED_25519 {
            SignatureAlgorithm::EdDsa
        } else if spki.algorithm.oid == rfc5912::ID_EC_PUBLIC_KEY && curve() == Some(rfc5912::SECP_256_R_1) {
            SignatureAlgorithm::Es256
        } else {
            return Err(NotASigner);
        };
        let key = spki.subject_public_key.as_bytes().ok_or(NotASigner)?.to_vec();
        Ok(Self { name, id: key_id(&der), algorithm, key })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// SHA-256 of its SubjectPublicKeyInfo, in hex.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self.algorithm {
            SignatureAlgorithm::Es256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.key).verify(message, signature)
            }
            SignatureAlgorithm::EdDsa => {
                UnparsedPublicKey::new(&ED25519, &self.key).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

/// How a key is named: SHA-256 of its SubjectPublicKeyInfo in DER, in hex.
#[must_use]
pub fn key_id(subject_public_key_info: &[u8]) -> String {
    HEXLOWER.encode(&sha256(&[subject_public_key_info]))
}

/// The bytes that a signature is over (RFC 8785).
pub fn canonical(document: &Value) -> Result<Vec<u8>, ExchangeError> {
    serde_json_canonicalizer::to_vec(document).map_err(|error| ExchangeError::Malformed(error.to_string()))
}

/// A document that may be imported: by whose signature, or by an operator's word that none is needed.
#[derive(Debug)]
pub struct Importable {
    document: Document,
    digest: [u8; 32],
    signer: Option<Name>,
}

impl Importable {
    /// Verifies a document.
    ///
    /// Established when this returns: a trusted signer signed the canonical bytes, by the algorithm of its key · they are a
    /// document of this format · it has one set at least, [`Document::MAX_SETS`] at most, and none twice.
    pub fn signed(
        document: &Value,
        signature: Option<&DocumentSignature>,
        signers: &[TrustedSigner],
    ) -> Result<Self, ExchangeError> {
        let signature = signature.ok_or(ExchangeError::Unsigned)?;
        let signer = signers.iter().find(|signer| signer.id == signature.key);
        let signer = signer.ok_or_else(|| {
            let shown = signature.key.chars().filter(char::is_ascii_hexdigit).take(64).collect();
            ExchangeError::UnknownSigner(shown)
        })?;
        if signer.algorithm != signature.algorithm {
            return Err(ExchangeError::Algorithm(signer.name.clone()));
        }
        let refused = || ExchangeError::Signature(signer.name.clone());
        let value = BASE64.decode(signature.value.as_bytes()).map_err(|_| refused())?;
        let bytes = canonical(document)?;
        if !signer.verify(&bytes, &value) {
            return Err(refused());
        }
        Self::parse(document, &bytes, Some(signer.name.clone()))
    }

    /// Takes a document of which nobody knows who made it, since an operator says so.
    pub fn unsigned(document: &Value) -> Result<Self, ExchangeError> {
        Self::parse(document, &canonical(document)?, None)
    }

    fn parse(document: &Value, bytes: &[u8], signer: Option<Name>) -> Result<Self, ExchangeError> {
        if document.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(ExchangeError::Format);
        }
        // What is taken is what was signed, to the digit: canonical numbers have 53 bits.
        let document = serde_json::from_slice::<Document>(bytes);
        let document = document.map_err(|error| ExchangeError::Malformed(error.to_string()))?;
        document.check()?;
        Ok(Self { document, digest: sha256(&[bytes]), signer })
    }

    /// SHA-256 of the canonical bytes.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Who signed it; `None`: nobody.
    #[must_use]
    pub fn signer(&self) -> Option<&Name> {
        self.signer.as_ref()
    }

    /// What is in it.
    #[must_use]
    pub fn into_document(self) -> Document {
        self.document
    }
}

impl Document {
    /// Sets of one document.
    pub const MAX_SETS: usize = 256;
    /// Bytes of the texts of all digest sets together: as much as one set may have.
    pub const MAX_TEXT: usize = crate::appraisal::runtime::DigestSet::MAX_BYTES;

    /// Refuses a document that has no sets, too many, or one twice.
    pub fn check(&self) -> Result<(), ExchangeError> {
        if self.sets.is_empty() {
            return Err(ExchangeError::Empty);
        }
        if self.sets.len() > Self::MAX_SETS {
            return Err(ExchangeError::TooMany);
        }
        let mut seen = HashSet::new();
        for set in &self.sets {
            let kind = match set.values {
                ExportedValues::Pcrs(_) => 0,
                ExportedValues::Boot(_) => 1,
                ExportedValues::Digests(_) => 2,
            };
            if !seen.insert((kind, &set.name)) {
                return Err(ExchangeError::Twice(set.id()));
            }
        }
        Ok(())
    }
}

impl ExportedSet {
    /// `name@version`, where it comes from.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use serde_json::json;

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der))
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn document() -> Value {
        let provenance =
            json!({ "author": "uid 0", "reason": "é \u{1f980}", "created_at": Timestamp::from_millis(0) });
        let values = json!({ "pcrs": { "sha256": { "7": ["ab".repeat(32)] } } });
        json!({
            "format": FORMAT, "trust_domain": "example.org", "exported_at": Timestamp::from_millis(7),
            "sets": [{ "name": "default", "version": 3, "provenance": provenance, "values": values }],
        })
    }

    fn sign_p256(document: &Value) -> (TrustedSigner, DocumentSignature) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let signer = TrustedSigner::from_pem(name("release"), &pem(der.as_ref())).unwrap();
        let value = pair.sign(&SystemRandom::new(), &canonical(document).unwrap()).unwrap();
        let value = BASE64.encode(value.as_ref());
        let key = signer.id().to_owned();
        (signer, DocumentSignature { key, algorithm: SignatureAlgorithm::Es256, value })
    }

    fn sign_ed25519(document: &Value) -> (TrustedSigner, DocumentSignature) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let signer = TrustedSigner::from_pem(name("distribution"), &pem(der.as_ref())).unwrap();
        let value = BASE64.encode(pair.sign(&canonical(document).unwrap()).as_ref());
        let key = signer.id().to_owned();
        (signer, DocumentSignature { key, algorithm: SignatureAlgorithm::EdDsa, value })
    }

    #[test]
    fn canonical_bytes_are_those_of_the_standard() {
        // RFC 8785, 3.2.3: members sorted by UTF-16 code units.
        let document: Value = serde_json::from_str(
            r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",
            "\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#,
        )
        .unwrap();
        let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
            \"\u{f6}\":\"Latin Small Letter O With Diaeresis\",\"\u{20ac}\":\"Euro Sign\",\
            \"\u{1f600}\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
        assert_eq!(String::from_utf8(canonical(&document).unwrap()).unwrap(), expected);
    }

    #[test]
    fn document_of_a_trusted_signer_is_taken_however_it_is_written_down() {
        let document = document();
        for (signer, signature) in [sign_p256(&document), sign_ed25519(&document)] {
            let again: Value =
                serde_json::from_str(&serde_json::to_string_pretty(&document).unwrap()).unwrap();
            let taken = Importable::signed(&again, Some(&signature), std::slice::from_ref(&signer)).unwrap();
            assert_eq!(taken.signer(), Some(signer.name()));
            assert_eq!(taken.into_document().sets[0].id(), "default@3");
        }
        assert_eq!(Importable::unsigned(&document).unwrap().signer(), None);
    }

    #[test]
    fn each_way_not_to_be_signed_is_named() {
        let good = document();
        let (signer, signature) = sign_p256(&good);
        let (other, of_other) = sign_ed25519(&good);
        let signers = [signer.clone()];
        let refused = |document: &Value, signature: Option<&DocumentSignature>| {
            Importable::signed(document, signature, &signers).unwrap_err()
        };
        assert_eq!(refused(&good, None), ExchangeError::Unsigned);
        assert_eq!(refused(&good, Some(&of_other)), ExchangeError::UnknownSigner(other.id().into()));
        let algorithm = SignatureAlgorithm::EdDsa;
        let odd = DocumentSignature { algorithm, ..signature.clone() };
        assert_eq!(refused(&good, Some(&odd)), ExchangeError::Algorithm(name("release")));
        let mut changed = good.clone();
        changed["sets"][0]["version"] = json!(4);
        assert_eq!(refused(&changed, Some(&signature)), ExchangeError::Signature(name("release")));
        for value in ["", "no base64", &BASE64.encode(&[7; 64])] {
            let forged = DocumentSignature { value: value.into(), ..signature.clone() };
            assert_eq!(refused(&good, Some(&forged)), ExchangeError::Signature(name("release")), "{value}");
        }
    }

    #[test]
    fn each_way_to_be_no_document_is_named() {
        let of = |change: &dyn Fn(&mut Value)| {
            let mut document = document();
            change(&mut document);
            Importable::unsigned(&document).unwrap_err()
        };
        assert_eq!(
            of(&|document| document["format"] = json!("rootbound-references/2")),
            ExchangeError::Format
        );
        assert_eq!(of(&|document| *document = json!([])), ExchangeError::Format);
        assert!(matches!(of(&|document| document["also"] = json!(1)), ExchangeError::Malformed(_)));
        assert!(matches!(
            of(&|document| document["sets"][0]["also"] = json!(1)),
            ExchangeError::Malformed(_)
        ));
        assert_eq!(of(&|document| document["sets"] = json!([])), ExchangeError::Empty);
        let many = |document: &mut Value| {
            let set = document["sets"][0].clone();
            let sets = (1..=257).map(|version| {
                let mut set = set.clone();
                set["version"] = json!(version);
                set
            });
            document["sets"] = sets.collect();
        };
        assert_eq!(of(&many), ExchangeError::TooMany);
        let twice = |document: &mut Value| {
            let set = document["sets"][0].clone();
            document["sets"] = json!([set, set]);
        };
        assert_eq!(of(&twice), ExchangeError::Twice("default@3".into()));
        let versions = |document: &mut Value| {
            twice(document);
            document["sets"][1]["version"] = json!(4);
        };
        assert_eq!(of(&versions), ExchangeError::Twice("default@4".into()), "which would be current?");
    }

    /// Two documents of one signature are one document.
    #[test]
    fn what_is_taken_is_what_was_signed() {
        let at = |millis: i64| {
            let mut document = document();
            document["exported_at"] = json!(millis);
            document
        };
        let exact = 1_i64 << 53;
        let (signer, signature) = sign_p256(&at(exact));
        for millis in [exact, exact + 1] {
            let taken =
                Importable::signed(&at(millis), Some(&signature), std::slice::from_ref(&signer)).unwrap();
            assert_eq!(taken.into_document().exported_at, Timestamp::from_millis(exact), "{millis}");
        }
    }

    #[test]
    fn key_of_another_kind_is_no_signer() {
        let rsa =
            "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK\n-----END PUBLIC KEY-----\n";
        for bad in ["", "no PEM", rsa] {
            assert_eq!(TrustedSigner::from_pem(name("x"), bad).unwrap_err(), NotASigner);
        }
        let p384 = EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let der: PublicKeyX509Der<'_> = p384.public_key().as_der().unwrap();
        assert_eq!(TrustedSigner::from_pem(name("x"), &pem(der.as_ref())).unwrap_err(), NotASigner);
    }
}
