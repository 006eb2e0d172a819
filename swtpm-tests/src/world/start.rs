//! Starting a verifier, the first time and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rootbound_common::clock::Clock;
use rootbound_common::id::TrustDomain;
use rootbound_common::random;
use rootbound_verifier::audit::sampling::Sampling;
use rootbound_verifier::credential::authority::Authority;
use rootbound_verifier::credential::ear::{EatProfile, ResultSigner};
use rootbound_verifier::credential::files;
use rootbound_verifier::enrollment::{EndorsementRoots, RevocationPolicy, RootsError};
use rootbound_verifier::flows::audit::AuditParts;
use rootbound_verifier::flows::tokens::TokenParts;
use rootbound_verifier::flows::{Limits, Parts, Verifier};
use rootbound_verifier::http::{Limits as HttpLimits, Rate, Server, ServingNames, TlsIdentity};
use rootbound_verifier::node::Name;
use rootbound_verifier::public_url::PublicUrl;
use rootbound_verifier::reference::ProfileBody;
use rootbound_verifier::relying_party::{RelyingParties, RelyingPartySection};
use rootbound_verifier::store::SqliteStore;
use tempfile::TempDir;

use super::{TRUST_DOMAIN, World, WorldClock, operator};
use crate::Manufacturer;

/// What stays the same over restarts.
#[derive(Clone)]
pub(super) struct Settings {
    revocation: RevocationPolicy,
    limits: Limits,
    eat_profile: EatProfile,
    http_limits: HttpLimits,
    relying_parties: Vec<RelyingPartySection>,
    public_url: Option<PublicUrl>,
    allowed_decisions: Sampling,
}

/// How a [`World`] is to be made.
pub struct WorldBuilder {
    roots: Vec<Vec<u8>>,
    authority: Option<(String, String)>,
    settings: Settings,
}

impl Default for WorldBuilder {
    fn default() -> Self {
        // Tests come from one address, and at once.
        let plenty = Rate::new(1_000_000, 1_000_000);
        let http_limits = HttpLimits {
            enrollments: plenty,
            attestations: plenty,
            queries: plenty,
            ..HttpLimits::default()
        };
        let revocation = RevocationPolicy::IfAvailable;
        let eat_profile = EatProfile::default();
        let (limits, relying_parties, public_url) = (Limits::default(), Vec::new(), None);
        let allowed_decisions = Sampling::All;
        let settings = Settings {
            revocation,
            limits,
            eat_profile,
            http_limits,
            relying_parties,
            public_url,
            allowed_decisions,
        };
        Self { roots: Vec::new(), authority: None, settings }
    }
}

impl WorldBuilder {
    /// Trusts these TPM manufacturers. A manufacturer has its CA once it has made a TPM.
    #[must_use]
    pub fn manufacturers(mut self, manufacturers: &[&Manufacturer]) -> Self {
        for manufacturer in manufacturers {
            let certificates = [manufacturer.root_certificate(), manufacturer.issuer_certificate()];
            self.roots.push(certificates.concat().into_bytes());
        }
        self
    }

    /// Puts a file into the folder of EK roots: certificates or CRLs, PEM or DER.
    #[must_use]
    pub fn root(mut self, file: Vec<u8>) -> Self {
        self.roots.push(file);
        self
    }

    /// What an EK certificate without a current CRL counts as. Without this CRLs are honoured where there are any: the CA
    /// of swtpm_localca publishes none.
    #[must_use]
    pub fn revocation(mut self, policy: RevocationPolicy) -> Self {
        self.settings.revocation = policy;
        self
    }

    /// Bounds of the stories, instead of the usual ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// The profile that attestation results name, instead of the usual one.
    #[must_use]
    pub fn eat_profile(mut self, profile: EatProfile) -> Self {
        self.settings.eat_profile = profile;
        self
    }

    /// Who may ask about nodes, besides each node about itself.
    #[must_use]
    pub fn relying_party(mut self, section: RelyingPartySection) -> Self {
        self.settings.relying_parties.push(section);
        self
    }

    /// Who may read attestation results of others, and who may say something against a node; nobody without this.
    #[must_use]
    pub fn relying_parties(mut self, sections: Vec<RelyingPartySection>) -> Self {
        self.settings.relying_parties = sections;
        self
    }

    /// Under which URL clients reach the verifier; without this there are no tokens.
    #[must_use]
    pub fn public_url(mut self, url: &str) -> Self {
        self.settings.public_url = Some(url.to_owned().try_into().expect("a public URL"));
        self
    }

    /// Which allowed decisions are recorded; all of them without this.
    #[must_use]
    pub fn allowed_decisions(mut self, sampling: Sampling) -> Self {
        self.settings.allowed_decisions = sampling;
        self
    }

