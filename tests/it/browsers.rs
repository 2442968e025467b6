//! What browsers are let do, on whose machine and for whose page: cross-origin senders, and protected mode.

use harness::{Daemon, Response, event_with};
use serde_json::json;

use crate::routes::described;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const ORIGIN: (&str, &str) = ("origin", "https://shop.example");

/// The requests of a kind that needs a token, and that change nothing that is there.
fn guarded(code: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for route in described().into_iter().filter(|route| route.role.is_some()) {
        if route.method == "GET" {
            found.push(("HEAD".to_owned(), route.example()));
        }
        found.push((route.method.clone(), route.example()));
    }
    let path = format!("/api/v1/events?trackingCode={code}");
    found.extend([("GET".to_owned(), path), ("GET".to_owned(), "/api/v1/websites/web-1/".to_owned())]);
    found
}

/// Sends a request whose head says exactly this.
fn send(daemon: &Daemon, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut client = daemon.client();
    client.write(format!("{method} {target} HTTP/1.1\r\n{lines}\r\n").as_bytes()).unwrap();
    client.read_response(method == "HEAD").unwrap()
}

#[test]
fn protected_mode_knows_a_proxy() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let event = event_with(&code, json!({})).to_string();
    for header in ["Forwarded", "X-Forwarded-For", "x-forwarded-proto", "X-Real-IP", "Via"] {
        let behind_proxy = [(header, "192.0.2.1")];
        let refused = daemon.client().send("GET", "/api/v1/websites", &behind_proxy, b"");
        assert_eq!(refused.status, 401, "{header}");
        assert!(refused.json()["message"].as_str().unwrap().contains("token"), "{header}");
        assert_eq!(daemon.client().send("GET", "/metrics", &behind_proxy, b"").status, 401, "{header}");
        assert_eq!(daemon.client().send("POST", "/api/v1/events", &behind_proxy, event.as_bytes()).status, 201);
        assert_eq!(daemon.client().send("GET", "/livez", &behind_proxy, b"").status, 200);
    }
    daemon.stop();
}

#[test]
fn protected_mode_serves_this_machine_by_its_own_names() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let port = daemon.address.rsplit_once(':').unwrap().1;
    for (method, path) in guarded(&code) {
        for host in ["evil.example", &format!("evil.example:{port}"), "evil.localhost", "localhost.evil.example", ""] {
            let refused = send(&daemon, &method, &path, &[("host", host)]);
            assert_eq!(refused.status, 401, "{method} {path} by {host}");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
            if method != "HEAD" {
                let told = refused.json();
                let message = told["message"].as_str().unwrap();
                assert!(message.contains("Host") && message.contains("token_file"), "{message}");
            }
        }
        // By its target, whatever Host says, and the other way round.
        let target = format!("http://evil.example{path}");
        assert_eq!(send(&daemon, &method, &target, &[("host", "localhost")]).status, 401, "{method} {target}");
        let target = format!("http://localhost{path}");
        assert_eq!(send(&daemon, &method, &target, &[("host", "evil.example")]).status, 401, "{method} {target}");
        for host in ["localhost", &format!("LOCALHOST:{port}"), "127.0.0.1", "127.3.2.1:80", "[::1]:3000"] {
            let status = send(&daemon, &method, &path, &[("host", host)]).status;
            assert!(![401, 403].contains(&status), "{method} {path} by {host}: {status}");
        }
    }
    // What is open is open by every name: trackers send to the public one.
    let event = event_with(&code, json!({})).to_string();
    let length = event.len().to_string();
    let mut client = daemon.client();
    let head = format!("POST /api/v1/events HTTP/1.1\r\nhost: evil.example\r\ncontent-length: {length}\r\n\r\n");
    client.write((head + &event).as_bytes()).unwrap();
    assert_eq!(client.read_response(false).unwrap().status, 201);
    for (method, path, status) in [
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/openapi.yaml", 200),
        ("OPTIONS", "/api/v1/events", 204),
    ] {
        assert_eq!(send(&daemon, method, path, &[("host", "evil.example")]).status, status, "{path}");
    }
    daemon.wait_for_log("a proxy on this machine that adds no header");
    daemon.stop();
}

