//! Looks how SQLite was compiled, as far as the library itself does not tell when it is asked.
//!
//! Cargo compiles SQLite with the flags in `.cargo/config.toml`, which it reads only when it runs within this folder or
//! is told to install from it. Whether SQLite syncs with fdatasync is in no answer of the library, so its archive is
//! looked at here: it names the function or it does not. hitlog tells at its start what it lacks
//! (`store::sqlite_build`).

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBSQLITE3_FLAGS");
    // Where libsqlite3-sys has put what it has compiled; nothing if it was told to link another SQLite.
    let archive = env::var_os("DEP_SQLITE3_LIB_DIR").map(|folder| Path::new(&folder).join("libsqlite3.a"));
    let library = archive.and_then(|path| {
        println!("cargo::rerun-if-changed={}", path.display());
        fs::read(path).ok()
    });
    let sync = match library {
        None => "unknown",
        Some(library) if library.windows(10).any(|symbol| symbol == b"fdatasync\0") => "fdatasync",
        Some(_) => "fsync",
    };
    if sync != "fdatasync" {
        println!(
            "cargo::warning=SQLite is compiled without the flags in .cargo/config.toml: hitlog works, but every commit \
             takes longer. Run cargo within hitlog's folder, or install with `cargo install --path . --locked` there"
        );
    }
    println!("cargo::rustc-env=SQLITE_SYNC_OF_HITLOG={sync}");
}
