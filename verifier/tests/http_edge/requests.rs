//! What is said to a stranger's bodies, paths, methods and rates.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use rootbound_verifier::http::{Limits, Rate};
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::client::{Http, ask, begin, get, in_time, post, tls, until_closed, write, write_in_vain};
use super::stage::{Stage, limits, node};

/// A body may take longer than any test does, on a busy machine too.
const LONG: Duration = Duration::from_secs(600);

/// Endpoints with a body, and the most that each takes.
const WITH_BODY: [(&str, usize); 4] = [
    ("/v1/enrollments", 64 * 1024),
    ("/v1/enrollments/activate", 4 * 1024),
    ("/v1/challenges", 4 * 1024),
    ("/v1/evidence", 5 * 1024 * 1024),
];

/// What is longer has to say so beforehand.
const SHORT: usize = 64 * 1024;

#[tokio::test]
async fn a_body_over_its_limit_is_refused_whether_its_length_is_stated_or_not() {
    let stage = Stage::new().await;
    for (path, limit) in WITH_BODY {
        let stated = ask(&stage, post(path, vec![b' '; limit + 1])).await;
        assert_eq!(
            (stated.status, stated.code()),
            (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            "{path}"
        );
        let at_limit = ask(&stage, post(path, vec![b' '; limit])).await;
        assert_eq!(at_limit.code(), "body_malformed", "{path}");

        let mut stream = tls(&stage).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n{:x}\r\n",
            limit.min(SHORT) + 1
        );
        write(&mut stream, head.as_bytes()).await;
        write_in_vain(&mut stream, &vec![b' '; limit.min(SHORT) + 1]).await;
        let heard = until_closed(&mut stream).await;
        assert!(heard.starts_with(b"HTTP/1.1 413"), "{path}: {}", String::from_utf8_lossy(&heard));
    }
}

/// 1 GiB by its own account is refused before a byte of it is read (attack 47).
#[tokio::test]
async fn a_body_that_claims_to_be_huge_is_refused_at_once() {
    let stage = Stage::new().await;
    let mut stream = tls(&stage).await;
    let head = "POST /v1/evidence HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 1073741824\r\n\r\n";
    write(&mut stream, head.as_bytes()).await;
    let heard = until_closed(&mut stream).await;
    assert!(heard.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&heard));
}

#[tokio::test]
async fn only_uncompressed_json_is_read() {
    let stage = Stage::new().await;
    for (path, _) in WITH_BODY {
        for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
            let mut request = post(path, "{}");
            request.headers_mut().remove("content-type");
            if let Some(content_type) = content_type {
                request.headers_mut().insert("content-type", content_type.parse().unwrap());
            }
            let answer = ask(&stage, request).await;
            assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
            assert_eq!(answer.code(), "content_type", "{path}");
        }
        let mut request = post(path, "{}");
        request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        assert_eq!(ask(&stage, request).await.code(), "content_encoding", "{path}");
    }
}

#[tokio::test]
async fn malformed_deep_and_ambiguous_json_is_refused() {
    let stage = Stage::new().await;
    let deep = |times: usize| format!("{}{}", "[".repeat(times), "]".repeat(times));
    let good = json!({ "node": node(1) }).to_string();
    let twice = format!("{{\"node\":\"{0}\",\"node\":\"{0}\"}}", node(1));
    let bodies = [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{} {}".to_owned(),
        format!("{good}x"),
        format!("\u{feff}{good}"),
        deep(2000),
        format!("{{\"node\":{}}}", deep(1000)),
        twice,
        json!({ "node": node(1), "more": 1 }).to_string(),
        json!({ "node": "AB".repeat(32) }).to_string(),
        json!({ "node": format!("{}\n", node(1)) }).to_string(),
    ];
    let mut http = Http::connect(&stage, None).await.unwrap();
    for body in bodies {
        let answer = http.send(post("/v1/challenges", body.clone())).await.unwrap();
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "body_malformed"), "{body:.80}");
    }
    let mut bytes = good.clone().into_bytes();
    bytes[3] = 0xff;
    assert_eq!(http.send(post("/v1/challenges", bytes)).await.unwrap().code(), "body_malformed");
    let answer = http.send(post("/v1/challenges", good)).await.unwrap();
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "unknown_node"));
}

#[tokio::test]
async fn what_a_stranger_sends_comes_back_printable_and_short() {
    let stage = Stage::new().await;
    let field = format!("\u{1b}[31m\r\n{}", "x".repeat(3000));
    let answer = ask(&stage, post("/v1/challenges", json!({ field: 1 }).to_string())).await;
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.len() <= 200 && !detail.chars().any(char::is_control), "{detail}");
}

