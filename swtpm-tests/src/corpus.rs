//! Evidence of real machines: a folder that the environment variable `EVIDENCE_CORPUS` names.
//!
//! It is no part of this repository. Where the variable is unset, [`Corpus::open`] gives nothing and says so in one line
//! on the standard error, past the test runner that would swallow it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};
use serde_json::Value;

/// The corpus, with its index.
#[derive(Debug)]
pub struct Corpus {
    root: PathBuf,
    index: Vec<Value>,
}

/// An artefact: a folder with files.
#[derive(Debug)]
pub struct Artefact {
    folder: PathBuf,
    /// Relative to the corpus.
    pub name: String,
    /// What independent tools said of it.
    pub expected: Value,
    /// Changes to it, and what must become of each.
    pub mutations: Vec<Value>,
}

impl Corpus {
    /// The corpus; or nothing, and a line that says so, where there is none.
    ///
    /// # Panics
    /// Where the variable names something that is no corpus.
    #[must_use]
    pub fn open(test: &str) -> Option<Self> {
        let corpus = Self::find();
        if corpus.is_none() {
            // Not `eprintln!`, which the test runner captures.
            writeln!(std::io::stderr(), "skipped: {test}: EVIDENCE_CORPUS is not set")
                .expect("standard error");
        }
        corpus
    }

    /// The corpus, where there is one.
    ///
    /// # Panics
    /// Where the variable names something that is no corpus.
    #[must_use]
    pub fn find() -> Option<Self> {
        let root = std::env::var_os("EVIDENCE_CORPUS").map(PathBuf::from)?;
        let index = std::fs::read(root.join("INDEX.json")).expect("the corpus has an INDEX.json");
        let index = serde_json::from_slice(&index).expect("INDEX.json is a list");
        Some(Self { root, index })
    }

    /// The artefacts of one kind.
    #[must_use]
    pub fn artefacts(&self, kind: &str) -> Vec<Artefact> {
        let text = |entry: &Value| entry["file"].as_str().expect("an artefact has a file").to_owned();
        self.index
            .iter()
            .filter(|entry| entry["kind"] == kind)
            .map(|entry| Artefact {
                folder: self.root.join(text(entry)),
                name: text(entry),
                expected: entry["expected"].clone(),
                mutations: entry["mutations"].as_array().cloned().unwrap_or_default(),
            })
            .collect()
    }

    /// Boots of virtual machines, by name; `expected` is their `meta.json`.
    #[must_use]
    pub fn boots(&self) -> Vec<Artefact> {
        let mut boots: Vec<_> = subfolders(&self.root.join("vm"))
            .into_iter()
            .map(|folder| {
                let meta = std::fs::read(folder.join("meta.json")).expect("a boot has a meta.json");
                Artefact {
                    name: format!("vm/{}", folder.file_name().unwrap_or_default().display()),
                    expected: serde_json::from_slice(&meta).expect("meta.json is JSON"),
                    mutations: Vec::new(),
                    folder,
                }
            })
            .collect();
        boots.sort_by(|a, b| a.name.cmp(&b.name));
        boots
    }
}

impl Artefact {
    /// The content of a file.
    ///
    /// # Panics
    /// Where it is missing.
    #[must_use]
    pub fn read(&self, file: &str) -> Vec<u8> {
        self.find(file).unwrap_or_else(|| panic!("{} has no {file}", self.name))
    }

    /// The content of a file, where there is one.
    #[must_use]
    pub fn find(&self, file: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.join(file)).ok()
    }

    /// The values of `pcrs.json`, where there is one: `{bank: {index: hex}}`.
    ///
    /// # Panics
    /// Where it states what is no PCR.
    #[must_use]
    pub fn pcr_values(&self) -> Option<PcrValues> {
        let stated: BTreeMap<HashAlgorithm, BTreeMap<String, String>> =
            serde_json::from_slice(&self.find("pcrs.json")?).expect("pcrs.json");
        let mut values = PcrValues::default();
        for (bank, stated) in stated {
            for (index, hex) in stated {
                let index = index.parse().ok().and_then(PcrIndex::new).expect("a PCR number");
                let value = Digest::from_hex(bank, &hex.to_ascii_lowercase()).expect("a PCR value");
                values.insert(index, value);
            }
        }
        Some(values)
    }
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
