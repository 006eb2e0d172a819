//! TLS with a private key that lives in the TPM.
//!
//! rustls asks for a signature over the handshake; SHA-256 is computed here, TPM2_Sign runs in a policy session, and
//! the TPM refuses once a PCR of the key's policy has changed. Resumption is off, on our side too: a resumed session
//! would authenticate without the TPM.

use std::fmt;
use std::sync::Arc;

use p256::ecdsa::Signature;
use rootbound_common::crypto::{sha256, subject_public_key_info};
use rootbound_common::tpm::{PcrSelection, Public};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{ClientConfig, OtherError, RootCertStore, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::keep::Credential;
use crate::tpm::{CredentialKeyBlob, KeyBlobError, Tpm, TpmError};

/// Why there is no TLS with a credential.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The chain is not PEM, or there is no certificate in it.
    #[error("the certificate chain is not a list of PEM certificates")]
    Chain,
    /// The key in the state is none.
    #[error("the credential key is unusable: {0}")]
    Key(#[from] KeyBlobError),
    /// The key cannot be put into DER.
    #[error("the credential key cannot be encoded: {0}")]
    Encoding(#[from] der::Error),
    /// The certificate is for another key.
    #[error("the certificate is not for the credential key")]
    KeyMismatch,
    /// rustls does not offer what is asked of it.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A credential with its key in the TPM, ready for TLS, as a client or as a server.
#[derive(Clone)]
pub struct ClientIdentity {
    certified: Arc<CertifiedKey>,
    key: TpmKey,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

impl ClientIdentity {
    /// Joins a credential with the TPM that holds its key. The certificate must be for that key.
    pub fn new(tpm: Tpm, credential: &Credential) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(credential.certificate_chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::Chain)?;
        if chain.is_empty() {
            return Err(TlsError::Chain);
        }
        let key = credential.key.to_credential_key()?;
        let spki = subject_public_key_info(key.public())?;
        let key = TpmKey { tpm, key, selection: credential.policy.selection(), spki };
        let certified = CertifiedKey::new(chain, Arc::new(key.clone()));
        certified.keys_match().map_err(|_| TlsError::KeyMismatch)?;
        Ok(Self { certified: Arc::new(certified), key })
    }

    /// Signs a message by ECDSA with SHA-256, in the TPM; gives r and s, 32 bytes each.
    pub(crate) async fn sign(&self, message: &[u8]) -> Result<[u8; 64], TpmError> {
        let TpmKey { tpm, key, selection, .. } = &self.key;
        tpm.sign(key, selection, &sha256(&[message])).await
    }

    /// The public key.
    pub(crate) fn public(&self) -> &Public {
        self.key.key.public()
    }

    /// For a rustls server or client configuration of a service in the same process.
    #[must_use]
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

/// TLS 1.3 without a client certificate.
pub fn client_config(trust_anchors: Arc<RootCertStore>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(trust_anchors)
        .with_no_client_auth();
    Ok(hardened(config))
}

/// TLS 1.3 with a client certificate whose key is in the TPM: a new TPM signature for each connection.
///
/// The handshake blocks while the TPM signs: use it on a multi-thread runtime, where other tasks go on meanwhile.
pub fn client_config_with_tpm_identity(
    trust_anchors: Arc<RootCertStore>,
    identity: ClientIdentity,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(trust_anchors)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    Ok(hardened(config))
}

fn hardened(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// A key that signs only inside the TPM.
#[derive(Clone)]
struct TpmKey {
    tpm: Tpm,
    key: CredentialKeyBlob,
    selection: PcrSelection,
    spki: Vec<u8>,
}

impl fmt::Debug for TpmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TpmKey").field(&self.key).finish()
    }
}

impl SigningKey for TpmKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer: Box<dyn Signer> = Box::new(self.clone());
        offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then_some(signer)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki.as_slice()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TpmKey {
    /// rustls calls this from within a poll. A failure of the TPM comes out of the handshake as
    /// [`rustls::Error::Other`] with the [`TpmError`] in it.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let digest = sha256(&[message]);
        let sign = || self.tpm.sign_blocking(&self.key, &self.selection, &digest);
        let multi_thread =
            Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
        let signed = if multi_thread { tokio::task::block_in_place(sign) } else { sign() };
        let signature = Signature::from_slice(&signed.map_err(other)?)
            .map_err(|_| rustls::Error::General("the TPM gave no ECDSA signature on P-256".to_owned()))?;
        Ok(signature.to_der().as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::Error::Other(OtherError(Arc::new(error)))
}
