//! One software TPM per test: manufactured with an EK certificate, booted with measurements, killed on drop.
//!
//! ```no_run
//! use rootbound_swtpm_tests::Swtpm;
//!
//! let mut tpm = Swtpm::manufacture();
//! let config = tpm.tcti(); // for the attester
//! tpm.extend(7, b"a foreign boot loader"); // behind the attester's back
//! tpm.reboot(); // PCRs as before, resetCount one higher
//! tpm.power_cut(); // the same without an orderly shutdown
//! ```
//!
//! swtpm answers one connection at a time, and libtss2's TCTI opens one per command: a test may send commands of its
//! own ([`Swtpm::command`], [`Swtpm::tool`]) while the attester works on the same TPM.

mod interposer;
mod manufacturer;
mod ports;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rootbound_attester::tpm::{Host, NetworkTpm, TctiConfig};
use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::HashAlgorithm;
use tempfile::TempDir;

pub use interposer::{Action, Interposer};
pub use manufacturer::Manufacturer;
pub use ports::PortPair;
pub use wire::Answer;

/// PCRs that a simulated firmware extends: 0 to 9 as firmware, boot loader and kernel do, 14 as shim does.
pub const MEASURED_PCRS: [u8; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14];

/// TPM2_Startup and TPM2_Shutdown types (Part 2, table 19).
const SU_CLEAR: u16 = 0;
const SU_STATE: u16 = 1;

/// How long swtpm may take to answer its first command; it takes some tens of milliseconds on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A software TPM with its process, its state and its maker.
pub struct Swtpm {
    // Dropped in this order: the process ends before its ports and its folder are given up.
    process: Option<Child>,
    ports: PortPair,
    dir: TempDir,
    manufacturer: Manufacturer,
    banks: Vec<HashAlgorithm>,
    /// Those that boots and kernels extend.
    measured_banks: Vec<HashAlgorithm>,
    boot_seed: AtomicU64,
}

/// How a [`Swtpm`] is to be made.
pub struct SwtpmBuilder {
    manufacturer: Option<Manufacturer>,
    banks: Vec<HashAlgorithm>,
    idle_banks: Vec<HashAlgorithm>,
    boot_seed: u64,
    p256_ek: bool,
}

/// The state of a TPM at one moment, as a backup or a cloned virtual machine has it.
pub struct Snapshot {
    dir: TempDir,
}

impl SwtpmBuilder {
    /// Signs the EK certificates with the CA of `manufacturer`, instead of a CA of its own.
    #[must_use]
    pub fn by(mut self, manufacturer: &Manufacturer) -> Self {
        self.manufacturer = Some(manufacturer.clone());
        self
    }

    /// Activates these PCR banks; SHA-256 alone without this.
    #[must_use]
    pub fn banks(mut self, banks: &[HashAlgorithm]) -> Self {
        self.banks = banks.to_vec();
        self
    }

    /// Leaves these active banks idle: its firmware and kernel measure into the others only (CVE-2021-42299).
    #[must_use]
    pub fn idle(mut self, banks: &[HashAlgorithm]) -> Self {
        self.idle_banks = banks.to_vec();
        self
    }

    /// Boots software that differs by `seed`: TPMs with the same seed have the same PCR values. 0 without this.
    #[must_use]
    pub fn boot_seed(mut self, seed: u64) -> Self {
        self.boot_seed = seed;
        self
    }

    /// Adds a P-256 EK certificate at NV 0x01c0000a. swtpm_setup makes RSA-2048 and P-384 only. Takes half a second.
    #[must_use]
    pub fn p256_ek(mut self) -> Self {
        self.p256_ek = true;
        self
    }

