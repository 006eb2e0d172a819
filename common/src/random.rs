//! Randomness as an argument: functions take `&mut impl CryptoRng`; this is where the edge gets it.

use getrandom::SysRng;
use rand_core::{CryptoRng, UnwrapErr};

/// The operating system's generator. It does not fail after boot; where it does, the process must not go on.
#[must_use]
pub fn system() -> impl CryptoRng + Send {
    UnwrapErr(SysRng)
}
