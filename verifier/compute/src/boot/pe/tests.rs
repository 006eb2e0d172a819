use std::path::Path;
use std::process::Command;

use authenticode::{AuthenticodeSignature, PeTrait, authenticode_digest};
use object::read::pe::{PeFile32, PeFile64};
use proptest::prelude::*;
use rootbound_common::crypto::{Digest, Hasher, hash};

use super::*;
use crate::boot::testing::{ImageBuilder, at, set, sign};
use rootbound_common::tpm::HashAlgorithm;

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;
/// Signed twice by `sbsign`: see `ORIGIN.md` beside it.
const SIGNED: &[u8] = include_bytes!("../../../fixtures/signed-twice.efi");

fn two_sections() -> ImageBuilder {
    ImageBuilder::new().section(".text", &[0x90; 700]).section(".data", &[7; 512])
}

fn digest(bytes: &[u8]) -> Digest {
    Image::parse(bytes).unwrap().authenticode(SHA256)
}

/// The hash by somebody else's code, which needs a certificate directory.
fn by_authenticode(bytes: &[u8]) -> Option<Digest> {
    let with = |pe: &dyn PeTrait| {
        let mut hash = Theirs(Hasher::new(SHA256));
        authenticode_digest(pe, &mut hash).ok()?;
        Some(hash.0.finish())
    };
    match PeFile64::parse(bytes) {
        Ok(pe) => with(&pe),
        Err(_) => with(&PeFile32::parse(bytes).ok()?),
    }
}

/// What authenticode feeds.
struct Theirs(Hasher);

impl ::digest::Update for Theirs {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
}

#[test]
fn all_but_checksum_certificate_entry_and_certificates_is_hashed() {
    for builder in [two_sections(), two_sections().pe32(), two_sections().trailer(b"overlay of odd length")] {
        let mut file = builder.build();
        let expected = digest(&file);
        assert_eq!(by_authenticode(&file), Some(expected));
        set(&mut file, at::CHECKSUM, 0xdead_beef);
        assert_eq!(digest(&file), expected, "the checksum is not hashed");
        for position in [at::PE + 4, at::HEADERS + 8, at::DATA + 1, file.len() - 1] {
            let mut other = file.clone();
            other[position] ^= 1;
            assert_ne!(digest(&other), expected, "byte {position} is hashed");
        }
    }
    let mut file = two_sections().trailer(&[1; 8]).build();
    let expected = digest(&file);
    sign(&mut file, &[8, 0, 0, 0, 0, 2, 2, 0]);
    assert_eq!(digest(&file), expected, "certificates are not hashed");
    assert_eq!(by_authenticode(&file), Some(expected));
}

#[test]
fn an_image_without_a_certificate_directory_is_hashed_to_the_end_of_its_headers() {
    let file = two_sections().directories(4).build();
    let image = Image::parse(&file).unwrap();
    let expected = hash(SHA256, &[&file[..at::CHECKSUM], &file[at::CHECKSUM + 4..]]);
    assert_eq!(image.authenticode(SHA256), expected);
    assert!(!image.is_signed());
}

#[test]
fn sections_are_hashed_in_the_order_of_their_data_and_empty_ones_not_at_all() {
    let file = two_sections().build();
    let second = at::SECTIONS + 40;
    let swapped = {
        let mut other = file.clone();
        other.copy_within(second..second + 40, at::SECTIONS);
        other[second..second + 40].copy_from_slice(&file[at::SECTIONS..second]);
        other
    };
    let headers = |file: &[u8]| -> Vec<u8> {
        [&file[..at::CHECKSUM], &file[at::CHECKSUM + 4..at::SECURITY], &file[at::SECURITY + 8..512]].concat()
    };
    assert_eq!(digest(&swapped), hash(SHA256, &[&headers(&swapped), &file[512..]]));
    let mut empty = file.clone();
    set(&mut empty, second + 16, 0);
    set(&mut empty, second + 20, 0xffff_ffff);
    assert_eq!(digest(&empty), hash(SHA256, &[&headers(&empty), &file[512..]]));
}

