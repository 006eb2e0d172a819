//! A request in the one form in which everybody who reads it finds the same host and path, or none.

use std::fmt;

use rootbound_common::text::only_shows;
use rootbound_token::target_uri::{TargetUri, TargetUriError};

/// Why a request is not looked up. Each has a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No method.
    #[error("the request's method is no word in upper case")]
    Method,
    /// Neither http nor https.
    #[error("the request's scheme is neither `http` nor `https`")]
    Scheme,
    /// No host, or several readings of one.
    #[error("the request's host is no host in its plain form")]
    Host,
    /// Not one path.
    #[error("the request's target is no path that begins with one slash, or has a character that no URI has")]
    Target,
    /// Readers differ in what it is.
    #[error("the request's path can be read in several ways: {0}")]
    Ambiguous(&'static str),
    /// Longer than any that is looked at.
    #[error("the request's target is longer than {} bytes", NormalRequest::MAX)]
    TooLong,
}

impl RequestError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Method => "target_method",
            Self::Scheme => "target_scheme",
            Self::Host => "target_host",
            Self::Target => "target_malformed",
            Self::Ambiguous(_) => "target_ambiguous",
            Self::TooLong => "target_too_long",
        }
    }
}

/// A method (RFC 9110, 9.1), which is of its case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Method(String);

impl Method {
    /// Letters.
    pub const MAX: usize = 20;

    pub(super) fn parse(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        fits.then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client asked for, as its gateway says. Only [`NormalRequest::read`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalRequest {
    method: Method,
    host: String,
    path: String,
    uri: TargetUri,
}

impl NormalRequest {
    /// Bytes of a target, its query counted.
    pub const MAX: usize = 8 * 1024;

    /// Reads what a gateway says of a request.
    ///
    /// Established when this returns, in this order: the method is a word in upper case · the scheme is one of two · the
    /// target is short, begins with one slash and has the characters of a URI · of its path there is one reading: no empty
    /// segment but the last, no dot segment, no `;`, no backslash, nothing percent-encoded that stands for a separator, a
    /// percent sign, a character that needs no encoding or one that does not show, and all of it UTF-8 · the host is one name or address,
    /// with its port where that is not the scheme's.
    pub fn read(method: &str, scheme: &str, host: &str, target: &str) -> Result<Self, RequestError> {
        let method = Method::parse(method).ok_or(RequestError::Method)?;
        if !matches!(scheme, "http" | "https") {
            return Err(RequestError::Scheme);
        }
        if target.len() > Self::MAX {
            return Err(RequestError::TooLong);
        }
        let (path, query) = target.split_once('?').map_or((target, ""), |(path, query)| (path, query));
        if !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(RequestError::Target);
        }
        let path = normal_path(path)?;
        let host = authority(scheme, host)?;
        let uri = TargetUri::parse(&format!("{scheme}://{host}{path}")).map_err(|error| match error {
            TargetUriError::TooLong => RequestError::TooLong,
            TargetUriError::Scheme => RequestError::Scheme,
            TargetUriError::UserInformation | TargetUriError::Host | TargetUriError::Port => {
                RequestError::Host
            }
            TargetUriError::Character => RequestError::Target,
        })?;
        Ok(Self { method, host, path, uri })
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The host, and its port where that is not the scheme's.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path, with percent-encodings in upper case.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The whole, as DPoP proofs name it.
    #[must_use]
    pub fn uri(&self) -> &TargetUri {
        &self.uri
    }
}

/// Host and port in their normal form, as a `Host` field has them.
pub(super) fn authority(scheme: &str, host: &str) -> Result<String, RequestError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if host.is_empty() || host.len() > 300 || !host.bytes().all(plain) {
        return Err(RequestError::Host);
    }
    let uri = TargetUri::parse(&format!("{scheme}://{host}/")).map_err(|_| RequestError::Host)?;
    let rest = uri.as_str().split_once("://").map(|(_, rest)| rest).unwrap_or_default();
    Ok(rest.trim_end_matches('/').to_owned())
}

/// What stands in a segment as it is: the characters of a path (RFC 3986, 3.3) but `;`, at which some readers cut.
pub(super) fn is_plain(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte))
}

fn normal_path(path: &str) -> Result<String, RequestError> {
    use RequestError::Ambiguous;
    let segments = path.strip_prefix('/').ok_or(RequestError::Target)?;
    let mut normal = String::with_capacity(path.len());
    let mut segments = segments.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(Ambiguous("an empty segment"));
        }
        if matches!(segment, "." | "..") {
            return Err(Ambiguous("a dot segment"));
        }
        if segment.contains(';') {
            return Err(Ambiguous("a semicolon"));
        }
        if segment.contains('\\') {
            return Err(Ambiguous("a backslash"));
        }
        normal.push('/');
        let mut parts = segment.split('%');
        let first = parts.next().unwrap_or_default();
        if !is_plain(first) {
            return Err(RequestError::Target);
        }
        normal.push_str(first);
        let mut encoded = false;
        for part in parts {
            encoded = true;
            let (digits, rest) = part.split_at_checked(2).ok_or(RequestError::Target)?;
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) || !is_plain(rest) {
                return Err(RequestError::Target);
            }
            let byte = u8::from_str_radix(digits, 16).map_err(|_| RequestError::Target)?;
            match byte {
                b'/' | b'\\' | b';' | b'?' | b'#' => return Err(Ambiguous("an encoded separator")),
                b'%' => return Err(Ambiguous("an encoded percent sign")),
                byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                    return Err(Ambiguous("an encoding of a character that needs none"));
                }
                byte if byte.is_ascii_control() => return Err(Ambiguous("an encoded control character")),
                _ => {}
            }
            normal.push('%');
            normal.push_str(&digits.to_ascii_uppercase());
            normal.push_str(rest);
        }
        if encoded && decoded(segment).is_none() {
            return Err(Ambiguous("an encoding that is no UTF-8, or does not show"));
        }
    }
    Ok(normal)
}

/// The characters of a path, or of a part of it.
pub(super) fn decoded(text: &str) -> Option<String> {
    let text = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
    text.chars().all(only_shows).then(|| text.into_owned())
}
