//! Who sends a request: a node by its certificate or a JWT-SVID, a relying party by its certificate or its token.

use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::OAuthRefusal;
use super::form::Form;
use crate::flows::caller::Caller;
use crate::flows::tokens::Client;
use crate::flows::tokens::mint::MintRefusal;
use crate::http::Edge;
use crate::http::client::{Peer, Reader, refused_token};
use crate::http::throttle::RateClass;
use crate::relying_party::IdentifiedRelyingParty;
use crate::relying_party::token::{BearerToken, TokenError};

/// draft-ietf-oauth-spiffe-client-auth, 3.1.
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// Says who sends a request. It uses up the parameters that say it.
///
/// Established when this returns: there is one way in which the client says who it is (RFC 6749, 2.3: not more) · it is that ·
/// `client_id`, where it is there, is its name.
pub(super) async fn identify(parts: &Parts, form: &mut Form, edge: &Edge) -> Result<Client, OAuthRefusal> {
    let client_id = form.one("client_id")?;
    let secret = form.one("client_secret")?;
    let (kind, assertion) = (form.one("client_assertion_type")?, form.one("client_assertion")?);
    let peer = Peer::of_request(parts)?;
    let certificate = peer.certificate();
    let shows_certificate = !matches!(peer, Peer::Anonymous);
    let authorization = parts.headers.contains_key(AUTHORIZATION);
    let ways = [shows_certificate, authorization, secret.is_some(), assertion.is_some()];
    match ways.into_iter().filter(|way| *way).count() {
        0 => return Err(OAuthRefusal::client("client_unauthenticated", "the client shows not who it is")),
        1 => {}
        _ => {
            let several = "the client says in several ways who it is; one will do";
            return Err(OAuthRefusal::bad("invalid_request", "client_authentication_twice", several));
        }
    }
    if kind.is_some() != assertion.is_some() {
        let both = "client_assertion and client_assertion_type come together";
        return Err(OAuthRefusal::bad("invalid_request", "client_assertion_type", both));
    }
    let client = if let Some(assertion) = assertion {
        if kind.as_deref() != Some(JWT_SPIFFE) {
            let wanted = format!("client_assertion_type must be {JWT_SPIFFE}");
            return Err(OAuthRefusal::client("client_assertion_type", &wanted));
        }
        match edge.verifier.client_by_assertion(&assertion) {
            Ok(node) => Client::Asserted(node),
            Err(refusal) => return Err(refused_assertion(edge, &refusal).await),
        }
    } else if let Some(secret) = secret {
        by_secret(parts, edge, &secret).await?
    } else if let Some((name, secret)) = basic(parts)? {
        let client = by_secret(parts, edge, &secret).await?;
        expect_name(&client, &name, edge)?;
        client
    } else {
        match Reader::identify(parts, edge, RateClass::Query).await? {
            Reader(Caller::Node(node)) => Client::Node(node),
            Reader(Caller::RelyingParty(party)) => Client::RelyingParty { party, certificate },
        }
    };
    if let Some(name) = client_id {
        expect_name(&client, &name, edge)?;
    }
    Ok(client)
}

fn expect_name(client: &Client, name: &str, edge: &Edge) -> Result<(), OAuthRefusal> {
    let is = match client {
        Client::RelyingParty { party, .. } => party.name().as_str() == name,
        Client::Node(_) | Client::Asserted(_) => {
            client.node().is_some_and(|node| edge.verifier.trust_domain().node(node).as_str() == name)
        }
    };
    if is {
        Ok(())
    } else {
        Err(OAuthRefusal::client(
            "client_id_of_other",
            "client_id is not the name of the client that shows who it is",
        ))
    }
}

/// What we did not sign is not recorded: anybody can make it up.
async fn refused_assertion(edge: &Edge, refusal: &MintRefusal) -> OAuthRefusal {
    if !matches!(refusal, MintRefusal::Assertion(_))
        && let Err(error) =
            edge.verifier.record_caller_refused(None, refusal.code(), &refusal.to_string()).await
    {
        return error.into();
    }
    OAuthRefusal::client(refusal.code(), &refusal.to_string())
}

/// A relying party's token, as its secret (RFC 6749, 2.3.1): many resource servers know no other way.
async fn by_secret(parts: &Parts, edge: &Edge, secret: &str) -> Result<Client, OAuthRefusal> {
    match known(edge, secret) {
        Ok(party) => Ok(Client::RelyingParty { party, certificate: None }),
        Err(error) => Err(refused_token(edge, parts, error).await.into()),
    }
}

/// Whether a request comes with Basic credentials of somebody whom we know: others count as a stranger's.
pub(super) fn has_known_secret(parts: &Parts, edge: &Edge) -> bool {
    matches!(basic(parts), Ok(Some((_, secret))) if known(edge, &secret).is_ok())
}

fn known(edge: &Edge, secret: &str) -> Result<IdentifiedRelyingParty, TokenError> {
    edge.verifier.relying_parties().identify_by_token(&BearerToken::parse(secret.as_bytes())?)
}

/// Name and secret of a request with HTTP Basic (RFC 7617; each form-encoded, RFC 6749, 2.3.1); `None` where it has another
/// scheme.
fn basic(parts: &Parts) -> Result<Option<(String, String)>, OAuthRefusal> {
    const SCHEME: &[u8] = b"basic ";
    let mut fields = parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let (Some(field), None) = (fields.next(), fields.next()) else { return Ok(None) };
    let Some((scheme, credentials)) = field.split_at_checked(SCHEME.len()) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Ok(None);
    }
    let malformed = || OAuthRefusal::client("client_secret_malformed", "the Basic credentials are malformed");
    let text = data_encoding::BASE64.decode(credentials).map_err(|_| malformed())?;
    let text = String::from_utf8(text).map_err(|_| malformed())?;
    let (name, secret) = text.split_once(':').ok_or_else(malformed)?;
    let decode = |text: &str| {
        let mut form = Form::parse(format!("v={text}").as_bytes()).map_err(|_| malformed())?;
        form.one("v").ok().flatten().ok_or_else(malformed)
    };
    Ok(Some((decode(name)?, decode(secret)?)))
}
