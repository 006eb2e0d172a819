//! The issuing CA: a P-256 key with its certificate, and the chain up to the root that relying parties trust.
//!
//! An [`Authority`] exists only after these checks, whether it was made here or loaded:
//!
//! 1. the files hold 1 to 5 certificates, the issuing one first, and a P-256 private key
//! 2. the key is that of the issuing certificate
//! 3. each certificate may sign certificates: cA, a pathLenConstraint that leaves room for those below it, and
//!    keyCertSign (RFC 5280, 4.2.1.3 and 4.2.1.9)
//! 4. each is in date
//! 5. the last is self-issued: the root, which becomes the trust bundle
//! 6. an issuing certificate with a SPIFFE ID has that of the trust domain (X509-SVID, 4)
//! 7. a certificate that the key signs is accepted by a validator that relying parties use (webpki), so that signatures
//!    and names of the whole chain hold together

use std::fmt;
use std::time::Duration;

use der::Decode;
use p256::SecretKey;
use p256::ecdsa::SigningKey;
use p256::elliptic_curve::Generate;
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use rand_core::CryptoRng;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::TrustDomain;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage as Usage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier};
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use zeroize::Zeroizing;

use super::certificate::{
    Content, Unsigned, certificates_pem, extension, key_identifier, subject_key, timestamp, uri,
    whole_seconds,
};
use super::issue::{self, Leaf};
use super::serial::SerialNumber;

/// Certificates from the issuing one to the root: private PKIs have two or three.
const MAX_CERTIFICATES: usize = 5;

/// Why there is no authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate file holds something that is not a certificate.
    #[error("certificate {position} is malformed")]
    Certificate {
        /// Its position, from 1.
        position: usize,
    },
    /// No certificate, or too many.
    #[error("{found} certificates, must be 1 to {MAX_CERTIFICATES}: the issuing one first, the root last")]
    CertificateCount {
        /// How many there are.
        found: usize,
    },
    /// The key file holds no P-256 private key in PKCS#8 or SEC 1.
    #[error("no P-256 private key, unencrypted PEM in PKCS#8 or SEC 1")]
    Key,
    /// The key is another than the certificate's.
    #[error("the private key is not that of the first certificate")]
    OtherKey,
    /// A certificate without basicConstraints cA.
    #[error("certificate {position} is not a CA certificate")]
    NotACa {
        /// Its position, from 1.
        position: usize,
    },
    /// A certificate without keyCertSign.
    #[error("certificate {position} has no keyUsage keyCertSign")]
    MayNotSign {
        /// Its position, from 1.
        position: usize,
    },
    /// A certificate that allows fewer CAs below it than there are.
    #[error("certificate {position} allows {allowed} CA certificates below it, and there are {below}")]
    PathLength {
        /// Its position, from 1.
        position: usize,
        /// Its pathLenConstraint.
        allowed: u8,
        /// How many there are.
        below: usize,
    },
    /// A certificate that is not valid yet.
    #[error("certificate {position} is not valid before {not_before}")]
    NotYetValid {
        /// Its position, from 1.
        position: usize,
        /// From when on it is valid.
        not_before: Timestamp,
    },
    /// A certificate that is not valid any more.
    #[error("certificate {position} expired at {not_after}")]
    Expired {
        /// Its position, from 1.
        position: usize,
        /// Until when it was valid.
        not_after: Timestamp,
    },
    /// The last certificate is not a root.
    #[error("the last certificate is not self-issued: add the chain up to the root")]
    NoRoot,
    /// The issuing certificate is of another trust domain.
    #[error("the first certificate is of another trust domain than {expected}")]
    OtherTrustDomain {
        /// The configured trust domain.
        expected: TrustDomain,
    },
    /// The chain does not hold.
    #[error("what the first certificate signs is not accepted under the last: {0}")]
    Chain(webpki::Error),
    /// A certificate cannot be put into DER: a date beyond the year 9999.
    #[error("the certificate cannot be encoded")]
    Encoding,
}

