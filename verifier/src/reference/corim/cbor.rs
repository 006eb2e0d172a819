//! CBOR (RFC 8949), read strictly, one item after the other, and written in its one deterministic form (4.2.1).
//!
//! Of an item that is returned is known: it is all there · its number or length is written in the shortest form · it has a length
//! of its own · a list or map has no more members than bytes follow. Maps have each key once. Nothing is allocated for
//! what a head claims.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use rootbound_common::text::only_shows;

use super::CorimError;

/// How deep items nest that are passed over.
const MAX_DEPTH: u8 = 8;
/// Members of a map whose keys mean something: three times what any of them may have.
const MAX_MEMBERS: u64 = 64;

/// Why bytes are no CBOR that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CborFault {
    /// An item, or what it announces, goes beyond the end.
    #[error("it ends in the middle")]
    Truncated,
    /// A head that means nothing.
    #[error("a head that RFC 8949 reserves")]
    Reserved,
    /// Its end would have to be searched for.
    #[error("an item of indefinite length")]
    Indefinite,
    /// Two spellings of the same would be two documents.
    #[error("a number or length is not in its shortest form")]
    NotShortest,
    /// Which of the two is meant?
    #[error("a map has this key twice")]
    KeyTwice,
    /// More follows.
    #[error("more follows where it should end")]
    Trailing,
    /// No UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// Deeper than anything that is passed over.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// More than a map of this kind may have.
    #[error("a map has more than {MAX_MEMBERS} members")]
    TooMany,
}

/// An item, or the head of one that has members.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item<'b> {
    Number(i128),
    Bytes(&'b [u8]),
    Text(&'b str),
    List(u64),
    Map(u64),
    Tag(u64),
    Bool(bool),
    Null,
    /// A float, `undefined`, or a simple value: none of them means anything here.
    Other,
}

/// The key of a member of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'b> {
    Number(i128),
    Text(&'b str),
}

/// A text shows the first of its characters that only show.
impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => {
                let shown: String = text.chars().filter(|c| only_shows(*c)).take(32).collect();
                write!(f, "`{shown}`")
            }
        }
    }
}

/// Reads the items of some bytes of a document, and knows where in the document they are.
pub(super) struct Reader<'b> {
    decoder: Decoder<'b>,
    base: usize,
}

impl<'b> Reader<'b> {
    /// Bytes that begin at `base`, from the document's first.
    pub(super) fn new(bytes: &'b [u8], base: usize) -> Self {
        Self { decoder: Decoder::new(bytes), base }
    }

    /// Where in the document the next item is.
    pub(super) fn at(&self) -> usize {
        self.base.saturating_add(self.decoder.position())
    }

    /// Refuses what follows.
    pub(super) fn end(&self) -> Result<(), CorimError> {
        if self.decoder.position() == self.decoder.input().len() {
            return Ok(());
        }
        Err(CorimError::Cbor { at: self.at(), fault: CborFault::Trailing })
    }

