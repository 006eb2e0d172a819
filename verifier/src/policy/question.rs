//! What is asked: may this subject do this to that. Every word of it is the caller's.

use std::fmt;
use std::sync::Arc;

use rootbound_common::id::NodeId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Properties, as a caller states them.
pub type Properties = Map<String, Value>;

/// Why a question is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// A type, id or name is empty.
    #[error("{0} is empty")]
    Empty(Part),
    /// A type, id or name is too long.
    #[error("{part} has {length} bytes, more than {limit}")]
    NameTooLong {
        /// Of what.
        part: Part,
        /// Bytes.
        length: usize,
        /// The most.
        limit: usize,
    },
    /// The properties and the context are too large together.
    #[error("the properties and the context have more than {limit} bytes together")]
    TooLarge {
        /// The most.
        limit: usize,
    },
    /// Objects and arrays are nested too deeply.
    #[error("{part} is nested more than {limit} deep")]
    TooDeep {
        /// Of what.
        part: Part,
        /// The most.
        limit: usize,
    },
    /// One object or array has too many members.
    #[error("an object or array in {part} has {count} members, more than {limit}")]
    TooManyMembers {
        /// Of what.
        part: Part,
        /// How many.
        count: usize,
        /// The most.
        limit: usize,
    },
}

impl QuestionError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty(_) => "question_name_empty",
            Self::NameTooLong { .. } => "question_name_too_long",
            Self::TooLarge { .. } => "question_too_large",
            Self::TooDeep { .. } => "question_too_deep",
            Self::TooManyMembers { .. } => "question_too_many_members",
        }
    }
}

/// A part of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The subject's type.
    SubjectType,
    /// The subject's id.
    SubjectId,
    /// The subject's properties.
    SubjectProperties,
    /// The action's name.
    ActionName,
    /// The action's properties.
    ActionProperties,
    /// The resource's type.
    ResourceType,
    /// The resource's id.
    ResourceId,
    /// The resource's properties.
    ResourceProperties,
    /// The context.
    Context,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SubjectType => "the subject's type",
            Self::SubjectId => "the subject's id",
            Self::SubjectProperties => "the subject's properties",
            Self::ActionName => "the action's name",
            Self::ActionProperties => "the action's properties",
            Self::ResourceType => "the resource's type",
            Self::ResourceId => "the resource's id",
            Self::ResourceProperties => "the resource's properties",
            Self::Context => "the context",
        })
    }
}

/// Who or what, as AuthZEN names it (Authorization API 1.0, 5.1 and 5.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    /// The type: `node`, `service`, `workload`, `session`, `resource`, `credential`, `subject`, a Cedar name such as
    /// `Rootbound::Node`, or one of the bundle's.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id.
    pub id: String,
    /// What the caller says of it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub properties: Properties,
}

/// What is to be done (Authorization API 1.0, 5.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The name.
    pub name: String,
    /// What the caller says of it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub properties: Properties,
}

/// Who a question is about, as far as its words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// A node; `None` where the id is no node's.
    Node(Option<NodeId>),
    /// A relying party.
    Service,
    /// Something that runs on a node.
    OnNode,
    /// Of a type of the bundle's: nothing is attested of it.
    Other,
}

/// A question, bounded. It is no permission and proves nothing: all of it is what the caller says. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Question(Arc<Parts>);

/// A question as JSON, in the form of AuthZEN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Parts {
    subject: Entity,
    action: Action,
    resource: Entity,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    context: Properties,
}

impl Question {
    /// Bytes of all properties and the context together, as JSON without white space. Four times a large AuthZEN request.
    pub const MAX_BYTES: usize = 64 << 10;
    /// How deep objects and arrays are nested in one of them, itself counted.
    pub const MAX_DEPTH: usize = 16;
    /// Members of one object or array.
    pub const MAX_MEMBERS: usize = 1_000;
    /// Bytes of a type or of an action's name.
    pub const MAX_NAME: usize = 128;
    /// Bytes of an id: paths and URLs are ids.
    pub const MAX_ID: usize = 1_024;

