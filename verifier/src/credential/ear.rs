//! EAR: an attestation result as a JWT (draft-ietf-rats-ear-04, RFC 9711, RFC 7519), signed with ES256.
//!
//! The header says `typ: eat+jwt` (RFC 8725, 3.11; RFC 9782, 5): no reader of JWT-SVIDs or of other tokens takes one for
//! its own, whoever its keys are.

use std::fmt;
use std::str::FromStr;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::TrustDomain;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_common::wire::v1::DeviationReport;
use rootbound_token::base64url;
use serde::{Deserialize, Serialize};

use super::result_key::{JwkSet, ResultKey};
use crate::appraisal::trust_vector::{Tier, TrustVector};
use crate::attestation_result::AttestationResult;

/// Why a text is not what a claim of an EAT can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Not a profile.
    #[error("an EAT profile is a URI or an object identifier of at most {} characters", EatProfile::MAX)]
    Profile,
    /// Not a nonce.
    #[error("a nonce is {} to {} characters of base64url, without padding", EatNonce::MIN, EatNonce::MAX)]
    Nonce,
}

/// An EAT profile (RFC 9711, 4.3.2): says which claims a reader finds, and what they mean.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct EatProfile(String);

impl EatProfile {
    /// It is repeated in each result and in a header field.
    const MAX: usize = 256;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// That of draft-ietf-rats-ear-04.
impl Default for EatProfile {
    fn default() -> Self {
        Self("tag:ietf.org,2026:rats/ear#04".to_owned())
    }
}

impl FromStr for EatProfile {
    type Err = ClaimError;

    fn from_str(text: &str) -> Result<Self, ClaimError> {
        let scheme = |scheme: &str| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        };
        let uri = text.split_once(':').is_some_and(|(before, after)| scheme(before) && !after.is_empty());
        let arc = |arc: &str| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit());
        let identifier = text.contains('.') && text.split('.').all(arc);
        // What stands within quotation marks in a header field needs no escape (RFC 9110, 5.6.4).
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
        if text.len() <= Self::MAX && plain && (uri || identifier) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ClaimError::Profile)
        }
    }
}

impl TryFrom<String> for EatProfile {
    type Error = ClaimError;

    fn try_from(text: String) -> Result<Self, ClaimError> {
        text.parse()
    }
}

/// What a relying party wants to find in the result (RFC 9711, 4.1), so that it knows that the result is new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EatNonce(String);

impl EatNonce {
    const MIN: usize = 8;
    const MAX: usize = 88;
}

impl FromStr for EatNonce {
    type Err = ClaimError;

    fn from_str(text: &str) -> Result<Self, ClaimError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if (Self::MIN..=Self::MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ClaimError::Nonce)
        }
    }
}

/// A signed result, in JWS Compact Serialization (RFC 7515, 7.1). Only [`ResultSigner::sign`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ear(String);

impl Ear {
    /// The token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The token.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Signs results, all of one trust domain and one profile.
pub struct ResultSigner {
    key: ResultKey,
    profile: EatProfile,
    trust_domain: TrustDomain,
}

impl ResultSigner {
    /// A signer.
    #[must_use]
    pub fn new(key: ResultKey, profile: EatProfile, trust_domain: TrustDomain) -> Self {
        Self { key, profile, trust_domain }
    }

    /// What verifies its signatures.
    #[must_use]
    pub fn jwk_set(&self) -> JwkSet {
        self.key.jwk_set()
    }

    /// The media type of what it signs (RFC 9782, 3).
    #[must_use]
    pub fn media_type(&self) -> String {
        format!("application/eat+jwt; eat_profile=\"{}\"", self.profile.as_str())
    }

    /// Signs a result, with the nonce of whoever asked for it.
    pub fn sign(
        &self,
        result: &AttestationResult,
        nonce: Option<&EatNonce>,
    ) -> Result<Ear, serde_json::Error> {
        let header = Header { alg: "ES256", typ: "eat+jwt", kid: self.key.id() };
        let claims = self.claims(result, nonce);
        let [header, claims] = [serde_json::to_vec(&header)?, serde_json::to_vec(&claims)?];
        let mut token = format!("{}.{}", base64url(&header), base64url(&claims));
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        token.push_str(&base64url(&signature));
        Ok(Ear(token))
    }

