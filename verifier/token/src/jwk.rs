//! JSON Web Keys (RFC 7517) of the one kind that is used here: P-256, for ES256 (RFC 7518, 6.2).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use rootbound_common::crypto::sha256;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::json::{self, JsonError};
use crate::{base64url, from_base64url};

/// Why something is no key that is taken here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// Not a JSON object.
    #[error("a key is a JSON object")]
    NotAnObject,
    /// It shows what nobody else may know.
    #[error("the key has the private member `{member}`")]
    Private {
        /// Which.
        member: &'static str,
    },
    /// Not an elliptic curve key.
    #[error("the key's kty is not EC")]
    KeyType,
    /// Of another curve.
    #[error("the key's crv is not P-256")]
    Curve,
    /// It is for something else than ES256 signatures.
    #[error("the key's `{member}` says that it is not for signatures of ES256")]
    Purpose {
        /// Which member says so.
        member: &'static str,
    },
    /// Not a number of exactly 32 bytes in canonical base64url.
    #[error("the key's `{coordinate}` is not 32 bytes in base64url without padding")]
    Coordinate {
        /// Which.
        coordinate: &'static str,
    },
    /// A point that the curve does not have.
    #[error("the key is no point of the curve P-256")]
    NotOnCurve,
    /// Neither an uncompressed point nor a SubjectPublicKeyInfo of P-256.
    #[error("the bytes are no uncompressed point of P-256, bare or in a SubjectPublicKeyInfo")]
    Encoding,
}

/// Members that are private or secret in a key of some kind (RFC 7518, 6.2.2, 6.3.2, 6.4.1; RFC 8037, 2).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// AlgorithmIdentifier of id-ecPublicKey with prime256v1, and the head of a BIT STRING of 65 bytes (RFC 5480, 2), in DER.
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A public key: a point that is on P-256. There is no other way to have one than to check it.
#[derive(Debug, Clone)]
pub struct PublicJwk {
    x: [u8; 32],
    y: [u8; 32],
    key: ParsedPublicKey,
}

impl PublicJwk {
    /// Reads a key.
    ///
    /// Established when this returns, in this order: nothing private is shown · it is an EC key (RFC 7517, 4.1), of P-256
    /// (RFC 7518, 6.2.1.1), for ES256 and for nothing else, where it says so · its coordinates are 32 bytes each, in the one
    /// form of base64url that such bytes have (6.2.1.2: "the full size of a coordinate") · it is a point of the curve.
    pub fn from_json(value: &Value) -> Result<Self, JwkError> {
        let members = value.as_object().ok_or(JwkError::NotAnObject)?;
        if let Some(member) = PRIVATE.into_iter().find(|member| members.contains_key(*member)) {
            return Err(JwkError::Private { member });
        }
        let is = |member: &str, expected: &str| members.get(member).and_then(Value::as_str) == Some(expected);
        if !is("kty", "EC") {
            return Err(JwkError::KeyType);
        }
        if !is("crv", "P-256") {
            return Err(JwkError::Curve);
        }
        if members.contains_key("alg") && !is("alg", "ES256") {
            return Err(JwkError::Purpose { member: "alg" });
        }
        let verifies = |operations: &Value| {
            operations.as_array().is_some_and(|all| all.iter().any(|one| one.as_str() == Some("verify")))
        };
        if members.get("key_ops").is_some_and(|operations| !verifies(operations)) {
            return Err(JwkError::Purpose { member: "key_ops" });
        }
        if members.get("use").is_some_and(|usage| KeyUse::of(usage).is_none()) {
            return Err(JwkError::Purpose { member: "use" });
        }
        let coordinate = |coordinate: &'static str| {
            let text = members.get(coordinate).and_then(Value::as_str);
            text.and_then(thirty_two).ok_or(JwkError::Coordinate { coordinate })
        };
        Self::of_coordinates(coordinate("x")?, coordinate("y")?)
    }

    /// The key of an uncompressed point (SEC 1, 2.3.3): 0x04, x, y.
    pub fn from_sec1(point: &[u8]) -> Result<Self, JwkError> {
        let (x, y) = match point.split_first() {
            Some((0x04, coordinates)) => coordinates.split_at_checked(32).ok_or(JwkError::Encoding)?,
            Some(_) | None => return Err(JwkError::Encoding),
        };
        let fixed = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| JwkError::Encoding);
        Self::of_coordinates(fixed(x)?, fixed(y)?)
    }

    /// The key of a SubjectPublicKeyInfo in DER, as a certificate has it.
    pub fn from_spki(der: &[u8]) -> Result<Self, JwkError> {
        Self::from_sec1(der.strip_prefix(&SPKI).ok_or(JwkError::Encoding)?)
    }

    fn of_coordinates(x: [u8; 32], y: [u8; 32]) -> Result<Self, JwkError> {
        let point = [&[0x04], &x[..], &y[..]].concat();
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| JwkError::NotOnCurve)?;
        Ok(Self { x, y, key })
    }

    /// The first coordinate, in base64url.
    #[must_use]
    pub fn x(&self) -> String {
        base64url(&self.x)
    }

    /// The second coordinate, in base64url.
    #[must_use]
    pub fn y(&self) -> String {
        base64url(&self.y)
    }

    /// Its name by what it is.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        Thumbprint::of_coordinates(&self.x(), &self.y())
    }

    /// The four members that a key of this kind must have, as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let members =
            [("kty", "EC".to_owned()), ("crv", "P-256".to_owned()), ("x", self.x()), ("y", self.y())];
        members.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
    }

    /// Whether `signature`, R and S of 32 bytes each (RFC 7518, 3.4), is this key's over `message`.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), NotItsSignature> {
        self.key.verify_sig(message, signature).map_err(|_| NotItsSignature)
    }
}

