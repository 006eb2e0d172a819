//! The life of sets, as an operator says it.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
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

/// A key pair in files: the private one, and the public one for the configuration.
fn keys(program: &Program, name: &str, ed25519: bool) -> (String, String) {
    let pem = |label: &str, der: &[u8]| {
        let text = data_encoding::BASE64.encode(der);
        let lines: Vec<_> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    };
    let (private, public) = if ed25519 {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), public.as_ref().to_vec())
    } else {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), public.as_ref().to_vec())
    };
    let write = |file: String, text: String| {
        std::fs::write(program.path(&file), text).unwrap();
        program.path(&file).to_str().unwrap().to_owned()
    };
    (
        write(format!("{name}.key"), pem("PRIVATE KEY", &private)),
        write(format!("{name}.pub"), pem("PUBLIC KEY", &public)),
    )
}

/// Two verifiers, of which the other trusts two signers; and their private keys.
fn two_verifiers() -> (Program, Program, String, String) {
    let (mut one, mut other) = (Program::new(), Program::new());
    for program in [&one, &other] {
        assert_eq!(program.init(&[]).code, 0);
    }
    let (release, release_public) = keys(&one, "release", false);
    let (distribution, distribution_public) = keys(&one, "distribution", true);
    let config = std::fs::read_to_string(other.path("verifier.toml")).unwrap();
    let signers = format!(
        "{config}\n[references]\ntrusted_signers = [{{ name = \"release\", key = \"{release_public}\" }}, \
         {{ name = \"distribution\", key = \"{distribution_public}\" }}]\n"
    );
    std::fs::write(other.path("verifier.toml"), signers).unwrap();
    one.run();
    other.run();
    (one, other, release, distribution)
}

