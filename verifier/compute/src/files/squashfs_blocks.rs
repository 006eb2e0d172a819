//! Blocks of squashfs images: the superblock, metadata, data and fragments, decompressed within their bounds.

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;

use super::decode::{Compression, Extent};
use super::error::Fault;
use super::limits::Meter;
use super::squashfs::{MAGIC, ReadAt};

/// Bytes of a metadata block, decompressed.
const METADATA: usize = 8192;

/// An image, by its blocks.
pub(super) struct Blocks<'i> {
    image: &'i dyn ReadAt,
    /// Metadata and fragment blocks count whenever they are read: folders and files may ask for one and another in turn.
    meter: Rc<Meter>,
    compressor: Compressor,
    block_size: u32,
    bytes_used: u64,
    inode_table: u64,
    folder_table: u64,
    fragment_table: u64,
    fragments: u32,
    /// The metadata blocks that were read last: inodes and entries of neighbours are in the same.
    recent: RefCell<Vec<Rc<Block>>>,
    /// The fragment block that was read last.
    fragment: RefCell<Option<(u64, Vec<u8>)>>,
}

/// A metadata block.
struct Block {
    at: u64,
    next: u64,
    bytes: Vec<u8>,
}

/// A place in metadata.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metadata {
    block: u64,
    offset: usize,
}

#[derive(Debug, Clone, Copy)]
enum Compressor {
    Zlib,
    Xz,
    Lz4,
    Zstd,
}

impl<'i> Blocks<'i> {
    const RECENT: usize = 32;

