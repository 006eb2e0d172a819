//! The run-time measurement list of the kernel's IMA: parsed while it streams by, replayed to the quoted PCR 10.
//!
//! - `parser`: [`ListParser`], bytes in chunks of any size to [`Entry`]s
//! - `entry`, `hash`: the eight templates and their fields
//! - `ascii`: the readable form of the list, for import
//! - `replay`: [`Replay`], the value that PCR 10 has after each entry
//! - `sha256`: SHA-256 of short messages, fast
//! - `walk`: [`Walk`], from a verified prefix to the quoted value and past it
//! - `progress`: what is kept between two walks of one boot
//! - `boot_aggregate`: how the list is tied to the boot
//!
//! Sources: `security/integrity/ima` of Linux 6.12 (`ima_fs.c`, `ima_template.c`, `ima_template_lib.c`, `ima_crypto.c`) and
//! its `Documentation/security/IMA-templates.rst`. The kernel marshals little-endian.
//!
//! The template hash of an entry covers its template *data*. PCR number, template name and template hash of an entry are
//! covered by nothing, and of a violation not even the data: the kernel extends all ones. Whoever judges entries must
//! come to no better verdict when those parts lie; `docs/TRUST.md` has the table.

mod ascii;
mod boot_aggregate;
mod entry;
mod error;
mod fields;
mod hash;
mod parser;
mod progress;
mod replay;
mod sha256;
mod shown;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod walk;

pub use ascii::{AsciiEntry, AsciiList};
pub use boot_aggregate::{BootAggregate, Form};
pub use entry::{Attachment, Entry, Template};
pub use error::{ImaError, NotReached};
pub use hash::{DigestKind, FileDigest, FileHash};
pub use parser::ListParser;
pub use progress::{Position, Progress};
pub use replay::{BankMode, Replay};
pub use shown::Shown;
pub use walk::{Cover, Passed, Walk, Walked};

/// The PCR that IMA extends (`CONFIG_IMA_MEASURE_PCR_IDX`), as every distribution sets it.
pub const PCR: u8 = 10;

/// Bytes of one entry. A path has 4 KiB at the most, a signature 1 KiB; buffers (keys, SELinux state, device-mapper
/// tables) have some KiB. A line of 10 MB is hostile.
pub const MAX_ENTRY: usize = 1 << 20;

/// Entries of one boot. A build machine that is up for months has some 100,000.
pub const MAX_ENTRIES: u64 = 1_000_000;

/// Bytes of one boot: twice what a million entries of ordinary length have.
pub const MAX_BYTES: u64 = 512 << 20;
