//! The IMA list, streamed past the quoted PCR 10 or past nothing.

use std::collections::BTreeMap;
use std::io::Read;

use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};

use super::{OpenList, Values};
use crate::appraisal::logs::RuntimeEvidence;
use crate::appraisal::runtime::{CompiledRules, Counts, Judge, SignatureCache};
use crate::evidence::ima::{
    self, AsciiList, Attachment, BankMode, BootAggregate, Entry, Form, ImaError, ListParser, Position,
    Replay, Shown, Template, Walk,
};

/// What became of a list.
pub(crate) struct ExaminedList {
    /// What is in it, as far as it could be read.
    pub(crate) summary: Summary,
    /// What vouches for it.
    pub(crate) cover: Cover,
    /// What accepted its entries, where the profile has rules for them.
    pub(crate) judged: Option<Counts>,
}

/// What vouches for a list.
pub(crate) enum Cover {
    /// The quote, for the entries before the quoted value.
    Quoted {
        /// Those.
        covered: u64,
        /// Entries after it.
        after: u64,
        /// How the kernel extends the bank.
        mode: BankMode,
    },
    /// It is no list, or does not come to the quoted value.
    Refused(ImaError),
    /// Nothing: it comes to a value that is stated, for which nothing vouches.
    Stated,
    /// Nothing: it does not come to the stated value, or there is none.
    Nothing,
}

/// What is in a list: claims where nothing vouches for it.
#[derive(Default)]
pub(crate) struct Summary {
    /// Entries.
    pub(crate) entries: u64,
    /// By template.
    pub(crate) templates: BTreeMap<&'static str, u64>,
    /// By the algorithm of their digest.
    pub(crate) digests: BTreeMap<&'static str, u64>,
    /// Files with a signature.
    pub(crate) signed: u64,
    /// Violations.
    pub(crate) violations: u64,
    /// Names of the first of them.
    pub(crate) violated: Vec<Shown>,
    /// What the kernel measured in memory, by the event's name: the first names, with their number.
    pub(crate) events: BTreeMap<String, u64>,
    /// The last file.
    pub(crate) last: Option<Shown>,
    /// The first entry.
    pub(crate) boot_aggregate: Option<BootAggregateStanding>,
}

/// What the first entry says of the boot.
pub(crate) enum BootAggregateStanding {
    /// It is over these PCRs, with the values that there are.
    Fits(Form),
    /// It is not, or there are no values.
    Not(ImaError),
}

/// Names that a summary keeps of one kind: what fits a screen.
const NAMES: usize = 12;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// Signatures that are remembered: those of one list.
const SIGNATURES: usize = 1 << 16;

/// Why reading a list stopped.
enum Stop {
    File(std::io::Error),
    List(ImaError),
}

impl From<ImaError> for Stop {
    fn from(error: ImaError) -> Self {
        Self::List(error)
    }
}

