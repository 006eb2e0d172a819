//! What is told of how the verifier is heard: in the log, and in a file for `rootbound-attester status`.

use std::time::Duration;

use rootbound_common::clock::{Clock, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::client::RequestError;

/// How the verifier is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A stream is held.
    Held,
    /// No stream can be held: it is asked from time to time.
    Polling,
    /// It says no, for the reason in [`ControlStatus::code`].
    Refused,
    /// It is not asked, since our TPM does not sign.
    CannotSign,
    /// It does not answer.
    Away,
    /// There is no credential to ask with.
    NoCredential,
    /// The attester was told to stop.
    Stopped,
}

impl Channel {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Polling => "not held; the verifier is asked from time to time",
            Self::Refused => "not held; refused by the verifier",
            Self::CannotSign => "not held; the TPM does not sign",
            Self::Away => "not held; the verifier does not answer",
            Self::NoCredential => "not held; there is no credential",
            Self::Stopped => "not held; the attester has stopped",
        }
    }
}

/// What is told of it, for `rootbound-attester status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlStatus {
    /// Since when it is heard in this way.
    pub at: Timestamp,
    /// How the verifier is heard.
    pub channel: Channel,
    /// The verifier's code, where it says no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Codes of what blocks the machine, as far as was heard.
    pub blocked: Vec<String>,
}

/// The least time between two writes of the file: a verifier that says this and that in turn costs no more syncs.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);

/// Remembers what was told last, so that it is told once.
#[derive(Debug, Default)]
pub(super) struct Telling(watch::Sender<Option<ControlStatus>>);

impl Telling {
    /// How the verifier is heard, where it does not say no.
    pub(super) fn channel(&self, channel: Channel, clock: &dyn Clock) {
        self.heard(channel, None, clock);
    }

    /// The verifier says no.
    pub(super) fn refused(&self, code: String, clock: &dyn Clock) {
        self.heard(Channel::Refused, Some(code), clock);
    }

    /// There is no stream or no answer.
    pub(super) fn failed(&self, error: &RequestError, clock: &dyn Clock) {
        tracing::debug!(error = crate::attest::chain(error), "the verifier is not heard");
        if error.tpm().is_some() {
            self.channel(Channel::CannotSign, clock);
        } else if let RequestError::Refused(refusal) = error {
            self.refused(refusal.code.to_string(), clock);
        } else {
            self.channel(Channel::Away, clock);
        }
    }

    fn heard(&self, channel: Channel, code: Option<String>, clock: &dyn Clock) {
        self.0.send_if_modified(|told| {
            let (at, blocked) = match told.take() {
                Some(before) if before.channel == channel && before.code == code => {
                    *told = Some(before);
                    return false;
                }
                Some(before) if before.channel == channel => (before.at, before.blocked),
                Some(before) => (clock.now(), before.blocked),
                None => (clock.now(), Vec::new()),
            };
            tracing::info!(control = channel.as_str(), code, "control stream");
            *told = Some(ControlStatus { at, channel, code, blocked });
            true
        });
    }

    /// What blocks the machine. The verifier has been heard before.
    pub(super) fn blocked(&self, codes: Vec<String>) {
        self.0.send_if_modified(|told| {
            let Some(told) = told.as_mut().filter(|told| told.blocked != codes) else { return false };
            if codes.is_empty() {
                tracing::info!("the verifier does not block this machine any more: its next evidence counts");
            } else {
                tracing::error!(
                    ?codes,
                    "the verifier blocks this machine, or lowers its standing; it attests on"
                );
            }
            told.blocked = codes;
            true
        });
    }

    /// Writes what is told, whenever that has changed, though not more often than each [`BETWEEN_WRITES`].
    pub(super) async fn write(&self, mut save: impl FnMut(&ControlStatus)) {
        let mut changes = self.0.subscribe();
        changes.mark_changed();
        while changes.changed().await.is_ok() {
            let told = changes.borrow_and_update().clone();
            if let Some(status) = told {
                save(&status);
                sleep(BETWEEN_WRITES).await;
            }
        }
    }

