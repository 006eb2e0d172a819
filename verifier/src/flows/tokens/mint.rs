//! A client gets a token.
//!
//! In this order: who the client is · about which node the token is, and who acts for it · by which key it is held · what the
//! policies say of it · the token on record · the signature · whether the node still stands so · the answer.

use std::sync::Arc;

use rand_core::Rng as _;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_token::access;
use rootbound_token::claim::Text;
use rootbound_token::dpop::{BesideTls, VerifiedProof};
use rootbound_token::jwt_svid::{ExpectedSvid, JwtSvid};
use rootbound_token::replay::ReplayError;
use serde_json::{Map, Value, json};

use super::claims::Claims;
use super::live::{LiveToken, TokenRefusal};
use super::{AssertedNode, Client, Tokens};
use crate::audit::{AuditRecord, Entity, Facts, Outcome, RecordKind};
use crate::credential::token_keys::TokenKeyError;
use crate::flows::policies::inputs_of;
use crate::flows::{Verifier, rng};
use crate::policy::{Attested, Bundle, CredentialKind, Question, QuestionError, ServiceFacts, SubjectFacts};
use crate::posture::LiveNode;
use crate::store::StoreError;
use crate::store::tokens::{TokenId, TokenRecord};
use crate::token::{
    ActFor, Action, Audience, Binding, MAX_CHAIN, Permits, Term, TokenDenial, TokenGrant, Wanted,
    decide_token,
};

/// How far clocks of whoever asserts something and ours may be apart: all of them are ours, but for restarts and suspends.
const LEEWAY: std::time::Duration = std::time::Duration::from_secs(5);

/// What a client asks for.
#[derive(Debug)]
pub struct TokenRequest {
    /// What it is to be.
    pub wanted: Requested,
    /// The token that it is made of (RFC 8693); `None`: the client asks for itself.
    pub subject_token: Option<String>,
}

/// What a token is to be.
#[derive(Debug)]
pub enum Requested {
    /// An access token, to do this.
    AccessToken(Wanted),
    /// A JWT-SVID, which says who the node is, for these.
    JwtSvid(Vec<Audience>),
}

/// A token that is on record.
#[derive(Debug)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// How it is shown.
    pub shown: ShownAs,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it was made.
    pub issued_at: Timestamp,
}

/// How a token is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownAs {
    /// With a proof for each request (RFC 9449, 7.1).
    Dpop,
    /// By itself, over a connection with the client's certificate where it is bound to one (RFC 6750, RFC 8705).
    Bearer,
    /// It is no access token.
    NotAnAccessToken,
}

/// Why a client gets no token. Each has a stable code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintRefusal {
    /// A relying party has no posture of its own.
    #[error("a relying party gets tokens in exchange for those that nodes gave it, and none for itself")]
    NotANode,
    /// The node is not known any more.
    #[error("the node is not known")]
    UnknownNode,
    /// The assertion is none that counts.
    #[error("client_assertion: {0}")]
    Assertion(access::TokenError),
    /// Somebody ended it, or it has no name by which that could be said.
    #[error("client_assertion: it was revoked")]
    AssertionRevoked,
    /// The assertion names no node of ours.
    #[error("client_assertion: its subject is no node of this verifier")]
    AssertionSubject,
    /// The node stands otherwise since.
    #[error("client_assertion: the node's posture, or what is held against it, changed since it was made")]
    AssertionDrifted,
    /// The assertion names a key.
    #[error("client_assertion names a key: a DPoP proof by that key must come with it")]
    AssertionUnproven,
    /// The proof was shown before.
    #[error("DPoP: {0}")]
    Proof(ReplayError),
    /// The token that is to be exchanged does not count.
    #[error("subject_token: {0}")]
    SubjectToken(TokenRefusal),
    /// It is good for one use.
    #[error("subject_token: a token that is good for one use is not exchanged")]
    SubjectTokenOnce,
    /// It was not given to the client, nor meant for it.
    #[error("subject_token: it is neither the client's own nor for the client")]
    SubjectTokenOfOthers,
    /// It is the client's own, and the client does not show the key that it is held by.
    #[error("subject_token: the client does not show the key that it is bound to")]
    SubjectTokenUnproven,
    /// More is wanted than it permits.
    #[error("more is asked for than subject_token permits")]
    Widened,
    /// Who would act is in the chain already.
    #[error("the client is in the chain of actors already")]
    ExchangeLoop,
    /// Too many act for each other.
    #[error("a token passes through at most {MAX_CHAIN} actors")]
    ExchangeTooDeep,
    /// Only the node itself gets one.
    #[error("a JWT-SVID is for the node itself, which must not be acted for")]
    SvidForOther,
    /// The policies, or the node's posture.
    #[error(transparent)]
    Denied(#[from] TokenDenial),
    /// What is asked for cannot be asked of the policies.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// The node, or the policies, changed while it was decided.
    #[error("the node or the policies changed meanwhile; ask again")]
    Changed,
}

