//! Endorsement keys, and TPM2_ActivateCredential.

use std::fmt;

use aes::Aes128;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{
    KeyPair as RsaKeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::KeyPair as _;
use cfb_mode::Decryptor;
use cfb_mode::cipher::KeyIvInit;
use p256::ecdh::diffie_hellman;
use p256::elliptic_curve::Generate;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{PublicKey, SecretKey};
use rootbound_common::crypto::{hmac, kdfa, kdfe, subject_public_key_info};
use rootbound_common::tpm::{Attributes, Curve, HashAlgorithm, Name, Public, Reader, Symmetric};

use super::Template;
use super::key::modulus;

const HASH: HashAlgorithm = HashAlgorithm::Sha256;

/// PolicySecret(TPM_RH_ENDORSEMENT), the authPolicy of the low-range templates (TCG EK Credential Profile, B.3).
const POLICY_SECRET_ENDORSEMENT: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd,
    0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

enum Pair {
    P256(SecretKey),
    Rsa { oaep: OaepPrivateDecryptingKey },
}

/// An EK by a low-range template of the TCG EK Credential Profile (B.3.3 RSA-2048, B.3.4 P-256).
pub struct EndorsementKey {
    pair: Pair,
    /// TPMT_PUBLIC, which every statement's qualified signer goes back to.
    public_area: Vec<u8>,
}

impl EndorsementKey {
    /// A new P-256 EK.
    #[must_use]
    pub fn p256() -> Self {
        let secret = SecretKey::generate_from_rng(&mut rootbound_common::random::system());
        let point = secret.public_key().to_sec1_point(false);
        let (x, y) = point.as_bytes().get(1..).expect("a point").split_at(Curve::P256.size());
        let public_area = Self::template().ecc_public_area(Curve::P256, x, y);
        Self { pair: Pair::P256(secret), public_area }
    }

    /// A new RSA-2048 EK.
    #[must_use]
    pub fn rsa2048() -> Self {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("an RSA key");
        let pkcs8 = key.as_der().expect("PKCS#8");
        let pair = RsaKeyPair::from_pkcs8(pkcs8.as_ref()).expect("the same key");
        let public_area = Self::template().rsa_public_area(&modulus(pair.public_key().as_ref()));
        let oaep = OaepPrivateDecryptingKey::new(key).expect("an OAEP key");
        Self { pair: Pair::Rsa { oaep }, public_area }
    }

    /// The template, which both kinds share.
    #[must_use]
    pub fn template() -> Template {
        Template {
            name_algorithm: HASH,
            attributes: Attributes::FIXED_TPM
                .and(Attributes::FIXED_PARENT)
                .and(Attributes::SENSITIVE_DATA_ORIGIN)
                .and(Attributes::ADMIN_WITH_POLICY)
                .and(Attributes::RESTRICTED)
                .and(Attributes::DECRYPT),
            auth_policy: POLICY_SECRET_ENDORSEMENT.to_vec(),
            symmetric: Symmetric::AesCfb { key_bits: 128 },
            scheme: None,
        }
    }

    /// TPMT_PUBLIC.
    #[must_use]
    pub fn public_area(&self) -> Vec<u8> {
        self.public_area.clone()
    }

    /// The public area, parsed.
    #[must_use]
    pub fn public(&self) -> Public {
        Public::parse(&self.public_area()).expect("a public area that parses")
    }

    /// The Name, computed as a TPM does.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::of_public_area(HASH, &self.public_area())
    }

    /// DER SubjectPublicKeyInfo, whose hash is the node's id.
    #[must_use]
    pub fn subject_public_key_info(&self) -> Vec<u8> {
        subject_public_key_info(&self.public()).expect("a SubjectPublicKeyInfo")
    }

    /// TPM2_ActivateCredential for a loaded object of that Name (Part 3, 12.5; Part 1, 24): the secret, or nothing
    /// where the TPM would answer TPM_RC_INTEGRITY or TPM_RC_VALUE.
    ///
    /// `id_object` and `encrypted_secret` are the contents, without the outer TPM2B lengths.
    #[must_use]
    pub fn activate_credential(
        &self,
        name: &Name,
        id_object: &[u8],
        encrypted_secret: &[u8],
    ) -> Option<Vec<u8>> {
        let seed = self.seed(encrypted_secret)?;
        let mut reader = Reader::new(id_object);
        let integrity = reader.sized(HASH.size(), "integrity").ok()?;
        let encrypted = reader.rest();
        let mac_key = kdfa(HASH, &seed, b"INTEGRITY", &[], &[], 32);
        if hmac(HASH, &mac_key, &[encrypted, &name.to_bytes()]).as_bytes() != integrity {
            return None;
        }
        let key = kdfa(HASH, &seed, b"STORAGE", &name.to_bytes(), &[], 16);
        let mut plain = encrypted.to_vec();
        Decryptor::<Aes128>::new_from_slices(&key, &[0; 16]).ok()?.decrypt(&mut plain);
        let mut reader = Reader::new(&plain);
        let secret = reader.sized(HASH.size(), "secret").ok()?.to_vec();
        reader.finish("credential").ok()?;
        Some(secret)
    }

    fn seed(&self, encrypted_secret: &[u8]) -> Option<Vec<u8>> {
        match &self.pair {
            Pair::Rsa { oaep } => {
                let mut out = vec![0; oaep.min_output_size()];
                let label = b"IDENTITY\0";
                let seed =
                    oaep.decrypt(&OAEP_SHA256_MGF1SHA256, encrypted_secret, &mut out, Some(label)).ok()?;
                Some(seed.to_vec())
            }
            Pair::P256(secret) => {
                let mut reader = Reader::new(encrypted_secret);
                let x = reader.sized(32, "x").ok()?;
                let y = reader.sized(32, "y").ok()?;
                reader.finish("point").ok()?;
                let point = [&[0x04], &[0; 32][x.len()..], x, &[0; 32][y.len()..], y].concat();
                let ephemeral = PublicKey::from_sec1_bytes(&point).ok()?;
                let shared = diffie_hellman(secret.to_nonzero_scalar(), ephemeral.as_affine());
                let own = secret.public_key().to_sec1_point(false);
                let own_x = own.as_bytes().get(1..33)?;
                let z = shared.raw_secret_bytes();
                Some(kdfe(HASH, z, b"IDENTITY", point.get(1..33)?, own_x, 32).to_vec())
            }
        }
    }
}

