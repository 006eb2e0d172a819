//! What an operator expects of a boot, event by event. Typed and closed: there is no language in it.

use rootbound_common::crypto::TaggedDigest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSet};
use serde::{Deserialize, Serialize};

use super::command_line::CommandLineRules;
use crate::evidence::boot_log::ConfigurationVariable;
use crate::node::Name;

/// Something that may be measured, by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// What the event extends its PCR with. Of a PE image that is its Authenticode digest.
    pub digest: TaggedDigest,
    /// What it is, in the operator's words.
    #[serde(default)]
    pub label: String,
}

/// An event of one PCR, by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRule {
    /// The PCR.
    pub pcr: PcrIndex,
    /// What the event extends it with.
    pub digest: TaggedDigest,
    /// What it is, in the operator's words.
    #[serde(default)]
    pub label: String,
}

/// What PCR 0 may hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareRules {
    /// Versions of the S-CRTM, as text; measured as UTF-16 or as ASCII, with or without a terminator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// Blobs and whatever else is measured there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Measurement>,
}

/// Which entry of a signature database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A certificate, by the SHA-256 of its DER.
    X509,
    /// The SHA-256 Authenticode digest of an image, as it stands.
    Sha256,
}

/// An entry of PK, KEK, db or dbx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryRule {
    /// What it is.
    pub kind: EntryKind,
    /// Which one: always SHA-256, whatever the bank.
    pub digest: TaggedDigest,
    /// What it is, in the operator's words.
    #[serde(default)]
    pub label: String,
}

/// What PK, KEK or db may hold: nothing that is not listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariableRules {
    /// Whole variables, by the digest of their event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<Measurement>,
    /// Entries: a variable is accepted that has at least one, and none that is not here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<EntryRule>,
}

/// What dbx has to hold. More entries revoke more, and are fine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DbxRules {
    /// Whole variables, by the digest of their event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<Measurement>,
    /// Entries that have to be there, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub minimum: Vec<EntryRule>,
}

/// Whether images have to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecureBootMode {
    /// Secure Boot is on, *and* something was checked by a listed authority. The variable alone is not enough: firmware that
    /// falls back to an unchecked loader leaves it at 1 and measures no authority.
    Required,
    /// Secure Boot may be off. The keys are judged all the same.
    NotRequired,
}

/// How an entry that an image was checked by is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorityKind {
    /// By the digest of its event.
    Event,
    /// By the SHA-256 of its certificate in DER, alone or behind its owner's GUID.
    Certificate,
}

/// An entry that images may be checked by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityRule {
    /// How it is named.
    pub kind: AuthorityKind,
    /// The name.
    pub digest: TaggedDigest,
    /// What it is, in the operator's words.
    #[serde(default)]
    pub label: String,
}

/// What PCR 7 has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureBootRules {
    /// Whether images have to be checked.
    pub mode: SecureBootMode,
    /// Platform keys.
    pub pk: VariableRules,
    /// Who may change `db` and `dbx`.
    pub kek: VariableRules,
    /// What may run.
    pub db: VariableRules,
    /// What must not run, at the least.
    pub dbx: DbxRules,
    /// Which entries images were checked by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<AuthorityRule>,
    /// The oldest SBAT revocations that are accepted, by their date as in `sbat,1,2021030218`. Where it is absent, no level has
    /// to be there, and any is fine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbat_minimum: Option<u64>,
}

impl SecureBootRules {
    pub(super) const fn of(&self, variable: ConfigurationVariable) -> Option<&VariableRules> {
        match variable {
            ConfigurationVariable::Pk => Some(&self.pk),
            ConfigurationVariable::Kek => Some(&self.kek),
            ConfigurationVariable::Db => Some(&self.db),
            ConfigurationVariable::SecureBoot | ConfigurationVariable::Dbx => None,
        }
    }
}

/// What becomes of firmware that says that a debugger can reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Debugger {
    /// It deviates.
    #[default]
    Refused,
    /// It is accepted.
    Allowed,
}

