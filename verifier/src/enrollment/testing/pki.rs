//! Certificates and CRLs to order, good and bad, in DER made by hand: a library would not let the bad ones through.

use p256::ecdsa::signature::Signer;
use p256::elliptic_curve::sec1::ToSec1Point;

use super::p256_key;

/// A DER element.
pub(in crate::enrollment) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=0x7f => out.push(u8::try_from(length).unwrap()),
        0x80..=0xff => out.extend([0x81, u8::try_from(length).unwrap()]),
        _ => {
            out.push(0x82);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out
}

/// SEQUENCE.
pub(in crate::enrollment) fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// OBJECT IDENTIFIER.
pub(in crate::enrollment) fn oid(text: &str) -> Vec<u8> {
    tlv(0x06, der::asn1::ObjectIdentifier::new_unwrap(text).as_bytes())
}

fn bits(content: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], content].concat())
}

/// A name of one commonName as UTF8String, or as PrintableString after `printable:`; empty for an empty text.
fn name(common_name: &str) -> Vec<u8> {
    if common_name.is_empty() {
        return seq(&[]);
    }
    let (tag, text) = match common_name.strip_prefix("printable:") {
        Some(text) => (0x13, text),
        None => (0x0c, common_name),
    };
    seq(&[&tlv(0x31, &seq(&[&oid("2.5.4.3"), &tlv(tag, text.as_bytes())]))])
}

fn time(text: &str) -> Vec<u8> {
    // UTCTime has two digits of the year and 13 characters, GeneralizedTime four and 15.
    tlv(if text.len() == 13 { 0x17 } else { 0x18 }, text.as_bytes())
}

fn extension(id: &str, critical: bool, content: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    seq(&[&oid(id), critical, &tlv(0x04, content)])
}

/// SubjectPublicKeyInfo of the P-256 key with this seed.
pub(in crate::enrollment) fn p256_info(seed: u8) -> Vec<u8> {
    let point = p256_key(seed).public_key().to_sec1_point(false);
    let algorithm = seq(&[&oid("1.2.840.10045.2.1"), &oid("1.2.840.10045.3.1.7")]);
    seq(&[&algorithm, &bits(point.as_bytes())])
}

/// SubjectPublicKeyInfo of an RSA key, the algorithm named as the caller wants.
pub(in crate::enrollment) fn rsa_info(algorithm: &str, modulus: &[u8]) -> Vec<u8> {
    let modulus = tlv(0x02, &[&[0], modulus].concat());
    let key = seq(&[&modulus, &tlv(0x02, &[1, 0, 1])]);
    seq(&[&seq(&[&oid(algorithm), &[0x05, 0x00]]), &bits(&key)])
}

const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";

fn sign(algorithm: &str, covered: Vec<u8>, seed: u8) -> Vec<u8> {
    let signature: p256::ecdsa::DerSignature = p256::ecdsa::SigningKey::from(p256_key(seed)).sign(&covered);
    seq(&[&covered, &seq(&[&oid(algorithm)]), &bits(signature.as_bytes())])
}

/// A certificate to order, signed by a P-256 key.
#[derive(Clone)]
pub(in crate::enrollment) struct Certificate {
    version: Vec<u8>,
    serial: Vec<u8>,
    algorithm: &'static str,
    inner_algorithm: Option<&'static str>,
    subject: String,
    issuer: String,
    info: Vec<u8>,
    signer: u8,
    validity: (&'static str, &'static str),
    extensions: Vec<(&'static str, bool, Vec<u8>)>,
}

pub(in crate::enrollment) const BASIC_CONSTRAINTS: &str = "2.5.29.19";
pub(in crate::enrollment) const KEY_USAGE: &str = "2.5.29.15";
pub(in crate::enrollment) const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
pub(in crate::enrollment) const ALTERNATIVE_NAME: &str = "2.5.29.17";
pub(in crate::enrollment) const DISTRIBUTION_POINTS: &str = "2.5.29.31";

impl Certificate {
    fn new(subject: &str, info: Vec<u8>, issuer: &str, signer: u8) -> Self {
        Self {
            version: tlv(0xa0, &tlv(0x02, &[2])),
            serial: vec![0x11, signer],
            algorithm: ECDSA_WITH_SHA256,
            inner_algorithm: None,
            subject: subject.into(),
            issuer: issuer.into(),
            info,
            signer,
            validity: ("200101000000Z", "391231235959Z"),
            extensions: Vec::new(),
        }
    }

    /// A CA with the key of a seed, signed by itself.
    pub(in crate::enrollment) fn root(subject: &str, seed: u8) -> Self {
        Self::authority(subject, seed, subject, seed)
    }

    /// A CA with the key of a seed, signed by the CA with the key of another.
    pub(in crate::enrollment) fn authority(subject: &str, seed: u8, issuer: &str, signer: u8) -> Self {
        Self::new(subject, p256_info(seed), issuer, signer)
            .with(BASIC_CONSTRAINTS, true, &seq(&[&[0x01, 0x01, 0xff]]))
            .with(KEY_USAGE, true, &[0x03, 0x02, 0x01, 0x06])
    }

