//! Digest sets: what may run, by digest and path.

use data_encoding::{DecodePartial, HEXLOWER};
use rootbound_common::crypto::{Digest, Hasher};
use rootbound_common::tpm::HashAlgorithm;

use super::table::{Found, PathSpan, Record, Table};
use crate::evidence::ima::{DigestKind, FileDigest, FileHash, Passed, Walk};

/// Accepted digests, each at a path or at any. Parsed and compiled at once, then shared.
///
/// Its text has one digest a line: `sha256:<hex>`, two spaces, and the path or `*`. fs-verity digests are written
/// `verity:sha256:<hex>`. Lines that are empty or begin with `#` say nothing. A space in a path is taken as `_`, as the
/// kernel writes it.
#[derive(Debug)]
pub struct DigestSet {
    content: Tables,
    verity: Tables,
    paths: Box<[u8]>,
    id: [u8; 32],
}

#[derive(Debug)]
struct Tables {
    sha1: Table<20>,
    sha256: Table<32>,
    sha384: Table<48>,
    sha512: Table<64>,
}

#[derive(Debug, Default)]
struct Records {
    sha1: Vec<Record<20>>,
    sha256: Vec<Record<32>>,
    sha384: Vec<Record<48>>,
    sha512: Vec<Record<64>>,
}

/// Why a text is no digest set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestSetError {
    /// Too long.
    #[error("a digest set has at most {} bytes", DigestSet::MAX_BYTES)]
    TooLarge,
    /// Too many digests.
    #[error("a digest set has at most {} digests", DigestSet::MAX_DIGESTS)]
    TooMany,
    /// No digest.
    #[error("a digest set needs at least one digest: an empty one accepts nothing")]
    Empty,
    /// A line is not of the form.
    #[error("line {line}: {rule}")]
    Line {
        /// From 1.
        line: usize,
        /// The rule that is broken.
        rule: &'static str,
    },
}

impl DigestSet {
    /// Bytes of the text. A distribution's whole archive has some 200 MB.
    pub const MAX_BYTES: usize = 512 << 20;
    /// Digests of one set, each pair of digest and path once. What comes before duplicates go, [`Self::MAX_BYTES`] bounds.
    pub const MAX_DIGESTS: usize = 4_000_000;
    /// Bytes of a path: PATH_MAX.
    const MAX_PATH: usize = 4096;

    /// Parses and compiles a text.
    pub fn parse(text: &[u8]) -> Result<Self, DigestSetError> {
        Self::parse_at_most(text, Self::MAX_DIGESTS)
    }

    fn parse_at_most(text: &[u8], most: usize) -> Result<Self, DigestSetError> {
        if text.len() > Self::MAX_BYTES {
            return Err(DigestSetError::TooLarge);
        }
        let Lines { content, verity, paths, said } = Lines::together(text)?;
        if !said {
            return Err(DigestSetError::Empty);
        }
        let (content, verity) = (content.compile(&paths), verity.compile(&paths));
        if content.len().saturating_add(verity.len()) > most {
            return Err(DigestSetError::TooMany);
        }
        let mut hasher = Hasher::new(HashAlgorithm::Sha256);
        for tables in [&content, &verity] {
            tables.canonical(&paths, &mut hasher);
        }
        let mut id = [0; 32];
        for (to, from) in id.iter_mut().zip(hasher.finish().as_bytes()) {
            *to = *from;
        }
        Ok(Self { content, verity, paths: paths.into(), id })
    }

