//! Envoy's ext_authz: gRPC over HTTP/2 by hand, with messages of the test's own.

use std::collections::HashMap;

use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::super::admission::drift;
use super::super::client::{config, in_time, tls_with};
use super::super::pki::Leaf;
use super::super::stage::{domain, node};
use super::{Point, SERVICE};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// `CheckRequest.attributes.{source.certificate, request.http}`.
#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<Outer>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(string, tag = "4")]
    principal: String,
    #[prost(string, tag = "5")]
    certificate: String,
}

#[derive(Clone, PartialEq, Message)]
struct Outer {
    #[prost(message, optional, tag = "2")]
    http: Option<Http>,
}

#[derive(Clone, PartialEq, Message)]
struct Http {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "6")]
    scheme: String,
    #[prost(message, optional, tag = "13")]
    raw: Option<Fields>,
}

#[derive(Clone, PartialEq, Message)]
struct Fields {
    #[prost(message, repeated, tag = "1")]
    headers: Vec<Field>,
}

#[derive(Clone, PartialEq, Message)]
struct Field {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(bytes = "vec", tag = "3")]
    raw: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Number>,
    #[prost(message, optional, tag = "2")]
    denied: Option<Denied>,
    #[prost(message, optional, tag = "3")]
    ok: Option<Passed>,
}

#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Denied {
    #[prost(message, optional, tag = "1")]
    status: Option<Number>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Set>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, Message)]
struct Passed {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Set>,
    #[prost(string, repeated, tag = "5")]
    remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    to_client: Vec<Set>,
}

#[derive(Clone, PartialEq, Message)]
struct Set {
    #[prost(message, optional, tag = "1")]
    header: Option<Field>,
    #[prost(int32, tag = "3")]
    action: i32,
}

impl CheckResponse {
    /// The code in Envoy's words, the status for the client, and our code.
    fn said(&self) -> (i32, i32, &str) {
        let status = self.status.as_ref().unwrap().code;
        match &self.denied {
            Some(denied) => {
                let code = find(&denied.headers, "x-rootbound-code");
                (status, denied.status.as_ref().unwrap().code, code[0])
            }
            None => (status, 200, ""),
        }
    }
}

fn find<'a>(headers: &'a [Set], name: &str) -> Vec<&'a str> {
    let fields = headers.iter().filter_map(|set| set.header.as_ref());
    fields.filter(|field| field.key == name).map(|field| field.value.as_str()).collect()
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

