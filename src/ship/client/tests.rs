//! The client against servers that answer what they are told to.

mod server;
mod tls;

use std::net::TcpListener;

use self::server::{Reply, Server, chunked, whole};
use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// A client that waits for nothing for long.
fn client(url: &str) -> Client {
    let target = Target::parse(url, Some("hitlog"), Some("geheim"), None).unwrap();
    let wait = Duration::from_millis(300);
    Client::new(target, Patience { connect: Duration::from_secs(5), silence: wait }).unwrap()
}

async fn ask(client: &Client) -> Result<Answer, Failure> {
    let query = Query {
        answer_bytes_max: 50,
        time_max: Duration::from_millis(1_000),
        ..Query::new("SELECT 'a b', '\u{fc}&+'")
    };
    client.request(query, Vec::new()).await
}

#[tokio::test]
async fn a_request_is_what_clickhouse_takes() {
    let server = Server::start([vec![Reply::Say(whole(OK, "")); 3]]);
    let client = client(&format!("{}/prefix/", server.url()));
    ask(&client).await.unwrap();
    let pieces = vec![Bytes::from("ab"), Bytes::new(), Bytes::from(vec![b'c'; 5 * 1024 * 1024])];
    let parameters = [("database", "d"), ("insert_deduplication_token", "hitlog-1-&-2")];
    let mut query = Query { parameters: &parameters, ..Query::new("INSERT INTO `events` FORMAT Native") };
    client.request(query, pieces.clone()).await.unwrap();
    query.is_zstd = true;
    client.request(query, vec![compress(&pieces).unwrap()]).await.unwrap();

    let [statement, rows, packed] = server.requests(3).try_into().unwrap();
    assert!(statement.head.starts_with("POST /prefix/ HTTP/1.1\r\n"), "{}", statement.head);
    assert_eq!(statement.body, "SELECT 'a b', '\u{fc}&+'".as_bytes());
    let line = "POST /prefix/?database=d&insert_deduplication_token=hitlog-1-%26-2\
                &query=INSERT%20INTO%20%60events%60%20FORMAT%20Native HTTP/1.1\r\n";
    assert!(rows.head.starts_with(line), "{}", rows.head);
    assert_eq!(rows.body, pieces.concat());
    assert!(rows.head.contains("\r\ncontent-length: 5242882\r\n"), "{}", rows.head);
    assert_eq!(zstd::decode_all(&*packed.body).unwrap(), pieces.concat());
    for (request, is_packed) in [(&statement, false), (&rows, false), (&packed, true)] {
        let head = &request.head;
        assert!(
            head.contains("\r\nx-clickhouse-user: hitlog\r\n") && head.contains("\r\nx-clickhouse-key: geheim\r\n"),
            "{head}"
        );
        assert!(!head.contains("transfer-encoding") && !head.lines().next().unwrap().contains("geheim"), "{head}");
        assert_eq!(head.contains("\r\ncontent-encoding: zstd\r\n"), is_packed, "{head}");
    }
    assert!(!format!("{client:?} {:?} {}", client.target(), client.target()).contains("geheim"));
}

