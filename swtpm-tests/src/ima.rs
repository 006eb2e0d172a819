//! Lists of IMA as a kernel would have them, of any length, with the PCR value that they come to.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rootbound_common::crypto::{Digest, hash, sha256};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};

/// SHA-256 boot PCRs 0 to 9, over which the lists' boot_aggregate is.
///
/// # Panics
/// Never: the numbers are those of PCRs.
#[must_use]
pub fn boot_pcrs() -> PcrValues {
    let mut pcrs = PcrValues::default();
    for index in 0..10 {
        let pcr = PcrIndex::new(index).expect("a PCR number");
        pcrs.insert(pcr, hash(HashAlgorithm::Sha256, &[&[index]]));
    }
    pcrs
}

/// A key that signs files.
pub enum FileSigner {
    /// RSA-2048, PKCS#1 v1.5.
    Rsa(RsaKeyPair),
    /// ECDSA on P-256.
    P256(EcdsaKeyPair),
}

impl FileSigner {
    /// A new RSA key.
    ///
    /// # Panics
    /// Where none can be made.
    #[must_use]
    pub fn rsa2048() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }

    /// A new P-256 key.
    ///
    /// # Panics
    /// Where none can be made.
    #[must_use]
    pub fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key"))
    }

    /// SubjectPublicKeyInfo.
    ///
    /// # Panics
    /// Where the library gives none.
    #[must_use]
    pub fn info(&self) -> Vec<u8> {
        let der = match self {
            Self::Rsa(key) => key.public_key().as_der(),
            Self::P256(key) => key.public_key().as_der(),
        };
        der.expect("a key").as_ref().to_vec()
    }

    /// The same, in PEM.
    ///
    /// # Panics
    /// Where it cannot be written.
    #[must_use]
    pub fn pem(&self) -> String {
        der::pem::encode_string("PUBLIC KEY", der::pem::LineEnding::LF, &self.info()).expect("PEM")
    }

    /// The signature over a message.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("a signature");
                signature
            }
            Self::P256(key) => key.sign(&random, message).expect("a signature").as_ref().to_vec(),
        }
    }

    /// `security.ima`: a `signature_v2_hdr` with the signature over a file's content.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn xattr(&self, content: &[u8]) -> Vec<u8> {
        let key = match self {
            Self::Rsa(key) => key.public_key().as_ref(),
            Self::P256(key) => key.public_key().as_ref(),
        };
        let name = hash(HashAlgorithm::Sha1, &[key]);
        let signature = self.sign(content);
        let length = u16::try_from(signature.len()).expect("a short signature").to_be_bytes();
        [&[3, 2, 4][..], &name.as_bytes()[16..], &length, &signature].concat()
    }
}

/// What was signed, and the bare signature.
pub struct Signed {
    /// The content of the file.
    pub message: Vec<u8>,
    /// By the key.
    pub signature: Vec<u8>,
}

/// A binary list that begins with boot_aggregate.
pub struct ImaList {
    bytes: Vec<u8>,
    value: Digest,
    data: Vec<Vec<u8>>,
    files: Vec<(String, [u8; 32])>,
    signed: Vec<Signed>,
}

impl ImaList {
    /// ima-ng entries of so many files, beside boot_aggregate.
    ///
    /// # Panics
    /// Never: fields are short.
    #[must_use]
    pub fn of_files(count: u32) -> Self {
        let mut list = Self::begin("ima-ng");
        for number in 0..count {
            let digest = sha256(&[&content(number)]);
            let path = path(number);
            list.add("ima-ng", &fields(&digest, &path));
            list.files.push((path, digest));
        }
        list
    }

    /// ima-sig entries of so many files, each signed.
    ///
    /// # Panics
    /// Where a file cannot be signed.
    #[must_use]
    pub fn of_signed_files(count: u32, signer: &FileSigner) -> Self {
        let mut list = Self::begin("ima-sig");
        for number in 0..count {
            // Of no set: paths and contents that `of_files` does not have.
            let message = [&content(number)[..], b"signed"].concat();
            let xattr = signer.xattr(&message);
            let fields = fields(&sha256(&[&message]), &format!("/opt{}", path(number)));
            list.add("ima-sig", &[fields, field(&xattr)].concat());
            list.signed.push(Signed { message, signature: xattr[9..].to_vec() });
        }
        list
    }

    fn begin(template: &str) -> Self {
        let value = Digest::zero(HashAlgorithm::Sha256);
        let mut list = Self { bytes: Vec::new(), value, data: vec![], files: vec![], signed: vec![] };
        let values: Vec<_> = (0..10).map(|index| sha256(&[&[index]])).collect();
        let fields = fields(&sha256(&[&values.concat()]), "boot_aggregate");
        list.add(template, &if template == "ima-sig" { [fields, field(&[])].concat() } else { fields });
        list
    }

    fn add(&mut self, template: &str, data: &[u8]) {
        self.bytes.extend(10u32.to_le_bytes());
        self.bytes.extend(hash(HashAlgorithm::Sha1, &[data]).as_bytes());
        self.bytes.extend(field(template.as_bytes()));
        self.bytes.extend(field(data));
        let hashed = sha256(&[data]);
        self.value = hash(HashAlgorithm::Sha256, &[self.value.as_bytes(), &hashed]);
        self.data.push(data.to_vec());
    }

    /// The list.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 PCR 10 after it.
    #[must_use]
    pub fn value(&self) -> Digest {
        self.value
    }

    /// Template data of each entry.
    #[must_use]
    pub fn data(&self) -> &[Vec<u8>] {
        &self.data
    }

    /// What is signed in it.
    #[must_use]
    pub fn signed(&self) -> &[Signed] {
        &self.signed
    }

    /// The text of a digest set that has each file.
    #[must_use]
    pub fn digest_set(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (path, digest) in &self.files {
            text.extend(b"sha256:");
            text.extend(data_encoding::HEXLOWER.encode(digest).as_bytes());
            text.extend(b"  ");
            text.extend(path.as_bytes());
            text.push(b'\n');
        }
        text
    }
}

fn content(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// As long as the middle one of a distribution.
fn path(number: u32) -> String {
    format!("/usr/lib/x86_64-linux-gnu/package{:04}/libfile{number:07}.so.1", number % 1000)
}

/// Fields `d-ng` and `n-ng`.
fn fields(digest: &[u8], path: &str) -> Vec<u8> {
    [field(&[b"sha256:\0", digest].concat()), field(&[path.as_bytes(), &[0]].concat())].concat()
}

fn field(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short field");
    [&length.to_le_bytes()[..], bytes].concat()
}
