//! The handle that everybody else holds.

use std::io;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
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
    limits: Limits,
    ending: Ending,
}

/// Whether the thread that owns the TPM has ended. This is no handle: it does not keep the thread.
///
/// A process waits for it before it ends: what libcrypto cleans up at exit must not be in use by then, and no thread may
/// still be cleaning up what libcrypto kept for it.
#[derive(Debug, Clone, Default)]
pub struct Ending(Arc<Thread>);

#[derive(Debug, Default)]
struct Thread {
    work_is_done: Mutex<bool>,
    changed: Condvar,
    /// Until somebody has joined it.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Ending {
    /// Starts the thread.
    fn of(work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let ending = Self::default();
        let done = Done(ending.clone());
        let thread = thread::Builder::new().name("tpm".to_owned()).spawn(move || {
            // What the work holds, and with it the connection, goes first.
            let _done = done;
            work();
        })?;
        *ending.0.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(ending)
    }

    /// Returns when the thread has ended, or after the time; says whether it has.
    ///
    /// The time is for its work. What the system cleans up after it does not wait for the TPM.
    pub fn wait(&self, within: Duration) -> bool {
        let Thread { work_is_done, changed, thread } = &*self.0;
        let done = work_is_done.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(done, within, |done| !*done);
        let done = *waited.unwrap_or_else(PoisonError::into_inner).0;
        if done {
            // Locked until it is joined: whoever else waits returns no earlier.
            let mut thread = thread.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(thread) = thread.take() {
                // A thread that panicked has ended as well.
                drop(thread.join());
            }
        }
        done
    }
}

/// Says so when it is dropped, also where the thread panics.
struct Done(Ending);

impl Drop for Done {
    fn drop(&mut self) {
        let Thread { work_is_done, changed, .. } = &*self.0.0;
        *work_is_done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }
}

/// How long callers wait, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For what uses keys.
    pub quick: Duration,
    /// For what makes or derives keys.
    pub slow: Duration,
    /// Requests that wait.
    pub queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A discrete TPM signs in under a second; the rest is for others in the queue.
            quick: Duration::from_secs(30),
            // An RSA key takes a discrete TPM up to a minute. Linux gives these commands 300 s.
            slow: Duration::from_secs(300),
            // A request takes a discrete TPM some 0.2 s and more, so no more could be served within `quick` anyway.
            queue: 64,
        }
    }
}

impl Tpm {
    /// Starts the thread. Does not touch the TPM yet.
    pub fn spawn(config: TctiConfig) -> Result<Self, TpmError> {
        Self::spawn_with(config, Limits::default())
    }

    /// Starts the thread with other limits.
    pub fn spawn_with(config: TctiConfig, limits: Limits) -> Result<Self, TpmError> {
        let (calls, receiver) = mpsc::sync_channel(limits.queue);
        match Ending::of(move || Owner::new(config).run(&receiver)) {
            Ok(ending) => Ok(Self { calls, limits, ending }),
            Err(error) => Err(TpmError::Stack { operation: "start a thread", detail: error.to_string() }),
        }
    }