    /// A question, part by part.
    #[expect(clippy::too_many_arguments, reason = "the parts of an AuthZEN request, in its order")]
    pub fn new(
        subject_type: impl Into<String>,
        subject_id: impl Into<String>,
        subject_properties: Properties,
        action: impl Into<String>,
        action_properties: Properties,
        resource_type: impl Into<String>,
        resource_id: impl Into<String>,
        resource_properties: Properties,
        context: Properties,
    ) -> Result<Self, QuestionError> {
        Self::of(
            Entity { kind: subject_type.into(), id: subject_id.into(), properties: subject_properties },
            Action { name: action.into(), properties: action_properties },
            Entity { kind: resource_type.into(), id: resource_id.into(), properties: resource_properties },
            context,
        )
    }

    /// A question of its four parts.
    pub fn of(
        subject: Entity,
        action: Action,
        resource: Entity,
        context: Properties,
    ) -> Result<Self, QuestionError> {
        for (part, text, limit) in [
            (Part::SubjectType, &subject.kind, Self::MAX_NAME),
            (Part::SubjectId, &subject.id, Self::MAX_ID),
            (Part::ActionName, &action.name, Self::MAX_NAME),
            (Part::ResourceType, &resource.kind, Self::MAX_NAME),
            (Part::ResourceId, &resource.id, Self::MAX_ID),
        ] {
            if text.is_empty() {
                return Err(QuestionError::Empty(part));
            }
            if text.len() > limit {
                return Err(QuestionError::NameTooLong { part, length: text.len(), limit });
            }
        }
        let mut left = Self::MAX_BYTES;
        for (part, properties) in [
            (Part::SubjectProperties, &subject.properties),
            (Part::ActionProperties, &action.properties),
            (Part::ResourceProperties, &resource.properties),
            (Part::Context, &context),
        ] {
            bound(part, properties, &mut left)?;
        }
        Ok(Self(Arc::new(Parts { subject, action, resource, context })))
    }

    /// May this node have a credential of this kind?
    #[must_use]
    pub fn issue_credential(node: NodeId, kind: CredentialKind) -> Self {
        Self::plain(("node", node.to_string()), kind.action(), ("credential", kind.as_str().to_owned()))
    }

    /// May this caller have a token in which it acts for a node?
    #[must_use]
    pub fn act_for(actor: (&'static str, String), node: NodeId) -> Self {
        Self::plain(actor, "ActFor", ("node", node.to_string()))
    }

    /// May this caller ask about the subject of another question?
    #[must_use]
    pub fn ask(caller: (&'static str, String), about: &Question) -> Self {
        let subject = about.subject();
        let asked = match about.subject_kind() {
            SubjectKind::Node(_) => ("node", subject.id.clone()),
            SubjectKind::OnNode if subject.kind == "session" || subject.kind == "Rootbound::Session" => {
                ("session", subject.id.clone())
            }
            SubjectKind::OnNode => ("workload", subject.id.clone()),
            SubjectKind::Service | SubjectKind::Other => {
                ("subject", format!("{}:{}", subject.kind, subject.id))
            }
        };
        Self::plain(caller, "Ask", asked)
    }

    /// May this service say that something is wrong with a node?
    #[must_use]
    pub fn signal(service: String, node: NodeId) -> Self {
        Self::plain(("service", service), "Signal", ("node", node.to_string()))
    }

    /// The same question with other words about its parts: some of its own.
    pub(super) fn with_properties(
        &self,
        subject: Properties,
        action: Properties,
        resource: Properties,
        context: Properties,
    ) -> Self {
        let entity = |entity: &Entity, properties| Entity {
            kind: entity.kind.clone(),
            id: entity.id.clone(),
            properties,
        };
        Self(Arc::new(Parts {
            subject: entity(self.subject(), subject),
            action: Action { name: self.action().name.clone(), properties: action },
            resource: entity(self.resource(), resource),
            context,
        }))
    }

    fn plain(subject: (&str, String), action: &str, resource: (&str, String)) -> Self {
        let entity =
            |(kind, id): (&str, String)| Entity { kind: kind.to_owned(), id, properties: Properties::new() };
        Self(Arc::new(Parts {
            subject: entity(subject),
            action: Action { name: action.to_owned(), properties: Properties::new() },
            resource: entity(resource),
            context: Properties::new(),
        }))
    }

    /// Who.
    #[must_use]
    pub fn subject(&self) -> &Entity {
        &self.0.subject
    }

    /// What.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.0.action
    }

    /// To what.
    #[must_use]
    pub fn resource(&self) -> &Entity {
        &self.0.resource
    }

    /// What the caller says besides.
    #[must_use]
    pub fn context(&self) -> &Properties {
        &self.0.context
    }

    /// Whose facts the question is to be decided by.
    #[must_use]
    pub fn subject_kind(&self) -> SubjectKind {
        match self.0.subject.kind.as_str() {
            "node" | "Rootbound::Node" => SubjectKind::Node(self.0.subject.id.parse().ok()),
            "service" | "Rootbound::Service" => SubjectKind::Service,
            "workload" | "Rootbound::Workload" | "session" | "Rootbound::Session" => SubjectKind::OnNode,
            _ => SubjectKind::Other,
        }
    }
}

/// What a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// An X.509-SVID.
    X509Svid,
    /// An access token that is good only with a key of the node's TPM.
    AccessToken,
    /// An access token that is good only with a key of which nobody knows where it is kept.
    SoftwareKeyToken,
    /// An access token that is good for whoever has it.
    BearerToken,
    /// A JWT-SVID, which is good for whoever has it.
    JwtSvid,
}

