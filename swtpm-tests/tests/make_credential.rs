//! Credentials that the verifier makes in software, opened by a TPM through tpm2-tools; and the EK certificates of
//! that TPM, checked against its manufacturer's CA.

use std::fs;

use rootbound_common::clock::{Clock, SystemClock, Timestamp};
use rootbound_common::random::system;
use rootbound_common::tpm::{Attributes, Public};
use rootbound_swtpm_tests::{Manufacturer, Swtpm};
use rootbound_verifier::enrollment::{
    ActivationError, AttestationKey, ChainWaiver, EncryptedCredential, EndorsedKey, Endorsement,
    EndorsementError, EndorsementRoots, PendingActivation, RevocationPolicy, UnendorsedKey,
};

/// The EKs that a TPM by swtpm_setup holds: NV index of the certificate, and persistent handle where there is one.
const RSA: (&str, &str) = ("0x01c00002", "0x81010001");
const P384: (&str, &str) = ("0x01c00016", "0x81010016");
const P256_CERTIFICATE: &str = "0x01c0000a";

/// Later than the test, whatever its clock says.
const NO_DEADLINE: Timestamp = Timestamp::from_millis(i64::MAX);

/// TPMT_PUBLIC out of a file of tpm2-tools, which holds a TPM2B_PUBLIC.
fn public_area(tpm: &Swtpm, file: &str) -> Vec<u8> {
    let sized = fs::read(tpm.dir().join(file)).unwrap();
    Public::parse_sized(&sized).unwrap().as_bytes().to_vec()
}

/// An EK of a TPM: how tpm2-tools names it, and what it is.
struct Ek<'a> {
    context: &'a str,
    key: UnendorsedKey,
}

impl<'a> Ek<'a> {
    /// One that swtpm_setup made persistent.
    fn persistent(tpm: &Swtpm, handle: &'a str) -> Self {
        tpm.tool_ok("tpm2_readpublic", &["-c", handle, "-o", "ek.pub"]);
        Self { context: handle, key: UnendorsedKey::parse(&public_area(tpm, "ek.pub")).unwrap() }
    }

    /// One that tpm2-tools makes from its own template.
    fn created(tpm: &Swtpm, algorithm: &str) -> Self {
        tpm.tool_ok("tpm2_createek", &["-c", "ek.ctx", "-G", algorithm, "-u", "ek.pub"]);
        tpm.tool_ok("tpm2_flushcontext", &["-t"]);
        Self { context: "ek.ctx", key: UnendorsedKey::parse(&public_area(tpm, "ek.pub")).unwrap() }
    }

    fn listed(&self) -> EndorsedKey {
        self.key.endorse_by_waiver(ChainWaiver::of_inventory_entry(self.key.node_id())).unwrap()
    }

    fn user_with_auth(&self) -> bool {
        self.key.public().attributes().has(Attributes::USER_WITH_AUTH)
    }
}

/// An AK under this EK, loaded in `<name>.ctx`.
fn create_ak(tpm: &Swtpm, ek: &Ek<'_>, name: &str) -> AttestationKey {
    let (context, public) = (format!("{name}.ctx"), format!("{name}.pub"));
    let options =
        ["-C", ek.context, "-c", &context, "-u", &public, "-G", "ecc", "-g", "sha256", "-s", "ecdsa"];
    tpm.tool_ok("tpm2_createak", &options);
    tpm.tool_ok("tpm2_flushcontext", &["-t"]);
    AttestationKey::parse(&public_area(tpm, &public)).unwrap()
}

