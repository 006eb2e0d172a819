//! Boot sets: values of boots under a name, for the rules of profiles.

use std::collections::HashSet;

use rootbound_common::crypto::TaggedDigest;
use rootbound_common::text::only_shows;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_compute::values::{BootValue, BootValues, Measured, Source};

use super::{Provenance, Versioned};
use crate::appraisal::boot::{BootRules, BootRulesError, CommandLineRules, Demanded, EventRule, Measurement};

/// Values that were checked: of one bank, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSet(BootValues);

/// Why values are no boot set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootSetError {
    /// There is none.
    #[error("a boot set needs at least one value: an empty one accepts nothing")]
    Empty,
    /// More than rules hold.
    #[error("a boot set has at most {} values", BootSet::MAX_VALUES)]
    TooMany,
    /// Collisions can be made.
    #[error("bank: SHA-1 is refused: collisions can be made")]
    Sha1,
    /// A digest could never match.
    #[error("value {number}: {digest} is not a {bank} digest")]
    OtherAlgorithm {
        /// From 1.
        number: usize,
        /// The digest.
        digest: TaggedDigest,
        /// The set's bank.
        bank: HashAlgorithm,
    },
    /// A text cannot be kept, or shown.
    #[error(
        "value {number}: {field} is empty, longer than {max} bytes, or has characters that do more than show"
    )]
    Text {
        /// From 1.
        number: usize,
        /// Which.
        field: &'static str,
        /// The limit.
        max: usize,
    },
    /// Two sets of different banks cannot be one.
    #[error("a set of {0} values and one of {1} values cannot be one: no event would match both")]
    Banks(HashAlgorithm, HashAlgorithm),
}

impl BootSet {
    /// Values of one set: as many as one list of rules holds.
    pub const MAX_VALUES: usize = BootRules::MAX_ENTRIES;
    /// Bytes of a command line or a version: twice what a kernel reads.
    pub const MAX_TEXT: usize = 4096;
    /// Bytes of a label or a part of a source: a path with room to spare.
    pub const MAX_WORDS: usize = 1024;

    /// Checks and takes values. What is there twice is kept once, the first. Values of whole PCRs and notes are not part of a
    /// set: rules are about events.
    pub fn new(values: BootValues) -> Result<Self, BootSetError> {
        let BootValues { bank, values, pcrs: _, notes: _ } = values;
        if values.is_empty() {
            return Err(BootSetError::Empty);
        }
        if values.len() > Self::MAX_VALUES {
            return Err(BootSetError::TooMany);
        }
        if bank == HashAlgorithm::Sha1 {
            return Err(BootSetError::Sha1);
        }
        for (number, value) in (1..).zip(&values) {
            check(number, value, bank)?;
        }
        let mut seen = HashSet::new();
        let values = values.into_iter().filter(|value| seen.insert(key(&value.measured))).collect();
        Ok(Self(BootValues::new(bank, values)))
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &BootValues {
        &self.0
    }

    /// What either has.
    pub fn union(&self, other: &Self) -> Result<Self, BootSetError> {
        if self.0.bank != other.0.bank {
            return Err(BootSetError::Banks(self.0.bank, other.0.bank));
        }
        let values = self.0.values.iter().chain(&other.0.values).cloned().collect();
        Self::new(BootValues::new(self.0.bank, values))
    }
}

/// Names what is measured: two values with one are the same, whatever is said of them.
#[must_use]
pub fn key(measured: &Measured) -> String {
    match measured {
        Measured::BootApplication { digest } => format!("boot_application {digest}"),
        Measured::Driver { digest } => format!("driver {digest}"),
        Measured::Initrd { digest } => format!("initrd {digest}"),
        Measured::CommandLine { text } => format!("command_line {text}"),
        Measured::Event { pcr, digest } => format!("event PCR {pcr} {digest}"),
        Measured::FirmwareVersion { text } => format!("firmware_version {text}"),
        Measured::FirmwareBlob { digest } => format!("firmware_blob {digest}"),
    }
}

/// The digest of a value that has one.
const fn digest_of(measured: &Measured) -> Option<&TaggedDigest> {
    match measured {
        Measured::BootApplication { digest }
        | Measured::Driver { digest }
        | Measured::Initrd { digest }
        | Measured::Event { digest, .. }
        | Measured::FirmwareBlob { digest } => Some(digest),
        Measured::CommandLine { .. } | Measured::FirmwareVersion { .. } => None,
    }
}

fn check(number: usize, value: &BootValue, bank: HashAlgorithm) -> Result<(), BootSetError> {
    if let Some(digest) = digest_of(&value.measured).filter(|digest| digest.0.algorithm() != bank) {
        return Err(BootSetError::OtherAlgorithm { number, digest: *digest, bank });
    }
    let text = |field, text: &str, max: usize| {
        if fits(text, max) { Ok(()) } else { Err(BootSetError::Text { number, field, max }) }
    };
    if let Measured::CommandLine { text: line } | Measured::FirmwareVersion { text: line } = &value.measured {
        text("text", line, BootSet::MAX_TEXT)?;
    }
    if !value.label.is_empty() {
        text("label", &value.label, BootSet::MAX_WORDS)?;
    }
    match unfit_part(&value.source) {
        Some(field) => Err(BootSetError::Text { number, field, max: BootSet::MAX_WORDS }),
        None => Ok(()),
    }
}

fn fits(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && text.chars().all(only_shows)
}

/// The part of a source that is empty, too long, or has what does not only show.
pub(super) fn unfit_part(source: &Source) -> Option<&'static str> {
    let Source { file, package, version, node } = source;
    let parts = [("file", file), ("package", package), ("version", version), ("node", node)];
    let unfit = |part: &Option<String>| part.as_ref().is_some_and(|part| !fits(part, BootSet::MAX_WORDS));
    parts.into_iter().find(|(_, part)| unfit(part)).map(|(field, _)| field)
}

