//! The chain: the hash of each record covers the record and the hash before it.
//!
//! `h(0)` is 32 zero bytes, `h(n) = SHA-256(h(n-1) ‖ line(n))`, where the line is that of the record with its number,
//! without a line break. Records are kept in segments, one for each commit of the store, each with the hash before it and
//! the hash of each of its records, so that of a segment that was changed it can be said where.

use std::fmt;
use std::str::FromStr;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use serde::{Deserialize, Serialize};

use super::record::{AuditRecord, LineError, SequencedRecord};

/// A hash of the chain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

/// A text is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 lower-case hex digits")]
pub struct NotAHash;

impl Hash {
    /// Of no record.
    pub const NONE: Self = Self([0; 32]);

    /// One out of the store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// That of a line which follows what has this hash.
    #[must_use]
    pub fn then(&self, line: &[u8]) -> Self {
        Self(sha256(&[&self.0, line]))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| NotAHash)?;
        bytes.try_into().map(Self).map_err(|_| NotAHash)
    }
}

impl TryFrom<String> for Hash {
    type Error = NotAHash;

    fn try_from(text: String) -> Result<Self, NotAHash> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

/// A record in bytes, that still lacks its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    at: Timestamp,
    /// A JSON object.
    bytes: Vec<u8>,
}

const NUMBER: &str = "{\"seq\":";

impl Encoded {
    pub(super) const fn new(at: Timestamp, bytes: Vec<u8>) -> Self {
        Self { at, bytes }
    }

    /// The line of this record at a place of the trail.
    #[must_use]
    pub fn line(&self, sequence: u64) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.bytes.len() + 32);
        line.extend_from_slice(format!("{NUMBER}{sequence},").as_bytes());
        line.extend_from_slice(self.bytes.get(1..).unwrap_or_default());
        line
    }

    /// The number of a line, and the object that is left of it.
    pub(super) fn unnumbered(line: &[u8]) -> Option<(u64, Vec<u8>)> {
        let rest = line.strip_prefix(NUMBER.as_bytes())?;
        let end = rest.iter().position(|byte| *byte == b',')?;
        let (number, rest) = rest.split_at_checked(end)?;
        let number =
            std::str::from_utf8(number).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
        let mut object = rest.to_vec();
        *object.first_mut()? = b'{';
        Some((number.parse().ok()?, object))
    }
}

/// How far a chain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The number of the last record; 0: there is none.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Default for Head {
    fn default() -> Self {
        Self { sequence: 0, hash: Hash::NONE }
    }
}

/// Consecutive records, as they are kept: what a segment says of itself is not verified by being one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The number of its first record.
    pub first: u64,
    /// The hash before that.
    pub previous: Hash,
    /// The hash of each record.
    pub links: Vec<Hash>,
    /// The hash of the last record.
    pub hash: Hash,
    /// The earliest and the latest time of a record.
    pub times: (Timestamp, Timestamp),
    /// The lines, each with its line break.
    pub body: Vec<u8>,
}

impl Segment {
    /// Records at most.
    pub const RECORDS: usize = 4096;
    /// Bytes of the lines at most.
    pub const BYTES: usize = 1024 * 1024;

    /// How far the chain goes with it.
    #[must_use]
    pub fn head(&self) -> Head {
        let count = u64::try_from(self.links.len()).unwrap_or(u64::MAX);
        let sequence = self.first.saturating_add(count).saturating_sub(1);
        Head { sequence, hash: self.hash }
    }

    /// Each line, without its line break.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let body = self.body.strip_suffix(b"\n").unwrap_or(&self.body);
        // Nothing splits into one empty line.
        let empty = self.body.is_empty();
        body.split(|byte| *byte == b'\n').filter(move |_| !empty)
    }

    /// Each record, the first first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = Result<SequencedRecord, LineError>> {
        self.lines().map(SequencedRecord::parse)
    }
}

impl Head {
    /// Puts records behind the head, in segments that keep their bounds.
    #[must_use]
    pub fn extend<'a>(self, records: impl IntoIterator<Item = &'a Encoded>) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        let mut head = self;
        for record in records {
            let sequence = head.sequence + 1;
            let line = record.line(sequence);
            let fits = |segment: &&mut Segment| {
                segment.links.len() < Segment::RECORDS && segment.body.len() + line.len() < Segment::BYTES
            };
            let hash = head.hash.then(&line);
            if let Some(segment) = segments.last_mut().filter(fits) {
                segment.links.push(hash);
                segment.hash = hash;
                segment.times = (segment.times.0.min(record.at), segment.times.1.max(record.at));
                segment.body.extend_from_slice(&line);
                segment.body.push(b'\n');
            } else {
                let (first, previous, mut body) = (sequence, head.hash, line);
                body.push(b'\n');
                let (links, times) = (vec![hash], (record.at, record.at));
                segments.push(Segment { first, previous, links, hash, times, body });
            }
            head = Head { sequence, hash };
        }
        segments
    }
}

const _: () = assert!(AuditRecord::MAX < Segment::BYTES, "a record fits into a segment");

#[cfg(test)]
mod tests {
    use super::super::id::RecordId;
    use super::super::record::{Actor, Outcome, RecordKind};
    use super::*;

    fn record(millis: i64, detail: &str) -> Encoded {
        let id = RecordId::of(Timestamp::from_millis(millis), [0; 10]);
        AuditRecord::new(id, RecordKind::Start, "start", Actor::Verifier, Outcome::Done, "started")
            .because(detail)
            .encode()
    }

    #[test]
    fn each_hash_covers_the_line_and_the_hash_before() {
        let records = [record(5, "a"), record(3, "b"), record(9, "c")];
        let segments = Head::default().extend(&records);
        let [segment] = &segments[..] else { panic!("{segments:?}") };
        let mut expected = [0; 32];
        for ((sequence, line), (record, link)) in
            (1..).zip(segment.lines()).zip(records.iter().zip(&segment.links))
        {
            assert_eq!(line, record.line(sequence));
            expected = sha256(&[&expected, line]);
            assert_eq!(link.as_bytes(), &expected);
        }
        let millis = |time: Timestamp| time.as_millis();
        assert_eq!((millis(segment.times.0), millis(segment.times.1)), (3, 9));
        assert_eq!(segment.head(), Head { sequence: 3, hash: Hash::from_bytes(expected) });
        let more = segment.head().extend(&[record(10, "d")]);
        assert_eq!((more[0].first, more[0].previous), (4, segment.head().hash));
        assert_eq!(segment.records().map(|record| record.unwrap().sequence).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn segments_keep_their_bounds() {
        assert!(Head::default().extend(&[]).is_empty());
        let small = vec![record(1, ""); Segment::RECORDS + 1];
        let large = vec![record(1, &"x".repeat(900)); 2000];
        for records in [small, large] {
            let segments = Head::default().extend(&records);
            assert!(segments.len() > 1);
            let mut head = Head::default();
            for segment in &segments {
                assert!(segment.links.len() <= Segment::RECORDS && segment.body.len() <= Segment::BYTES);
                assert_eq!((segment.first, segment.previous), (head.sequence + 1, head.hash));
                assert_eq!(segment.lines().count(), segment.links.len());
                head = segment.head();
            }
            assert_eq!(usize::try_from(head.sequence).ok(), Some(records.len()));
        }
    }

    #[test]
    fn a_hash_is_hex() {
        let hash = Hash::NONE.then(b"a");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!("00".parse::<Hash>(), Err(NotAHash));
    }
}
