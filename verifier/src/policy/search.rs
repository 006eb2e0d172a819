//! What a bundle knows by name: where a search looks.

use std::collections::BTreeSet;

use super::bundle::Bundle;
use super::question::Question;
use super::schema::RequestShape;
use super::slice::Environment;

impl Bundle {
    /// The actions that its schema declares for a subject of one type and a resource of another, and that any policy permits
    /// there, in their order.
    #[must_use]
    pub fn actions_between(&self, subject_type: &str, resource_type: &str) -> Vec<&str> {
        let types = &self.schema.types;
        let (Some((principal, _)), Some((resource, _))) = (types.get(subject_type), types.get(resource_type))
        else {
            return Vec::new();
        };
        let declared = self.schema.actions.iter().filter(|(_, action)| {
            let environment =
                Environment { principal: *principal, action: action.index, resource: *resource };
            self.environments.get(&environment).is_some_and(|slice| slice.permits())
        });
        declared.map(|(name, _)| name.as_str()).collect()
    }

    /// A question as far as the schema declares what the caller says with it: of an action that it does not have, nothing.
    #[must_use]
    pub fn declared(&self, question: &Question) -> Question {
        let none = RequestShape::default();
        let action = self.schema.actions.get(&question.action().name);
        action.map_or(&none, |action| &action.request).declared(question)
    }

    /// Ids of the entities of a type in its data, later than `after`, the first `most` in their order.
    #[must_use]
    pub fn entities_of(&self, kind: &str, after: Option<&str>, most: usize) -> Vec<String> {
        let Some((_, kind)) = self.schema.types.get(kind) else { return Vec::new() };
        let mut found = BTreeSet::new();
        for uid in self.entities.iter().map(cedar_policy::Entity::uid) {
            let id: &str = uid.id().as_ref();
            if uid.type_name() == kind && after.is_none_or(|after| id > after) {
                found.insert(id.to_owned());
                if found.len() > most {
                    found.pop_last();
                }
            }
        }
        found.into_iter().collect()
    }
}
