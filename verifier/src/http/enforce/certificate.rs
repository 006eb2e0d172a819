//! A client's certificate as gateways write it into a text: PEM, percent-encoded (Envoy's `source.certificate`, nginx's
//! `$ssl_client_escaped_cert`), or DER in base64, perhaps between colons (Caddy; RFC 9440, 2.1).

use data_encoding::BASE64;

use crate::flows::enforce::EnforceRefusal;

/// Characters of such a text: our longest certificate, each of its characters percent-encoded.
const MAX: usize = 32 * 1024;

/// What Caddy writes where the client showed none: the name of what it has nothing for.
const NONE_OF_CADDY: &str = "{http.request.tls.client.certificate_der_base64}";

/// The certificate in DER; `None` where the text is empty: the client showed none. What it says is looked at later.
pub(super) fn read(text: &str) -> Result<Option<Vec<u8>>, EnforceRefusal> {
    const ERROR: EnforceRefusal = EnforceRefusal::CertificateMalformed;
    if text.is_empty() || text == NONE_OF_CADDY {
        return Ok(None);
    }
    if text.len() > MAX {
        return Err(ERROR);
    }
    if text.starts_with("-----BEGIN") {
        let pem = percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| ERROR)?;
        let (label, document) = der::Document::from_pem(&pem).map_err(|_| ERROR)?;
        return match label {
            "CERTIFICATE" => Ok(Some(document.into_vec())),
            _ => Err(ERROR),
        };
    }
    let inner = text.strip_prefix(':').and_then(|inner| inner.strip_suffix(':')).unwrap_or(text);
    BASE64.decode(inner.as_bytes()).map(Some).map_err(|_| ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DER: [u8; 5] = [0x30, 3, 2, 1, 7];

    #[test]
    fn each_form_is_read_and_nothing_else() {
        for good in [
            "-----BEGIN%20CERTIFICATE-----%0AMAMCAQc%3D%0A-----END%20CERTIFICATE-----%0A",
            "-----BEGIN CERTIFICATE-----%0AMAMCAQc=%0A-----END CERTIFICATE-----%0A",
            "MAMCAQc=",
            ":MAMCAQc=:",
        ] {
            assert_eq!(read(good), Ok(Some(DER.to_vec())), "{good}");
        }
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("{http.request.tls.client.certificate_der_base64}"), Ok(None));
        let long = "A".repeat(MAX + 4);
        for bad in [
            "-----BEGIN%20PRIVATE%20KEY-----%0AMAMCAQc%3D%0A-----END%20PRIVATE%20KEY-----%0A",
            "-----BEGIN%20CERTIFICATE-----%0AMAMC%FF%0A-----END%20CERTIFICATE-----%0A",
            "-----BEGIN%20CERTIFICATE-----%0AMAMCAQc%3D%0A-----END%20CERTIFICATE-----%0A,x",
            "MAMCAQc",
            "MAMCAQc=,MAMCAQc=",
            ":MAMCAQc=",
            "(null)",
            "{http.request.tls.client.certificate_pem}",
            &long,
        ] {
            assert_eq!(read(bad), Err(EnforceRefusal::CertificateMalformed), "{bad}");
        }
    }
}
