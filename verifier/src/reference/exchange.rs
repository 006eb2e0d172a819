//! Sets on their way from one verifier to another: a JSON document, and a signature over its canonical bytes (RFC 8785).
//!
//! Numbers, order and white space of the file do not matter; what was signed is what the canonical form says.

use std::collections::HashSet;
use std::time::Duration;

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

use super::corim::{self, CorimError};
use super::{AcceptedPcrs, BootSetError, DenyEntry, Provenance, SetKind, Versioned};
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
    /// What is denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<DenyEntry>,
}

/// A set of a document that may be imported.
#[derive(Debug, Clone)]
pub struct TakenSet {
    /// Its name, and its version where it comes from.
    pub id: Versioned,
    /// Its values.
    pub values: ExportedValues,
}

/// What a document that may be imported has.
#[derive(Debug)]
pub struct Contents {
    /// Whose verifier it comes from, or who made it: as it says.
    pub origin: String,
    /// When it was made, as it says.
    pub made_at: Option<Timestamp>,
    /// Its sets, none twice.
    pub sets: Vec<TakenSet>,
    /// What it denies.
    pub denied: Vec<DenyEntry>,
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

impl SignatureAlgorithm {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Es256, Self::EdDsa];

    /// How COSE calls it (RFC 9053, 2).
    #[must_use]
    pub const fn cose(self) -> i64 {
        match self {
            Self::Es256 => -7,
            Self::EdDsa => -8,
        }
    }
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
    #[error("it has no sets, and denies nothing")]
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
    /// A CoRIM that cannot be sets.
    #[error(transparent)]
    Corim(#[from] CorimError),
    /// It says to be made in a time that has not come, beside which each real one would be old.
    #[error("it says to be made at {0}, which has not come yet by the clock here")]
    Future(Timestamp),
    /// A later one was imported: what was withdrawn since would be accepted again.
    #[error(
        "a document from there that was made at {last} was imported already, with `{set}`, and this one is not later: \
         what was withdrawn since would be accepted again (--older imports it all the same, and the audit trail says so)"
    )]
    Older {
        /// A set that both have.
        set: Name,
        /// When the later one was made.
        last: Timestamp,
    },
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
            Self::Future(_) => "import_from_the_future",
            Self::Older { .. } => "import_older",
            Self::Set { .. } => "import_set_refused",
            Self::Corim(error) => error.code(),
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

/// A key's name as bytes.
pub(super) fn key_bytes(id: &str) -> Vec<u8> {
    HEXLOWER.decode(id.as_bytes()).unwrap_or_default()
}

/// The bytes that a signature is over (RFC 8785).
pub fn canonical(document: &Value) -> Result<Vec<u8>, ExchangeError> {
    serde_json_canonicalizer::to_vec(document).map_err(|error| ExchangeError::Malformed(error.to_string()))
}

/// A document that may be imported: by whose signature, or by an operator's word that none is needed.
#[derive(Debug)]
pub struct Importable {
    contents: Contents,
    digest: [u8; 32],
    signer: Option<Name>,
}

impl Importable {
    /// Verifies a CoRIM.
    ///
    /// Established when this returns: a trusted signer signed it, by the algorithm of its key, which is the one that the protected
    /// header says · it holds by `now` · it is a CoRIM of sets, and of nothing else · it has [`Document::MAX_SETS`] at most,
    /// and none twice.
    ///
    /// `signers`: `None` takes it whoever made it, since an operator says so. `name`: what its only set is to be called here.
    pub fn corim(
        file: &[u8],
        signers: Option<&[TrustedSigner]>,
        name: Option<&Name>,
        now: Timestamp,
    ) -> Result<Self, ExchangeError> {
        let (signer, said) = match (corim::Envelope::parse(file)?, signers) {
            (corim::Envelope::Bare(..), Some(_)) => return Err(ExchangeError::Unsigned),
            (corim::Envelope::Bare(bytes, start), None) => (None, (bytes, start, None)),
            (corim::Envelope::Signed(sign1), signers) => {
                let signer = signers.map(|signers| signer_of(&sign1, signers)).transpose()?;
                for validity in &sign1.validity {
                    validity.check(now)?;
                }
                let (bytes, start) = sign1.payload;
                (signer, (bytes, start, Some((sign1.signer, sign1.issued_at))))
            }
        };
        let (bytes, start, said) = said;
        let manifest = corim::read(bytes, start, name)?;
        for validity in &manifest.validity {
            validity.check(now)?;
        }
        let (origin, made_at) = said.unzip();
        let origin = origin.or(manifest.creator).unwrap_or_else(|| "unknown".to_owned());
        let made_at = made_at.flatten().map(|at| Timestamp::from_millis(at.saturating_mul(1000)));
        let contents = Contents { origin, made_at, sets: manifest.sets, denied: Vec::new() };
        contents.check(now)?;
        Ok(Self { contents, digest: sha256(&[file]), signer })
    }

