//! The stories, each readable top to bottom. They alone hold a store *and* the road.
//!
//! - [`audit`]: start, stop and checkpoints of the audit trail
//! - [`control`]: what is wished of a node now, and who listens
//! - [`enroll`]: a machine shows its TPM, proves that it holds it, and becomes a node
//! - [`caller`]: who asks about others, or about itself
//! - [`attest`]: a node shows evidence, is appraised, and gets a credential, or does not
//! - [`enforce`]: a gateway asks whether a request may pass; `vouched`: whose the certificates are that it speaks for
//! - `holds`: an operator holds a node, or lets it go
//! - `known`: what was verified once
//! - `logs`: what is kept of the logs that come with evidence, and what they come to
//! - [`observe`]: what a node's logs say, to read and to make rules of
//! - `offline`: evidence in files, appraised without a service: no node, no store, no challenge
//! - [`operate`]: what an operator changes, and what follows from it
//! - [`decide`]: whether something may be done, by how things stand at that moment; [`search`]: what would be allowed
//! - [`policies`]: bundles of policies are written, rehearsed, put in force; decisions are explained
//! - [`results`]: how a node stands, for whoever may know it
//! - [`exchange`]: sets are exported, and imported by somebody's signature
//! - [`sets`]: sets are written, staged, promoted, withdrawn, compared; what is denied everywhere
//! - [`signals`]: a relying party says something against a node
//! - [`survey`]: what other reference values would make of the fleet, why a node deviates, what nodes share
//! - [`tokens`]: tokens are made, looked at as things stand, and ended

pub mod attest;
pub mod audit;
pub mod caller;
pub mod control;
pub mod decide;
pub mod enforce;
pub mod enroll;
pub mod exchange;
mod holds;
mod known;
mod logs;
pub mod observe;
pub(crate) mod offline;
pub mod operate;
pub mod policies;
pub mod results;
pub mod search;
pub mod sets;
pub mod signals;
pub mod survey;
pub mod tokens;
mod vouched;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rand_core::CryptoRng;
use rootbound_common::clock::{Clock, Timestamp};
use rootbound_common::id::{NodeId, TrustDomain};
use rootbound_common::random;
use rootbound_common::secret::Secret;
use search::PageKey;
use tokio::sync::Mutex;

use self::audit::{AuditParts, Trail};
use self::control::Control;
use crate::appraisal::runtime::SignatureCache;
use crate::audit::RecordId;
use crate::challenge::ChallengeKey;
use crate::credential::authority::Authority;
use crate::credential::ear::ResultSigner;
use crate::credential::presented::PresentedSvid;
use crate::enrollment::{EndorsementRoots, RevocationPolicy};
use crate::policy::Bundle;
use crate::posture::{Fleet, Posture};
use crate::public_url::PublicUrl;
use crate::reference::ReferenceBook;
use crate::reference::exchange::TrustedSigner;
use crate::relying_party::RelyingParties;
use crate::store::{DecisionKind, DecisionRecord, DecisionTrail, Store, StoreError};

/// Bounds that the stories keep, each with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How old a quote may be when it arrives: a TPM signs in under two seconds, a busy machine and network add some.
    pub oldest_quote: Duration,
    /// How long a TPM may take for TPM2_ActivateCredential with an RSA key, and the network for its answer.
    pub activation: Duration,
    /// Enrolments that may wait at once: each is a row of about 2 KB.
    pub pending_enrollments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            oldest_quote: Duration::from_secs(30),
            activation: Duration::from_secs(60),
            pending_enrollments: 10_000,
        }
    }
}

/// What every story needs.
pub struct Verifier {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    trust_domain: TrustDomain,
    roots: ArcSwap<EndorsementRoots>,
    revocation: RevocationPolicy,
    authority: Authority,
    result_signer: ResultSigner,
    relying_parties: RelyingParties,
    challenge_key: ChallengeKey,
    /// Held while reference values change.
    changes: Mutex<()>,
    dry_runs: survey::dry_run::DryRuns,
    limits: Limits,
    public_url: Option<PublicUrl>,
    fleet: Fleet,
    book: ArcSwap<ReferenceBook>,
    /// The policies that are in force.
    bundle: ArcSwap<Bundle>,
    pages: PageKey,
    /// Signatures of files that were verified, for all nodes.
    signatures: SignatureCache,
    /// Whose documents of references are imported.
    signers: ArcSwap<Vec<TrustedSigner>>,
    trail: Trail,
    /// What is wished of nodes, and who listens.
    control: Arc<Control>,
    tokens: tokens::Tokens,
    /// Certificates that gateways vouch for.
    vouched: known::Known<PresentedSvid>,
}

