//! A client that sends events now and then to a hitlog that dies and comes back elsewhere, and keeps what was answered.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use harness::{Client, Daemon, checker::random_below};
use serde_json::{Value, json};

use crate::ship::event;

/// Most events of a batch, and the longest that is waited before the next.
const BATCH_MAX: u64 = 80;
const BATCH_PAUSE_MS: u64 = 60;

pub(super) struct Feed {
    orders: Arc<Mutex<Orders>>,
    thread: Option<thread::JoinHandle<BTreeSet<usize>>>,
}

/// What a feed is to do.
#[derive(Debug, Default)]
struct Orders {
    /// Where the hitlog listens.
    address: String,
    /// How many batches are to be sent still: so many a round, however long that takes.
    batches: usize,
    is_ended: bool,
}

impl Feed {
    pub(super) fn start(code: String) -> Self {
        let orders = Arc::<Mutex<Orders>>::default();
        let of_thread = Arc::clone(&orders);
        Self { orders, thread: Some(thread::spawn(move || feed(&of_thread, &code))) }
    }

    pub(super) fn send_to(&self, daemon: &Daemon) {
        self.orders.lock().unwrap().address.clone_from(&daemon.address);
    }

    /// Has so many batches be sent in the next time.
    pub(super) fn send(&self, batches: usize) {
        self.orders.lock().unwrap().batches = batches;
    }

    /// Ends, and returns the numbers of the events that were acknowledged.
    pub(super) fn finish(&mut self) -> BTreeSet<usize> {
        self.orders.lock().unwrap().is_ended = true;
        self.thread.take().unwrap().join().unwrap()
    }
}

fn feed(orders: &Mutex<Orders>, code: &str) -> BTreeSet<usize> {
    let (mut acknowledged, mut next, mut client) = (BTreeSet::new(), 0, None);
    loop {
        thread::sleep(Duration::from_millis(random_below(BATCH_PAUSE_MS)));
        let address = {
            let mut orders = orders.lock().unwrap();
            if orders.is_ended {
                return acknowledged;
            }
            let Some(left) = orders.batches.checked_sub(1) else { continue };
            orders.batches = left;
            orders.address.clone()
        };
        // Each number is sent once: what is not answered may be stored or not.
        let numbers = next..next + 1 + random_below(BATCH_MAX) as usize;
        next = numbers.end;
        let events: Vec<Value> = numbers.clone().map(|number| event(code, number)).collect();
        let body = json!({ "events": events }).to_string();
        client = client.or_else(|| Client::try_connect(&address));
        let post = |client: &mut Client| client.try_send("POST", "/api/v1/events/batch", &[], body.as_bytes());
        match client.as_mut().and_then(post) {
            Some(answer) if answer.status == 201 => acknowledged.extend(numbers),
            _ => client = None,
        }
    }
}
