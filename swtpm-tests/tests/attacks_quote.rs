//! Attacks on what a TPM states and signs: each is tried on a verifier that runs, refused with a code of its own, on
//! record, and changes nothing else.
//!
//! | attack | tests |
//! |---|---|
//! | 21 signature | `a_signature_changed_in_any_byte_is_refused` |
//! | 22 magic | `a_tpm_does_not_lie_and_what_else_it_signs_is_no_quote`, `a_statement_wrong_in_one_field_is_refused` |
//! | 23 other kinds of statement | `a_tpm_does_not_lie_and_what_else_it_signs_is_no_quote`, `a_statement_wrong_in_one_field_is_refused` |
//! | 30 scheme | `a_signature_of_another_scheme_or_hash_is_refused` |
//! | 31 trailing bytes, short reads, lengths | `a_statement_that_ends_early_or_late_is_refused` |
//! | 32 numbers of a signature | `signatures_with_impossible_numbers_are_refused` |
//! | 40 qualified signer | `a_statement_wrong_in_one_field_is_refused` |
//! | 47 sizes, nesting, compression | `what_is_too_large_or_too_deep_is_refused_before_it_costs`, `a_statement_that_ends_early_or_late_is_refused` |
//!
//! 24 to 29 and 46, on what is quoted, are in `attacks_pcrs.rs`.

use rootbound_common::blob::Blob;
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, Signature, SignatureScheme, SignatureValue, put_sized};
use rootbound_common::wire::v1::PostureStatus;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::https::Https;
use rootbound_swtpm_tests::manual::{Manual, create_parent, hex, tool, tools_statement};
use rootbound_swtpm_tests::scene::Scene;
use rootbound_swtpm_tests::software_tpm::{
    EndorsementKey, Kind, SoftwareKey, SoftwareTpm, Statement as Fabricated, Template,
};
use rootbound_swtpm_tests::watch::{Bystander, Watch};
use rootbound_swtpm_tests::world::{Simulated, World, refused};
use serde_json::Value;

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;
const SHA384: HashAlgorithm = HashAlgorithm::Sha384;

fn signature(scheme: SignatureScheme, r: &[u8], s: &[u8]) -> Vec<u8> {
    Signature { scheme, value: SignatureValue::Ecdsa { r, s } }.to_bytes()
}

