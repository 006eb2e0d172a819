//! .rpm packages: the lead, the signature header, the header with the list of files and their digests, the payload.
//!
//! The headers are read here: the crate `rpm` takes offsets and sizes of a stranger as they stand, and ends the program on wrong
//! ones. Each file of the payload is hashed and held against the header's digest. Signatures are not checked: a package
//! from nowhere gives digests of what it has. Format: rpm's docs/manual/format_v4.md and tags.md.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::HashAlgorithm;

use super::collect::{About, Group};
use super::cpio::{Archive, EntryKind};
use super::decode::{Compression, Extent};
use super::error::{Fault, FilesError, Place, printable};
use super::hash::{Content, Worker};
use super::limits::{Given, Meter, Taken, fill};
use super::path::{below_root, join, merged_usr};
use super::rpm_header::{Header, Tag};
use super::tree::open_file;

/// The front of a lead.
pub(crate) const MAGIC: &[u8] = &[0xed, 0xab, 0xee, 0xdb];

const LEAD: usize = 96;

/// The files of a package.
pub(crate) fn read(path: &Path, worker: &mut Worker<'_>) -> Result<(), FilesError> {
    let (file, _) = open_file(path)?;
    let place = Place::file(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let group = stream(BufReader::with_capacity(256 << 10, file), &name, &place, worker)?;
    worker.shared.add(group).map(drop).map_err(|fault| fault.at(&place))
}

/// The files of a package that is not a file.
pub(crate) fn stream(
    input: impl BufRead,
    file: &str,
    place: &Place,
    worker: &mut Worker<'_>,
) -> Result<Group, FilesError> {
    let meter = Meter::new(worker.shared.options.limits);
    let mut input = Taken::new(input, &meter);
    let fail = |input: &Taken<_>, fault: Fault| fault.at(&place.offset(input.position));
    let package = package(&mut input).map_err(|fault| fail(&input, fault))?;
    let mut group = package.group(file);
    let mut seen = Seen { contents: HashMap::new(), without: HashSet::new() };
    if !package.files.is_empty() {
        payload(&mut input, &package, place, &meter, &mut seen, worker)?;
    }
    package.take(&seen, &mut group, worker).map_err(|fault| fault.at(place))?;
    Ok(group)
}

/// What the header says.
struct Package {
    label: String,
    scripts: Vec<&'static str>,
    algorithm: HashAlgorithm,
    files: Vec<FileOf>,
    sizes: Vec<u64>,
    by_path: HashMap<Vec<u8>, usize>,
    compressor: Vec<u8>,
}

/// One file of the header.
struct FileOf {
    path: Vec<u8>,
    mode: u32,
    flags: u32,
    inode: u32,
    digest: Option<Digest>,
}

impl FileOf {
    const CONFIGURATION: u32 = 1;
    const GHOST: u32 = 1 << 6;

    fn is_regular(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    fn is_ghost(&self) -> bool {
        self.flags & Self::GHOST != 0
    }
}

fn package(input: &mut Taken<impl BufRead>) -> Result<Package, Fault> {
    let mut lead = [0; LEAD];
    let count = fill(input, &mut lead).map_err(|error| Fault::of_io(error, "the lead"))?;
    if count < LEAD {
        return Err(Fault::Truncated("the lead"));
    }
    if !lead.starts_with(MAGIC) {
        return Err(Fault::corrupt("no lead of a package"));
    }
    let signature = Header::read(input, "the signature header")?;
    // Padded to eight bytes.
    let padding = signature.size().wrapping_neg() & 7;
    std::io::copy(&mut input.take(padding), &mut std::io::sink())
        .map_err(|error| Fault::of_io(error, "the signature header"))?;
    let header = Header::read(input, "the header")?;
    Package::of(&header)
}

impl Package {
    fn of(header: &Header) -> Result<Self, Fault> {
        let required = |tag: Tag, name: &str| {
            header.string(tag)?.ok_or_else(|| Fault::Missing(format!("{name} in its header")))
        };
        let (name, version) = (required(Tag::NAME, "name")?, required(Tag::VERSION, "version")?);
        let (release, architecture) =
            (required(Tag::RELEASE, "release")?, required(Tag::ARCH, "architecture")?);
        let epoch = header.numbers(Tag::EPOCH)?.first().map_or(String::new(), |epoch| format!("{epoch}:"));
        let label = format!(
            "package {}-{epoch}{}-{}.{}",
            printable(name),
            printable(version),
            printable(release),
            printable(architecture)
        );
        if let Some(format) = header.string(Tag::PAYLOAD_FORMAT)?
            && format != b"cpio"
        {
            return Err(Fault::Unsupported("a payload in another form than cpio"));
        }
        let algorithm = match header.numbers(Tag::FILE_DIGEST_ALGORITHM)?.first() {
            Some(8) => HashAlgorithm::Sha256,
            Some(9) => HashAlgorithm::Sha384,
            Some(10) => HashAlgorithm::Sha512,
            Some(2) => HashAlgorithm::Sha1,
            _ => return Err(Fault::Unsupported("file digests by MD5 or an algorithm that is not known")),
        };
        let (files, sizes) = Self::files(header, algorithm)?;
        let mut by_path = HashMap::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            if by_path.insert(file.path.clone(), index).is_some() {
                return Err(Fault::Duplicate(printable(&file.path)));
            }
        }
        let compressor = header.string(Tag::PAYLOAD_COMPRESSOR)?.unwrap_or(b"gzip").to_vec();
        Ok(Self { label, scripts: scripts(header), algorithm, files, sizes, by_path, compressor })
    }

    fn files(header: &Header, algorithm: HashAlgorithm) -> Result<(Vec<FileOf>, Vec<u64>), Fault> {
        let names = header.strings(Tag::BASE_NAMES)?;
        let (folders, at) = (header.strings(Tag::DIR_NAMES)?, header.numbers(Tag::DIR_INDEXES)?);
        let (modes, flags) = (header.numbers(Tag::FILE_MODES)?, header.numbers(Tag::FILE_FLAGS)?);
        let (digests, inodes) = (header.strings(Tag::FILE_DIGESTS)?, header.numbers(Tag::FILE_INODES)?);
        let mut sizes = header.numbers(Tag::LONG_FILE_SIZES)?;
        if sizes.is_empty() {
            sizes = header.numbers(Tag::FILE_SIZES)?;
        }
        let counts = [at.len(), modes.len(), flags.len(), digests.len(), inodes.len(), sizes.len()];
        if counts.iter().any(|count| *count != names.len()) {
            return Err(Fault::corrupt("lists of files of different lengths in the header"));
        }
        let small = |number: u64| {
            u32::try_from(number).map_err(|_| Fault::corrupt("a number in the header that is too large"))
        };
        let rest = at.iter().zip(&modes).zip(&flags).zip(&digests).zip(&inodes);
        let mut files = Vec::with_capacity(names.len());
        for (name, ((((at, mode), flags), digest), inode)) in names.iter().zip(rest) {
            let folder = usize::try_from(*at).ok().and_then(|at| folders.get(at));
            let folder = folder.ok_or(Fault::corrupt("a file in a folder that the header does not have"))?;
            let path = join(&below_root(folder)?, &below_root(name)?);
            let digest =
                match *digest {
                    b"" => None,
                    hex => {
                        let digest =
                            std::str::from_utf8(hex).ok().and_then(|hex| Digest::from_hex(algorithm, hex));
                        Some(digest.ok_or(Fault::corrupt(
                            "a file digest that is not in hex of its algorithm's size",
                        ))?)
                    }
                };
            let (mode, flags, inode) = (small(*mode)?, small(*flags)?, small(*inode)?);
            files.push(FileOf { path, mode, flags, inode, digest });
        }
        Ok((files, sizes))
    }

    fn group(&self, file: &str) -> Group {
        let mut group = Group::new(&format!("{}, {}", self.label, printable(file.as_bytes())));
        if !self.scripts.is_empty() {
            group.notes.push((About::Scripts, format!(
                "runs scripts when it is installed or removed ({}): what they make or change is not in the set",
                self.scripts.join(", ")
            )));
        }
        group
    }

    /// Takes what the payload had, file by file of the header.
    fn take(&self, seen: &Seen, group: &mut Group, worker: &Worker<'_>) -> Result<(), Fault> {
        let options = worker.shared.options;
        // The content of hard links comes with one of them.
        let linked: HashMap<_, _> = seen
            .contents
            .iter()
            .filter_map(|(index, content)| {
                self.files.get(*index).map(|file| ((file.inode, file.digest), *content))
            })
            .collect();
        for (index, file) in self.files.iter().enumerate() {
            match file.mode & 0o170_000 {
                0o040_000 => continue,
                0o120_000 => group.left_out.symbolic_links += 1,
                0o100_000 if file.is_ghost() => group.left_out.ghosts += 1,
                0o100_000 => {
                    let content = seen.contents.get(&index).or_else(|| {
                        seen.without
                            .contains(&index)
                            .then(|| linked.get(&(file.inode, file.digest)))
                            .flatten()
                    });
                    let content = content.ok_or_else(|| {
                        Fault::Missing(format!("`{}` in its payload", printable(&file.path)))
                    })?;
                    if file.flags & FileOf::CONFIGURATION != 0 && !options.configuration_files {
                        group.left_out.configuration_files += 1;
                        continue;
                    }
                    let path =
                        if options.split_usr { file.path.clone() } else { merged_usr(file.path.clone()) };
                    group.push(content.digest, &path, &options.prefix);
                }
                _ => group.left_out.special_files += 1,
            }
        }
        Ok(())
    }
}

fn scripts(header: &Header) -> Vec<&'static str> {
    const SCRIPTS: [(Tag, &str); 6] = [
        (Tag::PRE_IN, "%pre"),
        (Tag::POST_IN, "%post"),
        (Tag::PRE_UN, "%preun"),
        (Tag::POST_UN, "%postun"),
        (Tag::PRE_TRANS, "%pretrans"),
        (Tag::POST_TRANS, "%posttrans"),
    ];
    SCRIPTS.iter().filter(|(tag, _)| header.has(*tag)).map(|(_, name)| *name).collect()
}

