//! The handle that everybody else holds.

use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrSelection, PcrValues};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::owner::Owner;
use super::request::{Call, Reply, Request};
use super::{
    AkAlgorithm, AkBlob, CredentialKeyBlob, EkKind, EndorsementKey, Quote, Statement, TctiConfig, TpmError,
    TpmIdentity,
};

/// A handle to the thread that owns the TPM; clones share the thread, which ends with the last of them.
///
/// Methods are for tasks of tokio; `…_blocking` for threads. Each waits for a bounded time, the queue included. The TPM
/// is connected to at the first request, and again after it was away: no error is for good.
#[derive(Debug, Clone)]
pub struct Tpm {
    calls: SyncSender<Call>,
}

/// Requests that wait. One takes a discrete TPM some 0.2 s, so more could not be served within [`QUICK`] anyway.
const QUEUE: usize = 64;

/// For what uses keys. A discrete TPM signs in under a second; the rest is for others in the queue.
const QUICK: Duration = Duration::from_secs(30);

/// For what makes or derives keys: RSA takes a discrete TPM up to a minute. Linux gives these commands 300 s.
const SLOW: Duration = Duration::from_secs(300);

impl Tpm {
    /// Starts the thread. Does not touch the TPM yet.
    pub fn spawn(config: TctiConfig) -> Result<Self, TpmError> {
        let (calls, receiver) = mpsc::sync_channel(QUEUE);
        let spawned =
            thread::Builder::new().name("tpm".to_owned()).spawn(move || Owner::new(config).run(&receiver));
        match spawned {
            Ok(_runs_until_every_handle_is_gone) => Ok(Self { calls }),
            Err(error) => Err(TpmError::Stack { operation: "start a thread", detail: error.to_string() }),
        }
    }

    /// What the TPM says about itself.
    pub async fn identify(&self) -> Result<TpmIdentity, TpmError> {
        self.ask(QUICK, Request::Identify).await
    }

    /// The EK to enrol with: the first of [`EkKind::ALL`] that has a certificate, else the first that there is. The
    /// same at each call, unless the vendor's certificates in NV change.
    pub async fn preferred_endorsement_key(&self) -> Result<EndorsementKey, TpmError> {
        self.ask(SLOW, Request::PreferredEndorsementKey).await
    }

    /// The EK of a kind.
    pub async fn endorsement_key(&self, kind: EkKind) -> Result<EndorsementKey, TpmError> {
        self.ask(SLOW, |reply| Request::EndorsementKey(kind, reply)).await
    }

