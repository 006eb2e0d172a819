//! What is attested: the verifier's own state of a subject, as policies see it in `context.attested`.
//!
//! [`Attested::of`] is the one way from a live node to facts that a decision believes. [`RecordedFacts`] are the same as
//! data, for cases and rehearsals: no permit comes of them.

use std::borrow::Cow;
use std::time::Duration;

use cedar_policy::RestrictedExpression;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::PostureStatus;
use serde::{Deserialize, Serialize};

use crate::appraisal::trust_vector::TrustVector;
use crate::hold::{HeldBy, Hold};
use crate::node::{EndorsedBy, Labels, Standing};
use crate::posture::LiveNode;

/// How a subject stands, as policies name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A node, and everything observed is explained.
    Affirming,
    /// A node, accepted with reservations.
    Warning,
    /// A node whose evidence is too old.
    Stale,
    /// A node that never showed evidence.
    Unknown,
    /// A node on which something is explained by no reference value.
    Contraindicated,
    /// A node that an operator or a signal has blocked.
    Blocked,
    /// No machine of ours: nothing is attested of it.
    Unattested,
}

impl Status {
    /// Every one, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::Affirming,
        Self::Warning,
        Self::Stale,
        Self::Unknown,
        Self::Contraindicated,
        Self::Blocked,
        Self::Unattested,
    ];

    /// The word, in policies and in `@accepts`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Stale => "stale",
            Self::Unknown => "unknown",
            Self::Contraindicated => "contraindicated",
            Self::Blocked => "blocked",
            Self::Unattested => "unattested",
        }
    }

    /// The status with a word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

impl From<PostureStatus> for Status {
    fn from(status: PostureStatus) -> Self {
        match status {
            PostureStatus::Affirming => Self::Affirming,
            PostureStatus::Warning => Self::Warning,
            PostureStatus::Stale => Self::Stale,
            PostureStatus::Unknown => Self::Unknown,
            PostureStatus::Contraindicated => Self::Contraindicated,
            PostureStatus::Blocked => Self::Blocked,
        }
    }
}

/// Where a node is in its life, as policies name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeStanding {
    /// Nobody has said that the machine is ours.
    Pending,
    /// It is ours.
    #[default]
    Admitted,
    /// It is ours no longer.
    Retired,
}

impl NodeStanding {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Admitted => "admitted",
            Self::Retired => "retired",
        }
    }
}

impl From<Standing> for NodeStanding {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Pending => Self::Pending,
            Standing::Admitted { .. } => Self::Admitted,
            Standing::Retired => Self::Retired,
        }
    }
}

/// Who vouches for a node's EK, as policies name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endorser {
    /// The TPM's manufacturer.
    #[default]
    Manufacturer,
    /// The operator.
    Operator,
}

impl Endorser {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Manufacturer => "manufacturer",
            Self::Operator => "operator",
        }
    }
}

impl From<EndorsedBy> for Endorser {
    fn from(endorsed_by: EndorsedBy) -> Self {
        match endorsed_by {
            EndorsedBy::Manufacturer => Self::Manufacturer,
            EndorsedBy::Operator => Self::Operator,
        }
    }
}

/// What is known of a node at a moment. As data it proves nothing: see [`Attested`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFacts<'a> {
    /// Which.
    pub node: NodeId,
    /// How it stands.
    pub posture: Status,
    /// Seconds since its evidence was made, at the earliest, rounded up; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_age: Option<u64>,
    /// What its appraisal claims.
    #[serde(default)]
    pub trust: TrustVector,
    /// What operators say of it.
    #[serde(default)]
    pub labels: Cow<'a, Labels>,
    /// `name@version` of each reference set that it was appraised by.
    #[serde(default)]
    pub references: Cow<'a, [String]>,
    /// `name@version` of the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Cow<'a, str>>,
    /// What identifies this boot of its TPM: `RESETS.RESTARTS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Cow<'a, str>>,
    /// Seconds since the newest of its credentials that count began to be valid, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_age: Option<u64>,
    /// Where it is in its life.
    #[serde(default)]
    pub standing: NodeStanding,
    /// Who vouches for its EK.
    #[serde(default)]
    pub endorsed_by: Endorser,
    /// Whether Secure Boot was on, where the boot log proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// What it is held by: `block:WHO` or `lower:WHO`, where who is `operator` or `relying_party:NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
    /// Rises whenever what was handed out before counts no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Whether it deviates, and its profile records that without acting on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
    /// Digest of the kernel, where the boot log proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Cow<'a, str>>,
    /// Version or digest of the firmware, where the boot log proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Cow<'a, str>>,
}

