//! Where the broker is and how it is spoken to: the same keys in kiosk.toml and in `parlor ctl`, the same checks. Reads
//! the password's file; certificates are read by the link.

use crate::secret::Secret;
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `[broker]` of kiosk.toml and the options of `parlor ctl`, as they are written.
#[derive(Clone, Debug, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct BrokerOptions {
    /// mqtts://HOST for TLS (port 8883), HOST or mqtt://HOST without (port 1883); :PORT for another port
    #[arg(long = "broker", value_name = "ADDRESS", global = true, default_value = "127.0.0.1:1883")]
    pub address: String,
    /// PEM file of the certificate authorities to trust, these only; default: the system's
    #[arg(long, value_name = "FILE", global = true)]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate, with its chain
    #[arg(long, value_name = "FILE", global = true)]
    pub certificate_file: Option<PathBuf>,
    /// PEM file of the client certificate's private key
    #[arg(long, value_name = "FILE", global = true)]
    pub key_file: Option<PathBuf>,
    /// A file that holds the password and nothing else
    #[arg(long, value_name = "FILE", global = true)]
    pub password_file: Option<PathBuf>,
    /// Send the password without TLS, readable on the network
    #[arg(long, global = true)]
    #[serde(default)]
    pub password_in_clear: bool,
}

/// How the broker is reached, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub host: String,
    pub port: u16,
    /// `None`: in the clear.
    pub tls: Option<Tls>,
    pub password: Option<Secret>,
}

/// The files of a TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whom to trust; `None`: the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// Certificate and private key of this side.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Broker {
    /// A broker spoken to without TLS and without a password.
    pub fn plain(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, tls: None, password: None }
    }
}

impl BrokerOptions {
    /// Checks what fits together, and reads the password.
    ///
    /// # Errors
    /// The key that is wrong and why, for people. No error repeats a secret.
    pub fn check(&self) -> anyhow::Result<Broker> {
        let password = self
            .password_file
            .as_deref()
            .map(|file| read_secret("broker: password_file", file))
            .transpose()?;
        self.check_with(password)
    }

    /// [`Self::check`] with a password that was given otherwise, instead of the file's.
    pub fn check_with(&self, password: Option<Secret>) -> anyhow::Result<Broker> {
        let (encrypted, host, port) = parse_address(&self.address)?;
        let identity = match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => bail!("broker: certificate_file and key_file go together"),
        };
        let tls = Tls { ca_file: self.ca_file.clone(), identity };
        if !encrypted {
            ensure!(
                tls.ca_file.is_none() && tls.identity.is_none(),
                "broker: ca_file, certificate_file and key_file are for TLS; write mqtts://{host}"
            );
            ensure!(
                password.is_none() || self.password_in_clear || is_loopback(&host),
                "broker: the password would be sent in the clear; use mqtts:// or say password_in_clear = true"
            );
        }
        if let Some((_, key)) = &tls.identity {
            warn_of_readers(key);
        }
        Ok(Broker { host, port, tls: encrypted.then_some(tls), password })
    }
}

/// The file's content without the end of the line.
pub(super) fn read_secret(key: &str, file: &Path) -> anyhow::Result<Secret> {
    let named = || format!("{key} {}", file.display());
    let content = std::fs::read_to_string(file).with_context(named)?;
    let password = content.trim_end_matches(['\r', '\n']);
    ensure!(!password.is_empty(), "{}: empty", named());
    warn_of_readers(file);
    Ok(Secret::from(password))
}

