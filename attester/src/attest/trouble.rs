//! Why an attempt to attest failed, and what follows from it.

use std::error::Error;
use std::time::Duration;

use super::evidence::EvidenceError;
use crate::client::{Refusal, Remedy, RequestError, TlsError};
use crate::enroll::EnrollError;
use crate::keep::{KeepError, Outcome};
use crate::tpm::{Consequence, TpmError};

/// Why an attempt to attest failed.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The TPM does not do its part.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The machine cannot be enrolled.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// The evidence cannot be made.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The verifier does not answer, or says no.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The state cannot be read or written.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The verifier issued something that is no credential for this machine's key.
    #[error("the verifier issued a credential that cannot be used: {0}")]
    Credential(#[source] TlsError),
    /// What the verifier issued is too long to be kept.
    #[error("the credential is too long to be kept")]
    TooLong,
}

/// What to do before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing: it may pass.
    Wait,
    /// Ask for another challenge.
    NewChallenge,
    /// Enrol again with the same AK.
    Enroll,
    /// Enrol again with another AK.
    EnrollAnew,
}

impl AttestError {
    /// What the TPM said, where it was the TPM.
    #[must_use]
    pub fn tpm(&self) -> Option<&TpmError> {
        match self {
            Self::Tpm(error)
            | Self::Enroll(EnrollError::Tpm(error))
            | Self::Evidence(EvidenceError::Tpm(error)) => Some(error),
            Self::Enroll(_)
            | Self::Evidence(_)
            | Self::Request(_)
            | Self::Keep(_)
            | Self::Credential(_)
            | Self::TooLong => None,
        }
    }

    fn request(&self) -> Option<&RequestError> {
        match self {
            Self::Request(error) | Self::Enroll(EnrollError::Request(error)) => Some(error),
            Self::Tpm(_)
            | Self::Enroll(_)
            | Self::Evidence(_)
            | Self::Keep(_)
            | Self::Credential(_)
            | Self::TooLong => None,
        }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self.request() {
            Some(RequestError::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    /// How long the verifier wants to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.request()? {
            RequestError::Refused(refusal) => refusal.retry_after,
            RequestError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The four things that must not be mixed up, as far as a machine can tell them by itself.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if let Some(error) = self.tpm() {
            return Outcome::CannotAttest { reason: format!("{error}; {}", error.advice()) };
        }
        match self.request() {
            Some(RequestError::Refused(refusal)) => {
                Outcome::Refused { code: refusal.code.to_string(), detail: refusal.detail.clone() }
            }
            Some(error) => Outcome::Unreachable { reason: chain(error) },
            None => Outcome::Failed { reason: chain(self) },
        }
    }

    pub(super) fn action(&self) -> Action {
        if let Some(error) = self.tpm() {
            return match error.consequence() {
                Consequence::KeyLost => Action::EnrollAnew,
                Consequence::CannotAttestNow | Consequence::NeedsOperator | Consequence::StateChanged => {
                    Action::Wait
                }
            };
        }
        match self.refusal().map(|refusal| refusal.code.remedy()) {
            Some(Remedy::Enroll) => Action::Enroll,
            Some(Remedy::NewChallenge) => Action::NewChallenge,
            Some(Remedy::Wait) | None => Action::Wait,
        }
    }
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_words = cause.to_string();
        // Transparent errors repeat the words of their cause.
        if !words.ends_with(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        next = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use rootbound_common::wire::v1::Problem;

    use super::*;

    fn refused(code: &str) -> RequestError {
        let problem = Problem {
            kind: String::new(),
            title: String::new(),
            status: 403,
            detail: "no".to_owned(),
            code: code.to_owned(),
        };
        RequestError::Refused(Refusal::of_problem(&problem, 403, Some(Duration::from_secs(7))))
    }

    #[test]
    fn what_cannot_be_done_what_is_refused_and_who_is_away_are_told_apart() {
        let io = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let away = RequestError::Connect { url: "https://verifier".to_owned(), source: io() };
        for (error, expected) in [
            (AttestError::Tpm(TpmError::Overloaded), "cannot_attest"),
            (AttestError::Enroll(EnrollError::Tpm(TpmError::Stopped)), "cannot_attest"),
            (AttestError::Evidence(EvidenceError::Tpm(TpmError::Stopped)), "cannot_attest"),
            (AttestError::Evidence(EvidenceError::NothingSelected), "failed"),
            (AttestError::Request(refused("node_retired")), "refused"),
            (AttestError::Enroll(EnrollError::Request(refused("join_token_refused"))), "refused"),
            (AttestError::Request(away), "unreachable"),
            (AttestError::Request(RequestError::Status { status: 503, retry_after: None }), "unreachable"),
            (AttestError::TooLong, "failed"),
        ] {
            let json = serde_json::to_value(error.outcome()).unwrap();
            assert_eq!(json["outcome"], expected, "{error}");
        }
    }

    #[test]
    fn failures_have_their_remedies() {
        for (error, action) in [
            (AttestError::Tpm(TpmError::Overloaded), Action::Wait),
            (AttestError::Request(refused("unknown_node")), Action::Enroll),
            (AttestError::Request(refused("challenge_expired")), Action::NewChallenge),
            (AttestError::Request(refused("admission_pending")), Action::Wait),
            (AttestError::Request(RequestError::TooLarge), Action::Wait),
        ] {
            assert_eq!(error.action(), action, "{error}");
        }
        let refused = AttestError::Request(refused("rate_limited"));
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(7)));
    }

    #[test]
    fn causes_are_said_once() {
        let source = std::io::Error::other("the cause");
        let error = RequestError::Lookup { host: "verifier".to_owned(), source };
        assert_eq!(chain(&error), "cannot find the address of verifier: the cause");
        assert_eq!(chain(&AttestError::Request(error)), "cannot find the address of verifier: the cause");
    }
}
