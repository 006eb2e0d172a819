//! Whether a trail is whole, and if not, where it is not.
//!
//! Established where no damage is found: records are numbered without a gap, in order, none twice · each line is a record
//! in its one form · each hash covers its record and the hash before · the trail begins where the last checkpoint says, or
//! before · every checkpoint is signed by a key that is known, and the trail has its hash at its place · the trail goes as
//! far as the last of them, and as the one that the caller knows.
//!
//! Whoever can write to the store and has the key could write another trail: only a checkpoint, or a public key, that the
//! caller keeps elsewhere says that it is this one.

use std::collections::BTreeMap;
use std::fmt;

use super::chain::{Hash, Head, Segment};
use super::checkpoint::{Checkpoint, CheckpointError, PublicKey};
use super::record::{LineError, SequencedRecord};

/// A place where a trail is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A record is not what was written, or its hash is not.
    #[error("record {sequence} was changed: {why}")]
    Changed {
        /// Its number.
        sequence: u64,
        /// What does not fit.
        why: Misfit,
    },
    /// Records are not there.
    #[error("{} missing", Span(*.first, *.last, "is", "are"))]
    Missing {
        /// The number of the first.
        first: u64,
        /// The number of the last.
        last: u64,
    },
    /// A record is there, but not at its place.
    #[error("record {sequence} is out of order: it comes after record {after}")]
    OutOfOrder {
        /// Its number.
        sequence: u64,
        /// The number of the record before it.
        after: u64,
    },
    /// A record is there again.
    #[error("record {sequence} is there twice: again after record {after}")]
    Duplicated {
        /// Its number.
        sequence: u64,
        /// The number of the record before it.
        after: u64,
    },
    /// What the segment says of the hash before it is not the hash before it.
    #[error("record {sequence} does not follow the record before it: something was put in its place")]
    Broken {
        /// The number of the first record that does not follow.
        sequence: u64,
    },
    /// The trail begins later than the last checkpoint says.
    #[error("the trail begins with record {found}, by its last checkpoint with {expected}: {} missing", Span(*.expected, found - 1, "is", "are"))]
    BeginsLate {
        /// The number of the first record.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// The trail ends before a checkpoint.
    #[error(
        "the trail ends with record {last}, {checkpoint} covers {covered} records: those after {last} were cut off"
    )]
    EndsEarly {
        /// The number of the last record.
        last: u64,
        /// Which checkpoint.
        checkpoint: Which,
        /// The number of the last record that it covers.
        covered: u64,
    },
    /// The trail has another hash where a checkpoint is of.
    #[error(
        "{checkpoint} is of another trail: record {sequence}, or one before it, is not the one that it covers"
    )]
    OtherTrail {
        /// Which checkpoint.
        checkpoint: Which,
        /// The number of the last record that it covers.
        sequence: u64,
    },
    /// A checkpoint is not the verifier's.
    #[error("{checkpoint}, of record {sequence}: {why}")]
    Checkpoint {
        /// Which checkpoint.
        checkpoint: Which,
        /// The number of the last record that it covers.
        sequence: u64,
        /// Why.
        why: CheckpointError,
    },
    /// A line of an export is not what was exported.
    #[error("line {line}: {why}")]
    Line {
        /// Its number in the file, from 1 on.
        line: u64,
        /// Why.
        why: String,
    },
    /// The checkpoint that the caller knows is of records that are not in what was verified.
    #[error(
        "the checkpoint that you gave is of record {covered}, the trail begins with {first}: verify what was archived, together with the trail"
    )]
    BeforeBegin {
        /// The number of the last record that it covers.
        covered: u64,
        /// The number of the first record.
        first: u64,
    },
}

impl Damage {
    /// The record where it is, or nothing where it is of no record.
    #[must_use]
    pub const fn sequence(&self) -> Option<u64> {
        match self {
            Self::Changed { sequence, .. }
            | Self::OutOfOrder { sequence, .. }
            | Self::Duplicated { sequence, .. }
            | Self::Broken { sequence }
            | Self::OtherTrail { sequence, .. }
            | Self::Checkpoint { sequence, .. } => Some(*sequence),
            Self::Missing { first, .. } => Some(*first),
            Self::BeginsLate { expected, .. } => Some(*expected),
            Self::EndsEarly { last, .. } => Some(last.saturating_add(1)),
            Self::BeforeBegin { covered, .. } => Some(*covered),
            Self::Line { .. } => None,
        }
    }
}

