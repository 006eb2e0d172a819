//! The administrative socket: a Unix socket that only the user who runs the verifier, and root, may use.
//!
//! It lies in the state directory, which nobody else may enter, has mode 0600, and each connection is asked for its user
//! by the kernel (SO_PEERCRED). What is said over it: [`message`].

mod answer;
pub mod message;
pub mod policies;
pub mod sets;
pub mod survey;
pub mod tokens;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::body;
use super::problem::{EdgeRefusal, Refusal};
use crate::config::{StateDirectory, StateLock};
use crate::flows::Verifier;
use answer::Session;
use message::{Command, Reply};

/// The one path.
pub const PATH: &str = "/v1/commands";

/// A digest set of a million digests has some 60 MB in a zstd frame, and a third more as base64. Only the owner is here.
const BODY_LIMIT: usize = 128 * 1024 * 1024;
/// The owner's own programs, none of them slow.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once.
const MAX_CONNECTIONS: usize = 16;

/// Why there is no administrative socket.
#[derive(Debug, thiserror::Error)]
#[error("administrative socket {}: {source}", path.display())]
pub struct AdminSocketError {
    path: PathBuf,
    source: io::Error,
}

/// The running administrative socket. Dropping it stops it at once and takes the file away.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
    commands: TaskTracker,
}

#[derive(Debug, Clone)]
struct Admin {
    verifier: Arc<Verifier>,
    listen: SocketAddr,
    commands: TaskTracker,
}

/// The user at the other end of a connection, as the kernel says.
#[derive(Debug, Clone, Copy)]
struct PeerUser(u32);

impl AdminSocket {
    /// Listens in the state directory, which nobody else may enter. What a killed predecessor left there is replaced: the
    /// lock says that it is gone. `listen` is what [`Command::Health`] answers with.
    pub fn start(
        verifier: Arc<Verifier>,
        state: &StateDirectory,
        _lock: &StateLock,
        listen: SocketAddr,
    ) -> Result<Self, AdminSocketError> {
        let path = &state.admin_socket();
        let failed = |source| AdminSocketError { path: path.to_owned(), source };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let (stop, commands) = (CancellationToken::new(), TaskTracker::new());
        let admin = Admin { verifier, listen, commands: commands.clone() };
        let accepting = tokio::spawn(accept(listener, router(admin), stop.clone()));
        Ok(Self { path: path.to_owned(), stop, accepting, commands })
    }

    /// Accepts nothing more, and returns when the commands under way have ended.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let _ = (&mut self.accepting).await;
        self.commands.close();
        if tokio::time::timeout(TIMEOUT, self.commands.wait()).await.is_err() {
            tracing::warn!("stopping with administrative commands under way");
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.stop.cancel();
        self.accepting.abort();
        // A file that stays is replaced by the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route(PATH, post(command))
        .fallback(async || Refusal::from(EdgeRefusal::UnknownRoute))
        .method_not_allowed_fallback(async || Refusal::from(EdgeRefusal::Method))
        .with_state(admin)
}

/// A command that has begun is brought to its end, also where the caller hangs up.
async fn command(
    State(admin): State<Admin>,
    Extension(PeerUser(user)): Extension<PeerUser>,
    request: Request,
) -> Response {
    if !may_operate(user, rustix::process::geteuid().as_raw()) {
        tracing::warn!(user, "administrative command refused");
        return Refusal::from(EdgeRefusal::NotTheOwner).into_response();
    }
    let command: Command = match body::json(request, BODY_LIMIT, TIMEOUT).await {
        Ok(command) => command,
        Err(refusal) => return Refusal::from(refusal).into_response(),
    };
    let Admin { verifier, listen, commands } = admin;
    let story = commands.spawn(async move {
        let session = Session { verifier: &verifier, listen, author: format!("uid {user}") };
        answer::answer(&session, command).await.map_err(Refusal::from)
    });
    match story.await {
        Ok(Ok(reply)) => Json::<Reply>(reply).into_response(),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(error) => {
            tracing::error!(%error, "an administrative command ended in a panic");
            Refusal::from(EdgeRefusal::Internal).into_response()
        }
    }
}

/// The user that runs the verifier, and root, who could become that user.
const fn may_operate(user: u32, own: u32) -> bool {
    user == own || user == 0
}

async fn accept(listener: UnixListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = async { (place.await, listener.accept().await) } => accepted,
        };
        match accepted {
            (Ok(place), Ok((stream, _))) => {
                tokio::spawn(serve(router.clone(), stream, place, stop.child_token()));
            }
            (Ok(_), Err(error)) => {
                tracing::error!(%error, "cannot accept administrative connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (Err(_), _) => return,
        }
    }
}

/// One request per connection is what the command line sends; more are served, while they come within the time.
async fn serve(router: Router, stream: UnixStream, _place: OwnedSemaphorePermit, stop: CancellationToken) {
    let user = match stream.peer_cred() {
        Ok(credentials) => PeerUser(credentials.uid()),
        Err(error) => return tracing::error!(%error, "the kernel does not say who connects"),
    };
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut request = request.map(|body| axum::body::Body::new(body.map_err(axum::Error::new)));
        request.extensions_mut().insert(user);
        router.clone().oneshot(request)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(TIMEOUT, connection).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_root_may_operate() {
        assert!(may_operate(1000, 1000));
        assert!(may_operate(0, 1000));
        assert!(!may_operate(1001, 1000));
        assert!(!may_operate(65_534, 0));
    }
}