    fn claims<'a>(&'a self, result: &'a AttestationResult, nonce: Option<&'a EatNonce>) -> Claims<'a> {
        let profile = result.profile().map(|profile| format!("urn:rootbound:profile:{profile}"));
        let references = result.references().iter().map(|set| format!("urn:rootbound:reference:{set}"));
        let deviations = result.deviations();
        Claims {
            eat_profile: self.profile.as_str(),
            iss: self.trust_domain.verifier().to_string(),
            sub: self.trust_domain.node(result.node()).to_string(),
            iat: result.issued_at().as_seconds(),
            // Both rounded down: a result is never accepted longer than its evidence.
            exp: result.not_after().as_seconds(),
            ear_verifier_id: VerifierId { developer: "Rootbound", build: BUILD },
            eat_nonce: nonce,
            submods: Submods {
                rootbound: Appraised {
                    ear_status: result.status(),
                    ear_trustworthiness_vector: result.claims(),
                    ear_appraisal_policy_ids: profile.into_iter().chain(references).collect(),
                    ear_verifier_claims: result.epoch().map(|epoch| VerifierClaims {
                        rootbound_posture_epoch: epoch,
                        rootbound_evidence_at: result.evidence_at().map(Timestamp::as_seconds),
                        rootbound_deviation_count: deviations.len(),
                        rootbound_deviations: deviations.iter().take(MAX_DEVIATIONS).map(Told::of).collect(),
                    }),
                },
            },
        }
    }
}

impl fmt::Debug for ResultSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultSigner").field("key", &self.key).field("profile", &self.profile).finish()
    }
}

/// Name and version of who appraised.
const BUILD: &str = concat!("rootbound-verifier ", env!("CARGO_PKG_VERSION"));

/// A result is handed on in header fields, for which servers have 8 KB: so many deviations, with details of such length,
/// stay below.
const MAX_DEVIATIONS: usize = 8;
const MAX_DETAIL: usize = 256;

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    kid: &'a str,
}

/// The claims set (EAR, 3).
#[derive(Serialize)]
struct Claims<'a> {
    eat_profile: &'a str,
    iss: String,
    sub: String,
    iat: i64,
    exp: i64,
    ear_verifier_id: VerifierId,
    #[serde(skip_serializing_if = "Option::is_none")]
    eat_nonce: Option<&'a EatNonce>,
    submods: Submods<'a>,
}

/// AR4SI, 3.3.
#[derive(Serialize)]
struct VerifierId {
    developer: &'static str,
    build: &'static str,
}

/// One attester, under the name of who judges it.
#[derive(Serialize)]
struct Submods<'a> {
    rootbound: Appraised<'a>,
}

/// EAR, 3.1.
#[derive(Serialize)]
struct Appraised<'a> {
    ear_status: Tier,
    ear_trustworthiness_vector: &'a TrustVector,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ear_appraisal_policy_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ear_verifier_claims: Option<VerifierClaims<'a>>,
}

/// Claims of our own, at the place that EAR has for what a verifier adds.
#[derive(Serialize)]
struct VerifierClaims<'a> {
    /// To be compared with the one in a certificate of the node.
    rootbound_posture_epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootbound_evidence_at: Option<i64>,
    rootbound_deviation_count: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rootbound_deviations: Vec<Told<'a>>,
}

/// A deviation as relying parties see it: which values would have been accepted is not their matter.
#[derive(Serialize)]
struct Told<'a> {
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bank: Option<HashAlgorithm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pcr: Option<PcrIndex>,
}

