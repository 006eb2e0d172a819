//! Credential activation: the proof that an EK and an AK live in one TPM.

use std::fmt;

use rand_core::CryptoRng;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use rootbound_common::id::NodeId;
use rootbound_common::secret::Secret;

use super::ek::{EndorsedKey, StoredEndorsement, StoredKeyError};
use super::make_credential::{EncryptedCredential, MakeCredentialError, make_credential};
use super::{AttestationKey, AttestationKeyError};

/// Why an activation failed. Says nothing about the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ActivationError {
    /// The answer came too late.
    #[error("the activation expired at {deadline}")]
    Expired {
        /// The last moment at which it would have been accepted.
        deadline: Timestamp,
    },
    /// The TPM did not open the credential.
    #[error("the activation secret is wrong")]
    WrongSecret,
}

/// An enrolment that waits for the TPM to open its secret. One attempt: [`Self::complete`] takes it by value.
///
/// The secret itself is not kept, only its hash: who reads the store cannot answer in a TPM's place.
pub struct PendingActivation {
    ek: EndorsedKey,
    ak: AttestationKey,
    secret_hash: Secret<32>,
    deadline: Timestamp,
}

impl PendingActivation {
    /// Draws a secret and encrypts it for the TPM with both keys.
    pub fn begin(
        ek: EndorsedKey,
        ak: AttestationKey,
        deadline: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, EncryptedCredential), MakeCredentialError> {
        let secret = Secret::<32>::generate(rng);
        let credential = make_credential(&ek, &ak.name(), secret.expose(), rng)?;
        let secret_hash = secret_hash(secret.expose());
        Ok((Self { ek, ak, secret_hash, deadline }, credential))
    }

    /// The machine.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.ek.node_id()
    }

    /// The last moment at which an answer is accepted.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Spends the attempt.
    ///
    /// Established when this returns keys: the answer is in time; it is the secret, compared in constant time. So the
    /// TPM that holds the EK holds an object with the AK's Name, loaded, of the very public area that was checked.
    pub fn complete(self, claimed: &[u8], now: Timestamp) -> Result<ActivatedKeys, ActivationError> {
        if now > self.deadline {
            return Err(ActivationError::Expired { deadline: self.deadline });
        }
        if !self.secret_hash.matches(secret_hash(claimed).expose()) {
            return Err(ActivationError::WrongSecret);
        }
        Ok(ActivatedKeys { ek: self.ek, ak: self.ak })
    }

    /// What the store keeps until the answer comes.
    #[must_use]
    pub fn to_stored(&self) -> StoredActivation {
        StoredActivation {
            ek_public: self.ek.public().as_bytes().to_vec(),
            endorsement: self.ek.endorsement().to_stored(),
            ak_public: self.ak.public().as_bytes().to_vec(),
            secret_hash: *self.secret_hash.expose(),
            deadline: self.deadline,
        }
    }

    /// The activation of a row, every part of it checked as if it came over the wire.
    ///
    /// The chain of the EK certificate is not walked again: that it was, is what the row says.
    pub(crate) fn from_stored(stored: &StoredActivation) -> Result<Self, StoredActivationError> {
        Ok(Self {
            ek: EndorsedKey::from_stored(&stored.ek_public, &stored.endorsement)?,
            ak: AttestationKey::parse(&stored.ak_public)?,
            secret_hash: Secret::from_bytes(stored.secret_hash),
            deadline: stored.deadline,
        })
    }
}

impl fmt::Debug for PendingActivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingActivation")
            .field("node", &self.node_id())
            .field("ak", &self.ak.name())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// SHA-256; 32 random bytes need no salt and no slow hash.
fn secret_hash(secret: &[u8]) -> Secret<32> {
    Secret::from_bytes(sha256(&[secret]))
}

/// The columns of a [`PendingActivation`].
#[derive(Clone, PartialEq, Eq)]
pub struct StoredActivation {
    /// TPMT_PUBLIC of the EK.
    pub ek_public: Vec<u8>,
    /// Who vouches for the EK.
    pub endorsement: StoredEndorsement,
    /// TPMT_PUBLIC of the AK.
    pub ak_public: Vec<u8>,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// The last moment at which an answer is accepted.
    pub deadline: Timestamp,
}

