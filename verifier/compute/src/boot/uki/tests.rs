use proptest::prelude::*;
use rootbound_common::crypto::Digest;

use super::*;
use crate::boot::event::fold;
use crate::boot::testing::{ImageBuilder, at, set};

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

fn kernel() -> Vec<u8> {
    ImageBuilder::new().section(".text", &[0xcc; 900]).build()
}

fn magic(version: &str) -> Vec<u8> {
    format!("#### LoaderInfo: systemd-stub {version} ####\0").into_bytes()
}

fn stub(version: &str) -> ImageBuilder {
    ImageBuilder::new().section(".text", &[0x90; 64]).section(".sdmagic", &magic(version))
}

fn uki(version: &str) -> ImageBuilder {
    stub(version)
        .section(".osrel", b"ID=test\n")
        .section(".cmdline", b"quiet")
        .section(".uname", b"6.1")
        .section(".sbat", b"sbat,1")
        .section(".initrd", b"initrd")
        .section(".ucode", b"ucode")
        .section(".hwids", b"hwids")
        .section(".pcrsig", b"{}")
        .section(".linux", &kernel())
}

fn parse(bytes: &[u8]) -> Result<Uki<'_>, UkiError> {
    Uki::parse(bytes, None)
}

fn names(version: &str) -> String {
    let file = uki(version).build();
    let events = parse(&file).unwrap().sections(SHA256);
    let names: Vec<_> =
        events.iter().filter_map(|event| event.label.strip_prefix("systemd-stub: name of ")).collect();
    assert_eq!(names.len() * 2, events.len());
    names.join(" ")
}

#[test]
fn sections_are_measured_in_the_order_of_the_stub_as_far_as_it_knows_them() {
    assert_eq!(names("252.39-1~deb12u2"), ".linux .osrel .cmdline .initrd");
    assert_eq!(names("253"), ".linux .osrel .cmdline .initrd");
    assert_eq!(names("254.1"), ".linux .osrel .cmdline .initrd .uname .sbat");
    assert_eq!(names("255~rc1"), ".linux .osrel .cmdline .initrd .uname .sbat");
    assert_eq!(names("256"), ".linux .osrel .cmdline .initrd .ucode .uname .sbat");
    assert_eq!(names("257"), ".linux .osrel .cmdline .initrd .ucode .uname .sbat .hwids");
    assert_eq!(names("258"), names("257"));
}

#[test]
fn a_name_with_its_terminator_and_then_the_content_are_measured() {
    let file = uki("252").build();
    let events = parse(&file).unwrap().sections(SHA256);
    // Of a real boot with systemd-stub 252, whose names are the same: `.linux` and `.osrel`.
    assert_eq!(
        events[0].digest.to_string(),
        "0da293e37ad5511c59be47993769aacb91b243f7d010288e118dc90e95aaef5a"
    );
    assert_eq!(
        events[2].digest.to_string(),
        "3fb9e4e3cc810d4326b5c13cef18aee1f9df8c5f4f7f5b96665724fa3b846e08"
    );
    assert_eq!(events[1].digest, hash(SHA256, &[&kernel()]));
    assert_eq!(events[5].digest, hash(SHA256, &[b"quiet"]));
    assert!(events.iter().all(|event| event.pcr == UNIFIED_KERNEL));
}

#[test]
fn a_section_is_measured_as_it_lies_in_memory() {
    let image = |size| stub("252").section_in_memory(".osrel", b"ID=a", size).section(".linux", &kernel());
    let measured = |size| parse(&image(size).build()).unwrap().sections(SHA256)[3].digest;
    assert_eq!(measured(2), hash(SHA256, &[b"ID"]), "shorter in memory than in the file");
    assert_eq!(measured(9000), hash(SHA256, &[b"ID=a", &[0; 8996]]), "zeros behind it");
}

