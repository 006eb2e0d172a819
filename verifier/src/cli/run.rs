//! `run`: the daemon. It wires; everything else is elsewhere.
//!
//! A start, in this order: logs · the state directory and its lock · the database · the CA · the manufacturers' roots ·
//! the keys of attestation results, of the audit trail and of tokens · relying parties · the fleet into memory · the listener · `listen.addr` · the administrative socket · readiness. A stop, the other way
//! round, lets what is under way end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rootbound_common::clock::{Clock, SystemClock, Timestamp};
use rootbound_common::random;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, SignerError, StateDirectory, StateError, StateLock, write_atomically};
use crate::credential::ear::ResultSigner;
use crate::credential::files::{self, FileError};
use crate::enrollment::{EndorsementRoots, RootsError};
use crate::flows::audit::AuditParts;
use crate::flows::tokens::TokenParts;
use crate::flows::{Parts, Verifier};
use crate::http::admin::{AdminSocket, AdminSocketError};
use crate::http::{Server, StartError};
use crate::relying_party::{LoadError, RelyingParties};
use crate::store::{SqliteStore, StoreError, StoreOpenError};
use crate::telemetry::{self, TelemetryError};
use crate::{jobs, store};

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// Logs.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The state directory.
    #[error("[state] directory: {0}")]
    State(#[from] StateError),
    /// The CA.
    #[error("the CA: {0}")]
    Authority(#[from] FileError),
    /// The key that signs attestation results.
    #[error("the key of attestation results: {0}")]
    ResultKey(#[source] FileError),
    /// The keys that sign tokens.
    #[error("the keys of tokens: {0}")]
    TokenKeys(#[source] FileError),
    /// The key that signs the audit trail.
    #[error("the key of the audit trail: {0}")]
    AuditKey(#[source] FileError),
    /// The manufacturers' roots.
    #[error("[trust] ek_roots: {0}")]
    Roots(#[from] RootsError),
    /// Relying parties.
    #[error("[[relying_party]] {0}")]
    RelyingParties(#[from] LoadError),
    /// The database.
    #[error(transparent)]
    OpenStore(#[from] StoreOpenError),
    /// What is in it.
    #[error("the database cannot be read: {0}")]
    Store(#[from] StoreError),
    /// Signers of references.
    #[error(transparent)]
    Signers(#[from] SignerError),
    /// The listener.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The administrative socket.
    #[error(transparent)]
    Admin(#[from] AdminSocketError),
    /// The operating system.
    #[error("{what}: {source}")]
    System {
        /// What it did not do.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RunError {
    /// The operator has to change something before another start can go better.
    pub(super) const fn is_configuration(&self) -> bool {
        match self {
            Self::Telemetry(_)
            | Self::State(_)
            | Self::Authority(_)
            | Self::ResultKey(_)
            | Self::AuditKey(_)
            | Self::TokenKeys(_)
            | Self::Roots(_)
            | Self::Signers(_)
            | Self::RelyingParties(_) => true,
            Self::Start(error) => !matches!(error, StartError::Listen { .. }),
            Self::OpenStore(_)
            | Self::Store(_)
            | Self::Admin(_)
            | Self::System { .. }
            | Self::Write { .. } => false,
        }
    }
}

/// Runs until a signal says stop.
pub(super) fn run(config: Config) -> Result<(), RunError> {
    telemetry::install(&config.log)?;
    raise_descriptor_limit();
    // A second worker answers health checks while one is busy with a large appraisal.
    let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(|source| RunError::System { what: "cannot start threads", source })?;
    runtime.block_on(serve(config))
}

/// One connection is one descriptor, and the usual soft limit is 1024. Where it cannot be raised, connections are
/// refused when it is reached.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

async fn serve(config: Config) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let state = StateDirectory::open(&config.state.directory)?;
    let lock = state.lock()?;
    let store = Arc::new(SqliteStore::open(&state.database()).await?);
    let outcome = serve_with(&config, &state, &lock, store.clone(), &mut signals).await;
    store.close().await;
    tracing::info!("stopped");
    outcome
}

async fn serve_with(
    config: &Config,
    state: &StateDirectory,
    lock: &StateLock,
    store: Arc<dyn store::Store>,
    signals: &mut Signals,
) -> Result<(), RunError> {
    let verifier = Arc::new(verifier(config, state, store).await?);
    // From here on the trail says that the verifier started, and has to say that it stopped, however that comes.
    let outcome = listen_until_stopped(config, state, lock, &verifier, signals).await;
    let why = match &outcome {
        Ok(signal) => (*signal).to_owned(),
        Err(error) => error.to_string(),
    };
    if let Err(error) = verifier.stop(&why).await {
        tracing::error!(%error, "the audit trail does not say that the verifier stops");
    }
    outcome.map(drop)
}

/// Returns which signal said stop. Nobody is answered any more by then, nor after an error.
async fn listen_until_stopped(
    config: &Config,
    state: &StateDirectory,
    lock: &StateLock,
    verifier: &Arc<Verifier>,
    signals: &mut Signals,
) -> Result<&'static str, RunError> {
    let server = Server::start(
        Arc::clone(verifier),
        config.server.listen,
        &config.tls_identity(),
        config.limits.clone(),
    )
    .await?;
    let listen = server.local_addr();
    let path = state.listen_address();
    let admin = write_atomically(&path, format!("{listen}\n").as_bytes())
        .map_err(|source| RunError::Write { path: path.clone(), source })
        .and_then(|()| Ok(AdminSocket::start(Arc::clone(verifier), state, lock, listen)?));
    let admin = match admin {
        Ok(admin) => admin,
        Err(error) => {
            let _ = std::fs::remove_file(&path);
            server.shutdown().await;
            return Err(error);
        }
    };
    let stop_jobs = CancellationToken::new();
    let jobs = tokio::spawn(jobs::run(Arc::clone(verifier), config.retention, stop_jobs.clone()));
    tracing::info!(
        %listen,
        trust_domain = %verifier.trust_domain(),
        nodes = verifier.fleet().len(),
        version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
    notify(&[NotifyState::Ready]);

    let why = signals.wait_for_stop(async || reload(config, verifier, &server).await).await;
    tracing::info!("stopping");
    notify(&[NotifyState::Stopping]);
    let _ = std::fs::remove_file(&path);
    admin.shutdown().await;
    server.shutdown().await;
    stop_jobs.cancel();
    if let Err(error) = jobs.await {
        tracing::error!(%error, "the jobs ended in a panic");
    }
    Ok(why)
}

async fn verifier(
    config: &Config,
    state: &StateDirectory,
    store: Arc<dyn store::Store>,
) -> Result<Verifier, RunError> {
    let clock = SystemClock;
    let domain = config.trust.domain.clone();
    let authority = files::load(&state.ca_certificate(), &state.ca_key(), domain.clone(), clock.now())?;
    let roots = endorsement_roots(config, clock.now())?;
    let result_key =
        files::result_key(&state.result_key(), &mut random::system()).map_err(RunError::ResultKey)?;
    let audit = AuditParts {
        key: files::audit_key(&state.audit_key(), &mut random::system()).map_err(RunError::AuditKey)?,
        allowed_decisions: config.audit.allowed_decisions,
        checkpoint_interval: config.audit.checkpoint_interval,
        keep: config.audit.keep,
    };
    let relying_parties = RelyingParties::load(&config.relying_party, authority.chain().first())?;
    let lifetime = config.tokens.lifetime;
    let tokens = TokenParts::open(&state.token_keys(), &state.svid_keys(), lifetime, clock.now())
        .map_err(RunError::TokenKeys)?;
    let parts = Parts {
        store,
        tokens,
        clock: Arc::new(clock),
        result_signer: ResultSigner::new(result_key, config.results.eat_profile.clone(), domain.clone()),
        relying_parties,
        public_url: config.server.public_url.clone(),
        trust_domain: domain,
        roots,
        revocation: config.trust.revocation,
        authority,
        limits: config.attestation.limits(),
        audit,
    };
    let signers = config.references.load()?;
    let verifier = Verifier::start(parts).await?;
    verifier.trust_signers(signers);
    Ok(verifier)
}

/// Reads the folder of trusted manufacturers, and says what an operator wants to know before a machine does.
fn endorsement_roots(config: &Config, now: Timestamp) -> Result<EndorsementRoots, RootsError> {
    let Some(folder) = &config.trust.ek_roots else {
        tracing::warn!(
            "[trust] ek_roots is not set: only machines enrol whose EK the inventory lists with a waiver"
        );
        return Ok(EndorsementRoots::none());
    };
    let roots = EndorsementRoots::load(folder)?;
    let (anchors, crls) = (roots.anchor_count(), roots.crl_count());
    tracing::info!(anchors, intermediates = roots.intermediate_count(), crls, "manufacturers' CAs read");
    for (name, reason) in roots.dead_ends(now) {
        tracing::warn!(name, %reason, "an intermediate in [trust] ek_roots vouches for nothing");
    }
    Ok(roots)
}

/// SIGHUP: the files that others replace while we run.
async fn reload(config: &Config, verifier: &Verifier, server: &Server) {
    match server.reload() {
        Ok(()) => tracing::info!("serving certificate read again"),
        Err(error) => tracing::error!(%error, "the serving certificate stays as it is"),
    }
    match endorsement_roots(config, verifier.now()) {
        Ok(roots) => {
            if let Err(error) = verifier.trust_on_record(roots).await {
                tracing::error!(%error, "the manufacturers' CAs and CRLs stay as they are: it cannot be recorded");
            }
        }
        Err(error) => {
            tracing::error!(%error, "the manufacturers' CAs and CRLs stay as they are");
            if let Err(error) = verifier.record_reload_failed(&error.to_string()).await {
                tracing::error!(%error, "the audit trail does not say so");
            }
        }
    }
    match config.references.load() {
        Ok(signers) => verifier.trust_signers(signers),
        Err(error) => tracing::error!(%error, "the signers of references stay as they are"),
    }
}

/// Tells the service manager, where there is one.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// SIGTERM and SIGINT stop; SIGHUP reads files that others replace again. While they are awaited, the service
/// manager's watchdog is told that the runtime turns.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let listen = |kind| {
            signal(kind).map_err(|source| RunError::System { what: "cannot listen for signals", source })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Returns what said stop.
    async fn wait_for_stop(&mut self, reload: impl AsyncFn()) -> &'static str {
        // Twice per period, as sd_watchdog_enabled(3) advises; without a watchdog, once a day says nothing to nobody.
        let period = sd_notify::watchdog_enabled();
        let mut alive =
            tokio::time::interval(period.map_or(Duration::from_secs(86_400), |period| period / 2));
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => reload().await,
                _ = alive.tick() => {
                    if period.is_some() {
                        notify(&[NotifyState::Watchdog]);
                    }
                }
            }
        }
    }
}
