//! What the command line says to the running daemon, and what it hears.
//!
//! Both ends are the same program, so that this is no public interface: it may change with each version.

use std::net::SocketAddr;

use rootbound_common::blob::Blob;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::{NodeId, SpiffeId, TrustDomain};
use rootbound_common::text::only_shows;
use rootbound_common::wire::v1::{JoinToken, PostureReport, PostureStatus};
use serde::{Deserialize, Serialize};

use super::policies::{
    ActivationDetail, DecisionCommand, PolicyCommand, PolicyDetail, PolicyList, PolicyWritten,
};
use super::sets::{
    BootSetDetail, DenyListDetail, DenyWritten, SetCommand, SetSummary, SetWritten, SetsImported,
};
use super::survey::{SurveyCommand, SurveyReply};
use super::tokens::{TokenCommand, TokensRevoked};
use crate::appraisal::boot::BootRules;
use crate::audit::{Checkpoint, Hash, Head, PublicKey, Segment, SequencedRecord};
use crate::flows::operate::Reappraised;
use crate::flows::policies::{Explained, Rehearsal};
use crate::flows::sets::SetDiff;
use crate::flows::tokens::revoke::TokenKeyLists;
use crate::hold::{Hold, HoldId, HoldKind};
use crate::node::{Labels, Name, Standing};
use crate::reference::{AcceptedPcrs, Profile, ProfileBody, Provenance, ReferenceSet};
use crate::store::holds::HoldRecord;
use crate::store::tokens::TokenRecord;
use crate::store::{DecisionRecord, InventoryEntry, JoinTokenRecord, RecordFilter, RecordPage};

/// Why an operator does something, in their words: at most 500 characters, each of which only shows, since they end up
/// in logs and on terminals.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Words(String);

/// A text is too long, or not printable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most {} characters, without line breaks and others that control or hide text", Words::MAX)]
pub struct NotWords;

impl Words {
    const MAX: usize = 500;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Words {
    type Err = NotWords;

    fn from_str(text: &str) -> Result<Self, NotWords> {
        if text.chars().count() <= Self::MAX && text.chars().all(only_shows) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotWords)
        }
    }
}

impl TryFrom<String> for Words {
    type Error = NotWords;

    fn try_from(text: String) -> Result<Self, NotWords> {
        text.parse()
    }
}

impl From<Words> for String {
    fn from(words: Words) -> Self {
        words.0
    }
}

/// The text of a digest set, as a zstd frame.
pub type DigestFrame = Blob<{ 90 * 1024 * 1024 }>;

