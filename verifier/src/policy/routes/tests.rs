use proptest::prelude::*;

use super::*;
use crate::policy::{Bundle, BundleSource};
use crate::reference::Versioned;

const SCHEMA: &str = r#"
entity Record;
action Read, Write appliesTo {
    principal: [Rootbound::Node], resource: [Record], context: { attested: Rootbound::Attested },
};
action Mend appliesTo {
    principal: [Rootbound::Service], resource: [Record], context: { attested: Rootbound::Attested },
};
"#;

fn compile(routes: &str) -> Result<Bundle, BundleError> {
    let source = BundleSource {
        schema: Some(SCHEMA.to_owned()),
        routes: Some(routes.to_owned()),
        ..Bundle::builtin_source()
    };
    Bundle::compile(Versioned { name: "routes".parse().unwrap(), version: 1 }, source)
}

fn route(method: &str, host: &str, path: &str, id: &str) -> String {
    format!(
        "[[route]]\nmethod = '{method}'\nhost = '{host}'\npath = '{path}'\naction = 'Read'\n\
         resource = {{ type = 'Record', id = '{id}' }}\naudience = 'https://db.example.org'\n"
    )
}

fn get(path: &str, id: &str) -> String {
    route("GET", "db.example.org", path, id)
}

/// The resource that a request is about, by these paths, of which each is a resource's id, too.
fn found(bundle: &Bundle, method: &str, target: &str) -> Option<String> {
    let request = NormalRequest::read(method, "https", "db.example.org", target).unwrap();
    bundle.routes().find(&request).map(|matched| matched.resource().1.to_owned())
}

#[test]
fn the_most_specific_route_is_found_and_its_parameters_are_in_the_resource() {
    let routes = [
        get("/", "root"),
        get("/customers/{customer}", "one/{customer}"),
        get("/customers/all", "all"),
        get("/customers/{customer}/orders/{order}", "{customer}:{order}!"),
        get("/customers/{*rest}", "rest/{rest}"),
        get("/files/", "files"),
        route("POST", "db.example.org", "/customers/{customer}", "posted/{customer}"),
        route("GET", "db.example.org:8443", "/port", "port"),
        "[[route]]\nmethod = 'GET'\nhost = 'one.example.org'\npath = '/once'\naction = 'Write'\none_time = true\n\
         resource = { type = 'Record', id = 'x' }\naudience = 'one'\n"
            .to_owned(),
    ];
    let bundle = compile(&routes.concat()).unwrap();
    assert_eq!(bundle.routes().len(), 9);
    assert!(!bundle.routes().is_empty() && Bundle::builtin().unwrap().routes().is_empty());
    let found = |method, target| found(&bundle, method, target);
    for (target, expected) in [
        ("/", Some("root")),
        ("/?x=/customers/all", Some("root")),
        ("/customers/all", Some("all")),
        ("/customers/al", Some("one/al")),
        ("/customers/alle", Some("one/alle")),
        ("/customers/1?orders", Some("one/1")),
        ("/customers/a%20b", Some("one/a b")),
        ("/customers/%c3%a4", Some("one/\u{e4}")),
        ("/customers/1/orders/2", Some("1:2!")),
        ("/customers/1/orders", Some("rest/1/orders")),
        ("/customers/1/orders/2/3", Some("rest/1/orders/2/3")),
        ("/customers/1/", Some("rest/1/")),
        ("/files/", Some("files")),
        ("/files", None),
        ("/customers", None),
        ("/customers/", None),
        ("/Customers/all", None),
        ("/port", None),
    ] {
        assert_eq!(found("GET", target).as_deref(), expected, "{target}");
    }
    assert_eq!(found("POST", "/customers/1").as_deref(), Some("posted/1"));
    for method in ["HEAD", "PUT", "OPTIONS"] {
        assert_eq!(found(method, "/customers/1"), None, "{method}");
    }
    let request = NormalRequest::read("GET", "https", "DB.example.org:8443", "/port").unwrap();
    assert_eq!(bundle.routes().find(&request).unwrap().resource(), ("Record", "port"));
    let request = NormalRequest::read("GET", "https", "one.example.org:443", "/once").unwrap();
    let matched = bundle.routes().find(&request).unwrap();
    assert_eq!((matched.route().action(), matched.route().one_time()), ("Write", true));
    assert_eq!(matched.route().audience().as_str(), "one");
    let question = matched.question("n").unwrap();
    assert_eq!((question.action().name.as_str(), question.resource().id.as_str()), ("Write", "x"));
}

