//! Logs: structured, to standard error, as text or JSON.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// Section `[log]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// How a line looks.
    pub format: LogFormat,
    /// Which lines there are: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module, as in
    /// `info,rootbound_verifier::http=debug`.
    pub filter: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is none.
    #[error("[log] filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something logs already.
    #[error("logging is set up already")]
    Twice,
}

/// Sends the logs of this process to standard error.
pub fn install(section: &LogSection) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&section.filter)?;
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    match section.format {
        LogFormat::Text => subscriber.with_ansi(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    }
    .map_err(|_| TelemetryError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused() {
        let section = LogSection { filter: "info,=,=loud".to_owned(), ..LogSection::default() };
        assert!(matches!(install(&section), Err(TelemetryError::Filter(_))));
    }
}
