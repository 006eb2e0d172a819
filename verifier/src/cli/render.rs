//! The daemon's answers as text for people. Whatever a peer could have a hand in is printed without characters that do
//! more than show.

mod policies;
mod sets;
pub(super) mod survey;
mod tokens;

use std::collections::BTreeMap;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::text::only_shows;
use rootbound_common::wire::v1::PostureReport;
use rootbound_compute::values::Source;

use super::Show;
use super::table::{Table, fields};
use crate::appraisal::boot::BootRules;
use crate::appraisal::runtime::DigestSet;
use crate::evidence::frame::unpack;
use crate::flows::operate::Reappraised;
use crate::http::admin::message::{
    BootDetail, CaDetail, CheckpointDetail, DigestSetDetail, DigestSetSummary, DigestsCaptured,
    EndorsementDetail, Health, NewJoinToken, NodeAsked, NodeDetail, NodeHeld, NodePage, NodeSummary,
    ProfileDetail, ReferenceDetail, ReferenceSummary, Removed, Reply, Written,
};
use crate::node::{Labels, Standing};
use crate::reference::{AcceptedPcrs, Provenance};
use crate::store::holds::{HoldEnd, HoldRecord};
use crate::store::{DecisionRecord, InventoryEntry, JoinTokenRecord};

impl Show for Reply {
    fn text(&self) -> String {
        let text = match self {
            Self::PolicyWritten(written) => policies::written(written),
            Self::Policies(list) => policies::list(list),
            Self::Policy(bundle) => policies::bundle(bundle),
            Self::Rehearsal(rehearsal) => policies::rehearsal(rehearsal),
            Self::PolicyActivated(activation) => {
                format!("{} is in force (activation {})\n", activation.bundle, activation.number)
            }
            Self::Decisions(page) => policies::decisions(page),
            Self::Decision(record) => policies::decision(record),
            Self::Explained(explained) => policies::explained(explained),
            Self::Survey(reply) => survey::text(reply),
            Self::Health(health) => health_text(health),
            Self::Nodes(page) => nodes(page),
            Self::Node(node) => node_text(node),
            Self::NodeChanged(node) => node_changed(node),
            Self::NodeAsked(asked) => asked_text(asked),
            Self::NodeHeld(held) => held_text(held),
            Self::Inventory(entries) => inventory(entries),
            Self::InventoryAdded(entry) => format!("{} is expected\n", entry.node),
            Self::Tokens(list) => tokens::list(list),
            Self::TokensRevoked(revoked) => tokens::revoked(revoked),
            Self::TokenKeys(lists) => tokens::keys(lists),
            Self::JoinTokens(tokens) => join_tokens(tokens),
            Self::JoinTokenCreated(token) => join_token_created(token),
            Self::References(sets) => references(sets),
            Self::Reference(set) => reference(set),
            Self::Sets(list) => sets::list(list),
            Self::SetWritten(written) => sets::written(written),
            Self::BootSet(set) => sets::boot_set(set),
            Self::SetDiff(diff) => sets::diff(diff),
            Self::DenyList(list) => sets::deny_list(list),
            Self::Denied(written) => sets::denied(written),
            Self::Imported(imported) => sets::imported(imported),
            Self::Written(written) => written_text(written),
            Self::DigestSets(sets) => digest_sets(sets),
            Self::DigestSet(set) => digest_set(set),
            Self::DigestsCaptured(captured) => captured_text(captured),
            Self::AuditCheckpoint(detail) => checkpoint_text(detail),
            // Whoever asks for these works out what they come to: `cli/audit`.
            Self::AuditSegments(_)
            | Self::AuditCheckpoints(_)
            | Self::AuditRecords(_)
            | Self::AuditSealed(_)
            | Self::AuditForgotten(_)
            // `cli/exchange` writes it down.
            | Self::Exported(_) => format!("{:#}\n", self.json()),
            Self::Boot(boot) => boot_text(boot),
            Self::Profiles(profiles) => profiles_text(profiles),
            Self::Profile(profile) => profile_text(profile),
            Self::Ca(ca) => ca_text(ca),
            Self::Removed(removed) => removed_text(removed),
        };
        text.chars()
            .map(|character| if only_shows(character) || character == '\n' { character } else { '?' })
            .collect()
    }

