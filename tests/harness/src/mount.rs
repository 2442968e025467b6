//! Disks of a test's own, for root: small ones, read-only ones, and ones whose power is cut.

use std::{path::Path, process::Command};

/// Whether disks can be mounted.
pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A mounted file system; unmounted when dropped.
pub struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    /// Mounts on `folder` what mount(8) is told to.
    pub fn new(arguments: &[&str], folder: &'a Path) -> Self {
        run("mount", &[arguments, &[folder.to_str().unwrap()]].concat());
        Self(folder)
    }

    /// A file system in memory of so many MiB.
    pub fn in_memory(mib: u32, folder: &'a Path) -> Self {
        Self::new(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"], folder)
    }

    /// Mounts it again with other options.
    pub fn change(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), self.0.to_str().unwrap()]);
    }

    /// Stops the file system at once, as EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH does: every call fails from
    /// now on, and what was not synced is gone when it is mounted again.
    pub fn cut_power(&self) {
        let script = "import fcntl, os, struct, sys\n\
                      fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
        run("python3", &["-c", script, self.0.to_str().unwrap()]);
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let folder = self.0.to_str().unwrap();
        // When a test has failed, its daemon may still be there.
        let arguments = if std::thread::panicking() { vec!["-l", folder] } else { vec![folder] };
        run("umount", &arguments);
    }
}
