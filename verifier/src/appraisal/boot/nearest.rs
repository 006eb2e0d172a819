//! What rules accept in the place of an event that they do not.

use std::fmt;

use rootbound_common::crypto::{Digest, TaggedDigest};
use rootbound_common::tpm::PcrIndex;

use super::deviation::{BootDeviation, NamedEvent};
use super::rules::BootRules;

/// A part of rules: which events it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// PCR 0.
    Firmware,
    /// PCR 2.
    Driver,
    /// PCR 4.
    BootApplication,
    /// PCR 9.
    Initrd,
    /// PCRs 8, 9 and 12.
    CommandLine,
    /// Variables of the Secure Boot configuration.
    Variable,
    /// What images were checked by.
    Authority,
    /// Events of this PCR that are none of these.
    Event(PcrIndex),
    /// What must not be measured.
    Denied,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firmware => "firmware",
            Self::Driver => "drivers",
            Self::BootApplication => "boot_applications",
            Self::Initrd => "initrds",
            Self::CommandLine => "command_line",
            Self::Variable => "secure_boot",
            Self::Authority => "secure_boot.authorities",
            Self::Event(pcr) => return write!(f, "events of PCR {pcr}"),
            Self::Denied => "denied",
        })
    }
}

/// Something that rules name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedValue<'r> {
    /// Where.
    pub place: Place,
    /// Its digest; a text that is accepted to the byte has none.
    pub digest: Option<TaggedDigest>,
    /// What the rules call it; a text that is accepted to the byte, or a version.
    pub label: &'r str,
}

/// All that rules name, part by part.
fn named(rules: &BootRules) -> Vec<NamedValue<'_>> {
    let mut found = Vec::new();
    let mut add = |place, digest: Option<TaggedDigest>, label| {
        found.push(NamedValue { place, digest, label });
    };
    if let Some(firmware) = &rules.firmware {
        firmware.versions.iter().for_each(|version| add(Place::Firmware, None, version.as_str()));
        firmware.blobs.iter().for_each(|one| add(Place::Firmware, Some(one.digest), one.label.as_str()));
    }
    for (place, list) in [
        (Place::Driver, &rules.drivers),
        (Place::BootApplication, &rules.boot_applications),
        (Place::Initrd, &rules.initrds),
        (Place::Denied, &rules.denied),
    ] {
        list.iter().for_each(|one| add(place, Some(one.digest), one.label.as_str()));
    }
    if let Some(lines) = &rules.command_line {
        lines.exact.iter().for_each(|line| add(Place::CommandLine, None, line.as_str()));
        lines.digests.iter().for_each(|one| add(Place::CommandLine, Some(one.digest), one.label.as_str()));
    }
    if let Some(secure_boot) = &rules.secure_boot {
        let variables = [&secure_boot.pk, &secure_boot.kek, &secure_boot.db];
        let digests = variables.into_iter().flat_map(|variable| &variable.digests);
        for one in digests.chain(&secure_boot.dbx.digests) {
            add(Place::Variable, Some(one.digest), one.label.as_str());
        }
        for one in &secure_boot.authorities {
            add(Place::Authority, Some(one.digest), one.label.as_str());
        }
    }
    for event in &rules.events {
        add(Place::Event(event.pcr), Some(event.digest), event.label.as_str());
    }
    found
}

