//! What all of it comes to: one of four outcomes, with the reasons.

use rootbound_common::tpm::PcrIndex;

use super::{Cover, Examined, Expectation, Fit, KeyStanding, NonceStanding, Statement, Values};
use crate::appraisal::logs::{BootFinding, RuntimeFinding};
use crate::appraisal::{Deviation, Verdict};
use crate::evidence::boot_log::BootLogError;

/// The four outcomes, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// What was expected explains everything.
    Affirming,
    /// Something that was needed is missing.
    CannotJudge,
    /// The evidence stands, and is not as expected.
    ViolatesPolicy,
    /// Something that was given does not stand, or contradicts the rest.
    BadEvidence,
}

/// Why the outcome is not affirming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// The outcome that it alone would have.
    pub(crate) outcome: Outcome,
    /// Stable, for machines.
    pub(crate) code: &'static str,
    /// In words.
    pub(crate) detail: String,
}

/// The outcome is the worst of the reasons'; without any it is affirming, which takes an appraisal without deviations.
pub(super) fn of(examined: &Examined<'_>, expected: Option<&Expectation>) -> (Outcome, Vec<Reason>) {
    let mut reasons = Reasons(Vec::new());
    reasons.key(&examined.quote.key);
    reasons.statement(&examined.quote.statement);
    reasons.values(examined);
    if let NonceStanding::Differs { .. } = &examined.quote.nonce {
        reasons.bad("extra_data_mismatch", "the quote is over another nonce than the one given: a replay");
    }
    match (&examined.appraisal, expected) {
        (Some(appraisal), _) => reasons.deviations(appraisal.deviations()),
        (None, Some(expected)) => reasons.logs_that_are_missing(examined, expected),
        (None, None) => {
            reasons.cannot("no_profile", "no profile was given: nothing says what is expected");
            reasons.contradictions(examined);
        }
    }
    let Reasons(mut reasons) = reasons;
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.outcome));
    let affirming = examined.appraisal.as_ref().is_some_and(|it| it.verdict() == Verdict::Affirming);
    let without_reasons = if affirming { Outcome::Affirming } else { Outcome::CannotJudge };
    (reasons.first().map_or(without_reasons, |reason| reason.outcome), reasons)
}

struct Reasons(Vec<Reason>);

impl Reasons {
    fn add(&mut self, outcome: Outcome, code: &'static str, detail: impl Into<String>) {
        self.0.push(Reason { outcome, code, detail: detail.into() });
    }

    fn bad(&mut self, code: &'static str, detail: impl Into<String>) {
        self.add(Outcome::BadEvidence, code, detail);
    }

    fn cannot(&mut self, code: &'static str, detail: impl Into<String>) {
        self.add(Outcome::CannotJudge, code, detail);
    }

    fn key(&mut self, key: &KeyStanding) {
        match key {
            KeyStanding::Missing => {
                self.cannot("ak_missing", "no AK was given: nobody says whose quote it is");
            }
            KeyStanding::Unusable(code, why) => self.bad(code, format!("the AK cannot be used: {why}")),
            KeyStanding::Refused(_, error) => self.bad(error.code(), error.to_string()),
            KeyStanding::Bare(_) => self.cannot(
                "ak_attributes_unknown",
                "the AK was given without its attributes: a key that is not restricted signs forged quotes as well",
            ),
            KeyStanding::Acceptable(_) => {}
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Missing => {
                self.cannot("quote_missing", "no quote was given: everything else is a claim")
            }
            Statement::Claimed(_) => {
                self.cannot(
                    "signature_unchecked",
                    "the quote's signature was not checked: it takes signature and AK",
                );
            }
            Statement::Refused(error) => self.bad(error.code(), error.to_string()),
            Statement::Signed(_) => {}
        }
    }

