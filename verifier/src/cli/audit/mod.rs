//! `audit`: the audit trail, verified, exported, watched and archived.
//!
//! The daemon gives pages; what has to be believed is worked out here, from what the pages say.

mod source;
mod text;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;

pub(super) use self::source::SourceError;
use self::source::{Daemon, Files};
use super::{Exit, Output, show};
use crate::audit::export::{Cursor, checkpoint_line, key_line, line};
use crate::audit::verify::Walk;
use crate::audit::{Checkpoint, Head, Outcome, PublicKey, RecordKind, Segment};
use crate::http::admin::message::{Command, Reply, Words};
use crate::store::RecordFilter;

/// Why the trail was not dealt with.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuditError {
    /// Where it comes from.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file that is to be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
    /// The record of the cursor is not in the trail any more, or never was.
    #[error(
        "record {sequence} of the cursor is not in this trail: it was archived, or the cursor is of another"
    )]
    Cursor {
        /// Its number.
        sequence: u64,
    },
    /// A record that is to be exported is none.
    #[error("record {sequence} cannot be exported, the trail was changed: {why}; `audit verify` says where")]
    Damaged {
        /// Its number.
        sequence: u64,
        /// Why.
        why: String,
    },
    /// What was written as an archive does not verify.
    #[error("{} does not verify, and nothing was taken away: {why}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The first damage.
        why: String,
    },
}

impl AuditError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Source(error) => error.exit(),
            Self::Write { .. } | Self::Output(_) => Exit::Failed,
            Self::Cursor { .. } => Exit::Refused,
            Self::Damaged { .. } | Self::Archive { .. } => Exit::TrailDamaged,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Check that nothing in the trail was changed, dropped, reordered or put there; exit code 10 where something was
    Verify(Verify),
    /// Print records as JSON lines with OCSF fields, the first first; each can be verified by itself
    Export(Export),
    /// Show the latest records
    Tail(Tail),
    /// Write old records to a file, verify it, and take them out of the trail, which stays verifiable
    Archive(Archive),
    /// Sign the trail as far as it goes; keep what this prints elsewhere, for `verify --checkpoint`
    Checkpoint,
}

/// Of what, and by what.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Exported or archived files in order, instead of the running daemon's trail
    files: Vec<PathBuf>,
    /// A public key (PEM) that may have signed checkpoints, instead of those that come with the trail; may be repeated
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// A checkpoint that you kept, as `audit checkpoint --output json` prints it: the trail has to contain it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

/// From where on.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// Only records after this one: `chain.cursor` of the last line that you have
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    /// Leave out the lines of checkpoints and keys
    #[arg(long)]
    only_records: bool,
}

/// Which, and how many.
#[derive(Debug, Args)]
pub(super) struct Tail {
    /// How many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(Command::MAX_PAGE)))]
    number: u32,
    /// Only of this node
    #[arg(long)]
    node: Option<NodeId>,
    /// Only of this kind; may be repeated
    #[arg(long, value_parser = kind)]
    kind: Vec<RecordKind>,
    /// Only with this outcome
    #[arg(long, value_parser = outcome)]
    outcome: Option<Outcome>,
    /// Go on showing records as they come
    #[arg(short, long)]
    follow: bool,
}

/// What, and to where.
#[derive(Debug, Args)]
pub(super) struct Archive {
    /// Records before this time, as whole segments: 2026-01-31, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "DATE", value_parser = date)]
    before: Timestamp,
    /// The new file
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: Words,
}

/// How often it is looked for new records.
const FOLLOW: Duration = Duration::from_secs(1);

impl Audit {
    /// Whether the daemon is asked at all.
    pub(super) fn needs_daemon(&self) -> bool {
        !matches!(self, Self::Verify(verify) if !verify.files.is_empty())
    }

    /// Does it. `socket` is that of the daemon.
    pub(super) fn run(self, socket: &Path, output: Output) -> Result<Exit, AuditError> {
        match self {
            Self::Verify(verify) => verify.run(socket, output),
            Self::Export(export) => export.run(&Daemon::at(socket)?),
            Self::Tail(tail) => tail.run(&Daemon::at(socket)?, output),
            Self::Archive(archive) => archive.run(&Daemon::at(socket)?, output),
            Self::Checkpoint => {
                let Reply::AuditCheckpoint(detail) = Daemon::at(socket)?.ask(&Command::AuditCheckpoint)?
                else {
                    return Err(SourceError::OtherAnswer.into());
                };
                show(&Reply::AuditCheckpoint(detail), output)?;
                Ok(Exit::Done)
            }
        }
    }
}

