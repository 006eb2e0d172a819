//! A gateway asks whether it may let a request through, at the moment at which it is made.
//!
//! The gateway describes the request and vouches for that: what the client asked for, what it showed, and the certificate
//! whose key it proved in TLS. What of it may be done is then decided as everywhere: by the policies, on how the node stands at
//! that moment. In this order: one reading of the request · its route, which is this gateway's · who shows what: a token with what it is bound
//! to, or a certificate of ours alone · whether the token permits the route's action · the policies, on record · whether the node still stands
//! so · the use of a token that is good for one.

use rootbound_common::id::{NodeId, SpiffeId};
use rootbound_token::access::AccessClaims;
use rootbound_token::claim::Text;
use rootbound_token::dpop::{BesideTls, DpopError, ExpectedProof, FreshProof, GoesWith};
use rootbound_token::jwk::CertificateThumbprint;
use rootbound_token::replay::ReplayError;

use super::Verifier;
use super::caller::Caller;
use super::decide::{DecideError, actor_of};
use super::tokens::live::{LiveToken, TokenRefusal, UseError};
use crate::audit::{Entity, Outcome, RecordId, RecordKind};
use crate::credential::presented::PresentedError;
use crate::policy::routes::{Matched, NormalRequest, RequestError};
use crate::policy::{Bundle, QuestionError};
use crate::posture::{AdmissionError, IdentifiedNode};
use crate::relying_party::IdentifiedRelyingParty;
use crate::store::StoreError;
use crate::token::Wanted;

/// What a gateway says of a request. All of it is the gateway's word; nothing of it is believed of whoever is no gateway.
#[derive(Debug, Default)]
pub struct Described<'a> {
    /// The method that the client sent.
    pub method: &'a str,
    /// `http` or `https`, as clients reach the gateway.
    pub scheme: &'a str,
    /// The host that the client asked.
    pub host: &'a str,
    /// Path and query, as the client sent them.
    pub target: &'a str,
    /// The values of all `Authorization` fields.
    pub authorization: Vec<&'a [u8]>,
    /// The values of all `DPoP` fields.
    pub proofs: Vec<&'a str>,
    /// The certificate, in DER, whose key the client proved to the gateway in TLS.
    pub certificate: Option<Vec<u8>>,
}

/// As what a client showed a token (RFC 9110, 11.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// It showed none.
    None,
    /// With a proof (RFC 9449, 7.1).
    Dpop,
    /// By itself (RFC 6750, 2.1).
    Bearer,
}

