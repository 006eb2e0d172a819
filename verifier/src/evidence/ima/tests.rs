//! Lists that lie, and what each comes to.

use super::testing::{around, content, entry, field, file, ima_buf, ima_ng, ima_sig, violation};
use super::*;
use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

/// PCR 10 after entries, by a second hand: from the parts that the tests put together, not from parsed ones.
fn extended(value: &Digest, with: &[u8]) -> Digest {
    hash(value.algorithm(), &[value.as_bytes(), with])
}

/// Five files, one after the other, and the value after each.
fn list() -> (Vec<Vec<u8>>, Vec<Digest>) {
    let files = ["boot_aggregate", "/init", "/bin/sh", "/bin/a", "/bin/b"];
    let mut values = vec![Digest::zero(SHA256)];
    for path in files {
        let data = file(&content(path), path.as_bytes());
        values.push(extended(values.last().unwrap(), hash(SHA256, &[&data]).as_bytes()));
    }
    (files.iter().map(|path| ima_ng(path, path)).collect(), values)
}

fn walk_from(
    progress: Option<Progress>,
    bytes: &[u8],
    quoted: Digest,
) -> Result<(Walked, Vec<Cover>), ImaError> {
    let mut covers = Vec::new();
    let mut walk = Walk::begin(progress, quoted, BankMode::Native)?;
    walk.push(bytes, &mut |_, cover| covers.push(cover))?;
    Ok((walk.finish()?, covers))
}

fn walk(bytes: &[u8], quoted: Digest) -> Result<(Walked, Vec<Cover>), ImaError> {
    walk_from(None, bytes, quoted)
}

/// The first error of a parser, or the end of the list.
fn parse_all(bytes: &[u8]) -> Result<u64, ImaError> {
    let mut parser = ListParser::new(0, HashAlgorithm::Sha1);
    parser.push(bytes, |_| Ok::<_, ImaError>(()))?;
    parser.finish()
}

fn code<T: std::fmt::Debug>(result: Result<T, ImaError>) -> &'static str {
    result.unwrap_err().code()
}

#[test]
fn a_list_that_comes_to_the_quoted_value_is_covered_to_there_and_claimed_beyond() {
    let (entries, values) = list();
    for reached in 0..=5 {
        let (walked, covers) = walk(&entries.concat(), values[reached]).unwrap();
        let reached_entries = u64::try_from(reached).unwrap();
        assert_eq!((walked.covered(), walked.newly_covered()), (reached_entries, reached_entries));
        assert_eq!(walked.lag(), 5 - reached_entries);
        assert_eq!(covers, [vec![Cover::Quote; reached], vec![Cover::Tail; 5 - reached]].concat());
        assert_eq!(walked.progress().prefix().value, values[reached]);
        let claim = walked.progress().claim().map(|claim| (claim.entries, claim.value));
        assert_eq!(claim, (reached < 5).then_some((5, values[5])));
        let length = |count: usize| u64::try_from(entries[..count].concat().len()).unwrap();
        assert_eq!(walked.progress().prefix().bytes, length(reached));
    }
}

/// Attacks 66 and 68.
#[test]
fn dropped_moved_added_or_changed_entries_never_come_to_the_quoted_value() {
    let (entries, values) = list();
    let quoted = values[5];
    let without = |at: usize| [&entries[..at], &entries[at + 1..]].concat().concat();
    let mut cases = vec![("nothing at all", Vec::new()), ("an entry twice", entries.concat())];
    cases[1].1.splice(0..0, entries[0].clone());
    for at in 0..5 {
        cases.push(("an entry dropped", without(at)));
    }
    for at in 0..4 {
        let mut swapped = entries.clone();
        swapped.swap(at, at + 1);
        cases.push(("two entries swapped", swapped.concat()));
    }
    for changed in [ima_ng("/bin/good", "/bin/sh"), ima_ng("/bin/sh", "good"), violation("/bin/sh")] {
        let mut other = entries.clone();
        other[2] = changed;
        cases.push(("an entry changed, with its hash", other.concat()));
    }
    for (case, bytes) in cases {
        assert_eq!(code(walk(&bytes, quoted)), "ima_quoted_value_not_reached", "{case}");
    }
}

