//! Nonces for DPoP proofs (RFC 9449, 8) that need no memory: a MAC over the time, by a key that lives as long as the process.
//!
//! A proof with such a nonce was made within the last two windows and since this process started. So what was seen before
//! needs to be remembered no longer than that ([`crate::replay`]), and nothing of it has to survive a restart.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::hmac;
use rootbound_common::secret::Secret;
use rootbound_common::tpm::HashAlgorithm;
use subtle::ConstantTimeEq;

use crate::base64url;

const DOMAIN: &[u8] = b"rootbound/v1/dpop-nonce\0";

/// Makes nonces, and knows its own.
#[derive(Debug)]
pub struct Nonces {
    key: Secret<32>,
}

/// The window of time that a nonce was made in. Of proofs with nonces of two windows neither outlives the later one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Window(pub(crate) i64);

impl Window {
    fn of(now: Timestamp) -> Self {
        let length = i64::try_from(Nonces::WINDOW.as_millis()).unwrap_or(i64::MAX);
        Self(now.as_millis().div_euclid(length))
    }
}

/// The nonce is none of those that are taken now: of another process, too old, or made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotOurs;

impl Nonces {
    /// Each nonce is taken in the window that it was made in and in the next: for one minute at least, two at most.
    pub const WINDOW: Duration = Duration::from_secs(60);
    /// Bytes of a nonce: half of a MAC, which nobody guesses within two minutes.
    const SIZE: usize = 16;

    /// By this key. Each process draws another, so that a nonce of before a restart is refused.
    #[must_use]
    pub const fn new(key: Secret<32>) -> Self {
        Self { key }
    }

    /// The nonce of this time, for `DPoP-Nonce`.
    #[must_use]
    pub fn issue(&self, now: Timestamp) -> String {
        base64url(&self.of(Window::of(now)))
    }

    /// The window that a nonce is of, if it is taken now.
    pub(crate) fn accept(&self, nonce: &str, now: Timestamp) -> Result<Window, NotOurs> {
        let now = Window::of(now);
        let windows = [now, Window(now.0.saturating_sub(1))];
        let is =
            |window: &Window| bool::from(base64url(&self.of(*window)).as_bytes().ct_eq(nonce.as_bytes()));
        windows.into_iter().find(is).ok_or(NotOurs)
    }

    fn of(&self, window: Window) -> [u8; Self::SIZE] {
        let mac = hmac(HashAlgorithm::Sha256, self.key.expose(), &[DOMAIN, &window.0.to_be_bytes()]);
        let mut nonce = [0; Self::SIZE];
        for (to, from) in nonce.iter_mut().zip(mac.as_bytes()) {
            *to = *from;
        }
        nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::random;

    #[test]
    fn a_nonce_is_taken_in_its_window_and_the_next_and_by_its_own_process() {
        let nonces = Nonces::new(Secret::generate(&mut random::system()));
        let at = |seconds: i64| Timestamp::from_millis(1_800_000_000_000 + seconds * 1000);
        let nonce = nonces.issue(at(0));
        assert_eq!(nonce.len(), 22);
        assert_eq!(nonces.issue(at(59)), nonce);
        let next = nonces.issue(at(60));
        assert_ne!(next, nonce);
        for seconds in [0, 59, 60, 119] {
            assert_eq!(nonces.accept(&nonce, at(seconds)), Ok(Window(30_000_000)), "{seconds}");
        }
        for seconds in [-1, -60, 120, 180, 6000] {
            assert_eq!(nonces.accept(&nonce, at(seconds)), Err(NotOurs), "{seconds}");
        }
        assert_eq!(nonces.accept(&next, at(61)), Ok(Window(30_000_001)));
        let restarted = Nonces::new(Secret::generate(&mut random::system()));
        assert_eq!(restarted.accept(&nonce, at(0)), Err(NotOurs));
        for not in ["", "A", &nonce[1..], &format!("{nonce}A"), &format!("{nonce}=")] {
            assert_eq!(nonces.accept(not, at(0)), Err(NotOurs), "{not}");
        }
    }

    #[test]
    fn the_ends_of_time_are_no_trouble() {
        let nonces = Nonces::new(Secret::generate(&mut random::system()));
        for millis in [i64::MIN, -1, 0, i64::MAX] {
            let now = Timestamp::from_millis(millis);
            assert!(nonces.accept(&nonces.issue(now), now).is_ok());
        }
    }
}
