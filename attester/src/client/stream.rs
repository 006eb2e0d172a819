//! The control stream: server-sent events over a connection of its own, with the credential whose key is in the TPM.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use rootbound_common::wire::v1::ControlEvent;
use serde::Deserialize;
use tokio::task::yield_now;
use tokio::time::{Duration, Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::refusal::word;
use super::{RequestError, Stage};

/// The verifier says something each 25 s; a silence of this length is a connection that is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of one event. The longest that version 1 has is under 200.
const MAX_EVENT: usize = 4096;
/// Events, comments among them, that may come within [`PACE`], and as many frames. The verifier has a few to say in a
/// minute; what comes without pause is no message, and keeps this machine busy.
pub(super) const MAX_EVENTS: usize = 100;
/// The time that [`MAX_EVENTS`] is for.
pub(super) const PACE: Duration = Duration::from_secs(10);
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
    events: Pace,
    frames: Pace,
    _connection: AbortOnDropHandle<Result<(), hyper::Error>>,
}

impl ControlStream {
    pub(super) fn new(body: Incoming, connection: AbortOnDropHandle<Result<(), hyper::Error>>) -> Self {
        Self {
            body,
            parser: Parser::default(),
            events: Pace::default(),
            frames: Pace::default(),
            _connection: connection,
        }
    }

    /// What the verifier says next; nothing where the connection has ended. May be dropped before it is done: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Told>, RequestError> {
        loop {
            // Once for each event and each frame: what shares the task has its turn, whatever the verifier sends.
            yield_now().await;
            if let Some(event) = self.parser.next()? {
                self.events.note(Instant::now())?;
                if let Some(told) = told(event)? {
                    return Ok(Some(told));
                }
                continue;
            }
            let frame = timeout(SILENCE, self.body.frame())
                .await
                .map_err(|_| RequestError::Timeout { stage: Stage::Body })?;
            let Some(frame) = frame else { return Ok(None) };
            self.frames.note(Instant::now())?;
            if let Ok(data) = frame.map_err(RequestError::Http)?.into_data() {
                self.parser.push(&data)?;
            }
        }
    }
}

/// When the last of something came: no more than [`MAX_EVENTS`] within [`PACE`].
#[derive(Debug, Default)]
struct Pace(VecDeque<Instant>);

impl Pace {
    fn note(&mut self, now: Instant) -> Result<(), RequestError> {
        while self.0.front().is_some_and(|first| now.saturating_duration_since(*first) >= PACE) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        if self.0.len() > MAX_EVENTS { Err(RequestError::TooOften) } else { Ok(()) }
    }
}

/// Server-sent events (HTML, 9.2.6), as far as the verifier uses them. What version 1 does not have is skipped.
#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
    /// Where what has not been taken begins. What has been goes when more comes, in one piece.
    taken: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    codes: Vec<String>,
    code: String,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        if self.bytes.len().saturating_add(bytes.len()) > 4 * MAX_EVENT {
            return Err(RequestError::TooLarge);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next event that is there as a whole.
    fn next(&mut self) -> Result<Option<&[u8]>, RequestError> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") else {
            return if rest.len() > MAX_EVENT { Err(RequestError::TooLarge) } else { Ok(None) };
        };
        let length = end.saturating_add(2);
        self.taken = self.taken.saturating_add(length);
        Ok(rest.get(..length))
    }
}

/// What an event says; nothing where version 1 does not have it.
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
        let (mut parser, mut all) = (Parser::default(), Vec::new());
        for chunk in chunks {
            parser.push(chunk.as_bytes())?;
            while let Some(event) = parser.next()? {
                all.extend(told(event)?);
            }
        }
        Ok(all)
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

    #[test]
    fn as_many_events_as_are_too_many_at_once_may_come_over_a_longer_time() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..MAX_EVENTS {
            pace.note(start).unwrap();
        }
        let almost = start + PACE - Duration::from_millis(1);
        assert!(matches!(pace.note(almost), Err(RequestError::TooOften)));
        let (mut pace, step) = (Pace::default(), PACE / 100);
        for event in 0..1000 {
            pace.note(start + event * step).unwrap();
        }
    }
}
