//! Bundles: a folder of policies, compiled once and decided by for as long as it is active.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{Authorizer, Effect, Entities, EntityUid, Policy, PolicySet, ValidationMode, Validator};
use rootbound_common::crypto::sha256;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::asking::Asked;
use super::cases::{Case, CaseReport};
use super::cost::{cost, depth, reads};
use super::error::BundleError;
use super::facts::{FactSet, Status};
use super::question::Question;
use super::routes::Routes;
use super::scan::{Refused, Text, scan};
use super::schema::{JoinedSchema, MAX_TEXT};
use super::slice::{Environment, Slice, slices};
use super::stack::{FOR_ANY_POLICY, on_stack_of};
use crate::node::Name;
use crate::reference::Versioned;

/// The name of a file of a bundle: no path, so that it cannot leave its folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

/// Why a text is no name of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a file of a bundle has a name of 1 to 100 characters of a-z, A-Z, 0-9, '.', '_' and '-', and no dot first"
)]
pub struct BadFileName;

impl FileName {
    pub(super) fn schema() -> Self {
        Self("schema.cedarschema".to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = BadFileName;

    fn from_str(text: &str) -> Result<Self, BadFileName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = !text.is_empty() && text.len() <= 100 && !text.starts_with('.');
        if fits && text.bytes().all(allowed) { Ok(Self(text.to_owned())) } else { Err(BadFileName) }
    }
}

impl TryFrom<String> for FileName {
    type Error = BadFileName;

    fn try_from(text: String) -> Result<Self, BadFileName> {
        text.parse()
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The texts of a bundle, as they lie in its folder. Nothing is established of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleSource {
    /// `*.cedar`.
    pub policies: BTreeMap<FileName, String>,
    /// `schema.cedarschema`: the operator's own types and actions.
    #[serde(default)]
    pub schema: Option<String>,
    /// `entities.json`: the operator's data.
    #[serde(default)]
    pub entities: Option<String>,
    /// `routes.toml`: what requests to services do, for gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<String>,
    /// `tests/*.json`.
    #[serde(default)]
    pub cases: BTreeMap<FileName, String>,
}

impl BundleSource {
    /// Bytes of all texts together. The largest policy sets that are published have a tenth of it.
    pub const MAX_BYTES: usize = 1 << 20;
    /// Files.
    pub const MAX_FILES: usize = 1_000;

    /// SHA-256 over every file, with its kind, name and length.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut add = |kind: &str, name: &str, text: &str| {
            for part in [kind, name, text] {
                parts.push(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes().to_vec());
                parts.push(part.as_bytes().to_vec());
            }
        };
        self.policies.iter().for_each(|(name, text)| add("policies", name.as_str(), text));
        self.schema.iter().for_each(|text| add("schema", "", text));
        self.entities.iter().for_each(|text| add("entities", "", text));
        self.routes.iter().for_each(|text| add("routes", "", text));
        self.cases.iter().for_each(|(name, text)| add("cases", name.as_str(), text));
        sha256(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn bound(&self) -> Result<(), BundleError> {
        let texts = || {
            let options = self.schema.iter().chain(&self.entities).chain(&self.routes);
            self.policies.values().chain(self.cases.values()).chain(options)
        };
        let count = texts().count();
        if count > Self::MAX_FILES {
            return Err(BundleError::TooManyFiles { count });
        }
        let bytes = texts().map(String::len).sum();
        if bytes > Self::MAX_BYTES {
            return Err(BundleError::TooLarge { bytes });
        }
        Ok(())
    }
}

/// The `@id` of a policy. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A policy, and what its annotations say.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: PolicyName,
    pub(super) policy: Policy,
    pub(super) forbids: bool,
    pub(super) doc: Option<String>,
    /// Statuses that it accepts; a node that is affirming always.
    pub(super) accepts: BTreeSet<Status>,
    /// Seconds that the evidence may be old.
    pub(super) fresh: Option<u64>,
    pub(super) json: Value,
    pub(super) cost: u64,
    pub(super) reads: FactSet,
}

/// A compiled bundle: policies that fit their schema, each of them named and bounded. Only [`Bundle::compile`] makes it.
pub struct Bundle {
    pub(super) id: Arc<Versioned>,
    pub(super) schema: JoinedSchema,
    pub(super) entities: Entities,
    pub(super) environments: HashMap<Environment, Arc<Slice>>,
    pub(super) authorizer: Authorizer,
    pub(super) asked: Asked,
    routes: Routes,
    rules: Vec<Arc<Rule>>,
    cases: Vec<(FileName, Case)>,
    warnings: Vec<String>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("id", &self.id)
            .field("policies", &self.rules.len())
            .finish_non_exhaustive()
    }
}

impl Bundle {
    /// Policies.
    pub const MAX_POLICIES: usize = 2_000;
    /// Bytes of one policy, comments left out.
    pub const MAX_POLICY: usize = 16 << 10;
    /// Operators inside each other in a condition: evaluating takes stack for each, on whatever thread decides.
    pub const MAX_DEPTH: usize = 32;
    /// Bytes of `@doc`.
    pub const MAX_DOC: usize = 1_024;
    /// Seconds that `@fresh` may say: a day.
    pub const MAX_FRESH: u64 = 86_400;
    /// Principals × actions × resources.
    pub const MAX_ENVIRONMENTS: usize = 4_096;
    /// Policies × combinations: each is typechecked at each, which takes some 20 µs.
    pub const MAX_CHECKS: usize = 200_000;
    /// Ancestors of all entities: Cedar keeps each of each.
    pub const MAX_ANCESTORS: usize = 200_000;
    /// Steps of a decision, at the worst request that there can be: some 10 ms.
    pub const MAX_COST: u64 = 200_000;

