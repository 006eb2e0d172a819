//! Certificates as other people's software reads them.

use std::time::Duration;

use rootbound_common::clock::{Clock, SystemClock, Timestamp};
use rootbound_common::crypto::sha256;
use rootbound_common::id::{NodeId, SpiffeId, TrustDomain};
use rootbound_common::random;
use rootbound_common::tpm::PcrIndex;
use rootbound_common::wire::v1::PostureStatus;
use rootbound_swtpm_tests::exchange::{Exchange, permit};
use rootbound_swtpm_tests::openssl::Openssl;
use rootbound_token::jwk::CertificateThumbprint;
use rootbound_verifier::credential::authority::Authority;
use rootbound_verifier::credential::issue::{
    CLOCK_SKEW, IssueError, IssuedCertificate, MAX_SERVING_LIFETIME,
};
use rootbound_verifier::credential::presented::PresentedSvid;
use rootbound_verifier::credential::serial::SerialNumber;
use rootbound_verifier::node::{AdmittedBy, Standing};
use rootbound_verifier::policy::{Denial, decide_issue};
use rootbound_verifier::reference::ReferenceBook;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

const HOUR: Duration = Duration::from_secs(3600);
/// Of which DER needs more than one byte.
const EPOCH: u64 = 300;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn trust_domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn authority(not_before: Timestamp) -> Authority {
    Authority::generate(trust_domain(), not_before, YEAR, &mut random::system()).unwrap()
}

fn node() -> SpiffeId {
    trust_domain().node(NodeId::of_endorsement_key(b"an EK"))
}

fn serial() -> SerialNumber {
    SerialNumber::generate(&mut random::system())
}

fn issue(authority: &Authority, now: Timestamp) -> IssuedCertificate {
    authority.prepare(Exchange::new().grant(now, HOUR), serial(), EPOCH, now).unwrap().issue().unwrap()
}

fn webpki(
    authority: &Authority,
    chain: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<(), webpki::Error> {
    let anchors = [webpki::anchor_from_trusted_cert(&authority.trust_bundle()[0]).unwrap()];
    let (leaf, intermediates) = chain.split_first().unwrap();
    let leaf = EndEntityCert::try_from(leaf).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_seconds()).unwrap()));
    for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        leaf.verify_for_usage(algorithms, &anchors, intermediates, now, usage, None, None)?;
    }
    Ok(())
}

