//! Files of certificates: PEM as people keep it, with remarks between the blocks, or DER.

use data_encoding::BASE64;

/// Why a file is not PEM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// A block does not end.
    #[error("line {line}: the block does not end")]
    NoEnd {
        /// Where it begins.
        line: usize,
    },
    /// A block is not base64.
    #[error("the block that begins in line {line} is not base64")]
    NotBase64 {
        /// Where it begins.
        line: usize,
    },
    /// A block is neither a certificate nor a CRL; a private key has no place here.
    #[error("line {line}: neither CERTIFICATE nor X509 CRL")]
    UnknownLabel {
        /// Where it begins.
        line: usize,
    },
    /// The file holds neither a PEM block nor DER.
    #[error("holds no certificate and no CRL")]
    Empty,
}

/// A block of a file, DER.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PemBlock {
    Certificate(Vec<u8>),
    Crl(Vec<u8>),
}

/// Reads all blocks of a file.
pub(super) fn read(content: &[u8]) -> Result<Vec<PemBlock>, PemError> {
    const BEGIN: &str = "-----BEGIN ";
    if content.first() == Some(&0x30) || content.starts_with(&[0x10, 0x01, 0x00]) {
        return Ok(vec![classify(content.to_vec())]);
    }
    let text = String::from_utf8_lossy(content);
    let mut lines = (1..).zip(text.lines().map(str::trim));
    let mut blocks = Vec::new();
    while let Some((line, text)) = lines.next() {
        let Some(label) = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let mut base64 = String::new();
        let mut ended = false;
        for (_, text) in lines.by_ref() {
            if text.starts_with("-----END ") {
                ended = true;
                break;
            }
            base64.push_str(text);
        }
        if !ended {
            return Err(PemError::NoEnd { line });
        }
        let der = BASE64.decode(base64.as_bytes()).map_err(|_| PemError::NotBase64 { line })?;
        blocks.push(match label {
            "CERTIFICATE" | "X509 CERTIFICATE" => PemBlock::Certificate(der),
            "X509 CRL" => PemBlock::Crl(der),
            _ => return Err(PemError::UnknownLabel { line }),
        });
    }
    if blocks.is_empty() { Err(PemError::Empty) } else { Ok(blocks) }
}

/// A DER file does not say what it holds. TBSCertificate begins with its version under `[0]`, TBSCertList with its
/// version as INTEGER or with an AlgorithmIdentifier.
fn classify(der: Vec<u8>) -> PemBlock {
    if super::crl::looks_like_a_list(&der) { PemBlock::Crl(der) } else { PemBlock::Certificate(der) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_remarks_with_either_end_of_line() {
        let text = "Subject: x\r\n-----BEGIN CERTIFICATE-----\r\nAQ\r\nID\r\n-----END CERTIFICATE-----\r\n\
                    -----BEGIN X509 CRL-----\n  BAUG \n-----END X509 CRL-----";
        let expected = vec![PemBlock::Certificate(vec![1, 2, 3]), PemBlock::Crl(vec![4, 5, 6])];
        assert_eq!(read(text.as_bytes()), Ok(expected));
    }

    #[test]
    fn what_is_no_pem_is_refused_with_its_line() {
        for (text, expected) in [
            ("", PemError::Empty),
            ("-----BEGIN CERTIFICATE", PemError::Empty),
            ("\n-----BEGIN CERTIFICATE-----\nAQID\n", PemError::NoEnd { line: 2 }),
            ("-----BEGIN CERTIFICATE-----\nA?ID\n-----END CERTIFICATE-----", PemError::NotBase64 { line: 1 }),
            (
                "-----BEGIN PUBLIC KEY-----\nAQID\n-----END PUBLIC KEY-----",
                PemError::UnknownLabel { line: 1 },
            ),
        ] {
            assert_eq!(read(text.as_bytes()), Err(expected), "{text}");
        }
    }
}
