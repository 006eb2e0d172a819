//! The body of a request to the Authorization API.

use std::collections::BTreeSet;

use rootbound_token::json::{JsonError, MAX_DEPTH, read};
use serde_json::{Value, json};

use super::{Outcome, Target, with_trailing_byte};
use crate::mutate::mutate_json;
use crate::pool::Pool;
use rootbound_swtpm_tests::random::Random;

/// Each input is read strictly, beside a reader that is not strict.
pub(super) struct AccessTarget;

/// Values of one document.
const VALUES: usize = 1000;

impl Target for AccessTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let subject = json!({ "type": "node", "id": "ab".repeat(32), "properties": { "role": "admin" } });
        let one = json!({
            "subject": subject,
            "action": { "name": "write", "properties": { "soft": true } },
            "resource": { "type": "database", "id": "orders", "properties": { "size": -1.5e3 } },
            "context": { "ip": "192.0.2.1", "list": [1, null, "x"] },
        });
        let batch = json!({
            "subject": subject,
            "evaluations": [{ "resource": { "type": "record", "id": "1" } }, {}],
            "options": { "evaluations_semantic": "deny_on_first_deny" },
        });
        let search = json!({ "subject": { "type": "node" }, "page": { "token": "AAAA", "limit": 3 } });
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        let twice = r#"{"subject":{"type":"node","id":"a","id":"b"}}"#;
        let texts = [one.to_string(), batch.to_string(), search.to_string(), deep, twice.to_owned()];
        texts.map(String::into_bytes).into()
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        let lax = serde_json::from_slice::<Value>(input);
        match read(input, VALUES) {
            Ok(value) => {
                assert_eq!(lax.ok().as_ref(), Some(&value), "both readers understand the same");
                assert!(depth(&value) <= MAX_DEPTH, "no deeper than it may be");
                let text = value.to_string();
                assert!(read(text.as_bytes(), VALUES).is_ok(), "what was written is read");
                if matches!(value, Value::Object(_) | Value::Array(_)) {
                    let more = [input, b"x"].concat();
                    assert!(read(&more, VALUES).is_err(), "nothing may follow a document");
                }
                let names: BTreeSet<_> =
                    value.as_object().into_iter().flatten().map(|(name, _)| name).collect();
                Outcome { accepted: true, class: format!("{} {}", depth(&value), names.len().min(8)) }
            }
            Err(error) => {
                let class = match &error {
                    JsonError::Syntax(words) => {
                        assert!(lax.is_err(), "only what no reader takes has a wrong syntax: {words}");
                        assert!(read(&with_trailing_byte(input), VALUES).is_err());
                        words.split(" at line").next().unwrap_or_default().to_owned()
                    }
                    JsonError::DuplicateMember { .. } => "duplicate".to_owned(),
                    JsonError::TooDeep | JsonError::TooManyValues { .. } => format!("{error:?}"),
                };
                Outcome { accepted: false, class }
            }
        }
    }

    fn mutate(&self, pool: &Pool, random: &mut Random) -> Vec<u8> {
        // Some times the documents that are the longest of the seeds.
        const LIMIT: usize = 8 * 1024;
        mutate_json(pool, LIMIT, random)
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
