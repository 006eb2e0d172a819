//! Pairs of TCP ports, reserved among all tests of a machine.

use std::fs::{self, File};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that Linux gives to outgoing connections (32768 and up), which each TPM command takes one of.
const FIRST: u16 = 20_000;
const PAIRS: u16 = 6_000;

/// Two neighbouring ports: libtss2's TCTI takes the control port to be the one after the command port.
///
/// A locked file says that the pair is taken, also while its TPM is powered off. The lock ends with the process.
pub struct PortPair {
    data: u16,
    _lock: File,
}

impl PortPair {
    /// Reserves a pair that nobody listens on.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join("swtpm-test-ports");
        fs::create_dir_all(&folder).expect("a folder for port locks");
        // Test processes that run at once begin at different places.
        let offset = u16::try_from(std::process::id() % u32::from(PAIRS)).expect("less than PAIRS");
        for _ in 0..PAIRS {
            let pair = offset.wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PAIRS;
            let data = FIRST + 2 * pair;
            let lock = File::create(folder.join(format!("{data}.lock"))).expect("a port lock");
            let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
            if lock.try_lock().is_ok() && free(data) && free(data + 1) {
                return Self { data, _lock: lock };
            }
        }
        panic!("no free pair of ports between {FIRST} and {}", FIRST + 2 * PAIRS);
    }

    /// The lower of the two, of even number.
    #[must_use]
    pub fn data(&self) -> u16 {
        self.data
    }

    /// The one after it.
    #[must_use]
    pub fn control(&self) -> u16 {
        self.data + 1
    }
}
