//! A proxy on loopback that passes HTTP/1.1 on as it came, and does to chosen requests what networks do at the worst
//! moment: it cuts them, loses their answers, sends them twice or late, or answers itself.
//!
//! It reads a request whole before it passes it on, over a connection of its own, and an answer before that goes back;
//! both may have 256 MiB. So it adds a little time, and the server does not notice that a client has gone. Who speaks
//! over it is none of its business: it knows heads, lengths and chunks.

mod exchange;
mod message;
mod state;

use std::{
    net::TcpStream,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use self::state::State;
use crate::{port::HeldPort, turn, wait_until};

/// Connections at a time; one more waits until another has ended.
const CONNECTIONS_MAX: usize = 64;

/// What is done to a request, in place of passing it on and its answer back. Where it ends with the connection closed,
/// the client is told nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Passes on the head and so many bytes of the body, and closes the connections to both. What comes after these
    /// bytes is not read.
    CutRequest(usize),
    /// Passes it on, and closes the connection when the answer has come: it was carried out, and its client does not
    /// know.
    SwallowAnswer,
    /// Passes on so many bytes of the answer, counted from the first of its head, and closes the connection.
    TruncateAnswer(usize),
    /// Answers 200 with an empty body and passes nothing on.
    AnswerItself,
    /// Passes on the head and so many bytes of the body, closes the connection to the server, and answers 200 with an
    /// empty body.
    AnswerItselfAfter(usize),
    /// Sends it to the server and, when that has answered, again; passes the second answer back.
    Twice,
    /// Waits before it passes the request on.
    DelayRequest(Duration),
    /// Waits before it passes the answer back.
    DelayAnswer(Duration),
    /// Closes the connection, and passes the request on only at [`Proxy::release`]: a late repeat. Nobody gets that
    /// answer.
    Hold,
    /// The same, but the connection stays open and silent until then.
    HoldInSilence,
}

pub struct Proxy {
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts one before a server at `HOST:PORT`. The server need not be there.
    pub fn start(server: &str) -> Self {
        turn::share();
        let state = Arc::new(State::new(server, HeldPort::take()));
        let of_thread = Arc::clone(&state);
        Self { state, accepting: Some(thread::spawn(move || accept(&of_thread))) }
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.state.port.address()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Does this to the next requests, so many of them. What was asked for before has its turn first.
    pub fn next(&self, count: usize, fault: Fault) {
        self.next_with("", count, fault);
    }

    /// Does this to the next requests whose head has this text, as a path does that says `INSERT`.
    pub fn next_with(&self, text: &str, count: usize, fault: Fault) {
        self.state.add_rule(text, count, fault);
    }

    /// Passes everything on again. What is held stays held.
    pub fn heal(&self) {
        self.state.remove_rules();
    }

    /// Refuses connections, and closes those that are open, or listens again.
    pub fn refuse(&self, refuse: bool) {
        self.state.refuse(refuse);
    }

    /// Passes on what is held, and what comes to be held meanwhile; waits until the server has answered or has gone.
    pub fn release(&self) {
        wait_until("nothing is held", || {
            self.state.release();
            (self.state.counts().held == 0).then_some(())
        });
    }

    /// How many requests have come: heads that were read.
    pub fn requests(&self) -> usize {
        self.requests_with("")
    }

    /// How many have come whose head has this text.
    pub fn requests_with(&self, text: &str) -> usize {
        self.state.requests_with(text)
    }

    /// How many requests wait for [`release`](Self::release).
    pub fn held(&self) -> usize {
        self.state.counts().held
    }

    /// How many answers have come from the server: two for a request that was sent twice, one for a swallowed answer.
    pub fn answers(&self) -> usize {
        self.state.counts().answers
    }

    /// How many requests have had their fault, to its end.
    pub fn faults(&self) -> usize {
        self.state.counts().faults
    }

    pub fn wait_for_requests(&self, count: usize) {
        wait_until("the requests have come", || (self.requests() >= count).then_some(()));
    }

    pub fn wait_for_held(&self, count: usize) {
        wait_until("the requests are held", || (self.held() >= count).then_some(()));
    }

    pub fn wait_for_faults(&self, count: usize) {
        wait_until("the requests have had their faults", || (self.faults() >= count).then_some(()));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.end();
        // It has panicked only if a test has asked for something that is not there.
        let _ = self.accepting.take().unwrap().join();
    }
}

/// Accepts until the end, and then waits for all that it has begun.
fn accept(state: &Arc<State>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    while !state.is_ended() {
        connections.retain(|connection| !connection.is_finished());
        let accepted: Option<TcpStream> = if connections.len() < CONNECTIONS_MAX { state.accept() } else { None };
        if let Some(client) = accepted {
            let of_thread = Arc::clone(state);
            connections.push(thread::spawn(move || exchange::serve(&of_thread, client)));
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
    for connection in connections {
        let _ = connection.join();
    }
}