/// Attack 68: the walk proves data by hashes of its own, so that a template hash that lies changes nothing before the
/// quoted value; where no quote vouches, it is refused.
#[test]
fn a_template_hash_alone_changes_nothing_or_is_refused() {
    let (entries, values) = list();
    let data = file(&content("/bin/sh"), b"/bin/sh");
    let mut lying = entries.clone();
    lying[2] = around("ima-ng", &[7; 20], &data);
    let honest = walk(&entries.concat(), values[5]).unwrap();
    assert_eq!(walk(&lying.concat(), values[5]).unwrap(), honest);
    assert_eq!(code(walk(&lying.concat(), values[2])), "ima_template_hash_mismatch");
    let mut parser = ListParser::new(0, HashAlgorithm::Sha1);
    let mut fits = Vec::new();
    parser
        .push(&lying.concat(), |entry| {
            fits.push(entry.template_hash_fits());
            Ok::<_, ImaError>(())
        })
        .unwrap();
    assert_eq!(fits, [true, true, false, true, true]);
}

/// Attack 66: where a list begins is not the machine's to say.
#[test]
fn a_list_from_another_place_than_the_prefix_is_refused() {
    let (entries, values) = list();
    let (walked, _) = walk(&entries[..3].concat(), values[3]).unwrap();
    let progress = Some(*walked.progress());
    let (next, covers) = walk_from(progress, &entries[3..].concat(), values[5]).unwrap();
    assert_eq!((next.covered(), next.newly_covered(), covers.len()), (5, 2, 2));
    for begins in [0, 1, 2, 4] {
        let refused = walk_from(progress, &entries[begins..].concat(), values[5]);
        assert_eq!(code(refused), "ima_quoted_value_not_reached", "from entry {begins}");
    }
}

/// Attack 80.
#[test]
fn a_list_whose_front_the_kernel_dropped_goes_on_from_the_prefix() {
    let (entries, values) = list();
    let (walked, _) = walk(&entries[..4].concat(), values[4]).unwrap();
    let (next, _) = walk_from(Some(*walked.progress()), &entries[4], values[5]).unwrap();
    assert_eq!(next.covered(), 5);
    let (same, covers) = walk_from(Some(*next.progress()), &[], values[5]).unwrap();
    assert_eq!((same.covered(), same.newly_covered(), same.lag(), covers.len()), (5, 0, 0, 0));
}

/// Attack 67.
#[test]
fn what_was_claimed_beyond_the_quote_has_to_be_covered_by_the_next() {
    let (entries, values) = list();
    let (walked, _) = walk(&entries[..4].concat(), values[2]).unwrap();
    let progress = Some(*walked.progress());
    assert_eq!(walked.lag(), 2);
    let (next, _) = walk_from(progress, &entries[2..].concat(), values[5]).unwrap();
    assert_eq!((next.covered(), next.lag()), (5, 0));
    for (bytes, quoted, case) in [
        (entries[2..].concat(), values[3], "a quote that covers a part"),
        (Vec::new(), values[2], "nothing new under the old quote"),
        (entries[2..3].concat(), values[3], "a list that has shrunk"),
    ] {
        assert_eq!(code(walk_from(progress, &bytes, quoted)), "ima_tail_not_covered", "{case}");
    }
    let other = [entries[2].clone(), ima_ng("/bin/other", "x"), entries[4].clone()].concat();
    let data = [
        hash(SHA256, &[&file(&content("x"), b"/bin/other")]),
        hash(SHA256, &[&file(&content("/bin/b"), b"/bin/b")]),
    ];
    let quoted = data.iter().fold(values[3], |value, data| extended(&value, data.as_bytes()));
    assert_eq!(code(walk_from(progress, &other, quoted)), "ima_tail_changed");
}

