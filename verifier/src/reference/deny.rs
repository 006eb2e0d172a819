//! The deny list: what no set and no profile makes acceptable, on any node.

use std::collections::BTreeMap;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::{Digest, TaggedDigest};
use rootbound_common::text::only_shows;
use rootbound_common::tpm::HashAlgorithm;
use serde::{Deserialize, Serialize};

use super::{Name, Versioned};

/// What is denied by an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeniedAs {
    /// The digest itself, wherever it is: of a file or a buffer in an IMA list (content or fs-verity), of an event of the boot
    /// (of an image its Authenticode digest), or a PCR value.
    Digest,
    /// A dbx without this image: SHA-256 of its Authenticode digest.
    DbxImage,
    /// A dbx without this certificate: SHA-256 of its DER.
    DbxCertificate,
}

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyEntry {
    /// What is denied.
    pub what: DeniedAs,
    /// By which digest.
    pub digest: TaggedDigest,
    /// What it is, in a few words: `CVE-2023-40547`.
    pub label: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who put it there.
    pub author: String,
    /// When.
    pub at: Timestamp,
}

/// Why entries are no deny list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DenyError {
    /// Too many.
    #[error("the deny list has at most {} entries", DenyList::MAX)]
    TooMany,
    /// Nobody could tell what an entry is for.
    #[error("label: 1 to {} characters that only show", DenyList::MAX_LABEL)]
    Label,
    /// A dbx has no such entries.
    #[error("an entry of a dbx is named by a SHA-256 digest, not by {0}")]
    DbxDigest(TaggedDigest),
    /// It is there already.
    #[error("{0} is denied already")]
    Already(TaggedDigest),
}

/// One version of the list. Version 0 is the empty one that nobody wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DenyList {
    version: u32,
    entries: Vec<DenyEntry>,
    by_digest: BTreeMap<Digest, usize>,
}

impl DenyList {
    /// Entries: each is looked at for each node. A distribution's revocations of a decade are some hundreds.
    pub const MAX: usize = 4096;
    /// Characters of a label: they are in each deviation.
    pub const MAX_LABEL: usize = 100;

    /// Checks and takes entries.
    pub fn new(version: u32, entries: Vec<DenyEntry>) -> Result<Self, DenyError> {
        if entries.len() > Self::MAX {
            return Err(DenyError::TooMany);
        }
        let (mut seen, mut by_digest) = (std::collections::BTreeSet::new(), BTreeMap::new());
        for (position, entry) in entries.iter().enumerate() {
            let label = entry.label.chars();
            if entry.label.is_empty()
                || label.clone().count() > Self::MAX_LABEL
                || !label.clone().all(only_shows)
            {
                return Err(DenyError::Label);
            }
            if entry.what != DeniedAs::Digest && entry.digest.0.algorithm() != HashAlgorithm::Sha256 {
                return Err(DenyError::DbxDigest(entry.digest));
            }
            if !seen.insert((entry.what, entry.digest)) {
                return Err(DenyError::Already(entry.digest));
            }
            if entry.what == DeniedAs::Digest {
                by_digest.insert(entry.digest.0, position);
            }
        }
        Ok(Self { version, entries, by_digest })
    }

    /// Its version; an appraisal names it as `deny@VERSION`.
    #[must_use]
    pub fn id(&self) -> Versioned {
        Versioned { name: Name::deny_list(), version: self.version }
    }

    /// 0: nobody wrote one yet.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The entries, in the order in which they were added.
    #[must_use]
    pub fn entries(&self) -> &[DenyEntry] {
        &self.entries
    }

    /// Whether it denies nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// By what a digest is denied, in words: `CVE-2023-40547 (deny@3)`.
    #[must_use]
    pub fn denies(&self, digest: &Digest) -> Option<String> {
        let entry = self.entries.get(*self.by_digest.get(digest)?)?;
        Some(self.words(entry))
    }

    /// The digests that are denied wherever they are.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.by_digest.keys()
    }

    /// What a dbx has to hold: whether it is a certificate, its SHA-256, and the entry in words.
    pub fn of_dbx(&self) -> impl Iterator<Item = (bool, Digest, String)> {
        let of_dbx = self.entries.iter().filter(|entry| entry.what != DeniedAs::Digest);
        of_dbx.map(|entry| (entry.what == DeniedAs::DbxCertificate, entry.digest.0, self.words(entry)))
    }

    fn words(&self, entry: &DenyEntry) -> String {
        format!("{} ({})", entry.label, self.id())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rootbound_common::crypto::hash;

    pub(crate) fn entry(what: DeniedAs, digest: Digest, label: &str) -> DenyEntry {
        DenyEntry {
            what,
            digest: TaggedDigest(digest),
            label: label.into(),
            reason: "known to be vulnerable".into(),
            author: "uid 0".into(),
            at: Timestamp::from_millis(0),
        }
    }

    fn of(text: &str) -> Digest {
        hash(HashAlgorithm::Sha256, &[text.as_bytes()])
    }

    #[test]
    fn denial_names_label_and_version() {
        let list = DenyList::new(
            3,
            vec![
                entry(DeniedAs::Digest, of("shim"), "CVE-2023-40547"),
                entry(DeniedAs::DbxImage, of("shim"), "BootHole"),
            ],
        )
        .unwrap();
        assert_eq!(list.denies(&of("shim")).as_deref(), Some("CVE-2023-40547 (deny@3)"));
        assert_eq!(list.denies(&of("other")), None);
        assert_eq!(list.of_dbx().collect::<Vec<_>>(), [(false, of("shim"), "BootHole (deny@3)".to_owned())]);
    }

    #[test]
    fn each_way_to_be_no_list_is_named() {
        let digest = |n: usize| of(&n.to_string());
        let many = (0..=4096).map(|n| entry(DeniedAs::Digest, digest(n), "x")).collect();
        assert_eq!(DenyList::new(1, many), Err(DenyError::TooMany));
        for label in ["", "a\nb", &"x".repeat(101)] {
            let entries = vec![entry(DeniedAs::Digest, of("a"), label)];
            assert_eq!(DenyList::new(1, entries), Err(DenyError::Label), "{label:?}");
        }
        let long = hash(HashAlgorithm::Sha384, &[b"a"]);
        let entries = vec![entry(DeniedAs::DbxCertificate, long, "x")];
        assert_eq!(DenyList::new(1, entries), Err(DenyError::DbxDigest(TaggedDigest(long))));
        let twice = vec![entry(DeniedAs::Digest, of("a"), "x"), entry(DeniedAs::Digest, of("a"), "y")];
        assert_eq!(DenyList::new(1, twice), Err(DenyError::Already(TaggedDigest(of("a")))));
    }
}