#[test]
fn each_fault_of_a_table_has_its_reason() {
    let refused = |text: &str| compile(text).unwrap_err();
    let error = |text: &str| match refused(text) {
        BundleError::Route { number: 1, error } => error,
        other => panic!("{text}: {other}"),
    };
    let good = get("/a", "x");
    assert!(compile(&good).is_ok());
    use RouteError as R;
    for method in ["", "get", "G T", "GET,HEAD", &"A".repeat(21)] {
        assert_eq!(error(&route(method, "db.example.org", "/a", "x")), R::Method, "{method}");
    }
    for host in
        ["", "DB.example.org", "db.example.org:443", "db.example.org:80", "*.example.org", "a/b", "a@b"]
    {
        assert_eq!(error(&route("GET", host, "/a", "x")), R::Host, "{host}");
    }
    for path in [
        "", "a", "//", "/a//b", "/./a", "/a/..", "/a;b", "/a%20b", "/a b", "/{a", "/a}", "/{}", "/{a-b}",
        "/x{a}", "/{*a}/b", "/{*}", "/a?b", "/a#b", "/{{a}}", "/\u{e4}",
    ] {
        assert_eq!(error(&get(path, "x")), R::Path, "{path}");
    }
    assert_eq!(error(&get(&format!("/{}", "a".repeat(Route::MAX_PATH)), "x")), R::Path);
    let many: String = (0..=Route::MAX_PARAMETERS).map(|number| format!("/{{p{number}}}")).collect();
    assert_eq!(error(&get(&many, "x")), R::TooManyParameters);
    assert_eq!(error(&get("/{a}/{a}", "x")), R::ParameterTwice);
    for id in ["", "{b}", "{a", "a}", "{*a}", "{{a}}", &"x".repeat(1025)] {
        assert_eq!(error(&get("/{a}", id)), R::ResourceId, "{id}");
    }
    let action = |name: &str, kind: &str| {
        good.replace("'Read'", &format!("'{name}'")).replace("'Record'", &format!("'{kind}'"))
    };
    assert_eq!(error(&action("Drop", "Record")), R::Action { action: "Drop".to_owned() });
    for (name, kind) in [("Mend", "Record"), ("Read", "resource"), ("Read", "Nothing"), ("Act", "Record")] {
        let (action_name, resource) = (name.to_owned(), kind.to_owned());
        assert_eq!(
            error(&action(name, kind)),
            R::Resource { action: action_name, resource },
            "{name} {kind}"
        );
    }
    assert!(compile(&action("Act", "resource")).is_ok());
    assert_eq!(error(&good.replace("https://db", "a b")), R::Audience);
    for (one, other) in [("/a", "/a"), ("/{a}", "/{b}"), ("/x/{*a}", "/x/{*b}"), ("/{a}/y", "/{b}/y")] {
        let BundleError::Route { number: 2, error } = refused(&(get(one, "x") + &get(other, "x"))) else {
            panic!("{one} {other}")
        };
        assert_eq!(error, R::Same { other: 1 }, "{one} {other}");
    }
    for text in ["[[route]]\nmethod = 'GET'\n", "x = 1", "[[route]", &(good.clone() + "more = 1\n")] {
        let error = refused(text);
        assert!(matches!(error, BundleError::RoutesUnparsable { .. }), "{error}");
        assert_eq!(error.code(), "routes_unparsable");
    }
    let many =
        |count: usize| -> String { (0..count).map(|number| get(&format!("/{number}"), "x")).collect() };
    assert_eq!(refused(&many(1_001)), BundleError::TooManyRoutes { count: 1_001 });
    assert_eq!(compile(&many(1_000)).unwrap().routes().len(), 1_000);
}

