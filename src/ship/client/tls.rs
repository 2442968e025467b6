//! TLS towards ClickHouse: whose certificates are trusted, and what to do when one is not.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, Error, OtherError, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::failure::Failure;

/// Makes TLS of connections to one host.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    host: String,
}

impl Tls {
    /// Trusts the certificates of this file alone or, without one, those that the system trusts.
    pub(super) fn new(host: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        let roots = ca_file.map_or_else(roots_of_the_system, roots_of_a_file)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("no certificate can have the name {host}: set a URL with the name that it has"))?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: Arc::new(config).into(), name, host: host.to_owned() })
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Failure> {
        self.connector.connect(self.name.clone(), stream).await.map_err(|error| {
            match error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
                Some(cause) => Failure::Tls(self.explain(cause)),
                None => Failure::Network {
                    message: format!("the connection to {} was cut while TLS began: {error}", self.host),
                    is_sent: false,
                },
            }
        })
    }

    /// What is wrong, and what to do.
    fn explain(&self, error: &Error) -> String {
        let host = &self.host;
        let of_certificate = |error: &CertificateError| match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "has expired: renew it there, or set the clock of this machine if that is wrong".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "is not valid yet: is the clock of this machine right?".to_owned()
            }
            CertificateError::UnknownIssuer => "is of an issuer that is not trusted: set a file with the issuer's own \
                                                certificate (PEM), or have this machine trust it"
                .to_owned(),
            CertificateError::BadSignature => {
                "is signed with another key than the issuer's that is trusted: set a file \
                                               with the issuer's present certificate (PEM), or renew this one"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("is not for the name {host}: set a URL with a name that it has{}", names_in(error))
            }
            CertificateError::Revoked => "is revoked: it needs a new one".to_owned(),
            CertificateError::Other(OtherError(cause)) => format!(
                "is not one of a server ({cause}): give ClickHouse one that an authority has signed, and set a file \
                 with the authority's own"
            ),
            other => format!("cannot be used ({other}): it needs a new one"),
        };
        match error {
            Error::InvalidCertificate(error) => format!("the certificate of {host} {}", of_certificate(error)),
            Error::InvalidMessage(_) => {
                format!("{host} does not speak TLS at this port: give ship_url with the port that does, or with http")
            }
            Error::AlertReceived(alert) => {
                format!(
                    "{host} refuses TLS with {alert:?}: does it want another version, or a certificate of hitlog's?"
                )
            }
            other => format!("no TLS with {host}: {other}"),
        }
    }
}

/// The names that a certificate is for, as far as it is known.
fn names_in(error: &CertificateError) -> String {
    match error {
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            ". It has none: it needs a subjectAltName".into()
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(" ({})", presented.join(", ")),
        _ => String::new(),
    }
}

fn roots_of_the_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "this machine has no list of whom to trust for https: install the package ca-certificates, or set \
                    a file with the certificate of ClickHouse's issuer"
                .into(),
        );
    }
    Ok(roots)
}

fn roots_of_a_file(path: &Path) -> Result<RootCertStore, String> {
    let shown = path.display();
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    for certificate in certificates {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| format!("{shown} has a certificate that cannot be read: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("{shown} has no certificate: it should hold the issuer's, as PEM"));
    }
    Ok(roots)
}
