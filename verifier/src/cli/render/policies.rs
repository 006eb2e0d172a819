//! What is said of policies and decisions.

use super::{Table, by, fields};
use crate::audit::{Entity, SequencedRecord};
use crate::flows::policies::{Explained, Rehearsal};
use crate::http::admin::policies::{PolicyDetail, PolicyList, PolicySummary, PolicyWritten};
use crate::store::audit::RecordPage;

pub(super) fn list(list: &PolicyList) -> String {
    let mut bundles = Table::new(["BUNDLE", "IN FORCE", "WRITTEN", "BY", "REASON"]);
    for bundle in &list.bundles {
        let [at, author, reason] = by(&bundle.provenance);
        let active = if bundle.active { "yes" } else { "-" }.to_owned();
        bundles.row([format!("{}@{}", bundle.name, bundle.version), active, at, author, reason]);
    }
    let mut activations = Table::new(["ACTIVATION", "BUNDLE", "AT", "BY", "REASON"]);
    for activation in &list.activations {
        let [at, author, reason] = by(&activation.provenance);
        activations.row([activation.number.to_string(), activation.bundle.clone(), at, author, reason]);
    }
    bundles.text("no bundle was written") + "\n" + &activations.text("the program's own bundle is in force")
}

pub(super) fn bundle(bundle: &PolicyDetail) -> String {
    let source = &bundle.source;
    let mut text = format!("// {}\n", bundle.bundle);
    let schema = source.schema.iter().map(|schema| ("schema.cedarschema".to_owned(), schema));
    let policies = source.policies.iter().map(|(name, policy)| (name.to_string(), policy));
    for (name, file) in schema.chain(policies) {
        text += &format!("\n// {name}\n{}\n", file.trim_end());
    }
    text
}

pub(super) fn rehearsal(rehearsal: &Rehearsal) -> String {
    let mut text = fields(&[
        ("Bundle", rehearsal.bundle.clone()),
        ("Decisions looked at", rehearsal.decisions.to_string()),
        ("Recorded without what was asked", rehearsal.without_inputs.to_string()),
        ("Caller might not ask", rehearsal.not_asked.to_string()),
        ("Allowed, would be denied", rehearsal.now_denied.to_string()),
        ("Denied, would be allowed", rehearsal.now_allowed.to_string()),
    ]);
    let mut changes =
        Table::new(["DECISION", "AT", "SUBJECT", "ACTION", "RESOURCE", "WAS", "WOULD BE", "BY"]);
    for change in &rehearsal.changes {
        changes.row([
            change.id.to_string(),
            change.at.to_string(),
            change.subject.clone(),
            change.action.clone(),
            change.resource.clone(),
            change.was.clone(),
            change.would_be.clone(),
            change.policies.join(","),
        ]);
    }
    text += &format!("\n{}", changes.text("nothing would change"));
    text
}

pub(super) fn decisions(page: &RecordPage) -> String {
    let mut table = Table::new(["DECISION", "AT", "SUBJECT", "ACTION", "OUTCOME", "CODE"]);
    for SequencedRecord { record, .. } in &page.records {
        let subject = record.subject.as_ref().map(|subject| format!("{}:{}", subject.kind, subject.name));
        table.row([
            record.id.to_string(),
            record.at.to_string(),
            subject.unwrap_or_else(|| "-".to_owned()),
            record.action.to_string(),
            record.outcome.as_str().to_owned(),
            record.code.to_string(),
        ]);
    }
    let more = page.before.map(|before| format!("\nThere may be more: --before {before}\n"));
    table.text("no such decisions") + &more.unwrap_or_default()
}

pub(super) fn decision(SequencedRecord { sequence, record }: &SequencedRecord) -> String {
    let named = |entity: &Option<Entity>| match entity {
        Some(entity) => format!("{}:{}", entity.kind, entity.name),
        None => "-".to_owned(),
    };
    let versions: Vec<_> = record.versions.iter().map(ToString::to_string).collect();
    fields(&[
        ("Decision", record.id.to_string()),
        ("Record", sequence.to_string()),
        ("At", record.at.to_string()),
        ("Asked by", format!("{:?}", record.actor)),
        ("Subject", named(&record.subject)),
        ("Action", record.action.to_string()),
        ("Resource", named(&record.object)),
        ("Outcome", format!("{} ({})", record.outcome.as_str(), record.code)),
        ("Policies", record.detail.to_string()),
        ("Judged by", versions.join(", ")),
    ])
}

pub(super) fn explained(explained: &Explained) -> String {
    let lines = explained.words.iter().map(|line| format!("  {line}\n"));
    decision(&explained.record) + "\n" + &lines.collect::<String>()
}

pub(super) fn written(PolicyWritten { bundle, warnings }: &PolicyWritten) -> String {
    let warnings: String = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    let PolicySummary { name, version, .. } = bundle;
    format!("{warnings}{name}@{version} written; it comes into force with `policy activate`\n")
}
