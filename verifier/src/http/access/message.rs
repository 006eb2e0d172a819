//! The messages of the Authorization API, out of JSON that was read.
//!
//! Members that are not known are ignored (1.0, "Transport"); those that are known have the type of the standard, or the
//! request is refused.

use std::io;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::policy::{Action, Entity, Question, QuestionError};

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// What a request lacks, or has of another type. The names are the standard's, never the caller's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The body, or an item of a batch, is no object.
    #[error("{0} is not an object")]
    NotAnObject(&'static str),
    /// It is not there.
    #[error("`{0}` is missing")]
    Missing(String),
    /// It is there.
    #[error("`{name}` is not {wanted}")]
    Type {
        /// Which.
        name: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A semantic that there is not.
    #[error(
        "`options.evaluations_semantic` is none of execute_all, deny_on_first_deny, permit_on_first_permit"
    )]
    Semantic,
    /// More items than a batch may have.
    #[error("a batch has at most {limit} evaluations")]
    TooManyEvaluations {
        /// How many it may have.
        limit: usize,
    },
    /// Defaults that each item would repeat.
    #[error("the defaults, repeated for each evaluation, have more than {limit} values")]
    DefaultsTooLarge {
        /// How many they may have.
        limit: usize,
    },
    /// Defaults that each item would repeat.
    #[error("the defaults, repeated for each evaluation, have more than {limit} bytes")]
    DefaultsTooLong {
        /// How many they may have.
        limit: usize,
    },
}

/// A subject or a resource, as far as it is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct PartialEntity {
    pub(super) kind: Option<String>,
    pub(super) id: Option<String>,
    pub(super) properties: Option<Object>,
}

/// An action, as far as it is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct PartialAction {
    pub(super) name: Option<String>,
    pub(super) properties: Option<Object>,
}

/// The four parts of a question, as far as they are there.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct PartialTuple {
    pub(super) subject: Option<PartialEntity>,
    pub(super) action: Option<PartialAction>,
    pub(super) resource: Option<PartialEntity>,
    pub(super) context: Option<Object>,
}

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tuple {
    pub(super) subject: Entity,
    pub(super) action: Action,
    pub(super) resource: Entity,
    pub(super) context: Object,
}

impl Tuple {
    /// As the policies take it.
    pub(super) fn question(self) -> Result<Question, QuestionError> {
        Question::of(self.subject, self.action, self.resource, self.context)
    }
}

impl PartialTuple {
    /// Takes the four parts out of an object.
    pub(super) fn take(object: &mut Object) -> Result<Self, Malformed> {
        Ok(Self {
            subject: PartialEntity::take(object, "subject")?,
            action: PartialAction::take(object)?,
            resource: PartialEntity::take(object, "resource")?,
            context: taken(object, "context", "", as_object)?,
        })
    }

    /// The parts of an item of a batch, and for those that it has not the default. A part replaces the default as a whole,
    /// save that `type`, `id` and `name`, where they are missing, are those of the default (scenario 1.0, 3.2.7).
    pub(super) fn or(self, defaults: &Self) -> Self {
        let entity = |own: Option<PartialEntity>, default: &Option<PartialEntity>| match (own, default) {
            (Some(own), Some(default)) => Some(PartialEntity {
                kind: own.kind.or_else(|| default.kind.clone()),
                id: own.id.or_else(|| default.id.clone()),
                properties: own.properties,
            }),
            (own, default) => own.or_else(|| default.clone()),
        };
        let action = match (self.action, &defaults.action) {
            (Some(own), Some(default)) => Some(PartialAction {
                name: own.name.or_else(|| default.name.clone()),
                properties: own.properties,
            }),
            (own, default) => own.or_else(|| default.clone()),
        };
        Self {
            subject: entity(self.subject, &defaults.subject),
            action,
            resource: entity(self.resource, &defaults.resource),
            context: self.context.or_else(|| defaults.context.clone()),
        }
    }

    /// The question, where nothing is missing.
    pub(super) fn complete(self) -> Result<Tuple, Malformed> {
        Ok(Tuple {
            subject: required(self.subject, "subject")?.complete("subject")?,
            action: required(self.action, "action")?.complete()?,
            resource: required(self.resource, "resource")?.complete("resource")?,
            context: self.context.unwrap_or_default(),
        })
    }

