//! A CoSWID (RFC 9393): a digest set, as the files of a payload.

use data_encoding::HEXLOWER;
use rootbound_common::blob::Blob;

use super::cbor::{Item, Key, Reader};
use super::manifest::{MAX_WORDS, identifier, set_name, taken};
use super::{CorimError, digest, unknown};
use crate::evidence::frame::pack;
use crate::node::Name;
use crate::reference::exchange::{ExportedValues, TakenSet};

/// Members of maps that mean something (RFC 9393, 2.10).
pub(super) mod index {
    pub(in super::super) const TAG_ID: i64 = 0;
    pub(in super::super) const SOFTWARE_NAME: i64 = 1;
    pub(in super::super) const ENTITY: i64 = 2;
    pub(in super::super) const PAYLOAD: i64 = 6;
    pub(in super::super) const HASH: i64 = 7;
    pub(in super::super) const TAG_VERSION: i64 = 12;
    pub(in super::super) const SOFTWARE_VERSION: i64 = 13;
    pub(in super::super) const VERSION_SCHEME: i64 = 14;
    pub(in super::super) const LANG: i64 = 15;
    pub(in super::super) const FILE: i64 = 17;
    pub(in super::super) const SIZE: i64 = 20;
    pub(in super::super) const LOCATION: i64 = 23;
    pub(in super::super) const FS_NAME: i64 = 24;
    pub(in super::super) const ENTITY_NAME: i64 = 31;
    pub(in super::super) const REG_ID: i64 = 32;
    pub(in super::super) const ROLE: i64 = 33;
}

/// Bytes of a path: PATH_MAX.
const MAX_PATH: usize = 4096;

/// Reads a CoSWID that begins at `start` of the file. `name`: what the set is called here.
pub(super) fn read(bytes: &[u8], start: usize, name: Option<&Name>) -> Result<TakenSet, CorimError> {
    let mut reader = Reader::new(bytes, start);
    let (mut version, mut software, mut text, mut id) = (None, None, Vec::new(), false);
    members(&mut reader, "a CoSWID: a map", |reader, key| {
        match key {
            index::TAG_ID => {
                identifier(reader)?;
                id = true;
            }
            index::SOFTWARE_NAME => software = Some(reader.words(MAX_WORDS, "a software's name")?),
            index::ENTITY => one_or_more(reader, "an entity", entity)?,
            index::PAYLOAD => members(reader, "a payload: a map", |reader, key| match key {
                index::FILE => Ok(one_or_more(reader, "a file", |reader| file(reader, &mut text))?),
                _ => Err(Refused::Unknown("payload-entry")),
            })?,
            index::TAG_VERSION => version = Some(reader.small("a tag's version: 0 to 4294967295")?),
            index::SOFTWARE_VERSION | index::LANG => {
                reader.words(MAX_WORDS, "a version, or a language")?;
            }
            index::VERSION_SCHEME => reader.skip()?,
            _ => return Err(Refused::Unknown("concise-swid-tag")),
        }
        Ok(())
    })?;
    reader.end()?;
    let at = reader.at();
    if !id {
        return Err(CorimError::Missing { at, what: "the tag's id (0)" });
    }
    let version = version.ok_or(CorimError::Missing { at, what: "the tag's version (12)" })?;
    if text.is_empty() {
        return Err(CorimError::Missing { at, what: "files in its payload (6)" });
    }
    let name = set_name(name, software, start)?;
    let too_large =
        || CorimError::Inexpressible { at: start, what: "more files than a digest set may have".to_owned() };
    let frame = pack(&text).ok().and_then(Blob::new).ok_or_else(too_large)?;
    Ok(taken(name, version, ExportedValues::Digests(frame)))
}

