//! TPMT_SIGNATURE: a signature as a TPM writes it.

use super::{HashAlgorithm, ParseError, Reader, SignatureScheme, put_sized};

/// TPMU_SIGNATURE: the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureValue<'a> {
    /// As long as the modulus, which the parser cannot know.
    Rsa(&'a [u8]),
    /// r and s, big-endian, leading zeros perhaps left out.
    Ecdsa {
        /// r.
        r: &'a [u8],
        /// s.
        s: &'a [u8],
    },
}

/// TPMT_SIGNATURE (Part 2, table 183). Parsed is not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature<'a> {
    /// The scheme that the signature claims to be of.
    pub scheme: SignatureScheme,
    /// The numbers.
    pub value: SignatureValue<'a>,
}

impl<'a> Signature<'a> {
    /// RSA-4096 with its header.
    pub const MAX: usize = 518;

    /// Parses a TPMT_SIGNATURE; nothing may follow it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        let scheme = reader.u16("signature scheme")?;
        let hash = HashAlgorithm::from_tpm(reader.u16("signature hash")?, "signature hash")?;
        let scheme = SignatureScheme::from_tpm(scheme, hash)?;
        let value = match scheme {
            SignatureScheme::RsaSsa(_) | SignatureScheme::RsaPss(_) => {
                SignatureValue::Rsa(reader.sized(512, "RSA signature")?)
            }
            SignatureScheme::Ecdsa(_) => SignatureValue::Ecdsa {
                r: reader.sized(48, "signature r")?,
                s: reader.sized(48, "signature s")?,
            },
        };
        reader.finish("signature")?;
        Ok(Self { scheme, value })
    }

    /// The TPMT_SIGNATURE.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::MAX);
        out.extend_from_slice(&self.scheme.tpm_id().to_be_bytes());
        out.extend_from_slice(&self.scheme.hash().tpm_id().to_be_bytes());
        match self.value {
            SignatureValue::Rsa(value) => put_sized(&mut out, value),
            SignatureValue::Ecdsa { r, s } => {
                put_sized(&mut out, r);
                put_sized(&mut out, s);
            }
        }
        out
    }
}
