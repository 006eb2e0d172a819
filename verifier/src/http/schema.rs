//! The messages of [`rootbound_common::wire::v1`] once more, for the OpenAPI document alone.
//!
//! `common` must not depend on utoipa, which would come along into every attester. So the shapes are mirrored here, and a
//! test holds that each message as serde writes it is valid by the mirror, and that the mirror has no field more.
#![expect(dead_code, reason = "described, never read")]

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

/// A machine shows its EK and asks for an AK to be bound to it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EnrollRequest {
    /// TPMT_PUBLIC of the EK, base64url without padding.
    #[schema(pattern = "^[A-Za-z0-9_-]*$")]
    ek_public: String,
    /// EK certificate, then intermediates, each DER in base64url without padding. At most 6; the leaf is found by its key.
    ek_certificates: Vec<String>,
    /// TPMT_PUBLIC of the AK, base64url without padding.
    #[schema(pattern = "^[A-Za-z0-9_-]*$")]
    ak_public: String,
    /// Single-use token that admits the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    join_token: Option<String>,
}

/// What only the TPM with this EK and this AK can open (TPM2_MakeCredential).
#[derive(Deserialize, ToSchema)]
pub(super) struct EnrollResponse {
    /// Names this enrolment, base64url.
    enrollment: String,
    /// Content of TPM2B_ID_OBJECT, base64url.
    credential_blob: String,
    /// Content of TPM2B_ENCRYPTED_SECRET, base64url.
    encrypted_secret: String,
    /// How long the answer may take, in seconds.
    expires_in: u64,
}

/// The secret that TPM2_ActivateCredential gave back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActivateRequest {
    /// From the enrolment, base64url.
    enrollment: String,
    /// The secret, base64url.
    secret: String,
}

/// The EK and the AK are proved to live in one TPM.
#[derive(Deserialize, ToSchema)]
pub(super) struct ActivateResponse {
    /// The machine's id: SHA-256 of its EK's SubjectPublicKeyInfo.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    node: String,
    /// Its SPIFFE ID.
    #[schema(pattern = "^spiffe://")]
    spiffe_id: String,
    /// Whether it may attest.
    admission: Admission,
    /// The first challenge, where the machine is admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge: Option<Challenge>,
}

/// Whether a machine with a genuine TPM is one of ours.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Admission {
    /// It is.
    Admitted,
    /// An operator has to say.
    Pending,
}

/// Asks for a challenge outside of the steady state.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChallengeRequest {
    /// The machine that will answer.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    node: String,
}

/// What to quote, over which nonce, and how soon.
#[derive(Deserialize, ToSchema)]
pub(super) struct Challenge {
    /// To be sent back with the evidence; opaque.
    token: String,
    /// 32 bytes, base64url, that enter the extraData of every statement.
    #[schema(min_length = 43, max_length = 43)]
    nonce: String,
    /// The PCRs to quote, exactly these, in this order of banks.
    selection: Vec<BankSelection>,
    /// The PCRs that the authPolicy of a credential key is over.
    credential_policy: BankSelection,
    /// The logs to send along.
    logs: LogsAsked,
    /// When to answer, in seconds from now: 0 is at once.
    attest_in: u64,
    /// From when on no answer is accepted, in seconds from now.
    expires_in: u64,
}

/// Which logs to send with the quote.
#[derive(Deserialize, ToSchema)]
pub(super) struct LogsAsked {
    /// The boot event log.
    boot_log: bool,
    /// The IMA list.
    ima: bool,
    /// What the verifier has already, where it has something.
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<KnownLogs>,
}

/// What the verifier has of the logs of one boot.
#[derive(Deserialize, ToSchema)]
pub(super) struct KnownLogs {
    /// The boot: resetCount of its quotes.
    reset_count: u32,
    /// Whether it has the boot event log.
    boot_log: bool,
    /// How many entries of the IMA list it has; the next to send.
    ima_entries: u64,
}

/// PCRs of one bank.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BankSelection {
    /// The bank.
    bank: HashAlgorithm,
    /// Their numbers, 0 to 23.
    pcrs: Vec<u8>,
}

