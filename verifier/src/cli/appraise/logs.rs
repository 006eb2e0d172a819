//! The two logs of a report.

use std::collections::BTreeMap;

use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use serde::Serialize;

use super::story::{KnownTexts, Line, Story};
use crate::appraisal::runtime::Counts;
use crate::evidence::boot_log::{BootLogError, LogFormat};
use crate::evidence::ima::{BankMode, Form, ImaError};
use crate::flows::offline::{BootAggregateStanding, Cover, ExaminedBoot, ExaminedList, Fit, ReplayedPcr};

/// The boot event log.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum BootReport {
    /// It is no log.
    Refused { problem: String },
    /// It is one.
    Parsed(Box<BootStory>),
}

/// A well-formed log.
#[derive(Debug, Serialize)]
pub(super) struct BootStory {
    pub(super) format: &'static str,
    pub(super) banks: Vec<HashAlgorithm>,
    /// The bank that it was replayed in.
    pub(super) bank: HashAlgorithm,
    pub(super) padding: usize,
    pub(super) startup_locality: Option<u8>,
    /// Logs before this one, which count for nothing.
    pub(super) earlier_logs: usize,
    pub(super) pcrs: Vec<PcrReport>,
    pub(super) story: Story,
    pub(super) events: Vec<Line>,
}

/// `fit`: `quoted` (the log comes to what the quote vouches for), `not_quoted`, `stated` (to what is stated only), `not_stated`,
/// `no_value`.
#[derive(Debug, Serialize)]
pub(super) struct PcrReport {
    pub(super) pcr: PcrIndex,
    pub(super) fit: &'static str,
    /// Nothing where an event lacks a digest of the bank.
    pub(super) replayed: Option<String>,
    pub(super) value: Option<String>,
}

impl BootReport {
    pub(super) fn of(boot: Result<&ExaminedBoot<'_>, &BootLogError>, texts: &KnownTexts) -> Self {
        let boot = match boot {
            Ok(boot) => boot,
            Err(error) => return Self::Refused { problem: error.to_string() },
        };
        let log = boot.log();
        Self::Parsed(Box::new(BootStory {
            format: match log.format() {
                LogFormat::Sha1 => "sha1",
                LogFormat::CryptoAgile => "crypto_agile",
            },
            banks: log.banks().to_vec(),
            bank: boot.bank(),
            padding: log.padding(),
            startup_locality: log.startup_locality(),
            earlier_logs: boot.earlier_logs(),
            pcrs: boot.pcrs().iter().map(pcr).collect(),
            story: Story::of(boot, texts),
            events: log.events().iter().map(|event| Line::of(boot, event)).collect(),
        }))
    }
}

impl BootStory {
    /// The PCRs that fit in a way.
    pub(super) fn that_are(&self, fit: &str) -> impl Iterator<Item = PcrIndex> {
        self.pcrs.iter().filter(move |pcr| pcr.fit == fit).map(|pcr| pcr.pcr)
    }
}

fn pcr(pcr: &ReplayedPcr) -> PcrReport {
    PcrReport {
        pcr: pcr.pcr,
        fit: match pcr.fit {
            Fit::Quoted => "quoted",
            Fit::NotQuoted => "not_quoted",
            Fit::Stated => "stated",
            Fit::NotStated => "not_stated",
            Fit::NoValue => "no_value",
        },
        replayed: pcr.replayed.map(|value| value.to_string()),
        value: pcr.value.map(|value| value.to_string()),
    }
}

/// The IMA list. `state`: `quoted`, `refused`, `stated`, `claimed`.
#[derive(Debug, Serialize)]
pub(super) struct ListReport {
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    pub(super) entries: u64,
    /// Entries that the quote vouches for.
    pub(super) covered: u64,
    /// Entries after those, which only the next quote could vouch for.
    pub(super) after: u64,
    /// The kernel extends the bank with padded SHA-1.
    pub(super) weak: bool,
    pub(super) boot_aggregate: Option<String>,
    pub(super) templates: BTreeMap<&'static str, u64>,
    pub(super) digests: BTreeMap<&'static str, u64>,
    pub(super) signed: u64,
    pub(super) violations: u64,
    pub(super) violated: Vec<String>,
    pub(super) events: BTreeMap<String, u64>,
    pub(super) last: Option<String>,
    /// By the profile's rules.
    pub(super) judged: Option<Counts>,
}

impl ListReport {
    pub(super) fn of(list: &ExaminedList) -> Self {
        let (state, problem, (covered, after), weak) = match &list.cover {
            Cover::Quoted { covered, after, mode } => {
                ("quoted", None, (*covered, *after), *mode == BankMode::PaddedSha1)
            }
            Cover::Refused(error) => ("refused", Some(error.to_string()), (0, 0), false),
            Cover::Stated => ("stated", None, (0, 0), false),
            Cover::Nothing => ("claimed", None, (0, 0), false),
        };
        let summary = &list.summary;
        Self {
            state,
            problem,
            entries: summary.entries,
            covered,
            after,
            weak,
            boot_aggregate: summary.boot_aggregate.as_ref().map(boot_aggregate),
            templates: summary.templates.clone(),
            digests: summary.digests.clone(),
            signed: summary.signed,
            violations: summary.violations,
            violated: summary.violated.iter().map(ToString::to_string).collect(),
            events: summary.events.clone(),
            last: summary.last.as_ref().map(ToString::to_string),
            judged: list.judged,
        }
    }
}

fn boot_aggregate(standing: &BootAggregateStanding) -> String {
    match standing {
        BootAggregateStanding::Fits(Form::Firmware(bank)) => format!("over {bank} PCR 0-7, as they are"),
        BootAggregateStanding::Fits(Form::FirmwareAndLoader(bank)) => {
            format!("over {bank} PCR 0-9, as they are")
        }
        BootAggregateStanding::Not(ImaError::BootAggregateNotQuoted { bank, pcr }) => {
            format!("not compared: there is no value of {bank} PCR {pcr}")
        }
        BootAggregateStanding::Not(error) => error.to_string(),
    }
}
