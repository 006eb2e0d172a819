//! Forms in which others keep keys and signatures, put into the TPM's own. Nothing here judges, and the service takes none
//! of these forms.

use der::asn1::{ObjectIdentifier, UintRef};
use der::{Decode, DecodePem, Reader as _, SliceReader};
use rootbound_common::tpm::{
    Attributes, Curve, HashAlgorithm, KeyParameters, ParseError, Public, Signature, SignatureScheme,
    SignatureValue, put_sized,
};
use spki::SubjectPublicKeyInfoOwned;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// A key as a file has it.
pub(super) enum KeyForm {
    /// A TPMT_PUBLIC: the numbers, what the key may do, and its scheme.
    PublicArea(Vec<u8>),
    /// A SubjectPublicKeyInfo: the numbers and nothing else.
    Bare(BareKey),
}

/// The numbers of a key.
pub(super) enum BareKey {
    Rsa { modulus: Vec<u8>, exponent: u32 },
    Ecc { curve: Curve, x: Vec<u8>, y: Vec<u8> },
}

/// Tells a PEM or DER SubjectPublicKeyInfo from a TPM2B_PUBLIC and a TPMT_PUBLIC.
pub(super) fn key(file: &[u8]) -> Result<KeyForm, String> {
    let text = file.trim_ascii();
    if text.starts_with(b"-----BEGIN") {
        let info = SubjectPublicKeyInfoOwned::from_pem(text).map_err(|error| error.to_string())?;
        return bare(&info).map(KeyForm::Bare);
    }
    if file.first() == Some(&0x30) {
        let info = SubjectPublicKeyInfoOwned::from_der(file).map_err(|error| error.to_string())?;
        return bare(&info).map(KeyForm::Bare);
    }
    // A TPMT_PUBLIC begins with the key's type: 1 or 0x23, which is no length of one.
    let stated = file.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
    let sized = stated.is_some_and(|stated| stated.checked_add(2) == Some(file.len()));
    let area = if sized { file.get(2..).unwrap_or_default() } else { file };
    Ok(KeyForm::PublicArea(area.to_vec()))
}

fn bare(info: &SubjectPublicKeyInfoOwned) -> Result<BareKey, String> {
    let key = info.subject_public_key.as_bytes().ok_or("its key is not a number of bytes")?;
    if info.algorithm.oid == RSA_ENCRYPTION {
        return rsa(key).map_err(|error| error.to_string());
    }
    let curve = info.algorithm.parameters.as_ref().and_then(|it| it.decode_as::<ObjectIdentifier>().ok());
    let curve = match curve {
        Some(PRIME256V1) => Curve::P256,
        Some(SECP384R1) => Curve::P384,
        Some(_) | None => return Err("it is neither an RSA key nor one of P-256 or P-384".to_owned()),
    };
    let point = key.strip_prefix(&[4]).filter(|point| point.len() == 2 * curve.size());
    let (x, y) =
        point.and_then(|point| point.split_at_checked(curve.size())).ok_or("its point is compressed")?;
    Ok(BareKey::Ecc { curve, x: x.to_vec(), y: y.to_vec() })
}

/// RSAPublicKey (RFC 8017, A.1.1).
fn rsa(key: &[u8]) -> Result<BareKey, der::Error> {
    let mut reader = SliceReader::new(key)?;
    reader.sequence(|key| {
        let modulus = UintRef::decode(key)?.as_bytes().to_vec();
        Ok(BareKey::Rsa { modulus, exponent: u32::decode(key)? })
    })
}

impl BareKey {
    /// The scheme of a signature by this key: what a TPMT_SIGNATURE states. A bare number says nothing of it, and is taken
    /// as PKCS#1 v1.5 or ECDSA over SHA-256, as those who publish such have it.
    pub(super) fn scheme_of(&self, file: &[u8]) -> Result<SignatureScheme, ParseError> {
        let (bare, usual) = match self {
            Self::Rsa { modulus, .. } => {
                (file.len() == modulus.len(), SignatureScheme::RsaSsa(HashAlgorithm::Sha256))
            }
            Self::Ecc { .. } => (is_sequence(file), SignatureScheme::Ecdsa(HashAlgorithm::Sha256)),
        };
        if bare { Ok(usual) } else { Signature::parse(file).map(|signature| signature.scheme) }
    }

