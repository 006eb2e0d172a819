//! A request for a credential: a PKCS#10 with the TPM's own statement about the key in it.
//!
//! [`ParsedRequest::parse`] reads the bytes, [`ParsedRequest::verify`] checks them. What comes out is a [`BoundKey`], and
//! nothing else makes one. Established for it, in this order:
//!
//! 1. the request is not longer than any honest one
//! 2. it is a PKCS#10 of version 1 (RFC 2986, 4) with nothing after it, and claims no identity: the verifier decides that
//! 3. its one attribute is the attestation attribute, with one `tcg-attest-tpm-certify` statement and a public area
//! 4. it asks for a P-256 key, and that key signed it (ECDSA with SHA-256, over the bytes as they came)
//! 5. the public area parses, and its key is the one that the request asks for
//! 6. its nameAlg is not SHA-1, and it signs by ECDSA with SHA-256 or leaves the scheme open
//! 7. its attributes: made by this TPM, never leaves it, signs anything, does nothing else, and is used by policy only
//! 8. the node's AK signed the statement
//! 9. the statement begins with TPM_GENERATED_VALUE, parses with nothing after it, and is of TPM2_Certify
//! 10. its extraData answers this challenge, for this purpose
//! 11. the Name in it is that of the public area, so that 5 to 7 and 13 are the TPM's word
//! 12. its qualified signer is the key that signed the quote of the same answer
//! 13. the key's authPolicy is one TPM2_PolicyPCR over the PCRs that the challenge demanded, with the quoted values

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use rootbound_common::attestation_attribute::{CertifyStatement, ID_AA_ATTESTATION};
use rootbound_common::crypto::{Digest, VerifyingKey, subject_public_key_info};
use rootbound_common::nonce::Nonce;
use rootbound_common::tpm::{
    Attest, Attested, Attributes, HashAlgorithm, Name, ParseError, PcrIndex, PcrValues, Public, Signature,
    SignatureScheme, policy_pcr,
};
use rootbound_common::wire::v1::{CertificateRequestBlob, CredentialPolicy};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

pub use super::request_error::RequestError;

/// As long as the wire allows ([`CertificateRequestBlob`]).
const MAX: usize = 8192;
const _: fn(CertificateRequestBlob) -> rootbound_common::blob::Blob<MAX> = |blob| blob;

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// The PCR that IMA extends while the machine works: a key tied to it would stop signing within seconds.
const IMA_PCR: u8 = 10;

/// Attributes that a credential key must have, with the specification's words.
const REQUIRED: [(Attributes, &str); 4] = [
    (Attributes::FIXED_TPM, "fixedTPM"),
    (Attributes::FIXED_PARENT, "fixedParent"),
    (Attributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
    (Attributes::SIGN, "sign"),
];

/// Attributes that it must not have: `userWithAuth` would let it sign without its policy; `restricted` and `x509sign`
/// would keep it from signing for TLS; a key that also decrypts serves two purposes; with `adminWithPolicy` it could not
/// have been certified under a policy that names no command.
const FORBIDDEN: [(Attributes, &str); 5] = [
    (Attributes::RESTRICTED, "restricted"),
    (Attributes::DECRYPT, "decrypt"),
    (Attributes::USER_WITH_AUTH, "userWithAuth"),
    (Attributes::ADMIN_WITH_POLICY, "adminWithPolicy"),
    (Attributes::X509_SIGN, "x509sign"),
];

/// What a request has to answer: the challenge, and the authenticated quote that came with it.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The AK that the node enrolled with.
    pub attestation_key: &'a VerifyingKey,
    /// The qualified signer of the authenticated quote.
    pub qualified_signer: &'a Name,
    /// The nonce of the challenge.
    pub nonce: &'a Nonce,
    /// The policy that the challenge demanded.
    pub policy: CredentialPolicy,
    /// The authenticated PCR values: those under the quote's signature.
    pub pcrs: &'a PcrValues,
}

/// A key that lives in the node's TPM and signs only in the boot state that the quote shows.
///
/// Not `Clone`: one check is good for one certificate.
#[derive(Debug, PartialEq, Eq)]
pub struct BoundKey {
    subject_public_key_info: Vec<u8>,
    name: Name,
    policy: CredentialPolicy,
    policy_digest: Digest,
}

