//! Archives that are broken, or made to do harm: each is refused by its own error, which names file and member.

use std::path::Path;

use rootbound_compute::files::{
    Computed, Fault, FilesError, Kind, Limits, Options, Progress, Source, compute,
};
use tar::EntryType;

use super::make::{STANZA, ar, deb, end, entry, file, gzip, newc, tar};
use super::{compute_with, root, run};

#[track_caller]
fn refused(kind: Kind, bytes: impl AsRef<[u8]>) -> FilesError {
    refused_with(kind, bytes.as_ref(), &Options::default())
}

#[track_caller]
fn refused_with(kind: Kind, bytes: &[u8], options: &Options) -> FilesError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile");
    std::fs::write(&path, bytes).unwrap();
    let error = compute(&[Source { path, kind: Some(kind) }], options, &Progress::default()).unwrap_err();
    assert!(error.to_string().contains("/hostile: "), "{error}");
    error
}

#[track_caller]
fn taken(kind: Kind, bytes: &[u8]) -> Computed {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken");
    std::fs::write(&path, bytes).unwrap();
    let sources = [Source { path, kind: Some(kind) }];
    compute(&sources, &Options::default(), &Progress::default()).unwrap_or_else(|error| panic!("{error}"))
}

macro_rules! refused {
    ($kind:ident, $bytes:expr, $fault:pat $(if $guard:expr)?) => {{
        let error = refused(Kind::$kind, &$bytes);
        assert!(matches!(&error.fault, $fault $(if $guard)?), "{error}");
        error.to_string()
    }};
}

#[test]
fn names_that_lead_out_of_the_root_are_refused() {
    let said = refused!(Deb, deb(&[file("./usr/../../etc/passwd", b"x")]), Fault::Escapes);
    assert!(said.contains("`data.tar`: `./usr/../../etc/passwd`: at offset 0: "), "{said}");
    refused!(Deb, deb(&[entry("x", EntryType::Link, "../../etc/passwd", b"")]), Fault::Escapes);
    let said = refused!(Cpio, [newc("../x", 0o100_644, 1, b"x"), end()].concat(), Fault::Escapes);
    assert!(said.contains("`../x`: at offset 0: "), "{said}");
    // Links of the archive are followed within the root only.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("initrd");
    let link = newc("up", 0o120_777, 1, b"../../../..");
    std::fs::write(&path, [link, newc("up/etc/x", 0o100_644, 1, b"x"), end()].concat()).unwrap();
    let computed = compute_with(&[&path], &Options::default()).unwrap();
    assert!(super::text(&computed).ends_with("  /etc/x\n"));
}

#[test]
fn names_without_a_meaning_are_refused() {
    let long = "a".repeat(4100);
    refused!(Cpio, newc(&long, 0o100_644, 1, b""), Fault::Name(_));
    refused!(Cpio, newc("a\0b", 0o100_644, 1, b""), Fault::Name("has a NUL"));
    refused!(Cpio, newc(&"a/".repeat(200), 0o100_644, 1, b""), Fault::TooDeep(Limits::DEPTH));
    refused!(Cpio, newc("a", 0o120_777, 1, &[b'a'; 5000]), Fault::Name(_));
    // Nothing of a name reaches a terminal as it is.
    let said = refused!(Cpio, newc("\x1b[31m..\n/..", 0o100_644, 1, b""), Fault::Escapes);
    assert!(said.contains(r"`\u{1b}[31m..\n/..`"), "{said}");
}

#[test]
fn bombs_are_refused_by_ratio_and_by_size() {
    let zeros = vec![0; 20 << 20];
    let archive = [newc("zeros", 0o100_644, 1, &zeros), end()].concat();
    refused!(Cpio, gzip(&archive), Fault::Ratio(200));
    let small = Limits { unpacked: 1 << 20, ..Limits::default() };
    let options = Options { limits: small, ..Options::default() };
    let error = refused_with(Kind::Cpio, &gzip(&archive), &options);
    assert!(matches!(error.fault, Fault::TooMuch(limit) if limit == 1 << 20), "{error}");
    let data = zstd::bulk::compress(&tar(&[file("zeros", &zeros)]), 3).unwrap();
    let control = tar(&[file("./control", STANZA)]);
    let package = [("debian-binary", &b"2.0\n"[..]), ("control.tar", &control), ("data.tar.zst", &data)];
    refused!(Deb, ar(&package), Fault::Ratio(200));
    let many = [newc("a", 0o100_644, 1, b""), newc("b", 0o100_644, 1, b""), end()].concat();
    let few = Options { limits: Limits { entries: 1, ..Limits::default() }, ..Options::default() };
    assert!(matches!(refused_with(Kind::Cpio, &many, &few).fault, Fault::TooManyEntries(1)));
    // A long name is read whole by the crate, but only so far.
    let name = entry("././@LongLink", EntryType::GNULongName, "", &vec![b'a'; 2 << 20]);
    let limit = 1 << 20;
    refused!(Deb, deb(&[name, file("x", b"x")]), Fault::TooLarge { limit: found, .. } if *found == limit);
    let script = [file("./control", STANZA), file("./preinst", &vec![b'#'; 5 << 20])];
    let package = [("debian-binary", &b"2.0\n"[..]), ("control.tar", &tar(&script)), ("data.tar", &tar(&[]))];
    refused!(Deb, ar(&package), Fault::TooLarge { what: "a script", .. });
}

