//! How a gateway describes a request in header fields of its own: by one of two conventions.

use http::HeaderMap;

use crate::flows::enforce::EnforceRefusal;

/// nginx, as [INTEGRATING.md](../../../../docs/INTEGRATING.md) has it configured: `X-Original-Method`, and in `X-Original-URL` the whole URL.
const ORIGINAL: [&str; 2] = ["x-original-method", "x-original-url"];
/// Caddy and Traefik, by themselves.
const FORWARDED: [&str; 4] =
    ["x-forwarded-method", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri"];

/// What a client asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forwarded<'a> {
    pub(super) method: &'a str,
    pub(super) scheme: &'a str,
    pub(super) host: &'a str,
    pub(super) target: &'a str,
}

impl<'a> Forwarded<'a> {
    /// Established when this returns: the description follows one convention alone, and says each thing once.
    pub(super) fn read(headers: &'a HeaderMap) -> Result<Self, EnforceRefusal> {
        let original = ORIGINAL.iter().any(|name| headers.contains_key(*name));
        let forwarded = [FORWARDED[0], FORWARDED[3]].iter().any(|name| headers.contains_key(*name));
        match (original, forwarded) {
            (true, true) => Err(EnforceRefusal::DescribedTwice),
            (false, false) => Err(EnforceRefusal::NotDescribed),
            (true, false) => {
                let [method, url] = each(headers, ORIGINAL)?;
                let (scheme, rest) = url.split_once("://").ok_or(EnforceRefusal::NotDescribed)?;
                let (host, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                Ok(Self { method, scheme, host, target })
            }
            (false, true) => {
                let [method, scheme, host, target] = each(headers, FORWARDED)?;
                Ok(Self { method, scheme, host, target })
            }
        }
    }
}

fn each<'a, const N: usize>(
    headers: &'a HeaderMap,
    names: [&str; N],
) -> Result<[&'a str; N], EnforceRefusal> {
    let mut found = [""; N];
    for (found, name) in found.iter_mut().zip(names) {
        let mut values = headers.get_all(name).iter();
        let value = values.next().ok_or(EnforceRefusal::NotDescribed)?;
        if values.next().is_some() {
            return Err(EnforceRefusal::DescribedTwice);
        }
        *found = value.to_str().map_err(|_| EnforceRefusal::NotDescribed)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn read(fields: &[(&'static str, &'static str)]) -> Result<[String; 4], EnforceRefusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let Forwarded { method, scheme, host, target } = Forwarded::read(&headers)?;
        Ok([method, scheme, host, target].map(str::to_owned))
    }

    const CADDY: [(&str, &str); 4] = [
        ("x-forwarded-method", "GET"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "db.example.org"),
        ("x-forwarded-uri", "/a?b=c"),
    ];
    const NGINX: [(&str, &str); 2] =
        [("x-original-method", "GET"), ("x-original-url", "https://db.example.org/a?b=c")];

    #[test]
    fn both_conventions_say_the_same() {
        let said = ["GET", "https", "db.example.org", "/a?b=c"].map(str::to_owned);
        assert_eq!(read(&CADDY), Ok(said.clone()));
        assert_eq!(read(&NGINX), Ok(said.clone()));
        // A proxy before nginx may say how it was reached; nginx's own word counts.
        let behind = [&NGINX[..], &[("x-forwarded-proto", "http"), ("x-forwarded-host", "evil")]].concat();
        assert_eq!(read(&behind), Ok(said));
        let bare = read(&[("x-original-method", "GET"), ("x-original-url", "https://h?x")]);
        assert_eq!(bare, Ok(["GET", "https", "h", "?x"].map(str::to_owned)), "to be refused as a target");
    }

    #[test]
    fn a_part_that_is_missing_or_said_twice_is_refused() {
        use EnforceRefusal::{DescribedTwice, NotDescribed};
        assert_eq!(read(&[]), Err(NotDescribed));
        assert_eq!(read(&[("x-forwarded-proto", "https")]), Err(NotDescribed));
        assert_eq!(read(&[NGINX[0], ("x-original-url", "/a")]), Err(NotDescribed), "no whole URL");
        for convention in [&CADDY[..], &NGINX[..]] {
            for index in 0..convention.len() {
                let mut fields = convention.to_vec();
                fields.push(convention[index]);
                assert_eq!(read(&fields), Err(DescribedTwice), "{fields:?}");
                fields.retain(|field| *field != convention[index]);
                assert_eq!(read(&fields), Err(NotDescribed), "{fields:?}");
            }
        }
        for smuggled in [CADDY[0], CADDY[3]] {
            assert_eq!(read(&[&NGINX[..], &[smuggled]].concat()), Err(DescribedTwice));
        }
        for smuggled in NGINX {
            assert_eq!(read(&[&CADDY[..], &[smuggled]].concat()), Err(DescribedTwice));
        }
    }
}
