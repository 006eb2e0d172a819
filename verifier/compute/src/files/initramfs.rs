//! An initramfs: cpio archives one behind the other, some of them compressed, as the kernel unpacks them onto one root.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::rc::Rc;

use rootbound_common::crypto::{Digest, hash};

use super::collect::Group;
use super::cpio::{Archive, Entry, EntryKind};
use super::decode::{Compression, Extent};
use super::error::{Fault, FilesError, Place};
use super::hash::Worker;
use super::limits::{Given, Limits, Meter, Taken, fill, text};
use super::overlay::{Node, Overlay};
use super::path::below_root;
use super::tree::open_file;

/// The files of an archive.
pub(crate) fn read(path: &Path, worker: &mut Worker<'_>) -> Result<(), FilesError> {
    let (file, _) = open_file(path)?;
    let place = Place::file(path);
    let group =
        stream(BufReader::with_capacity(256 << 10, file), &path.display().to_string(), &place, worker)?;
    worker.shared.add(group).map(drop).map_err(|fault| fault.at(&place))
}

/// The files of an archive that is not a file.
pub(crate) fn stream(
    input: impl BufRead,
    name: &str,
    place: &Place,
    worker: &mut Worker<'_>,
) -> Result<Group, FilesError> {
    let meter = Meter::new(worker.shared.options.limits);
    let mut unpacking = Unpacking {
        worker,
        meter: Rc::clone(&meter),
        overlay: Overlay::default(),
        group: Group::new(&format!("cpio archive {name}")),
        linked: Vec::new(),
    };
    let mut input = Taken::new(input, &meter);
    let mut archives = 0;
    while let Some(front) = front(&mut input).map_err(|fault| fault.at(&place.offset(input.position)))? {
        let begin = input.position.saturating_sub(u64::try_from(front.len()).unwrap_or(0));
        let here =
            if begin == 0 { place.clone() } else { place.member(format!("part at {begin}").as_bytes()) };
        let compression = Compression::of(&front).map_err(|fault| fault.at(&place.offset(begin)))?;
        let mut input = Cursor::new(front).chain(&mut input);
        if compression == Compression::None {
            if !input.get_ref().0.get_ref().starts_with(b"0707") {
                return Err(Fault::corrupt("no cpio archive here").at(&place.offset(begin)));
            }
            unpacking.archive(Given::new(&mut input, &meter), &here)?;
        } else {
            let decoder = compression
                .decoder(&mut input, Extent::Frame)
                .map_err(|error| Fault::of_io(error, "the compressed archive").at(&here))?;
            let mut unpacked = BufReader::with_capacity(64 << 10, Given::new(decoder, &meter));
            while let Some(front) = self::front(&mut unpacked).map_err(|fault| fault.at(&here))? {
                unpacking.archive(Cursor::new(front).chain(&mut unpacked), &here)?;
            }
        }
        archives += 1;
    }
    if archives == 0 {
        return Err(Fault::corrupt("no cpio archive here").at(place));
    }
    let Unpacking { overlay, mut group, worker, linked, .. } = unpacking;
    let (nodes, replaced) = overlay.finish();
    group.left_out.replaced = replaced;
    for (path, node) in nodes {
        match node {
            Node::File { digest, of } => {
                let digest = of.checked_sub(1).and_then(|at| linked.get(at)).copied().unwrap_or(digest);
                group.push(digest, &path, &worker.shared.options.prefix);
            }
            Node::Symlink(_) => group.left_out.symbolic_links += 1,
            Node::Special => group.left_out.special_files += 1,
            Node::Folder => {}
        }
    }
    Ok(group)
}

/// The first bytes behind zeros, which pad; nothing at the end.
fn front(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, Fault> {
    let broken = |error| Fault::of_io(error, "a cpio archive");
    loop {
        let bytes = input.fill_buf().map_err(broken)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        if zeros == 0 {
            break;
        }
        input.consume(zeros);
    }
    let mut front = vec![0; 6];
    let count = fill(input, &mut front).map_err(broken)?;
    front.truncate(count);
    Ok(Some(front))
}

struct Unpacking<'w, 's> {
    worker: &'w mut Worker<'s>,
    meter: Rc<Meter>,
    overlay: Overlay,
    group: Group,
    /// Of each file with several names: they are laid down as they come, and one of them has the content. A node's archive
    /// number is the place here, from 1 on; 0 is for others.
    linked: Vec<Option<Digest>>,
}

impl Unpacking<'_, '_> {
    fn archive(&mut self, input: impl Read, place: &Place) -> Result<(), FilesError> {
        let mut archive = Archive::new(input, &self.meter);
        let mut linked = HashMap::new();
        loop {
            let begin = archive.position();
            let Some(entry) = archive.next(&[]).map_err(|fault| fault.at(&place.offset(begin)))? else {
                break;
            };
            self.entry(&entry, &mut archive, &mut linked)
                .map_err(|fault| fault.at(&place.member(&entry.name).offset(entry.offset)))?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<impl Read>,
        linked: &mut HashMap<(u32, u32, u32), usize>,
    ) -> Result<(), Fault> {
        let path = below_root(&entry.name)?;
        match entry.kind() {
            EntryKind::Folder => self.overlay.put(&path, Node::Folder),
            EntryKind::Special => self.overlay.put(&path, Node::Special),
            EntryKind::Symlink => {
                if entry.size > u64::try_from(Limits::PATH).unwrap_or(u64::MAX) {
                    return Err(Fault::Name("leads to one of more than 4096 bytes"));
                }
                let target = text(archive, "a symbolic link")?;
                self.overlay.put(&path, Node::Symlink(target))
            }
            EntryKind::File if entry.links > 1 => {
                let of = *linked.entry(entry.inode).or_insert_with(|| {
                    // Where nobody has content, it is empty.
                    self.linked.push(Some(hash(self.worker.shared.options.algorithm, &[])));
                    self.linked.len()
                });
                if entry.size > 0 {
                    let content = self.worker.content(archive, &path, entry.mode, None)?;
                    if let Some(digest) = of.checked_sub(1).and_then(|at| self.linked.get_mut(at)) {
                        *digest = content.digest;
                    }
                }
                self.overlay.put(&path, Node::File { digest: None, of })
            }
            EntryKind::File => {
                let content = self.worker.content(archive, &path, entry.mode, None)?;
                self.overlay.put(&path, Node::File { digest: content.digest, of: 0 })
            }
        }
    }
}

/// What [`read`] takes.
pub(crate) fn is_archive(front: &[u8]) -> bool {
    // What is compressed in a way that nobody reads is said to be so when it is read.
    front.starts_with(b"0707") || !matches!(Compression::of(front), Ok(Compression::None))
}
