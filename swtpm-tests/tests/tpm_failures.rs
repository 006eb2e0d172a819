//! Answers that a TPM gives rarely: each is told apart, retried where that helps, and nothing is left behind.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rootbound_attester::tpm::{AkBlob, Consequence, CredentialKeyBlob, EkKind, TctiConfig, Tpm, TpmError};
use rootbound_common::tpm::{Attested, HashAlgorithm, PcrSelection, SignatureScheme};
use rootbound_swtpm_tests::keys::{bound_key, sha256_pcrs, sign, signed_statement};
use rootbound_swtpm_tests::{Action, Interposer, Swtpm};

/// Command codes (Part 2, table 12).
const CC_CERTIFY: u32 = 0x148;
const CC_SIGN: u32 = 0x15d;
const CC_CONTEXT_LOAD: u32 = 0x161;
const CC_QUOTE: u32 = 0x158;
const CC_FLUSH_CONTEXT: u32 = 0x165;
const CC_GET_CAPABILITY: u32 = 0x17a;
const CC_GET_RANDOM: u32 = 0x17b;
const CC_PCR_READ: u32 = 0x17e;

type Decide = Box<dyn FnMut(u32, &[u8]) -> Action + Send>;

/// A TPM behind an interposer whose behaviour the test changes as it goes, with keys that are in use already.
struct Rig {
    swtpm: Arc<Swtpm>,
    decide: Arc<Mutex<Decide>>,
    _interposer: Interposer,
    tpm: Tpm,
    boot: PcrSelection,
    ak: AkBlob,
    key: CredentialKeyBlob,
}

impl Rig {
    async fn new() -> Self {
        let swtpm = Arc::new(Swtpm::manufacture());
        let decide: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(|_, _| Action::Forward)));
        let interposer = Interposer::new(&swtpm, {
            let decide = Arc::clone(&decide);
            move |code, command| (decide.lock().unwrap())(code, command)
        });
        let tpm = Tpm::spawn(interposer.tcti()).unwrap();
        let boot = sha256_pcrs(&[0, 7]);
        let ak = tpm.create_ak(None).await.unwrap();
        let key = bound_key(&tpm, &boot).await;
        let rig = Self { swtpm, decide, _interposer: interposer, tpm, boot, ak, key };
        rig.everything_works().await;
        rig
    }

    fn behave(&self, decide: impl FnMut(u32, &[u8]) -> Action + Send + 'static) {
        *self.decide.lock().unwrap() = Box::new(decide);
    }

    /// For the next `times` commands of a code, another action.
    fn next(&self, which: u32, times: u32, mut action: impl FnMut() -> Action + Send + 'static) {
        let mut left = times;
        self.behave(move |code, _| {
            if code == which && left > 0 {
                left -= 1;
                action()
            } else {
                Action::Forward
            }
        });
    }

    async fn everything_works(&self) {
        self.behave(|_, _| Action::Forward);
        let quote = self.tpm.quote(&self.ak, &self.boot, b"").await.unwrap();
        signed_statement(&self.ak, &quote.statement);
        self.tpm.certify(&self.ak, &self.key, b"").await.unwrap();
        sign(&self.tpm, &self.key, &self.boot, b"a message").await.unwrap();
        self.swtpm.assert_nothing_loaded();
    }
}