impl NodeFacts<'_> {
    /// The same, on its own.
    #[must_use]
    pub fn into_owned(self) -> NodeFacts<'static> {
        let owned = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        NodeFacts {
            labels: Cow::Owned(self.labels.into_owned()),
            references: Cow::Owned(self.references.into_owned()),
            profile: owned(self.profile),
            boot: owned(self.boot),
            kernel: owned(self.kernel),
            firmware: owned(self.firmware),
            node: self.node,
            posture: self.posture,
            evidence_age: self.evidence_age,
            trust: self.trust,
            credential_age: self.credential_age,
            standing: self.standing,
            endorsed_by: self.endorsed_by,
            secure_boot: self.secure_boot,
            holds: self.holds,
            epoch: self.epoch,
            observed: self.observed,
        }
    }
}

/// What the verifier's state says of a node now. Only [`Attested::of`] makes it.
#[derive(Debug, Clone)]
pub struct Attested<'a>(NodeFacts<'a>);

impl<'a> Attested<'a> {
    /// Of a live node, at a time.
    #[must_use]
    pub fn of(id: NodeId, node: &'a LiveNode, now: Timestamp) -> Self {
        let posture = node.posture.as_ref();
        let text = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
        let count = node.credentials.iter().filter(|credential| credential.not_after >= now);
        let newest = count.map(|credential| credential.not_before).max();
        Self(NodeFacts {
            node: id,
            posture: node.status(now).into(),
            evidence_age: posture.map(|posture| seconds(now.since(posture.evidence_at))),
            trust: posture.map_or(TrustVector::NONE, |posture| posture.claims),
            labels: Cow::Borrowed(&node.labels),
            references: posture.map_or(Cow::Borrowed(&[]), |posture| Cow::Borrowed(&posture.references)),
            profile: posture.and_then(|posture| text(&posture.profile)),
            boot: posture.and_then(|posture| text(&posture.booted.boot)),
            credential_age: newest.map(|not_before| seconds(now.since(not_before))),
            standing: node.standing.into(),
            endorsed_by: node.endorsed_by.into(),
            secure_boot: posture.and_then(|posture| posture.booted.secure_boot),
            holds: node.holds_in_force(now).map(held).collect(),
            epoch: Some(node.epoch),
            observed: posture.is_some_and(|posture| posture.is_observed(now)),
            kernel: posture.and_then(|posture| text(&posture.booted.kernel)),
            firmware: posture.and_then(|posture| text(&posture.booted.firmware)),
        })
    }

    /// The facts, to be looked at.
    #[must_use]
    pub fn facts(&self) -> &NodeFacts<'a> {
        &self.0
    }
}

/// As policies name a hold.
fn held(hold: &Hold) -> String {
    match &hold.by {
        HeldBy::Operator(_) => format!("{}:operator", hold.kind.as_str()),
        HeldBy::RelyingParty(name) => format!("{}:relying_party:{name}", hold.kind.as_str()),
    }
}

/// Rounded up, so that `evidence_age <= 30` never holds of evidence that is 30.1 seconds old.
fn seconds(age: Duration) -> u64 {
    age.as_secs().saturating_add(u64::from(age.subsec_nanos() > 0))
}

/// What the operator lets a relying party do to the node that a question is about. Its caller states it from the
/// verifier's own configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceFacts {
    /// It may read how the node stands, or ask about a subject that is no machine of ours.
    #[serde(default)]
    pub may_read: bool,
    /// It may say that something is wrong with the node.
    #[serde(default)]
    pub may_signal: bool,
}

/// What is known of the subject of a question, out of the verifier's own state.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "it lives on the stack, for one decision")]
pub enum SubjectFacts<'a> {
    /// A node that we know.
    Node(Attested<'a>),
    /// A relying party.
    Service(ServiceFacts),
    /// No machine of ours.
    Unattested,
    /// Said to be a node, and none that we know.
    UnknownNode,
}

