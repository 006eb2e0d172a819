//! What a token is to permit: actions on resources, at audiences. Every word of it is the client's.

use rootbound_token::access::{AccessClaims, AuthorizationDetail, AuthorizationDetails, Scope};
use rootbound_token::claim::Text;
use serde::{Deserialize, Serialize};

use super::Audience;
use crate::policy::{self, Entity, Properties, Question, QuestionError};

/// An action on a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Action {
    /// Its name, as policies have it.
    pub action: String,
    /// The type of the resource, as questions name it: `resource`, or one of the bundle's.
    pub resource_type: String,
    /// The id of the resource.
    pub resource_id: String,
}

/// What a client wants, bounded. It permits nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    audiences: Vec<Audience>,
    scope: Option<Scope>,
    details: AuthorizationDetails,
    actions: Vec<Action>,
    once: bool,
}

/// Why nothing can be wanted so. Each has a stable code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// For nobody.
    #[error("`audience` or `resource` must say for whom the token is")]
    NoAudience,
    /// For too many.
    #[error("a token is for at most {} audiences", Wanted::MAX_AUDIENCES)]
    TooManyAudiences,
    /// Twice for the same.
    #[error("an audience is there twice")]
    AudienceTwice,
    /// For whom the token is not.
    #[error("an element of `authorization_details` has a location that is no audience of the token")]
    Location,
    /// Too many decisions.
    #[error("a token permits at most {} actions, each at each of its audiences", Wanted::MAX_ACTIONS)]
    TooManyActions,
    /// Not a question that policies could decide.
    #[error("an action or resource cannot be asked about: {0}")]
    Question(#[from] QuestionError),
}

impl WantedError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoAudience => "token_audience_missing",
            Self::TooManyAudiences => "token_audiences_too_many",
            Self::AudienceTwice => "token_audience_twice",
            Self::Location => "token_detail_location",
            Self::TooManyActions => "token_actions_too_many",
            Self::Question(error) => error.code(),
        }
    }
}

impl Wanted {
    /// A service and its replicas, or a few services of one task.
    pub const MAX_AUDIENCES: usize = 8;
    /// Each is a decision.
    pub const MAX_ACTIONS: usize = 16;
    /// The action where a client names none.
    pub const ANY_ACTION: &str = "Act";
    /// The type of resources that an audience is.
    pub const RESOURCE: &str = "resource";

    /// What is asked for by name.
    ///
    /// Each word of `scope` is an action on each audience; each element of `details` is its actions on its resource. Where
    /// there is neither, it is [`Self::ANY_ACTION`] on each audience.
    pub fn new(
        audiences: Vec<Audience>,
        scope: Option<Scope>,
        details: AuthorizationDetails,
        once: bool,
    ) -> Result<Self, WantedError> {
        if audiences.is_empty() {
            return Err(WantedError::NoAudience);
        }
        if audiences.len() > Self::MAX_AUDIENCES {
            return Err(WantedError::TooManyAudiences);
        }
        if (1..audiences.len())
            .any(|at| audiences.iter().take(at).any(|before| audiences.get(at) == Some(before)))
        {
            return Err(WantedError::AudienceTwice);
        }
        let mut actions = Vec::new();
        let mut add = |action: &str, resource_type: &str, resource_id: &str| {
            let (action, resource_type) = (action.to_owned(), resource_type.to_owned());
            let one = Action { action, resource_type, resource_id: resource_id.to_owned() };
            if !actions.contains(&one) {
                actions.push(one);
            }
            if actions.len() > Self::MAX_ACTIONS { Err(WantedError::TooManyActions) } else { Ok(()) }
        };
        if let Some(scope) = &scope {
            for word in scope.words() {
                for audience in &audiences {
                    add(word, Self::RESOURCE, audience.as_str())?;
                }
            }
        }
        for detail in details.iter() {
            let known = |at: &Text| audiences.iter().any(|audience| audience.as_str() == at.as_str());
            if !detail.locations.iter().all(known) {
                return Err(WantedError::Location);
            }
            for action in &detail.actions {
                add(action.as_str(), detail.resource.kind.as_str(), detail.resource.id.as_str())?;
            }
        }
        if scope.is_none() && details.is_empty() {
            for audience in &audiences {
                add(Self::ANY_ACTION, Self::RESOURCE, audience.as_str())?;
            }
        }
        let wanted = Self { audiences, scope, details, actions, once };
        // Whatever is asked of the policies later can be.
        wanted.questions("node", "-")?;
        Ok(wanted)
    }

    /// For whom it is.
    #[must_use]
    pub fn audiences(&self) -> &[Audience] {
        &self.audiences
    }

    /// The scope, as it was asked for.
    #[must_use]
    pub fn scope(&self) -> Option<&Scope> {
        self.scope.as_ref()
    }