impl fmt::Debug for EndorsementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndorsementKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rootbound_common::tpm::put_sized;

    use super::*;
    use crate::software_tpm::SoftwareKey;

    /// TPM2_MakeCredential by tpm2-tools, without a TPM.
    fn make_credential(key: &EndorsementKey, name: &Name, secret: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file);
        let mut public = Vec::new();
        put_sized(&mut public, &key.public_area());
        std::fs::write(path("ek.pub"), public).unwrap();
        std::fs::write(path("secret"), secret).unwrap();
        let status = Command::new("tpm2_makecredential")
            .args(["-Q", "-T", "none", "-n", &name.to_string()])
            .args(["-u".as_ref(), path("ek.pub").as_os_str(), "-s".as_ref(), path("secret").as_os_str()])
            .args(["-o".as_ref(), path("out").as_os_str()])
            .status()
            .expect("tpm2_makecredential, from Debian's tpm2-tools");
        assert!(status.success());
        let out = std::fs::read(path("out")).unwrap();
        let mut reader = Reader::new(&out);
        reader.bytes(8, "tpm2-tools' own header").unwrap();
        let id_object = reader.sized(256, "TPM2B_ID_OBJECT").unwrap().to_vec();
        let secret = reader.sized(512, "TPM2B_ENCRYPTED_SECRET").unwrap().to_vec();
        reader.finish("credential file").unwrap();
        (id_object, secret)
    }

    #[test]
    fn credential_of_tpm2_tools_opens_for_the_named_object_only() {
        let name = SoftwareKey::p256(Template::attestation_p256()).name();
        let other = SoftwareKey::p256(Template::attestation_p256()).name();
        for key in [EndorsementKey::p256(), EndorsementKey::rsa2048()] {
            let (id_object, encrypted) = make_credential(&key, &name, b"swordfish");
            assert_eq!(key.activate_credential(&name, &id_object, &encrypted), Some(b"swordfish".to_vec()));
            assert_eq!(key.activate_credential(&other, &id_object, &encrypted), None);
            assert_eq!(EndorsementKey::p256().activate_credential(&name, &id_object, &encrypted), None);
        }
    }
}