impl BoundKey {
    /// DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn subject_public_key_info(&self) -> &[u8] {
        &self.subject_public_key_info
    }

    /// The Name of the key in its TPM.
    #[must_use]
    pub fn name(&self) -> Name {
        self.name
    }

    /// The PCRs that the key is tied to.
    #[must_use]
    pub fn policy(&self) -> CredentialPolicy {
        self.policy
    }

    /// The key's authPolicy.
    #[must_use]
    pub fn policy_digest(&self) -> Digest {
        self.policy_digest
    }
}

/// A request that has the right shape. Nothing in it is believed yet.
#[derive(Debug)]
pub struct ParsedRequest<'a> {
    /// CertificationRequestInfo as it came: what the signature is over.
    info: &'a [u8],
    subject_public_key_info: &'a [u8],
    signature_algorithm: AlgorithmIdentifierRef<'a>,
    signature: &'a [u8],
    statement: CertifyStatement<'a>,
    public_area: &'a [u8],
}

impl<'a> ParsedRequest<'a> {
    /// Points 1 to 3 of the list above.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RequestError> {
        if bytes.len() > MAX {
            return Err(RequestError::TooLong { length: bytes.len(), limit: MAX });
        }
        let mut reader = SliceReader::new(bytes)?;
        let (info, signature_algorithm, signature) = reader.sequence(|request| {
            let info = request.tlv_bytes()?;
            let algorithm = AlgorithmIdentifierRef::decode(request)?;
            let signature = BitStringRef::decode(request)?;
            let signature = signature.as_bytes().ok_or(der::ErrorKind::Value { tag: Tag::BitString })?;
            Ok::<_, der::Error>((info, algorithm, signature))
        })?;
        reader.finish()?;
        let (subject_public_key_info, attestation) = parse_info(info)?;
        let statement = CertifyStatement::parse_bundle(attestation)?;
        let public_area = statement.public_area.ok_or(RequestError::NoPublicArea)?;
        Ok(Self { info, subject_public_key_info, signature_algorithm, signature, statement, public_area })
    }

    /// Points 4 to 13 of the list above.
    pub fn verify(self, demand: &Demand<'_>) -> Result<BoundKey, RequestError> {
        self.verify_own_signature()?;
        let public = Public::parse(self.public_area).map_err(RequestError::PublicArea)?;
        if subject_public_key_info(&public)? != self.subject_public_key_info {
            return Err(RequestError::OtherKey);
        }
        check_key(&public)?;
        self.verify_statement(&public, demand)?;
        let policy_digest = check_policy(&public, demand)?;
        Ok(BoundKey {
            subject_public_key_info: self.subject_public_key_info.to_vec(),
            name: public.name(),
            policy: demand.policy,
            policy_digest,
        })
    }

    fn verify_own_signature(&self) -> Result<(), RequestError> {
        let key = SubjectPublicKeyInfoRef::from_der(self.subject_public_key_info)?;
        let curve = key.algorithm.parameters_oid().ok();
        if key.algorithm.oid != EC_PUBLIC_KEY || curve != Some(PRIME256V1) {
            return Err(RequestError::KeyType);
        }
        let algorithm = self.signature_algorithm;
        if algorithm.oid != ECDSA_WITH_SHA256 || algorithm.parameters.is_some() {
            return Err(RequestError::SignatureAlgorithm { found: algorithm.oid });
        }
        let point = key.subject_public_key.as_bytes().ok_or(RequestError::KeyType)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(self.info, self.signature)
            .map_err(|_| RequestError::Signature)
    }

    fn verify_statement(&self, public: &Public, demand: &Demand<'_>) -> Result<(), RequestError> {
        let signature =
            Signature::parse(self.statement.signature).map_err(RequestError::StatementSignatureMalformed)?;
        demand
            .attestation_key
            .verify(self.statement.attest, &signature)
            .map_err(RequestError::StatementSignature)?;
        let attest = Attest::parse(self.statement.attest).map_err(|error| match error {
            ParseError::Magic { found } => RequestError::StatementMagic { found },
            error => RequestError::StatementMalformed(error),
        })?;
        let Attested::Certify { name, .. } = attest.attested else {
            return Err(RequestError::StatementKind { found: attest.attested.kind() });
        };
        if attest.extra_data != CertifyStatement::extra_data(demand.nonce).as_bytes() {
            return Err(RequestError::ExtraData);
        }
        let computed = public.name();
        if name != computed {
            return Err(RequestError::Name { certified: Box::new(name), computed: Box::new(computed) });
        }
        if attest.qualified_signer != *demand.qualified_signer {
            return Err(RequestError::QualifiedSigner {
                found: Box::new(attest.qualified_signer),
                expected: Box::new(*demand.qualified_signer),
            });
        }
        Ok(())
    }
}

