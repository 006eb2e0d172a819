//! A policy bundle for tests and loads: who may do what to databases.

use rootbound_verifier::policy::{Bundle, BundleSource};
use rootbound_verifier::reference::Versioned;

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
/// Where it does not compile: that is a bug of the bundle, or of the compiler.
#[must_use]
pub fn databases() -> Bundle {
    // Who gets a credential, and who may ask about whom, is as ever.
    let mut source = BundleSource { schema: Some(SCHEMA.to_owned()), ..Bundle::builtin_source() };
    source.policies.insert("databases.cedar".parse().expect("a name"), POLICIES.to_owned());
    let id = Versioned { name: "databases".parse().expect("a name"), version: 1 };
    Bundle::compile(id, source).unwrap_or_else(|error| panic!("{error}"))
}
