//! PCR numbers, selections and values.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{HashAlgorithm, ParseError, Reader};
use crate::crypto::{Digest, Hasher};

/// The number of a PCR, 0 to 23 (PC Client Platform TPM Profile, 4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PcrIndex(u8);

impl PcrIndex {
    /// PCRs of a PC Client TPM.
    pub const COUNT: u8 = 24;

    /// The PCR with a number.
    #[must_use]
    pub const fn new(index: u8) -> Option<Self> {
        if index < Self::COUNT { Some(Self(index)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for PcrIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for PcrIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for PcrIndex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let index = u8::deserialize(deserializer)?;
        Self::new(index).ok_or_else(|| de::Error::custom("a PCR number is 0 to 23"))
    }
}

/// A set of PCR numbers, as the three-byte bitmap of TPMS_PCR_SELECTION.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PcrSet(u32);

impl PcrSet {
    /// The set without members.
    pub const EMPTY: Self = Self(0);

    /// This set with `index` added.
    #[must_use]
    pub const fn with(self, index: PcrIndex) -> Self {
        Self(self.0 | 1 << index.0)
    }

    /// Whether `index` is a member.
    #[must_use]
    pub const fn contains(self, index: PcrIndex) -> bool {
        self.0 & (1 << index.0) != 0
    }

    /// Whether every member is one of `other` too.
    #[must_use]
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there is no member.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many members there are.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The members in rising order, the order in which a quote hashes them.
    pub fn iter(self) -> impl Iterator<Item = PcrIndex> {
        (0..PcrIndex::COUNT).map(PcrIndex).filter(move |index| self.contains(*index))
    }

    fn from_bitmap([a, b, c]: [u8; 3]) -> Self {
        Self(u32::from_le_bytes([a, b, c, 0]))
    }

    fn to_bitmap(self) -> [u8; 3] {
        let [a, b, c, _] = self.0.to_le_bytes();
        [a, b, c]
    }
}

impl FromIterator<PcrIndex> for PcrSet {
    fn from_iter<I: IntoIterator<Item = PcrIndex>>(indices: I) -> Self {
        indices.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for PcrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(PcrIndex::get)).finish()
    }
}

impl Serialize for PcrSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for PcrSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = PcrSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of different PCR numbers")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut members: A) -> Result<PcrSet, A::Error> {
                let mut set = PcrSet::EMPTY;
                while let Some(index) = members.next_element::<PcrIndex>()? {
                    if set.contains(index) {
                        return Err(de::Error::custom(format_args!("PCR {index} is listed twice")));
                    }
                    set = set.with(index);
                }
                Ok(set)
            }
        }
        deserializer.deserialize_seq(Members)
    }
}

/// One bank's part of a [`PcrSelection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BankSelection {
    bank: HashAlgorithm,
    pcrs: PcrSet,
}

/// TPML_PCR_SELECTION: which PCRs of which banks, in order (Part 2, tables 93 and 102).
///
/// The order of banks is part of it: a quote hashes values in the order of its selection. No bank occurs twice.
/// A selection may be empty, since a TPM signs that too; whoever needs PCRs compares with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<BankSelection>", into = "Vec<BankSelection>")]
pub struct PcrSelection {
    banks: Vec<BankSelection>,
}

impl PcrSelection {
    /// Banks in one selection: as many as there are algorithms, since none occurs twice.
    const MAX_BANKS: usize = HashAlgorithm::ALL.len();
    /// Bytes of the bitmap: 24 PCRs. Part 2 allows others; PC Client TPMs have exactly this.
    const BITMAP: u8 = 3;

    /// Selects PCRs of one bank.
    #[must_use]
    pub fn of_bank(bank: HashAlgorithm, pcrs: PcrSet) -> Self {
        Self { banks: vec![BankSelection { bank, pcrs }] }
    }

    /// Selects PCRs of several banks, in this order; `None` when a bank occurs twice.
    #[must_use]
    pub fn of_banks(banks: impl IntoIterator<Item = (HashAlgorithm, PcrSet)>) -> Option<Self> {
        let banks = banks.into_iter().map(|(bank, pcrs)| BankSelection { bank, pcrs }).collect();
        Self::try_from_banks(banks).ok()
    }

    fn try_from_banks(banks: Vec<BankSelection>) -> Result<Self, ParseError> {
        let twice = (banks.iter().enumerate())
            .any(|(position, one)| banks.iter().take(position).any(|other| other.bank == one.bank));
        if twice {
            return Err(ParseError::Invalid { what: "PCR selection", rule: "no bank may occur twice" });
        }
        Ok(Self { banks })
    }

