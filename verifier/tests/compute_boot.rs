//! `reference compute boot`, the program itself: over small images, and over the packages that real boots were made of.
//!
//! `BOOT_FILES` names a folder into which the packages of those boots are unpacked: `scripts/boot-files` makes it. The evidence
//! is in `EVIDENCE_CORPUS`. Where either is unset, that test says that it is skipped.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rootbound_common::crypto::{Digest, TaggedDigest, hash};
use rootbound_common::tpm::HashAlgorithm;
use rootbound_compute::values::{BootValues, Measured};
use rootbound_verifier::evidence::boot_log::ParsedBootLog;
use tempfile::TempDir;

#[expect(dead_code, reason = "what the tests of rootbound-compute need beside")]
#[path = "../compute/src/boot/testing.rs"]
mod images;

use images::{ImageBuilder, gpt_disk};

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

/// Exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rootbound-verifier"))
        .args(["reference", "compute", "boot"])
        .args(arguments)
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

fn values(arguments: &[&str]) -> BootValues {
    let (code, json, error) = run(&[&["--output", "json"], arguments].concat());
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&json).expect("values as others read them")
}

/// The values computed for a PCR, with what is said of them.
fn pcr(values: &BootValues, index: u8) -> Vec<(Digest, &str)> {
    let of = values.pcrs.iter().filter(|value| value.pcr.get() == index);
    of.map(|value| (value.value.0, value.label.as_str())).collect()
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn put(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("a file");
        path.to_str().expect("a path of text").to_owned()
    }
}

