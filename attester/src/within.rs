//! Times that an operator sets, and that have to be within bounds.

use std::time::Duration;

use humantime_serde::re::humantime::format_duration;
use serde::{Deserialize, Deserializer};

/// A time of `LEAST` to `MOST` seconds, `USUAL` where nothing is said; as text `15s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within<const LEAST: u64, const MOST: u64, const USUAL: u64>(Duration);

impl<const LEAST: u64, const MOST: u64, const USUAL: u64> Within<LEAST, MOST, USUAL> {
    const RANGE: (Duration, Duration) = (Duration::from_secs(LEAST), Duration::from_secs(MOST));

    /// A time within the range.
    #[must_use]
    pub fn new(duration: Duration) -> Option<Self> {
        let (least, most) = Self::RANGE;
        (least..=most).contains(&duration).then_some(Self(duration))
    }

    /// The time.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl<const LEAST: u64, const MOST: u64, const USUAL: u64> Default for Within<LEAST, MOST, USUAL> {
    fn default() -> Self {
        Self(Duration::from_secs(USUAL))
    }
}

impl<'de, const LEAST: u64, const MOST: u64, const USUAL: u64> Deserialize<'de>
    for Within<LEAST, MOST, USUAL>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let duration = humantime_serde::deserialize(deserializer)?;
        Self::new(duration).ok_or_else(|| {
            let (least, most) = Self::RANGE;
            serde::de::Error::custom(format_args!(
                "must be from {} to {}",
                format_duration(least),
                format_duration(most)
            ))
        })
    }
}
