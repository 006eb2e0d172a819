//! A document as a CoRIM: all of its values, or nothing.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use rootbound_common::crypto::Digest;
use rootbound_common::text::only_shows;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_compute::values::{BootValues, Measured, Source};

use super::cbor::Writer;
use super::comid::measured;
use super::coswid::index;
use super::signed::tagged;
use super::{HASHES, MAX_BYTES, PROFILE};
use crate::evidence::frame::{FrameError, unpack};
use crate::reference::AcceptedPcrs;
use crate::reference::exchange::{Document, ExportedSet, ExportedValues};

/// A CoRIM that nobody has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its bytes.
    pub corim: Vec<u8>,
    /// What is said of values, and goes not with them, in words. The values are all there.
    pub left_out: Vec<String>,
}

/// Why a document cannot be a CoRIM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// CoRIM has values that are expected, and none that are not.
    #[error("CoRIM has no place for a deny list")]
    Denied,
    /// A digest at any path.
    #[error("set {set}, line {line}: CoSWID has no file that may be anywhere (`*`)")]
    AnyPath {
        /// The set.
        set: String,
        /// From 1.
        line: usize,
    },
    /// fs-verity.
    #[error("set {set}, line {line}: an fs-verity digest is no hash of a file, and CoSWID has nothing else")]
    Verity {
        /// The set.
        set: String,
        /// From 1.
        line: usize,
    },
    /// A digest that CoRIM has no name for.
    #[error("set {set}, line {line}: SHA-1 is no algorithm of CoRIM's digests")]
    Sha1 {
        /// The set.
        set: String,
        /// From 1.
        line: usize,
    },
    /// A path that would not be what it was.
    #[error(
        "set {set}, line {line}: the path is not UTF-8, has characters that do more than show, or a folder without a name"
    )]
    Path {
        /// The set.
        set: String,
        /// From 1.
        line: usize,
    },
    /// Only digests say of which bank they are.
    #[error("set {set}: it has texts alone, so that nothing would say that they are of bank {bank}")]
    Bank {
        /// The set.
        set: String,
        /// Its bank.
        bank: HashAlgorithm,
    },
    /// Digests that do not decompress, or are none.
    #[error("set {set}: its digests cannot be read: {why}")]
    Digests {
        /// The set.
        set: String,
        /// Why.
        why: FrameError,
    },
    /// A line that is none of a digest set.
    #[error("set {set}, line {line}: this is no digest")]
    Line {
        /// The set.
        set: String,
        /// From 1.
        line: usize,
    },
    /// Larger than what is imported.
    #[error("as a CoRIM it would have more than {} MiB: export it as JSON, or fewer sets at once", MAX_BYTES >> 20)]
    TooLarge,
}

/// Writes the sets of a document as a CoRIM.
pub fn write(document: &Document) -> Result<Written, Unwritable> {
    if !document.denied.is_empty() {
        return Err(Unwritable::Denied);
    }
    let vendor = document.trust_domain.to_string();
    let (mut tags, mut left_out, mut size) = (Writer::new(), Vec::new(), 0_usize);
    tags.list(document.sets.len());
    for set in &document.sets {
        let (tag, bytes) = match &set.values {
            ExportedValues::Pcrs(accepted) => {
                left_out.extend(sources(set, accepted.iter_with_source().map(|(.., source)| source)));
                (506, comid(&vendor, set, &pcrs(&vendor, set, accepted)))
            }
            ExportedValues::Boot(values) => {
                left_out.extend(sources(set, values.values.iter().map(|value| &value.source)));
                (506, comid(&vendor, set, &boot(&vendor, set, values)?))
            }
            ExportedValues::Digests(frame) => {
                let limit = Document::MAX_TEXT;
                let text = unpack(frame.as_bytes(), limit)
                    .map_err(|why| Unwritable::Digests { set: set.id(), why })?;
                let comments =
                    text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"#")).count();
                if comments > 0 {
                    left_out.push(format!(
                        "{}: {comments} comments, which say where digests come from",
                        set.id()
                    ));
                }
                (505, coswid(&vendor, set, &text)?)
            }
        };
        size = size.saturating_add(bytes.len());
        if size > MAX_BYTES {
            return Err(Unwritable::TooLarge);
        }
        tags.tag(tag).bytes(&bytes);
    }
    let profiled = document.sets.iter().any(|set| matches!(set.values, ExportedValues::Boot(_)));
    let mut corim = Writer::new();
    corim.map(if profiled { 4 } else { 3 });
    corim.number(0).text(&format!("{vendor}/references/{}", document.exported_at.as_millis()));
    corim.number(1).items(&tags.into_bytes());
    if profiled {
        corim.number(3).tag(32).text(PROFILE);
    }
    // manifest-creator
    corim.number(5).list(1).map(2).number(0).text(&vendor).number(2).list(1).number(1);
    let corim = tagged(&corim.into_bytes());
    // With room for an envelope.
    if corim.len() > MAX_BYTES - 4096 { Err(Unwritable::TooLarge) } else { Ok(Written { corim, left_out }) }
}

