//! TCG_EfiSpecIDEvent: which digests the events of a crypto-agile log carry (PC Client Platform Firmware Profile, 10.4.5.1).

use rootbound_common::tpm::{HashAlgorithm, ParseError, Reader};

use super::reader::LittleEndian;

/// Begins the event.
pub(super) const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";

/// Algorithms in one log: TPMs have five banks at the most; the registry of hash algorithms has ten.
const MAX_ALGORITHMS: usize = 16;
/// Bytes of a digest: those of SHA-512.
const MAX_DIGEST: usize = 64;

/// The algorithms of a log, with their digests' sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpecId {
    algorithms: Vec<(u16, usize)>,
}

impl SpecId {
    /// Parses the data of the first event. Each algorithm occurs once, and those that we know have their own size.
    pub(super) fn parse(data: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(data);
        let signature: [u8; 16] = reader.array("Spec ID signature")?;
        if signature != *SIGNATURE {
            return Err(ParseError::Invalid { what: "Spec ID", rule: "must begin with `Spec ID Event03`" });
        }
        reader.le32("platform class")?;
        reader.bytes(3, "specification version")?;
        // 1 or 2 by the profile, other numbers in real logs; nothing depends on it.
        reader.u8("size of UINTN")?;
        let count = reader.count32(MAX_ALGORITHMS, "number of algorithms")?;
        let mut algorithms = Vec::with_capacity(count);
        for _ in 0..count {
            let id = reader.le16("algorithm")?;
            let size = usize::from(reader.le16("digest size")?);
            let known = HashAlgorithm::from_tpm(id, "algorithm").ok().map(HashAlgorithm::size);
            if let Some(expected) = known.filter(|expected| *expected != size) {
                return Err(ParseError::WrongLength { what: "digest size", length: size, expected });
            }
            if size == 0 || size > MAX_DIGEST {
                return Err(ParseError::TooLong { what: "digest size", length: size, limit: MAX_DIGEST });
            }
            if algorithms.iter().any(|(other, _)| *other == id) {
                return Err(ParseError::Invalid { what: "Spec ID", rule: "no algorithm may occur twice" });
            }
            algorithms.push((id, size));
        }
        if algorithms.is_empty() {
            return Err(ParseError::Invalid { what: "Spec ID", rule: "must name an algorithm" });
        }
        let vendor = usize::from(reader.u8("vendor information size")?);
        reader.bytes(vendor, "vendor information")?;
        reader.finish("Spec ID")?;
        Ok(Self { algorithms })
    }

    /// How many digests an event can carry.
    pub(super) fn len(&self) -> usize {
        self.algorithms.len()
    }

    /// The size of an algorithm's digests, where the log has the algorithm.
    pub(super) fn size(&self, id: u16) -> Option<usize> {
        self.algorithms.iter().find(|(other, _)| *other == id).map(|(_, size)| *size)
    }

    /// The banks that we know.
    pub(super) fn banks(&self) -> impl Iterator<Item = HashAlgorithm> {
        self.algorithms.iter().filter_map(|(id, _)| HashAlgorithm::from_tpm(*id, "algorithm").ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(count: u32, algorithms: &[(u16, u16)], rest: &[u8]) -> Vec<u8> {
        let mut data = SIGNATURE.to_vec();
        data.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        data.extend(count.to_le_bytes());
        for (id, size) in algorithms {
            data.extend([id.to_le_bytes(), size.to_le_bytes()].concat());
        }
        data.extend(rest);
        data
    }

    #[test]
    fn algorithms_are_those_that_the_event_lists() {
        let spec = SpecId::parse(&event(3, &[(4, 20), (11, 32), (0x12, 32)], &[2, 7, 7])).unwrap();
        assert_eq!(spec.banks().collect::<Vec<_>>(), [HashAlgorithm::Sha1, HashAlgorithm::Sha256]);
        assert_eq!((spec.len(), spec.size(0x12), spec.size(12)), (3, Some(32), None));
    }

    /// Attacks 54 and 55.
    #[test]
    fn a_spec_id_that_lies_is_refused() {
        for (data, case) in [
            (event(0xffff_ffff, &[(11, 32)], &[0]), "four billion algorithms"),
            (event(17, &[(11, 32)], &[0]), "more algorithms than there are"),
            (event(0, &[], &[0]), "no algorithm"),
            (event(2, &[(11, 32)], &[0]), "fewer algorithms than counted"),
            (event(1, &[(11, 20)], &[0]), "SHA-256 of 20 bytes"),
            (event(1, &[(0x99, 0)], &[0]), "a digest of no bytes"),
            (event(1, &[(0x99, 65)], &[0]), "a digest of 65 bytes"),
            (event(2, &[(11, 32), (11, 32)], &[0]), "an algorithm twice"),
            (event(1, &[(11, 32)], &[]), "no vendor information size"),
            (event(1, &[(11, 32)], &[9]), "vendor information beyond the end"),
            (event(1, &[(11, 32)], &[0, 1]), "a byte too many"),
            (b"Spec ID Event02\0".to_vec(), "another version"),
        ] {
            assert!(SpecId::parse(&data).is_err(), "{case}");
        }
    }
}
