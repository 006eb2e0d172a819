//! The HTTP edge: what strangers reach. It turns bytes into messages, calls the stories, and turns refusals into problem
//! documents; it decides nothing itself.
//!
//! - [`Server`]: listens, and stops gracefully. One connection: `connection`, over TLS 1.3 as `tls` sets it up
//! - one file per endpoint: `enrollments`, `activations`, `challenges`, `evidence`, `control`, `whoami`, `ear`,
//!   `signals`, `jwks`, `spiffe_bundle`, `healthz`, `readyz`, `openapi`
//! - `client`: who calls; `body`: what they send; [`problem`]: the one place where refusals get a status and a code
//! - `oauth`: tokens; `enforce`: gateways, and whether a request may pass
//! - `access`: decisions, by the Authorization API of AuthZEN
//! - [`limits`], `slots`, `throttle`, `story`: what a stranger may cost
//! - [`admin`]: the administrative socket, for the owner alone
//!
//! A request passes, in this order: a slot for its connection · the handshake · the head, in time · the rate of its client
//! · a slot for its body · the body, in time · a place among the requests under way · the caller's certificate, where the
//! endpoint asks for one · the message in the body.

mod access;
mod activations;
pub mod admin;
mod body;
mod challenges;
mod client;
mod connection;
mod control;
mod ear;
mod enforce;
mod enrollments;
mod evidence;
mod healthz;
mod jwks;
pub mod limits;
mod oauth;
mod openapi;
pub mod problem;
mod readyz;
mod schema;
mod server;
mod signals;
mod slots;
mod spiffe_bundle;
mod story;
mod throttle;
mod tls;
mod unread;
mod whoami;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;
use http::Method;

pub use limits::{Limits, Rate};
pub use server::{Server, StartError};
pub use tls::{ServingNames, TlsIdentity, TlsIdentityError};

use crate::flows::Verifier;
use body::{Receiving, Room};
use problem::{EdgeRefusal, Refusal};
use slots::Slots;
use story::Stories;
use throttle::{RateClass, Throttle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What handlers need.
#[derive(Debug, Clone)]
struct Edge {
    verifier: Arc<Verifier>,
    limits: Arc<Limits>,
    throttle: Arc<Throttle>,
    /// For bodies that are on their way.
    bodies: Arc<Slots>,
    long_bodies: Arc<Slots>,
    stories: Stories,
    /// For requests for decisions, under way.
    evaluations: Arc<Semaphore>,
    long_evaluations: Arc<Slots>,
}

/// A method of a path. There is one constant of this type per endpoint, all of them in [`ENDPOINTS`].
struct Endpoint {
    method: Method,
    path: &'static str,
    rate: RateClass,
    /// The longest body in bytes, where there is to be one; elsewhere none is read.
    body: Option<usize>,
    handler: fn() -> MethodRouter<Edge>,
}

/// Every endpoint.
const ENDPOINTS: [Endpoint; 28] = [
    enrollments::ENDPOINT,
    activations::ENDPOINT,
    challenges::ENDPOINT,
    evidence::ENDPOINT,
    control::ENDPOINT,
    signals::ENDPOINT,
    whoami::ENDPOINT,
    ear::ENDPOINT,
    jwks::ENDPOINT,
    healthz::ENDPOINT,
    readyz::ENDPOINT,
    openapi::ENDPOINT,
    access::configuration::ENDPOINT,
    access::evaluation::ENDPOINT,
    access::evaluations::ENDPOINT,
    access::search::SUBJECT,
    access::search::RESOURCE,
    access::search::ACTION,
    jwks::SVID,
    spiffe_bundle::ENDPOINT,
    oauth::metadata::OAUTH,
    oauth::metadata::OPENID,
    oauth::token::ENDPOINT,
    oauth::introspect::ENDPOINT,
    oauth::revoke::ENDPOINT,
    enforce::forward_auth::ENDPOINT,
    enforce::forward_auth::WITH_CERTIFICATES,
    enforce::ext_authz::ENDPOINT,
];

impl Edge {
    fn new(verifier: Arc<Verifier>, limits: Limits) -> Self {
        Self {
            verifier,
            throttle: Arc::new(Throttle::new(&limits)),
            bodies: Slots::new(limits.max_bodies, limits.max_bodies_per_address),
            stories: Stories::new(limits.max_requests, limits.request_timeout),
            long_bodies: Slots::new(limits.max_long_bodies, limits.max_long_bodies_per_address),
            evaluations: Arc::new(Semaphore::new(
                usize::try_from(limits.max_evaluations.get()).unwrap_or(Semaphore::MAX_PERMITS),
            )),
            long_evaluations: Slots::new(
                limits.max_long_evaluations,
                limits.max_long_evaluations_per_address,
            ),
            limits: Arc::new(limits),
        }
    }

    /// A place among the decisions under way, given back when it is dropped.
    fn place(&self) -> Result<OwnedSemaphorePermit, EdgeRefusal> {
        Arc::clone(&self.evaluations).try_acquire_owned().map_err(|_| EdgeRefusal::Overloaded)
    }

    /// For bodies of up to so many bytes, none of which is long.
    fn receiving_short(&self, limit: usize) -> Receiving {
        let room = Room { slots: Arc::clone(&self.bodies), within: self.limits.body_timeout };
        Receiving { short: room.clone(), long: room, limit }
    }

    /// What came of a story, if no longer is waited for it than a caller does.
    async fn in_time<S: Future>(&self, story: S) -> Result<S::Output, EdgeRefusal> {
        let outcome = tokio::time::timeout(self.limits.request_timeout, story).await;
        outcome.map_err(|_| EdgeRefusal::TimedOut)
    }

    fn receiving(&self, limit: usize) -> Receiving {
        Receiving {
            short: Room { slots: Arc::clone(&self.bodies), within: self.limits.body_timeout },
            long: Room { slots: Arc::clone(&self.long_bodies), within: self.limits.long_body_timeout },
            limit,
        }
    }

    fn router(&self) -> Router {
        let mut router = Router::new();
        for Endpoint { method: _, path, rate, body: longest, handler } in ENDPOINTS {
            let bounded = from_fn_with_state(self.stories.clone(), story::carry_through);
            let counted = from_fn_with_state((self.clone(), rate), story::throttle);
            let handler = match rate {
                // They bound what they cost themselves.
                RateClass::Free | RateClass::Evaluation => handler(),
                // It has a bound of its own, and reads memory only.
                RateClass::Stream => handler().layer(counted),
                RateClass::Connection | RateClass::Enrollment | RateClass::Attestation | RateClass::Query => {
                    let handler = handler().layer(bounded);
                    let handler = match longest {
                        // Of the endpoint's method only: another is refused as such, whatever its body.
                        Some(limit) => {
                            handler.route_layer(from_fn_with_state(self.receiving(limit), body::receive))
                        }
                        None => handler,
                    };
                    handler.layer(counted)
                }
            };
            router = router.route(path, handler);
        }
        router
            .fallback(async || Refusal::from(EdgeRefusal::UnknownRoute))
            .method_not_allowed_fallback(async || Refusal::from(EdgeRefusal::Method))
            .with_state(self.clone())
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}