impl Verify {
    fn run(&self, socket: &Path, output: Output) -> Result<Exit, AuditError> {
        let known = self.checkpoint.as_deref().map(source::read_checkpoint).transpose()?;
        let mut given = self.key.iter().map(|path| source::read_key(path)).collect::<Result<Vec<_>, _>>()?;
        let pinned = !given.is_empty();
        let verification = if self.files.is_empty() {
            let daemon = Daemon::at(socket)?;
            let (mut checkpoints, keys) = daemon.checkpoints()?;
            if !pinned {
                given = keys;
            }
            loop {
                let mut walk = begin(&given, known.as_ref(), &checkpoints);
                daemon.segments(1, |segment| {
                    walk.segment(&segment);
                    Ok::<_, SourceError>(true)
                })?;
                let verification = walk.end();
                let (now, _) = daemon.checkpoints()?;
                let anchor = |checkpoints: &[Checkpoint]| checkpoints.last().map(|last| last.anchor);
                // What was archived while we read is missing from what we read, and from nothing else.
                if verification.is_whole() || anchor(&now) == anchor(&checkpoints) {
                    break verification;
                }
                checkpoints = now;
            }
        } else {
            let files = Files::new(&self.files);
            let (checkpoints, keys) = files.checkpoints()?;
            if !pinned {
                given = keys;
            }
            files.walk(begin(&given, known.as_ref(), &checkpoints))?
        };
        let exit = if verification.is_whole() { Exit::Done } else { Exit::TrailDamaged };
        show(&text::Verified { verification, pinned, known: known.is_some() }, output)?;
        Ok(exit)
    }
}

fn begin<'a>(keys: &'a [PublicKey], known: Option<&'a Checkpoint>, checkpoints: &[Checkpoint]) -> Walk<'a> {
    let mut walk = Walk::new(keys, known);
    checkpoints.iter().for_each(|checkpoint| walk.checkpoint(checkpoint));
    walk
}

/// The exported lines of a segment, from a record on.
fn lines(segment: &Segment, from: u64) -> Result<Vec<String>, AuditError> {
    let mut before = Some(segment.previous);
    let mut exported = Vec::new();
    let mut links = segment.links.iter();
    for (sequence, kept) in (segment.first..).zip(segment.lines()) {
        let damaged = |why: String| AuditError::Damaged { sequence, why };
        let previous = before.ok_or_else(|| damaged("there is no hash for it".to_owned()))?;
        if sequence >= from {
            exported.push(line(kept, previous).map_err(|error| damaged(error.to_string()))?);
        }
        before = links.next().copied();
        if before != Some(previous.then(kept)) {
            return Err(damaged("it does not come to its hash".to_owned()));
        }
    }
    Ok(exported)
}

impl Export {
    fn run(&self, daemon: &Daemon) -> Result<Exit, AuditError> {
        let mut stdout = BufWriter::new(std::io::stdout().lock());
        let (checkpoints, keys) = daemon.checkpoints()?;
        if !self.only_records {
            for key in &keys {
                writeln!(stdout, "{}", key_line(key))?;
            }
        }
        let from = self.after.as_ref().map_or(1, |after| after.sequence.saturating_add(1));
        // Also one of exactly the last record that was exported: it may have been made since.
        let due = checkpoints.iter().filter(|checkpoint| checkpoint.head.sequence.saturating_add(1) >= from);
        let mut due = due.peekable();
        if let Some(cursor) = self.after.as_ref().filter(|cursor| cursor.sequence > 0) {
            daemon.check_cursor(cursor)?;
        }
        daemon.segments(from, |segment| {
            for line in lines(&segment, from)? {
                writeln!(stdout, "{line}")?;
            }
            let covered = |checkpoint: &&Checkpoint| checkpoint.head.sequence <= segment.head().sequence;
            while let Some(checkpoint) = due.next_if(covered).filter(|_| !self.only_records) {
                writeln!(stdout, "{}", checkpoint_line(checkpoint))?;
            }
            Ok::<_, AuditError>(true)
        })?;
        stdout.flush()?;
        Ok(Exit::Done)
    }
}

