//! Why a node deviates: its deviations by what is stored of it, in groups, each with what comes nearest to what was shown
//! and with what would explain it.

use std::collections::{BTreeMap, BTreeSet};

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_compute::values::Source;
use serde::{Deserialize, Serialize};

use crate::appraisal::boot::{BootDeviation, accepting, nearest};
use crate::appraisal::logs::{BootFinding, RuntimeFinding};
use crate::appraisal::runtime::{Likeness, NearFile, RuntimeDeviation, Wanted};
use crate::appraisal::{Deviation, Verdict, appraise};
use crate::evidence::ima::Shown;
use crate::flows::Verifier;
use crate::flows::logs::{OfQuote, Sent};
use crate::flows::operate::OperateError;
use crate::node::Labels;
use crate::reference::boot_set::source_words;
use crate::reference::{Profile, ReferenceBook, ReferenceSet, Versioned};
use crate::store::DigestSetRecord;

/// Values that come near, of one deviation.
const NEAREST: usize = 3;
/// Contents of digest sets that are searched: the current one of each set first.
const CONTENTS: usize = 64;

/// Why a node stands as it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Which.
    pub node: NodeId,
    /// What its stored evidence comes to now.
    pub verdict: Verdict,
    /// When that was made, at the earliest.
    pub evidence_at: Timestamp,
    /// By which profile, `name@version`.
    pub profile: Option<String>,
    /// By which sets.
    pub references: Vec<String>,
    /// How many deviations there are.
    pub deviations: u64,
    /// What deviates, in groups.
    pub groups: Vec<Group>,
    /// Deviations that are in no group, since so many were asked for.
    pub more: u64,
    /// Contents of digest sets that were not searched, since there are so many.
    pub not_searched: u64,
}

/// Deviations that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What they are about.
    pub kind: GroupKind,
    /// Their code.
    pub code: String,
    /// What they have in common: a PCR, a package or other source, or a folder.
    pub of: Option<String>,
    /// The deviations.
    pub deviations: Vec<Explained>,
}

/// What deviations are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// By what the node is judged at all.
    Profile,
    /// Values of PCRs.
    Pcr,
    /// What booted.
    Boot,
    /// What runs.
    Runtime,
}

/// A deviation, with what comes nearest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// In words.
    pub detail: String,
    /// What is accepted in the same place, the likest first.
    pub nearest: Vec<Near>,
    /// What else would explain it: another set or profile that accepts it, a package of another version.
    pub explanation: Option<String>,
}

/// A reference value that comes near.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    /// Where it is: a set, or a part of a profile's rules.
    pub place: String,
    /// The value; absent where it is a text, which the label is.
    pub value: Option<String>,
    /// What it is of: a path, or a label.
    pub label: String,
    /// Where the set has it from.
    pub source: Option<String>,
}

impl Verifier {
    /// Judges the stored evidence of a node once more, and says of each deviation what comes nearest; at most `limit` of them.
    /// Nothing is changed.
    pub async fn why(&self, id: NodeId, limit: usize) -> Result<Why, OperateError> {
        let (node, observed) = self.observed_of(id).await?;
        let book = self.book.load_full();
        let reset_count = node.last_seen.as_ref().map_or(0, |seen| seen.clock.reset_count);
        let quote = OfQuote { node: id, reset_count, observed: &observed };
        let read = self.read_logs(&quote, &book.rules(&node.labels), Sent::Again(None)).await?;
        let appraisal = appraise(&observed, &read.logs, &node.labels, &book);
        let all = appraisal.deviations();
        let shown = all.get(..limit.min(all.len())).unwrap_or_default();
        let sets = self.store.reference_sets().await?;
        let (files, not_searched) = self.near_files(shown, &book).await?;
        let context = Context { book: &book, labels: &node.labels, sets: &sets, files };
        let mut groups: BTreeMap<(GroupKind, &str, Option<String>), Vec<Explained>> = BTreeMap::new();
        for (number, deviation) in shown.iter().enumerate() {
            let (kind, of, explained) = context.explain(number, deviation);
            groups.entry((kind, deviation.code(), of)).or_default().push(explained);
        }
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let groups = groups.into_iter().map(|((kind, code, of), deviations)| {
            let code = code.to_owned();
            Group { kind, code, of, deviations }
        });
        Ok(Why {
            node: id,
            verdict: appraisal.verdict(),
            evidence_at: appraisal.evidence_at(),
            profile: appraisal.profile().map(|profile| profile.id().to_string()),
            references: appraisal.references().iter().map(ToString::to_string).collect(),
            deviations: count(all.len()),
            groups: groups.collect(),
            more: count(all.len().saturating_sub(shown.len())),
            not_searched,
        })
    }

