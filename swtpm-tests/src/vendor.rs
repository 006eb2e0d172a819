//! A TPM vendor of a test's own: certificates for EKs of real TPMs, and CRLs, each of them wrong where a test says so.

use std::str::FromStr;
use std::time::Duration;

use der::asn1::{Null, ObjectIdentifier, OctetString, Uint};
use der::flagset::FlagSet;
use der::oid::AssociatedOid;
use der::{Decode, Encode};
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::Generate;
use rootbound_common::clock::{Clock, SystemClock};
use rootbound_common::crypto::subject_public_key_info;
use rootbound_common::random;
use rootbound_common::tpm::Public;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder, CrlBuilder};
use x509_cert::certificate::{Certificate, TbsCertificate};
use x509_cert::crl::RevokedCert;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, CrlNumber, ExtendedKeyUsage, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

/// tcg-kp-EKCertificate (TCG EK Credential Profile 2.5, 3.2.16).
pub const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
/// id-kp-clientAuth, for a certificate that is for something else.
pub const CLIENT_AUTHENTICATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// What a certificate says; change any field.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The subject, as RFC 4514 writes names.
    pub subject: String,
    /// The serial number.
    pub serial: u32,
    /// From when on it is valid, and until when: days from now.
    pub days: (i64, i64),
    /// Whether it is a CA's, and how many CAs it allows below itself.
    pub authority: Option<Option<u8>>,
    /// keyUsage.
    pub usage: FlagSet<KeyUsages>,
    /// extendedKeyUsage.
    pub purposes: Option<Vec<ObjectIdentifier>>,
    /// A critical extension that nobody knows.
    pub unknown_critical: bool,
}

impl Draft {
    /// A CA.
    #[must_use]
    pub fn authority(subject: &str) -> Self {
        Self {
            subject: format!("CN={subject}"),
            serial: 2,
            days: (-30, 3650),
            authority: Some(None),
            usage: KeyUsages::KeyCertSign | KeyUsages::CRLSign,
            purposes: None,
            unknown_critical: false,
        }
    }

    /// An EK certificate.
    #[must_use]
    pub fn endorsement() -> Self {
        Self {
            subject: "CN=a TPM".to_owned(),
            serial: 3,
            authority: None,
            usage: KeyUsages::KeyEncipherment | KeyUsages::KeyAgreement,
            purposes: Some(vec![EK_CERTIFICATE]),
            ..Self::authority("")
        }
    }

    /// The same with another serial number.
    #[must_use]
    pub fn serial(self, serial: u32) -> Self {
        Self { serial, ..self }
    }

    /// The same, valid at another time: days from now.
    #[must_use]
    pub fn days(self, from: i64, to: i64) -> Self {
        Self { days: (from, to), ..self }
    }
}

/// A CA with its key.
#[derive(Clone)]
pub struct Vendor {
    key: SigningKey,
    certificate: Certificate,
}

impl Vendor {
    /// A CA that signs itself.
    #[must_use]
    pub fn root(subject: &str) -> Self {
        let (key, draft) = (new_key(), Draft::authority(subject).serial(1));
        let issuer = Name::from_str(&draft.subject).expect("a name");
        let certificate = sign(&key, issuer, &draft, key_info(&key));
        Self { key, certificate }
    }

    /// A CA below this one.
    #[must_use]
    pub fn authority(&self, draft: &Draft) -> Self {
        let key = new_key();
        let certificate = self.sign(draft, key_info(&key));
        Self { key, certificate }
    }

    /// This CA, certified by another: same name, same key.
    #[must_use]
    pub fn certified_by(&self, other: &Self, draft: &Draft) -> Self {
        Self { key: self.key.clone(), certificate: other.sign(draft, key_info(&self.key)) }
    }