impl Tail {
    fn run(self, daemon: &Daemon, output: Output) -> Result<Exit, AuditError> {
        let filter = RecordFilter { node: self.node, kinds: self.kind, outcome: self.outcome };
        let mut found = Vec::new();
        let mut before = None;
        loop {
            let limit = self.number.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            let ask = Command::AuditRecords { filter: filter.clone(), before, limit };
            let Reply::AuditRecords(page) = daemon.ask(&ask)? else {
                return Err(SourceError::OtherAnswer.into());
            };
            found.extend(page.records);
            before = page.before;
            let enough = usize::try_from(self.number).unwrap_or(usize::MAX);
            if before.is_none() || found.len() >= enough {
                break;
            }
        }
        found.reverse();
        let mut stdout = std::io::stdout().lock();
        let mut next = found.last().map_or(1, |last| last.sequence.saturating_add(1));
        for record in &found {
            stdout.write_all(text::record(record, output).as_bytes())?;
        }
        stdout.flush()?;
        if !self.follow {
            return Ok(Exit::Done);
        }
        // Until somebody ends the program, or the daemon or standard output is gone.
        loop {
            std::thread::sleep(FOLLOW);
            daemon.segments(next, |segment| {
                for record in segment.records().flatten().filter(|record| record.sequence >= next) {
                    if filter.wants(&record.record) {
                        stdout.write_all(text::record(&record, output).as_bytes())?;
                    }
                }
                next = segment.head().sequence.saturating_add(1);
                Ok::<_, AuditError>(true)
            })?;
            stdout.flush()?;
        }
    }
}

impl Archive {
    /// Nothing is taken away before the file is on disk and verifies.
    fn run(self, daemon: &Daemon, output: Output) -> Result<Exit, AuditError> {
        let Reply::AuditSealed(sealed) = daemon.ask(&Command::AuditSeal { before: self.before })? else {
            return Err(SourceError::OtherAnswer.into());
        };
        let Some(sealed) = sealed else {
            show(&text::Archived { end: None, segments: 0, to: self.to }, output)?;
            return Ok(Exit::Done);
        };
        let end = sealed.head;
        let (checkpoints, keys) = daemon.checkpoints()?;
        self.write(daemon, end, &checkpoints, &keys)?;
        let files = std::slice::from_ref(&self.to);
        let verification = Files::new(files).walk(begin(&keys, Some(&sealed), &of(&checkpoints, end)))?;
        if let Some(damage) = verification.damages.first() {
            return Err(AuditError::Archive { path: self.to, why: damage.to_string() });
        }
        let forget = Command::AuditForget { end, reason: self.reason };
        let Reply::AuditForgotten(segments) = daemon.ask(&forget)? else {
            return Err(SourceError::OtherAnswer.into());
        };
        show(&text::Archived { end: Some(end), segments, to: self.to }, output)?;
        Ok(Exit::Done)
    }

    fn write(
        &self,
        daemon: &Daemon,
        end: Head,
        checkpoints: &[Checkpoint],
        keys: &[PublicKey],
    ) -> Result<(), AuditError> {
        let failed = |source| AuditError::Write { path: self.to.clone(), source };
        let file = File::options().write(true).create_new(true).mode(0o600).open(&self.to).map_err(failed)?;
        let mut file = BufWriter::new(file);
        for line in keys.iter().map(key_line).chain(of(checkpoints, end).iter().map(checkpoint_line)) {
            writeln!(file, "{line}").map_err(failed)?;
        }
        daemon.segments(1, |segment| {
            if segment.head().sequence > end.sequence {
                return Ok(false);
            }
            for line in lines(&segment, 1)? {
                writeln!(file, "{line}").map_err(failed)?;
            }
            Ok::<_, AuditError>(true)
        })?;
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        let folder =
            self.to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

/// The checkpoints of an archive: those that it goes as far as.
fn of(checkpoints: &[Checkpoint], end: Head) -> Vec<Checkpoint> {
    checkpoints.iter().filter(|checkpoint| checkpoint.head.sequence <= end.sequence).cloned().collect()
}

fn kind(text: &str) -> Result<RecordKind, String> {
    RecordKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let all = RecordKind::ALL.map(RecordKind::as_str).join(", ");
        format!("one of {all}")
    })
}

fn outcome(text: &str) -> Result<Outcome, String> {
    Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or_else(|| {
        let all = Outcome::ALL.map(Outcome::as_str).join(", ");
        format!("one of {all}")
    })
}

fn date(text: &str) -> Result<Timestamp, String> {
    let whole = if text.len() == "2026-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime_serde::re::humantime::parse_rfc3339(&whole).map_err(|error| error.to_string())?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?;
    i64::try_from(since.as_millis()).map(Timestamp::from_millis).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line_are_parsed() {
        assert_eq!(date("2026-01-31").unwrap().to_string(), "2026-01-31T00:00:00Z");
        assert_eq!(date("2026-01-31T12:30:00Z").unwrap().to_string(), "2026-01-31T12:30:00Z");
        assert!(date("yesterday").is_err() && date("1960-01-01").is_err() && date("2026-02-30").is_err());
        assert_eq!(kind("posture_change"), Ok(RecordKind::PostureChange));
        assert_eq!(outcome("refused"), Ok(Outcome::Refused));
        assert!(kind("posture").is_err() && outcome("no").unwrap_err().contains("granted, refused"));
    }
}
