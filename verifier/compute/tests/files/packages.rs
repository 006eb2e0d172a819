//! .deb and .rpm packages, one or a folder of them.

use std::path::{Path, PathBuf};

use rootbound_compute::files::{Fault, LeftOut, Options};

use super::make::{deb, file};
use super::{compute_with, computed, lines, root, run, sums, text, values};

/// A .deb package of a tree, made by dpkg-deb.
fn build_deb(root: &Path, out: &Path, compression: &str) -> PathBuf {
    let control = root.join("DEBIAN");
    std::fs::create_dir_all(&control).unwrap();
    let stanza = "Package: x\nVersion: 1:2.0-3\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\n\
                  Description: a test\n";
    std::fs::write(control.join("control"), stanza).unwrap();
    std::fs::write(control.join("conffiles"), "/etc/x.conf\n").unwrap();
    std::fs::write(control.join("postinst"), "#!/bin/sh\ntrue\n").unwrap();
    std::fs::write(control.join("preinst"), "#!/bin/sh\ndpkg-divert --add /usr/bin/y\n").unwrap();
    run(root, "chmod", &["0755", "DEBIAN/postinst", "DEBIAN/preinst"]);
    let package = out.join("x_2.0-3_amd64.deb");
    let arguments = ["--root-owner-group", "-Z", compression, "--build", root.to_str().unwrap()];
    run(out, "dpkg-deb", &[&arguments[..], &[package.to_str().unwrap()]].concat());
    std::fs::remove_dir_all(control).unwrap();
    package
}

#[test]
fn a_deb_package_has_the_digests_of_its_tree_but_its_configuration_files() {
    let (root, out) = (root(), tempfile::tempdir().unwrap());
    // As packages have it that were made before /usr was merged.
    std::fs::create_dir(root.path().join("bin")).unwrap();
    std::fs::write(root.path().join("bin/sh"), "sh").unwrap();
    let as_packed = sums(root.path(), "sha256");
    let mut merged = as_packed.clone();
    let sh = merged.remove("/bin/sh").unwrap();
    merged.insert("/usr/bin/sh".to_owned(), sh.replace("  /bin", "  /usr/bin"));
    let mut without = merged.clone();
    without.remove("/etc/x.conf").unwrap();
    for compression in ["gzip", "xz", "zstd", "none"] {
        let package = build_deb(root.path(), out.path(), compression);
        let found = computed(&package);
        assert_eq!(lines(&found), values(&without), "{compression}");
        let expected = LeftOut { symbolic_links: 2, configuration_files: 1, ..LeftOut::default() };
        assert_eq!(found.summary().left_out, expected);
        let first = "# source: package x 1:2.0-3 amd64, x_2.0-3_amd64.deb\n";
        assert!(text(&found).starts_with(first), "{}", text(&found));
        let notes: Vec<_> = found.summary().notes.iter().map(|note| note.note.as_str()).collect();
        let [divert, scripts] = notes[..] else { panic!("{notes:?}") };
        assert!(divert.starts_with("its preinst may divert"), "{divert}");
        assert!(scripts.contains("preinst") && scripts.contains("postinst"), "{scripts}");
        let options = Options { configuration_files: true, split_usr: true, ..Options::default() };
        assert_eq!(lines(&compute_with(&[&package], &options).unwrap()), values(&as_packed));
    }
}

/// A .rpm package of a tree.
fn build_rpm(root: &Path, out: &Path, compression: rpm::CompressionType) -> PathBuf {
    let mut builder = rpm::PackageBuilder::new("x", "2.0", "Apache-2.0", "x86_64", "a test");
    builder.release("3.el9").epoch(1).using_config(rpm::BuildConfig::default().compression(compression));
    builder.pre_install_script("true");
    for path in sums(root, "sha256").keys() {
        let mut options = rpm::FileOptions::new(path.as_str());
        if path == "/etc/x.conf" {
            options = options.config();
        }
        builder.with_file(root.join(&path[1..]), options).unwrap();
    }
    builder.with_symlink(rpm::FileOptions::symlink("/usr/bin/link", "tool")).unwrap();
    builder.with_ghost(rpm::FileOptions::ghost("/var/log/x.log")).unwrap();
    let package = out.join("x-2.0-3.el9.x86_64.rpm");
    builder.build().unwrap().write_file(&package).unwrap();
    package
}

