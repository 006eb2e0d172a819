//! Little-endian fields, as UEFI and the TCG's PC Client logs have them.

use rootbound_common::tpm::{ParseError, Reader};

/// Reads little-endian fields; every read is checked.
pub(super) trait LittleEndian<'a> {
    /// A UINT16.
    fn le16(&mut self, what: &'static str) -> Result<u16, ParseError>;
    /// A UINT32.
    fn le32(&mut self, what: &'static str) -> Result<u32, ParseError>;
    /// A UINT64.
    fn le64(&mut self, what: &'static str) -> Result<u64, ParseError>;
    /// A UINT32 that counts something, at most `limit`.
    fn count32(&mut self, limit: usize, what: &'static str) -> Result<usize, ParseError>;
    /// A UINT64 that counts something, at most `limit`.
    fn count64(&mut self, limit: usize, what: &'static str) -> Result<usize, ParseError>;
}

impl<'a> LittleEndian<'a> for Reader<'a> {
    fn le16(&mut self, what: &'static str) -> Result<u16, ParseError> {
        self.array(what).map(u16::from_le_bytes)
    }

    fn le32(&mut self, what: &'static str) -> Result<u32, ParseError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn le64(&mut self, what: &'static str) -> Result<u64, ParseError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn count32(&mut self, limit: usize, what: &'static str) -> Result<usize, ParseError> {
        let length = usize::try_from(self.le32(what)?).unwrap_or(usize::MAX);
        if length > limit { Err(ParseError::TooLong { what, length, limit }) } else { Ok(length) }
    }

    fn count64(&mut self, limit: usize, what: &'static str) -> Result<usize, ParseError> {
        let length = usize::try_from(self.le64(what)?).unwrap_or(usize::MAX);
        if length > limit { Err(ParseError::TooLong { what, length, limit }) } else { Ok(length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_over_their_limit_are_refused_before_anything_is_read() {
        let what = "field";
        assert_eq!(Reader::new(&[5, 0, 0, 0]).count32(5, what), Ok(5));
        let refused = Reader::new(&[0xff; 4]).count32(5, what);
        assert!(matches!(refused, Err(ParseError::TooLong { limit: 5, .. })), "{refused:?}");
        let refused = Reader::new(&[0xff; 8]).count64(5, what);
        assert!(matches!(refused, Err(ParseError::TooLong { limit: 5, .. })), "{refused:?}");
    }
}
