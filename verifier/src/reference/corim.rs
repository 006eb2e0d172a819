//! Sets as a Concise Reference Integrity Manifest (draft-ietf-rats-corim-11): another form of the document that verifiers
//! exchange, for what both can express.
//!
//! - PCR sets: a CoMID, whose reference triples have `integrity-registers` named by the PCR, as the draft proposes for TPMs (5.1.4.1.4).
//!   Entries of one register's digests are of different algorithms, so that each further accepted value is a triple of its own.
//! - Boot sets: a CoMID, a triple for each value; its key (`mkey`) says what is measured, which is what [`PROFILE`] adds.
//! - Digest sets: a CoSWID (RFC 9393), whose payload names files with their hashes. CoMID has no place for a path.
//!
//! What sets cannot hold is refused by name, never left out: every key of every map means something here, or the whole document
//! is refused. Signed is a COSE_Sign1 (RFC 9052).
//!
//! - `cbor`: items, one after the other · `signed`: who signed, how, until when · `manifest`: the CoRIM and its tags · `comid`, `coswid`:
//!   values · `write`: the same, the other way round

mod cbor;
mod comid;
mod coswid;
mod manifest;
mod signed;
mod write;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::HashAlgorithm;

use super::exchange::TakenSet;

pub use cbor::CborFault;
pub(super) use manifest::read;
pub(super) use signed::{Envelope, Sign1};
pub use signed::{ToSign, is_corim};
pub use write::{Unwritable, Written, write};

/// The profile (`urn:`) that says what the keys of measurements in boot sets mean. PCR and digest sets need none.
pub const PROFILE: &str = "urn:rootbound:corim:boot-values:1";

/// Bytes of a CoRIM. One of a distribution's whole archive would have some 200 MB: that goes as JSON, compressed.
pub const MAX_BYTES: usize = 64 << 20;

/// What a CoRIM says beside its sets.
#[derive(Debug)]
pub(super) struct Manifest {
    /// Who made it, as it says.
    pub(super) creator: Option<String>,
    /// When it holds.
    pub(super) validity: Vec<Validity>,
    /// What is in it.
    pub(super) sets: Vec<TakenSet>,
}

/// From when to when something holds, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Validity {
    /// Not before.
    pub(super) from: Option<i64>,
    /// Not after.
    pub(super) until: Option<i64>,
}

impl Validity {
    /// Whether it holds now.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), CorimError> {
        let time = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        if let Some(from) = self.from.map(time).filter(|from| now < *from) {
            return Err(CorimError::NotYetValid(from));
        }
        match self.until.map(time).filter(|until| now > *until) {
            Some(until) => Err(CorimError::Expired(until)),
            None => Ok(()),
        }
    }
}

