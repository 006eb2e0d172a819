//! Unified kernel images: what systemd-stub measures of them.
//!
//! The stub measures the name of each section that it knows, with its terminator, and then the section as it lies in memory,
//! into PCR 11, in an order of its own (`unified_sections` in systemd's src/fundamental/uki.c). Which ones it knows depends on
//! its version: `.uname` and `.sbat` since 254, `.ucode` since 256, `.hwids` since 257. `.pcrsig` is never measured. It
//! passes the kernel an initrd with archives of its own behind it, which the kernel measures as one.
//!
//! Refused are images of which a machine chooses parts as it boots (`.profile`, `.dtbauto`, `.efifw`), sections that
//! occur twice or lie over each other in memory, and stubs of versions that this does not know.

use rootbound_common::crypto::{Hasher, hash};
use rootbound_common::tpm::HashAlgorithm;

use super::event::{Event, KERNEL_INITRD, UNIFIED_KERNEL};
use super::pe::{Image, PeError, Section};

/// What the stub measures, in its order, and since when.
const MEASURED: [(&str, StubVersion); 11] = [
    (".linux", StubVersion(252)),
    (".osrel", StubVersion(252)),
    (".cmdline", StubVersion(252)),
    (".initrd", StubVersion(252)),
    (".ucode", StubVersion(256)),
    (".splash", StubVersion(252)),
    (".dtb", StubVersion(252)),
    (".uname", StubVersion(254)),
    (".sbat", StubVersion(254)),
    (".pcrpkey", StubVersion(252)),
    (".hwids", StubVersion(257)),
];
/// The first that starts the kernel inside unmeasured, whether Secure Boot is on or off.
const LOADS_ITSELF: StubVersion = StubVersion(258);
/// Of these the stub takes what fits the machine.
const CHOSEN: [&str; 3] = [".profile", ".dtbauto", ".efifw"];
const PHASES: [&str; 4] = ["enter-initrd", "leave-initrd", "sysinit", "ready"];
/// Zeros behind a section's data, in memory: more than any alignment makes.
const MAX_GROWTH: usize = 1 << 20;
/// More than any command line.
const MAX_COMMAND_LINE: usize = 64 << 10;

/// A major version of systemd-stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StubVersion(u16);

impl StubVersion {
    /// The first that measures into PCR 11.
    pub const OLDEST: Self = Self(252);
    /// The last whose order of sections is known here.
    pub const NEWEST: Self = Self(258);

    /// A version between the two.
    #[must_use]
    pub fn new(version: u16) -> Option<Self> {
        Some(Self(version)).filter(|version| (Self::OLDEST..=Self::NEWEST).contains(version))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Why a unified kernel image is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UkiError {
    /// It is no PE image in order.
    #[error(transparent)]
    Pe(#[from] PeError),
    /// It has no kernel.
    #[error("no unified kernel image: it has no `.linux` section")]
    NoKernel,
    /// It says itself which stub it is, and somebody else says otherwise.
    #[error("the stub is of version {found} (`.sdmagic`, at offset {offset}), not {said}")]
    StubsDiffer {
        /// Where it says so.
        offset: usize,
        /// What it says.
        found: u16,
        /// What was said of it.
        said: u16,
    },
    /// No `.sdmagic` section says which stub it is.
    #[error("no `.sdmagic` section names the version of the stub: say which it is")]
    UnknownStub,
    /// Another version than this knows.
    #[error("the stub is of version {version}; known are 252 to 258 (`.sdmagic`, at offset {offset})")]
    OtherStub {
        /// Where it says so.
        offset: usize,
        /// What it says.
        version: u32,
    },
    /// A section occurs twice.
    #[error("section `{name}` is there twice, the second time at offset {offset}")]
    Twice {
        /// Its name.
        name: &'static str,
        /// The second one's data.
        offset: usize,
    },
    /// A section of which the machine chooses.
    #[error("section `{name}` at offset {offset}: what of it is used is chosen as the machine boots")]
    ChosenAtBoot {
        /// Its name.
        name: &'static str,
        /// Its data.
        offset: usize,
    },
    /// Two sections lie over each other in memory, so that one of them is not what it is in the file.
    #[error(
        "sections `{first}` and `{second}` overlap in memory, at address {address:#x} (data at offset {offset})"
    )]
    OverlapInMemory {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
        /// Where it begins in memory.
        address: usize,
        /// Where its data begin in the file.
        offset: usize,
    },
    /// A section is far larger in memory than in the file: there it would be zeros.
    #[error(
        "section `{name}` at offset {offset} has {size} bytes in memory, over 1 MiB more than in the file"
    )]
    SectionTooLarge {
        /// Its name.
        name: &'static str,
        /// Its data.
        offset: usize,
        /// Its size in memory.
        size: usize,
    },
    /// The kernel inside is no PE image in order.
    #[error("the kernel in `.linux`, at offset {offset}: {source}")]
    Kernel {
        /// Where `.linux` begins.
        offset: usize,
        /// Why; its offsets are of the kernel.
        source: PeError,
    },
    /// The command line is none.
    #[error("`.cmdline` at offset {offset} is no text in UTF-8 of at most 65536 bytes")]
    CommandLine {
        /// Its data.
        offset: usize,
    },
}

