//! Asks a ClickHouse over HTTP: statements, and blocks of rows for an insert.
//!
//! Owns the connections, their TLS, and what an answer is: one counts only where nothing in it says otherwise. Every
//! wait has a limit, and every body a bound. Says of each failure whether the request may have had an effect, and what
//! kind of failure it is. Does not try again, but where a connection that had rested turns out closed before anything
//! was sent. Must not know what is asked for.

mod answer;
mod body;
mod codes;
mod compress;
mod failure;
mod target;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    error::Error,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    task::{JoinSet, yield_now},
    time::{Instant, timeout},
};

use self::{
    answer::Head,
    body::{Outgoing, Progress},
    tls::Tls,
};
pub use self::{
    answer::{Answer, Summary},
    codes::Class,
    compress::compress,
    failure::{Failure, class},
    target::Target,
};

/// Most connections that are kept while nothing is asked.
const IDLE_MAX: usize = 2;
/// How long a connection rests at most before it is used again.
const REST_MAX: Duration = Duration::from_secs(25);
/// The same for a server that does not say how long it waits.
const REST_UNTOLD_MAX: Duration = Duration::from_secs(10);
/// How much sooner than the server says a connection is given up, so that a request does not cross its end.
const REST_MARGIN: Duration = Duration::from_secs(1);
/// Most bytes that are read of an answer that is none.
const FAILURE_BYTES_MAX: usize = 64 * 1024;
/// The buffer of a connection, in bytes: also the longest head of an answer.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// What may stand in a URL as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To find the address, to connect, and to begin TLS.
    pub connect: Duration,
    /// Without the other side taking more of a request or giving more of an answer. It may work for longer on a
    /// request that it has, as long as [`Query::time_max`] says.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(60) }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The statement. It goes into the URL where there are rows to send, and otherwise into the body.
    pub statement: &'a str,
    /// What else the URL has: `database`, `query_id`, ClickHouse's settings, and `param_...` of the statement.
    pub parameters: &'a [(&'a str, &'a str)],
    /// The rows are packed, by [`compress()`].
    pub is_zstd: bool,
    /// Most bytes of an answer.
    pub answer_bytes_max: usize,
    /// How long all may take, from connecting to the answer's last byte.
    pub time_max: Duration,
}

impl<'a> Query<'a> {
    /// Asks for a statement, without parameters, within half a minute.
    pub fn new(statement: &'a str) -> Self {
        let time_max = Duration::from_secs(30);
        Self { statement, parameters: &[], is_zstd: false, answer_bytes_max: 1024 * 1024, time_max }
    }
}

/// Asks one ClickHouse.
pub struct Client {
    target: Target,
    tls: Option<Tls>,
    patience: Patience,
    /// The newest last.
    idle: Mutex<Vec<Connection>>,
}

/// One that has no request.
struct Connection {
    sender: SendRequest<Outgoing>,
    /// Ends with the connection.
    _task: JoinSet<()>,
    /// Since when it rests, and how long it may; `None` of a new one.
    rests: Option<(Instant, Duration)>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Client {
    /// One that has not connected yet. Fails where nobody is known whose certificates are to be trusted.
    pub fn new(target: Target, patience: Patience) -> Result<Self, String> {
        let tls = target.is_tls().then(|| Tls::new(target.host(), target.ca_file())).transpose()?;
        Ok(Self { target, tls, patience, idle: Mutex::default() })
    }

    /// Whom it asks.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Asks, and waits for the whole answer. The body is the rows of an insert; without one the statement is all.
    pub async fn request(&self, query: Query<'_>, body: Vec<Bytes>) -> Result<Answer, Failure> {
        let is_sent = AtomicBool::new(false);
        match timeout(query.time_max, self.ask(query, body, &is_sent)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Timeout {
                message: format!("{} has not answered within {} s", self.target, query.time_max.as_secs_f64()),
                is_sent: is_sent.load(Ordering::Relaxed),
            }),
        }
    }

