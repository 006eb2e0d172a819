//! `reference compute boot`: what will be measured of a boot, byte for byte.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rootbound_common::crypto::Hasher;
use rootbound_common::text::only_shows;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_compute::boot::event::Event;
use rootbound_compute::boot::gpt::{GptError, PartitionTable};
use rootbound_compute::boot::pe::MAX_IMAGE;
use rootbound_compute::boot::plan::{self, Plan, PlanError};
use rootbound_compute::boot::uki::StubVersion;
use rootbound_compute::values::{BootValues, Measured, Source};

use super::super::Show;
use super::super::files::{FileError, read_bytes};
use super::super::table::Table;

/// The files of a boot, and how they go together.
#[derive(Debug, Args)]
pub(crate) struct Boot {
    /// The bank that digests are of
    #[arg(long, value_name = "BANK", default_value = "sha256")]
    bank: Bank,
    /// shim, the first boot application; its lists (PCR 14) and level of revocations (PCR 7), too
    #[arg(long, value_name = "FILE")]
    shim: Option<PathBuf>,
    /// A boot application before the kernel, such as GRUB or systemd-boot; several in the order in which they start
    #[arg(long = "boot-application", visible_alias = "grub", value_name = "FILE")]
    applications: Vec<PathBuf>,
    /// A driver on a card
    #[arg(long = "driver", value_name = "FILE")]
    drivers: Vec<PathBuf>,
    /// Who passes command line and initrds to the kernel
    #[arg(long, value_name = "LOADER")]
    loader: Option<Loader>,
    /// The kernel
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The kernel's path as GRUB's configuration has it; without it, `/` and the file's name
    #[arg(long, value_name = "PATH", requires = "kernel")]
    kernel_path: Option<String>,
    /// An initrd, with the path that the loader's configuration has; without it, `/` and the file's name; several in order
    #[arg(long = "initrd", value_name = "[PATH=]FILE")]
    initrds: Vec<Named>,
    /// The command line, without what loaders add; of a unified kernel image, one that overrides its own
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// The command line, in a file; a line feed at its end is not of it
    #[arg(long, value_name = "FILE", conflicts_with = "cmdline")]
    cmdline_file: Option<PathBuf>,
    /// A unified kernel image; after a boot application, where one starts it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrds"])]
    uki: Option<PathBuf>,
    /// The version of systemd-stub in it, 252 to 258, where the image does not say it
    #[arg(long, value_name = "VERSION", requires = "uki", value_parser = stub_version)]
    stub_version: Option<StubVersion>,
    /// A command that GRUB runs, with variables expanded, as in `grub_cmd:` of a boot log; all of them in order for PCR 8
    #[arg(long = "grub-command", value_name = "TEXT")]
    grub_commands: Vec<String>,
    /// A file that GRUB reads before the kernel, such as its configuration; all of them in order for PCR 9
    #[arg(long = "grub-file", value_name = "[PATH=]FILE")]
    grub_files: Vec<Named>,
    /// A disk or its image, for its GPT (PCR 5)
    #[arg(long = "gpt", value_name = "DISK")]
    disks: Vec<PathBuf>,
    /// A firmware volume or another blob as firmware measures it (PCR 0): a file, or a range of one
    #[arg(long = "firmware-blob", value_name = "[OFFSET+LENGTH=]FILE")]
    firmware: Vec<Blob>,
    /// The package that the files are of, for the record
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
    /// Its version
    #[arg(long, value_name = "VERSION", requires = "package")]
    package_version: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bank {
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Loader {
    /// GRUB 2: PCRs 8 and 9
    Grub,
    /// A boot option of the firmware that names the kernel: PCR 9
    EfiStub,
    /// systemd-boot: PCRs 9 and 12
    SystemdBoot,
    /// QEMU's -kernel with OVMF: PCR 9
    Direct,
}

impl From<Bank> for HashAlgorithm {
    fn from(bank: Bank) -> Self {
        match bank {
            Bank::Sha256 => Self::Sha256,
            Bank::Sha384 => Self::Sha384,
            Bank::Sha512 => Self::Sha512,
        }
    }
}

impl From<Loader> for plan::Loader {
    fn from(loader: Loader) -> Self {
        match loader {
            Loader::Grub => Self::Grub,
            Loader::EfiStub => Self::EfiStub,
            Loader::SystemdBoot => Self::SystemdBoot,
            Loader::Direct => Self::Direct,
        }
    }
}

/// A file, and the path that a loader's configuration has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    path: String,
    file: PathBuf,
}

impl std::str::FromStr for Named {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some(("", _) | (_, "")) => Err("an empty path"),
            Some((path, file)) => Ok(Self { path: path.to_owned(), file: file.into() }),
            None => Ok(Self { path: below_root(Path::new(text)), file: text.into() }),
        }
    }
}

