//! The real programs as processes: started, killed at any moment, started again on the same files.
//!
//! - [`Daemon`]: a process, what it says on standard error, and its end
//! - [`VerifierSite`]: the folder that `init` makes, and a port that stays the same over restarts
//! - [`AttesterSite`]: a configuration, a state folder, a delivery folder
//! - [`Delivered`]: what a workload finds in the delivery folder, checked as one set
//!
//! Tests pass the program: `env!("CARGO_BIN_EXE_verifier-under-test")`, `env!("CARGO_BIN_EXE_attester-under-test")`.

mod attester;
mod delivered;
mod file_events;
mod verifier;

use std::io::{BufRead, BufReader};
use std::ops::AsyncFnMut;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::sync::watch;

pub use attester::AttesterSite;
pub use delivered::Delivered;
pub use file_events::FileEvents;
pub use verifier::VerifierSite;

/// How long something may take that takes a second on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A program that runs. It is killed on drop.
pub struct Daemon {
    process: Child,
    lines: watch::Sender<Lines>,
    reader: Option<JoinHandle<()>>,
}

/// What it has said so far.
#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn contain(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}

impl Daemon {
    /// Starts a program.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = process.stderr.take().expect("a pipe");
        let lines = watch::Sender::new(Lines::default());
        let heard = lines.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let line = line.expect("a line of UTF-8");
                heard.send_modify(|lines| lines.lines.push(line));
            }
            heard.send_modify(|lines| lines.ended = true);
        });
        Self { process, lines, reader: Some(reader) }
    }

    /// Starts a program whose disk can be filled ([`Daemon::fill_disk`]), and where wanted is full from the start.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start_on_small_disk(command: &Command, full: bool) -> Self {
        // A process that SIGXFSZ ends would not be one that the disk is full for; what is ignored stays so over exec.
        let limit = if full { "ulimit -S -f 0; " } else { "" };
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("trap '' XFSZ; {limit}exec \"$@\"")).arg("sh");
        shell.arg(command.get_program()).args(command.get_args());
        Self::start(shell)
    }

    /// Waits until a line contains the text.
    ///
    /// # Panics
    /// Where the program ends before, or says nothing of the kind.
    pub async fn says(&self, text: &str) {
        let mut lines = self.lines.subscribe();
        let said = lines.wait_for(|lines| lines.ended || lines.contain(text));
        let said = tokio::time::timeout(LIMIT, said)
            .await
            .is_ok_and(|lines| lines.expect("the sender is ours").contain(text));
        assert!(said, "never said {text:?}:\n{}", self.log());
    }

    /// Lines that contain the text, so far.
    #[must_use]
    pub fn said(&self, text: &str) -> Vec<String> {
        self.lines.borrow().lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// All that it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.lines.borrow().lines.join("\n")
    }

    /// Memory that is resident now, in KB: `VmRSS`.
    ///
    /// # Panics
    /// Where it has ended.
    #[must_use]
    pub fn resident_kb(&self) -> u64 {
        self.memory_kb("VmRSS:")
    }

    /// The most memory that was ever resident, in KB: `VmHWM`.
    ///
    /// # Panics
    /// Where it has ended.
    #[must_use]
    pub fn peak_kb(&self) -> u64 {
        self.memory_kb("VmHWM:")
    }

    fn memory_kb(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("a process that runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// SIGKILL: from here on not one instruction of it is executed.
    ///
    /// # Panics
    /// Where it had ended by itself.
    pub fn kill(mut self) {
        let ended = self.process.try_wait().expect("our own process");
        assert!(ended.is_none(), "ended by itself, {ended:?}:\n{}", self.log());
        self.process.kill().expect("a process that runs");
        self.process.wait().expect("our own process");
    }

    /// SIGTERM, as a service manager stops it; returns all that it said.
    ///
    /// # Panics
    /// Where that does not end it, or not well.
    pub async fn stop(mut self) -> String {
        kill_process(self.pid(), Signal::TERM).expect("a process that runs");
        let status = self.ended().await;
        assert!(status.success(), "ended with {status}:\n{}", self.log());
        self.log()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not come.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut lines = self.lines.subscribe();
        let ended = tokio::time::timeout(LIMIT, lines.wait_for(|lines| lines.ended)).await.is_ok();
        assert!(ended, "does not end:\n{}", self.log());
        self.process.wait().expect("our own process")
    }

    /// From now on it can write nothing into a file, as where the disk is full (`EFBIG` in place of `ENOSPC`).
    /// For programs that were [started so](Self::start_on_small_disk).
    ///
    /// # Panics
    /// Where the limit cannot be set.
    pub fn fill_disk(&self) {
        self.limit_files(Some(0));
    }

    /// Takes [`Self::fill_disk`] back.
    ///
    /// # Panics
    /// Where the limit cannot be set.
    pub fn free_disk(&self) {
        self.limit_files(None);
    }

    fn limit_files(&self, size: Option<u64>) {
        // Only the soft limit, which any user may raise again.
        let limit = Rlimit { current: size, maximum: None };
        prlimit(Some(self.pid()), Resource::Fsize, limit).expect("a limit for a process of ours");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and a panic would hide the test's own.
        drop(self.process.kill());
        drop(self.process.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

/// Asks again and again, less and less often, until the answer is yes.
///
/// # Panics
/// Where it stays no for longer than [`LIMIT`].
pub async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    until_within(LIMIT, what, condition).await;
}

/// The same, for what takes longer on an idle machine.
///
/// # Panics
/// Where it does not come true.
pub async fn until_within(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let (start, mut pause) = (Instant::now(), Duration::from_millis(5));
    while !condition().await {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
