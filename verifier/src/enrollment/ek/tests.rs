//! Chains, good and hostile: attacks 1, 6 to 9, 11 and 20 of enrolment.

mod revocation;

use std::path::Path;

use rootbound_common::clock::Timestamp;

use super::*;
use crate::enrollment::testing::pki::{self, Certificate, p256_info, rsa_info, seq, tlv};
use crate::enrollment::testing::{PublicTemplate, p256_point, rsa_modulus};

/// 2030-01-01T00:00:00Z.
const NOW: Timestamp = Timestamp::from_millis(1_893_456_000_000);
/// The seeds of the keys in a test's PKI.
const EK: u8 = 1;
const ROOT: u8 = 10;
const ISSUING: u8 = 11;
const OTHER: u8 = 12;

fn ek() -> UnendorsedKey {
    let (x, y) = p256_point();
    let template = PublicTemplate::ecc(0x0003, &x, &y).attributes(0x0003_00b2).symmetric(128);
    UnendorsedKey::parse(&template.bytes()).unwrap()
}

fn rsa_ek() -> UnendorsedKey {
    let template = PublicTemplate::rsa(&rsa_modulus()).attributes(0x0003_00b2).symmetric(128);
    UnendorsedKey::parse(&template.bytes()).unwrap()
}

fn root() -> Certificate {
    Certificate::root("Root", ROOT)
}

fn issuing() -> Certificate {
    Certificate::authority("Issuing", ISSUING, "Root", ROOT).serial(&[0x22])
}

fn leaf() -> Certificate {
    Certificate::endorsement(p256_info(EK), "Issuing", ISSUING).serial(&[0x33])
}

fn roots(files: &[Vec<u8>]) -> EndorsementRoots {
    let mut roots = EndorsementRoots::none();
    for file in files {
        roots.add_file(Path::new("test.der"), file).unwrap();
    }
    roots
}

fn endorse(presented: &[Vec<u8>], files: &[Vec<u8>]) -> Result<EndorsedKey, EndorsementError> {
    endorse_with(presented, files, RevocationPolicy::IfAvailable)
}

fn endorse_with(
    presented: &[Vec<u8>],
    files: &[Vec<u8>],
    revocation: RevocationPolicy,
) -> Result<EndorsedKey, EndorsementError> {
    let presented: Vec<&[u8]> = presented.iter().map(Vec::as_slice).collect();
    ek().endorse_by_chain(&presented, &roots(files), revocation, NOW)
}

fn refusal(presented: &[Vec<u8>], files: &[Vec<u8>]) -> EndorsementError {
    endorse(presented, files).unwrap_err()
}

/// The refusal of a chain of root, issuing CA and this leaf.
fn leaf_refusal(leaf: &Certificate) -> EndorsementError {
    refusal(&[leaf.der()], &[root().der(), issuing().der()])
}

/// The refusal of a chain of root, this issuing CA and a good leaf.
fn issuer_refusal(issuer: &Certificate) -> EndorsementError {
    refusal(&[leaf().der(), issuer.der()], &[root().der()])
}

#[test]
fn chain_to_a_root_endorses_and_tells_of_the_tpm() {
    let endorsed = endorse(&[leaf().der()], &[root().der(), issuing().der()]).unwrap();
    assert_eq!(endorsed.node_id(), ek().node_id());
    let Endorsement::VendorChain { certificate, anchor } = endorsed.endorsement() else {
        panic!("{:?}", endorsed.endorsement())
    };
    assert_eq!(certificate.der(), leaf().der());
    assert_eq!(certificate.subject(), "");
    assert_eq!(certificate.issuer(), "CN=Issuing");
    assert_eq!(certificate.serial(), "33");
    assert_eq!(certificate.manufacturer(), Some("id:54455354"));
    assert_eq!(certificate.model(), Some("TEST TPM"));
    assert_eq!(certificate.version(), Some("id:00010002"));
    assert_eq!(certificate.not_before().to_string(), "2020-01-01T00:00:00Z");
    assert_eq!(certificate.not_after().to_string(), "2039-12-31T23:59:59Z");
    let digest =
        rootbound_common::crypto::hash(rootbound_common::tpm::HashAlgorithm::Sha256, &[&root().der()]);
    assert_eq!(anchor, digest.as_bytes());
}

