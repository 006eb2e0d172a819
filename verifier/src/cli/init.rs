//! `init`: makes what the daemon needs before its first start.
//!
//! In this order, each step only where its result is not there yet: the state directory, the CA, the database with the
//! profile `default`, the trust bundle, the configuration. Each appears as a whole or not at all, and the trust bundle is
//! written when everything else in the state directory is, so that after a crash the same command goes on where it was,
//! and after success it refuses.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rootbound_common::clock::{Clock, SystemClock, Timestamp};
use rootbound_common::id::TrustDomain;
use rootbound_common::random;
use serde_json::json;

use super::Show;
use crate::audit::{Actor, AuditRecord, Entity, Outcome, RecordId, RecordKind};
use crate::config::{Config, ConfigError, StateDirectory, StateError, write_atomically};
use crate::credential::authority::{Authority, AuthorityError};
use crate::credential::files::{self, FileError};
use crate::credential::issue::CLOCK_SKEW;
use crate::http::{ServingNames, TlsIdentityError};
use crate::node::Name;
use crate::reference::{ProfileBody, Provenance};
use crate::store::{ReferenceStore as _, SqliteStore, StoreError, StoreOpenError};

/// The configuration with its defaults, which `init` fills in.
const TEMPLATE: &str = include_str!("../../../docs/samples/verifier.toml");

/// Its arguments.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The trust domain: the `example.org` of spiffe://example.org/node/...
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: TrustDomain,
    /// A DNS name by which attesters know this verifier; may be repeated. Default: localhost
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// An address by which attesters know this verifier; may be repeated. Default: 127.0.0.1 and ::1
    #[arg(long = "ip", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// The state directory
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/rootbound-verifier")]
    state: PathBuf,
    /// The address to listen on; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// A folder of TPM manufacturers' CA certificates and CRLs
    #[arg(long, value_name = "FOLDER")]
    ek_roots: Option<PathBuf>,
    /// Accept EK certificates that no current CRL speaks of
    #[arg(long)]
    revocation_if_available: bool,
    /// An intermediate CA certificate of yours with its chain up to the root, PEM, instead of a new root
    #[arg(long, value_name = "FILE", requires = "upstream_key")]
    upstream_cert: Option<PathBuf>,
    /// The private key of the intermediate, PEM
    #[arg(long, value_name = "FILE", requires = "upstream_cert")]
    upstream_key: Option<PathBuf>,
    /// Life of a new root
    #[arg(long, value_name = "DURATION", default_value = "3650days", value_parser = super::verbs::duration)]
    ca_lifetime: Duration,
}

/// Why there is nothing to start.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    /// It was done before.
    #[error("already initialised, nothing was changed; there is: {}", list(.0))]
    AlreadyDone(Vec<PathBuf>),
    /// A configuration is there, and it is another's.
    #[error("{} exists and is for {found}; nothing was changed. Name another file with --config, or take it away", path.display())]
    OtherConfig {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The configuration that is there.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A name.
    #[error("--name: {0}")]
    Name(#[from] TlsIdentityError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A CA's files.
    #[error("{what}: {error}")]
    Files {
        /// Whose.
        what: &'static str,
        /// Why.
        #[source]
        error: FileError,
    },
    /// A new CA.
    #[error("cannot make a CA: {0}")]
    Authority(#[from] AuthorityError),
    /// The database.
    #[error(transparent)]
    OpenStore(#[from] StoreOpenError),
    /// The profile.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl InitError {
    /// Nothing went wrong: the answer is no.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::AlreadyDone(_) | Self::OtherConfig { .. })
    }
}

/// What there is now.
#[derive(Debug)]
pub(super) struct Prepared {
    config: PathBuf,
    state: PathBuf,
    trust_bundle: PathBuf,
    trust_domain: TrustDomain,
    ca_not_after: Timestamp,
    ek_roots: bool,
}

impl Init {
    /// Does it.
    pub(super) fn run(&self, config: &Path) -> Result<Prepared, InitError> {
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| InitError::Write { path: path.to_owned(), source })
        };
        let (config, state_path) = (absolute(config)?, absolute(&self.state)?);
        let names = self.names()?;
        let ek_roots = self.ek_roots.as_deref().map(absolute).transpose()?;
        self.check_config(&config, &state_path)?;

        let state = StateDirectory::create(&state_path)?;
        if state.trust_bundle().exists() && config.exists() {
            let all = [
                config,
                state.ca_certificate(),
                state.ca_key(),
                state.result_key(),
                state.database(),
                state.trust_bundle(),
            ];
            return Err(InitError::AlreadyDone(all.into_iter().filter(|path| path.exists()).collect()));
        }
        let _lock = state.lock()?;
        let authority = self.authority(&state)?;
        files::result_key(&state.result_key(), &mut random::system())
            .map_err(|error| InitError::Files { what: "the key of attestation results", error })?;
        prepare_database(&state)?;
        write(&state.trust_bundle(), &authority.trust_bundle_pem())?;
        if !config.exists() {
            write(&config, &self.configuration(&state_path, &names, ek_roots.as_deref()))?;
        }
        Ok(Prepared {
            config,
            state: state_path,
            trust_bundle: state.trust_bundle(),
            trust_domain: self.trust_domain.clone(),
            ca_not_after: authority.not_after(),
            ek_roots: ek_roots.is_some(),
        })
    }

    /// The names as given, checked.
    fn names(&self) -> Result<Vec<String>, InitError> {
        let mut names = self.names.clone();
        names.extend(self.addresses.iter().map(ToString::to_string));
        if names.is_empty() {
            names.extend(["127.0.0.1", "::1", "localhost"].map(str::to_owned));
        }
        ServingNames::parse(&names)?;
        Ok(names)
    }

    /// A configuration that is there already must be one for what is made here.
    fn check_config(&self, path: &Path, state: &Path) -> Result<(), InitError> {
        if !path.exists() {
            return Ok(());
        }
        let config = Config::load(path)?;
        if config.state.directory == state && config.trust.domain == self.trust_domain {
            return Ok(());
        }
        let found = format!("trust domain {} in {}", config.trust.domain, config.state.directory.display());
        Err(InitError::OtherConfig { path: path.to_owned(), found })
    }

    /// The CA that is there, or the operator's, or a new one.
    fn authority(&self, state: &StateDirectory) -> Result<Authority, InitError> {
        let now = SystemClock.now();
        let domain = || self.trust_domain.clone();
        let (certificate, key) = (state.ca_certificate(), state.ca_key());
        if key.exists() {
            return files::load(&certificate, &key, domain(), now)
                .map_err(|error| InitError::Files { what: "the CA that is there already", error });
        }
        let authority = match (&self.upstream_cert, &self.upstream_key) {
            (Some(upstream_cert), Some(upstream_key)) => {
                files::load(upstream_cert, upstream_key, domain(), now)
                    .map_err(|error| InitError::Files { what: "the upstream CA", error })?
            }
            (None, _) | (_, None) => {
                let not_before = now.minus(CLOCK_SKEW);
                Authority::generate(domain(), not_before, self.ca_lifetime, &mut random::system())?
            }
        };
        files::store(&authority, &certificate, &key)
            .map_err(|error| InitError::Files { what: "the CA", error })?;
        Ok(authority)
    }

    fn configuration(&self, state: &Path, names: &[String], ek_roots: Option<&Path>) -> String {
        let text = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned()).to_string();
        let mut values = vec![
            ("listen", toml::Value::from(self.listen.to_string()).to_string()),
            ("names", toml::Value::from(names.to_vec()).to_string()),
            ("directory", text(state)),
            ("domain", toml::Value::from(self.trust_domain.as_str()).to_string()),
        ];
        values.extend(ek_roots.map(|folder| ("ek_roots", text(folder))));
        if self.revocation_if_available {
            values.push(("revocation", "\"if_available\"".to_owned()));
        }
        fill_in(TEMPLATE, &values)
    }
}

