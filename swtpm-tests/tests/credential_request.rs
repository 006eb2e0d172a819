//! What a request for a credential must prove, and each way to fail.

use rootbound_attester::certificate_request::{CertificateRequestError, UnsignedRequest};
use rootbound_common::attestation_attribute::CertifyStatement;
use rootbound_common::binding::{Purpose, extra_data};
use rootbound_common::crypto::{SignatureError, hash, subject_public_key_info};
use rootbound_common::nonce::Nonce;
use rootbound_common::tpm::{
    Attributes, Curve, HashAlgorithm, PcrIndex, PcrSelection, SignatureScheme, policy_pcr,
};
use rootbound_common::wire::v1::CredentialPolicy;
use rootbound_swtpm_tests::certificate_request::{
    ID_AA_ATTESTATION, RequestParts, attestation, attribute, tlv,
};
use rootbound_swtpm_tests::exchange::{Exchange, pcrs};
use rootbound_swtpm_tests::openssl::Openssl;
use rootbound_swtpm_tests::software_tpm::{Kind, Signed, SoftwareKey, SoftwareTpm, Statement, Template};
use rootbound_verifier::credential::request::{BoundKey, Demand, ParsedRequest, RequestError};

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

/// What becomes of a request after something was done to its parts.
fn with_parts(exchange: &Exchange, change: impl FnOnce(&mut RequestParts)) -> Result<BoundKey, RequestError> {
    let key = exchange.key();
    let mut parts = RequestParts::honest(&key, &exchange.certify(&key));
    change(&mut parts);
    exchange.judge(&parts.sign(&key))
}

/// What becomes of a request with a statement to which something was done before the AK signed it.
fn with_statement(
    exchange: &Exchange,
    change: impl FnOnce(&mut Statement),
) -> Result<BoundKey, RequestError> {
    let key = exchange.key();
    let mut statement = exchange.statement(&key);
    change(&mut statement);
    let signed = statement.sign(&exchange.tpm.attestation_key);
    exchange.judge(&RequestParts::honest(&key, &signed).sign(&key))
}

/// The code of a refusal; to be accepted is a failure of the test.
#[track_caller]
fn code(judged: Result<BoundKey, RequestError>) -> &'static str {
    judged.expect_err("refused").code()
}

#[test]
fn honest_request_of_the_attester_is_accepted() {
    for tpm in [SoftwareTpm::new(), SoftwareTpm::with_rsa()] {
        let exchange = Exchange::of(tpm);
        let key = exchange.key();
        let certify = exchange.certify(&key);
        let unsigned = UnsignedRequest::new(&key.public(), &certify.attest, &certify.signature).unwrap();
        assert_eq!(unsigned.digest(), hash(SHA256, &[unsigned.to_be_signed()]).as_bytes());
        let (r, s) = key.sign_ecdsa(unsigned.to_be_signed());
        let bound = exchange.judge(&unsigned.assemble(&r, &s).unwrap()).unwrap();
        assert_eq!(bound.name(), key.name());
        assert_eq!(bound.policy(), exchange.policy);
        assert_eq!(bound.policy_digest().as_bytes(), key.template().auth_policy);
        assert_eq!(bound.subject_public_key_info(), subject_public_key_info(&key.public()).unwrap());
    }
}

#[test]
fn request_of_the_attester_is_that_of_the_test_equipment() {
    let exchange = Exchange::new();
    let key = exchange.key();
    let certify = exchange.certify(&key);
    let unsigned = UnsignedRequest::new(&key.public(), &certify.attest, &certify.signature).unwrap();
    assert_eq!(unsigned.to_be_signed(), RequestParts::honest(&key, &certify).info());
}

#[test]
fn openssl_verifies_the_request_of_the_attester() {
    let exchange = Exchange::new();
    let key = exchange.key();
    let certify = exchange.certify(&key);
    let unsigned = UnsignedRequest::new(&key.public(), &certify.attest, &certify.signature).unwrap();
    let (r, s) = key.sign_ecdsa(unsigned.to_be_signed());
    let openssl = Openssl::new();
    openssl.write("request", unsigned.assemble(&r, &s).unwrap());
    let text = openssl.run("req -inform DER -in request -verify -text -noout");
    assert!(text.contains("verify OK"), "{text}");
    assert!(text.contains("ASN1 OID: prime256v1"), "{text}");
    assert!(text.contains("1.2.840.113549.1.9.16.2.59"), "{text}");
}

