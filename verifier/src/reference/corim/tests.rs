//! CoRIMs that we write and take, beside two strangers: the crates `corim` (CoRIM) and `coset` (COSE, over `ciborium`).

use ::corim as theirs;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use coset::cbor::Value;
use coset::{CborSerializable as _, CoseSign1, Header, HeaderBuilder, TaggedCborSerializable as _, iana};
use data_encoding::{BASE64, HEXLOWER};
use rootbound_common::blob::Blob;
use rootbound_common::clock::Timestamp;
use serde_json::json;
use theirs::builder::{ComidBuilder, CorimBuilder};
use theirs::types::common::TagIdChoice;
use theirs::types::corim::CorimId;
use theirs::types::environment::{ClassMap, EnvironmentMap};
use theirs::types::measurement::{
    Digest as TheirDigest, IntegrityRegisterId, IntegrityRegisters, MeasurementMap, MeasurementValuesMap,
};
use theirs::types::signed::{CwtClaims, SignedCorimBuilder, decode_and_validate_signed_corim_at};
use theirs::types::triples::ReferenceTriple;

use super::*;
use crate::evidence::frame::{pack, unpack};
use crate::node::Name;
use crate::reference::SetContent;
use crate::reference::exchange::{
    Document, ExchangeError, ExportedValues, Importable, SignatureAlgorithm, TrustedSigner,
};

const MADE_AT: Timestamp = Timestamp::from_millis(1_790_000_000_500);
const NOW: Timestamp = Timestamp::from_millis(1_790_000_100_000);

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

fn signer(name: &str, ed25519: bool) -> (Pair, TrustedSigner) {
    let pem = |der: &[u8]| {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der))
    };
    let (pair, der) = if ed25519 {
        let pair = Ed25519KeyPair::generate().unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let der = der.as_ref().to_vec();
        (Pair::Ed25519(pair), der)
    } else {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let der = der.as_ref().to_vec();
        (Pair::P256(pair), der)
    };
    (pair, TrustedSigner::from_pem(name.parse().unwrap(), &pem(&der)).unwrap())
}

impl Pair {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self {
            Self::P256(_) => SignatureAlgorithm::Es256,
            Self::Ed25519(_) => SignatureAlgorithm::EdDsa,
        }
    }
}

