//! Response codes: their layer, their name, and what they call for.

use std::fmt;

use tss_esapi::Error;
use tss_esapi::constants::response_code::Tss2ResponseCode;

/// A TSS2_RC: the layer that it comes from, and what that layer says (Part 2, 6.6; TSS 2.0 Overview, 4.1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(u32);

/// What a response calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Not executed: send it again after a pause.
    Busy,
    /// PCRs changed within a policy session: begin the session again.
    PcrChanged,
    /// A policy is not satisfied.
    Policy,
    Authorization,
    Lockout,
    Memory,
    /// An integrity check failed: something was wrapped by or for another TPM.
    Integrity,
    /// A handle or a saved context that the TPM does not know any more.
    Gone,
    Unsupported,
    NotStarted,
    FailureMode,
    /// The transport: nobody answers.
    Transport,
    /// A layer of libtss2 below the TPM: its context is of no use any more.
    Stack,
    Other,
}

impl ResponseCode {
    const TPM_LAYER: u32 = 0;
    const ESYS_LAYER: u32 = 7;
    const TCTI_LAYER: u32 = 10;
    /// A resource manager that answers in the TPM's place and codes; the kernel's does.
    const RESOURCE_MANAGER_TPM_LAYER: u32 = 11;
    const RESOURCE_MANAGER_LAYER: u32 = 12;
    /// TSS2_BASE_RC_BAD_SEQUENCE: what ESYS says to everything after a transport error, forever.
    const BAD_SEQUENCE: u32 = 7;
    /// TSS2_BASE_RC_IO_ERROR.
    const IO_ERROR: u32 = 10;

    /// The code, with the layer in bits 16 to 23.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    pub(super) const fn new(value: u32) -> Self {
        Self(value)
    }

    const fn layer(self) -> u32 {
        self.0 >> 16 & 0xff
    }

    const fn is_from_tpm(self) -> bool {
        matches!(self.layer(), Self::TPM_LAYER | Self::RESOURCE_MANAGER_TPM_LAYER)
    }

    /// The TPM's code without the parameter, handle or session that it is about (Part 2, 6.6.2).
    const fn base(self) -> u32 {
        const FORMAT_ONE: u32 = 0x080;
        if self.0 & FORMAT_ONE != 0 { self.0 & 0x0bf } else { self.0 & 0x97f }
    }

    pub(super) const fn class(self) -> Class {
        if !self.is_from_tpm() {
            let gone = matches!(self.0 & 0xffff, Self::BAD_SEQUENCE | Self::IO_ERROR);
            return match self.layer() {
                Self::TCTI_LAYER => Class::Transport,
                Self::ESYS_LAYER if gone => Class::Transport,
                Self::RESOURCE_MANAGER_LAYER => Class::Transport,
                _ => Class::Stack,
            };
        }
        match self.base() {
            // YIELDED, CANCELED, TESTING, NV_RATE, RETRY, NV_UNAVAILABLE
            0x908..=0x90a | 0x920 | 0x922 | 0x923 => Class::Busy,
            0x128 => Class::PcrChanged,
            // POLICY, POLICY_FAIL, EXPIRED, POLICY_CC
            0x126 | 0x09d | 0x0a3 | 0x0a4 => Class::Policy,
            // AUTH_TYPE, AUTH_MISSING, AUTH_UNAVAILABLE, AUTH_FAIL, BAD_AUTH
            0x124 | 0x125 | 0x12f | 0x08e | 0x0a2 => Class::Authorization,
            0x921 => Class::Lockout,
            // CONTEXT_GAP, OBJECT_MEMORY, SESSION_MEMORY, MEMORY, SESSION_HANDLES, OBJECT_HANDLES, TOO_MANY_CONTEXTS
            0x901..=0x906 | 0x12e => Class::Memory,
            // INTEGRITY, BINDING, SENSITIVE
            0x09f | 0x0a5 | 0x155 => Class::Integrity,
            // HANDLE, REFERENCE_H0 to _H6 and _S0 to _S6
            0x08b | 0x910..=0x916 | 0x918..=0x91e => Class::Gone,
            // COMMAND_CODE, ASYMMETRIC, HASH, KEY_SIZE, MGF, MODE, KDF, SCHEME, SYMMETRIC, CURVE
            0x143 | 0x081 | 0x083 | 0x087..=0x089 | 0x08c | 0x092 | 0x096 | 0x0a6 => Class::Unsupported,
            0x100 => Class::NotStarted,
            0x101 => Class::FailureMode,
            _ => Class::Other,
        }
    }

    /// The name in Part 2, table 17.
    const fn name(self) -> Option<&'static str> {
        if !self.is_from_tpm() {
            return match (self.layer(), self.0 & 0xffff) {
                (Self::TCTI_LAYER, Self::IO_ERROR) => Some("TSS2_TCTI_RC_IO_ERROR"),
                (Self::TCTI_LAYER, _) => Some("transport"),
                (Self::ESYS_LAYER, Self::BAD_SEQUENCE) => Some("TSS2_ESYS_RC_BAD_SEQUENCE"),
                (Self::ESYS_LAYER, _) => Some("libtss2-esys"),
                (Self::RESOURCE_MANAGER_LAYER, _) => Some("resource manager"),
                _ => Some("libtss2"),
            };
        }
        Some(match self.base() {
            0x081 => "TPM_RC_ASYMMETRIC",
            0x082 => "TPM_RC_ATTRIBUTES",
            0x083 => "TPM_RC_HASH",
            0x084 => "TPM_RC_VALUE",
            0x085 => "TPM_RC_HIERARCHY",
            0x087 => "TPM_RC_KEY_SIZE",
            0x08a => "TPM_RC_TYPE",
            0x08b => "TPM_RC_HANDLE",
            0x08e => "TPM_RC_AUTH_FAIL",
            0x092 => "TPM_RC_SCHEME",
            0x095 => "TPM_RC_SIZE",
            0x096 => "TPM_RC_SYMMETRIC",
            0x09a => "TPM_RC_INSUFFICIENT",
            0x09c => "TPM_RC_KEY",
            0x09d => "TPM_RC_POLICY_FAIL",
            0x09f => "TPM_RC_INTEGRITY",
            0x0a2 => "TPM_RC_BAD_AUTH",
            0x0a5 => "TPM_RC_BINDING",
            0x0a6 => "TPM_RC_CURVE",
            0x100 => "TPM_RC_INITIALIZE",
            0x101 => "TPM_RC_FAILURE",
            0x120 => "TPM_RC_DISABLED",
            0x124 => "TPM_RC_AUTH_TYPE",
            0x126 => "TPM_RC_POLICY",
            0x128 => "TPM_RC_PCR_CHANGED",
            0x12e => "TPM_RC_TOO_MANY_CONTEXTS",
            0x12f => "TPM_RC_AUTH_UNAVAILABLE",
            0x143 => "TPM_RC_COMMAND_CODE",
            0x14a => "TPM_RC_NV_UNINITIALIZED",
            0x901 => "TPM_RC_CONTEXT_GAP",
            0x902 => "TPM_RC_OBJECT_MEMORY",
            0x903 => "TPM_RC_SESSION_MEMORY",
            0x904 => "TPM_RC_MEMORY",
            0x905 => "TPM_RC_SESSION_HANDLES",
            0x906 => "TPM_RC_OBJECT_HANDLES",
            0x908 => "TPM_RC_YIELDED",
            0x909 => "TPM_RC_CANCELED",
            0x90a => "TPM_RC_TESTING",
            0x910 => "TPM_RC_REFERENCE_H0",
            0x918 => "TPM_RC_REFERENCE_S0",
            0x920 => "TPM_RC_NV_RATE",
            0x921 => "TPM_RC_LOCKOUT",
            0x922 => "TPM_RC_RETRY",
            0x923 => "TPM_RC_NV_UNAVAILABLE",
            _ => return None,
        })
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} {:#x}", self.0),
            None => write!(f, "response code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResponseCode({self})")
    }
}

