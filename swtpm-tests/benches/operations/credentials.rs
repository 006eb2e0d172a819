//! Credentials: requests verified, certificates issued.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rootbound_common::clock::{Clock, SystemClock};
use rootbound_common::crypto::VerifyingKey;
use rootbound_common::random;
use rootbound_common::tpm::Signature;
use rootbound_swtpm_tests::exchange::Exchange;
use rootbound_swtpm_tests::measured::Row;
use rootbound_verifier::credential::authority::Authority;
use rootbound_verifier::credential::serial::SerialNumber;

use crate::paired::Bench;

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn run(bench: &mut Bench<'_>) {
    let exchange = Exchange::new();
    let key = exchange.key();
    let request = exchange.tpm.certificate_request(&key, &exchange.nonce);
    let signed = key.sign(&request);
    let (verifying, signed) = (VerifyingKey::of_public_area(&key.public()), Signature::parse(&signed));
    let (verifying, signed) = (verifying.expect("a key"), signed.expect("a signature"));
    let row = bench.beside(
        "verify a certificate request and its statement",
        "two raw P-256 verifications",
        |count| vec![((), ()); count],
        |()| [(); 2].map(|()| verifying.verify(&request, &signed).expect("a good signature")),
        |()| exchange.judge(&request).expect("an honest request"),
    );
    row.iter().for_each(Row::publish);

    let now = SystemClock.now();
    let domain = "example.org".parse().expect("a trust domain");
    let authority = Authority::generate(domain, now, 24 * HOUR, &mut random::system()).expect("a CA");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let row = bench.beside(
        "issue a certificate",
        "raw P-256 signature",
        |count| (0..count).map(|_| ((), exchange.grant(now, HOUR))).collect(),
        |()| pair.sign(&SystemRandom::new(), &[7; 600]).expect("a signature"),
        |grant| {
            let serial = SerialNumber::generate(&mut random::system());
            authority
                .prepare(grant, serial, 1, now)
                .and_then(|prepared| prepared.issue())
                .expect("a certificate")
        },
    );
    row.iter().for_each(Row::publish);
}
