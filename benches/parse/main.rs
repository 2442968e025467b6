//! What does it cost to turn bytes into valid events, beside simd-json's bare pass over the same bytes?
//!
//! `cargo bench --bench parse [-- --quick]`: criterion's figures, then the ratios, measured in turn.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, Throughput};
use harness::traffic;
use hitlog::event::{Arrival, BODY_PADDING, Intake, Rules, parse_batch, parse_event};

const BATCH: usize = 1_000;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(40);

fn main() {
    let bodies = [
        ("single event", traffic::event(CODE, 1)),
        ("event with 1 KB of properties", event_with_properties()),
        ("batch of 500", traffic::batch(CODE, 500)),
        ("batch of 1,000", traffic::batch(CODE, BATCH)),
        // So large that it is read item by item: nothing is kept of it as it was sent.
        ("batch of 1,000 with escapes", traffic::batch(CODE, BATCH).replace('/', r"\/")),
    ];
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    for (name, body) in &bodies {
        let mut group = criterion.benchmark_group(*name);
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut tape = BareTape::default();
        for (side, mut parse) in sides(&mut tape) {
            group.bench_function(side, |bencher| {
                bencher.iter_batched(|| padded(body), &mut parse, BatchSize::SmallInput);
            });
        }
        group.finish();
    }
    println!("\nbytes to valid events, against bare simd-json; median of {ROUNDS} rounds in turn");
    for (name, body) in &bodies {
        let mut tape = BareTape::default();
        let mut ratios: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let [ours, bare] = sides(&mut tape).map(|(_, parse)| rate(body, parse));
                ours / bare
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        println!("{name:<32} {:>6.2}", ratios[ROUNDS / 2]);
    }
}

const CODE: &str = "pm-abc123-1704067200000";

type Parse<'a> = Box<dyn FnMut(Vec<u8>) + 'a>;

fn sides(tape: &mut BareTape) -> [(&'static str, Parse<'_>); 2] {
    [("hitlog", Box::new(parse)), ("simd-json", Box::new(|body| tape.fill(body)))]
}

fn parse(body: Vec<u8>) {
    let website = Intake::of_anything("web-0123456789ab");
    let website_id = |_: &str| Some(Arc::clone(&website));
    if body.starts_with(b"{\"events\"") {
        black_box(parse_batch(body, &RULES, &Arrival::at(ARRIVAL), website_id).unwrap());
    } else {
        black_box(parse_event(body, &RULES, &Arrival::at(ARRIVAL), website_id).unwrap());
    }
}

/// simd-json's tape of a body, its memory used again as hitlog uses it again.
struct BareTape {
    buffers: simd_json::Buffers,
    tape: simd_json::Tape<'static>,
}

impl Default for BareTape {
    fn default() -> Self {
        Self { buffers: simd_json::Buffers::with_max_depth(256 * 1024, 35), tape: simd_json::Tape(Vec::new()) }
    }
}

impl BareTape {
    fn fill(&mut self, mut body: Vec<u8>) {
        let len = body.len();
        body.resize(len + BODY_PADDING, 0);
        let mut tape = std::mem::replace(&mut self.tape, simd_json::Tape(Vec::new())).reset();
        simd_json::fill_tape_padded(&mut body, len, &mut self.buffers, &mut tape).unwrap();
        black_box(&tape.0);
        self.tape = tape.reset();
    }
}

/// Bodies a second. The copy of the body is made outside of the time.
fn rate(body: &str, mut parse: impl FnMut(Vec<u8>)) -> f64 {
    let (started, mut elapsed, mut count) = (Instant::now(), Duration::ZERO, 0);
    while started.elapsed() < ROUND {
        let copies: Vec<Vec<u8>> = (0..16).map(|_| padded(body)).collect();
        let begun = Instant::now();
        count += copies.len();
        copies.into_iter().for_each(&mut parse);
        elapsed += begun.elapsed();
    }
    count as f64 / elapsed.as_secs_f64()
}

/// As bodies come from the socket: with room behind them.
fn padded(body: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + BODY_PADDING);
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

fn event_with_properties() -> String {
    let items: Vec<String> = (0..12)
        .map(|number| {
            format!(
                r#"{{"sku":"A-{number}","title":"Größe \"{number}\" – 日本語","price":{number}.5,"tags":["a","b"]}}"#
            )
        })
        .collect();
    let properties = format!(r#","properties":{{"cart":[{}],"depth":{{"a":{{"b":null}}}}}}}}"#, items.join(","));
    traffic::event(CODE, 1).strip_suffix('}').unwrap().to_owned() + &properties
}

const ARRIVAL: i64 = 1_769_630_400_000;

const RULES: Rules = Rules {
    url_bytes_max: 4_096,
    any_bare_scheme: false,
    id_bytes_max: 128,
    text_chars_max: 100,
    properties_bytes_max: 32 * 1024,
    properties_depth_max: 32,
    timestamp_ahead_max_ms: 86_400_000,
    timestamp_age_max_ms: i64::MAX,
    batch_events_max: BATCH,
    item_bytes_max: 256 * 1024,
    warnings_told_max: 100,
};
