//! Attacks 1 and 6 to 11: whose TPM is this, and who says so?

use std::fs;

use der::asn1::ObjectIdentifier;
use rootbound_attester::enroll::EkChoice;
use rootbound_attester::tpm::Tpm;
use rootbound_common::blob::Blob;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{Admission, ChallengeRequest, EnrollRequest};
use rootbound_swtpm_tests::manual::{Manual, certificates};
use rootbound_swtpm_tests::software_tpm::EndorsementKey;
use rootbound_swtpm_tests::vendor::{CLIENT_AUTHENTICATION, Draft, Vendor};
use rootbound_swtpm_tests::watch::{Bystander, Watch};
use rootbound_swtpm_tests::world::{World, attester_refused, operator, refused};
use rootbound_swtpm_tests::{Manufacturer, Swtpm};
use rootbound_verifier::enrollment::RevocationPolicy;
use rootbound_verifier::node::{Labels, Standing};
use x509_cert::ext::pkix::KeyUsages;

/// Puts a certificate where a TPM holds that of its RSA EK.
fn store_ek_certificate(swtpm: &Swtpm, certificate: &[u8]) {
    let attributes = "ppwrite|writedefine|ppread|ownerread|authread|no_da|platformcreate";
    let size = certificate.len().to_string();
    fs::write(swtpm.dir().join("certificate"), certificate).unwrap();
    swtpm.tool_ok("tpm2_nvundefine", &["-C", "p", "0x01c00002"]);
    swtpm.tool_ok("tpm2_nvdefine", &["0x01c00002", "-C", "p", "-s", &size, "-a", attributes]);
    swtpm.tool_ok("tpm2_nvwrite", &["0x01c00002", "-C", "p", "-i", "certificate"]);
}

/// Attacks 1 (CVE-2021-3406) and 11.
#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_another_tpm_endorses_nothing() {
    let manufacturer = Manufacturer::new();
    let swtpm = Swtpm::manufacture_by(&manufacturer);
    let world = World::new(&[&manufacturer]).await;
    let mut victim = world.affirming(swtpm).await;
    let victims_ek = victim.tpm.preferred_endorsement_key().await.unwrap();
    let mut watch = Watch::on(&world, victim.node().await).await;
    let swtpm = Swtpm::manufacture_by(&manufacturer);
    let attacker = Manual::stranger(&world, Tpm::spawn(swtpm.tcti()).unwrap(), EkChoice::Auto).await;
    let honest = attacker.enroll_request();
    let victims_certificate = certificates(&victims_ek.certificate);

    // A key in software opens everything that is encrypted to it: with it, any AK would count as that of a TPM.
    let own_key = EnrollRequest {
        ek_public: Blob::new(EndorsementKey::rsa2048().public_area()).unwrap(),
        ek_certificates: victims_certificate.clone(),
        ..honest.clone()
    };
    let own_tpm = EnrollRequest { ek_certificates: victims_certificate, ..honest.clone() };
    let mut area = victims_ek.public.as_bytes().to_vec();
    let victims_key = EnrollRequest {
        ek_public: Blob::new(area.clone()).unwrap(),
        ek_certificates: honest.ek_certificates.clone(),
        ..honest.clone()
    };
    let middle = area.len() - 128;
    area[middle] ^= 1;
    let altered = EnrollRequest { ek_public: Blob::new(area).unwrap(), ..own_key.clone() };
    for (what, request) in [
        ("the victim's certificate for a key in software", own_key),
        ("the victim's certificate for the attacker's TPM", own_tpm),
        ("the attacker's certificate for the victim's EK", victims_key),
        ("the victim's certificate for its EK with one bit changed", altered),
    ] {
        let attempt = async { refused(attacker.client.enroll(&request).await) };
        watch.refuses(what, "endorsement_other_key", attempt).await;
    }

    // What a manufacturer's mistake looks like: the attester says why, and works once the certificate is right.
    let own_certificate = attacker.ek().certificate.clone().unwrap();
    let mut faulty = world.machine(swtpm);
    store_ek_certificate(&faulty.swtpm, victims_ek.certificate.as_ref().unwrap());
    let attempt = async { attester_refused(faulty.attester.attest().await) };
    watch.refuses("a TPM with another's certificate in it", "endorsement_other_key", attempt).await;
    let node = faulty.node().await;
    assert!(world.verifier.store().node(node).await.unwrap().is_none());
    store_ek_certificate(&faulty.swtpm, &own_certificate);
    faulty.restart(&world);
    assert_eq!(attester_refused(faulty.attester.attest().await), "admission_pending");
    let record = world.verifier.store().node(node).await.unwrap().unwrap();
    assert_eq!(record.standing, Standing::Pending);
    victim.is_well(&world).await;
}

