//! Initramfs archives, squashfs and ext4 images.

use std::path::Path;

use rootbound_compute::files::{Fault, Limits, Options};

use super::make::{end, newc};
use super::{compute_with, computed, lines, root, run, sums, text, values};

fn cpio(root: &Path) -> Vec<u8> {
    run(root, "sh", &["-c", "find . | sort | cpio --quiet --create --format=newc"])
}

#[test]
fn an_initramfs_has_the_digests_of_its_tree_behind_microcode_and_in_each_compression() {
    let (root, out) = (root(), tempfile::tempdir().unwrap());
    let plain = cpio(root.path());
    std::fs::write(out.path().join("plain"), &plain).unwrap();
    let microcode =
        [newc("kernel/x86/microcode/AuthenticAMD.bin", 0o100_644, 1, b"microcode"), end()].concat();
    std::fs::write(out.path().join("microcode"), &microcode).unwrap();
    let mut expected = sums(root.path(), "sha256");
    let tree = expected.clone();
    let sum = String::from_utf8(run(out.path(), "sh", &["-c", "printf microcode | sha256sum"])).unwrap();
    let (path, digest) = ("/kernel/x86/microcode/AuthenticAMD.bin", sum.split(' ').next().unwrap());
    expected.insert(path.to_owned(), format!("sha256:{digest}  {path}"));
    for (command, early) in [
        ("cat plain", false),
        ("gzip -c plain", false),
        ("cat microcode plain", true),
        ("cat microcode; head -c 2044 /dev/zero; gzip -c plain", true),
        ("cat microcode; zstd -qc plain; head -c 8 /dev/zero; cat microcode", true),
        ("cat microcode; xz --check=crc32 -c plain; xz -c microcode", true),
        ("cat microcode; lz4 -qlc plain", true),
        ("cat microcode; lz4 -qc plain", true),
    ] {
        let file = out.path().join("initrd");
        std::fs::write(&file, run(out.path(), "sh", &["-c", command])).unwrap();
        let expected = if early { &expected } else { &tree };
        assert_eq!(lines(&computed(&file)), values(expected), "{command}");
    }
}

#[test]
fn a_later_entry_of_an_initramfs_replaces_an_earlier_one() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("initrd");
    let parts = [newc("init", 0o100_755, 1, b"old"), newc("bin", 0o120_777, 1, b"usr/bin"), end()];
    let more = [newc("init", 0o100_755, 1, b"new"), newc("bin/sh", 0o100_755, 1, b"sh"), end()];
    std::fs::write(&file, [parts.concat(), more.concat()].concat()).unwrap();
    let computed = computed(&file);
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(tree.path().join("usr/bin")).unwrap();
    std::fs::write(tree.path().join("init"), "new").unwrap();
    std::fs::write(tree.path().join("usr/bin/sh"), "sh").unwrap();
    assert_eq!(lines(&computed), values(&sums(tree.path(), "sha256")));
    assert_eq!((computed.summary().left_out.replaced, computed.summary().left_out.symbolic_links), (1, 1));
}

#[test]
fn files_of_an_initramfs_with_several_names_keep_their_place_among_others() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("initrd");
    let linked = |name: &str, content: &[u8]| newc(name, 0o100_755, 2, content);
    let one = |name: &str, content: &[u8]| newc(name, 0o100_755, 1, content);
    // One name is replaced by a later file, another replaces an earlier one; the content comes with the last name.
    let parts =
        [linked("a", b""), one("b", b"old"), one("a", b"new"), linked("b", b""), linked("c", b"x"), end()];
    std::fs::write(&file, parts.concat()).unwrap();
    let tree = tempfile::tempdir().unwrap();
    for (name, content) in [("a", "new"), ("b", "x"), ("c", "x")] {
        std::fs::write(tree.path().join(name), content).unwrap();
    }
    let found = computed(&file);
    assert_eq!(lines(&found), values(&sums(tree.path(), "sha256")));
    assert_eq!(found.summary().left_out.replaced, 2);
    // Nobody has content.
    std::fs::write(&file, [linked("a", b""), linked("b", b""), end()].concat()).unwrap();
    for name in ["a", "b"] {
        std::fs::write(tree.path().join(name), "").unwrap();
    }
    std::fs::remove_file(tree.path().join("c")).unwrap();
    assert_eq!(lines(&computed(&file)), values(&sums(tree.path(), "sha256")));
}

