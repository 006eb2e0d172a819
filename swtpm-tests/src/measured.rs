//! Rows of the one table that `scripts/bench` prints.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

/// Names the file that rows are appended to; where it is unset, they are printed.
const FILE: &str = "BENCH_TABLE";

/// One thing that was measured, beside what it is compared with in the same run.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    operation: String,
    measured: String,
    limit: String,
    ratio: Option<f64>,
    target: String,
    met: Option<bool>,
}

impl Row {
    fn new(operation: impl Into<String>, measured: String) -> Self {
        let (limit, target) = (String::new(), String::new());
        Self { operation: operation.into(), measured, limit, ratio: None, target, met: None }
    }

    /// How long one takes, in the middle of many.
    #[must_use]
    pub fn time(operation: impl Into<String>, median: Duration) -> Self {
        Self::new(operation, in_words(median))
    }

    /// How many there are in a second, and how long each waits.
    #[must_use]
    pub fn rate(operation: impl Into<String>, per_second: f64, p50: Duration, p99: Duration) -> Self {
        let measured = format!("{per_second:.0}/s, p50 {}, p99 {}", in_words(p50), in_words(p99));
        Self::new(operation, measured)
    }

    /// How much memory is resident.
    #[must_use]
    pub fn memory(operation: impl Into<String>, kilobytes: u64) -> Self {
        Self::new(operation, megabytes(kilobytes))
    }

    /// What was measured in turns with it, and how the two compare.
    #[must_use]
    pub fn against(self, limit: &str, median: Duration, ratio: f64) -> Self {
        Self { limit: format!("{} {limit}", in_words(median)), ratio: Some(ratio), ..self }
    }

    /// What takes so much memory or disk beside it, and how the two compare.
    #[must_use]
    pub fn beside(self, what: &str, kilobytes: u64, ratio: f64) -> Self {
        Self { limit: format!("{} {what}", megabytes(kilobytes)), ratio: Some(ratio), ..self }
    }

    /// The target: a ratio to the limit.
    #[must_use]
    pub fn ratio_at_most(self, target: f64) -> Self {
        let met = self.ratio.map(|ratio| ratio <= target);
        Self { target: format!("≤ {target:.2}"), met, ..self }
    }

    /// The target: a time.
    #[must_use]
    pub fn time_at_most(self, median: Duration, target: Duration) -> Self {
        Self { target: format!("≤ {}", in_words(target)), met: Some(median <= target), ..self }
    }

    /// The target: so many in a second.
    #[must_use]
    pub fn rate_at_least(self, per_second: f64, target: f64) -> Self {
        Self { target: format!("≥ {target:.0}/s"), met: Some(per_second >= target), ..self }
    }

    /// The target: so much memory.
    #[must_use]
    pub fn memory_at_most(self, kilobytes: u64, target: u64) -> Self {
        Self { target: format!("≤ {}", megabytes(target)), met: Some(kilobytes <= target), ..self }
    }

    /// Appends the row to the table, or prints it where there is none.
    ///
    /// # Panics
    /// Where the table cannot be written.
    pub fn publish(&self) {
        let ratio = self.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
        let met = match self.met {
            None => "",
            Some(true) => "yes",
            Some(false) => "NO",
        };
        let mut line = String::new();
        for cell in [&*self.operation, &self.measured, &self.limit, &ratio, &self.target, met] {
            let cell = if cell.is_empty() { "-" } else { cell };
            let _ = write!(line, "{cell}\t");
        }
        let line = line.trim_end();
        match std::env::var_os(FILE) {
            None => println!("{line}"),
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                file.and_then(|mut file| writeln!(file, "{line}")).expect("the table can be written");
            }
        }
    }
}

/// How long each of many requests waited, and how long all took.
#[derive(Debug)]
pub struct Load {
    waited: Vec<Duration>,
    lasted: Duration,
}

impl Load {
    /// What was waited for within this time.
    #[must_use]
    pub fn new(mut waited: Vec<Duration>, lasted: Duration) -> Self {
        waited.sort_unstable();
        Self { waited, lasted }
    }

    /// Requests in a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "no load has 2^52 requests")]
    pub fn per_second(&self) -> f64 {
        self.waited.len() as f64 / self.lasted.as_secs_f64()
    }

    /// The time within which so many of a hundred were answered.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let position = self.waited.len() * percent / 100;
        self.waited.get(position).or(self.waited.last()).copied().unwrap_or_default()
    }

    /// The row of it.
    #[must_use]
    pub fn row(&self, operation: impl Into<String>) -> Row {
        Row::rate(operation, self.per_second(), self.percentile(50), self.percentile(99))
    }
}

fn megabytes(kilobytes: u64) -> String {
    format!("{}.{} MB", kilobytes / 1024, kilobytes % 1024 * 10 / 1024)
}

/// With three digits that count.
fn in_words(time: Duration) -> String {
    let nanoseconds = time.as_secs_f64() * 1e9;
    let (number, unit) = match nanoseconds {
        0.0..1e3 => (nanoseconds, "ns"),
        1e3..1e6 => (nanoseconds / 1e3, "µs"),
        1e6..1e9 => (nanoseconds / 1e6, "ms"),
        _ => (nanoseconds / 1e9, "s"),
    };
    let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.decimals$} {unit}")
}
