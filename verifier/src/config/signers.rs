//! Section `[references]`: whose documents of references are imported.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::Deserialize;

use crate::node::Name;
use crate::reference::exchange::{NotASigner, TrustedSigner};

/// Section `[references]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReferencesSection {
    /// Whose documents `reference import` takes; nobody's without this.
    pub trusted_signers: Vec<TrustedSignerSection>,
}

/// A signer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedSignerSection {
    /// What it is called in provenances and in the audit trail.
    pub name: Name,
    /// Its public key: P-256 or Ed25519, PEM.
    pub key: PathBuf,
}

/// Why a signer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Its file cannot be read.
    #[error("[references] trusted_signers: {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("[references] trusted_signers: {}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: NotASigner,
    },
}

impl ReferencesSection {
    /// Each is looked at for each import.
    const MOST: usize = 64;

    /// Refuses signers that could not be told apart. Returns what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.trusted_signers.len() > Self::MOST {
            return Err(format!("there are at most {} of them", Self::MOST));
        }
        let mut names = HashSet::new();
        match self.trusted_signers.iter().find(|signer| !names.insert(&signer.name)) {
            Some(twice) => Err(format!("two are called `{}`", twice.name)),
            None => Ok(()),
        }
    }

    /// Reads the keys.
    pub fn load(&self) -> Result<Vec<TrustedSigner>, SignerError> {
        let load = |section: &TrustedSignerSection| {
            let path = || section.key.clone();
            let pem = std::fs::read_to_string(&section.key)
                .map_err(|source| SignerError::Io { path: path(), source })?;
            TrustedSigner::from_pem(section.name.clone(), &pem)
                .map_err(|source| SignerError::Key { path: path(), source })
        };
        self.trusted_signers.iter().map(load).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> ReferencesSection {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn signers_have_names_of_their_own_and_keys_that_can_be_read() {
        let two =
            "trusted_signers = [{ name = \"a\", key = \"a.pem\" }, { name = \"NAME\", key = \"b.pem\" }]";
        assert_eq!(section(&two.replace("NAME", "b")).check(), Ok(()));
        assert!(section(&two.replace("NAME", "a")).check().is_err());
        assert!(toml::from_str::<ReferencesSection>("trusted_signers = [{ name = \"a\" }]").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let signers = ReferencesSection {
            trusted_signers: vec![TrustedSignerSection { name: "a".parse().unwrap(), key: path.clone() }],
        };
        assert!(matches!(signers.load(), Err(SignerError::Io { .. })));
        std::fs::write(&path, "no key").unwrap();
        assert!(matches!(signers.load(), Err(SignerError::Key { .. })));
    }
}
