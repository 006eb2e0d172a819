//! From the EK certificate to a trust anchor.

use der::asn1::ObjectIdentifier;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::hash;
use rootbound_common::tpm::{HashAlgorithm, Public};
use rootbound_common::wire::v1::EnrollRequest;

use super::certificate::{Certificate, KeyUsage, MalformedCertificate, Signed, SubjectKey};
use super::crl::{self, RevocationPolicy};
use super::leaf::{self, EK_CERTIFICATE, EkCertificate, name_text};
use super::roots::EndorsementRoots;

/// Why no manufacturer vouches for an EK. In the order of the checks; when none fails, all of it is established
/// (RFC 5280, 6.1, with the TCG EK Credential Profile's rules for the leaf).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndorsementError {
    /// The machine sent no certificate.
    #[error("no EK certificate was presented")]
    NoCertificate,
    /// The machine sent too many.
    #[error("{count} certificates were presented, over the limit of {limit}")]
    TooManyCertificates {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// One is too long.
    #[error("certificate {position} has {length} bytes, over the limit of {limit}")]
    TooLarge {
        /// Which, from 0.
        position: usize,
        /// Its bytes.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// One cannot be read.
    #[error("certificate {position}: {error}")]
    Malformed {
        /// Which, from 0.
        position: usize,
        /// What of it.
        error: MalformedCertificate,
    },
    /// None is for the EK: not this TPM's, or a fault of the manufacturer (CVE-2021-3406 is what happens without).
    #[error("none of the {count} certificates presented is for this EK")]
    NoneForThisKey {
        /// How many there were.
        count: usize,
    },
    /// The certificate for the EK is a CA's.
    #[error("the certificate for this EK is that of a CA")]
    AuthorityAsLeaf,
    /// The certificate says not what it is for.
    #[error("the EK certificate names no extended key usage, tcg-kp-EKCertificate is needed")]
    NoPurpose,
    /// The certificate is for something else.
    #[error("the EK certificate's extended key usage is not tcg-kp-EKCertificate")]
    WrongPurpose,
    /// The key is certified for signing only.
    #[error("the EK certificate's key usage allows neither encipherment nor key agreement")]
    WrongKeyUsage,
    /// A certificate has a critical extension that is not known here, or constrains names.
    #[error("the certificate of `{of}` has extension {id}, which is critical and not supported")]
    UnknownCriticalExtension {
        /// The extension.
        id: ObjectIdentifier,
        /// The certificate's subject.
        of: String,
    },
    /// A certificate on the path is not valid yet.
    #[error("the certificate of `{of}` is not valid before {not_before}")]
    NotYetValid {
        /// Its subject.
        of: String,
        /// Its notBefore.
        not_before: Timestamp,
    },
    /// A certificate on the path has expired.
    #[error("the certificate of `{of}` expired at {not_after}")]
    Expired {
        /// Its subject.
        of: String,
        /// Its notAfter.
        not_after: Timestamp,
    },
    /// No trust anchor and no intermediate has the name of the issuer.
    #[error("issuer `{issuer}` is unknown")]
    UnknownIssuer {
        /// The name.
        issuer: String,
    },
    /// What has the issuer's name is no CA.
    #[error("`{of}` is not a CA")]
    NotAnAuthority {
        /// Its subject.
        of: String,
    },
    /// The CA's key is not for signing certificates.
    #[error("the key of CA `{of}` is not for signing certificates")]
    MayNotSign {
        /// Its subject.
        of: String,
    },
    /// The CA is for other purposes than EK certificates.
    #[error("the extended key usage of CA `{of}` leaves out EK certificates")]
    AuthorityForOtherPurpose {
        /// Its subject.
        of: String,
    },
    /// More CAs are below a CA than it allows.
    #[error("CA `{of}` allows {allowed} CAs below it, the path has {found}")]
    PathLength {
        /// Its subject.
        of: String,
        /// pathLenConstraint.
        allowed: u32,
        /// How many there are.
        found: usize,
    },
    /// SHA-1, or an algorithm that is not known here.
    #[error("the certificate of `{of}` is signed by an algorithm that is too weak or not supported")]
    WeakSignature {
        /// Its subject.
        of: String,
    },
    /// The signature is not by the key of the CA with the issuer's name.
    #[error("the signature on the certificate of `{of}` is not by `{issuer}`")]
    BadSignature {
        /// Its subject.
        of: String,
        /// The CA.
        issuer: String,
    },
    /// The path is longer than any vendor's.
    #[error("the path has more than {limit} CAs below its trust anchor")]
    PathTooLong {
        /// The limit.
        limit: usize,
    },
    /// The certificates cross-sign each other in so many ways that the search was given up.
    #[error("no path was found within {limit} signature checks")]
    TooComplex {
        /// The limit.
        limit: usize,
    },
    /// A certificate on the path is revoked.
    #[error("the certificate of `{of}` is revoked")]
    Revoked {
        /// Its subject.
        of: String,
    },
    /// No CRL covers a certificate on the path.
    #[error("no CRL of `{issuer}` tells whether the certificate of `{of}` is revoked")]
    RevocationUnknown {
        /// Its subject.
        of: String,
        /// Its issuer.
        issuer: String,
    },
    /// The newest CRL should have been replaced.
    #[error("the CRL of `{issuer}` was due to be replaced at {next_update}")]
    CrlExpired {
        /// The CA.
        issuer: String,
        /// nextUpdate.
        next_update: Timestamp,
    },
    /// The CRL is not signed by the CA.
    #[error("the signature on the CRL of `{issuer}` does not verify")]
    CrlSignature {
        /// The CA.
        issuer: String,
    },
    /// The CA's key is not for signing CRLs.
    #[error("the key of CA `{issuer}` is not for signing CRLs")]
    MayNotSignCrl {
        /// The CA.
        issuer: String,
    },
}

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
            .and_then(|anchor| Ok((describe(leaf, &certificates)?, fingerprint(anchor))));
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

fn fingerprint(certificate: &Certificate) -> [u8; 32] {
    let digest = hash(HashAlgorithm::Sha256, &[&certificate.der]);
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    bytes
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
                let issuer = name_text(&head.issuer);
                refusal.note(2 * path.len(), EndorsementError::UnknownIssuer { issuer });
            }
        }
        Err(refusal.into_error(leaf))
    }

    /// The CAs with a name, and whether each is an anchor; anchors come last, so that they are on top of the stack.
    fn issuers_named(&self, name: &[u8]) -> Vec<(&'a Certificate, bool)> {
        let presented = self.others.iter().copied().filter(|certificate| certificate.subject == name);
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
        let of = || name_text(&issuer.subject);
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
            // Self-issued certificates do not count (RFC 5280, 4.2.1.9); the leaf is not a CA.
            let found = path.iter().skip(1).filter(|certificate| !certificate.is_self_issued()).count();
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
        let unknown = || EndorsementError::UnknownIssuer { issuer: name_text(&leaf.issuer) };
        self.found.map_or_else(unknown, |(_, error)| error)
    }
}

fn check_validity(certificate: &Certificate, now: Timestamp) -> Result<(), EndorsementError> {
    let of = || name_text(&certificate.subject);
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
    let of = || name_text(&certificate.subject);
    verify_signature(&certificate.signed, &issuer.key).map_err(|error| match error {
        SignatureFailure::Unsupported => EndorsementError::WeakSignature { of: of() },
        SignatureFailure::Invalid => {
            EndorsementError::BadSignature { of: of(), issuer: name_text(&issuer.subject) }
        }
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
