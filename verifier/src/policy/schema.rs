//! The base schema and the operator's, as one, and what a question may bring of its own.

use std::collections::BTreeMap;
use std::str::FromStr;

use cedar_policy::{EntityTypeName, EntityUid, RestrictedExpression, Schema, SchemaFragment};
use serde_json::Value;

use super::bundle::FileName;
use super::error::BundleError;
use super::facts::Fact;
use super::question::{Properties, Question};
use super::scan::{Refused, Text, scan};

/// What every bundle has.
pub const BASE_SCHEMA: &str = include_str!("base.cedarschema");

/// Types that a question names by a word of its own.
const OUR_TYPES: [(&str, &str); 7] = [
    ("node", "Rootbound::Node"),
    ("workload", "Rootbound::Workload"),
    ("session", "Rootbound::Session"),
    ("service", "Rootbound::Service"),
    ("resource", "Rootbound::Resource"),
    ("credential", "Rootbound::Credential"),
    ("subject", "Rootbound::Subject"),
];
const ATTESTED: &str = "Rootbound::Attested";

/// A schema that was joined with the base.
#[derive(Debug)]
pub(super) struct JoinedSchema {
    pub(super) schema: Schema,
    pub(super) types: BTreeMap<String, (TypeIndex, EntityTypeName)>,
    pub(super) actions: BTreeMap<String, DeclaredAction>,
}

/// A type, by its place.
pub(super) type TypeIndex = u32;

/// An action that questions may name.
#[derive(Debug)]
pub(super) struct DeclaredAction {
    pub(super) index: u32,
    pub(super) uid: EntityUid,
    pub(super) request: RequestShape,
}

/// What of a question does not fit the schema: a path in words of the schema, nothing of the caller's.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Misfit {
    /// `request.context.amount`, `resource type`.
    pub at: String,
    /// What there should be.
    pub expected: String,
}

impl Misfit {
    pub(super) fn new(at: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { at: at.into(), expected: expected.into() }
    }
}

/// What `context.request` is for an action.
#[derive(Debug, Default)]
pub(super) struct RequestShape {
    /// Absent: the action takes none.
    declared: bool,
    subject: Option<RecordShape>,
    action: Option<RecordShape>,
    resource: Option<RecordShape>,
    context: Option<RecordShape>,
}

type RecordShape = Vec<Attribute>;

#[derive(Debug)]
struct Attribute {
    name: String,
    required: bool,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Bool,
    Long,
    Text,
    Set(Box<Shape>),
    Record(RecordShape),
    Entity(EntityTypeName),
    Extension(Extension),
}

#[derive(Debug, Clone, Copy)]
enum Extension {
    Ip,
    Decimal,
    Datetime,
    Duration,
}

/// Bytes of one text in a request: `like` takes time by its length.
pub(super) const MAX_TEXT: usize = 4_096;

impl JoinedSchema {
    pub(super) fn join(operators: Option<&str>) -> Result<Self, BundleError> {
        let operators = operators.unwrap_or_default();
        if let Err(Refused::Nesting(line)) = scan(operators, Text::Schema) {
            return Err(BundleError::Nested { file: FileName::schema(), line });
        }
        let invalid =
            |error: &dyn std::fmt::Display| BundleError::SchemaInvalid { detail: error.to_string() };
        let (fragment, _) =
            SchemaFragment::from_cedarschema_str(operators).map_err(|error| invalid(&error))?;
        let ours = |namespace: String| namespace.split("::").next() == Some("Rootbound");
        if fragment.namespaces().flatten().any(|namespace| ours(namespace.to_string())) {
            return Err(BundleError::SchemaTouchesRootbound);
        }
        let joined = format!("{BASE_SCHEMA}\n{operators}");
        let (schema, _) = Schema::from_cedarschema_str(&joined).map_err(|error| invalid(&error))?;
        let (resolved, _) =
            cedar_policy::schema_str_to_json_with_resolved_types(&joined).map_err(|error| invalid(&error))?;
        let types = types(&schema)?;
        let actions = Resolved(&resolved).actions()?;
        Ok(Self { schema, types, actions })
    }
}

