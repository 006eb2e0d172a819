//! The quote, its key and its values.

use rootbound_common::binding::{Purpose, extra_data};
use rootbound_common::crypto::{VerifyingKey, VerifyingKeyError};
use rootbound_common::nonce::Nonce;
use rootbound_common::tpm::{
    Attest, Attested, ClockState, HashAlgorithm, PcrSelection, PcrValues, Public, SignatureScheme,
};
use rootbound_common::wire::v1::EvidenceRequest;

use super::form::{self, KeyForm};
use super::{Parts, preferred};
use crate::enrollment::{AttestationKey, AttestationKeyError};
use crate::evidence::offline::OfflineQuote;
use crate::evidence::{EvidenceError, Observed};

/// What became of the quote.
pub(crate) struct ExaminedQuote<'p> {
    /// Its key.
    pub(crate) key: KeyStanding,
    /// Itself.
    pub(crate) statement: Statement,
    /// What it should be over.
    pub(crate) nonce: NonceStanding<'p>,
    /// PCR values.
    pub(crate) values: Values,
}

/// What is known of the key.
pub(crate) enum KeyStanding {
    /// None was given.
    Missing,
    /// It is no key that verifies anything here: a stable code, and why.
    Unusable(&'static str, String),
    /// It verifies signatures, and breaks a rule of attestation keys: the service would not enrol it.
    Refused(SignatureScheme, AttestationKeyError),
    /// Numbers without attributes: whether it signs only what a TPM states is not known.
    Bare(SignatureScheme),
    /// It follows every rule of an attestation key. Whether it lives in a TPM is not known.
    Acceptable(SignatureScheme),
}

/// What became of the statement.
pub(crate) enum Statement {
    /// None was given.
    Missing,
    /// There is no signature, or no key for it: a claim.
    Claimed(Facts),
    /// It is no evidence.
    Refused(EvidenceError),
    /// The key signed it.
    Signed(Facts),
}

/// What a quote says.
pub(crate) struct Facts {
    /// The PCRs.
    pub(crate) selection: PcrSelection,
    /// What the caller of TPM2_Quote passed in.
    pub(crate) extra_data: Vec<u8>,
    /// The TPM's clock and counters.
    pub(crate) clock: ClockState,
    /// The TPM's firmware version.
    pub(crate) firmware_version: u64,
    /// Whether the key is a primary key of the endorsement hierarchy, as the service asks for; not known of a bare key.
    pub(crate) endorsement_primary: Option<bool>,
}

/// What the nonce and extraData have to do with each other.
pub(crate) enum NonceStanding<'p> {
    /// None was given: how fresh the quote is is not known.
    NotGiven,
    /// There is no quote to compare it with.
    NoQuote,
    /// extraData is the nonce.
    Same,
    /// extraData is what Rootbound makes of this nonce, without a request for a certificate.
    Bound,
    /// Neither.
    Differs {
        /// As given.
        given: &'p [u8],
        /// As quoted.
        quoted: Vec<u8>,
    },
}

/// PCR values, and what vouches for them.
pub(crate) enum Values {
    /// None were given.
    Missing,
    /// The quote does not vouch for them: it is missing, refused, or unchecked.
    Stated(PcrValues),
    /// The quote was checked, and is over others.
    Refused(EvidenceError, PcrValues),
    /// The quote is over exactly these.
    Signed(Observed),
}

impl Values {
    /// What a quote vouches for.
    pub(crate) fn observed(&self) -> Option<&Observed> {
        match self {
            Self::Signed(observed) => Some(observed),
            Self::Missing | Self::Stated(_) | Self::Refused(..) => None,
        }
    }

    /// The values, whatever vouches for them.
    pub(crate) fn values(&self) -> Option<&PcrValues> {
        match self {
            Self::Missing => None,
            Self::Stated(values) | Self::Refused(_, values) => Some(values),
            Self::Signed(observed) => Some(observed.pcrs()),
        }
    }

    /// Whether there is a value in a bank.
    pub(super) fn has(&self, bank: HashAlgorithm) -> bool {
        self.values().is_some_and(|values| values.iter().any(|(other, _, _)| other == bank))
    }

    /// The bank to look at.
    pub(super) fn bank(&self) -> HashAlgorithm {
        preferred(|bank| self.has(bank))
    }
}

/// A key that verifies, whatever else is known of it.
struct Usable {
    key: VerifyingKey,
    public: Public,
    acceptable: Option<AttestationKey>,
}

pub(super) fn examine(parts: &Parts) -> ExaminedQuote<'_> {
    let signature = parts.signature.as_deref();
    let (key, usable) = match parts.key.as_deref().map(|file| examine_key(file, signature)) {
        None => (KeyStanding::Missing, None),
        Some(Err(standing)) => (standing, None),
        Some(Ok((standing, usable))) => (standing, Some(usable)),
    };
    let (statement, values) = match parts.quote.as_deref() {
        None => (Statement::Missing, stated(parts.pcrs.as_ref())),
        Some(quote) => match signature.zip(usable) {
            None => (claimed(quote), stated(parts.pcrs.as_ref())),
            Some((signature, usable)) => check(quote, signature, &usable, parts.pcrs.as_ref()),
        },
    };
    let nonce = compare(parts.nonce.as_deref(), &statement);
    ExaminedQuote { key, statement, nonce, values }
}