#[test]
fn sets_go_to_another_verifier_by_a_trusted_signature_or_not_at_all() {
    let (mut one, mut other, release, distribution) = two_verifiers();
    let (stranger, _) = keys(&one, "stranger", false);
    let path = |name: &str| one.path(name).to_str().unwrap().to_owned();
    let put = |name: &str, text: &str, set: &str| {
        std::fs::write(one.path(name), text).unwrap();
        one.done(&["reference", "set", set, &path(name), "--reason", "of the \u{fc}bliche sort"]);
    };
    let hex = "ab".repeat(32);
    put("pcrs", &format!("{{\"sha256\": {{\"7\": [\"{hex}\"]}}}}"), "keys");
    put("digests", &format!("sha256:{hex}  /bin/\u{fc}\n"), "files");
    let boot = json!({ "bank": "sha256", "values": [{
        "measured": { "kind": "command_line", "text": "quiet" }, "source": { "file": "/etc/kernel/cmdline" },
    }] });
    put("boot", &boot.to_string(), "boot");
    let shown = |program: &Program, set: &str, kind: &str| {
        program.done(&["reference", "show", set, "--kind", kind, "--output", "json"]).json()
    };

    let (signed, detached) = (path("signed.json"), path("detached.json"));
    one.done(&["reference", "export", "--key", &release, "--to", &signed]);
    let import = |more: &[&str]| other.call(&[&["reference", "import"], more].concat());
    let done = import(&[&signed, "--output", "json", "--reason", "the release"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let done = done.json();
    assert_eq!((&done["signed_by"], done["sets"].as_array().unwrap().len()), (&json!("release"), 3));
    for (set, kind, values) in
        [("keys", "pcrs", "accepted"), ("boot", "boot", "values"), ("files", "digests", "content")]
    {
        assert_eq!(shown(&other, set, kind)[values], shown(&one, set, kind)[values], "{set}");
        let reason = shown(&other, set, kind)["provenance"]["reason"].as_str().unwrap().to_owned();
        assert_eq!(reason, format!("{set}@1 of example.org, signed by release: the release"));
    }
    let written =
        one.done(&["reference", "export", "boot@1", "--key", &distribution, "--signature", &detached]);
    std::fs::write(one.path("bare.json"), &written.out).unwrap();
    let bare = path("bare.json");
    let done = import(&[&bare, "--signature", &detached]);
    assert!(
        done.code == 0 && done.out.contains("boot@2") && done.out.contains("distribution"),
        "{}",
        done.err
    );

    // What could not be imported is not exported.
    for (sets, code) in [(["boot@1", "boot"], "import_set_twice"), (["boot", "gone"], "set_withdrawn")] {
        if code == "set_withdrawn" {
            one.done(&["reference", "set", "gone", &path("digests")]);
            one.done(&["reference", "remove", "gone"]);
        }
        let refused = one.call(&["reference", "export", sets[0], sets[1], "--key", &release]);
        assert!(refused.code == 4 && refused.err.contains(code), "{code}: {}", refused.err);
    }

    let before = other.done(&["reference", "list", "--output", "json"]).json();
    let text = std::fs::read_to_string(&signed).unwrap();
    let refused = |text: &str, code: &str| {
        std::fs::write(one.path("odd.json"), text).unwrap();
        let refused = import(&[&path("odd.json")]);
        assert!(refused.code == 4 && refused.err.contains(code), "{code}: {}{}", refused.out, refused.err);
    };
    refused(&text.replace("quiet", "quiet init=/bin/sh"), "import_signature_invalid");
    refused(&text.replace("ES256", "EdDSA"), "import_signature_algorithm");
    refused(&written.out, "import_unsigned");
    one.done(&["reference", "export", "--key", &stranger, "--to", &path("strange.json")]);
    refused(&std::fs::read_to_string(path("strange.json")).unwrap(), "import_signer_unknown");
    let odd = |from: &str, to: &str, code: &str| {
        let odd = written.out.replace(from, to);
        assert_ne!(odd, written.out, "{code}");
        std::fs::write(one.path("odd.json"), odd).unwrap();
        let refused = import(&[&path("odd.json"), "--unsigned"]);
        assert!(refused.code == 4 && refused.err.contains(code), "{code}: {}", refused.err);
    };
    odd("rootbound-references/1", "rootbound-references/2", "import_format");
    odd("\"exported_at\"", "\"exported\"", "import_malformed");
    odd("\"quiet\"", "\"\"", "import_set_refused");
    odd("\"name\": \"boot\"", "\"name\": \"deny\"", "set_name_reserved");
    assert_eq!(other.done(&["reference", "list", "--output", "json"]).json(), before, "nothing was imported");

    assert!(import(&[&bare, "--unsigned"]).out.contains("unsigned"));
    let trail = other.done(&["audit", "export"]).out;
    let imports: Vec<_> = trail.lines().filter(|line| line.contains("import_sets")).collect();
    assert_eq!(imports.len(), 3, "{trail}");
    assert!(imports[0].contains("\"signed_by\":\"release\"") && imports[2].contains("\"unsigned\":true"));
    assert_eq!((one.stop(), other.stop()), (Some(0), Some(0)));
}

#[test]
fn sets_go_as_a_corim_where_both_can_say_the_same() {
    let (mut one, mut other, release, distribution) = two_verifiers();
    let path = |name: &str| one.path(name).to_str().unwrap().to_owned();
    let put = |name: &str, text: &str, set: &str| {
        std::fs::write(one.path(name), text).unwrap();
        one.done(&["reference", "set", set, &path(name)]);
    };
    let hex = "ab".repeat(32);
    put("pcrs", &format!("{{\"sha256\": {{\"7\": [\"{hex}\", \"{}\"]}}}}", "ac".repeat(32)), "keys");
    put("digests", &format!("# of a package\nsha256:{hex}  /bin/\u{fc}\n"), "files");
    let boot = json!({ "bank": "sha256", "values": [
        { "measured": { "kind": "command_line", "text": "quiet" }, "label": "as installed" },
        { "measured": { "kind": "event", "pcr": 11, "digest": format!("sha256:{hex}") } },
    ] });
    put("boot", &boot.to_string(), "boot");
    let shown = |program: &Program, set: &str, kind: &str| {
        program.done(&["reference", "show", set, "--kind", kind, "--output", "json"]).json()
    };
    let import = |more: &[&str]| other.call(&[&["reference", "import"], more].concat());
    let exported = path("references.cbor");
    let export =
        ["reference", "export", "--format", "corim", "--valid-for", "30d", "--to", &exported, "--key"];
    let said = one.done(&[&export[..], &[&release]].concat());
    assert!(said.err.contains("files@1: 1 comments"), "what is left out is said: {}", said.err);
    let done = import(&[&exported, "--output", "json", "--reason", "the release"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(
        (&done.json()["signed_by"], done.json()["sets"].as_array().unwrap().len()),
        (&json!("release"), 3)
    );
    for (set, kind, values) in
        [("keys", "pcrs", "accepted"), ("boot", "boot", "values"), ("files", "digests", "content")]
    {
        assert_eq!(shown(&other, set, kind)[values], shown(&one, set, kind)[values], "{set}");
        let reason = shown(&other, set, kind)["provenance"]["reason"].as_str().unwrap().to_owned();
        assert_eq!(reason, format!("{set}@1 of example.org, signed by release: the release"));
    }
    let single = path("single.cbor");
    let to_file = ["--format", "corim", "--to", &single, "--key", &distribution];
    one.done(&[&["reference", "export", "keys@1"], &to_file[..]].concat());
    let named = import(&[&single, "--name", "of-one"]);
    assert!(named.code == 0 && named.out.contains("of-one@1"), "{}{}", named.out, named.err);

    // What is refused leaves nothing behind.
    let before = other.done(&["reference", "list", "--output", "json"]).json();
    let mut bytes = std::fs::read(&exported).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(one.path("changed.cbor"), &bytes).unwrap();
    one.done(&["reference", "export", "keys", "--format", "corim", "--to", &path("bare.cbor")]);
    for (file, code) in [("changed.cbor", "import_signature_invalid"), ("bare.cbor", "import_unsigned")] {
        let refused = import(&[&path(file)]);
        assert!(refused.code == 4 && refused.err.contains(code), "{code}: {}", refused.err);
    }
    let refused = import(&[&exported, "--name", "all"]);
    assert!(refused.code == 4 && refused.err.contains("import_corim_inexpressible"), "{}", refused.err);
    assert_eq!(other.done(&["reference", "list", "--output", "json"]).json(), before, "nothing was imported");
    assert!(import(&[&path("bare.cbor"), "--unsigned"]).out.contains("unsigned"));

    // What cannot be said is not written, and options that do not go together are refused.
    put("anywhere", &format!("sha256:{hex}  *\n"), "anywhere");
    let refused = |more: &[&str], words: &str| {
        let said = one.call(&[&["reference", "export"], more].concat());
        assert!(said.code != 0 && said.err.contains(words), "{words}: {}{}", said.out, said.err);
    };
    refused(&["anywhere", "--format", "corim"], "anywhere@1, line 1");
    refused(&["keys", "--key", &release, "--valid-for", "1d"], "--format corim");
    let detached = path("detached");
    refused(&["keys", "--format", "corim", "--key", &release, "--signature", &detached], "signature in it");
    one.done(&["reference", "deny", "add", &format!("sha256:{hex}"), "--label", "CVE-1", "--reason", "x"]);
    refused(&["keys", "--format", "corim", "--deny"], "no place for a deny list");
    let said = import(&[&exported, "--signature", &path("pcrs")]);
    assert!(said.code != 0 && said.err.contains("signature in it"), "{}", said.err);
    std::fs::write(one.path("some.json"), "{}").unwrap();
    let said = import(&[&path("some.json"), "--name", "x"]);
    assert!(said.code != 0 && said.err.contains("--name is for a CoRIM"), "{}", said.err);
    assert_eq!((one.stop(), other.stop()), (Some(0), Some(0)));
}

#[test]
fn documents_carry_the_deny_list_and_do_not_go_back_in_time() {
    let (mut one, mut other, release, _) = two_verifiers();
    let path = |name: &str| one.path(name).to_str().unwrap().to_owned();
    let denied = |byte: &str| format!("sha256:{}", byte.repeat(32));
    std::fs::write(one.path("digests"), format!("{}  *\n", denied("ab"))).unwrap();
    one.done(&["reference", "set", "files", &path("digests")]);
    for byte in ["aa", "bb"] {
        let words = ["--label", "CVE-1", "--reason", "known to be vulnerable"];
        one.done(&[&["reference", "deny", "add", &denied(byte)], &words[..]].concat());
    }
    for (byte, label) in [("bb", "by ourselves"), ("cc", "CVE-2")] {
        other.done(&["reference", "deny", "add", &denied(byte), "--label", label, "--reason", "ours"]);
    }
    let import = |more: &[&str]| other.call(&[&["reference", "import"], more].concat());
    let (old, new) = (path("old.json"), path("new.json"));
    one.done(&["reference", "export", "--deny", "--key", &release, "--to", &old]);
    one.done(&["reference", "deny", "remove", &denied("aa")]);
    let done = import(&[&old, "--output", "json"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(done.json()["denied"], json!({ "version": 3, "added": 1 }));
    let list = other.done(&["reference", "deny", "list", "--output", "json"]).json();
    let entries: Vec<_> = list["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["digest"].as_str().unwrap(), entry["label"].as_str().unwrap()))
        .collect();
    let (a, b, c) = (denied("aa"), denied("bb"), denied("cc"));
    assert_eq!(entries, [(&*b, "by ourselves"), (&*c, "CVE-2"), (&*a, "CVE-1")], "what was there stays");
    let reason = &list["entries"][2]["reason"];
    assert_eq!(reason, "of example.org, signed by release: known to be vulnerable");
    assert!(
        import(&[&old]).out.contains("deny@3 is in force, with 0 entries more"),
        "again, the same document"
    );

    // A later document with the same set; then the old one is too old. What a document says of its time is of its signer.
    let text = std::fs::read_to_string(&old).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let made_at = document["references"]["exported_at"].as_i64().unwrap();
    document["references"]["exported_at"] = json!(made_at + 60_000);
    std::fs::write(&new, document["references"].to_string()).unwrap();
    assert_eq!(import(&[&new, "--unsigned"]).code, 0);
    assert_eq!(import(&[&old]).code, 0, "nobody's document makes a signer's one old");
    let mut nobody = document["references"].clone();
    nobody["exported_at"] = json!(made_at);
    std::fs::write(&new, nobody.to_string()).unwrap();
    let refused = import(&[&new, "--unsigned"]);
    assert!(refused.code == 4 && refused.err.contains("import_older"), "{}", refused.err);
    let done = import(&[&new, "--unsigned", "--older"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let trail = other.done(&["audit", "export"]).out;
    let last = trail.lines().rfind(|line| line.contains("import_sets")).unwrap();
    assert!(last.contains("\"older\":true") && last.contains("\"unsigned\":true"), "{last}");
    nobody["exported_at"] = json!(made_at + 3_600_000);
    std::fs::write(&new, nobody.to_string()).unwrap();
    let refused = import(&[&new, "--unsigned"]);
    assert!(refused.code == 4 && refused.err.contains("import_from_the_future"), "{}", refused.err);
    assert_eq!((one.stop(), other.stop()), (Some(0), Some(0)));
}
