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

use parking_lot::{Mutex, RwLock};
use rusqlite::ffi;

use crate::metrics::StoreMetrics;

/// The name to open connections with.
pub(crate) const NAME: &CStr = c"hitlog";

/// SQLite's default VFS, and who is told the times.
struct Shim {
    default_vfs: *mut ffi::sqlite3_vfs,
    tables: Mutex<Vec<&'static TimedMethods>>,
    observer: RwLock<Option<Arc<StoreMetrics>>>,
}

/// A copy of one of the default VFS's tables of file methods (it has one for databases and one for logs, which need
/// no locks) with our `xSync` in it, and the table that it was made from. A file's `pMethods` points to the copy.
#[repr(C)]
struct TimedMethods {
    methods: ffi::sqlite3_io_methods,
    default: *const ffi::sqlite3_io_methods,
}

// SAFETY: the pointers are to SQLite's default VFS and its tables, which live as long as the process and are never
// changed; the rest is synchronised by its types (`sqlite3_io_methods` is a version and function pointers).
unsafe impl Send for Shim {}
// SAFETY: as above.
unsafe impl Sync for Shim {}

static SHIM: OnceLock<Option<Shim>> = OnceLock::new();

/// Registers the VFS, once in a process, and sends the times to `metrics` from now on. Returns whether it stands.
pub(crate) fn register(metrics: &Arc<StoreMetrics>) -> bool {
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
            tables: Mutex::new(Vec::new()),
            observer: RwLock::new(None),
        })
    }
}

impl Shim {
    /// The copy of the table `default`, made when it is first seen and leaked, as files point to it.
    fn timed(&self, default: *const ffi::sqlite3_io_methods) -> &'static TimedMethods {
        let mut tables = self.tables.lock();
        if let Some(known) = tables.iter().find(|table| table.default == default) {
            return known;
        }
        // SAFETY: `default` is the `pMethods` of a file that the default VFS has just opened: a valid, static table.
        let methods = ffi::sqlite3_io_methods { xSync: Some(sync), ..unsafe { std::ptr::read(default) } };
        let table = Box::leak(Box::new(TimedMethods { methods, default }));
        tables.push(table);
        table
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
    // size it has. After a successful open `pMethods` is that file's table, and is pointed to a copy that differs in
    // `xSync` alone and, being the first member of a `repr(C)` struct, has the address of the `TimedMethods`.
    unsafe {
        let Some(default_open) = (*shim.default_vfs).xOpen else { return ffi::SQLITE_CANTOPEN };
        let code = default_open(shim.default_vfs, name, file, flags, flags_out);
        if code == ffi::SQLITE_OK && !(*file).pMethods.is_null() {
            (*file).pMethods = std::ptr::from_ref(shim.timed((*file).pMethods)).cast();
        }
        code
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let started = Instant::now();
    // SAFETY: only `open` above puts this function into a table, and there `pMethods` points to a `TimedMethods` that
    // is never freed; `file` is a file of the default VFS, so that VFS's own `xSync` takes it.
    let code = unsafe {
        let timed: *const TimedMethods = (*file).pMethods.cast();
        (*(*timed).default).xSync.map_or(ffi::SQLITE_IOERR_FSYNC, |sync| sync(file, flags))
    };
    if let Some(Some(shim)) = SHIM.get()
        && let Some(metrics) = &*shim.observer.read()
    {
        metrics.sync_seconds.record(started.elapsed().as_secs_f64());
        if code != ffi::SQLITE_OK {
            metrics.sync_errors.increment(1);
        }
    }
    code
}
