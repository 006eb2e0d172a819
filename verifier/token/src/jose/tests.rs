use super::*;
use crate::base64url;
use crate::testing::Signer;
use proptest::prelude::*;
use serde_json::json;

const KINDS: [Kind; 3] = [Kind::AccessToken, Kind::JwtSvid, Kind::DpopProof];

fn header(kind: Kind, signer: &Signer) -> Value {
    match kind {
        Kind::AccessToken => json!({ "alg": "ES256", "typ": "at+jwt", "kid": signer.kid() }),
        Kind::JwtSvid => json!({ "alg": "ES256", "typ": "JWT", "kid": signer.kid() }),
        Kind::DpopProof => {
            json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": signer.public().to_json() })
        }
    }
}

fn parse(text: &str, kind: Kind) -> Result<(), JoseError> {
    UnverifiedJws::parse(text, kind).map(drop)
}

fn with(kind: Kind, member: &str, value: Value) -> Result<(), JoseError> {
    let signer = Signer::new();
    let mut header = header(kind, &signer);
    header[member] = value;
    parse(&signer.sign(&header, &json!({})), kind)
}

fn without(kind: Kind, member: &str) -> Result<(), JoseError> {
    let signer = Signer::new();
    let mut header = header(kind, &signer);
    header.as_object_mut().unwrap().remove(member);
    parse(&signer.sign(&header, &json!({})), kind)
}

/// RFC 7515, A.3: a signature by somebody else, over a header without kid. It is read as what it is not, so that
/// its signature is verified below [`UnverifiedJws::parse`].
#[test]
fn the_signature_of_a_published_example_verifies() {
    let input = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
        cGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let key = PublicJwk::from_json(&json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }))
    .unwrap();
    let text = format!("{input}.{signature}");
    assert_eq!(parse(&text, Kind::JwtSvid), Err(JoseError::NoKeyId));
    let bytes: [u8; 64] = from_base64url(signature).unwrap().try_into().unwrap();
    let payload = input.split_once('.').unwrap().1;
    let jws = UnverifiedJws {
        text: &text,
        signing_input: input,
        payload,
        signature: bytes,
        key: KeySource::Named("a".to_owned()),
    };
    assert_eq!(jws.verify(&key).unwrap().claims()["iss"], "joe");
}

