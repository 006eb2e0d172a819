//! Somebody asks how a node stands, and takes the answer along (RFC 9334, 5.1: the passport model).

use rootbound_common::id::NodeId;

use super::Verifier;
use super::caller::Caller;
use crate::attestation_result::AttestationResult;
use crate::credential::ear::{Ear, EatNonce};
use crate::credential::result_key::JwkSet;

/// Why there is no answer. Each has a stable code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultRefusal {
    /// A node asks for another, whether there is one or not.
    #[error("a node may read its own attestation result only")]
    OtherNode,
    /// A relying party asks for a node that is not there, or is none of its own: the answer is the same.
    #[error("there is no such node, or this relying party may not read its attestation result")]
    UnknownNode,
    /// The result cannot be written. It is a bug.
    #[error("the attestation result cannot be encoded")]
    Encoding,
}

impl ResultRefusal {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::OtherNode => "result_of_other_node",
            Self::UnknownNode => "unknown_node",
            Self::Encoding => "result_encoding",
        }
    }
}

impl Verifier {
    /// How a node stands now, signed. `id` is `None` where what was asked for has not the form of an id.
    ///
    /// Nothing is read from the store, and nothing is recorded: a result grants nothing.
    pub fn attestation_result(
        &self,
        reader: &Caller,
        id: Option<NodeId>,
        nonce: Option<&EatNonce>,
    ) -> Result<Ear, ResultRefusal> {
        let now = self.now();
        let result = match reader {
            Caller::Node(caller) if id == Some(caller.id()) => {
                AttestationResult::of(caller.id(), caller.node(), now)
            }
            Caller::Node(_) => return Err(ResultRefusal::OtherNode),
            Caller::RelyingParty(party) => {
                let id = id.ok_or(ResultRefusal::UnknownNode)?;
                let node = self.fleet.node(id).filter(|node| party.may_read(&node.labels));
                let node = node.ok_or(ResultRefusal::UnknownNode)?;
                tracing::debug!(relying_party = %party.name(), node = %id, "attestation result read");
                AttestationResult::of(id, &node, now)
            }
        };
        self.result_signer.sign(&result, nonce).map_err(|error| {
            tracing::error!(%error, "an attestation result cannot be encoded");
            ResultRefusal::Encoding
        })
    }

    /// What verifies attestation results.
    #[must_use]
    pub fn result_keys(&self) -> JwkSet {
        self.result_signer.jwk_set()
    }

    /// The media type of attestation results.
    #[must_use]
    pub fn result_media_type(&self) -> String {
        self.result_signer.media_type()
    }
}
