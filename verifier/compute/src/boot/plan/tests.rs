use rootbound_common::crypto::hash;

use super::*;
use crate::boot::testing::{ImageBuilder, at};
use crate::values::Measured;

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;
const SIGNED: &[u8] = include_bytes!("../../../fixtures/signed-twice.efi");

fn image(byte: u8) -> Vec<u8> {
    ImageBuilder::new().section(".text", &[byte; 40]).build()
}

fn uki(kernel: &[u8]) -> Vec<u8> {
    uki_of("252", kernel)
}

fn uki_of(version: &str, kernel: &[u8]) -> Vec<u8> {
    ImageBuilder::new()
        .section(".sdmagic", format!("#### LoaderInfo: systemd-stub {version} ####").as_bytes())
        .section(".cmdline", b"quiet\n")
        .section(".initrd", b"initrd")
        .section(".linux", kernel)
        .build()
}

fn plan<'a>() -> Plan<'a> {
    Plan::new(SHA256, Source { package: Some("linux".to_owned()), ..Source::default() })
}

fn file<'a>(name: &'a str, content: &'a [u8]) -> File<'a> {
    File { name, content }
}

fn authenticode(bytes: &[u8]) -> Digest {
    Image::parse(bytes).unwrap().authenticode(SHA256)
}

/// A PCR's value by extending it here.
fn extended(digests: &[Digest]) -> Digest {
    digests.iter().fold(Digest::zero(SHA256), |pcr, one| hash(SHA256, &[pcr.as_bytes(), one.as_bytes()]))
}

/// The values computed for a PCR, in their order.
fn of_pcr(values: &BootValues, pcr: u8) -> Vec<Digest> {
    values.pcrs.iter().filter(|value| value.pcr.get() == pcr).map(|value| value.value.0).collect()
}

fn applications(images: &[&[u8]]) -> Digest {
    let action = hash(SHA256, &[b"Calling EFI Application from Boot Option"]);
    let mut digests = vec![action, hash(SHA256, &[&[0; 4]])];
    digests.extend(images.iter().map(|image| authenticode(image)));
    extended(&digests)
}

#[test]
fn systemd_boot_starts_a_kernel() {
    let (loader, kernel) = (image(1), image(2));
    let values = Plan {
        applications: vec![file("/boot/systemd-bootx64.efi", &loader)],
        kernel: Some(file("vmlinuz", &kernel)),
        initrds: vec![(file("/boot/initrd.img", b"initrd"), "/initrd")],
        command_line: Some("quiet"),
        loader: Some(Loader::SystemdBoot),
        ..plan()
    };
    let values = values.compute().unwrap();
    assert_eq!(of_pcr(&values, 4), [applications(&[&loader, &kernel])]);
    let text = crate::boot::event::utf16("initrd=\\initrd quiet");
    let (options, initrd) = (hash(SHA256, &[&text]), hash(SHA256, &[b"initrd"]));
    assert_eq!(of_pcr(&values, 9), [extended(&[options, initrd])]);
    assert_eq!(of_pcr(&values, 12), [extended(&[options])]);
    let found: Vec<_> = values
        .values
        .iter()
        .map(|value| (&value.measured, value.source.file.as_deref(), value.source.package.as_deref()))
        .collect();
    let expected = [
        (
            Measured::BootApplication { digest: TaggedDigest(authenticode(&loader)) },
            Some("/boot/systemd-bootx64.efi"),
        ),
        (Measured::BootApplication { digest: TaggedDigest(authenticode(&kernel)) }, Some("vmlinuz")),
        // Once, though it is measured twice.
        (Measured::CommandLine { text: "initrd=\\initrd quiet".to_owned() }, None),
        (Measured::Initrd { digest: TaggedDigest(initrd) }, Some("/boot/initrd.img")),
    ];
    assert_eq!(found.len(), expected.len());
    for ((measured, file, package), expected) in found.into_iter().zip(&expected) {
        assert_eq!((measured, file), (&expected.0, expected.1));
        assert_eq!(package, Some("linux"));
    }
}

#[test]
fn a_unified_kernel_image_has_values_for_each_phase_and_with_and_without_the_kernel_inside() {
    let kernel = image(7);
    let unified = uki(&kernel);
    let values = Plan { uki: Some(file("uki.efi", &unified)), ..plan() }.compute().unwrap();
    assert_eq!(of_pcr(&values, 4), [applications(&[&unified]), applications(&[&unified, &kernel])]);
    let mut digests = Vec::new();
    for (name, content) in [(".linux\0", &kernel[..]), (".cmdline\0", b"quiet\n"), (".initrd\0", b"initrd")] {
        digests.extend([hash(SHA256, &[name.as_bytes()]), hash(SHA256, &[content])]);
    }
    let mut expected = vec![extended(&digests)];
    for phase in ["enter-initrd", "leave-initrd", "sysinit", "ready"] {
        digests.push(hash(SHA256, &[phase.as_bytes()]));
        expected.push(extended(&digests));
    }
    assert_eq!(of_pcr(&values, 11), expected);
    let options = hash(SHA256, &[&crate::boot::event::utf16("quiet")]);
    assert_eq!(of_pcr(&values, 9), [extended(&[options, hash(SHA256, &[b"initrd"])])]);
    assert_eq!(of_pcr(&values, 12), []);
    let phases = values.values.iter().filter(|value| value.label.starts_with("systemd-pcrphase"));
    assert!(phases.clone().count() == 4 && phases.into_iter().all(|value| value.source.file.is_none()));
}

