//! The corpus of real evidence, for tests: a folder that the environment variable `EVIDENCE_CORPUS` names.
//!
//! For a test file: `mod corpus;`, and its kind of artefact by [`Corpus::entries`].
//!
//! It is no part of this repository. Where the variable is unset, a test calls [`Corpus::open`], gets nothing, says so
//! in one line that the test runner does not swallow, and passes. `grep -c 'skipped: '` counts those.

use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

/// The corpus, with its index.
pub(crate) struct Corpus {
    pub(crate) root: PathBuf,
    index: Vec<Value>,
}

/// An artefact of the index.
pub(crate) struct Entry {
    /// A file, or a folder with files, relative to the corpus.
    pub(crate) file: String,
    /// What independent tools said of it.
    pub(crate) expected: Value,
}

impl Corpus {
    /// The corpus; or nothing, and a line on the standard error, where there is none.
    ///
    /// # Panics
    /// Where the variable names something that is no corpus.
    pub(crate) fn open(test: &str) -> Option<Self> {
        let Some(root) = std::env::var_os("EVIDENCE_CORPUS").map(PathBuf::from) else {
            // Not `eprintln!`, which the test runner captures.
            let line = format!("skipped: {test}: EVIDENCE_CORPUS is not set\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return None;
        };
        let index = std::fs::read(root.join("INDEX.json")).expect("the corpus has an INDEX.json");
        let index = serde_json::from_slice(&index).expect("INDEX.json is a list");
        Some(Self { root, index })
    }

    /// All artefacts of one kind.
    pub(crate) fn entries(&self, kind: &str) -> Vec<Entry> {
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        self.index
            .iter()
            .filter(|entry| entry["kind"] == kind)
            .map(|entry| Entry { file: text(entry, "file"), expected: entry["expected"].clone() })
            .collect()
    }

    /// The content of a file, by its path relative to the corpus; of `name` in it, where the path is a folder.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub(crate) fn read(&self, file: &str, name: &str) -> Vec<u8> {
        let path = self.root.join(file);
        let path = if path.is_dir() { path.join(name) } else { path };
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
