//! The body of a request: one JSON document, bounded in size, time and depth, of the endpoint's shape.

use std::time::Duration;

use axum::extract::Request;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::EdgeRefusal;

/// Reads a body.
///
/// Established when this returns, in this order: the content type is JSON · there is no content encoding · it has at
/// most `limit` bytes · it arrived within `within` · it is one JSON document (128 levels deep at most, by serde_json) of
/// this shape.
pub(super) async fn json<T: DeserializeOwned>(
    request: Request,
    limit: usize,
    within: Duration,
) -> Result<T, EdgeRefusal> {
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        return Err(EdgeRefusal::ContentType);
    }
    if parts.headers.contains_key(CONTENT_ENCODING) {
        return Err(EdgeRefusal::ContentEncoding);
    }
    if declared_length(&parts.headers).is_some_and(|length| length > limit) {
        return Err(EdgeRefusal::BodyTooLarge { limit });
    }
    let bytes = match tokio::time::timeout(within, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(EdgeRefusal::BodyTooLarge { limit }),
        Ok(Err(_)) => return Err(EdgeRefusal::BodyIncomplete),
        Err(_) => return Err(EdgeRefusal::BodyTooSlow),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| EdgeRefusal::MalformedBody { reason: printable(&error.to_string()) })
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What serde says may repeat a field name of the caller's: shortened, and without control characters.
fn printable(text: &str) -> String {
    /// The longest message about a document of ours.
    const LONGEST: usize = 200;
    text.chars().take(LONGEST).map(|character| if character.is_control() { '?' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::HeaderValue;

    #[test]
    fn only_one_json_content_type_will_do() {
        let judge = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            is_json(&headers)
        };
        for good in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(judge(&[good]), "{good}");
        }
        for bad in
            ["", "text/plain", "application/jsonx", "application/problem+json", "text/plain;application/json"]
        {
            assert!(!judge(&[bad]), "{bad}");
        }
        assert!(!judge(&[]));
        assert!(!judge(&["application/json", "text/plain"]));
    }

    #[test]
    fn what_is_said_of_a_body_is_short_and_printable() {
        assert_eq!(printable("unknown field `a\u{1b}[31m\n`"), "unknown field `a?[31m?`");
        assert_eq!(printable(&"x".repeat(1000)).len(), 200);
    }

    fn request(body: Body) -> Request {
        Request::builder().header(CONTENT_TYPE, "application/json").body(body).unwrap()
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let read = async |text: &'static str, limit| {
            json::<Vec<u8>>(request(Body::from(text)), limit, Duration::from_secs(60)).await
        };
        assert_eq!(read("[1,2,3]", 7).await, Ok(vec![1, 2, 3]));
        assert_eq!(read("[1,2,3]", 6).await, Err(EdgeRefusal::BodyTooLarge { limit: 6 }));
        assert!(matches!(read("[1] [2]", 100).await, Err(EdgeRefusal::MalformedBody { .. })));
        let chunks = Body::new(http_body_util::Full::from("[1,2,3]").map_err(|never| match never {}));
        let read = json::<Vec<u8>>(request(chunks), 6, Duration::from_secs(60)).await;
        assert_eq!(read, Err(EdgeRefusal::BodyTooLarge { limit: 6 }));
    }
}
