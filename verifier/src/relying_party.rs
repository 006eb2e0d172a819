//! Relying parties (RFC 9334, 7.1): who, besides a node itself, may read attestation results, and of which nodes; and who may
//! say something against one.
//!
//! A relying party is known by a client certificate of a CA that the operator names for it, never by one of our own CA:
//! what is a node's road and what is a relying party's is told apart by who signed. One that has no certificate is known by
//! a [`token`], if the operator gave it one.

mod load;
pub mod token;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use der::Decode;
use rootbound_common::clock::Timestamp;
use rootbound_common::wire::v1::SignalKind;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::Deserialize;
use subtle::Choice;
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::node::{Labels, Name};
use crate::token::Audience;

pub use load::{LoadError, RelyingPartySection};
use token::{BearerToken, TokenError, TokenHash};

/// Certificates in a chain that a relying party shows: private PKIs have two or three.
const MAX_CHAIN: usize = 6;
/// No sensible certificate is longer.
const MAX_CERTIFICATE: usize = 8192;

/// A name in a certificate's subject alternative name by which a relying party is accepted, as it stands there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum AcceptedName {
    /// A URI, compared character by character.
    Uri(String),
    /// A DNS name in lower case, compared without regard to case; wildcards match nothing.
    Dns(String),
}

/// A text that is no name of a relying party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an accepted name is a URI (spiffe://example.org/gateway) or a DNS name (gateway.example.org)")]
pub struct NotAName;

impl TryFrom<String> for AcceptedName {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        // SPIFFE IDs are no longer (SPIFFE ID, 2.3).
        let plain = (1..=2048).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain {
            return Err(NotAName);
        }
        if text.contains("://") {
            return Ok(Self::Uri(text));
        }
        match rustls_pki_types::DnsName::try_from(text.as_str()) {
            Ok(name) => Ok(Self::Dns(name.as_ref().to_ascii_lowercase())),
            Err(_) => Err(NotAName),
        }
    }
}

impl AcceptedName {
    fn is(&self, name: &GeneralName) -> bool {
        match (self, name) {
            (Self::Uri(accepted), GeneralName::UniformResourceIdentifier(found)) => {
                found.as_str() == accepted
            }
            (Self::Dns(accepted), GeneralName::DnsName(found)) => {
                found.as_str().eq_ignore_ascii_case(accepted)
            }
            (Self::Uri(_) | Self::Dns(_), _) => false,
        }
    }
}

/// Everyone who may read results of others.
#[derive(Debug, Default)]
pub struct RelyingParties(Vec<RelyingParty>);

#[derive(Debug)]
struct RelyingParty {
    who: Arc<Who>,
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    accepted_names: Vec<AcceptedName>,
    tokens: Vec<TokenHash>,
}

/// What is known of a relying party once it has shown who it is.
#[derive(Debug)]
struct Who {
    name: Name,
    may_read: Labels,
    may_signal: BTreeSet<MaySignal>,
    audiences: BTreeSet<Audience>,
}

/// A kind of signal that has to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaySignal {
    /// To block a node.
    Block,
    /// To make the evidence of a node count no more.
    Reattest,
    /// To lower a node's standing.
    Lower,
}

/// Why whoever shows a certificate is no relying party. Each has a stable code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelyingPartyError {
    /// More certificates, or longer ones, than a chain has.
    #[error("the certificate chain is too long")]
    TooLong,
    /// Not a certificate.
    #[error("the certificate is malformed")]
    Malformed,
    /// Out of date.
    #[error("the certificate is not valid at this time")]
    NotInDate,
    /// No chain leads to a CA of a relying party, for client authentication.
    #[error("the certificate leads to no CA of a relying party")]
    Untrusted,
    /// The CA is one, the name is none.
    #[error("no relying party is configured under a name of this certificate")]
    UnknownName,
}

impl RelyingPartyError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "relying_party_chain_too_long",
            Self::Malformed => "relying_party_certificate_malformed",
            Self::NotInDate => "relying_party_certificate_not_in_date",
            Self::Untrusted => "relying_party_certificate_untrusted",
            Self::UnknownName => "relying_party_unknown",
        }
    }
}

/// A relying party that showed who it is. Only [`RelyingParties::identify`] makes it; it is not kept beyond the second of
/// its making, in which whoever would identify again would find the same.
#[derive(Debug, Clone)]
pub struct IdentifiedRelyingParty {
    who: Arc<Who>,
    shown: Shown,
}

/// By what a relying party showed who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// By a client certificate, and its key.
    Certificate,
    /// By a token, which whoever has read it can show as well.
    Token,
}

