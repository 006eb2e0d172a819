//! Who gets a token, now.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;

use super::{Binding, Wanted};
use crate::policy::{CredentialKind, Denied, Permit, Question};
use crate::posture::LiveNode;

/// How many may stand one behind the other in `act`: who got a token from whom.
pub const MAX_CHAIN: usize = 4;

/// What is shorter expires on its way.
const SHORTEST: Duration = Duration::from_secs(2);

/// What the policies said.
#[derive(Debug)]
pub struct Permits {
    /// To a credential of this kind for the node.
    pub credential: Result<Permit, Denied>,
    /// To each action, in their order.
    pub actions: Vec<Result<Permit, Denied>>,
    /// To the client acting for the node; `None` where the client is the node itself.
    pub act_for: Option<ActFor>,
}

/// What the policies said of a client that acts for a node.
#[derive(Debug)]
pub struct ActFor {
    /// Type and id of the client, as it was asked.
    pub actor: (&'static str, String),
    /// The answer.
    pub permit: Result<Permit, Denied>,
}

/// How long a token may live.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    /// Whatever else.
    pub most: Duration,
    /// Until when the client's certificate is valid, or the token that this one is made of, whichever is first.
    pub not_after: Option<Timestamp>,
    /// This time.
    pub now: Timestamp,
}

/// The permission to make one token, once. Only [`decide_token`] makes it; making the token consumes it.
#[derive(Debug)]
pub struct TokenGrant {
    node: NodeId,
    epoch: u64,
    binding: Binding,
    wanted: Option<Wanted>,
    lifetime: Duration,
}

impl TokenGrant {
    /// The epoch of the node on which it was decided.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The parts, for the one who makes the token: the node, its epoch, by which key the token is held, what it permits, and how
    /// long it lives.
    pub(crate) fn into_parts(self) -> (NodeId, u64, Binding, Option<Wanted>, Duration) {
        (self.node, self.epoch, self.binding, self.wanted, self.lifetime)
    }
}

/// Why there is no token. Each has a stable code and words for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenDenial {
    /// The node may have nothing now.
    #[error("the node's posture does not permit it credentials now: {0}")]
    Posture(&'static str),
    /// Its evidence counts for no longer.
    #[error("the node's evidence is fresh for less than {} s more: attest first", SHORTEST.as_secs())]
    NearlyStale,
    /// The policies do not permit a credential of this kind.
    #[error("the policies do not permit the node a {}: {denied}", kind.as_str())]
    Credential {
        /// Of which kind.
        kind: CredentialKind,
        /// Why.
        denied: Denied,
    },
    /// The policies do not permit one of the actions.
    #[error("the policies do not permit action {position}: {denied}")]
    Action {
        /// Which, from 1, in the order of the request.
        position: usize,
        /// Why.
        denied: Denied,
    },
    /// The policies do not permit the client to act for the node.
    #[error("the policies do not permit the client to act for the node: {0}")]
    ActFor(Denied),
    /// A permit is for something else.
    #[error("a permit is for something else than the token")]
    PermitForOther,
}

impl TokenDenial {
    /// Stable, for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Posture(code) => code,
            Self::NearlyStale => "posture_nearly_stale",
            Self::Credential { denied, .. } | Self::Action { denied, .. } | Self::ActFor(denied) => {
                denied.judgement().code()
            }
            Self::PermitForOther => "permit_for_other",
        }
    }
}

/// Decides whether there is a token about a node.
///
/// Established when a grant returns: the node may have credentials now (it is admitted, affirming or observed by a profile
/// that issues, fresh, held by nobody: [`LiveNode::bears`]) · the policies permit it a credential of the kind that the
/// binding makes · and each action, in the node's name · and the client acting for it, where it is another · the token lives no
/// longer than the evidence is fresh, and than its term.
///
/// `wanted`: `None` for a JWT-SVID, which permits nothing by itself.
pub fn decide_token(
    id: NodeId,
    node: &LiveNode,
    binding: Binding,
    wanted: Option<Wanted>,
    permits: Permits,
    Term { most, not_after, now }: Term,
) -> Result<TokenGrant, TokenDenial> {
    if !node.bears(node.epoch, now) {
        return Err(TokenDenial::Posture(posture_code(node, now)));
    }
    let kind = if wanted.is_some() { binding.kind() } else { CredentialKind::JwtSvid };
    let permit = permits.credential.map_err(|denied| TokenDenial::Credential { kind, denied })?;
    if !permit.is_to_issue(id, kind) {
        return Err(TokenDenial::PermitForOther);
    }
    let asked = match &wanted {
        Some(wanted) => wanted.questions("node", &id.to_string()).map_err(|_| TokenDenial::PermitForOther)?,
        None => Vec::new(),
    };
    if asked.len() != permits.actions.len() {
        return Err(TokenDenial::PermitForOther);
    }
    for ((position, permit), question) in (1..).zip(permits.actions).zip(&asked) {
        if permit.map_err(|denied| TokenDenial::Action { position, denied })?.question() != question {
            return Err(TokenDenial::PermitForOther);
        }
    }
    if let Some(ActFor { actor, permit }) = permits.act_for
        && permit.map_err(TokenDenial::ActFor)?.question() != &Question::act_for(actor, id)
    {
        return Err(TokenDenial::PermitForOther);
    }
    let fresh = node.fresh_until().map_or(Duration::ZERO, |until| until.since(now));
    let lifetime = most.min(fresh).min(not_after.map_or(most, |end| end.since(now)));
    if lifetime < SHORTEST {
        return Err(TokenDenial::NearlyStale);
    }
    Ok(TokenGrant { node: id, epoch: node.epoch, binding, wanted, lifetime })
}

/// The code of why a node may have nothing, as its certificate would be refused.
fn posture_code(node: &LiveNode, now: Timestamp) -> &'static str {
    use rootbound_common::wire::v1::PostureStatus as S;
    match node.status(now) {
        S::Affirming | S::Warning => "posture_warning",
        S::Stale => "posture_stale",
        S::Unknown => "posture_unknown",
        S::Contraindicated => "posture_contraindicated",
        S::Blocked => "node_blocked",
    }
}
