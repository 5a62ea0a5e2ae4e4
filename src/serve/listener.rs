//! A listening socket, and how to go on whatever `accept` says.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;
use tracing::{debug, error};

use super::limits::{OPENING_SOCKET, SOCKET};

/// How long to leave `accept` alone after the kernel refused: long enough not to spin, too short for a client to mind.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Clients in the kernel's queue, who are not accepted yet.
const BACKLOG: u32 = 1024;

/// Whose a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// This process's alone.
    Own,
    /// Also of others that say so and have the same uid: each connection is one's of them (socket(7), `SO_REUSEPORT`).
    Shared,
}

/// Accepted connections have the listener's buffers, until their first words are whole.
pub(super) fn listen(address: SocketAddr, port: Port) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(port == Port::Shared)?;
    socket.set_recv_buffer_size(OPENING_SOCKET)?;
    socket.set_send_buffer_size(SOCKET)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

pub(super) fn is_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Waits for a client. Errors of `accept` end here: whatever they are, later clients want in.
pub(crate) async fn accept<F, Accepted, Stream, Address>(mut accept: F) -> Stream
where
    F: FnMut() -> Accepted,
    Accepted: Future<Output = io::Result<(Stream, Address)>>,
{
    let mut failed = false;
    loop {
        match accept().await {
            Ok((stream, _)) => return stream,
            // accept(2): the client left before its turn, or the network told of an earlier failure.
            Err(cause) if is_of_client(&cause) => debug!(%cause, "a client left before it was accepted"),
            // Out of descriptors or memory: the waiting client stays readable, so accepting at once would spin.
            Err(cause) => {
                if !failed {
                    error!(%cause, "cannot accept connections, trying again");
                }
                failed = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_client(cause: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        cause.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}
