//! Boot images: what is taken is hashed, its signatures described, and read as a unified kernel image and as shim.

use rootbound_common::text::only_shows;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_compute::boot::pe::Image;
use rootbound_compute::boot::plan::{File, Plan};
use rootbound_compute::boot::shim::Shim;
use rootbound_compute::boot::uki::{StubVersion, Uki};
use rootbound_compute::values::Source;
use rootbound_swtpm_tests::random::Random;

use super::{Outcome, Target, with_trailing_byte};
use crate::mutate::mutate;
use crate::pool::Pool;

#[expect(dead_code, reason = "what the tests of rootbound-compute need beside")]
#[path = "../../../../../verifier/compute/src/boot/testing.rs"]
mod images;

use images::{ImageBuilder, sign};

const BANK: HashAlgorithm = HashAlgorithm::Sha256;
/// Bytes of an input: headers and some sections.
const LIMIT: usize = 16 << 10;
const SIGNED: &[u8] = include_bytes!("../../../../../verifier/compute/fixtures/signed-twice.efi");

pub(super) struct PeTarget;

impl Target for PeTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let small = ImageBuilder::new().section(".text", &[0x90; 700]).section(".data", &[7; 20]);
        let unified = ImageBuilder::new()
            .section(".sdmagic", b"#### LoaderInfo: systemd-stub 257.1 ####")
            .section(".osrel", b"ID=test\n")
            .section(".cmdline", b"quiet")
            .section(".pcrsig", b"{}")
            .section(".initrd", b"initrd")
            .section(".linux", &small.build());
        let vendor =
            [&[8, 0, 0, 0, 4, 0, 0, 0, 16, 0, 0, 0, 24, 0, 0, 0, 0x30, 0x82, 0, 4][..], b"certlist"].concat();
        let shim = ImageBuilder::new().section(".vendor_", &vendor).section(".sbat", b"sbat,1\n");
        let mut signed = small.build();
        sign(&mut signed, &[8, 0, 0, 0, 0, 2, 2, 0]);
        let images = [small.clone().pe32(), small.directories(4), unified, shim];
        images.iter().map(ImageBuilder::build).chain([signed, SIGNED.to_vec()]).collect()
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        let image = match Image::parse(input) {
            Ok(image) => image,
            Err(error) => return Outcome { accepted: false, class: error.to_string() },
        };
        let digest = image.authenticode(BANK);
        for section in image.sections() {
            assert!(section.data.is_empty() || section.data.end <= input.len(), "a section ends in the file");
            assert!(image.data(section).len() <= section.virtual_size);
        }
        let longer = with_trailing_byte(input);
        let longer = Image::parse(&longer).map(|image| image.authenticode(BANK));
        assert!(image.is_signed() == longer.is_err(), "bytes behind certificates are refused, others hashed");
        assert_ne!(longer.ok(), Some(digest));
        let signatures = match image.signatures() {
            Ok(signatures) => signatures.len().to_string(),
            Err(error) => error.to_string(),
        };
        let unified = Uki::parse(input, None).or_else(|_| Uki::parse(input, Some(StubVersion::NEWEST)));
        let unified = match unified {
            Ok(unified) => format!(
                "{} sections, kernel {}, input {}",
                unified.sections(BANK).len(),
                unified.kernel(BANK).is_ok(),
                unified.kernel_input(BANK).is_ok()
            ),
            Err(error) => error.to_string(),
        };
        let shim = match Shim::of(&image) {
            Ok(shim) => format!(
                "{} levels, authority {}",
                shim.sbat_levels(BANK).len(),
                shim.authority(BANK).is_some()
            ),
            Err(error) => error.to_string(),
        };
        let file = Some(File { name: "input", content: input });
        for plan in [
            Plan { uki: file, ..Plan::new(BANK, Source::default()) },
            Plan { shim: file, ..Plan::new(BANK, Source::default()) },
        ] {
            let said = plan.compute().map_or_else(|error| error.to_string(), |values| values.notes.concat());
            assert!(said.chars().all(only_shows), "{said}");
        }
        Outcome { accepted: true, class: format!("{signatures}; {unified}; {shim}") }
    }

    fn mutate(&self, pool: &Pool, random: &mut Random) -> Vec<u8> {
        mutate(pool, LIMIT, random)
    }
}
