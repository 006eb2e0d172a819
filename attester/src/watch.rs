//! Reasons to attest that the machine sees itself: much was measured since the last time, or it has slept.
//!
//! Both are looked for every few seconds, and cost a read of a small file and of two clocks. A process that makes the list
//! grow without end makes for an attestation each [`GAP`], no more: the TPM stays usable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::alarm::{Alarm, Reason};

/// How often to look.
const EVERY: Duration = Duration::from_secs(3);
/// The least time between two attestations for the sake of the list.
pub const GAP: Duration = Duration::from_secs(10);
/// The clocks that go on and that stop while the machine sleeps are this far apart after a sleep that counts.
const SLEPT: Duration = Duration::from_secs(1);
/// The kernel writes a decimal number and a line feed.
const LONGEST_COUNT: usize = 32;

/// Watches until told to stop. `growth` is how many new entries are a reason; 0: none.
pub async fn watch(count: PathBuf, growth: u64, alarm: Alarm, stop: CancellationToken) {
    let mut due = interval(EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut list = Growth::new(growth);
    let mut asleep = time_asleep();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = due.tick() => {}
        }
        let now = time_asleep();
        if now.saturating_sub(asleep) >= SLEPT {
            tracing::info!("the machine has slept: attesting");
            alarm.ring(Reason::Resumed);
        }
        asleep = now;
        let (path, rounds) = (count.clone(), alarm.rounds());
        let read = tokio::task::spawn_blocking(move || read_count(&path)).await;
        if let Ok(Some(entries)) = read
            && list.is_a_reason(entries, rounds, Instant::now())
        {
            alarm.ring(Reason::Grown);
        }
    }
}

/// How long the machine has slept since it booted.
fn time_asleep() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    let awake = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(awake)
}

/// The kernel's number of entries; `None` where it has no such list.
fn read_count(path: &Path) -> Option<u64> {
    use std::io::Read;
    let mut text = String::new();
    let limit = u64::try_from(LONGEST_COUNT).unwrap_or(u64::MAX);
    std::fs::File::open(path).ok()?.take(limit).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// How the list grows from one attestation to the next.
#[derive(Debug)]
struct Growth {
    least: u64,
    /// What it had when the last attestation began, or a little less.
    from: Option<u64>,
    seen: u64,
    rounds: u64,
    quiet_until: Option<Instant>,
}

impl Growth {
    fn new(least: u64) -> Self {
        Self { least, from: None, seen: 0, rounds: 0, quiet_until: None }
    }

    /// Whether the list, which has so many entries now, has grown enough since the last attestation, and it is not too soon.
    fn is_a_reason(&mut self, entries: u64, rounds: u64, now: Instant) -> bool {
        if self.rounds != rounds || entries < self.seen {
            // Entries that came since the last look may not have gone along: they count as new.
            self.from = self.from.map(|_| self.seen.min(entries));
            self.rounds = rounds;
        }
        self.seen = entries;
        let from = *self.from.get_or_insert(entries);
        let enough = self.least > 0 && entries.saturating_sub(from) >= self.least;
        if !enough || self.quiet_until.is_some_and(|end| now < end) {
            return false;
        }
        self.from = Some(entries);
        self.quiet_until = Some(now + GAP);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_since_the_last_attestation_is_a_reason_and_never_too_often() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut growth = Growth::new(64);
        assert!(!growth.is_a_reason(1000, 1, start), "what was there is nothing new");
        assert!(!growth.is_a_reason(1063, 1, start));
        assert!(growth.is_a_reason(1064, 1, start));
        assert!(!growth.is_a_reason(9000, 1, start + 9 * second), "not so soon");
        assert!(growth.is_a_reason(9000, 1, start + 10 * second));
        // An attestation for another reason took the entries along.
        assert!(!growth.is_a_reason(9060, 1, start + 30 * second));
        assert!(!growth.is_a_reason(9070, 2, start + 33 * second));
        assert!(growth.is_a_reason(9124, 2, start + 36 * second));
        // Another list.
        assert!(!growth.is_a_reason(10, 2, start + 60 * second));
        assert!(growth.is_a_reason(80, 2, start + 63 * second));
        let mut never = Growth::new(0);
        assert!(!never.is_a_reason(0, 0, start) && !never.is_a_reason(u64::MAX, 0, start));
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_grows_wakes_the_loop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("count");
        assert_eq!(read_count(&path), None);
        std::fs::write(&path, "100\n").unwrap();
        assert_eq!(read_count(&path), Some(100));
        let (alarm, stop) = (Alarm::default(), CancellationToken::new());
        let watching = tokio::spawn(watch(path.clone(), 64, alarm.clone(), stop.clone()));
        let grows = async {
            let mut count = 100;
            loop {
                tokio::time::sleep(EVERY).await;
                count += 100;
                std::fs::write(&path, format!("{count}\n")).unwrap();
            }
        };
        tokio::select! {
            () = alarm.rung() => {}
            () = grows => {}
        }
        stop.cancel();
        watching.await.unwrap();
    }
}
