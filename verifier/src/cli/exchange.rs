//! References in files: exported with a signature, imported by one. The private key stays with the command line.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use clap::{Args, ValueEnum};
use data_encoding::BASE64;
use p256::SecretKey;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use rootbound_common::blob::Blob;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use signature::Signer;
use zeroize::Zeroizing;

use super::files::{self, FileError};
use super::sets::OfKind;
use super::verbs::{Reason, duration, versioned};
use crate::config::write_atomically;
use crate::http::admin::message::Command;
use crate::http::admin::sets::SetCommand;
use crate::node::Name;
use crate::reference::corim;
use crate::reference::exchange::{Document, DocumentSignature, SignatureAlgorithm, canonical, key_id};

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
    /// With the deny list, which an import adds to the one that is there; JSON only
    #[arg(long)]
    deny: bool,
    /// Sign with this private key: P-256 or Ed25519, unencrypted PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Write the signature into a file of its own: of JSON only, a CoRIM has it in it
    #[arg(long, value_name = "FILE", requires = "key")]
    signature: Option<PathBuf>,
    /// The form of the file. What a CoRIM has no place for is refused
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// How long the signature of a CoRIM holds, as `30d`; without this for ever
    #[arg(long, value_name = "DURATION", requires = "key", value_parser = duration)]
    valid_for: Option<Duration>,
    /// The file; standard output without it
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// In which form sets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON document of our own, with all that is known of a set
    Json,
    /// A CoRIM (draft-ietf-rats-corim), signed as COSE_Sign1
    Corim,
}

/// Write what a file has as the next versions of its sets, all of them or none
#[derive(Debug, Args)]
pub(super) struct Import {
    /// What `export` wrote, or a CoRIM of somebody else
    file: PathBuf,
    /// The file of the signature, where it is not in the document's
    #[arg(long, value_name = "FILE", conflicts_with = "unsigned")]
    signature: Option<PathBuf>,
    /// Look at no signature: whoever could change the file says what machines may run. The audit trail says so
    #[arg(long)]
    unsigned: bool,
    /// Take it although it is older than what was imported from there. The audit trail says so
    #[arg(long)]
    older: bool,
    /// What the set of a CoRIM that has one is to be called, instead of what it is called there
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    #[command(flatten)]
    reason: Reason,
}

impl Export {
    pub(super) fn command(&self) -> Command {
        let sets = self.sets.iter().map(|set| self.kind.which(set.clone())).collect();
        Command::Sets(SetCommand::Export { sets, deny: self.deny })
    }

    /// Signs a document, and writes it down.
    pub(super) fn write(&self, document: &Value) -> Result<(), FileError> {
        match self.format {
            Format::Json => self.write_json(document),
            Format::Corim => self.write_corim(document),
        }
    }

    fn write_json(&self, document: &Value) -> Result<(), FileError> {
        if self.valid_for.is_some() {
            return Err(FileError::Options("--valid-for is of a CoRIM's signature: --format corim"));
        }
        let signature = match &self.key {
            Some(path) => {
                let bytes = canonical(document).map_err(|error| files::malformed(path, error.to_string()))?;
                let key = PrivateKey::read(path)?;
                let value = BASE64.encode(&key.sign(&bytes));
                Some(DocumentSignature { key: key.id, algorithm: key.algorithm, value })
            }
            None => None,
        };
        let text = match (&self.signature, signature) {
            (Some(path), Some(signature)) => {
                put(path, format!("{:#}\n", json!(signature)).as_bytes())?;
                format!("{document:#}\n")
            }
            (None, Some(signature)) => {
                format!("{:#}\n", json!({ REFERENCES: document, SIGNATURE: signature }))
            }
            (_, None) => format!("{document:#}\n"),
        };
        self.put(text.as_bytes())
    }

