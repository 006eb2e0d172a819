//! Every reason to refuse is produced by some test: each variant that has a code is named by a test, or its code is.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn below(dirs: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in dirs {
        rust_files(&workspace().join(dir), &mut found);
    }
    found
}

/// Code → name of its variant, from lines like `Self::Variant { .. } => "the_code",`.
fn codes(text: &str) -> BTreeMap<String, String> {
    let mut codes = BTreeMap::new();
    let mut before = String::new();
    for line in text.lines() {
        let code = line.split_once("=> \"").and_then(|(arm, rest)| Some((arm, rest.split_once('"')?.0)));
        let Some((arm, code)) = code else {
            // An arm that takes several lines names its variants in the lines before.
            before = if line.contains("Self::") { format!("{before}{line}") } else { String::new() };
            continue;
        };
        let is_code = !code.is_empty()
            && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit());
        let arm = format!("{before}{arm}");
        if is_code && arm.contains("Self::") {
            // `Self::Evidence(ContinuityError::Clock { .. })`: the last name is the reason.
            let name = arm.rsplit("::").next().unwrap_or_default();
            let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            codes.insert(code.to_owned(), name);
        }
        before.clear();
    }
    codes
}

/// What no test can produce, and why.
const UNREACHABLE: [(&str, &str); 3] = [
    ("issuing_failed", "the CA's end of life is tested by its variants; signing itself does not fail"),
    ("endorsement_key_unusable", "no EK that passed the checks is refused by RSA-OAEP or ECDH"),
    ("waiver_of_other_key", "the entry is looked up by the key's own hash; `WaiverError` has a unit test"),
];

/// Every code with the name of its variant, and the text of every test.
fn codes_and_tests() -> (BTreeMap<String, String>, String) {
    let mut tests = String::new();
    for path in below(&["verifier/tests", "swtpm-tests/tests", "swtpm-tests/src"]) {
        if !path.ends_with("reasons.rs") {
            tests.push_str(&fs::read_to_string(path).expect("a test"));
        }
    }
    let mut product = BTreeMap::new();
    for path in below(&["verifier/src", "verifier/token/src"]) {
        let text = fs::read_to_string(&path).expect("a source");
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests")
            || path.components().any(|part| part.as_os_str() == "testing" || part.as_os_str() == "tests");
        let (code, test) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
        tests.push_str(if is_test { &text } else { test });
        if code.contains("fn code(") {
            let from = code.find("fn code(").unwrap_or_default();
            product.extend(codes(code.get(from..).unwrap_or_default()));
        }
    }
    assert!(product.len() > 100, "only {} codes were found: did `fn code` change its form?", product.len());
    (product, tests)
}

#[test]
fn every_code_is_in_the_description_of_the_protocol() {
    let text = fs::read_to_string(workspace().join("docs/PROTOCOL.md")).expect("docs/PROTOCOL.md");
    let (product, _) = codes_and_tests();
    let missing: Vec<_> = product.keys().filter(|code| !text.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "docs/PROTOCOL.md does not have {missing:?}");
}

#[test]
fn every_code_is_produced_by_some_test() {
    let (product, tests) = codes_and_tests();
    let named = |name: &str| tests.contains(&format!("::{name}"));
    let missing: Vec<_> = (product.iter())
        .filter(|(code, _)| !UNREACHABLE.iter().any(|(excused, _)| excused == code))
        .filter(|(code, name)| !tests.contains(&format!("\"{code}\"")) && !named(name))
        .map(|(code, name)| format!("`{code}` ({name})"))
        .collect();
    assert!(missing.is_empty(), "no test produces {}", missing.join(", "));
}
