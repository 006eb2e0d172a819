//! Why no manufacturer vouches for an EK: one variant for each check of a chain.

use der::asn1::ObjectIdentifier;
use rootbound_common::clock::Timestamp;

use super::asn1::MalformedCertificate;

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
    /// The CRL is not signed by the CA, or by an algorithm that is too weak.
    #[error("the signature on the CRL of `{issuer}` does not verify, or is too weak")]
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