    /// The policies that hold until a bundle is activated.
    pub fn builtin() -> Result<Self, BundleError> {
        Self::compile(Versioned { name: Name::builtin(), version: 1 }, Self::builtin_source())
    }

    /// Its texts, to be shown and copied.
    #[must_use]
    pub fn builtin_source() -> BundleSource {
        let file = |name: &str, text: &str| (FileName(name.to_owned()), text.to_owned());
        BundleSource {
            policies: BTreeMap::from([file("builtin.cedar", include_str!("builtin/builtin.cedar"))]),
            cases: BTreeMap::from([file("builtin.json", include_str!("builtin/cases.json"))]),
            ..BundleSource::default()
        }
    }

    /// Compiles a bundle.
    ///
    /// Established when this returns, in this order: the texts are bounded, in bytes and in nesting · the schema stays out of
    /// our namespace, fits the base, and gives each action `attested` of our type and a `request` without a name of ours ·
    /// every policy parses, has an id of its own and annotations that are known · every policy fits the schema, strictly ·
    /// the entities fit it, too, and none of them is a machine · no decision costs more than it may · the routes are of actions
    /// of the schema, and no two are for the same requests · the cases parse. Whether they pass, [`Bundle::run_cases`] says.
    pub fn compile(id: Versioned, source: BundleSource) -> Result<Self, BundleError> {
        source.bound()?;
        on_stack_of(FOR_ANY_POLICY, || Self::compile_bounded(id, &source))
    }

    fn compile_bounded(id: Versioned, source: &BundleSource) -> Result<Self, BundleError> {
        let schema = JoinedSchema::join(source.schema.as_deref())?;
        let combinations =
            schema.schema.request_envs().take(Self::MAX_ENVIRONMENTS.saturating_add(1)).count();
        if combinations > Self::MAX_ENVIRONMENTS {
            return Err(BundleError::TooManyEnvironments { count: combinations });
        }
        let rules = rules(&source.policies)?;
        if rules.len().saturating_mul(combinations) > Self::MAX_CHECKS {
            return Err(BundleError::TooManyChecks { policies: rules.len(), environments: combinations });
        }
        let mut warnings = validate(&rules, &schema)?;
        let entities = entities(source.entities.as_deref(), &schema)?;
        let environments = slices(&rules, &schema)?;
        let issues = |(environment, slice): (&Environment, &Arc<Slice>)| {
            schema.actions.get("IssueCredential").is_some_and(|action| action.index == environment.action)
                && slice.permits()
        };
        if !environments.iter().any(issues) {
            warnings.push("no policy permits IssueCredential: no node gets a credential".to_owned());
        }
        let routes = Routes::read(source.routes.as_deref(), &schema, &environments)?;
        let cases = Case::parse_all(&source.cases)?;
        Ok(Self {
            id: Arc::new(id),
            schema,
            entities,
            environments,
            authorizer: Authorizer::new(),
            asked: Asked::default(),
            routes,
            rules,
            cases,
            warnings,
        })
    }