#[test]
fn leaf_is_found_by_its_key_at_any_position_and_intermediates_may_come_with_it() {
    let foreign = Certificate::endorsement(p256_info(OTHER), "Issuing", ISSUING);
    for presented in [
        vec![leaf().der(), issuing().der()],
        vec![issuing().der(), leaf().der()],
        vec![foreign.der(), issuing().der(), leaf().der()],
    ] {
        endorse(&presented, &[root().der()]).unwrap();
    }
}

#[test]
fn good_certificate_beside_an_expired_one_for_the_same_key_endorses() {
    let expired = leaf().validity("200101000000Z", "210101000000Z").serial(&[0x34]);
    let files = [root().der(), issuing().der()];
    endorse(&[expired.der(), leaf().der()], &files).unwrap();
    endorse(&[leaf().der(), expired.der()], &files).unwrap();
}

#[test]
fn rsa_keys_are_matched_however_the_algorithm_is_named() {
    for algorithm in ["1.2.840.113549.1.1.1", "1.2.840.113549.1.1.7"] {
        let leaf = Certificate::endorsement(rsa_info(algorithm, &rsa_modulus()), "Issuing", ISSUING);
        let der = leaf.der();
        let roots = roots(&[root().der(), issuing().der()]);
        rsa_ek().endorse_by_chain(&[&der], &roots, RevocationPolicy::IfAvailable, NOW).unwrap();
    }
    let odd = Certificate::endorsement(rsa_info("1.2.840.113549.1.1.10", &rsa_modulus()), "Issuing", ISSUING);
    let refused = rsa_ek().endorse_by_chain(
        &[&odd.der()],
        &roots(&[root().der(), issuing().der()]),
        RevocationPolicy::IfAvailable,
        NOW,
    );
    assert_eq!(refused.unwrap_err(), EndorsementError::NoneForThisKey { count: 1 });
}

/// Attack 9: what NV indices hold around a certificate, and files behind it.
#[test]
fn filler_and_the_old_header_are_no_part_of_a_certificate() {
    let der = leaf().der();
    let length = u16::try_from(der.len() + 2).unwrap().to_be_bytes();
    let stored = [&[0x10, 0x01, 0x00], &length[..], &[0x10, 0x02], &der].concat();
    for presented in [
        [der.as_slice(), &[0x00; 300]].concat(),
        [der.as_slice(), &[0xff; 1]].concat(),
        [der.as_slice(), &[0x11; 7]].concat(),
        [der.as_slice(), b"\r\n"].concat(),
        [stored.as_slice(), &[0xff; 9]].concat(),
        stored,
    ] {
        let endorsed = endorse(&[presented], &[root().der(), issuing().der()]).unwrap();
        let Endorsement::VendorChain { certificate, .. } = endorsed.endorsement() else { panic!() };
        assert_eq!(certificate.der(), der);
    }
    let followed = [der.as_slice(), b"more"].concat();
    assert_eq!(
        refusal(&[followed], &[]),
        EndorsementError::Malformed { position: 0, error: MalformedCertificate::Trailing { length: 4 } }
    );
}

/// Attack 9: an explicit FALSE where DER leaves it out; verified over the bytes that came.
#[test]
fn certificates_that_vendors_encode_their_own_way_are_verified_as_they_came() {
    let explicit = leaf().with(pki::BASIC_CONSTRAINTS, true, &seq(&[&[0x01, 0x01, 0x00]]));
    let long_bits = explicit.with(pki::KEY_USAGE, true, &[0x03, 0x03, 0x07, 0x28, 0x00]);
    endorse(&[long_bits.der()], &[root().der(), issuing().der()]).unwrap();
}

#[test]
fn critical_policies_of_a_ca_are_no_obstacle() {
    let policies = issuing().with("2.5.29.32", true, &seq(&[&seq(&[&pki::oid("2.5.29.32.0")])]));
    endorse(&[leaf().der(), policies.der()], &[root().der()]).unwrap();
}

/// STMicroelectronics' ECC chains: an issuer's name is a PrintableString in one certificate, a UTF8String in the next.
#[test]
fn names_link_certificates_whatever_their_type_of_string() {
    let leaf = Certificate::endorsement(p256_info(EK), "printable:Issuing", ISSUING);
    let issuing = Certificate::authority("Issuing", ISSUING, "printable:ROOT", ROOT);
    endorse(&[leaf.der(), issuing.der()], &[root().der()]).unwrap();
}

