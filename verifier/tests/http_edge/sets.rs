//! The life of sets, as an operator says it.

use serde_json::json;

use super::administration::Program;

#[test]
fn sets_are_staged_promoted_compared_merged_and_withdrawn_by_name() {
    let mut program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    program.run();
    let file = |name: &str, text: String| {
        std::fs::write(program.path(name), text).unwrap();
        program.path(name).to_str().unwrap().to_owned()
    };
    let kernel = |byte: &str, package: &str| {
        json!({ "bank": "sha256", "values": [{
            "measured": { "kind": "boot_application", "digest": format!("sha256:{}", byte.repeat(32)) },
            "label": "the kernel", "source": { "package": package, "version": "6.1" },
        }] })
        .to_string()
    };
    let (old, new) = (file("old.json", kernel("aa", "linux-a")), file("new.json", kernel("bb", "linux-b")));
    assert!(program.done(&["reference", "set", "kernel", &old]).out.starts_with("kernel@1 written (boot)"));
    let reason = ["--reason", "the Tuesday update"];
    assert_eq!(program.call(&["reference", "promote", "kernel"]).code, 4, "nothing is staged");
    let staged = ["reference", "stage", "kernel@1", &new, reason[0], reason[1], "--output", "json"];
    let staged = program.done(&staged).json();
    assert_eq!((&staged["kind"], &staged["version"]), (&json!("boot"), &json!(2)));
    let listed = program.done(&["reference", "list"]).out;
    assert!(listed.contains("staged over 1") && listed.contains("the Tuesday update"), "{listed}");
    let twice = program.call(&["reference", "stage", "kernel", &old]);
    assert!(twice.code == 4 && twice.err.contains("set_already_staged"), "{}", twice.err);
    let late = program.call(&["reference", "promote", "kernel@1"]);
    assert!(late.code == 4 && late.err.contains("set_overtaken"), "{}", late.err);
    let back = program.done(&["reference", "withdraw", "kernel", "--staged"]).out;
    assert!(back.starts_with("kernel@1 is current again"), "{back}");
    program.done(&["reference", "stage", "kernel", &new]);
    assert!(program.done(&["reference", "promote", "kernel"]).out.starts_with("kernel@4 written"));

    let diff = program.done(&["reference", "diff", "kernel@1", "kernel"]).out;
    let expected = [
        "kernel@1 and kernel@4 (boot): 1 removed, 1 added, 0 shared".to_owned(),
        format!("- boot_application sha256:{}  # the kernel, linux-a 6.1", "aa".repeat(32)),
        format!("+ boot_application sha256:{}  # the kernel, linux-b 6.1", "bb".repeat(32)),
    ];
    assert_eq!(diff.lines().collect::<Vec<_>>(), expected);
    let diff =
        program.done(&["reference", "diff", "kernel@1", "kernel@4", "--limit", "1", "--output", "json"]);
    assert_eq!(diff.json()["left_out"], 1);
    program.done(&["reference", "merge", "kernel@1", "kernel@4", "--into", "both"]);
    let both = program.done(&["reference", "show", "both"]).out;
    // What is shown can be set again.
    let again = file("both.json", both);
    program.done(&["reference", "set", "again", &again]);
    let shown = program.done(&["reference", "show", "again", "--output", "json"]).json();
    assert_eq!(shown["values"][1]["source"]["package"], "linux-b");
    program.done(&["reference", "remove", "again"]);
    assert_eq!(program.call(&["reference", "remove", "again"]).code, 4);

    let profile = program.done(&["profile", "show", "default"]).out;
    let rules = "\n[boot]\nbank = \"sha256\"\nexplained = [5]\nsets = [\"kernel\"]\n";
    let profile = file("profile.toml", format!("{profile}{rules}"));
    let refused = program.call(&["profile", "set", "default", &profile]);
    assert!(refused.code == 4 && refused.err.contains("PCR 4, which is not explained"), "{}", refused.err);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn deny_list_is_kept_in_versions_and_says_why() {
    let mut program = Program::new();
    assert_eq!(program.init(&[]).code, 0);
    program.run();
    assert!(program.done(&["reference", "deny", "list"]).out.contains("Nothing is denied."));
    let (one, other) = (format!("sha256:{}", "aa".repeat(32)), format!("sha256:{}", "bb".repeat(32)));
    let why = ["--label", "CVE-2023-40547", "--reason", "shim, http boot"];
    let deny = |what: &str, more: &[&str]| {
        let arguments = ["reference", "deny", "add", what, why[0], why[1], why[2], why[3]];
        program.call(&[&arguments, more].concat())
    };
    assert!(deny(&one, &[]).out.starts_with("deny@1 is in force, with 1 entries"));
    std::fs::write(program.path("denied"), format!("# of the advisory\n{one}\n{other}  shimx64.efi\n"))
        .unwrap();
    let file = program.path("denied");
    assert!(deny(file.to_str().unwrap(), &[]).out.starts_with("deny@2 is in force, with 2 entries"));
    let again = deny(&other, &[]);
    assert!(again.code == 4 && again.err.contains("deny_list_refused"), "{}", again.err);
    assert!(deny(&other, &["--dbx-image"]).out.starts_with("deny@3 is in force, with 3 entries"));
    let no_reason = program.call(&["reference", "deny", "add", &one, "--label", "x"]);
    assert_eq!(no_reason.code, 2);
    let listed = program.done(&["reference", "deny", "list"]).out;
    assert!(listed.contains("CVE-2023-40547") && listed.contains("shim, http boot"), "{listed}");
    assert!(listed.contains("image not in dbx"), "{listed}");
    let first = program.done(&["reference", "deny", "list", "--version", "1", "--output", "json"]).json();
    assert_eq!(first["entries"].as_array().unwrap().len(), 1);
    assert!(
        program.done(&["reference", "deny", "remove", &other]).out.contains("deny@4 is in force, with 1")
    );
    let gone = program.call(&["reference", "deny", "remove", &other]);
    assert!(gone.code == 4 && gone.err.contains("not_denied"), "{}", gone.err);
    assert_eq!(program.call(&["reference", "deny", "list", "--version", "9"]).code, 4);
    assert_eq!(program.stop(), Some(0));
}
