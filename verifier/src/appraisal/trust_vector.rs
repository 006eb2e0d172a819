//! The trustworthiness vector of AR4SI (draft-ietf-rats-ar4si, 2.3): what an appraisal says of each aspect of a node, in
//! the numbers that every relying party knows.
//!
//! What was not judged has no claim (0), never an affirming one. `against` is the one table from deviations to claims.

use rootbound_common::tpm::{PcrIndex, PcrSet};
use serde::{Deserialize, Serialize};

use super::boot::BootDeviation;
use super::logs::BootFinding;
use super::{Appraisal, Deviation};
use crate::reference::{JudgedBy, ProfileBody};

/// A trustworthiness tier (AR4SI, 2.3.1), the worse the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Nothing is said.
    None,
    /// The verifier vouches for it.
    Affirming,
    /// Accepted with reservations.
    Warning,
    /// The verifier speaks against it.
    Contraindicated,
}

impl Tier {
    /// The tier of a claim's value. Values of no tier, negative or reserved for later, say nothing.
    const fn of(value: i8) -> Self {
        match value {
            2..=31 => Self::Affirming,
            32..=95 => Self::Warning,
            96..=127 => Self::Contraindicated,
            i8::MIN..=1 => Self::None,
        }
    }
}

/// A value that is none of a claim's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{value} is no value of the claim `{claim}`")]
pub struct NotAClaim {
    claim: &'static str,
    value: i8,
}