    /// Writes what was told last.
    pub(super) fn write_now(&self, save: impl FnOnce(&ControlStatus)) {
        let told = self.0.borrow().clone();
        if let Some(status) = told {
            save(&status);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use rootbound_common::wire::v1::Problem;

    use super::*;
    use crate::client::Refusal;
    use crate::tpm::TpmError;

    /// Another time at each look.
    #[derive(Debug, Default)]
    struct Ticking(AtomicI64);

    impl Clock for Ticking {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
        }
    }

    fn told(telling: &Telling) -> ControlStatus {
        telling.0.borrow().clone().unwrap()
    }

    fn refused(code: &str) -> RequestError {
        let problem = Problem {
            kind: String::new(),
            title: String::new(),
            status: 403,
            detail: String::new(),
            code: code.to_owned(),
        };
        RequestError::Refused(Refusal::of_problem(&problem, 403, None))
    }

    #[test]
    fn who_says_no_a_tpm_that_does_not_sign_and_who_is_away_are_told_apart() {
        let handshake = |source| RequestError::Handshake { url: String::new(), source };
        let tpm = rustls::Error::Other(rustls::OtherError(Arc::new(TpmError::Overloaded)));
        for (error, channel, code) in [
            (refused("node_retired"), Channel::Refused, Some("node_retired")),
            (handshake(io::Error::new(io::ErrorKind::InvalidData, tpm)), Channel::CannotSign, None),
            (handshake(io::ErrorKind::ConnectionReset.into()), Channel::Away, None),
            (RequestError::Status { status: 502, retry_after: None }, Channel::Away, None),
        ] {
            let telling = Telling::default();
            telling.failed(&error, &Ticking::default());
            let status = told(&telling);
            assert_eq!((status.channel, status.code.as_deref()), (channel, code), "{error}");
        }
    }

    #[test]
    fn words_of_every_channel_are_its_own() {
        let all = [
            (Channel::Held, "held"),
            (Channel::Polling, "polling"),
            (Channel::Refused, "refused"),
            (Channel::CannotSign, "cannot_sign"),
            (Channel::Away, "away"),
            (Channel::NoCredential, "no_credential"),
            (Channel::Stopped, "stopped"),
        ];
        let words: std::collections::BTreeSet<_> = all.iter().map(|(channel, _)| channel.as_str()).collect();
        assert_eq!(words.len(), all.len());
        for (channel, name) in all {
            assert_eq!(serde_json::to_value(channel).unwrap(), name);
        }
    }

    #[test]
    fn time_is_that_of_the_channel_and_not_of_what_is_heard_over_it() {
        let (telling, clock) = (Telling::default(), Ticking::default());
        let at = || told(&telling).at.as_millis();
        telling.channel(Channel::Held, &clock);
        telling.blocked(vec!["node_blocked".to_owned()]);
        telling.channel(Channel::Held, &clock);
        assert_eq!(at(), 0);
        telling.failed(&refused("overloaded"), &clock);
        telling.failed(&refused("node_retired"), &clock);
        assert_eq!((at(), told(&telling).code.as_deref()), (1, Some("node_retired")));
        telling.channel(Channel::Stopped, &clock);
        assert_eq!((at(), told(&telling).code), (2, None));
        assert_eq!(told(&telling).blocked, ["node_blocked"]);
    }

    #[tokio::test(start_paused = true)]
    async fn file_is_written_once_for_a_change_and_once_a_second_at_most_and_ends_with_the_last() {
        let (telling, clock) = (Telling::default(), Ticking::default());
        let mut written = Vec::new();
        let talks = async {
            sleep(10 * BETWEEN_WRITES).await;
            telling.channel(Channel::Held, &clock);
            sleep(10 * BETWEEN_WRITES).await;
            for turn in 0..5000 {
                let codes = if turn % 2 == 0 { vec!["node_blocked".to_owned()] } else { Vec::new() };
                telling.blocked(codes);
                sleep(BETWEEN_WRITES / 1000).await;
            }
            telling.blocked(vec!["the_last".to_owned()]);
            sleep(10 * BETWEEN_WRITES).await;
        };
        tokio::select! {
            () = telling.write(|status| written.push(status.blocked.clone())) => {}
            () = talks => {}
        }
        assert!((6..=8).contains(&written.len()), "{written:?}");
        assert_eq!(written.first(), Some(&Vec::new()));
        assert_eq!(written.last(), Some(&vec!["the_last".to_owned()]));
    }
}
