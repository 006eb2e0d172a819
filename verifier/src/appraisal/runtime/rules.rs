//! Rules of what may run, as an operator writes them into a profile.

use std::collections::BTreeMap;

use rootbound_common::crypto::TaggedDigest;
use rootbound_common::tpm::HashAlgorithm;
use serde::{Deserialize, Serialize};

use super::PathRule;
use super::key::{FileKey, KeyError};
use crate::evidence::ima::BankMode;
use crate::node::Name;

/// Rules over the entries of IMA's list. What no rule accepts deviates.
///
/// A file is judged in this order: denied · a policy's path · in a digest set · excluded · signed by a trusted key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeRules {
    /// Digest sets; what any of them has is accepted.
    #[serde(default)]
    pub digest_sets: Vec<Name>,
    /// Files that are not judged, but for the deny list. Whoever writes there runs what they like.
    #[serde(default)]
    pub exclude: Vec<PathRule>,
    /// Digests that nothing makes acceptable: of files, of keys, of events.
    #[serde(default)]
    pub deny: Vec<TaggedDigest>,
    /// Certificates or public keys (PEM) whose signature over a file is enough.
    #[serde(default)]
    pub signing_keys: Vec<String>,
    /// Keys that may be loaded, by keyring (`.ima`): SHA-256 of their DER.
    #[serde(default)]
    pub key_loads: BTreeMap<String, Vec<TaggedDigest>>,
    /// IMA policies that may be loaded while the system runs.
    #[serde(default)]
    pub policy_loads: PolicyLoads,
    /// Device-mapper events (`dm_table_load` and others): SHA-256 of what was measured.
    #[serde(default)]
    pub device_mapper: Vec<TaggedDigest>,
    /// What `kernel_version` may say.
    #[serde(default)]
    pub kernel_versions: Vec<String>,
    /// What `kexec-cmdline` may say.
    #[serde(default)]
    pub kexec_command_lines: Vec<String>,
    /// Whether a kernel that was started by kexec, which no boot log covers, is accepted.
    #[serde(default)]
    pub kexec: Treatment,
    /// Other events by their name: SHA-256 of what was measured.
    #[serde(default)]
    pub critical_data: BTreeMap<String, Vec<TaggedDigest>>,
    /// Files of which a violation is accepted: logs that are written while they are read. Nothing vouches for the path in a
    /// violation: who controls the machine can give each of its violations such a path.
    #[serde(default)]
    pub tolerate_violations: Vec<PathRule>,
    /// Entries that a quote has to cover. A list of boot_aggregate alone says that nothing is measured.
    #[serde(default = "RuntimeRules::default_min_entries")]
    pub min_entries: u64,
    /// The least hash of files, of the SHA family. `sha1` accepts digests for which collisions can be made.
    #[serde(default = "RuntimeRules::default_min_digest")]
    pub min_digest: HashAlgorithm,
    /// Kernels that extend the quoted bank with SHA-1 and zeros. Weak.
    #[serde(default)]
    pub weak_sha1_padding: bool,
}

/// Policies that may be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyLoads {
    /// Where policies are loaded from: a file there has to be one of `digests`, whatever else accepts it.
    #[serde(default = "PolicyLoads::default_paths")]
    pub paths: Vec<PathRule>,
    /// Digests of policies, in the hash that IMA measures with.
    #[serde(default)]
    pub digests: Vec<TaggedDigest>,
}

/// What becomes of something that is unusual, but may be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Treatment {
    /// It deviates.
    #[default]
    Refuse,
    /// It is accepted.
    Accept,
}

/// Why rules are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeRulesError {
    /// Nothing could ever be accepted.
    #[error("runtime: name a digest set or a signing key; without one nothing is ever accepted")]
    AcceptsNothing,
    /// A list is too long.
    #[error("runtime.{list}: at most {limit}")]
    TooMany {
        /// The field.
        list: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A key is refused.
    #[error("runtime.signing_keys: key {number} {error}")]
    Key {
        /// From 1.
        number: usize,
        /// Why.
        error: KeyError,
    },
    /// A list of what was measured in memory has digests of another hash.
    #[error("runtime.{list}: digests of keys and events are SHA-256")]
    NotSha256 {
        /// The field.
        list: &'static str,
    },
    /// An event that has a rule of its own, or a keyring's name that is none.
    #[error("runtime.{list}: `{name}` is no name for this list")]
    Name {
        /// The field.
        list: &'static str,
        /// As written.
        name: String,
    },
    /// A list of nothing at all would pass.
    #[error("runtime.min_entries: must be between 1 and {}", crate::evidence::ima::MAX_ENTRIES)]
    MinEntries,
}

impl Default for PolicyLoads {
    fn default() -> Self {
        Self { paths: Self::default_paths(), digests: Vec::new() }
    }
}

