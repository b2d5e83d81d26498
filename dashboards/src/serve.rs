//! Listening, with TLS wherever others could listen in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The server's certificate and key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those above it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could read tokens and data on the way.
    #[error("{0} is not loopback, so TLS is required: set server.tls_certificate and server.tls_key, or listen on 127.0.0.1")]
    NeedsTls(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; is another server there?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Certificate or key cannot be read.
    #[error("cannot read {path} as PEM")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit.
    #[error("the certificate and the key do not fit")]
    Tls(#[from] rustls::Error),
    /// Serving stopped.
    #[error("the server stopped")]
    Io(#[from] std::io::Error),
}

/// How long requests at work may take to finish once the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// A listener that has its address and waits for [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listener: std::net::TcpListener,
    tls: Option<RustlsConfig>,
}

impl Server {
    /// Takes the address (port 0 takes a free one).
    ///
    /// # Errors
    /// When the address is not loopback and there is no TLS, when it is taken, or when certificate or key are no good.
    pub fn bind(listen: SocketAddr, tls: Option<&TlsFiles>) -> Result<Self, ServeError> {
        if tls.is_none() && !listen.ip().is_loopback() {
            return Err(ServeError::NeedsTls(listen));
        }
        let tls = tls.map(tls_config).transpose()?;
        let listener = std::net::TcpListener::bind(listen).map_err(|cause| ServeError::Bind { address: listen, cause })?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, tls })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` is done; then lets requests at work finish.
    ///
    /// # Errors
    /// When the listener fails.
    pub fn run(self, router: Router, shutdown: impl Future<Output = ()> + Send + 'static) -> BoxFuture<'static, Result<(), ServeError>> {
        self.until(router, shutdown.boxed()).boxed()
    }

    async fn until(self, router: Router, shutdown: BoxFuture<'static, ()>) -> Result<(), ServeError> {
        let handle = Handle::new();
        let stopping = handle.clone();
        let waiter = tokio::spawn(async move {
            shutdown.await;
            stopping.graceful_shutdown(Some(GRACE));
        });
        let service = router.into_make_service();
        let served = match self.tls {
            Some(config) => axum_server::from_tcp_rustls(self.listener, config)?.handle(handle).serve(service).await,
            None => axum_server::from_tcp(self.listener)?.handle(handle).serve(service).await,
        };
        waiter.abort();
        Ok(served?)
    }
}

/// Binds and serves.
///
/// # Errors
/// As [`Server::bind`] and [`Server::run`].
pub async fn serve(
    listen: SocketAddr,
    tls: Option<TlsFiles>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    Server::bind(listen, tls.as_ref())?.run(router, shutdown).await
}

fn tls_config(files: &TlsFiles) -> Result<RustlsConfig, ServeError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |cause| ServeError::Pem { path, cause }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed(&files.key))?;
    // Ours by name: with two providers in the build rustls would not choose.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn not_on_loopback_needs_tls() {
        assert!(matches!(Server::bind("0.0.0.0:0".parse().unwrap(), None), Err(ServeError::NeedsTls(_))));
        assert!(Server::bind("127.0.0.1:0".parse().unwrap(), None).is_ok());
        assert!(Server::bind("[::1]:0".parse().unwrap(), None).is_ok());
    }

    #[test]
    fn a_missing_certificate_is_named() {
        let files = TlsFiles { certificate: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() };
        let error = Server::bind("127.0.0.1:0".parse().unwrap(), Some(&files)).unwrap_err();
        assert!(error.to_string().contains("/nowhere/cert.pem"), "{error}");
    }

    #[tokio::test]
    async fn a_taken_address_says_so_and_shutdown_ends() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let address = server.local_addr().unwrap();
        assert!(matches!(Server::bind(address, None), Err(ServeError::Bind { .. })));
        server.run(Router::new(), std::future::ready(())).await.unwrap();
    }
}
