//! Rules over paths, anchored at the root.

use std::collections::{BTreeSet, HashSet};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A path, or a folder with all below it: `/usr/bin/env`, `/var/cache/`.
///
/// A rule is matched by whole components. It never matches a path that is not plain: relative (a base name is what the
/// kernel has where a file is in no mount that it sees), with `.` or `..`, of a deleted file, of a memfd.
///
/// A path is what the process that was measured called the file, within its own mount namespace: a container's `/tmp` is
/// `/tmp`, too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathRule(String);

/// A text is no path rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path rule is an absolute path of at most {} bytes without `.`, `..`, `//` and controls; it ends in `/` for all below",
    PathRule::MAX
)]
pub struct NotAPathRule;

impl PathRule {
    /// PATH_MAX of Linux.
    pub const MAX: usize = 4096;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathRule {
    type Err = NotAPathRule;

    fn from_str(text: &str) -> Result<Self, NotAPathRule> {
        // The kernel writes `_` for a space.
        let text = text.replace(' ', "_");
        let path = text.strip_suffix('/').unwrap_or(&text);
        // All below the root would be no rule.
        if text.len() <= Self::MAX && !text.chars().any(char::is_control) && is_plain(path.as_bytes()) {
            Ok(Self(text))
        } else {
            Err(NotAPathRule)
        }
    }
}

impl TryFrom<String> for PathRule {
    type Error = NotAPathRule;

    fn try_from(text: String) -> Result<Self, NotAPathRule> {
        text.parse()
    }
}

impl From<PathRule> for String {
    fn from(rule: PathRule) -> Self {
        rule.0
    }
}

/// Path rules, found by hash: a path asks for itself and for those of its folders that are as long as some rule, so that
/// most paths ask for nothing.
#[derive(Debug, Default)]
pub(super) struct PathRules {
    rules: HashSet<Box<[u8]>>,
    /// Lengths of the rules, each once.
    lengths: Vec<usize>,
}

impl PathRules {
    pub(super) fn new(rules: &[PathRule]) -> Self {
        let lengths: BTreeSet<usize> = rules.iter().map(|rule| rule.0.len()).collect();
        Self {
            rules: rules.iter().map(|rule| rule.0.as_bytes().into()).collect(),
            lengths: lengths.into_iter().collect(),
        }
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        let is_rule = |length: &usize| {
            path.get(..*length).is_some_and(|front| {
                (front.len() == path.len() || front.ends_with(b"/")) && self.rules.contains(front)
            })
        };
        self.lengths.iter().any(is_rule) && is_plain(path)
    }
}

/// Whether a path is absolute and names a file where it stands.
fn is_plain(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/") else { return false };
    let gone = path.ends_with(b" (deleted)") || path.ends_with(b"_(deleted)");
    let odd = |component: &[u8]| matches!(component, b"" | b"." | b"..");
    !gone
        && !rest.starts_with(b"memfd:")
        && path.len() <= PathRule::MAX
        && !rest.split(|byte| *byte == b'/').any(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(rules: &[&str], path: &str) -> bool {
        let rules: Vec<PathRule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        PathRules::new(&rules).matches(path.as_bytes())
    }

    #[test]
    fn a_folder_covers_what_is_below_it_and_nothing_that_begins_alike() {
        for (path, expected) in [
            ("/tmp/x", true),
            ("/tmp/a/b/c", true),
            ("/tmpfoo", false),
            ("/tmp", false),
            ("/tmp/", false),
            ("/var/tmp/x", false),
            ("/tmp/../usr/bin/evil", false),
            ("/tmp/./x", false),
            ("/tmp//x", false),
            ("tmp/x", false),
            ("x", false),
            ("/tmp/x (deleted)", false),
            ("/tmp/x_(deleted)", false),
            ("/memfd:x", false),
            ("memfd:x", false),
        ] {
            assert_eq!(matches(&["/tmp/"], path), expected, "{path}");
        }
    }

    #[test]
    fn a_path_covers_itself_alone() {
        assert!(matches(&["/usr/bin/a b"], "/usr/bin/a_b"));
        for path in ["/usr/bin/a_b/c", "/usr/bin/a_bc", "/x/usr/bin/a_b"] {
            assert!(!matches(&["/usr/bin/a b"], path), "{path}");
        }
    }

    #[test]
    fn a_rule_that_is_not_anchored_is_refused() {
        for text in
            ["", "/", "//", "tmp/", "*", "/tmp/../", "/tmp/./x", "/a//b", "/a\nb", "/memfd:x", "/x (deleted)"]
        {
            assert_eq!(text.parse::<PathRule>(), Err(NotAPathRule), "{text:?}");
        }
        assert!(format!("/{}", "a".repeat(PathRule::MAX)).parse::<PathRule>().is_err());
    }
}
