//! Certificate revocation lists, from local files: no address that a peer names is ever asked.

use std::collections::HashSet;

use der::asn1::ObjectIdentifier;
use der::{Decode, Reader, SliceReader, Tag};
use rootbound_common::clock::Timestamp;
use serde::{Deserialize, Serialize};

use super::asn1::{
    MalformedCertificate, context, context_primitive, end, next_tag, raw, reader, time, value,
};
use super::certificate::{Certificate, Signed};
use super::chain::verify_signature;
use super::error::EndorsementError;
use super::extensions::{KeyUsage, for_each_extension, read_full_name};
use super::name::Name;

use MalformedCertificate::NotDer;

/// What happens where no CRL tells whether a certificate is revoked. A CRL that says it is, always refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationPolicy {
    /// Each certificate of a path, the anchor apart, needs a CRL that is not overdue.
    #[default]
    Require,
    /// CRLs are honoured where there are any; missing or overdue ones do not refuse.
    IfAvailable,
}

/// A complete CRL of one CA, or of a part of its certificates that it names.
#[derive(Debug, Clone)]
pub(super) struct RevocationList {
    signed: Signed,
    issuer: Name,
    this_update: Timestamp,
    next_update: Timestamp,
    /// Contents of the INTEGERs.
    revoked: HashSet<Vec<u8>>,
    scope: Scope,
}

/// IssuingDistributionPoint (RFC 5280, 5.2.5): which of the CA's certificates the list covers.
#[derive(Debug, Clone, Default)]
struct Scope {
    only_leaves: bool,
    only_authorities: bool,
    /// Certificates that name one of these points; all where there are none.
    points: Option<Vec<Vec<u8>>>,
}

/// Why a file's CRL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] MalformedCertificate),
    /// RFC 5280 asks for it, and without it nobody can say whether the list is overdue.
    #[error("the CRL has no nextUpdate")]
    NoNextUpdate,
    /// Delta and indirect CRLs, lists for some reasons or for attribute certificates, relative names.
    #[error("the CRL is of a kind that is not supported (delta, indirect, or for some reasons only)")]
    UnsupportedKind,
    /// A critical extension is not known here.
    #[error("the CRL has extension {0}, which is critical and not supported")]
    UnknownCriticalExtension(ObjectIdentifier),
}

impl RevocationList {
    /// Reads a DER CertificateList (RFC 5280, 5.1); nothing may follow it. It takes memory in proportion to its bytes,
    /// which the loader bounds.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CrlError> {
        const WHAT: &str = "CRL";
        let (signed, mut tbs) = Signed::parse(bytes, WHAT)?;
        if next_tag(&tbs) == Some(Tag::Integer) {
            value(&mut tbs, Tag::Integer, "CRL version")?;
        }
        if value(&mut tbs, Tag::Sequence, WHAT)? != signed.algorithm {
            return Err(MalformedCertificate::TwoSignatureAlgorithms.into());
        }
        let issuer = Name::read(&mut tbs, "CRL issuer")?;
        let this_update = time(&mut tbs, "thisUpdate")?;
        if !matches!(next_tag(&tbs), Some(Tag::UtcTime | Tag::GeneralizedTime)) {
            return Err(CrlError::NoNextUpdate);
        }
        let next_update = time(&mut tbs, "nextUpdate")?;
        let mut revoked = HashSet::new();
        if next_tag(&tbs) == Some(Tag::Sequence) {
            let entries = value(&mut tbs, Tag::Sequence, WHAT)?;
            revoked = read_entries(reader_or_empty(entries)?)?;
        }
        let mut scope = Scope::default();
        if next_tag(&tbs) == Some(context(0)) {
            scope = read_extensions(value(&mut tbs, context(0), WHAT)?)?;
        }
        end(&tbs, WHAT)?;
        Ok(Self { signed, issuer, this_update, next_update, revoked, scope })
    }

    fn covers(&self, certificate: &Certificate) -> bool {
        let authority = certificate.extensions.authority;
        let points = &certificate.extensions.crl_distribution_points;
        self.issuer == certificate.issuer
            && !(self.scope.only_leaves && authority)
            && (!self.scope.only_authorities || authority)
            && self.scope.points.as_ref().is_none_or(|names| names.iter().any(|name| points.contains(name)))
    }
}

/// Checks each certificate of a path, from the leaf to below the anchor, against the lists of its issuer.
///
/// `path` ends with the anchor, whose own revocation no list can tell: the operator takes it out of the folder.
pub(super) fn check(
    path: &[&Certificate],
    lists: &[RevocationList],
    policy: RevocationPolicy,
    now: Timestamp,
) -> Result<(), EndorsementError> {
    for (certificate, issuer) in path.iter().zip(path.iter().skip(1)) {
        check_one(certificate, issuer, lists, policy, now)?;
    }
    Ok(())
}

