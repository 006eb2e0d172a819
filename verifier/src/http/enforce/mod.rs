//! Gateways that ask whether a request may pass: Envoy by gRPC, others by HTTP.
//!
//! - `forward_auth`: for nginx, Caddy, Traefik, HAProxy; `forwarded`: how they describe a request
//! - `ext_authz`: for Envoy; `messages`: its messages; `grpc`: one call with one answer
//! - `certificate`: the client's certificate, as gateways write it into a text
//!
//! These are asked for each request of a service. A request passes here, in this order: the rate of its client, by its certificate or token ·
//! the gateway that those name · its body, where it has one, as in [`super::access`], and that gateway as it stands by now · a place
//! among the decisions under way · the description · the story.

mod certificate;
pub(super) mod ext_authz;
pub(super) mod forward_auth;
mod forwarded;
mod grpc;
mod messages;

use http::header::{HeaderName, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};

use super::Edge;
use super::client::{Reader, may_be_gateway};
use super::connection::ClientAddress;
use super::problem::{EdgeRefusal, Refusal};
use super::throttle::RateClass;
use crate::flows::caller::Caller;
use crate::flows::enforce::{Described, EnforceError, EnforceRefusal, Passed, Scheme};

const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// Why a request does not pass; stable, for machines.
const CODE: HeaderName = HeaderName::from_static("x-rootbound-code");
/// What the service behind the gateway is told, and never by anybody else.
const SUBJECT: HeaderName = HeaderName::from_static("x-rootbound-subject");
const ACTION: HeaderName = HeaderName::from_static("x-rootbound-action");
const DECISION: HeaderName = HeaderName::from_static("x-rootbound-decision");
const EPOCH: HeaderName = HeaderName::from_static("x-rootbound-posture-epoch");

/// Fields by which some services take a request for another than it is.
const OVERRIDES: [&str; 4] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-rewrite-url"];

/// What a gateway is told.
struct Verdict {
    status: StatusCode,
    /// For the service where it passes, else for the client.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// For the client, where it passes.
    nonce: Option<HeaderValue>,
    /// A problem document, where it does not.
    body: String,
}

impl Verdict {
    fn passes(&self) -> bool {
        self.status == StatusCode::OK
    }

    fn of(edge: &Edge, outcome: Result<Passed, EnforceError>) -> Result<Self, Refusal> {
        match outcome {
            Ok(passed) => Self::passed(edge, &passed),
            Err(EnforceError::Refused { refusal, scheme }) => Ok(Self::refused(edge, refusal, scheme)),
            Err(EnforceError::Store(error)) => Ok(Self::failed(error.into())),
        }
    }

    fn passed(edge: &Edge, passed: &Passed) -> Result<Self, Refusal> {
        let value = |text: String| HeaderValue::try_from(text).map_err(|_| EdgeRefusal::Internal);
        // An action is a name of the schema, which may have characters that no header field has.
        let action =
            percent_encoding::utf8_percent_encode(passed.action(), percent_encoding::CONTROLS).to_string();
        let headers = vec![
            (SUBJECT, value(passed.subject().to_string())?),
            (ACTION, value(action)?),
            (DECISION, value(passed.decision().to_string())?),
            (EPOCH, HeaderValue::from(passed.epoch())),
        ];
        let nonce = (passed.scheme() == Scheme::Dpop).then(|| nonce(edge)).flatten();
        Ok(Self { status: StatusCode::OK, headers, nonce, body: String::new() })
    }

    fn refused(edge: &Edge, refusal: EnforceRefusal, scheme: Scheme) -> Self {
        let challenges = challenges(&refusal, scheme);
        let mut verdict = Self::failed(refusal.into());
        verdict.headers.extend(challenges.into_iter().map(|challenge| (WWW_AUTHENTICATE, challenge)));
        if verdict.status == StatusCode::UNAUTHORIZED {
            verdict.headers.extend(nonce(edge).map(|nonce| (DPOP_NONCE, nonce)));
        }
        verdict
    }

    fn failed(refusal: Refusal) -> Self {
        let problem = refusal.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = HeaderValue::try_from(&problem.code).ok();
        let headers = code.map(|code| (CODE, code)).into_iter().collect();
        Self { status, headers, nonce: None, body: serde_json::to_string(&problem).unwrap_or_default() }
    }
}

fn nonce(edge: &Edge) -> Option<HeaderValue> {
    HeaderValue::try_from(edge.verifier.dpop_nonce()).ok()
}

