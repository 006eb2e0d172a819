//! A node whose TPM is real and whose every word a test chooses: the client's part of the protocol, by hand.

use rootbound_attester::certificate_request::UnsignedRequest;
use rootbound_attester::client::{Client, RequestError};
use rootbound_attester::enroll::{EkChoice, Endorsement};
use rootbound_attester::tpm::{AkBlob, CredentialKeyBlob, EndorsementKey, Quote, Statement, Tpm, TpmError};
use rootbound_common::attestation_attribute::CertifyStatement;
use rootbound_common::binding::{Purpose, extra_data};
use rootbound_common::blob::Blob;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{PcrSelection, PcrValues};
use rootbound_common::wire::v1::{
    ActivateRequest, ActivateResponse, CertificateBlob, Challenge, ChallengeRequest, EnrollRequest,
    EnrollResponse, EvidenceRequest, EvidenceResponse, PostureStatus,
};
use rootbound_verifier::node::Labels;

use crate::Swtpm;
use crate::world::{World, nonce, operator};

/// A node with a real TPM and a real AK.
pub struct Manual {
    /// Its id.
    pub node: NodeId,
    /// Its TPM, as the attester drives it.
    pub tpm: Tpm,
    /// Its AK; to be replaced by another before [`Manual::enroll`].
    pub ak: AkBlob,
    /// Its connection.
    pub client: Client,
    endorsement: Endorsement,
}

impl Manual {
    /// A machine with a new AK that nobody knows or expects.
    ///
    /// # Panics
    /// Where the TPM does not go along.
    pub async fn stranger(world: &World, tpm: Tpm, ek: EkChoice) -> Self {
        let endorsement = Endorsement::read(&tpm, ek).await.expect("an EK");
        let ak = tpm.create_ak(None).await.expect("an AK");
        Self { node: endorsement.node(), tpm, ak, client: world.client(), endorsement }
    }

    /// The same, whose EK is listed, so that it is admitted once it enrols.
    ///
    /// # Panics
    /// Where the TPM does not go along.
    pub async fn new(world: &World, tpm: Tpm) -> Self {
        let manual = Self::stranger(world, tpm, EkChoice::Auto).await;
        let listed = world.verifier.add_inventory(manual.node, false, Labels::default(), &operator()).await;
        listed.expect("the inventory");
        manual
    }

    /// An enrolled machine; no evidence yet.
    ///
    /// # Panics
    /// Where the TPM does not go along, or the verifier does not.
    pub async fn admitted(world: &World, swtpm: &Swtpm) -> Self {
        let manual = Self::new(world, Tpm::spawn(swtpm.tcti()).expect("a thread")).await;
        manual.enroll().await.expect("a listed EK enrols");
        manual
    }

    /// The same, affirming by the values that it showed.
    ///
    /// # Panics
    /// Where the TPM does not go along, or the verifier does not.
    pub async fn affirming(world: &World, swtpm: &Swtpm) -> Self {
        let manual = Self::admitted(world, swtpm).await;
        manual.attest().await.expect("evidence");
        world.capture(manual.node).await;
        assert_eq!(world.status(manual.node), PostureStatus::Affirming);
        manual
    }

    /// Its EK, with the certificates that the TPM holds.
    #[must_use]
    pub fn ek(&self) -> &EndorsementKey {
        self.endorsement.key()
    }

    /// Enrols with the AK that it has now.
    pub async fn enroll(&self) -> Result<ActivateResponse, RequestError> {
        let begun = self.client.enroll(&self.enroll_request()).await?;
        let secret = self.open(&self.ak, &begun).await.expect("our own EK and AK");
        self.activate(&begun, &secret).await
    }

    /// Has the TPM open what the verifier made, with a key of its own.
    pub async fn open(&self, ak: &AkBlob, begun: &EnrollResponse) -> Result<Vec<u8>, TpmError> {
        let (blob, secret) = (begun.credential_blob.as_bytes(), begun.encrypted_secret.as_bytes());
        Ok(self.tpm.activate(self.ek().kind, ak, blob, secret).await?.to_vec())
    }