/// What is said of values and has no place.
fn sources<'a>(set: &ExportedSet, sources: impl Iterator<Item = &'a Source>) -> Option<String> {
    let known = sources.filter(|source| !source.is_unknown()).count();
    (known > 0).then(|| format!("{}: where {known} values come from", set.id()))
}

fn tag_id(vendor: &str, set: &ExportedSet) -> String {
    let kind = match set.values {
        ExportedValues::Pcrs(_) => "pcrs",
        ExportedValues::Boot(_) => "boot",
        ExportedValues::Digests(_) => "digests",
    };
    format!("{vendor}/{kind}/{}", set.name)
}

/// Who wrote the version, at whose verifier.
fn author(vendor: &str, set: &ExportedSet) -> String {
    let shows = |text: &str| text.chars().filter(|c| only_shows(*c)).take(100).collect::<String>();
    format!("{} of {}", shows(&set.provenance.author), shows(vendor))
}

/// `triples`: reference triples, and how many.
fn comid(vendor: &str, set: &ExportedSet, (triples, count): &(Vec<u8>, usize)) -> Vec<u8> {
    let mut comid = Writer::new();
    comid.map(3).number(1).map(2).number(0).text(&tag_id(vendor, set));
    comid.number(1).number(i64::from(set.version));
    // tag-creator
    comid.number(2).list(1).map(2).number(0).text(&author(vendor, set)).number(2).list(1).number(0);
    comid.number(4).map(1).number(0).list(*count).items(triples);
    comid.into_bytes()
}

/// The beginning of a triple with one measurement: its environment is the set.
fn triple(triples: &mut Writer, vendor: &str, set: &ExportedSet) {
    triples.list(2).map(1).number(0).map(2).number(1).text(vendor).number(2).text(set.name.as_str()).list(1);
}

fn write_digest(writer: &mut Writer, digest: &Digest) {
    // PCR and boot values are never SHA-1, and files' are refused before.
    let id =
        HASHES.iter().find(|(_, _, algorithm)| *algorithm == digest.algorithm()).map_or(0, |(id, _, _)| *id);
    writer.list(2).number(id).bytes(digest.as_bytes());
}

fn pcrs(vendor: &str, set: &ExportedSet, accepted: &AcceptedPcrs) -> (Vec<u8>, usize) {
    let mut by_pcr: BTreeMap<PcrIndex, Vec<&Digest>> = BTreeMap::new();
    for (_, pcr, digest) in accepted.iter() {
        by_pcr.entry(pcr).or_default().push(digest);
    }
    let alone = |digests: &Vec<&Digest>| {
        digests.iter().zip(digests.iter().skip(1)).all(|(one, next)| one.algorithm() != next.algorithm())
    };
    let mut triples = Writer::new();
    let mut state = |registers: &[(PcrIndex, &[&Digest])]| {
        triple(&mut triples, vendor, set);
        triples.map(1).number(1).map(1).number(14).map(registers.len());
        for (pcr, digests) in registers {
            triples.number(i64::from(pcr.get())).list(digests.len());
            for digest in *digests {
                write_digest(&mut triples, digest);
            }
        }
    };
    // One state of all registers, where there is but one; else each value by itself.
    let count = if by_pcr.values().all(alone) {
        let registers: Vec<_> = by_pcr.iter().map(|(pcr, digests)| (*pcr, digests.as_slice())).collect();
        state(&registers);
        1
    } else {
        let mut count = 0;
        for (pcr, digests) in &by_pcr {
            for digest in digests.chunks(1) {
                state(&[(*pcr, digest)]);
                count += 1;
            }
        }
        count
    };
    (triples.into_bytes(), count)
}