/// Why a request is not let through. Each has a stable code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnforceRefusal {
    /// Nodes are no gateways.
    #[error("a gateway is a relying party")]
    NotAGateway,
    /// The gateway does not say what the client asked for.
    #[error("the gateway does not say the method, scheme, host and path that the client asked for")]
    NotDescribed,
    /// It says it twice, or in two ways: one of them may be the client's.
    #[error("the gateway says more than once what the client asked for")]
    DescribedTwice,
    /// There is no one reading of it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A header field asks for another method or path than the request's.
    #[error("the request has a header field that asks for another method or path than its own")]
    Overridden,
    /// Nobody declared what it does.
    #[error("there is no route for this method, host and path")]
    NoRoute,
    /// The route is another gateway's.
    #[error("the route is for another gateway")]
    OtherGateway,
    /// Whoever asks shows nothing.
    #[error("the request shows no token, and no certificate for which its gateway vouches")]
    NothingShown,
    /// Which of two counts, nobody should have to guess.
    #[error("the request has more than one Authorization header field")]
    AuthorizationRepeated,
    /// Neither `DPoP` nor `Bearer`.
    #[error("the Authorization header field is neither of the scheme DPoP nor Bearer")]
    AuthorizationScheme,
    /// The token counts for nothing.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// It is bound to a key, and comes without a proof (RFC 9449, 7.2).
    #[error("the token is bound to a DPoP key and is not a bearer's")]
    BoundAsBearer,
    /// The proof proves nothing.
    #[error(transparent)]
    Proof(#[from] DpopError),
    /// The proof was shown before.
    #[error(transparent)]
    Replayed(#[from] ReplayError),
    /// The token is bound to a certificate, and the gateway vouches for none (RFC 8705, 3).
    #[error("the token is bound to a certificate, and the gateway vouches for none")]
    CertificateMissing,
    /// It is bound to another one.
    #[error("the token is bound to another certificate than the client's")]
    CertificateOther,
    /// The text is no certificate.
    #[error("the client's certificate is malformed")]
    CertificateMalformed,
    /// The gateway asks where certificates are not its own word.
    #[error("a certificate comes with the request, and the gateway vouches for none here")]
    CertificateNotVouched,
    /// The certificate is none that our CA signed, or out of date.
    #[error("the client's certificate is not one of this verifier's that is valid now")]
    CertificateUntrusted,
    /// It is no X.509-SVID.
    #[error("the client's certificate is refused: {0}")]
    Presented(#[from] PresentedError),
    /// It is none of a node that we know, or was replaced.
    #[error("the client's certificate is refused: {0}")]
    Admission(#[from] AdmissionError),
    /// The node is at another epoch, or may have nothing now.
    #[error("the node's posture, or what is held against it, changed since the certificate was made")]
    Drifted,
    /// The token permits other things.
    #[error("the token does not permit the action of this route on its resource")]
    NotPermitted,
    /// The route is for tokens that are good for one use.
    #[error("this route demands a token that is good for one use")]
    OneTimeDemanded,
    /// The path names a resource that no question can be about.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// The policies do not permit it.
    #[error("{reason}")]
    Denied {
        /// The decision's.
        code: &'static str,
        /// The decision.
        decision: RecordId,
        /// For whoever asked.
        reason: &'static str,
    },
}

impl EnforceRefusal {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAGateway => "gateway_not_relying_party",
            Self::NotDescribed => "target_not_described",
            Self::DescribedTwice => "target_described_twice",
            Self::Request(error) => error.code(),
            Self::Overridden => "target_overridden",
            Self::NoRoute => "route_unknown",
            Self::OtherGateway => "route_of_other_gateway",
            Self::NothingShown => "credentials_missing",
            Self::AuthorizationRepeated => "authorization_repeated",
            Self::AuthorizationScheme => "authorization_scheme",
            Self::Token(refusal) => refusal.code(),
            Self::BoundAsBearer => "token_bound_as_bearer",
            Self::Proof(error) => error.code(),
            Self::Replayed(error) => error.code(),
            Self::CertificateMissing => "token_certificate_missing",
            Self::CertificateOther => "token_certificate_wrong",
            Self::CertificateMalformed => "client_certificate_malformed",
            Self::CertificateNotVouched => "client_certificate_not_vouched",
            Self::CertificateUntrusted => "client_certificate_untrusted",
            Self::Presented(error) => error.code(),
            Self::Admission(error) => error.code(),
            Self::Drifted => "client_certificate_drifted",
            Self::NotPermitted => "token_permits_other",
            Self::OneTimeDemanded => "token_not_one_time",
            Self::Question(error) => error.code(),
            Self::Denied { code, .. } => code,
        }
    }

    /// The error of OAuth that a client can mend it by (RFC 6750, 3.1; RFC 9449, 7.1); `None` where no other token would do,
    /// or none was shown.
    #[must_use]
    pub const fn oauth_error(&self) -> Option<&'static str> {
        match self {
            Self::Token(_) | Self::BoundAsBearer | Self::CertificateMissing | Self::CertificateOther => {
                Some("invalid_token")
            }
            Self::Proof(error) => Some(error.oauth_error()),
            Self::Replayed(error) => Some(error.oauth_error()),
            Self::AuthorizationRepeated => Some("invalid_request"),
            Self::NotPermitted | Self::OneTimeDemanded => Some("insufficient_scope"),
            Self::NotAGateway
            | Self::NotDescribed
            | Self::DescribedTwice
            | Self::Request(_)
            | Self::Overridden
            | Self::NoRoute
            | Self::OtherGateway
            | Self::NothingShown
            | Self::AuthorizationScheme
            | Self::CertificateMalformed
            | Self::CertificateNotVouched
            | Self::CertificateUntrusted
            | Self::Presented(_)
            | Self::Admission(_)
            | Self::Drifted
            | Self::Question(_)
            | Self::Denied { .. } => None,
        }
    }
}

