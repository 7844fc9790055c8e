//! STUN and TURN over a byte stream: the messages stand one behind the other and say their own length.

use super::Server;
use crate::link::tls;
use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// A connection to a relay.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to the server as its URL says.
///
/// # Errors
/// The name, the way or the certificate, for people.
pub async fn connect(server: &Server) -> anyhow::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(server.address()).await.context("connect")?;
    stream.set_nodelay(true).context("connect")?;
    let Some(trust) = &server.tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(server.url.host.clone()).context("name the server")?;
    match TlsConnector::from(trust.client()).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => bail!("TLS: {}", tls::why(&error).unwrap_or_else(|| error.to_string())),
    }
}

/// Reads one message: of STUN (RFC 8489, section 5), or of a channel (RFC 8656, section 12.4), without its padding.
///
/// # Errors
/// The stream has ended, or holds neither.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let (length, padded) = match head[0] >> 6 {
        0b00 => (20 + length, 20 + length),
        0b01 => (4 + length, 4 + length.next_multiple_of(4)),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "neither STUN nor a channel")),
    };
    let mut message = BytesMut::zeroed(padded);
    message[..4].copy_from_slice(&head);
    stream.read_exact(&mut message[4..]).await?;
    message.truncate(length);
    Ok(message.freeze())
}

/// A datagram as a message of a stream: padded to a multiple of four. `None`: it is none.
pub fn message(datagram: &[u8]) -> Option<Bytes> {
    let [first, _, high, low, ..] = *datagram else { return None };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let length = if first >> 6 == 0b00 { 20 + length } else { 4 + length };
    let whole = first >> 6 <= 0b01 && length <= datagram.len();
    whole.then(|| {
        let mut message = BytesMut::from(&datagram[..length]);
        message.resize(length.next_multiple_of(4), 0);
        message.freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_out_of_a_stream_as_they_went_in() {
        let stun = [&[0, 1, 0, 4], &[7; 20][..]].concat();
        let channel = [&[0x40, 0, 0, 5], &[9; 5][..]].concat();

        let stream = [message(&stun).expect("STUN"), message(&channel).expect("a channel")].concat();
        let mut rest = &stream[..];

        assert_eq!(stream.len(), 24 + 12);
        assert_eq!(read(&mut rest).await.expect("a message"), stun);
        assert_eq!(read(&mut rest).await.expect("a message"), channel);
        assert!(read(&mut rest).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        for datagram in [&[][..], &[0, 1, 0], &[0, 1, 0, 4, 0], &[0x40, 0, 0, 5, 0], &[0x80; 40]] {
            assert_eq!(message(datagram), None, "{datagram:?}");
        }
        assert!(read(&mut &[0x80; 40][..]).await.is_err());
    }
}