/// The digests of a real boot (systemd-stub 252 in QEMU), and the value that its TPM quoted.
#[test]
fn the_digests_of_a_real_boot_come_to_the_quoted_value() {
    let digests = [
        "0da293e37ad5511c59be47993769aacb91b243f7d010288e118dc90e95aaef5a",
        "51349501a3d1ff83836437d2b365fd2d57f2feb8642d315e5181dec23d4c3275",
        "3fb9e4e3cc810d4326b5c13cef18aee1f9df8c5f4f7f5b96665724fa3b846e08",
        "11c2f2e0d79a95c389242371964bad204ba50b5ef129e24e098454d3dddd651d",
        "461203a89f23e36c3a4dc817f905b00484d2cf7e7d9376f13df91c41d84abe46",
        "e19759cd737f87e09171857d1ebf7a93ed1b3193f548b8bc2bc6f5e448aee9e6",
        "15ee37e75f1e8d42080e91fdbbd2560780918c81fe3687ae6d15c472bbdaac75",
        "615a8111c5aaa6c56c35b25e966fbf07ae0c21b1fbc310189b504fb066229c4f",
    ];
    let event = |hex: &str| Event::other(UNIFIED_KERNEL, Digest::from_hex(SHA256, hex).unwrap(), "");
    let events: Vec<_> = digests.iter().map(|hex| event(hex)).collect();
    assert_eq!(
        fold(SHA256, UNIFIED_KERNEL, &events).to_string(),
        "cfc4d9b9246271b679af4b14385c76e27019680a4c6a1883ed4d396023def576"
    );
    assert_eq!(fold(SHA256, KERNEL_INITRD, &events), Digest::zero(SHA256), "others are not its own");
}

#[test]
fn phases_are_words_without_a_terminator_one_after_the_other() {
    let words = phases(SHA256).map(|event| event.digest);
    let expected: [&[u8]; 4] = [b"enter-initrd", b"leave-initrd", b"sysinit", b"ready"];
    assert_eq!(words, expected.map(|word| hash(SHA256, &[word])));
}

#[test]
fn the_kernel_inside_is_a_boot_application() {
    let file = uki("252").build();
    let expected = Image::parse(&kernel()).unwrap().authenticode(SHA256);
    let measured = |file: &[u8]| parse(file).unwrap().kernel(SHA256).unwrap().map(|event| event.digest);
    assert_eq!(measured(&file), Some(expected));
    assert_eq!(measured(&uki("257.9").build()), Some(expected));
    assert_eq!(measured(&uki("258").build()), None, "it loads the kernel itself");
    let other = stub("252").section(".linux", b"MZ no kernel").build();
    let image = parse(&other).unwrap();
    let offset = image.image().section(".linux").unwrap().data.start;
    let source = PeError::Truncated { what: "the DOS header", offset: 0x3c, size: 12 };
    assert_eq!(image.kernel(SHA256), Err(UkiError::Kernel { offset, source }));
}

#[test]
fn the_command_line_is_passed_without_white_space_around_it() {
    let of_version = |version: &str, content: &[u8]| {
        let file = stub(version).section(".cmdline", content).section(".linux", &kernel()).build();
        parse(&file).unwrap().command_line()
    };
    let text = |content: &[u8]| of_version("253", content);
    assert_eq!(text(b"a=1 b\n"), Ok(Some("a=1 b".to_owned())));
    // As measured in a boot with 252.39: it keeps what is in front.
    assert_eq!(of_version("252.39", b"  a\t x=1\n\n"), Ok(Some("  a  x=1".to_owned())));
    assert_eq!(text(b" \ta\n\tb \0 rest"), Ok(Some("a  b".to_owned())));
    assert_eq!(text(&[b'a'; MAX_COMMAND_LINE]), Ok(Some("a".repeat(MAX_COMMAND_LINE))));
    assert!(matches!(text(&[b'a'; MAX_COMMAND_LINE + 1]), Err(UkiError::CommandLine { .. })));
    assert!(matches!(text(&[0xff, b'a']), Err(UkiError::CommandLine { .. })));
    let without = stub("252").section(".linux", &kernel()).build();
    assert_eq!(parse(&without).unwrap().command_line(), Ok(None));
}

