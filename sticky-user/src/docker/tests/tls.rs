//! An engine that is reached over TLS and asks for a certificate, as `dockerd --tlsverify` does.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::fake::Fake;
use crate::docker::address::Address;
use crate::docker::{client, engine};

/// An authority, and what it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// The files that `DOCKER_CERT_PATH` leads to.
    fn write(&self, directory: &Path, own: bool) {
        std::fs::write(directory.join("ca.pem"), self.certificate.pem()).unwrap();
        if own {
            let (certificate, key) = self.sign("client");
            std::fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
            std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
        }
    }

    /// Serves `fake` with TLS; who has no certificate of ours is refused.
    async fn serve(&self, fake: &Fake) -> u16 {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let (certificate, key) = self.sign("localhost");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, socket) = (listener.local_addr().unwrap().port(), fake.socket());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, socket) = (acceptor.clone(), socket.clone());
                tokio::spawn(async move {
                    // Who is refused goes away, and so does who has enough.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut engine = UnixStream::connect(socket).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut engine).await;
                });
            }
        });
        port
    }
}

#[tokio::test]
async fn docker_is_reached_over_tls_by_those_who_know_each_other() {
    let fake = Fake::start();
    fake.demo(2);
    let authority = Authority::new();
    let port = authority.serve(&fake).await;
    let directory = tempfile::tempdir().unwrap();
    let address = |url: String| Address::parse(url, true, directory.path()).unwrap();

    authority.write(directory.path(), false);
    let stranger = client::Docker::reach(address(format!("tcp://localhost:{port}"))).await;
    assert!(stranger.is_err(), "without a certificate of its own");
    authority.write(directory.path(), true);
    for url in [format!("tcp://localhost:{port}"), format!("https://localhost:{port}")] {
        let docker = client::Docker::reach(address(url.clone())).await.unwrap();
        assert_eq!(docker.get::<Vec<Value>>("/services", &[]).await.unwrap().len(), 1, "{url}");
        let docker = engine::reach(address(url.clone())).await.unwrap();
        assert_eq!(docker.list_services(None).await.unwrap().len(), 1, "{url}");
    }
    let name = client::Docker::reach(address(format!("tcp://127.0.0.1:{port}"))).await;
    assert!(name.unwrap_err().to_string().contains("not valid for name"), "another name");

    Authority::new().write(directory.path(), true);
    let other = client::Docker::reach(address(format!("tcp://localhost:{port}"))).await;
    let error = other.unwrap_err().to_string();
    assert!(error.contains("certificate"), "another authority: {error}");
}
