//! OCI image layouts: a folder or a tar archive with `oci-layout`, `index.json` and `blobs`; layers laid one onto the other.
//!
//! Established: every blob that is used has the digest by which it is named, from the index on; the index itself is the
//! operator's word. Specifications: OCI Image Format 1.1, image-layout, image-index, manifest, layer (whiteouts).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rootbound_common::crypto::{Digest, Hasher};
use rootbound_common::tpm::HashAlgorithm;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use serde::Deserialize;

use super::collect::{About, Group, LeftOut, Shared};
use super::decode::{Compression, Extent};
use super::error::{Fault, FilesError, Place, printable};
use super::hash::{Checked, Worker};
use super::limits::{Given, Meter, Taken, text};
use super::overlay::{Node, Overlay};
use super::path::{below_root, join, split};
use super::tar::{self, MemberKind};
use super::tree::open_file;

/// A layout, with the layers of its images once they are read.
pub(crate) struct Layout {
    place: Place,
    name: String,
    files: Blobs,
    images: Vec<Image>,
    /// Each layer once, whichever images have it.
    layers: Vec<Descriptor>,
    read: Mutex<HashMap<usize, Arc<Vec<Change>>>>,
    notes: Vec<(About, String)>,
}

struct Image {
    name: String,
    /// Numbers in [`Layout::layers`], from the lowest on.
    layers: Vec<usize>,
}

