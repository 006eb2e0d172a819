//! `POST /access/v1/search/…`: which subjects, resources or actions would be allowed.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{ActionAsked, EntityAsked};
use super::message::{self, Sought};
use super::{Arrived, ONE, RequestId, answered};
use crate::flows::search::{self as flow, Found};
use crate::http::problem::Refusal;
use crate::http::throttle::RateClass;
use crate::http::{Edge, Endpoint};

pub(in crate::http) const SUBJECT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/access/v1/search/subject",
    rate: RateClass::Evaluation,
    body: Some(ONE.bytes),
    handler: || post(search_subject),
};
pub(in crate::http) const RESOURCE: Endpoint = Endpoint {
    method: Method::POST,
    path: "/access/v1/search/resource",
    rate: RateClass::Evaluation,
    body: Some(ONE.bytes),
    handler: || post(search_resource),
};
pub(in crate::http) const ACTION: Endpoint = Endpoint {
    method: Method::POST,
    path: "/access/v1/search/action",
    rate: RateClass::Evaluation,
    body: Some(ONE.bytes),
    handler: || post(search_action),
};

/// A page of results.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Results {
    /// What would be allowed; there may be none on a page, and more on the next.
    results: Vec<Item>,
    page: Page,
}

/// A subject or a resource, or an action.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Item {
    /// A subject or a resource.
    Entity {
        /// Its type, as asked for.
        #[serde(rename = "type")]
        kind: String,
        /// Its id.
        id: String,
    },
    /// An action.
    Action {
        /// Its name.
        name: String,
    },
}

/// Where a page ends.
#[derive(Serialize, ToSchema)]
struct Page {
    /// To be sent for the next page; empty where this was the last. It counts for this caller and this search alone, until
    /// the verifier starts again.
    next_token: String,
    /// Results on this page.
    count: usize,
}

/// A search. What is looked for has no `id`, or no `name`; one that is there is ignored.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct SearchRequest {
    subject: EntityAsked,
    action: ActionAsked,
    resource: EntityAsked,
    #[schema(value_type = Option<Object>)]
    context: Option<serde_json::Value>,
    page: Option<PageAsked>,
}

/// Which page.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, never read")]
struct PageAsked {
    /// `next_token` of the page before.
    token: Option<String>,
    /// Results at most; 100, and never more than 256.
    limit: Option<u64>,
}

/// Which subjects of a type may do this: nodes, or entities of the active bundle.
#[utoipa::path(
    post,
    path = "/access/v1/search/subject",
    tag = "access",
    security(("x509_svid" = []), ("relying_party" = []), ("relying_party_token" = [])),
    request_body = SearchRequest,
    responses(
        (status = 200, description = "Those of which the caller may know", body = Results),
        (status = 400, description = "Not a search, in whichever way: a code, and words", body = String, content_type = "application/json"),
        (status = 401, description = "No client certificate, and no token", body = String, content_type = "application/json"),
        (status = 403, description = "A certificate of nobody who may ask", body = String, content_type = "application/json"),
        (status = "default", description = "A code, and words", body = String, content_type = "application/json"),
    )
)]
pub(in crate::http) async fn search_subject(State(edge): State<Edge>, request: Request) -> Response {
    search(&edge, request, Sought::Subject).await
}

/// To which resources of a type this may be done: entities of the active bundle.
#[utoipa::path(
    post,
    path = "/access/v1/search/resource",
    tag = "access",
    security(("x509_svid" = []), ("relying_party" = []), ("relying_party_token" = [])),
    request_body = SearchRequest,
    responses(
        (status = 200, description = "Those", body = Results),
        (status = 400, description = "Not a search, in whichever way: a code, and words", body = String, content_type = "application/json"),
        (status = 401, description = "No client certificate, and no token", body = String, content_type = "application/json"),
        (status = 403, description = "A certificate of nobody who may ask", body = String, content_type = "application/json"),
        (status = "default", description = "A code, and words", body = String, content_type = "application/json"),
    )
)]
pub(in crate::http) async fn search_resource(State(edge): State<Edge>, request: Request) -> Response {
    search(&edge, request, Sought::Resource).await
}

/// What this subject may do to that: of the actions that the active bundle declares for the two types.
#[utoipa::path(
    post,
    path = "/access/v1/search/action",
    tag = "access",
    security(("x509_svid" = []), ("relying_party" = []), ("relying_party_token" = [])),
    request_body = SearchRequest,
    responses(
        (status = 200, description = "Those", body = Results),
        (status = 400, description = "Not a search, in whichever way: a code, and words", body = String, content_type = "application/json"),
        (status = 401, description = "No client certificate, and no token", body = String, content_type = "application/json"),
        (status = 403, description = "A certificate of nobody who may ask", body = String, content_type = "application/json"),
        (status = "default", description = "A code, and words", body = String, content_type = "application/json"),
    )
)]
pub(in crate::http) async fn search_action(State(edge): State<Edge>, request: Request) -> Response {
    search(&edge, request, Sought::Action).await
}

async fn search(edge: &Edge, request: Request, sought: Sought) -> Response {
    let id = RequestId::of(request.headers());
    id.on(found(edge, request, sought).await)
}

/// What a search counts as: so many candidates may be judged for a page, however few results it may have.
const MAX_JUDGED: usize = 256;

async fn found(edge: &Edge, request: Request, sought: Sought) -> Result<Response, Refusal> {
    let Arrived { caller, address, body, _place } = edge.arrived(request, ONE).await?;
    let (tuple, page) = message::search(body, sought)?;
    edge.count_decisions(address, MAX_JUDGED)?;
    let kind = match sought {
        Sought::Subject => Some(tuple.subject.kind.clone()),
        Sought::Resource => Some(tuple.resource.kind.clone()),
        Sought::Action => None,
    };
    let (sought, page) = (sought.into(), flow::Page { token: page.token, limit: page.limit });
    let found = edge.verifier.search(&caller, tuple.question()?, sought, page);
    let Found { names, next } = edge.in_time(found).await??;
    let item = |name| match &kind {
        Some(kind) => Item::Entity { kind: kind.clone(), id: name },
        None => Item::Action { name },
    };
    let page = Page { next_token: next.unwrap_or_default(), count: names.len() };
    answered(&Results { results: names.into_iter().map(item).collect(), page })
}

impl From<Sought> for flow::Sought {
    fn from(sought: Sought) -> Self {
        match sought {
            Sought::Subject => Self::Subject,
            Sought::Resource => Self::Resource,
            Sought::Action => Self::Action,
        }
    }
}
