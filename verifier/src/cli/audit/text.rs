//! What the verbs show.

use std::path::PathBuf;

use serde_json::json;

use super::super::table::fields;
use super::super::{Output, Show};
use crate::audit::verify::Verification;
use crate::audit::{Actor, Head, SequencedRecord};

/// What a verification came to.
pub(super) struct Verified {
    pub(super) verification: Verification,
    /// Whether the operator gave the keys.
    pub(super) pinned: bool,
    /// Whether the operator gave a checkpoint.
    pub(super) known: bool,
}

impl Show for Verified {
    fn text(&self) -> String {
        let Verification { first, head, records, checkpoints, after_last_checkpoint, damages, damaged } =
            &self.verification;
        let keys = if self.pinned { "those that you gave" } else { "those that came with the trail" };
        let mut text = fields(&[
            ("Records", format!("{records}, from {first} to {}", head.sequence)),
            ("Head", head.hash.to_string()),
            ("Checkpoints", format!("{checkpoints} stand, by keys: {keys}")),
            (
                "Unsigned",
                format!("{after_last_checkpoint} after the last of them, which could be cut off unseen"),
            ),
        ]);
        for damage in damages {
            text.push_str(&format!("damage: {damage}\n"));
        }
        let told = u64::try_from(damages.len()).unwrap_or(u64::MAX);
        if *damaged > told {
            text.push_str(&format!("damage: and {} more\n", damaged - told));
        }
        text.push_str(match (damaged, self.known || self.pinned) {
            (0, true) => "The trail is whole.\n",
            (0, false) => {
                "The trail is whole in itself. That it was not written anew as a whole, only a checkpoint or key says \
                 that you kept elsewhere: --checkpoint, --key.\n"
            }
            (1.., _) => "The trail was changed.\n",
        });
        text
    }

    fn json(&self) -> serde_json::Value {
        let Verification { first, head, records, checkpoints, after_last_checkpoint, damages, damaged } =
            &self.verification;
        let damages: Vec<_> = damages
            .iter()
            .map(|damage| json!({ "sequence": damage.sequence(), "detail": damage.to_string() }))
            .collect();
        json!({
            "whole": *damaged == 0,
            "first": first,
            "head": head,
            "records": records,
            "checkpoints": checkpoints,
            "after_last_checkpoint": after_last_checkpoint,
            "keys": if self.pinned { "given" } else { "of_the_trail" },
            "known_checkpoint": self.known,
            "damaged": damaged,
            "damages": damages,
        })
    }
}

/// What an archiving came to.
pub(super) struct Archived {
    pub(super) end: Option<Head>,
    pub(super) segments: u64,
    pub(super) to: PathBuf,
}

impl Show for Archived {
    fn text(&self) -> String {
        match self.end {
            None => "There is no whole segment before that time: nothing was archived.\n".to_owned(),
            Some(end) => {
                let (last, to, segments) = (end.sequence, self.to.display(), self.segments);
                format!("Archived up to record {last} to {to}, verified; {segments} segments are gone.\n")
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({ "last": self.end, "segments": self.segments, "to": self.end.map(|_| self.to.clone()) })
    }
}

/// A line for a record.
pub(super) fn record(record: &SequencedRecord, output: Output) -> String {
    let SequencedRecord { sequence, record } = record;
    if output == Output::Json {
        return format!("{}\n", json!({ "sequence": sequence, "record": record }));
    }
    let actor = match &record.actor {
        Actor::Verifier => "verifier".to_owned(),
        Actor::Node(node) => format!("node {node}"),
        Actor::RelyingParty(name) => format!("relying party {name}"),
        Actor::RelyingPartyByToken(name) => format!("relying party {name} (token)"),
        Actor::Operator(name) => name.to_string(),
        Actor::Stranger => "somebody".to_owned(),
    };
    let entity = |entity: &crate::audit::Entity| format!(" {} {}", entity.kind, entity.name);
    let mut text = format!(
        "{sequence} {} {} {}: {} by {actor}{}{}, {}",
        record.at,
        record.kind.as_str(),
        record.outcome.as_str(),
        record.action,
        record.subject.as_ref().map(entity).unwrap_or_default(),
        record.object.as_ref().map(entity).unwrap_or_default(),
        record.code,
    );
    for version in &record.versions {
        text.push_str(&format!(" [{version}]"));
    }
    if !record.detail.is_empty() {
        text.push_str(&format!(" ({})", record.detail));
    }
    if record.left_out > 0 {
        text.push_str(&format!(" {} allowed decisions before were left out", record.left_out));
    }
    text.push_str(&format!(" {}\n", record.id));
    text
}
