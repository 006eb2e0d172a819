//! DER, element by element: a few steps above the tags and lengths that the `der` crate reads.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, TagNumber};
use rootbound_common::clock::Timestamp;
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

/// The bits of a BIT STRING of whole bytes.
pub(super) fn bit_string<'a>(
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

/// Ends an element: nothing may be left in it.
pub(super) fn end(reader: &SliceReader<'_>, what: &'static str) -> Result<(), MalformedCertificate> {
    if reader.is_finished() { Ok(()) } else { Err(NotDer(what)) }
}
