//! A verifier, its clock and its machines: everything real but the time.
//!
//! [`World`] runs the verifier in this process, over TLS on loopback, on a SQLite file of its own. [`Machine`] is an
//! attester on a [`Swtpm`]; [`Simulated`] is a node made of software keys that says whatever a test wants said. Time is
//! the system's plus what a test has added to it ([`World::advance`]).

mod simulated;
mod start;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rootbound_attester::attest::{AttestError, Attester, Parts as AttesterParts};
use rootbound_attester::client::{Client, ClientIdentity, RequestError, VerifierConfig};
use rootbound_attester::collect::{CollectConfig, Logs};
use rootbound_attester::deliver::{DeliverConfig, Delivery};
use rootbound_attester::enroll::{EnrollError, EnrollmentConfig};
use rootbound_attester::keep::{Keep, StateConfig};
use rootbound_attester::tpm::Tpm;
use rootbound_common::clock::{Clock, SystemClock, Timestamp};
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{JoinToken, PostureStatus, WhoamiResponse};
use rootbound_verifier::flows::Verifier;
use rootbound_verifier::flows::operate::Operator;
use rootbound_verifier::http::Server;
use rootbound_verifier::node::{Labels, Name};
use rootbound_verifier::reference::ProfileBody;
use tempfile::TempDir;

use crate::software_tpm::SoftwareTpm;
use crate::{Manufacturer, Swtpm};

pub use simulated::{Simulated, nonce};
pub use start::WorldBuilder;
use start::{ROOTS, Settings};

/// The system's time, plus what a test has added.
#[derive(Debug, Default)]
pub struct WorldClock {
    added: AtomicI64,
}

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        let added = self.added.load(Ordering::SeqCst);
        Timestamp::from_millis(SystemClock.now().as_millis() + added)
    }
}

/// A verifier and what surrounds it.
pub struct World {
    /// The verifier, for what an operator does and for what a test looks at.
    pub verifier: Arc<Verifier>,
    /// Its time.
    pub clock: Arc<WorldClock>,
    server: Option<Server>,
    dir: TempDir,
    authority: (String, String),
    settings: Settings,
}

/// The fleet of every test.
pub const TRUST_DOMAIN: &str = "test.example";

impl World {
    /// How to make one.
    #[must_use]
    pub fn builder() -> WorldBuilder {
        WorldBuilder::default()
    }

    /// A verifier that trusts these TPM manufacturers. A manufacturer has its CA once it has made a TPM. Without any, only
    /// EKs that an operator lists can enrol.
    pub async fn new(manufacturers: &[&Manufacturer]) -> Self {
        Self::builder().manufacturers(manufacturers).start().await
    }

    /// Stops the verifier and starts it anew on the same files, as after an update.
    pub async fn restart(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
        self.verifier = self.settings.start_verifier(self.dir.path(), &self.clock, &self.authority).await;
        self.server = Some(self.settings.start_server(&self.verifier).await);
    }

    /// Another verifier on the same files, which nobody reaches over the network.
    pub async fn replica(&self) -> Arc<Verifier> {
        self.settings.start_verifier(self.dir.path(), &self.clock, &self.authority).await
    }

    /// The folder of EK roots, which the verifier reads when it starts.
    pub fn roots(&self) -> PathBuf {
        self.dir.path().join(ROOTS)
    }

    /// Reads the folder of EK roots again, as a signal makes the daemon do.
    pub fn reread_roots(&self) {
        self.verifier.trust(start::read_roots(self.dir.path()));
    }

    /// Where the verifier listens.
    pub fn address(&self) -> SocketAddr {
        self.server.as_ref().expect("a running server").local_addr()
    }

    /// Adds to the verifier's time. TPMs and the system do not notice.
    pub fn advance(&self, duration: Duration) {
        let millis = i64::try_from(duration.as_millis()).expect("a short time");
        self.clock.added.fetch_add(millis, Ordering::SeqCst);
    }

