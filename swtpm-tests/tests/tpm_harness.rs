//! The software TPM that all tests stand on does what it says.

use std::process::Command;

use rootbound_attester::tpm::{AkBlob, Tpm};
use rootbound_common::crypto::hash;
use rootbound_common::tpm::{ClockState, HashAlgorithm, PcrValues};
use rootbound_swtpm_tests::keys::{bank_pcrs, sha256_pcrs, signed_statement};
use rootbound_swtpm_tests::swtpm::MEASURED_PCRS;
use rootbound_swtpm_tests::{Manufacturer, Swtpm};

/// A TPM with one AK: what a statement says of the counters is offset by a number of the AK's own, since the AK is
/// not in the endorsement hierarchy (Part 3, 18.1).
struct Observer {
    tpm: Tpm,
    ak: AkBlob,
}

impl Observer {
    async fn of(swtpm: &Swtpm) -> Self {
        let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
        let ak = tpm.create_ak(None).await.unwrap();
        Self { tpm, ak }
    }

    async fn state(&self) -> (ClockState, PcrValues) {
        let quote = self.tpm.quote(&self.ak, &sha256_pcrs(&(0..24).collect::<Vec<_>>()), b"").await.unwrap();
        (signed_statement(&self.ak, &quote.statement).clock, quote.values)
    }
}

#[tokio::test]
async fn boots_with_the_same_seed_measure_the_same() {
    let manufacturer = Manufacturer::new();
    let mut one = Swtpm::manufacture_by(&manufacturer);
    let other = Swtpm::manufacture_by(&manufacturer);
    let observer = Observer::of(&one).await;
    let (_, values) = observer.state().await;
    assert_eq!(Observer::of(&other).await.state().await.1, values);
    one.reboot_into(1);
    let (_, changed) = observer.state().await;
    for (bank, pcr, value) in values.iter() {
        let measured = MEASURED_PCRS.contains(&pcr.get());
        assert_eq!(changed.get(bank, pcr) != Some(value), measured, "PCR {pcr}");
    }
    one.reboot_into(0);
    assert_eq!(observer.state().await.1, values);
}

#[tokio::test]
async fn each_active_bank_is_extended_by_its_own_hash() {
    let banks = [HashAlgorithm::Sha1, HashAlgorithm::Sha384];
    let swtpm = Swtpm::builder().banks(&banks).boot_seed(7).start();
    swtpm.extend(16, b"an event");
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    for bank in banks {
        let values = tpm.read_pcrs(&bank_pcrs(bank, &[16])).await.unwrap();
        let expected = hash(bank, &[&vec![0; bank.size()], hash(bank, &[b"an event"]).as_bytes()]);
        assert_eq!(values.iter().map(|(_, _, value)| *value).collect::<Vec<_>>(), [expected]);
    }
    let idle = tpm.read_pcrs(&sha256_pcrs(&[16])).await.unwrap();
    assert_eq!(idle.iter().count(), 0);
}

#[tokio::test]
async fn power_events_count_as_a_tpm_counts_them() {
    let mut swtpm = Swtpm::manufacture();
    let observer = Observer::of(&swtpm).await;
    let (first, values) = observer.state().await;
    swtpm.extend(10, b"an event");
    swtpm.suspend_resume();
    let (resumed, after) = observer.state().await;
    assert_eq!((resumed.reset_count, resumed.restart_count), (first.reset_count, first.restart_count + 1));
    assert_ne!(after, values);
    swtpm.power_cut();
    let (cut, after) = observer.state().await;
    assert_eq!((cut.reset_count, cut.restart_count), (first.reset_count + 1, first.restart_count));
    assert_eq!(after, values);
    swtpm.reboot();
    assert_eq!(observer.state().await.0.reset_count, first.reset_count + 2);
}

#[tokio::test]
async fn rollback_takes_the_counters_back() {
    let mut swtpm = Swtpm::manufacture();
    let snapshot = swtpm.snapshot();
    let observer = Observer::of(&swtpm).await;
    let (before, values) = observer.state().await;
    swtpm.reboot();
    swtpm.reboot();
    swtpm.rollback(&snapshot);
    let (after, same) = observer.state().await;
    assert_eq!(after.reset_count, before.reset_count + 1);
    assert_eq!(values, same);
}

#[tokio::test]
async fn endorsement_certificates_chain_to_the_manufacturer() {
    let manufacturer = Manufacturer::new();
    let tpms = [Swtpm::manufacture_by(&manufacturer), Swtpm::builder().by(&manufacturer).p256_ek().start()];
    let mut certificates = 0;
    for swtpm in &tpms {
        let (root, issuer) = swtpm.ca_certificates();
        std::fs::write(swtpm.dir().join("root.pem"), root).unwrap();
        std::fs::write(swtpm.dir().join("issuer.pem"), issuer).unwrap();
        let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
        for key in tpm.endorsement_keys().await.unwrap() {
            let Some(certificate) = key.certificate else { continue };
            std::fs::write(swtpm.dir().join("ek.der"), certificate).unwrap();
            let output = Command::new("sh")
                .current_dir(swtpm.dir())
                .args(["-c", "openssl x509 -inform der -in ek.der -out ek.pem && openssl verify -CAfile root.pem -untrusted issuer.pem ek.pem"])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            certificates += 1;
        }
    }
    assert_eq!(certificates, 2 + 3);
}