/// What does not fit about a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// Its line.
    Line(LineError),
    /// Its hash.
    Hash,
    /// There is no hash for it, or one too many.
    Links,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(error) => error.fmt(f),
            Self::Hash => f.write_str("it does not come to its hash"),
            Self::Links => f.write_str("the hashes of its segment were changed"),
        }
    }
}

/// A checkpoint, among several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// One that is kept with the trail: the how manieth, from 1 on.
    Kept(u64),
    /// The last of these, for where it says that the trail begins.
    Anchor,
    /// The one that the caller knows.
    Known,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(number) => write!(f, "checkpoint {number}"),
            Self::Anchor => f.write_str("the beginning, by the last checkpoint,"),
            Self::Known => f.write_str("the checkpoint that you gave"),
        }
    }
}

struct Span(u64, u64, &'static str, &'static str);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(first, last, one, many) = self;
        if first == last {
            write!(f, "record {first} {one}")
        } else {
            write!(f, "records {first} to {last} {many}")
        }
    }
}

/// What a trail came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// The number of the first record; 0: there is none.
    pub first: u64,
    /// How far it goes.
    pub head: Head,
    /// How many records were looked at.
    pub records: u64,
    /// How many checkpoints stand.
    pub checkpoints: u64,
    /// How many records were written after the last checkpoint that stands: these could be cut off unseen.
    pub after_last_checkpoint: u64,
    /// Where it is not what was written, as far as it was told ([`Walk::DAMAGES`]).
    pub damages: Vec<Damage>,
    /// How many places there are.
    pub damaged: u64,
}

impl Verification {
    /// Whether it is whole.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.damaged == 0
    }
}

/// A verification under way: checkpoints first, then segments in the order in which they are kept.
#[derive(Debug)]
pub struct Walk<'a> {
    keys: &'a [PublicKey],
    /// What the trail has to have, by the record that it is the hash of.
    expected: BTreeMap<u64, Vec<(Which, Hash)>>,
    /// The checkpoint that says last where the trail begins.
    last: Option<Checkpoint>,
    counted: u64,
    standing: u64,
    /// The last record that a checkpoint which stands is of.
    covered: u64,
    first: u64,
    records: u64,
    /// As far as the trail was walked.
    head: Option<Head>,
    /// Gaps that were passed, from the first record to the last: what comes later is out of order, and not there twice.
    gaps: BTreeMap<u64, u64>,
    /// The record that was looked at last, to say where one stands.
    before: u64,
    damages: Vec<Damage>,
    damaged: u64,
}

impl<'a> Walk<'a> {
    /// Places that are told of: of more, only how many there are.
    pub const DAMAGES: usize = 1000;

    /// Begins, with the keys that may have signed, and the checkpoint that the caller knows.
    #[must_use]
    pub fn new(keys: &'a [PublicKey], known: Option<&'a Checkpoint>) -> Self {
        let mut walk = Self {
            keys,
            expected: BTreeMap::new(),
            last: None,
            counted: 0,
            standing: 0,
            covered: 0,
            first: 0,
            records: 0,
            head: None,
            gaps: BTreeMap::new(),
            before: 0,
            damages: Vec::new(),
            damaged: 0,
        };
        if let Some(known) = known {
            walk.expect(Which::Known, known);
        }
        walk
    }

