//! Documents that are taken, and each way not to be.

use super::*;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der))
}

/// A millisecond after 2^53, of which numbers are rounded.
const NOW: Timestamp = Timestamp::from_millis((1 << 53) + 1);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn document() -> Value {
    let provenance =
        json!({ "author": "uid 0", "reason": "é \u{1f980}", "created_at": Timestamp::from_millis(0) });
    let values = json!({ "pcrs": { "sha256": { "7": ["ab".repeat(32)] } } });
    json!({
        "format": FORMAT, "trust_domain": "example.org", "exported_at": Timestamp::from_millis(7),
        "sets": [{ "name": "default", "version": 3, "provenance": provenance, "values": values }],
    })
}

fn sign_p256(document: &Value) -> (TrustedSigner, DocumentSignature) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let signer = TrustedSigner::from_pem(name("release"), &pem(der.as_ref())).unwrap();
    let value = pair.sign(&SystemRandom::new(), &canonical(document).unwrap()).unwrap();
    let value = BASE64.encode(value.as_ref());
    let key = signer.id().to_owned();
    (signer, DocumentSignature { key, algorithm: SignatureAlgorithm::Es256, value })
}

fn sign_ed25519(document: &Value) -> (TrustedSigner, DocumentSignature) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let signer = TrustedSigner::from_pem(name("distribution"), &pem(der.as_ref())).unwrap();
    let value = BASE64.encode(pair.sign(&canonical(document).unwrap()).as_ref());
    let key = signer.id().to_owned();
    (signer, DocumentSignature { key, algorithm: SignatureAlgorithm::EdDsa, value })
}

#[test]
fn canonical_bytes_are_those_of_the_standard() {
    // RFC 8785, 3.2.3: members sorted by UTF-16 code units.
    let document: Value = serde_json::from_str(
        r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",
        "\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#,
    )
    .unwrap();
    let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
        \"\u{f6}\":\"Latin Small Letter O With Diaeresis\",\"\u{20ac}\":\"Euro Sign\",\
        \"\u{1f600}\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
    assert_eq!(String::from_utf8(canonical(&document).unwrap()).unwrap(), expected);
}

#[test]
fn document_of_a_trusted_signer_is_taken_however_it_is_written_down() {
    let document = document();
    for (signer, signature) in [sign_p256(&document), sign_ed25519(&document)] {
        let again: Value = serde_json::from_str(&serde_json::to_string_pretty(&document).unwrap()).unwrap();
        let taken = Importable::signed(&again, Some(&signature), std::slice::from_ref(&signer), NOW).unwrap();
        assert_eq!(taken.signer(), Some(signer.name()));
        assert_eq!(taken.into_contents().sets[0].id.to_string(), "default@3");
    }
    assert_eq!(Importable::unsigned(&document, NOW).unwrap().signer(), None);
}

#[test]
fn each_way_not_to_be_signed_is_named() {
    let good = document();
    let (signer, signature) = sign_p256(&good);
    let (other, of_other) = sign_ed25519(&good);
    let signers = [signer.clone()];
    let refused = |document: &Value, signature: Option<&DocumentSignature>| {
        Importable::signed(document, signature, &signers, NOW).unwrap_err()
    };
    assert_eq!(refused(&good, None), ExchangeError::Unsigned);
    assert_eq!(refused(&good, Some(&of_other)), ExchangeError::UnknownSigner(other.id().into()));
    let algorithm = SignatureAlgorithm::EdDsa;
    let odd = DocumentSignature { algorithm, ..signature.clone() };
    assert_eq!(refused(&good, Some(&odd)), ExchangeError::Algorithm(name("release")));
    let mut changed = good.clone();
    changed["sets"][0]["version"] = json!(4);
    assert_eq!(refused(&changed, Some(&signature)), ExchangeError::Signature(name("release")));
    for value in ["", "no base64", &BASE64.encode(&[7; 64])] {
        let forged = DocumentSignature { value: value.into(), ..signature.clone() };
        assert_eq!(refused(&good, Some(&forged)), ExchangeError::Signature(name("release")), "{value}");
    }
}

#[test]
fn each_way_to_be_no_document_is_named() {
    let of = |change: &dyn Fn(&mut Value)| {
        let mut document = document();
        change(&mut document);
        Importable::unsigned(&document, NOW).unwrap_err()
    };
    assert_eq!(of(&|document| document["format"] = json!("rootbound-references/2")), ExchangeError::Format);
    assert_eq!(of(&|document| *document = json!([])), ExchangeError::Format);
    assert!(matches!(of(&|document| document["also"] = json!(1)), ExchangeError::Malformed(_)));
    assert!(matches!(of(&|document| document["sets"][0]["also"] = json!(1)), ExchangeError::Malformed(_)));
    assert_eq!(of(&|document| document["sets"] = json!([])), ExchangeError::Empty);
    let many = |document: &mut Value| {
        let set = document["sets"][0].clone();
        let sets = (1..=257).map(|version| {
            let mut set = set.clone();
            set["version"] = json!(version);
            set
        });
        document["sets"] = sets.collect();
    };
    assert_eq!(of(&many), ExchangeError::TooMany);
    let twice = |document: &mut Value| {
        let set = document["sets"][0].clone();
        document["sets"] = json!([set, set]);
    };
    assert_eq!(of(&twice), ExchangeError::Twice("default@3".into()));
    let versions = |document: &mut Value| {
        twice(document);
        document["sets"][1]["version"] = json!(4);
    };
    assert_eq!(of(&versions), ExchangeError::Twice("default@4".into()), "which would be current?");
}

/// Two documents of one signature are one document.
#[test]
fn what_is_taken_is_what_was_signed() {
    let at = |millis: i64| {
        let mut document = document();
        document["exported_at"] = json!(millis);
        document
    };
    let exact = 1_i64 << 53;
    let (signer, signature) = sign_p256(&at(exact));
    for millis in [exact, exact + 1] {
        let taken =
            Importable::signed(&at(millis), Some(&signature), std::slice::from_ref(&signer), NOW).unwrap();
        assert_eq!(taken.into_contents().made_at, Some(Timestamp::from_millis(exact)), "{millis}");
    }
}

#[test]
fn key_of_another_kind_is_no_signer() {
    let rsa = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK\n-----END PUBLIC KEY-----\n";
    for bad in ["", "no PEM", rsa] {
        assert_eq!(TrustedSigner::from_pem(name("x"), bad).unwrap_err(), NotASigner);
    }
    let p384 = EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let der: PublicKeyX509Der<'_> = p384.public_key().as_der().unwrap();
    assert_eq!(TrustedSigner::from_pem(name("x"), &pem(der.as_ref())).unwrap_err(), NotASigner);
}
