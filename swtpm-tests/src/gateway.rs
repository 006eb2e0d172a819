//! A relying party: a service that asks about nodes, by a certificate of a CA of its own.

use std::sync::Arc;
use std::time::Duration;

use rootbound_common::clock::{Clock, SystemClock};
use rootbound_common::random;
use rootbound_verifier::credential::authority::Authority;
use rootbound_verifier::node::Labels;
use rootbound_verifier::relying_party::RelyingPartySection;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;

/// The name in its certificate.
const NAME: &str = "gateway.partner.example";

/// A relying party with its CA and its certificate.
pub struct Gateway {
    folder: TempDir,
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self::new()
    }
}

impl Gateway {
    /// A CA, and a certificate for some hours.
    ///
    /// # Panics
    /// Where there is no room for a folder.
    #[must_use]
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let (now, hour) = (SystemClock.now(), Duration::from_secs(3600));
        let domain = "partner.example".parse().expect("a trust domain");
        let authority = Authority::generate(domain, now.minus(hour), hour * 1000, &mut random::system());
        let authority = authority.expect("a CA");
        std::fs::write(folder.path().join("ca.pem"), authority.trust_bundle_pem()).expect("a file");
        let name = ServerName::try_from(NAME).expect("a DNS name");
        let leaf = authority.issue_serving(&[name], now, now.plus(hour * 12), &mut random::system());
        let leaf = leaf.expect("a certificate");
        Self { folder, chain: leaf.chain, key: leaf.key }
    }

    /// As the configuration of a verifier has it: it may read of nodes with these labels.
    ///
    /// # Panics
    /// Where a name or a label is none.
    #[must_use]
    pub fn section(&self, name: &str, labels: &[(&str, &str)]) -> RelyingPartySection {
        let mut match_labels = Labels::default();
        for (key, value) in labels {
            let value = Some(value.parse().expect("a value"));
            match_labels.set(key.parse().expect("a label"), value).expect("few labels");
        }
        RelyingPartySection {
            name: name.parse().expect("a name"),
            ca: Some(self.folder.path().join("ca.pem")),
            may_signal: Vec::new(),
            audiences: Vec::new(),
            token_sha256: Vec::new(),
            accepted_names: vec![NAME.to_owned().try_into().expect("a DNS name")],
            match_labels,
        }
    }

    /// Its chain, leaf first, and its key as PKCS#8, in DER: for programs that speak as this relying party.
    #[must_use]
    pub fn certificate(&self) -> (&[CertificateDer<'static>], &[u8]) {
        (&self.chain, self.key.secret_pkcs8_der())
    }

    /// How it connects to a verifier with this trust bundle.
    ///
    /// # Panics
    /// Where rustls has no use for its key.
    #[must_use]
    pub fn tls(&self, trust_anchors: Arc<RootCertStore>) -> ClientConfig {
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(trust_anchors)
            .with_client_auth_cert(self.chain.clone(), key)
            .expect("its own key")
    }
}
