//! Attacks 2 to 5, 17 and 18: which key signs, and whose is it?

use std::fs;

use rootbound_attester::enroll::EkChoice;
use rootbound_attester::tpm::{Statement as Stated, Tpm, TpmError};
use rootbound_common::blob::Blob;
use rootbound_common::tpm::{Attest, Attributes, Curve, HashAlgorithm, KeyParameters, PcrValues};
use rootbound_common::wire::v1::{
    Challenge, CredentialOutcome, EnrollRequest, EnrollResponse, EvidenceResponse, PostureStatus,
};
use rootbound_swtpm_tests::certificate_request::RequestParts;
use rootbound_swtpm_tests::https::Https;
use rootbound_swtpm_tests::manual::{Manual, tool};
use rootbound_swtpm_tests::software_tpm::{
    EndorsementKey, Kind, Signed, SoftwareKey, SoftwareTpm, Statement, Template,
};
use rootbound_swtpm_tests::watch::{Bystander, Watch};
use rootbound_swtpm_tests::world::{Simulated, World, refused};
use rootbound_swtpm_tests::{Manufacturer, Swtpm};

const OF_TPM: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth";
const ECDSA: &str = "ecc256:ecdsa-sha256:null";

/// Makes a primary key in the endorsement hierarchy, `<name>.ctx`; gives its TPMT_PUBLIC.
fn create_key(swtpm: &Swtpm, name: &str, algorithm: &str, hash: &str, attributes: &str) -> Vec<u8> {
    tool(swtpm, &format!("tpm2_createprimary -C e -G {algorithm} -g {hash} -a {attributes} -c {name}.ctx"));
    tool(swtpm, &format!("tpm2_readpublic -c {name}.ctx -o {name}.pub"));
    read_public(swtpm, name)
}

/// TPMT_PUBLIC out of a file of tpm2-tools.
fn read_public(swtpm: &Swtpm, name: &str) -> Vec<u8> {
    fs::read(swtpm.dir().join(format!("{name}.pub"))).unwrap().split_off(2)
}

/// TPM2_ActivateCredential by tpm2-tools, with the RSA EK and any object: the secret, or what the TPM says.
fn activate(swtpm: &Swtpm, object: &str, begun: &EnrollResponse) -> Result<Vec<u8>, String> {
    // The file format of tpm2-tools: magic, version 1, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
    let mut file = vec![0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
    for part in [begun.credential_blob.as_bytes(), begun.encrypted_secret.as_bytes()] {
        rootbound_common::tpm::put_sized(&mut file, part);
    }
    fs::write(swtpm.dir().join("credential"), file).unwrap();
    swtpm.tool_ok("tpm2_startauthsession", &["--policy-session", "-S", "session.ctx"]);
    swtpm.tool_ok("tpm2_policysecret", &["-Q", "-S", "session.ctx", "-c", "e"]);
    let (context, session) = (format!("{object}.ctx"), "session:session.ctx");
    let arguments =
        ["-Q", "-c", &context, "-C", "0x81010001", "-i", "credential", "-o", "secret", "-P", session];
    let opened = swtpm.tool("tpm2_activatecredential", &arguments);
    swtpm.tool_ok("tpm2_flushcontext", &["session.ctx"]);
    swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
    if opened.status.success() {
        Ok(fs::read(swtpm.dir().join("secret")).unwrap())
    } else {
        Err(String::from_utf8_lossy(&opened.stderr).into_owned())
    }
}

fn with_ak(request: EnrollRequest, public_area: Vec<u8>) -> EnrollRequest {
    EnrollRequest { ak_public: Blob::new(public_area).unwrap(), ..request }
}

/// Attacks 2, 3 and 4: keys of a real TPM that are no AKs, and lies about some that no TPM would make.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_could_sign_forgeries_are_refused() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let machine = Manual::new(&world, Tpm::spawn(swtpm.tcti()).unwrap()).await;
    let honest = machine.enroll_request();

    let sign = format!("{OF_TPM}|restricted|sign");
    let mut keys = Vec::new();
    for (what, code, algorithm, hash, attributes) in [
        ("unrestricted", "ak_not_restricted", ECDSA, "sha256", format!("{OF_TPM}|sign")),
        (
            "exportable",
            "ak_may_leave_tpm",
            ECDSA,
            "sha256",
            "sensitivedataorigin|userwithauth|restricted|sign".into(),
        ),
        (
            "storage",
            "ak_not_signing",
            "ecc256:null:aes128cfb",
            "sha256",
            format!("{OF_TPM}|restricted|decrypt"),
        ),
        ("all-purpose", "ak_not_restricted", "ecc256:null:null", "sha256", format!("{OF_TPM}|sign|decrypt")),
        // x509sign, which tpm2-tools have no word for.
        ("certifying", "ak_signs_certificates", ECDSA, "sha256", "0x000d0072".into()),
        ("RSA-1024", "ak_malformed", "rsa1024:rsassa-sha256:null", "sha256", sign.clone()),
        ("P-192", "ak_malformed", "ecc192:ecdsa-sha256:null", "sha256", sign.clone()),
        ("P-224", "ak_malformed", "ecc224:ecdsa-sha256:null", "sha256", sign.clone()),
        ("HMAC", "ak_malformed", "hmac:sha256", "sha256", format!("{OF_TPM}|sign")),
        ("Schnorr", "ak_malformed", "ecc256:ecschnorr-sha256:null", "sha256", sign.clone()),
        ("SHA-1 signing", "ak_sha1_scheme", "ecc256:ecdsa-sha1:null", "sha256", sign.clone()),
        ("SHA-1 named", "ak_sha1_name", ECDSA, "sha1", sign.clone()),
    ] {
        keys.push((what, code, create_key(&swtpm, "key", algorithm, hash, &attributes)));
    }
    keys.push(("the EK", "ak_not_signing", honest.ek_public.as_bytes().to_vec()));
    keys.push(("made elsewhere", "ak_may_leave_tpm", import_key(&swtpm)));

    // What no TPM makes: the TPM refuses the combination.
    let claimed = |template: Template| SoftwareKey::p256(template).public_area();
    let ak = Template::attestation_p256;
    keys.extend([
        ("without parent", "ak_may_leave_parent", claimed(ak().without(Attributes::FIXED_PARENT))),
        ("known outside", "ak_made_elsewhere", claimed(ak().without(Attributes::SENSITIVE_DATA_ORIGIN))),
        ("decrypting, too", "ak_may_decrypt", claimed(ak().with(Attributes::DECRYPT))),
        ("any scheme", "ak_no_scheme", claimed(ak().with_scheme(None))),
    ]);
    for (what, code, public_area) in keys {
        let request = with_ak(honest.clone(), public_area);
        let attempt = async { refused(machine.client.enroll(&request).await) };
        watch.refuses(what, code, attempt).await;
    }
    assert!(world.verifier.store().node(machine.node).await.unwrap().is_none());
    machine.enroll().await.expect("its real AK will do");
    bystander.is_well(&world).await;
}

