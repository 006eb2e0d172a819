//! The claims of an access token, written and read.

use rootbound_common::clock::Timestamp;
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::{Map, Value};

use super::details::{AuthorizationDetails, Scope};
use crate::claim::{Audience, Binding, ClaimError, Members, Text};

/// What an access token claims (RFC 9068, 2.2; RFC 8693, 4.1; RFC 7800; RFC 9396, 9.1), and of ours `rootbound_posture_epoch`
/// and `rootbound_once`. As `Serialize` it is the payload of a token; it is read only out of one whose signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// `iss`: who says so.
    pub issuer: Text,
    /// `sub`: of whom; a SPIFFE ID in what we mint.
    pub subject: Text,
    /// `client_id`: to whom it was handed out.
    pub client_id: Text,
    /// `aud`: for which services.
    pub audience: Audience,
    /// `iat`, in whole seconds, rounded down.
    pub issued_at: Timestamp,
    /// `exp`, in whole seconds, rounded down: from then on it is worth nothing.
    pub expires_at: Timestamp,
    /// `jti`: its name, by which it is revoked.
    pub id: Text,
    /// `scope`.
    pub scope: Option<Scope>,
    /// `authorization_details`.
    pub authorization_details: AuthorizationDetails,
    /// `cnf`: what has to be shown with it.
    pub binding: Binding,
    /// `act`: who acts for the subject.
    pub actors: Actors,
    /// `rootbound_posture_epoch`: how the subject stood. At any other it is worth nothing.
    pub posture_epoch: u64,
    /// `rootbound_once`: whether the first introspection spends it.
    pub once: bool,
}

/// A chain of delegation (RFC 8693, 4.1), who acts now first; nobody in most tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actors(Vec<Text>);

impl Actors {
    /// How long a chain may be.
    pub const MAX: usize = 4;

    /// A chain, or nothing where it is too long.
    #[must_use]
    pub fn new(chain: Vec<Text>) -> Option<Self> {
        (chain.len() <= Self::MAX).then_some(Self(chain))
    }

    /// From who acts now to who acted first.
    #[must_use]
    pub fn chain(&self) -> &[Text] {
        &self.0
    }

    /// Nobody is left out: a member that is not known here could say whose subject it is.
    fn from_claims(claims: Members<'_>) -> Result<Self, ClaimError> {
        const ERROR: ClaimError =
            ClaimError::Form { claim: "act", expected: "an object of sub and act, at most 4 deep" };
        let mut chain = Vec::new();
        let mut next = claims.optional("act");
        while let Some(actor) = next {
            let actor = actor.as_object().ok_or(ERROR)?;
            if chain.len() == Self::MAX || !actor.keys().all(|name| matches!(name.as_str(), "sub" | "act")) {
                return Err(ERROR);
            }
            let subject = actor.get("sub").and_then(crate::claim::text);
            chain.push(subject.ok_or(ERROR)?);
            next = actor.get("act");
        }
        Ok(Self(chain))
    }

    /// The object `act`, where somebody acts.
    #[must_use]
    pub fn to_json(&self) -> Option<Value> {
        self.0.iter().rev().fold(None, |within, subject| {
            let mut actor = Map::new();
            actor.insert("sub".to_owned(), Value::String(subject.as_str().to_owned()));
            if let Some(within) = within {
                actor.insert("act".to_owned(), within);
            }
            Some(Value::Object(actor))
        })
    }
}

impl AccessClaims {
    /// Reads claims, and the `nbf` that a token of ours has not. What is not known is left alone (RFC 7519, 4).
    pub(super) fn read(claims: &Map<String, Value>) -> Result<(Self, Option<Timestamp>), ClaimError> {
        let members = Members(claims);
        let scope = match members.optional("scope") {
            None => None,
            Some(scope) => {
                let scope = scope.as_str().and_then(|scope| scope.parse().ok());
                Some(
                    scope
                        .ok_or(ClaimError::Form { claim: "scope", expected: "words with spaces between" })?,
                )
            }
        };
        let epoch = "rootbound_posture_epoch";
        let posture_epoch = members.required(epoch)?.as_u64();
        let once = match members.optional("rootbound_once") {
            None => Some(false),
            Some(once) => once.as_bool(),
        };
        let claims = Self {
            issuer: members.text("iss")?,
            subject: members.text("sub")?,
            client_id: members.text("client_id")?,
            audience: Audience::from_json("aud", members.required("aud")?)?,
            issued_at: members.time("iat")?,
            expires_at: members.time("exp")?,
            id: members.text("jti")?,
            scope,
            authorization_details: AuthorizationDetails::from_claims(members)?,
            binding: Binding::from_claims(members)?,
            actors: Actors::from_claims(members)?,
            posture_epoch: posture_epoch
                .ok_or(ClaimError::Form { claim: epoch, expected: "a whole number of 64 bits" })?,
            once: once.ok_or(ClaimError::Form { claim: "rootbound_once", expected: "true or false" })?,
        };
        Ok((claims, members.optional_time("nbf")?))
    }
}

impl Serialize for AccessClaims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Payload<'a> {
            iss: &'a Text,
            sub: &'a Text,
            client_id: &'a Text,
            aud: &'a Audience,
            iat: i64,
            exp: i64,
            jti: &'a Text,
            #[serde(skip_serializing_if = "Option::is_none")]
            scope: Option<&'a Scope>,
            #[serde(skip_serializing_if = "AuthorizationDetails::is_empty")]
            authorization_details: &'a AuthorizationDetails,
            #[serde(skip_serializing_if = "Option::is_none")]
            cnf: Option<Map<String, Value>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            act: Option<Value>,
            rootbound_posture_epoch: u64,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            rootbound_once: bool,
        }
        Payload {
            iss: &self.issuer,
            sub: &self.subject,
            client_id: &self.client_id,
            aud: &self.audience,
            iat: self.issued_at.as_seconds(),
            exp: self.expires_at.as_seconds(),
            jti: &self.id,
            scope: self.scope.as_ref(),
            authorization_details: &self.authorization_details,
            cnf: self.binding.to_json(),
            act: self.actors.to_json(),
            rootbound_posture_epoch: self.posture_epoch,
            rootbound_once: self.once,
        }
        .serialize(serializer)
    }
}
