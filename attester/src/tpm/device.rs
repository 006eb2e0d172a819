//! One context, its commands with their retries, and the guards that give back what a command took.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tss_esapi::Context;
use tss_esapi::constants::{CapabilityType, SessionType};
use tss_esapi::handles::{KeyHandle, ObjectHandle, SessionHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession as TssPolicySession};
use tss_esapi::structures::{CapabilityData, SymmetricDefinition};
use tss_esapi::utils::TpmsContext;

use super::response::{Class, code_of};
use super::{ResponseCode, TctiConfig, TpmError};

/// The sessions of one command.
pub(super) type Sessions = (Option<AuthSession>, Option<AuthSession>, Option<AuthSession>);

pub(super) const NO_SESSION: Sessions = (None, None, None);
/// An empty password. An HMAC session would prove the same emptiness for several milliseconds of libtss2's time: it
/// sets up a fresh OpenSSL context for each step of its cryptography (3.2.1).
pub(super) const PASSWORD: Sessions = (Some(AuthSession::Password), None, None);
pub(super) const TWO_PASSWORDS: Sessions = (Some(AuthSession::Password), Some(AuthSession::Password), None);

/// A connection to the TPM.
///
/// libtss2's context is of no use after any error that is not the TPM's own: it answers 0x70007 to everything from
/// then on, also when the TPM is back. `broken` says so, and the owner connects anew.
pub(super) struct Device {
    // Guards borrow the device and flush on drop, so commands need the context from a shared reference. It is never
    // borrowed for longer than one command.
    context: RefCell<Context>,
    deadline: Cell<Instant>,
    broken: Cell<bool>,
}

/// A command that did not succeed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) operation: &'static str,
    pub(super) class: Class,
    cause: Cause,
    attempts: u32,
}

#[derive(Debug, Clone)]
enum Cause {
    Code(ResponseCode),
    Binding(String),
}

