//! One TPM's clock and counters only go forward.
//!
//! TPM 2.0 Part 1, 36: resetCount counts boots and never falls; restartCount counts resumes and is zero again after a
//! boot; Clock counts milliseconds of power, is saved now and then, and after a power cut falls back to what was saved
//! last, with `safe` off until it has passed every value that it ever showed.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::tpm::ClockState;

use crate::node::LastSeen;

/// Clock is saved to non-volatile memory at least this often: 2^22 ms (Part 1, 36.3.2). After a power cut it falls
/// back by no more.
const SAVE_INTERVAL_MILLIS: u64 = 1 << 22;

/// What a new quote's clock says about the time since the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// There was no quote before.
    First,
    /// The machine booted or resumed in between: Clock stood still for an unknown time.
    Interrupted,
    /// Powered throughout: the TPM counted so much time since the last accepted quote.
    Continuous {
        /// By the TPM's clock.
        elapsed: Duration,
    },
}

/// Why a quote cannot come from the TPM that was seen last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContinuityError {
    /// Fewer boots than before.
    #[error("resetCount went back from {last} to {now}: a copy or a rolled-back snapshot of this TPM")]
    ResetCount {
        /// Of the last accepted quote.
        last: u32,
        /// Of this one.
        now: u32,
    },
    /// Fewer resumes than before, within one boot.
    #[error("restartCount went back from {last} to {now} within one boot: a copy or a rolled-back snapshot")]
    RestartCount {
        /// Of the last accepted quote.
        last: u32,
        /// Of this one.
        now: u32,
    },
    /// Less time than before, and no power cut explains it.
    #[error("clock went back from {last} ms to {now} ms: a copy or a rolled-back snapshot of this TPM")]
    Clock {
        /// Of the last accepted quote.
        last: u64,
        /// Of this one.
        now: u64,
    },
    /// Other firmware without a boot.
    #[error("firmware version changed from {last:#x} to {now:#x} within one boot")]
    FirmwareWithinBoot {
        /// Of the last accepted quote.
        last: u64,
        /// Of this one.
        now: u64,
    },
    /// Older firmware than before.
    #[error(
        "TPM firmware went back from {last:#x} to {now:#x}; where that was meant, retire the node and approve it again"
    )]
    FirmwareRollback {
        /// Of the last accepted quote.
        last: u64,
        /// Of this one.
        now: u64,
    },
}

/// Compares a quote's clock with that of the last accepted one.
///
/// Established when this returns: resetCount has not fallen; within one boot neither restartCount, Clock nor the
/// firmware version changed backwards or at all; across boots Clock has not fallen, save after a power cut and by no
/// more than one save interval; the firmware is no older.
pub fn check(
    last: Option<&LastSeen>,
    clock: ClockState,
    firmware_version: u64,
) -> Result<Continuity, ContinuityError> {
    let Some(last) = last else { return Ok(Continuity::First) };
    let before = last.clock;
    if clock.reset_count < before.reset_count {
        return Err(ContinuityError::ResetCount { last: before.reset_count, now: clock.reset_count });
    }
    let went_back = Err(ContinuityError::Clock { last: before.clock, now: clock.clock });
    if clock.reset_count == before.reset_count {
        if clock.restart_count < before.restart_count {
            let (last, now) = (before.restart_count, clock.restart_count);
            return Err(ContinuityError::RestartCount { last, now });
        }
        if firmware_version != last.firmware_version {
            let (last, now) = (last.firmware_version, firmware_version);
            return Err(ContinuityError::FirmwareWithinBoot { last, now });
        }
        let Some(elapsed) = clock.clock.checked_sub(before.clock) else { return went_back };
        return Ok(if clock.restart_count == before.restart_count {
            Continuity::Continuous { elapsed: Duration::from_millis(elapsed) }
        } else {
            Continuity::Interrupted
        });
    }
    let fell_by = before.clock.saturating_sub(clock.clock);
    if fell_by > SAVE_INTERVAL_MILLIS || (fell_by > 0 && clock.safe) {
        return went_back;
    }
    if firmware_version < last.firmware_version {
        let (last, now) = (last.firmware_version, firmware_version);
        return Err(ContinuityError::FirmwareRollback { last, now });
    }
    Ok(Continuity::Interrupted)
}

