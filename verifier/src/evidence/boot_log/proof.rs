//! Which bytes of an event hash to its digest, and so are proved.

use rootbound_common::crypto::{Digest, hash};

use super::event::EventType;
use super::text;
use super::variable::Variable;

/// How what is proved follows from an event's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvedForm {
    /// The data are what was hashed.
    Data,
    /// The text behind GRUB's prefix was hashed, without its terminator: what the prefix says is a claim.
    Text,
    /// The variable's contents were hashed, as older firmware does for boot variables: vendor and name are claims.
    VariableContents,
    /// The name of a section was hashed, as ASCII with its terminator; the log has it as UTF-16 (systemd-stub).
    SectionName,
}

/// What GRUB puts before the texts that it measures: the first three today, the others in Red Hat's and older ones.
const GRUB_PREFIXES: [&[u8]; 5] =
    [b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: ", b"grub_cmd ", b"grub_kernel_cmdline "];

/// What GRUB put before a text, and the text, without its terminator.
pub(super) fn grub_text(data: &[u8]) -> Option<(&'static str, &[u8])> {
    let text = data.strip_suffix(&[0]).unwrap_or(data);
    GRUB_PREFIXES.into_iter().find_map(|prefix| {
        let name = std::str::from_utf8(prefix).unwrap_or_default().trim_end_matches([' ', ':']);
        text.strip_prefix(prefix).map(|rest| (name, rest))
    })
}

/// The bytes that hash to `digest`, if they can be had from `data`.
///
/// The claimed type only says which other forms are worth a try: whatever is returned has been hashed.
pub(super) fn proved<'a>(
    event_type: EventType,
    data: &'a [u8],
    digest: &Digest,
) -> Option<(ProvedForm, std::borrow::Cow<'a, [u8]>)> {
    let hashes = |bytes: &[u8]| hash(digest.algorithm(), &[bytes]) == *digest;
    if hashes(data) {
        return Some((ProvedForm::Data, data.into()));
    }
    match event_type {
        EventType::IPL => {
            if let Some((_, text)) = grub_text(data) {
                return hashes(text).then(|| (ProvedForm::Text, text.into()));
            }
            let name = text::utf16(data).filter(|name| name.starts_with('.') && name.is_ascii())?;
            let name = [name.as_bytes(), &[0]].concat();
            hashes(&name).then(|| (ProvedForm::SectionName, name.into()))
        }
        EventType::EFI_VARIABLE_BOOT => {
            let contents = Variable::parse(data).ok()?.contents();
            hashes(contents).then(|| (ProvedForm::VariableContents, contents.into()))
        }
        // Of other events either the data are hashed, or something that the log does not hold.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::boot_log::variable::Guid;
    use rootbound_common::tpm::HashAlgorithm;

    fn form(event_type: EventType, data: &[u8], hashed: &[u8]) -> Option<ProvedForm> {
        let digest = hash(HashAlgorithm::Sha256, &[hashed]);
        let (form, bytes) = proved(event_type, data, &digest)?;
        assert_eq!(bytes, hashed);
        Some(form)
    }

    #[test]
    fn each_form_is_tried_and_hashed() {
        let variable = Variable::marshal(Guid::GLOBAL, "BootOrder", &[1, 0]);
        for (event_type, data, hashed, expected) in [
            (EventType::ACTION, &b"a"[..], &b"a"[..], Some(ProvedForm::Data)),
            (EventType::IPL, b"grub_cmd: boot\0", b"boot", Some(ProvedForm::Text)),
            (EventType::IPL, b"kernel_cmdline: /vmlinuz\0", b"/vmlinuz", Some(ProvedForm::Text)),
            (EventType::IPL, b".\0o\0s\0\0\0", b".os\0", Some(ProvedForm::SectionName)),
            (EventType::EFI_VARIABLE_BOOT, &variable, &[1, 0], Some(ProvedForm::VariableContents)),
            (EventType::IPL, b"/initrd\0", b"what is in the initrd", None),
            (EventType::ACTION, b"grub_cmd: boot\0", b"boot", None),
        ] {
            assert_eq!(form(event_type, data, hashed), expected, "{data:?}");
        }
    }
}
