//! What is told about attempts: a log line when something changed, and `status.json`.

use rootbound_common::clock::Timestamp;
use rootbound_common::wire::v1::{CredentialOutcome, PostureReport, PostureStatus};

use super::trouble::AttestError;
use crate::client::{printable, word};
use crate::keep::{CredentialRefusal, Keep, Outcome, StatedPosture, Status};

/// Remembers what was told last, so that it is told once.
#[derive(Debug, Default)]
pub(super) struct Journal {
    last: Option<Outcome>,
    posture: Option<StatedPosture>,
    credential_refused: Option<CredentialRefusal>,
}

impl Journal {
    /// Goes on where an earlier process stopped: its last posture stays known until there is a newer one.
    pub(super) fn resume(keep: &Keep) -> Self {
        let Some(Status { posture, credential_refused, .. }) = keep.status() else { return Self::default() };
        Self { last: None, posture, credential_refused }
    }

    /// What came of the last attempt of this process.
    pub(super) fn last(&self) -> Option<&Outcome> {
        self.last.as_ref()
    }

    /// The last posture that the verifier stated.
    pub(super) fn posture(&self) -> Option<PostureStatus> {
        self.posture.as_ref().map(|posture| posture.report.status)
    }

    /// The verifier took the evidence, and says what it means, and perhaps what became of the request for a credential.
    pub(super) fn attested(
        &mut self,
        report: PostureReport,
        credential: Option<&CredentialOutcome>,
        now: Timestamp,
        keep: &Keep,
    ) {
        let changed = self.posture.as_ref().is_none_or(|before| differs(&before.report, &report));
        if changed || self.last != Some(Outcome::Attested) {
            tell(&report);
        }
        self.posture = Some(StatedPosture { at: now, report });
        self.last = Some(Outcome::Attested);
        match credential {
            Some(CredentialOutcome::Issued { .. }) => self.credential_refused = None,
            Some(CredentialOutcome::Refused { code, detail }) => {
                let refused = CredentialRefusal { at: now, code: word(code), detail: printable(detail) };
                if self.credential_refused.as_ref().is_none_or(|before| before.code != refused.code) {
                    let CredentialRefusal { code, detail, .. } = &refused;
                    tracing::warn!(code, detail, "the verifier issues no credential");
                }
                self.credential_refused = Some(refused);
            }
            None => {}
        }
        self.save(now, keep);
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
        let status = Status {
            at: now,
            last,
            posture: self.posture.clone(),
            credential_refused: self.credential_refused.clone(),
        };
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
        | PostureStatus::Unknown
        | PostureStatus::Blocked => {
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

#[cfg(test)]
mod tests {
    use rootbound_common::wire::v1::PostureStatus;

    use super::*;
    use crate::keep::tests::keep_in;
    use crate::tpm::TpmError;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn report(status: PostureStatus) -> PostureReport {
        PostureReport {
            status,
            evidence_at: None,
            profile: None,
            references: vec![],
            deviations: vec![],
            holds: vec![],
            observed_until: None,
        }
    }

    #[test]
    fn failure_is_told_once_until_its_reason_changes() {
        let root = tempfile::tempdir().unwrap();
        let keep = keep_in(root.path());
        let mut journal = Journal::default();
        let stopped = AttestError::Tpm(TpmError::Stopped);
        let overloaded = AttestError::Tpm(TpmError::Overloaded);
        for (error, now, told_at) in
            [(&stopped, 1, 1), (&stopped, 2, 1), (&overloaded, 3, 3), (&stopped, 4, 4)]
        {
            journal.failed(error, at(now), &keep);
            assert_eq!(keep.status().unwrap().at, at(told_at));
        }
        assert!(matches!(keep.status().unwrap().last, Outcome::CannotAttest { .. }));
    }

    #[test]
    fn posture_and_refusal_outlive_failures_and_restarts() {
        let root = tempfile::tempdir().unwrap();
        let keep = keep_in(root.path());
        let mut journal = Journal::default();
        let refused = CredentialOutcome::Refused {
            code: "posture_contraindicated".to_owned(),
            detail: "PCR 4".to_owned(),
        };
        journal.attested(report(PostureStatus::Contraindicated), Some(&refused), at(1), &keep);
        let mut journal = Journal::resume(&keep);
        assert_eq!((journal.posture(), journal.last()), (Some(PostureStatus::Contraindicated), None));
        journal.failed(&AttestError::Tpm(TpmError::Stopped), at(2), &keep);
        let status = keep.status().unwrap();
        assert_eq!(status.posture.unwrap().at, at(1));
        assert_eq!(status.credential_refused.unwrap().code, "posture_contraindicated");

        let issued = CredentialOutcome::Issued {
            certificate_chain: String::new(),
            trust_bundle: String::new(),
            not_after: at(9),
            renew_at: at(8),
        };
        journal.attested(report(PostureStatus::Affirming), Some(&issued), at(3), &keep);
        let status = keep.status().unwrap();
        assert_eq!((status.last, status.credential_refused), (Outcome::Attested, None));
    }
}