/// Why there is no answer that lets a request through.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// It is not to pass.
    #[error("{refusal}")]
    Refused {
        /// Why.
        refusal: EnforceRefusal,
        /// As what a token was shown.
        scheme: Scheme,
    },
    /// What is decided could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A request that may pass now. Only [`Verifier::enforce`] makes it.
#[derive(Debug)]
pub struct Passed {
    subject: SpiffeId,
    action: String,
    decision: RecordId,
    epoch: u64,
    scheme: Scheme,
}

impl Passed {
    /// The node that acts, or for which somebody does.
    #[must_use]
    pub fn subject(&self) -> &SpiffeId {
        &self.subject
    }

    /// What it does.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.action
    }

    /// The decision, in the trail.
    #[must_use]
    pub fn decision(&self) -> RecordId {
        self.decision
    }

    /// The epoch of the node.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// As what a token was shown.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
}

/// Whoever asks, as far as it was shown.
enum Shown {
    /// By a token, with what that is bound to.
    Token(LiveToken),
    /// By a certificate of ours, whose key it has.
    Certificate(IdentifiedNode),
}

impl Shown {
    fn node(&self) -> NodeId {
        match self {
            Self::Token(token) => token.node(),
            Self::Certificate(node) => node.id(),
        }
    }

    fn epoch(&self) -> u64 {
        match self {
            Self::Token(token) => token.live().epoch,
            Self::Certificate(node) => node.node().epoch,
        }
    }
}

/// A request of which nothing was decided yet.
struct Asking<'a> {
    gateway: &'a Caller,
    party: &'a IdentifiedRelyingParty,
    request: &'a NormalRequest,
    described: &'a Described<'a>,
    scheme: Scheme,
    /// The node that it is about, once a token that we signed, or a certificate, said so.
    node: Option<NodeId>,
}

/// What stops a request.
enum Stop {
    Refusal(EnforceRefusal),
    Store(StoreError),
}

impl<E: Into<EnforceRefusal>> From<E> for Stop {
    fn from(refusal: E) -> Self {
        Self::Refusal(refusal.into())
    }
}

impl Verifier {
    /// Whether a gateway may let a request through.
    ///
    /// Established when this returns, in this order: whoever asks is a relying party · of the request there is one reading ([`NormalRequest`]) ·
    /// the bundle in force has a route for it, which is for an audience that the gateway is · the client shows a token for that audience that counts now
    /// ([`Self::live_token`]), and what it is bound to: a proof that was not used before, or the certificate that the gateway vouches
    /// for; or else shows a certificate that is ours, on record and of the node's epoch by itself · of the node the gateway may read · the
    /// token permits the route's action on its resource · the policies permit that, by how the node stands now, which is on record
    /// · the node still stands so · a token that is good for one use had not been used, which is on record.
    pub async fn enforce(&self, gateway: &Caller, described: &Described<'_>) -> Result<Passed, EnforceError> {
        let refused = |refusal, scheme| EnforceError::Refused { refusal, scheme };
        let Caller::RelyingParty(party) = gateway else {
            return Err(refused(EnforceRefusal::NotAGateway, Scheme::None));
        };
        let request =
            NormalRequest::read(described.method, described.scheme, described.host, described.target)
                .map_err(|error| refused(error.into(), Scheme::None))?;
        let scheme = Scheme::None;
        let mut asking = Asking { gateway, party, request: &request, described, scheme, node: None };
        let outcome = self.passes(&mut asking).await;
        let Asking { scheme, node, .. } = asking;
        match outcome {
            Ok(passed) => Ok(passed),
            Err(Stop::Store(error)) => Err(error.into()),
            Err(Stop::Refusal(refusal)) => {
                // What a stranger makes up is not recorded; what the policies deny is already.
                if let (Some(node), false) = (node, matches!(refusal, EnforceRefusal::Denied { .. })) {
                    let record = self.record_of(
                        RecordKind::Refusal,
                        "enforce",
                        actor_of(gateway),
                        Outcome::Refused,
                        refusal.code(),
                    );
                    let record = record.about(Entity::node(node)).because(&refusal.to_string());
                    self.record_outcome(record).await?;
                }
                tracing::debug!(code = refusal.code(), "a request is not let through");
                Err(refused(refusal, scheme))
            }
        }
    }

