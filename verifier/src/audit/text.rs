//! Text of a record: bounded, and nothing in it does anything but show.

use std::fmt;

use rootbound_common::text::only_shows;
use serde::{Deserialize, Deserializer, Serialize};

/// A text that a record can hold: at most `MAX` bytes as JSON writes it, each character of which only shows.
///
/// Making one never fails: what does not show becomes `U+FFFD`, and what is too long ends in `…`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Text<const MAX: usize>(String);

const ENDED: char = '…';

/// What JSON needs for a character that only shows (RFC 8259, 7).
const fn length(character: char) -> usize {
    if matches!(character, '"' | '\\') { 2 } else { character.len_utf8() }
}

impl<const MAX: usize> Text<MAX> {
    /// Makes one of any text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let shown = |c| if only_shows(c) { c } else { char::REPLACEMENT_CHARACTER };
        let mut kept = String::with_capacity(text.len().min(MAX));
        // How much of it stays where an ellipsis has to follow.
        let (mut encoded, mut stays) = (0, 0);
        for character in text.chars().map(shown) {
            encoded += length(character);
            if encoded > MAX {
                kept.truncate(stays);
                if ENDED.len_utf8() <= MAX {
                    kept.push(ENDED);
                }
                break;
            }
            kept.push(character);
            if encoded + ENDED.len_utf8() <= MAX {
                stays = kept.len();
            }
        }
        Self(kept)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const MAX: usize> From<&str> for Text<MAX> {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<const MAX: usize> From<String> for Text<MAX> {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

/// Out of a stored record: refused where making one of it would change it.
impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let kept = Self::new(&text);
        if kept.0 == text {
            Ok(kept)
        } else {
            Err(serde::de::Error::custom(format_args!("a text of more than {MAX} bytes, or one that hides")))
        }
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_to_what_json_makes_of_it() {
        for (text, kept) in [
            ("", ""),
            ("12345678", "12345678"),
            ("123456789", "12345…"),
            ("\"\"\"\"", "\"\"\"\""),
            ("\"\"\"\"\"", "\"\"…"),
            ("\\\\\\\\a", "\\\\…"),
            ("ééééé", "éé…"),
            ("a\nb", "a\u{fffd}b"),
            ("\u{202e}x", "\u{fffd}x"),
        ] {
            let made = Text::<8>::new(text);
            assert_eq!(made.as_str(), kept);
            assert!(serde_json::to_string(&made).unwrap().len() <= 8 + 2, "{text:?}");
            assert_eq!(Text::<8>::new(made.as_str()), made, "a second time changes nothing");
        }
    }

    #[test]
    fn stored_text_that_no_record_holds_is_refused() {
        let parse = serde_json::from_str::<Text<8>>;
        assert_eq!(parse(r#""12345678""#).unwrap().as_str(), "12345678");
        for bad in [r#""123456789""#, r#""a\nb""#, r#""\"\"\"\"\"""#, "7"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