/// A file, or a range of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Blob {
    range: Option<(u64, u64)>,
    file: PathBuf,
}

impl std::str::FromStr for Blob {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((range, file)) = text.split_once('=') else {
            return Ok(Self { range: None, file: text.into() });
        };
        let (offset, length) = range.split_once('+').ok_or("a range is OFFSET+LENGTH")?;
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let range = number(offset).ok().zip(number(length).ok()).ok_or("a range is two numbers of bytes")?;
        Ok(Self { range: Some(range), file: file.into() })
    }
}

fn stub_version(text: &str) -> Result<StubVersion, &'static str> {
    text.parse().ok().and_then(StubVersion::new).ok_or("known are 252 to 258")
}

/// Why nothing was computed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// No file was named.
    #[error("nothing to compute: name an image, a disk or a firmware blob")]
    NothingGiven,
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The command line's file is no text.
    #[error("{}: no text in UTF-8, at offset {offset}", path.display())]
    NoText {
        /// The file.
        path: PathBuf,
        /// The first byte that is none.
        offset: usize,
    },
    /// What the files hold, or how they go together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A disk.
    #[error("{}: {source}", path.display())]
    Gpt {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: GptError,
    },
    /// A range that a blob does not have.
    #[error("{}: the file ends at offset {end}, before the range does", path.display())]
    Range {
        /// The blob.
        path: PathBuf,
        /// Where the file ends.
        end: u64,
    },
}

/// Bytes of an initrd, many times those of any.
const MAX_INITRD: usize = 1 << 30;
/// Bytes of a command line and of a file that GRUB reads.
const MAX_TEXT: usize = 64 << 10;
const MAX_GRUB_FILE: usize = 64 << 20;

/// A file that was read.
struct Held {
    name: String,
    path: String,
    content: Vec<u8>,
}

impl Held {
    fn read(file: &Path, max: usize) -> Result<Self, FileError> {
        let (name, path) = (file.display().to_string(), below_root(file));
        Ok(Self { name, path, content: read_bytes(file, max)? })
    }

    fn named(named: &Named, max: usize) -> Result<Self, FileError> {
        Ok(Self { path: named.path.clone(), ..Self::read(&named.file, max)? })
    }

    fn file(&self) -> plan::File<'_> {
        plan::File { name: &self.name, content: &self.content }
    }
}

impl Boot {
    pub(super) fn run(&self) -> Result<Shown, BootError> {
        let image = |path: &PathBuf| Held::read(path, MAX_IMAGE);
        let all = |paths: &[PathBuf]| paths.iter().map(image).collect::<Result<Vec<_>, _>>();
        let named =
            |all: &[Named], max| all.iter().map(|one| Held::named(one, max)).collect::<Result<Vec<_>, _>>();
        let shim = self.shim.as_ref().map(image).transpose()?;
        let kernel = self.kernel.as_ref().map(image).transpose()?;
        let uki = self.uki.as_ref().map(image).transpose()?;
        let (applications, drivers) = (all(&self.applications)?, all(&self.drivers)?);
        let initrds = named(&self.initrds, MAX_INITRD)?;
        let grub_files = named(&self.grub_files, MAX_GRUB_FILE)?;
        let command_line = self.command_line()?;
        let others = self.others()?;
        let images = [&shim, &kernel, &uki].into_iter().flatten().chain(&applications).chain(&drivers);
        if images.count() == 0 && others.is_empty() {
            return Err(BootError::NothingGiven);
        }
        let plan = Plan {
            bank: self.bank.into(),
            source: Source {
                package: self.package.clone(),
                version: self.package_version.clone(),
                ..Source::default()
            },
            drivers: drivers.iter().map(Held::file).collect(),
            shim: shim.as_ref().map(Held::file),
            applications: applications.iter().map(Held::file).collect(),
            loader: self.loader.map(Into::into),
            kernel: kernel.as_ref().map(Held::file),
            kernel_path: self.kernel_path.as_deref().or(kernel.as_ref().map(|kernel| kernel.path.as_str())),
            initrds: initrds.iter().map(|held| (held.file(), held.path.as_str())).collect(),
            command_line: command_line.as_deref(),
            uki: uki.as_ref().map(Held::file),
            stub: self.stub_version,
            grub_commands: self.grub_commands.iter().map(String::as_str).collect(),
            grub_files: grub_files.iter().map(|held| (held.file(), held.path.as_str())).collect(),
            others: others.iter().map(|(event, file)| (event.clone(), file.as_str())).collect(),
        };
        Ok(Shown(plan.compute()?))
    }