#[test]
fn each_bank_has_its_own_digest() {
    let file = two_sections().build();
    let image = Image::parse(&file).unwrap();
    for algorithm in HashAlgorithm::ALL {
        assert_eq!(image.authenticode(algorithm).algorithm(), algorithm);
    }
}

#[test]
fn every_hostile_layout_is_refused_by_its_own_name_with_its_offset() {
    let good = two_sections().build();
    let size = good.len();
    let with = |fields: &[(usize, u32)]| {
        let mut file = good.clone();
        fields.iter().for_each(|(at, value)| set(&mut file, *at, *value));
        Image::parse(&file).unwrap_err()
    };
    let second = at::SECTIONS + 40;
    let cut = |length: usize| Image::parse(&good[..length]).unwrap_err();
    let end = u32::try_from(size).unwrap();
    let cases = [
        (with(&[(0, 0x4d5a)]), PeError::NotMz),
        (cut(1), PeError::Truncated { what: "the DOS header", offset: 0, size: 1 }),
        (cut(70), PeError::Truncated { what: "the COFF header", offset: 70, size: 70 }),
        (with(&[(at::PE, 0x4550_0000)]), PeError::NoPeSignature { offset: 64 }),
        (
            with(&[(at::LFANEW, u32::MAX)]),
            PeError::Truncated { what: "the PE signature", offset: 0xffff_ffff, size },
        ),
        (with(&[(at::OPTIONAL, 0x107)]), PeError::NeitherPe32NorPe32Plus { offset: 88, magic: 0x107 }),
        (with(&[(at::DIRECTORIES, 17)]), PeError::TooManyDirectories { offset: 196, count: 17 }),
        (with(&[(84, 0x0222_0070)]), PeError::OptionalHeaderTooSmall { offset: 88, size: 112 }),
        (with(&[(84, 0x0222_0040)]), PeError::OptionalHeaderTooSmall { offset: 88, size: 64 }),
        (with(&[(at::SECTION_COUNT, 97)]), PeError::TooManySections { offset: 70, count: 97 }),
        (with(&[(at::HEADERS, 400)]), PeError::HeaderSize { offset: 148, claimed: 400, needed: 408, size }),
        (
            with(&[(at::HEADERS, end + 1)]),
            PeError::HeaderSize { offset: 148, claimed: size + 1, needed: 408, size },
        ),
        (
            with(&[(second + 16, 0xffff_ffff)]),
            PeError::SectionBeyondEnd { offset: second, index: 1, end: 0xffff_ffff + 1536, size },
        ),
        (
            with(&[(at::SECTIONS + 20, 8)]),
            PeError::SectionInHeaders { offset: at::SECTIONS, index: 0, start: 8, headers: 512 },
        ),
        (
            with(&[(second + 20, 1024)]),
            PeError::SectionsOverlap { offset: second, first: 0, second: 1, at: 1024 },
        ),
        (
            with(&[(at::SECURITY, end), (at::SECURITY + 4, 8)]),
            PeError::CertificatesBeyondEnd { offset: 232, end: size + 8, size },
        ),
        (
            with(&[(at::SECURITY, 1536), (at::SECURITY + 4, end - 1536)]),
            PeError::CertificatesInImage { offset: 232, start: 1536, image_end: size },
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
        assert!(found == PeError::NotMz || found.to_string().contains("offset"), "{found}");
    }
    let overlaid = two_sections().trailer(&[0; 32]).build();
    let with = |start: usize, size: u32| {
        let mut file = overlaid.clone();
        set(&mut file, at::SECURITY, u32::try_from(start).unwrap());
        set(&mut file, at::SECURITY + 4, size);
        Image::parse(&file).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(size + 4, 28), PeError::CertificatesUnaligned { offset: 232, start: size + 4 });
    assert_eq!(with(size, 24), PeError::DataAfterCertificates { offset: size + 24, size: size + 32 });
}

#[test]
fn an_image_that_is_too_large_is_not_looked_at() {
    // Zeros, which no page has to be touched for.
    let file = vec![0; MAX_IMAGE + 1];
    assert_eq!(Image::parse(&file).unwrap_err(), PeError::TooLarge { size: MAX_IMAGE + 1 });
}

#[test]
fn a_certificate_table_is_bounded() {
    let signatures = |table: &[u8]| {
        let mut file = two_sections().build();
        sign(&mut file, table);
        Image::parse(&file).unwrap().signatures()
    };
    let start = two_sections().build().len();
    let empty: &[u8] = &[8, 0, 0, 0, 0, 2, 2, 0];
    assert_eq!(signatures(&[]), Ok(Vec::new()));
    assert_eq!(
        signatures(&[7, 0, 0, 0, 0, 2, 2, 0]),
        Err(PeError::CertificateLength { offset: start, length: 7, left: 8 })
    );
    assert_eq!(
        signatures(&[9, 0, 0, 0, 0, 2, 2, 0]),
        Err(PeError::CertificateLength { offset: start, length: 9, left: 8 })
    );
    assert_eq!(signatures(&[8, 0, 0]), Err(PeError::CertificateLength { offset: start, length: 3, left: 3 }));
    assert_eq!(signatures(&empty.repeat(32)).map(|all| all.len()), Ok(32));
    assert_eq!(signatures(&empty.repeat(33)), Err(PeError::TooManyCertificates { offset: start + 32 * 8 }));
    let problem = |table: &[u8]| signatures(table).unwrap()[0].problem;
    assert_eq!(problem(empty), Some(SignatureProblem::Malformed));
    assert_eq!(
        problem(&[8, 0, 0, 0, 0, 1, 0xf1, 0x0e]),
        Some(SignatureProblem::Kind { revision: 0x100, kind: 0xef1 })
    );
}

#[test]
fn each_signature_names_its_digest_and_its_certificates() {
    let image = Image::parse(SIGNED).unwrap();
    let signatures = image.signatures().unwrap();
    let digest = image.authenticode(SHA256);
    assert_eq!(by_authenticode(SIGNED), Some(digest));
    let named: Vec<_> = signatures.iter().map(|one| one.certificates[0].subject.as_str()).collect();
    assert_eq!(named, ["CN=First signer", "CN=Second signer"]);
    // By `openssl x509 -fingerprint -sha256`.
    let fingerprints: Vec<_> = signatures.iter().map(|one| one.certificates[0].sha256.to_string()).collect();
    assert_eq!(
        fingerprints,
        include_str!("../../../fixtures/signed-twice.sha256").split_whitespace().collect::<Vec<_>>()
    );
    for signature in &signatures {
        assert_eq!(signature.digest, Some(digest), "what is signed is what is computed");
        assert_eq!(signature.problem, None);
        let der = &SIGNED[signature.offset + 8..];
        let length = usize::from(u16::from_be_bytes([der[2], der[3]])) + 4;
        let theirs = AuthenticodeSignature::from_bytes(&der[..length]).unwrap();
        assert_eq!(theirs.digest(), digest.as_bytes());
    }
}

/// A signature over nothing, with certificates that are none.
fn signature_with(certificates: usize) -> Option<SignatureProblem> {
    let der = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], &content].concat()
    };
    // The reader takes the shortest form of a length only.
    let short = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        match u8::try_from(content.len()) {
            Ok(length @ 0..128) => [&[tag, length], &content[..]].concat(),
            Ok(length) => [&[tag, 0x81, length], &content[..]].concat(),
            Err(_) => der(tag, &[&content]),
        }
    };
    let sha256 = short(0x30, &[&[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1]]);
    let message = short(0x30, &[&sha256, &short(0x04, &[&[7; 32]])]);
    let indirect = short(0x30, &[&short(0x30, &[]), &message]);
    let oid = [0x06, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 4];
    let content = short(0x30, &[&oid, &short(0xa0, &[&indirect])]);
    let certificates = short(0xa0, &[&short(0x30, &[]).repeat(certificates)]);
    let signed = short(0x30, &[&[2, 1, 1], &short(0x31, &[]), &content, &certificates]);
    let oid = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
    let info = short(0x30, &[&oid, &short(0xa0, &[&signed])]);
    let length = u32::try_from(info.len() + 8).unwrap().to_le_bytes();
    let mut table = [&length[..], &[0, 2, 2, 0], &info].concat();
    table.resize(table.len().next_multiple_of(8), 0);
    let mut file = two_sections().build();
    sign(&mut file, &table);
    let signature = Image::parse(&file).unwrap().signatures().unwrap().remove(0);
    assert_eq!(signature.digest, Digest::from_slice(SHA256, &[7; 32]));
    assert_eq!(signature.certificates, []);
    signature.problem
}

