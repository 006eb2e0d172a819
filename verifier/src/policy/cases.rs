//! Cases: questions with facts written down, and what the policies beside them are to say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bundle::{Bundle, FileName};
use super::decide::Judgement;
use super::error::BundleError;
use super::facts::RecordedFacts;
use super::question::Question;

/// A case. A file in `tests/` is a JSON array of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// A sentence: what is to happen.
    pub name: String,
    /// What is asked, in the form of AuthZEN.
    pub question: Question,
    /// What is attested of the subject.
    pub facts: RecordedFacts,
    /// What is to come of it.
    pub expect: Expected,
}

/// What is to come of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Whether it is allowed.
    pub decision: bool,
    /// The code.
    pub code: String,
    /// The policies that determine it, in any order.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Seconds of the step-up that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_up: Option<u64>,
}

impl Expected {
    fn of(judgement: &Judgement) -> Self {
        Self {
            decision: judgement.allowed(),
            code: judgement.code().to_owned(),
            policies: judgement.determining().iter().map(ToString::to_string).collect(),
            step_up: judgement.step_up().map(|within| within.as_secs()),
        }
    }
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseReport {
    /// Where it stands.
    pub file: FileName,
    /// Its name.
    pub name: String,
    /// What was to come of it.
    pub expected: Expected,
    /// What did.
    pub found: Expected,
}

impl CaseReport {
    /// Whether they are the same.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.expected == self.found
    }
}

impl Case {
    /// Cases of a bundle.
    pub const MAX: usize = 2_000;

    pub(super) fn parse_all(
        files: &BTreeMap<FileName, String>,
    ) -> Result<Vec<(FileName, Self)>, BundleError> {
        let mut all = Vec::new();
        for (file, text) in files {
            let mut cases: Vec<Self> = serde_json::from_str(text).map_err(|error| {
                BundleError::CaseUnparsable { file: file.clone(), detail: error.to_string() }
            })?;
            let count = all.len().saturating_add(cases.len());
            if count > Self::MAX {
                return Err(BundleError::TooManyCases { count });
            }
            for case in &mut cases {
                case.expect.policies.sort_unstable();
            }
            all.extend(cases.into_iter().map(|case| (file.clone(), case)));
        }
        Ok(all)
    }

    pub(super) fn run(&self, file: &FileName, bundle: &Bundle) -> CaseReport {
        CaseReport {
            file: file.clone(),
            name: self.name.clone(),
            expected: self.expect.clone(),
            found: Expected::of(&bundle.rehearse(&self.question, &self.facts)),
        }
    }
}
