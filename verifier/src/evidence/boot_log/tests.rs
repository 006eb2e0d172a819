//! Attacks on the log itself, and the logs of odd but honest machines.

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::{HashAlgorithm, ParseError, PcrValues};

use super::testing::{BANK, LogBuilder, fabricated, observed, pcr, pcrs};
use super::*;

const SHA1: HashAlgorithm = HashAlgorithm::Sha1;

fn parse(bytes: &[u8]) -> Result<ParsedBootLog<'_>, BootLogError> {
    ParsedBootLog::parse(bytes)
}

fn small() -> LogBuilder {
    LogBuilder::sha256()
        .event(0, EventType::S_CRTM_VERSION, b"v1")
        .event(4, EventType::EFI_ACTION, b"Calling EFI Application from Boot Option")
        .separators(&[0, 4])
}

/// A PCR's value, extended with digests by hand.
fn extended(start: u8, digests: &[Digest]) -> Digest {
    let mut value = vec![0; 32];
    value[31] = start;
    for digest in digests {
        value = hash(BANK, &[&value, digest.as_bytes()]).as_bytes().to_vec();
    }
    Digest::from_slice(BANK, &value).unwrap()
}

#[test]
fn a_log_that_replays_to_the_quote_is_a_history() {
    let history = small().history(&[0, 4]);
    assert_eq!((history.bank(), history.explained()), (BANK, pcrs(&[0, 4])));
    let found: Vec<_> = history.events().iter().map(|event| (event.index(), event.pcr().get())).collect();
    assert_eq!(found, [(1, 0), (2, 4), (3, 0), (4, 4)]);
    assert_eq!(history.events()[0].proved(), Some(&b"v1"[..]));
    let log = small();
    let log = parse(log.bytes()).unwrap();
    let expected = extended(0, &[hash(BANK, &[b"v1"]), hash(BANK, &[&[0; 4]])]);
    assert_eq!(log.replay(BANK)[&pcr(0)], Replayed::Value(expected));
}

/// Attack 49: the replay does not cover a type, and nothing that decides reads it.
#[test]
fn a_changed_type_leaves_digest_and_proved_bytes_as_they_are() {
    let honest = small().history(&[0]);
    let relabelled = LogBuilder::sha256()
        .event(0, EventType::POST_CODE, b"v1")
        .event(0, EventType::ACTION, &[0; 4])
        .history(&[0]);
    let facts = |history: &BootHistory| -> Vec<_> {
        history.events().iter().map(|event| (*event.digest(), event.proved().map(<[u8]>::to_vec))).collect()
    };
    assert_eq!(facts(&honest), facts(&relabelled));
    let separators = SeparatorDigests::of(BANK);
    let last = relabelled.events()[1].digest();
    assert_eq!(separators.recognise(last), Some(Separator::Normal), "a separator by any other name");
}

/// Attack 50.
#[test]
fn changed_data_are_no_longer_proved() {
    let digests = [hash(BANK, &[b"v1"])];
    let mut log = LogBuilder::sha256();
    log.raw(0, EventType::S_CRTM_VERSION, &digests, b"v2");
    let history = log.history(&[0]);
    assert_eq!(history.events()[0].content(), Content::Hinted(b"v2"));
    assert_eq!(history.events()[0].proved(), None);
    assert!(history.describe().all(|line| line.ends_with("[digest proved, content claimed]")));
}

/// Attack 52: the log is silent about a PCR, and its value is one that nobody measured into.
#[test]
fn a_needed_pcr_without_events_is_refused_even_at_its_start_value() {
    let log = small();
    let mut values = PcrValues::default();
    values.insert(pcr(7), Digest::zero(BANK));
    let refused = authenticate(parse(log.bytes()).unwrap(), &fabricated(values), BANK, pcrs(&[7]));
    assert_eq!(refused, Err(BootLogError::NoEvents { pcr: pcr(7) }));
}

