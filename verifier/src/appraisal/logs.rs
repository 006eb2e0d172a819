//! What became of the logs that came with a quote, and what deviates in them.

use super::boot::{BootDeviation, BootRules, judge, judge_denied};
use super::runtime::{RuntimeAppraisal, RuntimeDeviation};
use crate::evidence::boot_log::{BootHistory, BootLogError};
use crate::evidence::frame::FrameError;
use crate::evidence::ima::ImaError;
use crate::reference::DenyList;

/// The logs of a machine, as far as they were asked for and came. What is not there explains nothing.
#[derive(Debug)]
pub struct Logs {
    /// The boot event log.
    pub boot: BootEvidence,
    /// The IMA list.
    pub runtime: RuntimeEvidence,
}

impl Logs {
    /// None came.
    #[must_use]
    pub const fn none() -> Self {
        Self { boot: BootEvidence::NotSent, runtime: RuntimeEvidence::NotSent }
    }
}

/// What became of the boot event log.
#[derive(Debug)]
pub enum BootEvidence {
    /// It did not come.
    NotSent,
    /// The machine says that its kernel exposes none.
    Absent,
    /// What came does not decompress.
    Damaged(FrameError),
    /// It is no log, or does not come to the quoted values.
    Refused(BootLogError),
    /// It does.
    Authentic(BootHistory),
}

/// What became of the IMA list.
#[derive(Debug)]
pub enum RuntimeEvidence {
    /// It did not come.
    NotSent,
    /// The machine says that its kernel exposes none.
    Absent,
    /// What came does not decompress.
    Damaged(FrameError),
    /// It does not go on where the last one ended.
    OutOfStep {
        /// The number of the first entry that came.
        from: u64,
        /// The one that was expected.
        expected: u64,
    },
    /// A part of it that is said not to be the last has no entry.
    EmptyPart,
    /// It comes in several messages, and there are more to come.
    Incomplete {
        /// Entries that have come.
        entries: u64,
    },
    /// It is no list, or does not come to the quoted value.
    Refused(ImaError),
    /// It does, and was judged.
    Judged(Box<RuntimeAppraisal>),
}

/// What deviates about a machine's boot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootFinding {
    /// Needed, and not there.
    #[error("the boot event log did not come, and the profile judges by it")]
    Missing,
    /// Needed, and the kernel has none.
    #[error(
        "the machine's kernel exposes no boot event log (GRUB's `linux` before 2.12 boots so without Secure Boot; \
         `linuxefi` or a kernel started by its EFI stub exposes one)"
    )]
    Absent,
    /// It does not decompress.
    #[error("the boot event log that came is damaged: {0}")]
    Damaged(FrameError),
    /// It is no evidence.
    #[error("the boot event log is refused: {0}")]
    Refused(BootLogError),
    /// It is, and something in it is not as the rules say.
    #[error(transparent)]
    Deviation(#[from] BootDeviation),
}

impl BootFinding {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "boot_log_missing",
            Self::Absent => "boot_log_absent",
            Self::Damaged(_) => "boot_log_damaged",
            Self::Refused(error) => error.code(),
            Self::Deviation(deviation) => deviation.code(),
        }
    }

    /// Whether a reference value would explain it. None explains a log that is not there, or is not the one that was measured:
    /// whoever has something to hide would keep silent.
    #[must_use]
    pub const fn is_explicable(&self) -> bool {
        match self {
            Self::Missing | Self::Absent | Self::Damaged(_) | Self::Refused(_) => false,
            Self::Deviation(deviation) => deviation.is_explicable(),
        }
    }
}

