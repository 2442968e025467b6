//! TLS, with certificates of an authority that only these tests know.
//!
//! `authority.pem` has signed `server.pem` and `expired.pem`, both for the name `localhost`, with the key of all three,
//! `key.pem`; `stranger.pem` is another authority's. They were made by:
//!
//! ```sh
//! openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out key.pem
//! openssl req -x509 -new -key key.pem -subj "/CN=authority of hitlog's tests" -days 36500 \
//!     -addext "keyUsage=critical,keyCertSign" -out authority.pem
//! openssl req -new -key key.pem -subj "/CN=localhost" -out server.csr
//! printf 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' >server.ext
//! openssl x509 -req -in server.csr -CA authority.pem -CAkey key.pem -extfile server.ext -days 36500 -out server.pem
//! ```
//!
//! in the year 2020 by `faketime`, `expired.pem` with `-days 1`.

use std::path::{Path, PathBuf};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ship/client/tests").join(name)
}

/// Serves one connection with this certificate, and says its port.
async fn serve(certificate: &str) -> u16 {
    let certificates = CertificateDer::pem_file_iter(file(certificate)).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // The client may refuse.
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let mut read = [0; 4_096];
        while !stream.read(&mut read).await.is_ok_and(|count| read[..count].ends_with(b"SELECT 1")) {}
        stream.write_all(whole(OK, "1").as_bytes()).await.unwrap();
        let _ = stream.read(&mut read).await;
    });
    port
}

async fn ask_at(port: u16, host: &str, ca_file: &str) -> Result<Answer, Failure> {
    let target = Target::parse(&format!("https://{host}:{port}"), None, Some("geheim"), Some(file(ca_file))).unwrap();
    Client::new(target, Patience::default()).unwrap().request(Query::new("SELECT 1"), Vec::new()).await
}

#[tokio::test]
async fn only_who_is_trusted_is_asked() {
    for (certificate, host, ca_file, words) in [
        ("server.pem", "localhost", "authority.pem", None),
        (
            "server.pem",
            "127.0.0.1",
            "authority.pem",
            Some("not for the name 127.0.0.1: set a URL with a name that it has"),
        ),
        ("server.pem", "localhost", "stranger.pem", Some("an issuer that is not trusted: set a file")),
        ("expired.pem", "localhost", "authority.pem", Some("has expired: renew it")),
        ("authority.pem", "localhost", "authority.pem", Some("is not one of a server")),
    ] {
        let answer = ask_at(serve(certificate).await, host, ca_file).await;
        match (answer, words) {
            (Ok(answer), None) => assert_eq!(answer.body, "1"),
            (Err(failure @ Failure::Tls(_)), Some(words)) => {
                assert!(failure.to_string().contains(words) && !failure.is_in_doubt(), "{failure}");
            }
            (other, _) => panic!("{certificate} {host} {ca_file}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn who_is_trusted_by_the_system_alone_is_told_apart() {
    let port = serve("server.pem").await;
    let target = Target::parse(&format!("https://localhost:{port}"), None, None, None).unwrap();
    match Client::new(target, Patience::default()) {
        Ok(client) => {
            let failure = client.request(Query::new("SELECT 1"), Vec::new()).await.unwrap_err();
            assert!(failure.to_string().contains("not trusted"), "{failure}");
        }
        // A machine that trusts nobody.
        Err(said) => assert!(said.contains("ca-certificates"), "{said}"),
    }
}

#[tokio::test]
async fn who_speaks_no_tls_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 64]).await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let failure = ask_at(port, "localhost", "authority.pem").await.unwrap_err();
    assert!(failure.to_string().contains("does not speak TLS"), "{failure}");
    assert!(!failure.is_in_doubt());
}

#[test]
fn files_of_certificates() {
    for (name, words) in [("nothing.pem", "nothing.pem cannot be read"), ("key.pem", "has no certificate")] {
        let target = Target::parse("https://localhost", None, None, Some(file(name))).unwrap();
        let said = Client::new(target, Patience::default()).unwrap_err();
        assert!(said.contains(words), "{said}");
    }
}
