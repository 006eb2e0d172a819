//! Hears what the verifier wishes: over a control stream, or by asking from time to time where there is none.
//!
//! The stream is held with the credential, whose key is in the TPM: one signature for each time that it is opened. It is
//! opened again after it ended, with pauses that grow; where it cannot be held, the verifier is asked instead, and the stream
//! is tried again from time to time. What is heard rings the alarm, which is all that it does.

use std::time::Duration;

use rand_core::Rng;
use rootbound_common::clock::{Clock, Timestamp};
use rootbound_common::wire::v1::ControlState;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::alarm::{Alarm, Reason};
use crate::client::{Client, ClientIdentity, RequestError, Told, words};
use crate::keep::ControlFile;
use crate::renew::backoff;

/// Section `[control]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Whether to hold a stream; without it the verifier is asked from time to time.
    pub stream: bool,
    /// How often to ask, where no stream is held.
    #[serde(with = "humantime_serde")]
    pub poll_every: Duration,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self { stream: true, poll_every: Duration::from_secs(30) }
    }
}

/// How the verifier is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A stream is held.
    Held,
    /// No stream can be held: it is asked from time to time.
    Polling,
    /// It does not answer.
    Away,
    /// There is no credential to ask with.
    NoCredential,
}

impl Channel {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Polling => "not held; the verifier is asked from time to time",
            Self::Away => "not held; the verifier does not answer",
            Self::NoCredential => "not held; there is no credential",
        }
    }
}

/// What is told of it, for `rootbound-attester status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlStatus {
    /// Since when it is so.
    pub at: Timestamp,
    /// How the verifier is heard.
    pub channel: Channel,
    /// Codes of what blocks the machine, as far as was heard.
    pub blocked: Vec<String>,
}

/// After so many failures in a row the verifier is asked instead.
const PATIENCE: u32 = 2;
/// How long to ask before the stream is tried again.
const RETRY_STREAM: Duration = Duration::from_secs(300);
/// No pause is shorter, whatever is configured: each question costs a signature of the TPM.
const SHORTEST: Duration = Duration::from_secs(1);

/// Hears the verifier.
#[derive(Debug)]
pub struct Hearing<'a> {
    /// The verifier.
    pub client: &'a Client,
    /// With what to ask.
    pub identity: watch::Receiver<Option<ClientIdentity>>,
    /// What to ring.
    pub alarm: &'a Alarm,
    /// How.
    pub config: &'a ControlConfig,
    /// Where to write down how it is.
    pub file: Option<ControlFile>,
}

/// Why a stream is held no more.
enum Ended {
    /// As the verifier said it would, or because of another credential: it is opened again at once.
    InOrder,
    /// Otherwise.
    Failed,
}

impl Hearing<'_> {
    /// Hears until told to stop.
    pub async fn run(mut self, clock: &dyn Clock, rng: &mut impl Rng, stop: &CancellationToken) {
        let mut told = Telling { channel: None, blocked: Vec::new(), file: self.file.take() };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.hear(&mut told, clock, rng) => {}
        }
    }

    async fn hear(&mut self, told: &mut Telling, clock: &dyn Clock, rng: &mut impl Rng) {
        let (mut failures, mut try_stream_at) = (0, Instant::now());
        loop {
            let Some(identity) = self.identity.borrow_and_update().clone() else {
                told.channel(Channel::NoCredential, clock);
                if self.identity.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            };
            let pause = if self.config.stream && Instant::now() >= try_stream_at {
                match self.hold(identity, told, clock).await {
                    Ended::InOrder => {
                        failures = 0;
                        backoff(0, rng)
                    }
                    Ended::Failed => {
                        failures += 1;
                        if failures >= PATIENCE {
                            try_stream_at = Instant::now() + RETRY_STREAM;
                        }
                        backoff(failures, rng)
                    }
                }
            } else {
                self.ask(identity, told, clock).await;
                failures = PATIENCE;
                self.config.poll_every.max(SHORTEST)
            };
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.identity.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    // Another credential: nothing is known against a stream with it.
                    try_stream_at = Instant::now();
                    sleep(backoff(0, rng)).await;
                }
            }
        }
    }

    /// Holds a stream for as long as it lasts.
    async fn hold(&mut self, identity: ClientIdentity, told: &mut Telling, clock: &dyn Clock) -> Ended {
        let mut stream = match self.client.control_stream(identity).await {
            Ok(stream) => stream,
            Err(error) => return told.failed(&error, clock),
        };
        told.channel(Channel::Held, clock);
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                changed = self.identity.changed() => {
                    if changed.is_err() {
                        return Ended::Failed;
                    }
                    // The next stream is held with the new one, whose life is longer.
                    return Ended::InOrder;
                }
            };
            match next {
                Ok(Some(Told::Attest)) => self.alarm.ring(Reason::Asked),
                Ok(Some(Told::Renew)) => self.alarm.ring(Reason::Renew),
                Ok(Some(Told::Blocked(codes))) => told.blocked(codes, clock),
                Ok(Some(Told::Released)) => told.blocked(Vec::new(), clock),
                Ok(Some(Told::End(code))) if code == "stream_reconnect" => return Ended::InOrder,
                Ok(Some(Told::End(code))) => {
                    tracing::warn!(code, "the verifier ended the control stream");
                    told.channel(Channel::Away, clock);
                    return Ended::Failed;
                }
                Ok(None) => {
                    told.channel(Channel::Away, clock);
                    return Ended::Failed;
                }
                Err(error) => return told.failed(&error, clock),
            }
        }
    }

    /// Asks once.
    async fn ask(&mut self, identity: ClientIdentity, told: &mut Telling, clock: &dyn Clock) {
        match self.client.control_state(identity).await {
            Ok(ControlState { attest, renew, blocked }) => {
                told.channel(Channel::Polling, clock);
                told.blocked(words(&blocked), clock);
                if attest {
                    self.alarm.ring(Reason::Asked);
                }
                if renew {
                    self.alarm.ring(Reason::Renew);
                }
            }
            Err(error) => drop(told.failed(&error, clock)),
        }
    }
}

/// Remembers what was told last, so that it is told once.
struct Telling {
    channel: Option<Channel>,
    blocked: Vec<String>,
    file: Option<ControlFile>,
}

impl Telling {
    fn channel(&mut self, channel: Channel, clock: &dyn Clock) {
        if self.channel == Some(channel) {
            return;
        }
        tracing::info!(control = channel.as_str(), "control stream");
        self.channel = Some(channel);
        self.save(clock);
    }

    fn failed(&mut self, error: &RequestError, clock: &dyn Clock) -> Ended {
        tracing::debug!(error = crate::attest::chain(error), "the control stream is not held");
        self.channel(Channel::Away, clock);
        Ended::Failed
    }

    fn blocked(&mut self, codes: Vec<String>, clock: &dyn Clock) {
        if self.blocked == codes {
            return;
        }
        self.blocked = codes;
        self.save(clock);
        if self.blocked.is_empty() {
            tracing::info!("the verifier does not block this machine any more: its next evidence counts");
        } else {
            let codes = &self.blocked;
            tracing::error!(
                ?codes,
                "the verifier blocks this machine, or lowers its standing; it attests on"
            );
        }
    }

    fn save(&self, clock: &dyn Clock) {
        let (Some(file), Some(channel)) = (&self.file, self.channel) else { return };
        let status = ControlStatus { at: clock.now(), channel, blocked: self.blocked.clone() };
        if let Err(error) = file.save(&status) {
            // Nothing depends on the file but the words of `rootbound-attester status`.
            tracing::debug!(%error, "the state of the control stream is not saved");
        }
    }
}
