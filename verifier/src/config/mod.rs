//! The configuration: a TOML file in sections, each owned by the module that it configures.
//!
//! `docs/samples/verifier.toml` shows every key with its default. A key that is not known is an error, so that a typing
//! mistake does not leave a default in force.

mod signers;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rootbound_common::id::TrustDomain;
use serde::Deserialize;

pub use signers::{ReferencesSection, SignerError, TrustedSignerSection};
pub use state::{StateDirectory, StateError, StateLock};
pub(crate) use state::{UNFINISHED, admin_socket, write_atomically};

use crate::audit::sampling::Sampling;
use crate::credential::ear::EatProfile;
use crate::enrollment::RevocationPolicy;
use crate::http::{ServingNames, TlsIdentity};
use crate::public_url::PublicUrl;
use crate::relying_party::RelyingPartySection;
use crate::telemetry::LogSection;
use crate::{flows, http};

/// Where the configuration is, unless the command line or the environment says otherwise.
pub const DEFAULT_PATH: &str = "/etc/rootbound/verifier.toml";

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listener.
    #[serde(default)]
    pub server: ServerSection,
    /// Where the verifier keeps what it keeps.
    pub state: StateSection,
    /// Whom the verifier trusts, and for whom it speaks.
    pub trust: TrustSection,
    /// How much time machines have.
    #[serde(default)]
    pub attestation: AttestationSection,
    /// What a stranger may cost.
    #[serde(default)]
    pub limits: http::Limits,
    /// What is kept for how long.
    #[serde(default)]
    pub retention: RetentionSection,
    /// The audit trail.
    #[serde(default)]
    pub audit: AuditSection,
    /// Attestation results.
    #[serde(default)]
    pub results: ResultsSection,
    /// Tokens.
    #[serde(default)]
    pub tokens: TokensSection,
    /// Who may read attestation results of others; nobody, where there is no such section.
    #[serde(default)]
    pub relying_party: Vec<RelyingPartySection>,
    /// Whose documents of references are imported.
    #[serde(default)]
    pub references: ReferencesSection,
    /// Logs.
    #[serde(default)]
    pub log: LogSection,
}

/// Section `[server]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSection {
    /// The address to listen on; port 0 is any that is free.
    pub listen: SocketAddr,
    /// The DNS names and addresses by which attesters know the verifier; they go into its serving certificate.
    pub names: ServingNames,
    /// A serving certificate from elsewhere, PEM with its chain, instead of one of the verifier's own CA.
    pub certificate: Option<PathBuf>,
    /// The private key of `certificate`.
    pub key: Option<PathBuf>,
    /// The URL under which clients reach the verifier: what its metadata name.
    pub public_url: Option<PublicUrl>,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443)),
            names: ServingNames::default(),
            certificate: None,
            key: None,
            public_url: None,
        }
    }
}

/// Section `[state]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSection {
    /// The folder of the database, the CA and the administrative socket; its owner's alone.
    pub directory: PathBuf,
}

/// Section `[trust]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSection {
    /// The trust domain of the SPIFFE IDs that are issued.
    pub domain: TrustDomain,
    /// A folder of TPM manufacturers' CA certificates and CRLs. Without it, only machines whose EK is listed in the
    /// inventory with a waiver can enrol.
    pub ek_roots: Option<PathBuf>,
    /// What an EK certificate without a current CRL counts as.
    #[serde(default)]
    pub revocation: RevocationPolicy,
}

/// Section `[attestation]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttestationSection {
    /// How old a quote may be when it arrives.
    #[serde(with = "humantime_serde")]
    pub oldest_quote: Duration,
    /// How long a machine has to answer an enrolment.
    #[serde(with = "humantime_serde")]
    pub activation: Duration,
    /// Enrolments that may wait for their answer at once.
    pub pending_enrollments: u32,
}

impl Default for AttestationSection {
    fn default() -> Self {
        let flows::Limits { oldest_quote, activation, pending_enrollments } = flows::Limits::default();
        Self { oldest_quote, activation, pending_enrollments }
    }
}

