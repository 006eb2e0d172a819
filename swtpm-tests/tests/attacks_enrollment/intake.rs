//! Attacks 19 and 20: texts that are more than text, and too much of everything.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rootbound_common::clock::Clock;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_common::wire::v1::{EnrollRequest, JoinToken, Problem};
use rootbound_swtpm_tests::https::{Https, Reply};
use rootbound_swtpm_tests::manual::{activation, certificates};
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::vendor::{Draft, Vendor};
use rootbound_swtpm_tests::watch::Bystander;
use rootbound_swtpm_tests::world::{Simulated, World, WorldBuilder, refused};
use rootbound_verifier::config::StateDirectory;
use rootbound_verifier::flows::Limits;
use rootbound_verifier::http::admin::AdminSocket;
use rootbound_verifier::http::{Limits as HttpLimits, Rate};
use rootbound_verifier::store::WAITING_OF_ONE_KEY;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

/// What every text of an attack holds: nobody may log it.
const MARK: &str = "pwned";

/// Texts that break out of a line, colour or reorder it, hide in it, or leave a folder.
fn tricks() -> Vec<String> {
    let starts = [
        "\n",
        "\r\nX-Injected: 1 ",
        "\0",
        "\t",
        "\u{7f}",
        "\u{1b}[31m",
        "\u{9b}31m",
        "\u{85}",
        "\u{202e}",
        "\u{2066}",
        "\u{200b}",
        "\u{2028}",
        "\u{feff}",
        "\u{e0041}",
        "\u{61c}",
        "../../",
        "..%2f",
        "%0a",
        "é",
        "'; DROP TABLE node; --",
        "<script>",
        "${jndi:x}",
        " ",
    ];
    starts.map(|start| format!("{start}{MARK}")).into()
}

/// Node ids that are almost one.
fn almost_ids(id: NodeId) -> Vec<String> {
    let id = id.to_string();
    let wide = id.replace('0', "\u{ff10}").replace('1', "\u{ff11}");
    vec![
        format!("{id}\n"),
        format!(" {id}"),
        format!("../{id}"),
        format!("{}\u{1b}[0m", &id[..60]),
        format!("{id}\u{200b}"),
        format!("{id}/../{id}"),
        id.to_uppercase(),
        id[..62].to_owned(),
        wide,
        String::new(),
    ]
}

/// Every text that our code logs in this process, before any formatter makes it harmless.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn of_this_process() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Self::default();
            let subscriber = tracing_subscriber::registry().with(log.clone());
            tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");
            log
        });
        log.clone()
    }

    fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("rootbound") {
            event.record(&mut self.clone());
        }
    }
}

impl Visit for Log {
    fn record_str(&mut self, _: &Field, value: &str) {
        self.0.lock().unwrap().push(value.to_owned());
    }

    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push(format!("{value:?}"));
    }
}

/// Whether a text does nothing but show.
fn only_shows(text: &str) -> bool {
    !text.chars().any(|c| {
        let hidden = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
        c.is_control() || hidden || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
    })
}

/// The code of a refusal, whose document does nothing but show, before and after it is parsed.
fn clean_code(reply: &Reply) -> String {
    let text = std::str::from_utf8(&reply.body).unwrap();
    assert!(only_shows(text), "{text:?}");
    assert!(!reply.head.contains("X-Injected"), "{}", reply.head);
    let Problem { detail, title, kind, code, .. } = serde_json::from_str(text).unwrap();
    assert!([&detail, &title, &kind, &code].into_iter().all(|text| only_shows(text)), "{text:?}");
    assert!(detail.len() < 400, "{detail}");
    code
}

