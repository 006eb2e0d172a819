//! What the journeys and attacks in `tests/` stand on. Only this crate knows the attester and the verifier at once;
//! being for tests, it may panic, and says why.
//!
//! - [`swtpm`]: TPMs that run: manufactured, booted, cut off and rolled back at will
//! - [`boot_logs`]: boot logs that are shaped as those of real machines, and quotes over them
//! - [`boots`]: boots of virtual machines that were recorded, to be measured again
//! - [`challenges`]: challenges by the hundred, minted and spent
//! - [`corpus`]: evidence of real machines, where the environment names a folder of it
//! - [`daemon`]: the programs themselves, to be started, killed and started again
//! - [`database`]: faults and forgeries in the verifier's database
//! - [`https`]: requests that no client of ours would send
//! - [`ima`]: lists of what a kernel measured, as long as one likes
//! - [`kept`]: a connection that is kept, to measure over
//! - [`keys`]: short forms of what many tests ask of a TPM
//! - [`manual`]: a node with a real TPM, and with the client's part of the protocol in a test's hands
//! - [`random`]: numbers that repeat themselves from a seed
//! - [`scene`]: an affirming node to be attacked, and one that must not notice
//! - [`vendor`]: EK certificates and CRLs, good and bad
//! - [`watch`]: what an attack leaves behind at the verifier
//! - [`measured_logs`]: boot event logs and IMA lists, measured as they are written
//! - [`measured`]: rows of the table that `scripts/bench` prints
//! - [`world`]: a verifier, its clock and its machines, all in one process
//! - [`software_tpm`]: TPM statements fabricated by keys in software, for load and for what no TPM would say
#![forbid(unsafe_code)]

pub mod boot_logs;
pub mod boots;
pub mod certificate_request;
pub mod challenges;
pub mod corpus;
pub mod daemon;
pub mod database;
pub mod exchange;
pub mod gateway;
pub mod https;
pub mod ima;
pub mod kept;
pub mod keys;
pub mod manual;
pub mod measured;
pub mod measured_logs;
pub mod openssl;
pub mod policies;
pub mod random;
pub mod scene;
pub mod software_tpm;
pub mod swtpm;
pub mod vendor;
pub mod watch;
pub mod world;

pub use swtpm::{Action, Interposer, Manufacturer, PortPair, Snapshot, Swtpm, SwtpmBuilder};
