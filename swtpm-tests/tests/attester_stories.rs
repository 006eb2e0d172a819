//! The attester's stories, told by the attester itself to a verifier that runs: enrol, attest, renew, and what happens
//! when one of the parts is away, dies, or has become another.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rootbound_attester::attest::{Attester, Parts as AttesterParts};
use rootbound_attester::client::{Client, ClientIdentity, RequestError, RequestTimeout, VerifierConfig};
use rootbound_attester::collect::{CollectConfig, Logs};
use rootbound_attester::deliver::{DeliverConfig, Delivery};
use rootbound_attester::enroll::EnrollmentConfig;
use rootbound_attester::keep::{Keep, Outcome, StateConfig, Status, View};
use rootbound_attester::renew::{Rounds, Setback};
use rootbound_attester::tpm::{Tpm, TpmError};
use rootbound_common::clock::{Clock, SystemClock};
use rootbound_common::id::NodeId;
use rootbound_common::random;
use rootbound_common::tpm::{HashAlgorithm, PcrSelection};
use rootbound_common::wire::v1::{CredentialPolicy, PostureStatus};
use rootbound_swtpm_tests::exchange::pcrs;
use rootbound_swtpm_tests::{PortPair, Swtpm};
use rootbound_verifier::credential::authority::Authority;
use rootbound_verifier::credential::ear::{EatProfile, ResultSigner};
use rootbound_verifier::credential::result_key::ResultKey;
use rootbound_verifier::enrollment::{EndorsementRoots, RevocationPolicy};
use rootbound_verifier::flows::audit::AuditParts;
use rootbound_verifier::flows::operate::Operator;
use rootbound_verifier::flows::tokens::TokenParts;
use rootbound_verifier::flows::{Limits, Parts, Verifier};
use rootbound_verifier::http::{self, Rate, Server, ServingNames, TlsIdentity};
use rootbound_verifier::reference::ProfileBody;
use rootbound_verifier::relying_party::RelyingParties;
use rootbound_verifier::store::SqliteStore;
use tempfile::TempDir;

const INTERVAL: Duration = Duration::from_secs(600);

/// A verifier that listens, and may be another one later at the same place.
struct Service {
    verifier: Arc<Verifier>,
    server: Server,
}

impl Service {
    async fn start(folder: &Path, name: &str, swtpm: &Swtpm, port: u16) -> Self {
        let now = SystemClock.now();
        let day = Duration::from_secs(24 * 3600);
        // The same CA for each verifier of a test.
        let (chain, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        let domain: rootbound_common::id::TrustDomain = "example.org".parse().unwrap();
        if !chain.exists() {
            let authority =
                Authority::generate(domain.clone(), now.minus(day), 300 * day, &mut random::system())
                    .unwrap();
            std::fs::write(&chain, authority.chain_pem()).unwrap();
            std::fs::write(&key, authority.private_key_pem().unwrap().as_bytes()).unwrap();
        }
        let read = |path| std::fs::read_to_string(path).unwrap();
        let authority = Authority::load(&read(&chain), &read(&key), domain.clone(), now).unwrap();
        let mut roots = EndorsementRoots::none();
        let (root, issuer) = swtpm.ca_certificates();
        for pem in [root, issuer] {
            roots.add_file("ek.pem".as_ref(), pem.as_bytes()).unwrap();
        }
        let result_key = ResultKey::generate(&mut random::system());
        let keys = |name: &str| folder.join(name);
        let (access, svid) = (keys("token.keys"), keys("svid.keys"));
        let verifier = Verifier::start(Parts {
            tokens: TokenParts::open(&access, &svid, Duration::from_secs(300), now).unwrap(),
            result_signer: ResultSigner::new(result_key, EatProfile::default(), domain.clone()),
            relying_parties: RelyingParties::none(),
            public_url: None,
            store: Arc::new(SqliteStore::open(&folder.join(name)).await.unwrap()),
            clock: Arc::new(SystemClock),
            trust_domain: domain,
            roots,
            revocation: RevocationPolicy::IfAvailable,
            authority,
            limits: Limits::default(),
            audit: AuditParts::generate(),
        })
        .await
        .unwrap();
        let verifier = Arc::new(verifier);
        let listen = ([127, 0, 0, 1], port).into();
        let identity = TlsIdentity::Minted(ServingNames::default());
        let server = Server::start(Arc::clone(&verifier), listen, &identity, Self::limits()).await.unwrap();
        Self { verifier, server }
    }

    /// For a machine that enrols more often than any other.
    fn limits() -> http::Limits {
        let often = Rate::new(100_000, 100_000);
        http::Limits { enrollments: often, attestations: often, queries: often, ..http::Limits::default() }
    }

    fn port(&self) -> u16 {
        self.server.local_addr().port()
    }
}

fn operator() -> Operator {
    Operator { author: "test".to_owned(), reason: String::new() }
}

/// One machine and its verifier.
struct Story {
    folder: TempDir,
    swtpm: Swtpm,
    service: Service,
    /// Where the first service listens, and no test but this.
    ports: PortPair,
    attester: Option<Attester>,
    /// The attester's handle on the TPM.
    tpm: Option<Tpm>,
}

impl Story {
    /// Nobody knows the machine yet.
    async fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::manufacture();
        swtpm.measured_boot(1);
        let ports = PortPair::reserve();
        let service = Service::start(folder.path(), "one.db", &swtpm, ports.data()).await;
        let mut story = Self { folder, swtpm, service, ports, attester: None, tpm: None };
        story.profile().await;
        story.start_attester();
        story
    }

