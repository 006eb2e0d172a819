//! A verifier that may be killed at any moment, and how those who use it get over that.

use std::ops::AsyncFnMut;
use std::time::Duration;

use rootbound_attester::client::RequestError;
use rootbound_swtpm_tests::daemon::{LIMIT, VerifierSite};
use rootbound_verifier::cli::ClientError;
use rootbound_verifier::http::admin::message::{Command, Reply};
use tokio::sync::{Mutex, watch};

use crate::ledger::Ledger;

/// The verifier, and what was heard from it.
pub(crate) struct Site {
    pub(crate) verifier: VerifierSite,
    /// Locked while it is held against the database: what is heard meanwhile is written down after that.
    pub(crate) ledger: Mutex<Ledger>,
    /// Requests that were begun.
    pub(crate) requests: watch::Sender<usize>,
    /// How often the verifier has become ready.
    pub(crate) starts: watch::Sender<usize>,
}

/// What came back.
pub(crate) enum Heard<T> {
    /// An answer.
    Yes(T),
    /// A refusal, with its code.
    No(String),
    /// The verifier is alive and has no time, or its store has none: it may have been done or not.
    Later,
    /// Nothing: it may have been done or not.
    Nothing,
}

impl<T> From<Result<T, RequestError>> for Heard<T> {
    fn from(answer: Result<T, RequestError>) -> Self {
        use RequestError as Error;
        match answer {
            Ok(answer) => Self::Yes(answer),
            Err(Error::Refused(refusal)) if refusal.status == 503 => Self::Later,
            Err(Error::Timeout { .. }) => Self::Later,
            Err(Error::Refused(refusal)) => Self::No(refusal.code.as_str().to_owned()),
            Err(Error::Connect { .. } | Error::Handshake { .. } | Error::Http(_)) => Self::Nothing,
            Err(error) => panic!("neither an answer nor an outage: {error:?}"),
        }
    }
}

/// How often a busy verifier is asked again.
#[derive(Default)]
pub(crate) struct Patience {
    pauses: usize,
}

impl Patience {
    /// Gives the verifier some time.
    pub(crate) async fn pause(&mut self) {
        self.pauses += 1;
        assert!(self.pauses < 100, "the verifier is busy, and stays so");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl Site {
    pub(crate) fn new(verifier: VerifierSite) -> Self {
        let (requests, starts) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { verifier, ledger: Mutex::default(), requests, starts }
    }

    /// Says something as an operator until it is answered: to do it twice is to do it once.
    pub(crate) async fn operate(&self, verb: Command) -> Result<Reply, String> {
        self.insist(async || match self.verifier.ask(&verb).await {
            Ok(reply) => Heard::Yes(reply),
            Err(ClientError::Refused(problem)) if problem.status == 503 => Heard::Later,
            Err(ClientError::Refused(problem)) => Heard::No(problem.code),
            Err(ClientError::Unreachable { .. } | ClientError::Answer(_)) => Heard::Nothing,
        })
        .await
    }

    /// Asks until there is an answer: a verifier that was killed is waited for.
    pub(crate) async fn insist<T>(&self, mut ask: impl AsyncFnMut() -> Heard<T>) -> Result<T, String> {
        let mut patience = Patience::default();
        loop {
            let starts = self.begin_request();
            match ask().await {
                Heard::Yes(answer) => return Ok(answer),
                Heard::No(code) => return Err(code),
                Heard::Later => patience.pause().await,
                Heard::Nothing => self.outage(starts).await,
            }
        }
    }

    /// Counts a request; says how often the verifier had become ready before it.
    pub(crate) fn begin_request(&self) -> usize {
        let starts = *self.starts.borrow();
        self.requests.send_modify(|requests| *requests += 1);
        starts
    }

    /// Waits until the verifier has become ready once more.
    pub(crate) async fn outage(&self, starts: usize) {
        let mut started = self.starts.subscribe();
        let started = tokio::time::timeout(LIMIT, started.wait_for(|now| *now > starts)).await;
        assert!(started.is_ok(), "the verifier does not answer, and nobody has killed it");
    }
}
