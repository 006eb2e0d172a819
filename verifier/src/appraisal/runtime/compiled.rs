//! Rules and their sets, ready for use.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use rootbound_common::crypto::{Digest, Hasher, TaggedDigest};
use rootbound_common::tpm::HashAlgorithm;

use super::key::FileKey;
use super::path::PathRules;
use super::table::Found;
use super::{DigestSet, RuntimeRules, RuntimeRulesError};
use crate::evidence::ima::{DigestKind, FileDigest};
use crate::node::Name;
use crate::reference::DenyList;

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
    deny: DigestSet,
    fleet: DenyList,
    id: String,
}

/// That a digest is denied: by an entry of the fleet's list, or by the profile.
#[derive(Debug)]
pub(super) struct Denial {
    pub(super) by: Option<String>,
}

impl CompiledRules {
    /// Checks and compiles rules; `set` finds a digest set by name. One that does not exist accepts nothing.
    pub fn new(
        rules: RuntimeRules,
        set: impl Fn(&Name) -> Option<Arc<DigestSet>>,
    ) -> Result<Self, RuntimeRulesError> {
        Self::with_deny(rules, set, &DenyList::default())
    }

    /// The same, where this is denied on every node.
    pub fn with_deny(
        rules: RuntimeRules,
        set: impl Fn(&Name) -> Option<Arc<DigestSet>>,
        fleet: &DenyList,
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
        if !fleet.is_empty() {
            // What is kept of judging names the version that denied it.
            hasher.update(fleet.id().to_string().as_bytes());
            fleet.digests().for_each(|digest| hasher.update(digest.as_bytes()));
        }
        let digests = |listed: &[TaggedDigest]| DigestSet::of_digests(listed.iter().map(|listed| &listed.0));
        let denied = rules.deny.iter().map(|listed| &listed.0).chain(fleet.digests());
        Ok(Self {
            exclude: PathRules::new(&rules.exclude),
            tolerate_violations: PathRules::new(&rules.tolerate_violations),
            policy_paths: PathRules::new(&rules.policy_loads.paths),
            policies: digests(&rules.policy_loads.digests),
            keys: rules.parse_keys()?,
            deny: DigestSet::of_digests(denied),
            fleet: fleet.clone(),
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

    /// Whether a digest is denied, as content or as fs-verity has it, and by what.
    #[inline]
    pub(super) fn denies(&self, digest: &FileDigest<'_>) -> Option<Denial> {
        if self.deny.is_empty() {
            return None;
        }
        let as_content = FileDigest { kind: DigestKind::Content, ..*digest };
        let denied = self.deny.find(&as_content, b"") == Found::Accepted;
        denied.then(|| Denial { by: as_content.of_tpm().and_then(|digest| self.fleet.denies(&digest)) })
    }

    pub(super) fn denies_memory(&self, digest: &Digest) -> Option<Denial> {
        let by = self.fleet.denies(digest);
        (by.is_some() || self.rules.deny.iter().any(|denied| denied.0 == *digest)).then_some(Denial { by })
    }
}