/// What an operator wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// How is the daemon?
    Health,
    /// Something about policies.
    Policy(PolicyCommand),
    /// Something about decisions.
    Decision(DecisionCommand),
    /// Something about sets of every kind, or the deny list.
    Sets(SetCommand),
    /// A question over the stored evidence.
    Survey(SurveyCommand),
    /// Something about tokens.
    Token(TokenCommand),
    /// Which nodes are there?
    NodeList {
        /// Only nodes that stand so.
        posture: Option<PostureStatus>,
        /// Only nodes with all of these labels.
        labels: Labels,
        /// Only nodes after this one.
        after: Option<NodeId>,
        /// At most so many; more than [`Command::MAX_PAGE`] are not given at once.
        limit: u32,
    },
    /// What is known of a node?
    NodeShow {
        /// Which.
        node: NodeId,
    },
    /// Admit a node.
    NodeApprove {
        /// Which.
        node: NodeId,
        /// Why.
        reason: Words,
    },
    /// Refuse a node everything from now on.
    NodeRetire {
        /// Which.
        node: NodeId,
        /// Why.
        reason: Words,
    },
    /// Ask a node for evidence now.
    NodeAttestNow {
        /// Which.
        node: NodeId,
        /// Whether it is to ask for a new certificate, too.
        renew: bool,
        /// Why.
        reason: Words,
    },
    /// Hold a node.
    NodeQuarantine {
        /// Which.
        node: NodeId,
        /// How.
        kind: HoldKind,
        /// For how long, in seconds; until it is released without this.
        lasts: Option<u64>,
        /// Why.
        reason: Words,
    },
    /// Lift holds.
    NodeRelease {
        /// Of which node.
        node: NodeId,
        /// Which; all of them without this.
        hold: Option<HoldId>,
        /// Why.
        reason: Words,
    },
    /// Change labels.
    NodeLabel {
        /// Of which node.
        node: NodeId,
        /// To set.
        set: Labels,
        /// To take away.
        remove: Vec<Name>,
        /// Why.
        reason: Words,
    },
    /// Expect a machine.
    InventoryAdd {
        /// SHA-256 of its EK.
        node: NodeId,
        /// Accept the EK without a manufacturer's certificate.
        waive_endorsement: bool,
        /// What the node is called when it enrols.
        labels: Labels,
        /// Why.
        reason: Words,
    },
    /// Which machines are expected?
    InventoryList,
    /// Expect a machine no longer.
    InventoryRemove {
        /// Which.
        node: NodeId,
        /// Why.
        reason: Words,
    },
    /// Make a join token.
    JoinTokenCreate {
        /// The only machine that may use it.
        node: Option<NodeId>,
        /// What the node is called when it enrols.
        labels: Labels,
        /// Life in seconds.
        lifetime: u64,
        /// Why.
        reason: Words,
    },
    /// Which join tokens are there?
    JoinTokenList,
    /// Make a join token worthless.
    JoinTokenRevoke {
        /// Its id.
        id: String,
        /// Why.
        reason: Words,
    },
    /// Make a reference set of what a node showed last.
    ReferenceCapture {
        /// Which node.
        node: NodeId,
        /// What the set is called.
        name: Name,
        /// Why.
        reason: Words,
    },
    /// What is in a reference set?
    ReferenceShow {
        /// Which.
        name: Name,
        /// Which version; the latest where it is not said.
        version: Option<u32>,
    },
    /// Which reference sets are there?
    ReferenceList,
    /// Write the next version of a reference set.
    ReferenceSet {
        /// What it is called.
        name: Name,
        /// Its values.
        accepted: AcceptedPcrs,
        /// Why.
        reason: Words,
    },
    /// Withdraw a reference set.
    ReferenceRemove {
        /// Which.
        name: Name,
        /// Why.
        reason: Words,
    },
    /// Make a digest set of what ran on a node.
    DigestsCapture {
        /// Which node.
        node: NodeId,
        /// What the set is called.
        name: Name,
        /// Why.
        reason: Words,
    },
    /// What does a digest set accept?
    DigestsShow {
        /// Which.
        name: Name,
        /// Which version; the latest where it is not said.
        version: Option<u32>,
    },
    /// Which digest sets are there?
    DigestsList,
    /// Write the next version of a digest set.
    DigestsSet {
        /// What it is called.
        name: Name,
        /// Its text, as a zstd frame.
        frame: DigestFrame,
        /// Why.
        reason: Words,
    },
    /// Withdraw a digest set.
    DigestsRemove {
        /// Which.
        name: Name,
        /// Why.
        reason: Words,
    },
    /// What did a node measure as it booted?
    NodeBoot {
        /// Which.
        node: NodeId,
    },
    /// Write the next version of a profile.
    ProfileSet {
        /// What it is called.
        name: Name,
        /// What it says.
        body: Box<ProfileBody>,
        /// Why.
        reason: Words,
    },
    /// What does a profile say?
    ProfileShow {
        /// Which.
        name: Name,
        /// Which version; the latest where it is not said.
        version: Option<u32>,
    },
    /// Which profiles are there?
    ProfileList,
    /// Who signs?
    CaShow,
    /// What is in the audit trail, from this record on?
    AuditSegments {
        /// The number of the record.
        from: u64,
    },
    /// Which checkpoints are there?
    AuditCheckpoints {
        /// How many were seen already.
        skip: u64,
    },
    /// Which records are there, the latest first?
    AuditRecords {
        /// Which are wanted.
        filter: RecordFilter,
        /// Only records before this one.
        before: Option<u64>,
        /// At most so many.
        limit: u32,
    },
    /// Sign the audit trail now.
    AuditCheckpoint,
    /// Sign the end of what is to be archived.
    AuditSeal {
        /// Only records before this time.
        before: Timestamp,
    },
    /// Take away what was archived.
    AuditForget {
        /// The last record of it.
        end: Head,
        /// Why.
        reason: Words,
    },
}

impl Command {
    /// Nodes in one answer: about 500 KB.
    pub const MAX_PAGE: u32 = 500;
    /// Segments of the audit trail in one answer, which is some 10 MB long at most.
    pub const MAX_SEGMENTS: u32 = 1000;
    /// Checkpoints in one answer: about 500 KB.
    pub const MAX_CHECKPOINTS: u32 = 1000;
}