#[tokio::test]
async fn an_answer_counts_only_where_nothing_says_otherwise() {
    let code = "x-clickhouse-exception-code: 60\r\n";
    let said = "1\nCode: 395. DB::Exception: too bad";
    let long = "x".repeat(200_000);
    let ok = |head: &str| format!("{OK}{head}");
    for (reply, class_and_doubt, words) in [
        (Reply::Say(whole(OK, "0123456789")), None, "0123456789"),
        (Reply::Cut(format!("{OK}\r\nto the end")), None, "to the end"),
        (Reply::Say(whole(&ok(code), "")), Some((Class::Pause, false)), "answers error 60"),
        (Reply::Say(whole(OK, "Code: 60. DB::Exception: no")), Some((Class::Pause, false)), "error 60: no"),
        (Reply::Say(whole(OK, &long)), Some((Class::Retry, true)), "answers with more than 50 bytes"),
        (Reply::Say(whole(OK, "Code: 6")), None, "Code: 6"),
        (Reply::Cut(chunked(OK, said)), Some((Class::Data, false)), "error 395: too bad"),
        (
            Reply::Say(whole(&format!("HTTP/1.1 404 Not Found\r\n{code}"), "no table")),
            Some((Class::Pause, false)),
            "no table",
        ),
        (Reply::Say(whole("HTTP/1.1 500 Error\r\n", said)), Some((Class::Data, false)), "error 395: too bad"),
        (
            Reply::Say(whole(&format!("HTTP/1.1 404 Not Found\r\n{code}"), &long)),
            Some((Class::Pause, false)),
            "60: xxx",
        ),
        (Reply::Say(whole("HTTP/1.1 502 Bad Gateway\r\n", "<html>")), Some((Class::Retry, true)), "<html>"),
        (Reply::Cut(format!("{OK}content-length: 10\r\n\r\nabc")), Some((Class::Retry, true)), "cut the connection"),
        (Reply::Cut(chunked(OK, "abc")), Some((Class::Retry, true)), "cut the connection"),
        (Reply::Cut(String::new()), Some((Class::Retry, true)), "cut the connection"),
        (Reply::Say(String::new()), Some((Class::Retry, true)), "has not answered within 1 s"),
        (Reply::Say(format!("{OK}content-length: 10\r\n\r\nabc")), Some((Class::Retry, true)), "nothing for 0.3 s"),
        (Reply::Say("SSH-2.0-OpenSSH\r\n\r\n".into()), Some((Class::Retry, true)), "does not answer as HTTP"),
    ] {
        let server = Server::start([vec![reply.clone()]]);
        match (ask(&client(&server.url())).await, class_and_doubt) {
            (Ok(answer), None) => assert_eq!(answer.body, words),
            (Err(failure), Some(class_and_doubt)) => {
                assert_eq!((class(&failure), failure.is_in_doubt()), class_and_doubt, "{reply:?}: {failure:?}");
                let text = failure.to_string();
                assert!(text.contains(words) && !text.contains("geheim") && text.len() < 1_000, "{reply:?}: {text}");
            }
            (other, _) => panic!("{reply:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_error_that_cuts_the_answer_is_told() {
    let tag = "x-clickhouse-exception-tag: abcdefgh\r\n";
    let marked = "\r\n__exception__\r\nabcdefgh\r\nCode: 241. DB::Exception: memory\n33 abcdefgh\r\n__exception__\r\n";
    let server = Server::start([vec![Reply::Cut(chunked(&format!("{OK}{tag}"), marked))]]);
    let failure = client(&server.url()).request(Query::new("SELECT 1"), Vec::new()).await.unwrap_err();
    assert_eq!(failure, Failure::Server { code: 241, message: "memory".into(), status: 200 });
}

#[tokio::test]
async fn who_cannot_be_reached_has_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = ask(&client(&format!("http://{free}"))).await.unwrap_err();
    assert!(failure.to_string().contains("refused") && !failure.is_in_doubt(), "{failure}");
    let failure = ask(&client("http://no-such-host.invalid:8123")).await.unwrap_err();
    assert!(failure.to_string().contains("cannot be reached") && !failure.is_in_doubt(), "{failure}");
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = Server::start([vec![Reply::Say(whole(OK, "1")); 20]]);
    let client = client(&server.url());
    for _ in 0..20 {
        ask(&client).await.unwrap();
    }
    assert!(server.requests(20).iter().all(|request| request.connection == 0));

    let server = Server::start(vec![vec![Reply::Say(whole(OK, "1"))]; 4]);
    let client = self::client(&server.url());
    let (a, b, c, d) = tokio::join!(ask(&client), ask(&client), ask(&client), ask(&client));
    assert!([a, b, c, d].iter().all(Result::is_ok));
    assert_eq!(client.idle.lock().len(), IDLE_MAX);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_rested_is_replaced() {
    // Of the one that is closed before an answer something was sent, so it is not sent again.
    for (second, is_answered) in [(Reply::Close, true), (Reply::Cut(String::new()), false)] {
        let server = Server::start([vec![Reply::Say(whole(OK, "1")), second], vec![Reply::Say(whole(OK, "2"))]]);
        let client = client(&server.url());
        ask(&client).await.unwrap();
        // The connection comes to rest, and is closed while nobody looks.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if is_answered {
            server.closed(1);
        }
        let second = ask(&client).await;
        assert_eq!(second.as_ref().is_ok_and(|answer| answer.body == "2"), is_answered, "{second:?}");
        assert!(is_answered || second.unwrap_err().is_in_doubt());
    }
}

#[tokio::test]
async fn a_connection_that_is_gone_when_it_is_used_is_replaced_once() {
    for (rests, is_answered) in [(Some((Instant::now(), REST_MAX)), true), (None, false)] {
        let server = Server::start([vec![Reply::Close], vec![Reply::Say(whole(OK, "1"))]]);
        let client = client(&server.url());
        let mut gone = client.connect().await.unwrap();
        gone._task.shutdown().await;
        gone.rests = rests;
        let (request, progress) = client.build(Query::new("SELECT 1"), Vec::new()).unwrap();
        let is_sent = AtomicBool::new(false);
        match client.send(request, &progress, gone, &is_sent).await {
            Ok((response, _)) => assert!(is_answered && response.status() == 200),
            Err(failure) => assert!(!is_answered && !failure.is_in_doubt(), "{failure:?}"),
        }
        assert_eq!(is_sent.load(Ordering::Relaxed), is_answered);
    }
}

#[tokio::test]
async fn who_takes_no_more_is_given_up() {
    let server = Server::start([vec![Reply::TakeHead]]);
    let pieces = vec![Bytes::from(vec![0; 64 * 1024 * 1024])];
    let query = Query { time_max: Duration::from_secs(60), ..Query::new("INSERT INTO events FORMAT Native") };
    let failure = client(&server.url()).request(query, pieces).await.unwrap_err();
    assert!(failure.to_string().contains("has taken nothing for 0.3 s") && failure.is_in_doubt(), "{failure}");
}

#[test]
fn how_long_a_connection_rests() {
    for (header, seconds) in [
        (Some("timeout=30, max=9999"), 25),
        (Some("max=100, timeout=10"), 9),
        (Some("timeout=3"), 2),
        (Some("timeout=0"), 0),
        (Some("timeout=long"), 9),
        (Some("max=5"), 9),
        (None, 9),
    ] {
        let mut headers = HeaderMap::new();
        headers
            .extend(header.map(|value| (hyper::header::HeaderName::from_static("keep-alive"), value.parse().unwrap())));
        assert_eq!(rest_max(&headers), Duration::from_secs(seconds), "{header:?}");
    }
}

#[tokio::test]
async fn the_next_address_is_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = listener.local_addr().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let wait = Duration::from_secs(5);
    assert_eq!(connect_to_one(&[free, there], wait).await.unwrap().peer_addr().unwrap(), there);
    assert!(connect_to_one(&[free], wait).await.is_err() && connect_to_one(&[], wait).await.is_err());
}
