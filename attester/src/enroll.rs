//! Enrolment: the verifier learns that this EK and this AK live in one TPM, and takes the AK as the machine's.
//!
//! 1. the AK is made and saved, before anybody hears of it
//! 2. `POST /v1/enrollments`: EK, its certificates, AK, perhaps a join token
//! 3. TPM2_ActivateCredential opens what only this TPM can open
//! 4. `POST /v1/enrollments/activate`: the secret that was in it
//! 5. that the verifier knows the AK is saved
//!
//! A process that dies on any line starts over with step 2 and the same AK: to the verifier that is the same machine
//! once more. An AK that was made but never saved is of no use to anybody.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rootbound_common::blob::Blob;
use rootbound_common::clock::{Clock, Timestamp};
use rootbound_common::crypto::subject_public_key_info;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{ActivateRequest, Admission, Challenge, EnrollRequest, JoinToken};
use serde::Deserialize;

use crate::client::{Client, RequestError};
use crate::keep::{Enrolled, Identity, Keep, KeepError, SavedKey};
use crate::tpm::{AkBlob, EkKind, EndorsementKey, Tpm, TpmError};

/// Section `[enrollment]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrollmentConfig {
    /// A file with a token that admits the machine; read at enrolment only, and may be absent by then.
    pub join_token_file: Option<PathBuf>,
    /// Which EK says who the machine is.
    pub ek: EkChoice,
}

/// Which EK says who the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EkChoice {
    /// The first of RSA-2048, P-256 and P-384 that has a certificate in the TPM.
    #[default]
    Auto,
    /// RSA-2048.
    Rsa2048,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
}

impl EkChoice {
    /// The kind; `None` leaves it to what the TPM has.
    #[must_use]
    pub const fn kind(self) -> Option<EkKind> {
        match self {
            Self::Auto => None,
            Self::Rsa2048 => Some(EkKind::Rsa2048),
            Self::P256 => Some(EkKind::EccP256),
            Self::P384 => Some(EkKind::EccP384),
        }
    }
}

