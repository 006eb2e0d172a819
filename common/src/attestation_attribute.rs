//! The attestation attribute of a certification request: a TPM's statement about the key that the request is for.
//!
//! draft-ietf-lamps-csr-attestation-29, section 4, defines the attribute and its bundle; the statement type
//! `tcg-attest-tpm-certify` is that of the same draft's appendix up to -20. Its three fields are the structures without
//! a TPM2B length before them.
//!
//! ```text
//! AttestationBundle    ::= SEQUENCE { attestations SEQUENCE SIZE (1..MAX) OF AttestationStatement,
//!                                     certs SEQUENCE SIZE (1..MAX) OF LimitedCertChoices OPTIONAL }
//! AttestationStatement ::= SEQUENCE { type OBJECT IDENTIFIER, stmt ANY DEFINED BY type }
//! Tcg-csr-tpm-certify  ::= SEQUENCE { tpmSAttest OCTET STRING, signature OCTET STRING,
//!                                     tpmTPublic OCTET STRING OPTIONAL }
//! ```

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Reader, Sequence, SliceReader, Tag};

use crate::binding::{Purpose, extra_data};
use crate::crypto::Digest;
use crate::nonce::Nonce;
use crate::tpm::{Attest, Public, Signature};

/// `id-aa-attestation`, the type of the attribute.
pub const ID_AA_ATTESTATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.59");

/// `tcg-attest-tpm-certify`, the type of the statement.
pub const TCG_ATTEST_TPM_CERTIFY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.20.1");

/// Why an attestation attribute holds no statement that this system understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationAttributeError {
    /// Not DER of the right shape, or something follows it.
    #[error("not an AttestationBundle: {0}")]
    Malformed(#[from] der::Error),
    /// Not exactly one statement.
    #[error("the bundle holds {found} statements, must hold one")]
    StatementCount {
        /// How many there are.
        found: usize,
    },
    /// A statement of another type.
    #[error("the statement is of type {found}, must be {TCG_ATTEST_TPM_CERTIFY}")]
    StatementType {
        /// The type.
        found: ObjectIdentifier,
    },
    /// A field is longer than the TPM structure that it should be.
    #[error("{what} has {length} bytes, over the limit of {limit}")]
    TooLong {
        /// The field.
        what: &'static str,
        /// Its bytes.
        length: usize,
        /// The limit.
        limit: usize,
    },
}

/// What TPM2_Certify says of a key. Parsed is not verified, and the structures inside are not even parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertifyStatement<'a> {
    /// TPMS_ATTEST.
    pub attest: &'a [u8],
    /// TPMT_SIGNATURE over it by the AK.
    pub signature: &'a [u8],
    /// TPMT_PUBLIC of the certified key.
    pub public_area: Option<&'a [u8]>,
}

#[derive(Sequence)]
struct Statement<'a> {
    attest: &'a OctetStringRef,
    signature: &'a OctetStringRef,
    #[asn1(optional = "true")]
    public_area: Option<&'a OctetStringRef>,
}

#[derive(Sequence)]
struct AttestationStatement<'a> {
    kind: ObjectIdentifier,
    statement: AnyRef<'a>,
}

#[derive(Sequence)]
struct AttestationBundle<'a> {
    attestations: Vec<AttestationStatement<'a>>,
}

impl<'a> CertifyStatement<'a> {
    /// The extraData that the statement must have to answer a challenge.
    ///
    /// No part of the request enters it: the statement itself names the key, with its attributes and its policy, by
    /// the Name, and the quote's extraData covers the request that carries the statement.
    #[must_use]
    pub fn extra_data(nonce: &Nonce) -> Digest {
        extra_data(Purpose::Certify, nonce, &[])
    }

    /// The DER AttestationBundle with this one statement and no certificates: the verifier knows the AK.
    pub fn to_bundle(&self) -> Result<Vec<u8>, der::Error> {
        let statement = Statement {
            attest: OctetStringRef::new(self.attest)?,
            signature: OctetStringRef::new(self.signature)?,
            public_area: self.public_area.map(OctetStringRef::new).transpose()?,
        }
        .to_der()?;
        let statement = AnyRef::from_der(&statement)?;
        AttestationBundle {
            attestations: vec![AttestationStatement { kind: TCG_ATTEST_TPM_CERTIFY, statement }],
        }
        .to_der()
    }

