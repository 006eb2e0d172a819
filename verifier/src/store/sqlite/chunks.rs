//! Texts of digest sets in chunks, so that what many of them share is kept once.
//!
//! A text is cut into pieces: a line that says something, with the remarks before it. A chunk has pieces that were new as
//! they came, and a text is runs of bytes out of chunks, those of other texts and its own. Nothing depends on the order of
//! a text, nor on where in it the changes are. Chunks that are cut by content and kept whole would not do: a release that
//! changes each twentieth file, here and there, leaves no chunk of some kilobytes as it was.
//!
//! Which chunks a text shares pieces with is found by their sketches, without reading them (Lillibridge and others, "Sparse
//! Indexing", FAST 2009). A chunk of which little is wanted is not used, so that a text never costs much more to read than
//! it is long; what is wanted of it is kept once more.

use std::collections::HashMap;

use rootbound_common::crypto::sha256;

use crate::appraisal::runtime::DigestSet;
use crate::evidence::frame::{FrameError, pack, unpack};

/// Bytes of a piece at most: twice the longest line that says something. Longer remarks are cut.
const PIECE: usize = 8 << 10;
/// Pieces of a chunk: some 100 KB of text.
const PIECES: usize = 1024;
/// Bytes from which on a chunk is full.
const FULL: usize = 256 << 10;
/// Bytes of a chunk at most.
const MOST: usize = FULL + PIECE;
/// Numbers of a sketch.
const SKETCH: usize = 8;

/// A chunk to be kept.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    /// SHA-256 of its bytes.
    pub(super) hash: [u8; 32],
    pub(super) sketch: Sketch,
    /// Its bytes, as a zstd frame.
    pub(super) frame: Vec<u8>,
}

impl Chunk {
    fn new(bytes: &[u8]) -> Result<Self, FrameError> {
        let sketch = Sketch::of(Pieces(bytes).map(number));
        Ok(Self { hash: sha256(&[bytes]), sketch, frame: pack(bytes)? })
    }
}

/// The bytes of a chunk, if they are those that it is named by.
pub(super) fn open(hash: &[u8; 32], frame: &[u8]) -> Result<Vec<u8>, String> {
    let bytes = unpack(frame, MOST).map_err(|error| error.to_string())?;
    if sha256(&[&bytes]) == *hash {
        Ok(bytes)
    } else {
        Err("its bytes are not those that it is named by".into())
    }
}

/// The lowest numbers of the pieces of a chunk: a sample of them, the same wherever the piece comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sketch(Vec<u8>);

impl Sketch {
    fn of(numbers: impl Iterator<Item = u64>) -> Self {
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        numbers.dedup();
        Self(numbers.iter().take(SKETCH).flat_map(|number| number.to_be_bytes()).collect())
    }

    /// As it was kept. One that was changed finds something else, and harms nothing.
    pub(super) fn kept(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.as_chunks().0.iter().map(|number| u64::from_be_bytes(*number))
    }
}

/// Stands for a piece where sketches are compared.
fn number(piece: &[u8]) -> u64 {
    sha256(&[piece]).first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The pieces of a text: each ends with a line that says something, or where it is as long as pieces get.
struct Pieces<'t>(&'t [u8]);

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t [u8];

    fn next(&mut self) -> Option<&'t [u8]> {
        let window = self.0.get(..PIECE.min(self.0.len())).filter(|window| !window.is_empty())?;
        let mut end = 0;
        for line in window.split_inclusive(|byte| *byte == b'\n') {
            end += line.len();
            if !matches!(line.first(), Some(b'#' | b'\n')) {
                break;
            }
        }
        let (piece, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        Some(piece)
    }
}

/// Bytes of a chunk of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Which of its chunks.
    chunk: u32,
    start: u32,
    length: u32,
}

impl Run {
    fn end(self) -> Option<u32> {
        self.start.checked_add(self.length)
    }
}

/// Names how a text is laid out.
fn digest(bytes: usize, runs: &[u8], parts: &[[u8; 32]]) -> [u8; 32] {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).to_be_bytes();
    sha256(&[&bytes, &sha256(&[runs]), parts.as_flattened()])
}

