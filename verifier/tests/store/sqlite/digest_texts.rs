//! Texts of digest sets on disk: what many share costs once, and what was changed is found.

use std::sync::Arc;

use data_encoding::{HEXLOWER, HEXUPPER};
use rootbound_common::crypto::{TaggedDigest, hash, sha256};
use rootbound_common::tpm::HashAlgorithm;
use rootbound_verifier::appraisal::runtime::DigestSet;
use rootbound_verifier::evidence::frame::pack;
use rootbound_verifier::reference::ReferenceBook;
use rootbound_verifier::store::Store;

use super::damage::assert_inconsistent;
use super::{BackEnd as _, Sqlite, file, raw};
use crate::fixtures::{at_once, name, provenance, record};

/// Pieces of a chunk, as the store has them.
const CHUNK: u64 = 1024;

fn line(file: u64, release: u64) -> String {
    let digest = hash(HashAlgorithm::Sha256, &[&file.to_be_bytes(), &release.to_be_bytes()]);
    format!("{}  /usr/lib/x86_64-linux-gnu/lib{file}.so\n", TaggedDigest(digest))
}

/// Files of which a twentieth, here and there, is new in each release.
fn release(files: u64, number: u64) -> Vec<u8> {
    let is_new = |file: u64, release: u64| sha256(&[&file.to_be_bytes(), &release.to_le_bytes()])[0] < 13;
    let since = |file| (1..=number).rev().find(|release| is_new(file, *release)).unwrap_or(0);
    (0..files).map(|file| line(file, since(file))).collect::<String>().into_bytes()
}

async fn put(store: &dyn Store, set: &str, text: Vec<u8>) -> [u8; 32] {
    let digests = Arc::new(DigestSet::parse(&text).unwrap());
    let written = store.put_digest_set(name(set), digests, text, provenance(""), record("test")).await;
    *written.unwrap().digests.id()
}

async fn number(sqlite: &Sqlite, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut raw(&file(sqlite.folder.path())).await).await.unwrap()
}

const BYTES: &str = "SELECT (SELECT sum(length(hash) + length(sketch) + length(frame)) FROM digest_chunk) \
    + (SELECT sum(length(runs) + 72) FROM digest_content) + (SELECT 40 * count(*) FROM digest_part)";

#[tokio::test]
async fn ten_releases_that_share_most_files_cost_less_than_twice_one() {
    let sqlite = Sqlite::new().await;
    let store = sqlite.store();
    let first = put(&*store, "release", release(5 * CHUNK, 0)).await;
    let once = number(&sqlite, BYTES).await;
    let mut last = first;
    for number in 1..10 {
        last = put(&*store, &format!("release-{number}"), release(5 * CHUNK, number)).await;
    }
    let all = number(&sqlite, BYTES).await;
    assert!(all < 2 * once, "{all} bytes; the first has {once}");
    for (content, release) in [(first, release(5 * CHUNK, 0)), (last, release(5 * CHUNK, 9))] {
        assert!(store.digest_text(&content).await.unwrap() == Some(release));
    }
    let chunks = number(&sqlite, "SELECT count(*) FROM digest_chunk").await;
    put(&*store, "another", release(5 * CHUNK, 4)).await;
    put(&*store, "part", release(2 * CHUNK, 0)).await;
    assert_eq!(number(&sqlite, "SELECT count(*) FROM digest_chunk").await, chunks, "nothing is new");
}

#[tokio::test]
async fn texts_that_are_written_at_once_are_each_whole() {
    let sqlite = Sqlite::new().await;
    let contents = at_once(8, |index| {
        let (store, number) = (sqlite.store(), u64::try_from(index / 2).unwrap());
        async move { put(&*store, &format!("set-{index}"), release(CHUNK, number)).await }
    })
    .await;
    let store = sqlite.store();
    for content in contents {
        let text = store.digest_text(&content).await.unwrap().unwrap();
        assert_eq!(DigestSet::parse(&text).unwrap().id(), &content);
    }
    assert_eq!(number(&sqlite, "SELECT count(*) FROM digest_content").await, 4);
    let orphans = "SELECT count(*) FROM digest_chunk WHERE number NOT IN (SELECT chunk FROM digest_part)";
    assert_eq!(number(&sqlite, orphans).await, 0);
}

