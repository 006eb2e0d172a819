//! A record, and its one form in bytes: a line of JSON.
//!
//! Members stand in a fixed order, without white space; one that says nothing is left out. No number has a fraction. A
//! line that is parsed and written again is the same line, or it is no record.

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use serde::{Deserialize, Serialize};

use super::chain::Encoded;
use super::facts::Facts;
use super::id::RecordId;
use super::text::Text;

/// What a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// Somebody asked whether something may be done, and was told.
    Decision,
    /// Somebody looked for what would be allowed, and was told.
    Search,
    /// A node showed evidence, asked for nothing, and stands well.
    Attestation,
    /// A credential was issued.
    Issuance,
    /// A machine became a node of the fleet.
    Admission,
    /// A machine was refused: its enrolment, its evidence, a credential, or that it is admitted.
    Refusal,
    /// A node stands otherwise than before.
    PostureChange,
    /// A policy was written, or came into force.
    PolicyChange,
    /// A reference set, a digest set or a profile was written or withdrawn.
    ReferenceChange,
    /// An operator did something else.
    OperatorAction,
    /// Another system said something about a node.
    Signal,
    /// Credentials count no more before their time.
    Revocation,
    /// What is in force from now on of the configuration.
    Configuration,
    /// The verifier started.
    Start,
    /// The verifier stopped.
    Stop,
}

impl RecordKind {
    /// Each of them.
    pub const ALL: [Self; 15] = [
        Self::Decision,
        Self::Search,
        Self::Attestation,
        Self::Issuance,
        Self::Admission,
        Self::Refusal,
        Self::PostureChange,
        Self::PolicyChange,
        Self::ReferenceChange,
        Self::OperatorAction,
        Self::Signal,
        Self::Revocation,
        Self::Configuration,
        Self::Start,
        Self::Stop,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Search => "search",
            Self::Attestation => "attestation",
            Self::Issuance => "issuance",
            Self::Admission => "admission",
            Self::Refusal => "refusal",
            Self::PostureChange => "posture_change",
            Self::PolicyChange => "policy_change",
            Self::ReferenceChange => "reference_change",
            Self::OperatorAction => "operator_action",
            Self::Signal => "signal",
            Self::Revocation => "revocation",
            Self::Configuration => "configuration",
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What was asked for was given.
    Granted,
    /// It was not.
    Refused,
    /// Nobody asked; it happened.
    Done,
    /// It was tried and did not come about.
    Failed,
}

impl Outcome {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Granted, Self::Refused, Self::Done, Self::Failed];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name", deny_unknown_fields)]
pub enum Actor {
    /// The verifier itself.
    Verifier,
    /// A node, that has proved to be it.
    Node(NodeId),
    /// A relying party, by the name that the operator gave it.
    RelyingParty(Text<160>),
    /// The same, where it showed a token and no certificate.
    RelyingPartyByToken(Text<160>),
    /// An operator: `uid 0`, as the kernel says.
    Operator(Text<160>),
    /// Somebody who has proved nothing.
    Stranger,
}

/// What it was about: something that has a kind and a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entity {
    /// `node`, `reference_set`, `join_token`, or a type of the operator's policies.
    pub kind: Text<64>,
    /// Its id or name.
    pub name: Text<160>,
}

impl Entity {
    /// The kind of nodes.
    pub const NODE: &str = "node";

    /// A node.
    #[must_use]
    pub fn node(id: NodeId) -> Self {
        Self::named(Self::NODE, &id.to_string())
    }

    /// Something else.
    #[must_use]
    pub fn named(kind: &str, name: &str) -> Self {
        Self { kind: kind.into(), name: name.into() }
    }

    fn is_node(&self, id: &str) -> bool {
        self.kind.as_str() == Self::NODE && self.name.as_str() == id
    }
}

/// One thing that happened. No secret, token or environment is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    /// Its name.
    pub id: RecordId,
    /// When, by the verifier's clock.
    pub at: Timestamp,
    /// What it is of.
    pub kind: RecordKind,
    /// Who acted.
    pub actor: Actor,
    /// What was done or asked for, as a word: `attest`, `put_profile`, or an action of a policy.
    pub action: Text<64>,
    /// Who or what it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Entity>,
    /// What was to be acted on, where it is not the subject: the resource of a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Entity>,
    /// What became of it.
    pub outcome: Outcome,
    /// Stable code of the reason.
    pub code: Text<64>,
    /// SHA-256 of what it was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex")]
    pub inputs: Option<[u8; 32]>,
    /// What it was judged by: profiles, sets, policies, each with its version. At most [`AuditRecord::VERSIONS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Text<96>>,
    /// The reason in words.
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub detail: Text<900>,
    /// More that a kind has to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// Allowed decisions before this record that were left out, where the configuration says that some are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

