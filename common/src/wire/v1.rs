//! Version 1 of the messages between attester and verifier: JSON, bytes as base64url.
//!
//! A message is only text that fits its shape: nothing in it is believed. A request with a field that version 1 does
//! not have is refused; a response may grow.

use serde::{Deserialize, Serialize};

use crate::blob::Blob;
use crate::clock::Timestamp;
use crate::id::{NodeId, SpiffeId};
use crate::tpm::{Attest, HashAlgorithm, PcrIndex, PcrSelection, PcrSet, PcrValues, Public, Signature};

/// A TPMT_PUBLIC.
pub type PublicBlob = Blob<{ Public::MAX }>;
/// A DER certificate: the longest known EK certificate has 2.2 KB; NV indices hold at most a few KB.
pub type CertificateBlob = Blob<8192>;
/// A DER PKCS#10 request with its attestation statement, under 3 KB with RSA-4096 keys throughout.
pub type CertificateRequestBlob = Blob<8192>;
/// A challenge as the verifier handed it out: opaque to everyone else.
pub type ChallengeToken = Blob<512>;

/// `POST /v1/enrollments`: a machine shows its EK and asks for an AK to be bound to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// TPMT_PUBLIC of the EK.
    pub ek_public: PublicBlob,
    /// EK certificate, then intermediates that the TPM or its owner holds; the leaf is found by its key.
    pub ek_certificates: Vec<CertificateBlob>,
    /// TPMT_PUBLIC of the AK.
    pub ak_public: PublicBlob,
    /// Single-use token that admits the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token: Option<JoinToken>,
}

impl EnrollRequest {
    /// Certificates in one request; the longest known vendor chain has four below the root.
    pub const MAX_CERTIFICATES: usize = 6;
}

/// A join token as its bearer types it. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JoinToken(pub String);

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

/// Answer to [`EnrollRequest`]: what only the TPM with this EK *and* this AK can open (TPM2_MakeCredential).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnrollResponse {
    /// Names this enrolment in [`ActivateRequest`].
    pub enrollment: Blob<32>,
    /// Content of TPM2B_ID_OBJECT.
    pub credential_blob: Blob<256>,
    /// Content of TPM2B_ENCRYPTED_SECRET.
    pub encrypted_secret: Blob<512>,
    /// How long the answer may take, in seconds.
    pub expires_in: u64,
}

/// `POST /v1/enrollments/activate`: the secret that TPM2_ActivateCredential gave back. One attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivateRequest {
    /// From [`EnrollResponse`].
    pub enrollment: Blob<32>,
    /// The secret.
    pub secret: Blob<64>,
}

/// Answer to [`ActivateRequest`]: the EK and the AK are proved to live in one TPM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ActivateResponse {
    /// The machine's id.
    pub node: NodeId,
    /// Its SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// Whether it may attest.
    pub admission: Admission,
    /// The first challenge, where the machine is admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
}

/// Whether a machine with a genuine TPM is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// It is.
    Admitted,
    /// An operator has to say.
    Pending,
}

/// `POST /v1/challenges`: asks for a challenge outside of the steady state.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// The machine that will answer.
    pub node: NodeId,
}

/// What to quote, over which nonce, and how soon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Challenge {
    /// To be sent back with the evidence.
    pub token: ChallengeToken,
    /// 32 bytes that enter the extraData of every statement.
    pub nonce: Blob<32>,
    /// The PCRs to quote, exactly these, in this order of banks.
    pub selection: PcrSelection,
    /// The PCRs that the authPolicy of a credential key is over, a subset of `selection`.
    pub credential_policy: CredentialPolicy,
    /// The logs to send along.
    #[serde(default)]
    pub logs: LogsAsked,
    /// When to answer, in seconds from now: 0 is at once.
    pub attest_in: u64,
    /// From when on the verifier does not accept an answer, in seconds from now.
    pub expires_in: u64,
}

/// Which logs to send with the quote. A hint that saves bytes: what the verifier needs and has, it knows by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogsAsked {
    /// The boot event log.
    pub boot_log: bool,
    /// The IMA list.
    pub ima: bool,
    /// What the verifier has already, where it has something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<KnownLogs>,
}

/// What the verifier has of the logs of one boot; of another boot it has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLogs {
    /// The boot: resetCount of its quotes (TPMS_CLOCK_INFO, Part 2, table 120).
    pub reset_count: u32,
    /// Whether it has the boot event log.
    pub boot_log: bool,
    /// How many entries of the IMA list it has; the next to send.
    pub ima_entries: u64,
}

