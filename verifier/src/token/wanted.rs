//! What a token is to permit: actions on resources, at audiences. Every word of it is the client's.

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

/// One element of `authorization_details` (RFC 9396, 2) of the type [`ActionDetail::TYPE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionDetail {
    /// [`ActionDetail::TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The names of actions.
    pub actions: Vec<String>,
    /// On what.
    pub resource: ResourceName,
    /// At whom; every audience of the token where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<String>,
}

/// What is acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceName {
    /// `resource`, or a type of the bundle's.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its id.
    pub id: String,
}

impl ActionDetail {
    /// The type of these elements.
    pub const TYPE: &str = "rootbound_action";
}

/// What a client wants, bounded. It permits nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    audiences: Vec<Audience>,
    scope: Option<String>,
    details: Vec<ActionDetail>,
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
    /// Not a scope.
    #[error("`scope` is words of printable ASCII with one space between them (RFC 6749, 3.3)")]
    Scope,
    /// Of another type.
    #[error("`authorization_details` has elements of type `{}` only", ActionDetail::TYPE)]
    DetailType,
    /// For whom the token is not.
    #[error("an element of `authorization_details` has a location that is no audience of the token")]
    Location,
    /// No action.
    #[error("an element of `authorization_details` has no actions")]
    NoAction,
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
            Self::Scope => "token_scope_malformed",
            Self::DetailType => "token_detail_type",
            Self::Location => "token_detail_location",
            Self::NoAction => "token_detail_without_action",
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
        scope: Option<String>,
        details: Vec<ActionDetail>,
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
            for word in scope.split(' ') {
                if word.is_empty() || !word.bytes().all(is_scope_character) {
                    return Err(WantedError::Scope);
                }
                for audience in &audiences {
                    add(word, Self::RESOURCE, audience.as_str())?;
                }
            }
        }
        for detail in &details {
            if detail.kind != ActionDetail::TYPE {
                return Err(WantedError::DetailType);
            }
            if detail.locations.iter().any(|at| !audiences.iter().any(|audience| audience.as_str() == at)) {
                return Err(WantedError::Location);
            }
            if detail.actions.is_empty() {
                return Err(WantedError::NoAction);
            }
            for action in &detail.actions {
                add(action, &detail.resource.kind, &detail.resource.id)?;
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
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The details, as they were asked for.
    #[must_use]
    pub fn details(&self) -> &[ActionDetail] {
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

/// RFC 6749, 3.3.
const fn is_scope_character(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audiences(names: &[&str]) -> Vec<Audience> {
        names.iter().map(|name| (*name).to_owned().try_into().unwrap()).collect()
    }

    fn detail(actions: &[&str], locations: &[&str]) -> ActionDetail {
        ActionDetail {
            kind: ActionDetail::TYPE.to_owned(),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
            resource: ResourceName { kind: "database".to_owned(), id: "orders".to_owned() },
            locations: locations.iter().map(|at| (*at).to_owned()).collect(),
        }
    }

    fn actions(wanted: &Wanted) -> Vec<String> {
        let shown = |one: &Action| format!("{} {} {}", one.action, one.resource_type, one.resource_id);
        wanted.actions().iter().map(shown).collect()
    }

    #[test]
    fn scope_and_details_are_actions_on_resources() {
        let plain = Wanted::new(audiences(&["a", "b"]), None, Vec::new(), false).unwrap();
        assert_eq!(actions(&plain), ["Act resource a", "Act resource b"]);
        let scope = Some("read write read".to_owned());
        let wanted = Wanted::new(audiences(&["a"]), scope, vec![detail(&["read"], &["a"])], true).unwrap();
        assert_eq!(actions(&wanted), ["read resource a", "write resource a", "read database orders"]);
        assert!(wanted.once());
        let questions = wanted.questions("node", "n").unwrap();
        assert_eq!(questions.len(), 3);
        assert_eq!(questions[2].resource().id, "orders");
    }

    #[test]
    fn what_cannot_be_wanted_says_why() {
        use WantedError as E;
        let of = |names: &[&str], scope: Option<&str>, details: Vec<ActionDetail>| {
            Wanted::new(audiences(names), scope.map(str::to_owned), details, false).map(drop)
        };
        let many: Vec<_> = (0..9).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let words = many.join(" ");
        assert_eq!(of(&[], None, vec![]), Err(E::NoAudience));
        assert_eq!(of(&many, None, vec![]), Err(E::TooManyAudiences));
        assert_eq!(of(&["a", "b", "a"], None, vec![]), Err(E::AudienceTwice));
        for scope in ["", " a", "a  b", "a ", "a\tb", "a\"b", "ä"] {
            assert_eq!(of(&["a"], Some(scope), vec![]), Err(E::Scope), "{scope:?}");
        }
        let other = ActionDetail { kind: "payment".to_owned(), ..detail(&["a"], &[]) };
        assert_eq!(of(&["a"], None, vec![other]), Err(E::DetailType));
        assert_eq!(of(&["a"], None, vec![detail(&["a"], &["b"])]), Err(E::Location));
        assert_eq!(of(&["a"], None, vec![detail(&[], &[])]), Err(E::NoAction));
        assert_eq!(of(&["a", "b"], Some(&words), vec![]), Err(E::TooManyActions));
        let long = "x".repeat(Question::MAX_NAME + 1);
        assert!(matches!(of(&["a"], Some(&long), vec![]), Err(E::Question(_))));
        assert!(matches!(of(&["a"], None, vec![detail(&[""], &[])]), Err(E::Question(_))));
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
