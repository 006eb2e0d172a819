//! What an image's certificate table embeds. Nothing of it is verified: it is a hint at who signed the image.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use rootbound_common::crypto::{Digest, hash};
use rootbound_common::text::only_shows;
use rootbound_common::tpm::HashAlgorithm;
use x509_cert::Certificate;

use super::{File, Image, PeError, offset};

/// More than any image that boots is signed by.
const MAX_SIGNATURES: usize = 32;
/// More than any chain that a signature carries.
const MAX_CERTIFICATES: usize = 64;
/// Characters of a subject that are shown.
const MAX_SUBJECT: usize = 200;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");

/// An entry of the certificate table, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Where in the file.
    pub offset: usize,
    /// The digest that it says it signs.
    pub digest: Option<Digest>,
    /// The certificates in it, in its order.
    pub certificates: Vec<EmbeddedCertificate>,
    /// Why there may be more in it than is said here.
    pub problem: Option<SignatureProblem>,
}

/// A certificate in a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedCertificate {
    /// Its subject, cut, without what does not only show.
    pub subject: String,
    /// The SHA-256 of its DER.
    pub sha256: Digest,
}

/// Why a signature is not described in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureProblem {
    /// Another kind than PKCS#7.
    #[error("no PKCS#7 signature: revision {revision:#x}, type {kind:#x}")]
    Kind {
        /// wRevision.
        revision: u16,
        /// wCertificateType.
        kind: u16,
    },
    /// It is no SignedData with an SpcIndirectDataContent in DER.
    #[error("no Authenticode signature in DER")]
    Malformed,
    /// A certificate in it cannot be read.
    #[error("a certificate that cannot be read")]
    Certificate,
    /// It has more certificates than are read.
    #[error("more than 64 certificates")]
    TooManyCertificates,
}

impl Image<'_> {
    /// The entries of the certificate table (WIN_CERTIFICATE, UEFI 2.10, 32.2.4).
    pub fn signatures(&self) -> Result<Vec<Signature>, PeError> {
        const WHAT: &str = "the certificate table";
        let file = File(self.bytes);
        let (mut at, end) = (self.certificates.start, self.certificates.end);
        let mut signatures = Vec::new();
        while at < end {
            if signatures.len() == MAX_SIGNATURES {
                return Err(PeError::TooManyCertificates { offset: at });
            }
            let left = end.saturating_sub(at);
            if left < 8 {
                return Err(PeError::CertificateLength { offset: at, length: left, left });
            }
            let length = file.u32(at, WHAT)?;
            if length < 8 || length > left {
                return Err(PeError::CertificateLength { offset: at, length, left });
            }
            let revision = file.u16(offset(at, 4), WHAT)?;
            let kind = file.u16(offset(at, 6), WHAT)?;
            let body = file.bytes(offset(at, 8), length.saturating_sub(8), WHAT)?;
            signatures.push(match (revision, kind) {
                (0x0200, 0x0002) => described(at, body),
                _ => Signature {
                    offset: at,
                    digest: None,
                    certificates: Vec::new(),
                    problem: Some(SignatureProblem::Kind { revision, kind }),
                },
            });
            at = offset(at, length.next_multiple_of(8));
        }
        Ok(signatures)
    }
}

fn described(offset: usize, body: &[u8]) -> Signature {
    let mut signature = Signature { offset, digest: None, certificates: Vec::new(), problem: None };
    if signed_data(body, &mut signature).is_err() && signature.problem.is_none() {
        signature.problem = Some(SignatureProblem::Malformed);
    }
    signature
}

/// ContentInfo, and in it SignedData (RFC 2315, 7 and 9.1). What lies behind it is padding.
fn signed_data(body: &[u8], signature: &mut Signature) -> der::Result<()> {
    let mut outer = SliceReader::new(body)?;
    let mut info = SliceReader::new(of_tag(&mut outer, Tag::Sequence)?)?;
    if info.decode::<ObjectIdentifier>()? != SIGNED_DATA {
        return Err(Tag::ObjectIdentifier.value_error().into());
    }
    let mut content = SliceReader::new(AnyRef::decode(&mut info)?.value())?;
    let mut signed = SliceReader::new(of_tag(&mut content, Tag::Sequence)?)?;
    of_tag(&mut signed, Tag::Integer)?;
    of_tag(&mut signed, Tag::Set)?;
    signature.digest = indirect_data(of_tag(&mut signed, Tag::Sequence)?)?;
    let certificates = AnyRef::decode(&mut signed)?;
    if !certificates.tag().is_context_specific() {
        return Ok(());
    }
    let mut certificates = SliceReader::new(certificates.value())?;
    let mut count = 0_usize;
    while !certificates.is_finished() {
        if count == MAX_CERTIFICATES {
            signature.problem = Some(SignatureProblem::TooManyCertificates);
            return Ok(());
        }
        count = count.saturating_add(1);
        let certificate = certificates.tlv_bytes()?;
        match Certificate::from_der(certificate) {
            Ok(parsed) => signature.certificates.push(EmbeddedCertificate {
                subject: shown(&parsed.tbs_certificate().subject().to_string()),
                sha256: hash(HashAlgorithm::Sha256, &[certificate]),
            }),
            Err(_) => signature.problem = Some(SignatureProblem::Certificate),
        }
    }
    Ok(())
}

/// SpcIndirectDataContent: its messageDigest, where the algorithm is a known one.
fn indirect_data(content: &[u8]) -> der::Result<Option<Digest>> {
    let mut content = SliceReader::new(content)?;
    if content.decode::<ObjectIdentifier>()? != INDIRECT_DATA {
        return Err(Tag::ObjectIdentifier.value_error().into());
    }
    let mut explicit = SliceReader::new(AnyRef::decode(&mut content)?.value())?;
    let mut indirect = SliceReader::new(of_tag(&mut explicit, Tag::Sequence)?)?;
    of_tag(&mut indirect, Tag::Sequence)?;
    let mut message = SliceReader::new(of_tag(&mut indirect, Tag::Sequence)?)?;
    let mut algorithm = SliceReader::new(of_tag(&mut message, Tag::Sequence)?)?;
    let algorithm = algorithm.decode::<ObjectIdentifier>()?.to_string();
    let digest = of_tag(&mut message, Tag::OctetString)?;
    let algorithm = match algorithm.as_str() {
        "1.3.14.3.2.26" => HashAlgorithm::Sha1,
        "2.16.840.1.101.3.4.2.1" => HashAlgorithm::Sha256,
        "2.16.840.1.101.3.4.2.2" => HashAlgorithm::Sha384,
        "2.16.840.1.101.3.4.2.3" => HashAlgorithm::Sha512,
        _ => return Ok(None),
    };
    Ok(Digest::from_slice(algorithm, digest))
}

fn of_tag<'a>(reader: &mut SliceReader<'a>, tag: Tag) -> der::Result<&'a [u8]> {
    let any = AnyRef::decode(reader)?;
    any.tag().assert_eq(tag)?;
    Ok(any.value())
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SUBJECT).map(|one| if only_shows(one) { one } else { '?' }).collect()
}
