//! JWT-SVIDs (SPIFFE JWT-SVID): who somebody is, said to one audience.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::{SpiffeId, TrustDomain};

use serde_json::Value;

use crate::access::{TokenError, Validity};
use crate::claim::{Audience, Binding, Members, Text};
use crate::jose::{Kind, UnverifiedJws};
use crate::jwk::JwkSet;

/// What a JWT-SVID has to be.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedSvid<'a> {
    /// The trust domain that the keys are of: they say nothing about another (SPIFFE JWT-SVID, 4).
    pub trust_domain: &'a TrustDomain,
    /// Who takes it: must be among those that it is for (3.2).
    pub audience: &'a str,
    /// How far clocks may be apart: up to [`MAX_LEEWAY`](crate::access::MAX_LEEWAY).
    pub leeway: Duration,
}

/// A JWT-SVID that somebody showed.
#[derive(Debug, Clone, Copy)]
pub struct JwtSvid;

impl JwtSvid {
    /// Verifies a JWT-SVID.
    ///
    /// Established when this returns, in this order (SPIFFE JWT-SVID, 2 to 4): it is one JWS by ES256, of `typ` JWT or JOSE
    /// where it says one, as [`crate::jose`] says, so that no access token is taken for one · the trust domain has a key
    /// of the name that it says · that key signed it · its subject is a SPIFFE ID · of that trust domain · it is for this
    /// audience · it has not expired · its `iat` and `nbf`, if it has them, have passed.
    pub fn verify(
        text: &str,
        keys: &JwkSet,
        expected: &ExpectedSvid<'_>,
        now: Timestamp,
    ) -> Result<VerifiedJwtSvid, TokenError> {
        let svid = UnverifiedJws::parse(text, Kind::JwtSvid)?;
        let key = svid.key_id().and_then(|kid| keys.jwt_svid(kid)).ok_or(TokenError::UnknownKey)?;
        let verified = svid.verify(key)?;
        let claims = Members(verified.claims());
        let subject: SpiffeId = claims.text("sub")?.as_str().parse().map_err(|_| TokenError::Subject)?;
        let audience = Audience::from_json("aud", claims.required("aud")?)?;
        let validity = Validity {
            not_before: claims.optional_time("nbf")?,
            issued_at: claims.optional_time("iat")?,
            expires_at: claims.time("exp")?,
        };
        let id = claims.optional_text("jti")?;
        let binding = Binding::from_claims(claims)?;
        let posture_epoch = claims.optional("rootbound_posture_epoch").and_then(Value::as_u64);
        let path = subject.as_str().strip_prefix(&expected.trust_domain.id());
        if !path.is_some_and(|path| path.starts_with('/')) {
            return Err(TokenError::TrustDomain);
        }
        if !audience.contains(expected.audience) {
            return Err(TokenError::Audience);
        }
        validity.check(expected.leeway, now)?;
        Ok(VerifiedJwtSvid { subject, audience, expires_at: validity.expires_at, id, binding, posture_epoch })
    }
}

/// Who somebody is, as the trust domain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedJwtSvid {
    subject: SpiffeId,
    audience: Audience,
    expires_at: Timestamp,
    id: Option<Text>,
    binding: Binding,
    posture_epoch: Option<u64>,
}

impl VerifiedJwtSvid {
    /// Who.
    #[must_use]
    pub fn subject(&self) -> &SpiffeId {
        &self.subject
    }

    /// To whom it is said.
    #[must_use]
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// From when on it is worth nothing.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// `jti`, where it has one.
    #[must_use]
    pub fn id(&self) -> Option<&Text> {
        self.id.as_ref()
    }

    /// How the subject stood, where it says so: ours do. At any other epoch it is worth nothing to us.
    #[must_use]
    pub fn posture_epoch(&self) -> Option<u64> {
        self.posture_epoch
    }

    /// What has to be shown with it: nothing but to those who know the `cnf` that ours have (SPIFFE knows of none).
    #[must_use]
    pub fn binding(&self) -> &Binding {
        &self.binding
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::ClaimError;
    use crate::jose::JoseError;
    use crate::testing::Signer;
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_500);

    fn claims() -> Value {
        json!({ "sub": "spiffe://example.org/node/a", "aud": ["https://as.example.org"], "exp": 1_800_000_060 })
    }

