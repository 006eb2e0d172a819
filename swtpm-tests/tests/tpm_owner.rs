//! The thread that owns the TPM: over power cuts, restarts, and whatever its predecessors and neighbours do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rootbound_attester::tpm::{EkKind, Limits, NetworkTpm, TctiConfig, Tpm, TpmError};
use rootbound_common::tpm::HashAlgorithm;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::keys::{bound_key, sha256_pcrs, sign, signed_statement};
use tss_esapi::constants::SessionType;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::SymmetricDefinition;
use tss_esapi::{Context, TctiNameConf};

/// TPM_PT_LOCKOUT_COUNTER (Part 2, table 23).
const LOCKOUT_COUNTER: u32 = 0x20e;

#[tokio::test]
async fn five_power_cuts_do_not_bring_the_tpm_nearer_to_lockout() {
    let mut swtpm = Swtpm::builder().p256_ek().start();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let boot = sha256_pcrs(&[0, 7]);
    let ak = tpm.create_ak(None).await.unwrap();
    let key = bound_key(&tpm, &boot).await;
    for _ in 0..5 {
        tpm.quote(&ak, &boot, b"").await.unwrap();
        tpm.certify(&ak, &key, b"").await.unwrap();
        sign(&tpm, &key, &boot, b"a message").await.unwrap();
        for kind in EkKind::ALL {
            tpm.endorsement_key(kind).await.unwrap();
            // EKs lack noDA; a try to activate uses one all the same.
            assert!(tpm.activate(kind, &ak, &[0, 32], &[0; 64]).await.is_err());
        }
        swtpm.power_cut();
        assert_eq!(swtpm.property(LOCKOUT_COUNTER), 0);
    }
    tpm.quote(&ak, &boot, b"").await.unwrap();
}

#[tokio::test]
async fn ten_thousand_quotes_without_a_resource_manager_leave_nothing_behind() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let ak = tpm.create_ak(None).await.unwrap();
    let selection = sha256_pcrs(&[0]);
    swtpm.assert_nothing_loaded();
    for _ in 0..10_000 {
        tpm.quote(&ak, &selection, b"extra").await.unwrap();
    }
    swtpm.assert_nothing_loaded();
}

/// What dies with its client on /dev/tpmrm0, and stays on a TPM without a resource manager.
fn leave_three_objects_and_three_sessions(swtpm: &Swtpm) {
    for _ in 0..3 {
        swtpm.tool_ok("tpm2_createprimary", &["-C", "o", "-G", "ecc"]);
    }
    let tcti: TctiNameConf = swtpm.tcti_string().parse().unwrap();
    let mut context = Context::new(tcti).unwrap();
    for kind in [SessionType::Hmac, SessionType::Policy, SessionType::Policy] {
        context
            .start_auth_session(
                None,
                None,
                None,
                kind,
                SymmetricDefinition::AES_128_CFB,
                HashingAlgorithm::Sha256,
            )
            .unwrap();
    }
    // Killed: no destructor runs.
    std::mem::forget(context);
    assert_eq!(swtpm.loaded_handles().len(), 6);
}

#[tokio::test]
async fn what_a_killed_predecessor_left_is_swept_where_the_tpm_is_ours() {
    let swtpm = Swtpm::manufacture();
    leave_three_objects_and_three_sessions(&swtpm);
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let boot = sha256_pcrs(&[0]);
    let key = bound_key(&tpm, &boot).await;
    sign(&tpm, &key, &boot, b"a message").await.unwrap();
    swtpm.assert_nothing_loaded();
}

#[tokio::test]
async fn nothing_is_swept_where_others_use_the_tpm_and_full_memory_is_told_from_other_failures() {
    let swtpm = Swtpm::manufacture();
    let TctiConfig::Swtpm(network) = swtpm.tcti() else { unreachable!() };
    let shared = TctiConfig::Swtpm(NetworkTpm { owned: false, ..network });
    let tpm = Tpm::spawn(shared).unwrap();
    let boot = sha256_pcrs(&[0]);
    let ak = tpm.create_ak(None).await.unwrap();
    let key = bound_key(&tpm, &boot).await;
    // Saved contexts, so that one slot would do.
    tpm.quote(&ak, &boot, b"").await.unwrap();
    sign(&tpm, &key, &boot, b"a message").await.unwrap();

    leave_three_objects_and_three_sessions(&swtpm);
    let refused = tpm.quote(&ak, &boot, b"").await;
    assert!(matches!(refused, Err(TpmError::OutOfMemory { .. })), "{refused:?}");
    assert_eq!(swtpm.loaded_handles().len(), 6);

    // Objects free, sessions not: only what needs a session fails.
    swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
    tpm.quote(&ak, &boot, b"").await.unwrap();
    let refused = sign(&tpm, &key, &boot, b"a message").await;
    assert!(matches!(refused, Err(TpmError::OutOfMemory { .. })), "{refused:?}");

    swtpm.tool_ok("tpm2_flushcontext", &["-l"]);
    sign(&tpm, &key, &boot, b"a message").await.unwrap();
    swtpm.assert_nothing_loaded();
}