    /// Which it is.
    #[must_use]
    pub fn id(&self) -> &Versioned {
        &self.id
    }

    /// What requests to services do.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The names of its policies.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyName> {
        self.rules.iter().map(|rule| &rule.name)
    }

    /// What may be a mistake, in words: a policy that never applies, say.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Runs the cases that lie beside the policies.
    #[must_use]
    pub fn run_cases(&self) -> Vec<CaseReport> {
        self.cases.iter().map(|(file, case)| case.run(file, self)).collect()
    }

    /// All policies as one set, for those who want to know what slicing changes.
    #[must_use]
    pub fn whole(&self) -> PolicySet {
        PolicySet::from_policies(self.rules.iter().map(|rule| rule.policy.clone())).unwrap_or_default()
    }
}

#[cfg(test)]
impl Bundle {
    pub(super) fn all_rules(&self) -> HashMap<cedar_policy::PolicyId, Arc<Rule>> {
        self.rules.iter().map(|rule| (rule.policy.id().clone(), Arc::clone(rule))).collect()
    }
}

fn rules(files: &BTreeMap<FileName, String>) -> Result<Vec<Arc<Rule>>, BundleError> {
    let mut rules = Vec::new();
    let mut ids = BTreeSet::new();
    for (file, text) in files {
        scan(text, Text::Policies).map_err(|refused| match refused {
            Refused::Nesting(line) => BundleError::Nested { file: file.clone(), line },
            Refused::Length(bytes) => BundleError::PolicyTooLarge { file: file.clone(), bytes },
        })?;
        let parsed = PolicySet::from_str(text)
            .map_err(|error| BundleError::Unparsable { file: file.clone(), detail: error.to_string() })?;
        if parsed.templates().next().is_some() {
            return Err(BundleError::Template { file: file.clone() });
        }
        let count = rules.len().saturating_add(parsed.num_of_policies());
        if count > Bundle::MAX_POLICIES {
            return Err(BundleError::TooManyPolicies { count });
        }
        for policy in parsed.policies() {
            let rule = rule(file, policy)?;
            if !ids.insert(rule.name.clone()) {
                return Err(BundleError::SameId { id: rule.name.to_string() });
            }
            rules.push(rule);
        }
    }
    if rules.is_empty() {
        return Err(BundleError::NoPolicy);
    }
    rules.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(rules.into_iter().map(Arc::new).collect())
}

fn rule(file: &FileName, policy: &Policy) -> Result<Rule, BundleError> {
    let id = policy.annotation("id").ok_or_else(|| BundleError::NoId {
        file: file.clone(),
        text: policy.to_string().split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect(),
    })?;
    let name = id
        .parse::<Name>()
        .map_err(|_| BundleError::BadId { file: file.clone(), id: id.chars().take(80).collect() })?;
    let forbids = policy.effect() == Effect::Forbid;
    let id = id.to_owned();
    let mut accepts = BTreeSet::from([Status::Affirming]);
    let (mut fresh, mut doc) = (None, None);
    for (annotation, value) in policy.annotations() {
        match annotation {
            "id" => {}
            "doc" if value.len() > Bundle::MAX_DOC => {
                return Err(BundleError::DocTooLong { policy: id, bytes: value.len() });
            }
            "doc" => doc = Some(value.to_owned()),
            "accepts" | "fresh" if forbids => {
                let annotation = if annotation == "fresh" { "fresh" } else { "accepts" };
                return Err(BundleError::AnnotationOnForbid { policy: id, annotation });
            }
            "accepts" => {
                for word in value.split(',').map(str::trim) {
                    match Status::named(word).filter(|status| *status != Status::Affirming) {
                        Some(status) => accepts.insert(status),
                        None => {
                            let word = word.chars().take(80).collect();
                            return Err(BundleError::BadAccepts { policy: id, word });
                        }
                    };
                }
            }
            "fresh" => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let seconds =
                    value.parse().ok().filter(|seconds| digits && (1..=Bundle::MAX_FRESH).contains(seconds));
                if seconds.is_none() {
                    let value = value.chars().take(80).collect();
                    return Err(BundleError::BadFresh { policy: id, value });
                }
                fresh = seconds;
            }
            other => {
                let annotation = other.chars().take(80).collect();
                return Err(BundleError::UnknownAnnotation { policy: id, annotation });
            }
        }
    }
    let policy = policy.new_id(cedar_policy::PolicyId::new(name.as_str()));
    let json = policy
        .to_json()
        .map_err(|error| BundleError::PolicyInvalid { policy: id.clone(), detail: error.to_string() })?;
    if depth(&json) > Bundle::MAX_DEPTH {
        return Err(BundleError::TooDeep { policy: id });
    }
    let (cost, reads) = (cost(&json), reads(&json));
    let name = PolicyName(name.as_str().into());
    Ok(Rule { name, policy, forbids, doc, accepts, fresh, json, cost, reads })
}

