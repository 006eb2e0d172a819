//! What the verifier answers: tokens, errors, and where its token endpoint is. All of it is a peer's text.

use std::fmt;

use http::{HeaderMap, StatusCode};
use rootbound_common::text::only_shows;
use serde::{Deserialize, Serialize};

use super::proof::Nonce;
use super::wish::{Detail, Name, TokenWish, Wished};
use crate::client::{Answer, Refusal, RequestError, VerifierUrl, is, judge, retry_after};

/// A token, as the verifier gave it (RFC 6749, 5.1; RFC 8693, 2.2.1; RFC 9396, 7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The token.
    pub access_token: TokenText,
    /// How it is shown.
    pub token_type: TokenType,
    /// Seconds.
    pub expires_in: u32,
    /// What it permits, where that was asked for as a scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Name>,
    /// What it permits, where that was asked for as actions on resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_details: Option<Vec<Detail>>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_token_type: Option<Name>,
}

/// The text of a token (RFC 6750, 2.1: b64token), of at most 16 KB. It does not show in logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenText(String);

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is 1 to {} letters, digits and characters of -._~+/=", TokenText::MAX)]
pub struct NotAToken;

impl TokenText {
    /// Bytes: what fits the header of a request.
    pub const MAX: usize = 16 * 1024;

    /// The text, for whoever shows it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(…)")
    }
}

impl TryFrom<String> for TokenText {
    type Error = NotAToken;

    fn try_from(text: String) -> Result<Self, NotAToken> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte));
        if plain && (1..=Self::MAX).contains(&text.len()) { Ok(Self(text)) } else { Err(NotAToken) }
    }
}

impl From<TokenText> for String {
    fn from(text: TokenText) -> Self {
        text.0
    }
}

/// How a token is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub enum TokenType {
    /// With a proof for each request (RFC 9449, 7.1).
    #[serde(rename = "DPoP")]
    Dpop,
    /// By itself, over a connection with the certificate that it is bound to (RFC 8705).
    Bearer,
    /// It is no access token (RFC 8693, 2.2.1).
    #[serde(rename = "N_A")]
    NotAnAccessToken,
}

/// A way to show a token that is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("token_type is neither DPoP nor Bearer nor N_A")]
pub struct UnknownTokenType;

impl TryFrom<String> for TokenType {
    type Error = UnknownTokenType;

    /// Of no case (RFC 6749, 5.1).
    fn try_from(text: String) -> Result<Self, UnknownTokenType> {
        [("DPoP", Self::Dpop), ("Bearer", Self::Bearer), ("N_A", Self::NotAnAccessToken)]
            .into_iter()
            .find_map(|(name, kind)| name.eq_ignore_ascii_case(&text).then_some(kind))
            .ok_or(UnknownTokenType)
    }
}

/// What came of a request for a token.
#[derive(Debug)]
pub(super) enum Outcome {
    Token(Token),
    /// A proof with the nonce that came with this is wanted (RFC 9449, 8).
    UseNonce(Refusal),
}

/// RFC 6749, 5.2, with the verifier's stable code.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
    #[serde(default)]
    error_description: String,
    code: Option<String>,
}

/// Reads the answer to a request for a token.
pub(super) fn outcome(answer: &Answer) -> Result<Outcome, RequestError> {
    let Answer { status, headers, body } = answer;
    let json = is(headers, "application/json");
    if status.is_success() || !json {
        return judge(*status, headers, body).map(Outcome::Token);
    }
    let shape = |error: serde_json::Error| RequestError::Shape { line: error.line(), column: error.column() };
    let ErrorAnswer { error, error_description, code } = serde_json::from_slice(body).map_err(shape)?;
    let retry_after = retry_after(headers);
    let refusal =
        Refusal::of_oauth(&error, &error_description, code.as_deref(), status.as_u16(), retry_after);
    if *status == StatusCode::BAD_REQUEST && error == "use_dpop_nonce" {
        return Ok(Outcome::UseNonce(refusal));
    }
    Err(RequestError::Refused(refusal))
}

/// The nonce that came with an answer. One that no proof can have is as if it were not there.
pub(super) fn nonce(headers: &HeaderMap) -> Option<Nonce> {
    headers.get("dpop-nonce")?.to_str().ok()?.parse().ok()
}

/// The token is of another kind than the one that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the verifier gave a token of another kind ({found:?}) than the one that was asked for")]
pub struct OtherKind {
    /// Of which.
    pub found: TokenType,
}