#[test]
fn tar_entries_whose_size_or_meaning_is_not_in_the_archive_are_refused() {
    // A hole of 7 GiB and a byte: where that is, how long, and the size of all.
    let mut sparse = entry("holes", EntryType::GNUSparse, "", b"x");
    for (at, field) in [(386, "70000000000"), (398, "00000000001"), (483, "70000000001")] {
        sparse[at..at + 11].copy_from_slice(field.as_bytes());
    }
    let mut header = tar::Header::from_byte_slice(&sparse[..512]).clone();
    header.set_cksum();
    sparse[..512].copy_from_slice(header.as_bytes());
    refused!(Deb, deb(&[sparse]), Fault::Unsupported("a sparse file"));
    let long = |size| {
        let target = entry("././@LongLink", EntryType::GNULongLink, "", &vec![b'a'; size]);
        deb(&[target, entry("link", EntryType::Symlink, "a", b""), file("x", b"x")])
    };
    refused!(Deb, long(4097), Fault::Name("leads to one of more than 4096 bytes"));
    let text = super::text(&taken(Kind::Deb, &long(4096)));
    assert!(text.ends_with("  /x\n"), "{text}");
    // A folder in the form of before there was a type for it.
    let v7 = |name: &str, content: &[u8]| entry(name, EntryType::new(0), "", content);
    let text = super::text(&taken(Kind::Deb, &deb(&[v7("usr/", b""), v7("usr/x", b"x")])));
    assert!(text.ends_with("  /usr/x\n") && text.lines().count() == 2, "{text}");
    refused!(Deb, deb(&[v7("usr/", b"x")]), Fault::Corrupt(what) if what == "a folder with content");
}

