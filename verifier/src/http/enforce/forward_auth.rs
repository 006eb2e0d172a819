//! `/forward-auth`: may a request pass? For nginx (`auth_request`), Caddy (`forward_auth`), Traefik (`ForwardAuth`), HAProxy.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::forwarded::Forwarded;
use super::{DPOP_NONCE, Verdict, certificate, not_overridden};
use crate::flows::enforce::{Described, EnforceRefusal};
use crate::http::problem::{EdgeRefusal, PROBLEM_JSON, Refusal};
use crate::http::throttle::RateClass;
use crate::http::{Edge, Endpoint};

pub(in crate::http) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/forward-auth",
    rate: RateClass::Evaluation,
    body: None,
    handler: || any(forward_auth),
};

/// For gateways that check clients' certificates: only what they configure as the path says so, which no client does.
pub(in crate::http) const WITH_CERTIFICATES: Endpoint = Endpoint {
    method: Method::GET,
    path: "/forward-auth/mtls",
    rate: RateClass::Evaluation,
    body: None,
    handler: || any(forward_auth_mtls),
};

const CERTIFICATE: HeaderName = HeaderName::from_static("x-rootbound-client-certificate");

/// Whether the certificate in the header is the gateway's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vouches {
    ForNone,
    ForCertificates,
}

/// May a request pass, as a gateway describes it? By any method.
///
/// The gateway is a relying party, by its certificate or by `X-Rootbound-Gateway: Bearer`; `Authorization` and `DPoP` are the client's.
/// It describes the request by `X-Original-Method` and `X-Original-URL`, or by `X-Forwarded-Method`, `-Proto`, `-Host` and `-Uri`.
/// 200 lets it pass, with headers for the service behind the gateway; 401 and 403 do not. What is wrong with the gateway
/// itself is 502, so that nobody takes it for the client's fault.
#[utoipa::path(
    get,
    path = "/forward-auth",
    tag = "enforcement",
    responses(
        (status = 200, description = "It may; `X-Rootbound-Subject`, `-Action`, `-Decision`, `-Posture-Epoch` for the service"),
        (status = 401, description = "Not with what the client shows; `WWW-Authenticate`, `DPoP-Nonce`, `X-Rootbound-Code`"),
        (status = 403, description = "It may not; `X-Rootbound-Code`"),
        (status = 502, description = "The gateway is none that is known here"),
        (status = "default", description = "A problem document"),
    )
)]
pub(in crate::http) async fn forward_auth(State(edge): State<Edge>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    answered(asked(&edge, &parts, Vouches::ForNone).await)
}

/// The same, for a gateway that checks clients' certificates and sets `X-Rootbound-Client-Certificate` on each request: to what the client
/// showed, or to nothing.
#[utoipa::path(
    get,
    path = "/forward-auth/mtls",
    tag = "enforcement",
    responses(
        (status = 200, description = "It may"),
        (status = 401, description = "Not with what the client shows"),
        (status = 403, description = "It may not"),
        (status = 502, description = "The gateway is none that is known here"),
        (status = "default", description = "A problem document"),
    )
)]
pub(in crate::http) async fn forward_auth_mtls(State(edge): State<Edge>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    answered(asked(&edge, &parts, Vouches::ForCertificates).await)
}

async fn asked(edge: &Edge, parts: &Parts, vouches: Vouches) -> Result<Verdict, Refusal> {
    let gateway = edge.gateway(parts).await.map_err(Refusal::of_the_gateway)?;
    let _place = edge.place()?;
    edge.verdict(&gateway, described(parts, vouches)).await
}

fn described(parts: &Parts, vouches: Vouches) -> Result<Described<'_>, EnforceRefusal> {
    let headers = &parts.headers;
    not_overridden(headers.keys().map(HeaderName::as_str))?;
    let Forwarded { method, scheme, host, target } = Forwarded::read(headers)?;
    let mut shown = headers.get_all(CERTIFICATE).iter();
    let (shown, more) = (shown.next(), shown.next());
    let text = shown.map_or(Ok(""), |value| value.to_str());
    let text = text.map_err(|_| EnforceRefusal::CertificateMalformed)?;
    let certificate = match vouches {
        _ if more.is_some() => return Err(EnforceRefusal::CertificateMalformed),
        Vouches::ForCertificates => certificate::read(text)?,
        Vouches::ForNone if text.is_empty() => None,
        Vouches::ForNone => return Err(EnforceRefusal::CertificateNotVouched),
    };
    Ok(Described {
        method,
        scheme,
        host,
        target,
        authorization: headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect(),
        // What is no text is no proof.
        proofs: headers.get_all("dpop").iter().map(|proof| proof.to_str().unwrap_or_default()).collect(),
        certificate,
    })
}

fn answered(verdict: Result<Verdict, Refusal>) -> Response {
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(refusal) => return refusal.into_response(),
    };
    let passes = verdict.passes();
    let mut response = Response::new(Body::from(verdict.body));
    *response.status_mut() = verdict.status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !passes {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    }
    for (name, value) in verdict.headers {
        headers.append(name, value);
    }
    if let Some(nonce) = verdict.nonce {
        headers.append(DPOP_NONCE, nonce);
    }
    response
}

impl Refusal {
    /// Of a gateway that is not known. A gateway takes 401 and 403 for the client's fault, and passes on a challenge that is its
    /// own.
    fn of_the_gateway(self) -> Self {
        let (status, code, detail) = self.in_parts();
        match status {
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let refusal = EdgeRefusal::Gateway { code: code.to_owned(), detail: detail.to_owned() };
                tracing::debug!(code, "a gateway is refused");
                refusal.into()
            }
            _ => self,
        }
    }
}
