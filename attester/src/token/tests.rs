//! Fetching tokens from a small server that answers whatever it is told to. Its TLS wants no certificate, so that only proofs
//! need a TPM, which there is none of.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex as Queue;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rootbound_common::clock::SystemClock;
use tokio::net::TcpListener;

use super::wish::{HeldBy, Permissions};
use super::*;
use crate::client::tests::{World, identity};

/// An answer: status, `DPoP-Nonce`, body.
type Said = (u16, Option<&'static str>, String);

/// What came: path, proof, body.
type Heard = (String, Option<String>, String);

struct Server {
    world: World,
    port: u16,
    heard: Arc<Queue<Vec<Heard>>>,
}

impl Server {
    /// Answers in this order, each connection ending after so many.
    async fn new(answers: Vec<Said>, of_connection: usize) -> Self {
        let world = World::new();
        let acceptor = world.acceptor_of(&[b"h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = Arc::new(Queue::new(VecDeque::from(answers)));
        let heard = Arc::new(Queue::new(Vec::new()));
        let all = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(tls) = acceptor.accept(tcp).await else { continue };
                let (answers, heard) = (Arc::clone(&answers), Arc::clone(&all));
                let left = AtomicUsize::new(of_connection);
                let (end, ended) = tokio::sync::oneshot::channel::<()>();
                let end = Arc::new(Queue::new(Some(end)));
                let service = service_fn(move |request: Request<Incoming>| {
                    let less = |left: usize| left.checked_sub(1);
                    let last = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err();
                    let (answers, heard, end) = (Arc::clone(&answers), Arc::clone(&heard), Arc::clone(&end));
                    async move {
                        if last {
                            // The connection breaks instead of an answer.
                            drop(end.lock().unwrap().take());
                            std::future::pending::<()>().await;
                        }
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let text = String::from_utf8(body.to_vec()).unwrap();
                        let proof = head.headers.get("dpop").map(|proof| proof.to_str().unwrap().to_owned());
                        heard.lock().unwrap().push((head.uri.path().to_owned(), proof, text));
                        let (status, nonce, body) = answers.lock().unwrap().pop_front().expect("an answer");
                        let mut response = Response::new(Full::<Bytes>::from(body));
                        *response.status_mut() = StatusCode::from_u16(status).unwrap();
                        let headers = response.headers_mut();
                        headers.insert("content-type", HeaderValue::from_static("application/json"));
                        if let Some(nonce) = nonce {
                            headers.insert("dpop-nonce", HeaderValue::from_static(nonce));
                        }
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(async move {
                    let connection = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(tls), service);
                    tokio::select! {
                        outcome = connection => drop(outcome),
                        _ = ended => {}
                    }
                });
            }
        });
        Self { world, port, heard }
    }

    fn tokens(&self) -> Tokens {
        Tokens::new(self.world.client(self.port), identity(), Arc::new(SystemClock)).unwrap()
    }

    async fn fetch(&self, held_by: HeldBy) -> Result<Token, FetchError> {
        self.tokens().fetch(&wish(held_by)).await
    }
}

fn wish(held_by: HeldBy) -> TokenWish {
    let permissions = Permissions { held_by, scope: Vec::new(), details: Vec::new(), once: false };
    TokenWish::new(vec!["orders".parse().unwrap()], Wished::AccessToken(permissions)).unwrap()
}

fn metadata() -> Said {
    let issuer = "https://verifier.example";
    (200, None, format!(r#"{{"issuer":"{issuer}","token_endpoint":"{issuer}/oauth2/token","more":[]}}"#))
}

fn token(kind: &str) -> Said {
    (200, Some("n"), format!(r#"{{"access_token":"a.b.c","token_type":"{kind}","expires_in":60}}"#))
}

fn nonce_wanted() -> Said {
    (400, Some("n"), r#"{"error":"use_dpop_nonce","code":"dpop_nonce_stale"}"#.to_owned())
}

#[tokio::test]
async fn a_token_is_fetched_at_our_path_whatever_the_metadata_name() {
    let server = Server::new(vec![metadata(), token("bearer")], 9).await;
    let got = server.fetch(HeldBy::Certificate).await.unwrap();
    assert_eq!((got.access_token.reveal(), got.expires_in), ("a.b.c", 60));
    let heard = server.heard.lock().unwrap().clone();
    assert_eq!(heard[0].0, "/.well-known/oauth-authorization-server");
    assert_eq!((heard[1].0.as_str(), &heard[1].1), (PATH, &None));
    assert!(heard[1].2.starts_with("grant_type=client_credentials&audience=orders&"), "{heard:?}");
}

#[tokio::test]
async fn a_verifier_that_is_not_one_is_noticed() {
    let issuer = "https://bank.example";
    let elsewhere = format!(r#"{{"issuer":"{issuer}","token_endpoint":"{issuer}/transfer"}}"#);
    let failed = Server::new(vec![(200, None, elsewhere)], 9).await.fetch(HeldBy::Key).await;
    assert!(matches!(failed, Err(FetchError::Metadata(Implausible))), "{failed:?}");

    let failed = Server::new(vec![metadata(), token("DPoP")], 9).await.fetch(HeldBy::Certificate).await;
    assert!(matches!(failed, Err(FetchError::Kind(OtherKind { found: TokenType::Dpop }))), "{failed:?}");

    let failed = Server::new(vec![metadata(), nonce_wanted()], 9).await.fetch(HeldBy::Certificate).await;
    assert!(matches!(failed, Err(FetchError::Request(RequestError::Refused(_)))), "{failed:?}");

    let large = (200, None, " ".repeat(1024 * 1024 + 1));
    let failed = Server::new(vec![metadata(), large], 9).await.fetch(HeldBy::Certificate).await;
    assert!(matches!(failed, Err(FetchError::Request(RequestError::TooLarge))), "{failed:?}");
}

#[tokio::test]
async fn the_first_nonce_costs_no_signature_and_a_tpm_that_does_not_sign_is_named() {
    let server = Server::new(vec![metadata(), nonce_wanted()], 9).await;
    let failed = server.fetch(HeldBy::Key).await.unwrap_err();
    assert!(matches!(failed, FetchError::Tpm(_)) && failed.tpm().is_some(), "{failed:?}");
    let heard = server.heard.lock().unwrap().clone();
    assert_eq!(heard[1].1.as_deref(), Some("none"));
    assert_eq!(heard.len(), 2, "nothing is asked for without a proof");
}

#[tokio::test]
async fn a_connection_that_breaks_when_it_is_used_again_is_made_anew_once() {
    // Two connections of two answers each, and ones of none.
    let answers = vec![metadata(), token("bearer"), metadata(), token("bearer")];
    let server = Server::new(answers, 2).await;
    let tokens = server.tokens();
    for _ in 0..2 {
        tokens.fetch(&wish(HeldBy::Certificate)).await.unwrap();
    }
    assert_eq!(server.heard.lock().unwrap().len(), 4);

    let broken = Server::new(Vec::new(), 0).await.fetch(HeldBy::Certificate).await;
    assert!(matches!(broken, Err(FetchError::Request(RequestError::Http(_)))), "{broken:?}");
}
