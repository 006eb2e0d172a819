//! A look at a Cedar text before it is parsed: Cedar's parser and its trees are recursive, and what is nested deeply
//! enough would take the stack.

/// Brackets and `if`s inside each other. People nest five.
const MAX_NESTING: usize = 24;
/// Operators of one policy or declaration: a chain of them is a tree as deep as it is long.
const MAX_OPERATORS: usize = 400;

/// What there is too much of, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooComplex {
    pub(super) line: usize,
    pub(super) what: &'static str,
}

/// What a text is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// Policies, in which `<` compares.
    Policies,
    /// A schema, in which `<` is a bracket, and operators make no tree.
    Schema,
}

/// Counts brackets and operators between top-level semicolons; strings and comments hold neither.
pub(super) fn scan(text: &str, kind: Text) -> Result<(), TooComplex> {
    let (mut line, mut open, mut ifs, mut operators) = (1_usize, 0_usize, 0_usize, 0_usize);
    let mut rest = text.chars().peekable();
    let mut word = String::new();
    while let Some(c) = rest.next() {
        if c.is_ascii_alphanumeric() || c == '_' {
            if word.len() < 8 {
                word.push(c);
            }
            continue;
        }
        match word.as_str() {
            "if" => ifs = ifs.saturating_add(1),
            "has" | "like" | "in" | "is" => operators = operators.saturating_add(1),
            _ => {}
        }
        word.clear();
        match c {
            '"' => {
                let mut escaped = false;
                for c in rest.by_ref() {
                    line = line.saturating_add(usize::from(c == '\n'));
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
            ';' if open == 0 => (ifs, operators) = (0, 0),
            '.' | '&' | '|' | '+' | '-' | '*' | '!' | '=' | '<' | '>' => {
                operators = operators.saturating_add(1);
            }
            _ => {}
        }
        if open.saturating_add(ifs) > MAX_NESTING {
            return Err(TooComplex { line, what: "brackets and `if`s are nested more than 24 deep" });
        }
        if kind == Text::Policies && operators > MAX_OPERATORS {
            return Err(TooComplex { line, what: "there are more than 400 operators in one policy" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_or_chained_too_long_is_found_on_its_line() {
        let policies = |text: &str| scan(text, Text::Policies);
        let nested =
            |depth: usize| format!("permit(\n) when {{ {}1{} }};", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(policies(&nested(MAX_NESTING - 1)), Ok(()));
        assert_eq!(policies(&nested(MAX_NESTING)).map_err(|found| found.line), Err(2));
        let ifs = format!("permit() when {{ {} }};", "if a then b else ".repeat(30));
        assert!(policies(&ifs).is_err());
        let chain = |count: usize| format!("permit() when {{ 1{} }};", " + 1".repeat(count));
        assert_eq!(policies(&chain(MAX_OPERATORS)), Ok(()));
        assert_eq!(policies(&chain(MAX_OPERATORS).repeat(3)), Ok(()), "each policy by itself");
        assert!(policies(&chain(MAX_OPERATORS + 1)).is_err());
        assert!(
            scan(&format!("type T = {}Long{};", "Set<".repeat(30), ">".repeat(30)), Text::Schema).is_err()
        );
        assert_eq!(policies(&"permit() when { 1 < 2 };".repeat(100)), Ok(()), "a comparison opens nothing");
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