/// Attack 53.
#[test]
fn only_the_quoted_bank_is_evidence() {
    let both = LogBuilder::new(&[SHA1, BANK]);
    let honest = both.clone().event(0, EventType::S_CRTM_VERSION, b"v1");
    let mut forged = both;
    let digests = [hash(SHA1, &[b"v1"]), hash(BANK, &[b"v2"])];
    forged.raw(0, EventType::S_CRTM_VERSION, &digests, b"v2");
    let quoted = observed(&parse(honest.bytes()).unwrap());
    let judge = |bank| authenticate(parse(forged.bytes()).unwrap(), &quoted, bank, pcrs(&[0]));
    assert!(
        matches!(judge(BANK), Err(BootLogError::Replay { .. })),
        "SHA-1 digests that match prove nothing"
    );
    let by_sha1 = judge(SHA1).unwrap();
    assert_eq!(by_sha1.events()[0].proved(), None, "and data are proved in the quoted bank only");
    let missing = HashAlgorithm::Sha384;
    assert_eq!(judge(missing), Err(BootLogError::BankNotInLog { bank: missing }));
}

/// Windows leaves idle banks out of its events: the idle bank is not half-accepted.
#[test]
fn an_event_without_a_digest_of_the_quoted_bank_is_refused() {
    let mut log = LogBuilder::new(&[SHA1, BANK]).event(4, EventType::EFI_ACTION, b"firmware");
    log.raw(4, EventType::COMPACT_HASH, &[hash(BANK, &[b"windows"])], b"windows");
    let parsed = parse(log.bytes()).unwrap();
    assert_eq!(parsed.replay(SHA1)[&pcr(4)], Replayed::MissingDigest { event: 2 });
    let mut values = PcrValues::default();
    values.insert(pcr(4), hash(SHA1, &[b"anything"]));
    let refused = authenticate(parsed, &fabricated(values), SHA1, pcrs(&[4]));
    assert_eq!(refused, Err(BootLogError::MissingDigest { event: 2, pcr: pcr(4), bank: SHA1 }));
    assert_eq!(log.history(&[4]).events().len(), 2, "the other bank is whole");
}

/// Attack 54: a log without Spec ID has SHA-1 digests only, whatever is in it.
#[test]
fn a_log_without_spec_id_is_of_sha1() {
    let event = [&[0; 4][..], &8u32.to_le_bytes(), &[7; 20], &2u32.to_le_bytes(), b"v1"].concat();
    let log = parse(&event).unwrap();
    assert_eq!((log.format(), log.banks()), (LogFormat::Sha1, &[SHA1][..]));
    let refused = authenticate(log, &fabricated(PcrValues::default()), BANK, pcrs(&[0]));
    assert_eq!(refused, Err(BootLogError::BankNotInLog { bank: BANK }));
    let mut lying = LogBuilder::sha256().bytes().to_vec();
    let size = lying.len() - 3;
    lying[size] = 20;
    assert!(matches!(parse(&lying), Err(BootLogError::SpecId(_))), "SHA-256 of 20 bytes");
}

/// Attack 55.
#[test]
fn lengths_that_lie_are_refused_and_not_allocated() {
    assert_eq!(parse(&[]), Err(BootLogError::Empty));
    let good = small();
    let good = good.bytes();
    let last = good.len() - 8;
    let mut endless = good.to_vec();
    endless[last..last + 4].copy_from_slice(&[0xff; 4]);
    let error = ParseError::TooLong {
        what: "event size",
        length: usize::try_from(u32::MAX).unwrap(),
        limit: ParsedBootLog::MAX_DATA,
    };
    assert_eq!(parse(&endless), Err(BootLogError::Event { event: 4, error }));
    for length in (1..good.len()).rev() {
        let log = parse(&good[..length]);
        let quoted = observed(&parse(good).unwrap());
        let judged = log.and_then(|log| authenticate(log, &quoted, BANK, pcrs(&[0, 4])));
        assert!(judged.is_err(), "{length} bytes");
    }
    let long = vec![0; ParsedBootLog::MAX_LENGTH + 1];
    assert!(matches!(parse(&long), Err(BootLogError::TooLong { .. })));
    let mut log = LogBuilder::sha256();
    for _ in 0..ParsedBootLog::MAX_EVENTS {
        log.raw(0, EventType::ACTION, &[Digest::zero(BANK)], &[]);
    }
    let refused = parse(log.bytes());
    assert_eq!(refused, Err(BootLogError::TooManyEvents { limit: ParsedBootLog::MAX_EVENTS }));
}