/// A segment of the audit trail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SegmentDetail {
    /// The number of its first record.
    pub first: u64,
    /// The hash before that.
    pub previous: Hash,
    /// The hash of each record.
    pub links: Vec<Hash>,
    /// The hash of the last record.
    pub hash: Hash,
    /// The earliest and the latest time of a record.
    pub times: (Timestamp, Timestamp),
    /// Its lines.
    pub body: String,
}

impl From<Segment> for SegmentDetail {
    fn from(segment: Segment) -> Self {
        let Segment { first, previous, links, hash, times, body } = segment;
        // What is no text any more is none of the lines that were written: then no line is shown, and verification says so.
        Self { first, previous, links, hash, times, body: String::from_utf8(body).unwrap_or_default() }
    }
}

impl From<SegmentDetail> for Segment {
    fn from(detail: SegmentDetail) -> Self {
        let SegmentDetail { first, previous, links, hash, times, body } = detail;
        Self { first, previous, links, hash, times, body: body.into_bytes() }
    }
}

/// Checkpoints of the audit trail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckpointPage {
    /// In the order of making.
    pub checkpoints: Vec<Checkpoint>,
    /// The keys that ever signed.
    pub keys: Vec<PublicKey>,
}

/// A checkpoint, to be kept elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckpointDetail {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// What verifies it, PEM.
    pub audit_key: PublicKey,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A policy bundle was written.
    PolicyWritten(PolicyWritten),
    /// Policy bundles.
    Policies(PolicyList),
    /// One of them.
    Policy(Box<PolicyDetail>),
    /// What a bundle would have made of recorded decisions.
    Rehearsal(Rehearsal),
    /// A bundle came into force.
    PolicyActivated(ActivationDetail),
    /// Decisions.
    Decisions(RecordPage),
    /// One of them.
    Decision(SequencedRecord),
    /// One of them, explained.
    Explained(Box<Explained>),
    /// To a question over the stored evidence.
    Survey(Box<SurveyReply>),
    /// To [`Command::Health`].
    Health(Health),
    /// To [`Command::NodeList`].
    Nodes(NodePage),
    /// To [`Command::NodeShow`].
    Node(Box<NodeDetail>),
    /// To the commands that change a node.
    NodeChanged(NodeSummary),
    /// To [`Command::NodeAttestNow`].
    NodeAsked(NodeAsked),
    /// To [`Command::NodeQuarantine`].
    NodeHeld(NodeHeld),
    /// To [`Command::InventoryList`].
    Inventory(Vec<InventoryEntry>),
    /// To [`Command::InventoryAdd`].
    InventoryAdded(InventoryEntry),
    /// To [`TokenCommand::List`].
    Tokens(Vec<TokenRecord>),
    /// To [`TokenCommand::Revoke`].
    TokensRevoked(TokensRevoked),
    /// To [`TokenCommand::Keys`] and [`TokenCommand::RotateKeys`].
    TokenKeys(TokenKeyLists),
    /// To [`Command::JoinTokenList`].
    JoinTokens(Vec<JoinTokenRecord>),
    /// To [`Command::JoinTokenCreate`].
    JoinTokenCreated(NewJoinToken),
    /// To [`Command::ReferenceList`].
    References(Vec<ReferenceSummary>),
    /// To [`Command::ReferenceShow`].
    Reference(ReferenceDetail),
    /// To [`SetCommand::List`].
    Sets(Vec<SetSummary>),
    /// To the commands that make a version of a set current.
    SetWritten(SetWritten),
    /// To [`SetCommand::Show`].
    BootSet(Box<BootSetDetail>),
    /// To [`SetCommand::Diff`].
    SetDiff(Box<SetDiff>),
    /// To [`SetCommand::Denied`].
    DenyList(Box<DenyListDetail>),
    /// To the commands that change the deny list.
    Denied(DenyWritten),
    /// To [`SetCommand::Export`]: the document.
    Exported(serde_json::Value),
    /// To [`SetCommand::Import`].
    Imported(SetsImported),
    /// To the commands that write a reference set or a profile.
    Written(Written),
    /// To [`Command::DigestsList`].
    DigestSets(Vec<DigestSetSummary>),
    /// To [`Command::DigestsShow`].
    DigestSet(DigestSetDetail),
    /// To [`Command::DigestsCapture`].
    DigestsCaptured(DigestsCaptured),
    /// To [`Command::AuditSegments`]; none where the trail ends before.
    AuditSegments(Vec<SegmentDetail>),
    /// To [`Command::AuditCheckpoints`].
    AuditCheckpoints(CheckpointPage),
    /// To [`Command::AuditRecords`].
    AuditRecords(RecordPage),
    /// To [`Command::AuditCheckpoint`].
    AuditCheckpoint(Box<CheckpointDetail>),
    /// To [`Command::AuditSeal`].
    AuditSealed(Option<Box<Checkpoint>>),
    /// To [`Command::AuditForget`]: how many segments are gone.
    AuditForgotten(u64),
    /// To [`Command::NodeBoot`].
    Boot(Box<BootDetail>),
    /// To [`Command::ProfileList`].
    Profiles(Vec<ProfileDetail>),
    /// To [`Command::ProfileShow`].
    Profile(Box<ProfileDetail>),
    /// To [`Command::CaShow`].
    Ca(CaDetail),
    /// To the commands that take something away.
    Removed(Removed),
}

