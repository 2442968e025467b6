//! Asks a running hitlog: one connection for each request, and as much of the answer as is wanted.
//!
//! Plain HTTP, because hitlog speaks nothing else. No redirect is followed, so the token goes nowhere but where it was
//! sent. Every wait has a limit, and every body that is read whole a bound. Must not know what is asked for, nor what
//! an answer means.

use std::{error::Error, fmt, io, net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use url::{Host, Url};

use super::table::{printable, shorten};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To find the address and to connect.
    pub connect: Duration,
    /// From the connection to the head of the answer.
    pub head: Duration,
    /// Between two pieces of a body.
    pub silence: Duration,
}

impl Default for Patience {
    /// A tail says something every 15 s, so after three times that nobody is there any more.
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), head: Duration::from_secs(10), silence: Duration::from_secs(45) }
    }
}

/// Most bytes that are read of what a refusal says.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// Most characters that are shown of what the other side says.
const SAID_CHARS_MAX: usize = 500;
/// The buffer of a connection, in bytes; what hitlog answers has no head that is nearly as long.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Where a hitlog answers: what stands before the paths of its interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// To connect to; an IPv6 address without its brackets.
    host: String,
    port: u16,
    /// As `Host` has it.
    authority: String,
    /// What a proxy has put before the paths, without a slash at its end.
    prefix: String,
}

impl BaseUrl {
    /// Reads what somebody has typed; or says what to type instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        // Without the text itself, which may have a password in it.
        let url =
            Url::parse(&whole).map_err(|error| format!("expected a URL such as http://127.0.0.1:3000: {error}"))?;
        match url.scheme() {
            "http" => {}
            "https" => {
                return Err(
                    "this command speaks plain HTTP, and no https: run it on the machine that hitlog runs on, \
                            or reach that through a tunnel, such as `ssh -N -L 3000:127.0.0.1:3000 MACHINE`, and give \
                            --url http://127.0.0.1:3000"
                        .into(),
                );
            }
            _ => return Err("expected a URL that begins with http://".into()),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "a user or a password is no part of it: a token is given with HITLOG_READ_TOKEN, --read-token \
                        or token_file"
                    .into(),
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("expected no \"?\" and no \"#\": the URL ends where the paths of hitlog begin".into());
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err("the URL names no host".into()),
        };
        let port = url.port().unwrap_or(80);
        if port == 0 {
            return Err("nothing listens on port 0: give the port that hitlog says at its start".into());
        }
        let shown = url.host_str().unwrap_or_default();
        let authority = url.port().map_or_else(|| shown.to_owned(), |port| format!("{shown}:{port}"));
        Ok(Self { host, port, authority, prefix: url.path().trim_end_matches('/').to_owned() })
    }

    /// Where a hitlog is reached from its own machine that listens on this address; or what to say instead.
    pub fn of_listener(listen: SocketAddr) -> Result<Self, String> {
        if listen.port() == 0 {
            return Err("listen has port 0, which is another one at each start: say with --url where hitlog listens, \
                        in the words of its first line"
                .into());
        }
        let loopback = match listen {
            SocketAddr::V4(_) => "127.0.0.1",
            SocketAddr::V6(_) => "[::1]",
        };
        let (host, port) = (listen.ip(), listen.port());
        Self::parse(&if host.is_unspecified() { format!("{loopback}:{port}") } else { listen.to_string() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}{}", self.authority, self.prefix)
    }
}

/// Why there was no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("cannot connect within {} s", .0.as_secs_f64())]
    ConnectTimeout(Duration),
    #[error("the request cannot be written: {0}")]
    Request(hyper::http::Error),
    #[error("the connection ended without an answer: {}", cause(.0))]
    NoAnswer(hyper::Error),
    #[error("no answer within {} s", .0.as_secs_f64())]
    HeadTimeout(Duration),
    #[error("the connection was cut: {}", cause(.0))]
    Cut(hyper::Error),
    #[error("nothing came for {} s", .0.as_secs_f64())]
    Silence(Duration),
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
}

