//! The files that the command line names, or those of a bundle. Each is bounded.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};
use rootbound_compute::values::Source;

use super::super::files::{self, FileError};
use super::story::KnownTexts;
use crate::appraisal::runtime::DigestSet;
use crate::evidence::boot_log::{MAX_LOGS, ParsedBootLog};
use crate::flows::offline::{Expectation, Parts};
use crate::http::admin::sets::DenyListDetail;
use crate::node::Name;
use crate::reference::{
    AcceptedPcrs, BootSet, BootSetVersion, DenyError, DenyList, DigestSetVersion, Profile, ProfileBody,
    ProfileError, Provenance, ReferenceBook, ReferenceError, ReferenceSet, References, Versioned,
};

/// Evidence in files. Whatever is missing is reported as missing.
#[derive(Debug, Args)]
pub(crate) struct Appraise {
    /// A folder with quote.msg, quote.sig, ak.pub (or ak.pem, ak.spki.der), nonce.bin, pcrs.json, eventlog.bin, ima.bin
    /// (or ima.log, ima.ascii) and cmdline, as far as they are there; a file that is named beside goes before its own
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// The quote: TPMS_ATTEST
    #[arg(long, value_name = "FILE")]
    quote: Option<PathBuf>,
    /// Its signature: TPMT_SIGNATURE, or bare as PKCS#1 v1.5 or DER ECDSA over SHA-256
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// The AK: TPM2B_PUBLIC or TPMT_PUBLIC; or a SubjectPublicKeyInfo in PEM or DER, which never affirms
    #[arg(long, value_name = "FILE")]
    ak: Option<PathBuf>,
    /// The nonce that the quote should be over, as bytes
    #[arg(long, value_name = "FILE")]
    nonce: Option<PathBuf>,
    /// PCR values, as JSON: {"sha256": {"0": "<hex>", …}, …}
    #[arg(long, value_name = "FILE")]
    pcrs: Option<PathBuf>,
    /// The boot event log (binary_bios_measurements, WBCL); of several the last counts
    #[arg(long = "boot-log", value_name = "FILE")]
    boot_log: Vec<PathBuf>,
    /// The IMA list: binary_runtime_measurements, or ascii_runtime_measurements
    #[arg(long, value_name = "FILE")]
    ima: Option<PathBuf>,
    /// The kernel's command line, to recognise it where the log has only its digest
    #[arg(long = "command-line", value_name = "FILE")]
    command_line: Option<PathBuf>,
    /// What is expected: a profile, as `profile set` takes it
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// A reference set, as `reference set` takes it; without a name it is the first that the profile names
    #[arg(long = "reference", value_name = "[NAME=]FILE", requires = "profile")]
    references: Vec<String>,
    /// A boot set, as `reference set` takes it
    #[arg(long = "boot-set", value_name = "NAME=FILE", requires = "profile")]
    boot_sets: Vec<String>,
    /// A digest set, as `digests set` takes it
    #[arg(long = "digests", value_name = "NAME=FILE", requires = "profile")]
    digests: Vec<String>,
    /// The deny list, as `--output json reference deny list` prints it; without it nothing is denied but by the profile
    #[arg(long, value_name = "FILE", requires = "profile")]
    deny: Option<PathBuf>,
    /// Show every event of the boot log; JSON always has them
    #[arg(long)]
    pub(super) events: bool,
}

