//! What a stranger may cost: every bound of the HTTP edge, each with its reason.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Section `[limits]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once. A TLS connection takes about 40 KB, so that these take at most 80 MB.
    pub max_connections: NonZeroU32,
    /// Connections at once from one client address (one /64 for IPv6): a fleet behind one NAT connects for a second a
    /// minute and node, while a stranger who holds connections open does not lock everybody else out.
    pub max_connections_per_address: NonZeroU32,
    /// Requests being answered at once; above it, the answer is 503 at once. Two cores answer thousands of requests per
    /// second, so that a longer queue would only hold requests whose callers have given up.
    pub max_requests: NonZeroU32,
    /// Long bodies on their way at once: of evidence with logs, 5 MB at most each, so that these take at most 80 MB; above
    /// it, the answer is 503 at once. A machine sends one after a boot, so that these carry a hundred boots a second.
    pub max_long_bodies: NonZeroU32,
    /// Long bodies on their way at once from one client address (one /64 for IPv6).
    pub max_long_bodies_per_address: NonZeroU32,
    /// Bodies on their way at once, 64 KB at most each, so that these take at most 256 MB; above it, the answer is 503 at
    /// once. They take no place among the requests being answered.
    pub max_bodies: NonZeroU32,
    /// Bodies on their way at once from one client address (one /64 for IPv6): an honest body arrives within a round trip,
    /// so that these carry thousands of nodes behind one NAT, while a stranger who sends only heads does not lock
    /// everybody else out.
    pub max_bodies_per_address: NonZeroU32,
    /// Control streams at once, one for each node at most. Each takes about 15 KB, so that these take at most 150 MB; they do
    /// not count as connections.
    pub max_control_streams: NonZeroU32,
    /// How long a TLS handshake may take. A discrete TPM takes under two seconds for its signature.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How long the head of a request may take to arrive.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request. Longer than the usual attestation interval of a minute
    /// would keep a connection per node open; shorter than a round trip would cost a handshake per message.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long the body of a request may take to arrive: 64 KB within it is a slow mobile link.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// How long a long body may take to arrive: 5 MB within it is a slow mobile link, too.
    #[serde(with = "humantime_serde")]
    pub long_body_timeout: Duration,
    /// After how long a caller, whose request has arrived, is told that there is no answer. What was begun is still brought to its end.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// After how long a connection is closed, so that the caller proves again that it holds its key. Each request is
    /// judged by the live posture in any case.
    #[serde(with = "humantime_serde")]
    pub connection_age: Duration,
    /// How long requests under way may take when the verifier stops.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Connections per client address: a fleet of 1000 nodes behind one NAT needs one a minute and node, and a handshake
    /// costs a signature and two verifications, so that one address takes under one percent of a core.
    pub connections: Rate,
    /// Enrolments and activations per client address: two messages per machine, once in its life. Each costs an RSA or
    /// ECC operation and a row.
    pub enrollments: Rate,
    /// Challenges and evidence per client address: about one message a minute and node, so that the default carries 300
    /// nodes behind one NAT, and 50 that start together.
    pub attestations: Rate,
    /// Everything else per client address.
    pub queries: Rate,
    /// Decisions (`/access/v1`) per client address, for callers that show a certificate: a service asks before each
    /// action, and a gateway for all that is behind it, so that the default is more than two cores decide. A batch counts
    /// as its questions, and a search as the 256 that it may judge for a page: neither is answered where `burst` is less.
    pub evaluations: Rate,
    /// Requests for decisions under way at once; above it, the answer is 503 at once. They have places of their own, so
    /// that neither decisions nor attestation starve the other; most of them wait together for one write to the disk, in
    /// whose queue of 1,024 half of the places are kept for attestation and operators.
    pub max_evaluations: NonZeroU32,
    /// Batches of more than 64 KB on their way at once, 512 KB at most each, so that these take at most 32 MB.
    pub max_long_evaluations: NonZeroU32,
    /// Batches of more than 64 KB on their way at once from one client address (one /64 for IPv6): a quarter, so that a
    /// gateway that sends slowly, or a node that means no good, does not lock everybody else out.
    pub max_long_evaluations_per_address: NonZeroU32,
}

/// A rate per client address (one /64 for IPv6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests per minute, in the long run.
    pub per_minute: NonZeroU32,
    /// Requests at once, after a pause.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate. Zero counts as one.
    #[must_use]
    pub fn new(per_minute: u32, burst: u32) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self { per_minute: at_least_one(per_minute), burst: at_least_one(burst) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let count = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            max_connections: count(2048),
            max_connections_per_address: count(512),
            max_requests: count(256),
            max_long_bodies: count(16),
            max_long_bodies_per_address: count(4),
            max_bodies: count(4096),
            max_bodies_per_address: count(128),
            max_control_streams: count(10_000),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(10),
            long_body_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(30),
            connection_age: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(20),
            connections: Rate::new(1200, 600),
            enrollments: Rate::new(10, 20),
            attestations: Rate::new(300, 50),
            queries: Rate::new(600, 100),
            evaluations: Rate::new(3_000_000, 50_000),
            max_evaluations: count(256),
            max_long_evaluations: count(64),
            max_long_evaluations_per_address: count(16),
        }
    }
}

/// A limit that would let nobody in, or everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{key} must be between 1ms and 1day")]
pub struct LimitOutOfBounds {
    /// The key in `[limits]`.
    pub key: &'static str,
}

impl Limits {
    /// Refuses durations that switch a bound off.
    pub fn check(&self) -> Result<(), LimitOutOfBounds> {
        for (key, duration) in [
            ("handshake_timeout", self.handshake_timeout),
            ("header_timeout", self.header_timeout),
            ("idle_timeout", self.idle_timeout),
            ("body_timeout", self.body_timeout),
            ("long_body_timeout", self.long_body_timeout),
            ("request_timeout", self.request_timeout),
            ("connection_age", self.connection_age),
            ("drain_timeout", self.drain_timeout),
        ] {
            if !(Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(&duration) {
                return Err(LimitOutOfBounds { key });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_cannot_be_switched_off() {
        assert_eq!(Limits::default().check(), Ok(()));
        let off = Limits { handshake_timeout: Duration::ZERO, ..Limits::default() };
        assert_eq!(off.check(), Err(LimitOutOfBounds { key: "handshake_timeout" }));
        let forever = Limits { connection_age: Duration::MAX, ..Limits::default() };
        assert_eq!(forever.check(), Err(LimitOutOfBounds { key: "connection_age" }));
        assert!(toml::from_str::<Limits>("max_connections = 0").is_err());
        assert!(toml::from_str::<Limits>("enrollments = { per_minute = 0, burst = 1 }").is_err());
    }
}
