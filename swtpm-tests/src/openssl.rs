//! The `openssl` command, an independent party that reads what we write and writes what we read.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder in which `openssl` runs.
#[derive(Debug)]
pub struct Openssl {
    folder: TempDir,
}

impl Default for Openssl {
    fn default() -> Self {
        Self::new()
    }
}

impl Openssl {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// The path of a file in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("a file in the temporary folder");
    }

    /// Reads a text file of the folder.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a text file in the temporary folder")
    }

    /// Runs a command line, split at spaces; returns what it printed to both outputs.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn run(&self, arguments: &str) -> String {
        match self.attempt(arguments) {
            Ok(text) => text,
            Err(text) => panic!("openssl {arguments}: {text}"),
        }
    }

    /// As [`Self::run`]; a failure is an answer.
    pub fn attempt(&self, arguments: &str) -> Result<String, String> {
        let output = self.output(arguments.split(' '), self.folder.path());
        let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    fn output(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, folder: &Path) -> Output {
        Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl, from Debian")
    }
}
