//! `envoy.service.auth.v3.Authorization/Check`: may a request pass? For Envoy, and what is built on it.

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use http::{HeaderName, Method, StatusCode};

use super::grpc::{self, Failure};
use super::messages::{
    AttributeContext, BoolValue, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue,
    HeaderValueOption, HttpRequest, HttpResponse, HttpStatus, OkHttpResponse, Status,
};
use super::{DPOP_NONCE, Verdict, certificate, not_overridden};
use crate::flows::enforce::{Described, EnforceRefusal};
use crate::http::problem::{PROBLEM_JSON, Refusal};
use crate::http::throttle::RateClass;
use crate::http::{Edge, Endpoint};

/// A description: heads of requests have up to 60 KB in Envoy; bodies are not wanted.
const MAX_BODY: usize = 64 * 1024;

pub(in crate::http) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/envoy.service.auth.v3.Authorization/Check",
    rate: RateClass::Evaluation,
    body: Some(MAX_BODY),
    handler: || post(check),
};

/// Fields that the service behind Envoy is to hear from nobody else, beside those that it is told.
const OURS: [&str; 3] = ["x-rootbound-gateway", "x-rootbound-client-certificate", "x-rootbound-code"];

/// By which some services take a request for another than Envoy's; nginx describes requests by the first to us.
const OVERRIDES: [&str; 1] = ["x-original-url"];

/// May a request pass, as Envoy describes it? gRPC: `envoy.service.auth.v3.Authorization/Check`, over HTTP/2.
///
/// Envoy is a relying party, by its certificate or by `x-rootbound-gateway: Bearer` in `initial_metadata`.
#[utoipa::path(
    post,
    path = "/envoy.service.auth.v3.Authorization/Check",
    tag = "enforcement",
    request_body(content = Vec<u8>, content_type = "application/grpc", description = "`CheckRequest`"),
    responses((status = 200, description = "`CheckResponse`, or how the call failed, in trailers", content_type = "application/grpc"))
)]
pub(in crate::http) async fn check(State(edge): State<Edge>, request: axum::extract::Request) -> Response {
    match checked(&edge, request).await {
        Ok(response) => response,
        Err(failure) => grpc::failure(failure),
    }
}

async fn checked(edge: &Edge, request: axum::extract::Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    edge.gateway(&parts).await?;
    let receiving = edge.receiving_short(MAX_BODY);
    let body = receiving.bytes_of(&parts, body, grpc::MEDIA_TYPE).await.map_err(Refusal::from)?;
    // The body took its time, and the gateway may be known no more.
    let gateway = edge.gateway_again(&parts).await?;
    let _place = edge.place().map_err(Refusal::from)?;
    let message: CheckRequest = grpc::message(&body)?;
    let attributes = message.attributes.unwrap_or_default();
    let headers = Headers::of(&attributes);
    let verdict = edge.verdict(&gateway, described(&attributes, &headers)).await?;
    Ok(grpc::answer(&response(verdict)))
}

/// The fields of the client's request, however Envoy sends them.
struct Headers(Vec<(String, String)>);

impl Headers {
    fn of(attributes: &AttributeContext) -> Self {
        let Some(http) = attributes.request.as_ref().and_then(|request| request.http.as_ref()) else {
            return Self(Vec::new());
        };
        let plain = http.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        let raw = http.header_map.iter().flat_map(|map| &map.headers).map(|field| {
            let value = match field.raw_value.as_slice() {
                [] => field.value.clone(),
                raw => String::from_utf8_lossy(raw).into_owned(),
            };
            (field.key.to_ascii_lowercase(), value)
        });
        Self(plain.chain(raw).collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

fn described<'a>(
    attributes: &'a AttributeContext,
    headers: &'a Headers,
) -> Result<Described<'a>, EnforceRefusal> {
    let names = || headers.0.iter().map(|(name, _)| name.as_str());
    not_overridden(names())?;
    if names().any(|name| OVERRIDES.contains(&name)) {
        return Err(EnforceRefusal::Overridden);
    }
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
    let HttpRequest { method, path, host, scheme, .. } = http.ok_or(EnforceRefusal::NotDescribed)?;
    let shown = attributes.source.as_ref().map(|peer| peer.certificate.as_str()).unwrap_or_default();
    Ok(Described {
        method,
        scheme,
        host,
        target: path,
        // Neither a token nor a proof has a comma: it stands between several.
        authorization: headers
            .all("authorization")
            .flat_map(|value| value.split(','))
            .map(str::as_bytes)
            .collect(),
        proofs: headers.all("dpop").flat_map(|value| value.split(',')).collect(),
        certificate: certificate::read(shown)?,
    })
}

/// Of `google.rpc.Code`.
const OK: i32 = 0;
const PERMISSION_DENIED: i32 = 7;
const UNAUTHENTICATED: i32 = 16;

fn response(verdict: Verdict) -> CheckResponse {
    let told =
        |name: &HeaderName, value: &http::HeaderValue| set(name.as_str(), value.to_str().unwrap_or_default());
    let passes = verdict.passes();
    let (status, body) = (verdict.status, verdict.body);
    if passes {
        let headers = verdict.headers.iter().map(|(name, value)| told(name, value)).collect();
        let nonce = verdict.nonce.iter().map(|nonce| told(&DPOP_NONCE, nonce)).collect();
        return CheckResponse {
            status: Some(Status { code: OK }),
            http_response: Some(HttpResponse::Ok(OkHttpResponse {
                headers,
                headers_to_remove: OURS.map(str::to_owned).to_vec(),
                response_headers_to_add: nonce,
            })),
        };
    }
    let code = if status == StatusCode::UNAUTHORIZED { UNAUTHENTICATED } else { PERMISSION_DENIED };
    // Envoy adds to a field only where there is one: several values of a name go as one (RFC 9110, 5.3).
    let mut fields = vec![("content-type", PROBLEM_JSON.to_owned())];
    for (name, value) in &verdict.headers {
        let value = value.to_str().unwrap_or_default();
        match fields.iter_mut().find(|(found, _)| *found == name.as_str()) {
            Some((_, values)) => values.push_str(&format!(", {value}")),
            None => fields.push((name.as_str(), value.to_owned())),
        }
    }
    let headers = fields.into_iter().map(|(name, value)| set(name, &value)).collect();
    CheckResponse {
        status: Some(Status { code }),
        http_response: Some(HttpResponse::Denied(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(status.as_u16()) }),
            headers,
            body,
        })),
    }
}

/// In place of what is there under this name.
fn set(name: &str, value: &str) -> HeaderValueOption {
    /// `OVERWRITE_IF_EXISTS_OR_ADD`.
    const OVERWRITE: i32 = 2;
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    HeaderValueOption {
        header: Some(header),
        append: Some(BoolValue { value: false }),
        append_action: OVERWRITE,
    }
}