    async fn passes(&self, asking: &mut Asking<'_>) -> Result<Passed, Stop> {
        let bundle = self.bundle.load_full();
        let matched = bundle.routes().find(asking.request).ok_or(EnforceRefusal::NoRoute)?;
        let audience = matched.route().audience().as_str();
        if !asking.party.is_among(std::iter::once(audience)) {
            return Err(EnforceRefusal::OtherGateway.into());
        }
        let shown = self.shown(asking, audience)?;
        self.permitted(asking, &bundle, &matched, shown).await
    }

    /// Who asks: by a token where there is one, else by a certificate.
    fn shown(&self, asking: &mut Asking<'_>, audience: &str) -> Result<Shown, EnforceRefusal> {
        let described = asking.described;
        let field = match described.authorization.as_slice() {
            [] => {
                let certificate = described.certificate.as_deref().ok_or(EnforceRefusal::NothingShown)?;
                let node = self.svid(asking.party, certificate, &mut asking.node)?;
                return Ok(Shown::Certificate(node));
            }
            [field] => field,
            _ => return Err(EnforceRefusal::AuthorizationRepeated),
        };
        let (scheme, text) = credentials(field).ok_or(EnforceRefusal::AuthorizationScheme)?;
        asking.scheme = scheme;
        let token = self.live_token_of(text, |live| asking.party.may_read(&live.labels), &mut asking.node)?;
        let claims = token.claims();
        if !claims.audience.names().iter().any(|name| name.as_str() == audience) {
            return Err(TokenRefusal::OtherAudience.into());
        }
        if let Some(bound_to) = claims.binding.certificate() {
            let certificate = described.certificate.as_deref().ok_or(EnforceRefusal::CertificateMissing)?;
            if CertificateThumbprint::of_der(certificate) != *bound_to {
                return Err(EnforceRefusal::CertificateOther);
            }
        }
        match scheme {
            Scheme::Dpop => drop(self.fresh(asking, &token)?),
            Scheme::Bearer | Scheme::None => {
                if claims.binding.key().is_some() {
                    return Err(EnforceRefusal::BoundAsBearer);
                }
            }
        }
        Ok(Shown::Token(token))
    }

    /// Whether the proof that came with a token counts: it was not used before, or its key is that of the node's certificate,
    /// by which the client speaks to the gateway.
    fn fresh(&self, asking: &Asking<'_>, token: &LiveToken) -> Result<FreshProof, EnforceRefusal> {
        let expected = ExpectedProof {
            method: asking.request.method().as_str(),
            uri: asking.request.uri(),
            goes_with: GoesWith::Token(token.verified()),
        };
        let proof = self.proof_with_token(&asking.described.proofs, &expected)?;
        let certificate = asking.described.certificate.as_deref();
        let node = certificate.and_then(|shown| self.svid(asking.party, shown, &mut None).ok());
        let node = node.filter(|node| node.id() == token.node());
        let proof = match node.as_ref().and_then(|node| node.certificate().key_thumbprint.as_ref()) {
            Some(key) => match proof.by_the_key_in_tls(key) {
                BesideTls::Fresh(proof) => return Ok(proof),
                BesideTls::OfAnother(proof) => proof,
            },
            None => proof,
        };
        Ok(self.spend_proof(proof)?)
    }

    /// The node that a certificate names, for whose key the gateway vouches.
    ///
    /// Established when this returns, in this order: as [`Self::vouched_svid`] · of a node that the gateway may read · it is on
    /// record and was not replaced · the node is at the epoch that it names, and may have credentials now.
    fn svid(
        &self,
        party: &IdentifiedRelyingParty,
        der: &[u8],
        known: &mut Option<NodeId>,
    ) -> Result<IdentifiedNode, EnforceRefusal> {
        let now = self.now();
        let svid = self.vouched_svid(der, now)?;
        let id = self.trust_domain.node_of(&svid.spiffe_id).ok_or(AdmissionError::NotANode)?;
        let live = self.fleet.node(id).filter(|live| party.may_read(&live.labels));
        live.ok_or(AdmissionError::UnknownNode)?;
        *known = Some(id);
        let epoch = svid.epoch;
        let node = self.fleet.identify(Some(svid), &self.trust_domain, now)?;
        // One of ours names its epoch: one without it is none that counts.
        if !epoch.is_some_and(|epoch| node.node().bears(epoch, now)) {
            return Err(EnforceRefusal::Drifted);
        }
        Ok(node)
    }