#[tokio::test]
async fn each_refusal_is_told_apart_and_leaves_nothing_behind() {
    use Consequence::{CannotAttestNow, NeedsOperator, StateChanged};
    let rig = Rig::new().await;
    type Expected = fn(&TpmError) -> bool;
    let cases: [(u32, Expected, Consequence); 10] = [
        (0x921, |error| matches!(error, TpmError::Lockout { .. }), CannotAttestNow),
        (0x902, |error| matches!(error, TpmError::OutOfMemory { .. }), CannotAttestNow),
        (0x903, |error| matches!(error, TpmError::OutOfMemory { .. }), CannotAttestNow),
        (0x100, |error| matches!(error, TpmError::NotStarted { .. }), CannotAttestNow),
        (0x101, |error| matches!(error, TpmError::FailureMode { .. }), NeedsOperator),
        (0x143, |error| matches!(error, TpmError::Unsupported { .. }), NeedsOperator),
        (0x000b_0143, |error| matches!(error, TpmError::Unsupported { .. }), NeedsOperator),
        (0x9a2, |error| matches!(error, TpmError::AuthorizationFailed { .. }), NeedsOperator),
        (0x99d, |error| matches!(error, TpmError::PolicyFailed { .. }), StateChanged),
        (0x1c4, |error| matches!(error, TpmError::Refused { .. }), NeedsOperator),
    ];
    for (code, expected, consequence) in cases {
        for command in [CC_SIGN, CC_QUOTE, CC_CERTIFY] {
            rig.next(command, u32::MAX, move || Action::Answer(code));
            let refused = match command {
                CC_SIGN => sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await,
                CC_QUOTE => rig.tpm.quote(&rig.ak, &rig.boot, b"").await.map(drop),
                _ => rig.tpm.certify(&rig.ak, &rig.key, b"").await.map(drop),
            };
            let error = refused.unwrap_err();
            assert!(expected(&error), "{code:#x}: {error:?}");
            assert_eq!(error.consequence(), consequence, "{error}");
            assert!(!error.advice().is_empty());
            rig.swtpm.assert_nothing_loaded();
        }
    }
    rig.everything_works().await;
}

#[tokio::test]
async fn busy_tpm_is_asked_again() {
    let rig = Rig::new().await;
    // YIELDED, TESTING, NV_RATE, RETRY. ESYS repeats some of them by itself, at once, four times.
    for code in [0x908, 0x90a, 0x920, 0x922] {
        rig.next(CC_SIGN, 8, move || Action::Answer(code));
        sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await.unwrap();
        rig.next(CC_QUOTE, 8, move || Action::Answer(code));
        rig.tpm.quote(&rig.ak, &rig.boot, b"").await.unwrap();
    }
    rig.everything_works().await;
}

#[tokio::test]
async fn tpm_that_stays_busy_is_given_up_after_a_bounded_time() {
    let rig = Rig::new().await;
    rig.next(CC_QUOTE, u32::MAX, || Action::Answer(0x922));
    let refused = rig.tpm.quote(&rig.ak, &rig.boot, b"").await;
    let Err(error @ TpmError::Busy { attempts, .. }) = refused else { panic!("{refused:?}") };
    assert!(attempts > 5);
    assert_eq!(error.consequence(), Consequence::CannotAttestNow);
    rig.everything_works().await;
}

#[tokio::test]
async fn pcr_that_moves_between_values_and_quote_costs_another_quote() {
    let rig = Rig::new().await;
    let selection = sha256_pcrs(&[0, 10]);
    let quotes = Arc::new(AtomicU32::new(0));
    // Around each of the first three quotes PCR 10 moves twice: before it, and after it.
    rig.behave({
        let (swtpm, quotes) = (Arc::clone(&rig.swtpm), Arc::clone(&quotes));
        move |code, _| {
            if matches!(code, CC_QUOTE | CC_PCR_READ) && quotes.load(Ordering::SeqCst) < 3 {
                swtpm.extend(10, b"measured by IMA");
            }
            if code == CC_QUOTE {
                quotes.fetch_add(1, Ordering::SeqCst);
            }
            Action::Forward
        }
    });
    let quote = rig.tpm.quote(&rig.ak, &selection, b"").await.unwrap();
    let Attested::Quote { pcr_digest, .. } = signed_statement(&rig.ak, &quote.statement).attested else {
        panic!()
    };
    assert_eq!(quote.values.digest(&selection, HashAlgorithm::Sha256).unwrap().as_bytes(), pcr_digest);
    let taken = quotes.load(Ordering::SeqCst);
    assert!((2..=4).contains(&taken), "{taken} quotes");
    rig.everything_works().await;
}

