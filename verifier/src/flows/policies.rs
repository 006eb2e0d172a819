//! What an operator does about policies: bundles are written, rehearsed and put in force, and decisions are explained.
//!
//! A bundle comes into force as a whole or not at all: it was compiled, its cases hold, and the store has it on record
//! before the next decision sees it.

use rootbound_common::clock::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Verifier;
use super::operate::Operator;
use crate::audit::{AuditRecord, Entity, Outcome as Told, RecordId, RecordKind, SequencedRecord};
use crate::node::Name;
use crate::policy::{
    Bundle, BundleError, BundleSource, CaseReport, Expected, Explanation, Question, RecordedFacts,
};
use crate::reference::Versioned;
use crate::store::audit::RecordFilter;
use crate::store::{Activated, Activation, PolicyBundleRecord, StoreError};

/// Which bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhichBundle {
    /// The one that is part of the program.
    Builtin,
    /// One that was written; its newest version where none is named.
    Written {
        /// Its name.
        name: Name,
        /// Its version.
        version: Option<u32>,
    },
}

impl std::fmt::Display for WhichBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Builtin => f.write_str(BUILTIN),
            Self::Written { name, version: None } => write!(f, "{name}"),
            Self::Written { name, version: Some(version) } => write!(f, "{name}@{version}"),
        }
    }
}

/// The name of the bundle that is part of the program; no other has it.
pub const BUILTIN: &str = "builtin";

/// Why a request about policies is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The bundle is refused.
    #[error("policy bundle: {0}")]
    Bundle(#[from] BundleError),
    /// It does not decide as its own cases say.
    #[error("{failed} of {cases} cases fail; the first: {first}")]
    CasesFail {
        /// How many fail.
        failed: usize,
        /// How many there are.
        cases: usize,
        /// What the first says.
        first: String,
    },
    /// The name is taken.
    #[error("`{BUILTIN}` is the bundle that is part of the program; give yours another name")]
    NameTaken,
    /// No such bundle.
    #[error("there is no policy bundle `{0}`")]
    NoSuchBundle(String),
    /// Another activation came first.
    #[error("{by} came into force meanwhile; look at it, and activate again if yours is to replace it")]
    Overtaken {
        /// What is in force.
        by: String,
    },
    /// It is in force.
    #[error("nothing to do: {0} is in force already")]
    Already(String),
    /// No such decision.
    #[error("there is no record of a decision `{0}`: is the id whole, and was the trail archived since?")]
    NoSuchDecision(String),
    /// The decision was recorded without what was asked.
    #[error("what was asked with decision {0} was too large to be recorded: only its digest is there")]
    WithoutInputs(RecordId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PolicyError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Bundle(_) => "policy_refused",
            Self::CasesFail { .. } => "policy_cases_fail",
            Self::NameTaken => "policy_name_taken",
            Self::NoSuchBundle(_) => "no_such_policy",
            Self::Overtaken { .. } => "policy_overtaken",
            Self::Already(_) => "policy_already_active",
            Self::NoSuchDecision(_) => "no_such_decision",
            Self::WithoutInputs(_) => "decision_without_inputs",
            Self::Store(_) => "store_failed",
        }
    }
}

/// What another bundle would have made of recorded decisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// The bundle.
    pub bundle: String,
    /// Decisions that were looked at.
    pub decisions: u64,
    /// Of these, those that were recorded without what was asked.
    pub without_inputs: u64,
    /// Those whose caller might not ask about the subject: whether it might now is not looked at.
    pub not_asked: u64,
    /// Those that would be denied and were allowed.
    pub now_denied: u64,
    /// Those that would be allowed and were denied.
    pub now_allowed: u64,
    /// The latest of those that would change.
    pub changes: Vec<Change>,
}

/// A recorded decision that would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub id: RecordId,
    /// When it was made.
    pub at: Timestamp,
    /// `type:id` of the subject.
    pub subject: String,
    /// The action.
    pub action: String,
    /// `type:id` of the resource.
    pub resource: String,
    /// The code that it had.
    pub was: String,
    /// The code that it would have.
    pub would_be: String,
    /// Which policies would determine it.
    pub policies: Vec<String>,
}

/// A decision, explained.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explained {
    /// The record.
    pub record: SequencedRecord,
    /// By the bundle that decided.
    pub bundle: String,
    /// Which policies determined it, with which attested facts, and what would have allowed it.
    pub explanation: serde_json::Value,
    /// The same in words, a line each.
    pub words: Vec<String>,
}

