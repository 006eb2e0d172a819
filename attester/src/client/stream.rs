//! The control stream: server-sent events over a connection of its own, with the credential whose key is in the TPM.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use rootbound_common::wire::v1::ControlEvent;
use serde::Deserialize;
use tokio::time::{Duration, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::refusal::word;
use super::{RequestError, Stage};

/// The verifier says something each 25 s; a silence of this length is a connection that is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of one event. The longest that version 1 has is under 200.
const MAX_EVENT: usize = 4096;
/// Codes that are taken from one event.
const MAX_CODES: usize = 8;

/// What the verifier says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Attest now.
    Attest,
    /// Ask for another certificate.
    Renew,
    /// The machine is blocked, or its standing lowered, by these codes.
    Blocked(Vec<String>),
    /// Nothing blocks it.
    Released,
    /// The stream ends, for this code.
    End(String),
}

/// A stream that is held.
#[derive(Debug)]
pub struct ControlStream {
    body: Incoming,
    parser: Parser,
    _connection: AbortOnDropHandle<Result<(), hyper::Error>>,
}

impl ControlStream {
    pub(super) fn new(body: Incoming, connection: AbortOnDropHandle<Result<(), hyper::Error>>) -> Self {
        Self { body, parser: Parser::default(), _connection: connection }
    }

    /// What the verifier says next; nothing where the connection has ended.
    pub async fn next(&mut self) -> Result<Option<Told>, RequestError> {
        loop {
            if let Some(told) = self.parser.next()? {
                return Ok(Some(told));
            }
            let frame = timeout(SILENCE, self.body.frame())
                .await
                .map_err(|_| RequestError::Timeout { stage: Stage::Body })?;
            match frame {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(RequestError::Http)?.into_data() {
                        self.parser.push(&data)?;
                    }
                }
            }
        }
    }
}

/// Server-sent events (HTML, 9.2.6), as far as the verifier uses them. What version 1 does not have is skipped.
#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    codes: Vec<String>,
    code: String,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        if self.bytes.len().saturating_add(bytes.len()) > 4 * MAX_EVENT {
            return Err(RequestError::TooLarge);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next event that is there as a whole.
    fn next(&mut self) -> Result<Option<Told>, RequestError> {
        loop {
            let end = self.bytes.windows(2).position(|pair| pair == b"\n\n");
            let Some(end) = end else {
                return if self.bytes.len() > MAX_EVENT { Err(RequestError::TooLarge) } else { Ok(None) };
            };
            let event: Vec<u8> = self.bytes.drain(..end.saturating_add(2)).collect();
            if let Some(told) = told(&event)? {
                return Ok(Some(told));
            }
        }
    }
}

fn told(event: &[u8]) -> Result<Option<Told>, RequestError> {
    let text = String::from_utf8_lossy(event);
    let (mut name, mut data) = ("", String::new());
    for line in text.lines() {
        if let Some(value) = line.strip_prefix("event:") {
            name = value.trim();
        } else if let Some(value) = line.strip_prefix("data:") {
            data.push_str(value.trim());
        }
    }
    let Some(event) = ControlEvent::ALL.into_iter().find(|event| event.as_str() == name) else {
        return Ok(None);
    };
    let shape = |error: serde_json::Error| RequestError::Shape { line: error.line(), column: error.column() };
    let data: Data = serde_json::from_str(&data).map_err(shape)?;
    Ok(Some(match event {
        ControlEvent::Attest => Told::Attest,
        ControlEvent::Renew => Told::Renew,
        ControlEvent::Blocked => Told::Blocked(words(&data.codes)),
        ControlEvent::Released => Told::Released,
        ControlEvent::End => Told::End(word(&data.code)),
    }))
}

/// Codes of the verifier, fit for a log.
pub(crate) fn words(codes: &[String]) -> Vec<String> {
    codes.iter().take(MAX_CODES).map(|code| word(code)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&str]) -> Result<Vec<Told>, RequestError> {
        let (mut parser, mut told) = (Parser::default(), Vec::new());
        for chunk in chunks {
            parser.push(chunk.as_bytes())?;
            while let Some(next) = parser.next()? {
                told.push(next);
            }
        }
        Ok(told)
    }

    #[test]
    fn events_are_read_in_whatever_pieces_they_come() {
        let stream = ": held\n\nevent: released\ndata: {}\n\n: keep-alive\n\nevent: blocked\ndata: {\"codes\":\
                      [\"node_blocked\"]}\n\nevent: attest\ndata: {}\n\nevent: news\ndata: ?\n\n\
                      event: renew\ndata: {\"more\":1}\n\nevent: end\ndata: {\"code\":\"node_retired\"}\n\n";
        let expected = vec![
            Told::Released,
            Told::Blocked(vec!["node_blocked".to_owned()]),
            Told::Attest,
            Told::Renew,
            Told::End("node_retired".to_owned()),
        ];
        assert_eq!(all(&[stream]).unwrap(), expected);
        let bytes: Vec<_> = stream.split("").collect();
        assert_eq!(all(&bytes).unwrap(), expected);
    }

    #[test]
    fn what_is_no_event_ends_the_stream_or_is_made_harmless() {
        assert!(matches!(all(&["event: attest\ndata: [\n\n"]), Err(RequestError::Shape { .. })));
        assert!(matches!(all(&[&"x".repeat(5000)]), Err(RequestError::TooLarge)));
        assert!(matches!(all(&[&"x".repeat(20_000)]), Err(RequestError::TooLarge)));
        let forged = "event: blocked\ndata: {\"codes\":[\"a\\nINFO all is well\"]}\n\n";
        assert_eq!(all(&[forged]).unwrap(), [Told::Blocked(vec!["unreadable".to_owned()])]);
    }
}
