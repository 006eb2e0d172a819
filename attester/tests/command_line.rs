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

#[test]
fn help_of_tokens_shows_how_they_are_used() {
    for (verb, parts) in [
        ("token", ["--audience", "--binding", "Authorization: DPoP"]),
        ("proof", ["--token-file", "--nonce", "DPoP: $proof"]),
    ] {
        let (code, words) = ended(&program().args(["help", verb]).output().unwrap());
        assert_eq!(code, 0, "{words}");
        for part in parts {
            assert!(words.contains(part), "{part}: {words}");
        }
    }
}

#[test]
fn tokens_that_nobody_can_have_are_wrong_usage() {
    let machine = Machine::new();
    let nine: Vec<_> = (0..9).flat_map(|number| ["--audience".to_owned(), number.to_string()]).collect();
    let nine: Vec<_> = ["token"].into_iter().chain(nine.iter().map(String::as_str)).collect();
    for (arguments, expected) in [
        (&["token"][..], "--audience"),
        (&["token", "--audience", "a b"], "an audience is"),
        (&["token", "--audience", "a", "--action", "a\"b"], "an action is"),
        (&["token", "--audience", "a", "--resource", "r"], "--action"),
        (&["token", "--audience", "a", "--resource-type", "t"], "--resource"),
        (&["token", "--audience", "a", "--jwt-svid", "--one-time"], "cannot be used with"),
        (&["token", "--audience", "a", "--jwt-svid", "--binding", "certificate"], "cannot be used with"),
        (&["token", "--audience", "a", "--binding", "none"], "dpop, certificate"),
        (&["token", "--audience", "a", "--audience", "a"], "twice"),
        (&nine, "1 to 8 audiences"),
        (&["proof", "--method", "GET", "--url", "https://a/"], "--token-file"),
        (&["proof", "--method", "get", "--url", "https://a/", "--token-file", "f"], "capital letters"),
        (&["proof", "--method", "GET", "--url", "a/", "--token-file", "f"], "a URL of a call"),
        (
            &["proof", "--method", "GET", "--url", "https://a/", "--token-file", "f", "--nonce", ""],
            "a nonce is",
        ),
    ] {
        let (code, words) = machine.run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {words}");
        assert!(words.contains(expected), "{arguments:?}: {words}");
    }
}

#[test]
fn tokens_need_a_credential_and_proofs_a_token() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new();
    let (code, words) = ended(&program().args(["token", "--audience", "a"]).output().unwrap());
    assert_eq!(code, 2, "{words}");
    let (code, words) = machine.run(&["token", "--audience", "a"]);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("[verifier] ca_file"), "{words}");

    fs::create_dir(machine.path("state")).unwrap();
    fs::set_permissions(machine.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let (file, with) = (machine.path("token"), |file: &str| {
        machine.run(&["proof", "--method", "GET", "--url", "https://a/", "--token-file", file])
    });
    let file = file.display().to_string();
    let (code, words) = with(&file);
    assert_eq!(code, 1, "{words}");
    assert!(words.contains("cannot read the token"), "{words}");
    for (text, expected) in [
        (String::new(), 2),
        ("a b\n".to_owned(), 2),
        ("a\nb\n".to_owned(), 2),
        ("x".repeat(20_000), 2),
        // As far as to the credential, of which there is none.
        ("a.b.c\n".to_owned(), 1),
    ] {
        fs::write(&file, &text).unwrap();
        let (code, words) = with(&file);
        assert_eq!(code, expected, "{words}");
        let part = if expected == 2 { "a token is 1 to 16384" } else { "no credential" };
        assert!(words.contains(part), "{words}");
    }
}