/// Where rules would have to accept what deviates; `None`: nowhere, since it is not about one event.
fn places(deviation: &BootDeviation) -> Option<(Vec<Place>, Option<&NamedEvent>)> {
    let of_pcr = |event: &NamedEvent| {
        let own = match event.pcr.get() {
            0 => Some(Place::Firmware),
            2 => Some(Place::Driver),
            4 => Some(Place::BootApplication),
            _ => None,
        };
        own.into_iter().chain([Place::Event(event.pcr)]).collect::<Vec<_>>()
    };
    Some(match deviation {
        BootDeviation::FirmwareNotAccepted { event } => (vec![Place::Firmware], Some(event)),
        BootDeviation::DriverNotAccepted { event } => (vec![Place::Driver], Some(event)),
        BootDeviation::BootApplicationNotAccepted { event } => (vec![Place::BootApplication], Some(event)),
        BootDeviation::InitrdNotAccepted { event } => (vec![Place::Initrd], Some(event)),
        BootDeviation::CommandLineNotAccepted { event, .. } | BootDeviation::SecondCommandLine { event } => {
            (vec![Place::CommandLine], Some(event))
        }
        BootDeviation::AuthorityNotAccepted { event } => (vec![Place::Authority], Some(event)),
        BootDeviation::VariableNotAccepted { event, .. } => (vec![Place::Variable], Some(event)),
        BootDeviation::Unexplained { event } => (of_pcr(event), Some(event)),
        BootDeviation::Denied { event, .. } => (vec![Place::Denied], Some(event)),
        BootDeviation::NoBootApplication => (vec![Place::BootApplication], None),
        BootDeviation::NoInitrd => (vec![Place::Initrd], None),
        BootDeviation::NoCommandLine => (vec![Place::CommandLine], None),
        BootDeviation::NoAuthority => (vec![Place::Authority], None),
        BootDeviation::OtherBank { .. }
        | BootDeviation::NotExplained { .. }
        | BootDeviation::NoSeparator { .. }
        | BootDeviation::SecondSeparator { .. }
        | BootDeviation::ErrorSeparator { .. }
        | BootDeviation::AfterSeparator { .. }
        | BootDeviation::SecureBootNotOn { .. }
        | BootDeviation::DbxLacks { .. }
        | BootDeviation::SecureBootUnreadable { .. }
        | BootDeviation::ConfigurationAfterSeparator { .. }
        | BootDeviation::SbatTooOld { .. }
        | BootDeviation::DebuggerEnabled { .. }
        | BootDeviation::DmaUnprotected { .. }
        | BootDeviation::More { .. } => return None,
    })
}

/// What rules accept in the place of what deviates, the likest label first, at most `limit`; and how many there are.
#[must_use]
pub fn nearest<'r>(
    deviation: &BootDeviation,
    rules: &'r BootRules,
    limit: usize,
) -> (Vec<NamedValue<'r>>, usize) {
    let Some((places, event)) = places(deviation) else { return (Vec::new(), 0) };
    let mut found: Vec<_> = named(rules).into_iter().filter(|value| places.contains(&value.place)).collect();
    if places == [Place::Denied] {
        found.retain(|value| event.is_some_and(|event| value.digest == Some(TaggedDigest(event.digest))));
    }
    let words = event.map_or("", words_of);
    let alike = |value: &NamedValue<'_>| {
        let same = value.label.chars().zip(words.chars()).take_while(|(a, b)| a == b).count();
        (value.label != words, std::cmp::Reverse(same))
    };
    found.sort_by_key(alike);
    let all = found.len();
    found.truncate(limit);
    (found, all)
}

/// The label and place by which rules accept this digest in this PCR, whatever their other lists say.
#[must_use]
pub fn accepting<'r>(rules: &'r BootRules, pcr: PcrIndex, digest: &Digest) -> Option<NamedValue<'r>> {
    let of_pcr = |place| match place {
        Place::Firmware => pcr.get() == 0,
        Place::Driver => pcr.get() == 2,
        Place::BootApplication => pcr.get() == 4,
        Place::Initrd => pcr.get() == 9,
        Place::CommandLine => matches!(pcr.get(), 8 | 9 | 12),
        Place::Variable | Place::Authority => pcr.get() == 7,
        Place::Event(other) => other == pcr,
        Place::Denied => false,
    };
    named(rules).into_iter().find(|value| value.digest == Some(TaggedDigest(*digest)) && of_pcr(value.place))
}

