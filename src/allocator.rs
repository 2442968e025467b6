//! Where memory comes from, and when it goes back. Knows nothing of hitlog.
//!
//! Rust's memory comes from mimalloc. glibc's heaps are shared by threads, and a thread that frees what another has
//! allocated takes a lock of the other's heap. A reader, whose priority is low, holds such a lock for milliseconds
//! while all processors are busy, and the edge and the writer wait for it: with eight clients that ask for numbers
//! without pause, the slowest event in a hundred took seven times as long as alone, and 1.15 times with mimalloc
//! (`benches/stats` with `--ingest`). It has a heap for each thread, frees across threads without locks, and takes
//! locks only for what is rare, such as more address space.
//!
//! SQLite's memory, and that of the system's libraries, comes from C's `malloc`. With mimalloc in the place of that,
//! libraries that are loaded before all others crash (libfaketime), and events were no faster.
//!
//! Each keeps what is freed unless it is told. mimalloc does so for a second, and asks for huge pages. glibc raises, by
//! itself, the size from which on memory is a mapping of its own, up to 32 MiB, so that what a seal takes for some
//! moments comes from heaps; and it makes eight of these a processor. With what is set here and in Cargo.toml
//! (`no_thp`: no huge pages), 34 to 44 MiB are resident after some million events and the seals of their segments
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

/// Has memory go back to the system as soon as whole pages of it are free. Called before any other thread is there.
pub(crate) fn keep_little() {
    // SAFETY: it changes a number of the allocator's own, and nobody else looks at it while only this thread is there.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
    // Where the system gives huge pages unasked. If it refuses this, more memory is taken, and nothing else.
    let _ = disable_transparent_huge_pages(true);
    #[cfg(target_env = "gnu")]
    keep_little_in_c();
}

/// Has whatever is larger than this, in bytes, be a mapping that goes back to the system when it is freed, so much be
/// kept at the end of a heap at most, and a heap for each processor be enough. Other libraries need no word.
#[cfg(target_env = "gnu")]
fn keep_little_in_c() {
    const BYTES: libc::c_int = 1 << 20;
    // Threads wait for each other at a heap; with few processors few are at one at a time, and few heaps are cheap.
    const HEAPS_MIN: usize = 4;
    let heaps = std::thread::available_parallelism().map_or(HEAPS_MIN, |processors| processors.get().max(HEAPS_MIN));
    // SAFETY: mallopt changes three numbers of the allocator's own; nobody else allocates while only this thread is
    // there. That it may refuse (it returns 0) changes nothing but how much memory the process keeps.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, BYTES);
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::try_from(heaps).unwrap_or(libc::c_int::MAX));
    }
}

/// Gives what is free within the heaps of C back to the system. Takes some milliseconds, in which other threads may
/// wait for a heap: for moments after which much is free.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: malloc_trim takes the allocator's own locks and touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// Nothing to do.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

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
