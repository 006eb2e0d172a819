//! Entries: one measurement, in one of eight templates.

use rootbound_common::crypto::{Digest, Hasher};
use rootbound_common::tpm::HashAlgorithm;

use super::hash::FileDigest;

/// A template: which fields an entry has (`ima_template.c`). It is stated per entry, and covered by no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Template {
    /// `d|n`, before Linux 3.13: a SHA-1 or MD5 digest without its algorithm, a base name.
    Ima,
    /// `d-ng|n-ng`.
    ImaNg,
    /// `d-ng|n-ng|sig`.
    ImaSig,
    /// `d-ngv2|n-ng`.
    ImaNgV2,
    /// `d-ngv2|n-ng|sig`.
    ImaSigV2,
    /// `d-ng|n-ng|buf`: not a file, but what the kernel has in memory.
    ImaBuf,
    /// `d-ng|n-ng|sig|d-modsig|modsig`: with an appended signature.
    ImaModsig,
    /// `d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode`.
    EvmSig,
}

impl Template {
    /// Every member.
    pub const ALL: [Self; 8] = [
        Self::Ima,
        Self::ImaNg,
        Self::ImaSig,
        Self::ImaNgV2,
        Self::ImaSigV2,
        Self::ImaBuf,
        Self::ImaModsig,
        Self::EvmSig,
    ];

    /// Longest name of a known template, `ima-modsig`; a list may state a longer one, for a template of its own.
    pub(super) const MAX_NAME: usize = 64;

    /// The template with a name.
    #[must_use]
    pub fn of_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"ima-ng" => Self::ImaNg,
            b"ima-sig" => Self::ImaSig,
            b"ima" => Self::Ima,
            b"ima-ngv2" => Self::ImaNgV2,
            b"ima-sigv2" => Self::ImaSigV2,
            b"ima-buf" => Self::ImaBuf,
            b"ima-modsig" => Self::ImaModsig,
            b"evm-sig" => Self::EvmSig,
            _ => return None,
        })
    }

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ima => "ima",
            Self::ImaNg => "ima-ng",
            Self::ImaSig => "ima-sig",
            Self::ImaNgV2 => "ima-ngv2",
            Self::ImaSigV2 => "ima-sigv2",
            Self::ImaBuf => "ima-buf",
            Self::ImaModsig => "ima-modsig",
            Self::EvmSig => "evm-sig",
        }
    }
}

/// What an entry has beside digest and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment<'a> {
    /// Nothing.
    None,
    /// `security.ima`, where it holds a signature; empty where it does not.
    Signature(&'a [u8]),
    /// The buffer that was measured.
    Buffer(&'a [u8]),
    /// A signature that is appended to the file.
    AppendedSignature {
        /// `security.ima`; may be empty.
        signature: &'a [u8],
        /// Over the file without what is appended.
        digest: Option<FileDigest<'a>>,
        /// PKCS#7; may be empty.
        appended: &'a [u8],
    },
    /// `security.evm`, which may be empty, and what it is over.
    Evm {
        /// `security.evm`.
        signature: &'a [u8],
        /// Names of extended attributes, their lengths, their values, owner, group and mode: each with its length before it.
        metadata: &'a [u8],
    },
}

/// One entry of a list, parsed. Claims, until a walk has come to the quoted value after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub(super) number: u64,
    pub(super) template: Template,
    pub(super) template_hash: &'a [u8],
    pub(super) violation: bool,
    pub(super) data: &'a [u8],
    pub(super) digest: FileDigest<'a>,
    pub(super) name: &'a [u8],
    pub(super) attachment: Attachment<'a>,
    pub(super) data_hash: Option<Digest>,
}

impl<'a> Entry<'a> {
    /// Its number in the boot, from 0.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its template, as stated.
    #[must_use]
    pub fn template(&self) -> Template {
        self.template
    }

    /// The template hash, as stated.
    #[must_use]
    pub fn template_hash(&self) -> &'a [u8] {
        self.template_hash
    }

    /// Whether the kernel could not tell what was used (a file was open for writing while it was measured): the template
    /// hash is zeros, and the PCR is extended with all ones. Nothing vouches for the name in it.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        self.violation
    }

    /// The measured digest.
    #[must_use]
    pub fn digest(&self) -> FileDigest<'a> {
        self.digest
    }

    /// Path of the file, or name of the event: bytes, since a path is no text.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// What it has beside.
    #[must_use]
    pub fn attachment(&self) -> Attachment<'a> {
        self.attachment
    }

    /// The template data as the list has them.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The hash that the walk extended the quoted bank with; none in a violation, or outside of a walk.
    #[must_use]
    pub fn data_hash(&self) -> Option<&Digest> {
        self.data_hash.as_ref()
    }

    /// The hash of the template data (`ima_calc_field_array_hash`): over the fields with their lengths, which is how the
    /// list has them; of the template `ima`, over the digest and the name padded with zeros to 256 bytes.
    #[must_use]
    #[inline]
    pub fn hash_data(&self, algorithm: HashAlgorithm) -> Digest {
        match self.template {
            Template::Ima => {
                const ZEROS: [u8; Entry::LEGACY_NAME] = [0; Entry::LEGACY_NAME];
                let mut hasher = Hasher::new(algorithm);
                hasher.update(self.digest.bytes);
                hasher.update(self.name);
                // The parser took no longer name.
                hasher.update(ZEROS.get(self.name.len()..).unwrap_or_default());
                hasher.finish()
            }
            Template::ImaNg
            | Template::ImaSig
            | Template::ImaNgV2
            | Template::ImaSigV2
            | Template::ImaBuf
            | Template::ImaModsig
            | Template::EvmSig => super::replay::one_shot(algorithm, self.data),
        }
    }

    /// Whether the stated template hash is the hash of the data. A walk to a quoted value proves more, and does not ask.
    #[must_use]
    pub fn template_hash_fits(&self) -> bool {
        let algorithm = HashAlgorithm::ALL.into_iter().find(|hash| hash.size() == self.template_hash.len());
        self.violation || algorithm.is_some_and(|hash| self.hash_data(hash).as_bytes() == self.template_hash)
    }

    /// Bytes that it has in the binary form of the list.
    pub(super) fn length(&self) -> u64 {
        let name = 4 + self.template.name().len();
        let length_of_data = if self.template == Template::Ima { 0 } else { 4 };
        let length = 4 + self.template_hash.len() + name + length_of_data + self.data.len();
        u64::try_from(length).unwrap_or(u64::MAX)
    }

    /// Bytes of a name in the template `ima`, with its padding (`IMA_EVENT_NAME_LEN_MAX` + 1).
    pub(super) const LEGACY_NAME: usize = 256;
}