#[test]
fn what_is_computed_is_values_for_machines_and_a_table_for_people() {
    let files = Files::new();
    let kernel = ImageBuilder::new().section(".text", b"kernel").build();
    let path = files.put("vmlinuz", &kernel);
    let initrd = files.put("initrd.img", b"initrd");
    let words = files.put("cmdline", b"root=/dev/vda quiet\n");
    let arguments = [
        "--kernel",
        &path,
        "--initrd",
        &initrd,
        "--cmdline-file",
        &words,
        "--loader",
        "systemd-boot",
        "--package",
        "linux",
        "--package-version",
        "6.1",
        "--bank",
        "sha384",
    ];
    let found = values(&arguments);
    assert_eq!(found.bank, HashAlgorithm::Sha384);
    let digest = hash(HashAlgorithm::Sha384, &[b"initrd"]);
    let expected = [
        Measured::CommandLine { text: "initrd=\\initrd.img root=/dev/vda quiet".to_owned() },
        Measured::Initrd { digest: TaggedDigest(digest) },
    ];
    assert_eq!(found.values[1..].iter().map(|value| value.measured.clone()).collect::<Vec<_>>(), expected);
    let source = &found.values[0].source;
    assert_eq!(source.file.as_deref(), Some(path.as_str()));
    assert_eq!((source.package.as_deref(), source.version.as_deref()), (Some("linux"), Some("6.1")));
    let (code, text, _) = run(&arguments);
    assert_eq!(code, 0);
    for word in ["PCR", "boot application", "initrd=\\initrd.img", &digest.to_string(), "COMES TO"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn disks_firmware_and_drivers_need_no_kernel() {
    let files = Files::new();
    let crc = crc32;
    let disk = files.put("disk.img", &gpt_disk(512, crc));
    let blob = files.put("firmware.fd", b"0123456789");
    let driver = files.put("driver.efi", &ImageBuilder::new().section(".text", b"driver").build());
    let part = format!("0x2+3={blob}");
    let found =
        values(&["--gpt", &disk, "--firmware-blob", &blob, "--firmware-blob", &part, "--driver", &driver]);
    let blob = |bytes: &[u8]| Measured::FirmwareBlob { digest: TaggedDigest(hash(SHA256, &[bytes])) };
    assert_eq!(found.values[0].measured, blob(b"0123456789"));
    assert_eq!(found.values[1].measured, blob(b"234"));
    assert!(matches!(&found.values[2].measured, Measured::Event { pcr, .. } if pcr.get() == 5));
    assert!(matches!(found.values[3].measured, Measured::Driver { .. }));
    assert_eq!(found.pcrs, []);
}

/// By its definition, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[test]
fn what_is_wrong_is_said_with_the_file_and_the_offset() {
    let files = Files::new();
    let image = ImageBuilder::new().section(".text", b"x").build();
    let good = files.put("good.efi", &image);
    let cut = files.put("cut.efi", &image[..600]);
    let text = files.put("text", b"no image");
    let latin = files.put("latin", b"quiet caf\xe9");
    let short = format!("0+99={text}");
    let missing = files.0.path().join("missing").to_str().expect("text").to_owned();
    let cases: [(&[&str], &[&str]); 12] = [
        (&[], &["nothing to compute"]),
        (&["--boot-application", &missing], &["missing", "cannot read"]),
        (&["--boot-application", &text], &["text: no PE image", "offset 0"]),
        (&["--boot-application", &cut], &["cut.efi: section 0", "offset 328", "beyond the file's 600"]),
        (&["--shim", &good], &["good.efi: no shim"]),
        (&["--uki", &good], &["good.efi: no unified kernel image"]),
        (&["--gpt", &text], &["text: no GPT header"]),
        (&["--firmware-blob", &short], &["text: the file ends at offset 8"]),
        (&["--kernel", &good, "--cmdline", "a"], &["name the loader"]),
        (&["--kernel", &good, "--loader", "efi-stub", "--cmdline-file", &latin], &["latin", "offset 9"]),
        (&["--uki", &good, "--stub-version", "251"], &["252 to 258"]),
        (&["--kernel", &good, "--bank", "sha1"], &["sha256, sha384, sha512"]),
    ];
    for (arguments, expected) in cases {
        let (code, shown, error) = run(arguments);
        assert_eq!((code, shown.as_str()), (2, ""), "{arguments:?}: {error}");
        for word in expected {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}

/// The real boots, and the files that they were made of.
struct Real {
    corpus: PathBuf,
    files: PathBuf,
}

impl Real {
    fn open(test: &str) -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let found = variable("EVIDENCE_CORPUS").zip(variable("BOOT_FILES"));
        if found.is_none() {
            // Not `eprintln!`, which the test runner captures.
            let line = format!("skipped: {test}: EVIDENCE_CORPUS or BOOT_FILES is not set\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        found.map(|(corpus, files)| Self { corpus, files })
    }

    fn file(&self, path: &str) -> String {
        self.files.join(path).to_str().expect("a path of text").to_owned()
    }

    fn kernel(&self) -> String {
        self.file("boot/vmlinuz-6.1.0-56-cloud-amd64")
    }

    fn boot(&self, name: &str, file: &str) -> Vec<u8> {
        let path = self.corpus.join("vm").join(name).join(file);
        fs::read(&path).unwrap_or_else(|error| panic_at(&path, &error))
    }

    /// What the TPM held.
    fn pcr(&self, name: &str, index: u8) -> Digest {
        let values: serde_json::Value =
            serde_json::from_slice(&self.boot(name, "pcrs.json")).expect("pcrs.json");
        let hex = values["sha256"][index.to_string()].as_str().expect("a value");
        Digest::from_hex(SHA256, hex).expect("a digest")
    }

    /// The digests of the events of a PCR, in order, with their data.
    fn events(&self, name: &str, index: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
        let log = self.boot(name, "eventlog.bin");
        let log = ParsedBootLog::parse(&log).expect("a log");
        let of = log.events().iter().filter(|event| event.pcr().is_some_and(|pcr| pcr.get() == index));
        of.map(|event| (event.digest(SHA256).unwrap_or_default().to_vec(), event.data().to_vec())).collect()
    }
}

#[expect(clippy::panic, reason = "a test fails by panicking")]
fn panic_at(path: &Path, error: &dyn std::error::Error) -> ! {
    panic!("{}: {error}", path.display())
}

const WORDS: &str =
    "console=ttyS0 quiet rootfstype=ramfs ima_policy=tcb ima_hash=sha256 ima_template=ima-sig";
const SYSTEMD_BOOT: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";
const SHIM: &str = "usr/lib/shim/shimx64.efi.signed";
const GRUB: &str = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed";

#[test]
fn pcrs_of_systemd_boot_are_those_of_a_real_boot() {
    let Some(real) = Real::open("pcrs_of_systemd_boot_are_those_of_a_real_boot") else { return };
    let files = Files::new();
    // The initrd of that boot is not at hand: any is, for PCRs 4 and 12.
    let initrd = files.put("initrd", b"any");
    let (loader, kernel) = (real.file(SYSTEMD_BOOT), real.kernel());
    let found = values(&[
        "--boot-application",
        &loader,
        "--kernel",
        &kernel,
        "--initrd",
        &initrd,
        "--cmdline",
        WORDS,
        "--loader",
        "systemd-boot",
    ]);
    assert_eq!(pcr(&found, 4)[0].0, real.pcr("sdboot", 4));
    assert_eq!(pcr(&found, 12)[0].0, real.pcr("sdboot", 12));
}

#[test]
fn the_kernel_in_a_unified_image_is_that_of_a_real_boot() {
    let Some(real) = Real::open("the_kernel_in_a_unified_image_is_that_of_a_real_boot") else { return };
    let files = Files::new();
    let kernel = fs::read(real.kernel()).expect("the kernel");
    let image = ImageBuilder::new()
        .section(".sdmagic", b"#### LoaderInfo: systemd-stub 252.39 ####")
        .section(".cmdline", WORDS.as_bytes())
        .section(".linux", &kernel)
        .build();
    let found = values(&["--uki", &files.put("uki.efi", &image)]);
    let digests: Vec<_> = found
        .values
        .iter()
        .filter_map(|value| match &value.measured {
            Measured::Event { pcr, digest } if pcr.get() == 11 => Some(digest.0.as_bytes().to_vec()),
            Measured::BootApplication { digest } => Some(digest.0.as_bytes().to_vec()),
            _ => None,
        })
        .collect();
    let measured = real.events("uki", 11);
    // `.linux` and `.cmdline`, names and contents; `.osrel` and `.initrd` of that boot are not at hand.
    for position in [0, 1, 4, 5] {
        assert!(digests.contains(&measured[position].0), "event {position} of PCR 11");
    }
    let applications = real.events("uki", 4);
    assert!(digests.contains(&applications[3].0), "the kernel inside");
}

#[test]
fn pcrs_of_shim_and_grub_are_those_of_a_real_boot() {
    let Some(real) = Real::open("pcrs_of_shim_and_grub_are_those_of_a_real_boot") else { return };
    let name = "shimgrub-linuxefi";
    let files = Files::new();
    let initrd = files.put("initrd", b"any");
    let (shim, grub, kernel) = (real.file(SHIM), real.file(GRUB), real.kernel());
    let commands: Vec<_> = real
        .events(name, 8)
        .into_iter()
        .filter_map(|(_, data)| {
            let text = String::from_utf8(data).expect("text");
            Some(text.strip_prefix("grub_cmd: ")?.trim_end_matches('\0').to_owned())
        })
        .collect();
    let mut arguments = vec![
        "--shim",
        &shim,
        "--grub",
        &grub,
        "--kernel",
        &kernel,
        "--kernel-path",
        "/vmlinuz",
        "--initrd",
        &initrd,
        "--cmdline",
        WORDS,
        "--loader",
        "grub",
    ];
    for command in &commands {
        arguments.extend(["--grub-command", command]);
    }
    let found = values(&arguments);
    let off = pcr(&found, 4).into_iter().find(|(_, label)| label.contains("Secure Boot off"));
    assert_eq!(off.map(|(value, _)| value), Some(real.pcr(name, 4)));
    assert_eq!(pcr(&found, 8)[0].0, real.pcr(name, 8));
    assert_eq!(pcr(&found, 14)[0].0, real.pcr(name, 14));
    let level = real.events(name, 7).into_iter().find(|(_, data)| data.ends_with(b"sbat,1,2021030218\n"));
    let level = level.expect("a level").0;
    let known =
        |value: &Measured| matches!(value, Measured::Event { digest, .. } if digest.0.as_bytes() == level);
    assert!(found.values.iter().any(|value| known(&value.measured)));
}
