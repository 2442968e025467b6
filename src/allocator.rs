//! Where memory comes from. Knows nothing of hitlog.
//!
//! glibc's heaps are shared by threads, and a thread that frees what another has allocated takes a lock of the other's
//! heap. A reader, whose priority is low, holds such a lock for milliseconds while all processors are busy, and the
//! edge and the writer wait for it: with eight clients that ask for numbers without pause, one event in a hundred took
//! three to five times as long. mimalloc has a heap for each thread, frees across threads without locks, and takes
//! locks only for what is rare, such as more address space. SQLite, which is C, gets its memory from it, too (the
//! feature `override`).
//!
//! mimalloc keeps what is freed for a second, and asks for huge pages: 120 MiB after some million events, and 55 with
//! what is set here and in Cargo.toml (`no_thp`: it asks for none), at the same rate; glibc's heaps came to 45
//! (`benches/sustained`).
#![allow(unsafe_code)]

use libmimalloc_sys::{mi_option_set, mi_option_t};
use mimalloc::MiMalloc;
use rustix::thread::disable_transparent_huge_pages;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How long memory that is free stays with the process, in milliseconds (`mi_option_purge_delay` of mimalloc.h, whose
/// number the bindings do not name).
const PURGE_DELAY: mi_option_t = 15;

/// Has memory go back to the system as soon as it is free. Called before any other thread is there.
pub(crate) fn keep_little() {
    // SAFETY: it changes a number of the allocator's own, and nobody else looks at it while only this thread is there.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
    // Where the system gives huge pages unasked. If it refuses this, more memory is taken, and nothing else.
    let _ = disable_transparent_huge_pages(true);
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    #[test]
    fn the_number_of_the_option_is_that_of_the_delay() {
        // SAFETY: it reads a number of the allocator's own, which no test changes.
        assert_eq!(unsafe { mi_option_get(PURGE_DELAY) }, 1_000, "the default of no other option");
    }
}