    /// The banks with their PCRs, in order.
    pub fn banks(&self) -> impl Iterator<Item = (HashAlgorithm, PcrSet)> {
        self.banks.iter().map(|selection| (selection.bank, selection.pcrs))
    }

    /// The PCRs of one bank; empty where the bank is not selected.
    #[must_use]
    pub fn pcrs(&self, bank: HashAlgorithm) -> PcrSet {
        self.banks().find(|(other, _)| *other == bank).map_or(PcrSet::EMPTY, |(_, pcrs)| pcrs)
    }

    /// Whether no PCR is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.banks.iter().all(|selection| selection.pcrs.is_empty())
    }

    /// Reads a TPML_PCR_SELECTION from the front of `reader`.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let stated = reader.u32("PCR selection count")?;
        let count = usize::try_from(stated).unwrap_or(usize::MAX);
        if count > Self::MAX_BANKS {
            return Err(ParseError::TooLong {
                what: "PCR selection count",
                length: count,
                limit: Self::MAX_BANKS,
            });
        }
        let mut banks = Vec::with_capacity(count);
        for _ in 0..count {
            let bank = HashAlgorithm::from_tpm(reader.u16("PCR bank")?, "PCR bank")?;
            let size = reader.u8("PCR bitmap size")?;
            if size != Self::BITMAP {
                return Err(ParseError::WrongLength {
                    what: "PCR bitmap",
                    length: usize::from(size),
                    expected: usize::from(Self::BITMAP),
                });
            }
            let pcrs = PcrSet::from_bitmap(reader.array("PCR bitmap")?);
            banks.push(BankSelection { bank, pcrs });
        }
        Self::try_from_banks(banks)
    }

    /// Appends the TPML_PCR_SELECTION.
    pub fn marshal(&self, out: &mut Vec<u8>) {
        // `banks` holds each of four algorithms at most once, so that the count fits.
        let count = u32::try_from(self.banks.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for selection in &self.banks {
            out.extend_from_slice(&selection.bank.tpm_id().to_be_bytes());
            out.push(Self::BITMAP);
            out.extend_from_slice(&selection.pcrs.to_bitmap());
        }
    }
}

impl TryFrom<Vec<BankSelection>> for PcrSelection {
    type Error = ParseError;

    fn try_from(banks: Vec<BankSelection>) -> Result<Self, ParseError> {
        Self::try_from_banks(banks)
    }
}

impl From<PcrSelection> for Vec<BankSelection> {
    fn from(selection: PcrSelection) -> Self {
        selection.banks
    }
}

impl fmt::Display for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (bank, pcrs)) in self.banks().enumerate() {
            let comma = if position == 0 { "" } else { "+" };
            write!(f, "{comma}{bank}:")?;
            for (position, index) in pcrs.iter().enumerate() {
                let comma = if position == 0 { "" } else { "," };
                write!(f, "{comma}{index}")?;
            }
        }
        Ok(())
    }
}

/// PCR values as somebody states them: worth nothing until a quote's digest covers them.
///
/// On the wire: `{"sha256": {"0": "<hex>", …}, …}`; a bank, a PCR or a byte too many is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PcrValues {
    banks: BTreeMap<HashAlgorithm, BTreeMap<PcrIndex, Digest>>,
}

/// Why values do not give the digest of a selection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PcrDigestError {
    /// A selected PCR has no value.
    #[error("no value for {bank} PCR {pcr}, which the quote selects")]
    Missing {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
    },
    /// A value is stated for a PCR that the selection leaves out: nothing vouches for it.
    #[error("a value for {bank} PCR {pcr}, which the quote does not select")]
    NotSelected {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
    },
}

impl PcrValues {
    /// Sets the value of a PCR; its algorithm names the bank.
    pub fn insert(&mut self, index: PcrIndex, value: Digest) {
        self.banks.entry(value.algorithm()).or_default().insert(index, value);
    }

    /// The value of a PCR.
    #[must_use]
    pub fn get(&self, bank: HashAlgorithm, index: PcrIndex) -> Option<&Digest> {
        self.banks.get(&bank)?.get(&index)
    }

