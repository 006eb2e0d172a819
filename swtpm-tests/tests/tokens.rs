//! Tokens for workloads, held by a key in a real software TPM: fetched, shown, stolen, and worth nothing after a drift.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use rootbound_attester::client::{ClientIdentity, RequestError};
use rootbound_attester::keep::Credential;
use rootbound_attester::token::wish::{Detail, HeldBy, Permissions, Resource};
use rootbound_attester::token::{
    Call, FetchError, Nonce, Prover, TargetUrl, Token, TokenText, TokenType, TokenWish, Tokens, Wished,
};
use rootbound_attester::tpm::{Tpm, TpmError};
use rootbound_common::clock::Clock;
use rootbound_common::random;
use rootbound_common::secret::Secret;
use rootbound_swtpm_tests::daemon::AttesterSite;
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::https::{Https, Reply};
use rootbound_swtpm_tests::policies;
use rootbound_swtpm_tests::world::{Machine, World, operator};
use rootbound_swtpm_tests::{Action, Interposer, Manufacturer, Swtpm};
use rootbound_token::access::{AccessToken, Expected, ExpectedAudience, VerifiedAccessToken};
use rootbound_token::dpop::{DpopError, DpopProof, ExpectedProof, GoesWith, VerifiedProof};
use rootbound_token::jwk::{CertificateThumbprint, JwkSet, PublicJwk, Thumbprint};
use rootbound_token::jwt_svid::{ExpectedSvid, JwtSvid};
use rootbound_token::nonce::Nonces;
use rootbound_token::replay::Replays;
use rootbound_token::target_uri::TargetUri;
use rootbound_verifier::http::Limits;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use tokio::task::JoinSet;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

const ATTESTER: &str = env!("CARGO_BIN_EXE_attester-under-test");
/// What the verifier calls itself: not where it listens.
const PUBLIC_URL: &str = "https://verifier.test.example";
const ORDERS: &str = "https://orders.example";
const TPM2_SIGN: u32 = 0x15d;

/// A verifier, and a service that tokens are for.
struct Scene {
    world: World,
    orders: Https,
}

impl Scene {
    async fn new(manufacturers: &[&Manufacturer], limits: Option<Limits>) -> Self {
        let gateway = Gateway::new();
        let mut section = gateway.section("orders", &[]);
        section.audiences.push(ORDERS.to_owned().try_into().unwrap());
        let mut builder =
            World::builder().manufacturers(manufacturers).relying_party(section).public_url(PUBLIC_URL);
        if let Some(limits) = limits {
            builder = builder.http_limits(limits);
        }
        let world = builder.start().await;
        policies::put_in_force(&world.verifier, "tokens", policies::tokens()).await;
        let orders = Https::to(&world.client()).as_gateway(&gateway);
        Self { world, orders }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.world.clock) as Arc<dyn Clock>
    }

    fn tokens(&self, tpm: &Tpm, credential: &Credential) -> Tokens {
        let identity = ClientIdentity::new(tpm.clone(), credential).unwrap();
        Tokens::new(self.world.client(), identity, self.clock()).unwrap()
    }

    fn tokens_of(&self, machine: &Machine) -> Tokens {
        self.tokens(&machine.tpm, machine.attester.credential().unwrap())
    }

    /// What the service hears of a token.
    async fn introspect(&self, token: &Token) -> Value {
        introspect(&self.orders, token.access_token.reveal()).await
    }

    /// The token, as a service verifies it by the published keys.
    async fn verified(&self, token: &Token) -> VerifiedAccessToken {
        let keys = self.keys("/.well-known/jwks.json").await;
        let audience = ExpectedAudience::Named(ORDERS);
        let expected = Expected { issuer: PUBLIC_URL, audience, leeway: Duration::from_secs(5) };
        AccessToken::verify(token.access_token.reveal(), &keys, &expected, self.world.clock.now()).unwrap()
    }

    async fn keys(&self, path: &str) -> JwkSet {
        JwkSet::parse(&Https::to(&self.world.client()).get(path).await.body).unwrap()
    }
}

async fn introspect(reader: &Https, token: &str) -> Value {
    let reply = form(reader, "/oauth2/introspect", &format!("token={token}"), &[]).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    serde_json::from_slice(&reply.body).unwrap()
}