/// What a layer does to what is below it.
#[derive(Debug)]
enum Change {
    File(Vec<u8>, Option<Digest>),
    Link(Vec<u8>, Vec<u8>),
    Other(Vec<u8>, Node),
    /// Removes what lower layers have at the path.
    Whiteout(Vec<u8>),
    /// Removes what lower layers have below the path.
    Opaque(Vec<u8>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: HashMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Index in index in index.
const INDEX_DEPTH: usize = 4;
/// Manifests of one layout, and what all of them name as layers, the same ones again and again included.
const MANIFESTS: usize = 4096;

impl Layout {
    /// Reads all but the layers.
    pub(crate) fn open(path: &Path) -> Result<Self, FilesError> {
        let place = Place::file(path);
        let files = Blobs::of(path)?;
        let layout: LayoutFile = json(&files, &place, b"oci-layout")?;
        if layout.image_layout_version != "1.0.0" {
            let fault = Fault::Unsupported("another version of the image layout than 1.0.0");
            return Err(fault.at(&place.member(b"oci-layout")));
        }
        let index: Index = json(&files, &place, b"index.json")?;
        let mut layout = Self {
            place,
            name: path.display().to_string(),
            files,
            images: Vec::new(),
            layers: Vec::new(),
            read: Mutex::default(),
            notes: Vec::new(),
        };
        layout.manifests(index)?;
        if layout.images.is_empty() {
            return Err(Fault::Missing("image in its index".to_owned()).at(&layout.place));
        }
        Ok(layout)
    }

    fn manifests(&mut self, index: Index) -> Result<(), FilesError> {
        let too_many = || Fault::TooManyEntries(u64::try_from(MANIFESTS).unwrap_or(0));
        let mut known: HashMap<String, usize> = HashMap::new();
        // Each is taken once, by whatever names it is there; what is an image here may be said to be none there.
        let (mut taken, mut noted) = (HashSet::new(), HashSet::new());
        let mut references = 0;
        let mut rest: Vec<_> =
            index.manifests.into_iter().map(|manifest| (manifest, String::new(), 1)).collect();
        let mut count = 0;
        while let Some((descriptor, above, depth)) = rest.pop() {
            let place = self.place.member(descriptor.digest.as_bytes());
            count += 1;
            if count > MANIFESTS {
                return Err(too_many().at(&place));
            }
            let named = descriptor.annotations.get("org.opencontainers.image.ref.name");
            let name = named.map_or(above, |name| printable(name.as_bytes()));
            if descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list") {
                if depth >= INDEX_DEPTH {
                    return Err(Fault::TooDeep(INDEX_DEPTH).at(&place));
                }
                if !taken.insert(descriptor.digest.clone()) {
                    continue;
                }
                let index: Index = self.blob(&descriptor, &place)?;
                if rest.len().saturating_add(index.manifests.len()) > MANIFESTS {
                    return Err(too_many().at(&place));
                }
                rest.extend(index.manifests.into_iter().map(|manifest| (manifest, name.clone(), depth + 1)));
                continue;
            }
            let platform = descriptor.platform.as_ref();
            let is_image = descriptor.media_type.contains("manifest")
                && platform.is_none_or(|platform| platform.os != "unknown");
            if is_image && !taken.insert(descriptor.digest.clone()) {
                continue;
            }
            let manifest = if is_image { Some(self.blob::<Manifest>(&descriptor, &place)?) } else { None };
            // Attestations and artifacts are beside the images.
            let Some(manifest) = manifest.filter(|manifest| manifest.config.is_of_an_image()) else {
                if noted.insert(descriptor.digest.clone()) {
                    let note = format!("{} is no image: left out", printable(descriptor.digest.as_bytes()));
                    self.notes.push((About::NoImage, note));
                }
                continue;
            };
            references += manifest.layers.len();
            if references > MANIFESTS {
                return Err(too_many().at(&place));
            }
            let mut layers = Vec::new();
            for layer in manifest.layers {
                layer.check(&place)?;
                let next = self.layers.len();
                let number = *known.entry(layer.digest.clone()).or_insert(next);
                if number == next {
                    self.layers.push(layer);
                }
                layers.push(number);
            }
            let platform = platform.map(|platform| format!(" ({}/{})", platform.os, platform.architecture));
            let name = if name.is_empty() { descriptor.digest.clone() } else { name };
            self.images.push(Image { name: name + &platform.unwrap_or_default(), layers });
        }
        Ok(())
    }

    fn blob<T: serde::de::DeserializeOwned>(
        &self,
        descriptor: &Descriptor,
        place: &Place,
    ) -> Result<T, FilesError> {
        let read = || {
            let (expected, name) = descriptor.name()?;
            let (reader, _) = self.files.open_blob(&name, descriptor.size)?;
            let bytes = text(reader, "a manifest or index")?;
            if rootbound_common::crypto::hash(expected.algorithm(), &[&bytes]) != expected {
                return Err(Fault::Digest("its name"));
            }
            serde_json::from_slice(&bytes)
                .map_err(|error| Fault::Corrupt(printable(error.to_string().as_bytes())))
        };
        read().map_err(|fault| fault.at(place))
    }

    /// How many layers there are to read.
    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Reads one layer; any order will do.
    pub(crate) fn read(&self, number: usize, worker: &mut Worker<'_>) -> Result<(), FilesError> {
        let Some(descriptor) = self.layers.get(number) else { return Ok(()) };
        let place = self.place.member(format!("layer {}", descriptor.digest).as_bytes());
        let fail = |fault: Fault| fault.at(&place);
        let meter = Meter::new(worker.shared.options.limits);
        let (expected, name) = descriptor.name().map_err(fail)?;
        let (inner, _) = self.files.open_blob(&name, descriptor.size).map_err(fail)?;
        let checked = Checked { inner, hasher: Hasher::new(expected.algorithm()) };
        let mut input = Taken::new(BufReader::with_capacity(256 << 10, checked), &meter);
        let changes = layer(&mut input, &place, &meter, worker)?;
        std::io::copy(&mut input, &mut std::io::sink())
            .map_err(|error| fail(Fault::of_io(error, "a layer")))?;
        if input.into_inner().into_inner().hasher.finish() != expected {
            return Err(fail(Fault::Digest("its name")));
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.insert(number, Arc::new(changes));
        Ok(())
    }

    /// After all layers were read: lays them one onto the other.
    pub(crate) fn finish(&self, shared: &Shared<'_>) -> Result<(), FilesError> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // A layer's entries count wherever they are laid down: images may name one again and again.
        let meter = Meter::new(shared.options.limits);
        for (position, image) in self.images.iter().enumerate() {
            let mut overlay = Overlay::default();
            let mut groups = Vec::new();
            for (of, number) in image.layers.iter().enumerate() {
                let digest = self.layers.get(*number).map_or("", |layer| &layer.digest);
                groups.push(Group::new(&format!(
                    "image {} of {}, layer {} {digest}",
                    image.name,
                    self.name,
                    of + 1
                )));
                let place = self.place.member(format!("layer {digest}").as_bytes());
                for change in read
                    .get(number)
                    .into_iter()
                    .flat_map(|changes| changes.iter())
                    .filter(|change| change.removes())
                {
                    meter.entry().map_err(|fault| fault.at(&place))?;
                    change.apply(&mut overlay, of).map_err(|fault| fault.at(&place))?;
                }
                for change in read
                    .get(number)
                    .into_iter()
                    .flat_map(|changes| changes.iter())
                    .filter(|change| !change.removes())
                {
                    meter.entry().map_err(|fault| fault.at(&place))?;
                    change.apply(&mut overlay, of).map_err(|fault| fault.at(&place.member(change.path())))?;
                }
            }
            let (nodes, replaced) = overlay.finish();
            let mut about = Group::new(&format!("image {} of {}", image.name, self.name));
            about.left_out.replaced = replaced;
            if position == 0 {
                about.notes.clone_from(&self.notes);
            }
            for (path, node) in nodes {
                match node {
                    Node::File { digest, of } => {
                        if let Some(group) = groups.get_mut(of) {
                            group.push(digest, &path, &shared.options.prefix);
                        }
                    }
                    Node::Symlink(_) => about.left_out.symbolic_links += 1,
                    Node::Special => about.left_out.special_files += 1,
                    Node::Folder => {}
                }
            }
            groups.retain(|group| !group.records.is_empty() || group.left_out != LeftOut::default());
            groups.push(about);
            for group in groups {
                shared.add(group).map_err(|fault| fault.at(&self.place))?;
            }
        }
        Ok(())
    }
}

impl Descriptor {
    /// The digest, and the file of the blob.
    fn name(&self) -> Result<(Digest, Vec<u8>), Fault> {
        let digest = self.digest.split_once(':').and_then(|(algorithm, hex)| {
            let algorithm = match algorithm {
                "sha256" => HashAlgorithm::Sha256,
                "sha512" => HashAlgorithm::Sha512,
                _ => return None,
            };
            Digest::from_hex(algorithm, hex)
        });
        let digest = digest.ok_or(Fault::corrupt("a digest that is neither of SHA-256 nor SHA-512"))?;
        Ok((digest, format!("blobs/{}/{digest}", digest.algorithm()).into_bytes()))
    }

    fn is_of_an_image(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
        )
    }

    fn check(&self, place: &Place) -> Result<(), FilesError> {
        let place = place.member(format!("layer {}", self.digest).as_bytes());
        self.name().map_err(|fault| fault.at(&place))?;
        if self.media_type.contains("encrypted") {
            return Err(Fault::Unsupported("an encrypted layer").at(&place));
        }
        if !self.media_type.contains("tar") {
            return Err(Fault::Unsupported("a layer that is no tar archive").at(&place));
        }
        Ok(())
    }
}

fn layer(
    input: &mut impl BufRead,
    place: &Place,
    meter: &std::rc::Rc<Meter>,
    worker: &mut Worker<'_>,
) -> Result<Vec<Change>, FilesError> {
    let broken = |error| Fault::of_io(error, "a layer").at(place);
    let front = input.fill_buf().map_err(broken)?;
    let compression = Compression::of(front).map_err(|fault| fault.at(place))?;
    let decoder = compression.decoder(input, Extent::All).map_err(broken)?;
    let mut changes = Vec::new();
    tar::each(Given::new(decoder, meter), place, meter, |member, content| {
        let path = member.path.clone();
        let (folder, name) = split(&path);
        changes.push(if name == b".wh..wh..opq" {
            Change::Opaque(folder.to_vec())
        } else if let Some(name) = name.strip_prefix(b".wh.") {
            Change::Whiteout(below_root(&join(folder, name))?)
        } else {
            match &member.kind {
                MemberKind::File => {
                    let content = worker.content(content, &path, member.mode, None)?;
                    Change::File(path, content.digest)
                }
                MemberKind::HardLink(target) => Change::Link(path, target.clone()),
                MemberKind::Symlink(target) => Change::Other(path, Node::Symlink(target.clone())),
                MemberKind::Folder => Change::Other(path, Node::Folder),
                MemberKind::Special => Change::Other(path, Node::Special),
            }
        });
        Ok(())
    })?;
    Ok(changes)
}

impl Change {
    fn removes(&self) -> bool {
        matches!(self, Self::Whiteout(_) | Self::Opaque(_))
    }