#[tokio::test]
async fn tpm_that_was_away_is_connected_to_again() {
    let mut swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let boot = sha256_pcrs(&[0]);
    let ak = tpm.create_ak(None).await.unwrap();
    let key = bound_key(&tpm, &boot).await;
    for _ in 0..2 {
        swtpm.power_off();
        for _ in 0..2 {
            let refused = tpm.quote(&ak, &boot, b"").await;
            assert!(matches!(refused, Err(TpmError::Unreachable { .. })), "{refused:?}");
        }
        swtpm.power_on();
        tpm.quote(&ak, &boot, b"").await.unwrap();
        sign(&tpm, &key, &boot, b"a message").await.unwrap();
        // The outage fell between two requests.
        swtpm.power_cut();
        sign(&tpm, &key, &boot, b"a message").await.unwrap();
    }
    swtpm.assert_nothing_loaded();
}

#[tokio::test]
async fn tpm_that_is_away_at_start_is_connected_to_when_it_comes() {
    let mut swtpm = Swtpm::manufacture();
    swtpm.power_off();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let refused = tpm.identify().await;
    assert!(matches!(refused, Err(TpmError::Unreachable { .. })), "{refused:?}");
    swtpm.power_on();
    tpm.identify().await.unwrap();
}

#[tokio::test]
async fn locked_out_tpm_still_serves_keys_without_dictionary_attack_protection() {
    let swtpm = Swtpm::manufacture();
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let boot = sha256_pcrs(&[0]);
    let ak = tpm.create_ak(None).await.unwrap();
    let key = bound_key(&tpm, &boot).await;
    swtpm.tool_ok("tpm2_createprimary", &["-C", "o", "-G", "ecc", "-p", "secret", "-c", "primary.ctx"]);
    swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
    for _ in 0..swtpm.property(0x20f) {
        swtpm.tool("tpm2_create", &["-C", "primary.ctx", "-P", "wrong", "-u", "key.pub", "-r", "key.priv"]);
        swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
    }
    let lockout = tpm.identify().await.unwrap().lockout;
    assert_eq!(lockout.failed_tries, lockout.limit);

    tpm.quote(&ak, &boot, b"").await.unwrap();
    tpm.certify(&ak, &key, b"").await.unwrap();
    sign(&tpm, &key, &boot, b"a message").await.unwrap();
    tpm.create_ak(None).await.unwrap();
    tpm.preferred_endorsement_key().await.unwrap();
}

#[tokio::test]
async fn tpm_that_hangs_costs_callers_no_more_than_their_limit_and_is_used_again_after() {
    let swtpm = Swtpm::manufacture();
    let limits = Limits { quick: Duration::from_millis(300), ..Limits::default() };
    let tpm = Tpm::spawn_with(swtpm.tcti(), limits).unwrap();
    let boot = sha256_pcrs(&[0]);
    let key = bound_key(&tpm, &boot).await;

    let pid = rustix::process::Pid::from_raw(i32::try_from(swtpm.pid().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    for _ in 0..2 {
        assert_eq!(tpm.random(8).await, Err(TpmError::Timeout { after: limits.quick }));
        assert_eq!(tpm.sign_blocking(&key, &boot, &[1; 32]), Err(TpmError::Timeout { after: limits.quick }));
    }
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();

    // What nobody waits for any more is passed over; the next is served, if the machine is not too busy for its limit.
    while tpm.sign(&key, &boot, &[1; 32]).await.is_err() {}
    swtpm.assert_nothing_loaded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotes_hold_together_while_pcrs_move() {
    let swtpm = Arc::new(Swtpm::manufacture());
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let ak = tpm.create_ak(None).await.unwrap();
    let boot = sha256_pcrs(&[0, 7]);
    let key = bound_key(&tpm, &boot).await;
    let done = Arc::new(AtomicBool::new(false));
    let kernel = {
        let (swtpm, done) = (Arc::clone(&swtpm), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut count = 0u32;
            while !done.load(Ordering::SeqCst) {
                swtpm.extend(10, &count.to_be_bytes());
                count += 1;
            }
            count
        })
    };
    let selection = sha256_pcrs(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14]);
    let mut held = 0;
    for _ in 0..50 {
        match tpm.quote(&ak, &selection, b"").await {
            Ok(quote) => {
                let attest = signed_statement(&ak, &quote.statement);
                let rootbound_common::tpm::Attested::Quote { pcr_digest, .. } = attest.attested else {
                    panic!()
                };
                let digest = quote.values.digest(&selection, HashAlgorithm::Sha256).unwrap();
                assert_eq!(digest.as_bytes(), pcr_digest);
                held += 1;
            }
            // The extender hammers without a pause, as no kernel does.
            Err(error) => assert!(matches!(error, TpmError::PcrsMoving { .. }), "{error:?}"),
        }
        match sign(&tpm, &key, &boot, b"PCR 10 is none of this key's business").await {
            Ok(()) => held += 1,
            Err(error) => assert!(matches!(error, TpmError::PcrsMoving { .. }), "{error:?}"),
        }
    }
    done.store(true, Ordering::SeqCst);
    assert!(kernel.join().unwrap() > 50);
    assert!(held > 0);
    swtpm.assert_nothing_loaded();
}
