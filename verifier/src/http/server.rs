//! The listener: accepts connections while there is room, and stops gracefully.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Edge;
use super::connection::{self, Shared};
use super::limits::{LimitOutOfBounds, Limits};
use super::slots::Slots;
use super::story::Stories;
use super::throttle::{RateClass, Throttle};
use super::tls::{self, Serving, TlsIdentity, TlsIdentityError};
use crate::flows::Verifier;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// There is nothing to serve TLS with.
    #[error(transparent)]
    Tls(#[from] TlsIdentityError),
    /// A limit limits nothing.
    #[error("[limits] {0}")]
    Limit(#[from] LimitOutOfBounds),
}

/// The running server. Dropping it stops it at once; [`Self::shutdown`] lets requests under way end.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
    serving: Arc<Serving>,
    connections: TaskTracker,
    stories: Stories,
    drain: Duration,
}

impl Server {
    /// Listens on an address (port 0: any that is free) and serves a verifier there. Needs a Tokio runtime.
    pub async fn start(
        verifier: Arc<Verifier>,
        listen: SocketAddr,
        identity: &TlsIdentity,
        limits: Limits,
    ) -> Result<Self, StartError> {
        limits.check()?;
        let serving = Arc::new(Serving::new(&verifier, identity)?);
        let (config, vouchers) = tls::server_config(&verifier, Arc::clone(&serving))?;
        let at = |error| StartError::Listen { address: listen, error };
        let listener = TcpListener::bind(listen).await.map_err(at)?;
        let address = listener.local_addr().map_err(at)?;
        let edge = Edge::new(Arc::clone(&verifier), limits);
        let shared = Arc::new(Shared {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            router: edge.router(),
            limits: Arc::clone(&edge.limits),
            verifier,
            vouchers,
        });
        let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
        let accepting = tokio::spawn(accept(
            listener,
            shared,
            Arc::clone(&edge.throttle),
            stop.clone(),
            connections.clone(),
        ));
        let (stories, drain) = (edge.stories, edge.limits.drain_timeout);
        Ok(Self { address, stop, accepting, serving, connections, stories, drain })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Reads the operator's certificate again; connections from now on see it. One of the verifier's own CA needs no
    /// reminder.
    pub fn reload(&self) -> Result<(), TlsIdentityError> {
        self.serving.reload()
    }

    /// Accepts nothing more, and returns when what is under way has ended, or has had its time.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        // The listener is closed when this returns.
        let _ = (&mut self.accepting).await;
        self.connections.close();
        let ended = async {
            self.connections.wait().await;
            self.stories.end().await;
        };
        if tokio::time::timeout(self.drain, ended).await.is_err() {
            tracing::warn!("stopping with requests under way");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    throttle: Arc<Throttle>,
    stop: CancellationToken,
    connections: TaskTracker,
) {
    let slots = Slots::new(shared.limits.max_connections, shared.limits.max_connections_per_address);
    let full = AtomicBool::new(false);
    let mut forget = tokio::time::interval(Throttle::FORGET_EVERY);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            _ = forget.tick() => {
                throttle.forget();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let Some((stream, address)) = usable(accepted).await else { continue };
        // Closed at once: whoever is ours comes back, and a queue would only feed who holds the slots.
        if throttle.count(RateClass::Connection, address.ip()).is_err() {
            tracing::debug!(%address, "too many connections a minute");
            continue;
        }
        let Some(slot) = slots.take(address.ip()) else {
            if !full.swap(true, Ordering::Relaxed) {
                tracing::warn!(%address, "no slot for a connection: [limits] max_connections, max_connections_per_address");
            }
            continue;
        };
        full.store(false, Ordering::Relaxed);
        let (shared, stop) = (Arc::clone(&shared), stop.child_token());
        connections.spawn(async move {
            // Boxed, so that a stream does not carry along what serving its request needed.
            let taken = Box::pin(connection::serve(shared, stream, address, slot, stop)).await;
            if let Some(taken) = taken {
                Box::pin(taken.run()).await;
            }
        });
    }
}

/// A failed accept concerns one connection, or the process is out of descriptors: then it must not spin.
async fn usable(accepted: io::Result<(TcpStream, SocketAddr)>) -> Option<(TcpStream, SocketAddr)> {
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            let of_one_connection = [
                io::ErrorKind::ConnectionAborted,
                io::ErrorKind::ConnectionReset,
                io::ErrorKind::ConnectionRefused,
            ];
            if !of_one_connection.contains(&error.kind()) {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            None
        }
    }
}
