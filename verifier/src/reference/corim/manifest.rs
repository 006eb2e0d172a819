//! A CoRIM and its tags (the draft, 4.1): which sets it has.

use super::cbor::{Item, Key, Reader};
use super::signed::{corim_tag, uri, validity_of};
use super::{CorimError, Manifest, PROFILE, comid, coswid, unknown};
use crate::node::Name;
use crate::reference::exchange::{Document, TakenSet};

/// Bytes of an identifier or a name of somebody.
pub(super) const MAX_WORDS: usize = 255;

/// Tags of a CoRIM.
const TAG_COSWID: u64 = 505;
const TAG_COMID: u64 = 506;

/// Reads a CoRIM that begins at `start` of the file. `name`: what its only set is called here.
pub(in crate::reference) fn read(
    payload: &[u8],
    start: usize,
    name: Option<&Name>,
) -> Result<Manifest, CorimError> {
    let mut reader = Reader::new(payload, start);
    corim_tag(&mut reader)?;
    let (mut tags, mut id, mut profiled) = (None, false, false);
    let mut manifest = Manifest { creator: None, validity: Vec::new(), sets: Vec::new() };
    reader.map("a CoRIM: a map", |reader, key| {
        let at = reader.at();
        match key {
            Key::Number(0) => {
                identifier(reader)?;
                id = true;
            }
            Key::Number(1) => tags = Some(tags_of(reader)?),
            Key::Number(3) => {
                profile(reader)?;
                profiled = true;
            }
            Key::Number(4) => manifest.validity.push(validity_of(reader)?),
            Key::Number(5) => manifest.creator = entities(reader)?,
            // Among the others dependent-rims (2): what is needed beside is not here.
            key => return Err(unknown(at, "corim-map", key)),
        }
        Ok(())
    })?;
    reader.end()?;
    let at = reader.at();
    if !id {
        return Err(CorimError::Missing { at, what: "the CoRIM's id (0)" });
    }
    let tags = tags.ok_or(CorimError::Missing { at, what: "the CoRIM's tags (1)" })?;
    let alone = tags.len() == 1;
    for tag in tags {
        let set = match tag {
            Tag::Comid(bytes, start) => comid::read(bytes, start, profiled, name.filter(|_| alone))?,
            Tag::Coswid(bytes, start) => coswid::read(bytes, start, name.filter(|_| alone))?,
        };
        manifest.sets.push(set);
    }
    if let (false, Some(_)) = (alone, name) {
        return Err(CorimError::Inexpressible { at, what: "one name for several sets".to_owned() });
    }
    Ok(manifest)
}

enum Tag<'b> {
    Comid(&'b [u8], usize),
    Coswid(&'b [u8], usize),
}

fn tags_of<'b>(reader: &mut Reader<'b>) -> Result<Vec<Tag<'b>>, CorimError> {
    let (mut tags, start) = (Vec::new(), reader.at());
    reader.list("a list of tags", |reader| {
        let at = reader.at();
        if tags.len() >= Document::MAX_SETS {
            return Err(CorimError::Shape { at: start, what: "a list of at most 256 tags" });
        }
        let what = "a CoMID (tag 506) or CoSWID (505), in bytes";
        tags.push(match reader.item()? {
            Item::Tag(TAG_COMID) => {
                let (bytes, start) = reader.bytes(what)?;
                Tag::Comid(bytes, start)
            }
            Item::Tag(TAG_COSWID) => {
                let (bytes, start) = reader.bytes(what)?;
                Tag::Coswid(bytes, start)
            }
            Item::Tag(other) => {
                return Err(CorimError::Inexpressible { at, what: format!("a tag of kind {other}") });
            }
            _ => return Err(CorimError::Shape { at, what }),
        });
        Ok(())
    })?;
    Ok(tags)
}

/// Another profile than ours may change what anything means (the draft, 4.1.4).
fn profile(reader: &mut Reader<'_>) -> Result<(), CorimError> {
    let at = reader.at();
    match reader.item()? {
        Item::Tag(32) if reader.text("a profile's URI")? == PROFILE => Ok(()),
        Item::Tag(_) => Err(CorimError::Profile { at }),
        _ => Err(CorimError::Shape { at, what: "a profile: a tagged URI or OID" }),
    }
}

/// A text, or the 16 bytes of a UUID.
pub(super) fn identifier(reader: &mut Reader<'_>) -> Result<(), CorimError> {
    let at = reader.at();
    match reader.item()? {
        Item::Text(text) if !text.is_empty() && text.len() <= MAX_WORDS => Ok(()),
        Item::Bytes(bytes) if bytes.len() == 16 => Ok(()),
        _ => Err(CorimError::Shape { at, what: "an identifier: a text, or the 16 bytes of a UUID" }),
    }
}

/// Who made it (the draft, 7.2): the name of the first.
pub(super) fn entities(reader: &mut Reader<'_>) -> Result<Option<String>, CorimError> {
    let mut first = None;
    reader.list("a list of entities", |reader| {
        reader.map("an entity: a map", |reader, key| {
            let at = reader.at();
            match key {
                Key::Number(0) => {
                    let name = reader.words(MAX_WORDS, "an entity's name")?;
                    first.get_or_insert_with(|| name.to_owned());
                }
                Key::Number(1) => uri(reader)?,
                Key::Number(2) => {
                    reader.list("a list of roles", |reader| reader.small("a role").map(|_| ()))?;
                }
                key => return Err(unknown(at, "entity-map", key)),
            }
            Ok(())
        })
    })?;
    Ok(first)
}

/// tag-identity-map (the draft, 5.1.1): the version, 0 where it is not said.
pub(super) fn tag_identity(reader: &mut Reader<'_>) -> Result<u32, CorimError> {
    let (mut version, mut id) = (0, false);
    reader.map("the identity of a tag: a map", |reader, key| {
        let at = reader.at();
        match key {
            Key::Number(0) => {
                identifier(reader)?;
                id = true;
            }
            Key::Number(1) => version = reader.small("a tag's version: 0 to 4294967295")?,
            key => return Err(unknown(at, "tag-identity-map", key)),
        }
        Ok(())
    })?;
    if id { Ok(version) } else { Err(CorimError::Missing { at: reader.at(), what: "the tag's id (0)" }) }
}

/// What a set is called: as the operator says, else as the tag has it.
pub(super) fn set_name(said: Option<&Name>, found: Option<&str>, at: usize) -> Result<Name, CorimError> {
    match said {
        Some(name) => Ok(name.clone()),
        None => found.and_then(|name| name.parse().ok()).ok_or(CorimError::Name { at }),
    }
}

/// A set that was read.
pub(super) fn taken(
    name: Name,
    version: u32,
    values: crate::reference::exchange::ExportedValues,
) -> TakenSet {
    TakenSet { id: crate::reference::Versioned { name, version }, values }
}
