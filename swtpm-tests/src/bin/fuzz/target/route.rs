//! What a gateway says of a request, and the route that it finds.

use rootbound_verifier::policy::routes::NormalRequest;
use rootbound_verifier::policy::{Bundle, BundleSource};
use rootbound_verifier::reference::Versioned;

use super::{Outcome, Target};

const SCHEMA: &str = "
entity record;
action read, write appliesTo {
    principal: [Rootbound::Node], resource: [record], context: { attested: Rootbound::Attested },
};
";

/// The same path is declared with a part that is any, and by its letters.
const ROUTES: &str = "
[[route]]
method = 'GET'
host = 'db.example.org'
path = '/records/{id}'
action = 'read'
resource = { type = 'record', id = '{id}' }
audience = 'https://db.example.org'

[[route]]
method = 'GET'
host = 'db.example.org'
path = '/records/all'
action = 'write'
resource = { type = 'record', id = 'all' }
audience = 'https://db.example.org'
";

/// Method, scheme, host and target, each on a line of its own.
pub(super) struct RouteTarget(Bundle);

impl RouteTarget {
    pub(super) fn new() -> Self {
        let mut source = BundleSource {
            schema: Some(SCHEMA.to_owned()),
            routes: Some(ROUTES.to_owned()),
            ..Bundle::builtin_source()
        };
        let policy = "@id(\"read\") permit (principal, action == Action::\"read\", resource is record);";
        source.policies.insert("records.cedar".parse().expect("a name"), policy.to_owned());
        let id = Versioned { name: "records".parse().expect("a name"), version: 1 };
        Self(Bundle::compile(id, source).expect("a bundle"))
    }
}

impl Target for RouteTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let seeds = [
            "GET\nhttps\ndb.example.org\n/records/1?a=b",
            "GET\nhttps\ndb.example.org\n/records/all",
            "GET\nhttps\nDB.example.org:443\n/records/%c3%a4%20b/",
            "POST\nhttp\n[2001:db8::1]:8080\n/",
            "DELETE\nhttps\ndb.example.org\n/records/../all;x=1//%2e%2f%5C%00",
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).into()
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        let text = String::from_utf8_lossy(input);
        let mut lines = text.splitn(4, '\n');
        let [method, scheme, host, target] = std::array::from_fn(|_| lines.next().unwrap_or_default());
        let request = match NormalRequest::read(method, scheme, host, target) {
            Ok(request) => request,
            Err(error) => return Outcome { accepted: false, class: error.code().to_owned() },
        };
        let (path, host) = (request.path(), request.host());
        assert!(path.starts_with('/') && !path.contains("//"), "one slash between segments: {path}");
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8().expect("UTF-8");
        for reading in [path, &decoded] {
            let segments: Vec<_> = reading.split('/').collect();
            assert_eq!(segments.len(), path.split('/').count(), "no separator is encoded: {path}");
            assert!(!segments.iter().any(|segment| matches!(*segment, "." | "..")), "{path}");
            assert!(!reading.contains([';', '\\', '?', '#', '\0']), "{path}");
        }
        assert_eq!(
            percent_encoding::percent_decode_str(&decoded).decode_utf8().expect("UTF-8"),
            decoded,
            "decoding twice finds nothing more"
        );
        let again = NormalRequest::read(method, scheme, host, path).expect("what is normal is read");
        assert_eq!(again, request, "and stays as it is");
        assert_eq!(request.uri().as_str(), format!("{scheme}://{host}{path}"), "a proof names the same");
        let class = match self.0.routes().find(&request) {
            None => "no route".to_owned(),
            Some(matched) => {
                let (kind, id) = matched.resource();
                assert_eq!((method, host, kind), ("GET", "db.example.org", "record"));
                assert_eq!(decoded, format!("/records/{id}"), "the resource is what the path says");
                assert_eq!(matched.route().action(), if id == "all" { "write" } else { "read" });
                match matched.question(&"ab".repeat(32)) {
                    Ok(_) => "a route".to_owned(),
                    Err(error) => error.code().to_owned(),
                }
            }
        };
        Outcome { accepted: true, class }
    }
}