/// A restricted signing key whose private part was made by openssl.
fn import_key(swtpm: &Swtpm) -> Vec<u8> {
    let key = p256::SecretKey::from_slice(&[7; 32]).unwrap();
    let pem = p256::pkcs8::EncodePrivateKey::to_pkcs8_pem(&key, p256::pkcs8::LineEnding::LF).unwrap();
    fs::write(swtpm.dir().join("key.pem"), pem.as_bytes()).unwrap();
    tool(swtpm, "tpm2_createprimary -C e -c parent.ctx");
    let import =
        format!("tpm2_import -C parent.ctx -G {ECDSA} -g sha256 -i key.pem -u imported.pub -r imported.priv");
    tool(swtpm, &format!("{import} -a userwithauth|restricted|sign"));
    read_public(swtpm, "imported")
}

/// A quote over values that the TPM does not have: everything else is as its last statement has it.
fn forge(honest: &Stated, challenge: &Challenge, values: &PcrValues) -> Vec<u8> {
    let attest = Attest::parse(&honest.attest).unwrap();
    let digest = values.digest(&challenge.selection, HashAlgorithm::Sha256).unwrap();
    let forged = Statement {
        magic: Statement::TPM_GENERATED,
        kind: Kind::Quote.tpm_id(),
        qualified_signer: attest.qualified_signer.to_bytes(),
        extra_data: Manual::extra_data(challenge),
        clock: attest.clock,
        firmware_version: attest.firmware_version,
        attested: Statement::quoted(&challenge.selection, digest.as_bytes()),
    };
    forged.marshal()
}

