//! TLS 1.3 with aws-lc-rs, client certificates optional, no resumption.
//!
//! A resumed session would skip the client's signature, and with it the TPM's refusal to sign after another boot: there
//! are no tickets and no session store, so that each connection is proved anew. Certificates are judged by the verifier's
//! clock. Clients are trusted for certificates that *our* CA signed: where that is an intermediate under an operator's
//! root, other branches below that root count for nothing here. Where relying parties are configured, certificates of
//! their CAs pass the handshake, too; `client` tells the two apart.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rootbound_common::clock::Timestamp;
use rootbound_common::random;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::Deserialize;

use super::client::Vouchers;
use crate::credential::issue::IssueError;
use crate::flows::Verifier;

/// The DNS names and addresses by which clients know the verifier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct ServingNames(Vec<ServerName<'static>>);

/// With what the verifier serves TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsIdentity {
    /// A certificate of its own CA, minted at the start and again before it expires.
    Minted(ServingNames),
    /// The operator's, from two PEM files.
    Files {
        /// The certificate chain, leaf first.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

/// Why there is nothing to serve TLS with.
#[derive(Debug, thiserror::Error)]
pub enum TlsIdentityError {
    /// Not a name.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Name(String),
    /// Our own CA signs none.
    #[error("the CA cannot issue a serving certificate: {0}")]
    Issue(#[from] IssueError),
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: rustls_pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key does not fit, or is of a kind that TLS 1.3 has no use for.
    #[error("the serving certificate and its key: {0}")]
    Key(rustls::Error),
    /// The CA cannot be a trust anchor for client certificates.
    #[error("the CA cannot vouch for client certificates: {0}")]
    ClientAnchor(String),
}

impl ServingNames {
    /// Each a DNS name or an IP address.
    pub fn parse<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Result<Self, TlsIdentityError> {
        let parse = |name: T| {
            let name = name.as_ref();
            ServerName::try_from(name).map(|name| name.to_owned()).map_err(|_| {
                TlsIdentityError::Name(name.chars().filter(|character| !character.is_control()).collect())
            })
        };
        Ok(Self(names.into_iter().map(parse).collect::<Result<_, _>>()?))
    }
}

impl TryFrom<Vec<String>> for ServingNames {
    type Error = TlsIdentityError;

    fn try_from(names: Vec<String>) -> Result<Self, TlsIdentityError> {
        Self::parse(names)
    }
}

/// `localhost` and its addresses.
impl Default for ServingNames {
    fn default() -> Self {
        let local = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        let mut names: Vec<_> = local.into_iter().map(ServerName::from).collect();
        names.extend(ServerName::try_from("localhost"));
        Self(names)
    }
}

/// The TLS configuration of the listener, and how to tell the certificates apart that it accepts.
pub(super) fn server_config(
    verifier: &Arc<Verifier>,
    serving: Arc<Serving>,
) -> Result<(ServerConfig, Vouchers), TlsIdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anchor = |error: &dyn std::fmt::Display| TlsIdentityError::ClientAnchor(error.to_string());
    let mut anchors = RootCertStore::empty();
    let issuing = verifier.authority().chain().first().ok_or_else(|| anchor(&"it has no certificate"))?;
    anchors.add(issuing.clone()).map_err(|error| anchor(&error))?;
    let parties = verifier.relying_parties();
    for authority in parties.authorities() {
        anchors.add(authority.clone()).map_err(|error| anchor(&error))?;
    }
    let vouchers = if parties.is_empty() {
        Vouchers::OursAlone
    } else {
        let ours = webpki::anchor_from_trusted_cert(issuing).map_err(|error| anchor(&error))?;
        Vouchers::OursAmongOthers(ours.to_owned())
    };
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| anchor(&error))?;
    let time = Arc::new(VerifierTime(Arc::clone(verifier)));
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsIdentityError::Key)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(serving);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![ALPN_HTTP_2.to_vec(), b"http/1.1".to_vec()];
    Ok((config, vouchers))
}

/// HTTP/2 in ALPN.
pub(super) const ALPN_HTTP_2: &[u8] = b"h2";