/// Whether firmware must not say that it left DMA unprotected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DmaProtection {
    /// It deviates.
    #[default]
    Required,
    /// It is accepted.
    NotRequired,
}

/// What a boot may have measured.
///
/// PCRs are of three sorts, and a profile says of each which: *pinned* (a reference set has its values), *explained* (listed
/// here: every event in it has to be accounted for), or left out. What accounts for an event is its digest, or bytes that
/// hash to it; types and unproved data are words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootRules {
    /// The bank that digests are of.
    pub bank: HashAlgorithm,
    /// The PCRs that are judged by their events.
    pub explained: PcrSet,
    /// Boot sets, whose values are as good as if they were written here. One that does not exist accepts nothing; one that was
    /// withdrawn accepts nothing, and what had to be measured because of it still has to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Name>,
    /// PCR 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareRules>,
    /// PCR 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<SecureBootRules>,
    /// PCR 4: shim, boot loaders, unified kernel images, kernels. At least one has to be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_applications: Vec<Measurement>,
    /// PCR 2: drivers from option ROMs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<Measurement>,
    /// PCR 9: initrds. Where any is listed, at least one has to be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initrds: Vec<Measurement>,
    /// PCRs 8, 9 and 12: command lines of the kernel. Where there are rules, at least one has to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<CommandLineRules>,
    /// Everything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventRule>,
    /// PCR 7: whether firmware may have said that a debugger can reach it.
    #[serde(default)]
    pub debugger: Debugger,
    /// PCR 7: whether firmware may have said that it left DMA unprotected.
    #[serde(default)]
    pub dma_protection: DmaProtection,
    /// What must not be measured into any PCR of the history, whatever else accepts it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<Measurement>,
    /// What has to be there besides, by sets that are named and withdrawn: rules do not say it themselves.
    #[serde(skip)]
    pub demanded: Demanded,
}

/// What a boot has to have measured, whatever is accepted as it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demanded {
    /// An initrd, where PCR 9 is explained.
    pub initrd: bool,
    /// A command line of the kernel.
    pub command_line: bool,
}

/// Why rules are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootRulesError {
    /// They would judge nothing.
    #[error("explained: name at least one PCR; rules for none check nothing")]
    NothingExplained,
    /// Collisions can be made.
    #[error("bank: SHA-1 is refused: collisions can be made")]
    Sha1,
    /// The PCR has no events in a boot log that could be trusted.
    #[error("explained: PCR {pcr} {why}")]
    CannotExplain {
        /// The PCR.
        pcr: PcrIndex,
        /// Why.
        why: &'static str,
    },
    /// Nothing could account for what every boot measures there.
    #[error("explained: PCR {pcr} needs `{rules}`, or every boot deviates")]
    RulesMissing {
        /// The PCR.
        pcr: PcrIndex,
        /// The field.
        rules: &'static str,
    },
    /// The rules would never be looked at.
    #[error("`{rules}` is about PCR {pcr}, which is not explained")]
    PcrNotExplained {
        /// The field.
        rules: &'static str,
        /// The PCR.
        pcr: PcrIndex,
    },
    /// A list that has to accept something accepts nothing.
    #[error("`{rules}` accepts nothing")]
    AcceptsNothing {
        /// The field.
        rules: &'static str,
    },
    /// A digest could never match.
    #[error("`{rules}`: {digest} is not a {expected} digest")]
    OtherAlgorithm {
        /// The field.
        rules: &'static str,
        /// The digest.
        digest: TaggedDigest,
        /// What it should be of.
        expected: HashAlgorithm,
    },
    /// What is accepted is denied, too.
    #[error("{digest} is accepted by `{rules}` and denied")]
    AcceptedAndDenied {
        /// The field.
        rules: &'static str,
        /// The digest.
        digest: TaggedDigest,
    },
    /// A token is asked for and forbidden, or not among those that are allowed.
    #[error("command_line: {why}: `{token}`")]
    Tokens {
        /// The token.
        token: String,
        /// What contradicts.
        why: &'static str,
    },
    /// A set whose digests could never match.
    #[error("sets: `{set}` has {bank} values, and the rules are for {expected}")]
    SetOfOtherBank {
        /// The set.
        set: Name,
        /// Its bank.
        bank: HashAlgorithm,
        /// That of the rules.
        expected: HashAlgorithm,
    },
    /// Too many sets.
    #[error("`sets`: at most {}", BootRules::MAX_SETS)]
    TooManySets,
    /// More than a profile holds.
    #[error("`{rules}` has more than {} entries", BootRules::MAX_ENTRIES)]
    TooMany {
        /// The field.
        rules: &'static str,
    },
}

