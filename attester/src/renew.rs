//! The endless loop: attest, wait, attest. It never stops trying.
//!
//! How long to wait is the verifier's to say ([`Challenge::attest_in`]), a little less by chance so that machines that
//! started together do not stay together. After a failure it is chance alone, within a bound that doubles up to a
//! minute ("full jitter"), or what the verifier asked for where that is longer.
//!
//! [`Challenge::attest_in`]: rootbound_common::wire::v1::Challenge::attest_in

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use rand_core::Rng;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::alarm::{Alarm, Wanted};

/// One attempt after the other.
pub trait Rounds {
    /// Attests once, with all that it takes. Says how long to wait until the next time.
    fn round(&mut self) -> impl Future<Output = Result<Duration, Setback>> + Send;

    /// The next attestation is one before the time: it is to answer a new challenge.
    fn hurry(&mut self, _wanted: Wanted) {}
}

/// An attempt that did not end in an appraisal. Whoever made it has said why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setback {
    /// How long to wait at least.
    pub retry_after: Option<Duration>,
}

/// The bound of the first pause after a failure.
const FIRST: Duration = Duration::from_secs(1);
/// The bound of every later pause doubles up to this.
const LONGEST: Duration = Duration::from_secs(60);
/// No pause is shorter: a failure that comes at once must not keep a core, a TPM or a verifier busy.
const SHORTEST: Duration = Duration::from_millis(100);
/// The least pause from an attestation that somebody asked for to the next, once [`BURST`] of them came within as many of
/// these pauses: nobody keeps the TPM busy by asking, and whoever asks now and then does not wait.
const RUNG: Duration = Duration::from_secs(2);
/// Attestations that may be asked for one right after the other.
const BURST: usize = 5;
/// How long an attempt may go on when the process is to end; what it has not written by then it repeats.
const GRACE: Duration = Duration::from_secs(5);

