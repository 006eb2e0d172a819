//! Where a trail comes from: the running daemon, in pages, or files.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::super::client::{ClientError, ask};
use super::super::{Exit, files};
use super::AuditError;
use crate::audit::export::{Cursor, Exported, LONGEST, parse};
use crate::audit::verify::{Verification, Walk};
use crate::audit::{Checkpoint, Head, PublicKey, Segment};
use crate::http::admin::message::{CheckpointDetail, Command, Reply};

/// Why a trail cannot be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum SourceError {
    /// The conversation with the daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file that an operator names.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// No runtime.
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    /// It answered another question.
    #[error("the daemon answers something else: is it of another version?")]
    OtherAnswer,
}

impl SourceError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::File(_) => Exit::Usage,
            Self::Start(_) | Self::OtherAnswer => Exit::Failed,
        }
    }
}

/// The running daemon.
#[derive(Debug)]
pub(super) struct Daemon<'a> {
    socket: &'a Path,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Daemon<'a> {
    /// That which listens on a socket.
    pub(super) fn at(socket: &'a Path) -> Result<Self, SourceError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { socket, runtime: runtime.map_err(SourceError::Start)? })
    }

    /// Says one thing.
    pub(super) fn ask(&self, command: &Command) -> Result<Reply, SourceError> {
        Ok(self.runtime.block_on(ask(self.socket, command))?)
    }

    /// Every segment from that of a record on, until `each` says no.
    pub(super) fn segments<E: From<SourceError>>(
        &self,
        from: u64,
        mut each: impl FnMut(Segment) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut from = from;
        loop {
            let Reply::AuditSegments(page) = self.ask(&Command::AuditSegments { from })? else {
                return Err(SourceError::OtherAnswer.into());
            };
            if page.is_empty() {
                return Ok(());
            }
            for segment in page {
                let segment = Segment::from(segment);
                // A damaged one may say that it ends before it begins.
                from = from.max(segment.first).max(segment.head().sequence).saturating_add(1);
                if !each(segment)? {
                    return Ok(());
                }
            }
        }
    }

    /// Every checkpoint and key.
    pub(super) fn checkpoints(&self) -> Result<(Vec<Checkpoint>, Vec<PublicKey>), SourceError> {
        let mut checkpoints = Vec::new();
        loop {
            let skip = u64::try_from(checkpoints.len()).unwrap_or(u64::MAX);
            let Reply::AuditCheckpoints(page) = self.ask(&Command::AuditCheckpoints { skip })? else {
                return Err(SourceError::OtherAnswer);
            };
            if page.checkpoints.is_empty() {
                return Ok((checkpoints, page.keys));
            }
            checkpoints.extend(page.checkpoints);
        }
    }

    /// That the record of a cursor is in the trail, or just before its beginning.
    pub(super) fn check_cursor(&self, cursor: &Cursor) -> Result<(), AuditError> {
        let sequence = cursor.sequence;
        let Reply::AuditSegments(page) = self.ask(&Command::AuditSegments { from: sequence })? else {
            return Err(SourceError::OtherAnswer.into());
        };
        let here = page.into_iter().next().map(Segment::from).and_then(|segment| {
            let before = sequence.checked_add(1) == Some(segment.first);
            let index = usize::try_from(sequence.checked_sub(segment.first)?);
            if before { Some(segment.previous) } else { segment.links.get(index.ok()?).copied() }
        });
        match here {
            Some(hash) if cursor.is_of(Head { sequence, hash }) => Ok(()),
            Some(_) | None => Err(AuditError::Cursor { sequence }),
        }
    }
}

/// Exported or archived files, in order.
#[derive(Debug)]
pub(super) struct Files<'a> {
    paths: &'a [PathBuf],
}

impl<'a> Files<'a> {
    /// These.
    pub(super) const fn new(paths: &'a [PathBuf]) -> Self {
        Self { paths }
    }

    /// Each line with its number; one that is too long is cut, and is then no line of an export.
    fn each(&self, mut each: impl FnMut(u64, &str)) -> Result<(), SourceError> {
        for path in self.paths {
            let unreadable = |source| files::FileError::Unreadable { path: path.clone(), source };
            let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
            let mut number = 0;
            loop {
                let mut line = Vec::new();
                let most = u64::try_from(LONGEST).unwrap_or(u64::MAX).saturating_add(2);
                let read = file.by_ref().take(most).read_until(b'\n', &mut line).map_err(unreadable)?;
                if read == 0 {
                    break;
                }
                number += 1;
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                // What is no text is no line of an export, and stays none.
                each(number, std::str::from_utf8(line).unwrap_or("\u{fffd}"));
            }
        }
        Ok(())
    }

    /// Every checkpoint and key.
    pub(super) fn checkpoints(&self) -> Result<(Vec<Checkpoint>, Vec<PublicKey>), SourceError> {
        let (mut checkpoints, mut keys) = (Vec::new(), Vec::new());
        self.each(|_, line| match parse(line) {
            Ok(Exported::Checkpoint(checkpoint)) => checkpoints.push(checkpoint),
            Ok(Exported::Key(key)) if !keys.contains(&key) => keys.push(key),
            // Records are for the walk, and so is what is wrong.
            Ok(Exported::Key(_) | Exported::Record(_)) | Err(_) => {}
        })?;
        Ok((checkpoints, keys))
    }

    /// Every record, and what is none.
    pub(super) fn walk(&self, mut walk: Walk<'_>) -> Result<Verification, SourceError> {
        self.each(|number, line| match parse(line) {
            Ok(Exported::Record(segment)) => walk.segment(&segment),
            Ok(Exported::Checkpoint(_) | Exported::Key(_)) => {}
            Err(error) => walk.line(number, error.to_string()),
        })?;
        Ok(walk.end())
    }
}

/// A checkpoint that was kept, with or without its key.
pub(super) fn read_checkpoint(path: &Path) -> Result<Checkpoint, SourceError> {
    let kept: Result<CheckpointDetail, _> = files::read(path);
    match kept {
        Ok(kept) => Ok(kept.checkpoint),
        Err(_) => Ok(files::read(path)?),
    }
}

/// A public key in PEM.
pub(super) fn read_key(path: &Path) -> Result<PublicKey, SourceError> {
    /// A PEM key has under 200 bytes; text may stand around it.
    const LONGEST_KEY: usize = 64 * 1024;
    let bytes = files::read_bytes(path, LONGEST_KEY)?;
    let text = String::from_utf8_lossy(&bytes);
    text.parse().map_err(|error: crate::audit::checkpoint::NotAPublicKey| {
        files::FileError::Malformed { path: path.to_owned(), message: error.to_string() }.into()
    })
}
