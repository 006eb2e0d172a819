//! What a token is to be. Every word is bounded before it is asked for.

use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rootbound_common::text::only_shows;
use serde::{Deserialize, Serialize};

/// Defines a text that only some texts are.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $not:ident, $words:literal, $fits:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        #[doc = concat!("A text that is none: ", $words, ".")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        #[error($words)]
        pub struct $not;

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = $not;

            fn try_from(text: String) -> Result<Self, $not> {
                let fits: fn(&str) -> bool = $fits;
                if fits(&text) { Ok(Self(text)) } else { Err($not) }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $not;

            fn from_str(text: &str) -> Result<Self, $not> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// What has a place between quotation marks and spaces (RFC 6749, appendix A: NQCHAR).
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

text!(
    /// For whom a token is: a URI, or a name that the verifier's operator gave a service.
    Audience,
    NotAnAudience,
    "an audience is 1 to 512 printable ASCII characters without spaces, quotation marks and backslashes",
    |text| (1..=512).contains(&text.len()) && is_plain(text)
);
text!(
    /// What may be done, as policies name it: a word of a scope (RFC 6749, 3.3).
    Action,
    NotAnAction,
    "an action is 1 to 128 printable ASCII characters without spaces, quotation marks and backslashes",
    |text| (1..=128).contains(&text.len()) && is_plain(text)
);
text!(
    /// A name of a resource, or of its type.
    Name,
    NotAName,
    "a name is 1 to 2048 bytes of characters that do nothing but show",
    |text| (1..=2048).contains(&text.len()) && text.chars().all(only_shows)
);

/// What a token is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWish {
    audiences: Vec<Audience>,
    wished: Wished,
    form: String,
}

/// One of the kinds of token that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wished {
    /// An access token, to do something.
    AccessToken(Permissions),
    /// A JWT-SVID, which says who the machine is, and permits nothing by itself.
    JwtSvid,
}

/// What an access token is good for. Without an action in either list it is `Act` on each audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// How it will be shown.
    pub held_by: HeldBy,
    /// Actions on each audience.
    pub scope: Vec<Action>,
    /// Actions on resources.
    pub details: Vec<Detail>,
    /// Whether it is good for one use.
    pub once: bool,
}

/// What a token is bound to, so that it is of no use elsewhere. The key of both is in the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBy {
    /// The key of the credential, by a DPoP proof with each use (RFC 9449). It outlives the certificate.
    Key,
    /// The certificate, over mutual TLS (RFC 8705).
    Certificate,
}

/// Actions on one resource (RFC 9396, 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    r#type: DetailType,
    /// What may be done.
    pub actions: Vec<Action>,
    /// To what.
    pub resource: Resource,
    /// At which of the audiences; at all of them where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<Audience>,
}

/// The one type of details that the verifier has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum DetailType {
    #[serde(rename = "rootbound_action")]
    RootboundAction,
}

/// A resource as policies know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Of which type.
    #[serde(rename = "type")]
    pub kind: Name,
    /// Which.
    pub id: Name,
}

impl Detail {
    /// Actions on a resource, at all audiences.
    #[must_use]
    pub const fn new(actions: Vec<Action>, resource: Resource) -> Self {
        Self { r#type: DetailType::RootboundAction, actions, resource, locations: Vec::new() }
    }
}

/// Why nobody can have such a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// For nobody, or for too many.
    #[error("a token is for 1 to {} audiences", TokenWish::MAX_AUDIENCES)]
    Audiences,
    /// Twice for the same.
    #[error("an audience is there twice")]
    AudienceTwice,
    /// More than the verifier decides for one token.
    #[error("a token permits at most {} actions", TokenWish::MAX_ACTIONS)]
    Actions,
    /// Nothing on a resource.
    #[error("a resource comes with at least one action")]
    NoAction,
    /// Longer than the verifier reads.
    #[error("what is asked for takes more than {} bytes", TokenWish::MAX_BYTES)]
    TooLong,
}

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

impl TokenWish {
    /// A service and its replicas.
    pub const MAX_AUDIENCES: usize = 8;
    /// Each is a decision.
    pub const MAX_ACTIONS: usize = 16;
    /// The body of a request.
    pub const MAX_BYTES: usize = 32 * 1024;

    /// What is asked for, bounded. Whether it is permitted, the verifier says.
    pub fn new(audiences: Vec<Audience>, wished: Wished) -> Result<Self, WishError> {
        if !(1..=Self::MAX_AUDIENCES).contains(&audiences.len()) {
            return Err(WishError::Audiences);
        }
        if audiences
            .iter()
            .enumerate()
            .any(|(at, one)| audiences.iter().skip(at + 1).any(|other| other == one))
        {
            return Err(WishError::AudienceTwice);
        }
        if let Wished::AccessToken(permissions) = &wished {
            let of_details: usize = permissions.details.iter().map(|detail| detail.actions.len()).sum();
            if permissions.scope.len().saturating_add(of_details) > Self::MAX_ACTIONS {
                return Err(WishError::Actions);
            }
            if permissions.details.iter().any(|detail| detail.actions.is_empty()) {
                return Err(WishError::NoAction);
            }
        }
        let form = form(&audiences, &wished);
        if form.len() > Self::MAX_BYTES {
            return Err(WishError::TooLong);
        }
        Ok(Self { audiences, wished, form })
    }

    /// For whom it is.
    #[must_use]
    pub fn audiences(&self) -> &[Audience] {
        &self.audiences
    }

    /// What it is.
    #[must_use]
    pub const fn wished(&self) -> &Wished {
        &self.wished
    }