#[test]
fn protected_mode_refuses_pages_of_other_sites() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let host = ("host", "localhost:3000");
    let (site, origin) = ("sec-fetch-site", "origin");
    for (method, path) in guarded(&code) {
        for header in [
            (site, "cross-site"),
            (site, "same-site"),
            (origin, "http://evil.example"),
            (origin, "http://localhost:8080"),
            (origin, "null"),
        ] {
            let refused = send(&daemon, &method, &path, &[host, header]);
            assert_eq!(refused.status, 403, "{method} {path} {header:?}");
            assert_eq!(refused.header("access-control-allow-origin"), None, "{method} {path}");
            if method != "HEAD" {
                assert_eq!(refused.error(), "FORBIDDEN_ORIGIN", "{method} {path}");
            }
        }
        for header in [
            (site, "same-origin"),
            (site, "none"),
            (origin, "http://localhost:3000"),
            (origin, "https://localhost:3000"),
        ] {
            let status = send(&daemon, &method, &path, &[host, header]).status;
            assert!(![401, 403].contains(&status), "{method} {path} {header:?}: {status}");
        }
    }
    let website = r#"{"name":"A","domain":"evil.example"}"#;
    let csrf = [("content-type", "text/plain"), ("origin", "http://evil.example"), (site, "cross-site")];
    let refused = daemon.client().send("POST", "/api/v1/websites", &csrf, website.as_bytes());
    assert_eq!((refused.status, refused.error().as_str()), (403, "FORBIDDEN_ORIGIN"));
    assert_eq!(daemon.client().get("/api/v1/websites").json()["total"], 1);
    daemon.stop();
}

#[test]
fn bodies_that_need_a_token_are_json_and_say_so() {
    for token in [None, Some(TOKEN)] {
        let flags: Vec<_> = token.into_iter().flat_map(|token| ["--token", token]).collect();
        let daemon = Daemon::start(&flags);
        let bearer = format!("Bearer {TOKEN}");
        let post = |method: &str, path: &str, content_type: &[&str], body: &str| {
            let types = content_type.iter().map(|content_type| ("content-type", *content_type));
            let headers: Vec<_> = types.chain(token.map(|_| ("authorization", bearer.as_str()))).collect();
            daemon.client().send(method, path, &headers, body.as_bytes())
        };
        let website = r#"{"name":"A","domain":"a.example"}"#;
        for content_type in [
            &[][..],
            &["text/plain"],
            &["application/x-www-form-urlencoded"],
            &["multipart/form-data; boundary=x"],
            &["text/plain; application/json"],
            &["application/json", "text/plain"],
        ] {
            for (method, path) in [
                ("POST", "/api/v1/websites"),
                ("PUT", "/api/v1/websites/web-1"),
                ("DELETE", "/api/v1/websites/web-1"),
                ("DELETE", "/api/v1/visitors/v?trackingCode=pm-x"),
            ] {
                let refused = post(method, path, content_type, website);
                assert_eq!(refused.status, 415, "{method} {path} {content_type:?}: {}", refused.text());
                assert!(refused.json()["message"].as_str().unwrap().contains("application/json"));
            }
        }
        assert_eq!(post("POST", "/api/v1/websites", &["Application/JSON; charset=utf-8"], website).status, 201);
        assert_eq!(post("DELETE", "/api/v1/websites/web-1", &[], "").status, 404);
        // An event may be of any type: a beacon is text/plain.
        assert_eq!(post("POST", "/api/v1/events", &["text/plain"], "{}").status, 400);
    }
}

#[test]
fn who_has_a_token_is_asked_nothing_else() {
    let daemon = Daemon::start(&["--token", TOKEN]);
    let bearer = format!("Bearer {TOKEN}");
    let from_elsewhere =
        [("host", "evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")];
    for (method, path) in guarded("pm-x") {
        let with_token = [&from_elsewhere[..], &[("authorization", &bearer)]].concat();
        let status = send(&daemon, &method, &path, &with_token).status;
        assert!(![401, 403].contains(&status), "{method} {path}: {status}");
        // Without one it is told that one is needed, and nothing about the rest.
        for headers in [&from_elsewhere[..], &[&from_elsewhere[..], &[("authorization", "Bearer no")]].concat()] {
            assert_eq!(send(&daemon, &method, &path, headers).status, 401, "{method} {path}");
        }
    }
}

