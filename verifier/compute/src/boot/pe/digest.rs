//! The Authenticode hash, as firmware makes it of an image for PCRs 2 and 4.

use rootbound_common::crypto::{Digest, Hasher};
use rootbound_common::tpm::HashAlgorithm;

use super::{Image, offset};

impl Image<'_> {
    /// The Authenticode digest: all of the image but its checksum, the directory entry of its certificates, and these.
    ///
    /// Sections go in by their place in the file, and then whatever lies behind as many bytes as were hashed, padding
    /// included: nothing is padded here, since firmware pads nothing. Windows Authenticode PE Signature Format, "Calculating
    /// the PE Image Hash", and `MeasurePeImage` of EDK2, which differ in nothing for an image that [`Image::parse`] takes.
    #[must_use]
    pub fn authenticode(&self, algorithm: HashAlgorithm) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        let mut update = |start: usize, end: usize| {
            hasher.update(self.bytes.get(start..end).unwrap_or_default());
        };
        update(0, self.checksum);
        let behind_checksum = offset(self.checksum, 4);
        match self.security {
            Some(entry) => {
                update(behind_checksum, entry);
                update(offset(entry, 8), self.headers);
            }
            None => update(behind_checksum, self.headers),
        }
        let mut filled: Vec<_> = self.sections.iter().map(|section| &section.data).collect();
        filled.retain(|data| !data.is_empty());
        filled.sort_by_key(|data| data.start);
        let mut hashed = self.headers;
        for data in filled {
            update(data.start, data.end);
            hashed = offset(hashed, data.len());
        }
        let end = if self.is_signed() { self.certificates.start } else { self.bytes.len() };
        update(hashed, end);
        hasher.finish()
    }
}
