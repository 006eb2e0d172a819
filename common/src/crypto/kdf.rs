//! KDFa and KDFe, the key derivations that TPM2_MakeCredential uses.

use ::hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::{Digest, hash};
use crate::tpm::HashAlgorithm;

/// HMAC (FIPS 198-1) of the parts, one after the other.
#[must_use]
pub fn hmac(algorithm: HashAlgorithm, key: &[u8], parts: &[&[u8]]) -> Digest {
    fn with<M: Mac + KeyInit>(algorithm: HashAlgorithm, key: &[u8], parts: &[&[u8]]) -> Digest {
        // HMAC takes a key of any length.
        let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Digest::zero(algorithm) };
        for part in parts {
            mac.update(part);
        }
        let bytes = mac.finalize().into_bytes();
        Digest::from_slice(algorithm, &bytes).unwrap_or(Digest::zero(algorithm))
    }
    match algorithm {
        HashAlgorithm::Sha1 => with::<Hmac<Sha1>>(algorithm, key, parts),
        HashAlgorithm::Sha256 => with::<Hmac<Sha256>>(algorithm, key, parts),
        HashAlgorithm::Sha384 => with::<Hmac<Sha384>>(algorithm, key, parts),
        HashAlgorithm::Sha512 => with::<Hmac<Sha512>>(algorithm, key, parts),
    }
}

/// KDFa (Part 1, 11.4.10.2): `bytes` bytes from a key, a label and two contexts, in counter mode over HMAC.
///
/// `label` comes without its terminating zero, which is added here.
#[must_use]
pub fn kdfa(
    algorithm: HashAlgorithm,
    key: &[u8],
    label: &[u8],
    context_u: &[u8],
    context_v: &[u8],
    bytes: u16,
) -> Zeroizing<Vec<u8>> {
    let bits = u32::from(bytes) * 8;
    counter_mode(bytes, |counter| {
        let bits = bits.to_be_bytes();
        hmac(algorithm, key, &[counter, label, &[0], context_u, context_v, &bits])
    })
}

/// KDFe (Part 1, 11.4.10.3): `bytes` bytes from an ECDH secret, a label and both x coordinates.
///
/// `label` comes without its terminating zero, which is added here. All three numbers are padded to the field size.
#[must_use]
pub fn kdfe(
    algorithm: HashAlgorithm,
    z: &[u8],
    label: &[u8],
    party_u_x: &[u8],
    party_v_x: &[u8],
    bytes: u16,
) -> Zeroizing<Vec<u8>> {
    counter_mode(bytes, |counter| hash(algorithm, &[counter, z, label, &[0], party_u_x, party_v_x]))
}

fn counter_mode(bytes: u16, block: impl Fn(&[u8]) -> Digest) -> Zeroizing<Vec<u8>> {
    let wanted = usize::from(bytes);
    let mut out = Zeroizing::new(Vec::with_capacity(wanted + 64));
    let mut counter = 1u32;
    while out.len() < wanted {
        out.extend_from_slice(block(&counter.to_be_bytes()).as_bytes());
        counter += 1;
    }
    out.truncate(wanted);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn hmac_is_that_of_the_standard() {
        let mac = hmac(HashAlgorithm::Sha256, b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(mac.to_string(), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn derived_bytes_are_as_many_as_asked_for() {
        for bytes in [0, 1, 16, 32, 33, 64, 100] {
            let derived = kdfa(HashAlgorithm::Sha256, b"key", b"LABEL", b"u", b"v", bytes);
            assert_eq!(derived.len(), usize::from(bytes));
        }
    }
}