    async fn ask(&self, query: Query<'_>, body: Vec<Bytes>, is_sent: &AtomicBool) -> Result<Answer, Failure> {
        let (request, progress) = self.build(query, body)?;
        let rested = timeout(self.patience.connect, self.rested()).await.unwrap_or_default();
        let connection = match rested {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let (response, connection) = self.send(request, &progress, connection, is_sent).await?;
        self.read(response, query.answer_bytes_max, connection).await
    }

    /// Sends a request, over another connection if this one has rested and is gone, and waits for the answer's head.
    async fn send(
        &self,
        mut request: Request<Outgoing>,
        progress: &Progress,
        mut connection: Connection,
        is_sent: &AtomicBool,
    ) -> Result<(hyper::Response<Incoming>, Connection), Failure> {
        loop {
            is_sent.store(true, Ordering::Relaxed);
            let sent = tokio::select! {
                sent = connection.sender.try_send_request(request) => sent,
                () = progress.silence(self.patience.silence) => {
                    let silence = self.patience.silence.as_secs_f64();
                    let message = self.says(format_args!("has taken nothing for {silence} s"));
                    return Err(Failure::Timeout { message, is_sent: true });
                }
            };
            let mut error = match sent {
                Ok(response) => return Ok((response, connection)),
                Err(error) => error,
            };
            // It comes back only where nothing of it was sent.
            let back = error.take_message();
            is_sent.store(back.is_none(), Ordering::Relaxed);
            match back {
                Some(back) if connection.rests.is_some() => {
                    request = back;
                    connection = self.connect().await?;
                }
                back => return Err(self.cut(&error.into_error(), back.is_none())),
            }
        }
    }

    fn build(&self, query: Query<'_>, mut body: Vec<Bytes>) -> Result<(Request<Outgoing>, Arc<Progress>), Failure> {
        const AGENT: &str = concat!("hitlog/", env!("CARGO_PKG_VERSION"));
        let mut parameters = query.parameters.to_vec();
        let has_rows = body.iter().any(|piece| !piece.is_empty());
        if has_rows {
            parameters.push(("query", query.statement));
        } else {
            body = vec![Bytes::copy_from_slice(query.statement.as_bytes())];
        }
        let mut url = format!("{}/", self.target.prefix());
        for (at, (name, value)) in parameters.into_iter().enumerate() {
            let separator = if at == 0 { '?' } else { '&' };
            let [name, value] = [name, value].map(|text| utf8_percent_encode(text, PLAIN));
            url.extend([separator.to_string(), format!("{name}={value}")]);
        }
        let (body, progress) = Outgoing::new(body);
        let mut request = Request::post(url)
            .header(HOST, self.target.authority())
            .header(USER_AGENT, AGENT)
            .header("x-clickhouse-user", self.target.user())
            .header(CONTENT_LENGTH, body.left());
        if let Some(password) = self.target.password() {
            request = request.header("x-clickhouse-key", password);
        }
        if has_rows && query.is_zstd {
            request = request.header(CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        }
        let request = request.body(body).map_err(|error| Failure::Protocol {
            message: format!("the request cannot be written: {error}"),
            is_sent: false,
        })?;
        Ok((request, progress))
    }

    /// A connection that rests and is still there.
    async fn rested(&self) -> Option<Connection> {
        // Where the runtime stood still since the last request, it learns only now which connections were closed: each
        // yield lets it look at the sockets, and then at the tasks that wait for them.
        for _ in 0..2 {
            yield_now().await;
        }
        loop {
            let mut connection = self.idle.lock().pop()?;
            let is_fresh = connection.rests.is_some_and(|(since, rest_max)| since.elapsed() < rest_max);
            if is_fresh && connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        match timeout(self.patience.connect, self.connect_at_leisure()).await {
            Ok(connected) => connected,
            Err(_) => Err(Failure::Timeout {
                message: self.says(format_args!("cannot be reached within {} s", self.patience.connect.as_secs_f64())),
                is_sent: false,
            }),
        }
    }

    async fn connect_at_leisure(&self) -> Result<Connection, Failure> {
        let network = |error: io::Error| Failure::Network {
            message: self.says(format_args!("cannot be reached: {error}{}", self.port_advice())),
            is_sent: false,
        };
        let host = (self.target.host(), self.target.port());
        let addresses: Vec<_> = lookup_host(host).await.map_err(network)?.collect();
        let stream = connect_to_one(&addresses, self.patience.connect).await.map_err(network)?;
        let opened = match &self.tls {
            Some(tls) => open(tls.connect(stream).await?).await,
            None => open(stream).await,
        };
        opened.map_err(|error| self.cut(&error, false))
    }

    fn port_advice(&self) -> &'static str {
        match self.target.port() {
            80 => ". The URL names no port or 80; ClickHouse's own is 8123",
            443 => ". The URL names no port or 443; ClickHouse's own is 8443",
            _ => "",
        }
    }

    /// Reads an answer, judges it, and keeps the connection if nothing is left in it.
    async fn read(
        &self,
        response: hyper::Response<Incoming>,
        bytes_max: usize,
        mut connection: Connection,
    ) -> Result<Answer, Failure> {
        let (parts, mut body) = response.into_parts();
        let head = Head { status: parts.status, headers: parts.headers };
        let bytes_max = if head.is_failure() { FAILURE_BYTES_MAX } else { bytes_max };
        let mut read = Vec::new();
        loop {
            let frame = match timeout(self.patience.silence, body.frame()).await {
                Ok(None) => break,
                Ok(Some(frame)) => frame,
                Err(_) => {
                    let silence = self.patience.silence.as_secs_f64();
                    let message =
                        self.says(format_args!("has said nothing for {silence} s in the middle of an answer"));
                    return Err(head.failure_in(&read).unwrap_or(Failure::Timeout { message, is_sent: true }));
                }
            };
            // An error that comes after the answer has begun ends it before its end.
            let frame = frame.map_err(|error| head.failure_in(&read).unwrap_or_else(|| self.cut(&error, true)))?;
            // Trailers are passed over.
            let Ok(bytes) = frame.into_data() else { continue };
            read.extend_from_slice(&bytes);
            if read.len() > bytes_max {
                let message = self.says(format_args!("answers with more than {bytes_max} bytes"));
                return Err(head.failure_in(&read).unwrap_or(Failure::Protocol { message, is_sent: true }));
            }
        }
        connection.rests = Some((Instant::now(), rest_max(&head.headers)));
        let mut idle = self.idle.lock();
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push(connection);
        drop(idle);
        head.judge(read.into())
    }

    /// What an error of hyper's is.
    fn cut(&self, error: &hyper::Error, is_sent: bool) -> Failure {
        // hyper's own words say what it was at, the cause's what happened.
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        if error.is_parse() {
            let message = self.says(format_args!("does not answer as HTTP ({cause}): is the port right?"));
            return Failure::Protocol { message, is_sent };
        }
        Failure::Network { message: self.says(format_args!("has cut the connection: {cause}")), is_sent }
    }

    fn says(&self, what: fmt::Arguments<'_>) -> String {
        format!("{} {what}", self.target)
    }
}

/// Connects to the first of these that answers, with as much time for each as there are others to try.
async fn connect_to_one(addresses: &[SocketAddr], time_max: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (at, address) in addresses.iter().enumerate() {
        let others = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match timeout(time_max / others, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return prepare(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    // A server that works on a request says nothing; one that lost its power does so, too. The system finds out.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(15));
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn open(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection, hyper::Error> {
    let mut builder = http1::Builder::new();
    let (sender, connection) = builder.max_buf_size(BUFFER_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
    let mut task = JoinSet::new();
    task.spawn(async {
        // Whoever waits for an answer is told of its errors.
        let _ = connection.await;
    });
    Ok(Connection { sender, _task: task, rests: None })
}

/// How long the server lets a connection rest.
fn rest_max(headers: &HeaderMap) -> Duration {
    let told = headers.get("keep-alive").and_then(|value| value.to_str().ok()).and_then(|value| {
        let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
        seconds.parse().ok().map(Duration::from_secs)
    });
    told.unwrap_or(REST_UNTOLD_MAX).saturating_sub(REST_MARGIN).min(REST_MAX)
}
