//! Who is at the other end of a connection: an address, and perhaps a certificate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use der::Decode;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};
use http::request::Parts;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::{NodeId, TrustDomain};
use rootbound_token::jwk::CertificateThumbprint;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::EndEntityCert;
use x509_cert::Certificate;

use super::Edge;
use super::connection::ClientAddress;
use super::problem::{EdgeRefusal, Refusal};
use super::throttle::RateClass;
use crate::credential::certificate::timestamp;
use crate::credential::presented::{PresentedError, PresentedSvid};
use crate::flows::signals::SignalRefusal;
use crate::flows::tokens::ShownCertificate;
use crate::flows::{self, Verifier};
use crate::posture::{AdmissionError, AdmittedNode, IdentifiedNode};
use crate::relying_party::token::{BearerToken, TokenError};
use crate::relying_party::{IdentifiedRelyingParty, RelyingPartyError, leads_to};

/// What counts as one client for limits: an IPv4 address, or the /64 of an IPv6 address, since whoever has one address
/// of a /64 has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClientKey(IpAddr);

impl ClientKey {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }

    /// What counts as one network: an IPv4 /16, or an IPv6 /32, which is the least that a registry gives a provider.
    pub(super) fn network_of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, ..] = address.octets();
                Ipv4Addr::new(a, b, 0, 0).into()
            }
            IpAddr::V6(address) => {
                let [a, b, ..] = address.segments();
                Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0).into()
            }
        })
    }

    /// The client that everybody is, where there are too many networks to tell apart.
    pub(super) const EVERYBODY: Self = Self(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
}

/// Tells certificates of our CA from those of relying parties' CAs, of which TLS accepts either.
#[derive(Debug)]
pub(super) enum Vouchers {
    /// TLS accepts certificates of our CA only.
    OursAlone,
    /// Others, too. This is ours.
    OursAmongOthers(TrustAnchor<'static>),
}

impl Vouchers {
    /// Whether our CA vouches for a chain, leaf first, that TLS has accepted.
    ///
    /// What our CA did not sign never counts as an X.509-SVID, whatever it says: a relying party's CA makes no nodes.
    fn are_ours(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        match self {
            Self::OursAlone => true,
            Self::OursAmongOthers(ours) => chain
                .split_first()
                .and_then(|(leaf, others)| Some((EndEntityCert::try_from(leaf).ok()?, others)))
                .is_some_and(|(leaf, others)| {
                    leads_to(&leaf, others, std::slice::from_ref(ours), now).is_ok()
                }),
        }
    }
}

/// What the TLS handshake said of the caller. TLS has verified that a certificate is signed by our CA or that of a relying
/// party, and that the caller holds its key, and nothing else.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// No client certificate.
    Anonymous,
    /// An X.509-SVID of our CA.
    Svid(PresentedSvid),
    /// A certificate of our CA that is no X.509-SVID.
    Unfit(PresentedError),
    /// A certificate that our CA did not sign. It is judged at each request that it may count for.
    Foreign(Arc<Foreign>),
}

/// A chain that our CA did not sign, leaf first, and whose it was found to be.
#[derive(Debug)]
pub(super) struct Foreign {
    chain: Vec<CertificateDer<'static>>,
    /// The leaf, as far as tokens are bound to it.
    shown: Option<ShownCertificate>,
    /// The second of the last finding: a path is valid in whole seconds (RFC 5280, 4.1.2.5), and what it leads to does not
    /// change while the verifier runs, so that a second look within one finds the same, for a signature or two less.
    found: Mutex<Option<(i64, Result<IdentifiedRelyingParty, RelyingPartyError>)>>,
}

impl Foreign {
    fn new(chain: &[CertificateDer<'static>]) -> Self {
        Self { chain: chain.to_vec(), shown: chain.first().and_then(shown), found: Mutex::default() }
    }

    fn identify(
        &self,
        verifier: &Verifier,
        now: Timestamp,
    ) -> Result<IdentifiedRelyingParty, RelyingPartyError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some((second, finding)) if *second == now.as_seconds() => finding.clone(),
            Some(_) | None => {
                let finding = verifier.relying_parties().identify(&self.chain, now);
                *found = Some((now.as_seconds(), finding.clone()));
                finding
            }
        }
    }
}