/// Runs as numbers of 32 bits: of all runs the chunk, then of all where they start, then how long they are. A start is
/// counted from where the run before it in the same chunk ends, which makes most of them small, and alike.
fn written(runs: &[Run]) -> Vec<u8> {
    let mut ends: HashMap<u32, u32> = HashMap::new();
    let starts = runs.iter().map(|run| {
        let before = ends.insert(run.chunk, run.start.wrapping_add(run.length)).unwrap_or(0);
        run.start.wrapping_sub(before)
    });
    let starts: Vec<_> = starts.collect();
    let (chunks, lengths) = (runs.iter().map(|run| run.chunk), runs.iter().map(|run| run.length));
    chunks.chain(starts).chain(lengths).flat_map(u32::to_be_bytes).collect()
}

/// Runs as they were written; `None`: they are not whole.
fn read(bytes: &[u8]) -> Option<Vec<Run>> {
    let (numbers, []) = bytes.as_chunks::<4>() else { return None };
    if !numbers.len().is_multiple_of(3) {
        return None;
    }
    let (chunks, rest) = numbers.split_at_checked(numbers.len() / 3)?;
    let (starts, lengths) = rest.split_at_checked(chunks.len())?;
    let mut ends: HashMap<u32, u32> = HashMap::new();
    let runs = chunks.iter().zip(starts).zip(lengths).map(|((chunk, start), length)| {
        let [chunk, start, length] = [chunk, start, length].map(|number| u32::from_be_bytes(*number));
        let before = ends.entry(chunk).or_default();
        let start = before.wrapping_add(start);
        *before = start.wrapping_add(length);
        Run { chunk, start, length }
    });
    Some(runs.collect())
}

/// A text out of chunks.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Bytes of the text.
    pub(super) bytes: usize,
    /// SHA-256 of how it is laid out: with the names of its chunks, that of its text.
    pub(super) digest: [u8; 32],
    /// What its chunks are called.
    pub(super) parts: Vec<[u8; 32]>,
    /// Its runs in their order, as a zstd frame.
    pub(super) runs: Vec<u8>,
    /// Those of its chunks that are not kept yet.
    pub(super) new: Vec<Chunk>,
}

/// Where a piece of a text is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In no chunk that is known.
    Nowhere,
    /// Where that piece is.
    As(u32),
    /// In this chunk of the text, from there on.
    In { chunk: u32, start: u32 },
}

/// Looks for the pieces of a text in chunks.
pub(super) struct Search {
    text: Vec<u8>,
    /// The end of each piece, and where it is.
    pieces: Vec<(u32, Place)>,
    by_number: HashMap<u64, u32>,
    parts: Vec<[u8; 32]>,
}

impl Search {
    /// `text` is that of a digest set, which bounds its length.
    pub(super) fn new(text: Vec<u8>) -> Result<Self, FrameError> {
        if text.len() > DigestSet::MAX_BYTES {
            return Err(FrameError::TooLarge { limit: DigestSet::MAX_BYTES });
        }
        let mut search =
            Self { text: Vec::new(), pieces: Vec::new(), by_number: HashMap::new(), parts: Vec::new() };
        let mut end = 0;
        for piece in Pieces(&text) {
            let number = number(piece);
            let index = short(search.pieces.len());
            let first = *search.by_number.entry(number).or_insert(index);
            let same = first != index && search.piece(&text, first) == Some(piece);
            end += piece.len();
            search.pieces.push((short(end), if same { Place::As(first) } else { Place::Nowhere }));
        }
        search.text = text;
        Ok(search)
    }

