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
        initrds.iter().map(|initrd| format!("initrd={}", initrd.path.replace('/', "\\"))).collect();
    if !options.is_empty() {
        words.push(options.to_owned());
    }
    let text = words.join(" ");
    let measured = Event::load_options(bank, KERNEL_CONFIG, &text, "systemd-boot: command line");
    let passed = kernel_input(bank, &text, initrds);
    (!text.is_empty()).then_some(measured).into_iter().chain(passed).collect()
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
        if word.starts_with("linux") {
            events.extend(kernel.by_ref());
        }
        if word.starts_with("initrd") {
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