#[tokio::test]
async fn texts_that_were_changed_on_disk_are_inconsistent() {
    let text = release(3 * CHUNK, 0);
    let key = HEXLOWER.encode(DigestSet::parse(&text).unwrap().id());
    let first: Vec<u8> = (0..CHUNK).flat_map(|file| line(file, 0).into_bytes()).collect();
    let chunk = HEXLOWER.encode(&sha256(&[&first]));
    let other = HEXUPPER.encode(&pack(line(7, 7).as_bytes()).unwrap());
    let (content, part) = ("digest content", "digest chunk");
    for (sql, what, reason) in [
        (
            format!("UPDATE digest_chunk SET frame = X'{other}' WHERE number = 1"),
            part,
            "not those that it is named by",
        ),
        ("UPDATE digest_chunk SET frame = X'00' WHERE number = 1".into(), part, "does not decompress"),
        ("DELETE FROM digest_chunk WHERE number = 2".into(), content, "part 1 is missing"),
        ("DELETE FROM digest_part WHERE position = 0".into(), content, "part 0 is missing"),
        ("DELETE FROM digest_part WHERE position = 1".into(), content, "part 1 is missing"),
        ("DELETE FROM digest_part WHERE position = 2".into(), content, "missing after"),
        ("UPDATE digest_part SET chunk = 1 WHERE position = 1".into(), content, "over the end of the chunk"),
        ("UPDATE digest_part SET chunk = 3 WHERE position = 0".into(), content, "not the ones"),
        ("UPDATE digest_content SET digest = zeroblob(32)".into(), content, "not the ones"),
        ("UPDATE digest_content SET digest = X'00'".into(), content, "digest: 1 bytes"),
        ("UPDATE digest_content SET bytes = bytes - 1".into(), content, "bytes together"),
        ("UPDATE digest_content SET bytes = 536870913".into(), content, "at most"),
        ("UPDATE digest_content SET bytes = -1".into(), content, "out of range"),
        ("UPDATE digest_content SET runs = X'00'".into(), content, "does not decompress"),
        ("DELETE FROM digest_content".into(), content, "it is not there"),
    ] {
        let sqlite = Sqlite::new().await;
        let store = sqlite.store();
        put(&*store, "base", text.clone()).await;
        sqlite.corrupt(WITHOUT_TRIGGERS).await;
        sqlite.corrupt(&sql).await;
        let id = if what == part { &chunk } else { &key };
        let book = store.reference_book(&ReferenceBook::default()).await;
        assert_inconsistent(book, what, id, reason, &sql);
    }
}

const WITHOUT_TRIGGERS: &str = "DROP TRIGGER digest_content_is_immutable; DROP TRIGGER digest_content_stays; \
    DROP TRIGGER digest_chunk_is_immutable; DROP TRIGGER digest_chunk_stays; \
    DROP TRIGGER digest_part_is_immutable; DROP TRIGGER digest_part_stays";

#[tokio::test]
async fn texts_that_say_something_else_than_they_are_named_by_are_inconsistent() {
    let sqlite = Sqlite::new().await;
    let store = sqlite.store();
    let digests = Arc::new(DigestSet::parse(line(1, 0).as_bytes()).unwrap());
    let key = HEXLOWER.encode(digests.id());
    let text = line(2, 0).into_bytes();
    store.put_digest_set(name("base"), digests, text, provenance(""), record("test")).await.unwrap();
    let book = store.reference_book(&ReferenceBook::default()).await;
    assert_inconsistent(book, "digest content", &key, "something else", "a text of other digests");

    let sqlite = Sqlite::new().await;
    let store = sqlite.store();
    let digests = Arc::new(DigestSet::parse(line(1, 0).as_bytes()).unwrap());
    let text = b"nonsense".to_vec();
    store.put_digest_set(name("base"), digests, text, provenance(""), record("test")).await.unwrap();
    let book = store.reference_book(&ReferenceBook::default()).await;
    assert_inconsistent(book, "digest content", &key, "line 1", "a text that is no digest set");
}

#[tokio::test]
async fn nothing_new_is_built_on_a_chunk_that_was_changed() {
    let sqlite = Sqlite::new().await;
    let store = sqlite.store();
    put(&*store, "base", release(CHUNK, 0)).await;
    sqlite.corrupt("DROP TRIGGER digest_chunk_is_immutable; UPDATE digest_chunk SET frame = X'00'").await;
    let content = put(&*store, "next", release(CHUNK, 1)).await;
    assert!(store.digest_text(&content).await.unwrap() == Some(release(CHUNK, 1)));
}

#[tokio::test]
async fn schema_keeps_texts_as_they_were_written() {
    let sqlite = Sqlite::new().await;
    put(&*sqlite.store(), "base", release(10, 0)).await;
    let mut connection = raw(&file(sqlite.folder.path())).await;
    for (sql, reason) in [
        ("UPDATE digest_content SET bytes = bytes", "never changes"),
        ("UPDATE digest_chunk SET frame = frame", "never changes"),
        ("UPDATE digest_part SET chunk = chunk", "never change"),
        ("DELETE FROM digest_content", "never deleted"),
        ("DELETE FROM digest_chunk", "never deleted"),
        ("DELETE FROM digest_part", "never deleted"),
    ] {
        let refused = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap_err();
        assert!(refused.to_string().contains(reason), "{sql}: {refused}");
    }
}
