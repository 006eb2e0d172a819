//! What the attester delivers, used by tools that know nothing of it: OpenSSL reads it, tpm2-tools load and use it.

use std::path::Path;
use std::process::Output;

use data_encoding::HEXUPPER;
use rootbound_attester::deliver::{DeliverConfig, Delivery};
use rootbound_attester::keep::{Credential, SavedKey};
use rootbound_attester::tpm::Tpm;
use rootbound_common::blob::Blob;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, policy_pcr};
use rootbound_common::wire::v1::CredentialPolicy;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::exchange::pcrs;
use rootbound_swtpm_tests::openssl::Openssl;

/// A TPM whose key was delivered, and a folder for tools.
struct Machine {
    swtpm: Swtpm,
    files: Openssl,
}

impl Machine {
    async fn with_delivered_key() -> Self {
        let swtpm = Swtpm::manufacture();
        let files = Openssl::new();
        let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
        let policy = CredentialPolicy { bank: HashAlgorithm::Sha256, pcrs: pcrs([0, 2, 4, 7]) };
        let values = tpm.read_pcrs(&policy.selection()).await.unwrap();
        let pcr_digest = values.digest(&policy.selection(), HashAlgorithm::Sha256).unwrap();
        let auth_policy = policy_pcr(HashAlgorithm::Sha256, &policy.selection(), &pcr_digest);
        let key = tpm.create_credential_key(&auth_policy).await.unwrap();
        let credential = Credential {
            node: NodeId::from_bytes([0; 32]),
            enrolled_at: Timestamp::from_millis(0),
            key: SavedKey::of(&key).unwrap(),
            policy,
            pcr_digest: Blob::new(pcr_digest.as_bytes().to_vec()).unwrap(),
            certificate_chain: String::new(),
            trust_bundle: String::new(),
            not_after: Timestamp::from_millis(0),
            renew_at: Timestamp::from_millis(0),
        };
        let delivery = Delivery::open(&DeliverConfig { directory: files.path("svid") }).unwrap();
        delivery.deliver(&credential).unwrap();
        Self { swtpm, files }
    }

    /// The OCTET STRINGs of the key file, as OpenSSL reads them: policy, public part, private part.
    fn octet_strings(&self) -> Vec<Vec<u8>> {
        let parsed = self.files.run("asn1parse -in svid/current/svid.key");
        assert!(parsed.contains("OBJECT            :2.23.133.10.1.3"), "{parsed}");
        assert!(parsed.contains("INTEGER           :40000001"), "{parsed}");
        let dumps = parsed.lines().filter_map(|line| line.split_once("[HEX DUMP]:"));
        dumps.map(|(_, hex)| HEXUPPER.decode(hex.trim().as_bytes()).unwrap()).collect()
    }

    fn path(&self, name: &str) -> String {
        self.files.path(name).to_str().unwrap().to_owned()
    }

    /// Runs a command line, split at spaces; words that begin with `@` are files of the folder.
    fn tool(&self, line: &str) -> Output {
        let words: Vec<_> = line
            .split(' ')
            .map(|word| match word.split_once('@') {
                Some((before, file)) => format!("{before}{}", self.path(file)),
                None => word.to_owned(),
            })
            .collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.swtpm.tool(words[0], &words[1..])
    }

    fn tool_ok(&self, line: &str) {
        let output = self.tool(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        // There is no resource manager: each tool leaves what it loaded.
        self.swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
    }

    /// Loads the key as the draft says: under the P-256 primary key of the owner hierarchy.
    fn load(&self) {
        let strings = self.octet_strings();
        let [_, public, private] = strings.as_slice() else { panic!("{} octet strings", strings.len()) };
        self.files.write("key.pub", public);
        self.files.write("key.priv", private);
        self.tool_ok(
            "tpm2_createprimary -Q -C o -g sha256 -G ecc256:aes128cfb -c @primary.ctx \
             -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt",
        );
        self.tool_ok("tpm2_load -Q -C @primary.ctx -u @key.pub -r @key.priv -c @key.ctx");
        self.tool_ok("tpm2_readpublic -Q -c @key.ctx -f pem -o @key.pem");
    }

    fn sign(&self) -> Output {
        self.files.write("message", "a message");
        self.tool_ok("tpm2_startauthsession -Q --policy-session -S @session.ctx");
        self.tool_ok("tpm2_policypcr -Q -S @session.ctx -l sha256:0,2,4,7");
        let signed = self.tool(
            "tpm2_sign -Q -c @key.ctx -g sha256 -f plain -o @signature -p session:@session.ctx @message",
        );
        self.swtpm.tool_ok("tpm2_flushcontext", &[self.path("session.ctx").as_str()]);
        self.swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
        signed
    }
}

#[tokio::test]
async fn delivered_key_is_loaded_and_used_by_other_tools() {
    let machine = Machine::with_delivered_key().await;
    machine.load();
    let signed = machine.sign();
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    let verified = machine.files.run("dgst -sha256 -verify key.pem -signature signature message");
    assert!(verified.contains("Verified OK"), "{verified}");
}

#[tokio::test]
async fn delivered_key_is_useless_once_a_pcr_has_moved() {
    let machine = Machine::with_delivered_key().await;
    machine.load();
    machine.swtpm.extend(7, b"something else booted");
    let refused = machine.sign();
    assert!(!refused.status.success());
    assert!(!Path::new(&machine.path("signature")).exists());
}

/// TPM2_PolicyPCR's command body (Part 3, 23.7): TPM2B_DIGEST, then TPML_PCR_SELECTION of sha256:0,2,4,7.
#[tokio::test]
async fn delivered_policy_is_the_body_of_the_policy_command() {
    let machine = Machine::with_delivered_key().await;
    let strings = machine.octet_strings();
    let policy = strings.first().unwrap();
    assert_eq!(policy[..2], [0, 32]);
    assert_eq!(policy[34..], [0, 0, 0, 1, 0, 0x0b, 3, 0b1001_0101, 0, 0]);
    machine.tool_ok("tpm2_pcrread -Q sha256:0,2,4,7 -o @values");
    let _ = machine.files.run("dgst -sha256 -binary -out digest values");
    assert_eq!(policy[2..34], std::fs::read(machine.path("digest")).unwrap());
}
