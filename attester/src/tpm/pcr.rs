//! PCR values and banks.

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrSet, PcrValues};
use tss_esapi::constants::CapabilityType;
use tss_esapi::structures::{CapabilityData, PcrSelectionList};
use tss_esapi::tss2_esys::{TPML_PCR_SELECTION, TPMS_PCR_SELECTION};

use super::TpmError;
use super::device::{Device, NO_SESSION};

/// The values of the selected PCRs, as far as their banks are active.
///
/// TPM2_PCR_Read gives at most eight values per command, so PCRs may move in between: nothing says that these values
/// were there at one moment, until a quote's digest fits them.
pub(super) fn read(device: &Device, selection: &PcrSelection) -> Result<PcrValues, TpmError> {
    let mut values = PcrValues::default();
    for (bank, pcrs) in selection.banks() {
        let mut left = pcrs;
        while !left.is_empty() {
            let read = read_some(device, bank, left, &mut values)?;
            if read.is_empty() {
                // The bank is not active, or these PCRs are not in it.
                break;
            }
            left = left.iter().filter(|index| !read.contains(*index)).collect();
        }
    }
    Ok(values)
}

fn read_some(
    device: &Device,
    bank: HashAlgorithm,
    wanted: PcrSet,
    values: &mut PcrValues,
) -> Result<PcrSet, TpmError> {
    /// TPML_DIGEST holds eight.
    const AT_ONCE: usize = 8;
    let wanted: PcrSet = wanted.iter().take(AT_ONCE).collect();
    let list = to_tss(&PcrSelection::of_bank(bank, wanted))?;
    let (_counter, read, digests) =
        device.run("TPM2_PCR_Read", NO_SESSION, |context| context.pcr_read(list.clone()))?;
    let read =
        from_tss(read).into_iter().find(|(other, _)| *other == bank).map_or(PcrSet::EMPTY, |(_, set)| set);
    if !read.is_subset_of(wanted) || digests.value().len() != read.iter().count() {
        return Err(TpmError::Inconsistent("TPM2_PCR_Read gives other PCRs than asked for"));
    }
    for (index, digest) in read.iter().zip(digests.value()) {
        let value = Digest::from_slice(bank, digest.value())
            .ok_or(TpmError::Inconsistent("TPM2_PCR_Read gives a value that does not fit its bank"))?;
        values.insert(index, value);
    }
    Ok(read)
}

/// The banks that have PCRs, in the TPM's order; those of hashes that this system does not know are left out.
pub(super) fn active_banks(device: &Device) -> Result<Vec<HashAlgorithm>, TpmError> {
    let (data, _more) = device.run("TPM2_GetCapability", NO_SESSION, |context| {
        context.get_capability(CapabilityType::AssignedPcr, 0, 1)
    })?;
    let CapabilityData::AssignedPcr(banks) = data else {
        return Err(TpmError::Inconsistent("TPM2_GetCapability gives another capability than asked for"));
    };
    Ok(from_tss(banks).into_iter().filter(|(_, pcrs)| !pcrs.is_empty()).map(|(bank, _)| bank).collect())
}

/// TPML_PCR_SELECTION in the order of `selection`. tss-esapi's own builder keeps banks in a `HashMap`, so that their
/// order, which a quote signs, would differ from run to run.
pub(super) fn to_tss(selection: &PcrSelection) -> Result<PcrSelectionList, TpmError> {
    let mut list = TPML_PCR_SELECTION::default();
    for ((bank, pcrs), slot) in selection.banks().zip(list.pcrSelections.iter_mut()) {
        let bitmap = pcrs.iter().fold(0u32, |bitmap, index| bitmap | 1 << index.get());
        *slot = TPMS_PCR_SELECTION { hash: bank.tpm_id(), sizeofSelect: 3, pcrSelect: bitmap.to_le_bytes() };
        list.count += 1;
    }
    PcrSelectionList::try_from(list)
        .map_err(|error| TpmError::Stack { operation: "PCR selection", detail: error.to_string() })
}

fn from_tss(list: PcrSelectionList) -> Vec<(HashAlgorithm, PcrSet)> {
    let list = TPML_PCR_SELECTION::from(list);
    let count = usize::try_from(list.count).unwrap_or(usize::MAX);
    let known = list.pcrSelections.iter().take(count).filter_map(|selection| {
        let bank = HashAlgorithm::from_tpm(selection.hash, "PCR bank").ok()?;
        let bitmap = u32::from_le_bytes(selection.pcrSelect);
        let pcrs =
            (0..PcrIndex::COUNT).filter(|index| bitmap & 1 << index != 0).filter_map(PcrIndex::new).collect();
        Some((bank, pcrs))
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_banks_is_kept() {
        let pcrs =
            |indices: &[u8]| indices.iter().filter_map(|index| PcrIndex::new(*index)).collect::<PcrSet>();
        let banks = [
            (HashAlgorithm::Sha384, pcrs(&[0, 8, 23])),
            (HashAlgorithm::Sha1, pcrs(&[])),
            (HashAlgorithm::Sha512, pcrs(&[16])),
            (HashAlgorithm::Sha256, pcrs(&[7, 14])),
        ];
        let selection = PcrSelection::of_banks(banks).unwrap();
        assert_eq!(from_tss(to_tss(&selection).unwrap()), banks);
    }
}
