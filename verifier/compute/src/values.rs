//! Values of a boot, as they are written down: what they are, and where they come from.

use rootbound_common::crypto::TaggedDigest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use serde::{Deserialize, Serialize};

/// Values that may be measured in a boot, in one bank. As JSON, for files and messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootValues {
    /// The bank that digests are of.
    pub bank: HashAlgorithm,
    /// In the order of the boot, as far as there is one.
    pub values: Vec<BootValue>,
    /// Values of whole PCRs, where everything that is measured into them is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pcrs: Vec<PcrValue>,
    /// What cannot be known from files alone, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl BootValues {
    /// Values of a bank, and nothing beside them.
    #[must_use]
    pub const fn new(bank: HashAlgorithm, values: Vec<BootValue>) -> Self {
        Self { bank, values, pcrs: Vec::new(), notes: Vec::new() }
    }
}

/// What a PCR holds at some moment of the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PcrValue {
    /// The PCR.
    pub pcr: PcrIndex,
    /// Its value.
    pub value: TaggedDigest,
    /// When, and under which conditions: of several values of a PCR it tells which is which.
    pub label: String,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootValue {
    /// What it is.
    pub measured: Measured,
    /// In words, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Source::is_unknown")]
    pub source: Source,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Measured {
    /// PCR 4: a boot loader, unified kernel image or kernel, by its Authenticode digest.
    BootApplication {
        /// Its Authenticode digest.
        digest: TaggedDigest,
    },
    /// PCR 2: a driver from an option ROM.
    Driver {
        /// Its Authenticode digest.
        digest: TaggedDigest,
    },
    /// PCR 9: an initrd.
    Initrd {
        /// Of the file as the kernel gets it.
        digest: TaggedDigest,
    },
    /// PCRs 8, 9 and 12: a command line, whole, to the byte, as its event has it.
    CommandLine {
        /// Its text.
        text: String,
    },
    /// Any other event.
    Event {
        /// Its PCR.
        pcr: PcrIndex,
        /// What it extends the PCR with.
        digest: TaggedDigest,
    },
    /// PCR 0: a version of the S-CRTM.
    FirmwareVersion {
        /// Its text.
        text: String,
    },
    /// PCR 0: a firmware volume or another blob.
    FirmwareBlob {
        /// Of its bytes.
        digest: TaggedDigest,
    },
}

/// Where a value comes from, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The file, as it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The package that the file is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The package's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The node whose evidence showed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl Source {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_they_are_read_and_nothing_unknown_is() {
        let text = r#"{"bank":"sha256","values":[
            {"measured":{"kind":"command_line","text":"quiet"},"label":"of the release","source":{"package":"linux"}},
            {"measured":{"kind":"event","pcr":11,"digest":"sha256:DIGEST"}}]}"#
            .replace("DIGEST", &"0a".repeat(32));
        let values: BootValues = serde_json::from_str(&text).unwrap();
        assert_eq!(values.values[0].source.package.as_deref(), Some("linux"));
        let again: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&values).unwrap(), again);
        for (from, to) in [
            ("quiet\"", "quiet\",\"also\":1"),
            ("0a0a", "0A0a"),
            ("0a0a", "0a"),
            ("\"pcr\":11", "\"pcr\":24"),
        ] {
            let odd = text.replacen(from, to, 1);
            assert_ne!(odd, text);
            assert!(serde_json::from_str::<BootValues>(&odd).is_err(), "{odd}");
        }
    }
}