#[test]
fn the_kernel_in_a_unified_image_of_258_is_no_boot_application() {
    let kernel = image(7);
    let unified = uki_of("258", &kernel);
    let values = Plan { uki: Some(file("uki.efi", &unified)), ..plan() }.compute().unwrap();
    assert_eq!(of_pcr(&values, 4), [applications(&[&unified])]);
    let label = &values.pcrs.iter().find(|value| value.pcr.get() == 4).unwrap().label;
    assert!(label.ends_with("Secure Boot on or off"), "{label}");
    let found: Vec<_> = values
        .values
        .iter()
        .filter(|value| matches!(value.measured, Measured::BootApplication { .. }))
        .map(|value| value.measured.clone())
        .collect();
    assert_eq!(found, [Measured::BootApplication { digest: TaggedDigest(authenticode(&unified)) }]);
}

#[test]
fn systemd_boot_of_before_254_hands_on_the_command_line_of_the_image() {
    let (loader, unified) = (image(1), uki(&image(7)));
    let values = Plan {
        applications: vec![file("systemd-bootx64.efi", &loader)],
        loader: Some(Loader::SystemdBoot),
        uki: Some(file("uki.efi", &unified)),
        ..plan()
    };
    let values = values.compute().unwrap();
    let options = hash(SHA256, &[&crate::boot::event::utf16("quiet")]);
    assert_eq!(of_pcr(&values, 12), [extended(&[options]), extended(&[options, options])]);
    assert_eq!(of_pcr(&values, 4)[0], applications(&[&loader, &unified]));
}

