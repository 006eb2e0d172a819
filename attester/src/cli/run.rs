//! `run`: the daemon.

use std::sync::Arc;
use std::time::Duration;

use rootbound_common::clock::SystemClock;
use rootbound_common::random;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::alarm::{Alarm, Wanted};
use crate::attest::{Attester, Parts};
use crate::client::Client;
use crate::collect::Logs;
use crate::config::Config;
use crate::control::Hearing;
use crate::deliver::Delivery;
use crate::keep::{Keep, Outcome};
use crate::renew::{self, Rounds, Setback};
use crate::telemetry;
use crate::tpm::Tpm;
use crate::watch;

pub(super) fn run(config: Config) -> Result<(), Failure> {
    telemetry::start(config.log);
    let tpm = Tpm::spawn(config.tpm.clone())?;
    let ending = tpm.ending();
    let runtime = super::runtime()?;
    let outcome = runtime.block_on(attest(config, tpm));
    // With the runtime goes every task that might hold a handle. A read of a file that hangs is not waited for.
    runtime.shutdown_timeout(super::TPM_ENDS);
    if !ending.wait(super::TPM_ENDS) {
        tracing::warn!("{}", super::TPM_AT_WORK);
    }
    outcome
}

/// What an operator got wrong ends the process now; what may pass (the TPM, the verifier) never does.
async fn attest(config: Config, tpm: Tpm) -> Result<(), Failure> {
    // First, so that whoever stops it early is obeyed as well as later.
    let stop = stop_signal()?;
    let (control, collect) = (config.control.clone(), config.collect.clone());
    let client = Client::new(config.verifier.clone())?;
    let parts = Parts {
        client: Client::new(config.verifier)?,
        keep: Keep::open(&config.state)?,
        delivery: Delivery::open(&config.deliver)?,
        tpm,
        enrollment: config.enrollment,
        logs: Logs::new(config.collect),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), verifier = %parts.client.url(), "started");
    notify(&NotifyState::Ready);
    let file = parts.keep.control_file();
    let mut attester = Announcing(Attester::new(parts, Arc::new(SystemClock)));
    let alarm = Alarm::default();
    let hearing = Hearing {
        client: &client,
        identity: attester.0.identity(),
        alarm: &alarm,
        config: &control,
        file: Some(file),
    };
    let (mut rng, mut other) = (random::system(), random::system());
    // In one task: while the TPM signs for the stream, nothing else waits for it.
    tokio::join!(
        renew::run(&mut attester, &mut rng, &alarm, &stop),
        hearing.run(&SystemClock, &mut other, &stop),
        watch::watch(collect.ima_count, collect.attest_on_ima_growth, alarm.clone(), stop.clone()),
    );
    tracing::info!("stopped");
    Ok(())
}

/// Cancelled by SIGTERM or SIGINT.
fn stop_signal() -> Result<CancellationToken, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify(&NotifyState::Stopping);
        stopped.cancel();
    });
    Ok(stop)
}

/// Tells the service manager after each attempt how it went: `systemctl status` shows it.
struct Announcing(Attester);

impl Rounds for Announcing {
    fn hurry(&mut self, wanted: Wanted) {
        self.0.hurry(wanted);
    }

    async fn round(&mut self) -> Result<Duration, Setback> {
        let ended = self.0.round().await;
        let status = match self.0.last_outcome() {
            None => "waiting for the time that the verifier set".to_owned(),
            Some(Outcome::Attested) => {
                let posture = self.0.posture().map_or("unknown", |posture| posture.as_str());
                format!("attested: posture {posture}")
            }
            Some(Outcome::CannotAttest { reason }) => format!("cannot attest: {reason}"),
            Some(Outcome::Unreachable { reason }) => format!("the verifier does not answer: {reason}"),
            Some(Outcome::Refused { code, .. }) => format!("refused by the verifier: {code}"),
            Some(Outcome::Failed { reason }) => format!("failed: {reason}"),
        };
        notify(&NotifyState::Status(&status));
        ended
    }
}

fn notify(state: &NotifyState<'_>) {
    // Without a service manager there is nobody to tell.
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!(%error, "the service manager is not told");
    }
}