/// Why nothing was examined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppraiseError {
    /// No evidence was named.
    #[error("nothing to look at: name a --bundle, or at least one of --quote, --pcrs, --boot-log, --ima")]
    NothingGiven,
    /// The folder has none of the files.
    #[error("{} has none of the files of a bundle", path.display())]
    EmptyBundle {
        /// The folder.
        path: PathBuf,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The profile.
    #[error("--profile: {0}")]
    Profile(#[from] ProfileError),
    /// A reference set.
    #[error("--reference: {0}")]
    Reference(#[from] ReferenceError),
    /// The deny list.
    #[error("--deny: {0}")]
    Deny(#[from] DenyError),
    /// A set has no name.
    #[error("--{option}: {why}")]
    Name {
        /// The option.
        option: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// Bytes of a quote, a signature, a key or a nonce: far more than any.
const SMALL: usize = 64 << 10;
/// Bytes of PCR values: four banks of 24 values have some 12 KB.
const PCRS: usize = 1 << 20;

/// What the files hold.
pub(super) struct Input {
    pub(super) parts: Parts,
    command_line: Option<Vec<u8>>,
    ima: Option<PathBuf>,
}

impl Appraise {
    /// Reads the evidence.
    pub(super) fn input(&self) -> Result<Input, AppraiseError> {
        let find = |named: &Option<PathBuf>, names: &[&str]| {
            let in_bundle = || {
                let folder = self.bundle.as_deref()?;
                names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
            };
            named.clone().or_else(in_bundle)
        };
        let read = |path: Option<PathBuf>, max| path.map(|path| files::read_bytes(&path, max)).transpose();
        let ima = find(&self.ima, &["ima.bin", "ima.log", "ima.ascii"]);
        let pcrs = find(&self.pcrs, &["pcrs.json"]);
        let mut parts = Parts {
            quote: read(find(&self.quote, &["quote.msg"]), SMALL)?,
            signature: read(find(&self.signature, &["quote.sig"]), SMALL)?,
            key: read(find(&self.ak, &["ak.pub", "ak.pem", "ak.spki.der"]), SMALL)?,
            nonce: read(find(&self.nonce, &["nonce.bin"]), SMALL)?,
            pcrs: pcrs.map(|path| read_pcrs(&path)).transpose()?,
            boot_logs: Vec::new(),
            ima: None,
        };
        for path in self.boot_logs() {
            // One byte more, so that the parser says what is too long.
            parts.boot_logs.push(files::read_bytes(&path, ParsedBootLog::MAX_LENGTH + 1)?);
        }
        if let Some(path) = ima.clone() {
            parts.ima = Some(Box::new(move || {
                let file: Box<dyn Read> = Box::new(std::fs::File::open(&path)?);
                Ok(file)
            }));
        }
        let nothing = parts.quote.is_none()
            && parts.pcrs.is_none()
            && parts.boot_logs.is_empty()
            && parts.ima.is_none();
        match &self.bundle {
            Some(path) if nothing => return Err(AppraiseError::EmptyBundle { path: path.clone() }),
            None if nothing => return Err(AppraiseError::NothingGiven),
            Some(_) | None => {}
        }
        let command_line = read(find(&self.command_line, &["cmdline"]), SMALL)?;
        Ok(Input { parts, command_line, ima })
    }

    /// Windows keeps a log for each resume: `eventlog.bin`, `eventlog.1.bin` and so on, the last of them current.
    fn boot_logs(&self) -> Vec<PathBuf> {
        let Some(folder) = self.bundle.as_deref().filter(|_| self.boot_log.is_empty()) else {
            return self.boot_log.clone();
        };
        let later = (1..MAX_LOGS).map(|number| format!("eventlog.{number}.bin"));
        let names = std::iter::once("eventlog.bin".to_owned()).chain(later);
        names.map(|name| folder.join(name)).take_while(|path| path.is_file()).collect()
    }

    /// Reads what is expected.
    pub(super) fn expectation(&self) -> Result<Option<Expectation>, AppraiseError> {
        let Some(path) = &self.profile else { return Ok(None) };
        let body: ProfileBody = files::read(path)?;
        let labels = body.match_labels.clone();
        let default = body.references.first().cloned().unwrap_or_else(Name::default_set);
        let sets = self.reference_sets(&default)?;
        let digests = self.digests.iter().map(|argument| digest_set(argument)).collect::<Result<_, _>>()?;
        let boot_sets = self.boot_sets.iter().map(|argument| boot_set(argument)).collect::<Result<_, _>>()?;
        let profile = Profile::new(version(Name::default_set()), body.clone(), provenance())?;
        let deny = match &self.deny {
            Some(path) => {
                let list: DenyListDetail = files::read(path)?;
                DenyList::new(list.version, list.entries)?
            }
            None => DenyList::default(),
        };
        let references = References {
            profiles: vec![profile],
            sets,
            boot_sets,
            digest_sets: digests,
            deny,
            ..References::default()
        };
        let book = ReferenceBook::of(references)?;
        book.check(&body)?;
        Ok(Some(Expectation { book, labels }))
    }

    /// Values of several files for one name are accepted together.
    fn reference_sets(&self, default: &Name) -> Result<Vec<ReferenceSet>, AppraiseError> {
        let mut values: BTreeMap<Name, Vec<(PcrIndex, Digest, Source)>> = BTreeMap::new();
        for argument in &self.references {
            let named = argument.split_once('=').and_then(|(name, file)| Some((name.parse().ok()?, file)));
            let (name, file) = named.unwrap_or_else(|| (default.clone(), argument.as_str()));
            let accepted: AcceptedPcrs = files::read(Path::new(file))?;
            let accepted = accepted.iter_with_source();
            let accepted = accepted.map(|(_, pcr, value, source)| (pcr, *value, source.clone()));
            values.entry(name).or_default().extend(accepted);
        }
        let set = |(name, values)| {
            let accepted = AcceptedPcrs::with_sources(values)?;
            Ok(ReferenceSet { id: version(name), accepted, provenance: provenance() })
        };
        values.into_iter().map(set).collect()
    }
}

/// NAME=FILE.
fn named<'a>(option: &'static str, argument: &'a str) -> Result<(Name, &'a Path), AppraiseError> {
    let wrong = |why: String| AppraiseError::Name { option, why };
    let (name, file) = argument.split_once('=').ok_or_else(|| wrong("write NAME=FILE".to_owned()))?;
    let name = name.parse().map_err(|error: crate::node::NameError| wrong(error.to_string()))?;
    Ok((name, Path::new(file)))
}

fn boot_set(argument: &str) -> Result<BootSetVersion, AppraiseError> {
    let (name, path) = named("boot-set", argument)?;
    let set = BootSet::new(files::read(path)?)
        .map_err(|error| FileError::Malformed { path: path.to_owned(), message: error.to_string() })?;
    Ok(BootSetVersion { id: version(name), set, provenance: provenance() })
}

fn digest_set(argument: &str) -> Result<DigestSetVersion, AppraiseError> {
    let (name, path) = named("digests", argument)?;
    let text = files::read_bytes(path, DigestSet::MAX_BYTES)?;
    let digests = DigestSet::parse(&text)
        .map_err(|error| FileError::Malformed { path: path.to_owned(), message: error.to_string() })?;
    Ok(DigestSetVersion { id: version(name), digests: digests.into(), provenance: provenance() })
}

/// A file has no versions.
fn version(name: Name) -> Versioned {
    Versioned { name, version: 1 }
}

fn provenance() -> Provenance {
    Provenance { author: "a file".to_owned(), reason: String::new(), created_at: Timestamp::from_millis(0) }
}

fn read_pcrs(path: &Path) -> Result<PcrValues, FileError> {
    let malformed = |message: String| FileError::Malformed { path: path.to_owned(), message };
    let bytes = files::read_bytes(path, PCRS)?;
    let banks: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let mut values = PcrValues::default();
    for (bank, stated) in banks {
        // A bank that we do not know is one that no quote that we can read selects.
        let Ok(bank) = bank.to_ascii_lowercase().parse::<HashAlgorithm>() else { continue };
        for (pcr, hex) in stated {
            let index = pcr.parse().ok().and_then(PcrIndex::new);
            let index = index.ok_or_else(|| malformed(format!("{bank}: a PCR number is 0 to 23")))?;
            let hex = hex.to_ascii_lowercase();
            let value = Digest::from_hex(bank, hex.strip_prefix("0x").unwrap_or(&hex));
            let value = value.ok_or_else(|| malformed(format!("{bank} PCR {index}: not a value in hex")))?;
            values.insert(index, value);
        }
    }
    Ok(values)
}

impl Input {
    /// Why the IMA list could not be read.
    pub(super) fn unreadable_list(&self, source: std::io::Error) -> AppraiseError {
        let path = self.ima.clone().unwrap_or_default();
        AppraiseError::File(FileError::Unreadable { path, source })
    }

    /// Texts that events may be digests of.
    pub(super) fn known_texts(&self, expectation: Option<&Expectation>) -> KnownTexts {
        let exact = expectation
            .and_then(Expectation::profile)
            .and_then(|profile| profile.boot.as_ref()?.command_line.as_ref())
            .map(|rules| rules.exact.clone())
            .unwrap_or_default();
        let line = self
            .command_line
            .as_deref()
            .map(|line| String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
        KnownTexts::new(exact.into_iter().chain(line))
    }
}