impl Token {
    /// Says whether it is of the kind that was asked for.
    pub(super) fn is_as_wished(&self, wish: &TokenWish) -> Result<(), OtherKind> {
        let expected = match wish.wished() {
            Wished::AccessToken(_) if wish.takes_proof() => TokenType::Dpop,
            Wished::AccessToken(_) => TokenType::Bearer,
            Wished::JwtSvid => TokenType::NotAnAccessToken,
        };
        if self.token_type == expected { Ok(()) } else { Err(OtherKind { found: self.token_type }) }
    }
}

/// What the verifier says of itself (RFC 8414, 2), as far as it matters here.
#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
}

/// Where requests for tokens go.
pub(super) const PATH: &str = "/oauth2/token";

/// The token endpoint as the verifier calls it, for proofs. Nobody connects there: requests go to the verifier of the
/// configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint(String);

/// The verifier calls its token endpoint something that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the verifier's metadata is implausible: token_endpoint is not the issuer, an https URL of a host, with {PATH}"
)]
pub struct Implausible;

impl Endpoint {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Out of the metadata. A proof is by the key of the credential, so that none is made for what could be a call of
    /// something else: it is a token endpoint, and its path is ours.
    pub(super) fn read(answer: &Answer) -> Result<Result<Self, Implausible>, RequestError> {
        let metadata: Metadata = judge(answer.status, &answer.headers, &answer.body)?;
        Ok(Self::of(metadata))
    }

    #[cfg(test)]
    pub(super) fn for_test(host: &str) -> Self {
        Self(format!("https://{host}{PATH}"))
    }