/// Declares a claim: its values as AR4SI names them, and the two that every claim has.
macro_rules! claim {
    (
        $(#[$attribute:meta])* $claim:ident { $($(#[$of_value:meta])* $name:ident = $value:literal,)* }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(try_from = "i8", into = "i8")]
        pub enum $claim {
            /// Not judged.
            #[default]
            NoClaim,
            $($(#[$of_value])* $name,)*
            /// The evidence does not verify.
            VerificationFailed,
        }

        impl $claim {
            /// Every value.
            pub const ALL: &[Self] = &[Self::NoClaim, $(Self::$name,)* Self::VerificationFailed];

            /// The number that stands for it.
            #[must_use]
            pub const fn value(self) -> i8 {
                match self {
                    Self::NoClaim => 0,
                    $(Self::$name => $value,)*
                    Self::VerificationFailed => 99,
                }
            }

            /// Its tier.
            #[must_use]
            pub const fn tier(self) -> Tier {
                Tier::of(self.value())
            }

            /// The one of the worse tier; of one tier, the first.
            fn worst(self, other: Self) -> Self {
                if other.tier() > self.tier() { other } else { self }
            }
        }

        impl From<$claim> for i8 {
            fn from(claim: $claim) -> Self {
                claim.value()
            }
        }

        impl TryFrom<i8> for $claim {
            type Error = NotAClaim;

            fn try_from(value: i8) -> Result<Self, NotAClaim> {
                let claim = Self::ALL.iter().find(|claim| claim.value() == value);
                claim.copied().ok_or(NotAClaim { claim: stringify!($claim), value })
            }
        }
    };
}

claim! {
    /// Whether the attester is who it should be.
    InstanceIdentity {
        /// Known, and not known to be compromised.
        Trustworthy = 2,
        /// Known, and not to be trusted.
        Untrustworthy = 96,
        /// Not known, though it should be.
        Unrecognized = 97,
    }
}

claim! {
    /// How the attester is configured.
    Configuration {
        /// Known and approved.
        Approved = 2,
        /// Without known weaknesses.
        Safe = 3,
        /// With known weaknesses.
        Unsafe = 32,
        /// Parts of it cannot be seen.
        Unavailable = 36,
        /// Not acceptable.
        Unsupportable = 96,
    }
}

claim! {
    /// What was loaded.
    Executables {
        /// Approved ones only, while it booted and since.
        ApprovedRuntime = 2,
        /// Approved ones only, while it booted.
        ApprovedBoot = 3,
        /// Known ones only, some with known weaknesses.
        Unsafe = 32,
        /// Some are not known.
        Unrecognized = 33,
        /// Some are not acceptable.
        Contraindicated = 96,
    }
}

claim! {
    /// What is on the file system.
    FileSystem {
        /// Approved files only.
        Approved = 2,
        /// Some are not known.
        Unrecognized = 32,
        /// Some are not acceptable.
        Contraindicated = 96,
    }
}

claim! {
    /// The attester's hardware and firmware.
    Hardware {
        /// Shown to be genuine.
        Genuine = 2,
        /// Genuine, with known weaknesses.
        Unsafe = 32,
        /// Known, and not acceptable.
        Contraindicated = 96,
        /// Not known, though it should be.
        Unrecognized = 97,
    }
}

claim! {
    /// Whether memory can be looked into from outside.
    RuntimeOpaque {
        /// Encrypted.
        Encrypted = 2,
        /// Isolated from other guests.
        Isolated = 32,
        /// It can.
        Visible = 96,
    }
}

claim! {
    /// Whether what is stored can be read elsewhere.
    StorageOpaque {
        /// Encrypted under keys that hardware holds.
        HardwareKeys = 2,
        /// Encrypted under other keys.
        SoftwareKeys = 32,
        /// Secrets are in the clear.
        Unencrypted = 96,
    }
}

claim! {
    /// Where the attester's data come from.
    SourcedData {
        /// From attesters that are affirmed.
        Trusted = 2,
        /// From others, too.
        Untrusted = 32,
        /// From attesters that are contraindicated.
        Contraindicated = 96,
    }
}

/// The claims on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TrustVector {
    /// Who it is.
    pub instance_identity: InstanceIdentity,
    /// How it is configured.
    pub configuration: Configuration,
    /// What was loaded.
    pub executables: Executables,
    /// What is on its file system.
    pub file_system: FileSystem,
    /// Its hardware.
    pub hardware: Hardware,
    /// Whether its memory is closed.
    pub runtime_opaque: RuntimeOpaque,
    /// Whether its storage is closed.
    pub storage_opaque: StorageOpaque,
    /// Where its data come from.
    pub sourced_data: SourcedData,
}

impl TrustVector {
    /// No claim at all.
    pub const NONE: Self = Self {
        instance_identity: InstanceIdentity::NoClaim,
        configuration: Configuration::NoClaim,
        executables: Executables::NoClaim,
        file_system: FileSystem::NoClaim,
        hardware: Hardware::NoClaim,
        runtime_opaque: RuntimeOpaque::NoClaim,
        storage_opaque: StorageOpaque::NoClaim,
        sourced_data: SourcedData::NoClaim,
    };

    /// Of evidence that does not verify.
    pub const UNFOUNDED: Self = Self {
        configuration: Configuration::VerificationFailed,
        executables: Executables::VerificationFailed,
        ..Self::NONE
    };

    /// What an appraisal says of what a node booted and runs. Who the node is, and on which hardware, is not its matter.
    ///
    /// Each claim is the worst of what was affirmed because it was judged, and of what each deviation says.
    #[must_use]
    pub fn of(appraisal: &Appraisal) -> Self {
        let affirmed = appraisal.profile().map_or(Self::NONE, |profile| affirmed(profile.body()));
        let affirmed = if appraisal.is_weak() { affirmed.worst(WEAK) } else { affirmed };
        appraisal.deviations().iter().map(against).fold(affirmed, Self::worst)
    }

    /// Claim by claim, the one of the worse tier.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        Self {
            instance_identity: self.instance_identity.worst(other.instance_identity),
            configuration: self.configuration.worst(other.configuration),
            executables: self.executables.worst(other.executables),
            file_system: self.file_system.worst(other.file_system),
            hardware: self.hardware.worst(other.hardware),
            runtime_opaque: self.runtime_opaque.worst(other.runtime_opaque),
            storage_opaque: self.storage_opaque.worst(other.storage_opaque),
            sourced_data: self.sourced_data.worst(other.sourced_data),
        }
    }

    /// The worst tier of all claims.
    #[must_use]
    pub fn tier(&self) -> Tier {
        // By name, so that a claim that is added cannot be forgotten here.
        let Self {
            instance_identity,
            configuration,
            executables,
            file_system,
            hardware,
            runtime_opaque,
            storage_opaque,
            sourced_data,
        } = self;
        [
            instance_identity.tier(),
            configuration.tier(),
            executables.tier(),
            file_system.tier(),
            hardware.tier(),
            runtime_opaque.tier(),
            storage_opaque.tier(),
            sourced_data.tier(),
        ]
        .into_iter()
        .fold(Tier::None, Tier::max)
    }
}