    /// How many values its properties and context have.
    fn values(&self) -> usize {
        let properties = [
            self.subject.as_ref().and_then(|subject| subject.properties.as_ref()),
            self.action.as_ref().and_then(|action| action.properties.as_ref()),
            self.resource.as_ref().and_then(|resource| resource.properties.as_ref()),
            self.context.as_ref(),
        ];
        properties.into_iter().flatten().flat_map(Map::values).map(values).sum()
    }

    /// How many bytes it has as JSON: its names, its properties and its context.
    fn bytes(&self) -> usize {
        let mut counted = Counted(0);
        serde_json::to_writer(&mut counted, self).map_or(usize::MAX, |()| counted.0)
    }
}

impl PartialEntity {
    fn take(object: &mut Object, name: &'static str) -> Result<Option<Self>, Malformed> {
        let Some(mut entity) = taken(object, name, "", as_object)? else { return Ok(None) };
        Ok(Some(Self {
            kind: taken(&mut entity, "type", name, as_string)?,
            id: taken(&mut entity, "id", name, as_string)?,
            properties: taken(&mut entity, "properties", name, as_object)?,
        }))
    }

    pub(super) fn complete(self, name: &'static str) -> Result<Entity, Malformed> {
        Ok(Entity {
            kind: required(self.kind, &format!("{name}.type"))?,
            id: required(self.id, &format!("{name}.id"))?,
            properties: self.properties.unwrap_or_default(),
        })
    }
}

impl PartialAction {
    fn take(object: &mut Object) -> Result<Option<Self>, Malformed> {
        let Some(mut action) = taken(object, "action", "", as_object)? else { return Ok(None) };
        Ok(Some(Self {
            name: taken(&mut action, "name", "action", as_string)?,
            properties: taken(&mut action, "properties", "action", as_object)?,
        }))
    }

    pub(super) fn complete(self) -> Result<Action, Malformed> {
        let name = required(self.name, "action.name")?;
        Ok(Action { name, properties: self.properties.unwrap_or_default() })
    }
}

/// When a batch ends (1.0, "Evaluations semantics").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Semantic {
    ExecuteAll,
    DenyOnFirstDeny,
    PermitOnFirstPermit,
}

/// A request for evaluations.
#[derive(Debug)]
pub(super) enum Evaluations {
    /// Without a list: one evaluation.
    One(Box<Tuple>),
    /// With one.
    Batch { items: Box<Items>, semantic: Semantic },
}

/// The items of a batch, as they came: the defaults are repeated for an item when it is its turn, and not before.
#[derive(Debug)]
pub(super) struct Items {
    items: Vec<Value>,
    defaults: PartialTuple,
}

impl Items {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The questions, each built when it is asked for.
    pub(super) fn tuples(self: Box<Self>) -> impl Iterator<Item = Result<Tuple, Malformed>> {
        let Self { items, defaults } = *self;
        items.into_iter().map(move |item| {
            let mut item = object(item, "the evaluation")?;
            PartialTuple::take(&mut item)?.or(&defaults).complete()
        })
    }
}

/// Items of a batch: a page of things to show has a hundred or two, and a thousand are decided in some milliseconds.
pub(super) const MAX_EVALUATIONS: usize = 1000;
/// Values of the defaults, repeated for each item: what 64 KB of items could say themselves, some times over.
const MAX_REPEATED: usize = 100_000;
/// Bytes of the defaults, repeated for each item: eight of the largest bodies, and 4 KB of defaults for a thousand items.
const MAX_REPEATED_BYTES: usize = 4 << 20;

impl Evaluations {
    pub(super) fn of(body: Value) -> Result<Self, Malformed> {
        let mut body = object(body, "the body")?;
        let defaults = PartialTuple::take(&mut body)?;
        let items = taken(&mut body, "evaluations", "", as_list)?.unwrap_or_default();
        let mut options = taken(&mut body, "options", "", as_object)?.unwrap_or_default();
        let semantic = match taken(&mut options, "evaluations_semantic", "options", as_string)?.as_deref() {
            None | Some("execute_all") => Semantic::ExecuteAll,
            Some("deny_on_first_deny") => Semantic::DenyOnFirstDeny,
            Some("permit_on_first_permit") => Semantic::PermitOnFirstPermit,
            Some(_) => return Err(Malformed::Semantic),
        };
        if items.is_empty() {
            return defaults.complete().map(Box::new).map(Self::One);
        }
        if items.len() > MAX_EVALUATIONS {
            return Err(Malformed::TooManyEvaluations { limit: MAX_EVALUATIONS });
        }
        if defaults.values().saturating_mul(items.len()) > MAX_REPEATED {
            return Err(Malformed::DefaultsTooLarge { limit: MAX_REPEATED });
        }
        if defaults.bytes().saturating_mul(items.len()) > MAX_REPEATED_BYTES {
            return Err(Malformed::DefaultsTooLong { limit: MAX_REPEATED_BYTES });
        }
        Ok(Self::Batch { items: Box::new(Items { items, defaults }), semantic })
    }
}