fn shown(leaf: &CertificateDer<'_>) -> Option<ShownCertificate> {
    let certificate = Certificate::from_der(leaf).ok()?;
    let not_after = timestamp(certificate.tbs_certificate().validity().not_after);
    Some(ShownCertificate { thumbprint: CertificateThumbprint::of_der(leaf), not_after })
}

impl Peer {
    /// Of the certificates that the client showed, leaf first; none where there is none.
    pub(super) fn of(
        chain: &[CertificateDer<'static>],
        vouchers: &Vouchers,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> Self {
        match chain.first() {
            None => Self::Anonymous,
            Some(leaf) if vouchers.are_ours(chain, now) => match PresentedSvid::parse(leaf, trust_domain) {
                Ok(svid) => Self::Svid(svid),
                Err(error) => Self::Unfit(error),
            },
            Some(_) => Self::Foreign(Arc::new(Foreign::new(chain))),
        }
    }

    fn svid(self) -> Result<Option<PresentedSvid>, Refusal> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Svid(svid) => Ok(Some(svid)),
            Self::Unfit(error) => Err(error.into()),
            Self::Foreign(_) => Err(AdmissionError::NotANode.into()),
        }
    }

    /// Set by the listener on each request; a request without it did not come through the listener.
    pub(super) fn of_request(parts: &Parts) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or(EdgeRefusal::Internal.into())
    }

    /// The certificate that it showed, whoever that is of.
    pub(super) fn certificate(&self) -> Option<ShownCertificate> {
        match self {
            Self::Anonymous | Self::Unfit(_) => None,
            Self::Svid(svid) => {
                Some(ShownCertificate { thumbprint: svid.thumbprint, not_after: svid.not_after })
            }
            Self::Foreign(foreign) => foreign.shown,
        }
    }

    /// Whether it showed a certificate that may be that of somebody whom we know.
    pub(super) const fn may_be_known(&self) -> bool {
        match self {
            Self::Svid(_) | Self::Foreign(_) => true,
            Self::Anonymous | Self::Unfit(_) => false,
        }
    }
}

/// A caller that may be anyone. One who shows a certificate must be the node that it names: a certificate that is
/// good for nothing is refused, not overlooked.
#[derive(Debug)]
pub(super) struct Caller(pub(super) Option<NodeId>);

impl FromRequestParts<Edge> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Refusal> {
        let Some(svid) = Peer::of_request(parts)?.svid()? else { return Ok(Self(None)) };
        let node = edge.verifier.trust_domain().node_of(&svid.spiffe_id).ok_or(AdmissionError::NotANode)?;
        Ok(Self(Some(node)))
    }
}

/// A caller that is a node which may act now. A handler that takes this cannot be reached by anyone else.
#[derive(Debug)]
pub(super) struct Admitted(pub(super) AdmittedNode);

impl FromRequestParts<Edge> for Admitted {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Refusal> {
        let svid = Peer::of_request(parts)?.svid()?;
        let verifier = &edge.verifier;
        match verifier.fleet().admit(svid, verifier.trust_domain(), verifier.now()) {
            Ok(node) => Ok(Self(node)),
            Err(error) => Err(refused(edge, parts, error.code(), error).await),
        }
    }
}

/// A caller that is a node, however it stands.
#[derive(Debug)]
pub(super) struct Identified(pub(super) IdentifiedNode);

impl FromRequestParts<Edge> for Identified {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Refusal> {
        let svid = Peer::of_request(parts)?.svid()?;
        let verifier = &edge.verifier;
        match verifier.fleet().identify(svid, verifier.trust_domain(), verifier.now()) {
            Ok(node) => Ok(Self(node)),
            Err(error) => Err(refused(edge, parts, error.code(), error).await),
        }
    }
}

/// A caller that is a relying party, to say something against a node.
#[derive(Debug)]
pub(super) struct SignalSource(pub(super) IdentifiedRelyingParty);

