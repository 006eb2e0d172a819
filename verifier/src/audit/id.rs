//! The name of a record: when it was made, and a number that nobody guesses.

use std::fmt;
use std::str::FromStr;

use rand_core::CryptoRng;
use rootbound_common::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// A text is no record id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record id is 32 lower-case hex digits")]
pub struct NotARecordId;

/// 48 bits of milliseconds since 1970, big endian, then 80 random bits; 32 hex digits.
///
/// The time lets a record be found without an index of ids. Records sort by it, to the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId([u8; 16]);

impl RecordId {
    /// A new one. Times before 1970 and after the year 10889 are taken as these.
    pub fn new(at: Timestamp, rng: &mut impl CryptoRng) -> Self {
        let mut random = [0; 10];
        rng.fill_bytes(&mut random);
        Self::of(at, random)
    }

    /// Of its parts.
    #[must_use]
    pub fn of(at: Timestamp, random: [u8; 10]) -> Self {
        const LAST: u64 = (1 << 48) - 1;
        let millis = u64::try_from(at.as_millis()).unwrap_or(0).min(LAST);
        let mut id = [0; 16];
        let (time, rest) = id.split_at_mut(6);
        if let Some(low) = millis.to_be_bytes().get(2..) {
            time.copy_from_slice(low);
        }
        rest.copy_from_slice(&random);
        Self(id)
    }

    /// When it was made, to the millisecond.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        let millis = self.0.iter().take(6).fold(0, |millis, byte| millis << 8 | i64::from(*byte));
        Timestamp::from_millis(millis)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({self})")
    }
}

impl FromStr for RecordId {
    type Err = NotARecordId;

    fn from_str(text: &str) -> Result<Self, NotARecordId> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| NotARecordId)?;
        bytes.try_into().map(Self).map_err(|_| NotARecordId)
    }
}

impl TryFrom<String> for RecordId {
    type Error = NotARecordId;

    fn try_from(text: String) -> Result<Self, NotARecordId> {
        text.parse()
    }
}

impl From<RecordId> for String {
    fn from(id: RecordId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::random;

    #[test]
    fn an_id_says_when_it_was_made() {
        for millis in [0, 1, 1_780_272_000_123, (1 << 48) - 1] {
            let at = Timestamp::from_millis(millis);
            let id = RecordId::new(at, &mut random::system());
            assert_eq!(id.at(), at);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        let beyond = RecordId::of(Timestamp::from_millis(i64::MAX), [7; 10]);
        assert_eq!(beyond.to_string(), "ffffffffffff07070707070707070707");
        assert_eq!(RecordId::of(Timestamp::from_millis(-5), [0; 10]).at(), Timestamp::from_millis(0));
    }

    #[test]
    fn ids_sort_by_time() {
        let at = |millis, random| RecordId::of(Timestamp::from_millis(millis), [random; 10]);
        assert!(at(1, 255) < at(2, 0) && at(255, 9) < at(256, 0));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "00", "g0000000000000000000000000000000", "0000000000000000000000000000000A"] {
            assert_eq!(text.parse::<RecordId>(), Err(NotARecordId), "{text}");
        }
    }
}