/// A hash algorithm, and the bank of PCRs that it extends.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum HashAlgorithm {
    /// SHA-1: read in logs, refused in evidence.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// A quote with the values that it is over, and perhaps a request for a credential.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EvidenceRequest {
    /// The token of the challenge that this answers.
    challenge: String,
    /// TPMS_ATTEST of TPM2_Quote, base64url.
    quote: String,
    /// TPMT_SIGNATURE by the AK, base64url.
    signature: String,
    /// The value of each quoted PCR in lower-case hex, by bank and number.
    pcrs: BTreeMap<String, BTreeMap<String, String>>,
    /// PKCS#10 request for an X.509-SVID with the TPM2_Certify statement as attestation attribute, DER in base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_request: Option<String>,
    /// The boot event log, where it was asked for and the verifier does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_log: Option<BootLogPart>,
    /// The next entries of the IMA list, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    ima: Option<ImaPart>,
}

/// The boot event log, as the machine has it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "state", deny_unknown_fields)]
pub(super) enum BootLogPart {
    /// The kernel exposes none.
    Absent,
    /// Here it is.
    Present {
        /// The kernel's file as one zstd frame (RFC 8878), base64url; at most 1 MiB when decompressed.
        zstd: String,
    },
}

/// Some consecutive entries of the IMA list.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "state", deny_unknown_fields)]
pub(super) enum ImaPart {
    /// The kernel exposes none.
    Absent,
    /// Here they are.
    Present {
        /// The number of the first, from 0.
        from: u64,
        /// Whole entries of the kernel's binary list as one zstd frame, base64url; at most 4 MiB when decompressed.
        zstd: String,
        /// Whether the list goes on.
        more: bool,
    },
}

/// What authentic evidence means, and what comes next.
#[derive(Deserialize, ToSchema)]
pub(super) struct EvidenceResponse {
    /// The appraisal.
    posture: PostureReport,
    /// The credential, or why there is none; absent where none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<CredentialOutcome>,
    /// The next challenge, to be answered after its `attest_in`.
    next: Challenge,
}

/// How a node stands.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PostureStatus {
    /// Everything observed is explained by reference values.
    Affirming,
    /// Accepted with reservations.
    Warning,
    /// Something observed is explained by no reference value.
    Contraindicated,
    /// The last evidence is too old.
    Stale,
    /// There never was evidence.
    Unknown,
    /// An operator or a relying party blocks the node, whatever it shows.
    Blocked,
}

/// A node's posture, with the versions that it was judged by.
#[derive(Deserialize, ToSchema)]
pub(super) struct PostureReport {
    /// How the node stands.
    status: PostureStatus,
    /// When the evidence was made, at the earliest; milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence_at: Option<i64>,
    /// The profile, as `name@version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    /// The reference sets, as `name@version`.
    references: Vec<String>,
    /// What no reference value explains.
    deviations: Vec<DeviationReport>,
    /// What an operator or a relying party holds against the node, and is in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    holds: Vec<HoldReport>,
}

/// What is wished of a node.
#[derive(Deserialize, ToSchema)]
pub(super) struct ControlState {
    /// To attest now, with a new challenge.
    attest: bool,
    /// To ask for a new certificate.
    renew: bool,
    /// Codes of what blocks the node, or lowers its standing.
    blocked: Vec<String>,
}

/// What a signal asks for.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SignalKind {
    /// The node is refused everything but to attest.
    Block,
    /// Evidence that it has shown so far counts no more.
    Reattest,
    /// Its standing is lowered.
    Lower,
    /// What the same source held against it is lifted.
    Clear,
}

/// Something said against a node, or taken back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignalRequest {
    /// Names the signal among those of its source.
    #[schema(min_length = 1, max_length = 64)]
    id: String,
    /// The node.
    node: String,
    /// What is asked for.
    kind: SignalKind,
    /// Why, for operators.
    #[schema(max_length = 512)]
    reason: String,
    /// With `block` and `lower`: for how long, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    /// With `clear`: which of its holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<String>,
}

