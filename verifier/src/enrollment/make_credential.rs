//! TPM2_MakeCredential in software: a secret that only one TPM can open, and only if it also holds one named key.

use aes::{Aes128, Aes256};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512, OaepPublicEncryptingKey,
    PublicEncryptingKey,
};
use cfb_mode::Encryptor;
use cfb_mode::cipher::{BlockCipherEncrypt, KeyInit, KeyIvInit};
use p256::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use p256::elliptic_curve::{
    AffinePoint, CurveArithmetic, FieldBytesSize, Generate, PublicKey, ecdh::EphemeralSecret,
};
use rand_core::CryptoRng;
use rootbound_common::crypto::{hmac, kdfa, kdfe};
use rootbound_common::tpm::{HashAlgorithm, Name, Symmetric, put_sized};
use zeroize::Zeroizing;

use super::ek::{EncryptingKey, EndorsedKey};

/// Why no credential could be made; none is known to happen for a key that passed the checks of
/// [`super::UnendorsedKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MakeCredentialError {
    /// The TPM takes no secret that is longer than a digest by the EK's nameAlg.
    #[error("a secret of {length} bytes is over the limit of {limit} that the EK's nameAlg sets")]
    SecretTooLong {
        /// Bytes of the secret.
        length: usize,
        /// Bytes of a digest.
        limit: usize,
    },
    /// The cryptographic library refused the key.
    #[error("the EK could not be encrypted to")]
    Encryption,
}

/// What TPM2_ActivateCredential takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptedCredential {
    /// Content of TPM2B_ID_OBJECT: TPMS_ID_OBJECT (Part 2, table 224).
    pub credential_blob: Vec<u8>,
    /// Content of TPM2B_ENCRYPTED_SECRET (Part 2, table 210): RSA-OAEP ciphertext, or TPMS_ECC_POINT.
    pub encrypted_secret: Vec<u8>,
}

/// Encrypts `secret` for the TPM that holds the EK, under the condition that it holds the object named `name` too
/// (Part 1, 24; Part 3, 12.6).
///
/// `rng` gives the seed and the ephemeral key. The padding of RSA-OAEP is the exception: aws-lc-rs draws it itself,
/// from its own generator, and takes no other.
pub fn make_credential(
    ek: &EndorsedKey,
    name: &Name,
    secret: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<EncryptedCredential, MakeCredentialError> {
    let hash = ek.public().name_algorithm();
    if secret.len() > hash.size() {
        return Err(MakeCredentialError::SecretTooLong { length: secret.len(), limit: hash.size() });
    }
    let (seed, encrypted_secret) = match ek.encrypting_key() {
        EncryptingKey::Rsa(key) => share_by_rsa(key, hash, rng)?,
        EncryptingKey::P256(key) => share_by_ecdh(key, hash, rng),
        EncryptingKey::P384(key) => share_by_ecdh(key, hash, rng),
    };
    let credential_blob = protect(ek.symmetric(), hash, &seed, name, secret)?;
    Ok(EncryptedCredential { credential_blob, encrypted_secret })
}

type Seed = Zeroizing<Vec<u8>>;

/// Use of the seed as KDFe label and OAEP label (Part 1, B.10.3 and C.6.1).
const IDENTITY: &[u8] = b"IDENTITY";

/// Secret sharing by RSAES-OAEP (Part 1, B.10): the hash is the EK's nameAlg, the label ends with a zero byte.
fn share_by_rsa(
    key: &PublicEncryptingKey,
    hash: HashAlgorithm,
    rng: &mut impl CryptoRng,
) -> Result<(Seed, Vec<u8>), MakeCredentialError> {
    let algorithm = match hash {
        HashAlgorithm::Sha256 => &OAEP_SHA256_MGF1SHA256,
        HashAlgorithm::Sha384 => &OAEP_SHA384_MGF1SHA384,
        HashAlgorithm::Sha512 => &OAEP_SHA512_MGF1SHA512,
        // The template's check refuses SHA-1 as nameAlg.
        HashAlgorithm::Sha1 => return Err(MakeCredentialError::Encryption),
    };
    let mut seed = Zeroizing::new(vec![0; hash.size()]);
    rng.fill_bytes(&mut seed);
    let key = OaepPublicEncryptingKey::new(key.clone()).map_err(|_| MakeCredentialError::Encryption)?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    let label = [IDENTITY, &[0]].concat();
    let length = key
        .encrypt(algorithm, &seed, &mut ciphertext, Some(&label))
        .map_err(|_| MakeCredentialError::Encryption)?
        .len();
    ciphertext.truncate(length);
    Ok((seed, ciphertext))
}

/// Secret sharing by one-pass ECDH (Part 1, C.6.1): an ephemeral key, and KDFe over both x coordinates.
fn share_by_ecdh<C>(key: &PublicKey<C>, hash: HashAlgorithm, rng: &mut impl CryptoRng) -> (Seed, Vec<u8>)
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let ephemeral = EphemeralSecret::<C>::generate_from_rng(rng);
    let z = ephemeral.diffie_hellman(key);
    let (ephemeral_x, ephemeral_y) = coordinates(&ephemeral.public_key());
    let (static_x, _) = coordinates(key);
    let size = u16::try_from(hash.size()).unwrap_or(u16::MAX);
    let seed = kdfe(hash, z.raw_secret_bytes(), IDENTITY, &ephemeral_x, &static_x, size);
    let mut point = Vec::with_capacity(2 * (2 + ephemeral_x.len()));
    put_sized(&mut point, &ephemeral_x);
    put_sized(&mut point, &ephemeral_y);
    (seed, point)
}

