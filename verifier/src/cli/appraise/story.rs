//! A boot out of its events: what started what, under which keys.
//!
//! Types and names are the log's words, and pick what is shown where; what each line is worth stands beside it.

use data_encoding::HEXLOWER;
use der::Decode;
use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::HashAlgorithm;
use serde::Serialize;
use x509_cert::Certificate;

use crate::evidence::boot_log::text::{shown, to_utf16, utf8};
use crate::evidence::boot_log::{
    ConfigurationVariable, Content, EventType, ParsedEvent, ProvedForm, SecureBootFault, SecureBootRecord,
    SecureBootState, SeparatorDigests, SignatureKind, Tag, Variable, parse_signature_lists,
};
use crate::flows::offline::ExaminedBoot;

/// What a line is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Worth {
    /// Quoted: the digest is that of the data.
    Proved,
    /// Quoted, and known by its digest.
    Recognised,
    /// Quoted: the digest is that of the text behind a prefix.
    TextProved,
    /// Quoted: the digest is that of a variable's contents.
    ContentsProved,
    /// Quoted: the digest is that of a section's name.
    NameProved,
    /// Quoted is the digest, of something that the log does not hold.
    DigestProved,
    /// No quote covers it.
    Claimed,
    /// It was not measured.
    NotMeasured,
}

/// One event.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    pub(super) event: usize,
    pub(super) pcr: Option<u8>,
    #[serde(rename = "type")]
    pub(super) event_type: String,
    pub(super) words: String,
    pub(super) digest: Option<String>,
    pub(super) worth: Worth,
}

/// A boot.
#[derive(Debug, Serialize)]
pub(super) struct Story {
    pub(super) firmware: Vec<Line>,
    pub(super) drivers: Vec<Line>,
    pub(super) secure_boot: SecureBootStory,
    /// What firmware started, in order.
    pub(super) stages: Vec<Line>,
    /// What boot loaders measured: commands, files, sections.
    pub(super) loaders: Vec<Line>,
    pub(super) kernel: Option<Line>,
    pub(super) command_lines: Vec<Line>,
    pub(super) initrds: Vec<Line>,
    /// Firmware's last word was that it handed over.
    pub(super) handed_over: bool,
}

/// What PCR 7 says.
#[derive(Debug, Default, Serialize)]
pub(super) struct SecureBootStory {
    /// `on`, `off`, `absent`, `neither 0 nor 1`; nothing where the log does not say.
    pub(super) state: Option<String>,
    /// A quote covers PCR 7.
    pub(super) quoted: bool,
    pub(super) keys: Vec<KeysReport>,
    /// What images were checked by.
    pub(super) authorities: Vec<String>,
    /// Where PCR 7 breaks its order, so that it proves nothing.
    pub(super) faults: Vec<String>,
    pub(super) others: Vec<String>,
}

/// A variable of keys.
#[derive(Debug, Serialize)]
pub(super) struct KeysReport {
    pub(super) variable: &'static str,
    /// Subjects of certificates.
    pub(super) certificates: Vec<String>,
    /// Digests of images.
    pub(super) digests: usize,
    pub(super) other: usize,
    pub(super) problem: Option<String>,
}

/// Texts that an event may be the digest of, where the log does not hold them.
#[derive(Debug, Default)]
pub(super) struct KnownTexts(Vec<String>);

impl KnownTexts {
    pub(super) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        Self(texts.into_iter().collect())
    }

    /// As the kernel's EFI stub and systemd-boot measure a text (UTF-16 with its terminator), or GRUB.
    fn find(&self, digest: &Digest) -> Option<&str> {
        let is = |bytes: &[u8]| hash(digest.algorithm(), &[bytes]) == *digest;
        self.0.iter().find(|text| is(&to_utf16(text)) || is(text.as_bytes())).map(String::as_str)
    }
}

impl Line {
    pub(super) fn of(boot: &ExaminedBoot<'_>, event: &ParsedEvent<'_>) -> Self {
        let worth = match boot.measured(event.index()).map(|measured| measured.content()) {
            _ if event.event_type() == EventType::NO_ACTION => Worth::NotMeasured,
            None => Worth::Claimed,
            Some(Content::Hinted(_)) => Worth::DigestProved,
            Some(Content::Proved { form: ProvedForm::Data, .. }) => Worth::Proved,
            Some(Content::Proved { form: ProvedForm::Text, .. }) => Worth::TextProved,
            Some(Content::Proved { form: ProvedForm::VariableContents, .. }) => Worth::ContentsProved,
            Some(Content::Proved { form: ProvedForm::SectionName, .. }) => Worth::NameProved,
        };
        Self {
            event: event.index(),
            pcr: event.pcr().map(|pcr| pcr.get()),
            event_type: event.event_type().to_string(),
            words: event.words(),
            digest: event.digest(boot.bank()).map(|digest| HEXLOWER.encode(digest)),
            worth,
        }
    }
}

