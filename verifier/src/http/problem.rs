//! The one file in which refusals become HTTP: status, stable code, words (RFC 9457).
//!
//! 400 and its kin: the request has not the shape of one. 401: a client certificate is missing. 403: what the request
//! shows does not suffice. 409: it would have, but the state has moved on; try again from the start. 429 and 503: later.
//! What the verifier could not do says nothing of why to a stranger; the log does.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use rootbound_common::wire::v1::Problem;

use crate::credential::presented::PresentedError;
use crate::flows::attest::{AttestError, AttestRefusal};
use crate::flows::control::StreamEnd;
use crate::flows::decide::DecideError;
use crate::flows::enforce::EnforceRefusal;
use crate::flows::enroll::{EnrollError, EnrollRefusal};
use crate::flows::operate::OperateError;
use crate::flows::policies::PolicyError;
use crate::flows::results::ResultRefusal;
use crate::flows::sets::SetError;
use crate::flows::signals::{SignalError, SignalRefusal};
use crate::flows::survey::SurveyError;
use crate::policy::QuestionError;
use crate::posture::AdmissionError;
use crate::relying_party::RelyingPartyError;
use crate::relying_party::token::TokenError;
use crate::store::StoreError;

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why the edge itself refuses a request, before any story begins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EdgeRefusal {
    /// There is no such path.
    #[error("there is no such endpoint; GET /openapi.json lists them")]
    UnknownRoute,
    /// The path has another method.
    #[error("the endpoint has another method; see the Allow header")]
    Method,
    /// Of another content type by its own account.
    #[error("the body must be of content type {media_type}")]
    ContentType {
        /// That of the endpoint.
        media_type: &'static str,
    },
    /// Compressed.
    #[error("the body must have no content encoding")]
    ContentEncoding,
    /// Too long.
    #[error("the body is longer than {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// Too slow.
    #[error("the body did not arrive in time")]
    BodyTooSlow,
    /// Cut off.
    #[error("the body did not arrive as a whole")]
    BodyIncomplete,
    /// Not one JSON document of the endpoint's shape.
    #[error("{reason}")]
    MalformedBody {
        /// What does not fit, and where; printable.
        reason: String,
    },
    /// A query that the endpoint does not have.
    #[error("the query must be nonce=, with 8 to 88 characters of base64url, or none")]
    Query,
    /// Another query that the endpoint does not have.
    #[error("the query must be wait=, with 0 to 25 seconds, or none")]
    Wait,
    /// Too many requests from one client address.
    #[error("too many requests from this address; try again later")]
    RateLimited {
        /// When there will be room.
        retry_after: Duration,
    },
    /// Too many bodies on their way, in all or from one client address.
    #[error("too many requests are still arriving; try again in a moment")]
    TooManyBodies,
    /// Too many requests at once.
    #[error("the verifier is busy; try again in a moment")]
    Overloaded,
    /// No answer in time.
    #[error("the verifier did not answer in time; what was asked for may still take effect")]
    TimedOut,
    /// Something that a verifier needs is away.
    #[error("the verifier is not ready: {why}")]
    NotReady {
        /// In words that a stranger may read.
        why: String,
    },
    /// The operator has not said under which URL clients reach the verifier.
    #[error("the verifier was not told its public URL ([server] public_url)")]
    NoPublicUrl,
    /// Over the administrative socket: not the owner.
    #[error("the administrative socket is for the user that runs the verifier, and for root")]
    NotTheOwner,
    /// Of a gateway that asks for its client.
    #[error("the gateway is refused, by `{code}`: {detail}")]
    Gateway {
        /// Its own code.
        code: String,
        /// Why.
        detail: String,
    },
    /// A bug.
    #[error("the verifier failed; its log says why")]
    Internal,
}

