//! Endorsement keys: who made this TPM, and the proof that an AK lives in it.

use std::fmt;

use der::{Decode, Encode};
use rootbound_common::crypto::subject_public_key_info;
use rootbound_common::tpm::{Curve, Public};
use serde::{Deserialize, Serialize};
use spki::SubjectPublicKeyInfoRef;
use tss_esapi::handles::AuthHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest as TssDigest, DigestList, EncryptedSecret, IdObject};
use x509_cert::Certificate;
use zeroize::Zeroizing;

use super::device::{Device, NO_SESSION, Object, PASSWORD, PolicySession};
use super::keys::{KeyRing, Saved, create_primary, from_tss, stack};
use super::response::Class;
use super::{AkBlob, TpmError, identity, nv, template};

/// The kinds of EK that the TCG EK Credential Profile has templates for and that TPMs have certificates of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EkKind {
    /// RSA-2048, template L-1.
    #[serde(rename = "rsa_2048")]
    Rsa2048,
    /// ECC NIST P-256, template L-2.
    #[serde(rename = "ecc_p256")]
    EccP256,
    /// ECC NIST P-384, template H-3.
    #[serde(rename = "ecc_p384")]
    EccP384,
}

impl EkKind {
    /// All kinds, the most widespread first: inventories usually list the hash of the RSA key.
    pub const ALL: [Self; 3] = [Self::Rsa2048, Self::EccP256, Self::EccP384];

    /// NV index of the certificate (EK Credential Profile 2.5, 2.2.1.4 and 2.2.1.5).
    const fn certificate_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01c0_0002,
            Self::EccP256 => 0x01c0_000a,
            Self::EccP384 => 0x01c0_0016,
        }
    }

    const fn curve(self) -> Option<Curve> {
        match self {
            Self::Rsa2048 => None,
            Self::EccP256 => Some(Curve::P256),
            Self::EccP384 => Some(Curve::P384),
        }
    }
}

impl fmt::Display for EkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa2048 => "RSA-2048",
            Self::EccP256 => "ECC P-256",
            Self::EccP384 => "ECC P-384",
        })
    }
}

/// An EK with what its vendor says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndorsementKey {
    /// Which template it is of.
    pub kind: EkKind,
    /// Its public area.
    pub public: Public,
    /// Its certificate from NV, the original bytes; not checked here.
    pub certificate: Option<Vec<u8>>,
    /// Certificates above it that the vendor left in NV.
    pub intermediates: Vec<Vec<u8>>,
}

impl EndorsementKey {
    /// More certificates than any vendor's chain has below the root.
    const MAX_INTERMEDIATES: usize = 5;
}

/// The EK of a kind, with its certificate where NV has one.
pub(super) fn read(device: &Device, ring: &mut KeyRing, kind: EkKind) -> Result<EndorsementKey, TpmError> {
    let certificate = nv::certificate(device, kind.certificate_index())?;
    let key = load(device, ring, kind, certificate.as_deref())?;
    let public = public_of(device, &key)?;
    let intermediates = match certificate {
        Some(_) => nv::chain(device, EndorsementKey::MAX_INTERMEDIATES)?,
        None => Vec::new(),
    };
    Ok(EndorsementKey { kind, public, certificate, intermediates })
}

/// The first kind that has a certificate, else the first that the TPM supports.
pub(super) fn preferred(device: &Device, ring: &mut KeyRing) -> Result<EndorsementKey, TpmError> {
    let mut first = None;
    for kind in EkKind::ALL {
        if !is_supported(device, kind)? {
            continue;
        }
        if nv::certificate(device, kind.certificate_index())?.is_some() {
            return read(device, ring, kind);
        }
        first = first.or(Some(kind));
    }
    read(device, ring, first.unwrap_or(EkKind::Rsa2048))
}

/// TPM2_ActivateCredential: gives the secret if it was wrapped for this EK and this AK.
pub(super) fn activate(
    device: &Device,
    ring: &mut KeyRing,
    kind: EkKind,
    ak: &AkBlob,
    credential_blob: &[u8],
    encrypted_secret: &[u8],
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    const TOO_LONG: TpmError = TpmError::InvalidArgument("a credential is longer than any TPM takes");
    let credential_blob = IdObject::try_from(credential_blob).map_err(|_| TOO_LONG)?;
    let encrypted_secret = EncryptedSecret::try_from(encrypted_secret).map_err(|_| TOO_LONG)?;
    let ak = ring.load_ak(device, ak)?;
    let certificate = nv::certificate(device, kind.certificate_index())?;
    let ek = load(device, ring, kind, certificate.as_deref())?;
    let session = authorize(device, kind)?;
    // The AK in the admin role, by its empty password; the EK in the user role, by policy.
    let sessions = (Some(AuthSession::Password), Some(session.authorization()), None);
    let secret = device.run("TPM2_ActivateCredential", sessions, |context| {
        context.activate_credential(ak.key(), ek.key(), credential_blob.clone(), encrypted_secret.clone())
    });
    let failure = match secret {
        Ok(secret) => return Ok(Zeroizing::new(secret.value().to_vec())),
        Err(failure) => failure,
    };
    match failure.class {
        // 0x1df: the HMAC does not fit. Another key's size, no OAEP, a point off the curve: size, value, point.
        Class::Integrity | Class::Other => Err(TpmError::ForeignCredential { code: failure.code() }),
        // libtpms says TPM_RC_FAILURE of a secret that is no OAEP, without being in failure mode: it goes on working.
        Class::FailureMode
            if device.run("TPM2_GetRandom", NO_SESSION, |context| context.get_random(1)).is_ok() =>
        {
            Err(TpmError::ForeignCredential { code: failure.code() })
        }
        _ => Err(failure.into()),
    }
}

