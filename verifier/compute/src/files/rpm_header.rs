//! Headers of .rpm packages: a table of tags, and a store that they point into.
//!
//! Established: the sizes are within bounds, and each tag's data is in the store.

use std::collections::HashMap;
use std::io::Read;

use super::error::Fault;
use super::limits::fill;

/// A tag of a header: rpmtag.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tag(u32);

impl Tag {
    pub(super) const NAME: Self = Self(1000);
    pub(super) const VERSION: Self = Self(1001);
    pub(super) const RELEASE: Self = Self(1002);
    pub(super) const EPOCH: Self = Self(1003);
    pub(super) const ARCH: Self = Self(1022);
    pub(super) const PRE_IN: Self = Self(1023);
    pub(super) const POST_IN: Self = Self(1024);
    pub(super) const PRE_UN: Self = Self(1025);
    pub(super) const POST_UN: Self = Self(1026);
    pub(super) const FILE_SIZES: Self = Self(1028);
    pub(super) const FILE_MODES: Self = Self(1030);
    pub(super) const FILE_DIGESTS: Self = Self(1035);
    pub(super) const FILE_FLAGS: Self = Self(1037);
    pub(super) const FILE_INODES: Self = Self(1096);
    pub(super) const DIR_INDEXES: Self = Self(1116);
    pub(super) const BASE_NAMES: Self = Self(1117);
    pub(super) const DIR_NAMES: Self = Self(1118);
    pub(super) const PAYLOAD_FORMAT: Self = Self(1124);
    pub(super) const PAYLOAD_COMPRESSOR: Self = Self(1125);
    pub(super) const PRE_TRANS: Self = Self(1151);
    pub(super) const POST_TRANS: Self = Self(1152);
    pub(super) const LONG_FILE_SIZES: Self = Self(5008);
    pub(super) const FILE_DIGEST_ALGORITHM: Self = Self(5011);
}

/// A header.
#[derive(Debug)]
pub(super) struct Header {
    entries: HashMap<Tag, Entry>,
    store: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: u32,
    offset: usize,
    count: usize,
}

impl Header {
    /// Entries: as rpm's own limit.
    const MOST_ENTRIES: u32 = 0xffff;
    /// Bytes of the store: rpm takes 256 MiB, the kernel's modules in one package need 2.
    const MOST_BYTES: u32 = 64 << 20;

    /// Files of one package, and other items of one tag that is read.
    const MOST_ITEMS: usize = 1_000_000;

    pub(super) fn read(input: &mut impl Read, what: &'static str) -> Result<Self, Fault> {
        let mut intro = [0; 16];
        exact(input, &mut intro, what)?;
        let [0x8e, 0xad, 0xe8, 1, _, _, _, _, a, b, c, d, e, f, g, h] = intro else {
            return Err(Fault::Corrupt(format!("no magic in front of {what}")));
        };
        let (count, size) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        if count > Self::MOST_ENTRIES {
            return Err(Fault::TooManyEntries(Self::MOST_ENTRIES.into()));
        }
        if size > Self::MOST_BYTES {
            return Err(Fault::TooLarge { what, limit: Self::MOST_BYTES.into() });
        }
        let (count, size) = (usize::try_from(count).unwrap_or(0), usize::try_from(size).unwrap_or(0));
        let (mut index, mut store) = (vec![0; count * 16], vec![0; size]);
        exact(input, &mut index, what)?;
        exact(input, &mut store, what)?;
        let mut entries = HashMap::with_capacity(count);
        for entry in index.as_chunks::<16>().0 {
            let [tag, kind, offset, count] = [0, 4, 8, 12].map(|at| be32(entry, at));
            let outside = || Fault::Corrupt(format!("tag {tag} of {what} points out of its store"));
            let (offset, count) = (usize::try_from(offset), usize::try_from(count));
            let (Ok(offset), Ok(count)) = (offset, count) else { return Err(outside()) };
            if offset > size || count > size - offset {
                return Err(outside());
            }
            if entries.insert(Tag(tag), Entry { kind, offset, count }).is_some() {
                return Err(Fault::Duplicate(format!("tag {tag} of {what}")));
            }
        }
        Ok(Self { entries, store })
    }

    /// Bytes that it takes in the file.
    pub(super) fn size(&self) -> u64 {
        u64::try_from(16 + 16 * self.entries.len() + self.store.len()).unwrap_or(0)
    }

    pub(super) fn has(&self, tag: Tag) -> bool {
        self.entries.contains_key(&tag)
    }

    /// A text; nothing where there is no such tag.
    pub(super) fn string(&self, tag: Tag) -> Result<Option<&[u8]>, Fault> {
        let Some(entry) = self.entries.get(&tag) else { return Ok(None) };
        let (6 | 8 | 9) = entry.kind else { return Err(Self::wrong(tag)) };
        self.text(entry.offset).map(|(text, _)| Some(text)).ok_or_else(|| Self::wrong(tag))
    }

    /// A list of texts; empty where there is no such tag.
    pub(super) fn strings(&self, tag: Tag) -> Result<Vec<&[u8]>, Fault> {
        let Some(entry) = self.entries.get(&tag) else { return Ok(Vec::new()) };
        let (6 | 8 | 9) = entry.kind else { return Err(Self::wrong(tag)) };
        Self::few(entry)?;
        let (mut texts, mut at) = (Vec::with_capacity(entry.count), entry.offset);
        for _ in 0..entry.count {
            let (text, next) = self.text(at).ok_or_else(|| Self::wrong(tag))?;
            texts.push(text);
            at = next;
        }
        Ok(texts)
    }

    /// A list of numbers of any size; empty where there is no such tag.
    pub(super) fn numbers(&self, tag: Tag) -> Result<Vec<u64>, Fault> {
        let Some(entry) = self.entries.get(&tag) else { return Ok(Vec::new()) };
        let size = match entry.kind {
            2 => 1,
            3 => 2,
            4 => 4,
            5 => 8,
            _ => return Err(Self::wrong(tag)),
        };
        Self::few(entry)?;
        let bytes =
            entry.count.checked_mul(size).and_then(|bytes| self.store.get(entry.offset..)?.get(..bytes));
        let bytes = bytes.ok_or_else(|| Self::wrong(tag))?;
        Ok(bytes
            .chunks(size)
            .map(|number| number.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
            .collect())
    }

    fn text(&self, at: usize) -> Option<(&[u8], usize)> {
        let rest = self.store.get(at..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        Some((rest.get(..end)?, at + end + 1))
    }

    fn few(entry: &Entry) -> Result<(), Fault> {
        if entry.count > Self::MOST_ITEMS {
            return Err(Fault::TooManyEntries(u64::try_from(Self::MOST_ITEMS).unwrap_or(0)));
        }
        Ok(())
    }

    fn wrong(tag: Tag) -> Fault {
        Fault::Corrupt(format!("tag {} of the header is of another type, or leaves its store", tag.0))
    }
}

fn be32(bytes: &[u8; 16], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn exact(input: &mut impl Read, buffer: &mut [u8], what: &'static str) -> Result<(), Fault> {
    let count = fill(input, buffer).map_err(|error| Fault::of_io(error, what))?;
    if count < buffer.len() { Err(Fault::Truncated(what)) } else { Ok(()) }
}
