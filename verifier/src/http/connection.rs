//! One connection: handshake, requests, end.
//!
//! Bounded at each stage: the handshake, the head of a request and the pause between requests by time, the whole by age.
//! Whoever is silent, or dribbles, is cut off by the first of these that applies.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rand_core::Rng;
use rootbound_common::random;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::client::{Peer, Vouchers};
use super::control::{self, Stream};
use super::limits::Limits;
use super::slots::Slot;
use super::tls::ALPN_HTTP_2;
use super::unread::Watched;
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
    take: Arc<Mutex<Option<oneshot::Sender<Stream>>>>,
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

    /// Has a stream take the connection over, where it speaks HTTP/1.1 and is not about to end: then the request needs no
    /// answer, and this does not return.
    pub(super) async fn take_over(&self, stream: Stream) -> Stream {
        let take = self.take.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(take) = take else { return stream };
        match take.send(stream) {
            Ok(()) => std::future::pending().await,
            Err(stream) => stream,
        }
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
/// The same, of a relying party that shows a certificate: a gateway asks for each request of its clients. Heads take
/// [`MAX_HEAD`] each at the most, so that one costs 4 MiB where it means harm.
const MAX_STREAMS_OF_RELYING_PARTY: u32 = 256;
/// Bytes in flight on an HTTP/2 stream: our largest body.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes in flight on an HTTP/2 connection.
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// How long a client with no request under way may take for its part of an orderly end.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection that a stream has taken over: HTTP has nothing more to do with it, and holds no buffers.
pub(super) struct TakenOver {
    io: TlsStream<TcpStream>,
    stream: Stream,
    of_connection: OfConnection,
    age: Instant,
    stop: CancellationToken,
}

/// Serves a connection until it ends, or until a stream takes it over.
pub(super) async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    address: SocketAddr,
    slot: Slot,
    stop: CancellationToken,
) -> Option<TakenOver> {
    // Without it each handshake waits for a delayed acknowledgement, since there are no tickets to fill the segment.
    if stream.set_nodelay(true).is_err() {
        return None;
    }
    let handshake = timeout(shared.limits.handshake_timeout, shared.acceptor.accept(stream));
    let tls = tokio::select! {
        () = stop.cancelled() => return None,
        outcome = handshake => match outcome {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "no TLS handshake");
                return None;
            }
            Err(_) => {
                tracing::debug!(%address, "no TLS handshake in time");
                return None;
            }
        },
    };
    let (_, session) = tls.get_ref();
    let verifier = &shared.verifier;
    let chain = session.peer_certificates().unwrap_or_default();
    let peer = Peer::of(chain, &shared.vouchers, verifier.trust_domain(), verifier.now());
    // The protocol was agreed in the handshake, so that there is none to guess.
    let http_2 = session.alpn_protocol() == Some(ALPN_HTTP_2);

    let (take, mut taken) = oneshot::channel();
    let activity = Arc::new(Activity::new());
    let of_connection = OfConnection {
        activity: Arc::clone(&activity),
        slot: Arc::new(Mutex::new(Some(slot))),
        take: Arc::new(Mutex::new(Some(take).filter(|_| !http_2))),
        ending: CancellationToken::new(),
    };
    let service = service_fn(|mut request: Request<Incoming>| {
        let under_way = activity.begin();
        request.extensions_mut().insert(ClientAddress(address.ip()));
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(of_connection.clone());
        let (head, body) = request.into_parts();
        let (body, watch) = Watched::new(body, &head.headers);
        let response = shared.router.clone().oneshot(Request::from_parts(head, Body::new(body)));
        async move {
            let mut response = response.await?;
            if !http_2 && !watch.ends().await {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(under_way);
            Ok::<_, Infallible>(response)
        }
    });
    let age = Instant::now() + jittered(shared.limits.connection_age);
    let attend =
        Attend { limits: &shared.limits, address, activity: &activity, of_connection: &of_connection };
    if http_2 {
        let streams = match peer {
            Peer::Foreign(_) => MAX_STREAMS_OF_RELYING_PARTY,
            Peer::Anonymous | Peer::Svid(_) | Peer::Unfit(_) => MAX_STREAMS,
        };
        let builder = http_2_builder(streams);
        let connection = pin!(builder.serve_connection(TokioIo::new(tls), service));
        let end = |connection: Pin<&mut _>| auto::Connection::graceful_shutdown(connection);
        attend.until_the_end(connection, end, &mut taken, age, &stop).await;
        return None;
    }
    // Whoever comes has something to say: the first head is awaited from now on.
    activity.heard();
    let heard = Heard { stream: tls, activity: Arc::clone(&activity) };
    let mut connection = http_1_builder().serve_connection(TokioIo::new(heard), service);
    let end = |connection: Pin<&mut _>| http1::Connection::graceful_shutdown(connection);
    let stream = attend.until_the_end(Pin::new(&mut connection), end, &mut taken, age, &stop).await?;
    let io = connection.into_parts().io.into_inner().stream;
    Some(TakenOver { io, stream, of_connection, age, stop })
}