/// Attack 55.
#[test]
fn padding_may_follow_and_nothing_else() {
    let good = small();
    for byte in [0, 0xff] {
        for count in [1, 11, 12, 6558] {
            let padded = [good.bytes(), &vec![byte; count]].concat();
            assert_eq!(parse(&padded).unwrap().padding(), count);
        }
    }
    let garbage = [good.bytes(), &[0; 64], &[1]].concat();
    assert_eq!(parse(&garbage), Err(BootLogError::Garbage { event: 5, left: 65 }));
    let garbage = [good.bytes(), &[7; 3]].concat();
    assert!(matches!(parse(&garbage), Err(BootLogError::Event { event: 5, .. })));
}

#[test]
fn digests_of_an_event_are_those_of_the_spec_id() {
    let event = |digests: &[Digest]| {
        let mut log = LogBuilder::sha256();
        log.raw(0, EventType::ACTION, digests, b"x");
        log.bytes().to_vec()
    };
    let sha256 = hash(BANK, &[b"x"]);
    for (digests, case) in [
        (&[][..], "none"),
        (&[sha256, sha256], "two, where the log has one bank"),
        (&[hash(SHA1, &[b"x"])], "of another bank"),
    ] {
        assert!(matches!(parse(&event(digests)), Err(BootLogError::Event { event: 1, .. })), "{case}");
    }
    let mut log = LogBuilder::new(&[SHA1, BANK]);
    log.raw(0, EventType::ACTION, &[sha256, sha256], b"x");
    assert!(matches!(parse(log.bytes()), Err(BootLogError::Event { event: 1, .. })), "one bank twice");
}

#[test]
fn only_events_that_extend_nothing_may_be_for_no_pcr() {
    let log = small().no_action(u32::MAX, b"signature").no_action(u32::MAX, b"StartupLocality");
    assert_eq!(parse(log.bytes()).unwrap().events()[5].pcr(), None);
    for index in [24, u32::MAX] {
        let mut log = small();
        log.raw(index, EventType::ACTION, &[Digest::zero(BANK)], b"x");
        assert_eq!(parse(log.bytes()), Err(BootLogError::NoSuchPcr { event: 5, pcr: index }));
    }
    let log = small().no_action(24, b"x");
    assert_eq!(parse(log.bytes()), Err(BootLogError::NoSuchPcr { event: 5, pcr: 24 }));
}

/// Attack 58.
#[test]
fn no_action_never_extends() {
    let plain = small();
    let mut noisy = small();
    noisy.raw(0, EventType::NO_ACTION, &[hash(BANK, &[b"x"])], b"SP800-155 Event");
    assert_eq!(parse(plain.bytes()).unwrap().replay(BANK), parse(noisy.bytes()).unwrap().replay(BANK));
}

