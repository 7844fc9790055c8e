//! TLS with the broker, as `rumqttc` takes it and tells of it.

use crate::link::tls::{Tls, why};
use rumqttc::v5::{ConnectionError, StateError, TlsError};
use rumqttc::{TlsConfiguration, Transport};

/// What `rumqttc` is to connect with.
pub fn transport(tls: &Tls) -> Transport {
    Transport::tls_with_config(TlsConfiguration::Rustls(tls.client()))
}

/// Why TLS failed, in words; `None` if it was something else that did.
pub fn failure(error: &ConnectionError) -> Option<String> {
    let words = match error {
        // In TLS 1.3 a client certificate is refused after the handshake, by an alert in the place of the first answer
        // (RFC 8446, section 4.4.2.4). `rumqttc` does not answer its source.
        ConnectionError::MqttState(StateError::Deserialization(error)) => why(error),
        error => why(error),
    };
    words.or_else(|| match error {
        ConnectionError::Tls(TlsError::Io(error)) => {
            Some(format!("the server ended the handshake ({error}); is its port one for TLS?"))
        }
        ConnectionError::Tls(error) => Some(error.to_string()),
        _ => None,
    })
}
