//! Makes TPMs: swtpm_setup with a local CA, in folders of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rootbound_common::tpm::HashAlgorithm;
use tempfile::TempDir;

use super::Swtpm;

/// A maker of TPMs: the CA (a root and an issuer below it) that signs their EK certificates. Clones share the CA.
#[derive(Clone)]
pub struct Manufacturer {
    dir: Arc<TempDir>,
}

impl Default for Manufacturer {
    fn default() -> Self {
        Self::new()
    }
}

impl Manufacturer {
    /// A manufacturer whose CA comes into being with its first TPM.
    ///
    /// # Panics
    /// Where its files cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tpm-manufacturer-").tempdir().expect("a folder for a CA");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let write = |name: &str, text: String| fs::write(dir.path().join(name), text).expect("a CA's file");
        write(
            "localca.conf",
            format!(
                "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
                dir.path().display(),
                path("signkey.pem"),
                path("issuercert.pem"),
                path("certserial")
            ),
        );
        write("localca.options", String::new());
        write(
            "setup.conf",
            format!(
                "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
                path("localca.conf"),
                path("localca.options")
            ),
        );
        Self { dir: Arc::new(dir) }
    }

    /// The root certificate, PEM; there is none before the first TPM.
    ///
    /// # Panics
    /// Before the first TPM.
    #[must_use]
    pub fn root_certificate(&self) -> String {
        self.read("swtpm-localca-rootca-cert.pem")
    }

    /// The issuer's certificate, PEM, signed by the root.
    ///
    /// # Panics
    /// Before the first TPM.
    #[must_use]
    pub fn issuer_certificate(&self) -> String {
        self.read("issuercert.pem")
    }

    /// The issuer's private key, PEM: for tests that issue EK certificates of their own.
    ///
    /// # Panics
    /// Before the first TPM.
    #[must_use]
    pub fn issuer_key(&self) -> String {
        self.read("signkey.pem")
    }

    /// Makes the state of a new TPM with RSA-2048 and P-384 EK certificates, in a folder that is to be created.
    pub(super) fn manufacture(&self, state: &Path, banks: &[HashAlgorithm]) {
        fs::create_dir(state).expect("a folder for the state");
        let banks: Vec<_> = banks.iter().map(|bank| bank.name()).collect();
        let output = Command::new("swtpm_setup")
            .args(["--tpm2", "--tpmstate", &state.display().to_string()])
            .args(["--config", &self.path("setup.conf").display().to_string()])
            .args(["--create-ek-cert", "--lock-nvram", "--overwrite"])
            .args(["--vmid", &vmid(), "--pcr-banks", &banks.join(",")])
            .stdin(Stdio::null())
            .output()
            .expect("swtpm_setup is installed (apt-get install swtpm-tools)");
        assert!(
            output.status.success(),
            "swtpm_setup: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Makes a P-256 EK, has the CA certify it and writes the certificate to NV 0x01c0000a.
    pub(super) fn add_p256_ek(&self, tpm: &Swtpm) {
        tpm.tool_ok("tpm2_createek", &["-c", "ek-p256.ctx", "-G", "ecc256", "-u", "ek-p256.pub"]);
        tpm.tool_ok("tpm2_flushcontext", &["-t"]);
        // TPM2B_PUBLIC; it ends with the two coordinates, each a TPM2B of 32 bytes.
        let public = fs::read(tpm.dir().join("ek-p256.pub")).expect("tpm2_createek wrote the public area");
        let (rest, y) = public.split_at(public.len() - 32);
        let (_, x) = rest[..rest.len() - 2].split_at(rest.len() - 2 - 32);
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let output = Command::new("swtpm_localca")
            .args(["--type", "ek", "--ek", &format!("x={},y={},id=secp256r1", hex(x), hex(y))])
            .args(["--dir", &tpm.dir().display().to_string(), "--vmid", &vmid()])
            .args(["--tpm-spec-family", "2.0", "--tpm-spec-level", "0", "--tpm-spec-revision", "164"])
            .args([
                "--tpm-manufacturer",
                "id:00001014",
                "--tpm-model",
                "swtpm",
                "--tpm-version",
                "id:20191023",
            ])
            .args(["--configfile", &self.path("localca.conf").display().to_string()])
            .args(["--optsfile", &self.path("localca.options").display().to_string(), "--tpm2"])
            .stdin(Stdio::null())
            .output()
            .expect("swtpm_localca is installed");
        assert!(output.status.success(), "swtpm_localca: {}", String::from_utf8_lossy(&output.stderr));
        let size = fs::metadata(tpm.dir().join("ek.cert")).expect("the EK certificate").len().to_string();
        let attributes = "ppwrite|writedefine|ppread|ownerread|authread|no_da|platformcreate";
        tpm.tool_ok("tpm2_nvdefine", &["0x01c0000a", "-C", "p", "-s", &size, "-a", attributes]);
        tpm.tool_ok("tpm2_nvwrite", &["0x01c0000a", "-C", "p", "-i", "ek.cert"]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name} of the CA: {error}"))
    }
}

/// The subject of an EK certificate, different for each TPM.
fn vmid() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("machine-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