impl AuditRecord {
    /// Bytes of a line at most.
    pub const MAX: usize = 8 * 1024;
    /// Versions at most; of more, the last says how many.
    pub const VERSIONS: usize = 8;

    /// A record that says the least: complete it with `..`.
    #[must_use]
    pub fn new(
        id: RecordId,
        kind: RecordKind,
        action: &str,
        actor: Actor,
        outcome: Outcome,
        code: &str,
    ) -> Self {
        Self {
            id,
            at: id.at(),
            kind,
            actor,
            action: action.into(),
            subject: None,
            object: None,
            outcome,
            code: code.into(),
            inputs: None,
            versions: Vec::new(),
            detail: Text::default(),
            facts: None,
            left_out: 0,
        }
    }

    /// The same, about something.
    #[must_use]
    pub fn about(self, subject: Entity) -> Self {
        Self { subject: Some(subject), ..self }
    }

    /// The same, with the reason in words.
    #[must_use]
    pub fn because(self, detail: &str) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// The same, judged by this too, or having written it.
    #[must_use]
    pub fn by(mut self, version: &str) -> Self {
        self.versions.push(version.into());
        self
    }

    /// The same, of what was judged.
    #[must_use]
    pub fn of_inputs(self, digest: [u8; 32]) -> Self {
        Self { inputs: Some(digest), ..self }
    }

    /// The same, with more to say.
    #[must_use]
    pub fn with(self, facts: Facts) -> Self {
        Self { facts: Some(facts), ..self }
    }

    /// Whether it is about a node, or a node acted.
    #[must_use]
    pub fn concerns(&self, node: NodeId) -> bool {
        let id = node.to_string();
        let entities = [&self.subject, &self.object];
        matches!(self.actor, Actor::Node(actor) if actor == node)
            || entities.into_iter().flatten().any(|entity| entity.is_node(&id))
    }

    /// In bytes, but for its place in the trail.
    #[must_use]
    pub fn encode(mut self) -> Encoded {
        if let Some(more) = self.versions.len().checked_sub(Self::VERSIONS).filter(|more| *more > 0) {
            self.versions.truncate(Self::VERSIONS - 1);
            self.versions.push(format!("and {} more", more + 1).into());
        }
        let at = self.at;
        // Writing into memory does not fail.
        Encoded::new(at, serde_json::to_vec(&self).unwrap_or_default())
    }
}

/// A record at its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequencedRecord {
    /// Its number in the trail, from 1 on.
    pub sequence: u64,
    /// The record.
    pub record: AuditRecord,
}

/// Why a line is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Too long.
    #[error("it has more than {} bytes", AuditRecord::MAX)]
    Length,
    /// Not JSON of a record's shape.
    #[error("it is no record: {0}")]
    Shape(String),
    /// Another form of what it says.
    #[error("it is not in the form that records have")]
    Form,
}

