//! tar archives: the data of .deb packages, layers of images.
//!
//! Of the crate `tar` the entries are taken, nothing is unpacked. It reads long names and pax records whole, whatever their
//! size: between two contents it gets no more than [`HEADERS`] bytes.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use tar::EntryType;

use super::error::{Fault, FilesError, Place};
use super::limits::{Limits, Meter};
use super::path::below_root;

/// Bytes of headers, long names and pax records of one entry.
const HEADERS: u64 = 1 << 20;

/// An entry.
#[derive(Debug)]
pub(crate) struct Member {
    /// Below the root.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: MemberKind,
    pub(crate) mode: u32,
    pub(crate) size: u64,
    /// Of its content, in the archive.
    pub(crate) content_offset: u64,
}

/// What it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Folder,
    /// To a target, as it stands there.
    Symlink(Vec<u8>),
    /// To a path below the root.
    HardLink(Vec<u8>),
    Special,
}

/// Lets the crate read only so much.
struct Gate<R> {
    inner: R,
    left: Rc<Cell<u64>>,
    zeros: Rc<Cell<u64>>,
}

impl<R: Read> Read for Gate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(Fault::TooLarge { what: "headers of one entry", limit: HEADERS }.into_io());
        }
        let count = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        if left != u64::MAX {
            self.left.set(left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX)));
            let read = buffer.get(..count).unwrap_or_default();
            let trailing = read.iter().rev().take_while(|byte| **byte == 0).count();
            let before = if trailing == count { self.zeros.get() } else { 0 };
            self.zeros.set(before.saturating_add(u64::try_from(trailing).unwrap_or(0)));
        }
        Ok(count)
    }
}

/// Shows each entry and its content, from front to back, then reads on to the end of the stream, for the checksums there.
pub(crate) fn each(
    input: impl Read,
    place: &Place,
    meter: &Meter,
    mut visit: impl FnMut(&Member, &mut dyn Read) -> Result<(), Fault>,
) -> Result<(), FilesError> {
    let (left, zeros) = (Rc::new(Cell::new(HEADERS)), Rc::new(Cell::new(0)));
    let gate = Gate { inner: input, left: Rc::clone(&left), zeros: Rc::clone(&zeros) };
    let mut archive = tar::Archive::new(gate);
    let broken = |error| Fault::of_io(error, "a tar archive");
    let mut offset = 0;
    for entry in archive.entries().map_err(|error| broken(error).at(place))? {
        let mut entry = entry.map_err(|error| broken(error).at(&place.offset(offset)))?;
        offset = entry.raw_header_position();
        let name = entry.path_bytes().into_owned();
        let here = place.member(&name).offset(offset);
        meter.entry().map_err(|fault| fault.at(&here))?;
        left.set(u64::MAX);
        if let Some(member) = member(&mut entry, &name).map_err(|fault| fault.at(&here))? {
            let mut content = Whole { left: member.size, inner: &mut entry };
            visit(&member, &mut content).map_err(|fault| fault.at(&here))?;
        }
        io::copy(&mut entry, &mut io::sink()).map_err(|error| broken(error).at(&here))?;
        // The padding behind the content comes with the next header.
        left.set(HEADERS);
        zeros.set(0);
    }
    if zeros.get() < 512 {
        return Err(Fault::Truncated("a tar archive: its end mark is missing").at(place));
    }
    left.set(u64::MAX);
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| broken(error).at(place))?;
    Ok(())
}

/// The crate ends a content early where the archive does.
struct Whole<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(Fault::Truncated("the content of a tar entry").into_io());
        }
        self.left = self.left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

/// Nothing for what describes the archive only.
fn member(entry: &mut tar::Entry<'_, impl Read>, name: &[u8]) -> Result<Option<Member>, Fault> {
    let broken = |error| Fault::of_io(error, "a tar header");
    let link = |entry: &tar::Entry<'_, _>| {
        entry
            .link_name_bytes()
            .map(std::borrow::Cow::into_owned)
            .ok_or(Fault::corrupt("a link without a target"))
    };
    let kind = match entry.header().entry_type() {
        EntryType::XGlobalHeader => return Ok(None),
        // Of before there was a type for folders; what is to be done with its content, nobody agrees on.
        EntryType::Regular if name.ends_with(b"/") && entry.size() == 0 => MemberKind::Folder,
        EntryType::Regular if name.ends_with(b"/") => return Err(Fault::corrupt("a folder with content")),
        EntryType::Regular | EntryType::Continuous => MemberKind::File,
        // The crate makes up the holes, and they would count nowhere.
        EntryType::GNUSparse => return Err(Fault::Unsupported("a sparse file")),
        EntryType::Directory => MemberKind::Folder,
        EntryType::Symlink => {
            let target = link(entry)?;
            if target.len() > Limits::PATH {
                return Err(Fault::Name("leads to one of more than 4096 bytes"));
            }
            MemberKind::Symlink(target)
        }
        EntryType::Link => MemberKind::HardLink(below_root(&link(entry)?)?),
        EntryType::Char | EntryType::Block | EntryType::Fifo => MemberKind::Special,
        _ => return Err(Fault::Unsupported("an entry of a type that no file system has")),
    };
    if let Some(records) = entry.pax_extensions().map_err(broken)? {
        for record in records {
            if record.map_err(broken)?.key_bytes().starts_with(b"GNU.sparse.") {
                return Err(Fault::Unsupported("a sparse file in the form of pax"));
            }
        }
    }
    Ok(Some(Member {
        path: below_root(name)?,
        kind,
        mode: entry.header().mode().map_err(broken)?,
        size: entry.size(),
        content_offset: entry.raw_file_position(),
    }))
}