/// Both coordinates, padded to the field's size.
fn coordinates<C>(key: &PublicKey<C>) -> (Vec<u8>, Vec<u8>)
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let point = key.to_sec1_point(false);
    // Neither is absent: the point is uncompressed, and a public key is not the point at infinity.
    let bytes =
        |coordinate: Option<&_>| coordinate.map(|bytes: &p256::elliptic_curve::FieldBytes<C>| bytes.to_vec());
    (bytes(point.x()).unwrap_or_default(), bytes(point.y()).unwrap_or_default())
}

/// TPMS_ID_OBJECT: the secret under AES-CFB and an HMAC that covers the Name, keys from the seed (Part 1, 24.4 and 24.5).
fn protect(
    symmetric: Symmetric,
    hash: HashAlgorithm,
    seed: &[u8],
    name: &Name,
    secret: &[u8],
) -> Result<Vec<u8>, MakeCredentialError> {
    let name = name.to_bytes();
    let mut identity = Vec::with_capacity(2 + secret.len());
    put_sized(&mut identity, secret);
    let storage = |bytes| kdfa(hash, seed, b"STORAGE", &name, &[], bytes);
    match symmetric {
        Symmetric::AesCfb { key_bits: 128 } => encrypt::<Aes128>(&storage(16), &mut identity)?,
        Symmetric::AesCfb { key_bits: 256 } => encrypt::<Aes256>(&storage(32), &mut identity)?,
        // The parser knows no other size, and the template's check refuses an EK without a symmetric algorithm.
        Symmetric::AesCfb { .. } | Symmetric::None => return Err(MakeCredentialError::Encryption),
    }
    let size = u16::try_from(hash.size()).unwrap_or(u16::MAX);
    let integrity = kdfa(hash, seed, b"INTEGRITY", &[], &[], size);
    let mac = hmac(hash, &integrity, &[&identity, &name]);
    let mut out = Vec::with_capacity(2 + hash.size() + identity.len());
    put_sized(&mut out, mac.as_bytes());
    out.extend_from_slice(&identity);
    Ok(out)
}

/// AES-CFB in place, IV of zeros: the key is used once.
fn encrypt<C>(key: &[u8], bytes: &mut [u8]) -> Result<(), MakeCredentialError>
where
    C: BlockCipherEncrypt + KeyInit,
    Encryptor<C>: KeyIvInit,
{
    let iv = [0; 16];
    Encryptor::<C>::new_from_slices(key, &iv).map_err(|_| MakeCredentialError::Encryption)?.encrypt(bytes);
    Ok(())
}
