//! The posture epoch in a certificate: how often what a node may had changed when the certificate was issued.
//!
//! An extension of our own, never critical, so that whoever does not know it reads past it (RFC 5280, 4.2):
//!
//! ```text
//! id-rootbound-posture-epoch OBJECT IDENTIFIER ::=
//!     { iso(1) member-body(2) us(840) 113556 1 8000 2554 30040 762 2520 18532 41048 3449678 11088830 1 }
//! PostureEpoch ::= INTEGER (1..18446744073709551615)
//! ```
//!
//! The arc is of the UUID 755802fa-09d8-4864-a058-34a34ea933be, in the pieces that 1.2.840.113556.1.8000.2554 gives to
//! whoever has no arc. Not 2.25 (ITU-T X.667), where a UUID is one number of 128 bits: readers need to know numbers below
//! 2^28 only (RFC 5280, appendix B), and some, RustCrypto's among them, refuse the whole certificate.

use const_oid::{AssociatedOid, ObjectIdentifier};
use der::asn1::OctetString;
use der::{DecodeValue, Encode, EncodeValue, FixedTag, Header, Length, Reader, Tag, Writer};
use x509_cert::ext::Extension;

/// The epoch of a node, as a certificate says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PostureEpoch(pub(super) u64);

impl AssociatedOid for PostureEpoch {
    const OID: ObjectIdentifier = ObjectIdentifier::new_unwrap(
        "1.2.840.113556.1.8000.2554.30040.762.2520.18532.41048.3449678.11088830.1",
    );
}

impl FixedTag for PostureEpoch {
    const TAG: Tag = Tag::Integer;
}

impl EncodeValue for PostureEpoch {
    fn value_len(&self) -> der::Result<Length> {
        self.0.value_len()
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        self.0.encode_value(writer)
    }
}

impl<'a> DecodeValue<'a> for PostureEpoch {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        match u64::decode_value(reader, header)? {
            0 => Err(reader.error(Tag::Integer.value_error())),
            epoch => Ok(Self(epoch)),
        }
    }
}

impl PostureEpoch {
    pub(super) fn extension(self) -> der::Result<Extension> {
        Ok(Extension { extn_id: Self::OID, critical: false, extn_value: OctetString::new(self.to_der()?)? })
    }

    /// What a certificate says; `None` where it says nothing of it.
    pub(super) fn read(certificate: &x509_cert::TbsCertificate) -> der::Result<Option<Self>> {
        match certificate.get_extension::<Self>() {
            Ok(None) => Ok(None),
            Ok(Some((false, epoch))) => Ok(Some(epoch)),
            Ok(Some((true, _))) => Err(Tag::Boolean.value_error().into()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use der::Decode;

    use super::*;

    #[test]
    fn an_epoch_is_a_der_integer_of_64_bits_without_a_sign() {
        for (epoch, der) in [
            (1, &[0x02, 0x01, 0x01][..]),
            (127, &[0x02, 0x01, 0x7f]),
            (128, &[0x02, 0x02, 0x00, 0x80]),
            (u64::MAX, &[0x02, 0x09, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ] {
            assert_eq!(PostureEpoch(epoch).to_der().unwrap(), der);
            assert_eq!(PostureEpoch::from_der(der).unwrap(), PostureEpoch(epoch));
        }
        for der in [
            &[][..],
            &[0x02, 0x01, 0x00],
            &[0x02, 0x01, 0xff],
            &[0x02, 0x02, 0x00, 0x01],
            &[0x02, 0x01, 0x01, 0x00],
            &[0x02, 0x09, 0x01, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x04, 0x01, 0x01],
        ] {
            assert!(PostureEpoch::from_der(der).is_err(), "{der:02x?}");
        }
    }

    #[test]
    fn no_arc_of_the_extension_is_beyond_what_readers_must_know() {
        assert!(PostureEpoch::OID.arcs().all(|arc| arc < 1 << 28));
    }
}