#[test]
fn an_initrd_alone_is_passed_as_it_is_and_others_are_padded() {
    let initrd = |version: &str, sections: &[(&str, &[u8])]| {
        let mut image = stub(version).section(".linux", &kernel());
        for (name, content) in sections {
            image = image.section(name, content);
        }
        let file = image.build();
        parse(&file).unwrap().initrd(SHA256).map(|event| event.digest)
    };
    assert_eq!(initrd("252", &[]), None);
    assert_eq!(initrd("252", &[(".initrd", b"12345")]), Some(hash(SHA256, &[b"12345"])));
    assert_eq!(
        initrd("256", &[(".initrd", b"12345"), (".ucode", b"1")]),
        Some(hash(SHA256, &[b"1\0\0\0", b"12345\0\0\0"]))
    );
    // From `pack_cpio_one`, `pack_cpio_dir` and `pack_cpio_trailer` of systemd's cpio.c, written out.
    let member = |words: &str, name: &[u8]| {
        let mut bytes = [b"070701", words.replace(' ', "").as_bytes(), name].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let archive = [
        member(
            "00000001 0000416d 00000000 00000000 00000001 00000000 00000000 \
             00000000 00000000 00000000 00000000 00000007 00000000",
            b".extra\0",
        ),
        member(
            "00000002 00008124 00000000 00000000 00000001 00000000 00000005 \
             00000000 00000000 00000000 00000000 0000001f 00000000",
            b".extra/tpm2-pcr-signature.json\0",
        ),
        b"{\"1\"}\0\0\0".to_vec(),
        member(
            "00000000 00000000 00000000 00000000 00000001 00000000 00000000 \
             00000000 00000000 00000000 00000000 0000000B 00000000",
            b"TRAILER!!!\0\0\0",
        ),
    ]
    .concat();
    assert_eq!(
        initrd("252", &[(".initrd", b"12345"), (".pcrsig", b"{\"1\"}")]),
        Some(hash(SHA256, &[b"12345\0\0\0", &archive]))
    );
    assert_ne!(initrd("256", &[(".osrel", b"ID=a")]), initrd("257", &[(".osrel", b"ID=a")]));
}

#[test]
fn the_kernel_measures_what_the_stub_passes() {
    let file = uki("252").build();
    let events = parse(&file).unwrap().kernel_input(SHA256).unwrap();
    assert_eq!(events[0].digest, hash(SHA256, &[b"q\0u\0i\0e\0t\0\0\0"]));
    assert!(events.iter().all(|event| event.pcr == KERNEL_INITRD));
    assert_eq!(events.len(), 2);
    // No load options at all are no event, and not the terminator of an empty text.
    let without = stub("252").section(".initrd", b"initrd").section(".linux", &kernel()).build();
    let events = parse(&without).unwrap().kernel_input(SHA256).unwrap();
    assert_eq!(events.iter().map(|event| event.digest).collect::<Vec<_>>(), [hash(SHA256, &[b"initrd"])]);
}

#[test]
fn each_image_whose_measurements_are_not_known_is_refused_by_name() {
    let refused = |image: ImageBuilder| parse(&image.build()).map(|_| ()).unwrap_err();
    let linux = |image: ImageBuilder| image.section(".linux", &kernel());
    assert_eq!(
        parse(b"MZ").map(|_| ()),
        Err(UkiError::Pe(PeError::Truncated { what: "the DOS header", offset: 0x3c, size: 2 }))
    );
    assert_eq!(refused(stub("252")), UkiError::NoKernel);
    assert_eq!(refused(linux(ImageBuilder::new())), UkiError::UnknownStub);
    assert_eq!(refused(linux(ImageBuilder::new().section(".sdmagic", b"no"))), UkiError::UnknownStub);
    for version in [251, 259, 99_999] {
        let found = refused(linux(stub(&version.to_string())));
        assert!(matches!(found, UkiError::OtherStub { version: said, .. } if said == version), "{found}");
    }
    let twice = refused(linux(linux(stub("252"))));
    assert!(matches!(twice, UkiError::Twice { name: ".linux", .. }), "{twice}");
    for name in [".profile", ".dtbauto", ".efifw"] {
        let found = refused(linux(stub("258")).section(name, b"1"));
        assert!(matches!(found, UkiError::ChosenAtBoot { name: said, .. } if said == name), "{found}");
    }
    let large = linux(stub("252")).section_in_memory(".osrel", b"ID", 0x10_0201).build();
    let found = parse(&large).map(|_| ()).unwrap_err();
    assert!(matches!(found, UkiError::SectionTooLarge { name: ".osrel", size: 0x10_0201, .. }), "{found}");
    let mut file = linux(stub("252")).build();
    let third = at::SECTIONS + 80;
    set(&mut file, third + 12, 0x1010);
    let found = parse(&file).map(|_| ()).unwrap_err();
    assert!(
        matches!(&found, UkiError::OverlapInMemory { first, second, address: 0x1010, .. }
            if first == ".text" && second == ".linux"),
        "{found}"
    );
    for found in [twice, found] {
        assert!(found.to_string().contains("offset"), "{found}");
    }
}

#[test]
fn a_version_is_said_of_an_image_that_does_not_say_it() {
    let file = ImageBuilder::new().section(".linux", &kernel()).section(".uname", b"6").build();
    let events = |version| Uki::parse(&file, StubVersion::new(version)).unwrap().sections(SHA256).len();
    assert_eq!((events(252), events(254)), (2, 4));
    assert_eq!((StubVersion::new(251), StubVersion::new(259)), (None, None));
    assert_eq!(Uki::parse(&file, Some(StubVersion::NEWEST)).unwrap().version().get(), 258);
    let file = uki("255.4-1").build();
    let said = |version| Uki::parse(&file, StubVersion::new(version)).map(|uki| uki.version().get());
    assert_eq!(said(255), Ok(255));
    let found = said(254).unwrap_err();
    assert!(matches!(found, UkiError::StubsDiffer { found: 255, said: 254, .. }), "{found}");
    assert!(found.to_string().contains("offset"), "{found}");
    // Nor does it make a version known that is not.
    let newer = uki("259").build();
    let found = Uki::parse(&newer, StubVersion::new(258)).map(|_| ()).unwrap_err();
    assert!(matches!(found, UkiError::OtherStub { version: 259, .. }), "{found}");
}

proptest! {
    #[test]
    fn a_mutated_image_never_panics(
        changes in proptest::collection::vec((0_usize..9000, any::<u8>()), 1..12),
    ) {
        let mut file = uki("257").build();
        for (at, value) in changes {
            if let Some(byte) = file.get_mut(at) { *byte = value; }
        }
        if let Ok(uki) = parse(&file) {
            let _ = (uki.sections(SHA256), uki.kernel(SHA256), uki.kernel_input(SHA256));
        }
    }
}

/// systemd's own program for the same, of the version that Debian 12 has.
#[test]
fn systemd_measure_comes_to_the_same_values() {
    let program = "/usr/lib/systemd/systemd-measure";
    let version = std::process::Command::new(program).arg("--version").output();
    if !version.is_ok_and(|output| output.stdout.starts_with(b"systemd 252")) {
        use std::io::Write;
        writeln!(
            std::io::stderr(),
            "skipped: systemd_measure_comes_to_the_same_values: no systemd-measure 252"
        )
        .unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let contents: [(&str, &[u8]); 6] = [
        ("linux", &kernel()),
        ("osrel", b"ID=test\n"),
        ("cmdline", b"quiet"),
        ("initrd", b"initrd"),
        ("splash", b"BM"),
        ("pcrpkey", b"a key"),
    ];
    let mut image = stub("252");
    let mut command = std::process::Command::new(program);
    command.args(["calculate", "--bank=sha384", "--bank=sha256"]);
    for (name, content) in contents {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        command.arg(format!("--{name}={}", path.display()));
        image = image.section(&format!(".{name}"), content);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<_> = output.lines().filter(|line| line.starts_with("11:")).collect();
    let file = image.build();
    let mut ours = Vec::new();
    let mut banks = [HashAlgorithm::Sha256, HashAlgorithm::Sha384]
        .map(|bank| (bank, parse(&file).unwrap().sections(bank)));
    for phase in 0..4 {
        for (bank, events) in &mut banks {
            events.push(phases(*bank)[phase].clone());
            ours.push(format!("11:{bank}={}", fold(*bank, UNIFIED_KERNEL, events.iter())));
        }
    }
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(ours), sorted(theirs.into_iter().map(str::to_owned).collect()));
}
