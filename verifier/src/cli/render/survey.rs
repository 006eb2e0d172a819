//! Answers about the stored evidence of the fleet, as text.

use crate::appraisal::Verdict;
use crate::cli::table::{Table, fields};
use crate::flows::survey::dry_run::{ChangedNode, CodeCount, DryRunPage, DryRunProgress};
use crate::flows::survey::shared::SharedCapture;
use crate::flows::survey::why::{Explained, Group, GroupKind, Why};
use crate::http::admin::survey::SurveyReply;

pub(super) fn text(reply: &SurveyReply) -> String {
    match reply {
        SurveyReply::Progress(DryRunProgress { id, done, total, .. }) => {
            format!("dry run {id}: {done} of {total} nodes\n")
        }
        SurveyReply::Page(page) => page_text(page),
        SurveyReply::Why(why) => why_text(why),
        SurveyReply::Captured(captured) => captured_text(captured),
    }
}

/// What the one variant holds: which it is, follows from the verb.
pub(in crate::cli) fn json(reply: &SurveyReply) -> serde_json::Value {
    match serde_json::to_value(reply) {
        Ok(serde_json::Value::Object(object)) => object.into_values().next().unwrap_or_default(),
        Ok(other) => other,
        Err(_) => serde_json::Value::Null,
    }
}

fn page_text(page: &DryRunPage) -> String {
    let summary = &page.summary;
    let mut cannot_tell = format!("{} without stored evidence", summary.without_evidence);
    if summary.moved > 0 {
        cannot_tell += &format!(", {} that showed new evidence meanwhile", summary.moved);
    }
    let mut text = fields(&[
        ("Dry run", summary.id.to_string()),
        ("Supposed", summary.changes.join("; ")),
        ("Nodes", summary.nodes.to_string()),
        ("Would fail", format!("{} (affirming now, contraindicated then)", summary.to_contraindicated)),
        ("Would pass", format!("{} (contraindicated now, affirming then)", summary.to_affirming)),
        (
            "Unchanged",
            format!(
                "{} affirming, {} contraindicated",
                summary.still_affirming, summary.still_contraindicated
            ),
        ),
        ("Cannot tell", cannot_tell),
    ]);
    if summary.outdated {
        text += "The reference values in force changed meanwhile: this is what would have been.\n";
    }
    text += &codes("WOULD ARISE", &summary.arising);
    text += &codes("WOULD BE GONE", &summary.resolved);
    if !page.changed.is_empty() {
        text.push('\n');
    }
    text.extend(page.changed.iter().map(changed));
    let more = page
        .next
        .map(|next| format!("\nThere are more: reference dry-run --of {} --after {next}\n", summary.id));
    text + &more.unwrap_or_default()
}

fn codes(head: &'static str, counts: &[CodeCount]) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let mut table = Table::new([head, "NODES"]);
    for count in counts {
        table.row([count.code.clone(), count.nodes.to_string()]);
    }
    format!("\n{}", table.text(""))
}

fn changed(node: &ChangedNode) -> String {
    let (turn, what) = match node.would_be {
        Verdict::Contraindicated => ("would be contraindicated", "deviation"),
        Verdict::Affirming => ("would be affirming", "no more"),
    };
    let mut text = format!("{} {turn}\n", node.node);
    for deviation in &node.deviations {
        text += &format!("  {what} ({}): {}\n", deviation.code, deviation.detail);
    }
    if node.more > 0 {
        text += &format!("  and {} more\n", node.more);
    }
    text
}

fn why_text(why: &Why) -> String {
    let verdict = match why.verdict {
        Verdict::Affirming => "affirming",
        Verdict::Contraindicated => "contraindicated",
    };
    let mut text = fields(&[
        ("Node", why.node.to_string()),
        ("Verdict", format!("{verdict}, by evidence of {}", why.evidence_at)),
        ("Profile", why.profile.clone().unwrap_or_else(|| "-".to_owned())),
        ("References", why.references.join(", ")),
        ("Deviations", why.deviations.to_string()),
    ]);
    text.extend(why.groups.iter().map(group));
    if why.more > 0 {
        text += &format!("\n{} more deviations: --limit shows more\n", why.more);
    }
    if why.not_searched > 0 {
        text += &format!("\n{} contents of digest sets were not searched\n", why.not_searched);
    }
    text
}

fn group(group: &Group) -> String {
    let kind = match group.kind {
        GroupKind::Profile => "profile",
        GroupKind::Pcr => "PCR values",
        GroupKind::Boot => "boot",
        GroupKind::Runtime => "run time",
    };
    let of = group.of.as_ref().map(|of| format!(", {of}")).unwrap_or_default();
    let mut text = format!("\n{kind}, {}{of}: {}\n", group.code, group.deviations.len());
    text.extend(group.deviations.iter().map(explained));
    text
}

fn explained(deviation: &Explained) -> String {
    let mut text = format!("  {}\n", deviation.detail);
    for near in &deviation.nearest {
        let value = near.value.as_ref().map(|value| format!(" {value}")).unwrap_or_default();
        let source = near.source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
        text += &format!("    nearest: {}: `{}`{value}{source}\n", near.place, near.label);
    }
    if let Some(explanation) = &deviation.explanation {
        text += &format!("    {explanation}\n");
    }
    text
}

/// Each part that there is, by the name of its file.
pub(in crate::cli) fn files(captured: &SharedCapture) -> Vec<(&'static str, String)> {
    let of = format!("# what {} nodes share\n", captured.nodes.len());
    let mut files = Vec::new();
    if let Some(accepted) = &captured.accepted {
        files.push(("set.toml", of.clone() + &super::accepted_pcrs(accepted)));
    }
    if let Some(rules) = &captured.boot {
        let part = super::ProfilePart { boot: rules };
        files.push(("boot.toml", of + &toml::to_string(&part).unwrap_or_default()));
    }
    if let Some(digests) = &captured.files {
        files.push(("digests.txt", digests.text.clone()));
    }
    let left_out = captured.left_out.iter().map(|line| format!("{line}\n")).collect();
    files.push(("left-out.txt", left_out));
    files
}

fn captured_text(captured: &SharedCapture) -> String {
    let mut text = String::new();
    for (name, content) in files(captured) {
        if name == "left-out.txt" {
            text.extend(captured.left_out.iter().map(|line| format!("# left out: {line}\n")));
        } else {
            text += &format!("# {name}\n{content}\n");
        }
    }
    if let Some(files) = &captured.files {
        text += &format!(
            "# {} digests; {} files ran on every node, {} on some; {} paths with several digests; {} entries left out\n",
            files.digests, files.on_all, files.on_some, files.differing_paths, files.left_out
        );
    }
    text
}