impl IdentifiedRelyingParty {
    /// What the operator calls it.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.who.name
    }

    /// By what it showed that.
    #[must_use]
    pub fn shown(&self) -> Shown {
        self.shown
    }

    /// Whether it may read results of a node with these labels.
    #[must_use]
    pub fn may_read(&self, labels: &Labels) -> bool {
        self.who.may_read.all_in(labels)
    }

    /// Whether a token for these audiences is for it: one of them is its name, or one that the operator gave it.
    pub fn is_among<'a>(&self, mut audiences: impl Iterator<Item = &'a str>) -> bool {
        audiences.any(|audience| {
            audience == self.who.name.as_str()
                || self.who.audiences.iter().any(|own| own.as_str() == audience)
        })
    }

    /// Whether it may send signals of any kind.
    #[must_use]
    pub fn may_signal_something(&self) -> bool {
        !self.who.may_signal.is_empty()
    }

    /// Whether it may send signals of a kind. What it set itself it may lift where it may set anything.
    #[must_use]
    pub fn may_signal(&self, kind: SignalKind) -> bool {
        let may = |kind| self.who.may_signal.contains(&kind);
        match kind {
            SignalKind::Block => may(MaySignal::Block),
            SignalKind::Reattest => may(MaySignal::Reattest),
            SignalKind::Lower => may(MaySignal::Lower),
            SignalKind::Clear => may(MaySignal::Block) || may(MaySignal::Lower),
        }
    }
}

impl RelyingParties {
    /// Nobody.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The CAs, for the handshake.
    pub fn authorities(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0.iter().flat_map(|party| &party.certificates)
    }

    /// Says which relying party shows this chain, leaf first. That it holds the leaf's key, TLS has verified.
    ///
    /// Established when this returns, in this order: the chain is short · the leaf is a certificate · it leads to a CA of
    /// the relying party, is in date and for client authentication · one of its names is one of that relying party's. Of
    /// two relying parties that it fits, the one that is configured first counts.
    pub fn identify(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<IdentifiedRelyingParty, RelyingPartyError> {
        let (leaf, intermediates) = chain.split_first().ok_or(RelyingPartyError::Malformed)?;
        if chain.len() > MAX_CHAIN || chain.iter().any(|certificate| certificate.len() > MAX_CERTIFICATE) {
            return Err(RelyingPartyError::TooLong);
        }
        let names = names(leaf)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|_| RelyingPartyError::Malformed)?;
        let mut refusal = RelyingPartyError::Untrusted;
        for party in &self.0 {
            match leads_to(&leaf, intermediates, &party.anchors, now) {
                Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
                    refusal = RelyingPartyError::NotInDate;
                }
                Err(_) => {}
                Ok(()) if party.accepts(&names) => {
                    let (who, shown) = (Arc::clone(&party.who), Shown::Certificate);
                    return Ok(IdentifiedRelyingParty { who, shown });
                }
                Ok(()) => refusal = RelyingPartyError::UnknownName,
            }
        }
        Err(refusal)
    }

    /// Says whose a token is. Every hash is compared, whichever it is: how long this takes says nothing.
    pub fn identify_by_token(&self, token: &BearerToken) -> Result<IdentifiedRelyingParty, TokenError> {
        let shown = token.hash();
        let mut found = None;
        for party in &self.0 {
            let mut has = Choice::from(0);
            for hash in &party.tokens {
                has |= hash.is(&shown);
            }
            if has.into() {
                found = Some(&party.who);
            }
        }
        let who = found.map(Arc::clone).ok_or(TokenError::Unknown)?;
        Ok(IdentifiedRelyingParty { who, shown: Shown::Token })
    }
}

impl RelyingParty {
    fn accepts(&self, names: &[GeneralName]) -> bool {
        self.accepted_names.iter().any(|accepted| names.iter().any(|name| accepted.is(name)))
    }
}

/// Whether a chain leads from a client's certificate to one of these anchors.
pub(crate) fn leads_to(
    leaf: &EndEntityCert<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    now: Timestamp,
) -> Result<(), webpki::Error> {
    let now = Duration::from_secs(u64::try_from(now.as_seconds()).unwrap_or(0));
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        anchors,
        intermediates,
        UnixTime::since_unix_epoch(now),
        KeyUsage::client_auth(),
        None,
        None,
    )
    .map(drop)
}

fn names(leaf: &CertificateDer<'_>) -> Result<Vec<GeneralName>, RelyingPartyError> {
    let malformed = |_| RelyingPartyError::Malformed;
    let certificate = Certificate::from_der(leaf).map_err(malformed)?;
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>().map_err(malformed)?;
    Ok(names.map(|(_, names)| names.0).unwrap_or_default())
}
