//! Boot logs that are shaped as those of real machines, and quotes over what they say.

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::hash;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrSelection, PcrSet};
use rootbound_verifier::enrollment::AttestationKey;
use rootbound_verifier::evidence::boot_log::{
    ConfigurationVariable, EventType, ParsedBootLog, Replayed, SignatureKind, Variable,
};
use rootbound_verifier::evidence::{Observed, StoredQuote, restore};

use crate::software_tpm::SoftwareTpm;

const BANKS: [HashAlgorithm; 2] = [HashAlgorithm::Sha1, HashAlgorithm::Sha256];

/// A crypto-agile log with SHA-1 and SHA-256 digests.
#[derive(Debug, Clone)]
pub struct BootLog {
    bytes: Vec<u8>,
}

impl Default for BootLog {
    fn default() -> Self {
        Self::new()
    }
}

impl BootLog {
    /// A log of nothing: the Spec ID event.
    #[must_use]
    pub fn new() -> Self {
        let spec = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x02\0\0\0\x04\0\x14\0\x0b\0\x20\0\0";
        let mut bytes = [[0; 4], EventType::NO_ACTION.as_u32().to_le_bytes()].concat();
        bytes.extend([0; 20]);
        put(&mut bytes, spec);
        Self { bytes }
    }

    /// The boot of a server: firmware, Secure Boot with a `dbx` of so many entries, shim, so many commands of GRUB, a kernel.
    #[must_use]
    pub fn of_a_server(revoked: u32, commands: u32) -> Self {
        let certificate = [7; 1500];
        let mut log = Self::new();
        log.event(0, EventType::S_CRTM_VERSION, b"v\x001\0\0\0");
        for blob in 0..8u8 {
            log.hashed(0, EventType::EFI_PLATFORM_FIRMWARE_BLOB, &[blob; 16], &[blob, 1]);
        }
        let keys = signature_list(SignatureKind::X509, &[&certificate]);
        let revoked: Vec<_> =
            (0..revoked).map(|n| hash(HashAlgorithm::Sha256, &[&n.to_le_bytes()])).collect();
        let revoked: Vec<_> = revoked.iter().map(|digest| digest.as_bytes()).collect();
        for variable in ConfigurationVariable::ALL {
            let contents = match variable {
                ConfigurationVariable::SecureBoot => vec![1],
                ConfigurationVariable::Dbx => signature_list(SignatureKind::Sha256, &revoked),
                ConfigurationVariable::Pk | ConfigurationVariable::Kek | ConfigurationVariable::Db => {
                    keys.clone()
                }
            };
            let data = Variable::marshal(variable.vendor(), variable.name(), &contents);
            log.event(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, &data);
        }
        log.event(4, EventType::EFI_ACTION, b"Calling EFI Application from Boot Option");
        for pcr in 0..8 {
            log.event(pcr, EventType::SEPARATOR, &[0; 4]);
        }
        let db = ConfigurationVariable::Db;
        let authority = Variable::marshal(db.vendor(), db.name(), &[&[1; 16][..], &certificate].concat());
        log.event(7, EventType::EFI_VARIABLE_AUTHORITY, &authority);
        for image in [&b"shim"[..], b"grub", b"kernel"] {
            log.hashed(4, EventType::EFI_BOOT_SERVICES_APPLICATION, &[0; 120], image);
        }
        for command in 0..commands {
            let text = format!("set option_{command}=a value of the usual length for such a command of GRUB");
            log.hashed(8, EventType::IPL, format!("grub_cmd: {text}\0").as_bytes(), text.as_bytes());
        }
        let line = "/vmlinuz root=/dev/sda1 ima_policy=tcb quiet";
        log.hashed(8, EventType::IPL, format!("kernel_cmdline: {line}\0").as_bytes(), line.as_bytes());
        for file in [&b"/vmlinuz\0"[..], b"/initrd\0"] {
            log.hashed(9, EventType::IPL, file, &[file, b"contents"].concat());
        }
        log.event(5, EventType::EFI_ACTION, b"Exit Boot Services Invocation");
        log.event(5, EventType::EFI_ACTION, b"Exit Boot Services Returned with Success");
        log
    }

    /// Adds an event whose digests are of its data.
    pub fn event(&mut self, pcr: u32, event_type: EventType, data: &[u8]) {
        self.hashed(pcr, event_type, data, data);
    }

    /// Adds an event whose digests are of something else.
    pub fn hashed(&mut self, pcr: u32, event_type: EventType, data: &[u8], hashed: &[u8]) {
        let head = [pcr, event_type.as_u32(), 2];
        self.bytes.extend(head.into_iter().flat_map(u32::to_le_bytes));
        for bank in BANKS {
            self.bytes.extend(bank.tpm_id().to_le_bytes());
            self.bytes.extend(hash(bank, &[hashed]).as_bytes());
        }
        put(&mut self.bytes, data);
    }

    /// The log as firmware hands it over.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn put(out: &mut Vec<u8>, data: &[u8]) {
    out.extend(u32::try_from(data.len()).expect("a short event").to_le_bytes());
    out.extend(data);
}

/// An EFI_SIGNATURE_LIST of entries of one length.
///
/// # Panics
/// Where it has 4 GiB.
#[must_use]
pub fn signature_list(kind: SignatureKind, entries: &[&[u8]]) -> Vec<u8> {
    let size = entries.first().map_or(17, |entry| entry.len() + 16);
    let word = |value: usize| u32::try_from(value).expect("a short list").to_le_bytes();
    let mut out =
        [&kind.guid().as_bytes()[..], &word(28 + size * entries.len()), &word(0), &word(size)].concat();
    for entry in entries {
        out.extend([&[9; 16][..], entry].concat());
    }
    out
}

/// What a TPM quotes that was told what a log says in one bank, and the PCRs that the log speaks of there.
///
/// # Panics
/// Where the TPM's AK is no AK.
#[must_use]
pub fn quoted(tpm: &mut SoftwareTpm, log: &ParsedBootLog<'_>, bank: HashAlgorithm) -> (Observed, PcrSet) {
    let mut spoken_of = PcrSet::EMPTY;
    for (pcr, replayed) in log.replay(bank) {
        if let Replayed::Value(value) = replayed {
            tpm.pcrs.insert(pcr, value);
            spoken_of = spoken_of.with(pcr);
        }
    }
    let selection = PcrSelection::of_bank(bank, spoken_of);
    let signed = tpm.quote(&selection, b"").sign(&tpm.attestation_key);
    let stored = StoredQuote {
        quote: signed.attest,
        signature: signed.signature,
        pcrs: tpm.values(&selection),
        evidence_at: Timestamp::from_millis(0),
    };
    let key = AttestationKey::parse(&tpm.attestation_key.public_area()).expect("an AK");
    let observed = restore(stored, NodeId::from_bytes([1; 32]), &key).expect("a good quote");
    (observed, spoken_of)
}
