//! boot_aggregate: the first entry, which ties the list to the boot.

use rootbound_common::crypto::{Digest, Hasher};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};

use super::{Entry, ImaError, Shown};

/// The entry by which IMA says on which boot its list stands.
#[derive(Debug, Clone, Copy)]
pub struct BootAggregate;

/// Over which PCRs it is, in which bank (`ima_calc_boot_aggregate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// PCRs 0 to 7: in the SHA-1 bank always; in others, of kernels before 5.8 with backports.
    Firmware(HashAlgorithm),
    /// PCRs 0 to 9: in banks other than SHA-1, of Linux 5.8 and later.
    FirmwareAndLoader(HashAlgorithm),
}

impl BootAggregate {
    /// Its name.
    pub const NAME: &'static [u8] = b"boot_aggregate";

    /// Whether an entry is a boot_aggregate. The kernel that kexec starts adds one, too.
    #[must_use]
    pub fn is(entry: &Entry<'_>) -> bool {
        entry.name() == Self::NAME
    }

    /// Checks the first entry of a list against the boot PCRs of the same quote.
    ///
    /// Established when this returns: the entry is boot_aggregate, and over exactly these boot PCRs. Where a walk goes on
    /// from a prefix, this was established when the prefix began: within a boot these PCRs and the entry stay.
    pub fn check(entry: &Entry<'_>, pcrs: &PcrValues) -> Result<Form, ImaError> {
        if !Self::is(entry) {
            return Err(ImaError::NoBootAggregate { entry: entry.number(), name: Shown::of(entry.name()) });
        }
        let digest = entry.digest();
        if entry.is_violation() || digest.bytes.iter().all(|byte| *byte == 0) {
            return Err(ImaError::EmptyBootAggregate);
        }
        let Some(found) = digest.of_tpm() else {
            return Err(ImaError::BootAggregateHash { found: digest.algorithm.name() });
        };
        let bank = found.algorithm();
        let firmware = over(pcrs, bank, 0..8)?;
        if firmware == found {
            return Ok(Form::Firmware(bank));
        }
        if bank != HashAlgorithm::Sha1 && over(pcrs, bank, 0..10)? == found {
            return Ok(Form::FirmwareAndLoader(bank));
        }
        Err(ImaError::BootAggregateMismatch { found })
    }
}

fn over(pcrs: &PcrValues, bank: HashAlgorithm, indices: std::ops::Range<u8>) -> Result<Digest, ImaError> {
    let mut hasher = Hasher::new(bank);
    for pcr in indices.filter_map(PcrIndex::new) {
        let value = pcrs.get(bank, pcr).ok_or(ImaError::BootAggregateNotQuoted { bank, pcr })?;
        hasher.update(value.as_bytes());
    }
    Ok(hasher.finish())
}
