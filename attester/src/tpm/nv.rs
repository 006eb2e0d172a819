//! Certificates that the TPM's vendor left in NV memory.

use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::NvAuth;

use super::TpmError;
use super::device::{Device, Failure, NO_SESSION, Object, PASSWORD};
use super::identity;
use super::response::Class;

/// A vendor's certificate chain may span several indices of this range (EK Credential Profile 2.5, 2.2.1.6).
const CHAIN: std::ops::RangeInclusive<u32> = 0x01c0_0100..=0x01c0_01ff;

/// The certificate at an index, without what vendors put before and after it; `None` where there is none.
pub(super) fn certificate(device: &Device, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
    // Asked for first: a TPM answers a read of an index that does not exist with an error, and libtss2 logs it.
    if !indices(device, index)?.contains(&index) {
        return Ok(None);
    }
    let bytes = read(device, index)?;
    Ok(certificates(&bytes).next().map(<[u8]>::to_vec))
}

/// The certificates between the EK certificates and their root, where the vendor left them; at most `limit`.
pub(super) fn chain(device: &Device, limit: usize) -> Result<Vec<Vec<u8>>, TpmError> {
    let mut bytes = Vec::new();
    for index in indices(device, *CHAIN.start())?.into_iter().filter(|index| CHAIN.contains(index)) {
        bytes.extend(read(device, index)?);
    }
    Ok(certificates(&bytes).take(limit).map(<[u8]>::to_vec).collect())
}

fn indices(device: &Device, first: u32) -> Result<Vec<u32>, TpmError> {
    Ok(device.handles(first)?.into_iter().map(u32::from).collect())
}

/// The whole content of an index.
fn read(device: &Device, index: u32) -> Result<Vec<u8>, TpmError> {
    /// TPM_PT_NV_BUFFER_MAX.
    const NV_BUFFER_MAX: u32 = 0x12c;
    /// What each TPM takes at once where it does not say: the least that a PC Client TPM has to.
    const CHUNK: u16 = 512;

    let handle = NvIndexTpmHandle::new(index)
        .map_err(|error| TpmError::Stack { operation: "NV index", detail: error.to_string() })?;
    let object = device.persistent(TpmHandle::NvIndex(handle))?;
    let nv = NvIndexHandle::from(object.handle());
    let (public, _name) =
        device.run("TPM2_NV_ReadPublic", NO_SESSION, |context| context.nv_read_public(nv))?;
    let (Ok(size), attributes) = (u16::try_from(public.data_size()), public.attributes()) else {
        return Err(TpmError::Inconsistent("an NV index is longer than TPM 2.0 allows"));
    };
    if !attributes.written() {
        return Ok(Vec::new());
    }
    // By the index's own empty password, or by the owner's. An index without noDA is read as the owner first: like a
    // key it would bring the TPM nearer to lockout with each power cut.
    let by_index = attributes.auth_read().then_some(NvAuth::NvIndex(nv));
    let by_owner = attributes.owner_read().then_some(NvAuth::Owner);
    let ways = if attributes.no_da() { [by_index, by_owner] } else { [by_owner, by_index] };
    let chunk = identity::property(device, NV_BUFFER_MAX)?.and_then(|max| u16::try_from(max).ok());
    let chunk = chunk.filter(|chunk| *chunk > 0).unwrap_or(CHUNK);

    let mut refusal = None;
    for way in ways.into_iter().flatten() {
        match read_as(device, &object, way, size, chunk) {
            Ok(bytes) => return Ok(bytes),
            Err(failure) if failure.class == Class::Authorization => refusal = Some(failure),
            Err(failure) => return Err(failure.into()),
        }
    }
    match refusal {
        Some(failure) => Err(failure.into()),
        // Only the platform or a policy may read it: as if it were not there.
        None => Ok(Vec::new()),
    }
}

fn read_as(
    device: &Device,
    object: &Object<'_>,
    way: NvAuth,
    size: u16,
    chunk: u16,
) -> Result<Vec<u8>, Failure> {
    let nv = NvIndexHandle::from(object.handle());
    let mut bytes = Vec::with_capacity(usize::from(size));
    let mut offset = 0;
    while offset < size {
        let length = chunk.min(size - offset);
        let part =
            device.run("TPM2_NV_Read", PASSWORD, |context| context.nv_read(way, nv, length, offset))?;
        bytes.extend_from_slice(part.value());
        offset += length;
    }
    Ok(bytes)
}

/// The DER certificates at the front of `bytes`, one after the other, until something is none.
///
/// An index may be longer than its certificate (padding of zeros or ones), and may begin with the header of TPM 1.2's
/// TCG_PCCLIENT_STORED_CERT (PC Client Implementation 1.21, 7.4.1): tag 0x1001, type, length, tag 0x1002.
fn certificates(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = match bytes {
        [0x10, 0x01, _, _, _, 0x10, 0x02, rest @ ..] | [0x10, 0x01, _, _, _, rest @ ..] => rest,
        other => other,
    };
    let mut left = bytes;
    std::iter::from_fn(move || {
        let (certificate, rest) = left.split_at_checked(der_length(left)?)?;
        left = rest;
        Some(certificate)
    })
}

/// The length of the DER SEQUENCE at the front, header included.
fn der_length(bytes: &[u8]) -> Option<usize> {
    const SEQUENCE: u8 = 0x30;
    let (header, length) = match *bytes {
        // A certificate is longer than what the short form can say.
        [SEQUENCE, 0x81, a, ..] => (3, usize::from(a)),
        [SEQUENCE, 0x82, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
        _ => return None,
    };
    Some(header + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(length: u8) -> Vec<u8> {
        let mut der = vec![0x30, 0x81, length];
        der.extend(std::iter::repeat_n(0xab, usize::from(length)));
        der
    }

    #[test]
    fn certificate_is_cut_out_of_headers_and_padding() {
        let der = sequence(200);
        let long = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        for (stored, expected, case) in [
            (der.clone(), vec![&der], "as it is"),
            ([&der[..], &[0; 37]].concat(), vec![&der], "zeros after it"),
            ([&der[..], &[0xff; 37]].concat(), vec![&der], "ones after it"),
            ([&[0x10, 0x01, 0, 0, 205, 0x10, 0x02][..], &der].concat(), vec![&der], "full header"),
            ([&[0x10, 0x01, 0, 0, 203][..], &der].concat(), vec![&der], "short header"),
            ([&der[..], &long].concat(), vec![&der, &long], "two in a row"),
            (vec![0xff; 64], vec![], "erased"),
            (vec![], vec![], "empty"),
            (der[..150].to_vec(), vec![], "cut short"),
            (vec![0x30, 0x82], vec![], "no length"),
            (vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff], vec![], "longer than any certificate"),
        ] {
            let found: Vec<_> = certificates(&stored).collect();
            assert_eq!(found, expected, "{case}");
        }
    }
}
