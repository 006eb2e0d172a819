//! Template data: a row of fields, each with its length before it.

use super::entry::{Attachment, Entry, Template};
use super::hash::{DigestKind, FileDigest, FileHash};
use super::{ImaError, MAX_ENTRY};
use rootbound_common::tpm::HashAlgorithm;

/// The parts of an entry around its data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) number: u64,
    pub(super) template: Template,
    pub(super) template_hash: &'a [u8],
}

/// Reads fields from the front of template data.
struct Fields<'a> {
    entry: u64,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    fn next(&mut self, field: &'static str) -> Result<&'a [u8], ImaError> {
        let short = ImaError::Field { entry: self.entry, field, rule: "ends after the entry's data" };
        let Some((length, rest)) = self.rest.split_first_chunk() else { return Err(short) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((value, rest)) = rest.split_at_checked(length) else { return Err(short) };
        self.rest = rest;
        Ok(value)
    }

    fn fixed(&mut self, field: &'static str, size: usize) -> Result<&'a [u8], ImaError> {
        let value = self.next(field)?;
        if value.len() == size {
            Ok(value)
        } else {
            Err(ImaError::field(self.entry, field, "is of another size"))
        }
    }

    /// Field `n-ng`: a text and one NUL.
    fn name(&mut self) -> Result<&'a [u8], ImaError> {
        const FIELD: &str = "name";
        match self.next(FIELD)? {
            [name @ .., 0] if !has_nul(name) => Ok(name),
            _ => Err(ImaError::field(self.entry, FIELD, "does not end with its only NUL")),
        }
    }

    fn finish(&self) -> Result<(), ImaError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ImaError::field(self.entry, "data", "bytes are left after the last field"))
        }
    }
}

/// Whether there is a NUL, eight bytes at a time: names are what most of a list consists of.
fn has_nul(name: &[u8]) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (chunks, rest) = name.as_chunks::<8>();
    chunks.iter().any(|chunk| {
        let word = u64::from_le_bytes(*chunk);
        word.wrapping_sub(LOW) & !word & HIGH != 0
    }) || rest.contains(&0)
}

/// An entry of its data, which must be all of it. Of the template `ima`: digest, length of the name, name.
#[inline(always)]
pub(super) fn parse<'a>(head: Head<'a>, data: &'a [u8]) -> Result<Entry<'a>, ImaError> {
    let Head { number, template, template_hash } = head;
    let violation = template_hash.iter().all(|byte| *byte == 0);
    if data.len() > MAX_ENTRY {
        return Err(ImaError::too_long(number, "data", u64::try_from(data.len()).unwrap_or(u64::MAX)));
    }
    let mut fields = Fields { entry: number, rest: data };
    let (digest, name) = match template {
        Template::Ima => legacy(&mut fields, violation)?,
        Template::ImaNg
        | Template::ImaSig
        | Template::ImaBuf
        | Template::ImaModsig
        | Template::EvmSig
        | Template::ImaNgV2
        | Template::ImaSigV2 => {
            let with_type = matches!(template, Template::ImaNgV2 | Template::ImaSigV2);
            let digest = FileDigest::parse(number, fields.next("digest")?, with_type, violation)?;
            (digest, fields.name()?)
        }
    };
    let attachment = match template {
        Template::Ima | Template::ImaNg | Template::ImaNgV2 => Attachment::None,
        Template::ImaSig | Template::ImaSigV2 => Attachment::Signature(fields.next("signature")?),
        Template::ImaBuf => Attachment::Buffer(fields.next("buffer")?),
        Template::ImaModsig => {
            let signature = fields.next("signature")?;
            let digest = match fields.next("digest without the appended signature")? {
                [] => None,
                digest => Some(FileDigest::parse(number, digest, false, violation)?),
            };
            Attachment::AppendedSignature { signature, digest, appended: fields.next("appended signature")? }
        }
        Template::EvmSig => {
            let signature = fields.next("EVM signature")?;
            let metadata = fields.rest;
            for field in ["xattr names", "xattr lengths", "xattr values"] {
                fields.next(field)?;
            }
            fields.fixed("uid", 4)?;
            fields.fixed("gid", 4)?;
            fields.fixed("mode", 2)?;
            Attachment::Evm { signature, metadata }
        }
    };
    fields.finish()?;
    Ok(Entry { number, template, template_hash, violation, data, digest, name, attachment, data_hash: None })
}

/// Fields `d` (20 bytes without a length) and `n` (without a NUL).
fn legacy<'a>(fields: &mut Fields<'a>, violation: bool) -> Result<(FileDigest<'a>, &'a [u8]), ImaError> {
    let entry = fields.entry;
    let sha1 = HashAlgorithm::Sha1;
    let Some((bytes, rest)) = fields.rest.split_at_checked(sha1.size()) else {
        return Err(ImaError::field(entry, "digest", "ends after the entry's data"));
    };
    fields.rest = rest;
    if violation && bytes.iter().any(|byte| *byte != 0) {
        return Err(ImaError::field(entry, "digest", "a violation has a digest of zeros"));
    }
    let name = fields.next("name")?;
    // The hash pads with NULs: with one in the name, two names would have one hash.
    if name.contains(&0) {
        return Err(ImaError::field(entry, "name", "has a NUL"));
    }
    if name.len() >= Entry::LEGACY_NAME {
        return Err(ImaError::field(entry, "name", "has more than 255 bytes"));
    }
    // MD5 is possible (`ima_hash=md5`), and padded to 20 bytes: a digest of nothing then, which nobody accepts.
    let digest = FileDigest { kind: DigestKind::Content, algorithm: FileHash::Tpm(sha1), bytes };
    Ok((digest, name))
}
