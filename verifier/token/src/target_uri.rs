//! The target URI of a request, so that two texts of one are equal: `htu` of a DPoP proof and where the request arrived.
//!
//! Normalised as RFC 9449, 4.3 asks: by syntax (RFC 3986, 6.2.2) and by scheme (6.2.3). The library for URLs that browsers
//! agree on (WHATWG) does not fit: it reads `\` as `/`, `0x7f.1` as an address, drops tabs and newlines, and leaves `%7E` and `%2f`
//! as they are, so that it takes for equal what RFC 3986 does not, and the other way. Here what is no URI is refused.

use std::fmt;
use std::net::Ipv6Addr;

/// Why a text is no target URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetUriError {
    /// Too long.
    #[error("a target URI has at most {} bytes", TargetUri::MAX)]
    TooLong,
    /// Neither http nor https, or no authority.
    #[error("a target URI begins with http:// or https://")]
    Scheme,
    /// A user, or what could be taken for one.
    #[error("a target URI has no user information")]
    UserInformation,
    /// No host that is a name or an address.
    #[error(
        "a target URI has a host of letters, digits, `.`, `-`, `_` and `~`, or an IPv6 address in brackets"
    )]
    Host,
    /// No port.
    #[error("a target URI's port is a number up to 65535")]
    Port,
    /// A character that no URI has, or a percent sign without two hex digits.
    #[error("a target URI has no such character, or a percent sign without two hex digits")]
    Character,
}

impl TargetUriError {
    /// A stable name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "uri_too_long",
            Self::Scheme => "uri_scheme_refused",
            Self::UserInformation => "uri_with_user_information",
            Self::Host => "uri_host_invalid",
            Self::Port => "uri_port_invalid",
            Self::Character => "uri_character_invalid",
        }
    }
}

/// Scheme, host, port where it is not the scheme's, and path, normalised; without query and fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetUri(String);

impl TargetUri {
    /// Half of what a proof may have.
    pub const MAX: usize = 2048;

    /// Reads and normalises a URI.
    ///
    /// Established when this returns: it is an absolute `http` or `https` URI (RFC 3986, 3) without user information.
    /// Scheme and host are in lower case, percent-encodings in upper case and gone where their character needs none
    /// (6.2.2), dot segments are resolved after that (6.2.2.3), the scheme's own port is left out, and an empty path is `/`
    /// (6.2.3). Query and fragment are left out.
    pub fn parse(text: &str) -> Result<Self, TargetUriError> {
        if text.len() > Self::MAX {
            return Err(TargetUriError::TooLong);
        }
        let (scheme, rest) = text.split_once("://").ok_or(TargetUriError::Scheme)?;
        let (scheme, default_port) = if scheme.eq_ignore_ascii_case("https") {
            ("https", 443)
        } else if scheme.eq_ignore_ascii_case("http") {
            ("http", 80)
        } else {
            return Err(TargetUriError::Scheme);
        };
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(authority_end);
        let (path, beyond) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(TargetUriError::UserInformation);
        }
        let (host, port) = host_and_port(authority)?;
        let path = resolved(&normalised(path)?);
        if !beyond.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TargetUriError::Character);
        }
        Ok(Self(match port {
            Some(port) if port != default_port => format!("{scheme}://{host}:{port}{path}"),
            Some(_) | None => format!("{scheme}://{host}{path}"),
        }))
    }

    /// The normalised text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), TargetUriError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(TargetUriError::Host)?;
        let address: Ipv6Addr = address.parse().map_err(|_| TargetUriError::Host)?;
        (format!("[{address}]"), port)
    } else {
        let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        // A name in percent-encoding would be another text for one host.
        if host.is_empty() || !host.bytes().all(is_unreserved) {
            return Err(TargetUriError::Host);
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return Err(TargetUriError::Host),
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| TargetUriError::Port)?)
        }
        Some(_) => return Err(TargetUriError::Port),
    };
    Ok((host, port))
}

/// A path with each percent-encoding in its one form.
fn normalised(path: &str) -> Result<String, TargetUriError> {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            // pchar and the slash (3.3).
            if !is_unreserved(byte) && !b"!$&'()*+,;=:@/".contains(&byte) {
                return Err(TargetUriError::Character);
            }
            out.push(char::from(byte));
            continue;
        }
        let mut digit = || bytes.next().map(char::from).and_then(|digit| digit.to_digit(16));
        let value = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match value.ok_or(TargetUriError::Character)? {
            value if is_unreserved(value) => out.push(char::from(value)),
            value => out.push_str(&format!("%{value:02X}")),
        }
    }
    Ok(out)
}

