//! Reasons to attest before the time: they wake the loop of [`crate::renew`], and coalesce until it attests.
//!
//! There is one attestation at a time, whoever asks: the loop makes it, and whatever rang before it began is done by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Why to attest now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The verifier asks for evidence.
    Asked,
    /// The verifier asks that another certificate be asked for.
    Renew,
    /// The IMA list has grown.
    Grown,
    /// The machine has slept.
    Resumed,
}

/// What is wanted of the next attestation, which is to begin with a new challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Whether another certificate is to be asked for.
    pub renew: bool,
}

/// Rung by whoever has a reason, heard by the loop.
#[derive(Debug, Clone, Default)]
pub struct Alarm(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    wanted: Mutex<Option<Wanted>>,
    rung: Notify,
    rounds: AtomicU64,
}

impl Alarm {
    fn wanted(&self) -> MutexGuard<'_, Option<Wanted>> {
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for an attestation before the time.
    pub fn ring(&self, reason: Reason) {
        tracing::debug!(?reason, "attesting before the time");
        self.wanted().get_or_insert_default().renew |= reason == Reason::Renew;
        self.0.rung.notify_one();
    }

    /// Another certificate has come: whoever asked for one before has it. Evidence is wanted all the same.
    pub fn renewed(&self) {
        if let Some(wanted) = self.wanted().as_mut() {
            wanted.renew = false;
        }
    }

    /// Returns when it has rung and nobody has answered.
    pub async fn rung(&self) {
        while self.wanted().is_none() {
            self.0.rung.notified().await;
        }
    }

    /// What rang until now; an attestation begins.
    pub fn answer(&self) -> Option<Wanted> {
        self.0.rounds.fetch_add(1, Ordering::Relaxed);
        self.wanted().take()
    }

    /// How many attestations have begun.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.0.rounds.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_rings_before_an_attestation_is_answered_by_it() {
        let alarm = Alarm::default();
        alarm.ring(Reason::Asked);
        alarm.ring(Reason::Renew);
        alarm.ring(Reason::Grown);
        alarm.rung().await;
        assert_eq!((alarm.answer(), alarm.rounds()), (Some(Wanted { renew: true }), 1));
        assert_eq!((alarm.answer(), alarm.rounds()), (None, 2));
        alarm.renewed();
        assert_eq!(alarm.answer(), None, "a certificate is no reason");
        alarm.ring(Reason::Renew);
        alarm.renewed();
        assert_eq!((alarm.answer(), alarm.rounds()), (Some(Wanted { renew: false }), 4));
        let (other, waiting) = (alarm.clone(), alarm.rung());
        tokio::join!(waiting, async { other.ring(Reason::Resumed) });
        assert_eq!(alarm.answer(), Some(Wanted { renew: false }));
    }
}