    /// Bounds of the HTTP edge. Without this they are the usual ones, with rates that no test reaches.
    #[must_use]
    pub fn http_limits(mut self, limits: HttpLimits) -> Self {
        self.settings.http_limits = limits;
        self
    }

    /// An operator's CA instead of a fresh one: the chain from the issuing certificate to the root, and its key, in PEM.
    #[must_use]
    pub fn authority(mut self, chain: String, key: String) -> Self {
        self.authority = Some((chain, key));
        self
    }

    /// Starts the verifier, with the profile `default` of a fresh installation.
    pub async fn start(self) -> World {
        let dir = TempDir::new().expect("a temporary folder");
        let roots = dir.path().join(ROOTS);
        std::fs::create_dir(&roots).expect("a folder");
        for (position, file) in self.roots.iter().enumerate() {
            std::fs::write(roots.join(format!("{position}.pem")), file).expect("a file");
        }
        let clock = Arc::new(WorldClock::default());
        let day = Duration::from_secs(24 * 3600);
        let domain: TrustDomain = TRUST_DOMAIN.parse().expect("a trust domain");
        let authority = match self.authority {
            Some((chain, key)) => Authority::load(&chain, &key, domain, clock.now()),
            None => Authority::generate(domain, clock.now().minus(day), day * 365, &mut random::system()),
        };
        let authority = authority.expect("a CA");
        std::fs::write(dir.path().join("bundle.pem"), authority.trust_bundle_pem()).expect("a bundle");
        let key = authority.private_key_pem().expect("a key").to_string();
        let authority = (authority.chain_pem(), key);
        let settings = self.settings;
        let verifier = settings.start_verifier(dir.path(), &clock, &authority).await;
        let name = Name::default_set();
        let body = ProfileBody::initial(name.clone());
        verifier.put_profile(name, body, &operator()).await.expect("the initial profile");
        let server = Some(settings.start_server(&verifier).await);
        World { verifier, clock, server, dir, authority, settings }
    }
}

/// The folder of EK roots, in that of the world.
pub(super) const ROOTS: &str = "ek-roots";

impl Settings {
    /// A verifier on the files of a folder, which belongs to the CA with this chain and key.
    pub(super) async fn start_verifier(
        &self,
        dir: &Path,
        clock: &Arc<WorldClock>,
        authority: &(String, String),
    ) -> Arc<Verifier> {
        let store = SqliteStore::open(&dir.join("verifier.db")).await.expect("a database");
        let trust_domain: TrustDomain = TRUST_DOMAIN.parse().expect("a trust domain");
        let (chain, key) = authority;
        let authority = Authority::load(chain, key, trust_domain.clone(), clock.now()).expect("a CA");
        let result_key = files::result_key(&dir.join("result.key"), &mut random::system()).expect("a key");
        let result_signer = ResultSigner::new(result_key, self.eat_profile.clone(), trust_domain.clone());
        let audit_key = files::audit_key(&dir.join("audit.key"), &mut random::system()).expect("a key");
        let minutes = Duration::from_secs(300);
        let (access, svid) = (dir.join("token.keys"), dir.join("svid.keys"));
        let parts = Parts {
            tokens: TokenParts::open(&access, &svid, minutes, clock.now()).expect("keys"),
            result_signer,
            relying_parties: RelyingParties::load(&self.relying_parties, None).expect("relying parties"),
            public_url: self.public_url.clone(),
            store: Arc::new(store),
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            trust_domain,
            roots: read_roots(dir),
            revocation: self.revocation,
            authority,
            limits: self.limits,
            audit: AuditParts {
                key: audit_key,
                allowed_decisions: self.allowed_decisions,
                ..AuditParts::generate()
            },
        };
        Arc::new(Verifier::start(parts).await.expect("a verifier"))
    }

    pub(super) async fn start_server(&self, verifier: &Arc<Verifier>) -> Server {
        let names = ServingNames::parse(["127.0.0.1", "localhost"]).expect("names");
        let listen = "127.0.0.1:0".parse().expect("an address");
        let limits = self.http_limits.clone();
        Server::start(Arc::clone(verifier), listen, &TlsIdentity::Minted(names), limits)
            .await
            .expect("a server")
    }
}

/// The EK roots in the folder of a world.
pub(super) fn read_roots(dir: &Path) -> EndorsementRoots {
    match EndorsementRoots::load(&dir.join(ROOTS)) {
        // A world of machines that operators list.
        Err(RootsError::NoAnchor { .. }) => EndorsementRoots::none(),
        roots => roots.expect("roots"),
    }
}