    /// The next item; of one that has members its head.
    pub(super) fn item(&mut self) -> Result<Item<'b>, CorimError> {
        let at = self.at();
        self.head().map_err(|fault| CorimError::Cbor { at, fault })
    }

    /// The next item, which is read again after this; `None` where it is none that is taken.
    pub(super) fn peek(&self) -> Option<Item<'b>> {
        let mut ahead = Self { decoder: self.decoder.clone(), base: self.base };
        ahead.head().ok()
    }

    fn head(&mut self) -> Result<Item<'b>, CborFault> {
        let decoder = &mut self.decoder;
        let (length, start) = (decoder.input().len(), decoder.position());
        if start == length {
            return Err(CborFault::Truncated);
        }
        // What a head says has an end; where it does not, or bytes are missing, there is but one reason left.
        let cut = |_| CborFault::Truncated;
        let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut content = 0;
        let kind = decoder.datatype();
        let kind =
            kind.map_err(
                |error| {
                    if error.is_end_of_input() { CborFault::Truncated } else { CborFault::Reserved }
                },
            )?;
        let (item, argument) = match kind {
            Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::I8
            | Type::I16
            | Type::I32
            | Type::I64
            | Type::Int => {
                let number = i128::from(decoder.int().map_err(cut)?);
                let argument = if number < 0 { -1 - number } else { number };
                (Item::Number(number), u64::try_from(argument).ok())
            }
            Type::Bytes => {
                let bytes = decoder.bytes().map_err(cut)?;
                content = bytes.len();
                (Item::Bytes(bytes), Some(size(content)))
            }
            Type::String => {
                let text = decoder.str();
                let text = text.map_err(|error| {
                    if error.is_end_of_input() { CborFault::Truncated } else { CborFault::Text }
                })?;
                content = text.len();
                (Item::Text(text), Some(size(content)))
            }
            Type::Array => {
                let members = decoder.array().map_err(cut)?.ok_or(CborFault::Indefinite)?;
                (Item::List(members), Some(members))
            }
            Type::Map => {
                let members = decoder.map().map_err(cut)?.ok_or(CborFault::Indefinite)?;
                (Item::Map(members), Some(members))
            }
            Type::Tag => {
                let tag = decoder.tag().map_err(cut)?.as_u64();
                (Item::Tag(tag), Some(tag))
            }
            Type::Bool => (Item::Bool(decoder.bool().map_err(cut)?), None),
            Type::Null => {
                decoder.null().map_err(cut)?;
                (Item::Null, None)
            }
            Type::Undefined => {
                decoder.undefined().map_err(cut)?;
                (Item::Other, None)
            }
            Type::F16 | Type::F32 | Type::F64 | Type::Simple => {
                decoder.skip().map_err(cut)?;
                (Item::Other, None)
            }
            Type::BytesIndef | Type::StringIndef | Type::ArrayIndef | Type::MapIndef | Type::Break => {
                return Err(CborFault::Indefinite);
            }
            Type::Unknown(_) => return Err(CborFault::Reserved),
        };
        let end = decoder.position();
        let written = end.saturating_sub(start).saturating_sub(content);
        if argument.is_some_and(|argument| shortest(argument) != written) {
            return Err(CborFault::NotShortest);
        }
        let needed = match item {
            Item::List(members) => members,
            Item::Map(members) => members.saturating_mul(2),
            _ => 0,
        };
        if needed > size(length.saturating_sub(end)) { Err(CborFault::Truncated) } else { Ok(item) }
    }

    /// A map of which every key means something to `each`. `what` names it.
    pub(super) fn map(
        &mut self,
        what: &'static str,
        mut each: impl FnMut(&mut Self, Key<'b>) -> Result<(), CorimError>,
    ) -> Result<(), CorimError> {
        let at = self.at();
        let Item::Map(members) = self.item()? else { return Err(CorimError::Shape { at, what }) };
        if members > MAX_MEMBERS {
            return Err(CorimError::Cbor { at, fault: CborFault::TooMany });
        }
        let mut seen = BTreeSet::new();
        for _ in 0..members {
            let at = self.at();
            let key = match self.item()? {
                Item::Number(number) => Key::Number(number),
                Item::Text(text) => Key::Text(text),
                _ => return Err(CorimError::Shape { at, what }),
            };
            if !seen.insert(key) {
                return Err(CorimError::Cbor { at, fault: CborFault::KeyTwice });
            }
            each(self, key)?;
        }
        Ok(())
    }

    /// A list of one member at least. `what` names it.
    pub(super) fn list(
        &mut self,
        what: &'static str,
        mut each: impl FnMut(&mut Self) -> Result<(), CorimError>,
    ) -> Result<u64, CorimError> {
        let at = self.at();
        match self.item()? {
            Item::List(members) if members > 0 => {
                for _ in 0..members {
                    each(self)?;
                }
                Ok(members)
            }
            _ => Err(CorimError::Shape { at, what }),
        }
    }

    /// A list of so many members, of which the first is next.
    pub(super) fn exactly(&mut self, members: u64, what: &'static str) -> Result<(), CorimError> {
        let at = self.at();
        if self.item()? == Item::List(members) { Ok(()) } else { Err(CorimError::Shape { at, what }) }
    }

    /// A tag, of which the content is next.
    pub(super) fn tag(&mut self, tag: u64, what: &'static str) -> Result<(), CorimError> {
        let at = self.at();
        if self.item()? == Item::Tag(tag) { Ok(()) } else { Err(CorimError::Shape { at, what }) }
    }

    /// A text of 1 to `most` bytes that does nothing but show.
    pub(super) fn words(&mut self, most: usize, what: &'static str) -> Result<&'b str, CorimError> {
        let at = self.at();
        let text = self.text(what)?;
        let shows = !text.is_empty() && text.len() <= most && text.chars().all(only_shows);
        if shows { Ok(text) } else { Err(CorimError::Shape { at, what }) }
    }

    /// A text.
    pub(super) fn text(&mut self, what: &'static str) -> Result<&'b str, CorimError> {
        let at = self.at();
        let Item::Text(text) = self.item()? else { return Err(CorimError::Shape { at, what }) };
        Ok(text)
    }

    /// Bytes, and where they begin in the document.
    pub(super) fn bytes(&mut self, what: &'static str) -> Result<(&'b [u8], usize), CorimError> {
        let at = self.at();
        let Item::Bytes(bytes) = self.item()? else { return Err(CorimError::Shape { at, what }) };
        Ok((bytes, self.at().saturating_sub(bytes.len())))
    }

    /// A number of 0 to 2³²−1.
    pub(super) fn small(&mut self, what: &'static str) -> Result<u32, CorimError> {
        let at = self.at();
        let number = match self.item()? {
            Item::Number(number) => u32::try_from(number).ok(),
            _ => None,
        };
        number.ok_or(CorimError::Shape { at, what })
    }

    /// Passes over an item and everything in it, which has to be CBOR nevertheless.
    pub(super) fn skip(&mut self) -> Result<(), CorimError> {
        self.skip_below(MAX_DEPTH)
    }

    // Deeper than `MAX_DEPTH` it does not call itself.
    fn skip_below(&mut self, levels: u8) -> Result<(), CorimError> {
        let at = self.at();
        let item = self.item()?;
        let members = match item {
            Item::List(members) => members,
            Item::Map(members) => members.saturating_mul(2),
            Item::Tag(_) => 1,
            _ => return Ok(()),
        };
        let levels = levels.checked_sub(1).ok_or(CorimError::Cbor { at, fault: CborFault::TooDeep })?;
        let mut keys = HashSet::new();
        for member in 0..members {
            let (at, start) = (self.at(), self.decoder.position());
            self.skip_below(levels)?;
            if matches!(item, Item::Map(_)) && member % 2 == 0 {
                let key = self.decoder.input().get(start..self.decoder.position());
                if !keys.insert(key) {
                    return Err(CorimError::Cbor { at, fault: CborFault::KeyTwice });
                }
            }
        }
        Ok(())
    }
}

/// Bytes of the shortest head with an argument (RFC 8949, 3).
const fn shortest(argument: u64) -> usize {
    match argument {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        0x1_0000_0000.. => 9,
    }
}

/// Writes items; who calls it gives the members of maps in the order of their keys.
pub(super) struct Writer(Encoder<Vec<u8>>);

impl Writer {
    pub(super) fn new() -> Self {
        Self(Encoder::new(Vec::new()))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into_writer()
    }

    // Writing into memory does not fail.

    pub(super) fn number(&mut self, number: i64) -> &mut Self {
        let _ = self.0.i64(number);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        let _ = self.0.str(text);
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.0.bytes(bytes);
        self
    }

    pub(super) fn list(&mut self, members: usize) -> &mut Self {
        let _ = self.0.array(u64::try_from(members).unwrap_or(u64::MAX));
        self
    }

    pub(super) fn map(&mut self, members: usize) -> &mut Self {
        let _ = self.0.map(u64::try_from(members).unwrap_or(u64::MAX));
        self
    }

    pub(super) fn tag(&mut self, tag: u64) -> &mut Self {
        let _ = self.0.tag(minicbor::data::Tag::new(tag));
        self
    }

    /// Items that are written already.
    pub(super) fn items(&mut self, items: &[u8]) -> &mut Self {
        self.0.writer_mut().extend_from_slice(items);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(bytes: &[u8]) -> (usize, CborFault) {
        let mut reader = Reader::new(bytes, 100);
        let Err(CorimError::Cbor { at, fault }) = reader.skip().and_then(|()| reader.end()) else {
            panic!("{bytes:02x?}")
        };
        (at - 100, fault)
    }

    #[test]
    fn one_spelling_of_each_item_is_taken() {
        for (bytes, item) in [
            (&b"\x17"[..], Item::Number(23)),
            (b"\x18\x18", Item::Number(24)),
            (b"\x20", Item::Number(-1)),
            (b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", Item::Number(-(1 << 64))),
            (b"\x42\x01\x02", Item::Bytes(&[1, 2])),
            (b"\x61\xff", Item::Null),
            (b"\x62\xc3\xbc", Item::Text("\u{fc}")),
            (b"\xd9\x01\xf5", Item::Tag(501)),
            (b"\xf4", Item::Bool(false)),
            (b"\xf6", Item::Null),
            (b"\xf9\x3c\x00", Item::Other),
            (b"\x80", Item::List(0)),
        ] {
            let read = Reader::new(bytes, 0).item();
            if bytes == b"\x61\xff" {
                assert_eq!(read, Err(CorimError::Cbor { at: 0, fault: CborFault::Text }));
            } else {
                assert_eq!(read, Ok(item), "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn each_way_not_to_be_taken_is_named_by_its_place() {
        for (bytes, at, expected) in [
            (&b""[..], 0, CborFault::Truncated),
            (b"\x82\x01", 0, CborFault::Truncated),
            (b"\x82\x01\x43\x00", 2, CborFault::Truncated),
            (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", 0, CborFault::Truncated),
            (b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x00", 0, CborFault::Truncated),
            (b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff\x00", 0, CborFault::Truncated),
            (b"\x1c", 0, CborFault::Reserved),
            (b"\x9f\x01\xff", 0, CborFault::Indefinite),
            (b"\xbf\xff", 0, CborFault::Indefinite),
            (b"\x5f\x41\x00\xff", 0, CborFault::Indefinite),
            (b"\x7f\x61a\xff", 0, CborFault::Indefinite),
            (b"\x81\xff", 1, CborFault::Indefinite),
            (b"\x18\x17", 0, CborFault::NotShortest),
            (b"\x38\x00", 0, CborFault::NotShortest),
            (b"\x81\x19\x00\xff", 1, CborFault::NotShortest),
            (b"\x58\x01\x00", 0, CborFault::NotShortest),
            (b"\x78\x01a", 0, CborFault::NotShortest),
            (b"\x98\x01\x00", 0, CborFault::NotShortest),
            (b"\xb8\x01\x00\x00", 0, CborFault::NotShortest),
            (b"\xd8\x12\x00", 0, CborFault::NotShortest),
            (b"\xa2\x01\x00\x01\x00", 3, CborFault::KeyTwice),
            (b"\xa2\x81\x01\x00\x81\x01\x00", 4, CborFault::KeyTwice),
            (b"\x01\x01", 1, CborFault::Trailing),
            (b"\x81\x61\xff", 1, CborFault::Text),
            (b"\x81\x81\x81\x81\x81\x81\x81\x81\x81\x00", 8, CborFault::TooDeep),
        ] {
            assert_eq!(fault(bytes), (at, expected), "{bytes:02x?}");
        }
        let many: Vec<u8> = [0xb8, 65].into_iter().chain((0..65).flat_map(|key| [0x18, key, 0])).collect();
        let refused = Reader::new(&many, 0).map("a map", |reader, _| reader.skip());
        assert_eq!(refused, Err(CorimError::Cbor { at: 0, fault: CborFault::TooMany }));
        let mut twice = Reader::new(b"\xa2\x61a\x00\x61a\x00", 0);
        let refused = twice.map("a map", |reader, _| reader.skip());
        assert_eq!(refused, Err(CorimError::Cbor { at: 4, fault: CborFault::KeyTwice }));
    }
}
