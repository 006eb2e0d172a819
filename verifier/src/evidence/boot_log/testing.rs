//! Logs for tests, written as firmware writes them.

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::{Digest, hash};
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSet, PcrValues};

use super::{BootHistory, EventType, ParsedBootLog, Replayed, Variable, authenticate};
use crate::evidence::Observed;
use crate::evidence::boot_log::variable::ConfigurationVariable;

pub(crate) const BANK: HashAlgorithm = HashAlgorithm::Sha256;

pub(crate) fn pcr(index: u8) -> PcrIndex {
    PcrIndex::new(index).unwrap()
}

pub(crate) fn pcrs(indices: &[u8]) -> PcrSet {
    indices.iter().map(|index| pcr(*index)).collect()
}

/// A crypto-agile log in the making.
#[derive(Clone)]
pub(crate) struct LogBuilder {
    banks: Vec<HashAlgorithm>,
    bytes: Vec<u8>,
}

impl LogBuilder {
    /// A log with a Spec ID event for these banks.
    pub(crate) fn new(banks: &[HashAlgorithm]) -> Self {
        let mut data = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02".to_vec();
        data.extend(u32::try_from(banks.len()).unwrap().to_le_bytes());
        for bank in banks {
            data.extend(bank.tpm_id().to_le_bytes());
            data.extend(u16::try_from(bank.size()).unwrap().to_le_bytes());
        }
        data.push(0);
        let mut bytes = [[0; 4], EventType::NO_ACTION.as_u32().to_le_bytes()].concat();
        bytes.extend([0; 20]);
        bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        bytes.extend(data);
        Self { banks: banks.to_vec(), bytes }
    }

    /// One that has SHA-256 digests only.
    pub(crate) fn sha256() -> Self {
        Self::new(&[BANK])
    }

    /// An event whose digests are of its data.
    pub(crate) fn event(self, index: u8, event_type: EventType, data: &[u8]) -> Self {
        self.hashed(index, event_type, data, data)
    }

    /// An event whose digests are of something else.
    pub(crate) fn hashed(mut self, index: u8, event_type: EventType, data: &[u8], hashed: &[u8]) -> Self {
        let digests: Vec<_> = self.banks.iter().map(|bank| hash(*bank, &[hashed])).collect();
        self.raw(u32::from(index), event_type, &digests, data);
        self
    }

    /// An event that extends nothing.
    pub(crate) fn no_action(mut self, index: u32, data: &[u8]) -> Self {
        let digests: Vec<_> = self.banks.iter().map(|bank| Digest::zero(*bank)).collect();
        self.raw(index, EventType::NO_ACTION, &digests, data);
        self
    }

    pub(crate) fn raw(&mut self, index: u32, event_type: EventType, digests: &[Digest], data: &[u8]) {
        self.bytes.extend([index.to_le_bytes(), event_type.as_u32().to_le_bytes()].concat());
        self.bytes.extend(u32::try_from(digests.len()).unwrap().to_le_bytes());
        for digest in digests {
            self.bytes.extend(digest.algorithm().tpm_id().to_le_bytes());
            self.bytes.extend(digest.as_bytes());
        }
        self.bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        self.bytes.extend(data);
    }

    pub(crate) fn variable(self, variable: ConfigurationVariable, contents: &[u8]) -> Self {
        let data = Variable::marshal(variable.vendor(), variable.name(), contents);
        self.event(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, &data)
    }

    pub(crate) fn separator(self, index: u8) -> Self {
        self.event(index, EventType::SEPARATOR, &[0; 4])
    }

    pub(crate) fn separators(self, indices: &[u8]) -> Self {
        indices.iter().fold(self, |log, index| log.separator(*index))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The history of a machine whose TPM was told exactly this.
    pub(crate) fn history(&self, needed: &[u8]) -> BootHistory {
        let log = ParsedBootLog::parse(&self.bytes).unwrap();
        let observed = observed(&log);
        authenticate(log, &observed, BANK, pcrs(needed)).unwrap()
    }
}

/// What a TPM quotes that was told what the log says, in each bank whose digests are complete.
pub(crate) fn observed(log: &ParsedBootLog<'_>) -> Observed {
    let mut values = PcrValues::default();
    for bank in log.banks() {
        for (index, value) in log.replay(*bank) {
            if let Replayed::Value(value) = value {
                values.insert(index, value);
            }
        }
    }
    fabricated(values)
}

pub(crate) fn fabricated(values: PcrValues) -> Observed {
    Observed::fabricated(NodeId::from_bytes([1; 32]), values, Timestamp::from_millis(7))
}