    /// An EK certificate as vendors make them: empty subject, the TPM in a critical alternative name.
    pub(in crate::enrollment) fn endorsement(info: Vec<u8>, issuer: &str, signer: u8) -> Self {
        let attribute = |id, text: &[u8]| tlv(0x31, &seq(&[&oid(id), &tlv(0x0c, text)]));
        let tpm = seq(&[
            &attribute("2.23.133.2.1", b"id:54455354"),
            &attribute("2.23.133.2.2", b"TEST TPM"),
            &attribute("2.23.133.2.3", b"id:00010002"),
        ]);
        Self::new("", info, issuer, signer)
            .with(BASIC_CONSTRAINTS, true, &seq(&[]))
            .with(KEY_USAGE, true, &[0x03, 0x02, 0x03, 0x28])
            .with(EXTENDED_KEY_USAGE, false, &seq(&[&oid("2.23.133.8.1")]))
            .with(ALTERNATIVE_NAME, true, &seq(&[&tlv(0xa4, &tpm)]))
    }

    /// With an extension, in place of one of the same id.
    pub(in crate::enrollment) fn with(mut self, id: &'static str, critical: bool, content: &[u8]) -> Self {
        self.extensions.retain(|(existing, ..)| *existing != id);
        self.extensions.push((id, critical, content.to_vec()));
        self
    }

    /// With an extension, even if there is one of the same id.
    pub(in crate::enrollment) fn with_again(mut self, id: &'static str, content: &[u8]) -> Self {
        self.extensions.push((id, false, content.to_vec()));
        self
    }

    pub(in crate::enrollment) fn without(mut self, id: &str) -> Self {
        self.extensions.retain(|(existing, ..)| *existing != id);
        self
    }

    pub(in crate::enrollment) fn path_length(self, length: u8) -> Self {
        self.with(BASIC_CONSTRAINTS, true, &seq(&[&[0x01, 0x01, 0xff], &tlv(0x02, &[length])]))
    }

    /// Content of the serial number's INTEGER.
    pub(in crate::enrollment) fn serial(mut self, serial: &[u8]) -> Self {
        self.serial = serial.to_vec();
        self
    }

    pub(in crate::enrollment) fn validity(mut self, from: &'static str, to: &'static str) -> Self {
        self.validity = (from, to);
        self
    }

    pub(in crate::enrollment) fn subject(mut self, subject: &str) -> Self {
        self.subject = subject.into();
        self
    }

    /// Without the field that says version 3.
    pub(in crate::enrollment) fn version_1(mut self) -> Self {
        self.version.clear();
        self
    }

    /// Names another algorithm than the one that signs.
    pub(in crate::enrollment) fn algorithm(mut self, algorithm: &'static str) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Names another algorithm inside than outside.
    pub(in crate::enrollment) fn inner_algorithm(mut self, algorithm: &'static str) -> Self {
        self.inner_algorithm = Some(algorithm);
        self
    }

    pub(in crate::enrollment) fn der(&self) -> Vec<u8> {
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(id, critical, content)| extension(id, *critical, content))
            .collect();
        let covered = seq(&[
            &self.version,
            &tlv(0x02, &self.serial),
            &seq(&[&oid(self.inner_algorithm.unwrap_or(self.algorithm))]),
            &name(&self.issuer),
            &seq(&[&time(self.validity.0), &time(self.validity.1)]),
            &name(&self.subject),
            &self.info,
            &tlv(0xa3, &tlv(0x30, &extensions)),
        ]);
        sign(self.algorithm, covered, self.signer)
    }
}

/// A CRL to order, signed by a P-256 key.
#[derive(Clone)]
pub(in crate::enrollment) struct Crl {
    issuer: String,
    signer: u8,
    this_update: &'static str,
    next_update: Option<&'static str>,
    serials: Vec<Vec<u8>>,
    entry_extension: Vec<u8>,
    extensions: Vec<Vec<u8>>,
}

impl Crl {
    pub(in crate::enrollment) fn new(issuer: &str, signer: u8, serials: &[&[u8]]) -> Self {
        Self {
            issuer: issuer.into(),
            signer,
            this_update: "291201000000Z",
            next_update: Some("300201000000Z"),
            serials: serials.iter().map(|serial| serial.to_vec()).collect(),
            entry_extension: Vec::new(),
            extensions: vec![extension("2.5.29.20", false, &tlv(0x02, &[7]))],
        }
    }

    pub(in crate::enrollment) fn updates(mut self, this: &'static str, next: Option<&'static str>) -> Self {
        (self.this_update, self.next_update) = (this, next);
        self
    }

    pub(in crate::enrollment) fn with(mut self, id: &'static str, critical: bool, content: &[u8]) -> Self {
        self.extensions.push(extension(id, critical, content));
        self
    }

    /// With a critical extension in each entry.
    pub(in crate::enrollment) fn with_in_entries(mut self, id: &'static str, content: &[u8]) -> Self {
        self.entry_extension = seq(&[&extension(id, true, content)]);
        self
    }

    pub(in crate::enrollment) fn der(&self) -> Vec<u8> {
        let entries: Vec<u8> = self
            .serials
            .iter()
            .flat_map(|serial| seq(&[&tlv(0x02, serial), &time("290601000000Z"), &self.entry_extension]))
            .collect();
        let entries = if entries.is_empty() { Vec::new() } else { tlv(0x30, &entries) };
        let covered = seq(&[
            &tlv(0x02, &[1]),
            &seq(&[&oid(ECDSA_WITH_SHA256)]),
            &name(&self.issuer),
            &time(self.this_update),
            &self.next_update.map(time).unwrap_or_default(),
            &entries,
            &tlv(0xa0, &tlv(0x30, &self.extensions.concat())),
        ]);
        sign(ECDSA_WITH_SHA256, covered, self.signer)
    }
}