/// The issuing CA. Its key has no `Clone`, a redacted `Debug`, and is wiped on drop.
pub struct Authority {
    key: SigningKey,
    trust_domain: TrustDomain,
    /// From the issuing certificate to the root; never empty.
    chain: Vec<CertificateDer<'static>>,
    name: Name,
    key_identifier: SubjectKeyIdentifier,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Authority {
    /// Makes a new root: self-signed, named by the trust domain's SPIFFE ID, with no CA below it.
    pub fn generate(
        trust_domain: TrustDomain,
        not_before: Timestamp,
        lifetime: Duration,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, AuthorityError> {
        let key = SigningKey::generate_from_rng(rng);
        let serial = SerialNumber::generate(rng);
        let root = root(&key, &trust_domain, serial, not_before, not_before.plus(lifetime))
            .map_err(|_| AuthorityError::Encoding)?;
        Self::new(key, vec![root], trust_domain, not_before)
    }

    /// Loads an authority from PEM: the chain, issuing certificate first and root last, and the private key.
    pub fn load(
        chain: &str,
        key: &str,
        trust_domain: TrustDomain,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let mut certificates = Vec::new();
        for (index, certificate) in CertificateDer::pem_slice_iter(chain.as_bytes()).enumerate() {
            if index >= MAX_CERTIFICATES {
                return Err(AuthorityError::CertificateCount { found: index + 1 });
            }
            certificates.push(certificate.map_err(|_| AuthorityError::Certificate { position: index + 1 })?);
        }
        // The last block: `openssl ecparam -genkey` writes its EC PARAMETERS before the key.
        let block = key.rfind("-----BEGIN ").and_then(|start| key.get(start..)).unwrap_or_default();
        let key = SecretKey::from_pem(block).map_err(|_| AuthorityError::Key)?;
        Self::new(SigningKey::from(key), certificates, trust_domain, now)
    }

    /// Points 2 to 7 of the list above.
    fn new(
        key: SigningKey,
        chain: Vec<CertificateDer<'static>>,
        trust_domain: TrustDomain,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let mut certificates = Vec::with_capacity(chain.len());
        for (index, certificate) in chain.iter().enumerate() {
            let certificate = Certificate::from_der(certificate)
                .map_err(|_| AuthorityError::Certificate { position: index + 1 })?;
            certificates.push(certificate);
        }
        let (Some(issuing), Some(root)) = (certificates.first(), certificates.last()) else {
            return Err(AuthorityError::CertificateCount { found: 0 });
        };
        let issuing = issuing.tbs_certificate();
        if *issuing.subject_public_key_info() != public_key(&key)? {
            return Err(AuthorityError::OtherKey);
        }
        let (mut not_before, mut not_after) = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX));
        for (index, certificate) in certificates.iter().enumerate() {
            let (from, until) = check_ca(certificate, index + 1, now)?;
            (not_before, not_after) = (not_before.max(from), not_after.min(until));
        }
        if root.tbs_certificate().subject() != root.tbs_certificate().issuer() {
            return Err(AuthorityError::NoRoot);
        }
        check_trust_domain(issuing, &trust_domain)?;
        let key_identifier = match extension_of::<SubjectKeyIdentifier>(issuing) {
            Some(identifier) => identifier,
            None => SubjectKeyIdentifier(
                key_identifier(issuing.subject_public_key_info()).map_err(|_| AuthorityError::Encoding)?,
            ),
        };
        let name = issuing.subject().clone();
        let authority = Self { key, trust_domain, chain, name, key_identifier, not_before, not_after };
        authority.probe(now)?;
        Ok(authority)
    }

