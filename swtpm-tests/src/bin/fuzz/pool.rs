//! The inputs that mutations start from: the seeds, and one for each outcome seen so far.

use std::collections::HashSet;

use rootbound_swtpm_tests::random::Random;

/// More outcomes than any target has; what is over replaces an older input.
const MOST: usize = 4096;

pub(crate) struct Pool {
    inputs: Vec<Vec<u8>>,
    /// The first so many are the seeds, which stay.
    seeds: usize,
    seen: HashSet<String>,
}

impl Pool {
    /// # Panics
    /// Where there is no seed.
    pub(crate) fn new(seeds: Vec<Vec<u8>>) -> Self {
        assert!(!seeds.is_empty(), "a target has seeds");
        Self { seeds: seeds.len(), inputs: seeds, seen: HashSet::new() }
    }

    /// Half of the time a seed: mutations of mutations drift away from what is accepted.
    pub(crate) fn pick(&self, random: &mut Random) -> &[u8] {
        let among = if random.one_in(2) { self.seeds } else { self.inputs.len() };
        &self.inputs[random.below(among)]
    }

    /// Keeps an input whose outcome is new. Numbers in the outcome do not count: lengths would make each new.
    pub(crate) fn offer(&mut self, input: &[u8], outcome: &str, random: &mut Random) {
        let class: String = outcome.chars().filter(|one| !one.is_ascii_digit()).collect();
        if self.seen.len() >= MOST || !self.seen.insert(class) {
            return;
        }
        if self.inputs.len() < MOST {
            self.inputs.push(input.to_vec());
        } else {
            let position = self.seeds + random.below(self.inputs.len() - self.seeds);
            self.inputs[position] = input.to_vec();
        }
    }

    /// How many different outcomes there were.
    pub(crate) fn outcomes(&self) -> usize {
        self.seen.len()
    }
}
