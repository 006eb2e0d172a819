//! A TPM that tells when a command comes, and holds whoever sent it.

use std::sync::{Arc, Condvar, Mutex};

use rootbound_attester::tpm::TctiConfig;
use rootbound_swtpm_tests::{Action, Interposer, Swtpm};
use tokio::sync::Notify;

/// Stands before the TPM, and springs at a command.
pub(crate) struct Trap {
    state: Arc<State>,
    interposer: Interposer,
}

#[derive(Default)]
struct State {
    setting: Mutex<Setting>,
    changed: Condvar,
    sprung: Notify,
}

/// What the trap does with the commands that come.
#[derive(Clone, Copy, Default)]
enum Setting {
    /// Lets them pass.
    #[default]
    Off,
    /// Lets so many pass, then springs.
    On { more: usize, hold: bool },
    /// Holds one until it is switched off.
    Holding,
}

impl Trap {
    pub(crate) fn before(swtpm: &Swtpm) -> Self {
        let state = Arc::new(State::default());
        let held = Arc::clone(&state);
        Self { state, interposer: Interposer::new(swtpm, move |_, _| held.command()) }
    }

    pub(crate) fn tcti(&self) -> TctiConfig {
        self.interposer.tcti()
    }

    /// Springs at the command after so many: with `hold` the TPM does not see it, else it executes it.
    pub(crate) fn set(&self, more: usize, hold: bool) {
        *self.state.setting.lock().unwrap() = Setting::On { more, hold };
    }

    /// Waits until it has sprung.
    pub(crate) async fn sprung(&self) {
        self.state.sprung.notified().await;
    }

    /// Lets everything pass; a command that was held is lost.
    pub(crate) fn off(&self) {
        *self.state.setting.lock().unwrap() = Setting::Off;
        self.state.changed.notify_all();
    }
}

impl State {
    fn command(&self) -> Action {
        let mut setting = self.setting.lock().unwrap();
        match *setting {
            Setting::Off => Action::Forward,
            Setting::On { more: 0, hold } => {
                *setting = if hold { Setting::Holding } else { Setting::Off };
                self.sprung.notify_one();
                if !hold {
                    return Action::Forward;
                }
                let holding = |setting: &mut Setting| matches!(setting, Setting::Holding);
                drop(self.changed.wait_while(setting, holding).unwrap());
                Action::HangUp
            }
            Setting::On { more, hold } => {
                *setting = Setting::On { more: more - 1, hold };
                Action::Forward
            }
            Setting::Holding => Action::HangUp,
        }
    }
}