#[test]
fn deb_packages_whose_members_are_missing_or_twice_are_refused() {
    let (version, control, data) =
        (&b"2.0\n"[..], tar(&[file("./control", STANZA)]), tar(&[file("x", b"x")]));
    let (binary, control, data) =
        (("debian-binary", version), ("control.tar", &control[..]), ("data.tar", &data[..]));
    let missing = |members: &[(&str, &[u8])], expected: &str| {
        let error = refused(Kind::Deb, ar(members));
        assert!(matches!(&error.fault, Fault::Missing(what) if what == expected), "{error}");
    };
    missing(&[], "debian-binary");
    missing(&[binary], "control.tar");
    missing(&[binary, control], "data.tar");
    missing(&[binary, data, control], "control.tar before data.tar");
    missing(&[control, data], "debian-binary as the first member");
    let empty = tar(&[]);
    missing(&[binary, ("control.tar", &empty), data], "control in control.tar");
    for field in ["Package", "Version", "Architecture"] {
        let stanza = String::from_utf8(STANZA.to_vec()).unwrap().replace(&format!("{field}: "), "Other: ");
        let control = tar(&[file("./control", stanza.as_bytes())]);
        missing(&[binary, ("control.tar", &control), data], &format!("{field} in its control file"));
    }
    let twice = |members: &[(&str, &[u8])], expected: &str| {
        let error = refused(Kind::Deb, ar(members));
        assert!(matches!(&error.fault, Fault::Duplicate(what) if what == expected), "{error}");
    };
    twice(&[binary, binary, control, data], "debian-binary");
    twice(&[binary, control, control, data], "control.tar");
    twice(&[binary, control, data, data], "data.tar");
    let two = tar(&[file("./control", STANZA), file("control", STANZA)]);
    twice(&[binary, ("control.tar", &two), data], "control");
    let two = tar(&[file("./x", b"1"), file("x", b"2")]);
    twice(&[binary, control, ("data.tar", &two)], "x");
    // Also where they are one on a machine with a merged /usr, and where one of them is no file.
    let link = |name| entry(name, EntryType::Symlink, "y", b"");
    let pipe = entry("x", EntryType::Fifo, "", b"");
    let merged = tar(&[file("bin/x", b"1"), file("usr/bin/x", b"2")]);
    twice(&[binary, control, ("data.tar", &merged)], "usr/bin/x");
    for two in [[file("x", b"1"), link("x")], [link("x"), file("x", b"1")], [pipe, file("x", b"1")]] {
        twice(&[binary, control, ("data.tar", &tar(&two))], "x");
    }
    let split = Options { split_usr: true, ..Options::default() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split.deb");
    std::fs::write(&path, ar(&[binary, control, ("data.tar", &merged)])).unwrap();
    assert_eq!(compute_with(&[&path], &split).unwrap().summary().digests, 2);
    // A hard link finds its file by either name.
    let linked = deb(&[file("bin/x", b"1"), entry("y", EntryType::Link, "usr/bin/x", b"")]);
    assert_eq!(taken(Kind::Deb, &linked).summary().digests, 2);
    refused!(Deb, ar(&[binary, control, ("other", b"x"), data]), Fault::Unlisted);
    refused!(Deb, ar(&[("debian-binary", b"3.0\n"), control, data]), Fault::Unsupported(_));
    refused!(
        Deb,
        ar(&[binary, control, ("data.tar.bz2", b"BZh91AY")]),
        Fault::Unsupported("bzip2 compression")
    );
    refused!(Deb, deb(&[entry("x", EntryType::Link, "y", b"")]), Fault::DanglingLink(name) if name == "y");
    refused!(Deb, deb(&[entry("x", EntryType::new(b'?'), "", b"")]), Fault::Unsupported(_));
}

#[test]
fn archives_that_end_too_early_are_refused_wherever_they_end() {
    let package = deb(&[file("usr/bin/x", &[7; 700])]);
    for end in (0..package.len()).step_by(61) {
        let fault = refused(Kind::Deb, &package[..end]).fault;
        let is_end = matches!(fault, Fault::Truncated(_) | Fault::Missing(_) | Fault::Corrupt(_));
        assert!(is_end, "{end}: {fault}");
    }
    let archive = [newc("x", 0o100_644, 1, &[7; 300]), newc("y", 0o100_644, 1, b"y"), end()].concat();
    for end in (1..archive.len() - 4).step_by(13) {
        let fault = refused(Kind::Cpio, &archive[..end]).fault;
        assert!(matches!(fault, Fault::Truncated(_) | Fault::Corrupt(_)), "{end}: {fault}");
    }
    for bytes in [gzip(&archive), zstd::bulk::compress(&archive, 3).unwrap()] {
        for end in (7..bytes.len()).step_by(5) {
            let fault = refused(Kind::Cpio, &bytes[..end]).fault;
            assert!(matches!(fault, Fault::Truncated(_) | Fault::Corrupt(_)), "{end}: {fault}");
        }
    }
    // Without its end mark a tar archive may have lost entries.
    let control = tar(&[file("./control", STANZA)]);
    let package =
        [("debian-binary", &b"2.0\n"[..]), ("control.tar", &control), ("data.tar", &file("x", b"x"))];
    refused!(Deb, ar(&package), Fault::Truncated(what) if what.contains("end mark"));
}

#[test]
fn what_is_no_archive_is_refused() {
    refused!(Cpio, b"", Fault::Corrupt(_));
    refused!(Cpio, b"what is this", Fault::Corrupt(_));
    refused!(Cpio, [end(), b"and this".to_vec()].concat(), Fault::Corrupt(_));
    refused!(Cpio, b"070707000000", Fault::Unsupported(_));
    refused!(Cpio, b"\x89LZO\0\r\n", Fault::Unsupported("LZO compression"));
    refused!(Cpio, b"\x5d\0\0\x80\0", Fault::Unsupported("LZMA compression of before xz"));
    refused!(Cpio, gzip(&gzip(&end())), Fault::Corrupt(_));
    let mut odd = newc("x", 0o100_644, 1, b"");
    odd[20] = b'x';
    refused!(Cpio, odd, Fault::Corrupt(what) if what.contains("hex"));
    refused!(Squashfs, b"hsqs", Fault::Truncated("the superblock"));
    refused!(Rpm, [0; 200], Fault::Corrupt(_));
    refused!(Deb, b"!<arch>\nx", Fault::Truncated(_));
    refused!(Ext4, [0; 4096], Fault::Corrupt(_));
}

fn image(program: &str, arguments: &[&str]) -> Vec<u8> {
    let (root, out) = (root(), tempfile::tempdir().unwrap());
    let (source, target) = (root.path().to_str().unwrap(), out.path().join("image"));
    let arguments: Vec<_> = arguments
        .iter()
        .map(|argument| match *argument {
            "SOURCE" => source,
            "TARGET" => target.to_str().unwrap(),
            other => other,
        })
        .collect();
    run(Path::new("/"), program, &arguments);
    std::fs::read(target).unwrap()
}

fn changed(bytes: &[u8], at: usize, to: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at..at + to.len()].copy_from_slice(to);
    changed
}

