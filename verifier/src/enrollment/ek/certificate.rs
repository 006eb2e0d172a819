//! X.509 certificates of TPM vendors, read for what a chain needs.
//!
//! Signatures are verified over the bytes as they came: nothing is encoded again, so that what vendors encode in their
//! own way (explicit defaults, bit strings that are too long) neither breaks a good chain nor hides anything.

use der::asn1::ObjectIdentifier;
use der::{Decode, Reader, SliceReader, Tag};
use rootbound_common::clock::Timestamp;
use rootbound_common::tpm::{Curve, KeyParameters, Public};

use super::asn1::{
    MalformedCertificate, bit_string, context, context_primitive, end, integer, next_tag, raw, reader, time,
    value,
};
use super::extensions::{Extensions, for_each_extension};
use super::name::Name;

use MalformedCertificate::NotDer;

/// A certificate, read. Nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    /// The whole, as it came.
    pub(super) der: Vec<u8>,
    /// What the signature covers.
    pub(super) signed: Signed,
    /// Content of the INTEGER.
    pub(super) serial: Vec<u8>,
    pub(super) issuer: Name,
    pub(super) subject: Name,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// The subject's key.
    pub(super) key: SubjectKey,
    pub(super) extensions: Extensions,
}

/// Bytes and the signature over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    /// The bytes, as they came.
    pub(super) bytes: Vec<u8>,
    /// Content of the AlgorithmIdentifier.
    pub(super) algorithm: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// A SubjectPublicKeyInfo in its two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubjectKey {
    /// Content of the AlgorithmIdentifier.
    pub(super) algorithm: Vec<u8>,
    /// Content of the BIT STRING.
    pub(super) bits: Vec<u8>,
}

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// STMicroelectronics' certificates name the key so (RFC 4055, 4.1).
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

impl Certificate {
    /// Reads a certificate as TPMs and files hold it: bare, or under the header that TPM 1.2 gave it, and perhaps
    /// with filler behind it, which is cut off and not looked at again.
    pub(super) fn parse_padded(bytes: &[u8]) -> Result<Self, MalformedCertificate> {
        Self::parse(trim(without_header(bytes))?)
    }

    /// Reads a DER certificate; nothing may follow it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, MalformedCertificate> {
        let (signed, tbs) = Signed::parse(bytes, "certificate")?;
        let mut tbs = tbs;
        expect_version_3(&mut tbs)?;
        let serial = integer(&mut tbs, "serial number")?.to_vec();
        let algorithm = value(&mut tbs, Tag::Sequence, "signature algorithm")?;
        if algorithm != signed.algorithm {
            return Err(MalformedCertificate::TwoSignatureAlgorithms);
        }
        let issuer = Name::read(&mut tbs, "issuer")?;
        let mut validity = reader(value(&mut tbs, Tag::Sequence, "validity")?, "validity")?;
        let not_before = time(&mut validity, "notBefore")?;
        let not_after = time(&mut validity, "notAfter")?;
        end(&validity, "validity")?;
        let subject = Name::read(&mut tbs, "subject")?;
        let key = SubjectKey::parse(value(&mut tbs, Tag::Sequence, "public key")?)?;
        let extensions = read_tail(&mut tbs)?;
        let der = bytes.to_vec();
        Ok(Self { der, signed, serial, issuer, subject, not_before, not_after, key, extensions })
    }

    /// Whether the certificate's key is this very key: the same numbers, however the algorithm is named.
    pub(super) fn is_for(&self, public: &Public) -> bool {
        self.key.is(public.parameters()).unwrap_or(false)
    }

    /// What to call it: its subject, or its serial number, as the subject of an EK certificate is often empty.
    pub(super) fn called(&self) -> String {
        let subject = self.subject.to_string();
        if subject.is_empty() {
            return format!("serial number {}", data_encoding::HEXLOWER.encode(&self.serial));
        }
        subject
    }

    /// Whether issuer and subject are one name.
    pub(super) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }
}

impl Signed {
    /// Reads SIGNED{…} (X.509, 6.1): the bytes under the signature, and a reader over their content.
    pub(super) fn parse<'a>(
        bytes: &'a [u8],
        what: &'static str,
    ) -> Result<(Self, SliceReader<'a>), MalformedCertificate> {
        let mut outer = reader(bytes, what)?;
        let mut inner = reader(value(&mut outer, Tag::Sequence, what)?, what)?;
        end(&outer, what)?;
        let covered = raw(&mut inner, Tag::Sequence, what)?;
        let algorithm = value(&mut inner, Tag::Sequence, "signature algorithm")?.to_vec();
        let signature = bit_string(&mut inner, "signature")?.to_vec();
        end(&inner, what)?;
        let mut content = reader(covered, what)?;
        let content = reader(value(&mut content, Tag::Sequence, what)?, what)?;
        Ok((Self { bytes: covered.to_vec(), algorithm, signature }, content))
    }
}

