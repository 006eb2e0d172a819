//! What a token claims, out of JSON that was read strictly: each claim into a type that holds nothing else.

use std::fmt;

use rootbound_common::clock::Timestamp;
use rootbound_common::text::only_shows;
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::{Map, Value};

use crate::jwk::{CertificateThumbprint, Thumbprint};

/// Why claims are not those of a token that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// One that must be there is not.
    #[error("it does not claim `{claim}`")]
    Missing {
        /// Which.
        claim: &'static str,
    },
    /// One is of another form.
    #[error("its `{claim}` is not {expected}")]
    Form {
        /// Which.
        claim: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
}

/// A word or name of a claim: 1 to 2,048 bytes of characters that do nothing but show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text(String);

/// A text that no claim has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a claim's text has 1 to {} bytes, of characters that only show", Text::MAX)]
pub struct NotAText;

impl Text {
    /// The longest SPIFFE ID (SPIFFE ID, 2.3).
    pub const MAX: usize = 2048;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Text {
    type Error = NotAText;

    fn try_from(text: String) -> Result<Self, NotAText> {
        let fits = (1..=Self::MAX).contains(&text.len()) && text.chars().all(only_shows);
        if fits { Ok(Self(text)) } else { Err(NotAText) }
    }
}

impl std::str::FromStr for Text {
    type Err = NotAText;

    fn from_str(text: &str) -> Result<Self, NotAText> {
        text.to_owned().try_into()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a token is for (RFC 7519, 4.1.3): 1 to 8 names. Written as a string where it is one, else as an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience(Vec<Text>);

impl Audience {
    /// More services than that are no audience, but everybody.
    pub const MAX: usize = 8;
    const EXPECTED: &str = "a text or 1 to 8 of them";

    /// One service.
    #[must_use]
    pub fn one(name: Text) -> Self {
        Self(vec![name])
    }

    /// Several; nothing where they are none or too many.
    #[must_use]
    pub fn several(names: Vec<Text>) -> Option<Self> {
        (1..=Self::MAX).contains(&names.len()).then_some(Self(names))
    }

    /// The names.
    #[must_use]
    pub fn names(&self) -> &[Text] {
        &self.0
    }

    /// Whether `name` is among them, to the byte.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|one| one.as_str() == name)
    }

    pub(crate) fn from_json(claim: &'static str, value: &Value) -> Result<Self, ClaimError> {
        let error = ClaimError::Form { claim, expected: Self::EXPECTED };
        match value {
            Value::Array(names) => Self::several(texts(names, Self::MAX).ok_or(error)?).ok_or(error),
            _ => text(value).map(Self::one).ok_or(error),
        }
    }
}

impl Serialize for Audience {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

/// What a presenter has to show beside the token (RFC 7800, 3.1), so that it is of no use to a thief.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Nothing: whoever holds it may use it. No `cnf` is claimed.
    Bearer,
    /// A DPoP proof of this key (RFC 9449, 6.1): `jkt`.
    Key(Thumbprint),
    /// This certificate in TLS (RFC 8705, 3.1): `x5t#S256`.
    Certificate(CertificateThumbprint),
    /// Both of them.
    Both {
        /// The key of the proof.
        key: Thumbprint,
        /// The certificate in TLS.
        certificate: CertificateThumbprint,
    },
}

impl Binding {
    const KEY: &str = "jkt";
    const CERTIFICATE: &str = "x5t#S256";

    /// The key that a proof has to be by, where one has to be shown.
    #[must_use]
    pub const fn key(&self) -> Option<&Thumbprint> {
        match self {
            Self::Bearer | Self::Certificate(_) => None,
            Self::Key(key) | Self::Both { key, .. } => Some(key),
        }
    }

    /// The certificate that has to be shown, where one has to be.
    #[must_use]
    pub const fn certificate(&self) -> Option<&CertificateThumbprint> {
        match self {
            Self::Bearer | Self::Key(_) => None,
            Self::Certificate(certificate) | Self::Both { certificate, .. } => Some(certificate),
        }
    }

    /// What `cnf` says. A `cnf` with nothing in it that is known here is an error, never a bearer's.
    pub(crate) fn from_claims(claims: Members<'_>) -> Result<Self, ClaimError> {
        let Some(cnf) = claims.optional("cnf") else { return Ok(Self::Bearer) };
        let error = ClaimError::Form {
            claim: "cnf",
            expected: "an object with a thumbprint `jkt`, `x5t#S256` or both",
        };
        let cnf = cnf.as_object().ok_or(error)?;
        let member = |name: &str| cnf.get(name).map(|value| value.as_str().ok_or(error)).transpose();
        let key = member(Self::KEY)?.map(str::parse::<Thumbprint>).transpose().map_err(|_| error)?;
        let certificate = member(Self::CERTIFICATE)?.map(str::parse::<CertificateThumbprint>);
        let certificate = certificate.transpose().map_err(|_| error)?;
        match (key, certificate) {
            (Some(key), None) => Ok(Self::Key(key)),
            (None, Some(certificate)) => Ok(Self::Certificate(certificate)),
            (Some(key), Some(certificate)) => Ok(Self::Both { key, certificate }),
            (None, None) => Err(error),
        }
    }

    /// The object `cnf`, where there is one.
    #[must_use]
    pub fn to_json(&self) -> Option<Map<String, Value>> {
        let mut cnf = Map::new();
        if let Some(key) = self.key() {
            cnf.insert(Self::KEY.to_owned(), Value::String(key.to_string()));
        }
        if let Some(certificate) = self.certificate() {
            cnf.insert(Self::CERTIFICATE.to_owned(), Value::String(certificate.to_string()));
        }
        (!cnf.is_empty()).then_some(cnf)
    }
}

/// Claims by name.
#[derive(Clone, Copy)]
pub(crate) struct Members<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Members<'a> {
    pub(crate) fn optional(self, claim: &str) -> Option<&'a Value> {
        self.0.get(claim)
    }

    pub(crate) fn required(self, claim: &'static str) -> Result<&'a Value, ClaimError> {
        self.optional(claim).ok_or(ClaimError::Missing { claim })
    }

    pub(crate) fn text(self, claim: &'static str) -> Result<Text, ClaimError> {
        text(self.required(claim)?).ok_or(ClaimError::Form { claim, expected: "a text" })
    }

    pub(crate) fn optional_text(self, claim: &'static str) -> Result<Option<Text>, ClaimError> {
        self.optional(claim).map(|_| self.text(claim)).transpose()
    }

    /// A NumericDate (RFC 7519, 2): whole seconds since 1970, up to the year 9999.
    pub(crate) fn time(self, claim: &'static str) -> Result<Timestamp, ClaimError> {
        const LAST: i64 = 253_402_300_799;
        let seconds = self.required(claim)?.as_i64().filter(|seconds| (0..=LAST).contains(seconds));
        let seconds = seconds.ok_or(ClaimError::Form { claim, expected: "whole seconds since 1970" })?;
        Ok(Timestamp::from_millis(seconds.saturating_mul(1000)))
    }

    pub(crate) fn optional_time(self, claim: &'static str) -> Result<Option<Timestamp>, ClaimError> {
        self.optional(claim).map(|_| self.time(claim)).transpose()
    }
}

pub(crate) fn text(value: &Value) -> Option<Text> {
    value.as_str()?.parse().ok()
}

/// All of them, each a text, and no more than so many.
pub(crate) fn texts(values: &[Value], limit: usize) -> Option<Vec<Text>> {
    if values.len() > limit {
        return None;
    }
    values.iter().map(text).collect()
}