/// Attack 2: why an AK has to be restricted. A machine that has drifted tries to state that it has not.
#[tokio::test(flavor = "multi_thread")]
async fn quote_that_no_tpm_made_is_signed_by_no_ak() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let bystander = Bystander::new(&world).await;
    let machine = Manual::admitted(&world, &swtpm).await;
    let challenge = machine.challenge().await;
    let before = machine.quote(&challenge, &challenge.selection).await;
    machine.attest().await.unwrap();
    assert_eq!(world.status(machine.node), PostureStatus::Affirming);
    swtpm.extend(4, b"another boot loader");

    let challenge = machine.challenge().await;
    let honest = machine.quote(&challenge, &challenge.selection).await;
    let forged = forge(&honest.statement, &challenge, &before.values);
    fs::write(swtpm.dir().join("forged"), &forged).unwrap();
    let sign = |key: &str| {
        let arguments = ["-Q", "-c", key, "-g", "sha256", "-s", "ecdsa", "-o", "signature", "forged"];
        let signed = swtpm.tool("tpm2_sign", &arguments);
        swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
        signed
    };
    // The TPM knows what begins like a statement of its own, and gives no ticket for it.
    machine.lend_ak(&swtpm);
    let stderr = String::from_utf8(sign("ak.ctx").stderr).unwrap();
    assert!(stderr.contains("invalid ticket"), "{stderr}");

    let unrestricted = create_key(&swtpm, "unrestricted", ECDSA, "sha256", &format!("{OF_TPM}|sign"));
    assert!(sign("unrestricted.ctx").status.success(), "what is not restricted signs anything");
    let signature = fs::read(swtpm.dir().join("signature")).unwrap();
    let mut watch = Watch::on(&world, machine.node).await;
    let statement = Stated { attest: forged, signature };
    let forgery = machine.submit(&challenge, statement, before.values).await;
    watch.refused("a forgery by another key", forgery, "signature_invalid").await;

    // A lie about the key: it looks like an AK, but the TPM has no such object.
    let mut disguised = unrestricted;
    disguised[5] |= 0x01;
    let request = with_ak(machine.enroll_request(), disguised);
    let begun = machine.client.enroll(&request).await.unwrap();
    let refusal = activate(&swtpm, "unrestricted", &begun).unwrap_err();
    assert!(refusal.contains("integrity check failed"), "{refusal}");
    let guess = async { refused(machine.activate(&begun, &[0; 32]).await) };
    watch.refuses("the secret of a disguised key, guessed", "activation_secret_wrong", guess).await;

    let answer = machine.attest().await.unwrap();
    assert_eq!(answer.posture.status, PostureStatus::Contraindicated, "the truth");
    bystander.is_well(&world).await;
}