#[tokio::test]
async fn pcrs_that_never_rest_are_reported_as_such() {
    let rig = Rig::new().await;
    rig.behave({
        let swtpm = Arc::clone(&rig.swtpm);
        move |code, _| {
            if matches!(code, CC_QUOTE | CC_PCR_READ | CC_SIGN) {
                swtpm.extend(10, b"measured by IMA");
            }
            Action::Forward
        }
    });
    let refused = rig.tpm.quote(&rig.ak, &sha256_pcrs(&[10]), b"").await;
    assert!(matches!(refused, Err(TpmError::PcrsMoving { .. })), "{refused:?}");
    // PCR 10 is not in the key's policy, but a TPM cannot tell within a session.
    let refused = sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await;
    assert!(matches!(refused, Err(TpmError::PcrsMoving { .. })), "{refused:?}");
    assert_eq!(refused.unwrap_err().consequence(), Consequence::CannotAttestNow);
    rig.everything_works().await;
}

#[tokio::test]
async fn pcr_outside_the_policy_that_moves_before_a_signature_does_no_harm() {
    let rig = Rig::new().await;
    let swtpm = Arc::clone(&rig.swtpm);
    rig.next(CC_SIGN, 2, move || {
        swtpm.extend(10, b"measured by IMA");
        Action::Forward
    });
    sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await.unwrap();
    // One of the policy that moves in the same place is found out.
    let swtpm = Arc::clone(&rig.swtpm);
    rig.next(CC_SIGN, 1, move || {
        swtpm.extend(7, b"a foreign boot loader");
        Action::Forward
    });
    let refused = sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await;
    assert!(matches!(refused, Err(TpmError::PolicyFailed { .. })), "{refused:?}");
    rig.swtpm.assert_nothing_loaded();
}

#[tokio::test]
async fn connection_that_breaks_off_is_made_again() {
    let rig = Rig::new().await;
    for command in [CC_SIGN, CC_CONTEXT_LOAD, CC_FLUSH_CONTEXT] {
        rig.next(command, 1, || Action::HangUp);
        sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await.unwrap();
        // What the broken connection had loaded is swept by the next one.
        rig.everything_works().await;
    }
    rig.behave(|_, _| Action::HangUp);
    let refused = sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await;
    assert!(matches!(refused, Err(TpmError::Unreachable { .. })), "{refused:?}");
    rig.everything_works().await;
}

#[tokio::test]
async fn tpm_that_is_reset_under_a_request_is_asked_again() {
    let rig = Rig::new().await;
    // REFERENCE_H0, REFERENCE_S0, HANDLE
    for code in [0x910, 0x918, 0x18b] {
        rig.next(CC_SIGN, 1, move || Action::Answer(code));
        sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await.unwrap();
        rig.next(CC_SIGN, u32::MAX, move || Action::Answer(code));
        let refused = sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await;
        assert!(matches!(refused, Err(TpmError::WasReset { .. })), "{refused:?}");
    }
    // A saved context that is refused, for whatever reason, is not needed.
    for code in [0x1df, 0x1c4, 0x910, 0x143] {
        rig.next(CC_CONTEXT_LOAD, 3, move || Action::Answer(code));
        sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await.unwrap();
    }
    rig.everything_works().await;
}

#[tokio::test]
async fn object_that_cannot_be_flushed_is_swept_by_the_next_connection() {
    let rig = Rig::new().await;
    rig.next(CC_FLUSH_CONTEXT, 1, || Action::Answer(0x101));
    sign(&rig.tpm, &rig.key, &rig.boot, b"a message").await.unwrap();
    rig.everything_works().await;
}

