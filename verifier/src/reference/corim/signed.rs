//! A signed CoRIM: COSE_Sign1 (RFC 9052, 4.2) with the headers of the draft (4.2).

use super::cbor::{Item, Key, Reader, Writer};
use super::{CorimError, MAX_BYTES, Validity};
use crate::reference::exchange::{SignatureAlgorithm, key_bytes};
use rootbound_common::clock::Timestamp;
use rootbound_common::id::TrustDomain;

/// What is signed (the draft, 4.2.1).
pub(super) const CONTENT_TYPE: &str = "application/rim+cbor";

/// The tags of a COSE_Sign1 and of a CoRIM without a signature.
const TAG_SIGN1: u64 = 18;
const TAG_CORIM: u64 = 501;

/// Header parameters: of RFC 9052 (3.1), the draft (4.2.1), RFC 9597 and of hash envelopes.
mod label {
    pub(super) const ALG: i128 = 1;
    pub(super) const CRIT: i128 = 2;
    pub(super) const CONTENT_TYPE: i128 = 3;
    pub(super) const KID: i128 = 4;
    pub(super) const CORIM_META: i128 = 8;
    pub(super) const CWT_CLAIMS: i128 = 15;
    /// Certificates, or where they are (RFC 9360): they make no key trusted.
    pub(super) const X5: std::ops::RangeInclusive<i128> = 32..=35;
    pub(super) const PAYLOAD_HASH_ALG: i128 = 258;
}

/// Bytes of a signer's name, an issuer or a key's identifier.
const MAX_WORDS: usize = 255;
/// Critical parameters: more than there are.
const MAX_CRITICAL: u64 = 16;

/// A CoRIM: in an envelope that somebody signed, or bare.
#[derive(Debug)]
pub(in crate::reference) enum Envelope<'b> {
    /// Signed; not yet known by whom.
    Signed(Box<Sign1<'b>>),
    /// Without a signature, the payload and where it begins.
    Bare(&'b [u8], usize),
}

/// A COSE_Sign1 of a CoRIM. Whether the signature is anybody's is not known.
#[derive(Debug)]
pub(in crate::reference) struct Sign1<'b> {
    /// By which algorithm it says to be signed.
    pub(in crate::reference) algorithm: SignatureAlgorithm,
    /// Which key it says to be signed by; a hint.
    pub(in crate::reference) kid: Option<&'b [u8]>,
    /// Who signs, as it says.
    pub(in crate::reference) signer: String,
    /// When it was signed, as it says, in seconds.
    pub(in crate::reference) issued_at: Option<i64>,
    /// When the signature holds.
    pub(in crate::reference) validity: Vec<Validity>,
    /// What is signed, and where it begins.
    pub(in crate::reference) payload: (&'b [u8], usize),
    /// The signature.
    pub(in crate::reference) signature: &'b [u8],
    protected: &'b [u8],
}

impl<'b> Envelope<'b> {
    /// Tells a CoRIM's first bytes from those of JSON: the tag of either form, or of an older draft's.
    #[must_use]
    pub(in crate::reference) fn is_meant(file: &[u8]) -> bool {
        matches!(file, [0xd2, ..] | [0xd9, 0x01, 0xf4..=0xf6, ..])
    }

    /// Reads all but the payload. Established is: the file is one item · of one of the two forms · the protected header
    /// names an algorithm that is taken, a CoRIM as what is signed, and a signer · no parameter of the other header means
    /// anything · whatever is critical is known.
    pub(in crate::reference) fn parse(file: &'b [u8]) -> Result<Self, CorimError> {
        if file.len() > MAX_BYTES {
            return Err(CorimError::Shape { at: MAX_BYTES, what: "the end: a CoRIM has at most 64 MiB" });
        }
        let mut reader = Reader::new(file, 0);
        match reader.item()? {
            Item::Tag(TAG_CORIM) => Ok(Self::Bare(file, 0)),
            Item::Tag(TAG_SIGN1) => {
                let sign1 = Sign1::parse(&mut reader)?;
                reader.end()?;
                Ok(Self::Signed(Box::new(sign1)))
            }
            _ => Err(CorimError::NotACorim { at: 0 }),
        }
    }
}

impl<'b> Sign1<'b> {
    fn parse(reader: &mut Reader<'b>) -> Result<Self, CorimError> {
        reader.exactly(4, "a COSE_Sign1: [protected, unprotected, payload, signature]")?;
        let (protected, start) = reader.bytes("the protected header, in bytes")?;
        let header = Header::parse(protected, start)?;
        unprotected(reader)?;
        let at = reader.at();
        let payload = match reader.item()? {
            Item::Bytes(bytes) => (bytes, reader.at().saturating_sub(bytes.len())),
            Item::Null => return Err(CorimError::Detached),
            _ => return Err(CorimError::Shape { at, what: "the payload, in bytes" }),
        };
        let (signature, _) = reader.bytes("the signature, in bytes")?;
        let Header { algorithm, kid, signer, issued_at, validity } = header;
        Ok(Self { algorithm, kid, signer, issued_at, validity, payload, signature, protected })
    }

    /// The bytes that the signature is of.
    pub(in crate::reference) fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(self.protected, self.payload.0)
    }
}

