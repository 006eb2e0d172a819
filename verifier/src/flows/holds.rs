//! An operator holds a node, or lets it go again.

use std::time::Duration;

use rootbound_common::id::NodeId;

use super::operate::{OperateError, Operator};
use super::{Verifier, rng};
use crate::hold::{HeldBy, Hold, HoldId, HoldKind, HoldReason};
use crate::node::NodeRecord;
use crate::store::holds::{HoldChange, HoldOutcome, Lift};

impl Verifier {
    /// Holds a node from now on, for some time or until it is released: the next call is refused, whatever it shows.
    pub async fn quarantine(
        &self,
        id: NodeId,
        kind: HoldKind,
        lasts: Option<Duration>,
        operator: &Operator,
    ) -> Result<(NodeRecord, Hold), OperateError> {
        let since = self.now();
        let hold = Hold {
            id: HoldId::generate(&mut rng()),
            kind,
            by: HeldBy::Operator(operator.author.clone()),
            reason: HoldReason::try_from(operator.reason.clone())?,
            since,
            expires_at: lasts.map(|lasts| since.plus(lasts)),
        };
        let code = match kind {
            HoldKind::Block => "quarantined",
            HoldKind::Lower => "lowered",
        };
        let node = self.change_holds(id, HoldChange::Set(hold.clone()), code, operator).await?;
        tracing::info!(node = %id, hold = %hold.id, kind = kind.as_str(), author = %operator.author, "node held");
        Ok((node, hold))
    }

    /// Lifts one hold of a node, or all of them, whoever set them. What the node has shown so far counts no more: access
    /// comes back with its next quote.
    pub async fn release(
        &self,
        id: NodeId,
        hold: Option<HoldId>,
        operator: &Operator,
    ) -> Result<NodeRecord, OperateError> {
        let reason = HoldReason::try_from(operator.reason.clone())?;
        let by = HeldBy::Operator(operator.author.clone());
        let lift = Lift { hold, by, reason, at: self.now() };
        let node = self.change_holds(id, HoldChange::Lift(lift), "released", operator).await?;
        tracing::info!(node = %id, holds = node.holds.len(), author = %operator.author, "node released");
        Ok(node)
    }

    async fn change_holds(
        &self,
        id: NodeId,
        change: HoldChange,
        code: &str,
        operator: &Operator,
    ) -> Result<NodeRecord, OperateError> {
        let which = match &change {
            HoldChange::Lift(lift) => lift.hold,
            HoldChange::Set(_) | HoldChange::DemandEvidence(_) => None,
        };
        match self.store.change_holds(id, change, self.operated(id, operator, code)).await? {
            HoldOutcome::Changed(node) => {
                self.refresh(id, node.revision).await?;
                Ok(*node)
            }
            HoldOutcome::UnknownNode => Err(OperateError::UnknownNode(id)),
            HoldOutcome::TooManyHolds => Err(OperateError::TooManyHolds(id)),
            HoldOutcome::NoSuchHold => match which {
                Some(hold) => Err(OperateError::NoSuch { what: "hold", name: hold.to_string() }),
                None => {
                    // The attempt that lifted them may not have come as far as memory.
                    self.refresh(id, 0).await?;
                    Err(OperateError::Already(id))
                }
            },
        }
    }
}