/// Which part of a search is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sought {
    Subject,
    Resource,
    Action,
}

/// Stands in the question for what is looked for.
const SOUGHT: &str = "?";

/// A page of results that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PageAsked {
    /// From the page before; empty is the first page.
    pub(super) token: Option<String>,
    /// Results at most.
    pub(super) limit: Option<u64>,
}

/// The single question of `POST /access/v1/evaluation`.
pub(super) fn evaluation(body: Value) -> Result<Tuple, Malformed> {
    PartialTuple::take(&mut object(body, "the body")?)?.complete()
}

/// A search: a question whose sought part has no name yet, and a page.
pub(super) fn search(body: Value, sought: Sought) -> Result<(Tuple, PageAsked), Malformed> {
    let mut body = object(body, "the body")?;
    if sought == Sought::Action {
        // It is left out, and ignored where it is not (1.0, "The Action Search API Request").
        body.remove("action");
    }
    let mut asked = PartialTuple::take(&mut body)?;
    match sought {
        Sought::Subject => {
            asked.subject =
                asked.subject.map(|subject| PartialEntity { id: Some(SOUGHT.to_owned()), ..subject });
        }
        Sought::Resource => {
            asked.resource =
                asked.resource.map(|resource| PartialEntity { id: Some(SOUGHT.to_owned()), ..resource });
        }
        Sought::Action => {
            asked.action = Some(PartialAction { name: Some(SOUGHT.to_owned()), properties: None })
        }
    }
    let mut page = taken(&mut body, "page", "", as_object)?.unwrap_or_default();
    let token = taken(&mut page, "token", "page", as_string)?.filter(|token| !token.is_empty());
    let limit = taken(&mut page, "limit", "page", as_count)?;
    Ok((asked.complete()?, PageAsked { token, limit }))
}

/// How many values there are in one. What was read is not nested deeply.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(values).sum(),
        Value::Object(members) => members.values().map(values).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Counts what is written, and keeps none of it.
struct Counted(usize);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn required<T>(part: Option<T>, name: &str) -> Result<T, Malformed> {
    part.ok_or_else(|| Malformed::Missing(name.to_owned()))
}

/// Takes a member of an object, where there is one, which then has to be of a type.
fn taken<T>(
    object: &mut Object,
    name: &'static str,
    of: &'static str,
    typed: fn(Value) -> Typed<T>,
) -> Result<Option<T>, Malformed> {
    let Some(value) = object.remove(name) else { return Ok(None) };
    match typed(value) {
        Typed::Is(value) => Ok(Some(value)),
        Typed::Not(wanted) => {
            let name = if of.is_empty() { name.to_owned() } else { format!("{of}.{name}") };
            Err(Malformed::Type { name, wanted })
        }
    }
}

/// A value of a type, or the name of that type.
enum Typed<T> {
    Is(T),
    Not(&'static str),
}

fn as_object(value: Value) -> Typed<Object> {
    match value {
        Value::Object(members) => Typed::Is(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Typed::Not("an object")
        }
    }
}

fn as_list(value: Value) -> Typed<Vec<Value>> {
    match value {
        Value::Array(list) => Typed::Is(list),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Typed::Not("an array")
        }
    }
}

fn as_string(value: Value) -> Typed<String> {
    match value {
        Value::String(text) => Typed::Is(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Typed::Not("a string")
        }
    }
}

fn as_count(value: Value) -> Typed<u64> {
    value.as_u64().filter(|count| *count > 0).map_or(Typed::Not("a positive integer"), Typed::Is)
}

