//! What an operator can say to the running daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::PostureStatus;

use super::files::{self, FileError};
use super::policy::DecisionVerb;
use super::tokens::{KeysVerb, TokenVerb};
use crate::hold::{HoldId, HoldKind};
use crate::http::admin::message::{Command, Words};
use crate::node::{Labels, Name, NameError};

/// Why the command line cannot be said to the daemon.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerbError {
    /// A file that it names.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its labels.
    #[error("--label: {0}")]
    Labels(#[from] NameError),
    /// The name of something that would change.
    #[error("`{text}`: {error}")]
    Name {
        /// As written.
        text: String,
        /// Why it is none.
        error: NameError,
    },
}

/// What is said to the daemon.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Nodes: machines that have enrolled
    #[command(subcommand)]
    Node(NodeVerb),
    /// The inventory: machines that are expected, by the hash of their EK
    #[command(subcommand)]
    Inventory(InventoryVerb),
    /// Join tokens: each admits one machine, once
    #[command(subcommand)]
    JoinToken(JoinTokenVerb),
    /// Tokens that were made for nodes, or for who acts for them
    #[command(subcommand)]
    Token(TokenVerb),
    /// The keys that sign tokens
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Digest sets: which files may run, by the digests of an IMA list, in versions that never change
    #[command(subcommand)]
    Digests(DigestsVerb),
    /// Profiles: what is expected of which nodes
    #[command(subcommand)]
    Profile(ProfileVerb),
    /// Decisions that services asked for: what was decided, and why
    #[command(subcommand)]
    Decision(DecisionVerb),
    /// The issuing CA
    #[command(subcommand)]
    Ca(CaVerb),
    /// Ask the daemon whether it can do its work; exit code 5 where it cannot
    Healthcheck,
}