/// What a deviation says, claim by claim. Every one contraindicates something: that it is a deviation means that policy
/// does not accept it, a judgement that could not be made as little as a value that nobody explains.
const fn against(deviation: &Deviation) -> TrustVector {
    match deviation {
        // No policy says that this machine is acceptable; what it loaded, nobody looked at.
        Deviation::NoProfile(_) => CONFIGURATION,
        Deviation::IdleBank { .. } => BOTH,
        Deviation::NotQuoted { pcr, .. }
        | Deviation::NoReference { pcr, .. }
        | Deviation::PcrMismatch { pcr, .. }
        | Deviation::PcrDenied { pcr, .. } => match measured(*pcr) {
            Measured::Executables => EXECUTABLES,
            Measured::Configuration => CONFIGURATION,
        },
        Deviation::Boot(finding) => against_boot(finding),
        // What ran was a file, or changed what may run.
        Deviation::Runtime(_) => RUNTIME,
    }
}

const fn against_boot(finding: &BootFinding) -> TrustVector {
    let BootFinding::Deviation(deviation) = finding else { return BOTH };
    match deviation {
        BootDeviation::Denied { .. }
        | BootDeviation::Unexplained { .. }
        | BootDeviation::FirmwareNotAccepted { .. }
        | BootDeviation::DriverNotAccepted { .. }
        | BootDeviation::BootApplicationNotAccepted { .. }
        | BootDeviation::NoBootApplication
        | BootDeviation::InitrdNotAccepted { .. }
        | BootDeviation::NoInitrd => EXECUTABLES,
        BootDeviation::CommandLineNotAccepted { .. }
        | BootDeviation::SecondCommandLine { .. }
        | BootDeviation::NoCommandLine
        | BootDeviation::SecureBootNotOn { .. }
        | BootDeviation::NoAuthority
        | BootDeviation::AuthorityNotAccepted { .. }
        | BootDeviation::VariableNotAccepted { .. }
        | BootDeviation::DbxLacks { .. }
        | BootDeviation::SecureBootUnreadable { .. }
        | BootDeviation::ConfigurationAfterSeparator { .. }
        | BootDeviation::SbatTooOld { .. }
        | BootDeviation::DebuggerEnabled { .. }
        | BootDeviation::DmaUnprotected { .. } => CONFIGURATION,
        BootDeviation::OtherBank { .. }
        | BootDeviation::NotExplained { .. }
        | BootDeviation::NoSeparator { .. }
        | BootDeviation::SecondSeparator { .. }
        | BootDeviation::ErrorSeparator { .. }
        | BootDeviation::AfterSeparator { .. }
        | BootDeviation::More { .. } => BOTH,
    }
}

const EXECUTABLES: TrustVector =
    TrustVector { executables: Executables::Contraindicated, ..TrustVector::NONE };
const CONFIGURATION: TrustVector =
    TrustVector { configuration: Configuration::Unsupportable, ..TrustVector::NONE };
/// Collisions of SHA-1 can be made: known weaknesses, accepted by the operator.
const WEAK: TrustVector = TrustVector { executables: Executables::Unsafe, ..TrustVector::NONE };
const RUNTIME: TrustVector = TrustVector { file_system: FileSystem::Contraindicated, ..EXECUTABLES };
const BOTH: TrustVector = TrustVector { configuration: Configuration::Unsupportable, ..EXECUTABLES };

/// What values that are all accepted affirm.
///
/// Executables: the code of the firmware, of option ROMs and of the boot loader was judged (PCRs 0, 2 and 4), so that no
/// link of the chain is missing; and, where the IMA list was judged on top of it, what ran since. Configuration: the Secure
/// Boot policy was judged (PCR 7). File system: the IMA list was judged. PCRs that the profile ignores were not judged.
fn affirmed(profile: &ProfileBody) -> TrustVector {
    let judged: PcrSet = (profile.pcrs.banks())
        .flat_map(|(bank, pcrs)| pcrs.iter().map(move |pcr| (bank, pcr)))
        .filter(|(bank, pcr)| profile.judged_by(*bank, *pcr) != JudgedBy::Nothing)
        .map(|(_, pcr)| pcr)
        .collect();
    let all =
        |pcrs: &[u8]| pcrs.iter().all(|pcr| PcrIndex::new(*pcr).is_some_and(|pcr| judged.contains(pcr)));
    let (boot, runtime) = (all(&[0, 2, 4]), profile.runtime.is_some());
    TrustVector {
        executables: match (boot, runtime) {
            (true, true) => Executables::ApprovedRuntime,
            (true, false) => Executables::ApprovedBoot,
            (false, _) => Executables::NoClaim,
        },
        configuration: if all(&[7]) { Configuration::Approved } else { Configuration::NoClaim },
        file_system: if boot && runtime { FileSystem::Approved } else { FileSystem::NoClaim },
        ..TrustVector::NONE
    }
}

