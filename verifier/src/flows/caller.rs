//! Who asks how nodes stand, or what may be done.

use crate::posture::IdentifiedNode;
use crate::relying_party::IdentifiedRelyingParty;

/// Who asks.
#[derive(Debug)]
pub enum Caller {
    /// A node, however it stands.
    Node(IdentifiedNode),
    /// A relying party, which may read of the nodes that it was given.
    RelyingParty(IdentifiedRelyingParty),
}
