//! Boot logs: read, held against the quote, judged.

use std::time::Duration;

use rootbound_common::tpm::HashAlgorithm;
use rootbound_swtpm_tests::boot_logs::{BootLog, quoted};
use rootbound_swtpm_tests::measured::Row;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_verifier::appraisal::boot::{capture, judge};
use rootbound_verifier::evidence::boot_log::{ParsedBootLog, authenticate};

use crate::paired::Bench;

const BANK: HashAlgorithm = HashAlgorithm::Sha256;

pub(crate) fn run(bench: &mut Bench<'_>) {
    // Microsoft's dbx, and a GRUB that runs a configuration of the usual length.
    let log = BootLog::of_a_server(560, 90);
    let bytes = log.as_bytes();
    assert!((49_000..55_000).contains(&bytes.len()), "{} bytes", bytes.len());
    let parsed = ParsedBootLog::parse(bytes).expect("a good log");
    let (observed, spoken_of) = quoted(&mut SoftwareTpm::new(), &parsed, BANK);
    let history = authenticate(parsed, &observed, BANK, spoken_of).expect("a good log");
    let (rules, _) = capture(&history, spoken_of);
    assert_eq!(rules.check(), Ok(()));
    let name = "boot log of 50 KB: parse, replay and rules";
    let time = bench.time(name, || {
        let log = ParsedBootLog::parse(bytes).expect("a good log");
        let history = authenticate(log, &observed, BANK, spoken_of).expect("a good log");
        assert_eq!(judge(&history, &rules), []);
    });
    let row = time.map(|time| Row::time(name, time).time_at_most(time, Duration::from_micros(300)));
    row.iter().for_each(Row::publish);
}