/// What became of a signal.
#[derive(Deserialize, ToSchema)]
pub(super) struct SignalResponse {
    /// As in the request.
    id: String,
    /// As in the request.
    node: String,
    /// As in the request.
    kind: SignalKind,
    /// When it took effect; milliseconds since 1970.
    at: i64,
    /// The hold that it set.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<String>,
    /// When that hold ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
}

/// What is told of a hold.
#[derive(Deserialize, ToSchema)]
pub(super) struct HoldReport {
    /// Names it: an operator can look it up.
    id: String,
    /// `block` or `lower`.
    kind: String,
    /// Since when; milliseconds since 1970.
    since: i64,
    /// From when on it counts no more; absent where it has to be lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
}

/// An observed value that no reference value explains.
#[derive(Deserialize, ToSchema)]
pub(super) struct DeviationReport {
    /// Stable, for machines.
    code: String,
    /// For people.
    detail: String,
    /// The bank, where the deviation concerns a PCR.
    #[serde(skip_serializing_if = "Option::is_none")]
    bank: Option<HashAlgorithm>,
    /// The PCR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pcr: Option<u8>,
    /// The observed value, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<String>,
    /// The values that would have been accepted, in hex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    accepted: Vec<String>,
}

/// What became of a request for a credential.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub(super) enum CredentialOutcome {
    /// Here it is.
    Issued {
        /// Leaf, then intermediates, PEM.
        certificate_chain: String,
        /// The certificates that relying parties trust, PEM.
        trust_bundle: String,
        /// From when on it is not valid any more; milliseconds since 1970.
        not_after: i64,
        /// When to ask for the next; milliseconds since 1970.
        renew_at: i64,
    },
    /// There is none.
    Refused {
        /// Stable, for machines.
        code: String,
        /// For people.
        detail: String,
    },
}

/// A JSON Web Key Set (RFC 7517).
#[derive(Deserialize, ToSchema)]
pub(super) struct JwkSet {
    /// The keys.
    keys: Vec<Jwk>,
}

/// A JSON Web Key that verifies ES256 signatures (RFC 7517; RFC 7518, 6.2).
#[derive(Deserialize, ToSchema)]
pub(super) struct Jwk {
    /// `EC`.
    kty: String,
    /// `P-256`.
    crv: String,
    /// Coordinate, base64url.
    x: String,
    /// Coordinate, base64url.
    y: String,
    /// `ES256`.
    alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    usage: String,
    /// RFC 7638 thumbprint.
    kid: String,
}

/// What the verifier knows of the caller.
#[derive(Deserialize, ToSchema)]
pub(super) struct WhoamiResponse {
    /// The machine's id.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    node: String,
    /// The SPIFFE ID of the certificate.
    #[schema(pattern = "^spiffe://")]
    spiffe_id: String,
    /// Serial number of the certificate, in hex.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    serial: String,
    /// From when on the certificate is not valid any more; milliseconds since 1970.
    not_after: i64,
    /// The posture epoch that the certificate names.
    certificate_epoch: Option<u64>,
    /// The node's posture epoch now; what names an older one was given to another state of it.
    epoch: u64,
    /// Labels that the operator gave the node.
    labels: BTreeMap<String, String>,
    /// How the node stands.
    posture: PostureReport,
}

/// The process answers, or is ready.
#[derive(Deserialize, ToSchema)]
pub(super) struct Healthy {
    /// `ok` or `ready`.
    status: String,
}

/// RFC 9457 problem document.
#[derive(Deserialize, ToSchema)]
pub(super) struct Problem {
    /// `urn:rootbound:problem:<code>`.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// HTTP status.
    status: u16,
    /// What happened, for people.
    detail: String,
    /// Stable, for machines.
    code: String,
}

#[cfg(test)]
mod tests {
    use rootbound_common::wire::v1 as wire;
    use serde_json::{Value, json};

    use super::super::openapi::tests::document;

