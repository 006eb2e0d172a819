//! A policy bundle for tests and loads: who may do what to databases.

use rootbound_verifier::flows::Verifier;
use rootbound_verifier::flows::policies::WhichBundle;
use rootbound_verifier::policy::{Bundle, BundleSource};

use crate::world::operator;

/// The operator's types: databases, and what is done to them.
const SCHEMA: &str = r#"
entity database;

action "db:read", "db:write", "db:drop" appliesTo {
    principal: [Rootbound::Node],
    resource: [database],
    context: {
        attested: Rootbound::Attested,
        request: { subject: {}, action: {}, resource: {}, context: { reason?: String } },
    },
};
"#;

const POLICIES: &str = r#"
@id("read")
permit (principal is Rootbound::Node, action == Action::"db:read", resource is database);

@id("write-in-production")
permit (principal is Rootbound::Node, action == Action::"db:write", resource is database)
when { context.attested.labels.contains("env=prod") };

// It cannot be undone.
@id("drop-with-fresh-evidence")
@fresh("30")
permit (principal is Rootbound::Node, action == Action::"db:drop", resource is database)
when { context.attested.labels.contains("env=prod") };

@id("read-only")
forbid (principal, action, resource == database::"archive")
unless { action == Action::"db:read" };
"#;

/// The bundle `databases@1`.
///
/// # Panics
/// Never: its file has a name.
#[must_use]
pub fn databases() -> BundleSource {
    // Who gets a credential, and who may ask about whom, is as ever.
    let mut source = BundleSource { schema: Some(SCHEMA.to_owned()), ..Bundle::builtin_source() };
    source.policies.insert("databases.cedar".parse().expect("a name"), POLICIES.to_owned());
    source
}

const TOKENS: &str = r#"
@id("act-at-orders")
permit (
    principal is Rootbound::Node,
    action == Rootbound::Action::"Act",
    resource == Rootbound::Resource::"https://orders.example"
);

@id("jwt-svid")
permit (
    principal is Rootbound::Node,
    action == Rootbound::Action::"IssueUnboundCredential",
    resource == Rootbound::Credential::"jwt-svid"
);
"#;

/// The same, and tokens for the service `https://orders.example`, and JWT-SVIDs.
///
/// # Panics
/// Never: its file has a name.
#[must_use]
pub fn tokens() -> BundleSource {
    let mut source = databases();
    source.policies.insert("tokens.cedar".parse().expect("a name"), TOKENS.to_owned());
    source
}

/// A bundle that permits nothing to anybody.
///
/// # Panics
/// Never: its file has a name.
#[must_use]
pub fn nothing() -> BundleSource {
    let mut source = BundleSource::default();
    let policy = "@id(\"nothing\")\nforbid (principal, action, resource);\n";
    source.policies.insert("nothing.cedar".parse().expect("a name"), policy.to_owned());
    source
}

/// Writes the next version of a bundle and puts it in force, as an operator does.
///
/// # Panics
/// Where it is refused.
pub async fn put_in_force(verifier: &Verifier, name: &str, source: BundleSource) {
    let name = name.parse().expect("a name");
    let (written, _warnings) = verifier.put_policy(name, source, &operator()).await.expect("a bundle");
    let which = WhichBundle::Written { name: written.id.name, version: Some(written.id.version) };
    verifier.activate_policy(&which, None, &operator()).await.expect("in force");
}
