//! Fuzzing on the stable toolchain: hostile bytes into every parser that a stranger reaches.
//!
//! Each target runs on a thread of its own: it takes an input out of its pool, mutates it, runs it, and keeps it where
//! its outcome (an error variant, or the shape of what was accepted) is one that was not seen before; stable Rust has no
//! coverage to be guided by. A panic, a broken invariant or an input that takes seconds is written to a file, which
//! `--replay` runs again. The schedule of mutations follows from `--seed`; the first inputs are signed by new keys at
//! each start, so that it is the file that reproduces.
#![forbid(unsafe_code)]

mod mutate;
mod pool;
mod run;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::run::{Failure, Run};
use crate::target::TargetName;
use rootbound_swtpm_tests::random::Random;

/// Feeds hostile bytes to the parsers, until stopped or for some seconds.
#[derive(Parser)]
struct Arguments {
    /// Only this target; may be given more than once.
    #[arg(long)]
    target: Vec<TargetName>,
    /// Ends after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Repeats the schedule of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// Where inputs that fail are written to.
    #[arg(long, default_value = "target/fuzz")]
    artifacts: PathBuf,
    /// Runs this one input, by the one target, and ends.
    #[arg(long)]
    replay: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let targets = if arguments.target.is_empty() { TargetName::ALL.to_vec() } else { arguments.target };
    if let Some(file) = arguments.replay {
        let [target] = targets[..] else {
            eprintln!("fuzz: --replay needs one --target");
            return ExitCode::FAILURE;
        };
        return replay(target, &file);
    }
    let seed = arguments.seed.unwrap_or_else(Random::fresh_seed);
    println!("fuzz: seed {seed}");
    let run = Run { seed, artifacts: arguments.artifacts, lasts: arguments.seconds.map(Duration::from_secs) };
    match run.all(&targets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failures) => {
            for Failure { target, what, file } in failures {
                println!("{target}: FAILED: {what}");
                println!("{target}: replay with: scripts/fuzz --target {target} --replay {}", file.display());
            }
            ExitCode::FAILURE
        }
    }
}

fn replay(target: TargetName, file: &std::path::Path) -> ExitCode {
    let input = match std::fs::read(file) {
        Ok(input) => input,
        Err(error) => {
            eprintln!("fuzz: {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    };
    let outcome = target.build().run(&input);
    println!("{target}: {} bytes, accepted: {}, {}", input.len(), outcome.accepted, outcome.class);
    ExitCode::SUCCESS
}