/// Why a member is not taken: found by what reads it, or that nothing does.
enum Refused {
    Because(CorimError),
    Unknown(&'static str),
}

impl From<CorimError> for Refused {
    fn from(error: CorimError) -> Self {
        Self::Because(error)
    }
}

/// A map whose keys are numbers that mean something.
fn members<'b>(
    reader: &mut Reader<'b>,
    what: &'static str,
    mut each: impl FnMut(&mut Reader<'b>, i64) -> Result<(), Refused>,
) -> Result<(), CorimError> {
    reader.map(what, |reader, key| {
        let at = reader.at();
        let number = match key {
            Key::Number(number) => i64::try_from(number).unwrap_or(i64::MAX),
            Key::Text(_) => i64::MAX,
        };
        each(reader, number).map_err(|refused| match refused {
            Refused::Because(error) => error,
            Refused::Unknown(map) => unknown(at, map, key),
        })
    })
}

/// One, or a list of two or more (RFC 9393, 2.2).
fn one_or_more<'b>(
    reader: &mut Reader<'b>,
    what: &'static str,
    mut each: impl FnMut(&mut Reader<'b>) -> Result<(), CorimError>,
) -> Result<(), CorimError> {
    if reader.is_list() {
        let at = reader.at();
        let members = reader.list(what, each)?;
        return if members > 1 { Ok(()) } else { Err(CorimError::Shape { at, what }) };
    }
    each(reader)
}

/// entity-entry.
fn entity(reader: &mut Reader<'_>) -> Result<(), CorimError> {
    members(reader, "an entity: a map", |reader, key| {
        match key {
            index::ENTITY_NAME => {
                reader.words(MAX_WORDS, "an entity's name")?;
            }
            index::REG_ID => super::signed::uri(reader)?,
            index::ROLE => one_or_more(reader, "a role", |reader| reader.small("a role").map(|_| ()))?,
            _ => return Err(Refused::Unknown("entity-entry")),
        }
        Ok(())
    })
}

/// file-entry: a line of the set's text.
fn file(reader: &mut Reader<'_>, text: &mut Vec<u8>) -> Result<(), CorimError> {
    const NAME: &str = "a file's name: without slashes and controls";
    const LOCATION: &str = "an absolute folder: without controls, and without a slash at its end";
    let start = reader.at();
    let (mut name, mut location, mut hash) = (None, None, None);
    members(reader, "a file: a map", |reader, key| {
        match key {
            index::HASH => hash = Some(digest(reader)?),
            // The hash is of all of it.
            index::SIZE => {
                reader.skip()?;
            }
            index::LOCATION => {
                let at = reader.at();
                let folder = reader.words(MAX_PATH, LOCATION)?;
                if !folder.starts_with('/') || (folder != "/" && folder.ends_with('/')) {
                    return Err(CorimError::Shape { at, what: LOCATION }.into());
                }
                location = Some(folder.trim_end_matches('/'));
            }
            index::FS_NAME => {
                let at = reader.at();
                let file = reader.words(MAX_PATH, NAME)?;
                if file.contains('/') {
                    return Err(CorimError::Shape { at, what: NAME }.into());
                }
                name = Some(file);
            }
            _ => return Err(Refused::Unknown("file-entry")),
        }
        Ok(())
    })?;
    let missing = |what| CorimError::Missing { at: start, what };
    let name = name.ok_or(missing("the file's name (24)"))?;
    let location = location.ok_or(missing("the file's location (23): it could be anywhere"))?;
    let hash = hash.ok_or(missing("the file's hash (7)"))?;
    if location.len().saturating_add(name.len()) >= MAX_PATH {
        return Err(CorimError::Shape { at: start, what: "a file whose path has at most 4096 bytes" });
    }
    text.extend_from_slice(hash.algorithm().name().as_bytes());
    for part in [":", &HEXLOWER.encode(hash.as_bytes()), "  ", location, "/", name, "\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    Ok(())
}

impl Reader<'_> {
    /// Whether a list is next.
    fn is_list(&self) -> bool {
        matches!(self.peek(), Some(Item::List(_)))
    }
}
