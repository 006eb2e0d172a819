//! Keys and statements, asked of a TPM by the attester and checked by others: our verifier's code and tpm2-tools.

use std::fs;

use rootbound_attester::tpm::{AkAlgorithm, AkBlob, CredentialKeyBlob, Quote, Tpm, TpmError};
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{Attested, HashAlgorithm, KeyParameters, PcrSelection, SignatureScheme};
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::keys::{bank_pcrs, bound_key, sha256_pcrs, sign, signed_statement, verify_p256};

#[tokio::test]
async fn key_bound_to_pcrs_is_certified_and_signs() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let boot = sha256_pcrs(&[0, 2, 4, 7, 14]);
    let ak = tpm.create_ak(None).await.unwrap();
    let key = bound_key(&tpm, &boot).await;

    let statement = tpm.certify(&ak, &key, b"certify").await.unwrap();
    let attest = signed_statement(&ak, &statement);
    assert!(matches!(attest.attested, Attested::Certify { name, .. } if name == key.name()));
    assert_eq!(attest.extra_data, b"certify");

    sign(&tpm, &key, &boot, b"a message").await.unwrap();
    swtpm.assert_nothing_loaded();
}

#[tokio::test]
async fn key_signs_on_threads_that_block() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let boot = sha256_pcrs(&[0, 7]);
    let key = bound_key(&tpm, &boot).await;
    let digest = rootbound_common::crypto::hash(HashAlgorithm::Sha256, &[b"a message"]);
    let digest: [u8; 32] = digest.as_bytes().try_into().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let signature = tpm.sign_blocking(&key, &boot, &digest).unwrap();
                verify_p256(key.public(), b"a message", &signature);
            });
        }
    });
}

#[tokio::test]
async fn changed_pcr_stops_the_key_but_not_its_certification() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let boot = sha256_pcrs(&[0, 7]);
    let ak = tpm.create_ak(None).await.unwrap();
    let key = bound_key(&tpm, &boot).await;
    sign(&tpm, &key, &boot, b"before").await.unwrap();

    swtpm.extend(7, b"a foreign boot loader");

    let refused = sign(&tpm, &key, &boot, b"after").await;
    assert!(matches!(refused, Err(TpmError::PolicyFailed { .. })), "{refused:?}");
    // Another selection than that of the policy does not help either.
    let refused = sign(&tpm, &key, &sha256_pcrs(&[0]), b"after").await;
    assert!(matches!(refused, Err(TpmError::PolicyFailed { .. })), "{refused:?}");
    let statement = tpm.certify(&ak, &key, b"").await.unwrap();
    signed_statement(&ak, &statement);
    // Three refusals left behind would have taken the last session.
    for _ in 0..4 {
        assert!(sign(&tpm, &key, &boot, b"after").await.is_err());
    }
    swtpm.assert_nothing_loaded();
}

#[tokio::test]
async fn keys_of_a_rebooted_machine_work_if_it_booted_the_same() {
    let mut swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let boot = sha256_pcrs(&[0, 4, 7]);
    let ak = tpm.create_ak(None).await.unwrap();
    let key = bound_key(&tpm, &boot).await;
    let first = tpm.quote(&ak, &boot, b"").await.unwrap();
    sign(&tpm, &key, &boot, b"first boot").await.unwrap();

    swtpm.reboot();
    let second = tpm.quote(&ak, &boot, b"").await.unwrap();
    let (before, after) = (clock(&ak, &first), clock(&ak, &second));
    assert_eq!(after.reset_count, before.reset_count + 1);
    assert_eq!(first.values, second.values);
    sign(&tpm, &key, &boot, b"second boot").await.unwrap();

    swtpm.suspend_resume();
    let third = tpm.quote(&ak, &boot, b"").await.unwrap();
    let resumed = clock(&ak, &third);
    assert_eq!((resumed.reset_count, resumed.restart_count), (after.reset_count, after.restart_count + 1));
    sign(&tpm, &key, &boot, b"resumed").await.unwrap();

    swtpm.reboot_into(1);
    let refused = sign(&tpm, &key, &boot, b"other software").await;
    assert!(matches!(refused, Err(TpmError::PolicyFailed { .. })), "{refused:?}");
}

fn clock(ak: &AkBlob, quote: &Quote) -> rootbound_common::tpm::ClockState {
    signed_statement(ak, &quote.statement).clock
}