    /// A checkpoint that is kept with the trail, in the order of making, before the segments.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        self.counted += 1;
        if self.expect(Which::Kept(self.counted), checkpoint) {
            let later = |last: &Checkpoint| last.anchor.sequence <= checkpoint.anchor.sequence;
            if self.last.as_ref().is_none_or(later) {
                self.last = Some(checkpoint.clone());
            }
        }
    }

    fn expect(&mut self, which: Which, checkpoint: &Checkpoint) -> bool {
        let sequence = checkpoint.head.sequence;
        if let Err(why) = checkpoint.authenticate(self.keys) {
            self.damage(Damage::Checkpoint { checkpoint: which, sequence, why });
            return false;
        }
        self.expected.entry(sequence).or_default().push((which, checkpoint.head.hash));
        true
    }

    /// A line of an export, which is not what was exported.
    pub fn line(&mut self, line: u64, why: String) {
        self.damage(Damage::Line { line, why });
    }

    fn damage(&mut self, damage: Damage) {
        self.damaged += 1;
        if self.damages.len() < Self::DAMAGES {
            self.damages.push(damage);
        }
    }

    /// The next segment.
    pub fn segment(&mut self, segment: &Segment) {
        let head = match self.head {
            Some(head) => head,
            None => self.begin(segment),
        };
        let last = segment.head().sequence;
        if segment.first <= head.sequence {
            // Records that were passed: each is told of at its place.
            for line in segment.lines() {
                match SequencedRecord::parse(line) {
                    Ok(record) => self.misplaced(record.sequence),
                    Err(why) => {
                        self.damage(Damage::Changed { sequence: segment.first, why: Misfit::Line(why) })
                    }
                }
            }
            return;
        }
        let next = head.sequence.saturating_add(1);
        if segment.first > next {
            self.gap(next, segment.first - 1);
        } else if segment.previous != head.hash {
            self.damage(Damage::Broken { sequence: segment.first });
        }
        self.before = head.sequence;
        self.lines_of(segment);
        self.meet(segment);
        self.head = Some(Head { sequence: last, hash: segment.hash });
    }

    /// The trail may begin before the anchor: what was signed off is perhaps not taken away yet.
    fn begin(&mut self, segment: &Segment) -> Head {
        self.first = segment.first;
        let before = Head { sequence: segment.first.saturating_sub(1), hash: segment.previous };
        let anchor = self.last.as_ref().map_or_else(Head::default, |last| last.anchor);
        if before.sequence > anchor.sequence {
            let expected = anchor.sequence.saturating_add(1);
            self.damage(Damage::BeginsLate { found: segment.first, expected });
        } else if before.sequence == anchor.sequence && before.hash != anchor.hash {
            self.damage(Damage::Broken { sequence: segment.first });
        } else if before.sequence == 0 && before.hash != Hash::NONE {
            self.damage(Damage::Broken { sequence: 1 });
        }
        if before.sequence < anchor.sequence {
            self.expected.entry(anchor.sequence).or_default().push((Which::Anchor, anchor.hash));
        }
        self.meet_at(before.sequence, before.hash);
        before
    }

    fn gap(&mut self, first: u64, last: u64) {
        /// Gaps that are remembered, to tell what is out of order from what is there twice.
        const GAPS: usize = 100_000;
        if self.gaps.len() < GAPS {
            self.gaps.insert(first, last);
        } else {
            self.damage(Damage::Missing { first, last });
        }
    }

    /// A record at another place than its own.
    fn misplaced(&mut self, sequence: u64) {
        let after = self.before;
        let gap = self.gaps.range(..=sequence).next_back().map(|(first, last)| (*first, *last));
        let Some((first, last)) = gap.filter(|(_, last)| sequence <= *last) else {
            return self.damage(Damage::Duplicated { sequence, after });
        };
        // It is not missing: what is left of the gap is.
        self.gaps.remove(&first);
        if first < sequence {
            self.gaps.insert(first, sequence - 1);
        }
        if sequence < last {
            self.gaps.insert(sequence + 1, last);
        }
        self.damage(Damage::OutOfOrder { sequence, after });
    }

    fn lines_of(&mut self, segment: &Segment) {
        let last = segment.head().sequence;
        if segment.links.last() != Some(&segment.hash) {
            self.damage(Damage::Changed { sequence: last, why: Misfit::Links });
        }
        let mut next = segment.first;
        for line in segment.lines() {
            self.records += 1;
            let sequence = match SequencedRecord::parse(line) {
                Ok(record) => record.sequence,
                Err(why) => {
                    self.damage(Damage::Changed { sequence: next, why: Misfit::Line(why) });
                    self.before = next;
                    next = next.saturating_add(1);
                    continue;
                }
            };
            if sequence < next {
                self.misplaced(sequence);
                continue;
            }
            if sequence > last {
                // Its number is of another segment; where one is missing here, it was changed.
                self.damage(Damage::Changed { sequence: next, why: Misfit::Links });
                next = next.saturating_add(1);
                continue;
            }
            if sequence > next {
                self.gap(next, sequence - 1);
            }
            match (link(segment, sequence.checked_sub(1)), link(segment, Some(sequence))) {
                (Some(before), Some(here)) if before.then(line) == here => {}
                (Some(_), Some(_)) => self.damage(Damage::Changed { sequence, why: Misfit::Hash }),
                (None, _) | (_, None) => self.damage(Damage::Changed { sequence, why: Misfit::Links }),
            }
            self.before = sequence;
            next = sequence.saturating_add(1);
        }
        if next <= last {
            self.gap(next, last);
        }
    }

    /// Checkpoints of records in this segment.
    fn meet(&mut self, segment: &Segment) {
        if segment.links.is_empty() {
            return;
        }
        let numbers: Vec<_> =
            self.expected.range(segment.first..=segment.head().sequence).map(|(number, _)| *number).collect();
        for number in numbers {
            self.meet_at(number, link(segment, Some(number)).unwrap_or(Hash::NONE));
        }
    }

    fn meet_at(&mut self, sequence: u64, hash: Hash) {
        for (checkpoint, expected) in self.expected.remove(&sequence).unwrap_or_default() {
            if hash == expected {
                self.standing += u64::from(matches!(checkpoint, Which::Kept(_)));
                self.covered = sequence;
            } else {
                self.damage(Damage::OtherTrail { checkpoint, sequence });
            }
        }
    }

    /// Ends: there are no more segments.
    #[must_use]
    pub fn end(mut self) -> Verification {
        let anchor = self.last.as_ref().map(|last| last.anchor);
        let head = self.head.or(anchor).unwrap_or_default();
        if self.head.is_none() {
            // Everything was taken away, which the last checkpoint has to say.
            self.meet_at(head.sequence, head.hash);
        }
        let (first, records) = (self.first, self.records);
        for (sequence, expected) in std::mem::take(&mut self.expected) {
            for (checkpoint, _) in expected {
                if sequence > head.sequence {
                    self.damage(Damage::EndsEarly { last: head.sequence, checkpoint, covered: sequence });
                } else if checkpoint == Which::Known && sequence >= first {
                    self.damage(Damage::OtherTrail { checkpoint, sequence });
                } else if checkpoint == Which::Known {
                    self.damage(Damage::BeforeBegin { covered: sequence, first });
                }
            }
        }
        for (first, last) in std::mem::take(&mut self.gaps) {
            self.damage(Damage::Missing { first, last });
        }
        self.damages.sort_by_key(Damage::sequence);
        let after_last_checkpoint = head.sequence.saturating_sub(self.covered);
        Verification {
            first,
            head,
            records,
            checkpoints: self.standing,
            after_last_checkpoint,
            damages: self.damages,
            damaged: self.damaged,
        }
    }
}

