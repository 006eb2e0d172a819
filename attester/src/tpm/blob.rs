//! Keys at rest: a public area, and what only the TPM that made the key has any use for.

use std::fmt;

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::{Attributes, HashAlgorithm, Name, ParseError, Public, put_sized};

/// A key as it is saved: useless without the TPM that made it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBlob {
    public: Public,
    private: Vec<u8>,
}

/// Bytes that should be a key blob are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyBlobError {
    /// The public area does not parse.
    #[error("public area: {0}")]
    Public(#[from] ParseError),
    /// The private part is empty or too long.
    #[error("private part has {0} bytes")]
    Private(usize),
    /// The attributes are not those of a key for this purpose: two files were mixed up.
    #[error("the key is not {expected}: {found:?}")]
    Purpose {
        /// What it should be.
        expected: &'static str,
        /// Its attributes.
        found: Attributes,
    },
}

impl KeyBlob {
    /// TPM2B_PRIVATE holds at most this: two digests and a sensitive area of an RSA-4096 key (Part 2, table 204).
    const MAX_PRIVATE: usize = 1600;

    /// A key from its TPMT_PUBLIC and what [`Self::private`] gave.
    pub fn from_parts(public: &[u8], private: &[u8]) -> Result<Self, KeyBlobError> {
        let public = Public::parse(public)?;
        if private.is_empty() || private.len() > Self::MAX_PRIVATE {
            return Err(KeyBlobError::Private(private.len()));
        }
        Ok(Self { public, private: private.to_vec() })
    }

    /// The public area.
    #[must_use]
    pub fn public(&self) -> &Public {
        &self.public
    }

    /// The Name.
    #[must_use]
    pub fn name(&self) -> Name {
        self.public.name()
    }

    /// What the TPM has the key from again: the content of its TPM2B_PRIVATE; for an AK, which is a primary key, the seed
    /// of its template.
    #[must_use]
    pub fn private(&self) -> &[u8] {
        &self.private
    }

    /// TPM2B_PUBLIC, as key files have it.
    #[must_use]
    pub fn sized_public(&self) -> Vec<u8> {
        sized(self.public.as_bytes())
    }

    /// TPM2B_PRIVATE, as key files have it.
    #[must_use]
    pub fn sized_private(&self) -> Vec<u8> {
        sized(&self.private)
    }

    /// Tells this blob from every other.
    pub(super) fn fingerprint(&self) -> Digest {
        hash(HashAlgorithm::Sha256, &[&self.sized_public(), &self.private])
    }
}

impl fmt::Debug for KeyBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBlob({})", self.name())
    }
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    put_sized(&mut out, bytes);
    out
}

macro_rules! purpose {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $wanted:expr, $unwanted:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(KeyBlob);

        impl $name {
            /// A key from its TPMT_PUBLIC and what [`KeyBlob::private`] gave, if its attributes fit the purpose.
            pub fn from_parts(public: &[u8], private: &[u8]) -> Result<Self, KeyBlobError> {
                Self::try_from(KeyBlob::from_parts(public, private)?)
            }
        }

        impl TryFrom<KeyBlob> for $name {
            type Error = KeyBlobError;

            fn try_from(blob: KeyBlob) -> Result<Self, KeyBlobError> {
                let found = blob.public().attributes();
                if found.has($wanted) && !found.has_any($unwanted) {
                    Ok(Self(blob))
                } else {
                    Err(KeyBlobError::Purpose { expected: $expected, found })
                }
            }
        }

        impl std::ops::Deref for $name {
            type Target = KeyBlob;

            fn deref(&self) -> &KeyBlob {
                &self.0
            }
        }
    };
}

/// What every key of this system is: made by and bound to one TPM, out of reach of the lockout counter.
const BOUND: Attributes = Attributes::FIXED_TPM
    .and(Attributes::FIXED_PARENT)
    .and(Attributes::SENSITIVE_DATA_ORIGIN)
    .and(Attributes::NO_DA)
    .and(Attributes::SIGN);

purpose!(
    /// An attestation key: restricted, so that it signs only what the TPM itself states.
    AkBlob,
    "an attestation key",
    BOUND.and(Attributes::RESTRICTED).and(Attributes::USER_WITH_AUTH),
    Attributes::DECRYPT
);

purpose!(
    /// The key of a credential: signs anything, but only while the PCRs are those of its policy.
    CredentialKeyBlob,
    "a credential key",
    BOUND,
    Attributes::DECRYPT
        .and(Attributes::RESTRICTED)
        .and(Attributes::USER_WITH_AUTH)
        .and(Attributes::ADMIN_WITH_POLICY)
);

#[cfg(test)]
mod tests {
    use super::super::template;
    use super::*;

    /// The template of a key with a point in place of the empty one: shaped like a key, of no use to a TPM.
    fn public(template: &template::Template) -> Vec<u8> {
        let mut bytes = template.prefix().to_vec();
        for coordinate in [[1u8; 32], [2; 32]] {
            put_sized(&mut bytes, &coordinate);
        }
        bytes
    }

    #[test]
    fn keys_of_different_purposes_cannot_be_mixed_up() {
        let ak = public(&template::ak(super::super::AkAlgorithm::EcdsaP256, &[7; 64]));
        let credential = public(&template::credential_key(&[7; 32]));
        assert!(AkBlob::from_parts(&ak, &[1]).is_ok());
        assert!(CredentialKeyBlob::from_parts(&credential, &[1]).is_ok());
        assert!(matches!(AkBlob::from_parts(&credential, &[1]), Err(KeyBlobError::Purpose { .. })));
        assert!(matches!(CredentialKeyBlob::from_parts(&ak, &[1]), Err(KeyBlobError::Purpose { .. })));
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        let ak = public(&template::ak(super::super::AkAlgorithm::EcdsaP256, &[7; 64]));
        assert!(matches!(AkBlob::from_parts(&ak[1..], &[1]), Err(KeyBlobError::Public(_))));
        assert_eq!(AkBlob::from_parts(&ak, &[]), Err(KeyBlobError::Private(0)));
        assert_eq!(AkBlob::from_parts(&ak, &[0; 1601]), Err(KeyBlobError::Private(1601)));
    }
}
