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

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::OaepPrivateDecryptingKey;
    use p256::elliptic_curve::ecdh::diffie_hellman;
    use rand_core::{TryCryptoRng, TryRng};
    use rootbound_common::tpm::Reader;

    use super::*;
    use crate::enrollment::testing::{
        PublicTemplate, p256_key, p256_point, p384_key, p384_point, rsa_key, rsa_modulus,
    };
    use crate::enrollment::{ChainWaiver, UnendorsedKey};

    const SECRET: &[u8] = b"thirty-two bytes that are secret";

    fn endorsed(template: &PublicTemplate) -> EndorsedKey {
        let key = UnendorsedKey::parse(&template.bytes()).unwrap();
        key.endorse_by_waiver(ChainWaiver::of_inventory_entry(key.node_id())).unwrap()
    }

    fn name() -> Name {
        Name::of_public_area(HashAlgorithm::Sha256, b"the public area of an AK")
    }

    /// What a TPM does with the blob, as Part 1, 24 tells it; tests against real TPM code are in `swtpm-tests`.
    fn open(hash: HashAlgorithm, seed: &[u8], key_bytes: u16, name: &Name, blob: &[u8]) -> Option<Vec<u8>> {
        let name = name.to_bytes();
        let mut reader = Reader::new(blob);
        let mac = reader.sized(64, "integrity").unwrap();
        let mut identity = reader.rest().to_vec();
        let size = u16::try_from(hash.size()).unwrap();
        let integrity = kdfa(hash, seed, b"INTEGRITY", &[], &[], size);
        if hmac(hash, &integrity, &[&identity, &name]).as_bytes() != mac {
            return None;
        }
        let key = kdfa(hash, seed, b"STORAGE", &name, &[], key_bytes);
        if key_bytes == 16 {
            cfb_mode::Decryptor::<Aes128>::new_from_slices(&key, &[0; 16]).unwrap().decrypt(&mut identity);
        } else {
            cfb_mode::Decryptor::<Aes256>::new_from_slices(&key, &[0; 16]).unwrap().decrypt(&mut identity);
        }
        let mut reader = Reader::new(&identity);
        let secret = reader.sized(64, "secret").unwrap().to_vec();
        reader.finish("identity").unwrap();
        Some(secret)
    }

    fn point(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut reader = Reader::new(bytes);
        let x = reader.sized(48, "x").unwrap().to_vec();
        let y = reader.sized(48, "y").unwrap().to_vec();
        reader.finish("point").unwrap();
        (x, y)
    }

    #[test]
    fn holder_of_an_rsa_key_opens_the_secret_and_for_that_name_only() {
        let ek = endorsed(&PublicTemplate::rsa(&rsa_modulus()).attributes(0x0003_00b2).symmetric(128));
        let made = make_credential(&ek, &name(), SECRET, &mut rootbound_common::random::system()).unwrap();
        assert_eq!(made.encrypted_secret.len(), 256);
        let mut seed = vec![0; 256];
        let key = OaepPrivateDecryptingKey::new(rsa_key().clone()).unwrap();
        let seed = key
            .decrypt(&OAEP_SHA256_MGF1SHA256, &made.encrypted_secret, &mut seed, Some(b"IDENTITY\0"))
            .unwrap();
        assert_eq!(seed.len(), 32);
        let hash = HashAlgorithm::Sha256;
        assert_eq!(open(hash, seed, 16, &name(), &made.credential_blob).unwrap(), SECRET);
        let other = Name::of_public_area(hash, b"another public area");
        assert_eq!(open(hash, seed, 16, &other, &made.credential_blob), None);
    }

    #[test]
    fn holder_of_a_p256_key_opens_the_secret() {
        let (x, y) = p256_point();
        let ek = endorsed(&PublicTemplate::ecc(0x0003, &x, &y).attributes(0x0003_00b2).symmetric(128));
        let made = make_credential(&ek, &name(), SECRET, &mut rootbound_common::random::system()).unwrap();
        let (ephemeral_x, ephemeral_y) = point(&made.encrypted_secret);
        let ephemeral = [&[0x04], &ephemeral_x[..], &ephemeral_y].concat();
        let ephemeral = p256::PublicKey::from_sec1_bytes(&ephemeral).unwrap();
        let z = diffie_hellman(p256_key(1).to_nonzero_scalar(), ephemeral.as_affine());
        let hash = HashAlgorithm::Sha256;
        let seed = kdfe(hash, z.raw_secret_bytes(), b"IDENTITY", &ephemeral_x, &x, 32);
        assert_eq!(open(hash, &seed, 16, &name(), &made.credential_blob).unwrap(), SECRET);
    }

    #[test]
    fn holder_of_a_p384_key_opens_the_secret() {
        let (x, y) = p384_point();
        let template =
            PublicTemplate::ecc(0x0004, &x, &y).attributes(0x0003_00b2).name(0x000c).symmetric(256);
        let made =
            make_credential(&endorsed(&template), &name(), SECRET, &mut rootbound_common::random::system())
                .unwrap();
        let (ephemeral_x, ephemeral_y) = point(&made.encrypted_secret);
        let ephemeral = [&[0x04], &ephemeral_x[..], &ephemeral_y].concat();
        let ephemeral = p384::PublicKey::from_sec1_bytes(&ephemeral).unwrap();
        let z = diffie_hellman(p384_key(1).to_nonzero_scalar(), ephemeral.as_affine());
        let hash = HashAlgorithm::Sha384;
        let seed = kdfe(hash, z.raw_secret_bytes(), b"IDENTITY", &ephemeral_x, &x, 48);
        assert_eq!(open(hash, &seed, 32, &name(), &made.credential_blob).unwrap(), SECRET);
    }

    /// A generator that always gives the same, to see that an ECC credential follows from it alone.
    struct Constant;

    impl TryRng for Constant {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(7)
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(7)
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            bytes.fill(7);
            Ok(())
        }
    }

    impl TryCryptoRng for Constant {}

    #[test]
    fn all_randomness_of_an_ecc_credential_is_that_of_the_caller() {
        let (x, y) = p256_point();
        let ek = endorsed(&PublicTemplate::ecc(0x0003, &x, &y).attributes(0x0003_00b2).symmetric(128));
        let one = make_credential(&ek, &name(), SECRET, &mut Constant).unwrap();
        let two = make_credential(&ek, &name(), SECRET, &mut Constant).unwrap();
        assert_eq!(one, two);
    }

    #[test]
    fn secret_that_no_tpm_would_take_is_refused() {
        let (x, y) = p256_point();
        let ek = endorsed(&PublicTemplate::ecc(0x0003, &x, &y).attributes(0x0003_00b2).symmetric(128));
        let found = make_credential(&ek, &name(), &[0; 33], &mut rootbound_common::random::system());
        assert_eq!(found, Err(MakeCredentialError::SecretTooLong { length: 33, limit: 32 }));
    }
}