/// Cedar's validator over all policies; its warnings are ours.
fn validate(rules: &[Arc<Rule>], schema: &JoinedSchema) -> Result<Vec<String>, BundleError> {
    let invalid = |policy: String, detail: String| BundleError::PolicyInvalid { policy, detail };
    let whole = PolicySet::from_policies(rules.iter().map(|rule| rule.policy.clone()))
        .map_err(|error| invalid(String::new(), error.to_string()))?;
    let result = Validator::new(schema.schema.clone()).validate(&whole, ValidationMode::Strict);
    if let Some(error) = result.validation_errors().next() {
        return Err(invalid(error.policy_id().to_string(), error.to_string()));
    }
    Ok(result.validation_warnings().map(ToString::to_string).collect())
}

fn entities(text: Option<&str>, schema: &JoinedSchema) -> Result<Entities, BundleError> {
    let invalid = |error: &dyn fmt::Display| BundleError::EntitiesInvalid { detail: error.to_string() };
    let text = text.unwrap_or("[]");
    let json: Value = serde_json::from_str(text).map_err(|error| invalid(&error))?;
    bound_ancestors(&json)?;
    bound_values(&json)?;
    let entities = Entities::from_json_str(text, Some(&schema.schema)).map_err(|error| invalid(&error))?;
    let ours = |uid: &EntityUid| {
        let kind = uid.type_name();
        kind.namespace() == "Rootbound" && !matches!(kind.basename(), "Resource" | "Action")
    };
    if let Some(uid) = entities.iter().map(cedar_policy::Entity::uid).find(ours) {
        return Err(BundleError::EntityReserved { entity: uid.to_string() });
    }
    Ok(entities)
}

/// The cost of a decision is reckoned by the longest text and the largest set that a request may have: the operator's own data
/// have none that are larger.
fn bound_values(entities: &Value) -> Result<(), BundleError> {
    for entity in entities.as_array().into_iter().flatten() {
        let mut open: Vec<&Value> =
            ["attrs", "tags"].into_iter().filter_map(|member| entity.get(member)).collect();
        while let Some(value) = open.pop() {
            let fits = match value {
                Value::String(text) => text.len() <= MAX_TEXT,
                Value::Array(items) => {
                    open.extend(items);
                    items.len() <= Question::MAX_MEMBERS
                }
                Value::Object(members) => {
                    open.extend(members.values());
                    true
                }
                Value::Null | Value::Bool(_) | Value::Number(_) => true,
            };
            if !fits {
                let uid = entity.get("uid").map(ToString::to_string).unwrap_or_default();
                return Err(BundleError::EntityTooLarge { entity: uid.chars().take(200).collect() });
            }
        }
    }
    Ok(())
}

/// Cedar keeps every ancestor of every entity: a chain of ten thousand would be fifty million.
fn bound_ancestors(entities: &Value) -> Result<(), BundleError> {
    let key = |uid: &Value| {
        let uid = uid.get("__entity").unwrap_or(uid);
        format!("{}::{}", uid.get("type").unwrap_or(&Value::Null), uid.get("id").unwrap_or(&Value::Null))
    };
    let mut parents: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entity in entities.as_array().into_iter().flatten() {
        let of = entity.get("parents").and_then(Value::as_array).into_iter().flatten().map(key).collect();
        parents.insert(key(entity.get("uid").unwrap_or(&Value::Null)), of);
    }
    let mut total: usize = 0;
    for entity in parents.keys() {
        let mut seen = BTreeSet::new();
        let mut open = vec![entity];
        while let Some(next) = open.pop() {
            for parent in parents.get(next).into_iter().flatten() {
                if seen.insert(parent) {
                    total = total.saturating_add(1);
                    open.push(parent);
                }
                if total > Bundle::MAX_ANCESTORS {
                    return Err(BundleError::EntitiesTooRelated);
                }
            }
        }
    }
    Ok(())
}
