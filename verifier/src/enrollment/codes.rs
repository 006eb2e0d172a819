//! Stable codes of the reasons not to enrol, for machines: one for each check.

use super::{AttestationKeyError, EndorsementError, EndorsementKeyError};

impl EndorsementKeyError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "ek_malformed",
            Self::NotRestricted => "ek_not_restricted",
            Self::NotDecrypting => "ek_not_decrypting",
            Self::MaySign => "ek_may_sign",
            Self::MayLeaveTpm => "ek_may_leave_tpm",
            Self::MayLeaveParent => "ek_may_leave_parent",
            Self::MadeElsewhere => "ek_made_elsewhere",
            Self::Sha1Name => "ek_sha1_name",
            Self::NoSymmetric => "ek_no_symmetric",
            Self::Scheme => "ek_scheme",
            Self::NotAKey => "ek_not_a_key",
        }
    }
}

impl EndorsementError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "endorsement_no_certificate",
            Self::TooManyCertificates { .. } => "endorsement_too_many_certificates",
            Self::TooLarge { .. } => "endorsement_certificate_too_large",
            Self::Malformed { .. } => "endorsement_certificate_malformed",
            Self::NoneForThisKey { .. } => "endorsement_other_key",
            Self::AuthorityAsLeaf => "endorsement_ca_as_leaf",
            Self::NoPurpose => "endorsement_no_purpose",
            Self::WrongPurpose => "endorsement_wrong_purpose",
            Self::WrongKeyUsage => "endorsement_wrong_key_usage",
            Self::UnknownCriticalExtension { .. } => "endorsement_critical_extension",
            Self::NotYetValid { .. } => "endorsement_not_yet_valid",
            Self::Expired { .. } => "endorsement_expired",
            Self::UnknownIssuer { .. } => "endorsement_unknown_issuer",
            Self::NotAnAuthority { .. } => "endorsement_not_a_ca",
            Self::MayNotSign { .. } => "endorsement_ca_may_not_sign",
            Self::AuthorityForOtherPurpose { .. } => "endorsement_ca_other_purpose",
            Self::PathLength { .. } => "endorsement_path_length",
            Self::WeakSignature { .. } => "endorsement_weak_signature",
            Self::BadSignature { .. } => "endorsement_bad_signature",
            Self::PathTooLong { .. } => "endorsement_path_too_long",
            Self::TooComplex { .. } => "endorsement_too_complex",
            Self::Revoked { .. } => "endorsement_revoked",
            Self::RevocationUnknown { .. } => "endorsement_revocation_unknown",
            Self::CrlExpired { .. } => "endorsement_crl_expired",
            Self::CrlSignature { .. } => "endorsement_crl_signature",
            Self::MayNotSignCrl { .. } => "endorsement_ca_may_not_sign_crl",
        }
    }
}

impl AttestationKeyError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "ak_malformed",
            Self::NotRestricted => "ak_not_restricted",
            Self::NotSigning => "ak_not_signing",
            Self::MayDecrypt => "ak_may_decrypt",
            Self::MayLeaveTpm => "ak_may_leave_tpm",
            Self::MayLeaveParent => "ak_may_leave_parent",
            Self::MadeElsewhere => "ak_made_elsewhere",
            Self::SignsCertificates => "ak_signs_certificates",
            Self::Sha1Name => "ak_sha1_name",
            Self::NoScheme => "ak_no_scheme",
            Self::Sha1Scheme => "ak_sha1_scheme",
            Self::NotAKey => "ak_not_a_key",
        }
    }
}
