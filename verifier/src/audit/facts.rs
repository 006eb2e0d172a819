//! What a record says beyond its fixed members: a small JSON object.

use rootbound_common::crypto::sha256;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A JSON object in a record: members by rising name, whole numbers only, at most [`Facts::MAX`] bytes and
/// [`Facts::DEPTH`] levels deep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Facts(Value);

/// Why a value is not kept as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// Not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A number with a fraction or an exponent, of which there is more than one form.
    #[error("a number that is not whole")]
    Number,
    /// Nested too deeply.
    #[error("nested more than {} levels deep", Facts::DEPTH)]
    Depth,
    /// Too long.
    #[error("more than {} bytes", Facts::MAX)]
    Length,
}

impl Facts {
    /// Bytes at most, as they are written.
    pub const MAX: usize = 5000;
    /// Levels at most: the object itself is the first.
    pub const DEPTH: usize = 10;

    /// Takes an object.
    pub fn new(mut value: Value) -> Result<Self, FactsError> {
        settle(&mut value)?;
        Ok(Self(value))
    }

    /// Takes an object, or where it is not taken says why, and its SHA-256.
    #[must_use]
    pub fn or_digest(value: Value) -> Self {
        Self::with_digest(value).0
    }

    /// The same, and the SHA-256 of the object as it is written here; of one that is not taken, as it came.
    #[must_use]
    pub fn with_digest(mut value: Value) -> (Self, [u8; 32]) {
        let why = match settle(&mut value) {
            Ok(bytes) => return (Self(value), sha256(&[&bytes])),
            Err(why) => why,
        };
        let digest = sha256(&[&serde_json::to_vec(&value).unwrap_or_default()]);
        let members = [("left_out", why.to_string()), ("sha256", data_encoding::HEXLOWER.encode(&digest))];
        let members = members.map(|(name, text)| (name.to_owned(), text.into()));
        (Self(Value::Object(members.into_iter().collect())), digest)
    }

    /// A member of the object.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The object.
    #[must_use]
    pub const fn as_value(&self) -> &Value {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Brings the members of every object in the order of their names, and writes it.
fn settle(value: &mut Value) -> Result<Vec<u8>, FactsError> {
    if !value.is_object() {
        return Err(FactsError::NotAnObject);
    }
    check(value, Facts::DEPTH)?;
    value.sort_all_objects();
    // Writing into memory does not fail.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    if bytes.len() > Facts::MAX { Err(FactsError::Length) } else { Ok(bytes) }
}

/// The recursion ends with the levels that are left.
fn check(value: &Value, levels: usize) -> Result<(), FactsError> {
    let below = || levels.checked_sub(1).ok_or(FactsError::Depth);
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(()),
        Value::Number(_) => Err(FactsError::Number),
        Value::Array(items) => {
            let levels = below()?;
            items.iter().try_for_each(|item| check(item, levels))
        }
        Value::Object(members) => {
            let levels = below()?;
            members.values().try_for_each(|member| check(member, levels))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_have_one_order() {
        let facts = Facts::new(json!({ "b": [{ "z": 1, "a": null }], "a": true })).unwrap();
        assert_eq!(serde_json::to_string(&facts).unwrap(), r#"{"a":true,"b":[{"a":null,"z":1}]}"#);
        assert_eq!(facts.member("a"), Some(&json!(true)));
    }

    #[test]
    fn what_has_no_bounded_form_is_refused_or_named_by_its_digest() {
        let deep = |levels| (1..levels).fold(json!({}), |inner, _| json!({ "in": inner }));
        assert!(Facts::new(deep(Facts::DEPTH)).is_ok());
        for (value, why) in [
            (json!([]), FactsError::NotAnObject),
            (json!({ "a": 1.5 }), FactsError::Number),
            (json!({ "a": [1e300] }), FactsError::Number),
            (deep(Facts::DEPTH + 1), FactsError::Depth),
            (json!({ "a": "x".repeat(Facts::MAX) }), FactsError::Length),
        ] {
            assert_eq!(Facts::new(value.clone()), Err(why));
            let facts = Facts::or_digest(value.clone());
            assert_eq!(facts.member("left_out"), Some(&json!(why.to_string())));
            let digest = data_encoding::HEXLOWER.encode(&sha256(&[&serde_json::to_vec(&value).unwrap()]));
            assert_eq!(facts.member("sha256"), Some(&json!(digest)));
        }
        assert!(serde_json::from_str::<Facts>(r#"{"a":0.1}"#).is_err());
    }
}
