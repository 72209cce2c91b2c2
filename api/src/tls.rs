//! TLS for the API: a certificate and its key in two files, read again when they change.

use anyhow::Context;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use shared::config;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Time between two looks at the files.
const PERIOD: Duration = Duration::from_secs(5);

/// The certificate as it was read last. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// Reads the files, and again whenever they change, on `tasks`. `None`: the API speaks plain HTTP.
    ///
    /// # Errors
    /// A file that cannot be read, holds no certificate or key, or a key that is not the certificate's.
    pub(crate) fn start(
        tasks: &mut JoinSet<()>,
        api: &config::Api,
        stop: CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let (Some(cert), Some(key)) = (api.tls_cert.clone(), api.tls_key.clone()) else { return Ok(None) };
        let mut seen = changed(&cert, &key);
        let tls = Self(Arc::new(RwLock::new(read(&cert, &key)?)));
        let Self(current) = tls.clone();
        tasks.spawn(async move {
            let mut period = interval(PERIOD);
            period.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(period.tick()).await.is_some() {
                let now = changed(&cert, &key);
                if now == seen {
                    continue;
                }
                match read(&cert, &key) {
                    Ok(config) => {
                        *current.write().unwrap_or_else(PoisonError::into_inner) = config;
                        seen = now;
                        tracing::info!(cert = %cert.display(), "the certificate was read again");
                    }
                    // Perhaps only one of the two files is new: the next look may find both.
                    Err(error) => {
                        tracing::error!(error = %format!("{error:#}"), "the certificate before stays in use");
                    }
                }
            }
        });
        Ok(Some(tls))
    }

    /// Who takes the next connection in.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }
}

/// When the files were written.
fn changed(cert: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [cert, key].map(|file| std::fs::metadata(file).and_then(|meta| meta.modified()).ok())
}

fn read(cert: &PathBuf, key: &PathBuf) -> anyhow::Result<Arc<ServerConfig>> {
    let what = |file: &Path, name: &str| format!("{name} = {}", file.display());
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| what(cert, "api.tls_cert"))?;
    anyhow::ensure!(!chain.is_empty(), "{}: there is no certificate in it", what(cert, "api.tls_cert"));
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| what(key, "api.tls_key"))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .context("api.tls_cert and api.tls_key do not belong together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