    fn write_corim(&self, document: &Value) -> Result<(), FileError> {
        if self.signature.is_some() {
            return Err(FileError::Options("--signature: a CoRIM has its signature in it"));
        }
        let document: Document = serde_json::from_value(document.clone())
            .map_err(|error| files::malformed(Path::new("-"), error.to_string()))?;
        let corim::Written { corim, left_out } = corim::write(&document)?;
        let file = match &self.key {
            Some(path) => {
                let key = PrivateKey::read(path)?;
                let at = document.exported_at;
                let until = self.valid_for.map(|lasts| at.plus(lasts));
                let from = (&document.trust_domain, at);
                let to_sign = corim::ToSign::new(corim, key.algorithm, &key.id, from, until);
                to_sign.signed(&key.sign(&to_sign.bytes()))
            }
            None => corim,
        };
        self.put(&file)?;
        for what in left_out {
            eprintln!("not in the CoRIM, which has no place for it: {what}");
        }
        Ok(())
    }

    fn put(&self, bytes: &[u8]) -> Result<(), FileError> {
        match &self.to {
            Some(path) => put(path, bytes),
            None => {
                let mut stdout = std::io::stdout().lock();
                let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
                written.map_err(|source| FileError::Unwritable { path: PathBuf::from("-"), source })
            }
        }
    }
}

impl Import {
    pub(super) fn command(self) -> Result<Command, FileError> {
        let Self { file, signature, unsigned, older, name, reason } = self;
        let bytes = files::read_bytes(&file, MAX_DOCUMENT)?;
        if corim::is_corim(&bytes) {
            if signature.is_some() {
                return Err(FileError::Options("--signature: a CoRIM has its signature in it"));
            }
            let corim = Blob::new(bytes).ok_or(FileError::TooLong { path: file })?;
            let reason = reason.reason;
            return Ok(Command::Sets(SetCommand::ImportCorim { corim, name, unsigned, older, reason }));
        }
        if name.is_some() {
            return Err(FileError::Options("--name is for a CoRIM: other documents name their sets"));
        }
        let mut document: Value = json(&file, &bytes)?;
        let mut enclosed = None;
        if let Some(references) = document.get_mut(REFERENCES).map(Value::take) {
            let found = document.get_mut(SIGNATURE).map(Value::take);
            enclosed = found.map(|found| signature_of(&file, found)).transpose()?;
            document = references;
        }
        let detached = match &signature {
            Some(path) => Some(signature_of(path, json(path, &files::read_bytes(path, SMALL)?)?)?),
            None => None,
        };
        let signature = detached.or(enclosed);
        Ok(Command::Sets(SetCommand::Import { document, signature, unsigned, older, reason: reason.reason }))
    }
}

fn json(path: &Path, bytes: &[u8]) -> Result<Value, FileError> {
    serde_json::from_slice(bytes).map_err(|error| files::malformed(path, error.to_string()))
}

fn signature_of(path: &Path, value: Value) -> Result<DocumentSignature, FileError> {
    serde_json::from_value(value).map_err(|error| files::malformed(path, format!("the signature: {error}")))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let written = write_atomically(path, bytes);
    written.map_err(|source| FileError::Unwritable { path: path.to_owned(), source })
}

/// A key that signs.
struct PrivateKey {
    algorithm: SignatureAlgorithm,
    id: String,
    pair: KeyPair,
}

enum KeyPair {
    Es256(Box<SigningKey>),
    EdDsa(Ed25519KeyPair),
}

impl PrivateKey {
    fn read(path: &Path) -> Result<Self, FileError> {
        let unusable =
            || files::malformed(path, "no private key of P-256 or Ed25519, unencrypted PEM".to_owned());
        let pem = Zeroizing::new(files::read_bytes(path, SMALL)?);
        let text = std::str::from_utf8(&pem).map_err(|_| unusable())?;
        if let Ok(secret) = SecretKey::from_pem(text) {
            let public = secret.public_key().to_public_key_der().map_err(|_| unusable())?;
            let pair = KeyPair::Es256(Box::new(SigningKey::from(secret)));
            return Ok(Self { algorithm: SignatureAlgorithm::Es256, id: key_id(public.as_bytes()), pair });
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| unusable())?;
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| unusable())?;
        let id = key_id(&[ED25519_SPKI, pair.public_key().as_ref()].concat());
        Ok(Self { algorithm: SignatureAlgorithm::EdDsa, id, pair: KeyPair::EdDsa(pair) })
    }

    /// Of ECDSA r and s.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            KeyPair::Es256(key) => {
                let signature: Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            KeyPair::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// What stands before the 32 bytes of a key in its SubjectPublicKeyInfo (RFC 8410, 4).
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
