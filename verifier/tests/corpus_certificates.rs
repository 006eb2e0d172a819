//! Certificates of real TPMs and of their vendors' CAs: each is read, each EK chain is judged at a pinned time.
//!
//! What independent tools said is in the corpus's `INDEX.json`. Where the verdict here differs, a table says why.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

mod corpus;

use std::path::Path;

use corpus::{Corpus, Entry};
use der::{Decode, DecodePem};
use rootbound_common::clock::Timestamp;
use rootbound_common::tpm::{Public, put_sized};
use rootbound_verifier::enrollment::{
    EndorsedKey, Endorsement, EndorsementError, EndorsementRoots, RevocationPolicy, RootsError, UnendorsedKey,
};
use x509_cert::Certificate;

/// The certificate, where an artefact is a folder.
const EK_FILE: &str = "ek_cert.der";
/// How many there are: none may be lost on the way.
const AUTHORITIES: usize = 161;
const EK_CERTIFICATES: usize = 17;

/// Files of kind `ca-cert` that no folder of trust anchors may hold, with the end of the refusal.
const NO_AUTHORITIES: [(&str, &str); 11] = [
    // AMD's VCEK: a leaf for attestation reports, not a CA.
    ("confidential-containers+trustee/deps/verifier/test_data/az-snp-vtpm/vcek.pem", NOT_A_CA),
    ("confidential-dot-ai+attestation-rs/crates/attestation/test_data/az_snp/vcek.pem", NOT_A_CA),
    ("kinvolk+azure-cvm-tooling/az-cvm-vtpm/test/certs.pem", NOT_A_CA),
    // Intel's signing key for platform certificates: self-signed, without basicConstraints.
    ("google+go-attestation/attributecert/testdata/IntelSigningKey_20April2017.cer", NOT_A_CA),
    (
        "nsacyber+HIRS/HIRS_AttestationCA/src/test/resources/certificates/IntelSigningKey_20April2017.pem",
        NOT_A_CA,
    ),
    // An attribute certificate (RFC 5755), not a public key certificate.
    (
        "google+go-attestation/attributecert/testdata/Intel_nuc_pc2.cer",
        "certificate 1: the certificate is not of version 3",
    ),
    // Signers of boot loaders: leaves.
    ("google+go-tpm-tools/server/secure-boot/canonical-boothole.crt", NOT_A_CA),
    ("google+go-tpm-tools/server/secure-boot/debian-boothole.crt", NOT_A_CA),
    ("nsacyber+HIRS/HIRS_AttestationCA/src/test/resources/tpm/sample_identity_cert.cer", NOT_A_CA),
    // A bare public key.
    ("keylime+keylime/test/data/ima_keys/rsa2048pub.pem", "line 1: neither CERTIFICATE nor X509 CRL"),
    // Damaged: the serial number is no DER INTEGER; OpenSSL refuses it too.
    (
        "nsacyber+HIRS/HIRS_AttestationCA/src/test/resources/certificates/stmtpmekint02.pem",
        "certificate 1: serial number is not DER of its type",
    ),
];
const NOT_A_CA: &str = "certificate 1: not the certificate of a CA";

