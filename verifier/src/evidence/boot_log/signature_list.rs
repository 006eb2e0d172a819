//! EFI_SIGNATURE_LIST: the keys and hashes in PK, KEK, db, dbx and MokList (UEFI, 32.4.1).

use std::fmt;

use rootbound_common::tpm::{ParseError, Reader};

use super::reader::LittleEndian;
use super::variable::Guid;

/// What the entries of a list are, by its SignatureType.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureKind {
    /// EFI_CERT_X509_GUID: a certificate in DER.
    X509,
    /// EFI_CERT_SHA256_GUID: the Authenticode digest of an image.
    Sha256,
    /// Another kind, which nothing here reads.
    Other(Guid),
}

impl SignatureKind {
    const X509_GUID: Guid = Guid::from_bytes([
        0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72,
    ]);
    const SHA256_GUID: Guid = Guid::from_bytes([
        0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28,
    ]);

    /// The kind with a SignatureType.
    #[must_use]
    pub fn of(guid: Guid) -> Self {
        match guid {
            Self::X509_GUID => Self::X509,
            Self::SHA256_GUID => Self::Sha256,
            other => Self::Other(other),
        }
    }

    /// The SignatureType.
    #[must_use]
    pub const fn guid(self) -> Guid {
        match self {
            Self::X509 => Self::X509_GUID,
            Self::Sha256 => Self::SHA256_GUID,
            Self::Other(guid) => guid,
        }
    }
}

impl fmt::Display for SignatureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X509 => f.write_str("X.509"),
            Self::Sha256 => f.write_str("SHA-256"),
            Self::Other(guid) => write!(f, "{guid}"),
        }
    }
}

/// EFI_SIGNATURE_DATA with the kind of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureEntry<'a> {
    /// What the data are.
    pub kind: SignatureKind,
    /// Who put it there.
    pub owner: Guid,
    /// A certificate, a digest, or what another kind has.
    pub data: &'a [u8],
}

/// Entries of one variable. Microsoft's `dbx` has some 600; a variable of 1 MiB cannot hold more of 48 bytes.
const MAX_ENTRIES: usize = 21_845;
/// Bytes of a list before its header: type, list size, header size, signature size.
const FIXED: usize = 28;
/// Bytes of an owner.
const OWNER: usize = 16;

/// Parses the contents of a signature database: lists one after the other, to the last byte.
///
/// A list's header (SignatureHeaderSize bytes, which no kind defines today) lies between its fixed part and its entries and is
/// skipped, not read as entries (GHSA-9r4w-jg96-92mv). Entries take the rest of the list exactly.
pub fn parse_signature_lists(contents: &[u8]) -> Result<Vec<SignatureEntry<'_>>, ParseError> {
    let mut reader = Reader::new(contents);
    let mut entries = Vec::new();
    while !reader.rest().is_empty() {
        let kind = SignatureKind::of(Guid::from_bytes(reader.array("signature type")?));
        let list = reader.count32(contents.len(), "signature list size")?;
        let header = reader.count32(contents.len(), "signature header size")?;
        let size = reader.count32(contents.len(), "signature size")?;
        let body = list.checked_sub(FIXED).and_then(|rest| rest.checked_sub(header));
        let rule = "list size must hold the header";
        let body = body.ok_or(ParseError::Invalid { what: "signature list", rule })?;
        if size <= OWNER {
            return Err(ParseError::Invalid { what: "signature size", rule: "must be over an owner's 16" });
        }
        if kind == SignatureKind::Sha256 && size != OWNER + 32 {
            return Err(ParseError::WrongLength {
                what: "signature size",
                length: size,
                expected: OWNER + 32,
            });
        }
        if body % size != 0 {
            return Err(ParseError::Invalid { what: "signature list", rule: "entries must fill the list" });
        }
        reader.bytes(header, "signature header")?;
        for _ in 0..body / size {
            if entries.len() >= MAX_ENTRIES {
                let length = entries.len().saturating_add(1);
                return Err(ParseError::TooLong { what: "signature entries", length, limit: MAX_ENTRIES });
            }
            let owner = Guid::from_bytes(reader.array("signature owner")?);
            entries.push(SignatureEntry { kind, owner, data: reader.bytes(size - OWNER, "signature data")? });
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: Guid, header: &[u8], entries: &[&[u8]]) -> Vec<u8> {
        let size = entries.first().map_or(17, |entry| entry.len() + OWNER);
        let word = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
        let mut out = kind.as_bytes().to_vec();
        out.extend(word(FIXED + header.len() + size * entries.len()));
        out.extend([word(header.len()), word(size)].concat());
        out.extend(header);
        for entry in entries {
            out.extend([&[7; OWNER][..], entry].concat());
        }
        out
    }

    const SHA256: Guid = SignatureKind::SHA256_GUID;
    const X509: Guid = SignatureKind::X509_GUID;

    #[test]
    fn lists_follow_each_other_and_each_has_entries_of_one_size() {
        let bytes = [list(SHA256, &[], &[&[1; 32], &[2; 32]]), list(X509, &[], &[b"certificate"])].concat();
        let entries = parse_signature_lists(&bytes).unwrap();
        let found: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.data)).collect();
        assert_eq!(
            found,
            [
                (SignatureKind::Sha256, &[1; 32][..]),
                (SignatureKind::Sha256, &[2; 32]),
                (SignatureKind::X509, b"certificate")
            ]
        );
        assert_eq!(entries[0].owner, Guid::from_bytes([7; 16]));
        assert_eq!(parse_signature_lists(&[]), Ok(vec![]));
    }

    /// Attack 56: a header that is read as an entry shifts every entry after it.
    #[test]
    fn header_of_a_list_is_skipped() {
        let bytes = list(SHA256, &[0xee; 48], &[&[1; 32]]);
        let entries = parse_signature_lists(&bytes).unwrap();
        assert_eq!(entries.iter().map(|entry| entry.data).collect::<Vec<_>>(), [&[1; 32][..]]);
    }

    /// Attack 56.
    #[test]
    fn lists_whose_sizes_lie_are_refused() {
        let good = list(SHA256, &[], &[&[1; 32]]);
        for length in 1..good.len() {
            assert!(parse_signature_lists(&good[..length]).is_err(), "{length} bytes");
        }
        let with = |at: usize, value: u32| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            bytes
        };
        for (bytes, case) in [
            (with(16, 0xffff_ffff), "list of 4 GiB"),
            (with(16, 27), "list smaller than its fixed part"),
            (with(16, 75), "entries do not fill the list"),
            (with(20, 0xffff_ffff), "header of 4 GiB"),
            (with(20, 48), "header in the place of the entry: then nothing is left but bytes after the list"),
            (with(24, 0), "entries of no bytes"),
            (with(24, 16), "entries without data"),
            (with(24, 24), "SHA-256 of eight bytes"),
        ] {
            let parsed = parse_signature_lists(&bytes);
            let nothing = parsed.as_ref().is_ok_and(Vec::is_empty);
            assert!(parsed.is_err() || (nothing && case.starts_with("header in")), "{case}: {parsed:?}");
        }
    }

    #[test]
    fn entries_are_bounded() {
        let mut bytes = list(X509, &[], &vec![&[1][..]; MAX_ENTRIES]);
        assert_eq!(parse_signature_lists(&bytes).unwrap().len(), MAX_ENTRIES);
        bytes.extend(list(X509, &[], &[&[1]]));
        assert!(matches!(parse_signature_lists(&bytes), Err(ParseError::TooLong { .. })));
    }
}
