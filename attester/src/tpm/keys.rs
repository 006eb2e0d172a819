//! Keys in use: the storage root, the AK, credential keys; loaded from saved contexts, or from their blobs.

use std::collections::HashMap;

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{Curve, Public};
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{Private, Public as TssPublic};
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::utils::TpmsContext;

use super::device::{Device, Failure, Object, PASSWORD};
use super::owner::random;
use super::response::Class;
use super::template::{self, AK_SEED, Template};
use super::{AkBlob, CredentialKeyBlob, EkKind, KeyBlob, TpmError, identity};

/// What an AK signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AkAlgorithm {
    /// ECDSA over P-256 with SHA-256.
    EcdsaP256,
    /// RSASSA-PKCS1-v1_5 with RSA-2048 and SHA-256, for TPMs without the curve.
    RsaSsa2048,
}

/// Saved contexts, in memory only: loading one is several times as fast as loading a blob under its parent, and
/// creating a primary key takes up to seconds on a real TPM. They end with the boot; blobs do not.
#[derive(Default)]
pub(super) struct KeyRing {
    saved: HashMap<Saved, TpmsContext>,
}

/// What a saved context is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Saved {
    StorageRoot,
    Endorsement(EkKind),
    Blob(Digest),
}

impl KeyRing {
    /// Some kilobytes each. In use are the root, an EK, an AK and two credential keys at most (the old one
    /// serves until the new one is certified); past this, old ones are forgotten and loaded from blobs again.
    const MAX_SAVED: usize = 8;

    /// Loads a key from its saved context, else by `load`, and saves its context then.
    pub(super) fn load<'d>(
        &mut self,
        device: &'d Device,
        what: Saved,
        load: impl FnOnce(&mut Self) -> Result<Object<'d>, TpmError>,
    ) -> Result<Object<'d>, TpmError> {
        if let Some(saved) = self.saved.get(&what) {
            match device.load_context(saved) {
                Ok(object) => return Ok(object),
                // After a reset: 0x1df (integrity); other TPMs say other things, so any refusal is answered by the blob.
                Err(Failure {
                    class: Class::Integrity | Class::Gone | Class::Unsupported | Class::Other,
                    ..
                }) => {
                    self.saved.remove(&what);
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        let object = load(self)?;
        self.save(device, what, &object);
        Ok(object)
    }

    fn save(&mut self, device: &Device, what: Saved, object: &Object<'_>) {
        if self.saved.len() >= Self::MAX_SAVED {
            self.saved.clear();
        }
        // A resource manager need not offer this; blobs do without.
        if let Ok(saved) = device.save_context(object) {
            self.saved.insert(what, saved);
        }
    }

    /// Has the TPM derive an AK again.
    pub(super) fn load_ak<'d>(&mut self, device: &'d Device, ak: &AkBlob) -> Result<Object<'d>, TpmError> {
        self.load(device, Saved::Blob(ak.fingerprint()), |_| {
            let foreign = TpmError::ForeignKey { code: None };
            let Ok(seed) = <[u8; AK_SEED]>::try_from(ak.private()) else { return Err(foreign) };
            let is_of = |template: &Template| ak.public().as_bytes().starts_with(template.prefix());
            let templates =
                [AkAlgorithm::EcdsaP256, AkAlgorithm::RsaSsa2048].map(|kind| template::ak(kind, &seed));
            let Some(template) = templates.iter().find(|template| is_of(template)) else {
                return Err(foreign);
            };
            let (object, public) = derive(device, Hierarchy::Endorsement, template)?;
            if from_tss(&public)? == *ak.public() { Ok(object) } else { Err(foreign) }
        })
    }

    /// Loads a credential key under its parent.
    pub(super) fn load_credential_key<'d>(
        &mut self,
        device: &'d Device,
        blob: &CredentialKeyBlob,
    ) -> Result<Object<'d>, TpmError> {
        self.load(device, Saved::Blob(blob.fingerprint()), |ring| {
            let public = to_tss(blob.public().as_bytes())?;
            let private = Private::try_from(blob.private()).map_err(|error| stack("TPM2_Load", &error))?;
            let parent = ring.storage_root(device)?;
            let loaded = device.run("TPM2_Load", PASSWORD, |context| {
                context.load(parent.key(), private.clone(), public.clone())
            });
            match loaded {
                Ok(handle) => Ok(device.guard(handle.into())),
                Err(failure) if failure.class == Class::Integrity => {
                    Err(TpmError::ForeignKey { code: Some(failure.code()) })
                }
                Err(failure) => Err(failure.into()),
            }
        })
    }

    /// The parent of credential keys: the storage root key, derived from the owner seed, the same each time until the TPM
    /// is cleared. Other programs that read our key files derive the same.
    ///
    /// The persistent key 0x81000001, where there is one, is somebody else's: it may be of another template (Windows
    /// makes it RSA) or go away, and our blobs would go with it. Deriving costs a TPM up to half a second per boot.
    fn storage_root<'d>(&mut self, device: &'d Device) -> Result<Object<'d>, TpmError> {
        self.load(device, Saved::StorageRoot, |_| {
            let template = template::storage_root(identity::has_curve(device, Curve::P256)?);
            create_primary(device, Hierarchy::Owner, &template)
        })
    }

    /// Makes an AK; without a wish ECDSA P-256, or RSA-2048 on a TPM without that curve.
    pub(super) fn create_ak(
        &mut self,
        device: &Device,
        algorithm: Option<AkAlgorithm>,
    ) -> Result<AkBlob, TpmError> {
        let algorithm = match algorithm {
            Some(algorithm) => algorithm,
            None if identity::has_curve(device, Curve::P256)? => AkAlgorithm::EcdsaP256,
            None => AkAlgorithm::RsaSsa2048,
        };
        const OTHER: TpmError = TpmError::Inconsistent("TPM2_CreatePrimary gives another key than asked for");
        let seed = random(device, AK_SEED)?;
        let seed = <&[u8; AK_SEED]>::try_from(seed.as_slice()).map_err(|_| OTHER)?;
        let template = template::ak(algorithm, seed);
        let (object, public) = derive(device, Hierarchy::Endorsement, &template)?;
        let public = from_tss(&public)?;
        if !public.as_bytes().starts_with(template.prefix()) {
            return Err(OTHER);
        }
        let ak = AkBlob::from_parts(public.as_bytes(), seed).map_err(|_| OTHER)?;
        self.save(device, Saved::Blob(ak.fingerprint()), &object);
        Ok(ak)
    }

    /// Makes a key whose use needs the policy with this digest.
    pub(super) fn create_credential_key(
        &mut self,
        device: &Device,
        auth_policy: &[u8; 32],
    ) -> Result<CredentialKeyBlob, TpmError> {
        let parent = self.storage_root(device)?;
        let blob = create(device, &parent, &template::credential_key(auth_policy))?;
        CredentialKeyBlob::try_from(blob)
            .map_err(|_| TpmError::Inconsistent("TPM2_Create gives other attributes than asked for"))
    }
}

