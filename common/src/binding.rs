//! The value that ties a TPM's statement to one challenge, one purpose and one request.

use crate::crypto::{Digest, Hasher, hash};
use crate::nonce::Nonce;
use crate::tpm::HashAlgorithm;

/// What a statement is for: one purpose's statement is worth nothing for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// TPM2_Quote as evidence of the machine's state.
    Quote,
    /// TPM2_Certify of the key that a credential is asked for.
    Certify,
}

impl Purpose {
    const fn domain(self) -> &'static str {
        match self {
            Self::Quote => "rootbound/v1/quote",
            Self::Certify => "rootbound/v1/certify",
        }
    }
}

/// `SHA-256(domain ‖ 0x00 ‖ nonce ‖ SHA-256(parts))`, the extraData (qualifyingData) of a statement.
///
/// `parts` are what must not be swapped in the request. Each enters with its length (UINT64), so that no two lists of
/// parts hash alike. See `docs/PROTOCOL.md`, extraData.
#[must_use]
pub fn extra_data(purpose: Purpose, nonce: &Nonce, parts: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new(HashAlgorithm::Sha256);
    for part in parts {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        hasher.update(&length.to_be_bytes());
        hasher.update(part);
    }
    let parts = hasher.finish();
    hash(HashAlgorithm::Sha256, &[purpose.domain().as_bytes(), &[0], nonce.as_bytes(), parts.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_changes_the_binding() {
        let nonce = Nonce::from_bytes([1; 32]);
        let all = [
            extra_data(Purpose::Quote, &nonce, &[b"ab", b"c"]),
            extra_data(Purpose::Certify, &nonce, &[b"ab", b"c"]),
            extra_data(Purpose::Quote, &Nonce::from_bytes([2; 32]), &[b"ab", b"c"]),
            extra_data(Purpose::Quote, &nonce, &[b"a", b"bc"]),
            extra_data(Purpose::Quote, &nonce, &[b"abc"]),
            extra_data(Purpose::Quote, &nonce, &[]),
            extra_data(Purpose::Quote, &nonce, &[b""]),
        ];
        for (position, one) in all.iter().enumerate() {
            assert!(!all[..position].contains(one), "case {position} repeats an earlier one");
        }
    }
}
