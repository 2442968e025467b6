//! How long a sync takes, measured where it happens.
//!
//! SQLite calls fdatasync inside COMMIT and inside a checkpoint, so from outside nobody can tell a slow disk from a
//! large group. This module registers a VFS named [`NAME`] that is the default one in everything but this: the
//! files it opens have an `xSync` that takes the time around the real one. There is no safe way to stand between
//! SQLite and its files; nothing else here is changed, and no data passes through.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_int},
    sync::{Arc, OnceLock},
    time::Instant,
};

use parking_lot::RwLock;
use rusqlite::ffi;

use crate::metrics::Metrics;

/// The name to open connections with.
pub(super) const NAME: &CStr = c"hitlog";

/// The default VFS's open, the default files' methods, and those methods with our `xSync` in place of theirs.
struct Shim {
    default_vfs: *mut ffi::sqlite3_vfs,
    default_methods: OnceLock<usize>,
    timed_methods: OnceLock<ffi::sqlite3_io_methods>,
    observer: RwLock<Option<Arc<Metrics>>>,
}

// SAFETY: the pointer is to SQLite's default VFS, which lives as long as the process and is never changed; the rest
// is synchronised by its types (`sqlite3_io_methods` is a version and function pointers, all plain data).
unsafe impl Send for Shim {}
// SAFETY: as above.
unsafe impl Sync for Shim {}

static SHIM: OnceLock<Option<Shim>> = OnceLock::new();

/// Registers the VFS, once in a process, and sends the times to `metrics` from now on. Returns whether it stands.
pub(super) fn register(metrics: &Arc<Metrics>) -> bool {
    let Some(shim) = SHIM.get_or_init(install) else { return false };
    *shim.observer.write() = Some(Arc::clone(metrics));
    true
}

fn install() -> Option<Shim> {
    // SAFETY: a null name asks for the default VFS, which is static. The copy keeps its every member but the name,
    // `xOpen` and the list's link (which registering sets), and is leaked, as a registered VFS must stay.
    unsafe {
        let default_vfs = ffi::sqlite3_vfs_find(std::ptr::null());
        if default_vfs.is_null() {
            return None;
        }
        let mut vfs: ffi::sqlite3_vfs = std::ptr::read(default_vfs);
        vfs.zName = NAME.as_ptr();
        vfs.xOpen = Some(open);
        vfs.pNext = std::ptr::null_mut();
        let registered = ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0);
        (registered == ffi::SQLITE_OK).then(|| Shim {
            default_vfs,
            default_methods: OnceLock::new(),
            timed_methods: OnceLock::new(),
            observer: RwLock::new(None),
        })
    }
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let Some(Some(shim)) = SHIM.get() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: SQLite's arguments are passed on as they are to the `xOpen` of the VFS that ours copies, whose file
    // size it has. After a successful open `pMethods` is that file's table, which is static; it is swapped for a
    // table that differs in `xSync` alone, and only where it is the one table that the swap was made from.
    unsafe {
        let Some(default_open) = (*shim.default_vfs).xOpen else { return ffi::SQLITE_CANTOPEN };
        let code = default_open(shim.default_vfs, name, file, flags, flags_out);
        if code == ffi::SQLITE_OK && !(*file).pMethods.is_null() {
            let methods = (*file).pMethods;
            let timed = shim.timed_methods.get_or_init(|| {
                let _ = shim.default_methods.set(methods as usize);
                ffi::sqlite3_io_methods { xSync: Some(sync), ..std::ptr::read(methods) }
            });
            if shim.default_methods.get() == Some(&(methods as usize)) {
                (*file).pMethods = timed;
            }
        }
        code
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let Some(Some(shim)) = SHIM.get() else { return ffi::SQLITE_IOERR_FSYNC };
    let Some(methods) = shim.default_methods.get() else { return ffi::SQLITE_IOERR_FSYNC };
    let methods = *methods as *const ffi::sqlite3_io_methods;
    let started = Instant::now();
    // SAFETY: `file` was opened by `open` above, so it is a file of the default VFS, and `methods` is its static
    // table.
    let code = unsafe { (*methods).xSync.map_or(ffi::SQLITE_IOERR_FSYNC, |sync| sync(file, flags)) };
    if let Some(metrics) = &*shim.observer.read() {
        metrics.sync_seconds.record(started.elapsed().as_secs_f64());
        if code != ffi::SQLITE_OK {
            metrics.sync_errors.increment(1);
        }
    }
    code
}