    fn path(&self) -> &[u8] {
        match self {
            Self::File(path, _)
            | Self::Link(path, _)
            | Self::Other(path, _)
            | Self::Whiteout(path)
            | Self::Opaque(path) => path,
        }
    }

    fn apply(&self, overlay: &mut Overlay, of: usize) -> Result<(), Fault> {
        match self {
            Self::File(path, digest) => overlay.put(path, Node::File { digest: *digest, of }),
            Self::Link(path, target) => overlay.link(path, target, of),
            Self::Other(path, node) => overlay.put(path, node.clone()),
            Self::Whiteout(path) => {
                let path = overlay.resolve(path)?;
                overlay.remove(&path);
                Ok(())
            }
            Self::Opaque(path) => {
                let path = overlay.resolve(path)?;
                overlay.clear(&path);
                Ok(())
            }
        }
    }
}

/// Where the files of a layout are.
enum Blobs {
    Folder(File),
    /// A tar archive: where the content of each is, and its size.
    Archive(Arc<File>, HashMap<Vec<u8>, (u64, u64)>),
}

fn json<T: serde::de::DeserializeOwned>(files: &Blobs, place: &Place, name: &[u8]) -> Result<T, FilesError> {
    let read = || {
        let (reader, _) = files.open(name)?;
        let bytes = text(reader, "a file of the layout")?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Fault::Corrupt(printable(error.to_string().as_bytes())))
    };
    read().map_err(|fault| fault.at(&place.member(name)))
}