/// Examines a list; judges it where there are rules, and the quote has PCR 10.
pub(super) fn examine(
    open: &OpenList,
    values: &Values,
    bank: HashAlgorithm,
    rules: Option<&CompiledRules>,
) -> Result<(ExaminedList, RuntimeEvidence), std::io::Error> {
    let source = Source::find(open)?;
    let pcr = PcrIndex::new(ima::PCR);
    let quoted = values
        .observed()
        .zip(pcr)
        .and_then(|(observed, pcr)| Some((observed.pcrs(), *observed.pcrs().get(bank, pcr)?)));
    let Some((pcrs, quoted)) = quoted else {
        return Ok((unquoted(&source, values, bank)?, RuntimeEvidence::NotSent));
    };
    // Without rules the kernel's way of extending is not stated, and shows by what comes to the quoted value.
    let modes: &[BankMode] = match rules {
        Some(rules) if rules.rules().bank_mode() == BankMode::PaddedSha1 => &[BankMode::PaddedSha1],
        Some(_) => &[BankMode::Native],
        None => &[BankMode::Native, BankMode::PaddedSha1],
    };
    let mut first = None;
    for mode in modes {
        let mut summary = Summary::default();
        let cache = SignatureCache::with_capacity(if rules.is_some() { SIGNATURES } else { 1 });
        let mut judge = rules.map(|rules| Judge::new(rules, &cache, pcrs, None));
        let walked = Walk::begin_with_hashes(None, quoted, *mode, source.hash).map_err(Stop::List).and_then(
            |mut walk| {
                source.each(&mut |bytes| {
                    walk.push(bytes, &mut |entry, cover| {
                        summary.add(entry, Some(pcrs));
                        if let Some(judge) = &mut judge {
                            judge.judge(entry, cover);
                        }
                    })
                })?;
                Ok(walk.finish()?)
            },
        );
        let (cover, evidence) = match walked {
            Err(Stop::File(error)) => return Err(error),
            Err(Stop::List(error)) => (Cover::Refused(error.clone()), RuntimeEvidence::Refused(error)),
            Ok(walked) => {
                let cover =
                    Cover::Quoted { covered: walked.covered(), after: walked.lag(), mode: walked.mode() };
                let rule = "findings are of as many entries as were verified";
                let evidence = judge.map(|judge| match judge.finish(&walked) {
                    Some(appraisal) => RuntimeEvidence::Judged(Box::new(appraisal)),
                    None => RuntimeEvidence::Refused(ImaError::Stored { rule }),
                });
                (cover, evidence.unwrap_or(RuntimeEvidence::NotSent))
            }
        };
        let judged = match &evidence {
            RuntimeEvidence::Judged(appraisal) => Some(*appraisal.findings().counts()),
            RuntimeEvidence::NotSent
            | RuntimeEvidence::Absent
            | RuntimeEvidence::Damaged(_)
            | RuntimeEvidence::OutOfStep { .. }
            | RuntimeEvidence::EmptyPart
            | RuntimeEvidence::Incomplete { .. }
            | RuntimeEvidence::Refused(_) => None,
        };
        let stop = !matches!(cover, Cover::Refused(ImaError::NotReached(_)));
        let examined = (ExaminedList { summary, cover, judged }, evidence);
        if stop {
            return Ok(examined);
        }
        first.get_or_insert(examined);
    }
    match first {
        Some(examined) => Ok(examined),
        None => Ok((unquoted(&source, values, bank)?, RuntimeEvidence::NotSent)),
    }
}

/// Examines a list for which nothing vouches.
fn unquoted(
    source: &Source<'_>,
    values: &Values,
    bank: HashAlgorithm,
) -> Result<ExaminedList, std::io::Error> {
    let mut summary = Summary::default();
    let start = Position::start(bank).value;
    let mut replays = [BankMode::Native, BankMode::PaddedSha1].map(|mode| Replay::from(start, mode));
    let stated = values.values().zip(PcrIndex::new(ima::PCR)).and_then(|(values, pcr)| values.get(bank, pcr));
    let mut met = false;
    let mut parser = ListParser::new(0, source.hash);
    let read = source.each(&mut |bytes| {
        parser.push(bytes, |entry| {
            summary.add(&entry, values.values());
            for replay in &mut replays {
                replay.extend(&entry);
                met |= stated == Some(replay.value());
            }
            Ok::<_, ImaError>(())
        })
    });
    let cover = match read.and_then(|()| Ok(parser.finish()?)) {
        Err(Stop::File(error)) => return Err(error),
        Err(Stop::List(error)) => Cover::Refused(error),
        Ok(_) if met => Cover::Stated,
        Ok(_) => Cover::Nothing,
    };
    Ok(ExaminedList { summary, cover, judged: None })
}

