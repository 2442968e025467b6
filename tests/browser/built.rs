//! That what is served is made of the source.

use std::process::Command;

use crate::driver::skip;

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
