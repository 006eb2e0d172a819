//! What is measured of a boot, out of its files.
//!
//! - `pe`: images, their Authenticode digests, what their signatures embed
//! - `uki`: unified kernel images: PCR 11 by sections and phases, PCR 4 with the kernel inside, PCR 9
//! - `loader`: command lines and initrds, by GRUB, the EFI stub, systemd-boot and QEMU
//! - `gpt`, `shim`: the partition table (PCR 5), shim's lists and level (PCRs 14 and 7)
//! - `event`: one measurement, and what PCRs come to
//! - `plan`: all files of a boot together, as values with their sources

pub mod event;
pub mod gpt;
pub mod loader;
pub mod pe;
pub mod plan;
pub mod shim;
#[cfg(test)]
pub(crate) mod testing;
pub mod uki;
