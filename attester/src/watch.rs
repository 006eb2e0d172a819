//! Reasons to attest that the machine sees itself: much was measured since the last time, or it has slept.
//!
//! Both are looked for every few seconds, and cost a read of a small file and of two clocks. A process that makes the list
//! grow without end makes for an attestation each [`GAP`], no more: the TPM stays usable.

use std::fs::File;
use std::io::{self, Read};
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
    tokio::select! {
        () = stop.cancelled() => {}
        () = look(count, growth, &alarm, time_asleep) => {}
    }
}

/// `asleep` says how long the machine has slept since it booted.
async fn look(count: PathBuf, growth: u64, alarm: &Alarm, asleep: impl Fn() -> Duration) {
    let mut due = interval(EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut list, mut complaint) = (Growth::new(growth), Complaint::default());
    let mut slept = asleep();
    loop {
        due.tick().await;
        let now = asleep();
        if now.saturating_sub(slept) >= SLEPT {
            tracing::info!("the machine has slept: attesting");
            alarm.ring(Reason::Resumed);
        }
        slept = now;
        if growth == 0 {
            continue;
        }
        let (path, rounds) = (count.clone(), alarm.rounds());
        let Ok(read) = tokio::task::spawn_blocking(move || read_count(&path)).await else { continue };
        if let Some(error) = complaint.of(&read) {
            tracing::warn!(%error, path = %count.display(), "the number of entries of the IMA list cannot be read");
        }
        if let Ok(Some(entries)) = read
            && list.is_a_reason(entries, rounds, Instant::now())
        {
            alarm.ring(Reason::Grown);
        }
    }
}

/// Whether it was said that the file cannot be read: that is said once, and again after it could be.
#[derive(Debug, Default)]
struct Complaint {
    made: bool,
}

impl Complaint {
    /// What is to be said.
    fn of<'a>(&mut self, read: &'a io::Result<Option<u64>>) -> Option<&'a io::Error> {
        match read {
            Ok(Some(_)) => self.made = false,
            // A file that is away for a moment has not been read.
            Ok(None) => {}
            Err(_) if self.made => {}
            Err(error) => {
                self.made = true;
                return Some(error);
            }
        }
        None
    }
}

/// How long the machine has slept since it booted.
fn time_asleep() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    let awake = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(awake)
}

/// The kernel's number of entries; `None` where it has no such list. Opens a regular file only: others may block.
fn read_count(path: &Path) -> io::Result<Option<u64>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    let limit = u64::try_from(LONGEST_COUNT).unwrap_or(u64::MAX);
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    let count = text.trim().parse();
    count.map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not a number"))
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
        assert_eq!(read_count(&path).unwrap(), None);
        std::fs::write(&path, "100\n").unwrap();
        assert_eq!(read_count(&path).unwrap(), Some(100));
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

    /// Each look of the test's clock: it has slept so long by then, and what rang before is asked for.
    #[tokio::test(start_paused = true)]
    async fn a_machine_that_has_slept_attests_once_for_each_sleep() {
        let alarm = Alarm::default();
        let heard = std::sync::Mutex::new(Vec::new());
        // At the beginning, and then at each look. A machine that is awake has both clocks go alike, or nearly so.
        let slept = [7_000, 7_000, 7_001, 8_000, 8_999, 10_000, 10_000, 9_000, 3_610_000, 3_610_000];
        let looks = std::sync::Mutex::new(slept.into_iter());
        let (done, all) = (tokio::sync::Notify::new(), alarm.clone());
        let asleep = || {
            heard.lock().unwrap().push(all.answer().is_some());
            let next = looks.lock().unwrap().next();
            if next.is_none() {
                done.notify_one();
            }
            Duration::from_millis(next.unwrap_or(3_610_000))
        };
        tokio::select! {
            () = look(PathBuf::from("/nonexistent"), 0, &alarm, asleep) => unreachable!("it goes on"),
            () = done.notified() => {}
        }
        let rang = heard.lock().unwrap().clone();
        // What a look rings is heard at the next one: 8999 to 10000 ms is a second of sleep, and so is the hour after.
        let expected = [false, false, false, false, false, false, true, false, false, true, false];
        assert_eq!(rang, expected);
    }

    #[test]
    fn the_time_asleep_of_this_machine_is_less_than_the_time_since_its_boot() {
        let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap();
        assert!(time_asleep() < since_boot);
    }

    #[test]
    fn only_a_regular_file_with_a_number_is_read() {
        use rustix::fs::{CWD, Mode, mkfifoat};
        let folder = tempfile::tempdir().unwrap();
        let kind = |path: &Path| read_count(path).unwrap_err().kind();
        let fifo = folder.path().join("fifo");
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(kind(&fifo), io::ErrorKind::InvalidInput, "and is not waited for");
        assert_eq!(kind(folder.path()), io::ErrorKind::InvalidInput);
        assert_eq!(kind(Path::new("/dev/zero")), io::ErrorKind::InvalidInput);
        let text = folder.path().join("text");
        for content in ["", "many", "-1", &"1".repeat(100)] {
            std::fs::write(&text, content).unwrap();
            assert_eq!(kind(&text), io::ErrorKind::InvalidData, "{content}");
        }
        assert_eq!(kind(&text.join("below")), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn file_that_cannot_be_read_is_complained_of_once_until_it_can_be() {
        let mut complaint = Complaint::default();
        let mut said = |read: io::Result<Option<u64>>| complaint.of(&read).is_some();
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        assert!(!said(Ok(None)));
        assert!(said(denied()));
        assert!(!said(denied()) && !said(Ok(None)) && !said(denied()));
        assert!(!said(Ok(Some(1))));
        assert!(said(denied()));
    }

    #[test]
    fn watching_ends_while_a_count_is_read() {
        // The only thread that could read is busy.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (release, busy) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let occupied = tokio::task::spawn_blocking(move || busy.recv().is_err());
            let (alarm, stop) = (Alarm::default(), CancellationToken::new());
            let mut watching = std::pin::pin!(watch(PathBuf::from("/"), 64, alarm, stop.clone()));
            for _ in 0..3 {
                let waits = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(watching.as_mut().poll(context).is_pending())
                });
                assert!(waits.await);
            }
            stop.cancel();
            let ended = std::future::poll_fn(|context| {
                std::task::Poll::Ready(watching.as_mut().poll(context).is_ready())
            });
            assert!(ended.await, "the read is not waited for");
            drop(release);
            assert!(occupied.await.unwrap());
        });
    }
}