const ECDSA: SignatureScheme = SignatureScheme::Ecdsa(SHA256);

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_changed_in_any_byte_is_refused() {
    let scene = Scene::set().await;
    let mut watch = scene.watch().await;
    // TPMT_SIGNATURE: scheme, hash, size of r, r, size of s, s.
    let length = 2 + 2 + 2 + 32 + 2 + 32;
    for position in 0..length {
        let outcome = scene.forge(|signature| signature[position] ^= 1 << (position % 8)).await;
        let is_number = (6..38).contains(&position) || position >= 40;
        let code = if is_number { "signature_invalid" } else { "signature_malformed" };
        watch.refused(format!("byte {position} of {length}"), outcome, code).await;
    }
    let outcome = scene.forge(|signature| signature.fill(0)).await;
    watch.refused("all zero", outcome, "signature_malformed").await;
    let outcome = scene.forge(|signature| *signature = Vec::new()).await;
    watch.refused("empty", outcome, "signature_malformed").await;
    let other = SoftwareKey::p256(Template::attestation_p256());
    let outcome =
        scene.send(|evidence| evidence.signature = Blob::new(other.sign(evidence.quote.as_bytes())).unwrap());
    watch.refused("another AK", outcome.await, "signature_invalid").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_wrong_in_one_field_is_refused() {
    let scene = Scene::set().await;
    let mut watch = scene.watch().await;
    for magic in [0, 0xff54_4346, 0x4743_54ff, u32::MAX] {
        let outcome = scene.state(|quote| quote.magic = magic).await;
        watch.refused(format!("magic {magic:#x}"), outcome, "not_tpm_generated").await;
    }
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Quote) {
        let name = scene.node.tpm.attestation_key.name();
        let outcome = scene.state(|quote| {
            quote.kind = kind.tpm_id();
            // Kinds that are parsed get a body of their own, so that it is the kind that is refused.
            match kind {
                Kind::Certify => quote.attested = Fabricated::certified(&name, &name),
                Kind::Creation => quote.attested = Fabricated::created(&name, &[7; 32]),
                _ => {}
            }
        });
        watch.refused(format!("{kind:?}"), outcome.await, "not_a_quote").await;
    }
    let outcome = scene.state(|quote| quote.kind = 0x8000).await;
    watch.refused("no kind at all", outcome, "quote_malformed").await;
    let other = SoftwareTpm::new().qualified_signer().to_bytes();
    let outcome = scene.state(|quote| quote.qualified_signer = other).await;
    watch.refused("the AK of another TPM", outcome, "ak_other_hierarchy").await;
    // TPM_RH_NULL: a Name may be a handle, but not that of a key.
    let outcome = scene.state(|quote| quote.qualified_signer = vec![0x40, 0, 0, 7]).await;
    watch.refused("a handle", outcome, "quote_malformed").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_ends_early_or_late_is_refused() {
    let scene = Scene::set().await;
    let mut watch = scene.watch().await;
    let attest = scene.node.quote(&scene.node.challenge().await.unwrap(), None).marshal();
    // Ends of fields: magic, kind, signer, extraData, clock, counters, firmware, selection, digest; and amid them.
    for end in
        [0, 3, 4, 5, 6, 8, 41, 42, 44, 75, 76, 84, 92, 93, 101, 105, 107, 108, 111, 113, attest.len() - 1]
    {
        let outcome = scene.sign(|attest| attest.truncate(end)).await;
        watch.refused(format!("ends at {end} of {}", attest.len()), outcome, "quote_malformed").await;
    }
    let outcome = scene.sign(|attest| attest.push(0)).await;
    watch.refused("a byte more", outcome, "quote_malformed").await;
    let outcome = scene.sign(|attest| attest.extend(attest.clone())).await;
    watch.refused("twice", outcome, "quote_malformed").await;
    let outcome = scene.sign(|attest| attest.resize(2304, 0)).await;
    watch.refused("as long as the wire takes", outcome, "quote_malformed").await;
    // Lengths within: signer, extraData, PCR digest; each longer than what it is in, and around a wrap of 16 bits.
    for at in [6, 42, attest.len() - 34] {
        for length in [0xffff_u16, 0xfffe, 0x8000, 67, 35, 31, 0] {
            let outcome =
                scene.sign(|attest| attest[at..at + 2].copy_from_slice(&length.to_be_bytes())).await;
            watch.refused(format!("length {length} at {at}"), outcome, "quote_malformed").await;
        }
    }
    for count in [u32::MAX, 0x8000_0000, 17, 2, 0] {
        let at = attest.len() - 34 - 10;
        let outcome = scene.sign(|attest| attest[at..at + 4].copy_from_slice(&count.to_be_bytes())).await;
        watch.refused(format!("{count} banks"), outcome, "quote_malformed").await;
    }
    for (case, change) in [
        ("a byte more", (|signature| signature.push(0)) as fn(&mut Vec<u8>)),
        ("a byte less", |signature| signature.truncate(71)),
        ("r of 65535 bytes", |signature| signature[4..6].fill(0xff)),
        ("s of 65535 bytes", |signature| signature[38..40].fill(0xff)),
        ("r over all of s", |signature| signature[4..6].copy_from_slice(&[0, 66])),
        ("two signatures", |signature| signature.extend(signature.clone())),
    ] {
        watch.refused(format!("signature: {case}"), scene.forge(change).await, "signature_malformed").await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_with_impossible_numbers_are_refused() {
    /// The order of P-256 (SEC 2, 2.4.2).
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let scene = Scene::set().await;
    let mut watch = scene.watch().await;
    let mut above = N;
    above[31] += 1;
    let longer = [&[1][..], &[0; 32]].concat();
    for (case, number) in [
        ("zero", &[0; 32][..]),
        ("nothing", &[]),
        ("n", &N),
        ("n + 1", &above),
        ("2^256 - 1", &[0xff; 32]),
        ("2^256", &longer),
    ] {
        let outcome = scene.forge(|bytes| *bytes = signature(ECDSA, number, &[7; 32])).await;
        watch.refused(format!("r is {case}"), outcome, "signature_invalid").await;
        let outcome = scene.forge(|bytes| *bytes = signature(ECDSA, &[7; 32], number)).await;
        watch.refused(format!("s is {case}"), outcome, "signature_invalid").await;
        let outcome = scene.forge(|bytes| *bytes = signature(ECDSA, number, number)).await;
        watch.refused(format!("both are {case}"), outcome, "signature_invalid").await;
    }
    scene.end().await;

    let mut tpm = SoftwareTpm::booted(&[SHA256]);
    tpm.endorsement_key = EndorsementKey::rsa2048();
    tpm.attestation_key = SoftwareKey::rsa2048(Template::attestation_rsa());
    let rsa = Scene::with(tpm).await;
    let mut watch = rsa.watch().await;
    let resize = |signature: &mut Vec<u8>, value: Vec<u8>| {
        signature.truncate(4);
        put_sized(signature, &value);
    };
    for (case, change) in [
        ("empty", (|_| Vec::new()) as fn(&[u8]) -> Vec<u8>),
        ("a byte short", |value| value[1..].to_vec()),
        ("a zero before it", |value| [&[0], value].concat()),
        ("a zero after it", |value| [value, &[0]].concat()),
        ("twice as long", |value| [value, value].concat()),
        ("zero", |value| vec![0; value.len()]),
        ("one", |value| [vec![0; value.len() - 1], vec![1]].concat()),
        ("all ones", |value| vec![0xff; value.len()]),
    ] {
        let outcome = rsa.forge(|signature| {
            let value = change(&signature[6..]);
            resize(signature, value);
        });
        watch.refused(format!("RSA: {case}"), outcome.await, "signature_invalid").await;
    }
    rsa.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_of_another_scheme_or_hash_is_refused() {
    let rsa = SoftwareKey::rsa2048(Template::attestation_rsa());
    let pss = Some(SignatureScheme::RsaPss(SHA256));
    let longer = Some(SignatureScheme::RsaSsa(SHA384));
    let scene = Scene::set().await;
    let mut watch = scene.watch().await;
    let sha1 = SignatureScheme::Ecdsa(HashAlgorithm::Sha1);
    for scheme in [sha1, SignatureScheme::Ecdsa(SHA384), SignatureScheme::Ecdsa(HashAlgorithm::Sha512)] {
        let outcome = scene.forge(|bytes| bytes[2..4].copy_from_slice(&scheme.hash().tpm_id().to_be_bytes()));
        watch.refused(format!("{scheme}"), outcome.await, "signature_scheme").await;
    }
    let outcome =
        scene.send(|evidence| evidence.signature = Blob::new(rsa.sign(evidence.quote.as_bytes())).unwrap());
    watch.refused("RSA for ECDSA", outcome.await, "signature_scheme").await;
    // TPM_ALG_NULL, HMAC, ECDAA, SM2, ECSCHNORR; and hashes SHA3-256 and SM3.
    for scheme in [0x0010_u16, 0x0005, 0x001a, 0x001b, 0x001c] {
        let outcome = scene.forge(|bytes| bytes[..2].copy_from_slice(&scheme.to_be_bytes())).await;
        watch.refused(format!("scheme {scheme:#x}"), outcome, "signature_malformed").await;
    }
    for hash in [0x0027_u16, 0x0012, 0x0010] {
        let outcome = scene.forge(|bytes| bytes[2..4].copy_from_slice(&hash.to_be_bytes())).await;
        watch.refused(format!("hash {hash:#x}"), outcome, "signature_malformed").await;
    }
    scene.end().await;

    let mut tpm = SoftwareTpm::booted(&[SHA256]);
    tpm.attestation_key = rsa;
    let mut scene = Scene::with(tpm).await;
    let honest = scene.node.tpm.attestation_key.template().clone();
    let mut watch = Watch::on(&scene.world, scene.node.node).await;
    for scheme in [pss, longer] {
        // The very key of the AK, by another scheme than its public area names.
        disguise(&mut scene.node, honest.clone().with_scheme(scheme));
        watch.refused(format!("{scheme:?} for RSASSA"), scene.state(|_| {}).await, "signature_scheme").await;
    }
    drop(watch);
    disguise(&mut scene.node, honest);
    scene.end().await;
}

fn disguise(node: &mut Simulated, template: Template) {
    let nobody = SoftwareKey::p256(Template::attestation_p256());
    let key = std::mem::replace(&mut node.tpm.attestation_key, nobody);
    node.tpm.attestation_key = key.disguised(template);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_does_not_lie_and_what_else_it_signs_is_no_quote() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let bystander = Bystander::new(&world).await;
    let node = Manual::affirming(&world, &swtpm).await;
    let mut watch = Watch::on(&world, node.node).await;
    node.lend_ak(&swtpm);
    create_parent(&swtpm, "e");
    let free = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign";
    let create = format!(
        "tpm2_create -C parent.ctx -G ecc256:ecdsa-sha256:null -a {free} -u free.pub -r free.priv -d created.hash -t created.ticket"
    );
    tool(&swtpm, &create);
    tool(&swtpm, "tpm2_load -C parent.ctx -u free.pub -r free.priv -c free.ctx");
    for command in [
        "tpm2_nvdefine 0x1500001 -C o -s 32 -a ownerread|ownerwrite",
        "tpm2_startauthsession -S audit.ctx --hmac-session",
        "tpm2_sessionconfig audit.ctx --enable-audit",
        "tpm2_getrandom 8 --hex -S audit.ctx",
    ] {
        let words: Vec<_> = command.split(' ').collect();
        swtpm.tool_ok(words[0], &words[1..]);
    }
    std::fs::write(swtpm.dir().join("zeros"), [0; 32]).unwrap();
    tool(&swtpm, "tpm2_nvwrite 0x1500001 -C o -i zeros");
    // Every other statement that a TPM makes by an AK, with the extraData of the quote that was asked for.
    for command in [
        "tpm2_gettime -c ak.ctx -q EXTRA -o signature --attestation attest",
        "tpm2_certifycreation -C ak.ctx -c free.ctx -d created.hash -t created.ticket -g sha256 -s ecdsa -f tss -q EXTRA -o signature --attestation attest",
        "tpm2_nvcertify -C ak.ctx -c o -g sha256 -s ecdsa -f tss --size 32 -q EXTRA -o signature --attestation attest 0x1500001",
        "tpm2_getsessionauditdigest -c ak.ctx -g sha256 -q EXTRA -m attest -s signature -S audit.ctx",
        "tpm2_getcommandauditdigest -c ak.ctx -g sha256 -q EXTRA -m attest -s signature",
    ] {
        let challenge = node.challenge().await;
        tool(&swtpm, &command.replace("EXTRA", &hex(&Manual::extra_data(&challenge))));
        let quote = node.quote(&challenge, &challenge.selection).await;
        let outcome = node.submit(&challenge, tools_statement(&swtpm), quote.values).await;
        watch.refused(command, outcome, "not_a_quote").await;
    }
    let challenge = node.challenge().await;
    let key = node.tpm.create_credential_key(&Digest::zero(SHA256)).await.unwrap();
    let certify = node.tpm.certify(&node.ak, &key, &Manual::extra_data(&challenge)).await.unwrap();
    let values = node.quote(&challenge, &challenge.selection).await.values;
    watch.refused("TPM2_Certify", node.submit(&challenge, certify, values).await, "not_a_quote").await;

    // A quote that no TPM made: about the PCRs of this machine before they moved.
    let challenge = node.challenge().await;
    let honest = node.quote(&challenge, &challenge.selection).await;
    let forgery = honest.statement.attest.clone();
    std::fs::write(swtpm.dir().join("attest"), &forgery).unwrap();
    tool(&swtpm, "tpm2_hash -C e -g sha256 -o digest -t ticket attest");
    let ticket = std::fs::read(swtpm.dir().join("ticket")).unwrap();
    // TPMT_TK_HASHCHECK of TPM_RH_NULL with an empty digest: TPM2_Hash vouches for nothing that begins like a statement.
    assert_eq!(ticket, [0x80, 0x24, 0x40, 0, 0, 7, 0, 0]);
    for ticket in ["-t ticket", ""] {
        let sign = format!("-Q -c ak.ctx -g sha256 -d -f tss -o signature {ticket} digest");
        let words: Vec<_> = sign.split_whitespace().collect();
        let signed = swtpm.tool("tpm2_sign", &words);
        assert!(!signed.status.success(), "a restricted key signed what its TPM did not state");
        swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
    }
    // An unrestricted key of the same TPM does sign it: it is no AK, and cannot become one.
    tool(&swtpm, "tpm2_sign -c free.ctx -g sha256 -f tss -o signature attest");
    let outcome = node.submit(&challenge, tools_statement(&swtpm), honest.values).await;
    watch.refused("by an unrestricted key", outcome, "signature_invalid").await;
    let sized = std::fs::read(swtpm.dir().join("free.pub")).unwrap();
    let mut request = node.enroll_request();
    request.ak_public = Blob::new(sized[2..].to_vec()).unwrap();
    let enrolled = async { refused(node.client.enroll(&request).await) };
    watch.refuses("an unrestricted AK", "ak_not_restricted", enrolled).await;

    // What the AK itself does sign is what does not begin like a statement.
    let challenge = node.challenge().await;
    let honest = node.quote(&challenge, &challenge.selection).await;
    let mut forgery = honest.statement.attest.clone();
    forgery[3] ^= 1;
    std::fs::write(swtpm.dir().join("attest"), &forgery).unwrap();
    tool(&swtpm, "tpm2_hash -C e -g sha256 -o digest -t ticket attest");
    tool(&swtpm, "tpm2_sign -c ak.ctx -g sha256 -d -f tss -t ticket -o signature digest");
    let outcome = node.submit(&challenge, tools_statement(&swtpm), honest.values).await;
    watch.refused("by the AK, with another magic", outcome, "not_tpm_generated").await;
    drop(watch);
    assert_eq!(node.attest().await.unwrap().posture.status, PostureStatus::Affirming);
    bystander.is_well(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_too_deep_is_refused_before_it_costs() {
    const JSON: &str = "Content-Type: application/json";
    let scene = Scene::set().await;
    let watch = scene.watch().await;
    let https = Https::to(&scene.node.client);
    let small = br#"{"challenge":"#;
    for (case, fields, body, status, code) in [
        ("1 GiB", &[JSON, "Content-Length: 1073741824"][..], &small[..], 413, "body_too_large"),
        ("2^32 and some", &[JSON, "Content-Length: 4294967309"], small, 413, "body_too_large"),
        ("5 MiB and a byte", &[JSON, "Content-Length: 5242881"], small, 413, "body_too_large"),
        (
            "a compressed body",
            &[JSON, "Content-Encoding: gzip", "Content-Length: 13"],
            small,
            415,
            "content_encoding",
        ),
        (
            "compressed twice",
            &[JSON, "Content-Encoding: gzip, br", "Content-Length: 13"],
            small,
            415,
            "content_encoding",
        ),
        ("no JSON", &["Content-Type: application/cbor", "Content-Length: 13"], small, 415, "content_type"),
    ] {
        let reply = https.send("POST", "/v1/evidence", fields, body).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{case}");
        watch.untouched(case).await;
    }
    // Lengths that wrap at 64 bits, or that disagree, are no HTTP.
    for fields in [
        &[JSON, "Content-Length: 18446744073709551629"][..],
        &[JSON, "Content-Length: -1"],
        &[JSON, "Content-Length: 13", "Content-Length: 14"],
    ] {
        let reply = https.send("POST", "/v1/evidence", fields, small).await;
        assert_eq!(reply.status, 400, "{fields:?}");
        watch.untouched("no HTTP").await;
    }
    let chunk = [b"10000\r\n", &vec![b' '; 0x10000][..], b"\r\n"].concat();
    let endless = [chunk.repeat(4), b"0\r\n\r\n".to_vec()].concat();
    let reply = https.send("POST", "/v1/evidence", &[JSON, "Transfer-Encoding: chunked"], &endless).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "body_too_large"), "chunks without end");

    let deep = |before: &str, open: &str| before.to_owned() + &open.repeat(60_000 / open.len());
    let long = |field: &str, bytes: usize| format!(r#"{{"{field}":"{}"}}"#, "A".repeat(bytes * 4 / 3 + 2));
    for body in [
        deep("", "["),
        deep("", r#"{"":"#),
        deep(r#"{"challenge":"#, "["),
        deep(r#"{"pcrs":"#, r#"{"sha256":"#),
        deep(r#"{"pcrs":{"sha256":{"0":"#, "["),
        deep(r#"{"certificate_request":"#, "["),
        long("challenge", 513),
        long("quote", 2305),
        long("signature", 519),
        long("certificate_request", 8193),
        format!(r#"{{"quote":1e{}}}"#, "9".repeat(60_000)),
        " ".repeat(65_536),
        format!("{{{}", r#""quote":"AAAA","#.repeat(4000)),
        String::new(),
        "\u{feff}{}".to_owned(),
        Value::Null.to_string(),
    ] {
        let reply = https.post_bytes("/v1/evidence", body.as_bytes()).await;
        let case = body.chars().take(40).collect::<String>();
        assert_eq!((reply.status, reply.code().as_str()), (400, "body_malformed"), "{case}");
        watch.untouched(case).await;
    }
    drop(watch);
    scene.end().await;
}
