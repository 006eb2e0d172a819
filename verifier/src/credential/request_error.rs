//! Why a request for a credential is refused.

use der::asn1::ObjectIdentifier;
use rootbound_common::attestation_attribute::AttestationAttributeError;
use rootbound_common::crypto::{Digest, SignatureError};
use rootbound_common::tpm::{AttestKind, HashAlgorithm, Name, ParseError, PcrIndex, SignatureScheme};

/// Why a request for a credential is refused: the checklist of [`super::request`], one variant per failed check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than any honest request.
    #[error("the certificate request has {length} bytes, over the limit of {limit}")]
    TooLong {
        /// Its bytes.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Not DER of the right shape, or something follows it.
    #[error("not a PKCS#10 certificate request: {0}")]
    Malformed(#[from] der::Error),
    /// Not of version 1, which is written 0.
    #[error("the certificate request is of version {found}, must be 0")]
    Version {
        /// The version.
        found: u8,
    },
    /// It names a subject.
    #[error("the certificate request claims a subject; the verifier decides the identity")]
    SubjectClaimed,
    /// It has an attribute that would be ignored.
    #[error("the certificate request has an attribute {found}, may have only the attestation")]
    OtherAttribute {
        /// Type of the attribute.
        found: ObjectIdentifier,
    },
    /// Not exactly one attestation attribute with one value.
    #[error("the certificate request has {found} attestation bundles, must have one")]
    AttestationCount {
        /// How many there are.
        found: usize,
    },
    /// The attestation attribute holds no statement that the verifier understands.
    #[error("attestation attribute: {0}")]
    Attestation(#[from] AttestationAttributeError),
    /// The statement comes without the public area that it is about.
    #[error("the attestation statement holds no public area of the key")]
    NoPublicArea,
    /// Not a P-256 key.
    #[error("the requested key is not an ECC key on P-256")]
    KeyType,
    /// Not signed by ECDSA with SHA-256.
    #[error("the certificate request is signed by algorithm {found}, must be ecdsa-with-SHA256")]
    SignatureAlgorithm {
        /// The algorithm.
        found: ObjectIdentifier,
    },
    /// The requester does not hold the key.
    #[error("the certificate request's own signature does not verify")]
    Signature,
    /// The statement's public area is no public area of a key.
    #[error("public area of the key: {0}")]
    PublicArea(ParseError),
    /// The statement is about another key than the one requested.
    #[error("the public area holds another key than the certificate request")]
    OtherKey,
    /// The key's Name is a SHA-1 hash.
    #[error("the key's nameAlg is SHA-1")]
    NameAlgorithm,
    /// The key is tied to a scheme that TLS clients here do not use.
    #[error("the key signs by {found} only, must sign by ecdsa-sha256")]
    Scheme {
        /// The scheme.
        found: SignatureScheme,
    },
    /// The key lacks an attribute.
    #[error("the key lacks the attribute {attribute}")]
    AttributeMissing {
        /// The attribute, as TPM 2.0 Part 2 calls it.
        attribute: &'static str,
    },
    /// The key has an attribute that it must not have.
    #[error("the key has the attribute {attribute}, must not")]
    AttributeForbidden {
        /// The attribute, as TPM 2.0 Part 2 calls it.
        attribute: &'static str,
    },
    /// The statement's signature is no TPMT_SIGNATURE.
    #[error("signature of the certify statement: {0}")]
    StatementSignatureMalformed(ParseError),
    /// The node's AK did not sign the statement.
    #[error("the node's AK did not sign the certify statement: {0}")]
    StatementSignature(SignatureError),
    /// No TPM vouches that it made the statement.
    #[error("the certify statement begins with {found:#010x}, not with TPM_GENERATED_VALUE")]
    StatementMagic {
        /// The four bytes as read.
        found: u32,
    },
    /// The statement is no TPMS_ATTEST.
    #[error("certify statement: {0}")]
    StatementMalformed(ParseError),
    /// The statement is of another command.
    #[error("the statement is of type {found:?}, must be Certify")]
    StatementKind {
        /// The kind of statement.
        found: AttestKind,
    },
    /// The statement answers another challenge, or another purpose.
    #[error("the certify statement does not answer this challenge")]
    ExtraData,
    /// The statement is about another object.
    #[error("the TPM certified {certified}, the public area's name is {computed}")]
    Name {
        /// The Name in the statement.
        certified: Box<Name>,
        /// The Name of the public area.
        computed: Box<Name>,
    },
    /// Another key signed than the one that signed the quote.
    #[error("the statement names {found} as its signer, the quote names {expected}")]
    QualifiedSigner {
        /// In the statement.
        found: Box<Name>,
        /// In the quote.
        expected: Box<Name>,
    },
    /// The demanded policy ties a key to nothing, or to a PCR that always moves. The verifier's own fault.
    #[error("the demanded policy is over no PCR, or over PCR 10")]
    PolicyUnusable,
    /// The quote does not cover a PCR of the policy.
    #[error("{bank} PCR {pcr} is in the demanded policy, but not in the quote")]
    PolicyPcrNotQuoted {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
    },
    /// The key is tied to another state than the quoted one, or to none.
    #[error("the key's authPolicy is not TPM2_PolicyPCR over the quoted values, {expected}")]
    Policy {
        /// The policy digest of the quoted values.
        expected: Digest,
    },
}

impl RequestError {
    /// A stable word for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "request_too_long",
            Self::Malformed(_) => "request_malformed",
            Self::Version { .. } => "request_version",
            Self::SubjectClaimed => "request_subject_claimed",
            Self::OtherAttribute { .. } => "request_other_attribute",
            Self::AttestationCount { .. } => "request_attestation_count",
            Self::Attestation(AttestationAttributeError::Malformed(_)) => "attestation_malformed",
            Self::Attestation(AttestationAttributeError::StatementCount { .. }) => {
                "attestation_statement_count"
            }
            Self::Attestation(AttestationAttributeError::StatementType { .. }) => {
                "attestation_statement_type"
            }
            Self::Attestation(AttestationAttributeError::TooLong { .. }) => "attestation_too_long",
            Self::NoPublicArea => "attestation_without_public_area",
            Self::KeyType => "request_key_type",
            Self::SignatureAlgorithm { .. } => "request_signature_algorithm",
            Self::Signature => "request_signature",
            Self::PublicArea(_) => "key_public_area",
            Self::OtherKey => "key_differs",
            Self::NameAlgorithm => "key_name_algorithm",
            Self::Scheme { .. } => "key_scheme",
            Self::AttributeMissing { .. } => "key_attribute_missing",
            Self::AttributeForbidden { .. } => "key_attribute_forbidden",
            Self::StatementSignatureMalformed(_) => "certify_signature_malformed",
            Self::StatementSignature(_) => "certify_signature",
            Self::StatementMagic { .. } => "certify_magic",
            Self::StatementMalformed(_) => "certify_malformed",
            Self::StatementKind { .. } => "certify_kind",
            Self::ExtraData => "certify_extra_data",
            Self::Name { .. } => "certify_name",
            Self::QualifiedSigner { .. } => "certify_qualified_signer",
            Self::PolicyUnusable => "key_policy_unusable",
            Self::PolicyPcrNotQuoted { .. } => "key_policy_pcr_not_quoted",
            Self::Policy { .. } => "key_policy",
        }
    }
}