/// Attack 58.
#[test]
fn pcr_0_starts_at_the_locality_of_startup() {
    let version = hash(BANK, &[b"v1"]);
    let locality = |value: u8| [&b"StartupLocality\0"[..], &[value]].concat();
    let of = |log: LogBuilder| {
        let log = log.event(0, EventType::S_CRTM_VERSION, b"v1");
        let replayed = parse(log.bytes()).unwrap().replay(BANK);
        replayed[&pcr(0)]
    };
    for start in [0, 3, 4] {
        let found = of(LogBuilder::sha256().no_action(0, &locality(start)));
        assert_eq!(found, Replayed::Value(extended(start, &[version])), "{start}");
    }
    let h_crtm = || LogBuilder::sha256().event(0, EventType::EFI_HCRTM_EVENT, b"HCRTM");
    let both = [hash(BANK, &[b"HCRTM"]), version];
    assert_eq!(of(h_crtm()), Replayed::Value(extended(4, &both)));
    let stated =
        LogBuilder::sha256().no_action(0, &locality(3)).event(0, EventType::EFI_HCRTM_EVENT, b"HCRTM");
    assert_eq!(of(stated), Replayed::Value(extended(3, &both)));
    // Forged: the quote says otherwise.
    let honest = LogBuilder::sha256().no_action(0, &locality(3)).event(0, EventType::S_CRTM_VERSION, b"v1");
    let forged = LogBuilder::sha256().no_action(0, &locality(4)).event(0, EventType::S_CRTM_VERSION, b"v1");
    let absent = LogBuilder::sha256().event(0, EventType::S_CRTM_VERSION, b"v1");
    let quoted = observed(&parse(honest.bytes()).unwrap());
    for log in [forged, absent] {
        let judged = authenticate(parse(log.bytes()).unwrap(), &quoted, BANK, pcrs(&[0]));
        assert!(matches!(judged, Err(BootLogError::Replay { .. })), "{judged:?}");
    }
}

/// Attack 58.
#[test]
fn locality_is_stated_once_before_pcr_0_is_extended() {
    let said = |value: &[u8]| [&b"StartupLocality\0"[..], value].concat();
    for (log, case) in [
        (LogBuilder::sha256().no_action(0, &said(&[1])), "a locality that starts no TPM"),
        (LogBuilder::sha256().no_action(0, &said(&[])), "no locality"),
        (LogBuilder::sha256().no_action(0, &said(&[3, 3])), "two bytes"),
        (LogBuilder::sha256().no_action(1, &said(&[3])), "of PCR 1"),
        (LogBuilder::sha256().no_action(0, &said(&[3])).no_action(0, &said(&[3])), "twice"),
        (small().no_action(0, &said(&[3])), "late"),
    ] {
        assert!(matches!(parse(log.bytes()), Err(BootLogError::StartupLocality { .. })), "{case}");
    }
}

/// Attack 59: events of different PCRs can be told in any order; those of one PCR cannot.
#[test]
fn order_is_proved_within_a_pcr_only() {
    let honest = small();
    let quoted = observed(&parse(honest.bytes()).unwrap());
    let shuffled = LogBuilder::sha256()
        .event(4, EventType::EFI_ACTION, b"Calling EFI Application from Boot Option")
        .separator(4)
        .event(0, EventType::S_CRTM_VERSION, b"v1")
        .separator(0);
    let history = authenticate(parse(shuffled.bytes()).unwrap(), &quoted, BANK, pcrs(&[0, 4])).unwrap();
    for index in [0, 4] {
        let digests = |history: &BootHistory| history.of(pcr(index)).map(|e| *e.digest()).collect::<Vec<_>>();
        assert_eq!(digests(&history), digests(&honest.history(&[0, 4])));
    }
    let swapped = LogBuilder::sha256().separator(0).event(0, EventType::S_CRTM_VERSION, b"v1").separator(4);
    let judged = authenticate(parse(swapped.bytes()).unwrap(), &quoted, BANK, pcrs(&[0]));
    assert!(matches!(judged, Err(BootLogError::Replay { .. })));
}

