//! Rules and their sets, ready for use.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use rootbound_common::crypto::{Digest, Hasher};
use rootbound_common::tpm::HashAlgorithm;

use super::key::FileKey;
use super::path::PathRules;
use super::table::Found;
use super::{DigestSet, ListedDigest, RuntimeRules, RuntimeRulesError};
use crate::evidence::ima::FileDigest;
use crate::node::Name;

/// Rules with the sets that they name. Made once for each change of either, and shared by every node.
#[derive(Debug)]
pub struct CompiledRules {
    pub(super) rules: RuntimeRules,
    pub(super) sets: Vec<Arc<DigestSet>>,
    pub(super) exclude: PathRules,
    pub(super) tolerate_violations: PathRules,
    pub(super) policy_paths: PathRules,
    pub(super) policies: DigestSet,
    pub(super) keys: Vec<FileKey>,
    pub(super) deny: DigestSet,
    id: String,
}

impl CompiledRules {
    /// Checks and compiles rules; `set` finds a digest set by name. One that does not exist accepts nothing.
    pub fn new(
        rules: RuntimeRules,
        set: impl Fn(&Name) -> Option<Arc<DigestSet>>,
    ) -> Result<Self, RuntimeRulesError> {
        rules.check()?;
        let sets: Vec<_> = rules.digest_sets.iter().filter_map(set).collect();
        let mut hasher = Hasher::new(HashAlgorithm::Sha256);
        // Rules are what they are written as; nothing in them fails to be written.
        let written = serde_json::to_vec(&rules).unwrap_or_default();
        hasher.update(&u64::try_from(written.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(&written);
        for set in &sets {
            hasher.update(set.id());
        }
        let digests = |listed: &[ListedDigest]| DigestSet::of_digests(listed.iter().map(|listed| &listed.0));
        Ok(Self {
            exclude: PathRules::new(&rules.exclude),
            tolerate_violations: PathRules::new(&rules.tolerate_violations),
            policy_paths: PathRules::new(&rules.policy_loads.paths),
            policies: digests(&rules.policy_loads.digests),
            keys: rules.parse_keys()?,
            deny: digests(&rules.deny),
            id: HEXLOWER.encode(hasher.finish().as_bytes()),
            sets,
            rules,
        })
    }

    /// Names the rules together with the content of their sets: findings are of one id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &RuntimeRules {
        &self.rules
    }

    /// Whether a file at a path is in one of the sets.
    #[inline]
    pub(super) fn find(&self, digest: &FileDigest<'_>, path: &[u8]) -> Found {
        let mut best = Found::Unknown;
        for set in &self.sets {
            match set.find(digest, path) {
                Found::Accepted => return Found::Accepted,
                found @ (Found::OtherPath | Found::Unknown) => best = best.max(found),
            }
        }
        best
    }

    pub(super) fn denies(&self, digest: &FileDigest<'_>) -> bool {
        !self.rules.deny.is_empty() && self.deny.find(digest, b"") == Found::Accepted
    }

    pub(super) fn denies_memory(&self, digest: &Digest) -> bool {
        self.rules.deny.iter().any(|denied| denied.0 == *digest)
    }
}
