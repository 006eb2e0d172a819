//! PE images: bounded, and refused wherever firmware and this code could see different images.
//!
//! What is established by [`Image::parse`], in this order: a size below the cap · MZ and PE signatures · PE32 or PE32+, with
//! an optional header that holds its own directories · at most 96 sections, whose table lies inside the headers · no
//! section's data in the headers, beyond the end of the file, or over another's · a certificate table that begins behind the
//! last section, on a multiple of 8, and ends with the file.
//! Source: Microsoft, PE Format; UEFI 2.10, 32.2.3; the hash is that of EDK2's `MeasurePeImage`.

mod digest;
mod error;
mod signature;

use std::ops::Range;

pub use error::PeError;
pub use signature::{EmbeddedCertificate, Signature, SignatureProblem};

/// More bytes than any boot image has; a unified kernel image with a large initrd is about half of it.
pub const MAX_IMAGE: usize = 512 << 20;
/// The most sections of an image (PE Format, "Number of Sections").
pub const MAX_SECTIONS: u16 = 96;
/// Directories that the format knows.
const MAX_DIRECTORIES: u32 = 16;
/// Of `IMAGE_DIRECTORY_ENTRY_SECURITY`.
const SECURITY: usize = 4;
const SECTION_HEADER: usize = 40;
/// Longer than any name in a string table that is read here.
const MAX_NAME: usize = 64;

/// A PE image whose layout is in order. It borrows the file.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    bytes: &'a [u8],
    checksum: usize,
    /// The directory entry of the certificate table, where there is one.
    security: Option<usize>,
    headers: usize,
    sections: Vec<Section>,
    certificates: Range<usize>,
}

/// A section, by its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name; a long one as the string table has it.
    pub name: String,
    /// Bytes in memory.
    pub virtual_size: usize,
    /// Where in memory, from the image's base.
    pub virtual_address: usize,
    /// Where in the file, and how much.
    pub data: Range<usize>,
}

impl Section {
    /// Where in memory, from the image's base.
    #[must_use]
    pub fn memory(&self) -> Range<usize> {
        self.virtual_address..self.virtual_address.saturating_add(self.virtual_size)
    }
}

impl<'a> Image<'a> {
    /// Reads the headers.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PeError> {
        if bytes.len() > MAX_IMAGE {
            return Err(PeError::TooLarge { size: bytes.len() });
        }
        let file = File(bytes);
        if file.bytes(0, 2, "the DOS header")? != b"MZ" {
            return Err(PeError::NotMz);
        }
        let pe = file.u32(0x3c, "the DOS header")?;
        if file.bytes(pe, 4, "the PE signature")? != b"PE\0\0" {
            return Err(PeError::NoPeSignature { offset: pe });
        }
        let coff = offset(pe, 4);
        let count = file.u16(offset(coff, 2), "the COFF header")?;
        let symbols =
            (file.u32(offset(coff, 8), "the COFF header")?, file.u32(offset(coff, 12), "the COFF header")?);
        let optional_size = usize::from(file.u16(offset(coff, 16), "the COFF header")?);
        let optional = offset(coff, 20);
        let table = offset(optional, optional_size);
        let layout = OptionalHeader::read(file, optional, optional_size)?;
        if count > MAX_SECTIONS {
            return Err(PeError::TooManySections { offset: offset(coff, 2), count });
        }
        let table_end = offset(table, usize::from(count).saturating_mul(SECTION_HEADER));
        if layout.headers < table_end || layout.headers > bytes.len() {
            return Err(PeError::HeaderSize {
                offset: offset(optional, 60),
                claimed: layout.headers,
                needed: table_end,
                size: bytes.len(),
            });
        }
        let names = StringTable::at(file, symbols);
        let mut sections = Vec::new();
        for index in 0..usize::from(count) {
            sections.push(section(file, offset(table, index.saturating_mul(SECTION_HEADER)), names)?);
        }
        let end = check_sections(&sections, layout.headers, table, bytes.len())?;
        let certificates = certificate_table(file, layout.security, end)?;
        Ok(Self {
            bytes,
            checksum: offset(optional, 64),
            security: layout.security,
            headers: layout.headers,
            sections,
            certificates,
        })
    }

    /// The sections, in the order of their headers.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The first section of a name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// A section's data in the file: no longer than it is in memory.
    #[must_use]
    pub fn data(&self, section: &Section) -> &'a [u8] {
        let data = self.bytes.get(section.data.clone()).unwrap_or_default();
        data.get(..section.virtual_size).unwrap_or(data)
    }

    /// Whether it carries certificates.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        !self.certificates.is_empty()
    }
}

struct OptionalHeader {
    headers: usize,
    security: Option<usize>,
}

