//! Holds the arrows of `docs/ARCHITECTURE.md`: who may use whom, and what the pure modules must not touch.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// Every Rust file below `dir` that is no test, with its text up to its tests.
fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(dir)];
    while let Some(folder) = folders.pop() {
        if folder.is_file() {
            folders_file(&folder, &mut found);
            continue;
        }
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().unwrap_or_default();
            if name == "tests" || name == "testing" {
                continue;
            }
            if path.is_dir() { folders.push(path) } else { folders_file(&path, &mut found) }
        }
    }
    assert!(!found.is_empty(), "{dir} has no sources: was it moved?");
    found
}

fn folders_file(path: &Path, found: &mut Vec<(PathBuf, String)>) {
    if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).expect("a source file");
        // A module of tests ends a file; what else is only for tests is held to the same.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        found.push((path.to_path_buf(), code.join("\n")));
    }
}

/// The files below any of `dirs` in which any of `words` stands.
fn offenders(dirs: &[&str], words: &[&str]) -> Vec<String> {
    let mut offenders = Vec::new();
    for dir in dirs {
        for (path, code) in sources(dir) {
            for word in words.iter().filter(|word| code.contains(**word)) {
                offenders.push(format!("{}: `{word}`", path.display()));
            }
        }
    }
    offenders
}

