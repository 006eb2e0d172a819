//! Digests of files: real archives and images, made by the tools that people make them with, against `sha256sum`; hostile
//! ones, each refused by its own error.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod arbitrary;
mod hostile;
mod images;
mod make;
mod oci;
mod packages;
mod trees;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use rootbound_compute::files::{Computed, FilesError, Options, Progress, Source, compute};

/// Runs a program that must succeed, in a folder.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: scripts/install-deps installs it"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What `sha256sum` and the like say of each regular file below a folder, as lines of a digest set, by path.
fn sums(folder: &Path, algorithm: &str) -> BTreeMap<String, String> {
    let program = format!("{algorithm}sum");
    let text = run(folder, "find", &[".", "-type", "f", "-exec", &program, "{}", "+"]);
    let lines = String::from_utf8(text).unwrap();
    let sums = lines.lines().map(|line| {
        let (digest, path) = line.split_once("  .").unwrap();
        (path.to_owned(), format!("{algorithm}:{digest}  {path}"))
    });
    sums.collect()
}

/// A root file system with something of everything.
fn root() -> tempfile::TempDir {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for folder in ["usr/bin", "usr/lib/modules/6.1/kernel", "etc/deep/er", "empty"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    let write = |path: &str, bytes: &[u8], mode: u32| {
        std::fs::write(at(path), bytes).unwrap();
        std::fs::set_permissions(at(path), PermissionsExt::from_mode(mode)).unwrap();
    };
    // Of several buffers and blocks, and neither whole ones nor easy to compress.
    let mut state = 1_u32;
    let large: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(700_001)
    .collect();
    write("usr/bin/tool", &large, 0o755);
    write("usr/bin/script", b"#!/bin/sh\nexit 0\n", 0o644);
    write("usr/lib/lib so.1", b"\x7fELF and so on", 0o644);
    write("usr/lib/modules/6.1/kernel/x.ko.xz", b"\xfd7zXZ\0", 0o644);
    write("usr/lib/zeros", &vec![0; 400_000], 0o644);
    write("etc/x.conf", b"x = 1\n", 0o644);
    write("etc/deep/er/empty", b"", 0o600);
    std::fs::hard_link(at("usr/bin/tool"), at("usr/bin/also")).unwrap();
    symlink("tool", at("usr/bin/link")).unwrap();
    symlink("/etc", at("outside")).unwrap();
    root
}

const EXECUTABLE: [&str; 5] = [
    "/usr/bin/also",
    "/usr/bin/script",
    "/usr/bin/tool",
    "/usr/lib/lib so.1",
    "/usr/lib/modules/6.1/kernel/x.ko.xz",
];

fn compute_with(paths: &[&Path], options: &Options) -> Result<Computed, FilesError> {
    let sources: Vec<_> = paths.iter().map(|path| Source { path: path.to_path_buf(), kind: None }).collect();
    compute(&sources, options, &Progress::default())
}

fn computed(path: &Path) -> Computed {
    compute_with(&[path], &Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn text(computed: &Computed) -> String {
    let mut text = Vec::new();
    computed.write(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// The lines with digests.
fn lines(computed: &Computed) -> Vec<String> {
    text(computed).lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn values(sums: &BTreeMap<String, String>) -> Vec<String> {
    sums.values().cloned().collect()
}