fn stated(pcrs: Option<&PcrValues>) -> Values {
    pcrs.map_or(Values::Missing, |pcrs| Values::Stated(pcrs.clone()))
}

fn examine_key(file: &[u8], signature: Option<&[u8]>) -> Result<(KeyStanding, Usable), KeyStanding> {
    let unusable = |why: &dyn ToString| KeyStanding::Unusable("ak_malformed", why.to_string());
    match form::key(file).map_err(|why| unusable(&why))? {
        KeyForm::PublicArea(area) => {
            let public = Public::parse(&area).map_err(|error| unusable(&error))?;
            match (VerifyingKey::of_public_area(&public), AttestationKey::parse(&area)) {
                (Err(_), Err(error)) => Err(KeyStanding::Unusable(error.code(), error.to_string())),
                (Err(error), Ok(_)) => Err(unusable(&error)),
                (Ok(key), Ok(acceptable)) => {
                    let standing = KeyStanding::Acceptable(key.scheme());
                    Ok((standing, Usable { key, public, acceptable: Some(acceptable) }))
                }
                (Ok(key), Err(error)) => {
                    let standing = KeyStanding::Refused(key.scheme(), error);
                    Ok((standing, Usable { key, public, acceptable: None }))
                }
            }
        }
        KeyForm::Bare(bare) => {
            let Some(signature) = signature else {
                return Err(unusable(&"its scheme is that of the signature, which is missing"));
            };
            let scheme = bare.scheme_of(signature).map_err(|error| unusable(&error))?;
            let public = bare.public_area(scheme).map_err(|error| unusable(&error))?;
            let key =
                VerifyingKey::of_public_area(&public).map_err(|error: VerifyingKeyError| unusable(&error))?;
            Ok((KeyStanding::Bare(scheme), Usable { key, public, acceptable: None }))
        }
    }
}

/// Reads a quote that nothing vouches for.
fn claimed(quote: &[u8]) -> Statement {
    let attest = match Attest::parse(quote) {
        Ok(attest) => attest,
        Err(error) => return Statement::Refused(EvidenceError::QuoteForm(error)),
    };
    let found = attest.attested.kind();
    let Attested::Quote { selection, .. } = attest.attested else {
        return Statement::Refused(EvidenceError::NotAQuote { found });
    };
    Statement::Claimed(Facts {
        selection,
        extra_data: attest.extra_data.to_vec(),
        clock: attest.clock,
        firmware_version: attest.firmware_version,
        endorsement_primary: None,
    })
}

fn check(quote: &[u8], signature: &[u8], usable: &Usable, pcrs: Option<&PcrValues>) -> (Statement, Values) {
    let signed = form::signature(&usable.public, signature)
        .map_err(EvidenceError::SignatureForm)
        .and_then(|signature| OfflineQuote::authenticate(quote, &signature, &usable.key));
    let signed = match signed {
        Ok(signed) => signed,
        Err(error) => return (Statement::Refused(error), stated(pcrs)),
    };
    let facts = Facts {
        selection: signed.selection().clone(),
        extra_data: signed.extra_data().to_vec(),
        clock: signed.clock(),
        firmware_version: signed.firmware_version(),
        endorsement_primary: usable
            .acceptable
            .as_ref()
            .map(|key| key.qualified_name() == *signed.qualified_signer()),
    };
    let values = match pcrs {
        None => Values::Missing,
        Some(pcrs) => {
            let selected = selected(pcrs, &facts.selection);
            match signed.observed(selected) {
                Ok(observed) => Values::Signed(observed),
                Err(error) => Values::Refused(error, pcrs.clone()),
            }
        }
    };
    (Statement::Signed(facts), values)
}

/// Those that the quote selects. A file of a machine's PCRs often has more, of which the quote says nothing.
fn selected(pcrs: &PcrValues, selection: &PcrSelection) -> PcrValues {
    let mut kept = PcrValues::default();
    for (_, pcr, value) in pcrs.iter().filter(|(bank, pcr, _)| selection.pcrs(*bank).contains(*pcr)) {
        kept.insert(pcr, *value);
    }
    kept
}

fn compare<'p>(nonce: Option<&'p [u8]>, statement: &Statement) -> NonceStanding<'p> {
    let Some(given) = nonce else { return NonceStanding::NotGiven };
    let facts = match statement {
        Statement::Missing | Statement::Refused(_) => return NonceStanding::NoQuote,
        Statement::Claimed(facts) | Statement::Signed(facts) => facts,
    };
    if facts.extra_data == given {
        return NonceStanding::Same;
    }
    let bound = <[u8; 32]>::try_from(given).ok().map(|nonce| {
        extra_data(Purpose::Quote, &Nonce::from_bytes(nonce), &EvidenceRequest::bound_parts(None))
    });
    if bound.is_some_and(|bound| bound.as_bytes() == facts.extra_data) {
        return NonceStanding::Bound;
    }
    NonceStanding::Differs { given, quoted: facts.extra_data.clone() }
}
