//! Boots of virtual machines, recorded and measured again into a software TPM.

use rootbound_attester::tpm::Tpm;
use rootbound_common::crypto::VerifyingKey;
use rootbound_common::tpm::{Attest, Attested, HashAlgorithm, PcrSelection, PcrValues, Public, Signature};
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::boots::Boot;
use rootbound_swtpm_tests::keys::{bank_pcrs, sha256_pcrs, signed_statement};

fn all_pcrs(bank: HashAlgorithm) -> PcrSelection {
    bank_pcrs(bank, &(0..24).collect::<Vec<_>>())
}

fn of_bank(values: &PcrValues, bank: HashAlgorithm) -> PcrValues {
    let mut of_bank = PcrValues::default();
    for (_, pcr, value) in values.iter().filter(|(other, _, _)| *other == bank) {
        of_bank.insert(pcr, *value);
    }
    of_bank
}

#[tokio::test]
async fn recorded_boot_that_is_measured_again_has_the_values_of_the_machine() {
    let boots = Boot::all();
    assert!(boots.iter().any(|boot| boot.name() == "golden"));
    let mut swtpm = Swtpm::builder().banks(&Boot::BANKS).start();
    for boot in boots {
        boot.replay(&mut swtpm);
        let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
        for bank in Boot::BANKS {
            let values = tpm.read_pcrs(&all_pcrs(bank)).await.unwrap();
            assert_eq!(values, of_bank(&boot.pcr_values(), bank), "{}: {bank}", boot.name());
        }
    }
}

#[tokio::test]
async fn quote_of_a_replayed_boot_is_over_the_values_of_the_machine() {
    let mut swtpm = Swtpm::builder().banks(&Boot::BANKS).start();
    let boot = Boot::named("golden");
    boot.replay(&mut swtpm);
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let ak = tpm.create_ak(None).await.unwrap();
    let selection = sha256_pcrs(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14]);
    let quote = tpm.quote(&ak, &selection, b"").await.unwrap();
    signed_statement(&ak, &quote.statement);
    let recorded = boot.pcr_values();
    for (bank, pcr, value) in quote.values.iter() {
        assert_eq!(recorded.get(bank, pcr), Some(value), "PCR {pcr}");
    }
    assert_eq!(quote.values.iter().count(), 12);
}

#[test]
fn recorded_quotes_are_over_the_recorded_values() {
    for boot in Boot::all() {
        let name = boot.name();
        let (ak, attest) = (boot.read("ak.pub"), boot.read("quote.msg"));
        // tpm2-tools writes a TPM2B_PUBLIC.
        let public = Public::parse(&ak[2..]).unwrap();
        let signature = boot.read("quote.sig");
        let signature = Signature::parse(&signature).unwrap();
        VerifyingKey::of_public_area(&public).unwrap().verify(&attest, &signature).unwrap();
        let attest = Attest::parse(&attest).unwrap();
        assert_eq!(attest.extra_data, boot.read("nonce.bin"), "{name}");
        let Attested::Quote { selection, pcr_digest } = attest.attested else {
            panic!("{name}: not a quote")
        };
        assert_eq!(selection, all_pcrs(HashAlgorithm::Sha256), "{name}");
        let values = of_bank(&boot.pcr_values(), HashAlgorithm::Sha256);
        let digest = values.digest(&selection, HashAlgorithm::Sha256).unwrap();
        assert_eq!(digest.as_bytes(), pcr_digest, "{name}");
    }
}
