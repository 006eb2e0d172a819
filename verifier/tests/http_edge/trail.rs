//! The audit trail, from the command line: what an operator does is in it, and what is done to it is found.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::administration::Program;
use super::client::PATIENCE;
use super::stage::node;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn codes(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["status_code"].as_str()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_operators_do_is_in_a_trail_that_verifies() {
    let mut program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    assert_eq!(program.call(&["audit", "verify"]).code, 3, "nobody runs");
    program.run();
    let id = node(7).to_string();
    let add = ["inventory", "add", &id, "--waive-endorsement", "--reason", "rack 7 arrived"];
    program.done(&add);
    let token = program.done(&["join-token", "create", "--output", "json"]).json();
    let secret = token["token"].as_str().unwrap();
    assert_eq!(program.call(&["inventory", "remove", &node(8).to_string()]).code, 4, "changes nothing");

    let exported = program.done(&["audit", "export"]).out;
    assert!(!exported.contains(secret), "no token is in the trail");
    let records = lines(&exported);
    let done = ["put_profile", "started", "in_force", "put_inventory", "create_join_token"];
    assert_eq!(codes(&records), done);
    let listed = records.iter().find(|line| line["status_code"] == "put_inventory").unwrap();
    let own = format!("uid {}", rustix::process::getuid().as_raw());
    assert_eq!(listed["actor"]["user"]["name"], json!(own));
    assert_eq!(listed["status_detail"], "rack 7 arrived");
    assert_eq!(listed["record"]["subject"], json!({ "kind": "node", "name": id }));

    // From a cursor on, only what is new; a cursor of another trail is refused.
    let cursor = listed["chain"]["cursor"].as_str().unwrap();
    let rest = program.done(&["audit", "export", "--only-records", "--after", cursor]).out;
    assert_eq!(codes(&lines(&rest)), ["create_join_token"]);
    let other = format!("{}-{}", cursor.split_once('-').unwrap().0, "0".repeat(16));
    assert_eq!(program.call(&["audit", "export", "--after", &other]).code, 4);
    assert_eq!(program.call(&["audit", "export", "--after", "1"]).code, 2);

    let tail = program.done(&["audit", "tail", "-n", "1", "--node", &id]).out;
    assert!(
        tail.contains("operator_action done: put_inventory") && tail.contains("rack 7 arrived"),
        "{tail}"
    );
    let configured = program.done(&["audit", "tail", "--kind", "configuration", "--output", "json"]).json();
    assert_eq!(configured["record"]["facts"]["allowed_decisions"], "all");
    assert_eq!(program.call(&["audit", "tail", "--kind", "gossip"]).code, 2);

    let kept = program.done(&["audit", "checkpoint", "--output", "json"]);
    let (checkpoint, key) = (program.path("kept.json"), program.path("audit.pem"));
    std::fs::write(&checkpoint, &kept.out).unwrap();
    std::fs::write(&key, kept.json()["audit_key"].as_str().unwrap()).unwrap();
    assert!(program.done(&["audit", "checkpoint"]).out.contains("BEGIN PUBLIC KEY"));
    let verify = ["audit", "verify", "--checkpoint", text(&checkpoint), "--key", text(&key)];
    let verified = program.done(&[&verify[..], &["--output", "json"]].concat()).json();
    assert_eq!(
        (&verified["whole"], &verified["keys"], &verified["records"]),
        (&json!(true), &json!("given"), &json!(5))
    );
    assert!(program.done(&["audit", "verify"]).out.contains("whole in itself"));

    // It goes on over a restart.
    assert_eq!(program.stop(), Some(0));
    program.run();
    let verified = program.done(&[&verify[..], &["--output", "json"]].concat()).json();
    assert_eq!((&verified["whole"], &verified["records"]), (&json!(true), &json!(8)));
    let stops = program.done(&["audit", "tail", "--kind", "stop"]).out;
    assert!(stops.contains("(SIGTERM)"), "{stops}");
}

#[test]
fn exported_file_that_was_changed_is_found_where_it_was_changed() {
    let mut program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    program.run();
    for rack in 1..4 {
        program.done(&["inventory", "add", &node(rack).to_string()]);
    }
    let kept = program.done(&["audit", "checkpoint", "--output", "json"]).out;
    std::fs::write(program.path("kept.json"), &kept).unwrap();
    let exported = program.done(&["audit", "export"]).out;
    assert_eq!(program.stop(), Some(0));
    let (kept, file) = (program.path("kept.json"), program.path("trail.jsonl"));
    let verify = |content: &str| {
        std::fs::write(&file, content).unwrap();
        program.call(&["audit", "verify", text(&file), "--checkpoint", text(&kept), "--output", "json"])
    };
    let whole = verify(&exported);
    assert_eq!((whole.code, &whole.json()["whole"]), (0, &json!(true)), "{}", whole.out);

    let all: Vec<_> = exported.lines().collect();
    let at =
        |sequence: u64| all.iter().position(|line| line.contains(&format!("\"seq\":{sequence},"))).unwrap();
    let without: Vec<_> =
        all.iter().enumerate().filter(|(index, _)| *index != at(5)).map(|(_, line)| *line).collect();
    let mut swapped = all.clone();
    swapped.swap(at(4), at(5));
    let mut cut = all.clone();
    cut.remove(at(6));
    for (content, expected) in
        [(without, "record 5 is missing"), (swapped, "record 4 is out of order"), (cut, "ends with record 5")]
    {
        let said = verify(&content.join("\n"));
        assert_eq!(said.code, 10, "{}", said.out);
        assert!(said.out.contains(expected), "{}", said.out);
    }
    let changed = verify(&exported.replacen(&node(2).to_string(), &node(9).to_string(), 1));
    assert_eq!(changed.code, 10);
    assert!(
        changed.out.contains("record 5 was changed") || changed.out.contains("what stands around"),
        "{}",
        changed.out
    );
    assert_eq!(verify("not an export").code, 10);
    assert_eq!(program.call(&["audit", "verify", text(&program.path("none"))]).code, 2);
}

#[test]
fn archived_records_are_in_their_file_and_the_rest_verifies() {
    let mut program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    program.run();
    program.done(&["inventory", "add", &node(1).to_string()]);
    let (file, again) = (program.path("old.jsonl"), program.path("older.jsonl"));
    let nothing = program.done(&["audit", "archive", "--before", "2020-01-31", "--to", text(&again)]);
    assert!(nothing.out.contains("nothing was archived") && !again.exists());
    let archive =
        ["audit", "archive", "--before", "2999-01-31", "--reason", "year over", "--to", text(&file)];
    assert!(program.done(&archive).out.contains("Archived up to record 4"));
    assert_eq!(program.call(&archive).code, 1, "a file is never overwritten");

    let verified = program.done(&["audit", "verify", "--output", "json"]).json();
    assert_eq!((&verified["whole"], &verified["first"]), (&json!(true), &json!(5)));
    let archived = program.done(&["audit", "verify", text(&file), "--output", "json"]).json();
    assert_eq!((&archived["whole"], &archived["records"]), (&json!(true), &json!(4)));
    assert_eq!(archived["after_last_checkpoint"], 0, "its end is signed");
    let tail = program.done(&["audit", "tail", "--kind", "operator_action"]).out;
    assert!(tail.contains("archive") && tail.contains("year over"), "{tail}");

    // The archive and what is left of the trail are one.
    let rest = program.done(&["audit", "export"]).out;
    std::fs::write(program.path("rest.jsonl"), rest).unwrap();
    let both = ["audit", "verify", text(&file), text(&program.path("rest.jsonl"))].map(str::to_owned);
    let both = program.done(&both.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(both.out.contains("The trail is whole"), "{}", both.out);
    assert_eq!(
        program.call(&["audit", "export", "--after", "1-0123456789abcdef"]).code,
        4,
        "it was archived"
    );
}

/// A program that says something now and then, until it ends.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(program: &Program, arguments: &[&str]) -> Self {
        let mut child =
            program.process(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (said, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| said.send(line).is_ok()));
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no other line: {error}"))
    }

    /// The code of the next record, in JSON.
    fn code(&self) -> String {
        let line: Value = serde_json::from_str(&self.next()).unwrap();
        line["record"]["code"].as_str().unwrap().to_owned()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_follows_the_trail_hears_what_comes_and_the_end_of_the_daemon() {
    let mut program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    program.run();
    let all = Following::start(&program, &["audit", "tail", "-n", "2", "--follow", "--output", "json"]);
    let id = node(7).to_string();
    let of_node = ["audit", "tail", "--follow", "--kind", "operator_action", "--node", &id];
    let mut of_node = Following::start(&program, &of_node);
    assert_eq!([all.code(), all.code()], ["started", "in_force"], "what is there already");

    program.done(&["inventory", "add", &node(8).to_string(), "--reason", "another"]);
    program.done(&["inventory", "add", &id, "--reason", "rack 7"]);
    assert_eq!([all.code(), all.code()], ["put_inventory", "put_inventory"]);
    // The other one, which is filtered, has this to say and nothing before.
    let line = of_node.next();
    assert!(line.contains("put_inventory") && line.contains(&id), "{line}");
    program.done(&["inventory", "remove", &id]);
    program.done(&["join-token", "create"]);
    assert_eq!([all.code(), all.code()], ["remove_inventory", "create_join_token"]);
    let line = of_node.next();
    assert!(line.contains("remove_inventory"), "each once, in order: {line}");

    assert_eq!(program.stop(), Some(0));
    assert_eq!(of_node.child.wait().unwrap().code(), Some(3), "the daemon cannot be reached");
}

#[test]
fn a_start_that_fails_says_in_the_trail_that_the_verifier_stopped() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let mut program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    let (file, config) =
        (program.path("verifier.toml"), std::fs::read_to_string(program.path("verifier.toml")));
    let config = config.unwrap();
    std::fs::write(&file, config.replace("127.0.0.1:0", &listen)).unwrap();
    let failed = program.call(&["run"]);
    assert_eq!(failed.code, 1, "{}", failed.err);
    // Where the socket is to be there is a folder: by then the listener is there.
    std::fs::write(&file, &config).unwrap();
    std::fs::create_dir(program.path("state/admin.sock")).unwrap();
    let failed = program.call(&["run"]);
    assert_ne!(failed.code, 0);
    assert!(!program.path("state/listen.addr").exists());
    std::fs::remove_dir(program.path("state/admin.sock")).unwrap();

    program.run();
    let exported = program.done(&["audit", "export", "--only-records"]).out;
    let records = lines(&exported);
    let begun = [
        "put_profile",
        "started",
        "in_force",
        "stopped",
        "started",
        "in_force",
        "stopped",
        "started",
        "in_force",
    ];
    assert_eq!(codes(&records), begun);
    let why = |index: usize| records[index]["status_detail"].as_str().unwrap();
    assert!(why(3).contains(&listen), "{}", why(3));
    assert!(why(6).contains("admin.sock"), "{}", why(6));
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_hang_up_that_reads_the_manufacturers_cas_again_is_on_record() {
    let mut program = Program::new();
    let roots = program.path("roots");
    std::fs::create_dir(&roots).unwrap();
    let anchor = |name: &str| {
        let ca = super::pki::Ca::other(super::stage::begin_of_time());
        ca.write_certificate(&roots.join(name));
    };
    anchor("one.pem");
    assert_eq!(program.init(&["--ek-roots", text(&roots)]).code, 0);
    program.run();
    let all = Following::start(&program, &["audit", "tail", "-n", "1", "--follow", "--output", "json"]);
    assert_eq!(all.code(), "in_force");
    anchor("two.pem");
    program.signal(Signal::HUP);
    let reloaded: Value = serde_json::from_str(&all.next()).unwrap();
    assert_eq!(reloaded["record"]["action"], "reload_ek_roots");
    assert_eq!(reloaded["record"]["facts"], json!({ "anchors": 2, "crls": 0, "intermediates": 0 }));
    std::fs::write(roots.join("three.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    program.signal(Signal::HUP);
    let failed: Value = serde_json::from_str(&all.next()).unwrap();
    assert_eq!(failed["record"]["outcome"], "failed");
    assert_eq!(failed["record"]["code"], "reload_failed");
    assert!(failed["record"]["detail"].as_str().unwrap().contains("three.pem"), "{failed}");
    assert_eq!(program.stop(), Some(0));
}