/// Why the machine is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The TPM does not do its part.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The verifier does not answer, or says no.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The state cannot be saved.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The join token cannot be read.
    #[error("cannot read the join token from {}", path.display())]
    JoinToken {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in the file is no token.
    #[error("{} holds no join token: one line of up to {MAX_JOIN_TOKEN} printable characters", path.display())]
    NoJoinToken {
        /// The file.
        path: PathBuf,
    },
    /// The EK cannot be put into the form that its hash is over.
    #[error("the endorsement key cannot be encoded: {0}")]
    Encoding(#[from] der::Error),
    /// A structure is longer than version 1 of the protocol allows.
    #[error("the {what} is too long for version 1 of the protocol")]
    TooLong {
        /// What.
        what: &'static str,
    },
    /// The verifier names the machine otherwise than its EK does.
    #[error("the verifier took this machine for {stated}, but its endorsement key says {node}")]
    OtherNode {
        /// What the verifier says.
        stated: NodeId,
        /// What the EK says.
        node: NodeId,
    },
}

/// The verifier takes no longer ones, and makes shorter ones.
const MAX_JOIN_TOKEN: usize = 128;

/// The EK that says which machine this is.
#[derive(Debug, Clone)]
pub struct Endorsement {
    node: NodeId,
    key: EndorsementKey,
}

impl Endorsement {
    /// Asks the TPM for the EK.
    pub async fn read(tpm: &Tpm, choice: EkChoice) -> Result<Self, EnrollError> {
        let key = match choice.kind() {
            None => tpm.preferred_endorsement_key().await?,
            Some(kind) => tpm.endorsement_key(kind).await?,
        };
        let node = NodeId::of_endorsement_key(&subject_public_key_info(&key.public)?);
        Ok(Self { node, key })
    }

    /// The machine's id, as the verifier will compute it too.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The EK.
    #[must_use]
    pub const fn key(&self) -> &EndorsementKey {
        &self.key
    }
}

/// Who the machine is, to the verifier too.
#[derive(Debug)]
pub struct Enrollment {
    /// When the verifier took the AK.
    pub at: Timestamp,
    /// The AK.
    pub attestation_key: AkBlob,
    /// Whether the machine may attest.
    pub admission: Admission,
    /// The first challenge, where it may.
    pub challenge: Option<Challenge>,
}

/// Enrols the machine: with the AK of an earlier attempt where there is one that the TPM accepts, else with a new one.
pub async fn enroll(
    tpm: &Tpm,
    client: &Client,
    keep: &Keep,
    clock: &dyn Clock,
    endorsement: &Endorsement,
    config: &EnrollmentConfig,
) -> Result<Enrollment, EnrollError> {
    let node = endorsement.node();
    match prove(tpm, client, keep, clock, endorsement, config).await {
        // The AK was made before the TPM was cleared, or the file is damaged where only the TPM can tell.
        Err(EnrollError::Tpm(error @ TpmError::ForeignKey { .. })) if keep.identity(node)?.is_some() => {
            keep.set_identity_aside(&error.to_string())?;
            prove(tpm, client, keep, clock, endorsement, config).await
        }
        proved => proved,
    }
}

async fn prove(
    tpm: &Tpm,
    client: &Client,
    keep: &Keep,
    clock: &dyn Clock,
    endorsement: &Endorsement,
    config: &EnrollmentConfig,
) -> Result<Enrollment, EnrollError> {
    let node = endorsement.node();
    let (mut identity, attestation_key) = attestation_key(tpm, keep, node).await?;
    let request = request(endorsement, &attestation_key, config)?;
    let sealed = client.enroll(&request).await?;
    let secret = tpm
        .activate(
            endorsement.key().kind,
            &attestation_key,
            sealed.credential_blob.as_bytes(),
            sealed.encrypted_secret.as_bytes(),
        )
        .await?;
    let secret = Blob::new(secret.to_vec()).ok_or(EnrollError::TooLong { what: "activation secret" })?;
    let activated = client.activate(&ActivateRequest { enrollment: sealed.enrollment, secret }).await?;
    check_node(activated.node, node)?;
    let at = clock.now();
    identity.enrolled = Some(Enrolled { spiffe_id: activated.spiffe_id, at });
    keep.save_identity(&identity)?;
    tracing::info!(%node, ak = %attestation_key.name(), "enrolled");
    Ok(Enrollment { at, attestation_key, admission: activated.admission, challenge: activated.challenge })
}

/// Node ids are made by the verifier, but from nothing that this machine does not know.
fn check_node(stated: NodeId, node: NodeId) -> Result<(), EnrollError> {
    if stated == node { Ok(()) } else { Err(EnrollError::OtherNode { stated, node }) }
}

/// The AK of an earlier attempt, else a new one that is on disk already.
async fn attestation_key(tpm: &Tpm, keep: &Keep, node: NodeId) -> Result<(Identity, AkBlob), EnrollError> {
    if let Some(identity) = keep.identity(node)? {
        match identity.attestation_key.to_attestation_key() {
            Ok(key) => return Ok((identity, key)),
            Err(error) => keep.set_identity_aside(&error.to_string())?,
        }
    }
    let key = tpm.create_ak(None).await?;
    let saved = SavedKey::of(&key).ok_or(EnrollError::TooLong { what: "attestation key" })?;
    let identity = Identity { node, attestation_key: saved, enrolled: None };
    keep.save_identity(&identity)?;
    Ok((identity, key))
}

fn request(
    endorsement: &Endorsement,
    attestation_key: &AkBlob,
    config: &EnrollmentConfig,
) -> Result<EnrollRequest, EnrollError> {
    let too_long = |what| EnrollError::TooLong { what };
    let EndorsementKey { public, certificate, intermediates, .. } = endorsement.key();
    let certificates = certificate.iter().chain(intermediates).take(EnrollRequest::MAX_CERTIFICATES);
    Ok(EnrollRequest {
        ek_public: Blob::new(public.as_bytes().to_vec()).ok_or(too_long("endorsement key"))?,
        ek_certificates: certificates
            .map(|certificate| Blob::new(certificate.clone()).ok_or(too_long("endorsement key certificate")))
            .collect::<Result<_, _>>()?,
        ak_public: Blob::new(attestation_key.public().as_bytes().to_vec())
            .ok_or(too_long("attestation key"))?,
        join_token: config.join_token_file.as_deref().map(read_join_token).transpose()?.flatten(),
    })
}

/// The token; nothing where the file is gone, as it should be once the machine is known.
fn read_join_token(path: &Path) -> Result<Option<JoinToken>, EnrollError> {
    let mut text = String::new();
    // One more than a token and a line end may take.
    let limit = u64::try_from(MAX_JOIN_TOKEN + 3).unwrap_or(u64::MAX);
    let read = File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::info!(file = %path.display(), "there is no join token: enrolling without");
            return Ok(None);
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(EnrollError::NoJoinToken { path: path.to_owned() });
        }
        Err(source) => return Err(EnrollError::JoinToken { path: path.to_owned(), source }),
        Ok(_) => {}
    }
    let token = text.trim_end_matches(['\r', '\n']);
    let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_empty() || token.len() > MAX_JOIN_TOKEN || !printable {
        return Err(EnrollError::NoJoinToken { path: path.to_owned() });
    }
    Ok(Some(JoinToken(token.to_owned())))
}