async fn connect(point: &Point, leaf: Option<&Leaf>) -> SendRequest<Full<Bytes>> {
    let mut config = (*config(&point.stage, leaf)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tls_with(&point.stage, config.into()).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The messages of an answer, and its trailers, or its headers where there is nothing else.
async fn call(sender: &mut SendRequest<Full<Bytes>>, body: Vec<u8>, media_type: &str) -> (Bytes, HeaderMap) {
    let request = Request::post(format!("https://localhost{CHECK}"))
        .header("content-type", media_type)
        .header("te", "trailers")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let exchange = async {
        sender.ready().await?;
        let (parts, body) = sender.send_request(request).await?.into_parts();
        assert_eq!(parts.headers["content-type"], "application/grpc");
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or(parts.headers);
        Ok::<_, hyper::Error>((collected.to_bytes(), trailers))
    };
    in_time("a call", exchange).await.unwrap()
}

async fn check(sender: &mut SendRequest<Full<Bytes>>, attributes: Attributes) -> CheckResponse {
    let message = CheckRequest { attributes: Some(attributes) }.encode_to_vec();
    let (body, trailers) = call(sender, frame(&message), "application/grpc").await;
    assert_eq!(trailers["grpc-status"], "0", "{trailers:?}");
    assert_eq!(&body[..5], frame(&body[5..])[..5].to_vec());
    CheckResponse::decode(&body[5..]).unwrap()
}

fn described(method: &str, path: &str, fields: &[(&str, &str)]) -> Attributes {
    let headers = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (method, path) = (method.to_owned(), path.to_owned());
    let (host, scheme) = ("db.example.org".to_owned(), "https".to_owned());
    let http = Http { method, headers, path, host, scheme, raw: None };
    Attributes { source: None, request: Some(Outer { http: Some(http) }) }
}

fn from(leaf: &Leaf, mut attributes: Attributes) -> Attributes {
    let text = data_encoding::BASE64.encode(&leaf.chain[0]);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    let certificate =
        percent_encoding::utf8_percent_encode(&pem, percent_encoding::NON_ALPHANUMERIC).to_string();
    let certificate = certificate.replace("%2D", "-");
    attributes.source = Some(Peer { principal: domain().node(node(1)).to_string(), certificate });
    attributes
}

#[tokio::test]
async fn what_a_token_permits_passes_envoy_until_the_node_drifts() {
    let point = Point::new().await;
    let key = point.key();
    let token = point.reader(Some(&key)).await;
    let mut envoy = connect(&point, Some(&point.gateway)).await;
    let ask = async |envoy: &mut SendRequest<Full<Bytes>>, raw: bool| {
        let proof = point.proof(&key, "GET", &format!("{SERVICE}/records/1"), &token, |_| {});
        let authorization = format!("DPoP {token}");
        let fields =
            [("authorization", authorization.as_str()), ("dpop", &proof), ("x-rootbound-subject", "me")];
        let mut attributes = described("GET", "/records/1?a=b", &fields);
        if raw {
            let http = attributes.request.as_mut().unwrap().http.as_mut().unwrap();
            let field =
                |(key, value): (String, String)| Field { key, value: String::new(), raw: value.into_bytes() };
            http.raw =
                Some(Fields { headers: std::mem::take(&mut http.headers).into_iter().map(field).collect() });
        }
        check(envoy, attributes).await
    };
    for raw in [false, true] {
        let answer = ask(&mut envoy, raw).await;
        assert_eq!(answer.said(), (0, 200, ""), "{answer:?}");
        let passed = answer.ok.unwrap();
        assert_eq!(find(&passed.headers, "x-rootbound-subject"), [domain().node(node(1)).as_str()]);
        assert_eq!(find(&passed.headers, "x-rootbound-action"), ["read"]);
        assert_eq!(find(&passed.headers, "x-rootbound-posture-epoch"), ["1"]);
        assert!(passed.headers.iter().all(|set| set.action == 2), "in place of the client's own");
        assert!(passed.remove.contains(&"x-rootbound-gateway".to_owned()));
        assert_eq!(find(&passed.to_client, "dpop-nonce"), [point.nonce()]);
    }
    point.change(drift);
    let answer = ask(&mut envoy, false).await;
    assert_eq!(answer.said(), (16, 401, "token_drifted"));
    let denied = answer.denied.unwrap();
    assert_eq!(find(&denied.headers, "www-authenticate"), ["DPoP error=\"invalid_token\", algs=\"ES256\""]);
    assert_eq!(find(&denied.headers, "dpop-nonce"), [point.nonce()]);
    assert!(denied.body.contains("token_drifted"));
}

#[tokio::test]
async fn the_certificate_that_envoy_saw_counts_and_its_name_alone_does_not() {
    let point = Point::new().await;
    let mut envoy = connect(&point, Some(&point.gateway)).await;
    let answer = check(&mut envoy, from(&point.leaf, described("GET", "/records/1", &[]))).await;
    assert_eq!(answer.said(), (0, 200, ""), "{answer:?}");
    let mut named = from(&point.leaf, described("GET", "/records/1", &[]));
    named.source.as_mut().unwrap().certificate.clear();
    let answer = check(&mut envoy, named).await;
    assert_eq!(answer.said(), (16, 401, "credentials_missing"));
    let denied = answer.denied.unwrap();
    assert_eq!(find(&denied.headers, "www-authenticate"), ["DPoP algs=\"ES256\", Bearer"]);
    assert!(denied.headers.iter().all(|set| set.action == 2));
    // What a client writes into a field is no certificate here.
    let text = data_encoding::BASE64.encode(&point.leaf.chain[0]);
    let smuggled = described("GET", "/records/1", &[("x-rootbound-client-certificate", &text)]);
    assert_eq!(check(&mut envoy, smuggled).await.said(), (16, 401, "credentials_missing"));
    point.change(drift);
    let answer = check(&mut envoy, from(&point.leaf, described("GET", "/records/1", &[]))).await;
    assert_eq!(answer.said(), (7, 403, "client_certificate_drifted"));
}

#[tokio::test]
async fn what_two_readers_could_take_for_different_requests_does_not_pass_envoy() {
    let point = Point::new().await;
    let mut envoy = connect(&point, Some(&point.gateway)).await;
    for (method, path, fields, code) in [
        ("GET", "/records/%2e%2e/any", vec![], "target_ambiguous"),
        ("GET", "/nowhere", vec![], "route_unknown"),
        ("GET", "/records/1", vec![("x-original-url", "/any")], "target_overridden"),
        ("GET", "/records/1", vec![("X-HTTP-Method-Override", "DELETE")], "target_overridden"),
    ] {
        let attributes = from(&point.leaf, described(method, path, &fields));
        assert_eq!(check(&mut envoy, attributes).await.said(), (7, 403, code), "{path} {fields:?}");
    }
    let bearer = [("authorization", "DPoP a,DPoP b")];
    let answer = check(&mut envoy, described("GET", "/records/1", &bearer)).await;
    assert_eq!(answer.said(), (16, 401, "authorization_repeated"));
    let nothing = Attributes { source: None, request: None };
    assert_eq!(check(&mut envoy, nothing).await.said(), (7, 403, "target_not_described"));
}

#[tokio::test]
async fn a_call_that_is_none_fails_as_grpc_has_it() {
    let point = Point::new().await;
    let mut envoy = connect(&point, Some(&point.gateway)).await;
    let good = frame(&CheckRequest { attributes: Some(described("GET", "/", &[])) }.encode_to_vec());
    let compressed = [&[1], &good[1..]].concat();
    for (body, media_type, status) in [
        (vec![], "application/grpc", "3"),
        (vec![0, 0, 0, 0, 9], "application/grpc", "3"),
        (frame(&[0xff, 0xff]), "application/grpc", "3"),
        ([good.clone(), good.clone()].concat(), "application/grpc", "3"),
        (compressed, "application/grpc", "12"),
        (good.clone(), "application/json", "3"),
        (frame(&vec![0; 70_000]), "application/grpc", "8"),
    ] {
        let (_, trailers) = call(&mut envoy, body, media_type).await;
        assert_eq!(trailers["grpc-status"], status, "{trailers:?}");
    }
    // Whoever is no gateway.
    let mut stranger = connect(&point, None).await;
    let (_, trailers) = call(&mut stranger, good.clone(), "application/grpc").await;
    assert_eq!(trailers["grpc-status"], "16");
    let mut node = connect(&point, Some(&point.leaf)).await;
    let (body, _) = call(&mut node, good, "application/grpc").await;
    assert_eq!(CheckResponse::decode(&body[5..]).unwrap().said(), (7, 403, "gateway_not_relying_party"));
}

#[tokio::test]
async fn a_gateway_has_many_calls_under_way_on_one_connection() {
    let point = Point::new().await;
    let envoy = connect(&point, Some(&point.gateway)).await;
    let calls = (0..200).map(|_| {
        let (mut envoy, attributes) = (envoy.clone(), from(&point.leaf, described("GET", "/records/1", &[])));
        tokio::spawn(async move { check(&mut envoy, attributes).await.said().1 })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), 200);
    }
}
