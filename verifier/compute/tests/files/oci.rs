//! OCI image layouts.

use std::path::Path;

use rootbound_compute::files::{Computed, Fault, FilesError, Limits, Options};
use serde_json::json;
use tar::EntryType;

use super::make::{entry, file, gzip, tar};
use super::{compute_with, lines, run, sums, text, values};

/// A layout that is being made.
pub(crate) struct Layout {
    pub(crate) folder: tempfile::TempDir,
    layers: Vec<serde_json::Value>,
}

impl Layout {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { folder, layers: Vec::new() }
    }

    pub(crate) fn blob(&self, kind: &str, bytes: &[u8]) -> serde_json::Value {
        let path = self.folder.path().join("blob");
        std::fs::write(&path, bytes).unwrap();
        let sum = String::from_utf8(run(self.folder.path(), "sha256sum", &["blob"])).unwrap();
        let digest = sum.split(' ').next().unwrap();
        std::fs::rename(path, self.folder.path().join("blobs/sha256").join(digest)).unwrap();
        json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() })
    }

    pub(crate) fn layer(mut self, kind: &str, bytes: &[u8]) -> Self {
        self.layers.push(self.blob(&format!("application/vnd.oci.image.layer.v1.{kind}"), bytes));
        self
    }

    /// Writes manifest and index, with an attestation beside the image.
    pub(crate) fn finish(self) -> Self {
        let config = self.blob("application/vnd.oci.image.config.v1+json", b"{}");
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": self.layers });
        let mut manifest =
            self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        manifest["platform"] = json!({ "os": "linux", "architecture": "amd64" });
        let mut other = manifest.clone();
        other["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        let inner = json!({ "schemaVersion": 2, "manifests": [manifest, other] });
        let mut index = self.blob("application/vnd.oci.image.index.v1+json", inner.to_string().as_bytes());
        index["annotations"] = json!({ "org.opencontainers.image.ref.name": "app:1" });
        self.index(&json!({ "schemaVersion": 2, "manifests": [index] }));
        self
    }

    pub(crate) fn index(&self, index: &serde_json::Value) {
        std::fs::write(self.folder.path().join("index.json"), index.to_string()).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn compute(&self) -> Result<Computed, FilesError> {
        compute_with(&[self.path()], &Options::default())
    }
}

fn layered() -> Layout {
    let lower = tar(&[
        file("usr/bin/keep", b"keep"),
        file("usr/bin/gone", b"gone"),
        file("usr/bin/changed", b"old"),
        file("opt/all/of/it", b"it"),
        file("var/lib/one", b"one"),
        entry("bin", EntryType::Symlink, "usr/bin", b""),
        entry("usr/bin/linked", EntryType::Link, "usr/bin/keep", b""),
    ]);
    let upper = tar(&[
        file("usr/bin/.wh.gone", b""),
        file("usr/bin/changed", b"new"),
        file("opt/.wh.all", b""),
        file("var/lib/two", b"two"),
        file("var/lib/.wh..wh..opq", b""),
        file("bin/late", b"late"),
        entry("usr/bin/again", EntryType::Link, "bin/keep", b""),
    ]);
    let upper = zstd::bulk::compress(&upper, 3).unwrap();
    Layout::new().layer("tar+gzip", &gzip(&lower)).layer("tar+zstd", &upper).finish()
}

#[test]
fn layers_are_laid_one_onto_the_other() {
    let layout = layered();
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(tree.path().join("usr/bin")).unwrap();
    std::fs::create_dir_all(tree.path().join("var/lib")).unwrap();
    for (path, content) in [
        ("usr/bin/keep", "keep"),
        ("usr/bin/linked", "keep"),
        ("usr/bin/again", "keep"),
        ("usr/bin/changed", "new"),
        ("usr/bin/late", "late"),
        ("var/lib/two", "two"),
    ] {
        std::fs::write(tree.path().join(path), content).unwrap();
    }
    let computed = layout.compute().unwrap_or_else(|error| panic!("{error}"));
    let mut found = lines(&computed);
    found.sort_by(|a, b| a.split_once("  ").unwrap().1.cmp(b.split_once("  ").unwrap().1));
    assert_eq!(found, values(&sums(tree.path(), "sha256")));
    assert_eq!(computed.summary().left_out.replaced, 4);
    assert_eq!(computed.summary().notes.len(), 1, "{:?}", computed.summary().notes);
    assert!(text(&computed).contains("# source: image app:1 (linux/amd64) of "), "{}", text(&computed));
    let archive = tempfile::tempdir().unwrap();
    let archive = archive.path().join("image.tar");
    std::fs::create_dir_all(archive.parent().unwrap()).unwrap();
    run(layout.path(), "tar", &["cf", archive.to_str().unwrap(), "oci-layout", "index.json", "blobs"]);
    let mut again = lines(&compute_with(&[&archive], &Options::default()).unwrap());
    again.sort_by(|a, b| a.split_once("  ").unwrap().1.cmp(b.split_once("  ").unwrap().1));
    assert_eq!(again, found);
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_refused() {
    let layout = layered();
    let blobs = layout.path().join("blobs/sha256");
    for blob in std::fs::read_dir(&blobs).unwrap().map(|blob| blob.unwrap().path()) {
        let good = std::fs::read(&blob).unwrap();
        if good == b"{}" {
            // The configuration is not used.
            continue;
        }
        let mut bad = good.clone();
        let last = bad.len() - 1;
        bad[last] = if bad[last] == b'}' { b' ' } else { bad[last] ^ 1 };
        std::fs::write(&blob, &bad).unwrap();
        let error = layout.compute().unwrap_err();
        assert!(matches!(error.fault, Fault::Digest("its name") | Fault::Corrupt(_)), "{error}");
        assert!(error.to_string().contains(blob.file_name().unwrap().to_str().unwrap()), "{error}");
        bad.push(b' ');
        std::fs::write(&blob, &bad).unwrap();
        let error = layout.compute().unwrap_err();
        let expected = "a blob of another size than its descriptor says";
        assert!(matches!(&error.fault, Fault::Corrupt(what) if what == expected), "{error}");
        std::fs::remove_file(&blob).unwrap();
        let error = layout.compute().unwrap_err();
        assert!(matches!(error.fault, Fault::Missing(_)), "{error}");
        std::os::unix::fs::symlink("/etc/passwd", &blob).unwrap();
        let error = layout.compute().unwrap_err();
        assert!(matches!(error.fault, Fault::Io(_)), "{error}");
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, &good).unwrap();
    }
    layout.compute().unwrap();
    // Behind the end of the archive, where no file is.
    let layer = tar(&[file("x", b"x")]);
    let layout = Layout::new().layer("tar", &[layer.clone(), vec![0; 512]].concat()).finish();
    let blob =
        std::fs::read_dir(layout.path().join("blobs/sha256")).unwrap().map(|blob| blob.unwrap().path());
    let blob = blob.into_iter().find(|blob| std::fs::metadata(blob).unwrap().len() == 2560).unwrap();
    std::fs::write(blob, [layer, vec![1; 512]].concat()).unwrap();
    assert!(matches!(layout.compute().unwrap_err().fault, Fault::Digest("its name")));
}

#[test]
fn layouts_that_lead_nowhere_are_refused() {
    let fault = |layout: &Layout| layout.compute().unwrap_err().fault;
    let plain = tar(&[file("x", b"x")]);
    let encrypted = Layout::new().layer("tar+gzip+encrypted", &plain).finish();
    assert!(matches!(fault(&encrypted), Fault::Unsupported("an encrypted layer")));
    let other = Layout::new().layer("erofs", &plain).finish();
    assert!(matches!(fault(&other), Fault::Unsupported("a layer that is no tar archive")));
    let empty = Layout::new();
    empty.index(&json!({ "manifests": [] }));
    assert!(matches!(fault(&empty), Fault::Missing(what) if what == "image in its index"));
    std::fs::write(empty.path().join("index.json"), "{").unwrap();
    assert!(matches!(fault(&empty), Fault::Corrupt(_)));
    let path = json!({ "digest": "sha256:../../../etc/passwd", "size": 1, "mediaType": "manifest" });
    empty.index(&json!({ "manifests": [path] }));
    assert!(matches!(fault(&empty), Fault::Corrupt(_)));
    // An index in an index in an index …
    let deep = Layout::new();
    let mut inner = json!({ "manifests": [] });
    for _ in 0..4 {
        let blob = deep.blob("application/vnd.oci.image.index.v1+json", inner.to_string().as_bytes());
        inner = json!({ "manifests": [blob] });
    }
    deep.index(&inner);
    assert!(matches!(fault(&deep), Fault::TooDeep(4)));
    std::fs::write(deep.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(matches!(fault(&deep), Fault::Unsupported(_)));
    // Links in a circle, and to nothing.
    let link = |name, target| entry(name, EntryType::Symlink, target, b"");
    let circle = tar(&[link("a", "b"), link("b", "a"), file("a/x", b"x")]);
    assert!(matches!(fault(&Layout::new().layer("tar", &circle).finish()), Fault::LinkLoop));
    let dangling = tar(&[entry("a", EntryType::Link, "b", b"")]);
    assert!(matches!(fault(&Layout::new().layer("tar", &dangling).finish()), Fault::DanglingLink(_)));
}

/// A manifest of these layers, for an index.
fn manifest(layout: &Layout, layers: &[&serde_json::Value]) -> serde_json::Value {
    let config = layout.blob("application/vnd.oci.image.config.v1+json", b"{}");
    let manifest = json!({ "config": config, "layers": layers }).to_string();
    layout.blob("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes())
}

#[test]
fn what_is_named_again_and_again_is_bounded() {
    let layout = Layout::new();
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layer = layout.blob(kind, &tar(&[file("x", b"x"), file("y", b"y")]));
    let empty = layout.blob(kind, &tar(&[]));
    // One layer, as often as layers may be named, and once more, by two images.
    layout.index(&json!({ "manifests": [manifest(&layout, &[&empty; 4096])] }));
    assert!(matches!(layout.compute().unwrap_err().fault, Fault::Nothing));
    layout.index(&json!({ "manifests": [manifest(&layout, &[&empty; 4096]), manifest(&layout, &[&layer])] }));
    assert!(matches!(layout.compute().unwrap_err().fault, Fault::TooManyEntries(4096)));
    // Its entries count each time.
    layout.index(&json!({ "manifests": [manifest(&layout, &[&layer, &layer])] }));
    let with = |entries| {
        let limits = Limits { entries, ..Limits::default() };
        compute_with(&[layout.path()], &Options { limits, ..Options::default() })
    };
    assert!(matches!(with(3).unwrap_err().fault, Fault::TooManyEntries(3)));
    assert_eq!(with(4).unwrap().summary().digests, 2);
    // An index of too many.
    layout.index(&json!({ "manifests": vec![manifest(&layout, &[&layer]); 4097] }));
    assert!(matches!(layout.compute().unwrap_err().fault, Fault::TooManyEntries(4096)));
}

#[test]
fn an_image_and_a_note_are_taken_once_and_a_layer_of_nothing_is_no_source() {
    let layout = Layout::new();
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layer = layout.blob(kind, &tar(&[file("x", b"x")]));
    let empty = layout.blob(kind, &tar(&[]));
    let (one, other) = (manifest(&layout, &[&layer, &empty]), manifest(&layout, &[&layer]));
    let artifact = layout.blob("application/vnd.oci.artifact", b"1");
    let index = json!({ "manifests": [one, artifact] }).to_string();
    let index = layout.blob("application/vnd.oci.image.index.v1+json", index.as_bytes());
    layout.index(&json!({ "manifests": [one, one, index, index, artifact, artifact, other] }));
    let found = layout.compute().unwrap();
    // Each image with its one layer of something.
    assert_eq!((found.summary().sources, found.summary().notes.len()), (4, 1), "{:?}", found.summary());
    assert_eq!((found.summary().digests, found.summary().left_out.repeated), (1, 1));
}
