//! TLS: files become a configuration, a failed handshake becomes a sentence. Keys stay in here.

use anyhow::{Context, anyhow, ensure};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};

/// Whom this side trusts and how it identifies itself.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

impl Tls {
    /// Reads PEM files: the authorities to trust (`None`: the system's), and the certificate chain and private key of
    /// this side (`None`: it has none). TLS 1.2 or 1.3; the clock is looked at in every handshake.
    ///
    /// # Errors
    /// The file that cannot be read or used, and why.
    pub fn load(ca_file: Option<&Path>, identity: Option<&(PathBuf, PathBuf)>) -> anyhow::Result<Self> {
        let roots = ca_file.map_or_else(system_roots, |file| roots("ca_file", file))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("choose versions of TLS")?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate_file, key_file)) => {
                let chain = certificates("certificate_file", certificate_file)?;
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .map_err(|error| unusable("key_file", key_file, &error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    let [certificate, key] = [certificate_file, key_file].map(|file| file.display());
                    anyhow!("key_file {key} is not the key of certificate_file {certificate}: {error}")
                })?
            }
        };
        // A resumed session would not look at the certificate again.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// What `rustls` is to connect with.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

fn system_roots() -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if ignored > 0 || !found.errors.is_empty() {
        tracing::debug!(ignored, errors = ?found.errors, "not all authorities of the system can be used");
    }
    ensure!(
        !roots.is_empty(),
        "the system has no certificate authorities (package ca-certificates): name a ca_file"
    );
    Ok(roots)
}

fn roots(key: &str, file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, file)? {
        roots.add(certificate).with_context(|| format!("{key} {}: no certificate", file.display()))?;
    }
    Ok(roots)
}

fn certificates(key: &str, file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| unusable(key, file, &error))?;
    ensure!(!certificates.is_empty(), "{key} {}: no certificate in it (PEM is wanted)", file.display());
    Ok(certificates)
}

fn unusable(key: &str, file: &Path, error: &pem::Error) -> anyhow::Error {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "no private key in it (PEM without a passphrase is wanted)".into(),
        // The others may repeat a line of the file.
        _ => "not PEM".into(),
    };
    anyhow!("{key} {}: {why}", file.display())
}

/// What `rustls` said of the server, in words, however deep in `error` it is; `None` if it said nothing.
pub fn why(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(in_words(error));
        }
        // `io::Error` answers the source of what it holds, not what it holds.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = held.map(|held| held as _).or_else(|| error.source());
    }
    None
}

fn in_words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "unknown issuer: none of the authorities trusted here signed the server's certificate".into()
            }
            // "certificate expired: …", "certificate not valid yet: …", "certificate not valid for name …".
            error => error.to_string(),
        },
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => "the server demands a client certificate".into(),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            // An authority of the right name with another key.
            | AlertDescription::DecryptError => {
                format!("the server refuses the client certificate: {alert:?}")
            }
            alert => format!("the server refuses the handshake: {alert:?}"),
        },
        Error::InvalidMessage(_) => "the server's port does not speak TLS".into(),
        error => error.to_string(),
    }
}
