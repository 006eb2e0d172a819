//! What the daemon does by itself.

use std::time::Duration;

use rootbound_common::clock::Clock as _;
use rootbound_common::random;
use rootbound_verifier::audit::verify::Walk;
use rootbound_verifier::audit::{Actor, AuditRecord, Outcome, RecordId, RecordKind, Segment};
use rootbound_verifier::config::RetentionSection;
use rootbound_verifier::jobs;
use rootbound_verifier::store::AuditStore as _;
use tokio_util::sync::CancellationToken;

use super::client::in_time;
use super::stage::Stage;

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn append(stage: &Stage, code: &str) {
    let id = RecordId::new(stage.clock.now(), &mut random::system());
    let record =
        AuditRecord::new(id, RecordKind::OperatorAction, "test", Actor::Verifier, Outcome::Done, code);
    stage.store.append(vec![record]).await.unwrap();
}

async fn segments(stage: &Stage) -> Vec<Segment> {
    stage.store.segments(1, 1000).await.unwrap()
}

/// The codes of what is there.
async fn codes(stage: &Stage) -> Vec<String> {
    let segments = segments(stage).await;
    let records = segments.iter().flat_map(|segment| segment.records().map(Result::unwrap));
    records.map(|record| record.record.code.to_string()).collect()
}

/// Runs the jobs until something holds, and then for as long as it takes to stop them.
async fn run_until(stage: &Stage, what: &str, holds: impl AsyncFn() -> bool) {
    let stop = CancellationToken::new();
    let jobs = tokio::spawn(jobs::run(stage.verifier.clone(), RetentionSection::default(), stop.clone()));
    in_time(what, async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stop.cancel();
    in_time("the end of the jobs", jobs).await.unwrap();
}

#[tokio::test]
async fn records_that_are_older_than_they_are_to_be_kept_go_and_the_rest_still_verifies() {
    let stage = Stage::keeping(7 * DAY).await;
    append(&stage, "old").await;
    stage.clock.advance(5 * DAY);
    append(&stage, "young").await;
    let before = codes(&stage).await;
    assert_eq!(before, ["started", "in_force", "old", "young"]);
    // Nothing is older than a week: the jobs sign the trail, and take nothing.
    run_until(&stage, "a checkpoint", async || stage.store.last_checkpoint().await.unwrap().is_some()).await;
    assert_eq!(stage.verifier.forget_old_records().await.unwrap(), 0);
    assert_eq!(codes(&stage).await, before);

    stage.clock.advance(3 * DAY);
    run_until(&stage, "forgetting", async || !codes(&stage).await.contains(&"old".to_owned())).await;
    assert_eq!(codes(&stage).await, ["young", "forgotten"]);
    let keys = [stage.verifier.audit_key().clone()];
    let mut walk = Walk::new(&keys, None);
    for checkpoint in stage.store.checkpoints(0, 100).await.unwrap() {
        walk.checkpoint(&checkpoint);
    }
    for segment in segments(&stage).await {
        walk.segment(&segment);
    }
    let verified = walk.end();
    assert!(verified.is_whole(), "{verified:?}");

    // Once a day at most, and each time on record.
    let later = stage.store.last_checkpoint().await.unwrap();
    append(&stage, "new").await;
    stage.clock.advance(Duration::from_secs(120));
    run_until(&stage, "another checkpoint", async || stage.store.last_checkpoint().await.unwrap() != later)
        .await;
    assert_eq!(codes(&stage).await, ["young", "forgotten", "new"]);
}

#[tokio::test]
async fn without_a_limit_records_stay() {
    let stage = Stage::new().await;
    append(&stage, "old").await;
    stage.clock.advance(4000 * DAY);
    run_until(&stage, "a checkpoint", async || stage.store.last_checkpoint().await.unwrap().is_some()).await;
    assert_eq!(stage.verifier.forget_old_records().await.unwrap(), 0);
    assert_eq!(codes(&stage).await, ["started", "in_force", "old"]);
}
