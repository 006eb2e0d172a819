//! A verifier, its clock and its machines: everything real but the time.
//!
//! [`World`] runs the verifier in this process, over TLS on loopback, on a SQLite file of its own. [`Machine`] is an
//! attester on a [`Swtpm`]; [`Simulated`] is a node made of software keys that says whatever a test wants said. Time is
//! the system's plus what a test has added to it ([`World::advance`]).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rootbound_attester::attest::{AttestError, Attester, Parts as AttesterParts};
use rootbound_attester::client::{Client, ClientIdentity, RequestError, VerifierConfig};
use rootbound_attester::deliver::{DeliverConfig, Delivery};
use rootbound_attester::enroll::EnrollmentConfig;
use rootbound_attester::keep::{Keep, StateConfig};
use rootbound_attester::tpm::Tpm;
use rootbound_common::binding::{Purpose, extra_data};
use rootbound_common::blob::Blob;
use rootbound_common::clock::{Clock, SystemClock, Timestamp};
use rootbound_common::id::NodeId;
use rootbound_common::nonce::Nonce;
use rootbound_common::random;
use rootbound_common::wire::v1::{
    ActivateRequest, ActivateResponse, Challenge, ChallengeRequest, EnrollRequest, EvidenceRequest,
    EvidenceResponse, JoinToken, PostureStatus, WhoamiResponse,
};
use rootbound_verifier::credential::authority::Authority;
use rootbound_verifier::enrollment::{EndorsementRoots, RevocationPolicy};
use rootbound_verifier::flows::operate::Operator;
use rootbound_verifier::flows::{Limits, Parts, Verifier};
use rootbound_verifier::http::{Limits as HttpLimits, Rate, Server, ServingNames, TlsIdentity};
use rootbound_verifier::node::{Labels, Name};
use rootbound_verifier::reference::ProfileBody;
use rootbound_verifier::store::SqliteStore;
use tempfile::TempDir;

use crate::certificate_request::RequestParts;
use crate::software_tpm::{Signed, SoftwareKey, SoftwareTpm, Statement, Template};
use crate::{Manufacturer, Swtpm};

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
}

/// The fleet of every test.
pub const TRUST_DOMAIN: &str = "test.example";