/// Attack 63.
#[test]
fn without_a_log_or_without_need_there_is_no_history() {
    let log = small();
    let quoted = observed(&parse(log.bytes()).unwrap());
    assert_eq!(authenticate_last(&[], &quoted, BANK, pcrs(&[0])), Err(BootLogError::NoLog));
    assert_eq!(authenticate_last(&[&[]], &quoted, BANK, pcrs(&[0])), Err(BootLogError::Empty));
    let judged = authenticate_last(&[log.bytes()], &quoted, BANK, pcrs(&[]));
    assert_eq!(judged, Err(BootLogError::NothingNeeded));
    let judged = authenticate_last(&[log.bytes()], &fabricated(PcrValues::default()), BANK, pcrs(&[0]));
    assert_eq!(judged, Err(BootLogError::NotQuoted { bank: BANK, pcr: pcr(0) }));
}

#[test]
fn the_last_of_several_logs_counts() {
    let (first, last) = (small(), small().event(4, EventType::EFI_ACTION, b"resumed"));
    let quoted = observed(&parse(last.bytes()).unwrap());
    let judge = |logs: &[&[u8]]| authenticate_last(logs, &quoted, BANK, pcrs(&[4]));
    assert_eq!(judge(&[first.bytes(), last.bytes()]).unwrap().events().len(), 3);
    assert!(matches!(judge(&[last.bytes(), first.bytes()]), Err(BootLogError::Replay { .. })));
    let many = vec![last.bytes(); MAX_LOGS + 1];
    assert_eq!(judge(&many), Err(BootLogError::TooManyLogs { count: MAX_LOGS + 1, limit: MAX_LOGS }));
}

/// A dynamic launch resets PCRs 17 to 22 to zero, whatever they were.
#[test]
fn pcrs_of_a_dynamic_launch_start_from_zero() {
    let log = LogBuilder::sha256().event(17, EventType::from_u32(0x402), b"SINIT");
    let replayed = parse(log.bytes()).unwrap().replay(BANK);
    assert_eq!(replayed[&pcr(17)], Replayed::Value(extended(0, &[hash(BANK, &[b"SINIT"])])));
}

/// Attack 57.
#[test]
fn descriptions_are_bounded_and_do_nothing_but_show() {
    let long = "x".repeat(1 << 19);
    let log = LogBuilder::sha256()
        .event(8, EventType::IPL, b"grub_cmd: \x1b[2J</td><script>\n- x: \0")
        .event(8, EventType::IPL, long.as_bytes())
        .event(1, EventType::EFI_VARIABLE_BOOT, &Variable::marshal(Guid::GLOBAL, "Boot0001", &[0xff; 9]))
        .event(4, EventType::EFI_BOOT_SERVICES_APPLICATION, &[0xff; 40])
        .event(5, EventType::EFI_GPT_EVENT, &[0; 9])
        .event(9, EventType::EVENT_TAG, &[0xed, 0x22]);
    let parsed = parse(log.bytes()).unwrap();
    let mut lines: Vec<_> = parsed.describe(BANK).collect();
    lines.extend(log.history(&[1, 4, 5, 8, 9]).describe());
    assert_eq!(lines.len(), 7 + 6);
    for line in lines {
        assert!(line.len() < 400, "{line}");
        assert!(line.chars().all(rootbound_common::text::only_shows), "{line}");
    }
}

#[test]
fn an_unauthenticated_log_is_described_as_claims() {
    let log = LogBuilder::sha256().variable(ConfigurationVariable::SecureBoot, &[1]).event(
        8,
        EventType::IPL,
        b"grub_cmd: boot\0",
    );
    let lines: Vec<_> = parse(log.bytes()).unwrap().describe(BANK).collect();
    assert_eq!(
        lines[1..],
        [
            "1 PCR 7 EV_EFI_VARIABLE_DRIVER_CONFIG: SecureBoot = on [claimed, digest fits the data]",
            "2 PCR 8 EV_IPL: grub_cmd: boot [claimed, digest fits the data]",
        ]
    );
}

mod pcr_7 {
    use super::*;
    use ConfigurationVariable::{Db, Dbx, Kek, Pk, SecureBoot};

