//! Boot event logs: what firmware and boot loaders say they measured, held against what a TPM signed.
//!
//! [`ParsedBootLog::parse`] → claims; [`authenticate`] → [`BootHistory`]. A TPM keeps one value per PCR, so a log that replays to
//! the quoted value proves the *digests* and their order within each PCR. It proves an event's *data* only where their hash
//! is the digest, and never an event's *type*: what was measured is known, not what it was called. So whoever reads an
//! event decides by its digest and its proved bytes, and takes types and unproved data as words for people.
//!
//! - `log`, `spec_id`, `event`: the two formats, bounded
//! - `replay`, `history`, `proof`: the checklist, and what it establishes
//! - `variable`, `signature_list`, `device_path`, `separator`, `tag`: what event data hold
//! - `secure_boot`: PCR 7, read in its strict order
//! - `describe`, `text`: lines for people

mod describe;
mod device_path;
mod error;
mod event;
mod history;
mod log;
mod proof;
mod reader;
mod replay;
mod secure_boot;
mod separator;
mod signature_list;
mod spec_id;
mod tag;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod variable;

pub use error::BootLogError;
pub use event::EventType;
pub use history::{BootHistory, Content, MAX_LOGS, MeasuredEvent, authenticate, authenticate_last};
pub use log::{LogFormat, ParsedBootLog, ParsedEvent};
pub use proof::ProvedForm;
pub use replay::Replayed;
pub use secure_boot::{MeasuredVariable, SecureBootFault, SecureBootRecord};
pub use separator::{Separator, SeparatorDigests};
pub use signature_list::{SignatureEntry, SignatureKind, parse_signature_lists};
pub use tag::Tag;
pub use variable::{ConfigurationVariable, Guid, SecureBootState, Variable};
