//! What one event extends a PCR with, and what a PCR comes to.

use rootbound_common::crypto::{Digest, TaggedDigest, hash};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};

use crate::values::Measured;

/// PCR 0: firmware.
pub const FIRMWARE: PcrIndex = const { index(0) };
/// PCR 2: drivers of cards.
pub const DRIVERS: PcrIndex = const { index(2) };
/// PCR 4: boot loaders and kernels.
pub const BOOT_MANAGER: PcrIndex = const { index(4) };
/// PCR 5: the partition table.
pub const PARTITIONS: PcrIndex = const { index(5) };
/// PCR 7: Secure Boot, and shim's level of revocations.
pub const SECURE_BOOT: PcrIndex = const { index(7) };
/// PCR 8: GRUB's commands and the kernel's command line.
pub const GRUB_TEXT: PcrIndex = const { index(8) };
/// PCR 9: files that GRUB reads; the command line and initrd that the kernel gets.
pub const KERNEL_INITRD: PcrIndex = const { index(9) };
/// PCR 11: the parts of a unified kernel image, and systemd's boot phases.
pub const UNIFIED_KERNEL: PcrIndex = const { index(11) };
/// PCR 12: command lines, as systemd-boot and systemd-stub pass them.
pub const KERNEL_CONFIG: PcrIndex = const { index(12) };
/// PCR 14: shim's keys.
pub const MOK: PcrIndex = const { index(14) };

#[expect(clippy::unwrap_used, reason = "of constants only: it is the compiler that would fail")]
const fn index(number: u8) -> PcrIndex {
    PcrIndex::new(number).unwrap()
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its PCR.
    pub pcr: PcrIndex,
    /// What it extends the PCR with.
    pub digest: Digest,
    /// The value that accepts it.
    pub measured: Measured,
    /// In words.
    pub label: String,
}

impl Event {
    /// Something without a kind of its own.
    #[must_use]
    pub fn other(pcr: PcrIndex, digest: Digest, label: impl Into<String>) -> Self {
        let measured = Measured::Event { pcr, digest: TaggedDigest(digest) };
        Self { pcr, digest, measured, label: label.into() }
    }

    /// PCR 0: a firmware volume, or another blob that a platform names.
    #[must_use]
    pub fn firmware_blob(digest: Digest, label: impl Into<String>) -> Self {
        let measured = Measured::FirmwareBlob { digest: TaggedDigest(digest) };
        Self { pcr: FIRMWARE, digest, measured, label: label.into() }
    }

    /// PCR 2: a driver of a card, by its Authenticode digest.
    #[must_use]
    pub fn driver(digest: Digest, label: impl Into<String>) -> Self {
        let measured = Measured::Driver { digest: TaggedDigest(digest) };
        Self { pcr: DRIVERS, digest, measured, label: label.into() }
    }

    /// PCR 4: an image that firmware starts, by its Authenticode digest.
    #[must_use]
    pub fn boot_application(digest: Digest, label: impl Into<String>) -> Self {
        let measured = Measured::BootApplication { digest: TaggedDigest(digest) };
        Self { pcr: BOOT_MANAGER, digest, measured, label: label.into() }
    }

    /// PCR 9: the initrd, as the kernel gets it.
    #[must_use]
    pub fn initrd(digest: Digest, label: impl Into<String>) -> Self {
        let measured = Measured::Initrd { digest: TaggedDigest(digest) };
        Self { pcr: KERNEL_INITRD, digest, measured, label: label.into() }
    }

    /// PCR 9 or 12: a command line in UTF-16 with its terminator, as UEFI passes it.
    #[must_use]
    pub fn load_options(bank: HashAlgorithm, pcr: PcrIndex, text: &str, label: impl Into<String>) -> Self {
        let digest = hash(bank, &[&utf16(text)]);
        let measured = Measured::CommandLine { text: text.to_owned() };
        Self { pcr, digest, measured, label: label.into() }
    }
}

/// UTF-16LE with a terminator, as UEFI has text.
#[must_use]
pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// What the PCR holds after those of the events that are its own, from zero on.
#[must_use]
pub fn fold<'a>(bank: HashAlgorithm, pcr: PcrIndex, events: impl IntoIterator<Item = &'a Event>) -> Digest {
    let own = events.into_iter().filter(|event| event.pcr == pcr);
    own.fold(Digest::zero(bank), |value, event| hash(bank, &[value.as_bytes(), event.digest.as_bytes()]))
}

/// PCR 4 before the first boot application, as EDK2 has it for a boot option: the action, and the separator.
#[must_use]
pub fn before_boot_applications(bank: HashAlgorithm) -> [Event; 2] {
    let event = |bytes: &[u8], label: &str| Event::other(BOOT_MANAGER, hash(bank, &[bytes]), label);
    [
        event(b"Calling EFI Application from Boot Option", "firmware: calling a boot option"),
        event(&[0; 4], "firmware: separator"),
    ]
}