/// What the log calls an event, without its type.
fn words_of(event: &NamedEvent) -> &str {
    event.what.split_once(": ").map_or(event.what.as_str(), |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::super::rules::{EventRule, Measurement};
    use super::*;
    use rootbound_common::crypto::hash;
    use rootbound_common::tpm::HashAlgorithm;

    fn digest(text: &str) -> Digest {
        hash(HashAlgorithm::Sha256, &[text.as_bytes()])
    }

    fn measurement(label: &str) -> Measurement {
        Measurement { digest: TaggedDigest(digest(label)), label: label.to_owned() }
    }

    fn event(pcr: u8, words: &str) -> NamedEvent {
        let what = format!("EV_EFI_BOOT_SERVICES_APPLICATION: {words}");
        NamedEvent { index: 3, pcr: PcrIndex::new(pcr).unwrap(), digest: digest("odd"), what }
    }

    fn rules() -> BootRules {
        let pcrs = [4, 9].into_iter().filter_map(PcrIndex::new).collect();
        let mut rules = BootRules::of(HashAlgorithm::Sha256, pcrs);
        rules.boot_applications =
            ["shim", "vmlinuz-6.1.0-17", "vmlinuz-6.1.0-18", "grub"].map(measurement).to_vec();
        rules.initrds = vec![measurement("initrd")];
        rules.denied = vec![measurement("bad"), measurement("worse")];
        let pcr = PcrIndex::new(4).unwrap();
        rules.events = vec![EventRule { pcr, digest: TaggedDigest(digest("word")), label: "word".into() }];
        rules
    }

    fn labels(deviation: &BootDeviation, limit: usize) -> (Vec<String>, usize) {
        let rules = rules();
        let (found, all) = nearest(deviation, &rules, limit);
        (found.into_iter().map(|value| format!("{}: {}", value.place, value.label)).collect(), all)
    }

    #[test]
    fn likest_label_of_the_same_place_comes_first() {
        let deviation = BootDeviation::BootApplicationNotAccepted { event: event(4, "vmlinuz-6.1.0-18") };
        let (found, all) = labels(&deviation, 2);
        assert_eq!(
            found,
            ["boot_applications: vmlinuz-6.1.0-18", "boot_applications: vmlinuz-6.1.0-17"],
            "the same label with another digest, then its neighbour"
        );
        assert_eq!(all, 4);
        let unexplained = BootDeviation::Unexplained { event: event(4, "wo") };
        assert_eq!(labels(&unexplained, 1), (vec!["events of PCR 4: word".to_owned()], 5));
        assert_eq!(labels(&BootDeviation::NoInitrd, 3), (vec!["initrds: initrd".to_owned()], 1));
    }

    #[test]
    fn denied_event_is_told_by_what_denies_it_and_an_order_has_no_neighbour() {
        let mut denied = event(4, "vmlinuz");
        denied.digest = digest("worse");
        let denied = BootDeviation::Denied { event: denied, label: "worse".into() };
        assert_eq!(labels(&denied, 3), (vec!["denied: worse".to_owned()], 1));
        let separator = BootDeviation::NoSeparator { pcr: PcrIndex::new(4).unwrap() };
        assert_eq!(labels(&separator, 3), (Vec::new(), 0));
    }

    #[test]
    fn digest_is_accepted_in_its_own_pcr_only() {
        let rules = rules();
        let in_pcr = |pcr, text: &str| accepting(&rules, PcrIndex::new(pcr).unwrap(), &digest(text));
        assert_eq!(in_pcr(4, "grub").map(|value| value.label), Some("grub"));
        assert_eq!(in_pcr(9, "initrd").map(|value| value.place), Some(Place::Initrd));
        for (pcr, text) in [(9, "grub"), (4, "bad"), (4, "unknown")] {
            assert_eq!(in_pcr(pcr, text), None, "{pcr} {text}");
        }
    }
}