#[tokio::test]
async fn answer_altered_on_its_way_is_not_passed_on() {
    let rig = Rig::new().await;
    fn flip_a_bit_of_the_statement(mut answer: Vec<u8>) -> Vec<u8> {
        // Header, parameter size, size of the TPM2B_ATTEST, magic, type, size of the signer: then its Name.
        answer[10 + 4 + 2 + 4 + 2 + 2 + 5] ^= 1;
        answer
    }
    for command in [CC_QUOTE, CC_CERTIFY] {
        rig.next(command, 1, || Action::Alter(flip_a_bit_of_the_statement));
        let refused = match command {
            CC_QUOTE => rig.tpm.quote(&rig.ak, &rig.boot, b"").await.map(drop),
            _ => rig.tpm.certify(&rig.ak, &rig.key, b"").await.map(drop),
        };
        assert!(matches!(refused, Err(TpmError::Inconsistent(_))), "{refused:?}");
    }
    rig.everything_works().await;
}

#[tokio::test]
async fn answer_that_is_no_answer_breaks_only_one_request() {
    let rig = Rig::new().await;
    fn longer_than_any_digest(mut answer: Vec<u8>) -> Vec<u8> {
        answer[10..12].copy_from_slice(&[0xff, 0xff]);
        answer
    }
    for _ in 0..2 {
        rig.next(CC_GET_RANDOM, 1, || Action::Alter(longer_than_any_digest));
        let refused = rig.tpm.random(8).await;
        assert!(matches!(refused, Err(TpmError::Stack { .. })), "{refused:?}");
        rig.tpm.random(8).await.unwrap();
    }
    rig.everything_works().await;
}

#[tokio::test]
async fn tpm_without_the_curve_gets_rsa_keys() {
    /// TPM_CAP_ECC_CURVES; the answer to it: header, moreData, capability, a count of 0.
    fn no_curves(mut answer: Vec<u8>) -> Vec<u8> {
        answer.truncate(10 + 1 + 4);
        answer.extend_from_slice(&0u32.to_be_bytes());
        let size = u32::try_from(answer.len()).unwrap();
        answer[2..6].copy_from_slice(&size.to_be_bytes());
        answer
    }
    let rig = Rig::new().await;
    let no_ecc = |code: u32, command: &[u8]| {
        if code == CC_GET_CAPABILITY && command[10..14] == [0, 0, 0, 8] {
            Action::Alter(no_curves)
        } else {
            Action::Forward
        }
    };
    rig.behave(no_ecc);
    let identity = rig.tpm.identify().await.unwrap();
    assert!(!identity.p256 && !identity.p384);
    let ak = rig.tpm.create_ak(None).await.unwrap();
    assert_eq!(ak.public().parameters().scheme(), Some(SignatureScheme::RsaSsa(HashAlgorithm::Sha256)));
    let quote = rig.tpm.quote(&ak, &rig.boot, b"").await.unwrap();
    signed_statement(&ak, &quote.statement);
    let eks = rig.tpm.endorsement_keys().await.unwrap();
    assert!(eks.iter().all(|ek| ek.kind != EkKind::EccP256));
    let refused = rig.tpm.endorsement_key(EkKind::EccP256).await;
    assert!(matches!(refused, Err(TpmError::NoEndorsementKey(_))), "{refused:?}");
}

#[tokio::test]
async fn path_that_libtss2_cannot_take_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let path = std::ffi::OsString::from_vec(vec![b'/', 0xff]).into();
    let tpm = Tpm::spawn(TctiConfig::Device { path }).unwrap();
    let refused = tpm.identify().await;
    assert!(matches!(refused, Err(TpmError::Address(_))), "{refused:?}");
    let path = "/dev/there-is-no-such-tpm".into();
    let tpm = Tpm::spawn(TctiConfig::Device { path }).unwrap();
    let refused = tpm.identify().await;
    assert!(matches!(refused, Err(TpmError::Unreachable { .. })), "{refused:?}");
}
