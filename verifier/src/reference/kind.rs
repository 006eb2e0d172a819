//! Sorts of values.

use std::fmt;

use serde::{Deserialize, Serialize};

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
