//! What the daemon does about each command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rootbound_common::blob::Blob;
use rootbound_common::crypto::sha256;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{PostureReport, PostureStatus};

use super::message::{
    BootDetail, CaDetail, CheckpointDetail, CheckpointPage, Command, CredentialDetail, DigestSetDetail,
    DigestSetSummary, DigestsCaptured, EndorsementDetail, Health, NewJoinToken, NodeAsked, NodeDetail,
    NodeHeld, NodePage, NodeSummary, ProfileDetail, ReferenceDetail, ReferenceSummary, Removed, Reply, Words,
    Written,
};
use super::{policies, sets, survey, tokens};
use crate::enrollment::Endorsement;
use crate::evidence::frame::pack;
use crate::flows::Verifier;
use crate::flows::observe::ShownBoot;
use crate::flows::operate::{OperateError, Operator};
use crate::http::readyz;
use crate::node::{Labels, Name, NodeRecord};
use crate::posture;
use crate::reference::{Profile, ReferenceSet};
use crate::store::{CertificateRecord, DigestSetRecord};

/// Who asks, and whom.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) verifier: &'a Arc<Verifier>,
    pub(super) listen: SocketAddr,
    /// `uid 0`, as the kernel says.
    pub(super) author: String,
}

/// Does what a command says.
pub(super) async fn answer(session: &Session<'_>, command: Command) -> Result<Reply, OperateError> {
    let verifier = session.verifier;
    match command {
        Command::Policy(command) => Ok(policies::answer(session, command).await?),
        Command::Decision(command) => Ok(policies::answer_decision(session, command).await?),
        Command::Sets(command) => sets::answer(session, command).await,
        Command::Survey(command) => survey::answer(session, command).await,
        Command::Token(command) => tokens::answer(session, command).await,
        Command::Health => Ok(Reply::Health(session.health().await)),
        Command::NodeList { posture, labels, after, limit } => {
            session.nodes(posture, &labels, after, limit).await
        }
        Command::NodeShow { node } => session.node(node).await,
        Command::NodeApprove { node, reason } => {
            session.changed(verifier.approve(node, &session.operator(&reason)).await)
        }
        Command::NodeRetire { node, reason } => {
            session.changed(verifier.retire(node, &session.operator(&reason)).await)
        }
        Command::NodeAttestNow { node, renew, reason } => {
            let operator = session.operator(&reason);
            let listens = verifier.attest_now(node, renew, &operator).await?;
            tracing::info!(%node, listens, author = %operator.author, "node asked for evidence");
            Ok(Reply::NodeAsked(NodeAsked { id: node, listens }))
        }
        Command::NodeQuarantine { node, kind, lasts, reason } => {
            let (operator, lasts) = (session.operator(&reason), lasts.map(Duration::from_secs));
            let (record, hold) = verifier.quarantine(node, kind, lasts, &operator).await?;
            Ok(Reply::NodeHeld(NodeHeld { node: session.summary(&record), hold }))
        }
        Command::NodeRelease { node, hold, reason } => {
            session.changed(verifier.release(node, hold, &session.operator(&reason)).await)
        }
        Command::NodeLabel { node, set, remove, reason } => {
            let set = set.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
            let changes = remove.into_iter().map(|key| (key, None)).chain(set).collect();
            session.changed(verifier.label(node, changes, &session.operator(&reason)).await)
        }
        Command::InventoryAdd { node, waive_endorsement, labels, reason } => {
            let operator = session.operator(&reason);
            let entry = verifier.add_inventory(node, waive_endorsement, labels, &operator).await?;
            tracing::info!(%node, waive_endorsement, author = %operator.author, "inventory entry written");
            Ok(Reply::InventoryAdded(entry))
        }
        Command::InventoryList => Ok(Reply::Inventory(verifier.store().inventory().await?)),
        Command::InventoryRemove { node, reason } => {
            verifier.remove_inventory(node, &session.operator(&reason)).await?;
            let (author, reason) = (&session.author, reason.as_str());
            tracing::info!(%node, author, reason, "inventory entry removed");
            Ok(removed(format!("inventory entry {node}")))
        }
        Command::JoinTokenCreate { node, labels, lifetime, reason } => {
            let (operator, lifetime) = (session.operator(&reason), Duration::from_secs(lifetime));
            let (token, record) = verifier.create_join_token(node, labels, lifetime, &operator).await?;
            tracing::info!(id = record.id, author = %operator.author, "join token created");
            Ok(Reply::JoinTokenCreated(NewJoinToken { token, record }))
        }
        Command::JoinTokenList => Ok(Reply::JoinTokens(verifier.store().join_tokens().await?)),
        Command::JoinTokenRevoke { id, reason } => {
            verifier.revoke_join_token(&id, &session.operator(&reason)).await?;
            let (author, reason) = (&session.author, reason.as_str());
            tracing::info!(id, author, reason, "join token revoked");
            Ok(removed(format!("join token {id}")))
        }
        Command::ReferenceCapture { node, name, reason } => {
            written_set(verifier.capture(node, name, &session.operator(&reason)).await?)
        }
        Command::ReferenceShow { name, version } => session.reference(name, version).await,
        Command::ReferenceList => session.references().await,
        Command::ReferenceSet { name, accepted, reason } => {
            written_set(verifier.put_reference_set(name, accepted, &session.operator(&reason)).await?)
        }
        Command::ReferenceRemove { name, reason } => {
            let reappraised = verifier.remove_reference_set(&name, &session.operator(&reason)).await?;
            let what = format!("reference set {name}");
            Ok(Reply::Removed(Removed { what, reappraised: Some(reappraised) }))
        }
        Command::DigestsCapture { node, name, reason } => {
            let captured = verifier.capture_digests(node, name, &session.operator(&reason)).await?;
            let digests = captured.set.digests.len();
            let crate::reference::Versioned { name, version } = captured.set.id;
            let written = Written { name, version, reappraised: captured.reappraised };
            let left_out = captured.left_out;
            Ok(Reply::DigestsCaptured(DigestsCaptured { written, digests, left_out }))
        }
        Command::DigestsShow { name, version } => session.digest_set(name, version).await,
        Command::DigestsList => {
            let sets = verifier.store().digest_sets().await?;
            Ok(Reply::DigestSets(sets.into_iter().map(digest_summary).collect()))
        }
        Command::DigestsSet { name, frame, reason } => {
            let operator = session.operator(&reason);
            let (set, reappraised) = verifier.put_digest_set(name, frame.as_bytes(), &operator).await?;
            let crate::reference::Versioned { name, version } = set.id;
            Ok(Reply::Written(Written { name, version, reappraised }))
        }
        Command::DigestsRemove { name, reason } => {
            let reappraised = verifier.remove_digest_set(&name, &session.operator(&reason)).await?;
            let what = format!("digest set {name}");
            Ok(Reply::Removed(Removed { what, reappraised: Some(reappraised) }))
        }
        Command::NodeBoot { node } => {
            let ShownBoot { events, rules, left_out } = verifier.show_boot(node).await?;
            Ok(Reply::Boot(Box::new(BootDetail { events, rules, left_out })))
        }
        Command::ProfileSet { name, body, reason } => {
            let (profile, reappraised) =
                verifier.put_profile(name, *body, &session.operator(&reason)).await?;
            let crate::reference::Versioned { name, version } = profile.id().clone();
            Ok(Reply::Written(Written { name, version, reappraised }))
        }
        Command::ProfileShow { name, version } => session.profile(name, version).await,
        Command::ProfileList => {
            let profiles = verifier.store().profiles().await?;
            Ok(Reply::Profiles(profiles.iter().map(ProfileDetail::of).collect()))
        }
        Command::CaShow => Ok(Reply::Ca(session.ca())),
        Command::AuditSegments { from } => {
            let segments = verifier.store().segments(from, Command::MAX_SEGMENTS).await?;
            Ok(Reply::AuditSegments(segments.into_iter().map(Into::into).collect()))
        }
        Command::AuditCheckpoints { skip } => {
            let store = verifier.store();
            let checkpoints = store.checkpoints(skip, Command::MAX_CHECKPOINTS).await?;
            Ok(Reply::AuditCheckpoints(CheckpointPage { checkpoints, keys: store.audit_keys().await? }))
        }
        Command::AuditRecords { filter, before, limit } => {
            let limit = limit.clamp(1, Command::MAX_PAGE);
            Ok(Reply::AuditRecords(verifier.store().records(&filter, before, limit).await?))
        }
        Command::AuditCheckpoint => {
            let (checkpoint, audit_key) = (verifier.checkpoint().await?, verifier.audit_key().clone());
            Ok(Reply::AuditCheckpoint(Box::new(CheckpointDetail { checkpoint, audit_key })))
        }
        Command::AuditSeal { before } => Ok(Reply::AuditSealed(verifier.seal(before).await?.map(Box::new))),
        Command::AuditForget { end, reason } => {
            let operator = session.operator(&reason);
            let segments = verifier.forget_archived(end, &operator).await?;
            tracing::info!(last = end.sequence, segments, author = %operator.author, "audit trail archived");
            Ok(Reply::AuditForgotten(segments))
        }
    }
}

