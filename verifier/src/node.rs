//! Nodes: what the verifier holds of a machine.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::ClockState;
use serde::{Deserialize, Serialize};

use crate::enrollment::{AttestationKey, EndorsedKey};
use crate::hold::Hold;

/// Why a text is no label or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a name.
    #[error(
        "a name is 1 to 63 characters of a-z, A-Z, 0-9, '.', '_', '/' and '-', and begins with a letter or digit"
    )]
    Name,
    /// A node has too many labels.
    #[error("a node has at most {} labels", Labels::MAX)]
    TooManyLabels,
    /// Not of the form `key=value`.
    #[error("a label is written key=value")]
    NotALabel,
}

/// The name of a profile or reference set, or the key or value of a label: 1 to 63 characters that need no escape in
/// a log line, a URL path segment after encoding, or a shell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// `default`: the reference set that the initial profile names.
    #[must_use]
    pub fn default_set() -> Self {
        Self("default".to_owned())
    }

    /// `builtin`: the policies that are in the program.
    #[must_use]
    pub fn builtin() -> Self {
        Self("builtin".to_owned())
    }

    /// `deny`: the deny list; no set is called so.
    #[must_use]
    pub fn deny_list() -> Self {
        Self("deny".to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first && text.len() <= 63 && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Name)
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an operator says of a node: `env=prod`, `rack=b7`. Never set by the node itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<Name, Name>", into = "BTreeMap<Name, Name>")]
pub struct Labels(BTreeMap<Name, Name>);

impl Labels {
    /// Labels of one node: enough for people, few enough to compare on each appraisal.
    pub const MAX: usize = 32;

    /// Sets a label, or takes it away.
    pub fn set(&mut self, key: Name, value: Option<Name>) -> Result<(), NameError> {
        match value {
            Some(value) => {
                if self.0.len() >= Self::MAX && !self.0.contains_key(&key) {
                    return Err(NameError::TooManyLabels);
                }
                self.0.insert(key, value);
            }
            None => {
                self.0.remove(&key);
            }
        }
        Ok(())
    }

    /// Whether each of these labels is one of `other`, with the same value.
    #[must_use]
    pub fn all_in(&self, other: &Self) -> bool {
        self.0.iter().all(|(key, value)| other.0.get(key) == Some(value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each label, by rising key.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.0.iter()
    }
}

impl TryFrom<BTreeMap<Name, Name>> for Labels {
    type Error = NameError;

    fn try_from(labels: BTreeMap<Name, Name>) -> Result<Self, NameError> {
        if labels.len() > Self::MAX { Err(NameError::TooManyLabels) } else { Ok(Self(labels)) }
    }
}

impl From<Labels> for BTreeMap<Name, Name> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

/// How a machine came to be one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdmittedBy {
    /// Its EK was listed beforehand.
    Inventory,
    /// It held a join token.
    JoinToken,
    /// An operator said so.
    Approval,
}

/// Who vouches for a node's EK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndorsedBy {
    /// The TPM's manufacturer, by a certificate chain.
    Manufacturer,
    /// The operator, who listed this very key. What made it is not known.
    Operator,
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Standing {
    /// Its TPM is genuine, but nobody has said that the machine is ours.
    Pending,
    /// It may attest.
    Admitted {
        /// By which of the three ways.
        by: AdmittedBy,
    },
    /// It is ours no longer; its EK is refused for good.
    Retired,
}

/// The node's clock at its last accepted quote; the next may not be before it.
///
/// It belongs to the TPM and outlives its AKs: who enrols a copied TPM under a new AK does not start afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastSeen {
    /// The TPM's clock and counters.
    pub clock: ClockState,
    /// The TPM's firmware version.
    pub firmware_version: u64,
    /// When the quote was made, at the earliest, by the verifier's clock.
    pub made_at: Timestamp,
}

/// A node as the store has it.
#[derive(Debug, Clone)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// Its EK, and who vouches for it.
    pub endorsed_key: EndorsedKey,
    /// Where it is in its life.
    pub standing: Standing,
    /// What operators say of it.
    pub labels: Labels,
    /// The AK that is enrolled now.
    pub attestation_key: AttestationKey,
    /// Counts changes of standing, labels, AK and holds, and accepted evidence: a write on top of an older revision fails,
    /// so that nothing is decided on a node that has changed meanwhile.
    pub revision: u64,
    /// As [`LiveNode::epoch`](crate::posture::LiveNode::epoch).
    pub epoch: u64,
    /// What an operator or a relying party holds against it.
    pub holds: Vec<Hold>,
    /// Evidence made then or before counts as stale.
    pub attested_after: Option<Timestamp>,
    /// The last accepted quote of this TPM; `None` where there never was one.
    pub last_seen: Option<LastSeen>,
    /// When it enrolled first.
    pub enrolled_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_tricks_are_refused() {
        for good in ["a", "prod", "rack/b7", "x.y_z-1", "9"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "/a", "a b", "a\n", "a=b", "é", "a\u{1b}[0m", &"a".repeat(64)] {
            assert_eq!(bad.parse::<Name>(), Err(NameError::Name), "{bad:?}");
        }
    }

    #[test]
    fn labels_are_bounded() {
        let mut labels = Labels::default();
        for index in 0..Labels::MAX {
            labels.set(format!("k{index}").parse().unwrap(), Some("v".parse().unwrap())).unwrap();
        }
        let one_more = labels.set("more".parse().unwrap(), Some("v".parse().unwrap()));
        assert_eq!(one_more, Err(NameError::TooManyLabels));
        assert_eq!(labels.set("k0".parse().unwrap(), Some("w".parse().unwrap())), Ok(()));
        assert_eq!(labels.set("k1".parse().unwrap(), None), Ok(()));
        assert_eq!(labels.len(), Labels::MAX - 1);
    }
}
