//! Questions over the stored evidence, as an operator asks them on the command line.

use serde_json::{Value, json};

use super::administration::Program;
use super::stage::node;

#[test]
fn operator_asks_what_would_be_and_is_told_what_is_no_question() {
    let mut program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    program.run();
    let file = |name: &str, text: &str| {
        std::fs::write(program.path(name), text).unwrap();
        program.path(name).display().to_string()
    };
    let values = file("values.toml", &format!("[sha256]\n7 = [\"{}\"]\n", "ab".repeat(32)));
    let digests = file("digests.txt", &format!("sha256:{}  /bin/a\n", "ab".repeat(32)));
    let profile = file("profile.toml", &program.done(&["profile", "show", "default"]).out);

    let supposed = [
        "reference",
        "dry-run",
        "--set",
        "default",
        &values,
        "--digests",
        "ours",
        &digests,
        "--profile",
        "default",
        &profile,
        "--reason",
        "before the rollout",
    ];
    let text = program.done(&supposed).out;
    assert!(text.contains("reference set default; digest set ours; profile default"), "{text}");
    let answer = program.done(&[&supposed[..], &["--output", "json"]].concat()).json();
    for count in ["nodes", "to_contraindicated", "to_affirming", "still_affirming", "without_evidence"] {
        assert_eq!(answer[count], 0, "{count}");
    }
    assert_eq!((&answer["changed"], &answer["next"]), (&json!([]), &json!(null)));
    assert_eq!(
        program.done(&["reference", "list", "--output", "json"]).json(),
        json!([]),
        "nothing is written"
    );
    let id = answer["id"].as_str().unwrap();
    let again = program.done(&["reference", "dry-run", "--of", id, "--output", "json"]).json();
    assert_eq!(again, answer);
    let trail = program.done(&["audit", "export"]).out;
    assert!(trail.contains(id) && trail.contains("before the rollout"), "the trail says that it was asked");

    let unknown = node(9).to_string();
    let of = "0".repeat(32);
    for (arguments, code) in [
        (vec!["dry-run"], "no_change_named"),
        (vec!["dry-run", "--withdraw", "none"], "no_set_to_withdraw"),
        (vec!["dry-run", "--set", "a", &values, "--set", "a", &values], "changed_twice"),
        (vec!["dry-run", "--of", &of], "no_such_dry_run"),
        (vec!["why", &unknown], "unknown_node"),
        (vec!["capture", &unknown, &id.repeat(2)], "unknown_node"),
        (vec!["capture", "--labels", "env=none"], "no_nodes_named"),
    ] {
        let refused = program.call(&[&["--output", "json", "reference"], &arguments[..]].concat());
        assert_eq!(refused.code, 4, "{arguments:?}: {}", refused.err);
        assert_eq!(serde_json::from_str::<Value>(&refused.err).unwrap()["code"], code, "{arguments:?}");
    }
    for wrong in [
        vec!["dry-run", "--set", "default"],
        vec!["dry-run", "--set", "default", "/does/not/exist"],
        vec!["dry-run", "--set", "no name", &values],
        vec!["dry-run", "--of", &of, "--withdraw", "default"],
        vec!["dry-run", "--withdraw", "profile:default"],
        vec!["capture"],
        vec!["capture", &unknown, "--digests", "all", "--name", "default"],
    ] {
        let refused = program.call(&[&["reference"], &wrong[..]].concat());
        assert_eq!(refused.code, 2, "{wrong:?}: {}", refused.err);
    }
    assert_eq!(program.stop(), Some(0));
}