fn types(schema: &Schema) -> Result<BTreeMap<String, (TypeIndex, EntityTypeName)>, BundleError> {
    let mut types = BTreeMap::new();
    for (index, name) in (0..).zip(schema.entity_types()) {
        let text = name.to_string();
        if OUR_TYPES.iter().any(|(word, _)| *word == text) {
            return Err(BundleError::SchemaReservedType { name: text });
        }
        if let Some((word, _)) = OUR_TYPES.iter().find(|(_, ours)| *ours == text) {
            types.insert((*word).to_owned(), (index, name.clone()));
        }
        types.insert(text, (index, name.clone()));
    }
    Ok(types)
}

/// A schema as JSON, in which every name of a type is whole.
struct Resolved<'a>(&'a Value);

impl<'a> Resolved<'a> {
    fn actions(&self) -> Result<BTreeMap<String, DeclaredAction>, BundleError> {
        let mut actions = BTreeMap::new();
        let mut index = 0;
        for (namespace, body) in self.0.as_object().into_iter().flatten() {
            for (name, action) in members(body, "actions") {
                // A group of actions applies to nothing itself.
                let Some(applies) = action.get("appliesTo").filter(|applies| !applies.is_null()) else {
                    continue;
                };
                let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}::") };
                let kind = EntityTypeName::from_str(&format!("{prefix}Action"))
                    .map_err(|error| BundleError::SchemaInvalid { detail: error.to_string() })?;
                let uid = EntityUid::from_type_name_and_id(kind, cedar_policy::EntityId::new(name));
                let request = self.request(name, applies.get("context"))?;
                if actions.insert(name.clone(), DeclaredAction { index, uid, request }).is_some() {
                    return Err(BundleError::SchemaActionTwice { name: name.clone() });
                }
                index += 1;
            }
        }
        Ok(actions)
    }

    /// Follows names of common types, of which Cedar refuses circles.
    fn follow(&self, mut of: &'a Value) -> &'a Value {
        for _ in 0..64 {
            let Some(name) = of.get("type").and_then(Value::as_str) else { return of };
            let (namespace, name) = name.rsplit_once("::").unwrap_or(("", name));
            let common = self.0.get(namespace).and_then(|body| body.get("commonTypes")?.get(name));
            match common {
                Some(common) => of = common,
                None => return of,
            }
        }
        of
    }

    fn request(&self, action: &str, context: Option<&'a Value>) -> Result<RequestShape, BundleError> {
        let refuse =
            |what: &str| BundleError::SchemaContext { action: action.to_owned(), what: what.to_owned() };
        let context = context.ok_or_else(|| refuse("there is none"))?;
        let mut shape = RequestShape::default();
        let mut attested = false;
        for (name, attribute) in members(self.follow(context), "attributes") {
            match name.as_str() {
                "attested" => {
                    attested = is_required(attribute)
                        && attribute.get("type").and_then(Value::as_str) == Some(ATTESTED);
                }
                "request" if !is_required(attribute) => return Err(refuse("`request` is always there")),
                "request" => {
                    let request = self.follow(attribute);
                    if request.get("type").and_then(Value::as_str) != Some("Record") {
                        return Err(refuse("`request` is a record"));
                    }
                    shape.declared = true;
                    for (name, part) in members(request, "attributes") {
                        let path = format!("request.{name}");
                        let place = match name.as_str() {
                            "subject" => &mut shape.subject,
                            "action" => &mut shape.action,
                            "resource" => &mut shape.resource,
                            "context" => &mut shape.context,
                            other if is_attested(other) => return Err(declares_attested(action, path)),
                            _ => {
                                return Err(refuse(
                                    "`request` has subject, action, resource and context only",
                                ));
                            }
                        };
                        if !is_required(part) {
                            return Err(refuse("the parts of `request` are always there"));
                        }
                        match self.shape(action, &path, part)? {
                            Shape::Record(record) => *place = Some(record),
                            _ => return Err(refuse("the parts of `request` are records")),
                        }
                    }
                }
                _ => return Err(refuse("it has something else")),
            }
        }
        if attested { Ok(shape) } else { Err(refuse("`attested` is no `Rootbound::Attested`")) }
    }

    fn shape(&self, action: &str, path: &str, of: &'a Value) -> Result<Shape, BundleError> {
        let refuse = |what: String| BundleError::SchemaContext { action: action.to_owned(), what };
        let of = self.follow(of);
        let name = |key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default();
        let extension = |name: &str| match name {
            "ipaddr" => Some(Extension::Ip),
            "decimal" => Some(Extension::Decimal),
            "datetime" => Some(Extension::Datetime),
            "duration" => Some(Extension::Duration),
            _ => None,
        };
        let kind = name("type");
        let plain = kind.strip_prefix("__cedar::").unwrap_or(kind);
        Ok(match plain {
            "Bool" | "Boolean" => Shape::Bool,
            "Long" => Shape::Long,
            "String" => Shape::Text,
            "Set" => {
                let element = of.get("element").unwrap_or(&Value::Null);
                Shape::Set(Box::new(self.shape(action, path, element)?))
            }
            "Record" => {
                let mut record = Vec::new();
                for (name, attribute) in members(of, "attributes") {
                    let path = format!("{path}.{name}");
                    if is_attested(name) {
                        return Err(declares_attested(action, path));
                    }
                    let shape = self.shape(action, &path, attribute)?;
                    record.push(Attribute { name: name.clone(), required: is_required(attribute), shape });
                }
                Shape::Record(record)
            }
            "Entity" => {
                let entity = EntityTypeName::from_str(name("name"));
                Shape::Entity(entity.map_err(|error| refuse(format!("`{path}`: {error}")))?)
            }
            "Extension" => match extension(name("name")) {
                Some(extension) => Shape::Extension(extension),
                None => return Err(refuse(format!("`{path}` is of a type that a request cannot have"))),
            },
            other => match extension(other) {
                Some(extension) => Shape::Extension(extension),
                None => return Err(refuse(format!("`{path}` is of a type that a request cannot have"))),
            },
        })
    }
}

