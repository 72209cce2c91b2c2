//! The listening socket, which an outage really closes: nothing listens, connects are refused, and the port stays ours
//! because a socket that does not listen is bound to it meanwhile.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections the kernel may hold for us before they are accepted.
const BACKLOG: u32 = 1024;

/// A place to listen at.
#[derive(Debug)]
pub(crate) struct Door {
    address: SocketAddr,
    state: State,
}

#[derive(Debug)]
enum State {
    Open(TcpListener),
    /// Bound, but not listening; `None` if even that was impossible.
    Shut(Option<TcpSocket>),
}

impl Door {
    pub(crate) fn new(listener: TcpListener) -> io::Result<Self> {
        Ok(Self { address: listener.local_addr()?, state: State::Open(listener) })
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Closes the listening socket.
    pub(crate) fn shut(&mut self) {
        // The listener has to be gone before anything else can be bound to its port.
        self.state = State::Shut(None);
        match bind(self.address) {
            Ok(socket) => self.state = State::Shut(Some(socket)),
            Err(error) => tracing::debug!(%error, "the port is free for others during the outage"),
        }
    }

    /// Listens again, at the same address. An error leaves the door shut, to be tried again.
    pub(crate) fn open(&mut self) -> io::Result<()> {
        if let State::Shut(held) = &mut self.state {
            let socket = held.take().map_or_else(|| bind(self.address), Ok)?;
            self.state = State::Open(socket.listen(BACKLOG)?);
        }
        Ok(())
    }

    /// The next connection; never while the door is shut.
    ///
    /// # Cancel safety
    /// No connection is lost.
    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        match &self.state {
            State::Open(listener) => listener.accept().await.map(|(stream, _)| stream),
            State::Shut(_) => std::future::pending().await,
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of before may linger. On Windows the option would mean something else.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