/// Every method of every path: those that the document describes are routed, no others are.
#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let stage = Stage::new().await;
    let document = ask(&stage, get("/openapi.json")).await.body;
    let mut http = Http::connect(&stage, None).await.unwrap();
    for (path, described) in document["paths"].as_object().unwrap() {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let request = Request::builder().method(method).uri(path).header("host", "localhost");
            let answer = http.send(request.body(Full::default()).unwrap()).await.unwrap();
            if described.get(method.to_lowercase()).is_some() {
                // Without a public URL there are no metadata, and that is said in words of their own.
                let words = String::from_utf8_lossy(&answer.bytes);
                let not_told = words.contains("no_public_url");
                let refused = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
                assert!(not_told || !refused.contains(&answer.status), "{method} {path}");
            } else if path.starts_with("/forward-auth") {
                // Gateways ask by the method of the request that they ask about.
                assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            } else {
                assert_eq!(answer.code(), "method_not_allowed", "{method} {path}");
                assert!(answer.headers.contains_key("allow"), "{method} {path}");
            }
        }
    }
    for path in
        ["/", "/v1", "/v1/", "/v1/whoami/", "/v1//whoami", "/v2/whoami", "/v1/../healthz", "/%00", "*"]
    {
        let Ok(request) = Request::builder().method(Method::GET).uri(path).body(Full::default()) else {
            continue;
        };
        assert_eq!(http.send(request).await.unwrap().code(), "unknown_route", "{path}");
    }
}

#[tokio::test]
async fn the_head_of_a_request_is_bounded() {
    let stage = Stage::new().await;
    let line = format!("x-y: {}\r\n", "z".repeat(1000));
    for (what, head) in [
        ("many fields", "x-y: z\r\n".repeat(100)),
        ("long fields", line.repeat(20)),
        ("one field without end", format!("x-y: {}", "z".repeat(40_000))),
    ] {
        let mut stream = tls(&stage).await;
        let head = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{head}\r\n");
        write_in_vain(&mut stream, head.as_bytes()).await;
        let heard = until_closed(&mut stream).await;
        assert!(!heard.starts_with(b"HTTP/1.1 2"), "{what}: {}", String::from_utf8_lossy(&heard));
    }
}