impl World {
    /// A verifier that trusts these TPM manufacturers, with the profile `default` of a fresh installation.
    ///
    /// A manufacturer has its CA once it has made a TPM.
    pub async fn new(manufacturers: &[&Manufacturer]) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let roots = dir.path().join("ek-roots");
        std::fs::create_dir(&roots).expect("a folder");
        for (position, manufacturer) in manufacturers.iter().enumerate() {
            let certificates = [manufacturer.root_certificate(), manufacturer.issuer_certificate()];
            std::fs::write(roots.join(format!("{position}.pem")), certificates.concat()).expect("a CA");
        }
        let clock = Arc::new(WorldClock::default());
        let day = Duration::from_secs(24 * 3600);
        let domain = TRUST_DOMAIN.parse().expect("a trust domain");
        let authority = Authority::generate(domain, clock.now().minus(day), day * 365, &mut random::system())
            .expect("a CA");
        let key = authority.private_key_pem().expect("a key").to_string();
        let authority = (authority.chain_pem(), key);
        std::fs::write(dir.path().join("bundle.pem"), &authority.0).expect("a bundle");
        let verifier = start_verifier(dir.path(), &clock, &authority).await;
        let name = Name::default_set();
        let body = ProfileBody::initial(name.clone());
        verifier.put_profile(name, body, &operator()).await.expect("the initial profile");
        let server = Some(start_server(&verifier).await);
        Self { verifier, clock, server, dir, authority }
    }

    /// Stops the verifier and starts it anew on the same files, as after an update.
    pub async fn restart(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
        self.verifier = start_verifier(self.dir.path(), &self.clock, &self.authority).await;
        self.server = Some(start_server(&self.verifier).await);
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

    /// A client without a certificate of its own.
    pub fn client(&self) -> Client {
        let address = self.server.as_ref().expect("a running server").local_addr();
        let config = VerifierConfig {
            url: format!("https://{address}").try_into().expect("a URL"),
            ca_file: self.dir.path().join("bundle.pem"),
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

    /// How a node stands now.
    pub fn status(&self, node: NodeId) -> PostureStatus {
        let live = self.verifier.fleet().node(node).expect("an enrolled node");
        live.posture.as_ref().map_or(PostureStatus::Unknown, |posture| posture.status(self.clock.now()))
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

async fn start_verifier(dir: &Path, clock: &Arc<WorldClock>, authority: &(String, String)) -> Arc<Verifier> {
    let store = SqliteStore::open(&dir.join("verifier.db")).await.expect("a database");
    let trust_domain: rootbound_common::id::TrustDomain = TRUST_DOMAIN.parse().expect("a trust domain");
    let authority =
        Authority::load(&authority.0, &authority.1, trust_domain.clone(), clock.now()).expect("a CA");
    let parts = Parts {
        store: Arc::new(store),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        trust_domain,
        roots: EndorsementRoots::load(&dir.join("ek-roots")).expect("roots"),
        // The CA of swtpm_localca publishes no CRL.
        revocation: RevocationPolicy::IfAvailable,
        authority,
        limits: Limits::default(),
    };
    Arc::new(Verifier::start(parts).await.expect("a verifier"))
}

async fn start_server(verifier: &Arc<Verifier>) -> Server {
    let names = ServingNames::parse(["127.0.0.1", "localhost"]).expect("names");
    // Tests come from one address, and at once.
    let plenty = Rate::new(1_000_000, 1_000_000);
    let limits =
        HttpLimits { enrollments: plenty, attestations: plenty, queries: plenty, ..HttpLimits::default() };
    let listen = "127.0.0.1:0".parse().expect("an address");
    Server::start(Arc::clone(verifier), listen, &TlsIdentity::Minted(names), limits).await.expect("a server")
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

    /// Asks the verifier who it is, over mTLS by the key in the TPM.
    pub async fn whoami(&self, world: &World) -> Result<WhoamiResponse, RequestError> {
        let credential = self.attester.credential().expect("a credential");
        let identity = ClientIdentity::new(self.tpm.clone(), credential).expect("an identity");
        world.client().whoami(identity).await
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
    };
    (Attester::new(parts, Arc::clone(&world.clock) as Arc<dyn Clock>), tpm)
}

/// An attester that nobody uses, for the moment in which the real one is replaced.
fn idle(world: &World, swtpm: &Swtpm) -> Attester {
    let dir = TempDir::new().expect("a temporary folder");
    start_attester(world, swtpm, dir.path(), None).0
}

/// A node whose TPM is made of software keys: labelled as such wherever figures are given.
pub struct Simulated {
    /// Its id.
    pub node: NodeId,
    /// Its keys, PCRs and clock.
    pub tpm: SoftwareTpm,
    /// Its connection.
    pub client: Client,
}

impl Simulated {
    /// Enrols with the AK that it has now.
    pub async fn enroll(&self) -> Result<ActivateResponse, RequestError> {
        let begun = self.client.enroll(&self.enroll_request()).await?;
        let name = self.tpm.attestation_key.public().name();
        let (blob, secret) = (begun.credential_blob.as_bytes(), begun.encrypted_secret.as_bytes());
        let opened =
            self.tpm.endorsement_key.activate_credential(&name, blob, secret).expect("our own EK and AK");
        let secret = Blob::new(opened).expect("a short secret");
        self.client.activate(&ActivateRequest { enrollment: begun.enrollment, secret }).await
    }

    /// What it sends to enrol.
    pub fn enroll_request(&self) -> EnrollRequest {
        EnrollRequest {
            ek_public: Blob::new(self.tpm.endorsement_key.public_area()).expect("an EK"),
            ek_certificates: Vec::new(),
            ak_public: Blob::new(self.tpm.attestation_key.public_area()).expect("an AK"),
            join_token: None,
        }
    }

    /// Asks for a challenge.
    pub async fn challenge(&self) -> Result<Challenge, RequestError> {
        self.client.challenge(&ChallengeRequest { node: self.node }).await
    }

    /// An honest answer, without a request for a credential.
    pub fn answer(&self, challenge: &Challenge) -> EvidenceRequest {
        self.evidence(challenge, self.quote(challenge, None).sign(&self.tpm.attestation_key), None)
    }

    /// An honest answer with a request for a credential, and the key that it is for.
    pub fn answer_with_request(&self, challenge: &Challenge) -> (EvidenceRequest, SoftwareKey) {
        let policy = self.tpm.policy(&challenge.credential_policy.selection());
        let key = SoftwareKey::p256(Template::credential(policy.as_bytes()));
        let extra = extra_data(Purpose::Certify, &nonce(challenge), &[]);
        let certify = self.tpm.certify(&key, extra.as_bytes()).sign(&self.tpm.attestation_key);
        let csr = RequestParts::honest(&key, &certify).sign(&key);
        let signed = self.quote(challenge, Some(&csr)).sign(&self.tpm.attestation_key);
        (self.evidence(challenge, signed, Some(csr)), key)
    }

    /// The quote that an honest TPM makes for a challenge; to be changed, then signed.
    pub fn quote(&self, challenge: &Challenge, csr: Option<&[u8]>) -> Statement {
        let parts = EvidenceRequest::bound_parts(csr);
        let extra = extra_data(Purpose::Quote, &nonce(challenge), &parts);
        self.tpm.quote(&challenge.selection, extra.as_bytes())
    }

    /// A message of these parts, with the values of the PCRs that the challenge asks for.
    pub fn evidence(&self, challenge: &Challenge, quote: Signed, csr: Option<Vec<u8>>) -> EvidenceRequest {
        EvidenceRequest {
            challenge: challenge.token.clone(),
            quote: Blob::new(quote.attest).expect("a short statement"),
            signature: Blob::new(quote.signature).expect("a short signature"),
            pcrs: self.tpm.values(&challenge.selection),
            certificate_request: csr.map(|csr| Blob::new(csr).expect("a short request")),
        }
    }

    /// Sends evidence.
    pub async fn submit(&self, evidence: EvidenceRequest) -> Result<EvidenceResponse, RequestError> {
        self.client.evidence(&evidence).await
    }
}

/// The nonce of a challenge.
pub fn nonce(challenge: &Challenge) -> Nonce {
    Nonce::from_bytes(challenge.nonce.as_bytes().try_into().expect("32 bytes"))
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