impl EdgeRefusal {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownRoute => "unknown_route",
            Self::Method => "method_not_allowed",
            Self::ContentType { .. } => "content_type",
            Self::ContentEncoding => "content_encoding",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyIncomplete => "body_incomplete",
            Self::MalformedBody { .. } => "body_malformed",
            Self::Query => "query_malformed",
            Self::Wait => "wait_malformed",
            Self::RateLimited { .. } => "rate_limited",
            Self::TooManyBodies => "too_many_bodies",
            Self::Overloaded => "overloaded",
            Self::TimedOut => "timed_out",
            Self::NotReady { .. } => "not_ready",
            Self::NoPublicUrl => "no_public_url",
            Self::NotTheOwner => "not_the_owner",
            Self::Gateway { .. } => "gateway_refused",
            Self::Internal => "internal",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::UnknownRoute | Self::NoPublicUrl => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType { .. } | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyIncomplete | Self::MalformedBody { .. } | Self::Query | Self::Wait => {
                StatusCode::BAD_REQUEST
            }
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::TooManyBodies | Self::Overloaded | Self::TimedOut | Self::NotReady { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::NotTheOwner => StatusCode::FORBIDDEN,
            Self::Gateway { .. } => StatusCode::BAD_GATEWAY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::TooManyBodies | Self::Overloaded => Some(Duration::from_secs(1)),
            Self::TimedOut | Self::NotReady { .. } => Some(Duration::from_secs(5)),
            Self::UnknownRoute
            | Self::Method
            | Self::ContentType { .. }
            | Self::ContentEncoding
            | Self::BodyTooLarge { .. }
            | Self::BodyTooSlow
            | Self::BodyIncomplete
            | Self::MalformedBody { .. }
            | Self::Query
            | Self::NoPublicUrl
            | Self::Wait
            | Self::NotTheOwner
            | Self::Gateway { .. }
            | Self::Internal => None,
        }
    }
}

/// A refusal on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: String,
    retry_after: Option<Duration>,
    bearer: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: String) -> Self {
        Self { status, code: Cow::Borrowed(code), detail, retry_after: None, bearer: None }
    }

    fn later(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// The same, of an endpoint at which a token does as well as a certificate.
    pub(super) fn or_by_token(self) -> Self {
        // Where nothing was shown there is no error to name (RFC 6750, 3.1).
        Self { bearer: Some("Bearer"), ..self }
    }

    /// After how many seconds to come again; rounded up, and at least one.
    pub(super) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|wait| (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    /// As the document.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem {
            kind: format!("urn:rootbound:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Refused").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code.clone().into_owned(),
        }
    }

    /// As AuthZEN has it (Authorization API 1.0, "Error Responses"): a JSON string, the code and then the words. Whatever is
    /// wrong with the shape of a request is 400, its content type, too.
    #[must_use]
    pub fn into_message(self) -> Response {
        let message = format!("{}: {}", self.code, self.detail);
        let status = match self.status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => StatusCode::BAD_REQUEST,
            status => status,
        };
        let body = serde_json::to_vec(&message).unwrap_or_default();
        Self { status, ..self }.into_response_with(body, "application/json")
    }

    fn into_response_with(self, body: Vec<u8>, content_type: &'static str) -> Response {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, 11.6.1 asks for a challenge; there is no registered scheme for client certificates.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("TLS-Client-Certificate"));
        }
        if let Some(challenge) = self.bearer {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }

    /// Status, code and words.
    pub(super) fn in_parts(&self) -> (StatusCode, &str, &str) {
        (self.status, &self.code, &self.detail)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        self.into_response_with(body, PROBLEM_JSON)
    }
}

impl From<EdgeRefusal> for Refusal {
    fn from(refusal: EdgeRefusal) -> Self {
        let (status, code, wait) = (refusal.status(), refusal.code(), refusal.retry_after());
        Self { retry_after: wait, ..Self::new(status, code, refusal.to_string()) }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        if !matches!(error, StoreError::Overloaded) {
            tracing::error!(%error, "the store failed");
        }
        match error {
            StoreError::Overloaded => EdgeRefusal::Overloaded.into(),
            StoreError::Database(_) => {
                let detail = "the verifier's store does not answer; try again later".to_owned();
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail)
                    .later(Duration::from_secs(5))
            }
            StoreError::Inconsistent { .. } => EdgeRefusal::Internal.into(),
        }
    }
}

