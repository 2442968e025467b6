//! `hitlog tail` against a server that says exactly what it is told to: what is shown, what it goes on from, and how it
//! ends.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    mem,
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::io::ioctl_fionread;
use serde_json::{Value, json};

use harness::{Daemon, TIMEOUT, command, traffic, wait_until, work_dir};

const TOKEN: &str = "0123456789abcdef-secret";
const CODE: &str = "pm-abc123-1769630400000";

/// What plays hitlog.
struct Fake {
    listener: TcpListener,
    address: String,
}

/// A request whose answer is the test's to give.
struct Asked {
    stream: TcpStream,
    head: String,
}

impl Fake {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { address: listener.local_addr().unwrap().to_string(), listener }
    }

    /// The next request.
    fn next(&self) -> Asked {
        let (stream, _) = wait_until("somebody asks", || self.listener.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut reader = BufReader::new(&stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        drop(reader);
        Asked { stream, head }
    }

    /// The next request, which is for the websites, and is told these.
    fn tell_websites(&self, domains: &[&str]) {
        let asked = self.next();
        assert!(asked.path().starts_with("/api/v1/websites?limit="), "{}", asked.head);
        asked.answer("200 OK", &websites(domains, domains.len(), None).to_string());
    }

    /// The next request, which is for the tail, and whose answer begins behind this position.
    fn begin(&self, position: &str) -> Asked {
        let mut asked = self.next();
        asked.begin(position);
        asked
    }

    /// A tail of the website a.example, which is under way.
    fn followed(&self, arguments: &[&str]) -> (Tail, Asked) {
        let tail = self.tail(arguments);
        self.tell_websites(&["a.example"]);
        (tail, self.begin("P0"))
    }

    fn tail(&self, arguments: &[&str]) -> Tail {
        Tail::start(&mut command(&[&["tail", "--url", &self.address], arguments].concat()))
    }
}

/// A page of the listing of websites.
fn websites(domains: &[&str], total: usize, next: Option<&str>) -> Value {
    let site = |(number, domain): (usize, &&str)| {
        let code = if number == 0 { CODE.to_owned() } else { format!("pm-{number:06}-1769630400000") };
        json!({"id": format!("w{number}"), "trackingCode": code, "name": "n", "domain": domain})
    };
    let websites: Vec<_> = domains.iter().enumerate().map(site).collect();
    json!({"websites": websites, "total": total, "pagination": {"total": total, "limit": 200, "next": next}})
}

impl Asked {
    fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn answer(mut self, status: &str, body: &str) {
        self.write(&format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    }

    fn begin(&mut self, position: &str) {
        assert!(self.path().starts_with(&format!("/api/v1/events/tail?trackingCode={CODE}")), "{}", self.head);
        assert_eq!(self.header("accept"), Some("application/x-ndjson"));
        self.write(&format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nhitlog-position: {position}\r\n\
             transfer-encoding: chunked\r\n\r\n"
        ));
    }

    /// A piece of the body.
    fn piece(&mut self, text: &str) {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len()));
    }

    fn events(&mut self, numbers: impl IntoIterator<Item = usize>) {
        let lines: String = numbers.into_iter().map(|number| event(number) + "\n").collect();
        self.piece(&lines);
    }

    fn cut(self) {
        self.stream.shutdown(Shutdown::Both).unwrap();
    }
}

/// An event as a line of the tail.
fn event(number: usize) -> String {
    json!({
        "id": format!("c{number}"), "websiteId": "w0", "eventType": "pageview",
        "url": format!("https://a.example/{number}"), "referrer": "https://news.example/x", "sessionId": "s",
        "visitorId": format!("visitor-{number}"), "deviceType": null, "browser": null, "os": null, "location": null,
        "properties": {"n": number}, "createdAt": "2026-01-28T20:00:00.000Z", "position": format!("P{number}")
    })
    .to_string()
}

