//! Whatever bytes there are: an answer or an error, in bounded time and memory.

use proptest::prelude::*;
use rootbound_compute::files::{Limits, Options, Stream, examine};

use super::make::{deb, end, file, gzip, newc};

fn options() -> Options {
    let limits = Limits { entries: 1000, unpacked: 16 << 20, ..Limits::default() };
    Options { limits, ..Options::default() }
}

fn seeds() -> Vec<(Stream, Vec<u8>)> {
    let archive = [
        newc("usr", 0o040_755, 2, b""),
        newc("usr/x", 0o100_755, 2, b""),
        newc("usr/y", 0o100_755, 2, b"#!/bin/sh\n"),
        newc("usr/link", 0o120_777, 1, b"x"),
        end(),
    ]
    .concat();
    let package = rpm::PackageBuilder::new("x", "1", "Apache-2.0", "noarch", "a test")
        .using_config(rpm::BuildConfig::default().compression(rpm::CompressionType::None))
        .with_file_contents("x", rpm::FileOptions::new("/usr/bin/x"))
        .unwrap()
        .build()
        .unwrap();
    let mut rpm = Vec::new();
    package.write(&mut rpm).unwrap();
    let out = tempfile::tempdir().unwrap();
    std::fs::create_dir(out.path().join("tree")).unwrap();
    std::fs::write(out.path().join("tree/x"), "x").unwrap();
    super::run(out.path(), "mksquashfs", &["tree", "image", "-quiet", "-no-progress", "-noI"]);
    vec![
        (Stream::Cpio, gzip(&archive)),
        (Stream::Cpio, archive),
        (Stream::Deb, deb(&[file("./usr/bin/x", b"x"), file("./usr/bin/y", &[1; 600])])),
        (Stream::Rpm, rpm),
        (Stream::Squashfs, std::fs::read(out.path().join("image")).unwrap()),
    ]
}

#[test]
fn the_seeds_are_good() {
    for (stream, bytes) in seeds() {
        assert!(examine(stream, &bytes, &options()).unwrap() > 0, "{stream:?}");
    }
}

#[test]
fn arbitrary_bytes_are_answered() {
    let streams = [Stream::Cpio, Stream::Deb, Stream::Rpm, Stream::Squashfs];
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 64, ..Default::default() });
    let bytes = (prop::sample::select(streams.to_vec()), prop::collection::vec(any::<u8>(), 0..400));
    runner
        .run(&bytes, |(stream, bytes)| {
            prop_assert!(examine(stream, &bytes, &options()).is_err());
            Ok(())
        })
        .unwrap();
}

#[test]
fn changed_archives_are_answered() {
    let seeds = seeds();
    let config = ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    runner
        .run(&(0..seeds.len(), changes, cut), |(seed, changes, cut)| {
            let (stream, mut bytes) = seeds[seed].clone();
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            // Either is an answer; what there must not be is a panic, a hang or a gigabyte.
            let files = examine(stream, &bytes, &options()).unwrap_or(0);
            prop_assert!(files <= 1000);
            Ok(())
        })
        .unwrap();
}
