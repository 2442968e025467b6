//! Between SQLite and its files: what a failed write means, and how long a sync takes.
//!
//! SQLite calls only ENOSPC a full disk. A quota says EDQUOT and a limit on the size of files EFBIG, and both come out
//! as an I/O error whose errno is overwritten by what SQLite does next; so the errno is looked at here, where the write
//! has just failed. And SQLite syncs inside COMMIT and inside a checkpoint, so that from outside nobody can tell a slow
//! disk from a large group; the time is taken here too.
//!
//! This module registers two VFSs over the default one, which differ from it in this alone: the default for every
//! connection from then on, and [`TIMED`], which also takes the times of syncs. There is no safe way to stand between
//! SQLite and its files; no data passes through.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    io,
    sync::{Arc, OnceLock},
    time::Instant,
};

use parking_lot::{Mutex, RwLock};
use rusqlite::ffi;

use crate::{
    metrics::{Outcome, StoreMetrics},
    store::error::{WAL_INDEX_FULL, io_advice, is_errno_of_full_disk},
};

/// The default VFS from the first [`install`] on.
const PLAIN: &CStr = c"hitlog";
/// The name to open connections with whose syncs are measured.
pub(crate) const TIMED: &CStr = c"hitlog-timed";

/// SQLite's own VFS, and who is told the times.
struct Shim {
    unix: *mut ffi::sqlite3_vfs,
    tables: Mutex<Vec<&'static Table>>,
    observer: RwLock<Option<Arc<StoreMetrics>>>,
}

/// A copy of one of the own VFS's tables of file methods (it has one for databases and one for logs, which need no
/// locks) with methods of ours in it, and the table that it was made from. A file's `pMethods` points to the copy.
#[repr(C)]
struct Table {
    methods: ffi::sqlite3_io_methods,
    unix: *const ffi::sqlite3_io_methods,
    is_timed: bool,
}

// SAFETY: the pointers are to SQLite's own VFS and its tables, which live as long as the process and are never
// changed; the rest is synchronised by its types (`sqlite3_io_methods` is a version and function pointers).
unsafe impl Send for Shim {}
// SAFETY: as above.
unsafe impl Sync for Shim {}

static SHIM: OnceLock<Option<Shim>> = OnceLock::new();

/// Registers both, once in a process; every connection that is opened from now on goes through one of them. If SQLite
/// does not take them, it says so to whoever opens a segment.
pub(crate) fn install() {
    SHIM.get_or_init(register);
}

/// Sends the times of syncs to `metrics` from now on.
pub(crate) fn observe(metrics: &Arc<StoreMetrics>) {
    if let Some(shim) = SHIM.get_or_init(register) {
        *shim.observer.write() = Some(Arc::clone(metrics));
    }
}

fn register() -> Option<Shim> {
    // SAFETY: a null name asks for the default VFS, which is static. Each copy keeps its every member but the name,
    // `xOpen` and the list's link (which registering sets), and is leaked, as a registered VFS must stay.
    unsafe {
        let unix = ffi::sqlite3_vfs_find(std::ptr::null());
        if unix.is_null() {
            return None;
        }
        let add = |name: &'static CStr, open, is_default| {
            let mut vfs: ffi::sqlite3_vfs = std::ptr::read(unix);
            vfs.zName = name.as_ptr();
            vfs.xOpen = Some(open);
            vfs.pNext = std::ptr::null_mut();
            ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), is_default) == ffi::SQLITE_OK
        };
        let stand = add(TIMED, open::<true>, 0) && add(PLAIN, open::<false>, 1);
        stand.then(|| Shim { unix, tables: Mutex::new(Vec::new()), observer: RwLock::new(None) })
    }
}

