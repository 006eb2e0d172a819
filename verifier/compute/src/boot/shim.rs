//! shim: what it measures of what is built into it.
//!
//! Its vendor's certificate and revocations (`.vendor_cert`) go into MokList and MokListX, which it measures into PCR 14; the
//! level of revocations that it demands (`.sbatlevel`) goes into PCR 7 as SbatLevel. What a machine's owner enrolled
//! (MokList, MokListX, MokListTrusted in the machine's variables), which level a machine has kept from a newer shim, and a
//! certificate of the build (`ENABLE_SHIM_CERT`) are not in the file.

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::text::only_shows;
use rootbound_common::tpm::HashAlgorithm;

use super::event::{Event, MOK, SECURE_BOOT};
use super::pe::{Image, PeError};

/// 605dab50-e046-4300-abb6-3dd810dd8b23, SHIM_LOCK_GUID.
const SHIM_LOCK: [u8; 16] =
    [0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23];
/// a5c059a1-94e4-4aa7-87b5-ab155c2bf072, EFI_CERT_X509_GUID.
const X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// c1c41626-504c-4092-aca9-41f936934328, EFI_CERT_SHA256_GUID.
const SHA256: [u8; 16] =
    [0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28];
/// What a machine has where Secure Boot is off.
const ORIGINAL_LEVEL: &[u8] = b"sbat,1,2021030218\n";
/// More than any level or list of components.
const MAX_TEXT: usize = 16 << 10;

/// Why a file is not taken as shim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShimError {
    /// It is no PE image in order.
    #[error(transparent)]
    Pe(#[from] PeError),
    /// It has no vendor certificate.
    #[error("no shim: it has no `.vendor_cert` section")]
    NoVendorCertificate,
    /// The section's table points outside of it.
    #[error("`.vendor_cert` at offset {offset} does not hold what its table says")]
    VendorCertificate {
        /// Where the section begins.
        offset: usize,
    },
    /// The section's table points outside of it, or to what is no text.
    #[error("`.sbatlevel` at offset {offset} does not hold what its table says")]
    SbatLevel {
        /// Where the section begins.
        offset: usize,
    },
}

/// What is built into a shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shim<'a> {
    authorized: &'a [u8],
    deauthorized: &'a [u8],
    levels: Option<Levels<'a>>,
    sbat: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Levels<'a> {
    previous: &'a [u8],
    latest: &'a [u8],
}

impl<'a> Shim<'a> {
    /// Reads the sections of an image.
    pub fn of(image: &Image<'a>) -> Result<Self, ShimError> {
        let section = image.section(".vendor_cert").ok_or(ShimError::NoVendorCertificate)?;
        let table = image.data(section);
        let part = |size: usize, at: usize| {
            let (size, at) = (word(table, size)?, word(table, at)?);
            table.get(at..at.checked_add(size)?)
        };
        let error = ShimError::VendorCertificate { offset: section.data.start };
        let authorized = part(0, 8).ok_or_else(|| error.clone())?;
        let deauthorized = part(4, 12).ok_or(error)?;
        let levels = image.section(".sbatlevel").map(|section| {
            levels(image.data(section)).ok_or(ShimError::SbatLevel { offset: section.data.start })
        });
        let sbat = image.section(".sbat").map(|section| {
            let text = image.data(section);
            let text = text.get(..MAX_TEXT).unwrap_or(text);
            let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(text).replace(|one| one != '\n' && !only_shows(one), "?")
        });
        Ok(Self { authorized, deauthorized, levels: levels.transpose()?, sbat })
    }

    /// Its vendor's certificate in DER, where it is one and no list.
    #[must_use]
    pub fn vendor_certificate(&self) -> Option<&'a [u8]> {
        is_certificate(self.authorized).then_some(self.authorized)
    }

    /// Its own components and their generations, as text for people.
    #[must_use]
    pub fn sbat(&self) -> Option<&str> {
        self.sbat.as_deref()
    }

    /// PCR 14: MokList, MokListX and MokListTrusted of a machine whose owner has enrolled nothing.
    #[must_use]
    pub fn mok_lists(&self, bank: HashAlgorithm) -> [Event; 3] {
        let list = match self.vendor_certificate() {
            Some(certificate) => signature_list(&X509, certificate),
            None => or_dummy(self.authorized),
        };
        let event = |name: &str, content: &[u8]| {
            let label = format!("shim: {name}, nothing enrolled by the machine's owner");
            Event::other(MOK, hash(bank, &[content]), label)
        };
        [
            event("MokList", &list),
            event("MokListX", &or_dummy(self.deauthorized)),
            event("MokListTrusted", &[1]),
        ]
    }

    /// PCR 7: the entry that shim has checked an image by, where that is its vendor's certificate and Secure Boot is on.
    #[must_use]
    pub fn authority(&self, bank: HashAlgorithm) -> Option<Event> {
        let entry = [&SHIM_LOCK, self.vendor_certificate()?].concat();
        let digest = variable(bank, "MokListRT", &entry);
        Some(Event::other(SECURE_BOOT, digest, "shim: an image was checked by the vendor's certificate"))
    }

    /// PCR 7: SbatLevel, in each value that this shim sets; a machine has one of them.
    #[must_use]
    pub fn sbat_levels(&self, bank: HashAlgorithm) -> Vec<Event> {
        let mut events = vec![level(bank, "original, Secure Boot off", ORIGINAL_LEVEL)];
        if let Some(levels) = self.levels {
            events.push(level(bank, "previous", levels.previous));
            events.push(level(bank, "latest", levels.latest));
        }
        events
    }
}

