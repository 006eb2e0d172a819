//! A look at a Cedar text before it is parsed: what is nested deeply enough would take any stack.

use super::bundle::Bundle;

/// Brackets and `if`s inside each other. People nest five; Cedar's parser takes some 60 KB for each, in a debug build.
const MAX_NESTING: usize = 24;

/// What there is too much of, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Brackets in brackets, on this line.
    Nesting(usize),
    /// Bytes of one policy.
    Length(usize),
}

/// What a text is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// Policies, in which `<` compares.
    Policies,
    /// A schema, in which `<` is a bracket.
    Schema,
}

/// Counts brackets, and bytes from one semicolon to the next: no policy has one inside. Strings and comments hold neither.
pub(super) fn scan(text: &str, kind: Text) -> Result<(), Refused> {
    let (mut line, mut open, mut ifs, mut length) = (1_usize, 0_usize, 0_usize, 0_usize);
    let mut rest = text.chars().peekable();
    let mut word = String::new();
    while let Some(c) = rest.next() {
        length = length.saturating_add(c.len_utf8());
        if c.is_ascii_alphanumeric() || c == '_' {
            if word.len() < 8 {
                word.push(c);
            }
            continue;
        }
        ifs = ifs.saturating_add(usize::from(word == "if"));
        word.clear();
        match c {
            '"' => {
                let mut escaped = false;
                for c in rest.by_ref() {
                    line = line.saturating_add(usize::from(c == '\n'));
                    length = length.saturating_add(c.len_utf8());
                    match c {
                        _ if escaped => escaped = false,
                        '\\' => escaped = true,
                        '"' => break,
                        _ => {}
                    }
                }
            }
            // To the end of the line, of which Cedar has two.
            '/' if rest.peek() == Some(&'/') => {
                while rest.next_if(|c| !matches!(c, '\n' | '\r')).is_some() {}
            }
            '\n' => line = line.saturating_add(1),
            '(' | '[' | '{' => open = open.saturating_add(1),
            ')' | ']' | '}' => open = open.saturating_sub(1),
            '<' if kind == Text::Schema => open = open.saturating_add(1),
            '>' if kind == Text::Schema => open = open.saturating_sub(1),
            ';' => (ifs, length) = (0, 0),
            _ => {}
        }
        if open.saturating_add(ifs) > MAX_NESTING {
            return Err(Refused::Nesting(line));
        }
        if kind == Text::Policies && length > Bundle::MAX_POLICY {
            return Err(Refused::Length(length));
        }
    }
    if kind == Text::Policies && length > Bundle::MAX_POLICY { Err(Refused::Length(length)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_too_deeply_is_found_on_its_line() {
        let policies = |text: &str| scan(text, Text::Policies);
        let nested =
            |depth: usize| format!("permit(\n) when {{ {}1{} }};", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(policies(&nested(MAX_NESTING - 1)), Ok(()));
        assert_eq!(policies(&nested(MAX_NESTING)), Err(Refused::Nesting(2)));
        let ifs = |count: usize| format!("permit() when {{ {} }};", "if a then b else ".repeat(count));
        assert_eq!(policies(&ifs(MAX_NESTING - 1).repeat(2)), Ok(()), "each policy by itself");
        assert_eq!(policies(&ifs(MAX_NESTING)), Err(Refused::Nesting(1)));
        let sets = |depth: usize| format!("type T = {}Long{};", "Set<".repeat(depth), ">".repeat(depth));
        assert_eq!(scan(&sets(MAX_NESTING), Text::Schema), Ok(()));
        assert_eq!(scan(&sets(MAX_NESTING + 1), Text::Schema), Err(Refused::Nesting(1)));
        assert_eq!(policies(&"permit() when { 1 < 2 };".repeat(100)), Ok(()), "a comparison opens nothing");
    }

    #[test]
    fn each_policy_has_its_length() {
        let policies = |text: &str| scan(text, Text::Policies);
        let long = |length: usize| format!("{};", "x ".repeat(length / 2));
        assert_eq!(policies(&long(Bundle::MAX_POLICY - 2).repeat(5)), Ok(()));
        assert!(matches!(policies(&long(Bundle::MAX_POLICY + 2)), Err(Refused::Length(_))));
        assert!(matches!(policies(&"x".repeat(Bundle::MAX_POLICY + 1)), Err(Refused::Length(_))));
        let text = format!("\"{}\";", ";".repeat(Bundle::MAX_POLICY));
        assert!(matches!(policies(&text), Err(Refused::Length(_))), "a semicolon in a string ends nothing");
        assert_eq!(policies(&format!("//{}\n", "x".repeat(1 << 16))), Ok(()), "a comment");
    }

    #[test]
    fn strings_and_comments_hide_brackets_and_nothing_else() {
        let policies = |text: &str| scan(text, Text::Policies);
        let deep = "(".repeat(100);
        assert_eq!(policies(&format!("permit() when {{ \"{deep}\\\"{deep}\" }}; // {deep}")), Ok(()));
        assert!(policies(&format!("permit() when {{ \"\\\\\" {deep} }};")).is_err(), "an escaped backslash");
        assert!(policies(&format!("// comment\r{deep}")).is_err(), "a comment ends with its line");
    }
}