#[tokio::test]
async fn too_many_requests_from_one_address_are_refused_with_the_time_to_wait() {
    let rates = Limits {
        enrollments: Rate::new(1, 2),
        attestations: Rate::new(1, 3),
        queries: Rate::new(1, 1),
        ..limits()
    };
    let stage = Stage::with(rates).await;
    for (path, allowed) in [("/v1/enrollments", 2), ("/v1/challenges", 3)] {
        for _ in 0..allowed {
            assert_eq!(ask(&stage, post(path, "{")).await.code(), "body_malformed", "{path}");
        }
        let refused = ask(&stage, post(path, "{")).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(ask(&stage, post("/v1/evidence", "{")).await.code(), "rate_limited", "shares with challenges");
    assert_eq!(ask(&stage, post("/v1/enrollments/activate", "{")).await.code(), "rate_limited");
    assert_eq!(ask(&stage, get("/v1/whoami")).await.code(), "certificate_required");
    assert_eq!(ask(&stage, get("/v1/whoami")).await.code(), "rate_limited");
    for _ in 0..20 {
        assert_eq!(ask(&stage, get("/healthz")).await.status, StatusCode::OK, "probes are free");
    }
}

/// Places are for requests that have arrived: whoever sends only heads keeps none from others.
#[tokio::test]
async fn requests_whose_bodies_do_not_come_keep_no_place_from_others() {
    let one = std::num::NonZeroU32::MIN;
    let stage = Stage::with(Limits { max_requests: one, body_timeout: LONG, ..limits() }).await;
    let mut slow = Vec::new();
    for (path, _) in WITH_BODY {
        slow.push(begin(&stage, path, 1).await);
    }
    let mut http = Http::connect(&stage, None).await.unwrap();
    assert_eq!(http.send(get("/v1/whoami")).await.unwrap().code(), "certificate_required");
    assert_eq!(http.send(get("/readyz")).await.unwrap().status, StatusCode::OK);
    let challenge = post("/v1/challenges", json!({ "node": node(1) }).to_string());
    assert_eq!(http.send(challenge).await.unwrap().code(), "unknown_node");
    for mut slow in slow {
        write(&mut slow, b"x").await;
        let mut heard = [0; 12];
        in_time("an answer", slow.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 400");
    }
}

#[tokio::test]
async fn bodies_on_their_way_are_bounded_in_all_and_by_address() {
    let two = std::num::NonZeroU32::new(2).unwrap();
    let patient = Limits { body_timeout: LONG, ..limits() };
    for bounded in [
        Limits { max_bodies: two, ..patient.clone() },
        Limits { max_bodies_per_address: two, ..patient.clone() },
    ] {
        let stage = Stage::with(bounded).await;
        let mut first = begin(&stage, "/v1/evidence", 1).await;
        let _second = begin(&stage, "/v1/enrollments", 1).await;
        for (path, _) in WITH_BODY {
            let shed = ask(&stage, post(path, "{}")).await;
            assert_eq!((shed.status, shed.code()), (StatusCode::SERVICE_UNAVAILABLE, "too_many_bodies"));
            assert_eq!(shed.headers["retry-after"], "1");
        }
        assert_eq!(ask(&stage, get("/v1/whoami")).await.code(), "certificate_required");
        assert_eq!(ask(&stage, get("/healthz")).await.status, StatusCode::OK, "busy is not dead");
        write(&mut first, b"x").await;
        let mut heard = [0; 12];
        in_time("an answer", first.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 400");
        assert_eq!(ask(&stage, post("/v1/challenges", "{}")).await.code(), "body_malformed");
    }
}

#[tokio::test]
async fn long_bodies_are_bounded_by_themselves_and_keep_no_place_from_short_ones() {
    let one = std::num::NonZeroU32::MIN;
    let patient = Limits { body_timeout: LONG, long_body_timeout: LONG, ..limits() };
    for bounded in [
        Limits { max_long_bodies: one, ..patient.clone() },
        Limits { max_long_bodies_per_address: one, ..patient.clone() },
    ] {
        let stage = Stage::with(bounded).await;
        let _first = begin(&stage, "/v1/evidence", SHORT + 1).await;
        let shed = ask(&stage, post("/v1/evidence", vec![b' '; SHORT + 1])).await;
        assert_eq!((shed.status, shed.code()), (StatusCode::SERVICE_UNAVAILABLE, "too_many_bodies"));
        assert_eq!(ask(&stage, post("/v1/evidence", "{}")).await.code(), "body_malformed");
    }
    let short = Limits { long_body_timeout: Duration::from_millis(100), body_timeout: LONG, ..limits() };
    let stage = Stage::with(short).await;
    let mut slow = begin(&stage, "/v1/evidence", SHORT + 1).await;
    let heard = until_closed(&mut slow).await;
    assert!(heard.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&heard));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let stage = Stage::with(Limits { body_timeout: Duration::from_millis(100), ..limits() }).await;
    let mut slow = begin(&stage, "/v1/evidence", 10).await;
    write_in_vain(&mut slow, b"{").await;
    let heard = until_closed(&mut slow).await;
    assert!(heard.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&heard));
}

/// A store that is away: not ready, and not the caller's fault; the process itself is healthy.
#[tokio::test]
async fn without_its_store_the_verifier_is_not_ready_and_says_why() {
    let stage = Stage::new().await;
    assert_eq!(ask(&stage, get("/readyz")).await.body, json!({ "status": "ready" }));
    stage.store.close().await;
    let answer = ask(&stage, get("/readyz")).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "not_ready"));
    assert!(answer.body["detail"].as_str().unwrap().contains("the store does not answer"));
    let challenge = ask(&stage, post("/v1/challenges", json!({ "node": node(1) }).to_string())).await;
    assert_eq!((challenge.status, challenge.code()), (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"));
    assert!(challenge.headers.contains_key("retry-after"));
    assert_eq!(ask(&stage, get("/healthz")).await.body, json!({ "status": "ok" }));
}

#[tokio::test]
async fn an_expired_ca_is_not_ready() {
    let stage = Stage::new().await;
    let mut http = Http::connect(&stage, None).await.unwrap();
    stage.clock.advance(Duration::from_secs(366 * 24 * 3600));
    let answer = http.send(get("/readyz")).await.unwrap();
    assert!(answer.body["detail"].as_str().unwrap().contains("the CA has expired"));
}

/// Otherwise a client sends its next request into a connection that is being closed (RFC 9112, 9.6).
#[tokio::test]
async fn who_is_answered_before_the_body_came_is_told_that_the_connection_ends() {
    let stage = Stage::new().await;
    for (path, status) in [("/access/v1/evaluation", "401"), ("/v1/whoami", "405"), ("/oauth2/token", "400")]
    {
        let mut stream = tls(&stage).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
        );
        write(&mut stream, head.as_bytes()).await;
        let heard = String::from_utf8(until_closed(&mut stream).await).unwrap();
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {heard}");
        assert!(heard.contains("\r\nconnection: close\r\n"), "{path}: {heard}");
    }
    // The same, with its body: the connection goes on.
    let mut http = Http::connect(&stage, None).await.unwrap();
    for _ in 0..2 {
        let answer = http.send(post("/v1/challenges", "{}")).await.unwrap();
        assert_eq!(answer.headers.get("connection"), None, "{answer:?}");
    }
}
