//! What the verifier does for one node, each operation beside the cryptography that it cannot do without.
//!
//! `scripts/bench` runs this and prints the table; `cargo bench --bench operations` prints criterion's own report too.

mod boot_logs;
mod credentials;
mod decisions;
mod enrollment;
mod ima;
mod paired;
mod quotes;

use criterion::Criterion;

use crate::paired::Bench;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut bench = Bench::new(&mut criterion);
    // Alone where criterion's filter says so: the others prepare much.
    if std::env::args().any(|argument| argument == "decide:") {
        decisions::run(&mut bench);
        criterion.final_summary();
        return;
    }
    quotes::run(&mut bench);
    boot_logs::run(&mut bench);
    enrollment::run(&mut bench);
    credentials::run(&mut bench);
    ima::run(&mut bench);
    decisions::run(&mut bench);
    criterion.final_summary();
}