/// A secret that everyone on the machine can read is a warning and no error: it does not get better by a kiosk that
/// stays dark. A group may read it: systemd/parlor.tmpfiles gives these files to root and the daemon's group.
fn warn_of_readers(file: &Path) {
    let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o007 != 0 {
        let mode = format!("{:04o}", mode & 0o7777);
        tracing::warn!(file = %file.display(), mode, "everyone on this machine can use this secret: chmod o-rwx");
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Scheme, host and port: whether TLS is spoken, where, and the port that is usual for it where none is said.
fn parse_address(address: &str) -> anyhow::Result<(bool, String, u16)> {
    let (encrypted, rest) = match address.split_once("://") {
        None => (false, address),
        Some(("mqtt", rest)) => (false, rest),
        Some(("mqtts", rest)) => (true, rest),
        Some((scheme, _)) => bail!("broker address: {scheme}:// is neither mqtt:// nor mqtts://"),
    };
    // A password in the address would be seen wherever the address is; nothing of it is repeated.
    ensure!(!rest.contains('@'), "broker address: no user and no password in it; there is password_file");
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().with_context(|| format!("port of broker address {address:?}"))?)
        }
        _ => (rest, if encrypted { 8883 } else { 1883 }),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ensure!(!host.is_empty() && !host.contains('/'), "broker address {address:?}: want host:port");
    Ok((encrypted, host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BrokerOptions {
        toml::from_str(text).expect("keys of [broker]")
    }

    /// What is wrong with these keys and a password.
    fn refused(text: &str) -> String {
        let error = options(text).check_with(Some(Secret::from("open sesame"))).expect_err(text);
        format!("{error:#}")
    }

    #[test]
    fn an_address_is_read_in_each_form() {
        for (address, expected) in [
            ("b", (false, "b", 1883)),
            ("mqtt://b", (false, "b", 1883)),
            ("mqtts://b", (true, "b", 8883)),
            ("mqtts://b:1", (true, "b", 1)),
            ("10.0.0.1:1", (false, "10.0.0.1", 1)),
            ("[::1]:1884", (false, "::1", 1884)),
            ("mqtts://[::1]", (true, "::1", 8883)),
            ("::1", (false, "::1", 1883)),
        ] {
            let (encrypted, host, port) = parse_address(address).expect(address);

            assert_eq!((encrypted, host.as_str(), port), expected, "{address}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for address in ["", "mqtts://", "b:x", "b:70000", "https://b", "mqtt://b/path", "mqtts://:8883"] {
            let error = parse_address(address).expect_err(address).to_string();

            assert!(error.contains("broker address"), "{address}: {error}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let error = format!("{:#}", parse_address("mqtts://lobby:open-sesame@b").expect_err("a password"));

        assert!(error.contains("password_file") && !error.contains("sesame"), "{error}");
    }

    #[test]
    fn a_password_in_the_clear_is_refused_unless_it_stays_here_or_is_told_to() {
        for address in ["b", "mqtt://b:1", "10.0.0.1", "localhost.example"] {
            let said = refused(&format!("address = {address:?}"));

            assert_eq!(
                said,
                "broker: the password would be sent in the clear; use mqtts:// or say password_in_clear = true"
            );
        }
        for allowed in [
            "address = 'localhost'",
            "address = '127.0.0.2:1'",
            "address = '[::1]'",
            "address = 'mqtts://b'",
            "address = 'b'\npassword_in_clear = true",
        ] {
            let broker = options(allowed).check_with(Some(Secret::from("open sesame"))).expect(allowed);

            assert_eq!(broker.password.expect("kept").reveal(), "open sesame", "{allowed}");
        }
    }

    #[test]
    fn files_that_do_not_go_together_are_refused() {
        for (keys, word) in [
            ("address = 'mqtts://b'\ncertificate_file = 'c'", "key_file"),
            ("address = 'mqtts://b'\nkey_file = 'k'", "certificate_file"),
            ("address = 'localhost'\nca_file = 'ca'", "mqtts://localhost"),
            ("address = 'localhost'\ncertificate_file = 'c'\nkey_file = 'k'", "mqtts://localhost"),
        ] {
            let said = refused(keys);

            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn a_password_file_that_is_not_there_or_empty_is_named() {
        for file in ["/nonexistent/password", "/dev/null"] {
            let error = options(&format!("address = 'mqtts://b'\npassword_file = {file:?}")).check();

            let said = format!("{:#}", error.expect_err("no password"));
            assert!(said.contains(file), "{said}");
        }
    }
}
