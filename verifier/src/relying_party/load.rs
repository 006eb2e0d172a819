//! Relying parties out of the configuration, and their CAs out of files.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use der::Decode;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use serde::Deserialize;
use webpki::anchor_from_trusted_cert;
use x509_cert::Certificate;
use x509_cert::ext::pkix::BasicConstraints;

use super::token::TokenHash;
use super::{AcceptedName, MaySignal, RelyingParties, RelyingParty, Who};
use crate::node::{Labels, Name};
use crate::token::Audience;

/// Five RSA-4096 certificates with remarks stay below.
const MAX_FILE: u64 = 64 * 1024;

/// One section `[[relying_party]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelyingPartySection {
    /// What it is called in logs.
    pub name: Name,
    /// The CA certificates that vouch for it, PEM; `None` where it has a token alone.
    pub ca: Option<PathBuf>,
    /// The names of which its certificate has one.
    #[serde(default)]
    pub accepted_names: Vec<AcceptedName>,
    /// The labels that a node has whose results it may read; an empty table is every node, and has to be written.
    pub match_labels: Labels,
    /// What it may say against such a node by `POST /v1/signals`: nothing without this. What it said it may take back.
    #[serde(default)]
    pub may_signal: Vec<MaySignal>,
    /// The audiences of tokens that are for it, besides its name: `https://api.example.org`.
    #[serde(default)]
    pub audiences: Vec<Audience>,
    /// SHA-256 of each token by which it is known without a certificate; a second one while they change.
    #[serde(default)]
    pub token_sha256: Vec<TokenHash>,
}

impl RelyingPartySection {
    /// Each is tried in turn at each request of a relying party.
    const MOST: usize = 64;
    const MOST_NAMES: usize = 64;
    /// The one in use, the next, and some for who has several instances.
    const MOST_TOKENS: usize = 4;
    /// A gateway has some services behind it.
    const MOST_AUDIENCES: usize = 64;

    /// Refuses sections that let nobody in, or of which one hides another. Returns what is wrong.
    pub fn check(sections: &[Self]) -> Result<(), String> {
        if sections.len() > Self::MOST {
            return Err(format!("there are at most {} of them", Self::MOST));
        }
        let (mut names, mut tokens) = (HashSet::new(), HashSet::new());
        for section in sections {
            if !names.insert(&section.name) {
                return Err(format!("two are called `{}`", section.name));
            }
            let count = section.accepted_names.len();
            match &section.ca {
                Some(_) if !(1..=Self::MOST_NAMES).contains(&count) => {
                    return Err(format!("`{}`: 1 to {} accepted_names", section.name, Self::MOST_NAMES));
                }
                None if count > 0 => {
                    return Err(format!("`{}`: accepted_names without a ca", section.name));
                }
                None if section.token_sha256.is_empty() => {
                    return Err(format!(
                        "`{}`: a ca with accepted_names, token_sha256, or both",
                        section.name
                    ));
                }
                Some(_) | None => {}
            }
            if section.audiences.len() > Self::MOST_AUDIENCES {
                return Err(format!("`{}`: at most {} audiences", section.name, Self::MOST_AUDIENCES));
            }
            if section.token_sha256.len() > Self::MOST_TOKENS {
                return Err(format!("`{}`: at most {} token_sha256", section.name, Self::MOST_TOKENS));
            }
            if section.token_sha256.iter().any(|token| !tokens.insert(token)) {
                return Err(format!("`{}`: a token_sha256 that is there already", section.name));
            }
        }
        Ok(())
    }
}

/// Why the CA of a relying party cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Longer than any honest one.
    #[error("{} is larger than {MAX_FILE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It holds no certificate, or something else.
    #[error("{} holds no PEM certificate, or a malformed one", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in it is no CA's.
    #[error("{}: certificate {position} is not a CA certificate", path.display())]
    NotACa {
        /// The file.
        path: PathBuf,
        /// Its position, from 1.
        position: usize,
    },
    /// Our own CA. Whom it vouches for is a node.
    #[error("{} holds the verifier's own CA: a relying party has a certificate of another", path.display())]
    OwnAuthority {
        /// The file.
        path: PathBuf,
    },
}

impl RelyingParties {
    /// Reads the CAs of what is configured. `own` is the certificate of our issuing CA.
    pub fn load(
        sections: &[RelyingPartySection],
        own: Option<&CertificateDer<'_>>,
    ) -> Result<Self, LoadError> {
        sections.iter().map(|section| load(section, own)).collect::<Result<_, _>>().map(Self)
    }
}

fn load(section: &RelyingPartySection, own: Option<&CertificateDer<'_>>) -> Result<RelyingParty, LoadError> {
    let certificates = section.ca.as_deref().map(|path| authorities(path, own)).transpose()?;
    let (certificates, anchors) = certificates.unwrap_or_default();
    Ok(RelyingParty {
        who: Arc::new(Who {
            name: section.name.clone(),
            may_read: section.match_labels.clone(),
            may_signal: section.may_signal.iter().copied().collect(),
            audiences: section.audiences.iter().cloned().collect(),
        }),
        certificates,
        anchors,
        accepted_names: section.accepted_names.clone(),
        tokens: section.token_sha256.clone(),
    })
}

/// The CA certificates in a file, twice: as they are, and as what vouches.
type Authorities = (Vec<CertificateDer<'static>>, Vec<TrustAnchor<'static>>);

fn authorities(path: &Path, own: Option<&CertificateDer<'_>>) -> Result<Authorities, LoadError> {
    let malformed = || LoadError::Malformed { path: path.to_owned() };
    let text = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.ok().filter(|found| !found.is_empty()).ok_or_else(malformed)?;
    for (index, certificate) in certificates.iter().enumerate() {
        let parsed = Certificate::from_der(certificate).map_err(|_| malformed())?;
        let constraints = parsed.tbs_certificate().get_extension::<BasicConstraints>();
        if !constraints.map_err(|_| malformed())?.is_some_and(|(_, constraints)| constraints.ca) {
            return Err(LoadError::NotACa { path: path.to_owned(), position: index + 1 });
        }
        if own == Some(certificate) {
            return Err(LoadError::OwnAuthority { path: path.to_owned() });
        }
    }
    let anchors = certificates
        .iter()
        .map(|certificate| anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned()))
        .collect::<Result<_, _>>()
        .map_err(|_| malformed())?;
    Ok((certificates, anchors))
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Io { path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text)).map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= MAX_FILE) {
        Ok(text)
    } else {
        Err(LoadError::TooLarge { path: path.to_owned() })
    }
}
