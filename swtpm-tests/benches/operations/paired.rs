//! Times an operation in turns with its raw limit, so that a slower moment of the machine slows both.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use rootbound_swtpm_tests::measured::Row;

/// Operations that are prepared, then timed, together: so few that what they work on stays in the cache.
const TOGETHER: u64 = 32;
/// Samples of which the middle counts.
const SAMPLES: usize = 60;

/// Criterion runs and reports; the rows are kept beside.
pub(crate) struct Bench<'c> {
    criterion: &'c mut Criterion,
    /// Without `--bench` each operation runs once, to see that it does, and nothing is measured.
    measuring: bool,
}

/// What one operation took in the middle of its samples.
struct Median {
    time: Duration,
    limit: Duration,
    ratio: f64,
}

impl<'c> Bench<'c> {
    pub(crate) fn new(criterion: &'c mut Criterion) -> Self {
        Self { criterion, measuring: std::env::args().any(|argument| argument == "--bench") }
    }

    /// Times an operation.
    pub(crate) fn alone<R>(&mut self, name: &str, operation: impl FnMut() -> R) -> Option<Row> {
        let time = self.time(name, operation)?;
        Some(Row::time(name, time))
    }

    /// The same, for a target of its own.
    pub(crate) fn time<R>(&mut self, name: &str, mut operation: impl FnMut() -> R) -> Option<Duration> {
        let median = self.samples(name, |iterations| {
            let start = Instant::now();
            for _ in 0..iterations {
                black_box(operation());
            }
            (start.elapsed(), Duration::ZERO)
        })?;
        Some(median.time)
    }

    /// The same for an operation that consumes its input; `prepare` makes so many, outside of what is timed.
    pub(crate) fn time_of<I, R>(
        &mut self,
        name: &str,
        mut prepare: impl FnMut(usize) -> Vec<I>,
        operation: impl FnMut(I) -> R,
    ) -> Option<Duration> {
        let prepare = move |count| prepare(count).into_iter().map(|input| ((), input)).collect();
        let median = self.paired(name, prepare, |()| (), operation)?;
        Some(median.time)
    }

    /// Times an operation that consumes its input, in turns with the raw operation on the same input.
    ///
    /// `prepare` makes so many inputs, outside of what is timed: for the raw operation, and for this one.
    pub(crate) fn beside<P, I, R, S>(
        &mut self,
        name: &str,
        limit: &str,
        prepare: impl FnMut(usize) -> Vec<(P, I)>,
        raw: impl FnMut(&P) -> R,
        operation: impl FnMut(I) -> S,
    ) -> Option<Row> {
        let median = self.paired(name, prepare, raw, operation)?;
        Some(Row::time(name, median.time).against(limit, median.limit, median.ratio))
    }

    fn paired<P, I, R, S>(
        &mut self,
        name: &str,
        mut prepare: impl FnMut(usize) -> Vec<(P, I)>,
        mut raw: impl FnMut(&P) -> R,
        mut operation: impl FnMut(I) -> S,
    ) -> Option<Median> {
        self.samples(name, |iterations| {
            let (mut taken, mut raw_taken) = (Duration::ZERO, Duration::ZERO);
            let mut left = iterations;
            while left > 0 {
                let count = left.min(TOGETHER);
                left -= count;
                let (raws, inputs): (Vec<_>, Vec<_>) =
                    prepare(usize::try_from(count).expect("a small number")).into_iter().unzip();
                let start = Instant::now();
                for input in &raws {
                    black_box(raw(black_box(input)));
                }
                raw_taken += start.elapsed();
                let start = Instant::now();
                for input in inputs {
                    black_box(operation(black_box(input)));
                }
                taken += start.elapsed();
            }
            (taken, raw_taken)
        })
    }

    /// Times an operation that takes milliseconds, in turns with the raw one.
    pub(crate) fn in_turns<R, S>(
        &mut self,
        name: &str,
        limit: &str,
        mut raw: impl FnMut() -> R,
        mut operation: impl FnMut() -> S,
    ) -> Option<Row> {
        let median = self.samples(name, |iterations| {
            let (mut taken, mut raw_taken) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..iterations {
                let start = Instant::now();
                black_box(raw());
                raw_taken += start.elapsed();
                let start = Instant::now();
                black_box(operation());
                taken += start.elapsed();
            }
            (taken, raw_taken)
        })?;
        Some(Row::time(name, median.time).against(limit, median.limit, median.ratio))
    }

    /// Criterion decides on the iterations; the last samples are those that it reports on.
    fn samples(&mut self, name: &str, mut run: impl FnMut(u64) -> (Duration, Duration)) -> Option<Median> {
        let mut samples = Vec::new();
        let mut group = self.criterion.benchmark_group("operations");
        group.sample_size(SAMPLES).warm_up_time(Duration::from_millis(500));
        group.measurement_time(Duration::from_secs(2));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let (taken, raw) = run(iterations);
                samples.push((each(taken, iterations), each(raw, iterations)));
                taken
            });
        });
        group.finish();
        if !self.measuring || samples.len() < SAMPLES {
            return None;
        }
        let kept = &samples[samples.len() - SAMPLES..];
        Some(Median {
            time: Duration::from_secs_f64(middle(kept.iter().map(|(taken, _)| *taken))),
            limit: Duration::from_secs_f64(middle(kept.iter().map(|(_, raw)| *raw))),
            ratio: middle(kept.iter().map(|(taken, raw)| taken / raw)),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "no bench runs 2^52 times")]
fn each(total: Duration, iterations: u64) -> f64 {
    total.as_secs_f64() / iterations as f64
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
