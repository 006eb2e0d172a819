//! A record as a line of JSON for other programs, that can be verified by itself.
//!
//! Members have the names of the Open Cybersecurity Schema Framework (OCSF 1.6) where it has one for them; `chain` says where
//! the record stands, and `record` is the record as it is kept, of which everything else follows. So a line in which
//! anything was changed is not the line of its record any more.
//!
//! | kind | class | activity |
//! |---|---|---|
//! | decision, refusal | Authorize Session 3003 | 1 Assign Privileges; 99 `refuse` |
//! | issuance, admission | Authentication 3002 | 1 Logon; 99 |
//! | posture_change, signal | Compliance Finding 2003 | 2 Update |
//! | policy_change, reference_change, configuration | Entity Management 3004 | 3 Update |
//! | operator_action | API Activity 6003 | 99 |
//! | start, stop | Application Lifecycle 6002 | 3 Start, 4 Stop |

use serde::{Deserialize, Serialize};

use super::chain::{Hash, Head, Segment};
use super::checkpoint::{Checkpoint, PublicKey};
use super::record::{Actor, AuditRecord, LineError, Outcome, RecordKind, SequencedRecord};

/// Where to go on: the record that was seen last. As text: its number, a hyphen, and the first 16 digits of its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    /// The number of the record.
    pub sequence: u64,
    /// The beginning of its hash.
    prefix: String,
}

/// A text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is a number, a hyphen and 16 hex digits, as `chain.cursor` of an exported line has it")]
pub struct NotACursor;

impl Cursor {
    const DIGITS: usize = 16;

    /// That of a record.
    #[must_use]
    pub fn of(head: Head) -> Self {
        let Head { sequence, hash } = head;
        Self { sequence, prefix: hash.to_string().chars().take(Self::DIGITS).collect() }
    }

    /// Whether a record has it.
    #[must_use]
    pub fn is_of(&self, head: Head) -> bool {
        *self == Self::of(head)
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.sequence, self.prefix)
    }
}

impl std::str::FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (sequence, prefix) = text.split_once('-').ok_or(NotACursor)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if prefix.len() != Self::DIGITS || !prefix.bytes().all(hex) {
            return Err(NotACursor);
        }
        Ok(Self { sequence: sequence.parse().map_err(|_| NotACursor)?, prefix: prefix.to_owned() })
    }
}

impl TryFrom<String> for Cursor {
    type Error = NotACursor;

    fn try_from(text: String) -> Result<Self, NotACursor> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

/// Where a record stands.
#[derive(Debug, Serialize, Deserialize)]
struct Chain {
    sequence: u64,
    previous: Hash,
    hash: Hash,
    cursor: Cursor,
}

#[derive(Serialize)]
struct Line<'a> {
    class_uid: u32,
    category_uid: u32,
    activity_id: u32,
    activity_name: &'a str,
    type_uid: u32,
    severity_id: u32,
    time: i64,
    status_id: u32,
    status: &'static str,
    status_code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    status_detail: &'a str,
    actor: OcsfActor<'a>,
    metadata: Metadata<'a>,
    chain: &'a Chain,
}

/// What stands before the record, which is the last member of a line. Within a string its quotation marks were escaped, so
/// that it is nowhere before.
const RECORD: &str = ",\"record\":";

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum OcsfActor<'a> {
    User { name: String, r#type: &'static str },
    AppName(&'a str),
}

#[derive(Serialize)]
struct Metadata<'a> {
    version: &'static str,
    product: Product,
    uid: String,
    sequence: u64,
    event_code: &'a str,
}

#[derive(Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
}

/// Why a line cannot be exported or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// Its record.
    #[error("its record: {0}")]
    Record(#[from] LineError),
    /// Not a line of an export.
    #[error("it is no line of an export: {0}")]
    Shape(String),
    /// What stands around the record does not follow from it.
    #[error("what stands around its record was changed")]
    Form,
    /// Too long.
    #[error("it has more than {} bytes", LONGEST)]
    Length,
}

/// Bytes of a line at most: a record, what is said of it again, and where it stands.
pub const LONGEST: usize = 4 * AuditRecord::MAX;

/// Class, activity and severity of a record.
const fn ocsf(record: &AuditRecord) -> (u32, u32, u32) {
    /// OCSF `severity_id`.
    const INFORMATIONAL: u32 = 1;
    const LOW: u32 = 2;
    const MEDIUM: u32 = 3;
    let severity = match record.outcome {
        Outcome::Granted | Outcome::Done => INFORMATIONAL,
        Outcome::Refused => LOW,
        Outcome::Failed => MEDIUM,
    };
    let (class, activity) = match (record.kind, record.outcome) {
        (RecordKind::Decision | RecordKind::Refusal, Outcome::Granted) => (3003, 1),
        (RecordKind::Decision | RecordKind::Search | RecordKind::Refusal, _) => (3003, 99),
        (RecordKind::Issuance, _) => (3002, 1),
        (RecordKind::Admission | RecordKind::Revocation, _) => (3002, 99),
        (RecordKind::Attestation | RecordKind::PostureChange | RecordKind::Signal, _) => (2003, 2),
        (RecordKind::PolicyChange | RecordKind::ReferenceChange | RecordKind::Configuration, _) => (3004, 3),
        (RecordKind::OperatorAction, _) => (6003, 99),
        (RecordKind::Start, _) => (6002, 3),
        (RecordKind::Stop, _) => (6002, 4),
    };
    (class, activity, severity)
}

