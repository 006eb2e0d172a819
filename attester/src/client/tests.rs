//! The client against a small TLS server that answers whatever it is told to.

use der::{DateTime, Decode, Encode};
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{EncodePrivateKey, EncodePublicKey};
use rootbound_common::id::NodeId;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

use super::*;

const CA: &str = "CN=test CA";

/// Hands the builder its extensions.
struct Profile(Name, Vec<Extension>);

impl BuilderProfile for Profile {
    fn get_issuer(&self, _: &Name) -> Name {
        CA.parse().unwrap()
    }

    fn get_subject(&self) -> Name {
        self.0.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        Ok(self.1.clone())
    }
}

fn certificate(subject: &str, of: &SigningKey, by: &SigningKey, extension: Extension) -> Vec<u8> {
    let date = |year| Time::from(DateTime::new(year, 1, 1, 0, 0, 0).unwrap());
    let spki = of.verifying_key().to_public_key_der().unwrap();
    let builder = CertificateBuilder::new(
        Profile(subject.parse().unwrap(), vec![extension]),
        SerialNumber::from(7u32),
        Validity::new(date(2020), date(2090)),
        SubjectPublicKeyInfoOwned::from_der(spki.as_bytes()).unwrap(),
    )
    .unwrap();
    builder.build::<_, DerSignature>(by).unwrap().to_der().unwrap()
}

/// A CA, and TLS servers with certificates of it.
pub(crate) struct World {
    folder: tempfile::TempDir,
    ca: SigningKey,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut rng = rootbound_common::random::system();
        let world =
            Self { folder: tempfile::tempdir().unwrap(), ca: SigningKey::generate_from_rng(&mut rng) };
        world.trust(&world.ca);
        world
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn trust(&self, ca: &SigningKey) {
        let basic = BasicConstraints { ca: true, path_len_constraint: None };
        let der = certificate(CA, ca, ca, basic.to_extension(&Name::default(), &[]).unwrap());
        let pem = der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &der).unwrap();
        std::fs::write(self.ca_file(), pem).unwrap();
    }

    pub(crate) fn client(&self, port: u16) -> Client {
        Client::new(VerifierConfig {
            url: format!("https://localhost:{port}").try_into().unwrap(),
            ca_file: self.ca_file(),
            request_timeout: RequestTimeout::default(),
        })
        .unwrap()
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_of(&[])
    }

    /// A server that speaks these protocols.
    pub(crate) fn acceptor_of(&self, protocols: &[&[u8]]) -> TlsAcceptor {
        let key = SigningKey::generate_from_rng(&mut rootbound_common::random::system());
        let name = GeneralName::DnsName(der::asn1::Ia5String::new("localhost").unwrap());
        let extension = SubjectAltName(vec![name]).to_extension(&Name::default(), &[]).unwrap();
        let chain = vec![certificate("CN=verifier", &key, &self.ca, extension).into()];
        let pkcs8 = PrivatePkcs8KeyDer::from(key.to_pkcs8_der().unwrap().as_bytes().to_vec());
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, PrivateKeyDer::from(pkcs8))
                .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Serves each connection the same bytes, after the head of a request has come.
    async fn serve(&self, answer: Vec<u8>, then: Then) -> u16 {
        let acceptor = self.acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                answer_one(&acceptor, tcp, &answer, then).await;
            }
        });
        port
    }

    async fn ask(&self, answer: impl Into<Vec<u8>>, then: Then) -> Result<Challenge, RequestError> {
        let port = self.serve(answer.into(), then).await;
        self.client(port).challenge(&ChallengeRequest { node: NodeId::from_bytes([1; 32]) }).await
    }
}

