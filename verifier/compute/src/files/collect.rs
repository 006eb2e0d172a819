//! What was computed: digests by path, where they come from, and what was left out.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use data_encoding::HEXLOWER;
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::HashAlgorithm;
use serde::Serialize;

use super::error::{Fault, printable};
use super::path::join;
use super::{Options, Prefix};

/// How far a long work is; read it from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    /// Files that were read to their end.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes of contents, after decompression.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What was left out, by the reason: how many entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Symbolic links: the kernel measures what they lead to, by its own path.
    pub symbolic_links: u64,
    /// Devices, pipes and sockets.
    pub special_files: u64,
    /// Folders and files of other file systems than the root's.
    pub other_file_systems: u64,
    /// Configuration files of packages: they are for changing.
    pub configuration_files: u64,
    /// Files that a package owns, but does not have.
    pub ghosts: u64,
    /// Files of lower layers, or earlier entries, that later ones remove or replace.
    pub replaced: u64,
    /// What nothing runs, where only what may run was asked for.
    pub not_executable: u64,
    /// Paths that a digest set cannot write: a line break in them, or longer than 4,096 bytes.
    pub unwritable_paths: u64,
    /// Files in a folder of packages that are no packages.
    pub not_packages: u64,
    /// Digests that another source has at the same path.
    pub repeated: u64,
}

impl LeftOut {
    /// Each count with the words for it.
    #[must_use]
    pub fn counts(&self) -> [(u64, &'static str); 10] {
        [
            (self.symbolic_links, "symbolic links: the kernel measures what they lead to"),
            (self.special_files, "devices, pipes and sockets"),
            (self.other_file_systems, "entries of other file systems"),
            (self.configuration_files, "configuration files of packages: they are for changing"),
            (self.ghosts, "files that a package owns but does not have"),
            (self.replaced, "files that a later layer or entry removes or replaces"),
            (self.not_executable, "files that nothing runs"),
            (self.unwritable_paths, "paths that a digest set cannot write"),
            (self.not_packages, "files in a folder of packages that are no packages"),
            (self.repeated, "digests that another source has at the same path"),
        ]
    }

    fn add(&mut self, other: &Self) {
        self.symbolic_links += other.symbolic_links;
        self.special_files += other.special_files;
        self.other_file_systems += other.other_file_systems;
        self.configuration_files += other.configuration_files;
        self.ghosts += other.ghosts;
        self.replaced += other.replaced;
        self.not_executable += other.not_executable;
        self.unwritable_paths += other.unwritable_paths;
        self.not_packages += other.not_packages;
        self.repeated += other.repeated;
    }
}

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// A package may divert files of others to other paths.
    Diversion,
    /// A package runs scripts.
    Scripts,
    /// Something in an image layout is no image.
    NoImage,
}

/// What an operator should know of a source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// What it is about.
    pub about: About,
    /// The source.
    pub source: String,
    /// What.
    pub note: String,
}

/// What was computed, in numbers and words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Of the digests.
    pub algorithm: HashAlgorithm,
    /// Trees, images, layers and packages.
    pub sources: u64,
    /// Files that were read.
    pub files: u64,
    /// Bytes of them, after decompression.
    pub bytes: u64,
    /// Lines of the digest set.
    pub digests: u64,
    /// What was left out.
    pub left_out: LeftOut,
    /// What digests alone do not say: scripts of packages, diversions.
    pub notes: Vec<Note>,
}

/// A digest and its path, in one piece of memory: a set has millions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record(Box<[u8]>);

impl Record {
    pub(crate) fn new(digest: &Digest, path: &[u8]) -> Self {
        Self([digest.as_bytes(), path].concat().into())
    }

    fn parts(&self, algorithm: HashAlgorithm) -> (&[u8], &[u8]) {
        self.0.split_at_checked(algorithm.size()).unwrap_or_default()
    }

    /// By path, then digest.
    fn order(&self, algorithm: HashAlgorithm) -> (&[u8], &[u8]) {
        let (digest, path) = self.parts(algorithm);
        (path, digest)
    }
}

/// One source's: what it is, its records, and what is to be said of it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) source: String,
    pub(crate) records: Vec<Record>,
    pub(crate) left_out: LeftOut,
    pub(crate) notes: Vec<(About, String)>,
}

impl Group {
    pub(crate) fn new(source: &str) -> Self {
        Self { source: printable(source.as_bytes()), ..Self::default() }
    }

