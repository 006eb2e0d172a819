//! `POST /access/v1/evaluations`: many questions at once.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::Method;

use super::answer::{Answers, Evaluated, Evaluations, EvaluationsRequest};
use super::message::{Evaluations as Asked, Malformed, Semantic, Tuple};
use super::{Arrived, BATCH, RequestId, answered};
use crate::flows::decide::Until;
use crate::http::problem::Refusal;
use crate::http::throttle::RateClass;
use crate::http::{Edge, Endpoint};

pub(in crate::http) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/access/v1/evaluations",
    rate: RateClass::Evaluation,
    body: Some(BATCH.bytes),
    handler: || post(evaluations),
};

/// Many questions at once: at most 1,000.
///
/// `subject`, `action`, `resource` and `context` above the list are defaults for its items, each as a whole. An item that is no
/// question is answered with `decision: false` and `context.error`, and stops nothing else. Without items it is one question.
#[utoipa::path(
    post,
    path = "/access/v1/evaluations",
    tag = "access",
    security(("x509_svid" = []), ("relying_party" = []), ("relying_party_token" = [])),
    request_body = EvaluationsRequest,
    responses(
        (status = 200, description = "The decisions, in the order of the questions; or the decision, where there is no list", body = Evaluations),
        (status = 400, description = "Not a batch, in whichever way: a code, and words", body = String, content_type = "application/json"),
        (status = 401, description = "No client certificate, and no token", body = String, content_type = "application/json"),
        (status = 403, description = "A certificate of nobody who may ask", body = String, content_type = "application/json"),
        (status = 503, description = "Too much at once, or nothing can be recorded: nothing is allowed; see Retry-After", body = String, content_type = "application/json"),
        (status = "default", description = "A code, and words", body = String, content_type = "application/json"),
    )
)]
pub(in crate::http) async fn evaluations(State(edge): State<Edge>, request: Request) -> Response {
    let id = RequestId::of(request.headers());
    id.on(evaluated(&edge, request).await)
}

async fn evaluated(edge: &Edge, request: Request) -> Result<Response, Refusal> {
    let Arrived { caller, address, body, _place } = edge.arrived(request, BATCH).await?;
    let (items, semantic) = match Asked::of(body)? {
        Asked::One(tuple) => {
            let decided = edge.in_time(edge.verifier.evaluate(&caller, tuple.question()?)).await??;
            return answered(&Evaluated::of(&decided));
        }
        Asked::Batch { items, semantic } => (items, semantic),
    };
    edge.count_decisions(address, items.len())?;
    let until = match semantic {
        Semantic::ExecuteAll => Until::TheEnd,
        Semantic::DenyOnFirstDeny => Until::Denied,
        Semantic::PermitOnFirstPermit => Until::Permitted,
    };
    let question = |item: Result<Tuple, Malformed>| Ok(item?.question()?);
    let questions = items.tuples().map(question);
    let decided = edge.in_time(edge.verifier.evaluate_all(&caller, questions, until)).await??;
    let evaluations = decided.iter().map(|item| match item {
        Ok(decided) => Evaluated::of(decided),
        Err(refusal) => Evaluated::failed(refusal),
    });
    answered(&Answers { evaluations: evaluations.collect() })
}
