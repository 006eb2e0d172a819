//! squashfs images, version 4.0.
//!
//! The reader is ours. The crate for it, backhand, decompresses a block to whatever size comes out, takes the dictionary
//! that a block of xz asks for, keeps every fragment that it has read and recurses into folders: none of that can be
//! bounded from outside. Here, a block is decompressed into the size that it may have, one fragment block is kept, and
//! folders are a list. Format: Documentation/filesystems/squashfs.rst of Linux, fs/squashfs/squashfs_fs.h.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use rootbound_common::crypto::Digest;

use super::collect::Group;
use super::error::{Fault, FilesError, Place};
use super::hash::Worker;
use super::limits::{Limits, Meter};
use super::path::join;
use super::squashfs_blocks::{Blocks, Metadata};
use super::tree::open_file;

/// The front of an image, little-endian.
pub(crate) const MAGIC: &[u8] = b"hsqs";

/// What an image is read from, by offset.
pub(crate) trait ReadAt {
    /// Fills the buffer from an offset.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)?.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The files of an image.
pub(crate) fn read(path: &Path, worker: &mut Worker<'_>) -> Result<(), FilesError> {
    let (file, size) = open_file(path)?;
    let place = Place::file(path);
    let group = image(&file, size, &path.display().to_string(), &place, worker)?;
    worker.shared.add(group).map(drop).map_err(|fault| fault.at(&place))
}

/// The files of an image that is not a file.
pub(crate) fn image(
    image: &dyn ReadAt,
    size: u64,
    name: &str,
    place: &Place,
    worker: &mut Worker<'_>,
) -> Result<Group, FilesError> {
    let meter = Meter::of_size(worker.shared.options.limits, size);
    let (blocks, root) = Blocks::open(image, size, &meter).map_err(|fault| fault.at(place))?;
    let mut walk = Walk {
        blocks,
        meter,
        worker,
        group: Group::new(&format!("squashfs image {name}")),
        folders: vec![(Vec::new(), root, 0)],
        seen: HashSet::new(),
        linked: HashMap::new(),
    };
    while let Some((path, inode, depth)) = walk.folders.pop() {
        walk.folder(&path, inode, depth, place)?;
    }
    Ok(walk.group)
}

/// Where an inode is: its metadata block, and the offset in it.
type InodeRef = u64;

struct Walk<'i, 'w, 's> {
    blocks: Blocks<'i>,
    meter: Rc<Meter>,
    worker: &'w mut Worker<'s>,
    group: Group,
    folders: Vec<(Vec<u8>, InodeRef, usize)>,
    seen: HashSet<InodeRef>,
    linked: HashMap<InodeRef, Option<Digest>>,
}

/// Types of inodes; from 8 on, those with more fields.
mod kind {
    pub(super) const FOLDER: u16 = 1;
    pub(super) const FILE: u16 = 2;
    pub(super) const SYMLINK: u16 = 3;
    pub(super) const LONG_FOLDER: u16 = 8;
    pub(super) const LONG_FILE: u16 = 9;
}