impl From<EnrollError> for Refusal {
    fn from(error: EnrollError) -> Self {
        match error {
            EnrollError::Store(error) => error.into(),
            EnrollError::Refused(refusal) => {
                let of = |status| Self::new(status, refusal.code(), refusal.to_string());
                match refusal {
                    EnrollRefusal::NoSuchEnrollment => of(StatusCode::CONFLICT),
                    EnrollRefusal::TooManyPending => {
                        of(StatusCode::SERVICE_UNAVAILABLE).later(Duration::from_secs(60))
                    }
                    EnrollRefusal::EndorsementKey(_)
                    | EnrollRefusal::Endorsement(_)
                    | EnrollRefusal::Waiver(_)
                    | EnrollRefusal::AttestationKey(_)
                    | EnrollRefusal::MakeCredential(_)
                    | EnrollRefusal::JoinTokenForm
                    | EnrollRefusal::Retired
                    | EnrollRefusal::AttestationKeyInUse
                    | EnrollRefusal::Activation(_)
                    | EnrollRefusal::JoinToken => of(StatusCode::FORBIDDEN),
                }
            }
        }
    }
}

impl From<AttestError> for Refusal {
    fn from(error: AttestError) -> Self {
        match error {
            AttestError::Store(error) => error.into(),
            AttestError::Refused(refusal) => {
                let of = |status| Self::new(status, refusal.code(), refusal.to_string());
                match refusal {
                    AttestRefusal::ChallengeSpent | AttestRefusal::NodeChanged => of(StatusCode::CONFLICT),
                    AttestRefusal::Challenge(_)
                    | AttestRefusal::OtherCaller
                    | AttestRefusal::UnknownNode
                    | AttestRefusal::Pending
                    | AttestRefusal::Retired
                    | AttestRefusal::Evidence(_) => of(StatusCode::FORBIDDEN),
                }
            }
        }
    }
}

