//! Sources: what an operator names, of which kind it is, and the work that it makes.

use std::collections::VecDeque;
use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::collect::{Computed, Group, Progress, Shared};
use super::error::{Fault, FilesError, Place};
use super::hash::Worker;
use super::oci::{self, Layout};
use super::tree::{Found, Walk, open_file};
use super::{Options, deb, ext4, initramfs, parallel, rpm, squashfs};

/// What an operator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// A folder or a file.
    pub path: PathBuf,
    /// Of which kind it is; found by its content where nobody says.
    pub kind: Option<Kind>,
}

/// Of which kind a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder: a root file system.
    Tree,
    /// A folder of .deb and .rpm packages: apt's cache.
    Packages,
    /// A cpio archive: an initramfs.
    Cpio,
    /// A squashfs image.
    Squashfs,
    /// An ext4 image.
    Ext4,
    /// An OCI image layout, in a folder or a tar archive.
    Oci,
    /// A .deb package.
    Deb,
    /// A .rpm package.
    Rpm,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Tree, Self::Packages, Self::Cpio, Self::Squashfs, Self::Ext4, Self::Oci, Self::Deb, Self::Rpm];

    /// Its name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Packages => "packages",
            Self::Cpio => "cpio",
            Self::Squashfs => "squashfs",
            Self::Ext4 => "ext4",
            Self::Oci => "oci",
            Self::Deb => "deb",
            Self::Rpm => "rpm",
        }
    }

    /// By what is there: a folder by what is in it, a file by its magic.
    pub fn detect(path: &Path) -> Result<Self, FilesError> {
        let place = Place::file(path);
        let metadata = std::fs::metadata(path).map_err(|error| Fault::Io(error).at(&place))?;
        if metadata.is_dir() {
            if oci::is_layout(path) {
                return Ok(Self::Oci);
            }
            let is_root = ["usr", "etc", "bin", "lib"].iter().any(|name| path.join(name).exists());
            let (packages, _) = packages(path)?;
            return Ok(if is_root || packages.is_empty() { Self::Tree } else { Self::Packages });
        }
        let (file, _) = open_file(path)?;
        let mut front = [0; 2048];
        let mut have = 0;
        while let Some(rest) = front.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, u64::try_from(have).unwrap_or(0)) {
                Ok(0) => break,
                Ok(count) => have += count,
                Err(error) => return Err(Fault::Io(error).at(&place)),
            }
        }
        Self::of_front(front.get(..have).unwrap_or_default()).ok_or_else(|| Fault::UnknownKind.at(&place))
    }

    fn of_front(front: &[u8]) -> Option<Self> {
        Some(match front {
            front if front.starts_with(deb::MAGIC) => Self::Deb,
            front if front.starts_with(rpm::MAGIC) => Self::Rpm,
            front if front.starts_with(squashfs::MAGIC) => Self::Squashfs,
            front if front.get(257..262) == Some(b"ustar") => Self::Oci,
            front if ext4::is_image(front) => Self::Ext4,
            front if initramfs::is_archive(front) => Self::Cpio,
            _ => return None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// Packages in a folder, in the order of their names, and how many other entries there are. Not what is in folders below.
fn packages(folder: &Path) -> Result<(Vec<PathBuf>, u64), FilesError> {
    let fail = |error| Fault::Io(error).at(&Place::file(folder));
    let (mut packages, mut others) = (Vec::new(), 0);
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        let is_package = path.extension().is_some_and(|end| end == "deb" || end == "rpm");
        if is_package && entry.file_type().map_err(fail)?.is_file() {
            packages.push(path);
        } else {
            others += 1;
        }
    }
    packages.sort();
    Ok((packages, others))
}

/// A piece of work for one worker.
enum Job {
    File(Box<Found>),
    Whole(PathBuf, Kind),
    Layer(Arc<Layout>, usize),
}

/// All there is to do, made as it is asked for.
struct Jobs<'s> {
    shared: &'s Shared<'s>,
    sources: VecDeque<(PathBuf, Kind)>,
    packages: VecDeque<PathBuf>,
    layers: Option<(Arc<Layout>, usize)>,
    walk: Option<Walk<'s>>,
    /// What wants a last word when all is read.
    layouts: Vec<Arc<Layout>>,
    walks: Vec<Walk<'s>>,
}

impl Jobs<'_> {
    fn job(&mut self) -> Result<Option<Job>, FilesError> {
        loop {
            if let Some(mut walk) = self.walk.take() {
                if let Some(found) = walk.next()? {
                    self.walk = Some(walk);
                    return Ok(Some(Job::File(Box::new(found))));
                }
                self.walks.push(walk);
            }
            if let Some(package) = self.packages.pop_front() {
                let kind =
                    if package.extension().is_some_and(|end| end == "deb") { Kind::Deb } else { Kind::Rpm };
                return Ok(Some(Job::Whole(package, kind)));
            }
            if let Some((layout, next)) = self.layers.take().filter(|(layout, next)| *next < layout.layers())
            {
                self.layers = Some((Arc::clone(&layout), next + 1));
                return Ok(Some(Job::Layer(layout, next)));
            }
            let Some((path, kind)) = self.sources.pop_front() else { return Ok(None) };
            match kind {
                Kind::Tree => self.walk = Some(Walk::begin(self.shared, &path)?),
                Kind::Packages => {
                    let (packages, others) = packages(&path)?;
                    let mut group = Group::new(&format!("packages in {}", path.display()));
                    group.left_out.not_packages = others;
                    self.shared.add(group).map_err(|fault| fault.at(&Place::file(&path)))?;
                    self.packages = packages.into();
                }
                Kind::Oci => {
                    let layout = Arc::new(Layout::open(&path)?);
                    self.layouts.push(Arc::clone(&layout));
                    self.layers = Some((layout, 0));
                }
                Kind::Cpio | Kind::Squashfs | Kind::Ext4 | Kind::Deb | Kind::Rpm => {
                    return Ok(Some(Job::Whole(path, kind)));
                }
            }
        }
    }
}