/// Attack 70.
#[test]
fn a_violation_extends_all_ones_and_its_hash_alone_makes_it_one() {
    let ones = extended(&Digest::zero(SHA256), &[0xff; 32]);
    let (walked, _) = walk(&violation("/var/log/x"), ones).unwrap();
    assert_eq!(walked.covered(), 1);
    let data = file(&[0; 32], b"/var/log/x");
    let hidden = around("ima-ng", hash(HashAlgorithm::Sha1, &[&data]).as_bytes(), &data);
    assert_eq!(code(walk(&hidden, ones)), "ima_quoted_value_not_reached");
    let (entries, values) = list();
    let made = [entries[0].clone(), around("ima-ng", &[0; 20], &file(&[0; 32], b"/init"))].concat();
    assert_eq!(code(walk(&made, values[2])), "ima_quoted_value_not_reached");
    let with_digest = around("ima-ng", &[0; 20], &file(&content("x"), b"/x"));
    assert_eq!(code(parse_all(&with_digest)), "ima_entry_malformed");
    let short = around("ima-ng", &[0; 20], &file(&[0; 20], b"/x"));
    assert_eq!(parse_all(&short), Ok(1), "20 zeros whatever the algorithm, before Linux 5.15");
}

/// Attack 79.
#[test]
fn padded_sha1_is_accepted_in_its_own_mode_only() {
    let data = file(&content("/init"), b"/init");
    let padded = [hash(HashAlgorithm::Sha1, &[&data]).as_bytes(), &[0; 12]].concat();
    let old = extended(&Digest::zero(SHA256), &padded);
    let old = extended(&old, &[&[0xff; 20][..], &[0; 12]].concat());
    let bytes = [ima_ng("/init", "/init"), violation("/x")].concat();
    assert_eq!(code(walk(&bytes, old)), "ima_quoted_value_not_reached");
    let mut walk = Walk::begin(None, old, BankMode::PaddedSha1).unwrap();
    walk.push(&bytes, &mut |_, _| {}).unwrap();
    let walked = walk.finish().unwrap();
    assert_eq!((walked.covered(), walked.mode()), (2, BankMode::PaddedSha1));

    let bank = HashAlgorithm::Sha384;
    let padded = [hash(HashAlgorithm::Sha1, &[&data]).as_bytes(), &[0; 28]].concat();
    let new = extended(&extended(&Digest::zero(bank), &padded), &[0xff; 48]);
    let mut walk = Walk::begin(None, new, BankMode::PaddedSha1).unwrap();
    walk.push(&bytes, &mut |_, _| {}).unwrap();
    assert_eq!(walk.finish().unwrap().covered(), 2, "later kernels fill the bank for a violation");
}