    /// Whether whoever asks may do it, now.
    async fn permitted(
        &self,
        asking: &Asking<'_>,
        bundle: &Bundle,
        matched: &Matched<'_>,
        shown: Shown,
    ) -> Result<Passed, Stop> {
        let (node, epoch) = (shown.node(), shown.epoch());
        if let Shown::Token(token) = &shown
            && !permits(token.claims(), matched)
        {
            return Err(EnforceRefusal::NotPermitted.into());
        }
        let once = matches!(&shown, Shown::Token(token) if token.claims().once);
        if matched.route().one_time() && !once {
            return Err(EnforceRefusal::OneTimeDemanded.into());
        }
        let question = matched.question(&node.to_string()).map_err(EnforceRefusal::from)?;
        let decided = match self.evaluate_by(bundle, asking.gateway, question).await {
            Ok(decided) => decided,
            Err(DecideError::Store(error)) => return Err(Stop::Store(error)),
            Err(DecideError::PageToken) => return Err(EnforceRefusal::NoRoute.into()),
        };
        if !decided.allowed() {
            let (code, decision, reason) = (decided.code(), decided.id(), decided.reason_for_user());
            return Err(EnforceRefusal::Denied { code, decision, reason }.into());
        }
        // Recording took its time.
        let stands = self.fleet.node(node).is_some_and(|live| live.bears(epoch, self.now()));
        match shown {
            Shown::Token(_) if !stands => return Err(TokenRefusal::Drifted.into()),
            Shown::Certificate(_) if !stands => return Err(EnforceRefusal::Drifted.into()),
            Shown::Token(token) => match self.use_live(asking.gateway, token).await {
                Ok(_used) => {}
                Err(UseError::Refused(refusal)) => return Err(EnforceRefusal::from(refusal).into()),
                Err(UseError::Store(error)) => return Err(Stop::Store(error)),
            },
            Shown::Certificate(_) => {}
        }
        Ok(Passed {
            subject: self.trust_domain.node(node),
            action: matched.route().action().to_owned(),
            decision: decided.id(),
            epoch,
            scheme: asking.scheme,
        })
    }
}

/// Whether a token permits what a request does: as a word of its scope, where the resource is the audience itself, or among its
/// details; and where it has neither, the action that stands for any, on the audience itself.
fn permits(claims: &AccessClaims, matched: &Matched<'_>) -> bool {
    let (kind, id) = matched.resource();
    let action = matched.route().action();
    let is_audience = kind == Wanted::RESOURCE && id == matched.route().audience().as_str();
    let any = claims.scope.is_none() && claims.authorization_details.is_empty();
    let by_scope = claims.scope.as_ref().is_some_and(|scope| scope.contains(action));
    let by_any = any && action == Wanted::ANY_ACTION;
    let by_details = claims.authorization_details.iter().any(|detail| {
        let here = |at: &Text| at.as_str() == matched.route().audience().as_str();
        detail.resource.kind.as_str() == kind
            && detail.resource.id.as_str() == id
            && detail.actions.iter().any(|one| one.as_str() == action)
            && (detail.locations.is_empty() || detail.locations.iter().any(here))
    });
    is_audience && (by_scope || by_any) || by_details
}

/// Scheme and token of an Authorization field.
fn credentials(field: &[u8]) -> Option<(Scheme, &str)> {
    let (scheme, token) = std::str::from_utf8(field).ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("dpop") {
        Some((Scheme::Dpop, token))
    } else if scheme.eq_ignore_ascii_case("bearer") {
        Some((Scheme::Bearer, token))
    } else {
        None
    }
}
