//! Enrolment: secrets for one TPM, and the chain of its EK certificate.

use std::path::Path;

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, UnparsedPublicKey};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{self, ECDSA_P384_SHA384_ASN1};
use rootbound_common::clock::{Clock, SystemClock};
use rootbound_common::crypto::subject_public_key_info;
use rootbound_common::random;
use rootbound_common::tpm::{Curve, HashAlgorithm, KeyParameters, Symmetric};
use rootbound_swtpm_tests::measured::Row;
use rootbound_swtpm_tests::openssl::Openssl;
use rootbound_swtpm_tests::software_tpm::{EndorsementKey, SoftwareKey, Template};
use rootbound_verifier::enrollment::{
    ChainWaiver, EndorsedKey, EndorsementRoots, RevocationPolicy, UnendorsedKey, make_credential,
};
use x509_cert::der::{Decode, Encode, pem::PemLabel};

use crate::paired::Bench;

pub(crate) fn run(bench: &mut Bench<'_>) {
    credential(
        bench,
        "RSA-2048",
        &EndorsementKey::rsa2048().public_area(),
        "raw RSA-OAEP encryption",
        |key| {
            let key = PublicEncryptingKey::from_der(key).expect("a key");
            let key = OaepPublicEncryptingKey::new(key).expect("a key");
            let mut out = vec![0; key.ciphertext_size()];
            key.encrypt(&OAEP_SHA256_MGF1SHA256, &[7; 32], &mut out, None).expect("a ciphertext").len()
        },
    );
    credential(bench, "P-256", &EndorsementKey::p256().public_area(), "raw ECDH", |key| {
        ecdh(&ECDH_P256, key)
    });
    credential(bench, "P-384", &p384_endorsement_key(), "raw ECDH", |key| ecdh(&ECDH_P384, key));
    chain(bench);
}

/// TPM2_MakeCredential, beside the one asymmetric operation in it, on the key's SubjectPublicKeyInfo.
fn credential(bench: &mut Bench<'_>, kind: &str, area: &[u8], limit: &str, raw: impl Fn(&[u8]) -> usize) {
    let name = SoftwareKey::p256(Template::attestation_p256()).name();
    let key = listed(area);
    let info = subject_public_key_info(key.public()).expect("a key");
    let row = bench.beside(
        &format!("make a credential, {kind} EK"),
        limit,
        |count| vec![((), ()); count],
        |()| raw(&info),
        |()| make_credential(&key, &name, &[7; 32], &mut random::system()).expect("a credential"),
    );
    row.iter().for_each(Row::publish);
}

/// An ephemeral key, and what it shares with another.
fn ecdh(algorithm: &'static agreement::Algorithm, info: &[u8]) -> usize {
    // The point ends the SubjectPublicKeyInfo.
    let size = if algorithm == &ECDH_P256 { 65 } else { 97 };
    let point = &info[info.len() - size..];
    let ephemeral = agreement::PrivateKey::generate(algorithm).expect("a key");
    let public = ephemeral.compute_public_key().expect("its public part");
    let peer = UnparsedPublicKey::new(algorithm, point);
    agreement::agree(&ephemeral, peer, "a failure", |shared| Ok(shared.len())).expect("a shared secret")
        + public.as_ref().len()
}

/// By the high-range template of the TCG EK Credential Profile, B.4.5, but for the policy.
fn p384_endorsement_key() -> Vec<u8> {
    let pair = SoftwareKey::p384(Template::attestation_p256()).public();
    let KeyParameters::Ecc { x, y, .. } = pair.parameters() else { panic!("an ECC key") };
    let template = Template {
        name_algorithm: HashAlgorithm::Sha384,
        auth_policy: Vec::new(),
        symmetric: Symmetric::AesCfb { key_bits: 256 },
        ..EndorsementKey::template()
    };
    template.ecc_public_area(Curve::P384, x, y)
}

fn listed(area: &[u8]) -> EndorsedKey {
    let key = UnendorsedKey::parse(area).expect("an EK");
    key.endorse_by_waiver(ChainWaiver::of_inventory_entry(key.node_id())).expect("its own waiver")
}

/// An EK certificate below an issuer below a root, all P-384: two signatures to verify.
fn chain(bench: &mut Bench<'_>) {
    let ek = EndorsementKey::p256();
    let openssl = Openssl::new();
    let ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
    openssl.write("ca.ext", ca);
    openssl.write(
        "ek.ext",
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,keyAgreement\nextendedKeyUsage=2.23.133.8.1\n\
         subjectAltName=critical,dirName:tpm\n[tpm]\n0.2.23.133.2.1=id:00000000\n0.2.23.133.2.2=model\n0.2.23.133.2.3=id:1\n",
    );
    openssl.write("ek.der", ek.subject_public_key_info());
    for command in [
        "ecparam -name secp384r1 -genkey -noout -out root.key",
        "ecparam -name secp384r1 -genkey -noout -out issuer.key",
        "req -x509 -new -key root.key -sha384 -days 10 -subj /CN=root -addext keyUsage=critical,keyCertSign -out root.pem",
        "req -new -key issuer.key -subj /CN=issuer -out issuer.csr",
        "x509 -req -in issuer.csr -CA root.pem -CAkey root.key -sha384 -days 9 -extfile ca.ext -out issuer.pem",
        "pkey -pubin -inform DER -in ek.der -out ek.pub",
        "x509 -new -force_pubkey ek.pub -subj /CN=ek -CA issuer.pem -CAkey issuer.key -sha384 -days 8 -extfile ek.ext -out ek.pem",
    ] {
        drop(openssl.run(command));
    }
    let mut roots = EndorsementRoots::none();
    for file in ["root.pem", "issuer.pem"] {
        roots.add_file(Path::new(file), openssl.read(file).as_bytes()).expect("a CA");
    }
    let (ek_certificate, issuer) =
        (certificate(&openssl.read("ek.pem")), certificate(&openssl.read("issuer.pem")));
    let root = certificate(&openssl.read("root.pem"));
    let key = UnendorsedKey::parse(&ek.public_area()).expect("an EK");
    let now = SystemClock.now();
    let row = bench.beside(
        "verify an EK chain, two P-384 signatures",
        "two raw P-384 verifications",
        |count| vec![((), ()); count],
        |()| assert!(verify(&ek_certificate, &issuer) && verify(&issuer, &root)),
        |()| {
            key.endorse_by_chain(&[&ek_certificate.der], &roots, RevocationPolicy::IfAvailable, now)
                .expect("a chain to the root")
        },
    );
    row.iter().for_each(Row::publish);
}

/// A certificate, taken apart before anything is timed.
struct Certificate {
    der: Vec<u8>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    key: Vec<u8>,
}

fn certificate(pem: &str) -> Certificate {
    let (label, der) = x509_cert::der::pem::decode_vec(pem.as_bytes()).expect("PEM");
    assert_eq!(label, x509_cert::Certificate::PEM_LABEL);
    let parsed = x509_cert::Certificate::from_der(&der).expect("a certificate");
    Certificate {
        signed: parsed.tbs_certificate().to_der().expect("DER"),
        signature: parsed.signature().raw_bytes().to_vec(),
        key: parsed.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec(),
        der,
    }
}

fn verify(certificate: &Certificate, issuer: &Certificate) -> bool {
    let key = signature::UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, &issuer.key);
    key.verify(&certificate.signed, &certificate.signature).is_ok()
}
