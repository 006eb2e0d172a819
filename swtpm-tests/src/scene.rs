//! A stage for attacks: an affirming node made of software keys, and one more that must not notice.

use rootbound_attester::client::RequestError;
use rootbound_common::blob::Blob;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_common::wire::v1::{EvidenceRequest, EvidenceResponse, PostureStatus};

use crate::software_tpm::{SoftwareTpm, Statement as Fabricated};
use crate::watch::{Bystander, Watch};
use crate::world::{Simulated, World};

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

/// What becomes of evidence.
pub type Outcome = Result<EvidenceResponse, RequestError>;

/// An affirming node made of software keys, on which every attack of a test is tried, and another that must not notice.
pub struct Scene {
    /// The verifier.
    pub world: World,
    /// Who must not notice.
    pub bystander: Bystander,
    /// Who is attacked.
    pub node: Simulated,
}

impl Scene {
    /// With a node that shows what the boot of seed 0 measures.
    pub async fn set() -> Self {
        Self::with(SoftwareTpm::booted(&[SHA256])).await
    }

    /// With a node of this TPM, whose values are accepted.
    pub async fn with(tpm: SoftwareTpm) -> Self {
        let world = World::new(&[]).await;
        let bystander = Bystander::new(&world).await;
        let node = world.affirming_simulated(tpm).await;
        Self { world, bystander, node }
    }

    /// An answer that is honest but for the statement.
    pub async fn state(&self, change: impl FnOnce(&mut Fabricated)) -> Outcome {
        let challenge = self.node.challenge().await.expect("a challenge");
        let mut quote = self.node.quote(&challenge, None);
        change(&mut quote);
        let signed = quote.sign(&self.node.tpm.attestation_key);
        self.node.submit(self.node.evidence(&challenge, signed, None)).await
    }

    /// An answer whose statement is these bytes, under a good signature.
    pub async fn sign(&self, change: impl FnOnce(&mut Vec<u8>)) -> Outcome {
        self.send(|evidence| {
            let mut attest = evidence.quote.as_bytes().to_vec();
            change(&mut attest);
            evidence.signature = Blob::new(self.node.tpm.attestation_key.sign(&attest)).expect("short bytes");
            evidence.quote = Blob::new(attest).expect("short bytes");
        })
        .await
    }

    /// An answer that is honest but for the signature.
    pub async fn forge(&self, change: impl FnOnce(&mut Vec<u8>)) -> Outcome {
        self.send(|evidence| {
            let mut signature = evidence.signature.as_bytes().to_vec();
            change(&mut signature);
            evidence.signature = Blob::new(signature).expect("short bytes");
        })
        .await
    }

    /// An answer that is honest but for the message.
    pub async fn send(&self, change: impl FnOnce(&mut EvidenceRequest)) -> Outcome {
        let challenge = self.node.challenge().await.expect("a challenge");
        let mut evidence = self.node.answer(&challenge);
        change(&mut evidence);
        self.node.submit(evidence).await
    }

    /// Watches the node from now on.
    pub async fn watch(&self) -> Watch<'_> {
        Watch::on(&self.world, self.node.node).await
    }

    /// After all of it, an honest answer is what it always was, and nobody else has noticed.
    pub async fn end(&self) {
        let answer = self.send(|_| {}).await.expect("honest evidence");
        assert_eq!(answer.posture.status, PostureStatus::Affirming);
        self.bystander.is_well(&self.world).await;
    }
}