/// The messages of the protocol, with a text in each place where a text can be.
fn hostile_messages(text: &str) -> Vec<(&'static str, Value)> {
    let enroll = |field: &str, value: Value| {
        let mut message = json!({ "ek_public": "", "ek_certificates": [], "ak_public": "" });
        message[field] = value;
        ("/v1/enrollments", message)
    };
    let evidence = |field: &str, value: Value| {
        let mut message = json!({ "challenge": "", "quote": "", "signature": "", "pcrs": {} });
        message[field] = value;
        ("/v1/evidence", message)
    };
    vec![
        ("/v1/challenges", json!({ "node": text })),
        ("/v1/challenges", json!({ text: text })),
        enroll("ek_public", json!(text)),
        enroll("ek_certificates", json!([text])),
        enroll("ak_public", json!(text)),
        enroll("join_token", json!([text])),
        enroll(text, json!(text)),
        ("/v1/enrollments/activate", json!({ "enrollment": text, "secret": "" })),
        ("/v1/enrollments/activate", json!({ "enrollment": "", "secret": text })),
        evidence("challenge", json!(text)),
        evidence("quote", json!(text)),
        evidence("pcrs", json!({ text: { text: text } })),
        evidence("pcrs", json!({ "sha256": { text: text } })),
        evidence("certificate_request", json!(text)),
        evidence(text, json!(0)),
    ]
}

/// Attack 19 (CVE-2022-23949): over the network.
#[tokio::test(flavor = "multi_thread")]
async fn texts_with_tricks_are_refused_and_not_repeated() {
    let log = Log::of_this_process();
    let vendor = Vendor::root("Vendor root");
    let world = World::builder().root(vendor.der()).start().await;
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let https = Https::to(&world.client());
    let almost = almost_ids(bystander.node());
    let almost = almost.iter().map(|id| ("/v1/challenges", json!({ "node": id })));
    for (path, message) in tricks().iter().flat_map(|text| hostile_messages(text)).chain(almost) {
        let attempt = async { clean_code(&https.post(path, &message).await) };
        watch.turns_away(format_args!("{path} {message}"), "body_malformed", attempt).await;
    }
    for path in [
        "/v1/challenges%0a",
        "/v1/../v1/challenges",
        "/v1/challenges/%2e%2e/pwned",
        "//v1/challenges",
        "/pwned%1b[31m",
    ] {
        let attempt = async { clean_code(&https.post_bytes(path, b"{}").await) };
        watch.turns_away(path, "unknown_route", attempt).await;
    }
    // What is no HTTP at all is answered before there is a request.
    for path in ["/\u{1b}[31mpwned", "/pwned\n", "/\u{202e}pwned"] {
        let reply = https.get(path).await;
        assert_eq!(
            (reply.status / 100, only_shows(&String::from_utf8_lossy(&reply.body))),
            (4, true),
            "{path:?}"
        );
    }
    watch.untouched("paths").await;

    // Texts that get as far as a decision: names in a certificate, and join tokens.
    let (machine, request) = vouched(&world, &vendor);
    for trick in ["\u{1b}[31mpwned\r\n", "\u{202e}pwned\u{2066}", "\u{e0041}\u{61c}pwned"] {
        let stranger = Vendor::root(trick);
        let leaf = stranger.endorse(&machine.tpm.endorsement_key.public(), &Draft::endorsement());
        let named = EnrollRequest { ek_certificates: certificates([&leaf]), ..request.clone() };
        let attempt = async { clean_code(&https.post("/v1/enrollments", &named).await) };
        let decision = watch.refuses(trick.escape_debug(), "endorsement_unknown_issuer", attempt).await;
        assert!(only_shows(&decision.detail), "{:?}", decision.detail);
        let shown = EnrollRequest { join_token: Some(JoinToken(trick.to_owned())), ..request.clone() };
        let begun = machine.client.enroll(&shown).await.unwrap();
        let message = activation(&begun, &machine.open(&begun));
        let attempt = async { clean_code(&https.post("/v1/enrollments/activate", &message).await) };
        let decision = watch.refuses(trick.escape_debug(), "join_token_refused", attempt).await;
        assert!(!decision.detail.contains(MARK), "{:?}", decision.detail);
    }
    bystander.is_well(&world).await;
    let texts = log.texts();
    assert!(texts.iter().any(|text| text == "join_token_refused"), "the log was on");
    for text in texts {
        assert!(only_shows(&text) && !text.contains(MARK), "{text:?}");
    }
}