fn level(bank: HashAlgorithm, which: &str, content: &[u8]) -> Event {
    Event::other(SECURE_BOOT, variable(bank, "SbatLevel", content), format!("shim: SbatLevel, {which}"))
}

/// UEFI_VARIABLE_DATA (PC Client Platform Firmware Profile, 10.2.7) of a variable of shim's.
fn variable(bank: HashAlgorithm, name: &str, content: &[u8]) -> Digest {
    let name: Vec<_> = name.encode_utf16().collect();
    let lengths = [name.len(), content.len()].map(|one| u64::try_from(one).unwrap_or(u64::MAX).to_le_bytes());
    let name: Vec<_> = name.into_iter().flat_map(u16::to_le_bytes).collect();
    hash(bank, &[&SHIM_LOCK, lengths.as_flattened(), &name, content])
}

/// A version, and where two texts begin, counted from behind it.
fn levels(section: &[u8]) -> Option<Levels<'_>> {
    let text = |at: usize| {
        let start = word(section, at)?.checked_add(4)?;
        let rest = section.get(start..)?;
        let end = rest.iter().take(MAX_TEXT).position(|byte| *byte == 0)?;
        rest.get(..end).filter(|text| text.starts_with(b"sbat,"))
    };
    Some(Levels { previous: text(4)?, latest: text(8)? })
}

/// Whether it is one DER SEQUENCE, to its last byte: shim tells certificates from lists by this.
fn is_certificate(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x82, high, low, rest @ ..] if usize::from(u16::from_be_bytes([*high, *low])) == rest.len())
}

/// EFI_SIGNATURE_LIST (UEFI 2.10, 32.4.1) of one entry, which shim owns.
fn signature_list(kind: &[u8; 16], entry: &[u8]) -> Vec<u8> {
    let size = u32::try_from(entry.len()).unwrap_or(u32::MAX).saturating_add(16);
    let mut list = kind.to_vec();
    for word in [size.saturating_add(28), 0, size] {
        list.extend(word.to_le_bytes());
    }
    list.extend(SHIM_LOCK);
    list.extend_from_slice(entry);
    list
}