/// The line of a record, without a line break: `kept` as it is kept, behind what has the hash `previous`.
pub fn line(kept: &[u8], previous: Hash) -> Result<String, ExportError> {
    let SequencedRecord { sequence, record } = SequencedRecord::parse(kept)?;
    let hash = previous.then(kept);
    let cursor = Cursor::of(Head { sequence, hash });
    let shape = |error: &dyn std::fmt::Display| ExportError::Shape(error.to_string());
    let text = std::str::from_utf8(kept).map_err(|error| shape(&error))?;
    let (class_uid, activity_id, severity_id) = ocsf(&record);
    let (status_id, status) = match record.outcome {
        Outcome::Granted | Outcome::Done => (1, "Success"),
        Outcome::Refused | Outcome::Failed => (2, "Failure"),
    };
    let user = |name: String, r#type| OcsfActor::User { name, r#type };
    let actor = match &record.actor {
        Actor::Verifier => OcsfActor::AppName("rootbound-verifier"),
        Actor::Node(node) => user(node.to_string(), "node"),
        Actor::RelyingParty(name) => user(name.to_string(), "relying_party"),
        Actor::RelyingPartyByToken(name) => user(name.to_string(), "relying_party_by_token"),
        Actor::Operator(name) => user(name.to_string(), "operator"),
        Actor::Stranger => user(String::new(), "unknown"),
    };
    let metadata = Metadata {
        version: "1.6.0",
        product: Product { name: "rootbound-verifier", vendor_name: "Rootbound" },
        uid: record.id.to_string(),
        sequence,
        event_code: record.kind.as_str(),
    };
    let chain = Chain { sequence, previous, hash, cursor };
    let line = Line {
        class_uid,
        category_uid: class_uid / 1000,
        activity_id,
        activity_name: record.action.as_str(),
        type_uid: class_uid * 100 + activity_id,
        severity_id,
        time: record.at.as_millis(),
        status_id,
        status,
        status_code: record.code.as_str(),
        status_detail: record.detail.as_str(),
        actor,
        metadata,
        chain: &chain,
    };
    let mut line = serde_json::to_string(&line).map_err(|error| shape(&error))?;
    line.pop();
    Ok(format!("{line}{RECORD}{text}}}"))
}

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// A record, as a segment of one, for [`super::verify::Walk`].
    Record(Box<Segment>),
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// A key that signed checkpoints. It vouches for nothing: it came with them.
    Key(PublicKey),
}

/// The lines that are no records.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Beside {
    Checkpoint(Checkpoint),
    AuditKey(PublicKey),
}

/// The line of a checkpoint.
#[must_use]
pub fn checkpoint_line(checkpoint: &Checkpoint) -> String {
    // Writing into memory does not fail.
    serde_json::to_string(&Beside::Checkpoint(checkpoint.clone())).unwrap_or_default()
}

/// The line of a key.
#[must_use]
pub fn key_line(key: &PublicKey) -> String {
    serde_json::to_string(&Beside::AuditKey(key.clone())).unwrap_or_default()
}