impl Shim {
    /// The copy of the table `unix`, made when it is first seen and leaked, as files point to it.
    fn table(&self, unix: *const ffi::sqlite3_io_methods, is_timed: bool) -> &'static Table {
        let mut tables = self.tables.lock();
        if let Some(known) = tables.iter().find(|table| table.unix == unix && table.is_timed == is_timed) {
            return known;
        }
        // SAFETY: `unix` is the `pMethods` of a file that the own VFS has just opened: a valid, static table.
        let own = unsafe { std::ptr::read(unix) };
        let methods = ffi::sqlite3_io_methods {
            xWrite: Some(write),
            xTruncate: Some(truncate),
            xSync: Some(sync),
            // Some tables have none, and what has none must go on having none.
            xShmMap: own.xShmMap.map(|_| shm_map as _),
            ..own
        };
        let table = Box::leak(Box::new(Table { methods, unix, is_timed }));
        tables.push(table);
        table
    }
}

unsafe extern "C" fn open<const IS_TIMED: bool>(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let Some(Some(shim)) = SHIM.get() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: SQLite's arguments are passed on as they are to the `xOpen` of the VFS that ours copies, whose file
    // size it has. After a successful open `pMethods` is that file's table, and is pointed to a copy that differs in
    // four methods and, being the first member of a `repr(C)` struct, has the address of the `Table`.
    unsafe {
        let Some(own_open) = (*shim.unix).xOpen else { return ffi::SQLITE_CANTOPEN };
        let code = own_open(shim.unix, name, file, flags, flags_out);
        if code == ffi::SQLITE_OK && !(*file).pMethods.is_null() {
            (*file).pMethods = std::ptr::from_ref(shim.table((*file).pMethods, IS_TIMED)).cast();
        }
        code
    }
}

/// The table of a file that was opened through one of the VFSs here.
///
/// # Safety
///
/// `file` is SQLite's argument to one of the methods below.
unsafe fn table_of(file: *mut ffi::sqlite3_file) -> &'static Table {
    // SAFETY: only `open` above puts those methods into a table, and there `pMethods` points to a `Table` that is never
    // freed.
    unsafe { &*(*file).pMethods.cast::<Table>() }
}

/// The own table of a file that was opened through one of the VFSs here.
///
/// # Safety
///
/// `file` is SQLite's argument to one of the methods below.
unsafe fn own(file: *mut ffi::sqlite3_file) -> &'static ffi::sqlite3_io_methods {
    // SAFETY: as above; the own tables are static.
    unsafe { &*table_of(file).unix }
}

/// What the system said when a write or a new length of this file failed just now.
///
/// # Safety
///
/// `file` is SQLite's argument to one of the methods below.
unsafe fn last_errno(file: *mut ffi::sqlite3_file) -> i32 {
    let mut errno: c_int = 0;
    // SAFETY: this question of the own VFS writes an int to where its argument points.
    unsafe {
        if let Some(control) = own(file).xFileControl {
            control(file, ffi::SQLITE_FCNTL_LAST_ERRNO, (&raw mut errno).cast());
        }
    }
    errno
}

/// What a failure means to SQLite: a full disk, or what SQLite makes of it, which keeps the system's words to itself.
///
/// # Safety
///
/// `file` is SQLite's argument to one of the methods below.
unsafe fn full_or_told(action: &str, file: *mut ffi::sqlite3_file, code: c_int) -> c_int {
    // SAFETY: as above.
    let errno = unsafe { last_errno(file) };
    if is_errno_of_full_disk(errno) {
        return ffi::SQLITE_FULL;
    }
    tell(action, errno);
    code
}

/// Tells what the system said, which ends the process: SQLite calls all of it a disk I/O error.
fn tell(action: &str, errno: i32) {
    let error = io::Error::from_raw_os_error(errno);
    let advice = io_advice(&error);
    tracing::error!(%error, "the system refuses to {action} a file of the store: {advice}");
}

/// A write. Nothing of a transaction counts before its last frame is written whole, so one that fails for want of room
/// is a full disk, whatever word the system has for it.
unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, data: *const c_void, bytes: c_int, at: i64) -> c_int {
    // SAFETY: `file` is a file of the own VFS, so that VFS's own method takes it; the arguments are SQLite's.
    unsafe {
        let code = own(file).xWrite.map_or(ffi::SQLITE_IOERR_WRITE, |write| write(file, data, bytes, at));
        if code == ffi::SQLITE_IOERR_WRITE { full_or_told("write to", file, code) } else { code }
    }
}

