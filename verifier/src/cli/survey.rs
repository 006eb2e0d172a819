//! The verbs that ask about the stored evidence of the fleet, and change nothing: `reference dry-run`, `why`, and `capture`
//! of several nodes.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rootbound_common::id::NodeId;
use serde_json::Value;

use super::files;
use super::render::survey as render;
use super::verbs::{Reason, VerbError, label, labels_of};
use super::{Exit, Show};
use crate::audit::RecordId;
use crate::flows::survey::dry_run::DryRunProgress;
use crate::flows::survey::shared::{SharedCapture, WhichFiles};
use crate::http::admin::message::{Command, Reply};
use crate::http::admin::survey::{ProposedChange, SurveyCommand, SurveyReply};
use crate::node::Name;
use crate::reference::SetKind;

#[derive(Debug, Subcommand)]
pub(super) enum SurveyVerb {
    /// Make a reference set of what a node showed last; of several nodes, say what they share, and write nothing to the store
    ///
    /// Of several nodes: PCR values that all show, boot rules by which the boot of each is as expected, on request a digest set of
    /// what ran, and what is each machine's own and so left out.
    Capture(Capture),
    /// Say which nodes would stand otherwise if values were in force, by their stored evidence; nothing is changed by that
    ///
    /// All that is named is supposed together. Give at least one of --set, --boot, --digests, --profile and --withdraw, or --of.
    DryRun(DryRun),
    /// Say why a node deviates: its deviations in groups, each with what is accepted that comes nearest
    Why {
        /// The node
        node: NodeId,
        /// At most so many deviations
        #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = page())]
        limit: u32,
    },
}

#[derive(Debug, Args)]
pub(super) struct Capture {
    /// The nodes
    #[arg(value_name = "NODE", required_unless_present = "labels")]
    nodes: Vec<NodeId>,
    /// Of one node: the set that the values become the next version of [default: default]
    #[arg(long)]
    name: Option<Name>,
    /// Every node with this label; may be repeated
    #[arg(long = "labels", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(Name, Name)>,
    /// Make a digest set, too: of the files that ran on every node, or on any
    #[arg(long, value_name = "WHICH")]
    digests: Option<Files>,
    /// Write set.toml, boot.toml, digests.txt and left-out.txt to this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(flatten)]
    reason: Reason,
}

/// Files of a digest set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Files {
    /// That ran on every node
    Shared,
    /// That ran on any
    All,
}

#[derive(Debug, Args)]
pub(super) struct DryRun {
    /// A reference set, with values from a file as `reference set` takes it; may be repeated
    #[arg(long, num_args = 2, value_names = ["NAME", "FILE"])]
    set: Vec<String>,
    /// A boot set, with values from a file as `reference compute boot` writes it; may be repeated
    #[arg(long, num_args = 2, value_names = ["NAME", "FILE"])]
    boot: Vec<String>,
    /// A digest set, with a text from a file as `digests set` takes it; may be repeated
    #[arg(long, num_args = 2, value_names = ["NAME", "FILE"])]
    digests: Vec<String>,
    /// A profile, from a file as `profile set` takes it; may be repeated
    #[arg(long, num_args = 2, value_names = ["NAME", "FILE"])]
    profile: Vec<String>,
    /// A set that would be withdrawn: NAME, or set:NAME, boot:NAME or digests:NAME where several have it; may be repeated
    #[arg(long, value_name = "NAME", value_parser = withdrawn)]
    withdraw: Vec<(Option<SetKind>, Name)>,
    /// Show a page of the last dry run instead, by its id
    #[arg(long, value_name = "ID", conflicts_with_all = ["set", "boot", "digests", "profile", "withdraw"])]
    of: Option<RecordId>,
    /// Show at most so many nodes
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = page())]
    limit: u32,
    /// Show only nodes after this one: where the page before ended
    #[arg(long, value_name = "NODE", requires = "of")]
    after: Option<NodeId>,
    #[command(flatten)]
    reason: Reason,
}

fn page() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(Command::MAX_PAGE))
}

fn withdrawn(text: &str) -> Result<(Option<SetKind>, Name), String> {
    let (kind, name) = match text.split_once(':') {
        Some(("set", name)) => (Some(SetKind::Pcrs), name),
        Some(("boot", name)) => (Some(SetKind::Boot), name),
        Some(("digests", name)) => (Some(SetKind::Digests), name),
        Some(_) => return Err("write NAME, set:NAME, boot:NAME or digests:NAME".to_owned()),
        None => (None, text),
    };
    Ok((kind, name.parse().map_err(|error: crate::node::NameError| error.to_string())?))
}

