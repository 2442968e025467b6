//! A server that answers what it is told to, one connection after the other.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

/// What is done with a request.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// Read it and say this.
    Say(String),
    /// Read it, say this, and close the connection.
    Cut(String),
    /// Read its head and no more.
    TakeHead,
    /// Close the connection before there is one, in a tenth of a second.
    Close,
}

/// A request as it came.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) connection: usize,
    /// As it was sent, up to the empty line.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

pub(super) struct Server {
    address: SocketAddr,
    requests: Receiver<Request>,
    closed: Receiver<()>,
}

/// An answer that says how long it is.
pub(super) fn whole(head: &str, body: &str) -> String {
    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
}

/// An answer in chunks, without its end.
pub(super) fn chunked(head: &str, body: &str) -> String {
    format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len())
}

impl Server {
    /// Takes as many connections as it has lists of replies.
    pub(super) fn start(connections: impl IntoIterator<Item = Vec<Reply>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ((request, requests), (close, closed)) = (channel(), channel());
        let connections: Vec<_> = connections.into_iter().collect();
        thread::spawn(move || {
            for (connection, replies) in connections.into_iter().enumerate() {
                let (stream, _) = listener.accept().unwrap();
                let (request, close) = (request.clone(), close.clone());
                thread::spawn(move || serve(stream, connection, replies, &request, &close));
            }
        });
        Self { address, requests, closed }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next requests that came.
    pub(super) fn requests(&self, count: usize) -> Vec<Request> {
        (0..count).map(|_| self.requests.recv_timeout(Duration::from_secs(30)).unwrap()).collect()
    }

    /// Waits until so many connections are closed.
    pub(super) fn closed(&self, count: usize) {
        for _ in 0..count {
            self.closed.recv_timeout(Duration::from_secs(30)).unwrap();
        }
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    replies: Vec<Reply>,
    requests: &Sender<Request>,
    closed: &Sender<()>,
) {
    for reply in replies {
        if matches!(reply, Reply::Close) {
            thread::sleep(Duration::from_millis(100));
            stream.shutdown(Shutdown::Both).unwrap();
            let _ = closed.send(());
            return;
        }
        let Some(head) = read_head(&mut stream) else { return };
        if matches!(reply, Reply::TakeHead) {
            thread::sleep(Duration::from_secs(30));
            return;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        // The test may not want to know.
        let _ = requests.send(Request { connection, head, body });
        match reply {
            Reply::Say(bytes) => stream.write_all(bytes.as_bytes()).unwrap(),
            Reply::Cut(bytes) => {
                stream.write_all(bytes.as_bytes()).unwrap();
                stream.shutdown(Shutdown::Both).unwrap();
                return;
            }
            Reply::TakeHead | Reply::Close => {}
        }
    }
    // Whoever closes it by a reply says so; otherwise it stays until the client goes.
    let _ = stream.read_to_end(&mut Vec::new());
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}