/// What a connection is attended with, whichever protocol it speaks.
struct Attend<'a> {
    limits: &'a Limits,
    address: SocketAddr,
    activity: &'a Activity,
    of_connection: &'a OfConnection,
}

impl Attend<'_> {
    /// Drives a connection to its end; returns the stream that takes it over, where one does.
    async fn until_the_end<C, E, S>(
        &self,
        mut connection: Pin<&mut C>,
        end: impl FnOnce(Pin<&mut C>),
        taken: &mut oneshot::Receiver<S>,
        age: Instant,
        stop: &CancellationToken,
    ) -> Option<S>
    where
        C: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        tokio::select! {
            outcome = connection.as_mut() => {
                self.ended(outcome);
                return None;
            }
            Ok(stream) = &mut *taken => return Some(stream),
            () = stop.cancelled() => {}
            () = sleep_until(age) => {}
            () = self.activity.waits_in_vain(self.limits) => {}
        }
        // A stream that comes now is refused; one that came at the same moment is waited for by nobody else.
        taken.close();
        if let Ok(stream) = taken.try_recv() {
            return Some(stream);
        }
        self.of_connection.ending.cancel();
        end(connection.as_mut());
        tokio::select! {
            outcome = connection => self.ended(outcome),
            () = tokio::time::sleep(self.limits.drain_timeout) => {
                tracing::debug!(address = %self.address, "connection cut off");
            }
            () = self.activity.idle_for(GOODBYE) => {}
        }
        None
    }

    fn ended<E: std::fmt::Display>(&self, outcome: Result<(), E>) {
        if let Err(error) = outcome {
            tracing::debug!(address = %self.address, %error, "connection ended");
        }
    }
}

impl TakenOver {
    /// Writes the stream until it ends, the client goes away, or says something: it has nothing more to say.
    pub(super) async fn run(self) {
        let Self { mut io, stream, of_connection, age, stop } = self;
        let ending = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep_until(age) => {}
            }
            of_connection.ending.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = ending => {}
            () = write(&mut io, stream) => {}
        }
        // However it goes: there is nothing left to be said.
        drop(timeout(GOODBYE, io.shutdown()).await);
    }
}

async fn write(io: &mut TlsStream<TcpStream>, stream: Stream) {
    /// How long a client may leave what it is sent: it is some bytes.
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut next = Some(Bytes::from_static(control::HEAD));
    let mut step = Box::pin(stream.step());
    while let Some(bytes) = next {
        let write = async {
            io.write_all(&bytes).await?;
            io.flush().await
        };
        if !matches!(timeout(PATIENCE, write).await, Ok(Ok(()))) {
            return;
        }
        let mut said = [0];
        next = tokio::select! {
            (bytes, stream) = &mut step => {
                step = Box::pin(stream.step());
                bytes
            }
            _ = io.read(&mut said) => None,
        };
    }
}

