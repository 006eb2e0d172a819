//! X.509 certificates of TPM vendors, read for what a chain needs.
//!
//! Signatures are verified over the bytes as they came: nothing is encoded again, so that what vendors encode in their
//! own way (explicit defaults, bit strings that are too long) neither breaks a good chain nor hides anything.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, TagNumber};
use rootbound_common::clock::Timestamp;
use rootbound_common::tpm::{Curve, KeyParameters, Public};
use x509_cert::time::Time;

/// What of a certificate or CRL is not as X.509 has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCertificate {
    /// A field is not DER of its type.
    #[error("{0} is not DER of its type")]
    NotDer(&'static str),
    /// Something other than filler follows the certificate.
    #[error("{length} bytes that are no filler follow the certificate")]
    Trailing {
        /// How many.
        length: usize,
    },
    /// Only version 3 has the extensions that a chain needs.
    #[error("the certificate is not of version 3")]
    Version,
    /// Both places that name the signature algorithm must agree.
    #[error("the certificate names two signature algorithms")]
    TwoSignatureAlgorithms,
    /// An extension occurs twice, so that it has no one meaning.
    #[error("extension {0} occurs twice")]
    RepeatedExtension(ObjectIdentifier),
    /// More extensions than any certificate of a TPM has.
    #[error("more than {limit} extensions")]
    TooManyExtensions {
        /// The limit.
        limit: usize,
    },
}

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
    /// Name, DER.
    pub(super) issuer: Vec<u8>,
    /// Name, DER.
    pub(super) subject: Vec<u8>,
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

/// The extensions that matter to a chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Extensions {
    /// BasicConstraints with cA set.
    pub(super) authority: bool,
    /// pathLenConstraint.
    pub(super) path_length: Option<u32>,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) extended_key_usage: Option<Vec<ObjectIdentifier>>,
    /// GeneralNames, DER.
    pub(super) subject_alternative_name: Option<Vec<u8>>,
    /// GeneralNames of all distribution points' full names, each name in DER.
    pub(super) crl_distribution_points: Vec<Vec<u8>>,
    /// The first critical extension that a chain's check does not know, nameConstraints included.
    pub(super) unknown_critical: Option<ObjectIdentifier>,
}

/// The first octet of KeyUsage (RFC 5280, 4.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyUsage(u8);

impl KeyUsage {
    pub(super) const KEY_ENCIPHERMENT: u8 = 0x20;
    pub(super) const KEY_AGREEMENT: u8 = 0x08;
    pub(super) const KEY_CERT_SIGN: u8 = 0x04;
    pub(super) const CRL_SIGN: u8 = 0x02;

    /// Whether at least one of `bits` is set.
    pub(super) fn allows(self, bits: u8) -> bool {
        self.0 & bits != 0
    }
}

pub(super) const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SUBJECT_ALTERNATIVE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
/// Half of the vendors' CAs mark it critical. No policy is asked for, so that each is acceptable (RFC 5280, 6.1.1 c).
const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
/// Refused even where it is not critical, as RFC 5280 says it must be: it narrows what a CA may sign.
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");

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
        let issuer = raw(&mut tbs, Tag::Sequence, "issuer")?.to_vec();
        let mut validity = reader(value(&mut tbs, Tag::Sequence, "validity")?, "validity")?;
        let not_before = time(&mut validity, "notBefore")?;
        let not_after = time(&mut validity, "notAfter")?;
        end(&validity, "validity")?;
        let subject = raw(&mut tbs, Tag::Sequence, "subject")?.to_vec();
        let key = SubjectKey::parse(value(&mut tbs, Tag::Sequence, "public key")?)?;
        let extensions = read_tail(&mut tbs)?;
        let der = bytes.to_vec();
        Ok(Self { der, signed, serial, issuer, subject, not_before, not_after, key, extensions })
    }

    /// Whether the certificate's key is this very key: the same numbers, however the algorithm is named.
    pub(super) fn is_for(&self, public: &Public) -> bool {
        self.key.is(public.parameters()).unwrap_or(false)
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

pub(super) fn reader<'a>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<SliceReader<'a>, MalformedCertificate> {
    SliceReader::new(bytes).map_err(|_| NotDer(what))
}

/// The content of the next element, which must have this tag.
pub(super) fn value<'a>(
    reader: &mut SliceReader<'a>,
    tag: Tag,
    what: &'static str,
) -> Result<&'a [u8], MalformedCertificate> {
    let element = AnyRef::decode(reader).map_err(|_| NotDer(what))?;
    if der::Tagged::tag(&element) == tag { Ok(element.value()) } else { Err(NotDer(what)) }
}

