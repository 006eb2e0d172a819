//! `GET /openapi.json`: the OpenAPI 3.1 document of this API.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Method;
use http::header::CONTENT_TYPE;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::throttle::RateClass;
use super::{
    Endpoint, access, activations, challenges, control, ear, enforce, enrollments, evidence, healthz, jwks,
    oauth, readyz, signals, spiffe_bundle, whoami,
};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/openapi.json",
    rate: RateClass::Query,
    body: None,
    handler: || get(openapi),
};

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rootbound verifier",
        description = "Machines prove what they booted, and get credentials that only their TPMs can use. Refusals are \
                       problem documents (RFC 9457) with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "enrollment", description = "A machine becomes a node"),
        (name = "attestation", description = "A node shows evidence and gets a credential"),
        (name = "access", description = "Whether something may be done now: Authorization API 1.0 of AuthZEN"),
        (name = "tokens", description = "OAuth 2.0: tokens that are good with one key, while the machine stands well"),
        (name = "enforcement", description = "Whether a request to a service may pass its gateway now"),
        (name = "identity", description = "What a credential is worth now"),
        (name = "operation", description = "For those who run the verifier")
    ),
    modifiers(&Authentication),
    paths(
        enrollments::enroll,
        activations::activate,
        challenges::challenge,
        evidence::attest,
        control::control,
        signals::signal,
        whoami::whoami,
        ear::ear,
        jwks::jwks,
        healthz::healthz,
        readyz::readyz,
        openapi,
        access::configuration::configuration,
        access::evaluation::evaluation,
        access::evaluations::evaluations,
        access::search::search_subject,
        access::search::search_resource,
        access::search::search_action,
        jwks::jwks_svid,
        spiffe_bundle::spiffe_bundle,
        oauth::metadata::oauth,
        oauth::metadata::openid,
        oauth::token::token,
        oauth::introspect::introspect,
        oauth::revoke::revoke,
        enforce::forward_auth::forward_auth,
        enforce::forward_auth::forward_auth_mtls,
        enforce::ext_authz::check
    )
)]
struct Document;

/// The ways to authenticate.
struct Authentication;

impl Modify for Authentication {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        for (name, description) in [
            ("x509_svid", "An X.509-SVID that the verifier issued, over TLS 1.3"),
            (
                "relying_party",
                "A certificate of a CA that the operator named for a relying party, over TLS 1.3",
            ),
        ] {
            let description = Some(description.to_owned());
            let scheme = SecurityScheme::MutualTls { description, deprecated: None, extensions: None };
            components.add_security_scheme(name, scheme);
        }
        let token = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token whose hash the operator configured for a relying party; without a client certificate"))
            .build();
        components.add_security_scheme("relying_party_token", SecurityScheme::Http(token));
    }
}

/// It never changes while the process lives.
static JSON: LazyLock<String> = LazyLock::new(|| Document::openapi().to_json().unwrap_or_default());

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json"))
)]
pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], JSON.as_str()).into_response()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::http::ENDPOINTS;

    pub(in crate::http) fn document() -> serde_json::Value {
        serde_json::from_str(&JSON).unwrap()
    }

    #[test]
    fn document_and_router_have_the_same_endpoints() {
        let document = document();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let documented: BTreeSet<_> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let routed: BTreeSet<_> = ENDPOINTS.iter().map(|endpoint| format!("{endpoint:?}")).collect();
        assert_eq!(documented, routed);
        assert_eq!(routed.len(), ENDPOINTS.len(), "no endpoint stands twice");
    }
    /// The document has one schema for each name, and the last one wins.
    #[test]
    fn metadata_documents_are_told_apart() {
        let document = document();
        for (path, member) in [
            ("/.well-known/authzen-configuration", "policy_decision_point"),
            ("/.well-known/oauth-authorization-server", "introspection_endpoint"),
            ("/.well-known/openid-configuration", "id_token_signing_alg_values_supported"),
        ] {
            let content = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"];
            let reference = content["schema"]["$ref"].as_str().unwrap();
            let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
            assert!(schema["properties"][member].is_object(), "{path}: {schema}");
        }
    }

    #[test]
    fn errors_of_authzen_are_documented_as_the_json_that_they_are() {
        assert!(!JSON.contains("text/plain"));
    }
}
