//! The URL under which clients reach the verifier, as the operator says it.
//!
//! It goes into metadata that clients compare with where they asked, so that it is never made up of what a request claims
//! (its Host header, say).

use std::fmt;

use http::Uri;
use serde::Deserialize;

/// `https://host` or `https://host:port`, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl(String);

/// A text that is no public URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a public URL is https:// with a host and perhaps a port, and no path, query or user (https://verifier.example.org)"
)]
pub struct NotAPublicUrl;

impl TryFrom<String> for PublicUrl {
    type Error = NotAPublicUrl;

    fn try_from(text: String) -> Result<Self, NotAPublicUrl> {
        /// The longest host name (RFC 1035, 2.3.4), and a scheme and a port.
        const LONGEST: usize = 255 + "https://:65535".len();
        let text = text.strip_suffix('/').unwrap_or(&text);
        let host = text.strip_prefix("https://").ok_or(NotAPublicUrl)?;
        let plain = text.len() <= LONGEST && !host.contains(['/', '?', '#', '@']);
        let uri: Uri = text.parse().map_err(|_| NotAPublicUrl)?;
        match uri.host() {
            Some(host) if plain && !host.is_empty() => Ok(Self(text.to_owned())),
            Some(_) | None => Err(NotAPublicUrl),
        }
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_an_https_origin() {
        let parse = |text: &str| PublicUrl::try_from(text.to_owned()).map(|url| url.to_string());
        for good in ["https://pdp.example.org", "https://192.0.2.1:8443", "https://[2001:db8::1]:8443"] {
            assert_eq!(parse(good), Ok(good.to_owned()));
        }
        assert_eq!(parse("https://pdp.example.org/"), Ok("https://pdp.example.org".to_owned()));
        let long = format!("https://{}", "a".repeat(270));
        for bad in [
            "",
            "pdp.example.org",
            "http://pdp.example.org",
            "https://",
            "https:///",
            "https://pdp.example.org/tenant",
            "https://pdp.example.org?x",
            "https://pdp.example.org#x",
            "https://user@pdp.example.org",
            "https://pdp example",
            &long,
        ] {
            assert_eq!(parse(bad), Err(NotAPublicUrl), "{bad}");
        }
    }
}