/// The next element with its header; it must have this tag.
pub(super) fn raw<'a>(
    reader: &mut SliceReader<'a>,
    tag: Tag,
    what: &'static str,
) -> Result<&'a [u8], MalformedCertificate> {
    if next_tag(reader) != Some(tag) {
        return Err(NotDer(what));
    }
    reader.tlv_bytes().map_err(|_| NotDer(what))
}

/// The tag of the next element, where there is one.
pub(super) fn next_tag(reader: &SliceReader<'_>) -> Option<Tag> {
    Tag::peek(reader).ok()
}

/// The content of an INTEGER, in as few bytes as can be (X.690, 8.3.2): a number that a CRL may list has one spelling.
pub(super) fn integer<'a>(
    reader: &mut SliceReader<'a>,
    what: &'static str,
) -> Result<&'a [u8], MalformedCertificate> {
    match value(reader, Tag::Integer, what)? {
        [] => Err(NotDer(what)),
        [0x00, second, ..] if second & 0x80 == 0 => Err(NotDer(what)),
        [0xff, second, ..] if second & 0x80 != 0 => Err(NotDer(what)),
        number => Ok(number),
    }
}

fn bit_string<'a>(
    reader: &mut SliceReader<'a>,
    what: &'static str,
) -> Result<&'a [u8], MalformedCertificate> {
    match value(reader, Tag::BitString, what)? {
        [0, bits @ ..] => Ok(bits),
        _ => Err(NotDer(what)),
    }
}

/// BOOLEAN; what is not zero is true, as BER has it.
pub(super) fn boolean(
    reader: &mut SliceReader<'_>,
    what: &'static str,
) -> Result<bool, MalformedCertificate> {
    match value(reader, Tag::Boolean, what)? {
        [byte] => Ok(*byte != 0),
        _ => Err(NotDer(what)),
    }
}

pub(super) fn time(
    reader: &mut SliceReader<'_>,
    what: &'static str,
) -> Result<Timestamp, MalformedCertificate> {
    let time = Time::decode(reader).map_err(|_| NotDer(what))?;
    let millis = i64::try_from(time.to_unix_duration().as_millis()).map_err(|_| NotDer(what))?;
    Ok(Timestamp::from_millis(millis))
}

pub(super) const fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

pub(super) const fn context_primitive(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: false, number: TagNumber(number) }
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

/// Ends an element: nothing may be left in it.
pub(super) fn end(reader: &SliceReader<'_>, what: &'static str) -> Result<(), MalformedCertificate> {
    if reader.is_finished() { Ok(()) } else { Err(NotDer(what)) }
}

/// Walks SEQUENCE OF Extension: each identifier at most once.
pub(super) fn for_each_extension<'a>(
    list: &mut SliceReader<'a>,
    mut take: impl FnMut(ObjectIdentifier, bool, &'a [u8]) -> Result<(), MalformedCertificate>,
) -> Result<(), MalformedCertificate> {
    const WHAT: &str = "extension";
    /// The corpus of vendor certificates has at most 12.
    const LIMIT: usize = 32;
    let mut extensions = reader(value(list, Tag::Sequence, "extensions")?, "extensions")?;
    end(list, WHAT)?;
    let mut seen = Vec::new();
    while !extensions.is_finished() {
        if seen.len() == LIMIT {
            return Err(MalformedCertificate::TooManyExtensions { limit: LIMIT });
        }
        let mut extension = reader(value(&mut extensions, Tag::Sequence, WHAT)?, WHAT)?;
        let id = ObjectIdentifier::decode(&mut extension).map_err(|_| NotDer(WHAT))?;
        if seen.contains(&id) {
            return Err(MalformedCertificate::RepeatedExtension(id));
        }
        seen.push(id);
        let critical = next_tag(&extension) == Some(Tag::Boolean) && boolean(&mut extension, WHAT)?;
        let content = value(&mut extension, Tag::OctetString, WHAT)?;
        end(&extension, WHAT)?;
        take(id, critical, content)?;
    }
    Ok(())
}

