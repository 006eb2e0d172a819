//! How fast digests of a tree are computed, beside bare SHA-256 of the same files on as many cores in the same run.
//!
//! `scripts/bench compute` runs this and prints the table.
#![expect(clippy::expect_used, clippy::as_conversions, reason = "a benchmark fails by panicking, and prints")]

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rootbound_common::crypto::Hasher;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_compute::files::{Options, Progress, Source, compute};

const TARGET: f64 = 0.8;
/// How many files of which size: some 2 GB, most of the files small, most of the bytes in large ones.
const FILES: [(usize, usize); 4] = [(10_000, 20_000), (1_000, 500_000), (100, 8_000_000), (4, 125_000_000)];

fn main() {
    // Without `--bench` everything runs for a moment, to see that it does.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (files, bytes) = tree(folder.path(), if measuring { 1 } else { 1000 });
    let (mut bare_times, mut times) = (Vec::new(), Vec::new());
    // The first turn reads the disk, if the files are no longer in memory.
    for turn in 0..if measuring { 6 } else { 2 } {
        let (bare, ours) = (bare(&files), ours(folder.path(), files.len()));
        if turn > 0 {
            bare_times.push(bare);
            times.push(ours);
        }
    }
    let (bare, ours) = (median(bare_times), median(times));
    let ratio = bare.as_secs_f64() / ours.as_secs_f64();
    if measuring {
        publish(&[
            &format!("compute, a tree of {} files, {} MB", files.len(), bytes / 1_000_000),
            &format!("{:.0} MB/s", rate(bytes, ours)),
            &format!("{:.0} MB/s bare SHA-256", rate(bytes, bare)),
            &format!("{ratio:.3}"),
            &format!("≥ {TARGET:.2}"),
            if ratio >= TARGET { "yes" } else { "NO" },
        ]);
        let buffer = vec![7; 64 << 20];
        for (name, take) in [("common's hasher", common as fn(&[u8]) -> u8), ("aws-lc-rs", aws)] {
            let begun = Instant::now();
            std::hint::black_box(take(&buffer));
            let rate = rate(buffer.len(), begun.elapsed());
            publish(&[
                &format!("SHA-256 in memory, one core, {name}"),
                &format!("{rate:.0} MB/s"),
                "-",
                "-",
                "-",
                "-",
            ]);
        }
    }
}

fn common(bytes: &[u8]) -> u8 {
    rootbound_common::crypto::hash(HashAlgorithm::Sha256, &[bytes]).as_bytes().first().copied().unwrap_or(0)
}

fn aws(bytes: &[u8]) -> u8 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().first().copied().unwrap_or(0)
}

/// A tree of which no two files are the same; its files, and how many bytes they have.
fn tree(folder: &Path, part: usize) -> (Vec<PathBuf>, usize) {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    })
    .take(1 << 17)
    .flatten()
    .collect();
    let (mut files, mut bytes) = (Vec::new(), 0);
    for (kind, (count, size)) in FILES.into_iter().enumerate() {
        for number in 0..count.div_ceil(part) {
            let size = if part > 1 { size.min(20_000) } else { size };
            let path = folder.join(format!("{kind}/{}/{number}", number % 100));
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let mut file = File::create(&path).expect("a file");
            file.write_all(&kind.to_be_bytes()).expect("content");
            file.write_all(&number.to_be_bytes()).expect("content");
            let mut left = size;
            while left > 0 {
                let part = noise.get(..left.min(noise.len())).expect("noise");
                file.write_all(part).expect("content");
                left -= part.len();
            }
            bytes += size + 16;
            files.push(path);
        }
    }
    (files, bytes)
}

/// Every file read and hashed, by one thread for each core, from a list.
fn bare(files: &[PathBuf]) -> Duration {
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..Options::default().workers.get() {
            scope.spawn(|| {
                let mut buffer = vec![0; 256 << 10];
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (mut file, mut hasher) =
                        (File::open(path).expect("a file"), Hasher::new(HashAlgorithm::Sha256));
                    loop {
                        let count = file.read(&mut buffer).expect("content");
                        if count == 0 {
                            break;
                        }
                        hasher.update(buffer.get(..count).expect("what was read"));
                    }
                    std::hint::black_box(hasher.finish());
                }
            });
        }
    });
    begun.elapsed()
}

fn ours(folder: &Path, files: usize) -> Duration {
    let begun = Instant::now();
    let source = Source { path: folder.to_path_buf(), kind: None };
    let computed = compute(&[source], &Options::default(), &Progress::default()).expect("digests");
    let mut text = Vec::new();
    computed.write(&mut text).expect("a text");
    let took = begun.elapsed();
    assert_eq!(computed.summary().digests, files as u64);
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().expect("a time")
}

fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

/// A row of the table of `scripts/bench`.
fn publish(cells: &[&str]) {
    let line = cells.join("\t");
    match std::env::var_os("BENCH_TABLE") {
        None => println!("{line}"),
        Some(path) => {
            let file = File::options().create(true).append(true).open(path);
            file.and_then(|mut file| writeln!(file, "{line}")).expect("the table can be written");
        }
    }
}