/// How the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it can do its work.
    pub ready: bool,
    /// What it lacks.
    pub missing: Vec<String>,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The name of the fleet.
    pub trust_domain: TrustDomain,
    /// Nodes that it knows.
    pub nodes: usize,
    /// Its version.
    pub version: String,
}

/// Some of the nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodePage {
    /// By rising id.
    pub nodes: Vec<NodeSummary>,
    /// Where there are more: the `after` that continues.
    pub next: Option<NodeId>,
}

/// A node that was asked for evidence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeAsked {
    /// Which.
    pub id: NodeId,
    /// Whether it holds a control stream: it hears of it now.
    pub listens: bool,
}

/// A node that is held.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeHeld {
    /// The node.
    pub node: NodeSummary,
    /// The hold.
    pub hold: Hold,
}

/// A node in one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeSummary {
    /// Its id.
    pub id: NodeId,
    /// Where it is in its life.
    pub standing: Standing,
    /// How it stands.
    pub posture: PostureStatus,
    /// When its last evidence was made, at the earliest.
    pub evidence_at: Option<Timestamp>,
    /// What operators say of it.
    pub labels: Labels,
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeDetail {
    /// Its id.
    pub id: NodeId,
    /// Its SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// Where it is in its life.
    pub standing: Standing,
    /// What operators say of it.
    pub labels: Labels,
    /// When it enrolled first.
    pub enrolled_at: Timestamp,
    /// Who vouches for its EK.
    pub endorsement: EndorsementDetail,
    /// Name of its AK, in hex.
    pub attestation_key: String,
    /// How it stands, and why.
    pub posture: PostureReport,
    /// Counts what made things that were handed out before count no more.
    pub epoch: u64,
    /// Evidence made then or before counts as stale.
    pub attested_after: Option<Timestamp>,
    /// Whether it holds a control stream.
    pub listens: bool,
    /// The holds that it has and had, the latest first.
    pub holds: Vec<HoldRecord>,
    /// When its last evidence was accepted.
    pub made_at: Option<Timestamp>,
    /// Its certificates, the latest first.
    pub credentials: Vec<CredentialDetail>,
    /// What was decided about it, the latest first.
    pub decisions: Vec<DecisionRecord>,
}

/// Who vouches for an EK.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum EndorsementDetail {
    /// Its manufacturer.
    Manufacturer {
        /// The TPM's manufacturer, as the certificate says.
        manufacturer: Option<String>,
        /// The TPM's model.
        model: Option<String>,
        /// The TPM's version.
        version: Option<String>,
        /// Who issued the EK certificate.
        issuer: String,
        /// The EK certificate's serial number.
        serial: String,
        /// Until when the EK certificate is valid.
        not_after: Timestamp,
        /// SHA-256 of the trust anchor, in hex.
        anchor: String,
    },
    /// The operator, by the inventory.
    Operator,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialDetail {
    /// Its serial number, in hex.
    pub serial: String,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// SHA-256 of its key, in hex.
    pub key_digest: String,
    /// Whether it would be accepted now, by its dates and by the AK that it was issued under.
    pub current: bool,
}

/// A join token, this once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewJoinToken {
    /// What its bearer shows.
    pub token: JoinToken,
    /// What is kept of it.
    pub record: JoinTokenRecord,
}

