//! The command line.

mod identify;
mod run;
mod status;
mod token;
mod whoami;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::attest::chain;
use crate::client::{RequestError, TlsError, TrustError};
use crate::config::{Config, ConfigError};
use crate::deliver::DeliverError;
use crate::enroll::EnrollError;
use crate::keep::KeepError;
use crate::token::wish::WishError;
use crate::token::{FetchError, NotP256};
use crate::tpm::{NetworkTpm, TctiConfig, TpmError};

const DEFAULT_CONFIG: &str = "/etc/rootbound/attester.toml";

const AFTER_HELP: &str = "\
Examples:
  rootbound-attester identify                       which machine is this? (for the verifier's inventory)
  rootbound-attester run                            attest until stopped; the work of the systemd unit
  rootbound-attester status --output json           how did the last attestation go?
  rootbound-attester whoami                         does the credential work at this moment?
  rootbound-attester token --audience https://orders.example --action db:read
                                                    a token for a workload; `help token` says how it is used

Exit codes:
  0  done
  1  failed: a file, the network, the verifier away
  2  wrong usage or configuration
  3  cannot attest: the TPM does not do its part
  4  refused by the verifier";

/// Proves with this machine's TPM what booted, and keeps credentials that only this TPM can use.
#[derive(Debug, Parser)]
#[command(name = "rootbound-attester", version, after_help = AFTER_HELP)]
struct Arguments {
    /// Configuration file [default: /etc/rootbound/attester.toml]
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to print
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attest until stopped (SIGTERM or SIGINT)
    Run,
    /// Print which machine this is: EK hash, EK certificate, AK, TPM
    Identify,
    /// Print how the last attestation went, from the state on disk
    Status,
    /// Ask the verifier over mutual TLS, with the key in the TPM, who it takes us for
    Whoami,
    /// Fetch a token for a service, bound to the key in the TPM, and print it
    Token(token::TokenArguments),
    /// Print a proof for one call of a service with a token: a signature by the key in the TPM (RFC 9449)
    Proof(token::ProofArguments),
}

/// What to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Why a command ends without success. The variants are the exit codes.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// 1
    #[error("{0}")]
    Failed(String),
    /// 2
    #[error("{0}")]
    Configuration(String),
    /// 3
    #[error("cannot attest: {error}\nhint: {}", error.advice())]
    Tpm {
        /// What the TPM said.
        error: TpmError,
    },
    /// 4
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Configuration(_) => 2,
            Self::Tpm { .. } => 3,
            Self::Refused(_) => 4,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Configuration(chain(&error))
    }
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Self {
        Self::Configuration(format!("[verifier] ca_file: {}", chain(&error)))
    }
}

impl From<DeliverError> for Failure {
    fn from(error: DeliverError) -> Self {
        Self::Configuration(format!("[deliver] directory: {}", chain(&error)))
    }
}

impl From<KeepError> for Failure {
    fn from(error: KeepError) -> Self {
        Self::Failed(chain(&error))
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::Failed(chain(&error))
    }
}

impl From<TpmError> for Failure {
    fn from(error: TpmError) -> Self {
        Self::Tpm { error }
    }
}

impl From<EnrollError> for Failure {
    fn from(error: EnrollError) -> Self {
        match error {
            EnrollError::Tpm(error) => error.into(),
            EnrollError::Request(error) => error.into(),
            error => Self::Failed(chain(&error)),
        }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        if let Some(error) = error.tpm() {
            return error.clone().into();
        }
        match error {
            RequestError::Refused(refusal) => Self::Refused(refusal.to_string()),
            error => Self::Failed(chain(&error)),
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Tpm(error) => error.into(),
            FetchError::Request(error) => error.into(),
            error @ (FetchError::Metadata(_) | FetchError::Kind(_)) => Self::Failed(error.to_string()),
        }
    }
}

