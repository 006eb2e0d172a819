//! Identifiers: nodes, trust domains, SPIFFE IDs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::crypto::sha256;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 lower-case hex digits.
    #[error("a node id is 64 lower-case hex digits")]
    NodeId,
    /// Not a trust domain name.
    #[error("a trust domain is 1 to 255 characters of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    /// Not a SPIFFE ID with a path.
    #[error(
        "a SPIFFE ID is spiffe://<trust domain>/<path>, each path segment of a-z, A-Z, 0-9, '.', '-' and '_'"
    )]
    SpiffeId,
}

/// A machine: SHA-256 over the DER SubjectPublicKeyInfo of its EK, in hex. Made by the verifier, never claimed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// The id of the machine whose EK has this DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn of_endorsement_key(subject_public_key_info: &[u8]) -> Self {
        Self(sha256(&[subject_public_key_info]))
    }

    /// An id out of the store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| IdError::NodeId)?;
        bytes.try_into().map(Self).map_err(|_| IdError::NodeId)
    }
}

impl TryFrom<String> for NodeId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.to_string()
    }
}

/// The name of a SPIFFE trust domain (SPIFFE ID, 2.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The SPIFFE ID of the trust domain itself, the identity of its CA.
    #[must_use]
    pub fn id(&self) -> String {
        format!("spiffe://{}", self.0)
    }

    /// The SPIFFE ID of a node: `spiffe://<trust domain>/node/<node id>`.
    #[must_use]
    pub fn node(&self, node: NodeId) -> SpiffeId {
        SpiffeId(format!("spiffe://{}/node/{node}", self.0))
    }

    /// The SPIFFE ID of the verifier.
    #[must_use]
    pub fn verifier(&self) -> SpiffeId {
        SpiffeId(format!("spiffe://{}/verifier", self.0))
    }

    /// The node that a SPIFFE ID of this trust domain names.
    #[must_use]
    pub fn node_of(&self, id: &SpiffeId) -> Option<NodeId> {
        let path = id.0.strip_prefix("spiffe://")?.strip_prefix(self.0.as_str())?;
        path.strip_prefix("/node/")?.parse().ok()
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if (1..=255).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::TrustDomain)
        }
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

/// A SPIFFE ID with a path (SPIFFE ID, 2): an identity that a workload or node can hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId(String);

impl SpiffeId {
    /// SPIFFE IDs beyond this SHOULD NOT be made (SPIFFE ID, 2.3).
    const MAX: usize = 2048;

    /// The URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed);
        let valid = text.len() <= Self::MAX
            && text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).is_some_and(
                |(domain, path)| domain.parse::<TrustDomain>().is_ok() && path.split('/').all(segment),
            );
        if valid { Ok(Self(text.to_owned())) } else { Err(IdError::SpiffeId) }
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_with_tricks_are_refused() {
        let good = "ab".repeat(32);
        assert_eq!(good.parse::<NodeId>().unwrap().to_string(), good);
        for bad in [
            String::new(),
            "AB".repeat(32),
            "ab".repeat(31),
            "ab".repeat(33),
            format!("{}\n", "ab".repeat(32)),
            format!("{}\u{1b}[31m", "ab".repeat(30)),
            format!("../{}", "ab".repeat(31)),
            "аb".repeat(32),
        ] {
            assert_eq!(bad.parse::<NodeId>(), Err(IdError::NodeId), "{bad:?}");
        }
    }

    #[test]
    fn spiffe_ids_are_as_the_standard_says() {
        for good in ["spiffe://a/b", "spiffe://example.org/node/x-Y_z.1"] {
            assert!(good.parse::<SpiffeId>().is_ok(), "{good}");
        }
        for bad in [
            "spiffe://a",
            "spiffe://a/",
            "spiffe://a/b/",
            "spiffe://a//b",
            "spiffe://a/../b",
            "spiffe://a/.",
            "spiffe://A/b",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%62",
            "SPIFFE://a/b",
            "https://a/b",
            "spiffe:///b",
        ] {
            assert_eq!(bad.parse::<SpiffeId>(), Err(IdError::SpiffeId), "{bad}");
        }
    }

    #[test]
    fn node_is_read_back_from_its_spiffe_id_in_its_own_domain_only() {
        let domain: TrustDomain = "example.org".parse().unwrap();
        let node = NodeId::of_endorsement_key(b"key");
        assert_eq!(domain.node_of(&domain.node(node)), Some(node));
        let longer: TrustDomain = "example.org.evil".parse().unwrap();
        assert_eq!(domain.node_of(&longer.node(node)), None);
        assert_eq!(domain.node_of(&domain.verifier()), None);
    }
}
