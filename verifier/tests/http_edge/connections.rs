//! TLS, and clients that are slow, silent or many.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rootbound_verifier::http::{
    Limits, Rate, Server, ServingNames, StartError, TlsIdentity, TlsIdentityError,
};
use rustls::HandshakeKind;
use tokio::io::AsyncReadExt;

use super::client::{
    Http, begin, config, get, in_time, tcp, tls, tls_to, tls_with, until_closed, write, write_in_vain,
};
use super::stage::{Stage, begin_of_time, limits};

const SHORT: Duration = Duration::from_millis(200);

/// RFC 8446, 6: alert(21), fatal(2), protocol_version(70).
#[tokio::test]
async fn tls_1_2_is_refused() {
    let stage = Stage::new().await;
    let mut stream = tcp(&stage).await;
    write(&mut stream, &client_hello_of_tls_1_2()).await;
    let heard = until_closed(&mut stream).await;
    assert_eq!(heard.first(), Some(&21), "{heard:02x?}");
    assert_eq!(&heard[5..7], [2, 70]);
}

/// By RFC 5246, 7.4.1.2: no supported_versions, two ECDHE-ECDSA suites that a TLS 1.2 server would take.
fn client_hello_of_tls_1_2() -> Vec<u8> {
    let extensions: &[&[u8]] = &[
        b"\x00\x0a\x00\x04\x00\x02\x00\x17", // supported_groups: secp256r1
        b"\x00\x0b\x00\x02\x01\x00",         // ec_point_formats: uncompressed
        b"\x00\x0d\x00\x04\x00\x02\x04\x03", // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    let extensions = extensions.concat();
    let mut body = b"\x03\x03".to_vec();
    body.extend([7; 32]); // random
    body.extend(b"\x00"); // session_id
    body.extend(b"\x00\x04\xc0\x2b\xc0\x2c"); // cipher_suites
    body.extend(b"\x01\x00"); // compression_methods
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    handshake.extend(body);
    let mut record = b"\x16\x03\x01".to_vec();
    record.extend(u16::try_from(handshake.len()).unwrap().to_be_bytes());
    record.extend(handshake);
    record
}

/// A resumed session would skip the TPM's signature (attack 91).
#[tokio::test]
async fn no_session_is_resumed() {
    let stage = Stage::new().await;
    let config = config(&stage, None);
    for _ in 0..3 {
        let mut stream = tls_with(&stage, config.clone()).await.unwrap();
        // To the end, so that a ticket would have been heard.
        write(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        assert!(until_closed(&mut stream).await.starts_with(b"HTTP/1.1 200"));
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_half_open_handshake_is_cut_off() {
    let stage = Stage::with(Limits { handshake_timeout: SHORT, ..limits() }).await;
    let mut silent = tcp(&stage).await;
    let mut half = tcp(&stage).await;
    write_in_vain(&mut half, &client_hello_of_tls_1_2()[..40]).await;
    assert_eq!(until_closed(&mut silent).await, b"");
    assert_eq!(until_closed(&mut half).await, b"");
    in_time("an orderly client", async {
        // On a busy machine a handshake may take as long as this server allows.
        while Http::connect(&stage, None).await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let stage = Stage::with(Limits { header_timeout: SHORT, ..limits() }).await;
    let mut dribble = tls(&stage).await;
    write_in_vain(&mut dribble, b"GET /healthz HTTP/1.1\r\nhost: local").await;
    let heard = until_closed(&mut dribble).await;
    assert!(!heard.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&heard));
}

/// Each new connection costs a node a signature of its TPM.
#[tokio::test]
async fn a_pause_between_requests_is_no_slow_head() {
    let stage = Stage::with(Limits { header_timeout: SHORT, ..limits() }).await;
    let mut pausing = in_time("a connection whose first head is in time", async {
        loop {
            // On a busy machine a head may take as long as this server allows.
            let Ok(mut http) = Http::connect(&stage, None).await else { continue };
            if http.send(get("/healthz")).await.is_ok() {
                return http;
            }
        }
    })
    .await;
    // It takes as long as a head may.
    let mut silent = tls(&stage).await;
    until_closed(&mut silent).await;
    assert_eq!(pausing.send(get("/healthz")).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_silent_connection_is_closed_with_either_protocol() {
    let stage = Stage::with(Limits { idle_timeout: SHORT, ..limits() }).await;
    let mut http_1 = tls(&stage).await;
    until_closed(&mut http_1).await;

    let mut config = (*config(&stage, None)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut http_2 = tls_with(&stage, config.into()).await.unwrap();
    assert_eq!(http_2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    until_closed(&mut http_2).await;
}

/// However busy, a connection is closed at its age, so that the caller proves again that it holds its key.
#[tokio::test]
async fn a_busy_connection_is_closed_at_its_age() {
    let stage = Stage::with(Limits { connection_age: SHORT, ..limits() }).await;
    let mut http = Http::connect(&stage, None).await.unwrap();
    in_time("a connection that should be closed", async {
        while let Ok(answer) = http.send(get("/healthz")).await {
            assert_eq!(answer.status, StatusCode::OK, "no request is lost");
        }
    })
    .await;
}

#[tokio::test]
async fn http_2_is_served() {
    let stage = Stage::new().await;
    let mut config = (*config(&stage, None)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tls_with(&stage, config.into()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://localhost/v1/whoami").body(Empty::<Bytes>::new()).unwrap();
    let response = in_time("a request", sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("certificate_required"));
}

/// RFC 9113, 6.5: the server's first frame is SETTINGS(4), whose SETTINGS_MAX_CONCURRENT_STREAMS(3) is what an attester
/// needs, so that a connection does not multiply what a client may have under way.
#[tokio::test]
async fn an_http_2_connection_carries_few_requests_at_once() {
    let stage = Stage::new().await;
    let mut config = (*config(&stage, None)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = tls_with(&stage, config.into()).await.unwrap();
    write(&mut stream, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut head = [0; 9];
    in_time("a frame", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], 4, "{head:02x?}");
    let mut settings = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    in_time("settings", stream.read_exact(&mut settings)).await.unwrap();
    let most = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).map(|setting| setting[2..].to_vec());
    assert_eq!(most, Some(vec![0, 0, 0, 8]));
}

/// Holds connections until there is no room, then makes room.
async fn fill(stage: &Stage, room: usize) {
    let mut held = Vec::new();
    for _ in 0..room {
        let mut stream = tls(stage).await;
        write(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut heard = [0; 12];
        in_time("an answer", stream.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 200");
        held.push(stream);
    }
    for _ in 0..3 {
        let mut refused = tcp(stage).await;
        assert_eq!(until_closed(&mut refused).await, b"", "one connection too many");
    }
    held.clear();
    in_time("room", async {
        while Http::connect(stage, None).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_by_address() {
    let most = |number| NonZeroU32::new(number).unwrap();
    fill(&Stage::with(Limits { max_connections: most(3), ..limits() }).await, 3).await;
    fill(&Stage::with(Limits { max_connections_per_address: most(2), ..limits() }).await, 2).await;
}

#[tokio::test]
async fn the_serving_certificate_is_renewed_before_it_expires() {
    let stage = Stage::new().await;
    let served = async || {
        let stream = tls(&stage).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = served().await;
    assert_eq!(served().await, first, "the same as long as it is good");
    stage.clock.advance(Duration::from_secs(13 * 3600));
    let second = served().await;
    assert_ne!(second, first);
    // The client checks the dates by the same clock: each handshake says that the certificate is good now.
    stage.clock.advance(Duration::from_secs(30 * 3600));
    assert_ne!(served().await, second);
}

#[tokio::test]
async fn an_operators_certificate_is_served_and_read_again() {
    let mut files = None;
    let stage = Stage::serving(limits(), |ca, folder| {
        let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
        ca.write_server(begin_of_time(), &certificate, &key);
        files = Some((certificate.clone(), key.clone()));
        TlsIdentity::Files { certificate, key }
    })
    .await;
    let (certificate, key) = files.unwrap();
    let served = async || {
        let stream = tls(&stage).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = served().await;
    stage.ca.write_server(begin_of_time(), &certificate, &key);
    assert_eq!(served().await, first, "until it is told");
    stage.server.reload().unwrap();
    let second = served().await;
    assert_ne!(second, first);
    // Half of a change, and rubbish: the current certificate serves on.
    stage.ca.write_server(begin_of_time(), &certificate, &stage.folder().join("other.key"));
    assert!(matches!(stage.server.reload(), Err(TlsIdentityError::Key(_))));
    std::fs::write(&certificate, "").unwrap();
    assert!(matches!(stage.server.reload(), Err(TlsIdentityError::NoCertificate { .. })));
    std::fs::remove_file(&certificate).unwrap();
    assert!(matches!(stage.server.reload(), Err(TlsIdentityError::Unreadable { .. })));
    assert_eq!(served().await, second);
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let stage = Stage::new().await;
    let identity = TlsIdentity::Minted(ServingNames::default());
    let start =
        async |address, limits| Server::start(stage.verifier.clone(), address, &identity, limits).await;
    let taken = start(stage.address(), limits()).await.unwrap_err();
    assert!(matches!(taken, StartError::Listen { .. }), "{taken}");
    let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let boundless = Limits { drain_timeout: Duration::ZERO, ..limits() };
    assert!(matches!(start(anywhere, boundless).await.unwrap_err(), StartError::Limit(_)));
    stage.clock.advance(Duration::from_secs(400 * 24 * 3600));
    let expired = start(anywhere, limits()).await.unwrap_err();
    assert!(matches!(expired, StartError::Tls(TlsIdentityError::Issue(_))), "{expired}");
}

#[tokio::test]
async fn too_many_connections_a_minute_are_not_answered() {
    let stage = Stage::with(Limits { connections: Rate::new(1, 3), ..limits() }).await;
    for _ in 0..3 {
        drop(tls(&stage).await);
    }
    let mut refused = tcp(&stage).await;
    assert_eq!(until_closed(&mut refused).await, b"");
}

#[tokio::test]
async fn a_stop_lets_a_request_under_way_end() {
    let stage = Stage::new().await;
    let (address, config) = (stage.address(), config(&stage, None));
    let mut stream = begin(&stage, "/v1/challenges", 1).await;
    let Stage { server, .. } = stage;
    let stopped = tokio::spawn(server.shutdown());
    in_time("the listener to close", async {
        // Another test's server may come to listen there, which is not of this CA.
        while tls_to(address, Arc::clone(&config)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    write(&mut stream, b"x").await;
    let heard = until_closed(&mut stream).await;
    assert!(heard.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&heard));
    in_time("the stop", stopped).await.unwrap();
}