#[tokio::test]
async fn keys_survive_as_bytes_and_only_on_their_tpm() {
    let swtpm = Swtpm::manufacture();
    let other = Swtpm::manufacture_by(swtpm.manufacturer());
    let (ak, key, boot) = {
        let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
        let boot = sha256_pcrs(&[0]);
        (tpm.create_ak(None).await.unwrap(), bound_key(&tpm, &boot).await, boot)
    };
    let ak = AkBlob::from_parts(ak.public().as_bytes(), ak.private()).unwrap();
    let key = CredentialKeyBlob::from_parts(key.public().as_bytes(), key.private()).unwrap();

    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    tpm.quote(&ak, &boot, b"").await.unwrap();
    sign(&tpm, &key, &boot, b"a message").await.unwrap();

    let foreign = Tpm::spawn(other.tcti()).unwrap();
    let refused = foreign.quote(&ak, &boot, b"").await;
    assert!(matches!(refused, Err(TpmError::ForeignKey { .. })), "{refused:?}");
    let refused = sign(&foreign, &key, &boot, b"a message").await;
    assert!(matches!(refused, Err(TpmError::ForeignKey { .. })), "{refused:?}");
    other.assert_nothing_loaded();

    // Who clears the TPM gives it another storage seed; the endorsement seed stays.
    swtpm.tool_ok("tpm2_clear", &["-c", "p"]);
    tpm.quote(&ak, &boot, b"").await.unwrap();
    let refused = sign(&tpm, &key, &boot, b"a message").await;
    assert!(matches!(refused, Err(TpmError::ForeignKey { .. })), "{refused:?}");
}

#[tokio::test]
async fn hierarchy_with_a_password_is_reported_as_such() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    swtpm.tool_ok("tpm2_changeauth", &["-c", "endorsement", "secret"]);
    let refused = tpm.create_ak(None).await;
    assert!(matches!(refused, Err(TpmError::AuthorizationFailed { .. })), "{refused:?}");
    swtpm.tool_ok("tpm2_changeauth", &["-c", "owner", "secret"]);
    let refused = tpm.create_credential_key(&Digest::zero(HashAlgorithm::Sha256)).await;
    assert!(matches!(refused, Err(TpmError::AuthorizationFailed { .. })), "{refused:?}");
}

#[tokio::test]
async fn quotes_verify_with_tpm2_checkquote() {
    let banks = [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384];
    let swtpm = Swtpm::builder().banks(&banks).start();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let all: Vec<u8> = (0..24).collect();
    // Not the TPM's own order of banks: the order asked for is the one that is signed.
    let several = PcrSelection::of_banks(
        [bank_pcrs(banks[2], &[14, 0]), bank_pcrs(banks[0], &[7]), bank_pcrs(banks[1], &all)]
            .iter()
            .flat_map(|one| one.banks().collect::<Vec<_>>()),
    )
    .unwrap();
    for (algorithm, scheme) in [
        (AkAlgorithm::EcdsaP256, SignatureScheme::Ecdsa(HashAlgorithm::Sha256)),
        (AkAlgorithm::RsaSsa2048, SignatureScheme::RsaSsa(HashAlgorithm::Sha256)),
    ] {
        let ak = tpm.create_ak(Some(algorithm)).await.unwrap();
        assert_eq!(ak.public().parameters().scheme(), Some(scheme));
        for selection in [sha256_pcrs(&all), several.clone()] {
            let quote = tpm.quote(&ak, &selection, &[0xab; 32]).await.unwrap();
            let attest = signed_statement(&ak, &quote.statement);
            assert!(
                matches!(&attest.attested, Attested::Quote { selection: quoted, .. } if *quoted == selection)
            );
            let write = |name: &str, bytes: &[u8]| fs::write(swtpm.dir().join(name), bytes).unwrap();
            write("ak.tss", &ak.sized_public());
            write("quote.msg", &quote.statement.attest);
            write("quote.sig", &quote.statement.signature);
            swtpm.tool_ok(
                "tpm2_checkquote",
                &[
                    "-u",
                    "ak.tss",
                    "-m",
                    "quote.msg",
                    "-s",
                    "quote.sig",
                    "-q",
                    &"ab".repeat(32),
                    "-g",
                    "sha256",
                ],
            );
        }
    }
}