/// Attack 5: the AK of the challenge is the AK that is enrolled, and in the TPM of that EK.
#[tokio::test(flavor = "multi_thread")]
async fn credential_for_one_ak_enrols_no_other() {
    let manufacturer = Manufacturer::new();
    let swtpm = Swtpm::manufacture_by(&manufacturer);
    let world = World::new(&[&manufacturer]).await;
    let bystander = Bystander::new(&world).await;
    let victim = Manual::admitted(&world, &swtpm).await;
    victim.attest().await.unwrap();
    let mut watch = Watch::on(&world, victim.node).await;
    let foreign = Swtpm::manufacture_by(&manufacturer);
    let attacker = Manual::new(&world, Tpm::spawn(foreign.tcti()).unwrap()).await;

    // The victim's AK under the attacker's EK: the attacker's TPM knows the public part only.
    let request = with_ak(attacker.enroll_request(), victim.ak.public().as_bytes().to_vec());
    let begun = attacker.client.enroll(&request).await.unwrap();
    let own = attacker.open(&attacker.ak, &begun).await;
    assert!(matches!(own, Err(TpmError::ForeignCredential { .. })), "{own:?}");
    fs::write(foreign.dir().join("victim.pub"), victim.ak.sized_public()).unwrap();
    tool(&foreign, "tpm2_loadexternal -C n -u victim.pub -c victim.ctx");
    let refusal = activate(&foreign, "victim", &begun).unwrap_err();
    assert!(refusal.contains("authValue or authPolicy is not available"), "{refusal}");
    let guess = async { refused(attacker.activate(&begun, &[0xff; 32]).await) };
    watch.refuses("the secret for another's AK, guessed", "activation_secret_wrong", guess).await;

    // There is no place for another AK in the answer; and an answer that is none does not spend the attempt.
    let begun = attacker.client.enroll(&attacker.enroll_request()).await.unwrap();
    let secret = attacker.open(&attacker.ak, &begun).await.unwrap();
    let message = serde_json::json!({
        "enrollment": begun.enrollment,
        "secret": Blob::<64>::new(secret.clone()).unwrap(),
        "ak_public": request.ak_public,
    });
    let https = Https::to(&attacker.client);
    let attempt = async { https.post("/v1/enrollments/activate", &message).await.code() };
    watch.turns_away("another AK with the answer", "body_malformed", attempt).await;
    attacker.activate(&begun, &secret).await.unwrap();
    let record = world.verifier.store().node(attacker.node).await.unwrap().unwrap();
    assert_eq!(record.attestation_key.public(), attacker.ak.public());
    assert_eq!(victim.attest().await.unwrap().posture.status, PostureStatus::Affirming);
    bystander.is_well(&world).await;
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// A point of a curve.
fn point(curve: Curve) -> (Vec<u8>, Vec<u8>) {
    let template = Template::attestation_p256();
    let key = match curve {
        Curve::P256 => SoftwareKey::p256(template),
        Curve::P384 => SoftwareKey::p384(template),
    };
    match key.public().parameters() {
        KeyParameters::Ecc { x, y, .. } => (x.clone(), y.clone()),
        KeyParameters::Rsa { .. } => panic!("an ECC key"),
    }
}

/// Coordinates that are no point, and whether it takes a look at the curve to know.
fn no_points(curve: Curve) -> Vec<(&'static str, &'static str, Vec<u8>, Vec<u8>)> {
    // The primes of SP 800-186, 3.2.1.
    let prime = match curve {
        Curve::P256 => hex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
        Curve::P384 => hex(
            "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
        ),
    };
    let size = curve.size();
    let (x, y) = point(curve);
    let mut off = y.clone();
    off[size - 1] ^= 1;
    vec![
        ("off the curve", "not_a_key", x.clone(), off),
        ("x is p", "not_a_key", prime.clone(), y.clone()),
        ("y is p", "not_a_key", x.clone(), prime),
        ("x beyond p", "not_a_key", vec![0xff; size], y.clone()),
        ("x cut short", "not_a_key", x[..size - 1].to_vec(), y.clone()),
        ("x is zero", "malformed", vec![0; size], y.clone()),
        ("y is zero", "malformed", x.clone(), vec![0; size]),
        ("the point at infinity", "malformed", vec![], vec![]),
        ("x too long", "malformed", [&[0], x.as_slice()].concat(), y.clone()),
        ("y too long", "malformed", x, [y.as_slice(), &[1]].concat()),
    ]
}

/// Attack 17, for EKs and AKs.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_no_key_are_refused() {
    let world = World::new(&[]).await;
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let simulated = Simulated { node: bystander.node(), tpm: SoftwareTpm::new(), client: world.client() };
    let honest = simulated.enroll_request();
    let (ek, ak) = (EndorsementKey::template(), Template::attestation_p256());
    let mut cases = Vec::new();
    for curve in [Curve::P256, Curve::P384] {
        for (what, flaw, x, y) in no_points(curve) {
            cases.push((what, format!("ek_{flaw}"), "ek", ek.ecc_public_area(curve, &x, &y)));
            cases.push((what, format!("ak_{flaw}"), "ak", ak.ecc_public_area(curve, &x, &y)));
        }
    }
    // P-521, whose coordinates have 66 bytes of which seven bits are padding.
    let mut p521 = ak.ecc_public_area(Curve::P256, &[1; 66], &[1; 66]);
    let curve = p521.iter().rposition(|byte| *byte == 0x03).unwrap();
    p521[curve] = 0x05;
    cases.push(("P-521", "ak_malformed".into(), "ak", p521));
    let rsa = |change: fn(&mut Vec<u8>)| {
        let public = EndorsementKey::rsa2048().public();
        let KeyParameters::Rsa { modulus, .. } = public.parameters() else { panic!("an RSA key") };
        let mut modulus = modulus.clone();
        change(&mut modulus);
        modulus
    };
    let signs = Template::attestation_rsa();
    let even = rsa(|modulus| modulus[255] &= 0xfe);
    let short = rsa(|modulus| modulus[0] &= 0x7f);
    cases.push(("even modulus", "ek_not_a_key".into(), "ek", ek.rsa_public_area(&even)));
    cases.push(("even modulus", "ak_not_a_key".into(), "ak", signs.rsa_public_area(&even)));
    cases.push(("short modulus", "ek_malformed".into(), "ek", ek.rsa_public_area(&short)));
    cases.push(("short modulus", "ak_malformed".into(), "ak", signs.rsa_public_area(&short)));
    for (what, code, which, public_area) in cases {
        let area = Blob::new(public_area).unwrap();
        let request = match which {
            "ek" => EnrollRequest { ek_public: area, ..honest.clone() },
            _ => EnrollRequest { ak_public: area, ..honest.clone() },
        };
        let attempt = async { refused(simulated.client.enroll(&request).await) };
        watch.refuses(format_args!("{which}: {what}"), &code, attempt).await;
    }
    bystander.is_well(&world).await;
}

