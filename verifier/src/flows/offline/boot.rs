//! The boot event log, held against what there is of PCR values.

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSet};

use super::{Values, preferred};
use crate::evidence::Observed;
use crate::evidence::boot_log::{BootHistory, MeasuredEvent, ParsedBootLog, Replayed, authenticate};

/// A well-formed log, and how far it is more than a claim.
pub(crate) struct ExaminedBoot<'p> {
    log: ParsedBootLog<'p>,
    bank: HashAlgorithm,
    pcrs: Vec<ReplayedPcr>,
    /// Of the PCRs in which the log comes to what the quote vouches for.
    history: Option<BootHistory>,
    earlier_logs: usize,
}

/// One PCR that the log extends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplayedPcr {
    /// The PCR.
    pub(crate) pcr: PcrIndex,
    /// What the log comes to; nothing where an event lacks a digest of the bank.
    pub(crate) replayed: Option<Digest>,
    /// The value that it is held against.
    pub(crate) value: Option<Digest>,
    /// How that went.
    pub(crate) fit: Fit,
}

/// How a replayed value and a PCR's value fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The log comes to the quoted value.
    Quoted,
    /// It comes to another, or to none.
    NotQuoted,
    /// It comes to the value that is stated, for which nothing vouches.
    Stated,
    /// It comes to another.
    NotStated,
    /// There is no value.
    NoValue,
}

pub(super) fn examine<'p>(
    log: ParsedBootLog<'p>,
    values: &Values,
    bank: Option<HashAlgorithm>,
    logs: usize,
) -> ExaminedBoot<'p> {
    let bank = bank.unwrap_or_else(|| {
        let both = preferred(|bank| log.banks().contains(&bank) && values.has(bank));
        if values.has(both) { both } else { preferred(|bank| log.banks().contains(&bank)) }
    });
    let pcrs: Vec<_> =
        log.replay(bank).into_iter().map(|(pcr, replayed)| fit(pcr, replayed, values, bank)).collect();
    let quoted: PcrSet = pcrs.iter().filter(|pcr| pcr.fit == Fit::Quoted).map(|pcr| pcr.pcr).collect();
    let history = values.observed().and_then(|observed| history(&log, observed, bank, quoted));
    ExaminedBoot { log, bank, pcrs, history, earlier_logs: logs.saturating_sub(1) }
}

fn fit(pcr: PcrIndex, replayed: Replayed, values: &Values, bank: HashAlgorithm) -> ReplayedPcr {
    let replayed = match replayed {
        Replayed::Value(value) => Some(value),
        Replayed::MissingDigest { .. } => None,
    };
    let value = values.values().and_then(|values| values.get(bank, pcr)).copied();
    let fit = match (value, values.observed().is_some(), value == replayed) {
        (None, _, _) => Fit::NoValue,
        (Some(_), true, true) => Fit::Quoted,
        (Some(_), true, false) => Fit::NotQuoted,
        (Some(_), false, true) => Fit::Stated,
        (Some(_), false, false) => Fit::NotStated,
    };
    ReplayedPcr { pcr, replayed, value, fit }
}

fn history(
    log: &ParsedBootLog<'_>,
    observed: &Observed,
    bank: HashAlgorithm,
    quoted: PcrSet,
) -> Option<BootHistory> {
    // It was replayed for these PCRs already; without any there is no history.
    authenticate(log.clone(), observed, bank, quoted).ok()
}

impl<'p> ExaminedBoot<'p> {
    /// The log.
    pub(crate) fn log(&self) -> &ParsedBootLog<'p> {
        &self.log
    }

    /// The bank that it was replayed in.
    pub(crate) fn bank(&self) -> HashAlgorithm {
        self.bank
    }

    /// The PCRs that it extends.
    pub(crate) fn pcrs(&self) -> &[ReplayedPcr] {
        &self.pcrs
    }

    /// What of it a quote covers.
    pub(crate) fn history(&self) -> Option<&BootHistory> {
        self.history.as_ref()
    }

    /// An event as the quote covers it, by its place.
    pub(crate) fn measured(&self, index: usize) -> Option<&MeasuredEvent> {
        let events = self.history.as_ref()?.events();
        // Events are in the log's order.
        let at = events.binary_search_by_key(&index, MeasuredEvent::index).ok()?;
        events.get(at)
    }

    /// Logs of the same boot that this one replaces.
    pub(crate) fn earlier_logs(&self) -> usize {
        self.earlier_logs
    }
}
