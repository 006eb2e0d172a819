//! The command line of `rootbound-verifier`.
//!
//! - `run`: the daemon; `init`: what it needs before its first start
//! - `appraise`: evidence in files, looked at and judged without a daemon
//! - `audit`: the audit trail, of the running daemon in pages, or of files
//! - `compute`: reference values out of files, without a daemon
//! - `relying-party token`: a token for who has no certificate
//! - everything else (`verbs`) is said to the running daemon over its administrative socket (`client`), and its answer
//!   is shown as text (`render`) or JSON

mod appraise;
mod audit;
mod client;
mod compute;
mod exchange;
mod files;
mod init;
mod policy;
mod relying_party;
mod render;
mod run;
mod sets;
mod survey;
mod table;
mod tokens;
mod verbs;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{self, Config, ConfigError};
use crate::http::admin::message::Reply;

pub use client::{ClientError, ask};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed
  2  the command line, a file that it names, or the configuration is wrong
  3  the daemon cannot be reached
  4  the daemon refused, or there is no such thing
  5  healthcheck: the daemon runs, but is not ready
  6  appraise: the evidence violates the profile
  7  appraise: bad evidence: something does not stand, or contradicts the rest
  8  appraise: cannot judge: something that is needed is missing
  9  policy test: a case fails
 10  audit: the trail was changed, or does not contain the checkpoint that was given";

/// Checks what machines prove with their TPMs, and issues credentials that only those TPMs can use.
#[derive(Debug, Parser)]
#[command(name = "rootbound-verifier", version, about, after_help = EXIT_CODES, max_term_width = 120)]
struct Arguments {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", env = "ROOTBOUND_VERIFIER_CONFIG", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// The administrative socket; default: the one in the state directory that the configuration names
    #[arg(long, global = true, value_name = "FILE", env = "ROOTBOUND_VERIFIER_SOCKET")]
    socket: Option<PathBuf>,
    /// How answers look
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

/// How answers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For machines
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon
    #[command(after_help = EXIT_CODES)]
    Run,
    /// Make the state directory, the CA, the database and the configuration
    #[command(after_help = EXIT_CODES)]
    Init(init::Init),
    /// Show a boot from files, and judge it without a daemon; exit code 0 affirming, 6 violates the profile, 7 bad evidence,
    /// 8 cannot judge
    #[command(after_help = EXIT_CODES)]
    Appraise(Box<appraise::Appraise>),
    /// The audit trail: verify, export, watch and archive it
    #[command(subcommand, after_help = EXIT_CODES)]
    Audit(audit::Audit),
    /// Policies: who may do what, in bundles whose versions never change
    #[command(subcommand, after_help = EXIT_CODES)]
    Policy(policy::PolicyVerb),
    /// Reference sets: PCR values, values of boots and digests that are accepted, in versions that never change; what is denied;
    /// and values out of files
    #[command(subcommand, after_help = EXIT_CODES)]
    Reference(ReferenceVerb),
    /// Relying parties: those who ask about nodes
    #[command(subcommand, after_help = EXIT_CODES)]
    RelyingParty(relying_party::RelyingPartyVerb),
    #[command(flatten)]
    Daemon(verbs::Verb),
}

/// What has to do with reference values.
#[derive(Debug, Subcommand)]
enum ReferenceVerb {
    /// Compute values out of files, before anything of them has booted; no daemon is asked
    #[command(subcommand, after_help = EXIT_CODES)]
    Compute(compute::Compute),
    #[command(flatten)]
    Survey(survey::SurveyVerb),
    #[command(flatten)]
    Sets(sets::SetVerb),
}

