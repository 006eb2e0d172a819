//! Tokens: somebody gets one for an action, shows it, and it is looked at by how things stand then.
//!
//! - `bundle`: what verifies our SVIDs, in the form of SPIFFE
//! - [`mint`]: a client gets a token, by a decision of the policies; `claims`: what it says
//! - [`live`]: a token that is shown, at that moment; introspection, and the use of what is good once
//! - [`revoke`]: a client, or an operator, ends tokens before their time; the keys that sign them

mod bundle;
mod claims;
pub mod live;
pub mod mint;
pub mod revoke;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::random;
use rootbound_common::secret::Secret;
use rootbound_token::access::VerifiedAccessToken;
use rootbound_token::dpop::{DpopError, DpopProof, ExpectedProof, FreshProof, GoesWith, VerifiedProof};
use rootbound_token::jwk::{CertificateThumbprint, JwkSet, Thumbprint};
use rootbound_token::nonce::Nonces;
use rootbound_token::replay::{ReplayError, Replays};
use rootbound_token::target_uri::TargetUri;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Verifier;
use super::caller::relying_party;
use super::known::Known;
use crate::audit::Actor;
use crate::credential::files::{FileError, TokenKeyFile};
use crate::credential::result_key;
use crate::credential::token_keys::{TokenKeyError, TokenKeys};
use crate::posture::IdentifiedNode;
use crate::relying_party::IdentifiedRelyingParty;
use crate::store::tokens::TokenId;

/// What tokens are made of.
#[derive(Debug)]
pub struct TokenParts {
    /// By which access tokens are signed.
    pub access: KeptKeys,
    /// By which JWT-SVIDs are signed. Others: whoever reads JWT-SVIDs may not look at what kind of token it reads, and must
    /// not take a bound access token for one, which has no bounds.
    pub svid: KeptKeys,
    /// How long one lives at most.
    pub lifetime: Duration,
}

impl TokenParts {
    /// Opens the files of both, or makes them.
    pub fn open(access: &Path, svid: &Path, lifetime: Duration, now: Timestamp) -> Result<Self, FileError> {
        let open = |path: &Path| {
            let (file, keys) = TokenKeyFile::open(path, now, &mut random::system())?;
            Ok::<_, FileError>(KeptKeys { file, keys })
        };
        Ok(Self { access: open(access)?, svid: open(svid)?, lifetime })
    }
}

/// Keys, and where they are kept.
#[derive(Debug)]
pub struct KeptKeys {
    /// Where.
    pub file: TokenKeyFile,
    /// The keys.
    pub keys: TokenKeys,
}

/// What is in memory of tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    access: Ring,
    svid: Ring,
    /// Held while the keys change.
    rotation: Mutex<()>,
    lifetime: Duration,
    nonces: Nonces,
    replays: Replays,
    revoked: Revoked,
    /// Whose signature was verified.
    known: Known<VerifiedAccessToken>,
}

/// Keys that are in use, and their file.
#[derive(Debug)]
struct Ring {
    keys: ArcSwap<Keys>,
    file: TokenKeyFile,
}

/// Keys, as they are used.
#[derive(Debug)]
struct Keys {
    signing: TokenKeys,
    verifying: JwkSet,
}

impl Keys {
    fn of(signing: TokenKeys) -> Self {
        let verifying = signing.verifying();
        Self { signing, verifying }
    }
}

impl Ring {
    fn of(kept: KeptKeys) -> Self {
        Self { keys: ArcSwap::from_pointee(Keys::of(kept.keys)), file: kept.file }
    }
}

impl Tokens {
    pub(super) fn new(parts: TokenParts, revoked: Vec<(TokenId, Timestamp)>) -> Self {
        let TokenParts { access, svid, lifetime } = parts;
        Self {
            access: Ring::of(access),
            svid: Ring::of(svid),
            rotation: Mutex::new(()),
            lifetime,
            nonces: Nonces::new(Secret::generate(&mut random::system())),
            replays: Replays::new(Replays::CAPACITY),
            revoked: Revoked::of(revoked),
            known: Known::default(),
        }
    }
}

/// Tokens that were revoked before they expired: those that have not expired since.
#[derive(Debug, Default)]
struct Revoked(RwLock<HashMap<TokenId, Timestamp>>);

impl Revoked {
    fn of(revoked: Vec<(TokenId, Timestamp)>) -> Self {
        Self(RwLock::new(revoked.into_iter().collect()))
    }