    /// The machine is listed in the inventory, and what it shows is what is expected.
    async fn begin_with_a_good_machine() -> Self {
        let mut story = Self::begin().await;
        story.list_in_inventory().await;
        story.attests().await;
        story.capture().await;
        story.attests().await;
        story
    }

    async fn profile(&mut self) {
        self.profile_of(vec![HashAlgorithm::Sha256], HashAlgorithm::Sha256).await;
    }

    /// Quotes PCRs of `banks`, and ties keys to PCRs of `policy`.
    async fn profile_of(&mut self, banks: Vec<HashAlgorithm>, policy: HashAlgorithm) {
        let quoted = banks.into_iter().map(|bank| (bank, pcrs([0, 2, 4, 7, 14])));
        let body = ProfileBody {
            pcrs: PcrSelection::of_banks(quoted).unwrap(),
            credential_policy: CredentialPolicy { bank: policy, pcrs: pcrs([0, 2, 4, 7]) },
            interval: INTERVAL,
            credential_lifetime: Duration::from_secs(3600),
            ..ProfileBody::initial("default".parse().unwrap())
        };
        self.service.verifier.put_profile("default".parse().unwrap(), body, &operator()).await.unwrap();
    }

    /// One of the same name and CA that knows nothing but the inventory; the attester is started anew.
    async fn meet_another_verifier(&mut self, name: &str) {
        self.end_attester().await;
        self.service = Service::start(self.folder.path(), name, &self.swtpm, 0).await;
        self.profile().await;
        self.list_in_inventory().await;
        self.start_attester();
    }

    async fn list_in_inventory(&self) {
        let node = self.node().await;
        self.service.verifier.add_inventory(node, false, Default::default(), &operator()).await.unwrap();
    }

    async fn capture(&self) {
        let node = self.node().await;
        self.service.verifier.capture(node, "default".parse().unwrap(), &operator()).await.unwrap();
    }

    fn tpm(&self) -> Tpm {
        Tpm::spawn(self.swtpm.tcti()).unwrap()
    }

    async fn node(&self) -> NodeId {
        let key = self.tpm().preferred_endorsement_key().await.unwrap();
        NodeId::of_endorsement_key(&rootbound_common::crypto::subject_public_key_info(&key.public).unwrap())
    }

    fn client(&self) -> Client {
        let ca_file = self.folder.path().join("ca.pem");
        let url = format!("https://localhost:{}", self.service.port()).try_into().unwrap();
        Client::new(VerifierConfig { url, ca_file, request_timeout: RequestTimeout::default() }).unwrap()
    }

    fn state(&self) -> StateConfig {
        StateConfig { directory: self.folder.path().join("state") }
    }