/// hyper's own bound on the head of a request counts the pause before it as part of it: [`Activity::waits_in_vain`] does not.
fn http_1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_headers(MAX_FIELDS).max_buf_size(MAX_HEAD);
    builder
}

fn http_2_builder(streams: u32) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Up to a tenth less, so that a fleet that connected together does not come back together.
pub(super) fn jittered(age: Duration) -> Duration {
    let part = f64::from(random::system().next_u32()) / f64::from(u32::MAX);
    age.mul_f64(1.0 - part / 10.0)
}

/// What a connection does at the moment.
#[derive(Debug)]
struct Activity {
    state: Mutex<State>,
    /// A head has begun.
    begun: Notify,
}

#[derive(Debug)]
struct State {
    /// Requests under way.
    under_way: usize,
    /// Since when there are so many.
    since: Instant,
    /// Since when the head of the next one arrives, over HTTP/1.1: the first from the beginning, others from their first byte.
    head: Option<Instant>,
}

impl Activity {
    fn new() -> Self {
        let state = State { under_way: 0, since: Instant::now(), head: None };
        Self { state: Mutex::new(state), begun: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl Fn(usize) -> usize) {
        let mut state = self.state();
        *state = State { under_way: change(state.under_way), since: Instant::now(), head: None };
    }

    /// Counts a request until what this returns is dropped.
    fn begin(self: &Arc<Self>) -> UnderWay {
        self.change(|count| count.saturating_add(1));
        UnderWay(Arc::clone(self))
    }

    /// Bytes arrived: of the head of a request, where none is under way.
    fn heard(&self) {
        let mut state = self.state();
        if state.under_way == 0 && state.head.is_none() {
            state.head = Some(Instant::now());
            self.begun.notify_one();
        }
    }

    /// Returns when the client was silent between requests, or took for a head, longer than it may.
    async fn waits_in_vain(&self, limits: &Limits) {
        loop {
            let end = {
                let state = self.state();
                let silent = state.since + limits.idle_timeout;
                let end = state.head.map_or(silent, |head| silent.min(head + limits.header_timeout));
                (state.under_way == 0).then_some(end)
            };
            let now = Instant::now();
            if end.is_some_and(|end| end <= now) {
                return;
            }
            // A request that ends while this sleeps begins a pause that ends later.
            let look = end.unwrap_or(now + limits.idle_timeout.min(limits.header_timeout));
            tokio::select! {
                () = sleep_until(look) => {}
                () = self.begun.notified() => {}
            }
        }
    }

    /// Returns when there was no request under way for so long.
    async fn idle_for(&self, pause: Duration) {
        loop {
            let (under_way, since) = {
                let state = self.state();
                (state.under_way, state.since)
            };
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

/// A stream that says when bytes arrive.
struct Heard {
    stream: TlsStream<TcpStream>,
    activity: Arc<Activity>,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.heard();
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of two things that are ready is heard first, is chance: each time it has to be the same.
    #[tokio::test]
    async fn a_stream_that_comes_while_the_connection_is_to_end_is_taken() {
        let limits = Limits { drain_timeout: Duration::from_millis(1), ..Limits::default() };
        for _ in 0..64 {
            let activity = Arc::new(Activity::new());
            let _under_way = activity.begin();
            let of_connection = OfConnection {
                activity: Arc::clone(&activity),
                slot: Arc::default(),
                take: Arc::default(),
                ending: CancellationToken::new(),
            };
            let attend = Attend {
                limits: &limits,
                address: SocketAddr::from(([127, 0, 0, 1], 1)),
                activity: &activity,
                of_connection: &of_connection,
            };
            let (take, mut taken) = oneshot::channel();
            take.send("a stream").unwrap();
            let stop = CancellationToken::new();
            stop.cancel();
            let connection = pin!(std::future::pending::<Result<(), std::fmt::Error>>());
            let age = Instant::now() + limits.connection_age;
            let stream = attend.until_the_end(connection, |_| {}, &mut taken, age, &stop).await;
            assert_eq!(stream, Some("a stream"));
        }
    }
}
