//! Test material: public areas, certificates and CRLs to order.

pub(super) mod pki;

use p256::elliptic_curve::sec1::ToSec1Point;
use rootbound_common::tpm::put_sized;

/// A TPMT_PUBLIC to order.
#[derive(Clone)]
pub(super) struct PublicTemplate {
    kind: u16,
    name: u16,
    attributes: u32,
    symmetric: Vec<u8>,
    scheme: Vec<u8>,
    key: Vec<u8>,
    unique: Vec<u8>,
}

impl PublicTemplate {
    const NULL: [u8; 2] = [0x00, 0x10];

    fn new(kind: u16, key: Vec<u8>, unique: Vec<u8>) -> Self {
        let (symmetric, scheme) = (Self::NULL.to_vec(), Self::NULL.to_vec());
        Self { kind, name: 0x000b, attributes: 0, symmetric, scheme, key, unique }
    }

    pub(super) fn ecc(curve: u16, x: &[u8], y: &[u8]) -> Self {
        let mut unique = Vec::new();
        put_sized(&mut unique, x);
        put_sized(&mut unique, y);
        Self::new(0x0023, [curve.to_be_bytes(), Self::NULL].concat(), unique)
    }

    pub(super) fn rsa(modulus: &[u8]) -> Self {
        let bits = u16::try_from(modulus.len() * 8).unwrap();
        let mut unique = Vec::new();
        put_sized(&mut unique, modulus);
        Self::new(0x0001, [&bits.to_be_bytes()[..], &[0; 4]].concat(), unique)
    }

    pub(super) fn attributes(mut self, attributes: u32) -> Self {
        self.attributes = attributes;
        self
    }

    pub(super) fn name(mut self, algorithm: u16) -> Self {
        self.name = algorithm;
        self
    }

    pub(super) fn scheme(mut self, scheme: u16, hash: u16) -> Self {
        self.scheme = [scheme.to_be_bytes(), hash.to_be_bytes()].concat();
        self
    }

    pub(super) fn no_scheme(mut self) -> Self {
        self.scheme = Self::NULL.to_vec();
        self
    }

    pub(super) fn symmetric(mut self, aes_bits: u16) -> Self {
        self.symmetric = [[0x00, 0x06], aes_bits.to_be_bytes(), [0x00, 0x43]].concat();
        self
    }

    pub(super) fn no_symmetric(mut self) -> Self {
        self.symmetric = Self::NULL.to_vec();
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        [
            &self.kind.to_be_bytes()[..],
            &self.name.to_be_bytes(),
            &self.attributes.to_be_bytes(),
            &[0, 0],
            &self.symmetric,
            &self.scheme,
            &self.key,
            &self.unique,
        ]
        .concat()
    }
}

/// A key pair that every run has alike.
pub(super) fn p256_key(seed: u8) -> p256::SecretKey {
    p256::SecretKey::from_slice(&[seed; 32]).unwrap()
}

/// A key pair that every run has alike.
pub(super) fn p384_key(seed: u8) -> p384::SecretKey {
    p384::SecretKey::from_slice(&[seed; 48]).unwrap()
}

pub(super) fn p256_point() -> (Vec<u8>, Vec<u8>) {
    let point = p256_key(1).public_key().to_sec1_point(false);
    (point.x().unwrap().to_vec(), point.y().unwrap().to_vec())
}

pub(super) fn p384_point() -> (Vec<u8>, Vec<u8>) {
    let point = p384_key(1).public_key().to_sec1_point(false);
    (point.x().unwrap().to_vec(), point.y().unwrap().to_vec())
}

/// The modulus of an RSA-2048 key, made anew for each process.
pub(super) fn rsa_modulus() -> Vec<u8> {
    use aws_lc_rs::encoding::AsDer;
    let der = rsa_key().public_key().as_der().unwrap();
    // SubjectPublicKeyInfo of RSA-2048 ends with the modulus and `02 03 01 00 01`.
    let end = der.as_ref().len() - 5;
    der.as_ref()[end - 256..end].to_vec()
}

/// An RSA-2048 key pair, made anew for each process.
pub(super) fn rsa_key() -> &'static aws_lc_rs::rsa::PrivateDecryptingKey {
    static KEY: std::sync::LazyLock<aws_lc_rs::rsa::PrivateDecryptingKey> = std::sync::LazyLock::new(|| {
        aws_lc_rs::rsa::PrivateDecryptingKey::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap()
    });
    &KEY
}
