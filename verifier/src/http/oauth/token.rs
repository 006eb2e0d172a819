//! `POST /oauth2/token`: a token for a client (RFC 6749, 3.2; RFC 8693).

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::Method;
use rootbound_token::access::AuthorizationDetails;
use rootbound_token::dpop::{DpopError, VerifiedProof};
use rootbound_token::json;
use rootbound_token::target_uri::TargetUri;
use serde::Serialize;
use utoipa::ToSchema;

use super::form::Form;
use super::{Arrived, MAX_BODY, OAuthRefusal, add_nonce, answered, client};
use crate::flows::tokens::mint::{MintError, MintRefusal, Minted, Requested, ShownAs, TokenRequest};
use crate::http::body::printable;
use crate::http::problem::EdgeRefusal;
use crate::http::throttle::RateClass;
use crate::http::{Edge, Endpoint};
use crate::token::{Audience, NotAnAudience, TokenDenial, Wanted, WantedError};

const PATH: &str = "/oauth2/token";

pub(in crate::http) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: PATH,
    rate: RateClass::Evaluation,
    body: Some(MAX_BODY),
    handler: || post(token),
};

pub(super) const CLIENT_CREDENTIALS: &str = "client_credentials";
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// A token (RFC 6749, 5.1; RFC 8693, 2.2.1).
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct TokenResponse {
    /// The token.
    access_token: String,
    /// `DPoP`: with a proof for each request; `Bearer`: by itself, over a connection with the certificate that it is bound to;
    /// `N_A`: it is no access token.
    token_type: &'static str,
    /// Seconds.
    expires_in: i64,
    /// What it permits, where `scope` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// What it permits, where that was asked for (RFC 9396, 7).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    authorization_details: Option<AuthorizationDetails>,
    /// What it is.
    issued_token_type: &'static str,
}

