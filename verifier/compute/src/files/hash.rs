//! The content of one file: its digest, without holding it.

use std::io::Read;

use rootbound_common::crypto::{Digest, Hasher};
use rootbound_common::tpm::HashAlgorithm;

use super::collect::Shared;
use super::error::Fault;
use super::limits::{Meter, fill};

/// One worker's: the memory that contents go through, and what all workers share.
pub(crate) struct Worker<'s> {
    pub(crate) shared: &'s Shared<'s>,
    buffer: Vec<u8>,
}

/// What was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    /// Nothing where it is left out: nothing runs it.
    pub(crate) digest: Option<Digest>,
    /// Bytes.
    pub(crate) size: u64,
}

impl<'s> Worker<'s> {
    /// What is read at once.
    const BUFFER: usize = 256 << 10;

    pub(crate) fn new(shared: &'s Shared<'s>) -> Self {
        Self { shared, buffer: vec![0; Self::BUFFER] }
    }

    /// Reads to the end. What nothing runs is read, too, as an archive needs, but not hashed.
    pub(crate) fn content(
        &mut self,
        mut reader: impl Read,
        path: &[u8],
        mode: u32,
        meter: Option<&Meter>,
    ) -> Result<Content, Fault> {
        let (mut hasher, mut size) = (None, 0_u64);
        loop {
            let count = fill(&mut reader, &mut self.buffer)
                .map_err(|error| Fault::of_io(error, "the content of a file"))?;
            let bytes = self.buffer.get(..count).unwrap_or_default();
            if size == 0 && (!self.shared.options.executable_only || is_executable(path, mode, bytes)) {
                hasher = Some(Hasher::new(self.shared.options.algorithm));
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
            if let Some(meter) = meter {
                meter.give(count)?;
            }
            size = size.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            self.shared.progress.read(count);
            if count < self.buffer.len() {
                break;
            }
        }
        self.shared.progress.file();
        Ok(Content { digest: hasher.map(Hasher::finish), size })
    }

    /// Reads to the end, for a digest that an archive has of it, beside [`Worker::content`]'s.
    pub(crate) fn content_checked(
        &mut self,
        reader: impl Read,
        path: &[u8],
        mode: u32,
        algorithm: HashAlgorithm,
    ) -> Result<(Content, Digest), Fault> {
        let mut checked = Checked { inner: reader, hasher: Hasher::new(algorithm) };
        let content = self.content(&mut checked, path, mode, None)?;
        Ok((content, checked.hasher.finish()))
    }
}

/// Hashes what passes through it.
pub(crate) struct Checked<R> {
    pub(crate) inner: R,
    pub(crate) hasher: Hasher,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Whether something may run it: a mode with an x, ELF (programs, shared objects, kernel modules), a script's `#!`, a
/// compressed kernel module.
fn is_executable(path: &[u8], mode: u32, front: &[u8]) -> bool {
    const MODULES: [&[u8]; 4] = [b".ko", b".ko.gz", b".ko.xz", b".ko.zst"];
    mode & 0o111 != 0
        || front.starts_with(b"\x7fELF")
        || front.starts_with(b"#!")
        || MODULES.iter().any(|end| path.ends_with(end))
}