    /// Verifies a document.
    ///
    /// Established when this returns: a trusted signer signed the canonical bytes, by the algorithm of its key · they are a
    /// document of this format · it has one set at least, [`Document::MAX_SETS`] at most, and none twice.
    pub fn signed(
        document: &Value,
        signature: Option<&DocumentSignature>,
        signers: &[TrustedSigner],
        now: Timestamp,
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
        Self::parse(document, &bytes, Some(signer.name.clone()), now)
    }

    /// Takes a document of which nobody knows who made it, since an operator says so.
    pub fn unsigned(document: &Value, now: Timestamp) -> Result<Self, ExchangeError> {
        Self::parse(document, &canonical(document)?, None, now)
    }

    fn parse(
        document: &Value,
        bytes: &[u8],
        signer: Option<Name>,
        now: Timestamp,
    ) -> Result<Self, ExchangeError> {
        if document.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(ExchangeError::Format);
        }
        // What is taken is what was signed, to the digit: canonical numbers have 53 bits.
        let document = serde_json::from_slice::<Document>(bytes);
        let document = document.map_err(|error| ExchangeError::Malformed(error.to_string()))?;
        let contents = Contents::from(document);
        contents.check(now)?;
        Ok(Self { contents, digest: sha256(&[bytes]), signer })
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
    pub fn into_contents(self) -> Contents {
        self.contents
    }
}

/// Who signed a CoRIM. The identifier of the key is a hint (RFC 9052, 3.1): where it is one of ours, that key counts; else whichever
/// key of the algorithm verifies.
fn signer_of(sign1: &corim::Sign1<'_>, signers: &[TrustedSigner]) -> Result<Name, ExchangeError> {
    let message = sign1.signed_bytes();
    let hinted = sign1.kid.map(|kid| HEXLOWER.encode(kid));
    if let Some(signer) = signers.iter().find(|signer| hinted.as_ref() == Some(&signer.id)) {
        if signer.algorithm != sign1.algorithm {
            return Err(ExchangeError::Algorithm(signer.name.clone()));
        }
        let verified = signer.verify(&message, sign1.signature);
        return if verified {
            Ok(signer.name.clone())
        } else {
            Err(ExchangeError::Signature(signer.name.clone()))
        };
    }
    let mut signers = signers.iter().filter(|signer| signer.algorithm == sign1.algorithm);
    let signer = signers.find(|signer| signer.verify(&message, sign1.signature));
    signer.map(|signer| signer.name.clone()).ok_or_else(|| {
        let shown = hinted.map(|kid| kid.chars().take(64).collect());
        ExchangeError::UnknownSigner(shown.unwrap_or_else(|| "that it is signed with".to_owned()))
    })
}

impl Document {
    /// Sets of one document.
    pub const MAX_SETS: usize = 256;
    /// Bytes of the texts of all digest sets together: as much as one set may have.
    pub const MAX_TEXT: usize = crate::appraisal::runtime::DigestSet::MAX_BYTES;

    /// Refuses a document that would not be imported: without sets, with too many, or one twice.
    pub fn check(&self) -> Result<(), ExchangeError> {
        let sets = self.sets.iter().map(|set| (set.values.kind(), &set.name, set.version));
        check(sets, !self.denied.is_empty())
    }
}

/// The same sets under the same names are none of a document. `or_else`: whether there is something beside sets.
fn check<'s>(
    sets: impl ExactSizeIterator<Item = (SetKind, &'s Name, u32)>,
    or_else: bool,
) -> Result<(), ExchangeError> {
    if sets.len() == 0 && !or_else {
        return Err(ExchangeError::Empty);
    }
    if sets.len() > Document::MAX_SETS {
        return Err(ExchangeError::TooMany);
    }
    let mut seen = HashSet::new();
    for (kind, name, version) in sets {
        if !seen.insert((kind, name)) {
            return Err(ExchangeError::Twice(format!("{name}@{version}")));
        }
    }
    Ok(())
}

impl Contents {
    /// By how much clocks may differ.
    const SKEW: Duration = Duration::from_secs(300);

    fn check(&self, now: Timestamp) -> Result<(), ExchangeError> {
        let sets = self.sets.iter().map(|set| (set.values.kind(), &set.id.name, set.id.version));
        check(sets, !self.denied.is_empty())?;
        match self.made_at.filter(|made_at| *made_at > now.plus(Self::SKEW)) {
            Some(made_at) => Err(ExchangeError::Future(made_at)),
            None => Ok(()),
        }
    }
}

impl From<Document> for Contents {
    fn from(document: Document) -> Self {
        let Document { format: _, trust_domain, exported_at, sets, denied } = document;
        let set = |ExportedSet { name, version, provenance: _, values }| TakenSet {
            id: Versioned { name, version },
            values,
        };
        let sets = sets.into_iter().map(set).collect();
        Self { origin: trust_domain.to_string(), made_at: Some(exported_at), sets, denied }
    }
}

impl ExportedValues {
    /// Of which kind a set with them is.
    #[must_use]
    pub const fn kind(&self) -> SetKind {
        match self {
            Self::Pcrs(_) => SetKind::Pcrs,
            Self::Boot(_) => SetKind::Boot,
            Self::Digests(_) => SetKind::Digests,
        }
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
mod tests;
