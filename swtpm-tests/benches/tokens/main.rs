//! Tokens by the second: fetched by an attester whose key is in a software TPM, exchanged by a service, looked at,
//! and enforced, beside the bare cost of the signatures; and how soon one is inactive whose node drifts.
//!
//! The verifier runs in this process, over TLS on loopback, on a SQLite file; the generator shares its threads.
//! `scripts/bench tokens` runs this and prints the table.

mod drift;
mod service;
mod signatures;
mod way;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rootbound_attester::client::ClientIdentity;
use rootbound_attester::token::wish::{HeldBy, Permissions};
use rootbound_attester::token::{Token, TokenWish, Tokens, Wished};
use rootbound_common::clock::Clock;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::measured::{Load, Row};
use rootbound_swtpm_tests::policies;
use rootbound_swtpm_tests::world::{Machine, World};
use rootbound_verifier::policy::BundleSource;
use tokio::task::JoinSet;

use crate::service::{Key, Service};

/// Whom the tokens are for.
pub(crate) const ORDERS: &str = "https://orders.example";
/// What the verifier calls itself.
pub(crate) const PUBLIC_URL: &str = "https://verifier.test.example";
/// Workloads that want tokens at once; requests under way are fewer.
const WORKLOADS: usize = 32;
/// Connections that a service keeps, with one request under way on each.
const CONNECTIONS: usize = 64;

/// From the evidence to the first answer that says so.
const INACTIVE: Duration = Duration::from_millis(5);

/// What a gateway in front of the service asks by.
const ROUTES: &str = "
[[route]]
method = 'GET'
host = 'orders.example'
path = '/orders'
action = 'Act'
resource = { type = 'resource', id = 'https://orders.example' }
audience = 'https://orders.example'
";

/// Lets services exchange tokens for ones of their own, held by a key in software.
const EXCHANGE: &str = r#"
@id("act-for")
@accepts("unattested")
permit (principal is Rootbound::Service, action == Rootbound::Action::"ActFor", resource is Rootbound::Node)
when { context.attested has may_read && context.attested.may_read };

@id("software-keys")
permit (
    principal is Rootbound::Node,
    action == Rootbound::Action::"IssueUnboundCredential",
    resource == Rootbound::Credential::"software-key-token"
);
"#;

fn bundle() -> BundleSource {
    let mut source = BundleSource { routes: Some(ROUTES.to_owned()), ..policies::tokens() };
    source.policies.insert("exchange.cedar".parse().expect("a name"), EXCHANGE.to_owned());
    // Those of the bundle that this adds to say otherwise.
    source.cases.clear();
    source
}

#[tokio::main]
async fn main() {
    // Without `--bench` everything runs for a moment, to see that it does.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let lasts = Duration::from_millis(if measuring { 8000 } else { 50 });
    let publish = |row: Row| {
        if measuring {
            row.publish();
        }
    };
    let bare = signatures::measure(lasts / 8);
    publish(Row::time("an ES256 signature by aws-lc-rs, one thread", bare.sign));
    publish(Row::time("an ES256 verification by aws-lc-rs, one thread", bare.verify));

    let gateway = Gateway::new();
    let mut section = gateway.section("orders", &[]);
    section.audiences.push(ORDERS.to_owned().try_into().expect("an audience"));
    let swtpm = Swtpm::manufacture();
    let world = World::builder()
        .manufacturers(&[swtpm.manufacturer()])
        .relying_party(section)
        .public_url(PUBLIC_URL)
        .start()
        .await;
    policies::put_in_force(&world.verifier, "exchange", bundle()).await;
    let machine = world.affirming(swtpm).await;
    let (token, fetched) = fetch(&world, &machine, lasts).await;
    let each = |load: &Load| Duration::from_secs_f64(1.0 / load.per_second());
    let both = bare.sign + bare.verify;
    let against = |row: Row, load: &Load| {
        let ratio = each(load).as_secs_f64() / both.as_secs_f64();
        row.against("a signature and a verification", both, ratio)
    };
    let row =
        fetched.row(format!("tokens fetched by an attester over swtpm, {WORKLOADS} workloads, one proof"));
    publish(against(row, &fetched).rate_at_least(fetched.per_second(), 1_000.0));

    let text = token.access_token.reveal();
    let (world, gateway, connections) = (&world, &gateway, CONNECTIONS);
    let service = Service { world, gateway, connections, lasts };
    let key = Arc::new(Key::generate());
    let exchanged = service.exchanges(&key, text).await;
    let row = exchanged.row(format!("token exchange, a DPoP proof each, {CONNECTIONS} connections kept"));
    publish(against(row, &exchanged).rate_at_least(exchanged.per_second(), 2_500.0));
    let looked_at = service.introspections(text).await;
    let row = looked_at.row(format!("introspection of a known token, {CONNECTIONS} connections kept"));
    publish(row.rate_at_least(looked_at.per_second(), 15_000.0));
    let held = service.exchanged(&key, text).await;
    let enforced = service.enforcements(&key, &held).await;
    let row = enforced.row(format!("forward-auth, a DPoP proof each, {CONNECTIONS} connections kept"));
    publish(against(row, &enforced).rate_at_least(enforced.per_second(), 5_000.0));

    let drifted = drift::measure(world, gateway, if measuring { 25 } else { 1 }).await;
    let name = "evidence of drift sent to introspection says inactive";
    publish(Row::time(format!("{name}, p50"), drifted.percentile(50)));
    let slow = drifted.percentile(99);
    publish(Row::time("the same, p99", slow).time_at_most(slow, INACTIVE));
}

/// Fetches tokens as an attester does, after a first one, for which there is a connection and a proof.
async fn fetch(world: &World, machine: &Machine, lasts: Duration) -> (Token, Load) {
    let credential = machine.attester.credential().expect("a credential");
    let identity = ClientIdentity::new(machine.tpm.clone(), credential).expect("an identity");
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let tokens = Arc::new(Tokens::new(world.client(), identity, clock).expect("a key on P-256"));
    let permissions =
        Permissions { held_by: HeldBy::Key, scope: Vec::new(), details: Vec::new(), once: false };
    let audience = ORDERS.parse().expect("an audience");
    let wish = TokenWish::new(vec![audience], Wished::AccessToken(permissions)).expect("a wish");
    let first = tokens.fetch(&wish).await.expect("a token");
    let begun = Instant::now();
    let tasks: JoinSet<Vec<Duration>> = (0..WORKLOADS)
        .map(|_| {
            let (tokens, wish) = (Arc::clone(&tokens), wish.clone());
            async move {
                let mut waits = Vec::new();
                while begun.elapsed() < lasts || waits.is_empty() {
                    let start = Instant::now();
                    tokens.fetch(&wish).await.expect("a token");
                    waits.push(start.elapsed());
                }
                waits
            }
        })
        .collect();
    let waits = tasks.join_all().await.concat();
    (first, Load::new(waits, begun.elapsed()))
}
