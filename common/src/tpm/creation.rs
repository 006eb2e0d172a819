//! TPMS_CREATION_DATA: in what state of the TPM a key was made.

use super::{HashAlgorithm, ParseError, PcrSelection, Reader};

/// TPMS_CREATION_DATA (Part 2, table 247). Parsed is not verified: a creation statement's hash must cover the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreationData<'a> {
    /// PCRs that the digest is over.
    pub selection: PcrSelection,
    /// The hash of their values at creation, in the nameAlg of the object; empty without a selection.
    pub pcr_digest: &'a [u8],
    /// TPMA_LOCALITY.
    pub locality: u8,
    /// nameAlg of the parent; `None` for a primary object.
    pub parent_name_algorithm: Option<HashAlgorithm>,
    /// Name of the parent, or the handle of its hierarchy.
    pub parent_name: &'a [u8],
    /// Qualified Name of the parent.
    pub parent_qualified_name: &'a [u8],
    /// What the creator passed in.
    pub outside_info: &'a [u8],
}

impl<'a> CreationData<'a> {
    /// Parses a TPMS_CREATION_DATA; nothing may follow it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        const NULL: u16 = 0x0010;
        let mut reader = Reader::new(bytes);
        let creation = Self {
            selection: PcrSelection::read(&mut reader)?,
            pcr_digest: reader.sized(64, "creation PCR digest")?,
            locality: reader.u8("creation locality")?,
            parent_name_algorithm: match reader.u16("parent nameAlg")? {
                NULL => None,
                id => Some(HashAlgorithm::from_tpm(id, "parent nameAlg")?),
            },
            parent_name: reader.sized(66, "parent name")?,
            parent_qualified_name: reader.sized(66, "parent qualified name")?,
            outside_info: reader.sized(66, "outside info")?,
        };
        reader.finish("creation data")?;
        Ok(creation)
    }
}
