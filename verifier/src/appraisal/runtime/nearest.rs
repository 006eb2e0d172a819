//! What digest sets have of files that are in none: the same path under another digest, the same digest at another path.

use std::collections::HashMap;

use crate::evidence::ima::Shown;

/// Files to look for, by path and digest as deviations show them.
#[derive(Debug, Default)]
pub struct Wanted {
    files: usize,
    paths: HashMap<String, Vec<usize>>,
    digests: HashMap<String, Vec<usize>>,
}

/// What a line of a set has in common with a file that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likeness {
    /// Both: the set accepts the file.
    Same,
    /// The digest, at another path.
    Digest,
    /// The path, with another digest.
    Path,
}

/// A line of a set that is like a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearFile {
    /// How.
    pub likeness: Likeness,
    /// The path of the line, or `*`.
    pub path: String,
    /// The digest of the line.
    pub digest: String,
    /// Where the set has it from, as a comment before the line says.
    pub source: Option<String>,
}

/// Begins a comment that says where the lines after it are from, up to the next such comment: `# source: package NAME
/// VERSION`, or other words.
pub const SOURCE: &str = "# source:";

impl Wanted {
    /// Looks for one more; returns its number.
    pub fn add(&mut self, path: &str, digest: &str) -> usize {
        let number = self.files;
        self.files += 1;
        self.paths.entry(path.to_owned()).or_default().push(number);
        self.digests.entry(digest.to_owned()).or_default().push(number);
        number
    }

    /// Goes through the text of a digest set, and gives each line that is like a file that is wanted, with its number.
    pub fn search(&self, text: &[u8], mut found: impl FnMut(usize, NearFile)) {
        let mut source: Option<&[u8]> = None;
        for line in text.split(|byte| *byte == b'\n') {
            if let Some(words) = line.strip_prefix(SOURCE.as_bytes()) {
                source = Some(words.trim_ascii()).filter(|words| !words.is_empty());
                continue;
            }
            if matches!(line.first(), None | Some(b'#')) {
                continue;
            }
            // `DigestSet` has read it: a digest, two spaces, a path.
            let Some(digest) = line.split(|byte| *byte == b' ').next() else { continue };
            let path = line.get(digest.len().saturating_add(2)..).unwrap_or_default();
            let Ok(digest) = std::str::from_utf8(digest) else { continue };
            let path = shown(path);
            let by_path = self.paths.get(&*path).map(Vec::as_slice).unwrap_or_default();
            let by_digest = self.digests.get(digest).map(Vec::as_slice).unwrap_or_default();
            let near = |likeness| NearFile {
                likeness,
                path: path.clone().into_owned(),
                digest: digest.to_owned(),
                source: source.map(|source| Shown::of(source).as_str().to_owned()),
            };
            for number in by_digest {
                let same = path == "*" || by_path.contains(number);
                found(*number, near(if same { Likeness::Same } else { Likeness::Digest }));
            }
            for number in by_path.iter().filter(|number| !by_digest.contains(number)) {
                found(*number, near(Likeness::Path));
            }
        }
    }
}

/// A path as a deviation shows it; the kernel writes a space as `_`.
fn shown(path: &[u8]) -> std::borrow::Cow<'_, str> {
    let plain = path.len() <= Shown::MAX && path.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'`');
    match std::str::from_utf8(path) {
        Ok(text) if plain => text.into(),
        _ => {
            let path: Vec<_> = path.iter().map(|byte| if *byte == b' ' { b'_' } else { *byte }).collect();
            Shown::of(&path).as_str().to_owned().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn search(wanted: &Wanted, text: &str) -> Vec<(usize, Likeness, String, Option<String>)> {
        let mut found = Vec::new();
        wanted.search(text.as_bytes(), |number, near| {
            found.push((number, near.likeness, near.path, near.source));
        });
        found
    }

    #[test]
    fn same_path_and_same_digest_are_found_with_the_source_of_the_line() {
        let mut wanted = Wanted::default();
        let (ls, my_cat) = (wanted.add("/bin/ls", &digest('1')), wanted.add("/opt/my_cat", &digest('2')));
        let text = [
            format!("{}  /bin/ls\n", digest('3')),
            "# source: package coreutils 9.1-1\n".to_owned(),
            format!("{}  /bin/ls\n", digest('4')),
            "# another remark\n".to_owned(),
            format!("{}  /bin/cat\n", digest('2')),
            "# source:\n".to_owned(),
            format!("{}  /opt/my cat\n", digest('2')),
            format!("{}  *\n", digest('1')),
            format!("{}  /bin/other\n", digest('9')),
        ]
        .concat();
        let package = Some("package coreutils 9.1-1".to_owned());
        assert_eq!(
            search(&wanted, &text),
            [
                (ls, Likeness::Path, "/bin/ls".to_owned(), None),
                (ls, Likeness::Path, "/bin/ls".to_owned(), package.clone()),
                (my_cat, Likeness::Digest, "/bin/cat".to_owned(), package),
                (my_cat, Likeness::Same, "/opt/my_cat".to_owned(), None),
                (ls, Likeness::Same, "*".to_owned(), None),
            ]
        );
    }

    #[test]
    fn what_a_comment_says_is_made_safe_and_lines_of_another_form_are_passed_over() {
        let mut wanted = Wanted::default();
        wanted.add("/bin/ls", &digest('1'));
        let text = format!("# source: a\u{1b}[31m`b`\n{}  /bin/ls\nsha256\n\u{ff}\n \n", digest('2'));
        let found = search(&wanted, &text);
        assert_eq!(found.len(), 1);
        let source = found[0].3.clone().unwrap();
        assert!(!source.contains('\u{1b}') && !source.contains('`'), "{source}");
    }
}