    /// A digest at a path below the root.
    pub(crate) fn push(&mut self, digest: Option<Digest>, path: &[u8], prefix: &Prefix) {
        let Some(digest) = digest else {
            self.left_out.not_executable += 1;
            return;
        };
        let mut whole = Vec::with_capacity(prefix.0.len() + path.len() + 2);
        whole.push(b'/');
        whole.extend(join(&prefix.0, path));
        if whole.len() > super::limits::Limits::PATH
            || whole.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0))
        {
            self.left_out.unwritable_paths += 1;
            return;
        }
        self.records.push(Record::new(&digest, &whole));
    }
}

/// What all workers share.
pub(crate) struct Shared<'s> {
    pub(crate) options: &'s Options,
    pub(crate) progress: &'s Progress,
    groups: Mutex<Vec<Group>>,
    digests: AtomicU64,
    /// Of hard links in trees: the digest of the first, by device and inode.
    pub(crate) links: Mutex<HashMap<(u64, u64), Option<Digest>>>,
}

/// Where a source's group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupId(usize);

impl<'s> Shared<'s> {
    pub(crate) fn new(options: &'s Options, progress: &'s Progress) -> Self {
        Self {
            options,
            progress,
            groups: Mutex::default(),
            digests: AtomicU64::new(0),
            links: Mutex::default(),
        }
    }

    /// Files that one digest more or less belongs to.
    pub(crate) fn add(&self, group: Group) -> Result<GroupId, Fault> {
        self.count(group.records.len())?;
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.push(group);
        Ok(GroupId(groups.len() - 1))
    }

    /// Changes a group that was added.
    pub(crate) fn with(&self, id: GroupId, change: impl FnOnce(&mut Group)) -> Result<(), Fault> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(group) = groups.get_mut(id.0) else { return Ok(()) };
        let before = group.records.len();
        change(group);
        let more = group.records.len().saturating_sub(before);
        drop(groups);
        self.count(more)
    }

    fn count(&self, more: usize) -> Result<(), Fault> {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        let before = self.digests.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.options.digests {
            return Err(Fault::TooManyDigests(self.options.digests));
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Computed, Fault> {
        let algorithm = self.options.algorithm;
        let mut groups = self.groups.into_inner().unwrap_or_else(PoisonError::into_inner);
        groups.sort_by(|a, b| a.source.cmp(&b.source));
        let (mut left_out, mut notes) = (LeftOut::default(), Vec::new());
        let mut records = Vec::new();
        let mut sources = Vec::with_capacity(groups.len());
        for (at, group) in groups.into_iter().enumerate() {
            left_out.add(&group.left_out);
            notes.extend(group.notes.into_iter().map(|(about, note)| Note {
                about,
                source: group.source.clone(),
                note,
            }));
            sources.push(group.source);
            records.extend(group.records.into_iter().map(|record| (at, record)));
        }
        records.sort_unstable_by(|(a_at, a), (b_at, b)| {
            (a.order(algorithm), a_at).cmp(&(b.order(algorithm), b_at))
        });
        let before = records.len();
        records.dedup_by(|(_, later), (_, first)| later == first);
        left_out.repeated = u64::try_from(before - records.len()).unwrap_or(u64::MAX);
        // Stable, so that each source's stay in the order of paths.
        records.sort_by_key(|(at, _)| *at);
        if records.is_empty() {
            return Err(Fault::Nothing);
        }
        notes.sort();
        notes.dedup();
        let summary = Summary {
            algorithm,
            sources: u64::try_from(sources.len()).unwrap_or(u64::MAX),
            files: self.progress.files(),
            bytes: self.progress.bytes(),
            digests: u64::try_from(records.len()).unwrap_or(u64::MAX),
            left_out,
            notes,
        };
        Ok(Computed { sources, records, summary })
    }
}

/// A digest set, computed.
#[derive(Debug)]
pub struct Computed {
    sources: Vec<String>,
    records: Vec<(usize, Record)>,
    summary: Summary,
}

impl Computed {
    /// What was computed, in numbers and words.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Writes it as the text of a digest set: a line `sha256:<hex>  <path>` for each digest, in the order of paths, behind a
    /// line `# source: …` for each source that has some.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let algorithm = self.summary.algorithm;
        let mut last = None;
        for (at, record) in &self.records {
            if last != Some(*at) {
                last = Some(*at);
                writeln!(out, "# source: {}", self.sources.get(*at).map_or("", String::as_str))?;
            }
            let (digest, path) = record.parts(algorithm);
            write!(out, "{algorithm}:{}  ", HEXLOWER.encode(digest))?;
            out.write_all(path)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}
