//! Digests of one size, sorted, with the paths that they are accepted for.

/// What a table has of a digest at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Found {
    /// Nothing.
    Unknown,
    /// The digest, for other paths.
    OtherPath,
    /// The digest for this path, or for any.
    Accepted,
}

/// A path within the bytes of all paths; any path where it is empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathSpan {
    start: u32,
    length: u16,
}

impl PathSpan {
    pub(super) const ANY: Self = Self { start: 0, length: 0 };

    /// Appends a path; `None` where it has more than 64 KiB, or all of them more than 4 GiB.
    pub(super) fn append(paths: &mut Vec<u8>, path: &[u8]) -> Option<Self> {
        let span = Self { start: u32::try_from(paths.len()).ok()?, length: u16::try_from(path.len()).ok()? };
        paths.extend_from_slice(path);
        Some(span)
    }

    pub(super) fn of(self, paths: &[u8]) -> &[u8] {
        let start = usize::try_from(self.start).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::from(self.length));
        paths.get(start..end).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Record<const N: usize> {
    digest: [u8; N],
    path: PathSpan,
}

/// Sorted records behind an index by their first bits, with some four records for each value of it: digests are spread
/// evenly, so that the index says where to look, in one step and at a quarter of a byte for each record.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    shift: u32,
    index: Box<[u32]>,
    records: Box<[Record<N>]>,
}

/// The first eight bytes; digests sort by them first.
fn front<const N: usize>(digest: &[u8; N]) -> u64 {
    digest.first_chunk().map_or(0, |front| u64::from_be_bytes(*front))
}

fn bucket(front: u64, shift: u32) -> usize {
    usize::try_from(front.checked_shr(shift).unwrap_or(0)).unwrap_or(usize::MAX)
}

impl<const N: usize> Record<N> {
    pub(super) fn new(digest: [u8; N], path: PathSpan) -> Self {
        Self { digest, path }
    }
}

impl<const N: usize> Table<N> {
    /// `paths` are those that the records speak of.
    pub(super) fn new(mut records: Vec<Record<N>>, paths: &[u8]) -> Self {
        records.sort_unstable_by(|a, b| {
            (front(&a.digest).cmp(&front(&b.digest)))
                .then_with(|| a.digest.cmp(&b.digest))
                .then_with(|| a.path.of(paths).cmp(b.path.of(paths)))
        });
        records.dedup_by(|a, b| a.digest == b.digest && a.path.of(paths) == b.path.of(paths));
        let bits = (records.len() / 4).checked_ilog2().unwrap_or(0);
        let shift = u64::BITS - bits;
        let mut index = vec![0u32; (1 << bits) + 1];
        // `DigestSet` takes fewer than 2^32 records.
        for (position, record) in (1u32..).zip(&records) {
            if let Some(end) = index.get_mut(bucket(front(&record.digest), shift) + 1) {
                *end = position;
            }
        }
        // Where no record begins with these bits: the end of those before.
        let mut last = 0;
        for end in &mut index {
            last = last.max(*end);
            *end = last;
        }
        Self { shift, index: index.into(), records: records.into() }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.index) + size_of_val(&*self.records)
    }

    /// Each record, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8; N], PathSpan)> {
        self.records.iter().map(|record| (&record.digest, record.path))
    }

    #[inline]
    pub(super) fn find(&self, digest: &[u8; N], path: &[u8], paths: &[u8]) -> Found {
        let bucket = bucket(front(digest), self.shift);
        let end = |at: usize| self.index.get(at).and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
        let near = self.records.get(end(bucket)..end(bucket + 1)).unwrap_or_default();
        let mut found = Found::Unknown;
        for record in near.iter().filter(|record| record.digest == *digest) {
            let accepted = record.path.of(paths);
            if accepted.is_empty() || accepted == path {
                return Found::Accepted;
            }
            found = Found::OtherPath;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::crypto::sha256;

    fn digest(number: u32) -> [u8; 32] {
        sha256(&[&number.to_be_bytes()])
    }

    #[test]
    fn every_record_of_tables_of_any_size_is_found_and_nothing_else() {
        for size in [0, 1, 2, 3, 4, 7, 8, 9, 100, 5000] {
            let mut paths = Vec::new();
            let records = (0..size).map(|number| {
                let path = PathSpan::append(&mut paths, format!("/{number}").as_bytes()).unwrap();
                Record::new(digest(number), path)
            });
            let table = Table::new(records.collect(), &paths);
            for number in 0..size {
                let path = format!("/{number}");
                assert_eq!(table.find(&digest(number), path.as_bytes(), &paths), Found::Accepted);
                assert_eq!(table.find(&digest(number), b"/", &paths), Found::OtherPath);
                assert_eq!(table.find(&digest(size + number), path.as_bytes(), &paths), Found::Unknown);
            }
            assert_eq!(table.find(&[0; 32], b"/0", &paths), Found::Unknown);
            assert_eq!(table.find(&[0xff; 32], b"/0", &paths), Found::Unknown);
        }
    }

    #[test]
    fn digests_with_one_front_are_told_apart() {
        let mut records = Vec::new();
        for number in 0..=255 {
            let mut digest = [7; 32];
            digest[31] = number;
            records.push(Record::new(digest, PathSpan::ANY));
        }
        records.extend(records.clone());
        let table = Table::new(records, &[]);
        assert_eq!(table.len(), 256);
        for number in 0..=255 {
            let mut digest = [7; 32];
            digest[31] = number;
            assert_eq!(table.find(&digest, b"/x", &[]), Found::Accepted);
            digest[30] = 8;
            assert_eq!(table.find(&digest, b"/x", &[]), Found::Unknown);
        }
    }
}
