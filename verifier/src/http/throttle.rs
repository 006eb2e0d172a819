//! A rate per client address, in bounded memory.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
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
    /// Decisions, for callers that show a certificate; others count as [`Self::Query`].
    Evaluation,
    /// As [`Self::Query`], without a place among the requests under way: it may last.
    Stream,
}

/// Counts requests, and decisions.
pub(super) struct Throttle {
    clock: DefaultClock,
    connections: Counters,
    enrollments: Counters,
    attestations: Counters,
    queries: Counters,
    evaluations: Counters,
}

/// One rate, of each client or, where there are too many, of each network.
struct Counters {
    clients: DefaultKeyedRateLimiter<ClientKey>,
    networks: DefaultKeyedRateLimiter<ClientKey>,
}

/// Clients that are told apart: about 100 bytes each. Beyond them networks are, so that whoever makes up addresses fills
/// no memory, and slows down only those in the same network: a /48, which anybody can have, is 65,536 clients.
const MAX_CLIENTS: usize = 65_536;
/// Networks that are told apart: every IPv4 /16, or as many IPv6 /32s, which nobody has. Beyond them, all count as one.
const MAX_NETWORKS: usize = 65_536;
/// A network has the rate of so many clients: with the default rates, a fleet of 19,000 nodes in one private network
/// goes on, and a network full of strangers has a thousandth of what its addresses would have.
const CLIENTS_PER_NETWORK: u32 = 64;

impl Throttle {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            clock: DefaultClock::default(),
            connections: Counters::new(limits.connections),
            enrollments: Counters::new(limits.enrollments),
            attestations: Counters::new(limits.attestations),
            queries: Counters::new(limits.queries),
            evaluations: Counters::new(limits.evaluations),
        }
    }

    /// Counts a request, unless there were too many.
    pub(super) fn count(&self, class: RateClass, address: IpAddr) -> Result<(), EdgeRefusal> {
        self.count_all(class, address, NonZeroU32::MIN)
    }

    /// Counts so many at once, or none of them where they would be too many.
    pub(super) fn count_all(
        &self,
        class: RateClass,
        address: IpAddr,
        number: NonZeroU32,
    ) -> Result<(), EdgeRefusal> {
        let counters = match class {
            RateClass::Free => return Ok(()),
            RateClass::Connection => &self.connections,
            RateClass::Enrollment => &self.enrollments,
            RateClass::Attestation => &self.attestations,
            RateClass::Query | RateClass::Stream => &self.queries,
            RateClass::Evaluation => &self.evaluations,
        };
        let counted = counters.count(address, number, &self.clock);
        counted.map_err(|retry_after| EdgeRefusal::RateLimited { retry_after })
    }

    /// Forgets clients that have not been here for as long as it takes to be as good as new.
    pub(super) fn forget(&self) {
        for Counters { clients, networks } in
            [&self.connections, &self.enrollments, &self.attestations, &self.queries, &self.evaluations]
        {
            for limiter in [clients, networks] {
                limiter.retain_recent();
                limiter.shrink_to_fit();
            }
        }
    }

    /// How often [`Self::forget`] is worth its scan.
    pub(super) const FORGET_EVERY: Duration = Duration::from_secs(60);
}

/// After how long to come again with more at once than the burst: at no time is there room for it.
const NO_USE: Duration = Duration::from_secs(3600);

impl Counters {
    fn new(rate: Rate) -> Self {
        let limiter =
            |rate: Rate| RateLimiter::keyed(Quota::per_minute(rate.per_minute).allow_burst(rate.burst));
        let times = |number: NonZeroU32| number.get().saturating_mul(CLIENTS_PER_NETWORK);
        let of_networks = Rate::new(times(rate.per_minute), times(rate.burst));
        Self { clients: limiter(rate), networks: limiter(of_networks) }
    }

    /// Counts so many, or says after how long there is room for them.
    fn count(&self, address: IpAddr, number: NonZeroU32, clock: &DefaultClock) -> Result<(), Duration> {
        let (limiter, key) = if self.clients.len() < MAX_CLIENTS {
            (&self.clients, ClientKey::of(address))
        } else if self.networks.len() < MAX_NETWORKS {
            (&self.networks, ClientKey::network_of(address))
        } else {
            (&self.networks, ClientKey::EVERYBODY)
        };
        match limiter.check_key_n(&key, number) {
            Ok(counted) => counted.map_err(|refused| refused.wait_time_from(clock.now())),
            Err(_more_than_the_burst) => Err(NO_USE),
        }
    }
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
    fn many_at_once_count_as_many_or_not_at_all() {
        let throttle = Throttle::new(&Limits { evaluations: Rate::new(1, 10), ..Limits::default() });
        let address = "192.0.2.1".parse().unwrap();
        let count = |number| {
            let number = NonZeroU32::new(number).unwrap();
            throttle.count_all(RateClass::Evaluation, address, number)
        };
        assert_eq!(count(11), Err(EdgeRefusal::RateLimited { retry_after: NO_USE }), "more than the burst");
        assert_eq!(count(8), Ok(()));
        assert!(matches!(count(3), Err(EdgeRefusal::RateLimited { .. })));
        assert_eq!(count(2), Ok(()), "what was refused did not count");
        assert!(matches!(count(1), Err(EdgeRefusal::RateLimited { .. })));
    }

    /// The clients of a /48, each of which asks once.
    fn of_one_48(index: usize) -> IpAddr {
        let network = u16::try_from(index).unwrap();
        std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, network, 0, 0, 0, 1).into()
    }

    #[test]
    fn whoever_makes_up_addresses_slows_down_nobody_elsewhere() {
        let throttle = Throttle::new(&Limits { attestations: Rate::new(1, 2), ..Limits::default() });
        let count = |address| throttle.count(RateClass::Attestation, address);
        let known = "192.0.2.1".parse().unwrap();
        assert_eq!(count(known), Ok(()));
        for index in 0..MAX_CLIENTS {
            let _ = count(of_one_48(index));
        }
        let stranger = of_one_48(7);
        let allowed = (0..1000).take_while(|_| count(stranger).is_ok()).count();
        assert!((127..=130).contains(&allowed), "the network's rate, not that of its clients: {allowed}");
        assert_eq!(count(known), Ok(()));
        for elsewhere in ["198.51.100.1", "2001:db9::1"] {
            assert_eq!(count(elsewhere.parse().unwrap()), Ok(()), "{elsewhere}");
        }
    }

    #[test]
    fn made_up_addresses_fill_no_memory() {
        let throttle = Throttle::new(&Limits::default());
        for index in 0..u32::try_from(MAX_CLIENTS + MAX_NETWORKS).unwrap() + 1000 {
            let address = std::net::Ipv6Addr::from_bits(u128::from(index) << 96);
            let _ = throttle.count(RateClass::Enrollment, address.into());
        }
        let Counters { clients, networks } = &throttle.enrollments;
        assert_eq!(clients.len(), MAX_CLIENTS);
        assert!((MAX_NETWORKS..=MAX_NETWORKS + 1).contains(&networks.len()), "{}", networks.len());
    }
}
