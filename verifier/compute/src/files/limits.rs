//! Limits on a stranger's archive, and the readers that hold it to them.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use super::error::Fault;

/// How much one archive, image or folder may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries, of whatever type.
    pub entries: u64,
    /// Bytes after decompression.
    pub unpacked: u64,
    /// Bytes after decompression for each byte before, once there are [`Limits::RATIO_FROM`] of them. Distributions'
    /// packages stay below 30; a file of zeros has 1,000 in gzip and more in zstd.
    pub ratio: u64,
    /// Entries of folders that are passed on the way to files, where folders are searched from their beginning (ext4): a folder
    /// of n files costs n²/2. A distribution's tree of a million files needs some hundred million; this many take minutes.
    pub lookups: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 10_000_000, unpacked: 256 << 30, ratio: 200, lookups: 4_000_000_000 }
    }
}

impl Limits {
    /// Folders in folders: PATH_MAX has room for more, distributions do not come near.
    pub const DEPTH: usize = 128;
    /// Bytes of a path: PATH_MAX.
    pub const PATH: usize = 4096;
    /// Below so many bytes a ratio says nothing.
    pub const RATIO_FROM: u64 = 16 << 20;
    /// Memory that a decoder of xz or a window of zstd may take, in bytes: `xz -9` needs 65 MiB, `zstd --ultra` 128 MiB.
    pub const DECODER_MEMORY: u64 = 128 << 20;
    /// Bytes of a text that is read whole: a control file, a list of conffiles, a script, a manifest.
    pub const TEXT: u64 = 4 << 20;
}

/// Counts what one source takes and gives. One thread's.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    taken: Cell<u64>,
    given: Cell<u64>,
    entries: Cell<u64>,
    lookups: Cell<u64>,
}

impl Meter {
    pub(crate) fn new(limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            limits,
            taken: Cell::new(0),
            given: Cell::new(0),
            entries: Cell::new(0),
            lookups: Cell::new(0),
        })
    }

    /// For an image: what it has is its size.
    pub(crate) fn of_size(limits: Limits, bytes: u64) -> Rc<Self> {
        let meter = Self::new(limits);
        meter.taken.set(bytes);
        meter
    }

    pub(crate) fn entry(&self) -> Result<(), Fault> {
        self.entries.set(self.entries.get().saturating_add(1));
        if self.entries.get() > self.limits.entries {
            return Err(Fault::TooManyEntries(self.limits.entries));
        }
        Ok(())
    }

    /// A file or folder is looked for behind so many entries.
    pub(crate) fn look(&self, behind: u64) -> Result<(), Fault> {
        self.lookups.set(self.lookups.get().saturating_add(behind));
        if self.lookups.get() > self.limits.lookups {
            return Err(Fault::TooManyLookups(self.limits.lookups));
        }
        Ok(())
    }

    pub(crate) fn give(&self, bytes: usize) -> Result<(), Fault> {
        let given = self.given.get().saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.given.set(given);
        if given > self.limits.unpacked {
            return Err(Fault::TooMuch(self.limits.unpacked));
        }
        if given > Limits::RATIO_FROM && given > self.taken.get().saturating_mul(self.limits.ratio) {
            return Err(Fault::Ratio(self.limits.ratio));
        }
        Ok(())
    }

    fn take(&self, bytes: usize) {
        self.taken.set(self.taken.get().saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX)));
    }
}

/// Before a decoder: counts what it takes.
#[derive(Debug)]
pub(crate) struct Taken<R> {
    inner: R,
    meter: Rc<Meter>,
    /// Bytes consumed.
    pub(crate) position: u64,
}

impl<R> Taken<R> {
    pub(crate) fn new(inner: R, meter: &Rc<Meter>) -> Self {
        Self { inner, meter: Rc::clone(meter), position: 0 }
    }
}

impl<R> Taken<R> {
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: BufRead> Read for Taken<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count(count);
        Ok(count)
    }
}

impl<R> Taken<R> {
    fn count(&mut self, count: usize) {
        self.meter.take(count);
        self.position = self.position.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

impl<R: BufRead> BufRead for Taken<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.count(count);
    }
}

/// Behind a decoder: counts what it gives, and ends where a limit is.
#[derive(Debug)]
pub(crate) struct Given<R> {
    inner: R,
    meter: Rc<Meter>,
}

impl<R> Given<R> {
    pub(crate) fn new(inner: R, meter: &Rc<Meter>) -> Self {
        Self { inner, meter: Rc::clone(meter) }
    }
}

impl<R: Read> Read for Given<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.meter.give(count).map_err(Fault::into_io)?;
        Ok(count)
    }
}

/// All of a text, if it is no longer than [`Limits::TEXT`].
pub(crate) fn text(reader: impl Read, what: &'static str) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    reader.take(Limits::TEXT + 1).read_to_end(&mut bytes).map_err(|error| Fault::of_io(error, what))?;
    if bytes.len() > usize::try_from(Limits::TEXT).unwrap_or(usize::MAX) {
        return Err(Fault::TooLarge { what, limit: Limits::TEXT });
    }
    Ok(bytes)
}

/// Reads until the buffer is full or the end is there.
pub(crate) fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => have = have.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}
