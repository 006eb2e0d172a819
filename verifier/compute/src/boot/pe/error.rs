//! Why a file is not taken as a PE image. Offsets are of the file.

/// Why a file is not taken as a PE image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// It has more than [`super::MAX_IMAGE`] bytes.
    #[error("an image of {size} bytes; at most 536870912 are read")]
    TooLarge {
        /// Bytes.
        size: usize,
    },
    /// It does not begin with MZ.
    #[error("no PE image: it does not begin with `MZ`, at offset 0")]
    NotMz,
    /// No PE signature where the DOS header says.
    #[error("no PE image: no PE signature at offset {offset}")]
    NoPeSignature {
        /// Where it should be.
        offset: usize,
    },
    /// The file ends in a header.
    #[error("the file ends, after {size} bytes, in {what} at offset {offset}")]
    Truncated {
        /// What is cut.
        what: &'static str,
        /// What was to be read.
        offset: usize,
        /// Bytes of the file.
        size: usize,
    },
    /// Another kind of optional header.
    #[error("the optional header at offset {offset} is neither PE32 nor PE32+: magic {magic:#x}")]
    NeitherPe32NorPe32Plus {
        /// The header.
        offset: usize,
        /// Its first two bytes.
        magic: u16,
    },
    /// The optional header does not hold what it counts.
    #[error("the optional header at offset {offset} has {size} bytes, too few for its directories")]
    OptionalHeaderTooSmall {
        /// The header.
        offset: usize,
        /// Its bytes.
        size: usize,
    },
    /// More directories than there are.
    #[error("{count} data directories, counted at offset {offset}; there are 16")]
    TooManyDirectories {
        /// The count.
        offset: usize,
        /// What it says.
        count: u32,
    },
    /// More sections than an image may have.
    #[error("{count} sections, counted at offset {offset}; an image has at most 96")]
    TooManySections {
        /// The count.
        offset: usize,
        /// What it says.
        count: u16,
    },
    /// SizeOfHeaders does not cover the headers, or more than the file.
    #[error(
        "SizeOfHeaders at offset {offset} is {claimed}; the headers need {needed}, the file has {size} bytes"
    )]
    HeaderSize {
        /// The field.
        offset: usize,
        /// What it says.
        claimed: usize,
        /// Where the section table ends.
        needed: usize,
        /// Bytes of the file.
        size: usize,
    },
    /// A section's data end beyond the file.
    #[error("section {index} (header at offset {offset}) ends at {end}, beyond the file's {size} bytes")]
    SectionBeyondEnd {
        /// Its header.
        offset: usize,
        /// Its number, from 0.
        index: usize,
        /// Where its data end.
        end: usize,
        /// Bytes of the file.
        size: usize,
    },
    /// A section's data begin in the headers: they would be hashed twice.
    #[error(
        "section {index} (header at offset {offset}) begins at {start}, inside the {headers} bytes of headers"
    )]
    SectionInHeaders {
        /// Its header.
        offset: usize,
        /// Its number, from 0.
        index: usize,
        /// Where its data begin.
        start: usize,
        /// SizeOfHeaders.
        headers: usize,
    },
    /// Two sections share bytes.
    #[error("sections {first} and {second} (header at offset {offset}) overlap in the file, at {at}")]
    SectionsOverlap {
        /// The header of the second.
        offset: usize,
        /// The number of the one that begins first, from 0.
        first: usize,
        /// The number of the other.
        second: usize,
        /// Where the second begins.
        at: usize,
    },
    /// The certificate table ends beyond the file.
    #[error(
        "the certificate table (directory at offset {offset}) ends at {end}, beyond the file's {size} bytes"
    )]
    CertificatesBeyondEnd {
        /// The directory's entry.
        offset: usize,
        /// Where the table ends.
        end: usize,
        /// Bytes of the file.
        size: usize,
    },
    /// The certificate table lies over what is hashed.
    #[error(
        "the certificate table (directory at offset {offset}) begins at {start}, inside the image that ends at {image_end}"
    )]
    CertificatesInImage {
        /// The directory's entry.
        offset: usize,
        /// Where the table begins.
        start: usize,
        /// Where headers and sections end.
        image_end: usize,
    },
    /// The certificate table does not begin on a multiple of 8.
    #[error(
        "the certificate table (directory at offset {offset}) begins at {start}, which is no multiple of 8"
    )]
    CertificatesUnaligned {
        /// The directory's entry.
        offset: usize,
        /// Where the table begins.
        start: usize,
    },
    /// Bytes behind the certificate table: firmware would hash others in their place.
    #[error("the certificate table ends at offset {offset}, and the file of {size} bytes goes on")]
    DataAfterCertificates {
        /// Where the table ends.
        offset: usize,
        /// Bytes of the file.
        size: usize,
    },
    /// An entry of the certificate table has a length that it cannot have.
    #[error("the certificate at offset {offset} says that it has {length} bytes; {left} are left")]
    CertificateLength {
        /// The entry.
        offset: usize,
        /// What it says.
        length: usize,
        /// Bytes of the table from there.
        left: usize,
    },
    /// More signatures than are read.
    #[error("more than 32 signatures, at offset {offset}")]
    TooManyCertificates {
        /// The first that is too many.
        offset: usize,
    },
}