    fn piece<'t>(&self, text: &'t [u8], index: u32) -> Option<&'t [u8]> {
        let index = long(index);
        let start = index.checked_sub(1).map_or(Some(0), |before| Some(long(self.pieces.get(before)?.0)))?;
        text.get(start..long(self.pieces.get(index)?.0))
    }

    /// Which share of a sketch is in the text; `None`: too little to look at the chunk.
    pub(super) fn likeness(&self, sketch: &Sketch) -> Option<usize> {
        let (all, here) = sketch.numbers().fold((0, 0), |(all, here), number| {
            (all + 1, here + usize::from(self.by_number.contains_key(&number)))
        });
        (here > 0 && here * 8 >= all * 3).then(|| here * SKETCH / all)
    }

    /// Whether every piece has its place.
    pub(super) fn is_done(&self) -> bool {
        self.pieces.iter().all(|(_, place)| !matches!(place, Place::Nowhere))
    }

    /// Takes what is still wanted out of a chunk, if that is the half of it.
    pub(super) fn take(&mut self, hash: [u8; 32], bytes: &[u8]) {
        let (mut found, mut all, mut start) = (Vec::new(), 0, 0);
        for piece in Pieces(bytes) {
            all += 1;
            if let Some(index) = self.by_number.get(&number(piece))
                && matches!(self.pieces.get(long(*index)), Some((_, Place::Nowhere)))
                && self.piece(&self.text, *index) == Some(piece)
            {
                found.push((*index, short(start)));
            }
            start += piece.len();
        }
        if found.is_empty() || found.len() * 2 < all {
            return;
        }
        let chunk = short(self.parts.len());
        self.parts.push(hash);
        for (index, start) in found {
            if let Some((_, place)) = self.pieces.get_mut(long(index)) {
                *place = Place::In { chunk, start };
            }
        }
    }

    /// Puts what was not found into chunks of its own.
    pub(super) fn finish(self) -> Result<Layout, FrameError> {
        let Self { text, mut pieces, mut parts, .. } = self;
        let (mut new, mut runs): (Vec<Chunk>, Vec<Run>) = (Vec::new(), Vec::new());
        let (mut open, mut count, mut from) = (Vec::new(), 0, 0);
        let mut close = |open: &mut Vec<u8>, parts: &mut Vec<[u8; 32]>| {
            let chunk = Chunk::new(open)?;
            parts.push(chunk.hash);
            new.push(chunk);
            open.clear();
            Ok::<_, FrameError>(())
        };
        for index in 0..pieces.len() {
            let Some((end, place)) = pieces.get(index).copied() else { break };
            let place = match place {
                Place::As(first) => pieces.get(long(first)).map_or(place, |(_, place)| *place),
                Place::Nowhere | Place::In { .. } => place,
            };
            let piece = text.get(from..long(end)).unwrap_or_default();
            let (chunk, start) = match place {
                Place::In { chunk, start } => (chunk, start),
                Place::Nowhere | Place::As(_) => {
                    if count == PIECES || open.len() >= FULL {
                        close(&mut open, &mut parts)?;
                        count = 0;
                    }
                    let (chunk, start) = (short(parts.len()), short(open.len()));
                    open.extend_from_slice(piece);
                    count += 1;
                    (chunk, start)
                }
            };
            if let Some((_, place)) = pieces.get_mut(index) {
                *place = Place::In { chunk, start };
            }
            let length = short(piece.len());
            match runs.last_mut().filter(|last| last.chunk == chunk && last.end() == Some(start)) {
                Some(last) => last.length += length,
                None => runs.push(Run { chunk, start, length }),
            }
            from = long(end);
        }
        if !open.is_empty() {
            close(&mut open, &mut parts)?;
        }
        let runs = pack(&written(&runs))?;
        let digest = digest(text.len(), &runs, &parts);
        Ok(Layout { bytes: text.len(), digest, parts, runs, new })
    }
}

/// A text that is put together out of its chunks, which come in their order.
pub(super) struct Assembly<'r> {
    text: Vec<u8>,
    /// As they were kept.
    kept: &'r [u8],
    /// Those of each chunk together, with where they go.
    runs: Vec<(Run, usize)>,
    next: usize,
    parts: Vec<[u8; 32]>,
}

impl<'r> Assembly<'r> {
    /// `bytes` and `runs` as they were kept.
    pub(super) fn new(bytes: usize, kept: &'r [u8]) -> Result<Self, String> {
        // No run is shorter than a byte.
        const RUN: usize = 12;
        if bytes > DigestSet::MAX_BYTES {
            return Err(format!("it has {bytes} bytes; a digest set has at most {}", DigestSet::MAX_BYTES));
        }
        let runs = unpack(kept, bytes.saturating_mul(RUN)).map_err(|error| format!("its runs: {error}"))?;
        let runs = read(&runs).ok_or("its runs are cut off")?;
        let (mut placed, mut end) = (Vec::with_capacity(runs.len()), 0usize);
        for run in runs {
            placed.push((run, end));
            end = end.saturating_add(long(run.length));
        }
        if end != bytes {
            return Err(format!("its runs have {end} bytes together, not {bytes}"));
        }
        placed.sort_unstable_by_key(|(run, to)| (run.chunk, *to));
        Ok(Self { text: vec![0; bytes], kept, runs: placed, next: 0, parts: Vec::new() })
    }