/// The signature is not the key's over this message.
#[derive(Debug)]
pub(crate) struct NotItsSignature;

impl PartialEq for PublicJwk {
    fn eq(&self, other: &Self) -> bool {
        (self.x, self.y) == (other.x, other.y)
    }
}

impl Eq for PublicJwk {}

fn thirty_two(text: &str) -> Option<[u8; 32]> {
    // Before it is decoded: 43 characters are 32 bytes and two bits, which have to be zero.
    (text.len() == 43).then(|| from_base64url(text))??.try_into().ok()
}

/// A text that is not 32 bytes in base64url without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 32 bytes in base64url without padding")]
pub struct NotAThumbprint;

/// A hash of 32 bytes that is shown in base64url.
macro_rules! shown_in_base64url {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base64url(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotAThumbprint;

            fn from_str(text: &str) -> Result<Self, NotAThumbprint> {
                thirty_two(text).map(Self).ok_or(NotAThumbprint)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

shown_in_base64url! {
    /// The thumbprint of a key (RFC 7638): `jkt` where a token is bound to it (RFC 9449, 6.1).
    Thumbprint;
    /// SHA-256 over the DER of a certificate: `x5t#S256` where a token is bound to it (RFC 8705, 3.1).
    CertificateThumbprint;
}

impl Thumbprint {
    /// That of the P-256 key with these coordinates in base64url: SHA-256 over the required members in lexicographic order,
    /// without white space (RFC 7638, 3).
    #[must_use]
    pub fn of_coordinates(x: &str, y: &str) -> Self {
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Self(sha256(&[members.as_bytes()]))
    }
}

impl CertificateThumbprint {
    /// That of a certificate.
    #[must_use]
    pub fn of_der(certificate: &[u8]) -> Self {
        Self(sha256(&[certificate]))
    }
}

/// What a key of a set is for, as far as it concerns us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyUse {
    /// `sig` (RFC 7517, 4.2), or nothing said: any signature.
    Signature,
    /// `jwt-svid`: a SPIFFE bundle's (SPIFFE Trust Domain and Bundle, 4.2.2).
    JwtSvid,
}

impl KeyUse {
    fn of(text: &Value) -> Option<Self> {
        match text.as_str() {
            Some("sig") => Some(Self::Signature),
            Some("jwt-svid") => Some(Self::JwtSvid),
            Some(_) | None => None,
        }
    }
}

/// Why a text is no set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkSetError {
    /// Larger than any set that is taken.
    #[error("the set has {found} bytes, more than {}", JwkSet::MAX_BYTES)]
    TooLong {
        /// How many.
        found: usize,
    },
    /// Not JSON that is read.
    #[error("the set is no JSON that is read here: {0}")]
    Json(#[from] JsonError),
    /// No object with an array `keys`.
    #[error("a set of keys is a JSON object with an array `keys`")]
    Form,
    /// Too many keys.
    #[error("the set has {found} keys, more than {}", JwkSet::MAX_KEYS)]
    TooManyKeys {
        /// How many.
        found: usize,
    },
    /// Whoever published it published a secret.
    #[error("key {position} of the set has the private member `{member}`")]
    Private {
        /// Which key, from 1.
        position: usize,
        /// Which member.
        member: &'static str,
    },
    /// One name for two keys of one use.
    #[error("key {position} of the set has the kid of another")]
    KeyIdTwice {
        /// Which key, from 1.
        position: usize,
    },
}

/// Keys by their names (RFC 7517, 5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JwkSet {
    keys: Vec<(String, KeyUse, PublicJwk)>,
}

impl JwkSet {
    /// Room for the certificates that a SPIFFE bundle has besides.
    pub const MAX_BYTES: usize = 256 * 1024;
    /// Some for each key in rotation, and the authorities of a SPIFFE bundle.
    pub const MAX_KEYS: usize = 64;
    /// A key has ten members, or a chain of certificates.
    const MAX_VALUES: usize = 64 * 32;

    /// Reads a set. What is of another kind or for another use, or has no name, is left out (RFC 7517, 5); what cannot
    /// be told apart or should not have been published refuses the set.
    pub fn parse(text: &[u8]) -> Result<Self, JwkSetError> {
        if text.len() > Self::MAX_BYTES {
            return Err(JwkSetError::TooLong { found: text.len() });
        }
        let document = json::read(text, Self::MAX_VALUES)?;
        let entries = document.get("keys").and_then(Value::as_array).ok_or(JwkSetError::Form)?;
        if entries.len() > Self::MAX_KEYS {
            return Err(JwkSetError::TooManyKeys { found: entries.len() });
        }
        let mut set = Self::default();
        for (position, entry) in (1..).zip(entries) {
            let key = match PublicJwk::from_json(entry) {
                Ok(key) => key,
                Err(JwkError::Private { member }) => return Err(JwkSetError::Private { position, member }),
                Err(_) => continue,
            };
            let Some(kid) = entry.get("kid").and_then(Value::as_str) else { continue };
            let usage = entry.get("use").map_or(Some(KeyUse::Signature), KeyUse::of);
            let Some(usage) = usage else { continue };
            if set.keys.iter().any(|(name, other, _)| name == kid && *other == usage) {
                return Err(JwkSetError::KeyIdTwice { position });
            }
            set.keys.push((kid.to_owned(), usage, key));
        }
        Ok(set)
    }

    /// Keys that are known already, each for any signature, under the name of its thumbprint.
    #[must_use]
    pub fn of_keys(keys: impl IntoIterator<Item = PublicJwk>) -> Self {
        let named = |key: PublicJwk| (key.thumbprint().to_string(), KeyUse::Signature, key);
        Self { keys: keys.into_iter().map(named).collect() }
    }

    /// The key of this name that is for any signature.
    #[must_use]
    pub fn signing(&self, kid: &str) -> Option<&PublicJwk> {
        self.find(kid, KeyUse::Signature)
    }

    /// The key of this name that is for JWT-SVIDs: a bundle's, else one that is for any signature.
    #[must_use]
    pub fn jwt_svid(&self, kid: &str) -> Option<&PublicJwk> {
        self.find(kid, KeyUse::JwtSvid).or_else(|| self.signing(kid))
    }

    /// How many keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has none, so that nothing verifies by it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn find(&self, kid: &str, usage: KeyUse) -> Option<&PublicJwk> {
        self.keys.iter().find(|(name, of, _)| name == kid && *of == usage).map(|(_, _, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Signer;
    use serde_json::json;

    /// The key and the thumbprint of RFC 9449, figures 2 and 8.
    const X: &str = "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs";
    const Y: &str = "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA";

    fn published() -> Value {
        json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y })
    }

    fn with(member: &str, value: Value) -> Result<PublicJwk, JwkError> {
        let mut key = published();
        key[member] = value;
        PublicJwk::from_json(&key)
    }

    #[test]
    fn thumbprint_is_that_of_a_published_example() {
        let key = PublicJwk::from_json(&published()).unwrap();
        assert_eq!(key.thumbprint().to_string(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        assert_eq!(Value::Object(key.to_json()), published());
        let text = key.thumbprint().to_string();
        assert_eq!(text.parse(), Ok(key.thumbprint()));
        for not in ["", &text[1..], &format!("{text}A"), &format!("{}J", &text[..42]), &format!("{text}=")] {
            assert_eq!(not.parse::<Thumbprint>(), Err(NotAThumbprint), "{not}");
        }
    }

    #[test]
    fn a_key_is_the_same_in_each_encoding() {
        let key = PublicJwk::from_json(&published()).unwrap();
        let point = [&[4], &from_base64url(X).unwrap()[..], &from_base64url(Y).unwrap()].concat();
        assert_eq!(PublicJwk::from_sec1(&point).unwrap(), key);
        let spki = [&SPKI[..], &point].concat();
        assert_eq!(PublicJwk::from_spki(&spki).unwrap(), key);
        let compressed = [&[2], &point[1..33]].concat();
        for not in [&[][..], &[4], &[0], &compressed, &point[..64], &[&point[..], &[0]].concat(), &spki] {
            assert_eq!(PublicJwk::from_sec1(not).unwrap_err(), JwkError::Encoding);
        }
        for not in [&[][..], &point, &SPKI, &[&spki[..], &[0]].concat()] {
            assert_eq!(PublicJwk::from_spki(not).unwrap_err(), JwkError::Encoding);
        }
    }

    #[test]
    fn a_key_of_another_kind_or_with_a_secret_is_refused() {
        for member in PRIVATE {
            assert_eq!(with(member, json!(X)), Err(JwkError::Private { member }));
            assert_eq!(with(member, json!(null)), Err(JwkError::Private { member }), "whatever it holds");
        }
        for not in [json!("RSA"), json!("oct"), json!("OKP"), json!("ec"), json!(null), json!(["EC"])] {
            assert_eq!(with("kty", not), Err(JwkError::KeyType));
        }
        for not in [json!("P-384"), json!("secp256k1"), json!("p-256"), json!(256)] {
            assert_eq!(with("crv", not), Err(JwkError::Curve));
        }
        for (member, not) in [
            ("alg", json!("HS256")),
            ("alg", json!(null)),
            ("use", json!("enc")),
            ("use", json!(1)),
            ("key_ops", json!(["sign"])),
            ("key_ops", json!("verify")),
        ] {
            assert_eq!(with(member, not), Err(JwkError::Purpose { member }));
        }
        for (member, yes) in [
            ("alg", json!("ES256")),
            ("use", json!("sig")),
            ("key_ops", json!(["verify"])),
            ("kid", json!(7)),
            ("ext", json!(true)),
        ] {
            assert!(with(member, yes).is_ok(), "{member}");
        }
        for not in [json!([]), json!("key"), json!(null)] {
            assert_eq!(PublicJwk::from_json(&not), Err(JwkError::NotAnObject));
        }
    }

    #[test]
    fn a_coordinate_has_one_form() {
        let zero = "A".repeat(43);
        for coordinate in ["x", "y"] {
            let text = published()[coordinate].as_str().unwrap().to_owned();
            // The last character has two bits that nobody needs: with one of them set it is another text for the same bytes.
            let last = char::from(text.as_bytes()[42] + 1);
            for not in [
                json!(format!("{}{last}", &text[..42])),
                json!(format!("{text}=")),
                json!(format!(" {text}")),
                json!(format!("AA{text}")),
                json!(text[..42]),
                json!(text.replace(['-', '_'], "+")),
                json!(null),
                json!(7),
            ] {
                assert_eq!(with(coordinate, not), Err(JwkError::Coordinate { coordinate }));
            }
            assert_eq!(with(coordinate, json!(zero)), Err(JwkError::NotOnCurve));
            // Not below p.
            assert_eq!(with(coordinate, json!(base64url(&[0xff; 32]))), Err(JwkError::NotOnCurve));
        }
        let origin = json!({ "kty": "EC", "crv": "P-256", "x": zero, "y": zero });
        assert_eq!(PublicJwk::from_json(&origin), Err(JwkError::NotOnCurve));
    }

    fn set(keys: &[Value]) -> Result<JwkSet, JwkSetError> {
        JwkSet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn named(signer: &Signer, more: Value) -> Value {
        let mut key = signer.public().to_json();
        key.extend(more.as_object().unwrap().clone());
        Value::Object(key)
    }

    #[test]
    fn a_set_gives_keys_by_name_and_use() {
        let (one, other) = (Signer::new(), Signer::new());
        let keys = set(&[
            json!({ "kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB" }),
            named(&other, json!({ "kid": "x", "use": "x509-svid", "x5c": ["AA=="] })),
            named(&other, json!({ "use": "sig" })),
            named(&other, json!({ "kid": 7 })),
            json!("no key"),
            named(&one, json!({ "kid": "a", "use": "sig", "alg": "ES256" })),
            named(&other, json!({ "kid": "a", "use": "jwt-svid" })),
            named(&other, json!({ "kid": "b", "use": "jwt-svid" })),
            named(&one, json!({ "kid": "c" })),
        ])
        .unwrap();
        assert_eq!(keys.len(), 4);
        assert!(!keys.is_empty() && JwkSet::default().is_empty());
        assert_eq!(keys.signing("a"), Some(one.public()));
        assert_eq!(keys.jwt_svid("a"), Some(other.public()), "a bundle's key before another");
        assert_eq!((keys.signing("b"), keys.jwt_svid("b")), (None, Some(other.public())));
        assert_eq!((keys.signing("c"), keys.jwt_svid("c")), (Some(one.public()), Some(one.public())));
        for unknown in ["", "x", "A", "7"] {
            assert_eq!((keys.signing(unknown), keys.jwt_svid(unknown)), (None, None));
        }
        let ours = JwkSet::of_keys([one.public().clone()]);
        assert_eq!(ours.signing(&one.public().thumbprint().to_string()), Some(one.public()));
    }

    #[test]
    fn a_set_that_says_two_things_is_refused() {
        let (one, other) = (Signer::new(), Signer::new());
        let twice = [named(&one, json!({ "kid": "a" })), named(&other, json!({ "kid": "a", "use": "sig" }))];
        assert_eq!(set(&twice), Err(JwkSetError::KeyIdTwice { position: 2 }));
        let secret = named(&one, json!({ "kid": "a", "d": X }));
        assert_eq!(set(&[secret]), Err(JwkSetError::Private { position: 1, member: "d" }));
        let many = vec![json!({}); JwkSet::MAX_KEYS + 1];
        assert_eq!(set(&many), Err(JwkSetError::TooManyKeys { found: JwkSet::MAX_KEYS + 1 }));
        assert!(set(&many[1..]).unwrap().is_empty());
        for not in ["[]", "{}", r#"{"keys":{}}"#, "null"] {
            assert_eq!(JwkSet::parse(not.as_bytes()), Err(JwkSetError::Form));
        }
        assert!(matches!(JwkSet::parse(br#"{"keys":[],"keys":[]}"#), Err(JwkSetError::Json(_))));
        let long = vec![b' '; JwkSet::MAX_BYTES + 1];
        assert_eq!(JwkSet::parse(&long), Err(JwkSetError::TooLong { found: JwkSet::MAX_BYTES + 1 }));
    }
}