async fn answer_one(
    acceptor: &TlsAcceptor,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &[u8],
    then: Then,
) {
    let Ok(mut tls) = acceptor.accept(stream).await else { return };
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let Ok(byte) = tls.read_u8().await else { break };
        head.push(byte);
    }
    // The client may have heard enough before all is written.
    drop(tls.write_all(answer).await);
    drop(tls.flush().await);
    match then {
        Then::Close => drop(tls.shutdown().await),
        Then::Hang => std::future::pending().await,
    }
}

/// What a server does when it has answered.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Hang,
}

fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn challenge() -> String {
    let nonce = data_encoding::BASE64URL_NOPAD.encode(&[9; 32]);
    format!(
        r#"{{"token":"AAAA","nonce":"{nonce}","selection":[{{"bank":"sha256","pcrs":[0,7]}}],
        "credential_policy":{{"bank":"sha256","pcrs":[0]}},"attest_in":0,"expires_in":60,"more":"later"}}"#
    )
}

const JSON: &str = "content-type: application/json; charset=utf-8\r\n";
const PROBLEM: &str = "content-type: application/problem+json\r\n";

#[tokio::test]
async fn answer_is_read_and_may_have_grown() {
    let answer = World::new().ask(response("200 OK", JSON, &challenge()), Then::Close).await.unwrap();
    assert_eq!((answer.nonce.as_bytes(), answer.expires_in), ([9; 32].as_slice(), 60));
}

#[tokio::test]
async fn problem_document_is_a_refusal_with_its_code_and_pause() {
    let body = r#"{"type":"urn:rootbound:problem:rate_limited","title":"Too Many Requests","status":429,
        "detail":"slow down","code":"rate_limited"}"#;
    let headers = format!("{PROBLEM}retry-after: 17\r\n");
    let refused = World::new().ask(response("429 Too Many Requests", &headers, body), Then::Close).await;
    let Err(RequestError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code, Code::RateLimited);
    assert_eq!((refusal.status, refusal.retry_after), (429, Some(Duration::from_secs(17))));
    assert_eq!(refusal.detail, "slow down");
}

#[tokio::test]
async fn status_without_problem_document_is_an_error_of_its_own() {
    let headers = "content-type: text/html\r\nretry-after: 999999999\r\n";
    let failed = World::new().ask(response("503 Service Unavailable", headers, "<p>"), Then::Close).await;
    assert!(
        matches!(failed, Err(RequestError::Status { status: 503, retry_after: Some(pause) })
            if pause == Duration::from_secs(3600)),
        "{failed:?}"
    );
}

#[tokio::test]
async fn answer_of_another_kind_or_shape_is_refused() {
    let world = World::new();
    let html = world.ask(response("200 OK", "content-type: text/html\r\n", &challenge()), Then::Close).await;
    assert!(matches!(html, Err(RequestError::ContentType { status: 200 })), "{html:?}");
    let untyped = world.ask(response("200 OK", "", &challenge()), Then::Close).await;
    assert!(matches!(untyped, Err(RequestError::ContentType { .. })), "{untyped:?}");
    let shape = world.ask(response("200 OK", JSON, "{\n}"), Then::Close).await;
    assert!(matches!(shape, Err(RequestError::Shape { line: 2, .. })), "{shape:?}");
    let problem = world.ask(response("400 Bad Request", PROBLEM, "{}"), Then::Close).await;
    assert!(matches!(problem, Err(RequestError::Shape { .. })), "{problem:?}");
    let redirect =
        world.ask(response("302 Found", "location: https://elsewhere/\r\n", ""), Then::Close).await;
    assert!(matches!(redirect, Err(RequestError::Status { status: 302, .. })), "{redirect:?}");
    let no_http = world.ask("SSH-2.0-OpenSSH\r\n\r\n", Then::Close).await;
    assert!(matches!(no_http, Err(RequestError::Http(_))), "{no_http:?}");
}

