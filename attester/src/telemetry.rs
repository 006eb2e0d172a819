//! Structured logs, to standard error.

use serde::Deserialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::tpm::LOG_TARGET;

/// Section `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// What a line looks like.
    pub format: LogFormat,
    /// The least severe lines that are written.
    pub level: LogLevel,
}

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// How severe a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What does not work.
    Error,
    /// What will not work for long, or looks like an attack.
    Warn,
    /// What changed.
    #[default]
    Info,
    /// Each step.
    Debug,
    /// The libraries' steps too.
    Trace,
}

impl LogLevel {
    const fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// Writes the process's log lines to standard error from now on; those of libraries that use `log`, too.
///
/// tss-esapi logs each response that is not success, expected ones too; where it matters it comes back as a
/// [`TpmError`](crate::tpm::TpmError) and is logged once. So its own lines are written at `trace` only.
///
/// A second call changes nothing: tests may share a process.
pub fn start(config: LogConfig) {
    let level = config.level.filter();
    let filter = match config.level {
        LogLevel::Trace => Targets::new().with_default(level),
        LogLevel::Error | LogLevel::Warn | LogLevel::Info | LogLevel::Debug => {
            Targets::new().with_default(level).with_target(LOG_TARGET, LevelFilter::OFF)
        }
    };
    let lines = fmt::layer::<Registry>().with_writer(std::io::stderr).with_target(false);
    let started = match config.format {
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
            tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()
        }
        LogFormat::Json => tracing_subscriber::registry()
            .with(lines.json().flatten_event(true).with_filter(filter))
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("log lines are written already");
    }
}