/// Decisions that would change, in detail; of the others there are counts.
const MOST_CHANGES: usize = 100;
/// Records that are read at once.
const PAGE: u32 = 500;

impl Verifier {
    /// Writes the next version of a bundle. It is compiled and its cases are run first; it is not in force by that. With it
    /// comes what the compiler warns of.
    pub async fn put_policy(
        &self,
        name: Name,
        source: BundleSource,
        operator: &Operator,
    ) -> Result<(PolicyBundleRecord, Vec<String>), PolicyError> {
        if name.as_str() == BUILTIN {
            return Err(PolicyError::NameTaken);
        }
        let (bundle, text) = compiled(Versioned { name: name.clone(), version: 1 }, source).await?;
        let record = self.policy_record("put_policy", name.as_str(), operator);
        let record = self.store.put_policy_bundle(name, text, self.provenance(operator), record).await?;
        tracing::info!(policy = %record.id, author = %operator.author, "policy bundle written");
        Ok((record, bundle.warnings().to_vec()))
    }

    /// A bundle's files, and who wrote it (nobody, where it is part of the program).
    pub async fn policy_source(
        &self,
        which: &WhichBundle,
    ) -> Result<(Option<PolicyBundleRecord>, BundleSource), PolicyError> {
        let WhichBundle::Written { name, version } = which else {
            return Ok((None, Bundle::builtin_source()));
        };
        let found = self.store.policy_bundle(name, *version).await?;
        let (record, text) = found.ok_or_else(|| PolicyError::NoSuchBundle(which.to_string()))?;
        let source = parse(&record.id, &text)?;
        Ok((Some(record), source))
    }

    /// Puts a bundle in force. `over` is the activation that it is to replace (0: none yet); where it is not said, the one of
    /// this moment. Of two operators who do this at once, one is told.
    pub async fn activate_policy(
        &self,
        which: &WhichBundle,
        over: Option<u64>,
        operator: &Operator,
    ) -> Result<Activation, PolicyError> {
        let before = self.store.policy_activation().await?;
        let over = over.unwrap_or_else(|| before.as_ref().map_or(0, |before| before.number));
        let (record, source) = self.policy_source(which).await?;
        let id = record.map(|record| record.id);
        if before.as_ref().is_some_and(|before| before.number == over && before.bundle == id) {
            return Err(PolicyError::Already(which.to_string()));
        }
        let (bundle, _) = compiled(id.clone().unwrap_or_else(builtin_id), source).await?;
        // What memory has is what the store has last: nobody gets between the two.
        let _change = self.changes.lock().await;
        let record = self.policy_record("activate_policy", &bundle.id().name.to_string(), operator);
        let record = record.by(&bundle.id().to_string());
        match self.store.activate_policy(id, over, self.provenance(operator), record).await? {
            Activated::Yes(activation) => {
                self.activate_policies(bundle);
                tracing::info!(policy = %which, author = %operator.author, "policy bundle activated");
                Ok(activation)
            }
            Activated::Overtaken { by } => Err(PolicyError::Overtaken { by: in_words(by.as_ref()) }),
            Activated::NoSuchVersion => Err(PolicyError::NoSuchBundle(which.to_string())),
        }
    }

    fn policy_record(&self, action: &str, name: &str, operator: &Operator) -> AuditRecord {
        self.record_of(RecordKind::PolicyChange, action, operator.actor(), Told::Done, action)
            .about(Entity::named("policy_bundle", name))
            .because(&operator.reason)
    }

    /// What a bundle would make of the last recorded decisions: those that services asked for.
    pub async fn rehearse(&self, which: &WhichBundle, last: u64) -> Result<Rehearsal, PolicyError> {
        let bundle = self.policy(which).await?;
        let mut rehearsal = Rehearsal {
            bundle: bundle.id().to_string(),
            decisions: 0,
            without_inputs: 0,
            not_asked: 0,
            now_denied: 0,
            now_allowed: 0,
            changes: Vec::new(),
        };
        let filter = RecordFilter { kinds: vec![RecordKind::Decision], ..RecordFilter::default() };
        let mut before = None;
        while rehearsal.decisions < last {
            let left = u32::try_from(last - rehearsal.decisions).unwrap_or(PAGE).min(PAGE);
            let page = self.store.records(&filter, before, left).await?;
            for record in &page.records {
                rehearsal.look_at(&bundle, record);
            }
            match page.before {
                Some(next) => before = Some(next),
                None => break,
            }
        }
        Ok(rehearsal)
    }