    /// SHA-256 of what the set accepts: two texts that accept the same, in whatever order, have one.
    #[must_use]
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// How many pairs of digest and path there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.content.len() + self.verity.len()
    }

    /// Never: a set without digests is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.content.memory() + self.verity.memory() + self.paths.len()
    }

    /// Brings what [`DigestSet::find`] will look at into the cache, for what most files are measured with.
    pub(super) fn fetch(&self, entries: &[Passed<'_>]) {
        let mut digests = [None; Walk::TOGETHER];
        for (to, passed) in digests.iter_mut().zip(entries) {
            let digest = passed.entry.digest();
            if digest.kind == DigestKind::Content && digest.algorithm == FileHash::Tpm(HashAlgorithm::Sha256)
            {
                *to = digest.bytes.first_chunk();
            }
        }
        self.content.sha256.fetch(&digests, &self.paths);
    }

    #[inline]
    pub(super) fn find(&self, digest: &FileDigest<'_>, path: &[u8]) -> Found {
        let tables = match digest.kind {
            DigestKind::Content => &self.content,
            DigestKind::Verity => &self.verity,
        };
        let FileHash::Tpm(algorithm) = digest.algorithm else { return Found::Unknown };
        tables.find(algorithm, digest.bytes, path, &self.paths)
    }

    /// Digests at any path, without a text.
    pub(super) fn of_digests<'d>(digests: impl Iterator<Item = &'d Digest>) -> Self {
        let mut content = Records::default();
        for digest in digests {
            // A digest has its algorithm's size.
            let _ = content.push(digest.algorithm(), digest.as_bytes(), PathSpan::ANY);
        }
        let content = content.compile(&[]);
        Self { content, verity: Records::default().compile(&[]), paths: Box::default(), id: [0; 32] }
    }
}

/// What lines say.
#[derive(Debug, Default)]
struct Lines {
    content: Records,
    verity: Records,
    paths: Vec<u8>,
    /// Whether any says something.
    said: bool,
}

impl Lines {
    /// Bytes that are read at once; of more, several threads read some each.
    const SHARE: usize = 1 << 20;
    /// Shares of a text, however long it is: one for each core of a small machine, or two.
    const MOST_SHARES: usize = 4;

    /// The lines of a text, as if it were read from its beginning to its end.
    fn together(text: &[u8]) -> Result<Self, DigestSetError> {
        let shares = shares(text, (text.len() / Self::SHARE).clamp(1, Self::MOST_SHARES));
        let read = std::thread::scope(|scope| {
            let reading = shares.iter().map(|share| {
                // Where there is no thread to be had, this one reads it.
                let thread = std::thread::Builder::new().spawn_scoped(scope, || Self::read(share));
                thread.map_err(|_| *share)
            });
            let reading: Vec<_> = if shares.len() > 1 { reading.collect() } else { vec![Err(text)] };
            let read = reading.into_iter().map(|reading| match reading {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(share) => Self::read(share),
            });
            read.collect::<Vec<_>>()
        });
        let mut lines = Self::default();
        let mut before = 1;
        for (share, read) in shares.iter().zip(read) {
            match read.and_then(|read| lines.append(read).map_err(|rule| (0, rule))) {
                Ok(()) => {}
                Err((line, rule)) => return Err(DigestSetError::Line { line: before + line, rule }),
            }
            before += share.iter().filter(|byte| **byte == b'\n').count();
        }
        Ok(lines)
    }

    /// Where a line is not of the form: its number from 0, and the rule.
    fn read(text: &[u8]) -> Result<Self, (usize, &'static str)> {
        let mut lines = Self::default();
        for (number, text) in text.split(|byte| *byte == b'\n').enumerate() {
            if matches!(text.first(), None | Some(b'#')) {
                continue;
            }
            lines.said = true;
            let (kind, rest) = match text.strip_prefix(b"verity:") {
                Some(rest) => (&mut lines.verity, rest),
                None => (&mut lines.content, text),
            };
            kind.line(rest, &mut lines.paths).map_err(|rule| (number, rule))?;
        }
        Ok(lines)
    }

    /// Takes what lines after these say.
    fn append(&mut self, after: Self) -> Result<(), &'static str> {
        if !self.said {
            *self = after;
            return Ok(());
        }
        let base = u32::try_from(self.paths.len()).map_err(|_| TOO_MANY_PATHS)?;
        self.paths.extend_from_slice(&after.paths);
        self.content.append(after.content, base).ok_or(TOO_MANY_PATHS)?;
        self.verity.append(after.verity, base).ok_or(TOO_MANY_PATHS)
    }
}

