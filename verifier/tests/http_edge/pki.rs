//! Certificates for tests, signed by our CA or by another.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use der::asn1::{Ia5String, OctetString};
use der::{DateTime, Decode, Encode};
use p256::SecretKey;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::EncodePrivateKey;
use rootbound_common::clock::Timestamp;
use rootbound_common::random;
use rootbound_verifier::credential::authority::Authority;
use rootbound_verifier::credential::serial::SerialNumber;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_cert::Certificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

/// docs/PROTOCOL.md, "The posture epoch in a certificate".
const POSTURE_EPOCH: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113556.1.8000.2554.30040.762.2520.18532.41048.3449678.11088830.1");

/// A CA whose key the test has.
pub(crate) struct Ca {
    key: SigningKey,
    certificate: CertificateDer<'static>,
}

/// A certificate with its key, as rustls takes them.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivatePkcs8KeyDer<'static>,
    pub(crate) serial: SerialNumber,
}

impl Leaf {
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

impl Ca {
    pub(crate) fn of(authority: &Authority) -> Self {
        let pem = authority.private_key_pem().unwrap();
        let key = SecretKey::from_pem(&pem).unwrap();
        Self { key: SigningKey::from(key), certificate: authority.chain()[0].clone() }
    }

    /// Another CA, of the same trust domain and the same name of its own.
    pub(crate) fn other(now: Timestamp) -> Self {
        let life = Duration::from_secs(30 * 24 * 3600);
        let authority = Authority::generate(super::stage::domain(), now, life, &mut random::system());
        Self::of(&authority.unwrap())
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// Writes a server's certificate for `localhost` and its key.
    pub(crate) fn write_server(&self, not_before: Timestamp, certificate: &Path, key: &Path) {
        let leaf = self.sign_names(vec![dns("localhost")], not_before);
        std::fs::write(certificate, block("CERTIFICATE", &leaf.chain[0])).unwrap();
        std::fs::write(key, block("PRIVATE KEY", leaf.key.secret_pkcs8_der())).unwrap();
    }

    /// A client certificate with this URI, for ten minutes.
    pub(crate) fn sign(&self, uri: &str, not_before: Timestamp) -> Leaf {
        self.sign_names(
            vec![GeneralName::UniformResourceIdentifier(Ia5String::new(uri).unwrap())],
            not_before,
        )
    }

    /// The same, that names the posture epoch of its node, as ours do.
    pub(crate) fn sign_at_epoch(&self, uri: &str, not_before: Timestamp, epoch: u64) -> Leaf {
        let name = GeneralName::UniformResourceIdentifier(Ia5String::new(uri).unwrap());
        self.sign_with(vec![name], Some(epoch), not_before)
    }

    /// A client certificate with this DNS name, for ten minutes.
    pub(crate) fn sign_dns(&self, name: &str, not_before: Timestamp) -> Leaf {
        self.sign_names(vec![dns(name)], not_before)
    }

    /// Writes its certificate.
    pub(crate) fn write_certificate(&self, path: &Path) {
        std::fs::write(path, block("CERTIFICATE", &self.certificate)).unwrap();
    }

    fn sign_names(&self, names: Vec<GeneralName>, not_before: Timestamp) -> Leaf {
        self.sign_with(names, None, not_before)
    }

    fn sign_with(&self, names: Vec<GeneralName>, epoch: Option<u64>, not_before: Timestamp) -> Leaf {
        let secret = SecretKey::generate_from_rng(&mut random::system());
        let serial = SerialNumber::generate(&mut random::system());
        let issuer = Certificate::from_der(&self.certificate).unwrap();
        let profile = Profile { issuer: issuer.tbs_certificate().subject().clone(), names, epoch };
        let validity = Validity::new(time(not_before), time(not_before.plus(Duration::from_secs(600))));
        let number = x509_cert::serial_number::SerialNumber::new(serial.as_bytes()).unwrap();
        let public = SubjectPublicKeyInfoOwned::from_key(&secret.public_key()).unwrap();
        let builder = CertificateBuilder::new(profile, number, validity, public).unwrap();
        let certificate = builder.build::<_, DerSignature>(&self.key).unwrap();
        let key = PrivatePkcs8KeyDer::from(secret.to_pkcs8_der().unwrap().as_bytes().to_vec());
        Leaf { chain: vec![CertificateDer::from(certificate.to_der().unwrap())], key, serial }
    }
}

/// PEM.
pub(crate) fn block(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn dns(name: &str) -> GeneralName {
    GeneralName::DnsName(Ia5String::new(name).unwrap())
}

fn time(at: Timestamp) -> Time {
    let since = Duration::from_secs(u64::try_from(at.as_seconds()).unwrap());
    Time::GeneralTime(DateTime::from_unix_duration(since).unwrap().into())
}

struct Profile {
    issuer: Name,
    names: Vec<GeneralName>,
    epoch: Option<u64>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        "CN=test".parse().unwrap()
    }

    fn build_extensions(
        &self,
        _key: SubjectPublicKeyInfoRef<'_>,
        issuer_key: SubjectPublicKeyInfoRef<'_>,
        _content: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let subject = self.get_subject();
        let identifier = OctetString::new(&issuer_key.subject_public_key.raw_bytes()[..20])?;
        let authority =
            AuthorityKeyIdentifier { key_identifier: Some(identifier), ..AuthorityKeyIdentifier::default() };
        let usages = vec![ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH];
        let mut before = Vec::new();
        for extension in [
            BasicConstraints { ca: false, path_len_constraint: None }.to_extension(&subject, &before)?,
            KeyUsage(KeyUsages::DigitalSignature.into()).to_extension(&subject, &before)?,
            ExtendedKeyUsage(usages).to_extension(&subject, &before)?,
            SubjectAltName(self.names.clone()).to_extension(&subject, &before)?,
            authority.to_extension(&subject, &before)?,
        ] {
            before.push(extension);
        }
        if let Some(epoch) = self.epoch {
            let value = OctetString::new(epoch.to_der()?)?;
            before.push(Extension { extn_id: POSTURE_EPOCH, critical: false, extn_value: value });
        }
        Ok(before)
    }
}

/// For clients that show no certificate or one.
pub(crate) fn shown(leaf: Option<&Leaf>) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    leaf.map(|leaf| (leaf.chain.clone(), leaf.key()))
}

/// The verifier's clock, for a client's TLS.
#[derive(Debug)]
pub(crate) struct ClientTime(pub(crate) Arc<super::stage::TestClock>);

impl rustls::time_provider::TimeProvider for ClientTime {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        use rootbound_common::clock::Clock as _;
        let seconds = u64::try_from(self.0.now().as_seconds()).unwrap();
        Some(rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
