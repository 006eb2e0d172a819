//! The program as its users start it.
#![expect(clippy::unwrap_used, reason = "what a test sets up has to work")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A machine without a TPM, with a configuration.
struct Machine {
    folder: TempDir,
    _held: (TcpStream, TcpListener),
}

impl Machine {
    fn new() -> Self {
        // The port of a connection: nobody listens there, and nobody comes to as long as it is held.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = connection.local_addr().unwrap().port();
        let machine = Self { folder: tempfile::tempdir().unwrap(), _held: (connection, listener) };
        let directory = |name| machine.path(name).display().to_string();
        let config = format!(
            "[tpm.swtpm]\nhost = \"127.0.0.1\"\nport = {port}\n\
             [verifier]\nurl = \"https://127.0.0.1:{port}\"\nca_file = {:?}\n\
             [state]\ndirectory = {:?}\n[deliver]\ndirectory = {:?}\n",
            directory("ca.pem"),
            directory("state"),
            directory("svid"),
        );
        fs::write(machine.path("attester.toml"), config).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let config = self.path("attester.toml");
        let output = program().arg("--config").arg(config).args(arguments).output().unwrap();
        ended(&output)
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rootbound-attester"))
}

fn ended(output: &Output) -> (i32, String) {
    let words = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(words).unwrap())
}

#[test]
fn help_and_version_are_answers() {
    for arguments in [&["--help"][..], &["help", "run"], &["--version"]] {
        let (code, words) = ended(&program().args(arguments).output().unwrap());
        assert_eq!(code, 0, "{words}");
        assert!(words.contains("rootbound-attester"), "{words}");
    }
}

#[test]
fn wrong_usage_and_configuration_end_with_2() {
    for arguments in [&["walk"][..], &[], &["--config", "/nonexistent/attester.toml", "status"]] {
        let (code, words) = ended(&program().args(arguments).output().unwrap());
        assert_eq!(code, 2, "{arguments:?}: {words}");
    }
    let machine = Machine::new();
    let (code, words) = machine.run(&["run"]);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("[verifier] ca_file") && words.contains("ca.pem"), "{words}");

    fs::write(machine.path("attester.toml"), "[tpm.device]\npth = \"/dev/null\"\n").unwrap();
    let (code, words) = machine.run(&["identify"]);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("attester.toml") && words.contains("pth") && words.contains("line 2"), "{words}");
}

#[test]
fn machine_without_a_tpm_cannot_attest() {
    let (code, words) = Machine::new().run(&["identify"]);
    assert_eq!(code, 3, "{words}");
    assert!(words.contains("cannot attest") && words.contains("hint"), "{words}");
    assert_eq!(words.lines().count(), 2, "libtss2 is silent: {words}");
}

#[test]
fn state_that_is_absent_or_open_to_others_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new();
    let (code, words) = machine.run(&["status"]);
    assert_eq!(code, 1, "{words}");
    fs::create_dir(machine.path("state")).unwrap();
    fs::set_permissions(machine.path("state"), fs::Permissions::from_mode(0o755)).unwrap();
    let (code, words) = machine.run(&["status"]);
    assert_eq!(code, 1, "{words}");
    assert!(words.contains("0700"), "{words}");

    fs::set_permissions(machine.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let (code, words) = machine.run(&["status"]);
    assert_eq!(code, 0, "{words}");
    assert!(words.contains("not enrolled"), "{words}");
    let (code, words) = machine.run(&["status", "--output", "json"]);
    assert_eq!(code, 0, "{words}");
    let answer: serde_json::Value = serde_json::from_str(&words).unwrap();
    assert!(answer["spiffe_id"].is_null() && answer["credential"].is_null());
    let (code, words) = machine.run(&["whoami"]);
    assert_eq!(code, 1, "{words}");
    assert!(words.contains("no credential"), "{words}");
}