fn tagged(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

const TEXT: &str = "# of coreutils 9.1\nsha256:HEX  /bin/\u{fc} b\nsha512:HEXHEX  /init\n";

fn document(values: &[serde_json::Value]) -> Document {
    let provenance = json!({ "author": "uid 0", "reason": "", "created_at": MADE_AT });
    let sets = values.iter().zip(["one", "two/b", "three"]).map(
        |(values, name)| json!({ "name": name, "version": 7, "provenance": provenance, "values": values }),
    );
    let document = json!({
        "format": crate::reference::exchange::FORMAT, "trust_domain": "example.org", "exported_at": MADE_AT,
        "sets": sets.collect::<Vec<_>>(),
    });
    serde_json::from_value(document).unwrap()
}

fn pcrs() -> serde_json::Value {
    json!({ "pcrs": {
        "sha256": { "0": ["ab".repeat(32)], "7": ["ac".repeat(32)] }, "sha384": { "7": ["ad".repeat(48)] },
    } })
}

fn boot() -> serde_json::Value {
    let value = |measured: serde_json::Value| json!({ "measured": measured });
    let digest = |kind: &str, byte: &str| value(json!({ "kind": kind, "digest": tagged(byte) }));
    json!({ "boot": { "bank": "sha256", "values": [
        { "measured": { "kind": "boot_application", "digest": tagged("aa") }, "label": "the kernel",
          "source": { "package": "linux" } },
        digest("driver", "ab"), digest("initrd", "ac"), digest("firmware_blob", "ad"),
        value(json!({ "kind": "command_line", "text": "quiet ro" })),
        value(json!({ "kind": "firmware_version", "text": "1.2" })),
        value(json!({ "kind": "event", "pcr": 11, "digest": tagged("ae") })),
    ] } })
}

fn digests(text: &str) -> serde_json::Value {
    let text = text.replace("HEX", &"0b".repeat(32));
    json!({ "digests": Blob::<{ 1 << 20 }>::new(pack(text.as_bytes()).unwrap()).unwrap() })
}

fn ours(document: &Document, pair: &Pair, signer: &TrustedSigner, until: Option<Timestamp>) -> Vec<u8> {
    let corim = write(document).unwrap().corim;
    let from = (&document.trust_domain, document.exported_at);
    let to_sign = ToSign::new(corim, pair.algorithm(), signer.id(), from, until);
    to_sign.signed(&pair.sign(&to_sign.bytes()))
}

fn taken(file: &[u8], signers: &[TrustedSigner]) -> Result<Importable, ExchangeError> {
    Importable::corim(file, Some(signers), None, NOW)
}

fn unsigned(file: &[u8]) -> Result<Importable, ExchangeError> {
    Importable::corim(file, None, None, NOW)
}

fn why(result: Result<Importable, ExchangeError>) -> CorimError {
    match result.map(|importable| format!("{:?}", importable.into_contents())) {
        Err(ExchangeError::Corim(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The values of a set, in a form that can be compared.
fn values(values: &ExportedValues) -> serde_json::Value {
    match values {
        ExportedValues::Digests(frame) => {
            let text = unpack(frame.as_bytes(), 1 << 20).unwrap();
            let SetContent::Digests(set, _) = SetContent::digests(text).unwrap() else { unreachable!() };
            json!(HEXLOWER.encode(set.id()))
        }
        other => serde_json::to_value(other).unwrap(),
    }
}

#[test]
fn what_is_written_is_taken_again_whole_by_a_trusted_signature() {
    let document = document(&[pcrs(), boot(), digests(TEXT)]);
    for ed25519 in [false, true] {
        let (pair, signer) = signer("release", ed25519);
        let until = Timestamp::from_millis(1_790_001_000_000);
        let file = ours(&document, &pair, &signer, Some(until));
        assert!(is_corim(&file) && is_corim(&write(&document).unwrap().corim) && !is_corim(b"{}"));
        let importable = taken(&file, std::slice::from_ref(&signer)).unwrap();
        assert_eq!(importable.signer(), Some(signer.name()));
        let contents = importable.into_contents();
        assert_eq!((contents.origin.as_str(), contents.sets.len()), ("example.org", 3));
        assert_eq!(contents.made_at.map(Timestamp::as_seconds), Some(MADE_AT.as_seconds()));
        for (taken, set) in contents.sets.iter().zip(&document.sets) {
            let mut expected = values(&set.values);
            if let Some(value) = expected.pointer_mut("/boot/values/0") {
                value.as_object_mut().unwrap().remove("source");
            }
            assert_eq!((taken.id.to_string(), values(&taken.values)), (set.id(), expected));
        }
    }
    let left_out = write(&document).unwrap().left_out;
    assert_eq!(left_out.len(), 2, "sources: {left_out:?}");
    assert!(left_out[0].starts_with("two/b@7") && left_out[1].starts_with("three@7"));
}

#[test]
fn several_values_of_a_pcr_are_states_of_their_own() {
    let several =
        json!({ "pcrs": { "sha256": { "4": ["ab".repeat(32), "ac".repeat(32)], "7": ["ad".repeat(32)] } } });
    let corim = write(&document(std::slice::from_ref(&several))).unwrap().corim;
    let (_, comids) = theirs::validate::decode_and_validate(&corim).unwrap();
    assert_eq!(
        comids[0].triples.reference_triples.as_ref().map(Vec::len),
        Some(3),
        "a state has one register"
    );
    let contents = unsigned(&corim).unwrap().into_contents();
    assert_eq!(values(&contents.sets[0].values), several);
}

/// The other way round, each step by somebody else's code.
#[test]
fn ours_is_read_by_a_stranger() {
    let document = document(&[pcrs(), boot()]);
    let (pair, signer) = signer("release", true);
    let until = Timestamp::from_millis(1_790_001_000_000);
    let file = ours(&document, &pair, &signer, Some(until));
    let sign1 = CoseSign1::from_tagged_slice(&file).unwrap();
    assert_eq!(sign1.protected.header.key_id, HEXLOWER.decode(signer.id().as_bytes()).unwrap());
    assert_eq!(sign1.protected.header.alg, Some(coset::Algorithm::Assigned(iana::Algorithm::EdDSA)));
    let Pair::Ed25519(pair) = &pair else { unreachable!() };
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::ED25519,
        pair.public_key().as_ref(),
    );
    sign1.verify_signature(b"", |signature, message| key.verify(message, signature)).unwrap();

    let (envelope, payload) = decode_and_validate_signed_corim_at(&file, None, NOW.as_seconds()).unwrap();
    let header = envelope.protected();
    assert_eq!(header.content_type.as_deref(), Some("application/rim+cbor"));
    let meta = header.corim_meta.as_ref().unwrap();
    assert_eq!((meta.signer.signer_name.as_str(), meta.signature_validity.is_some()), ("example.org", true));
    assert_eq!(header.cwt_claims.as_ref().unwrap().iss, "example.org");
    assert!(decode_and_validate_signed_corim_at(&file, None, until.as_seconds() + 1).is_err(), "it ends");
    let triples = payload.comids[0].triples.reference_triples.as_ref().unwrap();
    let registers = triples[0].measurements()[0].mval.integrity_registers.as_ref().unwrap();
    let of_seven = &registers.0[&IntegrityRegisterId::Uint(7)];
    assert_eq!(*of_seven, [TheirDigest::new(1, vec![0xac; 32]), TheirDigest::new(7, vec![0xad; 48])]);
    let boot = payload.comids[1].triples.reference_triples.as_ref().unwrap();
    assert_eq!(boot[0].measurements()[0].mval.digests, Some(vec![TheirDigest::new(1, vec![0xaa; 32])]));
    assert_eq!((boot.len(), boot[0].measurements()[0].mval.name.as_deref()), (7, Some("the kernel")));
}

/// As RFC 9393 numbers its members; read by somebody else's CBOR.
#[test]
fn files_are_those_of_a_payload() {
    let corim = write(&document(&[digests(TEXT)])).unwrap().corim;
    let Value::Tag(501, corim) = Value::from_slice(&corim).unwrap() else { panic!("a CoRIM") };
    let of = |map: &Value, key: i64| {
        let members = map.as_map().unwrap();
        members.iter().find(|(it, _)| *it == int(key)).map(|(_, value)| value.clone()).unwrap()
    };
    let tags = of(&corim, 1);
    let Value::Tag(505, coswid) = &tags.as_array().unwrap()[0] else { panic!("a CoSWID") };
    let coswid = Value::from_slice(coswid.as_bytes().unwrap()).unwrap();
    assert_eq!((of(&coswid, 1), of(&coswid, 12), of(&coswid, 13)), ("one".into(), int(7), "7".into()));
    assert_eq!(of(&of(&coswid, 2), 33), int(1), "tag-creator");
    let file = |name: &str, folder: &str, algorithm: i64, size: usize| {
        let hash = Value::Array(vec![int(algorithm), Value::Bytes(vec![0x0b; size])]);
        map(&[(7, hash), (23, folder.into()), (24, name.into())])
    };
    let files = Value::Array(vec![file("\u{fc} b", "/bin", 1, 32), file("init", "/", 8, 64)]);
    assert_eq!(of(&of(&coswid, 6), 17), files);
}

/// A CoRIM that somebody else's code makes: values of PCRs, as the draft proposes them.
fn of_a_stranger(states: &[&[(u64, u8)]]) -> Vec<u8> {
    let environment = EnvironmentMap {
        class: Some(ClassMap {
            class_id: None,
            vendor: Some("ACME".into()),
            model: Some("Widget".into()),
            layer: None,
            index: None,
        }),
        instance: None,
        group: None,
    };
    let mut comid = ComidBuilder::new(TagIdChoice::Text("acme/widget".into())).set_tag_version(3);
    for state in states {
        let registers = state.iter().map(|(pcr, byte)| {
            (IntegrityRegisterId::Uint(*pcr), vec![TheirDigest::new_text("sha-256", vec![*byte; 32])])
        });
        let mut mval = MeasurementValuesMap::default();
        mval.integrity_registers = Some(IntegrityRegisters(registers.collect()));
        let measurement = MeasurementMap { mkey: None, mval, authorized_by: None };
        comid = comid.add_reference_triple(ReferenceTriple::new(environment.clone(), vec![measurement]));
    }
    let corim =
        CorimBuilder::new(CorimId::Text("acme/1".into())).set_validity(Some(1_700_000_000), 1_800_000_000);
    corim.unwrap().add_comid_tag(comid.build().unwrap()).unwrap().build_bytes().unwrap()
}

#[test]
fn a_stranger_s_corim_is_taken_by_the_key_that_verifies_whatever_it_calls_it() {
    let (pair, release) = signer("release", false);
    let (_, other) = signer("other", false);
    let mut builder = SignedCorimBuilder::new(-7_i64, of_a_stranger(&[&[(0, 1), (7, 2)]]))
        .kid(b"build key 5".to_vec())
        .set_cwt_claims(CwtClaims::new("ACME Ltd."));
    let message = builder.to_be_signed(b"").unwrap();
    let file = builder.build_with_signature(pair.sign(&message)).unwrap();
    let named = "acme".parse::<Name>().unwrap();
    let signers = [other.clone(), release];
    let taken = |name| Importable::corim(&file, Some(&signers), name, NOW).unwrap();
    let importable = taken(Some(&named));
    assert_eq!(importable.signer().map(Name::as_str), Some("release"));
    let contents = importable.into_contents();
    assert_eq!((contents.origin.as_str(), contents.made_at), ("ACME Ltd.", None));
    assert_eq!(contents.sets[0].id.to_string(), "acme@3");
    let expected = json!({ "pcrs": { "sha256": { "0": ["01".repeat(32)], "7": ["02".repeat(32)] } } });
    assert_eq!(values(&contents.sets[0].values), expected);
    assert_eq!(taken(None).into_contents().sets[0].id.to_string(), "Widget@3");
    let stranger = Importable::corim(&file, Some(&[other]), None, NOW).unwrap_err();
    assert_eq!(stranger, ExchangeError::UnknownSigner(HEXLOWER.encode(b"build key 5")));
    for (seconds, code) in [(1_699_999_999, "import_not_yet_valid"), (1_800_000_001, "import_expired")] {
        let now = Timestamp::from_millis(seconds * 1000);
        assert_eq!(Importable::corim(&file, Some(&signers), None, now).unwrap_err().code(), code);
    }
}

#[test]
fn states_that_hold_together_only_are_not_taken_apart() {
    assert!(unsigned(&of_a_stranger(&[&[(0, 1)], &[(0, 2)], &[(7, 3)]])).is_ok());
    let joint = why(unsigned(&of_a_stranger(&[&[(0, 1), (7, 2)], &[(0, 3), (7, 4)]])));
    assert!(matches!(joint, CorimError::Joint { .. }), "{joint}");
    let register = why(unsigned(&of_a_stranger(&[&[(24, 1)]])));
    assert!(matches!(&register, CorimError::Inexpressible { what, .. } if what.contains("24")), "{register}");
    // As many values of one PCR as a set may have.
    let states: Vec<_> = (0..=255).map(|byte| [(7, byte)]).collect();
    let states: Vec<_> = states.iter().map(|state| &state[..]).collect();
    assert!(unsigned(&of_a_stranger(&states)).is_ok());
    let none = of_tag(pcrs(), |comid| comid[2].1 = map(&[(0, Value::Array(Vec::new()))]));
    assert_eq!(why(unsigned(&none)).code(), "import_corim_shape");
}

/// A signed CoRIM of Veraison's tests (vectors/ORIGIN.md), of 2020 and an older draft.
#[test]
fn a_published_corim_is_read_as_far_as_sets_go() {
    let hex: String = include_str!("vectors/veraison-signed.hex").split_whitespace().collect();
    let file = HEXLOWER.decode(hex.as_bytes()).unwrap();
    assert_eq!(why(unsigned(&file)), CorimError::NotACorim { at: 0 }, "tags 500 and 502 are of older drafts");
    let sign1 = &file[6..];
    assert_eq!(why(unsigned(sign1)).to_string(), "CoRIM: it held until 2020-11-12T11:45:26Z");
    let Envelope::Signed(parsed) = Envelope::parse(sign1).unwrap() else { panic!("it is signed") };
    assert_eq!(parsed.kid, Some(&b"meriadoc.brandybuck@buckland.example"[..]));
    assert_eq!((parsed.signer.as_str(), parsed.signature), ("ACME Ltd.", &b"\xde\xad\xbe\xef"[..]));
    let then = Timestamp::from_millis(1_600_000_000_000);
    let refused = why(Importable::corim(sign1, None, None, then));
    let CorimError::Inexpressible { at, what } = &refused else { panic!("{refused}") };
    assert_eq!(what, "a measured element that is named by no text");
    assert_eq!(sign1[*at..][..3], [0xd9, 0x02, 0x58], "tag 600 of PSA");
    let (_, signer) = signer("release", false);
    let unknown = Importable::corim(sign1, Some(&[signer]), None, then).unwrap_err();
    assert_eq!(unknown.code(), "import_signer_unknown");
}

fn int(number: i64) -> Value {
    Value::from(number)
}

fn map(members: &[(i64, Value)]) -> Value {
    Value::Map(members.iter().map(|(key, value)| (int(*key), value.clone())).collect())
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    coset::cbor::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn tag(number: u64, value: Value) -> Value {
    Value::Tag(number, Box::new(value))
}

/// A signed CoRIM whose header and envelope are changed before it is signed.
fn signed(change: impl FnOnce(&mut Header, &mut Header, &mut Option<Vec<u8>>)) -> (Vec<u8>, TrustedSigner) {
    let (pair, signer) = signer("release", false);
    let payload = write(&document(&[pcrs()])).unwrap().corim;
    let claims = map(&[(1, "example.org".into()), (6, int(MADE_AT.as_seconds()))]);
    let mut protected = HeaderBuilder::new()
        .algorithm(iana::Algorithm::ES256)
        .content_type("application/rim+cbor".to_owned())
        .value(15, claims)
        .build();
    let (mut unprotected, mut payload) = (Header::default(), Some(payload));
    change(&mut protected, &mut unprotected, &mut payload);
    let mut sign1 = coset::CoseSign1Builder::new().protected(protected).unprotected(unprotected);
    if let Some(payload) = payload {
        sign1 = sign1.payload(payload).create_signature(b"", |message| pair.sign(message));
    }
    (sign1.build().to_tagged_vec().unwrap(), signer)
}

#[test]
fn each_header_that_is_not_taken_is_named() {
    type Change = fn(&mut Header, &mut Header, &mut Option<Vec<u8>>);
    let cases: [(Change, &str); 13] = [
        (|_, _, _| {}, ""),
        (
            |_, other, _| other.alg = Some(coset::Algorithm::Assigned(iana::Algorithm::ES256)),
            "import_corim_unprotected",
        ),
        (|_, other, _| other.rest.push((coset::Label::Text("x".into()), int(1))), "import_corim_unprotected"),
        (|_, other, _| other.key_id = vec![1], ""),
        (|header, _, _| header.rest.push((coset::Label::Int(99), int(1))), ""),
        (
            |header, _, _| {
                header.rest.push((coset::Label::Int(99), int(1)));
                header.crit.push(coset::RegisteredLabelWithPrivate::Text("other".into()));
            },
            "import_corim_critical",
        ),
        (
            |header, _, _| header.alg = Some(coset::Algorithm::Assigned(iana::Algorithm::ES384)),
            "import_corim_algorithm",
        ),
        (|header, _, _| header.alg = None, "import_corim_incomplete"),
        (
            |header, _, _| header.content_type = Some(coset::ContentType::Text("application/cbor".into())),
            "import_corim_content_type",
        ),
        (|header, _, _| header.content_type = None, "import_corim_content_type"),
        (|header, _, _| header.rest.push((coset::Label::Int(258), int(-16))), "import_corim_detached"),
        (|_, _, payload| *payload = None, "import_corim_detached"),
        (|header, _, _| header.rest.clear(), "import_corim_incomplete"),
    ];
    for (number, (change, code)) in cases.into_iter().enumerate() {
        let (file, signer) = signed(change);
        let refused = taken(&file, &[signer]).map_or_else(|error| error.code(), |_| "");
        assert_eq!(refused, code, "case {number}");
    }
}

#[test]
fn each_way_not_to_be_signed_is_named() {
    let document = document(&[pcrs()]);
    let (pair, release) = signer("release", false);
    let (_, other) = signer("other", true);
    let signers = [other.clone(), release.clone()];
    let bare = write(&document).unwrap().corim;
    assert_eq!(taken(&bare, &signers).unwrap_err(), ExchangeError::Unsigned);
    assert_eq!(unsigned(&bare).unwrap().signer(), None);
    let file = ours(&document, &pair, &release, None);
    assert_eq!(unsigned(&file).unwrap().signer(), None, "nobody looks at the signature");
    let unknown = taken(&file, std::slice::from_ref(&other)).unwrap_err();
    assert_eq!(unknown, ExchangeError::UnknownSigner(release.id().to_owned()));
    // Each byte that is signed counts, and each of the signature.
    for place in [20, file.len() / 2, file.len() - 1] {
        let mut changed = file.clone();
        changed[place] ^= 1;
        assert!(taken(&changed, &signers).is_err(), "byte {place}");
    }
    let mut changed = file.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(taken(&changed, &signers).unwrap_err(), ExchangeError::Signature(release.name().clone()));
    let from = (&document.trust_domain, MADE_AT);
    let to_sign = ToSign::new(bare, SignatureAlgorithm::Es256, other.id(), from, None);
    let confused = to_sign.signed(&pair.sign(&to_sign.bytes()));
    assert_eq!(taken(&confused, &signers).unwrap_err(), ExchangeError::Algorithm(other.name().clone()));
    let mut future = document;
    future.exported_at = Timestamp::from_millis(NOW.as_millis() + 400_000);
    let file = ours(&future, &pair, &release, None);
    assert_eq!(taken(&file, &signers).unwrap_err().code(), "import_from_the_future");
}

/// A CoRIM without a signature: `change` is done to its map.
fn changed(set: serde_json::Value, change: impl FnOnce(&mut Vec<(Value, Value)>)) -> Vec<u8> {
    let corim = write(&document(&[set])).unwrap().corim;
    let Ok(Value::Tag(501, inner)) = Value::from_slice(&corim) else { panic!("a CoRIM") };
    let Value::Map(mut members) = *inner else { panic!("a map") };
    change(&mut members);
    bytes(&tag(501, Value::Map(members)))
}

/// A CoRIM whose only tag is changed.
fn of_tag(set: serde_json::Value, change: impl FnOnce(&mut Vec<(Value, Value)>)) -> Vec<u8> {
    changed(set, |corim| {
        let Value::Array(tags) = &mut corim[1].1 else { panic!("tags") };
        let Value::Tag(_, content) = &mut tags[0] else { panic!("a tag") };
        let Value::Map(mut members) = Value::from_slice(content.as_bytes().unwrap()).unwrap() else {
            panic!("a map")
        };
        change(&mut members);
        **content = Value::Bytes(bytes(&Value::Map(members)));
    })
}

/// A CoRIM of which the only measurement has this key and these values.
fn measured(key: Option<Value>, values: Value) -> Vec<u8> {
    let set = json!({ "boot": { "bank": "sha256", "values": [
        { "measured": { "kind": "initrd", "digest": tagged("aa") } },
    ] } });
    of_tag(set, |comid| {
        let measurement: Vec<_> =
            key.into_iter().map(|key| (int(0), key)).chain([(int(1), values)]).collect();
        let environment = map(&[(0, map(&[(1, "v".into()), (2, "one".into())]))]);
        let triple = Value::Array(vec![environment, Value::Array(vec![Value::Map(measurement)])]);
        let triples = map(&[(0, Value::Array(vec![triple]))]);
        comid.retain(|(key, _)| *key != int(4));
        comid.push((int(4), triples));
    })
}

fn digest_of(algorithm: impl Into<Value>, size: usize) -> Value {
    Value::Array(vec![algorithm.into(), Value::Bytes(vec![1; size])])
}

#[test]
fn what_sets_have_no_place_for_is_refused_by_name() {
    let add =
        |key: i64, value: Value| move |members: &mut Vec<(Value, Value)>| members.push((int(key), value));
    let one = Value::Array(vec![int(1)]);
    let digests_of = |digests: Vec<Value>| map(&[(2, Value::Array(digests))]);
    let cases = [
        (changed(pcrs(), add(2, one.clone())), "corim-map: member 2"),
        (changed(pcrs(), |corim| corim.push(("x\u{202e}y".into(), int(1)))), "corim-map: member `xy`"),
        (
            changed(pcrs(), |corim| corim[1].1 = Value::Array(vec![tag(508, Value::Bytes(vec![0xa0]))])),
            "a tag of kind 508",
        ),
        (of_tag(pcrs(), add(3, one.clone())), "concise-mid-tag: member 3"),
        (of_tag(pcrs(), |comid| comid[2].1 = map(&[(1, one.clone())])), "triples-map: member 1"),
        (of_tag(digests(TEXT), add(3, one.clone())), "concise-swid-tag: member 3"),
        (measured(Some(int(7)), digests_of(vec![digest_of(1, 32)])), "named by no text"),
        (measured(Some("shim".into()), digests_of(vec![digest_of(1, 32)])), "the profile does not know"),
        (measured(Some("event:011".into()), digests_of(vec![digest_of(1, 32)])), "the profile does not know"),
        (
            measured(Some("initrd".into()), digests_of(vec![digest_of(1, 32), digest_of(7, 48)])),
            "not one of it",
        ),
        (measured(Some("initrd".into()), digests_of(vec![digest_of(2, 16)])), "another algorithm"),
        (measured(Some("initrd".into()), map(&[(1, int(3))])), "measurement-values-map: member 1"),
        (measured(None, digests_of(vec![digest_of(1, 32)])), "not integrity registers alone"),
        (
            measured(Some("command_line".into()), map(&[(4, tag(560, Value::Bytes(b"quiet".to_vec())))])),
            "of which bank",
        ),
    ];
    for (file, expected) in cases {
        let refused = why(unsigned(&file));
        let CorimError::Inexpressible { what, .. } = &refused else { panic!("{expected}: {refused}") };
        assert!(what.contains(expected), "{expected}: {what}");
    }
    let without_profile = changed(boot(), |corim| corim.retain(|(key, _)| *key != int(3)));
    assert!(why(unsigned(&without_profile)).to_string().contains("without the profile"));
}

#[test]
fn each_shape_that_is_not_a_corim_is_named_by_its_place() {
    let without =
        |key: i64| move |members: &mut Vec<(Value, Value)>| members.retain(|(it, _)| *it != int(key));
    let twice = Value::Array(vec![digest_of(1, 32), digest_of("sha-256", 32)]);
    let file_of = |file: Value| {
        of_tag(digests(TEXT), move |coswid| {
            let place = coswid.iter().position(|(key, _)| *key == int(6)).unwrap();
            coswid[place].1 = map(&[(17, file)]);
        })
    };
    let hash = digest_of(1, 32);
    for (file, code) in [
        (changed(pcrs(), without(0)), "import_corim_incomplete"),
        (changed(pcrs(), without(1)), "import_corim_incomplete"),
        (changed(pcrs(), |corim| corim[0].1 = int(1)), "import_corim_shape"),
        (changed(pcrs(), |corim| corim[1].1 = Value::Array(Vec::new())), "import_corim_shape"),
        (changed(pcrs(), |corim| corim.push((int(3), tag(32, "urn:other".into())))), "import_corim_profile"),
        (
            changed(pcrs(), |corim| corim.push((int(4), map(&[(0, tag(1, int(5)))])))),
            "import_corim_incomplete",
        ),
        (
            changed(pcrs(), |corim| corim.push((int(4), map(&[(1, tag(1, Value::Float(1.0)))])))),
            "import_corim_shape",
        ),
        (of_tag(pcrs(), without(1)), "import_corim_incomplete"),
        (of_tag(pcrs(), without(4)), "import_corim_incomplete"),
        (of_tag(digests(TEXT), without(12)), "import_corim_incomplete"),
        (of_tag(digests(TEXT), without(6)), "import_corim_incomplete"),
        (of_tag(digests(TEXT), |coswid| coswid[1].1 = "no name".into()), "import_corim_name"),
        (measured(Some("initrd".into()), map(&[(2, twice)])), "import_corim_shape"),
        (
            measured(Some("initrd".into()), map(&[(2, Value::Array(vec![digest_of(1, 31)]))])),
            "import_corim_shape",
        ),
        (file_of(map(&[(24, "ls".into()), (7, hash.clone())])), "import_corim_incomplete"),
        (file_of(map(&[(24, "ls".into()), (23, "/bin".into())])), "import_corim_incomplete"),
        (file_of(map(&[(24, "ls\n".into()), (23, "/bin".into()), (7, hash.clone())])), "import_corim_shape"),
        (file_of(map(&[(24, "../ls".into()), (23, "/bin".into()), (7, hash.clone())])), "import_corim_shape"),
        (
            file_of(map(&[
                (24, "x".repeat(2500).into()),
                (23, format!("/{}", "y".repeat(2500)).into()),
                (7, hash.clone()),
            ])),
            "import_corim_shape",
        ),
        (file_of(map(&[(24, "ls".into()), (23, "bin".into()), (7, hash.clone())])), "import_corim_shape"),
        (
            file_of(Value::Array(vec![map(&[(24, "ls".into()), (23, "/".into()), (7, hash)])])),
            "import_corim_shape",
        ),
        ([write(&document(&[pcrs()])).unwrap().corim, vec![0]].concat(), "import_corim_encoding"),
        (bytes(&tag(502, int(1))), "import_corim_tag"),
        (bytes(&tag(18, tag(18, int(1)))), "import_corim_shape"),
    ] {
        let refused = unsigned(&file).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    let mut several = document(&[pcrs(), boot()]);
    let name = "x".parse::<Name>().unwrap();
    let file = write(&several).unwrap().corim;
    let refused = why(Importable::corim(&file, None, Some(&name), NOW));
    assert!(matches!(refused, CorimError::Inexpressible { .. }), "one name for two sets");
    several.sets[1] = several.sets[0].clone();
    let twice = unsigned(&write(&several).unwrap().corim).unwrap_err();
    assert_eq!(twice, ExchangeError::Twice("one@7".into()));
    let mut long = write(&document(&[pcrs()])).unwrap().corim;
    long.resize(MAX_BYTES + 1, 0);
    assert_eq!(unsigned(&long).unwrap_err().code(), "import_corim_shape");
}

/// Wherever it ends too early, and whatever a byte of it becomes, it is refused or is something else, in time.
#[test]
fn no_damage_is_a_panic() {
    let document = document(&[pcrs(), boot(), digests(TEXT)]);
    let (pair, signer) = signer("release", true);
    let file = ours(&document, &pair, &signer, None);
    for end in 0..file.len() {
        assert!(unsigned(&file[..end]).is_err(), "{end}");
    }
    let mut changed = file.clone();
    for place in 0..file.len() {
        for flip in [1, 0x20, 0x80, 0xff] {
            changed[place] ^= flip;
            let _ = unsigned(&changed);
            assert!(taken(&changed, std::slice::from_ref(&signer)).is_err(), "byte {place}");
            changed[place] ^= flip;
        }
    }
}

#[test]
fn what_corim_cannot_say_is_not_written() {
    let refused = |values: serde_json::Value| write(&document(&[values])).unwrap_err();
    let set = || "one@7".to_owned();
    for (text, expected) in [
        ("\nsha256:HEX  *\n", Unwritable::AnyPath { set: set(), line: 2 }),
        ("verity:sha256:HEX  /a\n", Unwritable::Verity { set: set(), line: 1 }),
        ("sha256:HEX  /a//b\n", Unwritable::Path { set: set(), line: 1 }),
        ("sha256:HEX  /a\u{200b}\n", Unwritable::Path { set: set(), line: 1 }),
        ("sha256:0b  /a\n", Unwritable::Line { set: set(), line: 1 }),
    ] {
        assert_eq!(refused(digests(text)), expected);
    }
    let sha1 = format!("sha1:{}  /a\n", "0b".repeat(20));
    assert_eq!(refused(digests(&sha1)), Unwritable::Sha1 { set: set(), line: 1 });
    let frame = json!({ "digests": Blob::<9>::new(b"no frame".to_vec()).unwrap() });
    assert!(matches!(refused(frame), Unwritable::Digests { .. }));
    let texts = json!({ "boot": { "bank": "sha384", "values": [{ "measured": { "kind": "command_line", "text": "a" } }] } });
    assert_eq!(refused(texts), Unwritable::Bank { set: set(), bank: HashAlgorithm::Sha384 });
}