/// The command under way.
struct Tail {
    child: Child,
    lines: mpsc::Receiver<String>,
    error: Arc<Mutex<String>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Tail {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (send, lines) = mpsc::channel();
        let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let error = Arc::new(Mutex::new(String::new()));
        let said = Arc::clone(&error);
        let readers = vec![
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    let _ = send.send(line.unwrap());
                }
            }),
            thread::spawn(move || {
                let mut bytes = [0; 1_024];
                while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                    said.lock().unwrap().push_str(str::from_utf8(&bytes[..count]).unwrap());
                }
            }),
        ];
        Self { child, lines, error, readers }
    }

    /// The next line that is shown.
    fn line(&self) -> String {
        self.lines.recv_timeout(TIMEOUT).unwrap_or_else(|_| panic!("no line: {}", self.error()))
    }

    /// Waits until these events are shown, in this order.
    fn shows(&self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            let line = self.line();
            assert!(line.contains(&format!("https://a.example/{number} ")), "{number}: {line}");
        }
    }

    fn error(&self) -> String {
        self.error.lock().unwrap().clone()
    }

    fn says(&self, words: &str) {
        wait_until(words, || self.error().contains(words).then_some(()));
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    }

    /// How it ends, what else it shows, and all that it has said.
    fn end(mut self) -> (ExitStatus, Vec<String>, String) {
        let status = wait_until("it ends", || self.child.try_wait().unwrap());
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        let error = self.error();
        assert!(!error.contains(TOKEN), "{error}");
        (status, self.lines.try_iter().collect(), error)
    }

    /// How it ends by itself: its code, and what it has said.
    fn ends(self) -> (i32, String) {
        let (status, rest, error) = self.end();
        assert_eq!(rest, Vec::<String>::new());
        (status.code().unwrap(), error)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn events_are_shown_as_they_come() {
    let fake = Fake::listen();
    let tail = fake.tail(&["--website", "https://A.example/x", "--type", "click", "--after", "start"]);
    fake.tell_websites(&["a.example", "b.example"]);
    let mut asked = fake.begin("P0");
    assert!(asked.path().ends_with("&eventType=click&after=start"), "{}", asked.head);
    assert_eq!((asked.header("host"), asked.header("authorization")), (Some(&*fake.address), None));
    let wanted = "2026-01-28T20:00:00.000Z  pageview  v:visitor…  s:s         https://a.example/1  from news.example";
    asked.events([1]);
    assert_eq!(tail.line(), wanted);
    // Cut anywhere, also within a line, with heartbeats between them.
    let text = format!("\n{}\n\n{}\n", event(2), event(3));
    for piece in text.as_bytes().chunks(37) {
        asked.piece(str::from_utf8(piece).unwrap());
    }
    tail.shows([2, 3]);
    assert_eq!(tail.error(), "");
}

#[test]
fn it_goes_on_behind_the_last_line_that_it_has() {
    let fake = Fake::listen();
    let (tail, mut asked) = fake.followed(&[]);
    asked.events(1..=3);
    let fourth = event(4);
    asked.piece(&fourth[..fourth.len() / 2]);
    asked.cut();
    let mut asked = fake.begin("P3");
    assert!(asked.path().ends_with("&after=P3"), "{}", asked.head);
    asked.events(4..=5);
    // An end in order, but for the last line feed.
    let sixth = event(6);
    asked.piece(&sixth);
    asked.write("0\r\n\r\n");
    drop(asked);
    let mut asked = fake.begin("P5");
    assert!(asked.path().ends_with("&after=P5"), "{}", asked.head);
    asked.events(6..=7);
    tail.shows(1..=7);
    tail.says("going on where it was\nhitlog: http");
    wait_until("it is connected again", || (tail.error().matches("connected again").count() == 2).then_some(()));
    assert_eq!(tail.error().matches("trying again until it answers").count(), 2, "{}", tail.error());
}

#[test]
fn an_outage_is_told_once() {
    let fake = Fake::listen();
    let (tail, mut asked) = fake.followed(&["--type", "pageview"]);
    asked.events([1]);
    asked.piece("{\"bye\":{\"reason\":\"stop\"},\"position\":\"P9\"}\n");
    // As a proxy has it while nobody is behind it.
    fake.next().answer("502 Bad Gateway", "<html>");
    fake.next().cut();
    let mut asked = fake.begin("P9");
    assert!(asked.path().ends_with("&eventType=pageview&after=P9"), "{}", asked.head);
    asked.events([10]);
    tail.shows([1, 10]);
    // That it goes on is said a moment after what has come is shown.
    wait_until("it says that it goes on", || tail.error().contains("connected again").then_some(()));
    let said = tail.error();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.starts_with(&format!("hitlog: http://{} stops; trying again", fake.address)), "{said}");
}

