//! Endorsement keys and activation, with tpm2_makecredential as the other side.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rootbound_attester::tpm::{AkAlgorithm, AkBlob, EkKind, EndorsementKey, Tpm, TpmError};
use rootbound_common::tpm::{KeyParameters, Reader};
use rootbound_swtpm_tests::{Action, Interposer, Swtpm};

const CC_CREATE_PRIMARY: u32 = 0x131;

/// TPM2_MakeCredential in software by tpm2-tools: contents of TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
fn make_credential(swtpm: &Swtpm, ek: &EndorsementKey, ak: &AkBlob, secret: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut public = Vec::new();
    rootbound_common::tpm::put_sized(&mut public, ek.public.as_bytes());
    fs::write(swtpm.dir().join("ek.pub"), public).unwrap();
    fs::write(swtpm.dir().join("secret"), secret).unwrap();
    let name = ak.name().to_string();
    swtpm.tool_ok(
        "tpm2_makecredential",
        &["-T", "none", "-u", "ek.pub", "-s", "secret", "-n", &name, "-o", "credential"],
    );
    // Magic, version, and the two structures.
    let bytes = fs::read(swtpm.dir().join("credential")).unwrap();
    let mut reader = Reader::new(&bytes);
    assert_eq!(reader.u32("magic"), Ok(0xbadc_c0de));
    assert_eq!(reader.u32("version"), Ok(1));
    let parts = [reader.sized(256, "blob").unwrap().to_vec(), reader.sized(512, "secret").unwrap().to_vec()];
    reader.finish("credential").unwrap();
    parts.into()
}

#[tokio::test]
async fn credential_for_any_kind_of_ek_and_ak_is_opened() {
    let swtpm = Swtpm::builder().p256_ek().start();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let keys = tpm.endorsement_keys().await.unwrap();
    assert_eq!(keys.iter().map(|key| key.kind).collect::<Vec<_>>(), EkKind::ALL);
    for algorithm in [AkAlgorithm::EcdsaP256, AkAlgorithm::RsaSsa2048] {
        let ak = tpm.create_ak(Some(algorithm)).await.unwrap();
        for key in &keys {
            let secret = [0x5e; 32];
            let (blob, encrypted) = make_credential(&swtpm, key, &ak, &secret);
            let opened = tpm.activate(key.kind, &ak, &blob, &encrypted).await.unwrap();
            assert_eq!(*opened, secret, "{}", key.kind);
        }
    }
    swtpm.assert_nothing_loaded();
}

#[tokio::test]
async fn credential_for_another_ak_or_tpm_is_not_opened() {
    let swtpm = Swtpm::builder().p256_ek().start();
    let other = Swtpm::builder().by(swtpm.manufacturer()).p256_ek().start();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let other_tpm = Tpm::spawn(other.tcti()).unwrap();
    let ak = tpm.create_ak(None).await.unwrap();
    let other_ak = tpm.create_ak(None).await.unwrap();
    for kind in EkKind::ALL {
        let ek = tpm.endorsement_key(kind).await.unwrap();
        let foreign = other_tpm.endorsement_key(kind).await.unwrap();
        let (blob, encrypted) = make_credential(&swtpm, &ek, &ak, b"a secret");
        let mut damaged = encrypted.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let for_foreign = make_credential(&swtpm, &foreign, &ak, b"a secret");
        for (ak, blob, encrypted, case) in [
            (&other_ak, &blob, &encrypted, "another AK"),
            (&ak, &blob, &damaged, "damaged"),
            (&ak, &for_foreign.0, &for_foreign.1, "another EK"),
            (&ak, &vec![0; 4], &encrypted, "no credential"),
            (&ak, &vec![], &vec![], "nothing"),
        ] {
            let refused = tpm.activate(kind, ak, blob, encrypted).await;
            assert!(
                matches!(refused, Err(TpmError::ForeignCredential { .. })),
                "{kind}, {case}: {refused:?}"
            );
        }
        let refused = tpm.activate(kind, &ak, &[0; 200], &encrypted).await;
        assert!(matches!(refused, Err(TpmError::InvalidArgument(_))), "{kind}: {refused:?}");
        tpm.activate(kind, &ak, &blob, &encrypted).await.unwrap();
    }
    swtpm.assert_nothing_loaded();
}

#[tokio::test]
async fn ek_with_a_certificate_is_preferred_and_its_certificate_read() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let preferred = tpm.preferred_endorsement_key().await.unwrap();
    assert_eq!(preferred.kind, EkKind::Rsa2048);
    assert_eq!(preferred, tpm.endorsement_key(EkKind::Rsa2048).await.unwrap());
    // swtpm_setup has no certificate of a P-256 EK.
    let p256 = tpm.endorsement_key(EkKind::EccP256).await.unwrap();
    assert_eq!(p256.certificate, None);

    swtpm.tool_ok("tpm2_nvundefine", &["-C", "p", "0x01c00002"]);
    let preferred = tpm.preferred_endorsement_key().await.unwrap();
    assert_eq!(preferred.kind, EkKind::EccP384);
    swtpm.tool_ok("tpm2_nvundefine", &["-C", "p", "0x01c00016"]);
    let preferred = tpm.preferred_endorsement_key().await.unwrap();
    assert_eq!((preferred.kind, preferred.certificate), (EkKind::Rsa2048, None));
}