#[test]
fn certificates_that_are_none_or_too_many_are_a_problem_of_their_own() {
    assert_eq!(signature_with(0), None);
    assert_eq!(signature_with(1), Some(SignatureProblem::Certificate));
    assert_eq!(signature_with(64), Some(SignatureProblem::Certificate));
    assert_eq!(signature_with(65), Some(SignatureProblem::TooManyCertificates));
}

#[test]
fn a_damaged_signature_is_a_hint_less_and_the_digest_stays() {
    let good = Image::parse(SIGNED).unwrap();
    let first = good.signatures().unwrap()[0].offset;
    let mut unreadable = 0;
    for at in first + 8..first + 1200 {
        let mut file = SIGNED.to_vec();
        file[at] ^= 0x55;
        let image = Image::parse(&file).unwrap();
        assert_eq!(image.authenticode(SHA256), good.authenticode(SHA256));
        unreadable += usize::from(image.signatures().unwrap()[0].problem.is_some());
    }
    assert!(unreadable > 50, "{unreadable}");
}

#[test]
fn long_section_names_are_those_of_the_string_table() {
    let mut file = two_sections().section("/4", b"x").build();
    let table = file.len();
    file.extend(b"\x18\0\0\0.sbatlevel\0");
    set(&mut file, at::PE + 12, u32::try_from(table).unwrap());
    assert!(Image::parse(&file).unwrap().section(".sbatlevel").is_some());
    set(&mut file, at::PE + 12, 0);
    assert!(Image::parse(&file).unwrap().section("/4").is_some(), "no table, no long name");
}

