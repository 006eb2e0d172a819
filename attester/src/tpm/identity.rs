//! What a TPM says about itself.

use std::time::Duration;

use rootbound_common::tpm::{Curve, HashAlgorithm};
use serde::Serialize;
use tss_esapi::constants::CapabilityType;
use tss_esapi::structures::CapabilityData;
use tss_esapi::tss2_esys::TPM2_ECC_CURVE;

use super::device::{Device, NO_SESSION};
use super::response::Class;
use super::{TpmError, pcr};

/// What a TPM says about itself: for people and logs, proved by nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TpmIdentity {
    /// Vendor id of the TCG's registry: `IFX`, `STM`, `IBM`.
    pub manufacturer: String,
    /// Model, in the vendor's words.
    pub model: String,
    /// Firmware version, the vendor's numbering.
    pub firmware: String,
    /// Revision of the TPM 2.0 library specification, as in `1.59`.
    pub specification: String,
    /// PCR banks that have PCRs.
    pub active_banks: Vec<HashAlgorithm>,
    /// NIST P-256 is supported.
    pub p256: bool,
    /// NIST P-384 is supported.
    pub p384: bool,
    /// How far the TPM is from lockout.
    pub lockout: Lockout,
}

/// The state of the dictionary-attack protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lockout {
    /// Failed authorizations that count, unclean stops among them.
    pub failed_tries: u32,
    /// At this many the TPM locks.
    pub limit: u32,
    /// After so long without a failure one is forgotten.
    #[serde(with = "humantime_serde")]
    pub recovery: Duration,
}

/// TPM_PT (Part 2, table 23).
mod property {
    pub(super) const REVISION: u32 = 0x102;
    pub(super) const MANUFACTURER: u32 = 0x105;
    pub(super) const VENDOR_STRING: [u32; 4] = [0x106, 0x107, 0x108, 0x109];
    pub(super) const FIRMWARE: [u32; 2] = [0x10b, 0x10c];
    pub(super) const LOCKOUT_COUNTER: u32 = 0x20e;
    pub(super) const MAX_AUTH_FAIL: u32 = 0x20f;
    pub(super) const LOCKOUT_INTERVAL: u32 = 0x210;
}

/// Asks the TPM who it is.
pub(super) fn identify(device: &Device) -> Result<TpmIdentity, TpmError> {
    let value = |tag: u32| property(device, tag).map(Option::unwrap_or_default);
    let mut model = String::new();
    for tag in property::VENDOR_STRING {
        model.push_str(&text(value(tag)?));
    }
    let [first, second] = property::FIRMWARE;
    let (first, second) = (value(first)?, value(second)?);
    let revision = value(property::REVISION)?;
    Ok(TpmIdentity {
        manufacturer: text(value(property::MANUFACTURER)?).trim().to_owned(),
        model: model.trim().to_owned(),
        firmware: format!("{}.{}.{}.{}", first >> 16, first & 0xffff, second >> 16, second & 0xffff),
        specification: format!("{}.{:02}", revision / 100, revision % 100),
        active_banks: pcr::active_banks(device)?,
        p256: has_curve(device, Curve::P256)?,
        p384: has_curve(device, Curve::P384)?,
        lockout: Lockout {
            failed_tries: value(property::LOCKOUT_COUNTER)?,
            limit: value(property::MAX_AUTH_FAIL)?,
            recovery: Duration::from_secs(u64::from(value(property::LOCKOUT_INTERVAL)?)),
        },
    })
}

/// Whether the TPM has a curve.
///
/// Asked for one: tss-esapi refuses a whole list over a single curve that it does not know, such as Curve25519.
pub(super) fn has_curve(device: &Device, curve: Curve) -> Result<bool, TpmError> {
    // The answer is the first curve from this one on.
    let answer = device.run("TPM2_GetCapability", NO_SESSION, |context| {
        context.get_capability(CapabilityType::EccCurves, u32::from(curve.tpm_id()), 1)
    });
    match answer {
        Ok((CapabilityData::EccCurves(curves), _more)) => {
            Ok(curves.into_inner().into_iter().any(|found| TPM2_ECC_CURVE::from(found) == curve.tpm_id()))
        }
        Ok(_) => Err(TpmError::Inconsistent("TPM2_GetCapability gives another capability than asked for")),
        // A TPM without ECC knows no such capability; the next curve may be one that tss-esapi does not know.
        Err(failure) if matches!(failure.class, Class::Unsupported | Class::Other) => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

/// One property; `None` where the TPM does not have it.
///
/// Asked one by one: tss-esapi refuses a whole list over a single property that it does not know. Its own
/// `get_tpm_property` keeps values forever, the lockout counter too.
pub(super) fn property(device: &Device, tag: u32) -> Result<Option<u32>, TpmError> {
    let (data, _more) = device.run("TPM2_GetCapability", NO_SESSION, |context| {
        context.get_capability(CapabilityType::TpmProperties, tag, 1)
    })?;
    let CapabilityData::TpmProperties(properties) = data else {
        return Err(TpmError::Inconsistent("TPM2_GetCapability gives another capability than asked for"));
    };
    Ok(properties
        .iter()
        .find(|property| u32::from(property.property()) == tag)
        .map(|property| property.value()))
}

/// Four characters of a property, those of them that print.
fn text(value: u32) -> String {
    value.to_be_bytes().into_iter().map(char::from).filter(|c| c.is_ascii_graphic() || *c == ' ').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_in_a_vendor_string_is_left_out() {
        assert_eq!(text(0x4942_4d00), "IBM");
        assert_eq!(text(0x1b5b_3241), "[2A");
        assert_eq!(text(0x5357_2054), "SW T");
    }
}