/// Attests until `stop` is cancelled; before the time where the alarm rings.
pub async fn run(rounds: &mut impl Rounds, rng: &mut impl Rng, alarm: &Alarm, stop: &CancellationToken) {
    let (mut failures, mut rung) = (0, VecDeque::new());
    while !stop.is_cancelled() {
        let wanted = alarm.answer();
        if let Some(wanted) = wanted {
            rounds.hurry(wanted);
        }
        let round = rounds.round();
        tokio::pin!(round);
        let ended = tokio::select! {
            ended = &mut round => Some(ended),
            () = stop.cancelled() => timeout(GRACE, &mut round).await.ok(),
        };
        // Until `at_least`, whoever rings: a failing TPM or a verifier that asks for a pause is given it.
        let (pause, at_least) = match ended {
            None => return,
            Some(Ok(wait)) => {
                failures = 0;
                let least = if wanted.is_some() { least_pause(&mut rung, Instant::now()) } else { SHORTEST };
                (shortened(wait, rng).max(SHORTEST), least)
            }
            Some(Err(setback)) => {
                let asked = setback.retry_after.unwrap_or_default();
                let pause = backoff(failures, rng).max(asked);
                failures = failures.saturating_add(1);
                (pause, pause)
            }
        };
        let early = async {
            sleep(at_least).await;
            alarm.rung().await;
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = early => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Notes an attestation that somebody asked for, and says how long the next has to wait at least.
fn least_pause(rung: &mut VecDeque<Instant>, now: Instant) -> Duration {
    rung.push_back(now);
    if rung.len() < BURST {
        return SHORTEST;
    }
    let first = rung.pop_front();
    let within = RUNG.saturating_mul(u32::try_from(BURST).unwrap_or(u32::MAX));
    if first.is_some_and(|first| now.saturating_duration_since(first) < within) { RUNG } else { SHORTEST }
}

/// Between nine tenths of `wait` and all of it.
fn shortened(wait: Duration, rng: &mut impl Rng) -> Duration {
    wait.saturating_sub(below(wait / 10, rng))
}

/// Anything up to the bound after so many failures.
pub(crate) fn backoff(failures: u32, rng: &mut impl Rng) -> Duration {
    let bound = FIRST.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(LONGEST);
    below(bound, rng).max(SHORTEST)
}

/// A random time below `bound`, in steps of `bound / 2^32`.
fn below(bound: Duration, rng: &mut impl Rng) -> Duration {
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    let scaled = (u128::from(nanos) * u128::from(rng.next_u32())) >> 32;
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use rand_core::TryRng;

    use super::*;

    /// Draws the same number for ever.
    struct Always(u32);

    impl TryRng for Always {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            Ok(self.0)
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            Ok(u64::from(self.0))
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
            bytes.fill(0);
            Ok(())
        }
    }

    /// Ends as it was told to, notes when it was called, and stops the loop after the last.
    struct Scripted {
        outcomes: VecDeque<Result<Duration, Setback>>,
        called: Vec<Duration>,
        start: Instant,
        stop: CancellationToken,
    }

    impl Rounds for Scripted {
        async fn round(&mut self) -> Result<Duration, Setback> {
            self.called.push(self.start.elapsed());
            let outcome = self.outcomes.pop_front().unwrap();
            if self.outcomes.is_empty() {
                self.stop.cancel();
            }
            outcome
        }
    }

    async fn calls(outcomes: Vec<Result<Duration, Setback>>, random: u32) -> Vec<Duration> {
        let stop = CancellationToken::new();
        let mut rounds = Scripted {
            outcomes: outcomes.into(),
            called: Vec::new(),
            start: Instant::now(),
            stop: stop.clone(),
        };
        run(&mut rounds, &mut Always(random), &Alarm::default(), &stop).await;
        rounds.called
    }

    fn pauses(calls: &[Duration]) -> Vec<u64> {
        calls.windows(2).map(|pair| u64::try_from((pair[1] - pair[0]).as_millis()).unwrap()).collect()
    }

    const FAILED: Result<Duration, Setback> = Err(Setback { retry_after: None });

    #[tokio::test(start_paused = true)]
    async fn next_attestation_is_when_the_verifier_said_or_up_to_a_tenth_earlier() {
        let script = || vec![Ok(Duration::from_secs(100)), Ok(Duration::from_secs(100))];
        assert_eq!(pauses(&calls(script(), 0).await), [100_000]);
        assert_eq!(pauses(&calls(script(), u32::MAX / 2).await)[0] / 100, 950);
        assert_eq!(pauses(&calls(script(), u32::MAX).await)[0] / 100, 900);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_after_failures_double_up_to_a_minute() {
        let pauses = pauses(&calls(vec![FAILED; 10], u32::MAX).await);
        let seconds: Vec<u64> = pauses.iter().map(|millis| millis.div_ceil(1000)).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn trying_goes_on_after_any_number_of_failures_and_never_spins() {
        let pauses = pauses(&calls(vec![FAILED; 200], 0).await);
        assert_eq!(pauses, vec![100; 199]);
    }

    #[tokio::test(start_paused = true)]
    async fn success_resets_the_backoff() {
        let script = vec![FAILED, FAILED, FAILED, Ok(Duration::ZERO), FAILED, FAILED];
        let pauses = pauses(&calls(script, u32::MAX).await);
        assert_eq!(pauses.iter().map(|millis| millis.div_ceil(1000)).collect::<Vec<_>>(), [1, 2, 4, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn pause_that_the_verifier_asks_for_is_honoured() {
        let asked = Err(Setback { retry_after: Some(Duration::from_secs(90)) });
        assert_eq!(pauses(&calls(vec![asked, FAILED], 7).await), [90_000]);
    }

    /// When the attempts of a script begin where the alarm rings `at` these seconds.
    async fn woken(outcomes: Vec<Result<Duration, Setback>>, at: &[u64]) -> Vec<u64> {
        woken_by(outcomes, at, 0).await
    }

    async fn woken_by(outcomes: Vec<Result<Duration, Setback>>, at: &[u64], random: u32) -> Vec<u64> {
        let (stop, alarm) = (CancellationToken::new(), Alarm::default());
        let start = Instant::now();
        let mut rounds = Scripted { outcomes: outcomes.into(), called: vec![], start, stop: stop.clone() };
        let mut random = Always(random);
        let ringing = async {
            for second in at {
                tokio::time::sleep_until(start + Duration::from_secs(*second)).await;
                alarm.ring(crate::alarm::Reason::Asked);
            }
        };
        tokio::join!(run(&mut rounds, &mut random, &alarm, &stop), ringing);
        rounds.called.iter().map(|at| u64::try_from(at.as_millis()).unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn alarm_wakes_the_loop_but_not_out_of_a_pause_that_was_asked_for() {
        let minute = Ok(Duration::from_secs(60));
        assert_eq!(woken(vec![minute, minute, minute], &[10]).await, [0, 10_000, 70_000]);
        assert_eq!(woken(vec![minute, minute, minute], &[0, 0]).await, [0, 100, 60_100]);
        let asked = Err(Setback { retry_after: Some(Duration::from_secs(30)) });
        assert_eq!(woken(vec![asked, minute], &[10]).await, [0, 30_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn alarm_that_rings_without_end_is_heeded_each_two_seconds() {
        let minute = Ok(Duration::from_secs(60));
        let ringing: Vec<u64> = (0..30).flat_map(|second| [second; 10]).collect();
        let burst = [0, 100, 1_000, 2_000, 3_000];
        let then = [4_000, 6_000, 8_000];
        assert_eq!(woken(vec![minute; 8], &ringing).await, [&burst[..], &then[..]].concat());
        assert_eq!(woken(vec![minute; 3], &[10, 11]).await, [0, 10_000, 11_000], "now and then at once");
    }

    #[tokio::test(start_paused = true)]
    async fn alarm_does_not_shorten_the_pause_after_a_failure() {
        let ringing: Vec<u64> = (0..9).collect();
        let undisturbed = calls(vec![FAILED; 4], u32::MAX).await;
        let expected: Vec<_> = undisturbed.iter().map(|at| u64::try_from(at.as_millis()).unwrap()).collect();
        assert_eq!(woken_by(vec![FAILED; 4], &ringing, u32::MAX).await, expected);
    }

    /// Never comes back.
    struct Stuck;

    impl Rounds for Stuck {
        async fn round(&mut self) -> Result<Duration, Setback> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stop_ends_a_pause_at_once_and_a_stuck_attempt_after_the_grace() {
        let (mut random, mut stuck) = (Always(0), Stuck);
        let stop = CancellationToken::new();
        let start = Instant::now();
        let stopper = async {
            sleep(Duration::from_secs(10)).await;
            stop.cancel();
        };
        let alarm = Alarm::default();
        tokio::join!(run(&mut stuck, &mut random, &alarm, &stop), stopper);
        assert_eq!(start.elapsed().as_secs(), 15);

        let stop = CancellationToken::new();
        let mut waiting = Scripted {
            outcomes: vec![Ok(Duration::from_secs(1000)); 2].into(),
            called: Vec::new(),
            start: Instant::now(),
            stop: CancellationToken::new(),
        };
        let stopper = async {
            sleep(Duration::from_secs(10)).await;
            stop.cancel();
        };
        tokio::join!(run(&mut waiting, &mut random, &alarm, &stop), stopper);
        assert_eq!((waiting.called.len(), waiting.start.elapsed().as_secs()), (1, 10));
    }
}