    /// Every value, by bank and PCR, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = (HashAlgorithm, PcrIndex, &Digest)> {
        self.banks
            .iter()
            .flat_map(|(bank, values)| values.iter().map(|(index, value)| (*bank, *index, value)))
    }

    /// The digest that a quote over `selection` states for these values (Part 1, 17.6.3; Part 3, 18.4): the hash,
    /// in the algorithm of the *signature scheme*, over all values in the selection's order. The values must be
    /// exactly those that are selected.
    pub fn digest(
        &self,
        selection: &PcrSelection,
        algorithm: HashAlgorithm,
    ) -> Result<Digest, PcrDigestError> {
        for (bank, pcr, _) in self.iter() {
            if !selection.pcrs(bank).contains(pcr) {
                return Err(PcrDigestError::NotSelected { bank, pcr });
            }
        }
        let mut hasher = Hasher::new(algorithm);
        for (bank, pcrs) in selection.banks() {
            for pcr in pcrs.iter() {
                let value = self.get(bank, pcr).ok_or(PcrDigestError::Missing { bank, pcr })?;
                hasher.update(value.as_bytes());
            }
        }
        Ok(hasher.finish())
    }
}

impl Serialize for PcrValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.banks.iter().map(|(bank, values)| {
            let values: BTreeMap<u8, String> =
                values.iter().map(|(index, value)| (index.get(), value.to_string())).collect();
            (bank, values)
        }))
    }
}

impl<'de> Deserialize<'de> for PcrValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BanksVisitor)
    }
}

struct BanksVisitor;

impl<'de> Visitor<'de> for BanksVisitor {
    type Value = PcrValues;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from bank to a map from PCR number to hex")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PcrValues, A::Error> {
        let mut banks = BTreeMap::new();
        while let Some(bank) = map.next_key::<HashAlgorithm>()? {
            let values = map.next_value_seed(BankVisitor(bank))?;
            if banks.insert(bank, values).is_some() {
                return Err(de::Error::custom(format_args!("bank {bank} is given twice")));
            }
        }
        Ok(PcrValues { banks })
    }
}

struct BankVisitor(HashAlgorithm);

impl<'de> de::DeserializeSeed<'de> for BankVisitor {
    type Value = BTreeMap<PcrIndex, Digest>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BankVisitor {
    type Value = BTreeMap<PcrIndex, Digest>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from PCR number to hex")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = BTreeMap::new();
        while let Some(PcrKey(index)) = map.next_key::<PcrKey>()? {
            let hex = map.next_value::<std::borrow::Cow<'_, str>>()?;
            let value = Digest::from_hex(self.0, &hex).ok_or_else(|| {
                de::Error::custom(format_args!("PCR {index} is not a {} value in lower-case hex", self.0))
            })?;
            if values.insert(index, value).is_some() {
                return Err(de::Error::custom(format_args!("PCR {index} is given twice")));
            }
        }
        Ok(values)
    }
}

/// A PCR number as the key of a JSON object: `"7"`, not `"07"`, so that each has one spelling.
struct PcrKey(PcrIndex);