    fn configured(order: &[ConfigurationVariable]) -> LogBuilder {
        order.iter().fold(LogBuilder::sha256(), |log, variable| log.variable(*variable, &[1]))
    }

    fn faults(log: LogBuilder) -> Vec<SecureBootFault> {
        SecureBootRecord::read(&log.history(&[7])).unwrap().faults
    }

    #[test]
    fn the_configuration_is_read_before_the_separator() {
        let authority = Variable::marshal(Guid::IMAGE_SECURITY, "db", b"owner and certificate");
        let log = configured(&ConfigurationVariable::ALL)
            .event(7, EventType::EFI_ACTION, b"UEFI Debug Mode")
            .separator(7)
            .event(7, EventType::EFI_VARIABLE_AUTHORITY, &authority)
            .event(7, EventType::IPL, b"something");
        let history = log.history(&[7]);
        let record = SecureBootRecord::read(&history).unwrap();
        assert_eq!(record.faults, []);
        assert_eq!(record.state(), SecureBootState::On);
        assert_eq!((record.configuration.len(), record.authorities.len(), record.others.len()), (5, 1, 2));
        assert!(SecureBootRecord::read(&LogBuilder::sha256().separator(0).history(&[0])).is_none());
    }

    /// Attack 51.
    #[test]
    fn what_breaks_the_order_is_a_fault() {
        let all = || configured(&ConfigurationVariable::ALL);
        let twice = SecureBootFault::Twice { event: 6, variable: SecureBoot };
        assert_eq!(faults(all().variable(SecureBoot, &[0]).separator(7)), [twice]);
        let swapped = configured(&[SecureBoot, Kek, Pk, Db, Dbx]).separator(7);
        assert_eq!(faults(swapped), [SecureBootFault::OutOfOrder { event: 3, variable: Pk }]);
        let missing = configured(&[SecureBoot, Pk, Kek, Db]).separator(7);
        assert_eq!(faults(missing), [SecureBootFault::Missing(Dbx)]);
    }

    /// Attack 51: the operating system extends PCR 7 with what would have been measured with Secure Boot on.
    #[test]
    fn variables_after_the_separator_prove_nothing() {
        let log = LogBuilder::sha256()
            .variable(SecureBoot, &[0])
            .variable(Pk, &[1])
            .variable(Kek, &[1])
            .variable(Db, &[1])
            .variable(Dbx, &[1])
            .separator(7)
            .variable(SecureBoot, &[1]);
        let history = log.history(&[7]);
        let record = SecureBootRecord::read(&history).unwrap();
        assert_eq!(record.state(), SecureBootState::Off);
        assert_eq!(record.faults, [SecureBootFault::AfterSeparator { event: 7, variable: SecureBoot }]);
        // Under the type of an authority, too; only `db` has entries that images are checked by.
        let data = Variable::marshal(Guid::GLOBAL, "PK", b"key");
        let relabelled = configured(&ConfigurationVariable::ALL).separator(7).event(
            7,
            EventType::EFI_VARIABLE_AUTHORITY,
            &data,
        );
        assert_eq!(faults(relabelled), [SecureBootFault::AfterSeparator { event: 7, variable: Pk }]);
    }

    /// Attack 50.
    #[test]
    fn a_variable_whose_data_are_not_hashed_is_not_read() {
        let data = Variable::marshal(Guid::GLOBAL, "SecureBoot", &[1]);
        let off = Variable::marshal(Guid::GLOBAL, "SecureBoot", &[0]);
        let log = LogBuilder::sha256().hashed(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, &data, &off);
        let history = log.history(&[7]);
        let record = SecureBootRecord::read(&history).unwrap();
        assert_eq!(record.state(), SecureBootState::Absent);
        assert_eq!(record.faults[0], SecureBootFault::NotProved { event: 1 });
    }
}