/// Before the daemon is asked again how far it is.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// What comes of a verb.
#[derive(Debug)]
pub(super) enum SurveyAnswer {
    /// What the daemon said.
    Reply(Box<Reply>),
    /// The files were written.
    Written {
        /// Where.
        folder: PathBuf,
        /// Which.
        files: Vec<&'static str>,
        /// What is in none.
        left_out: usize,
    },
}

/// Why a verb did nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum SurveyVerbError {
    /// What was to be asked.
    #[error(transparent)]
    Verb(#[from] VerbError),
    /// Several nodes make no version of a set.
    #[error("--name is for one node: of several nodes nothing is written to the store; see `reference set`")]
    NameOfSeveral,
    /// The folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The daemon said something else.
    #[error("the daemon gave another answer than was asked for; is it of this version?")]
    OtherAnswer,
}

impl SurveyVerbError {
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Self::Verb(_) | Self::NameOfSeveral => Exit::Usage,
            Self::Unwritable { .. } | Self::OtherAnswer => Exit::Failed,
        }
    }
}

impl Capture {
    /// One node, of which a set is written.
    fn of_one(&self) -> Option<NodeId> {
        match self.nodes.as_slice() {
            [node] if self.labels.is_empty() && self.digests.is_none() && self.out.is_none() => Some(*node),
            _ => None,
        }
    }
}

impl SurveyVerb {
    /// What is said to the daemon first.
    pub(super) fn first_command(self) -> Result<Command, VerbError> {
        Ok(match self {
            Self::Capture(capture) => match capture.of_one() {
                Some(node) => {
                    let name = capture.name.unwrap_or_else(Name::default_set);
                    Command::ReferenceCapture { node, name, reason: capture.reason.reason }
                }
                None => Command::Survey(SurveyCommand::Capture {
                    nodes: capture.nodes,
                    labels: labels_of(capture.labels)?,
                    files: capture.digests.map(|files| match files {
                        Files::Shared => WhichFiles::Shared,
                        Files::All => WhichFiles::All,
                    }),
                }),
            },
            Self::DryRun(DryRun { of: Some(id), after, limit, .. }) => {
                Command::Survey(SurveyCommand::DryRunPage { id, after, limit })
            }
            Self::DryRun(verb) => {
                let reason = verb.reason.reason.clone();
                Command::Survey(SurveyCommand::DryRun { changes: verb.changes()?, reason })
            }
            Self::Why { node, limit } => Command::Survey(SurveyCommand::Why { node, limit }),
        })
    }

    /// Does it; `ask` says something to the daemon, and `pause` lets some time pass before it is asked again.
    pub(super) fn run<E: From<SurveyVerbError>>(
        self,
        ask: impl Fn(Command) -> Result<Reply, E>,
        pause: impl Fn(),
    ) -> Result<SurveyAnswer, E> {
        let out = match &self {
            Self::Capture(capture) => {
                if capture.name.is_some() && capture.of_one().is_none() {
                    return Err(SurveyVerbError::NameOfSeveral.into());
                }
                capture.out.clone()
            }
            Self::DryRun(_) | Self::Why { .. } => None,
        };
        let limit = match &self {
            Self::DryRun(verb) => verb.limit,
            Self::Capture(_) | Self::Why { .. } => 0,
        };
        let reply = ask(self.first_command().map_err(SurveyVerbError::from)?)?;
        match reply {
            Reply::Survey(survey) => match (*survey, out) {
                (SurveyReply::Progress(progress), _) => {
                    let id = wait(progress, &ask, &pause)?;
                    let page = SurveyCommand::DryRunPage { id, after: None, limit };
                    Ok(SurveyAnswer::Reply(Box::new(ask(Command::Survey(page))?)))
                }
                (SurveyReply::Captured(captured), Some(folder)) => Ok(write_folder(folder, &captured)?),
                (other, _) => Ok(SurveyAnswer::Reply(Box::new(Reply::Survey(Box::new(other))))),
            },
            other => Ok(SurveyAnswer::Reply(Box::new(other))),
        }
    }
}

impl DryRun {
    fn changes(self) -> Result<Vec<ProposedChange>, VerbError> {
        let mut changes = Vec::new();
        for (name, file) in pairs(&self.set)? {
            changes.push(ProposedChange::Set { name, accepted: files::read(&file)? });
        }
        for (name, file) in pairs(&self.boot)? {
            changes.push(ProposedChange::Boot { name, values: files::read(&file)? });
        }
        for (name, file) in pairs(&self.digests)? {
            changes.push(ProposedChange::Digests { name, frame: files::read_packed(&file)? });
        }
        for (name, file) in pairs(&self.profile)? {
            changes.push(ProposedChange::Profile { name, body: Box::new(files::read(&file)?) });
        }
        let withdrawn = self.withdraw.into_iter();
        changes.extend(withdrawn.map(|(kind, name)| ProposedChange::Withdraw { kind, name }));
        Ok(changes)
    }
}