impl FromRequestParts<Edge> for SignalSource {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Refusal> {
        let verifier = &edge.verifier;
        if let Some(party) = by_token(parts, edge, &AUTHORIZATION, RateClass::Free).await? {
            return Ok(Self(party));
        }
        match Peer::of_request(parts)? {
            Peer::Anonymous => Err(Refusal::from(AdmissionError::NoCertificate).or_by_token()),
            Peer::Foreign(foreign) => match foreign.identify(verifier, verifier.now()) {
                Ok(party) => Ok(Self(party)),
                Err(error) => Err(refused(edge, parts, error.code(), error).await),
            },
            Peer::Svid(_) | Peer::Unfit(_) => {
                let error = SignalRefusal::NotARelyingParty;
                Err(refused(edge, parts, error.code(), error).await)
            }
        }
    }
}

/// A caller that may ask about nodes: a node, however it stands, or a relying party.
#[derive(Debug)]
pub(super) struct Reader(pub(super) flows::caller::Caller);

impl FromRequestParts<Edge> for Reader {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Refusal> {
        Self::identify(parts, edge, RateClass::Free).await
    }
}

impl Reader {
    /// Whom the certificate names; one that is refused counts as such a request before its refusal is recorded.
    pub(super) async fn identify(
        parts: &Parts,
        edge: &Edge,
        refused_counts: RateClass,
    ) -> Result<Self, Refusal> {
        Self::identify_by(parts, edge, &AUTHORIZATION, refused_counts).await
    }

    /// The same, of a gateway, which shows its token in a field of its own: the usual one is its client's.
    pub(super) async fn gateway(
        parts: &Parts,
        edge: &Edge,
        refused_counts: RateClass,
    ) -> Result<Self, Refusal> {
        Self::identify_by(parts, edge, &GATEWAY, refused_counts).await
    }

    async fn identify_by(
        parts: &Parts,
        edge: &Edge,
        field: &HeaderName,
        refused_counts: RateClass,
    ) -> Result<Self, Refusal> {
        let verifier = &edge.verifier;
        let now = verifier.now();
        if let Some(party) = by_token(parts, edge, field, refused_counts).await? {
            return Ok(Self(flows::caller::Caller::RelyingParty(party)));
        }
        match Peer::of_request(parts)? {
            Peer::Anonymous => Err(Refusal::from(AdmissionError::NoCertificate).or_by_token()),
            Peer::Foreign(foreign) => match foreign.identify(verifier, now) {
                Ok(party) => Ok(Self(flows::caller::Caller::RelyingParty(party))),
                Err(error) => Err(refused_as(refused_counts, edge, parts, error.code(), error).await),
            },
            peer @ (Peer::Svid(_) | Peer::Unfit(_)) => {
                match verifier.fleet().identify(peer.svid()?, verifier.trust_domain(), now) {
                    Ok(node) => Ok(Self(flows::caller::Caller::Node(node))),
                    Err(error) => Err(refused_as(refused_counts, edge, parts, error.code(), error).await),
                }
            }
        }
    }
}

/// Whether a request comes by a certificate or a token that may be that of somebody whom we know: other requests count as
/// a stranger's.
pub(super) fn may_be_known(parts: &Parts, edge: &Edge) -> Result<bool, Refusal> {
    may_be_known_by(parts, edge, &AUTHORIZATION)
}

/// The same, of a gateway.
pub(super) fn may_be_gateway(parts: &Parts, edge: &Edge) -> Result<bool, Refusal> {
    may_be_known_by(parts, edge, &GATEWAY)
}

fn may_be_known_by(parts: &Parts, edge: &Edge, field: &HeaderName) -> Result<bool, Refusal> {
    let peer = Peer::of_request(parts)?;
    let by_token = || match shown_token(parts, field) {
        Ok(Some(token)) => edge.verifier.relying_parties().identify_by_token(&token).is_ok(),
        Ok(None) | Err(_) => false,
    };
    Ok(peer.may_be_known() || by_token())
}

/// In which a gateway shows its token.
const GATEWAY: HeaderName = HeaderName::from_static("x-rootbound-gateway");