impl Story {
    pub(super) fn of(boot: &ExaminedBoot<'_>, texts: &KnownTexts) -> Self {
        let mut story = Self {
            firmware: Vec::new(),
            drivers: Vec::new(),
            secure_boot: SecureBootStory::of(boot),
            stages: Vec::new(),
            loaders: Vec::new(),
            kernel: None,
            command_lines: Vec::new(),
            initrds: Vec::new(),
            handed_over: false,
        };
        let separators = SeparatorDigests::of(boot.bank());
        for event in boot.log().events() {
            let Some(pcr) = event.pcr().filter(|_| event.event_type() != EventType::NO_ACTION) else {
                continue;
            };
            let digest = digest(event, boot.bank());
            if digest.is_some_and(|digest| separators.recognise(&digest).is_some()) {
                continue;
            }
            story.take(pcr.get(), event, Line::of(boot, event), digest, texts);
        }
        if let Some(kernel) = &mut story.kernel
            && let Some(file) =
                story.loaders.iter().find(|line| line.pcr == Some(9) && line.words == kernel.words)
        {
            // GRUB measures the file that it read under the name that it was given.
            *kernel = file.clone();
        }
        if story.kernel.is_none() {
            // A kernel that is an EFI application (EFI stub, UKI) is the last of them.
            let stub = !story.initrds.is_empty() || !story.command_lines.is_empty();
            let sections = story.loaders.iter().any(|line| line.pcr == Some(11) && line.words == ".linux");
            story.kernel = story.stages.last().filter(|_| stub || sections).cloned();
        }
        story
    }

    fn take(
        &mut self,
        pcr: u8,
        event: &ParsedEvent<'_>,
        mut line: Line,
        digest: Option<Digest>,
        texts: &KnownTexts,
    ) {
        let kind = event.event_type();
        let data = event.data();
        let application = kind == EventType::EFI_BOOT_SERVICES_APPLICATION;
        let driver =
            kind == EventType::EFI_BOOT_SERVICES_DRIVER || kind == EventType::EFI_RUNTIME_SERVICES_DRIVER;
        let tag = Tag::of(data).filter(|_| kind == EventType::EVENT_TAG);
        let is_grub_line = |prefix: &[u8]| pcr == 8 && kind == EventType::IPL && data.starts_with(prefix);
        if tag == Some(Tag::Initrd) || data == b"grub_linuxefi Initrd\0" {
            self.initrds.push(line);
        } else if tag == Some(Tag::LoadOptions) || (pcr == 12 && kind == EventType::IPL) {
            if let Some(text) = digest.as_ref().and_then(|digest| texts.find(digest)) {
                line.words = shown(text);
                // It has the digest of the event: as sure as that.
                line.worth = if line.worth == Worth::DigestProved { Worth::Recognised } else { line.worth };
            } else if line.worth == Worth::DigestProved && pcr == 9 {
                line.words = "its text is not in the log".to_owned();
            }
            self.command_lines.push(line);
        } else if is_grub_line(b"kernel_cmdline: ") || is_grub_line(b"grub_kernel_cmdline ") {
            let path =
                utf8(data).and_then(|text| text.split_once(' ')).and_then(|(_, text)| text.split(' ').next());
            // The digest is that of the command line.
            let words = shown(path.unwrap_or_default());
            self.kernel = Some(Line { words, digest: None, ..line.clone() });
            self.command_lines.push(line);
        } else if pcr == 0 {
            line.words = format!("{}: {}", line.event_type.trim_start_matches("EV_"), line.words);
            self.firmware.push(line);
        } else if driver || (pcr == 2 && application) {
            self.drivers.push(line);
        } else if pcr == 4 && application {
            self.stages.push(line);
        } else if pcr == 5 && data == b"Exit Boot Services Returned with Success" {
            self.handed_over = true;
        } else if matches!(pcr, 8..=14) {
            self.loaders.push(line);
        }
    }
}