/// What TPM2_ActivateCredential makes of a credential: the secret, or why the TPM refuses.
fn activate(tpm: &Swtpm, ek: &Ek<'_>, ak: &str, credential: &EncryptedCredential) -> Result<Vec<u8>, String> {
    // The file format of tpm2-tools: magic, version 1, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
    let mut file = vec![0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
    for part in [&credential.credential_blob, &credential.encrypted_secret] {
        file.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        file.extend(part);
    }
    fs::write(tpm.dir().join("credential"), file).unwrap();
    // An EK of the low-range templates wants PolicySecret of the endorsement hierarchy; one of the high-range templates
    // has userWithAuth and an empty authValue.
    let arguments = ["-c", ak, "-C", ek.context, "-i", "credential", "-o", "secret"];
    let opened = if ek.user_with_auth() {
        tpm.tool("tpm2_activatecredential", &arguments)
    } else {
        tpm.tool_ok("tpm2_startauthsession", &["--policy-session", "-S", "session.ctx"]);
        tpm.tool_ok("tpm2_policysecret", &["-S", "session.ctx", "-c", "e"]);
        let arguments = [&arguments[..], &["-P", "session:session.ctx"]].concat();
        let opened = tpm.tool("tpm2_activatecredential", &arguments);
        tpm.tool_ok("tpm2_flushcontext", &["session.ctx"]);
        opened
    };
    tpm.tool_ok("tpm2_flushcontext", &["-t"]);
    if opened.status.success() {
        Ok(fs::read(tpm.dir().join("secret")).unwrap())
    } else {
        Err(String::from_utf8_lossy(&opened.stderr).into_owned())
    }
}

/// The whole of an activation by one EK: the right AK opens it, another AK of the same TPM does not.
fn activation_works_for_the_named_ak_only(tpm: &Swtpm, ek: &Ek<'_>) {
    let endorsed = ek.listed();
    let ak = create_ak(tpm, ek, "ak");
    let (pending, credential) =
        PendingActivation::begin(endorsed.clone(), ak.clone(), NO_DEADLINE, &mut system()).unwrap();
    let secret = activate(tpm, ek, "ak.ctx", &credential).expect("the TPM opens what is meant for it");
    let keys = pending.complete(&secret, SystemClock.now()).unwrap();
    assert_eq!((keys.ek(), keys.ak()), (&endorsed, &ak));

    let other = create_ak(tpm, ek, "other");
    assert_ne!(other.name(), ak.name());
    let (pending, credential) = PendingActivation::begin(endorsed, ak, NO_DEADLINE, &mut system()).unwrap();
    let refusal = activate(tpm, ek, "other.ctx", &credential).unwrap_err();
    assert!(refusal.contains("integrity check failed"), "{refusal}");
    assert_eq!(pending.complete(&secret, SystemClock.now()), Err(ActivationError::WrongSecret));
}

#[test]
fn eks_of_the_manufacturer_open_a_credential_for_the_named_ak_only() {
    let tpm = Swtpm::manufacture();
    for (_, handle) in [RSA, P384] {
        activation_works_for_the_named_ak_only(&tpm, &Ek::persistent(&tpm, handle));
    }
}

#[test]
fn eks_of_the_templates_of_tpm2_tools_open_a_credential_for_the_named_ak_only() {
    let tpm = Swtpm::manufacture();
    for algorithm in ["rsa", "ecc256", "ecc384"] {
        activation_works_for_the_named_ak_only(&tpm, &Ek::created(&tpm, algorithm));
    }
}

/// A credential for the EK of one TPM is worth nothing on another, were it for the very AK that is there.
#[test]
fn credential_for_another_tpm_is_not_opened() {
    let (mine, theirs) = (Swtpm::manufacture(), Swtpm::manufacture());
    for (_, handle) in [RSA, P384] {
        let my_ek = Ek::persistent(&mine, handle);
        let ak = create_ak(&mine, &my_ek, "ak");
        let ek = Ek::persistent(&theirs, handle).listed();
        let (_, credential) = PendingActivation::begin(ek, ak, NO_DEADLINE, &mut system()).unwrap();
        // For the ECC key the integrity check fails; for the RSA key there is no seed, which libtpms calls a failure.
        let refusal = activate(&mine, &my_ek, "ak.ctx", &credential).unwrap_err();
        assert!(refusal.contains("Esys_ActivateCredential"), "{refusal}");
    }
}

/// The manufacturer's CA as an operator keeps it: a folder with a root and an issuer.
fn roots(manufacturer: &Manufacturer) -> EndorsementRoots {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("root.pem"), manufacturer.root_certificate()).unwrap();
    fs::write(folder.path().join("issuer.pem"), manufacturer.issuer_certificate()).unwrap();
    let roots = EndorsementRoots::load(folder.path()).unwrap();
    assert_eq!((roots.anchor_count(), roots.intermediate_count()), (1, 1));
    roots
}

#[test]
fn ek_certificates_in_nv_lead_to_the_manufacturer_and_to_no_other() {
    let tpm = Swtpm::builder().p256_ek().start();
    let roots = roots(tpm.manufacturer());
    let stranger = Swtpm::manufacture();
    let foreign_roots = self::roots(stranger.manufacturer());
    for (index, ek) in [
        (RSA.0, Ek::persistent(&tpm, RSA.1)),
        (P384.0, Ek::persistent(&tpm, P384.1)),
        (P256_CERTIFICATE, Ek::created(&tpm, "ecc256")),
    ] {
        let certificate = tpm.tool_ok("tpm2_nvread", &[index, "-C", "o"]);
        let judge =
            |roots, policy| ek.key.endorse_by_chain(&[&certificate], roots, policy, SystemClock.now());
        let endorsed = judge(&roots, RevocationPolicy::IfAvailable).unwrap();
        let Endorsement::VendorChain { certificate: described, .. } = endorsed.endorsement() else {
            panic!("{:?}", endorsed.endorsement())
        };
        assert_eq!(described.manufacturer(), Some("id:00001014"));
        assert_eq!(described.model(), Some("swtpm"));
        // The same names, another key: every swtpm CA is called alike.
        assert!(matches!(
            judge(&foreign_roots, RevocationPolicy::IfAvailable),
            Err(EndorsementError::BadSignature { .. })
        ));
        assert!(matches!(
            judge(&roots, RevocationPolicy::Require),
            Err(EndorsementError::RevocationUnknown { .. })
        ));
    }
}
