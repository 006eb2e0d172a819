//! Public areas, and the keys that are made of them.

use rootbound_common::crypto::{VerifyingKey, subject_public_key_info};
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{
    Attributes, HashAlgorithm, KeyParameters, Name, Public, Signature, SignatureScheme, SignatureValue,
};
use rootbound_swtpm_tests::corpus::Corpus;
use rootbound_swtpm_tests::software_tpm::{EndorsementKey, SoftwareKey, Template};
use rootbound_verifier::enrollment::{AttestationKey, UnendorsedKey};
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::{Outcome, Target, with_trailing_byte};

/// TPMT_PUBLIC.
pub(super) struct PublicTarget;

impl Target for PublicTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let pss =
            Template::attestation_rsa().with_scheme(Some(SignatureScheme::RsaPss(HashAlgorithm::Sha512)));
        let p384 = Template { name_algorithm: HashAlgorithm::Sha384, ..Template::attestation_p256() }
            .with_scheme(Some(SignatureScheme::Ecdsa(HashAlgorithm::Sha384)));
        let mut seeds = vec![
            EndorsementKey::p256().public_area(),
            EndorsementKey::rsa2048().public_area(),
            SoftwareKey::p256(Template::attestation_p256()).public_area(),
            SoftwareKey::p256(Template::credential(&[5; 32])).public_area(),
            SoftwareKey::p384(p384).public_area(),
            SoftwareKey::rsa2048(Template::attestation_rsa()).public_area(),
            SoftwareKey::rsa2048(pss).public_area(),
        ];
        for kind in ["quote-evidence", "attest-creation"] {
            for artefact in Corpus::find().iter().flat_map(|corpus| corpus.artefacts(kind)) {
                let Some(area) = artefact.find("ak.pub") else { continue };
                seeds.push(Public::parse_sized(&area).map_or(area, |public| public.as_bytes().to_vec()));
            }
        }
        seeds
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        let public = match Public::parse(input) {
            Ok(public) => public,
            Err(error) => {
                assert!(AttestationKey::parse(input).is_err() && UnendorsedKey::parse(input).is_err());
                return Outcome { accepted: false, class: format!("{error:?}") };
            }
        };
        check_public(input, &public);
        let info = check_subject_public_key_info(&public);
        let verifying = VerifyingKey::of_public_area(&public);
        if let Ok(key) = &verifying {
            check_verifying_key(key, &public);
        }
        let attestation = AttestationKey::parse(input).inspect(|key| check_attestation_key(key, &public));
        let endorsement = UnendorsedKey::parse(input).inspect(|key| {
            assert_eq!(Some(key.node_id()), info.as_deref().map(NodeId::of_endorsement_key));
            let needed = Attributes::RESTRICTED.and(Attributes::DECRYPT).and(Attributes::FIXED_TPM);
            assert!(public.attributes().has(needed), "an EK is a restricted decryption key");
            assert!(attestation.is_err(), "no key is an AK and an EK");
        });
        let class = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            public.name_algorithm(),
            public.parameters().scheme(),
            verifying.map(|key| key.scheme()),
            attestation.map(|_| ()),
            endorsement.map(|_| ()),
        );
        Outcome { accepted: true, class }
    }
}

/// What was accepted is, field by field, what an independent marshaller makes of it.
fn check_public(input: &[u8], public: &Public) {
    assert!(input.len() <= Public::MAX, "a public area is bounded");
    assert_eq!(public.as_bytes(), input);
    assert_eq!(public.name(), Name::of_public_area(public.name_algorithm(), input));
    assert!(Public::parse(&with_trailing_byte(input)).is_err(), "nothing may follow a public area");
    let template = Template {
        name_algorithm: public.name_algorithm(),
        attributes: public.attributes(),
        auth_policy: public.auth_policy().to_vec(),
        symmetric: public.parameters().symmetric(),
        scheme: public.parameters().scheme(),
    };
    let marshalled = match public.parameters() {
        KeyParameters::Rsa { modulus, exponent, .. } => {
            assert_eq!(*exponent, 65_537);
            template.rsa_public_area(modulus)
        }
        KeyParameters::Ecc { curve, x, y, .. } => {
            assert_eq!((x.len(), y.len()), (curve.size(), curve.size()), "coordinates are padded");
            template.ecc_public_area(*curve, x, y)
        }
    };
    let again = Public::parse(&marshalled).expect("the common form of what was accepted");
    assert_eq!(again.parameters(), public.parameters());
    assert_eq!((again.attributes(), again.auth_policy()), (public.attributes(), public.auth_policy()));
}

fn check_subject_public_key_info(public: &Public) -> Option<Vec<u8>> {
    let info = subject_public_key_info(public).ok()?;
    let parsed = SubjectPublicKeyInfoRef::from_der(&info).expect("a SubjectPublicKeyInfo");
    assert_eq!(parsed.to_der().as_ref(), Ok(&info));
    Some(info)
}

/// A signature that nobody made does not verify.
fn check_verifying_key(key: &VerifyingKey, public: &Public) {
    assert_ne!(key.scheme().hash(), HashAlgorithm::Sha1, "SHA-1 is refused");
    let zeros = vec![0; 512];
    let value = match public.parameters() {
        KeyParameters::Rsa { modulus, .. } => SignatureValue::Rsa(&zeros[..modulus.len()]),
        KeyParameters::Ecc { x, y, .. } => SignatureValue::Ecdsa { r: x, s: y },
    };
    let signature = Signature { scheme: key.scheme(), value };
    assert!(key.verify(public.as_bytes(), &signature).is_err(), "nobody signed this");
}

fn check_attestation_key(key: &AttestationKey, public: &Public) {
    assert_eq!(key.name(), public.name());
    let needed = Attributes::RESTRICTED
        .and(Attributes::SIGN)
        .and(Attributes::FIXED_TPM)
        .and(Attributes::FIXED_PARENT)
        .and(Attributes::SENSITIVE_DATA_ORIGIN);
    assert!(public.attributes().has(needed) && !public.attributes().has(Attributes::DECRYPT));
    assert_ne!(public.name_algorithm(), HashAlgorithm::Sha1);
}
