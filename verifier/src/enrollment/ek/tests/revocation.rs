//! CRLs: attack 8 of enrolment.

use super::*;
use crate::enrollment::testing::pki::Crl;

fn crl_files(lists: &[Crl]) -> Vec<Vec<u8>> {
    let mut files = vec![root().der(), issuing().der()];
    files.extend(lists.iter().map(Crl::der));
    files
}

fn clean() -> [Crl; 2] {
    [Crl::new("Root", ROOT, &[&[0x77]]), Crl::new("Issuing", ISSUING, &[])]
}

/// Attack 8.
#[test]
fn revoked_leaf_or_intermediate_is_refused_under_either_policy() {
    let [root_list, issuing_list] = clean();
    for policy in [RevocationPolicy::Require, RevocationPolicy::IfAvailable] {
        endorse_with(&[leaf().der()], &crl_files(&clean()), policy).unwrap();
        let revoked = Crl::new("Issuing", ISSUING, &[&[0x32], &[0x33]]);
        assert_eq!(
            endorse_with(&[leaf().der()], &crl_files(&[root_list.clone(), revoked]), policy).unwrap_err(),
            EndorsementError::Revoked { of: "serial number 33".into() }
        );
        // The number with a zero in front that DER would have left out.
        let revoked = Crl::new("Root", ROOT, &[&[0x00, 0x22]]);
        assert_eq!(
            endorse_with(&[leaf().der()], &crl_files(&[revoked, issuing_list.clone()]), policy).unwrap_err(),
            EndorsementError::Revoked { of: "CN=Issuing".into() }
        );
    }
}

/// Attack 8.
#[test]
fn missing_lists_refuse_where_the_policy_requires_them() {
    let [root_list, issuing_list] = clean();
    for (lists, of, issuer) in [
        (vec![], "serial number 33", "CN=Issuing"),
        (vec![root_list], "serial number 33", "CN=Issuing"),
        (vec![issuing_list], "CN=Issuing", "CN=Root"),
    ] {
        let files = crl_files(&lists);
        assert_eq!(
            endorse_with(&[leaf().der()], &files, RevocationPolicy::Require).unwrap_err(),
            EndorsementError::RevocationUnknown { of: of.into(), issuer: issuer.into() }
        );
        endorse_with(&[leaf().der()], &files, RevocationPolicy::IfAvailable).unwrap();
    }
    assert_eq!(RevocationPolicy::default(), RevocationPolicy::Require, "closed by default");
}

/// Attack 8.
#[test]
fn overdue_list_refuses_where_the_policy_requires_one() {
    let [root_list, _] = clean();
    let overdue = Crl::new("Issuing", ISSUING, &[]).updates("291101000000Z", Some("291231235959Z"));
    let files = crl_files(&[root_list.clone(), overdue]);
    assert_eq!(
        endorse_with(&[leaf().der()], &files, RevocationPolicy::Require).unwrap_err(),
        EndorsementError::CrlExpired {
            issuer: "CN=Issuing".into(),
            next_update: NOW.minus(std::time::Duration::from_secs(1)),
        }
    );
    endorse_with(&[leaf().der()], &files, RevocationPolicy::IfAvailable).unwrap();
    let future = Crl::new("Issuing", ISSUING, &[]).updates("300102000000Z", Some("300201000000Z"));
    assert!(matches!(
        endorse_with(&[leaf().der()], &crl_files(&[root_list, future]), RevocationPolicy::Require),
        Err(EndorsementError::RevocationUnknown { .. })
    ));
}

#[test]
fn newest_list_decides() {
    let [root_list, _] = clean();
    let old = Crl::new("Issuing", ISSUING, &[]).updates("290101000000Z", Some("300301000000Z"));
    let new = Crl::new("Issuing", ISSUING, &[&[0x33]]).updates("291201000000Z", Some("300301000000Z"));
    for lists in [[old.clone(), new.clone()], [new, old]] {
        let [first, second] = lists;
        let files = crl_files(&[root_list.clone(), first, second]);
        assert!(matches!(
            endorse_with(&[leaf().der()], &files, RevocationPolicy::Require),
            Err(EndorsementError::Revoked { .. })
        ));
    }
}