    /// A decision: what was asked, what was attested, which policies determined it, and what would have allowed it.
    pub async fn explain(&self, id: RecordId) -> Result<Explained, PolicyError> {
        let record = self.store.record(id).await?;
        let decides =
            |kind| matches!(kind, RecordKind::Decision | RecordKind::Issuance | RecordKind::Refusal);
        let record = record.filter(|found| decides(found.record.kind));
        let record = record.ok_or_else(|| PolicyError::NoSuchDecision(id.to_string()))?;
        let Inputs { question, attested, policy, not_asked } =
            Inputs::of(&record).ok_or(PolicyError::WithoutInputs(id))?;
        let which = which_bundle(&policy).ok_or(PolicyError::NoSuchBundle(policy))?;
        let bundle = self.policy(&which).await?;
        let explanation = bundle.explain(&question, &attested);
        let mut words = in_lines(&question, &explanation);
        if not_asked {
            words.insert(
                0,
                "the caller may not ask about this subject, and heard no more than that; else:".to_owned(),
            );
        }
        let explanation = serde_json::to_value(&explanation).unwrap_or_default();
        Ok(Explained { record, bundle: bundle.id().to_string(), explanation, words })
    }

    /// A bundle, compiled.
    async fn policy(&self, which: &WhichBundle) -> Result<Bundle, PolicyError> {
        let (record, source) = self.policy_source(which).await?;
        let id = record.map_or_else(builtin_id, |record| record.id);
        in_the_background(move || Ok(Bundle::compile(id, source)?)).await
    }

    /// The bundle that is in force by the store, compiled.
    pub(super) async fn policy_in_force(store: &dyn crate::store::Store) -> Result<Bundle, StoreError> {
        let inconsistent = |id: &Versioned, why: String| StoreError::Inconsistent {
            what: "policy bundle",
            id: id.to_string(),
            why,
        };
        let Some(id) = store.policy_activation().await?.and_then(|activation| activation.bundle) else {
            return Bundle::builtin().map_err(|error| inconsistent(&builtin_id(), error.to_string()));
        };
        let found = store.policy_bundle(&id.name, Some(id.version)).await?;
        let (_, text) = found.ok_or_else(|| inconsistent(&id, "it is in force and not there".to_owned()))?;
        let source = parse(&id, &text)?;
        Bundle::compile(id.clone(), source).map_err(|error| inconsistent(&id, error.to_string()))
    }
}

impl Rehearsal {
    fn look_at(&mut self, bundle: &Bundle, record: &SequencedRecord) {
        self.decisions += 1;
        let Some(Inputs { question, attested, not_asked, policy: _ }) = Inputs::of(record) else {
            self.without_inputs += 1;
            return;
        };
        if not_asked {
            // Whoever may not ask is denied whatever the policies for the question say.
            self.not_asked += 1;
            return;
        }
        let outcome = bundle.rehearse(&question, &attested);
        let was_allowed = record.record.outcome == Told::Granted;
        let count = match (was_allowed, outcome.allowed()) {
            (true, false) => &mut self.now_denied,
            (false, true) => &mut self.now_allowed,
            (true, true) | (false, false) => return,
        };
        *count += 1;
        if self.changes.len() < MOST_CHANGES {
            let named = |entity: &crate::policy::Entity| format!("{}:{}", entity.kind, entity.id);
            self.changes.push(Change {
                id: record.record.id,
                at: record.record.at,
                subject: named(question.subject()),
                action: question.action().name.clone(),
                resource: named(question.resource()),
                was: record.record.code.as_str().to_owned(),
                would_be: outcome.code().to_owned(),
                policies: outcome.determining().iter().map(ToString::to_string).collect(),
            });
        }
    }
}

/// What was asked and attested, as [`inputs_of`] wrote it.
#[derive(Deserialize)]
struct Inputs {
    question: Question,
    attested: RecordedFacts,
    policy: String,
    /// The caller might not ask about the subject.
    #[serde(default)]
    not_asked: bool,
}

impl Inputs {
    fn of(record: &SequencedRecord) -> Option<Self> {
        Self::deserialize(record.record.facts.as_ref()?.as_value()).ok()
    }
}

