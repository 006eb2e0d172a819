//! The trust bundle in the form of SPIFFE (SPIFFE Trust Domain and Bundle, 4.2): a JWK for each CA and each key.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1, SECP_521_R_1};
use data_encoding::BASE64;
use der::asn1::UintRef;
use der::{Decode, Sequence};
use rootbound_token::base64url;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::Certificate;

use crate::credential::result_key::JwkSet;

/// A CA certificate; `None` for a kind of key that JWK has no form for here: no CA of ours has one.
pub(super) fn x509_svid(root: &CertificateDer<'_>) -> Option<Value> {
    let certificate = Certificate::from_der(root).ok()?;
    let mut key = public_key(certificate.tbs_certificate().subject_public_key_info())?;
    let members = key.as_object_mut()?;
    members.insert("use".to_owned(), "x509-svid".into());
    members.insert("x5c".to_owned(), json!([BASE64.encode(root)]));
    Some(key)
}

/// The keys that sign JWT-SVIDs.
pub(super) fn jwt_svids(keys: &JwkSet) -> Vec<Value> {
    let entry = |key: &crate::credential::result_key::Jwk| json!({ "use": "jwt-svid", "kty": "EC", "crv": "P-256", "kid": key.kid(), "x": key.x(), "y": key.y(), "alg": "ES256" });
    keys.keys().iter().map(entry).collect()
}

/// RFC 7518, 6.2.1 and 6.3.1.
fn public_key(key: &SubjectPublicKeyInfoOwned) -> Option<Value> {
    let bits = key.subject_public_key.as_bytes()?;
    match key.algorithm.oid {
        ID_EC_PUBLIC_KEY => {
            let curve: ObjectIdentifier = key.algorithm.parameters.as_ref()?.decode_as().ok()?;
            let (name, size) = match curve {
                SECP_256_R_1 => ("P-256", 32),
                SECP_384_R_1 => ("P-384", 48),
                SECP_521_R_1 => ("P-521", 66),
                _ => return None,
            };
            let (tag, point) = bits.split_first()?;
            let (x, y) = point.split_at_checked(size).filter(|(_, y)| y.len() == size && *tag == 4)?;
            Some(json!({ "kty": "EC", "crv": name, "x": base64url(x), "y": base64url(y) }))
        }
        RSA_ENCRYPTION => {
            let RsaPublicKey { modulus, public_exponent } = RsaPublicKey::from_der(bits).ok()?;
            let (n, e) = (base64url(modulus.as_bytes()), base64url(public_exponent.as_bytes()));
            Some(json!({ "kty": "RSA", "n": n, "e": e }))
        }
        _ => None,
    }
}

/// RFC 8017, A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}