/// A unified kernel image.
#[derive(Debug, Clone)]
pub struct Uki<'a> {
    image: Image<'a>,
    version: StubVersion,
}

impl<'a> Uki<'a> {
    /// Reads an image. A version is for one whose `.sdmagic` does not name it; where it does, it has to be the same.
    pub fn parse(bytes: &'a [u8], version: Option<StubVersion>) -> Result<Self, UkiError> {
        let image = Image::parse(bytes)?;
        if image.section(".linux").is_none_or(|linux| linux.virtual_size == 0) {
            return Err(UkiError::NoKernel);
        }
        let version = match (stub_version(&image), version) {
            (Ok((found, offset)), Some(said)) if found != said => {
                return Err(UkiError::StubsDiffer { offset, found: found.get(), said: said.get() });
            }
            (Err(UkiError::UnknownStub), Some(said)) => said,
            (found, _) => found?.0,
        };
        for name in MEASURED.iter().map(|(name, _)| *name).chain(CHOSEN).chain([".pcrsig"]) {
            let mut named = image.sections().iter().filter(|section| section.name == name);
            if let Some(section) = named.next() {
                let offset = section.data.start;
                if CHOSEN.contains(&name) {
                    return Err(UkiError::ChosenAtBoot { name, offset });
                }
                if section.virtual_size > section.data.len().saturating_add(MAX_GROWTH) {
                    return Err(UkiError::SectionTooLarge { name, offset, size: section.virtual_size });
                }
            }
            if let Some(second) = named.next() {
                return Err(UkiError::Twice { name, offset: second.data.start });
            }
        }
        check_memory(image.sections())?;
        Ok(Self { image, version })
    }

    /// The image.
    #[must_use]
    pub const fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// The stub's version.
    #[must_use]
    pub const fn version(&self) -> StubVersion {
        self.version
    }

    /// PCR 11: the sections.
    #[must_use]
    pub fn sections(&self, bank: HashAlgorithm) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, since) in MEASURED {
            let Some(section) = self.filled(name).filter(|_| since <= self.version) else { continue };
            let of_name = hash(bank, &[name.as_bytes(), &[0]]);
            events.push(Event::other(UNIFIED_KERNEL, of_name, format!("systemd-stub: name of {name}")));
            let mut hasher = Hasher::new(bank);
            self.each_part(section, |part| hasher.update(part));
            events.push(Event::other(UNIFIED_KERNEL, hasher.finish(), format!("systemd-stub: {name}")));
        }
        events
    }

    /// PCR 4: the kernel inside, which firmware measures where Secure Boot is off and the stub is of before 258.
    ///
    /// Where Secure Boot is on, the stub has checked the kernel already, and keeps firmware from checking and measuring it.
    /// Since 258 the stub loads the kernel itself, without LoadImage of the firmware; only behind shim and with Secure Boot on
    /// it calls LoadImage, and has the kernel pass unmeasured (`linux_exec` in systemd's src/boot/linux.c).
    pub fn kernel(&self, bank: HashAlgorithm) -> Result<Option<Event>, UkiError> {
        let section = self.filled(".linux").ok_or(UkiError::NoKernel)?;
        let content = self.content(section);
        let kernel = Image::parse(&content)
            .map_err(|source| UkiError::Kernel { offset: section.data.start, source })?;
        let event =
            || Event::boot_application(kernel.authenticode(bank), "the kernel in the unified kernel image");
        Ok((self.version < LOADS_ITSELF).then(event))
    }

    /// The command line as the stub passes it on: up to a NUL, white space and control characters as spaces, none at its end
    /// and, since 253, none at its beginning.
    pub fn command_line(&self) -> Result<Option<String>, UkiError> {
        let Some(section) = self.filled(".cmdline") else { return Ok(None) };
        let error = UkiError::CommandLine { offset: section.data.start };
        if section.virtual_size > MAX_COMMAND_LINE {
            return Err(error);
        }
        let content = self.content(section);
        let text = content.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| error)?;
        let blank = |one: char| one <= ' ' || one == '\u{7f}';
        let text = text.trim_end_matches(blank);
        let text = if self.version >= StubVersion(253) { text.trim_start_matches(blank) } else { text };
        Ok(Some(text.replace(blank, " ")))
    }

    /// PCR 9: the initrd as the kernel gets it, with the archives that the stub makes of sections.
    ///
    /// It is one of files beside the image, too (`.cred`, `.raw`, addons), and of whatever a boot loader hands on, where there
    /// are any. Nothing, where the kernel gets none.
    #[must_use]
    pub fn initrd(&self, bank: HashAlgorithm) -> Option<Event> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        if self.version >= StubVersion(256) {
            parts.extend(self.filled(".ucode").map(|section| self.content(section)));
        }
        parts.extend(self.filled(".initrd").map(|section| self.content(section)));
        let archives = [
            (".pcrsig", "tpm2-pcr-signature.json", 252),
            (".pcrpkey", "tpm2-pcr-public-key.pem", 252),
            (".osrel", "os-release", 257),
        ];
        for (name, file, since) in archives {
            let section = self.filled(name).filter(|_| self.version >= StubVersion(since));
            parts.extend(section.map(|section| archive(file, &self.content(section))));
        }
        let alone = parts.len() == 1;
        let mut hasher = Hasher::new(bank);
        for part in &parts {
            hasher.update(part);
            if !alone {
                hasher.update(padding(part.len()));
            }
        }
        let event = Event::initrd(hasher.finish(), "the initrd that systemd-stub passes");
        (!parts.is_empty()).then_some(event)
    }

    /// PCR 9: the command line and initrd that the kernel's EFI stub measures, where nothing overrides them. Without a
    /// `.cmdline` the kernel is given no load options, and measures none.
    pub fn kernel_input(&self, bank: HashAlgorithm) -> Result<Vec<Event>, UkiError> {
        let label = "the kernel's EFI stub: command line";
        let options = self.command_line()?.map(|text| Event::load_options(bank, KERNEL_INITRD, &text, label));
        Ok(options.into_iter().chain(self.initrd(bank)).collect())
    }

    fn filled(&self, name: &str) -> Option<&Section> {
        self.image.section(name).filter(|section| section.virtual_size > 0)
    }

    /// A section as it is in memory: zeros behind what the file has.
    fn each_part(&self, section: &Section, mut take: impl FnMut(&[u8])) {
        let data = self.image.data(section);
        take(data);
        let mut left = section.virtual_size.saturating_sub(data.len());
        while left > 0 {
            let zeros = ZEROS.get(..left.min(ZEROS.len())).unwrap_or_default();
            take(zeros);
            left = left.saturating_sub(zeros.len().max(1));
        }
    }

    fn content(&self, section: &Section) -> Vec<u8> {
        let mut content = Vec::with_capacity(section.virtual_size);
        self.each_part(section, |part| content.extend_from_slice(part));
        content
    }
}

