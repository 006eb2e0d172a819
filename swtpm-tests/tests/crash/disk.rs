//! A disk that is full, when the attester starts and while it runs.

use rootbound_common::wire::v1::PostureStatus;
use rootbound_swtpm_tests::daemon::until;

use crate::machine::Machine;

/// Nobody hears of a key that could be lost: there is no enrolment before the AK is on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attester_that_starts_on_a_full_disk_says_so_and_enrols_once_there_is_room() {
    let machine = Machine::new().await;
    let daemon = machine.site.spawn_on_small_disk(true);
    daemon.says("cannot write ").await;
    assert!(daemon.said("cannot write ")[0].contains("identity.json"), "{}", daemon.log());
    assert!(machine.world.verifier.fleet().node(machine.node).is_none(), "nobody has heard of the AK");

    daemon.free_disk();
    machine.converges(&daemon).await;
    daemon.stop().await;
    machine.examine_in_order();
}

/// It attests all the same, uses the new credential itself, and saves and delivers it once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attester_whose_disk_fills_up_says_so_once_and_goes_on_attesting() {
    let mut machine = Machine::new().await;
    let daemon = machine.site.spawn_on_small_disk(false);
    machine.converges(&daemon).await;
    let before = machine.site.view().credential().unwrap().unwrap();

    daemon.fill_disk();
    machine.change_policy().await;
    daemon.says("the credential is not saved").await;
    daemon.says("the credential is not delivered").await;
    until("the credential works", async || daemon.said("the credential works").len() == 2).await;
    let accepted = machine.accepted().await;
    until("three more quotes", async || machine.accepted().await >= accepted + 3).await;
    assert_eq!(machine.world.status(machine.node), PostureStatus::Affirming);
    assert_eq!(daemon.said("ERROR").len(), 2, "told once:\n{}", daemon.log());
    assert!(daemon.said("ERROR").iter().all(|line| line.contains("File too large")), "{}", daemon.log());
    assert_eq!(machine.site.view().credential().unwrap().unwrap(), before, "what was saved is whole");
    machine.examine();

    daemon.free_disk();
    until("the credential is delivered", async || machine.up_to_date()).await;
    daemon.stop().await;
    machine.examine_in_order();
}