const SECURE_BOOT: &str = "secure_boot";

impl BootRules {
    /// Entries of one list. Microsoft's dbx has some 600, a GRUB boot some 100 events, a fleet some dozens of versions.
    pub const MAX_ENTRIES: usize = 4096;
    /// Sets of one profile: firmware of some models, boot loaders, kernels.
    pub const MAX_SETS: usize = 32;

    /// Rules that explain these PCRs, and accept nothing yet.
    #[must_use]
    pub fn of(bank: HashAlgorithm, explained: PcrSet) -> Self {
        Self {
            bank,
            explained,
            sets: Vec::new(),
            firmware: None,
            secure_boot: None,
            boot_applications: Vec::new(),
            drivers: Vec::new(),
            initrds: Vec::new(),
            command_line: None,
            events: Vec::new(),
            debugger: Debugger::default(),
            dma_protection: DmaProtection::default(),
            denied: Vec::new(),
            demanded: Demanded::default(),
        }
    }

    /// Refuses rules that check nothing, could never be met, or contradict themselves.
    pub fn check(&self) -> Result<(), BootRulesError> {
        if self.explained.is_empty() {
            return Err(BootRulesError::NothingExplained);
        }
        if self.bank == HashAlgorithm::Sha1 {
            return Err(BootRulesError::Sha1);
        }
        for pcr in self.explained.iter() {
            if let Some(why) = unexplainable(pcr) {
                return Err(BootRulesError::CannotExplain { pcr, why });
            }
        }
        if self.sets.len() > Self::MAX_SETS {
            return Err(BootRulesError::TooManySets);
        }
        self.check_fields()?;
        if let Some(rules) = &self.secure_boot {
            rules.check()?;
        }
        if let Some(rules) = &self.command_line {
            rules.check()?;
        }
        self.check_digests()
    }

    /// Each field is about PCRs that are explained; each PCR that no boot leaves empty has its field.
    fn check_fields(&self) -> Result<(), BootRulesError> {
        let fields = [
            ("firmware", &[0][..], self.firmware.is_some(), false),
            (SECURE_BOOT, &[7], self.secure_boot.is_some(), true),
            ("boot_applications", &[4], !self.boot_applications.is_empty(), true),
            ("drivers", &[2], !self.drivers.is_empty(), false),
            ("initrds", &[9], !self.initrds.is_empty(), false),
            ("command_line", &[8, 9, 12], self.command_line.is_some(), false),
        ];
        for (rules, pcrs, present, needed) in fields {
            let mut pcrs = pcrs.iter().filter_map(|pcr| PcrIndex::new(*pcr));
            let explained = pcrs.clone().any(|pcr| self.explained.contains(pcr));
            let Some(pcr) = pcrs.next() else { continue };
            if present && !explained {
                return Err(BootRulesError::PcrNotExplained { rules, pcr });
            }
            // What a set has, [`BootRules::check_with`] looks at.
            let of_a_set = rules == "boot_applications" && !self.sets.is_empty();
            if needed && explained && !present && !of_a_set {
                return Err(BootRulesError::RulesMissing { pcr, rules });
            }
        }
        if self.firmware.as_ref().is_some_and(|rules| rules.versions.is_empty() && rules.blobs.is_empty()) {
            return Err(BootRulesError::AcceptsNothing { rules: "firmware" });
        }
        match self.events.iter().find(|event| !self.explained.contains(event.pcr)) {
            Some(event) => Err(BootRulesError::PcrNotExplained { rules: "events", pcr: event.pcr }),
            None => Ok(()),
        }
    }

