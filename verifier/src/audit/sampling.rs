//! Which allowed decisions are recorded. All of them, unless the configuration says otherwise; what is refused always is.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::record::{AuditRecord, Outcome, RecordKind};

/// `[audit] allowed_decisions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Each is recorded.
    #[default]
    All,
    /// One in so many is, with how many were left out.
    OneIn(NonZeroU32),
}

/// Counts allowed decisions, and those left out.
#[derive(Debug)]
pub struct Sampler {
    rule: Sampling,
    seen: AtomicU64,
    left_out: AtomicU64,
}

impl Sampler {
    /// One that has seen nothing.
    #[must_use]
    pub const fn new(rule: Sampling) -> Self {
        Self { rule, seen: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// The rule.
    #[must_use]
    pub const fn rule(&self) -> Sampling {
        self.rule
    }

    /// The record, if it is to be kept: then it says how many were left out since the one that was kept before.
    ///
    /// Only [`RecordKind::Decision`] with [`Outcome::Granted`] is ever left out.
    pub fn keep(&self, record: AuditRecord) -> Option<AuditRecord> {
        let one_in = match self.rule {
            Sampling::OneIn(one_in)
                if record.kind == RecordKind::Decision && record.outcome == Outcome::Granted =>
            {
                u64::from(one_in.get())
            }
            Sampling::OneIn(_) | Sampling::All => 1,
        };
        if one_in > 1 && !self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(AuditRecord { left_out: record.left_out.saturating_add(self.take_left_out()), ..record })
    }

    /// How many were left out and are in no record yet; whoever asks is to record it.
    pub fn take_left_out(&self) -> u64 {
        self.left_out.swap(0, Ordering::Relaxed)
    }

    /// For so many that were left out and then not allowed, since others of their batch could not be written.
    pub fn take_back(&self, dropped: u64) {
        let less = |left_out: u64| Some(left_out.saturating_sub(dropped));
        // It always has a value to go to.
        let _ = self.left_out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// For a record that was kept and could not be written.
    pub fn give_back(&self, left_out: u64) {
        self.left_out.fetch_add(left_out, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::RecordId;
    use super::super::record::Actor;
    use super::*;
    use rootbound_common::clock::Timestamp;

    fn record(kind: RecordKind, outcome: Outcome) -> AuditRecord {
        let id = RecordId::of(Timestamp::from_millis(1), [0; 10]);
        AuditRecord::new(id, kind, "read", Actor::Verifier, outcome, "code")
    }

    fn left_out(sampler: &Sampler, kind: RecordKind, outcome: Outcome) -> Option<u64> {
        sampler.keep(record(kind, outcome)).map(|kept| kept.left_out)
    }

    #[test]
    fn what_was_not_allowed_after_all_was_not_left_out() {
        let sampler = Sampler::new(Sampling::OneIn(NonZeroU32::new(10).unwrap()));
        for _ in 0..4 {
            sampler.keep(record(RecordKind::Decision, Outcome::Granted));
        }
        sampler.take_back(2);
        assert_eq!(sampler.take_left_out(), 1, "of three");
        sampler.take_back(2);
        assert_eq!(sampler.take_left_out(), 0);
    }

    #[test]
    fn of_allowed_decisions_one_in_so_many_is_kept_and_the_others_are_counted() {
        let sampler = Sampler::new(Sampling::OneIn(NonZeroU32::new(3).unwrap()));
        let kept: Vec<_> =
            (0..7).map(|_| left_out(&sampler, RecordKind::Decision, Outcome::Granted)).collect();
        assert_eq!(kept, [Some(0), None, None, Some(2), None, None, Some(2)]);
        let all = Sampler::new(Sampling::All);
        assert!((0..9).all(|_| left_out(&all, RecordKind::Decision, Outcome::Granted) == Some(0)));
    }

    #[test]
    fn nothing_but_allowed_decisions_is_left_out() {
        let sampler = Sampler::new(Sampling::OneIn(NonZeroU32::MAX));
        assert_eq!(left_out(&sampler, RecordKind::Decision, Outcome::Granted), Some(0), "the first");
        assert_eq!(left_out(&sampler, RecordKind::Decision, Outcome::Granted), None);
        for kind in RecordKind::ALL {
            for outcome in Outcome::ALL {
                if (kind, outcome) != (RecordKind::Decision, Outcome::Granted) {
                    assert!(left_out(&sampler, kind, outcome).is_some(), "{kind:?} {outcome:?}");
                }
            }
        }
    }

    #[test]
    fn what_was_left_out_is_told_once_and_not_lost() {
        let sampler = Sampler::new(Sampling::OneIn(NonZeroU32::MAX));
        for _ in 0..5 {
            sampler.keep(record(RecordKind::Decision, Outcome::Granted));
        }
        let told = left_out(&sampler, RecordKind::Refusal, Outcome::Refused).unwrap();
        assert_eq!(told, 4);
        sampler.give_back(told);
        assert_eq!((sampler.take_left_out(), sampler.take_left_out()), (4, 0));
    }

    #[test]
    fn the_rule_is_written_in_one_of_two_ways() {
        let parse = serde_json::from_str::<Sampling>;
        assert_eq!(parse("\"all\"").unwrap(), Sampling::All);
        assert_eq!(parse(r#"{"one_in":10}"#).unwrap(), Sampling::OneIn(NonZeroU32::new(10).unwrap()));
        for bad in ["\"none\"", r#"{"one_in":0}"#, r#"{"one_in":-1}"#, "true"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
