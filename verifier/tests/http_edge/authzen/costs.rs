//! What a caller may cost: by decisions, by refusals, by bodies that do not come, by defaults that are repeated.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use rootbound_common::clock::Clock as _;
use rootbound_verifier::http::{Limits, Rate};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::client::{config, in_time, post, request, write};
use super::super::pki::Leaf;
use super::super::stage::{Stage, limits};
use super::{EVALUATION, EVALUATIONS, Point, SEARCH_ACTION, SEARCH_SUBJECT, code, json as to};

/// Longer than a test may take.
const LONG: Duration = Duration::from_secs(600);
/// More than 64 KB.
const LONG_BODY: usize = 100_000;

fn question() -> Value {
    json!({
        "subject": { "type": "user", "id": "alice" },
        "action": { "name": "read" },
        "resource": { "type": "record", "id": "record-1" },
    })
}

fn batch(count: usize) -> Value {
    let mut batch = question();
    batch["evaluations"] = Value::from(vec![json!({}); count]);
    batch
}

async fn records(point: &Point) -> u64 {
    point.stage.verifier.store().trail_head().await.unwrap().sequence
}

/// The head of a request whose body does not come, from an address of this machine; and how the answer begins.
async fn head(
    stage: &Stage,
    leaf: &Leaf,
    from: Ipv4Addr,
    path: &str,
    length: usize,
) -> (TlsStream<TcpStream>, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let stream = socket.connect(stage.address()).await.unwrap();
    let connector = TlsConnector::from(config(stage, Some(leaf)));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nexpect: 100-continue\r\n\r\n"
    );
    write(&mut stream, head.as_bytes()).await;
    let mut heard = [0; b"HTTP/1.1 100".len()];
    in_time("an answer to a head", stream.read_exact(&mut heard)).await.unwrap();
    (stream, String::from_utf8_lossy(&heard).into_owned())
}

#[tokio::test]
async fn whoever_is_refused_is_told_before_a_byte_of_its_body_came() {
    let one = NonZeroU32::MIN;
    let limits = Limits { max_long_evaluations: one, max_bodies: one, ..limits() };
    let point = Point::with(Limits { body_timeout: LONG, long_body_timeout: LONG, ..limits }).await;
    let not_known = point.parties.ca.sign("spiffe://partner.example/other", point.stage.clock.now());
    let mut refused = Vec::new();
    for length in [LONG_BODY, 10] {
        let (stream, heard) = head(&point.stage, &not_known, Ipv4Addr::LOCALHOST, EVALUATIONS, length).await;
        assert_eq!(heard, "HTTP/1.1 403", "{length}");
        refused.push(stream);
    }
    // They hold no place.
    for length in [LONG_BODY, 10] {
        let (stream, heard) =
            head(&point.stage, &point.gateway, Ipv4Addr::LOCALHOST, EVALUATIONS, length).await;
        assert_eq!(heard, "HTTP/1.1 100", "{length}");
        refused.push(stream);
    }
}

/// Its certificate ends while its body is on its way.
#[tokio::test]
async fn a_caller_is_judged_again_when_its_body_is_there() {
    let point = Point::with(Limits { long_body_timeout: LONG, ..limits() }).await;
    let (mut stream, heard) =
        head(&point.stage, &point.gateway, Ipv4Addr::LOCALHOST, EVALUATIONS, LONG_BODY).await;
    assert_eq!(heard, "HTTP/1.1 100");
    point.stage.clock.advance(Duration::from_secs(601));
    let mut body = question().to_string().into_bytes();
    body.resize(LONG_BODY, b' ');
    stream.write_all(&body).await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = [0; b" Continue\r\n\r\nHTTP/1.1 403".len()];
    in_time("an answer", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), " Continue\r\n\r\nHTTP/1.1 403");
}

#[tokio::test]
async fn one_client_does_not_take_every_place_of_long_batches() {
    let number = |number| NonZeroU32::new(number).unwrap();
    let point = Point::with(Limits {
        max_long_evaluations: number(3),
        max_long_evaluations_per_address: number(2),
        long_body_timeout: LONG,
        ..limits()
    })
    .await;
    let begin =
        async |from: [u8; 4]| head(&point.stage, &point.gateway, from.into(), EVALUATIONS, LONG_BODY).await;
    let (one, other, third) = ([127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]);
    let (_first, heard) = begin(one).await;
    assert_eq!(heard, "HTTP/1.1 100");
    let (_second, heard) = begin(one).await;
    assert_eq!(heard, "HTTP/1.1 100");
    assert_eq!(begin(one).await.1, "HTTP/1.1 503", "a third of one client");
    let (_other, heard) = begin(other).await;
    assert_eq!(heard, "HTTP/1.1 100");
    assert_eq!(begin(third).await.1, "HTTP/1.1 503", "a fourth in all");
}