impl Summary {
    fn add(&mut self, entry: &Entry<'_>, pcrs: Option<&PcrValues>) {
        if entry.number() == 0 {
            let nothing = PcrValues::default();
            self.boot_aggregate = Some(match BootAggregate::check(entry, pcrs.unwrap_or(&nothing)) {
                Ok(form) => BootAggregateStanding::Fits(form),
                Err(error) => BootAggregateStanding::Not(error),
            });
        }
        self.entries = self.entries.saturating_add(1);
        count(&mut self.templates, entry.template().name());
        if entry.is_violation() {
            self.violations = self.violations.saturating_add(1);
            if self.violated.len() < NAMES {
                self.violated.push(Shown::of(entry.name()));
            }
            return;
        }
        count(&mut self.digests, entry.digest().algorithm.name());
        match entry.attachment() {
            Attachment::Buffer(_) => {
                let name = Shown::of(entry.name()).to_string();
                if self.events.len() < NAMES || self.events.contains_key(&name) {
                    let count = self.events.entry(name).or_default();
                    *count = count.saturating_add(1);
                }
                return;
            }
            Attachment::Signature([])
            | Attachment::None
            | Attachment::AppendedSignature { signature: [], appended: [], .. } => {}
            Attachment::Evm { signature: [], .. } => {}
            Attachment::Signature(_) | Attachment::AppendedSignature { .. } | Attachment::Evm { .. } => {
                self.signed = self.signed.saturating_add(1);
            }
        }
        self.last = Some(Shown::of(entry.name()));
    }
}

fn count(counts: &mut BTreeMap<&'static str, u64>, name: &'static str) {
    let count = counts.entry(name).or_default();
    *count = count.saturating_add(1);
}

/// A list in one of its two forms.
struct Source<'o> {
    open: &'o OpenList,
    readable: bool,
    /// Of the template hashes: SHA-1, but in the files that Linux 6.9 and later have for each bank.
    hash: HashAlgorithm,
}

impl<'o> Source<'o> {
    /// Tells the two forms apart: a binary entry begins with PCR 10 as a number, a line with its digits.
    fn find(open: &'o OpenList) -> Result<Self, std::io::Error> {
        let mut front = Vec::new();
        open()?.take(512).read_to_end(&mut front)?;
        let readable = matches!(front.first(), Some(b' ' | b'0'..=b'9'));
        let found = if readable { hash_of_line(&front) } else { hash_of_entry(&front) };
        let hash = found.unwrap_or(HashAlgorithm::Sha1);
        Ok(Self { open, readable, hash })
    }

    /// Gives the list in its binary form, piece by piece.
    fn each(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), ImaError>) -> Result<(), Stop> {
        let mut file = (self.open)().map_err(Stop::File)?;
        if self.readable {
            return lines(file, sink);
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match file.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::File(error)),
            };
            sink(chunk.get(..read).unwrap_or_default())?;
        }
    }
}

/// The second word of a line is the template hash, in hex.
fn hash_of_line(front: &[u8]) -> Option<HashAlgorithm> {
    let digits = front.trim_ascii_start().split(|byte| *byte == b' ').nth(1)?.len();
    HashAlgorithm::ALL.into_iter().find(|hash| hash.size().saturating_mul(2) == digits)
}

/// Behind an entry's PCR number and template hash the template's name has to stand, with its length.
fn hash_of_entry(front: &[u8]) -> Option<HashAlgorithm> {
    HashAlgorithm::ALL.into_iter().find(|hash| {
        let rest = front.get(hash.size().saturating_add(4)..).unwrap_or_default();
        let length = rest.first_chunk().map(|length| u32::from_le_bytes(*length));
        let name = length.and_then(|length| rest.get(4..)?.get(..usize::try_from(length).ok()?));
        name.is_some_and(|name| Template::of_name(name).is_some())
    })
}

/// The readable form is one to import, and is held as a whole: it says its sizes by line breaks only.
fn lines(file: Box<dyn Read>, sink: &mut dyn FnMut(&[u8]) -> Result<(), ImaError>) -> Result<(), Stop> {
    let mut text = Vec::new();
    file.take(ima::MAX_BYTES.saturating_add(1)).read_to_end(&mut text).map_err(Stop::File)?;
    for entry in AsciiList::new(&text)? {
        sink(&entry?.to_binary())?;
    }
    Ok(())
}
