//! Where the verifier is.

use std::fmt;

use http::{HeaderValue, Uri};
use rustls_pki_types::ServerName;
use serde::Deserialize;

/// `https://host[:port]`: the scheme is fixed, and there is no path, query or user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct VerifierUrl {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    host_header: HeaderValue,
}

/// Why a text is not the address of a verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL.
    #[error("not a URL: expected https://host[:port]")]
    Syntax,
    /// Not `https`: evidence and credentials do not travel in the clear.
    #[error("the scheme must be https")]
    Scheme,
    /// More than a host and a port.
    #[error("a user, a path or a query is not allowed: expected https://host[:port]")]
    Extra,
    /// The host can be in no certificate.
    #[error("the host is neither a DNS name nor an IP address")]
    Host,
}

impl VerifierUrl {
    const DEFAULT_PORT: u16 = 443;

    /// The host, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The name that the verifier's certificate must be for.
    #[must_use]
    pub fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// The value of the `Host` header.
    #[must_use]
    pub fn host_header(&self) -> HeaderValue {
        self.host_header.clone()
    }

    fn authority(host: &str, port: u16) -> String {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        if port == Self::DEFAULT_PORT { host } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for VerifierUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", Self::authority(&self.host, self.port))
    }
}

impl TryFrom<String> for VerifierUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError::Syntax)?;
        if uri.scheme_str() != Some("https") {
            return Err(if uri.scheme().is_some() { UrlError::Scheme } else { UrlError::Syntax });
        }
        let authority = uri.authority().ok_or(UrlError::Syntax)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if !bare || authority.as_str().contains('@') || text.contains('#') {
            return Err(UrlError::Extra);
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| UrlError::Syntax)?,
            None if authority.as_str() != authority.host() => return Err(UrlError::Syntax),
            None => Self::DEFAULT_PORT,
        };
        if port == 0 {
            return Err(UrlError::Syntax);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let server_name = ServerName::try_from(host.clone()).map_err(|_| UrlError::Host)?;
        let host_header =
            HeaderValue::try_from(Self::authority(&host, port)).map_err(|_| UrlError::Syntax)?;
        Ok(Self { host, port, server_name, host_header })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_read_from_the_url() {
        for (text, host, port, authority) in [
            ("https://verifier.example.org", "verifier.example.org", 443, "verifier.example.org"),
            ("https://verifier.example.org/", "verifier.example.org", 443, "verifier.example.org"),
            ("https://127.0.0.1:8443", "127.0.0.1", 8443, "127.0.0.1:8443"),
            ("https://[::1]:8443", "::1", 8443, "[::1]:8443"),
        ] {
            let url = VerifierUrl::try_from(text.to_owned()).unwrap();
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
            assert_eq!(url.host_header(), authority, "{text}");
        }
    }

    #[test]
    fn anything_but_https_to_a_bare_host_is_refused() {
        for (text, expected) in [
            ("http://verifier", UrlError::Scheme),
            ("ftp://verifier", UrlError::Scheme),
            ("verifier:443", UrlError::Syntax),
            ("verifier", UrlError::Syntax),
            ("", UrlError::Syntax),
            ("https://", UrlError::Syntax),
            ("https://verifier:0", UrlError::Syntax),
            ("https://verifier:99999", UrlError::Syntax),
            ("https://verifier:", UrlError::Syntax),
            ("https://user@verifier", UrlError::Extra),
            ("https://verifier/v1", UrlError::Extra),
            ("https://verifier/?a=b", UrlError::Extra),
            ("https://verifier/#top", UrlError::Extra),
            ("https://-verifier-.example", UrlError::Host),
        ] {
            assert_eq!(VerifierUrl::try_from(text.to_owned()), Err(expected), "{text}");
        }
    }
}
