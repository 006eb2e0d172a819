//! The log as bytes: from what anybody can write to a list of events that claim something.

use rootbound_common::tpm::{HashAlgorithm, ParseError, PcrIndex, Reader};

use super::error::BootLogError;
use super::event::EventType;
use super::reader::LittleEndian;
use super::spec_id::{SIGNATURE, SpecId};

/// The form of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// TCG_PCR_EVENT: SHA-1 digests only, as TPM 1.2 had it; some TPM 2.0 machines still write it.
    Sha1,
    /// TCG_PCR_EVENT2 after a Spec ID event: digests of several banks.
    CryptoAgile,
}

/// An event as the log claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedEvent<'a> {
    index: usize,
    pcr: Option<PcrIndex>,
    event_type: EventType,
    digests: Digests<'a>,
    data: &'a [u8],
}

/// A digest for each bank that we know, where the event has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Digests<'a> {
    sha1: Option<&'a [u8]>,
    sha256: Option<&'a [u8]>,
    sha384: Option<&'a [u8]>,
    sha512: Option<&'a [u8]>,
}

impl<'a> Digests<'a> {
    const fn of(&self, bank: HashAlgorithm) -> Option<&'a [u8]> {
        match bank {
            HashAlgorithm::Sha1 => self.sha1,
            HashAlgorithm::Sha256 => self.sha256,
            HashAlgorithm::Sha384 => self.sha384,
            HashAlgorithm::Sha512 => self.sha512,
        }
    }

    const fn slot(&mut self, bank: HashAlgorithm) -> &mut Option<&'a [u8]> {
        match bank {
            HashAlgorithm::Sha1 => &mut self.sha1,
            HashAlgorithm::Sha256 => &mut self.sha256,
            HashAlgorithm::Sha384 => &mut self.sha384,
            HashAlgorithm::Sha512 => &mut self.sha512,
        }
    }
}

impl<'a> ParsedEvent<'a> {
    /// Its place in the log, 0 for the first.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The PCR; none where it is 0xFFFFFFFF, which only EV_NO_ACTION may have.
    #[must_use]
    pub fn pcr(&self) -> Option<PcrIndex> {
        self.pcr
    }

    /// The type.
    #[must_use]
    pub fn event_type(&self) -> EventType {
        self.event_type
    }

    /// The digest for a bank, where the event has it.
    #[must_use]
    pub fn digest(&self, bank: HashAlgorithm) -> Option<&'a [u8]> {
        self.digests.of(bank)
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The PCR that the event extends, where it extends one: EV_NO_ACTION never does (PFP, 10.4.5).
    pub(super) fn extends(&self) -> Option<PcrIndex> {
        self.pcr.filter(|_| self.event_type != EventType::NO_ACTION)
    }
}

/// A boot log that is well-formed, and nothing more: every word in it is a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedBootLog<'a> {
    format: LogFormat,
    banks: Vec<HashAlgorithm>,
    events: Vec<ParsedEvent<'a>>,
    padding: usize,
    startup_locality: Option<u8>,
}

impl<'a> ParsedBootLog<'a> {
    /// Bytes of a log. Firmware reserves 64 KiB as a rule, and the largest real logs (Windows, with its drivers' policies)
    /// have some 200 KiB; twenty times that is nobody's boot.
    pub const MAX_LENGTH: usize = 4 << 20;
    /// Events of a log. The longest real boot has 300; GRUB scripts that loop have some thousands.
    pub const MAX_EVENTS: usize = 65_536;
    /// Bytes of one event's data. Windows puts 32 KiB into one, firmware a `dbx` of 24 KiB; variables end at some
    /// hundred KiB.
    pub const MAX_DATA: usize = 1 << 20;