    fn verify_as(
        header: &Value,
        claims: &Value,
        signer: &Signer,
        audience: &str,
    ) -> Result<VerifiedJwtSvid, TokenError> {
        let trust_domain = "example.org".parse().unwrap();
        let expected = ExpectedSvid { trust_domain: &trust_domain, audience, leeway: Duration::from_secs(5) };
        let keys = JwkSet::of_keys([signer.public().clone()]);
        JwtSvid::verify(&signer.sign(header, claims), &keys, &expected, NOW)
    }

    fn verify(claims: &Value) -> Result<VerifiedJwtSvid, TokenError> {
        let signer = Signer::new();
        let header = json!({ "alg": "ES256", "kid": signer.kid() });
        verify_as(&header, claims, &signer, "https://as.example.org")
    }

    fn with(claim: &str, value: Value) -> Result<VerifiedJwtSvid, TokenError> {
        let mut claims = claims();
        claims[claim] = value;
        verify(&claims)
    }

    #[test]
    fn an_svid_says_who_somebody_is() {
        let svid = verify(&claims()).unwrap();
        assert_eq!(svid.subject().as_str(), "spiffe://example.org/node/a");
        assert_eq!(svid.expires_at(), Timestamp::from_millis(1_800_000_060_000));
        assert!(svid.audience().contains("https://as.example.org"));
        assert_eq!((svid.id(), svid.binding()), (None, &Binding::Bearer));
        let jkt = Signer::new().public().thumbprint();
        let bound = with("cnf", json!({ "jkt": jkt.to_string() })).unwrap();
        assert_eq!(bound.binding(), &Binding::Key(jkt));
        assert_eq!(with("jti", json!("a")).unwrap().id().unwrap().as_str(), "a");
        assert!(with("https://other.example/claim", json!([1])).is_ok(), "others' claims are theirs");
    }

    #[test]
    fn what_the_standard_does_not_take_is_refused() {
        for sub in ["alice", "spiffe://example.org", "spiffe://example.org/", "https://example.org/a"] {
            assert_eq!(with("sub", json!(sub)), Err(TokenError::Subject), "{sub}");
        }
        for sub in
            ["spiffe://example.com/node/a", "spiffe://example.org.evil/node/a", "spiffe://example.orgx/a"]
        {
            assert_eq!(with("sub", json!(sub)), Err(TokenError::TrustDomain), "{sub}");
        }
        for aud in [json!("https://as.example.org/"), json!(["a", "b"])] {
            assert_eq!(with("aud", aud), Err(TokenError::Audience));
        }
        assert_eq!(
            with("exp", json!(1_799_999_990)),
            Err(TokenError::Expired { ago: Duration::from_millis(10_500) })
        );
        assert!(with("exp", json!(1_799_999_996)).is_ok(), "within leeway");
        assert!(matches!(with("iat", json!(1_800_000_010)), Err(TokenError::FromTheFuture { .. })));
        assert!(matches!(with("nbf", json!(1_800_000_010)), Err(TokenError::NotYetValid { .. })));
        for claim in ["sub", "aud", "exp"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(claim);
            assert_eq!(verify(&claims), Err(ClaimError::Missing { claim }.into()));
        }
        for (claim, not) in [
            ("sub", json!(7)),
            ("aud", json!([])),
            ("exp", json!("1800000060")),
            ("iat", json!(1.5)),
            ("nbf", json!(null)),
            ("jti", json!("")),
            ("cnf", json!({})),
        ] {
            assert!(
                matches!(with(claim, not), Err(TokenError::Claim(ClaimError::Form { claim: of, .. })) if of == claim),
                "{claim}"
            );
        }
    }

    #[test]
    fn an_access_token_is_no_svid_and_an_unknown_key_signs_none() {
        let signer = Signer::new();
        let audience = "https://as.example.org";
        for typ in ["at+jwt", "dpop+jwt"] {
            let header = json!({ "alg": "ES256", "kid": signer.kid(), "typ": typ });
            let refused = verify_as(&header, &claims(), &signer, audience);
            assert_eq!(refused, Err(JoseError::Type(Kind::JwtSvid).into()), "{typ}");
        }
        let header = json!({ "alg": "ES256", "kid": Signer::new().kid() });
        assert_eq!(verify_as(&header, &claims(), &signer, audience), Err(TokenError::UnknownKey));
    }
}