    /// Every EK that the TPM has, in the order of [`EkKind::ALL`].
    pub async fn endorsement_keys(&self) -> Result<Vec<EndorsementKey>, TpmError> {
        let mut keys = Vec::new();
        for kind in EkKind::ALL {
            match self.endorsement_key(kind).await {
                Ok(key) => keys.push(key),
                Err(TpmError::NoEndorsementKey(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    }

    /// Makes an AK; without a wish ECDSA P-256, or RSA-2048 on a TPM without that curve.
    pub async fn create_ak(&self, algorithm: Option<AkAlgorithm>) -> Result<AkBlob, TpmError> {
        self.ask(SLOW, |reply| Request::CreateAk(algorithm, reply)).await
    }

    /// Opens what TPM2_MakeCredential made for this EK and this AK. The two arguments are the contents of the
    /// TPM2B_ID_OBJECT and of the TPM2B_ENCRYPTED_SECRET.
    pub async fn activate(
        &self,
        ek: EkKind,
        ak: &AkBlob,
        credential_blob: &[u8],
        encrypted_secret: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let (ak, credential_blob, encrypted_secret) =
            (ak.clone(), credential_blob.to_vec(), encrypted_secret.to_vec());
        self.ask(SLOW, |reply| Request::Activate { ek, ak, credential_blob, encrypted_secret, reply }).await
    }

    /// The values of the selected PCRs; those of banks that are not active are missing. PCRs may move in between: use
    /// [`Tpm::quote`] for values that belong together.
    pub async fn read_pcrs(&self, selection: &PcrSelection) -> Result<PcrValues, TpmError> {
        let selection = selection.clone();
        self.ask(QUICK, |reply| Request::ReadPcrs(selection, reply)).await
    }

    /// Quotes the selected PCRs, with the values that the quote is over. `extra_data` holds at most 64 bytes.
    pub async fn quote(
        &self,
        ak: &AkBlob,
        selection: &PcrSelection,
        extra_data: &[u8],
    ) -> Result<Quote, TpmError> {
        let (ak, selection, extra_data) = (ak.clone(), selection.clone(), extra_data.to_vec());
        self.ask(QUICK, |reply| Request::Quote { ak, selection, extra_data, reply }).await
    }

    /// Makes the key of a credential, ECDSA P-256. `auth_policy` is `rootbound_common::tpm::policy_pcr` in SHA-256
    /// over the PCR values that the key is to be bound to.
    pub async fn create_credential_key(&self, auth_policy: &Digest) -> Result<CredentialKeyBlob, TpmError> {
        let policy = match <[u8; 32]>::try_from(auth_policy.as_bytes()) {
            Ok(policy) if auth_policy.algorithm() == HashAlgorithm::Sha256 => policy,
            _ => return Err(TpmError::InvalidArgument("the policy of a credential key is a SHA-256 digest")),
        };
        self.ask(SLOW, |reply| Request::CreateCredentialKey(policy, reply)).await
    }

    /// Has the AK state that `key` lives in this TPM. Works whatever the PCRs are.
    pub async fn certify(
        &self,
        ak: &AkBlob,
        key: &CredentialKeyBlob,
        extra_data: &[u8],
    ) -> Result<Statement, TpmError> {
        let (ak, key, extra_data) = (ak.clone(), key.clone(), extra_data.to_vec());
        self.ask(QUICK, |reply| Request::Certify { ak, key, extra_data, reply }).await
    }

    /// Signs a SHA-256 digest; gives r and s of the ECDSA P-256 signature, 32 bytes each. `policy` selects the PCRs
    /// that the key is bound to; [`TpmError::PolicyFailed`] says that their values are others now.
    pub async fn sign(
        &self,
        key: &CredentialKeyBlob,
        policy: &PcrSelection,
        digest: &[u8; 32],
    ) -> Result<[u8; 64], TpmError> {
        let (key, policy, digest) = (key.clone(), policy.clone(), *digest);
        self.ask(QUICK, |reply| Request::Sign { key, policy, digest, reply }).await
    }

    /// [`Tpm::sign`] for callers that cannot await, such as rustls. Not to be called on a task of a single-threaded
    /// runtime: it blocks.
    pub fn sign_blocking(
        &self,
        key: &CredentialKeyBlob,
        policy: &PcrSelection,
        digest: &[u8; 32],
    ) -> Result<[u8; 64], TpmError> {
        let (key, policy, digest) = (key.clone(), policy.clone(), *digest);
        self.ask_blocking(QUICK, |reply| Request::Sign { key, policy, digest, reply })
    }

    /// Bytes from the TPM's random number generator.
    pub async fn random(&self, count: u16) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.ask(QUICK, |reply| Request::Random(count, reply)).await
    }

    async fn ask<T>(
        &self,
        limit: Duration,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, TpmError> {
        let (sender, answer) = oneshot::channel();
        self.enqueue(limit, request(Reply::Task(sender)))?;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => answer,
            // The thread dropped the request: too late, or it ended.
            Ok(Err(_)) => Err(TpmError::Stopped),
            Err(_) => Err(TpmError::Timeout { after: limit }),
        }
    }

    fn ask_blocking<T>(
        &self,
        limit: Duration,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, TpmError> {
        let (sender, answer) = mpsc::sync_channel(1);
        self.enqueue(limit, request(Reply::Thread(sender)))?;
        match answer.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(TpmError::Timeout { after: limit }),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(TpmError::Stopped),
        }
    }

    fn enqueue(&self, limit: Duration, request: Request) -> Result<(), TpmError> {
        let call = Call { deadline: Instant::now() + limit, request };
        self.calls.try_send(call).map_err(|error| match error {
            TrySendError::Full(_) => TpmError::Overloaded,
            TrySendError::Disconnected(_) => TpmError::Stopped,
        })
    }
}
