//! The administrative socket and the command line.

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process};

use rootbound_verifier::cli::{self, ClientError};
use rootbound_verifier::config::StateDirectory;
use rootbound_verifier::http::admin::message::{Command, Reply};
use rootbound_verifier::http::admin::{AdminSocket, PATH};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::client::{PATIENCE, until_closed, write};
use super::stage::{Stage, node};

struct Desk {
    stage: Stage,
    socket: PathBuf,
    admin: AdminSocket,
}

async fn desk() -> Desk {
    let stage = Stage::new().await;
    let state = StateDirectory::create(&stage.folder().join("state")).unwrap();
    let lock = state.lock().unwrap();
    let listen = stage.address();
    let admin = AdminSocket::start(stage.verifier.clone(), &state, &lock, listen).unwrap();
    Desk { stage, socket: state.admin_socket(), admin }
}

#[tokio::test]
async fn the_socket_is_its_owners_and_goes_with_the_daemon() {
    let Desk { socket, admin, stage: _stage } = desk().await;
    let metadata = socket.metadata().unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o777, 0o600);
    assert_eq!(socket.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
    admin.shutdown().await;
    assert!(!socket.exists());
    let gone = cli::ask(&socket, &Command::Health).await.unwrap_err();
    assert!(matches!(gone, ClientError::Unreachable { .. }), "{gone}");
}

#[tokio::test]
async fn a_socket_that_a_killed_daemon_left_is_replaced() {
    let stage = Stage::new().await;
    let state = StateDirectory::create(&stage.folder().join("state")).unwrap();
    let lock = state.lock().unwrap();
    drop(std::os::unix::net::UnixListener::bind(state.admin_socket()).unwrap());
    assert!(state.admin_socket().exists());
    let admin = AdminSocket::start(stage.verifier.clone(), &state, &lock, stage.address()).unwrap();
    assert!(matches!(cli::ask(&state.admin_socket(), &Command::Health).await, Ok(Reply::Health(_))));
    admin.shutdown().await;
}

#[tokio::test]
async fn health_says_what_is_missing_and_where_the_daemon_listens() {
    let Desk { stage, socket, admin: _admin } = desk().await;
    let health = async || match cli::ask(&socket, &Command::Health).await.unwrap() {
        Reply::Health(health) => health,
        other => panic!("{other:?}"),
    };
    let good = health().await;
    assert!(good.ready && good.missing.is_empty());
    assert_eq!(good.listen, stage.address());
    stage.store.close().await;
    let bad = health().await;
    assert!(!bad.ready);
    assert_eq!(bad.missing, ["the store does not answer"]);
}

#[tokio::test]
async fn what_is_no_command_is_refused() {
    let Desk { socket, stage: _stage, admin: _admin } = desk().await;
    for (path, body, status) in [
        (PATH, "{", "400"),
        (PATH, "{\"node_list\":{},\"health\":{}}", "400"),
        (PATH, "{\"drop_everything\":{}}", "400"),
        ("/v1/whoami", "\"health\"", "404"),
        (PATH, "\"health\"", "200"),
    ] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        write(&mut stream, request.as_bytes()).await;
        let heard = until_closed(&mut stream).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(heard.starts_with(expected.as_bytes()), "{body}: {}", String::from_utf8_lossy(&heard));
    }
    let refused = Command::NodeShow { node: node(9) };
    match cli::ask(&socket, &refused).await {
        Err(ClientError::Refused(problem)) => assert_eq!(problem.code, "unknown_node"),
        other => panic!("{other:?}"),
    }
}

/// The program, on a state of its own.
pub(super) struct Program {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// What a call said.
pub(super) struct Said {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

impl Program {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), daemon: None }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn process(&self, arguments: &[&str]) -> Process {
        let mut process = Process::new(env!("CARGO_BIN_EXE_rootbound-verifier"));
        process.env_clear().arg("--config").arg(self.path("verifier.toml")).args(arguments);
        process
    }

