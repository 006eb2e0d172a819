//! `POST /oauth2/introspect`: what a token is worth at this moment (RFC 7662), signed where that is wanted (RFC 9701).

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use rootbound_token::access::{AccessClaims, AuthorizationDetails};
use rootbound_token::claim::{Audience, Text};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Arrived, MAX_BODY, OAuthRefusal, answered, client};
use crate::flows::caller::Caller;
use crate::flows::tokens::Client;
use crate::flows::tokens::live::UseError;
use crate::http::problem::EdgeRefusal;
use crate::http::throttle::RateClass;
use crate::http::{Edge, Endpoint};

pub(in crate::http) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/oauth2/introspect",
    rate: RateClass::Evaluation,
    body: Some(MAX_BODY),
    handler: || post(introspect),
};

/// RFC 9701, 5.
const SIGNED: &str = "application/token-introspection+jwt";

/// The form (RFC 7662, 2.1).
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents the form, which is read strictly by other means")]
pub(in crate::http) struct IntrospectionForm {
    /// The token.
    token: String,
    /// Ignored: there is one kind of token here.
    token_type_hint: Option<String>,
}

/// What a token is worth (RFC 7662, 2.2). Of one that is worth nothing, `active` alone.
#[derive(Serialize)]
struct Introspection<'a> {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    client_id: &'a Text,
    token_type: &'static str,
    exp: i64,
    iat: i64,
    sub: &'a Text,
    aud: &'a Audience,
    iss: &'a Text,
    jti: &'a Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Value>,
    #[serde(skip_serializing_if = "AuthorizationDetails::is_empty")]
    authorization_details: &'a AuthorizationDetails,
    rootbound_posture_epoch: u64,
}

impl<'a> Introspection<'a> {
    fn of(claims: &'a AccessClaims) -> Self {
        Self {
            active: true,
            scope: claims.scope.as_ref().map(ToString::to_string),
            client_id: &claims.client_id,
            token_type: if claims.binding.key().is_some() { "DPoP" } else { "Bearer" },
            exp: claims.expires_at.as_seconds(),
            iat: claims.issued_at.as_seconds(),
            sub: &claims.subject,
            aud: &claims.audience,
            iss: &claims.issuer,
            jti: &claims.id,
            cnf: claims.binding.to_json(),
            act: claims.actors.to_json(),
            authorization_details: &claims.authorization_details,
            rootbound_posture_epoch: claims.posture_epoch,
        }
    }
}

#[derive(Serialize)]
struct Inactive {
    active: bool,
}

/// What a token is worth at this moment, by how its node stands.
///
/// For the relying parties, and the nodes, that the token is for; to all others it is not active. A token that is good for one
/// use is used up by the first answer that says that it is active.
#[utoipa::path(
    post,
    path = "/oauth2/introspect",
    tag = "tokens",
    security(("x509_svid" = []), ("relying_party" = []), ("relying_party_token" = [])),
    request_body(content = IntrospectionForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "`active`, and what the token says; signed where `Accept` names application/token-introspection+jwt", body = Object),
        (status = 400, description = "`invalid_request`", body = Object),
        (status = 401, description = "`invalid_client`", body = Object),
        (status = "default", description = "See `error` and `code`", body = Object),
    )
)]
pub(in crate::http) async fn introspect(State(edge): State<Edge>, request: Request) -> Response {
    match introspected(&edge, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn introspected(edge: &Edge, request: Request) -> Result<Response, OAuthRefusal> {
    let Arrived { parts, mut form, _place } = edge.form_arrived(request).await?;
    let reader = match client::identify(&parts, &mut form, edge).await? {
        Client::Node(node) => Caller::Node(node),
        Client::RelyingParty { party, .. } => Caller::RelyingParty(party),
        Client::Asserted(_) => {
            let shown = "introspection is for clients with a certificate, and relying parties with a token";
            return Err(OAuthRefusal::client("client_by_assertion", shown));
        }
    };
    let token = form.required("token")?;
    form.one("token_type_hint")?;
    form.end()?;
    let used = match edge.in_time(edge.verifier.use_token(&reader, &token)).await? {
        Ok(used) => Some(used),
        Err(UseError::Refused(refusal)) => {
            tracing::debug!(code = refusal.code(), "a token is not active");
            None
        }
        Err(UseError::Store(error)) => return Err(error.into()),
    };
    let body = match &used {
        Some(used) => serde_json::to_value(Introspection::of(used.token().claims())),
        None => serde_json::to_value(Inactive { active: false }),
    };
    let body = body.map_err(|_| EdgeRefusal::Internal)?;
    if !wants_signed(&parts.headers) {
        return Ok(answered(&body));
    }
    let name = match &reader {
        Caller::Node(node) => edge.verifier.trust_domain().node(node.id()).to_string(),
        Caller::RelyingParty(party) => party.name().to_string(),
    };
    let signed = edge.verifier.sign_introspection(&name, body).map_err(|error| {
        tracing::error!(%error, "an introspection cannot be signed");
        EdgeRefusal::Internal
    })?;
    let mut response = answered(&());
    *response.body_mut() = signed.into();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(SIGNED));
    Ok(response)
}

fn wants_signed(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value
            .split(',')
            .any(|one| one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(SIGNED))
    })
}
