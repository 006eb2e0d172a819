//! Decisions: who may do what, now. A refusal is a result.
//!
//! - [`question`]: what is asked, every word of it the caller's; [`facts`]: what is attested, none of it the caller's
//! - [`bundle`]: policies, schema, entities and cases, compiled; `schema`, `scan`, `cost`, `slice`: its parts
//! - [`decide`]: a question and facts by a bundle, and the [`Permit`] that comes of it; [`cases`]: the same, rehearsed
//! - [`explain`]: each policy, condition by condition
//! - [`routes`]: what a request to a service does, for gateways
//! - `asking`: whether a relying party may ask
//! - `search`: what a bundle knows by name
//! - `issue`: grants and denials of credentials

mod asking;
pub mod bundle;
pub mod cases;
mod cost;
pub mod decide;
mod error;
pub mod explain;
pub mod facts;
mod issue;
pub mod question;
pub mod routes;
mod scan;
mod schema;
mod search;
mod slice;
mod stack;
#[cfg(test)]
mod tests;

pub use bundle::{Bundle, BundleSource, FileName, PolicyName};
pub use cases::{Case, CaseReport, Expected};
pub use decide::{Code, Denied, Judgement, Obligation, Outcome, Permit, PolicyFailure};
pub use error::BundleError;
pub use explain::{ConditionExplained, Explanation, Met, PolicyExplained};
pub use facts::{
    Attested, Endorser, Fact, FactSet, NodeFacts, NodeStanding, RecordedFacts, ServiceFacts, Status,
    SubjectFacts,
};
pub use issue::{Denial, Grant, decide_issue};
pub use question::{Action, CredentialKind, Entity, Part, Properties, Question, QuestionError, SubjectKind};
pub use schema::{BASE_SCHEMA, Misfit};
