//! Certificates of nodes whose keys a gateway has seen proved: no TLS of ours has verified them.

use std::sync::Arc;

use rootbound_common::clock::Timestamp;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::Verifier;
use super::enforce::EnforceRefusal;
use super::known::TextHash;
use crate::credential::presented::PresentedSvid;
use crate::relying_party::leads_to;

impl Verifier {
    /// Whom a certificate names.
    ///
    /// Established when this returns, in this order: our CA signed it for a client, and it is in date · it is an X.509-SVID. The
    /// signature is verified once for each certificate: the CA stays the same while the verifier runs.
    pub(super) fn vouched_svid(&self, der: &[u8], now: Timestamp) -> Result<PresentedSvid, EnforceRefusal> {
        let hash = TextHash::of(der);
        if let Some(known) = self.vouched.find(&hash) {
            return match is_in_date(&known, now) {
                true => Ok(PresentedSvid::clone(&known)),
                false => Err(EnforceRefusal::CertificateUntrusted),
            };
        }
        let untrusted = |_| EnforceRefusal::CertificateUntrusted;
        let issuing = self.authority.chain().first().ok_or(EnforceRefusal::CertificateUntrusted)?;
        let anchor = webpki::anchor_from_trusted_cert(issuing).map_err(untrusted)?;
        let leaf = CertificateDer::from(der);
        let leaf = EndEntityCert::try_from(&leaf).map_err(untrusted)?;
        leads_to(&leaf, &[], &[anchor], now).map_err(untrusted)?;
        let svid = PresentedSvid::parse(der, &self.trust_domain)?;
        self.vouched.add(hash, &Arc::new(svid.clone()));
        Ok(svid)
    }
}

/// In whole seconds, both included (RFC 5280, 4.1.2.5).
const fn is_in_date(svid: &PresentedSvid, now: Timestamp) -> bool {
    let now = now.as_seconds();
    svid.not_before.as_seconds() <= now && now <= svid.not_after.as_seconds()
}