    /// Signs a certificate for its own key, which goes nowhere, and has it validated.
    fn probe(&self, now: Timestamp) -> Result<(), AuthorityError> {
        let serial = SerialNumber::from_slice(&[0x40; 16]).map_err(|_| AuthorityError::Encoding)?;
        let leaf = Leaf {
            uri: self.trust_domain.verifier(),
            names: Vec::new(),
            subject: Name::default(),
            key: public_key(&self.key)?,
            serial,
            epoch: None,
            not_before: self.not_before,
            not_after: self.not_after,
        };
        let probe = issue::unsigned(self, leaf)
            .and_then(|unsigned| unsigned.sign(&self.key))
            .map_err(|_| AuthorityError::Encoding)?;
        let (root, intermediates) = self.chain.split_last().ok_or(AuthorityError::NoRoot)?;
        let anchor = anchor_from_trusted_cert(root).map_err(AuthorityError::Chain)?;
        let now = Duration::from_secs(u64::try_from(now.as_seconds()).unwrap_or(0));
        let probe = EndEntityCert::try_from(&probe).map_err(AuthorityError::Chain)?;
        probe
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &[anchor],
                intermediates,
                UnixTime::since_unix_epoch(now),
                Usage::server_auth(),
                None,
                None,
            )
            .map(drop)
            .map_err(AuthorityError::Chain)
    }

    /// The trust domain that it issues for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// From when on every certificate of its chain is valid.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Until when every certificate of its chain is valid: nothing that it issues is valid longer.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The certificates from the issuing one to the root.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// What a server or client sends after its own certificate: everything but the root.
    #[must_use]
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        self.chain.split_last().map_or(&[], |(_, intermediates)| intermediates)
    }

    /// The certificates that relying parties trust: the root.
    #[must_use]
    pub fn trust_bundle(&self) -> &[CertificateDer<'static>] {
        self.chain.last().map_or(&[], std::slice::from_ref)
    }

    /// [`Self::chain`] in PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        certificates_pem(&self.chain).unwrap_or_default()
    }

    /// [`Self::trust_bundle`] in PEM.
    #[must_use]
    pub fn trust_bundle_pem(&self) -> String {
        certificates_pem(self.trust_bundle()).unwrap_or_default()
    }

    /// The private key as PKCS#8 PEM, for its file.
    pub fn private_key_pem(&self) -> Result<Zeroizing<String>, AuthorityError> {
        SecretKey::from(&self.key).to_pkcs8_pem(LineEnding::LF).map_err(|_| AuthorityError::Encoding)
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn key_identifier(&self) -> &SubjectKeyIdentifier {
        &self.key_identifier
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("name", &self.name.to_string())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn root(
    key: &SigningKey,
    trust_domain: &TrustDomain,
    serial: SerialNumber,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateDer<'static>, x509_cert::builder::Error> {
    let public = SubjectPublicKeyInfoOwned::from_key(key.verifying_key())?;
    let identifier = key_identifier(&public)?;
    // Two roots of one trust domain must not share a name, so that a chain is found by it (RFC 5280, 4.1.2.4).
    let short = data_encoding::HEXLOWER.encode(identifier.as_bytes().get(..8).unwrap_or_default());
    let name: Name = format!("CN=Rootbound CA {short}").parse()?;
    let extensions = vec![
        extension(&BasicConstraints { ca: true, path_len_constraint: Some(0) }, &name)?,
        extension(&KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign), &name)?,
        extension(&subject_key(identifier), &name)?,
        extension(&SubjectAltName(vec![uri(&trust_domain.id())?]), &name)?,
    ];
    Unsigned::new(Content {
        issuer: name.clone(),
        subject: name,
        serial,
        not_before: whole_seconds(not_before),
        not_after: whole_seconds(not_after),
        key: public,
        extensions,
    })?
    .sign(key)
}

fn public_key(key: &SigningKey) -> Result<SubjectPublicKeyInfoOwned, AuthorityError> {
    SubjectPublicKeyInfoOwned::from_key(key.verifying_key()).map_err(|_| AuthorityError::Encoding)
}

/// Points 3 and 4; returns from when until when the certificate is valid.
fn check_ca(
    certificate: &Certificate,
    position: usize,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), AuthorityError> {
    let certificate = certificate.tbs_certificate();
    let constraints = extension_of::<BasicConstraints>(certificate).filter(|constraints| constraints.ca);
    let constraints = constraints.ok_or(AuthorityError::NotACa { position })?;
    // webpki does not look at the root's own constraint, other validators do.
    let below = position.saturating_sub(1);
    if let Some(allowed) = constraints.path_len_constraint.filter(|allowed| usize::from(*allowed) < below) {
        return Err(AuthorityError::PathLength { position, allowed, below });
    }
    if !extension_of::<KeyUsage>(certificate).is_some_and(|usage| usage.key_cert_sign()) {
        return Err(AuthorityError::MayNotSign { position });
    }
    let validity = certificate.validity();
    let (not_before, not_after) = (timestamp(validity.not_before), timestamp(validity.not_after));
    if whole_seconds(now) < not_before {
        return Err(AuthorityError::NotYetValid { position, not_before });
    }
    if now > not_after {
        return Err(AuthorityError::Expired { position, not_after });
    }
    Ok((not_before, not_after))
}

/// Point 6. An operator's CA need not be an SVID.
fn check_trust_domain(
    certificate: &x509_cert::TbsCertificate,
    trust_domain: &TrustDomain,
) -> Result<(), AuthorityError> {
    let names = extension_of::<SubjectAltName>(certificate).map(|names| names.0).unwrap_or_default();
    let expected = trust_domain.id();
    let other = names.iter().any(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => {
            uri.as_str().starts_with("spiffe://") && uri.as_str() != expected
        }
        _ => false,
    });
    if other {
        return Err(AuthorityError::OtherTrustDomain { expected: trust_domain.clone() });
    }
    Ok(())
}

/// An extension that occurs once and parses; an unreadable one counts as absent, so that what it would allow is not.
fn extension_of<T>(certificate: &x509_cert::TbsCertificate) -> Option<T>
where
    T: for<'a> Decode<'a> + der::oid::AssociatedOid,
{
    certificate.get_extension::<T>().ok().flatten().map(|(_, extension)| extension)
}