/// Attack 73.
#[test]
fn all_eight_templates_may_be_mixed_and_a_ninth_is_refused() {
    let digest = content("x");
    let ng = file(&digest, b"/x");
    let v2 =
        |kind: &str| [field(&[kind.as_bytes(), b":sha256:\0", &digest].concat()), field(b"/x\0")].concat();
    let legacy = [hash(HashAlgorithm::Sha1, &[b"x"]).as_bytes(), &field(b"x")].concat();
    let hashed = [hash(HashAlgorithm::Sha1, &[b"x"]).as_bytes(), b"x", &[0; 255]].concat();
    let evm =
        [&ng[..], &field(b"\x05sig"), &field(b"security.ima\0"), &field(&[4, 0, 0, 0]), &field(b"vvvv")];
    let evm = [evm.concat(), field(&[0; 4]), field(&[0; 4]), field(&[0; 2])].concat();
    let modsig = [&ng[..], &field(b""), &field(b""), &field(b"pkcs7")].concat();
    let list = [
        around("ima", hash(HashAlgorithm::Sha1, &[&hashed]).as_bytes(), &legacy),
        entry("ima-ng", &ng),
        entry("ima-sig", &[&ng[..], &field(b"s")].concat()),
        entry("ima-ngv2", &v2("ima")),
        entry("ima-sigv2", &[v2("verity"), field(b"")].concat()),
        ima_buf("kernel_version", b"6.1"),
        entry("ima-modsig", &modsig),
        entry("evm-sig", &evm),
    ];
    let mut seen = Vec::new();
    let mut parser = ListParser::new(0, HashAlgorithm::Sha1);
    parser
        .push(&list.concat(), |entry| {
            assert!(entry.template_hash_fits(), "{:?}", entry.template());
            seen.push((entry.template(), entry.digest().kind));
            Ok::<_, ImaError>(())
        })
        .unwrap();
    assert_eq!(parser.finish(), Ok(8));
    let verity = Template::ImaSigV2;
    let kind = |template| if template == verity { DigestKind::Verity } else { DigestKind::Content };
    assert_eq!(seen, Template::ALL.map(|template| (template, kind(template))));

    for name in ["ima-new", "", "d-ng|n-ng", "IMA-NG"] {
        let refused = parse_all(&[list[1].clone(), around(name, &[1; 20], &ng)].concat());
        assert_eq!(code(refused), "ima_unknown_template", "{name}");
    }
}

/// Attack 74.
#[test]
fn an_entry_for_another_pcr_is_refused() {
    for pcr in [0u32, 9, 11, 0x0a00_0000, u32::MAX] {
        let mut other = ima_ng("/x", "x");
        other[..4].copy_from_slice(&pcr.to_le_bytes());
        assert_eq!(parse_all(&other), Err(ImaError::OtherPcr { entry: 0, pcr }));
    }
}

/// Attack 81: refused by the length that is stated, before anything of it is kept.
#[test]
fn an_entry_of_ten_megabytes_is_refused_at_its_head() {
    for template in ["ima-ng", "ima"] {
        let data: &[u8] = if template == "ima" { &[1; 20] } else { &[] };
        let mut head = 10u32.to_le_bytes().to_vec();
        head.extend([1; 20]);
        head.extend(field(template.as_bytes()));
        head.extend(data);
        head.extend(10_000_000u32.to_le_bytes());
        assert_eq!(code(parse_all(&head)), "ima_entry_too_long", "{template}");
    }
    let mut name = 10u32.to_le_bytes().to_vec();
    name.extend([1; 20]);
    name.extend(u32::MAX.to_le_bytes());
    assert_eq!(code(parse_all(&name)), "ima_entry_too_long");
}

/// Attack 81.
#[test]
fn a_million_and_one_entries_are_too_many_and_so_are_too_many_bytes() {
    let one = ima_ng("/x", "x");
    let mut parser = ListParser::new(MAX_ENTRIES - 1, HashAlgorithm::Sha1);
    assert_eq!(parser.push(&one, |_| Ok::<_, ImaError>(())), Ok(()));
    assert_eq!(parser.push(&one, |_| Ok::<_, ImaError>(())), Err(ImaError::TooManyEntries));
    let value = Digest::from_slice(SHA256, &[1; 32]).unwrap();
    let far = Position { entries: 5, bytes: MAX_BYTES, value };
    let progress = Progress::restore(far, None).unwrap();
    assert_eq!(walk_from(Some(progress), &one, value).unwrap_err(), ImaError::TooManyBytes);
}

/// Attack 81: a path is bytes.
#[test]
fn names_are_bytes_and_shown_safely() {
    let name = b"/tmp/\xff\r\n\x1b[2J";
    let odd = entry("ima-ng", &file(&content("x"), name));
    let mut parser = ListParser::new(0, HashAlgorithm::Sha1);
    let mut shown = String::new();
    parser
        .push(&odd, |entry| {
            assert_eq!(entry.name(), name);
            shown = Shown::of(entry.name()).to_string();
            Ok::<_, ImaError>(())
        })
        .unwrap();
    assert_eq!(shown, "/tmp/\u{fffd}\\u{d}\\u{a}\\u{1b}[2J");
}