/// What deviates about what ran.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeFinding {
    /// Needed, and not there.
    #[error("the IMA list did not come, and the profile judges by it")]
    Missing,
    /// Needed, and the kernel has none.
    #[error("the machine's kernel exposes no IMA list")]
    Absent,
    /// It does not decompress.
    #[error("the IMA list that came is damaged: {0}")]
    Damaged(FrameError),
    /// It does not go on where the last one ended.
    #[error(
        "the IMA list that came begins with entry {from}, expected was {expected}: it is asked for from its beginning"
    )]
    OutOfStep {
        /// The number of the first entry that came.
        from: u64,
        /// The one that was expected.
        expected: u64,
    },
    /// A part of it has no entry.
    #[error(
        "a part of the IMA list that is said not to be the last has no entry: it is asked for from its beginning"
    )]
    EmptyPart,
    /// There is more to come.
    #[error(
        "of the IMA list {entries} entries have come so far, which no quote covers yet; the rest is asked for"
    )]
    Incomplete {
        /// Entries that have come.
        entries: u64,
    },
    /// It is no evidence.
    #[error("the IMA list is refused: {0}")]
    Refused(ImaError),
    /// It is, and something in it is not as the rules say.
    #[error(transparent)]
    Deviation(#[from] RuntimeDeviation),
    /// The same, of an entry that no quote covers yet: the machine's word.
    #[error("{0} (read after the quote, which does not cover it yet)")]
    NotCovered(RuntimeDeviation),
    /// There are more deviations than are kept.
    #[error("{more} more entries of the IMA list deviate")]
    More {
        /// How many.
        more: u64,
    },
}

impl RuntimeFinding {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "ima_list_missing",
            Self::Absent => "ima_list_absent",
            Self::Damaged(_) => "ima_list_damaged",
            Self::OutOfStep { .. } => "ima_list_out_of_step",
            Self::EmptyPart => "ima_list_part_empty",
            Self::Incomplete { .. } => "ima_list_incomplete",
            Self::Refused(error) => error.code(),
            Self::Deviation(deviation) | Self::NotCovered(deviation) => deviation.code(),
            Self::More { .. } => "runtime_more_deviations",
        }
    }

    /// Whether a reference value would explain it. None explains a list that is not there as a whole. What is denied is always
    /// among those that are kept.
    #[must_use]
    pub const fn is_explicable(&self) -> bool {
        match self {
            Self::Missing
            | Self::Absent
            | Self::Damaged(_)
            | Self::OutOfStep { .. }
            | Self::EmptyPart
            | Self::Incomplete { .. }
            | Self::Refused(_) => false,
            Self::Deviation(deviation) | Self::NotCovered(deviation) => deviation.is_explicable(),
            Self::More { .. } => true,
        }
    }
}

/// What deviates about the boot, by rules and by the deny list.
pub(super) fn judge_boot(evidence: &BootEvidence, rules: &BootRules, deny: &DenyList) -> Vec<BootFinding> {
    match evidence {
        BootEvidence::NotSent => vec![BootFinding::Missing],
        BootEvidence::Absent => vec![BootFinding::Absent],
        BootEvidence::Damaged(error) => vec![BootFinding::Damaged(*error)],
        BootEvidence::Refused(error) => vec![BootFinding::Refused(error.clone())],
        BootEvidence::Authentic(history) => {
            let denied = judge_denied(history, deny).into_iter();
            denied.chain(judge(history, rules)).map(BootFinding::Deviation).collect()
        }
    }
}

/// What deviates about what ran; the rules have judged already.
pub(super) fn judge_runtime(evidence: &RuntimeEvidence) -> Vec<RuntimeFinding> {
    match evidence {
        RuntimeEvidence::NotSent => vec![RuntimeFinding::Missing],
        RuntimeEvidence::Absent => vec![RuntimeFinding::Absent],
        RuntimeEvidence::Damaged(error) => vec![RuntimeFinding::Damaged(*error)],
        RuntimeEvidence::OutOfStep { from, expected } => {
            vec![RuntimeFinding::OutOfStep { from: *from, expected: *expected }]
        }
        RuntimeEvidence::EmptyPart => vec![RuntimeFinding::EmptyPart],
        RuntimeEvidence::Incomplete { entries } => vec![RuntimeFinding::Incomplete { entries: *entries }],
        RuntimeEvidence::Refused(error) => vec![RuntimeFinding::Refused(error.clone())],
        RuntimeEvidence::Judged(appraisal) => {
            let more = appraisal.more();
            let more = (more > 0).then_some(RuntimeFinding::More { more });
            let covered = appraisal.covered_deviations().cloned().map(RuntimeFinding::Deviation);
            let tail = appraisal.tail_deviations().cloned().map(RuntimeFinding::NotCovered);
            covered.chain(tail).chain(more).collect()
        }
    }
}