/// Cuts a text into so many shares of whole lines, about equally long; some may be empty.
fn shares(text: &[u8], count: usize) -> Vec<&[u8]> {
    let (mut shares, mut rest) = (Vec::with_capacity(count), text);
    for left in (2..=count).rev() {
        let about = rest.len() / left;
        let line = rest.iter().skip(about).position(|byte| *byte == b'\n');
        let end = line.map_or(rest.len(), |line| about + line + 1);
        let (share, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        shares.push(share);
        rest = after;
    }
    shares.push(rest);
    shares
}

const TOO_MANY_PATHS: &str = "the paths have more than 4 GiB";

impl Records {
    /// Takes records whose paths come after `base` others.
    fn append(&mut self, after: Self, base: u32) -> Option<()> {
        fn moved<const N: usize>(to: &mut Vec<Record<N>>, from: Vec<Record<N>>, base: u32) -> Option<()> {
            to.reserve(from.len());
            from.into_iter().try_for_each(|record| {
                to.push(record.moved(base)?);
                Some(())
            })
        }
        moved(&mut self.sha1, after.sha1, base)?;
        moved(&mut self.sha256, after.sha256, base)?;
        moved(&mut self.sha384, after.sha384, base)?;
        moved(&mut self.sha512, after.sha512, base)
    }

    /// A line after its kind.
    fn line(&mut self, line: &[u8], paths: &mut Vec<u8>) -> Result<(), &'static str> {
        const ALGORITHM: &str = "begins with none of sha1:, sha256:, sha384: and sha512:";
        let colon = line.iter().take(8).position(|byte| *byte == b':').ok_or(ALGORITHM)?;
        let (name, rest) = line.split_at_checked(colon).ok_or(ALGORITHM)?;
        let Some(FileHash::Tpm(algorithm)) = FileHash::of_name(name) else { return Err(ALGORITHM) };
        let digits = 2 * algorithm.size();
        let (hex, rest) =
            rest.get(1..).and_then(|rest| rest.split_at_checked(digits)).ok_or("the digest is too short")?;
        let mut digest = [0; 64];
        let digest = digest.get_mut(..algorithm.size()).ok_or(ALGORITHM)?;
        HEXLOWER
            .decode_mut(hex, digest)
            .map_err(|DecodePartial { .. }| "the digest is not in lower-case hex of its algorithm's size")?;
        let path = rest.strip_prefix(b"  ").ok_or("after the digest come two spaces and the path")?;
        let path = match path {
            b"*" => PathSpan::ANY,
            [b'/', ..] => {
                if path.len() > DigestSet::MAX_PATH {
                    return Err("the path has more than 4096 bytes");
                }
                // Without an early end, the compiler looks at many at once.
                if path.iter().fold(false, |odd, byte| odd | (*byte == 0) | (*byte == b'\r')) {
                    return Err("the path has a NUL or a carriage return");
                }
                let start = paths.len();
                let span = PathSpan::append(paths, path).ok_or(TOO_MANY_PATHS)?;
                for byte in paths.get_mut(start..).unwrap_or_default() {
                    *byte = if *byte == b' ' { b'_' } else { *byte };
                }
                span
            }
            _ => return Err("the path is neither absolute nor `*`"),
        };
        self.push(algorithm, digest, path).ok_or(ALGORITHM)
    }

    fn push(&mut self, algorithm: HashAlgorithm, digest: &[u8], path: PathSpan) -> Option<()> {
        match algorithm {
            HashAlgorithm::Sha1 => self.sha1.push(Record::new(digest.try_into().ok()?, path)),
            HashAlgorithm::Sha256 => self.sha256.push(Record::new(digest.try_into().ok()?, path)),
            HashAlgorithm::Sha384 => self.sha384.push(Record::new(digest.try_into().ok()?, path)),
            HashAlgorithm::Sha512 => self.sha512.push(Record::new(digest.try_into().ok()?, path)),
        }
        Some(())
    }

    fn compile(self, paths: &[u8]) -> Tables {
        Tables {
            sha1: Table::new(self.sha1, paths),
            sha256: Table::new(self.sha256, paths),
            sha384: Table::new(self.sha384, paths),
            sha512: Table::new(self.sha512, paths),
        }
    }
}

impl Tables {
    #[inline]
    fn find(&self, algorithm: HashAlgorithm, digest: &[u8], path: &[u8], paths: &[u8]) -> Found {
        let found = match algorithm {
            HashAlgorithm::Sha1 => digest.try_into().map(|digest| self.sha1.find(digest, path, paths)),
            HashAlgorithm::Sha256 => digest.try_into().map(|digest| self.sha256.find(digest, path, paths)),
            HashAlgorithm::Sha384 => digest.try_into().map(|digest| self.sha384.find(digest, path, paths)),
            HashAlgorithm::Sha512 => digest.try_into().map(|digest| self.sha512.find(digest, path, paths)),
        };
        found.unwrap_or(Found::Unknown)
    }