#[test]
fn fields_that_break_the_rules_of_their_template_are_refused() {
    let (digest, name) = (field(&[&b"sha256:\0"[..], &[1; 32]].concat()), field(b"/x\0"));
    let good = [&digest[..], &name].concat();
    let d = |bytes: &[u8]| [&field(bytes)[..], &name].concat();
    for (template, data, case) in [
        ("ima-ng", vec![], "no field"),
        ("ima-ng", digest.clone(), "no name"),
        ("ima-ng", [&good[..], &[0]].concat(), "a byte too many"),
        ("ima-ng", [&good[..], &field(b"")].concat(), "a field too many"),
        ("ima-sig", good.clone(), "a field too few"),
        ("ima-ng", [&digest[..], &field(b"/x")].concat(), "a name without NUL"),
        ("ima-ng", [&digest[..], &field(b"")].concat(), "an empty name field"),
        ("ima-ng", [&digest[..], &field(b"/x\0y\0")].concat(), "a NUL within a name"),
        ("ima-ng", [&digest[..], &field(b"/0123456789\0y\0")].concat(), "a NUL within a long name"),
        ("ima-ng", d(&[1; 32]), "no algorithm"),
        ("ima-ng", d(&[&b"sha256\0"[..], &[1; 32]].concat()), "no colon"),
        ("ima-ng", d(&[&b"sha256:\0"[..], &[1; 31]].concat()), "a short digest"),
        ("ima-ng", d(&[&b"sha256:\0"[..], &[1; 33]].concat()), "a long digest"),
        ("ima-ng", d(&[&b"sha1:\0"[..], &[1; 32]].concat()), "a digest of another size"),
        ("ima-ngv2", good.clone(), "no type"),
        ("ima-ngv2", d(&[&b"evm:sha256:\0"[..], &[1; 32]].concat()), "an unknown type"),
        ("ima-ng", [&u32::MAX.to_le_bytes()[..], &[0; 9]].concat(), "a length past the end"),
        ("ima", [&[1; 20][..], &field(b"a\0")].concat(), "a NUL in an old name"),
        ("ima", [&[1; 20][..], &field(&[b'a'; 256])].concat(), "an old name that is too long"),
    ] {
        assert_eq!(code(parse_all(&around(template, &[1; 20], &data))), "ima_entry_malformed", "{case}");
    }
    let uid = [good.clone(), field(b""), field(b""), field(b""), field(b""), field(b"123")].concat();
    assert_eq!(code(parse_all(&around("evm-sig", &[1; 20], &uid))), "ima_entry_malformed");
    // "ima-ng" with a type before the algorithm would be read as two things.
    for unknown in [&b"ima:sha256:\0"[..], b"md4:\0", b":\0", b"sha256::\0"] {
        let data = d(&[unknown, &[1; 32]].concat());
        assert_eq!(code(parse_all(&around("ima-ng", &[1; 20], &data))), "ima_unknown_hash");
    }
}

#[test]
fn every_chunking_gives_the_same_and_every_truncation_is_noticed() {
    let (entries, values) = list();
    let bytes = [entries.concat(), ima_sig("/s", "s", &[3; 300]), ima_buf("x", &[9; 40])].concat();
    let whole = walk(&bytes, values[5]).unwrap();
    for size in [1, 2, 3, 7, 33, 90, 91, 250, 4096] {
        let mut walk = Walk::begin(None, values[5], BankMode::Native).unwrap();
        let mut covers = Vec::new();
        for chunk in bytes.chunks(size) {
            walk.push(chunk, &mut |_, cover| covers.push(cover)).unwrap();
        }
        assert_eq!((walk.finish().unwrap(), covers), whole, "chunks of {size}");
    }
    let mut ends = vec![0];
    for entry in entries.iter().chain([&ima_sig("/s", "s", &[3; 300]), &ima_buf("x", &[9; 40])]) {
        ends.push(ends.last().unwrap() + entry.len());
    }
    for cut in 0..bytes.len() {
        let found = parse_all(&bytes[..cut]);
        match ends.iter().position(|end| *end == cut) {
            Some(entries) => assert_eq!(found, Ok(u64::try_from(entries).unwrap())),
            None => assert_eq!(code(found), "ima_truncated", "cut at {cut}"),
        }
    }
}