/// The newest list that covers the certificate, is signed by the issuer and is in force, decides.
fn check_one(
    certificate: &Certificate,
    issuer: &Certificate,
    lists: &[RevocationList],
    policy: RevocationPolicy,
    now: Timestamp,
) -> Result<(), EndorsementError> {
    let of = || certificate.called();
    let by = || issuer.called();
    let mut covering =
        lists.iter().filter(|list| list.covers(certificate) && list.this_update <= now).collect::<Vec<_>>();
    if covering.is_empty() {
        return match policy {
            RevocationPolicy::Require => Err(EndorsementError::RevocationUnknown { of: of(), issuer: by() }),
            RevocationPolicy::IfAvailable => Ok(()),
        };
    }
    covering.sort_by_key(|list| std::cmp::Reverse(list.this_update));
    // A CA of the same name with another key may have lists of its own in the folder.
    let Some(list) = covering.into_iter().find(|list| verify_signature(&list.signed, &issuer.key).is_ok())
    else {
        return Err(EndorsementError::CrlSignature { issuer: by() });
    };
    if issuer.extensions.key_usage.is_some_and(|usage| !usage.allows(KeyUsage::CRL_SIGN)) {
        return Err(EndorsementError::MayNotSignCrl { issuer: by() });
    }
    if list.revoked.contains(&certificate.serial) {
        return Err(EndorsementError::Revoked { of: of() });
    }
    if policy == RevocationPolicy::Require && now > list.next_update {
        return Err(EndorsementError::CrlExpired { issuer: by(), next_update: list.next_update });
    }
    Ok(())
}

/// An empty SEQUENCE has no content to read.
fn reader_or_empty(content: &[u8]) -> Result<Option<SliceReader<'_>>, MalformedCertificate> {
    if content.is_empty() { Ok(None) } else { reader(content, "CRL").map(Some) }
}

fn read_entries(entries: Option<SliceReader<'_>>) -> Result<HashSet<Vec<u8>>, CrlError> {
    const WHAT: &str = "CRL entry";
    let mut revoked = HashSet::new();
    let Some(mut entries) = entries else { return Ok(revoked) };
    while !entries.is_finished() {
        let mut entry = reader(value(&mut entries, Tag::Sequence, WHAT)?, WHAT)?;
        let serial = shortest(value(&mut entry, Tag::Integer, WHAT)?);
        time(&mut entry, "revocationDate")?;
        if !entry.is_finished() {
            // Each extension of an entry may be passed over, but for a critical one: it may be about another issuer.
            let mut critical_one = None;
            for_each_extension(&mut entry, |id, critical, _| {
                if critical {
                    critical_one.get_or_insert(id);
                }
                Ok(())
            })?;
            if let Some(id) = critical_one {
                return Err(CrlError::UnknownCriticalExtension(id));
            }
        }
        revoked.insert(serial.to_vec());
    }
    Ok(revoked)
}

/// An INTEGER without what DER would have left out: a certificate has its number in that form only, and an operator
/// cannot mend a vendor's list.
fn shortest(mut number: &[u8]) -> &[u8] {
    while let [0x00, rest @ ..] = number
        && rest.first().is_some_and(|second| second & 0x80 == 0)
    {
        number = rest;
    }
    number
}

fn read_extensions(content: &[u8]) -> Result<Scope, CrlError> {
    const ISSUING_DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
    const DELTA_INDICATOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");
    let mut scope = Ok(Scope::default());
    let mut refusal = None;
    for_each_extension(&mut reader(content, "CRL extensions")?, |id, critical, content| {
        match id {
            ISSUING_DISTRIBUTION_POINT => scope = read_scope(content),
            DELTA_INDICATOR => {
                refusal.get_or_insert(CrlError::UnsupportedKind);
            }
            other if critical => {
                refusal.get_or_insert(CrlError::UnknownCriticalExtension(other));
            }
            _ => {}
        }
        Ok(())
    })?;
    match refusal {
        Some(error) => Err(error),
        None => scope,
    }
}

fn read_scope(content: &[u8]) -> Result<Scope, CrlError> {
    const WHAT: &str = "issuingDistributionPoint";
    let mut outer = reader(content, WHAT)?;
    let content = value(&mut outer, Tag::Sequence, WHAT)?;
    let mut scope = Scope::default();
    let Some(mut fields) = reader_or_empty(content)? else { return Ok(scope) };
    if next_tag(&fields) == Some(context(0)) {
        let names = read_full_name(value(&mut fields, context(0), WHAT)?, WHAT)?;
        scope.points = Some(names.ok_or(CrlError::UnsupportedKind)?);
    }
    while !fields.is_finished() {
        let field = der::asn1::AnyRef::decode(&mut fields).map_err(|_| NotDer(WHAT))?;
        let set = matches!(field.value(), [byte] if *byte != 0);
        let tag = der::Tagged::tag(&field);
        if tag == context_primitive(1) {
            scope.only_leaves = set;
        } else if tag == context_primitive(2) {
            scope.only_authorities = set;
        } else if tag != context_primitive(4) || set {
            // onlySomeReasons, indirectCRL, onlyContainsAttributeCerts.
            return Err(CrlError::UnsupportedKind);
        }
    }
    Ok(scope)
}

/// Whether bytes can only be a CertificateList: a certificate's first field is `[0]` or a long INTEGER followed by an
/// AlgorithmIdentifier, a name and *two* times in a SEQUENCE; a list has its first time bare, after the name.
pub(super) fn looks_like_a_list(bytes: &[u8]) -> bool {
    let fourth = || -> Result<Option<Tag>, MalformedCertificate> {
        let (_, mut tbs) = Signed::parse(bytes, "CRL")?;
        if next_tag(&tbs) == Some(Tag::Integer) {
            value(&mut tbs, Tag::Integer, "CRL version")?;
        }
        value(&mut tbs, Tag::Sequence, "CRL")?;
        raw(&mut tbs, Tag::Sequence, "CRL issuer")?;
        Ok(next_tag(&tbs))
    };
    matches!(fourth(), Ok(Some(Tag::UtcTime | Tag::GeneralizedTime)))
}