    fn len(&self) -> usize {
        self.sha1.len() + self.sha256.len() + self.sha384.len() + self.sha512.len()
    }

    fn memory(&self) -> usize {
        self.sha1.memory() + self.sha256.memory() + self.sha384.memory() + self.sha512.memory()
    }

    /// How many there are, then each digest with its path, sorted, the path with its length before it.
    fn canonical(&self, paths: &[u8], hasher: &mut Hasher) {
        canonical(&self.sha1, paths, hasher);
        canonical(&self.sha256, paths, hasher);
        canonical(&self.sha384, paths, hasher);
        canonical(&self.sha512, paths, hasher);
    }
}

fn canonical<const N: usize>(table: &Table<N>, paths: &[u8], hasher: &mut Hasher) {
    hasher.update(&u64::try_from(table.len()).unwrap_or(u64::MAX).to_be_bytes());
    let mut bytes = Vec::with_capacity(8192);
    for (digest, path) in table.iter() {
        let path = path.of(paths);
        bytes.extend_from_slice(digest);
        bytes.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(path);
        if bytes.len() > 4096 {
            hasher.update(&bytes);
            bytes.clear();
        }
    }
    hasher.update(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(algorithm: &str, digit: char, path: &str) -> String {
        let size = algorithm.rsplit(':').next().unwrap().parse::<HashAlgorithm>().unwrap().size();
        format!("{algorithm}:{}  {path}\n", digit.to_string().repeat(2 * size))
    }

    fn find(set: &DigestSet, kind: DigestKind, algorithm: HashAlgorithm, byte: u8, path: &str) -> Found {
        let bytes = [byte; 64];
        let digest =
            FileDigest { kind, algorithm: FileHash::Tpm(algorithm), bytes: &bytes[..algorithm.size()] };
        set.find(&digest, path.as_bytes())
    }

    #[test]
    fn a_digest_is_accepted_at_its_path_in_its_algorithm_and_of_its_kind() {
        use DigestKind::{Content, Verity};
        use HashAlgorithm::{Sha1, Sha256, Sha384, Sha512};
        let text = [
            "# what runs\n\n".to_owned(),
            line("sha256", '1', "/bin/a"),
            line("sha256", '1', "/bin/b c"),
            line("sha384", '2', "*"),
            line("verity:sha512", '3', "/bin/v"),
            line("sha1", '4', "/bin/old"),
        ]
        .concat();
        let set = DigestSet::parse(text.as_bytes()).unwrap();
        assert_eq!(set.len(), 5);
        for (kind, algorithm, byte, path, expected) in [
            (Content, Sha256, 0x11, "/bin/a", Found::Accepted),
            (Content, Sha256, 0x11, "/bin/b_c", Found::Accepted),
            (Content, Sha256, 0x11, "/bin/c", Found::OtherPath),
            (Content, Sha256, 0x12, "/bin/a", Found::Unknown),
            (Content, Sha384, 0x22, "anything", Found::Accepted),
            (Verity, Sha512, 0x33, "/bin/v", Found::Accepted),
            (Content, Sha512, 0x33, "/bin/v", Found::Unknown),
            (Verity, Sha256, 0x11, "/bin/a", Found::Unknown),
            (Content, Sha1, 0x44, "/bin/old", Found::Accepted),
            (Content, Sha1, 0x11, "/bin/a", Found::Unknown),
        ] {
            assert_eq!(find(&set, kind, algorithm, byte, path), expected, "{algorithm} {byte:02x} {path}");
        }
    }

    #[test]
    fn what_accepts_the_same_has_one_id() {
        let (a, b) = (line("sha256", 'a', "/a"), line("sha256", 'b', "*"));
        let id = |text: &str| *DigestSet::parse(text.as_bytes()).unwrap().id();
        let first = id(&format!("{a}{b}"));
        assert_eq!(first, id(&format!("# a remark\n{b}\n{a}{a}")));
        for other in [a.clone(), format!("{a}{}", line("sha256", 'b', "/b")), format!("verity:{a}{b}")] {
            assert_ne!(first, id(&other), "{other}");
        }
    }

    #[test]
    fn long_text_that_several_threads_read_is_as_if_one_did() {
        let lines: Vec<_> = (0..40_000u32)
            .map(|number| {
                let digest = HEXLOWER.encode(&rootbound_common::crypto::sha256(&[&number.to_be_bytes()]));
                let kind = if number % 3 == 0 { "verity:" } else { "" };
                let path = if number % 5 == 0 { "*".to_owned() } else { format!("/a/{number}") };
                format!("{kind}sha256:{digest}  {path}\n")
            })
            .collect();
        let text = lines.concat();
        assert!(text.len() > 2 * Lines::SHARE);
        let whole = DigestSet::parse(text.as_bytes()).unwrap();
        assert_eq!(whole.len(), lines.len());
        let one = Lines::read(text.as_bytes()).unwrap();
        let tables = [one.content.compile(&one.paths), one.verity.compile(&one.paths)];
        let mut hasher = Hasher::new(HashAlgorithm::Sha256);
        tables.iter().for_each(|tables| tables.canonical(&one.paths, &mut hasher));
        assert_eq!(hasher.finish().as_bytes(), whole.id());
        for bad in [0, 1, 19_999, 39_999] {
            let mut lines = lines.clone();
            lines[bad].insert(0, 'x');
            lines[39_999].insert(0, 'x');
            let error = DigestSet::parse(lines.concat().as_bytes()).unwrap_err();
            assert!(
                matches!(error, DigestSetError::Line { line, .. } if line == bad + 1),
                "{bad}: {error:?}"
            );
        }
    }

    #[test]
    fn shares_are_the_text_in_whole_lines() {
        for text in ["", "a", "\n", "a\nb\nc", "a\nbbbbbbbbbbbbbbbbbbbbbbbb\nc\n", "aaaaaaaaaaaaaaaa\n\n\nb"]
        {
            for count in 1..6 {
                let shares = shares(text.as_bytes(), count);
                assert_eq!((shares.len(), shares.concat()), (count, text.as_bytes().to_vec()));
                let whole = shares.iter().rev().skip_while(|share| share.is_empty()).skip(1);
                assert!(whole.clone().all(|share| share.ends_with(b"\n")), "{text:?} {count}: {shares:?}");
            }
        }
    }

    #[test]
    fn what_is_there_twice_counts_once() {
        let (a, b) = (line("sha256", 'a', "/a"), line("sha256", 'a', "/b"));
        let verity = format!("verity:{a}");
        let text = [&a, &b, &a, &verity, &b, &verity].map(String::as_str).concat();
        assert_eq!(DigestSet::parse_at_most(text.as_bytes(), 3).unwrap().len(), 3);
        assert_eq!(DigestSet::parse_at_most(text.as_bytes(), 2).unwrap_err(), DigestSetError::TooMany);
    }

    #[test]
    fn a_line_that_is_not_of_the_form_is_named() {
        let good = line("sha256", 'a', "/a");
        for (bad, case) in [
            (good.replace("sha256", "md5"), "another algorithm"),
            (good.replace("sha256:", ""), "no algorithm"),
            (good.replace('a', "A"), "upper case"),
            (good.replace("aa  ", "  "), "a byte too few"),
            (good.replace("  ", "aa  "), "a byte too many"),
            (good.replace("  ", " "), "one space"),
            (good.replace("  /a", ""), "no path"),
            (good.replace("/a", "a"), "a relative path"),
            (good.replace("/a", ""), "an empty path"),
            (good.replace("/a", "/a\r"), "a DOS line"),
            (good.replace("/a", "/a\0"), "a NUL"),
            (good.replace("/a", &format!("/{}", "a".repeat(4096))), "a long path"),
        ] {
            let text = format!("{good}\n{bad}");
            let error = DigestSet::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, DigestSetError::Line { line: 3, .. }), "{case}: {error:?}");
        }
        assert_eq!(DigestSet::parse(b"# nothing\n\n").unwrap_err(), DigestSetError::Empty);
    }
}