/// A vendor's hierarchy and what strangers make to look like it, for the EK of a real TPM.
struct Chains {
    root: Vendor,
    issuing: Vendor,
    tpm: Manual,
}

impl Chains {
    fn leaf(&self, draft: &Draft) -> Vec<u8> {
        self.issuing.endorse(&self.tpm.ek().public, draft)
    }

    /// A chain of the root, a CA below it, and a good leaf.
    fn below(&self, authority: &Draft) -> Vec<Vec<u8>> {
        let authority = self.root.authority(authority);
        vec![authority.endorse(&self.tpm.ek().public, &Draft::endorsement()), authority.der()]
    }

    fn leaves(&self) -> Vec<(&'static str, &'static str, Vec<Vec<u8>>)> {
        let good = Draft::endorsement;
        let purposes = |purposes: &[ObjectIdentifier]| Some(purposes.to_vec());
        let cases = [
            ("expired", "endorsement_expired", good().days(-400, -30)),
            ("not yet valid", "endorsement_not_yet_valid", good().days(30, 400)),
            ("a CA's", "endorsement_ca_as_leaf", Draft { authority: Some(None), ..good() }),
            (
                "for other purposes",
                "endorsement_wrong_purpose",
                Draft { purposes: purposes(&[CLIENT_AUTHENTICATION]), ..good() },
            ),
            ("for no purpose", "endorsement_no_purpose", Draft { purposes: None, ..good() }),
            (
                "for signing",
                "endorsement_wrong_key_usage",
                Draft { usage: KeyUsages::DigitalSignature.into(), ..good() },
            ),
            (
                "with a demand that nobody knows",
                "endorsement_critical_extension",
                Draft { unknown_critical: true, ..good() },
            ),
        ];
        cases.map(|(what, code, draft)| (what, code, vec![self.leaf(&draft), self.issuing.der()])).into()
    }

    fn authorities(&self) -> Vec<(&'static str, &'static str, Vec<Vec<u8>>)> {
        let good = || Draft::authority("Other issuing");
        let short = self.root.authority(&Draft { authority: Some(Some(0)), ..good() });
        let below_short = short.authority(&Draft::authority("One too many"));
        let leaf_below_short = below_short.endorse(&self.tpm.ek().public, &Draft::endorsement());
        let client = Some(vec![CLIENT_AUTHENTICATION]);
        vec![
            ("expired CA", "endorsement_expired", self.below(&good().days(-400, -30))),
            ("leaf as CA", "endorsement_not_a_ca", self.below(&Draft { authority: None, ..good() })),
            (
                "CA that may not sign",
                "endorsement_ca_may_not_sign",
                self.below(&Draft { usage: KeyUsages::CRLSign.into(), ..good() }),
            ),
            (
                "CA for other purposes",
                "endorsement_ca_other_purpose",
                self.below(&Draft { purposes: client, ..good() }),
            ),
            (
                "path length",
                "endorsement_path_length",
                vec![leaf_below_short, below_short.der(), short.der()],
            ),
        ]
    }

