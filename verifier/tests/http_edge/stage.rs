//! A verifier on a stage: its store, its clock and its server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rootbound_common::clock::{Clock, Timestamp};
use rootbound_common::id::{NodeId, TrustDomain};
use rootbound_common::random;
use rootbound_verifier::credential::authority::Authority;
use rootbound_verifier::credential::ear::{EatProfile, ResultSigner};
use rootbound_verifier::credential::result_key::ResultKey;
use rootbound_verifier::enrollment::{EndorsementRoots, RevocationPolicy};
use rootbound_verifier::flows::audit::AuditParts;
use rootbound_verifier::flows::tokens::TokenParts;
use rootbound_verifier::flows::{self, Parts, Verifier};
use rootbound_verifier::http::{Limits, Rate, Server, ServingNames, TlsIdentity};
use rootbound_verifier::relying_party::{RelyingParties, RelyingPartySection};
use rootbound_verifier::store::SqliteStore;

use super::pki::Ca;

/// 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600_000;

pub(crate) fn begin_of_time() -> Timestamp {
    Timestamp::from_millis(BEGIN)
}

/// A clock that goes when the test says.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

pub(crate) struct Stage {
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) server: Server,
    pub(crate) clock: Arc<TestClock>,
    /// Our CA, key and all.
    pub(crate) ca: Ca,
    pub(crate) store: Arc<SqliteStore>,
    folder: tempfile::TempDir,
}

pub(crate) fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn minted() -> TlsIdentity {
    TlsIdentity::Minted(ServingNames::parse(["localhost", "127.0.0.1"]).unwrap())
}

/// Rates that no test reaches by accident; everything else as by default.
pub(crate) fn limits() -> Limits {
    let unlimited = Rate::new(1_000_000, 1_000_000);
    Limits {
        connections: unlimited,
        enrollments: unlimited,
        attestations: unlimited,
        queries: unlimited,
        evaluations: unlimited,
        ..Limits::default()
    }
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(limits()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::serving(limits, |_, _| minted()).await
    }

    /// With relying parties.
    pub(crate) async fn read_by(relying_parties: &[RelyingPartySection]) -> Self {
        Self::read_by_within(relying_parties, limits()).await
    }

    /// With relying parties, and limits.
    pub(crate) async fn read_by_within(relying_parties: &[RelyingPartySection], limits: Limits) -> Self {
        let relying_parties = RelyingParties::load(relying_parties, None).unwrap();
        Self::start(limits, relying_parties, AuditParts::generate(), |_, _| minted()).await
    }

    /// With an identity that is made of our CA, and perhaps of files in the stage's folder.
    pub(crate) async fn serving(limits: Limits, identity: impl FnOnce(&Ca, &Path) -> TlsIdentity) -> Self {
        Self::start(limits, RelyingParties::none(), AuditParts::generate(), identity).await
    }

    /// With a trail whose records are kept so long.
    pub(crate) async fn keeping(keep: Duration) -> Self {
        let audit = AuditParts { keep: Some(keep), ..AuditParts::generate() };
        Self::start(limits(), RelyingParties::none(), audit, |_, _| minted()).await
    }

    async fn start(
        limits: Limits,
        relying_parties: RelyingParties,
        audit: AuditParts,
        identity: impl FnOnce(&Ca, &Path) -> TlsIdentity,
    ) -> Self {
        // Whoever has relying parties has told them where it is.
        let strangers_only = relying_parties.is_empty();
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(BEGIN)));
        let store = Arc::new(SqliteStore::open(&folder.path().join("verifier.db")).await.unwrap());
        let year = Duration::from_secs(365 * 24 * 3600);
        let before = clock.now().minus(Duration::from_secs(3600));
        let authority = Authority::generate(domain(), before, year, &mut random::system()).unwrap();
        let ca = Ca::of(&authority);
        let keys = |name: &str| folder.path().join(name);
        let minutes = Duration::from_secs(300);
        let tokens = TokenParts::open(&keys("token.keys"), &keys("svid.keys"), minutes, clock.now());
        let verifier = Verifier::start(Parts {
            tokens: tokens.unwrap(),
            store: store.clone(),
            clock: clock.clone(),
            trust_domain: domain(),
            roots: EndorsementRoots::none(),
            revocation: RevocationPolicy::Require,
            authority,
            result_signer: ResultSigner::new(
                ResultKey::generate(&mut random::system()),
                EatProfile::default(),
                domain(),
            ),
            relying_parties,
            public_url: (!strangers_only)
                .then(|| "https://pdp.example.org:8443".to_owned().try_into().unwrap()),
            limits: flows::Limits::default(),
            audit,
        });
        let verifier = Arc::new(verifier.await.unwrap());
        let identity = identity(&ca, folder.path());
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::start(verifier.clone(), anywhere, &identity, limits).await.unwrap();
        Self { verifier, server, clock, ca, store, folder }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// A node id to order.
pub(crate) fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}