fn boot(vendor: &str, set: &ExportedSet, values: &BootValues) -> Result<(Vec<u8>, usize), Unwritable> {
    let (mut triples, mut banked) = (Writer::new(), false);
    for value in &values.values {
        let event;
        let (key, digest) = match &value.measured {
            Measured::BootApplication { digest } => (measured::BOOT_APPLICATION, Some(digest)),
            Measured::Driver { digest } => (measured::DRIVER, Some(digest)),
            Measured::Initrd { digest } => (measured::INITRD, Some(digest)),
            Measured::FirmwareBlob { digest } => (measured::FIRMWARE_BLOB, Some(digest)),
            Measured::CommandLine { .. } => (measured::COMMAND_LINE, None),
            Measured::FirmwareVersion { .. } => (measured::FIRMWARE_VERSION, None),
            Measured::Event { pcr, digest } => {
                event = format!("{}{pcr}", measured::EVENT);
                (event.as_str(), Some(digest))
            }
        };
        triple(&mut triples, vendor, set);
        triples.map(2).number(0).text(key).number(1).map(if value.label.is_empty() { 1 } else { 2 });
        match &value.measured {
            Measured::CommandLine { text } => {
                triples.number(4).tag(560).bytes(text.as_bytes());
            }
            Measured::FirmwareVersion { text } => {
                triples.number(0).map(1).number(0).text(text);
            }
            _ => {}
        }
        if let Some(digest) = digest {
            banked = true;
            triples.number(2).list(1);
            write_digest(&mut triples, &digest.0);
        }
        if !value.label.is_empty() {
            triples.number(11).text(&value.label);
        }
    }
    if banked {
        Ok((triples.into_bytes(), values.values.len()))
    } else {
        Err(Unwritable::Bank { set: set.id(), bank: values.bank })
    }
}

fn coswid(vendor: &str, set: &ExportedSet, text: &[u8]) -> Result<Vec<u8>, Unwritable> {
    let (mut files, mut count) = (Writer::new(), 0_usize);
    for (line, text) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if !matches!(text.first(), None | Some(b'#')) {
            file(&mut files, &set.id(), line, text)?;
            count += 1;
        }
    }
    let mut tag = Writer::new();
    tag.map(6).number(index::TAG_ID).text(&tag_id(vendor, set));
    tag.number(index::SOFTWARE_NAME).text(set.name.as_str());
    // Role 1: tag-creator.
    tag.number(index::ENTITY).map(2).number(index::ENTITY_NAME).text(&author(vendor, set));
    tag.number(index::ROLE).number(1);
    tag.number(index::PAYLOAD).map(1).number(index::FILE);
    if count != 1 {
        tag.list(count);
    }
    tag.items(&files.into_bytes());
    tag.number(index::TAG_VERSION).number(i64::from(set.version));
    tag.number(index::SOFTWARE_VERSION).text(&set.version.to_string());
    Ok(tag.into_bytes())
}

/// A line of a digest set as a file-entry.
fn file(files: &mut Writer, set: &str, line: usize, text: &[u8]) -> Result<(), Unwritable> {
    let set = || set.to_owned();
    if text.starts_with(b"verity:") {
        return Err(Unwritable::Verity { set: set(), line });
    }
    if text.starts_with(b"sha1:") {
        return Err(Unwritable::Sha1 { set: set(), line });
    }
    let bad_line = || Unwritable::Line { set: set(), line };
    let bad_path = || Unwritable::Path { set: set(), line };
    let colon = text.iter().position(|byte| *byte == b':').ok_or_else(bad_line)?;
    let (name, rest) = text.split_at_checked(colon).ok_or_else(bad_line)?;
    let algorithm = HASHES.iter().map(|(_, _, algorithm)| *algorithm);
    let algorithm = algorithm.into_iter().find(|algorithm| algorithm.name().as_bytes() == name);
    let algorithm = algorithm.ok_or_else(bad_line)?;
    let (hex, path) =
        rest.get(1..).and_then(|rest| rest.split_at_checked(2 * algorithm.size())).ok_or_else(bad_line)?;
    let digest = HEXLOWER.decode(hex).ok().and_then(|bytes| Digest::from_slice(algorithm, &bytes));
    let digest = digest.ok_or_else(bad_line)?;
    let path = path.strip_prefix(b"  ").ok_or_else(bad_line)?;
    if path == b"*" {
        return Err(Unwritable::AnyPath { set: set(), line });
    }
    let path = std::str::from_utf8(path).map_err(|_| bad_path())?;
    let (folder, name) = path.rsplit_once('/').ok_or_else(bad_path)?;
    // Of a folder that ends with a slash nobody could tell how many there were.
    if name.is_empty() || folder.ends_with('/') || !path.chars().all(only_shows) {
        return Err(bad_path());
    }
    files.map(3).number(index::HASH);
    write_digest(files, &digest);
    files.number(index::LOCATION).text(if folder.is_empty() { "/" } else { folder });
    files.number(index::FS_NAME).text(name);
    Ok(())
}
