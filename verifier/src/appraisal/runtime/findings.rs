//! What came of judging: kept with the verified prefix, and continued at the next attestation.

use serde::{Deserialize, Serialize};

use super::RuntimeDeviation;
use crate::evidence::ima::Walked;

/// How many entries there were, and what accepted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Entries judged.
    pub entries: u64,
    /// Violations among them, tolerated or not.
    pub violations: u64,
    /// Accepted by a digest set.
    pub by_digest: u64,
    /// Accepted by a signature.
    pub by_signature: u64,
    /// Not judged, by an exclude rule.
    pub excluded: u64,
    /// Events that the rules list.
    pub events: u64,
    /// Accepted by none.
    pub deviating: u64,
}

/// What is known of the entries of one boot under the quote, by one version of the rules. A deviation that was seen stays
/// until the boot is over or every entry is judged again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeFindings {
    pub(super) rules: String,
    pub(super) boot_aggregate: Option<String>,
    pub(super) counts: Counts,
    pub(super) deviations: Vec<RuntimeDeviation>,
    pub(super) more: u64,
}

impl RuntimeFindings {
    /// Different deviations that are kept with their words: people read no more, and each node has them in a row.
    pub const MAX: usize = 64;

    /// Nothing yet.
    pub(super) fn start(rules: String) -> Self {
        Self { rules, boot_aggregate: None, counts: Counts::default(), deviations: Vec::new(), more: 0 }
    }

    /// The rules that judged ([`super::CompiledRules::id`]).
    #[must_use]
    pub fn rules(&self) -> &str {
        &self.rules
    }

    /// How many entries there were.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn deviates(&mut self, deviation: RuntimeDeviation) {
        self.counts.deviating = self.counts.deviating.saturating_add(1);
        keep(&mut self.deviations, &mut self.more, deviation);
    }
}

pub(super) fn keep(kept: &mut Vec<RuntimeDeviation>, more: &mut u64, deviation: RuntimeDeviation) {
    if kept.iter().any(|other| other.is_like(&deviation)) {
        return;
    }
    if kept.len() < RuntimeFindings::MAX {
        kept.push(deviation);
        return;
    }
    *more = more.saturating_add(1);
    // What is denied by name is never among the rest.
    let denied = |kept: &RuntimeDeviation| matches!(kept, RuntimeDeviation::Denied { .. });
    if denied(&deviation)
        && let Some(other) = kept.iter_mut().rfind(|kept| !denied(kept))
    {
        *other = deviation;
    }
}

/// What a list that went through the quoted value means, by rules. Only [`super::Judge::finish`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeAppraisal {
    pub(super) findings: RuntimeFindings,
    pub(super) tail: RuntimeFindings,
    pub(super) of_list: Vec<RuntimeDeviation>,
    pub(super) walked: Walked,
    pub(super) weak: bool,
}

impl RuntimeAppraisal {
    /// What to keep for the next attestation of this boot.
    #[must_use]
    pub fn findings(&self) -> &RuntimeFindings {
        &self.findings
    }

    /// Of the entries after the quoted value, for which nothing vouches yet.
    #[must_use]
    pub fn tail(&self) -> &Counts {
        self.tail.counts()
    }

    /// The walk that it stands on.
    #[must_use]
    pub fn walked(&self) -> &Walked {
        &self.walked
    }

    /// Whether the kernel extends the quoted bank with SHA-1, and the rules accept that.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// Deviations of the list as a whole, then of entries under the quote, then of entries after it.
    pub fn deviations(&self) -> impl Iterator<Item = &RuntimeDeviation> {
        self.of_list.iter().chain(&self.findings.deviations).chain(&self.tail.deviations)
    }

    /// Of the list as a whole, and of the entries that the quote covers.
    pub fn covered_deviations(&self) -> impl Iterator<Item = &RuntimeDeviation> {
        self.of_list.iter().chain(&self.findings.deviations)
    }

    /// Of the entries after the quoted value.
    pub fn tail_deviations(&self) -> impl Iterator<Item = &RuntimeDeviation> {
        self.tail.deviations.iter()
    }

    /// Different deviations that are not listed.
    #[must_use]
    pub fn more(&self) -> u64 {
        self.findings.more.saturating_add(self.tail.more)
    }

    /// Whether the rules accept all of it.
    #[must_use]
    pub fn is_affirming(&self) -> bool {
        self.deviations().next().is_none()
    }
}
