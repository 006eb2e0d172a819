//! A TPM key as a file: `TSS2 PRIVATE KEY`, the format of draft-bottomley-tpm2-keys that OpenSSL's TPM providers read.
//!
//! The key is a child of the storage primary key of the owner hierarchy that the draft names (3.1.5): P-256, TCG EK
//! credential profile template H-2, empty `unique`. Whoever loads it makes that primary anew. Its policy is one
//! TPM2_PolicyPCR with the digest of the PCR values that it was made for, so that a changed PCR is noticed at
//! PolicyPCR already (TPM_RC_VALUE).
//!
//! `commandPolicy` is the marshalled command body, as the draft says (4.1.2) and GRUB reads it: TPM2B_DIGEST, then
//! TPML_PCR_SELECTION. The openssl_tpm2_engine reads the two in the other order and is not served by this file.

use der::asn1::{ObjectIdentifier, OctetString};
use der::pem::LineEnding;
use der::{Encode, Sequence};
use rootbound_common::tpm::{PcrSelection, put_sized};

use crate::keep::SavedKey;

/// id-loadablekey: to be loaded with TPM2_Load.
const LOADABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");
/// TPM_RH_OWNER: make the primary key from the owner's seed.
const OWNER: u32 = 0x4000_0001;
/// TPM_CC_PolicyPCR.
const POLICY_PCR: u32 = 0x0000_017f;

const PEM_LABEL: &str = "TSS2 PRIVATE KEY";

/// TPMPolicy (draft-bottomley-tpm2-keys, 4.1).
#[derive(Sequence)]
struct TpmPolicy {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    command_code: u32,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    command_policy: OctetString,
}

/// TPMKey (draft-bottomley-tpm2-keys, 3.1), without what a loadable key does not have.
#[derive(Sequence)]
struct TpmKey {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    empty_auth: bool,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    policy: Vec<TpmPolicy>,
    parent: u32,
    public: OctetString,
    private: OctetString,
}

/// The key and its policy, PEM.
pub fn encode(key: &SavedKey, selection: &PcrSelection, pcr_digest: &[u8]) -> Result<String, der::Error> {
    let mut body = Vec::with_capacity(64);
    put_sized(&mut body, pcr_digest);
    selection.marshal(&mut body);
    let key = TpmKey {
        kind: LOADABLE_KEY,
        empty_auth: true,
        policy: vec![TpmPolicy { command_code: POLICY_PCR, command_policy: OctetString::new(body)? }],
        parent: OWNER,
        public: OctetString::new(sized(key.public.as_bytes()))?,
        private: OctetString::new(sized(key.private.as_bytes()))?,
    };
    let der = key.to_der()?;
    der::pem::encode_string(PEM_LABEL, LineEnding::LF, &der)
        .map_err(|_| der::Error::from(der::ErrorKind::Failed))
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + bytes.len());
    put_sized(&mut out, bytes);
    out
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE64, HEXLOWER};
    use rootbound_common::blob::Blob;
    use rootbound_common::tpm::{HashAlgorithm, PcrIndex};

    use super::*;

    /// The expected bytes are written by hand from the draft's ASN.1 and X.690.
    #[test]
    fn file_is_the_asn1_of_the_draft() {
        let key = SavedKey {
            public: Blob::new(vec![0xaa; 3]).unwrap(),
            private: Blob::new(vec![0xbb; 2]).unwrap(),
        };
        let selection = PcrSelection::of_bank(HashAlgorithm::Sha256, PcrIndex::new(7).into_iter().collect());
        let pem = encode(&key, &selection, &[0x11; 32]).unwrap();
        assert!(pem.starts_with("-----BEGIN TSS2 PRIVATE KEY-----\n"));
        assert!(pem.ends_with("-----END TSS2 PRIVATE KEY-----\n"));
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64.decode(base64.as_bytes()).unwrap();
        let expected = [
            "305c",                              // TPMKey
            "06066781050a0103",                  // type: 2.23.133.10.1.3
            "a0030101ff",                        // emptyAuth [0] TRUE
            "a13a3038",                          // policy [1] SEQUENCE OF
            "3036",                              // TPMPolicy
            "a0040202017f",                      // commandCode [0]
            "a12e042c",                          // commandPolicy [1]
            &format!("0020{}", "11".repeat(32)), // TPM2B_DIGEST
            "00000001000b03800000",              // TPML_PCR_SELECTION: sha256:7
            "020440000001",                      // parent
            "04050003aaaaaa",                    // pubkey: TPM2B_PUBLIC
            "04040002bbbb",                      // privkey: TPM2B_PRIVATE
        ]
        .concat();
        assert_eq!(HEXLOWER.encode(&der), expected);
    }
}