impl CredentialKind {
    /// Each of them.
    pub const ALL: [Self; 5] =
        [Self::X509Svid, Self::AccessToken, Self::SoftwareKeyToken, Self::BearerToken, Self::JwtSvid];

    /// The id of the resource that stands for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X509Svid => "x509-svid",
            Self::AccessToken => "access-token",
            Self::SoftwareKeyToken => "software-key-token",
            Self::BearerToken => "bearer-token",
            Self::JwtSvid => "jwt-svid",
        }
    }

    /// The action that issues it. What others than the node's TPM could use has one of its own, so that a policy of before
    /// there was such a thing permits none of it.
    const fn action(self) -> &'static str {
        match self {
            Self::X509Svid | Self::AccessToken => "IssueCredential",
            Self::SoftwareKeyToken | Self::BearerToken | Self::JwtSvid => "IssueUnboundCredential",
        }
    }
}

impl TryFrom<Parts> for Question {
    type Error = QuestionError;

    fn try_from(parts: Parts) -> Result<Self, QuestionError> {
        Self::of(parts.subject, parts.action, parts.resource, parts.context)
    }
}

impl From<Question> for Parts {
    fn from(question: Question) -> Self {
        Arc::unwrap_or_clone(question.0)
    }
}

/// Holds one object to the limits, without recursion: what a stranger nests must not take our stack.
fn bound(part: Part, properties: &Properties, left: &mut usize) -> Result<(), QuestionError> {
    let mut spend = |bytes: usize| {
        *left = left.checked_sub(bytes).ok_or(QuestionError::TooLarge { limit: Question::MAX_BYTES })?;
        Ok(())
    };
    let members = |count: usize| {
        let limit = Question::MAX_MEMBERS;
        if count > limit { Err(QuestionError::TooManyMembers { part, count, limit }) } else { Ok(()) }
    };
    if properties.is_empty() {
        return Ok(());
    }
    members(properties.len())?;
    spend(2)?;
    let mut open: Vec<(usize, &Value)> = Vec::new();
    for (key, value) in properties {
        spend(key.len().saturating_add(4))?;
        open.push((2, value));
    }
    while let Some((depth, value)) = open.pop() {
        let count = match value {
            Value::Null | Value::Bool(_) => {
                spend(5)?;
                continue;
            }
            Value::Number(_) => {
                spend(8)?;
                continue;
            }
            Value::String(text) => {
                spend(text.len().saturating_add(2))?;
                continue;
            }
            Value::Array(members) => members.len(),
            Value::Object(members) => members.len(),
        };
        if depth > Question::MAX_DEPTH {
            return Err(QuestionError::TooDeep { part, limit: Question::MAX_DEPTH });
        }
        members(count)?;
        spend(2)?;
        let below = depth.saturating_add(1);
        match value {
            Value::Array(members) => {
                for value in members {
                    spend(1)?;
                    open.push((below, value));
                }
            }
            Value::Object(members) => {
                for (key, value) in members {
                    spend(key.len().saturating_add(4))?;
                    open.push((below, value));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(subject: Value, context: Value) -> Result<Question, QuestionError> {
        let object = |value: Value| value.as_object().cloned().unwrap();
        Question::new(
            "node",
            "a",
            object(subject),
            "write",
            Map::new(),
            "Db",
            "orders",
            Map::new(),
            object(context),
        )
    }

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!(1), |inner, _| json!({ "a": inner }))
    }

    #[test]
    fn each_limit_holds_on_both_sides() {
        assert!(ask(nested(16), nested(16)).is_ok());
        let deep = ask(json!({}), nested(17)).unwrap_err();
        assert_eq!(
            (deep.code(), deep),
            ("question_too_deep", QuestionError::TooDeep { part: Part::Context, limit: 16 })
        );
        let many = |count: usize| json!({ "a": vec![0; count] });
        assert!(ask(many(1_000), json!({})).is_ok());
        assert_eq!(ask(many(1_001), json!({})).unwrap_err().code(), "question_too_many_members");
        let long = |length: usize| json!({ "a": "x".repeat(length) });
        assert!(ask(long(32_000), long(32_000)).is_ok(), "they count together");
        assert_eq!(ask(long(32_000), long(33_600)).unwrap_err().code(), "question_too_large");
        assert_eq!(ask(json!({}), long(64 << 10)).unwrap_err().code(), "question_too_large");
        let plain = |kind: &str, id: &str| {
            let none = Map::new;
            Question::new(kind, id, none(), "write", none(), "Db", "orders", none(), none())
        };
        assert_eq!(plain("", "a").unwrap_err(), QuestionError::Empty(Part::SubjectType));
        assert_eq!(plain("node", "").unwrap_err().code(), "question_name_empty");
        assert!(plain("node", &"a".repeat(1_024)).is_ok());
        assert_eq!(plain("node", &"a".repeat(1_025)).unwrap_err().code(), "question_name_too_long");
        assert_eq!(plain(&"n".repeat(129), "a").unwrap_err().code(), "question_name_too_long");
    }

    #[test]
    fn a_question_is_read_from_the_json_of_authzen_and_bounded_there_too() {
        let text = json!({
            "subject": { "type": "user", "id": "alice", "properties": { "team": "red" }, "more": 1 },
            "action": { "name": "read" },
            "resource": { "type": "Db", "id": "orders" },
            "context": { "ip": "10.0.0.1" },
        });
        let question: Question = serde_json::from_value(text).unwrap();
        assert_eq!(question.subject_kind(), SubjectKind::Other);
        let again = serde_json::to_value(&question).unwrap();
        assert_eq!(serde_json::from_value::<Question>(again.clone()).unwrap(), question);
        let mut deep = again;
        deep["context"] = nested(17);
        assert!(serde_json::from_value::<Question>(deep).is_err());
    }

    #[test]
    fn a_node_is_recognised_by_its_type_and_its_id() {
        let node = NodeId::from_bytes([7; 32]);
        let question = Question::issue_credential(node, CredentialKind::X509Svid);
        assert_eq!(question.subject_kind(), SubjectKind::Node(Some(node)));
        assert_eq!(ask(json!({}), json!({})).unwrap().subject_kind(), SubjectKind::Node(None));
        let about = Question::ask(("service", "shop".into()), &question);
        assert_eq!((about.resource().kind.as_str(), &about.resource().id), ("node", &node.to_string()));
        assert_eq!(about.subject_kind(), SubjectKind::Service);
        let user: Question = serde_json::from_value(json!({
            "subject": { "type": "user", "id": "alice" },
            "action": { "name": "read" },
            "resource": { "type": "Db", "id": "orders" },
        }))
        .unwrap();
        assert_eq!(Question::ask(("node", node.to_string()), &user).resource().id, "user:alice");
        let session: Question = serde_json::from_value(json!({
            "subject": { "type": "session", "id": "s" },
            "action": { "name": "read" },
            "resource": { "type": "Db", "id": "orders" },
        }))
        .unwrap();
        assert_eq!(Question::ask(("node", node.to_string()), &session).resource().kind, "session");
        assert_eq!(Question::signal("scanner".into(), node).action().name, "Signal");
    }
}
