//! What policies may know of a boot: few facts, each of them proved.

use rootbound_common::tpm::{ClockState, PcrIndex};
use serde::{Deserialize, Serialize};

use crate::evidence::boot_log::{
    BootHistory, EventType, MeasuredEvent, SecureBootRecord, SecureBootState, SeparatorDigests, text,
};

/// Characters of a firmware version that is kept: real ones have 8 to 40.
const MAX_VERSION: usize = 128;

/// What is proved of a boot. What is not known is absent; what an old row does not say, too.
///
/// Digests and their order within a PCR are what the TPM was told, and it was told of firmware, boot loaders and kernel by
/// whoever came before them. Which digest is *called* a kernel is the log's word, and who holds the kernel can measure
/// more, so that these are worth what the appraisal is worth: on a node that is affirming every event was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Booted {
    /// What identifies the boot: `RESETS.RESTARTS` of the TPM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Whether Secure Boot was on: PCR 7, where nothing breaks its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// Digest, in hex, of the kernel: of the file that GRUB read, or else the Authenticode digest of the last boot
    /// application that was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The S-CRTM's version, where its text is proved, or else its digest in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
}

impl Booted {
    /// Of the counters in a quote, and of a boot that it covers.
    #[must_use]
    pub fn of(clock: &ClockState, history: Option<&BootHistory>) -> Self {
        Self {
            boot: Some(format!("{}.{}", clock.reset_count, clock.restart_count)),
            secure_boot: history.and_then(secure_boot),
            kernel: history.and_then(kernel),
            firmware: history.and_then(firmware),
        }
    }
}

fn secure_boot(history: &BootHistory) -> Option<bool> {
    let record = SecureBootRecord::read(history).filter(|record| record.faults.is_empty())?;
    match record.state() {
        SecureBootState::On => Some(true),
        SecureBootState::Off => Some(false),
        SecureBootState::Absent | SecureBootState::Invalid => None,
    }
}

fn explained(history: &BootHistory, pcr: u8) -> impl Iterator<Item = &MeasuredEvent> {
    let pcr = PcrIndex::new(pcr).filter(|pcr| history.explained().contains(*pcr));
    pcr.into_iter().flat_map(|pcr| history.of(pcr))
}

/// GRUB measures the kernel as a file into PCR 9, by its name, and the command line, which begins with this name, into PCR
/// 8; Red Hat's measures the file under a fixed name. A kernel that firmware loads is a boot application in PCR 4.
fn kernel(history: &BootHistory) -> Option<String> {
    let command_line = explained(history, 8)
        .filter_map(|event| Some((event.claimed_data(), event.proved()?)))
        .filter(|(data, _)| data.starts_with(b"kernel_cmdline: "))
        .last()
        .and_then(|(_, text)| text.split(|byte| *byte == b' ').next());
    let is_kernel = |event: &&MeasuredEvent| {
        let data = event.claimed_data();
        let name = data.strip_suffix(&[0]).unwrap_or(data);
        event.claimed_type() == EventType::IPL
            && (name == b"grub_linuxefi Kernel"
                || command_line.is_some_and(|path| path.starts_with(b"/") && name.ends_with(path)))
    };
    let file = explained(history, 9).filter(is_kernel).last();
    let application =
        explained(history, 4).filter(|e| e.claimed_type() == EventType::EFI_BOOT_SERVICES_APPLICATION).last();
    file.or(application).map(hex)
}

/// Before the separator: after it, whoever boots next can measure as well.
fn firmware(history: &BootHistory) -> Option<String> {
    let separators = SeparatorDigests::of(history.bank());
    let version = explained(history, 0)
        .take_while(|event| separators.recognise(event.digest()).is_none())
        .find(|event| event.claimed_type() == EventType::S_CRTM_VERSION)?;
    let read = |bytes: &[u8]| text::utf16(bytes).or_else(|| text::utf8(bytes).map(str::to_owned));
    let fit = |text: &String| {
        !text.is_empty()
            && text.chars().count() <= MAX_VERSION
            && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
    };
    Some(version.proved().and_then(read).filter(fit).unwrap_or_else(|| hex(version)))
}