    /// To wait for the end of the thread, once every handle is gone.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ending.clone()
    }

    /// What the TPM says about itself.
    pub async fn identify(&self) -> Result<TpmIdentity, TpmError> {
        self.ask(self.limits.quick, Request::Identify).await
    }

    /// The EK to enrol with: the first of [`EkKind::ALL`] that has a certificate, else the first that there is. The
    /// same at each call, unless the vendor's certificates in NV change.
    pub async fn preferred_endorsement_key(&self) -> Result<EndorsementKey, TpmError> {
        self.ask(self.limits.slow, Request::PreferredEndorsementKey).await
    }

    /// The EK of a kind.
    pub async fn endorsement_key(&self, kind: EkKind) -> Result<EndorsementKey, TpmError> {
        self.ask(self.limits.slow, |reply| Request::EndorsementKey(kind, reply)).await
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
        self.ask(self.limits.slow, |reply| Request::CreateAk(algorithm, reply)).await
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
        self.ask(self.limits.slow, |reply| Request::Activate {
            ek,
            ak,
            credential_blob,
            encrypted_secret,
            reply,
        })
        .await
    }

    /// The values of the selected PCRs; those of banks that are not active are missing. PCRs may move in between: use
    /// [`Tpm::quote`] for values that belong together.
    pub async fn read_pcrs(&self, selection: &PcrSelection) -> Result<PcrValues, TpmError> {
        let selection = selection.clone();
        self.ask(self.limits.quick, |reply| Request::ReadPcrs(selection, reply)).await
    }

    /// Quotes the selected PCRs, with the values that the quote is over. `extra_data` holds at most 64 bytes.
    pub async fn quote(
        &self,
        ak: &AkBlob,
        selection: &PcrSelection,
        extra_data: &[u8],
    ) -> Result<Quote, TpmError> {
        let (ak, selection, extra_data) = (ak.clone(), selection.clone(), extra_data.to_vec());
        self.ask(self.limits.quick, |reply| Request::Quote { ak, selection, extra_data, reply }).await
    }

    /// Makes the key of a credential, ECDSA P-256. `auth_policy` is `rootbound_common::tpm::policy_pcr` in SHA-256
    /// over the PCR values that the key is to be bound to.
    pub async fn create_credential_key(&self, auth_policy: &Digest) -> Result<CredentialKeyBlob, TpmError> {
        let policy = match <[u8; 32]>::try_from(auth_policy.as_bytes()) {
            Ok(policy) if auth_policy.algorithm() == HashAlgorithm::Sha256 => policy,
            _ => return Err(TpmError::InvalidArgument("the policy of a credential key is a SHA-256 digest")),
        };
        self.ask(self.limits.slow, |reply| Request::CreateCredentialKey(policy, reply)).await
    }

    /// Has the TPM load a key that was saved, to know whether it is its own: [`TpmError::ForeignKey`] says that it is not.
    pub async fn accept(&self, key: &CredentialKeyBlob) -> Result<(), TpmError> {
        let key = key.clone();
        self.ask(self.limits.slow, |reply| Request::Accept(key, reply)).await
    }

    /// Has the AK state that `key` lives in this TPM. Works whatever the PCRs are.
    pub async fn certify(
        &self,
        ak: &AkBlob,
        key: &CredentialKeyBlob,
        extra_data: &[u8],
    ) -> Result<Statement, TpmError> {
        let (ak, key, extra_data) = (ak.clone(), key.clone(), extra_data.to_vec());
        self.ask(self.limits.quick, |reply| Request::Certify { ak, key, extra_data, reply }).await
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
        self.ask(self.limits.quick, |reply| Request::Sign { key, policy, digest, reply }).await
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
        self.ask_blocking(self.limits.quick, |reply| Request::Sign { key, policy, digest, reply })
    }

    /// Bytes from the TPM's random number generator.
    pub async fn random(&self, count: u16) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.ask(self.limits.quick, |reply| Request::Random(count, reply)).await
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
            // The thread ended; it answers everything else.
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
        let call = Call { limit, deadline: Instant::now() + limit, request };
        self.calls.try_send(call).map_err(|error| match error {
            TrySendError::Full(_) => TpmError::Overloaded,
            TrySendError::Disconnected(_) => TpmError::Stopped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(queue: usize) -> (Tpm, mpsc::Receiver<Call>) {
        let (calls, receiver) = mpsc::sync_channel(queue);
        let limits = Limits { quick: Duration::from_millis(20), slow: Duration::from_millis(20), queue };
        (Tpm { calls, limits, ending: Ending::default() }, receiver)
    }

    #[tokio::test]
    async fn request_to_a_thread_that_ended_is_answered() {
        let (tpm, receiver) = handle(1);
        drop(receiver);
        assert_eq!(tpm.random(1).await, Err(TpmError::Stopped));
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_limit_and_no_more_than_the_queue_holds() {
        let (tpm, receiver) = handle(1);
        let limit = tpm.limits.quick;
        assert_eq!(tpm.random(1).await, Err(TpmError::Timeout { after: limit }));
        assert_eq!(tpm.random(1).await, Err(TpmError::Overloaded));
        // The thread, back again, finds a request that nobody waits for any more, and then has room.
        let call = receiver.recv().unwrap();
        assert!(call.deadline <= Instant::now());
        assert_eq!(tpm.random(1).await, Err(TpmError::Timeout { after: limit }));
    }

    #[tokio::test]
    async fn policy_of_a_credential_key_in_another_hash_is_refused() {
        let (tpm, _receiver) = handle(1);
        let policy = Digest::zero(HashAlgorithm::Sha384);
        assert!(matches!(tpm.create_credential_key(&policy).await, Err(TpmError::InvalidArgument(_))));
    }

    #[test]
    fn end_of_the_thread_is_waited_for_and_comes_with_the_last_handle() {
        let tpm = Tpm::spawn(TctiConfig::default()).unwrap();
        let (ending, clone) = (tpm.ending(), tpm.clone());
        drop(tpm);
        assert!(!ending.wait(Duration::from_millis(1)), "a handle is left");
        drop(clone);
        assert!(ending.wait(Duration::from_secs(60)));
        assert!(ending.wait(Duration::ZERO), "it stays so");
    }

    #[test]
    fn end_of_the_thread_is_that_of_its_own_cleanup_too_and_comes_after_a_panic() {
        use std::cell::Cell;
        use std::sync::atomic::{AtomicBool, Ordering};

        /// As libcrypto has it: something of the thread that goes with it, and takes a while.
        struct Cleanup(Arc<AtomicBool>);

        impl Drop for Cleanup {
            fn drop(&mut self) {
                for _ in 0..10_000 {
                    thread::yield_now();
                }
                self.0.store(true, Ordering::SeqCst);
            }
        }

        thread_local! {
            static OF_THE_THREAD: Cell<Option<Cleanup>> = const { Cell::new(None) };
        }

        for panics in [false, true] {
            let clean = Arc::new(AtomicBool::new(false));
            let cleanup = Cleanup(Arc::clone(&clean));
            let ending = Ending::of(move || {
                OF_THE_THREAD.set(Some(cleanup));
                assert!(!panics, "as it is meant to");
            })
            .unwrap();
            assert!(ending.wait(Duration::from_secs(60)));
            assert!(clean.load(Ordering::SeqCst), "panics: {panics}");
        }
    }
}