/// A session that may use the EK: PolicySecret(endorsement), for the high range as a branch of PolicyB.
///
/// The high-range key would also take its empty password, but EKs lack noDA, and a password would count towards lockout
/// at the next power cut.
fn authorize(device: &Device, kind: EkKind) -> Result<PolicySession<'_>, TpmError> {
    let hash = match kind {
        EkKind::Rsa2048 | EkKind::EccP256 => HashingAlgorithm::Sha256,
        EkKind::EccP384 => HashingAlgorithm::Sha384,
    };
    let session = device.policy_session(hash)?;
    device.run("TPM2_PolicySecret", PASSWORD, |context| {
        context.policy_secret(
            session.policy(),
            AuthHandle::Endorsement,
            Default::default(),
            Default::default(),
            Default::default(),
            None,
        )
    })?;
    if kind == EkKind::EccP384 {
        let mut branches = DigestList::new();
        for branch in &template::EK_POLICY_B_BRANCHES_SHA384 {
            let branch =
                TssDigest::try_from(branch.as_slice()).map_err(|error| stack("TPM2_PolicyOR", &error))?;
            branches.add(branch).map_err(|error| stack("TPM2_PolicyOR", &error))?;
        }
        device.run("TPM2_PolicyOR", NO_SESSION, |context| {
            context.policy_or(session.policy(), branches.clone())
        })?;
    }
    Ok(session)
}

/// The persistent key that the certificate is of, else the one that its template gives.
///
/// Deriving an RSA key takes a real TPM seconds, so the persistent one is worth a look. Without a certificate nothing
/// says that it is the template's own, and the node's id must not hang on an object that somebody may replace.
fn load<'d>(
    device: &'d Device,
    ring: &mut KeyRing,
    kind: EkKind,
    certificate: Option<&[u8]>,
) -> Result<Object<'d>, TpmError> {
    if let Some(certificate) = certificate
        && let Some(object) = persistent(device, kind, certificate)?
    {
        return Ok(object);
    }
    ring.load(device, Saved::Endorsement(kind), |_| {
        if !is_supported(device, kind)? {
            return Err(TpmError::NoEndorsementKey(kind));
        }
        create_primary(device, Hierarchy::Endorsement, &template::endorsement(kind)).map_err(|error| {
            match error {
                TpmError::Unsupported { .. } => TpmError::NoEndorsementKey(kind),
                other => other,
            }
        })
    })
}

fn persistent<'d>(
    device: &'d Device,
    kind: EkKind,
    certificate: &[u8],
) -> Result<Option<Object<'d>>, TpmError> {
    /// Persistent handles for EKs (Registry of Reserved TPM 2.0 Handles, 2.3.1).
    const RANGE: std::ops::RangeInclusive<u32> = 0x8101_0000..=0x8101_ffff;
    let template = template::endorsement(kind);
    for handle in device.handles(*RANGE.start())? {
        if !RANGE.contains(&u32::from(handle)) {
            continue;
        }
        let object = device.persistent(handle)?;
        // Somebody may have put a kind of key here that our strict parser does not know: then it is none of ours.
        let Ok(public) = public_of(device, &object) else { continue };
        if public.as_bytes().starts_with(template.prefix()) && is_certified(&public, certificate) {
            return Ok(Some(object));
        }
    }
    Ok(None)
}

fn is_supported(device: &Device, kind: EkKind) -> Result<bool, TpmError> {
    match kind.curve() {
        Some(curve) => identity::has_curve(device, curve),
        // Every PC Client TPM has RSA-2048; one that does not says so at creation.
        None => Ok(true),
    }
}

fn public_of(device: &Device, object: &Object<'_>) -> Result<Public, TpmError> {
    let (public, _name, _qualified) =
        device.run("TPM2_ReadPublic", NO_SESSION, |context| context.read_public(object.key()))?;
    from_tss(&public)
}

/// Whether a certificate has this key. The bits are compared, not the algorithm: some vendors write RSAES-OAEP there.
fn is_certified(public: &Public, certificate: &[u8]) -> bool {
    let certified = || {
        let certificate = Certificate::from_der(certificate).ok()?;
        certificate.tbs_certificate().subject_public_key_info().to_der().ok()
    };
    let (Some(certified), Ok(ours)) = (certified(), subject_public_key_info(public)) else { return false };
    let (Ok(certified), Ok(ours)) =
        (SubjectPublicKeyInfoRef::from_der(&certified), SubjectPublicKeyInfoRef::from_der(&ours))
    else {
        return false;
    };
    certified.subject_public_key == ours.subject_public_key
}
