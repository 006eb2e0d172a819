//! The partition table of a disk, as firmware measures it into PCR 5 (UEFI_GPT_DATA).
//!
//! What is established, in this order: a header behind the first sector, of 512 or 4096 bytes · its size and its CRC-32 · as
//! many entries of such a size as are read, inside the disk · their CRC-32. Source: UEFI 2.10, 5.3; PC Client Platform
//! Firmware Profile, 10.2.6; `MeasureGptTable` of EDK2.

use std::io::{Read, Seek, SeekFrom};

use crc::{CRC_32_ISO_HDLC, Crc};
use rootbound_common::crypto::hash;
use rootbound_common::tpm::HashAlgorithm;

use super::event::{Event, PARTITIONS};

/// What a header has today, and all of it that is measured.
const HEADER: usize = 92;
/// Many times the 16 KiB of a usual table.
const MAX_ENTRIES: u64 = 4 << 20;
const SECTOR_SIZES: [u32; 2] = [512, 4096];
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Why a disk has no partition table that can be measured.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// It cannot be read.
    #[error("cannot read at offset {offset}: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        source: std::io::Error,
    },
    /// No header.
    #[error("no GPT header at offset 512 or 4096")]
    NoHeader,
    /// A header's size is none.
    #[error(
        "the GPT header at offset {offset} says that it has {size} bytes; it has at least 92, and at most a sector"
    )]
    HeaderSize {
        /// The header.
        offset: u64,
        /// What it says.
        size: u32,
    },
    /// The header's checksum is wrong: firmware would take the one at the end of the disk.
    #[error("the GPT header at offset {offset} has another CRC-32 than it says")]
    HeaderChecksum {
        /// The header.
        offset: u64,
    },
    /// Entries of a size that they cannot have, or too many.
    #[error(
        "the GPT header at offset {offset} counts {count} entries of {size} bytes; at most 4 MiB of multiples of 128 are read"
    )]
    Entries {
        /// The header.
        offset: u64,
        /// How many.
        count: u32,
        /// How long each.
        size: u32,
    },
    /// The entries' checksum is wrong.
    #[error("the GPT entries at offset {offset} have another CRC-32 than the header says")]
    EntriesChecksum {
        /// The entries.
        offset: u64,
    },
}

/// A partition table, and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// UEFI_GPT_DATA: what is measured.
    pub measured: Vec<u8>,
    /// Entries in use.
    pub partitions: u64,
    /// Bytes of a sector, by where the header was found.
    pub sector: u32,
}

impl PartitionTable {
    /// Reads the primary table of a disk or its image.
    pub fn read(disk: &mut (impl Read + Seek)) -> Result<Self, GptError> {
        for sector in SECTOR_SIZES {
            let at = u64::from(sector);
            let header = match bytes(disk, at, at) {
                // A disk that ends here may have smaller sectors only; an error of the first is told.
                Err(GptError::Io { source, .. }) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                    continue;
                }
                other => other?,
            };
            if header.starts_with(b"EFI PART") {
                return Self::of(disk, &header, sector);
            }
        }
        Err(GptError::NoHeader)
    }

    fn of(disk: &mut (impl Read + Seek), header: &[u8], sector: u32) -> Result<Self, GptError> {
        let offset = u64::from(sector);
        let size = u32_at(header, 12);
        let whole =
            usize::try_from(size).ok().filter(|size| *size >= HEADER).and_then(|size| header.get(..size));
        let Some(whole) = whole else { return Err(GptError::HeaderSize { offset, size }) };
        let mut digest = CRC.digest();
        digest.update(whole.get(..16).unwrap_or_default());
        digest.update(&[0; 4]);
        digest.update(whole.get(20..).unwrap_or_default());
        if digest.finalize() != u32_at(header, 16) {
            return Err(GptError::HeaderChecksum { offset });
        }
        let (count, each) = (u32_at(header, 80), u32_at(header, 84));
        let length = u64::from(count).saturating_mul(u64::from(each));
        let first = u64_at(header, 72).checked_mul(offset);
        let (true, Some(first), Ok(stride)) =
            (each != 0 && each.is_multiple_of(128) && length <= MAX_ENTRIES, first, usize::try_from(each))
        else {
            return Err(GptError::Entries { offset, count, size: each });
        };
        let entries = bytes(disk, first, length)?;
        if CRC.checksum(&entries) != u32_at(header, 88) {
            return Err(GptError::EntriesChecksum { offset: first });
        }
        let used: Vec<_> = entries
            .chunks_exact(stride)
            .filter(|entry| entry.iter().take(16).any(|byte| *byte != 0))
            .collect();
        let partitions = u64::try_from(used.len()).unwrap_or(u64::MAX);
        let mut measured = whole.get(..HEADER).unwrap_or_default().to_vec();
        measured.extend(partitions.to_le_bytes());
        used.iter().for_each(|entry| measured.extend_from_slice(entry));
        Ok(Self { measured, partitions, sector })
    }

    /// PCR 5: the event.
    #[must_use]
    pub fn event(&self, bank: HashAlgorithm) -> Event {
        let label = format!("partition table with {} partitions", self.partitions);
        Event::other(PARTITIONS, hash(bank, &[&self.measured]), label)
    }
}

