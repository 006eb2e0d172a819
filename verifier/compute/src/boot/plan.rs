//! All files of a boot together: their values with their sources, and what whole PCRs come to.

use rootbound_common::crypto::{Digest, TaggedDigest};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};

use super::event::{
    BOOT_MANAGER, Event, GRUB_TEXT, KERNEL_CONFIG, KERNEL_INITRD, MOK, UNIFIED_KERNEL,
    before_boot_applications, fold,
};
use super::loader::{self, Grub, Initrd};
use super::pe::{Image, PeError};
use super::shim::{Shim, ShimError};
use super::uki::{StubVersion, Uki, UkiError, phases};
use crate::values::{BootValue, BootValues, PcrValue, Source};

/// A file, by the name that values and errors give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its bytes.
    pub content: &'a [u8],
}

/// Who passes the kernel its command line and initrds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// GRUB.
    Grub,
    /// A boot option of the firmware that names the kernel.
    EfiStub,
    /// systemd-boot, by an entry of type 1; of a unified kernel image, by one of type 2.
    SystemdBoot,
    /// QEMU's `-kernel`.
    Direct,
}

/// The files of a boot, and how they start each other.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// The bank that digests are of.
    pub bank: HashAlgorithm,
    /// Of the values; the file is set for each.
    pub source: Source,
    /// Drivers of cards.
    pub drivers: Vec<File<'a>>,
    /// shim, which is a boot application, too, and the first.
    pub shim: Option<File<'a>>,
    /// Boot applications after it, in the order in which they start each other, up to the kernel.
    pub applications: Vec<File<'a>>,
    /// How the kernel is started.
    pub loader: Option<Loader>,
    /// The kernel.
    pub kernel: Option<File<'a>>,
    /// Its path, as GRUB's configuration has it.
    pub kernel_path: Option<&'a str>,
    /// The initrds, each with the path that the loader's configuration has.
    pub initrds: Vec<(File<'a>, &'a str)>,
    /// The command line, without what loaders add.
    pub command_line: Option<&'a str>,
    /// A unified kernel image, in the place of a kernel.
    pub uki: Option<File<'a>>,
    /// The version of its stub, where it does not say.
    pub stub: Option<StubVersion>,
    /// Commands that GRUB runs.
    pub grub_commands: Vec<&'a str>,
    /// Files that GRUB reads before the kernel.
    pub grub_files: Vec<(File<'a>, &'a str)>,
    /// Other events: firmware, partition tables.
    pub others: Vec<(Event, &'a str)>,
}

impl Plan<'_> {
    /// A boot of no files yet.
    #[must_use]
    pub const fn new(bank: HashAlgorithm, source: Source) -> Self {
        Self {
            bank,
            source,
            drivers: Vec::new(),
            shim: None,
            applications: Vec::new(),
            loader: None,
            kernel: None,
            kernel_path: None,
            initrds: Vec::new(),
            command_line: None,
            uki: None,
            stub: None,
            grub_commands: Vec::new(),
            grub_files: Vec::new(),
            others: Vec::new(),
        }
    }
}

/// Why nothing is computed of a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An image is not in order.
    #[error("{file}: {source}")]
    Image {
        /// Its name.
        file: String,
        /// Why.
        source: PeError,
    },
    /// A shim is not in order.
    #[error("{file}: {source}")]
    Shim {
        /// Its name.
        file: String,
        /// Why.
        source: ShimError,
    },
    /// A unified kernel image is not in order.
    #[error("{file}: {source}")]
    Uki {
        /// Its name.
        file: String,
        /// Why.
        source: UkiError,
    },
    /// Both a kernel and a unified kernel image.
    #[error("a unified kernel image has its kernel and its initrd in it: name it alone")]
    TwoKernels,
    /// A command line or an initrd, and nobody who passes them.
    #[error("what is measured of a command line or an initrd depends on who passes it: name the loader")]
    NoLoader,
    /// A loader, and no kernel.
    #[error("there is no kernel for the loader to start: name it")]
    NoKernel,
    /// GRUB's commands or files, with another loader.
    #[error("commands and files of GRUB are measured by GRUB alone")]
    NotGrub,
}

