//! The walk: from a verified prefix through the list to the quoted value, and past it.

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::HashAlgorithm;

use super::entry::Entry;
use super::error::NotReached;
use super::parser::ListParser;
use super::progress::{Position, Progress};
use super::replay::{BankMode, Replay};
use super::{ImaError, MAX_BYTES};

/// What vouches for an entry, if the walk ends well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cover {
    /// The quote: the entry is before the quoted value.
    Quote,
    /// Nothing yet: the entry is after it. It was measured between the quote and the reading of the list, or is made up; the
    /// next quote has to cover it.
    Tail,
}

/// An entry that a walk passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed<'a> {
    /// The entry.
    pub entry: Entry<'a>,
    /// What vouches for it.
    pub cover: Cover,
}

/// A list on its way to the quoted value of PCR 10.
///
/// Established when [`Walk::finish`] returns, in the order in which the bytes come:
/// 1. every entry is of a known template and of PCR 10, well-formed to its last byte, and within bounds;
/// 2. extending each in turn, from the prefix, comes to the quoted value: no entry before it was dropped, added, moved or
///    changed where its template hash covers it;
/// 3. where an earlier list of this boot went beyond its quote, this one goes through the same value after as many
///    entries, and this quote covers them;
/// 4. entries after the quoted value have the template hash that they state.
///
/// Template hashes before the quoted value are not compared with what the file states: the walk computes its own, and the
/// quote proves those. What the file states decides on one thing there, whether an entry is a violation, and a lie about
/// that changes what is extended.
///
/// The list is always that from the prefix on; where it begins is the verifier's word, not the machine's. A list of which
/// the kernel has dropped the front is no different.
#[derive(Debug)]
pub struct Walk {
    parser: ListParser,
    state: State,
}

#[derive(Debug)]
struct State {
    quoted: Digest,
    replay: Replay,
    earlier: Progress,
    /// Bytes of the prefix and of what came since.
    bytes: u64,
    entries: u64,
    reached: Option<Position>,
    claim_met: bool,
}

/// A list that goes through the quoted value. Only [`Walk::finish`] makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    from: Position,
    progress: Progress,
    mode: BankMode,
}

impl Walk {
    /// Entries that are given to a sink at once: their lines of memory fit into a core's first cache.
    pub const TOGETHER: usize = 32;

    /// Starts from what is verified of this boot, if anything is; `quoted` is PCR 10 of an authenticated quote.
    pub fn begin(progress: Option<Progress>, quoted: Digest, mode: BankMode) -> Result<Self, ImaError> {
        Self::begin_with_hashes(progress, quoted, mode, HashAlgorithm::Sha1)
    }

    /// The same, for a file whose template hashes are not SHA-1.
    pub fn begin_with_hashes(
        progress: Option<Progress>,
        quoted: Digest,
        mode: BankMode,
        template_hash: HashAlgorithm,
    ) -> Result<Self, ImaError> {
        let earlier = progress.unwrap_or_else(|| Progress::start(quoted.algorithm()));
        let prefix = *earlier.prefix();
        let bank = prefix.value.algorithm();
        if bank != quoted.algorithm() {
            return Err(ImaError::OtherBank { prefix: bank, quoted: quoted.algorithm() });
        }
        Ok(Self {
            parser: ListParser::new(prefix.entries, template_hash),
            state: State {
                quoted,
                replay: Replay::from(prefix.value, mode),
                earlier,
                bytes: prefix.bytes,
                entries: prefix.entries,
                reached: (prefix.value == quoted).then_some(prefix),
                claim_met: earlier.claim().is_none(),
            },
        })
    }

