//! One line per event, for people. What the lines quote out of a log is escaped and cut; what is only claimed says so.

use rootbound_common::crypto::hash;
use rootbound_common::tpm::HashAlgorithm;

use super::device_path;
use super::event::EventType;
use super::history::{BootHistory, Content, MeasuredEvent};
use super::log::{ParsedBootLog, ParsedEvent};
use super::proof::{ProvedForm, grub_text};
use super::signature_list::parse_signature_lists;
use super::tag::Tag;
use super::text::{self, shown};
use super::variable::{Guid, SecureBootState, Variable};

impl ParsedBootLog<'_> {
    /// The log in words, one bounded line per event: claims, all of them, since nothing vouches for the log.
    pub fn describe(&self, bank: HashAlgorithm) -> impl Iterator<Item = String> {
        self.events().iter().map(move |event| {
            let pcr = event.pcr().map_or_else(|| "no PCR".to_owned(), |pcr| format!("PCR {pcr}"));
            let digest = event.digest(bank);
            let fits = digest.is_some_and(|digest| hash(bank, &[event.data()]).as_bytes() == digest);
            let note = match (event.event_type() == EventType::NO_ACTION, digest, fits) {
                (true, _, _) => "not measured",
                (false, None, _) => "claimed, without a digest of this bank",
                (false, Some(_), true) => "claimed, digest fits the data",
                (false, Some(_), false) => "claimed",
            };
            let what = event.words();
            format!("{} {pcr} {}: {what} [{note}]", event.index(), event.event_type())
        })
    }
}

impl ParsedEvent<'_> {
    /// What the event says it is, in bounded words: a claim.
    #[must_use]
    pub fn words(&self) -> String {
        summary(self.event_type(), self.data())
    }
}

impl BootHistory {
    /// What was measured in words, one bounded line per event.
    pub fn describe(&self) -> impl Iterator<Item = String> {
        self.events().iter().map(|event| {
            let note = match event.content() {
                Content::Hinted(_) => "digest proved, content claimed",
                Content::Proved { form: ProvedForm::Data, .. } => "proved",
                Content::Proved { form: ProvedForm::Text, .. } => "text proved",
                Content::Proved { form: ProvedForm::VariableContents, .. } => "contents proved, name claimed",
                Content::Proved { form: ProvedForm::SectionName, .. } => "name proved",
            };
            format!(
                "{} PCR {} {}: {} [{note}]",
                event.index(),
                event.pcr(),
                event.claimed_type(),
                event.words()
            )
        })
    }
}

impl MeasuredEvent {
    /// What the event says it is, in bounded words. The words are the log's own where [`Self::content`] is hinted.
    #[must_use]
    pub fn words(&self) -> String {
        summary(self.claimed_type(), self.claimed_data())
    }
}

/// What an event's data say, by its claimed type.
fn summary(event_type: EventType, data: &[u8]) -> String {
    let said = match event_type {
        EventType::SEPARATOR => separator(data),
        EventType::EFI_VARIABLE_DRIVER_CONFIG
        | EventType::EFI_VARIABLE_BOOT
        | EventType::EFI_VARIABLE_BOOT2
        | EventType::EFI_VARIABLE_AUTHORITY => variable(data),
        EventType::EFI_BOOT_SERVICES_APPLICATION
        | EventType::EFI_BOOT_SERVICES_DRIVER
        | EventType::EFI_RUNTIME_SERVICES_DRIVER => device_path::of_image_load(data).ok(),
        EventType::EVENT_TAG => tag(data),
        EventType::IPL => ipl(data),
        EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2 => gpt(data),
        EventType::EFI_PLATFORM_FIRMWARE_BLOB => blob(data),
        _ => None,
    };
    let said = said.or_else(|| text::readable(data)).filter(|said| !said.is_empty());
    said.map_or_else(|| format!("{} bytes", data.len()), |said| shown(&said))
}

fn separator(data: &[u8]) -> Option<String> {
    match u32::from_le_bytes(*data.first_chunk()?) {
        _ if data.len() != 4 => None,
        0 => Some("0".into()),
        1 => Some("error".into()),
        u32::MAX => Some("0xffffffff".into()),
        _ => None,
    }
}

fn variable(data: &[u8]) -> Option<String> {
    let variable = Variable::parse(data).ok()?;
    let (name, contents) = (variable.name(), variable.contents());
    let words = match (variable.vendor(), name) {
        (Guid::GLOBAL, "SecureBoot") => SecureBootState::of(contents).to_string(),
        (Guid::GLOBAL, "BootOrder") => {
            let order = contents.as_chunks::<2>().0.iter().map(|entry| u16::from_le_bytes(*entry));
            order.map(|entry| format!("{entry:04X}")).collect::<Vec<_>>().join(",")
        }
        (Guid::GLOBAL, name) if is_boot_entry(name) => load_option(contents)?,
        (Guid::SHIM, "SbatLevel") => text::utf8(contents)?.to_owned(),
        _ => match parse_signature_lists(contents) {
            Ok(entries) if !contents.is_empty() => format!("{} entries", entries.len()),
            Ok(_) => "empty".into(),
            Err(_) => format!("{} bytes", contents.len()),
        },
    };
    Some(format!("{name} = {words}"))
}

fn is_boot_entry(name: &str) -> bool {
    name.strip_prefix("Boot").is_some_and(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// EFI_LOAD_OPTION (UEFI, 3.1.3): attributes, length of the path, description, path.
fn load_option(contents: &[u8]) -> Option<String> {
    let length = usize::from(u16::from_le_bytes(*contents.get(4..)?.first_chunk()?));
    let rest = contents.get(6..)?;
    let units = rest.as_chunks::<2>().0.iter().position(|unit| *unit == [0, 0])?;
    let name = text::utf16(rest.get(..units.checked_mul(2)?)?)?;
    let path = rest.get(units.checked_add(1)?.checked_mul(2)?..)?.get(..length)?;
    Some(format!("{name} ({})", device_path::to_text(path).ok()?))
}

fn tag(data: &[u8]) -> Option<String> {
    let name = data.get(8..).and_then(text::readable);
    match Tag::of(data)? {
        Tag::LoadOptions => Some("load options of the kernel".into()),
        Tag::Initrd => Some("initrd of the kernel".into()),
        Tag::Other(number) => Some(match name {
            Some(name) => format!("tag {number:#010x}: {name}"),
            None => format!("tag {number:#010x}, {} bytes", data.len()),
        }),
    }
}

fn ipl(data: &[u8]) -> Option<String> {
    match grub_text(data) {
        Some((prefix, said)) => Some(format!("{prefix}: {}", std::str::from_utf8(said).ok()?)),
        None => text::readable(data),
    }
}

/// UEFI_GPT_DATA (PFP, 10.2.5): a header of 92 bytes with the disk's GUID, then partitions of 128 bytes.
fn gpt(data: &[u8]) -> Option<String> {
    let disk = Guid::from_bytes(*data.get(56..)?.first_chunk()?);
    let count = u64::from_le_bytes(*data.get(92..)?.first_chunk()?);
    Some(format!("disk {disk}, {count} partitions"))
}

/// EFI_PLATFORM_FIRMWARE_BLOB (PFP, 10.2.4).
fn blob(data: &[u8]) -> Option<String> {
    let base = u64::from_le_bytes(*data.first_chunk()?);
    let length = u64::from_le_bytes(*data.get(8..)?.first_chunk()?);
    (data.len() == 16).then(|| format!("{length} bytes at {base:#x}"))
}
