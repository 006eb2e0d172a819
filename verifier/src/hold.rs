//! Holds: what an operator or a relying party says against a node, whatever its evidence shows, until it is lifted.
//!
//! A hold that has ended, by its own time or because it was lifted, gives nothing back by itself: the node has to show
//! evidence that is younger than that end ([`attested_after`]).

use std::fmt;
use std::str::FromStr;

use rand_core::CryptoRng;
use rootbound_common::clock::Timestamp;
use rootbound_common::text::only_shows;
use serde::{Deserialize, Serialize};

use crate::node::Name;

/// Names a hold: 16 random bytes, written in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HoldId([u8; 16]);

/// A text is no id of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of a hold is 32 lower-case hex digits")]
pub struct NotAHoldId;

impl HoldId {
    /// Draws an id.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HoldId({self})")
    }
}

impl FromStr for HoldId {
    type Err = NotAHoldId;

    fn from_str(text: &str) -> Result<Self, NotAHoldId> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| NotAHoldId)?;
        bytes.try_into().map(Self).map_err(|_| NotAHoldId)
    }
}

impl TryFrom<String> for HoldId {
    type Error = NotAHoldId;

    fn try_from(text: String) -> Result<Self, NotAHoldId> {
        text.parse()
    }
}

impl From<HoldId> for String {
    fn from(id: HoldId) -> Self {
        id.to_string()
    }
}

/// What a hold does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// The node is refused everything but to attest.
    Block,
    /// A node that would be affirming has a warning.
    Lower,
}

impl HoldKind {
    /// The word on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Lower => "lower",
        }
    }
}

/// Who holds a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// An operator: `uid 0`, as the kernel says.
    Operator(String),
    /// A relying party, by the name that the operator gave it.
    RelyingParty(Name),
}

impl HeldBy {
    /// Whether both count as one source: every operator may lift what another set, and a relying party what it set itself.
    #[must_use]
    pub fn is_same_source(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Operator(_), Self::Operator(_)) => true,
            (Self::RelyingParty(one), Self::RelyingParty(other)) => one == other,
            (Self::Operator(_), Self::RelyingParty(_)) | (Self::RelyingParty(_), Self::Operator(_)) => false,
        }
    }

    /// How many holds one source may have on one node: each is in memory, and read with its node.
    #[must_use]
    pub const fn most(&self) -> usize {
        match self {
            Self::Operator(_) => 16,
            Self::RelyingParty(_) => 8,
        }
    }
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(author) => write!(f, "operator {author}"),
            Self::RelyingParty(name) => write!(f, "relying party {name}"),
        }
    }
}

/// Why, in the words of who set or lifted a hold: at most [`Self::MAX`] characters that only show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HoldReason(String);

/// A text is no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a reason is at most {} characters, without line breaks and others that control or hide text",
    HoldReason::MAX
)]
pub struct NotAReason;

impl HoldReason {
    /// A sentence or two, and a link.
    pub const MAX: usize = 512;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HoldReason {
    type Error = NotAReason;

    fn try_from(text: String) -> Result<Self, NotAReason> {
        if text.chars().count() <= Self::MAX && text.chars().all(only_shows) {
            Ok(Self(text))
        } else {
            Err(NotAReason)
        }
    }
}

impl From<HoldReason> for String {
    fn from(reason: HoldReason) -> Self {
        reason.0
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hold that nobody has lifted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Names it.
    pub id: HoldId,
    /// What it does.
    pub kind: HoldKind,
    /// Who set it.
    pub by: HeldBy,
    /// Why.
    pub reason: HoldReason,
    /// Since when.
    pub since: Timestamp,
    /// From when on it counts no more; `None`: until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Hold {
    /// Whether it counts at a time.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// Evidence made at this time or before counts as stale: `since` is when it was demanded anew, by a release or otherwise,
/// and a hold that has ended since by its own time does the same.
#[must_use]
pub fn attested_after(since: Option<Timestamp>, holds: &[Hold], now: Timestamp) -> Option<Timestamp> {
    holds.iter().filter_map(|hold| hold.expires_at).filter(|end| *end <= now).fold(since, |latest, end| {
        // `None` is less than any time.
        latest.max(Some(end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::random;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn ids_and_reasons_have_a_form() {
        let id = HoldId::generate(&mut random::system());
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "00", &"0".repeat(31), &"A".repeat(32), &"0".repeat(33), &"g".repeat(32)] {
            assert_eq!(bad.parse::<HoldId>(), Err(NotAHoldId), "{bad}");
        }
        let reason = |text: &str| HoldReason::try_from(text.to_owned());
        assert!(reason("").is_ok() && reason(&"é".repeat(512)).is_ok());
        for bad in ["a\nb", "\u{1b}[0m", "\u{202e}", &"a".repeat(513)] {
            assert_eq!(reason(bad), Err(NotAReason), "{bad:?}");
        }
    }

    #[test]
    fn a_hold_ends_by_its_own_time_and_leaves_a_demand_for_younger_evidence() {
        let mut hold = Hold {
            id: HoldId([1; 16]),
            kind: HoldKind::Block,
            by: HeldBy::Operator("uid 0".to_owned()),
            reason: HoldReason(String::new()),
            since: NOW,
            expires_at: None,
        };
        assert!(hold.is_in_force(NOW.plus(1000 * MINUTE)));
        assert_eq!(attested_after(None, std::slice::from_ref(&hold), NOW.plus(1000 * MINUTE)), None);
        let end = NOW.plus(MINUTE);
        hold.expires_at = Some(end);
        assert!(hold.is_in_force(end.minus(Duration::from_millis(1))) && !hold.is_in_force(end));
        let after = |since, now| attested_after(since, std::slice::from_ref(&hold), now);
        assert_eq!(after(None, end.minus(Duration::from_millis(1))), None);
        assert_eq!(after(None, end), Some(end));
        assert_eq!(after(Some(NOW), end), Some(end));
        assert_eq!(after(Some(end.plus(MINUTE)), end), Some(end.plus(MINUTE)));
    }

    #[test]
    fn operators_are_one_source_and_each_relying_party_another() {
        let operator = |uid: &str| HeldBy::Operator(uid.to_owned());
        let party = |name: &str| HeldBy::RelyingParty(name.parse().unwrap());
        assert!(operator("uid 0").is_same_source(&operator("uid 7")));
        assert!(party("scanner").is_same_source(&party("scanner")));
        assert!(!party("scanner").is_same_source(&party("gateway")));
        assert!(!party("scanner").is_same_source(&operator("uid 0")));
        assert!(!operator("uid 0").is_same_source(&party("scanner")));
    }
}
