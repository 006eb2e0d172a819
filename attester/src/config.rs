//! The configuration file: TOML in sections, each owned by the module that reads it.
//!
//! A key that the attester does not know is an error, so that a typing error is not a default. `docs/samples/attester.toml`
//! shows each key with its default.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::client::VerifierConfig;
use crate::collect::CollectConfig;
use crate::control::ControlConfig;
use crate::deliver::DeliverConfig;
use crate::enroll::EnrollmentConfig;
use crate::keep::StateConfig;
use crate::telemetry::LogConfig;
use crate::tpm::TctiConfig;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How to reach the TPM; by the kernel's device without this.
    #[serde(default)]
    pub tpm: TctiConfig,
    /// How to reach the verifier.
    pub verifier: VerifierConfig,
    /// Where to keep state.
    pub state: StateConfig,
    /// Where workloads find the credential.
    pub deliver: DeliverConfig,
    /// How to become known to the verifier.
    #[serde(default)]
    pub enrollment: EnrollmentConfig,
    /// Where the kernel shows its logs.
    #[serde(default)]
    pub collect: CollectConfig,
    /// How to hear what the verifier wishes.
    #[serde(default)]
    pub control: ControlConfig,
    /// What to log.
    #[serde(default)]
    pub log: LogConfig,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no configuration.
    #[error("{} is over the limit of {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The text is not TOML, a key is missing, unknown or given twice, or a value does not fit.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, key and what is wrong.
        reason: String,
    },
}

impl Config {
    /// The longest configuration that anybody wrote is a hundredth of this.
    const LIMIT: u64 = 256 * 1024;

    /// Reads and parses the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let length = File::open(path)
            .and_then(|file| file.take(Self::LIMIT + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        if u64::try_from(length).is_ok_and(|length| length > Self::LIMIT) {
            return Err(ConfigError::TooLarge { path: path.to_owned(), limit: Self::LIMIT });
        }
        let content = |reason: String| ConfigError::Content { path: path.to_owned(), reason };
        let text = str::from_utf8(&bytes).map_err(|error| content(error.to_string()))?;
        Self::parse(text).map_err(|error| content(error.to_string()))
    }

    /// Parses the text of a configuration file.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../docs/samples/attester.toml");

    #[test]
    fn sample_is_a_configuration() {
        let config = Config::parse(SAMPLE).unwrap();
        assert_eq!(config.state.directory, Path::new("/var/lib/rootbound/attester"));
        assert_eq!(config.verifier.url.to_string(), "https://verifier.example.org:8443");
    }

    #[test]
    fn what_the_sample_shows_commented_out_is_a_configuration_too() {
        let uncommented: String = SAMPLE
            .lines()
            .map(|line| match line.strip_prefix("#: ") {
                Some(setting) => format!("{setting}\n"),
                None => format!("{line}\n"),
            })
            .collect();
        assert_ne!(uncommented, SAMPLE);
        let shown = Config::parse(&uncommented).unwrap();
        let defaults = Config::parse(SAMPLE).unwrap();
        assert_eq!(Config { enrollment: defaults.enrollment.clone(), ..shown.clone() }, defaults);
        assert!(shown.enrollment.join_token_file.is_some());
    }

    #[test]
    fn errors_name_the_file_the_line_and_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attester.toml");
        for (from, to, expected) in [
            ("directory = \"/var/lib/rootbound/attester\"", "directorry = \"/\"", "directorry"),
            ("https://verifier", "http://verifier", "the scheme must be https"),
            ("[deliver]", "[delivery]", "delivery"),
            ("url = ", "address = ", "address"),
            ("[state]", "[state", "TOML parse error"),
        ] {
            let text = SAMPLE.replacen(from, to, 1);
            assert_ne!(text, SAMPLE, "{from}");
            std::fs::write(&path, text).unwrap();
            let refused = Config::read(&path).unwrap_err();
            assert!(matches!(refused, ConfigError::Content { .. }));
            let words = refused.to_string();
            assert!(words.contains(expected) && words.contains("attester.toml"), "{words}");
            assert!(words.contains("line "), "{words}");
        }
    }

    #[test]
    fn tpm_is_the_kernels_device_where_nothing_else_is_said() {
        let without = SAMPLE.replacen("[tpm.device]", "", 1);
        assert_ne!(without, SAMPLE);
        assert_eq!(Config::parse(&without).unwrap(), Config::parse(SAMPLE).unwrap());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (from, to) in [
            ("#: request_timeout = \"15s\"", "request_timeout = \"0s\""),
            ("#: request_timeout = \"15s\"", "request_timeout = \"2h\""),
            ("#: request_timeout = \"15s\"", "request_timeout = 15"),
            ("#: poll_every = \"30s\"", "poll_every = \"999ms\""),
            ("#: poll_every = \"30s\"", "poll_every = \"3601s\""),
            ("#: ek = \"auto\"", "ek = \"rsa1024\""),
            ("#: level = \"info\"", "level = \"loud\""),
        ] {
            let text = SAMPLE.replacen(from, to, 1);
            assert_ne!(text, SAMPLE, "{from}");
            assert!(Config::parse(&text).is_err(), "{to}");
        }
    }

    #[test]
    fn bounds_themselves_are_in_range() {
        for within in ["1s", "1h"] {
            let text = SAMPLE.replacen("#: poll_every = \"30s\"", &format!("poll_every = \"{within}\""), 1);
            assert_ne!(text, SAMPLE);
            Config::parse(&text).unwrap();
        }
    }

    #[test]
    fn file_that_is_absent_or_huge_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attester.toml");
        assert!(matches!(Config::read(&path).unwrap_err(), ConfigError::Read { .. }));
        std::fs::write(&path, "#".repeat(300_000)).unwrap();
        assert!(matches!(Config::read(&path).unwrap_err(), ConfigError::TooLarge { .. }));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(matches!(Config::read(&path).unwrap_err(), ConfigError::Content { .. }));
    }
}
