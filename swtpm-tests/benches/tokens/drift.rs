//! How soon after evidence of drift was sent a token of the node is inactive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use http::header::CONTENT_TYPE;
use hyper::body::Bytes;
use rootbound_attester::client::{client_config, read_trust_anchors};
use rootbound_common::crypto::hash;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_common::wire::v1::{CredentialOutcome, EvidenceRequest, EvidenceResponse};
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::kept::Kept;
use rootbound_swtpm_tests::measured::Load;
use rootbound_swtpm_tests::software_tpm::{SoftwareKey, SoftwareTpm};
use rootbound_swtpm_tests::world::World;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::ORDERS;
use crate::service::introspection;
use crate::way::{form_to, of_service, text};

/// Times that one node drifts: it holds a bounded number of certificates.
const TIMES: usize = 12;

/// A service looks at a token as fast as it is answered; its node, of software keys, sends evidence that it drifted. Then the node
/// recovers, and gets another certificate and another token. The first one of so many nodes warms what is cold.
pub(crate) async fn measure(world: &World, gateway: &Gateway, nodes: usize) -> Load {
    let anchors = read_trust_anchors(&world.bundle()).expect("the trust bundle");
    let mut service = of_service(world, gateway, 1).await.pop().expect("a connection");
    let mut waited = Vec::new();
    let mut begun = Instant::now();
    for number in 0..=nodes {
        let waits = drifts(world, &anchors, &mut service).await;
        if number == 0 {
            begun = Instant::now();
        } else {
            waited.extend(waits);
        }
    }
    Load::new(waited, begun.elapsed())
}

/// Of another node.
async fn drifts(world: &World, anchors: &Arc<RootCertStore>, service: &mut Kept) -> Vec<Duration> {
    let mut node = world.affirming_simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await;
    let well = node.tpm.pcrs.clone();
    node.tpm.extend(PcrIndex::new(4).expect("a PCR"), hash(HashAlgorithm::Sha256, &[b"another loader"]));
    let drifted = node.tpm.pcrs.clone();
    let mut own =
        Kept::open(world.address(), client_config(Arc::clone(anchors)).expect("a TLS configuration")).await;
    let mut challenge = node.challenge().await.expect("a challenge");
    let mut waited = Vec::new();
    for _ in 0..TIMES {
        node.tpm.pcrs.clone_from(&well);
        let (evidence, key) = node.answer_with_request(&challenge);
        let answer = submit(&mut own, &evidence).await;
        let Some(CredentialOutcome::Issued { certificate_chain, .. }) = answer.credential else {
            panic!("{:?}", answer.credential)
        };
        let form = introspection(&token(world, anchors, &certificate_chain, &key).await);
        assert!(active(service, &form).await);
        node.tpm.pcrs.clone_from(&drifted);
        let evidence = node.answer(&answer.next);
        let sent = Instant::now();
        let inactive = async {
            while active(service, &form).await {}
            sent.elapsed()
        };
        let (answer, took) = tokio::join!(submit(&mut own, &evidence), inactive);
        challenge = answer.next;
        waited.push(took);
    }
    waited
}

async fn submit(way: &mut Kept, evidence: &EvidenceRequest) -> EvidenceResponse {
    let request = Request::post("/v1/evidence").header(CONTENT_TYPE, "application/json");
    let body = serde_json::to_vec(evidence).expect("JSON");
    let answer = way.send(request, Bytes::from(body)).await;
    serde_json::from_slice(&answer.body).expect("an answer of version 1")
}

/// A token that is bound to a certificate.
async fn token(world: &World, anchors: &Arc<RootCertStore>, chain: &str, key: &SoftwareKey) -> String {
    let chain: Result<_, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8()));
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(Arc::clone(anchors))
        .with_client_auth_cert(chain.expect("PEM"), key)
        .expect("its own key");
    let form = format!("grant_type=client_credentials&audience={ORDERS}");
    let answer = Kept::open(world.address(), tls).await.send(form_to("/oauth2/token"), form.into()).await;
    text(&answer, "access_token")
}

async fn active(way: &mut Kept, form: &Bytes) -> bool {
    let answer = way.send(form_to("/oauth2/introspect"), form.clone()).await;
    match &*answer.body {
        body if body.starts_with(b"{\"active\":true") => true,
        b"{\"active\":false}" => false,
        other => panic!("{other:?}"),
    }
}
