//! A line to a server on this machine that can be cut: TCP passed on both ways, loopback only.

use std::io;
use std::net::Ipv4Addr;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The near end of the line. Gone, it is cut for ever.
pub struct Line {
    /// Where who wants to reach the server connects.
    pub port: u16,
    whole: watch::Sender<bool>,
}

impl Line {
    /// A line to `target`, a port of this machine.
    ///
    /// # Errors
    /// No free port.
    pub async fn to(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (whole, state) = watch::channel(true);
        tokio::spawn(serve(listener, target, state));
        Ok(Self { port, whole })
    }

    /// Cut, every connection ends and a new one ends at once.
    pub fn set_whole(&self, whole: bool) {
        self.whole.send_replace(whole);
    }
}

async fn serve(listener: TcpListener, target: u16, state: watch::Receiver<bool>) {
    let mut gone = state.clone();
    loop {
        let near = tokio::select! {
            near = listener.accept() => near,
            _ = gone.wait_for(|_| false) => return,
        };
        if let Ok((near, _)) = near
            && *state.borrow()
        {
            tokio::spawn(carry(near, target, state.clone()));
        }
    }
}

async fn carry(mut near: TcpStream, target: u16, mut state: watch::Receiver<bool>) {
    let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = state.wait_for(|whole| !whole) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_line_carries_until_it_is_cut_and_again_when_it_is_whole() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let line = Line::to(server.local_addr().unwrap().port()).await.unwrap();
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, line.port));
        let mut byte = [0];

        let mut near = connect().await.unwrap();
        near.write_all(b"x").await.unwrap();
        let (mut far, _) = server.accept().await.unwrap();
        far.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"x");

        line.set_whole(false);
        assert!(matches!(far.read(&mut byte).await, Ok(0) | Err(_)));
        assert!(matches!(connect().await.unwrap().read(&mut byte).await, Ok(0) | Err(_)));

        line.set_whole(true);
        let mut near = connect().await.unwrap();
        let (mut far, _) = server.accept().await.unwrap();
        far.write_all(b"y").await.unwrap();
        near.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"y");
    }
}
