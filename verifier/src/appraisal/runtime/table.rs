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

    /// The same path, where `base` bytes of others come before.
    fn moved(self, base: u32) -> Option<Self> {
        if self.length == 0 {
            return Some(self);
        }
        Some(Self { start: self.start.checked_add(base)?, ..self })
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

/// Sorted records behind an index by their first bits, with one or two records for each value of it: digests are spread
/// evenly, so that the index says where to look, in one step.
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

/// Brings records in the order of their first bits, in one pass: they are spread evenly over it.
fn scatter<const N: usize>(records: &mut Vec<Record<N>>, bits: u32) {
    let shift = u64::BITS - bits;
    let mut starts = vec![0usize; (1 << bits) + 1];
    for record in records.iter() {
        if let Some(count) = starts.get_mut(bucket(front(&record.digest), shift) + 1) {
            *count += 1;
        }
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let mut sorted = vec![Record::new([0; N], PathSpan::ANY); records.len()];
    for record in records.iter() {
        if let Some(start) = starts.get_mut(bucket(front(&record.digest), shift))
            && let Some(place) = sorted.get_mut(*start)
        {
            *place = *record;
            *start += 1;
        }
    }
    *records = sorted;
}

impl<const N: usize> Record<N> {
    pub(super) fn new(digest: [u8; N], path: PathSpan) -> Self {
        Self { digest, path }
    }

    /// The same record, where `base` bytes of other paths come before its own.
    pub(super) fn moved(self, base: u32) -> Option<Self> {
        Some(Self { digest: self.digest, path: self.path.moved(base)? })
    }
}

impl<const N: usize> Table<N> {
    /// Records with one front that are looked at in turn; more are searched.
    const MANY: usize = 16;

    /// `paths` are those that the records speak of.
    pub(super) fn new(mut records: Vec<Record<N>>, paths: &[u8]) -> Self {
        let bits = records.len().checked_ilog2().unwrap_or(0);
        let shift = u64::BITS - bits;
        scatter(&mut records, bits);
        let near =
            |a: &Record<N>, b: &Record<N>| bucket(front(&a.digest), shift) == bucket(front(&b.digest), shift);
        for together in records.chunk_by_mut(near).filter(|together| together.len() > 1) {
            together.sort_unstable_by(|a, b| {
                (a.digest.cmp(&b.digest)).then_with(|| a.path.of(paths).cmp(b.path.of(paths)))
            });
        }
        records.dedup_by(|a, b| a.digest == b.digest && a.path.of(paths) == b.path.of(paths));
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

    /// Where the records with the front of a digest are.
    #[inline]
    fn near(&self, digest: &[u8; N]) -> (usize, usize) {
        let bucket = bucket(front(digest), self.shift);
        let end = |at: usize| self.index.get(at).and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
        (end(bucket), end(bucket + 1))
    }

    /// Brings what [`Table::find`] will look at into the cache. One lookup waits for memory three times, each time for the
    /// next place to look; here the processor fetches for many digests at once, since none waits for another.
    pub(super) fn fetch<const M: usize>(&self, digests: &[Option<&[u8; N]>; M], paths: &[u8]) {
        let mut near = [(0, 0); M];
        for (near, digest) in near.iter_mut().zip(digests) {
            *near = digest.map_or((0, 0), |digest| self.near(digest));
        }
        let mut touched = 0;
        for (start, end) in near {
            let last = end.saturating_sub(1).max(start);
            touched ^=
                self.records.get(start).map_or(0, |record| record.digest.first().copied().unwrap_or(0));
            touched ^= self.records.get(last).map_or(0, |record| record.digest.last().copied().unwrap_or(0));
        }
        for (start, _) in near {
            let path = self.records.get(start).map_or(&[][..], |record| record.path.of(paths));
            touched ^= path.first().copied().unwrap_or(0);
        }
        std::hint::black_box(touched);
    }

    #[inline]
    pub(super) fn find(&self, digest: &[u8; N], path: &[u8], paths: &[u8]) -> Found {
        let (start, end) = self.near(digest);
        let near = self.records.get(start..end).unwrap_or_default();
        if near.len() > Self::MANY {
            // One digest at many paths, as the empty file has in each distribution.
            let sorts_before = |record: &Record<N>| (&record.digest, record.path.of(paths)) < (digest, path);
            let any = near.partition_point(|record| record.digest < *digest);
            let same = near.partition_point(sorts_before);
            let first = near.get(any).filter(|record| record.digest == *digest);
            let of_path = near.get(same).filter(|record| record.digest == *digest);
            return match (first, of_path) {
                (None, _) => Found::Unknown,
                (Some(first), _) if first.path.of(paths).is_empty() => Found::Accepted,
                (Some(_), Some(record)) if record.path.of(paths) == path => Found::Accepted,
                (Some(_), _) => Found::OtherPath,
            };
        }
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
    fn a_digest_at_many_paths_is_found_at_each() {
        for any in [false, true] {
            let mut paths = Vec::new();
            let mut records = vec![Record::new([6; 32], PathSpan::ANY), Record::new([8; 32], PathSpan::ANY)];
            if any {
                records.push(Record::new([7; 32], PathSpan::ANY));
            }
            for number in 0..1000 {
                let path = PathSpan::append(&mut paths, format!("/{number}").as_bytes()).unwrap();
                records.push(Record::new([7; 32], path));
            }
            let table = Table::new(records, &paths);
            for number in 0..1000 {
                assert_eq!(table.find(&[7; 32], format!("/{number}").as_bytes(), &paths), Found::Accepted);
            }
            for path in ["/", "/1000", "/9999", "/zzz", ""] {
                let expected = if any { Found::Accepted } else { Found::OtherPath };
                assert_eq!(table.find(&[7; 32], path.as_bytes(), &paths), expected, "{path}");
            }
            assert_eq!(table.find(&[9; 32], b"/0", &paths), Found::Unknown);
            assert_eq!(table.find(&[8; 32], b"/0", &paths), Found::Accepted);
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
