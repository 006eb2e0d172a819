//! The audit trail, as far as it is not written by the other stories: start and stop, checkpoints, archiving.

use std::time::Duration;

use rand_core::Rng as _;
use rootbound_common::clock::Timestamp;

use super::operate::{OperateError, Operator};
use super::{Verifier, rng};
use crate::audit::sampling::{Sampler, Sampling};
use crate::audit::{
    Actor, AuditKey, AuditRecord, Checkpoint, Entity, Facts, Head, Outcome, PublicKey, RecordId, RecordKind,
};
use crate::enrollment::EndorsementRoots;
use crate::store::StoreError;

/// What the trail is kept by.
#[derive(Debug)]
pub struct AuditParts {
    /// Signs checkpoints.
    pub key: AuditKey,
    /// Which allowed decisions are recorded.
    pub allowed_decisions: Sampling,
    /// After which time a checkpoint is due, where there are new records.
    pub checkpoint_interval: Duration,
    /// For how long records are kept; `None`: until an operator archives them.
    pub keep: Option<Duration>,
}

impl AuditParts {
    /// A new key and the defaults of the configuration.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            key: AuditKey::generate(&mut rng()),
            allowed_decisions: Sampling::All,
            checkpoint_interval: Duration::from_secs(60),
            keep: None,
        }
    }
}

/// What a signal has the verifier do, in records.
const RELOAD: &str = "reload_ek_roots";

/// Records after which a checkpoint is due, whatever the time: half a second at the rate that the store can do.
const CHECKPOINT_RECORDS: u64 = 10_000;

/// The state of the trail beside what is in the store.
#[derive(Debug)]
pub(super) struct Trail {
    key: AuditKey,
    sampler: Sampler,
    checkpoint_interval: Duration,
    keep: Option<Duration>,
}

impl Trail {
    pub(super) fn new(parts: AuditParts) -> Self {
        let AuditParts { key, allowed_decisions, checkpoint_interval, keep } = parts;
        Self { key, sampler: Sampler::new(allowed_decisions), checkpoint_interval, keep }
    }
}

impl Verifier {
    /// A record of now, to be completed.
    pub(super) fn record_of(
        &self,
        kind: RecordKind,
        action: &str,
        actor: Actor,
        outcome: Outcome,
        code: &str,
    ) -> AuditRecord {
        AuditRecord::new(RecordId::new(self.now(), &mut rng()), kind, action, actor, outcome, code)
    }

    /// Records a decision that changes nothing else, unless it is an allowed one that the configuration leaves out. Returns
    /// once it is durable: nothing is allowed before.
    pub async fn record_outcome(&self, record: AuditRecord) -> Result<(), StoreError> {
        self.record_outcomes(vec![record]).await
    }

    /// As [`Self::record_outcome`], for several that were asked for at once: all are recorded, or none.
    pub async fn record_outcomes(&self, records: Vec<AuditRecord>) -> Result<(), StoreError> {
        let sampler = &self.trail.sampler;
        let all = records.len();
        let kept: Vec<_> = records.into_iter().filter_map(|record| sampler.keep(record)).collect();
        let dropped = u64::try_from(all.saturating_sub(kept.len())).unwrap_or(u64::MAX);
        if kept.is_empty() {
            // Where nothing can be recorded nothing is allowed, also of what would be left out.
            let written = self.store.can_write().await;
            if written.is_err() {
                sampler.take_back(dropped);
            }
            return written;
        }
        let left_out = kept.iter().map(|record| record.left_out).sum();
        let appended = self.store.append(kept).await;
        if appended.is_err() {
            // Whoever asked is told of the failure: nothing was allowed, and so nothing left out.
            sampler.give_back(left_out);
            sampler.take_back(dropped);
        }
        appended
    }

    /// Records that a caller was refused before it could ask for anything: `claimed` is the name in its certificate, which
    /// a CA that we know has signed.
    pub async fn record_caller_refused(
        &self,
        claimed: Option<&str>,
        code: &str,
        detail: &str,
    ) -> Result<(), StoreError> {
        let record = self
            .record_of(RecordKind::Refusal, "admit", Actor::Stranger, Outcome::Refused, code)
            .because(detail);
        let record = match claimed {
            Some(name) => record.about(Entity::named("spiffe_id", name)),
            None => record,
        };
        self.record_outcome(record).await
    }

    /// Says that the verifier started, and by which configuration the trail is kept.
    pub(super) async fn record_start(&self) -> Result<(), StoreError> {
        let Trail { key, sampler, checkpoint_interval, keep } = &self.trail;
        self.store.forget_segments().await?;
        self.store.put_audit_key(key.public(), self.now()).await?;
        let mut run = [0; 8];
        rng().fill_bytes(&mut run);
        let start = serde_json::json!({
            "trust_domain": self.trust_domain.as_str(),
            "version": env!("CARGO_PKG_VERSION"),
            "run": data_encoding::HEXLOWER.encode(&run),
        });
        let configuration = serde_json::json!({
            "allowed_decisions": sampler.rule(),
            "audit_key": key.public().id(),
            "token_keys": self.active_token_keys(),
            "checkpoint_interval_s": checkpoint_interval.as_secs(),
            "keep_s": keep.map(|keep| keep.as_secs()),
        });
        let of = |kind, action: &str, code: &str, facts| {
            self.record_of(kind, action, Actor::Verifier, Outcome::Done, code).with(Facts::or_digest(facts))
        };
        self.store
            .append(vec![
                of(RecordKind::Start, "start", "started", start),
                of(RecordKind::Configuration, "configure_audit", "in_force", configuration),
            ])
            .await
    }