/// The code of an error; `None` where tss-esapi itself, not libtss2 or the TPM, refuses.
pub(super) fn code_of(error: &Error) -> Option<ResponseCode> {
    // tss-esapi 7.7 keeps the number private, and shows it only in this text: "Response code value: 0x99d". Its own
    // enum loses the layer, and takes a transport error (0xa000a) for a code of the TPM.
    let text = match error {
        Error::WrapperError(_) => return None,
        Error::Tss2Error(Tss2ResponseCode::Success) => return Some(ResponseCode(0)),
        Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => code.to_string(),
        Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => code.to_string(),
    };
    let (_, hex) = text.rsplit_once("0x")?;
    u32::from_str_radix(hex, 16).ok().map(ResponseCode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_an_error_is_the_number_that_libtss2_gave() {
        for code in [0x99d, 0x128, 0x902, 0x000a_000a, 0x0007_0007, 0x000b_0143, 0x1df] {
            assert_eq!(code_of(&Error::Tss2Error(code.into())), Some(ResponseCode(code)), "{code:#x}");
        }
        assert_eq!(code_of(&Error::WrapperError(tss_esapi::WrapperErrorKind::InvalidParam)), None);
    }

    /// Codes as swtpm, a kernel with its resource manager, and libtss2 3.2.1 give them.
    #[test]
    fn codes_are_told_apart_by_what_they_call_for() {
        for (code, class) in [
            (0x922, Class::Busy),
            (0x90a, Class::Busy),
            (0x920, Class::Busy),
            (0x128, Class::PcrChanged),
            (0x99d, Class::Policy),
            (0x9a2, Class::Authorization),
            (0x98e, Class::Authorization),
            (0x12f, Class::Authorization),
            (0x921, Class::Lockout),
            (0x902, Class::Memory),
            (0x903, Class::Memory),
            (0x1df, Class::Integrity),
            (0x18b, Class::Gone),
            (0x910, Class::Gone),
            (0x918, Class::Gone),
            (0x143, Class::Unsupported),
            (0x000b_0143, Class::Unsupported),
            (0x2c3, Class::Unsupported),
            (0x100, Class::NotStarted),
            (0x101, Class::FailureMode),
            (0x1c4, Class::Other),
            (0x000a_000a, Class::Transport),
            (0x0007_0007, Class::Transport),
            (0x0007_000b, Class::Stack),
            (0x0009_0006, Class::Stack),
        ] {
            assert_eq!(ResponseCode(code).class(), class, "{code:#x}");
        }
    }

    #[test]
    fn codes_print_with_their_name() {
        assert_eq!(ResponseCode(0x99d).to_string(), "TPM_RC_POLICY_FAIL 0x99d");
        assert_eq!(ResponseCode(0x000a_000a).to_string(), "TSS2_TCTI_RC_IO_ERROR 0xa000a");
        assert_eq!(ResponseCode(0x5ff).to_string(), "response code 0x5ff");
    }
}
