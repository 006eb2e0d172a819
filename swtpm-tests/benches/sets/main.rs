//! What a large digest set costs on disk, how long it takes to write and to load, and what ten releases cost that share 95 %
//! of their files.
//!
//! `scripts/bench sets` runs this and prints the table.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use rootbound_common::random;
use rootbound_swtpm_tests::measured::Row;
use rootbound_verifier::appraisal::runtime::{DigestSet, SOURCE};
use rootbound_verifier::audit::{Actor, AuditRecord, Outcome, RecordId, RecordKind};
use rootbound_verifier::reference::{Provenance, ReferenceBook, SetContent};
use rootbound_verifier::store::{ReferenceStore as _, SqliteStore};

/// Files of a release.
const FILES: usize = 1_000_000;
/// Files of a package.
const PACKAGE: usize = 40;
const RELEASES: usize = 10;
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

const MOST_KILOBYTES: u64 = 80 * 1024;
const MOST_LOADING: Duration = Duration::from_secs(1);
/// Nine times 5 % is new; a quarter more for what says where.
const MOST_RELEASES: f64 = 1.75;

#[tokio::main]
async fn main() {
    // Without `--bench` everything runs for a moment, to see that it does.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let files = if measuring { FILES } else { 5000 };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("verifier.db");

    let empty = database(&path, &[]).await;
    let first = release(files, 0);
    let begun = Instant::now();
    let one = database(&path, &[&first]).await;
    let written = begun.elapsed();
    let (loading, memory) = loaded(&path, files).await;
    let times = [loading, loaded(&path, files).await.0, loaded(&path, files).await.0];
    let loading = middle(times);

    let later: Vec<_> = (1..RELEASES).map(|number| release(files, number)).collect();
    let later: Vec<_> = later.iter().map(Vec::as_slice).collect();
    let begun = Instant::now();
    let all = database(&path, &later).await;
    let each = begun.elapsed() / u32::try_from(later.len()).expect("nine");
    let ratio = quotient(all.saturating_sub(empty), one.saturating_sub(empty));
    let (last, _) = loaded(&path, files).await;
    if !measuring {
        return;
    }
    let of = format!("a set of {files} digests");
    let stored = (one - empty) / 1024;
    Row::memory(format!("{of}: stored"), stored).memory_at_most(stored, MOST_KILOBYTES).publish();
    Row::time(format!("{of}: parsed and written"), written).publish();
    Row::time(format!("{of}: loaded"), loading).time_at_most(loading, MOST_LOADING).publish();
    Row::memory(format!("{of}: in memory"), memory).publish();
    let of = format!("{RELEASES} releases of {files} files that share 95 %");
    Row::memory(format!("{of}: stored"), (all - empty) / 1024)
        .beside("once", stored, ratio)
        .ratio_at_most(MOST_RELEASES)
        .publish();
    Row::time(format!("{of}: each parsed and written"), each).publish();
    Row::time(format!("{of}: the last loaded"), last).time_at_most(last, MOST_LOADING).publish();
}

/// The text of a digest set, by packages. Of each release 5 % of the files, here and there, are new.
fn release(files: usize, number: usize) -> Vec<u8> {
    let is_new = |file: usize, release: usize| {
        let bytes = sha256(&[&file.to_be_bytes(), &release.to_be_bytes()]);
        u16::from_be_bytes([bytes[0], bytes[1]]) < u16::MAX / 20
    };
    let mut text = Vec::new();
    for file in 0..files {
        let package = file / PACKAGE;
        if file % PACKAGE == 0 {
            text.extend(
                format!("{SOURCE} package lib{package} 1:{}.{}-1\n", package % 9, package % 7).bytes(),
            );
        }
        let since = (1..=number).rev().find(|release| is_new(file, *release)).unwrap_or(0);
        let digest = data_encoding::HEXLOWER.encode(&sha256(&[&file.to_le_bytes(), &since.to_le_bytes()]));
        let path = format!("/usr/lib/x86_64-linux-gnu/package{package:05}/libfile{file:07}.so.1");
        text.extend(format!("sha256:{digest}  {path}\n").bytes());
    }
    text
}

/// Writes texts as versions of a set; how large the database is then.
async fn database(path: &Path, texts: &[&[u8]]) -> u64 {
    let store = SqliteStore::open(path).await.expect("a store");
    for text in texts {
        let set = SetContent::digests(text.to_vec()).expect("a digest set");
        let SetContent::Digests(digests, text) = set else { unreachable!("digests") };
        let name = "release".parse().expect("a name");
        let (author, reason) = ("bench".to_owned(), String::new());
        let provenance = Provenance { author, reason, created_at: NOW };
        let id = RecordId::new(NOW, &mut random::system());
        let actor = Actor::RelyingParty("bench".into());
        let record = AuditRecord::new(id, RecordKind::ReferenceChange, "put", actor, Outcome::Done, "put");
        store.put_digest_set(name, digests, text, provenance, record).await.expect("written");
    }
    store.close().await;
    std::fs::metadata(path).expect("a database").len()
}

/// How long it takes from the store to a set that judges, and kilobytes that it takes in memory.
async fn loaded(path: &Path, files: usize) -> (Duration, u64) {
    let store = SqliteStore::open(path).await.expect("a store");
    let begun = Instant::now();
    let book = store.reference_book(&ReferenceBook::default()).await.expect("a book");
    let took = begun.elapsed();
    let set: &Arc<DigestSet> =
        &book.digest_set(&"release".parse().expect("a name")).expect("the set").digests;
    assert_eq!(set.len(), files);
    store.close().await;
    (took, u64::try_from(set.memory() / 1024).expect("some MB"))
}

fn middle(mut times: [Duration; 3]) -> Duration {
    times.sort_unstable();
    times[1]
}

#[expect(clippy::cast_precision_loss, reason = "no bench stores 2^52 bytes")]
fn quotient(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}