fn digest_summary(record: DigestSetRecord) -> DigestSetSummary {
    DigestSetSummary {
        name: record.id.name,
        version: record.id.version,
        withdrawn: record.withdrawn,
        digests: record.digests,
        content: data_encoding::HEXLOWER.encode(&record.content),
        provenance: record.provenance,
    }
}

fn removed(what: String) -> Reply {
    Reply::Removed(Removed { what, reappraised: None })
}

fn written_set(
    (set, reappraised): (ReferenceSet, crate::flows::operate::Reappraised),
) -> Result<Reply, OperateError> {
    Ok(Reply::Written(Written { name: set.id.name, version: set.id.version, reappraised }))
}

impl Session<'_> {
    pub(super) fn operator(&self, reason: &Words) -> Operator {
        Operator { author: self.author.clone(), reason: reason.as_str().to_owned() }
    }

    async fn health(&self) -> Health {
        let missing: Vec<_> = readyz::missing(self.verifier).await.iter().map(ToString::to_string).collect();
        Health {
            ready: missing.is_empty(),
            missing,
            listen: self.listen,
            trust_domain: self.verifier.trust_domain().clone(),
            nodes: self.verifier.fleet().len(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Pages of the store are read until enough nodes fit.
    async fn nodes(
        &self,
        posture: Option<PostureStatus>,
        labels: &Labels,
        mut after: Option<NodeId>,
        limit: u32,
    ) -> Result<Reply, OperateError> {
        let limit = limit.clamp(1, Command::MAX_PAGE);
        let enough = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut nodes = Vec::new();
        loop {
            let page = self.verifier.store().nodes(after, Command::MAX_PAGE).await?;
            if page.is_empty() {
                return Ok(Reply::Nodes(NodePage { nodes, next: None }));
            }
            for record in &page {
                // One more than asked for says that there are more.
                if nodes.len() == enough {
                    return Ok(Reply::Nodes(NodePage { nodes, next: after }));
                }
                let node = self.summary(record);
                if posture.is_none_or(|posture| posture == node.posture) && labels.all_in(&node.labels) {
                    nodes.push(node);
                }
                after = Some(record.id);
            }
        }
    }

    fn report(&self, id: NodeId) -> PostureReport {
        let live = self.verifier.fleet().node(id);
        live.map_or_else(posture::unknown, |live| live.report(self.verifier.now()))
    }

    fn summary(&self, node: &NodeRecord) -> NodeSummary {
        let report = self.report(node.id);
        NodeSummary {
            id: node.id,
            standing: node.standing,
            posture: report.status,
            evidence_at: report.evidence_at,
            labels: node.labels.clone(),
        }
    }

    fn changed(&self, node: Result<NodeRecord, OperateError>) -> Result<Reply, OperateError> {
        let node = node?;
        tracing::info!(node = %node.id, standing = ?node.standing, author = %self.author, "node changed");
        Ok(Reply::NodeChanged(self.summary(&node)))
    }

    async fn node(&self, id: NodeId) -> Result<Reply, OperateError> {
        /// What fits on a screen.
        const LATEST: u32 = 10;
        let store = self.verifier.store();
        let node = store.node(id).await?.ok_or(OperateError::UnknownNode(id))?;
        let live = self.verifier.fleet().node(id);
        let credential = |record: CertificateRecord| CredentialDetail {
            serial: record.serial.to_string(),
            not_before: record.not_before,
            not_after: record.not_after,
            key_digest: data_encoding::HEXLOWER.encode(&record.key_digest),
            current: record.not_after >= self.verifier.now()
                && live.as_ref().is_some_and(|live| {
                    live.credentials.iter().any(|current| current.serial == record.serial)
                }),
        };
        let credentials = store.certificates(id, LATEST).await?;
        Ok(Reply::Node(Box::new(NodeDetail {
            id,
            spiffe_id: self.verifier.trust_domain().node(id),
            standing: node.standing,
            endorsement: endorsement(node.endorsed_key.endorsement()),
            attestation_key: node.attestation_key.name().to_string(),
            labels: node.labels,
            enrolled_at: node.enrolled_at,
            posture: self.report(id),
            epoch: live.as_ref().map_or(node.epoch, |live| live.epoch),
            attested_after: node.attested_after,
            listens: self.verifier.listens(id),
            holds: self.verifier.holds_of(id, LATEST).await?,
            made_at: node.last_seen.map(|seen| seen.made_at),
            credentials: credentials.into_iter().map(credential).collect(),
            decisions: store.decisions(Some(id), LATEST).await?,
        })))
    }

    async fn references(&self) -> Result<Reply, OperateError> {
        let sets = self.verifier.store().reference_sets().await?;
        let summary = |(set, withdrawn): (ReferenceSet, bool)| ReferenceSummary {
            values: set.accepted.iter().count(),
            name: set.id.name,
            version: set.id.version,
            withdrawn,
            provenance: set.provenance,
        };
        Ok(Reply::References(sets.into_iter().map(summary).collect()))
    }

    /// Versions come by rising number: the last that fits is the latest.
    async fn reference(&self, name: Name, version: Option<u32>) -> Result<Reply, OperateError> {
        let sets = self.verifier.store().reference_sets().await?;
        let fits = |set: &ReferenceSet| {
            set.id.name == name && version.is_none_or(|version| set.id.version == version)
        };
        let found = sets.into_iter().rfind(|(set, _)| fits(set));
        let (set, withdrawn) =
            found.ok_or_else(|| OperateError::NoSuch { what: "reference set", name: of(&name, version) })?;
        Ok(Reply::Reference(ReferenceDetail::of(set, withdrawn)))
    }

    async fn digest_set(&self, name: Name, version: Option<u32>) -> Result<Reply, OperateError> {
        let sets = self.verifier.store().digest_sets().await?;
        let fits = |set: &DigestSetRecord| {
            set.id.name == name && version.is_none_or(|version| set.id.version == version)
        };
        let missing = || OperateError::NoSuch { what: "digest set", name: of(&name, version) };
        let record = sets.into_iter().rfind(fits).ok_or_else(missing)?;
        let text = self.verifier.store().digest_text(&record.content).await?.ok_or_else(missing)?;
        let frame = Blob::new(pack(&text)?).ok_or_else(missing)?;
        Ok(Reply::DigestSet(DigestSetDetail { summary: digest_summary(record), frame }))
    }

    async fn profile(&self, name: Name, version: Option<u32>) -> Result<Reply, OperateError> {
        let profiles = self.verifier.store().profiles().await?;
        let fits = |profile: &&Profile| {
            profile.id().name == name && version.is_none_or(|version| profile.id().version == version)
        };
        let found = profiles.iter().rfind(fits);
        let found =
            found.ok_or_else(|| OperateError::NoSuch { what: "profile", name: of(&name, version) })?;
        Ok(Reply::Profile(Box::new(ProfileDetail::of(found))))
    }

    fn ca(&self) -> CaDetail {
        let authority = self.verifier.authority();
        let fingerprint = |certificate: &[u8]| data_encoding::HEXLOWER.encode(&sha256(&[certificate]));
        CaDetail {
            trust_domain: authority.trust_domain().clone(),
            not_before: authority.not_before(),
            not_after: authority.not_after(),
            fingerprints: authority.chain().iter().map(|certificate| fingerprint(certificate)).collect(),
            chain: authority.chain_pem(),
            trust_bundle: authority.trust_bundle_pem(),
        }
    }
}

fn of(name: &Name, version: Option<u32>) -> String {
    version.map_or_else(|| name.to_string(), |version| format!("{name}@{version}"))
}

fn endorsement(endorsement: &Endorsement) -> EndorsementDetail {
    match endorsement {
        Endorsement::ListedKey => EndorsementDetail::Operator,
        Endorsement::VendorChain { certificate, anchor } => EndorsementDetail::Manufacturer {
            manufacturer: certificate.manufacturer().map(str::to_owned),
            model: certificate.model().map(str::to_owned),
            version: certificate.version().map(str::to_owned),
            issuer: certificate.issuer().to_owned(),
            serial: certificate.serial().to_owned(),
            not_after: certificate.not_after(),
            anchor: data_encoding::HEXLOWER.encode(anchor),
        },
    }
}