fn hex(event: &MeasuredEvent) -> String {
    data_encoding::HEXLOWER.encode(event.digest().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::boot_log::ConfigurationVariable;
    use crate::evidence::boot_log::testing::{BANK, LogBuilder as Log};
    use rootbound_common::crypto::hash;

    const CLOCK: ClockState = ClockState { clock: 9, reset_count: 41, restart_count: 2, safe: true };

    fn booted(log: &Log, pcrs: &[u8]) -> Booted {
        Booted::of(&CLOCK, Some(&log.history(pcrs)))
    }

    fn digest(bytes: &[u8]) -> Option<String> {
        Some(data_encoding::HEXLOWER.encode(hash(BANK, &[bytes]).as_bytes()))
    }

    fn secure_boot_log(contents: &[u8]) -> Log {
        ConfigurationVariable::ALL.into_iter().fold(Log::sha256(), |log, variable| {
            let secure_boot = variable == ConfigurationVariable::SecureBoot;
            log.variable(variable, if secure_boot { contents } else { &[] })
        })
    }

    #[test]
    fn secure_boot_is_known_where_pcr_7_is_in_order() {
        let state = |contents: &[u8]| booted(&secure_boot_log(contents).separator(7), &[7]).secure_boot;
        assert_eq!(
            (state(&[1]), state(&[0]), state(&[]), state(&[2])),
            (Some(true), Some(false), None, None)
        );
        let again = secure_boot_log(&[1]).variable(ConfigurationVariable::SecureBoot, &[1]).separator(7);
        assert_eq!(booted(&again, &[7]).secure_boot, None, "a fault");
        let other = secure_boot_log(&[1]).separator(7).separator(4);
        assert_eq!(booted(&other, &[4]).secure_boot, None, "not authenticated for PCR 7");
    }

    #[test]
    fn the_kernel_is_the_file_that_grub_read_or_the_last_boot_application() {
        let application = EventType::EFI_BOOT_SERVICES_APPLICATION;
        let firmware_loads = Log::sha256()
            .separator(4)
            .hashed(4, application, b"path of shim", b"shim")
            .hashed(4, application, b"path of kernel", b"kernel");
        assert_eq!(booted(&firmware_loads, &[4]).kernel, digest(b"kernel"));
        let grub = |name: &[u8]| {
            Log::sha256()
                .separator(4)
                .hashed(4, application, b"path of grub", b"grub")
                .hashed(8, EventType::IPL, b"kernel_cmdline: /vmlinuz-6 quiet\0", b"/vmlinuz-6 quiet")
                .hashed(9, EventType::IPL, b"(hd0,gpt2)/grub.cfg\0", b"configuration")
                .hashed(9, EventType::IPL, name, b"kernel")
        };
        for name in [&b"(hd0,gpt2)/vmlinuz-6\0"[..], b"grub_linuxefi Kernel\0"] {
            assert_eq!(booted(&grub(name), &[4, 8, 9]).kernel, digest(b"kernel"));
            assert_eq!(booted(&grub(name), &[4]).kernel, digest(b"grub"), "the rest is not authenticated");
        }
        assert_eq!(booted(&Log::sha256().separator(7), &[7]).kernel, None);
    }

    #[test]
    fn the_firmware_is_its_version_or_its_digest_before_the_separator() {
        let version = EventType::S_CRTM_VERSION;
        let utf16 = text::to_utf16("1.2.3");
        let log = |data: &[u8], hashed: &[u8]| Log::sha256().hashed(0, version, data, hashed).separator(0);
        assert_eq!(booted(&log(&utf16, &utf16), &[0]).firmware.as_deref(), Some("1.2.3"));
        assert_eq!(
            booted(&log(&utf16, b"other"), &[0]).firmware,
            digest(b"other"),
            "a text that is not proved"
        );
        assert_eq!(booted(&log(b"\x01\x02\x03", b"\x01\x02\x03"), &[0]).firmware, digest(b"\x01\x02\x03"));
        let late = Log::sha256().separator(0).event(0, version, &utf16);
        assert_eq!(booted(&late, &[0]).firmware, None);
    }

    #[test]
    fn a_boot_is_known_by_its_counters_and_nothing_else_without_a_log() {
        let booted = Booted::of(&CLOCK, None);
        assert_eq!(booted, Booted { boot: Some("41.2".into()), ..Booted::default() });
        assert_eq!(serde_json::from_str::<Booted>("{}").unwrap(), Booted::default(), "an old row");
    }
}
