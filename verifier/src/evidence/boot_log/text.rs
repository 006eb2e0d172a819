//! Texts out of a log: decoded strictly, shown without what could mislead.

use rootbound_common::text::only_shows;

/// Characters of one text in a description or a deviation: some lines of a terminal.
pub(crate) const SHOWN: usize = 240;

/// A text for people: what does not only show is written as an escape, and what is over [`SHOWN`] characters is cut.
#[must_use]
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (position, character) in text.chars().enumerate() {
        if position >= SHOWN {
            out.push('…');
            break;
        }
        match character {
            '`' => out.push('\''),
            character if only_shows(character) => out.push(character),
            character => out.extend(character.escape_unicode()),
        }
    }
    out
}

/// Little-endian UTF-16, without its terminator where it has one. Nothing where it is not well-formed.
#[must_use]
pub(crate) fn utf16(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let units = units.strip_suffix(&[[0, 0]]).unwrap_or(units);
    char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit))).collect::<Result<_, _>>().ok()
}

/// UTF-8, without its terminator where it has one. Nothing where it is not well-formed.
#[must_use]
pub(crate) fn utf8(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
}

/// A text with its terminator, in little-endian UTF-16.
#[must_use]
pub(crate) fn to_utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// UTF-8 or UTF-16 of printable characters, whichever the bytes are; nothing where they are neither.
#[must_use]
pub(crate) fn readable(bytes: &[u8]) -> Option<String> {
    let fit =
        |text: &str| !text.is_empty() && text.chars().all(|c| only_shows(c) || matches!(c, '\n' | '\t'));
    if let Some(text) = utf8(bytes).filter(|text| fit(text)) {
        return Some(text.to_owned());
    }
    utf16(bytes).filter(|text| fit(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack 57.
    #[test]
    fn what_moves_the_cursor_or_hides_is_escaped_and_long_texts_are_cut() {
        assert_eq!(shown("a\u{1b}[2J\n\u{202e}`b`"), "a\\u{1b}[2J\\u{a}\\u{202e}'b'");
        assert_eq!(shown(&"x".repeat(1 << 20)).chars().count(), SHOWN + 1);
    }

    /// Attack 57.
    #[test]
    fn malformed_texts_are_none() {
        assert_eq!(utf16(&[0x41, 0, 0x42, 0, 0, 0]), Some("AB".into()));
        assert_eq!(utf16(&[0x00, 0xd8]), None, "half a surrogate pair");
        assert_eq!(utf16(&[0x41]), None, "half a unit");
        assert_eq!(utf8(b"\xc3\x28"), None);
        assert_eq!(utf16(&to_utf16("größe 😀")), Some("größe 😀".into()));
        assert_eq!(readable(&to_utf16("N40")), Some("N40".into()));
        assert_eq!(readable(&[0, 0]), None);
    }
}
