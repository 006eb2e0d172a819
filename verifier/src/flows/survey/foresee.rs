//! How a node would be judged by another book, by what is stored of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Hasher;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_common::wire::v1::DeviationReport;

use super::dry_run::DEVIATIONS;
use crate::appraisal::logs::RuntimeEvidence;
use crate::appraisal::{Deviation, Verdict, appraise};
use crate::evidence::{Observed, restore};
use crate::flows::Verifier;
use crate::flows::logs::{OfQuote, Sent};
use crate::posture::Posture;
use crate::reference::ReferenceBook;
use crate::store::StoreError;
use crate::store::fleet::KeptEvidence;
use crate::store::logs::{BootLogRecord, LogRecord};

/// What would become of a node.
#[derive(Debug)]
pub(super) enum Foreseen {
    /// No evidence is stored.
    WithoutEvidence,
    /// It showed new evidence while what is stored was read.
    Moved,
    /// It is judged by the same values.
    Alike(Verdict),
    /// It would be judged anew.
    Judged {
        /// As it is.
        now: Arc<Judged>,
        /// As it would be.
        then: Arc<Judged>,
    },
}

/// A verdict, with as many of its deviations as are kept.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    /// The first of them.
    pub(super) deviations: Arc<[DeviationReport]>,
    /// How many more there are.
    pub(super) more: u64,
    /// The codes of all of them, each once.
    pub(super) codes: BTreeSet<String>,
}

impl Judged {
    pub(super) fn of(verdict: Verdict, deviations: impl Iterator<Item = DeviationReport>) -> Self {
        let (mut kept, mut more, mut codes) = (Vec::new(), 0, BTreeSet::new());
        for deviation in deviations {
            if !codes.contains(&deviation.code) {
                codes.insert(deviation.code.clone());
            }
            if kept.len() < DEVIATIONS { kept.push(deviation) } else { more += 1 }
        }
        Self { verdict, deviations: kept.into(), more, codes }
    }

    fn of_posture(posture: &Posture, now: Timestamp) -> Self {
        Self::of(acting(posture, now), posture.deviations.iter().cloned())
    }
}

/// The verdict as it is acted on: what is only observed refuses nobody.
fn acting(posture: &Posture, now: Timestamp) -> Verdict {
    if posture.is_observed(now) { Verdict::Affirming } else { posture.verdict }
}

/// What was judged before in the same dry run: machines that are alike are judged once.
#[derive(Debug, Default)]
struct Memory {
    judged: HashMap<[u8; 32], Arc<Judged>>,
    deviations: usize,
}

impl Memory {
    /// Deviations that are remembered: some 30 MB.
    const MOST: usize = 100_000;

    fn remember(&mut self, key: [u8; 32], judged: &Arc<Judged>) {
        let weight = judged.deviations.len().saturating_add(1);
        if self.deviations.saturating_add(weight) > Self::MOST {
            self.judged.clear();
            self.deviations = 0;
        }
        self.deviations = self.deviations.saturating_add(weight);
        self.judged.insert(key, Arc::clone(judged));
    }
}

