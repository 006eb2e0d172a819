//! Boots, judged event by event: rules, and what deviates from them.
//!
//! - `rules`, `command_line`: what an operator expects
//! - `deviation`: what was otherwise, naming the event
//! - `judge`, `secure_boot`: [`judge`]
//! - `deny`: the fleet's deny list, over all of it
//! - `booted`: what policies may know of it
//! - `capture`: rules out of a boot that is known to be good; `shared`: out of several
//! - `nearest`: what rules accept in the place of what they do not

mod booted;
mod capture;
mod command_line;
mod deny;
mod deviation;
mod judge;
mod nearest;
mod rules;
mod secure_boot;
mod shared;
#[cfg(test)]
mod tests;

pub use booted::Booted;
pub use capture::{LeftOut, capture};
pub use command_line::{CommandLineFault, CommandLineRules, TokenRules, Unreadable};
pub use deny::judge_denied;
pub use deviation::{BootDeviation, NamedEvent};
pub use judge::judge;
pub use nearest::{NamedValue, Place, accepting, nearest};
pub use rules::{
    AuthorityKind, AuthorityRule, BootRules, BootRulesError, DbxRules, Debugger, Demanded, DmaProtection,
    EntryKind, EntryRule, EventRule, FirmwareRules, Measurement, SecureBootMode, SecureBootRules,
    VariableRules,
};
pub use shared::{Differing, SharedBoot, capture_shared};
