//! What is left when a program is killed at any moment, its files are tampered with, or its disk is full.
//!
//! The programs are the real ones. The moments come from a seed that is printed where a test fails; `CRASH_SEED` repeats
//! the choices, though not the scheduling.

mod attester;
mod disk;
mod ledger;
mod machine;
mod node;
mod site;
mod state;
mod trap;
mod verifier;

use rootbound_swtpm_tests::random::Random;

const VERIFIER: &str = env!("CARGO_BIN_EXE_verifier-under-test");
const ATTESTER: &str = env!("CARGO_BIN_EXE_attester-under-test");

/// A generator with a seed that the output of a failed test shows.
fn seeded() -> Random {
    let seed = std::env::var("CRASH_SEED").ok().map(|seed| seed.parse().expect("CRASH_SEED is a number"));
    let seed = seed.unwrap_or_else(Random::fresh_seed);
    println!("CRASH_SEED={seed}");
    Random::new(seed)
}
