//! What a node's logs say, for an operator: to read, and to make rules of.

use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrSet};
use rootbound_common::wire::v1::{BootLogPart, ImaPart};

use super::Verifier;
use super::operate::{OperateError, Operator, Reappraised};
use crate::appraisal::boot::{BootRules, capture};
use crate::evidence::Observed;
use crate::evidence::boot_log::{BootHistory, ParsedBootLog, Replayed, authenticate};
use crate::evidence::frame::unpack;
use crate::evidence::ima::{Attachment, BootAggregate, Entry, FileHash, ImaError, ListParser};
use crate::node::{Name, NodeRecord};
use crate::reference::{DigestSetVersion, ProfileBody};
use crate::store::logs::BootLogRecord;

/// A boot, as its log tells it.
#[derive(Debug, Clone)]
pub struct ShownBoot {
    /// One line for each event.
    pub events: Vec<String>,
    /// Rules by which this boot is as expected.
    pub rules: BootRules,
    /// What they do not say, and why.
    pub left_out: Vec<String>,
}

/// What was made of a node's IMA list.
#[derive(Debug, Clone)]
pub struct CapturedDigests {
    /// The set.
    pub set: DigestSetVersion,
    /// What it changed.
    pub reappraised: Reappraised,
    /// Entries that are no files with a digest that a set could hold: violations, events, weak digests.
    pub left_out: u64,
}

impl Verifier {
    /// What a node's boot measured, held against its last quote; and rules that accept it.
    pub async fn show_boot(&self, id: NodeId) -> Result<ShownBoot, OperateError> {
        let (node, observed) = self.observed_of(id).await?;
        let bank = self.log_bank(&node);
        let history = self.history_of(id, &observed, bank).await?;
        let (rules, left_out) = capture(&history, quoted_in(&observed, bank));
        Ok(ShownBoot {
            events: history.describe().collect(),
            rules,
            left_out: left_out.iter().map(ToString::to_string).collect(),
        })
    }

    /// A node, and what it showed last, verified once more.
    pub(super) async fn observed_of(&self, id: NodeId) -> Result<(NodeRecord, Observed), OperateError> {
        let node = self.store.node(id).await?.ok_or(OperateError::UnknownNode(id))?;
        let stored = self.stored_evidence(&node).await?.ok_or(OperateError::NoEvidence(id))?;
        let observed = stored.map_err(|why| OperateError::StoredEvidence { node: id, why })?;
        Ok((node, observed))
    }

    /// The bank that the logs of a node come to, by its profile.
    pub(super) fn log_bank(&self, node: &NodeRecord) -> HashAlgorithm {
        let book = self.book.load();
        book.rules(&node.labels).profile.map_or(HashAlgorithm::Sha256, ProfileBody::log_bank)
    }

    /// The boot log that is kept of a node, as far as it comes to what was observed.
    pub(super) async fn history_of(
        &self,
        id: NodeId,
        observed: &Observed,
        bank: HashAlgorithm,
    ) -> Result<BootHistory, OperateError> {
        let kept = self.store.logs(id).await?.map(|kept| kept.boot_log);
        let Some(BootLogRecord::Present(frame) | BootLogRecord::Refused(frame)) = kept else {
            return Err(OperateError::NoLog { node: id, log: "boot event log" });
        };
        let refused = |why: String| OperateError::BootLog { node: id, why };
        let log = unpack(&frame, BootLogPart::MAX).map_err(|error| refused(error.to_string()))?;
        let parsed = ParsedBootLog::parse(&log).map_err(|error| refused(error.to_string()))?;
        // PCRs that were extended after the log had ended (by systemd, say) stay unexplained.
        let replays: PcrSet = (parsed.replay(bank).into_iter())
            .filter(|(pcr, replayed)| {
                matches!(replayed, Replayed::Value(value) if observed.pcrs().get(bank, *pcr) == Some(value))
            })
            .map(|(pcr, _)| pcr)
            .collect();
        authenticate(parsed, observed, bank, replays).map_err(|error| refused(error.to_string()))
    }

    /// Makes a digest set of the files in the part of a node's IMA list that its quotes cover.
    pub async fn capture_digests(
        &self,
        id: NodeId,
        name: Name,
        operator: &Operator,
    ) -> Result<CapturedDigests, OperateError> {
        self.store.node(id).await?.ok_or(OperateError::UnknownNode(id))?;
        let no_log = || OperateError::NoLog { node: id, log: "IMA list" };
        let changed = |why: &dyn ToString| OperateError::StoredEvidence { node: id, why: why.to_string() };
        let mut captured = Captured { text: Vec::new(), left_out: 0 };
        let mut parser = ListParser::new(0, HashAlgorithm::Sha1);
        let mut after = None;
        while let Some((number, frame)) = self.store.ima_frame(id, false, after).await? {
            after = Some(number);
            let entries = unpack(&frame, ImaPart::MAX).map_err(|error| changed(&error))?;
            parser
                .push(&entries, |entry| {
                    captured.take(&entry);
                    Ok::<_, ImaError>(())
                })
                .map_err(|error| changed(&error))?;
            tokio::task::yield_now().await;
        }
        if after.is_none() {
            return Err(no_log());
        }
        let Captured { text, left_out } = captured;
        let (set, reappraised) = self.write_digest_set(name, text, operator).await?;
        Ok(CapturedDigests { set, reappraised, left_out })
    }
}

/// The PCRs of a bank that were quoted.
pub(super) fn quoted_in(observed: &Observed, bank: HashAlgorithm) -> PcrSet {
    observed.pcrs().iter().filter(|(other, _, _)| *other == bank).map(|(_, pcr, _)| pcr).collect()
}

/// The text of a digest set, line by line.
struct Captured {
    text: Vec<u8>,
    left_out: u64,
}

impl Captured {
    fn take(&mut self, entry: &Entry<'_>) {
        match line_of(entry) {
            Line::OfNoFile => {}
            Line::LeftOut => self.left_out = self.left_out.saturating_add(1),
            Line::Digest(line) => self.text.extend_from_slice(&line),
        }
    }
}

/// What a digest set says of an entry.
pub(super) enum Line {
    /// It is boot_aggregate, of which none says anything.
    OfNoFile,
    /// It is no file with a digest that a set could hold: a violation, an event, a weak digest.
    LeftOut,
    /// Its line, with the line feed.
    Digest(Vec<u8>),
}

pub(super) fn line_of(entry: &Entry<'_>) -> Line {
    if BootAggregate::is(entry) {
        return Line::OfNoFile;
    }
    let digest = entry.digest();
    let strong = matches!(digest.algorithm, FileHash::Tpm(algorithm) if algorithm != HashAlgorithm::Sha1);
    let file = !matches!(entry.attachment(), Attachment::Buffer(_)) && !entry.is_violation();
    let path = entry.name();
    let writable = path.starts_with(b"/") && !path.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r'));
    if file && strong && writable {
        Line::Digest([digest.to_string().as_bytes(), b"  ", path, b"\n"].concat())
    } else {
        Line::LeftOut
    }
}