impl Plan<'_> {
    /// Computes what is measured. Where everything that goes into a PCR is known, the PCR's value is computed, too.
    pub fn compute(&self) -> Result<BootValues, PlanError> {
        self.check()?;
        let mut found = Found::new(self.bank, &self.source);
        for (event, file) in &self.others {
            found.add(event.clone(), file);
        }
        for file in &self.drivers {
            let digest = self.image(&mut found, *file)?;
            found.add(Event::driver(digest, base_name(file.name)), file.name);
        }
        let mut chain = Vec::from(before_boot_applications(self.bank));
        if let Some(file) = self.shim {
            chain.push(self.application(&mut found, file)?);
            self.shim(&mut found, file)?;
        }
        for file in &self.applications {
            chain.push(self.application(&mut found, *file)?);
        }
        match (self.uki, self.kernel) {
            (Some(file), _) => self.unified(&mut found, chain, file)?,
            (None, Some(file)) => self.kernel(&mut found, chain, file)?,
            (None, None) => {}
        }
        Ok(found.values)
    }

    fn check(&self) -> Result<(), PlanError> {
        let grub = !self.grub_commands.is_empty() || !self.grub_files.is_empty();
        if grub && self.loader != Some(Loader::Grub) {
            return Err(PlanError::NotGrub);
        }
        if self.uki.is_some() {
            let other = matches!(self.loader, Some(Loader::Grub | Loader::Direct));
            let alone = self.kernel.is_none() && self.initrds.is_empty() && !other;
            return if alone { Ok(()) } else { Err(PlanError::TwoKernels) };
        }
        if self.loader.is_some() {
            return if self.kernel.is_some() { Ok(()) } else { Err(PlanError::NoKernel) };
        }
        let passed = self.command_line.is_some() || !self.initrds.is_empty();
        if passed { Err(PlanError::NoLoader) } else { Ok(()) }
    }

    /// An image's digest. What its signatures embed is noted.
    fn image(&self, found: &mut Found<'_>, file: File<'_>) -> Result<Digest, PlanError> {
        let failed = |source| PlanError::Image { file: file.name.to_owned(), source };
        let image = Image::parse(file.content).map_err(failed)?;
        note_signatures(found, file.name, &image).map_err(failed)?;
        Ok(image.authenticode(self.bank))
    }

    fn application(&self, found: &mut Found<'_>, file: File<'_>) -> Result<Event, PlanError> {
        let event = Event::boot_application(self.image(found, file)?, base_name(file.name));
        found.add(event.clone(), file.name);
        Ok(event)
    }

    fn shim(&self, found: &mut Found<'_>, file: File<'_>) -> Result<(), PlanError> {
        let failed = |source| PlanError::Shim { file: file.name.to_owned(), source };
        let image = Image::parse(file.content).map_err(|source| failed(source.into()))?;
        let shim = Shim::of(&image).map_err(failed)?;
        let lists = shim.mok_lists(self.bank);
        found.whole(MOK, &lists, "shim, where the machine's owner enrolled nothing");
        let others = shim.authority(self.bank).into_iter().chain(shim.sbat_levels(self.bank));
        lists.into_iter().chain(others).for_each(|event| found.add(event, file.name));
        found
            .note("shim: keys and hashes that a machine's owner enrolled (MokList, MokListX) are in no file");
        found.note(
            "shim: a machine has one of the levels in SbatLevel, or a later one that a newer shim left",
        );
        Ok(())
    }

    fn unified(&self, found: &mut Found<'_>, mut chain: Vec<Event>, file: File<'_>) -> Result<(), PlanError> {
        let failed = |source| PlanError::Uki { file: file.name.to_owned(), source };
        chain.push(self.application(found, file)?);
        let uki = Uki::parse(file.content, self.stub).map_err(failed)?;
        let kernel = uki.kernel(self.bank).map_err(failed)?;
        if self.shim.is_none() {
            if let Some(kernel) = &kernel {
                found.whole(BOOT_MANAGER, &chain, "boot option of EDK2, Secure Boot on");
                chain.push(kernel.clone());
                found.whole(
                    BOOT_MANAGER,
                    &chain,
                    "boot option of EDK2, Secure Boot off: the kernel inside, too",
                );
            } else {
                found.whole(BOOT_MANAGER, &chain, "boot option of EDK2, Secure Boot on or off");
            }
        }
        if let Some(kernel) = kernel {
            found.add(kernel, file.name);
        }
        let mut events = uki.sections(self.bank);
        found.whole(UNIFIED_KERNEL, &events, "after systemd-stub");
        let sections = events.len();
        for phase in phases(self.bank) {
            let label = phase.label.clone();
            events.push(phase);
            found.whole(UNIFIED_KERNEL, &events, &format!("after {label}"));
        }
        for (position, event) in events.into_iter().enumerate() {
            found.add(event, if position < sections { file.name } else { "" });
        }
        let mut passed = uki.kernel_input(self.bank).map_err(failed)?;
        if let Some(text) = self.command_line {
            let measured = loader::overriding(self.bank, text);
            found.whole(KERNEL_CONFIG, [&measured], "a command line from outside the image");
            found.add(measured, "");
            passed.retain(|event| event.digest.algorithm() == self.bank && !is_options(event));
            passed.insert(0, Event::load_options(self.bank, KERNEL_INITRD, text, STUB_OPTIONS));
        }
        found.whole(KERNEL_INITRD, &passed, "the kernel's EFI stub, nothing beside the image on the ESP");
        passed.into_iter().for_each(|event| found.add(event, file.name));
        if self.loader == Some(Loader::SystemdBoot) {
            self.handed_on(found, &uki).map_err(failed)?;
        }
        found.note("systemd-stub: credentials, extensions and addons on the ESP change PCRs 9, 12 and 13");
        Ok(())
    }

    /// systemd-boot before 254 takes the command line out of the image and passes it as its own; where Secure Boot is off, the
    /// stub takes it for another one, and measures it once more.
    fn handed_on(&self, found: &mut Found<'_>, uki: &Uki<'_>) -> Result<(), UkiError> {
        if let (None, Some(text)) = (self.command_line, uki.command_line()?) {
            let once = Event::load_options(self.bank, KERNEL_CONFIG, &text, "systemd-boot: command line");
            found.whole(KERNEL_CONFIG, [&once], "systemd-boot before 254, Secure Boot on");
            found.whole(KERNEL_CONFIG, [&once, &once], "systemd-boot before 254, Secure Boot off");
        }
        Ok(())
    }

    fn kernel(&self, found: &mut Found<'_>, mut chain: Vec<Event>, file: File<'_>) -> Result<(), PlanError> {
        let bank = self.bank;
        let text = self.command_line.unwrap_or_default();
        let initrds: Vec<_> =
            self.initrds.iter().map(|(file, path)| Initrd { path, content: file.content }).collect();
        let initrd_file = || self.initrds.iter().map(|(file, _)| file.name).collect::<Vec<_>>().join(" ");
        if self.loader == Some(Loader::Direct) {
            found.note(
                "QEMU changes the kernel that it is given by `-kernel`: PCR 4 cannot be computed of a file",
            );
        } else {
            let kernel = self.application(found, file)?;
            match self.loader {
                Some(Loader::Grub) => {
                    found.whole(BOOT_MANAGER, &chain, "boot option of EDK2, GRUB 2.06, Secure Boot off");
                    // It is shim that GRUB has check the kernel, and shim that measures it.
                    if self.shim.is_some() {
                        chain.extend([kernel.clone(), kernel]);
                        found.whole(
                            BOOT_MANAGER,
                            &chain,
                            "boot option of EDK2, shim, GRUB 2.06, Secure Boot on",
                        );
                    }
                }
                Some(Loader::EfiStub | Loader::SystemdBoot) if self.shim.is_none() => {
                    chain.push(kernel);
                    found.whole(BOOT_MANAGER, &chain, "boot option of EDK2");
                }
                _ => {}
            }
        }
        let (events, pcrs): (Vec<Event>, &[(PcrIndex, &str)]) = match self.loader {
            None => (Vec::new(), &[]),
            Some(Loader::EfiStub) => (loader::efi_stub(bank, text, &initrds), &[(KERNEL_INITRD, STUB)]),
            Some(Loader::Direct) => (loader::direct(bank, text, &initrds), &[(KERNEL_INITRD, STUB)]),
            Some(Loader::SystemdBoot) => (
                loader::systemd_boot(bank, text, &initrds),
                &[(KERNEL_INITRD, STUB), (KERNEL_CONFIG, "systemd-boot")],
            ),
            Some(Loader::Grub) => {
                let boot = Grub {
                    kernel_path: self.kernel_path.unwrap_or(file.name),
                    kernel: file.content,
                    command_line: text,
                    initrds,
                    commands: self.grub_commands.clone(),
                    files: self.grub_files.iter().map(|(file, path)| (*path, file.content)).collect(),
                };
                found.note(
                    "GRUB: commands of its configuration are measured as they run, with variables expanded",
                );
                found.note("GRUB 2.12 starts the kernel as a boot application, whose EFI stub measures into PCR 9, too");
                let whole: &[_] = match (self.grub_commands.is_empty(), self.grub_files.is_empty()) {
                    (false, false) => &[(GRUB_TEXT, GRUB), (KERNEL_INITRD, GRUB)],
                    (false, true) => &[(GRUB_TEXT, GRUB)],
                    (true, false) => &[(KERNEL_INITRD, GRUB)],
                    (true, true) => &[],
                };
                (loader::grub(bank, &boot), whole)
            }
        };
        for (pcr, label) in pcrs {
            found.whole(*pcr, &events, label);
        }
        for event in events {
            let of_initrd = matches!(event.measured, crate::values::Measured::Initrd { .. });
            let of_text = matches!(event.measured, crate::values::Measured::CommandLine { .. });
            let name = if of_initrd { initrd_file() } else { file.name.to_owned() };
            found.add(event, if of_text { "" } else { &name });
        }
        Ok(())
    }
}