/// Why a command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon.
    #[error(transparent)]
    Run(#[from] run::RunError),
    /// The preparation.
    #[error(transparent)]
    Init(#[from] init::InitError),
    /// What was to be looked at.
    #[error(transparent)]
    Appraise(#[from] appraise::AppraiseError),
    /// The audit trail.
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
    /// Files of which values are computed.
    #[error(transparent)]
    Compute(#[from] compute::ComputeError),
    /// What was to be said.
    #[error(transparent)]
    Verb(#[from] verbs::VerbError),
    /// Policies.
    #[error(transparent)]
    Policy(#[from] policy::PolicyVerbError),
    /// Questions over the fleet.
    #[error(transparent)]
    Survey(#[from] survey::SurveyVerbError),
    /// The conversation.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// The exit codes of [`EXIT_CODES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Done,
    Failed,
    Usage,
    Unreachable,
    Refused,
    NotReady,
    ViolatesPolicy,
    BadEvidence,
    CannotJudge,
    TrailDamaged,
    CaseFails,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Exit {
    const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::NotReady => 5,
            Self::ViolatesPolicy => 6,
            Self::BadEvidence => 7,
            Self::CannotJudge => 8,
            Self::CaseFails => 9,
            Self::TrailDamaged => 10,
        }
    }
}

impl CliError {
    fn exit(&self) -> Exit {
        match self {
            Self::Compute(error) if error.is_failure() => Exit::Failed,
            Self::Config(_) | Self::Verb(_) | Self::Appraise(_) | Self::Policy(_) | Self::Compute(_) => {
                Exit::Usage
            }
            Self::Survey(error) => error.exit(),
            Self::Run(error) if error.is_configuration() => Exit::Usage,
            Self::Init(error) if error.is_refusal() => Exit::Refused,
            Self::Run(_) | Self::Init(_) | Self::Output(_) => Exit::Failed,
            Self::Audit(error) => error.exit(),
            Self::Client(error) => error.exit(),
        }
    }
}

impl ClientError {
    const fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Refused(_) => Exit::Refused,
            Self::Answer(_) => Exit::Failed,
        }
    }
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = arguments.output;
    match obey(arguments) {
        Ok(exit) => exit.into(),
        Err(error) => {
            complain(&error, output);
            error.exit().into()
        }
    }
}

fn obey(arguments: Arguments) -> Result<Exit, CliError> {
    let Arguments { config, socket, output, verb } = arguments;
    match verb {
        Verb::Run => {
            run::run(Config::load(&config)?)?;
            Ok(Exit::Done)
        }
        Verb::Init(init) => {
            show(&init.run(&config)?, output)?;
            Ok(Exit::Done)
        }
        Verb::Appraise(appraise) => {
            let (report, exit) = appraise.run()?;
            show(&report, output)?;
            Ok(exit)
        }
        Verb::Audit(audit) => {
            let socket = if audit.needs_daemon() { admin_socket(socket, &config)? } else { PathBuf::new() };
            Ok(audit.run(&socket, output)?)
        }
        Verb::Policy(verb) => {
            let answer = verb.run(|command| {
                let socket = admin_socket(socket.clone(), &config)?;
                Ok::<_, CliError>(client::ask_once(&socket, &command)?)
            })?;
            show(&answer, output)?;
            Ok(if answer.has_failed() { Exit::CaseFails } else { Exit::Done })
        }
        Verb::Reference(ReferenceVerb::Compute(compute)) => {
            if let Some(shown) = compute.run(output)? {
                show(shown.as_ref(), output)?;
            }
            Ok(Exit::Done)
        }
        Verb::Reference(ReferenceVerb::Survey(verb)) => {
            let socket = admin_socket(socket, &config)?;
            let ask = |command| Ok::<_, CliError>(client::ask_once(&socket, &command)?);
            let answer = verb.run(ask, || std::thread::sleep(survey::PAUSE))?;
            show(&answer, output)?;
            Ok(Exit::Done)
        }
        Verb::Reference(ReferenceVerb::Sets(verb)) => {
            let socket = admin_socket(socket, &config)?;
            let (command, export) = verb.said().map_err(verbs::VerbError::from)?;
            match &client::ask_once(&socket, &command)? {
                Reply::Exported(document) => {
                    let written = export.map_or(Ok(()), |export| export.write(document));
                    written.map_err(verbs::VerbError::from)?;
                }
                reply => show(reply, output)?,
            }
            Ok(Exit::Done)
        }
        Verb::RelyingParty(verb) => {
            show(&verb.run(), output)?;
            Ok(Exit::Done)
        }
        Verb::Daemon(verb) => {
            let socket = admin_socket(socket, &config)?;
            let wants_rules = verb.wants_boot_rules();
            let reply = client::ask_once(&socket, &verb.command()?)?;
            let exit = match &reply {
                Reply::Health(health) if !health.ready => Exit::NotReady,
                _ => Exit::Done,
            };
            match &reply {
                Reply::Boot(boot) if wants_rules => show(&render::Rules(boot), output)?,
                reply => show(reply, output)?,
            }
            Ok(exit)
        }
    }
}

/// The one that is named, or else that of the configuration.
fn admin_socket(named: Option<PathBuf>, config: &Path) -> Result<PathBuf, ConfigError> {
    match named {
        Some(socket) => Ok(socket),
        None => Ok(config::admin_socket(&Config::load(config)?.state.directory)),
    }
}

/// Something that can be shown in both ways.
trait Show {
    fn text(&self) -> String;
    fn json(&self) -> serde_json::Value;
}

fn show(what: &dyn Show, output: Output) -> Result<(), std::io::Error> {
    let text = match output {
        Output::Text => what.text(),
        Output::Json => format!("{:#}\n", what.json()),
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Errors go to standard error, as text or as a problem document.
fn complain(error: &CliError, output: Output) {
    let text = match output {
        Output::Text => format!("error: {error}\n"),
        Output::Json => {
            let problem = match error {
                CliError::Client(ClientError::Refused(problem))
                | CliError::Audit(audit::AuditError::Source(audit::SourceError::Client(
                    ClientError::Refused(problem),
                ))) => serde_json::to_value(problem.as_ref()).ok(),
                _ => None,
            };
            let problem = problem.unwrap_or_else(|| serde_json::json!({ "detail": error.to_string() }));
            format!("{problem:#}\n")
        }
    };
    // There is nobody left to tell.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