    fn strangers(&self) -> Vec<(&'static str, &'static str, Vec<Vec<u8>>)> {
        let ek = &self.tpm.ek().public;
        let good = self.leaf(&Draft::endorsement());
        let own_root = Vendor::root("Somebody");
        let own_issuing = own_root.authority(&Draft::authority("Somebody's issuing"));
        // The names of the real ones.
        let false_root = Vendor::root("Vendor root");
        let false_issuing = false_root.authority(&Draft::authority("Vendor issuing"));
        let self_issued = Vendor::root("a TPM");
        let (one, other) = (Vendor::root("One"), Vendor::root("Other"));
        let circle = [
            one.certified_by(&other, &Draft::authority("One")),
            other.certified_by(&one, &Draft::authority("Other")),
        ];
        let leaf = |by: &Vendor| by.endorse(ek, &Draft::endorsement());
        vec![
            ("self-signed", "endorsement_unknown_issuer", vec![leaf(&self_issued), self_issued.der()]),
            (
                "root that is unknown",
                "endorsement_unknown_issuer",
                vec![leaf(&own_issuing), own_issuing.der(), own_root.der()],
            ),
            (
                "right names, wrong keys",
                "endorsement_bad_signature",
                vec![leaf(&false_issuing), false_issuing.der(), false_root.der()],
            ),
            (
                "right name, wrong key, beside the real CA",
                "endorsement_bad_signature",
                vec![leaf(&false_issuing), self.issuing.der()],
            ),
            ("gap", "endorsement_unknown_issuer", vec![good.clone()]),
            ("circle", "endorsement_unknown_issuer", vec![leaf(&one), circle[0].der(), circle[1].der()]),
            ("nothing", "endorsement_no_certificate", vec![]),
            ("no certificate", "endorsement_certificate_malformed", vec![good[..good.len() - 1].to_vec()]),
            ("seven", "endorsement_too_many_certificates", vec![good; 7]),
        ]
    }
}

/// Attacks 6, 7 and 9.
#[tokio::test(flavor = "multi_thread")]
async fn each_flaw_of_a_chain_is_refused_for_its_own_reason() {
    let root = Vendor::root("Vendor root");
    let issuing = root.authority(&Draft::authority("Vendor issuing"));
    let world = World::builder().root(root.der()).start().await;
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let swtpm = Swtpm::manufacture();
    let tpm = Manual::stranger(&world, Tpm::spawn(swtpm.tcti()).unwrap(), EkChoice::Auto).await;
    let chains = Chains { root, issuing, tpm };
    let request = |chain: &[Vec<u8>]| EnrollRequest {
        ek_certificates: certificates(chain),
        ..chains.tpm.enroll_request()
    };
    for (what, code, chain) in [chains.leaves(), chains.authorities(), chains.strangers()].concat() {
        let attempt = async { refused(chains.tpm.client.enroll(&request(&chain)).await) };
        let decision = watch.refuses(what, code, attempt).await;
        assert_eq!(decision.node, Some(chains.tpm.node), "an operator sees whose EK it was");
    }
    assert!(world.verifier.store().node(chains.tpm.node).await.unwrap().is_none());

    // What was wrong was the flaw, and not the TPM: with filler behind it, and the leaf not in front, a good chain does.
    let filled = [chains.leaf(&Draft::endorsement()), vec![0xff; 300]].concat();
    let begun = chains.tpm.client.enroll(&request(&[chains.issuing.der(), filled])).await.unwrap();
    let secret = chains.tpm.open(&chains.tpm.ak, &begun).await.unwrap();
    assert_eq!(chains.tpm.activate(&begun, &secret).await.unwrap().admission, Admission::Pending);
    bystander.is_well(&world).await;
}

