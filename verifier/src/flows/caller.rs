//! Who asks how nodes stand, or what may be done.

use crate::audit::Actor;
use crate::posture::IdentifiedNode;
use crate::relying_party::{IdentifiedRelyingParty, Shown};

/// Who asks.
#[derive(Debug)]
pub enum Caller {
    /// A node, however it stands.
    Node(IdentifiedNode),
    /// A relying party, which may read of the nodes that it was given.
    RelyingParty(IdentifiedRelyingParty),
}

/// A relying party that asks or says something, for the trail, and by what it showed who it is.
pub(super) fn relying_party(party: &IdentifiedRelyingParty) -> Actor {
    let name = party.name().as_str().into();
    match party.shown() {
        Shown::Certificate => Actor::RelyingParty(name),
        Shown::Token => Actor::RelyingPartyByToken(name),
    }
}