    /// Manufactures the TPM, powers it on and boots.
    ///
    /// # Panics
    /// Where swtpm or swtpm_setup is missing or fails.
    #[must_use]
    pub fn start(self) -> Swtpm {
        let dir = tempfile::Builder::new().prefix("swtpm-").tempdir().expect("a folder for the TPM");
        let manufacturer = self.manufacturer.unwrap_or_default();
        manufacturer.manufacture(&dir.path().join("state"), &self.banks);
        let mut tpm = Swtpm {
            process: None,
            ports: PortPair::reserve(),
            dir,
            manufacturer,
            measured_banks: self
                .banks
                .iter()
                .copied()
                .filter(|bank| !self.idle_banks.contains(bank))
                .collect(),
            banks: self.banks,
            boot_seed: AtomicU64::new(self.boot_seed),
        };
        tpm.power_on();
        if self.p256_ek {
            tpm.manufacturer.add_p256_ek(&tpm);
        }
        tpm
    }
}

impl Swtpm {
    /// A TPM by a manufacturer of its own, powered on and booted.
    #[must_use]
    pub fn manufacture() -> Self {
        Self::builder().start()
    }

    /// A TPM by `manufacturer`, powered on and booted: several TPMs can share one CA.
    #[must_use]
    pub fn manufacture_by(manufacturer: &Manufacturer) -> Self {
        Self::builder().by(manufacturer).start()
    }

    /// A TPM with options.
    #[must_use]
    pub fn builder() -> SwtpmBuilder {
        SwtpmBuilder {
            manufacturer: None,
            banks: vec![HashAlgorithm::Sha256],
            idle_banks: Vec::new(),
            boot_seed: 0,
            p256_ek: false,
        }
    }

    /// What the attester's configuration says about this TPM: owned, so that leftovers are swept.
    #[must_use]
    pub fn tcti(&self) -> TctiConfig {
        owned_tcti(&self.ports)
    }