impl Blobs {
    fn of(path: &Path) -> Result<Self, FilesError> {
        let place = Place::file(path);
        if path.is_dir() {
            let folder = File::open(path).map_err(|error| Fault::Io(error).at(&place))?;
            return Ok(Self::Folder(folder));
        }
        let (file, _) = open_file(path)?;
        let meter = Meter::new(super::limits::Limits { ratio: u64::MAX, ..Default::default() });
        let mut members = HashMap::new();
        tar::each(BufReader::with_capacity(256 << 10, &file), &place, &meter, |member, _| {
            if member.kind == MemberKind::File
                && members.insert(member.path.clone(), (member.content_offset, member.size)).is_some()
            {
                return Err(Fault::Duplicate(printable(&member.path)));
            }
            Ok(())
        })?;
        Ok(Self::Archive(Arc::new(file), members))
    }

    fn open_blob(&self, name: &[u8], size: u64) -> Result<(Box<dyn Read>, u64), Fault> {
        let (reader, found) = self.open(name)?;
        if found != size {
            return Err(Fault::corrupt("a blob of another size than its descriptor says"));
        }
        Ok((reader, found))
    }

    /// A file of the layout, and its size.
    fn open(&self, name: &[u8]) -> Result<(Box<dyn Read>, u64), Fault> {
        match self {
            Self::Folder(folder) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let mut at = folder.try_clone().map_err(Fault::Io)?;
                for part in name.split(|byte| *byte == b'/') {
                    at = match openat(&at, part, flags, Mode::empty()) {
                        Ok(next) => next.into(),
                        Err(rustix::io::Errno::NOENT) => return Err(Fault::Missing("such file".to_owned())),
                        Err(errno) => return Err(errno.into()),
                    };
                }
                let stat = fstat(&at)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(Fault::Special);
                }
                Ok((Box::new(at), u64::try_from(stat.st_size).unwrap_or(0)))
            }
            Self::Archive(file, members) => {
                let (offset, size) = members.get(name).ok_or(Fault::Missing("such file".to_owned()))?;
                let part = Part { file: Arc::clone(file), offset: *offset, left: *size };
                Ok((Box::new(part), *size))
            }
        }
    }
}

/// A part of a file, whoever else reads it.
struct Part {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.offset)?;
        let moved = u64::try_from(count).unwrap_or(u64::MAX);
        self.offset = self.offset.saturating_add(moved);
        self.left = self.left.saturating_sub(moved);
        Ok(count)
    }
}

/// What has `oci-layout` in it.
pub(crate) fn is_layout(folder: &Path) -> bool {
    folder.join("oci-layout").is_file()
}
