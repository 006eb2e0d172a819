//! The report for people: evidence, boot, what runs, verdict.

use rootbound_common::text::only_shows;

use super::super::table::fields;
use super::logs::{BootReport, BootStory, ListReport};
use super::report::{KeyReport, NonceReport, QuoteReport, Report, ValuesReport, ranges};
use super::story::{KeysReport, Line, SecureBootStory, Story, Worth};

/// Lines of one kind that are shown; `--events` and JSON have all.
const LINES: usize = 12;

/// The whole report.
pub(super) fn of(report: &Report, every_event: bool) -> String {
    let mut text = String::from("EVIDENCE\n");
    text += &indented(&evidence(report));
    if let Some(BootReport::Parsed(boot)) = &report.boot {
        let worth = if boot.that_are("quoted").next().is_some() {
            ""
        } else {
            " (CLAIMED: no quote covers the boot log)"
        };
        text += &format!("\nBOOT{worth}\n");
        text += &indented(&story(&boot.story));
        if every_event {
            text += "\nEVENTS\n";
            text += &indented(&boot.events.iter().map(event).collect::<String>());
        }
    }
    if let Some(ima) = &report.ima {
        let worth = if ima.state == "quoted" { "" } else { " (CLAIMED: no quote covers the IMA list)" };
        text += &format!("\nWHAT RAN{worth}\n");
        text += &indented(&list(ima));
    }
    text += &verdict(report);
    text.chars().map(|c| if only_shows(c) || c == '\n' { c } else { '?' }).collect()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn evidence(report: &Report) -> String {
    let mut rows = vec![
        ("quote", quote(&report.quote)),
        ("AK", key(&report.ak)),
        ("nonce", nonce(&report.nonce)),
        ("PCR values", values(&report.pcr_values)),
    ];
    if let Some(facts) = &report.quote.facts {
        let safe = if facts.clock_safe { "" } else { ", not certain since a power cut" };
        let seconds = facts.clock_ms / 1000;
        rows.push((
            "TPM",
            format!(
                "{} resets (boots), {} restarts since the last; {seconds} s of power in all{safe}; firmware {}",
                facts.reset_count, facts.restart_count, facts.firmware_version
            ),
        ));
    }
    match &report.boot {
        None => rows.push(("boot log", "missing".to_owned())),
        Some(BootReport::Refused { problem }) => rows.push(("boot log", format!("REFUSED: {problem}"))),
        Some(BootReport::Parsed(boot)) => {
            rows.push(("boot log", log(boot)));
            rows.extend(fits(boot).into_iter().map(|words| ("", words)));
        }
    }
    rows.push(("IMA list", report.ima.as_ref().map_or_else(|| "missing".to_owned(), cover)));
    fields(&rows)
}

fn quote(quote: &QuoteReport) -> String {
    let over = quote.facts.as_ref().map_or_else(String::new, |facts| {
        let banks = facts.selection.banks().map(|(bank, pcrs)| format!("{bank} PCR {}", ranges(pcrs.iter())));
        let banks = banks.collect::<Vec<_>>().join(" and ");
        if facts.selection.is_empty() { " over no PCR".to_owned() } else { format!(" over {banks}") }
    });
    match (quote.state, &quote.problem) {
        ("signed", _) => format!("signed by the AK,{over}"),
        ("claimed", _) => format!("CLAIMED: its signature was not checked;{over}"),
        (_, Some(problem)) => format!("REFUSED: {problem}"),
        (state, None) => state.to_owned(),
    }
}

fn key(key: &KeyReport) -> String {
    let scheme = key.scheme.as_deref().unwrap_or_default();
    let problem = key.problem.as_deref().unwrap_or_default();
    match key.state {
        "acceptable" => format!(
            "{scheme}, a restricted signing key by its attributes; whose TPM has it is not known here"
        ),
        "without_attributes" => {
            format!("{scheme}, without attributes: whether it signs only what a TPM states is not known")
        }
        "refused" => format!("REFUSED: {problem} ({scheme})"),
        "unusable" => format!("UNUSABLE: {problem}"),
        state => state.to_owned(),
    }
}

fn nonce(nonce: &NonceReport) -> String {
    match (nonce.state, &nonce.given, &nonce.quoted) {
        ("same", _, _) => "the quote's extraData is the nonce".to_owned(),
        ("bound", _, _) => {
            "the quote's extraData is Rootbound's binding of the nonce, without a request".to_owned()
        }
        ("no_quote", _, _) => "given, without a quote to compare it with".to_owned(),
        (_, Some(given), Some(quoted)) => format!(
            "DIFFERS: given is {}, extraData is {}, and not Rootbound's binding of the nonce without a request either",
            cut(given),
            cut(quoted)
        ),
        _ => "not given: whether the quote is fresh is not known".to_owned(),
    }
}

fn cut(hex: &str) -> String {
    if hex.is_empty() { "empty".to_owned() } else { hex.chars().take(64).collect() }
}

fn values(values: &ValuesReport) -> String {
    let count = values.values.as_ref().map_or(0, |values| values.iter().count());
    match (values.state, &values.problem) {
        ("signed", _) => format!("{count}, with the digest that the quote has"),
        ("stated", _) => format!("{count} CLAIMED: no checked quote vouches for them"),
        (_, Some(problem)) => format!("REFUSED: {problem}"),
        (state, None) => state.to_owned(),
    }
}

fn log(boot: &BootStory) -> String {
    let banks = boot.banks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let format = if boot.format == "sha1" { "SHA-1 format" } else { "crypto-agile" };
    let locality =
        boot.startup_locality.map_or_else(String::new, |it| format!(", TPM started at locality {it}"));
    let earlier = if boot.earlier_logs == 0 {
        String::new()
    } else {
        format!("; the last of {} logs, the others count for nothing", boot.earlier_logs + 1)
    };
    format!("{} events, {format}, digests of {banks}{locality}{earlier}", boot.events.len())
}

fn fits(boot: &BootStory) -> Vec<String> {
    let words = [
        ("quoted", "comes to the quoted value of"),
        ("not_quoted", "DOES NOT come to the quoted value of"),
        ("stated", "comes to the stated value, which nothing vouches for, of"),
        ("not_stated", "DOES NOT come to the stated value of"),
        ("no_value", "there is no value to compare with for"),
    ];
    words
        .into_iter()
        .filter(|(fit, _)| boot.that_are(fit).next().is_some())
        .map(|(fit, words)| format!("{words} {} PCR {}", boot.bank, ranges(boot.that_are(fit))))
        .collect()
}

fn cover(list: &ListReport) -> String {
    let weak = if list.weak { ", by padded SHA-1, which is weak" } else { "" };
    match (list.state, &list.problem) {
        ("quoted", _) => {
            let rest = match list.after {
                0 => String::new(),
                after => format!("; {after} came after it, CLAIMED"),
            };
            format!("{} entries, of which the quote covers {}{weak}{rest}", list.entries, list.covered)
        }
        ("stated", _) => format!("{} entries, CLAIMED; they come to the PCR 10 that is stated", list.entries),
        (_, Some(problem)) => format!("REFUSED: {problem}"),
        _ => format!("{} entries, CLAIMED", list.entries),
    }
}

fn story(story: &Story) -> String {
    let mut rows = Vec::new();
    several(&mut rows, "firmware", &story.firmware, true);
    several(&mut rows, "drivers", &story.drivers, true);
    secure_boot(&mut rows, &story.secure_boot);
    several(&mut rows, "stages", &story.stages, true);
    if story.stages.is_empty() {
        rows.push(("stages", "none: firmware measured no application that it started".to_owned()));
    }
    several(&mut rows, "boot loader", &story.loaders, false);
    several(&mut rows, "kernel", story.kernel.as_slice(), true);
    several(&mut rows, "command line", &story.command_lines, false);
    several(&mut rows, "initrd", &story.initrds, true);
    let handed_over = if story.handed_over { "firmware handed over to the system" } else { "not in the log" };
    rows.push(("end of boot", handed_over.to_owned()));
    fields(&rows)
}

type Rows = Vec<(&'static str, String)>;

fn several(rows: &mut Rows, name: &'static str, lines: &[Line], digests: bool) {
    for (position, line) in lines.iter().take(LINES).enumerate() {
        let digest =
            line.digest.as_deref().filter(|_| digests).map_or_else(String::new, |it| format!(" {it}"));
        let words = format!("{}{digest} [{}]", line.words, worth(line.worth));
        rows.push((if position == 0 { name } else { "" }, words));
    }
    if let Some(more) = lines.len().checked_sub(LINES).filter(|more| *more > 0) {
        rows.push(("", format!("and {more} more (--events)")));
    }
}

fn worth(worth: Worth) -> &'static str {
    match worth {
        Worth::Proved => "proved",
        Worth::Recognised => "proved: it has the measured digest",
        Worth::TextProved => "text proved",
        Worth::ContentsProved => "contents proved, name claimed",
        Worth::NameProved => "name proved",
        Worth::DigestProved => "digest proved, name claimed",
        Worth::Claimed => "claimed",
        Worth::NotMeasured => "not measured",
    }
}

fn secure_boot(rows: &mut Rows, story: &SecureBootStory) {
    let note = match (story.quoted, story.faults.is_empty()) {
        (true, true) => "proved",
        (true, false) => "UNRELIABLE: PCR 7 breaks its order",
        (false, _) => "claimed",
    };
    let state = story.state.as_deref().unwrap_or("not in the log");
    rows.push(("Secure Boot", format!("{state} [{note}]")));
    rows.extend(story.faults.iter().map(|fault| ("", format!("! {fault}"))));
    rows.extend(story.keys.iter().map(|keys| (keys.variable, key_list(keys))));
    for (position, authority) in story.authorities.iter().take(LINES).enumerate() {
        rows.push((if position == 0 { "checked by" } else { "" }, authority.clone()));
    }
    if story.authorities.is_empty() && story.state.as_deref() == Some("on") {
        rows.push(("checked by", "nothing: no image was checked, although Secure Boot is on".to_owned()));
    }
    rows.extend(story.others.iter().take(LINES).map(|other| ("also", other.clone())));
}

fn key_list(keys: &KeysReport) -> String {
    if let Some(problem) = &keys.problem {
        return format!("cannot be read: {problem}");
    }
    let mut parts = Vec::new();
    if !keys.certificates.is_empty() {
        let more = keys.certificates.len().saturating_sub(LINES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown: Vec<_> = keys.certificates.iter().take(LINES).map(String::as_str).collect();
        parts.push(shown.join("; ") + &more);
    }
    if keys.digests > 0 {
        parts.push(format!("{} digests of images", keys.digests));
    }
    if keys.other > 0 {
        parts.push(format!("{} entries of other kinds", keys.other));
    }
    if parts.is_empty() { "empty".to_owned() } else { parts.join("; ") }
}

fn event(line: &Line) -> String {
    let pcr = line.pcr.map_or_else(|| "no PCR".to_owned(), |pcr| format!("PCR {pcr}"));
    format!("{} {pcr} {}: {} [{}]\n", line.event, line.event_type, line.words, worth(line.worth))
}

fn list(list: &ListReport) -> String {
    let counts = |counts: &std::collections::BTreeMap<&str, u64>| {
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let mut rows = vec![
        ("boot_aggregate", list.boot_aggregate.clone().unwrap_or_else(|| "not in the list".to_owned())),
        ("templates", counts(&list.templates)),
        ("digests", counts(&list.digests)),
        ("signed files", list.signed.to_string()),
        ("violations", list.violations.to_string()),
    ];
    rows.extend(list.violated.iter().map(|name| ("", name.clone())));
    rows.extend(list.events.iter().map(|(name, count)| ("in memory", format!("{name} ({count})"))));
    rows.extend(list.last.iter().map(|last| ("last file", last.clone())));
    if let Some(judged) = &list.judged {
        let words = format!(
            "by digest {}, by signature {}, listed events {}, excluded {}, NOT accepted {}",
            judged.by_digest, judged.by_signature, judged.events, judged.excluded, judged.deviating
        );
        rows.push(("accepted", words));
    }
    fields(&rows)
}

fn verdict(report: &Report) -> String {
    let mut text =
        format!("\nVERDICT  {} (exit code {})\n", report.verdict.replace('_', " "), report.exit_code);
    for reason in &report.reasons {
        let outcome = reason.outcome.replace('_', " ");
        text += &format!("  {outcome} ({}): {}\n", reason.code, reason.detail);
    }
    if report.verdict == "affirming" {
        text +=
            "  The evidence is as the profile expects. Whose machine made it, and when, no file can say.\n";
    }
    if report.quote.facts.as_ref().and_then(|facts| facts.ak_is_endorsement_primary) == Some(false) {
        text += "  Note: the AK is no primary key of the endorsement hierarchy; the service would refuse its quotes.\n";
    }
    text
}