/// Where a value comes from, in words; empty where nothing is known.
#[must_use]
pub fn source_words(source: &Source) -> String {
    let package = match (&source.package, &source.version) {
        (Some(package), Some(version)) => Some(format!("{package} {version}")),
        (Some(package), None) => Some(package.clone()),
        (None, version) => version.clone(),
    };
    let node = source.node.as_ref().map(|node| format!("node {node}"));
    [package, source.file.clone(), node].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// One version of a boot set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSetVersion {
    /// Its name and version.
    pub id: Versioned,
    /// The values.
    pub set: BootSet,
    /// Who made it.
    pub provenance: Provenance,
}

impl BootSet {
    /// What rules of a bank demand to be measured while they have this set, and still do once it is withdrawn: that a set
    /// goes takes values away, and never a check.
    #[must_use]
    pub fn demands(&self, bank: HashAlgorithm) -> Demanded {
        let has = |is: fn(&Measured) -> bool| {
            self.0.bank == bank && self.0.values.iter().any(|value| is(&value.measured))
        };
        Demanded {
            initrd: has(|measured| matches!(measured, Measured::Initrd { .. })),
            command_line: has(|measured| matches!(measured, Measured::CommandLine { .. })),
        }
    }
}

impl BootRules {
    /// These rules, with what sets that were withdrawn demand.
    #[must_use]
    pub fn after<'s>(mut self, withdrawn: impl Iterator<Item = &'s BootSetVersion>) -> Self {
        for version in withdrawn {
            let Demanded { initrd, command_line } = version.set.demands(self.bank);
            self.demanded.initrd |= initrd;
            self.demanded.command_line |= command_line;
        }
        self
    }

    /// These rules with the values of sets, as if they were written here. A set of another bank has nothing that could match.
    #[must_use]
    pub fn with_sets<'s>(&self, sets: impl Iterator<Item = &'s BootSetVersion>) -> Self {
        let mut merged = self.clone();
        for version in sets.filter(|version| version.set.0.bank == self.bank) {
            for value in &version.set.0.values {
                merged.accept(value, &version.id);
            }
        }
        merged
    }

    /// Refuses sets that these rules could not have written themselves: of another bank, about a PCR that is not explained, or
    /// with what is denied. What is not there yet is none of `sets`, and only accepts nothing.
    pub fn check_with(&self, sets: &[&BootSetVersion]) -> Result<(), BootRulesError> {
        if let Some(other) = sets.iter().find(|version| version.set.0.bank != self.bank) {
            let (set, bank) = (other.id.name.clone(), other.set.0.bank);
            return Err(BootRulesError::SetOfOtherBank { set, bank, expected: self.bank });
        }
        let mut merged = self.with_sets(sets.iter().copied());
        if sets.len() == self.sets.len() {
            // Nothing is left that could be missing for a while.
            merged.sets.clear();
        }
        merged.check()
    }

    fn accept(&mut self, value: &BootValue, set: &Versioned) {
        let label = match (value.label.as_str(), source_words(&value.source)) {
            ("", source) if source.is_empty() => set.to_string(),
            ("", source) => format!("{source} ({set})"),
            (label, _) => format!("{label} ({set})"),
        };
        let measurement = |digest: &TaggedDigest| Measurement { digest: *digest, label: label.clone() };
        let firmware = |rules: &mut Self| rules.firmware.take().unwrap_or_default();
        match &value.measured {
            Measured::BootApplication { digest } => self.boot_applications.push(measurement(digest)),
            Measured::Driver { digest } => self.drivers.push(measurement(digest)),
            Measured::Initrd { digest } => self.initrds.push(measurement(digest)),
            Measured::CommandLine { text } => {
                let rules = self.command_line.get_or_insert_with(CommandLineRules::default);
                rules.exact.push(text.clone());
            }
            Measured::Event { pcr, digest } => {
                let (pcr, digest): (PcrIndex, _) = (*pcr, TaggedDigest(digest.0));
                self.events.push(EventRule { pcr, digest, label });
            }
            Measured::FirmwareVersion { text } => {
                let mut rules = firmware(self);
                rules.versions.push(text.clone());
                self.firmware = Some(rules);
            }
            Measured::FirmwareBlob { digest } => {
                let mut rules = firmware(self);
                rules.blobs.push(measurement(digest));
                self.firmware = Some(rules);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::clock::Timestamp;
    use rootbound_common::crypto::hash;
    use rootbound_common::tpm::PcrSet;

    const BANK: HashAlgorithm = HashAlgorithm::Sha256;

    fn digest(text: &str) -> TaggedDigest {
        TaggedDigest(hash(BANK, &[text.as_bytes()]))
    }

    fn value(measured: Measured) -> BootValue {
        BootValue { measured, label: String::new(), source: Source::default() }
    }

    fn application(text: &str) -> BootValue {
        value(Measured::BootApplication { digest: digest(text) })
    }

    fn set(values: Vec<BootValue>) -> BootSet {
        BootSet::new(BootValues::new(BANK, values)).unwrap()
    }

    fn version(name: &str, set: BootSet) -> BootSetVersion {
        let created_at = Timestamp::from_millis(0);
        let provenance = Provenance { author: "uid 0".into(), reason: String::new(), created_at };
        BootSetVersion { id: Versioned { name: name.parse().unwrap(), version: 2 }, set, provenance }
    }

    fn rules(pcrs: &[u8]) -> BootRules {
        let explained: PcrSet = pcrs.iter().filter_map(|pcr| PcrIndex::new(*pcr)).collect();
        BootRules { sets: vec!["kernel".parse().unwrap()], ..BootRules::of(BANK, explained) }
    }

    #[test]
    fn each_way_to_be_no_boot_set_is_named() {
        let of = |bank, values| BootSet::new(BootValues::new(bank, values)).unwrap_err();
        assert_eq!(of(BANK, vec![]), BootSetError::Empty);
        assert_eq!(of(BANK, vec![application("a"); 4097]), BootSetError::TooMany);
        assert_eq!(of(HashAlgorithm::Sha1, vec![application("a")]), BootSetError::Sha1);
        let bank = HashAlgorithm::Sha384;
        let other = BootSetError::OtherAlgorithm { number: 1, digest: digest("a"), bank };
        assert_eq!(of(bank, vec![application("a")]), other);
        let line = |text: &str| value(Measured::CommandLine { text: text.into() });
        for (bad, field) in [
            (line(""), "text"),
            (line(&"x".repeat(4097)), "text"),
            (line("a\nb"), "text"),
            (BootValue { label: "\u{1b}[31m".into(), ..application("a") }, "label"),
            (
                BootValue {
                    source: Source { file: Some("x".repeat(1025)), ..Source::default() },
                    ..application("a")
                },
                "file",
            ),
        ] {
            let error = of(BANK, vec![application("first"), bad]);
            assert!(
                matches!(error, BootSetError::Text { number: 2, field: f, .. } if f == field),
                "{error:?}"
            );
        }
    }

    #[test]
    fn what_is_there_twice_is_kept_once() {
        let (a, b) =
            (set(vec![application("a"), application("a")]), set(vec![application("b"), application("a")]));
        assert_eq!(a.values().values.len(), 1);
        let both = a.union(&b).unwrap();
        assert_eq!(both.values().values, [application("a"), application("b")]);
        let quiet = vec![value(Measured::CommandLine { text: "quiet".into() })];
        let other = BootSet::new(BootValues::new(HashAlgorithm::Sha384, quiet));
        assert_eq!(a.union(&other.unwrap()), Err(BootSetError::Banks(BANK, HashAlgorithm::Sha384)));
    }

    #[test]
    fn values_of_a_set_are_as_if_they_were_written_in_the_rules() {
        let source =
            Source { package: Some("linux-image".into()), version: Some("6.1".into()), ..Source::default() };
        let values = vec![
            BootValue { source, ..application("kernel") },
            value(Measured::Driver { digest: digest("driver") }),
            value(Measured::Initrd { digest: digest("initrd") }),
            value(Measured::CommandLine { text: "quiet".into() }),
            value(Measured::Event { pcr: PcrIndex::new(5).unwrap(), digest: digest("gpt") }),
            value(Measured::FirmwareVersion { text: "1.2".into() }),
            value(Measured::FirmwareBlob { digest: digest("volume") }),
        ];
        let kernel = version("kernel", set(values));
        let rules = rules(&[0, 2, 4, 5, 9]);
        assert_eq!(rules.check_with(&[&kernel]), Ok(()));
        let merged = rules.with_sets([&kernel].into_iter());
        let of = |text| TaggedDigest(digest(text).0);
        assert_eq!(merged.boot_applications[0].digest, of("kernel"));
        assert_eq!(merged.boot_applications[0].label, "linux-image 6.1 (kernel@2)");
        assert_eq!((merged.drivers[0].digest, merged.initrds[0].digest), (of("driver"), of("initrd")));
        assert_eq!(merged.command_line.unwrap().exact, ["quiet"]);
        assert_eq!((merged.events[0].pcr.get(), merged.events[0].digest), (5, of("gpt")));
        let firmware = merged.firmware.unwrap();
        assert_eq!((firmware.versions, firmware.blobs[0].digest), (vec!["1.2".to_owned()], of("volume")));
    }

    #[test]
    fn a_withdrawn_set_accepts_nothing_and_demands_what_it_did() {
        let initrd = || value(Measured::Initrd { digest: digest("initrd") });
        let line = || value(Measured::CommandLine { text: "quiet".into() });
        let other = version("other", set(vec![application("kernel")]));
        let withdrawn = version("kernel", set(vec![application("kernel"), initrd(), line()]));
        let rules = || rules(&[4, 9]);
        assert_eq!(rules().after([&other].into_iter()), rules());
        let after = rules().after([&withdrawn, &other].into_iter());
        assert_eq!(after.demanded, Demanded { initrd: true, command_line: true });
        assert_eq!(BootRules { demanded: Demanded::default(), ..after }, rules(), "nothing is accepted");
        let demanded = |values| rules().after([&version("kernel", set(values))].into_iter()).demanded;
        assert_eq!(demanded(vec![initrd()]), Demanded { initrd: true, command_line: false });
        assert_eq!(demanded(vec![line()]), Demanded { initrd: false, command_line: true });
        let of_other_bank = BootRules::of(HashAlgorithm::Sha384, rules().explained);
        assert_eq!(of_other_bank.clone().after([&withdrawn].into_iter()), of_other_bank);
    }

    #[test]
    fn a_set_that_the_rules_could_not_have_written_is_refused() {
        let kernel = version("kernel", set(vec![application("kernel")]));
        let pcr = PcrIndex::new(4).unwrap();
        assert_eq!(
            rules(&[5]).check_with(&[&kernel]),
            Err(BootRulesError::PcrNotExplained { rules: "boot_applications", pcr })
        );
        let denied = Measurement { digest: TaggedDigest(digest("kernel").0), label: "CVE".into() };
        let denying = BootRules { denied: vec![denied.clone()], ..rules(&[4]) };
        let digest = denied.digest;
        assert_eq!(
            denying.check_with(&[&kernel]),
            Err(BootRulesError::AcceptedAndDenied { rules: "boot_applications", digest })
        );
        let bank = HashAlgorithm::Sha384;
        let other = BootRules { bank, ..rules(&[4]) };
        let expected =
            BootRulesError::SetOfOtherBank { set: kernel.id.name.clone(), bank: BANK, expected: bank };
        assert_eq!(other.check_with(&[&kernel]), Err(expected));
        // Nothing of it is accepted, should it come to be named all the same.
        assert!(other.with_sets([&kernel].into_iter()).boot_applications.is_empty());
        let firmware =
            version("kernel", set(vec![value(Measured::Event { pcr, digest: TaggedDigest(digest.0) })]));
        assert_eq!(
            rules(&[4]).check_with(&[&firmware]),
            Err(BootRulesError::RulesMissing { pcr, rules: "boot_applications" })
        );
        assert_eq!(rules(&[4]).check_with(&[]), Ok(()), "a set that is not there yet");
    }
}
