//! When to open a stream, and when to ask instead, by how the last attempts went.

use std::time::Duration;

use rand_core::Rng;
use tokio::time::Instant;

use super::ControlConfig;
use crate::renew::backoff;

/// After so many failures in a row the verifier is asked instead.
const PATIENCE: u32 = 2;
/// How long to ask before the stream is tried again.
const RETRY_STREAM: Duration = Duration::from_secs(300);
/// No pause is shorter: each stream and each question costs a signature of the TPM.
const SHORTEST: Duration = Duration::from_secs(1);
/// A stream that was held so long is a success: the failures before it are not in a row with those after it.
const LASTING: Duration = Duration::from_secs(60);
/// A verifier that has a stream opened anew sooner than this does not serve it.
const ORDERLY: Duration = Duration::from_secs(5);

/// Why a stream is held no more, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// As the verifier said it would.
    InOrder,
    /// There is another credential to hold it with.
    OtherCredential,
    /// Otherwise.
    Failed,
}

/// How the attempts went.
#[derive(Debug)]
pub(super) struct Attempts {
    failures: u32,
    stream_at: Instant,
}

impl Attempts {
    pub(super) fn new(now: Instant) -> Self {
        Self { failures: 0, stream_at: now }
    }

    /// Whether to open a stream, and not to ask.
    pub(super) fn stream_is_due(&self, now: Instant) -> bool {
        now >= self.stream_at
    }

    /// A stream has ended, or could not be opened: then it was held for no time. Says how long to wait.
    pub(super) fn ended(
        &mut self,
        ended: Ended,
        held: Duration,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Duration {
        if held >= LASTING {
            self.failures = 0;
        }
        let failed = match ended {
            Ended::OtherCredential => return self.other_credential(now, rng),
            Ended::InOrder => held < ORDERLY,
            Ended::Failed => true,
        };
        if !failed {
            return pause(0, rng);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= PATIENCE {
            self.stream_at = now + RETRY_STREAM;
        }
        pause(self.failures, rng)
    }

    /// Nothing is known against a stream with another credential. Says how long to wait.
    pub(super) fn other_credential(&mut self, now: Instant, rng: &mut impl Rng) -> Duration {
        *self = Self::new(now);
        pause(0, rng)
    }

    /// The verifier was asked. Says how long to wait.
    pub(super) fn asked(&mut self, config: &ControlConfig, now: Instant) -> Duration {
        let poll_every = config.poll_every.get();
        if !config.stream {
            return poll_every;
        }
        // One more failure, and it is asked again.
        self.failures = PATIENCE;
        poll_every.min(self.stream_at.saturating_duration_since(now)).max(SHORTEST)
    }
}

/// On top of the shortest, so that machines that lost their streams together do not come back together.
fn pause(failures: u32, rng: &mut impl Rng) -> Duration {
    SHORTEST.saturating_add(backoff(failures, rng))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::PollEvery;

    const SECOND: Duration = Duration::from_secs(1);

    /// Whether a stream is due after streams that ended so, after so many seconds, one after the other.
    fn due_after(streams: &[(Ended, u32)]) -> bool {
        let mut rng = rootbound_common::random::system();
        let mut now = Instant::now();
        let mut attempts = Attempts::new(now);
        for (ended, held) in streams {
            let held = *held * SECOND;
            now += held;
            let pause = attempts.ended(*ended, held, now, &mut rng);
            assert!(pause >= SHORTEST, "{streams:?}: {pause:?}");
            now += pause;
        }
        attempts.stream_is_due(now)
    }

    #[test]
    fn only_failures_in_a_row_make_for_asking() {
        use Ended::{Failed, InOrder, OtherCredential};
        assert!(due_after(&[(Failed, 0)]));
        assert!(!due_after(&[(Failed, 0), (Failed, 0)]));
        assert!(!due_after(&[(Failed, 0), (Failed, 59)]));
        assert!(due_after(&[(Failed, 0), (Failed, 60)]), "a stream that lasted is between them");
        assert!(!due_after(&[(Failed, 60), (Failed, 0)]));
        assert!(!due_after(&[(Failed, 0), (InOrder, 10), (Failed, 0)]), "a short one is not");
        assert!(due_after(&[(Failed, 0), (InOrder, 60), (Failed, 0)]));
        assert!(due_after(&[(Failed, 0), (OtherCredential, 0), (Failed, 0)]));
    }

    #[test]
    fn verifier_that_has_streams_opened_anew_at_once_is_asked_instead() {
        assert!(!due_after(&[(Ended::InOrder, 0), (Ended::InOrder, 4)]));
        assert!(due_after(&[(Ended::InOrder, 5); 100]));
    }

    #[test]
    fn stream_is_tried_again_in_time_however_seldom_the_verifier_is_asked() {
        let mut rng = rootbound_common::random::system();
        let now = Instant::now();
        let seldom = |stream| ControlConfig { stream, poll_every: PollEvery::new(3600 * SECOND).unwrap() };
        let mut attempts = Attempts::new(now);
        attempts.ended(Ended::Failed, Duration::ZERO, now, &mut rng);
        attempts.ended(Ended::Failed, Duration::ZERO, now, &mut rng);
        assert_eq!(attempts.asked(&seldom(true), now + 10 * SECOND), 290 * SECOND);
        assert_eq!(attempts.asked(&seldom(true), now + 300 * SECOND), SHORTEST);
        assert_eq!(attempts.asked(&seldom(false), now), 3600 * SECOND);
        assert_eq!(attempts.asked(&ControlConfig::default(), now), 30 * SECOND);
        assert!(attempts.stream_is_due(now + RETRY_STREAM));
        attempts.ended(Ended::Failed, Duration::ZERO, now + RETRY_STREAM, &mut rng);
        assert!(!attempts.stream_is_due(now + RETRY_STREAM + 299 * SECOND), "one failure is enough then");
    }
}
