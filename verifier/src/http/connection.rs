//! One connection: handshake, requests, end.
//!
//! Bounded at each stage: the handshake, the head of a request and the pause between requests by time, the whole by age.
//! Whoever is silent, or dribbles, is cut off by the first of these that applies.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rand_core::Rng;
use rootbound_common::random;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::client::{Peer, Vouchers};
use super::limits::Limits;
use super::slots::Slot;
use super::tls::ALPN_HTTP_2;
use crate::flows::Verifier;

/// Where a request comes from; set on each by [`serve`].
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// What connections share.
pub(super) struct Shared {
    pub(super) acceptor: TlsAcceptor,
    pub(super) router: Router,
    pub(super) limits: Arc<Limits>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) vouchers: Vouchers,
}

/// What an answer that lasts needs of its connection; set on each request by [`serve`].
#[derive(Debug, Clone)]
pub(super) struct OfConnection {
    activity: Arc<Activity>,
    slot: Arc<Mutex<Option<Slot>>>,
    ending: CancellationToken,
}

impl OfConnection {
    /// Counts as a request under way until what this returns is dropped.
    pub(super) fn begin(&self) -> UnderWay {
        self.activity.begin()
    }

    /// Lets another connection take the slot of this one: it has another bound from now on.
    pub(super) fn give_slot_back(&self) {
        drop(self.slot.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Returns when the connection is to end.
    pub(super) async fn ending(&self) {
        self.ending.cancelled().await;
    }
}

/// Head of a request: our longest is under 1 KB.
const MAX_HEAD: usize = 16 * 1024;
/// Fields in it.
const MAX_FIELDS: usize = 64;
/// Requests at once on an HTTP/2 connection: an attester has one, and a program that asks for itself a few more.
const MAX_STREAMS: u32 = 8;
/// Bytes in flight on an HTTP/2 stream: our largest body.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes in flight on an HTTP/2 connection.
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// How long a client with no request under way may take for its part of an orderly end.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves a connection until it ends.
pub(super) async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    address: SocketAddr,
    slot: Slot,
    stop: CancellationToken,
) {
    // Without it each handshake waits for a delayed acknowledgement, since there are no tickets to fill the segment.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let handshake = timeout(shared.limits.handshake_timeout, shared.acceptor.accept(stream));
    let tls = tokio::select! {
        () = stop.cancelled() => return,
        outcome = handshake => match outcome {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "no TLS handshake"),
            Err(_) => return tracing::debug!(%address, "no TLS handshake in time"),
        },
    };
    let (_, session) = tls.get_ref();
    let verifier = &shared.verifier;
    let chain = session.peer_certificates().unwrap_or_default();
    let peer = Peer::of(chain, &shared.vouchers, verifier.trust_domain(), verifier.now());
    let builder = builder(&shared.limits, session.alpn_protocol() == Some(ALPN_HTTP_2));

    let activity = Arc::new(Activity::new());
    let of_connection = OfConnection {
        activity: Arc::clone(&activity),
        slot: Arc::new(Mutex::new(Some(slot))),
        ending: CancellationToken::new(),
    };
    let service = service_fn(|mut request: Request<Incoming>| {
        let under_way = activity.begin();
        request.extensions_mut().insert(ClientAddress(address.ip()));
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(of_connection.clone());
        let response = shared.router.clone().oneshot(request.map(Body::new));
        async move {
            let response = response.await;
            drop(under_way);
            response
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(tls), service));
    tokio::select! {
        outcome = connection.as_mut() => return ended(address, outcome),
        () = stop.cancelled() => {}
        () = sleep_until(Instant::now() + jittered(shared.limits.connection_age)) => {}
        () = activity.idle_for(shared.limits.idle_timeout) => {}
    }
    of_connection.ending.cancel();
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        outcome = connection => ended(address, outcome),
        () = tokio::time::sleep(shared.limits.drain_timeout) => tracing::debug!(%address, "connection cut off"),
        () = activity.idle_for(GOODBYE) => {}
    }
}

fn ended(address: SocketAddr, outcome: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = outcome {
        tracing::debug!(%address, error, "connection ended");
    }
}

/// The protocol was agreed in the handshake, so that there is none to guess.
fn builder(limits: &Limits, http_2: bool) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if http_2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Up to a tenth less, so that a fleet that connected together does not come back together.
pub(super) fn jittered(age: Duration) -> Duration {
    let part = f64::from(random::system().next_u32()) / f64::from(u32::MAX);
    age.mul_f64(1.0 - part / 10.0)
}

/// Requests under way on a connection, or since when there was none.
#[derive(Debug)]
struct Activity(Mutex<(usize, Instant)>);

impl Activity {
    fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn change(&self, change: impl Fn(usize) -> usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (change(state.0), Instant::now());
    }

    /// Counts a request until what this returns is dropped.
    fn begin(self: &Arc<Self>) -> UnderWay {
        self.change(|count| count.saturating_add(1));
        UnderWay(Arc::clone(self))
    }

    /// Returns when there was no request under way for so long.
    async fn idle_for(&self, pause: Duration) {
        loop {
            let (under_way, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let end = since + pause;
            match under_way {
                0 if end <= now => return,
                0 => sleep_until(end).await,
                _ => sleep_until(now + pause).await,
            }
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.change(|count| count.saturating_sub(1));
    }
}
