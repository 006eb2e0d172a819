//! Boots of virtual machines that were recorded (`scripts/vm fixtures`), to be measured again into a software TPM: a test
//! gets quotes over a real boot, and needs no virtual machine for it.
//!
//! ```no_run
//! use rootbound_swtpm_tests::{Swtpm, boots::Boot};
//!
//! let boot = Boot::named("golden");
//! let mut tpm = Swtpm::builder().banks(&Boot::BANKS).start();
//! boot.replay(&mut tpm); // its PCRs are those of the recorded machine
//! ```

use std::path::PathBuf;

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::{HashAlgorithm, PcrValues};

use crate::Swtpm;

/// A recorded boot: a folder of `fixtures/boots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    folder: PathBuf,
}

/// One extension of a PCR, by a digest for each bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurement {
    /// The PCR.
    pub pcr: u8,
    /// What it was extended with.
    pub digests: Vec<Digest>,
}

impl Boot {
    /// The banks that the recorded machines' TPMs had.
    pub const BANKS: [HashAlgorithm; 2] = [HashAlgorithm::Sha1, HashAlgorithm::Sha256];

    /// The boot of that name.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let folder = Self::root().join(name);
        assert!(folder.is_dir(), "no recorded boot {name}");
        Self { folder }
    }

    /// Every recorded boot, by name.
    ///
    /// # Panics
    /// Where they cannot be listed.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let entries = std::fs::read_dir(Self::root()).expect("recorded boots");
        let folders =
            entries.map(|entry| entry.expect("a recorded boot").path()).filter(|path| path.is_dir());
        let mut boots: Vec<_> = folders.map(|folder| Self { folder }).collect();
        boots.sort_by(|a, b| a.folder.cmp(&b.folder));
        boots
    }

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/boots")
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().display().to_string()
    }

    /// The content of one of its files; `fixtures/boots/ORIGIN.md` lists them.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn read(&self, file: &str) -> Vec<u8> {
        let path = self.folder.join(file);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What the kernel said of the PCRs when the logs were read.
    ///
    /// # Panics
    /// Where the fixture is damaged.
    #[must_use]
    pub fn pcr_values(&self) -> PcrValues {
        serde_json::from_slice(&self.read("pcrs.json")).expect("pcrs.json")
    }

    /// What was measured, in the order in which the TPM got it: firmware and loaders, then IMA.
    ///
    /// # Panics
    /// Where the fixture is damaged.
    #[must_use]
    pub fn measurements(&self) -> Vec<Measurement> {
        let mut measurements = boot_log(&self.read("eventlog.bin"));
        measurements.extend(ima_list(&self.read("ima.bin")));
        measurements
    }

    /// Resets a TPM with the banks [`Boot::BANKS`], and measures the boot into it.
    ///
    /// # Panics
    /// Where the TPM refuses.
    pub fn replay(&self, tpm: &mut Swtpm) {
        tpm.reset_alone();
        for measurement in self.measurements() {
            tpm.extend_digests(measurement.pcr, &measurement.digests);
        }
    }
}

/// The bytes of a fixture, little-endian as both logs are. It is no parser for what strangers send.
struct Fixture<'a>(&'a [u8]);

impl<'a> Fixture<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(length).expect("a fixture that is whole");
        self.0 = rest;
        taken
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn sized(&mut self) -> &'a [u8] {
        let length = self.u32();
        self.take(length.try_into().expect("a length in memory"))
    }

    fn pcr(&mut self) -> u8 {
        self.u32().try_into().expect("a PCR number")
    }
}

/// TCG PC Client firmware profile, 10.2: TCG_PCR_EVENT with the Spec ID, then TCG_PCR_EVENT2.
fn boot_log(bytes: &[u8]) -> Vec<Measurement> {
    const EV_NO_ACTION: u32 = 3;
    let mut log = Fixture(bytes);
    log.take(4 + 4 + 20);
    assert!(log.sized().starts_with(b"Spec ID Event03\0"), "a crypto-agile log");
    let mut measurements = Vec::new();
    while !log.0.is_empty() {
        let (pcr, kind, count) = (log.pcr(), log.u32(), log.u32());
        let digests = (0..count).map(|_| {
            let bank = HashAlgorithm::from_tpm(log.u16(), "bank").expect("a bank that we know");
            Digest::from_slice(bank, log.take(bank.size())).expect("a digest of that size")
        });
        let digests = digests.collect();
        let data = log.sized();
        if kind == EV_NO_ACTION {
            assert!(!data.starts_with(b"StartupLocality\0"), "these machines start their TPM at locality 0");
        } else {
            measurements.push(Measurement { pcr, digests });
        }
    }
    measurements
}

/// `binary_runtime_measurements`: PCR, SHA-1 of the template data, the template's name, its data.
fn ima_list(bytes: &[u8]) -> Vec<Measurement> {
    let mut list = Fixture(bytes);
    let mut measurements = Vec::new();
    while !list.0.is_empty() {
        let (pcr, sha1) = (list.pcr(), list.take(20));
        list.sized();
        let data = list.sized();
        // Zeros record a violation, and the PCR is extended with ones.
        let violation = sha1.iter().all(|byte| *byte == 0);
        let digests = Boot::BANKS.map(|bank| match violation {
            true => Digest::from_slice(bank, &vec![0xff; bank.size()]).expect("a digest of that size"),
            false => hash(bank, &[data]),
        });
        measurements.push(Measurement { pcr, digests: digests.to_vec() });
    }
    measurements
}