/// The code of a credential that was refused beside evidence that counts.
fn credential_refused(answer: EvidenceResponse) -> String {
    assert_eq!(answer.posture.status, PostureStatus::Affirming);
    match answer.credential {
        Some(CredentialOutcome::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

/// Attack 18, by a real TPM: what it states is true, but not of this key, for this challenge, by this AK.
#[tokio::test(flavor = "multi_thread")]
async fn statement_about_something_else_certifies_no_key() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let machine = Manual::admitted(&world, &swtpm).await;
    let old = machine.challenge().await;
    let (key, other) = (machine.credential_key(&old).await, machine.credential_key(&old).await);
    let other_ak = Manual::stranger(&world, machine.tpm.clone(), EkChoice::Auto).await;
    for (what, code) in [
        ("another key", "certify_name"),
        ("another challenge", "certify_extra_data"),
        ("another AK", "certify_signature"),
        ("a quote", "certify_kind"),
        ("a byte less", "certify_signature"),
    ] {
        let challenge = machine.challenge().await;
        let statement = match what {
            "another key" => machine.certify(&challenge, &other).await,
            "another challenge" => machine.certify(&old, &key).await,
            "another AK" => other_ak.certify(&challenge, &key).await,
            "a quote" => machine.quote(&challenge, &challenge.selection).await.statement,
            _ => {
                let mut statement = machine.certify(&challenge, &key).await;
                statement.attest.pop();
                statement
            }
        };
        let request = machine.certificate_request(&challenge, &key, &statement).await;
        let attempt =
            async { credential_refused(machine.request_credential(&challenge, request).await.unwrap()) };
        watch.refuses(what, code, attempt).await;
    }
    assert!(world.verifier.store().certificates(machine.node, 1).await.unwrap().is_empty());
    let challenge = machine.challenge().await;
    let statement = machine.certify(&challenge, &key).await;
    let request = machine.certificate_request(&challenge, &key, &statement).await;
    let answer = machine.request_credential(&challenge, request).await.unwrap();
    assert!(matches!(answer.credential, Some(CredentialOutcome::Issued { .. })), "{answer:?}");
    bystander.is_well(&world).await;
}

/// Attack 18, by a key in software that its owner had listed: malformed statements under a good signature.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_statement_certifies_no_key_however_well_signed() {
    let world = World::new(&[]).await;
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let liar = world.simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await;
    let resign = |mut attest: Vec<u8>, change: fn(&mut Vec<u8>)| {
        change(&mut attest);
        let signature = liar.tpm.attestation_key.sign(&attest);
        Signed { attest, signature }
    };
    type Flaw = (&'static str, &'static str, fn(&mut Vec<u8>));
    let cases: [Flaw; 7] = [
        ("wrong magic", "certify_magic", |attest| attest[0] = 0),
        ("type that is none", "certify_malformed", |attest| attest[5] = 0xff),
        ("type of a quote", "certify_malformed", |attest| attest[5] = 0x18),
        ("inner length beyond the end", "certify_malformed", |attest| attest[6..8].fill(0xff)),
        ("last byte missing", "certify_malformed", |attest| attest.truncate(attest.len() - 1)),
        ("trailing byte", "certify_malformed", |attest| attest.push(0)),
        ("nothing but the magic", "certify_malformed", |attest| attest.truncate(4)),
    ];
    for (what, code, change) in cases {
        let challenge = liar.challenge().await.unwrap();
        let policy = liar.tpm.policy(&challenge.credential_policy.selection());
        let key = SoftwareKey::p256(Template::credential(policy.as_bytes()));
        let extra = rootbound_common::attestation_attribute::CertifyStatement::extra_data(
            &rootbound_swtpm_tests::world::nonce(&challenge),
        );
        let certify = resign(liar.tpm.certify(&key, extra.as_bytes()).marshal(), change);
        let csr = RequestParts::honest(&key, &certify).sign(&key);
        let quote = liar.quote(&challenge, Some(&csr)).sign(&liar.tpm.attestation_key);
        let evidence = liar.evidence(&challenge, quote, Some(csr));
        let attempt = async { credential_refused(liar.submit(evidence).await.unwrap()) };
        watch.refuses(what, code, attempt).await;
    }
    let challenge = liar.challenge().await.unwrap();
    let answer = liar.submit(liar.answer_with_request(&challenge).0).await.unwrap();
    assert!(matches!(answer.credential, Some(CredentialOutcome::Issued { .. })), "{answer:?}");
    bystander.is_well(&world).await;
}