    fn of(Metadata { issuer, token_endpoint }: Metadata) -> Result<Self, Implausible> {
        /// The longest host name, a scheme and a port.
        const LONGEST: usize = 300;
        let plain = issuer.len() <= LONGEST && issuer.chars().all(only_shows) && !issuer.ends_with('/');
        if !plain || token_endpoint != format!("{issuer}{PATH}") {
            return Err(Implausible);
        }
        VerifierUrl::try_from(issuer).map_err(|_| Implausible)?;
        Ok(Self(token_endpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::wish::{HeldBy, Permissions};

    fn answer(status: u16, fields: &[(&'static str, &str)], body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.to_owned().into() }
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    fn token(change: &str, to: &str) -> Result<Token, RequestError> {
        let text = r#"{"access_token":"a.b-c_d.e","token_type":"dpop","expires_in":60,"scope":"read write",
            "authorization_details":[{"type":"rootbound_action","actions":["read"],
            "resource":{"type":"database","id":"orders"}}],"issued_token_type":"urn:x","more":1}"#;
        assert!(text.contains(change), "{change}");
        match outcome(&answer(200, &[JSON], &text.replacen(change, to, 1)))? {
            Outcome::Token(token) => Ok(token),
            Outcome::UseNonce(refusal) => panic!("{refusal}"),
        }
    }

    #[test]
    fn a_token_is_read_and_its_text_does_not_show() {
        let read = token("", "").unwrap();
        assert_eq!((read.access_token.reveal(), read.token_type), ("a.b-c_d.e", TokenType::Dpop));
        assert_eq!((read.expires_in, read.scope.as_ref().map(Name::as_str)), (60, Some("read write")));
        assert!(!format!("{read:?}").contains("a.b-c_d.e"));
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!((&written["token_type"], &written["access_token"]), (&"DPoP".into(), &"a.b-c_d.e".into()));
        assert_eq!(token("dpop", "n_a").unwrap().token_type, TokenType::NotAnAccessToken);
    }

    #[test]
    fn an_answer_that_is_no_token_is_refused() {
        for (change, to) in [
            ("a.b-c_d.e", ""),
            ("a.b-c_d.e", "a b"),
            ("a.b-c_d.e", "$(reboot)"),
            ("a.b-c_d.e", &"x".repeat(TokenText::MAX + 1)),
            ("a.b-c_d.e\"", "a\",\"access_token\":\"b\""),
            ("\"dpop\"", "\"mac\""),
            ("60", "-1"),
            ("60", "4294967296"),
            ("60", "\"60\""),
            ("read write", "read\\u001b[31m"),
            ("rootbound_action", "payment"),
            ("\"id\":\"orders\"", "\"id\":\"orders\",\"where\":\"x\""),
            ("orders", "\\u202e"),
            ("urn:x", ""),
        ] {
            let refused = token(change, to);
            assert!(matches!(refused, Err(RequestError::Shape { .. })), "{to}: {refused:?}");
        }
        let html = outcome(&answer(200, &[("content-type", "text/html")], "<p>"));
        assert!(matches!(html, Err(RequestError::ContentType { status: 200 })), "{html:?}");
        let bare = outcome(&answer(502, &[("content-type", "text/html")], "<p>"));
        assert!(matches!(bare, Err(RequestError::Status { status: 502, .. })), "{bare:?}");
    }

    #[test]
    fn an_error_of_oauth_is_a_refusal_that_forges_no_line() {
        let body = r#"{"error":"invalid_scope","error_description":"no\nINFO all is well","code":"no_policy_permits"}"#;
        let Err(RequestError::Refused(refusal)) = outcome(&answer(400, &[JSON, ("retry-after", "7")], body))
        else {
            panic!()
        };
        assert_eq!((refusal.code.as_str(), refusal.status), ("no_policy_permits", 400));
        assert_eq!(refusal.detail, "invalid_scope: no?INFO all is well");
        assert_eq!(refusal.retry_after, Some(std::time::Duration::from_secs(7)));
        let Err(RequestError::Refused(refusal)) = outcome(&answer(401, &[JSON], r#"{"error":"A\u001b"}"#))
        else {
            panic!()
        };
        assert_eq!((refusal.code.as_str(), refusal.detail.as_str()), ("unreadable", "unreadable: "));
        let shape = outcome(&answer(400, &[JSON], "{}"));
        assert!(matches!(shape, Err(RequestError::Shape { .. })), "{shape:?}");
        let problem = r#"{"type":"urn:x","title":"x","status":503,"detail":"busy","code":"overloaded"}"#;
        let problem = outcome(&answer(503, &[("content-type", "application/problem+json")], problem));
        assert!(matches!(problem, Err(RequestError::Refused(_))), "{problem:?}");
    }

    #[test]
    fn a_nonce_is_asked_for_by_name_and_taken_where_it_is_one() {
        let body = r#"{"error":"use_dpop_nonce","code":"dpop_nonce_stale"}"#;
        let wanted = answer(400, &[JSON, ("dpop-nonce", "abc")], body);
        assert!(matches!(outcome(&wanted), Ok(Outcome::UseNonce(_))));
        assert_eq!(nonce(&wanted.headers), Some("abc".parse().unwrap()));
        assert_eq!(nonce(&answer(400, &[("dpop-nonce", "a b")], "").headers), None);
        let elsewhere = outcome(&answer(401, &[JSON], body));
        assert!(matches!(elsewhere, Err(RequestError::Refused(_))), "{elsewhere:?}");
    }

    #[test]
    fn a_token_of_another_kind_than_asked_for_is_noticed() {
        let wish = |held_by| {
            let permissions = Permissions { held_by, scope: Vec::new(), details: Vec::new(), once: false };
            TokenWish::new(vec!["a".parse().unwrap()], Wished::AccessToken(permissions)).unwrap()
        };
        let svid = TokenWish::new(vec!["a".parse().unwrap()], Wished::JwtSvid).unwrap();
        let wishes = [wish(HeldBy::Key), wish(HeldBy::Certificate), svid];
        for (at, found) in ["DPoP", "Bearer", "N_A"].into_iter().enumerate() {
            let token = token("dpop", found).unwrap();
            for (position, wish) in wishes.iter().enumerate() {
                assert_eq!(token.is_as_wished(wish).is_ok(), at == position, "{found} {position}");
            }
        }
    }

    #[test]
    fn an_endpoint_is_the_issuers_and_at_our_path() {
        let of = |issuer: &str, endpoint: &str| {
            Endpoint::of(Metadata { issuer: issuer.to_owned(), token_endpoint: endpoint.to_owned() })
        };
        let good = of("https://verifier.example:8443", "https://verifier.example:8443/oauth2/token").unwrap();
        assert_eq!(good.as_str(), "https://verifier.example:8443/oauth2/token");
        for (issuer, endpoint) in [
            ("https://verifier.example", "https://bank.example/oauth2/token"),
            ("https://verifier.example", "https://verifier.example/transfer"),
            ("https://verifier.example", "https://verifier.example/oauth2/token?x"),
            ("https://verifier.example", "https://verifier.example/oauth2/token/"),
            ("https://verifier.example/", "https://verifier.example//oauth2/token"),
            ("https://verifier.example/tenant", "https://verifier.example/tenant/oauth2/token"),
            ("http://verifier.example", "http://verifier.example/oauth2/token"),
            ("https://a@verifier.example", "https://a@verifier.example/oauth2/token"),
            ("", "/oauth2/token"),
            ("spiffe://test.example/verifier", "spiffe://test.example/verifier/oauth2/token"),
        ] {
            assert_eq!(of(issuer, endpoint), Err(Implausible), "{issuer} {endpoint}");
        }
        let long = format!("https://{}.example", "a".repeat(300));
        assert_eq!(of(&long, &format!("{long}{PATH}")), Err(Implausible));
    }
}