    /// In place of one that ran before, as after a restart of the process.
    fn start_attester(&mut self) {
        self.attester = None;
        let tpm = self.tpm();
        self.tpm = Some(tpm.clone());
        let parts = AttesterParts {
            tpm,
            client: self.client(),
            keep: Keep::open(&self.state()).unwrap(),
            delivery: Delivery::open(&DeliverConfig { directory: self.folder.path().join("svid") }).unwrap(),
            enrollment: EnrollmentConfig::default(),
            logs: Logs::new(CollectConfig::default()),
        };
        self.attester = Some(Attester::new(parts, Arc::new(SystemClock)));
    }

    /// Drops the attester, and waits until the TPM has done what it was told: a process that dies takes its thread along,
    /// which here runs on.
    async fn end_attester(&mut self) {
        self.attester = None;
        if let Some(tpm) = self.tpm.take() {
            // Whatever comes of it.
            drop(tpm.read_pcrs(&PcrSelection::of_banks([(HashAlgorithm::Sha256, pcrs([0]))]).unwrap()).await);
        }
    }

    fn attester(&mut self) -> &mut Attester {
        self.attester.as_mut().unwrap()
    }

    async fn round(&mut self) -> Result<Duration, Setback> {
        self.attester().round().await
    }

    /// By a challenge of now, not the one of the last answer.
    async fn round_anew(&mut self) -> Result<Duration, Setback> {
        self.attester().forget_challenge();
        self.round().await
    }

    /// A round that ends in an appraisal.
    async fn attests(&mut self) -> Duration {
        let ended = self.round().await;
        let outcome = self.outcome();
        ended.unwrap_or_else(|setback| panic!("{setback:?}: {outcome:?}"))
    }

    fn outcome(&mut self) -> Outcome {
        self.attester().last_outcome().unwrap().clone()
    }

    fn status(&self) -> Status {
        View::open(&self.state().directory).unwrap().status().unwrap().unwrap()
    }

    fn ak(&self) -> Vec<u8> {
        let identity = View::open(&self.state().directory).unwrap().identity().unwrap().unwrap();
        identity.attestation_key.public.into_bytes()
    }

    fn delivered(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.path().join("svid/current").join(name)).ok()
    }

    async fn whoami(&self) -> Result<PostureStatus, RequestError> {
        let credential = View::open(&self.state().directory).unwrap().credential().unwrap().unwrap();
        let identity = ClientIdentity::new(self.tpm(), &credential).unwrap();
        self.client().whoami(identity).await.map(|answer| answer.posture.status)
    }
}