fn assert_none(offenders: &[String], rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

/// The road: bytes to credential, without I/O. Of `enrollment` all but what reads a folder of roots, and of `credential`
/// all but what reads and writes the CA's files.
const ROAD: [&str; 30] = [
    "verifier/src/token.rs",
    "verifier/src/token",
    "verifier/src/audit",
    "verifier/src/challenge.rs",
    "verifier/src/evidence",
    "verifier/src/appraisal",
    "verifier/src/policy",
    "verifier/src/reference.rs",
    "verifier/src/reference",
    "verifier/src/hold.rs",
    "verifier/src/node.rs",
    "verifier/src/posture.rs",
    "verifier/src/enrollment/activation.rs",
    "verifier/src/enrollment/ak.rs",
    "verifier/src/enrollment/codes.rs",
    "verifier/src/enrollment/make_credential.rs",
    "verifier/src/enrollment/ek/certificate.rs",
    "verifier/src/enrollment/ek/chain.rs",
    "verifier/src/enrollment/ek/crl.rs",
    "verifier/src/enrollment/ek/extensions.rs",
    "verifier/src/enrollment/ek/leaf.rs",
    "verifier/src/enrollment/ek/name.rs",
    "verifier/src/enrollment/ek/pem.rs",
    "verifier/src/enrollment/ek/public.rs",
    "verifier/src/enrollment/ek/roots.rs",
    "verifier/src/enrollment/ek.rs",
    "verifier/src/credential/authority.rs",
    "verifier/src/credential/certificate.rs",
    "verifier/src/credential/presented.rs",
    "verifier/src/credential/serial.rs",
];

/// Of the road what takes a key that was judged, and the grant for it.
const CREDENTIAL: [&str; 2] = ["verifier/src/credential/request.rs", "verifier/src/credential/issue.rs"];

#[test]
fn the_road_has_no_io_no_clock_and_no_randomness_of_its_own() {
    let words = [
        "async ",
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "tokio",
        "sqlx",
        "SystemTime",
        "Instant",
        "SystemClock",
        "dyn Clock",
        "random::system",
        "SysRng",
        "std::env",
    ];
    assert_none(&offenders(&ROAD, &words), "the road is pure");
    let told = [
        "verifier/src/credential/ear.rs",
        "verifier/src/credential/result_key.rs",
        "verifier/src/attestation_result.rs",
        "verifier/src/relying_party.rs",
    ];
    assert_none(&offenders(&told, &words), "what is issued follows from what is given");
    assert_none(&offenders(&CREDENTIAL, &words), "the road is pure");
    assert_none(&offenders(&["common/src/tpm", "common/src/crypto"], &words), "common's parsers are pure");
    assert_none(
        &offenders(&["verifier/compute/src/boot"], &words),
        "what is computed follows from what is given",
    );
    let token = offenders(&["verifier/token/src"], &words);
    let token: Vec<_> = token.into_iter().filter(|file| !file.contains("/token/src/layer/")).collect();
    assert_none(&token, "what a token proves follows from what is given; the layer asks for it");
    let service = ["rootbound_verifier", "rootbound_attester", "std::process"];
    assert_none(&offenders(&["verifier/token/src"], &service), "a token is for whoever takes it");
    assert_none(&offenders(&["verifier/compute/src"], &service), "what reads files knows no service");
    let harm = ["std::process", ".unpack(", ".unpack_in(", "fs::write", "File::create", "OpenOptions"];
    assert_none(&offenders(&["verifier/compute/src"], &harm), "nothing is executed, unpacked or written");
}

#[test]
fn the_road_runs_one_way() {
    let later = ["crate::flows", "crate::store", "crate::http", "crate::jobs", "crate::cli", "crate::config"];
    assert_none(&offenders(&ROAD, &later), "the road knows neither store nor edge");
    assert_none(&offenders(&CREDENTIAL, &later), "the road knows neither store nor edge");
    assert_none(
        &offenders(&["verifier/src/enrollment"], &later),
        "neither does what reads a folder of roots",
    );
    assert_none(
        &offenders(&["verifier/src/evidence"], &["crate::appraisal", "crate::policy", "crate::credential"]),
        "evidence does not know what is made of it",
    );
    assert_none(
        &offenders(&["verifier/src/appraisal"], &["crate::policy", "crate::credential"]),
        "appraisal does not know what is decided on it",
    );
    assert_none(
        &offenders(&["verifier/src/store"], &["crate::flows", "crate::http", "crate::policy", "appraise("]),
        "the store keeps history, never permissions",
    );
    assert_none(
        &offenders(&["verifier/src/flows"], &["crate::http", "crate::cli"]),
        "flows do not know HTTP",
    );
}

#[test]
fn only_flows_hold_the_store_and_the_road() {
    let road = ["authenticate(", "appraise(", "decide_issue("];
    assert_none(
        &offenders(&["verifier/src/http", "verifier/src/jobs.rs", "verifier/src/cli"], &road),
        "the edge calls flows",
    );
    // Rows to be shown are another matter.
    let verbs = [
        "ChallengeStore",
        "EnrollmentStore",
        "NodeStore",
        "EvidenceStore",
        "InventoryStore",
        "JoinTokenStore",
        "DecisionStore",
        "AuditStore",
        "HoldStore",
        "SignalStore",
        "SqliteStore",
        "dyn Store",
    ];
    assert_none(
        &offenders(&["verifier/src/http", "verifier/src/jobs.rs"], &verbs),
        "the edge has the store from flows, and only to show what is there",
    );
    let writes = [
        ".put_",
        ".remove_inventory(",
        ".spend_challenge(",
        "_enrollment(",
        ".record_",
        ".approve_node(",
        ".retire_node(",
        ".label_node(",
        ".change_holds(",
        ".withdraw_",
        ".create_join_token(",
        ".revoke_join_token(",
        ".append(",
        ".forget_",
    ];
    let written: Vec<_> = offenders(&["verifier/src/http", "verifier/src/jobs.rs"], &["store()"]);
    for file in written {
        let path = Path::new(file.split(": `").next().unwrap_or_default());
        let text = fs::read_to_string(path).expect("a source file");
        for line in text.lines().filter(|line| line.contains("store()")) {
            let write = writes.iter().find(|write| line.contains(**write));
            assert!(write.is_none(), "{}: `{line}` writes past flows", path.display());
        }
    }
}

#[test]
fn a_quote_without_a_challenge_is_for_looking_at_files_only() {
    let offline = |file: &String| {
        file.contains("/flows/offline/")
            || file.contains("/evidence/quote")
            || file.contains("/evidence/mod.rs")
    };
    let named: Vec<_> = offenders(&["verifier/src"], &["OfflineQuote", "evidence::offline"])
        .into_iter()
        .filter(|file| !offline(file))
        .collect();
    assert_none(&named, "the service takes `Authenticated`");
    let examined =
        offenders(&["verifier/src/flows", "verifier/src/http", "verifier/src/jobs.rs"], &["offline::"]);
    let examined: Vec<_> = examined.into_iter().filter(|file| !offline(file)).collect();
    assert_none(&examined, "no story of the service begins with files");
}

#[test]
fn the_verifier_links_no_tss_library_and_the_attester_no_verifier() {
    let manifest = |name: &str| fs::read_to_string(root().join(name)).expect("a manifest");
    assert_none(
        &offenders(&["common/src"], &["rootbound_attester", "rootbound_verifier"]),
        "what both sides use knows neither",
    );
    assert!(!manifest("common/Cargo.toml").contains("rootbound-verifier"));
    for name in ["verifier/Cargo.toml", "verifier/token/Cargo.toml", "common/Cargo.toml"] {
        assert!(
            !manifest(name).contains("tss-esapi"),
            "{name}: what a stranger sends is parsed by our own code"
        );
        assert!(!manifest(name).contains("rootbound-attester"), "{name}");
    }
    assert!(!manifest("attester/Cargo.toml").contains("rootbound-verifier"));
    assert_none(
        &offenders(&["attester/src"], &["tss_esapi"])
            .into_iter()
            .filter(|offender| !offender.contains("attester/src/tpm/"))
            .collect::<Vec<_>>(),
        "only attester/src/tpm speaks to a TPM",
    );
}

#[test]
fn unsafe_code_is_forbidden_in_each_crate() {
    for name in ["attester", "common", "verifier", "verifier/compute", "verifier/token", "swtpm-tests"] {
        let text = fs::read_to_string(root().join(name).join("src/lib.rs")).expect("a crate");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{name}");
    }
}

#[test]
fn every_code_that_the_protocol_names_exists() {
    let text = fs::read_to_string(root().join("docs/PROTOCOL.md")).expect("docs/PROTOCOL.md");
    let code = ["verifier/src", "verifier/token/src"].into_iter().flat_map(sources);
    let code: String = code.map(|(_, code)| code).collect();
    let mut checked = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let codes = row.rsplit('|').nth(1).unwrap_or_default();
        for word in codes.split('`').skip(1).step_by(2).filter(|word| word.contains('_')) {
            assert!(
                code.contains(&format!("\"{word}\"")),
                "docs/PROTOCOL.md names `{word}`, the code does not"
            );
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} codes found: did the table change its form?");
}