    /// Answers an enrolment.
    pub async fn activate(
        &self,
        begun: &EnrollResponse,
        secret: &[u8],
    ) -> Result<ActivateResponse, RequestError> {
        self.client.activate(&activation(begun, secret)).await
    }

    /// What it sends to enrol.
    ///
    /// # Panics
    /// Never: a TPM's structures are short.
    #[must_use]
    pub fn enroll_request(&self) -> EnrollRequest {
        let ek = self.ek();
        EnrollRequest {
            ek_public: Blob::new(ek.public.as_bytes().to_vec()).expect("an EK"),
            ek_certificates: certificates(ek.certificate.iter().chain(&ek.intermediates)),
            ak_public: Blob::new(self.ak.public().as_bytes().to_vec()).expect("an AK"),
            join_token: None,
        }
    }

    /// Asks for a challenge.
    ///
    /// # Panics
    /// Where there is none for it.
    pub async fn challenge(&self) -> Challenge {
        self.client.challenge(&ChallengeRequest { node: self.node }).await.expect("a challenge")
    }

    /// What an honest quote for a challenge, without a request for a credential, has as extraData.
    #[must_use]
    pub fn extra_data(challenge: &Challenge) -> Vec<u8> {
        let parts = EvidenceRequest::bound_parts(None);
        extra_data(Purpose::Quote, &nonce(challenge), &parts).as_bytes().to_vec()
    }

    /// What the TPM states of these PCRs for a challenge.
    ///
    /// # Panics
    /// Where the TPM does not go along.
    pub async fn quote(&self, challenge: &Challenge, selection: &PcrSelection) -> Quote {
        let extra = Self::extra_data(challenge);
        self.tpm.quote(&self.ak, selection, &extra).await.expect("a quote")
    }

    /// Sends an honest answer to a fresh challenge.
    pub async fn attest(&self) -> Result<EvidenceResponse, RequestError> {
        let challenge = self.challenge().await;
        let quote = self.quote(&challenge, &challenge.selection).await;
        self.submit(&challenge, quote.statement, quote.values).await
    }

    /// Sends a statement as the answer to a challenge.
    pub async fn submit(
        &self,
        challenge: &Challenge,
        statement: Statement,
        pcrs: PcrValues,
    ) -> Result<EvidenceResponse, RequestError> {
        self.client.evidence(&evidence(challenge, statement, pcrs)).await
    }

    /// A credential key as a challenge demands it.
    ///
    /// # Panics
    /// Where the TPM does not go along.
    pub async fn credential_key(&self, challenge: &Challenge) -> CredentialKeyBlob {
        crate::keys::bound_key(&self.tpm, &challenge.credential_policy.selection()).await
    }

    /// What the TPM states of a key for a challenge.
    ///
    /// # Panics
    /// Where the TPM does not go along.
    pub async fn certify(&self, challenge: &Challenge, key: &CredentialKeyBlob) -> Statement {
        let extra = CertifyStatement::extra_data(&nonce(challenge));
        self.tpm.certify(&self.ak, key, extra.as_bytes()).await.expect("a statement")
    }

    /// A PKCS#10 request for a key with whatever statement.
    ///
    /// # Panics
    /// Where the TPM does not go along.
    pub async fn certificate_request(
        &self,
        challenge: &Challenge,
        key: &CredentialKeyBlob,
        statement: &Statement,
    ) -> Vec<u8> {
        let unsigned = UnsignedRequest::new(key.public(), &statement.attest, &statement.signature);
        let unsigned = unsigned.expect("a request for a P-256 key");
        let policy = challenge.credential_policy.selection();
        let signature = self.tpm.sign(key, &policy, &unsigned.digest()).await.expect("its own policy");
        let (r, s) = signature.split_at(32);
        unsigned.assemble(r, s).expect("an ECDSA signature")
    }