fn refused(code: &str) -> impl Fn(&Outcome) -> bool {
    move |outcome| matches!(outcome, Outcome::Refused { code: found, .. } if found == code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machine_becomes_known_is_appraised_and_gets_a_credential_that_ends_with_its_boot_state() {
    let mut story = Story::begin().await;
    assert!(story.round().await.is_err());
    assert!(refused("admission_pending")(&story.outcome()), "{:?}", story.outcome());

    let node = story.node().await;
    story.service.verifier.approve(node, &operator()).await.unwrap();
    let pause = story.attests().await;
    assert_eq!(pause, INTERVAL);
    assert_eq!(story.attester().posture(), Some(PostureStatus::Contraindicated));
    assert_eq!(story.delivered("svid.pem"), None);
    assert_eq!(story.status().credential_refused.unwrap().code, "posture_contraindicated");

    story.capture().await;
    story.attests().await;
    assert_eq!(story.attester().posture(), Some(PostureStatus::Affirming));
    assert!(story.status().credential_refused.is_none());
    assert!(story.delivered("svid.pem").unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(story.whoami().await.unwrap(), PostureStatus::Affirming);

    // PCR 14 is quoted, but the key is not tied to it.
    story.swtpm.extend(14, b"a module that nobody knows");
    story.attests().await;
    assert_eq!(story.attester().posture(), Some(PostureStatus::Contraindicated));
    let refused = story.whoami().await.unwrap_err();
    assert!(
        matches!(&refused, RequestError::Refused(refusal) if refusal.code.as_str() == "posture_contraindicated"),
        "{refused}"
    );

    let delivered = story.delivered("svid.pem");
    story.swtpm.extend(4, b"another boot loader");
    story.attests().await;
    assert_eq!(story.status().credential_refused.unwrap().code, "posture_contraindicated");
    assert_eq!(story.delivered("svid.pem"), delivered);
    let refused = story.whoami().await.unwrap_err();
    assert!(matches!(refused.tpm(), Some(TpmError::PolicyFailed { .. })), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_goes_on_with_the_same_key_and_credential() {
    let mut story = Story::begin_with_a_good_machine().await;
    let (ak, svid) = (story.ak(), story.delivered("svid.pem").unwrap());
    std::fs::remove_dir_all(story.folder.path().join("svid")).unwrap();
    story.start_attester();
    story.attests().await;
    assert_eq!((story.ak(), story.delivered("svid.pem").unwrap()), (ak, svid));
    assert_eq!(story.attester().posture(), Some(PostureStatus::Affirming));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credential_is_renewed_when_the_boot_state_has_changed_and_is_accepted() {
    let mut story = Story::begin_with_a_good_machine().await;
    let (svid, key) = (story.delivered("svid.pem"), story.delivered("svid.key"));
    story.swtpm.extend(4, b"a new boot loader");
    story.attests().await;
    story.capture().await;
    story.attests().await;
    assert_ne!(story.delivered("svid.pem"), svid);
    assert_ne!(story.delivered("svid.key"), key);
    assert_eq!(story.whoami().await.unwrap(), PostureStatus::Affirming);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_that_is_lost_or_damaged_leads_to_another_enrolment() {
    let mut story = Story::begin_with_a_good_machine().await;
    let state = story.state().directory;
    for damage in ["", "{\"version\": 1}", "\u{0}\u{0}\u{0}"] {
        let ak = story.ak();
        std::fs::write(state.join("identity.json"), damage).unwrap();
        story.start_attester();
        story.attests().await;
        assert_ne!(story.ak(), ak);
        assert_eq!(std::fs::read_to_string(state.join("identity.json.bad")).unwrap(), damage);
        assert_eq!(story.whoami().await.unwrap(), PostureStatus::Affirming);
    }
    story.attester = None;
    std::fs::remove_dir_all(&state).unwrap();
    story.start_attester();
    story.attests().await;
    assert_eq!(story.whoami().await.unwrap(), PostureStatus::Affirming);
}

/// A bit of the wrapped private part: nobody but the TPM can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_that_the_tpm_does_not_take_leads_to_another_enrolment() {
    let mut story = Story::begin_with_a_good_machine().await;
    story.attester = None;
    let keep = Keep::open(&story.state()).unwrap();
    let mut identity = keep.identity(story.node().await).unwrap().unwrap();
    let mut private = identity.attestation_key.private.as_bytes().to_vec();
    *private.last_mut().unwrap() ^= 1;
    identity.attestation_key.private = rootbound_common::blob::Blob::new(private).unwrap();
    keep.save_identity(&identity).unwrap();
    drop(keep);
    let ak = story.ak();
    story.start_attester();
    story.attests().await;
    assert_ne!(story.ak(), ak);
    assert_eq!(story.whoami().await.unwrap(), PostureStatus::Affirming);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleared_tpm_makes_new_keys_by_itself_but_attests_only_when_an_operator_says_so() {
    let mut story = Story::begin_with_a_good_machine().await;
    let ak = story.ak();
    story.swtpm.tool_ok("tpm2_clear", &["-c", "p"]);
    assert!(story.round().await.is_err());
    assert_eq!(story.ak(), ak, "of the endorsement seed, which outlives the owner");
    // TPM2_Clear sets the counters to zero, as putting back an old snapshot does (Part 3, 24.6).
    assert!(refused("reset_count_went_back")(&story.outcome()), "{:?}", story.outcome());

    let node = story.node().await;
    story.service.verifier.retire(node, &operator()).await.unwrap();
    story.service.verifier.approve(node, &operator()).await.unwrap();
    story.attests().await;
    assert_eq!(story.whoami().await.unwrap(), PostureStatus::Affirming);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_attester_on_the_same_tpm_is_superseded_and_supersedes() {
    let mut story = Story::begin_with_a_good_machine().await;
    let first = story.ak();
    let state = story.state().directory;
    let elsewhere = story.folder.path().join("elsewhere");
    story.attester = None;
    std::fs::rename(&state, &elsewhere).unwrap();
    story.start_attester();
    story.attests().await;
    assert_ne!(story.ak(), first);

    story.attester = None;
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(&elsewhere, &state).unwrap();
    story.start_attester();
    story.attests().await;
    assert_eq!(story.ak(), first);
    assert_eq!(story.attester().posture(), Some(PostureStatus::Affirming));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifier_that_has_forgotten_the_machine_is_told_again() {
    let mut story = Story::begin_with_a_good_machine().await;
    let ak = story.ak();
    story.meet_another_verifier("two.db").await;
    story.attests().await;
    story.capture().await;
    story.attests().await;
    assert_eq!(story.ak(), ak);
    assert_eq!(story.whoami().await.unwrap(), PostureStatus::Affirming);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenge_about_a_bank_that_the_tpm_does_not_have_is_not_answered() {
    let mut story = Story::begin_with_a_good_machine().await;
    for (quoted, policy) in
        [(HashAlgorithm::Sha384, HashAlgorithm::Sha384), (HashAlgorithm::Sha256, HashAlgorithm::Sha512)]
    {
        let banks = if quoted == policy { vec![quoted] } else { vec![quoted, policy] };
        story.profile_of(banks, policy).await;
        assert!(story.round_anew().await.is_err());
        let outcome = story.outcome();
        assert!(
            matches!(&outcome, Outcome::Failed { reason } if reason.contains("does not have")),
            "{outcome:?}"
        );
    }
    story.profile().await;
    story.round_anew().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retired_machine_is_refused_and_waits() {
    let mut story = Story::begin_with_a_good_machine().await;
    let node = story.node().await;
    story.service.verifier.retire(node, &operator()).await.unwrap();
    assert!(story.round().await.is_err());
    assert!(refused("node_retired")(&story.outcome()), "{:?}", story.outcome());
    story.service.verifier.approve(node, &operator()).await.unwrap();
    story.attests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifier_and_tpm_that_are_away_are_told_apart_and_tried_again() {
    let mut story = Story::begin_with_a_good_machine().await;
    story.swtpm.power_off();
    assert!(story.round().await.is_err());
    assert!(matches!(story.outcome(), Outcome::CannotAttest { .. }), "{:?}", story.outcome());
    assert!(matches!(story.status().last, Outcome::CannotAttest { .. }));
    assert_eq!(story.status().posture.unwrap().report.status, PostureStatus::Affirming);
    story.swtpm.power_on();
    story.attests().await;
    assert_eq!(story.outcome(), Outcome::Attested);

    let port = story.ports.data();
    assert_eq!(story.service.port(), port);
    let identity = TlsIdentity::Minted(ServingNames::default());
    let serve = |verifier: &Arc<Verifier>, port: u16| {
        let (verifier, identity) = (Arc::clone(verifier), identity.clone());
        async move {
            let listen = ([127, 0, 0, 1], port).into();
            Server::start(verifier, listen, &identity, Service::limits()).await.unwrap()
        }
    };
    let elsewhere = serve(&story.service.verifier, 0).await;
    std::mem::replace(&mut story.service.server, elsewhere).shutdown().await;
    assert!(story.round().await.is_err());
    assert!(matches!(story.outcome(), Outcome::Unreachable { .. }), "{:?}", story.outcome());
    story.service.server = serve(&story.service.verifier, port).await;
    story.attests().await;
    assert_eq!(story.outcome(), Outcome::Attested);
}

/// Polls a future so often, and drops it then, as a process dies at some point.
struct DiesAfter<F> {
    future: Pin<Box<F>>,
    polls: u32,
}

impl<F: Future> Future for DiesAfter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        self.future.as_mut().poll(context).map(Some)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attester_that_dies_at_any_point_starts_over_and_arrives() {
    let mut story = Story::begin().await;
    for polls in 1.. {
        story.attester = None;
        if story.state().directory.exists() {
            std::fs::remove_dir_all(story.state().directory).unwrap();
        }
        story.meet_another_verifier(&format!("{polls}.db")).await;
        let round = story.attester().round();
        let ended = DiesAfter { future: Box::pin(round), polls }.await;
        story.end_attester().await;
        // The next process, with what is on disk.
        story.start_attester();
        story.attests().await;
        if ended.is_some() {
            assert!(polls > 10, "a round has as many waits as it has requests and TPM commands");
            break;
        }
    }
    story.capture().await;
    story.attests().await;
    assert_eq!(story.whoami().await.unwrap(), PostureStatus::Affirming);
}