/// What a client is asked for, or told of what it showed (RFC 6750, 3; RFC 9449, 7.1).
fn challenges(refusal: &EnforceRefusal, scheme: Scheme) -> Vec<HeaderValue> {
    let none_shown = matches!(refusal, EnforceRefusal::NothingShown | EnforceRefusal::AuthorizationScheme);
    if none_shown {
        return vec![HeaderValue::from_static("DPoP algs=\"ES256\""), HeaderValue::from_static("Bearer")];
    }
    let Some(error) = refusal.oauth_error() else { return Vec::new() };
    let by_proof = scheme == Scheme::Dpop || matches!(refusal, EnforceRefusal::BoundAsBearer);
    let challenge = if by_proof {
        format!("DPoP error=\"{error}\", algs=\"ES256\"")
    } else {
        format!("Bearer error=\"{error}\"")
    };
    HeaderValue::try_from(challenge).into_iter().collect()
}

/// Refuses a request with a field by which a service could take it for another one.
fn not_overridden<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), EnforceRefusal> {
    match names.any(|name| OVERRIDES.contains(&name)) {
        true => Err(EnforceRefusal::Overridden),
        false => Ok(()),
    }
}

impl Edge {
    /// Counts a request of a gateway, and says whose it is.
    async fn gateway(&self, parts: &Parts) -> Result<Caller, Refusal> {
        let ClientAddress(address) = parts.extensions.get().copied().ok_or(EdgeRefusal::Internal)?;
        let class = if may_be_gateway(parts, self)? { RateClass::Evaluation } else { RateClass::Query };
        self.throttle.count(class, address)?;
        let Reader(gateway) = Reader::gateway(parts, self, RateClass::Query).await?;
        Ok(gateway)
    }

    /// The same, once more: it has counted.
    async fn gateway_again(&self, parts: &Parts) -> Result<Caller, Refusal> {
        let Reader(gateway) = Reader::gateway(parts, self, RateClass::Query).await?;
        Ok(gateway)
    }

    /// Has a description decided, in time.
    async fn verdict(
        &self,
        gateway: &Caller,
        described: Result<Described<'_>, EnforceRefusal>,
    ) -> Result<Verdict, Refusal> {
        let described = match described {
            Ok(described) => described,
            Err(refusal) => return Ok(Verdict::refused(self, refusal, Scheme::None)),
        };
        match self.in_time(self.verifier.enforce(gateway, &described)).await {
            Ok(outcome) => Verdict::of(self, outcome),
            Err(too_late) => Ok(Verdict::failed(too_late.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::tokens::live::TokenRefusal;
    use rootbound_token::dpop::DpopError;

    fn said(refusal: &EnforceRefusal, scheme: Scheme) -> Vec<String> {
        challenges(refusal, scheme).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_client_is_told_by_the_scheme_that_it_used() {
        use EnforceRefusal as R;
        let both = vec!["DPoP algs=\"ES256\"", "Bearer"];
        assert_eq!(said(&R::NothingShown, Scheme::None), both);
        assert_eq!(said(&R::AuthorizationScheme, Scheme::None), both);
        let drifted = R::Token(TokenRefusal::Drifted);
        assert_eq!(said(&drifted, Scheme::Dpop), ["DPoP error=\"invalid_token\", algs=\"ES256\""]);
        assert_eq!(said(&drifted, Scheme::Bearer), ["Bearer error=\"invalid_token\""]);
        assert_eq!(said(&R::BoundAsBearer, Scheme::Bearer), ["DPoP error=\"invalid_token\", algs=\"ES256\""]);
        let stale = R::Proof(DpopError::NonceStale);
        assert_eq!(said(&stale, Scheme::Dpop), ["DPoP error=\"use_dpop_nonce\", algs=\"ES256\""]);
        assert_eq!(said(&R::NotPermitted, Scheme::Bearer), ["Bearer error=\"insufficient_scope\""]);
        assert!(said(&R::NoRoute, Scheme::Dpop).is_empty());
    }

    #[test]
    fn fields_that_ask_for_another_request_are_refused() {
        assert!(not_overridden(["accept", "x-rootbound-subject"].into_iter()).is_ok());
        for name in OVERRIDES {
            assert_eq!(not_overridden(["accept", name].into_iter()), Err(EnforceRefusal::Overridden));
        }
    }
}
