//! Text that only shows.

/// Whether a character does nothing but show: it does not move, colour, reorder or hide what stands around it, in a log
/// or on a terminal.
///
/// Refused are controls (C0, DEL, C1), line and paragraph separators, and what Unicode has for directions, joining and
/// tagging without a width of its own: soft hyphen, marks, embeddings, overrides, isolates, byte order mark, tags.
#[must_use]
pub const fn only_shows(character: char) -> bool {
    !matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_invisible_characters_do_not_only_show() {
        for c in ['a', ' ', '~', 'é', 'ß', 'я', 'א', 'م', '中', '\u{a0}', '😀'] {
            assert!(only_shows(c), "{c:?}");
        }
        for c in (0..=0x1f).chain(0x7f..=0x9f).filter_map(char::from_u32) {
            assert!(c.is_control() && !only_shows(c), "{c:?}");
        }
        for c in
            ['\u{200b}', '\u{200e}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{feff}', '\u{e0041}', '\u{61c}']
        {
            assert!(!only_shows(c), "{c:?}");
        }
    }
}