/// PCRs that a credential key is tied to by TPM2_PolicyPCR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialPolicy {
    /// The bank.
    pub bank: HashAlgorithm,
    /// The PCRs: boot PCRs, never PCR 10, which moves as the machine works.
    pub pcrs: PcrSet,
}

impl CredentialPolicy {
    /// As a TPML_PCR_SELECTION of one bank.
    #[must_use]
    pub fn selection(&self) -> PcrSelection {
        PcrSelection::of_bank(self.bank, self.pcrs)
    }
}

/// `POST /v1/evidence`: a quote with the values that it is over, and perhaps a request for a credential.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRequest {
    /// The challenge that this answers.
    pub challenge: ChallengeToken,
    /// TPMS_ATTEST of TPM2_Quote; extraData binds the nonce and `certificate_request`.
    pub quote: Blob<{ Attest::MAX }>,
    /// TPMT_SIGNATURE by the AK.
    pub signature: Blob<{ Signature::MAX }>,
    /// The value of each quoted PCR.
    pub pcrs: PcrValues,
    /// PKCS#10 request for an X.509-SVID, with the TPM2_Certify statement as attestation attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_request: Option<CertificateRequestBlob>,
    /// The boot event log, where it was asked for and the verifier does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_log: Option<BootLogPart>,
    /// The next entries of the IMA list, where they were asked for. Read after the quote was made, so that the quote
    /// covers no entry that is not here or was sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<ImaPart>,
}

/// The boot event log, as the machine has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", deny_unknown_fields)]
pub enum BootLogPart {
    /// The kernel exposes none.
    Absent,
    /// Here it is: the file of the kernel, as one zstd frame (RFC 8878).
    Present {
        /// The frame; at most [`BootLogPart::MAX`] bytes when decompressed.
        zstd: Blob<{ 512 * 1024 }>,
    },
}

impl BootLogPart {
    /// The longest boot event log, not compressed. The longest known has 130 KB; kernels keep what firmware has room for,
    /// mostly 64 KB.
    pub const MAX: usize = 1024 * 1024;
}

/// Some consecutive entries of the IMA list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", deny_unknown_fields)]
pub enum ImaPart {
    /// The kernel exposes none.
    Absent,
    /// Here they are.
    Present {
        /// The number of the first, from 0.
        from: u64,
        /// Whole entries of the kernel's binary list, as one zstd frame (RFC 8878); at most [`ImaPart::MAX`] bytes when
        /// decompressed.
        zstd: Blob<{ 3 * 1024 * 1024 }>,
        /// Whether the list goes on: it is longer than fits into one message.
        more: bool,
    },
}

impl ImaPart {
    /// The most bytes of entries in one message, not compressed: some 40,000 entries, so that most lists take one message,
    /// and the longest few.
    pub const MAX: usize = 4 * 1024 * 1024;
}

impl EvidenceRequest {
    /// The parts of the request that the quote's extraData covers ([`crate::binding::extra_data`]): the certificate
    /// request, empty where there is none. The PCR values are covered by the quote's own digest.
    #[must_use]
    pub fn bound_parts(certificate_request: Option<&[u8]>) -> [&[u8]; 1] {
        [certificate_request.unwrap_or_default()]
    }
}

/// Answer to [`EvidenceRequest`], where the evidence is authentic: what it means, and what comes next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvidenceResponse {
    /// The appraisal.
    pub posture: PostureReport,
    /// The credential, or why there is none; absent where none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialOutcome>,
    /// The next challenge, to be answered after its `attest_in`.
    pub next: Challenge,
}

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostureStatus {
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

impl PostureStatus {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Affirming, Self::Warning, Self::Contraindicated, Self::Stale, Self::Unknown, Self::Blocked];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
            Self::Stale => "stale",
            Self::Unknown => "unknown",
            Self::Blocked => "blocked",
        }
    }
}

impl std::fmt::Display for PostureStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node's posture, with the versions that it was judged by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostureReport {
    /// How the node stands.
    pub status: PostureStatus,
    /// When the evidence was made, at the earliest: the time of its challenge; absent where there never was evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_at: Option<Timestamp>,
    /// The profile and its version, as `name@version`; absent where no profile fits the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The reference sets and their versions, as `name@version`.
    pub references: Vec<String>,
    /// What no reference value explains.
    pub deviations: Vec<DeviationReport>,
    /// What an operator or a relying party holds against the node, and is in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HoldReport>,
    /// Until when the profile records the deviations without acting on them; absent where it acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_until: Option<Timestamp>,
}

