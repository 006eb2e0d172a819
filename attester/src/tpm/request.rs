//! What can be asked of the thread that owns the TPM: a closed list.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use rootbound_common::tpm::{PcrSelection, PcrValues};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{
    AkAlgorithm, AkBlob, CredentialKeyBlob, EkKind, EndorsementKey, Quote, Statement, TpmError, TpmIdentity,
};

/// A request with how long its answer is waited for, and until when.
pub(super) struct Call {
    pub(super) limit: Duration,
    pub(super) deadline: Instant,
    pub(super) request: Request,
}

/// Each request with the way back.
pub(super) enum Request {
    Identify(Reply<TpmIdentity>),
    PreferredEndorsementKey(Reply<EndorsementKey>),
    EndorsementKey(EkKind, Reply<EndorsementKey>),
    CreateAk(Option<AkAlgorithm>, Reply<AkBlob>),
    Activate {
        ek: EkKind,
        ak: AkBlob,
        credential_blob: Vec<u8>,
        encrypted_secret: Vec<u8>,
        reply: Reply<Zeroizing<Vec<u8>>>,
    },
    ReadPcrs(PcrSelection, Reply<PcrValues>),
    Quote {
        ak: AkBlob,
        selection: PcrSelection,
        extra_data: Vec<u8>,
        reply: Reply<Quote>,
    },
    CreateCredentialKey([u8; 32], Reply<CredentialKeyBlob>),
    Accept(CredentialKeyBlob, Reply<()>),
    Certify {
        ak: AkBlob,
        key: CredentialKeyBlob,
        extra_data: Vec<u8>,
        reply: Reply<Statement>,
    },
    Sign {
        key: CredentialKeyBlob,
        policy: PcrSelection,
        digest: [u8; 32],
        reply: Reply<[u8; 64]>,
    },
    Random(u16, Reply<Zeroizing<Vec<u8>>>),
}

/// The way back to whoever asked: a task, or a thread that blocks.
pub(super) enum Reply<T> {
    Task(oneshot::Sender<Result<T, TpmError>>),
    Thread(SyncSender<Result<T, TpmError>>),
}

impl<T> Reply<T> {
    /// Answers; whoever gave up waiting does not hear it.
    pub(super) fn send(self, answer: Result<T, TpmError>) {
        match self {
            Self::Task(sender) => drop(sender.send(answer)),
            Self::Thread(sender) => drop(sender.try_send(answer)),
        }
    }
}