/// A version of a reference set in one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReferenceSummary {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u32,
    /// Whether it is withdrawn.
    pub withdrawn: bool,
    /// How many values it has.
    pub values: usize,
    /// Who made it.
    pub provenance: Provenance,
}

/// A version of a reference set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReferenceDetail {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u32,
    /// Whether it is withdrawn.
    pub withdrawn: bool,
    /// Its values.
    pub accepted: AcceptedPcrs,
    /// Who made it.
    pub provenance: Provenance,
}

impl ReferenceDetail {
    pub(super) fn of(set: ReferenceSet, withdrawn: bool) -> Self {
        let ReferenceSet { id, accepted, provenance } = set;
        Self { name: id.name, version: id.version, withdrawn, accepted, provenance }
    }
}

/// A version of a digest set in one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DigestSetSummary {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u32,
    /// Whether it is withdrawn.
    pub withdrawn: bool,
    /// How many digests it has.
    pub digests: u64,
    /// SHA-256 of what it accepts, in hex: versions that accept the same have the same.
    pub content: String,
    /// Who made it.
    pub provenance: Provenance,
}

/// A version of a digest set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DigestSetDetail {
    /// Which.
    #[serde(flatten)]
    pub summary: DigestSetSummary,
    /// Its text, as a zstd frame.
    pub frame: DigestFrame,
}

/// A digest set was made of a node's IMA list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DigestsCaptured {
    /// The set.
    #[serde(flatten)]
    pub written: Written,
    /// How many digests it has.
    pub digests: usize,
    /// Entries that it could not take: violations, events, weak digests.
    pub left_out: u64,
}

/// What a node measured as it booted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootDetail {
    /// A line for each event.
    pub events: Vec<String>,
    /// Rules that accept this boot, for a profile.
    pub rules: BootRules,
    /// What they do not say, and why.
    pub left_out: Vec<String>,
}

/// A version of a profile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProfileDetail {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u32,
    /// What it says.
    pub body: ProfileBody,
    /// Who made it.
    pub provenance: Provenance,
}

impl ProfileDetail {
    pub(super) fn of(profile: &Profile) -> Self {
        Self {
            name: profile.id().name.clone(),
            version: profile.id().version,
            body: profile.body().clone(),
            provenance: profile.provenance().clone(),
        }
    }
}

/// A new version, and what it changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Written {
    /// The name.
    pub name: Name,
    /// The version.
    pub version: u32,
    /// What it changed.
    pub reappraised: Reappraised,
}

/// Something was taken away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Removed {
    /// What.
    pub what: String,
    /// What that changed, where it can change how nodes stand.
    pub reappraised: Option<Reappraised>,
}

/// The CA.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CaDetail {
    /// For which trust domain it signs.
    pub trust_domain: TrustDomain,
    /// From when on each certificate of its chain is valid.
    pub not_before: Timestamp,
    /// Until when each certificate of its chain is valid.
    pub not_after: Timestamp,
    /// SHA-256 of each certificate of its chain, in hex, the issuing one first.
    pub fingerprints: Vec<String>,
    /// Its chain, PEM.
    pub chain: String,
    /// What relying parties trust, PEM.
    pub trust_bundle: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte that is no UTF-8 must not come out as the character that stands for it, which a record may have.
    #[test]
    fn segment_that_is_no_text_shows_no_line() {
        let of = |body: &[u8]| {
            let hash = Hash::from_bytes([0; 32]);
            let times = (Timestamp::from_millis(0), Timestamp::from_millis(0));
            let segment =
                Segment { first: 1, previous: hash, links: vec![hash], hash, times, body: body.to_vec() };
            SegmentDetail::from(segment).body
        };
        assert_eq!(of("{\"a\":\"\u{fffd}\"}\n".as_bytes()), "{\"a\":\"\u{fffd}\"}\n");
        assert_eq!(of(b"{\"a\":\"\xff\"}\n"), "");
    }

    #[test]
    fn reasons_are_short_and_printable() {
        assert_eq!("ticket 7: new kernel".parse::<Words>().unwrap().as_str(), "ticket 7: new kernel");
        assert!("".parse::<Words>().is_ok());
        for bad in ["a\nb", "\u{1b}[31m", &"x".repeat(501)] {
            assert_eq!(bad.parse::<Words>(), Err(NotWords), "{bad:?}");
        }
    }
}
