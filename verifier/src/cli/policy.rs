//! The verbs about policies and decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use rootbound_common::id::NodeId;
use serde::Serialize;

use super::Show;
use super::files::{self, FileError};
use super::verbs::{Reason, versioned};
use crate::audit::{Outcome, RecordId};
use crate::flows::policies::{BUILTIN, WhichBundle, failure};
use crate::http::admin::message::{Command, Reply};
use crate::http::admin::policies::{DecisionCommand, PolicyCommand};
use crate::node::Name;
use crate::policy::{Bundle, BundleError, BundleSource, CaseReport, FileName};
use crate::reference::Versioned;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Write the next version of a bundle from a folder: *.cedar, schema.cedarschema, entities.json, routes.toml, tests/*.json
    ///
    /// It is compiled and its cases are run first. It comes into force with `activate`.
    Put {
        /// The bundle
        name: Name,
        /// The folder
        folder: PathBuf,
        #[command(flatten)]
        reason: Reason,
    },
    /// List every version of every bundle, and what came into force when
    List,
    /// Print a bundle's files, or write them to a folder
    Show {
        /// NAME, NAME@VERSION or `builtin`
        #[arg(value_parser = which)]
        bundle: WhichBundle,
        /// Write the files to this new folder instead
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
    },
    /// Say what differs between two bundles, line by line
    Diff {
        /// NAME, NAME@VERSION or `builtin`
        #[arg(value_parser = which)]
        from: WhichBundle,
        /// NAME, NAME@VERSION or `builtin`
        #[arg(value_parser = which)]
        to: WhichBundle,
    },
    /// Say which of the last recorded decisions a bundle would change; nothing is changed by that
    DryRun {
        /// NAME, NAME@VERSION or `builtin`
        #[arg(value_parser = which)]
        bundle: WhichBundle,
        /// Of the last so many decisions
        #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        last: u64,
    },
    /// Put a bundle in force, as a whole, for every decision from now on
    Activate {
        /// NAME, NAME@VERSION or `builtin`
        #[arg(value_parser = which)]
        bundle: WhichBundle,
        /// Only if this activation is still the last, as `list` shows it (0: there was none)
        #[arg(long, value_name = "NUMBER")]
        over: Option<u64>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Compile a folder and run its cases, without a daemon; exit code 9 where one fails
    Test {
        /// The folder
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DecisionVerb {
    /// List decisions that services asked for, the latest first
    List {
        /// Only about this node, or by it
        #[arg(long)]
        node: Option<NodeId>,
        /// Only those that allowed
        #[arg(long, conflicts_with = "denied")]
        allowed: bool,
        /// Only those that denied
        #[arg(long)]
        denied: bool,
        /// Only those before this number, where the page before ended
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
        /// At most so many
        #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(Command::MAX_PAGE)))]
        limit: u32,
    },
    /// Show what is on record of a decision
    Show {
        /// Its id
        id: RecordId,
    },
    /// Explain a decision: which policies determined it, with which attested facts, and what would have allowed it
    Explain {
        /// Its id
        id: RecordId,
    },
}

/// What comes of a verb.
#[derive(Debug)]
pub(super) enum PolicyAnswer {
    /// What the daemon said.
    Reply(Box<Reply>),
    /// What differs, file by file.
    Differences(Vec<Difference>),
    /// What became of the cases.
    Cases(Vec<CaseReport>),
    /// The files were written.
    Exported {
        /// Where.
        folder: PathBuf,
        /// How many.
        files: usize,
    },
}

/// A file that differs.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    /// Its place in the folder.
    file: String,
    /// The lines, as a unified diff.
    diff: String,
}

/// Why a verb about policies did nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum PolicyVerbError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bundle is refused.
    #[error("{0}")]
    Bundle(#[from] BundleError),
    /// A file that a bundle does not have.
    #[error(
        "{} is no part of a policy bundle: it has *.cedar, schema.cedarschema, entities.json, routes.toml and tests/*.json",
        .0.display()
    )]
    NoPart(PathBuf),
    /// Nothing is overwritten.
    #[error("{} exists already; name a new folder", .0.display())]
    Exists(PathBuf),
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

impl PolicyVerb {
    /// Does it; `ask` says something to the daemon.
    pub(super) fn run<E: From<PolicyVerbError>>(
        self,
        ask: impl Fn(Command) -> Result<Reply, E>,
    ) -> Result<PolicyAnswer, E> {
        let say = |command| ask(Command::Policy(command)).map(|reply| PolicyAnswer::Reply(Box::new(reply)));
        let source = |bundle| match ask(Command::Policy(PolicyCommand::Show { bundle }))? {
            Reply::Policy(detail) => Ok(detail.source),
            _ => Err(E::from(PolicyVerbError::OtherAnswer)),
        };
        match self {
            Self::Put { name, folder, reason } => {
                let source = Box::new(read_folder(&folder)?);
                say(PolicyCommand::Put { name, source, reason: reason.reason })
            }
            Self::List => say(PolicyCommand::List),
            Self::Show { bundle, to: None } => say(PolicyCommand::Show { bundle }),
            Self::Show { bundle, to: Some(folder) } => {
                let files = write_folder(&folder, &source(bundle)?)?;
                Ok(PolicyAnswer::Exported { folder, files })
            }
            Self::Diff { from, to } => {
                Ok(PolicyAnswer::Differences(differences(&source(from)?, &source(to)?)))
            }
            Self::DryRun { bundle, last } => say(PolicyCommand::Rehearse { bundle, last }),
            Self::Activate { bundle, over, reason } => {
                say(PolicyCommand::Activate { bundle, over, reason: reason.reason })
            }
            Self::Test { folder } => {
                let id = Versioned { name: Name::default_set(), version: 1 };
                let bundle = Bundle::compile(id, read_folder(&folder)?).map_err(PolicyVerbError::from)?;
                Ok(PolicyAnswer::Cases(bundle.run_cases()))
            }
        }
    }
}

impl PolicyAnswer {
    /// Whether it says that a case fails.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self, Self::Cases(cases) if cases.iter().any(|case| !case.passed()))
    }
}

impl Show for PolicyAnswer {
    fn text(&self) -> String {
        match self {
            Self::Reply(reply) => reply.text(),
            Self::Differences(files) if files.is_empty() => "they are the same\n".to_owned(),
            Self::Differences(files) => files.iter().map(|file| file.diff.as_str()).collect(),
            Self::Cases(cases) => {
                let failures = cases.iter().filter(|case| !case.passed()).map(|case| failure(case) + "\n");
                let failures: Vec<_> = failures.collect();
                let passed = cases.len().saturating_sub(failures.len());
                format!("{}{passed} of {} cases pass\n", failures.concat(), cases.len())
            }
            Self::Exported { folder, files } => format!("{files} files written to {}\n", folder.display()),
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Reply(reply) => reply.json(),
            Self::Differences(files) => serde_json::to_value(files).unwrap_or_default(),
            Self::Cases(cases) => serde_json::to_value(cases).unwrap_or_default(),
            Self::Exported { folder, files } => serde_json::json!({ "folder": folder, "files": files }),
        }
    }
}

/// The files of a bundle, by their place in its folder.
fn files_of(source: &BundleSource) -> BTreeMap<String, &str> {
    let policies = source.policies.iter().map(|(name, text)| (name.to_string(), text.as_str()));
    let cases = source.cases.iter().map(|(name, text)| (format!("{CASES}/{name}"), text.as_str()));
    let schema = source.schema.iter().map(|text| (SCHEMA.to_owned(), text.as_str()));
    let entities = source.entities.iter().map(|text| (ENTITIES.to_owned(), text.as_str()));
    let routes = source.routes.iter().map(|text| (ROUTES.to_owned(), text.as_str()));
    policies.chain(cases).chain(schema).chain(entities).chain(routes).collect()
}

fn differences(from: &BundleSource, to: &BundleSource) -> Vec<Difference> {
    let (from, to) = (files_of(from), files_of(to));
    let names: BTreeSet<_> = from.keys().chain(to.keys()).collect();
    let text = |files: &BTreeMap<String, &str>, name: &str| files.get(name).copied().unwrap_or("").to_owned();
    let differing = names.into_iter().filter(|name| from.get(*name) != to.get(*name));
    differing
        .map(|name| {
            let (old, new) = (text(&from, name), text(&to, name));
            let diff = similar::TextDiff::from_lines(&old, &new);
            let diff = diff.unified_diff().header(&format!("a/{name}"), &format!("b/{name}")).to_string();
            Difference { file: name.clone(), diff }
        })
        .collect()
}

const SCHEMA: &str = "schema.cedarschema";
const ENTITIES: &str = "entities.json";
const ROUTES: &str = "routes.toml";
const CASES: &str = "tests";

/// Reads a bundle. What begins with a dot, and Markdown, is not looked at; what else is no part of one is refused, so that
/// no policy is left out for the sake of its name.
fn read_folder(folder: &Path) -> Result<BundleSource, PolicyVerbError> {
    let mut source = BundleSource::default();
    for (path, name) in entries(folder)? {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match (name.as_str(), extension) {
            (SCHEMA, _) => source.schema = Some(read_text(&path)?),
            (ROUTES, _) => source.routes = Some(read_text(&path)?),
            (ENTITIES, _) => source.entities = Some(read_text(&path)?),
            (CASES, _) => {
                for (path, name) in entries(&path)? {
                    let text = read_text(&path)?;
                    source.cases.insert(file_name(&path, &name)?, text);
                }
            }
            (_, Some("cedar")) => {
                let text = read_text(&path)?;
                source.policies.insert(file_name(&path, &name)?, text);
            }
            _ => return Err(PolicyVerbError::NoPart(path)),
        }
    }
    Ok(source)
}

fn file_name(path: &Path, name: &str) -> Result<FileName, PolicyVerbError> {
    name.parse().map_err(|_| PolicyVerbError::NoPart(path.to_owned()))
}

fn read_text(path: &Path) -> Result<String, FileError> {
    let bytes = files::read_bytes(path, BundleSource::MAX_BYTES)?;
    String::from_utf8(bytes)
        .map_err(|_| FileError::Malformed { path: path.to_owned(), message: "it is not UTF-8".to_owned() })
}

fn entries(folder: &Path) -> Result<Vec<(PathBuf, String)>, PolicyVerbError> {
    let unreadable = |source| FileError::Unreadable { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let name = name.ok_or_else(|| PolicyVerbError::NoPart(path.clone()))?;
        if !name.starts_with('.') && !name.ends_with(".md") {
            found.push((path, name));
        }
    }
    Ok(found)
}

fn write_folder(folder: &Path, source: &BundleSource) -> Result<usize, PolicyVerbError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PolicyVerbError::Unwritable { path, source }
    };
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(PolicyVerbError::Exists(folder.to_owned()));
        }
        made => made.map_err(failed(folder))?,
    }
    let files = files_of(source);
    if !source.cases.is_empty() {
        let cases = folder.join(CASES);
        std::fs::create_dir(&cases).map_err(failed(&cases))?;
    }
    for (name, text) in &files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(failed(&path))?;
    }
    Ok(files.len())
}

impl DecisionVerb {
    pub(super) fn command(self) -> Command {
        Command::Decision(match self {
            Self::List { node, allowed, denied, before, limit } => {
                let outcome = match (allowed, denied) {
                    (true, _) => Some(Outcome::Granted),
                    (false, true) => Some(Outcome::Refused),
                    (false, false) => None,
                };
                DecisionCommand::List { node, outcome, before, limit }
            }
            Self::Show { id } => DecisionCommand::Show { id },
            Self::Explain { id } => DecisionCommand::Explain { id },
        })
    }
}

/// NAME, NAME@VERSION or `builtin`.
fn which(text: &str) -> Result<WhichBundle, String> {
    if text == BUILTIN {
        return Ok(WhichBundle::Builtin);
    }
    versioned(text).map(|(name, version)| WhichBundle::Written { name, version })
}
