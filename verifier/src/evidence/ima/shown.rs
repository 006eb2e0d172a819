//! Peer-supplied text, fit for people.

use std::fmt;

use rootbound_common::text::only_shows;
use serde::{Deserialize, Serialize};

/// Bytes out of a list as people may see them: UTF-8 where they are, all that does not only show escaped, bounded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Shown(String);

impl Shown {
    /// Characters that are shown: most paths, and no line that fills a screen.
    pub const MAX: usize = 200;

    /// Makes bytes safe to show.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        // Four bytes a character at the most: what lies behind is never looked at.
        let cut = bytes.get(..4 * (Self::MAX + 1)).unwrap_or(bytes);
        Self::made_safe(&String::from_utf8_lossy(cut))
    }

    fn made_safe(text: &str) -> Self {
        let mut shown = String::new();
        for (position, character) in text.chars().enumerate() {
            if position >= Self::MAX {
                shown.push('…');
                break;
            }
            if only_shows(character) && character != '`' {
                shown.push(character);
            } else {
                shown.extend(character.escape_unicode());
            }
        }
        Self(shown)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A stored text is made safe again: a changed row shows nothing that an entry could not.
impl From<String> for Shown {
    fn from(text: String) -> Self {
        let stored = text.len() <= 12 * (Self::MAX + 1) && text.chars().all(only_shows);
        if stored { Self(text) } else { Self::made_safe(&text) }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_wrote_neither_moves_nor_hides_anything() {
        assert_eq!(Shown::of("/usr/bin/é".as_bytes()).as_str(), "/usr/bin/é");
        assert_eq!(Shown::of(b"/a\n\x1b[31m`").as_str(), "/a\\u{a}\\u{1b}[31m\\u{60}");
        assert_eq!(Shown::of(b"/\xff").as_str(), "/\u{fffd}");
        assert_eq!(Shown::of(&[b'a'; 9000]).as_str().chars().count(), Shown::MAX + 1);
        let stored: Shown = serde_json::from_str("\"a\\u202eb\"").unwrap();
        assert_eq!(stored.as_str(), "a\\u{202e}b");
    }
}