    /// What digest sets have that is like the files that deviate. The text of one set is in memory at a time.
    async fn near_files(
        &self,
        deviations: &[Deviation],
        book: &ReferenceBook,
    ) -> Result<(NearFiles, u64), OperateError> {
        let mut near = NearFiles::default();
        let mut wanted = Wanted::default();
        for (number, deviation) in deviations.iter().enumerate() {
            if let Some((path, digest)) = file_of(deviation) {
                wanted.add(path.as_str(), digest);
                near.numbers.push(number);
            }
        }
        if near.numbers.is_empty() {
            return Ok((near, 0));
        }
        let mut sets = self.store.digest_sets().await?;
        // Those that count now first, then the newest.
        sets.sort_by_key(|set| (!is_current(set, book), std::cmp::Reverse(set.id.version), set.id.clone()));
        let mut seen = BTreeSet::new();
        sets.retain(|set| seen.insert(set.content));
        let not_searched = u64::try_from(sets.len().saturating_sub(CONTENTS)).unwrap_or(u64::MAX);
        let wanted = std::sync::Arc::new(wanted);
        for set in sets.into_iter().take(CONTENTS) {
            let Some(text) = self.store.digest_text(&set.content).await? else { continue };
            let wanted = std::sync::Arc::clone(&wanted);
            let search = tokio::task::spawn_blocking(move || {
                let mut found = Vec::new();
                wanted.search(&text, |number, line| {
                    // Sets are as long as their writers like.
                    if found.len() < 10_000 {
                        found.push((number, line));
                    }
                });
                found
            });
            let found = search
                .await
                .map_err(|error| OperateError::Store(crate::store::StoreError::Database(Box::new(error))))?;
            let state = SetState::of(&set, book);
            for (number, line) in found {
                near.add(number, &set.id, state, line);
            }
        }
        Ok((near, not_searched))
    }
}

/// Whether the set counts, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SetState {
    Current,
    Earlier,
    Withdrawn,
}

impl SetState {
    fn of(set: &DigestSetRecord, book: &ReferenceBook) -> Self {
        match (is_current(set, book), set.withdrawn) {
            (true, _) => Self::Current,
            (false, true) => Self::Withdrawn,
            (false, false) => Self::Earlier,
        }
    }
}

fn is_current(set: &DigestSetRecord, book: &ReferenceBook) -> bool {
    book.digest_set(&set.id.name).is_some_and(|current| current.id == set.id)
}

/// Lines that are like files that deviate.
#[derive(Debug, Default)]
struct NearFiles {
    /// The number of the deviation of each file that was looked for.
    numbers: Vec<usize>,
    lines: BTreeMap<usize, Vec<(SetState, Versioned, NearFile)>>,
}

impl NearFiles {
    /// Keeps the best, of each likeness.
    fn add(&mut self, number: usize, set: &Versioned, state: SetState, line: NearFile) {
        let Some(number) = self.numbers.get(number) else { return };
        let lines = self.lines.entry(*number).or_default();
        let alike = lines.iter().filter(|(_, _, other)| other.likeness == line.likeness).count();
        if alike < NEAREST {
            lines.push((state, set.clone(), line));
            lines.sort_by_key(|(state, _, line)| (line.likeness, *state));
        }
    }

    fn of(&self, number: usize) -> &[(SetState, Versioned, NearFile)] {
        self.lines.get(&number).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What deviations are explained by.
struct Context<'a> {
    book: &'a ReferenceBook,
    labels: &'a Labels,
    sets: &'a [(ReferenceSet, bool)],
    files: NearFiles,
}

impl Context<'_> {
    fn profile(&self) -> Option<&Profile> {
        self.book.profile(self.labels).ok()
    }

