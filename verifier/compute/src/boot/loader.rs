//! What is measured of a command line and of initrds, by who passes them to the kernel.
//!
//! The kernel's EFI stub (Linux 6.1 and later) measures both into PCR 9, as they reach it: the command line in UTF-16 with
//! its terminator, and all initrds as one. GRUB before 2.12 starts a kernel so that this stub measures nothing, but measures
//! into PCRs 8 and 9 itself, each file for itself.

use rootbound_common::crypto::{Hasher, hash};
use rootbound_common::tpm::HashAlgorithm;

use super::event::{Event, GRUB_TEXT, KERNEL_CONFIG, KERNEL_INITRD};

/// An initrd, as a loader finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initrd<'a> {
    /// The path that the loader's configuration has: of systemd-boot it is in the command line.
    pub path: &'a str,
    /// Its bytes.
    pub content: &'a [u8],
}

/// A firmware boot option that starts the kernel: the kernel gets its text to the letter, `initrd=` in it included.
#[must_use]
pub fn efi_stub(bank: HashAlgorithm, command_line: &str, initrds: &[Initrd<'_>]) -> Vec<Event> {
    kernel_input(bank, command_line, initrds)
}

/// QEMU's `-kernel` with OVMF, which says ` initrd=initrd` behind the command line where there is one.
#[must_use]
pub fn direct(bank: HashAlgorithm, command_line: &str, initrds: &[Initrd<'_>]) -> Vec<Event> {
    let suffix = if initrds.is_empty() { "" } else { " initrd=initrd" };
    kernel_input(bank, &format!("{command_line}{suffix}"), initrds)
}

/// systemd-boot with an entry of type 1: it names the initrds in front of the options, and measures these into PCR 12.
#[must_use]
pub fn systemd_boot(bank: HashAlgorithm, options: &str, initrds: &[Initrd<'_>]) -> Vec<Event> {
    let mut words: Vec<_> =
        initrds.iter().map(|initrd| format!("initrd={}", uefi_path(initrd.path))).collect();
    if !options.is_empty() {
        words.push(options.to_owned());
    }
    let text = words.join(" ");
    let measured = Event::load_options(bank, KERNEL_CONFIG, &text, "systemd-boot: command line");
    let passed = kernel_input(bank, &text, initrds);
    (!text.is_empty()).then_some(measured).into_iter().chain(passed).collect()
}

/// As systemd-boot writes a path of its configuration: with backslashes, and never two of them.
fn uefi_path(path: &str) -> String {
    let mut written = String::new();
    for one in path.chars().map(|one| if one == '/' { '\\' } else { one }) {
        if one != '\\' || !written.ends_with('\\') {
            written.push(one);
        }
    }
    written
}

/// PCR 12: a command line that systemd-stub takes in place of the one in the image, and measures for that.
#[must_use]
pub fn overriding(bank: HashAlgorithm, command_line: &str) -> Event {
    Event::load_options(
        bank,
        KERNEL_CONFIG,
        command_line,
        "systemd-stub: command line from outside the image",
    )
}

/// A kernel that GRUB starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grub<'a> {
    /// The kernel's path as the configuration has it; the measured command line begins with it.
    pub kernel_path: &'a str,
    /// The kernel.
    pub kernel: &'a [u8],
    /// The words behind the kernel's path.
    pub command_line: &'a str,
    /// The initrds, in their order.
    pub initrds: Vec<Initrd<'a>>,
    /// Commands as GRUB runs them, variables expanded, in their order.
    pub commands: Vec<&'a str>,
    /// Other files that it reads, such as its configuration: name and content, before the kernel.
    pub files: Vec<(&'a str, &'a [u8])>,
}

/// GRUB: each command and the kernel's command line as text without a terminator (PCR 8), each file (PCR 9).
#[must_use]
pub fn grub(bank: HashAlgorithm, boot: &Grub<'_>) -> Vec<Event> {
    let file = |name: &str, content: &[u8]| {
        Event::other(KERNEL_INITRD, hash(bank, &[content]), format!("GRUB: file {name}"))
    };
    let mut text = boot.kernel_path.to_owned();
    if !boot.command_line.is_empty() {
        text = format!("{text} {}", boot.command_line);
    }
    let kernel = [file(boot.kernel_path, boot.kernel), grub_command_line(bank, &text)];
    let initrds = boot
        .initrds
        .iter()
        .map(|initrd| Event::initrd(hash(bank, &[initrd.content]), format!("GRUB: initrd {}", initrd.path)));
    let (mut kernel, mut initrds) = (kernel.into_iter(), initrds);
    let mut events: Vec<_> = boot.files.iter().map(|(name, content)| file(name, content)).collect();
    for command in &boot.commands {
        let label = format!("GRUB: grub_cmd: {command}");
        events.push(Event::other(GRUB_TEXT, hash(bank, &[command.as_bytes()]), label));
        let word = command.split(' ').next().unwrap_or_default();
        if matches!(word, "linux" | "linuxefi" | "linux16") {
            events.extend(kernel.by_ref());
        }
        if matches!(word, "initrd" | "initrdefi" | "initrd16") {
            events.extend(initrds.by_ref());
        }
    }
    events.extend(kernel.chain(initrds));
    events
}

fn grub_command_line(bank: HashAlgorithm, text: &str) -> Event {
    Event {
        pcr: GRUB_TEXT,
        digest: hash(bank, &[text.as_bytes()]),
        measured: crate::values::Measured::CommandLine { text: text.to_owned() },
        label: "GRUB: kernel_cmdline".to_owned(),
    }
}

/// What the kernel's EFI stub measures. Several initrds reach it one right after the other.
fn kernel_input(bank: HashAlgorithm, command_line: &str, initrds: &[Initrd<'_>]) -> Vec<Event> {
    let label = "the kernel's EFI stub: command line";
    let options =
        (!command_line.is_empty()).then(|| Event::load_options(bank, KERNEL_INITRD, command_line, label));
    let mut hasher = Hasher::new(bank);
    initrds.iter().for_each(|initrd| hasher.update(initrd.content));
    let any = initrds.iter().any(|initrd| !initrd.content.is_empty());
    let initrd = any.then(|| Event::initrd(hasher.finish(), "the kernel's EFI stub: initrd"));
    options.into_iter().chain(initrd).collect()
}

#[cfg(test)]
mod tests {
    use rootbound_common::crypto::Digest;

    use super::*;
    use crate::boot::event::fold;
    use crate::values::Measured;

    const SHA256: HashAlgorithm = HashAlgorithm::Sha256;
    /// The command line of the real boots below (QEMU, OVMF, Debian 12).
    const WORDS: &str =
        "console=ttyS0 quiet rootfstype=ramfs ima_policy=tcb ima_hash=sha256 ima_template=ima-sig";

    fn hex(text: &str) -> Digest {
        Digest::from_hex(SHA256, text).unwrap()
    }

    const ONE: [Initrd<'static>; 1] = [Initrd { path: "/initrd", content: b"12345" }];

    fn texts(events: &[Event]) -> Vec<(u8, String)> {
        let text = |event: &Event| match &event.measured {
            Measured::CommandLine { text } => Some((event.pcr.get(), text.clone())),
            _ => None,
        };
        events.iter().filter_map(text).collect()
    }

    #[test]
    fn systemd_boot_measures_what_a_real_boot_has() {
        let events = systemd_boot(SHA256, WORDS, &ONE);
        let expected = hex("a5109e0bf3afccd54966bd9de5542020fdced8588d5c3c9bbfacac0f3f16d8c0");
        assert_eq!((events[0].pcr, events[0].digest), (KERNEL_CONFIG, expected));
        assert_eq!((events[1].pcr, events[1].digest), (KERNEL_INITRD, expected));
        assert_eq!((events[2].pcr, events[2].digest), (KERNEL_INITRD, hash(SHA256, &[b"12345"])));
        assert_eq!(
            fold(SHA256, KERNEL_CONFIG, &events),
            hex("d390802bdcdf2bb33820935e8a20f0a619dfe8ae8887d62d9e8624461fd61a01")
        );
        // Its initrd is not at hand, but its digest is.
        let initrd = hex("615a8111c5aaa6c56c35b25e966fbf07ae0c21b1fbc310189b504fb066229c4f");
        let of_boot = [events[1].clone(), Event::initrd(initrd, "")];
        assert_eq!(
            fold(SHA256, KERNEL_INITRD, &of_boot),
            hex("63b8b7ab01ab323ad57f5286b05294bddc38791915a9c662fb933d892cfdf7d3")
        );
    }

    #[test]
    fn qemu_says_where_the_initrd_is_behind_the_command_line() {
        let expected = hex("96ccc4231a21a4585160dfc5f7abed261ec86cf50b85cd7f040008f434749181");
        assert_eq!(direct(SHA256, WORDS, &ONE)[0].digest, expected);
        assert_eq!(texts(&direct(SHA256, "a", &[])), [(9, "a".to_owned())]);
    }

    #[test]
    fn several_initrds_reach_the_kernel_one_right_after_the_other() {
        let two = [Initrd { path: "/ucode", content: b"abc" }, Initrd { path: "sub/initrd", content: b"de" }];
        let expected = hash(SHA256, &[b"abcde"]);
        for events in
            [efi_stub(SHA256, "x", &two), direct(SHA256, "x", &two), systemd_boot(SHA256, "x", &two)]
        {
            assert_eq!(events.last().map(|event| event.digest), Some(expected));
        }
        let text = "initrd=\\ucode initrd=sub\\initrd x".to_owned();
        assert_eq!(texts(&systemd_boot(SHA256, "x", &two)), [(12, text.clone()), (9, text)]);
        let odd = [Initrd { path: "//a\\/b/c", content: b"1" }];
        assert_eq!(texts(&systemd_boot(SHA256, "", &odd))[0].1, "initrd=\\a\\b\\c");
        let only = "initrd=\\initrd".to_owned();
        assert_eq!(texts(&systemd_boot(SHA256, "", &ONE)), [(12, only.clone()), (9, only)]);
    }

    #[test]
    fn nothing_is_measured_of_nothing() {
        assert_eq!(efi_stub(SHA256, "", &[]), []);
        assert_eq!(systemd_boot(SHA256, "", &[]), []);
    }

    /// GRUB 2.06 with `linuxefi`: the commands and digests of a real boot.
    #[test]
    fn grub_measures_commands_and_files_as_a_real_boot_has_them() {
        let linux = format!("linuxefi /vmlinuz {WORDS}");
        let boot = Grub {
            kernel_path: "/vmlinuz",
            kernel: b"kernel",
            command_line: WORDS,
            initrds: ONE.to_vec(),
            commands: vec!["set timeout=0", &linux, "initrdefi /initrd", "boot"],
            files: vec![("(hd0,gpt1)/EFI/debian/grub.cfg", b"config")],
        };
        let events = grub(SHA256, &boot);
        let found: Vec<_> = events.iter().map(|event| (event.pcr.get(), event.digest)).collect();
        let expected = [
            (9, hash(SHA256, &[b"config"])),
            (8, hex("d3a793f471b6bfe8d783f5e629314cad4763d48986a8cd4df25475334b40f49b")),
            (8, hex("3f6f12537b884d78fb3567b207b061996389890153e9127ecea5044e273135f8")),
            (9, hash(SHA256, &[b"kernel"])),
            (8, hex("9360a487eb661cf22ceb857813223b974de7a76d29ba9b81c9c5bb20b4536e2c")),
            (8, hex("e47b42c745c4d4c4a0f726aa480e7f27184f37df3926f4e9f7e3159f9aa29a46")),
            (9, hash(SHA256, &[b"12345"])),
            (8, hex("4509beb0ab401d71fa4a5cd94a55c9a74f13332776ae4019c5bfc4c2005157ff")),
        ];
        assert_eq!(found, expected);
        let without = grub(SHA256, &Grub { commands: Vec::new(), ..boot });
        assert_eq!(without.len(), 4, "file, kernel, command line, initrd");
    }

    #[test]
    fn an_overriding_command_line_is_measured_as_it_comes() {
        let event = overriding(SHA256, "a");
        assert_eq!((event.pcr, event.digest), (KERNEL_CONFIG, hash(SHA256, &[b"a\0\0\0"])));
    }
}