impl Walk<'_, '_, '_> {
    fn folder(
        &mut self,
        path: &[u8],
        inode: InodeRef,
        depth: usize,
        place: &Place,
    ) -> Result<(), FilesError> {
        let fail = |fault: Fault| fault.at(&place.member(path));
        if !self.seen.insert(inode) {
            return Err(fail(Fault::corrupt("a folder is in two places")));
        }
        let (mut listing, mut left) = self.listing(inode).map_err(fail)?;
        while left > 0 {
            let (count, block) = self.header(&mut listing, &mut left).map_err(fail)?;
            for _ in 0..count {
                let (name, inode, kind) = self.name(&mut listing, &mut left, block).map_err(fail)?;
                let path = join(path, &name);
                self.entry(path.clone(), inode, kind, depth)
                    .map_err(|fault| fault.at(&place.member(&path)))?;
            }
        }
        Ok(())
    }

    /// Where a folder's entries are, and how many bytes of them.
    fn listing(&self, inode: InodeRef) -> Result<(Metadata, u64), Fault> {
        let mut at = self.blocks.inode(inode)?;
        let kind = self.blocks.u16(&mut at)?;
        self.blocks.skip(&mut at, 14)?;
        let (block, offset, size) = match kind {
            kind::FOLDER => {
                let block = self.blocks.u32(&mut at)?;
                self.blocks.skip(&mut at, 4)?;
                let size = u32::from(self.blocks.u16(&mut at)?);
                (block, self.blocks.u16(&mut at)?, size)
            }
            kind::LONG_FOLDER => {
                self.blocks.skip(&mut at, 4)?;
                let (size, block) = (self.blocks.u32(&mut at)?, self.blocks.u32(&mut at)?);
                self.blocks.skip(&mut at, 6)?;
                (block, self.blocks.u16(&mut at)?, size)
            }
            _ => return Err(Fault::corrupt("an inode of a folder that is none")),
        };
        // Three bytes are for `.` and `..`, which are not there.
        Ok((self.blocks.folder(block, offset), u64::from(size.saturating_sub(3))))
    }

    /// A header of a run of entries: how many follow, and the block of their inodes.
    fn header(&self, at: &mut Metadata, left: &mut u64) -> Result<(u32, u32), Fault> {
        spend(left, 12)?;
        let (count, block) = (self.blocks.u32(at)?, self.blocks.u32(at)?);
        self.blocks.skip(at, 4)?;
        if count >= 256 {
            return Err(Fault::corrupt("a run of more than 256 entries in a folder"));
        }
        Ok((count + 1, block))
    }

    fn name(&self, at: &mut Metadata, left: &mut u64, block: u32) -> Result<(Vec<u8>, InodeRef, u16), Fault> {
        spend(left, 8)?;
        let offset = self.blocks.u16(at)?;
        self.blocks.skip(at, 2)?;
        let (kind, size) = (self.blocks.u16(at)?, self.blocks.u16(at)?);
        if size >= 256 {
            return Err(Fault::Name("has more than 256 bytes between two slashes"));
        }
        let size = size + 1;
        spend(left, size.into())?;
        let mut name = vec![0; size.into()];
        self.blocks.read(at, &mut name)?;
        if matches!(name.as_slice(), b"." | b"..") {
            return Err(Fault::Escapes);
        }
        if name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(Fault::Name("has a NUL or a slash"));
        }
        Ok((name, u64::from(block) << 16 | u64::from(offset), kind))
    }

    fn entry(&mut self, path: Vec<u8>, inode: InodeRef, kind: u16, depth: usize) -> Result<(), Fault> {
        self.meter.entry()?;
        if path.len() >= Limits::PATH {
            return Err(Fault::Name("has more than 4096 bytes"));
        }
        match kind {
            kind::FOLDER if depth + 1 >= Limits::DEPTH => return Err(Fault::too_deep()),
            kind::FOLDER => self.folders.push((path, inode, depth + 1)),
            kind::FILE => self.file(&path, inode)?,
            kind::SYMLINK => self.group.left_out.symbolic_links += 1,
            4..=7 => self.group.left_out.special_files += 1,
            _ => return Err(Fault::corrupt("an entry of an unknown type")),
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], inode: InodeRef) -> Result<(), Fault> {
        let prefix = &self.worker.shared.options.prefix;
        if let Some(digest) = self.linked.get(&inode) {
            self.group.push(*digest, path, prefix);
            return Ok(());
        }
        let mut at = self.blocks.inode(inode)?;
        let (kind, mode) = (self.blocks.u16(&mut at)?, self.blocks.u16(&mut at)?);
        self.blocks.skip(&mut at, 12)?;
        let (start, size, links, fragment, offset) = match kind {
            kind::FILE => {
                let start = u64::from(self.blocks.u32(&mut at)?);
                let (fragment, offset) = (self.blocks.u32(&mut at)?, self.blocks.u32(&mut at)?);
                (start, u64::from(self.blocks.u32(&mut at)?), 1, fragment, offset)
            }
            kind::LONG_FILE => {
                let (start, size) = (self.blocks.u64(&mut at)?, self.blocks.u64(&mut at)?);
                self.blocks.skip(&mut at, 8)?;
                let links = self.blocks.u32(&mut at)?;
                let (fragment, offset) = (self.blocks.u32(&mut at)?, self.blocks.u32(&mut at)?);
                self.blocks.skip(&mut at, 4)?;
                (start, size, links, fragment, offset)
            }
            _ => return Err(Fault::corrupt("an inode of a file that is none")),
        };
        let content = Content {
            blocks: &self.blocks,
            sizes: at,
            position: start,
            left: size,
            tail: (fragment != NO_FRAGMENT).then_some((fragment, offset)),
            block: Vec::new(),
            taken: 0,
        };
        let content = self.worker.content(content, path, mode.into(), Some(&self.meter))?;
        if links > 1 {
            self.linked.insert(inode, content.digest);
        }
        self.group.push(content.digest, path, prefix);
        Ok(())
    }
}

const NO_FRAGMENT: u32 = u32::MAX;

fn spend(left: &mut u64, bytes: u64) -> Result<(), Fault> {
    *left =
        left.checked_sub(bytes).ok_or(Fault::corrupt("entries that reach over the end of their folder"))?;
    Ok(())
}

/// The content of a file, a block at a time. Sizes of blocks are read as they are needed.
struct Content<'b, 'i> {
    blocks: &'b Blocks<'i>,
    sizes: Metadata,
    position: u64,
    left: u64,
    /// What is less than a block, in a fragment.
    tail: Option<(u32, u32)>,
    block: Vec<u8>,
    taken: usize,
}

impl Content<'_, '_> {
    fn next_block(&mut self) -> Result<(), Fault> {
        let most = self.left.min(self.blocks.block_size());
        self.taken = 0;
        self.left -= most;
        if let Some((fragment, offset)) = self.tail.filter(|_| most < self.blocks.block_size()) {
            self.blocks.fragment(fragment, offset, most, &mut self.block)
        } else {
            let size = self.blocks.u32(&mut self.sizes)?;
            self.blocks.data(&mut self.position, size, most, &mut self.block)
        }
    }
}

impl Read for Content<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.block.len() {
            if self.left == 0 {
                return Ok(0);
            }
            self.next_block().map_err(Fault::into_io)?;
        }
        let rest = self.block.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.taken += count;
        Ok(count)
    }
}