impl MintRefusal {
    /// Stable, for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotANode => "client_not_a_node",
            Self::UnknownNode => "unknown_node",
            Self::Assertion(error) => error.code(),
            Self::AssertionRevoked => "assertion_revoked",
            Self::AssertionSubject => "assertion_subject",
            Self::AssertionDrifted => "assertion_drifted",
            Self::AssertionUnproven => "assertion_unproven",
            Self::Proof(error) => error.code(),
            Self::SubjectToken(refusal) => refusal.code(),
            Self::SubjectTokenOnce => "subject_token_once",
            Self::SubjectTokenOfOthers => "subject_token_of_others",
            Self::SubjectTokenUnproven => "subject_token_unproven",
            Self::Widened => "exchange_widened",
            Self::ExchangeLoop => "exchange_loop",
            Self::ExchangeTooDeep => "exchange_too_deep",
            Self::SvidForOther => "svid_for_other",
            Self::Denied(denial) => denial.code(),
            Self::Question(error) => error.code(),
            Self::Changed => "node_changed",
        }
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// A reason.
    #[error(transparent)]
    Refused(#[from] MintRefusal),
    /// It could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be signed. It is a bug.
    #[error("the token cannot be signed: {0}")]
    Signing(#[from] TokenKeyError),
}

/// Of which node a token is, who acts for it, and until when at most.
pub(super) struct About {
    node: NodeId,
    pub(super) actors: Vec<String>,
    not_after: Option<Timestamp>,
}

impl Verifier {
    /// The node that a JWT-SVID of ours names, as an assertion to us.
    pub fn client_by_assertion(&self, assertion: &str) -> Result<AssertedNode, MintRefusal> {
        let issuer = self.issuer();
        let expected = ExpectedSvid { trust_domain: &self.trust_domain, audience: &issuer, leeway: LEEWAY };
        let keys = self.tokens.svid.keys.load();
        let svid = JwtSvid::verify(assertion, &keys.verifying, &expected, self.now());
        let svid = svid.map_err(MintRefusal::Assertion)?;
        let revoked = |id: &Text| id.as_str().parse().is_ok_and(|id| self.tokens.revoked.has(&id));
        if svid.id().is_none_or(revoked) {
            return Err(MintRefusal::AssertionRevoked);
        }
        let id = self.trust_domain.node_of(svid.subject()).ok_or(MintRefusal::AssertionSubject)?;
        let live = self.fleet.node(id).ok_or(MintRefusal::AssertionSubject)?;
        if svid.posture_epoch() != Some(live.epoch) {
            return Err(MintRefusal::AssertionDrifted);
        }
        Ok(AssertedNode { id, key: svid.binding().key().copied(), expires_at: svid.expires_at() })
    }

    /// Makes a token for a client, if the policies permit it. Whatever becomes of it is on record.
    pub async fn mint_token(
        &self,
        client: Client,
        proof: Option<VerifiedProof>,
        request: TokenRequest,
    ) -> Result<Minted, MintError> {
        let now = self.now();
        let bundle = self.bundle.load_full();
        let prepared = self.prepare_token(&bundle, &client, proof, request, now);
        let Decided { asked, actions, decided } = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => {
                let record = self.record_of(
                    RecordKind::Refusal,
                    "IssueToken",
                    client.actor(),
                    Outcome::Refused,
                    refusal.code(),
                );
                self.record_outcome(record.because(&refusal.to_string())).await?;
                return Err(refusal.into());
            }
        };
        let grant = match decided {
            Ok(grant) => grant,
            Err(denial) => {
                let refusal = MintRefusal::from(denial);
                self.record_outcome(self.record_of_token(&asked, &actions, Err(&refusal))).await?;
                return Err(refusal.into());
            }
        };
        let epoch = grant.epoch();
        let minted = self.make(&asked, &actions, grant, now).await?;
        let stands = self.fleet.node(asked.about.node).is_some_and(|live| live.bears(epoch, self.now()));
        if !stands || !Arc::ptr_eq(&bundle, &self.bundle.load()) {
            // Nobody has it: it rests on what counts no more.
            return Err(MintRefusal::Changed.into());
        }
        Ok(minted)
    }

    /// Everything up to the decision, by memory alone.
    fn prepare_token<'a>(
        &self,
        bundle: &Bundle,
        client: &'a Client,
        proof: Option<VerifiedProof>,
        request: TokenRequest,
        now: Timestamp,
    ) -> Result<Decided<'a>, MintRefusal> {
        let (binding, client_ends) = self.binding(client, proof)?;
        let TokenRequest { wanted, subject_token } = request;
        let about = self.about(client, binding, &wanted, subject_token.as_deref())?;
        let node = self.fleet.node(about.node).ok_or(MintRefusal::UnknownNode)?;
        let not_after = [client_ends, about.not_after].into_iter().flatten().min();
        let (wanted, audiences) = match wanted {
            Requested::AccessToken(wanted) => {
                let audiences = wanted.audiences().to_vec();
                (Some(wanted), audiences)
            }
            Requested::JwtSvid(audiences) if about.actors.is_empty() => (None, audiences),
            Requested::JwtSvid(_) => return Err(MintRefusal::SvidForOther),
        };
        let kind = if wanted.is_some() { binding.kind() } else { CredentialKind::JwtSvid };
        let (permits, inputs) = self.permits(bundle, client, &about, &node, (kind, wanted.as_ref()), now)?;
        let actions = wanted.as_ref().map(|wanted| wanted.actions().to_vec()).unwrap_or_default();
        let term = Term { most: self.tokens.lifetime, not_after, now };
        let decided = decide_token(about.node, &node, binding, wanted, permits, term);
        Ok(Decided { asked: Asked { client, about, audiences, binding, kind, inputs }, actions, decided })
    }

    /// By which key the token will be held, and until when that counts.
    fn binding(
        &self,
        client: &Client,
        proof: Option<VerifiedProof>,
    ) -> Result<(Binding, Option<Timestamp>), MintRefusal> {
        let take = |proof| self.tokens.replays.take(proof).map_err(MintRefusal::Proof);
        let software = |proof| -> Result<_, MintRefusal> {
            let thumbprint = *take(proof)?.thumbprint();
            Ok(Binding::SoftwareKey { thumbprint })
        };
        match client {
            Client::Node(node) => {
                let certificate = node.certificate();
                let Some(proof) = proof else {
                    let binding = Binding::Certificate { thumbprint: certificate.thumbprint };
                    return Ok((binding, Some(certificate.not_after)));
                };
                let Some(key) = &certificate.key_thumbprint else { return Ok((software(proof)?, None)) };
                match proof.by_the_key_in_tls(key) {
                    // The TPM signed this connection with the same key: one proof serves as long as its nonce.
                    BesideTls::Fresh(proof) => {
                        Ok((Binding::TpmKey { thumbprint: *proof.thumbprint() }, None))
                    }
                    BesideTls::OfAnother(proof) => Ok((software(proof)?, None)),
                }
            }
            Client::Asserted(node) => {
                let binding = match (&node.key, proof) {
                    (Some(key), Some(proof)) if proof.thumbprint() == key => {
                        Binding::TpmKey { thumbprint: *take(proof)?.thumbprint() }
                    }
                    (Some(_), _) => return Err(MintRefusal::AssertionUnproven),
                    (None, Some(proof)) => software(proof)?,
                    (None, None) => Binding::Bearer,
                };
                Ok((binding, Some(node.expires_at).filter(|_| binding == Binding::Bearer)))
            }
            Client::RelyingParty { certificate, .. } => match (proof, certificate) {
                (Some(proof), _) => Ok((software(proof)?, None)),
                (None, Some(shown)) => {
                    let binding = Binding::ForeignCertificate { thumbprint: shown.thumbprint };
                    Ok((binding, Some(shown.not_after)))
                }
                (None, None) => Ok((Binding::Bearer, None)),
            },
        }
    }

    fn about(
        &self,
        client: &Client,
        binding: Binding,
        requested: &Requested,
        subject_token: Option<&str>,
    ) -> Result<About, MintRefusal> {
        let Some(token) = subject_token else {
            let node = client.node().ok_or(MintRefusal::NotANode)?;
            return Ok(About { node, actors: Vec::new(), not_after: None });
        };
        let token = self.live_token(token).map_err(MintRefusal::SubjectToken)?;
        let claims = token.claims();
        if claims.once {
            return Err(MintRefusal::SubjectTokenOnce);
        }
        let mut actors: Vec<_> = claims.actors.chain().iter().map(ToString::to_string).collect();
        let name = client.name(self);
        if name == claims.client_id.as_str() {
            if !is_held(&token, client, binding) {
                return Err(MintRefusal::SubjectTokenUnproven);
            }
        } else if client.is_among(self, claims.audience.names().iter().map(Text::as_str)) {
            if actors.contains(&name) || name == claims.subject.as_str() {
                return Err(MintRefusal::ExchangeLoop);
            }
            if actors.len() >= MAX_CHAIN {
                return Err(MintRefusal::ExchangeTooDeep);
            }
            actors.insert(0, name);
        } else {
            return Err(MintRefusal::SubjectTokenOfOthers);
        }
        if let Requested::AccessToken(wanted) = requested
            && !wanted.is_within(claims)
        {
            return Err(MintRefusal::Widened);
        }
        Ok(About { node: token.node(), actors, not_after: Some(claims.expires_at) })
    }

    /// What the policies say, and what they were asked on, for the record.
    fn permits(
        &self,
        bundle: &Bundle,
        client: &Client,
        about: &About,
        node: &LiveNode,
        (kind, wanted): (CredentialKind, Option<&Wanted>),
        now: Timestamp,
    ) -> Result<(Permits, Map<String, Value>), MintRefusal> {
        let facts = SubjectFacts::Node(Attested::of(about.node, node, now));
        let credential = Question::issue_credential(about.node, kind);
        let inputs = inputs_of(&credential, &facts.record(), bundle.id());
        let questions = match wanted {
            Some(wanted) => wanted.questions("node", &about.node.to_string())?,
            None => Vec::new(),
        };
        let act_for = (!about.actors.is_empty()).then(|| {
            let actor = client.entity();
            let question = Question::act_for(actor.clone(), about.node);
            let permit = match client {
                Client::RelyingParty { party, .. } => {
                    let may_read = party.may_read(&node.labels);
                    let may_signal = party.may_signal_something();
                    let facts = ServiceFacts { may_read, may_signal };
                    bundle.decide(&question, &SubjectFacts::Service(facts)).into_permit()
                }
                Client::Node(_) | Client::Asserted(_) => {
                    let acting = client.node().and_then(|id| Some((id, self.fleet.node(id)?)));
                    match &acting {
                        Some((id, live)) => {
                            let facts = SubjectFacts::Node(Attested::of(*id, live, now));
                            bundle.decide(&question, &facts).into_permit()
                        }
                        None => bundle.decide(&question, &SubjectFacts::UnknownNode).into_permit(),
                    }
                }
            };
            ActFor { actor, permit }
        });
        let permits = Permits {
            credential: bundle.decide(&credential, &facts).into_permit(),
            actions: questions.iter().map(|question| bundle.decide(question, &facts).into_permit()).collect(),
            act_for,
        };
        Ok((permits, inputs))
    }

    /// Records a token, and signs it.
    async fn make(
        &self,
        asked: &Asked<'_>,
        actions: &[Action],
        grant: TokenGrant,
        now: Timestamp,
    ) -> Result<Minted, MintError> {
        let (node, epoch, binding, wanted, lifetime) = grant.into_parts();
        let mut random = [0; 16];
        rng().fill_bytes(&mut random);
        let id = TokenId::of(random);
        let whole = |at: Timestamp| Timestamp::from_millis(at.as_seconds().saturating_mul(1000));
        let (issued_at, expires_at) = (whole(now), whole(now.plus(lifetime)));
        let once = wanted.as_ref().is_some_and(Wanted::once);
        let signed = Claims { verifier: self, asked, id: &id, node, epoch, binding, issued_at, expires_at };
        let audience: Vec<_> = asked.audiences.iter().map(Audience::as_str).collect();
        let token = TokenRecord {
            id: id.clone(),
            node,
            client: asked.client.name(self),
            audience: audience.join(" "),
            permits: in_words(asked.kind, actions),
            binding: binding.as_str().to_owned(),
            epoch,
            issued_at,
            expires_at,
            once,
            spent_at: None,
            revoked_at: None,
        };
        let record = self.record_of_token(asked, actions, Ok((&id, expires_at)));
        self.store.record_token(token, record).await?;
        let Tokens { access, svid, .. } = &self.tokens;
        let (token, shown) = match &wanted {
            Some(wanted) => {
                let claims = signed.access(wanted).ok_or(TokenKeyError::Signing)?;
                let shown = if claims.binding.key().is_some() { ShownAs::Dpop } else { ShownAs::Bearer };
                (access.keys.load().signing.sign("at+jwt", &claims)?, shown)
            }
            None => {
                let claims = signed.svid().ok_or(TokenKeyError::Signing)?;
                (svid.keys.load().signing.sign("JWT", &claims)?, ShownAs::NotAnAccessToken)
            }
        };
        Ok(Minted { token, shown, expires_at, issued_at })
    }

    fn record_of_token(
        &self,
        asked: &Asked<'_>,
        actions: &[Action],
        outcome: Result<(&TokenId, Timestamp), &MintRefusal>,
    ) -> AuditRecord {
        let (kind, granted, code, detail) = match outcome {
            Ok((id, _)) => (RecordKind::Issuance, Outcome::Granted, "token_issued", format!("token {id}")),
            Err(refusal) => (RecordKind::Refusal, Outcome::Refused, refusal.code(), refusal.to_string()),
        };
        let audiences: Vec<_> = asked.audiences.iter().map(Audience::as_str).collect();
        let mut facts = asked.inputs.clone();
        facts.insert("actions".to_owned(), json!(actions));
        facts.insert("audience".to_owned(), json!(audiences));
        facts.insert("binding".to_owned(), asked.binding.as_str().into());
        facts.insert("client".to_owned(), asked.client.name(self).into());
        if !asked.about.actors.is_empty() {
            facts.insert("actors".to_owned(), json!(asked.about.actors));
        }
        if let Ok((id, expires_at)) = outcome {
            facts.insert("token".to_owned(), id.as_str().into());
            facts.insert("not_after".to_owned(), expires_at.as_millis().into());
        }
        let policy = asked.inputs.get("policy").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (facts, digest) = Facts::with_digest(Value::Object(facts));
        AuditRecord {
            object: audiences.first().map(|audience| Entity::named("audience", audience)),
            ..self
                .record_of(kind, "IssueToken", asked.client.actor(), granted, code)
                .about(Entity::node(asked.about.node))
                .by(&policy)
                .of_inputs(digest)
                .because(&detail)
                .with(facts)
        }
    }
}