#[test]
fn a_full_hitlog_is_asked_again_when_it_says() {
    let fake = Fake::listen();
    let tail = fake.tail(&[]);
    fake.next().answer("503 Service Unavailable\r\nretry-after: 0", "{\"error\":\"OVERLOADED\",\"message\":\"later\"}");
    fake.tell_websites(&["a.example"]);
    let asked_at = Instant::now();
    fake.next().answer("503 Service Unavailable\r\nretry-after: 2", "{\"error\":\"OVERLOADED\",\"message\":\"later\"}");
    fake.begin("P0").events([1]);
    assert!(asked_at.elapsed() >= Duration::from_secs(2), "{:?}", asked_at.elapsed());
    tail.shows([1]);
    assert!(tail.error().starts_with(&format!("hitlog: http://{} answers 503 OVERLOADED: later; try", fake.address)));
}

#[test]
fn what_no_other_try_helps_against_ends_it() {
    for (status, body, code, words) in [
        ("401 Unauthorized", r#"{"error":"UNAUTHORIZED","message":"The token is not valid"}"#, 1, "HITLOG_READ_TOKEN"),
        ("403 Forbidden", r#"{"error":"FORBIDDEN","message":"This needs a token of"}"#, 1, "403 FORBIDDEN: This needs"),
        ("404 Not Found", r#"{"error":"NOT_FOUND","message":"Website with"}"#, 1, "404 NOT_FOUND: Website with"),
        ("406 Not Acceptable", r#"{"error":"NOT_ACCEPTABLE","message":"x"}"#, 1, "406 NOT_ACCEPTABLE"),
        (
            "302 Found\r\nlocation: http://other.example/",
            "",
            1,
            "points to http://other.example/, which is not followed",
        ),
        (
            "400 Bad Request",
            r#"{"error":"VALIDATION_ERROR","message":"Invalid query",
                "details":{"formErrors":[],"fieldErrors":{"after":["no position"]}}}"#,
            2,
            "after: no position",
        ),
        ("200 OK\r\ncontent-type: text/html", "<html>", 1, "answers with text/html, which is no tail of hitlog's"),
    ] {
        let fake = Fake::listen();
        let mut command = command(&["tail", "--url", &fake.address, "--after", "P"]);
        let tail = Tail::start(command.env("HITLOG_READ_TOKEN", TOKEN));
        let asked = fake.next();
        assert_eq!(asked.header("authorization"), Some(&*format!("Bearer {TOKEN}")));
        asked.answer("200 OK", &websites(&["a.example"], 1, None).to_string());
        fake.next().answer(status, body);
        let (ended, said) = tail.ends();
        assert!(ended == code && said.contains(words), "{status}: {ended} {said}");
        assert!(said.starts_with("hitlog: ") && !said.contains("Go on"), "{said}");
    }
}

#[test]
fn a_refusal_later_on_says_how_to_go_on_where_that_can_be() {
    for (status, goes_on) in [("401 Unauthorized", true), ("400 Bad Request", false), ("404 Not Found", false)] {
        let fake = Fake::listen();
        let (tail, mut asked) = fake.followed(&[]);
        asked.events([1]);
        tail.shows([1]);
        asked.cut();
        fake.next().answer(status, r#"{"error":"E","message":"m"}"#);
        let (code, said) = tail.ends();
        assert_eq!((code, said.contains("\nGo on with: hitlog tail ")), (1, goes_on), "{said}");
    }
}

#[test]
fn a_website_that_is_deleted_is_the_end() {
    let fake = Fake::listen();
    let (tail, mut asked) = fake.followed(&[]);
    asked.piece(&format!("{}\n{{\"bye\":{{\"reason\":\"deleted\"}},\"position\":\"P1\"}}\n", event(1)));
    tail.shows([1]);
    let (code, said) = tail.ends();
    assert_eq!((code, &*said), (1, "hitlog: the website a.example was deleted, and its events with it\n"));
}

#[test]
fn without_a_website_there_has_to_be_one() {
    let many: Vec<_> = (0..25).map(|number| format!("site-{number}.example")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for (domains, arguments, code, words) in [
        (&[][..], &[][..], 1, "/api/v1/websites and a body such as {\"name\":"),
        (&[], &["--website=a.example"], 1, "no website is registered yet"),
        (&["a.example", "b.example"], &[], 2, "choose one with --website:\n  a.example  pm-abc123-1769630400000\n  b."),
        (&["a.example"], &["--website=c.example"], 2, "domain c.example; there are:\n  a.example  pm-abc"),
        (&many, &[], 2, "  and 5 more, which"),
        (&many, &["--website=c.example"], 2, "  and 5 more, which"),
    ] {
        let fake = Fake::listen();
        let tail = fake.tail(arguments);
        fake.tell_websites(domains);
        let (ended, said) = tail.ends();
        assert!(ended == code && said.contains(words), "{ended} {said}");
        assert!(said.lines().count() <= 22, "{said}");
    }
}

#[test]
fn a_website_is_looked_for_on_every_page() {
    let fake = Fake::listen();
    let tail = fake.tail(&["--website", "a.example"]);
    let asked = fake.next();
    assert!(!asked.path().contains("cursor"), "{}", asked.head);
    asked.answer("200 OK", &websites(&["b.example"], 2, Some("a+b")).to_string());
    let asked = fake.next();
    assert!(asked.path().ends_with("&cursor=a%2Bb"), "{}", asked.head);
    asked.answer("200 OK", &websites(&["a.example"], 2, None).to_string());
    fake.begin("P0").events([1]);
    tail.shows([1]);
}

#[test]
fn a_gap_is_told_beside_the_events() {
    let gap = r#"{"gap":{"from":"2026-01-01T00:00:00.000Z","to":"2026-01-02T00:00:00.000Z","reason":"retention"},"position":"P1"}"#;
    let fake = Fake::listen();
    let (tail, mut asked) = fake.followed(&[]);
    asked.piece(&format!("{gap}\n"));
    tail.says(
        "events from 2026-01-01T00:00:00.000Z to 2026-01-02T00:00:00.000Z are not there any more: they were past",
    );
    asked.cut();
    let mut asked = fake.begin("P1");
    assert!(asked.path().ends_with("&after=P1"), "the place is behind the gap");
    asked.events([2]);
    tail.shows([2]);

    let fake = Fake::listen();
    let (tail, mut asked) = fake.followed(&["--json"]);
    asked.piece(&format!(
        "{}\n\n{gap}\n{}\n{{\"bye\":{{\"reason\":\"stop\"}},\"position\":\"P2\"}}\n",
        event(0),
        event(2)
    ));
    assert_eq!([tail.line(), tail.line(), tail.line()], [event(0), gap.to_owned(), event(2)]);
    tail.says("stops; trying again");
    assert!(tail.lines.try_recv().is_err(), "a goodbye is no line for programs");
}

#[test]
fn what_is_no_tail_is_told_and_takes_no_memory() {
    let huge = "x".repeat(64 * 1024);
    let fake = Fake::listen();
    let (tail, mut asked) = fake.followed(&[]);
    asked.events([1]);
    tail.shows([1]);
    let piece = format!("{:x}\r\n{huge}\r\n", huge.len());
    let is_cut = (0..256).any(|_| asked.stream.write_all(piece.as_bytes()).is_err());
    assert!(is_cut, "16 MiB are taken in");
    let (code, said) = tail.ends();
    assert!(code == 1 && said.starts_with("hitlog: what came is a line of more than 1048576 bytes."), "{said}");
    assert!(said.contains("Go on with: ") && said.contains("--after=P1"), "{said}");

    let fake = Fake::listen();
    let (tail, mut asked) = fake.followed(&[]);
    asked.piece(&format!("{}\n<html>\u{1b}[2J\n{}\n", event(1), event(2)));
    tail.shows([1]);
    let (code, said) = tail.ends();
    assert!(code == 1 && said.contains(": <html>\u{fffd}[2J. Is what listens there hitlog"), "{said}");
    assert!(said.ends_with(&format!("--url={} --after=P1\n", fake.address)), "{said}");
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    for comes_more in [true, false] {
        let fake = Fake::listen();
        let mut child = command(&["tail", "--url", &fake.address]).spawn().unwrap();
        fake.tell_websites(&["a.example"]);
        let mut asked = fake.begin("P0");
        asked.events([1]);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if comes_more {
            asked.events([2]);
        }
        let status = wait_until("it ends", || child.try_wait().unwrap());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), &*said), (Some(0), ""));
    }
}

#[test]
fn a_signal_says_how_to_go_on() {
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        let fake = Fake::listen();
        let mut command = command(&["tail", "--url", &fake.address, "--type=pageview", "--website", "a.example"]);
        let tail = Tail::start(command.env("HITLOG_READ_TOKEN", TOKEN));
        fake.tell_websites(&["a.example"]);
        let mut asked = fake.begin("P0");
        asked.events(1..=3);
        tail.shows(1..=3);
        tail.signal(signal);
        let (status, rest, said) = tail.end();
        assert_eq!((status.signal(), rest), (Some(number), Vec::new()), "{said}");
        let wanted = format!(
            "hitlog: interrupted. Go on with: hitlog tail --website=a.example --type=pageview --url={} --after=P3 # \
             with --read-token again, which is not shown\n",
            fake.address
        );
        assert_eq!(said, wanted);
    }
    // Before there is a place there is nothing to say.
    let fake = Fake::listen();
    let tail = fake.tail(&[]);
    let _asked = fake.next();
    tail.signal("INT");
    let (status, _, said) = tail.end();
    assert_eq!((status.signal(), &*said), (Some(2), ""));
}

/// Whoever reads takes what was printed and no more, and goes on with the command that was told.
#[test]
fn what_a_full_pipe_has_not_taken_comes_again() {
    const EVENTS: usize = 5_000;
    let fake = Fake::listen();
    let mut child = command(&["tail", "--json", "--url", &fake.address]).spawn().unwrap();
    fake.tell_websites(&["a.example"]);
    let mut asked = fake.begin("P0");
    let sender = thread::spawn(move || {
        // It takes no more than the buffers between them hold.
        for first in (1..=EVENTS).step_by(50) {
            let lines: String = (first..first + 50).map(|number| event(number) + "\n").collect();
            if asked.stream.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes()).is_err() {
                return;
            }
        }
    });
    let mut before = 0;
    wait_until("the pipe is full", || {
        thread::sleep(Duration::from_millis(300));
        let holds = ioctl_fionread(child.stdout.as_ref().unwrap()).unwrap();
        // Of a pipe of 64 KiB a page may be left that has no room for a piece.
        (holds > 32 * 1024 && holds == mem::replace(&mut before, holds)).then_some(())
    });
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    // Nobody reads before it has ended, so the piece that waits is never taken.
    let status = wait_until("it ends", || child.try_wait().unwrap());
    assert_eq!(status.signal(), Some(2));
    let (mut printed, mut said) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    sender.join().unwrap();
    let count = printed.lines().count();
    assert!(count > 100 && count < EVENTS && printed.ends_with("}\n"), "{count}");
    assert!(said.contains(&format!(" --after=P{count}\n")), "{count}: {said}");
}

