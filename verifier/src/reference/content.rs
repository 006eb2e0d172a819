//! Values of a set, of whatever kind: what two have in common, and what they are together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use rootbound_compute::values::BootValue;
use serde::{Deserialize, Serialize};

use super::boot_set::{key, source_words};
use super::{AcceptedPcrs, BootSet, BootSetError, ReferenceError};
use crate::appraisal::runtime::{DigestSet, DigestSetError, SOURCE};

/// What sort of values a set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetKind {
    /// PCR values.
    Pcrs,
    /// Values of boots.
    Boot,
    /// Digests of what runs.
    Digests,
}

impl SetKind {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Pcrs, Self::Boot, Self::Digests];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pcrs => "pcrs",
            Self::Boot => "boot",
            Self::Digests => "digests",
        }
    }

    /// What a set of it is called, in words.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Pcrs => "reference set",
            Self::Boot => "boot set",
            Self::Digests => "digest set",
        }
    }

    /// The same in the audit trail.
    #[must_use]
    pub const fn entity(self) -> &'static str {
        match self {
            Self::Pcrs => "reference_set",
            Self::Boot => "boot_set",
            Self::Digests => "digest_set",
        }
    }
}

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The values of a set, of whatever kind.
#[derive(Debug, Clone)]
pub enum SetContent {
    /// PCR values.
    Pcrs(AcceptedPcrs),
    /// Values of boots.
    Boot(BootSet),
    /// Digests, with the text that they were parsed from.
    Digests(Arc<DigestSet>, Vec<u8>),
}

/// Why values are no set, or not one together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// They are of different kinds.
    #[error("{0} and {1} are sets of different kinds")]
    Kinds(SetKind, SetKind),
    /// PCR values.
    #[error(transparent)]
    Pcrs(#[from] ReferenceError),
    /// Values of boots.
    #[error(transparent)]
    Boot(#[from] BootSetError),
    /// Digests.
    #[error(transparent)]
    Digests(#[from] DigestSetError),
}

/// On which side a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Only in the first.
    Removed,
    /// Only in the second.
    Added,
}

/// A value that only one of two versions has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Which of them.
    pub side: Side,
    /// The value.
    pub value: String,
    /// Its label and where it comes from, as far as that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// What two contents do not share, and how much of it there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differences {
    /// Values that only the first has.
    pub removed: u64,
    /// Values that only the second has.
    pub added: u64,
    /// Values that both have.
    pub shared: u64,
    /// The first of the differences: what is removed, then what is added, by value.
    pub first: Vec<Difference>,
}

impl SetContent {
    /// Parses the text of a digest set.
    pub fn digests(text: Vec<u8>) -> Result<Self, DigestSetError> {
        Ok(Self::Digests(Arc::new(DigestSet::parse(&text)?), text))
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> SetKind {
        match self {
            Self::Pcrs(_) => SetKind::Pcrs,
            Self::Boot(_) => SetKind::Boot,
            Self::Digests(..) => SetKind::Digests,
        }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Pcrs(accepted) => accepted.iter().count(),
            Self::Boot(set) => set.values().values.len(),
            Self::Digests(digests, _) => digests.len(),
        }
    }

    /// Never: a set without values is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What either has, of one kind. Each digest keeps the source that its text names; the first, where both do.
    pub fn union(&self, other: &Self) -> Result<Self, ContentError> {
        match (self, other) {
            (Self::Pcrs(one), Self::Pcrs(other)) => {
                let values = one.iter_with_source().chain(other.iter_with_source());
                let values = values.map(|(_, pcr, value, source)| (pcr, *value, source.clone()));
                Ok(Self::Pcrs(AcceptedPcrs::with_sources(values)?))
            }
            (Self::Boot(one), Self::Boot(other)) => Ok(Self::Boot(one.union(other)?)),
            (Self::Digests(_, one), Self::Digests(_, other)) => {
                let mut by_source: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
                let mut seen = BTreeSet::new();
                for (source, line) in lines(one).chain(lines(other)) {
                    if seen.insert(line) {
                        by_source.entry(source).or_default().push(line);
                    }
                }
                let mut text = Vec::with_capacity(one.len().saturating_add(other.len()));
                // Without a source, which is an empty one, come first: no line says that it is of none.
                for (source, lines) in by_source {
                    let source = Some(source).filter(|source| !source.is_empty());
                    for line in source.into_iter().chain(lines) {
                        text.extend_from_slice(line);
                        text.push(b'\n');
                    }
                }
                Ok(Self::digests(text)?)
            }
            (one, other) => Err(ContentError::Kinds(one.kind(), other.kind())),
        }
    }

