//! ext4 images, by the crate `ext4-view`: read only, without unsafe code.
//!
//! It makes room for all descriptors of block groups before it looks at them, and follows folders wherever they lead. So
//! the superblock is held against the size of the image first, and the walk has limits of its own.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use ext4_view::{Ext4, Ext4Error, FileType};

use super::collect::Group;
use super::error::{Fault, FilesError, Place, printable};
use super::hash::Worker;
use super::limits::{Limits, Meter};
use super::path::join;
use super::tree::open_file;

/// Where the superblock is.
const SUPERBLOCK: u64 = 1024;

/// Whether the first 2 KiB are of such an image.
pub(crate) fn is_image(front: &[u8]) -> bool {
    front.get(0x438..0x43a) == Some(&[0x53, 0xef])
}

/// The files of an image.
pub(crate) fn read(path: &Path, worker: &mut Worker<'_>) -> Result<(), FilesError> {
    let (file, size) = open_file(path)?;
    let place = Place::file(path);
    let mut superblock = [0; 1024];
    file.read_exact_at(&mut superblock, SUPERBLOCK)
        .map_err(|error| Fault::of_io(error, "the superblock").at(&place.offset(SUPERBLOCK)))?;
    check(&superblock, size).map_err(|fault| fault.at(&place.offset(SUPERBLOCK)))?;
    let image = Ext4::load(Box::new(Image(file))).map_err(|error| fault(error).at(&place))?;
    let meter = Meter::of_size(worker.shared.options.limits, size);
    let mut walk =
        Walk { image, group: Group::new(&format!("ext4 image {}", path.display())), place, meter, worker };
    walk.folders()?;
    let Walk { group, place, worker, .. } = walk;
    worker.shared.add(group).map(drop).map_err(|fault| fault.at(&place))
}

/// The superblock, against the size of the image: fs/ext4/ext4.h, struct ext4_super_block.
fn check(superblock: &[u8; 1024], size: u64) -> Result<(), Fault> {
    let le32 = |at: usize| {
        let bytes = superblock.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
    };
    if superblock.get(0x38..0x3a) != Some(&[0x53, 0xef]) {
        return Err(Fault::corrupt("no superblock of ext4"));
    }
    let is_64_bit = le32(0x60) & 0x80 != 0;
    let blocks = le32(0x4) | if is_64_bit { le32(0x150) << 32 } else { 0 };
    let (scale, per_group) = (le32(0x18), le32(0x20));
    if scale > 6 {
        return Err(Fault::corrupt("blocks of more than 64 KiB"));
    }
    let bytes = blocks.checked_mul(1024 << scale).filter(|bytes| *bytes <= size);
    if bytes.is_none() {
        return Err(Fault::Truncated("the blocks that its superblock announces"));
    }
    // mke2fs makes groups of 8 blocks for each byte of a block, and of no fewer than 256.
    if per_group < 256 {
        return Err(Fault::corrupt("block groups of less than 256 blocks"));
    }
    Ok(())
}

struct Image(File);

impl ext4_view::Ext4Read for Image {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.0.read_exact_at(dst, start_byte).map_err(Into::into)
    }
}

fn fault(error: Ext4Error) -> Fault {
    match error {
        Ext4Error::Encrypted => Fault::Unsupported("encrypted files"),
        error => Fault::Corrupt(printable(error.to_string().as_bytes())),
    }
}

struct Walk<'w, 's> {
    image: Ext4,
    group: Group,
    place: Place,
    meter: Rc<Meter>,
    worker: &'w mut Worker<'s>,
}

impl Walk<'_, '_> {
    fn folders(&mut self) -> Result<(), FilesError> {
        // With how many entries are passed on the way to a folder: the crate finds each path from the root on, and searches folders
        // without an index from their beginning. Which have one it does not say.
        let mut folders = vec![(Vec::new(), 0, 0_u64)];
        while let Some((folder, depth, behind)) = folders.pop() {
            let fail = |place: &Place, fault: Fault| fault.at(&place.member(&folder));
            let path = [b"/", folder.as_slice()].concat();
            let path = ext4_view::Path::try_from(path.as_slice())
                .map_err(|_| fail(&self.place, Fault::Name("is no path")))?;
            self.meter.look(behind).map_err(|fault| fail(&self.place, fault))?;
            let entries = self.image.read_dir(path).map_err(|error| fail(&self.place, fault(error)))?;
            for (behind, entry) in (behind..).zip(entries) {
                let entry = entry.map_err(|error| fail(&self.place, fault(error)))?;
                let name = entry.file_name();
                if matches!(name.as_ref(), b"." | b"..") {
                    continue;
                }
                let path = join(&folder, name.as_ref());
                let is_folder = self
                    .entry(&entry, &path, depth, behind)
                    .map_err(|fault| fault.at(&self.place.member(&path)))?;
                if is_folder {
                    folders.push((path, depth + 1, behind));
                }
            }
        }
        Ok(())
    }

    /// Whether it is a folder. `behind`: how many entries are passed on the way to it.
    fn entry(
        &mut self,
        entry: &ext4_view::DirEntry,
        path: &[u8],
        depth: usize,
        behind: u64,
    ) -> Result<bool, Fault> {
        self.meter.entry()?;
        if path.len() >= Limits::PATH {
            return Err(Fault::Name("has more than 4096 bytes"));
        }
        match entry.file_type().map_err(fault)? {
            FileType::Directory if depth + 1 >= Limits::DEPTH => Err(Fault::too_deep()),
            FileType::Directory => Ok(true),
            FileType::Regular => {
                self.meter.look(behind)?;
                let absolute = [b"/", path].concat();
                let absolute =
                    ext4_view::Path::try_from(absolute.as_slice()).map_err(|_| Fault::Name("is no path"))?;
                let file = self.image.open(absolute).map_err(fault)?;
                let (mode, size) = (file.metadata().mode(), file.metadata().len());
                let content = self.worker.content(
                    Content { file, left: size },
                    path,
                    u32::from(mode),
                    Some(&self.meter),
                )?;
                self.group.push(content.digest, path, &self.worker.shared.options.prefix);
                Ok(false)
            }
            FileType::Symlink => {
                self.group.left_out.symbolic_links += 1;
                Ok(false)
            }
            _ => {
                self.group.left_out.special_files += 1;
                Ok(false)
            }
        }
    }
}

/// A file as a reader: the crate gives a block at a time.
struct Content {
    file: ext4_view::File,
    left: u64,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let count = self.file.read_bytes(buffer).map_err(|error| fault(error).into_io())?;
        self.left = self.left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}
