//! The load generator: many connections, one thread, one write and one read a request. It shares the cores with the
//! server that it loads, so what it takes itself is kept small, and is the same for every server that is compared.
//!
//! A closed loop sends the next request of a connection when its answer is there. In an open loop requests are due at
//! fixed times, are sent by the first connection that is free, and their latency counts from when they were due: a
//! server that stalls is charged for all that should have been sent meanwhile.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::TcpStream, unix::SourceFd};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::{results::Percentiles, shape::Source};

/// How often an open loop looks what is due. epoll's own timeout is no finer than a millisecond.
const TICK: Duration = Duration::from_micros(200);
/// For the answers that are still out at the end.
const TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 256 * 1024;
const TIMER: Token = Token(usize::MAX);

/// What a run found.
pub struct Load {
    pub requests: u64,
    /// Answered 503.
    pub refused: u64,
    pub seconds: f64,
    /// In microseconds.
    latencies: Histogram<u64>,
}

impl Load {
    fn new() -> Self {
        // Up to a minute, three digits.
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
        Self { requests: 0, refused: 0, seconds: 0.0, latencies }
    }

    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    pub fn percentiles(&self) -> Percentiles {
        let at = |share: f64| self.latencies.value_at_quantile(share) as f64 / 1e3;
        Percentiles { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

/// When a run sends.
enum Pace {
    /// Each connection as soon as it is free, until this time or this many requests.
    Closed { until: Instant, requests: u64 },
    /// Requests due at `start + number * interval` while that is before `until`.
    Open { start: Instant, interval: f64, until: Instant },
}

pub struct Generator {
    poll: Poll,
    connections: Vec<Connection>,
    /// Connections without a request.
    free: Vec<usize>,
    timer: OwnedFd,
    inbox: Vec<u8>,
}

impl Generator {
    pub fn connect(address: &str, connections: usize) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let poll = Poll::new().unwrap();
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).unwrap();
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE).unwrap();
        let connections = (0..connections)
            .map(|at| {
                let stream = std::net::TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_nonblocking(true).unwrap();
                let mut stream = TcpStream::from_std(stream);
                poll.registry().register(&mut stream, Token(at), Interest::READABLE | Interest::WRITABLE).unwrap();
                Connection {
                    stream,
                    request: Vec::new(),
                    written: 0,
                    answer: Response::default(),
                    since: Instant::now(),
                }
            })
            .collect();
        Self { poll, connections, free: Vec::new(), timer, inbox: vec![0; READ_BYTES] }
    }

    /// As fast as answers come, for some seconds.
    pub fn closed(&mut self, source: &mut Source, seconds: f64) -> Load {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        self.run(source, &Pace::Closed { until, requests: u64::MAX })
    }

    /// As fast as answers come, for so many requests.
    pub fn closed_for(&mut self, source: &mut Source, requests: u64) -> Load {
        self.run(source, &Pace::Closed { until: Instant::now() + Duration::from_secs(3_600), requests })
    }

    /// So many requests a second, for some seconds.
    pub fn open(&mut self, source: &mut Source, rate: f64, seconds: f64) -> Load {
        self.tick(TICK);
        let start = Instant::now();
        let pace = Pace::Open { start, interval: 1.0 / rate, until: start + Duration::from_secs_f64(seconds) };
        let load = self.run(source, &pace);
        self.tick(Duration::ZERO);
        load
    }

    fn tick(&self, interval: Duration) {
        let interval = Timespec { tv_sec: 0, tv_nsec: interval.as_nanos() as _ };
        let setting = Itimerspec { it_interval: interval, it_value: interval };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting).unwrap();
    }

    fn run(&mut self, source: &mut Source, pace: &Pace) -> Load {
        let (mut load, mut events, begun) = (Load::new(), Events::with_capacity(1_024), Instant::now());
        let mut sent = 0;
        self.free = (0..self.connections.len()).rev().collect();
        loop {
            let (more, due_for_ever) = self.send_due(source, pace, &mut sent);
            if !more && self.free.len() == self.connections.len() {
                break;
            }
            assert!(due_for_ever < TIMEOUT, "answers are missing");
            self.poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
            for event in &events {
                if event.token() == TIMER {
                    // A timer that is not read does not tick again.
                    let _ = rustix::io::read(&self.timer, &mut [0; 8]);
                    continue;
                }
                let (at, connection) = (event.token().0, &mut self.connections[event.token().0]);
                if event.is_writable() {
                    connection.write();
                }
                if event.is_readable()
                    && let Some(status) = connection.read(&mut self.inbox)
                {
                    load.requests += 1;
                    load.refused += u64::from(status == 503);
                    load.latencies.saturating_record(connection.since.elapsed().as_micros() as u64);
                    self.free.push(at);
                    self.send_due(source, pace, &mut sent);
                }
            }
        }
        load.seconds = begun.elapsed().as_secs_f64();
        load
    }

    /// Sends what is due as long as a connection is free. Returns whether more will be due, and since when no more is.
    fn send_due(&mut self, source: &mut Source, pace: &Pace, sent: &mut u64) -> (bool, Duration) {
        let now = Instant::now();
        loop {
            let (due, until) = match *pace {
                Pace::Closed { until, requests } => (if *sent < requests { now } else { until }, until),
                Pace::Open { start, interval, until } => {
                    (start + Duration::from_secs_f64(interval * *sent as f64), until)
                }
            };
            if due >= until {
                return (false, now.saturating_duration_since(until));
            }
            if due > now {
                return (true, Duration::ZERO);
            }
            let Some(at) = self.free.pop() else { return (true, now.saturating_duration_since(until)) };
            self.connections[at].send(source, due);
            *sent += 1;
        }
    }
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    written: usize,
    answer: Response,
    /// When its request was due.
    since: Instant,
}

impl Connection {
    fn send(&mut self, source: &mut Source, due: Instant) {
        self.since = due;
        self.request.clear();
        source.write_next(&mut self.request);
        self.written = 0;
        self.write();
    }

    fn write(&mut self) {
        while self.written < self.request.len() {
            match self.stream.write(&self.request[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("a connection broke: {error}"),
            }
        }
    }

    /// Reads what is there; the status when an answer is complete.
    fn read(&mut self, inbox: &mut [u8]) -> Option<u16> {
        loop {
            let count = match self.stream.read(inbox) {
                Ok(0) => panic!("the server closed a connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("a connection broke: {error}"),
            };
            if let Some(status) = self.answer.take_in(&inbox[..count]) {
                return Some(status);
            }
            // Less than asked for: the next byte is told by another event.
            if count < inbox.len() {
                return None;
            }
        }
    }
}

/// An answer on its way in: its head until that is complete, then how much of the body is to come.
#[derive(Default)]
struct Response {
    head: Vec<u8>,
    status: u16,
    body_left: Option<usize>,
}

impl Response {
    fn take_in(&mut self, bytes: &[u8]) -> Option<u16> {
        let left = match self.body_left {
            Some(left) => left - bytes.len(),
            None => {
                self.head.extend_from_slice(bytes);
                let end = self.head.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
                let head = std::str::from_utf8(&self.head[..end]).unwrap();
                self.status = head[9..12].parse().unwrap();
                let (_, length) = head.split_once("content-length: ").expect("a content-length");
                let length: usize = length[..length.find('\r').unwrap()].parse().unwrap();
                let status = self.status;
                assert!(matches!(status, 201 | 503), "{}", String::from_utf8_lossy(&self.head));
                let left = end + length - self.head.len();
                self.head.clear();
                left
            }
        };
        self.body_left = (left > 0).then_some(left);
        (left == 0).then_some(self.status)
    }
}
