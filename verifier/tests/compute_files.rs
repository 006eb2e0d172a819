//! `reference compute files`, the program itself: what it writes is what the verifier reads.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rootbound_verifier::appraisal::runtime::DigestSet;
use serde_json::Value;

fn run(arguments: &[&str], path: &Path) -> Output {
    let path = path.to_str().expect("a path of text");
    Command::new(env!("CARGO_BIN_EXE_rootbound-verifier"))
        .args(["reference", "compute", "files"])
        .args(arguments)
        .arg(path)
        .output()
        .expect("the program runs")
}

fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("usr/bin")).expect("a folder");
    fs::write(folder.path().join("usr/bin/a b"), "#!/bin/sh\n").expect("a file");
    fs::write(folder.path().join("usr/bin/c"), "c").expect("a file");
    folder
}

#[test]
fn what_is_computed_is_a_digest_set() {
    let tree = tree();
    let output = run(&["--prefix", "/srv"], tree.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let set = DigestSet::parse(&output.stdout).expect("a digest set");
    assert_eq!(set.len(), 2);
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    assert!(text.contains("  /srv/usr/bin/a b\n") && text.starts_with("# source: files below "), "{text}");
    let summary = String::from_utf8_lossy(&output.stderr);
    assert!(summary.starts_with("2 digests (sha256) of 2 files with 0 kB, from 1 sources\n"), "{summary}");

    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("set");
    let path = out.to_str().expect("a path of text");
    let output = run(&["--output", "json", "--executable-only", "--out", path], tree.path());
    let summary: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(summary.pointer("/digests"), Some(&Value::from(1)));
    assert_eq!(summary.pointer("/left_out/not_executable"), Some(&Value::from(1)));
    assert_eq!(DigestSet::parse(&fs::read(&out).expect("the set")).expect("a digest set").len(), 1);
}

#[test]
fn nothing_is_written_where_a_source_is_wrong() {
    let tree = tree();
    let out = tempfile::tempdir().expect("a folder");
    let (set, bad) = (out.path().join("set"), tree.path().join("bad.deb"));
    fs::write(&set, "what was there").expect("a file");
    fs::write(&bad, "!<arch>\nno package").expect("a file");
    for arguments in [&["--out", set.to_str().expect("a path of text")][..], &[]] {
        let output = run(arguments, &bad);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("bad.deb: at offset 8: ends within a header of an ar archive"), "{said}");
    }
    assert_eq!(fs::read(&set).expect("the file"), b"what was there");
    assert_eq!(fs::read_dir(out.path()).expect("a folder").count(), 1);
    // Nothing that is no file is replaced by one.
    let (link, pipe) = (out.path().join("link"), out.path().join("pipe"));
    std::os::unix::fs::symlink("/dev/null", &link).expect("a link");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    for taken in [link.as_path(), pipe.as_path(), out.path()] {
        let to = taken.to_str().expect("a path of text");
        let output = run(&["--out", to], &tree.path().join("usr"));
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("something is there that is no regular file"), "{said}");
        assert!(!fs::symlink_metadata(taken).expect("it is there").is_file());
    }
    let nowhere = out.path().join("no/folder");
    let output = run(&["--out", nowhere.to_str().expect("a path of text")], tree.path());
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(run(&["--prefix", "/a/../.."], tree.path()).status.code(), Some(2));
    assert_eq!(run(&["--kind", "zip"], tree.path()).status.code(), Some(2));
}
