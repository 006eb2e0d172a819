//! TCG_PCClientTaggedEvent: what EV_EVENT_TAG events hold (PC Client specification for conventional BIOS, 11.3.2.1).

use rootbound_common::tpm::Reader;

use super::reader::LittleEndian;

/// Who measured what, by the number in front of an EV_EVENT_TAG's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Linux's EFI stub: the options that the kernel was started with, as UTF-16 with its terminator.
    LoadOptions,
    /// Linux's EFI stub: the initrd.
    Initrd,
    /// Another.
    Other(u32),
}

impl Tag {
    /// The number in front of an event's data.
    #[must_use]
    pub fn of(data: &[u8]) -> Option<Self> {
        Reader::new(data).le32("tag").ok().map(|tag| match tag {
            0x8f3b_22ed => Self::LoadOptions,
            0x8f3b_22ec => Self::Initrd,
            other => Self::Other(other),
        })
    }
}