/// Reads a line. That the record of it comes to its hash is for [`super::verify::Walk`] to say.
pub fn parse(text: &str) -> Result<Exported, ExportError> {
    #[derive(Deserialize)]
    struct Before {
        chain: Chain,
    }
    if text.len() > LONGEST {
        return Err(ExportError::Length);
    }
    let shape = |error: serde_json::Error| ExportError::Shape(error.to_string());
    if text.starts_with("{\"checkpoint\":") || text.starts_with("{\"audit_key\":") {
        return Ok(match serde_json::from_str(text).map_err(shape)? {
            Beside::Checkpoint(checkpoint) => Exported::Checkpoint(checkpoint),
            Beside::AuditKey(key) => Exported::Key(key),
        });
    }
    let no_record = || ExportError::Shape("it has no record".to_owned());
    let (before, record) = text.split_once(RECORD).ok_or_else(no_record)?;
    let kept = record.strip_suffix('}').ok_or_else(no_record)?.as_bytes();
    let Before { chain } = serde_json::from_str(&format!("{before}}}")).map_err(shape)?;
    // Where the record was changed, what follows from it names another hash; that is found where it stands.
    let Chain { sequence, previous, hash, .. } = chain;
    let SequencedRecord { record, .. } = SequencedRecord::parse(kept)?;
    if previous.then(kept) == hash && line(kept, previous)? != text {
        return Err(ExportError::Form);
    }
    let mut body = kept.to_vec();
    body.push(b'\n');
    let times = (record.at, record.at);
    Ok(Exported::Record(Box::new(Segment {
        first: sequence,
        previous,
        links: vec![hash],
        hash,
        times,
        body,
    })))
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::AuditKey;
    use super::super::id::RecordId;
    use super::super::verify::{Damage, Walk};
    use super::*;
    use rootbound_common::clock::Timestamp;
    use rootbound_common::random;
    use serde_json::{Value, json};

    const AT: Timestamp = Timestamp::from_millis(1_780_272_000_123);

    fn record(kind: RecordKind, outcome: Outcome, actor: Actor) -> AuditRecord {
        AuditRecord::new(RecordId::of(AT, [1; 10]), kind, "attest", actor, outcome, "some_code")
            .because("in \"words\"")
    }

    fn exported(records: Vec<AuditRecord>) -> Vec<String> {
        let encoded: Vec<_> = records.into_iter().map(AuditRecord::encode).collect();
        let segments = Head::default().extend(&encoded);
        let mut previous = Hash::NONE;
        let lines = segments[0].lines().map(|kept| {
            let line = line(kept, previous).unwrap();
            previous = previous.then(kept);
            line
        });
        lines.collect()
    }

    fn walked(lines: &[String]) -> Vec<Damage> {
        let mut walk = Walk::new(&[], None);
        for (number, line) in (1..).zip(lines) {
            match parse(line) {
                Ok(Exported::Record(segment)) => walk.segment(&segment),
                Ok(other) => panic!("{other:?}"),
                Err(error) => walk.line(number, error.to_string()),
            }
        }
        walk.end().damages
    }

    #[test]
    fn line_says_what_ocsf_has_a_name_for() {
        let actor = Actor::Operator("uid 0".into());
        let lines = exported(vec![record(RecordKind::Refusal, Outcome::Refused, actor)]);
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["type_uid"], json!(300_399));
        assert_eq!(line["category_uid"], json!(3));
        assert_eq!((&line["severity_id"], &line["status"]), (&json!(2), &json!("Failure")));
        assert_eq!((&line["status_code"], &line["time"]), (&json!("some_code"), &json!(AT.as_millis())));
        assert_eq!(line["status_detail"], json!("in \"words\""));
        assert_eq!(line["actor"]["user"]["name"], json!("uid 0"));
        assert_eq!(line["metadata"]["uid"], json!(RecordId::of(AT, [1; 10]).to_string()));
        assert_eq!(line["chain"]["previous"], json!(Hash::NONE));
        assert_eq!(line["record"]["seq"], json!(1));
        let cursor: Cursor = line["chain"]["cursor"].as_str().unwrap().parse().unwrap();
        let hash = line["chain"]["hash"].as_str().unwrap().parse().unwrap();
        assert!(cursor.is_of(Head { sequence: 1, hash }) && !cursor.is_of(Head { sequence: 2, hash }));
    }

    #[test]
    fn every_kind_has_a_class_and_every_line_is_read_again() {
        let mut records = Vec::new();
        for kind in RecordKind::ALL {
            for outcome in Outcome::ALL {
                records.push(record(kind, outcome, Actor::Verifier));
            }
        }
        records.push(record(RecordKind::Refusal, Outcome::Refused, Actor::Stranger));
        assert_eq!(walked(&exported(records)), []);
    }

    #[test]
    fn whatever_is_changed_in_a_line_is_found_in_that_line() {
        let make = |_| record(RecordKind::Refusal, Outcome::Refused, Actor::Operator("uid 0".into()));
        let lines = exported((0..3).map(make).collect());
        assert_eq!(walked(&lines), []);
        let places = lines[1].char_indices().map(|(place, _)| place).collect::<Vec<_>>();
        for place in places {
            let mut changed = lines.clone();
            let with = if lines[1].as_bytes()[place] == b'7' { "8" } else { "7" };
            changed[1].replace_range(place..=place, with);
            let found = walked(&changed);
            assert!(!found.is_empty(), "{}", changed[1]);
            let near = |damage: &Damage| match damage {
                Damage::Line { line, .. } => *line == 2,
                other => other.sequence().is_some_and(|sequence| {
                    sequence.abs_diff(2) <= 1 || changed[1].contains(&sequence.to_string())
                }),
            };
            assert!(found.iter().any(near), "{found:?}");
        }
        let mut swapped = lines;
        swapped.swap(1, 2);
        assert_eq!(walked(&swapped), [Damage::OutOfOrder { sequence: 2, after: 3 }]);
    }

    #[test]
    fn checkpoints_and_keys_have_lines_of_their_own() {
        let key = AuditKey::generate(&mut random::system());
        let made = key.sign(Head::default(), Head::default(), AT);
        assert_eq!(parse(&checkpoint_line(&made)), Ok(Exported::Checkpoint(made)));
        assert_eq!(parse(&key_line(key.public())), Ok(Exported::Key(key.public().clone())));
        assert!(matches!(parse("{}"), Err(ExportError::Shape(_))));
        assert!(matches!(parse("{\"checkpoint\":1}"), Err(ExportError::Shape(_))));
        assert_eq!(parse(&" ".repeat(LONGEST + 1)), Err(ExportError::Length));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "7", "7-", "x-0123456789abcdef", "7-0123456789ABCDEF", "7-0123456789abcde"] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
    }
}
