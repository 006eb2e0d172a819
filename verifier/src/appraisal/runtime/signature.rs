//! File signatures (`struct signature_v2_hdr`, `security/integrity/integrity.h`).

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::HashAlgorithm;

use super::SignatureProblem;
use super::cache::SignatureCache;
use super::key::FileKey;
use crate::evidence::ima::{DigestKind, Entry, FileDigest, FileHash};

/// IMA_DIGSIG, alias EVM_IMA_XATTR_DIGSIG.
const FILE: u8 = 3;
/// IMA_VERITY_DIGSIG.
const VERITY: u8 = 6;
/// EVM_XATTR_HMAC and EVM_XATTR_PORTABLE_DIGSIG: over metadata, not over what runs.
const EVM: [u8; 2] = [2, 5];

/// A parsed signature. Who made it is not known yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileSignature<'a> {
    kind: u8,
    version: u8,
    hash: HashAlgorithm,
    hash_id: u8,
    key_id: [u8; 4],
    value: &'a [u8],
}

impl<'a> FileSignature<'a> {
    /// Type, version, hash, key id, length of the signature (big-endian), signature; nothing after it.
    pub(super) fn parse(xattr: &'a [u8]) -> Result<Self, SignatureProblem> {
        let (kind, version) = match *xattr {
            [kind, _, ..] if EVM.contains(&kind) => return Err(SignatureProblem::Evm),
            [FILE, 1, ..] => return Err(SignatureProblem::Version { version: 1 }),
            [kind @ FILE, version @ 2..=3, ..] | [kind @ VERITY, version @ 3, ..] => (kind, version),
            [FILE | VERITY, version, ..] => return Err(SignatureProblem::Version { version }),
            _ => return Err(SignatureProblem::Malformed),
        };
        let [_, _, hash_id, a, b, c, d, high, low, value @ ..] = xattr else {
            return Err(SignatureProblem::Malformed);
        };
        if usize::from(u16::from_be_bytes([*high, *low])) != value.len() {
            return Err(SignatureProblem::Malformed);
        }
        // enum hash_algo (`uapi/linux/hash_info.h`).
        let hash = match hash_id {
            4 => HashAlgorithm::Sha256,
            5 => HashAlgorithm::Sha384,
            6 => HashAlgorithm::Sha512,
            _ => return Err(SignatureProblem::Hash { id: *hash_id }),
        };
        Ok(Self { kind, version, hash, hash_id: *hash_id, key_id: [*a, *b, *c, *d], value })
    }

    /// Brings what [`FileSignature::verify`] will ask the cache for into the processor's, where a replay made the name anyway.
    pub(super) fn fetch(&self, entry: &Entry<'_>, keys: &[FileKey], cache: &SignatureCache) {
        if let (Some(hash), Some(key)) = (entry.data_hash(), keys.iter().find(|key| key.may_be(self.key_id)))
        {
            cache.fetch(&cache.name(hash.as_bytes(), key.fingerprint()));
        }
    }

    /// The digest that was signed, for a file with this digest: in version 2 the same; in version 3 that of `ima_file_id`,
    /// which is type, hash and digest.
    fn signed(&self, digest: &FileDigest<'_>) -> Result<Digest, SignatureProblem> {
        let kind = if self.kind == VERITY { DigestKind::Verity } else { DigestKind::Content };
        if kind != digest.kind {
            return Err(SignatureProblem::OtherKind);
        }
        if digest.algorithm != FileHash::Tpm(self.hash) {
            return Err(SignatureProblem::OtherHash);
        }
        let of_file = digest.of_tpm().ok_or(SignatureProblem::OtherHash)?;
        Ok(if self.version == 2 {
            of_file
        } else {
            hash(self.hash, &[&[self.kind, self.hash_id], of_file.as_bytes()])
        })
    }

    /// Verifies it under whichever of the keys has its id, or finds that it was.
    pub(super) fn verify(
        &self,
        entry: &Entry<'_>,
        keys: &[FileKey],
        cache: &SignatureCache,
        budget: &mut u32,
    ) -> Result<(), SignatureProblem> {
        let signed = self.signed(&entry.digest())?;
        let mut problem = SignatureProblem::UnknownKey { id: self.key_id };
        let mut own = None;
        for key in keys.iter().filter(|key| key.may_be(self.key_id)) {
            let data_hash = match entry.data_hash() {
                // Of at least 256 bits, and over digest, path and signature: the replay made it anyway.
                Some(hash) if hash.algorithm() != HashAlgorithm::Sha1 => *hash,
                _ => *own.get_or_insert_with(|| entry.hash_data(HashAlgorithm::Sha256)),
            };
            let name = cache.name(data_hash.as_bytes(), key.fingerprint());
            if cache.has(&name) {
                return Ok(());
            }
            if *budget == 0 {
                return Err(SignatureProblem::NotTried);
            }
            if key.verifies(&signed, self.value) {
                cache.insert(&name);
                return Ok(());
            }
            *budget -= 1;
            problem = SignatureProblem::Invalid { id: self.key_id };
        }
        Err(problem)
    }
}
