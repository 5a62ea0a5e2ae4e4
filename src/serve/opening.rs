//! What a client says first, looked at while it lies in the kernel: until that is whole, the client has no buffer of ours
//! and no place among those who are served.

use std::io;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::limits::{OPENING, SOCKET};

/// A TLS record's header: type, version, length (RFC 8446 §5.1).
const RECORD_HEADER: usize = 5;

/// Of a record that carries handshake messages.
const HANDSHAKE: u8 = 22;

/// Waits until the first TLS record, or the head of the first HTTP/1 request, has come. `false` if the client ended
/// before that.
pub(super) async fn is_whole(stream: &TcpStream, is_tls: bool) -> io::Result<bool> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // What is not whole is as good as nothing: tokio is told so, and waits for more.
        let look = || if looks_whole(stream, is_tls)? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
        match stream.try_io(Interest::READABLE, look) {
            Ok(()) => break,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if ready.is_read_closed() => return Ok(false),
            Err(_) => {}
        }
    }
    set_socket_recv_buffer_size(stream, SOCKET as usize)?;
    Ok(true)
}

/// Looks without taking; on the stack, for as long as that takes.
fn looks_whole(stream: &TcpStream, is_tls: bool) -> io::Result<bool> {
    let mut start = [0; OPENING];
    let (bytes, _) = recv(stream, &mut start, RecvFlags::PEEK)?;
    let start = start.get(..bytes).unwrap_or_default();
    Ok(bytes == OPENING || if is_tls { has_record(start) } else { has_head(start) })
}

/// Anything but a handshake is whole at once: rustls knows what to answer.
fn has_record(start: &[u8]) -> bool {
    match start {
        [HANDSHAKE, _, _, high, low, ..] => {
            start.len() >= RECORD_HEADER + usize::from(u16::from_be_bytes([*high, *low]))
        }
        [HANDSHAKE, ..] | [] => false,
        _ => true,
    }
}

/// hyper takes line feeds alone, too.
fn has_head(start: &[u8]) -> bool {
    start.windows(4).any(|window| window == b"\r\n\r\n") || start.windows(2).any(|window| window == b"\n\n")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_record_is_whole_with_its_last_byte() {
        for (start, expected) in [
            (&[][..], false),
            (&[22], false),
            (&[22, 3, 1, 0], false),
            (&[22, 3, 1, 0, 2, 1], false),
            (&[22, 3, 1, 0, 2, 1, 0], true),
            (&[22, 3, 1, 0, 2, 1, 0, 22], true),
            (b"G", true),
            (&[21], true),
        ] {
            assert_eq!(has_record(start), expected, "{start:?}");
        }
    }

    #[test]
    fn a_head_is_whole_with_its_empty_line() {
        for (start, expected) in [
            ("", false),
            ("GET / HTTP/1.1\r\n", false),
            ("GET / HTTP/1.1\r\nhost: x\r\n\r", false),
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", true),
            ("GET / HTTP/1.1\nhost: x\n\n", true),
        ] {
            assert_eq!(has_head(start.as_bytes()), expected, "{start:?}");
        }
    }

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn whole_is_what_has_come_to_its_end() {
        let long = [b'x'; OPENING];
        for (parts, expected) in [
            (&[&b"GET / HT"[..], b"TP/1.1\r\nhost: x\r\n", b"\r\n"][..], Some(true)),
            (&[b"GET / HTTP/1.1\r\n"], Some(false)),
            (&[], Some(false)),
            // Enough to be let in.
            (&[&long], Some(true)),
        ] {
            let (mut client, server) = pair().await;
            let looked = tokio::spawn(async move { (is_whole(&server, false).await.unwrap(), server) });
            for part in parts {
                client.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
            assert_eq!(Some(looked.await.unwrap().0), expected, "{parts:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_and_the_half_are_waited_for() {
        for part in [&b""[..], b"GET / HTTP/1.1\r\n"] {
            let (mut client, server) = pair().await;
            client.write_all(part).await.unwrap();
            let looked = tokio::time::timeout(std::time::Duration::from_mins(1), is_whole(&server, false)).await;
            assert!(looked.is_err(), "{part:?}: {looked:?}");
        }
    }
}