/// Makes a key under a parent.
fn create(device: &Device, parent: &Object<'_>, template: &Template) -> Result<KeyBlob, TpmError> {
    let public = to_tss(&template.to_bytes())?;
    let created = device.run("TPM2_Create", PASSWORD, |context| {
        context.create(parent.key(), public.clone(), None, None, None, None)
    })?;
    let public = from_tss(&created.out_public)?;
    if !public.as_bytes().starts_with(template.prefix()) {
        return Err(TpmError::Inconsistent("TPM2_Create gives another key than asked for"));
    }
    KeyBlob::from_parts(public.as_bytes(), created.out_private.value())
        .map_err(|_| TpmError::Inconsistent("TPM2_Create gives no key"))
}

/// Derives a primary key; the hierarchy's password has to be empty.
pub(super) fn create_primary<'d>(
    device: &'d Device,
    hierarchy: Hierarchy,
    template: &Template,
) -> Result<Object<'d>, TpmError> {
    derive(device, hierarchy, template).map(|(object, _)| object)
}

/// The same, with the public area of the key.
fn derive<'d>(
    device: &'d Device,
    hierarchy: Hierarchy,
    template: &Template,
) -> Result<(Object<'d>, TssPublic), TpmError> {
    let public = to_tss(&template.to_bytes())?;
    let created = device.run("TPM2_CreatePrimary", PASSWORD, |context| {
        context.create_primary(hierarchy, public.clone(), None, None, None, None)
    })?;
    Ok((device.guard(created.key_handle.into()), created.out_public))
}

/// A TPMT_PUBLIC for tss-esapi.
fn to_tss(public: &[u8]) -> Result<TssPublic, TpmError> {
    TssPublic::unmarshall(public).map_err(|error| stack("public area", &error))
}

/// A public area that the TPM gave, parsed as strictly as the verifier will.
pub(super) fn from_tss(public: &TssPublic) -> Result<Public, TpmError> {
    let bytes = public.marshall().map_err(|error| stack("public area", &error))?;
    Public::parse(&bytes)
        .map_err(|_| TpmError::Inconsistent("the TPM gives a public area that does not parse"))
}

pub(super) fn stack(operation: &'static str, error: &tss_esapi::Error) -> TpmError {
    TpmError::Stack { operation, detail: error.to_string() }
}
