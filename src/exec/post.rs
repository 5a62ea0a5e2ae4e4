//! One POST to localhost that never waits: the parent's loop lets it go on when its socket can.
//!
//! By hand, over a socket that does not block. This program lies in every application's volume, and an HTTP client
//! brings a runtime several times its size, or a thread beside a loop that has to pass signals on. What is written is
//! one request of ours, and what is read is the status of its answer: no redirect is followed, no body is looked at, and
//! [`MAX_ANSWER`] is all that an answer gets.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::task::Poll;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::failure::json_text;
use crate::contract::AGENT_NAME;
use crate::options::LocalUrl;
use crate::parse_error::ParseError;
use crate::process::tell::HTTP_TIMEOUT;

/// Most bytes of an answer that are read for its status: one line, unless informational answers come before it.
const MAX_ANSWER: usize = 8 << 10;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Post {
    /// Where else this host may be.
    others: std::vec::IntoIter<SocketAddr>,
    port: u16,
    stream: TcpStream,
    request: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
}

/// Why a request was not answered well. Nothing of an answer but its status is told.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("{0}")]
    Url(#[from] ParseError),
    #[error("cannot connect to port {port} on localhost: {source}")]
    Connect { port: u16, source: io::Error },
    #[error("the connection broke before an answer: {0}")]
    Broken(#[from] io::Error),
    #[error("what answered does not speak HTTP/1.1")]
    NotHttp,
    #[error("there was no status within {MAX_ANSWER} bytes of the answer")]
    TooLong,
    #[error("the application answered {0}")]
    Status(u16),
    #[error("no answer within {} s", HTTP_TIMEOUT.as_secs())]
    TimedOut,
}

// === impl Post ===

impl Post {
    /// Begins to tell this URL of a generation.
    pub(super) fn start(url: &str, generation: &str) -> Result<Self, PostError> {
        let url = LocalUrl::parse(url)?;
        let mut others = addresses(&url).into_iter();
        let nowhere = || io::ErrorKind::AddrNotAvailable.into();
        let stream = others.next().map_or_else(|| Err(nowhere()), open).or_else(|error| next(&mut others, error));
        let stream = stream.map_err(|source| PostError::Connect { port: url.port, source })?;
        Ok(Self { others, port: url.port, stream, request: request(&url, generation), sent: 0, answer: Vec::new() })
    }

    /// Does what can be done without waiting.
    pub(super) fn go_on(&mut self) -> Poll<Result<(), PostError>> {
        loop {
            let done = if self.is_sent() { self.receive() } else { self.send() };
            match done {
                Err(PostError::Broken(error)) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(PostError::Broken(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(None) => {}
                Ok(Some(200..300)) => return Poll::Ready(Ok(())),
                Ok(Some(status)) => return Poll::Ready(Err(PostError::Status(status))),
            }
        }
    }

    /// What it waits for.
    pub(super) fn socket(&self) -> PollFd<'_> {
        PollFd::new(&self.stream, if self.is_sent() { PollFlags::IN } else { PollFlags::OUT })
    }

    fn is_sent(&self) -> bool {
        self.sent >= self.request.len()
    }

    fn send(&mut self) -> Result<Option<u16>, PostError> {
        match self.stream.write(self.request.get(self.sent..).unwrap_or_default()) {
            Ok(0) => return Err(PostError::Broken(io::ErrorKind::WriteZero.into())),
            Ok(sent) => self.sent += sent,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Err(error.into());
            }
            // Nobody listened there: the first write tells.
            Err(error) if self.sent == 0 => {
                let port = self.port;
                self.stream = next(&mut self.others, error).map_err(|source| PostError::Connect { port, source })?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }

    fn receive(&mut self) -> Result<Option<u16>, PostError> {
        let mut buffer = [0; 1024];
        let room = buffer.len().min(MAX_ANSWER.saturating_sub(self.answer.len()));
        let read = self.stream.read(buffer.get_mut(..room).unwrap_or_default())?;
        if read == 0 {
            return Err(PostError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        self.answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
        match status(&self.answer)? {
            None if self.answer.len() >= MAX_ANSWER => Err(PostError::TooLong),
            status => Ok(status),
        }
    }
}

/// What is sent: what the agent sends in the other modes.
fn request(url: &LocalUrl<'_>, generation: &str) -> Vec<u8> {
    let body = format!("{{\"generation\":{}}}", json_text(generation));
    let slash = if url.path.starts_with('/') { "" } else { "/" };
    let (path, authority, version, length) = (url.path, url.authority, env!("CARGO_PKG_VERSION"), body.len());
    format!(
        "POST {slash}{path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n\
         user-agent: {AGENT_NAME}/{version}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// `localhost` is both loopback addresses, whatever a resolver would say, which a static program lacks. The error of the
/// second is the one told: few hosts listen on `::1`.
fn addresses(url: &LocalUrl<'_>) -> Vec<SocketAddr> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, url.port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, url.port));
    match url.host {
        "127.0.0.1" => vec![v4],
        "::1" => vec![v6],
        _ => vec![v6, v4],
    }
}

/// The first of `others` where a connection can begin; `error` if there is none.
fn next(others: &mut impl Iterator<Item = SocketAddr>, mut error: io::Error) -> io::Result<TcpStream> {
    for address in others {
        match open(address) {
            Ok(stream) => return Ok(stream),
            Err(other) => error = other,
        }
    }
    Err(error)
}

/// Begins a connection.
fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(errno) => Err(errno.into()),
    }
}

/// The status of an answer (RFC 9112 §4), as soon as it is there. Informational answers before it are passed over.
fn status(answer: &[u8]) -> Result<Option<u16>, PostError> {
    let mut rest = answer;
    loop {
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
        let line = rest.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let status = status_of(line).ok_or(PostError::NotHttp)?;
        // 101 is the last answer in this protocol, and nobody asked for another one.
        if !(100..200).contains(&status) || status == 101 {
            return Ok(Some(status));
        }
        let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        rest = rest.get(end + 4..).unwrap_or_default();
    }
}

fn status_of(line: &[u8]) -> Option<u16> {
    let [b'0'..=b'9', b' ', digits @ ..] = line.strip_prefix(b"HTTP/1.")? else { return None };
    let digits = digits.split(|&byte| byte == b' ').next().filter(|digits| digits.len() == 3)?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|status| *status >= 100)
}

#[cfg(test)]
mod tests;