    /// A public area with these numbers that claims nothing: no attribute is set in it, and its scheme is the one that the
    /// signature claims. Good for a verifying key, and refused as an AK.
    pub(super) fn public_area(&self, scheme: SignatureScheme) -> Result<Public, ParseError> {
        const NULL: u16 = 0x0010;
        let kind: u16 = match self {
            Self::Rsa { .. } => 0x0001,
            Self::Ecc { .. } => 0x0023,
        };
        let mut area = Vec::new();
        area.extend(kind.to_be_bytes());
        area.extend(HashAlgorithm::Sha256.tpm_id().to_be_bytes());
        area.extend(Attributes::from_bits(0).bits().to_be_bytes());
        put_sized(&mut area, &[]);
        for word in [NULL, scheme.tpm_id(), scheme.hash().tpm_id()] {
            area.extend(word.to_be_bytes());
        }
        match self {
            Self::Rsa { modulus, exponent } => {
                let bits = u16::try_from(modulus.len().saturating_mul(8)).unwrap_or(u16::MAX);
                area.extend(bits.to_be_bytes());
                area.extend(exponent.to_be_bytes());
                put_sized(&mut area, modulus);
            }
            Self::Ecc { curve, x, y } => {
                area.extend(curve.tpm_id().to_be_bytes());
                area.extend(NULL.to_be_bytes());
                put_sized(&mut area, x);
                put_sized(&mut area, y);
            }
        }
        Public::parse(&area)
    }
}

/// The TPMT_SIGNATURE of a key of this scheme: as it is, or made of an RSA signature's bare number or of an
/// ECDSA-Sig-Value (RFC 3279, 2.2.3).
pub(super) fn signature(public: &Public, file: &[u8]) -> Result<Vec<u8>, ParseError> {
    let Some(scheme) = public.parameters().scheme() else { return Ok(file.to_vec()) };
    match public.parameters() {
        KeyParameters::Rsa { modulus, .. } if file.len() == modulus.len() => {
            Ok(Signature { scheme, value: SignatureValue::Rsa(file) }.to_bytes())
        }
        KeyParameters::Ecc { .. } if is_sequence(file) => {
            let rule = "must be a TPMT_SIGNATURE, or SEQUENCE { r, s } in DER";
            let numbers = numbers(file).map_err(|_| ParseError::Invalid { what: "signature", rule })?;
            let value = SignatureValue::Ecdsa { r: &numbers.0, s: &numbers.1 };
            Ok(Signature { scheme, value }.to_bytes())
        }
        KeyParameters::Rsa { .. } | KeyParameters::Ecc { .. } => Ok(file.to_vec()),
    }
}

/// A TPMT_SIGNATURE begins with a zero.
fn is_sequence(file: &[u8]) -> bool {
    file.first() == Some(&0x30)
}

fn numbers(file: &[u8]) -> Result<(Vec<u8>, Vec<u8>), der::Error> {
    let mut reader = SliceReader::new(file)?;
    let numbers = reader.sequence(|numbers| {
        let r = UintRef::decode(numbers)?.as_bytes().to_vec();
        Ok::<_, der::Error>((r, UintRef::decode(numbers)?.as_bytes().to_vec()))
    })?;
    reader.finish()?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_refused() {
        for (file, why) in [
            (
                &b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"[..],
                "a PEM file of something else",
            ),
            (&[0x30, 0x82, 0xff, 0xff], "a SEQUENCE beyond the end"),
            (&[0x30], "a SEQUENCE of nothing"),
        ] {
            assert!(key(file).is_err(), "{why}");
        }
        let KeyForm::PublicArea(area) = key(&[0, 2, 0xab, 0xcd]).unwrap() else { panic!("no public area") };
        assert_eq!(area, [0xab, 0xcd], "the size of a TPM2B_PUBLIC is not of its TPMT_PUBLIC");
        let KeyForm::PublicArea(area) = key(&[0, 1, 0xab, 0xcd]).unwrap() else { panic!("no public area") };
        assert_eq!(area, [0, 1, 0xab, 0xcd]);
    }

    #[test]
    fn a_key_without_attributes_claims_none() {
        let bare = BareKey::Rsa { modulus: vec![0xff; 256], exponent: 65_537 };
        let scheme = bare.scheme_of(&[1; 256]).unwrap();
        assert_eq!(scheme, SignatureScheme::RsaSsa(HashAlgorithm::Sha256));
        let public = bare.public_area(scheme).unwrap();
        assert_eq!(public.attributes().bits(), 0);
        let signature = signature(&public, &[1; 256]).unwrap();
        let parsed = Signature::parse(&signature).unwrap();
        assert_eq!((parsed.scheme, parsed.value), (scheme, SignatureValue::Rsa(&[1; 256])));
        assert!(
            bare.scheme_of(&[1; 255]).is_err(),
            "neither a number of the key's length nor a TPMT_SIGNATURE"
        );
    }

    #[test]
    fn bare_ecdsa_signatures_are_read_to_the_last_byte() {
        let good = [0x30, 6, 2, 1, 5, 2, 1, 7];
        assert_eq!(numbers(&good).unwrap(), (vec![5], vec![7]));
        for (bad, why) in [
            (&good[..7], "cut"),
            (&[&good[..], &[0]].concat(), "a byte more"),
            (&[0x30, 3, 2, 1, 5], "one number"),
            (&[0x30, 6, 2, 1, 0x85, 2, 1, 7], "a negative number"),
        ] {
            assert!(numbers(bad).is_err(), "{why}");
        }
    }
}