#[test]
fn progress_that_no_walk_leaves_behind_is_refused() {
    let value = |byte| Digest::from_slice(SHA256, &[byte; 32]).unwrap();
    let at = |entries, bytes, byte| Position { entries, bytes, value: value(byte) };
    let good = at(2, 200, 1);
    assert!(Progress::restore(good, Some(at(3, 300, 2))).is_ok());
    assert_eq!(Progress::restore(Position::start(SHA256), None), Ok(Progress::start(SHA256)));
    let other_bank =
        Position { value: Digest::from_slice(HashAlgorithm::Sha1, &[1; 20]).unwrap(), ..at(3, 300, 2) };
    for (prefix, claim, case) in [
        (at(0, 0, 1), None, "a value of nothing"),
        (at(2, 200, 0), None, "no value"),
        (at(2, 20, 1), None, "two entries in 20 bytes"),
        (at(MAX_ENTRIES + 1, 100 * MAX_ENTRIES, 1), None, "too many entries"),
        (at(2, MAX_BYTES + 1, 1), None, "too many bytes"),
        (good, Some(at(2, 300, 2)), "a claim of as many"),
        (good, Some(at(3, 200, 2)), "a claim of as long a list"),
        (good, Some(other_bank), "a claim of another bank"),
    ] {
        assert_eq!(code(Progress::restore(prefix, claim)), "ima_progress_inconsistent", "{case}");
    }
    let quoted = Digest::zero(HashAlgorithm::Sha384);
    let begun = Walk::begin(Some(Progress::restore(good, None).unwrap()), quoted, BankMode::Native);
    assert_eq!(code(begun), "ima_other_bank");
}

/// Boot PCRs, each of its own value.
fn boot_pcrs(bank: HashAlgorithm, count: u8) -> PcrValues {
    let mut pcrs = PcrValues::default();
    for index in 0..count {
        pcrs.insert(PcrIndex::new(index).unwrap(), hash(bank, &[&[index]]));
    }
    pcrs
}

fn aggregate(bank: HashAlgorithm, pcrs: u8) -> Vec<u8> {
    let values: Vec<_> = (0..pcrs).map(|index| hash(bank, &[&[index]])).collect();
    let values: Vec<_> = values.iter().map(Digest::as_bytes).collect();
    let prefix = format!("{bank}:\0");
    let digest = [prefix.as_bytes(), hash(bank, &values).as_bytes()].concat();
    entry("ima-ng", &[field(&digest), field(b"boot_aggregate\0")].concat())
}

fn check(bytes: &[u8], pcrs: &PcrValues) -> Result<Form, ImaError> {
    let mut parser = ListParser::new(0, HashAlgorithm::Sha1);
    let mut form = None;
    parser.push(bytes, |entry| {
        form = Some(BootAggregate::check(&entry, pcrs));
        Ok::<_, ImaError>(())
    })?;
    form.unwrap()
}

