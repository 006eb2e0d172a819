//! Puts keys, signatures and PCR values of the corpus into the TPM's own forms. Judges nothing.

use der::asn1::UintRef;
use der::{Decode, DecodePem, Reader as _, SliceReader};
use p256::ecdsa;
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{
    Curve, HashAlgorithm, PcrIndex, PcrValues, Signature, SignatureScheme, SignatureValue,
};
use rootbound_swtpm_tests::corpus::Artefact;
use rootbound_swtpm_tests::software_tpm::Template;
use serde_json::Value;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// The index's `scheme`.
pub fn scheme(stated: &Value) -> SignatureScheme {
    let hash = stated["hash"].as_str().unwrap().parse().unwrap();
    match stated["scheme"].as_str().unwrap() {
        "rsassa" => SignatureScheme::RsaSsa(hash),
        "ecdsa" => SignatureScheme::Ecdsa(hash),
        other => panic!("scheme {other} is not known"),
    }
}

/// TPMT_SIGNATURE of a bare PKCS#1 or DER ECDSA signature.
pub fn signature(scheme: SignatureScheme, raw: &[u8]) -> Vec<u8> {
    let value = match scheme {
        SignatureScheme::RsaSsa(_) | SignatureScheme::RsaPss(_) => SignatureValue::Rsa(raw),
        SignatureScheme::Ecdsa(_) => {
            let (r, s) = ecdsa::Signature::from_der(raw).unwrap().split_bytes();
            return Signature { scheme, value: SignatureValue::Ecdsa { r: &r, s: &s } }.to_bytes();
        }
    };
    Signature { scheme, value }.to_bytes()
}

/// Bytes of the number in a TPMT_SIGNATURE by RSA.
pub fn rsa_length(signature: &[u8]) -> usize {
    match Signature::parse(signature).unwrap().value {
        SignatureValue::Rsa(value) => value.len(),
        SignatureValue::Ecdsa { .. } => panic!("not an RSA signature"),
    }
}

/// TPMT_PUBLIC of the AK: as it is, or made of a SubjectPublicKeyInfo, with the attributes of an honest AK.
pub fn public_area(artefact: &Artefact, scheme: SignatureScheme) -> Vec<u8> {
    if let Some(area) = artefact.find("ak.pub") {
        return unsized_public_area(&area);
    }
    let pem = ["ak.pem", "ak_recovered.pem"].into_iter().find_map(|file| artefact.find(file));
    let info = match pem {
        Some(pem) => SubjectPublicKeyInfoOwned::from_pem(&pem).unwrap(),
        None => SubjectPublicKeyInfoOwned::from_der(&artefact.read("ak.spki.der")).unwrap(),
    };
    let key = info.subject_public_key.raw_bytes();
    let template = Template::attestation_p256().with_scheme(Some(scheme));
    match scheme {
        SignatureScheme::RsaSsa(_) | SignatureScheme::RsaPss(_) => template.rsa_public_area(&modulus(key)),
        SignatureScheme::Ecdsa(_) => {
            let (x, y) = key[1..].split_at(Curve::P256.size());
            template.ecc_public_area(Curve::P256, x, y)
        }
    }
}

/// TPMT_PUBLIC, from that or a TPM2B_PUBLIC.
pub fn unsized_public_area(area: &[u8]) -> Vec<u8> {
    let length = usize::from(u16::from_be_bytes([area[0], area[1]]));
    if length == area.len() - 2 { area[2..].to_vec() } else { area.to_vec() }
}

/// The modulus of an RSAPublicKey (RFC 8017, A.1.1).
fn modulus(key: &[u8]) -> Vec<u8> {
    let mut reader = SliceReader::new(key).unwrap();
    reader
        .sequence(|key| {
            let modulus = UintRef::decode(key)?.as_bytes().to_vec();
            UintRef::decode(key)?;
            Ok::<_, der::Error>(modulus)
        })
        .unwrap()
}

/// The values in a file of tpm2_quote, which dumps TPML_PCR_SELECTION and TPML_DIGEST lists as they lie in memory.
pub fn tpm2_tools_values(file: &[u8]) -> PcrValues {
    let mut rest = file;
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at(count);
        rest = tail;
        head
    };
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let short = |bytes: &[u8]| u16::from_le_bytes(bytes.try_into().unwrap());
    let banks = word(take(4));
    let mut selected = Vec::new();
    for position in 0..16 {
        let bank = short(take(2));
        let size = usize::from(take(1)[0]);
        let bitmap = &take(5)[..size];
        if position < banks {
            let bank = HashAlgorithm::from_tpm(bank, "bank").unwrap();
            let indices =
                (0..PcrIndex::COUNT).filter(|index| bitmap[usize::from(index / 8)] & 1 << (index % 8) != 0);
            selected.extend(indices.map(|index| (bank, PcrIndex::new(index).unwrap())));
        }
    }
    let mut digests = Vec::new();
    for _ in 0..word(take(4)) {
        let count = usize::try_from(word(take(4))).unwrap();
        let list: Vec<_> = (0..8).map(|_| (usize::from(short(take(2))), take(64))).collect();
        digests.extend(list.into_iter().take(count).map(|(size, digest)| &digest[..size]));
    }
    assert!(rest.is_empty());
    assert_eq!(selected.len(), digests.len());
    let mut values = PcrValues::default();
    for ((bank, index), digest) in selected.into_iter().zip(digests) {
        values.insert(index, Digest::from_slice(bank, digest).unwrap());
    }
    values
}
