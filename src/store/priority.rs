//! How much of the processor a thread of the store asks for.

/// Has the calling thread give way to others, as `nice` does. Once lowered, a priority cannot be raised again without
/// privileges.
pub(super) fn lower_priority(niceness: i32) {
    // Linux takes the calling thread for "process 0".
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}
