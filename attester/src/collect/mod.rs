//! The logs that go along with a quote: what the firmware and the kernel wrote down of what they measured.
//!
//! - [`boot_log`]: the boot event log, sent once per boot
//! - [`ima`]: the IMA list, of which only what is new is sent
//!
//! They are read *after* the quote was made: the kernel only appends, so that what the quote covers is in them. Neither is
//! trusted by anybody: the verifier replays them and compares with what the TPM signed.

pub mod boot_log;
pub mod ima;

use std::io;
use std::path::{Path, PathBuf};

use rootbound_common::wire::v1::{BootLogPart, ImaPart, LogsAsked};
use serde::Deserialize;

use ima::Reader;

/// Section `[collect]`: where the kernel shows its logs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectConfig {
    /// The boot event log, in binary.
    pub boot_log: PathBuf,
    /// The IMA list, in binary, with SHA-1 template digests.
    pub ima: PathBuf,
    /// How many entries the IMA list has.
    pub ima_count: PathBuf,
    /// So many new entries are a reason to attest before the time; 0: they are none.
    pub attest_on_ima_growth: u64,
}

impl Default for CollectConfig {
    fn default() -> Self {
        Self {
            boot_log: PathBuf::from("/sys/kernel/security/tpm0/binary_bios_measurements"),
            ima: PathBuf::from("/sys/kernel/security/ima/binary_runtime_measurements"),
            ima_count: PathBuf::from("/sys/kernel/security/ima/runtime_measurements_count"),
            attest_on_ima_growth: 64,
        }
    }
}

/// Why a log cannot be sent. That the kernel has none is no error: the verifier is told.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is longer than the protocol takes.
    #[error("{} is over the limit of {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// It is no IMA list.
    #[error("{}: entry {entry} is no entry of an IMA list", path.display())]
    NotAList {
        /// The file.
        path: PathBuf,
        /// The number of the entry, from 0.
        entry: u64,
    },
    /// Reading was cut short.
    #[error("reading the logs was cut short")]
    Interrupted,
}

impl CollectError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}

/// What goes along with a quote.
#[derive(Debug, Default)]
pub struct Collected {
    /// The boot event log, where the verifier does not have it.
    pub boot_log: Option<BootLogPart>,
    /// The next entries of the IMA list.
    pub ima: Option<ImaPart>,
}

/// Reads the logs; knows from one time to the next how far it has come.
#[derive(Debug)]
pub struct Logs {
    config: CollectConfig,
    reader: Option<Reader>,
}

impl Logs {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(config: CollectConfig) -> Self {
        let reader = Some(Reader::new(config.ima.clone()));
        Self { config, reader }
    }

    /// Reads what the verifier asks for and does not have, for a quote with this resetCount: of another boot than the
    /// quote's it has nothing.
    pub async fn collect(&mut self, asked: &LogsAsked, reset_count: u32) -> Result<Collected, CollectError> {
        let known = asked.known.filter(|known| known.reset_count == reset_count);
        let boot_log = (asked.boot_log && !known.is_some_and(|known| known.boot_log))
            .then(|| self.config.boot_log.clone());
        let entries = asked.ima.then(|| known.map_or(0, |known| known.ima_entries));
        if boot_log.is_none() && entries.is_none() {
            return Ok(Collected::default());
        }
        // Where the last reading was cut short, the position is forgotten with it.
        let mut reader = self.reader.take().unwrap_or_else(|| Reader::new(self.config.ima.clone()));
        let reading = tokio::task::spawn_blocking(move || {
            let boot_log = boot_log.map(|path| boot_log::read(&path)).transpose();
            let ima = entries.map(|from| reader.read(from, reset_count)).transpose();
            (boot_log, ima, reader)
        });
        let (boot_log, ima, reader) = reading.await.map_err(|_| CollectError::Interrupted)?;
        self.reader = Some(reader);
        Ok(Collected { boot_log: boot_log?, ima: ima? })
    }
}
