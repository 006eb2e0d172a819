//! The audit trail: what happened, in an order that cannot be bent unseen.
//!
//! - [`record`]: who did what about what, with which outcome; its one form in bytes
//! - [`chain`]: each record's hash covers the one before; records are kept in segments
//! - [`checkpoint`]: the verifier's signature over how far the chain goes, and where it begins
//! - [`verify`]: whether a trail is whole, and if not, where it is not
//! - [`sampling`]: which allowed decisions are left out, where the configuration says so
//! - [`export`]: a record as a line for other programs (OCSF), which can be verified by itself
//!
//! All of it is pure. Where the trail is kept is the store's business ([`crate::store::audit`]).

pub mod chain;
pub mod checkpoint;
pub mod export;
pub mod facts;
pub mod id;
pub mod record;
pub mod sampling;
pub mod text;
pub mod verify;

pub use chain::{Encoded, Hash, Head, Segment};
pub use checkpoint::{AuditKey, Checkpoint, PublicKey};
pub use facts::Facts;
pub use id::RecordId;
pub use record::{Actor, AuditRecord, Entity, Outcome, RecordKind, SequencedRecord};
pub use text::Text;
