//! `appraise`: evidence in files, shown and judged.
//!
//! - `input`: the files that the command line names, or those of a bundle
//! - `report`: what was found, in words; as JSON it is shown as it is
//! - `logs`: of that, the boot event log and the IMA list
//! - `story`: a boot out of its events: firmware, Secure Boot, stages, kernel
//! - `text`: the report for people
//!
//! The judging is `flows::offline`'s, on the road of the service.

mod input;
mod logs;
mod report;
mod story;
mod text;

pub(super) use input::{Appraise, AppraiseError};

use super::{Exit, Show};
use crate::flows::offline::{Outcome, examine};
use report::Report;

impl Appraise {
    /// Examines the files.
    pub(super) fn run(&self) -> Result<(Shown, Exit), AppraiseError> {
        let expectation = self.expectation()?;
        let input = self.input()?;
        let examined =
            examine(&input.parts, expectation.as_ref()).map_err(|source| input.unreadable_list(source))?;
        let exit = match examined.outcome {
            Outcome::Affirming => Exit::Done,
            Outcome::ViolatesPolicy => Exit::ViolatesPolicy,
            Outcome::BadEvidence => Exit::BadEvidence,
            Outcome::CannotJudge => Exit::CannotJudge,
        };
        let texts = input.known_texts(expectation.as_ref());
        let report = Report::of(&examined, expectation.is_some(), exit.code(), &texts);
        Ok((Shown { report, events: self.events }, exit))
    }
}

/// A report, and how much of it people asked for.
pub(super) struct Shown {
    report: Report,
    events: bool,
}

impl Show for Shown {
    fn text(&self) -> String {
        text::of(&self.report, self.events)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::to_value(&self.report).unwrap_or_default()
    }
}