    /// Replaces the trusted TPM manufacturers and their CRLs, as [`Self::trust`] does, once the trail says so: where that cannot
    /// be written, those in force stay.
    pub async fn trust_on_record(&self, roots: EndorsementRoots) -> Result<(), StoreError> {
        let facts = serde_json::json!({
            "anchors": roots.anchor_count(),
            "intermediates": roots.intermediate_count(),
            "crls": roots.crl_count(),
        });
        let record = self
            .record_of(RecordKind::Configuration, RELOAD, Actor::Verifier, Outcome::Done, "in_force")
            .with(Facts::or_digest(facts));
        self.store.append(vec![record]).await?;
        self.trust(roots);
        Ok(())
    }

    /// Says that they were to be read again and could not be.
    pub async fn record_reload_failed(&self, why: &str) -> Result<(), StoreError> {
        let record = self
            .record_of(RecordKind::Configuration, RELOAD, Actor::Verifier, Outcome::Failed, "reload_failed")
            .because(why);
        self.store.append(vec![record]).await
    }

    /// Says that the verifier stops, and why, and signs the trail as far as it goes. The last thing that it does.
    pub async fn stop(&self, why: &str) -> Result<(), StoreError> {
        self.dry_runs.stop();
        let left_out = self.trail.sampler.take_left_out();
        let stop = self.record_of(RecordKind::Stop, "stop", Actor::Verifier, Outcome::Done, "stopped");
        self.store.append(vec![AuditRecord { left_out, ..stop.because(why) }]).await?;
        self.checkpoint().await.map(drop)
    }

    /// What verifies checkpoints that are made now.
    #[must_use]
    pub const fn audit_key(&self) -> &PublicKey {
        self.trail.key.public()
    }

    /// Signs the trail as far as it goes, if there is something new.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let last = self.store.last_checkpoint().await?;
        let head = self.store.trail_head().await?;
        match last {
            Some(last) if last.head == head => Ok(last),
            last => self.sign(last.map(|last| last.anchor).unwrap_or_default(), head).await,
        }
    }

    async fn sign(&self, anchor: Head, head: Head) -> Result<Checkpoint, StoreError> {
        let checkpoint = self.trail.key.sign(anchor, head, self.now());
        self.store.put_checkpoint(checkpoint.clone()).await?;
        Ok(checkpoint)
    }

    /// Signs the trail where that is due: there are many new records, or any and the time has passed.
    pub async fn checkpoint_where_due(&self) -> Result<(), StoreError> {
        let last = self.store.last_checkpoint().await?;
        let head = self.store.trail_head().await?;
        let (covered, at) = last.map_or((0, None), |last| (last.head.sequence, Some(last.at)));
        let new = head.sequence.saturating_sub(covered);
        let waited = at.is_none_or(|at| self.now().since(at) >= self.trail.checkpoint_interval);
        if new >= CHECKPOINT_RECORDS || (new > 0 && waited) {
            self.checkpoint().await?;
        }
        Ok(())
    }

    /// Signs the end of what is to be archived: the segments whose records are all before `before`. `None`: there is none.
    pub async fn seal(&self, before: Timestamp) -> Result<Option<Checkpoint>, StoreError> {
        self.store.forget_segments().await?;
        let Some(end) = self.store.trail_before(before).await? else { return Ok(None) };
        let anchor = self.store.last_checkpoint().await?.map(|last| last.anchor).unwrap_or_default();
        self.sign(anchor, end).await.map(Some)
    }

    /// Takes the records up to `end` away, which is the last of a segment and was archived. What is left begins, by a signed
    /// checkpoint, behind it; the trail says who did it.
    pub async fn forget_archived(&self, end: Head, operator: &Operator) -> Result<u64, OperateError> {
        let subject = Entity::named("audit_trail", &end.sequence.to_string());
        let record = self
            .record_of(RecordKind::OperatorAction, "archive", operator.actor(), Outcome::Done, "archived")
            .about(subject)
            .because(&operator.reason);
        let known = self.store.segments(end.sequence, 1).await?;
        if known.first().is_none_or(|segment| segment.head() != end) {
            let name = format!("segment that ends with record {}", end.sequence);
            return Err(OperateError::NoSuch { what: "end of the archive in the trail:", name });
        }
        Ok(self.forget_up_to(end, record).await?)
    }

    /// Takes records away that are older than the configuration keeps them, where it says for how long.
    pub async fn forget_old_records(&self) -> Result<u64, StoreError> {
        // What a kill left of the last time is not taken away twice.
        self.store.forget_segments().await?;
        let Some(keep) = self.trail.keep else { return Ok(0) };
        // Once a day: each time leaves a record of its own.
        let before = self.now().minus(keep).as_millis();
        let before = Timestamp::from_millis(before - before.rem_euclid(86_400_000));
        let Some(end) = self.store.trail_before(before).await? else { return Ok(0) };
        let record = self
            .record_of(RecordKind::Configuration, "retain", Actor::Verifier, Outcome::Done, "forgotten")
            .about(Entity::named("audit_trail", &end.sequence.to_string()))
            .because("older than [audit] keep");
        self.forget_up_to(end, record).await
    }

    /// First the record, then the signature over what is left, which covers the record; then the rows go. Where that is cut
    /// short, the next start takes them away, and so does whoever takes away more.
    async fn forget_up_to(&self, end: Head, record: AuditRecord) -> Result<u64, StoreError> {
        let facts = serde_json::json!({ "last": end.sequence, "hash": end.hash });
        self.store.append(vec![record.with(Facts::or_digest(facts))]).await?;
        let head = self.store.trail_head().await?;
        self.sign(end, head).await?;
        self.store.forget_segments().await
    }
}