enum Measured {
    Executables,
    Configuration,
}

/// What is measured into a PCR: code, or what it is told (TCG PC Client Platform Firmware Profile, 2.3.4; for 8 to 15 the
/// registry of the UAPI group; for 17 to 22 the launch of DRTM).
const fn measured(pcr: PcrIndex) -> Measured {
    match pcr.get() {
        // Firmware, option ROMs, boot loader · files that GRUB reads · IMA · kernel image · system extensions · DRTM.
        0 | 2 | 4 | 9 | 10 | 11 | 13 | 17..=22 => Measured::Executables,
        _ => Measured::Configuration,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::crypto::Digest;
    use rootbound_common::tpm::{HashAlgorithm, PcrSelection};

    use crate::appraisal::logs::{Logs, RuntimeFinding};
    use crate::appraisal::runtime::RuntimeRules;
    use crate::appraisal::tests::{book, observed, value};
    use crate::appraisal::{Verdict, appraise};
    use crate::node::{Labels, Name};
    use crate::reference::NoProfile;

    const BANK: HashAlgorithm = HashAlgorithm::Sha256;

    fn pcr(index: u8) -> PcrIndex {
        PcrIndex::new(index).unwrap()
    }

    /// Values and tiers as the draft has them (AR4SI, 2.3.4).
    #[test]
    fn values_are_those_of_the_draft() {
        fn check<T: Copy + Into<i8>>(all: &[T], expected: &[i8]) {
            let values: Vec<i8> = all.iter().map(|claim| (*claim).into()).collect();
            assert_eq!(values, expected);
        }
        check(InstanceIdentity::ALL, &[0, 2, 96, 97, 99]);
        check(Configuration::ALL, &[0, 2, 3, 32, 36, 96, 99]);
        check(Executables::ALL, &[0, 2, 3, 32, 33, 96, 99]);
        check(FileSystem::ALL, &[0, 2, 32, 96, 99]);
        check(Hardware::ALL, &[0, 2, 32, 96, 97, 99]);
        check(RuntimeOpaque::ALL, &[0, 2, 32, 96, 99]);
        check(StorageOpaque::ALL, &[0, 2, 32, 96, 99]);
        check(SourcedData::ALL, &[0, 2, 32, 96, 99]);
        for (values, tier) in [
            (-128..=1, Tier::None),
            (2..=31, Tier::Affirming),
            (32..=95, Tier::Warning),
            (96..=127, Tier::Contraindicated),
        ] {
            for value in values {
                assert_eq!(Tier::of(value), tier, "{value}");
            }
        }
    }

    #[test]
    fn a_vector_is_written_as_the_draft_names_its_claims_and_read_back() {
        let vector = TrustVector {
            instance_identity: InstanceIdentity::Trustworthy,
            executables: Executables::Unrecognized,
            ..TrustVector::UNFOUNDED
        };
        let json = serde_json::to_value(vector).unwrap();
        let expected = serde_json::json!({
            "instance-identity": 2, "configuration": 99, "executables": 33, "file-system": 0, "hardware": 0,
            "runtime-opaque": 0, "storage-opaque": 0, "sourced-data": 0,
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<TrustVector>(json).unwrap(), vector);
        let other = serde_json::from_value::<Executables>(serde_json::json!(4)).unwrap_err();
        assert!(other.to_string().contains("4 is no value of the claim"), "{other}");
    }

    #[test]
    fn each_deviation_contraindicates_what_it_concerns() {
        let observed = Digest::zero(BANK);
        let of = |index| {
            let pcr = pcr(index);
            [
                Deviation::NotQuoted { bank: BANK, pcr },
                Deviation::NoReference { bank: BANK, pcr, observed },
                Deviation::PcrMismatch { bank: BANK, pcr, observed, accepted: vec![observed] },
            ]
        };
        for index in [0, 2, 4, 9, 10, 11, 13, 17, 22] {
            assert!(of(index).iter().all(|deviation| against(deviation) == EXECUTABLES), "PCR {index}");
        }
        for index in [1, 3, 5, 6, 7, 8, 12, 14, 15, 16, 23] {
            assert!(of(index).iter().all(|deviation| against(deviation) == CONFIGURATION), "PCR {index}");
        }
        assert_eq!(against(&Deviation::IdleBank { bank: BANK }), BOTH);
        assert_eq!(against(&Deviation::NoProfile(NoProfile::None)), CONFIGURATION);
        let boot = |deviation| against(&Deviation::Boot(BootFinding::Deviation(deviation)));
        assert_eq!(boot(BootDeviation::NoBootApplication), EXECUTABLES);
        assert_eq!(boot(BootDeviation::NoAuthority), CONFIGURATION);
        assert_eq!(boot(BootDeviation::NoSeparator { pcr: pcr(7) }), BOTH);
        assert_eq!(against(&Deviation::Boot(BootFinding::Absent)), BOTH);
        assert_eq!(against(&Deviation::Runtime(RuntimeFinding::Missing)), RUNTIME);
        for vector in [EXECUTABLES, CONFIGURATION, BOTH, TrustVector::UNFOUNDED] {
            assert_eq!(vector.tier(), Tier::Contraindicated);
        }
    }

    #[test]
    fn nothing_is_affirmed_that_was_not_judged() {
        let profile = |pcrs: &[u8]| {
            let mut body = ProfileBody::initial(Name::default_set());
            body.pcrs = PcrSelection::of_bank(BANK, pcrs.iter().map(|index| pcr(*index)).collect());
            body
        };
        let judged = |pcrs: &[u8]| affirmed(&profile(pcrs));
        assert_eq!(judged(&[]), TrustVector::NONE);
        assert_eq!(judged(&[0, 2, 14]), TrustVector::NONE, "the boot loader is missing");
        assert_eq!(judged(&[7]).executables, Executables::NoClaim);
        let whole = TrustVector {
            executables: Executables::ApprovedBoot,
            configuration: Configuration::Approved,
            ..TrustVector::NONE
        };
        assert_eq!(judged(&[0, 1, 2, 4, 7]), whole);
        let mut body = profile(&[0, 2, 4, 7, 10]);
        body.runtime = Some(RuntimeRules::default());
        let ran = TrustVector {
            executables: Executables::ApprovedRuntime,
            file_system: FileSystem::Approved,
            ..whole
        };
        assert_eq!(affirmed(&body), ran);
        body.ignored = [pcr(2)].into_iter().collect();
        assert_eq!(
            affirmed(&body),
            TrustVector { configuration: Configuration::Approved, ..TrustVector::NONE }
        );
    }

    /// The book's profile judges PCRs 0 and 7.
    #[test]
    fn an_appraisal_is_affirmed_and_contradicted_claim_by_claim() {
        let (zero, seven) = ((0, value("firmware")), (7, value("keys")));
        let reference = book(&[("a", &[zero, seven])]);
        let of = |values: &[(u8, Digest)], book| {
            let appraisal = appraise(&observed(values), &Logs::none(), &Labels::default(), book);
            let vector = TrustVector::of(&appraisal);
            let contraindicated = appraisal.verdict() == Verdict::Contraindicated;
            assert_eq!(
                vector.tier() == Tier::Contraindicated,
                contraindicated,
                "the worst tier is the verdict"
            );
            vector
        };
        let configured = TrustVector { configuration: Configuration::Approved, ..TrustVector::NONE };
        assert_eq!(of(&[zero, seven], &reference), configured);
        let other = (0, value("other firmware"));
        assert_eq!(
            of(&[other, seven], &reference),
            TrustVector { executables: Executables::Contraindicated, ..configured }
        );
        assert_eq!(of(&[zero, (7, value("other keys"))], &reference), CONFIGURATION);
        assert_eq!(of(&[zero, seven], &crate::reference::ReferenceBook::default()), CONFIGURATION);
    }
}