impl OptionalHeader {
    fn read(file: File<'_>, at: usize, size: usize) -> Result<Self, PeError> {
        const WHAT: &str = "the optional header";
        file.bytes(at, size, WHAT)?;
        let count_at = match file.u16(at, WHAT)? {
            0x10b => 92,
            0x20b => 108,
            magic => return Err(PeError::NeitherPe32NorPe32Plus { offset: at, magic }),
        };
        let directories = count_at + 4;
        if size < directories {
            return Err(PeError::OptionalHeaderTooSmall { offset: at, size });
        }
        let count = file.word(offset(at, count_at), WHAT)?;
        if count > MAX_DIRECTORIES {
            return Err(PeError::TooManyDirectories { offset: offset(at, count_at), count });
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if size < count.saturating_mul(8).saturating_add(directories) {
            return Err(PeError::OptionalHeaderTooSmall { offset: at, size });
        }
        let security = (count > SECURITY).then(|| offset(at, directories + SECURITY * 8));
        Ok(Self { headers: file.u32(offset(at, 60), WHAT)?, security })
    }
}

fn section(file: File<'_>, at: usize, names: StringTable<'_>) -> Result<Section, PeError> {
    const WHAT: &str = "the section table";
    let name = file.bytes(at, 8, WHAT)?;
    let virtual_size = file.u32(offset(at, 8), WHAT)?;
    let size = file.u32(offset(at, 16), WHAT)?;
    let start = file.u32(offset(at, 20), WHAT)?;
    Ok(Section {
        name: names.resolve(name),
        // Where it is 0, the loader takes the size in the file.
        virtual_size: if virtual_size == 0 { size } else { virtual_size },
        virtual_address: file.u32(offset(at, 12), WHAT)?,
        data: start..start.saturating_add(size),
    })
}

/// Where the last section's data end.
fn check_sections(sections: &[Section], headers: usize, table: usize, size: usize) -> Result<usize, PeError> {
    let header = |index: usize| offset(table, index.saturating_mul(SECTION_HEADER));
    let mut filled: Vec<_> = sections.iter().enumerate().filter(|(_, one)| !one.data.is_empty()).collect();
    for (index, section) in &filled {
        let (start, end) = (section.data.start, section.data.end);
        if end > size {
            return Err(PeError::SectionBeyondEnd { offset: header(*index), index: *index, end, size });
        }
        if start < headers {
            return Err(PeError::SectionInHeaders { offset: header(*index), index: *index, start, headers });
        }
    }
    filled.sort_by_key(|(_, section)| section.data.start);
    let mut end = headers;
    let mut before = 0;
    for (index, section) in filled {
        if section.data.start < end {
            let (offset, at) = (header(index), section.data.start);
            return Err(PeError::SectionsOverlap { offset, first: before, second: index, at });
        }
        end = section.data.end;
        before = index;
    }
    Ok(end)
}

fn certificate_table(
    file: File<'_>,
    directory: Option<usize>,
    sections_end: usize,
) -> Result<Range<usize>, PeError> {
    const WHAT: &str = "the certificate directory";
    let Some(directory) = directory else { return Ok(0..0) };
    let start = file.u32(directory, WHAT)?;
    let size = file.u32(offset(directory, 4), WHAT)?;
    if size == 0 {
        return Ok(0..0);
    }
    let end = start.saturating_add(size);
    let length = file.0.len();
    if end > length {
        return Err(PeError::CertificatesBeyondEnd { offset: directory, end, size: length });
    }
    if start < sections_end {
        return Err(PeError::CertificatesInImage { offset: directory, start, image_end: sections_end });
    }
    if !start.is_multiple_of(8) {
        return Err(PeError::CertificatesUnaligned { offset: directory, start });
    }
    if end != length {
        return Err(PeError::DataAfterCertificates { offset: end, size: length });
    }
    Ok(start..end)
}

/// Sums of what the format holds in 32 bits; what overflows lies beyond any file.
const fn offset(base: usize, add: usize) -> usize {
    base.saturating_add(add)
}

/// A file, read where it has bytes.
#[derive(Clone, Copy)]
struct File<'a>(&'a [u8]);

impl<'a> File<'a> {
    fn bytes(self, at: usize, length: usize, what: &'static str) -> Result<&'a [u8], PeError> {
        at.checked_add(length).and_then(|end| self.0.get(at..end)).ok_or(PeError::Truncated {
            what,
            offset: at,
            size: self.0.len(),
        })
    }

    fn u16(self, at: usize, what: &'static str) -> Result<u16, PeError> {
        let bytes = self.bytes(at, 2, what)?;
        Ok(bytes.first_chunk().copied().map_or(0, u16::from_le_bytes))
    }

    fn word(self, at: usize, what: &'static str) -> Result<u32, PeError> {
        let bytes = self.bytes(at, 4, what)?;
        Ok(bytes.first_chunk().copied().map_or(0, u32::from_le_bytes))
    }

    fn u32(self, at: usize, what: &'static str) -> Result<usize, PeError> {
        Ok(usize::try_from(self.word(at, what)?).unwrap_or(usize::MAX))
    }
}

/// The COFF string table, behind the symbols; GNU ld keeps names of more than eight bytes in it.
#[derive(Clone, Copy)]
struct StringTable<'a>(&'a [u8]);

impl<'a> StringTable<'a> {
    /// Nothing, where there is none.
    fn at(file: File<'a>, (symbols, count): (usize, usize)) -> Self {
        let start = count.saturating_mul(18).saturating_add(symbols);
        Self(if symbols == 0 { &[] } else { file.0.get(start..).unwrap_or_default() })
    }

    fn resolve(self, name: &[u8]) -> String {
        let short = until_nul(name);
        let long = short
            .strip_prefix(b"/")
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok())
            .and_then(|at| self.0.get(at..))
            .map(|rest| until_nul(rest.get(..MAX_NAME).unwrap_or(rest)));
        let name = long.filter(|name| !name.is_empty()).unwrap_or(short);
        name.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect()
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
