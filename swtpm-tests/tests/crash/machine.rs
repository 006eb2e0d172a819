//! A machine with the real daemon, in a world whose verifier runs on.

use std::time::Duration;

use rootbound_common::id::NodeId;
use rootbound_common::tpm::PcrSet;
use rootbound_common::wire::v1::{CredentialPolicy, PostureStatus};
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::daemon::{AttesterSite, Daemon, Delivered, until};
use rootbound_swtpm_tests::exchange::pcrs;
use rootbound_swtpm_tests::world::{World, operator};
use rootbound_verifier::node::Name;
use rootbound_verifier::reference::{AcceptedPcrs, ProfileBody};

use crate::ATTESTER;
use crate::trap::Trap;

/// TPM_PT_LOCKOUT_COUNTER (Part 2, table 29).
const LOCKOUT_COUNTER: u32 = 0x20e;
/// The first persistent handle, and the first NV index.
const STAYING: [u32; 2] = [0x8100_0000, 0x0100_0000];

/// The machine, which its verifier expects, and whose values are accepted.
pub(crate) struct Machine {
    pub(crate) world: World,
    pub(crate) site: AttesterSite,
    pub(crate) trap: Trap,
    pub(crate) node: NodeId,
    pub(crate) swtpm: Swtpm,
    at_first: Vec<u32>,
    policies: usize,
}

impl Machine {
    pub(crate) async fn new() -> Self {
        let swtpm = Swtpm::manufacture();
        let world = World::new(&[swtpm.manufacturer()]).await;
        let trap = Trap::before(&swtpm);
        let site = AttesterSite::new(ATTESTER, &trap.tcti(), &world.url(), &world.bundle());
        let identified = site.run("identify");
        let printed = String::from_utf8(identified.stdout).unwrap();
        let node =
            printed.lines().find_map(|line| line.strip_prefix("EK hash")).unwrap().trim().parse().unwrap();
        world.verifier.add_inventory(node, false, Default::default(), &operator()).await.unwrap();
        let at_first = STAYING.into_iter().flat_map(|first| swtpm.handles(first)).collect();
        let mut machine = Self { world, site, trap, node, swtpm, at_first, policies: 0 };
        machine.change_policy().await;
        machine.accept_what_has_booted().await;
        machine
    }

    /// Ties keys to other PCRs than before, so that the attester asks for another credential with its next evidence.
    pub(crate) async fn change_policy(&mut self) {
        self.policies += 1;
        let body = ProfileBody {
            interval: Duration::from_secs(1),
            stale_after: 100,
            credential_policy: CredentialPolicy { pcrs: self.tied(), ..self.initial().credential_policy },
            ..self.initial()
        };
        self.world.verifier.put_profile(Name::default_set(), body, &operator()).await.unwrap();
    }

    /// The PCRs that keys are to be tied to now.
    fn tied(&self) -> PcrSet {
        if self.policies.is_multiple_of(2) { pcrs([0, 2, 4]) } else { pcrs([0, 2, 4, 7]) }
    }

    fn initial(&self) -> ProfileBody {
        ProfileBody::initial(Name::default_set())
    }

    async fn accept_what_has_booted(&self) {
        let tpm = rootbound_attester::tpm::Tpm::spawn(self.swtpm.tcti()).unwrap();
        let accepted = AcceptedPcrs::captured(&tpm.read_pcrs(&self.initial().pcrs).await.unwrap()).unwrap();
        self.world.verifier.put_reference_set(Name::default_set(), accepted, &operator()).await.unwrap();
    }

    /// How often evidence of the machine was accepted.
    pub(crate) async fn accepted(&self) -> usize {
        let decisions = self.world.verifier.store().decisions(Some(self.node), 1_000_000).await.unwrap();
        decisions.iter().filter(|decision| decision.granted).count()
    }

    /// Waits until the daemon has attested, and delivered a credential for a key that is tied to what it is to be tied to.
    pub(crate) async fn converges(&self, daemon: &Daemon) {
        // What another left may be in order already, before this one is there to be stopped.
        daemon.says(" started ").await;
        let before = self.accepted().await;
        until("the machine is affirming", async || {
            let known = self.world.verifier.fleet().node(self.node).is_some();
            known
                && self.world.status(self.node) == PostureStatus::Affirming
                && self.accepted().await > before
        })
        .await;
        until("the credential is delivered", async || self.up_to_date()).await;
        // The last thing that it does with a new credential is to try it.
        until("the credential was tried", async || {
            let tried =
                ["the credential works", "the credential could not be tried", "the credential is refused"];
            let tried: usize = tried.iter().map(|text| daemon.said(text).len()).sum();
            daemon.said("credential issued").len() == tried
        })
        .await;
    }

    /// Whether what is saved and what is delivered are one credential, for a key tied to what it is to be tied to.
    pub(crate) fn up_to_date(&self) -> bool {
        let saved = self.site.view().credential().expect("a file that can be read");
        let Some((saved, delivered)) = saved.zip(Delivered::read(&self.site.deliveries())) else {
            return false;
        };
        saved.policy.pcrs == self.tied() && saved.key.public.as_bytes() == delivered.public
    }

    /// What has to hold whenever no attester runs.
    pub(crate) fn examine(&self) {
        let view = self.site.view();
        view.identity().expect("an identity that can be read");
        view.credential().expect("a credential that can be read");
        view.status().expect("a status that can be read");
        let _ = Delivered::read(&self.site.deliveries());
        assert_eq!(self.swtpm.property(LOCKOUT_COUNTER), 0, "the TPM counts failed authorizations");
    }

    /// What has to hold besides when the attester was stopped in order.
    pub(crate) fn examine_in_order(&self) {
        self.examine();
        let delivered = Delivered::read(&self.site.deliveries()).expect("a credential");
        let saved = self.site.view().credential().unwrap().expect("a credential");
        assert_eq!(saved.certificate_chain, delivered.chain);
        let (public, private) = (saved.key.public.as_bytes(), saved.key.private.as_bytes());
        assert_eq!((public, private), (&delivered.public[..], &delivered.private[..]));
        let whoami = self.site.run("whoami");
        assert!(whoami.status.success(), "{}", String::from_utf8_lossy(&whoami.stderr));
        self.swtpm.assert_nothing_loaded();
        let stays: Vec<_> = STAYING.into_iter().flat_map(|first| self.swtpm.handles(first)).collect();
        assert_eq!(stays, self.at_first, "persistent objects and NV indices of the TPM");
        self.leftovers_are_swept();
    }

    fn leftovers_are_swept(&self) {
        let names = |folder| -> Vec<String> {
            let entries = std::fs::read_dir(folder).unwrap().flatten();
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
        };
        let mut state = names(self.site.state());
        // Whether there was a control stream to tell of yet is chance.
        state.retain(|name| !name.ends_with(".bad") && name != "control.json");
        state.sort();
        assert_eq!(state, ["credential.json", "identity.json", "lock", "status.json"]);
        let deliveries = names(self.site.deliveries());
        let generations = deliveries.iter().filter(|name| name.starts_with(".generation-")).count();
        assert!(generations <= 2 && !deliveries.iter().any(|name| name == ".next-link"), "{deliveries:?}");
    }
}