    fn values(&mut self, examined: &Examined<'_>) {
        match &examined.quote.values {
            Values::Missing => {
                self.cannot("pcr_values_missing", "no PCR values were given: a quote has their digest only")
            }
            Values::Refused(error, _) => self.bad(error.code(), error.to_string()),
            Values::Stated(_) | Values::Signed(_) => {}
        }
    }

    fn deviations(&mut self, deviations: &[Deviation]) {
        for deviation in deviations {
            self.add(outcome_of(deviation), deviation.code(), deviation.to_string());
        }
    }

    /// Where nothing vouches for the rest, an appraisal does not say so.
    fn logs_that_are_missing(&mut self, examined: &Examined<'_>, expected: &Expectation) {
        let Some(profile) = expected.profile() else { return };
        if profile.boot.is_some() && examined.boot.is_none() {
            self.cannot(BootFinding::Missing.code(), BootFinding::Missing.to_string());
        }
        if profile.runtime.is_some() && examined.list.is_none() {
            self.cannot(RuntimeFinding::Missing.code(), RuntimeFinding::Missing.to_string());
        }
    }

    /// Where no profile says which logs count, they have to come to the values that they explain on any machine: the boot
    /// log to PCRs 0 to 7, which firmware alone extends, the IMA list to PCR 10.
    fn contradictions(&mut self, examined: &Examined<'_>) {
        match &examined.boot {
            None => {}
            Some(Err(error)) => self.bad(error.code(), error.to_string()),
            Some(Ok(boot)) => {
                let others: Vec<PcrIndex> = boot
                    .pcrs()
                    .iter()
                    .filter(|pcr| pcr.pcr.get() <= 7 && matches!(pcr.fit, Fit::NotQuoted))
                    .map(|pcr| pcr.pcr)
                    .collect();
                if !others.is_empty() {
                    let pcrs: Vec<_> = others.iter().map(ToString::to_string).collect();
                    self.bad(
                        "boot_log_replay_mismatch",
                        format!(
                            "the boot log comes to other values than the quote has in PCR {}",
                            pcrs.join(", ")
                        ),
                    );
                }
            }
        }
        if let Some(Cover::Refused(error)) = examined.list.as_ref().map(|list| &list.cover) {
            self.bad(error.code(), format!("the IMA list is refused: {error}"));
        }
    }
}

/// What a deviation is, where somebody looks at files: what the service only knows as not affirming is told apart here.
fn outcome_of(deviation: &Deviation) -> Outcome {
    match deviation {
        Deviation::NoProfile(_) | Deviation::NotQuoted { .. } | Deviation::NoReference { .. } => {
            Outcome::CannotJudge
        }
        Deviation::IdleBank { .. } => Outcome::BadEvidence,
        Deviation::PcrMismatch { .. } | Deviation::PcrDenied { .. } => Outcome::ViolatesPolicy,
        Deviation::Boot(finding) => match finding {
            BootFinding::Missing
            | BootFinding::Absent
            // Neither contradicts anything: there is less than the profile asks for.
            | BootFinding::Refused(BootLogError::NotQuoted { .. } | BootLogError::BankNotInLog { .. }) => {
                Outcome::CannotJudge
            }
            BootFinding::Damaged(_) | BootFinding::Refused(_) => Outcome::BadEvidence,
            BootFinding::Deviation(_) => Outcome::ViolatesPolicy,
        },
        Deviation::Runtime(finding) => match finding {
            RuntimeFinding::Missing | RuntimeFinding::Absent | RuntimeFinding::Incomplete { .. } => {
                Outcome::CannotJudge
            }
            RuntimeFinding::Damaged(_)
            | RuntimeFinding::OutOfStep { .. }
            | RuntimeFinding::EmptyPart
            | RuntimeFinding::Refused(_) => Outcome::BadEvidence,
            RuntimeFinding::Deviation(_) | RuntimeFinding::NotCovered(_) | RuntimeFinding::More { .. } => {
                Outcome::ViolatesPolicy
            }
        },
    }
}
