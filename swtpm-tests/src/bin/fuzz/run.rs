//! Runs targets side by side, watches that none hangs, and keeps what fails.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rootbound_common::crypto::sha256;

use crate::pool::Pool;
use crate::target::{Target, TargetName};
use rootbound_swtpm_tests::random::Random;

/// No input of a few KB takes this long, on the slowest machine and without optimisation.
const HANGS: Duration = Duration::from_secs(10);
/// No target needs this much: inputs are bounded, and so is the pool.
const MOST_MEMORY_KB: u64 = 512 * 1024;

/// What to run.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) artifacts: PathBuf,
    pub(crate) lasts: Option<Duration>,
}

/// An input that must not be.
pub(crate) struct Failure {
    pub(crate) target: TargetName,
    pub(crate) what: String,
    pub(crate) file: PathBuf,
}

/// The input that a target works on now.
struct Current {
    input: Vec<u8>,
    since: Instant,
}

/// How far a target has come.
#[derive(Default)]
struct Tally {
    inputs: u64,
    accepted: u64,
    slowest: Duration,
}

impl Run {
    /// Runs the targets until the time is over or each has failed.
    pub(crate) fn all(&self, targets: &[TargetName]) -> Result<(), Vec<Failure>> {
        let current: Vec<_> = targets
            .iter()
            .map(|_| Mutex::new(Current { input: Vec::new(), since: Instant::now() }))
            .collect();
        let mut failures = Vec::new();
        let (ended, endings) = channel();
        std::thread::scope(|scope| {
            for (target, current) in targets.iter().zip(&current) {
                let ended = ended.clone();
                scope.spawn(move || self.one(*target, current, &ended));
            }
            let mut running = targets.len();
            while running > 0 {
                match endings.recv_timeout(Duration::from_secs(1)) {
                    Ok(failure) => {
                        running -= 1;
                        failures.extend(failure);
                    }
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                        self.watch(targets, &current);
                    }
                }
            }
        });
        let peak = peak_memory_kb();
        println!("fuzz: peak memory {} MB", peak / 1024);
        assert!(peak < MOST_MEMORY_KB, "more than {} MB were needed", MOST_MEMORY_KB / 1024);
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    fn one(&self, name: TargetName, current: &Mutex<Current>, ended: &Sender<Option<Failure>>) {
        const REPORT_EVERY: Duration = Duration::from_secs(60);
        let mut random = Random::new(self.seed ^ u64::from(name.to_string().as_bytes()[0]));
        let mut target = name.build();
        let seeds = target.seeds();
        let mut pool = Pool::new(seeds.clone());
        let mut tally = Tally::default();
        let start = Instant::now();
        let mut reported = start;
        let mut first = seeds.into_iter();
        let failure = loop {
            let input = first.next().unwrap_or_else(|| target.mutate(&pool, &mut random));
            if let Err(what) = step(&mut *target, &input, current, &mut pool, &mut tally, &mut random) {
                let file = keep(&self.artifacts, name, &input);
                break Some(Failure { target: name, what, file });
            }
            if tally.inputs.is_multiple_of(64) {
                if self.lasts.is_some_and(|lasts| start.elapsed() >= lasts) {
                    break None;
                }
                if reported.elapsed() >= REPORT_EVERY {
                    reported = Instant::now();
                    println!("{name}: {}", tally.in_words(&pool));
                }
            }
        };
        println!("{name}: {}", tally.in_words(&pool));
        // Nobody listens any more only where the process ends.
        let _ = ended.send(failure);
    }

    /// A thread that hangs cannot be stopped: the input is kept, and the process ends.
    fn watch(&self, targets: &[TargetName], current: &[Mutex<Current>]) {
        for (name, current) in targets.iter().zip(current) {
            // A target that has ended left its lock open; one that panicked did not hold it.
            let Ok(current) = current.lock() else { continue };
            if !current.input.is_empty() && current.since.elapsed() > HANGS {
                let file = keep(&self.artifacts, *name, &current.input);
                println!("{name}: FAILED: an input took more than {HANGS:?}: {}", file.display());
                std::process::exit(1);
            }
        }
    }
}

/// Runs one input; what it panics with is the failure.
fn step(
    target: &mut dyn Target,
    input: &[u8],
    current: &Mutex<Current>,
    pool: &mut Pool,
    tally: &mut Tally,
    random: &mut Random,
) -> Result<(), String> {
    let start = Instant::now();
    set(current, input, start);
    let outcome = catch_unwind(AssertUnwindSafe(|| target.run(input)));
    set(current, &[], start);
    let outcome = outcome.map_err(|payload| words(&*payload))?;
    tally.inputs += 1;
    tally.accepted += u64::from(outcome.accepted);
    tally.slowest = tally.slowest.max(start.elapsed());
    pool.offer(input, &outcome.class, random);
    Ok(())
}

fn set(current: &Mutex<Current>, input: &[u8], since: Instant) {
    let mut current = current.lock().expect("no panic happens under this lock");
    current.input.clear();
    current.input.extend_from_slice(input);
    current.since = since;
}

fn words(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// Writes an input to a file that is named by its content.
fn keep(folder: &Path, target: TargetName, input: &[u8]) -> PathBuf {
    let mut name = format!("{target}-");
    for byte in &sha256(&[input])[..8] {
        let _ = write!(name, "{byte:02x}");
    }
    let file = folder.join(name);
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, input));
    if let Err(error) = written {
        eprintln!("fuzz: {}: {error}; the input is {input:02x?}", file.display());
    }
    file
}

impl Tally {
    fn in_words(&self, pool: &Pool) -> String {
        let Self { inputs, accepted, slowest } = self;
        format!("{inputs} inputs, {accepted} accepted, {} outcomes, slowest {slowest:.1?}", pool.outcomes())
    }
}

/// VmHWM of this process.
fn peak_memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