#[test]
fn what_is_signed_by_the_key_is_given_out_and_nothing_else() {
    for kind in KINDS {
        let signer = Signer::new();
        let text = signer.sign(&header(kind, &signer), &json!({ "sub": "a" }));
        let parsed = UnverifiedJws::parse(&text, kind).unwrap();
        match kind {
            Kind::DpopProof => assert_eq!(parsed.embedded_key(), Some(signer.public())),
            Kind::AccessToken | Kind::JwtSvid => {
                assert_eq!(parsed.key_id(), Some(signer.kid().as_str()));
            }
        }
        let verified = parsed.verify(signer.public()).unwrap();
        assert_eq!(verified.claims()["sub"], "a");
        assert_eq!(verified.hash(), &sha256(&[text.as_bytes()]));
        let other = UnverifiedJws::parse(&text, kind).unwrap().verify(Signer::new().public());
        assert_eq!(other.unwrap_err(), JoseError::Signature);
        let parts: Vec<_> = text.split('.').collect();
        let changed = format!("{}.{}.{}", parts[0], base64url(br#"{"sub":"b"}"#), parts[2]);
        let changed = UnverifiedJws::parse(&changed, kind).unwrap().verify(signer.public());
        assert_eq!(changed.unwrap_err(), JoseError::Signature);
        let zero = format!("{}.{}.{}", parts[0], parts[1], base64url(&[0; 64]));
        let zero = UnverifiedJws::parse(&zero, kind).unwrap().verify(signer.public());
        assert_eq!(zero.unwrap_err(), JoseError::Signature);
    }
}

#[test]
fn each_algorithm_but_es256_is_refused_by_its_kind() {
    use RefusedAlgorithm::{Edwards, Mac, OtherEcdsa, Rsa, Unknown, Unsigned};
    for kind in KINDS {
        for (alg, expected) in [
            (json!("none"), Unsigned),
            (json!("nOnE"), Unsigned),
            (json!("HS256"), Mac),
            (json!("HS512"), Mac),
            (json!("RS256"), Rsa),
            (json!("PS256"), Rsa),
            (json!("ES384"), OtherEcdsa),
            (json!("ES256K"), OtherEcdsa),
            (json!("EdDSA"), Edwards),
            (json!("Ed25519"), Edwards),
            (json!("es256"), Unknown),
            (json!("ECDH-ES"), Unknown),
            (json!(""), Unknown),
            (json!(null), Unknown),
            (json!(["ES256"]), Unknown),
        ] {
            assert_eq!(with(kind, "alg", alg), Err(expected.into()));
        }
        assert_eq!(without(kind, "alg"), Err(RefusedAlgorithm::Absent.into()));
    }
}

#[test]
fn header_members_that_change_what_is_signed_or_by_whom_are_refused() {
    for kind in KINDS {
        for member in REFUSED {
            assert_eq!(with(kind, member, json!(null)), Err(JoseError::RefusedMember { member }));
        }
        assert_eq!(with(kind, "x5t", json!("AA")), Ok(()), "nobody looks at it");
    }
    for kind in [Kind::AccessToken, Kind::JwtSvid] {
        let key = Value::Object(Signer::new().public().to_json());
        assert_eq!(with(kind, "jwk", key), Err(JoseError::EmbeddedKey));
        assert_eq!(without(kind, "kid"), Err(JoseError::NoKeyId));
        for not in [json!(""), json!(7), json!(null)] {
            assert_eq!(with(kind, "kid", not), Err(JoseError::NoKeyId));
        }
    }
    assert_eq!(without(Kind::DpopProof, "jwk"), Err(JoseError::NoKey));
    let mut private = Signer::new().public().to_json();
    private.insert("d".to_owned(), json!("AA"));
    let refused = JwkError::Private { member: "d" };
    assert_eq!(with(Kind::DpopProof, "jwk", Value::Object(private)), Err(refused.into()));
}

#[test]
fn no_kind_is_taken_for_another() {
    let types = ["at+jwt", "application/at+jwt", "AT+JWT", "JWT", "JOSE", "dpop+jwt", "eat+jwt", "jwt", ""];
    for kind in KINDS {
        let taken: Vec<_> = types.into_iter().filter(|typ| with(kind, "typ", json!(typ)).is_ok()).collect();
        let expected: &[&str] = match kind {
            Kind::AccessToken => &["at+jwt", "application/at+jwt", "AT+JWT"],
            Kind::JwtSvid => &["JWT", "JOSE"],
            Kind::DpopProof => &["dpop+jwt"],
        };
        assert_eq!(taken, expected, "{kind:?}");
        assert_eq!(with(kind, "typ", json!(null)), Err(JoseError::Type(kind)));
        let absent = if kind == Kind::JwtSvid { Ok(()) } else { Err(JoseError::Type(kind)) };
        assert_eq!(without(kind, "typ"), absent);
    }
}

#[test]
fn a_text_of_another_form_is_refused() {
    let signer = Signer::new();
    let kind = Kind::AccessToken;
    let good = signer.sign(&header(kind, &signer), &json!({ "a": 1 }));
    let (input, signature) = good.rsplit_once('.').unwrap();
    let (head, payload) = input.split_once('.').unwrap();
    for not in ["", ".", input, &format!("{good}."), &format!("{good}.a.b"), "{\"payload\":\"\"}"] {
        assert_eq!(parse(not, kind), Err(JoseError::NotThreeParts), "{not}");
    }
    assert_eq!(parse(&format!(".{payload}.{signature}"), kind).unwrap_err().code(), "jws_json_invalid");
    let last = char::from(signature.as_bytes()[85] + 1);
    for not in [
        String::new(),
        base64url(&[1; 63]),
        base64url(&[1; 65]),
        base64url(&[1; 4000]),
        format!("{signature}=="),
        format!("{}{last}", &signature[..85]),
        format!("{} ", &signature[..85]),
        format!("{}+", &signature[..85]),
    ] {
        let text = format!("{input}.{not}");
        assert_eq!(parse(&text, kind), Err(JoseError::Encoding(Part::Signature)), "{not}");
    }
    // Bits that nobody reads, in the header: `{"a":1}` is 7 bytes, the last character has four of them.
    let spare = base64url(br#"{"a":1}"#);
    let spare = format!("{}{}", &spare[..9], char::from(spare.as_bytes()[9] + 1));
    for not in [spare.as_str(), &format!("{head}="), &format!(" {head}"), &format!("{head}\n"), "a"] {
        let text = format!("{not}.{payload}.{signature}");
        assert_eq!(parse(&text, kind), Err(JoseError::Encoding(Part::Header)), "{not}");
    }
    // The payload is read once its signature is verified, whatever it is.
    for (payload, expected) in [
        ("[]", JoseError::NotAnObject(Part::Payload)),
        (
            r#"{"a":1,"a":2}"#,
            JoseError::Json {
                part: Part::Payload,
                error: JsonError::DuplicateMember { line: 1, column: 10 },
            },
        ),
    ] {
        let text = signer.sign_text(&header(kind, &signer).to_string(), payload);
        let parsed = UnverifiedJws::parse(&text, kind).unwrap();
        match (parsed.verify(signer.public()).unwrap_err(), expected) {
            (JoseError::Json { part: a, error: x }, JoseError::Json { part: b, error: y }) => {
                assert_eq!(a, b);
                assert_eq!(std::mem::discriminant(&x), std::mem::discriminant(&y));
            }
            (found, expected) => assert_eq!(found, expected),
        }
    }
    for header in ["[]", "null", "\"ES256\""] {
        let text = signer.sign_text(header, "{}");
        assert_eq!(parse(&text, kind), Err(JoseError::NotAnObject(Part::Header)));
    }
    let twice = r#"{"alg":"ES256","alg":"none","typ":"at+jwt","kid":"a"}"#;
    assert!(matches!(
        parse(&signer.sign_text(twice, "{}"), kind),
        Err(JoseError::Json { part: Part::Header, error: JsonError::DuplicateMember { .. } })
    ));
    let deep = format!(r#"{{"alg":"ES256","a":{}{}}}"#, "[".repeat(100), "]".repeat(100));
    let deep = parse(&signer.sign_text(&deep, "{}"), kind);
    assert_eq!(deep, Err(JoseError::Json { part: Part::Header, error: JsonError::TooDeep }));
    let many = format!(r#"{{"alg":"ES256","a":[{}0]}}"#, "0,".repeat(MAX_HEADER_VALUES));
    let many = parse(&signer.sign_text(&many, "{}"), kind);
    let limit = JsonError::TooManyValues { limit: MAX_HEADER_VALUES };
    assert_eq!(many, Err(JoseError::Json { part: Part::Header, error: limit }));
}

#[test]
fn each_part_is_bounded_before_it_is_decoded() {
    let signer = Signer::new();
    for kind in KINDS {
        let long = "A".repeat(kind.max() + 1);
        let expected = JoseError::TooLong { limit: kind.max(), found: kind.max() + 1 };
        assert_eq!(parse(&long, kind), Err(expected));
        assert_eq!(parse(&long[1..], kind), Err(JoseError::NotThreeParts));
        let mut header = header(kind, &signer);
        header["kid"] = json!("");
        let room = MAX_HEADER - header.to_string().len();
        header["kid"] = json!("k".repeat(room));
        assert_eq!(parse(&signer.sign(&header, &json!({})), kind), Ok(()));
        header["kid"] = json!("k".repeat(room + 1));
        assert_eq!(parse(&signer.sign(&header, &json!({})), kind), Err(JoseError::HeaderTooLong));
    }
}

#[test]
fn each_error_has_a_code_of_its_own() {
    let errors = [
        JoseError::TooLong { limit: 0, found: 1 },
        JoseError::NotThreeParts,
        JoseError::HeaderTooLong,
        JoseError::Encoding(Part::Header),
        JoseError::Json { part: Part::Header, error: JsonError::TooDeep },
        JoseError::NotAnObject(Part::Header),
        JoseError::RefusedMember { member: "crit" },
        JoseError::Algorithm(RefusedAlgorithm::Absent),
        JoseError::Type(Kind::JwtSvid),
        JoseError::EmbeddedKey,
        JoseError::NoKeyId,
        JoseError::NoKey,
        JoseError::Key(JwkError::Curve),
        JoseError::Signature,
    ];
    let codes: std::collections::BTreeSet<_> = errors.iter().map(JoseError::code).collect();
    assert_eq!(codes.len(), errors.len());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", header in "\\PC{0,40}", payload in "\\PC{0,40}") {
        let built = format!("{}.{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()), base64url(&[7; 64]));
        for kind in KINDS {
            prop_assert!(parse(&text, kind).is_err());
            prop_assert!(parse(&built, kind).is_err());
        }
    }

    /// One text for one token: whatever character is changed, it is another token or none.
    #[test]
    fn a_changed_character_never_verifies(at in 0usize..400, to in "[A-Za-z0-9_.=+/ -]") {
        let signer = Signer::new();
        let text = signer.sign(&header(Kind::AccessToken, &signer), &json!({ "sub": "a", "exp": 1 }));
        let at = at % text.len();
        prop_assume!(text[at..=at] != to);
        let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
        let verified = UnverifiedJws::parse(&changed, Kind::AccessToken).and_then(|jws| jws.verify(signer.public()));
        prop_assert!(verified.is_err());
    }
}