impl SubjectKey {
    fn parse(info: &[u8]) -> Result<Self, MalformedCertificate> {
        const WHAT: &str = "public key";
        let mut info = reader(info, WHAT)?;
        let algorithm = value(&mut info, Tag::Sequence, WHAT)?.to_vec();
        let bits = bit_string(&mut info, WHAT)?.to_vec();
        end(&info, WHAT)?;
        Ok(Self { algorithm, bits })
    }

    fn is(&self, parameters: &KeyParameters) -> Result<bool, MalformedCertificate> {
        const WHAT: &str = "public key";
        let mut algorithm = reader(&self.algorithm, WHAT)?;
        let kind = ObjectIdentifier::decode(&mut algorithm).map_err(|_| NotDer(WHAT))?;
        match parameters {
            KeyParameters::Rsa { modulus, exponent, .. } => {
                if kind != RSA_ENCRYPTION && kind != RSAES_OAEP {
                    return Ok(false);
                }
                let mut outer = reader(&self.bits, WHAT)?;
                let mut numbers = reader(value(&mut outer, Tag::Sequence, WHAT)?, WHAT)?;
                let found_modulus = value(&mut numbers, Tag::Integer, WHAT)?;
                let found_exponent = value(&mut numbers, Tag::Integer, WHAT)?;
                Ok(strip(found_modulus) == strip(modulus)
                    && strip(found_exponent) == strip(&exponent.to_be_bytes()))
            }
            KeyParameters::Ecc { curve, x, y, .. } => {
                if kind != EC_PUBLIC_KEY {
                    return Ok(false);
                }
                let found = ObjectIdentifier::decode(&mut algorithm).map_err(|_| NotDer(WHAT))?;
                let expected = match curve {
                    Curve::P256 => PRIME256V1,
                    Curve::P384 => SECP384R1,
                };
                Ok(found == expected && self.bits == [&[0x04], x.as_slice(), y.as_slice()].concat())
            }
        }
    }
}

/// Without leading zeros.
fn strip(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Takes off the header of TPM 1.2's stored certificates (TCG PC Client Implementation 1.2, 7.3.2), which NV indices of
/// TPM 2.0 inherited in some machines: TCG_PCCLIENT_STORED_CERT, full certificate, length, TCG_FULL_CERT.
fn without_header(bytes: &[u8]) -> &[u8] {
    match bytes {
        [0x10, 0x01, 0x00, high, low, 0x10, 0x02, certificate @ ..] => {
            // The length covers the inner tag too.
            let length = usize::from(u16::from_be_bytes([*high, *low])).saturating_sub(2);
            certificate.get(..length).unwrap_or(bytes)
        }
        _ => bytes,
    }
}

/// Cuts at the outer length what may only be filler: one byte over and over (NV indices), or ends of lines (files).
fn trim(bytes: &[u8]) -> Result<&[u8], MalformedCertificate> {
    let certificate = reader(bytes, "certificate")?.tlv_bytes().map_err(|_| NotDer("certificate"))?;
    let filler = bytes.get(certificate.len()..).unwrap_or_default();
    let repeated = filler.first().is_none_or(|first| filler.iter().all(|byte| byte == first));
    if repeated || filler == b"\r\n" {
        Ok(certificate)
    } else {
        Err(MalformedCertificate::Trailing { length: filler.len() })
    }
}

fn expect_version_3(tbs: &mut SliceReader<'_>) -> Result<(), MalformedCertificate> {
    if next_tag(tbs) != Some(context(0)) {
        return Err(MalformedCertificate::Version);
    }
    let mut version = reader(value(tbs, context(0), "version")?, "version")?;
    match value(&mut version, Tag::Integer, "version")? {
        [2] => end(&version, "version"),
        _ => Err(MalformedCertificate::Version),
    }
}

/// Unique identifiers, which have no meaning here, and the extensions.
fn read_tail(tbs: &mut SliceReader<'_>) -> Result<Extensions, MalformedCertificate> {
    const WHAT: &str = "extensions";
    for number in [1, 2] {
        if next_tag(tbs) == Some(context_primitive(number)) {
            value(tbs, context_primitive(number), "unique identifier")?;
        }
    }
    let mut extensions = Extensions::default();
    if !tbs.is_finished() {
        let mut list = reader(value(tbs, context(3), WHAT)?, WHAT)?;
        for_each_extension(&mut list, |id, critical, content| extensions.take(id, critical, content))?;
        end(tbs, WHAT)?;
    }
    Ok(extensions)
}