fn members<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    of.get(key).and_then(Value::as_object).into_iter().flatten()
}

fn is_required(attribute: &Value) -> bool {
    attribute.get("required").and_then(Value::as_bool).unwrap_or(true)
}

fn is_attested(name: &str) -> bool {
    name == "attested" || Fact::ALL.into_iter().any(|fact| fact.name() == name)
}

fn declares_attested(action: &str, path: String) -> BundleError {
    BundleError::RequestDeclaresAttested { action: action.to_owned(), path }
}

impl RequestShape {
    /// `context.request`: what is declared of what the caller says. What is not declared, no policy can read.
    pub(super) fn request(&self, question: &Question) -> Result<Option<RestrictedExpression>, Misfit> {
        if !self.declared {
            return Ok(None);
        }
        let parts = [
            ("subject", &self.subject, &question.subject().properties),
            ("action", &self.action, &question.action().properties),
            ("resource", &self.resource, &question.resource().properties),
            ("context", &self.context, question.context()),
        ];
        let mut request = Vec::with_capacity(parts.len());
        for (name, shape, properties) in parts {
            if let Some(shape) = shape {
                let record =
                    record(shape, properties).map_err(|misfit| misfit.below(name).below("request"))?;
                request.push((name.to_owned(), record));
            }
        }
        new_record(request).map(Some).map_err(|misfit| misfit.below("request"))
    }
}

impl RequestShape {
    /// What is declared of what the caller says.
    pub(super) fn declared(&self, question: &Question) -> Question {
        let kept = |shape: &Option<RecordShape>, said: &Properties| {
            shape.as_ref().map(|shape| kept(shape, said)).unwrap_or_default()
        };
        question.with_properties(
            kept(&self.subject, &question.subject().properties),
            kept(&self.action, &question.action().properties),
            kept(&self.resource, &question.resource().properties),
            kept(&self.context, question.context()),
        )
    }
}

fn kept(shape: &RecordShape, said: &Properties) -> Properties {
    let kept = |attribute: &Attribute| {
        Some((attribute.name.clone(), kept_value(&attribute.shape, said.get(&attribute.name)?)))
    };
    shape.iter().filter_map(kept).collect()
}

