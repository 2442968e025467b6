//! TLS before a server that does not speak it, as the ClickHouse of the tests: nginx with a certificate of a CA made
//! for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{ClickHouse, nginx::Nginx, port::HeldPort, work_dir};

/// What is wrong with the certificate, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Of `localhost` and 127.0.0.1, for the next thirty days.
    Valid,
    /// The same, of January 2020.
    Expired,
    /// Valid, of another host.
    OtherName,
}

pub struct TlsFront {
    pub port: u16,
    /// The certificate of the CA, as PEM: who trusts this trusts the front's, if there is nothing else against it.
    pub ca_file: PathBuf,
    _port: HeldPort,
    _nginx: Nginx,
}

impl TlsFront {
    pub fn start(server: &ClickHouse, certificate: Certificate) -> Self {
        Self::before(&server.url(), certificate)
    }

    /// Starts one before any server of HTTP.
    pub fn before(url: &str, certificate: Certificate) -> Self {
        let (folder, port) = (work_dir(), HeldPort::take());
        make_certificate(folder.path(), certificate);
        let http = format!(
            "client_max_body_size 0;
            server {{
                listen {} ssl; ssl_certificate server.pem; ssl_certificate_key server.key;
                location / {{ proxy_pass {}; proxy_request_buffering off; proxy_buffering off; }}
            }}",
            port.address(),
            url,
        );
        let ca_file = folder.path().join("ca.pem");
        let nginx = Nginx::start_in(folder, &http, &[port.address()]);
        Self { port: port.number(), ca_file, _port: port, _nginx: nginx }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

/// `openssl ca` is the one command of it that takes both dates, and needs a folder with a list of what it has signed.
const CA_CONFIG: &str = "
    [req]\ndistinguished_name = name\n[name]\n
    [ca]\ndefault_ca = tests\n
    [tests]\ndatabase = index.txt\nserial = serial\nnew_certs_dir = .\ncertificate = ca.pem\nprivate_key = ca.key
    default_md = sha256\npolicy = any\nunique_subject = no\n
    [any]\ncommonName = supplied\n
    [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n
    [server]\nbasicConstraints = CA:FALSE\nextendedKeyUsage = serverAuth\nsubjectAltName = NAMES\n
";

/// Makes `ca.pem`, `server.pem` and `server.key`.
fn make_certificate(folder: &Path, certificate: Certificate) {
    let names = if certificate == Certificate::OtherName { "DNS:other.example" } else { "DNS:localhost, IP:127.0.0.1" };
    fs::write(folder.join("ca.conf"), CA_CONFIG.replace("NAMES", names)).unwrap();
    fs::write(folder.join("index.txt"), "").unwrap();
    fs::write(folder.join("serial"), "01\n").unwrap();
    let dates = match certificate {
        Certificate::Valid | Certificate::OtherName => "-days 30",
        Certificate::Expired => "-startdate 20200101000000Z -enddate 20200131000000Z",
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config ca.conf";
    for arguments in [
        format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=tests-of-hitlog -extensions authority"),
        format!("req -new {key} -keyout server.key -out server.csr -subj /CN=server"),
        format!("ca -batch -config ca.conf -extensions server -in server.csr -out server.pem -notext {dates}"),
    ] {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
        let output = output.expect("openssl is needed: apt-get install openssl");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