#[tokio::test]
async fn certificate_is_found_in_what_vendors_put_around_it() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let certificate = tpm.endorsement_key(EkKind::Rsa2048).await.unwrap().certificate.unwrap();
    let length = u16::try_from(certificate.len() + 2).unwrap().to_be_bytes();
    let header = [&[0x10, 0x01, 0x00], &length[..], &[0x10, 0x02]].concat();
    // As an index that only the owner, or only its own empty password, may read; longer than one TPM2_NV_Read.
    for attributes in ["ppwrite|ppread|ownerread|platformcreate", "ppwrite|ppread|authread|platformcreate"] {
        for stored in [
            [&header[..], &certificate].concat(),
            [&certificate[..], &[0xff; 700]].concat(),
            certificate.clone(),
        ] {
            swtpm.tool_ok("tpm2_nvundefine", &["-C", "p", "0x01c00002"]);
            fs::write(swtpm.dir().join("stored"), &stored).unwrap();
            let size = stored.len().to_string();
            swtpm.tool_ok("tpm2_nvdefine", &["0x01c00002", "-C", "p", "-s", &size, "-a", attributes]);
            swtpm.tool_ok("tpm2_nvwrite", &["0x01c00002", "-C", "p", "-i", "stored"]);
            let key = tpm.endorsement_key(EkKind::Rsa2048).await.unwrap();
            assert_eq!(key.certificate.as_ref(), Some(&certificate));
        }
    }
    // Defined and never written; and one that nobody but the platform reads: as if there were none.
    for attributes in ["ppwrite|ppread|ownerread|platformcreate", "ppwrite|ppread|platformcreate"] {
        swtpm.tool_ok("tpm2_nvundefine", &["-C", "p", "0x01c00002"]);
        swtpm.tool_ok("tpm2_nvdefine", &["0x01c00002", "-C", "p", "-s", "900", "-a", attributes]);
        assert_eq!(tpm.endorsement_key(EkKind::Rsa2048).await.unwrap().certificate, None);
    }
}

#[tokio::test]
async fn intermediates_that_the_vendor_left_come_along() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    assert_eq!(tpm.endorsement_key(EkKind::Rsa2048).await.unwrap().intermediates, Vec::<Vec<u8>>::new());
    let (root, issuer) = swtpm.ca_certificates();
    let der = |pem: &str| {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        data_encoding::BASE64.decode(body.as_bytes()).unwrap()
    };
    let chain = [der(&issuer), der(&root)];
    // One after the other, over two indices.
    let all = chain.concat();
    let (first, second) = all.split_at(1000);
    for (index, part) in [("0x01c00100", first), ("0x01c00101", second)] {
        fs::write(swtpm.dir().join("part"), part).unwrap();
        let size = part.len().to_string();
        let attributes = "ppwrite|ppread|ownerread|authread|no_da|platformcreate";
        swtpm.tool_ok("tpm2_nvdefine", &[index, "-C", "p", "-s", &size, "-a", attributes]);
        swtpm.tool_ok("tpm2_nvwrite", &[index, "-C", "p", "-i", "part"]);
    }
    assert_eq!(tpm.endorsement_key(EkKind::Rsa2048).await.unwrap().intermediates, chain);
}

#[tokio::test]
async fn persistent_ek_is_used_if_it_is_the_certified_one() {
    let swtpm = Swtpm::manufacture();
    let derived = Arc::new(AtomicU32::new(0));
    let interposer = Interposer::new(&swtpm, {
        let derived = Arc::clone(&derived);
        move |code, _| {
            if code == CC_CREATE_PRIMARY {
                derived.fetch_add(1, Ordering::SeqCst);
            }
            Action::Forward
        }
    });
    let tpm = Tpm::spawn(interposer.tcti()).unwrap();
    let certified = tpm.endorsement_key(EkKind::Rsa2048).await.unwrap();
    // swtpm_setup made it persistent at 0x81010001.
    assert_eq!(derived.load(Ordering::SeqCst), 0);

    // Somebody's key of the same template, with another `unique`, takes its place.
    swtpm.tool_ok("tpm2_evictcontrol", &["-C", "o", "-c", "0x81010001"]);
    fs::write(swtpm.dir().join("unique"), [[0, 1].as_slice(), &[7; 256]].concat()).unwrap();
    fs::write(swtpm.dir().join("policy"), certified.public.auth_policy()).unwrap();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|adminwithpolicy|restricted|decrypt";
    swtpm.tool_ok(
        "tpm2_createprimary",
        &[
            "-C",
            "e",
            "-G",
            "rsa2048:null:aes128cfb",
            "-a",
            attributes,
            "-L",
            "policy",
            "-u",
            "unique",
            "-c",
            "ek.ctx",
        ],
    );
    swtpm.tool_ok("tpm2_evictcontrol", &["-C", "o", "-c", "ek.ctx", "0x81010001"]);
    swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
    assert_eq!(tpm.endorsement_key(EkKind::Rsa2048).await.unwrap(), certified);
    assert_eq!(derived.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn ek_is_the_key_of_its_template() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    for (kind, name) in [(EkKind::Rsa2048, "rsa"), (EkKind::EccP256, "ecc256"), (EkKind::EccP384, "ecc384")] {
        let key = tpm.endorsement_key(kind).await.unwrap();
        swtpm.tool_ok("tpm2_createek", &["-G", name, "-c", "ek.ctx", "-u", "ek.pub"]);
        swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
        let bytes = fs::read(swtpm.dir().join("ek.pub")).unwrap();
        // tpm2-tools derives P-384 by the template of the low range, which is another key.
        match kind {
            EkKind::Rsa2048 | EkKind::EccP256 => assert_eq!(key.public.as_bytes(), &bytes[2..], "{kind}"),
            EkKind::EccP384 => assert!(matches!(key.public.parameters(), KeyParameters::Ecc { .. })),
        }
    }
}