#[test]
fn pages_of_other_sites_send_and_never_read() {
    for flags in [&[][..], &["--token", TOKEN]] {
        let daemon = Daemon::start(flags);
        let bearer = ("authorization", &*format!("Bearer {TOKEN}"));
        let website = r#"{"name":"A","domain":"example.com"}"#;
        let json = ("content-type", "application/json");
        let website = daemon.client().send("POST", "/api/v1/websites", &[bearer, json], website.as_bytes()).json();
        let code = website["trackingCode"].as_str().unwrap();
        // A beacon of a string: no preflight, text/plain.
        let beacon = [ORIGIN, ("content-type", "text/plain;charset=UTF-8")];
        for (body, status) in [(event_with(code, json!({})).to_string(), 201), ("{".into(), 400)] {
            let response = daemon.client().send("POST", "/api/v1/events", &beacon, body.as_bytes());
            assert_eq!(response.status, status);
            assert_eq!(response.header("access-control-allow-origin"), Some(ORIGIN.1));
            assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
            assert_eq!(response.header("access-control-expose-headers"), Some("retry-after, idempotency-replayed"));
        }
        // With the token as well: a page that has it may read, but no page of another site may be told what it reads.
        let reads = guarded(code).into_iter().filter(|(method, _)| ["GET", "HEAD"].contains(&method.as_str()));
        for (method, path) in reads {
            let response = daemon.client().send(&method, &path, &[ORIGIN, bearer], b"");
            assert_eq!(response.header("access-control-allow-origin"), None, "{method} {path}");
            assert_eq!(response.header("access-control-allow-credentials"), None, "{method} {path}");
        }
    }
}

#[test]
fn preflights_allow_what_pages_add_to_every_request() {
    let daemon = Daemon::start(&["--token", TOKEN]);
    let asked = |path: &str, names: &str| {
        let headers = [ORIGIN, ("access-control-request-method", "POST"), ("access-control-request-headers", names)];
        daemon.client().send("OPTIONS", path, &headers, b"")
    };
    let standard = "authorization, content-encoding, content-type, idempotency-key";
    let many = (0..65).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(",");
    for path in [
        "/api/v1/events",
        "/api/v1/events/",
        "/api/v1/events/batch",
        "/api/v1/events/batch/",
        "/api/v1/events/c1",
        "/api/v1/events/batchx",
        "/api/v1/events/a/b",
        "/api/v1/event",
        "/api/v1/track",
        "/api/v1/tracks",
    ] {
        for (names, allowed) in [
            ("content-type", standard.to_owned()),
            ("sentry-trace,baggage, Traceparent", format!("{standard}, sentry-trace, baggage, traceparent")),
            ("x-a, not a token, x-b", format!("{standard}, x-a, x-b")),
            (&many, standard.to_owned()),
            (&"x".repeat(1_025), standard.to_owned()),
        ] {
            let preflight = asked(path, names);
            assert_eq!(preflight.status, 204, "{path}");
            assert_eq!(preflight.header("access-control-allow-headers"), Some(&*allowed), "{path}");
            assert_eq!(preflight.header("access-control-allow-methods"), Some("POST, OPTIONS"), "{path}");
            assert_eq!(preflight.header("access-control-allow-origin"), Some(ORIGIN.1), "{path}");
            assert_eq!(preflight.header("access-control-allow-credentials"), Some("true"), "{path}");
            assert_eq!(preflight.header("vary"), Some("origin, access-control-request-headers"), "{path}");
        }
    }
    for path in ["/api/v1/websites", "/metrics", "/livez", "/nowhere"] {
        let refused = asked(path, "content-type");
        assert!([404, 405].contains(&refused.status), "{path}");
        assert_eq!(refused.header("access-control-allow-origin"), None, "{path}");
    }
    // Whoever asks what a path takes, and is no browser before a request, is told that there is nothing.
    assert_eq!(daemon.client().send("OPTIONS", "/api/v1/event", &[], b"").status, 404);
}

#[test]
fn a_page_is_told_what_went_wrong_on_the_paths_of_events() {
    let daemon = Daemon::start(&["--event-bytes-max", "1024"]);
    let (large, event) = ("x".repeat(2_000), event_with("pm-nobody", json!({})).to_string());
    for (method, path, body, status) in [
        ("POST", "/api/v1/event", "{}", 404),
        ("POST", "/api/v1/events/a/b", "{}", 404),
        ("POST", "/api/v1/events/batchx", "{}", 405),
        ("POST", "/api/v1/events/", &event, 404),
        ("POST", "/api/v1/events", &large, 413),
        ("PUT", "/api/v1/events", "", 405),
        ("GET", "/api/v1/events/batch", "", 405),
        ("GET", "/api/v1/eventz", "", 404),
        ("POST", "/api/v1/track", "{}", 400),
        ("POST", "/api/v1/track", &large, 413),
        ("GET", "/api/v1/track", "", 405),
        ("POST", "/api/v1/tracker", "{}", 404),
    ] {
        let told = daemon.client().send(method, path, &[ORIGIN], body.as_bytes());
        assert_eq!(told.status, status, "{method} {path}");
        assert_eq!(told.header("access-control-allow-origin"), Some(ORIGIN.1), "{method} {path}");
        assert_eq!(told.header("vary"), Some("origin"), "{method} {path}");
    }
    daemon.stop();
}
