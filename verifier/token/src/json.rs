//! One JSON document of a caller's, read strictly: what two readers could understand differently is refused.
//!
//! Established when [`read`] returns: it is one JSON text (RFC 8259) in UTF-8 with nothing after it · no object has two
//! members of one name, at any level (RFC 8259, 4: what becomes of them is the reader's, so that a caller and the one
//! that it guards could differ) · it is nested no deeper than [`MAX_DEPTH`] · it has no more values than it was given room
//! for. The last two hold while it is read, so that what breaks them is not built first.

use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How deep arrays and objects may be nested. A batch of the Authorization API has five levels of its own above the
/// properties of an entity; a token has less.
pub const MAX_DEPTH: usize = 16;

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not one JSON text.
    #[error("not one JSON document: {0}")]
    Syntax(String),
    /// Two members of an object have the same name.
    #[error("an object has two members of the same name, before line {line}, column {column}")]
    DuplicateMember {
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
    },
    /// Nested too deeply.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Too many values.
    #[error("more than {limit} values")]
    TooManyValues {
        /// How many it may have: each string, number, truth value, null, array and object.
        limit: usize,
    },
}

/// Reads a document of at most `limit` values.
pub fn read(text: &[u8], limit: usize) -> Result<Value, JsonError> {
    let budget = Budget { left: Cell::new(limit), broken: Cell::new(None) };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let read = Strict { deeper: MAX_DEPTH, budget: &budget }.deserialize(&mut deserializer);
    let error = match read.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    Err(match budget.broken.get() {
        Some(Bound::Members) => JsonError::DuplicateMember { line: error.line(), column: error.column() },
        Some(Bound::Depth) => JsonError::TooDeep,
        Some(Bound::Values) => JsonError::TooManyValues { limit },
        None => JsonError::Syntax(error.to_string()),
    })
}

/// What is left of the bounds, and which was broken: serde has no place for it in its errors.
struct Budget {
    left: Cell<usize>,
    broken: Cell<Option<Bound>>,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    Members,
    Depth,
    Values,
}

impl Budget {
    fn breaks<E: serde::de::Error>(&self, bound: Bound) -> E {
        self.broken.set(Some(bound));
        E::custom("a bound is broken")
    }
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Strict<'a> {
    deeper: usize,
    budget: &'a Budget,
}

impl Strict<'_> {
    fn within<E: serde::de::Error>(self) -> Result<Self, E> {
        let deeper = self.deeper.checked_sub(1).ok_or_else(|| self.budget.breaks(Bound::Depth))?;
        Ok(Self { deeper, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.budget.left.get().checked_sub(1);
        self.budget.left.set(left.ok_or_else(|| self.budget.breaks(Bound::Values))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let within = self.within()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(within)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let within = self.within()?;
        let mut members = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(self.budget.breaks(Bound::Members));
            }
            let value = object.next_value_seed(within)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> JsonError {
        read(text.as_bytes(), 100).unwrap_err()
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        for twice in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":[{"c":1,"d":2,"c":3}]}}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(matches!(refused(twice), JsonError::DuplicateMember { line: 1, .. }), "{twice}");
        }
        for text in [
            "",
            " ",
            "{",
            "[1,]",
            "{} {}",
            "{}x",
            "\u{feff}{}",
            "NaN",
            "1e999",
            "{'a':1}",
            r#""\ud800""#,
            "01",
        ] {
            assert!(matches!(refused(text), JsonError::Syntax(_)), "{text}");
        }
        assert!(matches!(read(b"\"\xff\"", 100), Err(JsonError::Syntax(_))), "not UTF-8");
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(nested(MAX_DEPTH).as_bytes(), 100).is_ok());
        for levels in [MAX_DEPTH + 1, 100, 100_000] {
            assert_eq!(refused(&nested(levels)), JsonError::TooDeep);
        }
        let list = |values: usize| format!("[{}]", vec!["0"; values].join(","));
        assert!(read(list(99).as_bytes(), 100).is_ok(), "the list is one, too");
        for values in [100, 100_000] {
            assert_eq!(refused(&list(values)), JsonError::TooManyValues { limit: 100 });
        }
    }

    /// A document, and how many values and levels it has.
    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
        ];
        leaf.prop_recursive(u32::try_from(MAX_DEPTH).unwrap(), 200, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-c\"\\\\é]{0,3}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn size(value: &Value) -> (usize, usize) {
        let of = |values: &mut dyn Iterator<Item = &Value>| {
            values.map(size).fold((1, 0), |(all, deep), (more, depth)| (all + more, deep.max(depth)))
        };
        match value {
            Value::Array(values) => of(&mut values.iter()),
            Value::Object(members) => of(&mut members.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return (1, 0),
        }
        .into_deeper()
    }

    trait Deeper {
        fn into_deeper(self) -> Self;
    }

    impl Deeper for (usize, usize) {
        fn into_deeper(self) -> Self {
            (self.0, self.1 + 1)
        }
    }

    /// Every text of the document in which one object has its first member twice.
    fn with_a_member_twice(value: &Value) -> Vec<String> {
        match value {
            Value::Object(members) => {
                let text = |changed: Option<(usize, &str)>| {
                    let members: Vec<_> = members
                        .iter()
                        .enumerate()
                        .map(|(position, (name, value))| {
                            let value = match changed {
                                Some((at, text)) if at == position => text.to_owned(),
                                Some(_) | None => value.to_string(),
                            };
                            format!("{}:{value}", Value::from(name.as_str()))
                        })
                        .collect();
                    members.join(",")
                };
                let mut all = Vec::new();
                if let Some(name) = members.keys().next() {
                    all.push(format!("{{{},{}:0}}", text(None), Value::from(name.as_str())));
                }
                for (position, inner) in members.values().enumerate() {
                    for inner in with_a_member_twice(inner) {
                        all.push(format!("{{{}}}", text(Some((position, &inner)))));
                    }
                }
                all
            }
            Value::Array(values) => {
                let mut all = Vec::new();
                for (position, inner) in values.iter().enumerate() {
                    for inner in with_a_member_twice(inner) {
                        let mut texts: Vec<_> = values.iter().map(Value::to_string).collect();
                        texts[position] = inner;
                        all.push(format!("[{}]", texts.join(",")));
                    }
                }
                all
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn a_document_within_bounds_is_read_as_it_is(document in documents()) {
            let (values, depth) = size(&document);
            let text = document.to_string();
            if depth <= MAX_DEPTH {
                prop_assert_eq!(read(text.as_bytes(), values), Ok(document.clone()));
                prop_assert_eq!(read(text.as_bytes(), values - 1), Err(JsonError::TooManyValues { limit: values - 1 }));
            } else {
                prop_assert_eq!(read(text.as_bytes(), values), Err(JsonError::TooDeep));
            }
        }

        #[test]
        fn a_member_that_stands_twice_is_found_wherever_it_is(document in documents()) {
            prop_assume!(size(&document).1 <= MAX_DEPTH);
            for text in with_a_member_twice(&document) {
                prop_assert!(matches!(read(text.as_bytes(), 10_000), Err(JsonError::DuplicateMember { .. })), "{}", text);
            }
        }
    }
}
