//! Why a folder of policies is no bundle.

use super::bundle::{Bundle, BundleSource, FileName};
use super::cases::Case;
use super::routes::{RouteError, Routes};

/// Why a bundle is refused. Each has a stable code and words for an operator, who wrote what they quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// All texts together.
    #[error("the bundle has {bytes} bytes, more than {}", BundleSource::MAX_BYTES)]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// Files.
    #[error("the bundle has {count} files, more than {}", BundleSource::MAX_FILES)]
    TooManyFiles {
        /// How many.
        count: usize,
    },
    /// No policy at all would deny everything, the issuing of credentials included.
    #[error("the bundle has no policy")]
    NoPolicy,
    /// Policies.
    #[error("the bundle has {count} policies, more than {}", Bundle::MAX_POLICIES)]
    TooManyPolicies {
        /// How many.
        count: usize,
    },
    /// One policy.
    #[error("a policy in `{file}` has {bytes} bytes, more than {}", Bundle::MAX_POLICY)]
    PolicyTooLarge {
        /// Where.
        file: FileName,
        /// How many.
        bytes: usize,
    },
    /// Brackets in brackets.
    #[error("`{file}`, line {line}: brackets and `if`s are nested too deeply")]
    Nested {
        /// Where.
        file: FileName,
        /// From 1.
        line: usize,
    },
    /// A long chain of operators.
    #[error(
        "policy `{policy}`: its conditions are more than {} operators deep; use a set, or several policies",
        Bundle::MAX_DEPTH
    )]
    TooDeep {
        /// Which.
        policy: String,
    },
    /// No Cedar.
    #[error("`{file}` is no Cedar: {detail}")]
    Unparsable {
        /// Where.
        file: FileName,
        /// Cedar's words.
        detail: String,
    },
    /// Templates are for links, of which a bundle has none.
    #[error("`{file}` has a template (`?principal` or `?resource`)")]
    Template {
        /// Where.
        file: FileName,
    },
    /// A policy without a name.
    #[error("a policy in `{file}` has no `@id(\"…\")`: {text}")]
    NoId {
        /// Where.
        file: FileName,
        /// How it begins.
        text: String,
    },
    /// Its name is none.
    #[error("`{file}`: `@id(\"{id}\")` is no name")]
    BadId {
        /// Where.
        file: FileName,
        /// What it has.
        id: String,
    },
    /// Two policies of one name.
    #[error("two policies have the id `{id}`")]
    SameId {
        /// Which.
        id: String,
    },
    /// An annotation that says nothing here.
    #[error("policy `{policy}`: `@{annotation}` is none of @id, @doc, @accepts and @fresh")]
    UnknownAnnotation {
        /// Which.
        policy: String,
        /// What it has.
        annotation: String,
    },
    /// An annotation of a permit on a forbid: a forbid always counts.
    #[error("policy `{policy}` is a forbid, which always counts: it cannot have `@{annotation}`")]
    AnnotationOnForbid {
        /// Which.
        policy: String,
        /// What it has.
        annotation: &'static str,
    },
    /// `@accepts` names something that is no status.
    #[error(
        "policy `{policy}`: `@accepts` names `{word}`, and a status is warning, stale, unknown, contraindicated, \
         blocked or unattested"
    )]
    BadAccepts {
        /// Which.
        policy: String,
        /// The word.
        word: String,
    },
    /// `@fresh` is no number of seconds.
    #[error("policy `{policy}`: `@fresh(\"{value}\")` is no number of seconds from 1 to 86400")]
    BadFresh {
        /// Which.
        policy: String,
        /// What it has.
        value: String,
    },
    /// `@doc` is too long.
    #[error("policy `{policy}`: `@doc` has {bytes} bytes, more than {}", Bundle::MAX_DOC)]
    DocTooLong {
        /// Which.
        policy: String,
        /// How many.
        bytes: usize,
    },
    /// Cedar's validator refuses a policy.
    #[error("policy `{policy}` does not fit the schema: {detail}")]
    PolicyInvalid {
        /// Which.
        policy: String,
        /// The validator's words.
        detail: String,
    },
    /// The schema is no Cedar schema, or does not fit the base.
    #[error("the schema is refused: {detail}")]
    SchemaInvalid {
        /// Cedar's words.
        detail: String,
    },
    /// The namespace is ours.
    #[error("the schema declares something in the namespace `Rootbound`, which is the verifier's")]
    SchemaTouchesRootbound,
    /// The word is one of ours in questions.
    #[error("the schema declares the type `{name}`, which in a question is the verifier's own")]
    SchemaReservedType {
        /// Which.
        name: String,
    },
    /// A question names an action by its id alone.
    #[error("the schema declares the action `{name}`, which there is already")]
    SchemaActionTwice {
        /// Which.
        name: String,
    },
    /// What a policy may know is one record of ours and one of the caller's.
    #[error(
        "action `{action}`: its context has to be {{ attested: Rootbound::Attested, request: {{…}} }}, and {what}"
    )]
    SchemaContext {
        /// Which.
        action: String,
        /// What it is instead.
        what: String,
    },
    /// A name of ours in what the caller says.
    #[error("action `{action}`: `{path}` has the name of an attested fact, and the caller says it")]
    RequestDeclaresAttested {
        /// Which.
        action: String,
        /// Where.
        path: String,
    },
    /// Principals × actions × resources.
    #[error(
        "the schema has {count} combinations of principal, action and resource, more than {}",
        Bundle::MAX_ENVIRONMENTS
    )]
    TooManyEnvironments {
        /// How many, at least.
        count: usize,
    },
    /// Policies × combinations.
    #[error(
        "{policies} policies over {environments} combinations of principal, action and resource are too many to check"
    )]
    TooManyChecks {
        /// Policies.
        policies: usize,
        /// Combinations.
        environments: usize,
    },
    /// Entities that are no entities, or do not fit the schema.
    #[error("the entities are refused: {detail}")]
    EntitiesInvalid {
        /// Cedar's words.
        detail: String,
    },
    /// Parents of parents.
    #[error("the entities have more than {} parents, those of parents included", Bundle::MAX_ANCESTORS)]
    EntitiesTooRelated,
    /// A text or a set of an entity is longer than a request's may be.
    #[error(
        "an attribute of {entity} has a text of more than {} bytes, or a set of more than {} members",
        super::schema::MAX_TEXT,
        super::question::Question::MAX_MEMBERS
    )]
    EntityTooLarge {
        /// Which.
        entity: String,
    },
    /// Machines are known by what they prove.
    #[error("the entities declare {entity}: what is known of it is the verifier's")]
    EntityReserved {
        /// Which.
        entity: String,
    },
    /// Valid, and too slow.
    #[error(
        "the policies for `{action}` cost up to {cost} steps a decision, more than {}: \
         fewer or shorter policies, or fewer wildcards",
        Bundle::MAX_COST
    )]
    TooSlow {
        /// For which action.
        action: String,
        /// Steps.
        cost: u64,
    },
    /// Cases that are no cases.
    #[error("`{file}` has no cases: {detail}")]
    CaseUnparsable {
        /// Where.
        file: FileName,
        /// Why.
        detail: String,
    },
    /// Cases.
    #[error("the bundle has {count} cases, more than {}", Case::MAX)]
    TooManyCases {
        /// How many.
        count: usize,
    },
    /// `routes.toml` is no table of routes.
    #[error("`routes.toml`: {detail}")]
    RoutesUnparsable {
        /// Where, and what is wrong.
        detail: String,
    },
    /// Routes.
    #[error("`routes.toml` has {count} routes, more than {}", Routes::MAX)]
    TooManyRoutes {
        /// How many.
        count: usize,
    },
    /// A route.
    #[error("`routes.toml`, route {number}: {error}")]
    Route {
        /// Which, from 1.
        number: usize,
        /// Why.
        error: RouteError,
    },
}