/// Puts values in the place of those of a configuration; each key stands there once, perhaps commented out.
fn fill_in(template: &str, values: &[(&str, String)]) -> String {
    let line = |line: &str| {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let filled =
            values.iter().find(|(key, _)| bare.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = ")));
        filled.map_or_else(|| format!("{line}\n"), |(key, value)| format!("{key} = {value}\n"))
    };
    template.lines().map(line).collect()
}

/// The database, with the profile by which every node is judged until an operator writes others.
fn prepare_database(state: &StateDirectory) -> Result<(), InitError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| InitError::Write { path: state.database(), source })?;
    runtime.block_on(async {
        let store = SqliteStore::open(&state.database()).await?;
        let written = write_first_profile(&store).await;
        store.close().await;
        Ok(written?)
    })
}

async fn write_first_profile(store: &SqliteStore) -> Result<(), StoreError> {
    if !store.profiles().await?.is_empty() {
        return Ok(());
    }
    let provenance = Provenance {
        author: format!("uid {}", rustix::process::getuid().as_raw()),
        reason: "init".to_owned(),
        created_at: SystemClock.now(),
    };
    let name = Name::default_set();
    let body = ProfileBody::initial(name.clone());
    let id = RecordId::new(provenance.created_at, &mut random::system());
    let (actor, action) = (Actor::Operator(provenance.author.as_str().into()), "put_profile");
    let record = AuditRecord::new(id, RecordKind::ReferenceChange, action, actor, Outcome::Done, action)
        .about(Entity::named("profile", name.as_str()))
        .because(&provenance.reason);
    store.put_profile(name, body, provenance, record).await?;
    Ok(())
}

fn write(path: &Path, content: &str) -> Result<(), InitError> {
    let failed = |source| InitError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    write_atomically(path, content.as_bytes()).map_err(failed)
}

impl Show for Prepared {
    fn text(&self) -> String {
        let roots = if self.ek_roots {
            ""
        } else {
            "\nNo ek_roots are configured: until they are, only machines enrol whose EK is listed with\n  \
             rootbound-verifier inventory add --waive-endorsement <EK hash>\n"
        };
        format!(
            "Trust domain    {}\nState           {}\nConfiguration   {}\nTrust bundle    {}   (give it to attesters)\n\
             CA valid until  {}\n{roots}\nNext: rootbound-verifier --config {} run\n",
            self.trust_domain,
            self.state.display(),
            self.config.display(),
            self.trust_bundle.display(),
            self.ca_not_after,
            self.config.display(),
        )
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "trust_domain": self.trust_domain,
            "state": self.state,
            "config": self.config,
            "trust_bundle": self.trust_bundle,
            "ca_not_after": self.ca_not_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_into_the_template() {
        let values = [("domain", "\"a.example\"".to_owned()), ("ek_roots", "\"/roots\"".to_owned())];
        let text = fill_in("[trust]\ndomain = \"x\"\n#ek_roots = \"/y\"\ndomains = 1\n", &values);
        assert_eq!(text, "[trust]\ndomain = \"a.example\"\nek_roots = \"/roots\"\ndomains = 1\n");
    }
}
