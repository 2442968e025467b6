//! Debian's nginx, as `scripts/setup` has installed it, with a configuration of a test's.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{wait_until, work_dir};

/// One process, so that its end is the end of it, and all its files in its folder.
const BEGIN: &str = "
    daemon off; master_process off; pid FOLDER/nginx.pid; error_log FOLDER/error.log;
    events {}
    http {
        client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/fastcgi;
        uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi; proxy_http_version 1.1;
        log_format upstream '$upstream_addr $status $request'; access_log FOLDER/access.log upstream;
";

pub struct Nginx {
    process: Child,
    folder: TempDir,
}

impl Nginx {
    /// Starts one and waits until it listens on these addresses. What stands in `http` may name files of its folder,
    /// which are beside the configuration.
    pub fn start(http: &str, addresses: &[String]) -> Self {
        Self::start_in(work_dir(), http, addresses)
    }

    /// Starts one in a folder that has files already.
    pub fn start_in(folder: TempDir, http: &str, addresses: &[String]) -> Self {
        let begin = BEGIN.replace("FOLDER", folder.path().to_str().unwrap());
        let (file, log) = (folder.path().join("nginx.conf"), folder.path().join("error.log"));
        fs::write(&file, format!("{begin}{http}}}")).unwrap();
        // A shell of a plain user may not look where Debian puts it.
        let program = ["/usr/sbin/nginx", "nginx"].into_iter().find(|program| {
            Command::new(program).arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        });
        let mut process = Command::new(program.expect("nginx is needed: apt-get install nginx-light"))
            .args(["-e", log.to_str().unwrap(), "-c", file.to_str().unwrap()])
            .spawn()
            .unwrap();
        wait_until("nginx listens", || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "nginx ended: {}", fs::read_to_string(&log).unwrap_or_default());
            addresses.iter().all(|address| TcpStream::connect(address).is_ok()).then_some(())
        });
        Self { process, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
