//! The binary form of the list (`binary_runtime_measurements`), in chunks of any size.

use rootbound_common::tpm::HashAlgorithm;

use super::entry::{Entry, Template};
use super::fields::{Head, parse};
use super::{ImaError, MAX_BYTES, MAX_ENTRIES, MAX_ENTRY, PCR, Shown};

/// Parses a list as its bytes arrive. Holds the entry that is not complete yet, and nothing else.
#[derive(Debug)]
pub struct ListParser {
    hash_size: usize,
    number: u64,
    bytes: u64,
    partial: Vec<u8>,
}

/// What the front of some bytes is.
#[expect(clippy::large_enum_variant, reason = "taken apart where it is made, never kept")]
enum Front<'a> {
    /// A whole entry of so many bytes.
    Entry(Entry<'a>, usize),
    /// The front of an entry that takes so many bytes at least.
    Needs(usize),
}

impl ListParser {
    /// Starts at the entry with a number; `hash` is that of the template hashes in the file: SHA-1, but in the files
    /// `binary_runtime_measurements_<hash>` of Linux 6.9 and later.
    #[must_use]
    pub fn new(number: u64, hash: HashAlgorithm) -> Self {
        Self { hash_size: hash.size(), number, bytes: 0, partial: Vec::new() }
    }

    /// The number of the entry that comes next.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes; gives each entry that they complete to `sink`, and stops at its first error.
    ///
    /// After an error nothing may be pushed any more: the place in the list is lost.
    pub fn push<E: From<ImaError>>(
        &mut self,
        chunk: &[u8],
        mut sink: impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = self.start(chunk, &mut sink)?;
        while let Some(entry) = self.next_in(&mut rest)? {
            sink(entry)?;
        }
        Ok(())
    }

    /// Begins a chunk: counts it, and completes with it what is partial. Returns what is left of it, for
    /// [`ListParser::next_in`], whose entries borrow from the chunk and so may be held together.
    pub(super) fn start<'c, E: From<ImaError>>(
        &mut self,
        chunk: &'c [u8],
        sink: &mut impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<&'c [u8], E> {
        let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > MAX_BYTES {
            return Err(ImaError::TooManyBytes.into());
        }
        if self.partial.is_empty() { Ok(chunk) } else { self.complete(chunk, sink) }
    }

    /// The next whole entry of a chunk; where there is none, what is left is kept.
    #[inline(always)]
    pub(super) fn next_in<'c>(&mut self, rest: &mut &'c [u8]) -> Result<Option<Entry<'c>>, ImaError> {
        if rest.is_empty() {
            return Ok(None);
        }
        match front(rest, self.number, self.hash_size)? {
            Front::Entry(entry, length) => {
                self.number = counted(self.number)?;
                *rest = rest.get(length..).unwrap_or_default();
                Ok(Some(entry))
            }
            Front::Needs(_) => {
                self.partial.extend_from_slice(rest);
                *rest = &[];
                Ok(None)
            }
        }
    }

    /// Completes the partial entry, if the chunk has enough; returns what is left of the chunk.
    fn complete<'c, E: From<ImaError>>(
        &mut self,
        mut chunk: &'c [u8],
        sink: &mut impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<&'c [u8], E> {
        // Each turn reads one more length: of the name, of the data, of the whole.
        loop {
            match front(&self.partial, self.number, self.hash_size)? {
                Front::Entry(entry, _) => {
                    self.number = counted(self.number)?;
                    sink(entry)?;
                    self.partial.clear();
                    return Ok(chunk);
                }
                Front::Needs(total) => {
                    let missing = total.saturating_sub(self.partial.len());
                    let (head, rest) = chunk.split_at_checked(missing).unwrap_or((chunk, &[]));
                    self.partial.extend_from_slice(head);
                    if head.len() < missing {
                        return Ok(rest);
                    }
                    chunk = rest;
                }
            }
        }
    }

    /// Ends the list: no entry may be incomplete. Returns how many entries of the boot there are.
    pub fn finish(self) -> Result<u64, ImaError> {
        if self.partial.is_empty() {
            Ok(self.number)
        } else {
            Err(ImaError::Truncated { entry: self.number, left: self.partial.len() })
        }
    }
}

/// The number after this entry's.
pub(super) fn counted(number: u64) -> Result<u64, ImaError> {
    if number < MAX_ENTRIES { Ok(number + 1) } else { Err(ImaError::TooManyEntries) }
}

/// Reads an entry from the front of some bytes: PCR, template hash, length of the name, name, length of the data, data.
/// Of the template `ima`, the data have no length of their own. Every length is bounded before it is waited for.
#[inline(always)]
fn front(bytes: &[u8], number: u64, hash_size: usize) -> Result<Front<'_>, ImaError> {
    let fixed = 4 + hash_size + 4;
    let mut reader = Bounded { all: bytes, at: 0 };
    let Some((pcr, template_hash, length)) =
        reader.u32().and_then(|pcr| Some((pcr, reader.take(hash_size)?, reader.u32()?)))
    else {
        return Ok(Front::Needs(fixed));
    };
    if pcr != u32::from(PCR) {
        return Err(ImaError::OtherPcr { entry: number, pcr });
    }
    let Some(length) = within(length, Template::MAX_NAME) else {
        return Err(ImaError::TooLong {
            entry: number,
            what: "template name",
            length: u64::from(length),
            limit: Template::MAX_NAME,
        });
    };
    let Some(name) = reader.take(length) else { return Ok(Front::Needs(fixed + length)) };
    let Some(template) = Template::of_name(name) else {
        return Err(ImaError::UnknownTemplate { entry: number, name: Shown::of(name) });
    };
    let length = if template == Template::Ima {
        const DIGEST: usize = 20;
        let start = reader.at;
        let Some(name) = reader.take(DIGEST).and_then(|_| reader.u32()) else {
            return Ok(Front::Needs(start + DIGEST + 4));
        };
        reader.at = start;
        within(name, MAX_ENTRY).map(|name| DIGEST + 4 + name).ok_or(name)
    } else {
        let Some(length) = reader.u32() else { return Ok(Front::Needs(reader.at + 4)) };
        within(length, MAX_ENTRY).ok_or(length)
    };
    let length = length.map_err(|length| ImaError::too_long(number, "data", u64::from(length)))?;
    let start = reader.at;
    let Some(data) = reader.take(length) else { return Ok(Front::Needs(start + length)) };
    Ok(Front::Entry(parse(Head { number, template, template_hash }, data)?, reader.at))
}

fn within(length: u32, limit: usize) -> Option<usize> {
    usize::try_from(length).ok().filter(|length| *length <= limit)
}

/// Little-endian numbers and bytes, from the front.
struct Bounded<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Bounded<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.all.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }
}