#[test]
fn every_ca_certificate_is_read_or_refused_for_a_known_reason() {
    let Some(corpus) = Corpus::open("every_ca_certificate_is_read_or_refused_for_a_known_reason") else {
        return;
    };
    let entries = corpus.entries("ca-cert");
    assert_eq!(entries.len(), AUTHORITIES);
    let mut refused = 0;
    for entry in entries {
        let found = add(&mut EndorsementRoots::none(), &entry.file, &corpus.read(&entry.file, ""));
        match NO_AUTHORITIES.iter().find(|(file, _)| *file == entry.file) {
            None => found.unwrap_or_else(|error| panic!("{error}")),
            Some((file, expected)) => {
                let error = found.expect_err(file).to_string();
                assert!(error.ends_with(expected), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, NO_AUTHORITIES.len());
}

/// Intermediates of the corpus that lead to no anchor at [`PINNED`]: how their names begin, why, and how many.
const DEAD_ENDS: [(&str, &str, usize); 9] = [
    // Signed with SHA-1; an operator who trusts one of them puts it into `anchors/`.
    ("CN=IFX TPM EK Root CA,", "is signed by an algorithm that is too weak", 1),
    ("CN=IFX TPM EK Intermediate CA ", "is signed by an algorithm that is too weak", 18),
    ("CN=IFX TPM EK Intermediate CA 01,", "expired at 2025-10-20T13:47:43Z", 1),
    // Their roots are not in the corpus.
    ("CN=AMD Pluton ", "issuer `CN=AMD Root CA R4,", 11),
    ("CN=02849DB0FD9F4CC4EF6175E75700B20F40,", "issuer `CN=AMD Root CA R4,", 1),
    ("CN=Aliyun TPM EKMF CA,", "issuer `CN=Aliyun TPM Root CA,", 1),
    ("CN=Microsoft ", "is unknown", 3),
    ("CN=Virtual UEFI SubCA,", "issuer `CN=Virtual UEFI Root CA,", 1),
    // HIRS's forgeries: OpenSSL does not verify them either.
    ("CN=Fake ", "is not by `CN=Fake Root CA`", 5),
];

#[test]
fn every_intermediate_leads_to_its_root_or_is_a_known_dead_end() {
    let Some(corpus) = Corpus::open("every_intermediate_leads_to_its_root_or_is_a_known_dead_end") else {
        return;
    };
    let everything = every_authority(&corpus);
    let mut found = everything.dead_ends(PINNED);
    for (name, reason, count) in DEAD_ENDS {
        let before = found.len();
        found.retain(|(found, error)| !(found.starts_with(name) && error.to_string().contains(reason)));
        assert_eq!(before - found.len(), count, "{name} … {reason}");
    }
    assert_eq!(found, []);
    // The others lead to their root: of STMicroelectronics, Infineon, Nuvoton, Intel, AMD, Microsoft, Google, ….
    let dead: usize = DEAD_ENDS.iter().map(|(.., count)| count).sum();
    assert!(everything.intermediate_count() >= 3 * dead, "{everything:?}");
}

/// What becomes of an EK certificate at the pinned time.
enum Verdict {
    /// A chain to the root that the index names, or to the one root of the issuer's name.
    Endorsed,
    /// Refused; the words of the refusal.
    Refused(&'static str),
}
use Verdict::{Endorsed, Refused};

/// 2026-06-01T00:00:00Z: within the validity of all but three.
const PINNED: Timestamp = Timestamp::from_millis(1_780_272_000_000);
/// 2020-01-01T00:00:00Z: within the validity of ST's certificate of 2014, as the index asks for.
const PINNED_2020: Timestamp = Timestamp::from_millis(1_577_836_800_000);
/// 2014-06-01T00:00:00Z: within the validity of the TCG's example of 2014.
const PINNED_2014: Timestamp = Timestamp::from_millis(1_401_580_800_000);

/// Each EK certificate, the time at which it is judged, and the verdict against the chain that the index names.
const VERDICTS: [(&str, Timestamp, Verdict); EK_CERTIFICATES] = [
    ("google+go-tpm-tools/internal/test/certificates/uca_tpm_ecc_enc_cert.pem", PINNED, Endorsed),
    ("google+go-tpm-tools/internal/test/certificates/uca_tpm_rsa_enc_cert.pem", PINNED, Endorsed),
    // The index says "accept" of the chain, and so it is; but these are certificates of *signing* keys, under the CA
    // and with the extended key usage of EKs. Their key usage tells them apart: digitalSignature only.
    (
        "google+go-tpm-tools/internal/test/certificates/uca_tpm_ecc_sign_cert.pem",
        PINNED,
        Refused("the EK certificate's key usage allows neither encipherment nor key agreement"),
    ),
    (
        "google+go-tpm-tools/internal/test/certificates/uca_tpm_rsa_sign_cert.pem",
        PINNED,
        Refused("the EK certificate's key usage allows neither encipherment nor key agreement"),
    ),
    ("keylime+keylime/extracted/ek_cert_CN_Infineon_OPTIGA_TM_ECC_Manufacturing__dfd310e7", PINNED, Endorsed),
    ("keylime+keylime/extracted/ek_cert_CN_Infineon_OPTIGA_TM_RSA_Manufacturing__234480e4", PINNED, Endorsed),
    ("keylime+keylime/extracted/infineon_slb9670_ek_ec", PINNED, Endorsed),
    ("keylime+keylime/extracted/infineon_slb9670_ek_rsa", PINNED, Endorsed),
    // Its CA is not in the corpus; two other CAs of that very name are.
    (
        "keylime+keylime/extracted/ek_cert_CN_swtpm_localca_3a888ace",
        PINNED,
        Refused("issuer `CN=swtpm-localca` is unknown"),
    ),
    // The index says "accept" with SHA-1. This system verifies no SHA-1: such a TPM needs the operator's listing.
    (
        "nsacyber+HIRS/HIRS_AttestationCA/src/test/resources/certificates/nuc-1/tpmcert.pem",
        PINNED_2020,
        Refused("is signed by an algorithm that is too weak or not supported"),
    ),
    // As NV holds it, under a header: read. ST's SHA-1 again, and the index names no chain.
    (
        "nsacyber+HIRS/HIRS_AttestationCA/src/test/resources/certificates/nuc-1/ek_cert_untouched.cer",
        PINNED_2020,
        Refused("issuer `CN=STM TPM EK Intermediate CA 02,O=STMicroelectronics NV,C=CH` is unknown"),
    ),
    // Its CA is not in the corpus.
    (
        "nsacyber+paccor/extracted/ek_cert_CN_Platform_Certificate_Test_CA_ba13d361",
        PINNED,
        Refused("issuer `CN=Platform Certificate Test CA,OU=Testing,O=TCG,C=US` is unknown"),
    ),
    ("salrashid123+tpm2/event_log/ekcerts/ek-rsa2048.crt", PINNED, Endorsed),
    ("salrashid123+tpm2/event_log/ekcerts/ek-secp384r1.crt", PINNED, Endorsed),
    ("salrashid123+tpm2/extracted/ek_cert_CN_swtpm_localca_8905c6d8", PINNED, Endorsed),
    // An example of the TCG: its CA is in the corpus in name only.
    (
        "simp+pupmod-simp-tpm2/spec/files/tpm2/mocks/ek_certificates/tcg-example-user-device--annotated.pem",
        PINNED_2014,
        Refused("issuer `CN=ExampleCA` is unknown"),
    ),
    (
        "simp+pupmod-simp-tpm2/spec/files/tpm2/mocks/ek_certificates/tcg-example-user-device.der",
        PINNED_2014,
        Refused("issuer `CN=ExampleCA` is unknown"),
    ),
];

#[test]
fn every_ek_chain_is_judged_at_a_pinned_time() {
    let Some(corpus) = Corpus::open("every_ek_chain_is_judged_at_a_pinned_time") else { return };
    let everything = every_authority(&corpus);
    let entries = corpus.entries("ek-cert");
    assert_eq!(entries.len(), EK_CERTIFICATES);
    for entry in entries {
        let (_, now, expected) =
            VERDICTS.iter().find(|(file, ..)| *file == entry.file).expect("each has a verdict");
        let found = judge(&corpus, &entry, &named_chain(&corpus, &entry), *now);
        match expected {
            Endorsed => {
                let key = found.unwrap_or_else(|error| panic!("{}: {error}", entry.file));
                check_description(&entry, &key);
                judge(&corpus, &entry, &everything, *now).expect("more CAs in the folder change nothing");
            }
            Refused(words) => {
                let error = found.expect_err(&entry.file).to_string();
                assert!(error.contains(words), "{}: {error}", entry.file);
                assert!(judge(&corpus, &entry, &everything, *now).is_err(), "{}", entry.file);
            }
        }
    }
}

#[test]
fn every_ek_certificate_is_refused_outside_of_its_time() {
    let Some(corpus) = Corpus::open("every_ek_certificate_is_refused_outside_of_its_time") else { return };
    let everything = every_authority(&corpus);
    for entry in corpus.entries("ek-cert") {
        if entry.file.ends_with("_sign_cert.pem") {
            continue; // Refused for its key usage, before any date is looked at.
        }
        let found = judge(&corpus, &entry, &everything, Timestamp::from_millis(0));
        assert!(matches!(found, Err(EndorsementError::NotYetValid { .. })), "{}: {found:?}", entry.file);
        // 9999-12-31T23:59:59Z is the last second of those without end, so that only a later one is too late.
        let found = judge(&corpus, &entry, &everything, Timestamp::from_millis(253_402_300_800_000));
        assert!(matches!(found, Err(EndorsementError::Expired { .. })), "{}: {found:?}", entry.file);
    }
}

/// The EK public areas that came with two of the certificates are those of the certificates' keys.
#[test]
fn public_areas_read_from_real_tpms_match_their_certificates() {
    let Some(corpus) = Corpus::open("public_areas_read_from_real_tpms_match_their_certificates") else {
        return;
    };
    let mut seen = 0;
    for entry in corpus.entries("ek-cert") {
        if !entry.file.contains("infineon_slb9670") {
            continue;
        }
        // TPM2B_PUBLIC: a length of two bytes, then TPMT_PUBLIC.
        let public_area = corpus.read(&entry.file, "ek.tpm2b_public").split_off(2);
        let ek = UnendorsedKey::parse(&public_area).unwrap_or_else(|error| panic!("{}: {error}", entry.file));
        let leaf = certificate(&corpus.read(&entry.file, EK_FILE));
        let roots = named_chain(&corpus, &entry);
        ek.endorse_by_chain(&[&leaf], &roots, RevocationPolicy::IfAvailable, PINNED).unwrap();
        let rebuilt = Public::parse(&ek_public(&leaf)).unwrap();
        assert_eq!(ek.public().parameters(), rebuilt.parameters());
        assert_eq!(ek.public().attributes(), rebuilt.attributes());
        seen += 1;
    }
    assert_eq!(seen, 2);
}

fn add(roots: &mut EndorsementRoots, file: &str, content: &[u8]) -> Result<(), RootsError> {
    roots.add_file(Path::new(file), content)
}

/// All CAs of the corpus, as an operator may keep them.
fn every_authority(corpus: &Corpus) -> EndorsementRoots {
    let mut roots = EndorsementRoots::none();
    for entry in corpus.entries("ca-cert") {
        if !NO_AUTHORITIES.iter().any(|(file, _)| *file == entry.file) {
            add(&mut roots, &entry.file, &corpus.read(&entry.file, "")).unwrap();
        }
    }
    roots
}

/// The CAs that the index names for a certificate.
fn named_chain(corpus: &Corpus, entry: &Entry) -> EndorsementRoots {
    let mut roots = EndorsementRoots::none();
    for file in entry.expected["cert"]["chain"].as_array().into_iter().flatten() {
        let file = file.as_str().unwrap();
        if file != "ROOT" {
            add(&mut roots, file, &corpus.read(file, "")).unwrap();
        }
    }
    roots
}

fn judge(
    corpus: &Corpus,
    entry: &Entry,
    roots: &EndorsementRoots,
    now: Timestamp,
) -> Result<EndorsedKey, EndorsementError> {
    let bytes = corpus.read(&entry.file, EK_FILE);
    let presented = if bytes.starts_with(&[0x10]) { bytes } else { certificate(&bytes) };
    let ek = UnendorsedKey::parse(&ek_public(&presented)).unwrap();
    // The corpus holds no CRLs.
    ek.endorse_by_chain(&[&presented], roots, RevocationPolicy::IfAvailable, now)
}

/// What the endorsement tells is what the index says.
fn check_description(entry: &Entry, key: &EndorsedKey) {
    let Endorsement::VendorChain { certificate, .. } = key.endorsement() else {
        panic!("endorsed by a chain")
    };
    let expected = |name: &str| entry.expected["cert"][name].as_str().unwrap().to_owned();
    assert_eq!(certificate.not_before().to_string(), rfc_3339(&expected("not_before")));
    assert_eq!(certificate.not_after().to_string(), rfc_3339(&expected("not_after")));
    assert_eq!(certificate.subject(), expected("subject"));
    // The index cuts names at 100 characters.
    let issuer: String = expected("issuer").chars().take(90).collect();
    assert!(certificate.issuer().starts_with(&issuer), "{}", certificate.issuer());
    for text in [certificate.manufacturer(), certificate.version()] {
        assert!(text.is_some_and(|text| text.starts_with("id:")), "{text:?}");
    }
    assert!(certificate.model().is_some_and(|model| !model.is_empty()));
}

fn rfc_3339(text: &str) -> String {
    text.replace(' ', "T").replace("+00:00", "Z")
}

/// The first certificate of a file, DER.
fn certificate(file: &[u8]) -> Vec<u8> {
    let Some(start) = file.windows(11).position(|bytes| bytes == b"-----BEGIN ") else {
        return file.to_vec();
    };
    let block = &file[start..];
    let end =
        block.windows(9).position(|bytes| bytes == b"-----END ").unwrap() + "-----END CERTIFICATE-----".len();
    der::Encode::to_der(&Certificate::from_pem(&block[..end]).unwrap()).unwrap()
}

/// The EK that a certificate is for, in the public area of the low-range TCG templates (EK Credential Profile, B.3).
fn ek_public(certificate: &[u8]) -> Vec<u8> {
    const RSA: [u16; 12] = [0x0001, 0x000b, 0x0003, 0x00b2, 0, 0x0006, 128, 0x0043, 0x0010, 2048, 0, 0];
    let certificate = if certificate.starts_with(&[0x10]) { &certificate[7..] } else { certificate };
    let certificate = Certificate::from_der(certificate).unwrap();
    let key = certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
    let mut out = Vec::new();
    let mut words = |words: &[u16]| words.iter().for_each(|word| out.extend(word.to_be_bytes()));
    match key.len() {
        65 => words(&[0x0023, 0x000b, 0x0003, 0x00b2, 0, 0x0006, 128, 0x0043, 0x0010, 0x0003, 0x0010]),
        97 => words(&[0x0023, 0x000c, 0x0003, 0x00b2, 0, 0x0006, 256, 0x0043, 0x0010, 0x0004, 0x0010]),
        _ => words(&RSA),
    }
    if key[0] == 0x04 {
        let (x, y) = key[1..].split_at((key.len() - 1) / 2);
        put_sized(&mut out, x);
        put_sized(&mut out, y);
    } else {
        // SEQUENCE { INTEGER of 257 bytes, the first 0; INTEGER }.
        put_sized(&mut out, &key[9..][..256]);
    }
    out
}