/// The hash of a record of a segment, or of the one before its first.
fn link(segment: &Segment, sequence: Option<u64>) -> Option<Hash> {
    let sequence = sequence?;
    if sequence.checked_add(1) == Some(segment.first) {
        return Some(segment.previous);
    }
    let index = usize::try_from(sequence.checked_sub(segment.first)?).ok()?;
    segment.links.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::AuditKey;
    use super::super::id::RecordId;
    use super::super::record::{Actor, AuditRecord, Outcome, RecordKind};
    use super::*;
    use proptest::prelude::*;
    use rootbound_common::clock::Timestamp;
    use rootbound_common::random;

    const AT: Timestamp = Timestamp::from_millis(1_780_272_000_123);

    /// Segments of so many records each.
    fn trail(sizes: &[usize]) -> Vec<Segment> {
        let (mut head, mut segments) = (Head::default(), Vec::new());
        for size in sizes {
            let records = (0..*size).map(|index| {
                let random = u8::try_from(index).unwrap();
                let id = RecordId::of(AT, [random; 10]);
                let (actor, kind) = (Actor::Verifier, RecordKind::Decision);
                AuditRecord::new(id, kind, "read", actor, Outcome::Granted, "ok")
                    .because(&head.sequence.to_string())
                    .encode()
            });
            let made = head.extend(&records.collect::<Vec<_>>());
            head = made.last().unwrap().head();
            segments.extend(made);
        }
        segments
    }

    fn verify(
        segments: &[Segment],
        checkpoints: &[Checkpoint],
        keys: &[PublicKey],
        known: Option<&Checkpoint>,
    ) -> Verification {
        let mut walk = Walk::new(keys, known);
        checkpoints.iter().for_each(|checkpoint| walk.checkpoint(checkpoint));
        segments.iter().for_each(|segment| walk.segment(segment));
        walk.end()
    }

    fn damages(segments: &[Segment]) -> Vec<Damage> {
        verify(segments, &[], &[], None).damages
    }

    fn lines(segment: &Segment) -> Vec<Vec<u8>> {
        segment.lines().map(<[u8]>::to_vec).collect()
    }

    fn with_lines(segment: &Segment, lines: &[Vec<u8>]) -> Segment {
        let body = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
        Segment { body, ..segment.clone() }
    }

    fn head_of(segments: &[Segment]) -> Head {
        segments.last().unwrap().head()
    }

    #[test]
    fn whole_trail_has_no_damage() {
        let segments = trail(&[1, 5, 3]);
        let key = AuditKey::generate(&mut random::system());
        let checkpoints = [
            key.sign(Head::default(), head_of(&segments[..2]), AT),
            key.sign(Head::default(), head_of(&segments[..2]), AT),
        ];
        let keys = [key.public().clone()];
        let verification = verify(&segments, &checkpoints, &keys, Some(&checkpoints[0]));
        assert!(verification.is_whole(), "{:?}", verification.damages);
        assert_eq!((verification.first, verification.records, verification.head), (1, 9, head_of(&segments)));
        assert_eq!((verification.checkpoints, verification.after_last_checkpoint), (2, 3));
        let nothing = verify(&[], &[], &[], None);
        assert!(nothing.is_whole() && nothing.records == 0);
    }

    #[test]
    fn record_that_was_swapped_is_out_of_order_and_none_is_missing() {
        let segments = trail(&[1, 5]);
        let mut swapped = lines(&segments[1]);
        swapped.swap(1, 2);
        let damaged = [segments[0].clone(), with_lines(&segments[1], &swapped)];
        assert_eq!(damages(&damaged), [Damage::OutOfOrder { sequence: 3, after: 4 }]);
        let segments = trail(&[2, 3, 2]);
        let damaged = [segments[0].clone(), segments[2].clone(), segments[1].clone()];
        let found: Vec<_> = damages(&damaged).iter().map(Damage::sequence).collect();
        assert_eq!(found, [Some(3), Some(4), Some(5)]);
        assert!(damages(&damaged).iter().all(|damage| matches!(damage, Damage::OutOfOrder { after: 7, .. })));
    }

    #[test]
    fn record_that_is_there_twice_is_not_out_of_order() {
        let segments = trail(&[3, 2]);
        let mut doubled = lines(&segments[0]);
        doubled.insert(2, doubled[0].clone());
        let damaged = [with_lines(&segments[0], &doubled), segments[1].clone()];
        assert_eq!(damages(&damaged), [Damage::Duplicated { sequence: 1, after: 2 }]);
        let damaged = [segments[0].clone(), segments[0].clone(), segments[1].clone()];
        assert_eq!(damages(&damaged).len(), 3);
        assert_eq!(damages(&damaged)[2], Damage::Duplicated { sequence: 3, after: 3 });
    }

    #[test]
    fn segments_that_are_missing_or_put_there_are_found() {
        let segments = trail(&[2, 3, 2]);
        let damaged = [segments[0].clone(), segments[2].clone()];
        assert_eq!(damages(&damaged), [Damage::Missing { first: 3, last: 5 }]);
        let other = segments[1].head().extend(&[AuditRecord::new(
            RecordId::of(AT, [9; 10]),
            RecordKind::Stop,
            "stop",
            Actor::Verifier,
            Outcome::Done,
            "put there",
        )
        .encode()]);
        let forged = Segment { first: 6, previous: segments[0].hash, ..other[0].clone() };
        let damaged = [segments[0].clone(), segments[1].clone(), forged];
        assert_eq!(damages(&damaged)[0], Damage::Broken { sequence: 6 });
        // The attacker has made all the hashes anew from record 3 on: only what was signed says so.
        let rewritten: Vec<_> = trail(&[2, 3]).into_iter().chain(other).collect();
        let key = AuditKey::generate(&mut random::system());
        let checkpoint = key.sign(Head::default(), head_of(&segments), AT);
        let keys = [key.public().clone()];
        let ends = verify(&rewritten, &[], &keys, Some(&checkpoint)).damages;
        assert_eq!(ends, [Damage::EndsEarly { last: 6, checkpoint: Which::Known, covered: 7 }]);
        let checkpoint = key.sign(Head::default(), Head { sequence: 6, ..head_of(&segments) }, AT);
        let other = verify(&rewritten, &[checkpoint], &keys, None).damages;
        assert_eq!(other, [Damage::OtherTrail { checkpoint: Which::Kept(1), sequence: 6 }]);
    }

    #[test]
    fn trail_that_was_cut_off_at_either_end_is_found_by_its_checkpoints() {
        let segments = trail(&[2, 3, 2]);
        let key = AuditKey::generate(&mut random::system());
        let keys = [key.public().clone()];
        let kept = [
            key.sign(Head::default(), segments[0].head(), AT),
            key.sign(segments[0].head(), head_of(&segments), AT),
        ];
        let found = |segments: &[Segment]| verify(segments, &kept, &keys, None).damages;
        assert_eq!(found(&segments), [], "signed off and not taken away yet");
        assert_eq!(found(&segments[1..]), []);
        assert_eq!(found(&segments[2..]), [Damage::BeginsLate { found: 6, expected: 3 }]);
        let early = Damage::EndsEarly { last: 5, checkpoint: Which::Kept(2), covered: 7 };
        assert_eq!(found(&segments[1..2]), [early]);
        let everything = Damage::EndsEarly { last: 2, checkpoint: Which::Kept(2), covered: 7 };
        assert_eq!(found(&[]), [everything]);
        let all_archived = [key.sign(head_of(&segments), head_of(&segments), AT)];
        assert!(verify(&[], &all_archived, &keys, None).is_whole());
        let old = verify(
            &segments[1..],
            &kept,
            &keys,
            Some(&key.sign(Head::default(), Head { sequence: 1, ..Head::default() }, AT)),
        );
        assert_eq!(old.damages, [Damage::BeforeBegin { covered: 1, first: 3 }]);
        let other_anchor =
            [key.sign(Head { hash: Hash::NONE, ..segments[0].head() }, head_of(&segments), AT)];
        assert_eq!(
            verify(&segments[1..], &other_anchor, &keys, None).damages,
            [Damage::Broken { sequence: 3 }]
        );
        let off = [Damage::OtherTrail { checkpoint: Which::Anchor, sequence: 2 }];
        assert_eq!(verify(&segments, &other_anchor, &keys, None).damages, off);
    }

    #[test]
    fn checkpoint_that_nobody_known_signed_is_found() {
        let segments = trail(&[2]);
        let (key, other) =
            (AuditKey::generate(&mut random::system()), AuditKey::generate(&mut random::system()));
        let good = key.sign(Head::default(), head_of(&segments), AT);
        let bad = Checkpoint { at: Timestamp::from_millis(0), ..good.clone() };
        let keys = [key.public().clone()];
        let found = |checkpoint: &Checkpoint| {
            verify(&segments, std::slice::from_ref(checkpoint), &keys, None).damages
        };
        let damage = |why| [Damage::Checkpoint { checkpoint: Which::Kept(1), sequence: 2, why }];
        assert_eq!(found(&bad), damage(CheckpointError::Signature));
        let unknown = CheckpointError::UnknownKey(other.public().id());
        assert_eq!(found(&other.sign(Head::default(), head_of(&segments), AT)), damage(unknown));
    }

    #[test]
    fn lines_and_hashes_that_were_changed_are_told_apart() {
        let segments = trail(&[3]);
        let mut garbage = lines(&segments[0]);
        garbage[1] = b"{}".to_vec();
        let found = damages(&[with_lines(&segments[0], &garbage)]);
        assert_eq!(found, [Damage::Changed { sequence: 2, why: Misfit::Line(LineError::Form) }]);
        let mut relinked = segments[0].clone();
        relinked.links.pop();
        let found = damages(&[relinked]);
        assert!(
            found
                .iter()
                .all(|damage| matches!(damage, Damage::Changed { sequence: 2 | 3, why: Misfit::Links }))
        );
        assert!(!found.is_empty());
        let mut walk = Walk::new(&[], None);
        walk.line(7, "no record".to_owned());
        assert_eq!(walk.end().damages, [Damage::Line { line: 7, why: "no record".to_owned() }]);
    }

    #[derive(Debug, Clone, Copy)]
    enum Attack {
        ChangeByte(usize, u8),
        Drop,
        SwapWithNext,
        Double,
        Renumber,
    }

    fn attack() -> impl Strategy<Value = Attack> {
        prop_oneof![
            (any::<usize>(), 1..=255u8).prop_map(|(place, with)| Attack::ChangeByte(place, with)),
            Just(Attack::Drop),
            Just(Attack::SwapWithNext),
            Just(Attack::Double),
            Just(Attack::Renumber),
        ]
    }

    proptest! {
        /// Also where hashes of the segment are left as they were, or all of the segment's are made anew.
        #[test]
        fn any_single_change_is_found_where_it_is(
            sizes in proptest::collection::vec(1..6usize, 1..5),
            which in any::<prop::sample::Index>(),
            attack in attack(),
            make_hashes_anew in any::<bool>(),
        ) {
            let segments = trail(&sizes);
            let total = segments.iter().map(|segment| segment.links.len()).sum::<usize>();
            let sequence = u64::try_from(which.index(total)).unwrap() + 1;
            let key = AuditKey::generate(&mut random::system());
            let checkpoints = [key.sign(Head::default(), head_of(&segments), AT)];
            let keys = [key.public().clone()];
            prop_assert!(verify(&segments, &checkpoints, &keys, None).is_whole());

            let mut damaged = segments.clone();
            let segment = damaged.iter_mut().find(|segment| segment.head().sequence >= sequence).unwrap();
            let index = usize::try_from(sequence - segment.first).unwrap();
            let mut changed = lines(segment);
            match attack {
                Attack::ChangeByte(place, with) => {
                    let place = place % changed[index].len();
                    changed[index][place] ^= with;
                }
                Attack::Drop => drop(changed.remove(index)),
                Attack::SwapWithNext if index + 1 < changed.len() => changed.swap(index, index + 1),
                Attack::SwapWithNext => return Ok(()),
                Attack::Double => changed.insert(index, changed[index].clone()),
                Attack::Renumber => {
                    let parsed = SequencedRecord::parse(&changed[index]).unwrap();
                    changed[index] = parsed.record.encode().line(sequence + 1);
                }
            }
            let (first, last) = (segment.first, segment.head().sequence);
            *segment = with_lines(segment, &changed);
            if make_hashes_anew {
                let mut hash = segment.previous;
                segment.links = segment.lines().map(|line| { hash = hash.then(line); hash }).collect();
                segment.hash = hash;
            }
            let verification = verify(&damaged, &checkpoints, &keys, None);
            prop_assert!(!verification.is_whole());
            let places: Vec<_> = verification.damages.iter().filter_map(Damage::sequence).collect();
            if make_hashes_anew {
                // Nothing but what follows, and what was signed, says so: the segment is named.
                prop_assert!(places.iter().any(|place| (first..=last + 1).contains(place)), "{places:?}");
            } else {
                let near = |place: &u64| place.abs_diff(sequence) <= 1;
                prop_assert!(places.iter().all(near), "{sequence}: {:?}", verification.damages);
            }
        }
    }
}