    fn has(&self, id: &TokenId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Adds some, and forgets those that have expired.
    fn add(&self, more: &[(TokenId, Timestamp)], now: Timestamp) {
        let mut revoked = self.0.write().unwrap_or_else(PoisonError::into_inner);
        revoked.retain(|_, expires_at| *expires_at > now);
        revoked.extend(more.iter().cloned());
    }
}

/// Who wants a token.
#[derive(Debug)]
pub enum Client {
    /// A node, by its certificate and the key of it.
    Node(IdentifiedNode),
    /// A node, by a JWT-SVID (draft-ietf-oauth-spiffe-client-auth): whoever has one can show it, unless it names a key.
    Asserted(AssertedNode),
    /// A relying party.
    RelyingParty {
        /// Which.
        party: IdentifiedRelyingParty,
        /// Its certificate, where it showed one.
        certificate: Option<ShownCertificate>,
    },
}

/// A certificate that a client showed in TLS, with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownCertificate {
    /// Names it.
    pub thumbprint: CertificateThumbprint,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// A node that a JWT-SVID of ours names. Only [`Verifier::client_by_assertion`] makes it.
#[derive(Debug)]
pub struct AssertedNode {
    id: NodeId,
    /// The key that has to be shown besides: one of the node's TPM.
    key: Option<Thumbprint>,
    expires_at: Timestamp,
}

impl Client {
    /// The node that it is.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(node.id()),
            Self::Asserted(node) => Some(node.id),
            Self::RelyingParty { .. } => None,
        }
    }

    /// As tokens and records name it.
    fn name(&self, verifier: &Verifier) -> String {
        match self {
            Self::Node(node) => verifier.trust_domain.node(node.id()).to_string(),
            Self::Asserted(node) => verifier.trust_domain.node(node.id).to_string(),
            Self::RelyingParty { party, .. } => party.name().to_string(),
        }
    }

    /// Whether an audience is it.
    fn is_among<'a>(&self, verifier: &Verifier, mut audiences: impl Iterator<Item = &'a str>) -> bool {
        match self {
            Self::Node(_) | Self::Asserted(_) => {
                let name = self.name(verifier);
                audiences.any(|audience| audience == name)
            }
            Self::RelyingParty { party, .. } => party.is_among(audiences),
        }
    }

    fn actor(&self) -> Actor {
        match self {
            Self::Node(node) => Actor::Node(node.id()),
            Self::Asserted(node) => Actor::Node(node.id),
            Self::RelyingParty { party, .. } => relying_party(party),
        }
    }

    /// By how policies know it.
    fn entity(&self) -> (&'static str, String) {
        match self {
            Self::Node(node) => ("node", node.id().to_string()),
            Self::Asserted(node) => ("node", node.id.to_string()),
            Self::RelyingParty { party, .. } => ("service", party.name().to_string()),
        }
    }
}

impl Verifier {
    /// Who issues tokens: the URL under which clients reach the verifier, or the verifier's SPIFFE ID where the operator said
    /// none.
    #[must_use]
    pub fn issuer(&self) -> String {
        match &self.public_url {
            Some(url) => url.to_string(),
            None => self.trust_domain.verifier().to_string(),
        }
    }

    /// What verifies access tokens, and the answers of introspection.
    #[must_use]
    pub fn token_keys(&self) -> result_key::JwkSet {
        self.tokens.access.keys.load().signing.jwk_set()
    }

    /// What verifies JWT-SVIDs, for readers of OpenID Connect.
    #[must_use]
    pub fn svid_keys(&self) -> result_key::JwkSet {
        self.tokens.svid.keys.load().signing.jwk_set()
    }

    /// What verifies our SVIDs (SPIFFE Trust Domain and Bundle, 4.1 and 4.2).
    #[must_use]
    pub fn spiffe_bundle(&self) -> Value {
        let keys = self.tokens.svid.keys.load();
        let certificates = self.authority.trust_bundle().iter();
        let mut entries: Vec<Value> = certificates.filter_map(|root| bundle::x509_svid(root)).collect();
        entries.extend(bundle::jwt_svids(&keys.signing.jwk_set()));
        let newest = keys.signing.list().iter().map(|key| key.since.as_seconds()).max();
        json!({
            "keys": entries,
            // It rises whenever a key comes or goes: each change makes one.
            "spiffe_sequence": newest.unwrap_or_default(),
            "spiffe_refresh_hint": TokenKeys::PUBLISHED_FOR.as_secs(),
        })
    }

    /// Signs an answer of introspection for whoever asked (RFC 9701, 5).
    pub fn sign_introspection(&self, reader: &str, answer: Value) -> Result<String, TokenKeyError> {
        let claims = json!({
            "iss": self.issuer(),
            "aud": reader,
            "iat": self.now().as_seconds(),
            "token_introspection": answer,
        });
        self.tokens.access.keys.load().signing.sign("token-introspection+jwt", &claims)
    }

    /// A nonce for DPoP proofs of now.
    #[must_use]
    pub fn dpop_nonce(&self) -> String {
        self.tokens.nonces.issue(self.now())
    }

    /// Verifies the proof that came with a request for a token.
    pub fn proof_for_token(&self, headers: &[&str], uri: &TargetUri) -> Result<VerifiedProof, DpopError> {
        let expected = ExpectedProof { method: "POST", uri, goes_with: GoesWith::TokenRequest };
        DpopProof::verify(headers, &expected, &self.tokens.nonces, self.now())
    }

    /// Verifies the proof that came with a token.
    pub(super) fn proof_with_token(
        &self,
        headers: &[&str],
        expected: &ExpectedProof<'_>,
    ) -> Result<VerifiedProof, DpopError> {
        DpopProof::verify(headers, expected, &self.tokens.nonces, self.now())
    }

    /// Uses a proof up.
    pub(super) fn spend_proof(&self, proof: VerifiedProof) -> Result<FreshProof, ReplayError> {
        self.tokens.replays.take(proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_expired_is_forgotten_when_more_is_revoked() {
        let (now, later) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
        let id = |number| TokenId::of([number; 16]);
        let revoked = Revoked::of(vec![(id(1), now), (id(2), later)]);
        assert!(revoked.has(&id(1)) && revoked.has(&id(2)) && !revoked.has(&id(3)));
        revoked.add(&[(id(3), later)], now);
        assert!(!revoked.has(&id(1)) && revoked.has(&id(2)) && revoked.has(&id(3)));
    }
}
