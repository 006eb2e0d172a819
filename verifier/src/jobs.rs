//! Background jobs: idempotent, without input, run when the clock or a test says.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::RetentionSection;
use crate::flows::Verifier;

/// How often housekeeping runs: spent challenges live about two intervals, so that the table stays small.
const EVERY: Duration = Duration::from_secs(60);

/// How often it is looked whether a checkpoint of the audit trail is due.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// Runs housekeeping until told to stop. Decisions and expired certificates are kept as `keep` says.
pub async fn run(verifier: Arc<Verifier>, keep: RetentionSection, stop: CancellationToken) {
    let (mut due, mut checkpoint) = (tokio::time::interval(EVERY), tokio::time::interval(CHECKPOINT));
    // Said once, not each second: a disk may be full for long.
    let mut unsigned = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = checkpoint.tick() => match verifier.checkpoint_where_due().await {
                Ok(()) => unsigned = false,
                Err(error) if !unsigned => {
                    unsigned = true;
                    tracing::error!(%error, "the audit trail cannot be signed; it is tried again each second");
                }
                Err(_) => {}
            },
            _ = due.tick() => {
                if let Err(error) = verifier.forget(keep.decisions, keep.refusals).await {
                    tracing::error!(%error, "housekeeping failed; it is tried again in a minute");
                }
                match verifier.forget_old_records().await {
                    Ok(0) => {}
                    Ok(segments) => tracing::info!(segments, "old records of the audit trail are gone"),
                    Err(error) => tracing::error!(%error, "the audit trail could not be shortened"),
                }
            }
        }
    }
}