#[test]
fn attester_builds_no_request_for_other_keys_or_from_other_numbers() {
    let exchange = Exchange::new();
    let p384 = SoftwareKey::p384(exchange.template().with_scheme(None));
    let rsa = SoftwareKey::rsa2048(exchange.template().with_scheme(None));
    for key in [p384, rsa] {
        let built = UnsignedRequest::new(&key.public(), &[], &[]);
        assert_eq!(built.unwrap_err(), CertificateRequestError::KeyType);
    }
    let key = exchange.key();
    let too_long = [1; 33];
    for (r, s) in
        [([0; 32].as_slice(), &[1; 32][..]), (&[1; 32], &[]), (&too_long, &[1; 32]), (&[0xff; 32], &[1; 32])]
    {
        let unsigned = UnsignedRequest::new(&key.public(), &[], &[]).unwrap();
        assert_eq!(unsigned.assemble(r, s), Err(CertificateRequestError::Signature));
    }
}

#[test]
fn numbers_without_leading_zeros_are_padded() {
    let exchange = Exchange::new();
    let key = exchange.key();
    let certify = exchange.certify(&key);
    let unsigned = || UnsignedRequest::new(&key.public(), &certify.attest, &certify.signature).unwrap();
    let to_be_signed = unsigned().to_be_signed().to_vec();
    // One signature in 256 has an r with a leading zero: that none of 10,000 has one does not happen.
    let (r, s) = (0..10_000).map(|_| key.sign_ecdsa(&to_be_signed)).find(|(r, _)| r[0] == 0).unwrap();
    for r in [&r[..], &r[1..], &[&[0, 0], &r[..]].concat()] {
        assert!(exchange.judge(&unsigned().assemble(r, &s).unwrap()).is_ok());
    }
}

#[test]
fn key_may_leave_its_scheme_open_and_have_a_longer_name() {
    let exchange = Exchange::new();
    let open = SoftwareKey::p256(exchange.template().with_scheme(None));
    assert!(exchange.ask_for(&open).is_ok());

    let selection = exchange.policy.selection();
    let values = exchange.tpm.values(&selection).digest(&selection, HashAlgorithm::Sha384).unwrap();
    let policy = policy_pcr(HashAlgorithm::Sha384, &selection, &values);
    let template = exchange.template().with_policy(policy.as_bytes());
    let template = Template { name_algorithm: HashAlgorithm::Sha384, ..template };
    assert!(exchange.ask_for(&SoftwareKey::p256(template)).is_ok());
}

#[test]
fn requests_of_another_shape_are_refused() {
    let exchange = Exchange::new();
    let changed = |change: fn(&mut RequestParts)| code(with_parts(&exchange, change));
    assert_eq!(code(exchange.judge(&[0x30; 8193])), "request_too_long");
    assert_eq!(code(exchange.judge(&[])), "request_malformed");
    assert_eq!(changed(|parts| parts.version = b"\x02\x01\x01".to_vec()), "request_version");
    assert_eq!(changed(|parts| parts.version.clear()), "request_malformed");
    let common_name = b"\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01a";
    let named = with_parts(&exchange, |parts| parts.subject = common_name.to_vec());
    assert_eq!(code(named), "request_subject_claimed");
    assert_eq!(changed(|parts| parts.attributes.clear()), "request_attestation_count");
    assert_eq!(changed(|parts| parts.attributes.extend_from_within(..)), "request_attestation_count");

    let key = exchange.key();
    let request = RequestParts::honest(&key, &exchange.certify(&key)).sign(&key);
    assert_eq!(code(exchange.judge(&[&request[..], &[0]].concat())), "request_malformed");
}

