//! What is served is what the source gives, and no larger than it may be.

use std::{
    io::{Read, Write},
    process::Command,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use crate::driver::skip;

const GZIP_BYTES_MAX: usize = 2_300;

#[test]
fn the_tracker_has_2300_bytes_at_most() {
    let plain = include_bytes!("../../src/web/tracker.min.js");
    let compressed = include_bytes!("../../src/web/tracker.min.js.gz");
    assert!(compressed.len() <= GZIP_BYTES_MAX, "{}", compressed.len());
    // By another zlib than node's it may be a few bytes more.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    let again = encoder.finish().unwrap();
    assert!(again.len() <= GZIP_BYTES_MAX + 20, "{}", again.len());
}

#[test]
fn what_is_compressed_is_what_is_not() {
    for (plain, gzip, brotli) in [
        (
            &include_bytes!("../../src/web/tracker.min.js")[..],
            &include_bytes!("../../src/web/tracker.min.js.gz")[..],
            &include_bytes!("../../src/web/tracker.min.js.br")[..],
        ),
        (
            include_bytes!("../../src/web/tracker.v1.js"),
            include_bytes!("../../src/web/tracker.v1.js.gz"),
            include_bytes!("../../src/web/tracker.v1.js.br"),
        ),
        (
            include_bytes!("../../src/web/tracker.mjs"),
            include_bytes!("../../src/web/tracker.mjs.gz"),
            include_bytes!("../../src/web/tracker.mjs.br"),
        ),
    ] {
        let (mut of_gzip, mut of_brotli) = (Vec::new(), Vec::new());
        GzDecoder::new(gzip).read_to_end(&mut of_gzip).unwrap();
        brotli_decompressor::Decompressor::new(brotli, 4_096).read_to_end(&mut of_brotli).unwrap();
        assert!(of_gzip == plain && of_brotli == plain);
    }
}

#[test]
fn what_is_committed_is_what_the_source_gives() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/tracker");
    if !Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip("there is no node: apt-get install nodejs npm");
    }
    let output = Command::new(script).arg("check").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if told.contains("npm is missing") || told.contains("npm could not fetch") {
        return skip(&told);
    }
    assert!(output.status.success(), "{told}");
}