/// What is told of a hold. Who set it and why is for operators: the node may be in the wrong hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldReport {
    /// Names it: an operator can look it up.
    pub id: String,
    /// `block` or `lower`.
    pub kind: String,
    /// Since when.
    pub since: Timestamp,
    /// From when on it counts no more; absent where it has to be lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// An observed value that no reference value explains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviationReport {
    /// Stable, for machines: `pcr_mismatch`.
    pub code: String,
    /// For people.
    pub detail: String,
    /// The bank, where the deviation concerns a PCR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bank: Option<HashAlgorithm>,
    /// The PCR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcr: Option<PcrIndex>,
    /// The observed value, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    /// Values that would have been accepted, in hex; the first few of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<String>,
}

/// What became of a request for a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum CredentialOutcome {
    /// Here it is.
    Issued {
        /// Leaf, then intermediates, PEM.
        certificate_chain: String,
        /// The certificates that relying parties trust, PEM.
        trust_bundle: String,
        /// From when on it is not valid any more.
        not_after: Timestamp,
        /// When to ask for the next, at a random point around two thirds of its life.
        renew_at: Timestamp,
    },
    /// There is none.
    Refused {
        /// Stable, for machines: `posture_contraindicated`.
        code: String,
        /// For people.
        detail: String,
    },
}

/// `GET /v1/whoami`, over mTLS: what the verifier knows of the caller, at this moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhoamiResponse {
    /// The machine's id.
    pub node: NodeId,
    /// The SPIFFE ID of the certificate.
    pub spiffe_id: SpiffeId,
    /// Serial number of the certificate, in hex.
    pub serial: String,
    /// From when on the certificate is not valid any more.
    pub not_after: Timestamp,
    /// The posture epoch that the certificate names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_epoch: Option<u64>,
    /// The node's posture epoch now.
    pub epoch: u64,
    /// Labels that the operator gave the node.
    pub labels: std::collections::BTreeMap<String, String>,
    /// How the node stands.
    pub posture: PostureReport,
}

/// `GET /v1/control`, over mTLS: what the verifier wishes of the caller now. As server-sent events it is told bit by bit
/// ([`ControlEvent`]), as JSON at once.
///
/// It is a state, not a queue: what is missed is told again, and what is done is not wished any more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ControlState {
    /// To attest now, with a new challenge.
    pub attest: bool,
    /// To ask for a new certificate.
    pub renew: bool,
    /// Codes of what blocks the node, or lowers its standing; none where nothing does.
    pub blocked: Vec<String>,
}

/// The names of the events of `GET /v1/control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlEvent {
    /// Attest now, with a new challenge.
    Attest,
    /// Ask for a new certificate.
    Renew,
    /// The node is blocked, or its standing lowered; the data has `codes`.
    Blocked,
    /// Nothing blocks the node.
    Released,
    /// The stream ends; the data has the `code` that says why.
    End,
}

impl ControlEvent {
    /// Every event.
    pub const ALL: [Self; 5] = [Self::Attest, Self::Renew, Self::Blocked, Self::Released, Self::End];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attest => "attest",
            Self::Renew => "renew",
            Self::Blocked => "blocked",
            Self::Released => "released",
            Self::End => "end",
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// The node is refused everything but to attest.
    Block,
    /// Evidence that it has shown so far counts no more.
    Reattest,
    /// Its standing is lowered: affirming becomes a warning.
    Lower,
    /// What the same source held against it is lifted; only a new quote gives access back.
    Clear,
}

impl SignalKind {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Reattest => "reattest",
            Self::Lower => "lower",
            Self::Clear => "clear",
        }
    }
}

/// `POST /v1/signals`: a relying party says something against a node, or takes it back. Once per `id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// Names the signal among those of its source: 1 to 64 graphic characters of ASCII.
    pub id: String,
    /// The node.
    pub node: NodeId,
    /// What is asked for.
    pub kind: SignalKind,
    /// Why, for operators: at most 512 characters, without controls.
    pub reason: String,
    /// With `block` and `lower`: for how long, in seconds; absent: until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// With `clear`: which of its holds; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
}

/// Answer to [`SignalRequest`]: the same, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalResponse {
    /// As in the request.
    pub id: String,
    /// As in the request.
    pub node: NodeId,
    /// As in the request.
    pub kind: SignalKind,
    /// When it took effect.
    pub at: Timestamp,
    /// The hold that it set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// When that hold ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// RFC 9457 problem document, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:rootbound:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened, for people.
    pub detail: String,
    /// Stable, for machines.
    pub code: String,
}
