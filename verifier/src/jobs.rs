//! Background jobs: idempotent, without input, run when the clock or a test says.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::RetentionSection;
use crate::flows::Verifier;

/// How often housekeeping runs: spent challenges live about two intervals, so that the table stays small.
const EVERY: Duration = Duration::from_secs(60);

/// Runs housekeeping until told to stop. Decisions and expired certificates are kept as `keep` says.
pub async fn run(verifier: Arc<Verifier>, keep: RetentionSection, stop: CancellationToken) {
    let mut due = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = due.tick() => {}
        }
        if let Err(error) = verifier.forget(keep.decisions, keep.refusals).await {
            tracing::error!(%error, "housekeeping failed; it is tried again in a minute");
        }
    }
}