impl From<NotP256> for Failure {
    fn from(error: NotP256) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<WishError> for Failure {
    fn from(error: WishError) -> Self {
        Self::Configuration(error.to_string())
    }
}

/// The whole program: parses the command line, runs the command, says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    match execute(Arguments::parse()) {
        Ok(printed) => {
            print(&printed);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            tell(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn execute(arguments: Arguments) -> Result<String, Failure> {
    let config = configuration(&arguments)?;
    let output = arguments.output;
    match (arguments.command, config) {
        (Command::Run, Some(config)) => run::run(config).map(|()| String::new()),
        (Command::Identify, config) => identify::identify(config, output),
        (Command::Status, Some(config)) => status::status(&config, output),
        (Command::Whoami, Some(config)) => whoami::whoami(config, output),
        (Command::Token(wanted), Some(config)) => token::token(wanted, config, output),
        (Command::Proof(wanted), Some(config)) => token::proof(wanted, config, output),
        (Command::Run | Command::Status | Command::Whoami | Command::Token(_) | Command::Proof(_), None) => {
            Err(Failure::Configuration(format!(
                "there is no configuration at {DEFAULT_CONFIG}: see --config"
            )))
        }
    }
}

/// The configuration; nothing where none was named and there is none in the usual place.
fn configuration(arguments: &Arguments) -> Result<Option<Config>, Failure> {
    match &arguments.config {
        Some(path) => Ok(Some(Config::read(path)?)),
        None if PathBuf::from(DEFAULT_CONFIG).exists() => Ok(Some(Config::read(DEFAULT_CONFIG.as_ref())?)),
        None => Ok(None),
    }
}

/// How long to wait, at the end, for a TPM that is at work: longer than the slowest signature.
const TPM_ENDS: Duration = Duration::from_secs(5);
/// What to say where that was not enough.
const TPM_AT_WORK: &str = "the TPM is still at work: this ends without waiting for it any longer";

/// A runtime for one command. Two workers, since the TPM's signature in a TLS handshake blocks one.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))
}

/// The TPM beside a running daemon: what the daemon holds there must not be swept.
fn beside_the_daemon(tpm: TctiConfig) -> TctiConfig {
    match tpm {
        TctiConfig::Swtpm(network) => TctiConfig::Swtpm(NetworkTpm { owned: false, ..network }),
        TctiConfig::Mssim(network) => TctiConfig::Mssim(NetworkTpm { owned: false, ..network }),
        other @ (TctiConfig::Device { .. } | TctiConfig::Tabrmd { .. }) => other,
    }
}

/// A line of a text answer; nothing where there is no value.
fn line(text: &mut String, key: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        text.push_str(&format!("{key:<16}{value}\n"));
    }
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|json| json + "\n")
        .map_err(|error| Failure::Failed(error.to_string()))
}

#[expect(clippy::print_stdout, reason = "answers of commands go to standard output")]
fn print(text: &str) {
    print!("{text}");
}

#[expect(clippy::print_stderr, reason = "why a command failed goes to standard error")]
fn tell(failure: &Failure) {
    eprintln!("rootbound-attester: {failure}");
}

#[expect(clippy::print_stderr, reason = "what is odd about a command that has no log goes to standard error")]
fn warn(words: &str) {
    eprintln!("rootbound-attester: warning: {words}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use rootbound_common::wire::v1::Problem;

    use super::*;
    use crate::client::Refusal;

    #[test]
    fn command_line_is_consistent_and_says_its_exit_codes() {
        Arguments::command().debug_assert();
        let help = Arguments::command().render_long_help().to_string();
        for code in ["0  done", "1  failed", "2  wrong usage", "3  cannot attest", "4  refused"] {
            assert!(help.contains(code), "{help}");
        }
    }

    #[test]
    fn failures_have_the_exit_codes_that_the_help_promises() {
        let problem = Problem {
            kind: String::new(),
            title: String::new(),
            status: 403,
            detail: "retired".to_owned(),
            code: "node_retired".to_owned(),
        };
        let refused = RequestError::Refused(Refusal::of_problem(&problem, 403, None));
        let tpm = TpmError::Stopped;
        let policy = rustls::Error::Other(rustls::OtherError(std::sync::Arc::new(TpmError::Overloaded)));
        let handshake = RequestError::Handshake {
            url: String::new(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, policy),
        };
        let config = ConfigError::TooLarge { path: PathBuf::new(), limit: 1 };
        for (failure, code) in [
            (Failure::from(RequestError::TooLarge), 1),
            (Failure::from(config), 2),
            (Failure::from(tpm), 3),
            (Failure::from(handshake), 3),
            (Failure::from(refused), 4),
        ] {
            assert_eq!(failure.code(), code, "{failure}");
        }
    }
}