    /// Reads the superblock; also says where the root's inode is.
    pub(super) fn open(image: &'i dyn ReadAt, size: u64, meter: &Rc<Meter>) -> Result<(Self, u64), Fault> {
        let mut superblock = [0; 96];
        image.read_exact_at(&mut superblock, 0).map_err(|error| Fault::of_io(error, "the superblock"))?;
        let bytes = |at: usize| superblock.get(at..).unwrap_or_default();
        let le16 = |at| bytes(at).first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes));
        let le32 = |at| bytes(at).first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let le64 = |at| bytes(at).first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if !superblock.starts_with(MAGIC) {
            return Err(Fault::corrupt("no squashfs image"));
        }
        if (le16(28), le16(30)) != (4, 0) {
            return Err(Fault::Unsupported("another version of squashfs than 4.0"));
        }
        let compressor = match le16(20) {
            1 => Compressor::Zlib,
            4 => Compressor::Xz,
            5 => Compressor::Lz4,
            6 => Compressor::Zstd,
            2 => return Err(Fault::Unsupported("LZMA compression of before xz")),
            3 => return Err(Fault::Unsupported("LZO compression")),
            _ => return Err(Fault::corrupt("an unknown compression")),
        };
        let (block_size, block_log) = (le32(12), le16(22));
        if !(4096..=1 << 20).contains(&block_size) || 1_u32.checked_shl(block_log.into()) != Some(block_size)
        {
            return Err(Fault::corrupt("a block size that is no power of two from 4 KiB to 1 MiB"));
        }
        let bytes_used = le64(40);
        if bytes_used > size {
            return Err(Fault::Truncated("what its superblock says that it uses"));
        }
        let blocks = Self {
            image,
            meter: Rc::clone(meter),
            compressor,
            block_size,
            bytes_used,
            inode_table: le64(64),
            folder_table: le64(72),
            fragment_table: le64(80),
            fragments: le32(16),
            recent: RefCell::default(),
            fragment: RefCell::default(),
        };
        Ok((blocks, le64(32)))
    }

    pub(super) fn block_size(&self) -> u64 {
        self.block_size.into()
    }

    pub(super) fn inode(&self, reference: u64) -> Result<Metadata, Fault> {
        let block = self.inode_table.checked_add(reference >> 16).ok_or_else(outside)?;
        Ok(Metadata { block, offset: usize::try_from(reference & 0xffff).unwrap_or(0) })
    }

    pub(super) fn folder(&self, block: u32, offset: u16) -> Metadata {
        Metadata { block: self.folder_table.saturating_add(block.into()), offset: offset.into() }
    }

    pub(super) fn u16(&self, at: &mut Metadata) -> Result<u16, Fault> {
        let mut bytes = [0; 2];
        self.read(at, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    pub(super) fn u32(&self, at: &mut Metadata) -> Result<u32, Fault> {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    pub(super) fn u64(&self, at: &mut Metadata) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(super) fn skip(&self, at: &mut Metadata, count: usize) -> Result<(), Fault> {
        let mut bytes = [0; 16];
        self.read(at, bytes.get_mut(..count).unwrap_or_default())
    }

    /// Reads metadata, over the ends of blocks.
    pub(super) fn read(&self, at: &mut Metadata, buffer: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < buffer.len() {
            let block = self.metadata(at.block)?;
            let rest = block.bytes.get(at.offset..).unwrap_or_default();
            if rest.is_empty() {
                // A full block goes on in the next one; no other does.
                if block.bytes.len() < METADATA || at.offset > METADATA {
                    return Err(Fault::corrupt("metadata that ends too early"));
                }
                *at = Metadata { block: block.next, offset: 0 };
                continue;
            }
            for (to, from) in buffer.iter_mut().skip(done).zip(rest) {
                *to = *from;
                done += 1;
                at.offset += 1;
            }
        }
        Ok(())
    }

    fn metadata(&self, at: u64) -> Result<Rc<Block>, Fault> {
        if let Some(block) = self.recent.borrow().iter().find(|block| block.at == at) {
            return Ok(Rc::clone(block));
        }
        let mut header = [0; 2];
        self.stored(at, &mut header)?;
        let header = u16::from_le_bytes(header);
        let size = header & 0x7fff;
        if usize::from(size) > METADATA || size == 0 {
            return Err(Fault::corrupt("a metadata block of a size that none has"));
        }
        let mut stored = vec![0; size.into()];
        let begin = at.checked_add(2).ok_or_else(outside)?;
        self.stored(begin, &mut stored)?;
        let bytes = if header & 0x8000 != 0 { stored } else { self.decompress(&stored, METADATA)? };
        self.meter.give(bytes.len())?;
        let block = Rc::new(Block { at, next: begin.saturating_add(size.into()), bytes });
        let mut recent = self.recent.borrow_mut();
        if recent.len() >= Self::RECENT {
            recent.remove(0);
        }
        recent.push(Rc::clone(&block));
        Ok(block)
    }

    /// A data block of exactly `size` bytes, at a position that moves behind it.
    pub(super) fn data(&self, at: &mut u64, stored: u32, size: u64, into: &mut Vec<u8>) -> Result<(), Fault> {
        let size = usize::try_from(size).unwrap_or(0);
        let count = stored & 0x00ff_ffff;
        into.clear();
        if count == 0 {
            // A hole.
            into.resize(size, 0);
            return Ok(());
        }
        *into = self.block(*at, stored)?;
        *at = at.checked_add(count.into()).ok_or_else(outside)?;
        if into.len() != size {
            return Err(Fault::corrupt("a data block of another size than its file says"));
        }
        Ok(())
    }

    /// The end of a file, out of a fragment block.
    pub(super) fn fragment(
        &self,
        index: u32,
        offset: u32,
        size: u64,
        into: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if index >= self.fragments {
            return Err(Fault::corrupt("a fragment that the image does not have"));
        }
        // A list of places of metadata blocks, each with 512 entries of 16 bytes.
        let mut place = [0; 8];
        let entry = self.fragment_table.checked_add(u64::from(index / 512) * 8).ok_or_else(outside)?;
        self.stored(entry, &mut place)?;
        let offset_of_entry = usize::try_from(index % 512).unwrap_or(0) * 16;
        let mut at = Metadata { block: u64::from_le_bytes(place), offset: offset_of_entry };
        let (start, stored) = (self.u64(&mut at)?, self.u32(&mut at)?);
        let mut last = self.fragment.borrow_mut();
        if last.as_ref().is_none_or(|(at, _)| *at != start) {
            let block = self.block(start, stored)?;
            self.meter.give(block.len())?;
            *last = Some((start, block));
        }
        let bytes = last.as_ref().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
        let (offset, size) =
            (usize::try_from(offset).unwrap_or(usize::MAX), usize::try_from(size).unwrap_or(0));
        let bytes = bytes.get(offset..).and_then(|bytes| bytes.get(..size));
        into.clear();
        into.extend_from_slice(bytes.ok_or(Fault::corrupt("the end of a file that leaves its fragment"))?);
        Ok(())
    }

    fn block(&self, at: u64, stored: u32) -> Result<Vec<u8>, Fault> {
        let (count, most) = (stored & 0x00ff_ffff, usize::try_from(self.block_size).unwrap_or(0));
        if count == 0 || count > self.block_size {
            return Err(Fault::corrupt("a block of a size that none has"));
        }
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
        self.stored(at, &mut bytes)?;
        if stored & 1 << 24 != 0 { Ok(bytes) } else { self.decompress(&bytes, most) }
    }

    fn stored(&self, at: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        let end = u64::try_from(buffer.len()).ok().and_then(|size| at.checked_add(size));
        if end.is_none_or(|end| end > self.bytes_used) {
            return Err(outside());
        }
        self.image.read_exact_at(buffer, at).map_err(|error| Fault::of_io(error, "a block"))
    }

    /// No more than `most` bytes.
    fn decompress(&self, stored: &[u8], most: usize) -> Result<Vec<u8>, Fault> {
        let broken = |error| Fault::of_io(error, "a compressed block");
        let mut bytes = Vec::with_capacity(most + 1);
        let compression = match self.compressor {
            Compressor::Lz4 => {
                bytes.resize(most, 0);
                let count = lz4_flex::block::decompress_into(stored, &mut bytes)
                    .map_err(|error| Fault::Corrupt(format!("a compressed block: {error}")))?;
                bytes.truncate(count);
                return Ok(bytes);
            }
            Compressor::Zlib => {
                let decoder = flate2::bufread::ZlibDecoder::new(stored);
                decoder.take(limit(most)).read_to_end(&mut bytes).map_err(broken)?;
                return within(bytes, most);
            }
            Compressor::Xz => Compression::Xz,
            Compressor::Zstd => Compression::Zstd,
        };
        let decoder = compression.decoder(stored, Extent::Frame).map_err(broken)?;
        decoder.take(limit(most)).read_to_end(&mut bytes).map_err(broken)?;
        within(bytes, most)
    }
}

fn limit(most: usize) -> u64 {
    u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)
}

fn within(bytes: Vec<u8>, most: usize) -> Result<Vec<u8>, Fault> {
    if bytes.len() > most {
        return Err(Fault::TooLarge { what: "a block", limit: u64::try_from(most).unwrap_or(u64::MAX) });
    }
    Ok(bytes)
}

fn outside() -> Fault {
    Fault::corrupt("a block that is outside of the image")
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::*;

    /// An image of metadata blocks that are stored as they are: more of them than are kept.
    fn blocks_of_metadata(count: u64) -> Vec<u8> {
        let mut image = vec![0; 96];
        image.splice(0..4, MAGIC.iter().copied());
        image.splice(12..16, 4096_u32.to_le_bytes());
        image.splice(20..24, [1, 0, 12, 0]);
        image.splice(28..32, [4, 0, 0, 0]);
        image.splice(64..72, 96_u64.to_le_bytes());
        for _ in 0..count {
            image.extend((0x8000 | 8192_u16).to_le_bytes());
            image.resize(image.len() + METADATA, 7);
        }
        let size = u64::try_from(image.len()).unwrap();
        image.splice(40..48, size.to_le_bytes());
        image
    }

    #[test]
    fn metadata_counts_as_often_as_it_is_read() {
        const BLOCKS: u64 = 40;
        let image = blocks_of_metadata(BLOCKS);
        let size = u64::try_from(image.len()).unwrap();
        let limits = Limits { unpacked: 100 * 8192, ..Limits::default() };
        let meter = Meter::of_size(limits, size);
        let bytes = image.as_slice();
        let (blocks, _) = Blocks::open(&bytes, size, &meter).unwrap();
        // A block in turn with 39 others is read anew each time.
        let read = |block: u64| blocks.u16(&mut blocks.inode((block * 8194) << 16).unwrap());
        for round in 0..2 {
            for block in 0..BLOCKS {
                assert_eq!(read(block).unwrap(), 0x0707, "round {round}, block {block}");
            }
        }
        let third = (0..BLOCKS).map(read).position(|read| matches!(read, Err(Fault::TooMuch(819_200))));
        assert_eq!(third, Some(20), "the hundred and first");
        // What is kept costs nothing.
        let meter = Meter::of_size(limits, size);
        let (blocks, _) = Blocks::open(&bytes, size, &meter).unwrap();
        for _ in 0..1000 {
            blocks.u16(&mut blocks.inode(0).unwrap()).unwrap();
        }
    }
}
