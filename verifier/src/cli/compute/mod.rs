//! `reference compute`: values out of files, before anything of them has booted.

mod boot;
mod files;

use clap::Subcommand;

use super::{Output, Show};

#[derive(Debug, Subcommand)]
pub(super) enum Compute {
    /// What is measured of a boot: loaders, kernels, initrds, command lines, partition tables, firmware
    ///
    /// Nothing is mounted, executed or written. What comes out are values for the rules of a profile, with the file and package
    /// that each comes from, and the values of those PCRs of which every measurement is known. OPERATING.md says what of a
    /// boot is in no file.
    Boot(Box<boot::Boot>),
    /// What may run: digests of files by path, out of root file systems, initramfs, images, .deb and .rpm packages
    Files(Box<files::Files>),
}

/// Why nothing was computed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComputeError {
    /// Of a boot.
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    /// Of files.
    #[error(transparent)]
    Files(#[from] files::FilesVerbError),
}

impl ComputeError {
    /// Whether the command line and what it names were right.
    pub(super) fn is_failure(&self) -> bool {
        matches!(self, Self::Files(error) if error.is_failure())
    }
}

impl Compute {
    /// What is to be shown, where something is.
    pub(super) fn run(&self, output: Output) -> Result<Option<Box<dyn Show>>, ComputeError> {
        Ok(match self {
            Self::Boot(boot) => Some(Box::new(boot.run()?)),
            Self::Files(files) => match files.run(output)? {
                Some(shown) => Some(Box::new(shown)),
                None => None,
            },
        })
    }
}