/// Signatures that are remembered: those of a distribution's packages, some 12 MB.
const SIGNATURES: usize = 300_000;

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// What a [`Verifier`] is made of.
pub struct Parts {
    /// History and registrations.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The name of the fleet.
    pub trust_domain: TrustDomain,
    /// The TPM manufacturers that are trusted.
    pub roots: EndorsementRoots,
    /// What an EK certificate without a current CRL counts as.
    pub revocation: RevocationPolicy,
    /// The CA.
    pub authority: Authority,
    /// What signs attestation results.
    pub result_signer: ResultSigner,
    /// Who may read those of others.
    pub relying_parties: RelyingParties,
    /// Bounds.
    pub limits: Limits,
    /// By what the audit trail is kept.
    pub audit: AuditParts,
    /// Under which URL clients reach the service, if the operator said so.
    pub public_url: Option<PublicUrl>,
    /// By what tokens are made.
    pub tokens: tokens::TokenParts,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads what the store has, the fleet and the reference values, says so in the audit trail, and appraises every node again: a change of reference
    /// values whose appraisals a crash cut short is finished here, before anybody is answered.
    pub async fn start(parts: Parts) -> Result<Self, StoreError> {
        let book = parts.store.reference_book(&ReferenceBook::default()).await?;
        let fleet = Fleet::new(parts.store.live_nodes(parts.clock.now()).await?);
        let bundle = Self::policy_in_force(&*parts.store).await?;
        let revoked = parts.store.revoked_tokens(parts.clock.now()).await?;
        let control = Arc::new(Control::default());
        fleet.observe({
            let control = Arc::clone(&control);
            move |node| control.wake(node)
        });
        let verifier = Self {
            store: parts.store,
            clock: parts.clock,
            trust_domain: parts.trust_domain,
            roots: ArcSwap::from_pointee(parts.roots),
            revocation: parts.revocation,
            authority: parts.authority,
            result_signer: parts.result_signer,
            relying_parties: parts.relying_parties,
            challenge_key: ChallengeKey::new(Secret::generate(&mut random::system())),
            changes: Mutex::new(()),
            dry_runs: survey::dry_run::DryRuns::default(),
            limits: parts.limits,
            public_url: parts.public_url,
            fleet,
            book: ArcSwap::from_pointee(book),
            bundle: ArcSwap::from_pointee(bundle),
            pages: PageKey::generate(),
            signatures: SignatureCache::with_capacity(SIGNATURES),
            signers: ArcSwap::default(),
            trail: Trail::new(parts.audit),
            control,
            tokens: tokens::Tokens::new(parts.tokens, revoked),
            vouched: known::Known::default(),
        };
        verifier.record_start().await?;
        let done = verifier.reappraise_all().await?;
        tracing::info!(nodes = done.nodes, "every node is appraised by the reference values of now");
        Ok(verifier)
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The name of the fleet.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Replaces the trusted TPM manufacturers and their CRLs. Nodes that are enrolled stay so.
    pub fn trust(&self, roots: EndorsementRoots) {
        self.roots.store(Arc::new(roots));
    }

    /// Replaces those whose documents of references are imported; without this nobody is.
    pub fn trust_signers(&self, signers: Vec<TrustedSigner>) {
        self.signers.store(Arc::new(signers));
    }

    /// Under which URL clients reach the service, if the operator said so.
    #[must_use]
    pub fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }

    /// The CA.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Who may read attestation results of others.
    #[must_use]
    pub fn relying_parties(&self) -> &RelyingParties {
        &self.relying_parties
    }

    /// How each node stands now.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The store, for what is only shown.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Brings memory up to what the store has of a node, which is this revision or a later one. Where that cannot be read,
    /// the node is refused from now on: the change that was just made may have been to its harm.
    async fn refresh(&self, node: NodeId, revision: u64) -> Result<(), StoreError> {
        let now = self.now();
        match self.store.live_node(node, now).await {
            Ok(Some(live)) => self.fleet.put(node, live, now),
            Ok(None) => self.fleet.remove(node),
            Err(error) => {
                self.fleet.hide(node, revision);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// What a posture was appraised by.
fn versions_of(posture: &Posture) -> Vec<String> {
    posture.profile.iter().chain(&posture.references).cloned().collect()
}

/// A decision record with a random id.
fn decision(
    now: Timestamp,
    node: Option<NodeId>,
    kind: DecisionKind,
    granted: bool,
    code: &str,
    detail: String,
) -> DecisionRecord {
    let id = RecordId::new(now, &mut rng());
    let trail = DecisionTrail::default();
    DecisionRecord { id, at: now, node, kind, granted, code: code.to_owned(), detail, trail }
}

/// Randomness for the stories; the road takes it as an argument.
fn rng() -> impl CryptoRng {
    random::system()
}