#[cfg(test)]
mod tests {
    use rootbound_common::tpm::{Public, put_sized};

    use super::*;

    /// TPMT_PUBLIC of an ECC key on P-256 up to its point (Part 2, table 216), with a made-up point.
    fn public(start: &[u8]) -> Vec<u8> {
        let mut public = start.to_vec();
        put_sized(&mut public, &[1; 32]);
        put_sized(&mut public, &[2; 32]);
        public
    }

    fn attestation_key() -> AkBlob {
        // ECC, SHA-256, the attributes of an AK, no policy, no symmetric, ECDSA, P-256, no KDF.
        let start = [0, 0x23, 0, 0x0b, 0, 5, 4, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10];
        AkBlob::from_parts(&public(&start), &[1]).unwrap()
    }

    fn endorsement(certificate: Option<Vec<u8>>, intermediates: Vec<Vec<u8>>) -> Endorsement {
        // ECC, SHA-256, the attributes of an EK, no policy, AES-128-CFB, no scheme, P-256, no KDF.
        let start = [0, 0x23, 0, 0x0b, 0, 3, 0, 0xb2, 0, 0, 0, 6, 0, 0x80, 0, 0x43, 0, 0x10, 0, 3, 0, 0x10];
        let public = Public::parse(&public(&start)).unwrap();
        let key = EndorsementKey { kind: EkKind::EccP256, public, certificate, intermediates };
        Endorsement { node: NodeId::from_bytes([7; 32]), key }
    }

    #[test]
    fn request_carries_the_ek_certificate_first_and_no_more_than_the_protocol_allows() {
        let config = EnrollmentConfig::default();
        let endorsement = endorsement(Some(vec![0]), (1..9).map(|number| vec![number]).collect());
        let request = request(&endorsement, &attestation_key(), &config).unwrap();
        let sent: Vec<_> = request.ek_certificates.iter().map(|one| one.as_bytes().to_vec()).collect();
        assert_eq!(sent, [[0], [1], [2], [3], [4], [5]]);
        assert_eq!(request.join_token, None);
    }

    #[test]
    fn certificate_beyond_the_protocol_is_not_sent() {
        let endorsement = endorsement(Some(vec![0; 8193]), vec![]);
        let refused = request(&endorsement, &attestation_key(), &EnrollmentConfig::default());
        assert!(matches!(refused, Err(EnrollError::TooLong { .. })));
    }

    #[test]
    fn machine_does_not_answer_to_another_id() {
        let (ours, theirs) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        check_node(ours, ours).unwrap();
        assert!(matches!(check_node(theirs, ours), Err(EnrollError::OtherNode { .. })));
    }

    #[test]
    fn join_token_is_one_printable_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert_eq!(read_join_token(&path).unwrap(), None);
        let longest = "x".repeat(128);
        for (content, token) in [
            ("abc-1_2\n", "abc-1_2"),
            ("abc", "abc"),
            ("abc\r\n", "abc"),
            (longest.as_str(), longest.as_str()),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read_join_token(&path).unwrap(), Some(JoinToken(token.to_owned())));
        }
        let too_long = "x".repeat(129);
        for bad in ["", "\n", "two\nlines", "a b", "a\tb", "tokén", too_long.as_str()] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(read_join_token(&path), Err(EnrollError::NoJoinToken { .. })), "{bad:?}");
        }
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(read_join_token(&path), Err(EnrollError::NoJoinToken { .. })));
        assert!(matches!(read_join_token(folder.path()), Err(EnrollError::JoinToken { .. })));
    }
}
