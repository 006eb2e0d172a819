//! References in files: exported with a signature, imported by one. The private key stays with the command line.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use clap::Args;
use data_encoding::BASE64;
use p256::SecretKey;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use signature::Signer;
use zeroize::Zeroizing;

use super::files::{self, FileError};
use super::sets::OfKind;
use super::verbs::{Reason, versioned};
use crate::config::write_atomically;
use crate::http::admin::message::Command;
use crate::http::admin::sets::SetCommand;
use crate::node::Name;
use crate::reference::exchange::{DocumentSignature, SignatureAlgorithm, canonical, key_id};

/// Bytes of a document: what the administrative socket takes at once, with room for the command around it.
const MAX_DOCUMENT: usize = 120 << 20;
/// Bytes of a key or a signature: far more than any.
const SMALL: usize = 64 << 10;
/// The members of a document with its signature.
const REFERENCES: &str = "references";
const SIGNATURE: &str = "signature";

/// Write sets into a file, for another verifier
#[derive(Debug, Args)]
pub(super) struct Export {
    /// NAME or NAME@VERSION; without any, the current version of every set
    #[arg(value_parser = versioned)]
    sets: Vec<(Name, Option<u32>)>,
    #[command(flatten)]
    kind: OfKind,
    /// Sign with this private key: P-256 or Ed25519, unencrypted PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Write the signature into a file of its own
    #[arg(long, value_name = "FILE", requires = "key")]
    signature: Option<PathBuf>,
    /// The file; standard output without it
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Write what a file has as the next versions of its sets, all of them or none
#[derive(Debug, Args)]
pub(super) struct Import {
    /// What `export` wrote
    file: PathBuf,
    /// The file of the signature, where it is not in the document's
    #[arg(long, value_name = "FILE", conflicts_with = "unsigned")]
    signature: Option<PathBuf>,
    /// Look at no signature: whoever could change the file says what machines may run. The audit trail says so
    #[arg(long)]
    unsigned: bool,
    #[command(flatten)]
    reason: Reason,
}

impl Export {
    pub(super) fn command(&self) -> Command {
        let sets = self.sets.iter().map(|set| self.kind.which(set.clone())).collect();
        Command::Sets(SetCommand::Export { sets })
    }

    /// Signs a document, and writes it down.
    pub(super) fn write(&self, document: &Value) -> Result<(), FileError> {
        let signature = match &self.key {
            Some(path) => Some(sign(path, document)?),
            None => None,
        };
        let text = match (&self.signature, signature) {
            (Some(path), Some(signature)) => {
                put(path, &format!("{:#}\n", json!(signature)))?;
                format!("{document:#}\n")
            }
            (None, Some(signature)) => {
                format!("{:#}\n", json!({ REFERENCES: document, SIGNATURE: signature }))
            }
            (_, None) => format!("{document:#}\n"),
        };
        match &self.to {
            Some(path) => put(path, &text),
            None => {
                let mut stdout = std::io::stdout().lock();
                let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
                written.map_err(|source| FileError::Unwritable { path: PathBuf::from("-"), source })
            }
        }
    }
}

impl Import {
    pub(super) fn command(self) -> Result<Command, FileError> {
        let Self { file, signature, unsigned, reason } = self;
        let mut document: Value = json_of(&file, MAX_DOCUMENT)?;
        let mut enclosed = None;
        if let Some(references) = document.get_mut(REFERENCES).map(Value::take) {
            let found = document.get_mut(SIGNATURE).map(Value::take);
            enclosed = found.map(|found| signature_of(&file, found)).transpose()?;
            document = references;
        }
        let detached = match &signature {
            Some(path) => Some(signature_of(path, json_of(path, SMALL)?)?),
            None => None,
        };
        let signature = detached.or(enclosed);
        Ok(Command::Sets(SetCommand::Import { document, signature, unsigned, reason: reason.reason }))
    }
}

fn json_of(path: &Path, max: usize) -> Result<Value, FileError> {
    let bytes = files::read_bytes(path, max)?;
    serde_json::from_slice(&bytes).map_err(|error| files::malformed(path, error.to_string()))
}

fn signature_of(path: &Path, value: Value) -> Result<DocumentSignature, FileError> {
    serde_json::from_value(value).map_err(|error| files::malformed(path, format!("the signature: {error}")))
}

fn put(path: &Path, text: &str) -> Result<(), FileError> {
    let written = write_atomically(path, text.as_bytes());
    written.map_err(|source| FileError::Unwritable { path: path.to_owned(), source })
}

fn sign(path: &Path, document: &Value) -> Result<DocumentSignature, FileError> {
    let unusable =
        || files::malformed(path, "no private key of P-256 or Ed25519, unencrypted PEM".to_owned());
    let bytes = canonical(document).map_err(|error| files::malformed(path, error.to_string()))?;
    let pem = Zeroizing::new(files::read_bytes(path, SMALL)?);
    let text = std::str::from_utf8(&pem).map_err(|_| unusable())?;
    let (algorithm, key, value) = if let Ok(secret) = SecretKey::from_pem(text) {
        let public = secret.public_key().to_public_key_der().map_err(|_| unusable())?;
        let signature: Signature = SigningKey::from(secret).sign(&bytes);
        (SignatureAlgorithm::Es256, key_id(public.as_bytes()), BASE64.encode(&signature.to_bytes()))
    } else {
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| unusable())?;
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| unusable())?;
        let spki = [ED25519_SPKI, pair.public_key().as_ref()].concat();
        (SignatureAlgorithm::EdDsa, key_id(&spki), BASE64.encode(pair.sign(&bytes).as_ref()))
    };
    Ok(DocumentSignature { key, algorithm, value })
}

/// What stands before the 32 bytes of a key in its SubjectPublicKeyInfo (RFC 8410, 4).
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
