//! Serial numbers of certificates.

use std::fmt;
use std::str::FromStr;

use rand_core::CryptoRng;

/// A certificate's serial number: 16 random bytes, positive, and always 16 bytes long (RFC 5280, 4.1.2.2).
///
/// The first byte is between 0x40 and 0x7f, so that the number needs neither a sign byte nor loses a leading zero: its
/// hex is the same everywhere. 126 bits are random.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SerialNumber([u8; 16]);

/// A text or a number is no serial number of this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a serial number has 16 bytes, the first of them from 0x40 to 0x7f, written in lower-case hex")]
pub struct NotASerialNumber;

impl SerialNumber {
    /// Draws a serial number.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        let [first, ..] = &mut bytes;
        *first = (*first & 0x7f) | 0x40;
        Self(bytes)
    }

    /// A serial number out of a certificate or out of the store.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, NotASerialNumber> {
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| NotASerialNumber)?;
        let [first, ..] = bytes;
        if (0x40..=0x7f).contains(&first) { Ok(Self(bytes)) } else { Err(NotASerialNumber) }
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SerialNumber({self})")
    }
}

impl FromStr for SerialNumber {
    type Err = NotASerialNumber;

    fn from_str(text: &str) -> Result<Self, NotASerialNumber> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| NotASerialNumber)?;
        Self::from_slice(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_differ_and_read_back() {
        let mut rng = rootbound_common::random::system();
        let serials: Vec<_> = (0..64).map(|_| SerialNumber::generate(&mut rng)).collect();
        for (position, serial) in serials.iter().enumerate() {
            assert!(!serials[..position].contains(serial));
            assert_eq!(serial.to_string().parse(), Ok(*serial));
            assert_eq!(SerialNumber::from_slice(serial.as_bytes()), Ok(*serial));
        }
    }

    #[test]
    fn other_numbers_are_no_serial_numbers() {
        for bad in [&[0x40; 15][..], &[0x40; 17], &[0x3f; 16], &[0x80; 16], &[0; 16], &[]] {
            assert_eq!(SerialNumber::from_slice(bad), Err(NotASerialNumber), "{bad:02x?}");
        }
        for bad in ["4A4A4A4A4A4A4A4A4A4A4A4A4A4A4A4A", "4a", "", "0x4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a"] {
            assert_eq!(bad.parse::<SerialNumber>(), Err(NotASerialNumber), "{bad}");
        }
    }
}
