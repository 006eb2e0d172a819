//! TPMT_PUBLIC: the public area of a key.

use std::fmt;

use super::{Curve, HashAlgorithm, Name, ParseError, Reader, SignatureScheme};

/// TPMA_OBJECT: what a key may do and where it came from (Part 2, table 31).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Attributes(u32);

impl Attributes {
    /// The key cannot move to another TPM.
    pub const FIXED_TPM: Self = Self(1 << 1);
    /// The key cannot move to another parent.
    pub const FIXED_PARENT: Self = Self(1 << 4);
    /// The TPM made the private part.
    pub const SENSITIVE_DATA_ORIGIN: Self = Self(1 << 5);
    /// The user role may be had by authValue.
    pub const USER_WITH_AUTH: Self = Self(1 << 6);
    /// The admin role may be had by policy only.
    pub const ADMIN_WITH_POLICY: Self = Self(1 << 7);
    /// Wrong authorizations do not count towards lockout.
    pub const NO_DA: Self = Self(1 << 10);
    /// The key works only on structures that the TPM made or checked.
    pub const RESTRICTED: Self = Self(1 << 16);
    /// The private part may decrypt.
    pub const DECRYPT: Self = Self(1 << 17);
    /// The private part may sign.
    pub const SIGN: Self = Self(1 << 18);
    /// The key may sign X.509 certificates by TPM2_CertifyX509 only.
    pub const X509_SIGN: Self = Self(1 << 19);

    /// Both sets of attributes.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether at least one of `other` is set.
    #[must_use]
    pub const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// From the UINT32 of a public area.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The UINT32.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attributes({:#010x})", self.0)
    }
}

/// TPMT_SYM_DEF_OBJECT: the symmetric algorithm of a storage key (Part 2, table 149).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symmetric {
    /// TPM_ALG_NULL: not a restricted decryption key.
    None,
    /// AES in CFB mode with a key of so many bits.
    AesCfb {
        /// 128 or 256.
        key_bits: u16,
    },
}

impl Symmetric {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        const AES: u16 = 0x0006;
        const CFB: u16 = 0x0043;
        match reader.u16("symmetric algorithm")? {
            SignatureScheme::NULL => Ok(Self::None),
            AES => {
                let key_bits = reader.u16("symmetric key bits")?;
                let mode = reader.u16("symmetric mode")?;
                if !matches!(key_bits, 128 | 256) || mode != CFB {
                    return Err(ParseError::Invalid {
                        what: "symmetric algorithm",
                        rule: "AES must be of 128 or 256 bits in CFB mode",
                    });
                }
                Ok(Self::AesCfb { key_bits })
            }
            id => Err(ParseError::Unknown { what: "symmetric algorithm", id: u32::from(id) }),
        }
    }
}

/// TPMU_PUBLIC_PARMS with TPMU_PUBLIC_ID: the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyParameters {
    /// TPMS_RSA_PARMS and the modulus (Part 2, table 212).
    Rsa {
        /// Of a restricted decryption key.
        symmetric: Symmetric,
        /// `None` is TPM_ALG_NULL: the scheme is chosen at each use.
        scheme: Option<SignatureScheme>,
        /// Public exponent, 65537 for the wire's 0.
        exponent: u32,
        /// Big-endian, as long as the key.
        modulus: Vec<u8>,
    },
    /// TPMS_ECC_PARMS and the point (Part 2, table 215). The point is *not* known to be on the curve here.
    Ecc {
        /// Of a restricted decryption key.
        symmetric: Symmetric,
        /// `None` is TPM_ALG_NULL: the scheme is chosen at each use.
        scheme: Option<SignatureScheme>,
        /// The curve.
        curve: Curve,
        /// x, padded to the curve's size.
        x: Vec<u8>,
        /// y, padded to the curve's size.
        y: Vec<u8>,
    },
}

impl KeyParameters {
    /// The signature scheme that the key is tied to.
    #[must_use]
    pub fn scheme(&self) -> Option<SignatureScheme> {
        match self {
            Self::Rsa { scheme, .. } | Self::Ecc { scheme, .. } => *scheme,
        }
    }

    /// The symmetric algorithm that the key protects its children with.
    #[must_use]
    pub fn symmetric(&self) -> Symmetric {
        match self {
            Self::Rsa { symmetric, .. } | Self::Ecc { symmetric, .. } => *symmetric,
        }
    }
}

/// TPMT_PUBLIC: the public area of an asymmetric key (Part 2, table 216), with the bytes that it was read from.
#[derive(Clone, PartialEq, Eq)]
pub struct Public {
    bytes: Vec<u8>,
    name_algorithm: HashAlgorithm,
    attributes: Attributes,
    auth_policy: Vec<u8>,
    parameters: KeyParameters,
}

impl Public {
    /// No TPMT_PUBLIC of a supported key is longer: RSA-4096 with a SHA-512 policy takes 600 bytes.
    pub const MAX: usize = 1024;

    const RSA: u16 = 0x0001;
    const ECC: u16 = 0x0023;