    fn check_digests(&self) -> Result<(), BootRulesError> {
        let measured = |list: &[Measurement]| list.iter().map(|one| one.digest).collect::<Vec<_>>();
        let mut lists = vec![
            ("boot_applications", measured(&self.boot_applications)),
            ("drivers", measured(&self.drivers)),
            ("initrds", measured(&self.initrds)),
            ("events", self.events.iter().map(|event| event.digest).collect()),
        ];
        if let Some(rules) = &self.firmware {
            lists.push(("firmware.blobs", measured(&rules.blobs)));
        }
        if let Some(rules) = &self.command_line {
            lists.push(("command_line.digests", measured(&rules.digests)));
        }
        if let Some(rules) = &self.secure_boot {
            let variables = [&rules.pk.digests, &rules.kek.digests, &rules.db.digests, &rules.dbx.digests];
            lists.extend(variables.map(|digests| (SECURE_BOOT, measured(digests))));
            let events = rules.authorities.iter().filter(|one| one.kind == AuthorityKind::Event);
            lists.push((SECURE_BOOT, events.map(|one| one.digest).collect()));
        }
        let denied = measured(&self.denied);
        for (rules, digests) in lists.iter().chain([&("denied", denied.clone())]) {
            check_list(rules, digests, self.bank)?;
        }
        for (rules, digests) in lists {
            if let Some(digest) = digests.into_iter().find(|digest| denied.contains(digest)) {
                return Err(BootRulesError::AcceptedAndDenied { rules, digest });
            }
        }
        Ok(())
    }
}

impl SecureBootRules {
    fn check(&self) -> Result<(), BootRulesError> {
        for (rules, variable) in [("pk", &self.pk), ("kek", &self.kek), ("db", &self.db)] {
            if variable.digests.is_empty() && variable.entries.is_empty() {
                return Err(BootRulesError::AcceptsNothing { rules });
            }
            check_entries(rules, &variable.entries)?;
        }
        if self.dbx.digests.is_empty() && self.dbx.minimum.is_empty() {
            return Err(BootRulesError::AcceptsNothing { rules: "dbx" });
        }
        check_entries("dbx", &self.dbx.minimum)?;
        if self.mode == SecureBootMode::Required && self.authorities.is_empty() {
            return Err(BootRulesError::AcceptsNothing { rules: "authorities" });
        }
        let certificates = self.authorities.iter().filter(|one| one.kind == AuthorityKind::Certificate);
        let certificates: Vec<_> = certificates.map(|one| one.digest).collect();
        check_list("authorities", &certificates, HashAlgorithm::Sha256)
    }
}

fn check_entries(rules: &'static str, entries: &[EntryRule]) -> Result<(), BootRulesError> {
    let digests: Vec<_> = entries.iter().map(|entry| entry.digest).collect();
    check_list(rules, &digests, HashAlgorithm::Sha256)
}

fn check_list(
    rules: &'static str,
    digests: &[TaggedDigest],
    expected: HashAlgorithm,
) -> Result<(), BootRulesError> {
    if digests.len() > BootRules::MAX_ENTRIES {
        return Err(BootRulesError::TooMany { rules });
    }
    match digests.iter().find(|digest| digest.0.algorithm() != expected) {
        Some(digest) => Err(BootRulesError::OtherAlgorithm { rules, digest: *digest, expected }),
        None => Ok(()),
    }
}

/// Why no boot log can explain a PCR.
pub(super) fn unexplainable(pcr: PcrIndex) -> Option<&'static str> {
    match pcr.get() {
        10 => Some("is IMA's, and the boot log says nothing of it"),
        16 | 23 => Some("can be reset by anybody, so that its events prove nothing of the boot"),
        _ => None,
    }
}