impl<'de> Deserialize<'de> for PcrKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = PcrKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a PCR number, 0 to 23")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PcrKey, E> {
                let index = text.parse::<u8>().ok().and_then(PcrIndex::new);
                match index {
                    Some(index) if index.to_string() == text => Ok(PcrKey(index)),
                    _ => Err(E::custom("a PCR number is 0 to 23, without leading zeros")),
                }
            }
        }
        deserializer.deserialize_str(Key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash;

    fn pcr(index: u8) -> PcrIndex {
        PcrIndex::new(index).unwrap()
    }

    fn set(indices: &[u8]) -> PcrSet {
        indices.iter().map(|index| pcr(*index)).collect()
    }

    fn read(bytes: &[u8]) -> Result<PcrSelection, ParseError> {
        let mut reader = Reader::new(bytes);
        let selection = PcrSelection::read(&mut reader)?;
        reader.finish("selection").map(|()| selection)
    }

    #[test]
    fn selection_marshals_as_part_2_says() {
        let selection = PcrSelection::of_bank(HashAlgorithm::Sha256, set(&[0, 7, 14]));
        let mut bytes = Vec::new();
        selection.marshal(&mut bytes);
        assert_eq!(bytes, [0, 0, 0, 1, 0, 0x0b, 3, 0x81, 0x40, 0]);
        assert_eq!(read(&bytes), Ok(selection));
    }

    #[test]
    fn hostile_selections_are_refused() {
        let cases: [(&[u8], &str); 7] = [
            (&[0, 0, 0, 1, 0, 0x0b, 0], "select size 0"),
            (&[0, 0, 0, 1, 0, 0x0b, 1, 1], "select size 1"),
            (&[0, 0, 0, 1, 0, 0x0b, 4, 1, 0, 0, 0], "select size 4"),
            (&[0, 0, 0, 1, 0, 0x0b, 255, 1, 0, 0], "select size 255"),
            (&[0, 0, 0, 2, 0, 0x0b, 3, 1, 0, 0, 0, 0x0b, 3, 2, 0, 0], "a bank twice"),
            (&[0xff, 0xff, 0xff, 0xff], "four billion banks"),
            (&[0, 0, 0, 1, 0, 0x27, 3, 1, 0, 0], "a bank that we do not know"),
        ];
        for (bytes, case) in cases {
            assert!(read(bytes).is_err(), "{case}");
        }
    }

    #[test]
    fn digest_follows_the_order_of_the_selection() {
        let mut values = PcrValues::default();
        let a = hash(HashAlgorithm::Sha256, &[b"a"]);
        let b = hash(HashAlgorithm::Sha1, &[b"b"]);
        values.insert(pcr(0), a);
        values.insert(pcr(0), b);
        let banks = [(HashAlgorithm::Sha256, set(&[0])), (HashAlgorithm::Sha1, set(&[0]))];
        let forward = PcrSelection::of_banks(banks).unwrap();
        let backward = PcrSelection::of_banks(banks.into_iter().rev()).unwrap();
        let expected = hash(HashAlgorithm::Sha256, &[a.as_bytes(), b.as_bytes()]);
        assert_eq!(values.digest(&forward, HashAlgorithm::Sha256), Ok(expected));
        assert_ne!(values.digest(&backward, HashAlgorithm::Sha256), Ok(expected));
    }

    #[test]
    fn values_must_be_exactly_those_that_are_selected() {
        let mut values = PcrValues::default();
        values.insert(pcr(1), hash(HashAlgorithm::Sha256, &[]));
        let bank = HashAlgorithm::Sha256;
        let selection = PcrSelection::of_bank(bank, set(&[1, 2]));
        assert_eq!(values.digest(&selection, bank), Err(PcrDigestError::Missing { bank, pcr: pcr(2) }));
        let selection = PcrSelection::of_bank(bank, set(&[2]));
        assert_eq!(values.digest(&selection, bank), Err(PcrDigestError::NotSelected { bank, pcr: pcr(1) }));
    }

    #[test]
    fn values_have_one_spelling_on_the_wire() {
        let zeros = "00".repeat(32);
        let good = format!(r#"{{"sha256":{{"7":"{zeros}"}}}}"#);
        let values: PcrValues = serde_json::from_str(&good).unwrap();
        assert_eq!(serde_json::to_string(&values).unwrap(), good);
        for (bad, case) in [
            (format!(r#"{{"sha256":{{"07":"{zeros}"}}}}"#), "leading zero"),
            (format!(r#"{{"sha256":{{"24":"{zeros}"}}}}"#), "no such PCR"),
            (format!(r#"{{"sha256":{{"7":"{zeros}00"}}}}"#), "a byte too many"),
            (format!(r#"{{"sha256":{{"7":"{zeros}","7":"{zeros}"}}}}"#), "a PCR twice"),
            (format!(r#"{{"sha256":{{"7":"{zeros}"}},"sha256":{{}}}}"#), "a bank twice"),
            (format!(r#"{{"sha256":{{"7":"{}"}}}}"#, "AA".repeat(32)), "upper case"),
            (format!(r#"{{"md5":{{"7":"{zeros}"}}}}"#), "unknown bank"),
        ] {
            assert!(serde_json::from_str::<PcrValues>(&bad).is_err(), "{case}");
        }
    }

    #[test]
    fn selection_on_the_wire_refuses_a_bank_or_pcr_twice() {
        let good = r#"[{"bank":"sha256","pcrs":[0,7]}]"#;
        assert_eq!(
            serde_json::from_str::<PcrSelection>(good).unwrap(),
            PcrSelection::of_bank(HashAlgorithm::Sha256, set(&[0, 7]))
        );
        for bad in [
            r#"[{"bank":"sha256","pcrs":[0,0]}]"#,
            r#"[{"bank":"sha256","pcrs":[24]}]"#,
            r#"[{"bank":"sha256","pcrs":[0]},{"bank":"sha256","pcrs":[1]}]"#,
        ] {
            assert!(serde_json::from_str::<PcrSelection>(bad).is_err(), "{bad}");
        }
    }
}