/// A token for a node, or for who acts for one.
///
/// The client shows who it is by its certificate, by a JWT-SVID (`client_assertion`), or, a relying party, by its token as
/// `client_secret`. The token is bound to the key of a DPoP proof, else to the client's certificate. What it may be for is
/// decided by the policies, by how the node stands at this moment.
#[utoipa::path(
    post,
    path = "/oauth2/token",
    tag = "tokens",
    security(("x509_svid" = []), ("relying_party" = []), ("relying_party_token" = [])),
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    params(("DPoP" = Option<String>, Header, description = "A proof (RFC 9449), with the nonce of the last `DPoP-Nonce`")),
    responses(
        (status = 200, description = "The token", body = TokenResponse),
        (status = 400, description = "`error` as RFC 6749, 5.2, and its extensions have it, and a stable `code`", body = Object),
        (status = 401, description = "`invalid_client`", body = Object),
        (status = "default", description = "See `error` and `code`", body = Object),
    )
)]
pub(in crate::http) async fn token(State(edge): State<Edge>, request: Request) -> Response {
    match granted(&edge, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

/// The parameters.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents the form, which is read strictly by other means")]
pub(in crate::http) struct TokenForm {
    /// `client_credentials`, or that of token exchange.
    grant_type: String,
    /// For whom the token is; may be there several times.
    audience: Option<Vec<String>>,
    /// As `audience`, as an absolute URI (RFC 8707).
    resource: Option<Vec<String>>,
    /// Actions.
    scope: Option<String>,
    /// Actions on resources, as JSON (RFC 9396) of the type `rootbound_action`.
    authorization_details: Option<String>,
    /// Of an exchange: the token that it is made of.
    subject_token: Option<String>,
    /// Of an exchange: that of access tokens.
    subject_token_type: Option<String>,
    /// That of access tokens, or that of JWTs for a JWT-SVID.
    requested_token_type: Option<String>,
    /// `true`: the token is good for one use.
    one_time: Option<bool>,
    /// The client's name.
    client_id: Option<String>,
    /// A relying party's token.
    client_secret: Option<String>,
    /// That of JWT-SVIDs.
    client_assertion_type: Option<String>,
    /// A JWT-SVID for the issuer.
    client_assertion: Option<String>,
}

async fn granted(edge: &Edge, request: Request) -> Result<Response, OAuthRefusal> {
    let Arrived { parts, mut form, _place } = edge.form_arrived(request).await?;
    let client = client::identify(&parts, &mut form, edge).await?;
    let base = edge.verifier.public_url().ok_or(EdgeRefusal::NoPublicUrl)?;
    let uri = TargetUri::parse(&format!("{base}{PATH}")).map_err(|_| EdgeRefusal::Internal)?;
    let headers: Vec<_> =
        parts.headers.get_all("dpop").iter().map(|value| value.to_str().unwrap_or_default()).collect();
    let proof = (!headers.is_empty()).then(|| proof(edge, &headers, &uri)).transpose()?;
    let asked = Asked::read(form)?;
    let (scope, details) = (asked.scope.clone(), asked.details.clone());
    let minted = edge.in_time(edge.verifier.mint_token(client, proof, asked.request)).await?;
    let minted = minted.map_err(|error| refused(edge, error))?;
    let mut response = answered(&response(minted, scope, details));
    add_nonce(&mut response, Some(&edge.verifier.dpop_nonce()));
    Ok(response)
}

fn response(minted: Minted, scope: Option<String>, details: AuthorizationDetails) -> TokenResponse {
    let (token_type, issued_token_type) = match minted.shown {
        ShownAs::Dpop => ("DPoP", ACCESS_TOKEN),
        ShownAs::Bearer => ("Bearer", ACCESS_TOKEN),
        ShownAs::NotAnAccessToken => ("N_A", JWT),
    };
    TokenResponse {
        access_token: minted.token,
        token_type,
        expires_in: minted.expires_at.as_seconds() - minted.issued_at.as_seconds(),
        scope,
        authorization_details: (!details.is_empty()).then_some(details),
        issued_token_type,
    }
}

fn proof(edge: &Edge, headers: &[&str], uri: &TargetUri) -> Result<VerifiedProof, OAuthRefusal> {
    edge.verifier.proof_for_token(headers, uri).map_err(|error: DpopError| {
        let refusal = OAuthRefusal::bad(error.oauth_error(), error.code(), &error.to_string());
        refusal.with_nonce(edge.verifier.dpop_nonce())
    })
}

/// What a request asks for.
struct Asked {
    request: TokenRequest,
    scope: Option<String>,
    details: AuthorizationDetails,
}

impl Asked {
    fn read(mut form: Form) -> Result<Self, OAuthRefusal> {
        let grant = form.required("grant_type")?;
        let exchange = match grant.as_str() {
            CLIENT_CREDENTIALS => false,
            TOKEN_EXCHANGE => true,
            _ => {
                let two = format!("grant_type is {CLIENT_CREDENTIALS} or {TOKEN_EXCHANGE}");
                return Err(OAuthRefusal::bad("unsupported_grant_type", "grant_type", &two));
            }
        };
        let subject_token = subject_token(&mut form, exchange)?;
        let svid = match form.one("requested_token_type")?.as_deref() {
            None | Some(ACCESS_TOKEN) => false,
            Some(JWT) => true,
            Some(_) => {
                let two = format!("requested_token_type is {ACCESS_TOKEN} or {JWT}");
                return Err(OAuthRefusal::bad("invalid_request", "requested_token_type", &two));
            }
        };
        let scope = form.one("scope")?;
        let details = form.one("authorization_details")?;
        let once = match form.one("one_time")?.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                return Err(OAuthRefusal::bad("invalid_request", "one_time", "one_time is true or false"));
            }
        };
        let audiences = audiences(&mut form)?;
        form.end()?;
        let details = details.as_deref().map_or_else(|| Ok(AuthorizationDetails::default()), read_details)?;
        let words = scope.as_deref().map(str::parse).transpose().map_err(
            |error: rootbound_token::access::NotAScope| {
                OAuthRefusal::bad("invalid_scope", "token_scope_malformed", &error.to_string())
            },
        )?;
        let wanted = if svid {
            if words.is_some() || !details.is_empty() || once {
                let nothing = "a JWT-SVID says who the node is, and permits nothing: no scope, authorization_details, one_time";
                return Err(OAuthRefusal::bad("invalid_request", "svid_permits_nothing", nothing));
            }
            // Bounded as an access token's.
            let wanted =
                Wanted::new(audiences, None, AuthorizationDetails::default(), false).map_err(not_wanted)?;
            Requested::JwtSvid(wanted.audiences().to_vec())
        } else {
            Requested::AccessToken(Wanted::new(audiences, words, details.clone(), once).map_err(not_wanted)?)
        };
        Ok(Self { request: TokenRequest { wanted, subject_token }, scope, details })
    }
}

