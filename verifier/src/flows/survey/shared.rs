//! What several nodes have in common, by the evidence that is stored of them, and what is each one's own: PCR values, boot
//! rules, and the files that ran.

use std::collections::{BTreeMap, HashMap};

use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_common::wire::v1::ImaPart;
use rootbound_compute::values::Source;
use serde::{Deserialize, Serialize};

use super::SurveyError;
use crate::appraisal::boot::{BootRules, capture_shared};
use crate::appraisal::runtime::{DigestSet, SOURCE};
use crate::evidence::Observed;
use crate::evidence::frame::unpack;
use crate::evidence::ima::{self, BankMode, Cover, Walk};
use crate::flows::Verifier;
use crate::flows::observe::{Line, line_of, quoted_in};
use crate::flows::operate::OperateError;
use crate::node::{Labels, NodeRecord};
use crate::reference::AcceptedPcrs;

/// Nodes that are looked at together: the logs of each are read.
pub const MOST_NODES: usize = 64;
/// Nodes that are read at once.
const PAGE: u32 = 500;

/// Which files a digest set is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhichFiles {
    /// Those that ran on every node.
    Shared,
    /// Those that ran on any.
    All,
}

/// What several nodes share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SharedCapture {
    /// The nodes, by rising id.
    pub nodes: Vec<NodeId>,
    /// PCR values that all of them show; absent where there is none.
    pub accepted: Option<AcceptedPcrs>,
    /// Rules by which the boot of each is as expected; absent where a boot log is missing or nothing is shared.
    pub boot: Option<BootRules>,
    /// Files that ran, where they were asked for.
    pub files: Option<SharedFiles>,
    /// What differs or is left out, and why.
    pub left_out: Vec<String>,
}

/// Files that ran on several nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFiles {
    /// The text of a digest set of them.
    pub text: String,
    /// Files in it.
    pub digests: u64,
    /// Files that ran on every node.
    pub on_all: u64,
    /// Files that ran on some.
    pub on_some: u64,
    /// Paths that have more than one digest.
    pub differing_paths: u64,
    /// Entries that no set could hold: violations, events, weak digests.
    pub left_out: u64,
}

/// A node that is looked at.
struct Seen {
    record: NodeRecord,
    observed: Observed,
}

impl Verifier {
    /// What the named nodes share, together with those that have all of `labels`, where any are given. A named node has to have
    /// evidence; of those found by their labels the ones without are left out.
    pub async fn capture_shared(
        &self,
        named: Vec<NodeId>,
        labels: Labels,
        files: Option<WhichFiles>,
    ) -> Result<SharedCapture, OperateError> {
        let mut left_out = Vec::new();
        let nodes = self.seen(named, &labels, &mut left_out).await?;
        let accepted = shared_values(&nodes, &mut left_out);
        let boot = self.shared_boot(&nodes, &mut left_out).await?;
        let files = match files {
            Some(which) => Some(self.shared_files(&nodes, which).await?),
            None => None,
        };
        let nodes = nodes.iter().map(|seen| seen.record.id).collect();
        Ok(SharedCapture { nodes, accepted, boot, files, left_out })
    }

