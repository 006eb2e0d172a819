//! The issuing CA: made by us or by an operator, and its files.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rootbound_attester::client::{ClientIdentity, RequestError};
use rootbound_attester::keep::Credential;
use rootbound_common::clock::{Clock, SystemClock, Timestamp};
use rootbound_common::id::TrustDomain;
use rootbound_common::random;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::exchange::Exchange;
use rootbound_swtpm_tests::openssl::Openssl;
use rootbound_swtpm_tests::world::{TRUST_DOMAIN, World};
use rootbound_verifier::credential::authority::{Authority, AuthorityError};
use rootbound_verifier::credential::files::{self, FileError};
use rootbound_verifier::credential::presented::{PresentedError, PresentedSvid};
use rootbound_verifier::credential::serial::SerialNumber;

/// The extension that says a node's posture epoch.
const EPOCH: &str = "1.2.840.113556.1.8000.2554.30040.762.2520.18532.41048.3449678.11088830.1";
const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn trust_domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

/// An operator with `openssl` and a root CA.
struct Operator {
    openssl: Openssl,
}

impl Operator {
    fn new() -> Self {
        let openssl = Openssl::new();
        openssl.write("req.cnf", "[req]\ndistinguished_name=dn\n[dn]\n");
        let operator = Self { openssl };
        operator.key("root", "P-256");
        operator.root("root", "root", CA);
        operator
    }