impl fmt::Debug for StoredActivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredActivation").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// A row that is no activation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredActivationError {
    /// The EK columns.
    #[error("stored EK: {0}")]
    EndorsementKey(#[from] StoredKeyError),
    /// The AK columns.
    #[error("stored AK: {0}")]
    AttestationKey(#[from] AttestationKeyError),
}

/// An EK and an AK that are proved to live in one TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivatedKeys {
    ek: EndorsedKey,
    ak: AttestationKey,
}

impl ActivatedKeys {
    /// The EK.
    #[must_use]
    pub fn ek(&self) -> &EndorsedKey {
        &self.ek
    }

    /// The AK.
    #[must_use]
    pub fn ak(&self) -> &AttestationKey {
        &self.ak
    }
}

#[cfg(test)]
mod tests {
    use rootbound_common::random::system;

    use super::*;
    use crate::enrollment::testing::{PublicTemplate, p256_point};
    use crate::enrollment::{ChainWaiver, UnendorsedKey};

    const DEADLINE: Timestamp = Timestamp::from_millis(60_000);

    fn keys() -> (EndorsedKey, AttestationKey) {
        let (x, y) = p256_point();
        let ek = PublicTemplate::ecc(0x0003, &x, &y).attributes(0x0003_00b2).symmetric(128);
        let ek = UnendorsedKey::parse(&ek.bytes()).unwrap();
        let ek = ek.endorse_by_waiver(ChainWaiver::of_inventory_entry(ek.node_id())).unwrap();
        let ak = PublicTemplate::ecc(0x0003, &x, &y).attributes(0x0005_0072).scheme(0x0018, 0x000b);
        (ek, AttestationKey::parse(&ak.bytes()).unwrap())
    }

    fn pending(secret: &[u8]) -> PendingActivation {
        let (ek, ak) = keys();
        PendingActivation { ek, ak, secret_hash: secret_hash(secret), deadline: DEADLINE }
    }

    #[test]
    fn right_secret_in_time_proves_both_keys() {
        let (ek, ak) = keys();
        let activated = pending(b"secret").complete(b"secret", DEADLINE).unwrap();
        assert_eq!((activated.ek(), activated.ak()), (&ek, &ak));
    }

    /// Attack 15: neither a prefix nor more than the secret, nor the hash that the store keeps.
    #[test]
    fn wrong_secrets_are_refused_alike() {
        let hash = secret_hash(b"secret");
        for wrong in [&b"secreT"[..], b"secre", b"secret\0", b"", hash.expose()] {
            let found = pending(b"secret").complete(wrong, DEADLINE);
            assert_eq!(found, Err(ActivationError::WrongSecret));
        }
    }

    /// Attack 16.
    #[test]
    fn right_secret_after_the_deadline_is_refused() {
        let late = DEADLINE.plus(std::time::Duration::from_millis(1));
        let found = pending(b"secret").complete(b"secret", late);
        assert_eq!(found, Err(ActivationError::Expired { deadline: DEADLINE }));
    }

    #[test]
    fn each_activation_has_a_secret_of_its_own_and_shows_it_nowhere() {
        let (ek, ak) = keys();
        let (one, first) = PendingActivation::begin(ek.clone(), ak.clone(), DEADLINE, &mut system()).unwrap();
        let (two, second) = PendingActivation::begin(ek, ak, DEADLINE, &mut system()).unwrap();
        assert_ne!(one.to_stored().secret_hash, two.to_stored().secret_hash);
        assert_ne!(first, second);
        let hash = data_encoding::HEXLOWER.encode(&one.to_stored().secret_hash);
        for text in [format!("{one:?}"), format!("{:?}", one.to_stored())] {
            assert!(!text.contains(&hash) && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn activation_returns_from_the_store_and_altered_rows_do_not() {
        let stored = pending(b"secret").to_stored();
        let restored = PendingActivation::from_stored(&stored).unwrap();
        assert_eq!(restored.to_stored(), stored);
        assert_eq!(restored.deadline(), DEADLINE);
        assert_eq!(restored.node_id(), keys().0.node_id());
        restored.complete(b"secret", DEADLINE).unwrap();

        let mut altered = stored.clone();
        altered.ak_public.clone_from(&stored.ek_public);
        let found = PendingActivation::from_stored(&altered).unwrap_err();
        assert_eq!(found, StoredActivationError::AttestationKey(AttestationKeyError::NotSigning));
        let mut altered = stored.clone();
        altered.ek_public.clone_from(&stored.ak_public);
        let found = PendingActivation::from_stored(&altered).unwrap_err();
        assert!(matches!(found, StoredActivationError::EndorsementKey(_)));
    }
}