/// Without `.` and `..` (5.2.4), and with a slash at least.
fn resolved(path: &str) -> String {
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut kept = Vec::new();
    let mut ends_in_folder = false;
    for segment in segments {
        ends_in_folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    if ends_in_folder {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<String, TargetUriError> {
        TargetUri::parse(text).map(|uri| uri.to_string())
    }

    #[test]
    fn texts_of_one_uri_are_equal() {
        for (text, expected) in [
            ("https://as.example.org/token", "https://as.example.org/token"),
            ("HTTPS://AS.Example.ORG/token", "https://as.example.org/token"),
            ("https://as.example.org:443/token", "https://as.example.org/token"),
            ("https://as.example.org:/token", "https://as.example.org/token"),
            ("https://as.example.org:0443/token", "https://as.example.org/token"),
            ("http://as.example.org:80", "http://as.example.org/"),
            ("http://as.example.org:443/", "http://as.example.org:443/"),
            ("https://as.example.org:80/", "https://as.example.org:80/"),
            ("https://as.example.org", "https://as.example.org/"),
            ("https://as.example.org?a=/../b", "https://as.example.org/"),
            ("https://as.example.org/token?a=b#c", "https://as.example.org/token"),
            ("https://as.example.org/token#c?d", "https://as.example.org/token"),
            ("https://as.example.org/%7euser/%41", "https://as.example.org/~user/A"),
            ("https://as.example.org/a%2fb%c3%a4", "https://as.example.org/a%2Fb%C3%A4"),
            ("https://as.example.org/a%252e%252e/b", "https://as.example.org/a%252e%252e/b"),
            ("https://[2001:DB8:0:0::1]:443/x", "https://[2001:db8::1]/x"),
            ("https://192.0.2.1:8443/x", "https://192.0.2.1:8443/x"),
            ("https://h/a;b=c,d:e@f", "https://h/a;b=c,d:e@f"),
            // RFC 3986, 5.2.4 and 5.4.
            ("https://h/a/b/c/./../../g", "https://h/a/g"),
            ("https://h/b/c/d;p/../../../g", "https://h/g"),
            ("https://h/../../g", "https://h/g"),
            ("https://h/b/c/..", "https://h/b/"),
            ("https://h/b/c/.", "https://h/b/c/"),
            ("https://h/b/%2E%2e/g", "https://h/g"),
            ("https://h/..g/g../...", "https://h/..g/g../..."),
            ("https://h//a///b", "https://h//a///b"),
            ("https://h/a//../b", "https://h/a/b"),
            ("https://h/..", "https://h/"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn uris_that_differ_stay_different() {
        let one = parse("https://as.example.org/token").unwrap();
        for other in [
            "http://as.example.org/token",
            "https://as.example.org:8443/token",
            "https://as.example.org./token",
            "https://as.example.org.evil/token",
            "https://as.example.org/token/",
            "https://as.example.org/Token",
            "https://as.example.org//token",
            "https://as.example.org/token%2F",
            "https://as.example.org/token%00",
            "https://as.example.org/x/token",
        ] {
            assert_ne!(parse(other).unwrap(), one, "{other}");
        }
    }

    #[test]
    fn what_is_no_uri_or_of_somebody_is_refused() {
        use TargetUriError::{Character, Host, Port, Scheme, TooLong, UserInformation};
        let long = format!("https://h/{}", "a".repeat(TargetUri::MAX));
        let cases = [
            ("", Scheme),
            ("/token", Scheme),
            ("//as.example.org/token", Scheme),
            ("ftp://as.example.org/token", Scheme),
            ("https:/as.example.org/token", Scheme),
            (" https://as.example.org/token", Scheme),
            ("https://user@as.example.org/", UserInformation),
            ("https://as.example.org:443@evil.example/", UserInformation),
            ("https:///token", Host),
            ("https://:443/token", Host),
            ("https://as.example.org\\.evil/", Host),
            ("https://as%2eexample.org/", Host),
            ("https://bücher.example/", Host),
            ("https://as.example.org\t/", Host),
            ("https://[::1/", Host),
            ("https://[::1]x/", Host),
            ("https://[fe80::1%25eth0]/", Host),
            ("https://[as.example.org]/", Host),
            ("https://h:x/", Port),
            ("https://h:+1/", Port),
            ("https://h:65536/", Port),
            ("https://h:1:2/", Port),
            ("https://h/a b", Character),
            ("https://h/a\\b", Character),
            ("https://h/ä", Character),
            ("https://h/%", Character),
            ("https://h/%2", Character),
            ("https://h/%zz", Character),
            ("https://h/%+1", Character),
            ("https://h/a\n", Character),
            ("https://h/a?b c", Character),
            ("https://h/a#\u{0}", Character),
            ("https://h/[a]", Character),
            (&long, TooLong),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
        let codes: std::collections::BTreeSet<_> = cases.iter().map(|(_, error)| error.code()).collect();
        assert_eq!(codes.len(), 6, "a code for each");
    }

    proptest! {
        #[test]
        fn what_is_normal_stays_as_it_is(text in "https?://[a-zA-Z0-9.-]{1,9}(:[0-9]{0,4})?(/(\\.|\\.\\.|%2[eEfF]|%7[eE]|%[0-9a-f]{2}|[a-zA-Z~:@.]{0,3})){0,6}(\\?[a-z./]{0,4})?") {
            let once = parse(&text);
            prop_assert!(once.is_ok(), "{}", text);
            let once = once.unwrap();
            prop_assert_eq!(parse(&once), Ok(once.clone()));
            let segments: Vec<_> = once.split('/').skip(3).collect();
            prop_assert!(!segments.iter().any(|segment| matches!(*segment, "." | "..")), "{}", once);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", path in "[/.%0-9a-zA-Z\\\\@:?#ä]{0,40}") {
            for text in [text, format!("https://{path}"), format!("https://h/{path}")] {
                if let Ok(once) = parse(&text) {
                    prop_assert_eq!(parse(&once), Ok(once.clone()));
                }
            }
        }
    }
}
