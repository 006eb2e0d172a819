//! Checkpoints: the verifier's signature over where a chain begins and how far it goes.
//!
//! The key is P-256 of its own: whoever has it can neither issue an identity nor sign an attestation result, and neither
//! of those keys can sign a checkpoint. What is signed begins with words that nothing else which is signed begins with.

use std::fmt;

use p256::SecretKey;
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rand_core::CryptoRng;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use serde::{Deserialize, Serialize};
use signature::{Signer, Verifier};
use zeroize::Zeroizing;

use super::chain::{Hash, Head};

/// What the signed bytes begin with.
const DOMAIN: &[u8] = b"rootbound audit checkpoint v1\n";

/// Why there is no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuditKeyError {
    /// The file holds no P-256 private key.
    #[error("no P-256 private key, unencrypted PEM in PKCS#8 or SEC 1")]
    Key,
    /// The key cannot be put into PEM.
    #[error("the key cannot be encoded")]
    Encoding,
}

/// The key that signs checkpoints. It has no `Clone`, a redacted `Debug`, and is wiped on drop.
pub struct AuditKey {
    key: SigningKey,
    public: PublicKey,
}

impl AuditKey {
    /// Makes one.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::of(SigningKey::generate_from_rng(rng))
    }

    /// Reads one from PEM.
    pub fn from_pem(pem: &str) -> Result<Self, AuditKeyError> {
        let key = SecretKey::from_pem(pem).map_err(|_| AuditKeyError::Key)?;
        Ok(Self::of(SigningKey::from(key)))
    }

    fn of(key: SigningKey) -> Self {
        let public = PublicKey(*key.verifying_key());
        Self { key, public }
    }

    /// As PKCS#8 PEM, for its file.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, AuditKeyError> {
        SecretKey::from(&self.key).to_pkcs8_pem(LineEnding::LF).map_err(|_| AuditKeyError::Encoding)
    }

    /// What verifies its signatures.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Says where the trail begins and how far it goes.
    #[must_use]
    pub fn sign(&self, anchor: Head, head: Head, at: Timestamp) -> Checkpoint {
        let unsigned = Unsigned { anchor, head, at, key: self.public.id() };
        let signature: Signature = self.key.sign(&unsigned.bytes());
        Checkpoint { anchor, head, at, key: unsigned.key, signature: signature.to_bytes().into() }
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditKey").field("id", &self.public.id()).finish_non_exhaustive()
    }
}

/// What verifies checkpoints. As text: a PEM public key (RFC 7468, 13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

/// A text is no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no P-256 public key in PEM")]
pub struct NotAPublicKey;

impl PublicKey {
    /// Its name: SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn id(&self) -> Hash {
        let encoded = self.0.to_public_key_der();
        Hash::from_bytes(sha256(&[encoded.as_ref().map_or(&[][..], |der| der.as_bytes())]))
    }

    /// As PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        // A point of the curve always has an encoding.
        self.0.to_public_key_pem(LineEnding::LF).unwrap_or_default()
    }
}

impl std::str::FromStr for PublicKey {
    type Err = NotAPublicKey;

    fn from_str(pem: &str) -> Result<Self, NotAPublicKey> {
        VerifyingKey::from_public_key_pem(pem.trim()).map(Self).map_err(|_| NotAPublicKey)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = NotAPublicKey;

    fn try_from(pem: String) -> Result<Self, NotAPublicKey> {
        pem.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_pem()
    }
}

/// A signed statement: the trail begins behind `anchor`, and goes to `head`.
///
/// Its signature is checked where a trail is verified: one that was parsed is a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The last record that was taken away; number 0 where none was.
    pub anchor: Head,
    /// The last record that it covers.
    pub head: Head,
    /// When it was made.
    pub at: Timestamp,
    /// The name of the key.
    pub key: Hash,
    /// ES256: SHA-256, R and S of 32 bytes each.
    #[serde(with = "hex")]
    pub signature: [u8; 64],
}

/// Why a checkpoint is not the verifier's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// No key of that name is known.
    #[error("it names key {0}, which is not known")]
    UnknownKey(Hash),
    /// The signature is not by that key, or of another statement.
    #[error("its signature is wrong")]
    Signature,
}

impl Checkpoint {
    /// Checks the signature against the one of `keys` that it names.
    pub fn authenticate(&self, keys: &[PublicKey]) -> Result<(), CheckpointError> {
        let key = keys.iter().find(|key| key.id() == self.key);
        let key = key.ok_or(CheckpointError::UnknownKey(self.key))?;
        let Self { anchor, head, at, key: id, signature } = *self;
        let signature = Signature::from_slice(&signature).map_err(|_| CheckpointError::Signature)?;
        let unsigned = Unsigned { anchor, head, at, key: id };
        key.0.verify(&unsigned.bytes(), &signature).map_err(|_| CheckpointError::Signature)
    }
}

struct Unsigned {
    anchor: Head,
    head: Head,
    at: Timestamp,
    key: Hash,
}

impl Unsigned {
    /// Every part has a fixed length.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        for head in [self.anchor, self.head] {
            bytes.extend_from_slice(&head.sequence.to_be_bytes());
            bytes.extend_from_slice(head.hash.as_bytes());
        }
        bytes.extend_from_slice(&self.at.as_millis().to_be_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes
    }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(signature: &[u8; 64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::HEXLOWER.encode(signature))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        bytes.try_into().map_err(|_| serde::de::Error::custom("not 64 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::random;

    fn head(sequence: u64) -> Head {
        Head { sequence, hash: Hash::NONE.then(&sequence.to_be_bytes()) }
    }

    #[test]
    fn a_checkpoint_survives_json_and_every_change_breaks_it() {
        let key = AuditKey::generate(&mut random::system());
        let keys = [key.public().clone()];
        let made = key.sign(head(1), head(9), Timestamp::from_millis(77));
        let text = serde_json::to_string(&made).unwrap();
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).unwrap(), made);
        assert_eq!(made.authenticate(&keys), Ok(()));
        for changed in [
            Checkpoint { anchor: head(2), ..made.clone() },
            Checkpoint { anchor: made.head, head: made.anchor, ..made.clone() },
            Checkpoint { head: head(8), ..made.clone() },
            Checkpoint { at: Timestamp::from_millis(78), ..made.clone() },
            Checkpoint { signature: [0; 64], ..made.clone() },
            Checkpoint { signature: key.sign(head(1), head(8), made.at).signature, ..made.clone() },
        ] {
            assert_eq!(changed.authenticate(&keys), Err(CheckpointError::Signature));
        }
        let other = AuditKey::generate(&mut random::system()).public().clone();
        let unknown = Err(CheckpointError::UnknownKey(made.key));
        assert_eq!(made.authenticate(std::slice::from_ref(&other)), unknown);
        let renamed = Checkpoint { key: other.id(), ..made };
        assert_eq!(renamed.authenticate(&[other]), Err(CheckpointError::Signature));
    }

    #[test]
    fn keys_survive_their_files_and_show_nothing_private() {
        let key = AuditKey::generate(&mut random::system());
        let again = AuditKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(AuditKey::from_pem("not a key").unwrap_err(), AuditKeyError::Key);
        assert_eq!(key.public().to_pem().parse(), Ok(key.public().clone()));
        assert_eq!("".parse::<PublicKey>(), Err(NotAPublicKey));
        assert!(format!("{key:?}").len() < 120, "{key:?}");
    }
}