impl From<AdmissionError> for Refusal {
    fn from(error: AdmissionError) -> Self {
        let status = match error {
            AdmissionError::NoCertificate => StatusCode::UNAUTHORIZED,
            AdmissionError::NotANode
            | AdmissionError::UnknownNode
            | AdmissionError::Pending
            | AdmissionError::Retired
            | AdmissionError::Expired(_)
            | AdmissionError::Superseded
            | AdmissionError::PostureUnknown
            | AdmissionError::PostureStale(_)
            | AdmissionError::PostureContraindicated(_)
            | AdmissionError::PostureWarning
            | AdmissionError::Blocked => StatusCode::FORBIDDEN,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<StreamEnd> for Refusal {
    fn from(end: StreamEnd) -> Self {
        let of = |status| Self::new(status, end.code(), end.to_string());
        match end {
            StreamEnd::Refused(error) => error.into(),
            StreamEnd::Replaced => of(StatusCode::CONFLICT),
            StreamEnd::Reconnect => of(StatusCode::SERVICE_UNAVAILABLE).later(Duration::from_secs(1)),
            StreamEnd::TooMany => of(StatusCode::SERVICE_UNAVAILABLE).later(Duration::from_secs(60)),
        }
    }
}

impl From<SignalError> for Refusal {
    fn from(error: SignalError) -> Self {
        match error {
            SignalError::Store(error) => error.into(),
            SignalError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<SignalRefusal> for Refusal {
    fn from(refusal: SignalRefusal) -> Self {
        let status = match refusal {
            SignalRefusal::Id
            | SignalRefusal::Reason(_)
            | SignalRefusal::Hold(_)
            | SignalRefusal::Members => StatusCode::BAD_REQUEST,
            SignalRefusal::NotARelyingParty | SignalRefusal::DeniedByPolicy | SignalRefusal::NotAllowed => {
                StatusCode::FORBIDDEN
            }
            SignalRefusal::UnknownNode | SignalRefusal::NoSuchHold => StatusCode::NOT_FOUND,
            SignalRefusal::OtherContent | SignalRefusal::TooManyHolds => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl From<PresentedError> for Refusal {
    fn from(error: PresentedError) -> Self {
        Self::new(StatusCode::FORBIDDEN, error.code(), error.to_string())
    }
}

impl From<RelyingPartyError> for Refusal {
    fn from(error: RelyingPartyError) -> Self {
        Self::new(StatusCode::FORBIDDEN, error.code(), error.to_string())
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        // RFC 6750, 3.1.
        let (status, challenge) = match error {
            TokenError::Repeated | TokenError::AndCertificate => {
                (StatusCode::BAD_REQUEST, "Bearer error=\"invalid_request\"")
            }
            TokenError::Scheme => (StatusCode::UNAUTHORIZED, "Bearer"),
            TokenError::Malformed | TokenError::Unknown => {
                (StatusCode::UNAUTHORIZED, "Bearer error=\"invalid_token\"")
            }
        };
        Self { bearer: Some(challenge), ..Self::new(status, error.code(), error.to_string()) }
    }
}

impl From<QuestionError> for Refusal {
    fn from(error: QuestionError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.code(), error.to_string())
    }
}

impl From<DecideError> for Refusal {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::Store(error) => error.into(),
            DecideError::PageToken => {
                Self::new(StatusCode::BAD_REQUEST, "page_token_invalid", error.to_string())
            }
        }
    }
}

impl From<EnforceRefusal> for Refusal {
    fn from(refusal: EnforceRefusal) -> Self {
        use EnforceRefusal as R;
        let status = match refusal {
            R::NothingShown
            | R::AuthorizationRepeated
            | R::AuthorizationScheme
            | R::Token(_)
            | R::BoundAsBearer
            | R::Proof(_)
            | R::Replayed(_)
            | R::CertificateMissing
            | R::CertificateOther => StatusCode::UNAUTHORIZED,
            R::NotAGateway
            | R::NotDescribed
            | R::DescribedTwice
            | R::Request(_)
            | R::Overridden
            | R::NoRoute
            | R::OtherGateway
            | R::CertificateMalformed
            | R::CertificateNotVouched
            | R::CertificateUntrusted
            | R::Presented(_)
            | R::Admission(_)
            | R::Drifted
            | R::NotPermitted
            | R::OneTimeDemanded
            | R::Question(_)
            | R::Denied { .. } => StatusCode::FORBIDDEN,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl From<ResultRefusal> for Refusal {
    fn from(refusal: ResultRefusal) -> Self {
        let of = |status| Self::new(status, refusal.code(), refusal.to_string());
        match refusal {
            ResultRefusal::OtherNode => of(StatusCode::FORBIDDEN),
            ResultRefusal::UnknownNode => of(StatusCode::NOT_FOUND),
            ResultRefusal::Encoding => EdgeRefusal::Internal.into(),
        }
    }
}

/// Over the administrative socket, where nothing has to be kept from the reader.
impl From<PolicyError> for Refusal {
    fn from(error: PolicyError) -> Self {
        let (code, detail) = (error.code(), error.to_string());
        match error {
            PolicyError::NoSuchBundle(_) | PolicyError::NoSuchDecision(_) => {
                Self::new(StatusCode::NOT_FOUND, code, detail)
            }
            PolicyError::Overtaken { .. } | PolicyError::Already(_) | PolicyError::WithoutInputs(_) => {
                Self::new(StatusCode::CONFLICT, code, detail)
            }
            PolicyError::Bundle(_) | PolicyError::CasesFail { .. } | PolicyError::NameTaken => {
                Self::new(StatusCode::FORBIDDEN, code, detail)
            }
            PolicyError::Store(error) => error.into(),
        }
    }
}

impl From<OperateError> for Refusal {
    fn from(error: OperateError) -> Self {
        let (code, detail) = (error.code(), error.to_string());
        match error {
            OperateError::UnknownNode(_) | OperateError::NoSuch { .. } => {
                Self::new(StatusCode::NOT_FOUND, code, detail)
            }
            OperateError::Already(_)
            | OperateError::NoEvidence(_)
            | OperateError::NotAdmitted(_)
            | OperateError::TooManyHolds(_) => Self::new(StatusCode::CONFLICT, code, detail),
            OperateError::TooManyLabels
            | OperateError::NoFilter
            | OperateError::TokenKeys(_)
            | OperateError::HoldReason(_)
            | OperateError::StoredEvidence { .. }
            | OperateError::Reference(_)
            | OperateError::Profile(_)
            | OperateError::Digests(_)
            | OperateError::Frame(_)
            | OperateError::NoLog { .. }
            | OperateError::BootLog { .. }
            | OperateError::JoinTokenLifetime => Self::new(StatusCode::FORBIDDEN, code, detail),
            OperateError::Policy(error) => error.into(),
            OperateError::Set(error) => match error {
                SetError::AlreadyStaged(_)
                | SetError::NotStaged(_)
                | SetError::Overtaken(_)
                | SetError::Ambiguous(_)
                | SetError::NotDenied(_) => Self::new(StatusCode::CONFLICT, code, detail),
                SetError::BootSet(_)
                | SetError::Contradicts { .. }
                | SetError::Reserved
                | SetError::Kinds(..)
                | SetError::Withdrawn(_)
                | SetError::Import(_)
                | SetError::Deny(_) => Self::new(StatusCode::FORBIDDEN, code, detail),
            },
            OperateError::Survey(error) => error.into(),
            OperateError::Store(error) => error.into(),
        }
    }
}

impl From<SurveyError> for Refusal {
    fn from(error: SurveyError) -> Self {
        let (code, detail) = (error.code(), error.to_string());
        match error {
            SurveyError::NoSuchRun => Self::new(StatusCode::NOT_FOUND, code, detail),
            SurveyError::Busy { .. }
            | SurveyError::Unfinished { .. }
            | SurveyError::GivenUp
            | SurveyError::Failed(_) => Self::new(StatusCode::CONFLICT, code, detail),
            SurveyError::Change(_)
            | SurveyError::Digests { .. }
            | SurveyError::Boot { .. }
            | SurveyError::Frame { .. }
            | SurveyError::NoNodes
            | SurveyError::TooManyNodes { .. }
            | SurveyError::TooManyFiles => Self::new(StatusCode::FORBIDDEN, code, detail),
            SurveyError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::clock::Timestamp;
    use rootbound_common::id::NodeId;

    use crate::challenge::ChallengeError;
    use crate::enrollment::{ActivationError, EndorsementError};
    use crate::reference::{ProfileError, ReferenceError};

    fn of(refusal: impl Into<Refusal>) -> (u16, String, Option<u64>) {
        let refusal = refusal.into();
        let (problem, wait) = (refusal.problem(), refusal.retry_after.map(|wait| wait.as_secs()));
        assert_eq!(problem.kind, format!("urn:rootbound:problem:{}", problem.code));
        assert!(!problem.detail.is_empty() && !problem.title.is_empty());
        (problem.status, problem.code, wait)
    }

    fn expect(refusal: impl Into<Refusal>, status: u16, code: &str, wait: Option<u64>) {
        assert_eq!(of(refusal), (status, code.to_owned(), wait));
    }

    #[test]
    fn refusals_of_the_edge_have_a_status_and_a_code() {
        use EdgeRefusal as E;
        let retry_after = Duration::from_secs(7);
        expect(E::UnknownRoute, 404, "unknown_route", None);
        expect(E::Method, 405, "method_not_allowed", None);
        expect(E::ContentType { media_type: "application/json" }, 415, "content_type", None);
        expect(E::ContentEncoding, 415, "content_encoding", None);
        expect(E::BodyTooLarge { limit: 1 }, 413, "body_too_large", None);
        expect(E::BodyTooSlow, 408, "body_too_slow", None);
        expect(E::BodyIncomplete, 400, "body_incomplete", None);
        expect(E::MalformedBody { reason: "x".to_owned() }, 400, "body_malformed", None);
        expect(E::Query, 400, "query_malformed", None);
        expect(E::RateLimited { retry_after }, 429, "rate_limited", Some(7));
        expect(E::TooManyBodies, 503, "too_many_bodies", Some(1));
        expect(E::Overloaded, 503, "overloaded", Some(1));
        expect(E::TimedOut, 503, "timed_out", Some(5));
        expect(E::NotReady { why: "x".to_owned() }, 503, "not_ready", Some(5));
        expect(E::NoPublicUrl, 404, "no_public_url", None);
        expect(E::NotTheOwner, 403, "not_the_owner", None);
        let (code, detail) = ("token_unknown".to_owned(), "x".to_owned());
        expect(E::Gateway { code, detail }, 502, "gateway_refused", None);
        expect(E::Internal, 500, "internal", None);
    }

    #[test]
    fn refusals_of_the_stories_have_a_status_and_a_code() {
        let enroll = |refusal| EnrollError::Refused(refusal);
        expect(enroll(EnrollRefusal::NoSuchEnrollment), 409, "enrollment_unknown", None);
        expect(enroll(EnrollRefusal::TooManyPending), 503, "too_many_enrollments", Some(60));
        expect(enroll(EnrollRefusal::JoinToken), 403, "join_token_refused", None);
        expect(enroll(EnrollRefusal::Retired), 403, "node_retired", None);
        expect(enroll(EnrollRefusal::AttestationKeyInUse), 403, "ak_in_use", None);
        let wrong = EnrollRefusal::Activation(ActivationError::WrongSecret);
        expect(enroll(wrong), 403, "activation_secret_wrong", None);
        let bare = EndorsementError::NoCertificate;
        expect(enroll(EnrollRefusal::Endorsement(bare.clone())), 403, bare.code(), None);

        let attest = |refusal| AttestError::Refused(refusal);
        expect(attest(AttestRefusal::ChallengeSpent), 409, "challenge_spent", None);
        expect(attest(AttestRefusal::NodeChanged), 409, "node_changed", None);
        expect(attest(AttestRefusal::OtherCaller), 403, "caller_is_other_node", None);
        expect(attest(ChallengeError::NotOurs.into()), 403, "challenge_invalid", None);

        expect(AdmissionError::NoCertificate, 401, "certificate_required", None);
        expect(AdmissionError::PostureStale(Timestamp::from_millis(0)), 403, "posture_stale", None);
        expect(PresentedError::Authority, 403, "svid_is_ca", None);
        expect(RelyingPartyError::UnknownName, 403, "relying_party_unknown", None);
        expect(ResultRefusal::OtherNode, 403, "result_of_other_node", None);
        expect(ResultRefusal::UnknownNode, 404, "unknown_node", None);
        expect(ResultRefusal::Encoding, 500, "internal", None);
        expect(DecideError::PageToken, 400, "page_token_invalid", None);
        expect(DecideError::Store(StoreError::Database("x".into())), 503, "store_unavailable", Some(5));

        let node = NodeId::from_bytes([0; 32]);
        expect(OperateError::UnknownNode(node), 404, "unknown_node", None);
        expect(OperateError::Already(node), 409, "nothing_to_do", None);
        expect(OperateError::NoEvidence(node), 409, "no_evidence", None);
        expect(OperateError::TooManyLabels, 403, "too_many_labels", None);
        expect(OperateError::Reference(ReferenceError::Empty), 403, "reference_refused", None);
        expect(OperateError::Profile(ProfileError::NoPcrs), 403, "profile_refused", None);
        expect(OperateError::JoinTokenLifetime, 403, "join_token_lifetime", None);
    }

    #[test]
    fn what_the_store_could_not_do_is_not_told_to_strangers() {
        let database = || StoreError::Database("disk secret".into());
        expect(database(), 503, "store_unavailable", Some(5));
        expect(AttestError::Store(database()), 503, "store_unavailable", Some(5));
        expect(EnrollError::Store(database()), 503, "store_unavailable", Some(5));
        expect(AttestError::Store(StoreError::Overloaded), 503, "overloaded", Some(1));
        let (what, id, why) = ("node", "secret".to_owned(), "secret".to_owned());
        let refusal = Refusal::from(StoreError::Inconsistent { what, id, why });
        assert_eq!(refusal.problem().code, "internal");
        for refusal in [refusal, database().into()] {
            assert!(!serde_json::to_string(&refusal.problem()).unwrap().contains("secret"));
        }
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let wait = |retry_after| {
            let refusal = Refusal::from(EdgeRefusal::RateLimited { retry_after });
            refusal.into_response().headers()[RETRY_AFTER].to_str().unwrap().to_owned()
        };
        assert_eq!(wait(Duration::ZERO), "1");
        assert_eq!(wait(Duration::from_millis(1001)), "2");
    }
}