    /// Parses a DER AttestationBundle; nothing may follow it.
    ///
    /// Certificates are passed over: which AK counts is decided by enrolment, not by what a request brings along.
    pub fn parse_bundle(bytes: &'a [u8]) -> Result<Self, AttestationAttributeError> {
        let mut reader = SliceReader::new(bytes)?;
        let statements = reader.sequence(|bundle| {
            let attestations = AnyRef::decode(bundle)?;
            if !bundle.is_finished() {
                let certificates = AnyRef::decode(bundle)?;
                certificates.header().tag().assert_eq(Tag::Sequence)?;
            }
            Ok::<_, der::Error>(attestations)
        })?;
        reader.finish()?;

        let (found, first) = statements.sequence(|attestations| {
            let (mut found, mut first) = (0_usize, None);
            while !attestations.is_finished() {
                let statement = AttestationStatement::decode(attestations)?;
                first.get_or_insert(statement);
                found += 1;
            }
            Ok::<_, der::Error>((found, first))
        })?;
        let (1, Some(first)) = (found, first) else {
            return Err(AttestationAttributeError::StatementCount { found });
        };
        if first.kind != TCG_ATTEST_TPM_CERTIFY {
            return Err(AttestationAttributeError::StatementType { found: first.kind });
        }
        let statement = first.statement.decode_as::<Statement<'a>>()?;
        Ok(Self {
            attest: bounded("tpmSAttest", statement.attest, Attest::MAX)?,
            signature: bounded("signature", statement.signature, Signature::MAX)?,
            public_area: statement
                .public_area
                .map(|area| bounded("tpmTPublic", area, Public::MAX))
                .transpose()?,
        })
    }
}

fn bounded<'a>(
    what: &'static str,
    field: &'a OctetStringRef,
    limit: usize,
) -> Result<&'a [u8], AttestationAttributeError> {
    let bytes = field.as_bytes();
    if bytes.len() > limit {
        return Err(AttestationAttributeError::TooLong { what, length: bytes.len(), limit });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT: CertifyStatement<'static> =
        CertifyStatement { attest: b"attest", signature: b"signature", public_area: Some(b"public") };

    /// Written out by hand from the ASN.1 above.
    fn bundle_of(statements: &[&[u8]], rest: &[u8]) -> Vec<u8> {
        let statements = statements.concat();
        let mut bundle = vec![0x30, u8::try_from(statements.len()).unwrap()];
        bundle.extend(statements);
        bundle.extend(rest);
        let mut out = vec![0x30, u8::try_from(bundle.len()).unwrap()];
        out.extend(bundle);
        out
    }

    const BY_HAND: &[u8] =
        b"\x30\x24\x06\x05\x67\x81\x05\x14\x01\x30\x1b\x04\x06attest\x04\x09signature\x04\x06public";

    #[test]
    fn bundle_is_as_the_draft_writes_it() {
        let by_hand = bundle_of(&[BY_HAND], &[]);
        assert_eq!(STATEMENT.to_bundle().unwrap(), by_hand);
        assert_eq!(CertifyStatement::parse_bundle(&by_hand), Ok(STATEMENT));
    }

    #[test]
    fn public_area_is_optional_and_certificates_are_passed_over() {
        let without = CertifyStatement { public_area: None, ..STATEMENT };
        let bundle = without.to_bundle().unwrap();
        assert_eq!(CertifyStatement::parse_bundle(&bundle), Ok(without));
        let with_certificates = bundle_of(&[BY_HAND], b"\x30\x02\x30\x00");
        assert_eq!(CertifyStatement::parse_bundle(&with_certificates), Ok(STATEMENT));
    }

    #[test]
    fn one_statement_of_the_known_type_is_required() {
        for (statements, found) in [(vec![], 0), (vec![BY_HAND, BY_HAND], 2)] {
            assert_eq!(
                CertifyStatement::parse_bundle(&bundle_of(&statements, &[])),
                Err(AttestationAttributeError::StatementCount { found })
            );
        }
        let mut other = BY_HAND.to_vec();
        other[8] = 0x02;
        assert_eq!(
            CertifyStatement::parse_bundle(&bundle_of(&[&other], &[])),
            Err(AttestationAttributeError::StatementType { found: "2.23.133.20.2".parse().unwrap() })
        );
    }

    #[test]
    fn what_is_malformed_or_followed_by_more_is_refused() {
        let good = bundle_of(&[BY_HAND], &[]);
        let mut cases = vec![
            [good.as_slice(), &[0]].concat(),
            bundle_of(&[BY_HAND], b"\x30\x00\x30\x00"),
            bundle_of(&[BY_HAND], b"\x04\x00"),
        ];
        cases.extend((0..good.len()).map(|length| good[..length].to_vec()));
        for case in cases {
            let parsed = CertifyStatement::parse_bundle(&case);
            assert!(
                matches!(parsed, Err(AttestationAttributeError::Malformed(_))),
                "{case:02x?}: {parsed:?}"
            );
        }
    }

    #[test]
    fn fields_longer_than_their_structures_are_refused() {
        let long = vec![0; 4096];
        for (statement, what, limit) in [
            (CertifyStatement { attest: &long, ..STATEMENT }, "tpmSAttest", Attest::MAX),
            (CertifyStatement { signature: &long, ..STATEMENT }, "signature", Signature::MAX),
            (CertifyStatement { public_area: Some(&long), ..STATEMENT }, "tpmTPublic", Public::MAX),
        ] {
            let bundle = statement.to_bundle().unwrap();
            assert_eq!(
                CertifyStatement::parse_bundle(&bundle),
                Err(AttestationAttributeError::TooLong { what, length: 4096, limit })
            );
        }
    }
}
