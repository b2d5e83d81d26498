//! The bytes that a certificate's signature covers.
//!
//! One JSON value has one canonical form: keys sorted by their bytes, no white
//! space, strings escaped as `serde_json` does, whole numbers only. Fractions are
//! refused, because two writers may print one fraction in two ways, and so are
//! repeated keys, because two readers may then read two different documents.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value that has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// A number with a fraction or an exponent.
    #[error("a certificate holds whole numbers only, found one with a fraction or an exponent")]
    Fraction,
    /// A text that JSON cannot hold; cannot happen for Rust strings.
    #[error("a text cannot be written as JSON")]
    Text(#[from] serde_json::Error),
}

/// The canonical bytes of `value`.
///
/// # Errors
/// When a number in it is not whole.
pub fn canonical_bytes(value: &Value) -> Result<Vec<u8>, CanonicalError> {
    let mut out = Vec::with_capacity(4096);
    write_value(value, &mut out)?;
    Ok(out)
}

fn write_value(value: &Value, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) if number.is_f64() => return Err(CanonicalError::Fraction),
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => serde_json::to_writer(out, text)?,
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(map) => write_map(map, out)?,
    }
    Ok(())
}

fn write_map(map: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by(|left, right| left.0.as_bytes().cmp(right.0.as_bytes()));
    out.push(b'{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, key)?;
        out.push(b':');
        write_value(value, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// Reads JSON and refuses an object that names one key twice.
///
/// # Errors
/// When the text is not JSON, is followed by more, or repeats a key.
pub fn parse_strict(json: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str::<Strict>(json).map(|strict| strict.0)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictSeed;

impl<'de> DeserializeSeed<'de> for StrictSeed {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
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
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(StrictSeed)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(StrictSeed)?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("an object names one key twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn key_order_and_white_space_do_not_matter() {
        let left = parse_strict(r#"{"b":[1,{"y":null,"x":true}],"a":"é\n"}"#).unwrap();
        let right = parse_strict("{ \"a\" : \"\\u00e9\\n\", \"b\":[1, {\"x\":true,\"y\":null}] }").unwrap();
        assert_eq!(canonical_bytes(&left).unwrap(), canonical_bytes(&right).unwrap());
        assert_eq!(canonical_bytes(&left).unwrap(), "{\"a\":\"é\\n\",\"b\":[1,{\"x\":true,\"y\":null}]}".as_bytes());
    }

    #[test]
    fn repeated_keys_and_fractions_are_refused() {
        assert!(parse_strict(r#"{"a":1,"a":1}"#).is_err());
        assert!(parse_strict(r#"[{"a":{"b":1,"b":2}}]"#).is_err());
        assert!(parse_strict("{} {}").is_err());
        let fraction = parse_strict(r#"{"rows":1.0}"#).unwrap();
        assert!(matches!(canonical_bytes(&fraction), Err(CanonicalError::Fraction)));
    }
}