/// A CA that the operator trusts itself ends a path, whatever stands above it.
#[test]
fn chain_may_end_at_an_anchor_that_another_ca_issued() {
    let weak = issuing().algorithm("1.2.840.10045.4.1");
    let mut roots = roots(&[root().der()]);
    roots.add_anchor_file(Path::new("issuing.der"), &weak.der()).unwrap();
    let der = leaf().der();
    ek().endorse_by_chain(&[&der], &roots, RevocationPolicy::IfAvailable, NOW).unwrap();
    assert_eq!(
        refusal(&[der, weak.der()], &[root().der()]),
        EndorsementError::WeakSignature { of: "CN=Issuing".into() }
    );
}

#[test]
fn folder_tells_of_intermediates_that_lead_nowhere() {
    let orphan = Certificate::authority("Orphan", OTHER, "Elsewhere", OTHER);
    let expired = issuing().subject("Old").validity("200101000000Z", "210101000000Z");
    let below = Certificate::authority("Below", 20, "Issuing", ISSUING);
    let files = [root().path_length(1).der(), issuing().der(), orphan.der(), expired.der(), below.der()];
    let not_after = Timestamp::from_millis(1_609_459_200_000);
    let found = roots(&files).dead_ends(NOW);
    let expected = [
        ("CN=Orphan", EndorsementError::UnknownIssuer { issuer: "CN=Elsewhere".into() }),
        ("CN=Old", EndorsementError::Expired { of: "CN=Old".into(), not_after }),
        ("CN=Below", EndorsementError::PathLength { of: "CN=Root".into(), allowed: 1, found: 2 }),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (name, error) in expected {
        assert!(found.contains(&(name.into(), error)), "{found:?}");
    }
}

#[test]
fn date_without_end_is_a_date() {
    let endless = leaf().validity("200101000000Z", "99991231235959Z");
    endorse(&[endless.der()], &[root().der(), issuing().der()]).unwrap();
}

/// Attacks 1 and 11 (CVE-2021-3406).
#[test]
fn certificate_of_another_key_is_refused() {
    let foreign = Certificate::endorsement(p256_info(OTHER), "Issuing", ISSUING);
    assert_eq!(leaf_refusal(&foreign), EndorsementError::NoneForThisKey { count: 1 });
    let p384_named = leaf().der();
    assert!(
        rsa_ek()
            .endorse_by_chain(&[&p384_named], &EndorsementRoots::none(), RevocationPolicy::IfAvailable, NOW)
            .is_err()
    );
}

/// Attack 20.
#[test]
fn too_few_too_many_and_too_long_certificates_are_refused_before_they_are_read() {
    assert_eq!(refusal(&[], &[]), EndorsementError::NoCertificate);
    assert_eq!(
        refusal(&vec![Vec::new(); 7], &[]),
        EndorsementError::TooManyCertificates { count: 7, limit: 6 }
    );
    assert_eq!(
        refusal(&[leaf().der(), vec![0; 8193]], &[]),
        EndorsementError::TooLarge { position: 1, length: 8193, limit: 8192 }
    );
}

#[test]
fn what_is_not_a_certificate_is_refused_with_the_field_that_is_wrong() {
    use MalformedCertificate::{NotDer, RepeatedExtension, TwoSignatureAlgorithms, Version};
    let basic = der::asn1::ObjectIdentifier::new_unwrap(pki::BASIC_CONSTRAINTS);
    for (certificate, expected) in [
        (leaf().version_1(), Version),
        (leaf().inner_algorithm("1.2.840.10045.4.3.3"), TwoSignatureAlgorithms),
        (leaf().with_again(pki::BASIC_CONSTRAINTS, &seq(&[])), RepeatedExtension(basic)),
        (leaf().with_again("1.2.3.4", &[]).with_again("1.2.3.4", &[]), {
            RepeatedExtension(der::asn1::ObjectIdentifier::new_unwrap("1.2.3.4"))
        }),
        (leaf().serial(&[0x00, 0x01]), NotDer("serial number")),
        (leaf().serial(&[]), NotDer("serial number")),
        (leaf().with(pki::KEY_USAGE, true, &[0x03, 0x00]), NotDer("keyUsage")),
        (leaf().with(pki::KEY_USAGE, true, &[0x03, 0x02, 0x00, 0x20, 0x00]), NotDer("keyUsage")),
        (leaf().with(pki::EXTENDED_KEY_USAGE, true, &[0x30, 0x80]), NotDer("extendedKeyUsage")),
        (leaf().with(pki::BASIC_CONSTRAINTS, true, &[0x04, 0x00]), NotDer("basicConstraints")),
        (leaf().with(pki::DISTRIBUTION_POINTS, false, &[0x31, 0x00]), NotDer("cRLDistributionPoints")),
        (leaf().validity("200101000000", "391231235959Z"), NotDer("notBefore")),
        (leaf().validity("200101000000Z", "391301235959Z"), NotDer("notAfter")),
    ] {
        let expected = EndorsementError::Malformed { position: 0, error: expected };
        assert_eq!(leaf_refusal(&certificate), expected);
    }
    let names = leaf().with(pki::ALTERNATIVE_NAME, true, &seq(&[&tlv(0xa4, &[0x30, 0x05])]));
    let error = NotDer("subjectAltName");
    assert_eq!(leaf_refusal(&names), EndorsementError::Malformed { position: 0, error });
}

#[test]
fn too_many_extensions_are_refused() {
    const IDS: [&str; 33] = [
        "1.2.3.0", "1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4", "1.2.3.5", "1.2.3.6", "1.2.3.7", "1.2.3.8",
        "1.2.3.9", "1.2.3.10", "1.2.3.11", "1.2.3.12", "1.2.3.13", "1.2.3.14", "1.2.3.15", "1.2.3.16",
        "1.2.3.17", "1.2.3.18", "1.2.3.19", "1.2.3.20", "1.2.3.21", "1.2.3.22", "1.2.3.23", "1.2.3.24",
        "1.2.3.25", "1.2.3.26", "1.2.3.27", "1.2.3.28", "1.2.3.29", "1.2.3.30", "1.2.3.31", "1.2.3.32",
    ];
    let many = IDS.into_iter().fold(leaf(), |leaf, id| leaf.with(id, false, &[]));
    let error = MalformedCertificate::TooManyExtensions { limit: 32 };
    assert_eq!(leaf_refusal(&many), EndorsementError::Malformed { position: 0, error });
}

/// Every way to cut a certificate, and every bit of it turned: never a panic, never accepted.
#[test]
fn cut_or_altered_certificates_are_refused() {
    let der = leaf().der();
    let roots = roots(&[root().der(), issuing().der()]);
    let key = ek();
    let judge = |bytes: &[u8]| key.endorse_by_chain(&[bytes], &roots, RevocationPolicy::IfAvailable, NOW);
    judge(&der).unwrap();
    for length in 0..der.len() {
        assert!(judge(&der[..length]).is_err(), "cut to {length} bytes");
    }
    for bit in 0..der.len() * 8 {
        let mut altered = der.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(judge(&altered).is_err(), "bit {bit}");
    }
}

/// Attack 7.
#[test]
fn leaf_that_is_no_ek_certificate_is_refused() {
    let ca = seq(&[&[0x01, 0x01, 0xff]]);
    let ak_purpose = seq(&[&pki::oid("2.23.133.8.3")]);
    let unknown = der::asn1::ObjectIdentifier::new_unwrap("1.2.3.4");
    for (certificate, expected) in [
        (leaf().with(pki::BASIC_CONSTRAINTS, true, &ca), EndorsementError::AuthorityAsLeaf),
        (leaf().without(pki::EXTENDED_KEY_USAGE), EndorsementError::NoPurpose),
        (leaf().with(pki::EXTENDED_KEY_USAGE, false, &ak_purpose), EndorsementError::WrongPurpose),
        (leaf().with(pki::EXTENDED_KEY_USAGE, false, &seq(&[])), EndorsementError::WrongPurpose),
        (leaf().with(pki::KEY_USAGE, true, &[0x03, 0x02, 0x07, 0x80]), EndorsementError::WrongKeyUsage),
        (
            leaf().with("1.2.3.4", true, &[]),
            EndorsementError::UnknownCriticalExtension { id: unknown, of: "serial number 33".into() },
        ),
    ] {
        assert_eq!(leaf_refusal(&certificate), expected);
    }
}

/// Attack 7.
#[test]
fn certificates_are_refused_before_and_after_their_time() {
    let soon = leaf().validity("300101000001Z", "391231235959Z");
    let not_before = NOW.plus(std::time::Duration::from_secs(1));
    let of = String::from("serial number 33");
    assert_eq!(leaf_refusal(&soon), EndorsementError::NotYetValid { of: of.clone(), not_before });
    let over = leaf().validity("200101000000Z", "291231235959Z");
    let not_after = NOW.minus(std::time::Duration::from_secs(1));
    assert_eq!(leaf_refusal(&over), EndorsementError::Expired { of, not_after });
    let last_second = leaf().validity("200101000000Z", "300101000000Z");
    endorse(&[last_second.der()], &[root().der(), issuing().der()]).unwrap();

    let over = issuing().validity("200101000000Z", "291231235959Z");
    let of = String::from("CN=Issuing");
    assert_eq!(issuer_refusal(&over), EndorsementError::Expired { of, not_after });
    let over = root().validity("200101000000Z", "291231235959Z");
    let of = String::from("CN=Root");
    assert_eq!(
        refusal(&[leaf().der(), issuing().der()], &[over.der()]),
        EndorsementError::Expired { of, not_after }
    );
}

/// Attack 6.
#[test]
fn chains_to_nowhere_are_refused() {
    let own = Certificate::endorsement(p256_info(EK), "", EK);
    assert_eq!(leaf_refusal(&own), EndorsementError::UnknownIssuer { issuer: String::new() });

    let unknown_root = Certificate::root("Elsewhere", OTHER);
    let unknown = Certificate::endorsement(p256_info(EK), "Elsewhere", OTHER);
    let issuer = String::from("CN=Elsewhere");
    assert_eq!(
        refusal(&[unknown.der(), unknown_root.der()], &[root().der()]),
        EndorsementError::UnknownIssuer { issuer },
        "a root that the machine brings along is no anchor"
    );
}

/// Attack 7: missing intermediate.
#[test]
fn missing_intermediate_is_named() {
    assert_eq!(
        refusal(&[leaf().der()], &[root().der()]),
        EndorsementError::UnknownIssuer { issuer: "CN=Issuing".into() }
    );
    assert_eq!(
        refusal(&[leaf().der(), issuing().der()], &[Certificate::root("Other", OTHER).der()]),
        EndorsementError::UnknownIssuer { issuer: "CN=Root".into() }
    );
}

/// Attack 7: the right name, but not the key.
#[test]
fn right_name_with_wrong_signature_is_refused() {
    let forged = Certificate::endorsement(p256_info(EK), "Issuing", OTHER).serial(&[0x33]);
    let (of, issuer) = (String::from("serial number 33"), String::from("CN=Issuing"));
    assert_eq!(leaf_refusal(&forged), EndorsementError::BadSignature { of, issuer });

    let forged = Certificate::authority("Issuing", ISSUING, "Root", OTHER);
    let (of, issuer) = (String::from("CN=Issuing"), String::from("CN=Root"));
    assert_eq!(issuer_refusal(&forged), EndorsementError::BadSignature { of, issuer });
}

/// A real intermediate's name and key under another root is that key's certificate too, and leads nowhere; beside the
/// real one it does no harm.
#[test]
fn real_name_and_key_under_a_foreign_root_neither_helps_nor_harms() {
    let foreign = Certificate::authority("Issuing", ISSUING, "Foreign", OTHER);
    let foreign_root = Certificate::root("Foreign", OTHER);
    assert_eq!(
        refusal(&[leaf().der(), foreign.der(), foreign_root.der()], &[root().der()]),
        EndorsementError::UnknownIssuer { issuer: "CN=Foreign".into() }
    );
    endorse(&[leaf().der(), foreign.der(), foreign_root.der(), issuing().der()], &[root().der()]).unwrap();
}

/// Attack 7: leaf as CA, and other CAs that may not sign this.
#[test]
fn issuers_that_may_not_issue_are_refused() {
    let of = String::from("CN=Issuing");
    let unknown = der::asn1::ObjectIdentifier::new_unwrap("1.2.3.4");
    let constraints = der::asn1::ObjectIdentifier::new_unwrap("2.5.29.30");
    let server = seq(&[&pki::oid("1.3.6.1.5.5.7.3.1")]);
    for (certificate, expected) in [
        (issuing().without(pki::BASIC_CONSTRAINTS), EndorsementError::NotAnAuthority { of: of.clone() }),
        (
            issuing().with(pki::BASIC_CONSTRAINTS, true, &seq(&[])),
            EndorsementError::NotAnAuthority { of: of.clone() },
        ),
        (
            issuing().with(pki::KEY_USAGE, true, &[0x03, 0x02, 0x01, 0x02]),
            EndorsementError::MayNotSign { of: of.clone() },
        ),
        (
            issuing().with(pki::EXTENDED_KEY_USAGE, false, &server),
            EndorsementError::AuthorityForOtherPurpose { of: of.clone() },
        ),
        (
            issuing().with("1.2.3.4", true, &[]),
            EndorsementError::UnknownCriticalExtension { id: unknown, of: of.clone() },
        ),
        (
            issuing().with("2.5.29.30", false, &seq(&[])),
            EndorsementError::UnknownCriticalExtension { id: constraints, of },
        ),
    ] {
        assert_eq!(issuer_refusal(&certificate), expected);
    }
    for purposes in ["2.23.133.8.1", "2.5.29.37.0"] {
        let certificate = issuing().with(pki::EXTENDED_KEY_USAGE, false, &seq(&[&pki::oid(purposes)]));
        endorse(&[leaf().der(), certificate.der()], &[root().der()]).unwrap();
    }
}

/// Attack 7: an EK certificate, good by itself, as the CA of another.
#[test]
fn ek_certificate_as_ca_is_refused() {
    let good = Certificate::endorsement(p256_info(OTHER), "Issuing", ISSUING).subject("Other TPM");
    let forged = Certificate::endorsement(p256_info(EK), "Other TPM", OTHER);
    assert_eq!(
        refusal(&[forged.der(), good.der()], &[root().der(), issuing().der()]),
        EndorsementError::NotAnAuthority { of: "CN=Other TPM".into() }
    );
}

/// Attack 7.
#[test]
fn path_length_constraints_are_kept() {
    let lower = Certificate::authority("Lower", OTHER, "Issuing", ISSUING);
    let leaf = Certificate::endorsement(p256_info(EK), "Lower", OTHER);
    let presented = [leaf.der(), lower.der(), issuing().path_length(0).der()];
    assert_eq!(
        refusal(&presented, &[root().der()]),
        EndorsementError::PathLength { of: "CN=Issuing".into(), allowed: 0, found: 1 }
    );
    let presented = [leaf.der(), lower.der(), issuing().path_length(1).der()];
    assert_eq!(
        refusal(&presented, &[root().path_length(1).der()]),
        EndorsementError::PathLength { of: "CN=Root".into(), allowed: 1, found: 2 }
    );
    endorse(&presented, &[root().path_length(2).der()]).unwrap();
}

/// A CA's new key, certified by its old one: the same name twice, and a path that is one longer without counting so.
#[test]
fn rolled_over_key_of_a_ca_is_an_intermediate_and_does_not_count_for_path_length() {
    let rolled = Certificate::authority("Root", OTHER, "Root", ROOT);
    let roots = roots(&[root().path_length(0).der(), rolled.der()]);
    assert_eq!((roots.anchor_count(), roots.intermediate_count()), (1, 1));
    let der = Certificate::endorsement(p256_info(EK), "Root", OTHER).der();
    ek().endorse_by_chain(&[&der], &roots, RevocationPolicy::IfAvailable, NOW).unwrap();
}

/// Attack 7.
#[test]
fn loops_end() {
    let a = Certificate::authority("A", 20, "B", 21);
    let b = Certificate::authority("B", 21, "A", 20);
    let leaf = Certificate::endorsement(p256_info(EK), "A", 20);
    assert_eq!(
        refusal(&[leaf.der(), a.der(), b.der()], &[root().der()]),
        EndorsementError::UnknownIssuer { issuer: "CN=A".into() }
    );
}

#[test]
fn path_that_is_too_long_is_refused() {
    let mut files = vec![root().der()];
    let names = ["Root", "1", "2", "3", "4", "5", "6", "7"];
    for (at, pair) in names.windows(2).enumerate() {
        let seed = ROOT + u8::try_from(at).unwrap();
        files.push(Certificate::authority(pair[1], seed + 1, pair[0], seed).der());
    }
    let deep = Certificate::endorsement(p256_info(EK), "7", ROOT + 7);
    assert_eq!(refusal(&[deep.der()], &files), EndorsementError::PathTooLong { limit: 6 });
    let six = Certificate::endorsement(p256_info(EK), "6", ROOT + 6);
    endorse(&[six.der()], &files).unwrap();
}

/// Certificates of one name and key that all sign each other: the number of ways grows as a factorial.
#[test]
fn search_through_a_thicket_is_given_up() {
    let mut files = vec![root().der()];
    for serial in 1..=8 {
        files.push(
            Certificate::authority("Thicket", 20, "Thicket", 20).path_length(9).serial(&[serial]).der(),
        );
    }
    // Self-signed files are anchors; to be intermediates they have to come with the machine.
    let mut presented: Vec<_> = files.drain(1..).take(5).collect();
    presented.push(Certificate::endorsement(p256_info(EK), "Thicket", 20).der());
    assert_eq!(refusal(&presented, &files), EndorsementError::TooComplex { limit: 32 });
}

#[test]
fn weak_and_unknown_signature_algorithms_are_refused() {
    // ecdsa-with-SHA1.
    let weak = leaf().algorithm("1.2.840.10045.4.1");
    let of = String::from("serial number 33");
    assert_eq!(leaf_refusal(&weak), EndorsementError::WeakSignature { of });
}

#[test]
fn waiver_endorses_the_key_that_it_lists_and_no_other() {
    let endorsed = ek().endorse_by_waiver(ChainWaiver::of_inventory_entry(ek().node_id())).unwrap();
    assert_eq!(endorsed.endorsement(), &Endorsement::ListedKey);
    let (listed, found) = (rsa_ek().node_id(), ek().node_id());
    assert_eq!(
        ek().endorse_by_waiver(ChainWaiver::of_inventory_entry(listed)).unwrap_err(),
        WaiverError { listed, found }
    );
}

#[test]
fn endorsed_key_returns_from_the_store_and_altered_rows_do_not() {
    let vendor = endorse(&[leaf().der()], &[root().der(), issuing().der()]).unwrap();
    let listed = ek().endorse_by_waiver(ChainWaiver::of_inventory_entry(ek().node_id())).unwrap();
    for key in [&vendor, &listed] {
        let stored = key.endorsement().to_stored();
        assert_eq!(&EndorsedKey::from_stored(key.public().as_bytes(), &stored).unwrap(), key);
    }
    let foreign = Certificate::endorsement(p256_info(OTHER), "Issuing", ISSUING).der();
    let public = vendor.public().as_bytes();
    let with = |certificate| StoredEndorsement::VendorChain { certificate, anchor: [0; 32] };
    assert_eq!(EndorsedKey::from_stored(public, &with(foreign)), Err(StoredKeyError::OtherKey));
    assert!(matches!(
        EndorsedKey::from_stored(public, &with(Vec::new())),
        Err(StoredKeyError::Certificate(_))
    ));
    assert!(matches!(
        EndorsedKey::from_stored(&public[1..], &vendor.endorsement().to_stored()),
        Err(StoredKeyError::PublicArea(_))
    ));
}

#[test]
fn texts_of_a_certificate_print_as_text_only() {
    let hostile = Certificate::authority("Issu\u{1b}[31m\u{202e}\ning", ISSUING, "Root", ROOT);
    let leaf = Certificate::endorsement(p256_info(EK), "Issu\u{1b}[31m\u{202e}\ning", ISSUING);
    let endorsed = endorse(&[leaf.der(), hostile.der()], &[root().der()]).unwrap();
    let Endorsement::VendorChain { certificate, .. } = endorsed.endorsement() else { panic!() };
    assert!(!certificate.issuer().chars().any(|c| c.is_control() || c == '\u{202e}'));
}