    /// The next chunk, and its bytes.
    pub(super) fn put(&mut self, hash: [u8; 32], bytes: &[u8]) -> Result<(), String> {
        let part = short(self.parts.len());
        self.parts.push(hash);
        while let Some((run, to)) = self.runs.get(self.next).filter(|(run, _)| run.chunk == part) {
            let from = run.end().and_then(|end| bytes.get(long(run.start)..long(end)));
            let to = self.text.get_mut(*to..to.saturating_add(long(run.length)));
            let (Some(from), Some(to)) = (from, to) else {
                return Err(format!("a run of its part {part} goes over the end of the chunk"));
            };
            to.copy_from_slice(from);
            self.next += 1;
        }
        Ok(())
    }

    /// The text, if it is whole and laid out as it was.
    pub(super) fn finish(self, digest: &[u8; 32]) -> Result<Vec<u8>, String> {
        if self.next < self.runs.len() {
            return Err(format!("chunks are missing after its part {}", self.parts.len()));
        }
        if self::digest(self.text.len(), self.kept, &self.parts) == *digest {
            Ok(self.text)
        } else {
            Err("its chunks are not the ones that it was put into".into())
        }
    }
}

/// Positions in a text fit: [`DigestSet::MAX_BYTES`] is below 2^32.
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn long(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store in memory.
    #[derive(Default)]
    struct Kept(Vec<Chunk>);

    impl Kept {
        fn lay_out(&mut self, text: &[u8]) -> Layout {
            let mut search = Search::new(text.to_vec()).unwrap();
            for chunk in &self.0 {
                if search.likeness(&chunk.sketch).is_some() {
                    search.take(chunk.hash, &open(&chunk.hash, &chunk.frame).unwrap());
                }
            }
            let layout = search.finish().unwrap();
            self.0.extend(layout.new.iter().cloned());
            layout
        }

        fn put_together(&self, layout: &Layout) -> Result<Vec<u8>, String> {
            let mut assembly = Assembly::new(layout.bytes, &layout.runs)?;
            for part in &layout.parts {
                let chunk = self.0.iter().find(|chunk| chunk.hash == *part).unwrap();
                assembly.put(*part, &open(part, &chunk.frame)?)?;
            }
            assembly.finish(&layout.digest)
        }

        fn bytes(&self) -> usize {
            self.0.iter().map(|chunk| chunk.frame.len()).sum()
        }
    }

    fn line(file: usize, release: usize) -> String {
        let digest = data_encoding::HEXLOWER.encode(&sha256(&[format!("{file} {release}").as_bytes()]));
        format!("sha256:{digest}  /usr/lib/x86_64-linux-gnu/lib{file:05}.so\n")
    }

    /// Files of which each twentieth, here and there, is new in each release.
    fn release(files: usize, release: usize) -> Vec<u8> {
        let since =
            |file| (1..=release).rev().find(|release| (file * 7 + release * 3) % 20 == 0).unwrap_or(0);
        (0..files).map(|file| line(file, since(file))).collect::<String>().into_bytes()
    }

    #[test]
    fn any_text_comes_back_as_it_was() {
        let mut kept = Kept::default();
        let remark = format!("# {}\n", "long ".repeat(PIECE));
        let long_line = format!("sha256:{}  /{}", "ab".repeat(32), "x".repeat(3 * PIECE));
        for text in [
            Vec::new(),
            b"\n".repeat(3 * PIECE),
            b"no end of a line".to_vec(),
            line(1, 1).into_bytes(),
            line(1, 1).repeat(5000).into_bytes(),
            format!("# a remark\n\n{}{}{}# the end", line(1, 1), line(2, 1), line(1, 1)).into_bytes(),
            format!("{remark}{}{remark}{}{long_line}\n", line(3, 1), line(1, 1)).into_bytes(),
            format!("{remark}{long_line}").into_bytes(),
            release(3000, 0),
            release(3000, 1).into_iter().rev().collect(),
            [release(3000, 2), release(2000, 0)].concat(),
        ] {
            let layout = kept.lay_out(&text);
            assert_eq!(kept.put_together(&layout).as_deref(), Ok(text.as_slice()));
            let again = kept.lay_out(&text);
            assert!(again.new.is_empty(), "what is kept is not kept again");
            assert_eq!(kept.put_together(&again).as_deref(), Ok(text.as_slice()));
        }
    }

    #[test]
    fn order_of_lines_costs_no_chunk() {
        let mut kept = Kept::default();
        kept.lay_out(&release(5000, 0));
        let mut lines: Vec<_> = (0..5000).map(|file| line(file, 0)).collect();
        lines.sort_unstable();
        let sorted = kept.lay_out(lines.concat().as_bytes());
        assert!(sorted.new.is_empty());
        assert_eq!(kept.put_together(&sorted).as_deref(), Ok(lines.concat().as_bytes()));
    }

    #[test]
    fn chunk_of_which_little_is_wanted_is_not_read_for_it() {
        let mut kept = Kept::default();
        let whole = kept.lay_out(&release(PIECES, 0));
        assert_eq!(whole.parts.len(), 1);
        let part = |wanted: usize| (0..wanted).map(|file| line(file, 0)).collect::<String>();
        let less = Kept(kept.0.clone()).lay_out(part(PIECES / 2 - 1).as_bytes());
        assert!(!less.parts.contains(&whole.parts[0]));
        let half = Kept(kept.0.clone()).lay_out(part(PIECES * 3 / 4).as_bytes());
        assert_eq!(half.parts, whole.parts);
    }

    #[test]
    fn texts_that_share_most_lines_cost_little_more_than_one() {
        let mut kept = Kept::default();
        let (mut once, mut runs) = (0, 0);
        for number in 0..10 {
            let text = release(6_000, number);
            let layout = kept.lay_out(&text);
            assert_eq!(kept.put_together(&layout).as_deref(), Ok(text.as_slice()));
            once = if number == 0 { kept.bytes() } else { once };
            runs += layout.runs.len();
        }
        let all = kept.bytes() + runs;
        // Nine times a twentieth of the lines is new; the runs have to say where.
        assert!(all < once * 18 / 10, "{all} of {once}");
    }

    #[test]
    fn layouts_that_no_text_has_are_refused() {
        let mut kept = Kept::default();
        let good = kept.lay_out(&release(3000, 0));
        assert_eq!(good.parts.len(), 3);
        let refused = |changed: &Layout| kept.put_together(changed).unwrap_err();
        let runs = |numbers: &[u32]| {
            pack(&numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>()).unwrap()
        };
        let length = u32::try_from(good.bytes).unwrap();
        for (changed, why) in [
            (Layout { bytes: DigestSet::MAX_BYTES + 1, ..good.clone() }, "a digest set has at most"),
            (Layout { bytes: good.bytes + 1, ..good.clone() }, "bytes together, not"),
            (Layout { runs: vec![0], ..good.clone() }, "does not decompress"),
            (Layout { runs: runs(&[0, 0]), ..good.clone() }, "cut off"),
            (Layout { runs: pack(&[0; 13]).unwrap(), ..good.clone() }, "cut off"),
            (Layout { runs: runs(&[0, 0, length]), ..good.clone() }, "over the end of the chunk"),
            (Layout { runs: runs(&[0, u32::MAX, length]), ..good.clone() }, "over the end of the chunk"),
            (Layout { runs: runs(&[9, 0, length]), ..good.clone() }, "are missing"),
            (Layout { parts: good.parts[..2].to_vec(), ..good.clone() }, "are missing"),
            (
                Layout { parts: [0, 0, 2].map(|part| good.parts[part]).to_vec(), ..good.clone() },
                "not the ones",
            ),
            (Layout { digest: [7; 32], ..good.clone() }, "not the ones"),
        ] {
            let found = refused(&changed);
            assert!(found.contains(why), "{why}: {found}");
        }
        let bomb = Layout { bytes: 10, runs: runs(&vec![0; 3_000_000]), ..good.clone() };
        assert!(refused(&bomb).contains("more than 120 bytes"));
        let chunk = &kept.0[0];
        assert!(open(&[7; 32], &chunk.frame).unwrap_err().contains("not those that it is named by"));
        assert!(open(&chunk.hash, &chunk.frame[1..]).unwrap_err().contains("does not decompress"));
        let large = pack(&vec![0; MOST + 1]).unwrap();
        assert!(open(&chunk.hash, &large).unwrap_err().contains("more than"));
    }
}
