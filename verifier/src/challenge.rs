//! Challenges: minted by the verifier, answered once, within a bounded time.
//!
//! A challenge is not stored when it is minted: its token carries what it says, under a MAC that only the verifier can
//! make, so that a stranger who asks for a million of them costs a million MACs and no row. It is stored when it is
//! *spent*: the row that refuses to be written twice is what stops a replay. The road is
//! token → [`UnspentChallenge`] → (the store's [`SpendReceipt`]) → [`FreshChallenge`], by value at each step.

use std::time::Duration;

use rand_core::CryptoRng;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::hmac;
use rootbound_common::id::NodeId;
use rootbound_common::nonce::Nonce;
use rootbound_common::secret::Secret;
use rootbound_common::tpm::{HashAlgorithm, ParseError, PcrSelection, Reader};
use rootbound_common::wire::v1::CredentialPolicy;

/// The key that makes tokens ours. Drawn anew at each start and kept in memory only: who has a backup of the database
/// cannot mint a challenge over a quote that was made long ago, and a restart costs each node one more request.
#[derive(Debug, Clone)]
pub struct ChallengeKey(Secret<32>);

impl ChallengeKey {
    /// A key from its bytes.
    #[must_use]
    pub const fn new(secret: Secret<32>) -> Self {
        Self(secret)
    }
}

/// What a challenge asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who has to answer.
    pub node: NodeId,
    /// The PCRs to quote.
    pub selection: PcrSelection,
    /// The PCRs that a credential key has to be tied to.
    pub credential_policy: CredentialPolicy,
    /// When it was minted: no answer is older.
    pub issued_at: Timestamp,
    /// From when on no answer is accepted.
    pub expires_at: Timestamp,
}

/// A challenge on its way out.
#[derive(Debug)]
pub struct MintedChallenge {
    /// What the attester sends back.
    pub token: Vec<u8>,
    /// What the TPM signs.
    pub nonce: Nonce,
}

/// Why a token is no challenge that may be answered now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// Not made by this verifier, or changed since.
    #[error("challenge was not made by this verifier")]
    NotOurs,
    /// Made by this verifier's key, but not of this version's form.
    #[error("challenge is not of this version's form: {0}")]
    Form(#[from] ParseError),
    /// Minted later than now: the clocks of two replicas differ, or the clock was set back.
    #[error("challenge is from the future: minted {ahead:?} after the verifier's time")]
    FromTheFuture {
        /// Who was to answer.
        node: NodeId,
        /// By how much.
        ahead: Duration,
    },
    /// Too late.
    #[error("challenge expired {ago:?} ago")]
    Expired {
        /// Who was to answer.
        node: NodeId,
        /// Since when.
        ago: Duration,
    },
}

impl ChallengeError {
    /// Who was to answer, where the token says so under our MAC.
    #[must_use]
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::NotOurs | Self::Form(_) => None,
            Self::FromTheFuture { node, .. } | Self::Expired { node, .. } => Some(*node),
        }
    }
}

const DOMAIN: &[u8] = b"rootbound/v1/challenge\0";
const MAC: usize = 32;
/// Clocks of replicas may differ by this much.
const SKEW: Duration = Duration::from_secs(5);

/// Mints a challenge with these terms and a random nonce.
pub fn mint(key: &ChallengeKey, terms: &Terms, rng: &mut impl CryptoRng) -> MintedChallenge {
    let nonce = Nonce::generate(rng);
    let mut token = Vec::with_capacity(192);
    token.extend_from_slice(nonce.as_bytes());
    token.extend_from_slice(terms.node.as_bytes());
    token.extend_from_slice(&terms.issued_at.as_millis().to_be_bytes());
    token.extend_from_slice(&terms.expires_at.as_millis().to_be_bytes());
    terms.selection.marshal(&mut token);
    terms.credential_policy.selection().marshal(&mut token);
    let mac = hmac(HashAlgorithm::Sha256, key.0.expose(), &[DOMAIN, &token]);
    token.extend_from_slice(mac.as_bytes());
    MintedChallenge { token, nonce }
}

/// A challenge that is ours and in time; whether it was answered before is not known yet.
#[derive(Debug)]
pub struct UnspentChallenge {
    nonce: Nonce,
    terms: Terms,
}

impl UnspentChallenge {
    /// Opens a token.
    ///
    /// Established when this returns, in this order: the MAC is ours · the form is this version's · it is not from the
    /// future · it has not expired.
    pub fn open(key: &ChallengeKey, token: &[u8], now: Timestamp) -> Result<Self, ChallengeError> {
        let (content, mac) = token
            .len()
            .checked_sub(MAC)
            .and_then(|at| token.split_at_checked(at))
            .ok_or(ChallengeError::NotOurs)?;
        let expected = hmac(HashAlgorithm::Sha256, key.0.expose(), &[DOMAIN, content]);
        if !bool::from(subtle::ConstantTimeEq::ct_eq(expected.as_bytes(), mac)) {
            return Err(ChallengeError::NotOurs);
        }
        let challenge = Self::parse(content)?;
        let node = challenge.terms.node;
        if challenge.terms.issued_at > now.plus(SKEW) {
            return Err(ChallengeError::FromTheFuture { node, ahead: challenge.terms.issued_at.since(now) });
        }
        if challenge.terms.expires_at <= now {
            return Err(ChallengeError::Expired { node, ago: now.since(challenge.terms.expires_at) });
        }
        Ok(challenge)
    }

    fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(content);
        let nonce = Nonce::from_bytes(reader.array("challenge nonce")?);
        let node = NodeId::from_bytes(reader.array("challenge node")?);
        let issued_at = Timestamp::from_millis(i64::from_be_bytes(reader.array("challenge issued_at")?));
        let expires_at = Timestamp::from_millis(i64::from_be_bytes(reader.array("challenge expires_at")?));
        let selection = PcrSelection::read(&mut reader)?;
        let policy = PcrSelection::read(&mut reader)?;
        reader.finish("challenge")?;
        let mut banks = policy.banks();
        let (Some((bank, pcrs)), None) = (banks.next(), banks.next()) else {
            return Err(ParseError::Invalid { what: "credential policy", rule: "must have one bank" });
        };
        let credential_policy = CredentialPolicy { bank, pcrs };
        Ok(Self { nonce, terms: Terms { node, selection, credential_policy, issued_at, expires_at } })
    }

    /// What names it in the store: its nonce.
    #[must_use]
    pub fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// Who has to answer.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.terms.node
    }

    /// Until when its spending has to be remembered: after that it is refused as expired.
    #[must_use]
    pub fn remember_until(&self) -> Timestamp {
        self.terms.expires_at.plus(SKEW)
    }

    /// Joins the challenge with the store's word that this is its first and only use.
    #[must_use]
    pub fn spent(self, receipt: SpendReceipt) -> Option<FreshChallenge> {
        (receipt.nonce == self.nonce).then_some(FreshChallenge { nonce: self.nonce, terms: self.terms })
    }
}

/// The store's word that a challenge was spent just now, for the first time. Only a store makes it.
#[derive(Debug)]
pub struct SpendReceipt {
    nonce: Nonce,
}

impl SpendReceipt {
    /// For the store, once the row that must not exist twice is written.
    pub(crate) fn first_use(challenge: &UnspentChallenge) -> Self {
        Self { nonce: challenge.nonce }
    }
}

/// A challenge that is ours, in time, and spent by this very use: good for authenticating one piece of evidence.
#[derive(Debug)]
pub struct FreshChallenge {
    nonce: Nonce,
    terms: Terms,
}

impl FreshChallenge {
    /// The nonce that the statements must contain.
    #[must_use]
    pub fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// What was asked for.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::random;
    use rootbound_common::tpm::{PcrIndex, PcrSet};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn key(byte: u8) -> ChallengeKey {
        ChallengeKey::new(Secret::from_bytes([byte; 32]))
    }

    fn terms() -> Terms {
        let pcrs = PcrSet::EMPTY.with(PcrIndex::new(7).unwrap());
        Terms {
            node: NodeId::of_endorsement_key(b"key"),
            selection: PcrSelection::of_bank(HashAlgorithm::Sha256, pcrs),
            credential_policy: CredentialPolicy { bank: HashAlgorithm::Sha256, pcrs },
            issued_at: NOW,
            expires_at: NOW.plus(Duration::from_secs(30)),
        }
    }

    fn token() -> Vec<u8> {
        mint(&key(1), &terms(), &mut random::system()).token
    }

    #[test]
    fn what_was_minted_opens_to_the_same_terms() {
        let minted = mint(&key(1), &terms(), &mut random::system());
        let opened = UnspentChallenge::open(&key(1), &minted.token, NOW).unwrap();
        assert_eq!((opened.terms, opened.nonce), (terms(), minted.nonce));
    }

    #[test]
    fn any_changed_or_missing_byte_makes_it_not_ours() {
        let token = token();
        for position in 0..token.len() {
            let mut changed = token.clone();
            changed[position] ^= 1;
            let opened = UnspentChallenge::open(&key(1), &changed, NOW);
            assert_eq!(opened.unwrap_err(), ChallengeError::NotOurs, "byte {position}");
            let cut = UnspentChallenge::open(&key(1), &token[..position], NOW);
            assert_eq!(cut.unwrap_err(), ChallengeError::NotOurs, "cut at {position}");
        }
        assert_eq!(UnspentChallenge::open(&key(2), &token, NOW).unwrap_err(), ChallengeError::NotOurs);
    }

    #[test]
    fn form_is_checked_even_under_our_mac() {
        let mut content = token();
        content.truncate(content.len() - MAC);
        content.push(0);
        let mac = hmac(HashAlgorithm::Sha256, &[1; 32], &[DOMAIN, &content]);
        content.extend_from_slice(mac.as_bytes());
        let opened = UnspentChallenge::open(&key(1), &content, NOW);
        assert!(matches!(opened, Err(ChallengeError::Form(ParseError::Trailing { .. }))), "{opened:?}");
    }

    #[test]
    fn it_lives_from_its_minting_to_its_expiry() {
        let token = token();
        let at = |seconds: i64| {
            UnspentChallenge::open(&key(1), &token, Timestamp::from_millis(1_000_000 + seconds * 1000))
        };
        assert!(at(-5).is_ok());
        assert!(at(29).is_ok());
        let node = Some(terms().node);
        let refused = |seconds| at(seconds).unwrap_err();
        assert!(matches!(refused(-6), ChallengeError::FromTheFuture { .. }));
        assert!(matches!(refused(30), ChallengeError::Expired { .. }));
        assert_eq!((refused(-6).node(), refused(30).node()), (node, node));
    }

    #[test]
    fn receipt_of_another_challenge_is_worth_nothing() {
        let (one, other) = (token(), token());
        let one = UnspentChallenge::open(&key(1), &one, NOW).unwrap();
        let other = UnspentChallenge::open(&key(1), &other, NOW).unwrap();
        let receipt = SpendReceipt::first_use(&other);
        assert!(one.spent(receipt).is_none());
    }
}
