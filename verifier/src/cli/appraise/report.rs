//! What was found, in words that are fit to show. JSON is this as it stands.

use data_encoding::HEXLOWER;
use rootbound_common::tpm::{PcrIndex, PcrSelection, PcrValues, SignatureScheme};
use serde::Serialize;

use super::logs::{BootReport, ListReport};
use super::story::KnownTexts;
use crate::flows::offline::{
    Examined, ExaminedQuote, Facts, KeyStanding, NonceStanding, Outcome, Reason, Statement, Values,
};

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// `affirming`, `violates_policy`, `bad_evidence` or `cannot_judge`.
    pub(super) verdict: &'static str,
    pub(super) exit_code: u8,
    /// Why it is not affirming, worst first.
    pub(super) reasons: Vec<ReasonReport>,
    pub(super) profile_given: bool,
    pub(super) quote: QuoteReport,
    pub(super) ak: KeyReport,
    pub(super) nonce: NonceReport,
    pub(super) pcr_values: ValuesReport,
    pub(super) boot: Option<BootReport>,
    pub(super) ima: Option<ListReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReasonReport {
    pub(super) outcome: &'static str,
    pub(super) code: &'static str,
    pub(super) detail: String,
}

/// `state`: `missing`, `claimed`, `refused`, `signed`.
#[derive(Debug, Serialize)]
pub(super) struct QuoteReport {
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) facts: Option<FactsReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct FactsReport {
    pub(super) selection: PcrSelection,
    pub(super) extra_data: String,
    pub(super) clock_ms: u64,
    pub(super) clock_safe: bool,
    pub(super) reset_count: u32,
    pub(super) restart_count: u32,
    pub(super) firmware_version: String,
    /// Whether the AK is a primary key of the endorsement hierarchy, as the service asks for.
    pub(super) ak_is_endorsement_primary: Option<bool>,
}

/// `state`: `missing`, `unusable`, `refused`, `without_attributes`, `acceptable`.
#[derive(Debug, Serialize)]
pub(super) struct KeyReport {
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scheme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// `state`: `not_given`, `no_quote`, `same`, `bound`, `differs`.
#[derive(Debug, Serialize)]
pub(super) struct NonceReport {
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) given: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quoted: Option<String>,
}

/// `state`: `missing`, `stated`, `refused`, `signed`.
#[derive(Debug, Serialize)]
pub(super) struct ValuesReport {
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) values: Option<PcrValues>,
}

impl Report {
    pub(super) fn of(
        examined: &Examined<'_>,
        profile_given: bool,
        exit_code: u8,
        texts: &KnownTexts,
    ) -> Self {
        let ExaminedQuote { key, statement, nonce, values } = &examined.quote;
        Self {
            verdict: outcome(examined.outcome),
            exit_code,
            reasons: examined.reasons.iter().map(reason).collect(),
            profile_given,
            quote: quote(statement),
            ak: key_report(key),
            nonce: nonce_report(nonce),
            pcr_values: values_report(values),
            boot: examined.boot.as_ref().map(|boot| BootReport::of(boot.as_ref(), texts)),
            ima: examined.list.as_ref().map(ListReport::of),
        }
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Affirming => "affirming",
        Outcome::ViolatesPolicy => "violates_policy",
        Outcome::BadEvidence => "bad_evidence",
        Outcome::CannotJudge => "cannot_judge",
    }
}

fn reason(reason: &Reason) -> ReasonReport {
    ReasonReport { outcome: outcome(reason.outcome), code: reason.code, detail: reason.detail.clone() }
}

fn quote(statement: &Statement) -> QuoteReport {
    let (state, problem, facts) = match statement {
        Statement::Missing => ("missing", None, None),
        Statement::Claimed(facts) => ("claimed", None, Some(facts)),
        Statement::Refused(error) => ("refused", Some(error.to_string()), None),
        Statement::Signed(facts) => ("signed", None, Some(facts)),
    };
    QuoteReport { state, problem, facts: facts.map(facts_report) }
}

fn facts_report(facts: &Facts) -> FactsReport {
    FactsReport {
        selection: facts.selection.clone(),
        extra_data: HEXLOWER.encode(&facts.extra_data),
        clock_ms: facts.clock.clock,
        clock_safe: facts.clock.safe,
        reset_count: facts.clock.reset_count,
        restart_count: facts.clock.restart_count,
        firmware_version: format!("{:016x}", facts.firmware_version),
        ak_is_endorsement_primary: facts.endorsement_primary,
    }
}

fn key_report(key: &KeyStanding) -> KeyReport {
    let scheme = |scheme: &SignatureScheme| Some(scheme.to_string());
    match key {
        KeyStanding::Missing => KeyReport { state: "missing", scheme: None, problem: None },
        KeyStanding::Unusable(_, why) => {
            KeyReport { state: "unusable", scheme: None, problem: Some(why.clone()) }
        }
        KeyStanding::Refused(by, error) => {
            KeyReport { state: "refused", scheme: scheme(by), problem: Some(error.to_string()) }
        }
        KeyStanding::Bare(by) => KeyReport { state: "without_attributes", scheme: scheme(by), problem: None },
        KeyStanding::Acceptable(by) => KeyReport { state: "acceptable", scheme: scheme(by), problem: None },
    }
}

fn nonce_report(nonce: &NonceStanding<'_>) -> NonceReport {
    let state = |state| NonceReport { state, given: None, quoted: None };
    match nonce {
        NonceStanding::NotGiven => state("not_given"),
        NonceStanding::NoQuote => state("no_quote"),
        NonceStanding::Same => state("same"),
        NonceStanding::Bound => state("bound"),
        NonceStanding::Differs { given, quoted } => NonceReport {
            state: "differs",
            given: Some(HEXLOWER.encode(given)),
            quoted: Some(HEXLOWER.encode(quoted)),
        },
    }
}

fn values_report(values: &Values) -> ValuesReport {
    let (state, problem) = match values {
        Values::Missing => ("missing", None),
        Values::Stated(_) => ("stated", None),
        Values::Refused(error, _) => ("refused", Some(error.to_string())),
        Values::Signed(_) => ("signed", None),
    };
    ValuesReport { state, problem, values: values.values().cloned() }
}

/// PCR numbers as people write them: `0-7, 9`.
pub(super) fn ranges(pcrs: impl IntoIterator<Item = PcrIndex>) -> String {
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    for pcr in pcrs {
        match ranges.last_mut() {
            Some((_, last)) if last.saturating_add(1) == pcr.get() => *last = pcr.get(),
            Some(_) | None => ranges.push((pcr.get(), pcr.get())),
        }
    }
    let words = ranges.iter().map(|(first, last)| match last.saturating_sub(*first) {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcr_numbers_in_a_row_are_written_as_a_range() {
        let ranges = |pcrs: &[u8]| ranges(pcrs.iter().filter_map(|pcr| PcrIndex::new(*pcr)));
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3, 7, 9, 10");
    }
}