#[test]
fn an_rpm_package_has_the_digests_of_its_tree_but_its_configuration_files() {
    let (root, out) = (root(), tempfile::tempdir().unwrap());
    let mut expected = sums(root.path(), "sha256");
    let mut long = sums(root.path(), "sha512");
    for sums in [&mut expected, &mut long] {
        sums.remove("/etc/x.conf").unwrap();
    }
    use rpm::CompressionType::{Gzip, None, Zstd};
    for compression in [Gzip, Zstd, None] {
        let package = build_rpm(root.path(), out.path(), compression);
        let found = computed(&package);
        assert_eq!(lines(&found), values(&expected), "{compression:?}");
        let left_out = LeftOut { symbolic_links: 1, configuration_files: 1, ghosts: 1, ..LeftOut::default() };
        assert_eq!(found.summary().left_out, left_out);
        let first = "# source: package x-1:2.0-3.el9.x86_64, x-2.0-3.el9.x86_64.rpm\n";
        assert!(text(&found).starts_with(first), "{}", text(&found));
        assert!(found.summary().notes[0].note.contains("(%pre)"), "{:?}", found.summary().notes);
        let algorithm = rootbound_common::tpm::HashAlgorithm::Sha512;
        let options = Options { algorithm, ..Options::default() };
        assert_eq!(lines(&compute_with(&[&package], &options).unwrap()), values(&long));
    }
}

#[test]
fn an_rpm_package_whose_payload_is_not_what_its_header_says_is_refused() {
    let (root, out) = (root(), tempfile::tempdir().unwrap());
    let package = build_rpm(root.path(), out.path(), rpm::CompressionType::None);
    let good = std::fs::read(&package).unwrap();
    let fault = |bytes: &[u8]| {
        std::fs::write(&package, bytes).unwrap();
        compute_with(&[&package], &Options::default()).unwrap_err()
    };
    let find = |what: &[u8]| good.windows(what.len()).rposition(|window| window == what).unwrap();
    let changed = |at: usize, to: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + to.len()].copy_from_slice(to);
        bad
    };
    let error = fault(&changed(find(b"x = 1\n"), b"x = 2\n"));
    assert!(matches!(error.fault, Fault::Digest("the header of the package")), "{error}");
    assert!(error.to_string().contains("`./etc/x.conf`: at offset "), "{error}");
    let error = fault(&changed(find(b"./etc/x.conf"), b"./etc/y.conf"));
    assert!(matches!(error.fault, Fault::Unlisted), "{error}");
    // Its first entry is its last.
    let payload = find(b"TRAILER!!!") - 110;
    let mut early = good[..find(b"./etc/x.conf") - 110].to_vec();
    early.extend_from_slice(&good[payload..]);
    let error = fault(&early);
    assert!(matches!(&error.fault, Fault::Missing(what) if what.contains("in its payload")), "{error}");
    for length in [0, 3, 95, 96, 100, 120, 400, payload / 2, payload + 20] {
        let error = fault(&good[..length]);
        let is_end = matches!(error.fault, Fault::Truncated(_) | Fault::UnknownKind);
        assert!(is_end, "{length}: {error}");
    }
    // The number of entries, the size of the store, and where a tag points, in the signature header.
    for (at, to) in
        [(104, [0xff; 4]), (108, [0xff; 4]), (108, [0, 0, 0, 1]), (120, [0x7f; 4]), (124, [0xff; 4])]
    {
        let error = fault(&changed(at, &to));
        let is_refused = matches!(
            error.fault,
            Fault::TooManyEntries(_) | Fault::TooLarge { .. } | Fault::Corrupt(_) | Fault::Truncated(_)
        );
        assert!(is_refused, "{at}: {error}");
    }
}

#[test]
fn a_folder_of_packages_has_the_digests_of_all_of_them() {
    let (root, out) = (root(), tempfile::tempdir().unwrap());
    build_deb(root.path(), out.path(), "xz");
    build_rpm(root.path(), out.path(), rpm::CompressionType::Zstd);
    std::fs::write(out.path().join("y.deb"), deb(&[file("./usr/bin/y", b"y")])).unwrap();
    std::fs::create_dir(out.path().join("partial")).unwrap();
    std::fs::write(out.path().join("lock"), "").unwrap();
    let found = computed(out.path());
    std::fs::write(root.path().join("usr/bin/y"), "y").unwrap();
    let mut expected = sums(root.path(), "sha256");
    expected.remove("/etc/x.conf").unwrap();
    let mut expected = values(&expected);
    let mut lines = lines(&found);
    expected.sort();
    lines.sort();
    assert_eq!(lines, expected);
    let left_out = found.summary().left_out;
    assert_eq!((left_out.not_packages, left_out.repeated, left_out.configuration_files), (2, 7, 2));
    // One bad package is the end of it.
    std::fs::write(out.path().join("z.deb"), "no package").unwrap();
    let error = compute_with(&[out.path()], &Options::default()).unwrap_err();
    assert!(error.to_string().contains("z.deb: "), "{error}");
}
