//! What is told about attempts: a log line when something changed, and `status.json`.

use rootbound_common::clock::Timestamp;
use rootbound_common::wire::v1::{PostureReport, PostureStatus};

use super::trouble::AttestError;
use crate::client::{printable, word};
use crate::keep::{Keep, Outcome, StatedPosture, Status};

/// Remembers what was told last, so that it is told once.
#[derive(Debug, Default)]
pub(super) struct Journal {
    last: Option<Outcome>,
    posture: Option<StatedPosture>,
    refused_credential: Option<String>,
}

impl Journal {
    /// Goes on where an earlier process stopped: its last posture stays known until there is a newer one.
    pub(super) fn resume(keep: &Keep) -> Self {
        Self { posture: keep.status().and_then(|status| status.posture), ..Self::default() }
    }

    /// What came of the last attempt of this process.
    pub(super) fn last(&self) -> Option<&Outcome> {
        self.last.as_ref()
    }

    /// The last posture that the verifier stated.
    pub(super) fn posture(&self) -> Option<PostureStatus> {
        self.posture.as_ref().map(|posture| posture.report.status)
    }

    /// The verifier took the evidence, and says what it means.
    pub(super) fn attested(&mut self, report: PostureReport, now: Timestamp, keep: &Keep) {
        let changed = self.posture.as_ref().is_none_or(|before| differs(&before.report, &report));
        if changed || self.last != Some(Outcome::Attested) {
            tell(&report);
        }
        self.posture = Some(StatedPosture { at: now, report });
        self.last = Some(Outcome::Attested);
        self.save(now, keep);
    }

    /// The verifier gave a credential.
    pub(super) fn issued(&mut self) {
        self.refused_credential = None;
    }

    /// The verifier gave no credential.
    pub(super) fn credential_refused(&mut self, code: &str, detail: &str) {
        let code = word(code);
        if self.refused_credential.as_ref() != Some(&code) {
            tracing::warn!(code, detail = printable(detail), "the verifier issues no credential");
        }
        self.refused_credential = Some(code);
    }

    /// The attempt failed.
    pub(super) fn failed(&mut self, error: &AttestError, now: Timestamp, keep: &Keep) {
        let outcome = error.outcome();
        if self.last.as_ref() == Some(&outcome) {
            return;
        }
        match &outcome {
            Outcome::Attested => {}
            Outcome::CannotAttest { reason } => tracing::error!(reason, "cannot attest"),
            Outcome::Unreachable { reason } => tracing::warn!(reason, "the verifier does not answer"),
            Outcome::Refused { code, detail } => tracing::warn!(code, detail, "refused by the verifier"),
            Outcome::Failed { reason } => tracing::error!(reason, "the attempt failed"),
        }
        self.last = Some(outcome);
        self.save(now, keep);
    }

    fn save(&self, now: Timestamp, keep: &Keep) {
        let Some(last) = self.last.clone() else { return };
        let status = Status { at: now, last, posture: self.posture.clone() };
        if let Err(error) = keep.save_status(&status) {
            // Nothing depends on the file but the words of `rootbound-attester status`.
            tracing::debug!(%error, "the status is not saved");
        }
    }
}

/// Whether anything but the time is different.
fn differs(before: &PostureReport, after: &PostureReport) -> bool {
    let timeless = |report: &PostureReport| PostureReport { evidence_at: None, ..report.clone() };
    timeless(before) != timeless(after)
}

fn tell(report: &PostureReport) {
    let profile = report.profile.as_deref().map(printable);
    match report.status {
        PostureStatus::Affirming => {
            tracing::info!(posture = report.status.as_str(), profile, "attested");
        }
        PostureStatus::Warning
        | PostureStatus::Contraindicated
        | PostureStatus::Stale
        | PostureStatus::Unknown => {
            tracing::warn!(
                posture = report.status.as_str(),
                profile,
                deviations = report.deviations.len(),
                "attested, but the verifier is not satisfied"
            );
        }
    }
    // A measured boot deviates in a few places, or in all: twenty lines say which.
    const TOLD: usize = 20;
    for deviation in report.deviations.iter().take(TOLD) {
        tracing::warn!(
            code = word(&deviation.code),
            pcr = deviation.pcr.map(|pcr| pcr.get()),
            bank = deviation.bank.map(|bank| bank.name()),
            detail = printable(&deviation.detail),
            "deviation"
        );
    }
}
