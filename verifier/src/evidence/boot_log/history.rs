//! The checklist of a boot log, and the type that only it makes.

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSet};

use super::error::BootLogError;
use super::event::EventType;
use super::log::ParsedBootLog;
use super::proof::{self, ProvedForm};
use super::replay::Replayed;
use super::variable::Variable;
use crate::evidence::Observed;

/// An event that a TPM was told of: its digest, its PCR and its place among the events of that PCR are proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredEvent {
    index: usize,
    pcr: PcrIndex,
    digest: Digest,
    claimed_type: EventType,
    data: Vec<u8>,
    /// The form, and the bytes where they are not `data`.
    proved: Option<(ProvedForm, Option<Vec<u8>>)>,
}

/// What an event's data are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// The event's digest is the hash of exactly these bytes.
    Proved {
        /// The bytes.
        bytes: &'a [u8],
        /// How they follow from the data.
        form: ProvedForm,
    },
    /// The digest is the hash of something else, so that the data are the log's word.
    Hinted(&'a [u8]),
}

impl MeasuredEvent {
    /// Its place in the log, for people; the order between events of different PCRs is not proved.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The PCR that it extended.
    #[must_use]
    pub fn pcr(&self) -> PcrIndex {
        self.pcr
    }

    /// What it extended the PCR with.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The type, of which the TPM knows nothing.
    #[must_use]
    pub fn claimed_type(&self) -> EventType {
        self.claimed_type
    }

    /// The data as the log has them, proved or not.
    #[must_use]
    pub fn claimed_data(&self) -> &[u8] {
        &self.data
    }

    /// What the data are worth.
    #[must_use]
    pub fn content(&self) -> Content<'_> {
        match &self.proved {
            None => Content::Hinted(&self.data),
            Some((form, bytes)) => {
                Content::Proved { bytes: bytes.as_deref().unwrap_or(&self.data), form: *form }
            }
        }
    }

    /// The bytes whose hash the digest is, where they are known.
    #[must_use]
    pub fn proved(&self) -> Option<&[u8]> {
        match self.content() {
            Content::Proved { bytes, .. } => Some(bytes),
            Content::Hinted(_) => None,
        }
    }

    /// The variable that was measured, its vendor and name included. Only where the digest is the hash of the whole
    /// UEFI_VARIABLE_DATA: bytes that somebody else measured and that happen to have this form are a variable as well, so
    /// that whoever reads one has to know who could extend the PCR at that place.
    #[must_use]
    pub fn proved_variable(&self) -> Option<Variable<'_>> {
        match self.content() {
            Content::Proved { bytes, form: ProvedForm::Data } => Variable::parse(bytes).ok(),
            Content::Proved {
                form: ProvedForm::Text | ProvedForm::VariableContents | ProvedForm::SectionName,
                ..
            }
            | Content::Hinted(_) => None,
        }
    }
}

/// What a machine measured as it booted, as far as a quote covers it. Only [`authenticate`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootHistory {
    bank: HashAlgorithm,
    explained: PcrSet,
    events: Vec<MeasuredEvent>,
}

impl BootHistory {
    /// The bank whose quoted values the events come to.
    #[must_use]
    pub fn bank(&self) -> HashAlgorithm {
        self.bank
    }

    /// The PCRs whose every event is here.
    #[must_use]
    pub fn explained(&self) -> PcrSet {
        self.explained
    }

    /// The events of these PCRs, in the log's order. Proved is the order within one PCR only.
    #[must_use]
    pub fn events(&self) -> &[MeasuredEvent] {
        &self.events
    }

    /// The events of one PCR, in their proved order.
    pub fn of(&self, pcr: PcrIndex) -> impl Iterator<Item = &MeasuredEvent> {
        self.events.iter().filter(move |event| event.pcr == pcr)
    }
}

/// Authenticates a boot log against what a TPM signed.
///
/// Established when this returns, for each needed PCR, in this order:
/// 1. some PCR is needed, and the log has digests of the bank;
/// 2. the PCR was quoted in this bank;
/// 3. the log has events for it: a PCR at its start value whose log is silent proves nothing (CVE-2022-0317);
/// 4. each of them has a digest of this bank: other banks are no evidence, whatever they say;
/// 5. they replay to the quoted value.
///
/// Then data whose hash an event's digest is are proved, and all other data, and every type, are hints.
pub fn authenticate(
    log: ParsedBootLog<'_>,
    observed: &Observed,
    bank: HashAlgorithm,
    needed: PcrSet,
) -> Result<BootHistory, BootLogError> {
    if needed.is_empty() {
        return Err(BootLogError::NothingNeeded);
    }
    if !log.banks().contains(&bank) {
        return Err(BootLogError::BankNotInLog { bank });
    }
    let replayed = log.replay(bank);
    for pcr in needed.iter() {
        let quoted = observed.pcrs().get(bank, pcr).ok_or(BootLogError::NotQuoted { bank, pcr })?;
        match replayed.get(&pcr) {
            None => return Err(BootLogError::NoEvents { pcr }),
            Some(Replayed::MissingDigest { event }) => {
                return Err(BootLogError::MissingDigest { event: *event, pcr, bank });
            }
            Some(Replayed::Value(value)) if value != quoted => {
                let (replayed, quoted) = (Box::new(*value), Box::new(*quoted));
                return Err(BootLogError::Replay { bank, pcr, replayed, quoted });
            }
            Some(Replayed::Value(_)) => {}
        }
    }
    let mut events = Vec::new();
    for event in log.events() {
        let Some(pcr) = event.extends().filter(|pcr| needed.contains(*pcr)) else { continue };
        let digest = event.digest(bank).and_then(|digest| Digest::from_slice(bank, digest));
        let digest = digest.ok_or(BootLogError::MissingDigest { event: event.index(), pcr, bank })?;
        let proved = proof::proved(event.event_type(), event.data(), &digest);
        events.push(MeasuredEvent {
            index: event.index(),
            pcr,
            digest,
            claimed_type: event.event_type(),
            proved: proved.map(|(form, bytes)| match form {
                ProvedForm::Data => (form, None),
                ProvedForm::Text | ProvedForm::VariableContents | ProvedForm::SectionName => {
                    (form, Some(bytes.into_owned()))
                }
            }),
            data: event.data().to_vec(),
        });
    }
    Ok(BootHistory { bank, explained: needed, events })
}

/// Logs of one boot. Windows adds one each time it resumes from hibernation.
pub const MAX_LOGS: usize = 16;

/// Authenticates the last of several logs.
///
/// Windows writes a complete log at each resume: each begins with the firmware's events and goes on with what was measured
/// since. The TPM's values are those of the last; an earlier log is no evidence, so that it is not looked at.
pub fn authenticate_last(
    logs: &[&[u8]],
    observed: &Observed,
    bank: HashAlgorithm,
    needed: PcrSet,
) -> Result<BootHistory, BootLogError> {
    if logs.len() > MAX_LOGS {
        return Err(BootLogError::TooManyLogs { count: logs.len(), limit: MAX_LOGS });
    }
    let last = logs.last().ok_or(BootLogError::NoLog)?;
    authenticate(ParsedBootLog::parse(last)?, observed, bank, needed)
}
