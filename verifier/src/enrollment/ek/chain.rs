//! From the EK certificate to a trust anchor. Why not by a library: `docs/decisions/0002-ek-certificate-chains.md`.

use der::asn1::ObjectIdentifier;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use rootbound_common::tpm::Public;
use rootbound_common::wire::v1::EnrollRequest;

use super::certificate::{Certificate, Signed, SubjectKey};
use super::crl::{self, RevocationPolicy};
use super::error::EndorsementError;
use super::extensions::KeyUsage;
use super::leaf::{self, EK_CERTIFICATE, EkCertificate};
use super::name::Name;
use super::roots::EndorsementRoots;

/// CAs between the leaf and the anchor; the longest known vendor chain has four.
const MAX_AUTHORITIES: usize = 6;
/// Signature checks in one search. A chain of four with a rolled-over key on each step needs eight; an RSA-4096 check
/// takes about 50 µs, so that the worst request costs 2 ms.
const MAX_SIGNATURES: usize = 32;
/// `CertificateBlob` has the same limit; kept here so that this check does not rest on the wire's.
const MAX_CERTIFICATE: usize = 8192;

/// Finds the certificate for the EK and a path from it to an anchor; gives both, the anchor by its SHA-256.
pub(super) fn verify(
    public: &Public,
    presented: &[&[u8]],
    roots: &EndorsementRoots,
    revocation: RevocationPolicy,
    now: Timestamp,
) -> Result<(EkCertificate, [u8; 32]), EndorsementError> {
    let certificates = read(presented)?;
    let (leaves, others): (Vec<_>, Vec<_>) =
        certificates.iter().partition(|certificate| certificate.is_for(public));
    // A TPM may hold an old and a new certificate for one key: any good one will do.
    let mut refusal = EndorsementError::NoneForThisKey { count: certificates.len() };
    for leaf in leaves {
        let search = Search { others: &others, roots, revocation, now };
        let endorsed = leaf::check(leaf, public)
            .and_then(|()| search.anchor_of(leaf))
            .and_then(|anchor| Ok((describe(leaf, &certificates)?, sha256(&[&anchor.der]))));
        match endorsed {
            Ok(endorsed) => return Ok(endorsed),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

fn read(presented: &[&[u8]]) -> Result<Vec<Certificate>, EndorsementError> {
    let limit = EnrollRequest::MAX_CERTIFICATES;
    if presented.is_empty() {
        return Err(EndorsementError::NoCertificate);
    }
    if presented.len() > limit {
        return Err(EndorsementError::TooManyCertificates { count: presented.len(), limit });
    }
    let mut certificates = Vec::with_capacity(presented.len());
    for (position, bytes) in presented.iter().enumerate() {
        if bytes.len() > MAX_CERTIFICATE {
            return Err(EndorsementError::TooLarge { position, length: bytes.len(), limit: MAX_CERTIFICATE });
        }
        let certificate = Certificate::parse_padded(bytes)
            .map_err(|error| EndorsementError::Malformed { position, error })?;
        certificates.push(certificate);
    }
    Ok(certificates)
}

fn describe(leaf: &Certificate, all: &[Certificate]) -> Result<EkCertificate, EndorsementError> {
    EkCertificate::describe(leaf).map_err(|error| {
        let position = all.iter().position(|certificate| certificate == leaf).unwrap_or(0);
        EndorsementError::Malformed { position, error }
    })
}

/// Why no path leads from a CA of the folder to an anchor, if so.
pub(super) fn dead_end(
    authority: &Certificate,
    roots: &EndorsementRoots,
    now: Timestamp,
) -> Option<EndorsementError> {
    let search = Search { others: &[], roots, revocation: RevocationPolicy::IfAvailable, now };
    search.anchor_of(authority).err()
}

/// One search for a path.
struct Search<'a> {
    /// What the machine sent besides the leaf: intermediates at best, never anchors.
    others: &'a [&'a Certificate],
    roots: &'a EndorsementRoots,
    revocation: RevocationPolicy,
    now: Timestamp,
}

/// Certificates from the leaf upwards, each checked against the next.
type Path<'a> = Vec<&'a Certificate>;

impl<'a> Search<'a> {
    /// Walks upwards, depth first, from the leaf to the first anchor that a good path leads to. Where there is none,
    /// the refusal is that of the step that came furthest.
    fn anchor_of(&self, leaf: &'a Certificate) -> Result<&'a Certificate, EndorsementError> {
        check_validity(leaf, self.now)?;
        let mut signatures = MAX_SIGNATURES;
        let mut refusal = Refusal::default();
        let mut open: Vec<Path<'a>> = vec![vec![leaf]];
        while let Some(path) = open.pop() {
            let Some(head) = path.last().copied() else { continue };
            let mut known = false;
            for (issuer, anchored) in self.issuers_named(&head.issuer) {
                if path.contains(&issuer) {
                    continue;
                }
                known = true;
                let step = self.check_issuer(issuer, &path).and_then(|()| {
                    signatures = signatures
                        .checked_sub(1)
                        .ok_or(EndorsementError::TooComplex { limit: MAX_SIGNATURES })?;
                    check_signature(head, issuer)
                });
                let mut longer = path.clone();
                longer.push(issuer);
                match step {
                    Err(error @ EndorsementError::TooComplex { .. }) => return Err(error),
                    Err(error) => refusal.note(2 * path.len() + 1, error),
                    Ok(()) if anchored => {
                        match crl::check(&longer, &self.roots.crls, self.revocation, self.now) {
                            Ok(()) => return Ok(issuer),
                            Err(error) => refusal.note(usize::MAX, error),
                        }
                    }
                    Ok(()) if longer.len() > MAX_AUTHORITIES + 1 => {
                        refusal.note(usize::MAX, EndorsementError::PathTooLong { limit: MAX_AUTHORITIES });
                    }
                    Ok(()) => open.push(longer),
                }
            }
            if !known {
                let issuer = head.issuer.to_string();
                refusal.note(2 * path.len(), EndorsementError::UnknownIssuer { issuer });
            }
        }
        Err(refusal.into_error(leaf))
    }

    /// The CAs with a name, and whether each is an anchor; anchors come last, so that they are on top of the stack.
    fn issuers_named(&self, name: &'a Name) -> Vec<(&'a Certificate, bool)> {
        let presented = self.others.iter().copied().filter(|certificate| certificate.subject == *name);
        let intermediates = self.roots.intermediates_named(name);
        let anchors = self.roots.anchors_named(name);
        presented
            .chain(intermediates)
            .map(|certificate| (certificate, false))
            .chain(anchors.map(|certificate| (certificate, true)))
            .collect()
    }

    /// What an issuer must be, signature apart; `path` is what is below it.
    fn check_issuer(&self, issuer: &Certificate, path: &[&Certificate]) -> Result<(), EndorsementError> {
        let of = || issuer.called();
        let extensions = &issuer.extensions;
        check_validity(issuer, self.now)?;
        if !extensions.authority {
            return Err(EndorsementError::NotAnAuthority { of: of() });
        }
        if extensions.key_usage.is_some_and(|usage| !usage.allows(KeyUsage::KEY_CERT_SIGN)) {
            return Err(EndorsementError::MayNotSign { of: of() });
        }
        if let Some(purposes) = &extensions.extended_key_usage
            && !purposes.iter().any(|purpose| [EK_CERTIFICATE, ANY_PURPOSE].contains(purpose))
        {
            return Err(EndorsementError::AuthorityForOtherPurpose { of: of() });
        }
        if let Some(id) = extensions.unknown_critical {
            return Err(EndorsementError::UnknownCriticalExtension { id, of: of() });
        }
        if let Some(allowed) = extensions.path_length {
            // Self-issued certificates do not count (RFC 5280, 4.2.1.9), nor does the leaf.
            let found =
                path.iter().filter(|below| below.extensions.authority && !below.is_self_issued()).count();
            if usize::try_from(allowed).is_ok_and(|allowed| found > allowed) {
                return Err(EndorsementError::PathLength { of: of(), allowed, found });
            }
        }
        Ok(())
    }
}

/// anyExtendedKeyUsage (RFC 5280, 4.2.1.12).
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// The refusal of the step that came furthest.
#[derive(Default)]
struct Refusal {
    found: Option<(usize, EndorsementError)>,
}

impl Refusal {
    fn note(&mut self, progress: usize, error: EndorsementError) {
        if self.found.as_ref().is_none_or(|(furthest, _)| progress > *furthest) {
            self.found = Some((progress, error));
        }
    }

    fn into_error(self, leaf: &Certificate) -> EndorsementError {
        // Each path that ends notes why; the default is for certificates that only lead in a circle.
        let unknown = || EndorsementError::UnknownIssuer { issuer: leaf.issuer.to_string() };
        self.found.map_or_else(unknown, |(_, error)| error)
    }
}

fn check_validity(certificate: &Certificate, now: Timestamp) -> Result<(), EndorsementError> {
    let of = || certificate.called();
    // Times of certificates are whole seconds; a certificate is valid during all of its last second.
    if now.as_seconds() < certificate.not_before.as_seconds() {
        return Err(EndorsementError::NotYetValid { of: of(), not_before: certificate.not_before });
    }
    if now.as_seconds() > certificate.not_after.as_seconds() {
        return Err(EndorsementError::Expired { of: of(), not_after: certificate.not_after });
    }
    Ok(())
}

fn check_signature(certificate: &Certificate, issuer: &Certificate) -> Result<(), EndorsementError> {
    let of = || certificate.called();
    verify_signature(&certificate.signed, &issuer.key).map_err(|error| match error {
        SignatureFailure::Unsupported => EndorsementError::WeakSignature { of: of() },
        SignatureFailure::Invalid => EndorsementError::BadSignature { of: of(), issuer: issuer.called() },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureFailure {
    /// The algorithm is none of webpki's list, which has no SHA-1.
    Unsupported,
    /// The signature is not by this key.
    Invalid,
}

/// Verifies by the algorithms of webpki: RSA from 2048 bits, ECDSA on P-256, P-384 and P-521, SHA-2.
pub(super) fn verify_signature(signed: &Signed, key: &SubjectKey) -> Result<(), SignatureFailure> {
    let mut supported = false;
    for algorithm in webpki::ALL_VERIFICATION_ALGS {
        if algorithm.signature_alg_id().as_ref() != signed.algorithm {
            continue;
        }
        supported = true;
        if algorithm.public_key_alg_id().as_ref() != key.algorithm {
            continue;
        }
        if algorithm.verify_signature(&key.bits, &signed.bytes, &signed.signature).is_ok() {
            return Ok(());
        }
    }
    Err(if supported { SignatureFailure::Invalid } else { SignatureFailure::Unsupported })
}
