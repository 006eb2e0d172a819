//! Which TPM, and by which way: the `[tpm]` section of the configuration.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tss_esapi::TctiNameConf;
use tss_esapi::tcti_ldr::ServerAddress;

/// The way to the TPM; libtss2 loads the transport (TCTI) of that name at run time.
///
/// ```toml
/// [tpm.device]
/// path = "/dev/tpmrm0"
/// ```
/// or `[tpm.swtpm]`, `[tpm.mssim]` with `host`, `port` and `owned`, or `[tpm.tabrmd]` with `bus_name` and `system`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TctiConfig {
    /// A device of the kernel. `/dev/tpmrm0` has the kernel's resource manager: what a dead process held is flushed.
    Device {
        /// The device file.
        #[serde(default = "resource_managed_device")]
        path: PathBuf,
    },
    /// A swtpm over TCP. The control port is always the next one (libtss2 3.2 has no option for it, nor for a path).
    Swtpm(NetworkTpm),
    /// The simulator of the TCG reference code, over TCP.
    Mssim(NetworkTpm),
    /// The user-space resource manager, over D-Bus.
    Tabrmd {
        /// Its name on the bus.
        #[serde(default = "tabrmd_bus_name")]
        bus_name: String,
        /// The system bus (`true`), or the session's.
        #[serde(default = "system_bus")]
        system: bool,
    },
}

/// A TPM at the other end of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkTpm {
    /// Name or address.
    pub host: Host,
    /// The port for commands.
    pub port: u16,
    /// Whether nobody else uses this TPM: then objects and sessions that a killed predecessor left are flushed at
    /// start. On a TPM that is shared this would take away what others hold.
    #[serde(default)]
    pub owned: bool,
}

/// A host name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

/// A text is neither a host name nor an IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a host name nor an IP address")]
pub struct BadHost;

fn resource_managed_device() -> PathBuf {
    PathBuf::from("/dev/tpmrm0")
}

fn tabrmd_bus_name() -> String {
    "com.intel.tss2.Tabrmd".to_owned()
}

const fn system_bus() -> bool {
    true
}

impl Default for TctiConfig {
    fn default() -> Self {
        Self::Device { path: resource_managed_device() }
    }
}

impl TctiConfig {
    /// Whether leftovers of a predecessor may be flushed: never where a resource manager keeps clients apart.
    pub(super) fn is_owned(&self) -> bool {
        match self {
            Self::Swtpm(network) | Self::Mssim(network) => network.owned,
            Self::Device { .. } | Self::Tabrmd { .. } => false,
        }
    }

    /// For libtss2; `None` where it cannot express the configuration (a path that is not UTF-8).
    pub(super) fn to_tcti(&self) -> Option<TctiNameConf> {
        // Not by way of text: tss-esapi takes that apart with regular expressions, and the machinery of those would stay
        // resident for as long as the daemon runs.
        if let Self::Device { path } = self {
            return path.to_str()?.parse().map(TctiNameConf::Device).ok();
        }
        self.to_string().parse().ok()
    }
}

/// As libtss2 and tpm2-tools (`TPM2TOOLS_TCTI`) write it.
impl fmt::Display for TctiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { path } => write!(f, "device:{}", path.display()),
            Self::Swtpm(NetworkTpm { host, port, .. }) => write!(f, "swtpm:host={host},port={port}"),
            Self::Mssim(NetworkTpm { host, port, .. }) => write!(f, "mssim:host={host},port={port}"),
            Self::Tabrmd { bus_name, system } => {
                let bus = if *system { "system" } else { "session" };
                write!(f, "tabrmd:bus_name={bus_name},bus_type={bus}")
            }
        }
    }
}

impl FromStr for Host {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        // What libtss2 gets is `host=…,port=…`: a comma in the host would say something else.
        match text.parse::<ServerAddress>() {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(BadHost),
        }
    }
}

impl TryFrom<String> for Host {
    type Error = BadHost;

    fn try_from(text: String) -> Result<Self, BadHost> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        tpm: TctiConfig,
    }

    fn parse(text: &str) -> Result<TctiConfig, toml::de::Error> {
        toml::from_str::<Sample>(text).map(|sample| sample.tpm)
    }

    #[test]
    fn each_way_to_a_tpm_is_written_as_libtss2_wants_it() {
        for (text, expected, owned) in [
            ("[tpm.device]", "device:/dev/tpmrm0", false),
            ("[tpm.device]\npath = \"/dev/tpm0\"", "device:/dev/tpm0", false),
            ("[tpm.swtpm]\nhost = \"127.0.0.1\"\nport = 2321", "swtpm:host=127.0.0.1,port=2321", false),
            ("[tpm.swtpm]\nhost = \"::1\"\nport = 2321\nowned = true", "swtpm:host=::1,port=2321", true),
            ("[tpm.mssim]\nhost = \"localhost\"\nport = 1", "mssim:host=localhost,port=1", false),
            ("[tpm.tabrmd]", "tabrmd:bus_name=com.intel.tss2.Tabrmd,bus_type=system", false),
            (
                "[tpm.tabrmd]\nbus_name = \"a.b\"\nsystem = false",
                "tabrmd:bus_name=a.b,bus_type=session",
                false,
            ),
        ] {
            let config = parse(text).unwrap();
            assert_eq!(config.to_string(), expected);
            assert_eq!(config.is_owned(), owned, "{text}");
            assert!(config.to_tcti().is_some(), "{text}");
        }
    }

    #[test]
    fn what_would_mean_something_else_to_libtss2_is_refused() {
        for bad in [
            "[tpm.swtpm]\nhost = \"a,port=1\"\nport = 2321",
            "[tpm.swtpm]\nhost = \"\"\nport = 2321",
            "[tpm.swtpm]\nhost = \"a\"\nport = 99999",
            "[tpm.swtpm]\nhost = \"a\"",
            "[tpm.swtpm]\nhost = \"a\"\nport = 1\npath = \"/run/swtpm\"",
            "[tpm.device]\npath = \"/dev/tpm0\"\nowned = true",
            "[tpm.serial]",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