fn shown_token(parts: &Parts, field: &HeaderName) -> Result<Option<BearerToken>, TokenError> {
    BearerToken::of(parts.headers.get_all(field).iter().map(HeaderValue::as_bytes))
}

/// Whose token a request shows; `None` where it shows none.
///
/// Who shows a certificate, too, is refused, whosever they are: one of them was not meant for us.
async fn by_token(
    parts: &Parts,
    edge: &Edge,
    field: &HeaderName,
    refused_counts: RateClass,
) -> Result<Option<IdentifiedRelyingParty>, Refusal> {
    if !parts.headers.contains_key(field) {
        return Ok(None);
    }
    let identified = match Peer::of_request(parts)? {
        Peer::Anonymous => shown_token(parts, field).and_then(|token| {
            token.map(|token| edge.verifier.relying_parties().identify_by_token(&token)).transpose()
        }),
        Peer::Svid(_) | Peer::Unfit(_) | Peer::Foreign(_) => Err(TokenError::AndCertificate),
    };
    match identified {
        Ok(party) => Ok(party),
        // It may have been somebody's until lately.
        Err(error @ TokenError::Unknown) => {
            Err(recorded(refused_counts, edge, parts, None, error.code(), error).await)
        }
        Err(error) => Err(refused_as(refused_counts, edge, parts, error.code(), error).await),
    }
}

/// Refuses a token that came as a secret, of a request that has counted: as [`by_token`].
pub(super) async fn refused_token(edge: &Edge, parts: &Parts, error: TokenError) -> Refusal {
    match error {
        TokenError::Unknown => recorded(RateClass::Free, edge, parts, None, error.code(), error).await,
        _ => refused(edge, parts, error.code(), error).await,
    }
}

/// [`refused_as`], of a request that has counted.
async fn refused<E>(edge: &Edge, parts: &Parts, code: &'static str, error: E) -> Refusal
where
    E: Into<Refusal> + std::fmt::Display,
{
    refused_as(RateClass::Free, edge, parts, code, error).await
}

/// Says in the log who was refused, and why; and in the audit trail, where a certificate was shown that our CA or a relying
/// party's has signed: anybody can show none. What is recorded counts first, so that refusals do not fill the trail.
async fn refused_as<E>(counts: RateClass, edge: &Edge, parts: &Parts, code: &'static str, error: E) -> Refusal
where
    E: Into<Refusal> + std::fmt::Display,
{
    match Peer::of_request(parts) {
        Ok(Peer::Svid(svid)) => {
            recorded(counts, edge, parts, Some(svid.spiffe_id.as_str()), code, error).await
        }
        Ok(peer) if peer.may_be_known() => recorded(counts, edge, parts, None, code, error).await,
        Ok(_) | Err(_) => {
            logged(parts, code);
            error.into()
        }
    }
}

/// Says both in any case.
async fn recorded<E>(
    counts: RateClass,
    edge: &Edge,
    parts: &Parts,
    claimed: Option<&str>,
    code: &'static str,
    error: E,
) -> Refusal
where
    E: Into<Refusal> + std::fmt::Display,
{
    let client = logged(parts, code);
    let counted =
        client.ok_or(EdgeRefusal::Internal).and_then(|address| edge.throttle.count(counts, address));
    if let Err(too_many) = counted {
        return too_many.into();
    }
    let recorded = edge.verifier.record_caller_refused(claimed, code, &error.to_string()).await;
    recorded.map_or_else(Into::into, |()| error.into())
}

fn logged(parts: &Parts, code: &'static str) -> Option<IpAddr> {
    let client = parts.extensions.get().map(|ClientAddress(address)| *address);
    tracing::info!(?client, code, "caller refused");
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_is_an_ipv4_address_or_an_ipv6_64() {
        let key = |text: &str| ClientKey::of(text.parse().unwrap());
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    }

    #[test]
    fn one_network_is_an_ipv4_16_or_an_ipv6_32() {
        let network = |text: &str| ClientKey::network_of(text.parse().unwrap());
        assert_eq!(network("192.0.2.1"), network("192.0.255.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.1.2.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:ffff::"));
        assert_ne!(network("2001:db8::1"), network("2001:db9::1"));
    }
}
