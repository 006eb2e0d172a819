//! Lists for tests, made by a second hand: nothing here calls the parser.

use rootbound_common::crypto::hash;
use rootbound_common::tpm::HashAlgorithm;

/// A length and the bytes.
pub(crate) fn field(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_le_bytes()[..], bytes].concat()
}

/// An entry around template data.
pub(crate) fn around(template: &str, template_hash: &[u8], data: &[u8]) -> Vec<u8> {
    let mut entry = 10u32.to_le_bytes().to_vec();
    entry.extend(template_hash);
    entry.extend(field(template.as_bytes()));
    entry.extend(if template == "ima" { data.to_vec() } else { field(data) });
    entry
}

/// Fields `d-ng` and `n-ng`.
pub(crate) fn file(digest: &[u8], path: &[u8]) -> Vec<u8> {
    [field(&[b"sha256:\0", digest].concat()), field(&[path, &[0]].concat())].concat()
}

/// An entry of any template but `ima`, with its hash.
pub(crate) fn entry(template: &str, data: &[u8]) -> Vec<u8> {
    around(template, hash(HashAlgorithm::Sha1, &[data]).as_bytes(), data)
}

/// A file's content, in SHA-256.
pub(crate) fn content(text: &str) -> [u8; 32] {
    rootbound_common::crypto::sha256(&[text.as_bytes()])
}

/// An ima-ng entry of a file whose content is `text`.
pub(crate) fn ima_ng(path: &str, text: &str) -> Vec<u8> {
    entry("ima-ng", &file(&content(text), path.as_bytes()))
}

/// An ima-sig entry.
pub(crate) fn ima_sig(path: &str, text: &str, signature: &[u8]) -> Vec<u8> {
    entry("ima-sig", &[file(&content(text), path.as_bytes()), field(signature)].concat())
}

/// An ima-buf entry.
pub(crate) fn ima_buf(name: &str, buffer: &[u8]) -> Vec<u8> {
    let digest = rootbound_common::crypto::sha256(&[buffer]);
    entry("ima-buf", &[file(&digest, name.as_bytes()), field(buffer)].concat())
}

/// A violation of ima-ng.
pub(crate) fn violation(path: &str) -> Vec<u8> {
    around("ima-ng", &[0; 20], &file(&[0; 32], path.as_bytes()))
}