/// Why a CoRIM is not imported. Places are bytes of the file, from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorimError {
    /// Not the CBOR that is taken.
    #[error("CoRIM: byte {at}: {fault}")]
    Cbor {
        /// Where.
        at: usize,
        /// Why.
        fault: CborFault,
    },
    /// Neither form, or one in another, or one of an older draft.
    #[error("CoRIM: byte {at}: neither a COSE_Sign1 (tag 18) nor a CoRIM (tag 501)")]
    NotACorim {
        /// Where.
        at: usize,
    },
    /// Something else than what has to be there.
    #[error("CoRIM: byte {at}: this is not {what}")]
    Shape {
        /// Where.
        at: usize,
        /// What has to be there.
        what: &'static str,
    },
    /// Something that has to be there is not.
    #[error("CoRIM: byte {at}: here {what} is missing")]
    Missing {
        /// The end of what has not got it.
        at: usize,
        /// What.
        what: &'static str,
    },
    /// What no set has a place for.
    #[error("CoRIM: byte {at}: {what}: sets have no place for it, and nothing is left out")]
    Inexpressible {
        /// Where.
        at: usize,
        /// What.
        what: String,
    },
    /// States that hold together only.
    #[error(
        "CoRIM: byte {at}: several registers are accepted together, as one of several states: sets accept each value of a PCR by itself"
    )]
    Joint {
        /// The second triple.
        at: usize,
    },
    /// It is of another profile.
    #[error("CoRIM: byte {at}: its profile is not `{PROFILE}`")]
    Profile {
        /// Where.
        at: usize,
    },
    /// What it calls a set is no name.
    #[error(
        "CoRIM: byte {at}: what it is about is called by no name that a set may have (--name says one, where there is one set)"
    )]
    Name {
        /// The tag.
        at: usize,
    },
    /// Something that has to be signed is not.
    #[error("CoRIM: header parameter {0} stands where no signature protects it")]
    Unprotected(String),
    /// Something that has to be understood is not.
    #[error("CoRIM: header parameter {0} is critical, and means nothing to us")]
    Critical(String),
    /// Another algorithm.
    #[error("CoRIM: it is signed by COSE algorithm {0}, not by ES256 (-7) or EdDSA (-8)")]
    Algorithm(String),
    /// Something else is signed.
    #[error("CoRIM: what is signed is not `{}`", signed::CONTENT_TYPE)]
    ContentType,
    /// The signature is of something that is elsewhere.
    #[error("CoRIM: it has a signature or a hash of a CoRIM that is elsewhere")]
    Detached,
    /// Its time has not come.
    #[error("CoRIM: it holds from {0} on")]
    NotYetValid(Timestamp),
    /// Its time is over.
    #[error("CoRIM: it held until {0}")]
    Expired(Timestamp),
}

impl CorimError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Cbor { .. } => "import_corim_encoding",
            Self::NotACorim { .. } => "import_corim_tag",
            Self::Shape { .. } => "import_corim_shape",
            Self::Missing { .. } => "import_corim_incomplete",
            Self::Inexpressible { .. } => "import_corim_inexpressible",
            Self::Joint { .. } => "import_corim_joint",
            Self::Profile { .. } => "import_corim_profile",
            Self::Name { .. } => "import_corim_name",
            Self::Unprotected(_) => "import_corim_unprotected",
            Self::Critical(_) => "import_corim_critical",
            Self::Algorithm(_) => "import_corim_algorithm",
            Self::ContentType => "import_corim_content_type",
            Self::Detached => "import_corim_detached",
            Self::NotYetValid(_) => "import_not_yet_valid",
            Self::Expired(_) => "import_expired",
        }
    }
}

/// How the registry of named information calls a hash (IANA, as RFC 9393, 2.9.1 and the draft, 7.7 use it). SHA-1 is not in it.
const HASHES: [(i64, &str, HashAlgorithm); 3] = [
    (1, "sha-256", HashAlgorithm::Sha256),
    (7, "sha-384", HashAlgorithm::Sha384),
    (8, "sha-512", HashAlgorithm::Sha512),
];

/// A digest: `[alg, bytes]`.
fn digest(reader: &mut cbor::Reader<'_>) -> Result<Digest, CorimError> {
    const WHAT: &str = "a digest: [algorithm, bytes of its size]";
    reader.exactly(2, WHAT)?;
    let at = reader.at();
    let algorithm = match reader.item()? {
        cbor::Item::Number(number) => HASHES.iter().find(|(id, _, _)| i128::from(*id) == number),
        cbor::Item::Text(text) => HASHES.iter().find(|(_, name, _)| *name == text),
        _ => return Err(CorimError::Shape { at, what: WHAT }),
    };
    let unknown = || CorimError::Inexpressible {
        at,
        what: "a digest by another algorithm than sha-256, sha-384 and sha-512".to_owned(),
    };
    let (_, _, algorithm) = algorithm.ok_or_else(unknown)?;
    let (bytes, at) = reader.bytes(WHAT)?;
    Digest::from_slice(*algorithm, bytes).ok_or(CorimError::Shape { at, what: WHAT })
}

/// A member of a map that no set has a place for.
fn unknown(at: usize, map: &str, key: cbor::Key<'_>) -> CorimError {
    CorimError::Inexpressible { at, what: format!("{map}: member {key}") }
}

#[cfg(test)]
mod tests;
