//! Slices: of a bundle, the policies that can say anything about a principal's type, an action and a resource's type.
//!
//! Cedar's typechecker finds them: the combinations for which a policy is not plainly false. So the cost of a decision
//! grows with the policies for one action, and not with the bundle.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cedar_policy::{EntityTypeName, EntityUid, PolicyId, PolicySet};

use super::bundle::{Bundle, Rule};
use super::error::BundleError;
use super::facts::FactSet;
use super::schema::{JoinedSchema, TypeIndex};

/// A combination of types, by their places in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Environment {
    pub(super) principal: TypeIndex,
    pub(super) action: u32,
    pub(super) resource: TypeIndex,
}

/// The policies for a combination.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) policies: PolicySet,
    pub(super) rules: HashMap<PolicyId, Arc<Rule>>,
    /// What they look at: nothing else is handed to them.
    pub(super) reads: FactSet,
}

impl Slice {
    pub(super) fn permits(&self) -> bool {
        self.rules.values().any(|rule| !rule.forbids)
    }
}

/// One slice for each combination that the schema allows; combinations with the same policies share theirs.
pub(super) fn slices(
    rules: &[Arc<Rule>],
    schema: &JoinedSchema,
) -> Result<HashMap<Environment, Arc<Slice>>, BundleError> {
    let types: BTreeMap<_, _> = schema.types.values().map(|(index, name)| (name, *index)).collect();
    let actions: BTreeMap<_, _> = schema.actions.values().map(|action| (&action.uid, action.index)).collect();
    let place = |principal: &EntityTypeName, action: &EntityUid, resource: &EntityTypeName| {
        Some(Environment {
            principal: *types.get(principal)?,
            action: *actions.get(action)?,
            resource: *types.get(resource)?,
        })
    };
    let mut members: HashMap<Environment, Vec<usize>> = schema
        .schema
        .request_envs()
        .filter_map(|one| Some((place(one.principal(), one.action(), one.resource())?, Vec::new())))
        .collect();
    for (index, rule) in rules.iter().enumerate() {
        for one in rule.policy.get_valid_request_envs(&schema.schema) {
            let environment = place(one.principal(), one.action(), one.resource());
            if let Some(members) = environment.and_then(|environment| members.get_mut(&environment)) {
                members.push(index);
            }
        }
    }
    let mut made: HashMap<Vec<usize>, Arc<Slice>> = HashMap::new();
    let mut slices = HashMap::with_capacity(members.len());
    for (environment, members) in members {
        let slice = match made.get(&members) {
            Some(slice) => Arc::clone(slice),
            None => {
                let of: Vec<_> = members.iter().filter_map(|index| rules.get(*index)).collect();
                let cost = of.iter().map(|rule| rule.cost).fold(0, u64::saturating_add);
                if cost > Bundle::MAX_COST {
                    let named = schema.actions.iter().find(|(_, action)| action.index == environment.action);
                    let action = named.map(|(name, _)| name.clone()).unwrap_or_default();
                    return Err(BundleError::TooSlow { action, cost });
                }
                let slice = Arc::new(of_rules(&of)?);
                made.insert(members, Arc::clone(&slice));
                slice
            }
        };
        slices.insert(environment, slice);
    }
    Ok(slices)
}

fn of_rules(rules: &[&Arc<Rule>]) -> Result<Slice, BundleError> {
    let policies = PolicySet::from_policies(rules.iter().map(|rule| rule.policy.clone()))
        .map_err(|error| BundleError::PolicyInvalid { policy: String::new(), detail: error.to_string() })?;
    Ok(Slice {
        policies,
        rules: rules.iter().map(|rule| (rule.policy.id().clone(), Arc::clone(rule))).collect(),
        reads: rules.iter().map(|rule| rule.reads).fold(FactSet::NONE, FactSet::and),
    })
}