#[test]
fn extensions_that_would_be_ignored_are_refused() {
    // extensionRequest (1.2.840.113549.1.9.14), with no extension in it.
    let requested = attribute(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e", &[b"\x30\x00"]);
    let judged = with_parts(&Exchange::new(), |parts| parts.attributes.push(requested));
    assert_eq!(code(judged), "request_other_attribute");
}

#[test]
fn attestation_attributes_of_another_shape_are_refused() {
    let exchange = Exchange::new();
    let key = exchange.key();
    let Signed { attest, signature } = exchange.certify(&key);
    let bundle = |public_area| {
        CertifyStatement { attest: &attest, signature: &signature, public_area }.to_bundle().unwrap()
    };
    let (good, long, without) = (bundle(Some(b"area")), bundle(Some(&[0; 1025])), bundle(None));
    let of_type = |kind: &[u8]| tlv(0x30, &[kind, &tlv(0x30, &[])].concat());
    let certify = of_type(b"\x06\x05\x67\x81\x05\x14\x01");
    let several = tlv(0x30, &tlv(0x30, &[&certify[..], &certify].concat()));
    let other = tlv(0x30, &tlv(0x30, &of_type(b"\x06\x05\x67\x81\x05\x14\x02")));
    let cases: [(&[&[u8]], &str); 8] = [
        (&[&good, &good], "request_attestation_count"),
        (&[], "request_attestation_count"),
        (&[b"\x30\x00"], "attestation_malformed"),
        (&[b"\x30\x02\x30\x00"], "attestation_statement_count"),
        (&[&several], "attestation_statement_count"),
        (&[&other], "attestation_statement_type"),
        (&[&long], "attestation_too_long"),
        (&[&without], "attestation_without_public_area"),
    ];
    for (values, expected) in cases {
        let attribute = attribute(ID_AA_ATTESTATION, values);
        let judged = with_parts(&exchange, |parts| parts.attributes = vec![attribute]);
        assert_eq!(code(judged), expected);
    }
}

#[test]
fn own_signature_must_be_by_the_requested_p256_key() {
    let exchange = Exchange::new();
    let key = exchange.key();
    let parts = RequestParts::honest(&key, &exchange.certify(&key));
    let zeros = tlv(0x30, b"\x02\x01\x00\x02\x01\x00");
    for signed in [parts.sign(&exchange.key()), parts.assemble(&[]), parts.assemble(&zeros)] {
        assert_eq!(code(exchange.judge(&signed)), "request_signature");
    }
    // ecdsa-with-SHA384, and ecdsa-with-SHA256 with the NULL that RFC 5758, 3.2, rules out.
    let sha384 = tlv(0x30, b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03");
    let with_null = tlv(0x30, b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02\x05\x00");
    for algorithm in [sha384, with_null] {
        let judged = with_parts(&exchange, |parts| parts.algorithm = algorithm);
        assert_eq!(code(judged), "request_signature_algorithm");
    }
    let p384 = SoftwareKey::p384(exchange.template().with_scheme(None));
    assert_eq!(code(exchange.ask_for(&p384)), "request_key_type");
}

#[test]
fn statement_about_another_key_than_the_requested_one_is_refused() {
    let exchange = Exchange::new();
    let (mine, certified) = (exchange.key(), exchange.key());
    let signed = exchange.certify(&certified);
    for (area, expected) in [
        // A software key of the attacker's in the request, an honest key of the TPM in the statement.
        (certified.public_area(), "key_differs"),
        // The attacker's public area beside a statement about an honest key.
        (mine.public_area(), "certify_name"),
        (b"no public area".to_vec(), "key_public_area"),
    ] {
        let mut parts = RequestParts::honest(&mine, &signed);
        parts.attributes = vec![attestation(&signed.attest, &signed.signature, &area)];
        assert_eq!(code(exchange.judge(&parts.sign(&mine))), expected);
    }
}

#[test]
fn compressed_and_off_curve_points_are_refused() {
    let exchange = Exchange::new();
    let key = exchange.key();
    let signed = exchange.certify(&key);

    let mut parts = RequestParts::honest(&key, &signed);
    let area = key.template().ecc_public_area(Curve::P256, &[1; 32], &[2; 32]);
    parts.attributes = vec![attestation(&signed.attest, &signed.signature, &area)];
    let coordinates = parts.key.len() - 64;
    parts.key[coordinates..coordinates + 32].fill(1);
    parts.key[coordinates + 32..].fill(2);
    assert_eq!(code(exchange.judge(&parts.sign(&key))), "request_signature");

    // The same key, but compressed: the certificate would spell it otherwise than the TPM does.
    let mut parts = RequestParts::honest(&key, &signed);
    let (head, point) = parts.key.split_at(parts.key.len() - 65);
    let algorithm = &head[2..head.len() - 3];
    let compressed = [&[0, 2 + (point[64] & 1)], &point[1..33]].concat();
    parts.key = tlv(0x30, &[algorithm, &tlv(0x03, &compressed)].concat());
    assert_eq!(code(exchange.judge(&parts.sign(&key))), "key_differs");
}

#[test]
fn keys_with_other_attributes_are_refused() {
    let exchange = Exchange::new();
    for (attribute, name) in [
        (Attributes::FIXED_TPM, "fixedTPM"),
        (Attributes::FIXED_PARENT, "fixedParent"),
        (Attributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
        (Attributes::SIGN, "sign"),
    ] {
        let judged = exchange.ask_for(&SoftwareKey::p256(exchange.template().without(attribute)));
        assert_eq!(judged, Err(RequestError::AttributeMissing { attribute: name }));
        assert_eq!(code(judged), "key_attribute_missing");
    }
    for (attribute, name) in [
        (Attributes::RESTRICTED, "restricted"),
        (Attributes::DECRYPT, "decrypt"),
        (Attributes::USER_WITH_AUTH, "userWithAuth"),
        (Attributes::ADMIN_WITH_POLICY, "adminWithPolicy"),
        (Attributes::X509_SIGN, "x509sign"),
    ] {
        let judged = exchange.ask_for(&SoftwareKey::p256(exchange.template().with(attribute)));
        assert_eq!(judged, Err(RequestError::AttributeForbidden { attribute: name }));
        assert_eq!(code(judged), "key_attribute_forbidden");
    }
}

#[test]
fn keys_with_sha1_names_or_other_schemes_are_refused() {
    let exchange = Exchange::new();
    let template = exchange.template();
    let sha1 = Template { name_algorithm: HashAlgorithm::Sha1, auth_policy: vec![0; 20], ..template.clone() };
    assert_eq!(code(exchange.ask_for(&SoftwareKey::p256(sha1))), "key_name_algorithm");
    for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha384] {
        let other = template.clone().with_scheme(Some(SignatureScheme::Ecdsa(hash)));
        assert_eq!(code(exchange.ask_for(&SoftwareKey::p256(other))), "key_scheme");
    }
}

#[test]
fn statement_must_be_signed_by_the_nodes_ak() {
    let exchange = Exchange::new();
    let key = exchange.key();
    let attest = exchange.statement(&key).marshal();
    let judge = |signature: &[u8]| {
        let signed = Signed { attest: attest.clone(), signature: signature.to_vec() };
        exchange.judge(&RequestParts::honest(&key, &signed).sign(&key))
    };
    // Another machine's AK, the certified key itself, and a scheme that is not the AK's.
    let other = SoftwareKey::p256(Template::attestation_p256());
    let rsa = SoftwareKey::rsa2048(Template::attestation_rsa());
    for signer in [&other, &key, &rsa] {
        assert_eq!(code(judge(&signer.sign(&attest))), "certify_signature");
    }
    let (expected, found) = (SignatureScheme::Ecdsa(SHA256), SignatureScheme::RsaSsa(SHA256));
    assert_eq!(
        judge(&rsa.sign(&attest)),
        Err(RequestError::StatementSignature(SignatureError::Scheme { expected, found }))
    );
    assert_eq!(code(judge(b"\x00\x18\x00\x0b\x00\x00\x00\x00")), "certify_signature");
    for malformed in [&b""[..], b"\x00\x18", b"\x00\x18\x00\x0b\x00\x00\x00\x00\x00"] {
        assert_eq!(code(judge(malformed)), "certify_signature_malformed");
    }
}

#[test]
fn statements_that_no_tpm_made_are_refused() {
    let exchange = Exchange::new();
    for magic in [0, 0xff54_4346, 0x4743_54ff] {
        let judged = with_statement(&exchange, |statement| statement.magic = magic);
        assert_eq!(judged, Err(RequestError::StatementMagic { found: magic }));
        assert_eq!(code(judged), "certify_magic");
    }
    let changes: [fn(&mut Statement); 4] = [
        |statement| statement.attested.push(0),
        |statement| statement.attested.truncate(10),
        |statement| statement.kind = 0x8117,
        |statement| statement.qualified_signer.clear(),
    ];
    for change in changes {
        assert_eq!(code(with_statement(&exchange, change)), "certify_malformed");
    }
}

#[test]
fn statements_of_other_commands_are_refused() {
    let exchange = Exchange::new();
    let key = exchange.key();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Certify) {
        let judged = with_statement(&exchange, |statement| {
            statement.kind = kind.tpm_id();
            match kind {
                Kind::Quote => statement.attested = Statement::quoted(&exchange.policy.selection(), &[0; 32]),
                Kind::Creation => statement.attested = Statement::created(&key.name(), &[0; 32]),
                _ => {}
            }
        });
        assert_eq!(code(judged), "certify_kind", "{kind:?}");
    }
}

#[test]
fn statements_for_other_challenges_or_purposes_are_refused() {
    let exchange = Exchange::new();
    let other = Nonce::from_bytes([8; 32]);
    for extra in [
        CertifyStatement::extra_data(&other).as_bytes(),
        extra_data(Purpose::Quote, &exchange.nonce, &[]).as_bytes(),
        extra_data(Purpose::Certify, &exchange.nonce, &[b""]).as_bytes(),
        exchange.nonce.as_bytes(),
        &[],
    ] {
        let judged = with_statement(&exchange, |statement| statement.extra_data = extra.to_vec());
        assert_eq!(code(judged), "certify_extra_data");
    }
}

#[test]
fn statement_by_another_key_than_the_quotes_signer_is_refused() {
    let exchange = Exchange::new();
    let foreign = SoftwareTpm::new().qualified_signer();
    let judged = with_statement(&exchange, |statement| statement.qualified_signer = foreign.to_bytes());
    let (found, expected) = (Box::new(foreign), Box::new(exchange.qualified_signer));
    assert_eq!(judged, Err(RequestError::QualifiedSigner { found, expected }));
    assert_eq!(code(judged), "certify_qualified_signer");
}

#[test]
fn keys_that_are_not_tied_to_the_quoted_boot_state_are_refused() {
    let exchange = Exchange::new();
    let policy = |indices: &[u8]| {
        let selection = PcrSelection::of_bank(SHA256, pcrs(indices.iter().copied()));
        exchange.tpm.policy(&selection).as_bytes().to_vec()
    };
    let mut moved = SoftwareTpm::new();
    moved.extend(PcrIndex::new(7).unwrap(), hash(SHA256, &[b"another boot"]));
    for (auth_policy, why) in [
        (vec![], "no policy"),
        (vec![0; 32], "a policy that is never met"),
        (policy(&[]), "a policy over no PCR"),
        (policy(&[0, 2, 4]), "fewer PCRs"),
        (policy(&[0, 2, 4, 7, 14]), "more PCRs"),
        (moved.policy(&exchange.policy.selection()).as_bytes().to_vec(), "another boot state"),
    ] {
        let key = SoftwareKey::p256(exchange.template().with_policy(&auth_policy));
        assert_eq!(code(exchange.ask_for(&key)), "key_policy", "{why}");
    }
}

#[test]
fn unusable_demands_are_refused_before_they_tie_a_key_to_nothing() {
    let exchange = Exchange::new();
    let key = exchange.key();
    let request = RequestParts::honest(&key, &exchange.certify(&key)).sign(&key);
    for (bank, indices, expected) in [
        (SHA256, &[][..], "key_policy_unusable"),
        (SHA256, &[0, 10], "key_policy_unusable"),
        (SHA256, &[0, 16], "key_policy_pcr_not_quoted"),
        (HashAlgorithm::Sha384, &[0, 2, 4, 7], "key_policy_pcr_not_quoted"),
    ] {
        let policy = CredentialPolicy { bank, pcrs: pcrs(indices.iter().copied()) };
        let demand = Demand { policy, ..exchange.demand() };
        assert_eq!(code(ParsedRequest::parse(&request).unwrap().verify(&demand)), expected);
    }
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let exchange = Exchange::new();
    let key = exchange.key();
    let request = RequestParts::honest(&key, &exchange.certify(&key)).sign(&key);
    assert!(exchange.judge(&request).is_ok());
    for length in 0..request.len() {
        assert!(exchange.judge(&request[..length]).is_err(), "cut at {length}");
    }
    for bit in 0..request.len() * 8 {
        assert!(exchange.judge(&flip(&request, bit)).is_err(), "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_the_statement_is_refused_even_if_the_request_is_signed_anew() {
    let exchange = Exchange::new();
    let key = exchange.key();
    let (honest, area) = (exchange.certify(&key), key.public_area());
    let judge = |attest: &[u8], signature: &[u8], area: &[u8]| {
        let mut parts = RequestParts::honest(&key, &honest);
        parts.attributes = vec![attestation(attest, signature, area)];
        exchange.judge(&parts.sign(&key))
    };
    assert!(judge(&honest.attest, &honest.signature, &area).is_ok());
    for bit in 0..honest.attest.len() * 8 {
        assert!(judge(&flip(&honest.attest, bit), &honest.signature, &area).is_err(), "attest bit {bit}");
    }
    for bit in 0..honest.signature.len() * 8 {
        assert!(judge(&honest.attest, &flip(&honest.signature, bit), &area).is_err(), "signature bit {bit}");
    }
    for bit in 0..area.len() * 8 {
        assert!(judge(&honest.attest, &honest.signature, &flip(&area, bit)).is_err(), "area bit {bit}");
    }
}
