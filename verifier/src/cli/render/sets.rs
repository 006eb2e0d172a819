//! What is said of sets and the deny list.

use super::{Table, by, made, reappraised};
use crate::flows::sets::SetDiff;
use crate::http::admin::sets::{
    BootSetDetail, DenyListDetail, DenyWritten, SetSummary, SetWritten, SetsImported,
};
use crate::reference::{DeniedAs, Side};

pub(super) fn list(sets: &[SetSummary]) -> String {
    let mut table = Table::new(["SET", "KIND", "VALUES", "STATE", "WRITTEN", "BY", "REASON"]);
    for set in sets {
        let state = match (set.withdrawn, set.staged_over) {
            (true, _) => "withdrawn".to_owned(),
            (false, Some(over)) => format!("staged over {over}"),
            (false, None) => "accepted".to_owned(),
        };
        let [at, author, reason] = by(&set.provenance);
        let name = format!("{}@{}", set.name, set.version);
        table.row([name, set.kind.to_string(), set.values.to_string(), state, at, author, reason]);
    }
    table.text("There are no sets.")
}

pub(super) fn written(set: &SetWritten) -> String {
    let SetWritten { kind, name, version, .. } = set;
    let what = if set.restored { "is current again" } else { "written" };
    format!("{name}@{version} {what} ({kind})\n{}", reappraised(set.reappraised))
}

/// JSON that `set` takes.
pub(super) fn boot_set(set: &BootSetDetail) -> String {
    let withdrawn = if set.withdrawn { ", withdrawn" } else { "" };
    let values = serde_json::to_string_pretty(&set.values).unwrap_or_default();
    format!("# {}@{}{withdrawn}\n{}{values}\n", set.name, set.version, made(&set.provenance))
}

pub(super) fn diff(diff: &SetDiff) -> String {
    let SetDiff { kind, from, to, removed, added, shared, differences, left_out } = diff;
    let mut text = format!("{from} and {to} ({kind}): {removed} removed, {added} added, {shared} shared\n");
    for difference in differences {
        let sign = match difference.side {
            Side::Removed => '-',
            Side::Added => '+',
        };
        text += &format!("{sign} {}", difference.value);
        if !difference.source.is_empty() {
            text += &format!("  # {}", difference.source);
        }
        text.push('\n');
    }
    if *left_out > 0 {
        text += &format!("{left_out} more are not shown: --limit\n");
    }
    text
}

pub(super) fn deny_list(list: &DenyListDetail) -> String {
    let mut table = Table::new(["DIGEST", "AS", "LABEL", "SINCE", "BY", "REASON"]);
    for entry in &list.entries {
        let what = match entry.what {
            DeniedAs::Digest => "digest",
            DeniedAs::DbxImage => "image not in dbx",
            DeniedAs::DbxCertificate => "certificate not in dbx",
        };
        table.row([
            entry.digest.to_string(),
            what.to_owned(),
            entry.label.clone(),
            entry.at.to_string(),
            entry.author.clone(),
            entry.reason.clone(),
        ]);
    }
    format!("# deny@{}\n{}", list.version, table.text("Nothing is denied."))
}

pub(super) fn imported(imported: &SetsImported) -> String {
    let mut table = Table::new(["FROM", "KIND", "BECAME"]);
    for set in &imported.sets {
        let became = format!("{}@{}", set.name, set.version);
        table.row([set.from.clone(), set.kind.to_string(), became]);
    }
    let by = imported.signed_by.as_ref().map_or("unsigned".to_owned(), |name| format!("signed by {name}"));
    let denied = imported.denied.as_ref().map_or_else(String::new, |denied| {
        format!("deny@{} is in force, with {} entries more\n", denied.version, denied.added)
    });
    format!("{}{by}\n{denied}{}", table.text("no sets"), reappraised(imported.reappraised))
}

pub(super) fn denied(written: &DenyWritten) -> String {
    let DenyWritten { version, entries, .. } = written;
    format!("deny@{version} is in force, with {entries} entries\n{}", reappraised(written.reappraised))
}
