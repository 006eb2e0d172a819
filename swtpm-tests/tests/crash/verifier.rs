//! A verifier that is killed at any moment.

use std::sync::Arc;
use std::time::Duration;

use rootbound_attester::enroll::{EkChoice, Endorsement};
use rootbound_attester::tpm::Tpm;
use rootbound_common::clock::{Clock, SystemClock};
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::PostureStatus;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::daemon::{
    AttesterSite, Daemon, Delivered, FileEvents, LIMIT, VerifierSite, until,
};
use rootbound_swtpm_tests::random::Random;
use rootbound_verifier::http::admin::message::{Command, NodeDetail, Reply, Words};
use rootbound_verifier::node::Name;
use rootbound_verifier::reference::{AcceptedPcrs, ProfileBody};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use crate::node::{Node, booted, serial_of};
use crate::site::Site;
use crate::{ATTESTER, VERIFIER, seeded};

const KILLS: usize = 14;
const DRIVERS: usize = 5;

/// Admissions, decisions, versions and records that somebody was told of stay; nothing is accepted twice; counters do not
/// go back; and when nobody kills it any more, every machine is affirming by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifier_that_is_killed_at_any_moment_keeps_its_word() {
    LocalSet::new().run_until(story()).await;
}

async fn story() {
    let mut random = seeded();
    let swtpm = Swtpm::manufacture();
    let site = Arc::new(Site::new(VerifierSite::init(VERIFIER, &[swtpm.manufacturer()])));
    let mut verifier = site.verifier.run().await;
    site.starts.send_modify(|starts| *starts += 1);
    let machine = prepare(&site, &swtpm).await;
    let attester = AttesterSite::new(ATTESTER, &swtpm.tcti(), &site.verifier.url(), &site.verifier.bundle());
    let attester_runs = attester.spawn();

    let (stop, stopped) = watch::channel(false);
    let mut drivers = JoinSet::new();
    for _ in 0..DRIVERS {
        drivers.spawn_local(drive(Arc::clone(&site), Random::new(random.number()), stopped.clone()));
    }
    let (mut kills, mut at_first) = (0, 0);
    while kills < KILLS {
        tokio::select! {
            () = after_some_requests(&site, &mut random) => {}
            ended = drivers.join_next() => panic!("a driver has ended: {ended:?}"),
        }
        verifier = kill_and_start(&site, verifier, &mut random, &mut kills).await;
        if at_first == 0 {
            at_first = site.ledger.lock().await.nodes.len();
        }
    }
    let last_start = SystemClock.now();
    stop.send(true).expect("drivers");
    drivers.join_all().await;
    // After so many outages in a row it may wait for a minute; a new one does not.
    attester_runs.stop().await;
    let attester_runs = attester.spawn();

    // Among so many kills it may not have come so far as to enrol.
    until("the real machine attests", async || {
        let shown = shown(&site, machine).await;
        shown.is_some_and(|detail| detail.made_at.is_some_and(|at| at > last_start))
    })
    .await;
    let nodes: Vec<_> = site.ledger.lock().await.nodes.keys().copied().collect();
    assert!(nodes.len() > at_first, "machines joined all the time");
    for node in nodes {
        let shown = shown(&site, node).await.expect("a node that was admitted");
        assert_eq!(shown.posture.status, PostureStatus::Affirming, "{node}");
    }
    attester_runs.stop().await;
    let delivered = Delivered::read(&attester.deliveries()).expect("a credential");
    site.ledger.lock().await.node(machine).serials.push(serial_of(&delivered.chain));
    assert!(attester.run("whoami").status.success());
    verifier.stop().await;
    site.ledger.lock().await.audit(&site.verifier).await;
}