/// NAME and FILE in turns, as clap gives them.
fn pairs(values: &[String]) -> Result<Vec<(Name, PathBuf)>, VerbError> {
    let pairs = values.as_chunks::<2>().0.iter();
    let named = |text: &String| text.parse().map_err(|error| VerbError::Name { text: text.clone(), error });
    pairs.map(|[name, file]| Ok((named(name)?, PathBuf::from(file)))).collect()
}

/// Asks until the dry run is done, and says on standard error how far it is.
fn wait<E: From<SurveyVerbError>>(
    mut progress: DryRunProgress,
    ask: &impl Fn(Command) -> Result<Reply, E>,
    pause: &impl Fn(),
) -> Result<RecordId, E> {
    let mut told = Told::new();
    while !progress.finished {
        pause();
        let again = ask(Command::Survey(SurveyCommand::DryRunProgress { id: progress.id }))?;
        progress = match again {
            Reply::Survey(reply) => match *reply {
                SurveyReply::Progress(progress) => progress,
                SurveyReply::Page(_) | SurveyReply::Why(_) | SurveyReply::Captured(_) => {
                    return Err(SurveyVerbError::OtherAnswer.into());
                }
            },
            _ => return Err(SurveyVerbError::OtherAnswer.into()),
        };
        told.tell(&progress);
    }
    told.end();
    Ok(progress.id)
}

/// What was said on standard error: one line that changes on a terminal, else a line for each tenth.
struct Told {
    terminal: bool,
    tenths: u64,
}

impl Told {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), tenths: 0 }
    }

    fn tell(&mut self, progress: &DryRunProgress) {
        let DryRunProgress { done, total, .. } = progress;
        let tenths = done.saturating_mul(10).checked_div(*total).unwrap_or(10);
        // There is nobody to tell where it fails.
        let _ = if self.terminal {
            write!(std::io::stderr(), "\r{done} of {total} nodes ")
        } else if tenths > self.tenths {
            writeln!(std::io::stderr(), "{done} of {total} nodes")
        } else {
            Ok(())
        };
        self.tenths = tenths;
    }

    fn end(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Writes what was captured to a folder, which is made where it is not there. No file is overwritten.
fn write_folder(folder: PathBuf, captured: &SharedCapture) -> Result<SurveyAnswer, SurveyVerbError> {
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| SurveyVerbError::Unwritable { path, source }
    };
    std::fs::create_dir_all(&folder).map_err(unwritable(&folder))?;
    let mut written = Vec::new();
    for (name, text) in render::files(captured) {
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(unwritable(&path))?;
        written.push(name);
    }
    Ok(SurveyAnswer::Written { folder, files: written, left_out: captured.left_out.len() })
}