    pub(super) fn call(&self, arguments: &[&str]) -> Said {
        let output = self.process(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// A call that must go well.
    pub(super) fn done(&self, arguments: &[&str]) -> Said {
        let said = self.call(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.out, said.err);
        said
    }

    pub(super) fn init(&self, more: &[&str]) -> Said {
        let state = self.path("state");
        let mut arguments =
            vec!["init", "--trust-domain", "example.org", "--listen", "127.0.0.1:0", "--state"];
        arguments.push(state.to_str().unwrap());
        arguments.extend(more);
        self.call(&arguments)
    }

    /// Starts the daemon as a service manager does, and waits until it says that it is ready.
    pub(super) fn run(&mut self) {
        let path = self.path("notify");
        let _ = std::fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = std::fs::File::create(self.path("log")).unwrap();
        let daemon = self.process(&["run"]).env("NOTIFY_SOCKET", &path).stderr(log).spawn().unwrap();
        self.daemon = Some(daemon);
        let mut said = [0; 100];
        let length = notify.recv(&mut said).unwrap();
        assert_eq!(said[..length].trim_ascii(), b"READY=1");
    }

    pub(super) fn signal(&self, signal: Signal) {
        let id = rustix::process::Pid::from_child(self.daemon.as_ref().unwrap());
        rustix::process::kill_process(id, signal).unwrap();
    }

    pub(super) fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.daemon.take().unwrap().wait().unwrap().code()
    }
}

#[test]
fn an_operators_day() {
    let mut program = Program::new();
    assert_eq!(program.call(&["run"]).code, 2, "without a configuration");
    assert_eq!(program.call(&["node", "list"]).code, 2);
    assert_eq!(program.init(&[]).code, 0);
    assert_eq!(program.call(&["healthcheck"]).code, 3, "nobody runs");
    program.run();

    let health = program.done(&["healthcheck", "--output", "json"]).json();
    let listen: SocketAddr = health["listen"].as_str().unwrap().parse().unwrap();
    assert_ne!(listen.port(), 0);
    assert_eq!(std::fs::read_to_string(program.path("state/listen.addr")).unwrap(), format!("{listen}\n"));
    assert!(std::net::TcpStream::connect(listen).is_ok());

    let id = node(7).to_string();
    let reason = ["--reason", "rack 7 arrived"];
    program.done(&[
        "inventory",
        "add",
        &id,
        "--waive-endorsement",
        "--label",
        "rack=7",
        reason[0],
        reason[1],
    ]);
    let listed = program.done(&["--output", "json", "inventory", "list"]).json();
    assert_eq!(listed[0]["node"], id.as_str());
    assert_eq!(listed[0]["waive_endorsement"], true);
    assert_eq!(listed[0]["labels"]["rack"], "7");
    assert_eq!(listed[0]["provenance"]["reason"], "rack 7 arrived");
    let own = rustix::process::getuid().as_raw();
    assert_eq!(listed[0]["provenance"]["author"], format!("uid {own}"));
    assert!(program.done(&["inventory", "list"]).out.contains("rack=7"));
    program.done(&["inventory", "remove", &id]);
    assert_eq!(program.call(&["inventory", "remove", &id]).code, 4);

    let token = program.done(&["join-token", "create", "--expires", "10min", "--output", "json"]).json();
    let (secret, token) = (token["token"].as_str().unwrap(), token["record"]["id"].as_str().unwrap());
    let tokens = program.done(&["join-token", "list"]).out;
    assert!(tokens.contains(token) && !tokens.contains(secret), "{tokens}");
    program.done(&["join-token", "revoke", token]);
    assert!(program.done(&["join-token", "list"]).out.contains("revoked"));
    assert_eq!(program.call(&["join-token", "revoke", "0123456789abcdef"]).code, 4);
    assert_eq!(program.call(&["join-token", "create", "--expires", "1s"]).code, 4);

    let values = format!("{{\"sha256\": {{\"7\": [\"{}\"]}}}}", "ab".repeat(32));
    std::fs::write(program.path("values.json"), values).unwrap();
    let file = program.path("values.json");
    let file = file.to_str().unwrap();
    assert!(program.done(&["reference", "set", "default", file]).out.contains("default@1 written"));
    assert!(program.done(&["reference", "set", "default", file]).out.contains("default@2 written"));
    let shown = program.done(&["reference", "show", "default@1", "--output", "json"]).json();
    assert_eq!(shown["accepted"]["sha256"]["7"][0], "ab".repeat(32));
    assert_eq!(program.call(&["reference", "show", "default@3"]).code, 4);
    // What is shown can be set again.
    std::fs::write(program.path("values.toml"), program.done(&["reference", "show", "default"]).out).unwrap();
    let toml = program.path("values.toml");
    program.done(&["reference", "set", "copy", toml.to_str().unwrap()]);
    program.done(&["reference", "remove", "copy", "--reason", "not needed"]);
    let sets = program.done(&["reference", "list"]).out;
    assert!(sets.contains("copy@1") && sets.contains("withdrawn"), "{sets}");
    assert_eq!(program.call(&["reference", "remove", "copy"]).code, 4);
    assert_eq!(program.call(&["reference", "capture", &id]).code, 4, "no such node");

    let digests =
        format!("# ours\nsha256:{}  /usr/bin/a b\nsha256:{}  *\n", "ab".repeat(32), "cd".repeat(32));
    std::fs::write(program.path("digests.txt"), &digests).unwrap();
    let file = program.path("digests.txt");
    let file = file.to_str().unwrap();
    assert!(program.done(&["digests", "set", "ours", file]).out.contains("ours@1 written"));
    let listed = program.done(&["digests", "list", "--output", "json"]).json();
    assert_eq!((&listed[0]["digests"], &listed[0]["withdrawn"]), (&json!(2), &json!(false)));
    let shown = program.done(&["digests", "show", "ours@1"]).out;
    assert!(shown.ends_with(&digests), "{shown}");
    std::fs::write(program.path("shown.txt"), shown).unwrap();
    let again = program.path("shown.txt");
    program.done(&["digests", "set", "ours", again.to_str().unwrap()]);
    let listed = program.done(&["digests", "list", "--output", "json"]).json();
    assert_eq!(listed[0]["content"], listed[1]["content"], "what is shown can be set");
    assert!(program.done(&["digests", "list"]).out.contains("ours@2"));
    program.done(&["digests", "remove", "ours", "--reason", "vulnerable"]);
    assert!(program.done(&["digests", "list"]).out.contains("withdrawn"));
    assert_eq!(program.call(&["digests", "remove", "ours"]).code, 4);
    assert_eq!(program.call(&["digests", "set", "ours", "/does/not/exist"]).code, 2);
    assert_eq!(program.call(&["digests", "capture", &id]).code, 4);
    assert_eq!(program.call(&["node", "boot", &id]).code, 4);

    std::fs::write(program.path("profile.toml"), program.done(&["profile", "show", "default"]).out).unwrap();
    let profile = program.path("profile.toml");
    let profile = profile.to_str().unwrap();
    program.done(&["profile", "set", "default", profile, "--reason", "again"]);
    let profiles = program.done(&["profile", "list", "--output", "json"]).json();
    assert_eq!(profiles.as_array().unwrap().len(), 2);
    assert_eq!(profiles[0]["body"], profiles[1]["body"]);
    std::fs::write(profile, "interval = \"1min\"\nhopes = 1\n").unwrap();
    let bad = program.call(&["profile", "set", "default", profile]);
    assert!(bad.code == 2 && bad.err.contains("profile.toml"), "{}", bad.err);

    assert_eq!(program.done(&["node", "list", "--output", "json"]).json()["nodes"], serde_json::json!([]));
    for verb in ["show", "approve", "retire"] {
        let refused = program.call(&["node", verb, &id, "--output", "json"]);
        assert_eq!(refused.code, 4, "{verb}");
        assert_eq!(serde_json::from_str::<Value>(&refused.err).unwrap()["code"], "unknown_node");
    }
    assert_eq!(program.call(&["node", "label", &id, "a=b"]).code, 4);
    let ca = program.done(&["ca", "show"]).out;
    let bundle = std::fs::read_to_string(program.path("state/bundle.pem")).unwrap();
    assert!(ca.contains(bundle.trim()), "{ca}");

    assert_eq!(program.init(&[]).code, 4, "there is one");
    let second = program.call(&["run"]);
    assert!(second.code == 2 && second.err.contains("a verifier is running"), "{}", second.err);
    assert_eq!(program.stop(), Some(0));
    assert!(!program.path("state/listen.addr").exists() && !program.path("state/admin.sock").exists());
    assert_eq!(program.call(&["healthcheck"]).code, 3);

    // What was written is there after the next start.
    program.run();
    assert_eq!(program.done(&["profile", "list", "--output", "json"]).json().as_array().unwrap().len(), 2);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn logs_can_be_json_and_a_hang_up_does_not_end_the_daemon() {
    let mut program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    let config = std::fs::read_to_string(program.path("verifier.toml")).unwrap();
    let config = config.replace("format = \"text\"", "format = \"json\"");
    std::fs::write(program.path("verifier.toml"), config).unwrap();
    program.run();
    program.signal(Signal::HUP);
    program.done(&["healthcheck"]);
    assert_eq!(program.stop(), Some(0));
    let log = std::fs::read_to_string(program.path("log")).unwrap();
    let messages: Vec<_> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["message"].as_str().unwrap().to_owned())
        .collect();
    for message in ["ready", "stopping", "stopped"] {
        assert!(messages.iter().any(|said| said == message), "{message}: {messages:?}");
    }
}

#[test]
fn a_wrong_command_line_is_refused() {
    let program = Program::new();
    for arguments in [
        &["node", "show", "x"][..],
        &["node", "list", "--limit", "0"],
        &["node", "list", "--posture", "good"],
        &["inventory", "add", "--label", "a", "00"],
        &["join-token", "create", "--expires", "soon"],
        &["init", "--trust-domain", "Upper"],
        &["init", "--trust-domain", "example.org", "--upstream-cert", "/x"],
        &["nodes"],
        &[],
    ] {
        assert_eq!(program.call(arguments).code, 2, "{arguments:?}");
    }
    let help = program.done(&["--help"]).out;
    assert!(help.contains("Exit codes") && help.contains("healthcheck"), "{help}");
    let control = program.call(&["node", "approve", &node(1).to_string(), "--reason", "a\u{1b}[31m"]);
    assert_eq!(control.code, 2);
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn init_makes_everything_once() {
    let program = Program::new();
    assert_eq!(program.init(&["--name", "verifier.example.org", "--ip", "192.0.2.1"]).code, 0);
    let state = program.path("state");
    let mode = |name: &str| state.join(name).metadata().unwrap().mode() & 0o777;
    assert_eq!(state.metadata().unwrap().mode() & 0o777, 0o700);
    assert_eq!((mode("ca.key"), mode("result.key"), mode("verifier.db")), (0o600, 0o600, 0o600));
    let config = String::from_utf8(read(&program.path("verifier.toml"))).unwrap();
    for part in ["verifier.example.org", "192.0.2.1", "example.org", state.to_str().unwrap()] {
        assert!(config.contains(part), "{part}: {config}");
    }

    let files = ["ca.key", "ca.pem", "result.key", "bundle.pem", "verifier.db"];
    let before: Vec<_> = files.iter().map(|name| read(&state.join(name))).collect();
    let again = program.init(&[]);
    assert_eq!(again.code, 4);
    assert!(again.err.contains("ca.key") && again.err.contains("verifier.toml"), "{}", again.err);
    let after: Vec<_> = files.iter().map(|name| read(&state.join(name))).collect();
    assert!(before == after, "nothing was changed");
}

/// Whatever a crash left undone, the same command does, and what was done stays.
#[test]
fn init_goes_on_where_it_was_cut_off() {
    for undone in [
        &["verifier.toml"][..],
        &["verifier.toml", "state/bundle.pem"],
        &["verifier.toml", "state/bundle.pem", "state/verifier.db"],
        &["verifier.toml", "state/bundle.pem", "state/verifier.db", "state/result.key"],
    ] {
        let program = Program::new();
        assert_eq!(program.init(&[]).code, 0);
        let key = read(&program.path("state/ca.key"));
        for name in undone {
            std::fs::remove_file(program.path(name)).unwrap();
        }
        let again = program.init(&[]);
        assert_eq!(again.code, 0, "{undone:?}: {}", again.err);
        assert!(read(&program.path("state/ca.key")) == key, "the CA is the same");
        for name in undone {
            assert!(program.path(name).exists(), "{name}");
        }
    }
    // A certificate without its key: the CA was not there yet.
    let program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    for name in ["verifier.toml", "state/bundle.pem", "state/verifier.db", "state/ca.key"] {
        std::fs::remove_file(program.path(name)).unwrap();
    }
    assert_eq!(program.init(&[]).code, 0);
    // Another trust domain than that of the CA that is there.
    std::fs::remove_file(program.path("verifier.toml")).unwrap();
    let state = program.path("state");
    let other = program.call(&["init", "--trust-domain", "example.net", "--state", state.to_str().unwrap()]);
    assert!(other.code == 1 && other.err.contains("trust domain"), "{}", other.err);
}

#[test]
fn init_takes_an_upstream_ca() {
    let upstream = Program::new();
    assert_eq!(upstream.init(&[]).code, 0);
    let (certificate, key) = (upstream.path("state/ca.pem"), upstream.path("state/ca.key"));
    let arguments =
        ["--upstream-cert", certificate.to_str().unwrap(), "--upstream-key", key.to_str().unwrap()];
    let program = Program::new();
    let done = program.init(&arguments);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(read(&program.path("state/bundle.pem")), read(&certificate));
    assert_eq!(read(&program.path("state/ca.pem")), read(&certificate));

    let program = Program::new();
    let wrong =
        program.init(&["--upstream-cert", key.to_str().unwrap(), "--upstream-key", key.to_str().unwrap()]);
    assert_eq!(wrong.code, 1, "{}", wrong.err);
    assert!(!program.path("state/ca.key").exists());
}

/// A state directory of before there were attestation results gets its key; a relying party has a CA of its own.
#[test]
fn a_start_makes_the_key_of_results_and_refuses_its_own_ca_for_relying_parties() {
    let mut program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    std::fs::remove_file(program.path("state/result.key")).unwrap();
    let config = String::from_utf8(read(&program.path("verifier.toml"))).unwrap();
    let with_ca_in = |path: &Path| {
        let section =
            "[[relying_party]]\nname = \"gateway\"\naccepted_names = [\"a.example\"]\nmatch_labels = {}";
        let text = format!("{config}\n{section}\nca = {}\n", toml::Value::from(path.to_str().unwrap()));
        std::fs::write(program.path("verifier.toml"), text).unwrap();
    };
    with_ca_in(&program.path("state/ca.pem"));
    let refused = program.call(&["run"]);
    assert!(refused.code == 2 && refused.err.contains("the verifier's own CA"), "{}", refused.err);
    let other = Program::new();
    assert_eq!(other.init(&[]).code, 0);
    with_ca_in(&other.path("state/ca.pem"));
    program.run();
    assert!(program.path("state/result.key").exists());
    assert_eq!(program.stop(), Some(0));
}