async fn form(client: &Https, path: &str, form: &str, fields: &[&str]) -> Reply {
    let length = format!("Content-Length: {}", form.len());
    let all = [&["Content-Type: application/x-www-form-urlencoded", &length][..], fields].concat();
    client.send("POST", path, &all, form.as_bytes()).await
}

fn wish(held_by: HeldBy, once: bool, details: Vec<Detail>) -> TokenWish {
    let permissions = Permissions { held_by, scope: Vec::new(), details, once };
    TokenWish::new(vec![ORDERS.parse().unwrap()], Wished::AccessToken(permissions)).unwrap()
}

fn by_key() -> TokenWish {
    wish(HeldBy::Key, false, Vec::new())
}

/// The certificate of a credential: its key, and its own name.
fn thumbprints(credential: &Credential) -> (Thumbprint, CertificateThumbprint) {
    let chain = credential.certificate_chain.as_bytes();
    let leaf = CertificateDer::pem_slice_iter(chain).next().unwrap().unwrap();
    let certificate = Certificate::from_der(&leaf).unwrap();
    let spki = certificate.tbs_certificate().subject_public_key_info().to_der().unwrap();
    (PublicJwk::from_spki(&spki).unwrap().thumbprint(), CertificateThumbprint::of_der(&leaf))
}