fn kept_value(shape: &Shape, said: &Value) -> Value {
    match (shape, said) {
        (Shape::Record(shape), Value::Object(members)) => Value::Object(kept(shape, members)),
        (Shape::Set(shape), Value::Array(items)) => {
            Value::Array(items.iter().map(|item| kept_value(shape, item)).collect())
        }
        // Of another type than is declared: that it does not fit is all that there is to know.
        (_, Value::Object(_)) => Value::Object(Properties::new()),
        (_, Value::Array(_)) => Value::Array(Vec::new()),
        (Shape::Bool | Shape::Long | Shape::Record(_) | Shape::Set(_), Value::String(_)) => Value::Null,
        (_, scalar) => scalar.clone(),
    }
}

impl Misfit {
    fn below(self, name: &str) -> Self {
        let at = if self.at.is_empty() { name.to_owned() } else { format!("{name}.{}", self.at) };
        Self { at, ..self }
    }
}

pub(super) fn new_record(pairs: Vec<(String, RestrictedExpression)>) -> Result<RestrictedExpression, Misfit> {
    RestrictedExpression::new_record(pairs).map_err(|_| Misfit::new("", "each name once"))
}

fn record(shape: &[Attribute], properties: &Properties) -> Result<RestrictedExpression, Misfit> {
    let mut pairs = Vec::with_capacity(shape.len());
    for attribute in shape {
        match properties.get(&attribute.name) {
            // AuthZEN has no way to say that something is absent but to leave it out; some callers say null.
            None | Some(Value::Null) if !attribute.required => {}
            None => return Err(attribute.shape.misfit().below(&attribute.name)),
            Some(value) => {
                let value = attribute.shape.of(value).map_err(|misfit| misfit.below(&attribute.name))?;
                pairs.push((attribute.name.clone(), value));
            }
        }
    }
    new_record(pairs)
}

impl Shape {
    fn of(&self, value: &Value) -> Result<RestrictedExpression, Misfit> {
        let text = || {
            let text = value.as_str().filter(|text| text.len() <= MAX_TEXT);
            text.ok_or_else(|| self.misfit())
        };
        match self {
            Self::Bool => value.as_bool().map(RestrictedExpression::new_bool).ok_or_else(|| self.misfit()),
            Self::Long => value.as_i64().map(RestrictedExpression::new_long).ok_or_else(|| self.misfit()),
            Self::Text => Ok(RestrictedExpression::new_string(text()?.to_owned())),
            Self::Set(element) => {
                let members = value.as_array().ok_or_else(|| self.misfit())?;
                let members =
                    members.iter().map(|member| element.of(member)).collect::<Result<Vec<_>, _>>()?;
                Ok(RestrictedExpression::new_set(members))
            }
            Self::Record(shape) => record(shape, value.as_object().ok_or_else(|| self.misfit())?),
            Self::Entity(kind) => {
                let id = cedar_policy::EntityId::new(text()?);
                Ok(RestrictedExpression::new_entity_uid(EntityUid::from_type_name_and_id(kind.clone(), id)))
            }
            Self::Extension(extension) => {
                let text = text()?;
                Ok(match extension {
                    Extension::Ip => RestrictedExpression::new_ip(text),
                    Extension::Decimal => RestrictedExpression::new_decimal(text),
                    Extension::Datetime => RestrictedExpression::new_datetime(text),
                    Extension::Duration => RestrictedExpression::new_duration(text),
                })
            }
        }
    }

    fn misfit(&self) -> Misfit {
        Misfit::new(
            "",
            match self {
                Self::Bool => "true or false".to_owned(),
                Self::Long => "a whole number of 64 bits".to_owned(),
                Self::Text => format!("a text of at most {MAX_TEXT} bytes"),
                Self::Set(_) => "an array".to_owned(),
                Self::Record(_) => "an object".to_owned(),
                Self::Entity(kind) => format!("the id of a {kind}, as a text"),
                Self::Extension(Extension::Ip) => "an IP address or range, as a text".to_owned(),
                Self::Extension(Extension::Decimal) => "a decimal number, as a text".to_owned(),
                Self::Extension(Extension::Datetime) => "a date and time, as a text".to_owned(),
                Self::Extension(Extension::Duration) => "a duration, as a text".to_owned(),
            },
        )
    }
}
