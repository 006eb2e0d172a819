//! What a workload finds.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use der::{Decode, Encode};
use rootbound_common::clock::{Clock, SystemClock};
use rootbound_common::crypto::subject_public_key_info;
use rootbound_common::tpm::Public;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;

/// A delivered set that belongs together: the leaf certifies the public part of the key, the bundle leads to the leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// `svid.pem`.
    pub chain: String,
    /// TPMT_PUBLIC in `svid.key`.
    pub public: Vec<u8>,
    /// Content of TPM2B_PRIVATE in `svid.key`.
    pub private: Vec<u8>,
}

impl Delivered {
    /// Reads what is delivered now, if anything is.
    ///
    /// # Panics
    /// Where a file is missing, or does not belong to the others.
    #[must_use]
    pub fn read(deliveries: &Path) -> Option<Self> {
        let current = deliveries.join("current");
        if fs::symlink_metadata(&current).is_err() {
            return None;
        }
        // What `current` led to stays until the renewal after the next: whoever is that slow resolves it again.
        let [chain, key, bundle] = (0..3)
            .find_map(|_| match read(&current) {
                Ok(files) => Some(files),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => panic!("{}: {error}", current.display()),
            })
            .expect("a link that leads to three files");
        let (public, private) = key_parts(&key);
        verify(&chain, &bundle, &public);
        Some(Self { chain, public, private })
    }
}

fn read(current: &Path) -> io::Result<[String; 3]> {
    let folder = fs::canonicalize(current)?;
    let read = |name: &str| fs::read_to_string(folder.join(name));
    Ok([read("svid.pem")?, read("svid.key")?, read("bundle.pem")?])
}

/// The last two fields of TPMKey (draft-bottomley-tpm2-keys, 3.1): TPM2B_PUBLIC and TPM2B_PRIVATE.
fn key_parts(pem: &str) -> (Vec<u8>, Vec<u8>) {
    let (label, der) = der::pem::decode_vec(pem.as_bytes()).expect("PEM");
    assert_eq!(label, "TSS2 PRIVATE KEY");
    let fields = Vec::<der::Any>::from_der(&der).expect("a SEQUENCE");
    let [_, _, _, _, public, private] = fields.as_slice() else { panic!("{} fields", fields.len()) };
    let content = |field: &der::Any| field.value().get(2..).expect("a size, and what it is of").to_vec();
    (content(public), content(private))
}

fn verify(chain: &str, bundle: &str, public: &[u8]) {
    let certificates = |pem: &str| -> Vec<CertificateDer<'static>> {
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
        certificates.expect("PEM")
    };
    let (chain, bundle) = (certificates(chain), certificates(bundle));
    let [leaf, intermediates @ ..] = chain.as_slice() else { panic!("no certificate") };
    let anchors: Vec<_> =
        bundle.iter().map(|anchor| anchor_from_trusted_cert(anchor).expect("a trust anchor")).collect();
    let now = u64::try_from(SystemClock.now().as_seconds()).expect("a time after 1970");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    EndEntityCert::try_from(leaf)
        .and_then(|leaf| {
            let usage = KeyUsage::client_auth();
            leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                intermediates,
                now,
                usage,
                None,
                None,
            )
            .map(drop)
        })
        .expect("a certificate that the bundle leads to");
    let certified = Certificate::from_der(leaf).expect("a certificate");
    let certified = certified.tbs_certificate().subject_public_key_info().to_der().expect("DER");
    let key = subject_public_key_info(&Public::parse(public).expect("a public area")).expect("DER");
    assert_eq!(certified, key, "the certificate is for another key");
}
