//! Runs a target for its time, each round with a seed of its own.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use harness::turn;
use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

/// Inputs of a round; the clock is looked at between rounds.
const ROUND_INPUTS: u32 = 64;
/// How long a control may take; nearly all find their fault within a second.
const CONTROL_TIME: Duration = Duration::from_secs(60);

/// How long each target runs.
fn target_time() -> Duration {
    let seconds =
        std::env::var("HITLOG_PROPERTY_SECONDS").map_or(6.0, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs_f64(seconds)
}

/// Runs `check` on new inputs until the time is up. Panics with the smallest input for which it fails.
pub fn assert_holds<S: Strategy>(target: &str, inputs: &S, check: impl Fn(&S::Value) -> Result<(), String>) {
    let started = Instant::now();
    let shrink = Config { max_shrink_iters: 20_000, max_shrink_time: 60_000, ..Config::default() };
    let (executions, failure) = run(inputs, target_time(), shrink, check);
    let seconds = started.elapsed().as_secs_f64();
    println!("{target}: {executions} executions in {seconds:.1} s, {:.0}/s", executions as f64 / seconds);
    if let Some(failure) = failure {
        panic!("{target}: {failure}");
    }
}

/// Holds that `check`, which has a fault planted, fails soon.
pub fn assert_found<S: Strategy>(fault: &str, inputs: &S, check: impl Fn(&S::Value) -> Result<(), String>) {
    let started = Instant::now();
    let (executions, failure) = run(inputs, CONTROL_TIME, Config { max_shrink_iters: 0, ..Config::default() }, check);
    assert!(failure.is_some(), "{fault}: nothing found in {executions} executions");
    println!("control {fault}: found after {executions} executions, {:.2} s", started.elapsed().as_secs_f64());
}

fn run<S: Strategy>(
    inputs: &S,
    time: Duration,
    shrink: Config,
    check: impl Fn(&S::Value) -> Result<(), String>,
) -> (u64, Option<String>) {
    turn::share();
    let executions = Cell::new(0);
    let started = Instant::now();
    while started.elapsed() < time {
        let config = Config { cases: ROUND_INPUTS, failure_persistence: None, ..shrink.clone() };
        let seed: [u8; 32] = rand::random();
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let outcome = runner.run(inputs, |input| {
            executions.set(executions.get() + 1);
            check(&input).map_err(TestCaseError::fail)
        });
        if let Err(failure) = outcome {
            return (executions.get(), Some(failure.to_string()));
        }
    }
    (executions.get(), None)
}