    /// Parses a TPMT_PUBLIC; nothing may follow it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > Self::MAX {
            return Err(ParseError::TooLong { what: "public area", length: bytes.len(), limit: Self::MAX });
        }
        let mut reader = Reader::new(bytes);
        let kind = reader.u16("key type")?;
        let name_algorithm = HashAlgorithm::from_tpm(reader.u16("nameAlg")?, "nameAlg")?;
        let attributes = Attributes(reader.u32("object attributes")?);
        let auth_policy = reader.sized(64, "authPolicy")?;
        if !auth_policy.is_empty() && auth_policy.len() != name_algorithm.size() {
            return Err(ParseError::WrongLength {
                what: "authPolicy",
                length: auth_policy.len(),
                expected: name_algorithm.size(),
            });
        }
        let parameters = match kind {
            Self::RSA => read_rsa(&mut reader)?,
            Self::ECC => read_ecc(&mut reader)?,
            id => return Err(ParseError::Unknown { what: "key type", id: u32::from(id) }),
        };
        reader.finish("public area")?;
        Ok(Self {
            bytes: bytes.to_vec(),
            name_algorithm,
            attributes,
            auth_policy: auth_policy.to_vec(),
            parameters,
        })
    }

    /// Parses a TPM2B_PUBLIC: a length and a TPMT_PUBLIC of exactly that length.
    pub fn parse_sized(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        let area = reader.sized(Self::MAX, "public area")?;
        reader.finish("TPM2B_PUBLIC")?;
        Self::parse(area)
    }

    /// The TPMT_PUBLIC as it was read.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The Name, computed from the bytes.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::of_public_area(self.name_algorithm, &self.bytes)
    }

    /// The hash of the Name.
    #[must_use]
    pub fn name_algorithm(&self) -> HashAlgorithm {
        self.name_algorithm
    }

    /// The attributes.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// The policy digest; empty where there is none.
    #[must_use]
    pub fn auth_policy(&self) -> &[u8] {
        &self.auth_policy
    }

    /// The key.
    #[must_use]
    pub fn parameters(&self) -> &KeyParameters {
        &self.parameters
    }
}

impl fmt::Debug for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Public")
            .field("name", &self.name())
            .field("attributes", &self.attributes)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

fn read_scheme(reader: &mut Reader<'_>) -> Result<Option<SignatureScheme>, ParseError> {
    let id = reader.u16("scheme")?;
    if id == SignatureScheme::NULL {
        return Ok(None);
    }
    let hash = HashAlgorithm::from_tpm(reader.u16("scheme hash")?, "scheme hash")?;
    SignatureScheme::from_tpm(id, hash).map(Some)
}

fn read_rsa(reader: &mut Reader<'_>) -> Result<KeyParameters, ParseError> {
    const DEFAULT_EXPONENT: u32 = 65_537;
    let symmetric = Symmetric::read(reader)?;
    let scheme = read_scheme(reader)?;
    if matches!(scheme, Some(SignatureScheme::Ecdsa(_))) {
        return Err(ParseError::Invalid { what: "scheme", rule: "an RSA key cannot sign by ECDSA" });
    }
    let bits = reader.u16("RSA key bits")?;
    if !matches!(bits, 2048 | 3072 | 4096) {
        return Err(ParseError::Invalid { what: "RSA key bits", rule: "must be 2048, 3072 or 4096" });
    }
    let exponent = match reader.u32("RSA exponent")? {
        0 | DEFAULT_EXPONENT => DEFAULT_EXPONENT,
        _ => return Err(ParseError::Invalid { what: "RSA exponent", rule: "must be 65537 (or 0 for it)" }),
    };
    let modulus = reader.sized(512, "RSA modulus")?;
    let expected = usize::from(bits / 8);
    if modulus.len() != expected {
        return Err(ParseError::WrongLength { what: "RSA modulus", length: modulus.len(), expected });
    }
    if modulus.first().is_none_or(|byte| byte & 0x80 == 0) {
        return Err(ParseError::Invalid { what: "RSA modulus", rule: "its top bit must be set" });
    }
    Ok(KeyParameters::Rsa { symmetric, scheme, exponent, modulus: modulus.to_vec() })
}

fn read_ecc(reader: &mut Reader<'_>) -> Result<KeyParameters, ParseError> {
    let symmetric = Symmetric::read(reader)?;
    let scheme = read_scheme(reader)?;
    if matches!(scheme, Some(SignatureScheme::RsaSsa(_) | SignatureScheme::RsaPss(_))) {
        return Err(ParseError::Invalid { what: "scheme", rule: "an ECC key cannot sign by RSA" });
    }
    let curve = Curve::from_tpm(reader.u16("curve")?)?;
    let kdf = reader.u16("KDF scheme")?;
    if kdf != SignatureScheme::NULL {
        return Err(ParseError::Unknown { what: "KDF scheme", id: u32::from(kdf) });
    }
    let x = read_coordinate(reader, curve, "x")?;
    let y = read_coordinate(reader, curve, "y")?;
    Ok(KeyParameters::Ecc { symmetric, scheme, curve, x, y })
}

/// Some TPMs leave out leading zeros (Part 1, C.8 asks for padding since revision 1.38): pad here, once.
fn read_coordinate(reader: &mut Reader<'_>, curve: Curve, what: &'static str) -> Result<Vec<u8>, ParseError> {
    let read = reader.sized(curve.size(), what)?;
    if read.iter().all(|byte| *byte == 0) {
        return Err(ParseError::Invalid { what, rule: "must not be zero" });
    }
    let mut padded = vec![0; curve.size() - read.len()];
    padded.extend_from_slice(read);
    Ok(padded)
}