    /// The same for libtss2, tpm2-tools and tss-esapi.
    #[must_use]
    pub fn tcti_string(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.ports.data())
    }

    /// The port for commands; the control port is the next.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.data()
    }

    /// The folder of this TPM: state, log, and room for a test's files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process id, where the TPM is powered.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Who made this TPM and holds the CA of its EK certificates.
    #[must_use]
    pub fn manufacturer(&self) -> &Manufacturer {
        &self.manufacturer
    }

    /// The CA behind the EK certificates, PEM: root, then issuer.
    #[must_use]
    pub fn ca_certificates(&self) -> (String, String) {
        (self.manufacturer.root_certificate(), self.manufacturer.issuer_certificate())
    }

    /// The active PCR banks.
    #[must_use]
    pub fn banks(&self) -> &[HashAlgorithm] {
        &self.banks
    }

    /// Extends a PCR in each active bank that is not left idle with the digest of `data`, as firmware or a kernel does.
    ///
    /// # Panics
    /// Where the TPM is off or refuses.
    pub fn extend(&self, pcr: u8, data: &[u8]) {
        let digests: Vec<_> = self.measured_banks.iter().map(|bank| hash(*bank, &[data])).collect();
        self.extend_digests(pcr, &digests);
    }

    /// Extends a PCR with these digests, each in the bank of its algorithm, as a log records it.
    ///
    /// # Panics
    /// Where the TPM is off or refuses.
    pub fn extend_digests(&self, pcr: u8, digests: &[Digest]) {
        self.command(&wire::pcr_extend(pcr, digests)).expect_success("TPM2_PCR_Extend");
    }

    /// Measures a boot: extends each of [`MEASURED_PCRS`] in each active bank that is not left idle. The same seed gives
    /// the same values.
    pub fn measured_boot(&self, seed: u64) {
        self.boot_seed.store(seed, Ordering::Relaxed);
        for pcr in MEASURED_PCRS {
            self.extend(pcr, measured(seed, pcr).as_bytes());
        }
    }

    /// Orderly reboot into the same software.
    pub fn reboot(&mut self) {
        self.reboot_into(self.boot_seed.load(Ordering::Relaxed));
    }

    /// Orderly reboot into other software.
    pub fn reboot_into(&mut self, seed: u64) {
        self.command(&wire::shutdown(SU_CLEAR)).expect_success("TPM2_Shutdown(CLEAR)");
        wire::initialize(self.ports.control());
        self.command(&wire::startup(SU_CLEAR)).expect_success("TPM2_Startup(CLEAR)");
        self.measured_boot(seed);
    }

    /// The TPM alone is reset, by its pin or over a bad resume, while the platform runs on: PCRs are at their start
    /// values, resetCount is one higher, and nobody measures.
    pub fn reset_alone(&mut self) {
        self.command(&wire::shutdown(SU_CLEAR)).expect_success("TPM2_Shutdown(CLEAR)");
        wire::initialize(self.ports.control());
        self.command(&wire::startup(SU_CLEAR)).expect_success("TPM2_Startup(CLEAR)");
    }

    /// Suspend to RAM and resume: PCRs stay, restartCount goes up by one.
    pub fn suspend_resume(&mut self) {
        self.command(&wire::shutdown(SU_STATE)).expect_success("TPM2_Shutdown(STATE)");
        wire::initialize(self.ports.control());
        self.command(&wire::startup(SU_STATE)).expect_success("TPM2_Startup(STATE)");
    }

    /// Power fails and comes back: no shutdown command, then a boot into the same software.
    pub fn power_cut(&mut self) {
        self.power_off();
        self.power_on();
    }

    /// Power fails (SIGKILL): from now on nobody listens on the ports, which stay reserved.
    pub fn power_off(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("swtpm can be killed");
            process.wait().expect("a killed process can be waited for");
        }
    }

    /// Power comes back after [`Swtpm::power_off`]: starts and boots into the same software.
    ///
    /// # Panics
    /// Where swtpm does not come up.
    pub fn power_on(&mut self) {
        assert!(self.process.is_none(), "the TPM is powered already");
        // The ports are reserved among tests, not against the rest of the machine: another program may take one.
        for _ in 0..20 {
            let mut process = self.spawn();
            if self.wait_until_it_answers(&mut process) {
                self.process = Some(process);
                self.measured_boot(self.boot_seed.load(Ordering::Relaxed));
                return;
            }
            self.ports = PortPair::reserve();
        }
        panic!("swtpm does not start: {}", self.log());
    }

    /// Keeps a copy of the state, as a backup or a clone of a virtual machine does.
    ///
    /// # Panics
    /// Where the state cannot be copied.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        // Who holds the only connection keeps everybody else's commands out, so that the files are at rest.
        let _hold = self.process.as_ref().map(|_| wire::connect(self.ports.data()));
        let dir = tempfile::Builder::new().prefix("swtpm-snapshot-").tempdir().expect("a folder");
        copy_files(&self.state_dir(), dir.path());
        Snapshot { dir }
    }

    /// Puts an older state in place, then boots.
    ///
    /// # Panics
    /// Where the state cannot be copied.
    pub fn rollback(&mut self, snapshot: &Snapshot) {
        self.power_off();
        fs::remove_dir_all(self.state_dir()).expect("the state can be removed");
        fs::create_dir(self.state_dir()).expect("a folder for the state");
        copy_files(snapshot.dir.path(), &self.state_dir());
        self.power_on();
    }

    /// Another TPM with the state of a snapshot of this one, as the clone of a virtual machine has it: booted, and
    /// running beside the original.
    ///
    /// # Panics
    /// Where the state cannot be copied.
    #[must_use]
    pub fn clone_of(&self, snapshot: &Snapshot) -> Self {
        let mut clone = Self {
            process: None,
            ports: PortPair::reserve(),
            dir: tempfile::Builder::new().prefix("swtpm-").tempdir().expect("a folder for the TPM"),
            manufacturer: self.manufacturer.clone(),
            banks: self.banks.clone(),
            measured_banks: self.measured_banks.clone(),
            boot_seed: AtomicU64::new(self.boot_seed.load(Ordering::Relaxed)),
        };
        fs::create_dir(clone.state_dir()).expect("a folder for the state");
        copy_files(snapshot.dir.path(), &clone.state_dir());
        clone.power_on();
        clone
    }

    /// Sends one command, header included, and reads its answer.
    #[must_use]
    pub fn command(&self, command: &[u8]) -> Answer {
        wire::transmit(self.ports.data(), command)
    }

    /// Handles that the TPM holds in a range: TPM2_GetCapability(TPM_CAP_HANDLES) from `first` on, with its type.
    #[must_use]
    pub fn handles(&self, first: u32) -> Vec<u32> {
        self.command(&wire::handles(first)).handles()
    }

    /// Transient objects and loaded sessions, which are scarce and which nobody may leave behind.
    #[must_use]
    pub fn loaded_handles(&self) -> Vec<u32> {
        const LOADED_SESSION_FIRST: u32 = 0x0200_0000;
        const TRANSIENT_FIRST: u32 = 0x8000_0000;
        [LOADED_SESSION_FIRST, TRANSIENT_FIRST].into_iter().flat_map(|first| self.handles(first)).collect()
    }

    /// Asserts that nobody left an object or a session in the TPM.
    ///
    /// # Panics
    /// Where somebody did.
    #[track_caller]
    pub fn assert_nothing_loaded(&self) {
        let left = self.loaded_handles();
        assert!(left.is_empty(), "left in the TPM: {left:08x?}");
    }

    /// A property of the TPM: TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES); `0x20e` is the lockout counter.
    #[must_use]
    pub fn property(&self, tag: u32) -> u32 {
        self.command(&wire::property(tag)).property(tag)
    }

    /// Runs a program of tpm2-tools against this TPM, in its folder.
    ///
    /// # Panics
    /// Where the program cannot be started.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(self.dir())
            .env("TPM2TOOLS_TCTI", self.tcti_string())
            .env("TSS2_LOG", "all+none")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// The same, where it has to succeed; gives its standard output.
    ///
    /// # Panics
    /// Where the program fails.
    pub fn tool_ok(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.tool(program, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
        output.stdout
    }

    fn state_dir(&self) -> PathBuf {
        self.dir().join("state")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir().join("swtpm.log")).unwrap_or_default()
    }

    fn spawn(&self) -> Child {
        let address = |port: u16| format!("type=tcp,port={port},bindaddr=127.0.0.1");
        Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", self.state_dir().display())])
            .args(["--server", &address(self.ports.data()), "--ctrl", &address(self.ports.control())])
            .args(["--flags", "not-need-init,startup-clear"])
            .args(["--log", &format!("file={}", self.dir().join("swtpm.log").display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm is installed (apt-get install swtpm)")
    }

    /// Polls, growing slower, until a command is answered; `false` where the process ended, as it does when a port
    /// is taken.
    fn wait_until_it_answers(&self, process: &mut Child) -> bool {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            // A stranger's program on the port would not answer as a TPM does.
            if wire::try_transmit(self.ports.data(), &wire::handles(0x8000_0000))
                .is_ok_and(|answer| answer.is_success())
                && process.try_wait().expect("the process is ours").is_none()
            {
                return true;
            }
            if process.try_wait().expect("the process is ours").is_some() {
                return false;
            }
            assert!(start.elapsed() < START_LIMIT, "swtpm does not answer: {}", self.log());
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// What the boot of a seed measures into a PCR.
pub(crate) fn measured(seed: u64, pcr: u8) -> String {
    format!("boot {seed}: measured into PCR {pcr}")
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Nothing can be done about a failure here, and a panic would hide the test's own.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn owned_tcti(ports: &PortPair) -> TctiConfig {
    let host = "127.0.0.1".parse::<Host>().expect("an address is a host");
    TctiConfig::Swtpm(NetworkTpm { host, port: ports.data(), owned: true })
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder with the state") {
        let entry = entry.expect("a file of the state");
        // The lock belongs to the running process, not to the state.
        if entry.file_name() != ".lock" {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a file of the state can be copied");
        }
    }
}