#[test]
fn by_default_one_client_has_fewer_long_batches_than_there_are() {
    let Limits { max_long_evaluations, max_long_evaluations_per_address, .. } = Limits::default();
    assert!(max_long_evaluations_per_address < max_long_evaluations);
}

#[tokio::test]
async fn the_rate_of_decisions_counts_the_questions_of_a_batch() {
    let point = Point::with(Limits { evaluations: Rate::new(1, 10), ..limits() }).await;
    let mut http = point.connect().await;
    let answer = http.send(to(EVALUATIONS, &batch(6))).await.unwrap();
    assert_eq!(answer.body["evaluations"].as_array().unwrap().len(), 6, "{answer:?}");
    let before = records(&point).await;
    let answer = http.send(to(EVALUATIONS, &batch(6))).await.unwrap();
    assert_eq!((answer.status, code(&answer)), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(records(&point).await, before, "none of it was decided");
    // It counted as a request, and three are left.
    for _ in 0..3 {
        let answer = http.send(to(EVALUATION, &question())).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    let answer = http.send(to(EVALUATION, &question())).await.unwrap();
    assert_eq!((answer.status, code(&answer)), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
}

#[tokio::test]
async fn the_rate_of_decisions_counts_a_search_as_all_that_it_may_judge() {
    for (path, page) in [(SEARCH_SUBJECT, json!({})), (SEARCH_ACTION, json!({ "limit": 1 }))] {
        let point = Point::with(Limits { evaluations: Rate::new(1, 300), ..limits() }).await;
        let mut http = point.connect().await;
        let mut search = question();
        search["page"] = page;
        let answer = http.send(to(path, &search)).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let before = records(&point).await;
        let answer = http.send(to(path, &search)).await.unwrap();
        assert_eq!((answer.status, code(&answer)), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
        assert_eq!(records(&point).await, before, "nothing was looked for");
    }
}

#[tokio::test]
async fn refused_certificates_fill_the_trail_at_the_rate_of_queries_and_no_faster() {
    let point = Point::with(Limits { queries: Rate::new(1, 2), ..limits() }).await;
    let not_known = point.parties.ca.sign("spiffe://partner.example/other", point.stage.clock.now());
    let before = records(&point).await;
    for _ in 0..2 {
        let answer = request(&point.stage, Some(&not_known), post(EVALUATION, "{}")).await.unwrap();
        assert_eq!((answer.status, code(&answer)), (StatusCode::FORBIDDEN, "relying_party_unknown"));
    }
    let refused = records(&point).await;
    assert_eq!(refused, before + 2, "each is in the trail");
    for path in super::ALL {
        let answer = request(&point.stage, Some(&not_known), post(path, "{}")).await.unwrap();
        assert_eq!((answer.status, code(&answer)), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(records(&point).await, refused, "no more of them is");
    let answer = point.connect().await.send(to(EVALUATION, &question())).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "who is known has its own rate");
}

/// A body of half a megabyte that would become half a gigabyte.
#[tokio::test]
async fn long_defaults_are_not_repeated_for_each_item() {
    let point = Point::new().await;
    let mut http = point.connect().await;
    let before = records(&point).await;
    let long = "x".repeat(500_000);
    for defaults in [
        json!({ "context": { "text": long } }),
        json!({ "resource": { "type": "record", "id": long } }),
        json!({ "context": { "list": vec!["x".repeat(1000); 500] } }),
    ] {
        let mut batch = batch(1000);
        batch.as_object_mut().unwrap().extend(defaults.as_object().unwrap().clone());
        let answer = http.send(to(EVALUATIONS, &batch)).await.unwrap();
        assert_eq!((answer.status, code(&answer)), (StatusCode::BAD_REQUEST, "body_malformed"));
        assert!(answer.body.as_str().unwrap().contains("repeated for each evaluation"), "{answer:?}");
    }
    assert_eq!(records(&point).await, before, "nothing was decided");
}
