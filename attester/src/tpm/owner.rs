//! The thread that owns the TPM: takes requests in order, connects when needed, connects anew after a failure.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tss_esapi::structures::Digest as TssDigest;
use zeroize::Zeroizing;

use super::device::{Device, NO_SESSION};
use super::keys::KeyRing;
use super::request::{Call, Reply, Request};
use super::{TctiConfig, TpmError, endorsement, identity, pcr, signing, statement};

/// How long an answer is waited for, and until when.
#[derive(Clone, Copy)]
struct Time {
    limit: Duration,
    deadline: Instant,
}

pub(super) struct Owner {
    config: TctiConfig,
    device: Option<Device>,
    ring: KeyRing,
}

impl Owner {
    pub(super) fn new(config: TctiConfig) -> Self {
        Self { config, device: None, ring: KeyRing::default() }
    }

    /// Serves until every handle is gone.
    pub(super) fn run(mut self, calls: &Receiver<Call>) {
        while let Ok(call) = calls.recv() {
            self.serve(call);
        }
    }

    fn serve(&mut self, Call { limit, deadline, request }: Call) {
        let time = Time { limit, deadline };
        match request {
            Request::Identify(reply) => self.answer(time, reply, |device, _| identity::identify(device)),
            Request::PreferredEndorsementKey(reply) => self.answer(time, reply, endorsement::preferred),
            Request::EndorsementKey(kind, reply) => {
                self.answer(time, reply, |device, ring| endorsement::read(device, ring, kind));
            }
            Request::CreateAk(algorithm, reply) => {
                self.answer(time, reply, |device, ring| ring.create_ak(device, algorithm));
            }
            Request::Activate { ek, ak, credential_blob, encrypted_secret, reply } => {
                self.answer(time, reply, |device, ring| {
                    endorsement::activate(device, ring, ek, &ak, &credential_blob, &encrypted_secret)
                });
            }
            Request::ReadPcrs(selection, reply) => {
                self.answer(time, reply, |device, _| pcr::read(device, &selection));
            }
            Request::Quote { ak, selection, extra_data, reply } => {
                self.answer(time, reply, |device, ring| {
                    statement::quote(device, ring, &ak, &selection, &extra_data)
                })
            }
            Request::CreateCredentialKey(policy, reply) => {
                self.answer(time, reply, |device, ring| ring.create_credential_key(device, &policy));
            }
            Request::Accept(key, reply) => {
                self.answer(time, reply, |device, ring| ring.load_credential_key(device, &key).map(drop));
            }
            Request::Certify { ak, key, extra_data, reply } => self
                .answer(time, reply, |device, ring| statement::certify(device, ring, &ak, &key, &extra_data)),
            Request::Sign { key, policy, digest, reply } => {
                self.answer(time, reply, |device, ring| signing::sign(device, ring, &key, &policy, &digest))
            }
            Request::Random(count, reply) => {
                self.answer(time, reply, |device, _| random(device, count.into()))
            }
        }
    }

    /// Does the work and answers. The answer goes out when every guard is gone: who has it may rely on the TPM holding
    /// nothing of ours.
    fn answer<T>(
        &mut self,
        time: Time,
        reply: Reply<T>,
        work: impl Fn(&Device, &mut KeyRing) -> Result<T, TpmError>,
    ) {
        // The TPM hung, and whoever asked is gone: on to those who still wait.
        if Instant::now() >= time.deadline {
            return reply.send(Err(TpmError::Timeout { after: time.limit }));
        }
        let mut answer = self.attempt(time.deadline, &work);
        // A connection from before a restart of the TPM fails once, and so does what was loaded before a reset; nothing
        // that is asked here does harm twice.
        let again = matches!(answer, Err(TpmError::Unreachable { .. } | TpmError::WasReset { .. }));
        if again && Instant::now() < time.deadline {
            answer = self.attempt(time.deadline, &work);
        }
        reply.send(answer);
    }

    fn attempt<T>(
        &mut self,
        deadline: Instant,
        work: impl Fn(&Device, &mut KeyRing) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let device = match self.device.take() {
            Some(device) => device,
            None => Device::connect(&self.config, deadline)?,
        };
        device.set_deadline(deadline);
        let answer = work(&device, &mut self.ring);
        if !device.is_broken() {
            self.device = Some(device);
        }
        answer
    }
}

/// Bytes of the TPM's generator.
pub(super) fn random(device: &Device, count: usize) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    /// A TPM gives at most a digest's worth at once (Part 3, 16.1), at least 32 bytes.
    const AT_ONCE: usize = 32;
    let mut bytes = Zeroizing::new(Vec::with_capacity(count));
    while bytes.len() < count {
        let missing = (count - bytes.len()).min(AT_ONCE);
        let part: TssDigest =
            device.run("TPM2_GetRandom", NO_SESSION, |context| context.get_random(missing))?;
        if part.value().is_empty() || part.value().len() > missing {
            return Err(TpmError::Inconsistent(
                "TPM2_GetRandom gives another number of bytes than asked for",
            ));
        }
        bytes.extend_from_slice(part.value());
    }
    Ok(bytes)
}