/// The SubjectPublicKeyInfo and the AttestationBundle of a CertificationRequestInfo (RFC 2986, 4.1).
fn parse_info(info: &[u8]) -> Result<(&[u8], &[u8]), RequestError> {
    const VERSION_1: u8 = 0;
    let (version, subject, key, attributes) = {
        let mut reader = SliceReader::new(info)?;
        let fields = reader.sequence(|info| {
            let version = u8::decode(info)?;
            let subject = AnyRef::decode(info)?;
            subject.tag().assert_eq(Tag::Sequence)?;
            let key = info.tlv_bytes()?;
            let attributes = AnyRef::decode(info)?;
            let implicit = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
            attributes.tag().assert_eq(implicit)?;
            Ok::<_, der::Error>((version, subject, key, attributes))
        })?;
        reader.finish()?;
        fields
    };
    if version != VERSION_1 {
        return Err(RequestError::Version { found: version });
    }
    if !subject.value().is_empty() {
        return Err(RequestError::SubjectClaimed);
    }
    Ok((key, attestation(attributes.value())?))
}

/// The one value of the one attribute.
fn attestation(attributes: &[u8]) -> Result<&[u8], RequestError> {
    let mut reader = SliceReader::new(attributes)?;
    let (mut found, mut value) = (0_usize, None);
    while !reader.is_finished() {
        let (kind, values) = reader.sequence(|attribute| {
            let kind = ObjectIdentifier::decode(attribute)?;
            let values = AnyRef::decode(attribute)?;
            values.tag().assert_eq(Tag::Set)?;
            Ok::<_, der::Error>((kind, values.value()))
        })?;
        // Whoever asks for an extension must not believe that it was heard.
        if kind != ID_AA_ATTESTATION {
            return Err(RequestError::OtherAttribute { found: kind });
        }
        let mut values = SliceReader::new(values)?;
        while !values.is_finished() {
            value = Some(values.tlv_bytes()?);
            found += 1;
        }
    }
    match (found, value) {
        (1, Some(value)) => Ok(value),
        _ => Err(RequestError::AttestationCount { found }),
    }
}

/// Points 6 and 7.
fn check_key(public: &Public) -> Result<(), RequestError> {
    if public.name_algorithm() == HashAlgorithm::Sha1 {
        return Err(RequestError::NameAlgorithm);
    }
    match public.parameters().scheme() {
        None | Some(SignatureScheme::Ecdsa(HashAlgorithm::Sha256)) => {}
        Some(found) => return Err(RequestError::Scheme { found }),
    }
    for (attribute, name) in REQUIRED {
        if !public.attributes().has(attribute) {
            return Err(RequestError::AttributeMissing { attribute: name });
        }
    }
    for (attribute, name) in FORBIDDEN {
        if public.attributes().has(attribute) {
            return Err(RequestError::AttributeForbidden { attribute: name });
        }
    }
    Ok(())
}

/// Point 13. A policy over no PCR, or over one that always moves, would tie the key to nothing or to too much.
fn check_policy(public: &Public, demand: &Demand<'_>) -> Result<Digest, RequestError> {
    let CredentialPolicy { bank, pcrs } = demand.policy;
    if pcrs.is_empty() || pcrs.iter().any(|pcr| pcr.get() == IMA_PCR) {
        return Err(RequestError::PolicyUnusable);
    }
    let mut values = PcrValues::default();
    for pcr in pcrs.iter() {
        values.insert(pcr, *quoted(demand.pcrs, bank, pcr)?);
    }
    let algorithm = public.name_algorithm();
    let selection = demand.policy.selection();
    let values = values.digest(&selection, algorithm).map_err(|_| RequestError::PolicyUnusable)?;
    let expected = policy_pcr(algorithm, &selection, &values);
    if public.auth_policy() != expected.as_bytes() {
        return Err(RequestError::Policy { expected });
    }
    Ok(expected)
}

fn quoted(values: &PcrValues, bank: HashAlgorithm, pcr: PcrIndex) -> Result<&Digest, RequestError> {
    values.get(bank, pcr).ok_or(RequestError::PolicyPcrNotQuoted { bank, pcr })
}
