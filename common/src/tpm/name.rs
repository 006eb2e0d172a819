//! TPM2B_NAME: what a TPM calls an object, the hash of its public area.

use std::fmt;

use super::{HashAlgorithm, ParseError, Reader};
use crate::crypto::{Digest, hash};

/// The Name of an object: `nameAlg ‖ H_nameAlg(TPMT_PUBLIC)` (Part 1, 16; Part 2, table 90).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    digest: Digest,
}

impl Name {
    /// The longest Name: a UINT16 and a SHA-512 digest.
    pub const MAX: usize = 66;

    /// Computes the Name of a public area from its marshalled TPMT_PUBLIC.
    #[must_use]
    pub fn of_public_area(algorithm: HashAlgorithm, public_area: &[u8]) -> Self {
        Self { digest: hash(algorithm, &[public_area]) }
    }

    /// Computes the Qualified Name of an object with this Name under a parent (Part 1, 16.2): the hash of the
    /// parent's Qualified Name and this Name, in this Name's algorithm.
    #[must_use]
    pub fn qualified_under(&self, parent_qualified: &[u8]) -> Self {
        let algorithm = self.digest.algorithm();
        Self { digest: hash(algorithm, &[parent_qualified, &self.to_bytes()]) }
    }

    /// Parses the content of a TPM2B_NAME.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        let algorithm = HashAlgorithm::from_tpm(reader.u16("name algorithm")?, "name algorithm")?;
        let digest = reader.bytes(algorithm.size(), "name digest")?;
        reader.finish("name")?;
        Digest::from_slice(algorithm, digest)
            .map(|digest| Self { digest })
            .ok_or(ParseError::Invalid { what: "name digest", rule: "length must fit the algorithm" })
    }

    /// The bytes, as in a TPM2B_NAME.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::MAX);
        out.extend_from_slice(&self.digest.algorithm().tpm_id().to_be_bytes());
        out.extend_from_slice(self.digest.as_bytes());
        out
    }

    /// The algorithm that made it.
    #[must_use]
    pub fn algorithm(&self) -> HashAlgorithm {
        self.digest.algorithm()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.to_bytes()))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}