/// The body, or an item of a batch.
fn object(value: Value, what: &'static str) -> Result<Object, Malformed> {
    match as_object(value) {
        Typed::Is(members) => Ok(members),
        Typed::Not(_) => Err(Malformed::NotAnObject(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked() -> Value {
        json!({
            "subject": { "type": "user", "id": "alice" },
            "action": { "name": "read" },
            "resource": { "type": "record", "id": "record-1" }
        })
    }

    fn without(path: &[&str]) -> Value {
        let mut body = asked();
        let (last, above) = path.split_last().unwrap();
        let parent = above.iter().fold(&mut body, |value, name| &mut value[name]);
        parent.as_object_mut().unwrap().remove(*last).unwrap();
        body
    }

    #[test]
    fn what_is_missing_is_named() {
        for path in [
            &["subject"][..],
            &["action"],
            &["resource"],
            &["subject", "type"],
            &["subject", "id"],
            &["action", "name"],
            &["resource", "type"],
            &["resource", "id"],
        ] {
            assert_eq!(evaluation(without(path)), Err(Malformed::Missing(path.join("."))));
        }
        assert_eq!(evaluation(json!([])), Err(Malformed::NotAnObject("the body")));
        assert!(evaluation(asked()).is_ok());
    }

    #[test]
    fn what_has_another_type_is_named() {
        for (path, value, wanted) in [
            (&["subject"][..], json!("alice"), "an object"),
            (&["subject", "id"], json!(null), "a string"),
            (&["action", "name"], json!(123), "a string"),
            (&["resource", "properties"], json!([]), "an object"),
            (&["context"], json!("x"), "an object"),
        ] {
            let mut body = asked();
            *path.iter().fold(&mut body, |value, name| &mut value[name]) = value;
            let name = path.join(".");
            assert_eq!(evaluation(body), Err(Malformed::Type { name, wanted }));
        }
    }

    #[test]
    fn items_replace_defaults_as_wholes_but_for_names() {
        let body = json!({
            "subject": { "type": "user", "id": "alice", "properties": { "role": "admin" } },
            "action": { "name": "read", "properties": { "soft": true } },
            "resource": { "type": "record" },
            "context": { "ip": "192.0.2.1" },
            "evaluations": [
                { "subject": { "id": "bob" }, "resource": { "id": "1" }, "action": {}, "context": {} },
                { "resource": { "type": "file", "id": "2" } },
                {},
                { "subject": 1 },
                7
            ]
        });
        let Evaluations::Batch { items, semantic } = Evaluations::of(body).unwrap() else {
            panic!("a batch")
        };
        assert_eq!((semantic, items.len()), (Semantic::ExecuteAll, 5));
        let items: Vec<_> = items.tuples().collect();
        let first = items[0].as_ref().unwrap();
        assert_eq!((first.subject.kind.as_str(), first.subject.id.as_str()), ("user", "bob"));
        assert!(first.subject.properties.is_empty() && first.action.properties.is_empty());
        assert!(first.context.is_empty());
        assert_eq!(first.action.name, "read");
        let second = items[1].as_ref().unwrap();
        assert_eq!((second.subject.id.as_str(), second.resource.kind.as_str()), ("alice", "file"));
        assert_eq!(second.subject.properties["role"], "admin");
        assert_eq!(second.context["ip"], "192.0.2.1");
        assert_eq!(items[2], Err(Malformed::Missing("resource.id".to_owned())));
        assert!(matches!(items[3], Err(Malformed::Type { .. })));
        assert_eq!(items[4], Err(Malformed::NotAnObject("the evaluation")));
    }

    #[test]
    fn a_batch_is_bounded_in_items_and_in_what_its_defaults_come_to() {
        let batch = |count: usize, context: Value| {
            let mut body = asked();
            body["context"] = context;
            body["evaluations"] = Value::from(vec![json!({}); count]);
            Evaluations::of(body)
        };
        assert!(batch(MAX_EVALUATIONS, json!({})).is_ok());
        for count in [MAX_EVALUATIONS + 1, 10_000] {
            let refused = batch(count, json!({})).unwrap_err();
            assert_eq!(refused, Malformed::TooManyEvaluations { limit: MAX_EVALUATIONS });
        }
        let large = json!({ "list": vec![0; 2000] });
        assert!(batch(10, large.clone()).is_ok());
        assert_eq!(batch(100, large).unwrap_err(), Malformed::DefaultsTooLarge { limit: MAX_REPEATED });
    }

    /// What each item would repeat: a body of half a megabyte must not become half a gigabyte.
    #[test]
    fn defaults_are_bounded_in_bytes_whatever_they_have_them_in() {
        type Grow = fn(&mut Value, usize);
        let grow: [(&str, Grow); 7] = [
            ("a string", |body, bytes| body["context"] = json!({ "text": "x".repeat(bytes) })),
            ("a member's name", |body, bytes| body["context"] = json!({ "x".repeat(bytes): 1 })),
            ("a list", |body, bytes| {
                body["context"] = json!({ "list": vec!["x".repeat(bytes / 8); 8] });
            }),
            ("an id", |body, bytes| body["resource"]["id"] = json!("x".repeat(bytes))),
            ("a type", |body, bytes| body["subject"]["type"] = json!("x".repeat(bytes))),
            ("an action", |body, bytes| body["action"]["name"] = json!("x".repeat(bytes))),
            ("properties", |body, bytes| {
                body["subject"]["properties"] = json!({ "text": "x".repeat(bytes) });
            }),
        ];
        let batch = |grow: Grow, bytes: usize, count: usize| {
            let mut body = asked();
            grow(&mut body, bytes);
            body["evaluations"] = Value::from(vec![json!({}); count]);
            Evaluations::of(body)
        };
        let refused = Malformed::DefaultsTooLong { limit: MAX_REPEATED_BYTES };
        for (what, grow) in grow {
            for (bytes, count) in [(500_000, MAX_EVALUATIONS), (5_000, MAX_EVALUATIONS), (500_000, 9)] {
                assert_eq!(batch(grow, bytes, count).unwrap_err(), refused, "{what}");
            }
            assert!(batch(grow, 3_000, MAX_EVALUATIONS).is_ok(), "{what}");
            assert!(batch(grow, 500_000, 8).is_ok(), "{what}");
        }
    }

    #[test]
    fn defaults_count_as_they_are_written() {
        let mut body = asked();
        body["context"] = json!({ "a": [1, "\u{e9}\n"] });
        let written = serde_json::to_vec(&json!({
            "subject": { "kind": "user", "id": "alice", "properties": null },
            "action": { "name": "read", "properties": null },
            "resource": { "kind": "record", "id": "record-1", "properties": null },
            "context": { "a": [1, "\u{e9}\n"] },
        }));
        let defaults = PartialTuple::take(body.as_object_mut().unwrap()).unwrap();
        assert_eq!(defaults.bytes(), written.unwrap().len());
    }

    #[test]
    fn without_items_a_batch_is_one_question() {
        for evaluations in [None, Some(json!([]))] {
            let mut body = asked();
            if let Some(evaluations) = evaluations {
                body["evaluations"] = evaluations;
            }
            assert!(matches!(Evaluations::of(body), Ok(Evaluations::One(_))));
        }
        let mut body = without(&["resource"]);
        body["evaluations"] = json!([]);
        assert!(matches!(Evaluations::of(body), Err(Malformed::Missing(_))));
        let mut body = asked();
        body["options"] = json!({ "evaluations_semantic": "some" });
        assert_eq!(Evaluations::of(body).unwrap_err(), Malformed::Semantic);
    }

    #[test]
    fn a_search_needs_all_but_the_name_of_what_it_looks_for() {
        assert!(search(without(&["subject", "id"]), Sought::Subject).is_ok());
        assert!(search(without(&["resource", "id"]), Sought::Resource).is_ok());
        assert!(search(without(&["action"]), Sought::Action).is_ok());
        for (path, sought) in [
            (&["subject"][..], Sought::Subject),
            (&["subject", "type"], Sought::Subject),
            (&["action"], Sought::Subject),
            (&["resource", "id"], Sought::Subject),
            (&["subject", "id"], Sought::Resource),
            (&["action"], Sought::Resource),
            (&["resource"], Sought::Action),
        ] {
            assert_eq!(search(without(path), sought).unwrap_err(), Malformed::Missing(path.join(".")));
        }
        let mut body = asked();
        body["action"] = json!(7);
        assert!(search(body, Sought::Action).is_ok(), "it is ignored");
        for (page, expected) in [
            (
                json!({ "limit": 3, "token": "x" }),
                Some(PageAsked { token: Some("x".to_owned()), limit: Some(3) }),
            ),
            (json!({ "token": "" }), Some(PageAsked::default())),
            (json!({ "limit": 0 }), None),
            (json!({ "limit": -1 }), None),
            (json!([]), None),
        ] {
            let mut body = asked();
            body["page"] = page;
            assert_eq!(search(body, Sought::Subject).ok().map(|(_, page)| page), expected);
        }
    }
}
