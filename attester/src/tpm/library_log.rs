//! Keeps libtss2 from writing to standard error by itself.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// The target under which tss-esapi logs each response that is not success, expected ones too: to be switched off in
/// filters of `tracing`, since [`super::TpmError`] says the same once, where it is handled.
pub const LOG_TARGET: &str = "tss_esapi";

/// Starts this program again, in its place and with its process id, with libtss2's own log off; returns where that is
/// so already. To be called first thing in `main`.
///
/// libtss2 writes `WARNING:esys:…` lines to standard error unless `TSS2_LOG` says otherwise, and reads that variable
/// only from the environment. A Rust program cannot safely set its own environment, but it can hand one to the program
/// that it becomes. Unit files and scripts that set `TSS2_LOG` save this step; whoever debugs libtss2 sets it too.
pub fn silence_library_log() {
    const VARIABLE: &str = "TSS2_LOG";
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    // `exec` returns only where it fails; then the log stays as it is, which is no reason not to run.
    let error = Command::new(program).arg0(name).args(arguments).env(VARIABLE, "all+none").exec();
    tracing::debug!(%error, "libtss2's log could not be switched off");
}
