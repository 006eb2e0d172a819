//! `GET /.well-known/oauth-authorization-server` (RFC 8414) and `GET /.well-known/openid-configuration`: where everything is.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use rootbound_token::access::AuthorizationDetail;
use serde::Serialize;
use utoipa::ToSchema;

use super::token::{CLIENT_CREDENTIALS, TOKEN_EXCHANGE};
use super::{introspect, revoke, token};
use crate::http::problem::{EdgeRefusal, Refusal};
use crate::http::throttle::RateClass;
use crate::http::{Edge, Endpoint, jwks};

pub(in crate::http) const OAUTH: Endpoint = Endpoint {
    method: Method::GET,
    path: "/.well-known/oauth-authorization-server",
    rate: RateClass::Query,
    body: None,
    handler: || get(oauth),
};

pub(in crate::http) const OPENID: Endpoint = Endpoint {
    method: Method::GET,
    path: "/.well-known/openid-configuration",
    rate: RateClass::Query,
    body: None,
    handler: || get(openid),
};

/// RFC 8414, 2, and its extensions: RFC 8705, 3.3; RFC 9449, 5.1; RFC 9396, 10; RFC 9701, 7.
#[derive(Serialize, ToSchema)]
#[schema(as = AuthorizationServerMetadata)]
pub(in crate::http) struct Metadata {
    issuer: String,
    token_endpoint: String,
    introspection_endpoint: String,
    revocation_endpoint: String,
    jwks_uri: String,
    /// There is no authorization endpoint, and so there are none.
    response_types_supported: Vec<&'static str>,
    grant_types_supported: Vec<&'static str>,
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    introspection_signing_alg_values_supported: Vec<&'static str>,
    dpop_signing_alg_values_supported: Vec<&'static str>,
    authorization_details_types_supported: Vec<&'static str>,
    tls_client_certificate_bound_access_tokens: bool,
}

/// What a verifier of JWT-SVIDs reads (OpenID Connect Discovery 1.0, 3): clouds, Vault and Kubernetes want these members. Nobody
/// logs in here: `authorization_endpoint`, which the standard requires, refuses everybody.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenIdProviderMetadata)]
pub(in crate::http) struct Discovery {
    issuer: String,
    jwks_uri: String,
    authorization_endpoint: String,
    token_endpoint: String,
    response_types_supported: Vec<&'static str>,
    subject_types_supported: Vec<&'static str>,
    id_token_signing_alg_values_supported: Vec<&'static str>,
    grant_types_supported: Vec<&'static str>,
    claims_supported: Vec<&'static str>,
}

/// Metadata of the authorization server (RFC 8414).
///
/// Only where the operator has said under which URL clients reach the verifier.
#[utoipa::path(
    get,
    path = "/.well-known/oauth-authorization-server",
    tag = "tokens",
    responses(
        (status = 200, description = "The metadata", body = Metadata),
        (status = 404, description = "The operator has not said under which URL", body = crate::http::schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn oauth(State(edge): State<Edge>) -> Result<Response, Refusal> {
    let base = edge.verifier.public_url().ok_or(EdgeRefusal::NoPublicUrl)?;
    let at = |endpoint: Endpoint| format!("{base}{}", endpoint.path);
    let readers = vec!["tls_client_auth", "client_secret_basic", "client_secret_post"];
    let clients =
        vec!["tls_client_auth", "spiffe_jwt", "spiffe_x509", "client_secret_basic", "client_secret_post"];
    answered(&Metadata {
        issuer: edge.verifier.issuer(),
        token_endpoint: at(token::ENDPOINT),
        introspection_endpoint: at(introspect::ENDPOINT),
        revocation_endpoint: at(revoke::ENDPOINT),
        jwks_uri: at(jwks::ENDPOINT),
        response_types_supported: Vec::new(),
        grant_types_supported: vec![CLIENT_CREDENTIALS, TOKEN_EXCHANGE],
        token_endpoint_auth_methods_supported: clients.clone(),
        introspection_endpoint_auth_methods_supported: readers,
        revocation_endpoint_auth_methods_supported: clients,
        introspection_signing_alg_values_supported: vec!["ES256"],
        dpop_signing_alg_values_supported: vec!["ES256"],
        authorization_details_types_supported: vec![AuthorizationDetail::TYPE],
        tls_client_certificate_bound_access_tokens: true,
    })
}

/// What verifies JWT-SVIDs as if they were ID tokens (OpenID Connect Discovery 1.0).
///
/// Only where the operator has said under which URL clients reach the verifier.
#[utoipa::path(
    get,
    path = "/.well-known/openid-configuration",
    tag = "tokens",
    responses(
        (status = 200, description = "The metadata", body = Discovery),
        (status = 404, description = "The operator has not said under which URL", body = crate::http::schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn openid(State(edge): State<Edge>) -> Result<Response, Refusal> {
    let base = edge.verifier.public_url().ok_or(EdgeRefusal::NoPublicUrl)?;
    let at = |endpoint: Endpoint| format!("{base}{}", endpoint.path);
    answered(&Discovery {
        issuer: edge.verifier.issuer(),
        jwks_uri: at(jwks::SVID),
        authorization_endpoint: format!("{base}/oauth2/authorize"),
        token_endpoint: at(token::ENDPOINT),
        response_types_supported: vec!["id_token"],
        subject_types_supported: vec!["public"],
        id_token_signing_alg_values_supported: vec!["ES256"],
        grant_types_supported: vec![CLIENT_CREDENTIALS, TOKEN_EXCHANGE],
        claims_supported: vec!["iss", "sub", "aud", "iat", "exp", "jti", "cnf", "rootbound_posture_epoch"],
    })
}

fn answered(body: &impl Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_vec(body).map_err(|_| EdgeRefusal::Internal)?;
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "max-age=300")];
    Ok((headers, body).into_response())
}
