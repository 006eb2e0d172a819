//! Hears what the verifier wishes: over a control stream, or by asking from time to time where there is none.
//!
//! The stream is held with the credential, whose key is in the TPM: one signature for each time that it is opened. It is
//! opened again after it ended, with pauses that grow; where it cannot be held, the verifier is asked instead, and the stream
//! is tried again from time to time. What is heard rings the alarm, which is all that it does.
//!
//! - `attempts`: when to open a stream, and when to ask
//! - `telling`: what is written down and logged of it

mod attempts;
mod telling;

use std::time::Duration;

use rand_core::Rng;
use rootbound_common::clock::Clock;
use rootbound_common::wire::v1::ControlState;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::alarm::{Alarm, Reason};
use crate::client::{Client, ClientIdentity, Told, words};
use crate::keep::ControlFile;
use crate::within::Within;
use attempts::{Attempts, Ended};
use telling::Telling;
pub use telling::{Channel, ControlStatus};

/// Section `[control]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Whether to hold a stream; without it the verifier is asked from time to time.
    pub stream: bool,
    /// How often to ask, where no stream is held.
    pub poll_every: PollEvery,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self { stream: true, poll_every: PollEvery::default() }
    }
}

/// How often to ask. Each question costs a signature of the TPM; who asks more seldom than each hour hears of a block too late
/// to matter.
pub type PollEvery = Within<1, 3600, 30>;

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

impl Hearing<'_> {
    /// Hears until told to stop.
    pub async fn run(mut self, clock: &dyn Clock, rng: &mut impl Rng, stop: &CancellationToken) {
        let file = self.file.take();
        let save = |status: &ControlStatus| {
            // Nothing depends on the file but the words of `rootbound-attester status`.
            if let Some(Err(error)) = file.as_ref().map(|file| file.save(status)) {
                tracing::debug!(%error, "the state of the control stream is not saved");
            }
        };
        let told = Telling::default();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.hear(&told, clock, rng) => {}
            () = told.write(save) => {}
        }
        told.channel(Channel::Stopped, clock);
        told.write_now(save);
    }

    async fn hear(&mut self, told: &Telling, clock: &dyn Clock, rng: &mut impl Rng) {
        let mut attempts = Attempts::new(Instant::now());
        loop {
            if self.identity.has_changed().unwrap_or_default() {
                self.alarm.renewed();
            }
            let Some(identity) = self.identity.borrow_and_update().clone() else {
                told.channel(Channel::NoCredential, clock);
                if self.identity.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            };
            let pause = if self.config.stream && attempts.stream_is_due(Instant::now()) {
                let (ended, held) = self.hold(identity, told, clock).await;
                attempts.ended(ended, held, Instant::now(), rng)
            } else {
                self.ask(identity, told, clock).await;
                attempts.asked(self.config, Instant::now())
            };
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.identity.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    self.alarm.renewed();
                    sleep(attempts.other_credential(Instant::now(), rng)).await;
                }
            }
        }
    }

    /// Holds a stream for as long as it lasts. Says for how long that was.
    async fn hold(
        &mut self,
        identity: ClientIdentity,
        told: &Telling,
        clock: &dyn Clock,
    ) -> (Ended, Duration) {
        let mut stream = match self.client.control_stream(identity).await {
            Ok(stream) => stream,
            Err(error) => {
                told.failed(&error, clock);
                return (Ended::Failed, Duration::ZERO);
            }
        };
        told.channel(Channel::Held, clock);
        let opened = Instant::now();
        let ended = loop {
            let next = tokio::select! {
                next = stream.next() => next,
                changed = self.identity.changed() => {
                    self.alarm.renewed();
                    // The next stream is held with the new one, whose life is longer.
                    break if changed.is_err() { Ended::Failed } else { Ended::OtherCredential };
                }
            };
            match next {
                Ok(Some(Told::Attest)) => self.alarm.ring(Reason::Asked),
                Ok(Some(Told::Renew)) => self.alarm.ring(Reason::Renew),
                Ok(Some(Told::Blocked(codes))) => told.blocked(codes),
                Ok(Some(Told::Released)) => told.blocked(Vec::new()),
                Ok(Some(Told::End(code))) if code == "stream_reconnect" => break Ended::InOrder,
                Ok(Some(Told::End(code))) => {
                    tracing::warn!(code, "the verifier ended the control stream");
                    told.refused(code, clock);
                    break Ended::Failed;
                }
                Ok(None) => {
                    told.channel(Channel::Away, clock);
                    break Ended::Failed;
                }
                Err(error) => {
                    told.failed(&error, clock);
                    break Ended::Failed;
                }
            }
        };
        (ended, opened.elapsed())
    }

    /// Asks once.
    async fn ask(&mut self, identity: ClientIdentity, told: &Telling, clock: &dyn Clock) {
        match self.client.control_state(identity).await {
            Ok(ControlState { attest, renew, blocked }) => {
                told.channel(Channel::Polling, clock);
                told.blocked(words(&blocked));
                if attest {
                    self.alarm.ring(Reason::Asked);
                }
                if renew {
                    self.alarm.ring(Reason::Renew);
                }
            }
            Err(error) => told.failed(&error, clock),
        }
    }
}

#[cfg(test)]
mod tests {
    use rootbound_common::clock::SystemClock;

    use super::*;
    use crate::client::tests::World;
    use crate::keep::View;
    use crate::keep::tests::keep_in;

    #[tokio::test]
    async fn what_is_left_at_the_end_says_that_the_attester_has_stopped() {
        let (root, world) = (tempfile::tempdir().unwrap(), World::new());
        let keep = keep_in(root.path());
        let (_sender, identity) = watch::channel(None);
        let (alarm, config, stop) = (Alarm::default(), ControlConfig::default(), CancellationToken::new());
        let client = world.client(443);
        let hearing = Hearing {
            client: &client,
            identity,
            alarm: &alarm,
            config: &config,
            file: Some(keep.control_file()),
        };
        let mut rng = rootbound_common::random::system();
        let view = View::open(&root.path().join("state")).unwrap();
        let written = || view.control().unwrap().map(|status| status.channel);
        let stopper = async {
            while written() != Some(Channel::NoCredential) {
                tokio::task::yield_now().await;
            }
            stop.cancel();
        };
        tokio::join!(hearing.run(&SystemClock, &mut rng, &stop), stopper);
        assert_eq!(written(), Some(Channel::Stopped));
    }
}