    /// A folder for the test's own files.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where attesters find the verifier.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// Whom attesters trust.
    pub fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle.pem")
    }

    /// A client without a certificate of its own.
    pub fn client(&self) -> Client {
        let config = VerifierConfig {
            url: self.url().try_into().expect("a URL"),
            ca_file: self.bundle(),
            request_timeout: Default::default(),
        };
        Client::new(config).expect("a client")
    }

    /// An attester on a TPM, with state and deliveries of its own. It has done nothing yet.
    pub fn machine(&self, swtpm: Swtpm) -> Machine {
        Machine::new(self, swtpm, None)
    }

    /// The same, with a join token.
    pub fn machine_with_token(&self, swtpm: Swtpm, token: &JoinToken) -> Machine {
        Machine::new(self, swtpm, Some(token))
    }

    /// An enrolled machine that an operator has approved; no evidence yet.
    pub async fn admitted(&self, swtpm: Swtpm) -> Machine {
        let mut machine = self.machine(swtpm);
        let pending = machine.attester.attest().await;
        assert!(matches!(pending, Err(AttestError::Request(_))), "not admitted yet: {pending:?}");
        let node = machine.node().await;
        self.verifier.approve(node, &operator()).await.expect("a pending node");
        machine
    }

    /// A machine that is affirming by the values it showed, and holds a credential.
    pub async fn affirming(&self, swtpm: Swtpm) -> Machine {
        let mut machine = self.admitted(swtpm).await;
        machine.attester.attest().await.expect("evidence");
        let node = machine.node().await;
        self.capture(node).await;
        machine.attest_anew().await.expect("evidence");
        assert_eq!(self.status(node), PostureStatus::Affirming);
        assert!(machine.attester.credential().is_some(), "a credential");
        machine
    }

    /// Makes what a node showed last the reference set `default`.
    pub async fn capture(&self, node: NodeId) {
        self.verifier.capture(node, Name::default_set(), &operator()).await.expect("evidence to capture");
    }

    /// Writes the next version of the profile `default`, with some changes.
    pub async fn change_profile(&self, change: impl FnOnce(&mut ProfileBody)) {
        let profiles = self.verifier.store().profiles().await.expect("the store");
        let latest = profiles.iter().rfind(|profile| profile.id().name == Name::default_set());
        let mut body = latest.expect("the profile of a fresh installation").body().clone();
        change(&mut body);
        self.verifier.put_profile(Name::default_set(), body, &operator()).await.expect("a profile");
    }

    /// How a node stands now.
    pub fn status(&self, node: NodeId) -> PostureStatus {
        let live = self.verifier.fleet().node(node).expect("an enrolled node");
        live.status(self.clock.now())
    }

    /// The codes of a node's deviations, in order.
    pub fn deviations(&self, node: NodeId) -> Vec<String> {
        let live = self.verifier.fleet().node(node).expect("an enrolled node");
        let posture = live.posture.as_ref().expect("a posture");
        posture.deviations.iter().map(|deviation| deviation.code.clone()).collect()
    }

    /// Whether the latest decision on a node was to grant, and its code.
    pub async fn last_decision(&self, node: NodeId) -> (bool, String) {
        let decisions = self.verifier.store().decisions(Some(node), 1).await.expect("the store");
        let last = decisions.into_iter().next().expect("a decision");
        (last.granted, last.code)
    }

    /// Lists an EK with a waiver, since software keys have no manufacturer.
    pub async fn list(&self, node: NodeId) {
        self.verifier.add_inventory(node, true, Labels::default(), &operator()).await.expect("the inventory");
    }

    /// A node of software keys that is enrolled and admitted; no evidence yet.
    pub async fn simulated(&self, tpm: SoftwareTpm) -> Simulated {
        let node = NodeId::of_endorsement_key(&tpm.endorsement_key.subject_public_key_info());
        self.list(node).await;
        let simulated = Simulated { node, tpm, client: self.client() };
        simulated.enroll().await.expect("a listed EK enrols");
        simulated
    }

    /// The same, affirming by the values that it showed.
    pub async fn affirming_simulated(&self, tpm: SoftwareTpm) -> Simulated {
        let simulated = self.simulated(tpm).await;
        let challenge = simulated.challenge().await.expect("a challenge");
        simulated.submit(simulated.answer(&challenge)).await.expect("evidence");
        self.capture(simulated.node).await;
        assert_eq!(self.status(simulated.node), PostureStatus::Affirming);
        simulated
    }
}

/// Who operates in tests.
pub fn operator() -> Operator {
    Operator { author: "a test".to_owned(), reason: "because".to_owned() }
}

/// An attester and its TPM.
pub struct Machine {
    /// The TPM, to boot, extend and cut off.
    pub swtpm: Swtpm,
    /// The attester.
    pub attester: Attester,
    /// Its handle on the TPM.
    pub tpm: Tpm,
    dir: TempDir,
    join_token: Option<JoinToken>,
}