    fn explain(&self, number: usize, deviation: &Deviation) -> (GroupKind, Option<String>, Explained) {
        let detail = deviation.to_string();
        let plain = |detail| Explained { detail, nearest: Vec::new(), explanation: None };
        match deviation {
            Deviation::NoProfile(_) => (GroupKind::Profile, None, plain(detail)),
            Deviation::NotQuoted { .. } | Deviation::IdleBank { .. } | Deviation::PcrDenied { .. } => {
                (GroupKind::Pcr, None, plain(detail))
            }
            Deviation::NoReference { bank, pcr, observed } => {
                let explanation = self.other_set(*bank, *pcr, observed);
                (GroupKind::Pcr, None, Explained { explanation, ..plain(detail) })
            }
            Deviation::PcrMismatch { bank, pcr, observed, .. } => {
                let explanation = self.other_set(*bank, *pcr, observed);
                let nearest = self.accepted(*bank, *pcr);
                (GroupKind::Pcr, None, Explained { detail, nearest, explanation })
            }
            Deviation::Boot(BootFinding::Deviation(boot)) => {
                let of = boot.event().map(|event| format!("PCR {}", event.pcr));
                (GroupKind::Boot, of, self.boot(detail, boot))
            }
            Deviation::Boot(_) => (GroupKind::Boot, None, plain(detail)),
            Deviation::Runtime(_) => {
                let (of, explained) = self.runtime(number, detail, deviation);
                (GroupKind::Runtime, of, explained)
            }
        }
    }

    /// Values that the profile's sets accept for a PCR.
    fn accepted(&self, bank: HashAlgorithm, pcr: PcrIndex) -> Vec<Near> {
        let names = self.profile().map(|profile| profile.body().references.as_slice()).unwrap_or_default();
        let sets = names.iter().filter_map(|name| self.book.set(name));
        let values =
            sets.flat_map(|set| set.accepted.with_source_of(bank, pcr).map(move |value| (set, value)));
        let near = |(set, (value, source)): (&ReferenceSet, (&Digest, &Source))| Near {
            place: format!("reference set {}", set.id),
            value: Some(value.to_string()),
            label: format!("{bank} PCR {pcr}"),
            source: [source_words(source), set.provenance.reason.clone()]
                .into_iter()
                .find(|words| !words.is_empty()),
        };
        values.map(near).take(NEAREST).collect()
    }

    /// A set that accepts the value, and does not count for this node.
    fn other_set(&self, bank: HashAlgorithm, pcr: PcrIndex, observed: &Digest) -> Option<String> {
        let has = |set: &ReferenceSet| set.accepted.of(bank, pcr).any(|value| value == observed);
        let current = |set: &ReferenceSet| self.book.set(&set.id.name).is_some_and(|now| now.id == set.id);
        let found: Vec<_> = self.sets.iter().filter(|(set, _)| has(set)).collect();
        let best = found.iter().find(|(set, _)| current(set)).or(found.last())?;
        let (set, withdrawn) = best;
        let why = match (current(set), withdrawn) {
            (true, _) => "which the profile does not name",
            (false, true) => "which is withdrawn",
            (false, false) => "which is not the newest version",
        };
        Some(format!("reference set {} accepts it, {why}", set.id))
    }

    fn boot(&self, detail: String, deviation: &BootDeviation) -> Explained {
        let none = Explained { detail, nearest: Vec::new(), explanation: None };
        let Some(profile) = self.profile() else { return none };
        let Some(compiled) = self.book.boot(profile) else { return none };
        let (near, all) = nearest(deviation, &compiled.rules, NEAREST);
        let near: Vec<_> = near
            .into_iter()
            .map(|value| Near {
                place: format!("{} of profile {}", value.place, profile.id()),
                value: value.digest.map(|digest| digest.to_string()),
                label: value.label.to_owned(),
                source: None,
            })
            .collect();
        let elsewhere = deviation.event().and_then(|event| self.other_profile(event.pcr, &event.digest));
        let more = all.saturating_sub(near.len());
        let more = (more > 0).then(|| format!("the profile accepts {more} more in this place"));
        Explained { nearest: near, explanation: elsewhere.or(more), ..none }
    }

    /// A profile of other nodes that accepts an event.
    fn other_profile(&self, pcr: PcrIndex, digest: &Digest) -> Option<String> {
        let own = self.profile().map(Profile::id);
        self.book.profiles().filter(|profile| Some(profile.id()) != own).find_map(|profile| {
            let value = accepting(&self.book.boot(profile)?.rules, pcr, digest)?;
            Some(format!(
                "profile {} accepts it in {}, as `{}`",
                profile.id(),
                value.place,
                Shown::of(value.label.as_bytes()).as_str()
            ))
        })
    }