impl Iterator for &mut Jobs<'_> {
    type Item = Result<Job, FilesError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.job().transpose()
    }
}

/// Computes the digests of all files of all sources.
pub fn compute(sources: &[Source], options: &Options, progress: &Progress) -> Result<Computed, FilesError> {
    let shared = Shared::new(options, progress);
    let mut kinds = VecDeque::new();
    for source in sources {
        let kind = source.kind.map_or_else(|| Kind::detect(&source.path), Ok)?;
        kinds.push_back((source.path.clone(), kind));
    }
    {
        let mut jobs = Jobs {
            shared: &shared,
            sources: kinds,
            packages: VecDeque::new(),
            layers: None,
            walk: None,
            layouts: Vec::new(),
            walks: Vec::new(),
        };
        parallel::each(&shared, options.workers, &mut jobs, |job, worker| match job {
            Job::File(found) => found.read(worker),
            Job::Layer(layout, number) => layout.read(number, worker),
            Job::Whole(path, Kind::Cpio) => initramfs::read(&path, worker),
            Job::Whole(path, Kind::Squashfs) => squashfs::read(&path, worker),
            Job::Whole(path, Kind::Ext4) => ext4::read(&path, worker),
            Job::Whole(path, Kind::Deb) => deb::read(&path, worker),
            Job::Whole(path, Kind::Rpm) => rpm::read(&path, worker),
            // Of these there are other jobs.
            Job::Whole(path, Kind::Tree | Kind::Packages | Kind::Oci) => {
                Err(Fault::UnknownKind.at(&Place::file(&path)))
            }
        })?;
        for layout in jobs.layouts {
            layout.finish(&shared)?;
        }
        for walk in jobs.walks {
            walk.finish()?;
        }
    }
    let named = match sources {
        [one] => Place::file(&one.path),
        _ => Place::default(),
    };
    shared.finish().map_err(|fault| fault.at(&named))
}

/// What can be read from memory: for fuzzers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// A cpio archive.
    Cpio,
    /// A squashfs image.
    Squashfs,
    /// A .deb package.
    Deb,
    /// A .rpm package.
    Rpm,
}

/// Reads bytes as if they were a source, on this thread; how many digests come out.
pub fn examine(stream: Stream, bytes: &[u8], options: &Options) -> Result<usize, FilesError> {
    let progress = Progress::default();
    let shared = Shared::new(options, &progress);
    let (place, mut worker) = (Place::default(), Worker::new(&shared));
    let group = match stream {
        Stream::Cpio => initramfs::stream(bytes, "", &place, &mut worker),
        Stream::Deb => deb::stream(bytes, "", &place, &mut worker),
        Stream::Rpm => rpm::stream(bytes, "", &place, &mut worker),
        Stream::Squashfs => {
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            squashfs::image(&bytes, size, "", &place, &mut worker)
        }
    }?;
    Ok(group.records.len())
}