#[tokio::test]
async fn answer_beyond_the_limit_is_cut_off() {
    let world = World::new();
    let announced = format!("HTTP/1.1 200 OK\r\n{JSON}content-length: 1048577\r\n\r\n");
    let announced = world.ask(announced, Then::Hang).await;
    assert!(matches!(announced, Err(RequestError::TooLarge)), "{announced:?}");
    let mut endless = format!("HTTP/1.1 200 OK\r\n{JSON}transfer-encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        endless.push_str("10000\r\n");
        endless.push_str(&" ".repeat(0x10000));
        endless.push_str("\r\n");
    }
    let endless = world.ask(endless, Then::Hang).await;
    assert!(matches!(endless, Err(RequestError::TooLarge)), "{endless:?}");
}

#[tokio::test]
async fn server_of_another_ca_is_refused_until_the_file_says_otherwise() {
    let world = World::new();
    let port = world.serve(response("200 OK", JSON, &challenge()).into(), Then::Close).await;
    let other = SigningKey::generate_from_rng(&mut rootbound_common::random::system());
    world.trust(&other);
    let client = world.client(port);
    let request = ChallengeRequest { node: NodeId::from_bytes([1; 32]) };
    let refused = client.challenge(&request).await;
    assert!(matches!(refused, Err(RequestError::Handshake { .. })), "{refused:?}");

    std::fs::write(world.ca_file(), "half a fi").unwrap();
    assert!(matches!(client.challenge(&request).await, Err(RequestError::Handshake { .. })));
    world.trust(&world.ca);
    assert!(matches!(client.challenge(&request).await, Err(RequestError::Handshake { .. })));
    client.challenge(&request).await.unwrap();
}

#[tokio::test]
async fn server_with_a_certificate_for_another_name_is_refused() {
    let world = World::new();
    let port = world.serve(response("200 OK", JSON, &challenge()).into(), Then::Close).await;
    let config = VerifierConfig {
        url: format!("https://127.0.0.1:{port}").try_into().unwrap(),
        ca_file: world.ca_file(),
        request_timeout: RequestTimeout::default(),
    };
    let request = ChallengeRequest { node: NodeId::from_bytes([1; 32]) };
    let refused = Client::new(config).unwrap().challenge(&request).await;
    assert!(matches!(refused, Err(RequestError::Handshake { .. })), "{refused:?}");
}

#[tokio::test]
async fn nobody_there_and_no_such_name_are_told_apart() {
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let request = ChallengeRequest { node: NodeId::from_bytes([1; 32]) };
    let nobody = world.client(free).challenge(&request).await;
    assert!(matches!(nobody, Err(RequestError::Connect { .. })), "{nobody:?}");
    let config = VerifierConfig {
        url: "https://nowhere.invalid".to_owned().try_into().unwrap(),
        ca_file: world.ca_file(),
        request_timeout: RequestTimeout::default(),
    };
    let nowhere = Client::new(config).unwrap().challenge(&request).await;
    assert!(
        matches!(nowhere, Err(RequestError::Lookup { .. } | RequestError::Timeout { stage: Stage::Lookup })),
        "{nowhere:?}"
    );
}

/// The clock stands still, and jumps to the deadline when nobody in this process has anything left to do.
#[tokio::test(start_paused = true)]
async fn silence_ends_with_the_deadline_and_says_where() {
    let world = World::new();
    let client = world.client(443);
    let start = Instant::now();
    for (answer, expected) in [
        (None, Stage::Handshake),
        (Some(String::new()), Stage::Answer),
        (Some(format!("HTTP/1.1 200 OK\r\n{JSON}content-length: 10\r\n\r\n{{")), Stage::Body),
    ] {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let acceptor = world.acceptor();
        tokio::spawn(async move {
            match answer {
                Some(answer) => answer_one(&acceptor, theirs, answer.as_bytes(), Then::Hang).await,
                None => drop((theirs, std::future::pending::<()>().await)),
            }
        });
        let tls = TlsConnector::from(Arc::new(client_config(client.trust_anchors()).unwrap()));
        let question = Question { method: Method::GET, path: "/", body: None };
        let deadline = Instant::now() + Duration::from_secs(15);
        let silent = exchange::converse::<_, Challenge>(client.url(), ours, tls, question, deadline).await;
        assert!(
            matches!(&silent, Err(RequestError::Timeout { stage }) if *stage == expected),
            "{expected:?}: {silent:?}"
        );
    }
    assert_eq!(start.elapsed().as_secs(), 45);
}