impl Machine {
    fn new(world: &World, swtpm: Swtpm, token: Option<&JoinToken>) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let (attester, tpm) = start_attester(world, &swtpm, dir.path(), token);
        Self { swtpm, attester, tpm, dir, join_token: token.cloned() }
    }

    /// Starts the attester anew on the same state, as after a crash or a reboot.
    pub fn restart(&mut self, world: &World) {
        let token = self.join_token.clone();
        // The state folder is locked by the attester that is running.
        drop(std::mem::replace(&mut self.attester, idle(world, &self.swtpm)));
        let (attester, tpm) = start_attester(world, &self.swtpm, self.dir.path(), token.as_ref());
        (self.attester, self.tpm) = (attester, tpm);
    }

    /// The folder that holds `state` and `credentials`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The machine's id, by its EK.
    pub async fn node(&self) -> NodeId {
        let choice = rootbound_attester::enroll::EkChoice::Auto;
        rootbound_attester::enroll::Endorsement::read(&self.tpm, choice).await.expect("an EK").node()
    }

    /// Attests now, with a fresh challenge instead of the one that waits for its interval.
    pub async fn attest_anew(&mut self) -> Result<Duration, AttestError> {
        self.attester.forget_challenge();
        self.attester.attest().await
    }

    /// It attests and acts as it always did.
    ///
    /// # Panics
    /// Where it does not.
    pub async fn is_well(&mut self, world: &World) {
        self.attest_anew().await.expect("evidence");
        let who = self.whoami(world).await.expect("a credential that counts");
        assert_eq!((who.node, who.posture.status), (self.node().await, PostureStatus::Affirming));
    }

    /// Asks the verifier who it is, over mTLS by the key in the TPM.
    pub async fn whoami(&self, world: &World) -> Result<WhoamiResponse, RequestError> {
        let credential = self.attester.credential().expect("a credential");
        let identity = ClientIdentity::new(self.tpm.clone(), credential).expect("an identity");
        world.client().whoami(identity).await
    }
}

/// The stable code that an attester was refused with.
///
/// # Panics
/// Where it was not refused, or failed by itself.
pub fn attester_refused<T: std::fmt::Debug>(outcome: Result<T, AttestError>) -> String {
    match outcome {
        Err(AttestError::Request(error) | AttestError::Enroll(EnrollError::Request(error))) => {
            refused::<T>(Err(error))
        }
        other => panic!("not a refusal: {other:?}"),
    }
}

fn start_attester(world: &World, swtpm: &Swtpm, dir: &Path, token: Option<&JoinToken>) -> (Attester, Tpm) {
    let tpm = Tpm::spawn(swtpm.tcti()).expect("a thread");
    let join_token_file = token.map(|token| {
        let path = dir.join("join-token");
        std::fs::write(&path, &token.0).expect("a file");
        path
    });
    let parts = AttesterParts {
        tpm: tpm.clone(),
        client: world.client(),
        keep: Keep::open(&StateConfig { directory: dir.join("state") }).expect("a state folder"),
        delivery: Delivery::open(&DeliverConfig { directory: dir.join("credentials") }).expect("a folder"),
        enrollment: EnrollmentConfig { join_token_file, ..EnrollmentConfig::default() },
        // What stands there is the test's to write; nothing is a kernel that exposes no log.
        logs: Logs::new(CollectConfig {
            boot_log: dir.join("boot-log"),
            ima: dir.join("ima"),
            ima_count: dir.join("ima-count"),
            ..CollectConfig::default()
        }),
    };
    (Attester::new(parts, Arc::clone(&world.clock) as Arc<dyn Clock>), tpm)
}

/// An attester that nobody uses, for the moment in which the real one is replaced.
fn idle(world: &World, swtpm: &Swtpm) -> Attester {
    let dir = TempDir::new().expect("a temporary folder");
    start_attester(world, swtpm, dir.path(), None).0
}

/// The stable code of a refusal by the verifier.
///
/// # Panics
/// Where the request was answered, or failed before an answer came.
pub fn refused<T: std::fmt::Debug>(outcome: Result<T, RequestError>) -> String {
    match outcome {
        Err(RequestError::Refused(refusal)) => refusal.code.as_str().to_owned(),
        other => panic!("not a refusal: {other:?}"),
    }
}
