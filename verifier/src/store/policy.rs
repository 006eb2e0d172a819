//! Policy bundles: versions that never change, and which of them was in force when.

use async_trait::async_trait;

use super::StoreError;
use crate::audit::AuditRecord;
use crate::node::Name;
use crate::reference::{Provenance, Versioned};

/// A version of a policy bundle, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyBundleRecord {
    /// Its name and version.
    pub id: Versioned,
    /// SHA-256 of its text.
    pub content: [u8; 32],
    /// Who wrote it.
    pub provenance: Provenance,
}

/// That a version of a bundle came into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// 1 for the first, and one more for each that follows.
    pub number: u64,
    /// Which version; `None`: the bundle that is part of the program.
    pub bundle: Option<Versioned>,
    /// Who put it in force.
    pub provenance: Provenance,
}

/// What became of an activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activated {
    /// It is on record.
    Yes(Activation),
    /// Another came in between: nothing was changed.
    Overtaken {
        /// What is in force; `None`: nothing was ever activated.
        by: Option<Activation>,
    },
    /// There is no such version: nothing was changed.
    NoSuchVersion,
}

/// Policy bundles.
#[async_trait]
pub trait PolicyStore: Send + Sync {
    /// Writes the next version of a bundle, with its text, and the record of it, which is completed here. The same text is
    /// kept once.
    async fn put_policy_bundle(
        &self,
        name: Name,
        text: Vec<u8>,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<PolicyBundleRecord, StoreError>;

    /// Every version of every bundle, by name and rising version.
    async fn policy_bundles(&self) -> Result<Vec<PolicyBundleRecord>, StoreError>;

    /// A version, or the newest of its name where none is named, with its text. A text that does not have the digest that
    /// it is named by is an inconsistency.
    async fn policy_bundle(
        &self,
        name: &Name,
        version: Option<u32>,
    ) -> Result<Option<(PolicyBundleRecord, Vec<u8>)>, StoreError>;

    /// What is in force; `None`: nothing was ever activated.
    async fn policy_activation(&self) -> Result<Option<Activation>, StoreError>;

    /// Puts a version in force, or the program's own bundle (`None`), if the last activation is still the one with the
    /// number `over` (0: none). Of two at once, one is told that it was overtaken.
    async fn activate_policy(
        &self,
        bundle: Option<Versioned>,
        over: u64,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<Activated, StoreError>;

    /// The last activations, the latest first.
    async fn policy_activations(&self, limit: u32) -> Result<Vec<Activation>, StoreError>;
}