impl Show for SurveyAnswer {
    fn text(&self) -> String {
        match self {
            Self::Reply(reply) => reply.text(),
            Self::Written { folder, files, left_out } => format!(
                "{} written to {}\n{left_out} things differ or are left out: left-out.txt says what, and why\n",
                files.join(", "),
                folder.display()
            ),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Reply(reply) => match reply.as_ref() {
                Reply::Survey(survey) => render::json(survey),
                other => other.json(),
            },
            Self::Written { folder, files, left_out } => {
                serde_json::json!({ "folder": folder, "files": files, "left_out": left_out })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        verb: SurveyVerb,
    }

    const NODE: &str = "1111111111111111111111111111111111111111111111111111111111111111";

    fn command(arguments: &[&str]) -> Result<Command, VerbError> {
        let line = Line::try_parse_from([&["reference"], arguments].concat()).unwrap();
        line.verb.first_command()
    }

    fn is_refused(arguments: &[&str]) -> bool {
        Line::try_parse_from([&["reference"], arguments].concat()).is_err()
    }

    #[test]
    fn changes_of_each_kind_are_taken_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("set"), format!("[sha256]\n7 = [\"{}\"]\n", "ab".repeat(32))).unwrap();
        std::fs::write(path("boot"), r#"{"bank":"sha256","values":[]}"#).unwrap();
        std::fs::write(path("digests"), format!("sha256:{}  /bin/a\n", "ab".repeat(32))).unwrap();
        let taken = command(&[
            "dry-run",
            "--set",
            "a",
            &path("set"),
            "--set",
            "b",
            &path("set"),
            "--boot",
            "f",
            &path("boot"),
            "--digests",
            "c",
            &path("digests"),
            "--withdraw",
            "d",
            "--withdraw",
            "digests:e",
        ]);
        let Command::Survey(SurveyCommand::DryRun { changes, .. }) = taken.unwrap() else {
            panic!("a dry run");
        };
        let words: Vec<_> = changes
            .iter()
            .map(|change| match change {
                ProposedChange::Set { name, .. } => format!("set {name}"),
                ProposedChange::Boot { name, .. } => format!("boot {name}"),
                ProposedChange::Digests { name, .. } => format!("digests {name}"),
                ProposedChange::Profile { name, .. } => format!("profile {name}"),
                ProposedChange::Withdraw { kind, name } => format!("withdraw {kind:?} {name}"),
            })
            .collect();
        assert_eq!(
            words,
            ["set a", "set b", "boot f", "digests c", "withdraw None d", "withdraw Some(Digests) e"]
        );
        assert!(command(&["dry-run", "--set", "a", &path("missing")]).is_err());
        assert!(command(&["dry-run", "--set", "a b", &path("set")]).is_err(), "no name");
        assert!(is_refused(&["dry-run", "--withdraw", "profile:a"]));
        assert!(is_refused(&["dry-run", "--set", "a"]), "no file");
    }

    #[test]
    fn one_node_is_captured_as_ever_and_several_are_looked_at_together() {
        let one = command(&["capture", NODE]).unwrap();
        assert!(matches!(one, Command::ReferenceCapture { name, .. } if name == Name::default_set()));
        let other = NODE.replace('1', "2");
        for arguments in [
            vec!["capture", NODE, &other],
            vec!["capture", "--labels", "env=prod"],
            vec!["capture", NODE, "--digests", "all"],
        ] {
            let several = command(&arguments).unwrap();
            assert!(matches!(several, Command::Survey(SurveyCommand::Capture { .. })), "{arguments:?}");
        }
        assert!(is_refused(&["capture"]), "neither nodes nor labels");
        let line = Line::try_parse_from(["reference", "capture", NODE, &other, "--name", "a"]).unwrap();
        let refused = line.verb.run(|_| Err::<Reply, _>(SurveyVerbError::OtherAnswer), || ());
        assert!(matches!(refused, Err(SurveyVerbError::NameOfSeveral)));
    }

    #[test]
    fn run_is_asked_after_until_it_is_done_and_then_read() {
        use std::cell::RefCell;
        let asked = RefCell::new(Vec::new());
        let id: RecordId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let progress = |done| DryRunProgress { id, done, total: 2, finished: done == 2 };
        let verb = Line::try_parse_from(["reference", "dry-run", "--withdraw", "a", "--limit", "7"]).unwrap();
        let answer = verb.verb.run(
            |command| {
                let Command::Survey(command) = command else { panic!("a survey") };
                let said = asked.borrow().len();
                asked.borrow_mut().push(serde_json::to_value(&command).unwrap());
                match command {
                    SurveyCommand::DryRun { .. } => Ok(SurveyReply::Progress(progress(0))),
                    SurveyCommand::DryRunProgress { .. } => {
                        Ok(SurveyReply::Progress(progress(u64::try_from(said).unwrap())))
                    }
                    _ => Err(SurveyVerbError::OtherAnswer),
                }
                .map(|reply| Reply::Survey(Box::new(reply)))
            },
            || (),
        );
        assert!(matches!(answer, Err(SurveyVerbError::OtherAnswer)), "at the page");
        let asked = asked.into_inner();
        assert_eq!(asked.len(), 4, "{asked:?}");
        assert_eq!(asked[3]["dry_run_page"]["limit"], 7);
    }

    #[test]
    fn captured_files_are_written_and_none_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let captured = SharedCapture {
            nodes: Vec::new(),
            accepted: None,
            boot: None,
            files: None,
            left_out: vec!["PCR 4 differs".to_owned()],
        };
        let out = folder.path().join("out");
        let written = write_folder(out.clone(), &captured).unwrap();
        assert!(matches!(&written, SurveyAnswer::Written { files, .. } if files == &["left-out.txt"]));
        assert_eq!(std::fs::read_to_string(out.join("left-out.txt")).unwrap(), "PCR 4 differs\n");
        let again = write_folder(out.clone(), &captured).unwrap_err();
        assert!(matches!(&again, SurveyVerbError::Unwritable { path, .. } if path.ends_with("left-out.txt")));
    }
}