    /// What the one variant holds: which it is, follows from the command.
    fn json(&self) -> serde_json::Value {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(object)) => object.into_values().next().unwrap_or_default(),
            Ok(other) => other,
            Err(_) => serde_json::Value::Null,
        }
    }
}

fn checkpoint_text(detail: &CheckpointDetail) -> String {
    let CheckpointDetail { checkpoint, audit_key } = detail;
    let mut text = fields(&[
        (
            "Records",
            format!("{} to {}", checkpoint.anchor.sequence.saturating_add(1), checkpoint.head.sequence),
        ),
        ("Hash", checkpoint.head.hash.to_string()),
        ("Signed at", checkpoint.at.to_string()),
        ("Key", checkpoint.key.to_string()),
    ]);
    text.push_str(&audit_key.to_pem());
    text.push_str("Keep it elsewhere with --output json, for `audit verify --checkpoint`.\n");
    text
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}

fn labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return "-".to_owned();
    }
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn standing(standing: Standing) -> String {
    match standing {
        Standing::Pending => "pending".to_owned(),
        Standing::Admitted { by } => format!("admitted ({})", by.as_str()),
        Standing::Retired => "retired".to_owned(),
    }
}

fn by(provenance: &Provenance) -> [String; 3] {
    [provenance.created_at.to_string(), provenance.author.clone(), provenance.reason.clone()]
}

fn health_text(health: &Health) -> String {
    let state =
        if health.ready { "ready".to_owned() } else { format!("not ready: {}", health.missing.join("; ")) };
    fields(&[
        ("State", state),
        ("Listens on", health.listen.to_string()),
        ("Trust domain", health.trust_domain.to_string()),
        ("Nodes", health.nodes.to_string()),
        ("Version", health.version.clone()),
    ])
}

fn nodes(page: &NodePage) -> String {
    let mut table = Table::new(["NODE", "STANDING", "POSTURE", "EVIDENCE OF", "LABELS"]);
    for node in &page.nodes {
        table.row([
            node.id.to_string(),
            standing(node.standing),
            node.posture.to_string(),
            time(node.evidence_at),
            labels(&node.labels),
        ]);
    }
    let more = page.next.map(|next| format!("\nThere are more: --after {next}\n"));
    table.text("no such nodes") + &more.unwrap_or_default()
}

fn node_changed(node: &NodeSummary) -> String {
    fields(&[
        ("Node", node.id.to_string()),
        ("Standing", standing(node.standing)),
        ("Posture", node.posture.to_string()),
        ("Labels", labels(&node.labels)),
    ])
}

fn asked_text(asked: &NodeAsked) -> String {
    let how = if asked.listens {
        "it hears of it over its control stream now"
    } else {
        "it holds no control stream: it attests when it asks, or by itself"
    };
    format!("{} is asked for evidence; {how}\n", asked.id)
}

fn held_text(held: &NodeHeld) -> String {
    node_changed(&held.node)
        + &fields(&[("Hold", held.hold.id.to_string()), ("Until", until(held.hold.expires_at))])
}

fn until(end: Option<Timestamp>) -> String {
    end.map_or_else(|| "released".to_owned(), |end| end.to_string())
}

fn holds(records: &[HoldRecord]) -> String {
    let mut table = Table::new(["HOLD", "KIND", "BY", "SINCE", "UNTIL", "STATE", "REASON"]);
    for HoldRecord { hold, end } in records {
        let state = match end {
            None => "in force, or expired".to_owned(),
            Some(HoldEnd::Expired) => "expired".to_owned(),
            Some(HoldEnd::Lifted { by, at, .. }) => format!("lifted {at} by {by}"),
        };
        table.row([
            hold.id.to_string(),
            hold.kind.as_str().to_owned(),
            hold.by.to_string(),
            hold.since.to_string(),
            until(hold.expires_at),
            state,
            hold.reason.to_string(),
        ]);
    }
    table.text("no holds")
}