fn bytes(disk: &mut (impl Read + Seek), offset: u64, length: u64) -> Result<Vec<u8>, GptError> {
    let failed = |source| GptError::Io { offset, source };
    disk.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = Vec::new();
    disk.by_ref().take(length).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()) == Ok(length) {
        Ok(bytes)
    } else {
        Err(failed(std::io::ErrorKind::UnexpectedEof.into()))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::boot::testing::{gpt_disk, set};

    fn crc(bytes: &[u8]) -> u32 {
        CRC.checksum(bytes)
    }

    fn read(disk: &[u8]) -> Result<PartitionTable, GptError> {
        PartitionTable::read(&mut Cursor::new(disk))
    }

    /// The header's checksum made right again.
    fn resealed(mut disk: Vec<u8>, change: impl Fn(&mut [u8])) -> Vec<u8> {
        change(&mut disk[512..]);
        set(&mut disk, 528, 0);
        let sum = crc(&disk[512..604]);
        set(&mut disk, 528, sum);
        disk
    }

    #[test]
    fn header_count_and_entries_in_use_are_measured() {
        for sector in [512, 4096] {
            let disk = gpt_disk(sector, crc);
            let table = read(&disk).unwrap();
            let expected =
                [&disk[sector..sector + 92], &1_u64.to_le_bytes(), &disk[2 * sector..2 * sector + 128]];
            assert_eq!(table.measured, expected.concat());
            assert_eq!((table.partitions, table.sector), (1, u32::try_from(sector).unwrap()));
            let event = table.event(HashAlgorithm::Sha384);
            assert_eq!(
                (event.pcr, event.digest),
                (PARTITIONS, hash(HashAlgorithm::Sha384, &[&table.measured]))
            );
        }
    }

    #[test]
    fn crc_32_is_that_of_the_standard() {
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn each_fault_is_told_with_its_offset() {
        let good = gpt_disk(512, crc);
        let cases: [(Vec<u8>, &str); 8] = [
            (vec![0; 8192], "no GPT header"),
            (vec![0; 100], "no GPT header"),
            (resealed(good.clone(), |h| set(h, 12, 91)), "offset 512 says that it has 91"),
            (resealed(good.clone(), |h| set(h, 12, 513)), "offset 512 says that it has 513"),
            (
                {
                    let mut disk = good.clone();
                    disk[530] ^= 1;
                    disk
                },
                "header at offset 512 has another CRC-32",
            ),
            (resealed(good.clone(), |h| set(h, 80, u32::MAX)), "offset 512 counts 4294967295 entries"),
            (resealed(good.clone(), |h| set(h, 84, 100)), "entries of 100 bytes"),
            (
                {
                    let mut disk = good.clone();
                    disk[1024] ^= 1;
                    disk
                },
                "entries at offset 1024 have another CRC-32",
            ),
        ];
        for (disk, expected) in cases {
            let error = read(&disk).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = read(&good[..2000]).unwrap_err();
        assert!(matches!(error, GptError::Io { offset: 1024, .. }), "{error}");
        let far = resealed(good, |h| set(h, 76, u32::MAX));
        assert!(matches!(read(&far), Err(GptError::Entries { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(header in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut disk = vec![0; 512];
            disk.extend(b"EFI PART");
            disk.extend(header);
            disk.resize(2048, 0);
            prop_assert!(read(&disk).is_err());
        }
    }
}
