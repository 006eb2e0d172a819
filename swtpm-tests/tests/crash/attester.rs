//! An attester that is killed at any moment.

use std::fs;
use std::time::Duration;

use rootbound_swtpm_tests::daemon::{Daemon, FileEvents};
use rootbound_swtpm_tests::random::Random;

use crate::machine::Machine;
use crate::seeded;

const KILLS: usize = 16;

/// About how much there is to do: TPM commands, and changes in the two folders.
struct Work {
    commands: usize,
    changes: usize,
}

/// Whatever it was doing (enrolling, attesting, asking for a credential, writing, delivering): what it left can be read,
/// belongs together, and the next process arrives with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attester_that_is_killed_at_any_moment_arrives_at_the_next_start() {
    let mut random = seeded();
    let mut machine = Machine::new().await;
    for _ in 0..KILLS {
        let work = prepare(&mut machine, &mut random).await;
        let daemon = machine.site.spawn();
        at_any_moment(&machine, &daemon, &work, &mut random).await;
        daemon.kill();
        machine.trap.off();
        machine.examine();

        let daemon = machine.site.spawn();
        machine.converges(&daemon).await;
        let log = daemon.stop().await;
        assert!(!log.contains("is put aside"), "{log}");
        machine.examine_in_order();
    }
}

/// Gives the next attester something to do: all of it, or another credential, or the usual.
async fn prepare(machine: &mut Machine, random: &mut Random) -> Work {
    match random.below(4) {
        0 | 1 => {
            for entry in fs::read_dir(machine.site.state()).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
            Work { commands: 70, changes: 45 }
        }
        2 => {
            machine.change_policy().await;
            Work { commands: 40, changes: 40 }
        }
        _ => Work { commands: 20, changes: 30 },
    }
}

/// Waits for a TPM command, or a change in the folders; or until there is nothing left to do.
async fn at_any_moment(machine: &Machine, daemon: &Daemon, work: &Work, random: &mut Random) {
    let done = machine.converges(daemon);
    let moment = if random.one_in(2) {
        let (more, hold) = (random.below(work.commands), random.one_in(2));
        machine.trap.set(more, hold);
        tokio::select! {
            () = machine.trap.sprung() => format!("TPM command {more}, {}", if hold { "held" } else { "executed" }),
            () = done => "nothing left to do".to_owned(),
        }
    } else {
        let events = FileEvents::watch(&[machine.site.state(), machine.site.deliveries()]);
        let count = 1 + random.below(work.changes);
        tokio::select! {
            () = events.happened(count) => format!("change {count} in the folders"),
            () = done => "nothing left to do".to_owned(),
        }
    };
    println!("{moment}; said last: {}", daemon.log().lines().next_back().unwrap_or("nothing"));
    if random.one_in(3) {
        let micros = u64::try_from(random.below(3_000)).unwrap();
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}