/// A new length, which takes room on file systems that never overwrite.
unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: as above.
    unsafe {
        let code = own(file).xTruncate.map_or(ffi::SQLITE_IOERR_TRUNCATE, |truncate| truncate(file, length));
        if code == ffi::SQLITE_IOERR_TRUNCATE { full_or_told("set the length of", file, code) } else { code }
    }
}

/// A part of the index of a write-ahead log. COMMIT asks for the next one only after its frames are written and synced:
/// when there is no room for it then, a start may find the rows, and that is no full disk which leaves things as they
/// were. So it has a code of its own, and a part more than is needed is asked for ahead, while nothing is at stake.
///
/// SQLite lengthens the file by a byte a page, which on file systems with small blocks leaves holes in it. To write to
/// one through the mapping ends the process with SIGBUS if the disk is full by then; so the holes are filled first.
unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: as above. What is asked for ahead is mapped into the own VFS's list and goes to a pointer of ours.
    unsafe {
        let Some(map) = own(file).xShmMap else { return ffi::SQLITE_IOERR_SHMMAP };
        let code = map(file, region, bytes, extend, out);
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        // Also where it was there before: after a failure SQLite goes on with what it had mapped.
        if code == ffi::SQLITE_OK && !fill_holes(*out, bytes) {
            // SQLite would keep the place and write to it all the same.
            *out = std::ptr::null_mut();
            return WAL_INDEX_FULL;
        }
        if code == ffi::SQLITE_OK && extend != 0 {
            let mut ahead = std::ptr::null_mut();
            if map(file, region + 1, bytes, extend, &raw mut ahead) == ffi::SQLITE_OK {
                fill_holes(ahead, bytes);
            }
        }
        let is_growth = code == ffi::SQLITE_IOERR_SHMSIZE || code == ffi::SQLITE_IOERR_SHMOPEN;
        if is_growth && is_errno_of_full_disk(errno) { WAL_INDEX_FULL } else { code }
    }
}

/// Has the system find room for so many bytes of a file that is mapped there. Returns whether there was room.
///
/// # Safety
///
/// `at` is null, or a part of the index that the own VFS has mapped.
#[cfg(target_os = "linux")]
unsafe fn fill_holes(at: *mut c_void, bytes: c_int) -> bool {
    use rustix::{
        io::Errno,
        mm::{Advice, madvise},
    };

    let Ok(bytes) = usize::try_from(bytes) else { return true };
    // SAFETY: this advice changes no byte. Where only reading is allowed, elsewhere than at the beginning of a page,
    // and from a system before Linux 5.14, the answer is EINVAL, and things are as SQLite made them.
    at.is_null() || unsafe { madvise(at, bytes, Advice::LinuxPopulateWrite) } != Err(Errno::FAULT)
}

/// Elsewhere nothing is known that would do it.
///
/// # Safety
///
/// None is needed.
#[cfg(not(target_os = "linux"))]
unsafe fn fill_holes(_at: *mut c_void, _bytes: c_int) -> bool {
    true
}

/// A sync. A failed one leaves in doubt what is on the disk, whatever the system says, so its code stays as it is.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let started = Instant::now();
    // SAFETY: as above.
    let (code, is_timed) = unsafe {
        let code = own(file).xSync.map_or(ffi::SQLITE_IOERR_FSYNC, |sync| sync(file, flags));
        if code != ffi::SQLITE_OK {
            tell("sync", last_errno(file));
        }
        (code, table_of(file).is_timed)
    };
    if is_timed
        && let Some(Some(shim)) = SHIM.get()
        && let Some(metrics) = &*shim.observer.read()
    {
        metrics.sync_seconds.record(started.elapsed().as_secs_f64());
        metrics.syncs(if code == ffi::SQLITE_OK { Outcome::Ok } else { Outcome::Failed }).increment(1);
    }
    code
}