fn node_text(node: &NodeDetail) -> String {
    let mut text = fields(&[
        ("Node", node.id.to_string()),
        ("SPIFFE ID", node.spiffe_id.to_string()),
        ("Standing", standing(node.standing)),
        ("Labels", labels(&node.labels)),
        ("Enrolled", node.enrolled_at.to_string()),
        ("Endorsed by", endorsement(&node.endorsement)),
        ("AK name", node.attestation_key.clone()),
        ("Last accepted", time(node.made_at)),
        ("Posture", posture_line(&node.posture)),
    ]);
    if let Some(until) = node.posture.observed_until {
        text += &format!("  its profile observes until {until}: deviations are recorded, not acted on\n");
    }
    for deviation in &node.posture.deviations {
        text += &format!("  deviation ({}): {}\n", deviation.code, deviation.detail);
    }
    text += &fields(&[
        ("Epoch", node.epoch.to_string()),
        ("Control stream", if node.listens { "held" } else { "not held" }.to_owned()),
        ("Evidence since", time(node.attested_after)),
    ]);
    text += &holds(&node.holds);
    let mut credentials = Table::new(["CERTIFICATE", "FROM", "UNTIL", "STATE"]);
    for credential in &node.credentials {
        let state = if credential.current { "current" } else { "past" };
        credentials.row([
            credential.serial.clone(),
            credential.not_before.to_string(),
            credential.not_after.to_string(),
            state.to_owned(),
        ]);
    }
    text + "\n" + &credentials.text("No certificates.") + "\n" + &decisions(&node.decisions)
}

fn posture_line(posture: &PostureReport) -> String {
    let mut line = posture.status.to_string();
    if posture.evidence_at.is_some() {
        line += &format!(", evidence of {}", time(posture.evidence_at));
    }
    if let Some(profile) = &posture.profile {
        line += &format!(", by profile {profile}");
    }
    if !posture.references.is_empty() {
        line += &format!(" and {}", posture.references.join(", "));
    }
    line
}

fn endorsement(endorsement: &EndorsementDetail) -> String {
    match endorsement {
        EndorsementDetail::Operator => "the operator, by the inventory".to_owned(),
        EndorsementDetail::Manufacturer {
            manufacturer, model, version, issuer, serial, not_after, ..
        } => {
            let unknown = || "?".to_owned();
            format!(
                "TPM {} {} {}; EK certificate {serial} of {issuer}, until {not_after}",
                manufacturer.clone().unwrap_or_else(unknown),
                model.clone().unwrap_or_else(unknown),
                version.clone().unwrap_or_else(unknown),
            )
        }
    }
}

fn decisions(decisions: &[DecisionRecord]) -> String {
    let mut table = Table::new(["DECIDED", "OUTCOME", "CODE", "DETAIL"]);
    for decision in decisions {
        let outcome = if decision.granted { "granted" } else { "denied" };
        table.row([
            decision.at.to_string(),
            outcome.to_owned(),
            decision.code.clone(),
            decision.detail.clone(),
        ]);
    }
    table.text("No decisions.")
}

fn inventory(entries: &[InventoryEntry]) -> String {
    let mut table = Table::new(["EK HASH", "ENDORSEMENT", "LABELS", "LISTED", "BY", "REASON"]);
    for entry in entries {
        let endorsement = if entry.waive_endorsement { "waived" } else { "required" };
        let [at, author, reason] = by(&entry.provenance);
        let labels = labels(&entry.labels);
        table.row([entry.node.to_string(), endorsement.to_owned(), labels, at, author, reason]);
    }
    table.text("The inventory is empty.")
}

fn join_tokens(tokens: &[JoinTokenRecord]) -> String {
    let mut table = Table::new(["ID", "STATE", "EXPIRES", "BOUND TO", "LABELS", "CREATED", "BY", "REASON"]);
    for token in tokens {
        let state = match token.used {
            Some((node, at)) => format!("used by {node} at {at}"),
            None if token.revoked => "revoked".to_owned(),
            None => "unused".to_owned(),
        };
        let bound = token.node.map_or_else(|| "-".to_owned(), |node| node.to_string());
        let [at, author, reason] = by(&token.provenance);
        let (expires, labels) = (token.expires_at.to_string(), labels(&token.labels));
        table.row([token.id.clone(), state, expires, bound, labels, at, author, reason]);
    }
    table.text("There are no join tokens.")
}

