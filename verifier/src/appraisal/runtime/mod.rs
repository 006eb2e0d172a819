//! What runs: rules over the entries of the kernel's measurement list.
//!
//! - `rules`: [`RuntimeRules`], as an operator writes them into a profile
//! - `path`: path rules, anchored
//! - `digest_set`, `table`: [`DigestSet`], what may run, by digest and path; compiled once, shared by all
//! - `key`, `signature`: file-signing keys, and what they sign
//! - `cache`: [`SignatureCache`], so that the fleet verifies a signature once
//! - `compiled`: [`CompiledRules`], rules and sets ready for use
//! - `judge`: [`Judge`], entry by entry
//! - `findings`, `deviation`: what came of it; `nearest`: what sets have that is like it

mod cache;
mod compiled;
mod deviation;
mod digest_set;
mod findings;
mod judge;
mod key;
mod nearest;
mod path;
mod rules;
mod signature;
mod table;
#[cfg(test)]
mod tests;

pub use cache::SignatureCache;
pub use compiled::CompiledRules;
pub use deviation::{RuntimeDeviation, SignatureProblem};
pub use digest_set::{DigestSet, DigestSetError};
pub use findings::{Counts, RuntimeAppraisal, RuntimeFindings};
pub use judge::Judge;
pub use key::KeyError;
pub use nearest::{Likeness, NearFile, SOURCE, Wanted};
pub use path::PathRule;
pub use rules::{PolicyLoads, RuntimeRules, RuntimeRulesError, Treatment};
