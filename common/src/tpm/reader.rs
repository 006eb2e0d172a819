//! A bounded reader over untrusted bytes, big-endian as TPM structures are.

/// Why bytes are not the TPM structure that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The input ends inside a field.
    #[error("{what}: needs {needed} bytes, {left} are left")]
    Truncated {
        /// The field.
        what: &'static str,
        /// Bytes that the field takes.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// Bytes are left after the structure.
    #[error("{what}: {left} bytes after its end")]
    Trailing {
        /// The structure.
        what: &'static str,
        /// Bytes that were left.
        left: usize,
    },
    /// A length or count is over what the structure allows.
    #[error("{what}: length {length} is over the limit of {limit}")]
    TooLong {
        /// The field.
        what: &'static str,
        /// The stated length or count.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A length differs from the only one that is right.
    #[error("{what}: length is {length}, must be {expected}")]
    WrongLength {
        /// The field.
        what: &'static str,
        /// The stated length.
        length: usize,
        /// The right length.
        expected: usize,
    },
    /// An identifier is none of the closed list.
    #[error("{what}: identifier {id:#06x} is unknown or not supported")]
    Unknown {
        /// The field.
        what: &'static str,
        /// The identifier as read.
        id: u32,
    },
    /// TPM2B_ATTEST does not begin with TPM_GENERATED_VALUE, so no TPM vouches that it made it.
    #[error("magic is {found:#010x}, not TPM_GENERATED_VALUE (0xff544347)")]
    Magic {
        /// The four bytes as read.
        found: u32,
    },
    /// A value breaks a rule of its structure.
    #[error("{what}: {rule}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// The rule that is broken.
        rule: &'static str,
    },
}

/// Reads fields from the front of a slice; every read is checked.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], ParseError> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(ParseError::Truncated { what, needed: count, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ParseError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(ParseError::Truncated { what, needed: N, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, ParseError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// A UINT16.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, ParseError> {
        self.array(what).map(u16::from_be_bytes)
    }

    /// A UINT32.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, ParseError> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// A UINT64.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, ParseError> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// A TPM2B: a UINT16 length, at most `limit`, and that many bytes.
    pub fn sized(&mut self, limit: usize, what: &'static str) -> Result<&'a [u8], ParseError> {
        let length = usize::from(self.u16(what)?);
        if length > limit {
            return Err(ParseError::TooLong { what, length, limit });
        }
        self.bytes(length, what)
    }

    /// Ends the structure: nothing may be left.
    pub fn finish(self, what: &'static str) -> Result<(), ParseError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(ParseError::Trailing { what, left }),
        }
    }
}

/// Appends a TPM2B: the UINT16 length of `bytes`, then `bytes`.
///
/// # Panics
/// Never for the structures of this crate: none is longer than 65,535 bytes; a longer slice is cut, so that the
/// result stays well-formed and fails whatever check follows.
pub fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend(bytes.iter().take(usize::from(length)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_beyond_the_parent_is_truncated_not_read() {
        let mut reader = Reader::new(&[0, 5, 1, 2, 3]);
        assert_eq!(
            reader.sized(16, "field"),
            Err(ParseError::Truncated { what: "field", needed: 5, left: 3 })
        );
    }

    #[test]
    fn length_over_the_limit_is_refused_before_reading() {
        let mut reader = Reader::new(&[0xff, 0xff]);
        assert_eq!(
            reader.sized(64, "field"),
            Err(ParseError::TooLong { what: "field", length: 65_535, limit: 64 })
        );
    }

    #[test]
    fn what_is_left_over_is_refused() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u8("first"), Ok(1));
        assert_eq!(reader.finish("structure"), Err(ParseError::Trailing { what: "structure", left: 2 }));
    }

    #[test]
    fn sized_bytes_round_trip() {
        let mut out = Vec::new();
        put_sized(&mut out, b"abc");
        assert_eq!(out, [0, 3, b'a', b'b', b'c']);
        assert_eq!(Reader::new(&out).sized(3, "field"), Ok(&b"abc"[..]));
    }
}
