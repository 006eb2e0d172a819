//! Rules out of several boots that are known to be good: what they share.

use std::collections::BTreeMap;
use std::fmt;

use rootbound_common::crypto::{Digest, TaggedDigest};
use rootbound_common::tpm::{PcrIndex, PcrSet};

use super::capture::{LeftOut, capture, pcr_of};
use super::deviation::NamedEvent;
use super::judge::judge;
use super::rules::BootRules;
use crate::evidence::boot_log::{BootHistory, ConfigurationVariable, MeasuredEvent, SecureBootRecord};

/// What several boots share.
#[derive(Debug, Clone)]
pub struct SharedBoot {
    /// Rules by which each of them is as expected.
    pub rules: BootRules,
    /// What they do not say, and why.
    pub left_out: Vec<LeftOut>,
    /// Events that only some of them have: their PCRs are left out.
    pub differing: Vec<Differing>,
    /// Further such events.
    pub more: usize,
}

/// An event that only some of the boots have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// The event, as one of them has it.
    pub event: NamedEvent,
    /// How many boots have it.
    pub on: usize,
    /// Of how many.
    pub of: usize,
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, on, of } = self;
        let digest = TaggedDigest(event.digest);
        write!(f, "PCR {} differs: `{}` ({digest}) is on {on} of {of} nodes", event.pcr, event.what)
    }
}

/// Differing events that are named: nobody reads more.
const MAX_NAMED: usize = 64;

/// Makes rules by which each of these boots is as expected, of what all of them measured: a PCR in which one has an event
/// that another does not have is left out. Of dbx, which grows, the rules ask for what all have. `None`: no boots, or of
/// different banks.
///
/// `judge(history, rules)` is empty for each history; where nothing is shared, the rules explain no PCR.
#[must_use]
pub fn capture_shared(histories: &[BootHistory], explained: PcrSet) -> Option<SharedBoot> {
    let first = histories.first().filter(|first| histories.iter().all(|one| one.bank() == first.bank()))?;
    let mut shared = SharedBoot {
        rules: BootRules::of(first.bank(), PcrSet::EMPTY),
        left_out: Vec::new(),
        differing: Vec::new(),
        more: 0,
    };
    let mut kept = explained;
    for history in histories {
        let (rules, left_out) = capture(history, kept);
        kept = kept.iter().filter(|pcr| rules.explained.contains(*pcr)).collect();
        // What is conceded is said once, of the rules that come out.
        shared.left_out.extend(left_out.into_iter().filter(|left| !is_concession(left)));
    }
    kept = kept.iter().filter(|pcr| shared.compare(histories, *pcr)).collect();
    loop {
        let (mut rules, left_out) = capture(first, kept);
        merge_revocations(&mut rules, histories);
        let irregular: Vec<_> = histories.iter().flat_map(|history| judge(history, &rules)).collect();
        let Some(deviation) = irregular.into_iter().next() else {
            shared.left_out.extend(left_out.into_iter().filter(is_concession));
            return Some(SharedBoot { rules, ..shared });
        };
        // Each turn drops a PCR, or all.
        let pcr = pcr_of(&deviation).filter(|pcr| kept.contains(*pcr));
        kept = kept.iter().filter(|other| pcr.is_some_and(|pcr| *other != pcr)).collect();
        shared.left_out.extend(pcr.map(|pcr| LeftOut::Irregular { pcr, deviation: Box::new(deviation) }));
        if kept.is_empty() {
            return Some(shared);
        }
    }
}

fn is_concession(left: &LeftOut) -> bool {
    match left {
        LeftOut::SecureBoot { .. } | LeftOut::Debugger | LeftOut::DmaProtection => true,
        LeftOut::NotAuthenticated { .. }
        | LeftOut::CannotExplain { .. }
        | LeftOut::MachineSpecific { .. }
        | LeftOut::Irregular { .. } => false,
    }
}

impl SharedBoot {
    /// Whether all boots have the same events in a PCR, whatever their order; notes those that only some have.
    fn compare(&mut self, histories: &[BootHistory], pcr: PcrIndex) -> bool {
        let mut seen: BTreeMap<Digest, (&MeasuredEvent, usize)> = BTreeMap::new();
        for history in histories {
            let dbx = dbx_of(history).map(|event| *event.digest());
            let events = history.of(pcr).filter(|event| pcr.get() != 7 || Some(*event.digest()) != dbx);
            let of_history: BTreeMap<_, _> = events.map(|event| (*event.digest(), event)).collect();
            for (digest, event) in of_history {
                seen.entry(digest).or_insert((event, 0)).1 += 1;
            }
        }
        let of = histories.len();
        let mut differing: Vec<_> = seen.into_values().filter(|(_, on)| *on < of).collect();
        differing.sort_by_key(|(event, _)| event.index());
        let alike = differing.is_empty();
        for (event, on) in differing {
            if self.differing.len() < MAX_NAMED {
                self.differing.push(Differing { event: NamedEvent::of(event), on, of });
            } else {
                self.more += 1;
            }
        }
        alike
    }
}

fn dbx_of(history: &BootHistory) -> Option<&MeasuredEvent> {
    let record = SecureBootRecord::read(history)?;
    record.variable(ConfigurationVariable::Dbx).map(|measured| measured.event)
}

/// Of dbx each boot's own is accepted, and else whatever has all that every one of them has.
fn merge_revocations(rules: &mut BootRules, histories: &[BootHistory]) {
    let Some(of_first) = rules.secure_boot.as_mut() else { return };
    let seven: PcrSet = PcrIndex::new(7).into_iter().collect();
    for other in histories.iter().skip(1) {
        let Some(other) = capture(other, seven).0.secure_boot else { continue };
        let missing = |digest| !of_first.dbx.digests.iter().any(|known| known.digest == digest);
        let new: Vec<_> = other.dbx.digests.into_iter().filter(|one| missing(one.digest)).collect();
        of_first.dbx.digests.extend(new);
        let minimum = &other.dbx.minimum;
        of_first.dbx.minimum.retain(|rule| {
            minimum.iter().any(|other| (other.kind, other.digest) == (rule.kind, rule.digest))
        });
    }
}