/// shim makes a list of one entry that nothing has where there would be none.
fn or_dummy(list: &[u8]) -> Vec<u8> {
    if list.is_empty() { signature_list(&SHA256, &[0; 32]) } else { list.to_vec() }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk().copied()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::boot::testing::ImageBuilder;

    const BANK: HashAlgorithm = HashAlgorithm::Sha256;

    fn vendor(authorized: &[u8], deauthorized: &[u8]) -> Vec<u8> {
        let size = |part: &[u8]| u32::try_from(part.len()).unwrap();
        let words = [size(authorized), size(deauthorized), 16, 16 + size(authorized)];
        let table: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        [&table, authorized, deauthorized].concat()
    }

    fn levels_section(previous: &[u8], latest: &[u8]) -> Vec<u8> {
        let second = u32::try_from(8 + previous.len()).unwrap();
        [&[0; 4], &8_u32.to_le_bytes()[..], &second.to_le_bytes(), previous, latest].concat()
    }

    fn certificate() -> Vec<u8> {
        [&[0x30, 0x82, 0, 3][..], b"DER"].concat()
    }

    fn of(vendor: &[u8], level: Option<&[u8]>) -> Result<(Vec<Event>, Vec<Event>), ShimError> {
        // In memory the sections have longer names than a header holds; objcopy's string table is tested with the images.
        let mut image = ImageBuilder::new().section("/4", vendor).section(".sbat", b"sbat,1\nshim,4\n\0\x1b");
        if let Some(level) = level {
            image = image.section("/17", level);
        }
        let mut file = image.build();
        let table = u32::try_from(file.len()).unwrap();
        file.extend(b"\x1c\0\0\0.vendor_cert\0.sbatlevel\0");
        crate::boot::testing::set(&mut file, crate::boot::testing::at::PE + 12, table);
        let image = Image::parse(&file)?;
        let shim = Shim::of(&image)?;
        assert_eq!(shim.sbat(), Some("sbat,1\nshim,4\n"));
        Ok((shim.mok_lists(BANK).to_vec(), shim.sbat_levels(BANK)))
    }

    /// Of a real boot of Debian's shim 16.1, Secure Boot off.
    #[test]
    fn the_original_level_and_the_trust_of_lists_are_those_of_a_real_boot() {
        let (lists, levels) = of(&vendor(&certificate(), b"list"), None).unwrap();
        assert_eq!(
            levels[0].digest.to_string(),
            "922e939a5565798a5ef12fe09d8b49bf951a8e7f89a0cca7a51636693d41a34d"
        );
        assert_eq!(
            lists[2].digest.to_string(),
            "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"
        );
        assert_eq!(levels.len(), 1);
        assert!(lists.iter().all(|event| event.pcr == MOK) && levels[0].pcr == SECURE_BOOT);
    }

    #[test]
    fn a_certificate_is_put_into_a_list_and_a_list_is_taken_as_it_is() {
        let (lists, _) = of(&vendor(&certificate(), b"list"), None).unwrap();
        let entry = [&SHIM_LOCK[..], &certificate()].concat();
        let list = [&X509[..], &[51, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0], &entry].concat();
        assert_eq!(lists[0].digest, hash(BANK, &[&list]));
        assert_eq!(lists[1].digest, hash(BANK, &[b"list"]));
        let (lists, _) = of(&vendor(b"another list", b""), None).unwrap();
        assert_eq!(lists[0].digest, hash(BANK, &[b"another list"]));
        let dummy = [&SHA256[..], &[76, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 0], &SHIM_LOCK, &[0; 32]].concat();
        assert_eq!(lists[1].digest, hash(BANK, &[&dummy]));
    }

    #[test]
    fn the_vendor_s_certificate_is_an_authority_with_its_owner_and_a_list_is_none() {
        let of = |vendor: Vec<u8>| {
            let file = ImageBuilder::new().section("/4", &vendor).build();
            let table = u32::try_from(file.len()).unwrap();
            let mut file = [&file[..], b"\x11\0\0\0.vendor_cert\0"].concat();
            crate::boot::testing::set(&mut file, crate::boot::testing::at::PE + 12, table);
            Shim::of(&Image::parse(&file).unwrap()).unwrap().authority(BANK).map(|event| event.digest)
        };
        let name = b"M\0o\0k\0L\0i\0s\0t\0R\0T\0";
        let lengths = [9, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 0, 0, 0, 0];
        let expected = hash(BANK, &[&SHIM_LOCK, &lengths, name, &SHIM_LOCK, &certificate()]);
        assert_eq!(of(vendor(&certificate(), b"")), Some(expected));
        assert_eq!(of(vendor(b"list", b"")), None);
    }

    #[test]
    fn each_level_that_it_sets_is_computed() {
        let section = levels_section(b"sbat,1,2024\nshim,2\n\0", b"sbat,1,2025\nshim,4\n\0");
        let (_, levels) = of(&vendor(&certificate(), b""), Some(&section)).unwrap();
        assert_eq!(levels.len(), 3);
        assert_eq!(levels[2], level(BANK, "latest", b"sbat,1,2025\nshim,4\n"));
        assert_eq!(levels[1], level(BANK, "previous", b"sbat,1,2024\nshim,2\n"));
    }

    #[test]
    fn sections_that_do_not_hold_what_they_say_are_refused() {
        let plain = ImageBuilder::new().section(".text", b"x").build();
        let image = Image::parse(&plain).unwrap();
        assert_eq!(Shim::of(&image), Err(ShimError::NoVendorCertificate));
        let long = [&u32::MAX.to_le_bytes()[..], &vendor(b"", b"")[4..]].concat();
        assert!(matches!(of(&long, None), Err(ShimError::VendorCertificate { .. })));
        let far = [&vendor(b"x", b"")[..8], &[0xff; 4], &[16, 0, 0, 0], b"x"].concat();
        assert!(matches!(of(&far, None), Err(ShimError::VendorCertificate { .. })));
        let good = vendor(&certificate(), b"");
        for level in
            [b"".to_vec(), levels_section(b"sbat,1\0", b"no level\0"), levels_section(b"sbat,1\0", b"sbat,1")]
        {
            assert!(matches!(of(&good, Some(&level)), Err(ShimError::SbatLevel { .. })), "{level:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_sections_never_panic(
            vendor in proptest::collection::vec(any::<u8>(), 0..40),
            level in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = of(&vendor, Some(&level));
        }
    }
}