const STUB: &str = "the kernel's EFI stub, Linux 6.1 or later";
const STUB_OPTIONS: &str = "the kernel's EFI stub: command line";
const GRUB: &str = "GRUB 2.06, with all of its commands and files named";

fn is_options(event: &Event) -> bool {
    matches!(event.measured, crate::values::Measured::CommandLine { .. })
}

fn note_signatures(found: &mut Found<'_>, file: &str, image: &Image<'_>) -> Result<(), PeError> {
    for signature in image.signatures()? {
        for certificate in &signature.certificates {
            found.note(&format!(
                "{file}: a signature embeds the certificate `{}`, sha256:{}; it was not verified",
                certificate.subject, certificate.sha256
            ));
        }
        if let Some(problem) = signature.problem {
            found.note(&format!("{file}: the signature at offset {}: {problem}", signature.offset));
        }
        let other = |digest: &Digest| image.authenticode(digest.algorithm()) != *digest;
        if signature.digest.as_ref().is_some_and(other) {
            found.note(&format!(
                "{file}: the signature at offset {} is over another image: firmware with Secure Boot refuses it",
                signature.offset
            ));
        }
    }
    Ok(())
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Values as they are found: each once, whatever measures it.
struct Found<'a> {
    source: &'a Source,
    values: BootValues,
}

impl<'a> Found<'a> {
    const fn new(bank: HashAlgorithm, source: &'a Source) -> Self {
        Self { source, values: BootValues { bank, values: Vec::new(), pcrs: Vec::new(), notes: Vec::new() } }
    }

    fn add(&mut self, event: Event, file: &str) {
        if self.values.values.iter().any(|value| value.measured == event.measured) {
            return;
        }
        let file = (!file.is_empty()).then(|| file.to_owned());
        let source = Source { file, ..self.source.clone() };
        self.values.values.push(BootValue { measured: event.measured, label: event.label, source });
    }

    fn whole<'e>(&mut self, pcr: PcrIndex, events: impl IntoIterator<Item = &'e Event>, label: &str) {
        let value = TaggedDigest(fold(self.values.bank, pcr, events));
        self.values.pcrs.push(PcrValue { pcr, value, label: label.to_owned() });
    }

    fn note(&mut self, note: &str) {
        if !self.values.notes.iter().any(|known| known == note) {
            self.values.notes.push(note.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