    /// Whether a proof goes with the request.
    pub(super) fn takes_proof(&self) -> bool {
        matches!(&self.wished, Wished::AccessToken(Permissions { held_by: HeldBy::Key, .. }))
    }

    /// As a form (RFC 6749, 4.4.2; RFC 8693, 2.1; RFC 9396, 3).
    pub(super) fn form(&self) -> &str {
        &self.form
    }
}

fn form(audiences: &[Audience], wished: &Wished) -> String {
    let mut form = "grant_type=client_credentials".to_owned();
    let mut add = |name: &str, value: &str| {
        form.push_str(&format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    };
    for audience in audiences {
        add("audience", audience.as_str());
    }
    match wished {
        Wished::JwtSvid => add("requested_token_type", JWT),
        Wished::AccessToken(Permissions { scope, details, once, held_by: _ }) => {
            add("requested_token_type", ACCESS_TOKEN);
            if !scope.is_empty() {
                add("scope", &scope.iter().map(Action::as_str).collect::<Vec<_>>().join(" "));
            }
            if !details.is_empty() {
                // Of strings alone, so that there is a JSON of it.
                add("authorization_details", &serde_json::to_string(details).unwrap_or_default());
            }
            if *once {
                add("one_time", "true");
            }
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<Audience> {
        (0..count).map(|number| format!("https://{number}.example").parse().unwrap()).collect()
    }

    fn to(scope: &[&str], details: Vec<Detail>) -> Wished {
        let scope = scope.iter().map(|word| word.parse().unwrap()).collect();
        Wished::AccessToken(Permissions { held_by: HeldBy::Key, scope, details, once: false })
    }

    fn detail(actions: &[&str], id: &str) -> Detail {
        let resource = Resource { kind: "database".parse().unwrap(), id: id.parse().unwrap() };
        Detail::new(actions.iter().map(|word| word.parse().unwrap()).collect(), resource)
    }

    #[test]
    fn a_wish_is_a_form_whose_values_hide_nothing() {
        let audiences = || vec!["https://orders.example/a?b=c&d".parse().unwrap(), "two".parse().unwrap()];
        let wish = TokenWish::new(audiences(), to(&["db:read", "db:write"], Vec::new())).unwrap();
        assert_eq!(
            wish.form(),
            "grant_type=client_credentials&audience=https%3A%2F%2Forders%2Eexample%2Fa%3Fb%3Dc%26d&audience=two\
             &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken%2Dtype%3Aaccess%5Ftoken&scope=db%3Aread%20db%3Awrite"
        );
        assert!(wish.takes_proof());
        let wish = TokenWish::new(audiences(), Wished::JwtSvid).unwrap();
        assert!(
            wish.form().ends_with("&requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken%2Dtype%3Ajwt")
        );
        assert!(!wish.takes_proof());
        let wished = Permissions {
            held_by: HeldBy::Certificate,
            scope: Vec::new(),
            details: vec![detail(&["db:read"], "gr\u{fc}n&x=1")],
            once: true,
        };
        let wish = TokenWish::new(names(1), Wished::AccessToken(wished)).unwrap();
        let (_, details) = wish.form().split_once("&authorization_details=").unwrap();
        let (details, once) = details.split_once('&').unwrap();
        let details = percent_encoding::percent_decode_str(details).decode_utf8().unwrap();
        let expected = r#"[{"type":"rootbound_action","actions":["db:read"],"resource":{"type":"database","id":"grün&x=1"}}]"#;
        assert_eq!((details.as_ref(), once), (expected, "one_time=true"));
        assert!(!wish.takes_proof());
    }

    #[test]
    fn a_wish_that_the_verifier_would_not_read_is_refused_here() {
        let new = |audiences, wished| TokenWish::new(audiences, wished).unwrap_err();
        assert_eq!(new(Vec::new(), Wished::JwtSvid), WishError::Audiences);
        assert_eq!(new(names(9), Wished::JwtSvid), WishError::Audiences);
        assert!(TokenWish::new(names(8), Wished::JwtSvid).is_ok());
        assert_eq!(new([names(2), names(1)].concat(), Wished::JwtSvid), WishError::AudienceTwice);
        let words: Vec<_> = (0..16).map(|number| format!("a{number}")).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        assert!(TokenWish::new(names(1), to(&words, Vec::new())).is_ok());
        assert_eq!(new(names(1), to(&words, vec![detail(&["b"], "x")])), WishError::Actions);
        assert_eq!(new(names(1), to(&[], vec![detail(&[], "x")])), WishError::NoAction);
        let long = "\u{fc}".repeat(1024);
        let details = (0..8).map(|_| detail(&["a"], &long)).collect();
        assert_eq!(new(names(1), to(&[], details)), WishError::TooLong);
    }

    #[test]
    fn words_of_a_wish_are_bounded_and_plain() {
        for bad in ["", "a b", "a\"b", "a\\b", "a\u{e4}", "a\nb", &"x".repeat(513)] {
            assert_eq!(bad.parse::<Audience>(), Err(NotAnAudience), "{bad}");
            assert_eq!(bad.parse::<Action>(), Err(NotAnAction), "{bad}");
        }
        for bad in ["", "a\u{1b}[31m", "a\u{202e}b", &"x".repeat(2049)] {
            assert_eq!(bad.parse::<Name>(), Err(NotAName), "{bad}");
        }
        assert!("x".repeat(512).parse::<Audience>().is_ok() && "x".repeat(128).parse::<Action>().is_ok());
        assert!("caf\u{e9} 1".parse::<Name>().is_ok());
    }
}