/// A machine that its vendor vouches for.
fn vouched(world: &World, vendor: &Vendor) -> (Simulated, EnrollRequest) {
    let tpm = SoftwareTpm::booted(&[HashAlgorithm::Sha256]);
    let node = NodeId::of_endorsement_key(&tpm.endorsement_key.subject_public_key_info());
    let certificate = vendor.endorse(&tpm.endorsement_key.public(), &Draft::endorsement());
    let simulated = Simulated { node, tpm, client: world.client() };
    let request =
        EnrollRequest { ek_certificates: certificates([&certificate]), ..simulated.enroll_request() };
    (simulated, request)
}

/// Posts a command to the administrative socket, byte by byte.
fn command(socket: &Path, message: &Value) -> Reply {
    let body = message.to_string();
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(
        stream,
        "POST /v1/commands HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.as_bytes().to_vec() }
}

/// What operators say, with a text in each place where a text can be.
fn hostile_commands(id: NodeId, text: &str) -> Vec<Value> {
    vec![
        json!({ "node_show": { "node": text } }),
        json!({ "node_approve": { "node": text, "reason": "" } }),
        json!({ "node_retire": { "node": text, "reason": "" } }),
        json!({ "node_label": { "node": id, "set": { text: "v" }, "remove": [], "reason": "" } }),
        json!({ "node_label": { "node": id, "set": { "k": text }, "remove": [], "reason": "" } }),
        json!({ "node_label": { "node": id, "set": {}, "remove": [text], "reason": "" } }),
        json!({ "node_list": { "posture": null, "labels": { text: text }, "after": null, "limit": 1 } }),
        json!({ "inventory_add": { "node": text, "waive_endorsement": true, "labels": {}, "reason": "" } }),
        json!({ "inventory_add": { "node": id, "waive_endorsement": true, "labels": { "k": text }, "reason": "" } }),
        json!({ "inventory_remove": { "node": text, "reason": "" } }),
        json!({ "join_token_create": { "node": text, "labels": {}, "lifetime": 60, "reason": "" } }),
        json!({ "reference_capture": { "node": id, "name": text, "reason": "" } }),
        json!({ "reference_show": { "name": text, "version": null } }),
        json!({ "reference_remove": { "name": text, "reason": "" } }),
        json!({ "profile_show": { "name": text, "version": null } }),
        json!({ text: { "node": id } }),
    ]
}

/// Attack 19: over the administrative socket, where people paste.
#[tokio::test(flavor = "multi_thread")]
async fn commands_with_tricks_are_refused_and_not_repeated() {
    let log = Log::of_this_process();
    let world = World::new(&[]).await;
    let bystander = Bystander::new(&world).await;
    let watch = bystander.watch(&world).await;
    let state = StateDirectory::create(&world.path().join("state")).unwrap();
    let lock = state.lock().unwrap();
    let admin = AdminSocket::start(Arc::clone(&world.verifier), &state, &lock, world.address()).unwrap();
    let socket = state.admin_socket();
    let ask = async |message: Value| {
        let socket = socket.clone();
        let reply = tokio::task::spawn_blocking(move || command(&socket, &message)).await.unwrap();
        clean_code(&reply)
    };
    let id = bystander.node();
    for text in tricks() {
        for message in hostile_commands(id, &text) {
            watch.turns_away(message.to_string(), "body_malformed", ask(message)).await;
        }
        let revoke = json!({ "join_token_revoke": { "id": text, "reason": "" } });
        watch.turns_away(revoke.to_string(), "not_found", ask(revoke)).await;
        if !only_shows(&text) {
            let retire = json!({ "node_retire": { "node": id, "reason": text } });
            watch.turns_away(retire.to_string(), "body_malformed", ask(retire)).await;
        }
    }
    admin.shutdown().await;
    bystander.is_well(&world).await;
    for text in log.texts() {
        assert!(only_shows(&text) && !text.contains(MARK), "{text:?}");
    }
}

/// Attack 20: more machines than there is room for, all of them genuine.
#[tokio::test(flavor = "multi_thread")]
async fn flood_of_enrollments_is_bounded_and_forgotten() {
    const ROOM: u32 = 5;
    let vendor = Vendor::root("Vendor root");
    // Time goes on while the test runs, on a busy machine too.
    let activation_time = Duration::from_secs(300);
    let limits = Limits { pending_enrollments: ROOM, activation: activation_time, ..Limits::default() };
    let world = World::builder().root(vendor.der()).limits(limits).start().await;
    let bystander = Bystander::new(&world).await;
    let (machine, request) = vouched(&world, &vendor);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (client, request) = (world.client(), request.clone());
        tasks.spawn(async move { client.enroll(&request).await });
    }
    let (mut begun, mut codes) = (Vec::new(), Vec::new());
    for outcome in tasks.join_all().await {
        match outcome {
            Ok(response) => begun.push(response),
            Err(error) => codes.push(refused::<()>(Err(error))),
        }
    }
    assert_eq!((begun.len(), codes), (5, vec!["too_many_enrollments".to_owned(); 35]));

    let mut watch = bystander.watch(&world).await;
    let https = Https::to(&machine.client);
    let attempt = async {
        let reply = https.post("/v1/enrollments", &request).await;
        assert_eq!((reply.status, reply.field("retry-after")), (503, Some("60")));
        reply.code()
    };
    watch.refuses("one more", "too_many_enrollments", attempt).await;
    bystander.is_well(&world).await;
    // Who is under way is not held up, and makes room.
    let first = begun.remove(0);
    machine.client.activate(&activation(&first, &machine.open(&first))).await.unwrap();
    machine.client.enroll(&request).await.unwrap();

    let store = world.verifier.store();
    assert_eq!(store.forget_enrollments(world.clock.now()).await.unwrap(), 0, "they wait still");
    world.advance(activation_time + Duration::from_secs(1));
    machine.client.enroll(&request).await.expect("what has expired takes no room");
    // What housekeeping leaves of 36 refusals, and of five enrolments that nobody answered in time.
    let day = Duration::from_secs(24 * 3600);
    world.verifier.forget(day, 10).await.unwrap();
    let decisions = store.decisions(None, 1000).await.unwrap();
    assert_eq!(decisions.iter().filter(|decision| !decision.granted).count(), 10);
    assert_eq!(store.forget_enrollments(world.clock.now()).await.unwrap(), 0);
    bystander.is_well(&world).await;
}