    /// By package or folder.
    fn runtime(&self, number: usize, detail: String, deviation: &Deviation) -> (Option<String>, Explained) {
        let Some((path, _)) = file_of(deviation) else {
            return (None, Explained { detail, nearest: Vec::new(), explanation: None });
        };
        let lines = self.files.of(number);
        let near = |(state, set, line): &(SetState, Versioned, NearFile)| Near {
            place: match state {
                SetState::Current => format!("digest set {set}"),
                SetState::Earlier => format!("digest set {set} (not the newest version)"),
                SetState::Withdrawn => format!("digest set {set} (withdrawn)"),
            },
            value: Some(line.digest.clone()),
            label: line.path.clone(),
            source: line.source.clone(),
        };
        let explanation = lines.first().map(|(state, set, line)| {
            let from = line.source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
            match (line.likeness, state) {
                (Likeness::Same, SetState::Current) => {
                    format!("digest set {set}{from} has it, and the profile does not accept it by that set")
                }
                (Likeness::Same, SetState::Earlier) => {
                    format!("digest set {set}{from} has it, which is not the newest version")
                }
                (Likeness::Same, SetState::Withdrawn) => {
                    format!("digest set {set}{from} has it, which is withdrawn")
                }
                (Likeness::Digest, _) => {
                    format!("the same file is known at `{}`, from digest set {set}{from}", line.path)
                }
                (Likeness::Path, _) => {
                    format!(
                        "digest set {set}{from} has this path with another digest: another version of it ran"
                    )
                }
            }
        });
        let source = lines.iter().find_map(|(_, _, line)| line.source.clone());
        let of = source.unwrap_or_else(|| folder_of(path.as_str()).to_owned());
        let nearest = lines.iter().take(NEAREST).map(near).collect();
        (Some(of), Explained { detail, nearest, explanation })
    }
}

/// The path and the digest of a file that deviates.
fn file_of(deviation: &Deviation) -> Option<(&Shown, &str)> {
    let Deviation::Runtime(RuntimeFinding::Deviation(runtime) | RuntimeFinding::NotCovered(runtime)) =
        deviation
    else {
        return None;
    };
    match runtime {
        RuntimeDeviation::UnknownFile { path, digest, .. }
        | RuntimeDeviation::OtherPath { path, digest, .. }
        | RuntimeDeviation::Signature { path, digest, .. }
        | RuntimeDeviation::WeakDigest { path, digest, .. }
        | RuntimeDeviation::Denied { path, digest, .. }
        | RuntimeDeviation::PolicyLoad { path, digest, .. } => Some((path, digest)),
        RuntimeDeviation::BootAggregate { .. }
        | RuntimeDeviation::Kexec { .. }
        | RuntimeDeviation::OtherBootAggregate { .. }
        | RuntimeDeviation::Violation { .. }
        | RuntimeDeviation::KeyLoad { .. }
        | RuntimeDeviation::DeviceMapper { .. }
        | RuntimeDeviation::KernelVersion { .. }
        | RuntimeDeviation::KexecCommandLine { .. }
        | RuntimeDeviation::CriticalData { .. }
        | RuntimeDeviation::BufferDigest { .. }
        | RuntimeDeviation::TooFewEntries { .. }
        | RuntimeDeviation::PaddedSha1 => None,
    }
}

fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((folder, _)) => folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_of_a_path_is_what_stands_before_its_last_part() {
        for (path, folder) in [("/usr/bin/ls", "/usr/bin"), ("/init", "/"), ("odd", "/")] {
            assert_eq!(folder_of(path), folder);
        }
    }

    #[test]
    fn of_lines_the_likest_of_the_sets_that_count_come_first_and_few_are_kept() {
        let mut files = NearFiles { numbers: vec![5], ..NearFiles::default() };
        let set = |version| Versioned { name: "files".parse().unwrap(), version };
        let line = |likeness, path: &str| NearFile {
            likeness,
            path: path.to_owned(),
            digest: "sha256:00".to_owned(),
            source: None,
        };
        for number in 0..9 {
            files.add(0, &set(1), SetState::Current, line(Likeness::Path, &format!("/{number}")));
        }
        files.add(0, &set(2), SetState::Withdrawn, line(Likeness::Digest, "/withdrawn"));
        files.add(0, &set(3), SetState::Current, line(Likeness::Digest, "/current"));
        let paths: Vec<_> = files.of(5).iter().map(|(_, _, line)| line.path.as_str()).collect();
        assert_eq!(paths, ["/current", "/withdrawn", "/0", "/1", "/2"]);
        assert!(files.of(0).is_empty(), "it is the number of the deviation that counts");
    }
}