/// The verifier's clock, for TLS.
#[derive(Debug)]
struct VerifierTime(Arc<Verifier>);

impl TimeProvider for VerifierTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// The certificate that is served now, and where the next comes from.
pub(super) struct Serving {
    current: ArcSwap<CertifiedKey>,
    source: Source,
    provider: Arc<CryptoProvider>,
}

enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    Minted(Mint),
}

impl Serving {
    pub(super) fn new(verifier: &Arc<Verifier>, identity: &TlsIdentity) -> Result<Self, TlsIdentityError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (first, source) = match identity {
            TlsIdentity::Files { certificate, key } => {
                let (certificate, key) = (certificate.clone(), key.clone());
                (read(&certificate, &key, &provider)?, Source::Files { certificate, key })
            }
            TlsIdentity::Minted(names) => {
                let (first, due) = mint(verifier, names, &provider)?;
                let (verifier, names, due) = (Arc::clone(verifier), names.clone(), Mutex::new(due));
                (first, Source::Minted(Mint { verifier, names, due }))
            }
        };
        Ok(Self { current: ArcSwap::from_pointee(first), source, provider })
    }

    /// Reads the operator's files again; where that fails, the current certificate serves on.
    pub(super) fn reload(&self) -> Result<(), TlsIdentityError> {
        match &self.source {
            Source::Files { certificate, key } => {
                self.current.store(Arc::new(read(certificate, key, &self.provider)?));
                Ok(())
            }
            Source::Minted(_) => Ok(()),
        }
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match &self.source {
            Source::Files { .. } => {}
            Source::Minted(mint) => mint.renew_if_due(&self.current, &self.provider),
        }
        Some(self.current.load_full())
    }
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsIdentityError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| TlsIdentityError::Unreadable { path, error }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(certificate))?;
    if chain.is_empty() {
        return Err(TlsIdentityError::NoCertificate { path: certificate.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    CertifiedKey::from_der(chain, key, provider).map_err(TlsIdentityError::Key)
}

/// Certificates of our own CA. The handshake that finds one half through its life mints the next; a mint that fails is
/// tried again a minute later, and the current one serves as long as it lasts.
struct Mint {
    verifier: Arc<Verifier>,
    names: ServingNames,
    due: Mutex<Timestamp>,
}

/// Life of a minted certificate: the daemon may be down for a while, and clients may have slow clocks.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const RETRY: Duration = Duration::from_secs(60);

impl Mint {
    fn renew_if_due(&self, current: &ArcSwap<CertifiedKey>, provider: &CryptoProvider) {
        let now = self.verifier.now();
        // Held while minting, which takes less than a handshake: others go on with the current certificate.
        let mut due = match self.due.try_lock() {
            Ok(due) => due,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if now < *due {
            return;
        }
        match mint(&self.verifier, &self.names, provider) {
            Ok((next, next_due)) => {
                current.store(Arc::new(next));
                *due = next_due;
                tracing::info!("serving certificate renewed");
            }
            Err(error) => {
                *due = now.plus(RETRY);
                tracing::error!(%error, "could not renew the serving certificate; it is tried again in a minute");
            }
        }
    }
}

/// Mints a certificate; returns when the next is due.
fn mint(
    verifier: &Verifier,
    names: &ServingNames,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Timestamp), TlsIdentityError> {
    let now = verifier.now();
    let serving =
        verifier.authority().issue_serving(&names.0, now, now.plus(LIFETIME), &mut random::system())?;
    let due = now.plus((serving.not_after.since(now) / 2).max(RETRY));
    let certified = CertifiedKey::from_der(serving.chain, serving.key.into(), provider);
    Ok((certified.map_err(TlsIdentityError::Key)?, due))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_names_or_addresses() {
        assert!(
            ServingNames::parse(["localhost", "verifier.example.org", "192.0.2.1", "2001:db8::1"]).is_ok()
        );
        for bad in ["", "a b", "https://a", "a:443", "a\n"] {
            assert!(matches!(ServingNames::parse([bad]), Err(TlsIdentityError::Name(_))), "{bad:?}");
        }
        assert_eq!(ServingNames::default().0.len(), 3);
    }
}