    /// Parses a log (PC Client Platform Firmware Profile, 10): crypto-agile where it begins with a Spec ID event, with
    /// SHA-1 digests otherwise.
    ///
    /// Established: every byte is part of an event or of padding (all 0x00 or all 0xFF) after the last · every event is
    /// for one of 24 PCRs, or for none and EV_NO_ACTION · an event carries digests of the Spec ID's algorithms only, each
    /// once, of the right size, at least one · the locality of TPM2_Startup is stated at most once, before PCR 0 is extended.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BootLogError> {
        if bytes.is_empty() {
            return Err(BootLogError::Empty);
        }
        if bytes.len() > Self::MAX_LENGTH {
            return Err(BootLogError::TooLong { length: bytes.len(), limit: Self::MAX_LENGTH });
        }
        let mut reader = Reader::new(bytes);
        let first = sha1_event(&mut reader, 0).map_err(|error| BootLogError::Event { event: 0, error })?;
        let spec = match first.pcr {
            0 if first.event_type == EventType::NO_ACTION && first.data.starts_with(SIGNATURE) => {
                Some(SpecId::parse(first.data).map_err(BootLogError::SpecId)?)
            }
            _ => None,
        };
        let mut log = Self {
            format: if spec.is_some() { LogFormat::CryptoAgile } else { LogFormat::Sha1 },
            banks: spec.as_ref().map_or_else(|| vec![HashAlgorithm::Sha1], |spec| spec.banks().collect()),
            events: Vec::new(),
            padding: 0,
            startup_locality: None,
        };
        log.push(first)?;
        while !reader.rest().is_empty() {
            let event = log.events.len();
            let rest = reader.rest();
            if looks_like_padding(rest) {
                // Looked at once: what begins like padding and is not refuses the log.
                if !(is_all(rest, 0) || is_all(rest, 0xff)) {
                    return Err(BootLogError::Garbage { event, left: rest.len() });
                }
                log.padding = rest.len();
                break;
            }
            let raw = match &spec {
                None => sha1_event(&mut reader, event),
                Some(spec) => agile_event(&mut reader, event, spec),
            };
            log.push(raw.map_err(|error| BootLogError::Event { event, error })?)?;
        }
        Ok(log)
    }

    fn push(&mut self, raw: RawEvent<'a>) -> Result<(), BootLogError> {
        let RawEvent { index, pcr, event_type, digests, data } = raw;
        if self.events.len() >= Self::MAX_EVENTS {
            return Err(BootLogError::TooManyEvents { limit: Self::MAX_EVENTS });
        }
        let no_action = event_type == EventType::NO_ACTION;
        let known = u8::try_from(pcr).ok().and_then(PcrIndex::new);
        if known.is_none() && !(no_action && pcr == u32::MAX) {
            return Err(BootLogError::NoSuchPcr { event: index, pcr });
        }
        if no_action && data.starts_with(STARTUP_LOCALITY) {
            self.note_locality(index, known, data)?;
        }
        self.events.push(ParsedEvent { index, pcr: known, event_type, digests, data });
        Ok(())
    }

    /// The locality at which the TPM was started, and so the first value of PCR 0 (PFP, 10.4.5.3).
    fn note_locality(
        &mut self,
        event: usize,
        pcr: Option<PcrIndex>,
        data: &[u8],
    ) -> Result<(), BootLogError> {
        let refuse = |rule| Err(BootLogError::StartupLocality { event, rule });
        let Some(&[locality]) = data.strip_prefix(STARTUP_LOCALITY) else {
            return refuse("has one byte of data");
        };
        if pcr != PcrIndex::new(0) {
            return refuse("is said of PCR 0");
        }
        if !matches!(locality, 0 | 3 | 4) {
            return refuse("is 0, 3 or 4");
        }
        if self.startup_locality.is_some() {
            return refuse("is stated once");
        }
        let begun = |event: &ParsedEvent<'_>| event.extends() == PcrIndex::new(0);
        if self.events.iter().any(begun) {
            return refuse("is stated before PCR 0 is extended");
        }
        self.startup_locality = Some(locality);
        Ok(())
    }

    /// The form.
    #[must_use]
    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// The banks that the log speaks of, and that we know.
    #[must_use]
    pub fn banks(&self) -> &[HashAlgorithm] {
        &self.banks
    }

    /// The events, the Spec ID event among them, in order.
    #[must_use]
    pub fn events(&self) -> &[ParsedEvent<'a>] {
        &self.events
    }

    /// Bytes of padding after the last event.
    #[must_use]
    pub fn padding(&self) -> usize {
        self.padding
    }

    /// The locality of TPM2_Startup, where the log states it.
    #[must_use]
    pub fn startup_locality(&self) -> Option<u8> {
        self.startup_locality
    }
}

/// Begins the event that states the locality of TPM2_Startup; one byte follows.
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";

struct RawEvent<'a> {
    index: usize,
    pcr: u32,
    event_type: EventType,
    digests: Digests<'a>,
    data: &'a [u8],
}

/// TCG_PCR_EVENT.
fn sha1_event<'a>(reader: &mut Reader<'a>, index: usize) -> Result<RawEvent<'a>, ParseError> {
    let pcr = reader.le32("PCR")?;
    let event_type = EventType::from_u32(reader.le32("event type")?);
    let sha1 = Some(reader.bytes(HashAlgorithm::Sha1.size(), "SHA-1 digest")?);
    let data = data(reader)?;
    Ok(RawEvent { index, pcr, event_type, digests: Digests { sha1, ..Digests::default() }, data })
}

/// TCG_PCR_EVENT2. Windows leaves idle banks out, so that an event may have fewer digests than the Spec ID lists.
fn agile_event<'a>(reader: &mut Reader<'a>, index: usize, spec: &SpecId) -> Result<RawEvent<'a>, ParseError> {
    let pcr = reader.le32("PCR")?;
    let event_type = EventType::from_u32(reader.le32("event type")?);
    let count = reader.count32(spec.len(), "number of digests")?;
    if count == 0 {
        return Err(ParseError::Invalid { what: "digests", rule: "an event has at least one" });
    }
    let mut digests = Digests::default();
    let mut seen: Vec<u16> = Vec::with_capacity(count);
    for _ in 0..count {
        let id = reader.le16("digest algorithm")?;
        let what = "digest algorithm";
        let size = spec.size(id).ok_or(ParseError::Unknown { what, id: u32::from(id) })?;
        if seen.contains(&id) {
            return Err(ParseError::Invalid { what: "digests", rule: "no algorithm may occur twice" });
        }
        seen.push(id);
        let digest = reader.bytes(size, "digest")?;
        if let Ok(bank) = HashAlgorithm::from_tpm(id, what) {
            *digests.slot(bank) = Some(digest);
        }
    }
    let data = data(reader)?;
    Ok(RawEvent { index, pcr, event_type, digests, data })
}

fn data<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], ParseError> {
    let length = reader.count32(ParsedBootLog::MAX_DATA, "event size")?;
    reader.bytes(length, "event data")
}

/// Whether what is left begins as no event does: PCR, type and number of digests (in the SHA-1 form the begin of the
/// digest) are all zeros or all ones, or there are too few bytes for them.
fn looks_like_padding(rest: &[u8]) -> bool {
    let head = rest.get(..12).unwrap_or(rest);
    is_all(head, 0) || is_all(head, 0xff)
}

fn is_all(bytes: &[u8], byte: u8) -> bool {
    bytes.iter().all(|one| *one == byte)
}