#[test]
fn a_request_that_two_readers_could_take_for_different_ones_is_refused() {
    use RequestError as E;
    let read =
        |target: &str| NormalRequest::read("GET", "https", "h", target).map(|read| read.path().to_owned());
    for (target, expected) in [
        ("/", "/"),
        ("/a/b/", "/a/b/"),
        ("/a?b=/../;c", "/a"),
        ("/a:b@c,d=e+f!$&'()*", "/a:b@c,d=e+f!$&'()*"),
        ("/%e4%bd%a0", "/%E4%BD%A0"),
        ("/a%20b%3a", "/a%20b%3A"),
        ("/...", "/..."),
    ] {
        assert_eq!(read(target).as_deref(), Ok(expected), "{target}");
    }
    for target in [
        "//",
        "//a",
        "/a//b",
        "/.",
        "/..",
        "/a/../b",
        "/a/./b",
        "/a/..",
        "/a;b",
        "/a;/b",
        "/a\\b",
        "/..\\a",
        "/%2fa",
        "/a%2Fb",
        "/a%5cb",
        "/a%3bb",
        "/a%3fb",
        "/a%23b",
        "/%25",
        "/a%252fb",
        "/%2e",
        "/%2e%2e/a",
        "/%61",
        "/%41dmin",
        "/%7e",
        "/%00",
        "/%0a",
        "/%7f",
        "/%ff",
        "/%c0%af",
        "/%e2%80%ae",
        "/%c2%85",
        "/%ed%a0%80",
    ] {
        assert!(matches!(read(target), Err(E::Ambiguous(_))), "{target}: {:?}", read(target));
    }
    for target in [
        "",
        "a",
        "*",
        "?a",
        "https://h/a",
        "/a b",
        "/a\t",
        "/\u{e4}",
        "/a\u{0}",
        "/%",
        "/%2",
        "/%zz",
        "/%+1",
        "/a?b c",
        "/a?\u{e4}",
        "/a#b",
        "/a?b#c",
        "/{a}",
        "/a|b",
        "/a\"b",
        "/<a>",
        "/a^b",
        "/a`b",
    ] {
        assert_eq!(read(target), Err(E::Target), "{target}");
    }
    assert_eq!(read(&format!("/?{}", "a".repeat(NormalRequest::MAX))), Err(E::TooLong));
    assert_eq!(read(&format!("/{}", "a".repeat(2048))), Err(E::TooLong));
    for method in ["", "get", "GET ", "G\u{0}T"] {
        assert_eq!(NormalRequest::read(method, "https", "h", "/"), Err(E::Method), "{method}");
    }
    for scheme in ["", "HTTPS", "ftp", "https, http", "wss"] {
        assert_eq!(NormalRequest::read("GET", scheme, "h", "/"), Err(E::Scheme), "{scheme}");
    }
    for host in ["", "h, h", "h/x", "u@h", "h:x", "h:70000", "h%2e", "h?", "[::1", "h h", "h\u{e4}"] {
        assert_eq!(NormalRequest::read("GET", "https", host, "/"), Err(E::Host), "{host}");
    }
    let request = NormalRequest::read("GET", "http", "H.example.org:80", "/a?b").unwrap();
    assert_eq!((request.host(), request.uri().as_str()), ("h.example.org", "http://h.example.org/a"));
    let codes =
        [E::Method, E::Scheme, E::Host, E::Target, E::Ambiguous(""), E::TooLong].map(|error| error.code());
    assert_eq!(codes.iter().collect::<std::collections::BTreeSet<_>>().len(), 6);
}

/// How a declared segment fits one of a request: a text best, the rest worst.
fn specificity(declared: &str, found: &str) -> Option<u8> {
    match declared {
        "{p}" if !found.is_empty() => Some(1),
        _ if declared == found => Some(2),
        _ => None,
    }
}

/// The most specific declared path, by trying all.
fn by_trying(declared: &[String], target: &str) -> Option<String> {
    let found: Vec<_> = target.split('/').skip(1).collect();
    let fits = |path: &str| {
        let mut rank = Vec::new();
        let segments: Vec<_> = path.split('/').skip(1).collect();
        for (index, segment) in segments.iter().enumerate() {
            if *segment == "{*r}" {
                let rest = found.get(index..).unwrap_or_default().join("/");
                rank.push(0);
                return (!rest.is_empty()).then_some(rank);
            }
            rank.push(specificity(segment, found.get(index)?)?);
        }
        (segments.len() == found.len()).then_some(rank)
    };
    declared.iter().filter_map(|path| Some((fits(path)?, path.clone()))).max().map(|(_, path)| path)
}

proptest! {
    #[test]
    fn the_table_finds_what_trying_all_routes_finds(
        paths in proptest::collection::btree_set("(/(a|b|ab|\\{p\\})){1,3}(/\\{\\*r\\})?|/\\{\\*r\\}", 1..6),
        target in "(/(a|b|ab|c)){1,4}/?",
    ) {
        // Each of its parameters has a name of its own.
        let named = |path: &String| path.split("{p}").enumerate().fold(String::new(), |whole, (number, part)| {
            if number == 0 { part.to_owned() } else { format!("{whole}{{p{number}}}{part}") }
        });
        let text: String = paths.iter().map(|path| get(&named(path), &path.replace(['{', '}'], "_"))).collect();
        let declared: Vec<_> = paths.into_iter().collect();
        let bundle = compile(&text).unwrap();
        let expected = by_trying(&declared, &target).map(|path| path.replace(['{', '}'], "_"));
        prop_assert_eq!(found(&bundle, "GET", &target), expected, "{:?} {}", declared, target);
    }

    #[test]
    fn no_request_makes_it_panic(method in "\\PC{0,8}", scheme in "https?|\\PC{0,4}", host in "\\PC{0,9}|[a-z:0-9\\[\\].]{0,9}", target in "/?[/.%0-9a-f;\\\\?#ä]{0,20}|\\PC{0,20}") {
        if let Ok(read) = NormalRequest::read(&method, &scheme, &host, &target) {
            prop_assert!(read.path().starts_with('/') && !read.path().contains("//"));
            let again = NormalRequest::read(&method, &scheme, read.host(), read.path());
            prop_assert_eq!(again, Ok(read));
        }
    }
}