    /// What this has and another has not, and the other way round; `limit` of them at most are told.
    pub fn differences(&self, other: &Self, limit: usize) -> Result<Differences, ContentError> {
        if self.kind() != other.kind() {
            return Err(ContentError::Kinds(self.kind(), other.kind()));
        }
        let (before, after) = (self.values(), other.values());
        let of = |side, (value, source): (&String, &String)| Difference {
            side,
            value: value.clone(),
            source: source.clone(),
        };
        let removed = before.iter().filter(|(value, _)| !after.contains_key(*value));
        let added = after.iter().filter(|(value, _)| !before.contains_key(*value));
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (gone, new) = (count(removed.clone().count()), count(added.clone().count()));
        let all = removed.map(|one| of(Side::Removed, one)).chain(added.map(|one| of(Side::Added, one)));
        Ok(Differences {
            removed: gone,
            added: new,
            shared: count(before.len()).saturating_sub(gone),
            first: all.take(limit).collect(),
        })
    }

    /// Every value with what is known of it, by value.
    fn values(&self) -> BTreeMap<String, String> {
        match self {
            Self::Pcrs(accepted) => {
                let values = accepted.iter_with_source();
                let words = |(bank, pcr, value, source): (_, _, _, &_)| {
                    (format!("PCR {pcr} {bank}:{value}"), source_words(source))
                };
                values.map(words).collect()
            }
            Self::Boot(set) => {
                let known = |value: &BootValue| {
                    let words = [value.label.clone(), source_words(&value.source)];
                    words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(", ")
                };
                set.values().values.iter().map(|value| (key(&value.measured), known(value))).collect()
            }
            Self::Digests(_, text) => {
                let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let source = |line: &[u8]| {
                    words(line.strip_prefix(SOURCE.as_bytes()).unwrap_or_default().trim_ascii())
                };
                lines(text).map(|(from, line)| (words(line), source(from))).collect()
            }
        }
    }
}

/// The lines of a digest set that say something, each with the line that names its source; an empty one where none does.
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut source: &[u8] = b"";
    text.split(|byte| *byte == b'\n').filter_map(move |line| match line.first() {
        Some(b'#') if line.starts_with(SOURCE.as_bytes()) => {
            source = line;
            None
        }
        Some(b'#') | None => None,
        Some(_) => Some((source, line)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(text: &str) -> SetContent {
        SetContent::digests(text.as_bytes().to_vec()).unwrap()
    }

    fn line(digit: &str, path: &str) -> String {
        format!("sha256:{}  {path}\n", digit.repeat(64))
    }

    #[test]
    fn digests_of_two_texts_keep_where_they_come_from() {
        let (a, b, c) = (line("a", "/bin/a"), line("b", "/bin/b"), line("c", "/bin/c"));
        let old = digests(&format!("{a}# a remark\n{SOURCE} package one 1\n{b}"));
        let new = digests(&format!("{SOURCE} package two 2\n{b}{c}"));
        let SetContent::Digests(both, text) = old.union(&new).unwrap() else { panic!("digests") };
        let expected = format!("{a}{SOURCE} package one 1\n{b}{SOURCE} package two 2\n{c}");
        assert_eq!((both.len(), String::from_utf8(text).unwrap()), (3, expected));
        let found = old.differences(&new, 9).unwrap();
        assert_eq!((found.removed, found.added, found.shared), (1, 1, 1));
        let told: Vec<_> = found.first.iter().map(|one| (one.side, one.source.as_str())).collect();
        assert_eq!(told, [(Side::Removed, ""), (Side::Added, "package two 2")]);
        assert_eq!(old.differences(&new, 1).unwrap().first.len(), 1);
    }

    #[test]
    fn values_of_different_kinds_are_neither_compared_nor_one_set() {
        let pcr = rootbound_common::tpm::PcrIndex::new(0).unwrap();
        let value = rootbound_common::crypto::hash(rootbound_common::tpm::HashAlgorithm::Sha256, &[b"x"]);
        let (one, other) =
            (digests(&line("a", "*")), SetContent::Pcrs(AcceptedPcrs::new([(pcr, value)]).unwrap()));
        let kinds = ContentError::Kinds(SetKind::Digests, SetKind::Pcrs);
        assert_eq!(one.union(&other).unwrap_err(), kinds);
        assert_eq!(one.differences(&other, 9).unwrap_err(), kinds);
    }
}