/// The member of [`inputs_of`] that is there where the caller might not ask.
pub(super) const NOT_ASKED: &str = "not_asked";

/// What was asked, as far as the schema declares it, what was attested, and which bundle decided: for the record.
pub(super) fn inputs_of(
    question: &Question,
    attested: &RecordedFacts,
    policy: &Versioned,
) -> Map<String, Value> {
    let value = |value: Result<Value, _>| value.unwrap_or_default();
    let members = [
        ("question", value(serde_json::to_value(question))),
        ("attested", value(serde_json::to_value(attested))),
        ("policy", policy.to_string().into()),
    ];
    members.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

/// The id of the bundle that is part of the program.
fn builtin_id() -> Versioned {
    Versioned { name: Name::builtin(), version: 1 }
}

fn which_bundle(version: &str) -> Option<WhichBundle> {
    let (name, version) = version.split_once('@')?;
    if name == BUILTIN {
        return Some(WhichBundle::Builtin);
    }
    Some(WhichBundle::Written { name: name.parse().ok()?, version: Some(version.parse().ok()?) })
}

fn parse(id: &Versioned, text: &[u8]) -> Result<BundleSource, StoreError> {
    serde_json::from_slice(text).map_err(|error| StoreError::Inconsistent {
        what: "policy bundle",
        id: id.to_string(),
        why: error.to_string(),
    })
}

/// Compiles a bundle and runs its cases; with its text for the store.
async fn compiled(id: Versioned, source: BundleSource) -> Result<(Bundle, Vec<u8>), PolicyError> {
    in_the_background(move || {
        let text = serde_json::to_vec(&source).map_err(|error| StoreError::Database(Box::new(error)))?;
        let bundle = Bundle::compile(id, source)?;
        let report = bundle.run_cases();
        let mut failures = report.iter().filter(|case| !case.passed());
        if let Some(first) = failures.next() {
            let (failed, cases) = (1 + failures.count(), report.len());
            return Err(PolicyError::CasesFail { failed, cases, first: failure(first) });
        }
        Ok((bundle, text))
    })
    .await
}

/// Beside what else the verifier does: a large bundle takes seconds.
async fn in_the_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PolicyError> + Send + 'static,
) -> Result<T, PolicyError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Database(Box::new(error)))?
}

/// An explanation in words.
fn in_lines(question: &Question, explanation: &Explanation) -> Vec<String> {
    let mut lines = Vec::new();
    let attested = serde_json::to_value(&explanation.facts).unwrap_or_default();
    if let Some(facts) = attested.as_object().and_then(|kinds| kinds.values().next()?.as_object()) {
        for (name, value) in facts {
            let read = if explanation.looked_at.contains(&name.as_str()) { "" } else { " (not looked at)" };
            lines.push(format!("attested.{name} = {value}{read}"));
        }
    }
    let asked = serde_json::to_value(question).unwrap_or_default();
    lines.push(format!("asked: {asked}"));
    for policy in &explanation.policies {
        let effect = if policy.forbids { "forbid" } else { "permit" };
        let state = match (policy.applies(), policy.missing().is_empty(), policy.forbids) {
            (true, _, true) => "forbids".to_owned(),
            (false, _, true) => "does not apply".to_owned(),
            (_, true, false) => "permits".to_owned(),
            (_, false, false) => format!("would permit with: {}", policy.missing().join("; ")),
        };
        lines.push(format!("{effect} {}: {state}", policy.name));
    }
    lines
}

/// A case that fails, in words.
pub(crate) fn failure(case: &CaseReport) -> String {
    let said = |what: &Expected| {
        let decision = if what.decision { "allowed" } else { "denied" };
        let fresh =
            what.step_up.map(|within| format!(", evidence of {within} s at most")).unwrap_or_default();
        format!("{decision} ({}{fresh}) by [{}]", what.code, what.policies.join(", "))
    };
    format!("{}: {}: expected {}, found {}", case.file, case.name, said(&case.expected), said(&case.found))
}

/// What is in force.
pub(crate) fn in_words(activation: Option<&Activation>) -> String {
    match activation.map(|activation| (&activation.bundle, activation.number)) {
        Some((Some(bundle), number)) => format!("{bundle} (activation {number})"),
        Some((None, number)) => format!("{BUILTIN} (activation {number})"),
        None => format!("{BUILTIN} (never activated)"),
    }
}
