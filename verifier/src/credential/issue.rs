//! Issues certificates: X.509-SVIDs for keys that live in TPMs, and the verifier's own serving certificate.
//!
//! An SVID takes two steps. [`Authority::prepare`] takes a [`Grant`] and settles what the certificate will say; the caller records
//! that, serial number and all; [`PreparedCertificate::issue`] signs exactly that, once. Whoever dies between the two
//! leaves a record without a certificate, never a certificate without a record.
//!
//! What the certificates say (X509-SVID, 2 to 5; RFC 5280, 4.2):
//!
//! - one URI SAN, the SPIFFE ID. A node's certificate also has its node id as the subject's CN, for servers like nginx
//!   that show policy no SAN; 64 hex digits cannot be taken for a host name. The serving certificate has an empty
//!   subject, and then its SAN is critical.
//! - critical keyUsage digitalSignature, extKeyUsage serverAuth and clientAuth, critical basicConstraints cA=false
//! - a node's says its posture epoch, in an extension of our own that is not critical
//! - valid from [`CLOCK_SKEW`] before now, until what was asked for, and never outside its CA's own validity

use std::net::IpAddr;
use std::time::Duration;

use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use der::Decode;
use der::asn1::{Ia5String, OctetString};
use p256::SecretKey;
use p256::elliptic_curve::Generate;
use p256::pkcs8::EncodePrivateKey;
use rand_core::CryptoRng;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::SpiffeId;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName};
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::authority::Authority;
use super::certificate::{
    Content, Unsigned, authority_key, certificates_pem, extension, key_identifier, subject_key, uri,
    whole_seconds,
};
use super::epoch::PostureEpoch;
use super::serial::SerialNumber;
use crate::policy::Grant;

/// How far a relying party's clock may be behind ours: certificates are valid from so much earlier on.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// No SVID lives longer, whatever the configuration says: it is meant for minutes.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// No serving certificate lives longer; the daemon mints a new one at each start.
pub const MAX_SERVING_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why no certificate is issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The CA is not valid yet.
    #[error("the CA is not valid before {not_before}")]
    AuthorityNotYetValid {
        /// From when on it is.
        not_before: Timestamp,
    },
    /// The CA is not valid any more.
    #[error("the CA expired at {not_after}")]
    AuthorityExpired {
        /// Until when it was.
        not_after: Timestamp,
    },
    /// It would end before it begins, or live too long.
    #[error("a lifetime until {not_after} is not between 1 and {limit} seconds")]
    Lifetime {
        /// The end that was asked for.
        not_after: Timestamp,
        /// The longest lifetime, in seconds.
        limit: u64,
    },
    /// A name or a key that cannot be put into a certificate.
    #[error("the certificate cannot be encoded")]
    Encoding,
}

/// A certificate with everything decided and nothing signed: to be recorded, then issued. Not `Clone`.
pub struct PreparedCertificate<'a> {
    authority: &'a Authority,
    unsigned: Unsigned,
    subject: SpiffeId,
    serial: SerialNumber,
    epoch: u64,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A signed X.509-SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// Its serial number.
    pub serial: SerialNumber,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// The identity.
    pub subject: SpiffeId,
    intermediates: Vec<CertificateDer<'static>>,
}

/// What the verifier serves TLS with.
#[derive(Debug)]
pub struct ServingCertificate {
    /// Leaf, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// What an end entity's certificate says.
pub(super) struct Leaf {
    pub(super) uri: SpiffeId,
    pub(super) names: Vec<GeneralName>,
    pub(super) subject: Name,
    pub(super) key: SubjectPublicKeyInfoOwned,
    pub(super) serial: SerialNumber,
    pub(super) epoch: Option<PostureEpoch>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Authority {
    /// Turns a grant into everything that its X.509-SVID will say, under a fresh serial number. Nothing is signed yet.
    ///
    /// `epoch` is that of the node once the evidence that earned the grant is on record.
    ///
    /// It ends earlier than the grant says where the CA does.
    pub fn prepare(
        &self,
        grant: Grant,
        serial: SerialNumber,
        epoch: u64,
        now: Timestamp,
    ) -> Result<PreparedCertificate<'_>, IssueError> {
        let (node, key, lifetime) = grant.into_parts();
        let subject = self.trust_domain().node(node);
        let (not_before, not_after) = self.validity(now, now.plus(lifetime), MAX_LIFETIME)?;
        let name = format!("CN={node}").parse().map_err(|_| IssueError::Encoding)?;
        let leaf = Leaf {
            uri: subject.clone(),
            names: Vec::new(),
            subject: name,
            key: SubjectPublicKeyInfoOwned::from_der(key.subject_public_key_info())
                .map_err(|_| IssueError::Encoding)?,
            serial,
            epoch: Some(PostureEpoch(epoch)),
            not_before,
            not_after,
        };
        let unsigned = unsigned(self, leaf).map_err(|_| IssueError::Encoding)?;
        Ok(PreparedCertificate { authority: self, unsigned, subject, serial, epoch, not_before, not_after })
    }