#[test]
fn a_squashfs_image_has_the_digests_of_its_tree_in_each_compression() {
    let (root, out) = (root(), tempfile::tempdir().unwrap());
    // More than one metadata block of entries, of inodes and of fragments' places.
    std::fs::create_dir(root.path().join("many")).unwrap();
    for number in 0..700 {
        let name = root.path().join(format!("many/file-with-a-long-name-{number}"));
        std::fs::write(name, format!("{number}").repeat(number + 1)).unwrap();
    }
    let image = out.path().join("image");
    let expected = values(&sums(root.path(), "sha256"));
    for arguments in [
        "-comp gzip",
        "-comp xz -b 65536",
        "-comp zstd -b 1048576",
        "-comp lz4",
        "-noI -noD -noF",
        "-no-fragments -b 4096",
        "-always-use-fragments",
    ] {
        let (source, target) = (root.path().to_str().unwrap(), image.to_str().unwrap());
        let mut all = vec![source, target, "-noappend", "-quiet", "-no-progress"];
        all.extend(arguments.split(' '));
        run(out.path(), "mksquashfs", &all);
        let computed = computed(&image);
        assert_eq!(lines(&computed), expected, "{arguments}");
        assert_eq!(computed.summary().left_out.symbolic_links, 2);
        assert!(text(&computed).starts_with("# source: squashfs image "));
    }
}

#[test]
fn fragment_blocks_of_a_squashfs_image_count_each_time_that_they_are_decompressed() {
    let (root, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut order = String::new();
    for number in 10..30 {
        std::fs::write(root.path().join(format!("f{number}")), format!("{number}").repeat(200)).unwrap();
        order += &format!("f{number} {}\n", 100 * (number % 2));
    }
    let order_file = out.path().join("order");
    std::fs::write(&order_file, order).unwrap();
    let image = out.path().join("image");
    let made = |more: &[&str]| {
        let (source, target) = (root.path().to_str().unwrap(), image.to_str().unwrap());
        let all = [source, target, "-noappend", "-quiet", "-no-progress", "-b", "4096", "-processors", "1"];
        run(root.path(), "mksquashfs", &[&all[..], more].concat());
        let limits = Limits { unpacked: 40_000, ..Limits::default() };
        compute_with(&[&image], &Options { limits, ..Options::default() })
    };
    // 8,000 bytes in two fragment blocks, one after the other; and in turn, file by file.
    assert_eq!(lines(&made(&[]).unwrap()), values(&sums(root.path(), "sha256")));
    let error = made(&["-sort", order_file.to_str().unwrap()]).unwrap_err();
    assert!(matches!(error.fault, Fault::TooMuch(40_000)), "{error}");
}

#[test]
fn an_ext4_image_has_the_digests_of_its_tree() {
    let (root, out) = (root(), tempfile::tempdir().unwrap());
    let image = out.path().join("image");
    let source = root.path().to_str().unwrap();
    run(out.path(), "mke2fs", &["-q", "-t", "ext4", "-d", source, image.to_str().unwrap(), "16M"]);
    let computed = compute_with(&[&image], &Options::default()).unwrap();
    assert_eq!(lines(&computed), values(&sums(root.path(), "sha256")));
    assert_eq!(computed.summary().left_out.symbolic_links, 2);
}

#[test]
fn ext4_folders_are_not_searched_without_end() {
    let (root, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for number in 0..100 {
        std::fs::write(root.path().join(format!("file-{number}")), "x").unwrap();
    }
    let image = out.path().join("image");
    let source = root.path().to_str().unwrap();
    run(out.path(), "mke2fs", &["-q", "-t", "ext4", "-d", source, image.to_str().unwrap(), "16M"]);
    let made = |lookups| {
        let limits = Limits { lookups, ..Limits::default() };
        compute_with(&[&image], &Options { limits, ..Options::default() })
    };
    // Each file is behind `.`, `..` and lost+found and the files before it; lost+found behind two.
    assert_eq!(lines(&made(99 * 100 / 2 + 3 * 100 + 2).unwrap()), values(&sums(root.path(), "sha256")));
    let error = made(99 * 100 / 2 - 1).unwrap_err();
    assert!(matches!(error.fault, Fault::TooManyLookups(4949)), "{error}");
}