/// Lists the real machine; accepts what it and the simulated ones have booted; asks for evidence each second.
async fn prepare(site: &Site, swtpm: &Swtpm) -> NodeId {
    let body = ProfileBody {
        interval: Duration::from_secs(1),
        stale_after: 100,
        ..ProfileBody::initial(Name::default_set())
    };
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let node = Endorsement::read(&tpm, EkChoice::Auto).await.unwrap().node();
    let real = tpm.read_pcrs(&body.pcrs).await.unwrap();
    let simulated = booted().values(&body.pcrs);
    let values = real.iter().chain(simulated.iter()).map(|(_, pcr, value)| (pcr, *value));
    let accepted = AcceptedPcrs::new(values).unwrap();
    let (name, reason) = (Name::default_set(), Words::default());
    for verb in [
        Command::ProfileSet { name: name.clone(), body: Box::new(body), reason: reason.clone() },
        Command::ReferenceSet { name, accepted, reason: reason.clone() },
        Command::InventoryAdd { node, waive_endorsement: false, labels: Default::default(), reason },
    ] {
        site.operate(verb).await.unwrap();
    }
    let mut ledger = site.ledger.lock().await;
    ledger.node(node).listed = true;
    // Nobody counts what this one answers.
    ledger.node(node).answered = usize::MAX;
    node
}

/// Some machines, more as time goes by, one of them doing something at any time.
async fn drive(site: Arc<Site>, mut random: Random, stopped: watch::Receiver<bool>) {
    let mut nodes = vec![Node::join(&site, Random::new(random.number())).await];
    while !*stopped.borrow() {
        if random.one_in(20) {
            nodes.push(Node::join(&site, Random::new(random.number())).await);
        }
        let which = random.below(nodes.len());
        nodes[which].act().await;
    }
    for node in &mut nodes {
        node.settle().await;
    }
}

/// Somewhere in the work on a request, or while it is written down.
async fn after_some_requests(site: &Site, random: &mut Random) {
    let mut requests = site.requests.subscribe();
    let enough = *requests.borrow() + 1 + random.below(60);
    let enough = tokio::time::timeout(LIMIT, requests.wait_for(|now| *now >= enough)).await;
    enough.expect("drivers that send requests").expect("the sender is ours");
    if random.one_in(2) {
        at_any_moment(random, 5_000).await;
    } else {
        FileEvents::watch(&[site.verifier.state()]).happened(1 + random.below(20)).await;
    }
}

/// Kills the verifier, holds its promises against what it left, and starts it again; now and then kills it once more
/// while it starts.
async fn kill_and_start(site: &Site, verifier: Daemon, random: &mut Random, kills: &mut usize) -> Daemon {
    let mut verifier = verifier;
    loop {
        verifier.kill();
        *kills += 1;
        site.ledger.lock().await.audit(&site.verifier).await;
        verifier = site.verifier.spawn();
        if !random.one_in(4) {
            VerifierSite::ready(&verifier).await;
            site.starts.send_modify(|starts| *starts += 1);
            return verifier;
        }
        at_any_moment(random, 150_000).await;
    }
}

/// Within so many microseconds from now.
async fn at_any_moment(random: &mut Random, limit: usize) {
    let micros = u64::try_from(random.below(limit)).unwrap();
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

/// The node as its operator sees it; `None` where it has not enrolled.
async fn shown(site: &Site, node: NodeId) -> Option<Box<NodeDetail>> {
    match site.operate(Command::NodeShow { node }).await {
        Ok(Reply::Node(detail)) => Some(detail),
        Err(code) if code == "unknown_node" => None,
        other => panic!("{other:?}"),
    }
}

/// Whatever was made when it died, the same command goes on from there; after success it refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_that_is_killed_at_any_moment_goes_on_where_it_was() {
    /// More changes than it makes, which are mostly SQLite's.
    const CHANGES: usize = 80;
    const INITS: usize = 8;
    let mut random = seeded();
    for _ in 0..INITS {
        let site = VerifierSite::bare(VERIFIER, &[]);
        let changes = FileEvents::watch(&[site.state()]);
        let mut init = Daemon::start(site.init_command());
        let count = 1 + random.below(CHANGES);
        tokio::select! {
            () = changes.happened(count) => println!("change {count} in the state directory"),
            _ = init.ended() => println!("done before change {count}"),
        }
        drop(init);

        let again = || site.init_command().output().unwrap().status.code().unwrap();
        let (done, refused) = (0, 4);
        assert!([done, refused].contains(&again()));
        assert_eq!(again(), refused);
        site.run().await.stop().await;
        let left: Vec<_> =
            std::fs::read_dir(site.state()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let unfinished = left.iter().filter(|name| name.to_string_lossy().starts_with('.')).count();
        assert_eq!(unfinished, 0, "{left:?}");
    }
}
