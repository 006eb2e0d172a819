//! Attestation results, read by strangers: the crate `ear` of the Veraison project, and openssl.

use std::time::Duration;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ear::{Algorithm, Ear, TrustTier, claim};
use rootbound_attester::client::ClientIdentity;
use rootbound_common::crypto::hash;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_common::wire::v1::CredentialOutcome;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::https::{Https, Reply};
use rootbound_swtpm_tests::openssl::Openssl;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Machine, Simulated, World};
use serde_json::Value;

/// What the verifier calls the one attester in each result.
const LABEL: &str = "rootbound";

/// The token in an answer that must be one.
fn token(reply: &Reply) -> &str {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    std::str::from_utf8(&reply.body).unwrap()
}

/// The keys that the verifier publishes: that of results, and those of access tokens.
async fn keys(world: &World) -> Vec<Value> {
    let set = Https::to(&world.client()).get("/.well-known/jwks.json").await;
    let set: Value = serde_json::from_slice(&set.body).unwrap();
    set["keys"].as_array().unwrap().clone()
}

/// The key that a result names.
async fn key(world: &World, token: &str) -> Value {
    let header = BASE64URL_NOPAD.decode(token.split('.').next().unwrap().as_bytes()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    let named = keys(world).await.into_iter().find(|key| key["kid"] == header["kid"]);
    named.unwrap_or_else(|| panic!("{header}"))
}

/// Reads a token by the key that another names.
async fn read_as(world: &World, token: &str, named_by: &str) -> Result<Ear, ear::Error> {
    Ear::from_jwt_jwk(token, Algorithm::ES256, key(world, named_by).await.to_string().as_bytes())
}

async fn read(world: &World, token: &str) -> Result<Ear, ear::Error> {
    read_as(world, token, token).await
}

/// What a machine hears of itself, over mTLS by the key in its TPM.
async fn own_result(world: &World, machine: &Machine) -> Reply {
    let credential = machine.attester.credential().expect("a credential");
    let identity = ClientIdentity::new(machine.tpm.clone(), credential).expect("an identity");
    let client = Https::to(&world.client()).as_machine(identity);
    client.get(&format!("/v1/nodes/{}/ear?nonce=from-a-relying-party", machine.node().await)).await
}

/// A node of software keys with its certificate.
struct Certified {
    simulated: Simulated,
    client: Https,
}

impl Certified {
    async fn new(world: &World) -> Self {
        let mut tpm = SoftwareTpm::new();
        for index in [0, 4, 7] {
            extend(&mut tpm, index, "booted");
        }
        let simulated = world.affirming_simulated(tpm).await;
        let challenge = simulated.challenge().await.unwrap();
        let (request, key) = simulated.answer_with_request(&challenge);
        let answer = simulated.submit(request).await.unwrap();
        let Some(CredentialOutcome::Issued { certificate_chain, .. }) = answer.credential else {
            panic!("{:?}", answer.credential)
        };
        let client = Https::to(&world.client()).as_simulated(&certificate_chain, key);
        Self { simulated, client }
    }

    async fn own_result(&self) -> Reply {
        self.client.get(&format!("/v1/nodes/{}/ear", self.simulated.node)).await
    }
}

fn extend(tpm: &mut SoftwareTpm, index: u8, event: &str) {
    let digest = hash(HashAlgorithm::Sha256, &[event.as_bytes(), &[index]]);
    tpm.extend(PcrIndex::new(index).unwrap(), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_tpms_node_is_affirmed_by_name_boot_and_hardware() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let machine = world.affirming(swtpm).await;
    let reply = own_result(&world, &machine).await;
    assert!(reply.field("content-type").unwrap().starts_with("application/eat+jwt; eat_profile=\"tag:"));
    let ear = read(&world, token(&reply)).await.unwrap();
    assert_eq!(ear.profile, ear::EAR_PROFILE);
    assert_eq!(ear.nonce.unwrap(), "from-a-relying-party");
    assert_eq!(ear.vid.developer, "Rootbound");
    let appraisal = &ear.submods[LABEL];
    assert_eq!(appraisal.status, TrustTier::Affirming);
    let vector = &appraisal.trust_vector;
    assert_eq!(vector.instance_identity.get(), claim::TRUSTWORTHY_INSTANCE);
    assert_eq!(vector.hardware.get(), claim::GENUINE_HARDWARE, "a manufacturer vouches for it");
    assert_eq!(vector.executables.get(), claim::APPROVED_BOOT);
    assert_eq!(vector.configuration.get(), claim::APPROVED_CONFIG);
    for silent in [vector.file_system, vector.runtime_opaque, vector.storage_opaque, vector.sourced_data] {
        assert_eq!(silent.get(), claim::NO_CLAIM);
    }
    let policies = ["urn:rootbound:profile:default@1", "urn:rootbound:reference:default@1"];
    assert_eq!(appraisal.policy_ids, policies);
    let life = ear.exp.unwrap() - ear.iat;
    assert!((170..=180).contains(&life), "three intervals at most: {life}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drifted_node_is_contraindicated_at_once_with_its_deviations() {
    let world = World::new(&[]).await;
    let mut node = Certified::new(&world).await;
    let reply = node.own_result().await;
    let appraisal = read(&world, token(&reply)).await.unwrap().submods.remove(LABEL).unwrap();
    assert_eq!(appraisal.status, TrustTier::Affirming);
    assert_eq!(appraisal.trust_vector.hardware.get(), claim::NO_CLAIM, "only an operator vouches for it");

    extend(&mut node.simulated.tpm, 4, "another boot loader");
    let challenge = node.simulated.challenge().await.unwrap();
    node.simulated.submit(node.simulated.answer(&challenge)).await.unwrap();
    let reply = node.own_result().await;
    let appraisal = read(&world, token(&reply)).await.unwrap().submods.remove(LABEL).unwrap();
    assert_eq!(appraisal.status, TrustTier::Contraindicated);
    assert_eq!(appraisal.trust_vector.executables.get(), claim::CONTRAINDICATED_RUNTIME);
    assert_eq!(appraisal.trust_vector.configuration.get(), claim::APPROVED_CONFIG);
    let claims = serde_json::to_value(&appraisal.verifier_claims).unwrap();
    assert_eq!(claims["rootbound_deviation_count"], 1);
    let deviation = &claims["rootbound_deviations"][0];
    assert_eq!((&deviation["code"], &deviation["pcr"]), (&"pcr_mismatch".into(), &4.into()));
    assert!(deviation["detail"].as_str().unwrap().contains("sha256 PCR 4"), "{deviation}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_claims_nothing_and_retirement_reads_nothing() {
    let world = World::new(&[]).await;
    let node = Certified::new(&world).await;
    // The certificate lives ten minutes, the evidence three.
    world.advance(Duration::from_secs(200));
    let reply = node.own_result().await;
    let appraisal = read(&world, token(&reply)).await.unwrap().submods.remove(LABEL).unwrap();
    assert_eq!(appraisal.status, TrustTier::None);
    let claims = claims_of(token(&reply));
    let vector = claims["submods"][LABEL]["ear_trustworthiness_vector"].as_object().unwrap();
    assert!(vector.values().all(|value| *value == 0), "{vector:?}");

    world.verifier.retire(node.simulated.node, &rootbound_swtpm_tests::world::operator()).await.unwrap();
    let refused = node.own_result().await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "node_retired"));
}

fn claims_of(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_tampered_with_is_no_result() {
    let world = World::new(&[]).await;
    let node = Certified::new(&world).await;
    let reply = node.own_result().await;
    let whole = token(&reply);
    read(&world, whole).await.unwrap();
    let other = NodeId::of_endorsement_key(b"another").to_string();
    let claims = claims_of(whole).to_string().replace(&node.simulated.node.to_string(), &other);
    let parts: Vec<_> = whole.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], BASE64URL_NOPAD.encode(claims.as_bytes()), parts[2]);
    read(&world, &forged).await.unwrap_err();
    let unsigned = format!("{}.{}.", BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#), parts[1]);
    read_as(&world, &unsigned, whole).await.unwrap_err();
    let elsewhere = World::new(&[]).await;
    for key in keys(&elsewhere).await {
        Ear::from_jwt_jwk(whole, Algorithm::ES256, key.to_string().as_bytes()).unwrap_err();
    }
}

/// The three tags that readers are known to expect.
#[tokio::test(flavor = "multi_thread")]
async fn the_profile_tag_is_the_operators() {
    for tag in
        ["tag:ietf.org,2026:rats/ear#03", "tag:ietf.org,2026:rats/ear#04", "tag:github.com,2023:veraison/ear"]
    {
        let world = World::builder().eat_profile(tag.parse().unwrap()).start().await;
        let node = Certified::new(&world).await;
        let reply = node.own_result().await;
        assert_eq!(read(&world, token(&reply)).await.unwrap().profile, tag);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_outlive_a_restart() {
    let mut world = World::new(&[]).await;
    let before = keys(&world).await;
    world.restart().await;
    assert_eq!(keys(&world).await, before);
}

/// ASN.1 of R and S, as openssl takes a signature.
fn der_of(signature: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let digits: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        let sign = if digits[0] & 0x80 != 0 { vec![0] } else { Vec::new() };
        [vec![2, (digits.len() + sign.len()) as u8], sign, digits].concat()
    };
    let content = [integer(&signature[..32]), integer(&signature[32..])].concat();
    [vec![0x30, content.len() as u8], content].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_the_signature_by_the_published_key() {
    /// SubjectPublicKeyInfo of P-256 up to the point (RFC 5480).
    const PREFIX: [u8; 27] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
    ];
    let world = World::new(&[]).await;
    let node = Certified::new(&world).await;
    let reply = node.own_result().await;
    let (message, signature) = token(&reply).rsplit_once('.').unwrap();
    let key = key(&world, message).await;
    let coordinate = |name: &str| BASE64URL_NOPAD.decode(key[name].as_str().unwrap().as_bytes()).unwrap();
    let public = [PREFIX.to_vec(), coordinate("x"), coordinate("y")].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&public));
    let openssl = Openssl::new();
    openssl.write("key.pem", pem);
    openssl.write("message", message);
    openssl.write("signature", der_of(&BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap()));
    let said = openssl.run("dgst -sha256 -verify key.pem -signature signature message");
    assert!(said.contains("Verified OK"), "{said}");
    openssl.write("message", format!("{message}x"));
    openssl.attempt("dgst -sha256 -verify key.pem -signature signature message").unwrap_err();
}
