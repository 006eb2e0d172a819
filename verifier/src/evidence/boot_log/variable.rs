//! UEFI_VARIABLE_DATA: a UEFI variable, its name included, as PCRs 1 and 7 measure it (PFP, 10.2.6).

use std::fmt;

use rootbound_common::tpm::{ParseError, Reader};

use super::reader::LittleEndian;
use super::text;

/// EFI_GUID, in the order of its bytes in memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 16]);

impl Guid {
    /// EFI_GLOBAL_VARIABLE: SecureBoot, PK, KEK, BootOrder, Boot####.
    pub const GLOBAL: Self =
        Self([0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
    /// EFI_IMAGE_SECURITY_DATABASE_GUID: db, dbx, dbt, dbr.
    pub const IMAGE_SECURITY: Self = Self([
        0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f,
    ]);
    /// SHIM_LOCK_GUID: MokList, SbatLevel and whatever else is shim's.
    pub const SHIM: Self = Self([
        0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23,
    ]);

    /// From the bytes in memory.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes in memory.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, rest @ ..] = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-",
            u32::from_le_bytes([a, b, c, d]),
            u16::from_le_bytes([e, g]),
            u16::from_le_bytes([h, i])
        )?;
        for (position, byte) in rest.iter().enumerate() {
            let dash = if position == 2 { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The variables that say whether and with which keys Secure Boot is on, in the order in which PCR 7 measures them
/// (PFP, 3.3.4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigurationVariable {
    /// Whether images are checked.
    SecureBoot,
    /// The platform key.
    Pk,
    /// Who may change `db` and `dbx`.
    Kek,
    /// What may run.
    Db,
    /// What may not.
    Dbx,
}

impl ConfigurationVariable {
    /// Every member, in order.
    pub const ALL: [Self; 5] = [Self::SecureBoot, Self::Pk, Self::Kek, Self::Db, Self::Dbx];

    /// The name of the variable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SecureBoot => "SecureBoot",
            Self::Pk => "PK",
            Self::Kek => "KEK",
            Self::Db => "db",
            Self::Dbx => "dbx",
        }
    }

    /// Whose variable it is.
    #[must_use]
    pub const fn vendor(self) -> Guid {
        match self {
            Self::SecureBoot | Self::Pk | Self::Kek => Guid::GLOBAL,
            Self::Db | Self::Dbx => Guid::IMAGE_SECURITY,
        }
    }
}

impl fmt::Display for ConfigurationVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A UEFI variable out of an event's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable<'a> {
    vendor: Guid,
    name: String,
    contents: &'a [u8],
}

impl<'a> Variable<'a> {
    /// Characters of a name. `Boot####` and `MokListTrusted` are short; vendors' names have some dozens.
    const MAX_NAME: usize = 256;

    /// Parses a UEFI_VARIABLE_DATA that takes all of `data`.
    pub fn parse(data: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(data);
        let vendor = Guid(reader.array("variable's GUID")?);
        let name_length = reader.count64(Self::MAX_NAME, "length of the variable's name")?;
        let length = reader.count64(data.len(), "length of the variable")?;
        let name = reader.bytes(name_length.saturating_mul(2), "variable's name")?;
        let rule = "must be UTF-16 without NUL";
        let name = text::utf16(name)
            .filter(|text| !text.contains('\0') && !name.ends_with(&[0, 0]))
            .ok_or(ParseError::Invalid { what: "variable's name", rule })?;
        let contents = reader.bytes(length, "variable")?;
        reader.finish("variable")?;
        Ok(Self { vendor, name, contents })
    }

    /// Whose variable it is.
    #[must_use]
    pub fn vendor(&self) -> Guid {
        self.vendor
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is in it.
    #[must_use]
    pub fn contents(&self) -> &'a [u8] {
        self.contents
    }

    /// Which of the Secure Boot variables it is, by its vendor and its name.
    #[must_use]
    pub fn configuration(&self) -> Option<ConfigurationVariable> {
        ConfigurationVariable::ALL
            .into_iter()
            .find(|variable| variable.vendor() == self.vendor && variable.name() == self.name)
    }

    /// The bytes; for tests and whoever makes logs.
    #[must_use]
    pub fn marshal(vendor: Guid, name: &str, contents: &[u8]) -> Vec<u8> {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes();
        [&vendor.0[..], &count(name.len() / 2), &count(contents.len()), &name, contents].concat()
    }
}

/// What the variable SecureBoot says (UEFI, 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureBootState {
    /// 1: images are checked.
    On,
    /// 0: they are not.
    Off,
    /// Without contents, as firmware measures it that has no such variable: neither on nor off.
    Absent,
    /// Anything else.
    Invalid,
}

impl SecureBootState {
    /// From the variable's contents.
    #[must_use]
    pub const fn of(contents: &[u8]) -> Self {
        match contents {
            [1] => Self::On,
            [0] => Self::Off,
            [] => Self::Absent,
            _ => Self::Invalid,
        }
    }
}

impl fmt::Display for SecureBootState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Absent => "absent",
            Self::Invalid => "neither 0 nor 1",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_its_vendor_its_name_and_its_contents() {
        let data = Variable::marshal(Guid::GLOBAL, "PK", b"key");
        let variable = Variable::parse(&data).unwrap();
        assert_eq!(
            (variable.vendor(), variable.name(), variable.contents()),
            (Guid::GLOBAL, "PK", &b"key"[..])
        );
        assert_eq!(variable.configuration(), Some(ConfigurationVariable::Pk));
        assert_eq!(Guid::GLOBAL.to_string(), "8be4df61-93ca-11d2-aa0d-00e098032b8c");
        let other = Variable::marshal(Guid::SHIM, "PK", b"key");
        assert_eq!(Variable::parse(&other).unwrap().configuration(), None, "another vendor's PK is no PK");
    }

    /// Attacks 55 and 57.
    #[test]
    fn malformed_variables_are_refused() {
        let good = Variable::marshal(Guid::GLOBAL, "PK", b"key");
        for length in 0..good.len() {
            assert!(Variable::parse(&good[..length]).is_err(), "{length} bytes");
        }
        assert!(Variable::parse(&[&good[..], &[0]].concat()).is_err(), "a byte too many");
        let mut endless = good.clone();
        endless[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(Variable::parse(&endless), Err(ParseError::TooLong { .. })));
        let mut surrogate = good.clone();
        surrogate[32..34].copy_from_slice(&0xd800u16.to_le_bytes());
        assert!(matches!(Variable::parse(&surrogate), Err(ParseError::Invalid { .. })));
        for name in ["P\0K", "PK\0"] {
            let with_nul = Variable::marshal(Guid::GLOBAL, name, b"");
            assert!(matches!(Variable::parse(&with_nul), Err(ParseError::Invalid { .. })));
        }
    }

    /// Attack 60.
    #[test]
    fn secure_boot_is_on_only_by_the_byte_1() {
        for (contents, expected) in [
            (&[1][..], SecureBootState::On),
            (&[0], SecureBootState::Off),
            (&[], SecureBootState::Absent),
            (&[2], SecureBootState::Invalid),
            (&[1, 0], SecureBootState::Invalid),
        ] {
            assert_eq!(SecureBootState::of(contents), expected);
        }
    }
}
