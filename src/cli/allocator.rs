//! What glibc's allocator does with memory that is given back.
//!
//! It raises, by itself, the size from which on memory is a mapping of its own, up to 32 MiB. What a seal takes for
//! some moments then comes from the heaps that threads share with what lives for long, and stays with the process:
//! 88 MiB after a few million events, and 48 with the sizes that are set here (`benches/sustained`). Other allocators
//! need no word.
#![allow(unsafe_code)]

/// Has whatever is larger than this, in bytes, be a mapping that goes back to the system when it is freed, and so much
/// be kept at the end of a heap at most. Called before any other thread is there.
#[cfg(target_env = "gnu")]
pub(super) fn give_memory_back() {
    const BYTES: libc::c_int = 1 << 20;
    // SAFETY: mallopt changes two numbers of the allocator's own; nobody else allocates while only this thread is
    // there. That it may refuse (it returns 0) changes nothing but how much memory the process keeps.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, BYTES);
    }
}

/// Nothing to do.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_memory_back() {}
