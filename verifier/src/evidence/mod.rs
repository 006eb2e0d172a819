//! Evidence: from bytes that anybody can send to facts that one TPM vouches for.
//!
//! - `quote`: [`authenticate`], the checklist of `docs/PROTOCOL.md`, and what it returns; [`offline`], for whoever looks at
//!   files
//! - `continuity`: one TPM's clock goes forward; a clone's or a rolled-back one's does not
//! - [`boot_log`]: what firmware and boot loaders measured, held against the quoted PCRs
//! - [`ima`]: the list of what the kernel measured since, replayed to a quoted value
//! - [`frame`]: logs, compressed, and bounded by what they become

pub mod boot_log;
mod continuity;
pub mod frame;
pub mod ima;
mod quote;

pub use continuity::{Continuity, ContinuityError, check as check_continuity};
pub use quote::offline;
pub use quote::{Authenticated, EvidenceError, Observed, StoredQuote, Unproven, authenticate, restore};
