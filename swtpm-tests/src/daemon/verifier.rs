//! Where a verifier lives.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rootbound_attester::client::{Client, RequestTimeout, VerifierConfig};
use rootbound_verifier::cli::{ClientError, ask};
use rootbound_verifier::http::admin::message::{Command as Verb, Reply};
use tempfile::TempDir;

use super::Daemon;
use crate::Manufacturer;
use crate::swtpm::PortPair;
use crate::world::TRUST_DOMAIN;

/// The folder that `rootbound-verifier init` makes, and the port that the verifier listens on whenever it runs.
pub struct VerifierSite {
    program: PathBuf,
    folder: TempDir,
    ports: PortPair,
}

impl VerifierSite {
    /// Makes a verifier that trusts these TPM manufacturers. It does not run yet.
    ///
    /// # Panics
    /// Where `init` fails.
    #[must_use]
    pub fn init(program: &str, manufacturers: &[&Manufacturer]) -> Self {
        let site = Self::bare(program, manufacturers);
        let output = site.init_command().output().expect("a program that can be started");
        assert!(output.status.success(), "init: {}", String::from_utf8_lossy(&output.stderr));
        site.let_tests_through();
        site
    }

    /// A place where `init` has not been yet, with the CAs of these TPM manufacturers and an empty state directory.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn bare(program: &str, manufacturers: &[&Manufacturer]) -> Self {
        let folder = tempfile::Builder::new().prefix("verifier-").tempdir().expect("a folder");
        let site = Self { program: program.into(), folder, ports: PortPair::reserve() };
        fs::DirBuilder::new().mode(0o700).create(site.state()).expect("a folder");
        fs::create_dir(site.roots()).expect("a folder");
        for (position, manufacturer) in manufacturers.iter().enumerate() {
            let certificates = [manufacturer.root_certificate(), manufacturer.issuer_certificate()];
            fs::write(site.roots().join(format!("{position}.pem")), certificates.concat()).expect("a CA");
        }
        site
    }

    /// `init`, still to be run.
    #[must_use]
    pub fn init_command(&self) -> Command {
        let mut command = self.command();
        command
            .args(["init", "--trust-domain", TRUST_DOMAIN, "--ip", "127.0.0.1"])
            // The CA of swtpm_localca publishes no CRL.
            .arg("--revocation-if-available")
            .args(["--listen", &format!("127.0.0.1:{}", self.ports.data())])
            .arg("--state")
            .arg(self.state());
        // A folder without a CA is refused.
        if fs::read_dir(self.roots()).expect("our folder").next().is_some() {
            command.arg("--ek-roots").arg(self.roots());
        }
        command
    }

    /// Tests come from one address, and at once.
    fn let_tests_through(&self) {
        let path = self.path("verifier.toml");
        let config = fs::read_to_string(&path).expect("the configuration that `init` wrote");
        let plenty = "{ per_minute = 1000000, burst = 1000000 }";
        let line = |line: &str| match line.split_once(" = ") {
            Some((key @ ("connections" | "enrollments" | "attestations" | "queries"), _)) => {
                format!("{key} = {plenty}\n")
            }
            _ => format!("{line}\n"),
        };
        let changed: String = config.lines().map(line).collect();
        assert_eq!(changed.matches(plenty).count(), 4, "{config}");
        fs::write(path, changed).expect("a file of ours");
    }

    /// Starts the verifier; it is not ready yet.
    #[must_use]
    pub fn spawn(&self) -> Daemon {
        let mut command = self.command();
        command.arg("run");
        Daemon::start(command)
    }

    /// Starts the verifier, and waits until it is ready.
    pub async fn run(&self) -> Daemon {
        let daemon = self.spawn();
        Self::ready(&daemon).await;
        daemon
    }

    /// The same, where its disk can be filled.
    pub async fn run_on_small_disk(&self) -> Daemon {
        let mut command = self.command();
        command.arg("run");
        let daemon = Daemon::start_on_small_disk(&command, false);
        Self::ready(&daemon).await;
        daemon
    }

    /// Waits until it is ready.
    pub async fn ready(daemon: &Daemon) {
        daemon.says(" ready listen=").await;
    }

    /// Runs a verb of the program to its end.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn verb(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("a program that can be started")
    }

    /// Says something over the administrative socket, as the program's verbs do.
    pub async fn ask(&self, verb: &Verb) -> Result<Reply, ClientError> {
        ask(&self.path("state/admin.sock"), verb).await
    }

    /// Where attesters find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.data())
    }

    /// Whom attesters trust.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.path("state/bundle.pem")
    }

    /// A client without a certificate of its own.
    ///
    /// # Panics
    /// Where there is no bundle.
    #[must_use]
    pub fn client(&self) -> Client {
        let url = self.url().try_into().expect("a URL");
        let config =
            VerifierConfig { url, ca_file: self.bundle(), request_timeout: RequestTimeout::default() };
        Client::new(config).expect("a client")
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Copies the database, with its log, as it is now.
    ///
    /// # Panics
    /// Where it cannot be copied.
    pub fn copy_database(&self, to: &Path) -> PathBuf {
        // Without `-shm`, which is no part of what is on disk: SQLite makes it anew from the log.
        for file in ["verifier.db", "verifier.db-wal"] {
            let from = self.state().join(file);
            if from.exists() {
                fs::copy(from, to.join(file)).expect("a file that can be copied");
            }
        }
        to.join("verifier.db")
    }

    fn roots(&self) -> PathBuf {
        self.path("ek-roots")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.path("verifier.toml"));
        command
    }
}
