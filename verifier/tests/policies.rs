//! The policies that come with the documents: each folder compiles, passes its cases, and is what a folder of an operator is.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rootbound_verifier::policy::{Bundle, BundleSource, FileName};
use rootbound_verifier::reference::Versioned;

fn samples() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/samples/policy");
    let folders = fs::read_dir(root).expect("the samples").map(|entry| entry.expect("an entry").path());
    let mut folders: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn texts(folder: &Path, extension: &str) -> BTreeMap<FileName, String> {
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let fits = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    let name = |path: &Path| -> FileName {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        name.parse().expect("the name of a file of a bundle")
    };
    let read = |path: PathBuf| (name(&path), fs::read_to_string(&path).expect("a text"));
    files.filter(fits).map(read).collect()
}

fn source(folder: &Path) -> BundleSource {
    BundleSource {
        policies: texts(folder, "cedar"),
        schema: fs::read_to_string(folder.join("schema.cedarschema")).ok(),
        entities: fs::read_to_string(folder.join("entities.json")).ok(),
        routes: fs::read_to_string(folder.join("routes.toml")).ok(),
        cases: texts(&folder.join("tests"), "json"),
    }
}

#[test]
fn each_sample_compiles_without_a_warning_and_passes_its_cases() {
    let samples = samples();
    assert_eq!(samples.len(), 10, "{samples:?}");
    for folder in samples {
        let shown = folder.display();
        let id = Versioned { name: "sample".parse().expect("a name"), version: 1 };
        let bundle = Bundle::compile(id, source(&folder)).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert!(bundle.warnings().is_empty(), "{shown}: {:?}", bundle.warnings());
        let reports = bundle.run_cases();
        assert!(reports.len() >= 4, "{shown} has {} cases", reports.len());
        let failed: Vec<_> = reports.iter().filter(|report| !report.passed()).collect();
        assert!(failed.is_empty(), "{shown}: {failed:#?}");
        assert!(reports.iter().any(|report| report.expected.decision), "{shown} permits something");
        assert!(reports.iter().any(|report| !report.expected.decision), "{shown} refuses something");
        for policy in bundle.policies().filter(|policy| !is_built_in(policy.as_str())) {
            let named = |report: &&rootbound_verifier::policy::CaseReport| {
                report.expected.policies.iter().any(|name| name == policy.as_str())
            };
            assert!(reports.iter().any(|report| named(&report)), "{shown}: no case is decided by `{policy}`");
        }
    }
}

fn is_built_in(policy: &str) -> bool {
    Bundle::builtin_source().policies.values().any(|text| text.contains(&format!("@id(\"{policy}\")")))
}

#[test]
fn what_samples_begin_with_is_what_is_built_in() {
    let builtin = Bundle::builtin_source().policies.into_values().next().expect("the built-in policies");
    let mut found = 0;
    for folder in samples() {
        let basics = folder.join("basics.cedar");
        if basics.exists() {
            assert_eq!(fs::read_to_string(&basics).expect("a text"), builtin, "{}", basics.display());
            found += 1;
        }
    }
    assert!(found >= 9, "only {found} samples can be activated as they are");
}

#[test]
fn every_sample_is_in_the_document() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/POLICY.md");
    let text = fs::read_to_string(text).expect("docs/POLICY.md");
    for folder in samples() {
        let name = folder.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        assert!(text.contains(&format!("samples/policy/{name}")), "docs/POLICY.md does not have `{name}`");
    }
}