/// What a stream says before it ends, why it ends, and how often whoever shares the task had its turn meanwhile. The server
/// says `said` so many times, in one frame, and then nothing.
async fn streamed(said: &str, times: usize) -> (usize, Result<Option<Told>, RequestError>, usize) {
    let world = World::new();
    let client = world.client(443);
    let said = said.repeat(times);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{said}\r\n",
        said.len()
    );
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let acceptor = world.acceptor();
    tokio::spawn(async move { answer_one(&acceptor, theirs, answer.as_bytes(), Then::Hang).await });
    let tls = TlsConnector::from(Arc::new(client_config(client.trust_anchors()).unwrap()));
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut stream = exchange::listen(client.url(), ours, tls, "/", deadline).await.unwrap();
    let (mut events, mut turns) = (0, 0);
    let ended = tokio::select! {
        ended = async {
            loop {
                match stream.next().await {
                    Ok(Some(_)) => events += 1,
                    ended => return ended,
                }
            }
        } => ended,
        () = std::future::poll_fn(|_| {
            turns += 1;
            std::task::Poll::Pending
        }) => unreachable!(),
    };
    (events, ended, turns)
}

#[tokio::test(start_paused = true)]
async fn verifier_that_speaks_without_pause_starves_nobody_and_is_left() {
    for (said, heard) in [("event: attest\ndata: {}\n\n", 100), (": hear me out\n\n", 0)] {
        let (events, ended, turns) = streamed(said, 101).await;
        assert!(matches!(ended, Err(RequestError::TooOften)), "{said}: {ended:?}");
        assert_eq!(events, heard, "{said}");
        assert!(turns >= 100, "{said}: {turns}");
    }
    let (events, ended, _) = streamed("event: attest\ndata: {}\n\n", 100).await;
    assert!(matches!(ended, Err(RequestError::Timeout { stage: Stage::Body })), "{ended:?}");
    assert_eq!(events, 100);
}

/// A TPM that is never asked, and a credential whose key is `key`.
pub(crate) fn credential(key: &SigningKey, certificate_chain: String) -> crate::keep::Credential {
    use rootbound_common::blob::Blob;
    use rootbound_common::clock::Timestamp;
    use rootbound_common::tpm::{HashAlgorithm, PcrSet, put_sized};
    // TPMT_PUBLIC of a credential key (Part 2, table 216): ECC, SHA-256, fixedTPM to sign, a policy, ECDSA, P-256.
    let mut public = vec![0, 0x23, 0, 0x0b, 0, 4, 4, 0x32];
    put_sized(&mut public, &[7; 32]);
    public.extend([0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10]);
    let point = key.verifying_key().to_sec1_point(false);
    put_sized(&mut public, &point.as_bytes()[1..33]);
    put_sized(&mut public, &point.as_bytes()[33..]);
    crate::keep::Credential {
        node: NodeId::from_bytes([1; 32]),
        enrolled_at: Timestamp::from_millis(0),
        key: crate::keep::SavedKey {
            public: Blob::new(public).unwrap(),
            private: Blob::new(vec![1]).unwrap(),
        },
        policy: rootbound_common::wire::v1::CredentialPolicy {
            bank: HashAlgorithm::Sha256,
            pcrs: PcrSet::EMPTY,
        },
        pcr_digest: Blob::new(vec![0; 32]).unwrap(),
        certificate_chain,
        trust_bundle: String::new(),
        not_after: Timestamp::from_millis(0),
        renew_at: Timestamp::from_millis(0),
    }
}

