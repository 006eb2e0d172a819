//! An X.509-SVID that comes back over mTLS.
//!
//! TLS has verified the certificate's chain against our own trust bundle before this reads it. What is read here is who
//! it names and which issued certificate it is, so that the node's posture can be looked up.

use der::{Decode, Encode};
use rootbound_common::clock::Timestamp;
use rootbound_common::id::{SpiffeId, TrustDomain};
use rootbound_token::jwk::{CertificateThumbprint, PublicJwk, Thumbprint};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::Certificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

use super::certificate::timestamp;
use super::epoch::PostureEpoch;
use super::serial::SerialNumber;

/// No certificate that we issue is longer.
const MAX: usize = 8192;

/// Why a certificate is no X.509-SVID of ours (X509-SVID, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PresentedError {
    /// Longer than any that we issue.
    #[error("the certificate is longer than {MAX} bytes")]
    TooLong,
    /// Not a certificate.
    #[error("the certificate is malformed")]
    Malformed,
    /// A CA certificate, or one that may sign certificates or CRLs.
    #[error("the certificate is a CA certificate, which authenticates nobody")]
    Authority,
    /// keyUsage without digitalSignature, or no keyUsage.
    #[error("the certificate's key may not sign")]
    KeyUsage,
    /// Not exactly one URI SAN.
    #[error("the certificate has {found} URI SANs, must have one")]
    UriCount {
        /// How many there are.
        found: usize,
    },
    /// The URI SAN is no SPIFFE ID with a path.
    #[error("the certificate's URI SAN is no SPIFFE ID of a workload or node")]
    SpiffeId,
    /// The SPIFFE ID is of another trust domain.
    #[error("the certificate is of another trust domain")]
    TrustDomain,
    /// A serial number that we never give.
    #[error("the certificate's serial number is none of ours")]
    Serial,
    /// A posture epoch that we never write.
    #[error("the certificate's posture epoch is malformed")]
    Epoch,
}

impl PresentedError {
    /// A stable word for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "svid_too_long",
            Self::Malformed => "svid_malformed",
            Self::Authority => "svid_is_ca",
            Self::KeyUsage => "svid_key_usage",
            Self::UriCount { .. } => "svid_uri_count",
            Self::SpiffeId => "svid_spiffe_id",
            Self::TrustDomain => "svid_trust_domain",
            Self::Serial => "svid_serial",
            Self::Epoch => "svid_epoch",
        }
    }
}

/// Whom a certificate names and which it is. Whether it is still worth anything, the node's posture says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedSvid {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// The serial number.
    pub serial: SerialNumber,
    /// The posture epoch of the node when it was issued; `None` of what is no node's.
    pub epoch: Option<u64>,
    /// Since when it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// Names the certificate: what binds a token to it (RFC 8705, 3.1).
    pub thumbprint: CertificateThumbprint,
    /// Names its key, where that is of P-256: what binds a token to it (RFC 9449, 6.1).
    pub key_thumbprint: Option<Thumbprint>,
}

impl PresentedSvid {
    /// Reads a certificate that TLS has verified.
    pub fn parse(der: &[u8], trust_domain: &TrustDomain) -> Result<Self, PresentedError> {
        if der.len() > MAX {
            return Err(PresentedError::TooLong);
        }
        let certificate = Certificate::from_der(der).map_err(|_| PresentedError::Malformed)?;
        let certificate = certificate.tbs_certificate();
        let constraints =
            certificate.get_extension::<BasicConstraints>().map_err(|_| PresentedError::Malformed)?;
        if constraints.is_some_and(|(_, constraints)| constraints.ca) {
            return Err(PresentedError::Authority);
        }
        let usage = certificate.get_extension::<KeyUsage>().map_err(|_| PresentedError::Malformed)?;
        let usage = usage.map(|(_, usage)| usage).ok_or(PresentedError::KeyUsage)?;
        if usage.key_cert_sign() || usage.crl_sign() {
            return Err(PresentedError::Authority);
        }
        if !usage.digital_signature() {
            return Err(PresentedError::KeyUsage);
        }
        let names = certificate.get_extension::<SubjectAltName>().map_err(|_| PresentedError::Malformed)?;
        let spiffe_id = spiffe_id(names.map(|(_, names)| names.0).unwrap_or_default())?;
        if !spiffe_id.as_str().starts_with(&format!("{}/", trust_domain.id())) {
            return Err(PresentedError::TrustDomain);
        }
        let serial = SerialNumber::from_slice(certificate.serial_number().as_bytes())
            .map_err(|_| PresentedError::Serial)?;
        let epoch = PostureEpoch::read(certificate).map_err(|_| PresentedError::Epoch)?;
        let epoch = epoch.map(|PostureEpoch(epoch)| epoch);
        Ok(Self {
            spiffe_id,
            serial,
            epoch,
            not_before: timestamp(certificate.validity().not_before),
            not_after: timestamp(certificate.validity().not_after),
            thumbprint: CertificateThumbprint::of_der(der),
            key_thumbprint: key_thumbprint(certificate.subject_public_key_info()),
        })
    }
}

fn key_thumbprint(key: &SubjectPublicKeyInfoOwned) -> Option<Thumbprint> {
    Some(PublicJwk::from_spki(&key.to_der().ok()?).ok()?.thumbprint())
}

fn spiffe_id(names: Vec<GeneralName>) -> Result<SpiffeId, PresentedError> {
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => uri.parse().map_err(|_| PresentedError::SpiffeId),
        (None, _) => Err(PresentedError::UriCount { found: 0 }),
        (Some(_), more) => Err(PresentedError::UriCount { found: more + 1 }),
    }
}