fn join_token_created(token: &NewJoinToken) -> String {
    fields(&[
        ("Token", token.token.0.clone()),
        ("Id", token.record.id.clone()),
        ("Expires", token.record.expires_at.to_string()),
    ]) + "\nThe token is not kept: it is shown this once.\n"
}

fn references(sets: &[ReferenceSummary]) -> String {
    let mut table = Table::new(["SET", "VALUES", "STATE", "WRITTEN", "BY", "REASON"]);
    for set in sets {
        let state = if set.withdrawn { "withdrawn" } else { "accepted" };
        let [at, author, reason] = by(&set.provenance);
        let name = format!("{}@{}", set.name, set.version);
        table.row([name, set.values.to_string(), state.to_owned(), at, author, reason]);
    }
    table.text("There are no reference sets.")
}

fn reference(set: &ReferenceDetail) -> String {
    let withdrawn = if set.withdrawn { ", withdrawn" } else { "" };
    let mut text = format!("# {}@{}{withdrawn}\n{}", set.name, set.version, made(&set.provenance));
    text += &accepted_pcrs(&set.accepted);
    text
}

/// Accepted PCR values as TOML, to be read again; each value on a line of its own, where one says where it comes from.
fn accepted_pcrs(accepted: &AcceptedPcrs) -> String {
    let mut by_pcr: BTreeMap<_, BTreeMap<_, Vec<_>>> = BTreeMap::new();
    for (bank, pcr, value, source) in accepted.iter_with_source() {
        by_pcr.entry(bank).or_default().entry(pcr).or_default().push((value, source));
    }
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let written = |(value, source): &(&Digest, &Source)| {
        let Source { file, package, version, node } = source;
        let parts = [("package", package), ("version", version), ("file", file), ("node", node)];
        let known = parts
            .iter()
            .filter_map(|(name, part)| part.as_ref().map(|part| format!("{name} = {}", quoted(part))));
        let known = known.collect::<Vec<_>>().join(", ");
        let value = quoted(&value.to_string());
        if known.is_empty() { value } else { format!("{{ value = {value}, source = {{ {known} }} }}") }
    };
    let mut text = String::new();
    for (bank, pcrs) in by_pcr {
        text += &format!("[{bank}]\n");
        for (pcr, values) in pcrs {
            let lines: Vec<_> = values.iter().map(written).collect();
            match lines.as_slice() {
                [line] => text += &format!("{pcr} = [{line}]\n"),
                lines => text += &format!("{pcr} = [\n    {},\n]\n", lines.join(",\n    ")),
            }
        }
    }
    text
}

fn digest_sets(sets: &[DigestSetSummary]) -> String {
    let mut table = Table::new(["SET", "DIGESTS", "CONTENT", "STATE", "WRITTEN", "BY", "REASON"]);
    for set in sets {
        let state = if set.withdrawn { "withdrawn" } else { "accepted" };
        let [at, author, reason] = by(&set.provenance);
        let name = format!("{}@{}", set.name, set.version);
        let content = set.content.get(..16).unwrap_or_default().to_owned();
        table.row([name, set.digests.to_string(), content, state.to_owned(), at, author, reason]);
    }
    table.text("There are no digest sets.")
}

/// A text that `digests set` takes.
fn digest_set(set: &DigestSetDetail) -> String {
    let summary = &set.summary;
    let withdrawn = if summary.withdrawn { ", withdrawn" } else { "" };
    let text = unpack(set.frame.as_bytes(), DigestSet::MAX_BYTES).unwrap_or_default();
    let made = made(&summary.provenance);
    format!("# {}@{}{withdrawn}\n{made}{}", summary.name, summary.version, String::from_utf8_lossy(&text))
}

fn captured_text(captured: &DigestsCaptured) -> String {
    let mut text = format!("{} digests\n", captured.digests);
    if captured.left_out > 0 {
        text += &format!("{} entries left out: violations, events, weak digests\n", captured.left_out);
    }
    written_text(&captured.written) + &text
}

fn boot_text(boot: &BootDetail) -> String {
    boot.events.iter().map(|line| format!("{line}\n")).collect()
}