    /// Makes the verifier's own serving certificate: a fresh P-256 key, the given DNS names and addresses, and the
    /// verifier's SPIFFE ID.
    pub fn issue_serving(
        &self,
        names: &[ServerName<'_>],
        now: Timestamp,
        not_after: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<ServingCertificate, IssueError> {
        let (not_before, not_after) = self.validity(now, not_after, MAX_SERVING_LIFETIME)?;
        let key = SecretKey::generate_from_rng(rng);
        let leaf = Leaf {
            uri: self.trust_domain().verifier(),
            names: names.iter().map(general_name).collect::<Result<_, _>>()?,
            subject: Name::default(),
            key: SubjectPublicKeyInfoOwned::from_key(&key.public_key()).map_err(|_| IssueError::Encoding)?,
            serial: SerialNumber::generate(rng),
            epoch: None,
            not_before,
            not_after,
        };
        let leaf = unsigned(self, leaf)
            .and_then(|unsigned| unsigned.sign(self.key()))
            .map_err(|_| IssueError::Encoding)?;
        let key = key.to_pkcs8_der().map_err(|_| IssueError::Encoding)?;
        Ok(ServingCertificate {
            chain: with_intermediates(leaf, self.intermediates()),
            key: PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()),
            not_after,
        })
    }

    fn validity(
        &self,
        now: Timestamp,
        not_after: Timestamp,
        longest: Duration,
    ) -> Result<(Timestamp, Timestamp), IssueError> {
        if now < self.not_before() {
            return Err(IssueError::AuthorityNotYetValid { not_before: self.not_before() });
        }
        if now >= self.not_after() {
            return Err(IssueError::AuthorityExpired { not_after: self.not_after() });
        }
        let end = whole_seconds(not_after.min(self.not_after()));
        if end <= now || not_after > now.plus(longest) {
            return Err(IssueError::Lifetime { not_after, limit: longest.as_secs() });
        }
        Ok((whole_seconds(now.minus(CLOCK_SKEW)).max(self.not_before()), end))
    }
}

impl PreparedCertificate<'_> {
    /// The serial number, to be recorded before [`Self::issue`].
    #[must_use]
    pub fn serial(&self) -> SerialNumber {
        self.serial
    }

    /// The posture epoch that it names.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The identity.
    #[must_use]
    pub fn subject(&self) -> &SpiffeId {
        &self.subject
    }

    /// From when on it will be valid.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Until when it will be valid.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Signs it.
    pub fn issue(self) -> Result<IssuedCertificate, IssueError> {
        let Self { authority, unsigned, subject, serial, epoch: _, not_before, not_after } = self;
        let der = unsigned.sign(authority.key()).map_err(|_| IssueError::Encoding)?;
        let intermediates = authority.intermediates().to_vec();
        Ok(IssuedCertificate { der, serial, not_before, not_after, subject, intermediates })
    }
}

impl std::fmt::Debug for PreparedCertificate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedCertificate")
            .field("serial", &self.serial)
            .field("subject", &self.subject)
            .field("epoch", &self.epoch)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl IssuedCertificate {
    /// Leaf, then intermediates; not the root.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        with_intermediates(self.der.clone(), &self.intermediates)
    }

    /// [`Self::chain`] in PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        certificates_pem(&self.chain()).unwrap_or_default()
    }

    /// When to ask for the next: a random point between 60 and 73 percent of what is left of its life, so that a fleet
    /// that started together does not renew together.
    #[must_use]
    pub fn renew_at(&self, now: Timestamp, rng: &mut impl CryptoRng) -> Timestamp {
        let left = self.not_after.since(now);
        let spread = f64::from(rng.next_u32()) / f64::from(u32::MAX);
        now.plus(left.mul_f64(0.60 + 0.13 * spread))
    }
}

fn with_intermediates(
    leaf: CertificateDer<'static>,
    intermediates: &[CertificateDer<'static>],
) -> Vec<CertificateDer<'static>> {
    std::iter::once(leaf).chain(intermediates.iter().cloned()).collect()
}

pub(super) fn unsigned(authority: &Authority, leaf: Leaf) -> Result<Unsigned, x509_cert::builder::Error> {
    let Leaf { uri: id, mut names, subject, key, serial, epoch, not_before, not_after } = leaf;
    names.insert(0, uri(id.as_str())?);
    let mut extensions = vec![
        extension(&BasicConstraints { ca: false, path_len_constraint: None }, &subject)?,
        extension(&KeyUsage(KeyUsages::DigitalSignature.into()), &subject)?,
        extension(&ExtendedKeyUsage(vec![ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH]), &subject)?,
        extension(&subject_key(key_identifier(&key)?), &subject)?,
        extension(&authority_key(authority.key_identifier().0.clone()), &subject)?,
        extension(&SubjectAltName(names), &subject)?,
    ];
    extensions.extend(epoch.map(PostureEpoch::extension).transpose()?);
    let issuer = authority.name().clone();
    Unsigned::new(Content { issuer, subject, serial, not_before, not_after, key, extensions })
}

fn general_name(name: &ServerName<'_>) -> Result<GeneralName, IssueError> {
    match name {
        ServerName::DnsName(name) => Ia5String::new(name.as_ref()).map(GeneralName::DnsName),
        ServerName::IpAddress(address) => match IpAddr::from(*address) {
            IpAddr::V4(address) => OctetString::new(address.octets()).map(GeneralName::IpAddress),
            IpAddr::V6(address) => OctetString::new(address.octets()).map(GeneralName::IpAddress),
        },
        _ => return Err(IssueError::Encoding),
    }
    .map_err(|_| IssueError::Encoding)
}