#[test]
fn where_nothing_listens_is_told_at_once() {
    let fake = Fake::listen();
    let address = fake.address.clone();
    drop(fake);
    for arguments in [["--listen", &*address], ["--url", &address]] {
        let ran = command(&[&["tail"][..], &arguments].concat()).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{said}");
        let wanted = format!("hitlog: http://{address}: cannot connect: Connection refused");
        assert!(said.starts_with(&wanted) && said.contains("say with --url where it listens"), "{said}");
    }
}

#[test]
fn it_asks_where_the_settings_say_and_with_their_token() {
    let fake = Fake::listen();
    let port = fake.address.rsplit_once(':').unwrap().1;
    let work = work_dir();
    let (file, tokens) = (work.path().join("hitlog.toml"), work.path().join("tokens"));
    fs::write(&file, format!("listen = \"0.0.0.0:{port}\"\ntoken_file = {tokens:?}\n")).unwrap();
    fs::write(&tokens, format!("0123456789abcdef-admin\nread:{TOKEN}\n")).unwrap();
    let tail = Tail::start(&mut command(&["tail", "--config", file.to_str().unwrap()]));
    let asked = fake.next();
    assert_eq!(asked.header("authorization"), Some(&*format!("Bearer {TOKEN}")));
    asked.answer("200 OK", &websites(&["a.example"], 1, None).to_string());
    let mut asked = fake.begin("P0");
    asked.events([1]);
    tail.shows([1]);
    tail.signal("TERM");
    let (_, _, said) = tail.end();
    let go_on = format!("hitlog tail --website={CODE} --after=P1 --config={}", file.display());
    assert_eq!(said, format!("hitlog: interrupted. Go on with: {go_on}\n"));

    // Behind a proxy that has it below a path.
    let url = format!("http://{}/stats/", fake.address);
    let tail = Tail::start(&mut command(&["tail", "--website", "a.example", "--url", &url]));
    let asked = fake.next();
    assert!(asked.path().starts_with("/stats/api/v1/websites?"), "{}", asked.head);
    asked.answer("200 OK", &websites(&["a.example"], 1, None).to_string());
    let asked = fake.next();
    assert!(asked.path().starts_with("/stats/api/v1/events/tail?"), "{}", asked.head);
    drop(tail);
}