/// Attack 64.
#[test]
fn boot_aggregate_ties_the_list_to_the_quoted_boot_in_each_of_its_forms() {
    use HashAlgorithm::{Sha1, Sha384, Sha512};
    for (bank, pcrs, expected) in [
        (Sha1, 8, Form::Firmware(Sha1)),
        (SHA256, 8, Form::Firmware(SHA256)),
        (SHA256, 10, Form::FirmwareAndLoader(SHA256)),
        (Sha384, 10, Form::FirmwareAndLoader(Sha384)),
        (Sha512, 10, Form::FirmwareAndLoader(Sha512)),
    ] {
        assert_eq!(check(&aggregate(bank, pcrs), &boot_pcrs(bank, pcrs)), Ok(expected));
        let mut other = boot_pcrs(bank, pcrs);
        other.insert(PcrIndex::new(4).unwrap(), hash(bank, &[b"another boot loader"]));
        other.insert(PcrIndex::new(8).unwrap(), hash(bank, &[b"8"]));
        other.insert(PcrIndex::new(9).unwrap(), hash(bank, &[b"9"]));
        assert_eq!(code(check(&aggregate(bank, pcrs), &other)), "ima_boot_aggregate_mismatch");
        let missing = check(&aggregate(bank, pcrs), &boot_pcrs(bank, pcrs - 1));
        assert_eq!(code(missing), "ima_boot_aggregate_not_quoted");
    }
    // SHA-1 is never over ten.
    assert_eq!(code(check(&aggregate(Sha1, 10), &boot_pcrs(Sha1, 10))), "ima_boot_aggregate_mismatch");
    let pcrs = boot_pcrs(SHA256, 10);
    let zeros = entry("ima-ng", &file(&[0; 32], b"boot_aggregate"));
    let sm3 =
        entry("ima-ng", &[field(&[&b"sm3:\0"[..], &[1; 32]].concat()), field(b"boot_aggregate\0")].concat());
    for (bytes, expected) in [
        (ima_ng("/boot_aggregate", "x"), "ima_no_boot_aggregate"),
        (zeros, "ima_boot_aggregate_empty"),
        (violation("boot_aggregate"), "ima_boot_aggregate_empty"),
        (sm3, "ima_boot_aggregate_hash"),
    ] {
        assert_eq!(code(check(&bytes, &pcrs)), expected);
    }
}

fn ascii(text: &str) -> Result<Vec<AsciiEntry>, ImaError> {
    AsciiList::new(text.as_bytes())?.collect()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[test]
fn the_readable_form_gives_the_entries_of_the_binary_one() {
    let data = file(&content("x"), b"/a_b");
    let (digest, sha1) =
        (hex(&content("x")), |data: &[u8]| hex(hash(HashAlgorithm::Sha1, &[data]).as_bytes()));
    let signed = [&data[..], &field(&[3, 2])].concat();
    let plain = [&data[..], &field(&[])].concat();
    let text = format!(
        "10 {} ima-ng sha256:{digest} /a_b\n10 {} ima-sig sha256:{digest} /a_b 0302\n10 {} ima-sig sha256:{digest} /a_b \n",
        sha1(&data),
        sha1(&signed),
        sha1(&plain),
    );
    let entries = ascii(&text).unwrap();
    let parsed: Vec<_> = entries.iter().map(|entry| entry.as_entry().unwrap().data().to_vec()).collect();
    assert_eq!(parsed, [data.clone(), signed, plain]);

    let line = text.lines().next().unwrap();
    for (bad, expected) in [
        (line.replace("10 ", "11 "), "ima_other_pcr"),
        (line.replace("10 ", "x "), "ima_line_malformed"),
        (line.replace("ima-ng", "ima-x"), "ima_unknown_template"),
        (line.replace("/a_b", "/a_c"), "ima_template_hash_mismatch"),
        (line.replace("sha256", "sha1"), "ima_entry_malformed"),
        (line.replace("sha256", "md4"), "ima_unknown_hash"),
        (format!("{line}\n\n{line}"), "ima_line_malformed"),
        (format!("{line}\r"), "ima_template_hash_mismatch"),
        (line.replace("ima-ng", "ima-sig"), "ima_line_malformed"),
        (line.replace("10 ", "10 zz"), "ima_line_malformed"),
        (format!("10 {}", "00".repeat(MAX_ENTRY + 1)), "ima_entry_too_long"),
    ] {
        assert_eq!(code(ascii(&bad)), expected, "{}", &bad[..bad.len().min(200)]);
    }
}
