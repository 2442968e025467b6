//! How many heaps the C library keeps.
//!
//! glibc gives threads heaps of their own, up to eight for each core, and memory that is free in one is of no use to
//! another. Bodies are read on one thread and dropped on another, segments are sealed on a third: the process grew to
//! 244 MiB, of which some 65 were in use (`cargo bench --bench segments -- 1000000`, two cores). With one heap for each
//! core it stays under 150 MiB at the same rate.
#![allow(unsafe_code)]

/// Bounds the heaps by the cores. To be called before the first thread is started.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn bound_heaps() {
    let cores = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    // SAFETY: sets a number that glibc reads when it would make another heap; no memory is passed.
    let done = unsafe { libc::mallopt(libc::M_ARENA_MAX, libc::c_int::try_from(cores).unwrap_or(libc::c_int::MAX)) };
    if done != 1 {
        tracing::debug!("the C library keeps its own bound on heaps");
    }
}

/// Other C libraries have no such heaps.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound_heaps() {}