#[test]
fn squashfs_images_that_lie_are_refused() {
    let image = image("mksquashfs", &["SOURCE", "TARGET", "-quiet", "-no-progress", "-noI", "-noD", "-noF"]);
    refused!(Squashfs, changed(&image, 28, &[3, 0]), Fault::Unsupported(_));
    refused!(Squashfs, changed(&image, 20, &[3, 0]), Fault::Unsupported("LZO compression"));
    refused!(Squashfs, changed(&image, 20, &[9, 0]), Fault::Corrupt(_));
    refused!(Squashfs, changed(&image, 12, &[1, 0, 0, 0]), Fault::Corrupt(_));
    refused!(Squashfs, changed(&image, 40, &[0xff; 8]), Fault::Truncated(_));
    for table in [64, 72, 80, 32] {
        refused!(Squashfs, changed(&image, table, &[0xff; 8]), Fault::Corrupt(_));
    }
    // The block of inodes, stored as it is: a folder that is in itself, and one of which the list does not end.
    let inodes = usize::try_from(u64::from_le_bytes(image[64..72].try_into().unwrap())).unwrap() + 2;
    let root = inodes + usize::from(image[32]) + 256 * usize::from(image[33]);
    assert_eq!(image[root], 1, "the root's inode");
    refused!(Squashfs, changed(&image, root + 24, &[0xff; 2]), Fault::Corrupt(_));
    let folders = usize::try_from(u64::from_le_bytes(image[72..80].try_into().unwrap())).unwrap();
    let list = folders + 2 + usize::from(u16::from_le_bytes([image[root + 26], image[root + 27]]));
    refused!(Squashfs, changed(&image, list, &[0xff; 4]), Fault::Corrupt(what) if what.contains("256"));
    let to_itself = changed(&image, list + 12, &image[32..34]);
    refused!(Squashfs, to_itself, Fault::Corrupt(what) if what == "a folder is in two places");
    let up = changed(&changed(&image, list + 18, &[1, 0]), list + 20, b"..");
    refused!(Squashfs, up, Fault::Escapes);
    refused!(Squashfs, changed(&image, list + 20, b"/x"), Fault::Name(_));
    refused!(Squashfs, changed(&image, list + 16, &[0xff; 2]), Fault::Corrupt(_));
    // A block that unpacks to more than a block may have.
    let header = usize::try_from(u64::from_le_bytes(image[64..72].try_into().unwrap())).unwrap();
    let mut bomb = image.clone();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &vec![0; 1 << 20]).unwrap();
    let compressed = encoder.finish().unwrap();
    bomb.truncate(header);
    bomb.extend(u16::try_from(compressed.len()).unwrap().to_le_bytes());
    bomb.extend(compressed);
    let size = u64::try_from(bomb.len()).unwrap();
    let bomb = changed(&changed(&bomb, 40, &size.to_le_bytes()), 32, &[0; 8]);
    refused!(Squashfs, bomb, Fault::TooLarge { what: "a block", limit: 8192 });
}

#[test]
fn ext4_images_that_lie_are_refused() {
    let image =
        image("mke2fs", &["-q", "-t", "ext4", "-O", "^metadata_csum", "-d", "SOURCE", "TARGET", "16M"]);
    refused!(Ext4, image[..image.len() / 2], Fault::Truncated("the blocks that its superblock announces"));
    refused!(Ext4, changed(&image, 1024 + 4, &[0xff; 4]), Fault::Truncated(_));
    refused!(Ext4, changed(&image, 1024 + 0x18, &[0xff; 4]), Fault::Corrupt(what) if what.contains("64 KiB"));
    refused!(Ext4, changed(&image, 1024 + 0x20, &[1, 0, 0, 0]), Fault::Corrupt(what) if what.contains("groups"));
    refused!(Ext4, image[..1500], Fault::Truncated("the superblock"));
    // A folder that is in itself, as often as folders may be in folders.
    let list =
        image.windows(7).position(|window| window == b"\x03\x02usr\0\x03" || window[..5] == *b"\x03\x02etc");
    let at = list.unwrap() - 6;
    refused!(Ext4, changed(&image, at, &2_u32.to_le_bytes()), Fault::TooDeep(Limits::DEPTH) | Fault::Name(_));
}