#[test]
fn a_command_line_from_outside_takes_the_place_of_the_image_s() {
    let unified = uki(&image(7));
    let plan = Plan { uki: Some(file("uki.efi", &unified)), command_line: Some("debug"), ..plan() };
    let values = plan.compute().unwrap();
    let options = hash(SHA256, &[&crate::boot::event::utf16("debug")]);
    assert_eq!(of_pcr(&values, 12), [extended(&[options])]);
    assert_eq!(of_pcr(&values, 9), [extended(&[options, hash(SHA256, &[b"initrd"])])]);
    let texts: Vec<_> = values
        .values
        .iter()
        .filter_map(|value| match &value.measured {
            Measured::CommandLine { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(texts, ["debug"]);
}

#[test]
fn grub_has_pcr_values_only_where_all_of_its_commands_and_files_are_named() {
    let (grub, kernel) = (image(1), image(2));
    let boot = Plan {
        applications: vec![file("grubx64.efi", &grub)],
        kernel: Some(file("vmlinuz", &kernel)),
        kernel_path: Some("/vmlinuz"),
        command_line: Some("quiet"),
        loader: Some(Loader::Grub),
        ..plan()
    };
    let values = boot.compute().unwrap();
    assert_eq!((of_pcr(&values, 8), of_pcr(&values, 9)), (vec![], vec![]));
    assert_eq!(of_pcr(&values, 4), [applications(&[&grub])], "Secure Boot off");
    let shim = shim();
    let behind = Plan { shim: Some(file("shimx64.efi", &shim)), ..boot.clone() }.compute().unwrap();
    assert_eq!(
        of_pcr(&behind, 4),
        [applications(&[&shim, &grub]), applications(&[&shim, &grub, &kernel, &kernel])],
        "Secure Boot off, and on"
    );
    let of_shim = |values: &BootValues| values.pcrs.iter().filter(|pcr| pcr.label.contains("shim")).count();
    assert_eq!((of_shim(&values), of_shim(&behind)), (0, 2), "of PCR 4, and of 14");
    let whole = Plan {
        grub_commands: vec!["linux /vmlinuz quiet", "boot"],
        grub_files: vec![(file("grub.cfg", b"config"), "/grub/grub.cfg")],
        ..boot
    };
    let values = whole.compute().unwrap();
    let text = |text: &str| hash(SHA256, &[text.as_bytes()]);
    let texts = [text("linux /vmlinuz quiet"), text("/vmlinuz quiet"), text("boot")];
    assert_eq!(of_pcr(&values, 8), [extended(&texts)]);
    assert_eq!(of_pcr(&values, 9), [extended(&[hash(SHA256, &[b"config"]), hash(SHA256, &[&kernel])])]);
}

#[test]
fn qemu_starts_a_kernel_that_is_no_boot_application() {
    let kernel = image(2);
    let boot = Plan { kernel: Some(file("vmlinuz", &kernel)), loader: Some(Loader::Direct), ..plan() };
    let values = Plan { command_line: Some("a"), ..boot }.compute().unwrap();
    assert_eq!(of_pcr(&values, 4), []);
    assert!(values.notes.iter().any(|note| note.contains("PCR 4")), "{:?}", values.notes);
    assert_eq!(values.values.len(), 1);
}

#[test]
fn images_alone_are_values_and_nothing_is_said_of_pcrs() {
    let (application, driver) = (image(1), image(2));
    let plan = Plan {
        applications: vec![file("a.efi", &application)],
        drivers: vec![file("d.efi", &driver)],
        ..plan()
    };
    let values = plan.compute().unwrap();
    assert_eq!(values.pcrs, []);
    assert_eq!(values.values[0].measured, Measured::Driver { digest: TaggedDigest(authenticode(&driver)) });
    assert_eq!(values.values.len(), 2);
    let kernel = Plan { kernel: Some(file("vmlinuz", &application)), ..plan };
    assert_eq!(kernel.compute().unwrap().pcrs, [], "nobody said who starts it");
}

fn shim() -> Vec<u8> {
    let table = [[0; 8], [16, 0, 0, 0, 16, 0, 0, 0]].concat();
    let shim = ImageBuilder::new().section("/4", &table).build();
    let names = u32::try_from(shim.len()).unwrap();
    let mut shim = [&shim[..], b"\x11\0\0\0.vendor_cert\0"].concat();
    crate::boot::testing::set(&mut shim, at::PE + 12, names);
    shim
}

#[test]
fn what_shim_starts_but_grub_has_no_value_of_pcr_4() {
    let (kernel, shim) = (image(2), shim());
    let boot = Plan {
        shim: Some(file("shimx64.efi", &shim)),
        kernel: Some(file("vmlinuz", &kernel)),
        loader: Some(Loader::SystemdBoot),
        ..plan()
    };
    let values = boot.compute().unwrap();
    assert_eq!((of_pcr(&values, 4).len(), of_pcr(&values, 14).len()), (0, 1));
    assert!(values.values.iter().any(|value| value.label.contains("MokListTrusted")));
}

#[test]
fn what_signatures_embed_is_noted_and_so_is_one_over_another_image() {
    let noted = |bytes: &[u8]| {
        let values = Plan { applications: vec![file("a.efi", bytes)], ..plan() }.compute().unwrap();
        values.notes
    };
    let notes = noted(SIGNED);
    assert_eq!(notes.len(), 2);
    assert!(notes[0].contains("`CN=First signer`, sha256:") && notes[1].contains("CN=Second signer"));
    let mut other = SIGNED.to_vec();
    other[at::DATA] ^= 1;
    assert_eq!(noted(&other).iter().filter(|note| note.contains("over another image")).count(), 2);
}

#[test]
fn each_plan_that_makes_no_sense_is_refused_and_names_its_file() {
    let (kernel, unified) = (image(1), uki(&image(2)));
    let kernel = Some(file("vmlinuz", &kernel));
    let unified = Some(file("uki.efi", &unified));
    let initrds = vec![(file("initrd", b"i"), "/initrd")];
    let bad = file("bad.efi", b"no image");
    let refused = |plan: Plan<'_>| plan.compute().unwrap_err();
    assert_eq!(refused(Plan { command_line: Some("a"), kernel, ..plan() }), PlanError::NoLoader);
    assert_eq!(refused(Plan { initrds: initrds.clone(), ..plan() }), PlanError::NoLoader);
    assert_eq!(refused(Plan { loader: Some(Loader::Grub), ..plan() }), PlanError::NoKernel);
    assert_eq!(refused(Plan { uki: unified, kernel, ..plan() }), PlanError::TwoKernels);
    assert_eq!(refused(Plan { uki: unified, initrds, ..plan() }), PlanError::TwoKernels);
    assert_eq!(refused(Plan { uki: unified, loader: Some(Loader::Direct), ..plan() }), PlanError::TwoKernels);
    assert_eq!(
        refused(Plan { kernel, loader: Some(Loader::EfiStub), grub_commands: vec!["boot"], ..plan() }),
        PlanError::NotGrub
    );
    let image = refused(Plan { applications: vec![bad], ..plan() });
    assert_eq!(image, PlanError::Image { file: "bad.efi".to_owned(), source: PeError::NotMz });
    let no_shim = refused(Plan { shim: kernel, ..plan() });
    let expected = PlanError::Shim { file: "vmlinuz".to_owned(), source: ShimError::NoVendorCertificate };
    assert_eq!(no_shim, expected);
    let no_uki = refused(Plan { uki: kernel, ..plan() });
    assert_eq!(no_uki, PlanError::Uki { file: "vmlinuz".to_owned(), source: UkiError::NoKernel });
    for error in [image, no_shim, no_uki] {
        assert!(error.to_string().contains(": "), "{error}");
    }
}
