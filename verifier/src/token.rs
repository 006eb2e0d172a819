//! Access tokens: what is asked for, by which key it is held, and who gets one. A refusal is a result.
//!
//! - [`wanted`]: the actions that a token is to permit, at whom
//! - [`decide`]: the decision, and the one grant that comes of it
//!
//! What a token is on the wire, and who verifies it, is in `rootbound_token`; the key that signs it in
//! `credential::token_keys`.

pub mod decide;
pub mod wanted;

use rootbound_token::claim;
use rootbound_token::jwk::{CertificateThumbprint, Thumbprint};
use serde::{Deserialize, Serialize};

pub use decide::{ActFor, MAX_CHAIN, Permits, Term, TokenDenial, TokenGrant, decide_token};
pub use wanted::{Action, Wanted, WantedError};

use crate::policy::CredentialKind;

/// For whom a token is: a URI, or a name that its reader has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Audience(String);

/// A text that is no audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an audience is 1 to {} printable ASCII characters without spaces, quotation marks and backslashes",
    Audience::MAX
)]
pub struct NotAnAudience;

impl Audience {
    /// Characters: URLs of services are shorter.
    pub const MAX: usize = 512;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Audience {
    type Error = NotAnAudience;

    fn try_from(text: String) -> Result<Self, NotAnAudience> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
        if plain && (1..=Self::MAX).contains(&text.len()) { Ok(Self(text)) } else { Err(NotAnAudience) }
    }
}

impl From<Audience> for String {
    fn from(audience: Audience) -> Self {
        audience.0
    }
}

/// By which key a token is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The node's own certificate, whose key its TPM holds (RFC 8705, 3).
    Certificate {
        /// Names it.
        thumbprint: CertificateThumbprint,
    },
    /// A key of the node's TPM, that of a certificate of ours, by proofs (RFC 9449).
    TpmKey {
        /// Names it.
        thumbprint: Thumbprint,
    },
    /// The certificate of a relying party, whose key may be anywhere.
    ForeignCertificate {
        /// Names it.
        thumbprint: CertificateThumbprint,
    },
    /// Another key, by proofs.
    SoftwareKey {
        /// Names it.
        thumbprint: Thumbprint,
    },
    /// None: whoever has the token has what it permits.
    Bearer,
}

impl Binding {
    /// What kind of credential a token that is held so is.
    #[must_use]
    pub const fn kind(&self) -> CredentialKind {
        match self {
            Self::Certificate { .. } | Self::TpmKey { .. } => CredentialKind::AccessToken,
            Self::ForeignCertificate { .. } | Self::SoftwareKey { .. } => CredentialKind::SoftwareKeyToken,
            Self::Bearer => CredentialKind::BearerToken,
        }
    }

    /// As a token claims it.
    #[must_use]
    pub const fn claim(&self) -> claim::Binding {
        match self {
            Self::Certificate { thumbprint } | Self::ForeignCertificate { thumbprint } => {
                claim::Binding::Certificate(*thumbprint)
            }
            Self::TpmKey { thumbprint } | Self::SoftwareKey { thumbprint } => {
                claim::Binding::Key(*thumbprint)
            }
            Self::Bearer => claim::Binding::Bearer,
        }
    }

    /// The word for records and lists.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Certificate { .. } => "certificate",
            Self::TpmKey { .. } => "tpm_key",
            Self::ForeignCertificate { .. } => "foreign_certificate",
            Self::SoftwareKey { .. } => "software_key",
            Self::Bearer => "bearer",
        }
    }
}