    fn command_line(&self) -> Result<Option<String>, BootError> {
        let Some(path) = &self.cmdline_file else { return Ok(self.cmdline.clone()) };
        let text = String::from_utf8(read_bytes(path, MAX_TEXT)?).map_err(|error| BootError::NoText {
            path: path.clone(),
            offset: error.utf8_error().valid_up_to(),
        })?;
        Ok(Some(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
    }

    /// Partition tables and firmware, each with its file.
    fn others(&self) -> Result<Vec<(Event, String)>, BootError> {
        let bank = self.bank.into();
        let mut events = Vec::new();
        for blob in &self.firmware {
            events.push((blob.event(bank)?, blob.file.display().to_string()));
        }
        for path in &self.disks {
            let mut disk = open(path)?;
            let table = PartitionTable::read(&mut disk)
                .map_err(|source| BootError::Gpt { path: path.clone(), source })?;
            events.push((table.event(bank), path.display().to_string()));
        }
        Ok(events)
    }
}

impl Blob {
    fn event(&self, bank: HashAlgorithm) -> Result<Event, BootError> {
        let unreadable = |source| FileError::Unreadable { path: self.file.clone(), source };
        let mut file = open(&self.file)?;
        let (offset, length) = self.range.unwrap_or((0, u64::MAX));
        file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        let mut hasher = Hasher::new(bank);
        let mut buffer = vec![0; 1 << 16];
        let mut left = length;
        while left > 0 {
            let read = file.by_ref().take(left).read(&mut buffer).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
            left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        }
        if self.range.is_some() && left > 0 {
            let end = file.metadata().map_err(unreadable)?.len();
            return Err(BootError::Range { path: self.file.clone(), end });
        }
        let label = match self.range {
            Some((offset, length)) => format!("firmware blob, {length} bytes from offset {offset}"),
            None => "firmware blob".to_owned(),
        };
        Ok(Event::firmware_blob(hasher.finish(), label))
    }
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|source| FileError::Unreadable { path: path.to_owned(), source })
}

/// `/` and the file's name: where most loaders find it.
fn below_root(file: &Path) -> String {
    format!("/{}", file.file_name().unwrap_or_default().to_string_lossy())
}

/// Values, for people and as what other verbs take.
pub(super) struct Shown(BootValues);

impl Show for Shown {
    fn text(&self) -> String {
        let mut values = Table::new(["PCR", "WHAT", "VALUE", "LABEL", "FILE"]);
        for value in &self.0.values {
            let (pcr, what, text) = words(&value.measured);
            let file = value.source.file.clone().unwrap_or_default();
            values.row([pcr, what.to_owned(), text, value.label.clone(), file]);
        }
        let mut pcrs = Table::new(["PCR", "COMES TO", "WHEN"]);
        for pcr in &self.0.pcrs {
            pcrs.row([pcr.pcr.to_string(), pcr.value.to_string(), pcr.label.clone()]);
        }
        let mut text = values.text("nothing is measured");
        if !self.0.pcrs.is_empty() {
            text.push('\n');
            text.push_str(&pcrs.text(""));
        }
        if !self.0.notes.is_empty() {
            text.push('\n');
            self.0.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
        }
        // An image may have its words, too.
        text.chars().map(|one| if one == '\n' || only_shows(one) { one } else { '?' }).collect()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).unwrap_or_default()
    }
}

fn words(measured: &Measured) -> (String, &'static str, String) {
    match measured {
        Measured::BootApplication { digest } => ("4".to_owned(), "boot application", digest.to_string()),
        Measured::Driver { digest } => ("2".to_owned(), "driver", digest.to_string()),
        Measured::Initrd { digest } => ("9".to_owned(), "initrd", digest.to_string()),
        Measured::CommandLine { text } => ("8,9,12".to_owned(), "command line", text.clone()),
        Measured::Event { pcr, digest } => (pcr.to_string(), "event", digest.to_string()),
        Measured::FirmwareVersion { text } => ("0".to_owned(), "firmware version", text.clone()),
        Measured::FirmwareBlob { digest } => ("0".to_owned(), "firmware blob", digest.to_string()),
    }
}