/// Attack 8.
#[tokio::test(flavor = "multi_thread")]
async fn revoked_and_unknown_to_be_revoked_are_refused() {
    const LEAF: u32 = 0x33;
    const ISSUING: u32 = 0x22;
    let root = Vendor::root("Vendor root");
    let issuing = root.authority(&Draft::authority("Vendor issuing").serial(ISSUING));
    let stranger = Vendor::root("Vendor issuing");
    let builder = || World::builder().root(root.der()).root(issuing.der());
    let world = builder().revocation(RevocationPolicy::Require).start().await;
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let swtpm = Swtpm::manufacture();
    let tpm = Manual::stranger(&world, Tpm::spawn(swtpm.tcti()).unwrap(), EkChoice::Auto).await;
    let leaf = issuing.endorse(&tpm.ek().public, &Draft::endorsement().serial(LEAF));
    let request = EnrollRequest { ek_certificates: certificates([&leaf]), ..tpm.enroll_request() };

    let (clean_root, clean) = (root.crl(&[], -1, 30), issuing.crl(&[0x77], -1, 30));
    let none = "endorsement_revocation_unknown";
    watch.refuses("no list", none, async { refused(tpm.client.enroll(&request).await) }).await;
    let publish = |of_root: &[u8], of_issuing: &[u8]| {
        fs::write(world.roots().join("root.crl"), of_root).unwrap();
        fs::write(world.roots().join("issuing.crl"), of_issuing).unwrap();
        world.reread_roots();
    };
    for (what, code, of_root, of_issuing) in [
        ("leaf", "endorsement_revoked", &clean_root, issuing.crl(&[0x77, LEAF], -1, 30)),
        ("intermediate", "endorsement_revoked", &root.crl(&[ISSUING], -1, 30), clean.clone()),
        ("overdue list", "endorsement_crl_expired", &clean_root, issuing.crl(&[], -30, -1)),
        ("forged list", "endorsement_crl_signature", &clean_root, stranger.crl(&[], -1, 30)),
    ] {
        publish(of_root, &of_issuing);
        watch.refuses(what, code, async { refused(tpm.client.enroll(&request).await) }).await;
    }
    publish(&clean_root, &clean);
    let begun = tpm.client.enroll(&request).await.unwrap();
    let secret = tpm.open(&tpm.ak, &begun).await.unwrap();
    assert_eq!(tpm.activate(&begun, &secret).await.unwrap().node, tpm.node);

    // Where lists are honoured if there are any, a list that says no counts, even overdue.
    let lenient = builder().root(issuing.crl(&[LEAF], -30, -1)).start().await;
    let other = Bystander::new(&lenient).await;
    let attempt = async { refused(lenient.client().enroll(&request).await) };
    other.watch(&lenient).await.refuses("overdue list", "endorsement_revoked", attempt).await;
    other.is_well(&lenient).await;
    bystander.is_well(&world).await;
}

/// Attack 10.
#[tokio::test(flavor = "multi_thread")]
async fn genuine_tpm_that_nobody_expects_waits_and_gets_no_challenge() {
    let manufacturer = Manufacturer::new();
    let swtpm = Swtpm::manufacture_by(&manufacturer);
    let world = World::new(&[&manufacturer]).await;
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let stranger = Manual::stranger(&world, Tpm::spawn(swtpm.tcti()).unwrap(), EkChoice::Auto).await;

    let activated = stranger.enroll().await.unwrap();
    assert_eq!(activated.admission, Admission::Pending);
    assert!(activated.challenge.is_none());
    let challenge_of = async |node| stranger.client.challenge(&ChallengeRequest { node }).await;
    let attempt = async { refused(challenge_of(stranger.node).await) };
    watch.turns_away("a challenge of its own", "admission_pending", attempt).await;
    // With the bystander's challenge, its quote would have to be the bystander's, too.
    let borrowed = challenge_of(bystander.node()).await.unwrap();
    let quote = stranger.quote(&borrowed, &borrowed.selection).await;
    let attempt = async { refused(stranger.submit(&borrowed, quote.statement, quote.values).await) };
    watch.refuses("a challenge of another", "signature_invalid", attempt).await;

    // The list of another machine admits that one only.
    let other = NodeId::from_bytes([7; 32]);
    world.verifier.add_inventory(other, true, Labels::default(), &operator()).await.unwrap();
    assert_eq!(stranger.enroll().await.unwrap().admission, Admission::Pending);
    let record = world.verifier.store().node(stranger.node).await.unwrap().unwrap();
    assert_eq!((record.standing, record.labels), (Standing::Pending, Labels::default()));
    bystander.is_well(&world).await;
}