impl SequencedRecord {
    /// Reads a line, without its line break.
    ///
    /// Established when this returns: it is at most [`AuditRecord::MAX`] bytes long · it is a record with its number · it is
    /// in the one form that such a record has.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        if line.len() > AuditRecord::MAX {
            return Err(LineError::Length);
        }
        let (sequence, rest) = Encoded::unnumbered(line).ok_or(LineError::Form)?;
        let record: AuditRecord =
            serde_json::from_slice(&rest).map_err(|error| LineError::Shape(error.to_string()))?;
        if record.clone().encode().line(sequence) != line {
            return Err(LineError::Form);
        }
        Ok(Self { sequence, record })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(
        digest: &Option<[u8; 32]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => serializer.serialize_str(&data_encoding::HEXLOWER.encode(digest)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 32]>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        bytes.try_into().map(Some).map_err(|_| serde::de::Error::custom("not 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const AT: Timestamp = Timestamp::from_millis(1_780_272_000_123);

    fn least() -> AuditRecord {
        let id = RecordId::of(AT, [1; 10]);
        AuditRecord::new(id, RecordKind::Start, "start", Actor::Verifier, Outcome::Done, "started")
    }

    fn largest() -> AuditRecord {
        let long = "x\"\\é".repeat(10_000);
        let entity = || Entity::named(&long, &long);
        let mut record = least().about(entity()).because(&long).of_inputs([255; 32]);
        record.object = Some(entity());
        record.actor = Actor::RelyingParty(long.as_str().into());
        (record.action, record.code) = (long.as_str().into(), long.as_str().into());
        record.versions = vec![long.as_str().into(); 20];
        record.left_out = u64::MAX;
        let mut room = Facts::MAX;
        while record.facts.is_none() {
            record.facts = Facts::new(json!({ "x": "y".repeat(room) })).ok();
            room -= 1;
        }
        record
    }

    #[test]
    fn a_record_has_one_form() {
        let line = least().encode().line(7);
        let expected = r#"{"seq":7,"id":"019e807aec7b01010101010101010101","at":1780272000123,"kind":"start","actor":{"kind":"verifier"},"action":"start","outcome":"done","code":"started"}"#;
        assert_eq!(String::from_utf8(line).unwrap(), expected);
        let node = NodeId::from_bytes([2; 32]);
        let record = AuditRecord { actor: Actor::Node(node), left_out: 3, ..least() }
            .about(Entity::node(node))
            .because("because")
            .by("any@1")
            .of_inputs([3; 32])
            .with(Facts::new(json!({ "b": 1, "a": [] })).unwrap());
        let line = record.clone().encode().line(8);
        assert_eq!(SequencedRecord::parse(&line), Ok(SequencedRecord { sequence: 8, record }));
    }

    #[test]
    fn the_longest_record_is_a_record() {
        let line = largest().encode().line(u64::MAX);
        assert!((7_500..=AuditRecord::MAX).contains(&line.len()), "{}", line.len());
        let parsed = SequencedRecord::parse(&line).unwrap();
        assert_eq!(parsed.record.versions.len(), AuditRecord::VERSIONS);
        assert_eq!(parsed.record.versions.last().unwrap().as_str(), "and 13 more");
    }

    #[test]
    fn what_has_another_form_is_no_record() {
        let line = String::from_utf8(least().encode().line(7)).unwrap();
        let parse = |text: &str| SequencedRecord::parse(text.as_bytes());
        assert!(parse(&line).is_ok());
        for (other, expected) in [
            (line.replace(",\"at\"", ", \"at\""), LineError::Form),
            (line.replace("\"seq\":7", "\"seq\":07"), LineError::Form),
            (line.replace("\"seq\":7,", ""), LineError::Form),
            (line.replace("\"code\"", "\"versions\":[],\"code\""), LineError::Form),
            (line.replace("start\"", "st\\u0061rt\""), LineError::Form),
            (format!("{line}{}", " ".repeat(AuditRecord::MAX)), LineError::Length),
        ] {
            assert_eq!(parse(&other), Err(expected), "{other}");
        }
        for shapeless in [
            line.replace("\"code\"", "\"kode\""),
            line.replace("1780272000123", "1780272000123.0"),
            line.replace("\"kind\":\"start\"", "\"kind\":\"begin\""),
            format!("{}{}", &line[..line.len() - 1], ",\"code\":\"started\"}"),
            "{\"seq\":7,".to_owned(),
        ] {
            assert!(matches!(parse(&shapeless), Err(LineError::Shape(_))), "{shapeless}");
        }
    }

    #[test]
    fn a_record_concerns_who_acts_and_what_it_is_about() {
        let node = NodeId::from_bytes([2; 32]);
        assert!(!least().concerns(node));
        assert!(least().about(Entity::node(node)).concerns(node));
        assert!(AuditRecord { object: Some(Entity::node(node)), ..least() }.concerns(node));
        assert!(AuditRecord { actor: Actor::Node(node), ..least() }.concerns(node));
        assert!(!least().about(Entity::named("user", &node.to_string())).concerns(node));
    }

    #[test]
    fn words_are_those_of_the_form() {
        for kind in RecordKind::ALL {
            assert_eq!(json!(kind), json!(kind.as_str()));
        }
        for outcome in Outcome::ALL {
            assert_eq!(json!(outcome), json!(outcome.as_str()));
        }
    }
}
