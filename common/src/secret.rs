//! Bytes that must not be printed, compared in variable time, or left in memory.

use std::fmt;

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes: no `Display`, a redacted `Debug`, comparison in constant time, wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Draws a secret.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; N];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// A secret that is known already.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes: the caller now looks after them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Whether `claimed` is the secret, in time that depends on neither.
    #[must_use]
    pub fn matches(&self, claimed: &[u8]) -> bool {
        self.0.ct_eq(claimed).into()
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({N} bytes)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_matches_itself_only_and_does_not_print() {
        let secret = Secret::from_bytes(*b"swordfish");
        assert!(secret.matches(b"swordfish"));
        assert!(!secret.matches(b"swordfisH"));
        assert!(!secret.matches(b"swordfish "));
        assert_eq!(format!("{secret:?}"), "Secret(9 bytes)");
    }
}
