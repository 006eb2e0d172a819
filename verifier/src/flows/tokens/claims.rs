//! What tokens claim that are about to be signed.

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_token::access::{AccessClaims, Actors};
use rootbound_token::claim::{self, Text};
use rootbound_token::jwk;
use serde::Serialize;

use super::Client;
use super::mint::Asked;
use crate::flows::Verifier;
use crate::store::tokens::TokenId;
use crate::token::{Binding, Wanted};

/// What a token will claim.
pub(super) struct Claims<'a> {
    pub(super) verifier: &'a Verifier,
    pub(super) asked: &'a Asked<'a>,
    pub(super) id: &'a TokenId,
    pub(super) node: NodeId,
    pub(super) epoch: u64,
    pub(super) binding: Binding,
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

impl Claims<'_> {
    fn audience(&self) -> Option<claim::Audience> {
        let names = self.asked.audiences.iter().map(|name| name.as_str().parse().ok());
        claim::Audience::several(names.collect::<Option<_>>()?)
    }

    fn subject(&self) -> Option<Text> {
        self.verifier.trust_domain.node(self.node).as_str().parse().ok()
    }

    /// An access token (RFC 9068, 2.2).
    pub(super) fn access(&self, wanted: &Wanted) -> Option<AccessClaims> {
        let actors = self.asked.about.actors.iter().map(|actor| actor.parse().ok());
        Some(AccessClaims {
            issuer: self.verifier.issuer().parse().ok()?,
            subject: self.subject()?,
            client_id: self.asked.client.name(self.verifier).parse().ok()?,
            audience: self.audience()?,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            id: self.id.as_str().parse().ok()?,
            scope: wanted.scope().cloned(),
            authorization_details: wanted.details().clone(),
            binding: self.binding.claim(),
            actors: Actors::new(actors.collect::<Option<_>>()?)?,
            posture_epoch: self.epoch,
            once: wanted.once(),
        })
    }

    /// A JWT-SVID (SPIFFE JWT-SVID, 3). `iss` and `iat`, which cloud federations need, and a `cnf` with the key of the node's TPM,
    /// so that we ourselves take it from that key alone.
    pub(super) fn svid(&self) -> Option<SvidClaims> {
        let key = match self.asked.client {
            Client::Node(node) => node.certificate().key_thumbprint,
            Client::Asserted(node) => node.key,
            Client::RelyingParty { .. } => None,
        };
        Some(SvidClaims {
            iss: self.verifier.issuer(),
            sub: self.subject()?,
            aud: self.audience()?,
            iat: self.issued_at.as_seconds(),
            exp: self.expires_at.as_seconds(),
            jti: self.id.as_str().to_owned(),
            cnf: key.map(|jkt| Confirmation { jkt }),
            rootbound_posture_epoch: self.epoch,
        })
    }
}

#[derive(Serialize)]
pub(super) struct SvidClaims {
    iss: String,
    sub: Text,
    aud: claim::Audience,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
    rootbound_posture_epoch: u64,
}

#[derive(Serialize)]
struct Confirmation {
    jkt: jwk::Thumbprint,
}