/// Sig_structure (RFC 9052, 4.4), without data from elsewhere.
fn signed_bytes(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.list(4).text("Signature1").bytes(protected).bytes(&[]).bytes(payload);
    writer.into_bytes()
}

struct Header<'b> {
    algorithm: SignatureAlgorithm,
    kid: Option<&'b [u8]>,
    signer: String,
    issued_at: Option<i64>,
    validity: Vec<Validity>,
}

impl<'b> Header<'b> {
    fn parse(protected: &'b [u8], start: usize) -> Result<Self, CorimError> {
        let mut reader = Reader::new(protected, start);
        let (mut algorithm, mut kid, mut typed, mut detached) = (None, None, false, false);
        let (mut meta, mut claims, mut critical, mut present) = (None, None, Vec::new(), Vec::new());
        reader.map("the protected header: a map", |reader, key| {
            present.push(key);
            let Key::Number(number) = key else { return reader.skip() };
            match number {
                label::ALG => algorithm = Some(algorithm_of(reader)?),
                label::CRIT => {
                    let at = reader.at();
                    let members = reader.list("a list of critical parameters", |reader| {
                        let at = reader.at();
                        critical.push(match reader.item()? {
                            Item::Number(number) => Key::Number(number),
                            Item::Text(text) => Key::Text(text),
                            _ => return Err(CorimError::Shape { at, what: "a header parameter" }),
                        });
                        Ok(())
                    })?;
                    if members > MAX_CRITICAL {
                        return Err(CorimError::Shape { at, what: "at most 16 critical parameters" });
                    }
                }
                label::CONTENT_TYPE => {
                    let is = matches!(reader.item()?, Item::Text(CONTENT_TYPE));
                    typed = is;
                }
                label::KID => kid = Some(reader.bytes("the identifier of a key, in bytes")?.0),
                label::CORIM_META => meta = Some(meta_of(reader)?),
                label::CWT_CLAIMS => claims = Some(claims_of(reader)?),
                label::PAYLOAD_HASH_ALG => {
                    detached = true;
                    reader.skip()?;
                }
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        reader.end()?;
        let known = [label::ALG, label::CONTENT_TYPE, label::KID, label::CORIM_META, label::CWT_CLAIMS];
        let understood = |key: &&Key<'_>| {
            !present.contains(key) || !known.iter().any(|known| **key == Key::Number(*known))
        };
        if let Some(key) = critical.iter().find(understood) {
            return Err(CorimError::Critical(key.to_string()));
        }
        let at = reader.at();
        let algorithm = algorithm.ok_or(CorimError::Missing { at, what: "the algorithm (1)" })?;
        if detached {
            return Err(CorimError::Detached);
        }
        if !typed {
            return Err(CorimError::ContentType);
        }
        let (mut validity, mut issued_at) = (Vec::new(), None);
        let (mut name, mut issuer) = (None, None);
        if let Some((signer, of)) = meta {
            name = Some(signer);
            issued_at = of.from;
            validity.push(of);
        }
        if let Some(Claims { iss, iat, held }) = claims {
            issuer = Some(iss);
            issued_at = iat.or(held.from).or(issued_at);
            validity.push(held);
        }
        let what = "who signs: corim-meta (8) or CWT claims (15)";
        let signer = issuer.or(name).ok_or(CorimError::Missing { at, what })?.to_owned();
        Ok(Self { algorithm, kid, signer, issued_at, validity })
    }
}

fn algorithm_of(reader: &mut Reader<'_>) -> Result<SignatureAlgorithm, CorimError> {
    let at = reader.at();
    match reader.item()? {
        Item::Number(number) => SignatureAlgorithm::ALL
            .into_iter()
            .find(|algorithm| i128::from(algorithm.cose()) == number)
            .ok_or_else(|| CorimError::Algorithm(number.to_string())),
        Item::Text(text) => Err(CorimError::Algorithm(Key::Text(text).to_string())),
        _ => Err(CorimError::Shape { at, what: "an algorithm" }),
    }
}

/// corim-meta-map (the draft, 4.2.2): who signs, and how long that holds.
fn meta_of<'b>(reader: &mut Reader<'b>) -> Result<(&'b str, Validity), CorimError> {
    let (bytes, start) = reader.bytes("corim-meta, in bytes")?;
    let mut reader = Reader::new(bytes, start);
    let (mut name, mut validity) = (None, Validity::default());
    reader.map("corim-meta: a map", |reader, key| {
        let at = reader.at();
        match key {
            Key::Number(0) => reader.map("the signer: a map", |reader, key| {
                let at = reader.at();
                match key {
                    Key::Number(0) => name = Some(reader.words(MAX_WORDS, "a signer's name")?),
                    Key::Number(1) => uri(reader)?,
                    key => return Err(super::unknown(at, "corim-signer-map", key)),
                }
                Ok(())
            }),
            Key::Number(1) => {
                validity = validity_of(reader)?;
                Ok(())
            }
            key => Err(super::unknown(at, "corim-meta-map", key)),
        }
    })?;
    reader.end()?;
    let name = name.ok_or(CorimError::Missing { at: reader.at(), what: "the signer's name" })?;
    Ok((name, validity))
}

struct Claims<'b> {
    iss: &'b str,
    iat: Option<i64>,
    held: Validity,
}

