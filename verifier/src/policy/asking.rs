//! Whether a relying party may ask about somebody.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::bundle::Bundle;
use super::facts::{ServiceFacts, SubjectFacts};
use super::question::Question;

/// What a bundle said to relying parties that wanted to ask.
///
/// It is asked before each decision, and what it says rests on nothing that changes while it is in force: on its texts, on who
/// asks about whom, and on the configuration. Nothing is attested of a relying party, and the posture of whom it asks about
/// is not looked at. What is remembered goes with the bundle.
#[derive(Debug, Default)]
pub(super) struct Asked(RwLock<HashMap<Asking, bool>>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Asking {
    facts: ServiceFacts,
    service: String,
    kind: String,
    id: String,
}

/// Subjects that are remembered: some megabytes. With one more all are forgotten.
const MOST: usize = 1 << 15;
/// Bytes of a subject's id that is remembered: ours are shorter.
const LONGEST: usize = 128;

impl Bundle {
    /// Whether it permits a relying party to ask about the subject of a question.
    #[must_use]
    pub fn service_may_ask(&self, service: &str, facts: ServiceFacts, about: &Question) -> bool {
        let question = Question::ask(("service", service.to_owned()), about);
        let of = question.resource();
        let asking = Asking { facts, service: service.to_owned(), kind: of.kind.clone(), id: of.id.clone() };
        let Asked(asked) = &self.asked;
        if let Some(may) = asked.read().unwrap_or_else(PoisonError::into_inner).get(&asking) {
            return *may;
        }
        let may = self.decide(&question, &SubjectFacts::Service(facts)).allowed();
        if asking.id.len() <= LONGEST {
            let mut asked = asked.write().unwrap_or_else(PoisonError::into_inner);
            if asked.len() >= MOST {
                asked.clear();
            }
            asked.insert(asking, may);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::{BundleSource, Entity};
    use crate::reference::Versioned;

    fn bundle(policies: &str) -> Bundle {
        let file = "a.cedar".parse().unwrap();
        let policies = [(file, policies.to_owned())].into();
        let source = BundleSource { policies, ..BundleSource::default() };
        Bundle::compile(Versioned { name: "a".parse().unwrap(), version: 1 }, source).unwrap()
    }

    fn about(id: &str) -> Question {
        let entity = |kind: &str, id: &str| Entity {
            kind: kind.to_owned(),
            id: id.to_owned(),
            properties: serde_json::Map::default(),
        };
        let action = serde_json::from_value(json!({ "name": "read" })).unwrap();
        Question::of(entity("user", id), action, entity("record", "1"), serde_json::Map::default()).unwrap()
    }

    #[test]
    fn what_is_remembered_is_what_the_policies_say_of_each_caller_and_subject() {
        let bundle = bundle(
            r#"
            @id("issue") permit (principal, action == Rootbound::Action::"IssueCredential", resource);
            @id("ask") @accepts("unattested") permit (
                principal == Rootbound::Service::"gateway",
                action == Rootbound::Action::"Ask",
                resource
            ) when { resource != Rootbound::Subject::"user:mallory" && context.attested has may_signal && context.attested.may_signal };
            "#,
        );
        let signals = ServiceFacts { may_read: true, may_signal: true };
        let cases = [
            ("gateway", signals, "alice", true),
            ("gateway", signals, "mallory", false),
            ("gateway", ServiceFacts { may_signal: false, ..signals }, "alice", false),
            ("other", signals, "alice", false),
            ("gateway", signals, "alice", true),
        ];
        // The second time from memory.
        for (service, facts, id, expected) in cases.iter().chain(&cases) {
            assert_eq!(bundle.service_may_ask(service, *facts, &about(id)), *expected, "{service} {id}");
        }
        assert_eq!(bundle.asked.0.read().unwrap().len(), 4);
    }

    #[test]
    fn as_many_as_anybody_asks_about_take_some_megabytes() {
        let bundle = bundle(r#"@id("all") @accepts("unattested") permit (principal, action, resource);"#);
        let facts = ServiceFacts { may_read: true, may_signal: false };
        let remembered = || bundle.asked.0.read().unwrap().len();
        assert!(bundle.service_may_ask("gateway", facts, &about(&"x".repeat(LONGEST))));
        assert_eq!(remembered(), 0, "a long id");
        for number in 0..=MOST {
            bundle.asked.0.write().unwrap().insert(
                Asking { facts, service: String::new(), kind: String::new(), id: number.to_string() },
                true,
            );
        }
        assert!(bundle.service_may_ask("gateway", facts, &about("alice")));
        assert_eq!(remembered(), 1);
    }
}