impl Device {
    /// A TPM that is busy is asked again after 5 ms, then after twice as long each time.
    const FIRST_PAUSE: Duration = Duration::from_millis(5);
    /// Up to this: a TPM that limits its NV writes wants seconds, not minutes.
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);
    /// Some six seconds in all. ESYS itself sends a command five times at once before it reports RETRY.
    const ATTEMPTS: u32 = 12;

    /// Connects. Where the TPM is ours alone, what a killed predecessor left in it is flushed: swtpm has room for three
    /// objects and three sessions, and keeps them when its client dies.
    pub(super) fn connect(config: &TctiConfig, deadline: Instant) -> Result<Self, TpmError> {
        let tcti = config.to_tcti().ok_or_else(|| TpmError::Address(config.to_string()))?;
        let context = Context::new(tcti).map_err(|error| {
            let failure = Failure::new("connect", &error, 1);
            match failure.cause {
                // The loader says "not found" and the like in the TCTI's layer; nothing else can be meant here.
                Cause::Code(code) => TpmError::Unreachable { operation: "connect", code },
                Cause::Binding(_) => TpmError::Address(config.to_string()),
            }
        })?;
        let device =
            Self { context: RefCell::new(context), deadline: Cell::new(deadline), broken: Cell::new(false) };
        if config.is_owned() {
            device.sweep()?;
        }
        Ok(device)
    }

    /// Until when busy answers are retried.
    pub(super) fn set_deadline(&self, deadline: Instant) {
        self.deadline.set(deadline);
    }

    /// Whether the context is of no use any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Runs one command; again, after a pause, while the TPM says that it did not execute it.
    pub(super) fn run<T>(
        &self,
        operation: &'static str,
        sessions: Sessions,
        mut command: impl FnMut(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Failure> {
        let mut pause = Self::FIRST_PAUSE;
        let mut attempts = 1;
        loop {
            let mut context = self.context.borrow_mut();
            let result = context.execute_with_sessions(sessions, &mut command);
            drop(context);
            let failure = match result {
                Ok(value) => return Ok(value),
                Err(error) => Failure::new(operation, &error, attempts),
            };
            if matches!(failure.class, Class::Transport | Class::Stack) {
                self.broken.set(true);
            }
            let time_left = self.deadline.get().saturating_duration_since(Instant::now());
            if failure.class != Class::Busy || attempts >= Self::ATTEMPTS || time_left <= pause {
                return Err(failure);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Self::LONGEST_PAUSE);
            attempts += 1;
        }
    }

    /// Takes charge of an object that a command loaded.
    pub(super) fn guard(&self, handle: ObjectHandle) -> Object<'_> {
        Object { device: self, handle, release: Release::Flush }
    }

    /// A persistent object, to be let go of but not flushed.
    pub(super) fn persistent(&self, handle: TpmHandle) -> Result<Object<'_>, Failure> {
        let handle = self.run("TPM2_ReadPublic", NO_SESSION, |context| context.tr_from_tpm_public(handle))?;
        Ok(Object { device: self, handle, release: Release::Close })
    }

    /// An object from a saved context. After a reset of the TPM the context is refused.
    pub(super) fn load_context(&self, saved: &TpmsContext) -> Result<Object<'_>, Failure> {
        let handle =
            self.run("TPM2_ContextLoad", NO_SESSION, |context| context.context_load(saved.clone()))?;
        Ok(self.guard(handle))
    }

    /// Saves the context of a loaded object; the object stays loaded.
    pub(super) fn save_context(&self, object: &Object<'_>) -> Result<TpmsContext, Failure> {
        self.run("TPM2_ContextSave", NO_SESSION, |context| context.context_save(object.handle))
    }

    /// Begins a policy session, without parameter encryption.
    pub(super) fn policy_session(&self, hash: HashingAlgorithm) -> Result<PolicySession<'_>, TpmError> {
        let session = self.run("TPM2_StartAuthSession", NO_SESSION, |context| {
            context.start_auth_session(
                None,
                None,
                None,
                SessionType::Policy,
                SymmetricDefinition::AES_128_CFB,
                hash,
            )
        })?;
        match session {
            Some(AuthSession::PolicySession(session)) => Ok(PolicySession { device: self, session }),
            Some(AuthSession::HmacSession(_) | AuthSession::Password) | None => {
                Err(TpmError::Inconsistent("TPM2_StartAuthSession gives no policy session"))
            }
        }
    }

    /// Handles that exist, from `first` on, of the type of `first`.
    pub(super) fn handles(&self, first: u32) -> Result<Vec<TpmHandle>, TpmError> {
        // As many as fit in one answer (TPM2_MAX_CAP_HANDLES is 254).
        const COUNT: u32 = 254;
        let (data, _more) = self.run("TPM2_GetCapability", NO_SESSION, |context| {
            context.get_capability(CapabilityType::Handles, first, COUNT)
        })?;
        match data {
            CapabilityData::Handles(handles) => Ok(handles.into_inner()),
            _ => Err(TpmError::Inconsistent("TPM2_GetCapability gives another capability than asked for")),
        }
    }

    /// Flushes every transient object and every loaded session.
    fn sweep(&self) -> Result<(), TpmError> {
        const TRANSIENT_FIRST: u32 = 0x8000_0000;
        const LOADED_SESSION_FIRST: u32 = 0x0200_0000;
        for first in [TRANSIENT_FIRST, LOADED_SESSION_FIRST] {
            let leftovers = self.handles(first)?;
            for handle in &leftovers {
                let object =
                    self.run("TPM2_ReadPublic", NO_SESSION, |context| context.tr_from_tpm_public(*handle))?;
                // For policy sessions tss-esapi 7.7 flushes, and then complains that it did not expect to.
                if let Err(failure) =
                    self.run("TPM2_FlushContext", NO_SESSION, |context| context.flush_context(object))
                    && !matches!(failure.cause, Cause::Binding(_))
                {
                    return Err(failure.into());
                }
            }
            if !leftovers.is_empty() {
                tracing::info!(count = leftovers.len(), "flushed what a predecessor left in the TPM");
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Release {
    Flush,
    Close,
}

/// A loaded object; flushed (or, if persistent, let go of) on drop.
pub(super) struct Object<'d> {
    device: &'d Device,
    handle: ObjectHandle,
    release: Release,
}

impl Object<'_> {
    pub(super) fn handle(&self) -> ObjectHandle {
        self.handle
    }

    pub(super) fn key(&self) -> KeyHandle {
        KeyHandle::from(self.handle)
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        let mut handle = self.handle;
        self.device.release("object", |context| match self.release {
            Release::Flush => context.flush_context(handle),
            Release::Close => context.tr_close(&mut handle),
        });
    }
}

/// A policy session; flushed on drop, whether it was used, failed or neither. A failed one that stays would take one of
/// three slots.
pub(super) struct PolicySession<'d> {
    device: &'d Device,
    session: TssPolicySession,
}