#[test]
fn list_that_the_issuer_did_not_sign_is_refused() {
    let [root_list, issuing_list] = clean();
    let forged = Crl::new("Issuing", OTHER, &[]).updates("291215000000Z", Some("300201000000Z"));
    for policy in [RevocationPolicy::Require, RevocationPolicy::IfAvailable] {
        assert_eq!(
            endorse_with(&[leaf().der()], &crl_files(&[root_list.clone(), forged.clone()]), policy)
                .unwrap_err(),
            EndorsementError::CrlSignature { issuer: "CN=Issuing".into() }
        );
        // Beside the real one it is that of another CA of the same name.
        let both = [root_list.clone(), issuing_list.clone(), forged.clone()];
        endorse_with(&[leaf().der()], &crl_files(&both), policy).unwrap();
    }
}

#[test]
fn list_of_a_ca_that_may_not_sign_lists_is_refused() {
    let no_lists = issuing().with(pki::KEY_USAGE, true, &[0x03, 0x02, 0x02, 0x04]);
    let files = [root().der(), no_lists.der(), Crl::new("Issuing", ISSUING, &[]).der()];
    assert_eq!(
        endorse(&[leaf().der()], &files).unwrap_err(),
        EndorsementError::MayNotSignCrl { issuer: "CN=Issuing".into() }
    );
}

#[test]
fn list_for_a_part_of_the_certificates_covers_that_part_only() {
    const SCOPE: &str = "2.5.29.28";
    let [root_list, _] = clean();
    let point = |uri: &[u8]| tlv(0xa0, &tlv(0xa0, &tlv(0x86, uri)));
    let with_point = leaf().with(pki::DISTRIBUTION_POINTS, false, &seq(&[&seq(&[&point(b"http://crl/1")])]));
    let only_leaves = seq(&[&[0x81, 0x01, 0xff]]);
    let only_authorities = seq(&[&[0x82, 0x01, 0xff]]);
    for (leaf, scope, covered) in [
        (leaf(), only_leaves, true),
        (leaf(), only_authorities, false),
        (with_point.clone(), seq(&[&point(b"http://crl/1")]), true),
        (with_point, seq(&[&point(b"http://crl/2")]), false),
        (leaf(), seq(&[&point(b"http://crl/1")]), false),
        (leaf(), seq(&[]), true),
    ] {
        let list = Crl::new("Issuing", ISSUING, &[]).with(SCOPE, true, &scope);
        let files = crl_files(&[root_list.clone(), list]);
        let found = endorse_with(&[leaf.der()], &files, RevocationPolicy::Require);
        assert_eq!(found.is_ok(), covered, "{found:?}");
    }
}

#[test]
fn lists_that_cannot_be_used_are_refused_when_they_are_read() {
    use CrlError::{NoNextUpdate, UnknownCriticalExtension, UnsupportedKind};
    const SCOPE: &str = "2.5.29.28";
    let list = || Crl::new("Issuing", ISSUING, &[&[0x33]]);
    let issuer_of_entry = der::asn1::ObjectIdentifier::new_unwrap("2.5.29.29");
    let unknown = der::asn1::ObjectIdentifier::new_unwrap("1.2.3.4");
    let relative = seq(&[&tlv(0xa0, &tlv(0xa1, &[]))]);
    for (list, expected) in [
        (list().updates("291201000000Z", None), NoNextUpdate),
        (list().with("2.5.29.27", true, &tlv(0x02, &[1])), UnsupportedKind),
        (list().with(SCOPE, true, &seq(&[&[0x84, 0x01, 0xff]])), UnsupportedKind),
        (list().with(SCOPE, true, &seq(&[&[0x85, 0x01, 0xff]])), UnsupportedKind),
        (list().with(SCOPE, true, &seq(&[&[0x83, 0x02, 0x06, 0x40]])), UnsupportedKind),
        (list().with(SCOPE, true, &relative), UnsupportedKind),
        (list().with("1.2.3.4", true, &[]), UnknownCriticalExtension(unknown)),
        (list().with_in_entries("2.5.29.29", &[]), UnknownCriticalExtension(issuer_of_entry)),
    ] {
        let mut roots = EndorsementRoots::none();
        let found = roots.add_file(Path::new("list.crl"), &list.der()).unwrap_err();
        let RootsError::Crl { error, position: 1, .. } = found else { panic!("{found}") };
        assert_eq!(error, expected);
    }
    let der = list().der();
    let mut roots = EndorsementRoots::none();
    for length in 1..der.len() {
        assert!(roots.add_file(Path::new("list.crl"), &der[..length]).is_err());
    }
    assert_eq!(roots.crl_count(), 0);
}
