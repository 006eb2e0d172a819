//! A folder as a root file system: an own walk that stays in it.
//!
//! Folders and files are opened relative to their folder's descriptor and never through a symbolic link, so that whoever
//! changes the tree meanwhile cannot lead out of it. What is on another file system is left out: `/proc` of a running
//! system is none of its files. The walk runs under the lock of the workers, which read what it opened: it holds one
//! descriptor for each folder above, and one for each worker.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, Stat, fstat, open, openat};
use rustix::io::Errno;

use super::collect::{Group, GroupId, Shared};
use super::error::{Fault, FilesError, Place};
use super::hash::Worker;
use super::limits::Limits;
use super::path::join;

/// A walk through a folder.
pub(crate) struct Walk<'s> {
    shared: &'s Shared<'s>,
    place: Place,
    group: GroupId,
    device: u64,
    folders: Vec<(Dir, Vec<u8>)>,
    entries: u64,
    /// Bytes of its files, as far as they were read.
    bytes: Arc<AtomicU64>,
    linked: HashSet<(u64, u64)>,
    links: Vec<((u64, u64), Vec<u8>)>,
}

/// A file that the walk came to.
pub(crate) struct Found {
    group: GroupId,
    file: File,
    stat: Stat,
    path: Vec<u8>,
    place: Place,
    bytes: Arc<AtomicU64>,
}

enum Step {
    File(Box<Found>),
    Nothing,
}

const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::DIRECTORY);

impl<'s> Walk<'s> {
    pub(crate) fn begin(shared: &'s Shared<'s>, root: &Path) -> Result<Self, FilesError> {
        let place = Place::file(root);
        let begin = || {
            let folder = openat(CWD, root, FOLDER, Mode::empty())?;
            let device = fstat(&folder)?.st_dev;
            Ok::<_, Errno>((Dir::new(folder)?, device))
        };
        let (folder, device) = begin().map_err(|errno| Fault::from(errno).at(&place))?;
        let group = shared
            .add(Group::new(&format!("files below {}", root.display())))
            .map_err(|fault| fault.at(&place))?;
        Ok(Self {
            shared,
            place,
            group,
            device,
            folders: vec![(folder, Vec::new())],
            entries: 0,
            bytes: Arc::default(),
            linked: HashSet::new(),
            links: Vec::new(),
        })
    }

    /// The next file, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, FilesError> {
        while let Some((folder, path)) = self.folders.last_mut() {
            let entry = match folder.next() {
                None => {
                    self.folders.pop();
                    continue;
                }
                Some(Err(errno)) => return Err(Fault::from(errno).at(&self.place.member(path))),
                Some(Ok(entry)) => entry,
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = join(path, name.to_bytes());
            match self.step(name, &path, entry.file_type()) {
                Ok(Step::File(found)) => return Ok(Some(*found)),
                Ok(Step::Nothing) => {}
                Err(fault) => return Err(fault.at(&self.place.member(&path))),
            }
        }
        Ok(None)
    }

    fn step(&mut self, name: &std::ffi::CStr, path: &[u8], kind: FileType) -> Result<Step, Fault> {
        self.entries += 1;
        if self.entries > self.shared.options.limits.entries {
            return Err(Fault::TooManyEntries(self.shared.options.limits.entries));
        }
        let depth = self.folders.len();
        let Some((folder, _)) = self.folders.last() else { return Ok(Step::Nothing) };
        let folder = folder.fd()?;
        let kind = match kind {
            FileType::Unknown => {
                let stat = rustix::fs::statat(folder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(vanished)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        match kind {
            FileType::Directory => {
                if depth >= Limits::DEPTH {
                    return Err(Fault::too_deep());
                }
                let opened =
                    openat(folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()).map_err(vanished)?;
                if fstat(&opened)?.st_dev == self.device {
                    self.folders.push((Dir::new(opened)?, path.to_vec()));
                } else {
                    self.shared.with(self.group, |group| group.left_out.other_file_systems += 1)?;
                }
                Ok(Step::Nothing)
            }
            FileType::RegularFile => {
                let opened = openat(folder, name, FILE, Mode::empty()).map_err(vanished)?;
                self.regular(opened, path)
            }
            FileType::Symlink => {
                self.shared.with(self.group, |group| group.left_out.symbolic_links += 1)?;
                Ok(Step::Nothing)
            }
            _ => {
                self.shared.with(self.group, |group| group.left_out.special_files += 1)?;
                Ok(Step::Nothing)
            }
        }
    }

    fn regular(&mut self, opened: OwnedFd, path: &[u8]) -> Result<Step, Fault> {
        let stat = fstat(&opened)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Fault::Changed);
        }
        if stat.st_dev != self.device {
            self.shared.with(self.group, |group| group.left_out.other_file_systems += 1)?;
            return Ok(Step::Nothing);
        }
        if stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            self.links.push(((stat.st_dev, stat.st_ino), path.to_vec()));
            return Ok(Step::Nothing);
        }
        Ok(Step::File(Box::new(Found {
            group: self.group,
            file: opened.into(),
            stat,
            path: path.to_vec(),
            place: self.place.member(path),
            bytes: Arc::clone(&self.bytes),
        })))
    }

    /// After all files were read: gives the names of hard links the digest of the first.
    pub(crate) fn finish(self) -> Result<(), FilesError> {
        let digests = self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
        for (inode, path) in &self.links {
            let Some(digest) = digests.get(inode) else { continue };
            let prefix = &self.shared.options.prefix;
            self.shared
                .with(self.group, |group| group.push(*digest, path, prefix))
                .map_err(|fault| fault.at(&self.place))?;
        }
        Ok(())
    }
}

fn vanished(errno: Errno) -> Fault {
    match errno {
        Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO => Fault::Changed,
        errno => errno.into(),
    }
}

impl Found {
    pub(crate) fn read(self, worker: &mut Worker<'_>) -> Result<(), FilesError> {
        let read = |worker: &mut Worker<'_>| {
            let (size, limit) =
                (u64::try_from(self.stat.st_size).unwrap_or(u64::MAX), worker.shared.options.limits.unpacked);
            if self.bytes.fetch_add(size, Ordering::Relaxed).saturating_add(size) > limit {
                return Err(Fault::TooMuch(limit));
            }
            // One byte more tells that it grew.
            let content = (&self.file).take(size.saturating_add(1));
            let content = worker.content(content, &self.path, self.stat.st_mode, None)?;
            let after = fstat(&self.file)?;
            let is_as_before = content.size == size
                && (after.st_size, after.st_mtime, after.st_mtime_nsec)
                    == (self.stat.st_size, self.stat.st_mtime, self.stat.st_mtime_nsec);
            if !is_as_before {
                return Err(Fault::Changed);
            }
            if self.stat.st_nlink > 1 {
                let mut links = worker.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
                links.insert((self.stat.st_dev, self.stat.st_ino), content.digest);
            }
            let prefix = &worker.shared.options.prefix;
            worker.shared.with(self.group, |group| group.push(content.digest, &self.path, prefix))
        };
        read(worker).map_err(|fault| fault.at(&self.place))
    }
}

/// Opens a file that the operator named, for reading by offset; nothing but a regular file.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), FilesError> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open(path, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Fault::Special);
        }
        Ok((File::from(file), u64::try_from(stat.st_size).unwrap_or(0)))
    };
    open().map_err(|fault| fault.at(&Place::file(path)))
}