fn refused(outcome: Result<Token, FetchError>) -> String {
    match outcome {
        Err(FetchError::Request(RequestError::Refused(refusal))) => refusal.code.as_str().to_owned(),
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_held_by_the_key_in_the_tpm_counts_until_the_machine_drifts() {
    let swtpm = Swtpm::manufacture();
    let scene = Scene::new(&[swtpm.manufacturer()], None).await;
    let mut machine = scene.world.affirming(swtpm).await;
    let (key, _) = thumbprints(machine.attester.credential().unwrap());
    let tokens = scene.tokens_of(&machine);
    let resource = Resource { kind: "database".parse().unwrap(), id: "orders".parse().unwrap() };
    let details = vec![Detail::new(vec!["db:read".parse().unwrap()], resource)];
    let token = tokens.fetch(&wish(HeldBy::Key, false, details.clone())).await.unwrap();
    assert_eq!((token.token_type, token.authorization_details.as_ref()), (TokenType::Dpop, Some(&details)));
    assert!(token.expires_in > 0);

    let heard = scene.introspect(&token).await;
    assert_eq!(heard["active"], true, "{heard}");
    assert_eq!((&heard["iss"], &heard["aud"]), (&PUBLIC_URL.into(), &ORDERS.into()));
    assert_eq!(heard["sub"], scene.world.verifier.trust_domain().node(machine.node().await).as_str());
    assert_eq!(heard["cnf"], serde_json::json!({ "jkt": key.to_string() }));
    assert_eq!(heard["authorization_details"][0]["resource"]["id"], "orders");

    let write = Resource { kind: "database".parse().unwrap(), id: "orders".parse().unwrap() };
    let write = vec![Detail::new(vec!["db:write".parse().unwrap()], write)];
    let not_permitted = tokens.fetch(&wish(HeldBy::Key, false, write)).await;
    assert_eq!(refused(not_permitted), "no_policy_permits");

    machine.swtpm.extend(4, b"another boot loader");
    machine.attest_anew().await.unwrap();
    // By the connection and the proof of before: the TPM is not asked.
    assert_eq!(refused(tokens.fetch(&by_key()).await), "posture_contraindicated");
    assert_eq!(scene.introspect(&token).await, serde_json::json!({ "active": false }));
    let anew = scene.tokens_of(&machine).fetch(&by_key()).await.unwrap_err();
    assert!(matches!(anew.tpm(), Some(TpmError::PolicyFailed { .. })), "{anew:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_by_certificate_for_one_use_and_as_an_svid_are_what_they_are_asked_to_be() {
    let swtpm = Swtpm::manufacture();
    let scene = Scene::new(&[swtpm.manufacturer()], None).await;
    let machine = scene.world.affirming(swtpm).await;
    let (key, certificate) = thumbprints(machine.attester.credential().unwrap());
    let tokens = scene.tokens_of(&machine);
    let token = tokens.fetch(&wish(HeldBy::Certificate, false, Vec::new())).await.unwrap();
    assert_eq!(token.token_type, TokenType::Bearer);
    let heard = scene.introspect(&token).await;
    assert_eq!(heard["cnf"], serde_json::json!({ "x5t#S256": certificate.to_string() }), "{heard}");

    let once = tokens.fetch(&wish(HeldBy::Key, true, Vec::new())).await.unwrap();
    assert_eq!(scene.introspect(&once).await["active"], true);
    assert_eq!(scene.introspect(&once).await["active"], false);

    let svid = TokenWish::new(vec![ORDERS.parse().unwrap()], Wished::JwtSvid).unwrap();
    let svid = tokens.fetch(&svid).await.unwrap();
    assert_eq!(svid.token_type, TokenType::NotAnAccessToken);
    let keys = scene.keys("/.well-known/jwks-svid.json").await;
    let (trust_domain, leeway) = (scene.world.verifier.trust_domain(), Duration::from_secs(5));
    let expected = ExpectedSvid { trust_domain, audience: ORDERS, leeway };
    let now = scene.world.clock.now();
    let svid = JwtSvid::verify(svid.access_token.reveal(), &keys, &expected, now).unwrap();
    assert_eq!(svid.binding().key(), Some(&key));
}

/// A machine whose attester has ended, with its credential, and a TPM that counts its signatures.
struct Counted {
    credential: Credential,
    signatures: Arc<AtomicUsize>,
    tpm: Tpm,
    _interposer: Interposer,
    _swtpm: Swtpm,
}

impl Counted {
    fn of(machine: Machine) -> Self {
        let credential = machine.attester.credential().unwrap().clone();
        let Machine { swtpm, attester, tpm, .. } = machine;
        let ending = tpm.ending();
        drop((attester, tpm));
        assert!(ending.wait(Duration::from_secs(60)));
        let signatures = Arc::new(AtomicUsize::new(0));
        let interposer = Interposer::new(&swtpm, {
            let signatures = Arc::clone(&signatures);
            move |code, _| {
                signatures.fetch_add(usize::from(code == TPM2_SIGN), Ordering::SeqCst);
                Action::Forward
            }
        });
        let tpm = Tpm::spawn(interposer.tcti()).unwrap();
        Self { credential, signatures, tpm, _interposer: interposer, _swtpm: swtpm }
    }

    fn signatures(&self) -> usize {
        self.signatures.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_tokens_take_one_signature_for_the_connection_and_one_for_the_proof() {
    let swtpm = Swtpm::manufacture();
    let scene = Scene::new(&[swtpm.manufacturer()], None).await;
    let machine = Counted::of(scene.world.affirming(swtpm).await);
    let tokens = Arc::new(scene.tokens(&machine.tpm, &machine.credential));
    let mut fetching = JoinSet::new();
    for _ in 0..100 {
        let tokens = Arc::clone(&tokens);
        fetching.spawn(async move { tokens.fetch(&by_key()).await.unwrap() });
    }
    let mut ids = BTreeSet::new();
    for token in fetching.join_all().await {
        ids.insert(scene.verified(&token).await.claims().id.clone());
    }
    assert_eq!(ids.len(), 100);
    assert_eq!(machine.signatures(), 2);

    // The nonce of before is taken in the window after its own, and a new one alone is no reason.
    scene.world.advance(Nonces::WINDOW);
    tokens.fetch(&by_key()).await.unwrap();
    assert_eq!(machine.signatures(), 2);
    // Then it is not, and the verifier says which is.
    scene.world.advance(Nonces::WINDOW);
    let token = tokens.fetch(&by_key()).await.unwrap();
    assert_eq!(machine.signatures(), 3);
    assert_eq!(scene.introspect(&token).await["active"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_ended_is_made_anew_and_the_proof_serves_on() {
    let swtpm = Swtpm::manufacture();
    let plenty = rootbound_verifier::http::Rate::new(1_000_000, 1_000_000);
    let limits = Limits {
        connection_age: Duration::from_millis(200),
        enrollments: plenty,
        attestations: plenty,
        queries: plenty,
        connections: plenty,
        ..Limits::default()
    };
    let scene = Scene::new(&[swtpm.manufacturer()], Some(limits)).await;
    let machine = Counted::of(scene.world.affirming(swtpm).await);
    let tokens = scene.tokens(&machine.tpm, &machine.credential);
    tokens.fetch(&by_key()).await.unwrap();
    assert_eq!(machine.signatures(), 2);
    let begun = Instant::now();
    while machine.signatures() < 5 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no connection ended");
        tokens.fetch(&by_key()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_a_proof_that_were_copied_are_of_no_use_on_another_machine() {
    let manufacturer = Manufacturer::new();
    let (one, other) = (Swtpm::manufacture_by(&manufacturer), Swtpm::manufacture_by(&manufacturer));
    let scene = Scene::new(&[&manufacturer], None).await;
    let victim = scene.world.affirming(one).await;
    let mut thief = scene.world.admitted(other).await;
    thief.attester.attest().await.unwrap();
    let credential = |machine: &Machine| {
        ClientIdentity::new(machine.tpm.clone(), machine.attester.credential().unwrap()).unwrap()
    };
    let tokens = scene.tokens_of(&victim);
    let token = tokens.fetch(&by_key()).await.unwrap();

    // A proof for the token endpoint, as the victim shows it again and again, over the thief's own connection, and over one
    // without a certificate.
    let as_thief = Https::to(&scene.world.client()).as_machine(credential(&thief));
    let body = format!("grant_type=client_credentials&audience={ORDERS}");
    let asked = form(&as_thief, "/oauth2/token", &body, &["DPoP: none"]).await;
    let nonce: Nonce = asked.field("dpop-nonce").unwrap().parse().unwrap();
    let victims = Prover::new(credential(&victim)).unwrap();
    // `ath` does no harm there, so that this is a proof for the token endpoint.
    let url: TargetUrl = format!("{PUBLIC_URL}/oauth2/token").parse().unwrap();
    let call = Call { method: &Method::POST, url: &url, token: &token.access_token, nonce: Some(&nonce) };
    let proof = victims.proof(&call, scene.world.clock.now()).await.unwrap();
    let header = format!("DPoP: {proof}");
    let as_victim = Https::to(&scene.world.client()).as_machine(credential(&victim));
    for _ in 0..2 {
        assert_eq!(form(&as_victim, "/oauth2/token", &body, &[&header]).await.status, 200, "it is good");
    }
    for (client, status, code) in [
        // Its own node, and a key of which nobody knows where it is kept.
        (&as_thief, 400, "no_policy_permits"),
        // By now it was used once.
        (&as_thief, 400, "dpop_replayed"),
        (&Https::to(&scene.world.client()), 401, "client_unauthenticated"),
    ] {
        let reply = form(client, "/oauth2/token", &body, &[&header]).await;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((reply.status, &answer["code"]), (status, &code.into()), "{answer}");
    }

    // At a service: the token with a proof by another key, for another call, another token, and the same proof twice.
    let service = Service::new(&scene, &token).await;
    let thiefs = scene.tokens_of(&thief);
    let other_token = tokens.fetch(&by_key()).await.unwrap();
    let (get, post) = (Method::GET, Method::POST);
    let (here, there) = (format!("{ORDERS}/v1/7?expand=all"), format!("{ORDERS}/v1/8"));
    let nonce: Nonce = service.nonces.issue(scene.world.clock.now()).parse().unwrap();
    let prove = async |tokens: &Tokens, method, url: &str, token: &Token, nonce| {
        let url: TargetUrl = url.parse().unwrap();
        let call = Call { method, url: &url, token: &token.access_token, nonce };
        tokens.proof_for(&call).await.unwrap()
    };
    let good = prove(&tokens, &get, &here, &token, Some(&nonce)).await;
    service.replays.take(service.judge(&good).unwrap()).unwrap();
    assert!(service.replays.take(service.judge(&good).unwrap()).is_err(), "a service takes it once");
    for (proof, error) in [
        (prove(&thiefs, &get, &here, &token, Some(&nonce)).await, DpopError::Key),
        (prove(&tokens, &post, &here, &token, Some(&nonce)).await, DpopError::Method),
        (prove(&tokens, &get, &there, &token, Some(&nonce)).await, DpopError::Uri),
        (prove(&tokens, &get, &here, &other_token, Some(&nonce)).await, DpopError::TokenHash),
        (prove(&tokens, &get, &here, &token, None).await, DpopError::NonceMissing),
    ] {
        assert_eq!(service.judge(&proof).unwrap_err(), error);
    }
    // Whoever the token is not for hears nothing of it.
    assert_eq!(introspect(&as_thief, token.access_token.reveal()).await["active"], false);
}

/// A service that takes tokens with proofs, of one URL.
struct Service {
    nonces: Nonces,
    replays: Replays,
    token: VerifiedAccessToken,
    clock: Arc<dyn Clock>,
}

impl Service {
    async fn new(scene: &Scene, token: &Token) -> Self {
        let nonces = Nonces::new(Secret::generate(&mut random::system()));
        let (replays, token) = (Replays::new(100), scene.verified(token).await);
        Self { nonces, replays, token, clock: scene.clock() }
    }

    fn judge(&self, proof: &str) -> Result<VerifiedProof, DpopError> {
        let uri = TargetUri::parse(&format!("{ORDERS}/v1/7")).unwrap();
        let expected = ExpectedProof { method: "GET", uri: &uri, goes_with: GoesWith::Token(&self.token) };
        DpopProof::verify(&[proof], &expected, &self.nonces, self.clock.now())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_without_a_public_url_has_no_tokens_and_says_so() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let machine = world.affirming(swtpm).await;
    let identity = ClientIdentity::new(machine.tpm.clone(), machine.attester.credential().unwrap()).unwrap();
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let tokens = Tokens::new(world.client(), identity, clock).unwrap();
    assert_eq!(refused(tokens.fetch(&by_key()).await), "no_public_url");
}

/// The program, on the state of a machine.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_prints_tokens_and_proofs_and_says_why_it_does_not() {
    let swtpm = Swtpm::manufacture();
    let scene = Scene::new(&[swtpm.manufacturer()], None).await;
    let machine = scene.world.affirming(swtpm).await;
    let node = machine.node().await;
    let site = AttesterSite::new(ATTESTER, &machine.swtpm.tcti(), &scene.world.url(), &scene.world.bundle());
    for entry in fs::read_dir(machine.dir().join("state")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), site.state().join(entry.file_name())).unwrap();
    }
    let run = |command: &str| {
        let output = site.run(command);
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code().unwrap(), out, err)
    };
    // An swtpm takes one connection at a time.
    let Machine { swtpm, attester, tpm, .. } = machine;
    let ending = tpm.ending();
    drop((attester, tpm));
    assert!(ending.wait(Duration::from_secs(60)));
    let (code, text, err) = run(&format!("token --audience {ORDERS}"));
    assert_eq!(code, 0, "{err}");
    let token: TokenText = text.strip_suffix('\n').unwrap().to_owned().try_into().unwrap();
    assert_eq!(introspect(&scene.orders, token.reveal()).await["token_type"], "DPoP");

    let file = scene.world.path().join("token");
    fs::write(&file, &text).unwrap();
    let nonces = Nonces::new(Secret::generate(&mut random::system()));
    let nonce = nonces.issue(scene.world.clock.now());
    let (code, proof, err) = run(&format!(
        "proof --method GET --url {ORDERS}/v1/7 --token-file {} --nonce {nonce}",
        file.display()
    ));
    assert_eq!(code, 0, "{err}");
    let parsed = Token { access_token: token, ..serde_json::from_str(TOKEN).unwrap() };
    let service = Service { nonces, ..Service::new(&scene, &parsed).await };
    service.judge(proof.strip_suffix('\n').unwrap()).unwrap();

    let (code, json, err) = run(&format!(
        "token --audience {ORDERS} --action db:read --resource-type database --resource orders --binding certificate \
         --one-time --output json"
    ));
    assert_eq!(code, 0, "{err}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["token_type"], &json["issued_token_type"]), (&"Bearer".into(), &ACCESS_TOKEN.into()));
    assert_eq!(json["authorization_details"][0]["actions"], serde_json::json!(["db:read"]));
    assert!(json["access_token"].is_string() && json["expires_in"].is_u64());
    let (code, svid, err) = run(&format!("token --audience {ORDERS} --jwt-svid"));
    assert_eq!((code, svid.split('.').count()), (0, 3), "{err}");

    let (code, out, err) = run(&format!("token --audience {ORDERS} --action db:drop"));
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
    assert!(err.contains("refused by the verifier: `"), "{err}");
    scene.world.verifier.retire(node, &operator()).await.unwrap();
    let (code, _, err) = run(&format!("token --audience {ORDERS}"));
    assert_eq!(code, 4, "{err}");
    swtpm.extend(4, b"another boot loader");
    let (code, _, err) = run(&format!("token --audience {ORDERS}"));
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("hint"), "{err}");
}

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Around the text that the program prints.
const TOKEN: &str = r#"{"access_token":"a","token_type":"DPoP","expires_in":1}"#;
