//! What the verifier says when it says no, and what that asks of the attester.

use std::fmt;
use std::time::Duration;

use rootbound_common::wire::v1::Problem;

/// Defines [`Code`] with the word of each variant on the wire.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal => $remedy:ident,)*) => {
        /// The stable code of a problem document: the ones that the attester acts upon, and all others.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
            /// Any other, as the verifier spelled it where it is a plain word.
            Other(String),
        }

        impl Code {
            fn parse(text: &str) -> Self {
                match text {
                    $($word => Self::$variant,)*
                    other => Self::Other(word(other)),
                }
            }

            /// The code as it is on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }

            /// What the code asks of the attester.
            #[must_use]
            pub const fn remedy(&self) -> Remedy {
                match self {
                    $(Self::$variant => Remedy::$remedy,)*
                    Self::Other(_) => Remedy::Wait,
                }
            }
        }
    };
}

codes! {
    /// The verifier does not know this machine (any more).
    UnknownNode = "unknown_node" => Enroll,
    /// The quote is not by the AK that the verifier knows: its records are older than ours, or somebody enrolled this
    /// TPM with another AK.
    SignatureInvalid = "signature_invalid" => Enroll,
    /// The quote is by an AK of another kind than the one that the verifier knows.
    SignatureScheme = "signature_scheme" => Enroll,
    /// An operator has to admit the machine.
    AdmissionPending = "admission_pending" => Wait,
    /// An operator has retired the machine.
    NodeRetired = "node_retired" => Wait,
    /// The answer came too late.
    ChallengeExpired = "challenge_expired" => NewChallenge,
    /// The challenge was answered before.
    ChallengeSpent = "challenge_spent" => NewChallenge,
    /// The verifier does not know the challenge as its own: it has a new key.
    ChallengeInvalid = "challenge_invalid" => NewChallenge,
    /// The verifier's clock was set back.
    ChallengeFromTheFuture = "challenge_from_the_future" => NewChallenge,
    /// The statement lay about between the TPM and the verifier.
    EvidenceTooOld = "evidence_too_old" => NewChallenge,
    /// Somebody changed what the verifier knows while it judged the evidence.
    NodeChanged = "node_changed" => NewChallenge,
    /// Later.
    RateLimited = "rate_limited" => Wait,
}

/// What a refusal asks of the attester.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// To prove once more that EK and AK live in one TPM.
    Enroll,
    /// To ask for a challenge, at once.
    NewChallenge,
    /// To try again later: nothing that the attester does now makes a difference.
    Wait,
}

impl Code {
    /// No code of version 1 is longer; what is, is not a code.
    const MAX: usize = 64;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A problem document (RFC 9457) of the verifier. Its texts are made safe to print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused by the verifier: `{code}` ({status}): {detail}")]
pub struct Refusal {
    /// For machines.
    pub code: Code,
    /// HTTP status.
    pub status: u16,
    /// For people.
    pub detail: String,
    /// How long to wait at least, where the verifier says so.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// From a problem document, and the status and Retry-After of the response that carried it.
    #[must_use]
    pub fn of_problem(problem: &Problem, status: u16, retry_after: Option<Duration>) -> Self {
        Self { code: Code::parse(&problem.code), status, detail: printable(&problem.detail), retry_after }
    }

    /// From the error of an OAuth endpoint (RFC 6749, 5.2): `error`, the description, and the stable code, which others do not
    /// have.
    pub(crate) fn of_oauth(
        error: &str,
        description: &str,
        code: Option<&str>,
        status: u16,
        retry_after: Option<Duration>,
    ) -> Self {
        let detail = format!("{}: {}", word(error), printable(description));
        Self { code: Code::parse(code.unwrap_or(error)), status, detail, retry_after }
    }
}

/// A code word that the verifier sent, or `unreadable` where it is none: words are logged and compared.
#[must_use]
pub fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=Code::MAX).contains(&text.len()) && text.bytes().all(plain) {
        text.to_owned()
    } else {
        "unreadable".to_owned()
    }
}

/// The verifier's words for people without what would confuse a terminal or a log, and not too many of them.
#[must_use]
pub fn printable(text: &str) -> String {
    const MAX: usize = 300;
    text.chars().take(MAX).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(code: &str, detail: &str) -> Problem {
        Problem {
            kind: format!("urn:rootbound:problem:{code}"),
            title: "Forbidden".to_owned(),
            status: 403,
            detail: detail.to_owned(),
            code: code.to_owned(),
        }
    }

    #[test]
    fn every_known_code_is_read_back_as_itself_and_has_its_remedy() {
        for (text, remedy) in [
            ("unknown_node", Remedy::Enroll),
            ("admission_pending", Remedy::Wait),
            ("node_retired", Remedy::Wait),
            ("challenge_expired", Remedy::NewChallenge),
            ("challenge_spent", Remedy::NewChallenge),
            ("challenge_invalid", Remedy::NewChallenge),
            ("evidence_too_old", Remedy::NewChallenge),
            ("rate_limited", Remedy::Wait),
            ("signature_invalid", Remedy::Enroll),
            ("signature_scheme", Remedy::Enroll),
            ("challenge_from_the_future", Remedy::NewChallenge),
            ("node_changed", Remedy::NewChallenge),
            ("pcr_digest_mismatch", Remedy::Wait),
        ] {
            let refusal = Refusal::of_problem(&problem(text, "no"), 403, None);
            assert_eq!(refusal.code.as_str(), text);
            assert_eq!(refusal.code.remedy(), remedy, "{text}");
        }
    }

    #[test]
    fn text_of_the_verifier_cannot_forge_log_lines() {
        let refusal =
            Refusal::of_problem(&problem("no\nnode_retired", "a\u{1b}[31m\r\nINFO all is well"), 400, None);
        assert_eq!(refusal.code, Code::Other("unreadable".to_owned()));
        assert_eq!(refusal.detail, "a?[31m??INFO all is well");
        assert_eq!(printable(&"x".repeat(10_000)).len(), 300);
    }
}
