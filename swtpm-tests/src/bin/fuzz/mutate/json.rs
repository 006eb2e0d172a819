//! Mutations of JSON: of its text, of its shape, and of the bytes that its strings encode.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Map, Value, json};

use super::step;
use crate::pool::Pool;
use rootbound_swtpm_tests::random::Random;

/// An input out of the pool, mutated as JSON where it is JSON, else as bytes.
pub(crate) fn mutate(pool: &Pool, limit: usize, random: &mut Random) -> Vec<u8> {
    let mut input = pool.pick(random).to_vec();
    match serde_json::from_slice::<Value>(&input) {
        Ok(mut value) if !random.one_in(4) => {
            for _ in 0..=random.below(3) {
                let steps = random.below(6);
                change(descend(&mut value, steps, random), pool, random);
            }
            input = text(&value, random).into_bytes();
            if random.one_in(8) {
                step(&mut input, pool, random);
            }
        }
        Ok(_) | Err(_) => step(&mut input, pool, random),
    }
    input.truncate(limit);
    input
}

/// A node at most so many levels down.
fn descend<'a>(value: &'a mut Value, steps: usize, random: &mut Random) -> &'a mut Value {
    if steps == 0 || !has_children(value) {
        return value;
    }
    let child = match value {
        Value::Object(map) => {
            let position = random.below(map.len());
            map.values_mut().nth(position)
        }
        Value::Array(list) => {
            let position = random.below(list.len());
            list.get_mut(position)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    descend(child.expect("a child"), steps - 1, random)
}

fn has_children(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn change(value: &mut Value, pool: &Pool, random: &mut Random) {
    match value {
        Value::String(text) if !random.one_in(8) => *text = mutated_string(text, pool, random),
        Value::Object(map) if !random.one_in(8) => mutate_object(map, random),
        Value::Array(list) if !list.is_empty() && !random.one_in(4) => match random.below(3) {
            0 => drop(list.swap_remove(random.below(list.len()))),
            1 => list.push(random.pick(list).clone()),
            _ => list.reverse(),
        },
        _ => *value = replacement(random),
    }
}

/// Mutates what the string encodes, if it encodes bytes, and mostly encodes it again.
fn mutated_string(text: &str, pool: &Pool, random: &mut Random) -> String {
    let hex = HEXLOWER.decode(text.as_bytes());
    let base64 = BASE64URL_NOPAD.decode(text.as_bytes());
    let (mut bytes, encoding) = match (hex, base64) {
        (Ok(bytes), _) if !random.one_in(8) => (bytes, HEXLOWER),
        (_, Ok(bytes)) if !random.one_in(8) => (bytes, BASE64URL_NOPAD),
        _ => {
            let mut bytes = text.as_bytes().to_vec();
            step(&mut bytes, pool, random);
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    };
    step(&mut bytes, pool, random);
    match random.below(16) {
        0 => data_encoding::BASE64.encode(&bytes),
        1 => data_encoding::HEXUPPER.encode(&bytes),
        _ => encoding.encode(&bytes),
    }
}

fn mutate_object(map: &mut Map<String, Value>, random: &mut Random) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let Some(one) = keys.get(random.below(keys.len())) else {
        map.insert("field".to_owned(), replacement(random));
        return;
    };
    let other = random.pick(&keys).clone();
    match random.below(4) {
        0 => drop(map.remove(one)),
        1 => {
            let value = map.remove(one).unwrap_or_default();
            let names =
                ["", "sha1", "sha256", "sha384", "24", "00", "-1", "quote", "certificate_request", "\u{0}"];
            map.insert((*random.pick(&names)).to_owned(), value);
        }
        2 => {
            let (a, b) = (map[one].clone(), map[&other].clone());
            map.insert(one.clone(), b);
            map.insert(other, a);
        }
        _ => drop(map.insert(one.clone(), replacement(random))),
    }
}

fn replacement(random: &mut Random) -> Value {
    match random.below(10) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1e308),
        5 => json!(""),
        6 => json!("A".repeat(random.below(16_384))),
        7 => json!([]),
        8 => json!({}),
        _ => json!({"sha256": {"0": "00".repeat(32)}, "sha1": {}}),
    }
}

/// The text, at times with what no `Value` holds: a key twice, or more depth than a parser should follow.
fn text(value: &Value, random: &mut Random) -> String {
    let text = value.to_string();
    match random.below(12) {
        0 => match (value.as_object().and_then(|map| map.iter().next()), text.strip_prefix('{')) {
            (Some((key, value)), Some(rest)) => format!("{{{}:{value},{rest}", json!(key)),
            _ => text,
        },
        1 => {
            let depth = random.below(4096);
            let open = if random.one_in(2) { "[" } else { "{\"a\":" };
            text.replacen(':', &format!(":{}", open.repeat(depth)), 1)
        }
        _ => text,
    }
}
