//! Load on the real daemons, as programs of their own over loopback TLS and SQLite: round trips and memory.
//!
//! `--mode evaluate` asks for decisions instead, `--mode control` holds control streams, `--mode dry-run` asks what other
//! reference values would make of a large fleet.
//!
//! Nodes are simulated: their EKs and AKs are software keys, which sign a thousand times faster than a TPM, so that the
//! verifier is what is measured. The generator runs on the same machine and takes its share of it.
#![forbid(unsafe_code)]

mod control;
mod drift;
mod drive;
mod dry_run;
mod evaluate;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_swtpm_tests::daemon::{AttesterSite, Daemon, VerifierSite};
use rootbound_swtpm_tests::measured::Row;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::Simulated;
use rootbound_swtpm_tests::{Manufacturer, Swtpm};
use rootbound_verifier::http::admin::message::{Command, NodeSummary, Reply, Words};
use rootbound_verifier::node::{Labels, Name, Standing};

use crate::drive::Connections;

/// Measures round trips and memory of the daemons.
#[derive(Parser)]
struct Arguments {
    /// What is asked of the verifier.
    #[arg(long, value_enum, default_value_t = Mode::Attest)]
    mode: Mode,
    /// The folder with rootbound-verifier and rootbound-attester.
    #[arg(long, required_if_eq_any([("mode", "attest"), ("mode", "control")]))]
    programs: Option<PathBuf>,
    /// Connections that are kept, for decisions.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Questions of a batch.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Nodes in the fleet, for decisions and dry runs.
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    /// How long each load lasts.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Control streams.
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Nodes attest, and the daemons are looked at.
    Attest,
    /// A service asks for decisions.
    Evaluate,
    /// Nodes hold control streams, and are told to attest.
    Control,
    /// An operator asks what other reference values would make of the fleet.
    DryRun,
}

/// A rack of machines that attest at the same moment.
const NODES: usize = 16;

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let lasts = Duration::from_secs(arguments.seconds);
    match (arguments.mode, arguments.programs) {
        (Mode::Evaluate, _) => {
            let Arguments { connections, batch, nodes, .. } = arguments;
            evaluate::run(evaluate::Settings { connections, batch, nodes, lasts }).await;
        }
        (Mode::DryRun, _) => dry_run::run(arguments.nodes).await,
        (Mode::Attest, Some(programs)) => attest(&programs, lasts).await,
        (Mode::Control, Some(programs)) => control(&programs, arguments.streams).await,
        (Mode::Attest | Mode::Control, None) => unreachable!("clap asks for --programs"),
    }
}

async fn attest(programs: &Path, lasts: Duration) {
    let program = |name: &str| programs.join(name).display().to_string();
    let manufacturer = Manufacturer::new();
    let swtpm = Swtpm::manufacture_by(&manufacturer);
    let site = VerifierSite::init(&program("rootbound-verifier"), &[&manufacturer]);
    let verifier = site.run().await;
    idle(&site, &verifier, &program("rootbound-attester"), &swtpm).await;

    let nodes = enrolled(&site).await;
    for connections in [Connections::PerRequest, Connections::Kept] {
        for count in [1, NODES] {
            let load = drive::load(&nodes[..count], connections, &site, lasts).await;
            let nodes = if count == 1 { "node" } else { "nodes" };
            let name = format!("evidence, {count} simulated {nodes}, {}", connections.in_words());
            Row::rate(name, load.per_second(), load.percentile(50), load.percentile(99)).publish();
        }
    }
    Row::time("one fdatasync of 4 KB in the folder for databases", fdatasync(&std::env::temp_dir()))
        .publish();
    Row::memory("resident, verifier after the load", verifier.resident_kb()).publish();
}

async fn control(programs: &Path, streams: usize) {
    let program = |name: &str| programs.join(name).display().to_string();
    let manufacturer = Manufacturer::new();
    let swtpm = Swtpm::manufacture_by(&manufacturer);
    let site = VerifierSite::init(&program("rootbound-verifier"), &[&manufacturer]);
    let verifier = site.run().await;
    control::attest_now(&site, &program("rootbound-attester"), &swtpm).await;
    control::idle_streams(&site, &verifier, streams).await;
}

async fn operate(site: &VerifierSite, command: Command) -> Reply {
    site.ask(&command).await.expect("what an operator may do")
}

/// What the daemons hold when there is nothing to do but to wait for the next interval.
async fn idle(site: &VerifierSite, verifier: &Daemon, program: &str, swtpm: &Swtpm) {
    const VERIFIER_KB: u64 = 40 * 1024;
    const ATTESTER_KB: u64 = 12 * 1024;
    let attester = AttesterSite::new(program, &swtpm.tcti(), &site.url(), &site.bundle());
    let daemon = attester.spawn();
    let node = shown(site, |node| node.standing == Standing::Pending).await;
    operate(site, Command::NodeApprove { node: node.id, reason: Words::default() }).await;
    shown(site, |node| node.evidence_at.is_some()).await;
    // Until what the first exchange needed is freed again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let kilobytes = verifier.resident_kb();
    Row::memory("resident, idle verifier", kilobytes).memory_at_most(kilobytes, VERIFIER_KB).publish();
    let kilobytes = daemon.resident_kb();
    Row::memory("resident, idle attester", kilobytes).memory_at_most(kilobytes, ATTESTER_KB).publish();
}

/// The only node, once it is as wanted.
async fn shown(site: &VerifierSite, wanted: impl Fn(&NodeSummary) -> bool) -> NodeSummary {
    let begun = Instant::now();
    loop {
        let list = Command::NodeList { posture: None, labels: Labels::default(), after: None, limit: 1 };
        let Reply::Nodes(page) = operate(site, list).await else { panic!("a list of nodes") };
        if let Some(node) = page.nodes.into_iter().find(&wanted) {
            return node;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the attester does not get that far");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Nodes of software keys, affirming by the values that they all show.
async fn enrolled(site: &VerifierSite) -> Vec<Arc<Simulated>> {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let tpm = SoftwareTpm::booted(&[HashAlgorithm::Sha256]);
        let node = NodeId::of_endorsement_key(&tpm.endorsement_key.subject_public_key_info());
        let (labels, reason) = (Labels::default(), Words::default());
        operate(site, Command::InventoryAdd { node, waive_endorsement: true, labels, reason }).await;
        let simulated = Simulated { node, tpm, client: site.client() };
        simulated.enroll().await.expect("a listed EK enrols");
        nodes.push(Arc::new(simulated));
    }
    let first = &nodes[0];
    let challenge = first.challenge().await.expect("a challenge");
    first.submit(first.answer(&challenge)).await.expect("evidence");
    let (name, reason) = (Name::default_set(), Words::default());
    operate(site, Command::ReferenceCapture { node: first.node, name, reason }).await;
    nodes
}

/// How long the disk takes to keep 4 KB: what a commit cannot do without.
fn fdatasync(folder: &Path) -> Duration {
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    let mut file = File::create(folder.path().join("probe")).expect("a file");
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&[7; 4096]).and_then(|()| file.sync_data()).expect("a disk with room");
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}