/// Rules that accept a boot, as a part of a profile.
pub(super) struct Rules<'a>(pub(super) &'a BootDetail);

impl Show for Rules<'_> {
    fn text(&self) -> String {
        let left_out: String = self.0.left_out.iter().map(|line| format!("# left out: {line}\n")).collect();
        left_out + &toml::to_string(&self.part()).unwrap_or_default()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::to_value(self.part()).unwrap_or_default()
    }
}

#[derive(serde::Serialize)]
struct ProfilePart<'a> {
    boot: &'a BootRules,
}

impl Rules<'_> {
    fn part(&self) -> ProfilePart<'_> {
        ProfilePart { boot: &self.0.rules }
    }
}

fn made(provenance: &Provenance) -> String {
    let [at, author, reason] = by(provenance);
    format!("# {at} by {author}: {reason}\n")
}

fn profiles_text(profiles: &[ProfileDetail]) -> String {
    let mut table =
        Table::new(["PROFILE", "FOR LABELS", "PCRS", "REFERENCES", "INTERVAL", "WRITTEN", "BY", "REASON"]);
    for profile in profiles {
        let body = &profile.body;
        let [at, author, reason] = by(&profile.provenance);
        table.row([
            format!("{}@{}", profile.name, profile.version),
            labels(&body.match_labels),
            body.pcrs.to_string(),
            body.references.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            humantime_serde::re::humantime::format_duration(body.interval).to_string(),
            at,
            author,
            reason,
        ]);
    }
    table.text("There are no profiles.")
}

/// TOML that `profile set` takes.
fn profile_text(profile: &ProfileDetail) -> String {
    let mut text = format!("# {}@{}\n{}", profile.name, profile.version, made(&profile.provenance));
    text += &toml::to_string(&profile.body).unwrap_or_default();
    text
}

fn written_text(written: &Written) -> String {
    format!("{}@{} written\n{}", written.name, written.version, reappraised(written.reappraised))
}

fn removed_text(removed: &Removed) -> String {
    format!("{} removed\n{}", removed.what, removed.reappraised.map(reappraised).unwrap_or_default())
}

fn reappraised(reappraised: Reappraised) -> String {
    let Reappraised { nodes, now_affirming, now_contraindicated } = reappraised;
    format!(
        "{nodes} nodes appraised again: {now_affirming} now affirming, {now_contraindicated} now contraindicated\n"
    )
}

fn ca_text(ca: &CaDetail) -> String {
    let mut lines = vec![
        ("Trust domain", ca.trust_domain.to_string()),
        ("Valid from", ca.not_before.to_string()),
        ("Valid until", ca.not_after.to_string()),
    ];
    for (position, fingerprint) in ca.fingerprints.iter().enumerate() {
        let name = if position == 0 { "Issuing (SHA-256)" } else { "Above it" };
        lines.push((name, fingerprint.clone()));
    }
    format!("{}\n{}", fields(&lines), ca.chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::crypto::hash;
    use rootbound_common::tpm::{HashAlgorithm, PcrIndex};

    #[test]
    fn accepted_pcrs_are_read_as_they_are_shown() {
        let (bank, pcr) = (HashAlgorithm::Sha256, |index| PcrIndex::new(index).unwrap());
        let source = |file: &str, node: Option<&str>| Source {
            file: Some(file.to_owned()),
            node: node.map(str::to_owned),
            ..Source::default()
        };
        let values = [
            (pcr(0), hash(bank, &[b"a"]), Source::default()),
            (pcr(4), hash(bank, &[b"b"]), source("C:\\EFI\\\"x\" # 'y'", Some("n"))),
            (pcr(4), hash(bank, &[b"c"]), Source::default()),
            (pcr(7), hash(bank, &[b"d"]), source("/boot/shim", None)),
            (pcr(7), hash(HashAlgorithm::Sha384, &[b"d"]), source("/boot/shim", None)),
        ];
        let accepted = AcceptedPcrs::with_sources(values).unwrap();
        let shown = accepted_pcrs(&accepted);
        assert_eq!(toml::from_str::<AcceptedPcrs>(&shown).unwrap(), accepted, "{shown}");
        assert_eq!(shown.lines().count(), 9, "{shown}");
    }
}
