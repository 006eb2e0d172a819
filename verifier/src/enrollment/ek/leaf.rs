//! The EK certificate: what it says of the TPM, and the rules that an EK's certificate follows.

use std::fmt;

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, Tag};
use rootbound_common::clock::Timestamp;
use rootbound_common::tpm::{KeyParameters, Public};

use super::asn1::{MalformedCertificate, context, reader, value};
use super::certificate::Certificate;
use super::error::EndorsementError;
use super::extensions::KeyUsage;
use super::name::printable;

/// tcg-kp-EKCertificate (TCG EK Credential Profile 2.5, 3.2.16).
pub(super) const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");

/// What an EK certificate says. Its texts hold no control characters and are bounded.
#[derive(Clone, PartialEq, Eq)]
pub struct EkCertificate {
    der: Vec<u8>,
    subject: String,
    issuer: String,
    serial: String,
    not_before: Timestamp,
    not_after: Timestamp,
    manufacturer: Option<String>,
    model: Option<String>,
    version: Option<String>,
}

impl EkCertificate {
    pub(super) fn describe(certificate: &Certificate) -> Result<Self, MalformedCertificate> {
        let mut described = Self {
            der: certificate.der.clone(),
            subject: certificate.subject.to_string(),
            issuer: certificate.issuer.to_string(),
            serial: data_encoding::HEXLOWER.encode(&certificate.serial),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            manufacturer: None,
            model: None,
            version: None,
        };
        if let Some(names) = &certificate.extensions.subject_alternative_name {
            described.take_tpm_attributes(names)?;
        }
        Ok(described)
    }

    /// The certificate, the very bytes that were signed.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject, as RFC 4514 prints names; most vendors leave it empty.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The issuer, as RFC 4514 prints names.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The serial number, in hex.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// From when on it is valid.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Until when it is valid; 9999-12-31T23:59:59Z is "no end" (RFC 5280, 4.1.2.5).
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// tpmManufacturer, `id:` and the vendor id in hex (EK Credential Profile, 3.1.2).
    #[must_use]
    pub fn manufacturer(&self) -> Option<&str> {
        self.manufacturer.as_deref()
    }

    /// tpmModel.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// tpmVersion, `id:` and the firmware version in hex.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Reads GeneralNames { directoryName { tpmManufacturer, tpmModel, tpmVersion } }, in one RDN or in several.
    fn take_tpm_attributes(&mut self, names: &[u8]) -> Result<(), MalformedCertificate> {
        const WHAT: &str = "subjectAltName";
        const MANUFACTURER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.1");
        const MODEL: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.2");
        const VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.3");
        let malformed = || MalformedCertificate::NotDer(WHAT);
        let mut outer = reader(names, WHAT)?;
        let mut general_names = reader(value(&mut outer, Tag::Sequence, WHAT)?, WHAT)?;
        while !general_names.is_finished() {
            let general_name = AnyRef::decode(&mut general_names).map_err(|_| malformed())?;
            if der::Tagged::tag(&general_name) != context(4) {
                continue;
            }
            let mut directory_name = reader(general_name.value(), WHAT)?;
            let mut rdns = reader(value(&mut directory_name, Tag::Sequence, WHAT)?, WHAT)?;
            while !rdns.is_finished() {
                let mut attributes = reader(value(&mut rdns, Tag::Set, WHAT)?, WHAT)?;
                while !attributes.is_finished() {
                    let mut attribute = reader(value(&mut attributes, Tag::Sequence, WHAT)?, WHAT)?;
                    let id = ObjectIdentifier::decode(&mut attribute).map_err(|_| malformed())?;
                    let text = AnyRef::decode(&mut attribute).map_err(|_| malformed())?;
                    let place = match id {
                        MANUFACTURER => &mut self.manufacturer,
                        MODEL => &mut self.model,
                        VERSION => &mut self.version,
                        _ => continue,
                    };
                    *place = Some(printable(&String::from_utf8_lossy(text.value())));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for EkCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EkCertificate")
            .field("issuer", &self.issuer)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

/// Checks what only the certificate of an EK has to be (TCG EK Credential Profile 2.5, 3.2):
///
/// 1. it is no CA's
/// 2. extendedKeyUsage holds tcg-kp-EKCertificate: a TPM vendor's CA signs other things too. All of the vendors' EK
///    certificates that were at hand have it; one without needs the operator's waiver
/// 3. keyUsage, where present, allows keyEncipherment for RSA, keyAgreement for ECC (some vendors say keyEncipherment
///    there too): the certificate of a signing key under the same CA is no EK's
/// 4. no critical extension is unknown
pub(super) fn check(certificate: &Certificate, public: &Public) -> Result<(), EndorsementError> {
    let extensions = &certificate.extensions;
    if extensions.authority {
        return Err(EndorsementError::AuthorityAsLeaf);
    }
    match &extensions.extended_key_usage {
        None => return Err(EndorsementError::NoPurpose),
        Some(purposes) if !purposes.contains(&EK_CERTIFICATE) => return Err(EndorsementError::WrongPurpose),
        Some(_) => {}
    }
    if let Some(usage) = extensions.key_usage {
        let allowed = match public.parameters() {
            KeyParameters::Rsa { .. } => KeyUsage::KEY_ENCIPHERMENT,
            KeyParameters::Ecc { .. } => KeyUsage::KEY_AGREEMENT | KeyUsage::KEY_ENCIPHERMENT,
        };
        if !usage.allows(allowed) {
            return Err(EndorsementError::WrongKeyUsage);
        }
    }
    if let Some(id) = extensions.unknown_critical {
        return Err(EndorsementError::UnknownCriticalExtension { id, of: certificate.called() });
    }
    Ok(())
}