/// A credential whose key no TPM has.
pub(crate) fn identity() -> ClientIdentity {
    let mut rng = rootbound_common::random::system();
    let (key, ca) = (SigningKey::generate_from_rng(&mut rng), SigningKey::generate_from_rng(&mut rng));
    let name = GeneralName::DnsName(der::asn1::Ia5String::new("node").unwrap());
    let extension = SubjectAltName(vec![name]).to_extension(&Name::default(), &[]).unwrap();
    let der = certificate("CN=node", &key, &ca, extension);
    let chain = der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &der).unwrap();
    let nowhere = crate::tpm::TctiConfig::Device { path: "/nonexistent/tpm".into() };
    ClientIdentity::new(crate::tpm::Tpm::spawn(nowhere).unwrap(), &credential(&key, chain)).unwrap()
}

/// The clock stands still, and jumps to the deadline when nobody in this process has anything left to do.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_kept_speaks_http_2_in_time_or_not_at_all() {
    let world = World::new();
    let client = world.client(443);
    let open = async |protocols: Option<&[&[u8]]>| {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let acceptor = protocols.map(|protocols| world.acceptor_of(protocols));
        tokio::spawn(async move {
            match acceptor {
                Some(acceptor) => drop((acceptor.accept(theirs).await, std::future::pending::<()>().await)),
                None => drop((theirs, std::future::pending::<()>().await)),
            }
        });
        let tls = client_config(client.trust_anchors()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(15);
        Kept::over(client.url(), ours, tls, deadline).await
    };
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let other = open(Some(protocols)).await;
        assert!(matches!(other, Err(RequestError::Handshake { .. })), "{other:?}");
    }
    let silent = open(None).await;
    assert!(matches!(silent, Err(RequestError::Timeout { stage: Stage::Handshake })), "{silent:?}");
    let kept = open(Some(&[b"h2"])).await.unwrap();
    assert!(!kept.has_ended());
    let deadline = Instant::now() + Duration::from_secs(15);
    let silent = kept.ask("/", http::Request::new(http_body_util::Full::default()), deadline).await;
    assert!(matches!(silent, Err(RequestError::Timeout { stage: Stage::Answer })), "{silent:?}");
}

#[test]
fn credential_is_refused_where_its_certificate_is_not_for_its_key() {
    let mut rng = rootbound_common::random::system();
    let (ours, theirs) = (SigningKey::generate_from_rng(&mut rng), SigningKey::generate_from_rng(&mut rng));
    let tpm = crate::tpm::Tpm::spawn(crate::tpm::TctiConfig::default()).unwrap();
    let name = GeneralName::DnsName(der::asn1::Ia5String::new("node").unwrap());
    let extension = SubjectAltName(vec![name]).to_extension(&Name::default(), &[]).unwrap();
    let chain = |key: &SigningKey| {
        let der = certificate("CN=node", key, &theirs, extension.clone());
        der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &der).unwrap()
    };
    let join = |chain: String| ClientIdentity::new(tpm.clone(), &credential(&ours, chain));
    join(chain(&ours)).unwrap();
    join(chain(&ours) + &chain(&theirs)).unwrap();
    assert!(matches!(join(chain(&theirs)), Err(TlsError::KeyMismatch)));
    assert!(matches!(join(chain(&theirs) + &chain(&ours)), Err(TlsError::KeyMismatch)));
    assert!(matches!(join(String::new()), Err(TlsError::Chain)));
    assert!(matches!(join(chain(&ours).replace("END", "AND")), Err(TlsError::Chain)));
    let mut other = credential(&ours, chain(&ours));
    other.key.public = rootbound_common::blob::Blob::new(vec![0; 10]).unwrap();
    assert!(matches!(ClientIdentity::new(tpm, &other), Err(TlsError::Key(_))));
}