impl AttestationSection {
    /// As the stories take it.
    #[must_use]
    pub fn limits(&self) -> flows::Limits {
        let Self { oldest_quote, activation, pending_enrollments } = *self;
        flows::Limits { oldest_quote, activation, pending_enrollments }
    }
}

/// Section `[retention]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSection {
    /// How long records of decisions and of expired certificates are kept.
    #[serde(with = "humantime_serde")]
    pub decisions: Duration,
    /// Refusals that are kept at most, the newest, 400 bytes each: strangers cause them, and must not fill the disk.
    pub refusals: u32,
}

impl Default for RetentionSection {
    fn default() -> Self {
        Self { decisions: Duration::from_secs(90 * 24 * 3600), refusals: 200_000 }
    }
}

/// Section `[audit]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// Which allowed decisions are recorded; what is refused always is. The trail says what was in force.
    pub allowed_decisions: Sampling,
    /// After which time what was recorded is signed.
    #[serde(with = "humantime_serde")]
    pub checkpoint_interval: Duration,
    /// For how long records are kept; without it, until `audit archive` takes them away.
    #[serde(with = "humantime_serde")]
    pub keep: Option<Duration>,
}

impl Default for AuditSection {
    fn default() -> Self {
        Self { allowed_decisions: Sampling::All, checkpoint_interval: Duration::from_secs(60), keep: None }
    }
}

/// Section `[results]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResultsSection {
    /// The profile that attestation results name.
    pub eat_profile: EatProfile,
}

/// Section `[tokens]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokensSection {
    /// How long a token lives at most; the evidence that it rests on may end it before.
    #[serde(with = "humantime_serde")]
    pub lifetime: Duration,
}

