//! The extensions of certificates and CRLs that matter to a chain.

use der::asn1::ObjectIdentifier;
use der::{Decode, Reader, SliceReader, Tag};

use super::asn1::{MalformedCertificate, boolean, context, end, next_tag, reader, value};

use MalformedCertificate::NotDer;

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

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SUBJECT_ALTERNATIVE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
/// Half of the vendors' CAs mark it critical. No policy is asked for, so that each is acceptable (RFC 5280, 6.1.1 c).
const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
/// Refused even where it is not critical, as RFC 5280 says it must be: it narrows what a CA may sign.
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");

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
    pub(super) fn take(
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
