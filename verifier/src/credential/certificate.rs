//! The X.509 that all certificates of the CA share: names, key identifiers, times, extensions.

use std::time::Duration;

use der::asn1::{Ia5String, OctetString};
use der::{DateTime, Encode};
use p256::ecdsa::{DerSignature, SigningKey};
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::hash;
use rootbound_common::tpm::HashAlgorithm;
use rustls_pki_types::CertificateDer;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, SubjectKeyIdentifier};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

use super::serial::SerialNumber;

/// What is to be signed, with nothing left open but the signature.
pub(super) struct Content {
    pub(super) issuer: Name,
    pub(super) subject: Name,
    pub(super) serial: SerialNumber,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) key: SubjectPublicKeyInfoOwned,
    pub(super) extensions: Vec<Extension>,
}

/// A certificate that lacks only its signature.
pub(super) struct Unsigned(CertificateBuilder<Profile>);

/// Hands the builder what [`Content`] says, and nothing of its own.
struct Profile {
    issuer: Name,
    subject: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _content: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

impl Unsigned {
    pub(super) fn new(content: Content) -> Result<Self, x509_cert::builder::Error> {
        let Content { issuer, subject, serial, not_before, not_after, key, extensions } = content;
        let serial = x509_cert::serial_number::SerialNumber::new(serial.as_bytes())?;
        let validity = Validity::new(time(not_before)?, time(not_after)?);
        let profile = Profile { issuer, subject, extensions };
        CertificateBuilder::new(profile, serial, validity, key).map(Self)
    }

    /// Signs by ECDSA with SHA-256 and the deterministic k of RFC 6979.
    pub(super) fn sign(self, key: &SigningKey) -> Result<CertificateDer<'static>, x509_cert::builder::Error> {
        let certificate = self.0.build::<_, DerSignature>(key)?;
        Ok(CertificateDer::from(certificate.to_der()?))
    }
}

/// An extension with the criticality that RFC 5280 gives it for this subject.
pub(super) fn extension<'a, T>(value: &'a T, subject: &Name) -> der::Result<Extension>
where
    &'a T: ToExtension<Error = der::Error>,
{
    value.to_extension(subject, &[])
}

/// The leftmost 160 bits of SHA-256 over the key (RFC 7093, 2, method 1).
pub(super) fn key_identifier(key: &SubjectPublicKeyInfoOwned) -> der::Result<OctetString> {
    let digest = hash(HashAlgorithm::Sha256, &[key.subject_public_key.raw_bytes()]);
    let identifier: Vec<u8> = digest.as_bytes().iter().copied().take(20).collect();
    OctetString::new(identifier)
}

pub(super) fn subject_key(identifier: OctetString) -> SubjectKeyIdentifier {
    SubjectKeyIdentifier(identifier)
}

pub(super) fn authority_key(identifier: OctetString) -> AuthorityKeyIdentifier {
    AuthorityKeyIdentifier { key_identifier: Some(identifier), ..Default::default() }
}

pub(super) fn uri(uri: &str) -> der::Result<GeneralName> {
    Ia5String::new(uri).map(GeneralName::UniformResourceIdentifier)
}

/// `time` as a certificate can say it: in whole seconds.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millis(time.as_seconds().saturating_mul(1000))
}

pub(super) fn time(at: Timestamp) -> der::Result<Time> {
    let seconds = u64::try_from(at.as_seconds()).map_err(|_| der::Error::from(der::ErrorKind::DateTime))?;
    DateTime::from_unix_duration(Duration::from_secs(seconds)).map(Time::from)
}

pub(crate) fn timestamp(time: Time) -> Timestamp {
    let millis = i64::try_from(time.to_unix_duration().as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(millis)
}

/// PEM (RFC 7468, 5), one block after the other.
pub(super) fn certificates_pem<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Result<String, der::pem::Error> {
    let mut out = String::new();
    for certificate in certificates {
        out.push_str(&der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, certificate)?);
    }
    Ok(out)
}