/// What came of a request that could be decided.
struct Decided<'a> {
    asked: Asked<'a>,
    actions: Vec<Action>,
    decided: Result<TokenGrant, TokenDenial>,
}

/// What was asked for, for the token and the record.
pub(super) struct Asked<'a> {
    pub(super) client: &'a Client,
    pub(super) about: About,
    pub(super) audiences: Vec<Audience>,
    binding: Binding,
    kind: CredentialKind,
    inputs: Map<String, Value>,
}

/// Whether a client shows the key that its own token is held by.
fn is_held(token: &LiveToken, client: &Client, binding: Binding) -> bool {
    let held = token.claims().binding;
    let certificate = match client {
        Client::Node(node) => Some(node.certificate().thumbprint),
        Client::RelyingParty { certificate, .. } => certificate.map(|shown| shown.thumbprint),
        Client::Asserted(_) => None,
    };
    let key = match binding {
        Binding::TpmKey { thumbprint } | Binding::SoftwareKey { thumbprint } => Some(thumbprint),
        Binding::Certificate { .. } | Binding::ForeignCertificate { .. } | Binding::Bearer => None,
    };
    held.key().is_none_or(|held| key == Some(*held))
        && held.certificate().is_none_or(|held| certificate == Some(*held))
}

/// For lists.
fn in_words(kind: CredentialKind, actions: &[Action]) -> String {
    if actions.is_empty() {
        return kind.as_str().to_owned();
    }
    let one = |action: &Action| format!("{} {}:{}", action.action, action.resource_type, action.resource_id);
    actions.iter().map(one).collect::<Vec<_>>().join(", ")
}