impl Default for TokensSection {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(300) }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source} (`rootbound-verifier init` writes one; --config names another)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML of this shape.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// A value makes no sense.
    #[error("{}: {key}: {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The section and key.
        key: &'static str,
        /// What to do about it.
        why: String,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks a text that was read from a file.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        config.check().map_err(|(key, why)| ConfigError::Value { path: path.to_owned(), key, why })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let between = |key, value: Duration, low: u64, high: u64| {
            let bounds = Duration::from_secs(low)..=Duration::from_secs(high);
            if bounds.contains(&value) {
                Ok(())
            } else {
                Err((key, format!("must be between {low} and {high} seconds")))
            }
        };
        if self.server.certificate.is_some() != self.server.key.is_some() {
            return Err(("[server] certificate, key", "set both, or neither".to_owned()));
        }
        self.references.check().map_err(|why| ("[references] trusted_signers", why))?;
        self.limits.check().map_err(|error| ("[limits]", error.to_string()))?;
        between("[tokens] lifetime", self.tokens.lifetime, 5, 3600)?;
        between("[attestation] oldest_quote", self.attestation.oldest_quote, 1, 600)?;
        between("[attestation] activation", self.attestation.activation, 1, 600)?;
        if self.attestation.pending_enrollments == 0 {
            return Err(("[attestation] pending_enrollments", "must be at least 1".to_owned()));
        }
        RelyingPartySection::check(&self.relying_party).map_err(|why| ("[[relying_party]]", why))?;
        if self.retention.refusals == 0 {
            return Err(("[retention] refusals", "must be at least 1".to_owned()));
        }
        between("[audit] checkpoint_interval", self.audit.checkpoint_interval, 1, 86_400)?;
        if let Some(keep) = self.audit.keep {
            between("[audit] keep", keep, 2 * 86_400, 100 * 365 * 86_400)?;
        }
        // Serials of certificates that may still be valid must stay on record: they live a day at most.
        between("[retention] decisions", self.retention.decisions, 2 * 86_400, 100 * 365 * 86_400)
    }

    /// With what the verifier serves TLS.
    #[must_use]
    pub fn tls_identity(&self) -> TlsIdentity {
        match (&self.server.certificate, &self.server.key) {
            (Some(certificate), Some(key)) => {
                TlsIdentity::Files { certificate: certificate.clone(), key: key.clone() }
            }
            (None | Some(_), None) | (None, Some(_)) => TlsIdentity::Minted(self.server.names.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../docs/samples/verifier.toml");
    const LEAST: &str = "[state]\ndirectory = \"/d\"\n[trust]\ndomain = \"example.org\"\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("verifier.toml"))
    }

    #[test]
    fn sample_says_the_defaults() {
        let (sample, least) = (parse(SAMPLE).unwrap(), parse(LEAST).unwrap());
        assert_eq!(sample.limits, least.limits);
        assert_eq!(sample.attestation, least.attestation);
        assert_eq!(sample.retention, least.retention);
        assert_eq!(sample.log, least.log);
        assert_eq!(sample.server.listen, least.server.listen);
        assert_eq!(sample.server.names, least.server.names);
        assert_eq!(sample.trust.revocation, least.trust.revocation);
        assert_eq!(sample.results, least.results);
        assert_eq!(sample.audit, least.audit);
        assert_eq!(sample.relying_party, least.relying_party);
    }

    /// What is commented out is meant to be uncommented.
    #[test]
    fn commented_keys_of_the_sample_are_keys() {
        let all: String = SAMPLE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.contains(" = ") && !rest.starts_with(' ') => format!("{rest}\n"),
                Some(rest) if rest.starts_with('[') => format!("{rest}\n"),
                Some(_) | None => format!("{line}\n"),
            })
            .collect();
        let all = parse(&all).unwrap();
        assert!(all.server.certificate.is_some() && all.trust.ek_roots.is_some());
        assert_eq!(all.relying_party.len(), 1);
        assert_eq!(all.references.trusted_signers.len(), 1);
        assert!(all.audit.keep.is_some());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let two_alike =
            "[[relying_party]]\nname = \"a\"\nca = \"/c\"\naccepted_names = [\"b\"]\nmatch_labels = {}\n"
                .repeat(2);
        for (text, part) in [
            ("[server]\nlisten = \"here\"", "listen"),
            ("[server]\nnames = [\"a b\"]", "neither a DNS name nor an IP address"),
            ("[server]\ncertificate = \"/c\"", "[server] certificate, key"),
            ("[server]\nport = 1", "unknown field `port`"),
            ("[limits]\nidle_timeout = \"0s\"", "idle_timeout"),
            ("[attestation]\noldest_quote = \"1h\"", "oldest_quote"),
            ("[attestation]\nactivation = \"0s\"", "activation"),
            ("[attestation]\npending_enrollments = 0", "pending_enrollments"),
            ("[retention]\ndecisions = \"1h\"", "decisions"),
            ("[retention]\nrefusals = 0", "[retention] refusals"),
            ("[audit]\nallowed_decisions = \"none\"", "unknown variant `none`"),
            ("[audit]\nallowed_decisions = { one_in = 0 }", "nonzero"),
            ("[audit]\ncheckpoint_interval = \"0s\"", "[audit] checkpoint_interval"),
            ("[audit]\nkeep = \"1h\"", "[audit] keep"),
            ("[log]\nformat = \"xml\"", "unknown variant `xml`"),
            ("[logs]", "unknown field `logs`"),
            (
                "[references]\ntrusted_signers = [{ name = \"a\", key = \"/a\" }, { name = \"a\", key = \"/b\" }]",
                "[references] trusted_signers: two are called `a`",
            ),
            ("[results]\neat_profile = \"ear\"", "EAT profile"),
            ("[[relying_party]]\nname = \"a\"\nca = \"/c\"\naccepted_names = [\"b\"]", "match_labels"),
            (
                "[[relying_party]]\nname = \"a\"\nca = \"/c\"\naccepted_names = [\"*.b\"]\nmatch_labels = {}",
                "accepted name",
            ),
            (
                "[[relying_party]]\nname = \"a\"\nca = \"/c\"\naccepted_names = []\nmatch_labels = {}",
                "[[relying_party]]: `a`: 1 to 64 accepted_names",
            ),
            (&two_alike, "two are called `a`"),
        ] {
            let error = parse(&format!("{LEAST}{text}\n")).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("verifier.toml"), "{text}: {error}");
        }
        assert!(parse("[state]\ndirectory = \"/d\"\n[trust]\ndomain = \"Example\"\n").is_err());
        let missing = Config::load(Path::new("/nonexistent/verifier.toml")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/verifier.toml") && missing.contains("init"), "{missing}");
    }
}