impl SubjectFacts<'_> {
    /// For the record.
    #[must_use]
    pub fn record(&self) -> RecordedFacts {
        match self {
            Self::Node(attested) => RecordedFacts::Node(Box::new(attested.0.clone().into_owned())),
            Self::Service(facts) => RecordedFacts::Service(*facts),
            Self::Unattested => RecordedFacts::Unattested,
            Self::UnknownNode => RecordedFacts::UnknownNode,
        }
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        match self {
            Self::Node(attested) => Seen::Node(&attested.0),
            Self::Service(facts) => Seen::Service(*facts),
            Self::Unattested => Seen::Unattested,
            Self::UnknownNode => Seen::UnknownNode,
        }
    }
}

/// Facts as data: of a recorded decision, or written down in a case. A rehearsal takes them; no permit comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedFacts {
    /// Of a node.
    Node(Box<NodeFacts<'static>>),
    /// Of a relying party.
    Service(ServiceFacts),
    /// Of no machine of ours.
    Unattested,
    /// Of none that we know.
    UnknownNode,
}

impl RecordedFacts {
    pub(super) fn seen(&self) -> Seen<'_> {
        match self {
            Self::Node(facts) => Seen::Node(facts),
            Self::Service(facts) => Seen::Service(*facts),
            Self::Unattested => Seen::Unattested,
            Self::UnknownNode => Seen::UnknownNode,
        }
    }
}

/// Facts as the engine looks at them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen<'a> {
    Node(&'a NodeFacts<'a>),
    Service(ServiceFacts),
    Unattested,
    UnknownNode,
}

impl Seen<'_> {
    pub(super) fn status(self) -> Status {
        match self {
            Self::Node(facts) => facts.posture,
            Self::Service(_) | Self::Unattested | Self::UnknownNode => Status::Unattested,
        }
    }

    /// Seconds since the evidence, where there is any.
    pub(super) fn evidence_age(self) -> Option<u64> {
        match self {
            Self::Node(facts) => facts.evidence_age,
            Self::Service(_) | Self::Unattested | Self::UnknownNode => None,
        }
    }

    /// `context.attested`, as far as anybody looks at it.
    pub(super) fn attested(self, wanted: FactSet) -> Vec<(String, RestrictedExpression)> {
        let facts = match self {
            Self::Node(facts) => Some(facts),
            Self::Service(_) | Self::Unattested | Self::UnknownNode => None,
        };
        let service = match self {
            Self::Service(service) => Some(service),
            Self::Node(_) | Self::Unattested | Self::UnknownNode => None,
        };
        let mut record = Vec::with_capacity(Fact::ALL.len());
        for fact in Fact::ALL {
            if !wanted.contains(fact) {
                continue;
            }
            let value = match fact {
                Fact::Posture => Some(text(self.status().as_str())),
                Fact::Trust => Some(trust(&facts.map_or(TrustVector::NONE, |facts| facts.trust))),
                Fact::Labels => Some(RestrictedExpression::new_set(
                    facts
                        .into_iter()
                        .flat_map(|facts| facts.labels.iter())
                        .map(|(key, value)| RestrictedExpression::new_string(format!("{key}={value}"))),
                )),
                Fact::References => Some(RestrictedExpression::new_set(
                    facts.into_iter().flat_map(|facts| facts.references.iter()).map(|name| text(name)),
                )),
                Fact::Holds => Some(RestrictedExpression::new_set(
                    facts.into_iter().flat_map(|facts| facts.holds.iter()).map(|hold| text(hold)),
                )),
                Fact::Epoch => facts.and_then(|facts| facts.epoch).map(long),
                Fact::Observed => facts.map(|facts| RestrictedExpression::new_bool(facts.observed)),
                Fact::Node => facts.map(|facts| RestrictedExpression::new_string(facts.node.to_string())),
                Fact::EvidenceAge => facts.and_then(|facts| facts.evidence_age).map(long),
                Fact::Profile => facts.and_then(|facts| facts.profile.as_deref()).map(text),
                Fact::Boot => facts.and_then(|facts| facts.boot.as_deref()).map(text),
                Fact::CredentialAge => facts.and_then(|facts| facts.credential_age).map(long),
                Fact::Standing => facts.map(|facts| text(facts.standing.as_str())),
                Fact::EndorsedBy => facts.map(|facts| text(facts.endorsed_by.as_str())),
                Fact::SecureBoot => {
                    facts.and_then(|facts| facts.secure_boot).map(RestrictedExpression::new_bool)
                }
                Fact::Kernel => facts.and_then(|facts| facts.kernel.as_deref()).map(text),
                Fact::Firmware => facts.and_then(|facts| facts.firmware.as_deref()).map(text),
                Fact::MayRead => service.map(|service| RestrictedExpression::new_bool(service.may_read)),
                Fact::MaySignal => service.map(|service| RestrictedExpression::new_bool(service.may_signal)),
            };
            record.extend(value.map(|value| (fact.name().to_owned(), value)));
        }
        record
    }
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn long(number: u64) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(number).unwrap_or(i64::MAX))
}