/// CWT claims (RFC 8392, 3.1; RFC 9597): who issues, when, and how long that holds. Others are about nobody here.
fn claims_of<'b>(reader: &mut Reader<'b>) -> Result<Claims<'b>, CorimError> {
    let (mut iss, mut iat, mut held) = (None, None, Validity::default());
    reader.map("CWT claims: a map", |reader, key| {
        match key {
            Key::Number(1) => iss = Some(reader.words(MAX_WORDS, "an issuer")?),
            Key::Number(4) => held.until = Some(seconds(reader)?),
            Key::Number(5) => held.from = Some(seconds(reader)?),
            Key::Number(6) => iat = Some(seconds(reader)?),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    let iss = iss.ok_or(CorimError::Missing { at: reader.at(), what: "the issuer (1)" })?;
    Ok(Claims { iss, iat, held })
}

/// validity-map (the draft, 7.3).
pub(super) fn validity_of(reader: &mut Reader<'_>) -> Result<Validity, CorimError> {
    const TIME: &str = "a time: tag 1 and whole seconds";
    let mut validity = Validity::default();
    reader.map("a validity: a map", |reader, key| {
        let at = reader.at();
        let bound = match key {
            Key::Number(0) => &mut validity.from,
            Key::Number(1) => &mut validity.until,
            key => return Err(super::unknown(at, "validity-map", key)),
        };
        reader.tag(1, TIME)?;
        *bound = Some(seconds(reader)?);
        Ok(())
    })?;
    if validity.until.is_none() {
        return Err(CorimError::Missing { at: reader.at(), what: "the end of a validity (1)" });
    }
    Ok(validity)
}

fn seconds(reader: &mut Reader<'_>) -> Result<i64, CorimError> {
    let at = reader.at();
    let seconds = match reader.item()? {
        Item::Number(number) => i64::try_from(number).ok(),
        _ => None,
    };
    seconds.ok_or(CorimError::Shape { at, what: "whole seconds since 1970" })
}

/// A URI: tag 32. It names nothing that is looked at.
pub(super) fn uri(reader: &mut Reader<'_>) -> Result<(), CorimError> {
    reader.tag(32, "a URI: tag 32 and a text")?;
    reader.text("a URI: tag 32 and a text").map(|_| ())
}

/// Only hints may stand where nothing protects them; they are not looked at.
fn unprotected(reader: &mut Reader<'_>) -> Result<(), CorimError> {
    reader.map("the unprotected header: a map", |reader, key| match key {
        Key::Number(number) if number == label::KID || label::X5.contains(&number) => reader.skip(),
        key => Err(CorimError::Unprotected(key.to_string())),
    })
}

/// A CoRIM that waits for its signature.
#[derive(Debug)]
pub struct ToSign {
    protected: Vec<u8>,
    payload: Vec<u8>,
}

impl ToSign {
    /// `key`: of the signer, as [`key_id`](crate::reference::exchange::key_id) has it. `until`: when the signature ends.
    /// The issuer and the time of signing are CWT claims (RFC 9597), beside `corim-meta`.
    #[must_use]
    pub fn new(
        payload: Vec<u8>,
        algorithm: SignatureAlgorithm,
        key: &str,
        (issuer, at): (&TrustDomain, Timestamp),
        until: Option<Timestamp>,
    ) -> Self {
        let issuer = issuer.to_string();
        let mut meta = Writer::new();
        meta.map(if until.is_some() { 2 } else { 1 }).number(0).map(1).number(0).text(&issuer);
        if let Some(until) = until {
            meta.number(1).map(2).number(0).tag(1).number(at.as_seconds());
            meta.number(1).tag(1).number(until.as_seconds());
        }
        let mut header = Writer::new();
        header.map(5).number(1).number(algorithm.cose()).number(3).text(CONTENT_TYPE);
        header.number(4).bytes(&key_bytes(key)).number(8).bytes(&meta.into_bytes());
        header.number(15).map(if until.is_some() { 4 } else { 2 }).number(1).text(&issuer);
        if let Some(until) = until {
            // As corim-meta has it: the two have to agree (the draft, 4.2.1).
            header.number(4).number(until.as_seconds()).number(5).number(at.as_seconds());
        }
        header.number(6).number(at.as_seconds());
        Self { protected: header.into_bytes(), payload }
    }

    /// What is to be signed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        signed_bytes(&self.protected, &self.payload)
    }

    /// With its signature: of ECDSA r and s.
    #[must_use]
    pub fn signed(&self, signature: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.tag(TAG_SIGN1).list(4).bytes(&self.protected).map(0).bytes(&self.payload).bytes(signature);
        writer.into_bytes()
    }
}

/// The tag of a CoRIM, of which the content is next.
pub(super) fn corim_tag(reader: &mut Reader<'_>) -> Result<(), CorimError> {
    let at = reader.at();
    if reader.item()? == Item::Tag(TAG_CORIM) { Ok(()) } else { Err(CorimError::NotACorim { at }) }
}

/// A map as a CoRIM without a signature, which is also what is signed.
pub(super) fn tagged(map: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.tag(TAG_CORIM).items(map);
    writer.into_bytes()
}

/// Whether a file is meant to be a CoRIM: by its first bytes.
#[must_use]
pub fn is_corim(file: &[u8]) -> bool {
    Envelope::is_meant(file)
}