/// Why: kept with the change.
#[derive(Debug, Args)]
pub(super) struct Reason {
    /// Why, for the record
    #[arg(long, default_value = "")]
    pub(super) reason: Words,
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeVerb {
    /// List nodes, by rising id
    List {
        /// Only nodes of this posture: affirming, warning, contraindicated, stale, unknown, blocked
        #[arg(long, value_parser = posture)]
        posture: Option<PostureStatus>,
        /// Only nodes with this label; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(Name, Name)>,
        /// At most so many
        #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(Command::MAX_PAGE)))]
        limit: u32,
        /// Only nodes after this one: where the page before ended
        #[arg(long, value_name = "NODE")]
        after: Option<NodeId>,
    },
    /// Show a node: posture, deviations, credentials, last decisions
    Show {
        /// Its id
        node: NodeId,
    },
    /// Show what a node measured as it booted, by its boot event log, held against its last quote
    Boot {
        /// Its id
        node: NodeId,
        /// Print rules that accept this boot instead, as TOML for a profile
        #[arg(long)]
        rules: bool,
    },
    /// Admit a pending node, or take a retired one back
    Approve {
        /// Its id
        node: NodeId,
        #[command(flatten)]
        reason: Reason,
    },
    /// Ask a node for evidence now, over its control stream
    AttestNow {
        /// Its id
        node: NodeId,
        /// Have it ask for a new certificate, too
        #[arg(long)]
        renew: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// Block a node from its next call on, whatever it shows; it may still attest
    Quarantine {
        /// Its id
        node: NodeId,
        /// Lower its standing to a warning instead
        #[arg(long)]
        lower: bool,
        /// For so long: "2h"; until it is released without this
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        lasts: Option<Duration>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Lift the holds of a node, whoever set them; access comes back with its next quote
    Release {
        /// Its id
        node: NodeId,
        /// Only this hold
        #[arg(long, value_name = "HOLD")]
        hold: Option<HoldId>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Set and remove labels
    Label {
        /// Its id
        node: NodeId,
        /// Labels to set
        #[arg(value_name = "KEY=VALUE", value_parser = label)]
        set: Vec<(Name, Name)>,
        /// A label to remove; may be repeated
        #[arg(long, value_name = "KEY")]
        remove: Vec<Name>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Refuse a node everything from now on; its certificates are worth nothing any more
    Retire {
        /// Its id
        node: NodeId,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum InventoryVerb {
    /// Expect a machine: it is admitted when it enrols
    Add {
        /// SHA-256 of its EK's SubjectPublicKeyInfo, as `rootbound-attester identify` prints it
        node: NodeId,
        /// Accept this EK without its manufacturer's certificate
        #[arg(long)]
        waive_endorsement: bool,
        /// A label that the node gets; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(Name, Name)>,
        #[command(flatten)]
        reason: Reason,
    },
    /// List expected machines
    List,
    /// Expect a machine no longer; an enrolled node stays enrolled
    Remove {
        /// Its id
        node: NodeId,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum JoinTokenVerb {
    /// Make a token; it is shown this once
    Create {
        /// The only machine that may use it
        #[arg(long)]
        node: Option<NodeId>,
        /// A label that the node gets; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(Name, Name)>,
        /// How long it can be used: 1min to 30days
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
        expires: Duration,
        #[command(flatten)]
        reason: Reason,
    },
    /// List tokens, the latest first; not the tokens themselves, which are not kept
    List,
    /// Make an unused token worthless
    Revoke {
        /// Its id, as `list` shows it
        id: String,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DigestsVerb {
    /// Make a digest set of the files that ran on a node, as far as its quotes cover them
    Capture {
        /// The node
        node: NodeId,
        /// The set that they become the next version of
        #[arg(long, default_value = "default")]
        name: Name,
        #[command(flatten)]
        reason: Reason,
    },
    /// Print a version of a set, one line for each digest
    Show {
        /// NAME or NAME@VERSION
        #[arg(value_parser = versioned)]
        set: (Name, Option<u32>),
    },
    /// List every version of every set
    List,
    /// Write the next version of a set from a file
    Set {
        /// The set
        name: Name,
        /// Lines of `sha256:<hex>`, two spaces, and a path or `*`; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        reason: Reason,
    },
    /// Withdraw a set: its digests are accepted no longer
    Remove {
        /// The set
        name: Name,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ProfileVerb {
    /// Write the next version of a profile from a file, such as `show` prints
    Set {
        /// The profile
        name: Name,
        /// TOML or JSON; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        reason: Reason,
    },
    /// Show a version of a profile, as TOML
    Show {
        /// NAME or NAME@VERSION
        #[arg(value_parser = versioned)]
        profile: (Name, Option<u32>),
    },
    /// List every version of every profile
    List,
}

#[derive(Debug, Subcommand)]
pub(super) enum CaVerb {
    /// Show the CA's certificates
    Show,
}

impl Verb {
    /// Whether of a boot only the rules are to be shown.
    pub(super) const fn wants_boot_rules(&self) -> bool {
        matches!(self, Self::Node(NodeVerb::Boot { rules: true, .. }))
    }

    /// As the daemon takes it.
    pub(super) fn command(self) -> Result<Command, VerbError> {
        match self {
            Self::Node(verb) => Ok(verb.command()?),
            Self::Inventory(verb) => Ok(verb.command()?),
            Self::Token(verb) => Ok(verb.command()),
            Self::Keys(verb) => Ok(verb.command()),
            Self::JoinToken(verb) => Ok(verb.command()?),
            Self::Digests(verb) => Ok(verb.command()?),
            Self::Profile(verb) => Ok(verb.command()?),
            Self::Decision(verb) => Ok(verb.command()),
            Self::Ca(CaVerb::Show) => Ok(Command::CaShow),
            Self::Healthcheck => Ok(Command::Health),
        }
    }
}

impl NodeVerb {
    fn command(self) -> Result<Command, NameError> {
        Ok(match self {
            Self::List { posture, labels, limit, after } => {
                Command::NodeList { posture, labels: labels_of(labels)?, after, limit }
            }
            Self::Show { node } => Command::NodeShow { node },
            Self::Boot { node, rules: _ } => Command::NodeBoot { node },
            Self::Approve { node, reason } => Command::NodeApprove { node, reason: reason.reason },
            Self::AttestNow { node, renew, reason } => {
                Command::NodeAttestNow { node, renew, reason: reason.reason }
            }
            Self::Quarantine { node, lower, lasts, reason } => Command::NodeQuarantine {
                node,
                kind: if lower { HoldKind::Lower } else { HoldKind::Block },
                lasts: lasts.map(|lasts| lasts.as_secs().max(1)),
                reason: reason.reason,
            },
            Self::Release { node, hold, reason } => {
                Command::NodeRelease { node, hold, reason: reason.reason }
            }
            Self::Label { node, set, remove, reason } => {
                Command::NodeLabel { node, set: labels_of(set)?, remove, reason: reason.reason }
            }
            Self::Retire { node, reason } => Command::NodeRetire { node, reason: reason.reason },
        })
    }
}

impl InventoryVerb {
    fn command(self) -> Result<Command, NameError> {
        Ok(match self {
            Self::Add { node, waive_endorsement, labels, reason } => Command::InventoryAdd {
                node,
                waive_endorsement,
                labels: labels_of(labels)?,
                reason: reason.reason,
            },
            Self::List => Command::InventoryList,
            Self::Remove { node, reason } => Command::InventoryRemove { node, reason: reason.reason },
        })
    }
}

impl JoinTokenVerb {
    fn command(self) -> Result<Command, NameError> {
        Ok(match self {
            Self::Create { node, labels, expires, reason } => Command::JoinTokenCreate {
                node,
                labels: labels_of(labels)?,
                lifetime: expires.as_secs(),
                reason: reason.reason,
            },
            Self::List => Command::JoinTokenList,
            Self::Revoke { id, reason } => Command::JoinTokenRevoke { id, reason: reason.reason },
        })
    }
}

impl DigestsVerb {
    fn command(self) -> Result<Command, FileError> {
        Ok(match self {
            Self::Capture { node, name, reason } => {
                Command::DigestsCapture { node, name, reason: reason.reason }
            }
            Self::Show { set: (name, version) } => Command::DigestsShow { name, version },
            Self::List => Command::DigestsList,
            Self::Set { name, file, reason } => {
                Command::DigestsSet { name, frame: files::read_packed(&file)?, reason: reason.reason }
            }
            Self::Remove { name, reason } => Command::DigestsRemove { name, reason: reason.reason },
        })
    }
}

impl ProfileVerb {
    fn command(self) -> Result<Command, FileError> {
        Ok(match self {
            Self::Set { name, file, reason } => {
                Command::ProfileSet { name, body: Box::new(files::read(&file)?), reason: reason.reason }
            }
            Self::Show { profile: (name, version) } => Command::ProfileShow { name, version },
            Self::List => Command::ProfileList,
        })
    }
}

pub(super) fn label(text: &str) -> Result<(Name, Name), String> {
    let (key, value) = text.split_once('=').ok_or("a label is written KEY=VALUE")?;
    let name = |text: &str| text.parse::<Name>().map_err(|error| error.to_string());
    Ok((name(key)?, name(value)?))
}

pub(super) fn labels_of(pairs: Vec<(Name, Name)>) -> Result<Labels, NameError> {
    let mut labels = Labels::default();
    for (key, value) in pairs {
        labels.set(key, Some(value))?;
    }
    Ok(labels)
}

fn posture(text: &str) -> Result<PostureStatus, String> {
    PostureStatus::ALL
        .into_iter()
        .find(|posture| posture.as_str() == text)
        .ok_or_else(|| "one of affirming, warning, contraindicated, stale, unknown, blocked".to_owned())
}

pub(super) fn versioned(text: &str) -> Result<(Name, Option<u32>), String> {
    let (name, version) = match text.split_once('@') {
        Some((name, version)) => {
            let version = version.parse().map_err(|_| "a version is a number: NAME@VERSION")?;
            (name, Some(version))
        }
        None => (text, None),
    };
    Ok((name.parse().map_err(|error: crate::node::NameError| error.to_string())?, version))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_words_are_parsed() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        assert_eq!(label("env=prod"), Ok((name("env"), name("prod"))));
        assert_eq!(versioned("kernel"), Ok((name("kernel"), None)));
        assert_eq!(versioned("kernel@3"), Ok((name("kernel"), Some(3))));
        assert_eq!(posture("stale"), Ok(PostureStatus::Stale));
        assert_eq!(duration("90min"), Ok(Duration::from_secs(5400)));
        for bad in [label("env").is_ok(), label("=x").is_ok(), label("a=b=c").is_ok()] {
            assert!(!bad);
        }
        assert!(versioned("kernel@").is_err() && versioned("@1").is_err());
        assert!(posture("good").is_err() && duration("soon").is_err());
    }
}
