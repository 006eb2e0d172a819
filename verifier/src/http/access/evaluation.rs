//! `POST /access/v1/evaluation`: may this subject do this to that?

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::Method;

use super::answer::{Evaluated, Evaluation, EvaluationRequest};
use super::{Arrived, ONE, RequestId, answered, message};
use crate::http::problem::Refusal;
use crate::http::throttle::RateClass;
use crate::http::{Edge, Endpoint};

pub(in crate::http) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/access/v1/evaluation",
    rate: RateClass::Evaluation,
    body: Some(ONE.bytes),
    handler: || post(evaluation),
};

/// May this subject do this to that, as things stand now?
///
/// A refusal is an answer: 200 with `decision: false`, and why in `context.code`. Of a subject about which the caller may
/// not ask it hears the same as of one that does not exist: `unknown_subject`.
#[utoipa::path(
    post,
    path = "/access/v1/evaluation",
    tag = "access",
    security(("x509_svid" = []), ("relying_party" = []), ("relying_party_token" = [])),
    request_body = EvaluationRequest,
    responses(
        (status = 200, description = "The decision", body = Evaluation),
        (status = 400, description = "Not a question, in whichever way: a code, and words", body = String, content_type = "application/json"),
        (status = 401, description = "No client certificate, and no token", body = String, content_type = "application/json"),
        (status = 403, description = "A certificate of nobody who may ask", body = String, content_type = "application/json"),
        (status = 503, description = "Too much at once, or nothing can be recorded: nothing is allowed; see Retry-After", body = String, content_type = "application/json"),
        (status = "default", description = "A code, and words", body = String, content_type = "application/json"),
    )
)]
pub(in crate::http) async fn evaluation(State(edge): State<Edge>, request: Request) -> Response {
    let id = RequestId::of(request.headers());
    id.on(evaluated(&edge, request).await)
}

async fn evaluated(edge: &Edge, request: Request) -> Result<Response, Refusal> {
    let Arrived { caller, body, address: _, _place } = edge.arrived(request, ONE).await?;
    let question = message::evaluation(body)?.question()?;
    let decided = edge.in_time(edge.verifier.evaluate(&caller, question)).await??;
    answered(&Evaluated::of(&decided))
}