/// Attack 20: one machine, or somebody who knows its EK, that begins again and again.
#[tokio::test(flavor = "multi_thread")]
async fn one_ek_that_enrols_without_end_keeps_neither_others_nor_itself_out() {
    let vendor = Vendor::root("Vendor root");
    let room = WAITING_OF_ONE_KEY + 1;
    let limits = Limits { pending_enrollments: room, ..Limits::default() };
    let world = World::builder().root(vendor.der()).limits(limits).start().await;
    let (busy, request) = vouched(&world, &vendor);
    let first = busy.client.enroll(&request).await.unwrap();
    for _ in 0..3 * WAITING_OF_ONE_KEY {
        busy.client.enroll(&request).await.unwrap();
    }
    let (second, request_of_second) = vouched(&world, &vendor);
    let begun = second.client.enroll(&request_of_second).await.expect("there is room for another machine");
    second.client.activate(&activation(&begun, &second.open(&begun))).await.unwrap();

    let late = busy.client.activate(&activation(&first, &busy.open(&first))).await;
    assert_eq!(refused(late), "enrollment_unknown", "it gave way");
    let latest = busy.client.enroll(&request).await.unwrap();
    busy.client.activate(&activation(&latest, &busy.open(&latest))).await.unwrap();
}

/// Attack 20: one address that does not stop.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_enrols_so_often_and_no_more() {
    let plenty = Rate::new(1_000_000, 1_000_000);
    let enrollments = Rate::new(1, 5);
    let limits = HttpLimits { enrollments, attestations: plenty, queries: plenty, ..HttpLimits::default() };
    let world = World::builder().http_limits(limits).start().await;
    // Two messages.
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let stranger = Simulated { node: bystander.node(), tpm: SoftwareTpm::new(), client: world.client() };
    let request = stranger.enroll_request();
    let https = Https::to(&stranger.client);
    for round in 0..3 {
        let attempt = async { refused(stranger.client.enroll(&request).await) };
        watch.refuses(round, "endorsement_no_certificate", attempt).await;
    }
    for path in ["/v1/enrollments", "/v1/enrollments/activate"] {
        let attempt = async {
            let reply = https.post(path, &request).await;
            let wait: u64 = reply.field("retry-after").unwrap().parse().unwrap();
            assert!(reply.status == 429 && (1..=60).contains(&wait), "{wait}");
            reply.code()
        };
        watch.turns_away(path, "rate_limited", attempt).await;
    }
    bystander.is_well(&world).await;
}