fn digest(event: &ParsedEvent<'_>, bank: HashAlgorithm) -> Option<Digest> {
    event.digest(bank).and_then(|digest| Digest::from_slice(bank, digest))
}

impl SecureBootStory {
    fn of(boot: &ExaminedBoot<'_>) -> Self {
        match boot.history().and_then(SecureBootRecord::read) {
            Some(record) => Self {
                state: Some(record.state().to_string()),
                quoted: true,
                keys: record.configuration.iter().filter_map(|it| keys(it.variable, it.contents)).collect(),
                authorities: record
                    .authorities
                    .iter()
                    .map(|event| authority(event.claimed_data(), &event.words()))
                    .collect(),
                faults: record.faults.iter().map(fault).collect(),
                others: record.others.iter().map(|event| event.words()).collect(),
            },
            None => Self::claimed(boot),
        }
    }

    /// Without a quote the order of PCR 7 proves nothing either.
    fn claimed(boot: &ExaminedBoot<'_>) -> Self {
        let mut story = Self::default();
        for event in boot.log().events().iter().filter(|event| event.pcr().is_some_and(|pcr| pcr.get() == 7))
        {
            if event.event_type() == EventType::EFI_VARIABLE_AUTHORITY {
                story.authorities.push(authority(event.data(), &event.words()));
                continue;
            }
            let variable = Variable::parse(event.data()).ok();
            let Some((kind, contents)) = variable.and_then(|it| Some((it.configuration()?, it.contents())))
            else {
                continue;
            };
            if kind == ConfigurationVariable::SecureBoot {
                story.state = Some(SecureBootState::of(contents).to_string());
            }
            story.keys.extend(keys(kind, contents));
        }
        story
    }
}

fn keys(variable: ConfigurationVariable, contents: &[u8]) -> Option<KeysReport> {
    let mut report = KeysReport {
        variable: match variable {
            ConfigurationVariable::SecureBoot => return None,
            ConfigurationVariable::Pk
            | ConfigurationVariable::Kek
            | ConfigurationVariable::Db
            | ConfigurationVariable::Dbx => variable.name(),
        },
        certificates: Vec::new(),
        digests: 0,
        other: 0,
        problem: None,
    };
    match parse_signature_lists(contents) {
        Err(error) => report.problem = Some(error.to_string()),
        Ok(entries) => {
            for entry in &entries {
                match entry.kind {
                    SignatureKind::X509 => report.certificates.push(subject(entry.data)),
                    SignatureKind::Sha256 => report.digests += 1,
                    SignatureKind::Other(_) => report.other += 1,
                }
            }
        }
    }
    Some(report)
}

/// Who a certificate is for; its owner vouches for the name, and nobody else.
fn subject(der: &[u8]) -> String {
    match Certificate::from_der(der) {
        Ok(certificate) => {
            let subject = certificate.tbs_certificate().subject().to_string();
            let common = subject.split(',').find_map(|part| part.trim().strip_prefix("CN="));
            shown(common.unwrap_or(&subject))
        }
        Err(_) => format!("a certificate of {} bytes that cannot be read", der.len()),
    }
}

/// An entry of `db`, or one of shim's variables, that an image was checked by.
fn authority(data: &[u8], words: &str) -> String {
    let Ok(variable) = Variable::parse(data) else { return words.to_owned() };
    // EFI_SIGNATURE_DATA: owner, then the entry.
    let entry = variable.contents().get(16..).filter(|entry| entry.first() == Some(&0x30));
    match entry {
        Some(der) => format!("{}: {}", shown(variable.name()), subject(der)),
        // SbatLevel ends its line.
        None => words.trim_end_matches("\\u{a}").to_owned(),
    }
}

fn fault(fault: &SecureBootFault) -> String {
    match fault {
        SecureBootFault::Missing(variable) => format!("{variable} was not measured before the separator"),
        SecureBootFault::Twice { event, variable } => {
            format!("event {event}: {variable} was measured a second time")
        }
        SecureBootFault::OutOfOrder { event, variable } => {
            format!("event {event}: {variable} was measured after one that comes later")
        }
        SecureBootFault::NotProved { event } => {
            format!("event {event}: a variable whose digest is not that of its data")
        }
        SecureBootFault::AfterSeparator { event, variable } => {
            format!("event {event}: {variable} was measured after the separator, where anybody can")
        }
    }
}