static ZEROS: [u8; 4096] = [0; 4096];

/// PCR 11: the phases that systemd-pcrphase (systemd-pcrextend) measures, one after the other.
#[must_use]
pub fn phases(bank: HashAlgorithm) -> [Event; 4] {
    PHASES.map(|phase| {
        Event::other(UNIFIED_KERNEL, hash(bank, &[phase.as_bytes()]), format!("systemd-pcrphase: {phase}"))
    })
}

/// The stub says what it is: `#### LoaderInfo: systemd-stub 252.39-1 ####`.
///
/// The version, and where it says so.
fn stub_version(image: &Image<'_>) -> Result<(StubVersion, usize), UkiError> {
    let section = image.section(".sdmagic").ok_or(UkiError::UnknownStub)?;
    let text = image.data(section);
    let text = text.get(..256).unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    let (_, rest) = text.split_once("LoaderInfo: systemd-stub ").ok_or(UkiError::UnknownStub)?;
    let digits = rest.split(|one: char| !one.is_ascii_digit()).next().unwrap_or_default();
    let version: u32 = digits.parse().map_err(|_| UkiError::UnknownStub)?;
    let known = u16::try_from(version).ok().and_then(StubVersion::new);
    let offset = section.data.start;
    known.map(|known| (known, offset)).ok_or(UkiError::OtherStub { offset, version })
}

fn check_memory(sections: &[Section]) -> Result<(), UkiError> {
    let mut loaded: Vec<_> = sections.iter().filter(|section| section.virtual_size > 0).collect();
    loaded.sort_by_key(|section| section.virtual_address);
    for (first, second) in loaded.iter().zip(loaded.iter().skip(1)) {
        if second.virtual_address < first.memory().end {
            return Err(UkiError::OverlapInMemory {
                first: first.name.clone(),
                second: second.name.clone(),
                address: second.virtual_address,
                offset: second.data.start,
            });
        }
    }
    Ok(())
}

/// An archive of one file below `.extra`, byte for byte as `pack_cpio_literal` of systemd-stub makes it (cpio, newc).
fn archive(file: &str, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    member(&mut out, 1, 0o040_555, ".extra", &[]);
    member(&mut out, 2, 0o100_444, &format!(".extra/{file}"), content);
    out.extend_from_slice(TRAILER.as_bytes());
    out
}

/// With the upper-case digit that the stub has.
const TRAILER: &str = concat!(
    "070701",
    "00000000000000000000000000000000",
    "000000010000000000000000000000000000000000000000000000000000000B00000000",
    "TRAILER!!!\0\0\0\0"
);

fn member(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, content: &[u8]) {
    let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX).saturating_add(1);
    out.extend_from_slice(b"070701");
    // Inode, mode, user, group, links, time, size, four device numbers, length of the name, no checksum.
    for word in [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0] {
        out.extend_from_slice(format!("{word:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.extend_from_slice(padding(out.len()));
    out.extend_from_slice(content);
    out.extend_from_slice(padding(out.len()));
}

/// Zeros up to the next multiple of 4.
fn padding(length: usize) -> &'static [u8] {
    ZEROS.get(..length.next_multiple_of(4).saturating_sub(length)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