#[test]
fn arguments_that_make_no_sense() {
    for (arguments, words) in [
        (&["--url", "https://a.example"][..], "ssh -N -L"),
        (&["--url", "http://u:0123456789abcdef-secret@a.example"], "a user or a password"),
        (&["--type", "view"], "pageview, click, custom"),
        (&["--listen", "127.0.0.1:0"], "--url"),
        (&["--read-token", "short"], "16 bytes"),
    ] {
        let ran = command(&[&["tail"][..], arguments].concat()).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.code() == Some(2) && said.contains(words) && !said.contains(TOKEN), "{said}");
    }
}

/// The command that starts hitlog anew where it was.
fn serve(data: &Path, address: &str) -> Daemon {
    Daemon::spawn(&mut command(&["serve", "--listen", address, "--data-dir", data.to_str().unwrap()]), data)
}

#[test]
fn beside_a_real_hitlog_nothing_is_missed() {
    const BATCH: usize = 50;
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &[]);
    let address = daemon.address.clone();
    let code = daemon.register("a.example");
    daemon.register("b.example");
    let arguments = ["tail", "--url", &address, "--website", "https://A.example/", "--json", "--after", "start"];
    let tail = Tail::start(&mut command(&arguments));
    let (mut sent, mut seen) = (Vec::new(), Vec::new());
    for round in 0..6 {
        let response = daemon.client().post("/api/v1/events/batch", traffic::batch(&code, BATCH));
        assert_eq!(response.status, 201, "{}", response.text());
        let ids = |text: &Value| text["id"].as_str().unwrap().to_owned();
        sent.extend(response.json()["events"].as_array().unwrap().iter().map(ids));
        // In turn: they are shown before hitlog ends, and in the middle of its end; it stops, and it crashes.
        if round % 2 == 0 {
            seen.extend((seen.len()..sent.len()).map(|_| ids(&serde_json::from_str(&tail.line()).unwrap())));
        }
        if round % 3 == 0 {
            daemon.crash();
        } else {
            daemon.stop();
        }
        daemon = serve(&data, &address);
    }
    seen.extend((seen.len()..sent.len()).map(|_| tail.line()).map(|line| {
        let line: Value = serde_json::from_str(&line).unwrap();
        line["id"].as_str().unwrap().to_owned()
    }));
    assert_eq!(seen, sent);
    let website = daemon.client().get("/api/v1/websites").json()["websites"][1]["id"].as_str().unwrap().to_owned();
    assert_eq!(daemon.client().send("DELETE", &format!("/api/v1/websites/{website}"), &[], b"").status, 200);
    let (code, said) = tail.ends();
    assert!(
        code == 1 && said.ends_with("hitlog: the website a.example was deleted, and its events with it\n"),
        "{said}"
    );
    daemon.stop();
}

