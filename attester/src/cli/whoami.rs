//! `whoami`: uses the credential, and prints who the verifier takes us for.

use rootbound_common::wire::v1::WhoamiResponse;

use super::{Failure, Output, beside_the_daemon, json, line, runtime};
use crate::client::{Client, ClientIdentity, printable};
use crate::config::Config;
use crate::keep::View;
use crate::tpm::Tpm;

pub(super) fn whoami(config: Config, output: Output) -> Result<String, Failure> {
    let credential = View::open(&config.state.directory)?.credential()?;
    let credential = credential.ok_or_else(|| Failure::Failed("there is no credential yet".to_owned()))?;
    let client = Client::new(config.verifier)?;
    let tpm = Tpm::spawn(beside_the_daemon(config.tpm))?;
    let ending = tpm.ending();
    let identity = ClientIdentity::new(tpm, &credential)?;
    // On a task of its own, so that the signature blocks a worker and not the thread that drives it.
    let answer =
        runtime()?.block_on(async { tokio::spawn(async move { client.whoami(identity).await }).await });
    if !ending.wait(super::TPM_ENDS) {
        super::warn(super::TPM_AT_WORK);
    }
    let answer = answer.map_err(|error| Failure::Failed(error.to_string()))??;
    match output {
        Output::Json => json(&answer),
        Output::Text => Ok(text(&answer)),
    }
}

fn text(answer: &WhoamiResponse) -> String {
    let mut text = String::new();
    line(&mut text, "node", Some(&answer.node));
    line(&mut text, "SPIFFE ID", Some(&answer.spiffe_id));
    line(&mut text, "serial", Some(printable(&answer.serial)));
    line(&mut text, "not after", Some(answer.not_after));
    line(&mut text, "its epoch", answer.certificate_epoch);
    line(&mut text, "epoch now", Some(answer.epoch));
    line(&mut text, "posture", Some(answer.posture.status));
    for deviation in &answer.posture.deviations {
        line(&mut text, "deviation", Some(printable(&deviation.detail)));
    }
    let labels: Vec<_> =
        answer.labels.iter().map(|(key, value)| format!("{}={}", printable(key), printable(value))).collect();
    line(&mut text, "labels", (!labels.is_empty()).then(|| labels.join(" ")));
    text
}
