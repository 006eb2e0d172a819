//! What is fuzzed, and what must hold for each input beside that nothing panics.

mod access;
mod attest;
mod boot_log;
mod corim;
mod evidence;
mod files;
mod ima;
mod pe;
mod public;
mod route;
mod signature_list;
mod token;

use std::fmt;

use clap::ValueEnum;

use crate::mutate::mutate;
use crate::pool::Pool;
use rootbound_swtpm_tests::random::Random;

/// What became of an input.
pub(crate) struct Outcome {
    /// Whether a parser took it.
    pub(crate) accepted: bool,
    /// Which errors, or what shape of thing it is: inputs of one class are alike.
    pub(crate) class: String,
}

/// Something that takes hostile bytes.
pub(crate) trait Target {
    /// Inputs of every kind that is accepted.
    fn seeds(&self) -> Vec<Vec<u8>>;

    /// Runs an input. Panics where an invariant does not hold.
    fn run(&mut self, input: &[u8]) -> Outcome;

    /// A new input: by default twice as long as the longest TPM structure that is accepted, at the most.
    fn mutate(&self, pool: &Pool, random: &mut Random) -> Vec<u8> {
        mutate(pool, 2 * rootbound_common::tpm::Attest::MAX, random)
    }
}

/// The targets by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetName {
    /// TPMS_ATTEST, TPMT_SIGNATURE, TPMS_CREATION_DATA.
    Attest,
    /// TPMT_PUBLIC, and the keys that are made of it.
    Public,
    /// The body of `POST /v1/evidence`, and the certificate request in it.
    Evidence,
    /// A boot event log: parsed, replayed, authenticated, described, judged.
    #[value(name = "boot_log")]
    BootLog,
    /// EFI_SIGNATURE_LIST and UEFI_VARIABLE_DATA.
    #[value(name = "signature_list")]
    SignatureList,
    /// IMA's list, its readable form, and digest sets.
    Ima,
    /// The body of a request to the Authorization API.
    Access,
    /// Boot images: PE, unified kernel images, shim.
    Pe,
    /// A .deb package.
    Deb,
    /// A .rpm package.
    Rpm,
    /// An initramfs.
    Cpio,
    /// A squashfs image.
    Squashfs,
    /// Access tokens, JWT-SVIDs, DPoP proofs, keys and target URIs.
    Token,
    /// A CoRIM, signed or not.
    Corim,
    /// A request as a gateway describes it.
    Route,
}

impl TargetName {
    pub(crate) const ALL: [Self; 15] = [
        Self::Attest,
        Self::Public,
        Self::Evidence,
        Self::BootLog,
        Self::SignatureList,
        Self::Ima,
        Self::Access,
        Self::Pe,
        Self::Deb,
        Self::Rpm,
        Self::Cpio,
        Self::Squashfs,
        Self::Token,
        Self::Corim,
        Self::Route,
    ];

    pub(crate) fn build(self) -> Box<dyn Target> {
        match self {
            Self::Attest => Box::new(attest::AttestTarget),
            Self::Public => Box::new(public::PublicTarget),
            Self::Evidence => Box::new(evidence::EvidenceTarget::new()),
            Self::BootLog => Box::new(boot_log::BootLogTarget::new()),
            Self::SignatureList => Box::new(signature_list::SignatureListTarget),
            Self::Ima => Box::new(ima::ImaTarget::new()),
            Self::Access => Box::new(access::AccessTarget),
            Self::Pe => Box::new(pe::PeTarget),
            Self::Deb => Box::new(files::FilesTarget::deb()),
            Self::Rpm => Box::new(files::FilesTarget::rpm()),
            Self::Cpio => Box::new(files::FilesTarget::cpio()),
            Self::Squashfs => Box::new(files::FilesTarget::squashfs()),
            Self::Token => Box::new(token::TokenTarget::new()),
            Self::Corim => Box::new(corim::CorimTarget::new()),
            Self::Route => Box::new(route::RouteTarget::new()),
        }
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attest => "attest",
            Self::Public => "public",
            Self::Evidence => "evidence",
            Self::BootLog => "boot_log",
            Self::SignatureList => "signature_list",
            Self::Ima => "ima",
            Self::Access => "access",
            Self::Pe => "pe",
            Self::Deb => "deb",
            Self::Rpm => "rpm",
            Self::Cpio => "cpio",
            Self::Squashfs => "squashfs",
            Self::Token => "token",
            Self::Corim => "corim",
            Self::Route => "route",
        })
    }
}

/// An input with one byte after it.
fn with_trailing_byte(input: &[u8]) -> Vec<u8> {
    [input, &[0]].concat()
}