impl<'a> Told<'a> {
    fn of(report: &'a DeviationReport) -> Self {
        let end = report.detail.floor_char_boundary(MAX_DETAIL);
        let detail = report.detail.get(..end).unwrap_or_default();
        Self { code: &report.code, detail, bank: report.bank, pcr: report.pcr }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use data_encoding::BASE64URL_NOPAD;
    use rootbound_common::random;
    use serde_json::{Value, json};

    use crate::attestation_result::tests::{NODE, NOW, drift, hold, result};
    use crate::hold::HoldKind;
    use crate::node::Standing;
    use crate::posture::LiveNode;

    fn signer() -> ResultSigner {
        let key = ResultKey::generate(&mut random::system());
        ResultSigner::new(key, EatProfile::default(), "example.org".parse().unwrap())
    }

    /// The header and the claims, after the signature was verified with the published key by aws-lc.
    fn verified(signer: &ResultSigner, ear: &Ear) -> Option<(Value, Value)> {
        let (message, signature) = ear.as_str().rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
        let key = &serde_json::to_value(signer.jwk_set()).unwrap()["keys"][0];
        let coordinate = |name: &str| decode(key[name].as_str().unwrap());
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        key.verify(message.as_bytes(), &decode(signature)).ok()?;
        let json = |text: &str| serde_json::from_slice(&decode(text)).unwrap();
        Some((json(header), json(claims)))
    }

    #[test]
    fn an_affirming_result_says_what_the_draft_asks_for() {
        let signer = signer();
        let nonce: EatNonce = "YWJjZGVmZ2g".parse().unwrap();
        let ear = signer.sign(&result(|_| {}), Some(&nonce)).unwrap();
        let (header, claims) = verified(&signer, &ear).unwrap();
        assert_eq!(header, json!({ "alg": "ES256", "typ": "eat+jwt", "kid": signer.key.id() }));
        let expected = json!({
            "eat_profile": "tag:ietf.org,2026:rats/ear#04",
            "iss": "spiffe://example.org/verifier",
            "sub": format!("spiffe://example.org/node/{NODE}"),
            "iat": 1_700_000_000,
            "exp": 1_700_000_120,
            "ear_verifier_id": { "developer": "Rootbound", "build": BUILD },
            "eat_nonce": "YWJjZGVmZ2g",
            "submods": { "rootbound": {
                "ear_status": "affirming",
                "ear_trustworthiness_vector": {
                    "instance-identity": 2, "configuration": 2, "executables": 3, "file-system": 0, "hardware": 2,
                    "runtime-opaque": 0, "storage-opaque": 0, "sourced-data": 0
                },
                "ear_appraisal_policy_ids": [
                    "urn:rootbound:profile:default@3", "urn:rootbound:reference:a@1", "urn:rootbound:reference:b@2"
                ],
                "ear_verifier_claims": {
                    "rootbound_posture_epoch": 1, "rootbound_evidence_at": 1_699_999_940,
                    "rootbound_deviation_count": 0
                }
            } }
        });
        assert_eq!(claims, expected);
    }

    #[test]
    fn deviations_are_told_within_bounds() {
        let signer = signer();
        let told = |ear: &Ear| verified(&signer, ear).unwrap().1["submods"]["rootbound"].clone();
        let drifted = told(&signer.sign(&result(drift), None).unwrap());
        assert_eq!(drifted["ear_status"], "contraindicated");
        let deviation = json!({ "code": "pcr_mismatch", "detail": "sha256 PCR 7 is off", "bank": "sha256" });
        assert_eq!(drifted["ear_verifier_claims"]["rootbound_deviations"], json!([deviation]));
        let many = result(|live| {
            drift(live);
            let deviations = &mut live.posture.as_mut().unwrap().deviations;
            deviations[0].detail = "é".repeat(5000);
            *deviations = vec![deviations[0].clone(); 5000];
        });
        let ear = signer.sign(&many, None).unwrap();
        assert!(ear.as_str().len() < 8000, "{}", ear.as_str().len());
        let claims = &told(&ear)["ear_verifier_claims"];
        assert_eq!(claims["rootbound_deviation_count"], 5000);
        assert_eq!(claims["rootbound_deviations"].as_array().unwrap().len(), 8);
        assert_eq!(claims["rootbound_deviations"][0]["detail"], "é".repeat(128));
    }

    #[test]
    fn a_result_without_evidence_names_no_policy() {
        let signer = signer();
        let ear = signer.sign(&result(|live| live.posture = None), None).unwrap();
        let (_, claims) = verified(&signer, &ear).unwrap();
        let appraised = claims["submods"]["rootbound"].as_object().unwrap();
        let members = ["ear_status", "ear_trustworthiness_vector", "ear_verifier_claims"];
        assert_eq!(appraised.keys().collect::<Vec<_>>(), members);
        let ours = json!({ "rootbound_posture_epoch": 1, "rootbound_deviation_count": 0 });
        assert_eq!(appraised["ear_verifier_claims"], ours);
        assert_eq!(appraised["ear_status"], "none");
        let vector = appraised["ear_trustworthiness_vector"].as_object().unwrap();
        assert!(vector.len() == 8 && vector.values().all(|value| *value == json!(0)));
        assert!(claims.get("eat_nonce").is_none());
        assert_eq!(claims["exp"], NOW.as_seconds() + 60);
    }

    #[test]
    fn a_result_of_a_node_that_is_blocked_says_so_and_one_that_is_not_ours_says_nothing() {
        let signer = signer();
        let told = |change: fn(&mut LiveNode)| {
            let ear = signer.sign(&result(change), None).unwrap();
            verified(&signer, &ear).unwrap().1["submods"]["rootbound"].clone()
        };
        let claims = &told(|live| hold(live, HoldKind::Block))["ear_verifier_claims"];
        assert_eq!(claims["rootbound_deviations"][0]["code"], "node_blocked");
        assert_eq!(
            (&claims["rootbound_posture_epoch"], &claims["rootbound_evidence_at"]),
            (&json!(1), &Value::Null)
        );
        assert!(told(|live| live.standing = Standing::Retired).get("ear_verifier_claims").is_none());
    }

    #[test]
    fn no_character_of_a_token_can_be_changed() {
        let signer = signer();
        let ear = signer.sign(&result(drift), None).unwrap();
        assert!(verified(&signer, &ear).is_some());
        let (message, _) = ear.as_str().rsplit_once('.').unwrap();
        for at in (0..message.len()).filter(|at| ear.as_str().as_bytes()[*at] != b'.') {
            let mut token = ear.as_str().as_bytes().to_vec();
            token[at] = if token[at] == b'A' { b'B' } else { b'A' };
            assert!(verified(&signer, &Ear(String::from_utf8(token).unwrap())).is_none(), "character {at}");
        }
        assert!(verified(&self::signer(), &ear).is_none(), "another verifier's key");
    }

    #[test]
    fn the_profile_is_what_the_operator_says() {
        let profile: EatProfile = "tag:github.com,2023:veraison/ear".parse().unwrap();
        let signer = ResultSigner { profile, ..signer() };
        let ear = signer.sign(&result(|_| {}), None).unwrap();
        assert_eq!(verified(&signer, &ear).unwrap().1["eat_profile"], "tag:github.com,2023:veraison/ear");
        assert_eq!(
            signer.media_type(),
            "application/eat+jwt; eat_profile=\"tag:github.com,2023:veraison/ear\""
        );
    }

    #[test]
    fn profiles_and_nonces_with_tricks_are_refused() {
        for good in ["tag:ietf.org,2026:rats/ear#03", "https://example.org/ear", "1.3.6.1.4.1.1"] {
            assert_eq!(good.parse::<EatProfile>().unwrap().as_str(), good);
        }
        let long = format!("tag:{}", "a".repeat(253));
        for bad in ["", "ear", ":", "a:", "1:a", "1..2", "a:b c", "a:\"", "a:\\", "a:\n", "a:é", &long] {
            assert_eq!(bad.parse::<EatProfile>(), Err(ClaimError::Profile), "{bad:?}");
        }
        for good in ["a".repeat(8), "a".repeat(88), "AZaz09-_".to_owned()] {
            assert!(good.parse::<EatNonce>().is_ok(), "{good}");
        }
        for bad in ["", "1234567", &"a".repeat(89), "abcdefg=", "abcdefg+", "abcdefgé", "abcdefg%41"] {
            assert_eq!(bad.parse::<EatNonce>(), Err(ClaimError::Nonce), "{bad:?}");
        }
    }
}