impl Extensions {
    fn take(
        &mut self,
        id: ObjectIdentifier,
        critical: bool,
        content: &[u8],
    ) -> Result<(), MalformedCertificate> {
        match id {
            BASIC_CONSTRAINTS => self.take_basic_constraints(content)?,
            KEY_USAGE => self.key_usage = Some(read_key_usage(content)?),
            EXTENDED_KEY_USAGE => self.extended_key_usage = Some(read_identifiers(content)?),
            SUBJECT_ALTERNATIVE_NAME => self.subject_alternative_name = Some(content.to_vec()),
            CRL_DISTRIBUTION_POINTS => self.crl_distribution_points = read_distribution_points(content)?,
            CERTIFICATE_POLICIES => {}
            other if critical || other == NAME_CONSTRAINTS => {
                self.unknown_critical.get_or_insert(other);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_basic_constraints(&mut self, content: &[u8]) -> Result<(), MalformedCertificate> {
        const WHAT: &str = "basicConstraints";
        let mut outer = reader(content, WHAT)?;
        let mut inner = reader(value(&mut outer, Tag::Sequence, WHAT)?, WHAT)?;
        end(&outer, WHAT)?;
        self.authority = next_tag(&inner) == Some(Tag::Boolean) && boolean(&mut inner, WHAT)?;
        if !inner.is_finished() {
            self.path_length = Some(u32::decode(&mut inner).map_err(|_| NotDer(WHAT))?);
        }
        end(&inner, WHAT)
    }
}

/// Named bits; vendors do not always drop zeros at the end.
fn read_key_usage(content: &[u8]) -> Result<KeyUsage, MalformedCertificate> {
    const WHAT: &str = "keyUsage";
    let mut outer = reader(content, WHAT)?;
    let found = match value(&mut outer, Tag::BitString, WHAT)? {
        [unused, first, ..] if *unused < 8 => Ok(KeyUsage(*first)),
        [0] => Ok(KeyUsage(0)),
        _ => Err(NotDer(WHAT)),
    };
    end(&outer, WHAT)?;
    found
}

fn read_identifiers(content: &[u8]) -> Result<Vec<ObjectIdentifier>, MalformedCertificate> {
    const WHAT: &str = "extendedKeyUsage";
    let mut outer = reader(content, WHAT)?;
    let mut inner = reader(value(&mut outer, Tag::Sequence, WHAT)?, WHAT)?;
    end(&outer, WHAT)?;
    let mut identifiers = Vec::new();
    while !inner.is_finished() {
        identifiers.push(ObjectIdentifier::decode(&mut inner).map_err(|_| NotDer(WHAT))?);
    }
    Ok(identifiers)
}

/// CRLDistributionPoints (RFC 5280, 4.2.1.13): the full names; other ways to name a point are passed over.
fn read_distribution_points(content: &[u8]) -> Result<Vec<Vec<u8>>, MalformedCertificate> {
    const WHAT: &str = "cRLDistributionPoints";
    let mut outer = reader(content, WHAT)?;
    let mut points = reader(value(&mut outer, Tag::Sequence, WHAT)?, WHAT)?;
    end(&outer, WHAT)?;
    let mut names = Vec::new();
    while !points.is_finished() {
        let mut point = reader(value(&mut points, Tag::Sequence, WHAT)?, WHAT)?;
        if next_tag(&point) == Some(context(0)) {
            names.extend(read_full_name(value(&mut point, context(0), WHAT)?, WHAT)?.unwrap_or_default());
        }
    }
    Ok(names)
}

/// DistributionPointName: each GeneralName of `fullName` in DER; nothing for `nameRelativeToCRLIssuer`.
pub(super) fn read_full_name(
    content: &[u8],
    what: &'static str,
) -> Result<Option<Vec<Vec<u8>>>, MalformedCertificate> {
    let mut choice = reader(content, what)?;
    if next_tag(&choice) != Some(context(0)) {
        return Ok(None);
    }
    let mut general_names = reader(value(&mut choice, context(0), what)?, what)?;
    let mut names = Vec::new();
    while !general_names.is_finished() {
        names.push(general_names.tlv_bytes().map_err(|_| NotDer(what))?.to_vec());
    }
    Ok(Some(names))
}
