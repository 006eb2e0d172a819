//! Boot event logs: over each that parses a TPM signs what it says, so that the rest of the road sees it as well.

use rootbound_common::text::only_shows;
use rootbound_common::tpm::{HashAlgorithm, PcrSet};
use rootbound_swtpm_tests::boot_logs::{BootLog, quoted};
use rootbound_swtpm_tests::corpus::Corpus;
use rootbound_swtpm_tests::random::Random;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_verifier::appraisal::boot::{BootDeviation, BootRules, capture, judge};
use rootbound_verifier::evidence::boot_log::{BootHistory, ParsedBootLog, authenticate};

use super::{Outcome, Target};
use crate::mutate::mutate;
use crate::pool::Pool;

const BANK: HashAlgorithm = HashAlgorithm::Sha256;
/// Bytes of an input: most real logs are shorter.
const LIMIT: usize = 64 << 10;

/// A log, and the rules of a boot that no mutation is.
pub(super) struct BootLogTarget {
    tpm: SoftwareTpm,
    rules: BootRules,
}

impl BootLogTarget {
    pub(super) fn new() -> Self {
        let mut tpm = SoftwareTpm::new();
        let log = BootLog::of_a_server(2, 2);
        let (history, spoken_of) = history(&mut tpm, log.as_bytes()).expect("a good log");
        Self { rules: capture(&history, spoken_of).0, tpm }
    }
}

fn history(tpm: &mut SoftwareTpm, bytes: &[u8]) -> Result<(BootHistory, PcrSet), &'static str> {
    let log = ParsedBootLog::parse(bytes).map_err(|error| error.code())?;
    let (observed, spoken_of) = quoted(tpm, &log, BANK);
    let history = authenticate(log, &observed, BANK, spoken_of).map_err(|error| error.code())?;
    Ok((history, spoken_of))
}

impl Target for BootLogTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = vec![
            BootLog::new().as_bytes().to_vec(),
            BootLog::of_a_server(0, 0).as_bytes().to_vec(),
            BootLog::of_a_server(3, 3).as_bytes().to_vec(),
        ];
        let corpus = Corpus::find();
        let artefacts = corpus.iter().flat_map(|corpus| {
            ["eventlog", "eventlog-with-pcrs", "quote-evidence"]
                .into_iter()
                .flat_map(|kind| corpus.artefacts(kind))
                .chain(corpus.boots())
        });
        seeds.extend(artefacts.filter_map(|artefact| artefact.find("eventlog.bin")));
        seeds.retain(|seed| seed.len() <= LIMIT);
        seeds
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        if let Ok(log) = ParsedBootLog::parse(input) {
            let lines = log.describe(BANK);
            lines.for_each(|line| assert!(line.len() < 4096 && line.chars().all(only_shows), "{line}"));
        }
        let (history, spoken_of) = match history(&mut self.tpm, input) {
            Ok(found) => found,
            Err(code) => return Outcome { accepted: false, class: code.to_owned() },
        };
        let (rules, _) = capture(&history, spoken_of);
        assert_eq!(judge(&history, &rules), [], "a boot is as expected by the rules captured from it");
        let found = judge(&history, &self.rules);
        for deviation in &found {
            let words = deviation.to_string();
            assert!(words.len() < 8192 && words.chars().all(only_shows), "{words}");
        }
        let codes: Vec<_> = found.iter().map(BootDeviation::code).collect();
        Outcome { accepted: true, class: codes.join(" ") }
    }

    fn mutate(&self, pool: &Pool, random: &mut Random) -> Vec<u8> {
        mutate(pool, LIMIT, random)
    }
}
