//! `status`: how the last attestation went, from the state on disk.

use rootbound_common::clock::{Clock, SystemClock};
use rootbound_common::id::{NodeId, SpiffeId};
use rootbound_common::wire::v1::PostureReport;
use serde::Serialize;

use super::{Failure, Output, json, line};
use crate::client::printable;
use crate::config::Config;
use crate::control::Channel;
use crate::keep::{Outcome, View};

#[derive(Debug, Default, Serialize)]
struct Answer {
    /// Absent before the first attempt to enrol.
    node: Option<NodeId>,
    /// Absent until the machine is enrolled.
    spiffe_id: Option<SpiffeId>,
    enrolled_at: Option<String>,
    credential: Option<CredentialAnswer>,
    last_attempt: Option<AttemptAnswer>,
    posture: Option<PostureReport>,
    posture_stated_at: Option<String>,
    /// Absent before the daemon has run.
    control: Option<ControlAnswer>,
    /// Absent where the last credential that was asked for was issued.
    credential_refused: Option<RefusalAnswer>,
}

#[derive(Debug, Serialize)]
struct ControlAnswer {
    since: String,
    channel: Channel,
    /// Absent where the verifier does not say no.
    code: Option<String>,
    blocked: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RefusalAnswer {
    at: String,
    code: String,
    detail: String,
}

#[derive(Debug, Serialize)]
struct CredentialAnswer {
    not_after: String,
    renew_at: String,
    expired: bool,
}

#[derive(Debug, Serialize)]
struct AttemptAnswer {
    at: String,
    #[serde(flatten)]
    outcome: Outcome,
}

pub(super) fn status(config: &Config, output: Output) -> Result<String, Failure> {
    let view = View::open(&config.state.directory)?;
    let mut answer = Answer::default();
    if let Some(identity) = view.identity()? {
        answer.node = Some(identity.node);
        answer.enrolled_at = identity.enrolled.as_ref().map(|enrolled| enrolled.at.to_string());
        answer.spiffe_id = identity.enrolled.map(|enrolled| enrolled.spiffe_id);
    }
    answer.credential = view.credential()?.map(|credential| CredentialAnswer {
        not_after: credential.not_after.to_string(),
        renew_at: credential.renew_at.to_string(),
        expired: SystemClock.now() >= credential.not_after,
    });
    answer.control = view.control()?.map(|control| ControlAnswer {
        since: control.at.to_string(),
        channel: control.channel,
        code: control.code,
        blocked: control.blocked,
    });
    if let Some(status) = view.status()? {
        answer.last_attempt = Some(AttemptAnswer { at: status.at.to_string(), outcome: status.last });
        answer.credential_refused = status.credential_refused.map(|refusal| RefusalAnswer {
            at: refusal.at.to_string(),
            code: refusal.code,
            detail: refusal.detail,
        });
        answer.posture_stated_at = status.posture.as_ref().map(|posture| posture.at.to_string());
        answer.posture = status.posture.map(|posture| posture.report);
    }
    match output {
        Output::Json => json(&answer),
        Output::Text => Ok(text(&answer)),
    }
}

fn text(answer: &Answer) -> String {
    let mut text = String::new();
    line(&mut text, "node", Some(answer.node.map_or("none yet".to_owned(), |node| node.to_string())));
    line(&mut text, "SPIFFE ID", Some(answer.spiffe_id.as_ref().map_or("not enrolled", SpiffeId::as_str)));
    line(&mut text, "enrolled", answer.enrolled_at.as_ref());
    match &answer.credential {
        Some(credential) if credential.expired => {
            line(&mut text, "credential", Some(format!("expired at {}", credential.not_after)));
        }
        Some(CredentialAnswer { not_after, renew_at, .. }) => {
            line(&mut text, "credential", Some(format!("until {not_after}, to be renewed at {renew_at}")));
        }
        None => line(&mut text, "credential", Some("none")),
    }
    if let Some(RefusalAnswer { at, code, detail }) = &answer.credential_refused {
        line(&mut text, "renewal", Some(format!("refused at {at}: {code}: {detail}")));
    }
    if let Some(AttemptAnswer { at, outcome }) = &answer.last_attempt {
        let words = match outcome {
            Outcome::Attested => "attested".to_owned(),
            Outcome::CannotAttest { reason } => format!("cannot attest: {reason}"),
            Outcome::Unreachable { reason } => format!("the verifier does not answer: {reason}"),
            Outcome::Refused { code, detail } => format!("refused: {code}: {detail}"),
            Outcome::Failed { reason } => format!("failed: {reason}"),
        };
        line(&mut text, "last attempt", Some(format!("{at} {words}")));
    }
    if let Some(ControlAnswer { since, channel, code, blocked }) = &answer.control {
        let code = code.as_ref().map(|code| format!(": {}", printable(code))).unwrap_or_default();
        line(&mut text, "control", Some(format!("{}{code} (since {since})", channel.as_str())));
        for code in blocked {
            line(&mut text, "blocked", Some(printable(code)));
        }
    }
    if let (Some(posture), Some(at)) = (&answer.posture, &answer.posture_stated_at) {
        line(&mut text, "posture", Some(format!("{} (stated at {at})", posture.status)));
        for deviation in &posture.deviations {
            line(&mut text, "deviation", Some(printable(&deviation.detail)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_is_told_with_the_code_of_a_refusal() {
        for (channel, code, expected) in [
            (
                Channel::Refused,
                Some("node_retired"),
                "not held; refused by the verifier: node_retired (since now)",
            ),
            (Channel::Stopped, None, "not held; the attester has stopped (since now)"),
        ] {
            let code = code.map(str::to_owned);
            let control = ControlAnswer { since: "now".to_owned(), channel, code, blocked: Vec::new() };
            let text = text(&Answer { control: Some(control), ..Answer::default() });
            assert!(text.contains(expected), "{text}");
        }
    }
}