    /// The details, as they were asked for.
    #[must_use]
    pub fn details(&self) -> &AuthorizationDetails {
        &self.details
    }

    /// All of it, one by one.
    #[must_use]
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// Whether it is good for one use only.
    #[must_use]
    pub fn once(&self) -> bool {
        self.once
    }

    /// Whether a token with these claims permits all of it, wherever: each word of the scope is among its words, each action
    /// of the details among those on the same resource, and any action only where it permits any.
    #[must_use]
    pub fn is_within(&self, claims: &AccessClaims) -> bool {
        let words = |scope: &Scope| {
            scope.words().all(|word| claims.scope.as_ref().is_some_and(|held| held.contains(word)))
        };
        let held = |detail: &AuthorizationDetail, action: &Text| {
            let mut same =
                claims.authorization_details.iter().filter(|held| held.resource == detail.resource);
            same.any(|held| held.actions.contains(action))
        };
        let any = claims.scope.is_none() && claims.authorization_details.is_empty();
        let wants_any = self.scope.is_none() && self.details.is_empty();
        self.scope.as_ref().is_none_or(words)
            && self.details.iter().all(|detail| detail.actions.iter().all(|action| held(detail, action)))
            && (any || !wants_any)
    }

    /// May a subject do this? One question for each action.
    pub fn questions(&self, subject_type: &str, subject_id: &str) -> Result<Vec<Question>, QuestionError> {
        self.actions.iter().map(|action| action.question(subject_type, subject_id)).collect()
    }
}

impl Action {
    /// May a subject do this?
    pub fn question(&self, subject_type: &str, subject_id: &str) -> Result<Question, QuestionError> {
        let entity = |kind: &str, id: &str| Entity {
            kind: kind.to_owned(),
            id: id.to_owned(),
            properties: Properties::new(),
        };
        Question::of(
            entity(subject_type, subject_id),
            policy::Action { name: self.action.clone(), properties: Properties::new() },
            entity(&self.resource_type, &self.resource_id),
            Properties::new(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audiences(names: &[&str]) -> Vec<Audience> {
        names.iter().map(|name| (*name).to_owned().try_into().unwrap()).collect()
    }

    fn details(actions: &[&str], locations: &[&str]) -> AuthorizationDetails {
        let mut detail = serde_json::json!({
            "type": "rootbound_action",
            "actions": actions,
            "resource": { "type": "database", "id": "orders" },
        });
        if !locations.is_empty() {
            detail["locations"] = locations.into();
        }
        AuthorizationDetails::from_json(&serde_json::json!([detail])).unwrap()
    }

    fn none() -> AuthorizationDetails {
        AuthorizationDetails::default()
    }

    fn actions(wanted: &Wanted) -> Vec<String> {
        let shown = |one: &Action| format!("{} {} {}", one.action, one.resource_type, one.resource_id);
        wanted.actions().iter().map(shown).collect()
    }

    #[test]
    fn scope_and_details_are_actions_on_resources() {
        let plain = Wanted::new(audiences(&["a", "b"]), None, none(), false).unwrap();
        assert_eq!(actions(&plain), ["Act resource a", "Act resource b"]);
        let scope = Some("read write read".parse().unwrap());
        let wanted = Wanted::new(audiences(&["a"]), scope, details(&["read"], &["a"]), true).unwrap();
        assert_eq!(actions(&wanted), ["read resource a", "write resource a", "read database orders"]);
        assert!(wanted.once());
        let questions = wanted.questions("node", "n").unwrap();
        assert_eq!(questions.len(), 3);
        assert_eq!(questions[2].resource().id, "orders");
    }

    #[test]
    fn what_cannot_be_wanted_says_why() {
        use WantedError as E;
        let of = |names: &[&str], scope: Option<&str>, details: AuthorizationDetails| {
            let scope = scope.map(|scope| scope.parse().unwrap());
            Wanted::new(audiences(names), scope, details, false).map(drop)
        };
        let many: Vec<_> = (0..9).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let words = many.join(" ");
        assert_eq!(of(&[], None, none()), Err(E::NoAudience));
        assert_eq!(of(&many, None, none()), Err(E::TooManyAudiences));
        assert_eq!(of(&["a", "b", "a"], None, none()), Err(E::AudienceTwice));
        assert_eq!(of(&["a"], None, details(&["a"], &["b"])), Err(E::Location));
        assert_eq!(of(&["a", "b"], Some(&words), none()), Err(E::TooManyActions));
        let long = "x".repeat(Question::MAX_NAME + 1);
        assert!(matches!(of(&["a"], Some(&long), none()), Err(E::Question(_))));
    }

    #[test]
    fn audiences_are_plain_and_short() {
        for good in ["a", "https://api.example.org/v1?x=y#z", &"x".repeat(512)] {
            assert!(Audience::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\"", "a\\", "ä", "a\n", &"x".repeat(513)] {
            assert!(Audience::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