impl PolicySession<'_> {
    pub(super) fn policy(&self) -> TssPolicySession {
        self.session
    }

    pub(super) fn authorization(&self) -> AuthSession {
        AuthSession::PolicySession(self.session)
    }
}

impl Drop for PolicySession<'_> {
    fn drop(&mut self) {
        let handle = ObjectHandle::from(SessionHandle::from(self.session));
        self.device.release("session", |context| context.flush_context(handle));
    }
}

impl Device {
    /// What cannot be given back would be lost for good: then the context is given up as a whole, which lets a resource
    /// manager, or the sweep of the next connection, clean up.
    fn release(&self, what: &'static str, command: impl FnMut(&mut Context) -> tss_esapi::Result<()>) {
        if self.broken.get() {
            return;
        }
        match self.run("TPM2_FlushContext", NO_SESSION, command) {
            Ok(()) => {}
            // The TPM was reset in between and has forgotten it already.
            Err(failure) if failure.class == Class::Gone => self.broken.set(true),
            Err(failure) => {
                tracing::warn!(error = %TpmError::from(failure), what, "not flushed; connecting to the TPM anew");
                self.broken.set(true);
            }
        }
    }
}

impl Failure {
    fn new(operation: &'static str, error: &tss_esapi::Error, attempts: u32) -> Self {
        let (class, cause) = match code_of(error) {
            Some(code) => (code.class(), Cause::Code(code)),
            None => (Class::Other, Cause::Binding(error.to_string())),
        };
        Self { operation, class, cause, attempts }
    }

    /// What the TPM said; 0 where it did not come to that.
    pub(super) fn code(&self) -> ResponseCode {
        match self.cause {
            Cause::Code(code) => code,
            Cause::Binding(_) => ResponseCode::new(0),
        }
    }
}

impl From<Failure> for TpmError {
    fn from(failure: Failure) -> Self {
        let Failure { operation, class, cause, attempts } = failure;
        let code = match cause {
            Cause::Code(code) => code,
            Cause::Binding(detail) => return Self::Stack { operation, detail },
        };
        match class {
            Class::Busy => Self::Busy { operation, code, attempts },
            Class::PcrChanged => Self::PcrsMoving { operation, attempts },
            Class::Policy => Self::PolicyFailed { operation, code },
            Class::Authorization => Self::AuthorizationFailed { operation, code },
            Class::Lockout => Self::Lockout { operation },
            Class::Memory => Self::OutOfMemory { operation, code },
            Class::Unsupported => Self::Unsupported { operation, code },
            Class::NotStarted => Self::NotStarted { operation },
            Class::FailureMode => Self::FailureMode { operation },
            Class::Transport => Self::Unreachable { operation, code },
            Class::Stack => Self::Stack { operation, detail: code.to_string() },
            Class::Gone => Self::WasReset { operation, code },
            Class::Integrity | Class::Other => Self::Refused { operation, code },
        }
    }
}
