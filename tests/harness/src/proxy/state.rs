//! What a proxy's threads share: which requests have which fault, what has happened, and who is to be woken at the end.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::Fault;
use crate::port::HeldPort;

/// Heads that are kept for [`State::requests_with`]; a test that sends more counts otherwise.
const HEADS_MAX: usize = 100_000;

pub(super) struct State {
    pub server: String,
    pub port: HeldPort,
    listener: Mutex<Option<TcpListener>>,
    inner: Mutex<Inner>,
    /// Signalled when something is released, and at the end.
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    ended: bool,
    rules: Vec<Rule>,
    heads: Vec<String>,
    counts: Counts,
    releases: usize,
    /// Open connections, to clients and to the server, by a number of their own.
    open: HashMap<u64, TcpStream>,
    opened: u64,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub answers: usize,
    pub faults: usize,
    pub held: usize,
}

struct Rule {
    text: String,
    left: usize,
    fault: Fault,
}

impl State {
    pub fn new(server: &str, port: HeldPort) -> Self {
        let state = Self {
            server: server.to_owned(),
            port,
            listener: Mutex::default(),
            inner: Mutex::default(),
            changed: Condvar::new(),
        };
        state.refuse(false);
        state
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add_rule(&self, text: &str, left: usize, fault: Fault) {
        self.inner().rules.push(Rule { text: text.to_owned(), left, fault });
    }

    pub fn remove_rules(&self) {
        self.inner().rules.clear();
    }

    /// Notes a request, and says what is done to it.
    pub fn take_in(&self, head: &str) -> Option<Fault> {
        let mut inner = self.inner();
        assert!(inner.heads.len() < HEADS_MAX, "a proxy is for {HEADS_MAX} requests: start another");
        inner.heads.push(head.to_owned());
        let rule = inner.rules.iter_mut().find(|rule| rule.left > 0 && head.contains(&rule.text))?;
        rule.left -= 1;
        Some(rule.fault)
    }

    pub fn requests_with(&self, text: &str) -> usize {
        self.inner().heads.iter().filter(|head| head.contains(text)).count()
    }

    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    pub fn note_answer(&self) {
        self.inner().counts.answers += 1;
    }

    pub fn note_fault(&self) {
        self.inner().counts.faults += 1;
    }

    /// Waits until what is held now is released. An error if the proxy ends before.
    pub fn hold(&self) -> io::Result<Held<'_>> {
        let mut inner = self.inner();
        inner.counts.held += 1;
        let held = Held(self);
        let before = inner.releases;
        while inner.releases == before && !inner.ended {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let ended = inner.ended;
        drop(inner);
        if ended { Err(ErrorKind::NotConnected.into()) } else { Ok(held) }
    }

    pub fn release(&self) {
        self.inner().releases += 1;
        self.changed.notify_all();
    }

    /// Waits so long. An error if the proxy ends before.
    pub fn delay(&self, duration: Duration) -> io::Result<()> {
        let until = Instant::now() + duration;
        let mut inner = self.inner();
        while !inner.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(ErrorKind::NotConnected.into())
    }

    /// The next client, if one waits.
    pub fn accept(&self) -> Option<TcpStream> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        Some(listener.as_ref()?.accept().ok()?.0)
    }

    pub fn refuse(&self, refuse: bool) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if !refuse && listener.is_none() {
            let new = self.port.listen();
            new.set_nonblocking(true).unwrap();
            *listener = Some(new);
        } else if refuse {
            *listener = None;
            self.close_all();
        }
    }

    /// Has a connection closed at the end; an error if that has come.
    pub fn open(&self, stream: &TcpStream) -> io::Result<Open<'_>> {
        let mut inner = self.inner();
        if inner.ended {
            return Err(ErrorKind::NotConnected.into());
        }
        let number = inner.opened;
        inner.opened += 1;
        inner.open.insert(number, stream.try_clone()?);
        Ok(Open { state: self, number })
    }

    fn close_all(&self) {
        for stream in self.inner().open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn end(&self) {
        self.inner().ended = true;
        self.changed.notify_all();
        self.close_all();
    }

    pub fn is_ended(&self) -> bool {
        self.inner().ended
    }
}

/// A connection that is closed at the end of the proxy, while this lives.
pub(super) struct Open<'a> {
    state: &'a State,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.state.inner().open.remove(&self.number);
    }
}

/// A request that counts as held while this lives, and then, in one step, as one that has had its fault.
pub(super) struct Held<'a>(&'a State);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.counts.held -= 1;
        inner.counts.faults += 1;
    }
}
