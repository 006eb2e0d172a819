//! The body of a request to an OAuth endpoint: `application/x-www-form-urlencoded`, read strictly (RFC 6749, appendix B).

use std::collections::BTreeMap;

use percent_encoding::percent_decode;

/// Parameters of one request: twice what any of ours has.
const MOST: usize = 32;

/// Why a body is no form. Each is `invalid_request` to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    /// Too many.
    #[error("the form has more than {MOST} parameters")]
    TooMany,
    /// `%` without two hex digits, or a byte that no form has.
    #[error("the form is not well encoded")]
    Encoding,
    /// Not UTF-8.
    #[error("the form is not UTF-8")]
    Utf8,
    /// One that may be there once is there twice (RFC 6749, 3.2).
    #[error("a parameter is there more than once")]
    Repeated,
    /// It has to be there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
}

/// The parameters of a request. Those without a value are as if they were not there (RFC 6749, 3.2).
#[derive(Debug, Default)]
pub(super) struct Form(BTreeMap<String, Vec<String>>);

impl Form {
    /// Reads a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, FormError> {
        let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if body.is_empty() {
            return Ok(Self::default());
        }
        for (position, pair) in body.split(|byte| *byte == b'&').enumerate() {
            if position >= MOST {
                return Err(FormError::TooMany);
            }
            let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
                Some(at) => pair.split_at(at),
                None => (pair, &b""[..]),
            };
            let (name, value) = (decode(name)?, decode(value.strip_prefix(b"=").unwrap_or(value))?);
            if !value.is_empty() {
                parameters.entry(name).or_default().push(value);
            }
        }
        Ok(Self(parameters))
    }

    /// A parameter that may be there once.
    pub(super) fn one(&mut self, name: &str) -> Result<Option<String>, FormError> {
        let mut values = self.0.remove(name).unwrap_or_default();
        match (values.pop(), values.len()) {
            (value, 0) => Ok(value),
            (_, _) => Err(FormError::Repeated),
        }
    }

    /// A parameter that is there once.
    pub(super) fn required(&mut self, name: &'static str) -> Result<String, FormError> {
        self.one(name)?.ok_or(FormError::Missing(name))
    }

    /// A parameter that may be there several times.
    pub(super) fn several(&mut self, name: &str) -> Vec<String> {
        self.0.remove(name).unwrap_or_default()
    }

    /// Nothing that is left may be there twice: what is not known is ignored (RFC 6749, 3.2), once.
    pub(super) fn end(self) -> Result<(), FormError> {
        if self.0.values().any(|values| values.len() > 1) { Err(FormError::Repeated) } else { Ok(()) }
    }
}

fn decode(text: &[u8]) -> Result<String, FormError> {
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'%' => match after {
                [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
                _ => return Err(FormError::Encoding),
            },
            byte if byte.is_ascii_graphic() => after,
            _ => return Err(FormError::Encoding),
        };
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8().map(|text| text.into_owned()).map_err(|_| FormError::Utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_those_without_a_value_are_not_there() {
        let mut form = Form::parse(b"a=b+c%2Bd%c3%a4&resource=x&resource=y&empty=&e=f=g").unwrap();
        assert_eq!(form.one("a").unwrap().as_deref(), Some("b c+d\u{e4}"));
        assert_eq!(form.several("resource"), ["x", "y"]);
        assert_eq!(form.one("empty").unwrap(), None);
        assert_eq!(form.required("empty"), Err(FormError::Missing("empty")));
        assert_eq!(form.one("e").unwrap().as_deref(), Some("f=g"));
        assert_eq!(form.end(), Ok(()));
        assert!(Form::parse(b"").is_ok());
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        for (body, error) in [
            (&b"a=%"[..], FormError::Encoding),
            (b"a=%4", FormError::Encoding),
            (b"a=%zz", FormError::Encoding),
            (b"a=b c", FormError::Encoding),
            (b"a=\xc3\xa4", FormError::Encoding),
            (b"a=%ff", FormError::Utf8),
            (&b"a=1&".repeat(MOST), FormError::TooMany),
        ] {
            assert_eq!(Form::parse(body).unwrap_err(), error, "{body:?}");
        }
        let twice = || Form::parse(b"a=1&b=2&a=1").unwrap();
        assert_eq!(twice().one("a"), Err(FormError::Repeated));
        assert_eq!(twice().end(), Err(FormError::Repeated), "also what is not known");
    }
}