/// Why, in the words of the cause: hyper's own say what it was at.
fn cause(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Asks one hitlog.
#[derive(Debug)]
pub struct Client {
    base: BaseUrl,
    /// What is sent in `Authorization`; its `Debug` does not show it.
    authorization: Option<HeaderValue>,
    patience: Patience,
}

impl Client {
    /// One that shows this token with every request.
    pub fn new(base: BaseUrl, token: Option<&str>, patience: Patience) -> Self {
        // A configured token is visible ASCII, which every header takes.
        let authorization = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let authorization = authorization.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self { base, authorization, patience }
    }

    /// Where it asks.
    pub(super) fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// Asks for what is at a path, with its query, in a form.
    pub(super) async fn get(&self, path: &str, accept: &'static str) -> Result<Answer, ClientError> {
        self.ask(Method::GET, path, accept).await
    }

    /// Asks for something to be done, without a body.
    pub(super) async fn post(&self, path: &str, accept: &'static str) -> Result<Answer, ClientError> {
        self.ask(Method::POST, path, accept).await
    }

    async fn ask(&self, method: Method, path: &str, accept: &'static str) -> Result<Answer, ClientError> {
        let request = self.request(method, path, accept).map_err(ClientError::Request)?;
        let connected = timeout(self.patience.connect, TcpStream::connect((&*self.base.host, self.base.port))).await;
        let stream =
            connected.map_err(|_| ClientError::ConnectTimeout(self.patience.connect))?.map_err(ClientError::Connect)?;
        let answered = async {
            let mut builder = http1::Builder::new();
            let (mut sender, connection) =
                builder.max_buf_size(BUFFER_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
            let mut task = JoinSet::new();
            task.spawn(async {
                // Whoever reads the answer is told of its errors.
                let _ = connection.await;
            });
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok(Answer { head, body, silence: self.patience.silence, _connection: task })
        };
        match timeout(self.patience.head, answered).await {
            Ok(answered) => answered.map_err(ClientError::NoAnswer),
            Err(_) => Err(ClientError::HeadTimeout(self.patience.head)),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
    ) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
        const AGENT: &str = concat!("hitlog/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base.prefix))
            .header(HOST, &self.base.authority)
            .header(ACCEPT, accept)
            .header(USER_AGENT, AGENT);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Empty::new())
    }
}

/// An answer whose head is there.
#[derive(Debug)]
pub(super) struct Answer {
    head: hyper::http::response::Parts,
    body: Incoming,
    silence: Duration,
    /// Ends with the answer.
    _connection: JoinSet<()>,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.head.status
    }

    /// A header of the answer; `None` where it is no text.
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The next bytes of the body; `None` at its end.
    pub(super) async fn next_bytes(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match timeout(self.silence, self.body.frame()).await {
                Err(_) => return Err(ClientError::Silence(self.silence)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(ClientError::Cut(error)),
                Ok(Some(Ok(frame))) => {
                    // Trailers are passed over.
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The whole body.
    pub(super) async fn read(&mut self, bytes_max: usize) -> Result<Vec<u8>, ClientError> {
        let mut read = Vec::new();
        while let Some(bytes) = self.next_bytes().await? {
            if read.len() + bytes.len() > bytes_max {
                return Err(ClientError::TooLong(bytes_max));
            }
            read.extend_from_slice(&bytes);
        }
        Ok(read)
    }

    /// What it says that is no success.
    pub(super) async fn refusal(mut self) -> Refusal {
        let status = self.status();
        let retry_after = self.header(RETRY_AFTER).and_then(|text| text.parse().ok()).map(Duration::from_secs);
        if status.is_redirection() {
            let place = self.header(LOCATION).unwrap_or("nowhere");
            let place = shorten(&printable(place), SAID_CHARS_MAX);
            return Refusal {
                status,
                retry_after,
                is_in_known_words: false,
                text: format!(
                    "answers {} and points to {place}, which is not followed: give --url what hitlog's paths are \
                     behind there",
                    status.as_u16()
                ),
            };
        }
        let said = self.read(REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let error = serde_json::from_slice::<ErrorJson>(&said);
        let is_in_known_words = error.is_ok();
        let text = match error {
            Ok(error) => format!("answers {} {}", status.as_u16(), error.text()),
            Err(_) => {
                format!("answers {status}, in words that are not hitlog's: is it something else that listens there?")
            }
        };
        Refusal { status, retry_after, text, is_in_known_words }
    }
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// After how long to try again.
    pub(super) retry_after: Option<Duration>,
    /// What it says, for people; what says it stands before.
    pub(super) text: String,
    /// It is an error as the API shows it, so that it is hitlog's.
    pub(super) is_in_known_words: bool,
}

/// An error as the API shows it.
#[derive(Deserialize)]
struct ErrorJson {
    error: String,
    message: String,
    details: Option<DetailsJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DetailsJson {
    #[serde(default)]
    form_errors: Vec<String>,
    #[serde(default)]
    field_errors: std::collections::BTreeMap<String, Vec<String>>,
}

impl ErrorJson {
    fn text(&self) -> String {
        let mut text = format!("{}: {}", self.error, self.message);
        if let Some(details) = &self.details {
            let form = details.form_errors.iter().map(|said| format!("; {said}"));
            let fields = details.field_errors.iter().map(|(field, said)| format!("; {field}: {}", said.join(", ")));
            text.extend(form.chain(fields));
        }
        shorten(&printable(&text), SAID_CHARS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Shutdown, TcpListener},
        thread,
    };

    use super::*;

    #[test]
    fn where_a_hitlog_answers() {
        for (text, shown, host, port) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000", "127.0.0.1", 3_000),
            ("127.0.0.1:3000", "http://127.0.0.1:3000", "127.0.0.1", 3_000),
            ("localhost:3000/", "http://localhost:3000", "localhost", 3_000),
            ("HTTP://Stats.Example", "http://stats.example", "stats.example", 80),
            ("http://stats.example:80/", "http://stats.example", "stats.example", 80),
            ("http://[::1]:3000", "http://[::1]:3000", "::1", 3_000),
            ("[2001:db8::1]", "http://[2001:db8::1]", "2001:db8::1", 80),
            ("http://stats.example/analytics//", "http://stats.example/analytics", "stats.example", 80),
            ("http://stats.example/a b/\u{fc}", "http://stats.example/a%20b/%C3%BC", "stats.example", 80),
        ] {
            let base = BaseUrl::parse(text).unwrap();
            assert_eq!((&*base.to_string(), &*base.host, base.port), (shown, host, port), "{text}");
            let client = Client::new(base, None, Patience::default());
            assert!(client.request(Method::GET, "/api/v1/websites?limit=1", "*/*").is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_of_a_hitlog() {
        for (text, words) in [
            ("https://stats.example", "ssh -N -L"),
            ("ftp://stats.example", "begins with http://"),
            ("http://", "expected a URL"),
            ("", "expected a URL"),
            ("http://a b", "expected a URL"),
            ("http://user:secret@stats.example", "HITLOG_READ_TOKEN"),
            ("http://user:secret@stats.example:99999", "expected a URL"),
            ("http://stats.example/?a=b", "the URL ends where"),
            ("http://stats.example/#a", "the URL ends where"),
            ("http://stats.example:0", "port 0"),
        ] {
            let said = BaseUrl::parse(text).unwrap_err();
            assert!(said.contains(words) && !said.contains("secret"), "{text}: {said}");
        }
    }

    #[test]
    fn a_listener_is_reached_from_its_own_machine() {
        for (listen, shown) in [
            ("127.0.0.1:3000", Ok("http://127.0.0.1:3000")),
            ("0.0.0.0:80", Ok("http://127.0.0.1")),
            ("[::]:3000", Ok("http://[::1]:3000")),
            ("[::1]:3000", Ok("http://[::1]:3000")),
            ("192.0.2.1:3000", Ok("http://192.0.2.1:3000")),
            ("127.0.0.1:0", Err("--url")),
        ] {
            let base = BaseUrl::of_listener(listen.parse().unwrap());
            match shown {
                Ok(shown) => assert_eq!(base.unwrap().to_string(), shown),
                Err(word) => assert!(base.unwrap_err().contains(word)),
            }
        }
    }

    /// Serves these bytes to one client, and cuts the connection or keeps it open until that goes.
    fn serve(bytes: &str, is_cut: bool) -> BaseUrl {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bytes = bytes.to_owned();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(bytes.as_bytes());
            if is_cut {
                let _ = stream.shutdown(Shutdown::Both);
            }
            let _ = stream.read_to_end(&mut Vec::new());
        });
        BaseUrl::parse(&address.to_string()).unwrap()
    }

    fn impatient(base: BaseUrl) -> Client {
        let wait = Duration::from_millis(200);
        Client::new(base, None, Patience { head: wait, silence: wait, ..Patience::default() })
    }

    /// All that an answer has, and how it ends.
    async fn read(bytes: &str, is_cut: bool) -> (String, String) {
        let mut answer = match impatient(serve(bytes, is_cut)).get("/", "*/*").await {
            Ok(answer) => answer,
            Err(error) => return (String::new(), error.to_string()),
        };
        let mut read = Vec::new();
        let end = loop {
            match answer.next_bytes().await {
                Ok(Some(bytes)) => read.extend_from_slice(&bytes),
                Ok(None) => break "the end".into(),
                Err(error) => break error.to_string(),
            }
        };
        (String::from_utf8(read).unwrap(), end)
    }

    #[tokio::test]
    async fn every_wait_has_an_end() {
        let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        for (bytes, is_cut, body, end) in [
            (String::new(), false, "", "no answer within 0.2 s"),
            ("HTTP/1.1 200 OK\r\n".into(), false, "", "no answer within 0.2 s"),
            (String::new(), true, "", "the connection ended without an answer"),
            (chunked("3\r\nabc\r\n"), false, "abc", "nothing came for 0.2 s"),
            (chunked("5\r\nabc"), true, "abc", "the connection was cut"),
            (chunked("3\r\nabc\r\n"), true, "abc", "the connection was cut"),
            (chunked("3\r\nabc\r\n0\r\n\r\n"), false, "abc", "the end"),
        ] {
            let (read, ended) = read(&bytes, is_cut).await;
            assert_eq!(read, body, "{bytes:?}: {ended}");
            assert!(ended.starts_with(end), "{bytes:?}: {ended}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_as_far_as_its_bound() {
        for (bytes_max, is_read) in [(3, true), (2, false)] {
            let base = serve("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", false);
            let read = impatient(base).get("/", "*/*").await.unwrap().read(bytes_max).await;
            assert_eq!(read.is_ok(), is_read, "{read:?}");
        }
    }

    async fn refused(head: &str, body: &str) -> Refusal {
        let bytes = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        impatient(serve(&bytes, false)).get("/", "*/*").await.unwrap().refusal().await
    }

    #[tokio::test]
    async fn what_a_refusal_says() {
        let overloaded = r#"{"error":"OVERLOADED","message":"Too\u001bmany"}"#;
        let refusal = refused("503 Service Unavailable\r\nretry-after: 7", overloaded).await;
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
        let invalid =
            r#"{"error":"V","message":"no","details":{"formErrors":["f"],"fieldErrors":{"after":["a","b"]}}}"#;
        for (head, body, text) in [
            ("503 Service Unavailable", overloaded, "answers 503 OVERLOADED: Too\u{fffd}many"),
            ("400 Bad Request", invalid, "answers 400 V: no; f; after: a, b"),
            ("302 Found\r\nlocation: http://x.example/", "", "answers 302 and points to http://x.example/, which"),
            ("404 Not Found", "<html>", "answers 404 Not Found, in words that are not hitlog's"),
        ] {
            let refusal = refused(head, body).await;
            assert!(refusal.text.starts_with(text), "{refusal:?}");
        }
    }

    #[test]
    fn a_token_is_in_no_debug_text() {
        let client = Client::new(BaseUrl::parse("localhost").unwrap(), Some("0123456789abcdef"), Patience::default());
        assert!(client.authorization.is_some() && !format!("{client:?}").contains("0123456789abcdef"));
    }
}
