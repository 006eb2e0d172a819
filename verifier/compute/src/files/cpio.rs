//! cpio archives in the forms of initramfs (newc, with and without checksums) and of .rpm payloads.
//!
//! The reader is ours: a header is 110 bytes of hex, and the crate that reads it makes room for names of 4 GiB. Format:
//! Documentation/driver-api/early-userspace/buffer-format.rst of Linux; cpio(5).

use std::io::{self, Read};
use std::rc::Rc;

use super::error::Fault;
use super::limits::{Limits, Meter, fill};

/// An archive, read from front to back. Reading it reads the content of the entry that [`Archive::next`] gave.
pub(crate) struct Archive<R> {
    inner: R,
    meter: Rc<Meter>,
    position: u64,
    /// Of the content.
    remaining: u64,
    /// Behind it, to a multiple of four.
    padding: u64,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As it stands there; empty in stripped headers.
    pub(crate) name: Vec<u8>,
    /// In stripped headers of .rpm: which file of the package it is.
    pub(crate) index: Option<u32>,
    /// Device, major and minor, and inode.
    pub(crate) inode: (u32, u32, u32),
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) size: u64,
    /// Of its header.
    pub(crate) offset: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Folder,
    Symlink,
    Special,
}

impl Entry {
    pub(crate) fn kind(&self) -> EntryKind {
        match self.mode & 0o170_000 {
            0o100_000 => EntryKind::File,
            0o040_000 => EntryKind::Folder,
            0o120_000 => EntryKind::Symlink,
            _ => EntryKind::Special,
        }
    }
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(inner: R, meter: &Rc<Meter>) -> Self {
        Self { inner, meter: Rc::clone(meter), position: 0, remaining: 0, padding: 0 }
    }

    /// Bytes that were read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; nothing at the end mark. What was not read of the last one is skipped. `sizes` has sizes of files for
    /// stripped headers.
    pub(crate) fn next(&mut self, sizes: &[u64]) -> Result<Option<Entry>, Fault> {
        let rest = self.remaining.saturating_add(self.padding);
        (self.remaining, self.padding) = (0, 0);
        self.skip(rest)?;
        let offset = self.position;
        let mut magic = [0; 6];
        self.exact(&mut magic)?;
        match &magic {
            b"070701" | b"070702" => {}
            b"07070X" => return self.stripped(offset, sizes).map(Some),
            b"070707" => return Err(Fault::Unsupported("the old form of cpio (odc)")),
            _ => return Err(Fault::corrupt("no cpio header here")),
        }
        self.meter.entry()?;
        let mut fields = [0; 13];
        for field in &mut fields {
            *field = self.hex()?;
        }
        let [inode, mode, _uid, _gid, links, _mtime, size, major, minor, _, _, name_size, _check] = fields;
        let name_size = u64::from(name_size);
        let limit = u64::try_from(Limits::PATH).unwrap_or(u64::MAX) + 1;
        if name_size == 0 || name_size > limit {
            return Err(Fault::Name("has no size between 1 and 4096 bytes"));
        }
        let mut name = vec![0; usize::try_from(name_size).unwrap_or(0)];
        self.exact(&mut name)?;
        if name.pop() != Some(0) {
            return Err(Fault::corrupt("a name does not end in a NUL"));
        }
        self.skip(padding(110 + name_size))?;
        let size = u64::from(size);
        if name == b"TRAILER!!!" {
            self.skip(size)?;
            return Ok(None);
        }
        (self.remaining, self.padding) = (size, padding(size));
        Ok(Some(Entry { name, index: None, inode: (major, minor, inode), mode, links, size, offset }))
    }

    /// rpm's own form for packages of more than 4 GiB: an index into the header's files, and nothing else.
    fn stripped(&mut self, offset: u64, sizes: &[u64]) -> Result<Entry, Fault> {
        self.meter.entry()?;
        let index = self.hex()?;
        self.skip(padding(14))?;
        let size = usize::try_from(index).ok().and_then(|index| sizes.get(index)).ok_or(Fault::Unlisted)?;
        (self.remaining, self.padding) = (*size, padding(*size));
        Ok(Entry {
            name: Vec::new(),
            index: Some(index),
            inode: (0, 0, 0),
            mode: 0,
            links: 1,
            size: *size,
            offset,
        })
    }

    fn hex(&mut self) -> Result<u32, Fault> {
        let mut digits = [0; 8];
        self.exact(&mut digits)?;
        let mut value = 0_u32;
        for digit in digits {
            let digit = char::from(digit).to_digit(16).ok_or(Fault::corrupt("a field that is not in hex"))?;
            value = (value << 4) | digit;
        }
        Ok(value)
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        let count = fill(&mut self.inner, buffer).map_err(|error| Fault::of_io(error, "a cpio header"))?;
        self.position = self.position.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if count < buffer.len() { Err(Fault::Truncated("a cpio header")) } else { Ok(()) }
    }

    fn skip(&mut self, count: u64) -> Result<(), Fault> {
        let skipped = io::copy(&mut (&mut self.inner).take(count), &mut io::sink())
            .map_err(|error| Fault::of_io(error, "the content of a cpio entry"))?;
        self.position = self.position.saturating_add(skipped);
        if skipped < count { Err(Fault::Truncated("the content of a cpio entry")) } else { Ok(()) }
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(Fault::Truncated("the content of a cpio entry").into_io());
        }
        let count_64 = u64::try_from(count).unwrap_or(u64::MAX);
        self.remaining = self.remaining.saturating_sub(count_64);
        self.position = self.position.saturating_add(count_64);
        Ok(count)
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() & 3
}