/// Of an exchange; other requests have none.
fn subject_token(form: &mut Form, exchange: bool) -> Result<Option<String>, OAuthRefusal> {
    let (token, kind) = (form.one("subject_token")?, form.one("subject_token_type")?);
    let actor = (form.one("actor_token")?, form.one("actor_token_type")?);
    if actor != (None, None) {
        let actor = "the client itself is the actor: it needs no actor_token";
        return Err(OAuthRefusal::bad("invalid_request", "actor_token", actor));
    }
    match (exchange, token, kind.as_deref()) {
        (true, Some(token), Some(ACCESS_TOKEN)) => Ok(Some(token)),
        (false, None, None) => Ok(None),
        (true, Some(_), Some(_)) => {
            let kind = format!("subject_token_type is {ACCESS_TOKEN}");
            Err(OAuthRefusal::bad("invalid_request", "subject_token_type", &kind))
        }
        (true, _, _) => {
            let both = "a token exchange has a subject_token and a subject_token_type";
            Err(OAuthRefusal::bad("invalid_request", "subject_token_missing", both))
        }
        (false, _, _) => {
            let none = "subject_token is for token exchange";
            Err(OAuthRefusal::bad("invalid_request", "subject_token_misplaced", none))
        }
    }
}

fn audiences(form: &mut Form) -> Result<Vec<Audience>, OAuthRefusal> {
    let target = |error: NotAnAudience| {
        OAuthRefusal::bad("invalid_target", "token_audience_malformed", &error.to_string())
    };
    let mut audiences = Vec::new();
    for name in form.several("audience") {
        audiences.push(Audience::try_from(name).map_err(target)?);
    }
    for uri in form.several("resource") {
        let audience = Audience::try_from(uri).map_err(target)?;
        let absolute = audience.as_str().split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
                && !rest.is_empty()
        });
        if !absolute || audience.as_str().contains('#') {
            let uri = "resource is an absolute URI without a fragment (RFC 8707, 2)";
            return Err(OAuthRefusal::bad("invalid_target", "token_resource_malformed", uri));
        }
        // Who says the same in both ways says it once.
        if !audiences.contains(&audience) {
            audiences.push(audience);
        }
    }
    Ok(audiences)
}

fn read_details(text: &str) -> Result<AuthorizationDetails, OAuthRefusal> {
    let refuse = |why: &str| {
        let why = printable(why);
        OAuthRefusal::bad("invalid_authorization_details", "authorization_details_malformed", &why)
    };
    let value = json::read(text.as_bytes(), 1_024).map_err(|error| refuse(&error.to_string()))?;
    AuthorizationDetails::from_json(&value).map_err(|error| refuse(&error.to_string()))
}

fn not_wanted(error: WantedError) -> OAuthRefusal {
    let kind = match error {
        WantedError::NoAudience | WantedError::TooManyAudiences | WantedError::AudienceTwice => {
            "invalid_target"
        }
        WantedError::Location => "invalid_authorization_details",
        WantedError::TooManyActions | WantedError::Question(_) => "invalid_scope",
    };
    OAuthRefusal::bad(kind, error.code(), &error.to_string())
}

/// Why there is no token, in the words of the standards.
fn refused(edge: &Edge, error: MintError) -> OAuthRefusal {
    let refusal = match error {
        MintError::Refused(refusal) => refusal,
        MintError::Store(error) => return error.into(),
        MintError::Signing(error) => {
            tracing::error!(%error, "a token cannot be signed");
            return EdgeRefusal::Internal.into();
        }
    };
    let kind = match &refusal {
        MintRefusal::Assertion(_)
        | MintRefusal::AssertionRevoked
        | MintRefusal::AssertionSubject
        | MintRefusal::AssertionDrifted
        | MintRefusal::AssertionUnproven
        | MintRefusal::UnknownNode => return OAuthRefusal::client(refusal.code(), &refusal.to_string()),
        MintRefusal::NotANode | MintRefusal::SvidForOther => "unauthorized_client",
        MintRefusal::Proof(error) => error.oauth_error(),
        MintRefusal::SubjectToken(_)
        | MintRefusal::SubjectTokenOnce
        | MintRefusal::SubjectTokenOfOthers
        | MintRefusal::SubjectTokenUnproven
        | MintRefusal::ExchangeLoop
        | MintRefusal::ExchangeTooDeep => "invalid_request",
        MintRefusal::Widened | MintRefusal::Question(_) => "invalid_scope",
        MintRefusal::Denied(TokenDenial::Action { .. }) => "invalid_scope",
        MintRefusal::Denied(TokenDenial::ActFor(_)) => "invalid_target",
        MintRefusal::Denied(_) | MintRefusal::Changed => "unauthorized_client",
    };
    let refused = OAuthRefusal::bad(kind, refusal.code(), &refusal.to_string());
    match refusal {
        MintRefusal::Proof(_) => refused.with_nonce(edge.verifier.dpop_nonce()),
        _ => refused,
    }
}
