//! Sets of every kind, and the deny list: what an operator can say to the running daemon about them.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use rootbound_common::crypto::{NotADigest, TaggedDigest};
use rootbound_compute::values::BootValues;

use super::exchange::{Export, Import};
use super::files::{self, FileError};
use super::verbs::{Reason, versioned};
use crate::flows::sets::{SetDiff, WhichSet};
use crate::http::admin::message::{Command, Words};
use crate::http::admin::sets::{SetCommand, Values};
use crate::node::Name;
use crate::reference::{DeniedAs, SetKind};

/// What sort of values a set has.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    /// PCR values
    Pcrs,
    /// Values of boots, for the boot rules of profiles
    Boot,
    /// Digests of files, for the run-time rules of profiles
    Digests,
}

impl From<Kind> for SetKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Pcrs => Self::Pcrs,
            Kind::Boot => Self::Boot,
            Kind::Digests => Self::Digests,
        }
    }
}

/// Which kind, where the name or the file does not say it.
#[derive(Debug, Args)]
pub(super) struct OfKind {
    /// The kind of the set, where its name or the file leaves it open
    #[arg(long, value_enum)]
    kind: Option<Kind>,
}

impl OfKind {
    pub(super) fn which(&self, (name, version): (Name, Option<u32>)) -> WhichSet {
        WhichSet { kind: self.kind.map(Into::into), name, version }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum SetVerb {
    /// Show a version of a set
    Show {
        /// NAME or NAME@VERSION
        #[arg(value_parser = versioned)]
        set: (Name, Option<u32>),
        #[command(flatten)]
        kind: OfKind,
    },
    /// List every version of every set
    List,
    /// Write the next version of a set from a file
    Set {
        /// The set
        name: Name,
        /// PCR values as TOML or JSON, `{"sha256": {"7": ["<hex>", ...]}}`; values of boots as JSON, `{"bank": ..., "values":
        /// [...]}`; or lines of digests; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        kind: OfKind,
        #[command(flatten)]
        reason: Reason,
    },
    /// Withdraw a set: its values are accepted no longer
    #[command(visible_alias = "withdraw")]
    Remove {
        /// The set
        name: Name,
        /// Only the update that is staged: the same as `unstage`
        #[arg(long)]
        staged: bool,
        #[command(flatten)]
        kind: OfKind,
        #[command(flatten)]
        reason: Reason,
    },
    /// Accept an update beside what a set accepts now, until it is promoted or taken back
    Stage {
        /// NAME, or NAME@VERSION to do it only while this version is current
        #[arg(value_parser = versioned)]
        set: (Name, Option<u32>),
        /// What is new, as for `set`
        file: PathBuf,
        #[command(flatten)]
        kind: OfKind,
        #[command(flatten)]
        reason: Reason,
    },
    /// End an update: from now on only what was new is accepted
    Promote {
        /// NAME, or NAME@VERSION to do it only while this version is current
        #[arg(value_parser = versioned)]
        set: (Name, Option<u32>),
        #[command(flatten)]
        kind: OfKind,
        #[command(flatten)]
        reason: Reason,
    },
    /// Take an update back: what was accepted before it is accepted again, and nothing else
    Unstage {
        /// NAME, or NAME@VERSION to do it only while this version is current
        #[arg(value_parser = versioned)]
        set: (Name, Option<u32>),
        #[command(flatten)]
        kind: OfKind,
        #[command(flatten)]
        reason: Reason,
    },
    /// Show what two versions do not share
    Diff {
        /// NAME or NAME@VERSION
        #[arg(value_parser = versioned)]
        from: (Name, Option<u32>),
        /// NAME or NAME@VERSION
        #[arg(value_parser = versioned)]
        to: (Name, Option<u32>),
        /// At most so many differences
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        kind: OfKind,
    },
    /// Write what either of two versions has as the next version of a set
    Merge {
        /// NAME or NAME@VERSION
        #[arg(value_parser = versioned)]
        one: (Name, Option<u32>),
        /// NAME or NAME@VERSION
        #[arg(value_parser = versioned)]
        other: (Name, Option<u32>),
        /// The set
        #[arg(long, value_name = "NAME")]
        into: Name,
        #[command(flatten)]
        kind: OfKind,
        #[command(flatten)]
        reason: Reason,
    },
    /// The deny list: what no set and no profile makes acceptable, on any node
    #[command(subcommand)]
    Deny(DenyVerb),
    /// Write sets into a file, for another verifier
    Export(Export),
    /// Write what a file has as the next versions of its sets, all of them or none
    Import(Import),
}

#[derive(Debug, Subcommand)]
pub(super) enum DenyVerb {
    /// Deny digests, at once and everywhere
    Add {
        /// A digest, `sha256:<hex>`; or a file with one on each line, or with values of boots as JSON; `-` is standard input
        what: String,
        /// Not the digests themselves, but a dbx without these images
        #[arg(long, conflicts_with = "dbx_certificate")]
        dbx_image: bool,
        /// Not the digests themselves, but a dbx without these certificates
        #[arg(long)]
        dbx_certificate: bool,
        /// What they are, in a few words: a CVE, say
        #[arg(long)]
        label: Words,
        /// Why, for the record
        #[arg(long)]
        reason: Words,
    },
    /// List what is denied
    List {
        /// By this version of the list
        #[arg(long)]
        version: Option<u32>,
    },
    /// Deny digests no longer
    Remove {
        /// The digests
        #[arg(required = true, value_parser = tagged)]
        digests: Vec<TaggedDigest>,
        #[command(flatten)]
        reason: Reason,
    },
}

impl SetVerb {
    /// As the daemon takes it; and what becomes of what is exported.
    pub(super) fn said(self) -> Result<(Command, Option<Export>), FileError> {
        match self {
            Self::Export(export) => Ok((export.command(), Some(export))),
            verb => Ok((verb.command()?, None)),
        }
    }

    fn command(self) -> Result<Command, FileError> {
        Ok(Command::Sets(match self {
            Self::Show { set, kind } => SetCommand::Show { set: kind.which(set) },
            Self::List => SetCommand::List,
            Self::Set { name, file, kind, reason } => {
                SetCommand::Put { name, values: read(&file, kind.kind)?, reason: reason.reason }
            }
            Self::Remove { name, staged, kind, reason } => {
                let (set, reason) = (kind.which((name, None)), reason.reason);
                if staged {
                    SetCommand::Unstage { set, reason }
                } else {
                    SetCommand::Withdraw { set, reason }
                }
            }
            Self::Stage { set: (name, over), file, kind, reason } => {
                SetCommand::Stage { name, over, values: read(&file, kind.kind)?, reason: reason.reason }
            }
            Self::Promote { set, kind, reason } => {
                SetCommand::Promote { set: kind.which(set), reason: reason.reason }
            }
            Self::Unstage { set, kind, reason } => {
                SetCommand::Unstage { set: kind.which(set), reason: reason.reason }
            }
            Self::Diff { from, to, limit, kind } => SetCommand::Diff {
                from: kind.which(from),
                to: kind.which(to),
                limit: limit.min(SetDiff::MAX),
            },
            Self::Merge { one, other, into, kind, reason } => SetCommand::Merge {
                one: kind.which(one),
                other: kind.which(other),
                into,
                reason: reason.reason,
            },
            Self::Deny(verb) => verb.command()?,
            Self::Export(export) => return Ok(export.command()),
            Self::Import(import) => return import.command(),
        }))
    }
}

impl DenyVerb {
    fn command(self) -> Result<SetCommand, FileError> {
        Ok(match self {
            Self::Add { what, dbx_image, dbx_certificate, label, reason } => {
                let denied = match (dbx_image, dbx_certificate) {
                    (true, _) => DeniedAs::DbxImage,
                    (_, true) => DeniedAs::DbxCertificate,
                    (false, false) => DeniedAs::Digest,
                };
                let digests = match tagged(&what) {
                    Ok(digest) => vec![digest],
                    Err(_) => read_digests(Path::new(&what))?,
                };
                let digests = digests.into_iter().map(|digest| (denied, digest)).collect();
                SetCommand::Deny { digests, label, reason }
            }
            Self::List { version } => SetCommand::Denied { version },
            Self::Remove { digests, reason } => SetCommand::Undeny { digests, reason: reason.reason },
        })
    }
}

fn tagged(text: &str) -> Result<TaggedDigest, String> {
    text.parse().map_err(|error: NotADigest| error.to_string())
}

/// The values of a file: of the kind that is said, or else of the one that it looks like.
fn read(path: &Path, kind: Option<Kind>) -> Result<Values, FileError> {
    let text = files::read_whole(path)?;
    let kind = kind.unwrap_or_else(|| looks_like(&text));
    Ok(match kind {
        Kind::Pcrs => Values::Pcrs(files::parse_bytes(path, &text)?),
        Kind::Boot => Values::Boot(files::parse_bytes(path, &text)?),
        Kind::Digests => Values::Digests(files::packed(path, &text)?),
    })
}

/// Lines that begin with a digest, or JSON or TOML with or without a key `values`: the word may be in a path.
fn looks_like(text: &[u8]) -> Kind {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first =
        lines.into_iter().find(|line| !line.is_empty() && !line.starts_with(b"#")).unwrap_or_default();
    let digests = [&b"sha1:"[..], b"sha256:", b"sha384:", b"sha512:", b"verity:"];
    if digests.iter().any(|prefix| first.starts_with(prefix)) {
        return Kind::Digests;
    }
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    let values: [&[u8]; 4] = [b"\"values\"", b"[[values]]", b"values =", b"values="];
    if values.iter().any(|key| has(key)) && has(b"bank") { Kind::Boot } else { Kind::Pcrs }
}

/// Digests of lines, whatever follows them; or those of values of boots.
fn read_digests(path: &Path) -> Result<Vec<TaggedDigest>, FileError> {
    let text = files::read_whole(path)?;
    if matches!(looks_like(&text), Kind::Boot) {
        use rootbound_compute::values::Measured;
        let values: BootValues = files::parse_bytes(path, &text)?;
        let digests = values.values.iter().filter_map(|value| match &value.measured {
            Measured::BootApplication { digest }
            | Measured::Driver { digest }
            | Measured::Initrd { digest }
            | Measured::Event { digest, .. }
            | Measured::FirmwareBlob { digest } => Some(*digest),
            Measured::CommandLine { .. } | Measured::FirmwareVersion { .. } => None,
        });
        return Ok(digests.collect());
    }
    let mut digests = Vec::new();
    for (number, line) in (1..).zip(String::from_utf8_lossy(&text).lines()) {
        let Some(word) = line.split_whitespace().next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        let word = word.strip_prefix("verity:").unwrap_or(word);
        digests
            .push(tagged(word).map_err(|error| files::malformed(path, format!("line {number}: {error}")))?);
    }
    if digests.is_empty() {
        return Err(files::malformed(path, "there is no digest in it".to_owned()));
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_shows_what_sort_of_values_it_has() {
        let hex = "ab".repeat(32);
        let kinds = [
            (format!("# a remark\n\nsha256:{hex}  /bin/sh\n"), SetKind::Digests),
            (format!("verity:sha256:{hex}  *\n"), SetKind::Digests),
            (format!(r#"{{"sha256": {{"7": ["{hex}"]}}}}"#), SetKind::Pcrs),
            (format!("# a remark\n[sha256]\n7 = [\"{hex}\"]\n"), SetKind::Pcrs),
            (
                format!(r#"{{"sha256":{{"7":[{{"value":"{hex}","source":{{"file":"/bank/values"}}}}]}}}}"#),
                SetKind::Pcrs,
            ),
            (r#"{"bank":"sha256","values":[]}"#.to_owned(), SetKind::Boot),
            ("bank = \"sha256\"\n[[values]]\n".to_owned(), SetKind::Boot),
        ];
        for (text, kind) in kinds {
            assert_eq!(SetKind::from(looks_like(text.as_bytes())), kind, "{text}");
        }
    }

    #[test]
    fn digests_to_deny_are_read_from_lines_and_from_values_of_boots() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("denied");
        let hex = "ab".repeat(32);
        let digest = tagged(&format!("sha256:{hex}")).unwrap();
        let values = format!(
            r#"{{"bank":"sha256","values":[{{"measured":{{"kind":"boot_application","digest":"sha256:{hex}"}}}},
            {{"measured":{{"kind":"command_line","text":"quiet"}}}}]}}"#
        );
        for text in [format!("# CVE\nsha256:{hex}  /bin/sh\n"), format!("verity:sha256:{hex}\n"), values] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(read_digests(&path).unwrap(), [digest], "{text}");
        }
        for bad in ["# nothing\n", "sha256:ab\n", "\u{7f}ELF"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(read_digests(&path), Err(FileError::Malformed { .. })), "{bad}");
        }
    }
}