impl BundleError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "bundle_too_large",
            Self::TooManyFiles { .. } => "bundle_too_many_files",
            Self::NoPolicy => "bundle_without_policy",
            Self::TooManyPolicies { .. } => "bundle_too_many_policies",
            Self::PolicyTooLarge { .. } => "policy_too_large",
            Self::Nested { .. } => "bundle_nested_too_deeply",
            Self::TooDeep { .. } => "policy_too_deep",
            Self::Unparsable { .. } => "policy_unparsable",
            Self::Template { .. } => "policy_template",
            Self::NoId { .. } => "policy_id_missing",
            Self::BadId { .. } => "policy_id_invalid",
            Self::SameId { .. } => "policy_id_twice",
            Self::UnknownAnnotation { .. } => "annotation_unknown",
            Self::AnnotationOnForbid { .. } => "annotation_on_forbid",
            Self::BadAccepts { .. } => "annotation_accepts_invalid",
            Self::BadFresh { .. } => "annotation_fresh_invalid",
            Self::DocTooLong { .. } => "annotation_doc_too_long",
            Self::PolicyInvalid { .. } => "policy_invalid",
            Self::SchemaInvalid { .. } => "schema_invalid",
            Self::SchemaTouchesRootbound => "schema_touches_rootbound",
            Self::SchemaReservedType { .. } => "schema_type_reserved",
            Self::SchemaActionTwice { .. } => "schema_action_twice",
            Self::SchemaContext { .. } => "schema_context_invalid",
            Self::RequestDeclaresAttested { .. } => "request_declares_attested",
            Self::TooManyEnvironments { .. } => "schema_too_many_combinations",
            Self::TooManyChecks { .. } => "bundle_too_many_checks",
            Self::EntitiesInvalid { .. } => "entities_invalid",
            Self::EntitiesTooRelated => "entities_too_related",
            Self::EntityTooLarge { .. } => "entity_too_large",
            Self::EntityReserved { .. } => "entity_reserved",
            Self::TooSlow { .. } => "bundle_too_slow",
            Self::CaseUnparsable { .. } => "case_invalid",
            Self::TooManyCases { .. } => "bundle_too_many_cases",
            Self::RoutesUnparsable { .. } => "routes_unparsable",
            Self::TooManyRoutes { .. } => "routes_too_many",
            Self::Route { error, .. } => error.code(),
        }
    }
}
