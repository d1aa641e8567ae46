//! TLS to a Docker engine: it is believed by the authority in `ca.pem` and by no other, and we show `cert.pem` if there is one.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::address::Stream;

#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tls {
    /// For the engine on `host`, with the files in `directory`.
    pub(super) fn new(host: &str, directory: &Path) -> Result<Self> {
        let name = ServerName::try_from(host.to_owned()).context("is no name for TLS")?;
        let authority = directory.join("ca.pem");
        let mut roots = RootCertStore::empty();
        for certificate in read(&authority)? {
            roots.add(certificate).with_context(|| authority.display().to_string())?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        let config = if certificate.exists() || key.exists() {
            let unusable = || format!("{} cannot be used", key.display());
            let own = PrivateKeyDer::from_pem_file(&key).with_context(unusable)?;
            config.with_client_auth_cert(read(&certificate)?, own).with_context(unusable)?
        } else {
            config.with_no_client_auth()
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.connector.connect(self.name.clone(), stream).await?))
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unusable =
        || format!("{} cannot be used; DOCKER_CERT_PATH says where it is", path.display());
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).with_context(unusable)?.collect();
    let all = all.with_context(unusable)?;
    ensure!(!all.is_empty(), "{} has no certificate", path.display());
    Ok(all)
}