/// What the payload had.
struct Seen {
    contents: HashMap<usize, Content>,
    /// Entries of hard links whose content comes with another.
    without: HashSet<usize>,
}

fn payload(
    input: &mut Taken<impl BufRead>,
    package: &Package,
    place: &Place,
    meter: &Rc<Meter>,
    seen: &mut Seen,
    worker: &mut Worker<'_>,
) -> Result<(), FilesError> {
    let here = place.member(b"payload");
    let broken = |error| Fault::of_io(error, "the payload").at(&here);
    let front = input.fill_buf().map_err(broken)?;
    let compression = Compression::of(front).map_err(|fault| fault.at(&here))?;
    if compression == Compression::None && !front.starts_with(b"0707") {
        let compressor = printable(&package.compressor);
        return Err(Fault::Corrupt(format!("the payload is not compressed with {compressor}")).at(&here));
    }
    let decoder = compression.decoder(input, Extent::All).map_err(broken)?;
    let mut archive = Archive::new(Given::new(decoder, meter), meter);
    loop {
        let begin = archive.position();
        let Some(entry) = archive.next(&package.sizes).map_err(|fault| fault.at(&here.offset(begin)))? else {
            break;
        };
        let named = match &entry.index {
            None => below_root(&entry.name).map(|path| package.by_path.get(&path).copied()),
            Some(index) => Ok(usize::try_from(*index).ok()),
        };
        let here = here.member(&entry.name).offset(entry.offset);
        let index = named.and_then(|index| index.ok_or(Fault::Unlisted)).map_err(|fault| fault.at(&here))?;
        let Some(file) = package.files.get(index) else { return Err(Fault::Unlisted.at(&here)) };
        let is_file = file.is_regular() && (entry.index.is_some() || entry.kind() == EntryKind::File);
        if !is_file {
            continue;
        }
        if seen.contents.contains_key(&index) || seen.without.contains(&index) {
            return Err(Fault::Duplicate(printable(&file.path)).at(&here));
        }
        let size = package.sizes.get(index).copied().unwrap_or(0);
        if entry.size == 0 && size > 0 {
            seen.without.insert(index);
            continue;
        }
        let mut read = || {
            let (content, digest) =
                worker.content_checked(&mut archive, &file.path, file.mode, package.algorithm)?;
            match file.digest {
                Some(expected) if expected == digest => Ok(content),
                Some(_) => Err(Fault::Digest("the header of the package")),
                None => Err(Fault::Missing("a digest of it in its header".to_owned())),
            }
        };
        seen.contents.insert(index, read().map_err(|fault| fault.at(&here))?);
    }
    // For the checksum at its end.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(broken)?;
    Ok(())
}