/// `sbsign` pads to 8 bytes before it hashes: its digest is that of the image that it writes.
#[test]
fn the_digest_that_sbsign_signs_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let run = |program: &str, arguments: &[&Path]| {
        Command::new(program).args(arguments).current_dir(folder.path()).output()
    };
    if run("sbsign", &[Path::new("--help")]).is_err() {
        use std::io::Write;
        writeln!(std::io::stderr(), "skipped: the_digest_that_sbsign_signs_is_ours: no sbsign").unwrap();
        return;
    }
    let words = "req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -subj /CN=Test -days 9";
    let words: Vec<_> = words.split(' ').map(Path::new).collect();
    assert!(run("openssl", &words).unwrap().status.success());
    for builder in
        [two_sections(), two_sections().trailer(b"odd"), ImageBuilder::new().section(".text", &[1; 9])]
    {
        std::fs::write(path("in"), builder.build()).unwrap();
        let words = ["--key", "key", "--cert", "cert", "--output", "out", "in"].map(Path::new);
        let output = run("sbsign", &words).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let signed = std::fs::read(path("out")).unwrap();
        let image = Image::parse(&signed).unwrap();
        let signature = image.signatures().unwrap().remove(0);
        assert_eq!(signature.digest, Some(image.authenticode(SHA256)));
        assert_eq!(signature.certificates[0].subject, "CN=Test");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = Image::parse(&bytes).map(|image| (image.authenticode(SHA256), image.signatures().is_ok()));
    }

    #[test]
    fn what_is_taken_of_a_mutated_image_is_hashed_as_others_do(
        changes in proptest::collection::vec((0_usize..2600, any::<u8>()), 1..6),
        header in proptest::collection::vec((64_usize..412, any::<u8>()), 0..3),
    ) {
        let mut file = SIGNED.to_vec();
        for (at, value) in changes.into_iter().chain(header) {
            if let Some(byte) = file.get_mut(at) { *byte = value; }
        }
        if let Ok(image) = Image::parse(&file) {
            let _ = image.signatures();
            let ours = image.authenticode(SHA256);
            // Theirs hashes no image without a certificate directory as firmware does, and reads empty sections.
            if image.security.is_some() && image.sections.iter().all(|one| !one.data.is_empty())
                && let Some(theirs) = by_authenticode(&file) {
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
