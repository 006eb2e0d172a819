//! Folders, and what holds for all sources.

use std::path::Path;

use rootbound_common::tpm::HashAlgorithm;
use rootbound_compute::files::{Fault, LeftOut, Limits, Options, Prefix};

use super::{EXECUTABLE, compute_with, computed, lines, root, sums, text, values};

#[test]
fn a_folder_has_the_digests_that_sha256sum_says() {
    let root = root();
    let computed = computed(root.path());
    assert_eq!(lines(&computed), values(&sums(root.path(), "sha256")));
    let summary = computed.summary();
    assert_eq!((summary.digests, summary.files), (8, 7), "hard links are hashed once");
    assert_eq!(summary.left_out, LeftOut { symbolic_links: 2, ..LeftOut::default() });
    assert!(text(&computed).starts_with(&format!("# source: files below {}\n", root.path().display())));
}

#[test]
fn other_algorithms_and_a_prefix_are_as_asked_for() {
    let root = root();
    for (name, algorithm) in
        [("sha1", HashAlgorithm::Sha1), ("sha384", HashAlgorithm::Sha384), ("sha512", HashAlgorithm::Sha512)]
    {
        let computed = compute_with(&[root.path()], &Options { algorithm, ..Options::default() }).unwrap();
        assert_eq!(lines(&computed), values(&sums(root.path(), name)));
    }
    let prefix = Prefix::parse(b"/srv//root/").unwrap();
    let options = Options { prefix, ..Options::default() };
    let with_prefix: Vec<_> = values(&sums(root.path(), "sha256"))
        .iter()
        .map(|line| line.replacen("  /", "  /srv/root/", 1))
        .collect();
    assert_eq!(lines(&compute_with(&[root.path()], &options).unwrap()), with_prefix);
    assert!(matches!(Prefix::parse(b"/srv/../.."), Err(Fault::Escapes)));
}

#[test]
fn only_what_may_run_is_taken_where_that_is_asked_for() {
    let root = root();
    let options = Options { executable_only: true, ..Options::default() };
    let computed = compute_with(&[root.path()], &options).unwrap();
    let mut expected = sums(root.path(), "sha256");
    expected.retain(|path, _| EXECUTABLE.contains(&path.as_str()));
    assert_eq!(lines(&computed), values(&expected));
    assert_eq!(computed.summary().left_out.not_executable, 3);
}

#[test]
fn what_two_sources_have_at_one_path_is_written_once() {
    let (a, b) = (root(), root());
    std::fs::write(b.path().join("etc/x.conf"), "x = 2\n").unwrap();
    let computed = compute_with(&[a.path(), b.path()], &Options::default()).unwrap();
    let mut expected = values(&sums(a.path(), "sha256"));
    expected.push(sums(b.path(), "sha256")["/etc/x.conf"].clone());
    let mut found = lines(&computed);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(computed.summary().left_out.repeated, 7);
}

#[test]
fn pipes_and_paths_that_a_set_cannot_write_are_counted() {
    let root = root();
    super::run(root.path(), "mkfifo", &["pipe"]);
    std::fs::write(root.path().join("line\nbreak"), "x").unwrap();
    let left_out = computed(root.path()).summary().left_out;
    let expected = LeftOut { symbolic_links: 2, special_files: 1, unwritable_paths: 1, ..LeftOut::default() };
    assert_eq!(left_out, expected);
    let pipe = root.path().join("pipe");
    let error = compute_with(&[&pipe], &Options::default()).unwrap_err();
    assert!(matches!(error.fault, Fault::Special), "{error}");
}

#[test]
fn a_file_that_is_not_what_its_size_says_has_changed() {
    // Files of the kernel have content, but no size.
    let error = compute_with(&[Path::new("/proc/sys/kernel/random")], &Options::default()).unwrap_err();
    assert!(matches!(error.fault, Fault::Changed), "{error}");
    assert!(error.to_string().starts_with("/proc/sys/kernel/random: `"), "{error}");
}

#[test]
fn limits_and_missing_sources_are_named() {
    let root = root();
    let limited = |limits, digests| {
        compute_with(&[root.path()], &Options { limits, digests, ..Options::default() }).unwrap_err().fault
    };
    let few = Limits { entries: 5, ..Limits::default() };
    assert!(matches!(limited(few, 100), Fault::TooManyEntries(5)));
    assert!(matches!(limited(Limits::default(), 7), Fault::TooManyDigests(7)));
    // Its files have 1,100,068 bytes, hard links once.
    let small = |unpacked| Limits { unpacked, ..Limits::default() };
    assert!(matches!(limited(small(1_100_000), 100), Fault::TooMuch(1_100_000)));
    let enough = Options { limits: small(1_101_000), ..Options::default() };
    compute_with(&[root.path()], &enough).unwrap();
    let missing = root.path().join("nothing");
    let error = compute_with(&[&missing], &Options::default()).unwrap_err();
    assert!(
        matches!(&error.fault, Fault::Io(error) if error.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
    let error = compute_with(&[&root.path().join("empty")], &Options::default()).unwrap_err();
    assert!(matches!(error.fault, Fault::Nothing), "{error}");
    let odd = root.path().join("etc/x.conf");
    let error = compute_with(&[&odd], &Options::default()).unwrap_err();
    assert!(matches!(error.fault, Fault::UnknownKind), "{error}");
    let deep = root.path().join("d/".repeat(130));
    std::fs::create_dir_all(&deep).unwrap();
    let error = compute_with(&[root.path()], &Options::default()).unwrap_err();
    assert!(matches!(error.fault, Fault::TooDeep(Limits::DEPTH)), "{error}");
}