    async fn seen(
        &self,
        mut named: Vec<NodeId>,
        labels: &Labels,
        left_out: &mut Vec<String>,
    ) -> Result<Vec<Seen>, OperateError> {
        named.sort_unstable();
        named.dedup();
        let most = |found: usize| {
            let count = u64::try_from(found).unwrap_or(u64::MAX);
            if found > MOST_NODES { Err(SurveyError::TooManyNodes { found: count }) } else { Ok(()) }
        };
        most(named.len())?;
        let mut seen = Vec::new();
        for id in &named {
            let (record, observed) = self.observed_of(*id).await?;
            seen.push(Seen { record, observed });
        }
        if !labels.is_empty() {
            let found = self.labelled(labels).await?;
            most(found.len())?;
            for id in found.into_iter().filter(|id| !named.contains(id)) {
                match self.observed_of(id).await {
                    Ok((record, observed)) => seen.push(Seen { record, observed }),
                    Err(OperateError::NoEvidence(node)) => {
                        left_out.push(format!("node {node}: it has shown no evidence"));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        most(seen.len())?;
        if seen.is_empty() {
            return Err(SurveyError::NoNodes.into());
        }
        seen.sort_unstable_by_key(|seen| seen.record.id);
        Ok(seen)
    }

    /// The nodes with these labels; of too many, one more than are looked at at the least.
    async fn labelled(&self, labels: &Labels) -> Result<Vec<NodeId>, OperateError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.nodes(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.id);
            found.extend(page.iter().filter(|node| labels.all_in(&node.labels)).map(|node| node.id));
            if found.len() > MOST_NODES {
                return Ok(found);
            }
        }
    }

    /// Boot rules that fit all, where each has sent its boot log.
    async fn shared_boot(
        &self,
        nodes: &[Seen],
        left_out: &mut Vec<String>,
    ) -> Result<Option<BootRules>, OperateError> {
        let Some(first) = nodes.first() else { return Ok(None) };
        let bank = self.log_bank(&first.record);
        let mut quoted = quoted_in(&first.observed, bank);
        let mut histories = Vec::new();
        for Seen { record, observed } in nodes {
            let of_node = quoted_in(observed, bank);
            quoted = quoted.iter().filter(|pcr| of_node.contains(*pcr)).collect();
            match self.history_of(record.id, observed, bank).await {
                Ok(history) => histories.push(history),
                Err(error @ (OperateError::NoLog { .. } | OperateError::BootLog { .. })) => {
                    left_out.push(format!("boot rules: {error}"));
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
            tokio::task::yield_now().await;
        }
        let Some(shared) = capture_shared(&histories, quoted) else { return Ok(None) };
        left_out.extend(shared.left_out.iter().map(ToString::to_string));
        left_out.extend(shared.differing.iter().map(ToString::to_string));
        if shared.more > 0 {
            left_out.push(format!("{} more events differ", shared.more));
        }
        Ok(Some(shared.rules).filter(|rules| !rules.explained.is_empty()))
    }

    async fn shared_files(&self, nodes: &[Seen], which: WhichFiles) -> Result<SharedFiles, OperateError> {
        let mut files = Files::default();
        for (number, seen) in nodes.iter().enumerate() {
            self.files_of(seen, number, &mut files).await?;
        }
        Ok(files.finish(nodes.len(), which))
    }

    /// The files in a node's IMA list that its last quote covers.
    async fn files_of(&self, seen: &Seen, number: usize, files: &mut Files) -> Result<(), OperateError> {
        let id = seen.record.id;
        let no_log = || OperateError::NoLog { node: id, log: "IMA list" };
        let refused = |why: &dyn ToString| OperateError::StoredEvidence { node: id, why: why.to_string() };
        let bank = self.log_bank(&seen.record);
        let quoted = PcrIndex::new(ima::PCR).and_then(|pcr| seen.observed.pcrs().get(bank, pcr));
        let quoted = *quoted.ok_or_else(no_log)?;
        let mode = {
            let book = self.book.load();
            let rules = book.rules(&seen.record.labels);
            rules.runtime.map_or(BankMode::Native, |compiled| compiled.rules().bank_mode())
        };
        let mut walk = Walk::begin(None, quoted, mode).map_err(|error| refused(&error))?;
        let mut after = None;
        while let Some((frame_number, frame)) = self.store.ima_frame(id, false, after).await? {
            after = Some(frame_number);
            let entries = unpack(&frame, ImaPart::MAX).map_err(|error| refused(&error))?;
            walk.push(&entries, &mut |entry, cover| match (cover, line_of(entry)) {
                (Cover::Tail, _) | (Cover::Quote, Line::OfNoFile) => {}
                (Cover::Quote, Line::LeftOut) => files.left_out = files.left_out.saturating_add(1),
                (Cover::Quote, Line::Digest(line)) => files.take(line, number),
            })
            .map_err(|error| refused(&error))?;
            files.check(DigestSet::MAX_DIGESTS)?;
            tokio::task::yield_now().await;
        }
        if after.is_none() {
            return Err(no_log());
        }
        walk.finish().map_err(|error| refused(&error))?;
        Ok(())
    }
}

/// Values of PCRs that all nodes show; what is not shared is noted.
fn shared_values(nodes: &[Seen], left_out: &mut Vec<String>) -> Option<AcceptedPcrs> {
    let mut values: BTreeMap<(HashAlgorithm, PcrIndex), HashMap<_, usize>> = BTreeMap::new();
    for seen in nodes {
        for (bank, pcr, value) in seen.observed.pcrs().iter() {
            *values.entry((bank, pcr)).or_default().entry(*value).or_default() += 1;
        }
    }
    let mut shared = Vec::new();
    for ((bank, pcr), values) in values {
        let shown: usize = values.values().sum();
        match values.iter().next() {
            Some((value, on)) if *on == nodes.len() => shared.push((pcr, *value)),
            _ => {
                let values = values.len();
                let silent = nodes.len().saturating_sub(shown);
                let quoted = if silent > 0 { format!(", {silent} do not quote it") } else { String::new() };
                left_out.push(format!("{bank} PCR {pcr}: {values} values on {shown} nodes{quoted}"));
            }
        }
    }
    // Each shows what all do.
    let shown_by =
        nodes.first().map(|seen| Source { node: Some(seen.record.id.to_string()), ..Source::default() });
    match AcceptedPcrs::new(shared) {
        Ok(accepted) => Some(accepted.from_source(&shown_by.unwrap_or_default())),
        Err(error) => {
            left_out.push(format!("PCR values: {error}"));
            None
        }
    }
}

/// Lines of digest sets, with how many nodes have each.
#[derive(Default)]
struct Files {
    /// The last node that has it, and how many have it.
    lines: BTreeMap<Vec<u8>, (usize, usize)>,
    left_out: u64,
}

impl Files {
    fn take(&mut self, line: Vec<u8>, number: usize) {
        let (last, on) = self.lines.entry(line).or_insert((number, 0));
        if *on == 0 || *last != number {
            (*last, *on) = (number, on.saturating_add(1));
        }
    }

    /// Whether a digest set can hold as many.
    fn check(&self, most: usize) -> Result<(), SurveyError> {
        if self.lines.len() > most { Err(SurveyError::TooManyFiles) } else { Ok(()) }
    }

    fn finish(self, nodes: usize, which: WhichFiles) -> SharedFiles {
        let is_shared = |on: usize| on == nodes;
        let mut paths: HashMap<&[u8], u32> = HashMap::new();
        for line in self.lines.keys() {
            let path = line.iter().position(|byte| *byte == b' ').and_then(|end| line.get(end..));
            *paths.entry(path.unwrap_or_default()).or_default() += 1;
        }
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let on_all = count(self.lines.values().filter(|(_, on)| is_shared(*on)).count());
        let differing_paths = count(paths.values().filter(|digests| **digests > 1).count());
        let what = match which {
            WhichFiles::Shared => "every one",
            WhichFiles::All => "any",
        };
        let mut text = format!("{SOURCE} ran on {what} of {nodes} nodes\n").into_bytes();
        let mut digests = 0;
        for (line, (_, on)) in &self.lines {
            if which == WhichFiles::All || is_shared(*on) {
                digests += 1;
                text.extend_from_slice(line);
            }
        }
        SharedFiles {
            // Paths need not be UTF-8; such a line would name another path, and is not there.
            text: text_of(&text),
            digests,
            on_all,
            on_some: count(self.lines.len()).saturating_sub(on_all),
            differing_paths,
            left_out: self.left_out,
        }
    }
}

/// The lines that are UTF-8.
fn text_of(text: &[u8]) -> String {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines.filter_map(|line| std::str::from_utf8(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_by_the_nodes_that_have_them_however_often_they_ran() {
        let mut files = Files::default();
        let line = |text: &str| format!("{text}\n").into_bytes();
        for (number, path) in [(0, "1  /a"), (0, "1  /a"), (0, "2  /b"), (1, "1  /a"), (1, "3  /b")] {
            files.take(line(path), number);
        }
        files.left_out = 4;
        assert!(files.check(3).is_ok());
        assert_eq!(files.check(2).unwrap_err().code(), "too_many_files");
        let all = files.finish(2, WhichFiles::All);
        assert_eq!(all.text, "# source: ran on any of 2 nodes\n1  /a\n2  /b\n3  /b\n");
        assert_eq!((all.digests, all.on_all, all.on_some, all.differing_paths), (3, 1, 2, 1));
        assert_eq!(all.left_out, 4);
        let mut files = Files::default();
        [(0, "1  /a"), (1, "1  /a"), (1, "2  /b")].iter().for_each(|(number, path)| {
            files.take(line(path), *number);
        });
        let shared = files.finish(2, WhichFiles::Shared);
        assert_eq!(shared.text, "# source: ran on every one of 2 nodes\n1  /a\n");
        assert_eq!((shared.digests, shared.on_all, shared.on_some), (1, 1, 1));
    }

    #[test]
    fn line_that_is_no_text_is_left_out_of_the_text() {
        assert_eq!(text_of(b"1  /a\n2  /\xff\n3  /c\n"), "1  /a\n3  /c\n");
    }
}