/// What the workers of a dry run share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    memory: Mutex<Memory>,
    /// Long lists are read by one worker at a time, so that attestation finds a connection to the store.
    long: tokio::sync::Mutex<()>,
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verifier {
    /// How a node would be judged by the book `would`, as `reappraise` would judge it.
    pub(super) async fn foresee(
        &self,
        kept: KeptEvidence,
        now: &ReferenceBook,
        would: &ReferenceBook,
        shared: &Shared,
    ) -> Result<Foreseen, StoreError> {
        let live = self.fleet.node(kept.node);
        let posture = live.as_ref().and_then(|live| live.posture.as_ref());
        if matches!(kept.quote, Ok(None)) {
            return Ok(Foreseen::WithoutEvidence);
        }
        let Some(posture) = posture else { return Ok(Foreseen::WithoutEvidence) };
        // What could not be recorded stands against a node whatever the values are.
        if self.fleet.is_distrusted(kept.node) || now.judges_alike(would, &kept.labels) {
            return Ok(Foreseen::Alike(acting(posture, self.now())));
        }
        let at = self.now();
        let now = Arc::new(Judged::of_posture(posture, at));
        let unfounded = || Arc::new(Judged::of_posture(&Posture::without_foundation(Some(posture)), at));
        let KeptEvidence { node, revision, labels, attestation_key, reset_count, quote, logs, frames } = kept;
        let quote = match quote {
            Ok(Some(quote)) => quote,
            Ok(None) => return Ok(Foreseen::WithoutEvidence),
            Err(_) => return Ok(Foreseen::Judged { now, then: unfounded() }),
        };
        let Ok(observed) = restore(quote, node, &attestation_key) else {
            return Ok(Foreseen::Judged { now, then: unfounded() });
        };
        let reset_count = reset_count.unwrap_or(0);
        let logs = logs.filter(|logs| logs.reset_count == reset_count);
        let key = key_of(&observed, logs.as_ref(), would, &labels);
        if let Some(then) = key.and_then(|key| shared.memory().judged.get(&key).cloned()) {
            return Ok(Foreseen::Judged { now, then });
        }
        let quote = OfQuote { node, reset_count, observed: &observed };
        let rules = would.rules(&labels);
        let read = if frames.is_none() {
            let _one = shared.long.lock().await;
            self.read_kept_logs(&quote, &rules, logs, Sent::Again(None)).await?
        } else {
            self.read_kept_logs(&quote, &rules, logs, Sent::Again(frames)).await?
        };
        if matches!(read.logs.runtime, RuntimeEvidence::Refused(_)) {
            // Its frames are read one by one; those of another quote are no evidence with this one.
            let again = self.store.node(node).await?;
            if again.is_none_or(|again| again.revision != revision) {
                return Ok(Foreseen::Moved);
            }
        }
        let appraisal = appraise(&observed, &read.logs, &labels, would);
        let then = Judged::of(
            acting(&Posture::of(&appraisal), at),
            appraisal.deviations().iter().map(Deviation::report),
        );
        let then = Arc::new(then);
        if let Some(key) = key {
            shared.memory().remember(key, &then);
        }
        Ok(Foreseen::Judged { now, then })
    }
}

/// Names all that an appraisal depends on: by which profile, the PCR values, the boot log, and what the IMA list comes to,
/// which the value of PCR 10 names. `None`: entries are kept that no value names yet.
fn key_of(
    observed: &Observed,
    logs: Option<&LogRecord>,
    book: &ReferenceBook,
    labels: &crate::node::Labels,
) -> Option<[u8; 32]> {
    let mut hasher = Hasher::new(HashAlgorithm::Sha256);
    let mut part = |bytes: &[u8]| {
        hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(bytes);
    };
    let profile = match book.profile(labels) {
        Ok(profile) => profile.id().to_string(),
        Err(none) => none.to_string(),
    };
    part(profile.as_bytes());
    for (bank, pcr, value) in observed.pcrs().iter() {
        part(&bank.tpm_id().to_be_bytes());
        part(&[pcr.get()]);
        part(value.as_bytes());
    }
    if let Some(logs) = logs {
        let (state, frame): (u8, &[u8]) = match &logs.boot_log {
            BootLogRecord::NotSent => (1, &[]),
            BootLogRecord::Absent => (2, &[]),
            // Both are authenticated anew.
            BootLogRecord::Present(frame) | BootLogRecord::Refused(frame) => (3, frame),
        };
        part(&[state]);
        part(frame);
        if let Some(ima) = &logs.ima {
            if ima.pending.entries > 0 {
                return None;
            }
            let prefix = ima.progress.prefix();
            part(&prefix.value.algorithm().tpm_id().to_be_bytes());
            part(prefix.value.as_bytes());
            part(&prefix.entries.to_be_bytes());
            part(&prefix.bytes.to_be_bytes());
            part(&serde_json::to_vec(&ima.findings).unwrap_or_default());
        }
    }
    hasher.finish().as_bytes().try_into().ok()
}
