//! `identify`: which machine this is.

use der::Decode;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use serde::Serialize;
use x509_cert::Certificate;

use super::{Failure, Output, beside_the_daemon, json, line, runtime};
use crate::client::printable;
use crate::config::Config;
use crate::enroll::{EkChoice, Endorsement};
use crate::keep::View;
use crate::tpm::{EkKind, Tpm};

#[derive(Debug, Serialize)]
struct Answer {
    /// Hash of the EK, which is the machine's id.
    ek_hash: NodeId,
    ek_kind: EkKind,
    /// Absent where the TPM holds none.
    ek_certificate: Option<EkCertificate>,
    /// Absent until the attester has made one, and where the state is not ours to read.
    ak_name: Option<String>,
    tpm_manufacturer: String,
    tpm_model: String,
    tpm_firmware: String,
    tpm_specification: String,
    active_pcr_banks: Vec<HashAlgorithm>,
}

#[derive(Debug, Serialize)]
struct EkCertificate {
    issuer: String,
    not_after: String,
}

/// Without a configuration: of the TPM in its usual place.
pub(super) fn identify(config: Option<Config>, output: Output) -> Result<String, Failure> {
    let (tpm, choice, state) = match config {
        Some(config) => (config.tpm, config.enrollment.ek, Some(config.state)),
        None => (crate::tpm::TctiConfig::default(), EkChoice::default(), None),
    };
    let tpm = Tpm::spawn(beside_the_daemon(tpm))?;
    let ending = tpm.ending();
    let answer = runtime()?.block_on(async {
        let endorsement = Endorsement::read(&tpm, choice).await?;
        let about = tpm.identify().await?;
        let kept = state.and_then(|state| View::open(&state.directory).ok()?.identity().ok()?);
        let ours = kept.filter(|identity| identity.node == endorsement.node());
        let ak = ours.and_then(|identity| identity.attestation_key.to_attestation_key().ok());
        Ok::<_, Failure>(Answer {
            ek_hash: endorsement.node(),
            ek_kind: endorsement.key().kind,
            ek_certificate: endorsement.key().certificate.as_deref().and_then(describe),
            ak_name: ak.map(|ak| ak.name().to_string()),
            tpm_manufacturer: about.manufacturer,
            tpm_model: about.model,
            tpm_firmware: about.firmware,
            tpm_specification: about.specification,
            active_pcr_banks: about.active_banks,
        })
    });
    drop(tpm);
    if !ending.wait(super::TPM_ENDS) {
        super::warn(super::TPM_AT_WORK);
    }
    let answer = answer?;
    match output {
        Output::Json => json(&answer),
        Output::Text => Ok(text(&answer)),
    }
}

/// What a certificate says of itself: checked by the verifier, not here.
fn describe(certificate: &[u8]) -> Option<EkCertificate> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let content = certificate.tbs_certificate();
    let not_after = content.validity().not_after.to_unix_duration();
    let millis = i64::try_from(not_after.as_millis()).ok()?;
    Some(EkCertificate {
        issuer: printable(&content.issuer().to_string()),
        not_after: Timestamp::from_millis(millis).to_string(),
    })
}

fn text(answer: &Answer) -> String {
    let mut text = String::new();
    line(&mut text, "EK hash", Some(&answer.ek_hash));
    line(&mut text, "EK", Some(&answer.ek_kind));
    match &answer.ek_certificate {
        Some(certificate) => {
            line(&mut text, "EK issuer", Some(&certificate.issuer));
            line(&mut text, "EK expiry", Some(&certificate.not_after));
        }
        None => line(&mut text, "EK certificate", Some("none in the TPM")),
    }
    line(
        &mut text,
        "AK name",
        Some(answer.ak_name.as_deref().unwrap_or("none yet, or not readable by this user")),
    );
    line(&mut text, "TPM", Some(format!("{} {}", answer.tpm_manufacturer, answer.tpm_model)));
    line(&mut text, "TPM firmware", Some(&answer.tpm_firmware));
    line(&mut text, "TPM library", Some(&answer.tpm_specification));
    let banks: Vec<_> = answer.active_pcr_banks.iter().map(|bank| bank.name()).collect();
    line(&mut text, "PCR banks", Some(banks.join(" ")));
    text
}
