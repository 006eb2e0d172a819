//! A verifier and a node of software keys, for programs of others that are tried against it: `scripts/check-interop`.
//!
//! `interop FOLDER [--one-in N] HOST…` serves a verifier on loopback and writes into the folder what others need: `site.json`, `ca.pem`, `node.pem` and
//! `node.key` (the node's certificate and key), `gateway.pem` and `gateway.key` (a relying party's), `gateway.token` (that of another). For each
//! host, `localhost:8080`, the policies have routes. Then it does what each line on its standard input says, and answers with a line: `drift` (the node
//! measures something else, and shows it), `heal` (it boots anew, and gets another certificate), `end`. With `--one-in`, one in so many allowed
//! decisions is recorded.

#![expect(clippy::expect_used, clippy::panic, reason = "what fails here fails the check")]

use std::fmt::Write as _;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use rootbound_common::crypto::hash;
use rootbound_common::random;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_common::wire::v1::CredentialOutcome;
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::policies::put_in_force;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Simulated, World};
use rootbound_verifier::audit::sampling::Sampling;
use rootbound_verifier::policy::{Bundle, BundleSource};
use rootbound_verifier::relying_party::RelyingPartySection;
use rootbound_verifier::relying_party::token::BearerToken;

const SCHEMA: &str = "
entity record;
action read, write appliesTo {
    principal: [Rootbound::Node], resource: [record], context: { attested: Rootbound::Attested },
};
";

const POLICIES: &str = r#"
@id("unbound") permit (principal is Rootbound::Node, action == Rootbound::Action::"IssueUnboundCredential", resource);
@id("read") permit (principal is Rootbound::Node, action == Action::"read", resource is record);
"#;

const PUBLIC_URL: &str = "https://verifier.example:8443";

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    const USAGE: &str = "usage: interop FOLDER [--one-in N] HOST…";
    let folder = PathBuf::from(arguments.next().expect(USAGE));
    let mut hosts: Vec<_> = arguments.collect();
    let sampling = match hosts.first().is_some_and(|first| first == "--one-in") {
        true => Sampling::OneIn(hosts.drain(..2).next_back().and_then(|n| n.parse().ok()).expect(USAGE)),
        false => Sampling::All,
    };
    let audiences = || hosts.iter().map(|host| audience(host).try_into().expect("an audience")).collect();

    let gateway = Gateway::new();
    let token = BearerToken::generate(&mut random::system());
    let by_certificate = RelyingPartySection { audiences: audiences(), ..gateway.section("envoy", &[]) };
    let by_token = RelyingPartySection {
        ca: None,
        accepted_names: Vec::new(),
        audiences: audiences(),
        token_sha256: vec![token.hash()],
        ..gateway.section("proxy", &[])
    };
    let world = World::builder()
        .relying_parties(vec![by_certificate, by_token])
        .public_url(PUBLIC_URL)
        .allowed_decisions(sampling)
        .start()
        .await;
    let mut source = BundleSource {
        schema: Some(SCHEMA.to_owned()),
        routes: Some(hosts.iter().map(|host| routes(host)).collect()),
        ..Bundle::builtin_source()
    };
    source.policies.insert("policies.cedar".parse().expect("a name"), POLICIES.to_owned());
    put_in_force(&world.verifier, "interop", source).await;

    let mut tpm = SoftwareTpm::new();
    boot(&mut tpm);
    let mut node = world.affirming_simulated(tpm).await;
    certify(&node, &folder).await;
    let (chain, key) = gateway.certificate();
    let chain: String = chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect();
    write(&folder, "gateway.pem", &chain);
    write(&folder, "gateway.key", &pem("PRIVATE KEY", key));
    write(&folder, "gateway.token", &token.reveal());
    let bundle = std::fs::read_to_string(world.bundle()).expect("the trust bundle");
    write(&folder, "ca.pem", &bundle);
    let subject = world.verifier.trust_domain().node(node.node).to_string();
    let site = serde_json::json!({
        "address": world.address().to_string(),
        "port": world.address().port(),
        "public_url": PUBLIC_URL,
        "node": node.node.to_string(),
        "subject": subject,
    });
    write(&folder, "site.json", &site.to_string());
    say("ready");

    for line in std::io::stdin().lock().lines() {
        match line.expect("a line").trim() {
            "drift" => {
                measure(&mut node.tpm, 7, "something else");
                let challenge = node.challenge().await.expect("a challenge");
                node.submit(node.answer(&challenge)).await.expect("evidence");
            }
            "heal" => {
                node.tpm.reboot();
                boot(&mut node.tpm);
                certify(&node, &folder).await;
            }
            "end" => break,
            other => panic!("`{other}` is nothing that is done here"),
        }
        say("done");
    }
}

/// What each boot measures.
fn boot(tpm: &mut SoftwareTpm) {
    for pcr in 0..8 {
        measure(tpm, pcr, "a boot");
    }
}

fn measure(tpm: &mut SoftwareTpm, pcr: u8, what: &str) {
    let digest = hash(HashAlgorithm::Sha256, &[what.as_bytes(), &[pcr]]);
    tpm.extend(PcrIndex::new(pcr).expect("a PCR"), digest);
}

/// Has the node show evidence, and get a certificate.
async fn certify(node: &Simulated, folder: &Path) {
    let challenge = node.challenge().await.expect("a challenge");
    let (evidence, key) = node.answer_with_request(&challenge);
    match node.submit(evidence).await.expect("evidence").credential {
        Some(CredentialOutcome::Issued { certificate_chain, .. }) => {
            write(folder, "node.pem", &certificate_chain)
        }
        other => panic!("no certificate: {other:?}"),
    }
    write(folder, "node.key", &pem("PRIVATE KEY", &key.pkcs8()));
}

fn audience(host: &str) -> String {
    format!("https://{host}")
}

fn routes(host: &str) -> String {
    let mut routes = String::new();
    for (method, action) in [("GET", "read"), ("POST", "write")] {
        write!(
            routes,
            "[[route]]\nmethod = '{method}'\nhost = '{host}'\npath = '/records/{{id}}'\naction = '{action}'\n\
             resource = {{ type = 'record', id = '{{id}}' }}\naudience = '{}'\n",
            audience(host)
        )
        .expect("room for text");
    }
    routes
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a file");
}

fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}").and_then(|()| out.flush()).expect("somebody who listens");
}
