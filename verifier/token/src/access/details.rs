//! What a token is good for: scopes (RFC 6749, 3.3) and authorization details (RFC 9396).

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::claim::{ClaimError, Members, Text, text, texts};

/// Scope tokens, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(Vec<String>);

/// A text that is no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a scope is 1 to {} words with one space between, of printable ASCII without quotation mark and backslash, {} bytes \
     together",
    Scope::MAX_WORDS,
    Scope::MAX_BYTES
)]
pub struct NotAScope;

impl Scope {
    /// Words of a scope.
    pub const MAX_WORDS: usize = 32;
    /// Bytes of a scope.
    pub const MAX_BYTES: usize = 1024;

    /// The words.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether `word` is among them.
    #[must_use]
    pub fn contains(&self, word: &str) -> bool {
        self.words().any(|one| one == word)
    }
}

/// `scope-token *( SP scope-token )`, `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`.
impl FromStr for Scope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        let word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte))
        };
        let fits = text.len() <= Self::MAX_BYTES
            && text.split(' ').count() <= Self::MAX_WORDS
            && text.split(' ').all(word);
        if fits { Ok(Self(text.split(' ').map(str::to_owned).collect())) } else { Err(NotAScope) }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Actions on one resource that a token is good for (RFC 9396, 2): `type` is [`Self::TYPE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationDetail {
    /// What may be done: 1 to [`Self::MAX_ACTIONS`].
    pub actions: Vec<Text>,
    /// To what.
    pub resource: Resource,
    /// Where (RFC 9396, 2.2): up to [`Self::MAX_LOCATIONS`].
    pub locations: Vec<Text>,
}

/// A resource as decisions know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// Of which type.
    #[serde(rename = "type")]
    pub kind: Text,
    /// Which.
    pub id: Text,
}

impl AuthorizationDetail {
    /// The one type that there is.
    pub const TYPE: &str = "rootbound_action";
    /// Actions of one.
    pub const MAX_ACTIONS: usize = 16;
    /// Locations of one.
    pub const MAX_LOCATIONS: usize = 8;

    /// Members that are not known are refused (RFC 9396, 5): what they narrow would be ignored.
    fn from_json(claim: &'static str, value: &Value) -> Result<Self, ClaimError> {
        let form = |expected| ClaimError::Form { claim, expected };
        let members = value.as_object().ok_or(form("a list of objects"))?;
        if members.get("type").and_then(Value::as_str) != Some(Self::TYPE) {
            return Err(form("of type rootbound_action"));
        }
        let known = |members: &Map<String, Value>, known: &[&str]| {
            members.keys().all(|name| known.contains(&name.as_str()))
        };
        if !known(members, &["type", "actions", "resource", "locations"]) {
            return Err(form("of type, actions, resource and locations"));
        }
        let list = |name: &str, limit| members.get(name)?.as_array().and_then(|values| texts(values, limit));
        let actions = list("actions", Self::MAX_ACTIONS).filter(|actions| !actions.is_empty());
        let actions = actions.ok_or(form("a list of objects with 1 to 16 actions"))?;
        let locations = match members.get("locations") {
            None => Vec::new(),
            Some(_) => list("locations", Self::MAX_LOCATIONS)
                .filter(|locations| !locations.is_empty())
                .ok_or(form("a list of objects with 1 to 8 locations, where they have any"))?,
        };
        let resource = members.get("resource").and_then(Value::as_object);
        let resource = resource.filter(|resource| known(resource, &["type", "id"]));
        let member = |name: &str| resource.and_then(|resource| text(resource.get(name)?));
        let resource = member("type").zip(member("id")).map(|(kind, id)| Resource { kind, id });
        let resource = resource.ok_or(form("a list of objects with a resource of type and id"))?;
        Ok(Self { actions, resource, locations })
    }
}

impl Serialize for AuthorizationDetail {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Members<'a> {
            r#type: &'static str,
            actions: &'a [Text],
            resource: &'a Resource,
            #[serde(skip_serializing_if = "<[Text]>::is_empty")]
            locations: &'a [Text],
        }
        let Self { actions, resource, locations } = self;
        Members { r#type: Self::TYPE, actions, resource, locations }.serialize(serializer)
    }
}

/// Up to eight of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AuthorizationDetails(Vec<AuthorizationDetail>);

impl AuthorizationDetails {
    /// How many.
    pub const MAX: usize = 8;
    pub(super) const CLAIM: &str = "authorization_details";

    /// These, or nothing where they are too many.
    #[must_use]
    pub fn new(details: Vec<AuthorizationDetail>) -> Option<Self> {
        (details.len() <= Self::MAX).then_some(Self(details))
    }

    /// Reads the array, of a token or of a request.
    pub fn from_json(value: &Value) -> Result<Self, ClaimError> {
        let details = value.as_array().filter(|details| (1..=Self::MAX).contains(&details.len()));
        let expected = "a list of 1 to 8 objects";
        let details = details.ok_or(ClaimError::Form { claim: Self::CLAIM, expected })?;
        let detail = |value| AuthorizationDetail::from_json(Self::CLAIM, value);
        Ok(Self(details.iter().map(detail).collect::<Result<_, _>>()?))
    }

    pub(super) fn from_claims(claims: Members<'_>) -> Result<Self, ClaimError> {
        claims.optional(Self::CLAIM).map_or_else(|| Ok(Self::default()), Self::from_json)
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = &AuthorizationDetail> {
        self.0.iter()
    }

    /// Whether there are none: then nothing is narrowed by them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