    /// Why a value is not as a schema says, for the part of JSON Schema that the document uses. An object must have
    /// *every* property that is described, unless it is `sparse`.
    fn fault(document: &Value, schema: &Value, value: &Value, sparse: bool) -> Option<String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let schema = document.pointer(reference.strip_prefix('#')?)?;
            return fault(document, schema, value, sparse);
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            let fitting = variants.iter().filter(|schema| fault(document, schema, value, sparse).is_none());
            return (fitting.count() != 1).then(|| format!("{value}: not exactly one of {variants:?}"));
        }
        if let Some(values) = schema["enum"].as_array() {
            return (!values.contains(value)).then(|| format!("{value}: none of {values:?}"));
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if schema["type"] != kind
            && !schema["type"].as_array().is_some_and(|kinds| kinds.contains(&json!(kind)))
        {
            return Some(format!("{value}: of type {kind}, must be {}", schema["type"]));
        }
        if let Some(items) = value.as_array() {
            return items.iter().find_map(|item| fault(document, &schema["items"], item, sparse));
        }
        let fields = value.as_object()?;
        let no_properties = serde_json::Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&no_properties);
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let missing = properties
            .keys()
            .find(|name| !fields.contains_key(*name) && (!sparse || required.contains(&json!(name))));
        if let Some(name) = missing {
            return Some(format!("{value}: lacks `{name}`"));
        }
        fields.iter().find_map(|(name, field)| {
            let schema = properties.get(name).or_else(|| schema.get("additionalProperties"));
            match schema.filter(|schema| schema.is_object()) {
                Some(schema) => fault(document, schema, field, sparse),
                None => Some(format!("`{name}` is not described")),
            }
        })
    }

    /// A message that has everything, and one that has as little as may be.
    fn described<T: serde::Serialize + serde::de::DeserializeOwned>(name: &str, full: &Value, least: &Value) {
        let document = document();
        let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        for (message, sparse) in [(full, false), (least, true)] {
            // What is compared is what serde makes of the message, not what stands here.
            let read: T =
                serde_json::from_value(message.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
            let written = serde_json::to_value(&read).unwrap();
            assert_eq!(&written, message, "{name}");
            assert_eq!(fault(&document, &schema, &written, sparse), None, "{name}");
        }
        let closed = document["components"]["schemas"][name]["additionalProperties"] == json!(false);
        let mut more = full.clone();
        more["more"] = json!(1);
        assert_eq!(closed, serde_json::from_value::<T>(more).is_err(), "{name}: unknown fields");
        for field in least.as_object().unwrap().keys() {
            let mut less = least.clone();
            less.as_object_mut().unwrap().remove(field);
            if serde_json::from_value::<T>(less.clone()).is_err() {
                assert!(fault(&document, &schema, &less, true).is_some(), "{name}: `{field}` is required");
            }
        }
    }

    fn challenge() -> Value {
        json!({
            "token": "AAAA", "nonce": "A".repeat(43), "selection": [{ "bank": "sha256", "pcrs": [0, 7] }],
            "credential_policy": { "bank": "sha256", "pcrs": [7] }, "attest_in": 0, "expires_in": 30,
            "logs": { "boot_log": true, "ima": true, "known": { "reset_count": 1, "boot_log": true, "ima_entries": 2 } }
        })
    }

    fn posture() -> Value {
        let hex = "ab".repeat(32);
        json!({
            "status": "contraindicated", "evidence_at": 1, "profile": "p@1", "references": ["r@1"],
            "deviations": [{
                "code": "pcr_mismatch", "detail": "d", "bank": "sha384", "pcr": 7, "observed": hex, "accepted": [hex]
            }],
            "holds": [{ "id": "aa", "kind": "block", "since": 1, "expires_at": 2 }]
        })
    }

    #[test]
    fn requests_are_as_serde_reads_them() {
        let node = "ab".repeat(32);
        described::<wire::EnrollRequest>(
            "EnrollRequest",
            &json!({ "ek_public": "AAAA", "ek_certificates": ["AAAA"], "ak_public": "AAAA", "join_token": "t" }),
            &json!({ "ek_public": "", "ek_certificates": [], "ak_public": "" }),
        );
        let activate = json!({ "enrollment": "AAAA", "secret": "AAAA" });
        described::<wire::ActivateRequest>("ActivateRequest", &activate, &activate);
        let challenge = json!({ "node": node });
        described::<wire::ChallengeRequest>("ChallengeRequest", &challenge, &challenge);
        described::<wire::EvidenceRequest>(
            "EvidenceRequest",
            &json!({
                "challenge": "AAAA", "quote": "AAAA", "signature": "AAAA",
                "pcrs": { "sha256": { "7": node } }, "certificate_request": "AAAA",
                "boot_log": { "state": "present", "zstd": "AAAA" },
                "ima": { "state": "present", "from": 0, "zstd": "AAAA", "more": false }
            }),
            &json!({ "challenge": "", "quote": "", "signature": "", "pcrs": {} }),
        );
    }

    #[test]
    fn signals_and_wishes_are_as_serde_has_them() {
        let node = "ab".repeat(32);
        described::<wire::SignalRequest>(
            "SignalRequest",
            &json!({ "id": "1", "node": node, "kind": "clear", "reason": "r", "expires_in": 1, "hold": "h" }),
            &json!({ "id": "1", "node": node, "kind": "block", "reason": "" }),
        );
        described::<wire::SignalResponse>(
            "SignalResponse",
            &json!({ "id": "1", "node": node, "kind": "lower", "at": 1, "hold": "h", "expires_at": 2 }),
            &json!({ "id": "1", "node": node, "kind": "reattest", "at": 1 }),
        );
        let state = json!({ "attest": true, "renew": false, "blocked": ["node_blocked"] });
        described::<wire::ControlState>("ControlState", &state, &state);
    }

    #[test]
    fn responses_are_as_serde_writes_them() {
        let node = "ab".repeat(32);
        let enrolled = json!({
            "enrollment": "AAAA", "credential_blob": "AAAA", "encrypted_secret": "AAAA", "expires_in": 60
        });
        described::<wire::EnrollResponse>("EnrollResponse", &enrolled, &enrolled);
        let spiffe_id = format!("spiffe://example.org/node/{node}");
        described::<wire::ActivateResponse>(
            "ActivateResponse",
            &json!({ "node": node, "spiffe_id": spiffe_id, "admission": "admitted", "challenge": challenge() }),
            &json!({ "node": node, "spiffe_id": spiffe_id, "admission": "pending" }),
        );
        described::<wire::Challenge>("Challenge", &challenge(), &challenge());
        let issued = json!({
            "outcome": "issued", "certificate_chain": "PEM", "trust_bundle": "PEM", "not_after": 2, "renew_at": 1
        });
        let refused = json!({ "outcome": "refused", "code": "c", "detail": "d" });
        for credential in [&issued, &refused] {
            described::<wire::EvidenceResponse>(
                "EvidenceResponse",
                &json!({ "posture": posture(), "credential": credential, "next": challenge() }),
                &json!({ "posture": posture(), "next": challenge() }),
            );
        }
        described::<wire::PostureReport>(
            "PostureReport",
            &posture(),
            &json!({ "status": "unknown", "references": [], "deviations": [] }),
        );
        let whoami = json!({
            "node": node, "spiffe_id": spiffe_id, "serial": "ab".repeat(16), "not_after": 1, "epoch": 1,
            "labels": { "env": "prod" }, "posture": posture()
        });
        let mut full = whoami.clone();
        full["certificate_epoch"] = json!(1);
        described::<wire::WhoamiResponse>("WhoamiResponse", &full, &whoami);
        let key = json!({
            "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "alg": "ES256", "use": "sig", "kid": "AA"
        });
        described::<Value>("Jwk", &key, &key);
        described::<Value>("JwkSet", &json!({ "keys": [key] }), &json!({ "keys": [] }));
        let problem = json!({ "type": "t", "title": "t", "status": 403, "detail": "d", "code": "c" });
        described::<wire::Problem>("Problem", &problem, &problem);
    }

    #[test]
    fn words_are_those_of_the_wire() {
        let schemas = &document()["components"]["schemas"];
        let words = |name: &str| schemas[name]["enum"].as_array().unwrap().clone();
        let written = |value: Value| value.as_array().unwrap().clone();
        assert_eq!(words("PostureStatus"), written(json!(wire::PostureStatus::ALL)));
        assert_eq!(words("Admission"), written(json!([wire::Admission::Admitted, wire::Admission::Pending])));
        assert_eq!(words("HashAlgorithm"), written(json!(rootbound_common::tpm::HashAlgorithm::ALL)));
    }
}