    /// The certificate of an EK, DER.
    ///
    /// # Panics
    /// Where the key has no SubjectPublicKeyInfo.
    #[must_use]
    pub fn endorse(&self, key: &Public, draft: &Draft) -> Vec<u8> {
        let info = subject_public_key_info(key).expect("a SubjectPublicKeyInfo");
        let info = SubjectPublicKeyInfoOwned::from_der(&info).expect("a SubjectPublicKeyInfo");
        self.sign(draft, info).to_der().expect("a certificate")
    }

    /// The CA's certificate, DER.
    #[must_use]
    pub fn der(&self) -> Vec<u8> {
        self.certificate.to_der().expect("a certificate")
    }

    /// A CRL of these serial numbers, DER, from now and until a day: days from now.
    #[must_use]
    pub fn crl(&self, revoked: &[u32], from: i64, to: i64) -> Vec<u8> {
        let number = CrlNumber::from(Uint::new(&[1]).expect("a number"));
        let entries = revoked.iter().map(|serial| RevokedCert {
            serial_number: serial_number(*serial),
            revocation_date: time(from),
            crl_entry_extensions: None,
        });
        let mut builder = CrlBuilder::new_with_this_update(&self.certificate, number, time(from))
            .expect("a CRL")
            .with_next_update(Some(time(to)));
        if !revoked.is_empty() {
            builder = builder.with_certificates(entries);
        }
        builder.build::<_, DerSignature>(&self.key).expect("a CRL").to_der().expect("a CRL")
    }

    fn sign(&self, draft: &Draft, key: SubjectPublicKeyInfoOwned) -> Certificate {
        sign(&self.key, self.certificate.tbs_certificate().subject().clone(), draft, key)
    }
}

fn sign(signer: &SigningKey, issuer: Name, draft: &Draft, key: SubjectPublicKeyInfoOwned) -> Certificate {
    let validity = Validity::new(time(draft.days.0), time(draft.days.1));
    let profile = Profile { issuer, draft: draft.clone() };
    let builder = CertificateBuilder::new(profile, serial_number(draft.serial), validity, key);
    builder.expect("a certificate").build::<_, DerSignature>(signer).expect("a certificate")
}

fn new_key() -> SigningKey {
    SigningKey::generate_from_rng(&mut random::system())
}

fn key_info(key: &SigningKey) -> SubjectPublicKeyInfoOwned {
    SubjectPublicKeyInfoOwned::from_key(key.verifying_key()).expect("a SubjectPublicKeyInfo")
}

fn serial_number(serial: u32) -> SerialNumber {
    SerialNumber::from(serial)
}

fn time(days: i64) -> Time {
    let day = Duration::from_secs(24 * 3600);
    let (now, distance) = (SystemClock.now(), day * u32::try_from(days.unsigned_abs()).expect("a few years"));
    let at = if days < 0 { now.minus(distance) } else { now.plus(distance) };
    let since_1970 = Duration::from_secs(u64::try_from(at.as_seconds()).expect("after 1970"));
    Time::try_from(std::time::UNIX_EPOCH + since_1970).expect("a time")
}

struct Profile {
    issuer: Name,
    draft: Draft,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        Name::from_str(&self.draft.subject).expect("a name")
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let draft = &self.draft;
        let constraints = BasicConstraints {
            ca: draft.authority.is_some(),
            path_len_constraint: draft.authority.flatten(),
        };
        let mut extensions = vec![extension(&constraints, true), extension(&KeyUsage(draft.usage), true)];
        if let Some(purposes) = &draft.purposes {
            extensions.push(extension(&ExtendedKeyUsage(purposes.clone()), false));
        }
        if draft.unknown_critical {
            extensions.push(Extension {
                extn_id: ObjectIdentifier::new_unwrap("1.3.6.1.4.1.32473.1"),
                critical: true,
                extn_value: OctetString::new(Null.to_der()?)?,
            });
        }
        Ok(extensions)
    }
}

fn extension<E: AssociatedOid + Encode>(value: &E, critical: bool) -> Extension {
    let content = value.to_der().expect("an extension");
    Extension { extn_id: E::OID, critical, extn_value: OctetString::new(content).expect("a short extension") }
}
