//! Documents that are made from the code say what the code says.

mod settings;

use std::{env, fs, path::Path};

/// Holds that a document is exactly the text that the code makes. `WRITE_DOCS=1` writes it instead.
pub(crate) fn check(document: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    if env::var_os("WRITE_DOCS").is_some() {
        fs::write(&path, made).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differs = made.lines().zip(written.lines()).position(|(made, written)| made != written);
    let line = differs.unwrap_or(made.lines().count().min(written.lines().count())) + 1;
    assert!(
        written == made,
        "{document} differs in line {line}: WRITE_DOCS=1 cargo test --test it docs:: makes it anew"
    );
}