    fn key(&self, name: &str, curve: &str) {
        let _ = self
            .openssl
            .run(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out {name}.key"));
    }

    /// A self-signed certificate `file.pem` for `key.key`.
    fn root(&self, file: &str, key: &str, extensions: &str) {
        self.request(key, "Operator Root");
        self.openssl.write("ext.cnf", extensions);
        let _ = self.openssl.run(&format!(
            "x509 -req -in {key}.csr -signkey {key}.key -days 30 -extfile ext.cnf -out {file}.pem"
        ));
    }

    /// A certificate `file.pem` for a new key `file.key`, signed by `issuer`.
    fn below(&self, issuer: &str, file: &str, extensions: &str) {
        self.key(file, "P-256");
        self.request(file, file);
        self.openssl.write("ext.cnf", extensions);
        let _ = self.openssl.run(&format!(
            "x509 -req -in {file}.csr -CA {issuer}.pem -CAkey {issuer}.key -set_serial 0x4000000000000000000000000000{:04x} \
             -days 10 -extfile ext.cnf -out {file}.pem",
            file.len()
        ));
    }

    fn request(&self, key: &str, name: &str) {
        let name = name.replace(' ', "_");
        let _ = self
            .openssl
            .run(&format!("req -new -config req.cnf -subj /CN={name} -key {key}.key -out {key}.csr"));
    }

    fn load(&self, certificates: &[&str], key: &str, now: Timestamp) -> Result<Authority, AuthorityError> {
        let chain: String =
            certificates.iter().map(|name| self.openssl.read(&format!("{name}.pem"))).collect();
        Authority::load(&chain, &self.openssl.read(&format!("{key}.key")), trust_domain(), now)
    }
}

/// All of the road below an operator's intermediate. Another CA under the same root is trusted by relying parties that trust
/// the root, but not by the verifier: it makes certificates of the same names and serial numbers at will.
#[tokio::test(flavor = "multi_thread")]
async fn node_below_an_operators_intermediate_is_known_by_that_and_not_by_another_of_the_same_root() {
    let operator = Operator::new();
    operator.below("root", "issuing", CA);
    operator.below("root", "other", CA);
    let (openssl, swtpm) = (&operator.openssl, Swtpm::manufacture());
    let chain = openssl.read("issuing.pem") + &openssl.read("root.pem");
    let world = World::builder().manufacturers(&[swtpm.manufacturer()]);
    let world = world.authority(chain, openssl.read("issuing.key")).start().await;
    let mut machine = world.affirming(swtpm).await;
    machine.is_well(&world).await;

    let credential = machine.attester.credential().expect("a credential").clone();
    openssl.write("svid.pem", &credential.certificate_chain);
    assert_eq!(credential.certificate_chain.matches("BEGIN CERTIFICATE").count(), 2, "leaf and intermediate");
    assert_eq!(credential.trust_bundle.matches("BEGIN CERTIFICATE").count(), 1, "the root");
    let verified = openssl.run("verify -CAfile root.pem -untrusted svid.pem svid.pem");
    assert!(verified.contains("svid.pem: OK"), "{verified}");

    openssl.write("svid.pub", openssl.run("x509 -in svid.pem -noout -pubkey"));
    let serial = openssl.run("x509 -in svid.pem -noout -serial");
    let serial = serial.trim().strip_prefix("serial=").unwrap();
    let node = machine.node().await;
    openssl.write(
        "ext.cnf",
        format!(
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=URI:spiffe://{TRUST_DOMAIN}/node/{node}\n"
        ),
    );
    let _ = openssl.run(&format!(
        "x509 -req -in other.csr -force_pubkey svid.pub -CA other.pem -CAkey other.key -set_serial 0x{serial} \
         -days 1 -extfile ext.cnf -out forged.pem"
    ));
    let verified = openssl.run("verify -CAfile root.pem -untrusted other.pem forged.pem");
    assert!(verified.contains("forged.pem: OK"), "{verified}");
    let certificate_chain = openssl.read("forged.pem") + &openssl.read("other.pem");
    let forged = ClientIdentity::new(machine.tpm.clone(), &Credential { certificate_chain, ..credential });
    let refused = world.client().whoami(forged.unwrap()).await;
    assert!(
        matches!(refused, Err(RequestError::Handshake { .. } | RequestError::Http(_))),
        "TLS ends it: {refused:?}"
    );
    machine.is_well(&world).await;
}

#[test]
fn operators_intermediate_issues_below_the_operators_root() {
    let operator = Operator::new();
    operator.below("root", "policy", CA);
    operator.below("policy", "issuing", &format!("{CA}subjectAltName=URI:spiffe://example.org\n"));
    let now = SystemClock.now();
    let authority = operator.load(&["issuing", "policy", "root"], "issuing", now).unwrap();
    assert_eq!(authority.intermediates().len(), 2);

    let serial = SerialNumber::generate(&mut random::system());
    let grant = Exchange::new().grant(now, DAY / 24);
    let issued = authority.prepare(grant, serial, 1, now).unwrap().issue().unwrap();
    let openssl = &operator.openssl;
    openssl.write("chain", issued.chain_pem());
    openssl.write("bundle", authority.trust_bundle_pem());
    assert_eq!(issued.chain().len(), 3);
    let verified =
        openssl.run("verify -x509_strict -purpose sslclient -CAfile bundle -untrusted chain chain");
    assert!(verified.contains("chain: OK"), "{verified}");
    assert_eq!(openssl.run("x509 -in bundle -noout -subject").trim(), "subject=CN = Operator_Root");
}

#[test]
fn keys_are_read_as_openssl_writes_them() {
    let operator = Operator::new();
    let now = SystemClock.now();
    let openssl = &operator.openssl;
    assert!(operator.load(&["root"], "root", now).is_ok(), "PKCS#8");
    let _ = openssl.run("ec -in root.key -out sec1.key");
    assert!(operator.load(&["root"], "sec1", now).is_ok(), "SEC 1");
    let parameters = openssl.run("ecparam -name prime256v1");
    openssl.write("parameters.key", parameters + &openssl.read("sec1.key"));
    assert!(operator.load(&["root"], "parameters", now).is_ok(), "SEC 1 after its parameters");
    let text = openssl.run("x509 -in root.pem -text");
    openssl.write("text.pem", text);
    assert!(operator.load(&["text"], "root", now).is_ok(), "a certificate with text before it");
}

#[test]
fn each_broken_chain_or_key_has_its_own_refusal() {
    let operator = Operator::new();
    let openssl = &operator.openssl;
    let below = |issuer: &str, file: &str, extensions: &str| operator.below(issuer, file, extensions);
    below("root", "good", CA);
    below("root", "leaf", "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,keyCertSign\n");
    below("root", "plain", "keyUsage=critical,digitalSignature\n");
    below("root", "crl", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,cRLSign\n");
    below("root", "elsewhere", &format!("{CA}subjectAltName=URI:spiffe://example.com\n"));
    below("good", "third", CA);
    below("leaf", "under-leaf", CA);
    operator.key("p384", "P-384");
    operator.key("impostor", "P-256");
    operator.root("impostor", "impostor", CA);
    operator.root(
        "short",
        "root",
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n",
    );
    openssl.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    openssl.write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    openssl.write("nothing.pem", "no certificate here\n");
    openssl.write("garbage.key", "no key here\n");
    let _ = openssl.run("pkcs8 -topk8 -in root.key -passout pass:secret -out encrypted.key");

    let now = SystemClock.now();
    for (certificates, key, expected) in [
        (&["garbage", "root"][..], "root", AuthorityError::Certificate { position: 1 }),
        (&["good", "cut"], "good", AuthorityError::Certificate { position: 2 }),
        (&["nothing"], "root", AuthorityError::CertificateCount { found: 0 }),
        (&["root"; 6], "root", AuthorityError::CertificateCount { found: 6 }),
        (&["root"], "garbage", AuthorityError::Key),
        (&["root"], "p384", AuthorityError::Key),
        (&["root"], "encrypted", AuthorityError::Key),
        (&["good", "root"], "root", AuthorityError::OtherKey),
        (&["root", "good"], "good", AuthorityError::OtherKey),
        (&["leaf", "root"], "leaf", AuthorityError::NotACa { position: 1 }),
        (&["plain", "root"], "plain", AuthorityError::NotACa { position: 1 }),
        (&["under-leaf", "leaf", "root"], "under-leaf", AuthorityError::NotACa { position: 2 }),
        (&["crl", "root"], "crl", AuthorityError::MayNotSign { position: 1 }),
        (&["good", "short"], "good", AuthorityError::PathLength { position: 2, allowed: 0, below: 1 }),
        (&["good"], "good", AuthorityError::NoRoot),
        (&["elsewhere", "root"], "elsewhere", AuthorityError::OtherTrustDomain { expected: trust_domain() }),
    ] {
        assert_eq!(operator.load(certificates, key, now).unwrap_err(), expected, "{certificates:?} {key}");
    }
    for (certificates, key) in [
        // The right name, another root's key.
        (&["good", "impostor"][..], "good"),
        // The chain leaves one out.
        (&["third", "root"], "third"),
    ] {
        let refused = operator.load(certificates, key, now).unwrap_err();
        assert!(matches!(refused, AuthorityError::Chain(_)), "{certificates:?}: {refused}");
    }
    assert!(operator.load(&["third", "good", "root"], "third", now).is_ok());
}

#[test]
fn chains_that_are_out_of_date_are_refused() {
    let operator = Operator::new();
    operator.below("root", "good", CA);
    let now = SystemClock.now();
    let load = |now| operator.load(&["good", "root"], "good", now).unwrap_err();
    assert!(matches!(load(now.minus(DAY)), AuthorityError::NotYetValid { position: 1, .. }));
    // The intermediate lives for 10 days, the root for 30.
    assert!(matches!(load(now.plus(DAY * 11)), AuthorityError::Expired { position: 1, .. }));
    let authority = operator.load(&["good", "root"], "good", now).unwrap();
    assert!(authority.not_after() <= now.plus(DAY * 10));
    let root = operator.load(&["root"], "root", now.plus(DAY * 31)).unwrap_err();
    assert!(matches!(root, AuthorityError::Expired { position: 1, .. }));
}

#[test]
fn generated_root_loads_again_and_does_not_show_its_key() {
    let now = SystemClock.now();
    let authority = Authority::generate(trust_domain(), now, DAY, &mut random::system()).unwrap();
    let key = authority.private_key_pem().unwrap();
    let again = Authority::load(&authority.chain_pem(), &key, trust_domain(), now).unwrap();
    assert_eq!(again.chain(), authority.chain());
    let secret: Vec<_> = key.lines().filter(|line| !line.starts_with('-')).collect();
    let shown = format!("{authority:?}");
    assert!(shown.contains("example.org") && !secret.iter().any(|line| shown.contains(line)), "{shown}");
    let other = Authority::load(&authority.chain_pem(), &key, "example.com".parse().unwrap(), now);
    assert_eq!(
        other.unwrap_err(),
        AuthorityError::OtherTrustDomain { expected: "example.com".parse().unwrap() }
    );
}

#[test]
fn root_beyond_the_year_9999_is_refused() {
    let made = Authority::generate(trust_domain(), SystemClock.now(), Duration::MAX, &mut random::system());
    assert_eq!(made.unwrap_err(), AuthorityError::Encoding);
}

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn with_authority() -> Self {
        let folder = Self { folder: tempfile::tempdir().unwrap() };
        files::store(&fresh(), &folder.certificate(), &folder.key()).unwrap();
        folder
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("ca.key")
    }

    fn load(&self) -> Result<Authority, FileError> {
        files::load(&self.certificate(), &self.key(), trust_domain(), SystemClock.now())
    }
}

fn fresh() -> Authority {
    Authority::generate(trust_domain(), SystemClock.now(), DAY, &mut random::system()).unwrap()
}

fn mode(path: &std::path::Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn stored_authority_loads_and_its_key_is_private() {
    let folder = Folder::with_authority();
    assert!(folder.load().is_ok());
    assert_eq!((mode(&folder.certificate()), mode(&folder.key())), (0o644, 0o600));
    let left: Vec<_> = std::fs::read_dir(folder.folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");
}

#[test]
fn key_is_never_overwritten_but_a_lone_certificate_is() {
    let folder = Folder::with_authority();
    let before = std::fs::read(folder.key()).unwrap();
    let refused = files::store(&fresh(), &folder.certificate(), &folder.key()).unwrap_err();
    assert!(matches!(refused, FileError::KeyExists { .. }), "{refused}");
    assert_eq!(std::fs::read(folder.key()).unwrap(), before);
    assert!(folder.load().is_ok(), "nor is its certificate");

    // What is left of a `store` that died before its last step.
    std::fs::remove_file(folder.key()).unwrap();
    files::store(&fresh(), &folder.certificate(), &folder.key()).unwrap();
    assert!(folder.load().is_ok());
}

#[test]
fn key_that_others_may_touch_is_refused() {
    let folder = Folder::with_authority();
    for bad in [0o640, 0o604, 0o660, 0o602, 0o610] {
        std::fs::set_permissions(folder.key(), Permissions::from_mode(bad)).unwrap();
        let refused = folder.load().unwrap_err();
        assert!(matches!(refused, FileError::KeyMode { mode, .. } if mode == bad), "{refused}");
    }
    std::fs::set_permissions(folder.key(), Permissions::from_mode(0o400)).unwrap();
    assert!(folder.load().is_ok());
    // Only root can give a file away; whoever runs this otherwise cannot make such a file.
    if std::os::unix::fs::chown(folder.key(), Some(65_534), None).is_ok() {
        let refused = folder.load().unwrap_err();
        assert!(matches!(refused, FileError::KeyOwner { owner: 65_534, .. }), "{refused}");
    }
}

#[test]
fn files_that_are_none_or_too_large_or_wrong_are_refused() {
    let folder = Folder::with_authority();
    std::fs::write(folder.certificate(), vec![b'#'; 64 * 1024 + 1]).unwrap();
    assert!(matches!(folder.load().unwrap_err(), FileError::TooLarge { .. }));
    std::fs::write(folder.certificate(), b"").unwrap();
    let refused = folder.load().unwrap_err();
    assert!(
        matches!(refused, FileError::Authority(AuthorityError::CertificateCount { found: 0 })),
        "{refused}"
    );
    std::fs::remove_file(folder.certificate()).unwrap();
    assert!(matches!(folder.load().unwrap_err(), FileError::Io { .. }));
    std::fs::create_dir(folder.certificate()).unwrap();
    assert!(matches!(folder.load().unwrap_err(), FileError::NotAFile { .. }));
    std::fs::remove_dir(folder.certificate()).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, folder.certificate(), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(matches!(folder.load().unwrap_err(), FileError::NotAFile { .. }), "a FIFO does not block");
}

#[test]
fn certificates_that_are_no_svid_of_ours_are_told_apart() {
    let operator = Operator::new();
    let leaf = "basicConstraints=critical,CA:FALSE\n";
    let usage = "keyUsage=critical,digitalSignature\n";
    let good = "subjectAltName=URI:spiffe://example.org/node/x,DNS:example.org\n";
    let parse = |extensions: &str, file: &str| {
        operator.below("root", file, extensions);
        let _ = operator.openssl.run(&format!("x509 -in {file}.pem -outform DER -out {file}.der"));
        let der = std::fs::read(operator.openssl.path(&format!("{file}.der"))).unwrap();
        PresentedSvid::parse(&der, &trust_domain())
    };
    let parsed = parse(&format!("{leaf}{usage}{good}"), "good").unwrap();
    assert_eq!(parsed.spiffe_id.as_str(), "spiffe://example.org/node/x");
    assert_eq!(parsed.epoch, None);
    let epoch = |der: &str| format!("{leaf}{usage}{good}{EPOCH}={der}\n");
    for (der, expected) in [("DER:020101", Some(1)), ("DER:02020100", Some(256))] {
        let parsed = parse(&epoch(der), "epoch");
        assert_eq!(parsed.map(|svid| svid.epoch).ok(), expected.map(Some), "{der}");
    }
    let san = |uris: &str| format!("{leaf}{usage}subjectAltName={uris}\n");
    for (extensions, expected) in [
        (format!("{CA}{good}"), PresentedError::Authority),
        (format!("{leaf}keyUsage=digitalSignature,cRLSign\n{good}"), PresentedError::Authority),
        (format!("{leaf}{good}"), PresentedError::KeyUsage),
        (format!("{leaf}keyUsage=keyAgreement\n{good}"), PresentedError::KeyUsage),
        (format!("{leaf}{usage}"), PresentedError::UriCount { found: 0 }),
        (san("DNS:example.org"), PresentedError::UriCount { found: 0 }),
        (san("URI:spiffe://example.org/a,URI:spiffe://example.org/b"), PresentedError::UriCount { found: 2 }),
        (san("URI:https://example.org/a"), PresentedError::SpiffeId),
        (san("URI:spiffe://example.org"), PresentedError::SpiffeId),
        (san("URI:spiffe://example.org/../a"), PresentedError::SpiffeId),
        (san("URI:spiffe://example.com/a"), PresentedError::TrustDomain),
        (san("URI:spiffe://example.org.evil/a"), PresentedError::TrustDomain),
        (epoch("DER:020100"), PresentedError::Epoch),
        (epoch("DER:0201FF"), PresentedError::Epoch),
        (epoch("DER:02020001"), PresentedError::Epoch),
        (epoch("DER:0209010000000000000000"), PresentedError::Epoch),
        (epoch("DER:040101"), PresentedError::Epoch),
        (epoch("critical,DER:020101"), PresentedError::Epoch),
    ] {
        assert_eq!(parse(&extensions, "bad").unwrap_err(), expected, "{extensions}");
        assert!(expected.code().starts_with("svid_"));
    }
    let _ = operator.openssl.run("x509 -in good.pem -outform DER -out good.der");
    let good = std::fs::read(operator.openssl.path("good.der")).unwrap();
    for (der, expected) in [
        (vec![], PresentedError::Malformed),
        ([&good[..], &[0]].concat(), PresentedError::Malformed),
        (vec![0; 8193], PresentedError::TooLong),
    ] {
        assert_eq!(PresentedSvid::parse(&der, &trust_domain()), Err(expected));
    }
    // The same certificate with a serial number that is shorter than ours.
    let mut other = good;
    let serial = other.windows(4).position(|window| window == b"\x02\x10\x40\x00").unwrap();
    other[serial + 2] = 0x01;
    assert_eq!(PresentedSvid::parse(&other, &trust_domain()), Err(PresentedError::Serial));
}