fn trust(vector: &TrustVector) -> RestrictedExpression {
    // By name, so that a claim that is added cannot be forgotten here.
    let TrustVector {
        instance_identity,
        configuration,
        executables,
        file_system,
        hardware,
        runtime_opaque,
        storage_opaque,
        sourced_data,
    } = vector;
    let claims = [
        ("instance_identity", instance_identity.value()),
        ("configuration", configuration.value()),
        ("executables", executables.value()),
        ("file_system", file_system.value()),
        ("hardware", hardware.value()),
        ("runtime_opaque", runtime_opaque.value()),
        ("storage_opaque", storage_opaque.value()),
        ("sourced_data", sourced_data.value()),
    ];
    let claims = claims.map(|(name, value)| (name.to_owned(), RestrictedExpression::new_long(value.into())));
    // The names are distinct: a record of them cannot fail to be one.
    RestrictedExpression::new_record(claims).unwrap_or_else(|_| RestrictedExpression::new_bool(false))
}

/// Declares the attributes of `Rootbound::Attested`.
macro_rules! facts {
    ($($(#[$of:meta])* $fact:ident = $bit:literal, $name:literal;)*) => {
        /// An attribute of `context.attested`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fact {
            $($(#[$of])* $fact,)*
        }

        impl Fact {
            /// Every one.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$fact),*];

            const fn bit(self) -> u32 {
                match self {
                    $(Self::$fact => 1 << $bit,)*
                }
            }

            /// The attribute.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$fact => $name,)*
                }
            }
        }
    };
}

facts! {
    /// How it stands.
    Posture = 0, "posture";
    /// What its appraisal claims.
    Trust = 1, "trust";
    /// `key=value`.
    Labels = 2, "labels";
    /// `name@version`.
    References = 3, "references";
    /// Its id.
    Node = 4, "node";
    /// Seconds.
    EvidenceAge = 5, "evidence_age";
    /// `name@version`.
    Profile = 6, "profile";
    /// `RESETS.RESTARTS`.
    Boot = 7, "boot";
    /// Seconds.
    CredentialAge = 8, "credential_age";
    /// Where it is in its life.
    Standing = 9, "standing";
    /// Who vouches for its EK.
    EndorsedBy = 10, "endorsed_by";
    /// Whether it was on.
    SecureBoot = 11, "secure_boot";
    /// Its digest.
    Kernel = 12, "kernel";
    /// Its version or digest.
    Firmware = 13, "firmware";
    /// Of a service.
    MayRead = 14, "may_read";
    /// Of a service.
    MaySignal = 15, "may_signal";
    /// `block:WHO`, `lower:WHO`.
    Holds = 16, "holds";
    /// Rises whenever what was handed out before counts no more.
    Epoch = 17, "epoch";
    /// Whether it deviates, and its profile only records that.
    Observed = 18, "observed";
}

/// Attributes of `context.attested`, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FactSet(u32);

impl FactSet {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(u32::MAX);

    /// Whether it is in it.
    #[must_use]
    pub const fn contains(self, fact: Fact) -> bool {
        self.0 & fact.bit() != 0
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, fact: Fact) -> Self {
        Self(self.0 | fact.bit())
    }
}