#[test]
fn a_real_hitlog_says_what_is_wrong() {
    const METRICS: &str = "0123456789abcdef-metrics";
    let daemon = Daemon::start(&["--token", TOKEN, "--metrics-token", METRICS]);
    let says = |token: Option<&str>, arguments: &[&str], code: i32, words: &str| {
        let mut tail = command(&[&["tail", "--url", &daemon.address], arguments].concat());
        tail.envs(token.map(|token| ("HITLOG_READ_TOKEN", token)));
        let (ended, said) = Tail::start(&mut tail).ends();
        assert!(ended == code && said.contains(words) && !said.contains("0123456789abcdef"), "{words}: {said}");
    };
    says(None, &[], 1, "answers 401 UNAUTHORIZED: This needs a token");
    says(Some("0123456789abcdef-foreign"), &[], 1, "answers 401 UNAUTHORIZED: The token is not valid");
    says(Some(METRICS), &[], 1, "answers 403 FORBIDDEN: This needs a token of the role read or admin");
    says(Some(TOKEN), &[], 1, "no website is registered yet");
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let site = br#"{"name":"n","domain":"a.example"}"#;
    assert_eq!(daemon.client().send("POST", "/api/v1/websites", &headers, site).status, 201);
    says(Some(TOKEN), &["--after", "-no-position"], 2, "answers 400 VALIDATION_ERROR: Invalid query; after: ");
    says(Some(TOKEN), &["--website", "b.example"], 2, "domain b.example; there are:\n  a.example  pm-");
}