/// The earliest time at which a quote can have been made, given that it answers a challenge of `issued_at` and arrived
/// at `now`.
///
/// The challenge of the steady state is minted one interval before it is to be answered; a machine that quotes at once,
/// is taken over, and submits late, would look fresh by the time of arrival. Two bounds hold: no quote is older than
/// its challenge; and where the TPM was powered since the last accepted quote, what it counted since then says how long
/// after that one this was made. The later bound is returned.
///
/// The last quote counts from when it was *made*, at the earliest, not from when it arrived: else a machine could be a
/// little later each time, and what it holds back would add up. A TPM's clock that is slow adds up, too, until a quote
/// counts as too old; the fresh challenge that follows starts anew.
#[must_use]
pub(super) fn made_no_earlier_than(
    continuity: Continuity,
    last: Option<&LastSeen>,
    issued_at: Timestamp,
    now: Timestamp,
) -> Timestamp {
    match (continuity, last) {
        (Continuity::Continuous { elapsed }, Some(last)) => {
            issued_at.max(last.made_at.plus(elapsed).min(now))
        }
        (Continuity::Continuous { .. } | Continuity::First | Continuity::Interrupted, _) => {
            issued_at.min(now)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRMWARE: u64 = 0x2000;

    fn state(reset_count: u32, restart_count: u32, clock: u64, safe: bool) -> ClockState {
        ClockState { clock, reset_count, restart_count, safe }
    }

    fn last() -> LastSeen {
        LastSeen {
            clock: state(5, 2, 10_000_000, true),
            firmware_version: FIRMWARE,
            made_at: Timestamp::from_millis(1_000_000),
        }
    }

    fn continuity(now: ClockState, firmware: u64) -> Result<Continuity, ContinuityError> {
        check(Some(&last()), now, firmware)
    }

    #[test]
    fn forward_is_accepted() {
        let elapsed = Duration::from_millis(5);
        for (case, now, expected) in [
            ("later in the same boot", state(5, 2, 10_000_005, true), Continuity::Continuous { elapsed }),
            ("resumed from suspend", state(5, 3, 10_000_005, true), Continuity::Interrupted),
            (
                "reboot after suspend: restartCount falls",
                state(6, 0, 10_000_005, true),
                Continuity::Interrupted,
            ),
            ("power cut, clock not safe yet", state(6, 0, 9_000_000, false), Continuity::Interrupted),
        ] {
            assert_eq!(continuity(now, FIRMWARE), Ok(expected), "{case}");
        }
        assert_eq!(check(None, state(0, 0, 0, false), 0), Ok(Continuity::First));
        assert_eq!(continuity(state(6, 0, 10_000_005, true), FIRMWARE + 1), Ok(Continuity::Interrupted));
    }

    #[test]
    fn back_is_refused() {
        use ContinuityError::{Clock, FirmwareRollback, FirmwareWithinBoot, ResetCount, RestartCount};
        let clock = |now| Clock { last: 10_000_000, now };
        let too_far = 10_000_000 - SAVE_INTERVAL_MILLIS - 1;
        for (now, firmware, expected) in [
            (state(4, 9, 99_000_000, true), FIRMWARE, ResetCount { last: 5, now: 4 }),
            (state(5, 1, 99_000_000, true), FIRMWARE, RestartCount { last: 2, now: 1 }),
            (state(5, 2, 9_999_999, true), FIRMWARE, clock(9_999_999)),
            (state(5, 2, 9_999_999, false), FIRMWARE, clock(9_999_999)),
            (state(6, 0, 9_999_999, true), FIRMWARE, clock(9_999_999)),
            (state(6, 0, too_far, false), FIRMWARE, clock(too_far)),
            (
                state(5, 2, 10_000_001, true),
                FIRMWARE + 1,
                FirmwareWithinBoot { last: FIRMWARE, now: FIRMWARE + 1 },
            ),
            (
                state(6, 0, 10_000_001, true),
                FIRMWARE - 1,
                FirmwareRollback { last: FIRMWARE, now: FIRMWARE - 1 },
            ),
        ] {
            assert_eq!(continuity(now, firmware), Err(expected));
        }
    }

    #[test]
    fn a_quote_made_at_once_and_submitted_late_is_dated_by_the_tpms_clock() {
        let last = last();
        let (issued, now) = (Timestamp::from_millis(1_000_000), Timestamp::from_millis(1_060_000));
        let made = |continuity| made_no_earlier_than(continuity, Some(&last), issued, now);
        let at = |millis| Continuity::Continuous { elapsed: Duration::from_millis(millis) };
        assert_eq!(made(at(0)), issued);
        assert_eq!(made(at(59_000)), Timestamp::from_millis(1_059_000));
        assert_eq!(made(at(90_000)), now, "a fast clock does not date it into the future");
        assert_eq!(made(Continuity::Interrupted), issued);
    }

    #[test]
    fn what_is_held_back_a_little_longer_each_time_adds_up() {
        // The challenge of each round is minted when the answer to the last one arrives. The machine quotes 60 s after that,
        // and submits 29 s later than it did in the round before: at most 30 s are forgiven, in all.
        let mut last = last();
        let (mut issued, mut lateness) = (1_000_000, 0);
        for round in 1..=5i64 {
            let made = issued - lateness + 60_000;
            lateness += 29_000;
            let now = Timestamp::from_millis(made + lateness);
            let elapsed = Duration::from_millis(60_000);
            let dated = made_no_earlier_than(
                Continuity::Continuous { elapsed },
                Some(&last),
                Timestamp::from_millis(issued),
                now,
            );
            assert!(dated.as_millis() <= made.max(issued), "round {round} is dated after it was made");
            last.made_at = dated;
            issued = now.as_millis();
        }
    }
}
