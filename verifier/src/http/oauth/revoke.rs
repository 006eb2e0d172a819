//! `POST /oauth2/revoke`: a client gives a token back (RFC 7009).

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::Method;
use utoipa::ToSchema;

use super::{Arrived, MAX_BODY, OAuthRefusal, client};
use crate::flows::tokens::revoke::Revocation;
use crate::http::throttle::RateClass;
use crate::http::{Edge, Endpoint};

pub(in crate::http) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/oauth2/revoke",
    rate: RateClass::Evaluation,
    body: Some(MAX_BODY),
    handler: || post(revoke),
};

/// The form (RFC 7009, 2.1).
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents the form, which is read strictly by other means")]
pub(in crate::http) struct RevocationForm {
    /// The token.
    token: String,
    /// Ignored: there is one kind of token here.
    token_type_hint: Option<String>,
}

/// Ends a token, for the client that got it. One that is worth nothing already is no error.
#[utoipa::path(
    post,
    path = "/oauth2/revoke",
    tag = "tokens",
    security(("x509_svid" = []), ("relying_party" = []), ("relying_party_token" = [])),
    request_body(content = RevocationForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "It counts no more"),
        (status = 400, description = "`invalid_request`, or `unauthorized_client` where another client got it", body = Object),
        (status = 401, description = "`invalid_client`", body = Object),
        (status = 503, description = "It cannot be recorded, and counts on; see Retry-After", body = Object),
        (status = "default", description = "See `error` and `code`", body = Object),
    )
)]
pub(in crate::http) async fn revoke(State(edge): State<Edge>, request: Request) -> Response {
    match revoked(&edge, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn revoked(edge: &Edge, request: Request) -> Result<Response, OAuthRefusal> {
    let Arrived { parts, mut form, _place } = edge.form_arrived(request).await?;
    let client = client::identify(&parts, &mut form, edge).await?;
    let token = form.required("token")?;
    form.one("token_type_hint")?;
    form.end()?;
    match edge.in_time(edge.verifier.revoke_own(&client, &token)).await?? {
        Revocation::Done => Ok(().into_response()),
        Revocation::OfOther => {
            let other = "the token was given to another client";
            Err(OAuthRefusal::bad("unauthorized_client", "token_of_other_client", other))
        }
    }
}