#[test]
fn openssl_accepts_the_certificate_of_a_node() {
    let now = SystemClock.now();
    let authority = authority(now.minus(HOUR));
    let issued = issue(&authority, now);
    let openssl = Openssl::new();
    openssl.write("root", authority.trust_bundle_pem());
    openssl.write("leaf", issued.chain_pem());
    for purpose in ["sslclient", "sslserver"] {
        let verified = openssl.run(&format!("verify -x509_strict -purpose {purpose} -CAfile root leaf"));
        assert!(verified.contains("leaf: OK"), "{verified}");
    }
    assert!(openssl.run("verify -x509_strict -check_ss_sig -CAfile root root").contains("root: OK"));

    let text = openssl.run("x509 -in leaf -noout -text -certopt no_sigdump -nameopt RFC2253");
    let id = NodeId::of_endorsement_key(b"an EK");
    for expected in [
        &format!("Subject: CN={id}\n")[..],
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, TLS Web Client Authentication\n",
        &format!("X509v3 Subject Alternative Name: \n                URI:spiffe://example.org/node/{id}\n"),
        "X509v3 Subject Key Identifier: \n",
        "X509v3 Authority Key Identifier: \n",
        // Not critical, and an INTEGER of two bytes.
        "            1.2.840.113556.1.8000.2554.30040.762.2520.18532.41048.3449678.11088830.1: \n                ..",
        "Signature Algorithm: ecdsa-with-SHA256\n",
        "ASN1 OID: prime256v1\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
    let serial = openssl.run("x509 -in leaf -noout -serial");
    assert_eq!(serial.trim(), format!("serial={}", issued.serial.to_string().to_uppercase()));

    let text = openssl.run("x509 -in root -noout -text -certopt no_sigdump -nameopt RFC2253");
    for expected in [
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0\n",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n",
        "X509v3 Subject Alternative Name: \n                URI:spiffe://example.org\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
}

#[test]
fn webpki_accepts_certificates_while_they_are_valid() {
    let now = SystemClock.now();
    let authority = authority(now.minus(HOUR));
    let issued = issue(&authority, now);
    assert_eq!(webpki(&authority, &issued.chain(), now), Ok(()));
    assert_eq!(webpki(&authority, &issued.chain(), now.minus(CLOCK_SKEW)), Ok(()));
    assert!(webpki(&authority, &issued.chain(), now.minus(CLOCK_SKEW * 2)).is_err());
    assert!(webpki(&authority, &issued.chain(), now.plus(HOUR * 2)).is_err());
    let other = Authority::generate(trust_domain(), now, YEAR, &mut random::system()).unwrap();
    assert!(webpki(&other, &issued.chain(), now).is_err());
}

#[test]
fn certificate_says_what_was_recorded_before_it_was_signed() {
    let now = SystemClock.now();
    let authority = authority(now.minus(HOUR));
    let exchange = Exchange::new();
    let (grant, serial) = (exchange.grant(now, HOUR), serial());
    let key_digest = grant.key_digest();
    let prepared = authority.prepare(grant, serial, EPOCH, now).unwrap();
    assert_eq!((prepared.serial(), prepared.subject()), (serial, &node()));
    assert_eq!(prepared.epoch(), EPOCH);
    let (not_before, not_after) = (prepared.not_before(), prepared.not_after());
    let issued = prepared.issue().unwrap();
    assert_eq!((issued.serial, &issued.subject), (serial, &node()));
    assert_eq!((issued.not_before, issued.not_after), (not_before, not_after));
    let presented = PresentedSvid::parse(&issued.der, &trust_domain()).unwrap();
    let thumbprint = CertificateThumbprint::of_der(&issued.der);
    let key_thumbprint = presented.key_thumbprint;
    assert!(key_thumbprint.is_some(), "of P-256");
    let expected = PresentedSvid {
        spiffe_id: node(),
        serial,
        epoch: Some(EPOCH),
        not_before,
        not_after,
        thumbprint,
        key_thumbprint,
    };
    assert_eq!(presented, expected);
    let openssl = Openssl::new();
    openssl.write("leaf", issued.chain_pem());
    let _ = openssl.run("x509 -in leaf -noout -pubkey -out public");
    let _ = openssl.run("pkey -pubin -in public -outform DER -out public.der");
    assert_eq!(
        sha256(&[&std::fs::read(openssl.path("public.der")).unwrap()]),
        key_digest,
        "the key is the one of the grant"
    );
}

#[test]
fn validity_is_backdated_a_little_and_ends_with_the_ca() {
    let start = Timestamp::from_millis(1_800_000_000_000);
    let authority = authority(start);
    let end = authority.not_after();
    assert_eq!(end, start.plus(YEAR));
    let seconds = Duration::from_secs;
    for (now, lifetime, expected) in [
        // In the middle of the CA's life, at a fraction of a second.
        (
            start.plus(Duration::from_millis(3_600_900)),
            HOUR,
            (start.plus(seconds(3540)), start.plus(seconds(7200))),
        ),
        // Right after its beginning: not before the CA.
        (start.plus(seconds(10)), seconds(60), (start, start.plus(seconds(70)))),
        // Right before its end: not after the CA.
        (end.minus(seconds(600)), seconds(1200), (end.minus(seconds(660)), end)),
    ] {
        let grant = Exchange::new().grant(now, lifetime);
        let prepared = authority.prepare(grant, serial(), EPOCH, now).unwrap();
        assert_eq!((prepared.not_before(), prepared.not_after()), expected);
    }
}

#[test]
fn nothing_is_issued_outside_of_the_cas_life() {
    let start = Timestamp::from_millis(1_800_000_000_000);
    let authority = authority(start);
    let (end, second) = (authority.not_after(), Duration::from_secs(1));
    let prepare =
        |now| authority.prepare(Exchange::new().grant(now, HOUR), serial(), EPOCH, now).unwrap_err();
    assert_eq!(prepare(start.minus(second)), IssueError::AuthorityNotYetValid { not_before: start });
    assert_eq!(prepare(end), IssueError::AuthorityExpired { not_after: end });
}

#[test]
fn a_grant_is_decided_by_standing_posture_and_freshness() {
    let now = Timestamp::from_millis(1_800_000_000_000);
    let exchange = Exchange::new();
    let book = exchange.book(HOUR);
    let admitted = Standing::Admitted { by: AdmittedBy::Inventory };
    let decide_as = |status, held, book: &ReferenceBook, standing, now| {
        let appraisal = exchange.appraisal(book, Timestamp::from_millis(1_800_000_000_000));
        let permit = permit(&appraisal, appraisal.node(), now);
        decide_issue(&appraisal, standing, status, held, exchange.bound_key(), permit, now).map(|_| ())
    };
    let decide_holding = |held, book: &ReferenceBook, standing, now| {
        decide_as(PostureStatus::Affirming, held, book, standing, now)
    };
    let decide = |book: &ReferenceBook, standing, now| decide_holding(0, book, standing, now);
    let fresh_for = Duration::from_secs(180);
    assert_eq!(decide(&book, admitted, now), Ok(()));
    assert_eq!(decide(&book, admitted, now.plus(fresh_for)), Ok(()));
    let late = now.plus(fresh_for + Duration::from_millis(1));
    assert_eq!(decide(&book, admitted, late), Err(Denial::PostureStale));
    assert_eq!(decide(&book, Standing::Pending, now), Err(Denial::Pending));
    assert_eq!(decide(&book, Standing::Retired, now), Err(Denial::Retired));
    let empty = decide(&ReferenceBook::default(), admitted, now);
    assert!(matches!(empty, Err(Denial::PostureContraindicated { count: 1, .. })), "{empty:?}");
    for (status, denial) in [
        (PostureStatus::Blocked, Denial::Blocked),
        (PostureStatus::Warning, Denial::PostureWarning),
        (PostureStatus::Stale, Denial::PostureStale),
        (PostureStatus::Unknown, Denial::PostureStale),
    ] {
        assert_eq!(decide_as(status, 0, &book, admitted, now), Err(denial));
    }
    assert_eq!(decide_holding(15, &book, admitted, now), Ok(()));
    assert_eq!(decide_holding(16, &book, admitted, now), Err(Denial::TooManyCredentials { held: 16 }));
    let mut other = Exchange::new();
    other.policy.pcrs = [0, 2].into_iter().filter_map(PcrIndex::new).collect();
    let changed = other.book(HOUR);
    assert_eq!(decide(&changed, admitted, now), Err(Denial::CredentialPolicyChanged));

    let appraisal = exchange.appraisal(&book, now);
    let by = |permit| {
        let status = PostureStatus::Affirming;
        decide_issue(&appraisal, admitted, status, 0, exchange.bound_key(), permit, now).map(|_| ())
    };
    assert_eq!(by(permit(&appraisal, NodeId::from_bytes([9; 32]), now)), Err(Denial::PermitForOther));
    let denied = permit(&appraisal, appraisal.node(), late).unwrap_err();
    assert_eq!(by(Err(denied.clone())), Err(Denial::Policy(denied.clone())));
    assert_eq!(
        (Denial::Policy(denied).code(), Denial::PermitForOther.code()),
        ("posture_stale", "permit_for_other")
    );
}

#[test]
fn serving_certificate_is_good_for_its_names_and_its_key() {
    let now = SystemClock.now();
    let authority = authority(now.minus(HOUR));
    let names: Vec<_> = ["localhost", "verifier.example.org", "127.0.0.1", "::1"]
        .into_iter()
        .map(|name| ServerName::try_from(name).unwrap())
        .collect();
    let serving = authority.issue_serving(&names, now, now.plus(HOUR * 24), &mut random::system()).unwrap();

    let openssl = Openssl::new();
    openssl.write("root", authority.trust_bundle_pem());
    openssl.write("leaf.der", &serving.chain[0]);
    openssl.write("key.der", serving.key.secret_pkcs8_der());
    let _ = openssl.run("x509 -inform DER -in leaf.der -out leaf");
    for check in [
        "-verify_hostname localhost",
        "-verify_hostname verifier.example.org",
        "-verify_ip 127.0.0.1",
        "-verify_ip ::1",
    ] {
        let verified =
            openssl.run(&format!("verify -x509_strict -purpose sslserver {check} -CAfile root leaf"));
        assert!(verified.contains("leaf: OK"), "{verified}");
    }
    assert!(openssl.attempt("verify -verify_hostname example.org -CAfile root leaf").is_err());
    let key = openssl.run("pkey -inform DER -in key.der -pubout");
    assert_eq!(openssl.run("x509 -in leaf -noout -pubkey"), key);

    let leaf = EndEntityCert::try_from(&serving.chain[0]).unwrap();
    for name in &names {
        assert_eq!(leaf.verify_is_valid_for_subject_name(name), Ok(()));
    }
    assert_eq!(webpki(&authority, &serving.chain, now), Ok(()));
    let presented = PresentedSvid::parse(&serving.chain[0], &trust_domain()).unwrap();
    assert_eq!((presented.spiffe_id, presented.epoch), (trust_domain().verifier(), None));

    let not_after = now.plus(MAX_SERVING_LIFETIME + HOUR);
    let refused = authority.issue_serving(&names, now, not_after, &mut random::system()).unwrap_err();
    assert_eq!(refused, IssueError::Lifetime { not_after, limit: MAX_SERVING_LIFETIME.as_secs() });
}

#[test]
fn renewal_is_due_at_a_random_point_around_two_thirds() {
    let now = Timestamp::from_millis(1_800_000_000_000);
    let issued = issue(&authority(now.minus(HOUR)), now);
    let mut points: Vec<_> =
        (0..200).map(|_| issued.renew_at(now, &mut random::system()).since(now)).collect();
    points.sort();
    assert!(points[0] >= HOUR.mul_f64(0.599) && points[199] <= HOUR.mul_f64(0.731), "{points:?}");
    assert!(points[199] - points[0] > HOUR / 20, "they are spread out: {points:?}");
}
