//! Where an attester lives.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rootbound_attester::keep::View;
use rootbound_attester::tpm::TctiConfig;
use tempfile::TempDir;

use super::Daemon;

/// An attester's configuration, state and deliveries.
pub struct AttesterSite {
    program: PathBuf,
    folder: TempDir,
}

impl AttesterSite {
    /// Writes a configuration for a TPM on the network and a verifier.
    ///
    /// # Panics
    /// Where the TPM is not an swtpm.
    #[must_use]
    pub fn new(program: &str, tpm: &TctiConfig, verifier: &str, bundle: &Path) -> Self {
        let TctiConfig::Swtpm(tpm) = tpm else { panic!("not an swtpm: {tpm:?}") };
        let folder = tempfile::Builder::new().prefix("attester-").tempdir().expect("a folder");
        let site = Self { program: program.into(), folder };
        let config = format!(
            "[tpm.swtpm]\nhost = \"127.0.0.1\"\nport = {}\nowned = true\n\
             [verifier]\nurl = \"{verifier}\"\nca_file = {bundle:?}\n\
             [state]\ndirectory = {:?}\n[deliver]\ndirectory = {:?}\n",
            tpm.port,
            site.state(),
            site.deliveries(),
        );
        fs::write(site.path("attester.toml"), config).expect("a file");
        // Here already, so that they can be watched.
        for (folder, mode) in [(site.state(), 0o700), (site.deliveries(), 0o755)] {
            fs::DirBuilder::new().mode(mode).create(folder).expect("a folder");
        }
        site
    }

    /// Starts the daemon.
    #[must_use]
    pub fn spawn(&self) -> Daemon {
        let mut command = self.command();
        command.arg("run");
        Daemon::start(command)
    }

    /// Starts the daemon so that its disk can be filled, and where wanted is full from the start.
    #[must_use]
    pub fn spawn_on_small_disk(&self, full: bool) -> Daemon {
        let mut command = self.command();
        command.arg("run");
        Daemon::start_on_small_disk(&command, full)
    }

    /// Starts the daemon as a service manager does that listens here.
    #[must_use]
    pub fn spawn_notifying(&self, socket: &Path) -> Daemon {
        let mut command = self.command();
        command.arg("run").env("NOTIFY_SOCKET", socket);
        Daemon::start(command)
    }

    /// Adds a section to the configuration.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn configure(&self, section: &str) {
        let path = self.path("attester.toml");
        let config = fs::read_to_string(&path).expect("a file of ours");
        fs::write(path, config + section).expect("a file of ours");
    }

    /// Runs a command of the program, with its arguments, to its end.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn run(&self, command: &str) -> Output {
        self.command().args(command.split(' ')).output().expect("a program that can be started")
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// What is in it.
    ///
    /// # Panics
    /// Where others may look into it.
    #[must_use]
    pub fn view(&self) -> View {
        View::open(&self.state()).expect("a private folder")
    }

    /// The folder that workloads read.
    #[must_use]
    pub fn deliveries(&self) -> PathBuf {
        self.path("credentials")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.path("attester.toml"));
        command
    }
}
