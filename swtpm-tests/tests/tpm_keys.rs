//! What the attester asks of a TPM, asked of a real (software) one.

use rootbound_attester::tpm::Tpm;
use rootbound_common::crypto::VerifyingKey;
use rootbound_common::tpm::{
    Attest, Attested, HashAlgorithm, PcrIndex, PcrSelection, Signature, SignatureScheme, SignatureValue,
    policy_pcr,
};
use rootbound_swtpm_tests::Swtpm;

fn sha256(pcrs: &[u8]) -> PcrSelection {
    let pcrs = pcrs.iter().map(|pcr| PcrIndex::new(*pcr).unwrap()).collect();
    PcrSelection::of_bank(HashAlgorithm::Sha256, pcrs)
}

#[tokio::test]
async fn key_bound_to_pcrs_is_certified_and_signs() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let ak = tpm.create_ak(None).await.unwrap();
    let boot = sha256(&[0, 2, 4, 7, 14]);

    let quote = tpm.quote(&ak, &boot, b"extra").await.unwrap();
    let digest = quote.values.digest(&boot, HashAlgorithm::Sha256).unwrap();
    let policy = policy_pcr(HashAlgorithm::Sha256, &boot, &digest);
    let key = tpm.create_credential_key(&policy).await.unwrap();
    assert_eq!(key.public().auth_policy(), policy.as_bytes());

    let statement = tpm.certify(&ak, &key, b"certify").await.unwrap();
    let attest = Attest::parse(&statement.attest).unwrap();
    assert!(matches!(attest.attested, Attested::Certify { name, .. } if name == key.name()));
    assert_eq!(attest.extra_data, b"certify");
    VerifyingKey::of_public_area(ak.public())
        .unwrap()
        .verify(&statement.attest, &Signature::parse(&statement.signature).unwrap())
        .unwrap();

    let message = b"to be signed";
    let digest = rootbound_common::crypto::hash(HashAlgorithm::Sha256, &[message]);
    let signature = tpm.sign(&key, &boot, digest.as_bytes().try_into().unwrap()).await.unwrap();
    let (r, s) = signature.split_at(32);
    let signature = Signature {
        scheme: SignatureScheme::Ecdsa(HashAlgorithm::Sha256),
        value: SignatureValue::Ecdsa { r, s },
    };
    VerifyingKey::of_public_area(key.public()).unwrap().verify(message, &signature).unwrap();
    assert_eq!(swtpm.loaded_handles(), Vec::<u32>::new());
}
