//! Files of releases: packages, archives and images, from the first byte to the digests that come out.

use rootbound_compute::files::{Fault, Limits, Options, Stream, examine};

use super::{Outcome, Target};
use crate::mutate::mutate;
use crate::pool::Pool;
use rootbound_swtpm_tests::random::Random;

/// As long as the longest seed.
const LONGEST: usize = 32 << 10;
const ENTRIES: u64 = 2000;

/// Each input is read as one kind of file.
pub(super) struct FilesTarget {
    stream: Stream,
    seeds: &'static [&'static [u8]],
    options: Options,
}

macro_rules! seed {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/files/", $name))
    };
}

impl FilesTarget {
    fn new(stream: Stream, seeds: &'static [&'static [u8]]) -> Self {
        let limits = Limits { entries: ENTRIES, unpacked: 4 << 20, ..Limits::default() };
        Self { stream, seeds, options: Options { limits, ..Options::default() } }
    }

    pub(super) fn deb() -> Self {
        Self::new(Stream::Deb, &[seed!("plain.deb"), seed!("gzip.deb")])
    }

    pub(super) fn rpm() -> Self {
        Self::new(Stream::Rpm, &[seed!("plain.rpm")])
    }

    pub(super) fn cpio() -> Self {
        Self::new(Stream::Cpio, &[seed!("plain.cpio"), seed!("gzip.cpio")])
    }

    pub(super) fn squashfs() -> Self {
        Self::new(Stream::Squashfs, &[seed!("plain.squashfs"), seed!("zlib.squashfs")])
    }
}

impl Target for FilesTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        self.seeds.iter().map(|seed| seed.to_vec()).collect()
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        match examine(self.stream, input, &self.options) {
            Ok(digests) => {
                assert!(u64::try_from(digests).is_ok_and(|digests| digests <= ENTRIES), "{digests} digests");
                Outcome { accepted: true, class: format!("{digests} digests") }
            }
            Err(error) => {
                let said = error.to_string();
                assert!(!said.contains(|c: char| c.is_control()), "a control character: {said:?}");
                Outcome { accepted: false, class: class(&error.fault) }
            }
        }
    }

    fn mutate(&self, pool: &Pool, random: &mut Random) -> Vec<u8> {
        let mut input = mutate(pool, LONGEST, random);
        // Else most mutations end at the checksum of a tar header.
        if self.stream == Stream::Deb && !random.one_in(4) {
            repair(&mut input);
        }
        input
    }
}

/// Without what the input itself says.
fn class(fault: &Fault) -> String {
    match fault {
        Fault::Corrupt(what) => format!("corrupt {}", what.split(['`', ':']).next().unwrap_or_default()),
        Fault::Duplicate(_) => "duplicate".to_owned(),
        Fault::Missing(_) => "missing".to_owned(),
        Fault::DanglingLink(_) => "dangling link".to_owned(),
        fault => fault.to_string(),
    }
}

/// Gives tar headers the checksums that they should have.
fn repair(input: &mut [u8]) {
    const MAGIC: usize = 257;
    let magics: Vec<_> =
        input.windows(5).enumerate().filter(|(_, bytes)| *bytes == b"ustar").map(|(at, _)| at).collect();
    for at in magics {
        let Some(header) = at.checked_sub(MAGIC).and_then(|at| input.get_mut(at..at + 512)) else { continue };
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