    /// Sends an honest answer to a challenge with a request for a credential.
    ///
    /// # Panics
    /// Where the TPM does not go along.
    pub async fn request_credential(
        &self,
        challenge: &Challenge,
        request: Vec<u8>,
    ) -> Result<EvidenceResponse, RequestError> {
        let parts = EvidenceRequest::bound_parts(Some(&request));
        let extra = extra_data(Purpose::Quote, &nonce(challenge), &parts);
        let quote = self.tpm.quote(&self.ak, &challenge.selection, extra.as_bytes()).await.expect("a quote");
        let certificate_request = Some(Blob::new(request).expect("a short request"));
        let evidence = evidence(challenge, quote.statement, quote.values);
        self.client.evidence(&EvidenceRequest { certificate_request, ..evidence }).await
    }

    /// Puts the AK at the disposal of tpm2-tools, as `ak.ctx` in the folder of its TPM.
    ///
    /// # Panics
    /// Where the TPM does not go along, or the AK is not on P-256.
    pub fn lend_ak(&self, swtpm: &Swtpm) {
        // What tpm2-tools read is the memory of a TPMS_ECC_POINT: each coordinate after its length, in 128 bytes.
        let (x, y) = self.ak.private().split_at(32);
        let length = 32_u16.to_ne_bytes();
        let unique = [&length, x, &[0; 96], &length, y, &[0; 96]].concat();
        std::fs::write(swtpm.dir().join("unique"), unique).expect("a file");
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";
        let make = "tpm2_createprimary -C e -G ecc256:ecdsa-sha256:null -g sha256 -u unique -c ak.ctx";
        tool(swtpm, &format!("{make} -a {attributes}"));
    }
}

/// Makes `parent.ctx`: the storage root of a hierarchy (`e` or `o`), by the attester's template.
pub fn create_parent(swtpm: &Swtpm, hierarchy: &str) {
    const ATTRIBUTES: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    let make = format!(
        "tpm2_createprimary -C {hierarchy} -G ecc256:null:aes128cfb -g sha256 -a {ATTRIBUTES} -c parent.ctx"
    );
    tool(swtpm, &make);
}

/// Runs a command of tpm2-tools, words apart by one space, in the folder of a TPM; what it loaded is flushed.
///
/// # Panics
/// Where it fails.
pub fn tool(swtpm: &Swtpm, command: &str) {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    let arguments: Vec<_> = ["-Q"].into_iter().chain(words).collect();
    swtpm.tool_ok(program, &arguments);
    swtpm.tool_ok("tpm2_flushcontext", &["-t"]);
}

/// Lower-case hex, as tpm2-tools take it.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads `attest` and `signature`, which a tool has written into the folder of a TPM.
///
/// # Panics
/// Where they are missing.
#[must_use]
pub fn tools_statement(swtpm: &Swtpm) -> Statement {
    let read = |name| std::fs::read(swtpm.dir().join(name)).expect("what the tool wrote");
    Statement { attest: read("attest"), signature: read("signature") }
}

/// Certificates as they go with an enrolment.
///
/// # Panics
/// Where one is longer than the wire takes.
#[must_use]
pub fn certificates<'c>(ders: impl IntoIterator<Item = &'c Vec<u8>>) -> Vec<CertificateBlob> {
    ders.into_iter().map(|der| Blob::new(der.clone()).expect("a certificate")).collect()
}

/// The answer to an enrolment.
///
/// # Panics
/// Where the secret is longer than the wire takes.
#[must_use]
pub fn activation(begun: &EnrollResponse, secret: &[u8]) -> ActivateRequest {
    let secret = Blob::new(secret.to_vec()).expect("a short secret");
    ActivateRequest { enrollment: begun.enrollment.clone(), secret }
}

/// A message without a request for a credential.
///
/// # Panics
/// Where the statement is longer than the wire takes.
#[must_use]
pub fn evidence(challenge: &Challenge, statement: Statement, pcrs: PcrValues) -> EvidenceRequest {
    EvidenceRequest {
        challenge: challenge.token.clone(),
        quote: Blob::new(statement.attest).expect("a short statement"),
        signature: Blob::new(statement.signature).expect("a short signature"),
        pcrs,
        certificate_request: None,
        boot_log: None,
        ima: None,
    }
}
