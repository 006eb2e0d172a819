//! Evidence in files, appraised without a service.
//!
//! The road is the service's: the quote's signature and values, the boot log's and the IMA list's replay, the rules. What
//! only a service can know is missing, and said so: which node it is, that its AK lives in a genuine TPM, that the quote
//! answers a challenge, how old it is. What follows from a file alone is a claim.
//!
//! - `quote`, `form`: the quote, its key and its values
//! - `boot`, `list`: the logs, held against the quote
//! - `verdict`: what all of it comes to

mod boot;
mod form;
mod list;
mod quote;
mod verdict;

use std::io::Read;

use rootbound_common::tpm::{HashAlgorithm, PcrValues};

pub(crate) use boot::{ExaminedBoot, Fit, ReplayedPcr};
pub(crate) use list::{BootAggregateStanding, Cover, ExaminedList};
pub(crate) use quote::{ExaminedQuote, Facts, KeyStanding, NonceStanding, Statement, Values};
pub(crate) use verdict::{Outcome, Reason};

use crate::appraisal::logs::{BootEvidence, Logs, RuntimeEvidence};
use crate::appraisal::{Appraisal, appraise};
use crate::evidence::boot_log::{BootLogError, ParsedBootLog, authenticate_last};
use crate::node::Labels;
use crate::reference::{ProfileBody, ReferenceBook, RuleBook};

/// Opens the IMA list; more than once, since how a kernel extends is found by trying.
pub(crate) type OpenList = dyn Fn() -> std::io::Result<Box<dyn Read>>;

/// What there is. Anything may be missing.
#[derive(Default)]
pub(crate) struct Parts {
    /// TPMS_ATTEST.
    pub(crate) quote: Option<Vec<u8>>,
    /// TPMT_SIGNATURE, or the bare signature.
    pub(crate) signature: Option<Vec<u8>>,
    /// TPM2B_PUBLIC, TPMT_PUBLIC, or a SubjectPublicKeyInfo in PEM or DER.
    pub(crate) key: Option<Vec<u8>>,
    /// What the quote should be over.
    pub(crate) nonce: Option<Vec<u8>>,
    /// Values as somebody states them, of any bank.
    pub(crate) pcrs: Option<PcrValues>,
    /// Boot event logs, of which the last counts.
    pub(crate) boot_logs: Vec<Vec<u8>>,
    /// The IMA list, in either form.
    pub(crate) ima: Option<Box<OpenList>>,
}

/// What is expected: one profile with its sets.
pub(crate) struct Expectation {
    /// The profile, and the sets that it names, as far as they were given.
    pub(crate) book: ReferenceBook,
    /// Labels that the profile fits.
    pub(crate) labels: Labels,
}

impl Expectation {
    fn rules(&self) -> RuleBook<'_> {
        self.book.rules(&self.labels)
    }

    /// The profile.
    pub(crate) fn profile(&self) -> Option<&ProfileBody> {
        self.rules().profile
    }
}

/// What all of it comes to.
pub(crate) struct Examined<'p> {
    /// The quote, its key, its values.
    pub(crate) quote: ExaminedQuote<'p>,
    /// The boot event log.
    pub(crate) boot: Option<Result<ExaminedBoot<'p>, BootLogError>>,
    /// The IMA list.
    pub(crate) list: Option<ExaminedList>,
    /// By the profile, where there is one and a quote to hold it against.
    pub(crate) appraisal: Option<Appraisal>,
    /// The verdict.
    pub(crate) outcome: Outcome,
    /// Why, worst first; empty where it is affirming.
    pub(crate) reasons: Vec<Reason>,
}

/// Examines what there is by what is expected. Fails only where the IMA list cannot be read.
pub(crate) fn examine<'p>(
    parts: &'p Parts,
    expected: Option<&Expectation>,
) -> Result<Examined<'p>, std::io::Error> {
    let profile = expected.and_then(Expectation::profile);
    let quote = quote::examine(parts);
    let bank = profile.map(ProfileBody::log_bank);
    let boot = parts.boot_logs.last().map(|log| {
        let parsed = ParsedBootLog::parse(log)?;
        Ok(boot::examine(parsed, &quote.values, bank, parts.boot_logs.len()))
    });
    let rules = expected.map(Expectation::rules).filter(|rules| rules.profile.is_some_and(judges_ima));
    let list_bank =
        bank.or_else(|| Some(boot.as_ref()?.as_ref().ok()?.bank())).unwrap_or_else(|| quote.values.bank());
    let (list, runtime) = match &parts.ima {
        None => (None, RuntimeEvidence::NotSent),
        Some(open) => {
            let compiled = rules.and_then(|rules| rules.runtime);
            let (list, evidence) = list::examine(open, &quote.values, list_bank, compiled)?;
            (Some(list), evidence)
        }
    };
    let appraisal = expected.zip(quote.values.observed()).map(|(expected, observed)| {
        let logs = Logs { boot: boot_evidence(parts, observed, profile), runtime };
        appraise(observed, &logs, &expected.labels, &expected.book)
    });
    let mut examined =
        Examined { quote, boot, list, appraisal, outcome: Outcome::CannotJudge, reasons: Vec::new() };
    (examined.outcome, examined.reasons) = verdict::of(&examined, expected);
    Ok(examined)
}

fn judges_ima(profile: &ProfileBody) -> bool {
    profile.runtime.is_some()
}

/// The boot log as the profile asks for it; nothing where it does not.
fn boot_evidence(
    parts: &Parts,
    observed: &crate::evidence::Observed,
    profile: Option<&ProfileBody>,
) -> BootEvidence {
    let Some(rules) = profile.and_then(|profile| profile.boot.as_ref()) else { return BootEvidence::NotSent };
    if parts.boot_logs.is_empty() {
        return BootEvidence::NotSent;
    }
    let logs: Vec<&[u8]> = parts.boot_logs.iter().map(Vec::as_slice).collect();
    match authenticate_last(&logs, observed, rules.bank, rules.explained) {
        Ok(history) => BootEvidence::Authentic(history),
        Err(error) => BootEvidence::Refused(error),
    }
}

/// The bank to look at where nobody says which: the first of these that is there.
fn preferred(there: impl Fn(HashAlgorithm) -> bool) -> HashAlgorithm {
    use HashAlgorithm::{Sha1, Sha256, Sha384, Sha512};
    [Sha256, Sha384, Sha512, Sha1].into_iter().find(|bank| there(*bank)).unwrap_or(Sha256)
}