    /// Takes the next bytes, and gives each entry that they complete to `sink`: to be judged, not yet to be believed.
    ///
    /// After an error nothing may be pushed any more.
    pub fn push(&mut self, chunk: &[u8], sink: &mut impl FnMut(&Entry<'_>, Cover)) -> Result<(), ImaError> {
        self.push_together(chunk, &mut |together| {
            together.iter().for_each(|passed| sink(&passed.entry, passed.cover));
        })
    }

    /// The same, with up to [`Walk::TOGETHER`] entries at once, in their order: who looks each up in a large table waits
    /// for memory once for all of them. Before an error, the last ones may be left out.
    pub fn push_together(
        &mut self,
        chunk: &[u8],
        sink: &mut impl FnMut(&[Passed<'_>]),
    ) -> Result<(), ImaError> {
        let Self { parser, state } = self;
        let mut rest = parser.start(chunk, &mut |mut entry| {
            let cover = state.step(&mut entry)?;
            sink(&[Passed { entry, cover }]);
            Ok::<_, ImaError>(())
        })?;
        let mut together = Vec::with_capacity(Self::TOGETHER);
        while let Some(mut entry) = parser.next_in(&mut rest)? {
            let cover = state.step(&mut entry)?;
            together.push(Passed { entry, cover });
            if together.len() >= Self::TOGETHER {
                sink(&together);
                together.clear();
            }
        }
        sink(&together);
        Ok(())
    }

    /// Ends the walk.
    pub fn finish(self) -> Result<Walked, ImaError> {
        let state = self.state;
        self.parser.finish()?;
        let Some(prefix) = state.reached else {
            let (entries, value) = (state.entries, *state.replay.value());
            return Err(ImaError::NotReached(Box::new(NotReached { entries, value, quoted: state.quoted })));
        };
        if let Some(claim) = state.earlier.claim()
            && (!state.claim_met || prefix.entries < claim.entries)
        {
            return Err(ImaError::TailNotCovered { claimed: claim.entries, covered: prefix.entries });
        }
        let end = Position { entries: state.entries, bytes: state.bytes, value: *state.replay.value() };
        let claim = (end.entries > prefix.entries).then_some(end);
        Ok(Walked {
            from: *state.earlier.prefix(),
            progress: Progress::of_walk(prefix, claim),
            mode: state.replay.mode(),
        })
    }
}

impl State {
    #[inline]
    fn step(&mut self, entry: &mut Entry<'_>) -> Result<Cover, ImaError> {
        let cover = if self.reached.is_some() { Cover::Tail } else { Cover::Quote };
        if cover == Cover::Tail && !entry.template_hash_fits() {
            return Err(ImaError::TemplateHash { entry: entry.number });
        }
        entry.data_hash = self.replay.extend(entry);
        self.entries = entry.number.saturating_add(1);
        self.bytes = self.bytes.saturating_add(entry.length());
        if self.bytes > MAX_BYTES {
            return Err(ImaError::TooManyBytes);
        }
        if let Some(claim) = self.earlier.claim()
            && claim.entries == self.entries
        {
            if claim.value != *self.replay.value() {
                return Err(ImaError::TailChanged { entries: claim.entries });
            }
            self.claim_met = true;
        }
        if cover == Cover::Quote && self.replay.is_at(&self.quoted) {
            self.reached = Some(Position { entries: self.entries, bytes: self.bytes, value: self.quoted });
        }
        Ok(cover)
    }
}

impl Walked {
    /// What to keep for the next walk of this boot.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Entries of the boot for which a quote vouches.
    #[must_use]
    pub fn covered(&self) -> u64 {
        self.progress.prefix().entries
    }

    /// Entries for which this quote is the first to vouch.
    #[must_use]
    pub fn newly_covered(&self) -> u64 {
        self.covered().saturating_sub(self.from.entries)
    }

    /// Entries after the quoted value: how far the quote lags behind the list.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.progress.claim().map_or(0, |claim| claim.entries.saturating_sub(self.covered()))
    }

    /// What the kernel extended with.
    #[must_use]
    pub fn mode(&self) -> BankMode {
        self.mode
    }
}
