//! What glibc's allocator does with memory that is freed. Knows nothing of hitlog.
//!
//! It raises, by itself, the size from which on memory is a mapping of its own, up to 32 MiB. What a seal takes for
//! some moments then comes from the heaps that threads share with what lives for long, and stays with the process:
//! 88 MiB after a few million events, and 48 with the sizes that are set here (`benches/sustained`). And it makes eight
//! heaps a processor, each of which keeps what one seal left there: 155 MiB after a hundred million events on two
//! processors, growing with the hours, 137 with few heaps, and 86 when these are trimmed after the last seal. Other
//! allocators need no word.
#![allow(unsafe_code)]

/// Has whatever is larger than this, in bytes, be a mapping that goes back to the system when it is freed, so much be
/// kept at the end of a heap at most, and a heap for each processor be enough. Called before any other thread is there.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_little() {
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

/// Gives what is free within the heaps back to the system. Takes some milliseconds, in which other threads may wait for
/// a heap: for moments after which much is free.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: malloc_trim takes the allocator's own locks and touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// Nothing to do.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_little() {}

/// Nothing to do.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
