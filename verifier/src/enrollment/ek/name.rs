//! Names of subjects and issuers: compared as RFC 5280 asks for, and printed so that they are only text.

use std::fmt;

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use rootbound_common::text::only_shows;

use super::asn1::{MalformedCertificate, end, raw, reader, value};

/// The longest text that is taken out of a certificate.
const TEXT_LIMIT: usize = 256;

/// A name, as text and in the form that it is compared in.
#[derive(Clone)]
pub(super) struct Name {
    /// RDNs of attributes. Two are one name if all attributes are the same texts, in whichever type of string, in upper
    /// or lower case, and with however many spaces (RFC 5280, 7.1). STMicroelectronics' ECC chains need it: their root
    /// calls itself in one type of string, and is called in another.
    compared: Vec<Vec<Attribute>>,
    text: String,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    id: ObjectIdentifier,
    value: Value,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// A string of ASCII or UTF-8: lower case, one space between words.
    Text(String),
    /// Any other type, compared byte by byte.
    Other(Vec<u8>),
}

impl Name {
    /// Reads a Name.
    pub(super) fn read(from: &mut SliceReader<'_>, what: &'static str) -> Result<Self, MalformedCertificate> {
        let malformed = || MalformedCertificate::NotDer(what);
        let der = raw(from, Tag::Sequence, what)?;
        let mut outer = reader(der, what)?;
        let mut rdns = reader(value(&mut outer, Tag::Sequence, what)?, what)?;
        let mut compared = Vec::new();
        while !rdns.is_finished() {
            let mut set = reader(value(&mut rdns, Tag::Set, what)?, what)?;
            let mut attributes = Vec::new();
            while !set.is_finished() {
                let mut pair = reader(value(&mut set, Tag::Sequence, what)?, what)?;
                let id = ObjectIdentifier::decode(&mut pair).map_err(|_| malformed())?;
                let found = AnyRef::decode(&mut pair).map_err(|_| malformed())?;
                end(&pair, what)?;
                attributes.push(Attribute { id, value: Value::of(found) });
            }
            // A SET has no order.
            attributes.sort();
            compared.push(attributes);
        }
        Ok(Self { compared, text: text(der) })
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.compared == other.compared
    }
}

impl Eq for Name {}

impl Value {
    fn of(found: AnyRef<'_>) -> Self {
        let is_text = matches!(
            found.tag(),
            Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::VisibleString
        );
        match std::str::from_utf8(found.value()) {
            Ok(text) if is_text => {
                let words: Vec<_> = text.split_ascii_whitespace().collect();
                Self::Text(words.join(" ").to_ascii_lowercase())
            }
            _ => Self::Other(found.value().to_vec()),
        }
    }
}

/// RFC 4514, printable and bounded.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.text)
    }
}

fn text(name: &[u8]) -> String {
    let name = x509_cert::name::Name::from_der(name);
    name.map_or_else(|_| String::from("(unreadable name)"), |name| printable(&name.to_string()))
}

/// Without characters that move, colour, reorder or hide text, and bounded.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(TEXT_LIMIT)
        .map(|c| if only_shows(c) { c } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::testing::pki::{oid, seq, tlv};

    fn name(attributes: &[(&str, u8, &[u8])]) -> Name {
        let rdns: Vec<u8> = attributes
            .iter()
            .flat_map(|(id, tag, text)| tlv(0x31, &seq(&[&oid(id), &tlv(*tag, text)])))
            .collect();
        Name::read(&mut reader(&tlv(0x30, &rdns), "name").unwrap(), "name").unwrap()
    }

    const CN: &str = "2.5.4.3";
    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;
    const TELETEX: u8 = 0x14;

    #[test]
    fn names_are_one_in_any_type_of_string_case_and_spacing() {
        let one = name(&[(CN, UTF8, b"STM TPM ECC Root CA 01")]);
        assert_eq!(one, name(&[(CN, PRINTABLE, b"STM TPM ECC Root CA 01")]));
        assert_eq!(one, name(&[(CN, UTF8, b" stm  tpm ecc ROOT CA 01")]));
        assert_eq!(one.to_string(), "CN=STM TPM ECC Root CA 01");
    }

    #[test]
    fn names_differ_by_text_attribute_order_and_number() {
        let one = name(&[(CN, UTF8, b"Root"), ("2.5.4.10", UTF8, b"Vendor")]);
        for other in [
            name(&[(CN, UTF8, b"Root 2"), ("2.5.4.10", UTF8, b"Vendor")]),
            name(&[("2.5.4.11", UTF8, b"Root"), ("2.5.4.10", UTF8, b"Vendor")]),
            name(&[("2.5.4.10", UTF8, b"Vendor"), (CN, UTF8, b"Root")]),
            name(&[(CN, UTF8, b"Root")]),
            name(&[(CN, TELETEX, b"Root"), ("2.5.4.10", UTF8, b"Vendor")]),
            name(&[(CN, UTF8, b"RootVendor")]),
            name(&[]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn texts_are_bounded_and_print_as_text_only() {
        let hostile = name(&[(CN, UTF8, "a\u{1b}[31m\u{202e}\nb\u{feff}".as_bytes())]).to_string();
        assert!(hostile.chars().all(only_shows), "{hostile:?}");
        assert_eq!(name(&[(CN, UTF8, &[b'a'; 5000])]).to_string().chars().count(), TEXT_LIMIT);
    }
}