#[tokio::test]
async fn values_of_a_quote_are_those_that_the_tpm_shows_to_others() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let all: Vec<u8> = (0..24).collect();
    let selection = sha256_pcrs(&all);
    let ak = tpm.create_ak(None).await.unwrap();
    let quote = tpm.quote(&ak, &selection, b"").await.unwrap();
    swtpm.tool_ok("tpm2_pcrread", &["sha256:all", "-o", "pcrs.bin"]);
    let expected = fs::read(swtpm.dir().join("pcrs.bin")).unwrap();
    let values: Vec<u8> = quote.values.iter().flat_map(|(_, _, value)| value.as_bytes().to_vec()).collect();
    assert_eq!(values, expected);
    assert_eq!(tpm.read_pcrs(&selection).await.unwrap(), quote.values);
}

#[tokio::test]
async fn quote_of_a_bank_that_is_not_active_selects_nothing_and_says_so() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let ak = tpm.create_ak(None).await.unwrap();
    let asked = bank_pcrs(HashAlgorithm::Sha1, &[0, 7]);
    let quote = tpm.quote(&ak, &asked, b"").await.unwrap();
    let Attested::Quote { selection, .. } = signed_statement(&ak, &quote.statement).attested else {
        panic!("a quote states a quote");
    };
    assert_ne!(selection, asked);
    assert!(selection.is_empty());
    assert_eq!(quote.values.iter().count(), 0);
}

#[tokio::test]
async fn extra_data_that_no_tpm_takes_is_refused() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let ak = tpm.create_ak(None).await.unwrap();
    tpm.quote(&ak, &sha256_pcrs(&[0]), &[1; 64]).await.unwrap();
    let refused = tpm.quote(&ak, &sha256_pcrs(&[0]), &[1; 65]).await;
    assert!(matches!(refused, Err(TpmError::InvalidArgument(_))), "{refused:?}");
}

#[tokio::test]
async fn storage_root_is_the_key_that_openssl_providers_derive() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let key = bound_key(&tpm, &sha256_pcrs(&[0])).await;
    // The primary of tpm2-tss-engine and tpm2-openssl, spelled out; a key of ours loads under it.
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    fs::write(swtpm.dir().join("unique"), [0u8; 4]).unwrap();
    swtpm.tool_ok(
        "tpm2_createprimary",
        &["-C", "o", "-G", "ecc256:null:aes128cfb", "-a", attributes, "-u", "unique", "-c", "primary.ctx"],
    );
    swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
    fs::write(swtpm.dir().join("key.pub"), key.sized_public()).unwrap();
    fs::write(swtpm.dir().join("key.priv"), key.sized_private()).unwrap();
    swtpm.tool_ok("tpm2_load", &["-C", "primary.ctx", "-u", "key.pub", "-r", "key.priv", "-c", "key.ctx"]);
}

#[tokio::test]
async fn tpm_says_who_it_is() {
    let banks = [HashAlgorithm::Sha256, HashAlgorithm::Sha512];
    let swtpm = Swtpm::builder().banks(&banks).start();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let identity = tpm.identify().await.unwrap();
    assert_eq!(identity.manufacturer, "IBM");
    assert_eq!(identity.model, "SW   TPM");
    assert_eq!(identity.active_banks, banks);
    assert!(identity.p256 && identity.p384);
    assert_eq!(identity.lockout.failed_tries, 0);
    assert_eq!(identity.lockout.limit, swtpm.property(0x20f));
    let firmware = swtpm.property(0x10b);
    assert!(identity.firmware.starts_with(&format!("{}.{}.", firmware >> 16, firmware & 0xffff)));
}

#[tokio::test]
async fn random_bytes_are_as_many_as_asked_for_and_differ() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    for count in [0, 1, 32, 33, 200] {
        assert_eq!(tpm.random(count).await.unwrap().len(), usize::from(count));
    }
    assert_ne!(tpm.random(32).await.unwrap(), tpm.random(32).await.unwrap());
}

#[tokio::test]
async fn ak_is_what_the_verifier_wants() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let ak = tpm.create_ak(None).await.unwrap();
    // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign (Part 2, table 31).
    assert_eq!(ak.public().attributes().bits(), 0x0005_0472);
    assert!(matches!(ak.public().parameters(), KeyParameters::Ecc { .. }));
    // fixedTPM, fixedParent, sensitiveDataOrigin, noDA, sign.
    let key = bound_key(&tpm, &sha256_pcrs(&[0])).await;
    assert_eq!(key.public().attributes().bits(), 0x0004_0432);
}