impl PolicyLoads {
    /// Where systemd and dracut load it from.
    fn default_paths() -> Vec<PathRule> {
        ["/etc/ima/ima-policy", "/etc/sysconfig/ima-policy"]
            .iter()
            .filter_map(|path| path.parse().ok())
            .collect()
    }
}

impl Default for RuntimeRules {
    /// Rules that accept nothing yet.
    fn default() -> Self {
        Self {
            digest_sets: Vec::new(),
            exclude: Vec::new(),
            deny: Vec::new(),
            signing_keys: Vec::new(),
            key_loads: BTreeMap::new(),
            policy_loads: PolicyLoads::default(),
            device_mapper: Vec::new(),
            kernel_versions: Vec::new(),
            kexec_command_lines: Vec::new(),
            kexec: Treatment::Refuse,
            critical_data: BTreeMap::new(),
            tolerate_violations: Vec::new(),
            min_entries: Self::default_min_entries(),
            min_digest: Self::default_min_digest(),
            weak_sha1_padding: false,
        }
    }
}

impl RuntimeRules {
    /// Sets of one profile: a distribution, its updates, and what is one's own.
    pub const MAX_SETS: usize = 16;
    /// Rules of one list: they are written by people. Digests by the thousand belong in a digest set.
    pub const MAX_LISTED: usize = 4096;
    /// Keys that may have one id, and be tried for each signature.
    pub const MAX_KEYS: usize = 32;

    const fn default_min_entries() -> u64 {
        2
    }

    const fn default_min_digest() -> HashAlgorithm {
        HashAlgorithm::Sha256
    }

    /// What the walk has to expect of the kernel.
    #[must_use]
    pub fn bank_mode(&self) -> BankMode {
        if self.weak_sha1_padding { BankMode::PaddedSha1 } else { BankMode::Native }
    }

    /// Refuses rules that would accept nothing, or cannot be used.
    pub fn check(&self) -> Result<(), RuntimeRulesError> {
        self.parse_keys().map(|_| ())?;
        if self.digest_sets.is_empty() && self.signing_keys.is_empty() {
            return Err(RuntimeRulesError::AcceptsNothing);
        }
        for (list, length, limit) in self.lengths() {
            if length > limit {
                return Err(RuntimeRulesError::TooMany { list, limit });
            }
        }
        let of_memory = [("device_mapper", &self.device_mapper)];
        let keys = self.key_loads.values().map(|digests| ("key_loads", digests));
        let data = self.critical_data.values().map(|digests| ("critical_data", digests));
        for (list, digests) in of_memory.into_iter().chain(keys).chain(data) {
            if digests.iter().any(|digest| digest.0.algorithm() != HashAlgorithm::Sha256) {
                return Err(RuntimeRulesError::NotSha256 { list });
            }
        }
        let named = |list, name: &String, right: bool| {
            let shows =
                !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
            if right && shows { Ok(()) } else { Err(RuntimeRulesError::Name { list, name: name.clone() }) }
        };
        for name in self.key_loads.keys() {
            named("key_loads", name, !name.contains('/'))?;
        }
        for name in self.critical_data.keys() {
            named("critical_data", name, super::judge::Event::of(name.as_bytes(), self).is_other())?;
        }
        if !(1..=crate::evidence::ima::MAX_ENTRIES).contains(&self.min_entries) {
            return Err(RuntimeRulesError::MinEntries);
        }
        Ok(())
    }

    fn lengths(&self) -> [(&'static str, usize, usize); 11] {
        let nested = |lists: &BTreeMap<String, Vec<TaggedDigest>>| {
            lists.len() + lists.values().map(Vec::len).sum::<usize>()
        };
        [
            ("digest_sets", self.digest_sets.len(), Self::MAX_SETS),
            ("signing_keys", self.signing_keys.len(), Self::MAX_KEYS),
            ("exclude", self.exclude.len(), Self::MAX_LISTED),
            ("deny", self.deny.len(), Self::MAX_LISTED),
            ("key_loads", nested(&self.key_loads), Self::MAX_LISTED),
            (
                "policy_loads",
                self.policy_loads.paths.len() + self.policy_loads.digests.len(),
                Self::MAX_LISTED,
            ),
            ("device_mapper", self.device_mapper.len(), Self::MAX_LISTED),
            ("kernel_versions", self.kernel_versions.len(), Self::MAX_LISTED),
            ("kexec_command_lines", self.kexec_command_lines.len(), Self::MAX_LISTED),
            ("critical_data", nested(&self.critical_data), Self::MAX_LISTED),
            ("tolerate_violations", self.tolerate_violations.len(), Self::MAX_LISTED),
        ]
    }

    pub(super) fn parse_keys(&self) -> Result<Vec<FileKey>, RuntimeRulesError> {
        (1..)
            .zip(self.signing_keys.iter().take(Self::MAX_KEYS + 1))
            .map(|(number, pem)| {
                FileKey::of_pem(pem).map_err(|error| RuntimeRulesError::Key { number, error })
            })
            .collect()
    }
}
