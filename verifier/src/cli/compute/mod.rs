//! `reference compute`: values out of files, before anything of them has booted.

mod boot;

use clap::Subcommand;

use super::Show;

#[derive(Debug, Subcommand)]
pub(super) enum Compute {
    /// What is measured of a boot: loaders, kernels, initrds, command lines, partition tables, firmware
    Boot(Box<boot::Boot>),
}

/// Why nothing was computed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComputeError {
    /// Of a boot.
    #[error(transparent)]
    Boot(#[from] boot::BootError),
}

impl Compute {
    pub(super) fn run(&self) -> Result<impl Show + use<>, ComputeError> {
        match self {
            Self::Boot(boot) => Ok(boot.run()?),
        }
    }
}
