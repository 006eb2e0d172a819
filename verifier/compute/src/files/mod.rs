//! Digests of files by path, as IMA measures them: out of root file systems, images and packages.
//!
//! - `tree`: a folder; `initramfs` (`cpio`): an initramfs; `squashfs` (`squashfs_blocks`), `ext4`: images; `oci` (`tar`,
//!   `overlay`): image layouts; `deb`, `rpm` (`rpm_header`): packages
//! - `decode`, `limits`: decompression, and what a stranger's archive may cost; `path`: names below a root
//! - `hash`, `parallel`: contents, by as many workers as there are cores, each with one buffer
//! - `collect`: digests by path, where they come from, what was left out; `error`: what is wrong, and where
//!
//! Any error ends it: a set that lacks what could not be read would refuse good machines.

mod collect;
mod cpio;
mod deb;
mod decode;
mod error;
mod ext4;
mod hash;
mod initramfs;
mod limits;
mod oci;
mod overlay;
mod parallel;
mod path;
mod rpm;
mod rpm_header;
mod source;
mod squashfs;
mod squashfs_blocks;
mod tar;
mod tree;

use std::num::NonZero;

use rootbound_common::tpm::HashAlgorithm;

pub use collect::{About, Computed, LeftOut, Note, Progress, Summary};
pub use error::{Fault, FilesError, Place};
pub use limits::Limits;
pub use source::{Kind, Source, Stream, compute, examine};

/// What is to be computed, and how much it may cost.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of the digests.
    pub algorithm: HashAlgorithm,
    /// Only what may run: an x in the mode, ELF, scripts, kernel modules.
    pub executable_only: bool,
    /// Configuration files of packages, too.
    pub configuration_files: bool,
    /// Packages are for systems whose `/bin`, `/sbin` and `/lib*` are no links into `/usr`.
    pub split_usr: bool,
    /// In front of each path.
    pub prefix: Prefix,
    /// Of each source.
    pub limits: Limits,
    /// Of all together: a digest set has no more.
    pub digests: u64,
    /// Threads that read and hash.
    pub workers: NonZero<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            algorithm: HashAlgorithm::Sha256,
            executable_only: false,
            configuration_files: false,
            split_usr: false,
            prefix: Prefix::default(),
            limits: Limits::default(),
            digests: 4_000_000,
            workers: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
        }
    }
}

/// A path that is put in front of paths: where a tree will be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix(Vec<u8>);

impl Prefix {
    /// A path, absolute or not, without `..`.
    pub fn parse(path: &[u8]) -> Result<Self, Fault> {
        path::below_root(path).map(Self)
    }
}