/// Attack 20: messages that are too long, too deep, or more than one.
#[tokio::test(flavor = "multi_thread")]
async fn oversize_messages_are_turned_away_before_they_cost_anything() {
    let world = WorldBuilder::default().start().await;
    let bystander = Bystander::new(&world).await;
    let watch = bystander.watch(&world).await;
    let https = Https::to(&world.client());
    let stranger = Simulated { node: bystander.node(), tpm: SoftwareTpm::new(), client: world.client() };
    let honest = serde_json::to_value(stranger.enroll_request()).unwrap();
    let with = |field: &str, value: Value| {
        let mut message = honest.clone();
        message[field] = value;
        message.to_string().into_bytes()
    };
    let bytes = |count: usize| json!(data_encoding::BASE64URL_NOPAD.encode(&vec![7; count]));
    let enroll = "/v1/enrollments";
    let id = bystander.node();
    let cases = [
        ("long EK", enroll, "body_malformed", with("ek_public", bytes(1025))),
        ("long AK", enroll, "body_malformed", with("ak_public", bytes(1025))),
        ("long certificate", enroll, "body_malformed", with("ek_certificates", json!([bytes(8193)]))),
        ("deep", enroll, "body_malformed", [b"[".repeat(30_000), b"]".repeat(30_000)].concat()),
        ("deep field", enroll, "body_malformed", with("join_token", deep(200))),
        (
            "one field twice",
            "/v1/challenges",
            "body_malformed",
            format!(r#"{{"node":"{id}","node":"{id}"}}"#).into_bytes(),
        ),
        (
            "two documents",
            "/v1/challenges",
            "body_malformed",
            format!(r#"{{"node":"{id}"}}{{}}"#).into_bytes(),
        ),
        ("not UTF-8", "/v1/challenges", "body_malformed", b"{\"node\":\"\xff\xfe\"}".to_vec()),
        ("nothing", enroll, "body_malformed", Vec::new()),
        ("null", enroll, "body_malformed", b"null".to_vec()),
    ];
    for (what, path, code, body) in cases {
        let attempt = async { clean_code(&https.post_bytes(path, &body).await) };
        watch.turns_away(what, code, attempt).await;
    }
    // Refused by what the head says, before any of it arrives.
    for (what, path, code, field) in [
        ("long body", enroll, "body_too_large", "Content-Length: 65537"),
        ("long answer", "/v1/enrollments/activate", "body_too_large", "Content-Length: 4097"),
        ("long question", "/v1/challenges", "body_too_large", "Content-Length: 4097"),
        ("a GiB", enroll, "body_too_large", "Content-Length: 1073741824"),
        ("compressed", enroll, "content_encoding", "Content-Encoding: gzip"),
    ] {
        let fields = ["Content-Type: application/json", field];
        let attempt = async { clean_code(&https.send("POST", path, &fields, b"").await) };
        watch.turns_away(what, code, attempt).await;
    }
    bystander.is_well(&world).await;
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| json!([inner]))
}
