//! A rate per client address, in bounded memory.

use std::net::IpAddr;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::client::ClientKey;
use super::limits::{Limits, Rate};
use super::problem::EdgeRefusal;

/// Which of the rates a request counts towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RateClass {
    /// None, and it needs no place among those under way either: answering costs less than counting.
    Free,
    /// Connections, before the handshake.
    Connection,
    /// Enrolment.
    Enrollment,
    /// Challenges and evidence.
    Attestation,
    /// Everything else.
    Query,
}

/// Counts requests.
pub(super) struct Throttle {
    clock: DefaultClock,
    connections: DefaultKeyedRateLimiter<ClientKey>,
    enrollments: DefaultKeyedRateLimiter<ClientKey>,
    attestations: DefaultKeyedRateLimiter<ClientKey>,
    queries: DefaultKeyedRateLimiter<ClientKey>,
}

/// Clients that are told apart: about 100 bytes each. Beyond them, all others count as one, so that whoever makes up
/// addresses fills no memory and, for as long as it lasts, only slows down those who are new.
const MAX_CLIENTS: usize = 65_536;

impl Throttle {
    pub(super) fn new(limits: &Limits) -> Self {
        let limiter =
            |rate: Rate| RateLimiter::keyed(Quota::per_minute(rate.per_minute).allow_burst(rate.burst));
        Self {
            clock: DefaultClock::default(),
            connections: limiter(limits.connections),
            enrollments: limiter(limits.enrollments),
            attestations: limiter(limits.attestations),
            queries: limiter(limits.queries),
        }
    }

    /// Counts a request, unless there were too many.
    pub(super) fn count(&self, class: RateClass, address: IpAddr) -> Result<(), EdgeRefusal> {
        let limiter = match class {
            RateClass::Free => return Ok(()),
            RateClass::Connection => &self.connections,
            RateClass::Enrollment => &self.enrollments,
            RateClass::Attestation => &self.attestations,
            RateClass::Query => &self.queries,
        };
        let client = if limiter.len() < MAX_CLIENTS { ClientKey::of(address) } else { ClientKey::OVERFLOW };
        limiter.check_key(&client).map_err(|refused| {
            let retry_after = refused.wait_time_from(self.clock.now());
            EdgeRefusal::RateLimited { retry_after }
        })
    }

    /// Forgets clients that have not been here for as long as it takes to be as good as new.
    pub(super) fn forget(&self) {
        for limiter in [&self.connections, &self.enrollments, &self.attestations, &self.queries] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    /// How often [`Self::forget`] is worth its scan.
    pub(super) const FORGET_EVERY: Duration = Duration::from_secs(60);
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Throttle").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_classes_are_counted_apart() {
        let limits =
            Limits { enrollments: Rate::new(1, 2), attestations: Rate::new(1, 1), ..Limits::default() };
        let throttle = Throttle::new(&limits);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..2 {
            assert_eq!(throttle.count(RateClass::Enrollment, one), Ok(()));
        }
        let Err(EdgeRefusal::RateLimited { retry_after }) = throttle.count(RateClass::Enrollment, one) else {
            panic!("a third request went through")
        };
        assert!(retry_after > Duration::from_secs(50) && retry_after <= Duration::from_secs(60));
        assert_eq!(throttle.count(RateClass::Attestation, one), Ok(()));
        assert_eq!(throttle.count(RateClass::Enrollment, other), Ok(()));
        for _ in 0..1000 {
            assert_eq!(throttle.count(RateClass::Free, one), Ok(()));
        }
    }

    #[test]
    fn made_up_addresses_fill_no_memory() {
        let throttle = Throttle::new(&Limits::default());
        for index in 0..u32::try_from(MAX_CLIENTS).unwrap() + 1000 {
            let _ = throttle.count(RateClass::Enrollment, std::net::Ipv4Addr::from_bits(index).into());
        }
        assert!(throttle.enrollments.len() <= MAX_CLIENTS + 1);
    }
}
