//! Boot event logs and IMA lists in the making: what is appended is measured into a TPM as well, unless a test leaves
//! that out.

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};

use crate::Swtpm;
use crate::software_tpm::SoftwareTpm;
use crate::swtpm::measured;

const BANK: HashAlgorithm = HashAlgorithm::Sha256;

/// EV_NO_ACTION, EV_SEPARATOR, EV_EFI_BOOT_SERVICES_APPLICATION, EV_EFI_PLATFORM_FIRMWARE_BLOB (PFP, table 27).
const NO_ACTION: u32 = 3;
const SEPARATOR: u32 = 4;
const APPLICATION: u32 = 0x8000_0003;
const FIRMWARE_BLOB: u32 = 0x8000_0008;
/// EV_IPL, as boot loaders use it.
const IPL: u32 = 0x0d;

/// Somebody who measures.
pub trait Measures {
    /// Extends a PCR of the SHA-256 bank by the hash of some bytes.
    fn measure(&mut self, pcr: u8, data: &[u8]);
    /// Extends it by a value that is the hash of nothing known.
    fn extend_by(&mut self, pcr: u8, digest: Digest);
}

impl Measures for &mut SoftwareTpm {
    fn measure(&mut self, pcr: u8, data: &[u8]) {
        self.extend_by(pcr, hash(BANK, &[data]));
    }

    fn extend_by(&mut self, pcr: u8, digest: Digest) {
        self.extend(PcrIndex::new(pcr).expect("a PCR number"), digest);
    }
}

impl Measures for &Swtpm {
    fn measure(&mut self, pcr: u8, data: &[u8]) {
        self.extend(pcr, data);
    }

    fn extend_by(&mut self, pcr: u8, digest: Digest) {
        let value = format!("{pcr}:sha256={digest}");
        self.tool_ok("tpm2_pcrextend", &[&value]);
    }
}

/// A crypto-agile boot event log with SHA-256 digests.
#[derive(Debug, Clone)]
pub struct BootLog {
    bytes: Vec<u8>,
}

impl BootLog {
    /// A log without events.
    #[must_use]
    pub fn new() -> Self {
        let mut spec_id = b"Spec ID Event03\0".to_vec();
        spec_id.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        spec_id.extend(1u32.to_le_bytes());
        spec_id.extend(BANK.tpm_id().to_le_bytes());
        spec_id.extend(32u16.to_le_bytes());
        spec_id.push(0);
        let mut bytes = 0u32.to_le_bytes().to_vec();
        bytes.extend(NO_ACTION.to_le_bytes());
        bytes.extend([0; 20]);
        bytes.extend(length(&spec_id));
        bytes.extend(spec_id);
        Self { bytes }
    }

    /// The log of the boot that a [`Swtpm`] measures by itself, as it starts.
    #[must_use]
    pub fn of_boot(seed: u64) -> Self {
        let mut log = Self::new();
        for pcr in crate::swtpm::MEASURED_PCRS {
            let kind = if pcr == 4 {
                APPLICATION
            } else if pcr == 0 {
                FIRMWARE_BLOB
            } else {
                IPL
            };
            log.write(pcr, kind, measured(seed, pcr).as_bytes());
        }
        log
    }

    /// An event that nobody measures.
    pub fn write(&mut self, pcr: u8, kind: u32, data: &[u8]) {
        self.bytes.extend(u32::from(pcr).to_le_bytes());
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(1u32.to_le_bytes());
        self.bytes.extend(BANK.tpm_id().to_le_bytes());
        self.bytes.extend(hash(BANK, &[data]).as_bytes());
        self.bytes.extend(length(data));
        self.bytes.extend(data);
    }

    /// The separators of PCRs 0 to 7, by which firmware says that the boot loader has its turn.
    pub fn separators(&mut self, mut tpm: impl Measures) {
        for pcr in 0..8 {
            self.write(pcr, SEPARATOR, &[0; 4]);
            tpm.measure(pcr, &[0; 4]);
        }
    }

    /// A boot application.
    pub fn application(&mut self, mut tpm: impl Measures, image: &[u8]) {
        self.write(4, APPLICATION, image);
        tpm.measure(4, image);
    }

    /// The bytes, as the kernel shows them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Default for BootLog {
    fn default() -> Self {
        Self::new()
    }
}

/// An IMA list of template ima-ng.
#[derive(Debug, Clone, Default)]
pub struct ImaList {
    entries: Vec<Vec<u8>>,
}

impl ImaList {
    /// A list that begins with the boot_aggregate of these PCRs (0 to 9).
    #[must_use]
    pub fn begin(tpm: impl Measures, pcrs: &PcrValues) -> Self {
        let values = (0..10).filter_map(PcrIndex::new).map(|pcr| pcrs.get(BANK, pcr).expect("PCRs 0 to 9"));
        let values: Vec<_> = values.map(Digest::as_bytes).collect();
        let mut list = Self::default();
        list.digest(tpm, "boot_aggregate", hash(BANK, &values));
        list
    }

    /// A file that ran.
    pub fn run(&mut self, tpm: impl Measures, path: &str, content: &[u8]) {
        self.digest(tpm, path, hash(BANK, &[content]));
    }

    /// A file that ran, by its digest.
    pub fn digest(&mut self, mut tpm: impl Measures, path: &str, digest: Digest) {
        let data = data(path, &digest);
        tpm.measure(10, &data);
        self.entries.push(entry(hash(HashAlgorithm::Sha1, &[&data]).as_bytes(), &data));
    }

    /// A file that was written while it was measured: the kernel extends ones, and states zeros.
    pub fn violation(&mut self, mut tpm: impl Measures, path: &str) {
        let ones = Digest::from_slice(BANK, &[0xff; 32]).expect("32 bytes");
        tpm.extend_by(10, ones);
        self.entries.push(entry(&[0; 20], &data(path, &Digest::zero(BANK))));
    }

    /// Takes an entry away: the TPM still knows of it.
    pub fn hide(&mut self, number: usize) {
        self.entries.remove(number);
    }

    /// The kernel drops the oldest entries.
    pub fn trim(&mut self, entries: usize) {
        self.entries.drain(..entries);
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes from an entry on, as the kernel shows them.
    #[must_use]
    pub fn bytes(&self, from: usize) -> Vec<u8> {
        self.entries[from..].concat()
    }
}

/// Fields `d-ng` and `n-ng`.
fn data(path: &str, digest: &Digest) -> Vec<u8> {
    let digest = [b"sha256:\0", digest.as_bytes()].concat();
    let name = [path.as_bytes(), b"\0"].concat();
    [&length(&digest)[..], &digest, &length(&name), &name].concat()
}

fn entry(template_hash: &[u8], data: &[u8]) -> Vec<u8> {
    let mut entry = 10u32.to_le_bytes().to_vec();
    entry.extend(template_hash);
    entry.extend(6u32.to_le_bytes());
    entry.extend(b"ima-ng");
    entry.extend(length(data));
    entry.extend(data);
    entry
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("a short field").to_le_bytes()
}
